"""Make a run sheet for each route, a page a day, to print: ``make run-sheets``.

All of it stands in INSTRUCTOR.md: the timetable of each day and, beside its rows, what
to say first, what to ask, and where people stall in the exercises. Where a page is
full, answers are left out first, then stalls, then the last questions. One page more
has the opening without computers.
``make run-sheets ARGS="--start 9:15"`` prints the time of the clock.
"""

import argparse
import html
import math
import re
import sys
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import build
import minutes
import mistune
import slides
import teaching
from assignment import without_relative_links

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "run-sheets"

HEIGHT, WIDTH = 230.0, 162.0
"""Millimetres of a page's table, and of what is done and said in it: Letter's and A4's,
whichever is less."""
DONE = (58.0, 70.0, 82.0)
"""Millimetres of what is done: what makes the table shortest."""
SIZES = (11.0, 10.5, 10.0, 9.5, 9.0, 8.5)
"""Points of a letter: the largest that fits."""
POINT = 0.3528
"""Millimetres."""

STYLE = """
@page { margin: 10mm; }
body { font: 10pt/1.25 system-ui, "Segoe UI", Roboto, Arial, sans-serif; color: #000;
  margin: 0; }
main + main { break-before: page; }
h1 { font-size: 15pt; margin: 0 0 1mm; }
.before { margin: 0 0 2mm; }
table { border-collapse: collapse; width: 100%; table-layout: fixed; }
td, th { border-top: 1px solid #999; padding: 0.7mm 2mm 0.7mm 0; text-align: left;
  vertical-align: top; overflow-wrap: break-word; }
tr { break-inside: avoid; }
.time { width: 14mm; font-variant-numeric: tabular-nums; }
.long { width: 9mm; }
.pause td { background: #eee; }
p, ul { margin: 0; }
p + p, p + ul { margin-top: 0.7mm; }
ul { padding-left: 4mm; }
code { font-family: "Cascadia Mono", Menlo, "DejaVu Sans Mono", Consolas, monospace;
  font-size: 0.88em; }
.paper { font-size: 8.5pt; }
.paper p, .paper table, .paper ol { margin: 0 0 1mm; }
.paper td, .paper th { padding-top: 0; padding-bottom: 0; }
.paper table { table-layout: auto; width: auto; }
@media screen {
  body { max-width: 190mm; margin: 10mm auto; }
  main + main { margin-top: 15mm; }
}
"""
BEFORE = (
    "☐ slides are open (`s`: your notes; `g 12 Enter`: slide 12) &nbsp; ☐ *Run All* "
    "has run, outputs are cleared &nbsp; ☐ this page. (Of the questions, one will do.)"
)
CARDS = "☐ Lesson 00's first cell says OK &nbsp; ☐ cards, *On paper* &nbsp; "
LEGEND = (
    "↷ The row jumps: in a kernel without *Run All*, put the cursor on its heading, "
    "then *Run → Run All Above Selected Cell*."
)
RUN_ALL = (
    "Open lesson 00, *Run → Run All Cells*, lid half closed. No OK in its first cell? "
    "Sit beside somebody who has it, and take the stick."
)
CLEAR = "then, on all machines: *Edit → Clear Outputs of All Cells*"


@dataclass
class Line:
    """A row of a sheet: what is done, and what is said, both in Markdown."""

    row: teaching.Row
    done: list[str]
    said: list[str]


def headings_of(page: str, lesson: str) -> list[str]:
    """Return the sections of a lesson, as the page's table has them."""
    return [name for name in minutes.read_table(page, lesson) if name != minutes.ALL]


def jumps(rows: list[teaching.Row], index: int, page: str) -> bool:
    """Whether a row begins, or goes on, where what is above was left out."""
    row = rows[index]
    if not row.lesson or row.sections == "all":
        return False
    headings = headings_of(page, row.lesson)
    if not row.sections:  # an exercise alone: its section is not the one before
        return True
    if row.sections.startswith("all but "):
        last_needed = max(headings.index(name) for name in row.named)
        return last_needed < len(headings) - 1
    places = [headings.index(name) for name in row.named]
    earlier = [r for r in rows[:index] if r.lesson == row.lesson and r.sections]
    done = (
        headings.index(earlier[-1].sections.split("; ")[-1])
        if earlier and not earlier[-1].sections.startswith("all")
        else -1
    )
    return places != list(range(done + 1, done + 1 + len(places)))


@cache
def deck(lesson: str) -> list[slides.Slide]:
    """Return the slides of a lesson."""
    (source,) = build.SOURCES.glob(f"{lesson}_*.py")
    return slides.slides_of(source, build.NOTEBOOKS / f"{source.stem}.ipynb")


