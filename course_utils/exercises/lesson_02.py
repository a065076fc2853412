"""Lesson 02's exercises."""

import random
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate, chain, pairwise
from typing import Any

import numpy as np
import torch

from course_utils.exercises.engine import Attempt, Case, Exercise, as_row, require_kind


def random_counts(rng: random.Random) -> Case:
    """Draw label counts of clients that differ in size; none is without examples."""
    clients, labels = rng.sample(range(3, 8), 2)
    draw = np.random.default_rng(rng.getrandbits(32))
    held = draw.integers(0, 2, (clients, labels))
    most = 10 ** draw.integers(1, 4, (clients, 1))
    counts = held * draw.integers(1, most, held.shape)
    counts[range(clients), draw.integers(labels, size=clients)] += 1
    return Case(counts)


# -------------------------------------------------------------------- 2.1 held_by_one


def held_by_one(counts: np.ndarray) -> list[int]:
    """Count each label's holders: the oracle."""
    holders = (counts > 0).sum(0)
    found = np.flatnonzero(holders == 1)
    return found.tolist()


HELD_BY_ONE = Exercise(
    "2.1",
    "you know which labels a federation loses with a single client.",
    cases=[
        # Label 0 has two holders, label 3 none.
        Case(np.array([[5, 0, 1, 0, 0], [3, 4, 0, 0, 9]]), gives=[1, 2, 4]),
        # One example is enough.
        Case(np.array([[9, 1], [1, 0], [8, 0]]), gives=[1]),
        Case(np.array([[4, 4], [6, 2], [8, 0]]), gives=[]),
    ],
    draw=random_counts,
    oracle=held_by_one,
    mistakes="""
        nobody holds some of these labels: return those that exactly one client holds
            == 1 -> <= 1
        a column is a label, and a row is a client: these are the clients that hold a
        single label
            .sum(0) -> .sum(1)
        count the clients that hold a label, not its examples
            (counts > 0).sum(0) -> counts.sum(0)
        one example is enough to hold a label
            counts > 0 -> counts > 1
        these are the labels that several clients hold
            == 1 -> > 1
        these are True and False: return the labels for which it is True
            found.tolist() -> (holders == 1)
        these are the numbers of clients that hold each label: return the labels with 1
            found.tolist() -> holders.tolist()
        np.where returns a tuple: the labels are the first thing in it
            found.tolist() -> np.where(holders == 1)
        this is how many such labels there are: return the labels
            found.tolist() -> len(found)
        these are the clients that hold the labels: return the labels
            found.tolist() -> [int(counts[:, k].argmax()) for k in found]
    """,
    otherwise="the result should be the labels that exactly one client holds, in order",
)

# ----------------------------------------------------------- 2.2 distance_from_others


def measure(counts: np.ndarray) -> np.ndarray:
    """Measure row by row: the oracle."""
    others = counts.sum(0) - counts
    p = counts / counts.sum(1, keepdims=True)
    q = others / others.sum(1, keepdims=True)
    return abs(p - q).sum(1) / 2


DISTANCE = Exercise(
    "2.2",
    "you have a skew that a client's own size does not hide.",
    cases=[
        Case(np.array([[4, 4], [6, 2], [8, 0]]), gives=[0.375, 0.0, 0.375]),
        Case(
            np.array([[4, 0, 0, 0], [2, 2, 2, 2], [0, 2, 0, 2]]),
            gives=[5 / 6, 1 / 4, 2 / 3],
        ),
        Case(np.array([[5, 0, 0], [0, 2, 1]]), gives=[1.0, 1.0]),
        Case(
            np.array([[1, 0, 0], [50, 0, 50], [0, 3, 0], [2, 2, 0]]),
            gives=[55 / 107, 5 / 8, 103 / 105, 50 / 104],
        ),
    ],
    draw=random_counts,
    oracle=measure,
    mistakes="""
        this is the distance from the whole, of which the client is a part: leave the
        client out of what you compare it with
            counts.sum(0) - counts -> counts.sum(0, keepdims=True)
        the half is missing: every example that changes its label lowers one share and
        raises another
            / 2 ->
        add up the others' counts before you make shares: in a mean of their shares, or
        of the distances from each, a small client weighs as much as a large one
            q = others -> others = p.sum(0) - p; q = others
            abs(p - q).sum(1) / 2 -> abs(p[:, None] - p).sum((1, 2)) / 2 / (len(p) - 1)
        the client is compared with evenly spread labels: at distance 0 it is like the
        others, not evenly spread
            counts.sum(0) - counts -> 0 * counts + 1
        the others' counts are divided by another sum than theirs: their shares sum to 1
        for each client
            others.sum(1, keepdims=True) -> counts.sum()
            others.sum(1, keepdims=True) -> counts.sum(1, keepdims=True)
            others.sum(1, keepdims=True) -> others.sum()
            others.sum(1, keepdims=True) -> others.sum(0)
        these are differences of counts: make shares of the client's counts and of the
        others' before you compare
            p - q -> counts - others
            p - q -> 2 * (counts - others)
        the differences are squared: take them without their signs, and halve their sum
            abs(p - q).sum(1) / 2 -> ((p - q) ** 2).sum(1)
            abs(p - q) -> ((p - q) ** 2)
            abs(p - q).sum(1) / 2 -> ((p - q) ** 2).sum(1) ** 0.5
        the differences cancel: add them up without their signs
            abs(p -> (p
        add up the differences of all labels, and halve the sum: take neither the
        largest nor the mean
            abs(p - q).sum(1) / 2 -> abs(p - q).max(1)
            abs(p - q).sum(1) / 2 -> abs(p - q).mean(1)
        this is what they have in common: the distance is 1 less that
            abs(p - q).sum(1) / 2 -> np.minimum(p, q).sum(1)
        this is one number: return one for each client
            abs(p - q).sum(1) / 2 -> abs(p - q).sum(1).mean() / 2
            abs(p - q).sum(1) / 2 -> abs(p - q).sum(1).max() / 2
        these are sums over clients, one for each label: add up over labels, for each
        client
            abs(p - q).sum(1) -> abs(p - q).sum(0)
    """,
    otherwise="the result should be one distance for each client",
)

