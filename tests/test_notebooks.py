"""The notebooks are what their sources make, were executed, and read as they should."""

import ast
import inspect
import json
import re
import subprocess
import sys
from functools import cache
from html import unescape
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest

import course_utils
from course_utils import data, model, partitions, plots, runtime

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
sys.path.insert(0, str(NOTEBOOKS / "tools"))
import build  # noqa: E402
import slides  # noqa: E402

SOURCES = sorted(build.SOURCES.glob("[0-9]*.py"))
TARGETS = [
    pytest.param(source, path, solved, id=f"{path.parent.name}/{path.stem}")
    for source in SOURCES
    for path, solved in build.targets(source)
]
every_notebook = pytest.mark.parametrize(("source", "path", "solved"), TARGETS)
every_source = pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.stem)


def read(path: Path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


# ---------------------------------------------------------------- stored as they should


def test_every_source_has_its_notebooks_and_no_notebook_lacks_a_source() -> None:
    stored = {*NOTEBOOKS.glob("*.ipynb"), *NOTEBOOKS.glob("solutions/*.ipynb")}
    assert stored == {param.values[1] for param in TARGETS}
    assert len(SOURCES) >= 8


def is_what_its_source_makes(source: Path, path: Path, solved: bool) -> bool:
    """Compare all but the outputs, which nbval compares."""
    made, stored = build.make_notebook(source, solved=solved), read(path)
    for cell in (*code_cells(stored), *code_cells(made)):
        cell.outputs, cell.execution_count = [], None
    return stored == made


@every_notebook
def test_a_notebook_is_what_its_source_makes(source, path, solved) -> None:
    assert is_what_its_source_makes(source, path, solved), "run `make notebooks`"


@pytest.mark.parametrize("position", [0, 1, 5, -1])
def test_a_hand_edited_notebook_is_noticed(position, tmp_path) -> None:
    source, path, solved = TARGETS[0].values
    edited = read(path)
    edited.cells[position].source += "\n# a word added by hand"
    nbformat.write(edited, tmp_path / "edited.ipynb")
    assert not is_what_its_source_makes(source, tmp_path / "edited.ipynb", solved)


@every_notebook
def test_every_cell_was_executed_and_none_ended_in_an_error(
    source, path, solved
) -> None:
    cells = code_cells(read(path))
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", cell.source


PAGE = 104
"""Characters that a line of output may have. JupyterLab shows 107 in a window of 1280
pixels, and breaks longer lines, and with them the frames of tables. With fewer, flwr's
table of runs would cut off how they ended."""


def wide_lines(notebook) -> list[str]:
    texts = [
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for cell in code_cells(notebook)
        for output in cell.outputs
    ]
    lines = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(texts)).split("\n")
    return [line for line in lines if len(line) > PAGE]


@every_notebook
def test_no_stored_line_is_wider_than_the_page(source, path, solved) -> None:
    assert not wide_lines(read(path))


def test_a_line_that_is_too_wide_is_noticed() -> None:
    cell = nbformat.v4.new_code_cell()
    for text in ("\x1b[31m" + PAGE * "a" + "\x1b[0m", "b\n" + (PAGE + 1) * "c"):
        cell.outputs.append(nbformat.v4.new_output("stream", text=text))
    notebook = nbformat.v4.new_notebook(cells=[cell])
    assert wide_lines(notebook) == [(PAGE + 1) * "c"]


