"""Lesson 04's exercises."""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import takewhile
from types import SimpleNamespace
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

from course_utils.exercises.engine import Attempt, Case, Exercise, Wrong, slips
from course_utils.exercises.messages import (
    Node,
    context,
    fresh_copies,
    instruction,
    reply_facts,
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


def found(message: Message) -> list:
    """Return all records of a message."""
    return list(message.content.values())


def rate(
    message: Message,
    own: Context,
    *,
    config: Callable = lambda message: message.content.get("config", {}),
    there: Callable = lambda config: "lr" in config,
    sent: Callable = lambda lr, run: lr,
    otherwise: Callable = lambda own: own.run_config["lr"],
) -> float:
    """Do the exercise, perhaps with a slip."""
    found = config(message)
    return sent(found["lr"], own.run_config["lr"]) if there(found) else otherwise(own)


USUAL = [lambda *args, lr=lr: lr for lr in (0.0, 0.001, 0.01, 0.1, 1.0)]
"""What learners write down where a learning rate should be read."""

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
    mistakes=slips(
        rate,
        there={
            "the server sent 0.0, and that is a learning rate, too: ask whether there "
            "is an lr, not whether it is true": lambda config: config.get("lr"),
            'the server need not send an lr: ask whether "lr" is in the message\'s '
            "config, before you read it": lambda config: True,
        },
        sent={
            "this is the run config's lr, and the server has sent another with the "
            "message: that one comes first": [lambda lr, run: run, max],
            "the message's lr is not a factor: it is to be used as it is": (
                lambda lr, run: lr * run
            ),
        },
        config={
            'a message need not have a config: ask whether "config" is in '
            "message.content, before you read it": [
                lambda message: message.content["config"],
                lambda message: message.content.get("config"),
                lambda message: message.content.get("config").get and found(message)[0],
            ],
            'this lr stands in another record than "config": it is not asked for': [
                lambda message: {k: v for c in found(message) for k, v in c.items()},
                lambda message: next((c for c in found(message) if "lr" in c), {}),
            ],
        },
        otherwise={
            "this is the node config's lr: it was not asked for, look into the "
            "message's config and then into the run config": (
                lambda own: own.node_config["lr"]
            ),
            "this number stands in your function: read the run config's lr from "
            "context.run_config": USUAL,
        },
    )
    | {
        "this number stands in your function: read the message's lr": USUAL,
        "your function changed a config or the Context: only read them": [
            lambda message, own: own.run_config.update(lr=0.25) or 0.25,
            lambda message, own: (
                own.run_config.update(message.content.get("config", {})) or 0.25
            ),
        ],
    },
    otherwise="the result should be the message's lr, or else the run config's",
)

# ------------------------------------------------------ messages to nodes, one by one

OUTSIDE = (
    "this is kept outside context.state, in a global, an attribute or a default value: "
    "on the next message it is gone, or holds what another node has left"
)
NOTHING_KEPT = (
    "context.state is still empty when the calls are over: it is the only place where "
    "a node finds again what it has put there"
)


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


def round_of(message: Message) -> int:
    """Return a message's round."""
    return message.content["config"]["server-round"]


# -------------------------------------------------------------------- 4.2 count_calls

Call = tuple[int, str, int]
"""Which node, type of message, round."""


@in_turn
def play_count(
    fresh: Callable, nodes: list[Node], calls: list[Call]
) -> Iterator[tuple[str, Any]]:
    """Yield what each reply says."""
    for i, (node, kind, server_round) in enumerate(calls, start=1):
        config = ConfigRecord({"server-round": server_round})
        content = nodes[node].ask(fresh(), RecordDict({"config": config}), kind)
        for key, value in reply_facts(content, "calls", "num-examples"):
            yield f"message {i}, {kind} to node {node}: {key}", value


def kind_of(message: Message) -> str:
    """Return a message's type."""
    return message.metadata.message_type


