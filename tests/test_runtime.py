"""The in-process runtime keeps to what Flower's own runtimes do."""

import logging
import random
import sys
import textwrap
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor

import cloudpickle
import numpy as np
import pytest
import torch
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import message_size_mod
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.exception import InconsistentMessageReplies
from flwr.serverapp.strategy import FedAvg, Strategy
from flwr.serverapp.strategy.strategy_utils import sample_nodes
from tqdm import auto

from course_utils import grid as grid_module
from course_utils import isolation, runtime
from course_utils.grid import ErrorCode
from course_utils.isolation import TaskIdentity
from course_utils.runtime import InProcessGrid, run_in_process

SERVER = runtime.SUPERLINK_NODE_ID
counter = 0
calls: list[int] = []


def records(**metrics) -> RecordDict:
    return RecordDict({"metrics": MetricRecord(metrics)})


def arrays(*values: float) -> ArrayRecord:
    return ArrayRecord([np.array(values, dtype=np.float32)])


def ask(grid: InProcessGrid, content=None, message_type="query", **options):
    """Send one message to every node and return the replies."""
    content = RecordDict() if content is None else content
    nodes = grid.get_node_ids()
    messages = [Message(content, node, message_type) for node in nodes]
    return grid.send_and_receive(messages, **options)


def app_that(answer) -> ClientApp:
    """Make a ClientApp that handles every type of message with one function."""
    app = ClientApp()
    for register in (app.train, app.evaluate, app.query):
        register()(answer)
    return app


def echo(message: Message, context: Context) -> Message:
    return Message(message.content, reply_to=message)


def raising(message: Message, context: Context) -> Message:
    context.state["metrics"] = MetricRecord({"touched": 1})
    raise ZeroDivisionError("division by zero")


# ------------------------------------------------------------------- internals in use


def test_flower_internals_are_where_the_runtime_looks_for_them() -> None:
    assert "min_available_nodes" in sample_nodes.__code__.co_varnames
    names = runtime.signature(Strategy.start).parameters
    assert {"num_rounds", "evaluate_fn"} <= set(names)
    for name in ("_run_id", "_node_id", "_task_id"):
        assert hasattr(TaskIdentity, name), f"TaskIdentity lost {name}"
    grid = InProcessGrid(app_that(echo), 1)
    message = Message(RecordDict(), grid.get_node_ids()[0], "train")
    for name in ("_run_id", "_message_id"):
        assert name in vars(message.metadata), f"Metadata lost {name}"


# -------------------------------------------------------------------------- the copies


def test_a_client_cannot_change_what_the_server_sent() -> None:
    def answer(message, context):
        message.content["metrics"]["values"].append(3.0)
        message.content["arrays"].clear()
        return Message(records(done=1), reply_to=message)

    sent = RecordDict(
        {"metrics": MetricRecord({"values": [1.0]}), "arrays": arrays(1, 2)}
    )
    ask(InProcessGrid(app_that(answer), 2), sent)
    assert sent["metrics"]["values"] == [1.0]
    assert sent["arrays"].to_numpy_ndarrays()[0].tolist() == [1, 2]


def test_nodes_do_not_share_what_they_were_sent() -> None:
    def answer(message, context):
        message.content["metrics"]["values"].append(9.0)
        return Message(message.content, reply_to=message)

    replies = ask(InProcessGrid(app_that(answer), 3), records(values=[1.0]))
    assert [r.content["metrics"]["values"] for r in replies] == [[1.0, 9.0]] * 3


def test_the_server_cannot_change_what_a_client_keeps() -> None:
    def answer(message, context):
        context.state["kept"] = message.content["metrics"]
        return Message(RecordDict({"kept": context.state["kept"]}), reply_to=message)

    grid = InProcessGrid(app_that(answer), 1)
    sent = records(values=[1.0])
    (reply,) = ask(grid, sent)
    sent["metrics"]["values"].append(2.0)
    reply.content["kept"]["values"].append(3.0)
    (context,) = grid.node_contexts.values()
    assert context.state["kept"]["values"] == [1.0]


def test_values_arrive_as_the_wire_carries_them() -> None:
    (reply,) = ask(InProcessGrid(app_that(echo), 1), records(loss=np.float64(0.5)))
    assert type(reply.content["metrics"]["loss"]) is float


def test_a_value_that_no_wire_carries_is_refused() -> None:
    with pytest.raises(ValueError, match="out of range"):
        ask(InProcessGrid(app_that(echo), 1), records(huge=2**80))


DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


class Odd(torch.Tensor):
    """A subclass, which torch pickles in its own way."""


