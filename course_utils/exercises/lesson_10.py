"""Lesson 10's exercises."""

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict

from course_utils.exercises import messages
from course_utils.exercises.engine import Attempt, Case, Exercise, Wrong, require_parts
from course_utils.exercises.messages import as_client, instruction, numpy_of
from course_utils.grid import ErrorCode

# ---------------------------------------------------------------------------- 10.1 clip


def numbers_of(first: float, second: float) -> dict[str, list]:
    """Make the numbers of two arrays: only their last ones differ between models."""
    return {"weight": [[1.0, 2.0], [4.0, first]], "bias": [3.0, second]}


def cut_of(sent: tuple, trained: tuple, limit: float, *gives: Any) -> Case:
    """Make the case of one update, which gives a model and a length."""
    shown = {"sent (last numbers)": sent, "trained": trained, "max-norm": limit}
    names = "arrays", "update-norm in metrics"
    known = {"gives": dict(zip(names, gives, strict=True))} if gives else {}
    return Case(sent, trained, limit, shown=shown, **known)


def play_mod(answer: Attempt, sent: tuple, trained: tuple, limit: float) -> Iterator:
    """Stand the mod around a client's function, and yield what is in the reply."""
    asked = instruction(RecordDict({"arrays": arrays_of(*sent)}))
    more = messages.context(run_config={"max-norm": limit}), lambda *_: reply
    reply = reply_of((9, *trained))
    yield from messages.reply_facts(answer, asked, *more)


def clipped(message: Message, context: Any, call_next: Callable) -> Message:
    """Clip by NumPy: the oracle."""
    reply = call_next(message, context)
    old, new = (numpy_of(m.content["arrays"]) for m in (message, reply))
    update = {n: new[n] - old[n] for n in new}
    norm = math.sqrt(sum((u**2).sum() for u in update.values()))
    limit = context.run_config["max-norm"]
    part = min(1.0, limit / (norm or 1.0))
    arrays = {n: Array(old[n] + part * update[n]) for n in new}
    reply.content["arrays"] = ArrayRecord(arrays)
    reply.content["metrics"]["update-norm"] = norm
    return reply


CLIP = Exercise(
    "10.1",
    "no update that your client sends is longer than the server wants.",
    cases=[
        cut_of((1.0, 2.0), (4.0, 6.0), 2.5, numbers_of(2.5, 4.0), 5.0),
        cut_of((5.0, 1.0), (-1.0, 9.0), 4.0, numbers_of(2.6, 4.2), 10.0),
        cut_of((1.0, 2.0), (4.0, 6.0), 7.5, numbers_of(4.0, 6.0), 5.0),
        cut_of((0.5, -2.0), (0.5, -2.0), 1.0, numbers_of(0.5, -2.0), 0.0),
    ],
    draw=lambda rng: cut_of((0.0, 1.0), (rng.uniform(2, 9), 5.0), rng.choice([2, 9])),
    play=play_mod,
    oracle=clipped,
    mistakes="""
        an update that is short enough stays as it is: do not make it longer
            min(1.0, limit / (norm or 1.0)) -> limit / (norm or 1.0)
        an update may be 0 long: divide by its length only where it is too long
            (norm or 1.0) -> norm
        shorten all arrays by one factor: here each is cut by itself
            part * update[n] -> update[n].clip(-limit, limit)
        the length of all numbers is the root of the sum of their squares
            math.sqrt( -> (
        measure the update, not the model: take off what was sent
            update.values() -> new.values()
        this is the update alone: add it to the model that was sent
            old[n] + part -> part
        nothing was cut
            part * update -> update
        this is the length after the cut: report that before it
            ["update-norm"] = norm -> ["update-norm"] = norm * part
    """,
    otherwise={
        **messages.REPLY,
        "arrays": "the model should be what was sent plus the update, cut if too long",
        "update-norm in metrics": "update-norm should be the length before the cut",
    },
)

# ------------------------------------------------------------------- 10.2 careful_round

Sent = tuple[int, float, float] | None
"""A client's num-examples and the last number of its two arrays; None for an error."""

PARTS = ["the model", "how many replies were not good"]


def arrays_of(*last: float) -> ArrayRecord:
    """Make a model of two arrays."""
    numbers = numbers_of(*last).items()
    return ArrayRecord({n: Array(np.array(v, "float32")) for n, v in numbers})


