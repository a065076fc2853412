"""Right answers to lesson 02's exercises that are written in other ways."""

import random
from itertools import accumulate, pairwise

import numpy as np
import torch

from course_utils.partitions import label_distance

RIGHT, WRONG = {}, {}

# ------------------------------------------------------------------ 2.1 count_labels

RIGHT["2.1"] = [
    lambda labels, num_classes: np.bincount(labels, minlength=num_classes),
    lambda labels, num_classes: [labels.count(label) for label in range(num_classes)],
]
WRONG["2.1"] = [  # for a client without examples
    lambda labels, n: torch.nn.functional.one_hot(torch.tensor(labels), n).sum(dim=0),
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


RIGHT["2.2"] = [from_the_distance_of_the_whole, in_a_loop, in_torch]

# --------------------------------------------------------------------- 2.3 share_out


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
    for label in dict.fromkeys(labels):
        rows = [row for row, own in enumerate(labels) if own == label]
        exact = [share * len(rows) for share in shares]
        sizes = [int(number) for number in exact]
        by_remainder = sorted(range(len(shares)), key=lambda i: sizes[i] - exact[i])
        for client in by_remainder[: len(rows) - sum(sizes)]:
            sizes[client] += 1
        drawn = random.sample(rows, len(rows))
        for client, size in enumerate(sizes):
            pieces[client].extend(drawn.pop() for _ in range(size))
    return tuple(np.array(own) for own in pieces)


RIGHT["2.3"] = [one_permutation_then_floors, by_largest_remainder]
