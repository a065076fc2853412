"""Make a deck of slides from each lesson: ``make slides``.

Tags in a lesson's source say what is shown. A cell tagged ``slide`` begins a slide, one
tagged ``slide-more`` goes on the same slide, one tagged ``slide-then`` appears on it at
the next press of a key, as an answer does, and all others are left out. The tag
``slide-output`` in addition shows a cell's output without its code. Outputs come from
the stored notebook, so nothing is run.

What no tag has to say:

- Each exercise is a slide, as its card says it.
- The first slide of a section has the section's heading. The others have one of their
  own: what the tag ``title: …`` says, or else what stands on them in bold, what they
  define, or that they ask for a prediction.
- A slide of two lines goes on the next one of its section, if there is room.
- Where code uses what no slide has shown, a line above it says what that is.
- What INSTRUCTOR.md says of a lesson are the speaker's notes: what to say first on the
  first slide, where people stall on that of the exercise, what to ask on the last.

A deck is one HTML file that opens in any browser and loads nothing. Arrow keys turn the
slides, ``s`` opens the speaker's view, ``f`` fills the screen, and the address with
``?view=print`` is for the printer.
"""

import argparse
import ast
import base64
import builtins
import html
import re
import sys
import textwrap
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import build
import nbformat
import teaching
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
TITLE = "title: "
"""Begins the tag that gives a slide its heading."""
EXERCISE = re.compile(r"### Exercise (\d+\.\d+)")

WIDTH, HEIGHT = 80, 20
"""Characters in a line of prose, and lines on a slide, below its heading."""
PICTURE = 10
"""Lines that a picture takes at least."""
THIN = 2
"""Lines that are too few for a slide of their own."""


@dataclass
class Slide:
    """What stands on one slide.

    Attributes
    ----------
    section : str
        The heading of the lesson's section that it belongs to.
    heading : str
        Its own heading, if the lesson or a tag gives it one.
    cells : list[NotebookNode]
        Its cells, without headings.
    notes : list[str]
        What only the speaker sees, in Markdown.
    """

    section: str
    heading: str
    cells: list[NotebookNode]
    notes: list[str] = field(default_factory=list)


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
    slides = slides_of(source, stored)
    title = slides[0].heading.removeprefix("# ")
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
    page, _ = exporter.from_notebook_node(as_notebook(slides), resources)
    return page


def slides_of(source: Path, stored: Path) -> list[Slide]:
    """Return a lesson's slides.

    Parameters and errors are those of :func:`make_deck`.
    """
    if not stored.is_file():
        raise ValueError(f"{stored.name} is missing: make it by `make notebooks`.")
    lesson = build.make_notebook(source)
    add_outputs(lesson, nbformat.read(stored, as_version=4))
    return deck_of(lesson, source.name)


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
    """Return the tag that puts a cell on a slide, if it has one or is an exercise."""
    tagged = next((tag for tag in build.tags(cell) if tag in KINDS), None)
    is_exercise = cell.cell_type == "markdown" and EXERCISE.match(cell.source)
    return tagged or (BEGIN if is_exercise else None)


def as_notebook(deck: list[Slide]) -> NotebookNode:
    """Return the cells to be shown, as nbconvert wants them for slides."""
    cells = []
    for number, slide in enumerate(deck):
        heading = new_markdown_cell(heading_of(slide), id=f"heading-{number}")
        cells.append(as_slide(heading, "slide"))
        if slide.notes:
            notes = new_markdown_cell("\n\n".join(slide.notes), id=f"notes-{number}")
            cells.append(as_slide(notes, "notes"))
        cells += slide.cells
    return nbformat.v4.new_notebook(cells=cells)


def deck_of(lesson: NotebookNode, name: str) -> list[Slide]:
    """Return the slides of a notebook, whose source has this name."""
    deck = join_thin(gather(lesson, name))
    for slide in deck:
        end_without_colon(slide)
    give_headings(deck)
    page = teaching.PAGE.read_text(encoding="utf-8")
    give_notes(deck, teaching.words(page, name[:2]))
    return deck


def gather(lesson: NotebookNode, name: str) -> list[Slide]:
    """Return the slides of a lesson, as its tags cut it."""
    deck, section = [], ""
    for cell in with_what_was_before(lesson.cells):
        earlier_section, section = section, section_after(cell, section)
        kind = kind_of(cell)
        if kind is None:
            continue
        if not deck and kind != BEGIN:
            raise ValueError(f"{name}: the first tagged cell is no `{BEGIN}`.")
        fit_for_slide(cell)
        heading = take_heading(cell)
        if kind == BEGIN:
            titles = [tag for tag in build.tags(cell) if tag.startswith(TITLE)]
            own = [tag.removeprefix(TITLE) for tag in titles] or [heading]
            is_section = heading.startswith("## ") or not heading
            deck.append(Slide(section if is_section else earlier_section, own[0], []))
        elif heading:
            cell.source = f"{heading}\n\n{cell.source}"
        if cell.source:
            deck[-1].cells.append(as_slide(cell, "-" if kind == BEGIN else KINDS[kind]))
    if not deck:
        raise ValueError(f"{name} has no slides: tag its cells with `{BEGIN}`.")
    return deck