def reply_of(client: Sent) -> Message:
    """Make a client's reply."""
    asked = instruction(RecordDict())
    with as_client():
        if client is None:
            error = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "disk full")
            return Message(error, reply_to=asked)
        size, *numbers = client
        metrics = MetricRecord({"train-loss": 0.5, "num-examples": size})
        content = {"arrays": arrays_of(*numbers), "metrics": metrics}
        return Message(RecordDict(content), reply_to=asked)


def round_of(clients: list[Sent], quorum: int, *gives: Any) -> Case:
    """Make the case of one round, which gives a model and a number."""
    said = [f"{c[0]} examples, {c[1:]}" if c else "error reply" for c in clients]
    replies = [reply_of(client) for client in clients]
    shown = {"replies (last numbers of both arrays)": said, "quorum": quorum}
    known = {"gives": dict(zip(PARTS, gives, strict=True))} if gives else {}
    return Case(arrays_of(-1.0, -1.0), replies, quorum, shown=shown, **known)


def random_round(rng: random.Random) -> Case:
    """Draw a round in which some clients fail."""
    bad = [None, (9, math.nan, 1.0), (9, 1.0, math.inf)]
    clients: list[Sent] = [rng.choice(bad) for _ in range(rng.randint(1, 3))]
    for _ in range(rng.randint(2, 5)):
        clients.append((rng.randint(1, 99), rng.uniform(-9, 9), rng.uniform(-9, 9)))
    rng.shuffle(clients)
    return round_of(clients, rng.randint(1, 5))


def play_round(answer: Attempt, *args: Any) -> Iterator[tuple[str, Any]]:
    """Yield the model that comes back, and the number."""
    arrays, bad = require_parts(answer(*args), PARTS)
    if not isinstance(arrays, ArrayRecord):
        raise Wrong("the first of the two should be an ArrayRecord", got=arrays)
    yield PARTS[0], numpy_of(arrays)
    yield PARTS[1], bad


def sound(arrays, first=None, test=np.isfinite, how=np.all) -> bool:
    """Whether numbers are finite; the rest is for what people get wrong."""
    return all(how(test(a)) for a in [*numpy_of(arrays).values()][:first])


def careful(
    old: ArrayRecord, replies: list[Message], quorum: int
) -> tuple[ArrayRecord, int]:
    """Average by NumPy: the oracle."""
    some = [r.content for r in replies if not r.has_error()]
    good = [c for c in some if sound(c["arrays"])]
    bad = len(replies) - len(good)
    if len(good) < quorum:
        return old, bad
    sizes = [c["metrics"]["num-examples"] for c in good]
    columns = zip(*(numpy_of(c["arrays"]).values() for c in good), strict=True)
    means = [Array(np.average(column, 0, sizes)) for column in columns]
    return ArrayRecord(dict(zip(old, means, strict=True))), bad


OLD, MEAN = numbers_of(-1, -1), numbers_of(4, 2)
A, B, NAN, INF = (10, 1.0, 5.0), (30, 5.0, 1.0), math.nan, math.inf

CAREFUL = Exercise(
    "10.2",
    "no bad reply takes your model along, and none goes uncounted.",
    cases=[
        round_of([A, None, B], 2, MEAN, 1),
        round_of([A, (9, NAN, 1.0), None, B, (9, 1, NAN)], 2, MEAN, 3),
        round_of([(9, INF, 1.0), A, B], 1, MEAN, 1),
        round_of([A, None, (9, 1.0, -INF), None], 2, OLD, 3),
        round_of([A, B], 3, OLD, 0),
        round_of([A, None], 2, OLD, 1),
        round_of([None, None], 1, OLD, 2),
    ],
    draw=random_round,
    play=play_round,
    oracle=careful,
    mistakes="""
        every client counts equally: weight by num-examples
            c["metrics"]["num-examples"] -> 1
        an error reply has no content to read: ask reply.has_error() before you open it
            if not r.has_error() ->
        a model with NaN takes the average along: leave it out
            sound(c["arrays"]) -> True
            ["arrays"])] -> ["arrays"], how=np.any)]
        infinity is not finite, either: leave it out, too
            ["arrays"])] -> ["arrays"], test=lambda a: ~np.isnan(a))]
        look at all arrays of a reply, not at the first one only
            ["arrays"])] -> ["arrays"], first=1)]
        the quorum asks for good replies: here it counts all that came
            len(good) < quorum -> len(replies) < quorum or not good
        the quorum asks for good replies: here it counts those that are no errors
            len(good) < quorum -> len(some) < quorum or not good
        as many good replies as the quorum are enough
            < quorum -> <= quorum
        there are fewer good replies than the quorum: keep the old model
            len(good) < quorum -> not good
        if too few are good, return the old model
            return old, bad -> return None, bad
            return old, bad -> return ArrayRecord(), bad
        if too few are good, say all the same how many were not
            return old, bad -> return old, 0
            return old, bad -> return old, len(replies)
        these are the good replies: count those that are not good
            len(replies) - len(good) -> len(good)
        these are all replies: count those that are not good
            len(replies) - len(good) -> len(replies)
        an error is not good, either: count it, too
            len(replies) - len(good) -> len(some) - len(good)
        a reply with numbers that are not finite is not good, either: count it, too
            len(replies) - len(good) -> len(replies) - len(some)
        model and number are mixed up: the model comes first
            zip(old, means, strict=True))), bad -> zip(old, means, strict=True)))
            & return ArrayRecord( -> return bad, ArrayRecord(
            & return old, bad -> return bad, old
    """,
    otherwise={
        PARTS[
            0
        ]: "the model should be the weighted average of the good ones, or the old",
        PARTS[1]: "the number should say how many replies were not good",
    },
)

