"""The run of all tests: its order, its choice of tests, and kernels without network."""

import ast
import builtins
import json
import os
import re
import subprocess
import symtable
import sys
from multiprocessing import resource_tracker
from pathlib import Path
from types import SimpleNamespace

import leftovers
import nbformat
import pytest
import whole_run
from leftovers import MARK
from test_notebooks import NOTEBOOKS, ROOT, build, code_cells
from test_notebooks import read as read_notebook
from whole_run import (
    PROCESSES,
    LongestFirst,
    durations,
    is_shown_by_its_twin,
    longest_first,
    require_budget,
    run_cell,
    seconds_of_a_core,
    start_offline_kernel,
    unit_of,
    what_concerns,
)

from course_utils.exercises import all_exercises

FILES = [
    path.relative_to(ROOT).as_posix()
    for pattern in ("tests/test_*.py", "notebooks/[0-9]*", "notebooks/solutions/[0-9]*")
    for path in sorted(ROOT.glob(pattern))
]
SOLUTIONS = [f for f in FILES if is_shown_by_its_twin(f)]

# ------------------------------------------------------------------- the order of work


def test_all_that_starts_processes_is_one_unit_and_the_longest_unit_is_first() -> None:
    together = {file for file in FILES if unit_of(file) == PROCESSES}
    assert {
        "tests/test_deployment.py",
        "tests/test_hosts.py",
        "notebooks/06_flower_app.ipynb",
        "notebooks/solutions/07_deployment.ipynb",
    } <= together
    order = longest_first(FILES)
    assert set(order[: len(together)]) == together
    rest = [durations()[file]["seconds"] for file in order[len(together) :]]
    assert rest == sorted(rest, reverse=True)


def test_a_file_that_nobody_has_measured_starts_first(monkeypatch) -> None:
    monkeypatch.setattr(whole_run, "unit_of", lambda file: file)
    assert longest_first([*FILES, "tests/test_new.py"])[0] == "tests/test_new.py"


def test_every_file_has_a_duration_and_every_notebook_a_budget() -> None:
    assert set(durations()) == set(FILES)
    for file, known in durations().items():
        assert known["seconds"] > 0
        assert ("budget" in known) == file.startswith("notebooks/")


def test_two_workers_never_have_the_processes_at_a_time() -> None:
    scheduler = object.__new__(LongestFirst)
    a, b = "tests/test_hosts.py::test_a[x]", "notebooks/06_flower_app.ipynb::Cell 3"
    assert scheduler._split_scope(a) == scheduler._split_scope(b) == PROCESSES
    assert scheduler._split_scope("tests/test_data.py::test") == "tests/test_data.py"


# ------------------------------------------------------------------ the choice of tests

IDS = (
    "notebooks/03_client_app.ipynb::Cell 1",
    "notebooks/solutions/03_client_app.ipynb::Cell 1",
    "tests/test_notebooks.py::test_code_cells_keep_their_size[03_client_app]",
    "tests/test_notebooks.py::test_relative_links_resolve",
    "tests/test_exercises.py::test_a_blank_is_not_attempted_yet[3.1]",
    "notebooks/05_server_app.ipynb::Cell 1",
    "tests/test_exercises.py::test_a_blank_is_not_attempted_yet[5.1]",
    "tests/test_data.py::test_x[3.1]",
    "tests/test_instructor.py::test_y",
    "tests/test_hosts.py::test_y",
)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["notebooks/source/03_client_app.py"], {0, 1, 2, 3, 4, 7}),
        (["notebooks/solutions/03_client_app.ipynb"], {0, 1, 2, 3, 4, 7}),
        (["course_utils/exercises/lesson_05.py"], {3, 5, 6}),
        (["tests/answers/survivors_05.txt"], {3, 5, 6}),
        (["tests/test_hosts.py"], {9}),
        (["README.md"], {2, 3, 8}),
        (["README.md", "tests/test_data.py"], {2, 3, 7, 8}),
        (["tests/test_data.py", "course_utils/data.py"], set(range(10))),
        (["tests/browser.py"], set(range(10))),
        (["pyproject.toml"], set(range(10))),
        (["notebooks/tools/build.py"], set(range(10))),
        (["course_utils/exercises/messages.py"], set(range(10))),
        ([], set()),
    ],
)
def test_a_change_is_tested_by_what_it_concerns(paths, expected) -> None:
    pattern = what_concerns(paths)
    found = {i for i, name in enumerate(IDS) if pattern is None or pattern.search(name)}
    assert found == expected


def test_a_lessons_tests_count_as_its_own() -> None:
    expected = ["03", "03", "03", None, "03", "05", "05", "03", None, None]
    assert [whole_run.lesson_of(name) for name in IDS] == expected


