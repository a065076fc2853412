"""Lesson 01's exercises."""

import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from numpy import float32
from torch import tensor
from torch.utils.data import DataLoader, TensorDataset

from course_utils.exercises.engine import Attempt, Case, Exercise, require_kind
from course_utils.exercises.messages import instruction, reply_facts
from course_utils.partitions import make_loader

# ----------------------------------------------------------------- 1.1 clean_metrics

WRAPPERS = (float, np.float32, np.float64, torch.tensor)


def play_metrics(answer: Attempt, values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what kind of thing comes back, its keys and its values."""
    got = answer(values)
    if got is None:
        require_kind(got, values)
    yield "what comes back", type(got).__name__
    if isinstance(got, MetricRecord):
        yield "keys", sorted(got)
        yield from sorted(got.items())


def metrics(values: dict[str, Any], **gives: Any) -> Case:
    """Make a case that shows types: they are what matters."""
    kinds = {
        k: [type(x).__name__ for x in v] if isinstance(v, list) else type(v).__name__
        for k, v in values.items()
    }
    return Case(values, shown=f"{values}, of types {kinds}"[:190], gives=gives)


def random_metrics(rng: random.Random) -> Case:
    """Draw metrics of all libraries."""
    values: dict[str, Any] = {"train-loss": rng.choice(WRAPPERS)(rng.random())}
    for name in rng.sample(["loss", "accuracy", "f1", "Größe", "norm"], 3):
        numbers = [rng.randint(1, 99) / 8 for _ in range(rng.randint(1, 4))]
        values[name] = [rng.choice(WRAPPERS)(number) for number in numbers]
    return metrics(values)


def clean_metrics(values: dict[str, Any]) -> MetricRecord:
    """Unwrap by float: the oracle."""
    record = {}
    for key, value in values.items():
        if isinstance(value, list):
            record[key] = [float(v) for v in value]
        else:
            record[key] = float(value)
    return MetricRecord(record)


CLEAN_METRICS = Exercise(
    "1.1",
    "your metrics get into a MetricRecord, whichever library made them.",
    cases=[
        metrics({"loss": float32(0.5), "n": np.int64(400)}, loss=0.5, n=400),
        metrics({"loss": tensor(0.25)}, loss=0.25),
        metrics({"loss": math.inf, "n": -3}, loss=math.inf, n=-3),
        metrics({"losses": [tensor(0.5), tensor(0.25)]}, losses=[0.5, 0.25]),
        metrics({"f1": [float32(1.5)], "loss": float32(0.75)}, f1=[1.5], loss=0.75),
        metrics({"losses": [0, 0.1, tensor(2)]}, losses=[0, 0.1, 2]),
        metrics({"errors": 0, "loss": tensor(0.0)}, errors=0, loss=0.0),
        metrics({"losses": [], "n": 1}, losses=[], n=1),
        metrics({"tiny": float32(2**-13), "f1": [2**-13]}, tiny=2**-13, f1=[2**-13]),
    ],
    draw=random_metrics,
    play=play_metrics,
    exact=True,
    oracle=clean_metrics,
    mistakes="""
        the numbers inside a list are to be unwrapped, too
            [float(v) for v in value] -> value
        only NumPy's and PyTorch's numbers have .item(): float(value) unwraps these, and
        takes Python's own, too
            float(value) -> value.item()
        a list is not one number: unwrap each number inside it
            isinstance(value, list) -> False
        a list takes one type only: make every number in it a float
            [float(v) for -> [v.item() if hasattr(v, 'item') else v for
        int and round cut off what stands after the point: float(value) keeps it
            float(v) -> int(v)
            & float(value) -> int(value)
            float(v) -> round(float(v), 3)
            & float(value) -> round(float(value), 3)
        a 0 is left out: it is a number, too
            values.items() -> [(k, v) for k, v in values.items() if v]
            for v in value -> for v in value if v
    """,
    otherwise={
        "what comes back": "return the MetricRecord itself: a server averages the "
        "numbers of no other record, and of no dictionary",
        "keys": "the record should have the keys that came in, all of them",
        "": "a number should stay one number, a list a list, and nothing is rounded",
    },
)

# ------------------------------------------------------------------ 1.2 record_bytes

Shapes = dict[str, tuple[int, ...]]


def random_shapes(rng: random.Random) -> Case:
    """Draw names and shapes of a few small arrays, and let Flower count."""
    names = rng.sample(["w", "bias", "body.0.weight", "head.bias", "scale_"], 3)
    shapes = {n: tuple(rng.choices(range(1, 9), k=rng.randint(1, 4))) for n in names}
    kind = rng.choice((torch.float32, torch.float64))
    record = ArrayRecord({n: torch.zeros(s, dtype=kind) for n, s in shapes.items()})
    return Case(shapes, kind.itemsize, gives=record.count_bytes())


def record_bytes(shapes: Shapes, number_size: int) -> int:
    """Add up numbers, headers and names of all: the oracle."""
    numbers = sum(math.prod(shape) for shape in shapes.values())
    names = sum(len(name) for name in shapes)
    headers = 128 * len(shapes)
    return number_size * numbers + headers + names


RECORD_BYTES = Exercise(
    "1.2",
    "you know a model's bytes on the wire before it is trained.",
    cases=[
        Case({"w": (2, 3), "bias": (3,)}, 4, gives=4 * 9 + 256 + 5),
        Case({"w": (2, 3), "bias": (3,)}, 8, gives=8 * 9 + 256 + 5),
        Case({"w": (2, 3), "bias": ()}, 4, gives=4 * 7 + 256 + 5),
        Case({"in": (2, 3), "out": (2, 3)}, 4, gives=4 * 12 + 256 + 5),
        Case({"weight": (2, 3), "no": (0, 3)}, 4, gives=4 * 6 + 256 + 8),
        Case({}, 8, gives=0),
    ],
    draw=random_shapes,
    oracle=record_bytes,
    mistakes="""
        these are the numbers alone: each array has a header, and its name counts
            + headers + names ->
        the headers are missing: 128 bytes for each array
            + headers ->
        a name counts a byte for each letter
            + names ->
            len(name) for name -> 1 for name
        each array has a header of its own, of 128 bytes, whatever its size
            128 * len(shapes) -> 128
            128 * -> 32 * number_size *
        the numbers of an array are the product of its shape: multiply all its entries
            math.prod(shape) -> sum(shape)
            math.prod(shape) -> (*shape, 1)[0]
            math.prod(shape) -> (1, *shape)[-1]
        the shape () is one number, not none: an empty product is 1
            math.prod(shape) -> bool(shape) * math.prod(shape)
        two arrays of the same shape are two arrays: count the numbers of each
            shapes.values() -> set(shapes.values())
        a number takes number_size bytes: not always 1 or 4, and not that many bits
            number_size * numbers -> numbers
            number_size * numbers -> 4 * numbers
            number_size * numbers -> 8 * number_size * numbers
        number_size multiplies the numbers alone, not the headers and names
            numbers + headers + names -> (numbers + headers + names)
            numbers + headers -> (numbers + headers)
            headers + names -> headers + number_size * names
    """,
    otherwise="the result should be bytes of numbers, headers and names, as Flower "
    "counts them",
)

# ------------------------------------------------------------------ 1.3 count_labels


def play_query(
    answer: Attempt, labels: list[int], batch_size: int, num_classes: int
) -> Iterator[tuple[str, Any]]:
    """Ask a client whose labels are known, and yield what it replies."""
    config = ConfigRecord({"num-classes": num_classes})
    message = instruction(RecordDict({"config": config}), "query")
    examples = TensorDataset(torch.zeros(len(labels), 1, 2, 2), torch.tensor(labels))
    yield from reply_facts(
        answer, message, make_loader(examples, batch_size=batch_size)
    )


def client(labels: list[int], batch_size: int, counts: list[int]) -> Case:
    """Make the case of a client with these labels, so many of each."""
    said = f"labels {labels} in batches of {batch_size}, num-classes {len(counts)}"
    gives = {"label-counts in metrics": counts, "num-examples in metrics": len(labels)}
    return Case(labels, batch_size, len(counts), shown=said, gives=gives)


def random_client(rng: random.Random) -> Case:
    """Draw a client."""
    num_classes = rng.randint(2, 12)
    labels = rng.choices(range(num_classes), k=rng.randint(num_classes + 1, 40))
    counts = [labels.count(label) for label in range(num_classes)]
    return client(labels, rng.randint(2, 8), counts)


def count_labels(message: Message, trainloader: DataLoader) -> Message:
    """Count label by label: the oracle."""
    n = message.content["config"]["num-classes"]
    labels = [int(label) for _, batch in trainloader for label in batch]
    counts = [labels.count(i) for i in range(n)]
    found = {"label-counts": counts, "num-examples": len(labels)}
    content = RecordDict({"metrics": MetricRecord(found)})
    return Message(content, reply_to=message)


COUNT_LABELS = Exercise(
    "1.3",
    "you have answered a question with a record that any server can add up.",
    cases=[
        # Labels are missing in the middle and at the end, and batches (4), their size
        # (2), labels (6), labels there are (3) and examples (7) are all different.
        client([4, 2, 0, 2, 4, 2, 0], 2, [2, 0, 3, 0, 2, 0]),
        client([1] * 7, 3, [0, 7, 0]),
    ],
    draw=random_client,
    play=play_query,
    oracle=count_labels,
    mistakes="""
        there is no number for some label: one that the client does not have counts 0,
        so that number i of every client's list is about label i
            range(n) -> sorted(set(labels))
            range(n) -> range(max(labels) + 1)
        the list is too long: how many labels there are, the query says in its config,
        under "num-classes"
            range(n) -> range(10)
            range(n) -> range(n + 1)
        these are shares: send the counts, which a server can add up
            labels.count(i) -> labels.count(i) / len(labels)
        this counts one batch: the loader yields several, count them all
            in trainloader -> in [*trainloader][:1]
            in trainloader -> in [*trainloader][-1:]
        num-examples counts examples: len(trainloader) counts batches
            len(labels)} -> len(trainloader)}
        these are the labels themselves: the data would leave the client
            "label-counts": counts -> "label-counts": labels
        the counts are in another order: number i of the list is about label i
            "label-counts": counts -> "label-counts": sorted(counts)[::-1]
        this says which labels there are: count how many examples of each
            labels.count(i) -> int(i in labels)
        counts are numbers that a server adds up or averages: they belong in a
        MetricRecord, not in a record of another kind
            MetricRecord(found) -> ConfigRecord(found)
            MetricRecord(found) -> ArrayRecord([np.array(counts)])
            "metrics": MetricRecord(found) -> "arrays": ArrayRecord([np.array(counts)])
    """,
    otherwise={
        "records": 'the reply should carry one MetricRecord, "metrics", and no more',
        "names in metrics": "the metrics should be label-counts and num-examples: keys "
        "must be the same at every client, whatever labels it has",
        "label-counts in metrics": "label-counts should say how many examples of each "
        "label there are, in a list with one number for each",
        "num-examples in metrics": "num-examples should say how many examples the "
        "client has in all: neither a batch's, nor how many labels there are",
    },
)
