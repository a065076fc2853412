"""Lesson 02's exercises."""

import random
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate, chain
from typing import Any

import numpy as np
import torch

from course_utils.exercises.engine import (
    Attempt,
    Case,
    Exercise,
    as_row,
    require_kind,
)

# ------------------------------------------------------------------- 2.1 count_labels


def count_labels(labels: list[int], num_classes: int) -> list[int]:
    """Look every label up: the oracle."""
    found = Counter(labels)
    held = range(num_classes)
    return [found[label] for label in held]


def random_labels(rng: random.Random) -> Case:
    """Draw labels, of which most do not occur."""
    num_classes = rng.randint(5, 12)
    held = rng.sample(range(num_classes), rng.randint(2, 4))
    return Case(rng.choices(held, k=rng.randint(5, 40)), num_classes)


COUNT_LABELS = Exercise(
    "2.1",
    "you can count what a client holds, and what it lacks.",
    cases=[
        Case([3, 1, 3, 5, 5, 5], 7, gives=[0, 1, 0, 2, 0, 3, 0]),
        Case([2, 0, 0], 3, gives=[2, 0, 1]),
        Case([0], 4, gives=[1, 0, 0, 0]),
        Case([], 3, gives=[0, 0, 0], shown="([], 3): a client without examples"),
    ],
    draw=random_labels,
    oracle=count_labels,
    mistakes="""
        labels that the client does not hold are left out: each needs its 0
            range(num_classes) -> sorted(found)
        labels that the client does not hold are left out, and the others stand in the
        order in which they occur: position k is for label k
            range(num_classes) -> found
        the list ends at the largest label that the client holds: its length is the
        number of classes
            range(num_classes) -> range(max(labels) + 1)
        labels start at 0: the list's first number is for label 0
            range(num_classes) -> range(1, num_classes + 1)
        label 0 has position 0: the list is one too long at the start
            range(num_classes) -> range(-1, num_classes)
        the list is one too long: the last label is the number of classes less 1
            range(num_classes) -> range(num_classes + 1)
        the list is one too short: the last label is the number of classes less 1
            range(num_classes) -> range(num_classes - 1)
        these are shares: return the counts themselves
            [found[label] -> [found[label] / len(labels)
        this says which labels occur, not how often
            [found[label] -> [float(label in found)
        these are the labels that occur: count how often each does
            [found[label] for label in held] -> sorted(found)
        this is one number for all labels: return one for each
            [found[label] for label in held] -> len(labels)
        this is the number of different labels: count the examples of each
            [found[label] for label in held] -> len(found)
        the counts are sorted by size: position k is for label k
            [found[label] for label in held] -> sorted((found[n] for n in held))[::-1]
    """,
    otherwise="the result should be one count for each label, in the order of the "
    "labels",
)

# ----------------------------------------------------------- 2.2 distance_from_others


def measure(counts: np.ndarray) -> np.ndarray:
    """Measure row by row: the oracle."""
    others = counts.sum(0) - counts
    p = counts / counts.sum(1, keepdims=True)
    q = others / others.sum(1, keepdims=True)
    return abs(p - q).sum(1) / 2


def mean_of_pairs(counts: np.ndarray) -> np.ndarray:
    """Average each client's distances from every other client."""
    shares = counts / counts.sum(1, keepdims=True)
    pairs = np.abs(shares[:, None] - shares[None]).sum(2) / 2
    return pairs.sum(1) / (len(shares) - 1)


