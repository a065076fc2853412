"""What lesson 13 measures: what integers cost a model, and what a liar can do."""

import sys
from pathlib import Path

import numpy as np

from course_utils.experiments import Experiment

APP = Path(__file__).parents[2] / "notebooks" / "secure-sum-app"
if str(APP) not in sys.path:  # the lesson's own app has the task, and the integers
    sys.path.append(str(APP))

from secure_sum import task  # noqa: E402
from secure_sum.protocol import SCALE, decode, encode  # noqa: E402

ROUNDS = 6


def summed(seed: int, *, bits: int, liars: int) -> dict[str, dict]:
    """Train by sums of integers of so many bits. (Masks would cancel: none here.)"""
    images, labels = (part[:4000] for part in task.load_digits())
    order = np.random.default_rng(seed).permutation(4000)
    parts = np.array_split(order, 10)
    scale = SCALE / 2 ** (32 - bits)
    model = np.zeros(task.SHAPE).ravel()
    for _ in range(ROUNDS):
        trained = [task.train(model, images[p], labels[p]) for p in parts]
        for liar in range(liars):
            trained[liar] = -20 * trained[liar]
        pairs = zip(trained, parts, strict=True)
        total = sum(encode(sent, len(p), scale) for sent, p in pairs)
        model, _ = decode(total, scale)
    return {"accuracy": {ROUNDS: task.test(model)}}


SETTINGS = [{"bits": bits, "liars": 0} for bits in (32, 20, 16, 14, 12)]

EXPERIMENTS = {
    "bits": Experiment(summed, SETTINGS),
    "liar": Experiment(summed, [{"bits": 32, "liars": 1}]),
}
