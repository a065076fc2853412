"""The ServerApp: runs Federated Averaging, then saves the model and the metrics."""

import json
import random
import time
from collections.abc import Iterable
from math import inf
from pathlib import Path

import torch
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    UserConfig,
)
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Result
from torch.utils.data import DataLoader

from federated_digits import task

app = ServerApp()
FOR_CLIENTS = ("local-epochs", "lr", "seed")  # settings that go with each message


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run as many rounds as the run config says."""
    config = context.run_config
    check_settings(config)
    random.seed(config["seed"])  # FedAvg draws the clients of a round with it
    task.set_seed(config["seed"])
    strategy = BoundedFedAvg(
        config["min-available-nodes"],
        config["node-timeout"],
        fraction_train=config["fraction-train"],
        fraction_evaluate=config["fraction-evaluate"],
    )
    result = strategy.start(
        grid,
        initial_arrays=ArrayRecord(task.Net().state_dict()),
        num_rounds=config["num-server-rounds"],
        timeout=config["round-timeout"],
        train_config=ConfigRecord({key: config[key] for key in FOR_CLIENTS}),
        evaluate_fn=evaluate_centrally,
    )
    if not result.arrays:
        raise RuntimeError("No client sent a model back: read the SuperNodes' logs.")
    save(result, Path(config["results-dir"]))


WHOLE, NUMBER = (int,), (int, float)
RULES = {  # of each setting: its types, what must be true of it, and that in words
    "num-server-rounds": (WHOLE, lambda n: n >= 1, "a whole number, 1 or more"),
    "fraction-train": (NUMBER, lambda x: 0 < x <= 1, "a number above 0, 1 at most"),
    "fraction-evaluate": (NUMBER, lambda x: 0 <= x <= 1, "a number from 0 to 1"),
    "local-epochs": (WHOLE, lambda n: n >= 1, "a whole number, 1 or more"),
    "lr": (NUMBER, lambda x: 0 < x < inf, "a number above 0"),
    "batch-size": (WHOLE, lambda n: n >= 1, "a whole number, 1 or more"),
    "seed": (WHOLE, lambda n: n >= 0, "a whole number, 0 or more"),
    "min-available-nodes": (WHOLE, lambda n: n >= 1, "a whole number, 1 or more"),
    "node-timeout": (NUMBER, lambda x: 0 <= x < inf, "a number of seconds, 0 or more"),
    "round-timeout": (NUMBER, lambda x: 0 < x < inf, "a number of seconds, above 0"),
    "results-dir": ((str,), lambda s: s.strip() and not Path(s).is_file(), "a folder"),
}


def check_settings(config: UserConfig) -> None:
    """Refuse in one sentence, before anything starts, what no run can use."""
    for key, (types, is_right, words) in RULES.items():
        value = config[key]
        if type(value) not in types or not is_right(value):
            raise ValueError(f"{key} must be {words}, not {value!r}.")


class BoundedFedAvg(FedAvg):
    """FedAvg that waits for SuperNodes, but not for ever."""

    def __init__(
        self, min_available_nodes: int, node_timeout: float, **options: float
    ) -> None:
        # By itself, FedAvg asks two nodes in each round, also where one is enough.
        least = min(2, min_available_nodes)
        super().__init__(
            min_available_nodes=min_available_nodes,
            min_train_nodes=least,
            min_evaluate_nodes=least,
            **options,
        )
        self.node_timeout = node_timeout

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Wait for enough nodes, then draw those that train."""
        self.wait_for_nodes(grid)
        return super().configure_train(server_round, arrays, config, grid)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Wait for enough nodes, then draw those that evaluate, if any do."""
        if self.fraction_evaluate > 0:
            self.wait_for_nodes(grid)
        return super().configure_evaluate(server_round, arrays, config, grid)

    def wait_for_nodes(self, grid: Grid) -> None:
        """Wait until enough nodes are online, and give up when time is up."""
        needed, end = self.min_available_nodes, time.monotonic() + self.node_timeout
        while (online := len(list(grid.get_node_ids()))) < needed:
            state = f"{online} of min-available-nodes={needed} are online"
            if time.monotonic() >= end:
                raise RuntimeError(
                    f"{state} after node-timeout={self.node_timeout:g} seconds: start "
                    "more SuperNodes, or run with fewer."
                )
            print(f"Waiting for SuperNodes: {state}.", flush=True)
            time.sleep(1)


def evaluate_centrally(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Test the global model on all test digits, which this server happens to have."""
    net = task.Net()
    net.load_state_dict(arrays.to_torch_state_dict())
    _, test_split = task.load_digits()
    loss, accuracy = task.test(net, DataLoader(test_split, batch_size=256))
    return MetricRecord({"eval-loss": loss, "eval-accuracy": accuracy})


def save(result: Result, folder: Path) -> None:
    """Write the final model and every round's metrics."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(result.arrays.to_torch_state_dict(), folder / "final_model.pt")
    metrics = {
        "train-by-clients": result.train_metrics_clientapp,
        "evaluate-by-clients": result.evaluate_metrics_clientapp,
        "evaluate-by-server": result.evaluate_metrics_serverapp,
    }
    by_round = {
        kind: {number: dict(record) for number, record in rounds.items()}
        for kind, rounds in metrics.items()
    }
    (folder / "metrics.json").write_text(json.dumps(by_round, indent=2))
    print("Saved in", folder.resolve())
