"""What lesson 09 measures: clients whose data differ, what that costs, what helps.

The functions are those of the lesson. They are a federation in plain PyTorch, so that
a run takes a second or two.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, cosine_similarity, cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from course_utils.experiments import Experiment
from course_utils.model import weighted_average
from course_utils.partitions import (
    image_shape,
    label_distance,
    load_partition,
    make_loader,
)

NUM_CLIENTS = 10
ROUNDS = 10
SHOWN = (2, 4, 6, 8, 10)
"""The rounds whose accuracy is kept."""

SKEWS = {
    "IID": {"scheme": "iid"},
    "Dirichlet(100)": {"scheme": "dirichlet", "alpha": 100},
    "Dirichlet(1)": {"scheme": "dirichlet", "alpha": 1},
    "Dirichlet(0.1)": {"scheme": "dirichlet", "alpha": 0.1},
    "Dirichlet(0.05)": {"scheme": "dirichlet", "alpha": 0.05},
    "2 labels": {"scheme": "pathological", "num_classes_per_partition": 2},
    "1 label": {"scheme": "pathological", "num_classes_per_partition": 1},
    "sizes": {"scheme": "square"},
    "pens": {"scheme": "iid"},
}
PENS = {
    "plain": lambda images: images,
    "rotated": lambda images: torch.rot90(images, dims=(2, 3)),
    "inverted": lambda images: -images,
    "blurred": lambda images: avg_pool2d(images, 5, stride=1, padding=2),
}
WRITTEN = {
    "pens": tuple(PENS),
    "half rotated": ("plain", "rotated"),
    "half inverted": ("plain", "inverted"),
    "half blurred": ("plain", "blurred"),
    "all blurred": ("blurred",),
}
"""Whose labels are IID, and what its clients' pens do, in turn."""


# -------------------------------------------------------------------- a federation


def clients_of(skew: str, seed: int) -> list:
    """Return each client's train loader and test loader."""
    clients = []
    pens = WRITTEN.get(skew, ["plain"])
    options = SKEWS.get(skew, SKEWS["IID"])
    for i in range(NUM_CLIENTS):
        loaders = load_partition(i, NUM_CLIENTS, seed=seed, **options)
        pen = PENS[pens[i % len(pens)]]
        own = []
        for loader in loaders:
            images, labels = loader.dataset.tensors
            examples = TensorDataset(pen(images), labels)
            own.append(make_loader(examples, batch_size=32, shuffle=True))
        clients.append(tuple(own))
    return clients


def make_net(norm: str = "none") -> nn.Sequential:
    """Make a small dense network, with a normalisation in its middle."""
    layers = {
        "none": nn.Identity(),
        "BatchNorm": nn.BatchNorm1d(64),
        "FedBN": nn.BatchNorm1d(64),
        "GroupNorm": nn.GroupNorm(8, 64),
    }
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(image_shape()), 64),
        layers[norm],
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def copy_of(net: nn.Module) -> dict:
    """Return a copy of the state_dict, which further training leaves alone."""
    return {name: value.clone() for name, value in net.state_dict().items()}


def train_locally(
    net: nn.Module,
    loader: DataLoader,
    epochs: int,
    lr: float,
    extra: Callable[[list], list] | None = None,
) -> int:
    """Train by plain SGD. Return the number of steps."""
    weights, steps = list(net.parameters()), 0
    net.train()
    for _ in range(epochs):
        for images, labels in loader:
            if len(labels) == 1:  # BatchNorm cannot train on one example
                continue
            loss = cross_entropy(net(images), labels)
            gradients = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                more = extra(weights) if extra else [0] * len(weights)
                for w, g, m in zip(weights, gradients, more, strict=True):
                    w -= lr * (g + m)
            steps += 1
    return steps


@torch.no_grad()
def accuracy(net: nn.Module, loader: DataLoader) -> float:
    """Return the share of a loader's labels that the model gets right."""
    images, labels = loader.dataset.tensors
    net.eval()
    return (net(images).argmax(dim=1) == labels).float().mean().item()


@dataclass
class Round:
    """What a round leaves: the model before it, the clients' models, the new one."""

    start: dict
    states: list[dict]
    new: dict
    kept: list[dict]


