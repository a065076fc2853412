"""Every lesson's slides fit their screen, load nothing, and show what the tags say."""

import re
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from statistics import median

import jupytext
import nbformat
import pytest
from browser import launched_without_hosts
from nbformat.v4 import new_output
from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "notebooks" / "tools"))
import slides  # noqa: E402
import teaching  # noqa: E402
from slides import build  # noqa: E402

SOURCES = sorted(build.SOURCES.glob("[0-9]*.py"))
every_source = pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.stem)


@cache
def deck(source: Path) -> str:
    """Make a lesson's deck once."""
    return slides.make_deck(source, build.NOTEBOOKS / f"{source.stem}.ipynb")


# ------------------------------------------------------------------------ in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    with launched_without_hosts(tmp_path_factory.mktemp("home")) as browser:
        yield browser


@pytest.fixture
def page(browser) -> Iterator[Page]:
    """Open a page that is as large as a slide."""
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    yield page
    page.context.close()


def show(page: Page, html: str, folder: Path) -> tuple[list[str], list[str]]:
    """Open a deck from a file; return what it asks for and what goes wrong, so far."""
    requests, errors = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text))
    path = folder / "deck.html"
    path.write_text(html, encoding="utf-8")
    page.goto(path.as_uri())
    page.wait_for_function("() => window.Reveal?.isReady()", timeout=30_000)
    return requests, errors


# In pixels of a slide, which is 1280 wide and 720 high, whatever the screen is.
MEASURE = """() => {
    const slide = Reveal.getCurrentSlide(), box = slide.getBoundingClientRect();
    const scale = Reveal.getScale(), parts = [...slide.querySelectorAll("*")];
    const sticksOut = part => {
        const {left, top, right, bottom} = part.getBoundingClientRect();
        return left < box.left - 1 || top < box.top - 1
            || right > box.right + 1 || bottom > box.bottom + 1
            || part.scrollWidth > part.clientWidth + 1 && part.tagName === "PRE";
    };
    const hasText = part => [...part.childNodes].some(
        node => node.nodeType === Node.TEXT_NODE && node.data.trim());
    return {
        size: [box.width / scale, box.height / scale].map(Math.round),
        heading: slide.querySelector("h1, h2, h3")?.textContent,
        outside: parts.filter(sticksOut).map(part => part.outerHTML.slice(0, 200)),
        section: slide.querySelector(".section")?.textContent,
        smallest: Math.min(...parts.filter(hasText).map(
            part => parseFloat(getComputedStyle(part).fontSize))),
        code: [...slide.querySelectorAll("pre")].map(
            part => parseFloat(getComputedStyle(part).fontSize)),
        prose: parseFloat(getComputedStyle(slide).fontSize),
        pictures: [...slide.querySelectorAll("img")].map(image => ({
            alt: image.alt,
            loaded: image.naturalWidth > 0,
            height: image.getBoundingClientRect().height / scale,
        })),
    };
}"""


def look_at_slides(page: Page) -> list[dict]:
    """Go through all slides, and measure each."""
    found = []
    for number in range(page.evaluate("Reveal.getTotalSlides()")):
        page.evaluate("number => Reveal.slide(number)", number)
        found.append(page.evaluate(MEASURE))
    return found


@every_source
def test_a_deck_fits_the_screen_and_asks_for_nothing(source, page, tmp_path) -> None:
    requests, errors = show(page, deck(source), tmp_path)
    seen = look_at_slides(page)
    exercises = [slide for slide in seen if slide["heading"].startswith("Exercise ")]
    assert 12 <= len(seen) - len(exercises) <= 22
    title = build.make_notebook(source).cells[0].source
    assert f"# {seen[0]['heading']}\n" in title
    assert seen[-1]["heading"] == "Takeaways"
    for number, slide in enumerate(seen, start=1):
        assert slide["size"] == [1280, 720]
        assert slide["heading"], number
        assert not slide["outside"], (number, slide["outside"])
        assert slide["smallest"] >= 18 and slide["prose"] >= 24, number
        for picture in slide["pictures"]:
            assert picture["loaded"] and picture["height"] >= 250, number
            assert picture["alt"].startswith("Figure: ") and len(picture["alt"]) > 60
    cells = [c for c in build.make_notebook(source).cells if slides.kind_of(c)]
    plotted = sum(bool(re.search(r"^(plot|draw)_", c.source, re.M)) for c in cells)
    assert sum(len(slide["pictures"]) for slide in seen) == plotted
    # A line of 20 pixels is 1 in 36 on the wall; most code is larger.
    code = [size for slide in seen for size in slide["code"]]
    assert min(code) >= 20 and median(code) >= 24
    headings = [(slide["section"], slide["heading"]) for slide in seen]
    assert len(set(headings)) == len(headings)
    assert {url.split(":")[0] for url in requests} <= {"file", "data"}
    assert sum(url.startswith("file:") for url in requests) == 1
    assert not errors


