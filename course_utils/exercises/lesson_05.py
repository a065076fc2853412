"""Lesson 05's exercises."""

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, groupby
from typing import Any

import numpy as np
import torch
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp

from course_utils.exercises.engine import (
    Attempt,
    Case,
    Exercise,
    Wrong,
    as_row,
    require_kind,
    require_parts,
)
from course_utils.exercises.messages import RUN_ID, as_client, instruction, numpy_of
from course_utils.exercises.values import close
from course_utils.grid import (
    PARTITION_ID_KEY,
    SUPERLINK_NODE_ID,
    ErrorCode,
    InProcessGrid,
)
from course_utils.isolation import copy_message, identity

Arrays = dict[str, np.ndarray]

# ---------------------------------------------------------------------- 5.1 draw_nodes

TEN = [301, 788, 154, 920, 467, 633, 215, 549, 872, 106]
"""Ids of ten nodes. Real ones have up to twenty digits."""


def play_draws(answer: Attempt, *args: Any, times: int = 1) -> Iterator:
    """Yield what is drawn, or what three hundred draws have in common."""
    nodes = args[0]
    got = [answer(*args) for _ in range(times)]
    if not isinstance(got[0], set | frozenset):
        require_kind(got[0], nodes)
    draws = [as_row(drawn) for drawn in got]
    strangers = {node for drawn in draws for node in drawn if node not in nodes}
    yield "not in node_ids", sorted(strangers, key=repr)
    yield "a node drawn twice", any(len(set(drawn)) < len(drawn) for drawn in draws)
    yield "number of nodes", max(map(len, draws))
    if times > 1:
        seen = {frozenset(map(nodes.index, {*drawn} - strangers)) for drawn in draws}
        yield "other draws, time after time", len(seen) > 1
        yield "positions ever drawn", sorted({i for drawn in seen for i in drawn})
        pairs = {p for drawn in seen for p in combinations(sorted(drawn), 2)}
        yield "positions drawn together", sorted(pairs)


def draw(node_ids: list[int], fraction: float, minimum: int) -> list[int]:
    """Draw positions: the oracle."""
    n = len(node_ids)
    part = fraction * n
    count = max(int(part), minimum)
    chosen = random.sample(range(n), count)
    return [node_ids[i] for i in chosen]


def random_draw(rng: random.Random) -> Case:
    """Draw nodes, how many to ask, and how many at least."""
    nodes = [rng.getrandbits(64) | 1 << 20 for _ in range(rng.randint(4, 30))]
    share = (rng.randrange(len(nodes)) + 0.7) / len(nodes)
    return Case(nodes, share, rng.randint(1, len(nodes)))


def drawn(not_in: Sequence[int] = (), number: int = 0) -> dict[str, Any]:
    """Return some of what is right for a case."""
    return {"not in node_ids": list(not_in), "number of nodes": number}


