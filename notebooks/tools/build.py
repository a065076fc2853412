"""Make the course's notebooks from their sources: ``make notebooks``.

Each lesson has one source, ``notebooks/source/NN_name.py`` in jupytext's percent
format. From it come the learner notebook and, where the lesson has exercises, the
solution notebook. Both are executed, so that they are stored with their outputs.

In a source,

- what stands between ``### BEGIN SOLUTION`` and ``### END SOLUTION`` is a solution:
  the learner notebook has ``raise NotImplementedError`` in its place;
- a cell tagged ``solution`` stands in the solution notebook only;
- a cell tagged ``nbval-ignore-output`` prints what differs from machine to machine;
- tags that begin with ``slide`` make the slides (``notebooks/tools/slides.py``):
  ``slide`` begins one, ``slide-more`` goes on with it, ``slide-then`` appears on it at
  the next key, and ``slide-output`` also leaves out the code;
- a cell whose metadata say ``jupyter={"source_hidden": true}`` is folded away.

Everything else that a notebook needs is added here: links to the glossary, cell ids and
metadata and, once the course has a public address, a link to Colab and a set-up cell.
Running this twice changes nothing.
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

NOTEBOOKS = Path(__file__).parents[1]
SOURCES = NOTEBOOKS / "source"
GLOSSARY = NOTEBOOKS / "glossary.md"
UNSTAMPED = "/OWNER/"
"""Stands in the repository's address until somebody publishes the course.

Until then, no notebook has a link to Colab or a set-up cell: they would lead nowhere.
"""

OPEN = "Open this notebook in Colab"
COLAB = "https://colab.research.google.com/github/{repo}/blob/{tag}/notebooks/{path}"
SETUP = """\
# For Colab: it installs the course there. Where the course is, it does nothing.
# Settings that lessons read later can be set here, before, as in
# %env COURSE_DATASET=ylecun/mnist
from importlib.util import find_spec
from runpy import run_path

if find_spec("course_utils") is None:
    address = "{address}"
    release = "{tag}"
    !git -c advice.detachedHead=false clone --quiet --depth 1 \\
        --branch {{release}} {{address}} flower-course
    run_path("flower-course/notebooks/tools/install.py", run_name="__main__")"""


def publication() -> tuple[str, str]:
    """Return the course's public address and release tag, from where they stand."""
    settings = tomllib.loads((NOTEBOOKS.parent / "pyproject.toml").read_text("utf-8"))
    address = settings["project"]["urls"]["Repository"]
    return address, settings["tool"]["flower-course"]["release"]


def is_published() -> bool:
    """Whether somebody has given the course its public address."""
    return UNSTAMPED not in publication()[0]


def colab(path: str) -> str:
    """Return the address at which Colab opens a notebook.

    Parameters
    ----------
    path : str
        The notebook's path below ``notebooks``.
    """
    address, tag = publication()
    return COLAB.format(repo=address.split("github.com/")[-1], tag=tag, path=path)


def website() -> str:
    """Return the address at which GitHub Pages shows the course's website."""
    owner, name = publication()[0].split("github.com/")[-1].split("/")
    return f"https://{owner.lower()}.github.io/{name}/"


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
    link_terms(notebook)
    if solved:
        # Seen from the folder of the solutions, a page lies one folder up.
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = re.sub(r"\]\(((?:\w+/)?\w+\.md)", r"](../\1", cell.source)
    if is_published():
        path = f"solutions/{source.stem}.ipynb" if solved else f"{source.stem}.ipynb"
        add_opening(notebook, path)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = {
            key: cell.metadata[key]
            for key in ("tags", "jupyter")
            if cell.metadata.get(key)
        }
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
    """Put a link to Colab above the title, and the set-up cell below it, folded."""
    title = notebook.cells[0]
    title.source = f"[{OPEN}]({colab(path)})\n\n{title.source}"
    address, tag = publication()
    setup = new_code_cell(SETUP.format(address=address, tag=tag))
    setup.metadata["jupyter"] = {"source_hidden": True}
    notebook.cells.insert(1, setup)


def without_link(text: str) -> str:
    """Drop the link to Colab from a notebook's first cell."""
    return re.sub(rf"^\[{OPEN}\].*\n+", "", text)


def glossary() -> dict[str, list[str]]:
    """Read the terms of the glossary, each with its other forms."""
    terms = {}
    for entry in re.split(r"^### ", GLOSSARY.read_text("utf-8"), flags=re.M)[1:]:
        heading, _, text = entry.partition("\n")
        term = re.sub("<[^>]*>", "", heading)
        also = re.match(r"\s*\*Also: (.*)\*$", text, flags=re.M)
        terms[term] = [term, *(also[1].split(", ") if also else [])]
    return terms


