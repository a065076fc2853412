"""Every notebook works in JupyterLab in the hands of a person, with the network cut.

A browser runs the first lesson, looks at what is there, unfolds the hints and types
answers. It opens all others as they are stored: that their cells run, nbval shows.
Pictures of every notebook are kept in the folder ``COURSE_PICTURES``, if set.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from browser import (
    PANEL,
    Lab,
    NoBrowser,
    Notebook,
    find_browser,
    lab_command,
    launched,
    open_without_kernels,
)
from exercise_tools import Solved, find_exercises
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from playwright.sync_api import Browser, Error, Locator, Page
from run_offline import few_colour_images

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
PATHS = [
    path.relative_to(NOTEBOOKS).as_posix()
    for folder in (NOTEBOOKS, NOTEBOOKS / "solutions")
    for path in sorted(folder.glob("[0-9]*.ipynb"))
]
RUN = PATHS[0]
# A solution shows all that its lesson shows, and its answers (test_whole_run.py). So a
# lesson is opened besides only if pictures of it are wanted.
OPENED = [
    path
    for path in PATHS[1:]
    if path.startswith("solutions/") or "COURSE_PICTURES" in os.environ
]
EXERCISES = find_exercises()
LEARNER, SOLVED = "not attempted yet", "correct: "
OUTPUT = ".jp-Notebook .jp-OutputArea-output"


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    """Start the server that ``make lab`` starts, on fewer images: it answers sooner."""
    images = few_colour_images(tmp_path_factory.mktemp("images") / "hub")
    server = Lab(tmp_path_factory.mktemp("lab"), COURSE_DATASET=images)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def browser(lab) -> Iterator[Browser]:
    """Launch a browser beside the server."""
    with launched(lab.launch) as browser:
        yield browser


@pytest.fixture(scope="module")
def shelf(browser, lab) -> Iterator[Page]:
    """Open JupyterLab once, for all notebooks that are only opened."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(180_000)
    open_without_kernels(page, lab)
    yield page
    page.context.close()


@pytest.fixture
def page(browser) -> Iterator[Page]:
    """Open an empty page."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(180_000)
    yield page
    page.context.close()


# --------------------------------------------------------------- what a person looks at


MENUS = ["File", "Edit", "View", "Run", "Kernel", "Tabs", "Settings", "Help"]
"""JupyterLab's own: none of a tool that learners have no use for."""


def it_opens_unchanged(notebook: Notebook) -> None:
    """Look for the dot that says that a notebook is not saved, once a kernel runs."""
    notebook.wait(
        f"() => {PANEL}.content.model.getMetadata('language_info')?.version",
        "knows nothing of its kernel",
        seconds=60,
    )
    assert notebook.page.locator(".lm-TabBar-tab.jp-mod-current").count() == 1
    assert notebook.page.locator(".jp-mod-dirty").count() == 0


def nobody_asks_for_anything(notebook: Notebook) -> None:
    assert notebook.page.locator(".lm-MenuBar-itemLabel").all_inner_texts() == MENUS
    for kind in (".jp-Dialog", ".Toastify__toast"):
        assert notebook.page.locator(kind).all_inner_texts() == []


def lesson(path: str) -> int:
    return int(Path(path).name[:2])


def markdown(notebook: Notebook) -> str:
    cells = [c["source"] for c in notebook.cells() if c["type"] == "markdown"]
    return re.sub(r"```.*?```", "", "\n\n".join(cells), flags=re.DOTALL)


def every_cell_ran_without_an_error(notebook: Notebook) -> None:
    for cell in notebook.cells():
        for output in cell["outputs"]:
            error = f"{output.get('ename')}: {output.get('evalue')}"
            assert output["output_type"] != "error", f"{error} in\n{cell['source']}"
            assert output.get("name") != "stderr", output["text"]
        assert cell["count"] or cell["type"] != "code", cell["source"]
    for kind in ("error", "stderr"):
        red = f"{OUTPUT}[data-mime-type='application/vnd.jupyter.{kind}']"
        assert notebook.page.locator(red).count() == 0


