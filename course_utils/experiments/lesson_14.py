"""What lesson 14 measures: whom a federation of four hospitals serves."""

import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from course_utils.experiments import Experiment
from course_utils.hospitals import (
    HEART_BOOK,
    Client,
    clients_of,
    load_heart,
    load_own,
)

ROUNDS, STEPS, LR = 20, 5, 0.5
HEAD = 9
"""Numbers in the last layer: eight weights and a bias."""

Part = tuple[torch.Tensor, torch.Tensor]
"""A client's inputs, standardised, and its labels."""

# ---------------------------------------------------------------------- sums, not data


def sums_of(x: np.ndarray) -> dict[str, list[float]]:
    """Say of each column how many values are known, their sum, and that of squares."""
    return {
        "count": (~np.isnan(x)).sum(axis=0).tolist(),
        "sum": np.nansum(x, axis=0).tolist(),
        "squares": np.nansum(x**2, axis=0).tolist(),
    }


def moments(sums: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Return each column's mean and standard deviation from clients' sums."""
    names = ("count", "sum", "squares")
    n, total, squares = (np.sum([s[k] for s in sums], axis=0) for k in names)
    n = np.maximum(n, 1)
    mean = total / n
    variance = squares / n - mean**2
    return mean, np.sqrt(np.where(variance > 1e-9, variance, 1.0))


def prepare(x: np.ndarray, mean: np.ndarray, std: np.ndarray) -> torch.Tensor:
    """Standardise; what is missing becomes the mean, which is 0 then."""
    return torch.from_numpy(np.nan_to_num((x - mean) / std)).float()


def scaled(client: Client, config: Mapping) -> torch.Tensor:
    """Standardise a client's inputs by the scale that came with a message."""
    scale = np.array(config["mean"]), np.array(config["std"])
    return prepare(client.x, *scale)


# ------------------------------------------------------------------------ the training


def make_net(inputs: int = len(HEART_BOOK.inputs)) -> nn.Module:
    """Make a small network: 105 numbers for the hospitals' eleven inputs."""
    return nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, 1))


def train_steps(net: nn.Module, part: Part, steps: int, mu: float = 0.0) -> float:
    """Train on all rows at once. Return the loss before the first step."""
    (x, y), first = part, None
    weights = list(net.parameters())
    start = [w.detach().clone() for w in weights]
    for _ in range(steps):
        loss = binary_cross_entropy_with_logits(net(x)[:, 0], y)
        gradients = torch.autograd.grad(loss, weights)
        first = loss.item() if first is None else first
        with torch.no_grad():
            for w, g, s in zip(weights, gradients, start, strict=True):
                w -= LR * (g + mu * (w - s))
    return first


def as_vector(net: nn.Module) -> torch.Tensor:
    """Return all numbers of a network, one after the other."""
    return parameters_to_vector(net.parameters()).detach()


def local(
    model: torch.Tensor, part: Part, steps: int, mu: float = 0.0
) -> tuple[torch.Tensor, float]:
    """Train a model that is held as one long vector."""
    net = make_net(part[0].shape[1])
    vector_to_parameters(model.clone(), net.parameters())
    loss = train_steps(net, part, steps, mu)
    return as_vector(net), loss


def probabilities(model: torch.Tensor, x: torch.Tensor) -> np.ndarray:
    """Return what a model says of some rows."""
    net = make_net(x.shape[1])
    vector_to_parameters(model, net.parameters())
    with torch.no_grad():
        return torch.sigmoid(net(x)[:, 0]).numpy()


def by_patients(
    old: torch.Tensor,
    models: torch.Tensor,
    sizes: torch.Tensor,
    losses: torch.Tensor,
) -> torch.Tensor:
    """Average as FedAvg does."""
    return sizes @ models / sizes.sum()


def by_hospitals(
    old: torch.Tensor,
    models: torch.Tensor,
    sizes: torch.Tensor,
    losses: torch.Tensor,
) -> torch.Tensor:
    """Let each hospital count the same."""
    return models.mean(dim=0)


def by_loss(
    old: torch.Tensor,
    models: torch.Tensor,
    sizes: torch.Tensor,
    losses: torch.Tensor,
    q: float = 1.0,
) -> torch.Tensor:
    """Let a hospital count the more, the larger its loss is: q-FedAvg."""
    ways = (old - models) / LR
    lengths = (ways**2).sum(dim=1)
    h = q * losses ** (q - 1) * lengths + losses**q / LR
    return old - losses**q @ ways / h.sum()


