"""Lesson 11's exercises."""

import random
from typing import Any

import numpy as np
import torch

from course_utils.exercises.engine import Case, Exercise

# ---------------------------------------------------------------------- 11.1 input_of


def divided(weight_grad: torch.Tensor, bias_grad: torch.Tensor) -> torch.Tensor | None:
    """Look through the neurons: the oracle."""
    sizes = bias_grad.abs().tolist()
    if not any(sizes):
        return None
    i = sizes.index(max(sizes))
    return weight_grad[i] / bias_grad[i]


def layer_of(bias: list[float], inputs: list[list[float]], **gives: Any) -> Case:
    """Make the case of a layer, in which each neuron saw a slightly other input."""
    bias_grad = torch.tensor(bias)
    return Case(bias_grad[:, None] * torch.tensor(inputs), bias_grad, **gives)


def random_layer(rng: random.Random) -> Case:
    """Draw a layer's gradients, with the rounding of small ones."""
    image = [rng.uniform(-1, 1) for _ in range(rng.randint(3, 6))]
    bias = [rng.choice([0.0, rng.uniform(-1, 1)]) for _ in range(rng.randint(3, 6))]
    rows = [[pixel + rng.uniform(-0.1, 0.1) for pixel in image] for _ in bias]
    return layer_of([*bias, -2.0, 1.0], [*rows, image, image])


INPUT = Exercise(
    "11.1",
    "you read a dense layer's input out of its gradients.",
    cases=[
        layer_of(
            [2.0, 4.0, -8.0, 1.0, 3.0],
            [[1.0, 2.0], [1.25, 2.25], [1.5, 2.5], [1.75, 2.75], [2.0, 3.0]],
            gives=torch.tensor([1.5, 2.5]),
        ),
        layer_of(
            [0.0, 0.5, 2.0],
            [[0.0, 0.0], [3.0, 1.0], [2.0, 1.0]],
            gives=torch.tensor([2.0, 1.0]),
        ),
        layer_of([0.0, 0.0], [[1.0, 2.0], [3.0, 4.0]], gives=None),
    ],
    draw=random_layer,
    oracle=divided,
    mistakes="""
        take the neuron whose bias gradient is largest in size, not the first one
            sizes.index(max(sizes)) -> 0
        take the neuron whose bias gradient is largest in size, not the last one
            sizes.index(max(sizes)) -> -1
        a bias gradient may be negative: the largest in size is meant
            bias_grad.abs() -> bias_grad
        this is the smallest in size, which is all rounding: take the largest
            max(sizes) -> min(sizes)
        this is a row of the gradient: divide it by the gradient of its bias
            weight_grad[i] / bias_grad[i] -> weight_grad[i]
        this is upside down: divide the weights' gradient by the bias's
            weight_grad[i] / bias_grad[i] -> bias_grad[i] / weight_grad[i]
        the sign counts: divide by the bias's gradient as it is
            / bias_grad[i] -> / sizes[i]
        this is what every neuron says: one is enough
            weight_grad[i] / bias_grad[i] -> weight_grad / bias_grad[:, None]
        this mixes all neurons: one is enough
            weight_grad[i] / bias_grad[i] -> weight_grad.sum(dim=0) / bias_grad.sum()
            weight_grad[i] / bias_grad[i] -> (weight_grad / bias_grad[:, None]).mean(0)
        if no neuron has a gradient, nothing can be divided: return None
            not any(sizes) -> False
            return None -> return torch.zeros(weight_grad.shape[1])
            return None -> return torch.full(weight_grad.shape[1:], torch.nan)
    """,
    otherwise="the result should be one neuron's weight gradient, divided by its bias "
    "gradient",
)

# --------------------------------------------------------------------- 11.2 counts_of


def counted(
    bias_grad: torch.Tensor, usual: torch.Tensor, num_examples: int
) -> list[int]:
    """Count in NumPy: the oracle."""
    shares = (usual - bias_grad).double().numpy()
    guess = np.maximum(num_examples * shares, 0)
    counts = np.floor(guess)
    missing = int(num_examples - counts.sum())
    lost = guess - counts
    for label in np.argsort(-lost)[:missing]:
        counts[label] += 1
    return [int(count) for count in counts]


def bias_of(guess: list[float], usual: list[float], **gives: Any) -> Case:
    """Make the case whose guess, before it is rounded, is this."""
    size = round(sum(guess))
    probabilities = torch.tensor(usual)
    return Case(
        probabilities - torch.tensor(guess) / size, probabilities, size, **gives
    )


