"""Lesson 14's exercises."""

import math
import random
from typing import Any

import numpy as np

from course_utils.exercises.engine import Case, Exercise

# ------------------------------------------------------------------ 14.1 pooled_moments


def message(values: list[float]) -> dict[str, float]:
    """Sum up one client's values."""
    squares = sum(value**2 for value in values)
    return {"count": len(values), "sum": sum(values), "squares": squares}


def messages_of(clients: list[list[float]], **gives: Any) -> Case:
    """Make the case of some clients' values."""
    return Case([message(values) for values in clients], **gives)


def pooled(messages: list[dict]) -> tuple[float, float]:
    """Add up first: the oracle."""
    rows = [[m["count"], m["sum"], m["squares"]] for m in messages]
    n, total, squares = np.array(rows, float).sum(axis=0)
    return total / n, squares / n - (total / n) ** 2


def own(messages: list[dict]) -> list[tuple[float, float, float]]:
    """Return each client's count, mean and variance, as people do who average these."""
    some = [m for m in messages if m["count"]]
    means = [m["sum"] / m["count"] for m in some]
    pairs = list(zip(some, means, strict=True))
    return [(m["count"], a, m["squares"] / m["count"] - a**2) for m, a in pairs]


def averaged(messages: list[dict], mean: bool, variance: bool, weigh: bool) -> tuple:
    """Average what clients found by themselves."""
    n, means, variances = zip(*own(messages), strict=True)
    weights = n if weigh else None
    first, second = pooled(messages)
    first = np.average(means, weights=weights) if mean else first
    return first, np.average(variances, weights=weights) if variance else second


def random_messages(rng: random.Random) -> Case:
    """Draw clients of several sizes whose means lie apart."""
    clients = []
    for _ in range(rng.randint(2, 5)):
        middle = rng.uniform(-5, 5)
        clients.append([rng.gauss(middle, 2) for _ in range(rng.randint(2, 9))])
    return messages_of(clients)


MOMENTS = Exercise(
    "14.1",
    "three numbers from each hospital are as good as all its rows, for a scale.",
    cases=[
        messages_of([[1.0, 3.0], [5.0, 5.0, 5.0, 11.0]], gives=(5.0, 28 / 3)),
        messages_of([[2.0, 4.0, 6.0], [], [10.0]], gives=(5.5, 8.75)),
        messages_of([[7.0]], gives=(7.0, 0.0)),
    ],
    draw=random_messages,
    oracle=pooled,
    parts=["the mean", "the variance"],
    mistakes="""
        the mean of the clients' means is not the mean of all: add up sums and counts
            lambda m: averaged(m, True, False, False)
            lambda m: averaged(m, True, True, False)
        the mean of the variances leaves out how far the clients' means lie apart
            lambda m: averaged(m, False, True, True)
            lambda m: averaged(m, False, True, False)
        subtract the square of the mean from the mean of the squares
            - (total / n) ** 2 ->
            - (total / n) ** 2 -> - total / n
        divide by the number of values, not by that of the messages
            return total / n, squares / n - -> n = len(rows); return total / n, squares / n -
        divide by the number of values, not by one less
            squares / n - (total / n) ** 2 -> (squares - total**2 / n) / (n - 1 or 1)
        this is the standard deviation: return its square
            squares / n - (total / n) ** 2 -> (squares / n - (total / n) ** 2) ** 0.5
        the mean comes first, then the variance
            return total / n, squares / n - (total / n) ** 2 -> return squares / n - (total / n) ** 2, total / n
        these are sums: divide by the number of values
            return total / n, -> return total,
        a client that has not measured sends a count of 0: do not divide by it
            lambda messages: [m["sum"] / m["count"] for m in messages] and pooled(messages)
    """,  # noqa: E501
    otherwise="mean and variance should be those of all values together",
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
    "who is alone in a bin stays unseen.",
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

Counts = dict[str, tuple[int, int]]


def judge(table: Counts) -> dict[str, str]:
    """Say of each offer what the counts prove: the oracle."""
    said = {}
    for offer, (own_only, offer_only) in table.items():
        more, luck = offer_only - own_only, 2 * math.sqrt(own_only + offer_only)
        said[offer] = "join" if more > luck else "can't tell"
        said[offer] = "stay out" if -more > luck else said[offer]
    return said


def random_table(rng: random.Random) -> Case:
    """Draw counts of three offers."""
    counts = [(rng.randint(0, 30), rng.randint(0, 30)) for _ in range(3)]
    return Case(dict(zip(["a", "b", "c"], counts, strict=True)))


UNSURE = "can't tell"

VERDICTS = Exercise(
    "14.4",
    "you tell what a table proves from what it only shows.",
    cases=[
        # Differences 12, -15, -2, 4; twice the roots: 8, 10, 8, 4. As much is luck.
        Case(
            {"w": (2, 14), "x": (20, 5), "y": (9, 7), "z": (0, 4)},
            gives={"w": "join", "x": "stay out", "y": UNSURE, "z": UNSURE},
        ),
        Case({"same": (0, 0), "e": (27, 17)}, gives={"same": UNSURE, "e": UNSURE}),
        Case({"a": (4, 12), "b": (10, 25)}, gives={"a": UNSURE, "b": "join"}),
        Case({"c": (40, 26), "d": (28, 12)}, gives={"c": UNSURE, "d": "stay out"}),
    ],
    draw=random_table,
    oracle=judge,
    mistakes="""
        a difference is not proven by being there: it has to exceed twice the root
            luck = offer_only - own_only, 2 * math.sqrt(own_only + offer_only) -> luck = offer_only - own_only, 0
        a difference as large as twice the root may be luck: it has to exceed it
            if more > luck -> if more >= luck
            if -more > luck -> if -more >= luck
            if more > luck -> if more >= luck
            & if -more > luck -> if -more >= luck
        twice the root, not once
            2 * math.sqrt -> math.sqrt
        the root is that of the sum of both numbers
            2 * math.sqrt(own_only + offer_only) -> 2 * (own_only + offer_only)
            math.sqrt(own_only + offer_only) -> math.sqrt(abs(own_only - offer_only))
            math.sqrt(own_only + offer_only) -> math.sqrt(max(own_only, offer_only))
            math.sqrt(own_only + offer_only) -> math.sqrt(offer_only)
            math.sqrt(own_only + offer_only) -> math.sqrt(own_only)
        the two numbers are mixed up: the first is what only its own model gets right
            more, luck = offer_only - own_only -> more, luck = own_only - offer_only
        an offer can be worse, too: then stay out
            "stay out" if -more > luck -> "can't tell" if -more > luck
        what can't be told apart is neither: say so
            "can't tell" -> "stay out"
            "can't tell" -> "join"
        say it of each offer, in a dictionary
            return said -> return next(iter(said.values()))
            return said -> return list(said.values())
    """,  # noqa: E501
    otherwise="each offer should get its verdict",
)
