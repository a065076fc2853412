"""Lesson 14's exercises."""

import math
import random
from typing import Any

import numpy as np

from course_utils.exercises.engine import Case, Exercise

# ----------------------------------------------------------------- 14.1 moments_without


def sums(values: list[float]) -> dict[str, float]:
    """Sum up one client's values."""
    squares = sum(value**2 for value in values)
    return {"count": len(values), "sum": sum(values), "squares": squares}


def leaves(staying: list[float], leaving: list[float], **gives: Any) -> Case:
    """Make the case of one client that leaves."""
    return Case(sums(staying + leaving), sums(leaving), **gives)


def without(total: dict, leaving: dict) -> tuple[float, float]:
    """Take the sums back: the oracle."""
    n, first, second = (total[k] - leaving[k] for k in ("count", "sum", "squares"))
    mean = first / n
    return mean, second / n - mean**2


def own(of: dict) -> tuple[float, float]:
    """Return a client's mean and variance, as people do who subtract these."""
    mean = of["sum"] / max(of["count"], 1)
    return mean, of["squares"] / max(of["count"], 1) - mean**2


def random_leaver(rng: random.Random) -> Case:
    """Draw two groups of values whose means lie apart."""
    middle = rng.choice([-1, 1]) * rng.uniform(3, 6)
    staying = [rng.gauss(middle, 2) for _ in range(rng.randint(3, 9))]
    return leaves(staying, [rng.gauss(0, 1) for _ in range(rng.randint(2, 9))])


MOMENTS = Exercise(
    "14.1",
    "a hospital leaves, and its patients leave the scale.",
    cases=[
        leaves([5.0, 5.0, 5.0, 11.0], [1.0, 3.0], gives=(6.5, 6.75)),
        leaves([2.0, 4.0, 6.0, 10.0], [], gives=(5.5, 8.75)),
        leaves([7.0], [1.0, 2.0], gives=(7.0, 0.0)),
    ],
    draw=random_leaver,
    oracle=without,
    parts=["the mean", "the variance"],
    mistakes="""
        this is the scale of all: subtract the sums of the one that leaves
            total[k] - leaving[k] -> total[k]
        this is the scale of the one that leaves: take the others'
            lambda total, leaving: own(leaving)
        means and variances cannot be subtracted: subtract sums, then divide
            lambda total, leaving: tuple(a - b for a, b in zip(own(total), own(leaving)))
            lambda total, leaving: (own(total)[0] - own(leaving)[0], without(total, leaving)[1])
            lambda total, leaving: (without(total, leaving)[0], own(total)[1] - own(leaving)[1])
        divide by the number of values that stay
            first / n -> first / total["count"]
            & second / n -> second / total["count"]
            first / n -> first / total["count"]
            second / n -> second / total["count"]
        subtract the square of the mean from the mean of the squares
            - mean**2 ->
            - mean**2 -> - mean
        divide by the number of values, not by one less
            second / n - mean**2 -> (second - n * mean**2) / (n - 1 or 1)
        this is the standard deviation: return its square
            second / n - mean**2 -> (second / n - mean**2) ** 0.5
        the mean comes first, then the variance
            return mean, second / n - mean**2 -> return second / n - mean**2, mean
        these are sums: divide by the number of values
            return mean, -> return first,
        who has not measured sends a count of 0: do not divide by it
            lambda total, leaving: leaving["sum"] / leaving["count"] and without(total, leaving)
    """,  # noqa: E501
    otherwise="mean and variance should be those of the values that stay",
)

# ----------------------------------------------------------------- 14.2 safe_histogram


def safe(values: np.ndarray, edges: list[float], least: int) -> list[int]:
    """Find each value's bin, and count: the oracle."""
    counts = [0] * (len(edges) - 1)
    for value in np.asarray(values, float):
        place = int(np.searchsorted(edges, value, side="right")) - 1
        if 0 <= place < len(counts) and not math.isnan(value):
            counts[place] += 1
    return [-1 if 0 < count < least else count for count in counts]


def by_numpy(values: np.ndarray, edges: list[float], least: int) -> list[int]:
    """Count as NumPy does, the last edge included."""
    counts = np.histogram(values[~np.isnan(values)], edges)[0].tolist()
    return [-1 if 0 < count < least else count for count in counts]


def random_histogram(rng: random.Random) -> Case:
    """Draw values, some of them missing, outside, or on an edge."""
    values = [rng.choice([rng.randint(0, 12), math.nan]) for _ in range(40)]
    return Case(np.array(values, float), [2, 4, 6, 10], rng.randint(2, 6))


FEW = np.array([1.0, 1.0, 1.0, 4.0, 4.0, 7.0, 9.0, 12.0, -3.0, math.nan, math.nan])

