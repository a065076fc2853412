"""Judges of lesson 03's exercises."""

import random
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course_utils.exercises import Attempt, Wrong, close, exercise
from course_utils.exercises.messages import (
    ask,
    instruction,
    numpy_of,
    require_keys,
    require_only,
    require_records,
)
from course_utils.partitions import make_loader

State = dict[str, torch.Tensor]
Arrays = dict[str, np.ndarray]

TRAINED = {"arrays": ArrayRecord, "metrics": MetricRecord}
"""What the reply to a train message holds."""


def order(arrays: State, message_type: str = "train") -> Message:
    """Make a message that brings a model, and a config as Flower's strategies do."""
    config = ConfigRecord({"lr": 0.5, "server-round": 1})
    content = RecordDict({"arrays": ArrayRecord(arrays), "config": config})
    return instruction(content, message_type)


def random_state(rng: random.Random, shapes: dict[str, tuple[int, ...]]) -> State:
    """Draw a state_dict of these shapes."""
    values = torch.Generator().manual_seed(rng.getrandbits(32))
    return {
        name: torch.randn(*shape, generator=values) for name, shape in shapes.items()
    }


def loader_of(images: torch.Tensor, labels: list[int], batch_size: int) -> DataLoader:
    """Make a loader in a fixed order."""
    examples = TensorDataset(images, torch.tensor(labels))
    return make_loader(examples, batch_size=batch_size)


def blank_loader(size: int, batch_size: int) -> DataLoader:
    """Make a loader of images on which nothing depends but their number."""
    return loader_of(torch.zeros(size, 1, 1, 2), [0] * size, batch_size)


# ------------------------------------------------------- asking, and what a reply holds

REFUSED = {
    # What an error says, and what the learner has not thought of.
    "loading state_dict": (
        "net.load_state_dict takes a dictionary of tensors, with the names and shapes "
        'of net: message.content["arrays"].to_torch_state_dict() makes it'
    ),
    "Expected state_dict to be": (
        "net.load_state_dict takes a dictionary of tensors: "
        'message.content["arrays"].to_torch_state_dict() makes it'
    ),
    "Invalid arguments for ArrayRecord": (
        "an ArrayRecord takes a dictionary of tensors: neither a network, nor a "
        "dictionary of NumPy arrays"
    ),
    "ZeroDivisionError": (
        "a training that changes nothing makes an update of norm 0: do not divide by it"
    ),
}


def ask_plainly(
    answer: Attempt, message: Message, *more: Any, given: Any = None
) -> RecordDict:
    """Ask as :func:`ask` does, and say errors that are common here in plain words."""
    try:
        return ask(answer, message, *more, given=given)
    except Wrong as wrong:
        for part, sentence in REFUSED.items():
            if part in str(wrong):
                raise Wrong(sentence, given=given) from None
        raise


def require_names(got: Arrays, expected: Arrays, given: Any) -> None:
    """Raise Wrong if arrays are missing, renamed or too many."""
    if set(got) == set(expected):
        return
    if set(got) == {str(i) for i in range(len(expected))}:
        raise Wrong(
            "the arrays are numbered and have lost their names: pack a dictionary of "
            "tensors, as net.state_dict() is one, not a list",
            given=given,
            got=sorted(got),
        )
    raise Wrong(
        "the arrays should have the names of the model's parameters, all of them and "
        "no others",
        given=given,
        expected=sorted(expected),
        got=sorted(got),
    )


def require_single_precision(got: Arrays, given: Any) -> None:
    """Raise Wrong if arrays have become wider on the way."""
    for name, array in got.items():
        if array.dtype != np.float32:
            raise Wrong(
                f"{name} goes back as {array.dtype}, and was float32: keep the "
                "type that the model has, for its bytes on the wire depend on it",
                given=given,
            )


def require_count(got: int | float, loader: DataLoader, given: Any) -> None:
    """Raise Wrong, by name, unless a reply's num-examples is right."""
    size = len(loader.dataset)
    if close(got, size):
        return
    if close(got, len(loader)):
        sentence = "num-examples counts examples: len(loader) counts batches"
    elif close(got, loader.sampler.batch_size):
        sentence = "num-examples is about all batches: this is the size of one"
    else:
        sentence = "num-examples should be the number of examples in the loader"
    raise Wrong(sentence, given=given, expected=size, got=got)