def kind_and_round(message: Message) -> str:
    """Return a message's type and round."""
    return f"{kind_of(message)} {round_of(message)}"


def count(
    message: Message,
    own: Context,
    *,
    key: Callable = kind_of,
    keep: Callable = lambda past: past,
    store: Callable = lambda own, past: own.state.update(past=past),
    says: Callable = lambda calls, do: calls,
    size: Callable = lambda calls: 1,
) -> Message:
    """Do the exercise with all that came, and no counts, perhaps with a slip."""
    past = keep([*own.state.get("past", {"keys": []})["keys"], key(message)])
    store(own, ConfigRecord({"keys": past}))
    calls = says(past.count(key(message)), SimpleNamespace(past=past, message=message))
    return reply(message, {"calls": calls, "num-examples": size(calls)})


def suppose(message: Message, own: Context, *, begin: Callable) -> Message:
    """Suppose that some types are all that ever come."""
    own.state.setdefault("calls", MetricRecord(begin(kind_of(message))))
    own.state["calls"][kind_of(message)] += 1
    calls = own.state["calls"][kind_of(message)]
    return reply(message, {"calls": calls, "num-examples": 1})


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
in_a_global: list[str] = []

COUNT = Exercise(
    "4.2",
    "your client counts for itself, wherever it runs.",
    cases=[
        Case(
            [call[:3] for call in CALLS],
            shown=said([call[:3] for call in CALLS]),
            gives={
                f"message {i}, {kind} to node {node}: calls": calls
                for i, (node, kind, _, calls) in enumerate(CALLS, start=1)
            },
        )
    ],
    draw=random_calls,
    play=play_count,
    oracle=count,
    mistakes=slips(
        count,
        store={NOTHING_KEPT: lambda own, past: None},
        keep={
            OUTSIDE: lambda past: in_a_global.append(past[-1]) or in_a_global[:],
            "the count begins anew after a message of another type: keep the numbers "
            "of the other types, too": lambda past: list(
                takewhile(lambda kind: kind == past[-1], past[::-1])
            ),
            "the count begins anew with each message: ask whether there is a number in "
            "context.state, and add to it": lambda past: past[-1:],
            "this counts the last few messages only: count over the whole run": [
                lambda past, n=n: past[-n:] for n in (2, 3, 5, 10)
            ],
        },
        key={
            "a named action is of another type: train.head does not count as train": (
                lambda message: kind_of(message).split(".")[0]
            ),
            "this counts messages of all types together: keep a number for each type": (
                lambda message: "all"
            ),
            "this counts within a round, and begins anew with the next: count over the "
            "whole run": kind_and_round,
        },
        says={
            "the message that has just come counts, too: the first is number 1": (
                lambda calls, do: calls - 1
            ),
            "each message is counted twice": lambda calls, do: 2 * calls,
            "this is the round: a node does not take part in every round, so count the "
            "messages that came": lambda calls, do: round_of(do.message),
        },
        size={"num-examples should be 1, whatever the count": lambda calls: calls},
    )
    | {
        "this counts rounds: a node may be asked twice in a round": partial(
            count,
            key=kind_and_round,
            says=lambda calls, do: len(
                [k for k in set(do.past) if k.split()[0] == kind_of(do.message)]
            ),
        )
    }
    | slips(
        suppose,
        begin={
            "a type that this node has not had before counts from 0: ask whether there "
            "is a number for it": [
                lambda kind: {kind: 0},
                lambda kind: {"train": 0, "evaluate": 0},
                lambda kind: {"train": 0, "evaluate": 0, "query": 0},
            ]
        },
    ),
    otherwise={
        "calls": "calls should be how many messages of this type this node got",
        "num-examples": "num-examples should be 1, whatever the count",
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
        return f"node {self.node}, round {self.round}, accuracy {self.accuracy}"


SIZE = 40
BEST = "eval-accuracy", "best-accuracy", "best-round", "num-examples"


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
            answer = node.ask(fresh(), content, "evaluate", test_fn, SIZE)
        except Wrong:
            if test.accuracy is not None:
                raise
        if test.accuracy is not None:
            for key, value in reply_facts(answer, *BEST):
                yield f"{test.label}: {key}", value
        kept = node.context.state.get("best")
        others = len(set(node.context.state.array_records) - {"best"})
        kind = type(kept).__name__ if kept else "missing"
        yield f"{test.label}: records of arrays", {"best": kind, "others": others}
        if isinstance(kept, ArrayRecord):
            best = tested(kept)
            yield f"{test.label}: the arrays kept", best.label if best else sorted(kept)


def test_again(message: Message, own: Context, test_fn: Callable, size: int) -> Message:
    """Keep no accuracy, and test the best arrays again each time: the oracle."""
    accuracy = test_fn(message.content["arrays"])[1]
    if "best" not in own.state or accuracy > test_fn(own.state["best"])[1]:
        own.state["best"] = message.content["arrays"]
        own.state["of"] = ConfigRecord({"round": round_of(message)})
    best = test_fn(own.state["best"])[1], own.state["of"]["round"], size
    return reply(message, dict(zip(BEST, (accuracy, *best), strict=True)))


def keep(
    message: Message,
    own: Context,
    test_fn: Callable,
    size: int,
    *,
    first: Callable = lambda do: None,
    tests: Callable = lambda test_fn: test_fn,
    better: Callable = lambda this, top: this["acc"] > top["acc"],
    begin: Callable = lambda this: None,
    now: Callable = lambda do: do.this["acc"],
    best: Callable = lambda do: do.top,
    leaves: Callable = lambda do: None,
) -> Message:
    """Do the exercise with numbers and arrays in the state, perhaps with a slip."""
    do = SimpleNamespace(state=own.state, arrays=message.content["arrays"])
    first(do)
    loss, accuracy = tests(test_fn)(do.arrays)
    past = dict(do.state.get("top", {}))
    n = past.get("n", 0)  # messages so far
    do.this = {"acc": accuracy, "loss": loss, "round": round_of(message), "at": n}
    do.past, do.old = past, do.state.get("best")
    do.top = past or begin(do.this)
    if not do.top or better(do.this, do.top):
        do.top = do.this
        do.state.pop("best", None)  # it may be of another kind, of which Flower warns
        do.state["best"] = do.arrays
    do.state["top"] = MetricRecord(do.top | {"n": n + 1})
    leaves(do)
    values = now(do), best(do)["acc"], best(do)["round"], size
    return reply(message, dict(zip(BEST, values, strict=True)))


def in_place(state: RecordDict, **records: Any) -> None:
    """Put records into a state, in place of the best arrays."""
    state.pop("best", None)
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
        shown.setdefault(f"node {test.node}", {})[test.round] = test.accuracy
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
STATES: dict[int, RecordDict] = {}
"""What nodes keep outside their Contexts."""

KEEP = Exercise(
    "4.3",
    "your client remembers the best model that it was ever sent.",
    cases=[
        tests_of(
            TESTS,
            gives={
                f"{test.label}: {key}": value
                for test in TESTS
                if test.best
                for key, value in zip(
                    BEST, (test.accuracy, *test.best, SIZE), strict=True
                )
            },
        )
    ],
    draw=random_tests,
    play=play_best,
    oracle=test_again,
    mistakes=slips(
        keep,
        first={
            "test first, and change context.state afterwards: if test_fn raises, what "
            "is kept must still be the best": lambda do: in_place(
                do.state, best=do.arrays
            ),
        },
        tests={
            "test_fn returns the loss first, then the accuracy": (
                lambda test_fn: lambda arrays: test_fn(arrays)[::-1]
            )
        },
        begin={
            "a node's first accuracy is the best so far, even if it is 0.0: ask "
            "whether there is a best yet, instead of beginning with 0": [
                lambda this: this | {"acc": 0.0, "round": 0},
                lambda this: this | {"acc": 0.0},
                lambda this: this["acc"] == 0.0 and RecordDict()["best"],
            ]
        },
        better={
            "this is the accuracy and the round of the message that has just come: the "
            "best stays the best when a later round is worse": lambda this, top: True,
            "this is the best by loss: the highest accuracy was asked for": (
                lambda this, top: this["loss"] < top["loss"]
            ),
            "where a round only equals the best so far, the earlier one stays the "
            "best": lambda this, top: this["acc"] >= top["acc"],
            "this is the lowest accuracy so far: the highest was asked for": (
                lambda this, top: this["acc"] < top["acc"]
            ),
            "this is the first round's accuracy, in every round: put what is better in "
            "its place": lambda this, top: False,
        },
        now={
            "eval-accuracy is about the arrays that have just come: the best has a "
            "metric of its own": lambda do: do.top["acc"]
        },
        best={
            "best-accuracy and best-round are those of the message that has just come: "
            "keep the best": lambda do: do.this,
            "this is the best of the rounds before: the message that has just come "
            "counts, too": lambda do: do.past or do.this,
            "best-round is the round of the best accuracy, not always the present "
            "one": lambda do: do.top | {"round": do.this["round"]},
            "best-accuracy is the one that has just come, though best-round is right: "
            "keep the best": lambda do: do.top | {"acc": do.this["acc"]},
            "best-round is the server-round in the message's config: a node does not "
            "take part in every round, so counting messages gives another number": (
                lambda do: do.top | {"round": do.top["at"] + 1}
            ),
            "best-round is the server-round in the message's config, not the place in "
            "a list": lambda do: do.top | {"round": do.top["at"]},
        },
        leaves={
            NOTHING_KEPT: lambda do: do.state.clear(),
            "this compares with the first accuracy only: put what is better into "
            "context.state": lambda do: (
                do.past and do.state.update(top=MetricRecord(do.past))
            ),
            "these are the arrays that came last: replace them only by better ones": (
                lambda do: in_place(do.state, best=do.arrays)
            ),
            "these are the first arrays, in every round: put better ones in their "
            "place": lambda do: in_place(do.state, best=do.old or do.arrays),
            "the arrays kept are replaced where a round only equals the best: the "
            "earlier one stays the best": lambda do: (
                do.this["acc"] == do.top["acc"] and in_place(do.state, best=do.arrays)
            ),
            "context.state keeps more arrays than the best ones: each model that a "
            "node keeps takes memory for the whole run": (
                lambda do: do.state.update(more=do.arrays)
            ),
            'the arrays are in context.state by another name: name them "best"': (
                lambda do: in_place(do.state, model=do.arrays)
            ),
            'there is no record "best" in context.state when the call is over: the '
            "best arrays go there, and what is kept elsewhere is forgotten": (
                lambda do: in_place(do.state)
            ),
            'the record "best" in context.state should be an ArrayRecord': [
                lambda do: in_place(do.state, best=do.state["top"]),
                lambda do: in_place(do.state, best=do.state["top"], more=do.arrays),
            ],
        },
    )
    | {
        OUTSIDE: lambda message, own, *more: keep(
            message,
            Context(0, 0, {}, STATES.setdefault(own.node_id, RecordDict()), {}),
            *more,
        )
    },
    otherwise={
        "best-accuracy": "best-accuracy should be the highest accuracy so far",
        "best-round": "best-round should be the round of the highest accuracy so far",
        "eval-accuracy": "eval-accuracy should be that of the message's arrays",
        "num-examples": "num-examples should be the number that was handed over",
        "records of arrays": 'context.state["best"] should be an ArrayRecord, and the '
        "only one in it",
        "the arrays kept": "the arrays in context.state should be those of the best "
        "round, all of them, by the names with which they came",
    },
)
