"""Judges of lesson 04's exercises."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
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

from course_utils.exercises import Attempt, Wrong, close, exercise, require_kind
from course_utils.exercises.messages import (
    Node,
    context,
    fresh_copies,
    instruction,
    numpy_of,
    require_keys,
    require_only,
    require_records,
)

OUTSIDE = (
    "this is kept outside context.state, in a global, an attribute or a default value: "
    "on the next message it is gone, or holds what another node has left"
)
NOTHING_KEPT = (
    "context.state is still empty when the calls are over: it is the only place where "
    "a node finds again what it has put there"
)

# ---------------------------------------------------------------------- 4.1 lr_to_use


@dataclass(frozen=True)
class Rates:
    """Where a learning rate may stand: in a message, in the run, at the node."""

    sent: dict[str, Any] | None
    run: float
    node: float

    def right(self) -> float:
        """Return the one that applies."""
        return {"lr": self.run, **(self.sent or {})}["lr"]

    def given(self) -> dict[str, Any]:
        """Say what the learner should read as the input."""
        return {
            "message's config": "none" if self.sent is None else self.sent,
            "run_config": {"lr": self.run, "local-epochs": 1},
            "node_config's lr": self.node,
        }

    def message(self) -> Message:
        """Make the message."""
        records = {} if self.sent is None else {"config": ConfigRecord(self.sent)}
        return instruction(RecordDict(records))

    def context(self) -> Context:
        """Make the node's Context."""
        made = context(0, 1, {"lr": self.run, "local-epochs": 1})
        made.node_config["lr"] = self.node
        return made


def random_rates(rng: random.Random) -> Rates:
    """Draw three different learning rates."""
    sent, run, node = (n / 1000 for n in rng.sample(range(1, 1000), 3))
    config = {"server-round": rng.randint(1, 9)}
    return Rates(rng.choice([None, config, {**config, "lr": sent}]), run, node)


@exercise("4.1", "your client uses the learning rate that the server means.")
def judge_lr_to_use(answer: Attempt, rng: random.Random) -> None:
    """Ask with a learning rate at every place."""
    cases = [
        Rates({"lr": 0.25, "server-round": 2}, run=0.5, node=0.0625),
        Rates({"server-round": 3, "local-epochs": 2}, run=0.5, node=0.0625),
        Rates(None, run=0.5, node=0.0625),
        Rates({"lr": 0.75}, run=0.5, node=0.875),
        Rates({"server-round": 1, "lr": 0.0}, run=0.5, node=0.0625),
        *(random_rates(rng) for _ in range(5)),
    ]
    for case in cases:
        got = lr_from(answer, case)
        if not close(got, case.right()):
            require_kind(got, case.right())
            if isinstance(got, list | tuple):
                raise Wrong("your function should return one number", got=got)
            raise Wrong(
                wrong_rate(answer, got, case),
                given=case.given(),
                expected=case.right(),
                got=got,
            )


def lr_from(answer: Attempt, case: Rates) -> Any:
    """Call the answer, and say in plain words what it raises."""
    try:
        return answer(case.message(), case.context())
    except Wrong as wrong:
        sentence = str(wrong)
    if "changed what it was given" in sentence:
        sentence = "your function changed a config or the Context: only read them"
    elif case.sent is None and ("KeyError: 'config'" in sentence or "None" in sentence):
        sentence = (
            'a message need not have a config: ask whether "config" is in '
            "message.content, before you read it"
        )
    elif "KeyError: 'lr'" in sentence and "lr" not in (case.sent or {}):
        sentence = (
            'the server need not send an lr: ask whether "lr" is in the message\'s '
            "config, before you read it"
        )
    raise Wrong(sentence, given=case.given())


def wrong_rate(answer: Attempt, got: Any, case: Rates) -> str:
    """Name what is wrong with a learning rate."""
    sent = (case.sent or {}).get("lr")
    if sent == 0.0 and close(got, case.run):
        return (
            "the server sent 0.0, and that is a learning rate, too: ask whether there "
            "is an lr, not whether it is true"
        )
    if close(got, case.run):
        return (
            "this is the run config's lr, and the server has sent another with the "
            "message: that one comes first"
        )
    if close(got, case.node):
        return (
            "this is the node config's lr: it was not asked for, look into the "
            "message's config and then into the run config"
        )
    if sent is not None and close(got, sent * case.run):
        return "the message's lr is not a factor: it is to be used as it is"
    changed = {"lr": sent + 1} if sent is not None else case.sent
    if close(lr_from(answer, Rates(changed, case.run + 1, case.node + 1)), got):
        return (
            "with other configs this is the same number: read it from the message's "
            "config, or else from context.run_config"
        )
    return "the result should be the message's lr, or else the run config's"