NODES = Exercise(
    "5.1",
    "you draw whom a round asks, as FedAvg does.",
    cases=[
        # Of forty nodes drawn with replacement, two are the same all but surely.
        Case(list(range(501, 541)), 1.0, 2, gives=drawn(number=40)),
        Case(TEN, 0.59, 2, gives=drawn(number=5)),
        Case(TEN, 0.1, 3, gives=drawn(number=3)),
        Case(TEN, 0.0, 2, gives=drawn(number=2)),
        # That some two are never drawn together in 300 draws has no chance to speak of.
        Case(TEN[1:], 0.5, 1, times=300, gives=drawn(number=4)),
    ],
    draw=random_draw,
    play=play_draws,
    oracle=draw,
    mistakes="""
        a part of a node is cut off, neither rounded nor rounded up
            int(part) -> math.ceil(part)
            int(part) -> round(part)
        these are fewer than minimum: it counts, too
            max(int(part), minimum) -> int(part)
            max(int(part), minimum) -> int(part) and max(int(part), minimum)
            max(int(part), minimum) -> max(int(part), 1)
        the larger of the two numbers counts, fraction of the nodes or minimum: here it
        is the smaller
            max( -> min(
            max(int(part), minimum) -> minimum
        draw the larger of the two numbers, not their sum
            max(int(part), minimum) -> min(int(part) + minimum, n)
        these are all nodes: draw some of them
            max(int(part), minimum) -> n
        a node was drawn more than once: random.sample draws without putting back,
        random.choices does not
            random.sample(range(n), count) -> random.choices(range(n), k=count)
        every call draws the same nodes: let chance decide, and do not seed it in the
        function
            random.sample -> random.Random(3).sample
        these are always the first of the list: let chance decide
            random.sample(range(n), count) -> range(count)
        these are always the last of the list: let chance decide
            random.sample(range(n), count) -> range(n - count, n)
        some nodes are never drawn together: draw each by chance, not neighbours in the
        list
            random.sample(range(n), count) -> random.randrange(n)
            & i in chosen -> i in [(chosen + k) % n for k in range(count)]
        some nodes are never drawn: all should have the same chance
            range(n), -> range(max(count, n - 1)),
        these are positions in the list: return the ids that stand there
            [node_ids[i] for i in chosen] -> chosen
        your function changed what it was given: work on a copy
            chosen = -> random.shuffle(node_ids); chosen =
        fraction * len(node_ids) is no whole number: int(...) makes one of it
            int(part) -> part
            int(part) -> part
            & random.sample(range(n), count) -> range(n)[:count]
            int(part) -> part
            & random.sample(range(n), count) -> range(count)
            int(part) -> part
            & sample(range(n), count) -> choices(node_ids, k=count)
            int(part) -> part
            & random.sample(range(n), -> np.random.choice(n,
        your function should return a list
            [node_ids[i] for i in chosen] -> count
    """,
    otherwise={
        "not in node_ids": "your function should return ids from node_ids, and nothing "
        "else",
        "a node drawn twice": "a node was drawn more than once",
        "number of nodes": "this is another number of nodes than was asked for",
        "positions ever drawn": "some nodes are never drawn: all should have the same "
        "chance",
        "positions drawn together": "some nodes are never drawn together: draw each by "
        "chance",
    },
)

# --------------------------------------------------------------------- 5.2 read_replies

Reported = tuple[int, float] | None
"""A client's num-examples and metric, or None for an error reply."""


def replies_of(clients: list[Reported], key: str, **gives: Any) -> Case:
    """Make the case of one round's replies."""
    said = [f"{c[0]} examples: {c[1]}" if c else "error reply" for c in clients]
    replies = [reply_of(client, key) for client in clients]
    return Case(replies, key, shown={"replies": said, "key": key}, **gives)


def reply_of(client: Reported, key: str) -> Message:
    """Make a client's reply, with other metrics beside the one asked for."""
    asked = instruction(RecordDict(), "evaluate")
    with as_client():
        if client is None:
            reason = "<class 'ValueError'>:<'no data'>"
            error = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason)
            return Message(error, reply_to=asked)
        others = {"train-loss": 7.0, "eval-loss": 8.0, "eval-accuracy": 9.0}
        metrics = others | {key: client[1], "num-examples": client[0]}
        content = RecordDict({"metrics": MetricRecord(metrics)})
        return Message(content, reply_to=asked)


def random_replies(rng: random.Random) -> Case:
    """Draw what some clients report, and how many fail."""
    clients: list[Reported] = [
        (rng.randint(1, 500), rng.randint(5, 95) / 100)
        for _ in range(rng.randint(2, 6))
    ]
    clients += [None] * rng.randint(1, 3)
    rng.shuffle(clients)
    return replies_of(clients, rng.choice(["eval-accuracy", "eval-loss"]))


def read(replies: list[Message], key: str) -> tuple[float | None, int]:
    """Average by NumPy: the oracle."""
    good = [r.content["metrics"] for r in replies if not r.has_error()]
    failed = len(replies) - len(good)
    n, v = [m["num-examples"] for m in good], [m[key] for m in good]
    mean = np.average(v, weights=n) if good else None
    return mean, failed


