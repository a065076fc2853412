"""Make a deck of slides from each lesson: ``make slides``.

Tags in a lesson's source say what is shown. A cell tagged ``slide`` begins a slide, one
tagged ``slide-more`` goes on the same slide, one tagged ``slide-then`` appears on it at
the next press of a key, as an answer does, and all others are left out. The tag
``slide-output`` in addition shows a cell's output without its code. Outputs come from
the stored notebook, so nothing is run.

A deck is one HTML file that opens in any browser and loads nothing. Arrow keys turn the
slides, ``f`` fills the screen, and the address with ``?view=print`` is for the printer.
"""

import argparse
import re
import sys
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import build
import nbformat
from assignment import without_relative_links
from nbconvert import SlidesExporter
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from traitlets.config import Config

ROOT = Path(__file__).parents[2]

FOLDER = ROOT / "build" / "slides"
BEGIN, OUTPUT_ONLY = "slide", "slide-output"
KINDS = {BEGIN: "slide", "slide-more": "-", "slide-then": "fragment"}
"""What nbconvert calls that which the tags say."""


def make_deck(source: Path, stored: Path) -> str:
    """Make a lesson's slides.

    Parameters
    ----------
    source : Path
        A lesson's source, whose tags say what is shown.
    stored : Path
        The lesson's notebook, executed.

    Returns
    -------
    str
        An HTML page.

    Raises
    ------
    ValueError
        If no cell is tagged, the first tag begins no slide, or the stored notebook or a
        cell of it is missing.
    """
    if not stored.is_file():
        raise ValueError(f"{stored.name} is missing: make it by `make notebooks`.")
    lesson = build.make_notebook(source)
    add_outputs(lesson, nbformat.read(stored, as_version=4))
    deck = choose(lesson, source.name)
    title = re.search(r"^# (.*)$", lesson.cells[0].source, re.MULTILINE)[1]
    config = Config()
    config.CSSHTMLHeaderPreprocessor.style = "default"
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_input_tags = {OUTPUT_ONLY}
    exporter = SlidesExporter(
        config=config,
        exclude_anchor_links=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        extra_template_paths=[str(Path(__file__).parent)],
        template_file="slides.html.j2",
    )
    resources = {"deck": {"title": title, **reveal()}}
    page, _ = exporter.from_notebook_node(deck, resources)
    return page


def add_outputs(lesson: NotebookNode, stored: NotebookNode) -> None:
    """Give each tagged code cell its output from the stored notebook.

    A cell is found by its code, so that a notebook need not be made again where only
    tags or prose have changed.
    """
    known = defaultdict(list)
    for cell in stored.cells:
        if cell.cell_type == "code":
            known[cell.source].append(cell.outputs)
    for cell in lesson.cells:
        if cell.cell_type != "code":
            continue
        same = known[cell.source]
        if same:
            cell.outputs = same.pop(0)
        elif kind_of(cell):
            raise ValueError(
                "This cell is not in the stored notebook: make it again by `make "
                f"notebooks`.\n{cell.source}"
            )


def kind_of(cell: NotebookNode) -> str | None:
    """Return the tag that puts a cell on a slide, if it has one."""
    return next((tag for tag in build.tags(cell) if tag in KINDS), None)


def choose(lesson: NotebookNode, name: str) -> NotebookNode:
    """Return the cells to be shown, as nbconvert wants them for slides."""
    cells, section = [], ""
    for cell in lesson.cells:
        earlier_section, section = section, section_after(cell, section)
        kind = kind_of(cell)
        if kind is None:
            continue
        if not cells and kind != BEGIN:
            raise ValueError(f"{name}: the first tagged cell is no `{BEGIN}`.")
        fit_for_slide(cell)
        if kind == BEGIN and not cell.source.startswith("#"):
            # Every slide says where in the lesson it is.
            heading = new_markdown_cell(earlier_section, id=f"heading-{len(cells)}")
            cells.append(as_slide(heading, BEGIN))
            kind = "slide-more"
        cells.append(as_slide(cell, kind))
    if not cells:
        raise ValueError(f"{name} has no slides: tag its cells with `{BEGIN}`.")
    return nbformat.v4.new_notebook(cells=cells)


def section_after(cell: NotebookNode, section: str) -> str:
    """Return the heading of the section that a cell ends in."""
    if cell.cell_type != "markdown":
        return section
    text = re.sub(r"```.*?```", "", cell.source, flags=re.DOTALL)
    return [section, *re.findall(r"^## .*$", text, re.MULTILINE)][-1]


def as_slide(cell: NotebookNode, kind: str) -> NotebookNode:
    """Tell nbconvert where a cell goes."""
    cell.metadata["slideshow"] = {"slide_type": KINDS[kind]}
    return cell


def fit_for_slide(cell: NotebookNode) -> None:
    """Leave out what serves a reader only.

    That is the link to Colab, what a lesson needs and takes, folded answers and hints,
    links to other pages of the course, and below a picture its text, which is in the
    image.
    """
    if cell.cell_type == "markdown":
        text = without_relative_links(build.without_link(cell.source))
        text = re.sub(r"^\*\*You need:\*\*.*?(\n\n|\Z)", "", text, flags=re.S | re.M)
        text = re.sub(r"<details>.*?</details>\n*", "", text, flags=re.DOTALL)
        cell.source = text.strip()
        return
    pictures = [out for out in cell.outputs if "image/png" in out.get("data", {})]
    cell.outputs = [output for output in cell.outputs if not is_text(output)]
    cell.metadata["picture"] = bool(pictures)


def is_text(output: NotebookNode) -> bool:
    """Whether an output is the text that is folded below a figure."""
    words = output.get("data", {}).get("text/markdown", "")
    return words.startswith("<details><summary>Figure: ")


def reveal() -> dict[str, str]:
    """Read reveal.js, its style sheet and its licence from where pip put them.

    They come with the package pyreveal, of whose own code nothing is used.
    """
    package = find_spec("pyreveal")
    if package is None:
        raise ValueError(
            "reveal.js is missing: run `python -m pip install -e '.[lab,dev]'`."
        )
    folder = Path(package.submodule_search_locations[0]) / "revealjs"
    files = {
        "licence": "LICENSE",
        "reveal_css": "dist/reveal.css",
        "reveal_js": "dist/reveal.js",
    }
    return {key: (folder / path).read_text("utf-8") for key, path in files.items()}


def main() -> None:
    """Make the slides of every lesson, or of those with the given numbers."""
    sources = {path.stem[:2]: path for path in sorted(build.SOURCES.glob("[0-9]*.py"))}
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("lessons", nargs="*", help="such as 00 03; default: all")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write")
    arguments = parser.parse_args()
    for lesson in arguments.lessons:
        if lesson not in sources:
            sys.exit(f"There is no lesson {lesson!r}: take {', '.join(sources)}.")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for lesson in arguments.lessons or sources:
        source = sources[lesson]
        try:
            page = make_deck(source, build.NOTEBOOKS / f"{source.stem}.ipynb")
        except ValueError as error:
            sys.exit(str(error))
        target = arguments.folder / f"{source.stem}.html"
        target.write_text(page, encoding="utf-8")
        print(target)


if __name__ == "__main__":
    main()
