"""INSTRUCTOR.md: its minutes, its timetables, its arithmetic, and whom it quotes."""

import ast
import re
import sys
from fractions import Fraction
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
sys.path.insert(0, str(NOTEBOOKS / "tools"))
import build  # noqa: E402
import minutes  # noqa: E402
import teaching  # noqa: E402

SOURCES = {s.stem[:2]: s for s in sorted(build.SOURCES.glob("[0-9]*.py"))}
PAGE = minutes.PAGE.read_text(encoding="utf-8")
BREAKS = ("**Break**", "**Lunch**")
every_lesson = pytest.mark.parametrize("number", SOURCES)


def chapter(heading: str) -> str:
    """Return what stands below a heading of the page."""
    return teaching.chapter(PAGE, heading)


def tables(text: str) -> list[list[list[str]]]:
    """Return the tables of a text, each as its rows below the head."""
    blocks = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    rows = [[line.strip("| ").split(" | ") for line in b.splitlines()] for b in blocks]
    return [[[cell.strip() for cell in row] for row in t[2:]] for t in rows]


def words(text: str) -> str:
    """Return a text in one line, however it is wrapped."""
    return " ".join(text.split())


@cache
def sections_of(number: str) -> dict[str, minutes.Section]:
    found = minutes.sections(build.make_notebook(SOURCES[number]))
    return {section.heading: section for section in found}


# ------------------------------------------------------------------ what stands in them


@every_lesson
def test_the_minutes_are_those_of_the_lessons_sections(number) -> None:
    source = SOURCES[number].read_text(encoding="utf-8")
    found, table = sections_of(number), minutes.read_table(PAGE, number)
    # An appendix is no section, and only the end of a lesson.
    assert source.count("\n# ## Appendix") <= 1
    body = source.split("\n# ## Appendix")[0]
    assert list(found) == re.findall(r"^# ## (.+)$", body, flags=re.MULTILINE)
    assert list(table) == [*found, minutes.ALL], "run `make minutes`"
    for heading, section in found.items():
        reading, running, exercises, in_all = table[heading]
        assert (reading, exercises) == (section.reading, section.exercises), heading
        assert running >= 0 and running % minutes.STEP == 0
        assert running == 0 or section.has_code, heading
        assert abs(reading + running / 60 + exercises - in_all) <= 0.25
    *sums, in_all = table[minutes.ALL]
    columns = list(zip(*[table[heading] for heading in found], strict=True))
    assert sums == [sum(column) for column in columns[:3]]
    assert abs(sums[0] + sums[1] / 60 + sums[2] - in_all) <= 0.5
    assert 5 <= sums[1] <= 15 * 60, "nothing was run, or something went wrong"
    cards = re.findall(r"^# \| \d of 3, \w+ \| (\d+) \|", source, flags=re.MULTILINE)
    assert sums[2] == sum(map(int, cards))


@every_lesson
def test_a_lesson_takes_as_long_as_its_title_and_the_readme_say(number) -> None:
    *_, in_all = minutes.read_table(PAGE, number)[minutes.ALL]
    _, stated = minutes.title(SOURCES[number])
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| {number} \| .* \| {stated} \|$", readme, re.MULTILINE)
    assert abs(in_all - stated) <= 0.15 * stated, "correct the title, and the README"


def test_the_table_of_all_lessons_repeats_theirs() -> None:
    overview = minutes.read_table(PAGE, "all")
    assert [name[:2] for name in overview] == [*SOURCES, "**"]
    for name, numbers in overview.items():
        if name != minutes.ALL:
            assert numbers[:4] == minutes.read_table(PAGE, name[:2])[minutes.ALL]
    *rows, sums = overview.values()
    assert sums == [sum(column) for column in zip(*rows, strict=True)]


# ------------------------------------------------------------- how they are made