# ---------------------------------------------------------------------- 10.3 krum_order


def krum(models: list[torch.Tensor], f: int) -> list[int]:
    """Score all models at once: the oracle."""
    rows, n = torch.stack(models).double(), len(models)
    far = ((rows[:, None] - rows) ** 2).sum(dim=2)
    near = far.sort(dim=1).values[:, 1 : n - f - 1]
    return near.sum(dim=1).argsort().tolist()


def models_of(rows: list[list[float]], f: int, **gives: Any) -> Case:
    """Make the case of some models."""
    return Case([torch.tensor(row) for row in rows], f, **gives)


def random_models(rng: random.Random) -> Case:
    """Draw honest models, and one or two that are not."""
    n, f = rng.randint(7, 10), rng.randint(1, 3)
    spread = [1.0] * (n - f) + [4.0] * f
    rows = [[rng.gauss(0, s) for _ in range(3)] for s in spread]
    rng.shuffle(rows)
    return models_of(rows, f)


KRUM = Exercise(
    "10.3",
    "you know how Krum tells a model that has neighbours from one that has none.",
    cases=[
        # Scores 50, 58, 37, 105, 31, 32, 63. Each mistake makes another order of them.
        models_of(
            [[9.0, 6], [9.0, 4], [3.0, 7], [4.0, 0], [2.0, 6], [6.0, 6], [0.0, 3]],
            f=2,
            gives=[4, 5, 2, 0, 1, 6, 3],
        ),
        # In order 0, 1, 3, 7, 20, of two neighbours each: 10, 5, 13, 52, 458.
        models_of([[7.0], [0.0], [20.0], [1.0], [3.0]], 1, gives=[3, 1, 4, 0, 2]),
        models_of(
            [[0.0, 0.0], [0.0, 2.5], [3.0, 0.0], [4.0, 4.0], [1.0, 1.0], [9.0, -2.0]],
            f=1,
            gives=[4, 0, 1, 2, 3, 5],
        ),
    ],
    draw=random_models,
    oracle=krum,
    mistakes="""
        a model's distance to itself is 0 and takes a neighbour's place: leave it out
            1 : n - f - 1 -> 0 : n - f - 2
        count the n - f - 2 nearest neighbours: these are one more
            n - f - 1 -> n - f
        sum over the nearest neighbours, not over all others
            1 : n - f - 1 -> 1 :
        square the distances before you sum them up
            .sum(dim=2) -> .sum(dim=2).sqrt()
        this is the worst score first: the smallest score is the best
            .argsort() -> .argsort(descending=True)
        these are the farthest: count the nearest
            .sort(dim=1) -> .sort(dim=1, descending=True)
            & 1 : n - f - 1 -> 0 : n - f - 2
        these are the scores: return the clients' numbers, in their order
            .argsort().tolist() -> .tolist()
        this is the place of each client: return the clients, the best first
            .argsort() -> .argsort().argsort()
        this is the best client alone: return all of them, in order
            .tolist() -> .tolist()[0]
            .tolist() -> .tolist()[:1]
    """,
    otherwise="the result should be the clients' numbers, the best score first",
)
