"""Right answers to lesson 05's exercises that are written in other ways."""

import math
import random

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg


def by_numpy_choice(node_ids, fraction, minimum):
    count = max(minimum, math.floor(len(node_ids) * fraction))
    ids = np.array(node_ids, dtype=np.uint64)
    return np.random.default_rng().choice(ids, size=count, replace=False)


def as_a_set(node_ids, fraction, minimum):
    drawn = set()
    while len(drawn) < minimum or len(drawn) < int(len(node_ids) * fraction):
        drawn.add(random.choice(node_ids))
    return drawn


def that_changes_the_config_after_a_stall(factor):
    class Strategy(FedAvg):
        def __init__(self):
            super().__init__()
            self.best, self.stalled = -1.0, False

        def configure_train(self, server_round, arrays, config, grid):
            config["lr"] *= factor if self.stalled else 1
            config["server-round"] = server_round
            self.stalled = False
            content = RecordDict({"arrays": arrays, "config": config})
            return [Message(content, node, "train") for node in grid.get_node_ids()]

        def aggregate_evaluate(self, server_round, replies):
            metrics = super().aggregate_evaluate(server_round, replies)
            if metrics:
                self.stalled = metrics["eval-accuracy"] <= self.best
                self.best = max(self.best, metrics["eval-accuracy"])
            return metrics

    return Strategy()


def node_by_node(grid, arrays, max_rounds, patience):
    """Push and pull, one node after the other; keep the best round's number."""
    best, number = (arrays, -1.0, 0), 0

    def talk(kind):
        config = ConfigRecord({"lr": 0.01, "server-round": number})
        content = RecordDict({"arrays": arrays, "config": config})
        for node in reversed(grid.get_node_ids()):
            pushed = grid.push_messages([Message(content, node, kind)])
            (reply,) = grid.pull_messages(pushed)
            if reply.has_content():
                yield reply.content["metrics"]["num-examples"], reply.content

    while number < max_rounds and number - best[2] < patience:
        number += 1
        total, sums = 0, {}
        for n, content in talk("train"):
            total += n
            for name, tensor in content["arrays"].to_torch_state_dict().items():
                sums[name] = sums.get(name, 0) + n * tensor
        arrays = ArrayRecord({name: value / total for name, value in sums.items()})
        found = [(n, n * c["metrics"]["eval-accuracy"]) for n, c in talk("evaluate")]
        accuracy = sum(a for _, a in found) / sum(n for n, _ in found)
        if accuracy > best[1]:
            best = (arrays, accuracy, number)
    return best[0], best[1], number


RIGHT = {
    "5.1": [by_numpy_choice, as_a_set],
    "5.2": [that_changes_the_config_after_a_stall],
    "5.3": [node_by_node],
}