# What is no place for a link: code, a link, a summary or another tag, a heading. Code
# that is a term and nothing else is one, so it is told apart later.
NO_LINK = re.compile(
    r"^```.*?^```|\[[^\]]*\]\([^)]*\)|<summary>.*?</summary>|<[^>]+>|^#+ [^\n]*"
    r"|`[^`\n]+`",
    re.DOTALL | re.MULTILINE,
)


def link_terms(notebook: NotebookNode) -> None:
    """Link each term to the glossary where the notebook's prose first uses it."""
    prose = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    terms = glossary()
    for term, forms in terms.items():
        # "node config" is a term of its own, and no place for a link to "node".
        others = [form for name in terms if name != term for form in terms[name]]
        longer = [o for o in others if any(form.lower() in o.lower() for form in forms)]
        for cell in prose:
            if link_first(cell, forms, longer, f"glossary.md#{anchor(term)}"):
                break


def any_of(forms: list[str]) -> re.Pattern:
    """Match each form as whole words, in the plural too, also across lines.

    A form in lower case may begin or stand in capitals.
    """
    words = [re.escape(form).replace(r"\ ", r"\s+") for form in forms]
    words = [w if w != w.lower() else f"(?i:{w})" for w in words]
    longest_first = "|".join(sorted(words, key=len, reverse=True))
    return re.compile(rf"(?<![\w.-])(?:{longest_first})s?(?![\w-]|\.\w)")


def link_first(
    cell: NotebookNode, forms: list[str], longer: list[str], target: str
) -> bool:
    """Link the first of a term's forms in a cell, and say whether there was one."""
    found = list(any_of(forms).finditer(cell.source))
    if not found:  # as nearly always: what follows takes longer
        return False
    # A plain word in code is somebody's name for something, not the term.
    code = [form for form in forms if not form.isalpha() or form != form.lower()]
    taken = [
        match.span()
        for match in NO_LINK.finditer(cell.source)
        if match[0].strip("`") not in code
    ]
    if longer:
        taken += [match.span() for match in any_of(longer).finditer(cell.source)]
    for match in found:
        start, end = match.span()
        if any(first < end and start < last for first, last in taken):
            continue
        if cell.source[start - 1 : start] == "`":
            start, end = start - 1, end + 1
        linked = f"[{cell.source[start:end]}]({target})"
        cell.source = cell.source[:start] + linked + cell.source[end:]
        return True
    return False


def anchor(term: str) -> str:
    """Return the address of a term's entry in the glossary."""
    return re.sub(r"[^\w]+", "-", term.lower())


def tags(cell: NotebookNode) -> list[str]:
    """Return a cell's tags."""
    return list(cell.metadata.get("tags", []))


def execute(notebook: NotebookNode) -> None:
    """Run a notebook where it will lie, and keep its outputs only."""
    # A progress bar is never stored: neither the runtime's nor that of datasets.
    os.environ["FLOWER_COURSE_PROGRESS"] = "off"
    os.environ["TQDM_DISABLE"] = os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    NotebookClient(
        notebook,
        timeout=1500,
        record_timing=False,
        resources={"metadata": {"path": str(NOTEBOOKS)}},
    ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = merge_streams(cell.outputs)
    notebook.metadata["language_info"] = {"name": "python"}


def keep_outputs(notebook: NotebookNode, path: Path) -> None:
    """Take the outputs of the stored notebook, whose code must be the same.

    Raises
    ------
    SystemExit
        If code has changed, so that the notebook must be executed.
    """
    stored = nbformat.read(path, as_version=4)
    # The set-up cell prints nothing, and is not in every copy.
    pairs = [
        [c for c in n.cells if c.cell_type == "code" and not is_setup(c)]
        for n in (notebook, stored)
    ]
    if [c.source for c in pairs[0]] != [c.source for c in pairs[1]]:
        raise SystemExit(
            f"Code of {path.name} has changed: make it without --prose, which runs it."
        )
    for cell, old in zip(*pairs, strict=True):
        cell.outputs = old.outputs
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        cell.execution_count = number
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number


def is_setup(cell: NotebookNode) -> bool:
    """Whether a cell is the one that installs the course."""
    return 'find_spec("course_utils")' in cell.source


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
    parser.add_argument(
        "--prose", action="store_true", help="run nothing: only prose has changed"
    )
    arguments = parser.parse_args()
    for source in sorted(SOURCES.glob("[0-9]*.py")):
        if arguments.lessons and source.stem[:2] not in arguments.lessons:
            continue
        for target, solved in targets(source, arguments.folder):
            print(f"{target.parent.name}/{target.name}", flush=True)
            notebook = make_notebook(source, solved=solved)
            if arguments.prose:
                keep_outputs(notebook, target)
            else:
                execute(notebook)
            target.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, target)


if __name__ == "__main__":
    main()