def test_the_speakers_view_shows_what_to_say_first(page, tmp_path) -> None:
    show(page, deck(SOURCES[0]), tmp_path)
    with page.expect_popup() as opened:
        page.keyboard.press("s")
    notes = opened.value.locator(".speaker-controls-notes .value")
    notes.get_by_text("Ten hospitals want one model").wait_for(timeout=30_000)
    assert not page.get_by_text("Ten hospitals want one model").is_visible()


def test_an_answer_appears_at_the_next_key(page, tmp_path) -> None:
    show(page, deck(SOURCES[0]), tmp_path)
    words = "() => Reveal.getCurrentSlide().textContent"
    while "The plain mean would be 4." not in page.evaluate(words):
        assert not page.evaluate("Reveal.isLastSlide()"), "the question is nowhere"
        page.evaluate("Reveal.right()")
    here = page.evaluate("Reveal.getIndices().h")
    answer = page.get_by_text("{'w': tensor(6.)}", exact=True)
    assert not answer.is_visible()
    page.keyboard.press("ArrowRight")
    answer.wait_for(state="visible", timeout=10_000)
    assert page.evaluate("Reveal.getIndices().h") == here


def test_a_number_goes_to_the_slide_that_a_run_sheet_names(page, tmp_path) -> None:
    show(page, deck(SOURCES[0]), tmp_path)
    page.keyboard.press("g")
    page.keyboard.type("20")
    page.keyboard.press("Enter")
    heading = page.get_by_role("heading", name="Exercise 0.3: one round")
    heading.wait_for(state="visible", timeout=10_000)
    assert page.locator(".slide-number").inner_text().startswith("20")


def test_a_deck_prints_one_page_for_each_slide(page, tmp_path) -> None:
    show(page, deck(SOURCES[0]), tmp_path)
    slides_shown = page.evaluate("Reveal.getTotalSlides()")
    page.emulate_media(media="print")
    page.goto((tmp_path / "deck.html").as_uri() + "?view=print")
    page.wait_for_selector(".pdf-page", timeout=30_000)
    assert page.locator(".pdf-page").count() == slides_shown
    assert page.locator(".pdf-page img").count() == 2
    for picture in page.locator(".pdf-page img").all():
        assert picture.bounding_box()["height"] >= 250


# ------------------------------------------------------------------- without a browser


class Resources(HTMLParser):
    """Collects what a page would load: whatever is no link to click on."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attributes) -> None:
        for name, value in attributes:
            if name in ("src", "srcset", "data", "poster") or (
                name == "href" and tag != "a"
            ):
                self.addresses.append(value)


@every_source
def test_a_deck_names_no_address_to_load_from(source) -> None:
    page = deck(source)
    resources = Resources()
    resources.feed(page)
    assert all(address.startswith("data:") for address in resources.addresses)
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL))
    assert ".reveal" in styles and "@import" not in styles
    assert all(u.startswith("data:") for u in re.findall(r"url\(['\"]?([^)]*)", styles))
    assert "import(" not in page.split("Reveal.initialize")[1]


@every_source
def test_a_deck_leaves_out_what_serves_a_reader_only(source) -> None:
    page = deck(source)
    for unwanted in ("colab", "find_spec", "<details", "You need:", ".ipynb"):
        assert unwanted not in page
    assert "No description has been provided" not in page


@cache
def made(source: Path) -> list[slides.Slide]:
    """Return a lesson's slides, not yet a page."""
    return slides.deck_of(lesson_of(source), source.name)


def lesson_of(source: Path) -> nbformat.NotebookNode:
    lesson = build.make_notebook(source)
    stored = nbformat.read(build.NOTEBOOKS / f"{source.stem}.ipynb", as_version=4)
    slides.add_outputs(lesson, stored)
    return lesson


@every_source
def test_no_slide_is_nearly_empty_or_only_announces_the_next(source) -> None:
    for slide in made(source):
        assert not slides.is_thin(slide), slide.heading
        last = slide.cells[-1]
        assert last.cell_type == "code" or last.source[-1] != ":", slide.heading


