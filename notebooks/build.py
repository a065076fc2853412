"""Make the course's notebooks from their sources: ``make notebooks``.

Each lesson has one source, ``notebooks/source/NN_name.py`` in jupytext's percent
format. From it come the learner notebook and, where the lesson has exercises, the
solution notebook. Both are executed, so that they are stored with their outputs.

In a source,

- what stands between ``### BEGIN SOLUTION`` and ``### END SOLUTION`` is a solution:
  the learner notebook has ``raise NotImplementedError`` in its place;
- a cell tagged ``solution`` stands in the solution notebook only;
- a cell tagged ``nbval-ignore-output`` prints what differs from machine to machine.

Everything else that a notebook needs is added here: the Colab badge, the set-up cell,
cell ids and metadata. Running this twice changes nothing.
"""

import argparse
import os
import re
import tomllib
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell
from nbgrader.preprocessors import ClearSolutions

NOTEBOOKS = Path(__file__).parent
SOURCES = NOTEBOOKS / "source"
UNSTAMPED = "/OWNER/"
"""Stands in the repository's address until somebody publishes the course."""

BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{repo}/blob/main/notebooks/{path})"
)
SETUP = """\
# Installs the course on Colab. Where it is installed, this does nothing.
from importlib.util import find_spec

if find_spec("course_utils") is None:
    {install}
"""
INSTALL = '%pip install --quiet "flower-course @ git+{address}"'
NO_ADDRESS = """\
raise SystemExit(
        "The course is not installed here, and this copy does not know its "
        "public address: set Repository in pyproject.toml, then run "
        "`make notebooks`."
    )"""


def repository() -> str:
    """Return the course's public address, from the one place where it stands."""
    settings = tomllib.loads((NOTEBOOKS.parent / "pyproject.toml").read_text())
    return settings["project"]["urls"]["Repository"]


def has_exercises(source: Path) -> bool:
    """Whether a lesson needs a solution notebook."""
    return "### BEGIN SOLUTION" in source.read_text(encoding="utf-8")


def make_notebook(source: Path, *, solved: bool = False) -> NotebookNode:
    """Turn a source into a notebook, not yet executed.

    Parameters
    ----------
    source : Path
        A lesson's source.
    solved : bool
        Whether to make the solution notebook rather than the learner's.
    """
    notebook = jupytext.read(source)
    if not solved:
        notebook.cells = [c for c in notebook.cells if "solution" not in tags(c)]
        blank, _ = ClearSolutions(
            code_stub={"python": "raise NotImplementedError"},
            enforce_metadata=False,
        ).preprocess(notebook, {})
        notebook = blank
    else:
        # Seen from the folder of the solutions, a page lies one folder up.
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = re.sub(r"\]\((\w+\.md)", r"](../\1", cell.source)
    path = f"solutions/{source.stem}.ipynb" if solved else f"{source.stem}.ipynb"
    add_opening(notebook, path)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = {"tags": tags(cell)} if tags(cell) else {}
        cell.source = "\n".join(
            line
            for line in cell.source.split("\n")
            if line.strip() not in ("### BEGIN SOLUTION", "### END SOLUTION")
        )
    notebook.metadata = {
        "kernelspec": {
            "display_name": "Python 3 (ipykernel)",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return nbformat.from_dict(notebook)


def add_opening(notebook: NotebookNode, path: str) -> None:
    """Put the badge above the title and the set-up cell below it."""
    address = repository()
    badge = BADGE.format(repo=address.split("github.com/")[-1], path=path)
    title = notebook.cells[0]
    title.source = f"{badge}\n\n{title.source}"
    install = NO_ADDRESS if UNSTAMPED in address else INSTALL.format(address=address)
    notebook.cells.insert(1, new_code_cell(SETUP.format(install=install).strip()))


def tags(cell: NotebookNode) -> list[str]:
    """Return a cell's tags."""
    return list(cell.metadata.get("tags", []))


def execute(notebook: NotebookNode) -> None:
    """Run a notebook where it will lie, and keep its outputs only."""
    # A progress bar is never stored: neither the runtime's nor that of datasets.
    os.environ["TQDM_DISABLE"] = os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    NotebookClient(
        notebook,
        timeout=300,
        record_timing=False,
        resources={"metadata": {"path": str(NOTEBOOKS)}},
    ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = merge_streams(cell.outputs)
    notebook.metadata["language_info"] = {"name": "python"}


def merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join prints that reached the notebook in pieces: how they split is chance."""
    merged: list[NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        # Only streams have a name: stdout or stderr.
        if last and "name" in output and output.name == last.get("name"):
            last.text += output.text
        else:
            merged.append(output)
    return merged


def targets(source: Path, folder: Path = NOTEBOOKS) -> list[tuple[Path, bool]]:
    """List what a source makes: each notebook's path and whether it is solved."""
    made = [(folder / f"{source.stem}.ipynb", False)]
    if has_exercises(source):
        made.append((folder / "solutions" / f"{source.stem}.ipynb", True))
    return made


def main() -> None:
    """Make every notebook, or those whose names start with the given numbers."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("lessons", nargs="*", help="such as 00 03; default: all")
    parser.add_argument("--folder", type=Path, default=NOTEBOOKS, help="where to write")
    arguments = parser.parse_args()
    for source in sorted(SOURCES.glob("[0-9]*.py")):
        if arguments.lessons and source.stem[:2] not in arguments.lessons:
            continue
        for target, solved in targets(source, arguments.folder):
            print(f"{target.parent.name}/{target.name}", flush=True)
            notebook = make_notebook(source, solved=solved)
            execute(notebook)
            target.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, target)


if __name__ == "__main__":
    main()