def shown(row: teaching.Row, is_first: bool) -> list[int]:
    """Return the numbers of the slides that a row of a lesson takes.

    These are its sections' and its exercises', and before its lesson's first row the
    title.
    """
    numbers = []
    for number, slide in enumerate(deck(row.lesson), start=1):
        exercise = slides.EXERCISE.match(f"#{slide.heading}")
        if exercise:
            is_shown = exercise[1] in row.exercises or row.exercises == ["all"]
        elif slide.section:
            is_shown = takes(row, slide.section)
        else:
            is_shown = is_first
        if is_shown:
            numbers.append(number)
    return numbers


def ranges(numbers: list[int]) -> str:
    """Write numbers such as 2, 3, 4, 7 as 2–4, 7."""
    written: list[list[int]] = []
    for number in numbers:
        if written and number == written[-1][-1] + 1:
            written[-1].append(number)
        else:
            written.append([number])
    return ", ".join(f"{r[0]}–{r[-1]}" if r[1:] else f"{r[0]}" for r in written)


def lines(rows: list[teaching.Row], page: str, detail: int) -> list[Line]:
    """Return the rows of a day, with more of what is said the higher the detail is."""
    made = []
    for index, row in enumerate(rows):
        mark = " ↷" if jumps(rows, index, page) else ""
        done, said = [f"**{without_relative_links(row.what)}**{mark}"], []
        if row.sections:
            done.append(row.sections if row.sections != "all" else "all sections")
        others = [r.lesson == row.lesson for r in rows]
        is_first = others.index(True) == index
        parts = [f"Exercises: {', '.join(row.exercises)}"] if row.exercises else []
        parts += [f"Slides: {ranges(shown(row, is_first))}"] if row.lesson else []
        done += [" &nbsp; ".join(parts)] if parts else []
        if "*Run All*" in row.what:
            done.append(RUN_ALL)
        if row.what == "On paper":
            on_paper(page, done, said, detail)
        words = teaching.words(page, row.lesson) if row.lesson else None
        if words:
            if is_first:
                said.append(f"**Say:** {' '.join(words.say.split())}")
            if detail >= 1:
                said += stalls(words, row)
            if index == len(rows) - 1 - others[::-1].index(True):
                sections = headings_of(page, row.lesson)
                asked = answerable(words.asks, rows, row.lesson, sections)
                said += questions(asked, detail)
        made.append(Line(row, done, said))
    return made


def on_paper(page: str, done: list[str], said: list[str], detail: int) -> None:
    """Add how the opening without computers goes."""
    text = teaching.chapter(page, "## An opening without computers")
    steps = re.findall(r"^\| (\d+) \| ([^|]+) \|$", text, flags=re.MULTILINE)
    done.append("; ".join(f"{length} min {step}" for length, step in steps))
    done.append(CLEAR)
    if detail >= 0:
        say = re.search(r"^\*\*Say:\*\* \*(.*?)\*$", text, re.MULTILINE | re.DOTALL)
        said.append(f"**Say:** {' '.join(say[1].split())}")
    if detail >= 1:
        items = re.findall(r"^\d\. (.*?)(?=^\d\. |\n\n)", text, re.M | re.S)
        said += [" ".join(item.split()) for item in items]


def answerable(
    asks: list[str], rows: list[teaching.Row], lesson: str, sections: list[str]
) -> list[str]:
    """Leave out questions on one of the lesson's sections that these rows skip."""
    own = [row for row in rows if row.lesson == lesson]
    kept = []
    for ask in asks:
        question, _, section = ask.partition(" (Only with *")
        section = section.removesuffix("*.)")
        if section and section not in sections:
            raise ValueError(
                f"{lesson} has no section “{section}”, which a question names."
            )
        if not section or any(takes(row, section) for row in own):
            kept.append(question)
    return kept


def takes(row: teaching.Row, section: str) -> bool:
    """Whether a row takes a section of its lesson."""
    return (section in row.named) != row.sections.startswith("all")


def stalls(words: teaching.Words, row: teaching.Row) -> list[str]:
    """Return where people stall in the exercises of a row."""
    chosen = row.exercises
    if chosen == ["all"]:
        chosen = [f"{int(row.lesson)}.{number}" for number in (1, 2, 3)]
    pattern = "|".join(rf"(?<![\d.]){re.escape(name)}(?!\d)" for name in chosen)
    return [
        f"**Stall:** {without_relative_links(stall)}"
        for stall in words.stalls
        if chosen and re.search(pattern, stall)
    ]


def questions(asks: list[str], detail: int) -> list[str]:
    """Return what to ask the room: all, with answers or without, or the first ones."""
    asked = [without_relative_links(ask) for ask in asks]
    if detail < 2:
        asked = [re.match(r"\*[^*]+\*", ask)[0] for ask in asked]
    return [
        f"**Ask:** {ask}" for ask in (asked if detail >= 0 else asked[: 3 + detail])
    ]


