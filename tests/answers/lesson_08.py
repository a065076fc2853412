"""Right answers to lesson 08's exercises that are written in other ways."""

import math
import statistics

import numpy as np
import pandas as pd
from scipy import stats

RIGHT = {}

# ------------------------------------------------------------------ 8.1 cost_of_a_run


def round_by_round(rounds, clients, local_epochs, num_clients, model_bytes):
    passes = megabytes = 0
    for _ in range(rounds):
        passes += local_epochs * clients / num_clients
        megabytes += (clients + clients) * model_bytes / 1_000_000
    return [passes, megabytes]


RIGHT["8.1"] = [round_by_round]

# ------------------------------------------------------------------- 8.2 difference


def by_statistics(first, second):
    each = [a - b for a, b in zip(first, second, strict=True)]
    mean = statistics.mean(each)
    error = statistics.stdev(each) / math.sqrt(len(each))
    half = stats.t.ppf(0.975, len(each) - 1) * error
    return mean - half, mean + half


def by_pandas(first, second):
    each = pd.Series(first) - pd.Series(second)
    return stats.t.interval(0.95, each.size - 1, each.mean(), each.sem())


RIGHT["8.2"] = [by_statistics, by_pandas]

# ------------------------------------------------------------------------ 8.3 search


def by_a_table_of_all_runs(run, settings, seeds):
    table = np.array([[run(s, seed) for seed in seeds] for s in settings])
    means = table.mean(axis=1)
    chosen = int(means[:, 0].argmax())
    return settings[chosen], means[chosen, 1]


def seed_by_seed(run, settings, seeds):
    sums = [[0.0, 0.0] for _ in settings]
    for seed in seeds:
        for total, setting in zip(sums, settings, strict=True):
            validation, test = run(setting, seed)
            total[0] += validation
            total[1] += test
    best = max(range(len(settings)), key=lambda i: sums[i][0])
    return dict(settings[best]), sums[best][1] / len(seeds)


RIGHT["8.3"] = [by_a_table_of_all_runs, seed_by_seed]
