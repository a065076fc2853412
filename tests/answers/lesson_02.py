"""Right answers to lesson 02's exercises that are written in other ways."""

import random

import numpy as np
import torch

from course_utils.partitions import label_distance

RIGHT = {}

# -------------------------------------------------------------------- 2.1 held_by_one

RIGHT["2.1"] = [
    lambda counts: [k for k, column in enumerate(counts.T) if (column > 0).sum() == 1]
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


RIGHT["2.2"] = [from_the_distance_of_the_whole, in_a_loop]

# --------------------------------------------------------------------- 2.3 share_out


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
    return tuple(torch.tensor(own) for own in pieces)


RIGHT["2.3"] = [by_largest_remainder]