REPLIES = Exercise(
    "5.2",
    "your average says how many clients it leaves out.",
    cases=[
        replies_of([(30, 0.9), None, (10, 0.5)], "eval-accuracy", gives=(0.8, 1)),
        replies_of([(10, 0.5), (30, 0.9)], "eval-accuracy", gives=(0.8, 0)),
        replies_of(
            [None, (20, 2.0), (60, 1.0), None, (20, 0.5)], "train-loss", gives=(1.1, 2)
        ),
        replies_of([None] * 3, "eval-accuracy", gives=(None, 3)),
        replies_of([], "eval-accuracy", gives=(None, 0)),
        replies_of([(10, 0.0), None], "eval-accuracy", gives=(0.0, 1)),
    ],
    draw=random_replies,
    oracle=read,
    parts=["the mean", "how many replies are errors"],
    mistakes="""
        every client counts equally: weight by num-examples
            , weights=n ->
        an error reply has no content to read: ask reply.has_error() before you open it
            if not r.has_error() ->
        an error reply is no metric of 0: leave it out of the mean
            np.average(v, weights=n) -> sum(v) / len(replies)
            weights=n) -> weights=n) * len(v) / len(replies)
        divide by all num-examples: the weighted metrics are only summed
            np.average(v, weights=n) -> np.dot(n, v)
        divide by the sum of num-examples, not by the number of replies
            np.average(v, weights=n) -> np.dot(n, v) / len(replies)
        divide by the sum of num-examples, not by the number of clients
            np.average(v, weights=n) -> np.dot(n, v) / len(v)
        this is the mean of another metric: key says which
            m[key] -> m["eval-accuracy"]
            m[key] -> m["eval-loss"]
            m[key] -> m["train-loss"]
        this is the number of examples: average the metric
            np.average(v, weights=n) -> np.mean(n)
        if no reply carries a metric, there is no mean: return None for it
            if good else None ->
            np.average(v, weights=n) if good else None -> 0 / sum(n)
            if good else None -> if good else math.nan
        nobody has measured anything, so no number is right: return None
            if good else None -> if good else 0.0
        a mean of 0.0 is a mean: return None only if no reply carries a metric
            return mean, -> return mean or None,
        there are replies with a metric: return their mean, not None
            return mean, -> return None,
        these are the replies that carry a metric: count those that failed
            len(replies) - len(good) -> len(good)
        these are all replies: count those that failed
            len(replies) - len(good) -> len(replies)
        mean and number are mixed up: the mean comes first
            return mean, failed -> return failed, mean
    """,
    otherwise={
        "the mean": "the mean should be that of the metric, weighted by num-examples",
        "errors": "the second number should say how many replies are errors",
    },
)

# ---------------------------------------------------------------------- 5.3 train_until

TRAIN_SIZES = (40, 40, 20)
TEST_SIZES = (20, 20, 60)
SHIFTS = (1.0, -2.0, 4.0)
# Their mean, weighted by test sizes, is 0; the plain one is not.
OFFSETS = (0.06, 0.06, -0.04)
CLIENTS = range(3)


