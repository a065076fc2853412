"""Lesson 00's exercises."""

import copy
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course_utils import model
from course_utils.exercises.engine import Attempt, Case, Exercise
from course_utils.partitions import make_loader

State = dict[str, torch.Tensor]


def random_sizes(rng: random.Random) -> list[int]:
    """Draw two to six different numbers of examples."""
    return rng.sample(range(1, 1000), rng.randint(2, 6))


# -------------------------------------------------------------------------- 0.1 shares


def shares(num_examples: list[int]) -> np.ndarray:
    """Divide all at once: the oracle."""
    n = np.array(num_examples)
    return n / n.sum()


SHARES = Exercise(
    "0.1",
    "you know what each client counts for in Federated Averaging.",
    cases=[
        Case([1, 3], gives=[0.25, 0.75]),
        Case([400], gives=[1.0]),
        Case([2, 0, 2, 4], gives=[0.25, 0.0, 0.25, 0.5]),
    ],
    draw=lambda rng: Case(random_sizes(rng)),
    oracle=shares,
    mistakes="""
        every client counts equally: weight by number of examples
            n / n.sum() -> np.ones(len(n)) / len(n)
        these are percent: shares sum to 1
            n / n.sum() -> 100 * n / n.sum()
        divide by the sum of all examples, not by the largest number or the number of
        clients
            n.sum() -> n.max()
            n.sum() -> len(n)
        these are the numbers of examples: divide each by their sum
            n / n.sum() -> n
        a client without examples has a share, too: it is 0.0
            n / n.sum() -> n[n > 0] / n.sum()
        // cuts off everything after the point: divide by /
            n / n.sum() -> n // n.sum()
    """,
    otherwise="the result should be one share for each client, and not rounded",
)

# -------------------------------------------------------------- 0.2 average_of_updates


def play_updates(
    answer: Attempt, start: State, states: list[State], sizes: list[int]
) -> Iterator[tuple[str, Any]]:
    """Yield the model that comes back, and whether the start was made use of."""
    yield "the new model", answer(start, states, sizes)
    # NaN stays NaN, whatever is computed with it.
    new = answer({k: math.nan * v for k, v in start.items()}, states, sizes)
    yield "computed from the start", all(math.isnan(v.sum()) for v in new.values())


def average_of_updates(start: State, states: list[State], sizes: list[int]) -> State:
    """Add up the updates one by one: the oracle."""
    new, total = dict(start), sum(sizes)
    for state, n in zip(states, sizes, strict=True):
        for name in new:
            update = state[name] - start[name]
            new[name] = new[name] + n / total * update
    return new


def random_models(rng: random.Random) -> Case:
    """Draw a start, clients' models, and how many examples these have."""
    sizes = random_sizes(rng)
    torch.manual_seed(rng.getrandbits(32))
    start, *states = [dict(nn.Linear(2, 3).state_dict()) for _ in [0, *sizes]]
    return Case(start, states, sizes)


UPDATES = Exercise(
    "0.2",
    "averaging models, and adding the average update to the start, are the same.",
    cases=[
        Case(
            {"w": torch.tensor([2.0])},
            [{"w": torch.tensor([1.0])}, {"w": torch.tensor([8.0])}],
            [1, 3],
            gives={"the new model": {"w": [6.25]}},
        )
    ],
    draw=random_models,
    play=play_updates,
    oracle=average_of_updates,
    mistakes="""
        this is the average update alone: add it to the start
            dict(start) -> {k: 0 * v for k, v in start.items()}
        every client counts equally: weight by number of examples
            n / total -> 1 / len(sizes)
        the update has the wrong sign: it is the client's model minus the start
            state[name] - start[name] -> start[name] - state[name]
        this adds up too much: weight each update by its client's share of all examples,
        so that the weights sum to 1
            n / total * ->
            n / total -> n
            n / total -> n / len(sizes)
        these are the clients' models, averaged and added to the start: subtract the
        start from each first
            state[name] - start[name] -> state[name]
        this averages the models, which comes to the same. Here the updates are to be
        computed: subtract the start, average, add
            lambda start, states, sizes: model.weighted_average(states, sizes)
    """,
    otherwise="the result should be the new global model",
)

