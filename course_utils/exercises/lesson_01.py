"""Lesson 01's exercises."""

import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
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
    known = {"gives": {"what comes back": "MetricRecord"} | gives} if gives else {}
    return Case(values, shown=f"{values}, of types {kinds}"[:190], **known)


def random_metrics(rng: random.Random) -> Case:
    """Draw metrics of all libraries."""
    values: dict[str, Any] = {
        "perplexity": rng.choice(WRAPPERS)(rng.randint(9, 99) / 8)
    }
    for name in rng.sample(["loss", "accuracy", "f1", "error", "norm"], 3):
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
        metrics({"loss": np.float32(0.5), "n": np.int64(400)}, loss=0.5, n=400),
        metrics({"loss": torch.tensor(0.25)}, loss=0.25),
        metrics({"loss": 1.75, "n": 3}, loss=1.75, n=3),
        metrics(
            {"losses": [torch.tensor(0.5), torch.tensor(0.25)]}, losses=[0.5, 0.25]
        ),
        metrics(
            {"f1": [np.float32(1.5)], "loss": np.float32(0.75)}, f1=[1.5], loss=0.75
        ),
        metrics({"losses": [0, 0.5, torch.tensor(2)]}, losses=[0, 0.5, 2]),
        metrics({"errors": 0, "loss": torch.tensor(0.0)}, errors=0, loss=0.0),
        metrics(
            {"train-loss": np.float32(2**-13), "Größe": [-(2**-13)]},
            **{"train-loss": 2**-13, "Größe": [-(2**-13)]},
        ),
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
        return a MetricRecord, not a plain dictionary
            return MetricRecord(record) -> return record
        return a MetricRecord: in a ConfigRecord, no server averages them
            return MetricRecord(record) -> return ConfigRecord(record)
        return the MetricRecord itself, without a RecordDict around it
            MetricRecord(record) -> RecordDict({'metrics': MetricRecord(record)})
        int(value) cuts off what stands after the point: use float(value)
            float(v) -> int(v)
            & float(value) -> int(value)
        these are rounded: keep all that stands after the point
            float(v) -> round(float(v), 1)
            & float(value) -> round(float(value), 1)
            float(v) -> round(float(v), 2)
            & float(value) -> round(float(value), 2)
            float(v) -> round(float(v), 3)
            & float(value) -> round(float(value), 3)
            float(v) -> round(float(v), 4)
            & float(value) -> round(float(value), 4)
            float(v) -> round(float(v), 5)
            & float(value) -> round(float(value), 5)
            float(v) -> round(float(v), 6)
            & float(value) -> round(float(value), 6)
        a 0 is left out: it is a number, too
            values.items() -> [(k, v) for k, v in values.items() if v]
            for v in value -> for v in value if v
        this came as a list: keep all its numbers, as a list
            [float(v) for v in value] -> float(np.mean([*map(float, value)]))
            [float(v) for v in value] -> float(value[0])
        the record lacks lists: keep every key
            values.items() -> [i for i in values.items() if type(i[1]) is not list]
        this came as one number: do not make a list of it
            = float(value) -> = [float(value)]
        your function changed what it was given: work on a copy
            record = {} -> record = values
    """,
    otherwise={
        "what comes back": "your function should return a MetricRecord",
        "keys": "the record should have the keys that came in, all of them",
        "": "the numbers should be those that came in",
    },
)

# ------------------------------------------------------------------ 1.2 record_bytes

Shapes = dict[str, tuple[int, ...]]


def random_shapes(rng: random.Random) -> Case:
    """Draw names and shapes of a few small arrays, and let Flower count."""
    names = rng.sample(["w", "bias", "body.0.weight", "head.bias", "scale_"], 3)
    shapes = {
        name: tuple(rng.randint(1, 9) for _ in range(rng.randint(1, 4)))
        for name in names
    }
    size = rng.choice((4, 8))
    arrays = [np.zeros(shape, f"f{size}") for shape in shapes.values()]
    record = dict(zip(names, ArrayRecord(arrays).values(), strict=True))
    return Case(shapes, size, gives=ArrayRecord(record).count_bytes())


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
        Case({"weight": (2, 3)}, 4, gives=4 * 6 + 128 + 6),
    ],
    draw=random_shapes,
    oracle=record_bytes,
    mistakes="""
        these are the numbers alone: each array has a header, and its name counts
            + headers + names ->
        the headers are missing: 128 bytes for each array
            + headers ->
        the names are missing: a byte for each letter
            + names ->
        each array has a header of its own: there is not one for the whole record
            128 * len(shapes) -> 128
        a name counts a byte for each letter, not one in all
            len(name) for name -> 1 for name
        the numbers of an array are the product of its shape, not the sum
            math.prod(shape) -> sum(shape)
        only the first entry of each shape was counted: multiply them all
            math.prod(shape) -> (*shape, 1)[0]
        only the last entry of each shape was counted: multiply them all
            math.prod(shape) -> (1, *shape)[-1]
        the shape () is one number, not none: an empty product is 1
            math.prod(shape) -> bool(shape) * math.prod(shape)
        two arrays of the same shape are two arrays: count the numbers of each
            shapes.values() -> set(shapes.values())
        a number takes number_size bytes, not one
            number_size * numbers -> numbers
        a number takes number_size bytes, not always 4
            number_size * numbers -> 4 * numbers
        these are bits: number_size is in bytes already
            number_size * numbers -> 8 * number_size * numbers
        headers and names do not grow with number_size: only numbers do
            numbers + headers + names -> (numbers + headers + names)
        number_size multiplies the numbers alone: add the 128 after it
            numbers + headers -> (numbers + headers)
        number_size multiplies the numbers alone: add len(name) after it
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
    images = torch.zeros(len(labels), 1, 2, 2)
    examples = TensorDataset(images, torch.tensor(labels))
    yield from reply_facts(
        answer, message, make_loader(examples, batch_size=batch_size)
    )