# --------------------------------------------------------------------- 3.1 pack_reply


@exercise("3.1", "your reply says all that a server needs, in words that it knows.")
def judge_pack_reply(answer: Attempt, rng: random.Random) -> None:
    """Have replies packed whose content is known."""
    sent = {"weight": torch.tensor([[9.0, 8.0]]), "bias": torch.tensor([7.0])}
    trained = {"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3.0])}
    cases = [
        (sent, trained, 1.75, np.float32, 400),
        (sent, trained, 0.25, torch.tensor, 3),
    ]
    for wrap in (np.float32, np.float64, torch.tensor):
        names = rng.sample(["weight", "bias", "body.0.weight", "head.bias", "scale"], 3)
        shapes = {n: (rng.randint(1, 4), rng.randint(1, 4)) for n in names}
        states = random_state(rng, shapes), random_state(rng, shapes)
        cases.append((*states, rng.randint(1, 99) / 8, wrap, rng.randint(100, 999)))
    for came, state, loss, wrap, num_examples in cases:
        given = {"state_dict": state, "loss": wrap(loss), "num_examples": num_examples}
        content = ask_plainly(answer, order(came), *given.values(), given=given)
        extra = (
            "the reply holds more than arrays and metrics: what came with the message "
            "need not go back"
        )
        require_records(content, TRAINED, extra, given)
        require_packed_arrays(content["arrays"], came, state, given)
        keys = {"train-loss", "num-examples"}
        require_keys(content["metrics"], keys, given)
        require_only(content["metrics"], keys, given)
        expected = {"train-loss": loss, "num-examples": num_examples}
        require_packed_metrics(dict(content["metrics"]), expected, given)


def require_packed_arrays(
    record: ArrayRecord, came: State, state: State, given: Any
) -> None:
    """Raise Wrong unless the arrays are those of the trained state_dict."""
    got, expected = numpy_of(record), {k: v.numpy() for k, v in state.items()}
    require_names(got, expected, given)
    if close(got, came):
        raise Wrong(
            "these are the arrays of the message: pack those of state_dict, or the "
            "training was for nothing",
            given=given,
            got=got,
        )
    if not close(got, expected):
        raise Wrong(
            "the arrays should be those of state_dict",
            given=given,
            expected=expected,
            got=got,
        )
    require_single_precision(got, given)


def require_packed_metrics(got: dict, expected: dict, given: Any) -> None:
    """Raise Wrong unless the metrics are right, naming those mixed up or cut off."""
    if close(got, expected):
        return
    loss, num_examples = expected.values()
    if close(got, {"train-loss": num_examples, "num-examples": loss}):
        sentence = "the two metrics are mixed up"
    elif close(got, expected | {"train-loss": int(loss)}):
        sentence = "int(loss) cuts off what stands after the point: use float(loss)"
    elif close(got, expected | {"train-loss": loss * num_examples}):
        sentence = "train-loss is a mean: the server weights it by num-examples itself"
    else:
        sentence = "the metrics should be the loss and the number of examples"
    raise Wrong(sentence, given=given, expected=expected, got=got)


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


def tested(state: State, loader: DataLoader, sign: int = 1) -> np.ndarray:
    """Return each example's loss, and whether it is right: the oracle, in NumPy.

    ``sign=-1`` is what :class:`TwoMinds` says in train mode.
    """
    images, labels = (tensor.numpy() for tensor in loader.dataset.tensors)
    weight, bias = state["weight"].double().numpy(), state["bias"].double().numpy()
    logits = sign * (images.reshape(len(images), -1) @ weight.T + bias)
    largest = logits.max(axis=1)
    normalizer = largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))
    losses = normalizer - logits[np.arange(len(labels)), labels]
    return np.stack([losses, logits.argmax(axis=1) == labels])