SMALL = """\
# %% [markdown]
# # 42 · A small lesson
#
# A run of two clients that train, its table, and a figure.

# %%
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

from course_utils import model
from course_utils.partitions import load_partition
from course_utils.plots import plot_curves
from course_utils.runtime import run_in_process

client_app, server_app = ClientApp(), ServerApp()


@client_app.train()
def train(message, context):
    net = model.Net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    loader, _ = load_partition(context.node_config["partition-id"], 40)
    loss = model.train(net, loader)
    metrics = MetricRecord({"train-loss": loss, "num-examples": 100})
    arrays = ArrayRecord(net.state_dict())
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@server_app.main()
def main(grid, context):
    arrays = ArrayRecord(model.Net().state_dict())
    FedAvg(fraction_evaluate=0.0).start(grid, arrays, num_rounds=2)


# %%
run = run_in_process(server_app, client_app, num_supernodes=2, seed=3)
print(run.result.arrays.to_torch_state_dict()["head.bias"])
plot_curves({"a": [0.1, 0.5], "b": [0.2, 0.3]}, xlabel="round")
"""


def test_making_notebooks_again_changes_not_a_byte(tmp_path, monkeypatch) -> None:
    (tmp_path / "42_small.py").write_text(SMALL, encoding="utf-8")
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    target = tmp_path / "made"
    monkeypatch.setattr(sys, "argv", ["build.py", "--folder", str(target)])
    made = []
    for _ in range(2):
        build.main()
        made.append((target / "42_small.ipynb").read_bytes())
    assert made[0] == made[1]
    assert b"image/png" in made[0] and b"Figure: " in made[0]


def test_where_only_prose_has_changed_outputs_are_kept(tmp_path) -> None:
    source, path, solved = TARGETS[0].values
    edited = build.make_notebook(source, solved=solved)
    edited.cells[0].source += " One more sentence."
    build.keep_outputs(edited, path)
    stored = read(path)
    assert [c.outputs for c in code_cells(edited)] == [
        c.outputs for c in code_cells(stored)
    ]
    assert code_cells(edited)[-1].execution_count == len(code_cells(stored))
    code_cells(edited)[5].source += "\n# another line of code"
    with pytest.raises(SystemExit, match="make it without --prose"):
        build.keep_outputs(edited, path)


# ------------------------------------------------------------ taught once, and the same

SHARED = {
    name: definition
    for module in (course_utils, data, model, partitions, plots, runtime)
    for name, definition in vars(module).items()
    if getattr(definition, "__module__", None) == module.__name__
}
TAUGHT = {
    ("00", "Net"),
    ("00", "train"),
    ("00", "test"),
    ("00", "weighted_average"),
    ("01", "outcome"),
    ("08", "measure"),
}


def definitions(tree: ast.Module):
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [node for node in tree.body if isinstance(node, kinds)]


def bare(node: ast.AST) -> str:
    """Dump a definition without docstrings."""
    for part in ast.walk(node):
        if isinstance(part, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(
            part
        ):
            part.body = part.body[1:]
    return ast.dump(node)


def parameters(node: ast.AST) -> list[str] | None:
    if isinstance(node, ast.ClassDef):
        return None
    return [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]


def measured_in(number: str) -> dict[str, ast.AST]:
    """Return the definitions with which a lesson's stored experiments were made."""
    path = ROOT / "course_utils" / "experiments" / f"lesson_{number}.py"
    if not path.exists():
        return {}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name: node for node in definitions(tree)}


def test_what_a_lesson_teaches_is_what_course_utils_has() -> None:
    found = set()
    for source in SOURCES:
        number = source.stem[:2]
        measured = measured_in(number)
        for taught in definitions(ast.parse(source.read_text(encoding="utf-8"))):
            shared = measured.get(taught.name)
            if shared is None and taught.name in SHARED:
                shared_source = inspect.getsource(SHARED[taught.name])
                (shared,) = ast.parse(shared_source).body
                if parameters(taught) != parameters(shared):
                    continue  # another thing of the same name
            if shared is None:
                continue
            found.add((number, taught.name))
            assert bare(taught) == bare(shared), (
                f"{source.name}: {taught.name} differs from course_utils"
            )
        untaught = measured.keys() - {name for n, name in found if n == number}
        assert not untaught, f"{source.name} measures with {untaught}: teach them"
    assert found >= TAUGHT


