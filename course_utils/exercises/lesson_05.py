"""Judges of lesson 05's exercises."""

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from flwr.common.constant import PARTITION_ID_KEY, SUPERLINK_NODE_ID, ErrorCode

from course_utils.exercises import (
    Attempt,
    Wrong,
    close,
    exercise,
    require_kind,
    show,
)
from course_utils.exercises.messages import RUN_ID, as_client, instruction
from course_utils.exercises.words import explain
from course_utils.runtime import InProcessGrid, _copy_message, _identity

Arrays = dict[str, np.ndarray]

NO_CONTENT = (
    "an error reply has no content to read: ask reply.has_error() before you open it"
)


def name_mistake(got: Any, named: dict[str, Any], otherwise: str) -> str:
    """Return the sentence on the first of the mistakes that makes what came back."""
    made = (sentence for sentence, value in named.items() if close(got, value))
    return next(made, otherwise)


# ---------------------------------------------------------------------- 5.1 draw_nodes

TEN = [301, 788, 154, 920, 467, 633, 215, 549, 872, 106]
"""Ids of ten nodes. Real ones have up to twenty digits."""

NO_WHOLE_NUMBER = (
    "can't multiply sequence by non-int of type 'float'",
    "'float' object cannot be interpreted as an integer",
    "slice indices must be integers",
)
"""What Python says to a count of nodes that is a float."""


@exercise("5.1", "you draw whom a round asks, as FedAvg does.")
def judge_draw_nodes(answer: Attempt, rng: random.Random) -> None:
    """Let it draw: how many, which, and with equal chances."""
    # Of forty nodes drawn with replacement, two are the same all but surely.
    cases = [(TEN, 0.59, 2), (TEN, 0.1, 3), (list(range(501, 541)), 1.0, 2)]
    for _ in range(5):
        nodes = [rng.getrandbits(64) | 1 << 20 for _ in range(rng.randint(4, 30))]
        share = (rng.randrange(len(nodes)) + 0.7) / len(nodes)
        cases.append((nodes, share, rng.randint(1, len(nodes))))
    for case in cases:
        require_count(draw(answer, case), case)
    require_chance(answer)


def draw(answer: Attempt, case: tuple[list[int], float, int]) -> list[int]:
    """Let an answer draw, and return the nodes that it has drawn."""
    try:
        got = answer(*case)
    except Wrong as wrong:
        if any(part in str(wrong) for part in NO_WHOLE_NUMBER):
            raise Wrong(
                "fraction * len(node_ids) is no whole number: int(...) makes one of it",
                given=case,
            ) from None
        raise
    return require_nodes(got, case)


def require_nodes(got: Any, case: tuple[list[int], float, int]) -> list[int]:
    """Return the ids that were drawn, or raise Wrong unless they are nodes' ids."""
    nodes = case[0]
    if isinstance(got, np.ndarray | torch.Tensor):
        got = got.tolist()
    if isinstance(got, set | frozenset):
        got = list(got)
    require_kind(got, nodes)
    if not isinstance(got, list | tuple):
        raise Wrong("your function should return a list of node ids", got=got)
    whole = all(isinstance(node, int | np.integer) for node in got)
    drawn = [int(node) for node in got] if whole else list(got)
    if whole and set(drawn) <= set(nodes):
        if len(set(drawn)) < len(drawn):
            raise Wrong(
                "a node was drawn more than once: random.sample draws without "
                "putting back, random.choices does not",
                given=case,
                got=drawn,
            )
        return drawn
    if whole and set(drawn) <= set(range(len(nodes) + 1)):
        sentence = "these are positions in the list: return the ids that stand there"
    else:
        sentence = "your function should return ids from node_ids, and nothing else"
    raise Wrong(sentence, given=case, got=drawn)


def require_count(drawn: list[int], case: tuple[list[int], float, int]) -> None:
    """Raise Wrong, by name, unless as many nodes were drawn as should be."""
    nodes, fraction, minimum = case
    part = fraction * len(nodes)
    expected = max(math.floor(part), minimum)
    counts = {
        "a part of a node is cut off, neither rounded nor rounded up": (
            max(math.ceil(part), minimum)
        ),
        "these are fewer than minimum: it counts, too": math.floor(part),
        "the larger of the two numbers counts, fraction of the nodes or minimum: here "
        "it is the smaller": min(math.floor(part), minimum),
        "draw the larger of the two numbers, not their sum": (
            math.floor(part) + minimum
        ),
        "these are all nodes: draw some of them": len(nodes),
    }
    if len(drawn) == expected:
        return
    otherwise = "this is another number of nodes than was asked for"
    sentence = name_mistake(len(drawn), counts, otherwise)
    raise Wrong(
        sentence,
        given=case,
        expected=f"{expected} node(s)",
        got=f"{len(drawn)} node(s)",
    )