def random_counts(rng: random.Random) -> Case:
    """Draw label counts of clients that differ in size; none is without examples."""
    clients, labels = rng.sample(range(3, 8), 2)
    table = [
        [
            rng.choice((0, 1)) * rng.randint(1, 10 ** rng.randint(1, 3))
            for _ in range(labels)
        ]
        for _ in range(clients)
    ]
    for row in table:
        row[rng.randrange(labels)] += rng.randint(1, 9)
    return Case(np.array(table))


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
        add up the others' counts before you make shares: in a mean of their shares, a
        small client weighs as much as a large one
            q = others -> others = p.sum(0) - p; q = others
            q = others -> others = p.sum(0) - p; q = others
            & / 2 ->
        this is the mean of the distances from each other client: put the others
        together first, then compare once
            mean_of_pairs
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
        these are differences of counts, and the half is missing: make shares of the
        client's counts and of the others' first
            p - q -> 2 * (counts - others)
        the differences are squared: take them without their signs
            abs(p - q).sum(1) / 2 -> ((p - q) ** 2).sum(1)
        half the squared differences: take the differences without their signs
            abs(p - q) -> ((p - q) ** 2)
        this is the root of the squared differences: take half the sum of the
        differences without their signs
            abs(p - q).sum(1) / 2 -> ((p - q) ** 2).sum(1) ** 0.5
        the differences cancel: add them up without their signs
            abs(p -> (p
        this is the largest difference of a label: add up all of them, and halve
            abs(p - q).sum(1) / 2 -> abs(p - q).max(1)
        this is a mean: the sum of the differences is halved, whatever the number of
        labels
            abs(p - q).sum(1) / 2 -> abs(p - q).mean(1)
        this is what they have in common: the distance is 1 less that
            abs(p - q).sum(1) / 2 -> np.minimum(p, q).sum(1)
        this is one number, the mean: return one for each client
            abs(p - q).sum(1) / 2 -> abs(p - q).sum(1).mean() / 2
        this is one number, the largest: return one for each client
            abs(p - q).sum(1) / 2 -> abs(p - q).sum(1).max() / 2
        these are sums over clients, one for each label: add up over labels, for each
        client
            abs(p - q).sum(1) -> abs(p - q).sum(0)
        your function changed what it was given: work on a copy
            others = -> counts -= counts.sum(0); others =
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
        are_lists = bool(parts) and all(isinstance(p, list | tuple) for p in parts)
        count = f"{len(parts)} {'lists' if are_lists else kind_of(got)}"
        yield "what comes back", count
        flat = [listed(row) for row in chain(*parts)] if are_lists else []
        yield "what is in it", sorted({kind_of(row) for row in flat})
        if count != f"{len(shares)} lists" or {kind_of(row) for row in flat} - {"int"}:
            return
        times = Counter(map(int, flat))
        yield "most often that a row is given out", max(times.values(), default=0)
        yield "rows that nobody gets", len(set(range(len(labels))) - set(times))
        yield "rows given out", sorted(times.elements())
        if sorted(times.elements()) != list(range(len(labels))):
            return
        results.append([[int(row) for row in part] for part in parts])
    yield "rows of each label, by client", misfit(results, labels, shares)
    yield "the same lists by the same seed", results[0] == results[-1]
    yield "what each client gets of a label", draws(results, labels)


def listed(value: Any) -> Any:
    """Turn an array or a tensor into lists; leave anything else."""
    return value.tolist() if isinstance(value, np.ndarray | torch.Tensor) else value


def kind_of(value: Any) -> str:
    """Return the name of a type, whichever library's it is."""
    name = type(value).__name__
    return "int" if isinstance(value, np.integer) else name.removesuffix("_")


def table_of(rows_of: list[list[int]], labels: list[int]) -> dict[int, list[int]]:
    """Count how many rows of each label every client has."""
    held = [Counter(labels[row] for row in rows) for rows in rows_of]
    return {label: [own[label] for own in held] for label in sorted(set(labels))}


def fits(column: list[int], shares: list[float]) -> bool:
    """Whether each client has its share of some rows, off by one at most."""
    total = sum(column)
    pairs = zip(column, shares, strict=True)
    return all(abs(n - share * total) <= 1 + 1e-6 for n, share in pairs)


def misfit(results: list[list], labels: list[int], shares: list[float]) -> Any:
    """Return how rows are shared out under the first seed for which that is wrong."""
    tables = [table_of(rows_of, labels) for rows_of in results]
    wrong = [t for t in tables if not all(fits(c, shares) for c in t.values())]
    if not wrong:
        return "its share of each"
    if all(table == tables[0] for table in tables):
        return wrong[0]
    sizes = [list(map(len, rows_of)) for rows_of in results]
    kept = all(fits(column, shares) for column in sizes)
    return "by chance, as many as its share in all" if kept else "by chance"


def draws(results: list[list], labels: list[int]) -> str:
    """Return whether each seed gives the clients other rows of each label."""
    for label, total in Counter(labels).items():
        where = [row for row, own in enumerate(labels) if own == label]
        drawn = [
            [[k for k, row in enumerate(where) if row in set(rows)] for rows in rows_of]
            for rows_of in results
        ]
        if total < 8 or any(other != drawn[0] for other in drawn):
            continue  # of a few rows, two seeds may well draw the same
        ordered = all(k == list(range(k[0], k[-1] + 1)) for k in drawn[0] if k)
        return (
            "the next rows, whatever the seed" if ordered else "the same by all seeds"
        )
    return "other rows by another seed"


def rows_by_label(labels: list[int]) -> dict[int, list[int]]:
    """Collect the rows of each label."""
    rows: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    return rows


def share_out(labels: list[int], shares: list[float], seed: int) -> list[list[int]]:
    """Cut the rows of each label where the shares added up say: the oracle."""
    rng = random.Random(seed)
    rows_of: list[list[int]] = [[] for _ in shares]
    by = rows_by_label(labels)
    groups = by.values()
    for rows in groups:
        rng.shuffle(rows)
        n = len(rows)
        cuts = [n * end for end in accumulate(shares)]
        ends = [round(cut) for cut in cuts]
        for own, a, b in zip(rows_of, [0, *ends], ends, strict=False):
            own.extend(rows[a:b])
    return rows_of


def by_client(rows_of: list[list[int]], labels: list[int]) -> list[int]:
    """Return whose each row is."""
    return [
        next(i for i, r in enumerate(rows_of) if n in r) for n in range(len(labels))
    ]


def random_shares(rng: random.Random) -> Case:
    """Draw labels, one of them rare, and shares that are nobody's in particular."""
    numbers = rng.sample(range(20), 6)
    labels = [n for n in numbers[1:] for _ in range(rng.randint(15, 60))]
    labels.append(numbers[0])
    rng.shuffle(labels)
    weights = [rng.randint(2, 20) for _ in range(rng.randint(3, 5))]
    return Case(labels, [weight / sum(weights) for weight in weights])


def client_by_client(labels: list[int], shares: list[float], seed: int) -> list:
    """Draw a client for each row."""
    rng = random.Random(seed)
    clients = rng.choices(range(len(shares)), shares, k=len(labels))
    return [
        [row for row, c in enumerate(clients) if c == i] for i in range(len(shares))
    ]


EVERY_ROW = {"rows that nobody gets": 0, "most often that a row is given out": 1}

SHARE_OUT = Exercise(
    "2.3",
    "you can make clients differ in size, and in nothing else.",
    cases=[
        Case([2] * 16 + [7] * 8, [0.625, 0.25, 0.125], gives=EVERY_ROW),
        # No share is a whole number.
        Case([0] * 11 + [1] * 9, [1 / 6] * 6, gives=EVERY_ROW),
        # The shares' sum is a little below 1.
        Case([0, 1] * 14, [0.1] * 10, gives=EVERY_ROW),
    ],
    draw=random_shares,
    play=play_shares,
    oracle=share_out,
    mistakes="""
        this says whose each row is: return the rows of each client
            return rows_of -> return by_client(rows_of, labels)
            return rows_of -> return np.array(by_client(rows_of, labels))
        this is one list for each label: collect the rows by client
            return rows_of -> return list(rows_by_label(labels).values())
        a client's rows are lists in a list: extend it, don't append to it
            own.extend -> own.append
        these are masks, true or false: return the numbers of the rows
            (rows[a:b]) -> (row in rows[a:b] for row in labels)
        row numbers must be whole numbers (int)
            (rows[a:b]) -> (map(float, rows[a:b]))
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
            by.values() -> [by.get(k, []) for k in range(len(by))]
        what rounding down leaves over is lost, so let the last piece of each label end
        with its last row
            round(cut) -> int(cut)
            n * end for end in accumulate(shares) -> int(n * share) for share in shares
            & round(cut) for cut in cuts -> end for end in accumulate(cuts)
        the last pieces are missing: what follows the last cut is a piece
            for cut in cuts -> for cut in cuts[:-1]
        all that rounding down leaves over goes to the last client: round where to cut,
        not how many rows each client gets
            cuts = [ -> sizes = [int(n * s) for s in shares[:-1]]; cuts = [
            & [round(cut) for cut in cuts] -> [*accumulate(sizes), n]
        each client's number of rows is rounded by itself, and the last clients go
        short: round where to cut, not how many rows each gets
            cuts = [ -> sizes = [round(n * s) for s in shares[:-1]]; cuts = [
            & [round(cut) for cut in cuts] -> [*accumulate(sizes), n]
            cuts = [ -> sizes = [int(np.ceil(n * s)) for s in shares[:-1]]; cuts = [
            & [round(cut) for cut in cuts] -> [*accumulate(sizes), n]
        every client gets the same number of rows: cut by the shares
            accumulate(shares) -> accumulate([1 / len(shares)] * len(shares))
        the shares are in reverse: the first is client 0's
            accumulate(shares) -> accumulate(shares[::-1])
        each client gets the next rows, whatever their label: cut the rows of each label
        by themselves
            by.values() -> [range(len(labels))]
            & rng.shuffle(rows) -> pass
        the clients' numbers of rows are right, but not their shares of each label: cut
        the rows of each label by themselves
            by.values() -> [list(range(len(labels)))]
        another seed gives a client another number of rows: draw which rows it gets, not
        how many
            client_by_client
        each label goes to one client as a whole: cut its rows by the shares
            for rows in groups -> for i, rows in enumerate(groups)
            & accumulate(shares) -> [k >= i % len(shares) for k in range(len(shares))]
        each client gets the next rows of a label, whatever the seed: shuffle them
        before you cut
            rng.shuffle(rows) -> pass
        all seeds give the same rows of a label: make the generator that shuffles from
        the seed
            random.Random(seed) -> random.Random(42)
        the same seed gives other lists when it is called again: make a new generator
        from the seed, inside the function
            random.Random(seed) -> random.Random()
        your function changed what it was given: work on a copy
            random.Random(seed) -> random.Random(seed); rng.shuffle(labels)
    """,
    otherwise={
        "what comes back": "return a list, with one list of row numbers for each "
        "client",
        "what is in it": "row numbers must be whole numbers (int)",
        "most often that a row is given out": "each row goes to exactly one client",
        "rows that nobody gets": "every row goes to a client",
        "rows given out": "every row goes to a client, and there are no others: the "
        "first is row 0",
        "rows of each label, by client": "of each label, a client gets its share of "
        "the rows, off by one at most",
        "the same lists by the same seed": "the same seed gives other lists when it is "
        "called again: make a new generator from the seed, inside the function",
        "what each client gets of a label": "another seed should give the clients "
        "other rows of each label",
    },
)