def client(labels: list[int], batch_size: int, num_classes: int, **gives: Any) -> Case:
    """Make the case of a client with these labels."""
    said = f"labels {labels} in batches of {batch_size}, num-classes {num_classes}"
    return Case(labels, batch_size, num_classes, shown=said, **gives)


def random_client(rng: random.Random) -> Case:
    """Draw a client."""
    num_classes = rng.randint(2, 12)
    size = rng.randint(num_classes + 1, 40)
    labels = [rng.randrange(num_classes) for _ in range(size)]
    return client(labels, rng.randint(2, 8), num_classes)


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
        client(
            [4, 2, 0, 2, 4, 2, 0],
            2,
            6,
            gives={
                "label-counts in metrics": [2, 0, 3, 0, 2, 0],
                "num-examples in metrics": 7,
            },
        ),
        client([1] * 7, 3, 3, gives={"label-counts in metrics": [0, 7, 0]}),
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
        num-examples is about all batches: this is the size of one
            len(labels)} -> trainloader.sampler.batch_size}
            len(labels)} -> len([*trainloader][-1][1])}
        num-examples counts examples: this is the number of labels
            len(labels)} -> n}
        num-examples counts examples: this is how many labels the client has
            len(labels)} -> len(set(labels))}
        these are the labels themselves: the data would leave the client
            "label-counts": counts -> "label-counts": labels
        the counts are in another order: number i of the list is about label i
            "label-counts": counts -> "label-counts": sorted(counts)[::-1]
            "label-counts": counts -> "label-counts": sorted(counts)
        this says which labels there are: count how many examples of each
            labels.count(i) -> int(i in labels)
        counts are numbers that a server adds up or averages: they belong in a
        MetricRecord, not in a ConfigRecord
            MetricRecord(found) -> ConfigRecord(found)
        counts are numbers that a server adds up or averages: they belong in a
        MetricRecord, not in an ArrayRecord
            MetricRecord(found) -> ArrayRecord([np.array(counts)])
            "metrics": MetricRecord(found) -> "arrays": ArrayRecord([np.array(counts)])
        the reply carries more than was asked for: only "metrics" is to go back
            MetricRecord(found)} -> MetricRecord(found)} | {**message.content}
    """,
    otherwise={
        "records": "the reply should carry one MetricRecord: the server looks for a "
        'record named "metrics"',
        "names in metrics": "the metrics should be label-counts and num-examples: keys "
        "must be the same at every client, whatever labels it has",
        "label-counts in metrics": "label-counts should say how many examples of each "
        "label there are, in a list with one number for each",
        "num-examples in metrics": "num-examples should be the number of the client's "
        "examples",
    },
)
