"""Lesson 03's exercises."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Message,
    MetricRecord,
    RecordDict,
)
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from course_utils.exercises.engine import Attempt, Case, Exercise
from course_utils.exercises.messages import (
    REPLY,
    ask,
    content_facts,
    instruction,
    reply_facts,
)
from course_utils.model import Net  # noqa: F401 (edits use it)
from course_utils.partitions import make_loader

State = dict[str, torch.Tensor]


def order(arrays: State, message_type: str = "train") -> Message:
    """Make a message that brings a model, and a config as Flower's strategies do."""
    config = ConfigRecord({"lr": 0.5, "server-round": 1})
    content = RecordDict({"arrays": ArrayRecord(arrays), "config": config})
    return instruction(content, message_type)


def reply(message: Message, metrics: dict[str, Any], arrays: Any = None) -> Message:
    """Reply with metrics, and with arrays if there are any."""
    content = RecordDict({"metrics": MetricRecord(metrics)})
    if arrays is not None:
        content["arrays"] = ArrayRecord(arrays)
    return Message(content, reply_to=message)


def random_state(rng: random.Random, **shapes: tuple[int, ...]) -> State:
    """Draw a state_dict of these shapes."""
    values = torch.Generator().manual_seed(rng.getrandbits(32))
    return {
        name: torch.randn(*shape, generator=values) for name, shape in shapes.items()
    }


def loader_of(images: torch.Tensor, labels: list[int], batch_size: int) -> DataLoader:
    """Make a loader in a fixed order."""
    examples = TensorDataset(images, torch.tensor(labels))
    return make_loader(examples, batch_size=batch_size)


TWO_RECORDS = REPLY | {
    "records": 'the reply should hold two records, "arrays" and "metrics", by the '
    "names that all clients use, and nothing else of what came with the message"
}

# --------------------------------------------------------------------- 3.1 pack_reply


def play_pack(answer: Attempt, came: State, *args: Any) -> Iterator[tuple[str, Any]]:
    """Yield what is packed, as an answer to a message that brought another model."""
    yield from reply_facts(answer, order(came), *args)


def pack(message: Message, state: State, loss: Any, size: int) -> Message:
    """Pack array by array: the oracle."""
    arrays = {name: Array(tensor.numpy()) for name, tensor in state.items()}
    metrics = {"train-loss": loss.item(), "num-examples": size}
    return reply(message, metrics, arrays)


def random_pack(rng: random.Random) -> Case:
    """Draw what to pack."""
    names = rng.sample(["weight", "bias", "body.0.weight", "head.bias", "scale"], 3)
    shapes = {name: (rng.randint(1, 4), rng.randint(1, 4)) for name in names}
    came, state = random_state(rng, **shapes), random_state(rng, **shapes)
    loss = rng.choice([np.float32, np.float64, torch.tensor])(rng.randint(1, 99) / 8)
    return Case(came, state, loss, rng.randint(100, 999), shown=(state, loss))


CAME = {"weight": torch.tensor([[9.0, 8.0]]), "seen": torch.tensor(7)}
TRAINED = {"weight": torch.tensor([[1.0, 2.0]]), "seen": torch.tensor(3)}
PACKED = {"arrays": {"weight": [[1.0, 2.0]], "seen": 3}}

