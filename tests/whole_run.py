"""One run of all tests: in which order, on which worker, offline, and how long it took.

pytest loads this from the conftest.py at the top. Each test file and each notebook is
one unit of work. The longest start first, and all that start Flower's processes are
one unit, so that no two of them run side by side. nbval's kernels have no network, and
run the learner's notebooks: with the solutions these are compared.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from itertools import chain
from pathlib import Path

import nbval.kernel
import psutil
import pytest
from jupyter_client import KernelClient
from jupyter_client.manager import KernelManager
from leftovers import ROOT, is_worker
from nbval.plugin import IPyNbCell
from run_offline import offline
from xdist.scheduler import LoadScopeScheduling

DURATIONS = ROOT / "tests" / "durations.json"
"""How long each file takes, in seconds of wall, and what its lesson may cost, in
seconds of a core. `make bench ARGS=tests` measures, and writes the seconds."""

STARTS_PROCESSES = re.compile(r"\b(?:Deployment|Federation)\(")
NONE_OF_FLOWERS = "tests/test_processes.py"
"""What has a Deployment, too, and starts other programs with it."""
PROCESSES = "processes"
"""The unit of all files that start Flower's processes."""

PREFERRED = -3
"""What is added to the nice value of that unit: it is the longest, and the whole waits
for it. Ray and Flower have deadlines of their own, too."""

AWKWARD = "a b ü of a Windows user with two names and as long as on a cluster"
"""A temporary folder's name that breaks a command line into which it is pasted, and is
too long for a socket of Ray."""