HISTOGRAM = Exercise(
    "14.2",
    "no small count is sent as it is. The next cells ask whether that is enough.",
    cases=[
        # Bins of 3, 0, 2, 1. The last edge, what lies outside, and NaN do not count.
        Case(FEW, [0, 2, 4, 7, 9], 3, gives=[3, 0, -1, -1]),
        Case(FEW, [0, 2, 4, 7, 9], 2, gives=[3, 0, 2, -1]),
        Case(FEW, [1, 4, 13], 1, gives=[3, 5]),
    ],
    draw=random_histogram,
    oracle=safe,
    mistakes="""
        a count of exactly least is not small: send it
            count < least -> count <= least
        a bin with nobody in it stays 0: only 1 and more are hidden
            0 < count -> 0 <= count
        a small count is sent as -1, not as 0: 0 says that nobody is there
            [-1 if -> [0 if
        small counts are sent as they are: hide them
            0 < count < least -> False
        a small count is sent as -1, not left out: each bin has its place
            [-1 if 0 < count < least else count for count in counts] -> [c for c in counts if not 0 < c < least]
        a value on the last edge is not counted: np.histogram counts it
            by_numpy
        a value on an edge belongs to the bin that begins there
            side="right" -> side="left"
        values outside the edges are not counted
            place = int( -> place = min(max(0, int(
            & side="right")) - 1 -> side="right")) - 1), len(counts) - 1)
        NaN is no value: do not count it
            values, float) -> values, float)[~np.isnan(values)].tolist() + [edges[-2]] * int(np.isnan(values).sum())
        these are shares: send counts
            count for count in counts] -> count / max(1, sum(counts)) for count in counts]
    """,  # noqa: E501
    otherwise="each bin should have its count, or -1 where that is small",
)

# ---------------------------------------------------------------- 14.3 calibration_gap