def require_chance(answer: Attempt) -> None:
    """Raise Wrong unless any two of five nodes are drawn together sometimes.

    That some two are not, in three hundred draws of two, has a chance of 2 in 10 to
    the 13th.
    """
    case = (TEN[:5], 0.5, 1)
    draws = [frozenset(draw(answer, case)) for _ in range(300)]
    seen = {node for draw in draws for node in draw}
    pairs = {frozenset(pair) for pair in combinations(case[0], 2)}
    first = draw(answer, (TEN, 0.5, 1)) == TEN[:5]
    if first and set(draws) == {frozenset(case[0][:2])}:
        sentence = "these are always the first of the list: let chance decide"
    elif len(set(draws)) == 1:
        sentence = (
            "every call draws the same nodes: let chance decide, and do not seed it "
            "in the function"
        )
    elif seen < set(case[0]):
        sentence = "some nodes are never drawn: all should have the same chance"
    elif set(draws) != pairs:
        sentence = (
            "some nodes are never drawn together: draw each by chance, not neighbours "
            "in the list"
        )
    else:
        return
    raise Wrong(sentence, given=case, got=[sorted(draw) for draw in draws[:5]])


# --------------------------------------------------------------------- 5.2 read_replies

Reported = tuple[int, float] | None
"""A client's num-examples and metric, or None for an error reply."""


@exercise("5.2", "your average says how many clients it leaves out.")
def judge_read_replies(answer: Attempt, rng: random.Random) -> None:
    """Hand over replies by known clients, and compare with NumPy's average."""
    cases: list[tuple[list[Reported], str]] = [
        ([(30, 0.9), None, (10, 0.5)], "eval-accuracy"),
        ([(10, 0.5), (30, 0.9)], "eval-accuracy"),
        ([None, (20, 2.0), (60, 1.0), None, (20, 0.5)], "train-loss"),
        ([None, None, None], "eval-accuracy"),
        ([], "eval-accuracy"),
    ]
    for _ in range(3):
        clients: list[Reported] = [
            (rng.randint(1, 500), rng.randint(5, 95) / 100)
            for _ in range(rng.randint(2, 6))
        ]
        clients += [None] * rng.randint(1, 3)
        rng.shuffle(clients)
        cases.append((clients, rng.choice(["eval-accuracy", "eval-loss"])))
    for clients, key in cases:
        judge_reading(answer, clients, key)


def judge_reading(answer: Attempt, clients: list[Reported], key: str) -> None:
    """Judge what an answer makes of one round's replies."""
    said = [f"{c[0]} examples: {c[1]}" if c else "error reply" for c in clients]
    given = {"replies": said, "key": key}
    good = [client for client in clients if client]
    failed = len(clients) - len(good)
    sizes, values = (np.array(x) for x in zip(*good, strict=True)) if good else ([], [])
    mean = float(np.average(values, weights=sizes)) if good else None
    expected = (mean, failed)
    try:
        got = answer([reply_of(client, key) for client in clients], key)
    except Wrong as wrong:
        raise Wrong(explain_reading(str(wrong)), given=given) from None
    if close(got, expected):
        return
    require_two(got, expected, given)
    if not close(got[0], mean):
        sentence = wrong_mean(got[0], sizes, values, len(clients))
    elif close(got[1], len(good)):
        sentence = "these are the replies that carry a metric: count those that failed"
    elif close(got[1], len(clients)):
        sentence = "these are all replies: count those that failed"
    else:
        sentence = "the second number should say how many replies are errors"
    raise Wrong(sentence, given=given, expected=expected, got=got)


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


def explain_reading(sentence: str) -> str:
    """Say in plain words what an answer has stumbled over."""
    if "Message content is None" in sentence:
        return NO_CONTENT
    if "ZeroDivisionError" in sentence:
        return "if no reply carries a metric, there is no mean: return None for it"
    return explain(sentence)