@pytest.mark.parametrize("name", ["Net", "train", "test"])
def test_what_the_flower_app_shares_with_course_utils_is_the_same(name) -> None:
    task = NOTEBOOKS / "flower_app" / "federated_digits" / "task.py"
    tree = ast.parse(task.read_text(encoding="utf-8"))
    (own,) = [node for node in definitions(tree) if node.name == name]
    (shared,) = ast.parse(inspect.getsource(SHARED[name])).body
    assert bare(own) == bare(shared)


def test_a_definition_that_drifts_is_noticed() -> None:
    (shared,) = ast.parse(inspect.getsource(model.weighted_average)).body
    text = ast.unparse(shared).replace("n / total", "1 / total")
    (drifted,) = ast.parse(text).body
    assert parameters(drifted) == parameters(shared)
    assert bare(drifted) != bare(shared)


# ----------------------------------------------------------------------- how they read

RETIRED = (
    r"\b(Driver|RecordSet|ParametersRecord|MetricsRecord|ConfigsRecord|NumPyClient|"
    r"client_fn|start_client|start_server|start_simulation|run_simulation)\b"
)


def tracked_files() -> list[Path]:
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def text_files() -> list[Path]:
    return [path for path in tracked_files() if path.suffix != ".png"]


MIGRATION = re.compile(r"## Reading older Flower code.*?</details>", re.DOTALL)
"""The one place for retired names: the page of lesson 06 that says what they became."""


def test_retired_names_occur_nowhere_but_in_the_page_on_them() -> None:
    found = []
    for path in text_files():
        text = path.read_text(encoding="utf-8")
        if path.stem == "06_flower_app":
            text, pages = MIGRATION.subn("", text)
            assert pages == 1
        if path != Path(__file__):
            found += [f"{path.name}: {m.group()}" for m in re.finditer(RETIRED, text)]
    assert not found


@every_source
def test_code_cells_keep_their_size(source) -> None:
    for cell in code_cells(build.make_notebook(source, solved=True)):
        lines = cell.source.split("\n")
        assert len(lines) <= 25, f"{len(lines)} lines:\n{cell.source}"
        assert max(map(len, lines)) <= 79, cell.source


PAGES = [*SOURCES, *sorted(ROOT.glob("*.md")), *sorted(NOTEBOOKS.rglob("*.md"))]
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)


@cache
def written(page: Path) -> str:
    """Return what a lesson or a page says, without its code."""
    if page.suffix == ".md":
        text = page.read_text("utf-8")
    else:
        text = prose(build.make_notebook(page, solved=True))
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


@every_page
def test_headings_are_in_order(page) -> None:
    headings = re.finditer(r"^(#+) ", written(page), re.MULTILINE)
    levels = [len(heading.group(1)) for heading in headings]
    assert levels[0] == 1 and levels.count(1) == 1
    for before, after in pairwise(levels):
        assert after <= before + 1


