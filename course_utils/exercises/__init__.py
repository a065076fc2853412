"""Exercises that check themselves: ``check("1.2", answer)`` and ``progress("01")``.

A check calls the learner's function on small cases worked out by hand and on fresh
random inputs, and compares what comes back with an oracle. It judges what the function
does and never how it is written, it hands over copies, and it prints one sentence
whatever happens. Nothing is stored outside this process.

Each lesson's exercises are in a module of their own, ``lesson_01.py`` and so on.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Array, Context, Message
from torch import nn

_solved: set[str] = set()
_exercises: dict[str, "Exercise"] = {}


class Wrong(Exception):
    """What is wrong with an answer: one sentence, and what it was seen on.

    Attributes
    ----------
    details : list[str]
        What it was seen on.
    raised : BaseException or None
        What the answer raised, if that is what is wrong.
    """

    raised: BaseException | None = None

    def __init__(
        self, sentence: str, *, given: Any = None, expected: Any = None, got: Any = None
    ) -> None:
        super().__init__(sentence)
        pairs = (("given", given), ("expected", expected), ("returned", got))
        self.details = [f"{key}: {show(v)}" for key, v in pairs if v is not None]


class _NotAttempted(Exception):
    pass


@dataclass(frozen=True)
class Exercise:
    """One exercise: its number, what solving it achieves, and how it is judged."""

    name: str
    achieved: str
    judge: Callable[["Attempt", random.Random], None]


class Attempt:
    """The learner's function, called with copies of what it is given."""

    def __init__(self, function: Callable) -> None:
        self.function = function

    def __call__(self, *args: Any, may_change: bool = False) -> Any:
        """Call the answer and return what it returns.

        Parameters
        ----------
        *args : Any
            What to call it with. It gets a copy.
        may_change : bool
            Whether the answer is meant to change what it is given.

        Raises
        ------
        Wrong
            If it raises, or changes what it should leave alone.
        """
        copies = deepcopy(args)
        before = None if may_change else _snapshot(copies)
        try:
            returned = self.function(*copies)
        except NotImplementedError:
            raise _NotAttempted from None
        except BaseException as error:
            # Whatever an answer raises, SystemExit too, is said in a sentence.
            wrong = Wrong(
                f"your function raised {type(error).__name__}: {_text(error)}",
                given=args,
            )
            wrong.raised = error
            raise wrong from None
        if not may_change and _snapshot(copies) != before:
            raise Wrong(
                "your function changed what it was given: work on a copy", given=args
            )
        return returned

    def refused(self, *args: Any, sentence: str, given: Any) -> tuple[bool, Any]:
        """Call the answer with what it should refuse by a ValueError.

        Parameters
        ----------
        *args : Any
            What to call it with.
        sentence : str
            What to say if it raises something else, whose name goes in place of ``{}``.
        given : Any
            What to show then.

        Returns
        -------
        tuple[bool, Any]
            Whether it raised a ValueError, and what it returned if it did not.

        Raises
        ------
        Wrong
            If it raises something else.
        """
        try:
            return False, self(*args)
        except Wrong as wrong:
            if isinstance(wrong.raised, ValueError):
                return True, None
            if wrong.raised is None:
                raise
            name = type(wrong.raised).__name__
            raise Wrong(sentence.format(name), given=given) from None

    def compare(
        self,
        oracle: Callable,
        *args: Any,
        mistakes: Mapping[str, Callable] | None = None,
        wanted: str = "",
    ) -> None:
        """Call the answer, and require what the oracle returns for the same input.

        Parameters
        ----------
        oracle : Callable
            Returns the right result. Not the reference solution.
        *args : Any
            What both are called with.
        mistakes : Mapping[str, Callable], optional
            Sentences that name a mistake, each with a function that makes it. If the
            answer returns what such a function returns, its sentence is said.
        wanted : str
            What the result should be, for an answer whose mistake has no name.
        """
        got = self(*args)
        expected = oracle(*deepcopy(args))
        if close(got, expected):
            return
        for sentence, mistaken in (mistakes or {}).items():
            made = mistaken(*deepcopy(args))
            if not close(made, expected) and close(got, made):
                raise Wrong(sentence, given=args, expected=expected, got=got)
        require_kind(got, expected)
        sentence = f"the result should be {wanted}" if wanted else "the result differs"
        raise Wrong(sentence, given=args, expected=expected, got=got)


def exercise(name: str, achieved: str) -> Callable:
    """Register the function below as the judge of the exercise ``name``.

    Parameters
    ----------
    name : str
        Lesson and number, such as ``"1.2"``.
    achieved : str
        What a learner who solves it has just achieved: one sentence.
    """

    def register(judge: Callable[[Attempt, random.Random], None]) -> Callable:
        _exercises[name] = Exercise(name, achieved, judge)
        return judge

    return register


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
    _solved.discard(name)
    if not callable(answer):
        return (
            f"{name} not right yet: check takes the function itself, not "
            f"{show(answer)}. Write its name without brackets."
        )
    try:
        exercises[name].judge(Attempt(answer), random.Random())
    except _NotAttempted:
        return f"{name} not attempted yet: complete the function and run both cells."
    except Wrong as wrong:
        sentence = f"{wrong}".removesuffix(".")
        end = "" if sentence.endswith("?") else "."
        return "\n   ".join([f"{name} not right yet: {sentence}{end}", *wrong.details])
    except Exception as error:
        # The judge stumbled over what came back: that is the answer's fault, too.
        return (
            f"{name} not right yet: what your function returned cannot be used as "
            f"asked ({type(error).__name__}: {_text(error)})."
        )
    _solved.add(name)
    return f"{name} correct: {exercises[name].achieved}"