def gap(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """Weigh each bin's gap: the oracle."""
    p, y = np.asarray(probabilities, float), np.asarray(labels, float)
    place = np.minimum((p * bins).astype(int), bins - 1)
    total = 0.0
    for i in set(place.tolist()):
        here = place == i
        said, were = p[here].mean(), y[here].mean()
        total += here.sum() * abs(said - were)
    return total / len(p)


def random_forecasts(rng: random.Random) -> Case:
    """Draw probabilities, and labels that are ill more often than they say."""
    p = [rng.random() for _ in range(60)]
    y = [float(rng.random() < value**0.5) for value in p]
    return Case(np.array(p), np.array(y), rng.choice([4, 5, 10]))


P = np.array([0.1, 0.3, 0.3, 0.8, 1.0, 0.6])
Y = np.array([0.0, 1.0, 1.0, 1.0, 0.0, 1.0])

CALIBRATION = Exercise(
    "14.3",
    "you know whether a model's 80 percent are 80 percent.",
    cases=[
        # Bins of [0, .5) and [.5, 1]: 3 * |.7/3 - 2/3| and 3 * |.8 - 2/3|, over 6.
        Case(P, Y, 2, gives=(1.3 + 0.4) / 6),
        # Of 4: [.1], [.3, .3], [.6], [.8, 1]: gaps .1, .7, .4, .4.
        Case(P, Y, 4, gives=(0.1 + 2 * 0.7 + 0.4 + 2 * 0.4) / 6),
        Case(np.array([0.9, 0.9]), np.array([1.0, 0.0]), 10, gives=0.4),
    ],
    draw=random_forecasts,
    oracle=gap,
    mistakes="""
        a bin counts by how many patients are in it: weigh the gaps
            here.sum() * abs -> abs
            & total / len(p) -> total / len(set(place.tolist()))
        divide by the number of all patients, not by that of the bins
            total / len(p) -> total / bins
            total / len(p) -> total / len(set(place.tolist()))
        the gaps cancel out: take the absolute value of each
            abs(said - were) -> (said - were)
            abs(said - were) -> (were - said)
        take the mean of the probabilities in a bin, not the bin's middle
            p[here].mean() -> (i + 0.5) / bins
        take the gap of a bin's means, not the mean of each patient's gap
            abs(said - were) -> np.abs(p[here] - y[here]).mean()
        this is the squared gap: take the absolute value
            abs(said - were) -> (said - were) ** 2
        a probability of 1 belongs to the last bin
            np.minimum((p * bins).astype(int), bins - 1) -> (p * bins).astype(int)
            np.minimum((p * bins).astype(int), bins - 1) -> (p * bins).astype(int)
            & set(place.tolist()) -> set(place.tolist()) & set(range(bins))
        this is the largest gap: take the weighted mean
            total += here.sum() * abs(said - were) -> total = max(total, len(p) * abs(said - were))
        divide by the number of all patients
            total / len(p) -> total
        compare with the share that is ill, not with that the model gets right
            were = p[here].mean(), y[here].mean() -> were = p[here].mean(), ((p > 0.5) == y)[here].mean()
        this is one bin: cut the probabilities into as many as bins says
            (p * bins).astype(int) -> (p * 0).astype(int)
    """,  # noqa: E501
    otherwise="the result should be the weighted mean of the bins' gaps",
)

# ----------------------------------------------------------------------- 14.4 verdicts

Counts = dict[str, list[tuple[int, int]]]


def judge(table: Counts) -> dict[str, str]:
    """Say of each offer what the cuts prove: the oracle."""
    said = {}
    for offer, cuts in table.items():
        own, other = np.array(cuts, float).T
        more, luck = other - own, 2 * np.sqrt(own + other)
        better, worse = (more > luck).mean(), (-more > luck).mean()
        said[offer] = "join" if better > 0.5 else "can't tell"
        said[offer] = "stay out" if worse > 0.5 else said[offer]
    return said


def random_table(rng: random.Random) -> Case:
    """Draw some cuts of offers that are better, worse, or neither."""
    table = {}
    for offer in "abcd":
        low, high = rng.choice([(5, 20), (20, 5), (12, 12)])
        table[offer] = [
            (rng.randint(low - 5, low + 5), rng.randint(high - 5, high + 5))
            for _ in range(rng.randint(3, 6))
        ]
    return Case(table)


UNSURE = "can't tell"
WIN, LOSS, DRAW = (2, 14), (20, 5), (9, 7)
"""Differences 12, -15, -2; twice the roots: 8, 10, 8."""
AGREED = {"a": "join", "b": "stay out"}


def unsure(offers: str) -> dict[str, str]:
    """Say that none of the offers can be judged."""
    return dict.fromkeys(offers, UNSURE)


VERDICTS = Exercise(
    "14.4",
    "you tell what a table proves from what it only shows.",
    cases=[
        Case(
            {"w": [WIN], "x": [LOSS], "y": [DRAW], "same": [(0, 0)]},
            gives={"w": "join", "x": "stay out", "y": UNSURE, "same": UNSURE},
        ),
        # As much as twice the root is luck: 8, 8 and 4. Then 12 of 12.6, 15 of 11.8.
        Case({"a": [(4, 12)], "b": [(12, 4)], "c": [(0, 4)]}, gives=unsure("abc")),
        Case({"d": [(26, 14)], "e": [(10, 25)]}, gives={"d": UNSURE, "e": "join"}),
        # One cut of three and two of four are not more than half.
        Case({"a": [WIN, DRAW, WIN], "b": [LOSS, DRAW, LOSS]}, gives=AGREED),
        Case({"a": [WIN, DRAW, DRAW], "b": [LOSS, DRAW, DRAW]}, gives=unsure("ab")),
        Case({"a": [WIN, DRAW] * 2, "b": [DRAW, LOSS] * 2}, gives=unsure("ab")),
        # Ahead by 4 in each, and luck is 4.9. All in one it would be 16, and 9.8.
        Case({"a": [(1, 5)] * 4, "b": [(5, 1)] * 4}, gives=unsure("ab")),
    ],
    draw=random_table,
    oracle=judge,
    mistakes="""
        a difference is not proven by being there: it has to exceed twice the root
            2 * np.sqrt(own + other) -> 0 * own
        a difference as large as twice the root may be luck: it has to exceed it
            (more > luck) -> (more >= luck)
            & (-more > luck) -> (-more >= luck)
            (more > luck) -> (more >= luck)
            (-more > luck) -> (-more >= luck)
        twice the root, not once
            2 * np.sqrt -> np.sqrt
        the root is that of the sum of both numbers
            2 * np.sqrt(own + other) -> 2 * (own + other)
            np.sqrt(own + other) -> np.sqrt(abs(own - other))
            np.sqrt(own + other) -> np.sqrt(np.maximum(own, other))
            np.sqrt(own + other) -> np.sqrt(other)
            np.sqrt(own + other) -> np.sqrt(own)
        the two numbers are mixed up: the first is what only its own model gets right
            more, luck = other - own -> more, luck = own - other
        an offer can be worse, too: then stay out
            "stay out" if worse > 0.5 -> "can't tell" if worse > 0.5
        worse has to exceed the luck, too
            (-more > luck) -> (more < 0)
        what can't be told apart is neither: say so
            "can't tell" -> "stay out"
            "can't tell" -> "join"
        half of the cuts are not more than half
            better > 0.5 -> better >= 0.5
            & worse > 0.5 -> worse >= 0.5
            better > 0.5 -> better >= 0.5
            worse > 0.5 -> worse >= 0.5
        one cut proves nothing: more than half of them have to agree
            better > 0.5 -> better > 0
            & worse > 0.5 -> worse > 0
            own, other = np.array(cuts, float).T -> own, other = np.array(cuts[:1], float).T
        more than half of the cuts are enough: all of them need not agree
            better > 0.5 -> better == 1
            & worse > 0.5 -> worse == 1
        the cuts hold the same patients: do not add them up
            own, other = np.array(cuts, float).T -> own, other = np.array([np.sum(cuts, axis=0)], float).T
        say it of each offer, in a dictionary
            return said -> return next(iter(said.values()))
            return said -> return list(said.values())
    """,  # noqa: E501
    otherwise="each offer should get its verdict",
)