def cells_of(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


@every_page
def test_every_table_names_its_columns(page) -> None:
    for table in re.findall(r"(?:^\|.*\n)+", f"{written(page)}\n", re.MULTILINE):
        head, line, *_ = [*table.splitlines(), ""]
        assert re.fullmatch(r"\|[-:| ]+\|", line), f"this is no head: {head}"
        names = cells_of(head)
        assert len(names) == len(cells_of(line)), head
        assert all(names[1:]), head  # the first column may name the rows


FIGURES = [name for name in vars(plots) if name.startswith(("plot_", "draw_"))]


@every_notebook
def test_every_figure_is_there_once_with_its_text(source, path, solved) -> None:
    for cell in code_cells(read(path)):
        images = [o for o in cell.outputs if "image/png" in o.get("data", {})]
        calls = re.findall(rf"\b(?:{'|'.join(FIGURES)})\(", cell.source)
        assert len(images) == len(calls), cell.source
        folded = [o.data["text/markdown"] for o in cell.outputs if slides.is_text(o)]
        assert len(folded) == len(images), "run `make notebooks`"
        for image, words in zip(images, folded, strict=True):
            text = image.metadata.get("image/png", {}).get("alt", "")
            assert text.startswith("Figure: "), "run `make notebooks`"
            assert text in unescape(words), "run `make notebooks`"


VAGUE = {"", "here", "click here", "this", "link", "this link", "more", "read more"}
VAGUE |= {"below", "above", "see", "why", "page", "this page"}


@every_page
def test_a_link_says_where_it_leads_and_an_image_what_it_shows(page) -> None:
    text = written(page)
    for words in re.findall(r"\[([^\[\]]*)\](?:\(|\[\w)", text):
        assert words.strip("`* .").lower() not in VAGUE, words
        assert not re.match(r"\w+://", words), words
    bare = re.findall(r"(?<![(<\"'`=\w])https?://\S+", text)
    defined = re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)
    assert set(bare) <= set(defined)
    for image in re.findall(r"<img[^>]*>", text):
        assert re.search(r'alt="[^"]+"', image), image


@every_page
def test_what_is_folded_says_what_it_holds(page) -> None:
    folded = written(page).split("<details>")[1:]
    for part in folded:
        opening = re.match(r"\s*<summary>(.*?)</summary>", part, re.DOTALL)
        assert opening, part[:80]
        assert re.search(r"\w+ \w+", opening.group(1)), opening.group()


SIGN = r"[\u2460-\u24ff\u25a0-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff]"
"""Numbers in circles, shapes, ticks, crosses and emoji."""


def alone(text: str) -> list[str]:
    """List the lines in which a sign stands for a word: none follows it."""
    pattern = SIGN + r"(?!\ufe0f? *\w)"
    return [line for line in text.splitlines() if re.search(pattern, line)]


def test_no_sign_or_colour_stands_in_place_of_a_word() -> None:
    assert alone("✅ passed, ❌ failed") == [] and alone("1.1: ✅") == ["1.1: ✅"]
    for path in text_files():
        if path.suffix == ".ipynb" or path in PAGES or "course_utils" in path.parts:
            assert not alone(path.read_text(encoding="utf-8")), path.name
    for page in PAGES:
        colours = r"\b(red|green|blue|yellow|orange|purple|colou?red)\b"
        assert not re.search(colours, written(page)), page.name


@every_source
def test_a_lesson_opens_and_closes_as_the_others_do(source) -> None:
    cells = build.make_notebook(source).cells
    number = source.stem[:2]
    title = cells[0].source
    assert re.search(rf"^# {number} · ", title, re.MULTILINE)
    for part in ("After this lesson you can", "**You need:**", "**Time:**"):
        assert part in title
    objectives = re.findall(r"^- ", title, re.MULTILINE)
    assert 3 <= len(objectives) <= 5
    text = "\n".join(cell.source for cell in cells)
    takeaways = text.split("## Takeaways")[1].split("## Check yourself")[0]
    assert len(re.findall(r"^- ", takeaways, re.MULTILINE)) == len(objectives)
    questions = text.split("## Check yourself")[1]
    assert questions.count("<details>") == questions.count("</details>") >= 4
    assert "**Next:**" in questions


def places_in(page: Path) -> set[str]:
    """Return what a link to a page can name: JupyterLab and GitHub both go there."""
    return set(re.findall(r'<a id="([^"]*)">', page.read_text("utf-8")))


def test_relative_links_resolve() -> None:
    markdown = [*ROOT.glob("*.md"), *NOTEBOOKS.glob("*.md")]
    pages = {path: path.read_text("utf-8") for path in markdown}
    for param in TARGETS:
        path = param.values[1]
        pages[path] = "\n".join(
            cell.source for cell in read(path).cells if cell.cell_type == "markdown"
        )
    broken = []
    for path, text in pages.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:|#", link):
                continue
            name, _, place = link.partition("#")
            target = path.parent / unquote(name)
            if not target.exists() or (place and place not in places_in(target)):
                broken.append(f"{path.name}: {link}")
    assert not broken
    assert len(pages) > len(SOURCES)