def take_heading(cell: NotebookNode) -> str:
    """Take a heading out of a cell that begins with one."""
    if cell.cell_type != "markdown" or not re.match(r"#+ ", cell.source):
        return ""
    heading, _, text = cell.source.partition("\n")
    cell.source = text.strip()
    return heading


def section_after(cell: NotebookNode, section: str) -> str:
    """Return the heading of the section that a cell ends in."""
    if cell.cell_type != "markdown":
        return section
    text = re.sub(r"```.*?```", "", cell.source, flags=re.DOTALL)
    return [section, *re.findall(r"^## (.*)$", text, re.MULTILINE)][-1]


def as_slide(cell: NotebookNode, kind: str) -> NotebookNode:
    """Tell nbconvert where a cell goes."""
    cell.metadata["slideshow"] = {"slide_type": kind}
    return cell


# ---------------------------------------------------------- what a slide needs to stand


def is_hidden(cell: NotebookNode) -> bool:
    """Whether no slide shows a cell's code."""
    return kind_of(cell) is None or OUTPUT_ONLY in build.tags(cell)


def with_what_was_before(cells: list[NotebookNode]) -> list[NotebookNode]:
    """Put above code a line that says what it uses and no slide has shown.

    What comes from other packages has a name that is known, or is looked up.
    """
    result: list[NotebookNode] = []
    shown, hidden = set(dir(builtins)), {}
    for number, cell in enumerate(cells):
        if cell.cell_type == "code":
            used, defined = names(cell.source)
            if is_hidden(cell):
                hidden |= definitions(cell.source)
            else:
                missing = [n for n in used if n not in shown | defined and n in hidden]
                shown |= {*missing, *defined}
                before = dict.fromkeys(filter(None, (hidden[n] for n in missing)))
                shown |= {name for name in hidden if hidden[name] in before}
                if before:
                    result += explain(list(before), cell, number)
        result.append(cell)
    return result


def explain(before: list[str], cell: NotebookNode, number: int) -> list[NotebookNode]:
    """Return the line, and let the slide begin with it if it does with the code."""
    code = ", ".join(f"<code>{html.escape(text)}</code>" for text in before)
    kind = kind_of(cell)
    line = new_markdown_cell(
        f'<p class="before">Before: {code}</p>',
        id=f"before-{number}",
        metadata={"tags": [BEGIN if kind == BEGIN else "slide-more"]},
    )
    if kind == BEGIN:
        moved = {BEGIN, *(t for t in build.tags(cell) if t.startswith(TITLE))}
        line.metadata["tags"] = [tag for tag in build.tags(cell) if tag in moved]
        rest = [tag for tag in build.tags(cell) if tag not in moved]
        cell.metadata["tags"] = ["slide-more", *rest]
    return [line]


def parse(code: str) -> ast.Module:
    """Parse a cell's code without the lines that are not Python."""
    lines = [line for line in code.split("\n") if not line.startswith(("%", "!"))]
    return ast.parse("\n".join(lines))


def names(code: str) -> tuple[list[str], set[str]]:
    """Return the names that code uses, in order, and those that it defines itself."""
    used, defined = [], set()
    for node in ast.walk(parse(code)):
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Load):
                used.append(node.id)
            else:
                defined.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
        elif isinstance(node, ast.alias):
            defined.add((node.asname or node.name).partition(".")[0])
    return list(dict.fromkeys(used)), defined


def definitions(code: str) -> dict[str, str]:
    """Return in a few words what each name is that a cell defines."""
    found = {}
    for node in parse(code).body:
        if isinstance(node, ast.FunctionDef):
            given = [arg.arg for arg in (*node.args.args, *node.args.kwonlyargs)]
            found[node.name] = f"{node.name}({', '.join(given)})"
        elif isinstance(node, ast.ClassDef):
            found[node.name] = f"class {node.name}"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            ours = (getattr(node, "module", None) or "").startswith("course_utils")
            for alias in node.names:
                name = (alias.asname or alias.name).partition(".")[0]
                found[name] = f"from {node.module} import {name}" if ours else ""
        else:
            for inner in ast.walk(node):
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                    text = textwrap.shorten(ast.unparse(node), 76, placeholder=" …")
                    is_plain = isinstance(node, ast.Assign) and "…" not in text
                    found[inner.id] = text if is_plain else f"{inner.id} = …"
    return found