def proximal(net: nn.Module, mu: float) -> Callable[[list], list]:
    """Return FedProx's addition to the gradient: mu times the way from the start."""
    start = [w.detach().clone() for w in net.parameters()]
    return lambda weights: [mu * (w - s) for w, s in zip(weights, start, strict=True)]


def rounds_of(
    clients: list,
    epochs: int = 1,
    lr: float = 0.1,
    mu: float = 0.0,
    norm: str = "none",
) -> Iterator[Round]:
    """Lead a federation, round by round."""
    net = make_net(norm)
    new, kept = copy_of(net), [{} for _ in clients]
    sizes = [len(train.dataset) for train, _ in clients]
    own_names = "2." if norm == "FedBN" else ()
    for _ in range(ROUNDS):
        start, states = new, []
        for (train, _), own in zip(clients, kept, strict=True):
            net.load_state_dict(start | own)
            pull = proximal(net, mu) if mu else None
            train_locally(net, train, epochs, lr, pull)
            states.append(copy_of(net))
        new = weighted_average(states, sizes)
        kept = [
            {k: v for k, v in state.items() if k.startswith(own_names)}
            for state in states
        ]
        yield Round(start, states, new, kept)


def by_client(clients: list, done: Round, norm: str = "none") -> list[float]:
    """Return the model's accuracy on each client's own test data."""
    net, found = make_net(norm), []
    for (_, test), own in zip(clients, done.kept, strict=True):
        net.load_state_dict(done.new | own)
        found.append(accuracy(net, test))
    return found


def over_all(clients: list, accuracies: list) -> float:
    """Return the accuracy over all clients' test examples."""
    sizes = [len(test.dataset) for _, test in clients]
    pairs = zip(accuracies, sizes, strict=True)
    return sum(a * n for a, n in pairs) / sum(sizes)


# ---------------------------------------------------------------------- experiments


def summary(clients: list, rounds: Iterator[Round], norm: str = "none") -> dict:
    """Return the accuracy, and that of the worst client, of some rounds."""
    measured = {"accuracy": {}, "worst": {}}
    for number, done in enumerate(rounds, start=1):
        if number in SHOWN:
            each = by_client(clients, done, norm)
            measured["accuracy"][number] = over_all(clients, each)
            measured["worst"][number] = min(each)
    return measured


def federate(seed: int, *, skew: str, **setting) -> dict:
    """Lead a federation, and measure its model."""
    torch.manual_seed(seed)
    clients = clients_of(skew, seed)
    rounds = rounds_of(clients, **setting)
    return summary(clients, rounds, setting.get("norm", "none"))


def distance_of(seed: int, *, skew: str) -> dict:
    """Measure the skew of the labels, as lesson 02 does."""
    labels = [train.dataset.tensors[1] for train, _ in clients_of(skew, seed)]
    counts = torch.stack([torch.bincount(own, minlength=10) for own in labels])
    return {"distance": label_distance(counts.numpy()).mean()}


def flat(state: dict) -> torch.Tensor:
    """Lay all numbers of a model in one row."""
    return torch.cat([value.flatten() for value in state.values()])


def drift(seed: int, *, skew: str) -> dict:
    """Measure by round how long the clients' updates are, and how they agree."""
    torch.manual_seed(seed)
    measured = {"cosine": {}, "norm": {}}
    for number, done in enumerate(rounds_of(clients_of(skew, seed)), start=1):
        start, mean = flat(done.start), flat(done.new) - flat(done.start)
        updates = torch.stack([flat(state) - start for state in done.states])
        cosines = cosine_similarity(updates, mean[None])
        measured["cosine"][number] = cosines.mean().item()
        measured["norm"][number] = updates.norm(dim=1).mean().item()
    return measured


def alone(client: tuple[DataLoader, DataLoader]) -> nn.Module:
    """Train one client's model for as many epochs as a federation does."""
    net = make_net()
    train_locally(net, client[0], epochs=ROUNDS, lr=0.1)
    return net


def joining(seed: int, *, skew: str) -> dict:
    """Compare each client's model with the one that it gets by joining."""
    torch.manual_seed(seed)
    clients = clients_of(skew, seed)
    nets = [alone(client) for client in clients]
    own = [accuracy(net, test) for net, (_, test) in zip(nets, clients, strict=True)]
    all_tests = [test for _, test in clients]
    any_test = [
        over_all(clients, [accuracy(net, test) for test in all_tests]) for net in nets
    ]
    *_, last = rounds_of(clients)
    joined = by_client(clients, last)
    return {
        "joined": over_all(clients, joined),
        "alone": over_all(clients, own),
        "alone, all data": sum(any_test) / len(any_test),
        "losers": sum(a > j for a, j in zip(own, joined, strict=True)),
    }


