"""Judges of lesson 01's exercises."""

import random
from collections import Counter
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch.utils.data import DataLoader, TensorDataset

from course_utils.exercises import Attempt, Wrong, close, exercise, require_kind
from course_utils.exercises.messages import ask, instruction
from course_utils.exercises.words import explain
from course_utils.partitions import make_loader

# ----------------------------------------------------------------- 1.1 clean_metrics

WRAPPERS = (float, np.float32, np.float64, torch.tensor)

METRICS_BY_HAND = (
    # What comes in, what it is in plain Python, what to say if Flower refuses it.
    (
        {"train-loss": np.float32(0.5), "num-examples": np.int64(400)},
        {"train-loss": 0.5, "num-examples": 400},
        "",
    ),
    ({"train-loss": torch.tensor(0.25)}, {"train-loss": 0.25}, ""),
    (
        {"eval-loss": 1.75, "num-examples": 3},
        {"eval-loss": 1.75, "num-examples": 3},
        "",
    ),
    (
        {"losses": [torch.tensor(0.5), torch.tensor(0.25)]},
        {"losses": [0.5, 0.25]},
        "the numbers inside a list are to be unwrapped, too",
    ),
    (
        {"losses": [np.float32(1.5)], "accuracy": np.float32(0.75)},
        {"losses": [1.5], "accuracy": 0.75},
        "the numbers inside a list are to be unwrapped, too",
    ),
    ({"losses": [0, 0.5, torch.tensor(2)]}, {"losses": [0, 0.5, 2]}, ""),
)


def random_metrics(rng: random.Random) -> tuple[dict, dict]:
    """Draw metrics of all libraries, and the same in plain Python."""
    wrapped, plain = {}, {}
    for name in rng.sample(["loss", "accuracy", "f1", "error", "norm"], 3):
        numbers = [rng.randint(1, 99) / 8 for _ in range(rng.randint(1, 4))]
        plain[name] = numbers
        wrapped[name] = [rng.choice(WRAPPERS)(number) for number in numbers]
    plain["perplexity"] = rng.randint(9, 99) / 8
    wrapped["perplexity"] = rng.choice(WRAPPERS)(plain["perplexity"])
    return wrapped, plain


class Verbatim(str):
    """Text that is shown as it is, without quotation marks."""

    __repr__ = str.__str__


def why_raised(sentence: str, in_a_list: str) -> str:
    """Say what an answer to 1.1 that raises has not thought of."""
    if "object has no attribute 'item'" in sentence and "'list'" not in sentence:
        return (
            "only NumPy's and PyTorch's numbers have .item(): float(value) unwraps "
            "these, and takes Python's own, too"
        )
    of_a_list = ("not 'list'", "'list' object has no attribute")
    if any(part in sentence for part in of_a_list):
        return "a list is not one number: unwrap each number inside it"
    if "same valid type" in sentence:
        return "a list takes one type only: make every number in it a float"
    explained = explain(sentence)
    if in_a_list and explained != sentence:
        return f"{in_a_list}: {explained}"
    return explained


@exercise("1.1", "your metrics get into a MetricRecord, whichever library made them.")
def judge_clean_metrics(answer: Attempt, rng: random.Random) -> None:
    """Compare with the same numbers, drawn in plain Python."""
    drawn = [(*random_metrics(rng), "") for _ in range(3)]
    for values, plain, in_a_list in (*METRICS_BY_HAND, *drawn):
        given = Verbatim(values)  # not made plain: the types are what matters
        try:
            got = answer(values)
        except Wrong as wrong:
            raise Wrong(why_raised(str(wrong), in_a_list), given=given) from None
        if isinstance(got, dict):
            raise Wrong("return a MetricRecord, not a plain dictionary", given=given)
        if isinstance(got, ConfigRecord):
            raise Wrong(
                "return a MetricRecord: in a ConfigRecord, no server averages them",
                given=given,
            )
        if not isinstance(got, MetricRecord):
            require_kind(got, None)  # says what to do about None
            raise Wrong("your function should return a MetricRecord", got=got)
        if not close(got, plain):
            sentence = wrong_metrics(dict(got), plain)
            raise Wrong(sentence, given=given, expected=plain, got=got)


def wrong_metrics(got: dict, plain: dict) -> str:
    """Name what is wrong with a record of other metrics than it should hold."""
    if missing := sorted(set(plain) - set(got)):
        return f"the record lacks {', '.join(missing)}: keep every key, lists too"
    if set(got) - set(plain):
        return "the record has keys that were not there: keep those that came in"
    if close(got, {key: floored(value) for key, value in plain.items()}):
        return "int(value) cuts off what stands after the point: use float(value)"
    for key, value in plain.items():
        if isinstance(value, list) and not isinstance(got[key], list):
            return f"{key} came as a list: keep all its numbers, as a list"
        if isinstance(got[key], list) and not isinstance(value, list):
            return f"{key} came as one number: do not make a list of it"
    return "the numbers should be those that came in"


