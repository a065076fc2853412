"""Right answers to lesson 10's exercises that are written in other ways."""

import math

from flwr.serverapp.strategy import FedAvg

RIGHT = {}
WRONG = {}

# ---------------------------------------------------------------------------- 10.1 clip

WRONG["10.1"] = [lambda message, context, call_next: call_next(message, context)]

# ------------------------------------------------------------------- 10.2 careful_round


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


RIGHT["10.2"] = [by_the_strategy]


def that_looks_for_errors_only(old, replies, quorum):
    arrays, _ = FedAvg().aggregate_train(1, replies)
    return arrays or old, sum(reply.has_error() for reply in replies)


WRONG["10.2"] = [that_looks_for_errors_only]

# ---------------------------------------------------------------------- 10.3 krum_order


def by_removing_the_largest(models, f):
    far = [sorted(float(((a - b) ** 2).sum()) for b in models) for a in models]
    scores = [sum(row[: -f - 1]) for row in far]
    return tuple(sorted(range(len(models)), key=lambda i: scores[i]))


RIGHT["10.3"] = [by_removing_the_largest]
WRONG["10.3"] = [lambda models, f: list(range(len(models)))]