def copy_of(data):
    """Return what a ClientApp finds in place of ``data``, which it uses."""
    app = app_that(lambda message, context: data)
    grid = InProcessGrid(app, 1)  # so that messages can be made
    message = Message(RecordDict(), grid.get_node_ids()[0], "query")
    return grid._app.fresh_copy()(message, None)


@pytest.mark.parametrize("device", DEVICES)
def test_a_tensor_is_copied_with_what_shares_its_storage(device) -> None:
    whole = torch.arange(12.0, device=device)
    data = {
        "whole": whole,
        "again": whole,
        "view": whole.view(3, 4).T[1:],
        "odd": whole[2:].as_subclass(Odd),
        "weight": torch.nn.Parameter(torch.ones(2, device=device)),
        "sparse": torch.eye(3, device=device).to_sparse(),
        "channels_last": torch.rand(2, 3, 4, 4, device=device).to(
            memory_format=torch.channels_last
        ),
        "bits": torch.tensor([1 + 2j, 3], device=device).conj(),
        "empty": torch.empty(0, 3, device=device, dtype=torch.int8),
    }
    copied = copy_of(data)
    for name, tensor in data.items():
        assert type(copied[name]) is type(tensor), name
        assert copied[name].device == tensor.device
        assert copied[name].dtype == tensor.dtype
        assert copied[name].requires_grad == tensor.requires_grad
        torch.testing.assert_close(
            copied[name].to_dense(), tensor.to_dense(), rtol=0, atol=0
        )
        if name != "sparse":
            assert copied[name].stride() == tensor.stride()
    assert copied["again"] is copied["whole"]
    copied["whole"] += 100
    assert copied["view"][0, 0] == 101 and copied["odd"][0] == 102
    assert whole.tolist() == list(range(12))


def test_a_copy_does_not_see_what_another_copy_or_the_notebook_writes() -> None:
    data = torch.zeros(3)
    grid = InProcessGrid(app_that(lambda message, context: adding(data, message)), 2)
    data += 7
    for _ in range(2):
        for reply in ask(grid):
            assert reply.content["metrics"]["sum"] == 3.0
    assert data.tolist() == [7, 7, 7]


def adding(tensor, message):
    tensor += 1
    return Message(records(sum=tensor.sum().item()), reply_to=message)


def test_a_client_app_that_brings_much_to_each_message_is_told(recwarn) -> None:
    small, large = torch.zeros(1_000_000), torch.zeros(15_000_000)
    InProcessGrid(app_that(lambda message, context: small), 1)
    assert not recwarn.list
    with pytest.warns(UserWarning, match="uses 60 MB of data.*import"):
        InProcessGrid(app_that(lambda message, context: large), 1)


# ------------------------------------------------------------------ metadata, contexts


def test_metadata_is_what_flower_sets() -> None:
    def answer(message, context):
        return Message(
            RecordDict(
                {
                    "seen": ConfigRecord(
                        {
                            "src": str(message.metadata.src_node_id),
                            "dst": str(message.metadata.dst_node_id),
                            "id": message.metadata.message_id,
                            "type": message.metadata.message_type,
                            "group": message.metadata.group_id,
                            "run": str(message.metadata.run_id),
                        }
                    )
                }
            ),
            reply_to=message,
        )

    grid = InProcessGrid(app_that(answer), 2)
    node = grid.get_node_ids()[1]
    message = Message(RecordDict(), node, "train", group_id="g", ttl=60)
    (reply,) = grid.send_and_receive([message])
    seen = reply.content["seen"]
    assert (seen["src"], seen["dst"]) == (str(SERVER), str(node))
    assert (seen["type"], seen["group"]) == ("train", "g")
    assert seen["run"] == str(grid.run.run_id)
    assert seen["id"] == message.metadata.message_id != ""
    metadata = reply.metadata
    assert (metadata.src_node_id, metadata.dst_node_id) == (node, SERVER)
    assert metadata.reply_to_message_id == message.metadata.message_id
    assert metadata.message_type == "train" and metadata.group_id == "g"
    assert 0 < metadata.ttl <= 60


def test_node_ids_are_distinct_64_bit_numbers_and_follow_the_seed() -> None:
    ids = InProcessGrid(app_that(echo), 100, seed=3).get_node_ids()
    assert len(set(ids)) == 100 and SERVER not in ids
    assert all(0 < i < 2**64 for i in ids) and max(ids) > 2**60
    assert ids == InProcessGrid(app_that(echo), 100, seed=3).get_node_ids()
    assert ids != InProcessGrid(app_that(echo), 100, seed=4).get_node_ids()