def floored(value: Any) -> Any:
    """Cut off what stands after the point, also in a list."""
    return [int(v) for v in value] if isinstance(value, list) else int(value)


# ------------------------------------------------------------------ 1.2 record_bytes

DTYPES = {2: np.float16, 4: np.float32, 8: np.float64}

Shapes = dict[str, tuple[int, ...]]


def random_shapes(rng: random.Random) -> Shapes:
    """Draw names and shapes of a few small arrays."""
    names = rng.sample(["w", "bias", "body.0.weight", "head.bias", "scale_"], 3)
    return {
        name: tuple(rng.randint(1, 9) for _ in range(rng.randint(1, 4)))
        for name in names
    }


def counted(shapes: Shapes, number_size: int) -> int:
    """Let Flower count."""
    arrays = [np.zeros(shape, DTYPES[number_size]) for shape in shapes.values()]
    record = ArrayRecord(arrays)  # named "0", "1", ...
    renamed = {n: a for n, a in zip(shapes, record.values(), strict=True)}
    return ArrayRecord(renamed).count_bytes()


def parts(shapes: Shapes, number_size: int) -> tuple[int, int, int]:
    """Return the bytes of numbers, headers and names."""
    numbers = sum(int(np.zeros(shape).size) for shape in shapes.values())
    return number_size * numbers, 128 * len(shapes), sum(map(len, shapes))


def with_numbers(count: Any) -> Any:
    """Return a counter of bytes that counts an array's numbers in its own way."""

    def counter(shapes: Shapes, number_size: int) -> int:
        _, headers, names = parts(shapes, number_size)
        numbers = sum(count(shape) for shape in shapes.values())
        return number_size * int(numbers) + headers + names

    return counter


def numbers_only(shapes: Shapes, size: int) -> int:
    """Count as the lesson's first guess does."""
    return parts(shapes, size)[0]


BYTES_MISTAKES = {
    "these are the numbers alone: each array has a header, and its name counts": (
        numbers_only
    ),
    "the headers are missing: 128 bytes for each array": (
        lambda shapes, size: sum(parts(shapes, size)[::2])
    ),
    "the names are missing: a byte for each letter": (
        lambda shapes, size: sum(parts(shapes, size)[:2])
    ),
    "each array has a header of its own: there is not one for the whole record": (
        lambda shapes, size: sum(parts(shapes, size)[::2]) + 128
    ),
    "a name counts a byte for each letter, not one in all": (
        lambda shapes, size: sum(parts(shapes, size)[:2]) + len(shapes)
    ),
    "the numbers of an array are the product of its shape, not the sum": (
        with_numbers(sum)
    ),
    "only the first entry of each shape was counted: multiply them all": (
        with_numbers(lambda shape: shape[0] if shape else 1)
    ),
    "the shape () is one number, not none: an empty product is 1": (
        with_numbers(lambda shape: np.zeros(shape).size if shape else 0)
    ),
    "a number takes number_size bytes, not one": (
        lambda shapes, size: sum(parts(shapes, 1))
    ),
    "a number takes number_size bytes, not always 4": (
        lambda shapes, size: sum(parts(shapes, 4))
    ),
    "these are bits: number_size is in bytes already": (
        lambda shapes, size: 8 * parts(shapes, size)[0] + sum(parts(shapes, size)[1:])
    ),
    "headers and names do not grow with number_size: only numbers do": (
        lambda shapes, size: parts(shapes, size)[0] + size * sum(parts(shapes, 1)[1:])
    ),
    "number_size multiplies the numbers alone: add the 128 after it": (
        lambda shapes, size: sum(parts(shapes, size)) + (size - 1) * 128 * len(shapes)
    ),
    "number_size multiplies the numbers alone: add len(name) after it": (
        lambda shapes, size: (
            sum(parts(shapes, size)) + (size - 1) * len("".join(shapes))
        )
    ),
}


@exercise("1.2", "you know a model's bytes on the wire before it is trained.")
def judge_record_bytes(answer: Attempt, rng: random.Random) -> None:
    """Compare with Flower's own count."""
    cases = [
        ({"w": (2, 3), "bias": (3,)}, 4),
        ({"w": (2, 3), "bias": (3,)}, 8),
        ({"w": (2, 3), "bias": ()}, 4),
        *((random_shapes(rng), size) for size in DTYPES),
    ]
    for case in cases:
        answer.compare(
            counted,
            *case,
            mistakes=BYTES_MISTAKES,
            wanted="bytes of numbers, headers and names, as Flower counts them",
        )


# ------------------------------------------------------------------ 1.3 count_labels


def loader_of(labels: list[int], batch_size: int) -> DataLoader:
    """Make a client's loader of blank images with these labels."""
    images = torch.zeros(len(labels), 1, 2, 2)
    return make_loader(
        TensorDataset(images, torch.tensor(labels)), batch_size=batch_size
    )


