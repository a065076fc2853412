"""Judges of lesson 02's exercises."""

import math
import operator
import random
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from itertools import chain
from typing import Any

import numpy as np
import torch

from course_utils.exercises import Attempt, Wrong, exercise, require_kind

# ------------------------------------------------------------------- 2.1 count_labels


def counted(labels: list[int], num_classes: int) -> list[int]:
    """Look every label up: the oracle."""
    found = Counter(labels)
    return [found[label] for label in range(num_classes)]


COUNTING_MISTAKES = {
    "labels that the client does not hold are left out: each needs its 0": (
        lambda labels, _: [n for _, n in sorted(Counter(labels).items())]
    ),
    "labels that the client does not hold are left out, and the others stand in the "
    "order in which they occur: position k is for label k": (
        lambda labels, _: list(Counter(labels).values())
    ),
    "the list ends at the largest label that the client holds: its length is the "
    "number of classes": lambda labels, _: counted(labels, max(labels) + 1),
    "labels start at 0: the list's first number is for label 0": (
        lambda labels, num_classes: counted(labels, num_classes + 1)[1:]
    ),
    "label 0 has position 0: the list is one too long at the start": (
        lambda labels, num_classes: [0, *counted(labels, num_classes)]
    ),
    "the list is one too long: the last label is the number of classes less 1": (
        lambda labels, num_classes: counted(labels, num_classes + 1)
    ),
    "these are shares: return the counts themselves": (
        lambda labels, num_classes: [
            n / len(labels) for n in counted(labels, num_classes)
        ]
    ),
    "this says which labels occur, not how often": (
        lambda labels, num_classes: [min(n, 1) for n in counted(labels, num_classes)]
    ),
    "these are the labels that occur: count how often each does": (
        lambda labels, _: sorted(set(labels))
    ),
    "this is one number for all labels: return one for each": (
        lambda labels, _: len(labels)
    ),
    "this is the number of different labels: count the examples of each": (
        lambda labels, _: len(set(labels))
    ),
    "the counts are sorted by size: position k is for label k": (
        lambda labels, num_classes: sorted(counted(labels, num_classes), reverse=True)
    ),
}


@exercise("2.1", "you can count what a client holds, and what it lacks.")
def judge_count_labels(answer: Attempt, rng: random.Random) -> None:
    """Compare on hand cases that lack labels, and on random labels."""
    cases = [([3, 1, 3, 5, 5, 5], 7), ([2, 0, 0], 3), ([0], 4)]
    for _ in range(3):
        num_classes = rng.randint(5, 12)
        held = rng.sample(range(num_classes), rng.randint(2, 4))
        cases.append((rng.choices(held, k=rng.randint(5, 40)), num_classes))
    for case in cases:
        answer.compare(
            counted,
            *case,
            mistakes=COUNTING_MISTAKES,
            wanted="one count for each label, in the order of the labels",
        )


# ----------------------------------------------------------- 2.2 distance_from_others

Shares = list[Fraction]


def exact_shares(counts: list[int]) -> Shares:
    """Return counts as shares of their sum, without rounding."""
    return [Fraction(n, sum(counts)) for n in counts]


def all_others(table: list[list[int]], client: int) -> list[int]:
    """Count what all clients but one hold of each label."""
    rest = table[:client] + table[client + 1 :]
    return [sum(column) for column in zip(*rest, strict=True)]


def overlap_distance(a: Shares, b: Shares) -> float:
    """Return what two lists of shares do not have in common."""
    return float(1 - sum(map(min, a, b)))


def from_others(counts: np.ndarray, measure: Callable = overlap_distance) -> list:
    """Measure each client's shares against those of the others: the oracle."""
    table = counts.tolist()
    return [
        measure(exact_shares(own), exact_shares(all_others(table, i)))
        for i, own in enumerate(table)
    ]


def from_one(reference: Callable) -> Callable:
    """Measure each client's shares against a reference that is the same for all."""

    def measure(counts: np.ndarray) -> list:
        table = counts.tolist()
        shares = reference(table)
        return [overlap_distance(exact_shares(own), shares) for own in table]

    return measure


def mean_shares(table: list[list[int]]) -> Shares:
    """Average the shares of clients, each of which counts the same."""
    columns = zip(*map(exact_shares, table), strict=True)
    return [sum(column) / len(table) for column in columns]


def from_mean_of_others(counts: np.ndarray) -> list:
    """Measure each client's shares against the plain mean of the others' shares."""
    table = counts.tolist()
    return [
        overlap_distance(exact_shares(own), mean_shares(table[:i] + table[i + 1 :]))
        for i, own in enumerate(table)
    ]


