"""The notebooks are what their sources make, were executed, and read as they should."""

import ast
import inspect
import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest

import course_utils
from course_utils import data, model, partitions, plots, runtime

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))
import build  # noqa: E402

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


def comparable(path: Path) -> str:
    """Return a notebook without what differs from machine to machine."""
    notebook = read(path)
    for cell in code_cells(notebook):
        if "nbval-ignore-output" in build.tags(cell):
            cell.outputs = []
        for output in cell.outputs:
            output.get("data", {}).pop("image/png", None)
    return nbformat.writes(notebook)


IN_PROCESS = [source.stem[:2] for source in SOURCES if source.stem < "06"]
"""Lessons without real processes. The others take minutes, and their outputs, which
nbval compares, are for the most part what a process printed."""


def make(folder: Path, *lessons: str) -> None:
    subprocess.run(
        [sys.executable, NOTEBOOKS / "build.py", *lessons, "--folder", folder],
        check=True,
        capture_output=True,
    )


def test_making_the_notebooks_again_changes_nothing(tmp_path) -> None:
    make(tmp_path, *IN_PROCESS)
    for param in TARGETS:
        source, path, _ = param.values
        if source.stem[:2] not in IN_PROCESS:
            continue
        again = tmp_path / path.relative_to(NOTEBOOKS)
        assert comparable(again) == comparable(path), path.name


def test_on_one_machine_not_a_byte_changes(tmp_path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        make(folder, "04")
    name = next(s.stem for s in SOURCES if s.stem.startswith("04"))
    first, second = (tmp_path / f / f"{name}.ipynb" for f in "ab")
    assert first.read_bytes() == second.read_bytes()


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


def test_what_a_lesson_teaches_is_what_course_utils_has() -> None:
    found = set()
    for source in SOURCES:
        for taught in definitions(ast.parse(source.read_text(encoding="utf-8"))):
            if taught.name not in SHARED:
                continue
            shared_source = inspect.getsource(SHARED[taught.name])
            (shared,) = ast.parse(shared_source).body
            if parameters(taught) != parameters(shared):
                continue  # another thing of the same name
            found.add((source.stem[:2], taught.name))
            assert bare(taught) == bare(shared), (
                f"{source.name}: {taught.name} differs from course_utils"
            )
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


MIGRATION = re.compile(r"## Reading older Flower code.*?</details>", re.DOTALL)
"""The one place for retired names: the page of lesson 06 that says what they became."""


def test_retired_names_occur_nowhere_but_in_the_page_on_them() -> None:
    found = []
    for path in tracked_files():
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


@every_source
def test_headings_are_in_order(source) -> None:
    text = "\n".join(
        cell.source
        for cell in build.make_notebook(source, solved=True).cells
        if cell.cell_type == "markdown"
    )
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    levels = [len(m.group(1)) for m in re.finditer(r"^(#+) ", text, re.MULTILINE)]
    assert levels[0] == 1 and levels.count(1) == 1
    for before, after in pairwise(levels):
        assert after <= before + 1


@every_source
def test_a_lesson_opens_and_closes_as_the_others_do(source) -> None:
    cells = build.make_notebook(source).cells
    number, name = source.stem[:2], f"{source.stem}.ipynb"
    title = cells[0].source
    assert f"blob/main/notebooks/{name})" in title.splitlines()[0]
    assert f"\n# {number} · " in title
    for part in ("After this lesson you can", "**You need:**", "**Time:**"):
        assert part in title
    objectives = re.findall(r"^- ", title, re.MULTILINE)
    assert 3 <= len(objectives) <= 5
    assert "find_spec" in cells[1].source
    text = "\n".join(cell.source for cell in cells)
    takeaways = text.split("## Takeaways")[1].split("## Check yourself")[0]
    assert len(re.findall(r"^- ", takeaways, re.MULTILINE)) == len(objectives)
    questions = text.split("## Check yourself")[1]
    assert questions.count("<details>") == questions.count("</details>") >= 4
    assert "**Next:**" in questions


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
            target = path.parent / unquote(link.split("#")[0])
            if not target.exists():
                broken.append(f"{path.name}: {link}")
    assert not broken
    assert len(pages) > len(SOURCES)


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
            assert set(cell["metadata"]) <= {"tags"}
