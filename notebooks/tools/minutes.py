"""Write into INSTRUCTOR.md how long each section of a lesson takes: ``make minutes``.

Reading is estimated from the text, exercises take what their cards say, and running is
measured: each learner notebook is made from its source and run once, in a kernel of its
own. No notebook is written. ``make minutes ARGS="03"`` measures one lesson, and leaves
what stands there on the others.
"""

import argparse
import os
import platform
import re
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import build
from nbclient import NotebookClient
from nbformat import NotebookNode
from teaching import PAGE

# Set so that the lessons take as long as they did when learners logged each cell. The
# rule below says these numbers, so that the page says what was done.
WORDS = 90
"""Words of prose that are read in a minute."""
LINES = 20
"""Lines of code that are read in a minute."""
QUESTION = 0.75
"""Minutes for each prediction, and for each question at the end of a lesson."""
STEP = 5
"""Seconds to which running time is rounded: less is chance."""

BEGIN = "<!-- minutes {}: written by make minutes, never by hand -->\n"
END = "<!-- end of minutes {} -->\n"
RULE = f"""
- **Reading** is an estimate: {WORDS} words or {LINES} lines of code a minute, and
  {60 * QUESTION:.0f} seconds for each *Predict* and each question at the end. What is
  folded is left out, and so is an appendix, read or run.
- **Running** is what the cells took in a fresh kernel, to {STEP} seconds: 0 stands for
  less than {STEP / 2:g}. The first section of a lesson imports PyTorch.
- **Exercises** take what their cards say, reading them included.
"""
HEAD = ("reading (min)", "running (s)", "exercises (min)", "in all (min)")
ALL = "**all**"


@dataclass
class Section:
    """A section of a lesson, and what in it takes time.

    Attributes
    ----------
    heading : str
        Its heading. What stands before a lesson's first section belongs to that one.
    words, lines, questions : int
        Words of prose, lines of code, predictions and questions, but those of
        exercises.
    exercises : int
        Minutes of its exercises, as their cards say.
    has_code : bool
        Whether anything in it runs.
    seconds : float
        How long its cells took to run; 0 if they were not.
    """

    heading: str
    words: int = 0
    lines: int = 0
    questions: int = 0
    exercises: int = 0
    has_code: bool = False
    seconds: float = 0.0

    @property
    def reading(self) -> float:
        """Minutes to read it, to half a minute."""
        exact = self.words / WORDS + self.lines / LINES + self.questions * QUESTION
        return halves(exact)

    @property
    def running(self) -> int:
        """Seconds to run it, rounded."""
        return STEP * round(self.seconds / STEP)


def halves(minutes: float) -> float:
    """Round minutes to half a minute."""
    return round(2 * minutes) / 2


# --------------------------------------------------------------------- what takes time


def sections(notebook: NotebookNode) -> list[Section]:
    """Return the sections of a learner notebook, in order.

    What is folded is not counted, nor what belongs to an exercise, from its heading to
    its check: the card says how long that takes. An appendix is none of them: a class
    leaves it out.
    """
    found = [Section("")]
    in_exercise = False
    for cell in notebook.cells:
        if cell.cell_type == "code":
            section = found[-1]
            section.has_code = True
            section.seconds += seconds(cell)
            folded = cell.metadata.get("jupyter", {}).get("source_hidden")
            if not in_exercise and not folded:
                section.lines += count_lines(cell.source)
            if cell.source.startswith('check("'):
                in_exercise = False
            continue
        in_code = False
        for line in visible(build.without_link(cell.source)).splitlines():
            if heading := re.match(r"## (.+)", line):
                if heading[1].startswith("Appendix"):
                    return found
                if found[0].heading:
                    found.append(Section(""))
                found[-1].heading = heading[1]
            section = found[-1]
            in_exercise |= line.startswith("### Exercise")
            if minutes := re.match(r"\| \d of 3, \w+ \| (\d+) \|", line):
                section.exercises += int(minutes[1])
            if line.startswith("```"):
                in_code = not in_code
            elif in_exercise:
                continue
            elif in_code:
                section.lines += count_lines(line)
            else:
                section.words += len(re.findall(r"\S*\w\S*", line))
                section.questions += len(re.findall(r"\*\*Predict|^\d+\?", line))
    return found


def visible(text: str) -> str:
    """Return Markdown as it is seen: without folded parts, addresses and tags.

    A folded answer leaves its question, marked by ``1?`` in place of ``1.``
    """

    def question(details: re.Match) -> str:
        asked = re.search(r"<summary>(\d+)\. (.*?)</summary>", details[0], re.DOTALL)
        return f"{asked[1]}? {asked[2]}" if asked else ""

    text = re.sub(r"<details>.*?</details>", question, text, flags=re.DOTALL)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"</?\w+[^>]*>", "", text)


def count_lines(code: str) -> int:
    """Count the lines that are not empty."""
    return sum(bool(line.strip()) for line in code.splitlines())


def seconds(cell: NotebookNode) -> float:
    """Return how long a code cell took, or 0 if it was not run."""
    times = cell.metadata.get("execution")
    if not times:
        return 0.0
    begin, end = (
        datetime.fromisoformat(times[name].replace("Z", "+00:00"))
        for name in ("iopub.status.busy", "shell.execute_reply")
    )
    return (end - begin).total_seconds()


def warn_if_busy() -> None:
    """Say so if other programs would be measured, too."""
    # Windows has no load average.
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > os.cpu_count() / 2:
        print(
            f"Other programs keep this machine busy (load {load:.1f}): running time "
            "will come out too long. Measure again when they have ended.",
            flush=True,
        )