def in_counts(counts: np.ndarray, factor: float) -> list:
    """Take the differences of counts in place of shares."""
    others = counts.sum(axis=0) - counts
    return list(factor * np.abs(counts - others).sum(axis=1))


def mean_of_pairs(counts: np.ndarray) -> list:
    """Average each client's distances from every other client."""
    shares = [exact_shares(own) for own in counts.tolist()]
    return [
        sum(overlap_distance(a, b) for j, b in enumerate(shares) if j != i)
        / (len(shares) - 1)
        for i, a in enumerate(shares)
    ]


def squares(a: Shares, b: Shares) -> float:
    """Add up the squared differences."""
    return float(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def largest_difference(a: Shares, b: Shares) -> float:
    """Take one label's difference."""
    return float(max(abs(x - y) for x, y in zip(a, b, strict=True)))


FROM_THE_WHOLE = from_one(
    lambda table: exact_shares([sum(column) for column in zip(*table, strict=True)])
)

DISTANCE_MISTAKES = {
    "this is the distance from the whole, of which the client is a part: leave the "
    "client out of what you compare it with": FROM_THE_WHOLE,
    "the half is missing: every example that changes its label lowers one share and "
    "raises another": lambda counts: [2 * d for d in from_others(counts)],
    "add up the others' counts before you make shares: in a mean of their shares, a "
    "small client weighs as much as a large one": from_mean_of_others,
    "this is the mean of the distances from each other client: put the others "
    "together first, then compare once": mean_of_pairs,
    "the client is compared with evenly spread labels: at distance 0 it is like the "
    "others, not evenly spread": from_one(
        lambda table: [Fraction(1, len(table[0]))] * len(table[0])
    ),
    "these are differences of counts: make shares of the client's counts and of the "
    "others' before you compare": lambda counts: in_counts(counts, 0.5),
    "these are differences of counts, and the half is missing: make shares of the "
    "client's counts and of the others' first": lambda counts: in_counts(counts, 1),
    "the differences are squared: take them without their signs": (
        lambda counts: from_others(counts, squares)
    ),
    "half the squared differences: take the differences without their signs": (
        lambda counts: [d / 2 for d in from_others(counts, squares)]
    ),
    "this is the root of the squared differences: take half the sum of the "
    "differences without their signs": (
        lambda counts: [d**0.5 for d in from_others(counts, squares)]
    ),
    "the differences cancel: add them up without their signs": (
        lambda counts: [0.0] * len(counts)
    ),
    "this is the largest difference of a label: add up all of them, and halve": (
        lambda counts: from_others(counts, largest_difference)
    ),
    "this is a mean: the sum of the differences is halved, whatever the number of "
    "labels": lambda counts: [2 * d / counts.shape[1] for d in from_others(counts)],
    "this is what they have in common: the distance is 1 less that": (
        lambda counts: [1 - d for d in from_others(counts)]
    ),
    "this is one number, the mean: return one for each client": (
        lambda counts: float(np.mean(from_others(counts)))
    ),
    "this is one number, the largest: return one for each client": (
        lambda counts: max(from_others(counts))
    ),
}


def random_counts(rng: random.Random) -> np.ndarray:
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
    return np.array(table)


@exercise("2.2", "you have a skew that a client's own size does not hide.")
def judge_distance_from_others(answer: Attempt, rng: random.Random) -> None:
    """Compare on hand cases and on random counts, with exact fractions."""
    by_hand = (
        [[4, 4], [6, 2], [8, 0]],
        [[4, 0, 0, 0], [2, 2, 2, 2], [0, 2, 0, 2]],
        [[5, 0, 0], [0, 2, 1]],
        [[1, 0, 0], [50, 0, 50], [0, 3, 0], [2, 2, 0]],
    )
    for counts in (*map(np.array, by_hand), *(random_counts(rng) for _ in range(3))):
        answer.compare(
            from_others,
            counts,
            mistakes=DISTANCE_MISTAKES,
            wanted="one distance for each client",
        )


# ---------------------------------------------------------------------- 2.3 share_out

Rows = list[list[int]]
Table = dict[int, list[int]]

SEEDS = (0, 1, 2, 3)


def listed(value: Any) -> Any:
    """Turn an array or a tensor into lists; leave anything else."""
    return value.tolist() if isinstance(value, np.ndarray | torch.Tensor) else value


def row_numbers(got: Any, labels: list[int], clients: int) -> Rows:
    """Return what an answer returned as lists of int, or raise Wrong."""
    wanted = "return a list, with one list of row numbers for each client"
    require_kind(got, None)  # says what to do about None
    parts = listed(got)
    if not isinstance(parts, list | tuple):
        raise Wrong(wanted)
    parts = [listed(part) for part in parts]
    are_lists = [isinstance(part, list | tuple) for part in parts]
    if not any(are_lists) and len(parts) == len(labels):
        raise Wrong("this says whose each row is: return the rows of each client")
    if not all(are_lists):
        raise Wrong(wanted)
    if len(parts) != clients and len(parts) == len(set(labels)):
        raise Wrong("this is one list for each label: collect the rows by client")
    if len(parts) != clients:
        raise Wrong(f"there must be {clients} lists, one a client, not {len(parts)}")
    rows = [[listed(row) for row in part] for part in parts]
    flat = list(chain.from_iterable(rows))
    if any(isinstance(row, list | tuple) for row in flat):
        raise Wrong(
            "a client's rows are lists in a list: extend it, don't append to it"
        )
    if any(isinstance(row, bool | np.bool_) for row in flat):
        raise Wrong("these are masks, true or false: return the numbers of the rows")
    try:
        return [[operator.index(row) for row in part] for part in rows]
    except Exception:
        raise Wrong("row numbers must be whole numbers (int)") from None


def require_cover(rows_of: Rows, labels: list[int]) -> None:
    """Raise Wrong unless every row goes to exactly one client."""
    given = sorted(chain.from_iterable(rows_of))
    every = list(range(len(labels)))
    if given == every:
        return
    if given == sorted(labels):
        raise Wrong("these are labels: return the numbers of the rows")
    if given == [row + 1 for row in every]:
        raise Wrong("rows are numbered from 0: the first is row 0")
    if given == sorted(chain(*map(range, Counter(labels).values()))):
        raise Wrong(
            "these are places among the rows of one label: look up which rows of the "
            "whole stand there"
        )
    for row, times in Counter(given).items():
        if row not in every:
            raise Wrong(f"there is no row {row}: the last one is row {every[-1]}")
        if times > 1:
            raise Wrong(
                f"row {row} is given out {times} times: each row goes to exactly one "
                "client, so a piece begins where the one before it has ended"
            )
    lost = [row for row in every if row not in given]
    for label in sorted(set(labels)):
        if {row for row in every if labels[row] == label} <= set(lost):
            raise Wrong(
                f"nobody gets a row of label {label}: go through all labels that "
                "occur, which need not be 0, 1, 2 and so on"
            )
    others = f" (nor {len(lost) - 1} others)" if len(lost) > 1 else ""
    raise Wrong(
        f"no client gets row {lost[0]}{others}: what rounding down leaves over is "
        "lost, so let the last piece of each label end with its last row"
    )


def counts_by_label(rows_of: Rows, labels: list[int]) -> Table:
    """Count how many rows of each label every client has."""
    held = [Counter(labels[row] for row in rows) for rows in rows_of]
    return {label: [own[label] for own in held] for label in sorted(set(labels))}


def is_off(n: int, share: float, total: int) -> bool:
    """Whether a number of rows is further than one from a share of them."""
    return abs(n - share * total) > 1 + 1e-6


def fits(column: list[int], shares: list[float]) -> bool:
    """Whether each client has its share of some rows, off by one at most."""
    total = sum(column)
    return not any(is_off(n, s, total) for n, s in zip(column, shares, strict=True))


def one_by_one(total: int, shares: list[float], rounded: Callable) -> list[int]:
    """Give each client its own rounded number of rows, until none is left."""
    column = []
    for share in shares:
        column.append(min(rounded(share * total), total - sum(column)))
    return column


def require_shares(results: list[Rows], labels: list[int], shares: list[float]) -> None:
    """Raise Wrong unless each client has its share of each label, under all seeds."""
    tables = [counts_by_label(rows_of, labels) for rows_of in results]
    misfit = [t for t in tables if not all(fits(c, shares) for c in t.values())]
    if not misfit:
        return
    exact = {
        label: [round(share * total, 2) for share in shares]
        for label, total in sorted(Counter(labels).items())
    }
    raise Wrong(
        why_unfit(results, tables, misfit[0], shares),
        given=f"{len(labels)} rows, shares {show_shares(shares)}",
        expected=f"rows of each label, by client: {exact}",
        got=f"rows of each label, by client: {misfit[0]}",
    )


def show_shares(shares: list[float]) -> list[float]:
    """Round shares for a sentence."""
    return [round(share, 3) for share in shares]


def why_unfit(
    results: list[Rows], tables: list[Table], table: Table, shares: list[float]
) -> str:
    """Name what is wrong with numbers of rows that are not the clients' shares."""
    clients, columns = len(shares), list(table.values())
    if all(fits(list(map(len, rows_of)), shares) for rows_of in results):
        reason = (
            "the clients' numbers of rows are right, but not their shares of each "
            "label: cut the rows of each label by themselves"
        )
        if all(is_slice(rows) for rows_of in results for rows in rows_of):
            return f"each client gets the next rows, whatever their label; {reason}"
        return reason
    if all(column.count(0) == clients - 1 for column in columns):
        return "each label goes to one client as a whole: cut its rows by the shares"
    if all(fits(column, [1 / clients] * clients) for column in columns):
        return "every client gets the same number of rows: cut by the shares"
    if all(fits(column, shares[::-1]) for column in columns):
        return "the shares are in reverse: the first is client 0's"
    if any(other != table for other in tables):
        return (
            "another seed gives a client another number of rows: draw which rows it "
            "gets, not how many"
        )
    for client in range(clients):
        others = shares[:client] + shares[client + 1 :]
        if all(
            column[:client] + column[client + 1 :]
            == [int(share * sum(column) + 1e-9) for share in others]
            for column in columns
        ):
            return (
                f"all that rounding down leaves over goes to client {client}: round "
                "where to cut, not how many rows each client gets"
            )
    for rounded in (round, math.ceil):
        if all(
            column == one_by_one(sum(column), shares, rounded) for column in columns
        ):
            return (
                "each client's number of rows is rounded by itself, and the last "
                "clients go short: round where to cut, not how many rows each gets"
            )
    return next(
        f"client {client} gets {n} of the {sum(column)} rows of label {label}; its "
        f"share of them is {shares[client] * sum(column):.4g}"
        for label, column in table.items()
        for client, n in enumerate(column)
        if is_off(n, shares[client], sum(column))
    )


def is_slice(rows: list[int]) -> bool:
    """Whether rows are next to each other."""
    return not rows or sorted(rows) == list(range(min(rows), max(rows) + 1))


def require_draws(results: list[Rows], labels: list[int]) -> None:
    """Raise Wrong unless each seed gives the clients other rows of each label."""
    for label, total in sorted(Counter(labels).items()):
        where = [row for row, own in enumerate(labels) if own == label]
        drawn = [
            [[k for k, row in enumerate(where) if row in set(rows)] for rows in rows_of]
            for rows_of in results
        ]
        if total < 8 or any(other != drawn[0] for other in drawn):
            continue  # of a few rows, two seeds may well draw the same
        if all(map(is_slice, drawn[0])):
            raise Wrong(
                f"each client gets the next rows of label {label}, whatever the seed: "
                "shuffle them before you cut"
            )
        raise Wrong(
            f"all seeds give the same rows of label {label}: make the generator that "
            "shuffles from the seed"
        )


def random_case(rng: random.Random) -> tuple[list[int], list[float]]:
    """Draw labels, one of them rare, and shares that are nobody's in particular."""
    numbers = rng.sample(range(20), 6)
    labels = [n for n in numbers[1:] for _ in range(rng.randint(15, 60))]
    labels.append(numbers[0])
    rng.shuffle(labels)
    weights = [rng.randint(2, 20) for _ in range(rng.randint(3, 5))]
    return labels, [weight / sum(weights) for weight in weights]


@exercise("2.3", "you can make clients differ in size, and in nothing else.")
def judge_share_out(answer: Attempt, rng: random.Random) -> None:
    """Look at what every partitioning into shares must be, under several seeds."""
    by_hand = (
        ([2] * 16 + [7] * 8, [0.625, 0.25, 0.125]),
        ([0] * 11 + [1] * 9, [1 / 6] * 6),  # no share is a whole number
        ([0, 1] * 14, [0.1] * 10),  # whose sum is a little below 1
    )
    for labels, shares in (*by_hand, random_case(rng), random_case(rng)):
        results = []
        for seed in (*SEEDS, SEEDS[0]):
            case = (labels, shares, seed)
            got = answer(*case)
            try:
                got = row_numbers(got, labels, len(shares))
                require_cover(got, labels)
            except Wrong as wrong:
                wanted = f"every row once, in {len(shares)} lists"
                raise Wrong(str(wrong), given=case, expected=wanted, got=got) from None
            results.append(got)
        require_shares(results, labels, shares)
        if results[-1] != results[0]:
            raise Wrong(
                "the same seed gives other lists when it is called again: make a new "
                "generator from the seed, inside the function",
                given=case,
                expected=results[0],
                got=results[-1],
            )
        try:
            require_draws(results, labels)
        except Wrong as wrong:
            raise Wrong(str(wrong), given=case, got=results[0]) from None
