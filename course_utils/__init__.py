"""Shared code of the course: data, partitions, model, runtime and plots.

Each module is short enough to read in one sitting, and most of it is taught,
line by line, in the lesson that first needs it.
"""

import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm.auto import tqdm

COURSE = "flower-course"

FLOWER_SERIES = "1.41"
"""The series of Flower releases that the lessons are written for and tested with."""


def check_flower_version(installed: str | None) -> None:
    """Raise ImportError unless ``installed`` belongs to the course's Flower series.

    Parameters
    ----------
    installed : str or None
        flwr's version, or None if there is none.
    """
    if (installed or "").split(".")[:2] != FLOWER_SERIES.split("."):
        if elsewhere := another_environment():
            raise ImportError(f"{elsewhere[0].upper()}{elsewhere[1:]}.")
        found = f"flwr {installed}" if installed else "no flwr"
        raise ImportError(
            f"This course is written for Flower {FLOWER_SERIES}, but {found} is "
            f'installed: run `pip install "flwr~={FLOWER_SERIES}.0"` and restart '
            "the kernel."
        )


def another_environment() -> str | None:
    """Say what to do if the course is not installed in this Python; else None."""
    # Beside its source lies metadata that no installer wrote, hence the question.
    if any(each.read_text("INSTALLER") for each in distributions(name=COURSE)):
        return None
    folder = Path(__file__).resolve().parents[1]
    if in_notebook():
        return (
            f"this notebook's kernel ({sys.executable}) is not the course's: choose "
            "Kernel → Change Kernel… → Python 3 (ipykernel), or, where that changes "
            f"nothing, close JupyterLab and start it by `make lab` in {folder} "
            "(README, Start)"
        )
    return (
        f"this Python ({sys.executable}) does not have the course, which only lies in "
        f"{folder}: use the Python in which you installed it, or run `python -m pip "
        "install -r requirements.txt` there"
    )


def in_notebook() -> bool:
    """Say whether a notebook's kernel runs this."""
    ipython = sys.modules.get("IPython")
    return bool(ipython and ipython.get_ipython())


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


# `python -m course_utils` says what is missing here, so it starts without it. (While
# Python looks for the module that it is to run, sys.argv[0] is "-m".)
if not (sys.argv[:1] == ["-m"] and "course_utils" in sys.orig_argv):
    check_flower_version(installed_version("flwr"))

# Lessons work offline and tell nobody that they ran. Flower reads both when it is
# imported, so they are set here, before any module of the course imports it.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")


def with_progress(
    items: Sequence = (),
    *,
    doing: str,
    total: float | None = None,
    hidden: bool = False,
    delay: float = 0,
) -> "tqdm":
    """Go through items under a progress bar, which is gone at its end.

    Parameters
    ----------
    items : Sequence
        What to go through.
    doing : str
        What is counted, in the plural.
    total : float, optional
        Instead of items: how often the caller will call the bar's ``update()``.
    hidden : bool
        Whether to show none. The environment variable ``TQDM_DISABLE`` hides all.
    delay : float
        Seconds before it is shown: what is over by then needs none.
    """
    from tqdm.auto import tqdm  # here, so that the package itself needs nothing

    # tqdm's bar for notebooks does not look at TQDM_DISABLE by itself.
    hidden = hidden or bool(os.environ.get("TQDM_DISABLE"))
    watched = None if total else items
    settings = {"desc": doing, "total": total, "delay": delay, "disable": hidden}
    return tqdm(watched, leave=False, **settings)


def outcome(make: Callable, *arguments: Any) -> str:
    """Return "taken", or the error that a call raises."""
    try:
        make(*arguments)
    except Exception as error:
        return textwrap.fill(f"{type(error).__name__}: {error}", width=80)
    return "taken"
