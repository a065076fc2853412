"""Read what INSTRUCTOR.md says: of a route, its days; of a lesson, what to say and ask.

Slides and run sheets are made from it, so that it's written once.
"""

import re
from dataclasses import dataclass

import build

PAGE = build.NOTEBOOKS / "teaching" / "INSTRUCTOR.md"


@dataclass
class Row:
    """A row of a timetable.

    Attributes
    ----------
    start, minutes : int
        Minutes from the beginning of the day, and how many it takes.
    what : str
        What is done, in Markdown.
    lesson : str
        The number of the lesson; empty outside one.
    sections : str
        The sections that it takes, as the page says them; empty if none.
    exercises : list[str]
        The exercises, such as ``"0.1"``, or ``["all"]``.
    """

    start: int
    minutes: int
    what: str
    lesson: str
    sections: str
    exercises: list[str]

    @property
    def named(self) -> list[str]:
        """The sections that it names: to take them, or all but them."""
        return self.sections.removeprefix("all but ").split("; ")


@dataclass
class Words:
    """What the page says of a lesson, in Markdown.

    Attributes
    ----------
    say : str
        What to say first.
    stalls : list[str]
        Where people stall.
    asks : list[str]
        Questions for the room, each with its answer.
    """

    say: str
    stalls: list[str]
    asks: list[str]


def chapter(page: str, heading: str) -> str:
    """Return what stands below a heading, up to the next of its level or above.

    Parameters
    ----------
    page : str
        A page in Markdown.
    heading : str
        The heading, or how it begins, with its hashes.

    Raises
    ------
    ValueError
        If the page has no such heading, or more than one.
    """
    level = len(heading.split(" ")[0])
    found = re.findall(
        rf"^{re.escape(heading)}.*?\n(.*?)(?=^#{{2,{level}}} |\Z)",
        page,
        flags=re.MULTILINE | re.DOTALL,
    )
    if len(found) != 1:
        raise ValueError(f"{PAGE.name} needs one heading “{heading}”.")
    return found[0]


def routes(page: str) -> dict[str, list[list[Row]]]:
    """Return the days of each route, by the route's name."""
    text = chapter(page, "## Routes")
    names = re.findall(r"^### (.+)$", text, flags=re.MULTILINE)
    return {name: days(chapter(page, f"### {name}")) for name in names}


def days(text: str) -> list[list[Row]]:
    """Return the timetables of a text, a list of rows for each."""
    blocks = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    return [[row(line) for line in block.splitlines()[2:]] for block in blocks]


def row(line: str) -> Row:
    """Read a row of a timetable."""
    start, minutes, what, sections, exercises = (
        cell.strip() for cell in line.strip("| \n").split(" | ")
    )
    hours, _, rest = start.partition(":")
    chosen = [] if exercises == "–" else exercises.split(", ")
    lesson = sections[:2] if sections != "–" else ""
    if not lesson and chosen:  # a block of exercises alone
        lesson = chosen[0].partition(".")[0].zfill(2)
    return Row(
        start=60 * int(hours) + int(rest),
        minutes=int(minutes),
        what=what,
        lesson=lesson,
        sections="" if sections == "–" else sections.partition(": ")[2],
        exercises=chosen,
    )


def words(page: str, lesson: str) -> Words | None:
    """Return what the page says of a lesson, or None if it does not know it (yet)."""
    if not re.search(rf"^### {lesson} · ", page, flags=re.MULTILINE):
        return None
    text = chapter(page, f"### {lesson} · ")
    say, _, rest = text.partition("**Where people stall**")
    stalls, _, asks = rest.partition("**Ask the room**")
    spoken = re.search(r"\*\*Say first\.\*\* \*(.*?)\*\s*$", say, flags=re.DOTALL)
    return Words(
        say=spoken[1] if spoken else "",
        stalls=bullets(stalls),
        asks=bullets(asks.partition("<!--")[0]),
    )


def bullets(text: str) -> list[str]:
    """Return the items of a list, each in one line."""
    items = re.split(r"^- ", text, flags=re.MULTILINE)[1:]
    return [" ".join(item.partition("\n\n")[0].split()) for item in items]