def height(cells: list[NotebookNode]) -> int:
    """Estimate how many lines of prose cells take on a slide."""
    lines = 0
    for cell in cells:
        if cell.cell_type == "markdown":
            lines += sum(
                len(textwrap.wrap(li, WIDTH)) for li in paragraphs(cell.source)
            )
            continue
        code = [] if OUTPUT_ONLY in build.tags(cell) else cell.source.split("\n")
        lines += len(code)
        for output in cell.outputs:
            data = output.get("data", {})
            text = output.get("text") or data.get("text/plain") or ""
            picture = "image/png" in data
            lines += PICTURE if picture else len(str(text).rstrip().split("\n"))
    return lines


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs, items and rows of a text, each in one line."""
    parts = re.split(r"\n\n+|\n(?=\||- |\d+\. |```)", text)
    return [" ".join(part.split()) for part in parts if part.strip()]


def is_thin(slide: Slide) -> bool:
    """Whether a slide has too little on it."""
    return bool(slide.cells) and height(slide.cells) <= THIN


def join_thin(deck: list[Slide]) -> list[Slide]:
    """Put what is too little for a slide on a neighbour in its section, if it fits."""
    joined: list[Slide] = []
    for slide in deck:
        last = joined[-1] if joined else slide
        fits = height([*last.cells, *slide.cells]) <= HEIGHT
        together = joined and slide.section == last.section and fits
        if together and is_thin(last) and not slide.heading:
            last.cells += slide.cells
        elif together and is_thin(slide) and not slide.heading.startswith("## "):
            title = re.sub(r"^#+ ", "", slide.heading)
            first = slide.cells[0]
            first.source = f"**{title}.** {first.source}" if title else first.source
            last.cells += slide.cells
        else:
            joined.append(slide)
    return joined


def end_without_colon(slide: Slide) -> None:
    """Let a slide end with a sentence that announces nothing: what comes is elsewhere.

    One of a few words is left out, such as "Compare the steps:".
    """
    if slide.cells and slide.cells[-1].cell_type == "markdown":
        last = slide.cells[-1]
        last.source = re.sub(r"(?<=[.?!]) +\w+( [\w*`]+){0,3}:\s*\Z", "", last.source)
        last.source = re.sub(r":\s*\Z", ".", last.source)


def give_headings(deck: list[Slide]) -> None:
    """Give each slide a heading that no other one of its section has."""
    seen: Counter = Counter()
    sections: set[str] = set()
    for slide in deck:
        if not slide.heading and slide.section not in sections:
            slide.heading = f"## {slide.section}"
        sections.add(slide.section)
        heading = re.sub(r"^#+ ", "", slide.heading) or subject(slide)
        seen[slide.section, heading] += 1
        if (times := seen[slide.section, heading]) > 1:
            heading = f"{heading} ({times})"
        level = "# " if slide.heading.startswith("# ") else "## "
        slide.heading = level + heading


def subject(slide: Slide) -> str:
    """Say in a few words what a slide without a heading is about."""
    prose = "\n\n".join(c.source for c in slide.cells if c.cell_type == "markdown")
    shown = [c for c in slide.cells if c.cell_type == "code"]
    bold = re.findall(r"^(?:- )?\*\*(?!Predict)([^*]{3,60}?)[.:]?\*\*", prose, re.M)
    code = "\n".join(c.source for c in shown if OUTPUT_ONLY not in build.tags(c))
    own = [
        n.name
        for n in parse(code).body
        if isinstance(n, ast.FunctionDef | ast.ClassDef)
    ]
    if len(bold) == 1:
        return bold[0]
    if "**Predict:**" in prose:
        return "Predict"
    if own:
        return ", ".join(f"`{name}`" for name in own[:3])
    if any(cell.metadata.get("picture") for cell in shown):
        return "In a picture"
    return "In code" if code else "In numbers" if shown else "In words"


def heading_of(slide: Slide) -> str:
    """Return a slide's heading, with its section above it where that is another."""
    text = re.sub(r"^#+ ", "", slide.heading)
    if slide.heading.startswith("# ") or text == slide.section or not slide.section:
        return slide.heading
    return f'<p class="section">{html.escape(slide.section)}</p>\n\n{slide.heading}'


def give_notes(deck: list[Slide], words: teaching.Words | None) -> None:
    """Give the speaker what INSTRUCTOR.md says of a lesson."""
    if words is None:
        return
    deck[0].notes += ["**Say first.**", words.say]
    left = list(words.stalls)
    for slide in deck:
        if exercise := EXERCISE.match(f"#{slide.heading}"):
            number = re.compile(rf"(?<![\d.]){re.escape(exercise[1])}(?![\d])")
            stalls = [stall for stall in words.stalls if number.search(stall)]
            slide.notes += listed("Where people stall", stalls)
            left = [stall for stall in left if stall not in stalls]
    deck[0].notes += listed("Where people stall", left)
    deck[-1].notes += listed("Ask the room", words.asks)


def listed(title: str, items: list[str]) -> list[str]:
    """Return a list below its title, or nothing where there is nothing to list."""
    text = "\n".join(f"- {without_relative_links(item)}" for item in items)
    return [f"**{title}**", text] if items else []


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
    """Read reveal.js, its speaker's view, style and licence from where pip put them.

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
    texts = {key: (folder / path).read_text("utf-8") for key, path in files.items()}
    # It holds a page of its own, whose tags would end the script that it stands in.
    notes = base64.b64encode((folder / "dist" / "plugin" / "notes.js").read_bytes())
    return texts | {"notes_js": f"data:text/javascript;base64,{notes.decode()}"}


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
