"""What lesson 12 measures: what noise costs a model, and what it takes from attacks.

The functions are those of the lesson: rounds in plain PyTorch, which the lesson shows
to be those of Flower's strategy.
"""

import math
from copy import deepcopy

import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import avg_pool2d, cross_entropy, one_hot

from course_utils.experiments import Experiment
from course_utils.partitions import image_shape, load_centralized

NUM_CLIENTS = 100
ROUNDS = 8
LR = 2.0
CLIP = 1.0
DELTA = 1e-3
STEPS = 100
"""The steps that a client takes alone."""

ORDERS = [1 + x / 10 for x in range(1, 100)]
ORDERS += [*range(11, 64), 128, 256, 512, 1024]
"""Those that dp_accounting tries."""

# ------------------------------------------------------------------- the federation


def shrink(images: torch.Tensor) -> torch.Tensor:
    """Make one number of each four by four pixels, from 0 to 2."""
    return avg_pool2d(images + 1, 4).flatten(1)


def make_net() -> nn.Linear:
    """Make the smallest network that there is: 500 numbers for MNIST's images."""
    channels, height, width = image_shape()
    return nn.Linear(channels * (height // 4) * (width // 4), 10)


def flat(net: nn.Module) -> torch.Tensor:
    """Return all numbers of a model in one row."""
    return nn.utils.parameters_to_vector(net.parameters()).detach()


def move(net: nn.Module, step: torch.Tensor) -> None:
    """Add a row of numbers to a model's."""
    nn.utils.vector_to_parameters(flat(net) + step, net.parameters())


def update_of(
    net: nn.Module, features: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Train a copy for three steps, and return what that changed."""
    local = deepcopy(net)
    weights = list(local.parameters())
    for _ in range(3):
        loss = cross_entropy(local(features), labels)
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight -= LR * gradient
    return flat(local) - flat(net)


def clip(rows: torch.Tensor, max_norm: float = CLIP) -> torch.Tensor:
    """Shorten an update, or each row of a table, to a length of at most max_norm."""
    norms = rows.norm(dim=-1, keepdim=True)
    return rows * (max_norm / norms.clamp(min=max_norm))


def private_mean(updates: torch.Tensor, z: float) -> torch.Tensor:
    """Clip, average, and add noise."""
    n, numbers = updates.shape
    std = z * CLIP / n
    return clip(updates).mean(dim=0) + std * torch.randn(numbers)


def share_out(num_clients: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Give each client as many examples, by chance."""
    images, labels = load_centralized()[0].dataset.tensors
    own = torch.randperm(len(labels)).tensor_split(num_clients)
    return [(shrink(images[i]), labels[i]) for i in own]


def strangers() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the test examples, which no client has."""
    images, labels = load_centralized()[1].dataset.tensors
    return shrink(images), labels


@torch.no_grad()
def accuracy(net: nn.Module) -> float:
    """Test a model."""
    features, labels = strangers()
    return (net(features).argmax(dim=1) == labels).float().mean().item()


# -------------------------------------------------------------------- the accountant


def convert(rdp: list[float], delta: float = DELTA) -> float:
    """Return the epsilon of a Rényi differential privacy, given for each order."""
    return min(
        r + math.log1p(-1 / a) - math.log(delta * a) / (a - 1)
        for a, r in zip(ORDERS, rdp, strict=True)
    )


def epsilon_of(z: float, rounds: int, delta: float = DELTA) -> float:
    """Return the epsilon of some rounds with the same noise multiplier."""
    return convert([rounds * a / (2 * z**2) for a in ORDERS], delta)


def noise_for(epsilon: float, rounds: int, delta: float = DELTA) -> float:
    """Search for the noise multiplier whose rounds cost an epsilon."""
    if epsilon == math.inf:
        return 0.0
    low, high = 0.01, 1000.0
    for _ in range(60):
        z = (low * high) ** 0.5
        too_much = epsilon_of(z, rounds, delta) > epsilon
        low, high = (z, high) if too_much else (low, z)
    return high


# ----------------------------------------------------------------- what is measured


def federate(seed: int, *, clients: int, epsilon: float) -> dict[str, float]:
    """Run eight rounds that cost an epsilon, with all clients in each."""
    net, shares = make_net(), share_out(clients)
    z = noise_for(epsilon, ROUNDS)
    for _ in range(ROUNDS):
        updates = torch.stack([update_of(net, *own) for own in shares])
        move(net, private_mean(updates, z))
    return {"accuracy": accuracy(net)}


def per_example(
    net: nn.Module, features: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Return the gradient of each example: a table with a row for each."""

    def loss(weights: dict, one: torch.Tensor, label: torch.Tensor):
        guess = functional_call(net, weights, one[None])
        return cross_entropy(guess, label[None])

    weights = {name: w.detach() for name, w in net.named_parameters()}
    gradients = vmap(grad(loss), in_dims=(None, 0, 0))
    each = gradients(weights, features, labels).values()
    return torch.cat([g.flatten(1) for g in each], dim=1)


def private_step(
    net: nn.Module,
    features: torch.Tensor,
    labels: torch.Tensor,
    z: float,
    batch: int,
    max_norm: float = CLIP,
) -> None:
    """Take one step of DP-SGD."""
    total = z * max_norm * torch.randn(len(flat(net)))
    if len(labels):
        each = per_example(net, features, labels)
        total += clip(each, max_norm).sum(dim=0)
    move(net, -LR * total / batch)


@torch.no_grad()
def losses(
    net: nn.Module, features: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Return the loss of each example."""
    return cross_entropy(net(features), labels, reduction="none")


def auc(members: torch.Tensor, others: torch.Tensor) -> float:
    """Return how often a member's loss is below that of another example."""
    return (members[:, None] < others).float().mean().item()


def membership(seed: int, *, epsilon: float) -> dict[str, float]:
    """Attack a client that trains alone by DP-SGD: which examples are its own?"""
    (own, another), net = share_out(NUM_CLIENTS)[:2], make_net()
    z = noise_for(epsilon, STEPS)
    for _ in range(STEPS):
        private_step(net, *own, z, len(own[1]))
    others = losses(net, *strangers())
    return {
        "auc": auc(losses(net, *own), others),
        "control": auc(losses(net, *another), others),
        "accuracy": accuracy(net),
    }


RUNS = {
    "not clipped": (8, 1e6, math.inf),
    "clipped": (8, CLIP, math.inf),
    "private": (8, CLIP, 1.0),
    "clipped 40": (40, CLIP, math.inf),
    "private 40": (40, CLIP, 1.0),
}
"""Of three hospitals: rounds, how long a gradient may be, and epsilon."""


def hospitals(seed: int, *, run: str) -> dict[str, float]:
    """Run three clients, each of which may hide its examples."""
    rounds, max_norm, epsilon = RUNS[run]
    net, shares = make_net(), share_out(3)
    z = noise_for(epsilon, 3 * rounds, delta=1e-5)
    for _ in range(rounds):
        updates = []
        for features, labels in shares:
            local = deepcopy(net)
            for _ in range(3):
                n = len(labels)
                private_step(local, features, labels, z, n, max_norm)
            updates.append(flat(local) - flat(net))
        move(net, torch.stack(updates).mean(dim=0))
    return {"accuracy": accuracy(net)}


def alike(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the correlation of two images, without its sign."""
    pair = torch.stack([one.flatten(), other.flatten()])
    return torch.corrcoef(pair)[0, 1].abs().item()


def rows_of(layer: nn.Linear, images: torch.Tensor, labels: torch.Tensor):
    """Return what a client with one image alone would send, for each image."""
    images = images.flatten(1)
    errors = layer(images).softmax(dim=1) - one_hot(labels, 10)
    images = torch.cat([images, torch.ones(len(images), 1)], dim=1)
    return clip((errors[:, :, None] * images[:, None]).flatten(1))


def divide(sent: torch.Tensor) -> torch.Tensor:
    """Divide the row with the largest bias by its bias."""
    rows = sent.view(10, -1)
    row = rows[rows[:, -1].abs().argmax()]
    return row[:-1] / row[-1]


@torch.no_grad()
def steal(seed: int, *, noise: float) -> dict[str, float]:
    """Attack what a client with one image sends, by division and from a list."""
    images, labels = load_centralized()[0].dataset.tensors
    layer = nn.Linear(images[0].numel(), 10)
    listed = rows_of(layer, images, labels)
    sent = listed[seed] + noise * CLIP * torch.randn(len(listed[0]))
    nearest = (listed - sent).norm(dim=1).argmin().item()
    return {
        "division": alike(divide(sent), images[seed]),
        "from a list": float(nearest == seed),
    }


EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
BUDGETS = [
    {"clients": clients, "epsilon": epsilon}
    for clients in (10, 30, 100)
    for epsilon in (*EPSILONS, math.inf)
]
PROMISES = [{"epsilon": e} for e in (1.0, 3.0, 10.0, 30.0, 100.0, math.inf)]
NOISES = [{"noise": z} for z in (0.0, 0.01, 0.03, 0.1, 1.0)]

EXPERIMENTS: dict[str, Experiment] = {
    "budgets": Experiment(federate, BUDGETS, tolerance=0.04),
    "membership": Experiment(membership, PROMISES, tolerance=0.04),
    "hospitals": Experiment(hospitals, [{"run": run} for run in RUNS], tolerance=0.04),
    "stolen": Experiment(steal, NOISES, tolerance=None),
}
