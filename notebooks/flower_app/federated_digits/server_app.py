"""The ServerApp: runs Federated Averaging, then saves the model and the metrics."""

import json
import random
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Result
from torch.utils.data import DataLoader

from federated_digits import task

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run as many rounds as the run config says."""
    config = context.run_config
    random.seed(config["seed"])  # FedAvg draws the clients of a round with it
    task.set_seed(config["seed"])
    strategy = FedAvg(
        fraction_train=config["fraction-train"],
        fraction_evaluate=config["fraction-evaluate"],
        min_available_nodes=config["min-available-nodes"],
    )
    result = strategy.start(
        grid,
        initial_arrays=ArrayRecord(task.Net().state_dict()),
        num_rounds=config["num-server-rounds"],
        timeout=config["round-timeout"],
        train_config=ConfigRecord(
            {key: config[key] for key in ("local-epochs", "lr", "seed")}
        ),
        evaluate_fn=evaluate_centrally,
    )
    if not result.arrays:
        raise RuntimeError("No client sent a model back: read the SuperNodes' logs.")
    save(result, Path(config["results-dir"]))


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