@exercise(
    "1.3", "you have answered a question with a record that any server can add up."
)
def judge_count_labels(answer: Attempt, rng: random.Random) -> None:
    """Ask clients whose labels are known."""
    # By hand: labels are missing in the middle and at the end, and batches (4), their
    # size (2), labels (6), labels there are (3) and examples (7) are all different.
    cases = [([4, 2, 0, 2, 4, 2, 0], 2, 6), ([1] * 7, 3, 3)]
    for _ in range(3):
        num_classes = rng.randint(2, 12)
        size = rng.randint(num_classes + 1, 40)
        labels = [rng.randrange(num_classes) for _ in range(size)]
        cases.append((labels, rng.randint(2, 8), num_classes))
    for labels, batch_size, num_classes in cases:
        config = ConfigRecord({"num-classes": num_classes})
        message = instruction(RecordDict({"config": config}), "query")
        given = Verbatim(
            f"labels {labels} in batches of {batch_size}, num-classes {num_classes}"
        )
        content = ask(answer, message, loader_of(labels, batch_size), given=given)
        metrics = require_metrics(content, given)
        counts = [labels.count(label) for label in range(num_classes)]
        expected = {"label-counts": counts, "num-examples": len(labels)}
        if close(metrics, expected):
            continue
        sentence = wrong_counts(
            metrics["label-counts"], labels, batch_size, num_classes
        ) or wrong_number(metrics["num-examples"], labels, batch_size, num_classes)
        raise Wrong(sentence, given=given, expected=expected, got=metrics)


def require_metrics(content: RecordDict, given: str) -> dict:
    """Return the metrics of a reply, or say what is wrong with its records."""
    kinds = {name: type(record).__name__ for name, record in content.items()}
    for kind, where in (
        (ConfigRecord, "a ConfigRecord"),
        (ArrayRecord, "an ArrayRecord"),
    ):
        if isinstance(content.get("metrics"), kind) or (
            any(isinstance(record, kind) for record in content.values())
            and not content.metric_records
        ):
            raise Wrong(
                f"counts are numbers that a server adds up or averages: they belong in "
                f"a MetricRecord, not in {where}",
                given=given,
                got=kinds,
            )
    if "metrics" not in content:
        raise Wrong(
            'the server looks for a record named "metrics"', given=given, got=kinds
        )
    if len(content) > 1:
        raise Wrong(
            'the reply carries more than was asked for: only "metrics" is to go back',
            given=given,
            got=kinds,
        )
    metrics = dict(content["metrics"])
    wanted = {"label-counts", "num-examples"}
    if missing := sorted(wanted - set(metrics)):
        raise Wrong(
            f"the metrics lack {' and '.join(missing)}: keys must be the same at every "
            "client, whatever labels it has",
            given=given,
            got=metrics,
        )
    if set(metrics) - wanted:
        raise Wrong(
            "the metrics hold more than label-counts and num-examples",
            given=given,
            got=metrics,
        )
    return metrics


def wrong_counts(
    got: int | float | list, labels: list[int], batch_size: int, num_classes: int
) -> str:
    """Name what is wrong with label counts, or return nothing if they are right."""
    counts = [labels.count(label) for label in range(num_classes)]
    if close(got, counts):
        return ""
    if not isinstance(got, list):
        return "label-counts should be a list with one number for each label"
    if close(got, labels):
        return "these are the labels themselves: the data would leave the client"
    if len(got) < num_classes:
        return (
            "there is no number for some label: one that the client does not have "
            "counts 0, so that number i of every client's list is about label i"
        )
    if len(got) > num_classes:
        return (
            f"the list has {len(got)} numbers: how many labels there are, the query "
            'says in its config, under "num-classes"'
        )
    if close(got, [count / len(labels) for count in counts]):
        return "these are shares: send the counts, which a server can add up"
    first, last = labels[:batch_size], labels[-(len(labels) % batch_size) :]
    for batch in (first, last):
        if close(got, [batch.count(label) for label in range(num_classes)]):
            return "this counts one batch: the loader yields several, count them all"
    if close(got, [float(count > 0) for count in counts]):
        return "this says which labels there are: count how many examples of each"
    if Counter(got) == Counter(counts):
        return "the counts are in another order: number i of the list is about label i"
    return "label-counts should say how many examples of each label there are"


def wrong_number(
    got: int | float | list, labels: list[int], batch_size: int, num_classes: int
) -> str:
    """Name what is wrong with the number of examples."""
    if close(got, -(-len(labels) // batch_size)):
        return "num-examples counts examples: len(trainloader) counts batches"
    if close(got, batch_size):
        return "num-examples is about all batches: this is the size of one"
    if close(got, num_classes):
        return "num-examples counts examples: this is the number of labels"
    if close(got, len(set(labels))):
        return "num-examples counts examples: this is how many labels the client has"
    return "num-examples should be the number of the client's examples"
