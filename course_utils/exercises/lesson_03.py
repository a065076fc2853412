"""Lesson 03's exercises."""

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from course_utils.exercises import messages
from course_utils.exercises.engine import Attempt, Case, Exercise
from course_utils.model import Net  # noqa: F401 (edits use it)
from course_utils.partitions import make_loader

State = dict[str, torch.Tensor]
Facts = Iterator[tuple[str, Any]]


def order(arrays: State, message_type: str = "train") -> Message:
    """Make a message that brings a model, and a config as Flower's strategies do."""
    config = ConfigRecord({"lr": 0.5, "server-round": 1})
    content = RecordDict({"arrays": ArrayRecord(arrays), "config": config})
    return messages.instruction(content, message_type)


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


def tensors(**values: Any) -> State:
    """Make a state_dict of these values."""
    return {
        name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()
    }


class Centred(nn.Linear):
    """A linear network that subtracts a buffer: in train mode, the batch's mean."""

    def __init__(self, state: State) -> None:
        super().__init__(*reversed(state["weight"].shape))
        self.register_buffer("mean", torch.zeros(self.in_features))
        self.load_state_dict(state)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images to logits."""
        images = images.flatten(1)
        if self.training:
            self.mean.copy_(images.mean(dim=0))
        return super().forward(images - self.mean)


REPLY = messages.REPLY | {
    "num-examples in metrics": "num-examples should be the number of examples in the "
    "loader, not of batches",
}


def play_reply(answer: Attempt, came: State, *args: Any, kind: str = "train") -> Facts:
    """Yield what is replied to a message that brings a model."""
    yield from messages.reply_facts(answer, order(came, kind), *args)


# --------------------------------------------------------------------- 3.1 pack_reply


def pack(message: Message, state: State, metrics: dict[str, float]) -> Message:
    """Look at number by number: the oracle."""
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    rows = [np.array([*metrics.values()]), *arrays.values()]
    if not all(math.isfinite(n) for row in rows for n in row.flat):
        raise ValueError("not a finite number")
    return reply(message, metrics, {k: Array(v) for k, v in arrays.items()})


def packing(state: State, loss: float = 0.25, size: int = 400, **gives: Any) -> Case:
    """Make a case of a trained model, in reply to a model of zeros."""
    came = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    metrics = {"train-loss": loss, "num-examples": size}
    return Case(came, state, metrics, shown=(state, metrics), **gives)


def random_pack(rng: random.Random) -> Case:
    """Draw what to pack: one number in it may not be finite."""
    state = random_state(rng, body=(2, rng.randint(1, 4)), head=(1, 3), scale=(1, 1))
    rng.choice([*state.values()])[-1, -1] = rng.choice([1.0, math.nan, -math.inf])
    return packing(state, rng.random(), rng.randint(100, 999))


GOOD = tensors(w=[1.0, 2.0], b=3.0)
LARGE = tensors(w=[-2e38, -2e38], b=3.0)  # finite, as their sum is not

PACK = Exercise(
    "3.1",
    "your reply says all that a server needs, and cannot spoil everyone's model.",
    cases=[
        packing(GOOD, gives={"arrays": GOOD, "train-loss in metrics": 0.25}),
        packing(LARGE, gives={"arrays": LARGE, "num-examples in metrics": 400}),
        packing(tensors(w=[math.nan, 2.0], b=3.0), gives=ValueError),
        packing(tensors(w=[1.0, 2.0], b=math.inf), gives=ValueError),
        packing(GOOD, loss=math.nan, gives=ValueError),
        packing(GOOD, loss=-math.inf, gives=ValueError),
    ],
    draw=random_pack,
    play=play_reply,
    oracle=pack,
    mistakes="""
        these are the arrays of the message: pack those of state_dict, or the
        training was for nothing
            k: Array(v) for -> k: message.content["arrays"][k] for
        this reply carries NaN or infinity, which the server would average: look at
        each number, of all arrays and of the metrics, and raise a ValueError
            math.isfinite(n) -> not math.isnan(n)
            not all( -> not any(
            *arrays.values()] -> *list(arrays.values())[:1]]
            [np.array([*metrics.values()]), *arrays.values()] -> arrays.values()
    """,
    otherwise=messages.REPLY
    | {
        "arrays": "the arrays should be those of state_dict",
        "in metrics": "the metrics should be those that were handed over",
    },
)

# ------------------------------------------------------------------------- 3.2 report


def report(message: Message, net: nn.Module, loader: DataLoader) -> Message:
    """Test by a loop, batch by batch: the oracle."""
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    net.eval()
    losses, right = [], []
    with torch.no_grad():
        for images, labels in loader:
            logits = net(images)
            losses += [cross_entropy(logits, labels, reduction="none")]
            right += [(logits.argmax(dim=1) == labels).float()]
    loss, accuracy = torch.cat(losses).mean().item(), torch.cat(right).mean().item()
    metrics = {"eval-loss": loss, "eval-accuracy": accuracy}
    return reply(message, metrics | {"num-examples": sum(map(len, losses))})


def testing(came: State, own: State, images: Any, labels: Any, **gives: Any) -> Case:
    """Make a case of a model to test, and of the state of the net to do it with."""
    loader = make_loader(TensorDataset(images, labels), batch_size=4)
    shown = f"{len(labels)} examples in batches of 4"
    return Case(came, Centred(own), loader, kind="evaluate", shown=shown, **gives)


def random_report(rng: random.Random) -> Case:
    """Draw a test of a few examples of three classes."""
    shapes = {"weight": (3, 4), "bias": (3,), "mean": (4,)}
    came, own = random_state(rng, **shapes), random_state(rng, **shapes)
    images = random_state(rng, images=(rng.randint(20, 40), 1, 2, 2))["images"]
    return testing(came, own, images, torch.tensor([rng.randrange(3) for _ in images]))


MEAN = torch.tensor([3.0, -4.0])
POINTS = MEAN + torch.tensor([[2, 0], [0, 3], [1, 0.5], [0, 4], [0, 1]])
"""Five examples. Their larger distance from the mean is their class, but for one."""

REPORT = Exercise(
    "3.2",
    "your evaluate function tests the server's model, and says so.",
    cases=[
        testing(
            {"weight": torch.eye(2), "bias": torch.zeros(2), "mean": MEAN},
            tensors(weight=[[1.0, 2.0], [0.0, 1.0]], bias=[0.0, 0.0], mean=[0.0, 0.0]),
            POINTS,
            torch.tensor([0, 1, 0, 0, 1]),
            gives={
                # ln(1 + 1/e²) + ln(1 + 1/e³) + ln(1 + 1/√e) + ln(1 + e⁴) + ln(1 + 1/e)
                "eval-loss in metrics": 4.98101 / 5,
                "eval-accuracy in metrics": 0.8,
                "num-examples in metrics": 5,
            },
        )
    ],
    draw=random_report,
    play=play_reply,
    oracle=report,
    mistakes="""
        this is the result of net as it came: load the message's arrays into it
        before the test
            net.load_state_dict( -> dict(
        only the parameters came into net: load the whole state_dict, for buffers,
        such as the running means of a BatchNorm, are a part of the model, too
            .to_torch_state_dict()) -> .to_torch_state_dict() | {"mean": net.mean})
        net was used in train mode, in which layers such as a BatchNorm give other
        results and change: call net.eval() before a loop of your own
            net.eval() -> net.train()
            net.eval() -> net.train(); [net(x) for x, _ in loader]; net.eval()
        the network need not be a Net: use the one that you are given
            net.load_state_dict( -> Net().load_state_dict(
            = net(images) -> = Net()(images)
        loss and accuracy are mixed up: model.test returns the loss first
            "eval-loss": loss -> "eval-loss": accuracy
            & "eval-accuracy": accuracy -> "eval-accuracy": loss
        eval-loss is the mean over examples: this is the sum
            torch.cat(losses).mean() -> torch.cat(losses).sum()
        the last batch may be smaller: average over examples, not over batches
            torch.cat(losses) -> torch.stack([each.mean() for each in losses])
            torch.cat(right) -> torch.stack([each.mean() for each in right])
        this is the result of one batch: average over all examples
            torch.cat(losses) -> losses[-1]
            & torch.cat(right) -> right[-1]
        eval-accuracy is a share from 0 to 1: the right ones, divided by all
            torch.cat(right).mean() -> 100 * torch.cat(right).mean()
            torch.cat(right).mean() -> torch.cat(right).sum()
            torch.cat(right).mean() -> 1 - torch.cat(right).mean()
    """,
    otherwise=REPLY
    | {
        "records": 'the reply should hold one record, a MetricRecord named "metrics": '
        "the server has arrays and config already, and evaluating has not changed them",
        "in metrics": "loss and accuracy should be those of the message's model, on "
        "all of testloader",
    },
)

# ------------------------------------------------------------------ 3.3 train_clipped


def play_clip(answer: Attempt, start: State, update: State, max_norm: float) -> Facts:
    """Yield how an answer trains, and what it replies to a training that is known."""
    begun: list[State] = []

    def train_fn(net: nn.Module, loader: DataLoader) -> float:
        assert isinstance(loader, DataLoader), "train_fn takes a DataLoader"
        begun.append({k: v.clone() for k, v in net.state_dict().items()})
        with torch.no_grad():
            for name, tensor in net.state_dict().items():
                tensor += update[name]
        return 0.5

    net = Centred({name: 1 - 3 * tensor for name, tensor in start.items()})
    examples = TensorDataset(torch.zeros(10, 1), torch.zeros(10))
    loader = make_loader(examples, batch_size=4)
    content = messages.ask(answer, order(start), net, loader, train_fn, max_norm)
    yield "how often train_fn is called", len(begun)
    yield "where the training begins", begun[:1]
    yield from messages.content_facts(content)


def clip(
    message: Message, net: nn.Module, loader: DataLoader, train_fn: Callable, m: float
) -> Message:
    """Clip by the norm of all norms: the oracle."""
    before = message.content["arrays"].to_torch_state_dict()
    net.load_state_dict(before)
    train_fn(net, loader)
    after, new = net.state_dict(), {}
    norms = [(after[k] - x).norm().item() for k, x in before.items()]
    norm = math.hypot(*norms) or 1.0
    for k, x in before.items():
        y = after[k]
        u = y - x
        new[k] = x + u * min(1.0, m / norm)
    return reply(message, {"num-examples": len(loader.dataset)}, new)


def clipping(start: State, update: State, max_norm: float, **gives: Any) -> Case:
    """Make a case of a training whose update is known."""
    shown = {"message": start, "update": update, "max_norm": max_norm}
    return Case(start, update, max_norm, shown=shown, **gives)


def random_clip(rng: random.Random) -> Case:
    """Draw a model, an update, and how long it may be."""
    rows, columns = rng.randint(1, 4), rng.randint(2, 4)
    shapes = {"weight": (rows, columns), "bias": (rows,), "mean": (columns,)}
    update = random_state(rng, **shapes)
    max_norm = math.hypot(*(tensor.norm() for tensor in update.values()))
    max_norm *= rng.choice([0.2, 0.7, 1.5])
    return clipping(random_state(rng, **shapes), update, max_norm)


def model(a: float, b: float, bias: float, mean: float) -> State:
    """Make a model. Its mean is a buffer, which a training may change as well."""
    return tensors(weight=[[a, b]], bias=[bias], mean=[mean, 0])


CLIPPED = Exercise(
    "3.3",
    "whatever a client's data are, it moves the model by max_norm at most.",
    cases=[
        clipping(model(1, 2, 3, 4), model(*u), m, gives={"arrays": model(*new)})
        for u, m, new in [
            ((6, 2, 3, 0), 2.8, (3.4, 2.8, 4.2, 4)),
            ((6, 2, 3, 0), 8.0, (7, 4, 6, 4)),
            # Each array is short enough, and both together are not.
            ((6, 2, 3, 0), 6.5, (46 / 7, 27 / 7, 40.5 / 7, 4)),
            ((6, 0, 2, 3), 2.8, (3.4, 2, 3.8, 5.2)),
            ((0, 0, 0, 0), 2.8, (1, 2, 3, 4)),
        ]
    ],
    draw=random_clip,
    play=play_clip,
    oracle=clip,
    mistakes="""
        the network need not be a Net: use the one that you are given
            net.load_state_dict( -> Net().load_state_dict(
        a training that changes nothing makes an update of norm 0: do not divide
        by it
            or 1.0 ->
            or 1.0 ->
            & u * min(1.0, m / norm) -> u / norm * min(m, norm)
        the trained parameters go back unclipped: if you did clip, look at what
        you subtract, for net.state_dict() does not copy, and moves along with
        net
            x + u * min(1.0, m / norm) -> y
        these are the arrays of the message, as if nothing was trained: add the
        clipped update to them
            x + u * min(1.0, m / norm) -> x
        each array, or each number, was clipped on its own: take one norm over all
        arrays, and one factor for all
            m / norm) -> m / (u.norm() or 1.0))
            u * min(1.0, m / norm) -> u.clamp(-m, m)
        the parameters were clipped: clip the update, which is after minus
        before, and add it to before
            x + u * min(1.0, m / norm) -> y * min(1.0, m / y.norm())
            x + u * -> y *
            & m / norm) -> m / math.hypot(*[v.norm() for v in after.values()]))
        the factor is not right: it is max_norm / norm, and at most 1
            min(1.0, m / norm) -> m / norm
            min(1.0, m / norm) -> m
            m / norm) -> 1.0 / norm)
        this is the update: add it to the parameters from before the training
            x + u * -> u *
            x + u * min(1.0, m / norm) -> u
            x + u * min(1.0, m / norm) -> u * min(1.0, m / (u.norm() or 1.0))
        add the clipped update to the parameters from before the training: the
        update is after minus before
            x + u * -> y + u *
            x + u * -> x - u *
            x + u * -> y - u *
        what the training changed in a buffer, such as the running means of a
        BatchNorm, is a part of the update, too: in its norm, and clipped with it
            x + u * -> x if k == "mean" else x + u *
            x + u * -> y if k == "mean" else x + u *
            before.items()] -> before.items() if k != "mean"]
            & x + u * -> x if k == "mean" else x + u *
        the norm is not right: add up the squares of all numbers, in all arrays,
        and take the root of the sum
            math.hypot(*norms) -> math.hypot(*norms) ** 2
            math.hypot(*norms) -> sum(norms)
            math.hypot(*norms) -> norms[0]
            math.hypot(*norms) -> norms[1]
            .norm().item() for -> .norm(1).item() for
            & math.hypot(*norms) -> sum(norms)
            .norm().item() for -> .abs().max().item() for
            & math.hypot(*norms) -> max(norms)
    """,
    otherwise=REPLY
    | {
        "training begins": "the training began from other parameters than the "
        "message's: load its arrays into net first",
        "train_fn is called": "train_fn should be called once",
        "arrays": "the message's arrays plus the clipped update go back, buffers too",
    },
)