def run(notebook: NotebookNode) -> None:
    """Run a notebook where it would lie, each cell with its times."""
    NotebookClient(
        notebook,
        timeout=600,
        record_timing=True,
        resources={"metadata": {"path": str(build.NOTEBOOKS)}},
    ).execute()


# ---------------------------------------------------------------- reading and writing


def row(name: str, *cells: float | str) -> str:
    """Return a row of a table."""
    shown = [f"{cell:g}" if isinstance(cell, float | int) else cell for cell in cells]
    return f"| {' | '.join([name, *shown])} |\n"


def lesson_table(found: list[Section]) -> str:
    """Return a lesson's table, and what it was measured on."""
    text = row("section", *HEAD) + row("---", *["--:"] * len(HEAD))
    for each in found:
        in_all = each.reading + each.running / 60 + each.exercises
        cells = (each.reading, each.running, each.exercises, halves(in_all))
        text += row(each.heading, *cells)
    reading, running, exercises = (
        sum(getattr(each, part) for each in found)
        for part in ("reading", "running", "exercises")
    )
    in_all = round(reading + running / 60 + exercises)
    text += row(ALL, reading, running, exercises, in_all)
    return f"{text}\nMeasured on {platform.system()} with {os.cpu_count()} cores.\n"


def read_table(page: str, name: str) -> dict[str, list[float]]:
    """Read a table of the page: the numbers of each row, by the row's first cell.

    Parameters
    ----------
    page : str
        The text of INSTRUCTOR.md.
    name : str
        The number of a lesson, or ``"all"``.

    Returns
    -------
    dict[str, list[float]]
        The rows below the head, empty if there is no table yet.

    Raises
    ------
    ValueError
        If the table's place is not marked, exactly once.
    """
    _, block, _ = cut_out(page, name)
    rows = [line[2:-2].split(" | ") for line in block.splitlines() if line[:2] == "| "]
    return {name: [float(cell) for cell in cells] for name, *cells in rows[2:]}


def cut_out(page: str, name: str) -> tuple[str, str, str]:
    """Return what stands before the end of a mark, between two marks, and after."""
    begin, end = BEGIN.format(name), END.format(name)
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(
            f"{PAGE.name} needs these two lines once each, for the table to stand "
            f"between them:\n{begin}{end}"
        )
    before, _, rest = page.partition(begin)
    between, _, after = rest.partition(end)
    return before + begin, between, end + after


def put(page: str, name: str, block: str) -> str:
    """Return the page with another table."""
    before, _, after = cut_out(page, name)
    return f"{before}\n{block}\n{after}"


def title(source: Path) -> tuple[str, int]:
    """Return a lesson's name, and how many minutes it says that it takes."""
    text = source.read_text(encoding="utf-8")
    name = re.search(r"^# # \d\d · (.*)$", text, re.MULTILINE)[1]
    return name, int(re.search(r"\*\*Time:\*\* (\d+) minutes", text)[1])


def overview(page: str, sources: list[Path]) -> str:
    """Return the table of all lessons, made from their own tables, and the rule."""
    text = row("lesson", *HEAD, "its title says") + row("---", *["--:"] * 5)
    sums = [0.0] * 5
    for source in sources:
        lesson = read_table(page, source.stem[:2])
        if not lesson:
            continue
        name, stated = title(source)
        numbers = [*lesson[ALL], stated]
        sums = [total + number for total, number in zip(sums, numbers, strict=True)]
        text += row(f"{source.stem[:2]} · {name}", *numbers)
    text += row(ALL, *sums)
    return text + RULE


def update(page: str, sources: list[Path], lessons: list[str], *, measure: bool) -> str:
    """Return the page with the tables of some lessons made anew.

    Parameters
    ----------
    page : str
        The text of INSTRUCTOR.md.
    sources : list[Path]
        The sources of all lessons.
    lessons : list[str]
        Numbers of those to make anew, such as ``"03"``.
    measure : bool
        Whether to run them, or to take the running time that stands on the page.

    Raises
    ------
    ValueError
        If there is no such lesson, a table's place is not marked, or a running time is
        wanted that does not stand there.
    """
    known = {source.stem[:2]: source for source in sources}
    for number in lessons:
        if number not in known:
            raise ValueError(f"No lesson {number!r}. There are: {', '.join(known)}.")
        old = read_table(page, number)  # before the run: are the marks there?
        notebook = build.make_notebook(known[number])
        if measure:
            if number == lessons[0]:  # later on, the load is this program's own
                warn_if_busy()
            print(f"{known[number].stem} is running", flush=True)
            run(notebook)
        found = sections(notebook)
        for each in found:
            if not measure and each.heading not in old:
                raise ValueError(
                    f"“{each.heading}” of lesson {number} was never measured: run this "
                    "without --no-run."
                )
            if not measure:
                each.seconds = old[each.heading][1]
            print(f"{each.seconds:7.1f} s  {each.heading}", flush=True)
        page = put(page, number, lesson_table(found))
    return put(page, "all", overview(page, sources))


def main() -> None:
    """Measure lessons, and write their minutes into INSTRUCTOR.md."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("lessons", nargs="*", help="such as 00 03; default: all")
    parser.add_argument(
        "--no-run",
        action="store_true",
        help="count words and exercises only, and keep the times that stand there",
    )
    arguments = parser.parse_args()
    sources = sorted(build.SOURCES.glob("[0-9]*.py"))
    lessons = arguments.lessons or [source.stem[:2] for source in sources]
    try:
        page = PAGE.read_text(encoding="utf-8")
        page = update(page, sources, lessons, measure=not arguments.no_run)
    except ValueError as error:
        sys.exit(str(error))
    PAGE.write_text(page, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