def figures_are_to_be_seen(notebook: Notebook, expected: int) -> None:
    found = notebook.page.locator(f"{OUTPUT} img").evaluate_all(
        """images => images.map(image => ({
            pixels: image.complete && image.naturalWidth * image.naturalHeight,
            width: image.getBoundingClientRect().width,
            height: image.getBoundingClientRect().height,
            visible: image.checkVisibility(),
        }))"""
    )
    assert len(found) == expected
    for figure in found:
        assert figure["visible"] and figure["pixels"], figure
        assert min(figure["width"], figure["height"]) > 50, figure


def tables_are_tables(notebook: Notebook) -> None:
    written = re.findall(r"^ *\|[ :|-]+\|\n(?=\s*\|)", markdown(notebook), re.M)
    tables = notebook.page.locator(".jp-Notebook .jp-RenderedMarkdown table")
    rows = tables.evaluate_all(
        """tables => tables.map(table =>
            table.checkVisibility() && table.querySelectorAll("td").length)"""
    )
    assert len(rows) == len(written) and all(rows)
    assert "|---" not in notebook.page.locator(".jp-Notebook").inner_text()


def folds_of(notebook: Notebook) -> Locator:
    """Find all that is folded: in the text, and a line below each figure."""
    folds = notebook.page.locator(".jp-Notebook .jp-RenderedMarkdown details")
    below = sum(
        "<details>" in "".join(output.get("data", {}).get("text/markdown", ""))
        for cell in notebook.cells()
        for output in cell["outputs"]
    )
    assert folds.count() == markdown(notebook).count("<details>") + below
    return folds


def every_fold_opens_by_mouse_and_by_keyboard(notebook: Notebook) -> None:
    for fold in folds_of(notebook).all():
        summary = fold.locator("summary")

        def hidden(fold=fold, summary=summary) -> str:
            # Of what is folded away, a browser shows and returns nothing.
            return fold.inner_text().removeprefix(summary.inner_text()).strip()

        assert not hidden()
        summary.click()
        assert hidden(), f"a click does not open {summary.inner_text()!r}"
        summary.press("Enter")
        assert not hidden(), f"Enter does not close {summary.inner_text()!r}"
        summary.press("Enter")
        assert hidden(), f"Enter does not open {summary.inner_text()!r}"


def every_fold_opens(notebook: Notebook) -> None:
    """Click each fold from within the page, which is quick, and leave it open."""
    wrong = folds_of(notebook).evaluate_all(
        """folds => folds.flatMap(fold => {
            const summary = fold.querySelector("summary");
            // Of what is folded away, a browser shows and returns nothing.
            const hidden = () => fold.innerText.replace(summary.innerText, "").trim();
            if (hidden()) return [`${summary.innerText} is open from the start`];
            summary.click();
            return hidden() ? [] : [`${summary.innerText} holds nothing`];
        })"""
    )
    assert not wrong


def progress_bars_are_bars_and_have_ended(notebook: Notebook) -> None:
    widgets = "application/vnd.jupyter.widget-view+json"
    made = [
        output
        for cell in notebook.cells()
        for output in cell["outputs"]
        if widgets in output.get("data", {})
    ]
    # A bar that has ended is hidden, unless it is to stay.
    panels = notebook.page.locator(f"{OUTPUT}.lm-Panel")
    assert panels.count() == len(made)
    for panel in panels.all():
        if not panel.is_visible():
            continue
        bar = panel.locator(".progress-bar")
        assert bar.count() == 1, panel.inner_text()
        assert "danger" not in bar.get_attribute("class"), panel.inner_text()
        assert "width: 100%" in bar.get_attribute("style"), panel.inner_text()


def nothing_is_wider_than_the_page(notebook: Notebook) -> None:
    wide = notebook.page.locator(
        f"{OUTPUT}, {OUTPUT} *, .jp-RenderedMarkdown, .jp-RenderedMarkdown *, "
        ".cm-scroller"
    ).evaluate_all(
        """parts => parts.filter(part => part.clientWidth
            && part.scrollWidth > part.clientWidth + 1
            && getComputedStyle(part).overflowX !== "visible"
        ).map(part => part.innerText.slice(0, 300))"""
    )
    assert not wide