def test_contexts_hold_node_config_and_run_config() -> None:
    def answer(message, context):
        config = {**context.node_config, **context.run_config}
        context.run_config["lr"] = 9.9
        return Message(RecordDict({"config": ConfigRecord(config)}), reply_to=message)

    grid = InProcessGrid(app_that(answer), 3, run_config={"lr": 0.1, "name": "x"})
    for _ in range(2):  # what a call writes into run_config is gone at the next
        for partition_id, reply in enumerate(ask(grid)):
            assert reply.content["config"] == {
                "partition-id": partition_id,
                "num-partitions": 3,
                "lr": 0.1,
                "name": "x",
            }


def test_state_survives_for_each_node_and_nothing_else_does() -> None:
    app = ClientApp()
    app.count = 0

    @app.query()
    def query(message, context):
        global counter
        counter += 1
        calls.append(1)
        app.count += 1
        query.count = getattr(query, "count", 0) + 1
        state = context.state.setdefault("seen", MetricRecord({"count": 0}))
        state["count"] += 1
        found = records(
            state=state["count"],
            module_global=counter,
            mutable_global=len(calls),
            app_attribute=app.count,
            function_attribute=query.count,
        )
        return Message(found, reply_to=message)

    grid = InProcessGrid(app, 2)
    for turn in (1, 2, 3):
        for reply in ask(grid):
            metrics = dict(reply.content["metrics"])
            assert metrics.pop("state") == turn
            assert set(metrics.values()) == {1}, metrics
    assert (counter, calls, app.count) == (0, [], 0)


# ------------------------------------------------------------- what a ClientApp can do


def test_types_actions_mods_and_lifespan() -> None:
    def noting(name):
        def mod(message, context, call_next):
            context.state["log"] = ConfigRecord(
                {"log": [*context.state.get("log", {"log": []})["log"], name]}
            )
            return call_next(message, context)

        return mod

    app = ClientApp(mods=[noting("app mod")])

    def add(context, word):
        before = context.state.get("log", {"log": []})["log"]
        context.state["log"] = ConfigRecord({"log": [*before, word]})

    @app.lifespan()
    def lifespan(context):
        add(context, "enter")
        yield
        add(context, "exit")

    @app.train()
    def train(message, context):
        add(context, "train")
        return Message(RecordDict(), reply_to=message)

    @app.train("foo", mods=[noting("foo mod")])
    def train_foo(message, context):
        add(context, "train.foo")
        return Message(RecordDict(), reply_to=message)

    @app.query()
    def query(message, context):
        add(context, "query")
        return Message(RecordDict(), reply_to=message)

    grid = InProcessGrid(app, 1)
    for message_type in ("train", "train.foo", "query"):
        ask(grid, message_type=message_type)
    (context,) = grid.node_contexts.values()
    log = context.state["log"]["log"]
    assert log == [
        *("enter", "app mod", "train", "exit"),
        *("enter", "app mod", "foo mod", "train.foo", "exit"),
        *("enter", "app mod", "query", "exit"),
    ]
    with pytest.raises(ValueError, match="No evaluate function registered"):
        ask(grid, message_type="evaluate")


# ------------------------------------------------------------------------------ errors


def test_by_default_a_clients_exception_surfaces_with_its_own_traceback() -> None:
    grid = InProcessGrid(app_that(raising), 2)
    with pytest.raises(ZeroDivisionError, match="division by zero") as caught:
        ask(grid, message_type="train")
    assert caught.traceback[-1].name == "raising"
    (note,) = caught.value.__notes__
    assert "partition 0" in note and "'train'" in note


def test_on_request_it_makes_flowers_error_reply() -> None:
    grid = InProcessGrid(app_that(raising), 2, client_errors="reply")
    replies = ask(grid)
    assert all(reply.has_error() and not reply.has_content() for reply in replies)
    assert replies[0].error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert replies[0].error.reason == (
        "<class 'ZeroDivisionError'>:<'division by zero'>"
    )
    assert replies[0].metadata.dst_node_id == SERVER
    assert grid.messages[1].error == replies[0].error.reason
    assert grid.messages[1].names == {}
    # As in the Simulation Runtime, a call that fails leaves the state as it was.
    assert all(not context.state for context in grid.node_contexts.values())