PACK = Exercise(
    "3.1",
    "your reply says all that a server needs, in words that it knows.",
    cases=[
        Case(
            *(CAME, TRAINED, np.float32(0.00123456), 400),
            gives={**PACKED, "train-loss in metrics": 0.00123456},
        ),
        Case(
            *(CAME, TRAINED, torch.tensor(0.25), 3),
            gives={**PACKED, "num-examples in metrics": 3},
        ),
    ],
    draw=random_pack,
    play=play_pack,
    oracle=pack,
    mistakes="""
        these are the arrays of the message: pack those of state_dict, or the
        training was for nothing
            state.items() -> message.content["arrays"].to_torch_state_dict().items()
        the arrays are numbered and have lost their names: pack a dictionary of
        tensors with the names that they have, not a list
            , arrays) -> , [tensor.numpy() for tensor in state.values()])
        int(loss) cuts off what stands after the point: use float(loss)
            loss.item() -> int(loss)
        the loss is rounded: float(loss) keeps all that stands after the point
            loss.item() -> round(loss.item(), 1)
            loss.item() -> round(loss.item(), 2)
            loss.item() -> round(loss.item(), 3)
            loss.item() -> round(loss.item(), 4)
            loss.item() -> round(loss.item(), 5)
        train-loss is a mean: the server weights it by num-examples itself
            loss.item() -> loss.item() * size
        the two metrics are mixed up
            loss.item() -> size
            & size} -> loss.item()}
    """,
    otherwise=TWO_RECORDS
    | {
        "arrays": "the arrays should be those of state_dict",
        "train-loss in metrics": "train-loss should be the loss, as one number",
        "num-examples in metrics": "num-examples should be the number that was handed "
        "over",
    },
)

# ------------------------------------------------------------------------- 3.2 report


class TwoMinds(nn.Linear):
    """A linear network that is right only in eval mode, like one with dropout."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images to logits."""
        logits = super().forward(images.flatten(1))
        return -logits if self.training else logits


def linear(kind: type[nn.Linear], state: State) -> nn.Linear:
    """Make a linear layer of these parameters."""
    outputs, inputs = state["weight"].shape
    net = kind(inputs, outputs)
    net.load_state_dict(state)
    return net


def play_report(
    answer: Attempt, came: State, own: State, loader: DataLoader
) -> Iterator[tuple[str, Any]]:
    """Yield what is reported on a model, with a net that has parameters of its own."""
    net = linear(TwoMinds, own)
    yield from reply_facts(answer, order(came, "evaluate"), net, loader)


def report(message: Message, net: nn.Module, loader: DataLoader) -> Message:
    """Test by a loop, batch by batch: the oracle."""
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    net.eval()
    batches = []
    with torch.no_grad():
        for images, labels in loader:
            logits = net(images)
            losses = cross_entropy(logits, labels, reduction="none")
            batches.append((losses, (logits.argmax(dim=1) == labels).float()))
    losses, right = (torch.cat(parts) for parts in zip(*batches, strict=True))
    loss, accuracy, size = losses.mean().item(), right.mean().item(), len(losses)
    metrics = {"eval-loss": loss, "eval-accuracy": accuracy, "num-examples": size}
    return reply(message, metrics)


def random_report(rng: random.Random) -> Case:
    """Draw a test of a few examples of three classes."""
    size, batch_size = rng.randint(20, 40), rng.randint(3, 9)
    images = random_state(rng, images=(size, 1, 2, 2))["images"]
    labels = [rng.randrange(3) for _ in range(size)]
    came, own = (random_state(rng, weight=(3, 4), bias=(3,)) for _ in range(2))
    shown = f"{size} test examples in batches of {batch_size}"
    return Case(came, own, loader_of(images, labels, batch_size), shown=shown)


POINTS = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 0.5], [0.0, 4.0], [0.0, 1.0]])
"""Five examples. Their largest coordinate is their class, but for the fourth."""