def random_bias(rng: random.Random) -> Case:
    """Draw counts, and a model that is not quite sure of its probabilities."""
    labels = rng.randint(4, 10)
    counts = [rng.choice([0, rng.randint(1, 9)]) for _ in range(labels)]
    counts[rng.randrange(labels)] += 5
    noise = [rng.uniform(-0.05, 0.05) for _ in counts]
    guess = [c + n - sum(noise) / labels for c, n in zip(counts, noise, strict=True)]
    usual = [rng.uniform(1, 2) for _ in counts]
    return bias_of(guess, [each / sum(usual) for each in usual])


COUNTS = Exercise(
    "11.2",
    "you read out of a head's bias how many examples of each label a client has.",
    cases=[
        bias_of([3.7, 0.6, 2.9, 0.8], [0.25, 0.25, 0.25, 0.25], gives=[4, 0, 3, 1]),
        bias_of([2.4, 1.7, 4.9], [0.5, 0.3, 0.2], gives=[2, 2, 5]),
        bias_of([-0.8, 5.5, 3.3], [0.2, 0.5, 0.3], gives=[0, 5, 3]),
        bias_of([0.1, 0.9], [0.6, 0.4], gives=[0, 1]),
    ],
    draw=random_bias,
    oracle=counted,
    mistakes="""
        the gradient is probability less share: the share is usual - bias_grad
            (usual - bias_grad) -> (usual + bias_grad)
            (usual - bias_grad) -> (bias_grad - usual)
        the gradient alone is not the share: the usual probability is in it, too
            (usual - bias_grad) -> (-bias_grad)
        the model need not find all labels equally likely: use usual
            (usual - bias_grad) -> (1 / len(usual) - bias_grad)
        these are shares: times num_examples, they are numbers of examples
            num_examples * shares -> shares
            return [int(count) for count in counts] -> return shares.tolist()
        rounded one by one, they need not add up: round down, then give out what is
        missing
            return [int(count) for count in counts] -> return np.rint(guess).tolist()
        rounded down, some are missing: give them to the labels that lost most
            [:missing] -> [:0]
        give one to each of the labels that lost most, not all to the first of them
            counts[label] += 1 -> counts[np.argmax(lost)] += 1
        give what is missing to the labels that lost most, not to the most frequent
            np.argsort(-lost) -> np.argsort(-guess)
        these lost least by rounding down: give what is missing to those that lost most
            np.argsort(-lost) -> np.argsort(lost)
        no label has fewer than no example: take negative guesses for 0
            np.maximum(num_examples * shares, 0) -> num_examples * shares
        these are not whole numbers yet
            return [int(count) for count in counts] -> return guess.tolist()
    """,
    otherwise="the result should be a list with the number of examples of each label",
)

# ----------------------------------------------------------------- 11.3 gradient_sent

State = dict[str, torch.Tensor]


def solved(old: State, new: State, lr: float, weight_decay: float) -> State:
    """Undo the decay first: the oracle."""
    names = [name for name in old if old[name].is_floating_point()]
    return {n: (old[n] - new[n] - lr * weight_decay * old[n]) / lr for n in names}


def step_of(
    weights: list, gradient: list, lr: float, decay: float, **gives: Any
) -> Case:
    """Make the case of one step, in a model that also has two counters."""
    old, g = torch.tensor(weights), torch.tensor(gradient)
    new = old - lr * (g + decay * old)
    counters = ("norm.num_batches_tracked", "age")
    states = (
        {"head.weight": value, **{name: torch.tensor(count) for name in counters}}
        for value, count in ((old, 3), (new, 4))
    )
    return Case(*states, lr, decay, **gives)


def random_step(rng: random.Random) -> Case:
    """Draw a step."""
    size = rng.randint(2, 4)
    rows = [[rng.uniform(-1, 1) for _ in range(size)] for _ in range(2)]
    return step_of(*rows, rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.5))