@pytest.mark.parametrize("client_errors", ["raise", "reply"])
def test_an_error_of_the_runtime_is_not_called_the_clients(
    client_errors, monkeypatch
) -> None:
    def broken(image):
        raise MemoryError("no room for a copy")

    grid = InProcessGrid(app_that(echo), 1, client_errors=client_errors)
    monkeypatch.setattr(isolation.AppImage, "fresh_copy", broken)
    with pytest.raises(MemoryError) as caught:
        ask(grid)
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("returned", [None, 3, {"loss": 0.1}])
def test_a_client_that_returns_no_message_is_told_what_to_return(returned) -> None:
    def answer(message, context):
        return returned

    with pytest.raises(TypeError, match=r"Message\(content, reply_to=message\)"):
        ask(InProcessGrid(app_that(answer), 1))


def test_a_client_that_forgets_reply_to_is_told() -> None:
    def answer(message, context):
        return Message(RecordDict(), message.metadata.src_node_id, "query")

    with pytest.raises(ValueError, match="reply_to=message"):
        ask(InProcessGrid(app_that(answer), 1))


def test_an_app_that_cannot_be_copied_is_told_why() -> None:
    lock = threading.Lock()

    def answer(message, context):
        with lock:
            return Message(RecordDict(), reply_to=message)

    with pytest.raises(ValueError, match="make it inside the function"):
        InProcessGrid(app_that(answer), 1)


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((echo, 2), {}, TypeError),
        ((app_that(echo), 0), {}, ValueError),
        ((app_that(echo), 2.5), {}, ValueError),
        ((app_that(echo), True), {}, ValueError),
        ((app_that(echo), 2), {"seed": -1}, ValueError),
        ((app_that(echo), 2), {"seed": 1.0}, ValueError),
        ((app_that(echo), 2), {"seed": "1"}, ValueError),
        ((app_that(echo), 2), {"seed": True}, ValueError),
        ((app_that(echo), 2), {"run_config": ["lr"]}, TypeError),
        ((app_that(echo), 2), {"client_errors": "ignore"}, ValueError),
        ((app_that(echo), 2), {"run_config": {"lr": None}}, TypeError),
        ((app_that(echo), 2), {"run_config": {3: 1}}, TypeError),
    ],
)
def test_bad_arguments_are_refused(arguments, options, error) -> None:
    with pytest.raises(error, match=r"must be|cannot be"):
        InProcessGrid(*arguments, **options)


def test_a_message_to_nobody_is_refused() -> None:
    grid = InProcessGrid(app_that(echo), 1)
    with pytest.raises(ValueError, match="get_node_ids"):
        grid.push_messages([Message(RecordDict(), 12345, "query")])


def test_run_in_process_refuses_what_is_no_server_app() -> None:
    with pytest.raises(TypeError, match="ServerApp"):
        run_in_process(echo, app_that(echo), num_supernodes=1)


# ----------------------------------------------------------------------------- waiting


def test_a_late_reply_is_left_out_and_can_be_pulled_later() -> None:
    def answer(message, context):
        if context.node_config["partition-id"] == 1:
            time.sleep(0.3)
        return Message(
            records(id=context.node_config["partition-id"]), reply_to=message
        )

    grid = InProcessGrid(app_that(answer), 3)
    messages = [Message(RecordDict(), node, "query") for node in grid.get_node_ids()]
    in_time = grid.send_and_receive(messages, timeout=0.2)
    nodes = grid.get_node_ids()
    assert [reply.metadata.src_node_id for reply in in_time] == [nodes[0], nodes[2]]
    (late,) = grid.pull_messages([messages[1].metadata.message_id])
    assert late.metadata.src_node_id == nodes[1]
    assert grid.pull_messages([messages[1].metadata.message_id]) == []