@dataclass(frozen=True)
class Script:
    """What the clients of a run do, whoever leads it.

    Attributes
    ----------
    accuracies : tuple[float, ...]
        The clients' average after each round, if no client fails.
    max_rounds, patience : int
        When to stop.
    untrained, untested : tuple[tuple[int, int], ...]
        Round and client of each message that is answered by an error.
    offsets : tuple[float, ...]
        How far each client's accuracy lies from the average.
    """

    accuracies: tuple[float, ...]
    max_rounds: int
    patience: int
    untrained: tuple[tuple[int, int], ...] = ()
    untested: tuple[tuple[int, int], ...] = ()
    offsets: tuple[float, ...] = OFFSETS

    def reply(self, kind: str, content: RecordDict, client: int) -> RecordDict:
        """Return what a client answers, or raise what it fails with."""
        model = numpy_of(content["arrays"])
        trained = round(float(model["age"][0]))  # each training adds 1 to it
        if kind == "train" and (trained + 1, client) not in self.untrained:
            weight = np.float32(0.5) * model["weight"] + np.float32(SHIFTS[client])
            arrays = record_of({"age": model["age"] + 1, "weight": weight})
            metrics = {"train-loss": 1.0, "num-examples": TRAIN_SIZES[client]}
            return RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)})
        trained = min(max(trained, 1), len(self.accuracies))
        if kind == "evaluate" and (trained, client) not in self.untested:
            accuracy = self.accuracies[trained - 1] + self.offsets[client]
            metrics = {"eval-loss": 1.0, "eval-accuracy": accuracy}
            metrics["num-examples"] = TEST_SIZES[client]
            return RecordDict({"metrics": MetricRecord(metrics)})
        raise ValueError("no data today")

    def __str__(self) -> str:
        """Describe the run to a learner."""
        shown = ", ".join(f"{accuracy:.2f}" for accuracy in self.accuracies)
        text = f"accuracy by round {shown}; max_rounds={self.max_rounds}, "
        text += f"patience={self.patience}"
        for failing, what in ((self.untrained, "train"), (self.untested, "evaluate")):
            for server_round, client in sorted(failing):
                text += f"; client {client} fails to {what} in round {server_round}"
        return text


def record_of(model: Arrays) -> ArrayRecord:
    """Return a model as a record."""
    return ArrayRecord({k: torch.as_tensor(a).float() for k, a in model.items()})


class ScriptedGrid(InProcessGrid):
    """A grid whose nodes follow a script, and which keeps what was sent to them."""

    def __init__(self) -> None:
        super().__init__(ClientApp(), len(CLIENTS))

    def __deepcopy__(self, memo: dict) -> "ScriptedGrid":
        """Stay the same, so that what the answer sends is seen."""
        return self

    def begin(self, script: Script) -> None:
        """Begin a new run."""
        self.script = script
        self.sent: list[Message] = []
        self.messages.clear()
        self._replies.clear()

    def client(self, message: Message) -> int:
        """Return which client a message is sent to."""
        context = self.node_contexts[message.metadata.dst_node_id]
        return context.node_config[PARTITION_ID_KEY]

    def _push(self, message: Message) -> str:
        if len(self.sent) >= 2 * len(CLIENTS) * (self.script.max_rounds + 1):
            raise RuntimeError("there is no end of messages")
        self.sent.append(copy_message(message))
        return super()._push(message)

    def _handle(self, instruction: Message) -> Message:
        """Answer as a ClientApp would that knows the script."""
        kind, client = instruction.metadata.message_type, self.client(instruction)
        with identity(self.run.run_id, instruction.metadata.dst_node_id):
            try:
                content = self.script.reply(kind, instruction.content, client)
            except Exception as error:
                reason = f"{type(error)}:<'{error}'>"
                failed = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason)
                return Message(failed, reply_to=instruction)
            return Message(content, reply_to=instruction)


scripted_grid = cache(ScriptedGrid)  # one for all: making one takes its time


