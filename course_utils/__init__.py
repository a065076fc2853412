"""Shared code of the course: data, partitions, model, runtime and plots.

Each module is short enough to read in one sitting, and most of it is taught,
line by line, in the lesson that first needs it.
"""

import os
import textwrap
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

FLOWER_SERIES = "1.41"
"""The series of Flower releases that the lessons are written for and tested with."""


def check_flower_version(installed: str) -> None:
    """Raise ImportError unless ``installed`` belongs to the course's Flower series."""
    if installed.split(".")[:2] != FLOWER_SERIES.split("."):
        raise ImportError(
            f"This course is written for Flower {FLOWER_SERIES}, but flwr {installed} "
            f'is installed: run `pip install "flwr~={FLOWER_SERIES}.0"` and restart '
            "the kernel."
        )


check_flower_version(version("flwr"))

# Lessons work offline and tell nobody that they ran. Flower reads both when it is
# imported, so they are set here, before any module of the course imports it.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")


def outcome(make: Callable, *arguments: Any) -> str:
    """Return "taken", or the error that a call raises."""
    try:
        make(*arguments)
    except Exception as error:
        return textwrap.fill(f"{type(error).__name__}: {error}", width=80)
    return "taken"