def fedavg(**options):
    """A ServerApp that runs two rounds of FedAvg."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        FedAvg(**options).start(grid, arrays(0.0, 0.0), num_rounds=2)

    return app


def test_a_strategy_that_waits_for_nodes_that_never_come_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"waits for 5 nodes, but this run has 3"):
        run_in_process(
            fedavg(min_available_nodes=5), app_that(trained), num_supernodes=3
        )


def test_so_is_a_server_app_that_polls_for_them(monkeypatch) -> None:
    monkeypatch.setattr(grid_module, "PATIENCE", 0.2)
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        while len(list(grid.get_node_ids())) < 5:
            time.sleep(0.1)

    with pytest.raises(RuntimeError, match="no more will join"):
        run_in_process(app, app_that(echo), num_supernodes=3)


# --------------------------------------------------------------------------- whole runs


def trained(message: Message, context: Context) -> Message:
    """Answer any message, with arrays that depend on random numbers."""
    noise = [random.random(), float(np.random.rand()), torch.rand(()).item()]
    content = records(**{"num-examples": 2, "loss": sum(noise)})
    if message.metadata.message_type == "train":
        content["arrays"] = arrays(noise[0], noise[2])
    return Message(content, reply_to=message)


def bits(run) -> bytes:
    return b"".join(array.data for array in run.result.arrays.values())


def test_one_seed_two_runs_the_same_bits() -> None:
    options = {"num_supernodes": 6, "progress": False}
    app, server = app_that(trained), fedavg(fraction_train=0.5)
    first = run_in_process(server, app, seed=1, **options)
    again = run_in_process(server, app, seed=1, **options)
    other = run_in_process(server, app, seed=2, **options)
    assert bits(first) == bits(again) != bits(other)
    timeless = [[(m.destination, m.bytes) for m in r.messages] for r in (first, again)]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize("seed", [0, 7, 2**31, 2**70])
def test_a_seed_may_be_any_whole_number_also_numpys(seed) -> None:
    numpys = np.uint64(seed) if seed < 2**64 else seed
    runs = [
        run_in_process(
            fedavg(), app_that(trained), num_supernodes=np.int64(2), seed=s, progress=0
        )
        for s in (seed, numpys)
    ]
    assert bits(runs[0]) == bits(runs[1])
    assert list(runs[0].node_contexts) == list(runs[1].node_contexts)


def test_a_seeded_run_leaves_the_process_generators_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    run_in_process(fedavg(), app_that(trained), num_supernodes=2, seed=1)
    assert torch.equal(torch.rand(2), expected)


def test_what_clients_draw_does_not_change_whom_the_server_samples() -> None:
    def greedy(message, context):
        random.random()
        return trained(message, context)

    sampled = [
        [m.destination for m in run.messages if not m.is_reply]
        for run in (
            run_in_process(
                fedavg(fraction_train=0.5), app_that(answer), num_supernodes=6, seed=1
            )
            for answer in (trained, greedy)
        )
    ]
    assert sampled[0] == sampled[1]


def test_a_run_returns_contexts_messages_and_results() -> None:
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        result = FedAvg().start(grid, arrays(0.0, 0.0), num_rounds=2)
        context.state["final"] = result.arrays

    run = run_in_process(
        server, app_that(trained), num_supernodes=3, run_config={"lr": 0.1}
    )
    assert run.server_context.run_config == {"lr": 0.1}
    assert run.server_context.node_id == SERVER
    assert run.server_context.state["final"] == run.result.arrays
    assert [c.node_config["partition-id"] for c in run.node_contexts.values()] == [
        0,
        1,
        2,
    ]
    # Two rounds, three nodes, train and evaluate, there and back.
    assert len(run.messages) == 2 * 3 * 2 * 2
    assert [m.round for m in run.messages] == [1] * 12 + [2] * 12
    assert [m.type for m in run.messages[:12]] == ["train"] * 6 + ["evaluate"] * 6
    assert sorted(run.result.train_metrics_clientapp) == [1, 2]


def test_the_record_of_messages_names_what_crossed_and_keeps_it() -> None:
    def answers_in_part(message: Message, context: Context) -> Message:
        body = message.content["arrays"].pop("body")
        content = {"arrays": ArrayRecord({"body": body}), "empty": MetricRecord()}
        return Message(RecordDict(content), reply_to=message)

    whole = {name: arrays(1.0)["0"] for name in ("body", "head")}
    content = RecordDict({"arrays": ArrayRecord(whole), "config": ConfigRecord()})
    grid = InProcessGrid(app_that(answers_in_part), 1)
    ask(grid, content)
    content["arrays"].clear()
    sent, came_back = (delivery.names for delivery in grid.messages)
    assert sent == {"arrays": ("body", "head"), "config": ()}
    assert came_back == {"arrays": ("body",), "empty": ()}


def test_a_run_without_a_strategy_says_that_it_has_no_result() -> None:
    server = ServerApp()
    server.main()(lambda grid, context: None)
    run = run_in_process(server, app_that(echo), num_supernodes=1)
    with pytest.raises(ValueError, match="No strategy"):
        _ = run.result


def test_the_process_is_as_it_was_after_a_run() -> None:
    before = isolation.get_identity()
    start = Strategy.start
    with pytest.raises(ZeroDivisionError):
        run_in_process(fedavg(), app_that(raising), num_supernodes=2)
    assert isolation.get_identity() == before
    assert Strategy.start is start


def outcome_of(start):
    """Return the result of a strategy's start, or the error that it raises."""
    try:
        return start()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize(
    "returned",
    [
        None,
        MetricRecord({"accuracy": 0.5, "each": [0.5, 0.5]}),
        {"accuracy": 0.5, "note": "better than before", "none": None},
        {3: np.ones(2), "t": torch.tensor(0.5)},
        (0.1, {"accuracy": 0.5}),
        0.5,
        "fine",
    ],
    ids=str,
)
@pytest.mark.parametrize("progress", [True, False])
def test_evaluate_fn_may_return_whatever_flower_takes(returned, progress) -> None:
    def evaluate(server_round, arrays):
        return returned

    def start(grid):
        return FedAvg().start(grid, arrays(0, 0), 2, evaluate_fn=evaluate)

    def run():
        app = ServerApp()
        app.main()(lambda grid, context: start(grid))
        options = {"num_supernodes": 2, "seed": 1, "progress": progress}
        return run_in_process(app, app_that(trained), **options).result

    flowers = outcome_of(lambda: start(InProcessGrid(app_that(trained), 2, seed=1)))
    assert f"{outcome_of(run)}" == f"{flowers}"