@every_source
def test_each_exercise_is_a_slide_with_what_its_card_says(source) -> None:
    text = source.read_text("utf-8")
    cards = re.findall(r"^# ### (Exercise \d+\.\d+: .*)$", text, re.M)
    shown = {slide.heading: slide for slide in made(source)}
    assert len(cards) == text.count('\ncheck("') >= 3
    for card in cards:
        text = shown[f"## {card}"].cells[0].source
        assert text.startswith("| difficulty | minutes |") and len(text) > 200


@every_source
def test_code_on_a_slide_uses_only_what_was_shown(source) -> None:
    lesson, ours, shown = build.make_notebook(source), set(), set()
    for cell in lesson.cells:
        if cell.cell_type == "code":
            ours |= set(slides.definitions(cell.source))
    for slide in made(source):
        for cell in slide.cells:
            if "before" in cell.source:
                shown |= set(re.findall(r"\w+", cell.source))
            if cell.cell_type == "code" and not slides.is_hidden(cell):
                used, defined = slides.names(cell.source)
                shown |= defined
                # What another package has given has no line on a slide.
                unknown = {n for n in used if n in ours and n not in shown}
                assert unknown <= imported(lesson), (slide.heading, unknown)


def imported(lesson: nbformat.NotebookNode) -> set[str]:
    """Return the names that come from outside the course."""
    code = [c.source for c in lesson.cells if c.cell_type == "code"]
    return {
        n for text in code for n, was in slides.definitions(text).items() if not was
    }


@every_source
def test_the_speaker_has_what_the_teachers_page_says(source) -> None:
    words = teaching.words(teaching.PAGE.read_text("utf-8"), source.stem[:2])
    first, *_, last = made(source)
    notes = "\n".join(note for slide in made(source) for note in slide.notes)
    assert words.say in first.notes and len(words.say) > 100
    assert "**Ask the room**" in last.notes and len(words.asks) >= 3
    for said in (*words.stalls, *words.asks):
        assert slides.without_relative_links(said) in notes
    for slide in made(source)[1:-1]:
        for number in re.findall(r"## Exercise (\d+\.\d+)", slide.heading):
            assert all(number in note for note in slide.notes[1:2])
    assert deck(source).count('<aside class="notes">') >= 2


def test_a_deck_carries_the_licence_of_reveal_js() -> None:
    page = deck(SOURCES[0])
    assert "MarkedJS" in page
    assert "Hakim El Hattab" in page
    assert "The above copyright notice and this permission notice shall be" in page


# ------------------------------------------------------------------------ what tags say

LESSON = """\
# %% [markdown] tags=["slide"]
# # 42 · Slides
#
# **Time:** 1 minute

# %% [markdown]
# ## A section
#
# Not shown.

# %% [markdown] tags=["slide"]
# **Predict:** what is it? See [there](01_messages_and_records.ipynb).
#
# <details><summary>Hint</summary>
#
# A hint.
# </details>

# %% tags=["slide-then", "slide-output"]
print("hidden code")

# %% tags=["slide-more"]
print("shown code")

# %%
print("left out")
"""


def write_lesson(folder: Path, text: str) -> tuple[Path, Path]:
    """Write a source and its stored notebook, in which each cell has an output."""
    source, stored = folder / "42_slides.py", folder / "42_slides.ipynb"
    source.write_text(text, encoding="utf-8")
    notebook = build.make_notebook(source)
    for number, cell in enumerate(reversed(notebook.cells), start=1):
        if cell.cell_type == "code":
            cell.outputs = [
                new_output("stream", name="stdout", text=f"output {number}\n")
            ]
    nbformat.write(notebook, stored)
    return source, stored


def texts(page: str) -> list[str]:
    """Return the words of each slide."""
    sections = re.findall(
        r"<section *><section *>(.*?)</section></section>", page, re.S
    )
    return [" ".join(re.sub(r"<[^>]*>", " ", part).split()) for part in sections]


def test_tags_say_what_is_shown_and_where(tmp_path) -> None:
    page = slides.make_deck(*write_lesson(tmp_path, LESSON))
    first, second = texts(page)
    assert first == "42 · Slides Time: 1 minute"
    assert second == (
        "A section Predict: what is it? See there. output 3 "
        'print ( "shown code" ) output 2'
    )
    assert page.count('<div class="fragment"') == 1


MORE = """\
# %% [markdown] tags=["slide"]
# # 42 · Slides
#
# One line, another line, and more of it, so that this is no thin slide: it takes
# three lines at least, which is what this one is here for, and nothing else but that.
#
# The last of them. Compare the steps:

# %%
def helper(x, *, y=1):
    return x


LIMIT = 3
import numpy as np

# %% [markdown] tags=["slide"]
# ## A section
#
# Announced here:

# %% tags=["slide"]
print(helper(LIMIT), np)

# %% tags=["slide"]
def shown():
    return helper(1)

# %% [markdown] tags=["slide", "title: Named"]
# **Predict:** a line.
#
# Another one.
#
# - And a third.

# %% [markdown]
# ### Exercise 42.1: a card
#
# What to do, in a line.
#
# And more, in another one. And more, in another one. And more, in another one, to
# the end.
"""