# ------------------------------------------------------------------------ the glossary


def prose(notebook) -> str:
    return "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")


def linked_terms(notebook) -> list[str]:
    return re.findall(r"\]\((?:\.\./)?glossary\.md#([^)]*)\)", prose(notebook))


def test_the_glossary_has_each_term_once_in_order_and_in_place() -> None:
    terms = list(build.glossary())
    assert len(terms) >= 50
    assert terms == sorted(terms, key=str.lower)
    page = build.GLOSSARY.read_text("utf-8")
    for term in terms:
        assert page.count(f'\n### <a id="{build.anchor(term)}"></a>{term}\n') == 1
    forms = [form for forms in build.glossary().values() for form in forms]
    assert len(forms) == len(set(forms))


def test_every_term_is_linked_once_in_each_lesson_that_uses_it() -> None:
    everywhere = set()
    for source in SOURCES:
        linked = linked_terms(build.make_notebook(source))
        assert len(linked) == len(set(linked)), source.name
        assert len(linked) >= 8, source.name
        everywhere |= set(linked)
    assert everywhere == {build.anchor(term) for term in build.glossary()}


TERMS = {"SuperNode": ["SuperNode"], "node config": ["node config"], "node": ["node"]}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("two SuperNodes, one node", "two [SuperNodes](#sn), one [node](#n)"),
        ("A SuperNode. A SuperNode.", "A [SuperNode](#sn). A SuperNode."),
        ("`SuperNode` first, `node`", "[`SuperNode`](#sn) first, `node`"),
        ("## The SuperNode\nA SuperNode", "## The SuperNode\nA [SuperNode](#sn)"),
        ("```\nSuperNode\n```\nSuperNode", "```\nSuperNode\n```\n[SuperNode](#sn)"),
        ("[a SuperNode](x.md)", "[a SuperNode](x.md)"),
        ("<summary>A node?</summary>", "<summary>A node?</summary>"),
        ("the node\nconfig of a node", "the [node\nconfig](#nc) of a [node](#n)"),
        ("Node by node", "[Node](#n) by node"),
        ("nodes.py, a-node, nodelike", "nodes.py, a-node, nodelike"),
    ],
)
def test_a_term_is_linked_where_it_is_first_used(before, after, monkeypatch) -> None:
    monkeypatch.setattr(build, "glossary", lambda: TERMS)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(before)])
    build.link_terms(notebook)
    places = {"supernode": "sn", "node-config": "nc", "node": "n"}
    short = re.sub(
        r"glossary\.md#([\w-]+)", lambda m: f"#{places[m[1]]}", prose(notebook)
    )
    assert short == after


# --------------------------------------------------------------------------- the README


def test_the_readme_lists_every_lesson_with_exercises_and_minutes() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for source in SOURCES:
        cells = build.make_notebook(source).cells
        title = cells[0].source
        name = re.search(r"^# \d\d · (.*)$", title, re.MULTILINE).group(1)
        minutes = re.search(r"\*\*Time:\*\* (\d+) minutes", title).group(1)
        exercises = sum(cell.source.startswith('check("') for cell in cells)
        rows = [line for line in readme.splitlines() if "| [" in line]
        (row,) = [line for line in rows if f"{source.stem}.ipynb)" in line]
        assert f"| {source.stem[:2]} | [{name}]" in row
        assert row.endswith(f"| {exercises} | {minutes} |")


def test_notebooks_carry_no_clutter() -> None:
    for param in TARGETS:
        notebook = json.loads(param.values[1].read_text("utf-8"))
        assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
        for cell in notebook["cells"]:
            assert set(cell["metadata"]) <= {"tags", "jupyter"}