def require_two(got: Any, expected: tuple, given: Any) -> None:
    """Raise Wrong unless an answer returned two things, in the right order."""
    if isinstance(got, list | tuple) and len(got) == 2:
        if close(list(got), list(reversed(expected))):
            raise Wrong(
                "mean and number are mixed up: the mean comes first",
                given=given,
                expected=expected,
                got=got,
            )
        return
    if got is None and expected[0] is not None:
        require_kind(got, expected)
    raise Wrong(
        "return two things, always: the mean, and how many replies are errors",
        given=given,
        expected=expected,
        got=got,
    )


def wrong_mean(
    got: Any, sizes: Sequence[int], values: Sequence[float], replies: int
) -> str:
    """Name what is wrong with a mean."""
    if not len(values):
        return "nobody has measured anything, so no number is right: return None"
    if got is None:
        return "there are replies with a metric: return their mean, not None"
    total = float(np.dot(sizes, values))
    named = {
        "every client counts equally: weight by num-examples": np.mean(values),
        "an error reply is no metric of 0: leave it out of the mean": (
            sum(values) / replies
        ),
        "divide by all num-examples: the weighted metrics are only summed": total,
        "divide by the sum of num-examples, not by the number of replies": (
            total / replies
        ),
        "divide by the sum of num-examples, not by the number of clients": (
            total / len(values)
        ),
        "this is the mean of another metric: key says which": 9.0,
        "this is the mean of another metric than key says": 8.0,
        "this is the number of examples: average the metric": np.mean(sizes),
    }
    otherwise = "the mean should be that of the metric, weighted by num-examples"
    return name_mistake(got, named, otherwise)


# ---------------------------------------------------------------------- 5.3 train_until

TRAIN_SIZES = (40, 40, 20)
TEST_SIZES = (20, 20, 60)
SHIFTS = (1.0, -2.0, 4.0)
# Their mean, weighted by test sizes, is 0; the plain one is not.
OFFSETS = (0.06, 0.06, -0.04)
CLIENTS = range(3)


@dataclass(frozen=True)
class Script:
    """What becomes of a run, whoever leads it: models and accuracies by round.

    Attributes
    ----------
    accuracies : tuple[float, ...]
        The clients' average after each round, if no client fails.
    max_rounds, patience : int
        When to stop.
    untrained, untested : frozenset[tuple[int, int]]
        Round and client of each message that is answered by an error.
    offsets : tuple[float, ...]
        How far each client's accuracy lies from the average.
    """

    accuracies: tuple[float, ...]
    max_rounds: int
    patience: int
    untrained: frozenset[tuple[int, int]] = frozenset()
    untested: frozenset[tuple[int, int]] = frozenset()
    offsets: tuple[float, ...] = OFFSETS

    def start(self) -> Arrays:
        """Return the initial model. Each training adds 1 to its age."""
        weight = np.array([[8.0, -4.0], [2.0, 0.5]], dtype=np.float32)
        return {"age": np.zeros(1, dtype=np.float32), "weight": weight}

    def train(self, model: Arrays, client: int) -> Arrays:
        """Return what a client makes of a model."""
        weight = np.float32(0.5) * model["weight"] + np.float32(SHIFTS[client])
        return {"age": model["age"] + np.float32(1), "weight": weight}

    def test(self, server_round: int, client: int) -> float:
        """Return what accuracy a client finds after a round."""
        return self.accuracies[server_round - 1] + self.offsets[client]

    def reply(self, kind: str, content: RecordDict, client: int) -> RecordDict:
        """Return what a client answers, or raise what it fails with."""
        model = numpy_of(content["arrays"])
        server_round = round_after(model)
        if kind == "train":
            if (server_round + 1, client) in self.untrained:
                raise ValueError("no data today")
            metrics = {"train-loss": 1.0, "num-examples": TRAIN_SIZES[client]}
            arrays = record_of(self.train(model, client))
            return RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)})
        server_round = max(server_round, 1)
        if kind != "evaluate" or (server_round, client) in self.untested:
            raise ValueError("no data today")
        metrics = {
            "eval-loss": 1.0,
            "eval-accuracy": self.test(server_round, client),
            "num-examples": TEST_SIZES[client],
        }
        return RecordDict({"metrics": MetricRecord(metrics)})

    def trained(self, model: Arrays, server_round: int) -> list[Arrays | None]:
        """Return what each client makes of a model in a round, None if it fails."""
        return [
            None if (server_round, i) in self.untrained else self.train(model, i)
            for i in CLIENTS
        ]

    def models(self) -> list[Arrays]:
        """Return the model before the first round, and after each round."""
        found = [self.start()]
        for server_round in range(1, self.max_rounds + 1):
            trained = self.trained(found[-1], server_round)
            found.append(average(trained, TRAIN_SIZES))
        return found

    def measured(self, sizes: Sequence[int] = TEST_SIZES) -> list[float]:
        """Return the clients' average accuracy after each round."""
        found = []
        for server_round in range(1, self.max_rounds + 1):
            good = [i for i in CLIENTS if (server_round, i) not in self.untested]
            accuracies = [self.test(server_round, i) for i in good]
            weights = [sizes[i] for i in good]
            found.append(float(np.average(accuracies, weights=weights)))
        return found

    def outcome(self) -> tuple[int, int]:
        """Return which round is the best, and how many are run: the oracle.

        The run ends with the first round that lies ``patience`` behind the best so far.
        """
        measured = self.measured()
        best_by = [int(np.argmax(measured[:r])) + 1 for r in range(1, len(measured))]
        ends = [r for r, best in enumerate(best_by, 1) if r - best >= self.patience]
        rounds = min([*ends, self.max_rounds])
        return int(np.argmax(measured[:rounds])) + 1, rounds

    def __str__(self) -> str:
        """Describe the run to a learner."""
        shown = ", ".join(f"{accuracy:.2f}" for accuracy in self.measured())
        text = f"accuracy by round {shown}; max_rounds={self.max_rounds}, "
        text += f"patience={self.patience}"
        for failing, what in ((self.untrained, "train"), (self.untested, "evaluate")):
            for server_round, client in sorted(failing):
                text += f"; client {client} fails to {what} in round {server_round}"
        return text