def test_the_table_shows_what_it_can(capfd) -> None:
    answers = iter([(0.25, {"acc": 0.5}), {"note": "a long story of it"}, None])
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        evaluate = lambda *_: next(answers)  # noqa: E731
        with pytest.raises(AttributeError):  # Flower's own, at the end
            FedAvg().start(grid, arrays(0, 0), 2, evaluate_fn=evaluate)

    run_in_process(app, app_that(raising), num_supernodes=2, client_errors="reply")
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split() == ["before", "training:", "server", "0.25"]
    assert lines[1].split() == ["before", "training:", "server", "acc", "0.5"]
    assert "a long story" in lines[4]


def test_a_strategy_is_left_as_it_is(capfd, caplog) -> None:
    class Slow(FedAvg):
        def __setattr__(self, name, value):
            assert not hasattr(self, "done"), f"{name} was set"
            super().__setattr__(name, value)

    strategy = Slow()
    own = strategy.aggregate_train
    strategy.aggregate_train = lambda *args: own(*args)
    before = dict(vars(strategy))
    strategy.done = True
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        strategy.start(grid, arrays(0, 0), num_rounds=2)

    options = {"num_supernodes": 2, "flower_log": True}
    run = run_in_process(app, app_that(trained), **options)
    assert vars(strategy) == before | {"done": True}
    assert len(run.results) == 1
    assert "Starting Slow strategy:" in [r.getMessage() for r in caplog.records]
    assert "Global evaluation" not in caplog.messages  # there was no evaluate_fn
    rows = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert [row[0] for row in rows[2:]] == ["1", "2"]


def test_wrong_arguments_of_start_are_flowers_to_refuse() -> None:
    app = ServerApp()
    app.main()(lambda grid, context: FedAvg().start(grid))
    with pytest.raises(TypeError, match=r"missing 1 required .*'initial_arrays'"):
        run_in_process(app, app_that(trained), num_supernodes=2)


# -------------------------------------------------------- runs in runs, and in threads


def nesting(depth: int, runs: list) -> ServerApp:
    """Make a ServerApp that runs another one while its strategy evaluates."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        def evaluate(server_round, record):
            if depth and server_round == 1:
                inner = nesting(depth - 1, runs)
                runs.append(run_in_process(inner, app_that(trained), num_supernodes=2))
            Message(RecordDict(), grid.get_node_ids()[0], "query")
            assert TaskIdentity.run_id == context.run_id

        FedAvg().start(grid, arrays(0, 0), num_rounds=2, evaluate_fn=evaluate)

    return app


def test_a_run_inside_a_run_keeps_to_itself() -> None:
    runs: list = []
    outer = run_in_process(nesting(2, runs), app_that(trained), num_supernodes=3)
    assert len(runs) == 2 and len(outer.results) == 1
    assert [len(run.messages) for run in (*runs, outer)] == [16, 16, 24]
    assert all(len(run.results) == 1 for run in runs)


def in_thread(action):
    """Return what an action returns in another thread, or the error that it raises."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(outcome_of, action).result(timeout=60)


def test_a_run_in_a_thread_is_a_run() -> None:
    options = {"num_supernodes": 2, "seed": 1, "progress": False}
    here = run_in_process(fedavg(), app_that(trained), **options)
    there = in_thread(lambda: run_in_process(fedavg(), app_that(trained), **options))
    assert bits(here) == bits(there)