def play_run(answer: Attempt, script: Script) -> Iterator[tuple[str, Any]]:
    """Yield what is sent, message type by message type, and what comes back."""
    start = {"age": np.zeros(1), "weight": np.array([[8.0, -4.0], [2.0, 0.5]])}
    raised = None
    # A grid lets this process make messages, which is undone at the end.
    with identity(RUN_ID, SUPERLINK_NODE_ID):
        grid = scripted_grid()
        grid.begin(script)
        try:
            got = answer(grid, record_of(start), script.max_rounds, script.patience)
        except Wrong as wrong:  # what was sent says more than what came of it
            raised = wrong
    waves = groupby(grid.sent, lambda message: message.metadata.message_type)
    for i, (kind, sent) in enumerate([(kind, [*sent]) for kind, sent in waves]):
        number = f"round {i // 2 + 1}: "
        yield number + "message type", kind
        asked = Counter(map(grid.client, sent))
        if not raised or len(sent) >= len(CLIENTS):
            some = f"{len(asked)} of {len(CLIENTS)}"
            said = "a node twice in a row" if len(sent) > len(asked) else some
            yield number + f"nodes asked to {kind}", said
        records = [message.content.get("arrays") for message in sent]
        is_there = all(isinstance(record, ArrayRecord) for record in records)
        yield number + 'an ArrayRecord "arrays"', is_there
        models = [numpy_of(record) for record in records if is_there]
        alike = all(close(model, models[0]) for model in models)
        yield number + f"model to {kind}", models[0] if alike and models else models
        if kind == "train":
            configs = [message.content.get("config", {}) for message in sent]
            rounds = {config.get("server-round") for config in configs}
            yield number + "server-round", rounds.pop() if len(rounds) == 1 else None
    if raised:
        raise raised
    arrays, accuracy, count = require_parts(got, RUN_PARTS)
    yield "the first of the three", type(arrays).__name__
    if isinstance(arrays, ArrayRecord):
        yield from zip(RUN_PARTS, (numpy_of(arrays), accuracy, count), strict=True)


RUN_PARTS = ("the best arrays", "their accuracy", "how many rounds were run")


def ask(
    grid: Any,
    kind: str,
    arrays: ArrayRecord,
    number: int,
    *,
    name: str = "arrays",
    key: str = "server-round",
    clients: slice = slice(3),
) -> list[RecordDict]:
    """Ask the nodes, and return what those answer that do not fail."""
    content = RecordDict({name: arrays, "config": ConfigRecord({key: number})})
    nodes = list(grid.get_node_ids())[clients]
    replies = grid.send_and_receive([Message(content, node, kind) for node in nodes])
    return [reply.content for reply in replies if not reply.has_error()]


def sizes_of(contents: list[RecordDict]) -> list[int]:
    """Return the clients' numbers of examples."""
    return [content["metrics"]["num-examples"] for content in contents]


def merge(contents: list[RecordDict], sizes: list[int], total: float) -> ArrayRecord:
    """Add up the clients' models, each times its size, and divide by a total."""
    models = [numpy_of(content["arrays"]) for content in contents]
    stacked = {name: np.stack([m[name] for m in models]) for name in models[0]}
    return record_of({k: np.tensordot(sizes, v, 1) / total for k, v in stacked.items()})


def lead(grid: Any, initial: ArrayRecord, max_rounds: int, patience: int) -> tuple:
    """Lead a run by hand: the oracle."""
    arrays, accuracy = best, best_accuracy = initial, -math.inf
    stale = 0
    for number in range(1, max_rounds + 1):
        trained = ask(grid, "train", arrays, number)
        sizes = sizes_of(trained)
        arrays = merge(trained, sizes, sum(sizes))
        tested = ask(grid, "evaluate", arrays, number)
        found = [content["metrics"]["eval-accuracy"] for content in tested]
        accuracy = np.average(found, weights=sizes_of(tested))
        stale += 1
        if accuracy > best_accuracy:
            best, best_accuracy, stale = arrays, accuracy, 0
        if stale >= patience:
            break
    return best, best_accuracy, number


def run_of(*args: Any, gives: Any = None, **more: Any) -> Case:
    """Make the case of a run, with what it gives by part, if it is known."""
    script = Script(*args, **more)
    known = {} if gives is None else {"gives": gives}
    return Case(script, shown=f"{script}", **known)


def ends_with(accuracy: float, rounds: int, weight: Any = None) -> dict[str, Any]:
    """Return what a right answer returns."""
    known = {"their accuracy": accuracy, "how many rounds were run": rounds}
    return known | ({"the best arrays": weight} if weight else {})


