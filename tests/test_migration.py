"""Lesson 06's table of old and new code: what it calls today's is there today."""

import ast
import inspect
import os
import re
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path

import jupytext
import pytest

from course_utils.deployment import SCRIPTS

SOURCE = Path(__file__).parents[1] / "notebooks" / "source" / "06_flower_app.py"
HEADING = "## Reading older Flower code"


def cell_of_the_table() -> str:
    cells = jupytext.read(SOURCE).cells
    (cell,) = [c for c in cells if c.source.startswith(f"{HEADING}\n")]
    assert cell.cell_type == "markdown"
    return cell.source


def rows(text: str) -> list[tuple[str, str]]:
    """Return the cells of each row, without the head and the lines of dashes."""
    found = []
    for line in text.splitlines():
        if line.startswith("|"):
            old, today = line.strip().strip("|").split("|")
            found.append((old.strip(), today.strip()))
    assert found[:2] == [("old", "today"), ("---", "---")]
    return found[2:]


def is_subheading(row: tuple[str, str]) -> bool:
    old, today = row
    return re.fullmatch(r"\*\*[^*`]+\*\*", old) is not None and today == ""


def code_spans(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def imports(text: str) -> str:
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return block


TEXT = cell_of_the_table()
ROWS = [row for row in rows(TEXT) if not is_subheading(row)]
SPANS = sorted({span for _, today in ROWS for span in code_spans(today)})


@pytest.fixture(scope="module")
def names() -> dict:
    """Return what the reader has after the imports that stand above the table."""
    found: dict = {}
    exec(imports(TEXT), found)
    return found


def check(span: str, names: dict) -> None:
    """Raise if a code span is neither a working command nor a working expression."""
    if is_command(span):
        check_command(span)
    else:
        check_expression(span, names)


# --------------------------------------------------------------------------- commands


def is_command(span: str) -> bool:
    """Whether it begins with a program of this environment."""
    return shutil.which(span.split()[0], path=str(SCRIPTS)) is not None


def check_command(span: str) -> None:
    words = shlex.split(span)
    first_option = next((i for i, w in enumerate(words) if w[0] == "-"), len(words))
    known = help_of(tuple(words[:first_option]))
    for word in words:
        if word.startswith("-"):
            option = re.escape(word.split("=")[0])
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", known), (
                f"{span}: no option {word}"
            )


@cache
def help_of(words: tuple[str, ...]) -> str:
    ended = subprocess.run(
        [str(SCRIPTS / words[0]), *words[1:], "--help"],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ
        | {
            "COLUMNS": "300",
            "NO_COLOR": "1",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
        },
    )
    assert ended.returncode == 0, f"{' '.join(words)}: {ended.stderr}"
    return ended.stdout


# ------------------------------------------------------------------------- expressions


def check_expression(span: str, names: dict) -> None:
    """Evaluate it. In a call such as ``f(..., a=...)``, ``f`` must take ``a``."""
    node = ast.parse(span, mode="eval").body
    if isinstance(node, ast.Call) and has_dots(node):
        function = eval(ast.unparse(node.func), dict(names))
        parameters = inspect.signature(function).parameters
        wanted = {keyword.arg for keyword in node.keywords}
        if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            # It is overloaded: what it takes stands in its docstring.
            documented = inspect.getdoc(function) or inspect.getdoc(function.__init__)
            missing = {n for n in wanted if not re.search(rf"^{n} :", documented, re.M)}
        else:
            missing = wanted - set(parameters)
        assert not missing, f"{span}: no parameter {missing}"
    else:
        eval(span, dict(names))


def has_dots(call: ast.Call) -> bool:
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    return any(isinstance(v, ast.Constant) and v.value is ... for v in values)


# ------------------------------------------------------------------------------- tests


def test_the_table_is_there() -> None:
    assert len(ROWS) >= 30
    assert TEXT.count("<details>") == TEXT.count("</details>") == 1


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_row_says_what_to_write_today(row) -> None:
    old, today = row
    assert code_spans(old) and code_spans(today)


@pytest.mark.parametrize("span", SPANS)
def test_what_is_called_todays_is_there_today(span, names) -> None:
    check(span, names)


@pytest.mark.parametrize(
    "span",
    [
        "FedAvg(fraction_fit=0.5)",
        "FedAvg.start(..., initial_parameters=...)",
        "Message(..., node=...)",
        "Grid.create",
        "RecordDicts",
        "flwr run . --num-supernodes 10",
        "flwr runs",
        "flower-superlink --port-number 1",
        "flower-simulation --app .",
    ],
)
def test_what_is_not_there_is_noticed(span, names) -> None:
    with pytest.raises((AssertionError, AttributeError, NameError, TypeError)):
        try:
            check(span, names)
        except SyntaxError as error:  # neither a command nor an expression
            raise AssertionError from error


def test_a_row_without_code_is_noticed() -> None:
    (row,) = rows("| old | today |\n|---|---|\n| `f` | gone |")
    assert not is_subheading(row) and not code_spans(row[1])
