"""After the tests nothing is left: no process, no host, no file outside temporary ones.

The hooks here belong to pytest; the conftest.py of tests and of notebooks import them.
"""

import os
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

from course_utils.deployment import find_marked

MARK = "FLOWER_COURSE_TESTS"
"""Environment variable that every process inherits from the tests that started it."""

ROOT = Path(__file__).parents[1]
# What tools keep for their next run, and the course's own installation.
TOOLS = {".git", ".venv", ".hypothesis", ".pytest_cache", ".ruff_cache", "__pycache__"}
PATIENCE = 120.0
"""Seconds that processes have to end, which the last tests have asked to."""


def files() -> set[Path]:
    """Return the files of the repository, and those that Flower keeps at home."""
    found = set()
    for top in (ROOT, Path.home() / ".flwr"):
        for folder, names, inside in os.walk(top):
            names[:] = [name for name in names if name not in TOOLS]
            found |= {Path(folder, name) for name in inside}
    return found


def hosts() -> set[Path]:
    """Return the network namespaces that tests/hosts.py has made."""
    return set(Path("/run/netns").glob("course-*"))


TRACKERS = (
    "multiprocessing.resource_tracker",
    "joblib.externals.loky.backend.resource_tracker",
)
"""What starts a process that ends with the one that started it, and cannot before."""


def own_trackers() -> set[int]:
    """Return the ids of Python's trackers of shared memory that serve this process."""
    loaded = [sys.modules[name] for name in TRACKERS if name in sys.modules]
    return {module._resource_tracker._pid for module in loaded}


def processes() -> list[psutil.Process]:
    """Return the processes that these tests have started and that still run."""
    known = own_trackers() | {os.getpid()}
    marked = find_marked(os.environ[MARK], MARK)
    return [process for process in marked if process.pid not in known]


def is_worker(config: pytest.Config) -> bool:
    """Whether this is one of the processes that pytest-xdist starts."""
    return hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    """Mark all that is started from here on, and remember what is there."""
    os.environ.setdefault(MARK, uuid.uuid4().hex)
    if not is_worker(config):
        # A run that was killed may have left hosts, too: they are no fault of this one.
        config.there_before = files() | hosts()


@pytest.hookimpl(trylast=True)  # when the workers of pytest-xdist have ended
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail if anything is left."""
    if is_worker(session.config):
        return
    deadline = time.monotonic() + PATIENCE
    while processes() and time.monotonic() < deadline:
        time.sleep(0.2)
    left = [f"process {process.pid}: {process.cmdline()}" for process in processes()]
    new = (files() | hosts()) - session.config.there_before
    left += [f"file {path}" for path in sorted(new)]
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        session.config.left_behind = left


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say what is left, as the last thing of all: it is not among the failures."""
    if left := getattr(config, "left_behind", None):
        print("The tests left behind:", *left, sep="\n  ")