def small_notebook():
    return new_notebook(
        cells=[
            new_markdown_cell(
                f"[{build.OPEN}](x)\n\n# 00 · Small\n\none two [three](x.md)"
            ),
            new_code_cell("a\nb", metadata={"jupyter": {"source_hidden": True}}),
            new_markdown_cell(
                "**Predict:** five\n\n## First\nsix `seven`\n"
                "```\nfenced = 1\n```\n<br>\n"
                "### Exercise 0.1: not read\n| 2 of 3, apply | 8 | why |\nnot read"
                "<details><summary>Hint 1</summary>\n\nnot read\n</details>"
            ),
            new_code_cell("def stub():\n    not_read = 1"),
            new_code_cell('check("0.1", stub)'),
            new_markdown_cell("## Second\neight"),
            new_code_cell("ran = 1\n\nran"),
            new_markdown_cell(
                "<details><summary>1. nine ten\neleven?</summary>\n\nnot read\n"
                "</details>\n\n<details><summary>2. twelve?</summary>no</details>"
            ),
        ]
    )


def test_reading_leaves_out_what_is_folded_and_what_is_an_exercise() -> None:
    first, second = minutes.sections(small_notebook())
    # 00 Small one two three Predict five First six seven
    assert (first.heading, first.words, first.lines) == ("First", 10, 1)
    assert (first.questions, first.exercises) == (1, 8)
    # Second eight 1 nine ten eleven 2 twelve
    assert (second.heading, second.words, second.lines) == ("Second", 8, 2)
    assert (second.questions, second.exercises) == (2, 0)


def test_an_appendix_is_left_out() -> None:
    notebook = small_notebook()
    before = minutes.sections(notebook)
    notebook.cells += [
        new_markdown_cell("## Appendix: more\n\nfor those who **Predict:** more"),
        new_code_cell("more = 1"),
        new_markdown_cell("### Still more"),
    ]
    assert minutes.sections(notebook) == before


def test_running_is_added_up_by_section_and_rounded() -> None:
    notebook = small_notebook()
    for number, last in ((1, "01.500"), (4, "06.250"), (6, "12.400")):
        notebook.cells[number].metadata["execution"] = {
            "iopub.status.busy": "2026-01-01T10:00:00.000000Z",
            "shell.execute_reply": f"2026-01-01T10:00:{last}000Z",
        }
    first, second = minutes.sections(notebook)
    assert (first.seconds, first.running) == (7.75, 10)
    assert (second.seconds, second.running) == (12.4, 10)


