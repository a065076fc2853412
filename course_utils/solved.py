"""What a learner has solved, kept from one day to the next.

It is a list of exercises in a small file of the user's own data folder. Nothing else
is kept, and nothing leaves this machine. ``FLOWER_COURSE_PROGRESS=off`` keeps it in
this process only; the name of another file, in that.
"""

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

VARIABLE = "FLOWER_COURSE_PROGRESS"
_in_this_process: set[str] = set()


def file() -> Path | None:
    """Return the file, or None where nothing is kept."""
    chosen = os.environ.get(VARIABLE, "")
    if chosen.lower() == "off":
        return None
    if chosen:
        return Path(chosen)
    with suppress(ImportError, RuntimeError):  # not installed, or no home folder
        from platformdirs import user_data_path

        return user_data_path("flower-course") / "solved.json"
    return None


def recall() -> set[str]:
    """Return the names of all exercises that were solved, such as ``"1.2"``."""
    names: set[str] = set()
    path = file()
    if path is not None:
        with suppress(OSError, ValueError, TypeError):  # none yet, or a damaged one
            names = {name for name in json.loads(path.read_text("utf-8"))}
    return _in_this_process | names


def remember(name: str) -> None:
    """Keep that an exercise is solved; where no file can be, in this process only."""
    _in_this_process.add(name)
    path = file()
    if path is None:
        return
    text = json.dumps(sorted(recall()))
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whole or not at all: two notebooks may write at the same time.
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, suffix=".json", delete=False, encoding="utf-8"
        ) as new:
            new.write(text)
        os.replace(new.name, path)


def forget() -> None:
    """Begin anew: no exercise is solved."""
    _in_this_process.clear()
    path = file()
    if path is not None:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def by_lesson(names: set[str]) -> str:
    """Return how many of each lesson there are, such as ``"lesson 00: 2, …"``."""
    lessons = sorted(int(name.split(".")[0]) for name in names)
    return ", ".join(
        f"lesson {number:02}: {lessons.count(number)}"
        for number in dict.fromkeys(lessons)
    )
