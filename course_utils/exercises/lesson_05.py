"""Lesson 05's exercises."""

import math
import random
from collections.abc import Callable, Iterator
from itertools import accumulate, combinations, groupby
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from course_utils.exercises.engine import (
    Attempt,
    Case,
    Exercise,
    Wrong,
    as_row,
    require_kind,
    require_parts,
)
from course_utils.exercises.messages import RUN_ID, numpy_of
from course_utils.exercises.values import close
from course_utils.grid import SUPERLINK_NODE_ID, ErrorCode, InProcessGrid
from course_utils.isolation import copy_message, identity

# ---------------------------------------------------------------------- 5.1 draw_nodes

TEN = [301, 788, 154, 920, 467, 633, 215, 549, 872, 106]
"""Ids of ten nodes. Real ones have up to twenty digits."""


def play_draws(answer: Attempt, *args: Any, times: int = 9) -> Iterator:
    """Yield what is drawn, and what three hundred draws have in common."""
    nodes = args[0]
    got = [answer(*args) for _ in range(times)]
    if not isinstance(got[0], set | frozenset):
        require_kind(got[0], nodes)
    draws = [as_row(drawn) for drawn in got]
    strangers = {node for drawn in draws for node in drawn if node not in nodes}
    yield "not in node_ids", sorted(strangers, key=repr)
    yield "a node drawn twice", any(len(set(drawn)) < len(drawn) for drawn in draws)
    yield "as many each time", len({*map(len, draws)}) == 1
    yield "number of nodes", max(map(len, draws))
    if times > 9:
        seen = {frozenset(map(nodes.index, {*drawn} - strangers)) for drawn in draws}
        yield "other draws, time after time", len(seen) > 1
        yield "positions always drawn", sorted(frozenset.intersection(*seen))
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


NODES = Exercise(
    "5.1",
    "you draw whom a round asks, as FedAvg does.",
    cases=[
        # Of forty nodes drawn with replacement, two are the same all but surely.
        Case(list(range(501, 541)), 1.0, 2, gives={"number of nodes": 40}),
        Case(TEN, 0.59, 2, gives={"number of nodes": 5}),
        Case(TEN, 0.1, 3, gives={"number of nodes": 3}),
        Case(TEN, 0.0, 2, gives={"number of nodes": 2}),
        Case(TEN, 0.1, 1, gives={"number of nodes": 1}),
        # That some two are never drawn together in 300 draws has no chance to speak of.
        Case(TEN[1:], 0.5, 1, times=300, gives={"number of nodes": 4}),
    ],
    draw=random_draw,
    play=play_draws,
    oracle=draw,
    mistakes="""
        a part of a node is cut off, neither rounded nor rounded up
            int(part) -> round(part)
        these are fewer than minimum: it counts, too
            max(int(part), minimum) -> int(part)
            max(int(part), minimum) -> int(part) and max(int(part), minimum)
        the larger of the two numbers counts, fraction of the nodes or minimum: here it
        is the smaller
            max(int(part), minimum) -> minimum
        draw the larger of the two numbers, not their sum
            max(int(part), minimum) -> min(int(part) + minimum, n)
        these are all nodes: draw some of them
            max(int(part), minimum) -> n
        a node was drawn more than once: random.sample draws without putting back,
        random.choices does not
            random.sample(range(n), count) -> random.choices(range(n), k=count)
        every call draws the same nodes: let chance decide, neither their place in the
        list nor a seed in the function
            random.sample -> random.Random(3).sample
            random.sample(range(n), count) -> range(count)
        some nodes are never drawn together: draw each by chance, not neighbours in the
        list
            random.sample(range(n), count) -> random.randrange(n)
            & i in chosen -> i in [(chosen + k) % n for k in range(count)]
        these are positions in the list: return the ids that stand there
            [node_ids[i] for i in chosen] -> chosen
    """,
    otherwise={
        "node_ids": "your function should return a list of ids from node_ids",
        "a node drawn twice": "a node was drawn more than once",
        "each time": "how many nodes are drawn is not left to chance",
        "number of nodes": "this is another number of nodes than was asked for",
        "always drawn": "some nodes are always drawn: all should have the same chance",
        "ever drawn": "some nodes are never drawn: all should have the same chance",
        "drawn together": "some nodes are never drawn together: draw each by chance",
    },
)