def needed(made: list[Line], size: float, done: float) -> float:
    """Estimate how many millimetres a table takes.

    Its letters have so many points, and its column of what is done so many millimetres.
    """

    def count(texts: list[str], width: float) -> int:
        per_line = width / (0.52 * size * POINT)
        return sum(math.ceil(len(text.replace("*", "")) / per_line) for text in texts)

    total = 0.0
    for line in made:
        high = max(count(line.done, done), count(line.said, WIDTH - done))
        total += high * 1.25 * size * POINT + 1.7 + 0.7 * len(line.said)
    return 1.08 * total  # lines break at words


def choose(rows: list[teaching.Row], page: str) -> tuple[list[Line], float, float]:
    """Return as much as fits on a page, in letters as large as fit with it.

    Returns
    -------
    tuple
        The lines, the points of a letter, and the millimetres of what is done.
    """
    for detail in (2, 1, 0, -1, -2):
        made = lines(rows, page, detail)
        for size in SIZES:
            done = min(DONE, key=partial(needed, made, size))
            if needed(made, size, done) <= HEIGHT:
                return made, size, done
    return made, size, done


def inline(text: str) -> str:
    """Turn Markdown into HTML."""
    return mistune.html(text).strip()


def clock(passed: int, start: int) -> str:
    """Return a time as hours and minutes."""
    hours, rest = divmod(start + passed, 60)
    return f"{hours % 24}:{rest:02d}"


def sheet(name: str, rows: list[teaching.Row], page: str, start: int) -> str:
    """Return the page of one day."""
    made, size, width = choose(rows, page)
    body = ""
    for line in made:
        pause = ' class="pause"' if line.row.what.startswith("**") else ""
        done = "".join(map(inline, line.done)).replace("****", "")
        body += (
            f"<tr{pause}><td class='time'>{clock(line.row.start, start)}</td>"
            f"<td class='long'>{line.row.minutes}</td>"
            f"<td class='what'>{done}</td>"
            f"<td>{''.join(map(inline, line.said))}</td></tr>\n"
        )
    legend = inline(LEGEND) if "↷" in body else ""
    before = CARDS + BEFORE if "On paper" in body else BEFORE
    return (
        f"<main style='font-size: {size}pt'>\n<h1>{html.escape(name)}</h1>\n"
        f"<div class='before'>{inline(before)}{legend}</div>\n<table>\n"
        "<tr><th class='time'>time</th><th class='long'>min</th>"
        f"<th class='what' style='width: {width + 2:.0f}mm'>what</th>"
        f"<th>say, ask, watch for</th></tr>\n{body}</table>\n"
        "</main>\n"
    )


def make_sheets(page: str, start: int = 0) -> dict[str, str]:
    """Return a page of HTML for each route, by the name of its file."""
    made = {}
    for name, days in teaching.routes(page).items():
        titles = [f"{name}, day {n}" for n in range(1, len(days) + 1)]
        titles = titles if len(days) > 1 else [name]
        pairs = zip(titles, days, strict=True)
        sheets = "".join(sheet(title, rows, page, start) for title, rows in pairs)
        made[f"{re.sub(r'[^a-z0-9]+', '-', name.lower())}.html"] = whole(name, sheets)
    return made


def whole(name: str, body: str) -> str:
    """Return a page to print."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Run sheet: {html.escape(name)}</title>\n"
        f"<style>{STYLE}</style></head>\n"
        f"<body>\n{body}</body></html>\n"
    )


def opening(page: str) -> str:
    """Return the opening without computers, which a teacher has in hand, on a page."""
    text = mistune.html(teaching.chapter(page, "## An opening without computers"))
    return whole("On paper", f"<main class='paper'><h1>On paper</h1>\n{text}</main>\n")


def minutes_of(text: str) -> int:
    """Read a time such as 9:15."""
    match = re.fullmatch(r"(\d{1,2}):([0-5]\d)", text)
    if not match or int(match[1]) > 23:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write it as 9:15.")
    return 60 * int(match[1]) + int(match[2])


def main() -> None:
    """Make the run sheets of all routes."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "--start",
        type=minutes_of,
        default=0,
        help="when the class begins, such as 9:15",
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write")
    arguments = parser.parse_args()
    try:
        page = teaching.PAGE.read_text(encoding="utf-8")
        made = make_sheets(page, arguments.start) | {"on-paper.html": opening(page)}
    except ValueError as error:
        sys.exit(str(error))
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, text in made.items():
        path = arguments.folder / name
        path.write_text(text, encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
