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
from course_utils.exercises.bounds import fresh_process, prints_cut
from course_utils.exercises.engine import EXERCISES, Exercise, NotAttempted, Wrong
from course_utils.exercises.values import show, text_of

right_now: set[str] = set()
"""Exercises whose last answer in this process was right: by these a copy is graded."""


def check(name: str, answer: Callable) -> None:
    """Check your function, the answer to exercise ``name``, in one sentence."""
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
        with prints_cut(), fresh_process(rng.getrandbits(62)):
            exercise.judge(answer, rng)
    except NotAttempted:
        return f"{name} not attempted yet: complete the function and run both cells."
    except Wrong as wrong:
        said = f"{name} not right yet: {wrong}".removesuffix(".")
        end = "" if said.endswith("?") else "."
        return "\n   ".join([said + end, *wrong.details()])
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


def progress(lesson: str) -> None:
    """Print which exercises of a lesson, such as "01", are solved; how many of all."""
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
    with fresh_process(seed=0):  # some cases hold tensors
        for path in sorted(Path(__file__).parent.glob("lesson_*.py")):
            import_module(f"{__name__}.{path.stem}")
    in_order = sorted(EXERCISES, key=lambda name: [*map(int, name.split("."))])
    return {name: EXERCISES[name] for name in in_order}