# -------------------------------------------------- a run whose clients follow a script

TRAIN_SIZES, SHIFTS = (40, 40, 20), (1.0, -2.0, 4.0)
# The mean of these, weighted by test sizes, is 0; the plain one is not.
TEST_SIZES, OFFSETS = (32, 32, 64), (1 / 16, 1 / 16, -1 / 16)
INITIAL = {"age": [0.0], "weight": [[8.0, -4.0], [2.0, 0.5]]}


class ScriptedGrid(InProcessGrid):
    """A grid of three clients, which keeps what is sent to them.

    ``accuracies`` are the clients' averages after each round (if None, all fail to
    evaluate), ``fails`` type, round and client of each message that fails.
    """

    def __init__(self, accuracies: tuple, fails: tuple) -> None:
        super().__init__(ClientApp(), 3)
        self.accuracies, self.fails = accuracies, fails
        self.sent: list[Message] = []

    def __deepcopy__(self, memo: dict) -> "ScriptedGrid":
        """Stay the same, so that what the answer sends is seen."""
        return self

    def client(self, message: Message) -> int:
        """Return which client a message is sent to."""
        return list(self.node_contexts).index(message.metadata.dst_node_id)

    def _push(self, message: Message) -> str:
        if len(self.sent) >= 2 * 3 * (len(self.accuracies) + 1):
            raise RuntimeError("there is no end of messages")
        self.sent.append(copy_message(message))
        return super()._push(message)

    def _handle(self, instruction: Message) -> Message:
        """Answer as a ClientApp would that knows the script."""
        kind, client = instruction.metadata.message_type, self.client(instruction)
        try:
            content = self._reply(kind, instruction.content, client)
        except Exception as error:
            reason = f"{type(error)}:<'{error}'>"
            content = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason)
        return Message(content, reply_to=instruction)

    def _reply(self, kind: str, content: RecordDict, client: int) -> RecordDict:
        model = numpy_of(content["arrays"])
        trained = round(float(model["age"][0]))  # each training adds 1 to it
        if (kind, trained + (kind == "train"), client) in self.fails:
            raise ValueError("no data today")
        if kind == "train":
            weight = 0.5 * model["weight"] + SHIFTS[client]
            arrays = record_of({"age": model["age"] + 1, "weight": weight})
            metrics = {"train-loss": 1.0, "num-examples": TRAIN_SIZES[client]}
            return RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)})
        average = self.accuracies[min(max(trained, 1), len(self.accuracies)) - 1]
        metrics = {"eval-accuracy": average + OFFSETS[client], "eval-loss": 1.0}
        metrics["num-examples"] = TEST_SIZES[client]
        return RecordDict({"metrics": MetricRecord(metrics)})


def record_of(model: dict[str, Any]) -> ArrayRecord:
    """Return a model as a record."""
    return ArrayRecord({k: torch.as_tensor(a).float() for k, a in model.items()})


def run_facts(start: Callable, script: tuple, settings: tuple = ()) -> Iterator:
    """Yield what is sent, message type by message type; return what comes back."""
    got, raised = None, None
    # A grid lets this process make messages, which is undone at the end.
    with identity(RUN_ID, SUPERLINK_NODE_ID):
        grid = ScriptedGrid(*script)
        try:
            got = start(grid, record_of(INITIAL))
        except Wrong as wrong:  # what was sent says more than what came of it
            raised = wrong
    waves = groupby(grid.sent, lambda message: message.metadata.message_type)
    for i, (kind, sent) in enumerate([(kind, [*sent]) for kind, sent in waves]):
        number = f"round {i // 2 + 1}: "
        yield number + "message type", kind
        asked = len(set(map(grid.client, sent)))
        if not raised or len(sent) >= 3:
            said = "a node twice in a row" if len(sent) > asked else f"{asked} of 3"
            yield number + "nodes asked", said
        records = [message.content.get("arrays") for message in sent]
        is_there = all(isinstance(record, ArrayRecord) for record in records)
        yield number + 'an ArrayRecord "arrays"', is_there
        models = [numpy_of(record) for record in records if is_there]
        alike = all(close(model, models[0]) for model in models)
        yield number + f"model to {kind}", models[0] if alike and models else models
        configs = [message.content.get("config", {}) for message in sent]
        for name in ("server-round", *settings) if kind == "train" else ():
            values = {config.get(name) for config in configs}
            yield number + name, values.pop() if len(values) == 1 else None
    if raised:
        raise raised
    return got


