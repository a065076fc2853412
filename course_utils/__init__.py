"""Shared code of the course: data, partitions, model, runtime and plots.

Each module is short enough to read in one sitting, and most of it is taught,
line by line, in the lesson that first needs it.
"""

import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm.auto import tqdm

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
        found = f"flwr {installed}" if installed else "no flwr"
        raise ImportError(
            f"This course is written for Flower {FLOWER_SERIES}, but {found} is "
            f'installed: run `pip install "flwr~={FLOWER_SERIES}.0"` and restart '
            "the kernel."
        )


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
