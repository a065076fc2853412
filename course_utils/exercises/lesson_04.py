"""Lesson 04's exercises."""

import random
from collections import ChainMap  # noqa: F401 (edits use it)
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile  # noqa: F401 (edits use it)
from typing import Any

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)

from course_utils.exercises.engine import Attempt, Case, Exercise, Wrong
from course_utils.exercises.messages import (
    REPLY,
    Node,
    content_facts,
    context,
    fresh_copies,
    instruction,
)

# ---------------------------------------------------------------------- 4.1 lr_to_use


def rates(run: float, node: float, gives: float, **sent: dict[str, Any]) -> Case:
    """Make a case of learning rates: in the message, in the run, at the node."""
    own = context(0, 1, {"lr": run, "local-epochs": 1})
    own.node_config["lr"] = node
    records = {name: ConfigRecord(values) for name, values in sent.items()}
    shown = {"message": sent, "run_config's lr": run, "node_config's lr": node}
    return Case(instruction(RecordDict(records)), own, gives=gives, shown=shown)


def random_rates(rng: random.Random) -> Case:
    """Draw four different learning rates."""
    sent, run, node, other = (n / 1000 for n in rng.sample(range(1, 1000), 4))
    config = {"server-round": rng.randint(1, 9)}
    return rng.choice(
        [
            rates(run, node, gives=run),
            rates(run, node, config=config, gives=run),
            rates(run, node, options={"lr": other}, config=config, gives=run),
            rates(run, node, config={**config, "lr": sent}, gives=sent),
        ]
    )


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
            return lr -> return max(lr, run)
        the message's lr is not a factor: it is to be used as it is
            config["lr"] if -> config["lr"] * run if
        a message need not have a config: ask whether "config" is in
        message.content, before you read it
            .get("config", {}) -> ["config"]
            .get("config", {}) -> .get("config")
            "lr" in config -> config.get("lr")
            & .get("config", {}) -> .get("config")
        this lr stands in another record than "config": it is not asked for
            message.content.get("config", {}) -> ChainMap(*message.content.values())
            get("config", {}) -> get("config", [*message.content.values(), {}][0])
        this is the node config's lr: it was not asked for, look into the
        message's config and then into the run config
            own.run_config -> own.node_config
            return lr -> return own.node_config["lr"]
        this number stands in your function: read it from the message's config,
        or else from context.run_config
            else run -> else 0.0
            return lr -> return 0.0
            else run -> else 0.001
            return lr -> return 0.001
            else run -> else 0.01
            return lr -> return 0.01
            else run -> else 0.1
            return lr -> return 0.1
            else run -> else 1.0
            return lr -> return 1.0
        your function changed a config or the Context: only read them
            return lr -> own.run_config.update(lr=lr); return lr
            return lr -> own.run_config.update(config); return lr
    """,
    otherwise="the result should be the message's lr, or else the run config's",
)

# ------------------------------------------------------ messages to nodes, one by one

ONE_RECORD = REPLY | {
    "records": 'the reply should hold one record, a MetricRecord named "metrics": what '
    "a node keeps for itself stays in context.state"
}


def in_turn(trace: Callable[..., Iterator]) -> Callable[..., Iterator]:
    """Make a play of a trace: of what three nodes do with messages, one by one.

    Each message is handled by a fresh copy of the answer, as in a grid. What is kept
    outside ``context.state`` shows when one copy handles the first few of them.
    """

    def play(answer: Attempt, messages: list) -> Iterator[tuple[str, Any]]:
        fresh = fresh_copies(answer.function)
        one = fresh()
        runs = []
        for function, some in ((fresh, messages), (lambda: one, messages[:6])):
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


def reply(message: Message, metrics: dict[str, float]) -> Message:
    """Reply with these metrics."""
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


# -------------------------------------------------------------------- 4.2 count_calls

Call = tuple[int, str, int]  # which node, type of message, round


@in_turn
def play_count(
    fresh: Callable, nodes: list[Node], calls: list[Call]
) -> Iterator[tuple[str, Any]]:
    """Yield what each reply says."""
    for i, (node, kind, server_round) in enumerate(calls, start=1):
        config = ConfigRecord({"server-round": server_round})
        content = nodes[node].ask(fresh(), RecordDict({"config": config}), kind)
        for name, value in content_facts(content):
            yield f"message {i}, {kind} to node {node}: {name}", value


def count(message: Message, own: Context) -> Message:
    """Keep the types of all messages, and no counts: the oracle."""
    _n = message.content["config"]["server-round"]  # for edits
    key = message.metadata.message_type
    past = [*own.state.get("past", {"keys": []})["keys"], key]
    own.state["past"] = ConfigRecord({"keys": past})
    calls, size = past.count(key), 1
    return reply(message, {"calls": calls, "num-examples": size})


def random_calls(rng: random.Random) -> Case:
    """Draw messages of ten rounds."""
    types = ["train", "evaluate", "query", "train.head"]
    calls = [(rng.randrange(3), rng.choice(types), i + 1) for i in range(10)]
    return Case(calls, shown=said(calls))


def said(calls: list[Call]) -> str:
    """Say which messages were sent."""
    return ", ".join(f"{kind} to node {node}" for node, kind, _ in calls)


CALLS = [  # which node, type, round, and how many of the type the node has had
    (0, "train", 2, 1),
    (1, "train", 2, 1),
    (0, "train", 4, 2),
    (0, "evaluate", 4, 1),
    (0, "evaluate", 4, 2),  # asked twice in a round
    (0, "train", 5, 3),
    (1, "evaluate", 5, 1),
    (1, "query", 5, 1),
    (0, "train.head", 6, 1),
    *((2, "train", 7 + n, n) for n in range(1, 13)),
]

COUNT = Exercise(
    "4.2",
    "your client counts for itself, wherever it runs.",
    cases=[
        Case(
            [call[:3] for call in CALLS],
            shown=said([call[:3] for call in CALLS]),
            gives={
                f"message {i}, {kind} to node {node}: calls in metrics": calls
                for i, (node, kind, _, calls) in enumerate(CALLS, start=1)
            },
        )
    ],
    draw=random_calls,
    play=play_count,
    oracle=count,
    mistakes="""
        this is kept outside context.state, in a global, an attribute or a
        default value: on the next message it is gone, or holds what another
        node has left
            own.state.get("past", {"keys": []})["keys"] -> vars(count).get("past", [])
            & calls, size = -> count.past = past; calls, size =
        context.state is still empty when the calls are over: it is the only
        place where a node finds again what it has put there
            own.state["past"] = -> _ =
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
        this is the round: a node does not take part in every round, so count
        the messages that came
            past.count(key) -> _n
        this counts within a round, and begins anew with the next: count over
        the whole run
            message_type -> message_type + f" {_n}"
        this counts rounds: a node may be asked twice in a round
            message_type -> message_type + f" {_n}"
            & past.count(key) -> len({k for k in past if k[:6] == key[:6]})
        each message is counted twice
            past.count(key) -> 2 * past.count(key)
        the count begins anew after a message of another type: keep the numbers
        of the other types, too
            past.count(key) -> len([*takewhile(lambda k: k == key, past[::-1])])
        the count begins anew with each message: ask whether there is a number
        in context.state, and add to it
            past.count(key) -> 1
        this counts the last few messages only: count over the whole run
            "keys": past -> "keys": past[-2:]
            past.count(key) -> min(past.count(key), 2)
            "keys": past -> "keys": past[-3:]
            past.count(key) -> min(past.count(key), 3)
            "keys": past -> "keys": past[-5:]
            past.count(key) -> min(past.count(key), 5)
            "keys": past -> "keys": past[-10:]
            past.count(key) -> min(past.count(key), 10)
        num-examples should be 1, whatever the count
            , 1 -> , past.count(key)
    """,
    otherwise=ONE_RECORD
    | {
        "calls in metrics": "calls should be how many messages of this type this node "
        "got",
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
        body = np.array([self.round, self.node], dtype=np.float32)
        return ArrayRecord({"body": Array(body), "head": Array(np.ones(1))})

    @property
    def label(self) -> str:
        """What a learner should read on the test."""
        result = "test fails" if self.accuracy is None else f"accuracy {self.accuracy}"
        return f"node {self.node}, round {self.round}, {result}"


@in_turn
def play_best(
    fresh: Callable, nodes: list[Node], tests: list[Test]
) -> Iterator[tuple[str, Any]]:
    """Yield what each reply says, and what it leaves in ``context.state``."""

    def tested(arrays: ArrayRecord) -> Test | None:
        return next((test for test in tests if test.arrays == arrays), None)

    def test_fn(arrays: ArrayRecord) -> tuple[float, float]:
        if not isinstance(arrays, ArrayRecord):
            raise TypeError(
                'test_fn takes an ArrayRecord, such as message.content["arrays"], '
                f"not a {type(arrays).__name__}"
            )
        if (test := tested(arrays)) is None:
            raise ValueError("test_fn was given arrays that no message has brought")
        if test.accuracy is None:
            raise MemoryError("the test of these arrays fails")
        return test.loss, test.accuracy

    for test in tests:
        config = ConfigRecord({"server-round": test.round})
        content = RecordDict({"arrays": test.arrays, "config": config})
        node = nodes[test.node]
        try:
            reply = node.ask(fresh(), content, "evaluate", test_fn, 30 + test.round)
        except Wrong:
            if test.accuracy is not None:
                raise
        if test.accuracy is not None:
            for name, value in content_facts(reply):
                yield f"{test.label}: {name}", value
        kept = node.context.state.get("best")
        others = len(set(node.context.state.array_records) - {"best"})
        kind = type(kept).__name__ if kept else "missing"
        yield f"{test.label}: records of arrays", {"best": kind, "others": others}
        if isinstance(kept, ArrayRecord):
            best = tested(kept)
            yield f"{test.label}: the arrays kept", best.label if best else sorted(kept)


def keep(message: Message, own: Context, test_fn: Callable, size: int) -> Message:
    """Keep numbers and arrays side by side: the oracle."""
    arrays, state, n = message.content["arrays"], own.state, 0
    loss, acc = test_fn(arrays)
    past = [*state["top"]["of"]] if "top" in state else None
    this = [acc, message.content["config"]["server-round"], loss, n]
    top = past
    if top is None or acc > top[0]:
        top = this
        put(state, best=arrays)
    state["top"] = MetricRecord({"of": [float(value) for value in top]})
    best, best_round = top[:2]
    metrics = {"eval-accuracy": acc, "best-accuracy": best, "best-round": best_round}
    return reply(message, metrics | {"num-examples": size})


def put(state: RecordDict, **records: Any) -> None:
    """Put records into a state, in place of its best arrays."""
    state.pop("best", None)  # of another kind, it would be replaced with a warning
    state.update(records)


def random_tests(rng: random.Random) -> Case:
    """Draw tests of three nodes, with ties."""
    rounds = sorted(rng.sample(range(1, 50), 12))
    return tests_of(
        Test(rng.randrange(3), n, rng.randint(0, 8) / 8, rng.randint(1, 999) / 64)
        for n in rounds
    )


def tests_of(tests: Iterable[Test], **gives: Any) -> Case:
    """Make a case of tests."""
    tests = list(tests)
    shown: dict[str, dict] = {}
    for test in tests:
        result = "fails" if test.accuracy is None else test.accuracy
        shown.setdefault(f"node {test.node}", {})[test.round] = result
    return Case(tests, shown={"accuracy by round": shown}, **gives)


TESTS = [
    Test(0, 2, 0.5, 1.0, (0.5, 2)),
    Test(1, 2, 0.0, 3.0, (0.0, 2)),  # nothing right, and the best so far
    Test(0, 3, 0.75, 1.5, (0.75, 3)),  # the best, and not the lowest loss
    Test(0, 4, None, 0.0),
    Test(0, 5, 0.375, 0.5, (0.75, 3)),
    Test(1, 5, 0.25, 2.0, (0.25, 5)),
    Test(0, 8, 0.75, 0.25, (0.75, 3)),  # a tie, at a lower loss
    Test(1, 8, 0.125, 2.5, (0.25, 5)),
    Test(0, 9, 0.875, 2.0, (0.875, 9)),
]
KEEP = Exercise(
    "4.3",
    "your client remembers the best model that it was ever sent.",
    cases=[
        tests_of(
            TESTS,
            gives={
                f"{test.label}: {name} in metrics": value
                for test in TESTS
                if test.best
                for name, value in zip(
                    ("best-accuracy", "best-round"), test.best, strict=True
                )
            },
        )
    ],
    draw=random_tests,
    play=play_best,
    oracle=keep,
    mistakes="""
        this is kept outside context.state, in a global, an attribute or a
        default value: on the next message it is gone, or holds what another
        node has left
            own.state, 0 -> vars(keep).setdefault('states', RecordDict()), 0
        context.state is still empty when the calls are over: it is the only
        place where a node finds again what it has put there
            return reply( -> state.clear(); return reply(
        test first, and change context.state afterwards: if test_fn raises, what
        is kept must still be the best
            loss, acc -> old = state.get("best"); put(state, best=arrays); loss, acc
            & top[:2] -> top[:2]; put(state, best=arrays if top is this else old)
        a node's first accuracy is the best so far, even if it is 0.0: ask
        whether there is a best yet, instead of beginning with 0
            top = past -> top = past or [0.0, 0]
            top = past -> top = past or [0.0, this[1]]
            top = past -> top = past if past or acc else state["best"]
        test_fn returns the loss first, then the accuracy
            loss, acc -> acc, loss
        this is the accuracy and the round of the message that has just come:
        the best stays the best when a later round is worse
            acc > top[0] -> True
            = top[:2] -> = this[:2]
        this is the best by loss: the highest accuracy was asked for
            acc > top[0] -> loss < top[2]
        where a round only equals the best so far, the earlier one stays the
        best
            acc > top[0] -> acc >= top[0]
        this is the lowest accuracy so far: the highest was asked for
            acc > top[0] -> acc < top[0]
        this is the first round's accuracy, in every round: put what is better
        in its place
            acc > top[0] -> False
        this is the best of the rounds before: the message that has just come
        counts, too
            = top[:2] -> = (past or this)[:2]
        this compares with the first accuracy only: put what is better into
        context.state
            in top] -> in past or top]
        eval-accuracy is about the arrays that have just come: the best has a
        metric of its own
            "eval-accuracy": acc -> "eval-accuracy": best
        best-round is the round of the best accuracy, not always the present one
            = top[:2] -> = top[0], this[1]
        best-accuracy is the one that has just come, though best-round is right:
        keep the best
            = top[:2] -> = this[0], top[1]
        best-round is the server-round in the message's config: a node does not
        take part in every round, so counting messages gives another number
            own.state, 0 -> own.state, int(own.state.get("n", {"n": -1})["n"] + 1)
            & loss, acc -> state["n"] = MetricRecord({"n": n}); loss, acc
            & = top[:2] -> = top[0], top[3] + 1
        best-round is the server-round in the message's config, not the place in
        a list
            own.state, 0 -> own.state, int(own.state.get("n", {"n": -1})["n"] + 1)
            & loss, acc -> state["n"] = MetricRecord({"n": n}); loss, acc
            & = top[:2] -> = top[0], top[3]
        these are the arrays that came last: replace them only by better ones
            return reply( -> put(state, best=arrays); return reply(
        these are the first arrays, in every round: put better ones in their
        place
            put(state, best=arrays) -> put(state, best=state.get("best", arrays))
        the arrays kept are replaced where a round only equals the best: the
        earlier one stays the best
            return reply( -> acc == top[0] and put(state, best=arrays); return reply(
        context.state keeps more arrays than the best ones: each model that a
        node keeps takes memory for the whole run
            best=arrays -> best=arrays, more=arrays
        the arrays are in context.state by another name: name them "best"
            best=arrays -> model=arrays
        there is no record "best" in context.state when the call is over: the
        best arrays go there, and what is kept elsewhere is forgotten
            put(state, best=arrays) ->
        the record "best" in context.state should be an ArrayRecord
            best=arrays -> best=MetricRecord({"accuracy": acc})
            best=arrays -> best=MetricRecord({"accuracy": acc}), more=arrays
    """,
    otherwise=ONE_RECORD
    | {
        "eval-accuracy in metrics": "eval-accuracy should be that of the message's "
        "arrays, as one number",
        "best-accuracy in metrics": "best-accuracy should be the highest so far",
        "best-round in metrics": "best-round should be that of the highest accuracy so "
        "far",
        "num-examples in metrics": "num-examples should be the number that was handed "
        "over",
        "records of arrays": 'context.state["best"] should be an ArrayRecord, and the '
        "only one in it",
        "the arrays kept": "the arrays in context.state should be those of the best "
        "round, all of them, by the names with which they came",
    },
)