def progress(lesson: str) -> None:
    """Print which of a lesson's exercises are solved in this session.

    Parameters
    ----------
    lesson : str
        Number of the lesson, such as ``"01"``.
    """
    names = [n for n in all_exercises() if n.split(".")[0] == str(int(lesson))]
    solved = [name for name in names if name in _solved]
    line = f"Lesson {lesson}: {len(solved)} of {len(names)} exercises solved"
    missing = [name for name in names if name not in _solved]
    print(f"{line}; to do: {', '.join(missing)}." if missing else f"{line}. All done.")


def all_exercises() -> dict[str, Exercise]:
    """Return every exercise of the course by name, in order."""
    for path in sorted(Path(__file__).parent.glob("lesson_*.py")):
        import_module(f"{__name__}.{path.stem}")
    return dict(sorted(_exercises.items()))


# ------------------------------------------------------------- comparing and describing


def close(a: Any, b: Any) -> bool:
    """Whether two results are the same, to rounding, however they are held.

    Numbers, lists, NumPy arrays and tensors are compared by value; mappings by keys and
    values. NaN is close to nothing. Anything else must be equal.
    """
    if isinstance(a, Array) and isinstance(b, Array):
        return close(a.numpy(), b.numpy())
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return set(a) == set(b) and all(close(a[key], b[key]) for key in a)
    if isinstance(a, str | bytes | bool | None) or isinstance(b, str | bytes | bool):
        return type(a) is type(b) and a == b
    left, right = _numbers(a), _numbers(b)
    if left is not None and right is not None:
        return left.shape == right.shape and np.allclose(left, right, 1e-4, 1e-6)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(close, a, b))
    return type(a) is type(b) and bool(a == b)


def require_kind(got: Any, expected: Any) -> None:
    """Raise Wrong where an answer returns another kind of thing than it should."""
    kinds = (
        (Mapping, "a dictionary"),
        (Message, "a Message"),
        (list | tuple, "a list"),
        (torch.Tensor | np.ndarray, "a tensor or an array"),
        (int | float, "a number"),
    )
    if got is None:
        raise Wrong("your function returned None: does every path end in a return?")
    for kind, name in kinds:
        if isinstance(expected, kind):
            number_like = name in ("a number", "a list", "a tensor or an array")
            if number_like and _numbers(got) is not None:
                return  # the right kind, with other values
            if not isinstance(got, kind):
                raise Wrong(f"your function should return {name}", got=got)
            return


def show(value: Any) -> str:
    """Describe a value in at most two hundred characters, whatever it is."""
    if isinstance(value, tuple) and len(value) == 1:
        return show(value[0])
    text = _text(_plain(value), repr)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _plain(value: Any) -> Any:
    """Turn tensors and arrays in a value into numbers that are short to print."""
    if isinstance(value, torch.Tensor | np.ndarray):
        if np.prod(value.shape) > 12:
            return f"<{type(value).__name__} of shape {tuple(value.shape)}>"
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(v) for v in value)
    return value


def _text(value: Any, convert: Callable = str) -> str:
    """Convert to text, also where a broken class refuses."""
    try:
        return re.sub(r" at 0x[0-9a-f]+", "", convert(value).split("\n")[0])
    except BaseException:
        return f"<{type(value).__name__}>"


def _numbers(value: Any) -> np.ndarray | None:
    """Return a value's numbers as an array, or None if it is not made of numbers."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().double().numpy()
    if isinstance(value, int | float | np.number | np.ndarray):
        array = np.asarray(value)
        return array.astype(float) if array.dtype.kind in "biuf" else None
    if isinstance(value, list | tuple):
        parts = [_numbers(part) for part in value]
        if all(p is not None for p in parts) and len({p.shape for p in parts}) <= 1:
            return np.array(parts, dtype=float)
    return None


def _snapshot(value: Any) -> Any:
    """Return something comparable that changes when the value does."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy().tobytes()
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, nn.Module):
        return _snapshot(value.state_dict())
    if isinstance(value, Array):
        return value.data
    if isinstance(value, Message):
        return _snapshot(value.content) if value.has_content() else None
    if isinstance(value, Context):
        return _snapshot([value.node_config, value.run_config, value.state])
    if isinstance(value, Mapping):
        return [(key, _snapshot(v)) for key, v in value.items()]
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_snapshot(part) for part in value]
    if isinstance(value, str | bytes | int | float | None):
        return value
    return id(value)
