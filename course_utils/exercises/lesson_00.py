"""Judges of lesson 00's exercises."""

import random

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course_utils.exercises import Attempt, Wrong, close, exercise
from course_utils.partitions import make_loader

State = dict[str, torch.Tensor]


def random_sizes(rng: random.Random) -> list[int]:
    """Draw two to six different numbers of examples."""
    return rng.sample(range(1, 1000), rng.randint(2, 6))


def random_state(rng: random.Random) -> State:
    """Draw a small model's state_dict."""
    values = torch.Generator().manual_seed(rng.getrandbits(32))
    return {
        "weight": torch.randn(3, 2, generator=values),
        "bias": torch.randn(3, generator=values),
    }


def combine(states: list[State], weights: list[float]) -> State:
    """Sum states, each times its weight: the oracle, tensor by tensor."""
    return {
        name: torch.tensordot(
            torch.tensor(weights, dtype=torch.float32),
            torch.stack([state[name] for state in states]),
            dims=1,
        )
        for name in states[0]
    }


def shares_of(sizes: list[int]) -> list[float]:
    """Return every size as a share of them all."""
    return [size / sum(sizes) for size in sizes]


@exercise("0.1", "you know what each client counts for in Federated Averaging.")
def judge_shares(answer: Attempt, rng: random.Random) -> None:
    """Compare on two hand cases and on random sizes."""
    mistakes = {
        "every client counts equally: weight by number of examples": (
            lambda sizes: [1 / len(sizes)] * len(sizes)
        ),
        "these are percent: shares sum to 1": (
            lambda sizes: [100 * share for share in shares_of(sizes)]
        ),
        "divide by the sum of all examples, not by the largest number": (
            lambda sizes: [size / max(sizes) for size in sizes]
        ),
        "these are the numbers of examples: divide each by their sum": list,
        "// cuts off everything after the point: divide by /": (
            lambda sizes: [size // sum(sizes) for size in sizes]
        ),
    }
    for sizes in ([1, 3], [400], *(random_sizes(rng) for _ in range(3))):
        answer.compare(
            shares_of, sizes, mistakes=mistakes, wanted="one share for each client"
        )


@exercise(
    "0.2",
    "averaging models, and adding the average update to the start, are the same.",
)
def judge_average_of_updates(answer: Attempt, rng: random.Random) -> None:
    """Compare on a hand case and on random models."""

    def right(start: State, states: list[State], sizes: list[int]) -> State:
        return combine(states, shares_of(sizes))

    def without_start(start: State, states: list[State], sizes: list[int]) -> State:
        return combine([right(start, states, sizes), start], [1, -1])

    mistakes = {
        "this is the average update alone: add it to the start": without_start,
        "every client counts equally: weight by number of examples": (
            lambda start, states, sizes: combine(states, [1 / len(sizes)] * len(sizes))
        ),
        "the update has the wrong sign: it is the client's model minus the start": (
            lambda start, states, sizes: combine(
                [start, right(start, states, sizes)], [2, -1]
            )
        ),
        "this adds up the updates: average them": (
            lambda start, states, sizes: combine(
                [*states, start], [*[1] * len(sizes), 1 - len(sizes)]
            )
        ),
        "divide by the number of all examples: the updates are only summed": (
            lambda start, states, sizes: combine(
                [start, without_start(start, states, sizes)], [1, sum(sizes)]
            )
        ),
    }
    small = [{"w": torch.tensor([value])} for value in (2.0, 1.0, 8.0)]
    cases = [(small[0], small[1:], [1, 3])]
    for _ in range(3):
        sizes = random_sizes(rng)
        states = [random_state(rng) for _ in range(len(sizes) + 1)]
        cases.append((states[0], states[1:], sizes))
    for case in cases:
        answer.compare(right, *case, mistakes=mistakes, wanted="the new global model")


def why_raised(sentence: str) -> str:
    """Say what an answer to 0.3 that raises has not thought of."""
    reasons = {
        "loading state_dict for": (
            "the global model need not be a Net: copy the one you are given by "
            "copy.deepcopy(global_net)"
        ),
        "not enough values to unpack": (
            "loaders holds loaders, not pairs of loaders: for loader in loaders"
        ),
        " numbers of examples: give one": (
            "count the examples of the loaders that you are given"
        ),
        "'NoneType' object has no attribute 'state_dict'": (
            "train_fn changes net in place: use net, not what train_fn returns"
        ),
    }
    return next((r for part, r in reasons.items() if part in sentence), sentence)


def shift(net: nn.Module, loader: DataLoader) -> None:
    """Stand in for training: move all parameters by the mean of the client's data."""
    mean = loader.dataset.tensors[0].mean()
    with torch.no_grad():
        for parameter in net.parameters():
            # Not linear, so that training twice differs from averaging.
            parameter.mul_(0.5).add_(mean)


@exercise("0.3", "you have written a whole round of Federated Averaging.")
def judge_fedavg_round(answer: Attempt, rng: random.Random) -> None:
    """Let it lead rounds over clients whose training is known."""
    # Of 10 and 30 examples, the loaders make 1 and 2 batches.
    for sizes in ([10, 30], random_sizes(rng), random_sizes(rng)):
        torch.manual_seed(rng.getrandbits(32))
        net = nn.Linear(2, 2)
        loaders = [
            make_loader(TensorDataset(torch.full((size, 1), float(i + 1))))
            for i, size in enumerate(sizes)
        ]
        start = {k: v.clone() for k, v in net.state_dict().items()}
        trained = [
            {name: 0.5 * value + (i + 1) for name, value in start.items()}
            for i in range(len(sizes))
        ]
        chained, chain = [], start
        for i in range(len(sizes)):
            chain = {name: 0.5 * value + (i + 1) for name, value in chain.items()}
            chained.append(chain)
        shares = shares_of(sizes)
        equal = [1 / len(sizes)] * len(sizes)
        try:
            got = answer(net, loaders, shift)
        except Wrong as wrong:
            raise Wrong(
                why_raised(str(wrong)), given=f"clients with {sizes} examples"
            ) from None
        if isinstance(got, nn.Module):
            raise Wrong("return the new state_dict, not a network")
        named = {
            "each client must start from the global model, not from the model that "
            "the client before it has trained": combine(chained, shares),
            "every client counts equally: weight by number of examples": combine(
                trained, equal
            ),
            "this is the last client's model: average all of them": chained[-1],
            "nothing was trained: this is the global model as it was": start,
            "this is one client's model: average all of them": trained[-1],
            "weight by number of examples, not of batches": combine(
                trained, shares_of([len(loader) for loader in loaders])
            ),
        }
        expected = combine(trained, shares)
        if close(got, expected):
            continue
        for sentence, made in named.items():
            if close(got, made) and not close(made, expected):
                raise Wrong(sentence, given=f"clients with {sizes} examples")
        raise Wrong(
            "the result should be the weighted average of the clients' models",
            given=f"clients with {sizes} examples",
            expected=expected,
            got=got,
        )
