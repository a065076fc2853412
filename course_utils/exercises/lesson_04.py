"""Lesson 04's exercises."""

import random
from collections import ChainMap  # noqa: F401 (edits use it)
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile  # noqa: F401 (edits use it)
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from course_utils.exercises import messages
from course_utils.exercises.engine import NOTHING, Attempt, Case, Exercise, Wrong
from course_utils.exercises.lesson_03 import Facts, reply
from course_utils.exercises.messages import Node

# ---------------------------------------------------------------------- 4.1 lr_to_use


def rates(run: float, node: float, gives: Any = NOTHING, **sent: dict) -> Case:
    """Make a case of learning rates: in the message, in the run, at the node."""
    own = messages.context(0, 1, {"lr": run, "local-epochs": 1})
    own.node_config["lr"] = node
    content = RecordDict({name: ConfigRecord(values) for name, values in sent.items()})
    shown = {"message": sent, "run_config's lr": run, "node_config's lr": node}
    return Case(messages.instruction(content), own, gives=gives, shown=shown)


def random_rates(rng: random.Random) -> Case:
    """Draw different learning rates."""
    sent, run, node, other = (n / 1000 for n in rng.sample(range(1, 1000), 4))
    config = rng.choice([{}, {"lr": sent}]) | {"server-round": rng.randint(1, 9)}
    return rates(run, node, config=config, options={"lr": other})


def rate(message: Message, own: Context) -> float:
    """Look into the message, and then into the run config: the oracle."""
    config = message.content.get("config", {})
    run = own.run_config["lr"]
    lr = config["lr"] if "lr" in config else run  # noqa: SIM401
    return lr


RATE = Exercise(
    "4.1",
    "your client uses the learning rate that the server means.",
    cases=[
        rates(0.5, 0.0625, config={"lr": 0.25, "server-round": 2}, gives=0.25),
        rates(0.5, 0.0625, config={"server-round": 3, "local-epochs": 2}, gives=0.5),
        rates(0.5, 0.0625, gives=0.5),
        rates(0.5, 0.875, config={"lr": 0.75}, gives=0.75),
        rates(0.5, 0.0625, config={"server-round": 1, "lr": 0.0}, gives=0.0),
        rates(0.5, 0.0625, options={"lr": 0.125}, gives=0.5),
        rates(0.5, 0.0625, a={"lr": 0.1}, config={"lr": 1}, z={"lr": 0.2}, gives=1),
    ],
    draw=random_rates,
    oracle=rate,
    mistakes="""
        the server sent 0.0, and that is a learning rate, too: ask whether there
        is an lr, not whether it is true
            if "lr" in config -> if config.get("lr")
        the server need not send an lr: ask whether "lr" is in the message's
        config, before you read it
            if "lr" in config else run ->
        this is the run config's lr, and the server has sent another with the
        message: that one comes first
            return lr -> return run
        a message need not have a config: ask whether "config" is in
        message.content, before you read it
            .get("config", {}) -> ["config"]
            .get("config", {}) -> .get("config")
            "lr" in config -> config.get("lr")
            & .get("config", {}) -> .get("config")
        this lr stands in another record than "config": it is not asked for
            message.content.get("config", {}) -> ChainMap(*message.content.values())
        this is the node config's lr: it was not asked for, look into the
        message's config and then into the run config
            own.run_config -> own.node_config
            return lr -> return own.node_config["lr"]
        this number stands in your function: read it from the message's config,
        or else from context.run_config
            else run -> else 0.01
            return lr -> return 0.01
    """,
    otherwise="the result should be the lr of the message's config, as it is, or else "
    "that of context.run_config",
)

# ------------------------------------------------------ messages to nodes, one by one

ONE_RECORD = messages.REPLY | {
    "outside context.state": "this is kept outside context.state, in a global, an "
    "attribute or a default value: on the next message it is gone, or holds what "
    "another node has left",
    "empty in the end": "context.state is still empty when the calls are over: it is "
    "the only place where a node finds again what it has put there",
    "records": 'the reply should hold one record, a MetricRecord named "metrics": what '
    "a node keeps for itself stays in context.state",
}


