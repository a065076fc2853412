"""Lesson 09's exercises."""

import copy
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
from flwr.app import ArrayRecord, RecordDict
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from course_utils.exercises.engine import Attempt, Case, Exercise, Wrong, require_kind

# ---------------------------------------------------------------- 9.1 lowest_tenth


def lowest_tenth(accuracies: list[float]) -> float:
    """Take one away after the other: the oracle."""
    left, count, total = list(accuracies), math.ceil(len(accuracies) / 10), 0.0
    for _ in range(count):
        total += left.pop(left.index(min(left)))
    return total / count


LOWEST = Exercise(
    "9.1",
    "you look at those whom an average forgets.",
    cases=[
        Case([0.8, 0.2, 0.9], gives=0.2),
        Case([0.6], gives=0.6),
        Case([0.9] * 5 + [0.4] + [0.8] * 4 + [0.2], gives=0.3),
        Case([0.5, 0.1, 0.3] + [0.9] * 18, gives=0.3),
    ],
    draw=lambda rng: Case([rng.random() for _ in range(rng.randint(2, 60))]),
    oracle=lowest_tenth,
    mistakes="""
        round the number of clients up: of 11 clients, a tenth are 2
            math.ceil(len(accuracies) / 10) -> max(1, len(accuracies) // 10)
            math.ceil(len(accuracies) / 10) -> max(1, round(len(accuracies) / 10))
        a tenth of fewer than ten clients is rounded down to none: round up
            math.ceil(len(accuracies) / 10) -> len(accuracies) // 10
        this is the lowest client alone: take the mean of the lowest tenth
            lambda accuracies: min(accuracies)
        these are the clients that get most
            min(left) -> max(left)
        these are the first clients of the list: sort first
            left.index(min(left)) -> 0
        these are the last clients of the list: sort first
            left.index(min(left)) -> -1
        this is the sum of the lowest tenth: divide by how many they are
            total / count -> total
        this is the border of the lowest tenth: take the mean of those below it
            lambda accuracies: float(torch.tensor(accuracies).quantile(0.1))
            lambda a: sorted(a)[math.ceil(len(a) / 10) - 1]
        this is the mean of all clients
            lambda accuracies: sum(accuracies) / len(accuracies)
        divide by the number of the clients that you added up, not by that of all
            total / count -> total / len(accuracies)
    """,
    otherwise="the result should be the mean accuracy of the lowest tenth",
)

# --------------------------------------------------------------- 9.2 train_fedprox


def play_training(answer: Attempt, net: nn.Module, *rest: Any) -> Iterator:
    """Yield the weights of the network that comes back, batch after batch."""
    batches, *others = rest
    for count in range(1, len(batches) + 1):
        got = answer(net, batches[:count], *others, may_change=True)
        require_kind(got, net.state_dict() if got is None else got)
        if not isinstance(got, nn.Module):
            raise Wrong("return the trained network", got=got)
        weights = [w.detach().flatten() for w in got.parameters()]
        yield f"the weights after {count} batches", torch.cat(weights)


def train_fedprox(
    net: nn.Module, batches: list, loss_fn: Callable, mu: float, lr: float
) -> nn.Module:
    """Add the term's gradient to that of the loss, by hand: the oracle."""
    weights = list(net.parameters())
    start = [w.detach().clone() for w in weights]
    for images, labels in batches:
        gradients = torch.autograd.grad(loss_fn(net(images), labels), weights)
        with torch.no_grad():
            for w, g, s in zip(weights, gradients, start, strict=True):
                w -= lr * (g + mu * (w - s))
    return net


def docstring(
    net: nn.Module, batches: list, loss_fn: Callable, mu: float, lr: float, **mended
) -> nn.Module:
    """Train as Flower's docstring says, or with one of its two mistakes mended."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    global_params = copy.deepcopy(net).parameters()
    global_params = list(global_params) if "kept" in mended else global_params
    for images, labels in batches:
        term = 0.0
        for own, old in zip(net.parameters(), global_params, strict=False):
            size = (own - old).norm(2)
            term += size**2 if "squared" in mended else size
        loss = loss_fn(net(images), labels) + (mu / 2) * term
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net


def mean_output(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Stand in for a loss: of a network with one weight, its gradient is the input."""
    return outputs.mean()