def test_one_lesson_is_chosen_by_its_number() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:xdist"]
    command += ["--nbval", "--lesson", "03", "notebooks", "tests/test_plots.py"]
    command += ["tests/test_exercises.py"]
    # It must not wait until the processes of these tests have ended.
    own = {name: value for name, value in os.environ.items() if name != MARK}
    printed = subprocess.run(
        command, cwd=ROOT, env=own, capture_output=True, text=True, timeout=600
    ).stdout
    collected = [line for line in printed.splitlines() if "::" in line]
    files = {line.partition("::")[0] for line in collected}
    assert files == {"notebooks/03_client_app.ipynb", "tests/test_exercises.py"}
    assert any("[3.3]" in line for line in collected)
    assert not any("[5.3]" in line for line in collected)


# --------------------------------------------------------- offline, and within budget


@pytest.fixture
def kernel(tmp_path):
    manager, client = start_offline_kernel(startup_timeout=300, cwd=str(tmp_path))
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_a_cell_has_no_network_but_its_own_machine(kernel) -> None:
    _, client = kernel
    connect = "import socket; socket.create_connection({}, timeout=20)"
    failed = run_cell(client, connect.format("('192.0.2.1', 80)"))
    assert "unreachable" in failed or "have cut the network" in failed
    here = "with socket.create_server(('127.0.0.1', 0)) as server:\n    "
    here += connect.format("server.getsockname()") + "; print('connected')"
    assert run_cell(client, here) == "connected"


def test_cells_that_cost_more_than_their_budget_are_noticed(
    kernel, monkeypatch
) -> None:
    manager, client = kernel
    before = seconds_of_a_core(manager)
    run_cell(client, "import time; end = time.process_time() + 1")
    run_cell(client, "while time.process_time() < end: pass")
    spent = seconds_of_a_core(manager)
    assert spent > before + 0.9
    for budget, sentence in ((spent / 2, "s of a core, and"), (None, "no budget")):
        monkeypatch.setattr(
            whole_run, "durations", lambda b=budget: {"x": {"budget": b}}
        )
        with pytest.raises(AssertionError, match=sentence):
            require_budget("x", manager)
    monkeypatch.setattr(whole_run, "durations", lambda: {"x": {"budget": spent + 100}})
    require_budget("x", manager)


# ------------------------------------------------------------------- nothing is left


def test_only_this_process_own_trackers_are_not_left_behind() -> None:
    resource_tracker.ensure_running()
    before = {process.pid for process in leftovers.processes()}
    assert resource_tracker._resource_tracker._pid not in before
    sleeps = "import time; time.sleep(600)  # multiprocessing.resource_tracker"
    with subprocess.Popen([sys.executable, "-c", sleeps]) as left:
        try:
            found = {process.pid for process in leftovers.processes()} - before
        finally:
            left.kill()
    assert found == {left.pid}


def test_a_run_tells_what_it_left_and_not_what_another_did(
    tmp_path, monkeypatch, capsys
) -> None:
    # The process of this test is no worker; no process is left when it looks.
    (tmp_path / "of-another-run").touch()
    monkeypatch.setattr(leftovers, "files", set)
    monkeypatch.setattr(leftovers, "hosts", lambda: set(tmp_path.iterdir()))
    monkeypatch.setattr(leftovers, "processes", list)
    for names, exit_code in (([], 0), (["own"], 1)):
        session = SimpleNamespace(config=SimpleNamespace(), exitstatus=0)
        leftovers.pytest_configure(session.config)
        for name in names:
            (tmp_path / name).touch()
        leftovers.pytest_sessionfinish(session)
        leftovers.pytest_unconfigure(session.config)
        said = capsys.readouterr().out.splitlines()
        assert session.exitstatus == exit_code
        assert said[1:] == [f"  file {tmp_path / name}" for name in names]


# ------------------------------------------------------------ solutions are not run


def prints_the_same(learner, solution) -> bool:
    """Compare stored outputs as nbval does, which leaves out pictures."""
    outputs = [json.loads(json.dumps(cell.outputs)) for cell in (learner, solution)]
    for output in (o for cell in outputs for o in cell):
        output.get("data", {}).pop("image/png", None)
    return outputs[0] == outputs[1]