REPORT = Exercise(
    "3.2",
    "your evaluate function tests the server's model, and says so.",
    cases=[
        Case(
            {"weight": torch.eye(2), "bias": torch.zeros(2)},
            {"weight": torch.tensor([[1.0, 2.0], [0.0, 1.0]]), "bias": torch.zeros(2)},
            loader_of(POINTS.reshape(5, 1, 1, 2), [0, 1, 0, 0, 1], batch_size=2),
            shown="5 test examples in batches of 2",
            # ln(1 + 1/e²) + ln(1 + 1/e³) + ln(1 + 1/√e) + ln(1 + e⁴) + ln(1 + 1/e)
            gives={
                "eval-loss in metrics": (
                    0.12693 + 0.04859 + 0.47408 + 4.01815 + 0.31326
                )
                / 5,
                "eval-accuracy in metrics": 0.8,
                "num-examples in metrics": 5,
            },
        )
    ],
    draw=random_report,
    play=play_report,
    oracle=report,
    mistakes="""
        this is the result of net as it came: load the message's arrays into it
        before the test
            net.load_state_dict( -> dict(
        net was tested in train mode: call net.eval() before a loop of your own
            net.eval() -> net.train()
        the network need not be a Net: use the one that you are given
            net.load_state_dict( -> Net().load_state_dict(
            = net(images) -> = Net()(images)
        loss and accuracy are mixed up: model.test returns the loss first
            "eval-loss": loss -> "eval-loss": accuracy
            & "eval-accuracy": accuracy -> "eval-accuracy": loss
        eval-loss is the mean over examples: this is the sum
            losses.mean() -> losses.sum()
        the last batch may be smaller: average over examples, not over batches
            losses.mean() -> (sum(a.mean() for a, b in batches) / len(batches))
            right.mean() -> (sum(b.mean() for a, b in batches) / len(batches))
        this is the loss of the last batch: average over all examples
            losses.mean() -> batches[-1][0].mean()
            & right.mean() -> batches[-1][1].mean()
        this is the accuracy of the last batch: average over all examples
            right.mean() -> batches[-1][1].mean()
        eval-accuracy is a share from 0 to 1: this is in percent
            right.mean() -> (100 * right.mean())
        eval-accuracy is a share: divide the number of right ones by all
            right.mean() -> right.sum()
        this is the share of the wrong ones: accuracy counts the right ones
            right.mean() -> (1 - right.mean())
        num-examples counts examples: len(loader) counts batches
            len(losses) -> len(loader)
        num-examples is about all batches: this is the size of one
            len(losses) -> len(batches[0][0])
            len(losses) -> len(batches[-1][0])
    """,
    otherwise=REPLY
    | {
        "records": 'the reply should hold one record, a MetricRecord named "metrics": '
        "the server has arrays and config already, and evaluating has not changed them",
        "eval-loss in metrics": "the loss should be that of the message's model on "
        "testloader",
        "eval-accuracy in metrics": "the accuracy should be that of the message's "
        "model on testloader",
        "num-examples in metrics": "num-examples should be the number of examples in "
        "the loader",
    },
)

# ------------------------------------------------------------------ 3.3 train_clipped