# ---------------------------------------------------------------------- 2.3 share_out

SEEDS = (0, 1, 2, 3, 0)


def play_shares(answer: Attempt, labels: list[int], shares: list[float]) -> Iterator:
    """Yield what every partitioning into shares must be, under several seeds."""
    results = []
    for seed in SEEDS:
        got = answer(labels, shares, seed)
        if got is None:
            require_kind(got, labels)
        parts = [listed(part) for part in as_row(got)]
        kinds = sorted({kind_of(part) for part in parts})
        yield "what comes back", f"{len(parts)} of {kinds}"
        flat = [listed(row) for row in chain(*parts)] if kinds == ["list"] else []
        yield "what is in it", sorted({kind_of(row) for row in flat})
        if len(parts) != len(shares) or {kind_of(row) for row in flat} != {"int"}:
            return
        times, rows = Counter(map(int, flat)), range(len(labels))
        yield "most often that a row is given out", max(times.values())
        yield "rows that nobody gets", len(set(rows) - set(times))
        yield "rows given out", sorted(times.elements())
        if sorted(flat) != list(rows):
            return
        results.append([[int(row) for row in part] for part in parts])
    yield "rows of each label, by client", misfit(results, labels, shares)
    yield "the same lists by the same seed", results[0] == results[-1]
    sets = [[set(rows) for rows in rows_of] for rows_of in results]
    yield "other rows by another seed", all(a != b for a, b in pairwise(sets))


def listed(value: Any) -> Any:
    """Turn an array, a tensor or a tuple into lists; leave anything else."""
    if isinstance(value, np.ndarray | torch.Tensor):
        value = value.tolist()
    return list(value) if isinstance(value, tuple) else value


def kind_of(value: Any) -> str:
    """Return the name of a type, whichever library's it is."""
    return "int" if isinstance(value, np.integer) else type(value).__name__


def misfit(results: list[list], labels: list[int], shares: list[float]) -> Any:
    """Return how rows are shared out, unless each client has its share of each label.

    That is a list for each label, or the word chance where it depends on the seed.
    """
    held = [[Counter(labels[row] for row in rows) for rows in r] for r in results]
    tables = [{n: [own[n] for own in each] for n in sorted(labels)} for each in held]
    off = [
        abs(count - share * labels.count(label))
        for table in tables
        for label, column in table.items()
        for count, share in zip(column, shares, strict=True)
    ]
    if max(off) <= 1 + 1e-6:
        return "its share of each, off by one at most"
    return tables[0] if all(table == tables[0] for table in tables) else "by chance"


def share_out(labels: list[int], shares: list[float], seed: int) -> list[list[int]]:
    """Cut the rows of each label where the shares added up say: the oracle."""
    rng = random.Random(seed)
    held = dict.fromkeys(labels)
    rows_of: list[list[int]] = [[] for _ in shares]
    for label in held:
        rows = [row for row, own in enumerate(labels) if own == label]
        rng.shuffle(rows)
        n = len(rows)
        cuts = [n * end for end in accumulate(shares)]
        ends = [round(cut) for cut in cuts]
        for client, a, b in zip(rows_of, [0, *ends], ends, strict=False):
            client.extend(rows[a:b])
    return rows_of