# ------------------------------------------------------------------ 5.2 lr_by_accuracy


def play_strategy(
    answer: Attempt, accuracies: tuple, fails: tuple, factor: float, lr: float
) -> Iterator:
    """Start the strategy that comes back; yield what it sends, and its Result."""
    strategy = answer(factor)
    if not isinstance(strategy, FedAvg):
        require_kind(strategy, None)
        said = "return an object of your own subclass of FedAvg, not the class itself"
        raise Wrong(said, got=strategy)

    def start(grid: ScriptedGrid, arrays: ArrayRecord) -> Any:
        config = ConfigRecord({"lr": lr, "local-epochs": 2})
        args = (grid, arrays, len(accuracies), 3600.0, config)
        return Attempt(strategy.start)(*args, may_change=True)

    settings = ("local-epochs", "lr")
    result = yield from run_facts(start, (accuracies, fails), settings)
    averages = result.train_metrics_clientapp, result.evaluate_metrics_clientapp
    yield "averages in the Result", [{i: {**m} for i, m in a.items()} for a in averages]


def plateaus(factor: float) -> FedAvg:
    """Keep all accuracies, and count those that were a new best: the oracle."""
    found: list[float] = []

    class Own(FedAvg):
        def configure_train(self, server_round, arrays, config, grid):
            bests = list(accumulate(found, max))
            new_bests = len(set(bests))
            lr = config["lr"] * factor ** (len(bests) - new_bests)
            config = ConfigRecord({**config, "lr": lr})
            return super().configure_train(server_round, arrays, config, grid)

        def aggregate_evaluate(self, server_round, replies):
            metrics = super().aggregate_evaluate(server_round, replies)
            if metrics:
                found.append(metrics["eval-accuracy"])
            return metrics

    return Own()


def rounds_of(accuracies: tuple, fails: tuple, factor: float, *lr: float) -> Case:
    """Make the case of a run, with the lr of its rounds, as far as it is known."""
    shown = {"accuracy by round": accuracies, "factor": factor, "lr": lr[0]}
    shown |= {"fails (in round, client)": fails} if fails else {}
    gives = {f"round {i}: lr": value for i, value in enumerate(lr, start=1)}
    return Case(accuracies, fails, factor, lr[0], gives=gives, shown=shown)


