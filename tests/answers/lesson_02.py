"""Wrong and right answers to lesson 02's exercises, as learners would write them."""

import random
from collections import Counter
from itertools import accumulate, pairwise

import numpy as np
import torch

from course_utils.partitions import label_distance

RIGHT = {}
WRONG = {}

# ------------------------------------------------------------------ 2.1 count_labels


def by_bincount(labels, num_classes):
    return np.bincount(labels, minlength=num_classes)


def by_list_count(labels, num_classes):
    return [labels.count(label) for label in range(num_classes)]


def by_one_hot(labels, num_classes):
    return torch.nn.functional.one_hot(torch.tensor(labels), num_classes).sum(dim=0)


def filled_in(labels, num_classes):
    counts = np.zeros(num_classes)
    values, numbers = np.unique(labels, return_counts=True)
    counts[values] = numbers
    return counts


def too_long(labels, num_classes):
    return np.bincount(labels, minlength=num_classes + 1)


RIGHT["2.1"] = [by_bincount, by_list_count, by_one_hot, filled_in]
WRONG["2.1"] = [
    (
        lambda labels, n: np.unique(labels, return_counts=True)[1],
        "left out: each needs",
    ),
    (lambda labels, n: list(Counter(labels).values()), "order in which they occur"),
    (lambda labels, n: np.bincount(labels), "ends at the largest label"),
    (lambda labels, n: dict(Counter(labels)), "should return a list"),
    (lambda labels, n: [labels.count(k) for k in range(1, n + 1)], "labels start at 0"),
    (lambda labels, n: by_bincount(labels, n) / len(labels), "these are shares"),
    (lambda labels, n: [int(k in labels) for k in range(n)], "not how often"),
    (lambda labels, n: sorted(set(labels)), "these are the labels"),
    (lambda labels, n: len(labels), "one number for all labels"),
    (lambda labels, n: len(set(labels)), "number of different labels"),
    (lambda labels, n: sorted(by_bincount(labels, n))[::-1], "sorted by size"),
    (too_long, "one too long: the last"),
    (lambda labels, n: [0, *by_list_count(labels, n)], "one too long at the start"),
]

# ---------------------------------------------------------- 2.2 distance_from_others


def from_the_distance_of_the_whole(counts):
    sizes = counts.sum(axis=1)
    return label_distance(counts) / (1 - sizes / sizes.sum())


def in_a_loop(counts):
    distances = []
    for i in range(len(counts)):
        others = np.delete(counts, i, axis=0).sum(axis=0)
        p, q = counts[i] / counts[i].sum(), others / others.sum()
        distances.append(np.maximum(p - q, 0).sum())
    return distances


def in_torch(counts):
    own = torch.from_numpy(counts).double()
    rest = own.sum(0) - own
    p, q = own / own.sum(1, keepdim=True), rest / rest.sum(1, keepdim=True)
    return 0.5 * torch.abs(p - q).sum(dim=1)


def shares_and_others(counts):
    others = counts.sum(axis=0) - counts
    return (
        counts / counts.sum(axis=1, keepdims=True),
        others / others.sum(axis=1, keepdims=True),
    )


def without_the_half(counts):
    own, others = shares_and_others(counts)
    return np.abs(own - others).sum(axis=1)


def from_mean_shares(counts):
    shares = counts / counts.sum(axis=1, keepdims=True)
    others = (shares.sum(axis=0) - shares) / (len(shares) - 1)
    return np.abs(shares - others).sum(axis=1) / 2


def from_each(counts):
    shares = counts / counts.sum(axis=1, keepdims=True)
    pairs = np.abs(shares[:, None] - shares[None]).sum(axis=2) / 2
    return pairs.sum(axis=1) / (len(shares) - 1)


def from_even(counts):
    own, _ = shares_and_others(counts)
    return np.abs(own - 1 / counts.shape[1]).sum(axis=1) / 2


def of_counts(counts):
    return np.abs(counts - (counts.sum(axis=0) - counts)).sum(axis=1) / 2


def of_counts_without_the_half(counts):
    return 2 * of_counts(counts)


