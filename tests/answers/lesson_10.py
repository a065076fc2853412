"""Right answers to lesson 10's exercises that are written in other ways."""

import math
import statistics

import numpy as np
import torch
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAvg

RIGHT = {}
WRONG = {}

# ------------------------------------------------------------------- 10.1 careful_round


def by_the_strategy(old, replies, quorum):
    good = []
    for reply in replies:
        if reply.has_content():
            state = reply.content["arrays"].to_torch_state_dict()
            if all(math.isfinite(value.sum()) for value in state.values()):
                good.append(reply)
    if len(good) >= quorum:
        old, _ = FedAvg().aggregate_train(1, good)
    return [old, len(replies) - len(good)]


def in_one_loop(old, replies, quorum):
    total, weight, bad = {}, 0, 0
    for reply in replies:
        try:
            state = reply.content["arrays"].to_torch_state_dict()
        except ValueError:
            bad += 1
            continue
        if not all(value.isfinite().all() for value in state.values()):
            bad += 1
            continue
        n = reply.content["metrics"]["num-examples"]
        weight += n
        for name, value in state.items():
            total[name] = total.get(name, 0) + n * value
    if len(replies) - bad < quorum:
        return old, bad
    return ArrayRecord({name: value / weight for name, value in total.items()}), bad


RIGHT["10.1"] = [by_the_strategy, in_one_loop]


def that_looks_for_errors_only(old, replies, quorum):
    arrays, _ = FedAvg().aggregate_train(1, replies)
    return arrays or old, sum(reply.has_error() for reply in replies)


WRONG["10.1"] = [that_looks_for_errors_only]

# -------------------------------------------------------------------- 10.2 trimmed_mean


def by_popping(values, beta):
    kept = sorted(values)
    for _ in range(math.floor(beta * len(values))):
        kept.pop(0)
        kept.pop()
    return statistics.fmean(kept)


def by_torch(values, beta):
    cut = int(len(values) * beta)
    return torch.tensor(values).sort().values[cut : len(values) - cut].mean()


RIGHT["10.2"] = [by_popping, by_torch]
WRONG["10.2"] = [lambda values, beta: statistics.fmean(values[1:-1])]

# ---------------------------------------------------------------------- 10.3 krum_order


def by_numpy(models, f):
    rows = np.stack([model.numpy() for model in models]).astype(float)
    n = len(rows)
    scores = []
    for i in range(n):
        others = np.delete(rows, i, axis=0)
        scores.append(np.sort(((others - rows[i]) ** 2).sum(axis=1))[: n - f - 2].sum())
    return np.argsort(scores)


def by_removing_the_largest(models, f):
    def score(model):
        far = [float(((model - other) ** 2).sum()) for other in models]
        for _ in range(f + 1):
            far.remove(max(far))
        return sum(far)

    scores = [score(model) for model in models]
    return tuple(sorted(range(len(models)), key=lambda i: scores[i]))


RIGHT["10.3"] = [by_numpy, by_removing_the_largest]
WRONG["10.3"] = [lambda models, f: list(range(len(models)))]