@exercise("3.2", "your evaluate function tests the server's model, and says so.")
def judge_report(answer: Attempt, rng: random.Random) -> None:
    """Ask for tests whose result follows from NumPy arithmetic."""
    for came, own, loader in (
        report_by_hand(),
        *(random_report(rng) for _ in range(3)),
    ):
        size, batch_size = len(loader.dataset), loader.sampler.batch_size
        given = f"{size} test examples in batches of {batch_size}"
        net = linear(TwoMinds, own)
        message = order(came, "evaluate")
        content = ask_plainly(answer, message, net, loader, given=given)
        extra = (
            "the reply holds more than metrics: the server has arrays and config "
            "already, and evaluating has not changed them"
        )
        require_records(content, {"metrics": MetricRecord}, extra, given)
        keys = {"eval-loss", "eval-accuracy", "num-examples"}
        require_keys(content["metrics"], keys, given)
        require_only(content["metrics"], keys, given)
        got = dict(content["metrics"])
        loss, accuracy = tested(came, loader).mean(axis=1)
        expected = {"eval-loss": loss, "eval-accuracy": accuracy}
        if not close([got["eval-loss"], got["eval-accuracy"]], [loss, accuracy]):
            sentence = wrong_test(got, came, own, loader)
            expected["num-examples"] = size
            raise Wrong(sentence, given=given, expected=expected, got=got)
        require_count(got["num-examples"], loader, given)


def report_by_hand() -> tuple[State, State, DataLoader]:
    """Return a test of five examples, in three batches, four of them right."""
    points = [[2.0, 0.0], [0.0, 3.0], [1.0, 0.5], [0.0, 4.0], [0.0, 1.0]]
    images = torch.tensor(points).reshape(5, 1, 1, 2)
    labels = [0, 1, 0, 0, 1]  # the fourth is taken for a 1
    came = {"weight": torch.eye(2), "bias": torch.zeros(2)}
    # Takes all for a 0.
    own = {"weight": torch.tensor([[0.5, 1.0], [0.0, 0.5]]), "bias": torch.zeros(2)}
    return came, own, loader_of(images, labels, batch_size=2)


def random_report(rng: random.Random) -> tuple[State, State, DataLoader]:
    """Draw a test of a few examples of three classes."""
    shapes = {"weight": (3, 4), "bias": (3,)}
    size = rng.randint(20, 40)
    images = random_state(rng, {"images": (size, 1, 2, 2)})["images"]
    labels = [rng.randrange(3) for _ in range(size)]
    came, own = random_state(rng, shapes), random_state(rng, shapes)
    return came, own, loader_of(images, labels, rng.randint(3, 9))


def wrong_test(got: dict, came: State, own: State, loader: DataLoader) -> str:
    """Name what is wrong with a loss and an accuracy."""
    values = [got["eval-loss"], got["eval-accuracy"]]
    results = tested(came, loader)
    loss, accuracy = results.mean(axis=1)
    step = loader.sampler.batch_size
    starts = range(0, len(loader.dataset), step)
    batches = np.stack([results[:, i : i + step].mean(axis=1) for i in starts])
    if close(values, tested(own, loader).mean(axis=1)):
        return (
            "this is the result of net as it came: load the message's arrays into it "
            "before the test"
        )
    if close(values, tested(came, loader, sign=-1).mean(axis=1)):
        return "net was tested in train mode: call net.eval() before a loop of your own"
    if close(values, [accuracy, loss]):
        return "loss and accuracy are mixed up: model.test returns the loss first"
    named_losses = {
        "eval-loss is the mean over examples: this is the sum": results[0].sum(),
        "the last batch may be smaller: average over examples, not over batches": (
            batches.mean(axis=0)[0]
        ),
        "this is the loss of the last batch: average over all examples": batches[-1][0],
        "eval-loss is the loss: this is the accuracy": accuracy,
    }
    named_accuracies = {
        "eval-accuracy is a share from 0 to 1: this is in percent": 100 * accuracy,
        "eval-accuracy is a share: divide the number of right ones by all": (
            results[1].sum()
        ),
        "this is the share of the wrong ones: accuracy counts the right ones": (
            1 - accuracy
        ),
        "the last batch may be smaller: average over examples, not over batches": (
            batches.mean(axis=0)[1]
        ),
        "this is the accuracy of the last batch: average over all examples": (
            batches[-1][1]
        ),
        "eval-accuracy is the share of right ones: this is the loss": loss,
    }
    checks = ((values[0], loss, named_losses), (values[1], accuracy, named_accuracies))
    for value, right, named in checks:
        if close(value, right):
            continue
        for sentence, made in named.items():
            if close(value, made):
                return sentence
    return "loss and accuracy should be those of the message's model on testloader"