LR_BY_ACCURACY = Exercise(
    "5.2",
    "your strategy lets the accuracy decide what the clients are sent.",
    cases=[
        rounds_of((0.3, 0.5, 0.4, 0.6, 0.6), (), 0.5, 0.01, 0.01, 0.01, 0.005, 0.005),
        # Better than the round before, and not than the best.
        rounds_of((0.5, 0.3, 0.2, 0.4, 0.6), (), 0.5, 0.08, 0.08, 0.04, 0.02, 0.01),
        rounds_of((0.0, 0.0, 0.2), (), 0.25, 0.4, 0.4, 0.1),
        rounds_of((0.4, None, 0.3, None, 0.5), (), 0.5, 0.08, 0.08, 0.08, 0.04, 0.04),
        # Without client 2, 0.35 becomes 0.35 + 1 / 16: a new best.
        rounds_of((None, 0.4, 0.35, 0.3), (("evaluate", 3, 2),), 0.1, *[0.08] * 4),
    ],
    draw=lambda rng: rounds_of(
        tuple(rng.choices([None, 0.1, 0.2, 0.3, 0.4], k=6)), (), 0.8, rng.random()
    ),
    play=play_strategy,
    oracle=plateaus,
    mistakes="""
        configure_train should return the messages of the round, as FedAvg's does
            return super().conf -> super().conf
            return super().conf -> return [] and super().conf
        this lr falls without a look at the accuracy: it should fall only after a round
        without a new best
            len(bests) - new_bests -> server_round - 1
        compare with the best accuracy so far, not with that of the round before
            len(bests) - new_bests -> sum(b <= a for a, b in zip(found, found[1:]))
        this lr never falls: override both methods, and return an object of your class
            len(bests) - new_bests -> 0
        this number stands in your function: take the factor that it is given, and the
        lr of the train_config
            factor ** -> 0.5 **
            lr = config["lr"] * -> lr = 0.01 *
        the lr should fall again after each further round without a new best
            len(bests) - new_bests -> min(len(bests) - new_bests, 1)
        an accuracy that only equals the best is no new best
            len(bests) - new_bests -> sum(a < b for a, b in zip(found, bests))
        the first average is always a new best, even 0: begin below any accuracy
            accumulate(found, max) -> accumulate([0.0, *found], max)
        once the lr has fallen, it stays so: a new best does not raise it again
            len(bests) - new_bests -> bool(found) and found[-1] not in bests[-1:]
        the change adds up from round to round: start hands the same ConfigRecord to
        each of them, so make a new one
            config = ConfigRecord({**config, "lr": lr}) -> config["lr"] = lr
        if no client could evaluate, there is no average: aggregate_evaluate of FedAvg
        returns None, so ask for that before you read it
            if metrics -> if True
        a round in which no client could evaluate says nothing: leave the lr as it is
            if metrics -> if True
            & metrics["eval-accuracy"] -> metrics["eval-accuracy"] if metrics else 0.0
    """,
    otherwise={
        "nodes asked": "ask the nodes that FedAvg asks",
        "server-round": "let FedAvg's configure_train make the messages: it adds the "
        "server-round",
        "local-epochs": "keep the other settings of the train_config",
        "lr": "after each round whose average eval-accuracy is no new best, the lr "
        "should be factor times what it was, and else stay",
        "Result": "the Result should have what it has with FedAvg: return from "
        "aggregate_evaluate what FedAvg's returns",
    },
)

# ---------------------------------------------------------------------- 5.3 train_until

RUN_PARTS = ("the best arrays", "their accuracy", "how many rounds were run")


def play_run(answer: Attempt, accuracies: tuple, fails: tuple, patience: int) -> Any:
    """Yield what is sent, message type by message type, and what comes back."""
    when = len(accuracies), patience
    script = accuracies, fails
    got = yield from run_facts(lambda *start: answer(*start, *when), script)
    arrays, accuracy, count = require_parts(got, RUN_PARTS)
    yield "the first of the three", type(arrays).__name__
    if isinstance(arrays, ArrayRecord):
        yield from zip(RUN_PARTS, (numpy_of(arrays), accuracy, count), strict=True)


def ask(grid: Any, kind: str, arrays: ArrayRecord, number: int) -> list[RecordDict]:
    """Ask all nodes, and return what those answer that do not fail."""
    config = ConfigRecord({"server-round": number})
    content = RecordDict({"arrays": arrays, "config": config})
    messages = [Message(content, node, kind) for node in grid.get_node_ids()]
    replies = grid.send_and_receive(messages)
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


def run_of(accuracies: tuple, patience: int, *fails: tuple, ends: tuple = ()) -> Case:
    """Make the case of a run, with accuracy, rounds and arrays, as far as known."""
    known = dict(zip((*RUN_PARTS[1:], RUN_PARTS[0]), ends, strict=False))
    shown = {"accuracy by round": accuracies, "max_rounds": len(accuracies)}
    shown |= {"patience": patience}
    shown |= {"fails (in round, client)": fails} if fails else {}
    return Case(accuracies, fails, patience, gives=known, shown=shown)