def no_line_is_broken(notebook: Notebook) -> None:
    """Require short lines: JupyterLab breaks long ones in the middle of a word."""
    long = notebook.page.locator(f"{OUTPUT} pre").evaluate_all(
        """blocks => blocks.flatMap(block => {
            const lines = block.textContent.replace(/\\n$/, "").split("\\n");
            const height = parseFloat(getComputedStyle(block).lineHeight);
            const shown = block.getBoundingClientRect().height / height;
            const longest = lines.reduce((a, b) => a.length < b.length ? b : a);
            return shown < lines.length + 0.9 ? [] : [longest];
        })"""
    )
    assert not long


def checks_say(notebook: Notebook, expected: str) -> None:
    cells = notebook.cells()
    for exercise in EXERCISES:
        if exercise.name.startswith(f"{lesson(notebook.path)}."):
            cell = cells[notebook.find(f'check("{exercise.name}"', cells)]
            printed = "".join(output.get("text", "") for output in cell["outputs"])
            assert printed.startswith(f"{exercise.name} {expected}"), printed


# ------------------------------------------------------------------ what a person types


def number(exercise: Solved) -> str:
    return exercise.name.split(".")[0].zfill(2)


# To the first exercise, as one would type it, and what the check says.
WRONG_ANSWER = """\
def shares(num_examples):
    return [1 / len(num_examples) for _ in num_examples]"""
MISTAKE = "every client counts equally: weight by number of examples"


def a_right_answer(exercise: Solved) -> str:
    """Return the cell that solves the exercise in the solution notebook."""
    (path,) = (NOTEBOOKS / "solutions").glob(f"{number(exercise)}_*.ipynb")
    start = f"def {exercise.function}("
    (source,) = [
        cell.source
        for cell in nbformat.read(path, as_version=4).cells
        if re.search(rf"^{re.escape(start)}", cell.source, re.M)
    ]
    return source


def an_exercise_is_done_by_keyboard(notebook: Notebook, exercise: Solved) -> None:
    stub = notebook.find(f"def {exercise.function}(")
    check = notebook.find(f'check("{exercise.name}"')
    for answer, said in (
        (WRONG_ANSWER, f"{exercise.name} not right yet: "),
        (a_right_answer(exercise), f"{exercise.name} correct: "),
    ):
        notebook.go_to(stub)
        notebook.page.keyboard.press("Enter")
        notebook.type(answer)
        assert notebook.run_selected() == ""
        notebook.go_to(check)
        printed = notebook.run_selected()
        assert printed.startswith(said), printed
        assert (MISTAKE in " ".join(printed.split())) == (answer == WRONG_ANSWER)


def the_first_hint_is_reached_by_keyboard(notebook: Notebook) -> None:
    (first, *_) = (
        number
        for number, cell in enumerate(notebook.cells())
        if cell["type"] == "markdown" and "<details>" in cell["source"]
    )
    keyboard, page = notebook.page.keyboard, notebook.page
    fold = page.locator(".jp-Notebook .jp-MarkdownCell details").first
    notebook.go_to(first)
    before = fold.get_attribute("open")
    for _ in range(30):
        keyboard.press("Tab")
        if fold.locator("summary").evaluate("it => it === document.activeElement"):
            break
    keyboard.press("Enter")
    assert fold.get_attribute("open") != before


def a_restarted_kernel_runs_a_cell(notebook: Notebook, seconds: float = 180) -> None:
    notebook.restart(seconds)
    cells = notebook.cells()
    first = next(n for n, cell in enumerate(cells) if cell["type"] == "code")
    notebook.go_to(first)
    notebook.run_selected(seconds)
    cell = notebook.cells()[first]
    assert cell["count"] == 1, f"the kernel is not a new one: {cell['count']}"
    assert all(output["output_type"] != "error" for output in cell["outputs"]), cell


def text_is_light_on_dark(notebook: Notebook, seconds: float = 180) -> None:
    notebook.wait(
        """() => {
            const grey = colour => colour.match(/[0-9.]+/g).slice(0, 3)
                .reduce((sum, part) => sum + Number(part) / 3, 0);
            const text = document.querySelector(".jp-Notebook .jp-RenderedMarkdown");
            let ground = text;
            const colour = () => getComputedStyle(ground).backgroundColor;
            while (ground.parentElement && colour() === "rgba(0, 0, 0, 0)")
                ground = ground.parentElement;
            return grey(getComputedStyle(text).color) > 150 && grey(colour()) < 80;
        }""",
        "does not show light text on dark",
        seconds,
    )


