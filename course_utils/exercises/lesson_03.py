"""Lesson 03's exercises."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
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

from course_utils.exercises.engine import Attempt, Case, Exercise, slips
from course_utils.exercises.messages import ask, instruction, reply_facts
from course_utils.model import Net
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


SAID_OF_REPLIES = {
    "names of the arrays": "the arrays should have the names of all that is in the "
    "model's state_dict, all of them and no others",
    "types of the arrays": "arrays go back in another type: keep the one that each of "
    "the model's arrays has, for the bytes on the wire depend on it",
}
"""What to say on a reply's arrays, whatever the exercise."""

# --------------------------------------------------------------------- 3.1 pack_reply


def play_pack(answer: Attempt, came: State, *args: Any) -> Iterator[tuple[str, Any]]:
    """Yield what is packed, as an answer to a message that brought another model."""
    content = ask(answer, order(came), *args)
    yield from reply_facts(content, "train-loss", "num-examples", arrays=True)


def pack(
    message: Message,
    state: State,
    loss: Any,
    size: int,
    *,
    arrays: Callable = lambda state, message: state,
    metrics: Callable = lambda loss, size: (loss, size),
) -> Message:
    """Do the exercise, perhaps with a slip."""
    values = zip(
        ("train-loss", "num-examples"), metrics(loss.item(), size), strict=True
    )
    return reply(message, dict(values), arrays(state, message))


def random_pack(rng: random.Random) -> Case:
    """Draw what to pack."""
    names = rng.sample(["weight", "bias", "body.0.weight", "head.bias", "scale"], 3)
    shapes = {name: (rng.randint(1, 4), rng.randint(1, 4)) for name in names}
    came, state = random_state(rng, **shapes), random_state(rng, **shapes)
    loss = rng.choice([np.float32, np.float64, torch.tensor])(rng.randint(1, 99) / 8)
    return Case(came, state, loss, rng.randint(100, 999), shown=(state, loss))


CAME = {"weight": torch.tensor([[9.0, 8.0]]), "seen": torch.tensor(7)}
TRAINED = {"weight": torch.tensor([[1.0, 2.0]]), "seen": torch.tensor(3)}
PACKED = {"the arrays": {"weight": [[1.0, 2.0]], "seen": 3}}

