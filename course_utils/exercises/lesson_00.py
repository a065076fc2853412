"""Lesson 00's exercises."""

import copy
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course_utils.exercises.engine import Attempt, Case, Exercise
from course_utils.model import Net, weighted_average
from course_utils.partitions import make_loader

State = dict[str, torch.Tensor]


def random_sizes(rng: random.Random) -> list[int]:
    """Draw two to six different numbers of examples."""
    return rng.sample(range(1, 1000), rng.randint(2, 6))


# -------------------------------------------------------------------------- 0.1 shares

SHARES = Exercise(
    "0.1",
    "you know what each client counts for in Federated Averaging.",
    cases=[
        Case([1, 3], gives=[0.25, 0.75]),
        Case([400], gives=[1.0]),
        Case([3, 0, 1], gives=[0.75, 0.0, 0.25]),
    ],
    draw=lambda rng: Case(random_sizes(rng)),
    oracle=lambda sizes: torch.tensor(sizes) / sum(sizes),
    mistakes={
        "every client counts equally: weight by number of examples": (
            lambda sizes: [1 / len(sizes)] * len(sizes)
        ),
        "these are percent: shares sum to 1": (
            lambda sizes: [100 * n / sum(sizes) for n in sizes]
        ),
        "divide by the sum of all examples, not by the largest number": (
            lambda sizes: [n / max(sizes) for n in sizes]
        ),
        "divide by the sum of all examples, not by the number of clients": (
            lambda sizes: [n / len(sizes) for n in sizes]
        ),
        "these are the numbers of examples: divide each by their sum": list,
        "// cuts off everything after the point: divide by /": (
            lambda sizes: [n // sum(sizes) for n in sizes]
        ),
        "these are rounded: keep all that stands after the point": [
            lambda sizes, digits=digits: [round(n / sum(sizes), digits) for n in sizes]
            for digits in (0, 1, 2, 3)
        ],
    },
    otherwise="the result should be one share for each client",
)

# -------------------------------------------------------------- 0.2 average_of_updates


class Watched(dict):
    """A dictionary that knows whether any of its values was ever read."""

    read = False

    def _noted(name: str) -> Callable:
        def method(self: "Watched", *args: Any) -> Any:
            self.read = True
            return getattr(dict, name)(self, *args)

        return method

    __getitem__, get, items, values, copy = map(
        _noted, ("__getitem__", "get", "items", "values", "copy")
    )

    def __iter__(self) -> Iterator[str]:
        """Make ``dict(...)`` of it ask for each value."""
        return super().__iter__()


def play_updates(answer: Attempt, *args: Any) -> Iterator[tuple[str, Any]]:
    """Yield the model that comes back, and whether the start was made use of."""
    read = []

    def call(start: State, states: list[State], sizes: list[int]) -> State:
        watched = Watched(start)
        got = answer.function(watched, states, sizes)
        read.append(watched.read)
        start.clear()
        start |= dict.items(watched)  # so that a change of it is seen
        return got

    yield "the new model", Attempt(call)(*args)
    yield "whether the start is used", read[0]


def average_of_updates(
    start: State,
    states: list[State],
    sizes: list[int],
    *,
    weigh: Callable = lambda n, sizes: n / sum(sizes),
    add: Callable = torch.add,
    update: Callable = lambda state, start: state - start,
) -> State:
    """Do the exercise tensor by tensor, perhaps with a slip."""
    weights = torch.tensor([float(weigh(n, sizes)) for n in sizes])
    return {
        name: add(
            start[name],
            torch.tensordot(
                weights,
                torch.stack([update(state[name], start[name]) for state in states]),
                dims=1,
            ),
        )
        for name in start
    }


def random_models(rng: random.Random) -> Case:
    """Draw a start, clients' models, and how many examples these have."""
    values = torch.Generator().manual_seed(rng.getrandbits(32))
    sizes = random_sizes(rng)
    models = [
        {
            "weight": torch.randn(3, 2, generator=values),
            "bias": torch.randn(3, generator=values),
        }
        for _ in range(len(sizes) + 1)
    ]
    return Case(models[0], models[1:], sizes)


def in_place(start: State, states: list[State], sizes: list[int]) -> State:
    """Add to the start itself."""
    for name in start:
        start[name] += average_of_updates(start, states, sizes)[name] - start[name]
    return start


slip = partial(partial, average_of_updates)

UPDATES = Exercise(
    "0.2",
    "averaging models, and adding the average update to the start, are the same.",
    cases=[
        Case(
            {"w": torch.tensor([2.0])},
            [{"w": torch.tensor([1.0])}, {"w": torch.tensor([8.0])}],
            [1, 3],
            gives={"the new model": {"w": [6.25]}, "whether the start is used": True},
        )
    ],
    draw=random_models,
    play=play_updates,
    oracle=average_of_updates,
    mistakes={
        "this is the average update alone: add it to the start": slip(
            add=lambda start, average: average
        ),
        "every client counts equally: weight by number of examples": slip(
            weigh=lambda n, sizes: 1 / len(sizes)
        ),
        "the update has the wrong sign: it is the client's model minus the start": slip(
            add=torch.sub
        ),
        "this adds up the updates: average them": slip(weigh=lambda n, sizes: 1),
        "divide by the number of all examples: the updates are only summed": slip(
            weigh=lambda n, sizes: n
        ),
        "divide by the number of all examples, not by that of clients": slip(
            weigh=lambda n, sizes: n / len(sizes)
        ),
        "these are the clients' models, averaged and added to the start: subtract the "
        "start from each first": slip(update=lambda state, start: state),
        "your function changed what it was given: work on a copy": in_place,
        "this averages the models, which comes to the same. Here the updates are to be "
        "computed: subtract the start, average, add": (
            lambda start, states, sizes: weighted_average(states, sizes)
        ),
    },
    otherwise="the result should be the new global model",
)

# -------------------------------------------------------------------- 0.3 fedavg_round


class Small(nn.Linear):
    """A network with a buffer, as BatchNorm has some: state that is no parameter."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.register_buffer("seen", torch.ones(2))


def shift(net: nn.Module, loader: DataLoader) -> None:
    """Stand in for training: halve the model, and add the mean of the client's data."""
    mean = loader.dataset.tensors[0].mean()
    with torch.no_grad():
        for value in net.state_dict().values():
            # Not linear, so that training twice differs from averaging.
            value.mul_(0.5).add_(mean)


def clients(sizes: list[int], start: float | None = None, **gives: Any) -> Case:
    """Make a case of clients with so many examples, whose data are 1, 3, 5, ..."""
    net = Small()
    if start is not None:
        net.load_state_dict(
            {k: torch.full_like(v, start) for k, v in net.state_dict().items()}
        )
    loaders = [
        make_loader(
            TensorDataset(torch.full((n, 1), 2.0 * i + 1), torch.zeros(n).long())
        )
        for i, n in enumerate(sizes)
    ]
    return Case(net, loaders, shift, shown=f"clients with {sizes} examples", **gives)


def by_arithmetic(net: nn.Module, loaders: list[DataLoader], train_fn: Any) -> State:
    """Do without networks: the oracle."""
    sizes = [len(loader.dataset) for loader in loaders]
    mean = sum(n * (2 * i + 1) for i, n in enumerate(sizes)) / sum(sizes)
    return {k: 0.5 * v + mean for k, v in net.state_dict().items()}


def lead(
    net: nn.Module,
    loaders: list[DataLoader],
    train_fn: Callable,
    *,
    new: Callable = copy.deepcopy,
    one_for_all: bool = False,
    train: Callable = lambda train_fn, net, loader: train_fn(net, loader) or net,
    keep: Callable = lambda net: copy.deepcopy(net.state_dict()),
    size: Callable = lambda loader: len(loader.dataset),
    merge: Callable = weighted_average,
) -> Any:
    """Lead a round, perhaps with a slip."""
    states, own = [], new(net)
    for loader in loaders:
        own = own if one_for_all else new(net)
        states.append(keep(train(train_fn, own, loader)))
    return merge(states, [size(loader) for loader in loaders])


def new_net(net: nn.Module) -> nn.Module:
    """Make the course's network, whatever the global one is."""
    own = Net()
    own.load_state_dict(net.state_dict())
    return own


def pairs(net: nn.Module, loaders: list, train_fn: Callable) -> State:
    """Take each loader for a pair of loaders."""
    return lead(net, [loader for loader, _ in loaders], train_fn)


def last(states: list[State], sizes: list[int]) -> State:
    """Return the last model alone."""
    return states[-1]


def reloaded(net: nn.Module, loaders: list[DataLoader], train_fn: Callable) -> State:
    """Load the start into one network again and again, and keep no copies."""
    own, states = copy.deepcopy(net), []
    for loader in loaders:
        own.load_state_dict(net.state_dict())
        train_fn(own, loader)
        states.append(own.state_dict())
    return weighted_average(states, [len(loader.dataset) for loader in loaders])


slip = partial(partial, lead)

ROUND = Exercise(
    "0.3",
    "you have written a whole round of Federated Averaging.",
    # Of 10 and 30 examples, the loaders make 1 and 2 batches.
    cases=[
        clients(
            [10, 30],
            start=8.0,  # trained, the models are 5 and 7
            gives={"weight": [[6.5, 6.5]] * 2, "bias": [6.5] * 2, "seen": [6.5] * 2},
        )
    ],
    draw=lambda rng: clients(random_sizes(rng)),
    oracle=by_arithmetic,
    mistakes={
        "each client must start from the global model, not from the model that the "
        "client before it has trained": slip(one_for_all=True),
        "your function changed what it was given: work on a copy": slip(
            new=lambda net: net
        ),
        "every client counts equally: weight by number of examples": slip(
            size=lambda loader: 1
        ),
        "this is the last client's model, trained on from that of the others: average "
        "all. Does a list hold net.state_dict() of one net again and again? These are "
        "the same tensors: copy them": [
            slip(one_for_all=True, keep=lambda net: net.state_dict()),
            slip(one_for_all=True, merge=last),
        ],
        "this is the last client's model: average all of them. Does a list hold "
        "net.state_dict() of one net again and again? These are the same tensors: "
        "copy them": [reloaded, slip(merge=last)],
        "this is one client's model: average all of them": slip(
            merge=lambda states, sizes: states[0]
        ),
        "nothing was trained: this is the global model as it was": [
            slip(train=lambda train_fn, net, loader: net),
            lambda net, loaders, train_fn: net.state_dict(),
        ],
        "weight by number of examples, not of batches": slip(size=len),
        "the state_dict holds more than the parameters: buffers, such as the running "
        "means of a BatchNorm, are averaged, too": [
            slip(keep=lambda net: {k: v.detach() for k, v in net.named_parameters()}),
            lambda *args: lead(*args) | dict(args[0].named_buffers()),
        ],
        "return the new state_dict, not a network": (
            lambda net, loaders, train_fn: copy.deepcopy(net)
        ),
        "the global model need not be a Net: copy the one you are given by "
        "copy.deepcopy(global_net)": slip(new=new_net),
        "loaders holds loaders, not pairs of loaders: for loader in loaders": pairs,
        "count the examples of the loaders that you are given": (
            slip(merge=lambda states, sizes: weighted_average(states, [400] * 10))
        ),
        "train_fn changes net in place: use net, not what train_fn returns": [
            slip(train=lambda train_fn, net, loader: train_fn(net, loader)),
            slip(train=lambda train_fn, net, loader: train_fn(net, loader), keep=dict),
            slip(
                train=lambda train_fn, net, loader: train_fn(net, loader),
                keep=lambda state: state,
            ),
        ],
    },
    otherwise="the result should be the weighted average of the clients' models",
)