def a_page_opens_rendered_at_its_heading(notebook: Notebook, seconds=180) -> None:
    links = re.findall(r"\]\(([\w/.]+\.md)(?:#([\w-]+))?\)", markdown(notebook))
    if not links:
        return
    target, heading = next((link for link in links if link[1]), links[0])
    # In the page, the address of a file has a query, which ends in the heading.
    link = f"a[href*='{Path(target).name}']" + (heading and f"[href$='#{heading}']")
    notebook.page.locator(f".jp-Notebook .jp-RenderedMarkdown {link}").first.click()
    notebook.wait(
        """heading => {
            const viewer = [...document.querySelectorAll(".jp-MarkdownViewer")].find(
                viewer => viewer.checkVisibility());
            const place = heading
                ? viewer?.querySelector(`[data-jupyter-id="${heading}"]`)
                : viewer?.querySelector("h1");
            if (!place) return false;
            const box = viewer.getBoundingClientRect();
            const top = place.getBoundingClientRect().top;
            return box.top - 50 < top && top < box.bottom;
        }""",
        f"does not show {target} at {heading or 'its top'!r}",
        seconds,
        heading,
    )


# ---------------------------------------------------------------------------- the tests


def test_make_lab_opens_the_first_lesson() -> None:
    *_, option, path = lab_command("--port=8899")
    assert (option, path) == ("--port=8899", f"notebooks/{PATHS[0]}")


@pytest.mark.timeout(1500)
def test_the_first_lesson_works_in_the_hands_of_a_person(lab, page) -> None:
    notebook = Notebook(page, lab, RUN)
    it_opens_unchanged(notebook)
    notebook.run_all(600)
    nobody_asks_for_anything(notebook)
    every_cell_ran_without_an_error(notebook)
    assert notebook.page.locator(f"{OUTPUT}.lm-Panel").count(), "no progress bar"
    progress_bars_are_bars_and_have_ended(notebook)
    figures_are_to_be_seen(notebook, stored_figures(RUN))
    every_fold_opens_by_mouse_and_by_keyboard(notebook)
    tables_are_tables(notebook)  # those that were folded away, too
    checks_say(notebook, LEARNER)
    keep_pictures(notebook)
    nothing_is_wider_than_the_page(notebook)
    no_line_is_broken(notebook)
    an_exercise_is_done_by_keyboard(notebook, EXERCISES[0])
    the_first_hint_is_reached_by_keyboard(notebook)
    notebook.set_theme("Dark")
    text_is_light_on_dark(notebook)
    notebook.set_theme("Light")
    a_restarted_kernel_runs_a_cell(notebook)
    a_page_opens_rendered_at_its_heading(notebook)
    notebook.close()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", OPENED)
def test_a_stored_notebook_is_good_to_look_at(path, lab, shelf) -> None:
    with Notebook.opened(shelf, lab, path) as notebook:
        every_cell_ran_without_an_error(notebook)
        figures_are_to_be_seen(notebook, stored_figures(path))
        every_fold_opens(notebook)
        tables_are_tables(notebook)  # those that were folded away, too
        solved = path.startswith("solutions/")
        checks_say(notebook, SOLVED if solved else LEARNER)
        keep_pictures(notebook)
        nothing_is_wider_than_the_page(notebook)
        no_line_is_broken(notebook)
        if lesson(path) in (0, 7):  # what the others link to, other tests look up
            a_page_opens_rendered_at_its_heading(notebook)


def keep_pictures(notebook: Notebook) -> None:
    """Take pictures of a notebook if the user wants them; a lesson's also in dark."""
    folder = os.environ.get("COURSE_PICTURES")
    if not folder:
        return
    name = notebook.path.removesuffix(".ipynb").replace("/", "-")
    notebook.take_pictures(Path(folder), name)
    if not notebook.path.startswith("solutions/"):
        notebook.set_theme("Dark")
        notebook.take_pictures(Path(folder), f"{name}-dark", width=1024)
        notebook.set_theme("Light")
    notebook.page.set_viewport_size({"width": 1280, "height": 900})