def rounds(
    parts: list[Part],
    start: torch.Tensor,
    average: Callable = by_patients,
    mu: float = 0.0,
    own_head: bool = False,
    num_rounds: int = ROUNDS,
) -> list[torch.Tensor]:
    """Lead all rounds. Return the model that each hospital gets."""
    model, heads = start, [start[-HEAD:]] * len(parts)
    sizes = torch.tensor([float(len(y)) for _, y in parts])

    def for_client(head: torch.Tensor) -> torch.Tensor:
        return torch.cat([model[:-HEAD], head]) if own_head else model

    for _ in range(num_rounds):
        pairs = zip(parts, heads, strict=True)
        done = [local(for_client(h), p, STEPS, mu) for p, h in pairs]
        models = torch.stack([new for new, _ in done])
        losses = torch.tensor([loss for _, loss in done])
        heads = list(models[:, -HEAD:])
        model = average(model, models, sizes, losses)
    return [for_client(head) for head in heads]


# -------------------------------------------------------------- the same with Flower

client_app, server_app = ClientApp(), ServerApp()


@client_app.query()
def look(message: Message, context: Context) -> Message:
    """Reply with sums."""
    metrics = MetricRecord(sums_of(load_own(context).x))
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@client_app.train()
def learn(message: Message, context: Context) -> Message:
    """Train the network on the hospital's own rows, and reply."""
    client, config = load_own(context), message.content["config"]
    part = scaled(client, config), torch.from_numpy(client.y).float()
    net = make_net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    loss = train_steps(net, part, STEPS)
    metrics = {"train_loss": loss, "num-examples": len(client.y)}
    content = {
        "arrays": ArrayRecord(net.state_dict()),
        "metrics": MetricRecord(metrics),
    }
    return Message(RecordDict(content), reply_to=message)


def ask(grid: Grid, kind: str = "query") -> list[MetricRecord]:
    """Ask every hospital, and return what each replies."""
    nodes = grid.get_node_ids()
    messages = [Message(RecordDict(), node, kind) for node in nodes]
    return [r.content["metrics"] for r in grid.send_and_receive(messages)]


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    """Ask for sums, then train."""
    while len(list(grid.get_node_ids())) < 4:  # all have to be there
        time.sleep(1)
    mean, std = moments(ask(grid))
    torch.manual_seed(context.run_config["seed"])
    scale = {"mean": mean.tolist(), "std": std.tolist()}
    result = FedAvg(fraction_evaluate=0.0, min_train_nodes=4).start(
        grid,
        initial_arrays=ArrayRecord(make_net().state_dict()),
        num_rounds=context.run_config["rounds"],
        train_config=ConfigRecord(scale),
    )
    if path := context.run_config.get("save-to"):
        torch.save(result.arrays.to_torch_state_dict(), path)


# ----------------------------------------------------------------------- whom it serves


def alone(parts: list[Part], start: torch.Tensor) -> list[torch.Tensor]:
    """Let each hospital train by itself, as many steps as in all rounds."""
    return [local(start, part, ROUNDS * STEPS)[0] for part in parts]


def central(parts: list[Part], start: torch.Tensor) -> list[torch.Tensor]:
    """Train on all rows in one place, as if that were allowed."""
    xs, ys = zip(*parts, strict=True)
    model, _ = local(start, (torch.cat(xs), torch.cat(ys)), ROUNDS * STEPS)
    return [model] * len(parts)


def tuned(parts: list[Part], start: torch.Tensor) -> list[torch.Tensor]:
    """Train FedAvg's model a little further in each hospital."""
    (model, *_) = rounds(parts, start)
    return [local(model, part, 4 * STEPS)[0] for part in parts]


HOW: dict[str, Callable] = {
    "alone": alone,
    "central": central,
    "FedAvg": rounds,
    "tuned": tuned,
    "own head": partial(rounds, own_head=True),
    "FedProx": partial(rounds, mu=1.0),
    "equal": partial(rounds, average=by_hospitals),
    "loss": partial(rounds, average=by_loss),
}
"""What a hospital may be offered, by name."""