def in_turn(trace: Callable[..., Facts]) -> Callable[..., Facts]:
    """Make a play of a trace: of what three nodes do with messages, one by one.

    Each message is handled by a fresh copy of the answer, as in a grid. What is kept
    outside ``context.state`` shows when one copy handles the first few of them.
    """

    def play(answer: Attempt, asked: list) -> Facts:
        fresh = messages.fresh_copies(answer.function)
        one = fresh()
        runs = []
        for function, some in ((fresh, asked), (lambda: one, asked[:6])):
            nodes, facts = [Node(i, 3) for i in range(3)], []
            try:
                for fact in trace(function, nodes, some):
                    facts.append(fact)
            except Wrong as wrong:
                facts.append(("what was raised", wrong))
            runs.append((facts, any(node.context.state for node in nodes)))
        (facts, kept), (others, _) = runs
        same = repr(facts[: len(others)]) == repr(others)
        raised = isinstance(facts[-1][1], Wrong)
        yield "something is kept outside context.state", not same
        yield "context.state is empty in the end", not (kept or raised)
        yield from facts

    return play


# -------------------------------------------------------------------- 4.2 count_calls


@in_turn
def play_count(fresh: Callable, nodes: list[Node], calls: list[tuple]) -> Facts:
    """Yield what each reply says."""
    for i, (node, kind, server_round, *_) in enumerate(calls, start=1):
        content = RecordDict({"config": ConfigRecord({"server-round": server_round})})
        content = nodes[node].ask(fresh(), content, kind)
        for name, value in messages.content_facts(content):
            yield f"message {i}, {kind} to node {node}: {name}", value


def count(message: Message, own: Context) -> Message:
    """Keep the types of all messages, and no counts: the oracle."""
    _n = message.content["config"]["server-round"]  # for edits
    key = message.metadata.message_type
    past = [*own.state.get("past", {"keys": []})["keys"], key]
    own.state["past"] = ConfigRecord({"keys": past})
    return reply(message, {"calls": past.count(key), "num-examples": 1})


def calling(*calls: tuple) -> Case:
    """Make a case of messages: to which node, of which type, in which round."""
    shown = ", ".join(f"{kind} to node {node}" for node, kind, *_ in calls)
    gives = {
        f"message {i}, {kind} to node {node}: calls in metrics": count
        for i, (node, kind, _, *counts) in enumerate(calls, start=1)
        for count in counts
    }
    return Case(calls, shown=shown, gives=gives)


def random_calls(rng: random.Random) -> Case:
    """Draw messages of ten rounds."""
    types = ["train", "evaluate", "query", "train.head"]
    return calling(*((rng.randrange(3), rng.choice(types), i + 1) for i in range(10)))


COUNT = Exercise(
    "4.2",
    "your client counts for itself, wherever it runs.",
    cases=[
        calling(  # The last number is how many of the type the node has had.
            (0, "train", 3, 1),
            (1, "train", 3, 1),
            (0, "train", 4, 2),
            (0, "evaluate", 4, 1),
            (0, "evaluate", 4, 2),  # asked twice in a round
            (0, "train", 5, 3),
            (1, "evaluate", 5, 1),
            (1, "query", 5, 1),
            (0, "train.head", 6, 1),
            *((2, "train", 7 + n, n) for n in range(1, 13)),
        )
    ],
    draw=random_calls,
    play=play_count,
    oracle=count,
    mistakes="""
        a type that this node has not had before counts from 0: ask whether
        there is a number for it
            past.count(key) -> past.count(key) + {past[0]: 0}[key]
            past.count(key) -> past.count(key) + {'train': 0, 'evaluate': 0}[key]
            past.count(key) -> past.count(key) + dict(train=0, evaluate=0, query=0)[key]
        a named action is of another type: train.head does not count as train
            message_type -> message_type.split(".")[0]
        this counts messages of all types together: keep a number for each type
            past.count(key) -> len(past)
        the message that has just come counts, too: the first is number 1
            past.count(key) -> past.count(key) - 1
        count messages, not rounds, over the whole run: a node does not take part in
        every round, and may be asked twice in one
            past.count(key) -> _n
            message_type -> message_type + f" {_n}"
            message_type -> message_type + f" {_n}"
            & past.count(key) -> len({k for k in past if k[:6] == key[:6]})
        the count begins anew after a message of another type: keep the numbers
        of the other types, too
            past.count(key) -> len([*takewhile(lambda k: k == key, past[::-1])])
        the count begins anew with each message: ask whether there is a number
        in context.state, and add to it
            past.count(key) -> 1
    """,
    otherwise=ONE_RECORD
    | {
        "calls in metrics": "calls should be how many messages of this type this node "
        "has got in the whole run",
        "num-examples in metrics": "num-examples should be 1, whatever the count",
    },
)