# ------------------------------------------------------------------ 3.3 train_clipped


class Training:
    """A stand-in for training: adds a known update, and notes how it was called."""

    def __init__(self, update: Arrays) -> None:
        self.update = update
        self.starts: list[Arrays] = []

    def __deepcopy__(self, memo: dict) -> "Training":
        """Stay the same, so that the judge sees how the answer's copy was called."""
        return self

    def __call__(self, net: nn.Module, loader: DataLoader) -> float:
        """Train ``net`` in place, and return a loss, as ``model.train`` does."""
        if not isinstance(loader, DataLoader):
            raise TypeError(
                f"train_fn takes a DataLoader, not a {type(loader).__name__}"
            )
        with torch.no_grad():
            state = dict(net.named_parameters())
            self.starts.append({k: p.numpy().copy() for k, p in state.items()})
            for name, parameter in state.items():
                parameter += torch.from_numpy(self.update[name])
        return 0.5


def flat(arrays: Arrays) -> np.ndarray:
    """Return all numbers of a model as one vector."""
    return np.concatenate([array.ravel() for array in arrays.values()]).astype(float)


def shaped(vector: np.ndarray, like: Arrays) -> Arrays:
    """Cut a vector into arrays again."""
    ends = np.cumsum([array.size for array in like.values()])
    parts = np.split(vector, ends[:-1])
    return {
        k: p.reshape(a.shape) for (k, a), p in zip(like.items(), parts, strict=True)
    }


def factor(norm: float, max_norm: float) -> float:
    """Return what to multiply something of this norm by, to clip it."""
    return max_norm / norm if norm > max_norm else 1.0


def each(arrays: Arrays, max_norm: float) -> np.ndarray:
    """Clip each array on its own."""
    clipped = {k: factor(np.linalg.norm(a), max_norm) * a for k, a in arrays.items()}
    return flat(clipped)


def clip_mistakes(
    start: Arrays, update: Arrays, max_norm: float
) -> dict[str, np.ndarray]:
    """Return what each mistake makes of all parameters, with the sentence for it."""
    x, u = flat(start), flat(update)
    after = {name: start[name] + update[name] for name in start}
    y = flat(after)
    norm = np.linalg.norm(u)
    clipped = factor(norm, max_norm) * u
    first, *_, last = (np.linalg.norm(array) for array in update.values())
    norms = sum(np.linalg.norm(array) for array in update.values())
    length = max(norm, 1e-9)
    return {
        "the trained parameters go back unclipped: if you did clip, look at what you "
        "subtract, for net.state_dict() does not copy, and moves along with net": [y],
        "nothing was trained: these are the arrays of the message": [x],
        "each array was clipped on its own: take one norm over all arrays, and one "
        "factor for all": [x + each(update, max_norm)],
        "the parameters were clipped: clip the update, which is after minus before, "
        "and add it to before": [
            factor(np.linalg.norm(y), max_norm) * y,
            each(after, max_norm),
        ],
        "a short update was made longer: the factor is at most 1": [
            x + max_norm / length * u
        ],
        "this is the update: add it to the parameters from before the training": [
            clipped,
            u,
            each(update, max_norm),
            max_norm / length * u,
        ],
        "the clipped update was added to the trained parameters: add it to those from "
        "before the training": [y + clipped],
        "the update has the wrong sign: it is after minus before": [
            x - clipped,
            y - clipped,
        ],
        "each number was clipped on its own: that turns the update into another "
        "direction, so multiply all by one factor": [
            x + u.clip(-max_norm, max_norm),
            x + u.clip(max=max_norm),
        ],
        "the norm lacks its square root": [x + factor(norm**2, max_norm) * u],
        "the norms of the arrays do not add up: sum the squares of all numbers, then "
        "take the root": [x + factor(norms, max_norm) * u],
        "the norm is that of one array: sum the squares of all arrays": [
            x + factor(n, max_norm) * u for n in (first, last)
        ],
        "the norm is another one: take the square root of the sum of all squares": [
            x + factor(n, max_norm) * u
            for n in (abs(u).sum(), abs(u).max(), norm / np.sqrt(u.size))
        ],
        "the update was brought to length 1: the length allowed is max_norm": [
            x + factor(norm, 1.0) * u,
            x + u / length,
        ],
        "max_norm is a length, not a factor: divide it by the norm": [x + max_norm * u],
    }