def squared(counts):
    own, others = shares_and_others(counts)
    return ((own - others) ** 2).sum(axis=1)


def half_squared(counts):
    return squared(counts) / 2


def euclidean(counts):
    own, others = shares_and_others(counts)
    return np.linalg.norm(own - others, axis=1)


def signed(counts):
    own, others = shares_and_others(counts)
    return (own - others).sum(axis=1) / 2


def largest(counts):
    own, others = shares_and_others(counts)
    return np.abs(own - others).max(axis=1)


def mean_over_labels(counts):
    own, others = shares_and_others(counts)
    return np.abs(own - others).mean(axis=1)


def mean_over_clients(counts):
    return (without_the_half(counts) / 2).mean()


def in_common(counts):
    own, others = shares_and_others(counts)
    return np.minimum(own, others).sum(axis=1)


def over_clients(counts):
    own, others = shares_and_others(counts)
    return np.abs(own - others).sum(axis=0) / 2


def takes_itself_away(counts):
    counts -= counts.sum(axis=0)
    return np.abs(counts).sum(axis=1)


RIGHT["2.2"] = [from_the_distance_of_the_whole, in_a_loop, in_torch]
WRONG["2.2"] = [
    (label_distance, "distance from the whole"),
    (without_the_half, "the half is missing: every"),
    (from_mean_shares, "a small client weighs as much"),
    (from_each, "mean of the distances from each other client"),
    (from_even, "evenly spread"),
    (of_counts, "these are differences of counts: make shares"),
    (of_counts_without_the_half, "differences of counts, and the half"),
    (squared, "the differences are squared"),
    (half_squared, "half the squared differences"),
    (euclidean, "root of the squared"),
    (signed, "the differences cancel"),
    (largest, "largest difference of a label"),
    (mean_over_labels, "whatever the number of labels"),
    (mean_over_clients, "one number, the mean"),
    (lambda counts: max(without_the_half(counts) / 2), "one number, the largest"),
    (in_common, "what they have in common"),
    (over_clients, "one distance for each client"),
    (takes_itself_away, "changed what it was given"),
]

# --------------------------------------------------------------------- 2.3 share_out


def rows_by_label(labels):
    rows = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    return rows


def shuffled_by_python(labels, shares, seed):
    rng = random.Random(seed)
    rows_of = [[] for _ in shares]
    for rows in rows_by_label(labels).values():
        rng.shuffle(rows)
        ends = [round(end * len(rows)) for end in accumulate(shares)]
        for own, (a, b) in zip(rows_of, pairwise([0, *ends]), strict=True):
            own += rows[a:b]
    return rows_of


def one_permutation_then_floors(labels, shares, seed):
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    labels, rows_of = torch.tensor(labels), [[] for _ in shares]
    for label in labels.unique():
        rows = order[labels[order] == label]
        ends = [int(end * len(rows)) for end in accumulate(shares)]
        ends[-1] = len(rows)
        for client, (a, b) in enumerate(pairwise([0, *ends])):
            rows_of[client].append(rows[a:b])
    return [torch.cat(own) for own in rows_of]


def by_largest_remainder(labels, shares, seed):
    random.seed(seed)
    pieces = [[] for _ in shares]
    for rows in rows_by_label(labels).values():
        exact = [share * len(rows) for share in shares]
        sizes = [int(number) for number in exact]
        by_remainder = sorted(range(len(shares)), key=lambda i: sizes[i] - exact[i])
        for client in by_remainder[: len(rows) - sum(sizes)]:
            sizes[client] += 1
        drawn = random.sample(rows, len(rows))
        for client, size in enumerate(sizes):
            pieces[client].extend(drawn.pop() for _ in range(size))
    return tuple(np.array(own) for own in pieces)


def cut_up(rows, sizes):
    """Cut rows into pieces of so many rows, as far as they reach."""
    ends = [0, *accumulate(sizes)]
    return [rows[a:b] for a, b in pairwise(ends)]