def stored_names(tree: ast.AST) -> set[str]:
    """Return the names that code binds anywhere, by whatever statement."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add((node.asname or node.name).split(".")[0])
    return found


def loaded_names(tree: ast.AST) -> set[str]:
    """Return the names that code uses anywhere."""
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
    return {node.id for node in names if isinstance(node.ctx, ast.Load)}


def global_names(code: str) -> set[str]:
    """Return the names that the functions in code look for outside themselves."""

    def inside(table: symtable.SymbolTable) -> set[str]:
        symbols = {s.get_name() for s in table.get_symbols() if s.is_global()}
        return symbols.union(*map(inside, table.get_children()))

    tables = symtable.symtable(code, "<cell>", "exec").get_children()
    return set().union(*map(inside, tables))


def what_it_prints(cell) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


JUDGED = re.compile(r'check\("([\d.]+)", \w+\)')
PROGRESS = 'from course_utils.exercises import progress\n\nprogress("{}")'


def require_a_twin(number: str, learner: list, solution: list) -> None:
    """Fail unless a solution's cells would run as they are stored, as its lesson's do.

    Parameters
    ----------
    number : str
        The lesson's, such as "03".
    learner, solution : list
        The code cells of both notebooks. The learner's, nbval has run.
    """
    answers, above = set(), {*dir(builtins)}
    solved = judged = 0
    for blank, cell in zip(learner, solution, strict=True):
        new, old = ast.parse(cell.source), ast.parse(blank.source)
        if blank.source != cell.source:
            solved += 1
            assert "raise NotImplementedError" in blank.source, cell.source
            assert blank.outputs == cell.outputs == [], cell.source
            # It does nothing but define, and needs nothing that comes later.
            kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
            assert all(isinstance(part, kinds) for part in new.body), cell.source
            same = {ast.dump(part) for part in old.body}
            changed = [part for part in new.body if ast.dump(part) not in same]
            answers |= {n for part in changed for n in bound_by(part)}
            missing = global_names(cell.source) - above - stored_names(new)
            assert not missing, f"{missing} in {cell.source}"
        elif check := JUDGED.fullmatch(blank.source):
            judged += 1
            achieved = all_exercises()[check[1]].achieved
            assert what_it_prints(cell) == f"{check[1]} correct: {achieved}\n"
        elif blank.source == PROGRESS.format(number):
            said = (
                f"Lesson {number}: {solved} of {solved} exercises solved. All done.\n"
            )
            assert what_it_prints(cell) == said
        else:
            ignored = "nbval-ignore-output" in build.tags(blank)
            assert ignored or prints_the_same(blank, cell), cell.source
            used = answers & loaded_names(new)
            assert not used, f"this uses the answer {used}: {cell.source}"
        above |= stored_names(new)
    assert solved == judged > 0


def bound_by(statement: ast.stmt) -> set[str]:
    """Return the names that one statement binds where it stands."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    return stored_names(statement)


def twins(file: str) -> tuple[str, list, list]:
    path = ROOT / file
    learner = code_cells(read_notebook(NOTEBOOKS / path.name))
    return path.name[:2], learner, code_cells(read_notebook(path))


@pytest.mark.parametrize("file", SOLUTIONS, ids=lambda file: Path(file).stem)
def test_a_solution_that_is_not_run_is_the_learners_notebook_but_its_exercises(
    file,
) -> None:
    """Its other cells print what the learner's print, and do not use an answer.

    That its answers are right, tests/test_exercises.py shows.
    """
    require_a_twin(*twins(file))


def texts(path: Path) -> list[str]:
    """Return a notebook's texts without links: a term's first use has one."""
    cells = read_notebook(path).cells
    written = [cell.source for cell in cells if cell.cell_type == "markdown"]
    return [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text) for text in written]


@pytest.mark.parametrize("file", SOLUTIONS, ids=lambda file: Path(file).stem)
def test_a_solution_has_all_texts_of_its_lesson(file) -> None:
    """So the browser need not open both."""
    rest = iter(texts(ROOT / file))
    missing = [t for t in texts(NOTEBOOKS / Path(file).name) if t not in rest]
    assert not missing


def cells_of(answer: str, later: str, printed: str, checked: str) -> list:
    """Make the cells of a small lesson, with outputs."""
    done = "Lesson 00: 1 of 1 exercises solved. All done.\n"
    cells = []
    for source, output in (
        ("SQUARE = 2", ""),
        (f"from math import pi\n\n\ndef area(r):\n    {answer}", ""),
        ('check("0.1", area)', checked),
        (later, printed),
        (PROGRESS.format("00"), done),
    ):
        cells.append(nbformat.v4.new_code_cell(source))
        if output:
            cells[-1].outputs = [nbformat.v4.new_output("stream", text=output)]
    return cells


RIGHT = "return pi * r**SQUARE"


@pytest.mark.parametrize(
    ("answer", "later", "printed", "right", "said"),
    [
        (RIGHT, "print(4)", "4\n", True, ""),
        (RIGHT, "print(4)", "5\n", True, r"print\(4\)"),  # it was not run again
        (RIGHT, "print(4)", "4\n", False, "correct"),
        (RIGHT, "area = 4\nprint(area)", "4\n", True, "uses the answer .*area"),
        ("return pi * r**CUBE", "CUBE = 3", "", True, "'CUBE'"),  # it comes too late
        (f"{RIGHT}\n\n\nprint(4)", "print(4)", "4\n", True, r"print\(4\)"),
        (f"{RIGHT}\n\n\nfrom math import e", "e", "", True, "uses the answer .*e"),
        (f"{RIGHT}\n\n\ndef e():\n    pass", "e", "", True, "uses the answer .*e"),
    ],
)
def test_a_solution_that_would_have_to_be_run_is_noticed(
    answer, later, printed, right, said
) -> None:
    correct = f"0.1 correct: {all_exercises()['0.1'].achieved}\n"
    solution = cells_of(answer, later, printed, correct if right else "0.1 wrong\n")
    stub = "raise NotImplementedError"
    learner = cells_of(stub, later, "4\n" if printed else "", "0.1 blank\n")
    if not said:
        return require_a_twin("00", learner, solution)
    with pytest.raises(AssertionError, match=said):
        require_a_twin("00", learner, solution)