# -------------------------------------------------------------------- 4.2 count_calls

Call = tuple[int, str, int]
"""Which node, type of message, round."""

CALLS_BY_HAND = [
    (0, "train", 2),
    (1, "train", 2),
    (0, "train", 4),
    (0, "evaluate", 4),
    (0, "evaluate", 4),  # asked twice in a round
    (0, "train", 5),
    (1, "evaluate", 5),
    (1, "query", 5),
    (0, "train.head", 6),
]


def random_calls(rng: random.Random) -> list[Call]:
    """Draw messages of ten rounds."""
    types = ["train", "evaluate", "query", "train.head"]
    return [(rng.randrange(3), rng.choice(types), i + 1) for i in range(10)]


def running(calls: list[Call], key: Callable[[Call], Any]) -> list[int]:
    """Count the calls so far that share a call's key, it included."""
    seen: Counter = Counter()
    counts = []
    for call in calls:
        seen[key(call)] += 1
        counts.append(seen[key(call)])
    return counts


def calls_so_far(calls: list[Call]) -> list[int]:
    """Return the right answers: of one node's calls, those of one type."""
    return [
        sum(before[:2] == call[:2] for before in calls[: i + 1])
        for i, call in enumerate(calls)
    ]


def rounds_so_far(calls: list[Call]) -> list[int]:
    """Count rounds in place of messages."""
    return [
        len({before[2] for before in calls[: i + 1] if before[:2] == call[:2]})
        for i, call in enumerate(calls)
    ]


def streaks(calls: list[Call]) -> list[int]:
    """Count at each node since its last message of another type."""
    counts = []
    for i, (node, kind, _) in enumerate(calls):
        own = [before[1] for before in calls[: i + 1] if before[0] == node]
        counts.append(len(list(takewhile(lambda other, k=kind: other == k, own[::-1]))))
    return counts


COUNT_MISTAKES = {
    "a named action is of another type: train.head does not count as train": (
        lambda calls: running(calls, lambda call: (call[0], call[1].split(".")[0]))
    ),
    "this counts messages of all types together: keep a number for each type": (
        lambda calls: running(calls, lambda call: call[0])
    ),
    "the message that has just come counts, too: the first is number 1": (
        lambda calls: [n - 1 for n in calls_so_far(calls)]
    ),
    "this is the round: a node does not take part in every round, so count the "
    "messages that came": lambda calls: [call[2] for call in calls],
    "this counts within a round, and begins anew with the next: count over the whole "
    "run": lambda calls: running(calls, lambda call: call),
    "this counts rounds: a node may be asked twice in a round": rounds_so_far,
    "each message is counted twice": (
        lambda calls: [2 * n for n in calls_so_far(calls)]
    ),
    "the count begins anew after a message of another type: keep the numbers of the "
    "other types, too": streaks,
    "the count begins anew with each message: ask whether there is a number in "
    "context.state, and add to it": lambda calls: [1] * len(calls),
}


@exercise("4.2", "your client counts for itself, wherever it runs.")
def judge_count_calls(answer: Attempt, rng: random.Random) -> None:
    """Let nodes be asked in turn, each time by a fresh copy of the answer."""
    fresh = fresh_copies(answer.function)
    # The second time is a new run of the same nodes.
    cases = [CALLS_BY_HAND, CALLS_BY_HAND, *(random_calls(rng) for _ in range(3))]
    for calls in cases:
        got, states = count_at(fresh, calls)
        expected = calls_so_far(calls)
        if close(got, expected):
            continue
        if keeps_outside(fresh, count_at, [(0, "train", i + 1) for i in range(3)]):
            sentence = OUTSIDE
        elif not any(states):
            sentence = NOTHING_KEPT
        else:
            sentence = named(
                got, expected, {k: make(calls) for k, make in COUNT_MISTAKES.items()}
            )
        raise Wrong(
            sentence or "calls should be how many messages of this type this node got",
            given=said(calls),
            expected=expected,
            got=got,
        )


def count_at(
    fresh: Callable[[], Callable], calls: list[Call]
) -> tuple[list[Any], list[RecordDict]]:
    """Send the messages, and return what replies say and what nodes keep."""
    nodes = [Node(i, 3) for i in range(3)]
    counts = []
    for i, (node, kind, server_round) in enumerate(calls):
        config = ConfigRecord({"server-round": server_round})
        given = said(calls[: i + 1])
        try:
            content = nodes[node].ask(
                fresh(), RecordDict({"config": config}), kind, given=given
            )
        except Wrong as wrong:
            if f"raised KeyError: {kind!r}" not in str(wrong):
                raise
            raise Wrong(
                f"there is no number for messages of type {kind!r} yet: a type that "
                "this node has not had before counts from 0",
                given=given,
            ) from None
        metrics = metrics_of(content, {"calls", "num-examples"}, given)
        if not close(metrics["num-examples"], 1):
            raise Wrong(
                "num-examples should be 1, whatever the count",
                given=given,
                got=metrics,
            )
        counts.append(metrics["calls"])
    return counts, [node.context.state for node in nodes]