# No process of Flower writes into the user's own folder or asks for updates.
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
# A progress bar is no part of an output.
NO_BARS = {"TQDM_DISABLE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what chooses tests by what a change touches."""
    group = parser.getgroup("course")
    group.addoption("--lesson", help="run what concerns one lesson, such as 03")
    group.addoption("--since", help="run what concerns the changes since a commit")
    group.addoption(
        "--all-notebooks",
        action="store_true",
        help="run the solutions, too",
    )
    group.addoption(
        "--keep-durations", action="store_true", help=f"write {DURATIONS.name}"
    )


@pytest.hookimpl(tryfirst=True)  # before leftovers.py looks what is there
def pytest_configure(config: pytest.Config) -> None:
    """Keep Flower to a folder of its own, and kernels off the network."""
    nbval.kernel.start_new_kernel = start_offline_kernel
    os.environ.update(QUIET)
    os.environ["FLOWER_COURSE_PROGRESS"] = "off"  # the learner's own is not touched
    if not is_worker(config):
        config.scratch = tempfile.mkdtemp(prefix="course-tests-")
        os.environ["FLWR_HOME"] = os.path.join(config.scratch, "flwr")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove that folder."""
    if hasattr(config, "scratch"):
        shutil.rmtree(config.scratch, ignore_errors=True)


# ------------------------------------------------------------------- the order of work


@cache
def durations() -> dict[str, dict[str, float]]:
    """Return what is known of each file, by its path."""
    return json.loads(DURATIONS.read_text(encoding="utf-8"))


def file_of(nodeid: str) -> str:
    """Return the path of a test's file, seen from the top."""
    return nodeid.partition("::")[0]


@cache
def unit_of(file: str) -> str:
    """Return the unit of work that a file belongs to.

    What a notebook's prose shows, such as commands to copy, starts nothing.
    """
    text = (ROOT / file).read_text(encoding="utf-8")
    if file.endswith(".ipynb"):
        cells = json.loads(text)["cells"]
        text = "".join(chain(*(c["source"] for c in cells if c["cell_type"] == "code")))
    starts = file != NONE_OF_FLOWERS and STARTS_PROCESSES.search(text)
    return PROCESSES if starts else file


def longest_first(files: Iterable[str]) -> list[str]:
    """Sort files by their units' durations, and by their own within a unit.

    A file that nobody has measured yet counts as the longest.
    """
    seconds = {f: durations().get(f, {}).get("seconds", 1e6) for f in set(files)}
    total: dict[str, float] = defaultdict(float)
    for file, took in seconds.items():
        total[unit_of(file)] += took
    return sorted(
        seconds, key=lambda f: (-total[unit_of(f)], unit_of(f), -seconds[f], f)
    )


class LongestFirst(LoadScopeScheduling):
    """Give each worker the next unit in the order of the collection."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(file_of(nodeid))


@pytest.hookimpl(optionalhook=True)  # it is there with -n only
def pytest_xdist_make_scheduler(config: pytest.Config, log) -> LongestFirst:
    """Let pytest-xdist share the units out among its workers."""
    config.option.loadscopereorder = False
    return LongestFirst(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list) -> None:
    """Choose the tests that were asked for, and sort their files."""
    wanted = chosen(config.option.lesson, config.option.since)
    every = config.option.all_notebooks

    def is_chosen(nodeid: str) -> bool:
        if wanted is not None and not wanted.search(nodeid):
            return False
        return every or not is_shown_by_its_twin(file_of(nodeid))

    config.hook.pytest_deselected(items=[i for i in items if not is_chosen(i.nodeid)])
    items[:] = [item for item in items if is_chosen(item.nodeid)]
    order = longest_first(file_of(item.nodeid) for item in items)
    items.sort(key=lambda item: order.index(file_of(item.nodeid)))
    for item in items:
        if isinstance(item, IPyNbCell):
            item.output_timeout = 60  # seconds for what a cell printed; 5 is too few


@pytest.hookimpl(tryfirst=True)  # before the test starts anything
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """Prefer what starts Flower's processes, where the system lets this user."""
    if is_worker(item.config):
        with suppress(AttributeError, PermissionError):  # on Windows; no root
            nice = own_nice()
            if unit_of(file_of(item.nodeid)) == PROCESSES:
                nice += PREFERRED
            os.setpriority(os.PRIO_PROCESS, 0, nice)


@cache
def own_nice() -> int:
    """Return the nice value that this worker was started with."""
    return os.getpriority(os.PRIO_PROCESS, 0)


# ------------------------------------------------------------------ the choice of tests


def is_shown_by_its_twin(file: str) -> bool:
    """Whether this is a solution, which differs from its lesson in its exercises only.

    tests/test_whole_run.py compares the two cell by cell, and tests/test_exercises.py
    judges the answers. So to run both would show the same things twice.
    """
    return file.startswith("notebooks/solutions/")


def chosen(lesson: str | None, since: str | None) -> re.Pattern | None:
    """Return what the ids of the chosen tests match, or None for all."""
    if lesson:
        return what_concerns([f"notebooks/source/{lesson}_"])
    if since:
        command = ["git", "diff", "--name-only", f"{since}...HEAD"]
        printed = subprocess.run(
            command, cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout
        return what_concerns(printed.splitlines())
    return None


OF_A_LESSON = re.compile(
    r"notebooks/(?:source/|solutions/)?(\d\d)_"
    r"|(?:course_utils/exercises|tests/answers)/(?:lesson|survivors)_(\d\d)"
)
OF_PAGES = r"^tests/test_(notebooks|instructor|publishing)\.py::"


def what_concerns(paths: Iterable[str]) -> re.Pattern | None:
    """Return what the ids of the tests match that concern some files.

    Parameters
    ----------
    paths : Iterable[str]
        Files that have changed, seen from the top.

    Returns
    -------
    re.Pattern or None
        None if there is a file among them that concerns everything.
    """
    patterns = set()
    for path in paths:
        if found := OF_A_LESSON.match(path):
            number = found[1] or found[2]
            # By the lesson's number and name, or by that of an exercise; and the
            # tests of pages that ask about all lessons at once.
            patterns |= {rf"\b{number}_[a-z]", rf"\[{int(number)}\.\d", OF_ALL_LESSONS}
        elif path.endswith(".md"):
            patterns.add(OF_PAGES)
        elif re.fullmatch(r"tests/test_\w+\.py", path):
            patterns.add(f"^{re.escape(path)}::")
        else:
            return None
    return re.compile("|".join(sorted(patterns)) or "(?!)")


OF_ALL_LESSONS = r"^tests/test_(notebooks|exercises)\.py::\w+$"


# --------------------------------------------------- notebooks: offline, within budget


def start_offline_kernel(
    startup_timeout: float = 60, kernel_name: str = "", **options: object
) -> tuple:
    """Start a kernel for nbval as it does itself, but with the network cut.

    Its temporary folder has an awkward name: a lesson works in any.
    """
    program = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    command, environment = offline("--", *program)
    manager = KernelManager()
    manager.kernel_spec.argv = command
    if "COURSE_IN_NAMESPACE" in environment:
        # These sockets are files, which are the same in every namespace.
        manager.transport = "ipc"
        manager.ip = f"{Path(os.environ['FLWR_HOME']).parent}/{uuid.uuid4().hex}"
    temporary = Path(os.environ["FLWR_HOME"]).with_name(AWKWARD)
    temporary.mkdir(exist_ok=True)
    environment |= NO_BARS | {"TMPDIR": str(temporary)}
    manager.start_kernel(env=environment, **options)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=startup_timeout)
    except RuntimeError:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        raise
    return manager, client


def seconds_of_a_core(manager: KernelManager) -> float:
    """Return what a kernel, and its children past and present, have computed."""
    kernel = psutil.Process(manager.provisioner.pid)
    spent = 0.0
    for process in (kernel, *kernel.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            times = process.cpu_times()
            spent += sum(getattr(times, name, 0.0) for name in CPU_TIMES)
    return spent


CPU_TIMES = ("user", "system", "children_user", "children_system")


def run_cell(client: KernelClient, code: str) -> str:
    """Run code in a kernel, and return what it printed or how it failed."""
    said = []

    def hook(message: dict) -> None:
        content = message["content"]
        said.append(content.get("text") or content.get("evalue") or "")

    client.execute_interactive(code, output_hook=hook, timeout=300)
    return "".join(said).strip()


@pytest.hookimpl(tryfirst=True)  # while the kernel is there
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Fail after a notebook's last cell if all of them cost more than its budget."""
    if not isinstance(item, IPyNbCell):
        return
    if nextitem is not None and nextitem.parent is item.parent:
        return
    require_budget(file_of(item.nodeid), item.parent.kernel.km)


def require_budget(file: str, manager: KernelManager) -> None:
    """Fail if the cells that a kernel has run cost more than their file may."""
    budget = durations().get(file, {}).get("budget")
    assert budget, f"{file} has no budget: write one into {DURATIONS.name}."
    spent = seconds_of_a_core(manager)
    assert spent <= budget, (
        f"The cells of {file} took {spent:.0f} s of a core, and its budget is {budget}."
    )


# ------------------------------------------------------------------------- the report


def lesson_of(nodeid: str) -> str | None:
    """Return the number of the lesson that a test is about, if it is about one."""
    found = re.search(r"\b(\d\d)_[a-z]|\[(\d+)\.\d\]", nodeid)
    return found and (found[1] or found[2].zfill(2))


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """Print how long each file and each lesson took, and keep that if asked to."""
    by_file: dict[str, float] = defaultdict(float)
    by_lesson: dict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration"):  # not a warning
                by_file[file_of(report.nodeid)] += report.duration
                if number := lesson_of(report.nodeid):
                    by_lesson[number] += report.duration
    terminalreporter.section("seconds by lesson and by file")
    for number in sorted(by_lesson):
        terminalreporter.write_line(f"{by_lesson[number]:7.1f}  lesson {number}")
    for file in sorted(by_file, key=by_file.get, reverse=True):
        terminalreporter.write_line(f"{by_file[file]:7.1f}  {file}")
    terminalreporter.write_line(f"{sum(by_file.values()):7.1f}  in all")
    if config.option.keep_durations:
        known = durations()
        for file, took in by_file.items():
            known.setdefault(file, {})["seconds"] = max(0.1, round(took, 1))
        there = {f: known[f] for f in sorted(known) if (ROOT / f).exists()}
        DURATIONS.write_text(json.dumps(there, indent=2) + "\n", encoding="utf-8")