@exercise(
    "3.3", "whatever a client's data are, it moves the model by max_norm at most."
)
def judge_train_clipped(answer: Attempt, rng: random.Random) -> None:
    """Let it clip trainings whose update is known."""
    for start, update, max_norm, loader in clip_cases(rng):
        trained = {name: start[name] + update[name] for name in start}
        given = {"message": start, "trained": trained, "max_norm": max_norm}
        training = Training(update)
        sent = {name: torch.from_numpy(array) for name, array in start.items()}
        # The net as it comes has parameters of its own.
        net = linear(nn.Linear, {name: 1 - 3 * tensor for name, tensor in sent.items()})
        content = ask_plainly(
            answer, order(sent), net, loader, training, max_norm, given=given
        )
        require_trained_once(training, start, given)
        extra = (
            "the reply holds more than arrays and metrics: what came with the message "
            "need not go back"
        )
        require_records(content, TRAINED, extra, given)
        require_clipped(content["arrays"], start, update, max_norm, given)
        require_keys(content["metrics"], {"num-examples"}, given)
        require_only(content["metrics"], {"num-examples"}, given)
        require_count(content["metrics"]["num-examples"], loader, given)


def clip_cases(
    rng: random.Random,
) -> list[tuple[Arrays, Arrays, float, DataLoader]]:
    """Return start, update, max_norm and loader: by hand first, then at random."""
    start = {"weight": [[1, 2]], "bias": [3]}
    update = {"weight": [[6, 2]], "bias": [3]}  # of length 7
    start, update, still = (
        {name: np.array(value, dtype=np.float32) for name, value in arrays.items()}
        for arrays in (start, update, {"weight": [[0, 0]], "bias": [0]})
    )
    loader = blank_loader(10, 4)
    cases = [
        (start, update, 2.8, loader),
        (start, update, 8.0, loader),
        # Each array is short enough, and both together are not.
        (start, update, 6.5, loader),
        (start, still, 2.8, loader),
    ]
    for share in (0.2, 0.7, 1.5):
        shapes = {"weight": (rng.randint(1, 4), rng.randint(2, 4))}
        shapes["bias"] = shapes["weight"][:1]
        drawn = [
            {name: tensor.numpy() for name, tensor in random_state(rng, shapes).items()}
            for _ in range(2)
        ]
        max_norm = share * float(np.linalg.norm(flat(drawn[1])))
        cases.append((*drawn, max_norm, blank_loader(rng.randint(11, 30), 5)))
    return cases


def require_trained_once(training: Training, start: Arrays, given: Any) -> None:
    """Raise Wrong unless the training was begun once, from the message's arrays."""
    if not training.starts:
        raise Wrong("train_fn was not called: nothing was trained", given=given)
    if not close(training.starts[0], start):
        raise Wrong(
            "the training began from other parameters than the message's: load its "
            "arrays into net first",
            given=given,
            got=training.starts[0],
        )
    if len(training.starts) > 1:
        raise Wrong(
            f"train_fn was called {len(training.starts)} times: train once", given=given
        )


def require_clipped(
    record: ArrayRecord, start: Arrays, update: Arrays, max_norm: float, given: Any
) -> None:
    """Raise Wrong unless the arrays are what the clipped update leads to."""
    got = numpy_of(record)
    u = flat(update)
    right = flat(start) + factor(np.linalg.norm(u), max_norm) * u
    expected = shaped(right, start)
    require_names(got, expected, given)
    if not close(got, expected):
        for sentence, vectors in clip_mistakes(start, update, max_norm).items():
            for vector in vectors:
                if not close(vector, right) and close(got, shaped(vector, start)):
                    raise Wrong(sentence, given=given, expected=expected, got=got)
        if any(np.isnan(array).any() for array in got.values()):
            raise Wrong(
                "there is NaN among the parameters: look where 0 is divided by 0",
                given=given,
                got=got,
            )
        raise Wrong(
            "the arrays should be the message's plus the update, clipped",
            given=given,
            expected=expected,
            got=got,
        )
    require_single_precision(got, given)
