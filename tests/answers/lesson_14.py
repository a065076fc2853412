"""Right answers to lesson 14's exercises that are written in other ways."""

import numpy as np

RIGHT = {}
WRONG = {}

# ----------------------------------------------------------------- 14.1 moments_without


def by_the_mean(total, leaving):
    n = total["count"] - leaving["count"]
    mean = (total["sum"] - leaving["sum"]) / n
    squares = total["squares"] - leaving["squares"]
    return [mean, (squares - n * mean * mean) / n]


RIGHT["14.1"] = [by_the_mean]
WRONG["14.1"] = [lambda total, leaving: (0.0, 1.0)]

# ----------------------------------------------------------------- 14.2 safe_histogram


def by_numpy(values, edges, least):
    kept = values[(values >= edges[0]) & (values < edges[-1])]
    counts, _ = np.histogram(kept, edges)
    return np.where((counts > 0) & (counts < least), -1, counts)


RIGHT["14.2"] = [by_numpy]
WRONG["14.2"] = [lambda values, edges, least: [-1] * (len(edges) - 1)]

# ---------------------------------------------------------------- 14.3 calibration_gap


def by_sums(probabilities, labels, bins):
    place = np.clip(np.floor(probabilities * bins), 0, bins - 1).astype(int)
    said = np.bincount(place, probabilities, bins)
    were = np.bincount(place, labels, bins)
    return np.abs(said - were).sum() / len(labels)


RIGHT["14.3"] = [by_sums]
WRONG["14.3"] = [lambda p, y, bins: abs(p.mean() - y.mean()) / 2]

# ----------------------------------------------------------------------- 14.4 verdicts


def by_squares(table):
    said = {}
    for offer, cuts in table.items():
        signs = [
            (other > own) - (other < own)
            for own, other in cuts
            if (own - other) ** 2 > 4 * (own + other)
        ]
        half = len(cuts) // 2
        said[offer] = "can't tell"
        if signs.count(1) > half:
            said[offer] = "join"
        elif signs.count(-1) > half:
            said[offer] = "stay out"
    return said


RIGHT["14.4"] = [by_squares]
WRONG["14.4"] = [lambda table: dict.fromkeys(table, "join")]