# ---------------------------------------------------------------------- 4.3 keep_best


@dataclass(frozen=True)
class Test:
    """An evaluate message to a node, and what testing its arrays gives."""

    node: int
    round: int
    accuracy: float | None
    """None if the test fails."""
    loss: float
    best: tuple[float, int] | None = None
    """By hand: the best accuracy so far, and its round."""

    @cached_property
    def arrays(self) -> ArrayRecord:
        """What the message brings, other arrays for each test."""
        body = torch.tensor([self.round, self.node])
        return ArrayRecord({"body": body, "head": torch.ones(1)})

    @property
    def label(self) -> str:
        """What a learner should read on the test."""
        result = "test fails" if self.accuracy is None else f"accuracy {self.accuracy}"
        return f"node {self.node}, round {self.round}, {result}"


@in_turn
def play_best(fresh: Callable, nodes: list[Node], tests: list[Test]) -> Facts:
    """Yield what each reply says, and what it leaves in ``context.state``."""

    def tested(arrays: ArrayRecord) -> Test | None:
        return next((test for test in tests if test.arrays == arrays), None)

    def test_fn(arrays: ArrayRecord) -> tuple[float, float]:
        assert isinstance(arrays, ArrayRecord), "test_fn takes an ArrayRecord"
        test = tested(arrays)
        assert test, "test_fn was given arrays that no message has brought"
        if test.accuracy is None:
            raise MemoryError("the test of these arrays fails")
        return test.loss, test.accuracy

    for test in tests:
        config = ConfigRecord({"server-round": test.round})
        content = RecordDict({"arrays": test.arrays, "config": config})
        node = nodes[test.node]
        try:
            said = node.ask(fresh(), content, "evaluate", test_fn, 30 + test.round)
        except Wrong:
            if test.accuracy is not None:
                raise
        if test.accuracy is not None:
            for name, value in messages.content_facts(said):
                yield f"{test.label}: {name}", value
        kept = node.context.state.get("best")
        others = len(set(node.context.state.array_records) - {"best"})
        kind = type(kept).__name__ if kept else "missing"
        yield f"{test.label}: records of arrays", {"best": kind, "others": others}
        if isinstance(kept, ArrayRecord):
            best = tested(kept)
            yield f"{test.label}: the arrays kept", best.label if best else sorted(kept)


def keep(message: Message, own: Context, test_fn: Callable, size: int) -> Message:
    """Keep all results, and look for the best among them each time: the oracle."""
    arrays, state = message.content["arrays"], own.state
    loss, acc = test_fn(arrays)
    this = {"acc": acc, "loss": loss, "n": message.content["config"]["server-round"]}
    past = state.get("past", {"acc": [], "loss": [], "n": []})
    past = {key: [*past[key], value] for key, value in this.items()}
    state["past"] = ConfigRecord(past)
    every = range(len(past["n"]))
    of = past["acc"].__getitem__
    i = max(every, key=of)  # the first of equals
    state["best"] = arrays if i == every[-1] else state.get("best", arrays)
    best, n = past["acc"][i], past["n"][i]
    metrics = {"eval-accuracy": acc, "best-accuracy": best, "best-round": n}
    return reply(message, metrics | {"num-examples": size})


def testing(*tests: Test) -> Case:
    """Make a case of tests."""
    shown: dict[str, dict] = {}
    gives: dict[str, float] = {}
    for test in tests:
        result = "fails" if test.accuracy is None else test.accuracy
        shown.setdefault(f"node {test.node}", {})[test.round] = result
        for name, best in zip(("accuracy", "round"), test.best or (), strict=False):
            gives[f"{test.label}: best-{name} in metrics"] = best
    return Case(list(tests), shown={"accuracy by round": shown}, gives=gives)