def average(arrays: list[Arrays | None], sizes: Sequence[int]) -> Arrays:
    """Average what clients have made, each array as one product with the weights."""
    good = [(a, n) for a, n in zip(arrays, sizes, strict=True) if a is not None]
    weights = np.array([n for _, n in good]) / sum(n for _, n in good)
    return {
        name: np.tensordot(weights, np.stack([a[name] for a, _ in good]), axes=1)
        for name in good[0][0]
    }


def round_after(model: Arrays) -> int:
    """Return how many rounds a model has seen."""
    return round(float(model["age"][0]))


def numpy_of(record: ArrayRecord) -> Arrays:
    """Return a record's arrays by name."""
    return {name: array.numpy() for name, array in record.items()}


def record_of(model: Arrays) -> ArrayRecord:
    """Return a model as a record."""
    return ArrayRecord({name: torch.from_numpy(a) for name, a in model.items()})


class WatchedGrid(InProcessGrid):
    """A grid whose nodes follow a script, and which keeps what was sent to them.

    It ends a loop that has no end.
    """

    def __init__(self) -> None:
        super().__init__(ClientApp(), len(CLIENTS))

    def __deepcopy__(self, memo: dict) -> "WatchedGrid":
        """Stay the same, so that the judge sees what the answer sends."""
        return self

    def play(self, script: Script) -> None:
        """Begin a new run."""
        self.script = script
        self.sent: list[Message] = []
        self.messages.clear()
        self._replies.clear()

    def _push(self, message: Message) -> str:
        if len(self.sent) >= 2 * len(CLIENTS) * (self.script.max_rounds + 1):
            raise RuntimeError("there is no end of messages")
        self.sent.append(_copy_message(message))
        return super()._push(message)

    def _handle(self, instruction: Message) -> Message:
        """Answer as a ClientApp would that knows the script."""
        node_id = instruction.metadata.dst_node_id
        client = self.node_contexts[node_id].node_config[PARTITION_ID_KEY]
        with _identity(self.run.run_id, node_id):
            try:
                kind = instruction.metadata.message_type
                content = self.script.reply(kind, instruction.content, client)
            except Exception as error:
                reason = f"{type(error)}:<'{error}'>"
                failed = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason)
                return Message(failed, reply_to=instruction)
            return Message(content, reply_to=instruction)