PACK = Exercise(
    "3.1",
    "your reply says all that a server needs, in words that it knows.",
    cases=[
        Case(
            *(CAME, TRAINED, np.float32(0.123456), 400),
            gives={**PACKED, "train-loss": 0.123456, "num-examples": 400},
        ),
        Case(
            *(CAME, TRAINED, torch.tensor(0.25), 3),
            gives={**PACKED, "train-loss": 0.25, "num-examples": 3},
        ),
    ],
    draw=random_pack,
    play=play_pack,
    oracle=partial(
        pack,
        arrays=lambda state, message: {k: Array(v.numpy()) for k, v in state.items()},
    ),
    mistakes=slips(
        pack,
        arrays={
            "these are the arrays of the message: pack those of state_dict, or the "
            "training was for nothing": (
                lambda state, message: message.content["arrays"].to_torch_state_dict()
            )
        },
        metrics={
            "int(loss) cuts off what stands after the point: use float(loss)": (
                lambda loss, size: (int(loss), size)
            ),
            "the loss is rounded: float(loss) keeps all that stands after the point": [
                lambda loss, size, n=n: (round(loss, n), size) for n in (1, 2, 3, 4)
            ],
            "train-loss is a mean: the server weights it by num-examples itself": (
                lambda loss, size: (loss * size, size)
            ),
            "the two metrics are mixed up": lambda loss, size: (size, loss),
        },
    ),
    otherwise=SAID_OF_REPLIES
    | {
        "the arrays": "the arrays should be those of state_dict",
        "train-loss": "train-loss should be the loss, as a number of Python's",
        "num-examples": "num-examples should be the number that was handed over",
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
    content = ask(answer, order(came, "evaluate"), net, loader)
    yield from reply_facts(content, *REPORTED)


NEED_NOT_BE_A_NET = "the network need not be a Net: use the one that you are given"
COUNTS_BATCHES = "num-examples counts examples: len(loader) counts batches"
REPORTED = "eval-loss", "eval-accuracy", "num-examples"


def load(message: Message, net: nn.Module) -> nn.Module:
    """Load the message's arrays into a network."""
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    return net


def report(
    message: Message,
    net: nn.Module,
    loader: DataLoader,
    *,
    prepare: Callable = lambda message, net: load(message, net).eval(),
    say: Callable = lambda do: (do.loss, do.right, do.size),
) -> Message:
    """Do the exercise by a loop, perhaps with a slip."""
    net, batches = prepare(message, net), []
    with torch.no_grad():
        for images, labels in loader:
            logits = net(images)
            losses = cross_entropy(logits, labels, reduction="none")
            right = (logits.argmax(dim=1) == labels).float()
            batches.append(torch.stack([losses, right]))
    do = SimpleNamespace(loader=loader, size=len(loader.dataset))
    do.loss, do.right = torch.cat(batches, dim=1).mean(dim=1)
    do.last, do.last_right = batches[-1].mean(dim=1)
    do.by_batch, do.by_batch_right = sum(b.mean(dim=1) for b in batches) / len(batches)
    return reply(message, dict(zip(REPORTED, map(float, say(do)), strict=True)))


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
                "eval-loss": (0.12693 + 0.04859 + 0.47408 + 4.01815 + 0.31326) / 5,
                "eval-accuracy": 0.8,
                "num-examples": 5,
            },
        )
    ],
    draw=random_report,
    play=play_report,
    oracle=report,
    mistakes=slips(
        report,
        prepare={
            "this is the result of net as it came: load the message's arrays into it "
            "before the test": lambda message, net: net.eval(),
            "net was tested in train mode: call net.eval() before a loop of your own": (
                lambda message, net: load(message, net).train()
            ),
            NEED_NOT_BE_A_NET: [
                lambda message, net: load(message, Net()),
                lambda message, net: Net(),
            ],
        },
        say={
            "loss and accuracy are mixed up: model.test returns the loss first": (
                lambda do: (do.right, do.loss, do.size)
            ),
            "eval-loss is the mean over examples: this is the sum": (
                lambda do: (do.loss * do.size, do.right, do.size)
            ),
            "the last batch may be smaller: average over examples, not over batches": [
                lambda do: (do.by_batch, do.by_batch_right, do.size),
                lambda do: (do.loss, do.by_batch_right, do.size),
            ],
            "this is the loss of the last batch: average over all examples": (
                lambda do: (do.last, do.last_right, do.size)
            ),
            "this is the accuracy of the last batch: average over all examples": (
                lambda do: (do.loss, do.last_right, do.size)
            ),
            "eval-accuracy is a share from 0 to 1: this is in percent": (
                lambda do: (do.loss, 100 * do.right, do.size)
            ),
            "eval-accuracy is a share: divide the number of right ones by all": (
                lambda do: (do.loss, do.size * do.right, do.size)
            ),
            "this is the share of the wrong ones: accuracy counts the right ones": (
                lambda do: (do.loss, 1 - do.right, do.size)
            ),
            COUNTS_BATCHES: lambda do: (do.loss, do.right, len(do.loader)),
            "num-examples is about all batches: this is the size of one": [
                lambda do: (do.loss, do.right, len(next(iter(do.loader))[1])),
                lambda do: (do.loss, do.right, len(list(do.loader)[-1][1])),
            ],
        },
    ),
    otherwise={
        "eval-loss": "the loss should be that of the message's model on testloader",
        "eval-accuracy": "the accuracy should be that of the message's model on "
        "testloader",
        "num-examples": "num-examples should be the number of examples in the loader",
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
    yield from reply_facts(content, "num-examples", arrays=True)


def shorten(norm: float, max_norm: float) -> float:
    """Return what to multiply something of this norm by, to clip it."""
    return max_norm / norm if norm > max_norm else 1.0


def clip(
    message: Message,
    net: nn.Module,
    loader: DataLoader,
    train_fn: Callable,
    max_norm: float,
    *,
    prepare: Callable = load,
    epochs: int = 1,
    makes: Callable = lambda do: do.x + do.u * shorten(do.norm, do.max_norm),
    sends: Callable = lambda arrays: arrays,
    count: Callable = lambda loader: len(loader.dataset),
) -> Message:
    """Do the exercise with all numbers in one vector, perhaps with a slip."""
    net = prepare(message, net)
    start = net.state_dict()
    x = torch.cat([tensor.flatten() for tensor in start.values()])
    for _ in range(epochs):
        train_fn(net, loader)
    y = torch.cat([tensor.flatten() for tensor in net.state_dict().values()])
    do = SimpleNamespace(x=x, y=y, u=y - x, max_norm=max_norm)
    do.norm = float(np.linalg.norm(do.u))
    do.clipped = do.u * shorten(do.norm, max_norm)
    sizes = [tensor.numel() for tensor in start.values()]
    do.norms = [part.norm().item() for part in do.u.split(sizes)]
    do.each = lambda vector: torch.cat(
        [p * shorten(p.norm().item(), max_norm) for p in vector.split(sizes)]
    )
    parts = zip(start, makes(do).split(sizes), strict=True)
    arrays = {name: part.reshape(start[name].shape) for name, part in parts}
    return reply(message, {"num-examples": count(loader)}, sends(arrays))


def random_clip(rng: random.Random) -> Case:
    """Draw a model, an update, and how long it may be."""
    rows, columns = rng.randint(1, 4), rng.randint(2, 4)
    shapes = {"weight": (rows, columns), "bias": (rows,), "mean": (2,)}
    start, update = random_state(rng, **shapes), random_state(rng, **shapes)
    update["mean"] *= 0
    length = torch.cat([tensor.flatten() for tensor in update.values()]).norm().item()
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
        clipping(*case[:3], gives={"the arrays": case[3], "num-examples": 10})
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
    mistakes=slips(
        clip,
        epochs={
            "train_fn was not called: nothing was trained": 0,
            "train_fn was called 2 times: train once": 2,
        },
        prepare={
            "the training began from other parameters than the message's: load its "
            "arrays into net first": lambda message, net: net,
            NEED_NOT_BE_A_NET: lambda message, net: load(message, Net()),
        },
        sends={
            "the state_dict holds more than the parameters: buffers, such as the "
            "running means of a BatchNorm, go back, too": (
                lambda arrays: {k: arrays[k] for k in ("weight", "bias")}
            )
        },
        count={COUNTS_BATCHES: len},
        makes={
            "there is NaN among the parameters: look where 0 is divided by 0": (
                lambda do: do.x + do.u * (do.clipped.norm() / do.norm)
            ),
            "a training that changes nothing makes an update of norm 0: do not divide "
            "by it": lambda do: do.x + do.u * min(1.0, do.max_norm / do.norm),
            "the trained parameters go back unclipped: if you did clip, look at what "
            "you subtract, for net.state_dict() does not copy, and moves along with "
            "net": lambda do: do.y,
            "these are the arrays of the message, as if nothing was trained: add the "
            "clipped update to them": [
                lambda do: do.x,
                lambda do: do.x if do.norm > do.max_norm else do.y,
            ],
            "each array was clipped on its own: take one norm over all arrays, and one "
            "factor for all": lambda do: do.x + do.each(do.u),
            "the parameters were clipped: clip the update, which is after minus "
            "before, and add it to before": [
                lambda do: do.y * shorten(do.y.norm().item(), do.max_norm),
                lambda do: do.each(do.y),
            ],
            "a short update was made longer: the factor is at most 1": (
                lambda do: do.x + do.u * do.max_norm / (do.norm or 1.0)
            ),
            "this is the update: add it to the parameters from before the training": [
                lambda do: do.clipped,
                lambda do: do.u,
                lambda do: do.each(do.u),
            ],
            "the clipped update was added to the trained parameters: add it to those "
            "from before the training": lambda do: do.y + do.clipped,
            "the update has the wrong sign: it is after minus before": [
                lambda do: do.x - do.clipped,
                lambda do: do.y - do.clipped,
            ],
            "each number was clipped on its own: that turns the update into another "
            "direction, so multiply all by one factor": [
                lambda do: do.x + do.u.clamp(-do.max_norm, do.max_norm),
                lambda do: do.x + do.u.clamp(max=do.max_norm),
            ],
            "the norm lacks its square root": (
                lambda do: do.x + do.u * shorten(do.norm**2, do.max_norm)
            ),
            "the norms of the arrays do not add up: sum the squares of all numbers, "
            "then take the root": (
                lambda do: do.x + do.u * shorten(sum(do.norms), do.max_norm)
            ),
            "the norm is that of one array: sum the squares of all arrays": [
                lambda do, i=i: do.x + do.u * shorten(do.norms[i], do.max_norm)
                for i in (0, 1)
            ],
            "the norm is another one: take the square root of the sum of all squares": [
                lambda do: do.x + do.u * shorten(sum(abs(do.u)).item(), do.max_norm),
                lambda do: do.x + do.u * shorten(max(abs(do.u)).item(), do.max_norm),
                lambda do: (
                    do.x + do.u * shorten(do.norm / len(do.u) ** 0.5, do.max_norm)
                ),
            ],
            "the update was brought to length 1: the length allowed is max_norm": [
                lambda do: do.x + do.u * shorten(do.norm, 1.0),
                lambda do: do.x + do.u / (do.norm or 1.0),
            ],
            "max_norm is a length, not a factor: divide it by the norm": (
                lambda do: do.x + do.u * do.max_norm
            ),
        },
    ),
    otherwise=SAID_OF_REPLIES
    | {
        "training begins": "the training began from other parameters than the "
        "message's: load its arrays into net first",
        "how often train_fn is called": "train_fn should be called once",
        "NaN in": "there is NaN among the parameters: look where 0 is divided by 0",
        "the arrays": "the arrays should be the message's plus the update, clipped",
        "num-examples": "num-examples should be the number of examples in the loader",
    },
)