def test_what_no_tag_has_to_say(tmp_path) -> None:
    source, stored = write_lesson(tmp_path, MORE)
    lesson = build.make_notebook(source)
    slides.add_outputs(lesson, nbformat.read(stored, as_version=4))
    deck = slides.deck_of(lesson, source.name)
    assert [(slide.section, slide.heading) for slide in deck] == [
        ("", "# 42 · Slides"),
        ("A section", "## A section"),
        ("A section", "## `shown`"),
        ("A section", "## Named"),
        ("A section", "## Exercise 42.1: a card"),
    ]
    assert deck[0].cells[-1].source.endswith("The last of them.")
    announced, before, code = deck[1].cells
    assert announced.source == "Announced here:" and "print" in code.source
    assert "helper(x, y)</code>, <code>LIMIT = 3</code>" in before.source
    assert "np" not in before.source, "other packages have known names"
    assert [cell.cell_type for cell in deck[2].cells] == ["code"], "helper was shown"


def test_new_tags_and_prose_need_no_new_run(tmp_path) -> None:
    source, stored = write_lesson(tmp_path, LESSON)
    source.write_text(
        LESSON.replace('# %%\nprint("left', '# %% tags=["slide-more"]\nprint("left')
    )
    assert texts(slides.make_deck(source, stored))[1].endswith("output 1")


def test_making_a_deck_again_changes_nothing(tmp_path) -> None:
    lesson = write_lesson(tmp_path, LESSON)
    assert slides.make_deck(*lesson) == slides.make_deck(*lesson)


@pytest.mark.parametrize("too_large", ["long line " * 20, "many lines\n" * 40])
def test_a_slide_that_overflows_is_noticed(too_large, page, tmp_path) -> None:
    source, stored = write_lesson(tmp_path, LESSON)
    lesson = jupytext.read(source)
    lesson.cells[-2].source = f'"""{too_large}"""'
    source, stored = write_lesson(tmp_path, jupytext.writes(lesson, fmt="py:percent"))
    show(page, slides.make_deck(source, stored), tmp_path)
    assert [bool(slide["outside"]) for slide in look_at_slides(page)] == [False, True]


# ------------------------------------------------------------------------ what is told


def run_tool(monkeypatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["slides.py", *map(str, words)])
    slides.main()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("# %% [markdown]\n# # 42 · Untagged\n", "42_slides.py has no slides: tag its"),
        (LESSON.replace('"slide"', '"slide-more"'), "the first tagged cell is no `sli"),
    ],
)
def test_a_lesson_without_slides_is_told_in_one_sentence(
    text, sentence, tmp_path
) -> None:
    with pytest.raises(ValueError, match=sentence) as told:
        slides.make_deck(*write_lesson(tmp_path, text))
    assert "\n" not in str(told.value)


def test_a_lesson_that_was_never_made_is_told(tmp_path, monkeypatch) -> None:
    write_lesson(tmp_path, LESSON)
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    with pytest.raises(SystemExit, match=r"^42_slides\.ipynb is missing: make it by"):
        run_tool(monkeypatch, "42", "--folder", tmp_path / "decks")
    assert not list((tmp_path / "decks").iterdir())


def test_changed_code_that_was_not_run_is_told(tmp_path) -> None:
    source, stored = write_lesson(tmp_path, LESSON)
    source.write_text(LESSON.replace("shown code", "new code"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"make notebooks`\.\nprint\(\"new code\"\)"):
        slides.make_deck(source, stored)


def test_a_missing_reveal_js_is_told(monkeypatch) -> None:
    monkeypatch.setattr(slides, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[lab,dev\]'"):
        slides.reveal()


def test_lessons_are_chosen_by_number(tmp_path, monkeypatch, capsys) -> None:
    with pytest.raises(SystemExit, match=r"^There is no lesson '1': take 00, 01, .*07"):
        run_tool(monkeypatch, "1", "--folder", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    source = SOURCES[3]
    run_tool(monkeypatch, source.stem[:2], "--folder", tmp_path / "decks")
    (made,) = (tmp_path / "decks").iterdir()
    assert made.name == f"{source.stem}.html"
    assert made.read_text(encoding="utf-8") == deck(source)
    assert capsys.readouterr().out == f"{made}\n"