def test_what_another_thread_does_at_the_same_time_is_refused() -> None:
    other = InProcessGrid(app_that(echo), 1)
    message = Message(RecordDict(), other.get_node_ids()[0], "query")
    refused = []

    def meanwhile(message, context):
        for action in meddlers:
            refused.append(in_thread(action))
        return Message(RecordDict(), reply_to=message)

    meddlers = [
        lambda: run_in_process(fedavg(), app_that(trained), num_supernodes=2),
        lambda: InProcessGrid(app_that(echo), 1),
        lambda: other.send_and_receive([message]),
    ]
    app = ServerApp()
    app.main()(lambda grid, context: meanwhile(message, context))
    run_in_process(app, app_that(echo), num_supernodes=1)
    assert len(refused) == 3
    assert all("goes on in another thread" in f"{outcome}" for outcome in refused)
    assert len(other.send_and_receive([message])) == 1  # and now it is its turn


def test_a_server_app_may_send_from_threads_of_its_own() -> None:
    app = ServerApp()
    got = []

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        content = RecordDict()
        messages = [Message(content, node, "query") for node in grid.get_node_ids()]
        with ThreadPoolExecutor(4) as pool:
            for replies in pool.map(lambda m: grid.send_and_receive([m]), messages):
                got.append(replies[0].content["metrics"]["loss"])

    runs = [
        run_in_process(app, app_that(trained), num_supernodes=8, seed=1)
        for _ in range(2)
    ]
    assert got[:8] == got[8:] and len(runs[0].messages) == 16


def test_a_name_in_sys_modules_may_be_no_module(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "forbidden", None)
    monkeypatch.setitem(sys.modules, "lazy", object())
    assert len(ask(InProcessGrid(app_that(echo), 1))) == 1


def test_what_the_user_told_cloudpickle_stays(monkeypatch) -> None:
    module = types.ModuleType("module_of_mine")
    module.app = app_that(echo)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    cloudpickle.register_pickle_by_value(module)
    InProcessGrid(module.app, 1)
    assert module.__name__ in cloudpickle.list_registry_pickle_by_value()
    cloudpickle.unregister_pickle_by_value(module)


def test_when_every_client_fails_flower_ends_with_nothing() -> None:
    run = run_in_process(
        fedavg(), app_that(raising), num_supernodes=2, client_errors="reply"
    )
    assert not run.result.arrays and not run.result.train_metrics_clientapp
    assert sum(m.error is not None for m in run.messages) == 8


def test_strategies_refuse_inconsistent_replies_as_always() -> None:
    def answer(message, context):
        content = RecordDict({"arrays": arrays(1.0), "metrics": MetricRecord()})
        return Message(content, reply_to=message)

    with pytest.raises(InconsistentMessageReplies, match="num-examples"):
        run_in_process(fedavg(), app_that(answer), num_supernodes=2)


def test_bytes_are_counted_as_flowers_mod_counts_them(caplog) -> None:
    app = ClientApp(mods=[message_size_mod])
    app.query()(echo)
    content = RecordDict(
        {
            "arrays": arrays(1, 2, 3),
            "metrics": MetricRecord({"losses": [0.1, 0.2], "n": 3}),
            "config": ConfigRecord({"name": "x", "flag": True, "ids": [1, 2]}),
        }
    )
    grid = InProcessGrid(app, 1)
    with caplog.at_level(logging.INFO, logger="flwr"):
        ask(grid, content)
    counted = [r.args[0] for r in caplog.records if "message size" in r.msg]
    assert counted == [m.bytes for m in grid.messages]


@pytest.mark.parametrize("value", ["first", [1, 2], 1.5])
def test_a_server_round_that_is_no_number_is_carried_all_the_same(value) -> None:
    grid = InProcessGrid(app_that(echo), 1)
    (reply,) = ask(grid, RecordDict({"c": ConfigRecord({"server-round": value})}))
    assert reply.content["c"]["server-round"] == value
    assert grid.messages[0].round == 0


def test_empty_config_values_can_be_counted() -> None:
    grid = InProcessGrid(app_that(echo), 1)
    ask(grid, RecordDict({"c": ConfigRecord({"ab": "", "cd": [], "ef": False})}))
    assert grid.messages[0].bytes == 6 + 1


# ------------------------------------------------------------------- what a run prints