def stored_figures(path: str) -> int:
    """Count the figures that a lesson stores, in its notebook or in its solution."""
    name = Path(path).name
    return max(map(figures_in, (NOTEBOOKS / name, NOTEBOOKS / "solutions" / name)))


def figures_in(path: Path) -> int:
    cells = nbformat.read(path, as_version=4).cells
    outputs = [o for c in cells if c.cell_type == "code" for o in c.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)


BROKEN = [
    new_markdown_cell("| a | b |\n|---|\n| 1 | 2 |"),
    new_markdown_cell("<details><summary>Hint 1</summary></details>"),
    new_markdown_cell("[a page](teaching/classroom.md#No-Such-Heading)"),
    new_code_cell("from tqdm.auto import tqdm\n\nbar = tqdm(total=3)"),
    new_code_cell(
        "from IPython.display import HTML, display\n"
        "display(HTML('<img width=0 height=0 src=\"data:image/gif;base64,"
        "R0lGODlhAQABAAAAACw=\">'))\n"
        "display(HTML('<pre style=\"white-space: pre\">' + 300 * 'wide'))\n"
        "print(30 * 'long')"
    ),
    new_code_cell('def check(name, answer):\n    print(name, "perhaps")'),
    new_code_cell("def shares():\n    raise NotImplementedError"),
    new_code_cell('check("0.1", shares)'),
    new_code_cell("1 / 0"),
]
NOTICED = [
    (it_opens_unchanged, "1 == 0"),
    (every_cell_ran_without_an_error, "ZeroDivisionError: division by zero"),
    (progress_bars_are_bars_and_have_ended, "0/3"),
    (lambda notebook: figures_are_to_be_seen(notebook, 1), "width"),
    (lambda notebook: figures_are_to_be_seen(notebook, 2), "== 2"),
    (tables_are_tables, "0 == 1"),
    (every_fold_opens, "Hint 1 holds nothing"),
    (every_fold_opens_by_mouse_and_by_keyboard, "click does not open 'Hint 1'"),
    (lambda notebook: checks_say(notebook, SOLVED), "perhaps"),
    (nothing_is_wider_than_the_page, "widewide"),
    (no_line_is_broken, "longlong"),
    (
        lambda notebook: text_is_light_on_dark(notebook, seconds=1),
        "does not show light text on dark after 1 s",
    ),
    (
        lambda notebook: an_exercise_is_done_by_keyboard(notebook, EXERCISES[0]),
        "perhaps",
    ),
    (
        lambda notebook: a_page_opens_rendered_at_its_heading(notebook, seconds=5),
        "does not show teaching/classroom.md at 'No-Such-Heading' after 5 s",
    ),
]


def write(path: Path, cells: list) -> None:
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)"}
    notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, path)


def test_what_is_broken_is_noticed(lab, page) -> None:
    path = "00_broken.ipynb"
    write(lab.notebooks / path, BROKEN)
    notebook = Notebook(page, lab, path)
    notebook.run_all(60)
    for look, sentence in NOTICED:
        with pytest.raises(AssertionError, match=re.escape(sentence)):
            look(notebook)


def test_a_check_that_never_answers_is_noticed(lab, page) -> None:
    path = "00_silent.ipynb"
    silent = new_code_cell("while True:\n    pass")
    write(lab.notebooks / path, [silent])
    notebook = Notebook(page, lab, path)
    with pytest.raises(AssertionError, match="has not run after 3 s"):
        notebook.run_all(3)
    notebook.go_to(0)
    with pytest.raises(AssertionError, match="has not run its cell 0 after 3 s"):
        notebook.run_selected(3)
    notebook.close()


def test_without_any_browser_one_sentence_says_how_to_get_one(monkeypatch) -> None:
    class Bare:
        """A Playwright that finds no browser."""

        executable_path = "nowhere"

        def launch(self, channel: str) -> None:
            raise Error(f"no {channel}")

    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("browser.is_debian_as_root", lambda: False)
    with pytest.raises(NoBrowser, match="run `python -m playwright install chromium`"):
        find_browser(SimpleNamespace(chromium=Bare()))