def said(calls: list[Call]) -> str:
    """Say which messages were sent."""
    return ", ".join(f"{kind} to node {node}" for node, kind, _ in calls)


def metrics_of(
    content: RecordDict, wanted: set[str], given: Any
) -> dict[str, int | float]:
    """Return a reply's metrics, if they are what was asked for and nothing else."""
    extra = (
        'the reply holds more than "metrics": what a node keeps for itself stays in '
        "context.state"
    )
    require_records(content, {"metrics": MetricRecord}, extra, given)
    require_keys(content["metrics"], wanted, given)
    require_only(content["metrics"], wanted, given)
    return dict(content["metrics"])


def keeps_outside(
    fresh: Callable[[], Callable], play: Callable, messages: list[Any]
) -> bool:
    """Whether an answer replies otherwise if the same process handles all messages."""
    one = fresh()
    results = []
    for function in (fresh, lambda: one):
        try:
            results.append(play(function, messages)[0])
        except Wrong as wrong:
            results.append(str(wrong))
    return repr(results[0]) != repr(results[1])  # NaN is itself here


def named(got: Any, expected: Any, mistakes: dict[str, Any]) -> str:
    """Return the sentence of the mistake that was made, if it has one."""
    for sentence, made in mistakes.items():
        if not close(made, expected) and close(got, made):
            return sentence
    return ""


# ---------------------------------------------------------------------- 4.3 keep_best


@dataclass(frozen=True)
class Test:
    """An evaluate message to a node, and what testing its arrays gives."""

    node: int
    round: int
    accuracy: float
    loss: float
    arrays: dict[str, np.ndarray]
    num_examples: int


Report = tuple[float, float, int]
"""What a reply says: eval-accuracy, best-accuracy, best-round."""


def tests_by_hand() -> list[Test]:
    """Return tests of two nodes in turn, which tell mistakes apart."""
    rows = [
        (0, 2, 0.5, 1.0),
        (1, 2, 0.0, 3.0),  # nothing right, and the best so far
        (0, 3, 0.75, 1.5),  # the best, and not the lowest loss
        (0, 5, 0.375, 0.5),
        (1, 5, 0.25, 2.0),
        (0, 8, 0.75, 0.25),  # a tie, at a lower loss
        (1, 8, 0.125, 2.5),
        (0, 9, 0.875, 2.0),
    ]
    return [
        Test(*row, {"body": np.full((2, 2), i, np.float32), "head": np.ones(1)}, 40)
        for i, row in enumerate(rows, start=1)
    ]


def random_tests(rng: random.Random) -> list[Test]:
    """Draw tests of three nodes, with ties."""
    values = np.random.default_rng(rng.getrandbits(32))
    return [
        Test(
            rng.randrange(3),
            server_round,
            rng.randint(0, 8) / 8,
            rng.randint(1, 999) / 64,
            {name: values.normal(size=(3, 2)) for name in ("weight", "bias")},
            rng.randint(1, 99),
        )
        for server_round in sorted(rng.sample(range(1, 50), 12))
    ]


def best_of(tests: list[Test]) -> list[Test]:
    """Return for each test of one node the best up to it, the earliest if several."""
    return [
        sorted(tests[: i + 1], key=lambda test: (-test.accuracy, test.round))[0]
        for i in range(len(tests))
    ]


def reports(tests: list[Test], best: list[Test]) -> list[Report]:
    """Return what to say if these are the best."""
    return [
        (test.accuracy, kept.accuracy, kept.round)
        for test, kept in zip(tests, best, strict=True)
    ]


def up_to(tests: list[Test], pick: Callable[[list[Test]], Test]) -> list[Test]:
    """Pick one of the tests up to each of them."""
    return [pick(tests[: i + 1]) for i in range(len(tests))]