def test_a_run_prints_a_line_a_round_and_no_log(capfd) -> None:
    run_in_process(fedavg(), app_that(trained), num_supernodes=2, seed=1)
    printed = capfd.readouterr()
    lines = printed.out.rstrip().splitlines()
    # What a metric is of stands above its name, in the same column.
    assert lines[1].split()[:4] == ["round", "trained", "failed", "MB"]
    assert lines[0].split() == ["train", "eval"]
    assert lines[1].split()[4:] == ["loss", "loss"]
    assert lines[0].index("eval") + 4 == len(lines[1]) == len(lines[2])
    assert [line.split()[:3] for line in lines[2:]] == [
        ["1", "2", "0"],
        ["2", "2", "0"],
    ]
    assert "INFO" not in printed.err


def test_the_line_counts_failures_apart(capfd) -> None:
    run_in_process(fedavg(), app_that(raising), num_supernodes=2, client_errors="reply")
    rows = [line.split() for line in capfd.readouterr().out.strip().splitlines()]
    assert rows[0] == ["round", "trained", "failed", "MB"]
    assert [row[:3] for row in rows[1:]] == [["1", "0", "4"], ["2", "0", "4"]]


def test_it_can_be_silent_or_bring_flowers_log_back(capfd, caplog) -> None:
    options = {"num_supernodes": 2, "progress": False}
    run_in_process(fedavg(), app_that(trained), **options)
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""
    run_in_process(fedavg(), app_that(trained), flower_log=True, **options)
    assert "[ROUND 2/2]" in caplog.messages
    assert runtime.FLOWER_LOGGER.level == logging.WARNING


def test_what_a_strategy_was_asked_to_leave_out_is_no_warning(caplog) -> None:
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        FedAvg(fraction_train=0.0).start(grid, arrays(0.0), num_rounds=1)
        FedAvg(fraction_evaluate=0.0).start(grid, arrays(0.0), num_rounds=1)

    said = []
    for flower_log in (False, True):
        options = {"num_supernodes": 2, "progress": False, "flower_log": flower_log}
        run_in_process(server, app_that(trained), **options)
        said.append([r.msg for r in caplog.records if r.levelno == logging.WARNING])
        caplog.clear()
    assert [len(warnings) for warnings in said] == [1, 2]
    assert "training will be skipped" in said[0][0]


# ------------------------------------------------------------ apps written for flwr run

CLIENT_APP = """
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp

    from {package}.task import scale

    app = ClientApp()
    calls = 0

    @app.train()
    def train(message: Message, context: Context) -> Message:
        global calls
        calls += 1
        arrays = message.content["arrays"].to_numpy_ndarrays()
        content = RecordDict({{
            "arrays": ArrayRecord([scale(a, context.run_config["by"]) for a in arrays]),
            "metrics": MetricRecord({{"num-examples": 1, "calls": calls}}),
        }})
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        content = RecordDict({{"metrics": MetricRecord({{"num-examples": 1}})}})
        return Message(content, reply_to=message)
"""
SERVER_APP = """
    import numpy as np
    from flwr.app import ArrayRecord, Context
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg

    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        rounds = context.run_config["num-server-rounds"]
        FedAvg().start(grid, ArrayRecord([np.ones(2)]), num_rounds=rounds)
"""


def test_apps_written_as_modules_run_unmodified(tmp_path, monkeypatch) -> None:
    package = tmp_path / "my_flower_app"
    package.mkdir()
    files = {
        "__init__": "",
        "task": "def scale(array, by):\n    return array * by\n",
        "client_app": textwrap.dedent(CLIENT_APP.format(package="my_flower_app")),
        "server_app": textwrap.dedent(SERVER_APP),
    }
    for name, text in files.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    from my_flower_app import client_app, server_app

    run = run_in_process(
        server_app.app,
        client_app.app,
        num_supernodes=2,
        run_config={"by": 2.0, "num-server-rounds": 3},
    )
    assert run.result.arrays.to_numpy_ndarrays()[0].tolist() == [8, 8]
    # A module's globals do not survive either, and the module itself is untouched.
    assert run.result.train_metrics_clientapp[3]["calls"] == 1
    assert client_app.calls == 0
    for name in [name for name in sys.modules if name.startswith("my_flower_app")]:
        monkeypatch.delitem(sys.modules, name)


def test_the_progress_bar_is_silent_on_request(monkeypatch) -> None:
    hidden = []

    class Bar(auto.tqdm):
        def __init__(self, *args, disable, **kwargs):
            hidden.append(disable)
            super().__init__(*args, disable=disable, **kwargs)

    monkeypatch.setattr(auto, "tqdm", Bar)
    for value in ("", "1"):
        monkeypatch.setenv("TQDM_DISABLE", value)
        run_in_process(fedavg(), app_that(trained), num_supernodes=2)
    assert hidden == [False, True]
