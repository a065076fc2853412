"""What judges an answer: an exercise is its cases, an oracle and its mistakes.

A mistake is a program: a wrong answer, with the sentence that names it. The engine
hands each case to the learner's function and compares what can be observed (what came
back, was raised, was changed or was sent) with what is right. At the first case on
which that differs, it looks for the mistake that behaves as the answer does, and says
its sentence. Where there is none, it says the first difference itself.
"""

import inspect
import random
import re
import sysconfig
import textwrap
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, zip_longest
from types import FrameType
from typing import Any

import numpy as np
import torch
from flwr.app import Message
from torch import nn

from course_utils.exercises.bounds import TookTooLong, fresh_process, time_limit
from course_utils.exercises.values import close, is_numeric, show, snapshot, text_of
from course_utils.exercises.words import explain, read_sentences

Facts = list[tuple[str, Any]]
"""What was observed, in the order of time: what it is, and its value."""

NOTHING = object()
LIMIT = 10.0
"""Seconds that an answer has for all cases together."""
NAMING = 7.0
"""Seconds for finding the mistake's name."""

LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib"))
EXERCISES: dict[str, "Exercise"] = {}
"""Every exercise that has been declared so far, by name."""


class Wrong(Exception):
    """What is wrong with an answer: one sentence, and what it was seen on.

    If it is wrong because of what it raised, that is ``raised``.
    """

    def __init__(
        self, sentence: str, raised: BaseException | None = None, **shown: Any
    ) -> None:
        super().__init__(sentence)
        self.raised, self.shown = raised, shown

    def details(self) -> list[str]:
        """Return what it was seen on, a line each, if a second is enough for that."""
        with suppress(TookTooLong), time_limit(1):
            seen = [(k, show(v)) for k, v in self.shown.items() if v is not None]
            return [f"{'returned' if k == 'got' else k}: {text}" for k, text in seen]
        return []


class Unusable(Wrong):
    """What an answer returned breaks what looks at it."""


class NotAttempted(Exception):
    """The answer is still the stub of the lesson."""


class Attempt:
    """A function under observation, called with copies of what it is given."""

    def __init__(self, function: Callable) -> None:
        self.function = function

    def __call__(self, *args: Any, may_change: bool = False) -> Any:
        """Call the function and return what it returns.

        Raises Wrong if it raises, or changes what it is given though it may not.
        """
        copies = deepcopy(args)
        before = snapshot(copies)
        try:
            returned = self.function(*copies)
        except TookTooLong:
            raise
        except BaseException as error:  # whatever it is, SystemExit too
            if _is_a_stub(error):
                raise NotAttempted from None
            said = f"your function raised {type(error).__name__}: {text_of(error)}"
            said = explain(text_of(error, limit=5000)) or said
            raise Wrong(said, raised=error, given=args) from None
        if not may_change and snapshot(copies) != before:
            raise Wrong(
                "your function changed what it was given: work on a copy", given=args
            )
        return returned


def _is_a_stub(error: BaseException) -> bool:
    """Whether this is a lesson's own NotImplementedError, and not a library's."""
    bare = isinstance(error, NotImplementedError) and not error.args
    return bare and not last_frame(error).f_code.co_filename.startswith(LIBRARIES)


