"""Lesson 08's exercises."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.stats import t

from course_utils.exercises.engine import Attempt, Case, Exercise, require_parts

# ------------------------------------------------------------------ 8.1 cost_of_a_run


def cost(
    rounds: int, clients: int, local_epochs: int, num_clients: int, model_bytes: int
) -> tuple[float, float]:
    """Count trainings first: the oracle."""
    trainings = rounds * clients
    passes = trainings * local_epochs / num_clients
    megabytes = 2 * trainings * model_bytes / 1e6
    return passes, megabytes


COST = Exercise(
    "8.1",
    "you know what a run costs before it runs.",
    cases=[
        Case(8, 5, 1, 10, 100_000, gives=(4.0, 8.0)),
        Case(2, 5, 4, 10, 100_000, gives=(4.0, 2.0)),
        Case(3, 20, 2, 100, 50_000, gives=(1.2, 6.0)),
    ],
    draw=lambda rng: Case(
        rng.randint(1, 50),
        rng.randint(2, 20),
        rng.randint(2, 5),
        rng.randint(21, 99),
        rng.randint(10_000, 10_000_000),
    ),
    oracle=cost,
    parts=("the passes", "the megabytes"),
    mistakes="""
        a model crosses twice for each client that trains: out, and back
            2 * trainings -> trainings
        these are bytes: a megabyte is a million of them
            / 1e6 ->
            / 1e6 -> / 1e3
            / 1e6 -> / 2**20
        local epochs cost no bytes: a client trains longer between the same two messages
            * model_bytes -> * local_epochs * model_bytes
        local epochs are missing: a client goes that many times through its data
            trainings * local_epochs / -> trainings /
        a pass is over the data of all clients: divide by num_clients
            local_epochs / num_clients -> local_epochs
            local_epochs / num_clients -> local_epochs / clients
        in a round only some clients train, not all of the federation
            rounds * clients -> rounds * num_clients
        this is the cost of one round: there are more
            rounds * clients -> clients
        the first number is the passes, the second the megabytes
            return passes, megabytes -> return megabytes, passes
    """,
    otherwise={
        "the passes": "the passes differ: how much of all data does a round see?",
        "the megabytes": "the megabytes differ: how many models cross in a round?",
    },
)

# ------------------------------------------------------------------- 8.2 difference


def interval(first: list[float], second: list[float]) -> tuple[float, float]:
    """Subtract seed by seed: the oracle."""
    each = np.subtract(first, second)
    s = np.std(each, ddof=1)
    half = t.ppf(0.975, len(each) - 1) * s / np.sqrt(len(each))
    return np.mean(each) - half, np.mean(each) + half


def random_accuracies(rng: random.Random) -> Case:
    """Draw two settings' accuracies, which share the luck of their seeds."""
    luck = [rng.uniform(0.5, 0.9) for _ in range(rng.randint(2, 20))]
    first, second = ([x + rng.uniform(-0.1, 0.1) for x in luck] for _ in range(2))
    return Case(first, second)


DIFFERENCE = Exercise(
    "8.2",
    "you can say how large a difference is, and whether it is more than luck.",
    cases=[
        Case([0.5, 0.75], [0.25, 0.25], gives=(-1.21327559, 1.96327559)),
        Case([0.9, 0.6, 0.8], [0.8, 0.5, 0.7], gives=(0.1, 0.1)),
        Case(
            [0.6, 0.7, 0.8, 0.9], [0.5, 0.6, 0.7, 0.4], gives=(-0.11824463, 0.51824463)
        ),
    ],
    draw=random_accuracies,
    oracle=interval,
    parts=("the lower end", "the upper end"),
    mistakes="""
        the two settings may have one seed's luck in common: subtract seed by seed, and
        take the deviation of the differences
            (each, ddof=1) -> (first, ddof=1); s = np.hypot(s, np.std(second, ddof=1))
        this is the deviation of one setting: take that of the differences
            np.std(each, ddof=1) -> np.std(first, ddof=1)
            np.std(each, ddof=1) -> np.std(second, ddof=1)
        this is where single seeds lie: the mean of n seeds is surer by the root of n
            / np.sqrt(len(each)) ->
        divide by the root of the number of seeds, not by the number
            np.sqrt(len(each)) -> len(each)
        these are the smallest and the largest difference: return the mean, less and
        plus t.ppf(0.975, n - 1) times its standard error
            np.mean(each) - half, np.mean(each) + half -> each.min(), each.max()
        statistics.stdev divides by n - 1: this divides by n
            , ddof=1 ->
        go t.ppf(0.975, n - 1) standard errors to both sides, not one
            t.ppf(0.975, len(each) - 1) * ->
        two standard errors serve many seeds: with few, go t.ppf(0.975, n - 1)
            t.ppf(0.975, len(each) - 1) -> 2
        with n seeds, t is asked for n - 1
            len(each) - 1) -> len(each))
        a 40th lies beyond each end, a 20th beyond both: take 0.975
            0.975 -> 0.95
        this is the second minus the first: turn it round
            subtract(first, second) -> subtract(second, first)
        the lower end comes first
            - half, np.mean(each) + half -> + half, np.mean(each) - half
    """,
    otherwise="return the mean of the differences, less and plus t.ppf(0.975, n - 1) "
    "times its standard error",
)