# -------------------------------------------------------------------- 0.3 fedavg_round


def shift(net: nn.Module, loader: DataLoader) -> None:
    """Stand in for training: halve the model, and add the mean of the client's data."""
    mean = loader.dataset.tensors[0].mean()
    for value in net.state_dict().values():
        # Not linear, so that training twice differs from averaging.
        value.mul_(0.5).add_(mean)


def clients(sizes: list[int], start: float | None = None, **gives: Any) -> Case:
    """Make a case of clients with so many examples, whose data are 1, 3, 5, ..."""
    net = nn.Linear(2, 2)
    net.register_buffer("seen", torch.rand(2))  # state that is no parameter
    for value in net.state_dict().values():
        value.copy_(value if start is None else torch.tensor(start))
    data = [torch.full((n, 1), 2.0 * i + 1) for i, n in enumerate(sizes)]
    loaders = [make_loader(TensorDataset(x, torch.zeros(len(x)))) for x in data]
    return Case(net, loaders, shift, shown=f"clients with {sizes} examples", **gives)


def lead(global_net: nn.Module, loaders: list, train_fn: Callable) -> State:
    """Train one copy after the other: the oracle."""
    states, sizes = [], []
    for loader in loaders:
        net = copy.deepcopy(global_net)
        train_fn(net, loader)
        states.append(net.state_dict())
        sizes.append(len(loader.dataset))
    return model.weighted_average(states, sizes)


ROUND = Exercise(
    "0.3",
    "you have written a whole round of Federated Averaging.",
    # Of 10 and 30 examples, the loaders make 1 and 2 batches.
    cases=[
        clients(
            [10, 30],
            start=10.0,  # trained, the models are 6 and 8
            gives={"weight": [[7.5, 7.5]] * 2, "bias": [7.5] * 2, "seen": [7.5] * 2},
        ),
        clients(
            [10, 10, 20],
            start=4.0,  # trained, 3, 5 and 7; one after the other, 3, 4.5 and 7.25
            gives={"weight": [[5.5, 5.5]] * 2, "bias": [5.5] * 2, "seen": [5.5] * 2},
        ),
    ],
    draw=lambda rng: clients(random_sizes(rng)),
    oracle=lead,
    mistakes="""
        each client must start from the global model, not from the model that the client
        before it has trained
            net = copy -> net = net if states else copy
            & append(net.state_dict()) -> append(copy.deepcopy(net.state_dict()))
        every client counts equally: weight by number of examples
            len(loader.dataset) -> 1
        this is the last client's model: average all. Does a list hold net.state_dict()
        of one net again and again? These are the same tensors: copy them
            net = copy -> net = net if states else copy
            model.weighted_average(states, sizes) -> states[-1]
        this is one client's model: average all of them
            model.weighted_average(states, sizes) -> states[0]
        nothing was trained: this is the global model as it was
            train_fn(net, loader) -> pass
        weight by number of examples, not of batches
            len(loader.dataset) -> len(loader)
        the state_dict holds more than the parameters: buffers, such as the running
        means of a BatchNorm, are averaged, too
            net.state_dict() -> {k: v.detach() for k, v in net.named_parameters()}
            sizes) -> sizes) | dict(global_net.named_buffers())
        the global model need not be a Net: copy the one you are given by
        copy.deepcopy(global_net)
            copy.deepcopy(global_net) -> model.Net()
            & train_fn( -> net.load_state_dict(global_net.state_dict()); train_fn(
        loaders holds loaders, not pairs of loaders: for loader in loaders
            for loader in -> for loader, _ in
        count the examples of the loaders that you are given
            (states, sizes) -> (states, [400] * 10)
        train_fn changes net in place: use net, not what train_fn returns
            train_fn(net, loader) -> net = train_fn(net, loader)
            append(net.state_dict()) -> append(train_fn(net, loader))
            append(net.state_dict()) -> append(dict(train_fn(net, loader)))
    """,
    otherwise="the result should be the weighted average of the clients' models",
)