def stratified(labels, shares, seed, *, sizes_of, shuffle=True):
    """Share out label by label; ``sizes_of(shares, total)`` may be wrong."""
    rng = random.Random(seed)
    rows_of = [[] for _ in shares]
    for rows in rows_by_label(labels).values():
        if shuffle:
            rng.shuffle(rows)
        pieces = cut_up(rows, sizes_of(shares, len(rows)))
        for own, piece in zip(rows_of, pieces, strict=True):
            own.extend(piece)
    return rows_of


def right_sizes(shares, total):
    ends = [0, *(round(end * total) for end in accumulate(shares))]
    return [b - a for a, b in pairwise(ends)]


def rounds_down(labels, shares, seed):
    def sizes(shares, total):
        return [int(share * total) for share in shares]

    return stratified(labels, shares, seed, sizes_of=sizes)


def cuts_where_rounded_down(labels, shares, seed):
    def sizes(shares, total):
        ends = [0, *(int(end * total) for end in accumulate(shares))]
        return [b - a for a, b in pairwise(ends)]

    return stratified(labels, shares, seed, sizes_of=sizes)


def leftovers_to_the_last(labels, shares, seed):
    def sizes(shares, total):
        first = [int(share * total) for share in shares[:-1]]
        return [*first, total - sum(first)]

    return stratified(labels, shares, seed, sizes_of=sizes)


def rounds_each(labels, shares, seed):
    def sizes(shares, total):
        return [round(share * total) for share in shares[:-1]] + [total]

    return stratified(labels, shares, seed, sizes_of=sizes)


def equal_pieces(labels, shares, seed):
    equal = [1 / len(shares)] * len(shares)
    return shuffled_by_python(labels, equal, seed)


def in_reverse(labels, shares, seed):
    return shuffled_by_python(labels, shares[::-1], seed)


def overlapping(labels, shares, seed):
    rng = np.random.default_rng(seed)
    rows_of = [[] for _ in shares]
    for label in set(labels):
        rows = rng.permutation(np.flatnonzero(np.array(labels) == label))
        start = 0
        for own, size in zip(rows_of, right_sizes(shares, len(rows)), strict=True):
            own.extend(rows[start : start + size + 1].tolist())
            start += size
    return rows_of


def drawn_for_each_client(labels, shares, seed):
    rng = np.random.default_rng(seed)
    rows_of = [[] for _ in shares]
    for label in set(labels):
        rows = np.flatnonzero(np.array(labels) == label)
        sizes = right_sizes(shares, len(rows))
        for own, size in zip(rows_of, sizes, strict=True):
            own.extend(rng.choice(rows, size, replace=False).tolist())
    return rows_of


def sliced(labels, shares, seed):
    return cut_up(list(range(len(labels))), right_sizes(shares, len(labels)))


def shuffled_and_sliced(labels, shares, seed):
    rows = np.random.default_rng(seed).permutation(len(labels))
    return cut_up(rows, right_sizes(shares, len(labels)))


def client_drawn_for_each_row(labels, shares, seed):
    rng = np.random.default_rng(seed)
    rows_of = [[] for _ in shares]
    for row in range(len(labels)):
        rows_of[rng.choice(len(shares), p=np.array(shares) / sum(shares))].append(row)
    return rows_of


def whole_labels(labels, shares, seed):
    rows_of = [[] for _ in shares]
    for i, rows in enumerate(rows_by_label(labels).values()):
        rows_of[i % len(shares)].extend(rows)
    return rows_of


def not_shuffled(labels, shares, seed):
    return stratified(labels, shares, seed, sizes_of=right_sizes, shuffle=False)


def shuffled_after_the_cut(labels, shares, seed):
    rows_of = not_shuffled(labels, shares, seed)
    rng = random.Random(seed)
    for own in rows_of:
        rng.shuffle(own)
    return rows_of


def always_seed_42(labels, shares, seed):
    return shuffled_by_python(labels, shares, 42)


def never_seeded(labels, shares, seed):
    return shuffled_by_python(labels, shares, None)


GENERATOR = random.Random(7)


def one_generator_for_all_calls(labels, shares, seed):
    return shuffled_by_python(labels, shares, GENERATOR.random())


def places_within_the_label(labels, shares, seed):
    rng = np.random.default_rng(seed)
    rows_of = [[] for _ in shares]
    for total in Counter(labels).values():
        pieces = cut_up(rng.permutation(total), right_sizes(shares, total))
        for own, piece in zip(rows_of, pieces, strict=True):
            own.extend(piece)
    return rows_of