def random_tests(rng: random.Random) -> Case:
    """Draw tests of three nodes, with ties."""
    rounds = sorted(rng.sample(range(1, 50), 12))
    pairs = [(rng.randint(0, 8) / 8, rng.randint(1, 999) / 64) for _ in rounds]
    tests = zip(rounds, pairs, strict=True)
    return testing(*(Test(rng.randrange(3), n, *pair) for n, pair in tests))


KEEP = Exercise(
    "4.3",
    "your client remembers the best model that it was ever sent.",
    cases=[
        testing(
            Test(0, 2, 0.5, 1.0, (0.5, 2)),
            Test(1, 2, 0.0, 3.0, (0.0, 2)),  # nothing right, and the best so far
            Test(0, 3, 0.75, 1.5, (0.75, 3)),  # the best, and not the lowest loss
            Test(0, 4, None, 0.0),
            Test(0, 5, 0.375, 0.5, (0.75, 3)),
            Test(1, 5, 0.25, 2.0, (0.25, 5)),
            Test(0, 8, 0.75, 0.25, (0.75, 3)),  # a tie, at a lower loss
            Test(1, 8, 0.125, 2.5, (0.25, 5)),
            Test(0, 9, 0.7525, 2.0, (0.7525, 9)),  # hardly better
        )
    ],
    draw=random_tests,
    play=play_best,
    oracle=keep,
    mistakes="""
        test first, and change context.state afterwards: if test_fn raises, what
        is kept must still be the best
            loss, acc = -> old = state.get("best"); state["best"] = arrays; loss, acc =
            & else state.get("best", arrays) -> else old
        a node's first accuracy is the best so far, even if it is 0.0: ask
        whether there is a best yet, instead of beginning with 0
            {"acc": [], "loss": [], "n": []} -> {"acc": [0.0], "loss": [9.0], "n": [0]}
            state["best"] = -> if acc: state["best"] =
        test_fn returns the loss first, then the accuracy
            loss, acc = -> acc, loss =
        best-accuracy and best-round are about the best so far: it stays the best when
        a later round is worse
            , past["n"][i] -> , this["n"]
            = past["acc"][i], -> = acc,
        the best is the highest accuracy, neither the lowest nor that of the lowest
        loss
            key=of -> key=lambda i: -past["loss"][i]
            max(every -> min(every
        where a round only equals the best so far, the earlier one stays the best,
        and so do its arrays
            max(every -> max(every[::-1]
            arrays if i == every[-1] -> arrays if acc == past["acc"][i]
        the first round stays the best in every round: put what is better in its
        place, numbers and arrays
            i = max(every, key=of) -> i = 0
            = max(every, -> = every[-1] if acc > past["acc"][0] else max([0],
            arrays if i == every[-1] else ->
        this is the best of the rounds before: the message that has just come
        counts, too
            best, n = -> i = max(every[:-1] or every, key=of); best, n =
        eval-accuracy is about the arrays that have just come: the best has a
        metric of its own
            "eval-accuracy": acc -> "eval-accuracy": best
        best-round is the server-round in the message's config: a node does not take
        part in every round, so do not count messages, nor places in a list
            , past["n"][i] -> , i
            , past["n"][i] -> , i + 1
        these are the arrays that came last: replace them only by better ones
            arrays if i == every[-1] else state.get("best", arrays) -> arrays
    """,
    otherwise=ONE_RECORD
    | {
        "eval-accuracy in metrics": "eval-accuracy should be that of the message's "
        "arrays, as one number",
        "best-accuracy in metrics": "best-accuracy should be the highest so far",
        "best-round in metrics": "best-round should be that of the best accuracy",
        "num-examples in metrics": "num-examples should be what was handed over",
        "records of arrays": "context.state should keep one ArrayRecord, the best "
        'arrays by the name "best": each further model takes memory until the run ends',
        "the arrays kept": "the arrays in context.state should be those of the best "
        "round, all of them, by the names with which they came",
    },
)
