"""Run sheets: a page for each day of a route, with what INSTRUCTOR.md says of it."""

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from browser import launched_without_hosts
from playwright.sync_api import Browser

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "notebooks" / "tools"))
import run_sheets  # noqa: E402
import teaching  # noqa: E402

PAGE = teaching.PAGE.read_text(encoding="utf-8")
ROUTES = teaching.routes(PAGE)


@cache
def sheets() -> dict[str, str]:
    return run_sheets.make_sheets(PAGE)


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    with launched_without_hosts(tmp_path_factory.mktemp("home")) as browser:
        yield browser


def count_pages(pdf: bytes) -> int:
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


@pytest.mark.parametrize("paper", ["A4", "Letter"])
def test_each_day_prints_on_one_page(browser, paper) -> None:
    page = browser.new_page()
    for (name, html), days in zip(sheets().items(), ROUTES.values(), strict=True):
        page.set_content(html)
        pdf = page.pdf(format=paper, prefer_css_page_size=False)
        assert count_pages(pdf) == len(days), name
        sizes = page.eval_on_selector_all(
            "td p", "all => all.map(p => parseFloat(getComputedStyle(p).fontSize))"
        )
        assert min(sizes) >= 8.5 * 96 / 72 - 0.01, name
    page.set_content(run_sheets.opening(PAGE))
    assert count_pages(page.pdf(format=paper, prefer_css_page_size=False)) == 1
    long = html.replace(
        "</table>", "<tr><td>x" + "<p>x</p>" * 99 + "</td></tr></table>"
    )
    page.set_content(long)
    assert count_pages(page.pdf(format=paper)) > len(days), "one more is noticed"
    page.context.close()


def words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def test_a_sheet_has_every_row_and_what_to_say_first() -> None:
    for html, days in zip(sheets().values(), ROUTES.values(), strict=True):
        for rows, sheet in zip(days, html.split("<main")[1:], strict=True):
            assert sheet.count("<tr") == len(rows) + 1
            for row in rows:
                assert f">{run_sheets.clock(row.start, 0)}</td>" in sheet
            lessons = {row.lesson for row in rows} - {""}
            cards = "A card says how many" in sheet
            assert sheet.count("Say:") == len(lessons) + cards
            assert sheet.count("Ask:") >= len(lessons)
            assert "](" not in sheet and "**" not in sheet


def test_90_minutes_have_answers_and_stalls_as_well() -> None:
    sheet = words(sheets()["90-minutes.html"])
    assert "The server has nothing but the client" in sheet
    assert "every client counts equally: weight by number of examples" in sheet
    assert "A card says how many minutes one patient has waited." in sheet
    assert "Write the six means on the board" in sheet and "7 min drift" in sheet
    assert "says OK" in sheet and "Run All" in sheet


def test_what_the_opening_needs_is_on_a_page_of_its_own() -> None:
    paper = words(run_sheets.opening(PAGE))
    assert "11, 13 2 12" in paper and "5.672" in paper and "When do both" in paper


def test_nobody_is_asked_about_a_section_that_the_route_skips() -> None:
    asked = "Why do parameters and gradients give the same model"
    assert "A client claims ten times" in sheets()["half-a-day.html"]
    assert asked not in sheets()["90-minutes.html"] + sheets()["half-a-day.html"]
    assert asked in sheets()["three-days.html"]
    assert "Only with" not in "".join(sheets().values())
    with pytest.raises(ValueError, match="00 has no section “Sending letters”"):
        run_sheets.make_sheets(
            PAGE.replace(
                "(Only with *Sending gradients\n  instead",
                "(Only with *Sending letters",
            )
        )


def test_a_row_that_jumps_says_so() -> None:
    (rows,) = ROUTES["90 minutes"]
    jumping = [
        row.what for i, row in enumerate(rows) if run_sheets.jumps(rows, i, PAGE)
    ]
    assert jumping == ["Lesson 00, a round of one's own", "Lesson 00, on Flower"]
    for rows in ROUTES["Three days"]:
        first = [i for i, r in enumerate(rows) if r.sections == "all"]
        assert not any(run_sheets.jumps(rows, i, PAGE) for i in first)


def headings(row: teaching.Row, is_first: bool) -> list[str]:
    deck = run_sheets.deck(row.lesson)
    return [deck[n - 1].heading for n in run_sheets.shown(row, is_first)]


def test_a_row_names_the_slides_that_it_takes() -> None:
    (rows,) = ROUTES["90 minutes"]
    by_hand, alone, on_flower = (row for row in rows if row.lesson)
    assert headings(alone, False) == ["## Exercise 0.3: one round"]
    first = headings(by_hand, True)
    assert first[:2] == ["# 00 · Why federated learning", "## The problem"]
    assert "## Exercise 0.1: what a client counts for" in first
    assert headings(on_flower, False)[-1] == "## Takeaways"
    html = sheets()["90-minutes.html"]
    assert f"Slides: 1–{len(first)}</p>" in html and "Slides: 20</p>" in html
    assert run_sheets.ranges([1, 2, 3, 5, 8, 9]) == "1–3, 5, 8–9"


def test_in_three_days_each_slide_has_its_row_once() -> None:
    rows = [row for day in ROUTES["Three days"] for row in day if row.lesson]
    for lesson in sorted({row.lesson for row in rows}):
        own = [row for row in rows if row.lesson == lesson]
        numbers = [n for row in own for n in run_sheets.shown(row, row is own[0])]
        assert sorted(numbers) == list(range(1, len(run_sheets.deck(lesson)) + 1))


def test_the_clock_is_that_of_the_class(monkeypatch, tmp_path, capsys) -> None:
    words = ["run_sheets.py", "--start", "23:30", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    run_sheets.main()
    made = sorted(tmp_path.iterdir())
    assert [path.name for path in made] == sorted([*sheets(), "on-paper.html"])
    assert capsys.readouterr().out.count("\n") == len(made)
    html = (tmp_path / "90-minutes.html").read_text(encoding="utf-8")
    assert ">23:30</td>" in html and ">0:00</td>" in html
    monkeypatch.setattr(sys, "argv", ["run_sheets.py", "--start", "half past nine"])
    with pytest.raises(SystemExit):
        run_sheets.main()
    assert "is no time: write it as 9:15" in capsys.readouterr().err


def test_a_page_without_its_headings_is_told() -> None:
    with pytest.raises(ValueError, match="needs one heading “## Routes”"):
        run_sheets.make_sheets("# Nothing\n")