def the_labels_themselves(labels, shares, seed):
    rows_of = shuffled_by_python(labels, shares, seed)
    return [[labels[row] for row in own] for own in rows_of]


def counted_from_1(labels, shares, seed):
    rows_of = shuffled_by_python(labels, shares, seed)
    return [[row + 1 for row in own] for own in rows_of]


def labels_from_0_on(labels, shares, seed):
    rng = np.random.default_rng(seed)
    rows_of = [[] for _ in shares]
    for label in range(len(set(labels))):
        rows = rng.permutation(np.flatnonzero(np.array(labels) == label))
        pieces = cut_up(rows, right_sizes(shares, len(rows)))
        for own, piece in zip(rows_of, pieces, strict=True):
            own.extend(piece)
    return rows_of


def appended(labels, shares, seed):
    rng = np.random.default_rng(seed)
    rows_of = [[] for _ in shares]
    for rows in rows_by_label(labels).values():
        pieces = cut_up(rng.permutation(rows), right_sizes(shares, len(rows)))
        for own, piece in zip(rows_of, pieces, strict=True):
            own.append(piece)
    return rows_of


def one_list_a_label(labels, shares, seed):
    rng = random.Random(seed)
    return [rng.sample(rows, len(rows)) for rows in rows_by_label(labels).values()]


def client_of_each_row(labels, shares, seed):
    clients = [0] * len(labels)
    for client, rows in enumerate(shuffled_by_python(labels, shares, seed)):
        for row in rows:
            clients[row] = client
    return clients


def masks(labels, shares, seed):
    rows_of = shuffled_by_python(labels, shares, seed)
    return [np.isin(np.arange(len(labels)), own) for own in rows_of]


def floats(labels, shares, seed):
    rows_of = shuffled_by_python(labels, shares, seed)
    return [np.concatenate([np.zeros(0), own]) for own in rows_of]


def dictionary(labels, shares, seed):
    return dict(enumerate(shuffled_by_python(labels, shares, seed)))


def sizes_only(labels, shares, seed):
    return right_sizes(shares, len(labels))


def shuffles_the_labels(labels, shares, seed):
    random.Random(seed).shuffle(labels)
    return shuffled_by_python(labels, shares, seed)


RIGHT["2.3"] = [shuffled_by_python, one_permutation_then_floors, by_largest_remainder]
WRONG["2.3"] = [
    (rounds_down, "rounding down leaves over is lost"),
    (cuts_where_rounded_down, "rounding down leaves over is lost"),
    (leftovers_to_the_last, "leaves over goes to client 5"),
    (rounds_each, "rounded by itself"),
    (equal_pieces, "every client gets the same number"),
    (in_reverse, "in reverse"),
    (overlapping, "is given out 2 times"),
    (drawn_for_each_client, "each row goes to exactly one client"),
    (sliced, "each client gets the next rows, whatever their label"),
    (shuffled_and_sliced, "right, but not their shares of each label"),
    (client_drawn_for_each_row, "draw which rows it gets, not how many"),
    (whole_labels, "each label goes to one client as a whole"),
    (not_shuffled, "shuffle them before you cut"),
    (shuffled_after_the_cut, "shuffle them before you cut"),
    (always_seed_42, "make the generator that shuffles from the seed"),
    (never_seeded, "the same seed gives other lists"),
    (one_generator_for_all_calls, "the same seed gives other lists"),
    (places_within_the_label, "places among the rows of one label"),
    (the_labels_themselves, "these are labels"),
    (counted_from_1, "numbered from 0"),
    (labels_from_0_on, "nobody gets a row of label 2"),
    (appended, "extend it, don't append"),
    (one_list_a_label, "one list for each label"),
    (client_of_each_row, "whose each row is"),
    (masks, "these are masks"),
    (floats, "whole numbers"),
    (dictionary, "one list of row numbers for each client"),
    (sizes_only, "one list of row numbers for each client"),
    (shuffles_the_labels, "changed what it was given"),
]