def one_weight(start: float, inputs: list[float], mu: float, lr: float) -> Case:
    """Make a case with a network of one weight."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, start)
    batches = [(torch.tensor([[x]]), torch.zeros(1)) for x in inputs]
    w, gives = start, {}
    for count, x in enumerate(inputs, start=1):
        w -= lr * (x + mu * (w - start))
        gives[f"the weights after {count} batches"] = [w]
    said = f"one weight {start}, gradients {inputs}, mu={mu}, lr={lr}"
    return Case(net, batches, mean_output, mu, lr, shown=said, gives=gives)


def weight_and_bias() -> Case:
    """Make a case with a network of two weights, whose gradients are 2 and 1."""
    net = nn.Linear(1, 1)
    for weight in net.parameters():
        nn.init.zeros_(weight)
    batches = [(torch.tensor([[2.0]]), torch.zeros(1))] * 2
    gives = {
        "the weights after 1 batches": [-1.0, -0.5],
        "the weights after 2 batches": [-1.5, -0.75],
    }
    said = "two weights, both 0, gradients 2 and 1 twice, mu=1.0, lr=0.5"
    return Case(net, batches, mean_output, 1.0, 0.5, shown=said, gives=gives)


def random_training(rng: random.Random) -> Case:
    """Draw a small network and some batches."""
    values = torch.Generator().manual_seed(rng.getrandbits(32))
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    inputs = torch.randn(3, 5, 3, generator=values)
    batches = [*zip(inputs, torch.randint(2, (3, 5), generator=values), strict=True)]
    mu, lr = rng.uniform(0.5, 2), rng.uniform(0.1, 0.3)
    said = f"3 batches, mu={mu:.2f}, lr={lr:.2f}"
    return Case(net, batches, nn.CrossEntropyLoss(), mu, lr, shown=said)


PROX = Exercise(
    "9.2",
    "you have mended FedProx's proximal term, and would notice one that does nothing.",
    cases=[
        one_weight(0.0, [1.0, 1.0, 1.0], mu=1.0, lr=0.5),  # -0.5, -0.75, -0.875
        one_weight(2.0, [1.0, 0.0, 0.0], mu=0.5, lr=1.0),  # 1, 1.5, 1.75
        one_weight(1.0, [1.0, 1.0], mu=0.0, lr=0.5),
        weight_and_bias(),
    ],
    draw=random_training,
    play=play_training,
    oracle=train_fedprox,
    mistakes="""
        the term does nothing: where it is computed, the way from the start is always 0.
        (parameters() is a generator: it is used up after the first batch)
            docstring
            lambda *a: docstring(*a, squared=True)
            mu * (w - s) -> 0
            [w.detach().clone() for w in weights] -> weights
        the pull has the same strength however far the weights are: square the norm
            lambda *a: docstring(*a, kept=True)
        the pull is half as strong as it should be: the gradient of mu / 2 times the
        square is mu times the way
            mu * (w - s) -> mu / 2 * (w - s)
        the pull is twice as strong as it should be: halve mu in the term
            mu * (w - s) -> 2 * mu * (w - s)
        the term pushes the weights away from the start
            mu * (w - s) -> mu * (s - w)
        this pulls the weights to 0: subtract the start
            mu * (w - s) -> mu * w
        your function stops after the first batch
            in batches: -> in batches[:1]:
        the weights do not move: take a step for each batch, with the loss and the term
            g + mu * (w - s) -> mu * (w - s)
        only some of the weights are pulled: the term adds up over all of them
            gradients, start, strict -> gradients, [start[0], *weights[1:]], strict
            gradients, start, strict -> gradients, [*weights[:-1], start[-1]], strict
    """,
    otherwise="the weights should be those after one step for each batch",
)


# ------------------------------------------------------------------ 9.3 train_fedbn


class Clinic(nn.Module):
    """A network whose BatchNorm layers lie at several depths, under several names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        self.scale = nn.BatchNorm1d(3)
        self.bn_like = nn.Linear(3, 2)  # a name is not a kind
        self.group = nn.GroupNorm(1, 2)


def shake(net: nn.Module) -> None:
    """Stand in for training: change all that a network holds, each its own way."""
    with torch.no_grad():
        for number, value in enumerate(net.state_dict().values(), start=1):
            value.mul_(2).add_(number)