SENT = Exercise(
    "11.3",
    "you turn the weights that a client sends into the gradient that it keeps.",
    cases=[
        step_of([1.0, -2.0], [0.5, 0.25], 0.5, 0.0, gives={"head.weight": [0.5, 0.25]}),
        step_of(
            [1.0, -2.0], [0.5, 0.25], 0.5, 0.25, gives={"head.weight": [0.5, 0.25]}
        ),
    ],
    draw=random_step,
    oracle=solved,
    mistakes="""
        a step goes against the gradient: take old - new
            (old[n] - new[n] - -> (new[n] - old[n] -
            (old[n] - new[n] - -> (new[n] - old[n] +
        the weight decay is still in it: take it off
            - lr * weight_decay * old[n] ->
        the weight decay has to be subtracted, not added
            new[n] - lr -> new[n] + lr
        the weights decay by a share of the old ones, not of the new
            weight_decay * old[n] -> weight_decay * new[n]
        a step is lr times as long: divide by lr
            ) / lr -> )
            ) / lr -> ) * lr
            lr * weight_decay * old[n]) / lr -> weight_decay * old[n]) / lr
        the decay is not divided by lr twice: gradient and decay share one lr
            lr * weight_decay * old[n] -> weight_decay * old[n] / lr
        a counter has no gradient: leave out what is no floating-point tensor
            if old[name].is_floating_point() ->
        a counter may have any name: leave out what is no floating-point tensor
            old[name].is_floating_point() -> not name.endswith("num_batches_tracked")
        these are the weights: return the gradient
            (old[n] - new[n] - lr * weight_decay * old[n]) / lr -> new[n]
    """,
    otherwise="the result should be the gradient of each weight, by name",
)

# --------------------------------------------------------------------- 11.4 membership

PARTS = ("the AUC", "the share of members found")


def ranked(
    members: list[float], others: list[float], allowed: float
) -> tuple[float, float]:
    """Compare all pairs, and try all thresholds: the oracle."""
    inside, outside = np.array(members), np.array(others)
    column = inside[:, None]
    auc = ((column < outside) + 0.5 * (column == outside)).mean()
    found = 0.0
    for t in [*members, *others]:
        accused = np.mean(outside <= t)
        if accused <= allowed:
            found = max(found, np.mean(inside <= t))
    return auc, found


def random_losses(rng: random.Random) -> Case:
    """Draw losses, some of them alike."""
    members = [round(rng.uniform(0, 2), 1) for _ in range(rng.randint(4, 9))]
    others = [round(rng.uniform(0.2, 4), 1) for _ in range(rng.randint(10, 15))]
    return Case(members, others, rng.choice([0.0, 0.1, 0.2, 0.5]))


MEMBERSHIP = Exercise(
    "11.4",
    "you can say how well a loss tells members from others.",
    cases=[
        Case(
            [0.1, 0.2, 0.35, 0.6], [0.3, 0.6, 0.7, 0.8, 1.0], 0.2, gives=(0.875, 0.75)
        ),
        Case([0.1, 0.5, 0.6], [0.4, 0.2, 0.8, 0.9], 0.25, gives=(8 / 12, 1 / 3)),
        Case([0.5, 0.5, 0.7], [0.5, 0.9], 0.0, gives=(4 / 6, 0.0)),
        Case([1.0, 3.0], [0.5, 2.0, 2.5], 0.4, gives=(1 / 3, 0.5)),
    ],
    draw=random_losses,
    oracle=ranked,
    parts=PARTS,
    mistakes="""
        where both have the same loss, a pair counts half
            + 0.5 * (column -> + 1.0 * (column
            + 0.5 * (column -> + 0.0 * (column
        a member should have the lower loss: this is the other way round
            (column < outside) -> (column > outside)
        this is a number of pairs: divide it by how many there are
            == outside)).mean() -> == outside)).sum()
        compare each member with each of the others, and not with one of them
            (column < outside) -> (column < outside[:1])
            & (column == outside) -> (column == outside[:1])
            (column < outside) -> (column < outside.mean())
            & (column == outside) -> (column == outside.mean())
        the loss of a member is a threshold, too
            [*members, *others] -> others
        as many others as are allowed may be accused
            accused <= allowed -> accused < allowed
        count the others that are accused: these are members
            np.mean(outside <= t) -> np.mean(inside <= t)
        take the threshold that finds most members
            max(found, -> min(found or 1.0,
        this is the share of others that are accused: count the members
            max(found, np.mean(inside <= t)) -> max(found, accused)
        this is a number of members: return their share
            max(found, np.mean(inside <= t)) -> max(found, np.sum(inside <= t))
        the AUC comes first
            return auc, found -> return found, auc
    """,
    otherwise={
        PARTS[0]: "the AUC should be the share of pairs in which the member has the "
        "lower loss",
        PARTS[1]: "the share found should be the largest that any threshold allows",
    },
)