def folds_of(client: Client, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cut a client's rows five times into train and test rows."""
    cut = StratifiedKFold(5, shuffle=True, random_state=seed)
    return list(cut.split(client.x, client.y))


def prepared(
    clients: list[Client], cut: tuple, how: str
) -> tuple[list[Part], list[torch.Tensor]]:
    """Standardise with what the train rows say: a hospital's own if it is alone."""
    pairs = list(zip(clients, cut, strict=True))
    sums = [sums_of(client.x[train]) for client, (train, _) in pairs]
    parts, tests = [], []
    for (client, (train, test)), own in zip(pairs, sums, strict=True):
        scale = moments([own] if how == "alone" else sums)
        y = torch.from_numpy(client.y[train]).float()
        parts.append((prepare(client.x[train], *scale), y))
        tests.append(prepare(client.x[test], *scale))
    return parts, tests


def predictions(clients: list[Client], seed: int, how: str) -> list[np.ndarray]:
    """Return each client's probabilities, by models that have not seen the row."""
    torch.manual_seed(seed)
    inputs = clients[0].x.shape[1]
    starts = [as_vector(make_net(inputs)) for _ in range(5)]
    found = [np.zeros(len(client.y)) for client in clients]
    cuts = zip(*(folds_of(client, seed) for client in clients), strict=True)
    for start, cut in zip(starts, cuts, strict=True):
        parts, tests = prepared(clients, cut, how)
        models = HOW[how](parts, start)
        for i, (_, rows) in enumerate(cut):
            found[i][rows] = probabilities(models[i], tests[i])
    return found


def groups_of(clients: list[Client]) -> list[np.ndarray]:
    """Say who belongs to which group: women, men, below 55 years, from 55 on."""
    x = np.concatenate([client.x for client in clients])
    age = x[:, HEART_BOOK.inputs.index("age")]
    male = x[:, HEART_BOOK.inputs.index("sex Male")] == 1
    return [~male, male, age < 55, age >= 55]


def served(seed: int, *, how: str) -> dict[str, dict[int, float]]:
    """Measure what each hospital gets; hospital and group take the place of a round."""
    clients = clients_of(load_heart(), HEART_BOOK)
    guesses = predictions(clients, seed, how)
    each = list(enumerate(zip(clients, guesses, strict=True)))
    measured = {
        "accuracy": {i: ((p > 0.5) == c.y).mean() for i, (c, p) in each},
        "auc": {i: roc_auc_score(c.y, p) for i, (c, p) in each},
        "brier": {i: brier_score_loss(c.y, p) for i, (c, p) in each},
    }
    y = np.concatenate([client.y for client in clients])
    said = np.concatenate(guesses) > 0.5
    groups = enumerate(groups_of(clients))
    measured["found"] = {i: said[who & (y == 1)].mean() for i, who in groups}
    return {name: measured[name] for name in KEPT.get(how, ["accuracy"])}


def only_one_right(seed: int, *, how: str) -> dict[str, dict[int, int]]:
    """Count the patients whom one of two models gets right: its own, or the offer.

    Places 0 to 3 are the hospitals, place 4 all ill women.
    """
    clients = clients_of(load_heart(), HEART_BOOK)
    y = np.concatenate([client.y for client in clients])
    own, offer = (
        (np.concatenate(predictions(clients, seed, each)) > 0.5) == y
        for each in ("alone", how)
    )
    whose = np.repeat(range(len(clients)), [len(c.y) for c in clients])
    places = [whose == i for i in range(len(clients))]
    places.append(groups_of(clients)[0] & (y == 1))
    return {
        "own": {i: (own & ~offer & w).sum() for i, w in enumerate(places)},
        "offer": {i: (offer & ~own & w).sum() for i, w in enumerate(places)},
    }


EVERY = ["accuracy", "auc", "brier", "found"]
KEPT = {"alone": EVERY, "FedAvg": EVERY, "loss": ["accuracy", "found"]}
KEPT |= {"tuned": EVERY[:3], "own head": EVERY[:3]}
"""What is stored. Of the others, the accuracy."""

EXPERIMENTS: dict[str, Experiment] = {
    "served": Experiment(served, [{"how": how} for how in HOW]),
    # Counts of some patients each: rounding may move one of them.
    "pairs": Experiment(
        only_one_right,
        [{"how": how} for how in ("FedAvg", "tuned", "own head")],
        tolerance=0.2,
    ),
}