def scripts(rng: random.Random) -> Iterator[Script]:
    """Make runs that tell mistakes apart, and then some at random."""
    yield Script((0.4, 0.6, 0.5, 0.3, 0.45, 0.35), max_rounds=6, patience=2)
    # A rise below the best, a new best in between, and one that is met but not beaten.
    ups_and_downs = (0.3, 0.2, 0.5, 0.4, 0.5, 0.45, 0.48, 0.4, 0.3, 0.9)
    yield Script(ups_and_downs, max_rounds=10, patience=2)
    yield Script((0.2, 0.3, 0.4, 0.5, 0.6), max_rounds=3, patience=2)
    yield Script(
        (0.3, 0.5, 0.4, 0.7, 0.6),
        max_rounds=4,
        patience=3,
        untrained=frozenset({(1, 2), (3, 0)}),
    )
    yield Script(
        (0.3, 0.5, 0.4, 0.45, 0.3, 0.6),
        max_rounds=6,
        patience=3,
        untested=frozenset({(2, 0), (3, 2)}),
    )
    # A first round that nobody gets anything from is the best so far all the same.
    yield Script((0.0, 0.0, 0.3), max_rounds=3, patience=2, offsets=(0.0, 0.0, 0.0))
    for _ in range(2):
        rounds = rng.randint(1, 7)
        # Apart by more than a client that fails can move them.
        accuracies = tuple(x / 10 for x in rng.sample(range(1, 10), rounds))
        failing = [(r, rng.choice(CLIENTS)) for r in range(1, rounds + 1)]
        yield Script(
            accuracies,
            max_rounds=rounds,
            patience=rng.randint(1, 3),
            untrained=frozenset(rng.sample(failing, rounds // 2)),
            untested=frozenset(rng.sample(failing, rounds // 3)),
        )


@exercise("5.3", "your ServerApp knows when to stop, and which model to keep.")
def judge_train_until(answer: Attempt, rng: random.Random) -> None:
    """Let it lead runs whose models and accuracies are known."""
    # A grid lets this process make messages, which is undone at the end.
    with _identity(RUN_ID, SUPERLINK_NODE_ID):
        grid = WatchedGrid()
        for script in scripts(rng):
            judge_run(answer, grid, script)


def judge_run(answer: Attempt, grid: WatchedGrid, script: Script) -> None:
    """Judge one run: what was sent, when it ended, and what was returned."""
    grid.play(script)
    start = record_of(script.start())
    try:
        got = answer(grid, start, script.max_rounds, script.patience)
    except Wrong as wrong:
        # What was sent says more than what came of it.
        require_traffic(grid, script, ended=False)
        sentence = str(wrong)
        if "Message content is None" in sentence:
            sentence = NO_CONTENT
        raise Wrong(explain(sentence), given=str(script)) from None
    rounds = require_traffic(grid, script, ended=True)
    require_rounds(rounds, script)
    require_result(got, script)


def require_traffic(grid: WatchedGrid, script: Script, *, ended: bool) -> int:
    """Return how many rounds were run, or raise Wrong by what was sent in one."""
    given = str(script)
    models = script.models()
    waves = [
        (kind, [*sent])
        for kind, sent in groupby(grid.sent, lambda m: m.metadata.message_type)
    ]
    for position, (kind, sent) in enumerate(waves):
        if kind not in ("train", "evaluate"):
            raise Wrong(
                f'no message of type {kind!r} is needed: send "train" and "evaluate"',
                given=given,
            )
        if position == 0 and kind == "evaluate":
            raise Wrong(
                "the run begins with an evaluation: begin each round with training",
                given=given,
            )
        server_round = position // 2 + 1
        is_last = position == len(waves) - 1
        where = f"round {server_round} of a run with {given}"
        require_addresses(
            sent, kind, set(grid.node_contexts), where, whole=ended or not is_last
        )
        if server_round > script.max_rounds:
            raise Wrong(
                "a round more than max_rounds was begun: it ends the run, whatever "
                "the accuracy",
                given=given,
            )
        for message in sent:
            require_content(message, kind, server_round, script, models, where)
    if ended and not waves:
        raise Wrong(
            "no message has crossed the grid: send the nodes train messages",
            given=given,
        )
    if ended and len(waves) % 2:
        raise Wrong(
            "the last round is trained and not evaluated: how good is its model?",
            given=given,
        )
    return len(waves) // 2


def require_addresses(
    sent: list[Message], kind: str, nodes: set[int], where: str, *, whole: bool
) -> None:
    """Raise Wrong unless each node is written to once."""
    counts = Counter(message.metadata.dst_node_id for message in sent)
    if counts and max(counts.values()) > 1:
        after = (
            "after each training, ask all nodes to evaluate the new model"
            if kind == "train"
            else "one evaluation of the new model ends the round"
        )
        raise Wrong(
            f"a node is asked to {kind} twice in a row: {after}",
            given=where,
        )
    if whole and set(counts) != nodes:
        raise Wrong(
            f"{len(counts)} of {len(nodes)} nodes are asked to {kind}: ask all of them",
            given=where,
        )


def require_content(
    message: Message,
    kind: str,
    server_round: int,
    script: Script,
    models: list[Arrays],
    where: str,
) -> None:
    """Raise Wrong, by name, unless a message carries the right model and round."""
    record = message.content.get("arrays")
    if not isinstance(record, ArrayRecord):
        raise wrong_message(
            f'a message to {kind} carries the model, as an ArrayRecord named "arrays"',
            where,
            "arrays",
            [*message.content],
        )
    got = numpy_of(record)
    before, after = models[server_round - 1 : server_round + 1]
    expected = before if kind == "train" else after
    if not close(got, expected):
        if kind == "train":
            sentence = wrong_start(got, server_round, script, models)
        else:
            sentence = wrong_average(got, server_round, script, before)
        raise wrong_message(sentence, where, expected["weight"], got.get("weight"))
    if kind == "train":
        require_server_round(message.content.get("config"), server_round, where)


def require_server_round(config: Any, server_round: int, where: str) -> None:
    """Raise Wrong unless a config says which round it is."""
    if not isinstance(config, ConfigRecord) or "server-round" not in config:
        raise Wrong(
            'a train message needs "server-round" in a ConfigRecord named "config"',
            given=where,
        )
    got = config["server-round"]
    if close(got, server_round):
        return
    if close(got, server_round - 1):
        sentence = (
            "server-round counts from 1"
            if server_round == 1
            else "server-round says the round before: it rises by 1 in each round"
        )
    else:
        sentence = "server-round should be the number of the round"
    raise wrong_message(sentence, where, server_round, got)


def wrong_message(sentence: str, where: str, expected: Any, sent: Any) -> Wrong:
    """Make a Wrong on what was sent, not on what was returned."""
    wrong = Wrong(sentence, given=where, expected=expected)
    wrong.details.append(f"sent: {show(sent)}")
    return wrong


def wrong_start(
    got: Arrays, server_round: int, script: Script, models: list[Arrays]
) -> str:
    """Name what is wrong with the model that a round begins with."""
    if server_round == 1:
        return "the first round begins with the arrays that your function was given"
    if close(got, models[0]):
        return (
            "this round begins with the initial model again: begin with the one that "
            "the round before has made"
        )
    best = int(np.argmax(script.measured()[: server_round - 1])) + 1
    if close(got, models[best]):
        return (
            "this round begins with the best model: begin with the one that the round "
            "before has made, better or not"
        )
    return "a round begins with the model that the round before has made"


def wrong_average(
    got: Arrays, server_round: int, script: Script, before: Arrays
) -> str:
    """Name what is wrong with the model that is to be evaluated."""
    trained = script.trained(before, server_round)
    good = [model for model in trained if model is not None]
    sizes = [n for n, m in zip(TRAIN_SIZES, trained, strict=True) if m is not None]
    plain = average(trained, [1] * len(trained))
    named = {
        "this is the model from before the round: evaluate the new one": before,
        "every client counts equally in the model: weight by num-examples": plain,
        "this is one client's model: average those of all": good[-1],
        "this, too, is one client's model: average those of all": good[0],
        "the models are only summed: divide by the sum of num-examples": {
            name: sum(n * m[name] for n, m in zip(sizes, good, strict=True))
            for name in before
        },
        "divide by the num-examples of the clients that did not fail": {
            name: value * sum(sizes) / sum(TRAIN_SIZES)
            for name, value in average(trained, TRAIN_SIZES).items()
        },
    }
    otherwise = "evaluate the average of the replies' models, weighted by num-examples"
    return name_mistake(got, named, otherwise)


def count_rounds(
    measured: list[float],
    patience: int,
    *,
    best: float = -math.inf,
    resets: bool = True,
    ties: bool = False,
    by_last: bool = False,
) -> int:
    """Return how many rounds a loop runs that makes one of the usual mistakes."""
    stale = 0
    for server_round, accuracy in enumerate(measured, 1):
        if accuracy > best or (ties and accuracy == best):
            best, stale = accuracy, 0 if resets else stale
        else:
            stale += 1
        if by_last:
            best = accuracy
        if stale >= patience:
            return server_round
    return len(measured)


def require_rounds(rounds: int, script: Script) -> None:
    """Raise Wrong, by name, unless the run has ended where it should."""
    _, expected = script.outcome()
    if rounds == expected:
        return
    measured, patience = script.measured(), script.patience
    named = {
        "the first round is always a new best, even with an accuracy of 0: begin below "
        "any accuracy": count_rounds(measured, patience, best=0.0),
        "the run ends a round too late: stop with the last of patience rounds without "
        "a new best": count_rounds(measured, patience + 1),
        "the run ends too early: patience rounds in a row may bring no new best": (
            count_rounds(measured, patience - 1)
        ),
        "the rounds without a new best are not in a row: a new best sets their count "
        "back to 0": count_rounds(measured, patience, resets=False),
        "an accuracy that only equals the best is no new best": (
            count_rounds(measured, patience, ties=True)
        ),
        "compare with the best accuracy so far, not with that of the round before": (
            count_rounds(measured, patience, by_last=True)
        ),
        "the run goes on to max_rounds: stop after patience rounds with no new best": (
            script.max_rounds
        ),
        "the run ends a round before max_rounds, though patience is left": (
            script.max_rounds - 1
        ),
    }
    sentence = name_mistake(rounds, named, "the run should end after another round")
    raise Wrong(
        sentence,
        given=str(script),
        expected=f"{expected} rounds",
        got=f"{rounds} rounds",
    )


def require_result(got: Any, script: Script) -> None:
    """Raise Wrong, by name, unless the right three things were returned."""
    given = str(script)
    best, rounds = script.outcome()
    models, measured = script.models(), script.measured()
    if got is None:
        require_kind(got, ())
    if not isinstance(got, list | tuple) or len(got) != 3:
        several = isinstance(got, list | tuple) and len(got) < 9
        kinds = ", ".join(type(part).__name__ for part in (got if several else [got]))
        raise Wrong(
            "return three things: the best arrays, their accuracy, and how many rounds "
            "were run",
            given=given,
            got=kinds,
        )
    arrays, accuracy, count = got
    if not isinstance(arrays, ArrayRecord):
        raise Wrong(
            "the first of the three should be an ArrayRecord: the best arrays",
            given=given,
            got=type(arrays).__name__,
        )
    found = numpy_of(arrays)
    if not close(found, models[best]):
        named = {
            "these are the arrays of the last round: keep those of the best": (
                models[rounds]
            ),
            "these are the initial arrays: keep those of the best round": models[0],
            "these are the arrays that the best round began with: keep those that it "
            "has made": models[best - 1],
        }
        otherwise = "the arrays should be those of the best round"
        sentence = name_mistake(found, named, otherwise)
        raise Wrong(
            sentence,
            given=given,
            expected=models[best]["weight"],
            got=found.get("weight"),
        )
    require_accuracy(accuracy, measured, script)
    if close(count, rounds):
        return
    if close(count, best):
        sentence = "this is the number of the best round: say how many were run"
    elif close(count, script.max_rounds):
        sentence = "this is max_rounds: say how many rounds were run"
    else:
        sentence = "the third of the three should say how many rounds were run"
    raise Wrong(sentence, given=given, expected=rounds, got=count)


def require_accuracy(got: Any, measured: list[float], script: Script) -> None:
    """Raise Wrong, by name, unless the accuracy is that of the best round."""
    best, rounds = script.outcome()
    expected = measured[best - 1]
    if close(got, expected):
        return
    named = {
        "this is the accuracy of the last round: return that of the best": (
            measured[rounds - 1]
        ),
        "every client counts equally in the accuracy: weight by num-examples": (
            script.measured([1] * len(CLIENTS))[best - 1]
        ),
        "weight an accuracy by the num-examples of the evaluate replies: these are "
        "those of the train replies": script.measured(TRAIN_SIZES)[best - 1],
    }
    otherwise = (
        "the accuracy should be the clients' average in the best round, weighted by "
        "num-examples"
    )
    sentence = name_mistake(got, named, otherwise)
    raise Wrong(sentence, given=str(script), expected=expected, got=got)