def random_run(rng: random.Random) -> Case:
    """Draw a run with clients that fail."""
    rounds = rng.randint(1, 7)
    # Apart by more than a client that fails can move them.
    accuracies = tuple(x / 10 for x in rng.sample(range(1, 10), rounds))
    failing = [(r, rng.choice(CLIENTS)) for r in range(1, rounds + 1)]
    return run_of(
        accuracies,
        rounds,
        rng.randint(1, 3),
        tuple(rng.sample(failing, rounds // 2)),
        tuple(rng.sample(failing, rounds // 3)),
    )


TRAIN_UNTIL = Exercise(
    "5.3",
    "your ServerApp knows when to stop, and which model to keep.",
    cases=[
        run_of(
            (0.4, 0.6, 0.5, 0.3, 0.45, 0.35),
            max_rounds=6,
            patience=2,
            # The shifts' weighted mean is 0.4, so round 1 makes [[4.4, -1.6], ...].
            gives=ends_with(
                0.6, 4, {"age": [2], "weight": [[2.6, -0.4], [1.1, 0.725]]}
            ),
        ),
        # A rise below the best, a new best in between, one that is met but not beaten.
        run_of(
            (0.3, 0.2, 0.5, 0.4, 0.5, 0.45, 0.48, 0.4, 0.3, 0.9),
            max_rounds=10,
            patience=2,
            gives=ends_with(0.5, 5),
        ),
        run_of((0.2, 0.3, 0.4, 0.5, 0.6), 3, 2, gives=ends_with(0.4, 3)),
        run_of(
            (0.3, 0.5, 0.4, 0.7, 0.6),
            max_rounds=4,
            patience=3,
            untrained=((1, 2), (3, 0)),
            gives=ends_with(0.7, 4),
        ),
        run_of(
            (0.3, 0.5, 0.4, 0.45, 0.3, 0.6),
            max_rounds=6,
            patience=3,
            untested=((2, 0), (3, 2)),  # 0.5 + (20 * 0.06 - 60 * 0.04) / 80
            gives=ends_with(0.485, 5),
        ),
        # A first round that nobody gets anything from is the best so far all the same.
        run_of((0.0, 0.0, 0.3), 3, 2, offsets=(0, 0, 0), gives=ends_with(0.3, 3)),
    ],
    draw=random_run,
    play=play_run,
    oracle=lead,
    mistakes="""
        no message has crossed the grid: send the nodes train messages
            lambda grid, arrays, max_rounds, patience: (arrays, 0.0, 0)
        the run begins with an evaluation: begin each round with training
            trained = -> ask(grid, "evaluate", arrays, number); trained =
        a node is asked to train twice in a row: after each training, ask all nodes to
        evaluate the new model
            "evaluate", -> "train",
        a node is asked to evaluate twice in a row: one evaluation of the new model ends
        the round
            tested = -> ask(grid, "evaluate", arrays, number); tested =
        2 of 3 nodes are asked to train: ask all of them
            "train", arrays, number -> "train", arrays, number, clients=slice(2)
        1 of 3 nodes is asked to train: ask all of them
            "train", arrays, number -> "train", arrays, number, clients=slice(1)
        2 of 3 nodes are asked to evaluate: ask all of them
            "evaluate", arrays, number -> "evaluate", arrays, number, clients=slice(2)
        a message carries the model, as an ArrayRecord named "arrays"
            "train", arrays, number -> "train", arrays, number, name="model"
        a train message needs "server-round" in a ConfigRecord named "config"
            "train", arrays, number -> "train", arrays, number, key="round"
        server-round counts from 1
            "train", arrays, number -> "train", arrays, number - 1
        server-round says the round before: it rises by 1 in each round
            "train", arrays, number -> "train", arrays, 1
        this round begins with the initial model again: begin with the one that the
        round before has made
            "train", arrays -> "train", initial
        this round begins with the best model: begin with the one that the round before
        has made, better or not
            "train", arrays -> "train", best
        this is the model from before the round: evaluate the new one
            arrays = merge( -> before = arrays; arrays = merge(
            & "evaluate", arrays -> "evaluate", before
        every client counts equally in the model: weight by num-examples
            (trained, sizes, sum(sizes)) -> (trained, [1] * len(sizes), len(sizes))
        this is one client's model: average those of all
            (trained, sizes, sum(sizes)) -> (trained[-1:], [1], 1)
            (trained, sizes, sum(sizes)) -> (trained[:1], [1], 1)
        the models are only summed: divide by the sum of num-examples
            sum(sizes)) -> 1)
        divide by the num-examples of the clients that did not fail
            sum(sizes)) -> sum(TRAIN_SIZES))
        a round more than max_rounds was begun: it ends the run, whatever the accuracy
            max_rounds + 1 -> max_rounds + 2
            max_rounds + 1 -> 99
            & >= patience -> >= 99
        the run ends a round before max_rounds, though patience is left
            max_rounds + 1 -> max_rounds
        the first round is always a new best, even with an accuracy of 0: begin below
        any accuracy
            = initial, -math.inf -> = initial, 0.0
        the run ends a round too late: stop with the last of patience rounds without a
        new best
            >= patience -> > patience
        the run ends too early: patience rounds in a row may bring no new best
            >= patience -> >= patience - 1
        the rounds without a new best are not in a row: a new best sets their count back
        to 0
            arrays, accuracy, 0 -> arrays, accuracy, stale - 1
        an accuracy that only equals the best is no new best
            accuracy > best_accuracy -> accuracy >= best_accuracy
            stale += 1 -> stale = 0 if accuracy == best_accuracy else stale + 1
        compare with the best accuracy so far, not with that of the round before
            accuracy = np.average -> last = accuracy; accuracy = np.average
            & stale += 1 -> stale = 0 if accuracy > last else stale + 1
        the run goes on to max_rounds: stop after patience rounds with no new best
            >= patience -> >= 99
        the first of the three should be an ArrayRecord: the best arrays
            return best, best_accuracy -> return best_accuracy, best
            return best, -> return numpy_of(best),
        these are the arrays of the last round: keep those of the best
            return best, -> return arrays,
        this is the accuracy of the last round: return that of the best
            return best, best_accuracy -> return best, accuracy
        arrays and accuracy are those of the last round: return those of the best
            return best, best_accuracy -> return arrays, accuracy
        these are the initial arrays: keep those of the best round
            return best, -> return initial,
        every client counts equally in the accuracy: weight by num-examples
            , weights=sizes_of(tested) ->
        weight an accuracy by the num-examples of the evaluate replies: these are those
        of the train replies
            sizes_of(tested) -> sizes
        this is the number of the best round: say how many were run
            best_accuracy, number -> best_accuracy, number - stale
        this is max_rounds: say how many rounds were run
            best_accuracy, number -> best_accuracy, max_rounds
    """,
    otherwise={
        "message type": 'a round is "train" and then "evaluate": no other messages are '
        "needed",
        "no message type": "the run should end after another round",
        "no the first of the three": "the run should have ended before",
        "asked to train": "ask all nodes to train, each of them once in a round",
        "asked to evaluate": "ask all nodes to evaluate, each of them once in a round",
        '"arrays"': 'a message carries the model, as an ArrayRecord named "arrays"',
        "model to train": "a round begins with the model that the round before has "
        "made, and the first one with the arrays that your function was given",
        "model to evaluate": "evaluate the average of the replies' models, weighted by "
        "num-examples",
        "server-round": "server-round should be the number of the round",
        "the first of the three": "the first of the three should be an ArrayRecord: "
        "the best arrays",
        "the best arrays": "the arrays should be those of the best round",
        "their accuracy": "the accuracy should be the clients' average in the best "
        "round, weighted by num-examples",
        "how many rounds were run": "the third of the three should say how many rounds "
        "were run",
    },
)