def best_mistakes(tests: list[Test]) -> dict[str, list]:
    """Return what mistakes make of one node's tests, by the sentence on each."""
    best = best_of(tests)
    right = reports(tests, best)
    lowest_loss = up_to(tests, lambda past: min(past, key=lambda t: t.loss))
    latest = up_to(tests, lambda past: max(past, key=lambda t: (t.accuracy, t.round)))
    worst = up_to(tests, lambda past: min(past, key=lambda t: t.accuracy))
    before = up_to(tests, lambda past: best_of(past[:-1] or past)[-1])
    better_than_first = up_to(tests, lambda past: best_of([past[0], past[-1]])[-1])
    rounds = [test.round for test in tests]
    number = {server_round: i for i, server_round in enumerate(rounds)}
    return {
        "this is the accuracy and the round of the message that has just come: the "
        "best stays the best when a later round is worse": reports(tests, tests),
        "this is the best by loss: the highest accuracy was asked for": (
            reports(tests, lowest_loss)
        ),
        "test_fn returns the loss first, then the accuracy": [
            (test.loss, kept.loss, kept.round)
            for test, kept in zip(
                tests, up_to(tests, lambda p: max(p, key=lambda t: t.loss)), strict=True
            )
        ],
        "where a round only equals the best so far, the earlier one stays the best": (
            reports(tests, latest)
        ),
        "this is the lowest accuracy so far: the highest was asked for": (
            reports(tests, worst)
        ),
        "this is the best of the rounds before: the message that has just come counts, "
        "too": reports(tests, before),
        "this is the first round's accuracy, in every round: put what is better in its "
        "place": reports(tests, [tests[0]] * len(tests)),
        "this compares with the first accuracy only: put what is better into "
        "context.state": reports(tests, better_than_first),
        "eval-accuracy is about the arrays that have just come: the best has a metric "
        "of its own": [(b, b, r) for _, b, r in right],
        "best-round is the round of the best accuracy, not always the present one": [
            (a, b, r) for (a, b, _), r in zip(right, rounds, strict=True)
        ],
        "best-round is the first round, in every round: it changes with the best "
        "accuracy": [(a, b, rounds[0]) for a, b, _ in right],
        "best-accuracy is the one that has just come, though best-round is right: keep "
        "the best": [(a, a, r) for a, _, r in right],
        "best-round is the server-round in the message's config: a node does not take "
        "part in every round, so counting messages gives another number": [
            (a, b, number[r] + 1) for a, b, r in right
        ],
        "best-round is the server-round in the message's config, not the place in a "
        "list": [(a, b, number[r]) for a, b, r in right],
    }


@exercise("4.3", "your client remembers the best model that it was ever sent.")
def judge_keep_best(answer: Attempt, rng: random.Random) -> None:
    """Let nodes test arrays in turn, each time by a fresh copy of the answer."""
    fresh = fresh_copies(answer.function)
    # The second time is a new run of the same nodes.
    by_hand = tests_by_hand()
    cases = [by_hand, by_hand, *(random_tests(rng) for _ in range(3))]
    for tests in cases:
        got, states = test_at(fresh, tests)
        for node in sorted({test.node for test in tests}):
            own = [i for i, test in enumerate(tests) if test.node == node]
            at_node = [tests[i] for i in own]
            wrong = wrong_reports(at_node, [got[i] for i in own])
            if wrong and keeps_outside(fresh, test_at, at_node):
                wrong = OUTSIDE
            elif wrong and not any(states):
                wrong = NOTHING_KEPT
            if wrong:
                raise Wrong(
                    wrong,
                    given=tests_said(at_node),
                    expected=shown(reports(at_node, best_of(at_node))),
                    got=shown([got[i] for i in own]),
                )
            require_best(at_node, [states[i] for i in own])


def test_at(
    fresh: Callable[[], Callable], tests: list[Test]
) -> tuple[list[Report], list[RecordDict]]:
    """Have all tests made, and return what replies say and what nodes keep."""
    nodes = {test.node: Node(test.node, 3) for test in tests}
    got, states = [], []
    for i, test in enumerate(tests):
        past = [other for other in tests[: i + 1] if other.node == test.node]
        given = tests_said(past)
        try:
            content = nodes[test.node].ask(
                fresh(),
                evaluate_content(test),
                "evaluate",
                tester(tests),
                test.num_examples,
                given=given,
            )
        except Wrong:
            if i == 0 or len(past) > 1 or test.accuracy > 0:
                raise
            raise Wrong(FIRST_IS_BEST, given=given) from None
        wanted = {"eval-accuracy", "best-accuracy", "best-round", "num-examples"}
        metrics = metrics_of(content, wanted, given)
        if not close(metrics["num-examples"], test.num_examples):
            raise Wrong(
                "num-examples should be the number that was handed over",
                given=f"num_examples = {test.num_examples}",
                got=metrics,
            )
        got.append(
            (metrics["eval-accuracy"], metrics["best-accuracy"], metrics["best-round"])
        )
        states.append(nodes[test.node].context.state)
    return got, states


