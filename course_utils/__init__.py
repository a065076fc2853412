"""Shared code of the course: data, partitions, model, runtime and plots.

Each module is short enough to read in one sitting, and most of it is taught,
line by line, in the lesson that first needs it.
"""

import os
import re
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import (
    PackageNotFoundError,
    distributions,
    requires,
    version,
)
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm.auto import tqdm

COURSE = "flower-course"
"""Name of the course as an installed distribution."""


def flower_series() -> str | None:
    """Return the series of Flower that the course is tested with, such as "1.42".

    It stands in pyproject.toml alone. None where the course is not installed.
    """
    with suppress(PackageNotFoundError):
        found = [re.match(r"flwr\b.*~=(\d+\.\d+)", text) for text in requires(COURSE)]
        return next(match[1] for match in found if match)
    return None


def is_newer(installed: str) -> bool:
    """Whether an installed Flower is of a newer series than the course's."""
    return _series(installed) > _series(flower_series())


def _series(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def check_flower_version(installed: str | None, series: str | None) -> None:
    """Refuse a Flower that is older than the course's series; warn of a newer one.

    Parameters
    ----------
    installed : str or None
        flwr's version, or None if there is none.
    series : str or None
        The course's series, as :func:`flower_series` returns it.

    Raises
    ------
    ImportError
        If there is none, or an older one.
    """
    here, tested = _series(installed or ""), _series(series or "")
    if not installed or here < tested:
        if elsewhere := another_environment():
            raise ImportError(f"{elsewhere[0].upper()}{elsewhere[1:]}.")
        found = f"flwr {installed}" if installed else "no flwr"
        raise ImportError(
            f"This course is written for Flower {series}, but {found} is "
            f'installed: run `pip install "flwr~={series}.0"` and restart the kernel.'
        )
    if here > tested > ():
        warnings.warn(
            f"The course was tested with Flower {series}, and not with {installed}, "
            "which is installed. It goes on; what it prints may differ.",
            stacklevel=3,
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
_is_checking = sys.argv[:1] == ["-m"] and "course_utils" in sys.orig_argv
if not _is_checking:
    check_flower_version(installed_version("flwr"), flower_series())

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