def random_shares(rng: random.Random) -> Case:
    """Draw labels, one of them rare, and shares that are nobody's in particular."""
    rare, *numbers = rng.sample(range(20), 6)
    labels = [rare, *(n for n in numbers for _ in range(rng.randint(15, 60)))]
    rng.shuffle(labels)
    weights = [rng.randint(2, 20) for _ in range(rng.randint(3, 5))]
    return Case(labels, [weight / sum(weights) for weight in weights])


SHARE_OUT = Exercise(
    "2.3",
    "you can make clients differ in size, and in nothing else.",
    cases=[
        Case(
            [2] * 16 + [7] * 8,
            [0.625, 0.25, 0.125],
            gives={"rows that nobody gets": 0, "most often that a row is given out": 1},
        ),
        Case([0] * 11 + [1] * 9, [1 / 6] * 6),  # no share is a whole number
        # The shares' sum is a little below 1, and one client gets nothing.
        Case([0, 1] * 14, [0.1] * 5 + [0.0] + [0.1] * 5),
    ],
    draw=random_shares,
    play=play_shares,
    oracle=share_out,
    mistakes="""
        this is one number for each row: return the rows of each client
            return rows_of -> return labels
        this is one list for each label: collect the rows by client
            for _ in shares -> for _ in held
        a client's rows are lists in a list: extend it, don't append to it
            client.extend -> client.append
        these are masks, true or false: return the numbers of the rows
            (rows[a:b]) -> (row in rows[a:b] for row in labels)
        these are labels: return the numbers of the rows
            (rows[a:b]) -> (labels[row] for row in rows[a:b])
        rows are numbered from 0: the first is row 0
            (rows[a:b]) -> (row + 1 for row in rows[a:b])
        all clients share one list: [[]] * n is one list, n times, and [[] for _ in
        shares] makes n
            [[] for _ in shares] -> [[]] * len(shares)
        each row goes to exactly one client, so a piece begins where the one before it
        has ended
            (rows[a:b]) -> (rows[a : b + 1])
            (rows[a:b]) -> (rows[:b])
            (rows[a:b]) -> (rng.choices(rows, k=b - a))
            (rows[a:b]) -> (rng.sample(rows, b - a))
        these are places among the rows of one label: look up which rows of the whole
        stand there
            rng.shuffle(rows) -> rows = rng.sample(range(len(rows)), len(rows))
        nobody gets a row of some label: go through all labels that occur, which need
        not be 0, 1, 2 and so on
            for label in held -> for label in range(len(held))
        what rounding down leaves over is lost, so let the last piece of each label end
        with its last row
            round(cut) -> int(cut)
            n * end for end in accumulate(shares) -> int(n * share) for share in shares
            & round(cut) for cut in cuts -> end for end in accumulate(cuts)
        the last pieces are missing: what follows the last cut is a piece
            for cut in cuts -> for cut in cuts[:-1]
        each client's number of rows is rounded by itself, so that the last clients get
        too many or too few: round where to cut
            cuts = [ -> sizes = [int(n * s) for s in shares[:-1]]; cuts = [
            & [round(cut) for cut in cuts] -> [*accumulate(sizes), n]
            cuts = [ -> sizes = [round(n * s) for s in shares[:-1]]; cuts = [
            & [round(cut) for cut in cuts] -> [*accumulate(sizes), n]
        every client gets the same number of rows: cut by the shares
            accumulate(shares) -> accumulate([1 / len(shares)] * len(shares))
        the shares are in reverse: the first is client 0's
            accumulate(shares) -> accumulate(shares[::-1])
        each client gets the next rows, whatever their label: cut the rows of each label
        by themselves
            for label in held -> for label in [0]
            & own == label -> True
            & rng.shuffle(rows) -> pass
        how many rows of a label a client gets is left to chance: cut the rows of each
        label by themselves, by the shares
            for label in held -> for label in [0]
            & own == label -> True
            accumulate(shares) -> [*sorted(rng.random() for _ in shares[1:]), 1]
        each label goes to one client as a whole: cut its rows by the shares
            for label in held -> for i, label in enumerate(held)
            & accumulate(shares) -> [k >= i % len(shares) for k in range(len(shares))]
        all seeds give the same rows of a label: shuffle them before you cut, by a
        generator that is made from the seed
            rng.shuffle(rows) -> pass
        the same seed gives other lists when it is called again: make a new generator
        from the seed, inside the function
            random.Random(seed) -> random.Random()
    """,
    otherwise={
        "what comes back": "return a list, with one list of row numbers for each "
        "client",
        "what is in it": "row numbers must be whole numbers (int)",
        "most often that a row is given out": "each row goes to exactly one client",
        "rows that nobody gets": "every row goes to a client",
        "rows given out": "there are no such rows: the first is row 0",
        "rows of each label, by client": "of each label, a client gets its share of "
        "the rows, off by one at most",
        "other rows by another seed": "another seed should give the clients other rows",
    },
)
