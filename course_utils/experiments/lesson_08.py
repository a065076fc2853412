"""What lesson 08 measures: what each setting of a run buys, at an equal budget."""

import random
from collections.abc import Callable, Iterable
from functools import partial

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Result

from course_utils import model
from course_utils.apps import client_app, load_net
from course_utils.experiments import Experiment
from course_utils.model import Net
from course_utils.partitions import image_shape, load_centralized, load_partition
from course_utils.runtime import run_in_process

NUM_CLIENTS = 10


def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Test a model on the server's images: a fifth to choose by, the rest to report."""
    images, labels = load_centralized()[1].dataset.tensors
    with torch.no_grad():
        guesses = load_net(arrays)(images).argmax(dim=1)
    right = (guesses == labels).float()
    cut = len(labels) // 5
    validation, test = right[:cut].mean().item(), right[cut:].mean().item()
    return MetricRecord({"validation": validation, "accuracy": test})


def run_with(make_strategy: Callable, seed: int, run_config: dict) -> Result:
    """Run a strategy with the settings of a run config."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        make_strategy().start(
            grid,
            initial_arrays=ArrayRecord(Net(image_shape()).state_dict()),
            num_rounds=context.run_config["num-server-rounds"],
            train_config=ConfigRecord({"lr": context.run_config["lr"]}),
            evaluate_fn=evaluate,
        )

    return run_in_process(
        app,
        client_app,
        num_supernodes=NUM_CLIENTS,
        run_config=run_config,
        seed=seed,
        progress=False,
    ).result


def measure(
    seed: int,
    *,
    rounds: int,
    fraction: float,
    local_epochs: int,
    lr: float,
    batch_size: int,
) -> dict:
    """Run once with some settings, and return the accuracies by round."""
    run_config = {
        "num-server-rounds": rounds,
        "local-epochs": local_epochs,
        "lr": lr,
        "batch-size": batch_size,
    }
    make = partial(FedAvg, fraction_train=fraction, fraction_evaluate=0.0)
    metrics = run_with(make, seed, run_config).evaluate_metrics_serverapp
    return {
        "accuracy": [metrics[i]["accuracy"] for i in metrics],
        "validation": {rounds: metrics[rounds]["validation"]},
    }


BASE = {
    "rounds": 4,
    "fraction": 0.5,
    "local_epochs": 1,
    "lr": 0.01,
    "batch_size": 16,
}

# All cost the clients the same: two passes over the data.
SETTINGS = [
    BASE | change
    for change in (
        {},
        {"lr": 0.03},
        {"lr": 0.1},
        {"lr": 0.3},
        {"rounds": 2, "local_epochs": 2},
        {"rounds": 2, "local_epochs": 2, "lr": 0.1},
        {"rounds": 10, "fraction": 0.2},
        {"rounds": 2, "fraction": 1.0},
        {"batch_size": 64},
        {"batch_size": 64, "lr": 0.04},
    )
]


class PlannedFedAvg(FedAvg):
    """FedAvg with a plan: for each round an lr, and how many clients train."""

    def __init__(self, plan: list[tuple[float, int]]) -> None:
        super().__init__(fraction_evaluate=0.0)
        self.plan = plan

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send the round's lr to as many clients as the plan says."""
        lr, clients = self.plan[server_round - 1]
        self.fraction_train = clients / NUM_CLIENTS
        config = ConfigRecord({**config, "lr": lr})
        return super().configure_train(server_round, arrays, config, grid)


# All send as many models as four rounds with five clients.
PLANS = {
    "lower lr later": [(0.1, 5), (0.1, 5), (0.03, 5), (0.01, 5)],
    "fewer clients later": [(0.1, 10), (0.1, 5), (0.1, 3), (0.1, 2)],
    "more clients later": [(0.1, 2), (0.1, 3), (0.1, 5), (0.1, 10)],
}


def follow(seed: int, *, plan: str) -> dict:
    """Run once by a plan, and return the accuracies by round."""
    run_config = {"num-server-rounds": len(PLANS[plan]), "lr": 0.1}
    make = partial(PlannedFedAvg, PLANS[plan])
    metrics = run_with(make, seed, run_config).evaluate_metrics_serverapp
    return {"accuracy": [metrics[i]["accuracy"] for i in metrics]}


class ImpatientFedAvg(FedAvg):
    """FedAvg that does without the clients that miss the deadline."""

    def __init__(self, late: Callable[[], list[int]]) -> None:
        super().__init__(fraction_evaluate=0.0)
        self.late = late

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Leave out whose reply would come too late."""
        late = [list(grid.get_node_ids())[client] for client in self.late()]
        messages = super().configure_train(server_round, arrays, config, grid)
        return [m for m in messages if m.metadata.dst_node_id not in late]


SKEWED = {"scheme": "dirichlet", "alpha": 0.1}
LATE = ("nobody", "the slow", "by chance")


def wait_or_not(seed: int, *, late: str) -> dict:
    """Draw three slow clients, leave out some or none, and test on each one's data."""
    rng = random.Random(seed)
    slow = rng.sample(range(NUM_CLIENTS), 3)
    choices = {
        "nobody": lambda: [],
        "the slow": lambda: slow,
        "by chance": lambda: rng.sample(range(NUM_CLIENTS), 3),
    }
    make = partial(ImpatientFedAvg, choices[late])
    run_config = {"num-server-rounds": 4, "lr": 0.03}
    net = load_net(run_with(make, seed, run_config | SKEWED).arrays)
    accuracy = []
    for client in range(NUM_CLIENTS):
        _, testloader = load_partition(client, NUM_CLIENTS, **SKEWED)
        accuracy.append(model.test(net, testloader)[1])
    own = sum(accuracy[client] for client in slow) / len(slow)
    return {"slow": own, "fast": (sum(accuracy) - 3 * own) / (NUM_CLIENTS - 3)}


EXPERIMENTS = {
    "settings": Experiment(measure, SETTINGS),
    "deadline": Experiment(wait_or_not, [{"late": who} for who in LATE]),
    "plans": Experiment(follow, [{"plan": name} for name in PLANS]),
}
