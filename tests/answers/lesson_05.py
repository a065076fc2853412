"""Right answers to lesson 05's exercises that are written in other ways."""

import math
import random

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg

RIGHT = {}

# --------------------------------------------------------------------- 5.1 draw_nodes


def by_shuffling_a_copy(node_ids, fraction, minimum):
    shuffled = list(node_ids)
    random.shuffle(shuffled)
    count = int(len(node_ids) * fraction)
    if count < minimum:
        count = minimum
    return shuffled[:count]


def by_numpy_choice(node_ids, fraction, minimum):
    count = max(minimum, math.floor(len(node_ids) * fraction))
    ids = np.array(node_ids, dtype=np.uint64)
    return np.random.default_rng().choice(ids, size=count, replace=False)


def as_a_set(node_ids, fraction, minimum):
    drawn = set()
    while len(drawn) < minimum or len(drawn) < int(len(node_ids) * fraction):
        drawn.add(random.choice(node_ids))
    return drawn


def by_torch_permutation(node_ids, fraction, minimum):
    order = torch.randperm(len(node_ids)).tolist()
    return tuple(
        node_ids[i] for i in order[: max(int(fraction * len(node_ids)), minimum)]
    )


RIGHT["5.1"] = [by_shuffling_a_copy, by_numpy_choice, as_a_set, by_torch_permutation]

# ------------------------------------------------------------------- 5.2 read_replies


def by_try_and_except(replies, key):
    numerator, denominator, errors = 0.0, 0, 0
    for reply in replies:
        try:
            metrics = reply.content["metrics"]
        except ValueError:
            errors += 1
            continue
        numerator += metrics[key] * metrics["num-examples"]
        denominator += metrics["num-examples"]
    return (numerator / denominator if denominator else None), errors


def by_numpy_average(replies, key):
    good = [reply.content["metrics"] for reply in replies if reply.has_content()]
    mean = None
    if good:
        sizes = [metrics["num-examples"] for metrics in good]
        mean = np.average([metrics[key] for metrics in good], weights=sizes)
    return [mean, sum(reply.has_error() for reply in replies)]


def by_the_strategy(replies, key):
    metrics = FedAvg().aggregate_evaluate(1, replies)
    failed = [reply for reply in replies if reply.has_error()]
    return (metrics[key] if metrics else None), len(failed)


RIGHT["5.2"] = [by_try_and_except, by_numpy_average, by_the_strategy]

# -------------------------------------------------------------------- 5.3 train_until


def send(grid, kind, arrays, server_round):
    """Ask all nodes, and return the replies that are no errors."""
    config = ConfigRecord({"lr": 0.01, "server-round": server_round})
    content = RecordDict({"arrays": arrays, "config": config})
    messages = [Message(content, node, kind) for node in grid.get_node_ids()]
    return [r for r in grid.send_and_receive(messages) if not r.has_error()]


def merged(replies, by="num-examples"):
    """Average the models of replies."""
    weights = [r.content["metrics"].get(by, 1) for r in replies]
    states = [r.content["arrays"].to_torch_state_dict() for r in replies]
    mean = {
        name: sum(w * s[name] for w, s in zip(weights, states, strict=True))
        / sum(weights)
        for name in states[0]
    }
    return ArrayRecord(mean)


def mean_accuracy(replies, by="num-examples"):
    metrics = [r.content["metrics"] for r in replies]
    weights = [m.get(by, 1) for m in metrics]
    return np.average([m["eval-accuracy"] for m in metrics], weights=weights)


def by_hand(grid, arrays, max_rounds, patience):
    best = None
    for server_round in range(1, max_rounds + 1):
        arrays = merged(send(grid, "train", arrays, server_round))
        accuracy = mean_accuracy(send(grid, "evaluate", arrays, server_round))
        if best is None or accuracy > best[1]:
            best = (arrays, accuracy, server_round)
        if server_round - best[2] >= patience:
            break
    return best[0], best[1], server_round


def from_a_history(grid, arrays, max_rounds, patience):
    strategy = FedAvg(fraction_train=1.0, min_train_nodes=1)
    models, accuracies = [], []
    while len(models) < max_rounds:
        number = len(models) + 1
        out = strategy.configure_train(number, arrays, ConfigRecord(), grid)
        arrays, _ = strategy.aggregate_train(number, grid.send_and_receive(out))
        out = strategy.configure_evaluate(number, arrays, ConfigRecord(), grid)
        metrics = strategy.aggregate_evaluate(number, grid.send_and_receive(out))
        models.append(arrays)
        accuracies.append(metrics["eval-accuracy"])
        if number > patience and max(accuracies[-patience:]) <= max(
            accuracies[:-patience]
        ):
            break
    best = accuracies.index(max(accuracies))
    return [models[best], accuracies[best], len(models)]


def node_by_node(grid, arrays, max_rounds, patience):
    """Push and pull, one node after the other, arrays as NumPy's."""
    best_arrays, best_accuracy, left, rounds = None, -1.0, patience, 0

    def talk(kind, content):
        for node in reversed(grid.get_node_ids()):
            (message_id,) = grid.push_messages([Message(content, node, kind)])
            (reply,) = grid.pull_messages([message_id])
            if reply.has_content():
                yield reply.content

    while left and rounds < max_rounds:
        rounds += 1
        config = ConfigRecord({"server-round": rounds})
        total, sums = 0, {}
        for got in talk("train", RecordDict({"arrays": arrays, "config": config})):
            n = got["metrics"]["num-examples"]
            total += n
            for name, array in got["arrays"].items():
                sums[name] = sums.get(name, 0) + n * array.numpy()
        arrays = ArrayRecord(
            {name: torch.as_tensor(value / total) for name, value in sums.items()}
        )
        metrics = [
            r["metrics"] for r in talk("evaluate", RecordDict({"arrays": arrays}))
        ]
        accuracy = np.average(
            [m["eval-accuracy"] for m in metrics],
            weights=[m["num-examples"] for m in metrics],
        )
        left -= 1
        if accuracy > best_accuracy:
            best_arrays, best_accuracy, left = arrays, accuracy, patience
    return best_arrays, best_accuracy, rounds


RIGHT["5.3"] = [by_hand, from_a_history, node_by_node]