def last_frame(error: BaseException) -> FrameType:
    """Return where an error was raised."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame


class Case:
    """What an answer is called with.

    Parameters
    ----------
    *args : Any
        The arguments.
    gives : Any
        What is right, worked out by hand: what comes back (or the class of error that
        is raised). Where the exercise has a ``play``, some of its facts, by name.
    shown : Any
        What a learner should read as the input, if not the arguments.
    **options : Any
        What the exercise's ``play`` takes besides.
    """

    seed = 0  # of the random generators; a drawn case gets another one

    def __init__(
        self, *args: Any, gives: Any = NOTHING, shown: Any = None, **options: Any
    ) -> None:
        self.args, self.gives, self.options = args, gives, options
        self.shown = args if shown is None else shown
        self.made: dict[Callable, Facts] = {}  # of mistakes


@dataclass(frozen=True)
class Exercise:
    """One exercise. Declaring it is all that is needed to have it checked.

    Attributes
    ----------
    name : str
        Lesson and number, such as ``"1.2"``.
    achieved : str
        What a learner who solves it has just achieved: one sentence.
    cases : Sequence[Case]
        Cases by hand, each with what it ``gives``.
    draw : Callable[[random.Random], Case], optional
        Draws a case. Three are drawn for each check.
    oracle : Callable, optional
        A right answer that is not the solution: says what drawn cases give.
    mistakes : str
        Sentences. Below each, by four spaces to the right, stand the wrong answers that
        it names, a line each: an edit of the oracle's text, ``old -> new`` (further
        ones to the same text follow in lines that begin with ``&``), or an expression.
    otherwise : str or Mapping[str, str]
        What to say on other mistakes; if several, by the end of a fact's name, with
        "no " before it for a fact that is missing.
    play : Callable, optional
        Hands a case to an answer, ``play(answer, *args)``, and yields facts: pairs of a
        name and a value. Without it, what comes back is the one fact.
    parts : Sequence[str]
        Names of the things that a right answer returns, if they are several.
    exact : bool
        Whether numbers must be the same to the last digit.
    """

    name: str
    achieved: str
    cases: Sequence[Case] = ()
    draw: Callable[[random.Random], Case] | None = None
    oracle: Callable | None = None
    mistakes: str | Mapping[str, Any] = ""
    otherwise: str | Mapping[str, str] = "the result differs"
    play: Callable[..., Iterable[tuple[str, Any]]] | None = None
    parts: Sequence[str] = ()
    exact: bool = False

    def __post_init__(self) -> None:
        EXERCISES[self.name] = self

    def programs(self) -> list[tuple[str, Callable]]:
        """Return all mistakes as pairs of a sentence and a wrong answer."""
        by_sentence = self.mistakes
        if isinstance(by_sentence, str):
            by_sentence = read_sentences(by_sentence)
        return [
            (sentence, each if callable(each) else edited(self.oracle, each))
            for sentence, made in by_sentence.items()
            for each in (made if isinstance(made, list | tuple) else [made])
        ]

    def all_cases(self, rng: random.Random) -> list[Case]:
        """Return the cases by hand, and three that are drawn."""
        drawn = [self.draw(rng) for _ in range(3) if self.draw]
        for case in drawn:
            case.seed = rng.getrandbits(62)
        return [*self.cases, *drawn]

    # ------------------------------------------------------------------- observing

    def observe(self, program: Callable, case: Case) -> Facts:
        """Return all that can be seen of a program on a case."""
        facts: Facts = []
        play = self.play or partial(_play_plainly, self.parts)
        with fresh_process(case.seed):
            try:
                for fact in play(Attempt(program), *case.args, **case.options):
                    facts.append(fact)
            except NotAttempted:
                raise
            except Exception as error:
                if not isinstance(error, Wrong):  # but in what looks at the result
                    error = Unusable(
                        "what your function returned cannot be used as asked "
                        f"({type(error).__name__}: {text_of(error)})"
                    )
                facts.append(("what was raised", error))
        return facts

    def _made(self, program: Callable, case: Case) -> Facts:
        """Return what a mistake does on a case, or did there before."""
        if program not in case.made:
            case.made[program] = self.observe(program, case)
        return case.made[program]

    def right(self, case: Case) -> Facts:
        """Return what should be seen on a case."""
        if isinstance(case.gives, type) and issubclass(case.gives, Exception):
            said = f"this should raise {case.gives.__name__}"
            return [("what was raised", Wrong(said, raised=case.gives()))]
        if case.gives is not NOTHING and not self.play:
            return list(_play_plainly(self.parts, lambda *args: case.gives))
        facts = self.observe(self.oracle, case)
        if isinstance(facts[-1][1], Unusable):
            raise RuntimeError(f"of the oracle, {facts[-1][1]}")  # the check's fault
        return facts

    def difference(self, right: Facts, seen: Facts) -> int | None:
        """Return the place of the first fact that is not as it should be."""
        for i, (a, b) in enumerate(zip_longest(right, seen, fillvalue=("", NOTHING))):
            if a[0] != b[0] or not self._agree(a[1], b[1]):
                return i
        return None

    def _agree(self, right: Any, seen: Any) -> bool:
        if isinstance(right, Wrong) and right.raised and isinstance(seen, Wrong):
            # The words of an error are for people.
            return isinstance(seen.raised, type(right.raised))
        return close(right, seen, self.exact)

    def _is_alike(self, one: Facts, other: Facts) -> bool:
        """Whether two programs did the same, down to the words of what they raised."""
        asked_for = [case.gives for case in self.cases if isinstance(case.gives, type)]
        return len(one) == len(other) and all(
            a[0] == b[0]
            and (
                # What an error says that was asked for is the learner's own.
                type(a[1].raised) is type(b[1].raised) in asked_for
                or str(a[1]) == str(b[1])
                if isinstance(a[1], Wrong) and isinstance(b[1], Wrong)
                else close(a[1], b[1], self.exact, nan=True)
            )
            for a, b in zip(one, other, strict=True)
        )

    # --------------------------------------------------------------------- judging

    def judge(self, answer: Callable, rng: random.Random) -> None:
        """Raise Wrong unless an answer does on all cases what is right."""
        passed: list[tuple[Case, Facts]] = []
        try:
            with time_limit(LIMIT):
                cases = self.all_cases(rng)
                for case in cases:
                    right, seen = self.right(case), self.observe(answer, case)
                    at = self.difference(right, seen)
                    if at is not None:
                        break
                    passed.append((case, right))
                else:
                    return
        except TookTooLong:
            raise Wrong(
                f"your function has not returned after {LIMIT:.0f} s. Does every loop "
                "in it come to an end?"
            ) from None
        later = ((c, self.observe(answer, c)) for c in cases[len(passed) + 1 :])
        others = chain([(case, seen)], later)
        try:
            with time_limit(NAMING):
                sentence = self._named(case, right, seen[: at + 1], at, passed, others)
        except (TookTooLong, Exception):  # it is wrong, whatever its name
            sentence = None
        raise self._wrong(sentence, case, right, seen, at)

    def _named(
        self, case: Case, right: Facts, seen: Facts, at: int, passed: list, others: Any
    ) -> str | None:
        """Return the sentence of the mistake that behaves as the answer does.

        It does so up to the first difference, and is right on what the answer passed.
        Where several mistakes are, the rest and later cases tell which is meant.
        """
        found = [
            (sentence, program)
            for sentence, program in self.programs()
            if self.difference(right, made := self._made(program, case)) is not None
            and self._is_alike(made[: at + 1], seen)
            and all(
                self.difference(r, self._made(program, c)) is None for c, r in passed
            )
        ]
        for case, seen in others:
            alike = [p for p in found if self._is_alike(self._made(p[1], case), seen)]
            found = alike or found
            if len({sentence for sentence, _ in found}) < 2:
                break
        return found[0][0] if found else None

    def _wrong(
        self, sentence: str | None, case: Case, right: Facts, seen: Facts, at: int
    ) -> Wrong:
        """Say what is wrong, with what was given, expected and seen."""
        name, value = seen[at] if at < len(seen) else ("", NOTHING)
        wanted, expected = right[at] if at < len(right) else (name, NOTHING)
        if isinstance(expected, Wrong) and not sentence:
            sentence = f"refuse this: raise {type(expected.raised).__name__}"
            if isinstance(value, Wrong) and value.raised:
                sentence += f", not {type(value.raised).__name__}"
        shown = {"given": case.shown}
        if isinstance(value, Wrong):  # with words of its own
            sentence, shown = sentence or str(value), value.shown | shown
        elif isinstance(expected, Wrong):
            shown["got"] = value
        elif name != wanted or expected is NOTHING or value is NOTHING:
            sentence = sentence or self._otherwise(wanted, missing=True)
            shown |= {"expected": wanted, "instead": name or None}
        else:
            kind = "" if self.play else wrong_kind(value, expected)
            sentence = sentence or kind or self._otherwise(name)
            shown |= {"expected": expected, name: value}
            if name.startswith(("names in ", "records", "keys")):
                shown["missing"] = sorted(set(expected) - set(value)) or None
                shown["not asked for"] = sorted(set(value) - set(expected)) or None
        return Wrong(sentence, **shown)

    def _otherwise(self, name: str, missing: bool = False) -> str:
        if isinstance(self.otherwise, str):
            return self.otherwise
        for end, said in self.otherwise.items():
            if missing and end.startswith("no ") and name.endswith(end[3:]):
                return said
        ends = (said for end, said in self.otherwise.items() if name.endswith(end))
        return next(ends, f"{name}: this differs")


@cache
def edited(function: Callable, edits: str) -> Callable:
    """Return a function with other text in it: a line for each edit, "old -> new".

    What is no edit is an expression: that of another function. What is to be replaced
    has to be there, and only once: else this raises ValueError.
    """
    if "->" not in edits:
        return eval(edits, dict(function.__globals__))
    source = textwrap.dedent(inspect.getsource(function))
    for edit in edits.split("\n"):
        old, new = re.fullmatch(r"\s*(.*?) -> ?(.*)", edit).groups()
        if source.count(old) != 1:
            raise ValueError(f"{old!r} is not once in {function.__name__}.")
        source = source.replace(old, new)
    namespace = dict(function.__globals__)
    exec(source, namespace)
    return namespace[function.__name__]


def _play_plainly(parts: Sequence[str], answer: Callable, *args: Any) -> Iterator:
    """Yield what comes back, or each of its parts."""
    got = answer(*args)
    if parts:
        yield from zip(parts, require_parts(got, parts), strict=True)
    else:
        yield "returned", got


def require_parts(got: Any, parts: Sequence[str]) -> Sequence:
    """Return what came back, or raise Wrong unless it is so many things."""
    if isinstance(got, list | tuple) and len(got) == len(parts):
        return got
    count = {2: "two", 3: "three", 4: "four"}[len(parts)]
    said = f"return {count} things, always: {', '.join(parts)}"
    raise Wrong(said, got=got if len(show(got)) < 100 else type(got).__name__)


def as_row(value: Any) -> list:
    """Return a list, a tuple, a set or an array as a list, anything else in one."""
    if isinstance(value, np.ndarray | torch.Tensor):
        value = value.tolist()
    return list(value) if isinstance(value, list | tuple | set | frozenset) else [value]


# --------------------------------------------------- differences that recur everywhere

KINDS = (
    (Mapping, "a dictionary"),
    (Message, "a Message"),
    (list | tuple, "a list"),
    (torch.Tensor | np.ndarray, "a tensor or an array"),
    (int | float, "a number"),
)


def wrong_kind(got: Any, expected: Any) -> str:
    """Say that an answer returns another kind of thing than it should, if it does."""
    if got is None:
        return "your function returned None: does every path end in a return?"
    if inspect.iscoroutine(got):
        got.close()
        return "this is a coroutine, and nobody waits for it: write def, not async def"
    if isinstance(got, nn.Module) and isinstance(expected, Mapping):
        return "return the new state_dict, not a network"
    wanted = (each for each in KINDS if isinstance(expected, each[0]))
    kind, name = next(wanted, (object, ""))
    number_like = name in ("a number", "a list", "a tensor or an array")
    right = isinstance(got, kind) or (number_like and is_numeric(got))
    return "" if right else f"your function should return {name}"


def require_kind(got: Any, expected: Any) -> None:
    """Raise Wrong where an answer returns another kind of thing than it should."""
    if sentence := wrong_kind(got, expected):
        raise Wrong(sentence, got=got)