# ------------------------------------------------------------------------ 8.3 search

Scores = dict[float, list[tuple[float, float]]]
"""By lr, what each seed gives: the accuracy on validation and on test images."""


def play_search(answer: Attempt, scores: Scores) -> Iterator[tuple[str, Any]]:
    """Yield which runs were made, and what comes back."""
    settings = [{"lr": lr} for lr in scores]
    seeds = list(range(len(next(iter(scores.values())))))
    runs = []

    def run(setting: dict, seed: int) -> tuple[float, float]:
        runs.append((setting["lr"], seed))
        return scores[setting["lr"]][seed]

    setting, accuracy = require_parts(answer(run, settings, seeds), PARTS)
    yield "the runs", sorted(runs)
    yield PARTS[0], setting
    yield PARTS[1], accuracy


PARTS = ("the chosen setting", "its test accuracy")


def look(run: Any, settings: list[dict], seeds: list[int]) -> tuple[dict, float]:
    """Keep the best so far: the oracle."""
    best = None
    for setting in settings:
        pairs = np.array([run(setting, seed) for seed in seeds])
        by_validation, by_test = pairs.T
        score, report = by_validation.mean(), by_test.mean()
        if best is None or score > best[0]:
            best = score, setting, report
    return best[1], best[2]


def random_scores(rng: random.Random) -> Case:
    """Draw scores in which each way of choosing chooses another setting."""
    seeds = range(rng.randint(2, 4))
    lrs = rng.sample([0.001, 0.003, 0.01, 0.03, 0.1, 0.3], rng.randint(3, 5))
    return Case({lr: [(rng.random(), rng.random()) for _ in seeds] for lr in lrs})


SEARCH = Exercise(
    "8.3",
    "your search chooses by one part of the data, and reports on another.",
    cases=[
        # On validation 0.01 has the best mean, 0.1 the best seed, 0.003 the first, 0.3
        # the last; on test, it is 0.03.
        Case(
            {
                0.01: [(0.75, 0.5), (0.75, 0.875), (0.75, 0.5)],
                0.1: [(0.25, 0.5), (1.0, 0.25), (0.25, 0.25)],
                0.03: [(0.5, 1.0), (0.25, 1.0), (0.25, 1.0)],
                0.003: [(0.875, 0.25), (0.25, 0.25), (0.25, 0.25)],
                0.3: [(0.25, 0.0), (0.25, 0.0), (0.875, 0.0)],
                0.2: [(0.0, 0.125), (0.0, 0.125), (0.0, 0.125)],
            },
            gives={PARTS[0]: {"lr": 0.01}, PARTS[1]: 0.625},
        ),
        Case(  # equally good ones
            {0.1: [(0.5, 0.25)], 0.3: [(0.5, 0.75)]},
            gives={PARTS[0]: {"lr": 0.1}, PARTS[1]: 0.25},
        ),
        Case(  # nothing is right, and something has to be chosen
            {0.3: [(0.0, 0.25), (0.0, 0.0)], 0.2: [(0.0, 0.5), (0.0, 0.5)]},
            gives={PARTS[0]: {"lr": 0.3}, PARTS[1]: 0.125},
        ),
    ],
    draw=random_scores,
    play=play_search,
    oracle=look,
    mistakes="""
        the test images have chosen: choose by the mean validation accuracy
            by_validation.mean() -> by_test.mean()
        this is the accuracy on the images that have chosen: report that on the test
        images
            best[1], best[2] -> best[1], best[0]
        one lucky seed has chosen: choose by the mean over the seeds
            by_validation.mean() -> by_validation.max()
        one seed alone has chosen: choose by the mean over the seeds
            by_validation.mean() -> by_validation[0]
            by_validation.mean() -> by_validation[-1]
        this is the test accuracy of one seed: report the mean over the seeds
            by_test.mean() -> by_test[0]
            by_test.mean() -> by_test[-1]
            by_test.mean() -> by_test.max()
        run each setting with each seed, and none twice
            for seed in seeds -> for seed in seeds[:1]
            best = None -> best = run(settings[0], seeds[0]); best = None
            for setting in settings: -> for setting in settings[1:]:
        of two equally good settings, take the earlier one
            score > best[0] -> score >= best[0]
        this is the worst setting by validation: take the best
            score > best[0] -> score < best[0]
        the first of the two is the chosen setting, the second its test accuracy
            return best[1], best[2] -> return best[2], best[1]
        return the setting itself, as it was given
            return best[1], -> return best[1]["lr"],
            return best[1], -> return settings.index(best[1]),
    """,
    otherwise={
        "the runs": "run each setting with each seed, and none twice",
        "chosen setting": "another setting has the best mean validation accuracy",
        "test accuracy": "the second of the two should be the chosen setting's mean "
        "test accuracy over the seeds",
    },
)
