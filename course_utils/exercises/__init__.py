"""Exercises that check themselves: ``check("1.2", answer)`` and ``progress("01")``.

A check calls the learner's function on small cases worked out by hand and on fresh
random inputs, and compares what can be observed with what is right. It judges what the
function does and never how it is written, it hands over copies, and it prints one
sentence whatever happens, within 20 seconds. Which exercises are solved is kept in the
user's own data folder (see ``solved.py``).

Each lesson's exercises are in a module of their own, ``lesson_01.py`` and so on;
``engine.py`` says how they are judged.
"""

import inspect
import random
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from course_utils import solved
from course_utils.exercises import engine
from course_utils.exercises.bounds import (
    TookTooLong,
    as_in_a_fresh_process,
    prints_cut,
    time_limit,
)
from course_utils.exercises.engine import (
    EXERCISES,
    Attempt,
    Case,
    Exercise,
    NotAttempted,
    Wrong,
    require_kind,
)
from course_utils.exercises.values import close, show, text_of

__all__ = [
    "Attempt",
    "Case",
    "Exercise",
    "Wrong",
    "all_exercises",
    "check",
    "close",
    "progress",
    "require_kind",
    "reset_progress",
    "show",
    "verdict",
]


right_now: set[str] = set()
"""Exercises whose last answer in this process was right: by these a copy is graded."""


def check(name: str, answer: Callable) -> None:
    """Check an answer and print one sentence on it.

    Parameters
    ----------
    name : str
        Lesson and number of the exercise, such as ``"1.2"``.
    answer : Callable
        The function that you completed.
    """
    print(verdict(name, answer))


def verdict(name: str, answer: Any) -> str:
    """Return what :func:`check` prints."""
    exercises = all_exercises()
    if name not in exercises:
        return f"There is no exercise {name!r}. There are: {', '.join(exercises)}."
    right_now.discard(name)
    said = _judged(name, exercises[name], answer)
    if "not right yet" in said and name in solved.recall():
        said += f"\n   You have solved {name} before, so it stays solved."
    return said


def _judged(name: str, exercise: Exercise, answer: Any) -> str:
    rng = random.Random()
    try:
        _require_function(answer)
        with prints_cut(), as_in_a_fresh_process(rng.getrandbits(62)):
            exercise.judge(Attempt(answer), rng)
    except NotAttempted:
        return f"{name} not attempted yet: complete the function and run both cells."
    except TookTooLong:
        return (
            f"{name} not right yet: your function has not returned after "
            f"{engine.LIMIT:.0f} s. Does every loop in it come to an end?"
        )
    except Wrong as wrong:
        sentence = f"{wrong}".removesuffix(".")
        end = "" if sentence.endswith("?") else "."
        return "\n   ".join([f"{name} not right yet: {sentence}{end}", *_shown(wrong)])
    except Exception as error:
        return (
            f"{name} not right yet, or the check itself is at fault: it has met "
            f"{type(error).__name__} ({text_of(error)}). Restart the kernel, run the "
            "lesson up to here, and check again."
        )
    right_now.add(name)
    solved.remember(name)
    return f"{name} correct: {exercise.achieved}"


def _require_function(answer: Any) -> None:
    """Raise Wrong unless an answer is a function that can simply be called."""
    if not callable(answer):
        raise Wrong(
            f"check takes the function itself, not {show(answer)}. Write its name "
            "without brackets"
        )
    if inspect.iscoroutinefunction(answer) or inspect.isasyncgenfunction(answer):
        raise Wrong(
            "your function is defined by async def, so that calling it only makes a "
            "coroutine, which nobody runs: write def"
        )


def _shown(wrong: Wrong) -> list[str]:
    """Return what a mistake was seen on, if that can be shown in a second."""
    try:
        with time_limit(1):
            return wrong.details
    except TookTooLong:
        return []


def progress(lesson: str) -> None:
    """Print which of a lesson's exercises are solved, and how many of all.

    Parameters
    ----------
    lesson : str
        Number of the lesson, such as ``"01"``.
    """
    course, done = list(all_exercises()), solved.recall()
    names = [name for name in course if name.split(".")[0] == str(int(lesson))]
    missing = [name for name in names if name not in done]
    found = len(names) - len(missing)
    line = f"Lesson {lesson}: {found} of {len(names)} exercises solved"
    print(f"{line}; to do: {', '.join(missing)}." if missing else f"{line}. All done.")
    if solved.file() is not None:  # else nobody knows of other days
        print(
            f"Of the whole course: {len(done.intersection(course))} of {len(course)}."
        )


def reset_progress() -> None:
    """Begin anew: no exercise of the course is solved."""
    solved.forget()


def all_exercises() -> dict[str, Exercise]:
    """Return every exercise of the course by name, in order."""
    with as_in_a_fresh_process(seed=0):  # some cases hold tensors
        for path in sorted(Path(__file__).parent.glob("lesson_*.py")):
            import_module(f"{__name__}.{path.stem}")
    return dict(sorted(EXERCISES.items()))