FIRST_IS_BEST = (
    "a node's first accuracy is the best so far, even if it is 0.0: ask whether there "
    "is a best yet, instead of beginning with 0"
)


def evaluate_content(test: Test) -> RecordDict:
    """Make the content of an evaluate message."""
    arrays = {name: Array(array) for name, array in test.arrays.items()}
    config = ConfigRecord({"server-round": test.round})
    return RecordDict({"arrays": ArrayRecord(arrays), "config": config})


def tester(tests: list[Test]) -> Callable[[ArrayRecord], tuple[float, float]]:
    """Make a ``test_fn`` that knows what these tests give."""

    def test_fn(arrays: ArrayRecord) -> tuple[float, float]:
        if not isinstance(arrays, ArrayRecord):
            raise TypeError(
                'test_fn takes an ArrayRecord, such as message.content["arrays"], '
                f"not a {type(arrays).__name__}"
            )
        for test in tests:
            if close(numpy_of(arrays), test.arrays):
                return test.loss, test.accuracy
        raise ValueError("test_fn was given arrays that no message has brought")

    return test_fn


def tests_said(tests: list[Test]) -> dict[str, list]:
    """Say what one node was sent."""
    return {
        "rounds": [test.round for test in tests],
        "accuracies": [test.accuracy for test in tests],
        "losses": [test.loss for test in tests],
    }


def shown(got: list[Report]) -> dict[str, list]:
    """Return reports in a form that is short to read."""
    evals, best, rounds = (list(column) for column in zip(*got, strict=True))
    return {"eval-accuracy": evals, "best-accuracy": best, "best-round": rounds}


def wrong_reports(tests: list[Test], got: list[Report]) -> str:
    """Name what is wrong with one node's replies, or return nothing if all is right."""
    expected = reports(tests, best_of(tests))
    if close(got, expected):
        return ""
    right = [close(a, b) for a, b in zip(got, expected, strict=True)]
    if tests[0].accuracy == 0.0 and not right[0] and any(right):
        return FIRST_IS_BEST
    return named(got, expected, best_mistakes(tests)) or (
        "each reply should say the accuracy of the arrays that came with the message, "
        "the highest so far, and the round of that one"
    )


def require_best(tests: list[Test], states: list[RecordDict]) -> None:
    """Raise Wrong unless a node has kept its best arrays, after each test."""
    given = tests_said(tests)
    for state in states:
        kinds = {name: type(record).__name__ for name, record in state.items()}
        if isinstance(state.get("best"), ArrayRecord):
            continue
        if "best" in state:
            sentence = 'the record "best" in context.state should be an ArrayRecord'
        elif state.array_records:
            (name, *_) = state.array_records
            sentence = f'the arrays are in context.state as {name!r}: name them "best"'
        else:
            sentence = (
                'there is no record "best" in context.state when the call is over: the '
                "best arrays go there, and what is kept elsewhere is forgotten"
            )
        raise Wrong(sentence, given=given, got={"context.state": kinds})
    require_best_arrays(tests, [numpy_of(state["best"]) for state in states])
    names = list(states[-1].array_records)
    if len(names) > 1:
        raise Wrong(
            "context.state keeps more arrays than the best ones: each model that a "
            "node keeps takes memory for the whole run",
            given=given,
            got=names,
        )


def require_best_arrays(tests: list[Test], got: list[dict]) -> None:
    """Raise Wrong, by name, unless the arrays kept are those of the best tests."""
    best = [test.arrays for test in best_of(tests)]
    if close(got, best):
        return
    mistakes = {
        "these are the arrays that came last: replace them only by better ones": tests,
        "these are the first arrays, in every round: put better ones in their place": (
            [tests[0]] * len(tests)
        ),
        "the arrays kept are replaced where a round only equals the best: the earlier "
        "one stays the best": (
            up_to(tests, lambda past: max(past, key=lambda t: (t.accuracy, t.round)))
        ),
        "the arrays kept are the best by loss: the highest accuracy was asked for": (
            up_to(tests, lambda past: min(past, key=lambda t: t.loss))
        ),
    }
    sentence = named(
        got, best, {k: [test.arrays for test in v] for k, v in mistakes.items()}
    )
    wrong = next(
        i for i, (a, b) in enumerate(zip(got, best, strict=True)) if not close(a, b)
    )
    raise Wrong(
        sentence
        or "the arrays in context.state should be those of the best round, "
        "all of them, by the names with which they came",
        given=tests_said(tests[: wrong + 1]),
        expected=best[wrong],
        got=got[wrong],
    )