def timed(notebook) -> None:
    """Stand in for running a notebook: a code cell takes 30 seconds."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata["execution"] = {
                "iopub.status.busy": "2026-01-01T10:00:00Z",
                "shell.execute_reply": "2026-01-01T10:00:30Z",
            }


def update(page: str, *lessons: str, measure: bool = True) -> str:
    return minutes.update(page, list(SOURCES.values()), lessons, measure=measure)


def test_measuring_one_lesson_leaves_the_others_and_the_prose(monkeypatch) -> None:
    monkeypatch.setattr(minutes, "run", timed)
    page = update(PAGE, "01")
    before, after = PAGE.splitlines(), page.splitlines()
    start = after.index(minutes.BEGIN.format("01").strip())
    end = after.index(minutes.END.format("01").strip())
    assert minutes.read_table(page, "01")["Takeaways"][1] == 0
    assert minutes.read_table(page, "01")["The reply"][1] == 60
    assert after[end:] == before[-len(after[end:]) :]
    overview = minutes.read_table(page, "all")
    for line in after[:start]:
        assert line in before or line.startswith(("| 01 ·", f"| {minutes.ALL}")), line
    (row,) = (numbers for name, numbers in overview.items() if name[:2] == "01")
    assert row[:4] == minutes.read_table(page, "01")[minutes.ALL]
    assert update(page, "01") == page, "measured twice, it should be the same page"


def test_without_a_run_times_are_kept_and_words_are_counted_again(monkeypatch) -> None:
    monkeypatch.setattr(minutes, "run", None)
    table = minutes.read_table(PAGE, "01")
    reading, running, *_ = table["The reply"]
    changed = PAGE.replace(f"| The reply | {reading:g} |", "| The reply | 99 |")
    assert changed != PAGE
    assert update(changed, *SOURCES, measure=False) == PAGE
    unknown = PAGE.replace("| The reply |", "| Another heading |")
    with pytest.raises(ValueError, match="“The reply” of lesson 01 was never measured"):
        update(unknown, "01", measure=False)
    assert running >= 0


@pytest.mark.parametrize(
    ("page", "lesson", "sentence"),
    [
        (PAGE, "99", "No lesson '99'. There are: 00, 01"),
        (PAGE.replace(minutes.END.format("03"), ""), "03", "needs these two lines"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_runs(
    page, lesson, sentence, monkeypatch
) -> None:
    monkeypatch.setattr(minutes, "run", None)
    with pytest.raises(ValueError, match=sentence):
        update(page, lesson)


# -------------------------------------------------------------------------- timetables

ROUTES = {
    "### 90 minutes": [90],
    "### Half a day": [210],
    "### One day": [420],
    "### Three days": [420, 420, 360],
    "### Part III": [330, 180],
    "### Part IV": [180, 180, 180],
    "### Part V": [140],
}
ROUTE_DAYS = [
    pytest.param(heading, day, id=f"{heading.strip('# ')}, day {day + 1}")
    for heading, days in ROUTES.items()
    for day in range(len(days))
]
every_day = pytest.mark.parametrize(("heading", "day"), ROUTE_DAYS)


def timetable(heading: str, day: int) -> list[list[str]]:
    days = tables(chapter(heading))
    assert len(days) == len(ROUTES[heading])
    return days[day]


def clock(text: str) -> int:
    hours, rest = text.split(":")
    return 60 * int(hours) + int(rest)


@every_day
def test_a_timetable_adds_up_and_has_breaks(heading, day) -> None:
    now, since_break = 0, 0
    for start, length, what, *_ in timetable(heading, day):
        assert clock(start) == now, what
        now += int(length)
        since_break = 0 if what in BREAKS else since_break + int(length)
        assert since_break <= 105, f"no break before the end of: {what}"
    assert now == ROUTES[heading][day]


def exercises_of(number: str) -> dict[str, int]:
    """Return the minutes on each card of a lesson."""
    source = SOURCES[number].read_text(encoding="utf-8")
    card = r"^# ### Exercise (\d+\.\d).*?^# \| \d of 3, \w+ \| (\d+) \|"
    found = re.findall(card, source, flags=re.MULTILINE | re.DOTALL)
    return {name: int(length) for name, length in found}


def chosen_sections(cell: str) -> tuple[str, list[str]]:
    """Return the lesson of a row, and the sections that it takes."""
    number, _, named = cell.partition(": ")
    every = list(sections_of(number))
    if named == "all":
        return number, every
    left_out = named.removeprefix("all but ")
    names = left_out.split("; ")
    assert set(names) <= set(every), set(names) - set(every)
    if left_out != named:
        return number, [heading for heading in every if heading not in names]
    return number, names


def chosen_exercises(cell: str, number: str) -> list[str]:
    if cell == "all":
        return list(exercises_of(number))
    return [] if cell == "–" else cell.split(", ")


@every_day
def test_a_block_is_long_enough_for_its_sections_and_exercises(heading, day) -> None:
    for _, length, what, sections, exercises in timetable(heading, day):
        needed, number = 0.0, ""
        if sections != "–":
            number, names = chosen_sections(sections)
            table = minutes.read_table(PAGE, number)
            needed += sum(table[name][0] + table[name][1] / 60 for name in names)
        for name in chosen_exercises(exercises, number):
            needed += exercises_of(name.partition(".")[0].zfill(2))[name]
        assert needed <= int(length), f"{what} needs {needed:.0f} minutes"


def taken(heading: str) -> tuple[set[str], set[str]]:
    """Return the lessons and the exercises that a route takes."""
    lessons, exercises = set(), set()
    for day in range(len(ROUTES[heading])):
        for *_, sections, chosen in timetable(heading, day):
            number = sections[:2] if sections != "–" else ""
            lessons |= {number} - {""}
            exercises |= set(chosen_exercises(chosen, number))
    return lessons, exercises


PARTS_I_AND_II = [number for number in SOURCES if number <= "07"]


def test_three_days_take_every_section_and_every_exercise_once() -> None:
    seen = []
    for day in range(3):
        for *_, sections, _ in timetable("### Three days", day):
            if sections != "–":
                number, names = chosen_sections(sections)
                seen += [(number, name) for name in names]
    whole = PARTS_I_AND_II
    assert seen == [(n, heading) for n in whole for heading in sections_of(n)]
    _, exercises = taken("### Three days")
    assert exercises == {name for n in whole for name in exercises_of(n)}


LATER = set(SOURCES) - set(PARTS_I_AND_II)
SKIPPED = {
    "### 90 minutes": {"01", "02", "03", "04", "05", "06", "07"} | LATER,
    "### Half a day": {"02", "04", "06", "07"} | LATER,
    "### One day": {"04", "06", "07"} | LATER,
    "### Three days": LATER,
    "### Part III": set(SOURCES) - {"08", "09", "10"},
    "### Part IV": set(SOURCES) - {"11", "12", "13"},
    "### Part V": set(SOURCES) - {"14"},
}


@pytest.mark.parametrize("heading", ROUTES)
def test_a_route_says_what_it_skips(heading) -> None:
    lessons, exercises = taken(heading)
    assert set(SOURCES) - lessons == SKIPPED[heading]
    skipped = chapter(heading).split("**Skip:**")[1].split("\n\n")[0]
    whole = {name for number in lessons for name in exercises_of(number)}
    assert set(re.findall(r"\d+\.\d", skipped)) == whole - exercises


# --------------------------------------------------------------------------- on paper

PAPER = "## An opening without computers"


def test_the_minutes_on_paper_fit_every_route() -> None:
    in_all = sum(int(length) for length, _ in tables(chapter(PAPER))[0])
    blocks = [
        int(length)
        for heading in ROUTES
        for _, length, what, *_ in timetable(heading, 0)
        if what == "On paper"
    ]
    assert len(blocks) == 4 and min(blocks) == in_all


def test_the_cards_give_the_averages_that_the_page_says() -> None:
    text = words(chapter(PAPER))
    rows = tables(chapter(PAPER))[1]
    cards = {name: [int(c) for c in shown.split(", ")] for name, shown, *_ in rows}
    for name, _, count, mean in rows:
        assert (len(cards[name]), sum(cards[name])) == (
            int(count),
            int(count) * int(mean),
        )
    every = [card for own in cards.values() for card in own]
    means = [Fraction(sum(own), len(own)) for own in cards.values()]
    plain, right = sum(means) / len(means), Fraction(sum(every), len(every))
    assert (len(every), sum(every)) == (30, 120)
    weighted = [
        mean * len(own) for mean, own in zip(means, cards.values(), strict=True)
    ]
    assert sum(weighted) / len(every) == right != plain
    assert f"**{plain}** ({sum(means)} divided by {len(means)})" in text
    sums = " + ".join(map(str, weighted))
    assert f"{sums} = {sum(every)}, divided by {len(every)} cards" in text
    assert f"which is **{right}**" in text
    one, other = sorted(cards["A"])
    total = f"2 × {means[0]} − {one} = **{other}**"
    assert total in text and means[0] * 2 - one == other


def locally(steps: int, start: Fraction) -> tuple[Fraction, Fraction, Fraction]:
    """Return what both kinds of clinics say after some steps, and the average."""
    low = high = start
    for _ in range(steps):
        low += (0 - low) / 2
        high += (12 - high) / 4
    return low, high, (low + high) / 2


def test_the_drift_is_what_the_page_says() -> None:
    *finite, without_end = tables(chapter(PAPER))[2]
    for steps, *numbers in finite:
        said = [Fraction(number) for number in numbers]
        assert said == list(locally(int(steps), Fraction(4)))
    assert without_end == ["without end", "0", "12", "6"]
    assert [round(float(n), 9) for n in locally(99, Fraction(4))] == [0, 12, 6]


def test_the_exchanges_are_counted_right() -> None:
    text = words(chapter(PAPER))
    one = two = Fraction(12)
    for exchanges, *said in tables(chapter(PAPER))[3]:
        if exchanges != "0":
            one, two = locally(1, one)[2], locally(2, two)[2]
        assert [Fraction(number) for number in said] == [round(one, 3), round(two, 3)]
    for _ in range(30):
        one, two = locally(1, one)[2], locally(2, two)[2]
    assert f"stays at {float(two):.2f}" in text
    assert f"would have reached {float(one):.3g}" in text


# --------------------------------------------------------------------------- lessons


def lesson_chapter(number: str) -> str:
    return chapter(f"### {number} · ")


@every_lesson
def test_each_lesson_has_what_a_teacher_looks_for(number) -> None:
    name, _ = minutes.title(SOURCES[number])
    assert f"\n### {number} · {name}\n" in PAGE
    text = lesson_chapter(number)
    parts = ('**Say first.** *"', "**Where people stall**", "**Ask the room**")
    assert sorted(parts, key=text.index) == list(parts)
    spoken, stalls, asked = re.split(r"\*\*Where people stall\*\*|\*\*Ask the", text)
    assert 2 <= len(re.findall(r"[.?!](?=[\s\"])", spoken.split('*"')[1])) <= 6
    assert stalls.count("\n- ") >= 3
    questions = re.findall(r"^- \*([^*]+\?)[^*]*\*\s+\S", asked, flags=re.MULTILINE)
    assert len(questions) >= 3, "each with its answer"


def said_by_judges(number: str) -> str:
    """Return every text in the code of a lesson's judges."""
    folder = ROOT / "course_utils" / "exercises"
    names = (f"lesson_{number}.py", "__init__.py", "messages.py")
    trees = [ast.parse((folder / name).read_text(encoding="utf-8")) for name in names]
    constants = (
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return words("\n".join(constants))


def shown_by_lesson(number: str) -> str:
    """Return all that stands in a lesson's solution notebook, outputs and all."""
    path = NOTEBOOKS / "solutions" / f"{SOURCES[number].stem}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    texts = [cell.source for cell in notebook.cells]
    for cell in notebook.cells:
        texts += [output.get("text", "") for output in cell.get("outputs", [])]
    return words("\n".join(texts))


@every_lesson
def test_stalls_are_what_judges_and_lessons_say(number) -> None:
    stalls = lesson_chapter(number).split("**Where people stall**")[1]
    stalls = words(stalls.split("**Ask the room**")[0])
    quoted = re.findall(r'\*"(.+?)"\*', stalls)
    assert len(quoted) >= 2
    judged, shown = said_by_judges(number), shown_by_lesson(number)
    for sentence in quoted:
        assert sentence in judged, f"no check of lesson {number} says: {sentence}"
    for code in re.findall(
        r"``\s(.+?)\s``|`([^`]+)`", re.sub(r'\*".+?"\*', "", stalls)
    ):
        text = "".join(code)
        assert text in shown, f"lesson {number} does not show: {text}"


def test_every_make_target_that_the_page_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", PAGE))
    assert named >= {"minutes", "kit", "slides", "assignment"}
    assert named <= targets, f"no such target: {sorted(named - targets)}"