def random_run(rng: random.Random) -> Case:
    """Draw a run with clients that fail."""
    rounds = rng.randint(1, 7)
    # Apart by more than a client that fails can move them.
    accuracies = tuple(x / 10 for x in rng.sample(range(1, 10), rounds))
    kinds = ["train"] * (rounds // 2) + ["evaluate"] * (rounds // 3)
    fails = [(k, rng.randint(1, rounds), rng.randrange(3)) for k in kinds]
    one_each = {failure[:2]: failure for failure in fails}.values()
    return run_of(accuracies, rng.randint(1, 3), *one_each)


TRAIN_UNTIL = Exercise(
    "5.3",
    "your ServerApp knows when to stop, and which model to keep.",
    cases=[
        # The shifts' weighted mean is 0.4, so round 1 makes [[4.4, -1.6], ...].
        run_of(
            (0.4, 0.6, 0.5, 0.3, 0.45, 0.35),
            patience=2,
            ends=(0.6, 4, {"age": [2], "weight": [[2.6, -0.4], [1.1, 0.725]]}),
        ),
        # A rise below the best, a new best in between, one that is met but not beaten.
        run_of((0.3, 0.2, 0.5, 0.4, 0.5, 0.45, 0.48, 0.4, 0.3, 0.9), 2, ends=(0.5, 5)),
        run_of((0.2, 0.3, 0.4), 2, ends=(0.4, 3)),
        run_of(
            (0.3, 0.5, 0.4, 0.7), 3, ("train", 1, 2), ("train", 3, 0), ends=(0.7, 4)
        ),
        run_of(
            (0.3, 0.5, 0.4, 0.45, 0.3, 0.6),
            3,
            ("evaluate", 2, 0),
            ("evaluate", 3, 2),
            ends=(0.5 + (32 - 64) / (32 + 64) / 16, 5),
        ),
        # A first round that nobody gets anything from is the best so far all the same.
        run_of((0.0, 0.0, 0.3), 2, ends=(0.3, 3)),
    ],
    draw=random_run,
    play=play_run,
    oracle=lead,
    mistakes="""
        no message has crossed the grid: send the nodes train messages
            lambda grid, arrays, max_rounds, patience: (arrays, 0.0, 0)
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
        divide the sum of the models by the num-examples of the clients that did not
        fail
            sum(sizes)) -> 1)
            sum(sizes)) -> sum(TRAIN_SIZES))
        a round more than max_rounds was begun: it ends the run, whatever the accuracy
            max_rounds + 1 -> max_rounds + 2
            max_rounds + 1 -> 99
            & >= patience -> >= 99
        the first round is always a new best, even with an accuracy of 0: begin below
        any accuracy
            = initial, -math.inf -> = initial, 0.0
        the run ends a round too late: stop with the last of patience rounds without a
        new best
            >= patience -> > patience
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
        this is of the last round: return the arrays and the accuracy of the best
            return best, -> return arrays,
            return best, best_accuracy -> return best, accuracy
        weight an accuracy by the num-examples of the evaluate replies
            , weights=sizes_of(tested) ->
            sizes_of(tested) -> sizes
    """,
    otherwise={
        "message type": 'a round is "train" to all nodes, and then "evaluate"',
        "no message type": "the run ends too early: go on while there are rounds left "
        "of max_rounds, and of patience",
        "no the first of the three": "the run should have ended before",
        "nodes asked": "ask all nodes to train, each of them once, and then all to "
        "evaluate the new model",
        '"arrays"': 'a message carries the model, as an ArrayRecord named "arrays"',
        "model to train": "a round begins with the model that the round before has "
        "made, and the first one with the arrays that your function was given",
        "model to evaluate": "evaluate the average of the replies' models, weighted by "
        "num-examples",
        "server-round": 'a train message needs "server-round" in a ConfigRecord named '
        '"config": the number of the round, which counts from 1',
        "the first of the three": "the first of the three should be an ArrayRecord: "
        "the best arrays",
        "the best arrays": "the arrays should be those of the best round",
        "their accuracy": "the accuracy should be the clients' average in the best "
        "round, weighted by num-examples",
        "were run": "the third should say how many rounds were run: neither max_rounds "
        "nor the number of the best",
    },
)