# ------------------------------------------------------------------------- SCAFFOLD


def scaffold_rounds(clients: list, epochs: int, lr: float) -> Iterator[Round]:
    """Lead a federation with SCAFFOLD, in which every client is asked each round."""
    net = make_net()
    new, sizes = copy_of(net), [len(train.dataset) for train, _ in clients]
    server = {name: torch.zeros_like(value) for name, value in new.items()}
    own = [server for _ in clients]
    for _ in range(ROUNDS):
        start, states = new, []
        before, own = own, []
        for (train, _), control in zip(clients, before, strict=True):
            net.load_state_dict(start)
            shift = [server[name] - control[name] for name in start]
            steps = train_locally(net, train, epochs, lr, lambda _, s=shift: s)
            states.append(copy_of(net))
            own.append(new_control(control, server, start, states[-1], steps * lr))
        new = weighted_average(states, sizes)
        server = weighted_average(own, sizes)
        yield Round(start, states, new, [{} for _ in clients])


def new_control(
    control: dict, server: dict, start: dict, end: dict, way: float
) -> dict:
    """Return a client's control variate after its training (option II)."""
    return {
        name: control[name] - server[name] + (start[name] - end[name]) / way
        for name in start
    }


LOCAL_EPOCHS = 3
"""Where clients do more than one pass over their data."""


def corrected(seed: int, *, skew: str, lr: float) -> dict:
    """Lead a federation with SCAFFOLD, and measure its model."""
    torch.manual_seed(seed)
    clients = clients_of(skew, seed)
    return summary(clients, scaffold_rounds(clients, LOCAL_EPOCHS, lr))


TWO = ("IID", "Dirichlet(0.1)")
LAST = {"accuracy": (ROUNDS,)}
# At this learning rate a difference in the last digit grows into another run: None.
EXPERIMENTS: dict[str, Experiment] = {
    "skew": Experiment(
        federate,
        [{"skew": skew} for skew in SKEWS],
        tolerance=None,
        kept={"accuracy": (4, ROUNDS), "worst": (4, ROUNDS)},
    ),
    "distance": Experiment(distance_of, [{"skew": skew} for skew in SKEWS]),
    "pens": Experiment(
        federate,
        [{"skew": skew} for skew in WRITTEN if skew != "pens"],
        tolerance=None,
        kept=LAST,
    ),
    "drift": Experiment(
        drift,
        [{"skew": skew} for skew in (*TWO, "pens")],
        tolerance=None,
        kept={"cosine": (1, *SHOWN), "norm": (1, *SHOWN)},
    ),
    "joining": Experiment(
        joining,
        [{"skew": skew} for skew in ("Dirichlet(0.1)", "pens")],
        tolerance=None,
    ),
    "work": Experiment(
        federate,
        [{"skew": s, "epochs": epochs} for s in TWO for epochs in (1, LOCAL_EPOCHS)],
        tolerance=None,
        kept={"accuracy": SHOWN},
    ),
    # Without a pull, at mu = 0, FedProx is FedAvg.
    "prox": Experiment(
        federate,
        [
            {"skew": "2 labels", "epochs": LOCAL_EPOCHS, "lr": lr, "mu": mu}
            for lr, mus in ((0.1, (0.0, 0.01, 0.1, 1.0)), (0.03, (0.0, 0.1, 1.0)))
            for mu in mus
        ],
        tolerance=None,
        kept=LAST,
    ),
    "scaffold": Experiment(
        corrected,
        [{"skew": "2 labels", "lr": lr} for lr in (0.1, 0.03)],
        tolerance=None,
        kept=LAST,
    ),
    # Without a normalisation: in "skew".
    "norms": Experiment(
        federate,
        [
            {"skew": skew, "norm": norm}
            for skew in ("Dirichlet(0.1)", "pens")
            for norm in ("BatchNorm", "FedBN", "GroupNorm")
        ],
        tolerance=None,
        kept=LAST,
    ),
}