class Buffered(nn.Linear):
    """A linear layer with a buffer: state that is no parameter, and not trained."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("mean", torch.zeros(2))


def play_clip(
    answer: Attempt, start: State, update: State, max_norm: float, size: int
) -> Iterator[tuple[str, Any]]:
    """Yield how an answer trains, and what it replies to a training that is known."""
    begun: list[State] = []

    def train_fn(net: nn.Module, loader: DataLoader) -> float:
        if not isinstance(loader, DataLoader):
            kind = type(loader).__name__
            raise TypeError(f"train_fn takes a DataLoader, not a {kind}")
        begun.append({k: v.clone() for k, v in net.state_dict().items()})
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                parameter += update[name]
        return 0.5

    kind = Buffered if "mean" in start else nn.Linear
    net = linear(kind, {name: 1 - 3 * tensor for name, tensor in start.items()})
    loader = loader_of(torch.zeros(size, 1), [0] * size, batch_size=4)
    content = ask(answer, order(start), net, loader, train_fn, max_norm)
    yield "where the training begins", begun[:1]
    yield "how often train_fn is called", len(begun)
    yield from content_facts(content)


def flat(state: State) -> torch.Tensor:
    """Put all numbers of a model into one vector, which is a copy."""
    return torch.cat([tensor.flatten() for tensor in state.values()])


def parts(vector: torch.Tensor, like: State) -> tuple[torch.Tensor, ...]:
    """Cut a vector into the arrays of a model again."""
    ends = vector.split([tensor.numel() for tensor in like.values()])
    pairs = zip(ends, like.values(), strict=True)
    return tuple(part.reshape(tensor.shape) for part, tensor in pairs)


def cut(norm: float, max_norm: float) -> float:
    """Return what to multiply something of this norm by, to clip it."""
    return max_norm / norm if norm > max_norm else 1.0


def each(vector: torch.Tensor, like: State, max_norm: float) -> torch.Tensor:
    """Clip each array on its own."""
    pieces = [p * cut(p.norm().item(), max_norm) for p in parts(vector, like)]
    return torch.cat([piece.flatten() for piece in pieces])


def clip(
    message: Message, net: nn.Module, loader: DataLoader, train_fn: Callable, m: float
) -> Message:
    """Clip one vector of all numbers: the oracle."""
    s = message.content["arrays"].to_torch_state_dict()
    net.load_state_dict(s)
    x = flat(net.state_dict())
    train_fn(net, loader)
    y = flat(net.state_dict())
    u = y - x
    norm = float(np.linalg.norm(u))
    new = x + u * cut(norm, m)
    arrays = dict(zip(s, parts(new, s), strict=True))
    return reply(message, {"num-examples": len(loader.dataset)}, arrays)


def random_clip(rng: random.Random) -> Case:
    """Draw a model, an update, and how long it may be."""
    rows, columns = rng.randint(1, 4), rng.randint(2, 4)
    shapes = {"weight": (rows, columns), "bias": (rows,), "mean": (2,)}
    start, update = random_state(rng, **shapes), random_state(rng, **shapes)
    update["mean"] *= 0
    length = flat(update).norm().item()
    max_norm = rng.choice([0.2, 0.7, 1.5]) * length
    return clipping(start, update, max_norm, rng.randint(11, 30))


def clipping(
    start: State, update: State, max_norm: float, size: int = 10, **gives: Any
) -> Case:
    """Make a case of a training whose update is known."""
    shown = {"message": start, "update": update, "max_norm": max_norm}
    return Case(start, update, max_norm, size, shown=shown, **gives)


def model(weight: list[float], bias: float, **buffers: float) -> State:
    """Make a model of three parameters, and of buffers of two numbers."""
    values = {"weight": [weight], "bias": [bias]}
    values |= {name: [value, value] for name, value in buffers.items()}
    return {name: torch.tensor(value) for name, value in values.items()}


START, SEVEN = model([1.0, 2.0], 3.0), model([6.0, 2.0], 3.0)
"""A start, and an update of length 7."""

CLIPPED = Exercise(
    "3.3",
    "whatever a client's data are, it moves the model by max_norm at most.",
    cases=[
        clipping(*case[:3], gives={"arrays": case[3]})
        for case in [
            (START, SEVEN, 2.8, model([3.4, 2.8], 4.2)),
            (START, SEVEN, 8.0, model([7.0, 4.0], 6.0)),
            # Each array is short enough, and both together are not.
            (START, SEVEN, 6.5, model([46 / 7, 27 / 7], 40.5 / 7)),
            (START, model([0.0, 0.0], 0.0), 2.8, START),
            (
                model([1.0, 2.0], 3.0, mean=5.0),
                model([6.0, 2.0], 3.0, mean=0.0),
                *(3.5, model([4.0, 3.0], 4.5, mean=5.0)),
            ),
        ]
    ],
    draw=random_clip,
    play=play_clip,
    oracle=clip,
    mistakes="""
        train_fn was not called: nothing was trained
            train_fn(net, loader) ->
        train_fn was called 2 times: train once
            train_fn(net, loader) -> train_fn(net, loader); train_fn(net, loader)
        the training began from other parameters than the message's: load its
        arrays into net first
            net.load_state_dict(s) ->
        the network need not be a Net: use the one that you are given
            net.load_state_dict(s) -> Net().load_state_dict(s)
        the arrays are numbered and have lost their names: pack a dictionary of
        tensors with the names that they have, not a list
            , arrays) -> , [v.numpy() for v in arrays.values()])
        the state_dict holds more than the parameters: buffers, such as the
        running means of a BatchNorm, go back, too
            , arrays) -> , {k: arrays[k] for k in ("weight", "bias")})
        num-examples counts examples: len(loader) counts batches
            len(loader.dataset) -> len(loader)
        there is NaN among the parameters: look where 0 is divided by 0
            x + u * cut(norm, m) -> x + u * (torch.tensor(min(norm, m)) / norm)
        a training that changes nothing makes an update of norm 0: do not divide
        by it
            x + u * cut(norm, m) -> x + u * min(1.0, m / norm)
        the trained parameters go back unclipped: if you did clip, look at what
        you subtract, for net.state_dict() does not copy, and moves along with
        net
            x + u * cut(norm, m) -> y
        these are the arrays of the message, as if nothing was trained: add the
        clipped update to them
            x + u * cut(norm, m) -> x
            x + u * cut(norm, m) -> x if norm > m else y
        each array was clipped on its own: take one norm over all arrays, and
        one factor for all
            x + u * cut(norm, m) -> x + each(u, s, m)
        the parameters were clipped: clip the update, which is after minus
        before, and add it to before
            x + u * cut(norm, m) -> y * cut(y.norm().item(), m)
            x + u * cut(norm, m) -> each(y, s, m)
        a short update was made longer: the factor is at most 1
            x + u * cut(norm, m) -> x + u * m / (norm or m)
        this is the update: add it to the parameters from before the training
            x + u * cut(norm, m) -> u * cut(norm, m)
            x + u * cut(norm, m) -> u
            x + u * cut(norm, m) -> each(u, s, m)
            x + u * cut(norm, m) -> u * m / (norm or m)
        the clipped update was added to the trained parameters: add it to those
        from before the training
            x + u * cut(norm, m) -> y + u * cut(norm, m)
        the update has the wrong sign: it is after minus before
            x + u * cut(norm, m) -> x - u * cut(norm, m)
            x + u * cut(norm, m) -> y - u * cut(norm, m)
        each number was clipped on its own: that turns the update into another
        direction, so multiply all by one factor
            x + u * cut(norm, m) -> x + u.clamp(-m, m)
            x + u * cut(norm, m) -> x + u.clamp(max=m)
        the norm lacks its square root
            x + u * cut(norm, m) -> x + u * cut(norm**2, m)
        the norms of the arrays do not add up: sum the squares of all numbers,
        then take the root
            float(np.linalg.norm(u)) -> sum(p.norm().item() for p in parts(u, s))
        the norm is that of one array: sum the squares of all arrays
            x + u * cut(norm, m) -> x + u * cut(parts(u, s)[0].norm().item(), m)
            x + u * cut(norm, m) -> x + u * cut(parts(u, s)[1].norm().item(), m)
        the norm is another one: take the square root of the sum of all squares
            x + u * cut(norm, m) -> x + u * cut(u.abs().sum().item(), m)
            x + u * cut(norm, m) -> x + u * cut(u.abs().max().item(), m)
            x + u * cut(norm, m) -> x + u * cut(norm / len(u) ** 0.5, m)
        the update was brought to length 1: the length allowed is max_norm
            x + u * cut(norm, m) -> x + u * cut(norm, 1.0)
            x + u * cut(norm, m) -> x + u / (norm or 1.0)
        max_norm is a length, not a factor: divide it by the norm
            x + u * cut(norm, m) -> x + u * m
    """,
    otherwise=TWO_RECORDS
    | {
        "training begins": "the training began from other parameters than the "
        "message's: load its arrays into net first",
        "train_fn is called": "train_fn should be called once",
        "arrays": "the arrays should be the message's plus the update, clipped",
        "num-examples in metrics": "num-examples should be the number of examples in "
        "the loader",
    },
)