def play_rounds(answer: Attempt, net: nn.Module, values: list[float]) -> Iterator:
    """Lead a client through some rounds, and yield what it sends and keeps."""
    state = RecordDict()
    names = net.state_dict()  # of what the server has: later, what clients have sent
    for number, value in enumerate(values, start=1):
        full = {k: torch.full_like(v, value) for k, v in names.items()}
        call = Attempt(lambda *args: answer.function(*args[:2], state, args[2]))
        sent = call(net, ArrayRecord(full), shake, may_change=True)
        for what, record in ("reply", sent), ("state", state.get("norm")):
            if not isinstance(record, ArrayRecord):
                raise Wrong(f"the {what} should be an ArrayRecord", got=record)
            yield f"names in the {what} of round {number}", sorted(record)
            yield f"{what} of round {number}", record.to_torch_state_dict()
        names = {k: v for k, v in names.items() if k not in names_of_norms(net)}


def names_of_norms(net: nn.Module) -> set[str]:
    """Return the names of all arrays that belong to BatchNorm layers."""
    return {
        f"{name}.{key}"
        for name, layer in net.named_modules()
        if isinstance(layer, _BatchNorm)
        for key in layer.state_dict()
    }


def train_fedbn(
    net: nn.Module, arrays: ArrayRecord, state: RecordDict, train_fn: Callable
) -> ArrayRecord:
    """Sort all that the network holds: the oracle."""
    norms = names_of_norms(net)
    loaded = net.state_dict()
    loaded.update(arrays.to_torch_state_dict())
    if "norm" in state:
        loaded.update(state["norm"].to_torch_state_dict())
    net.load_state_dict(loaded)
    train_fn(net)
    after = net.state_dict()
    state["norm"] = ArrayRecord({k: v for k, v in after.items() if k in norms})
    return ArrayRecord({k: v for k, v in after.items() if k not in norms})


FEDBN = Exercise(
    "9.3",
    "a client keeps its own BatchNorm layers, and shares all the rest.",
    cases=[
        Case(Clinic(), [1.0], shown="one round"),
        Case(Clinic(), [1.0, 5.0, 7.0], shown="three rounds"),
    ],
    draw=lambda rng: Case(
        Clinic(), [rng.randint(1, 9) for _ in range(2)], shown="two rounds"
    ),
    play=play_rounds,
    oracle=train_fedbn,
    mistakes="""
        the running statistics belong to the layer, too, and stay: they are buffers, in
        the state_dict and not among the parameters
            names_of_norms(net) -> {k for k in names_of_norms(net) if k.endswith(("weight", "bias"))}
        the counter num_batches_tracked belongs to the layer, too, and stays
            names_of_norms(net) -> {k for k in names_of_norms(net) if "num_batches" not in k}
        weight and bias belong to the layer, too, and stay
            names_of_norms(net) -> {k for k in names_of_norms(net) if not k.endswith(("weight", "bias"))}
        look for the kind of a layer, not for its name
            names_of_norms(net) -> {k for k in net.state_dict() if "bn" in k}
            names_of_norms(net) -> {k for k in net.state_dict() if "norm" in k}
        BatchNorm layers may lie inside others: named_modules() finds them all
            names_of_norms(net) -> {k for k in names_of_norms(net) if k.count(".") == 1}
        GroupNorm has no statistics of a client: it is shared
            names_of_norms(net) -> {k for k in net.state_dict() if k in names_of_norms(net) or "group" in k}
        the client forgets its own layers: put what the state holds into the network
        before it trains
            if "norm" in state: -> if False:
        the client keeps its layers as they were before training: keep them after it
            train_fn(net) -> old = copy.deepcopy(net.state_dict()); train_fn(net)
            & k: v for k, v in after.items() if k in norms -> k: v for k, v in old.items() if k in norms
        the reply holds the arrays from before training: train first
            train_fn(net) -> old = copy.deepcopy(net.state_dict()); train_fn(net)
            & k: v for k, v in after.items() if k not in norms -> k: v for k, v in old.items() if k not in norms
        the BatchNorm layers are sent, too: they stay with the client
            return ArrayRecord({k: v for k, v in after.items() if k not in norms}) -> return ArrayRecord(after)
        this keeps what is to be sent, and sends what is to be kept
            if k in norms} -> if k not in norms}
            & return ArrayRecord({k: v for k, v in after.items() if k not in norms}) -> return ArrayRecord({k: v for k, v in after.items() if k in norms})
        keep the BatchNorm layers alone: all else comes from the server
            if k in norms} -> }
        the server's arrays are not in the network: load them before you train
            loaded.update(arrays.to_torch_state_dict()) -> pass
        nothing was trained: call train_fn
            train_fn(net) -> pass
        train_fn is called once
            train_fn(net) -> train_fn(net); train_fn(net)
    """,  # noqa: E501
    otherwise="the client sends or keeps other arrays than it should",
)
