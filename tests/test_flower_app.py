"""The stand-alone Flower App: it needs no course, and no runtime changes its model."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch
from federation import (
    APP,
    DEFAULTS,
    NODES,
    QUICK,
    ROUNDS,
    SETTINGS,
    imported_by,
    train_here,
)
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import Result

from course_utils import flower_series
from course_utils.runtime import InProcessGrid, run_in_process

TOLERANCE = 1e-5
"""Replies are summed in the order in which they come, and sums of floats depend on
their order: that is all that may differ. Seen: below 1e-6."""


# ------------------------------------------------------------------- what it is made of


def test_its_settings_are_those_that_the_lessons_use() -> None:
    expected = {"num-server-rounds": 3, "fraction-train": 0.5, "local-epochs": 1}
    assert DEFAULTS | expected | {"lr": 0.01} == DEFAULTS


def test_it_asks_for_the_flower_that_the_course_is_tested_with() -> None:
    (asked,) = (s for s in SETTINGS["project"]["dependencies"] if "flwr" in s)
    assert asked == f"flwr[simulation]~={flower_series()}.0"


def test_it_imports_nothing_of_the_course() -> None:
    installed = {"flwr", "mlxtend", "numpy", "torch"}
    assert imported_by(APP) - {"federated_digits"} <= installed


# ------------------------------------------------------------------------ its functions


def test_its_partitions_share_out_all_digits() -> None:
    from federated_digits import task

    train, test = task.load_digits()
    assert train.tensors[0].shape == (4000, 1, 28, 28) and len(test) == 1000
    assert train.tensors[0].min() == -1 and train.tensors[0].max() == 1
    for split, whole in ((0, train), (1, test)):
        parts = [task.load_partition(i, 7)[split].dataset.tensors[1] for i in range(7)]
        counts = torch.cat(parts).bincount()
        assert torch.equal(counts, whole.tensors[1].bincount())
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_partition_that_is_not_there_is_refused() -> None:
    from federated_digits import task

    for partition_id in (-1, 3):
        with pytest.raises(ValueError, match="there are 3, numbered from 0"):
            task.load_partition(partition_id, 3)


def updates(seed: int, server_round: int) -> list[dict[str, torch.Tensor]]:
    """Let two fresh grids, with other seeds of their own, make every node's update."""
    from federated_digits import client_app, task

    task.set_seed(0)
    arrays = ArrayRecord(task.Net().state_dict())
    settings = {"local-epochs": 1, "lr": 0.01}
    config = settings | {"seed": seed, "server-round": server_round}
    made = []
    for grid_seed in (1, 2):
        grid = InProcessGrid(client_app.app, 2, run_config=DEFAULTS, seed=grid_seed)
        content = RecordDict({"arrays": arrays, "config": ConfigRecord(config)})
        nodes = list(grid.get_node_ids())
        if grid_seed == 2:
            nodes = nodes[::-1]  # whoever is asked first makes no difference
        messages = [Message(content, node, "train") for node in nodes]
        replies = grid.send_and_receive(messages)
        if grid_seed == 2:
            replies = replies[::-1]
        made += [reply.content["arrays"].to_torch_state_dict() for reply in replies]
    return made


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_an_update_depends_on_seed_round_and_partition_alone() -> None:
    first = updates(seed=0, server_round=1)
    assert same(first[0], first[2]) and same(first[1], first[3])
    assert not same(first[0], first[1])  # another partition
    assert not same(first[0], updates(seed=1, server_round=1)[0])
    assert not same(first[0], updates(seed=0, server_round=2)[0])


def test_a_supernode_without_a_partition_says_how_to_start_it() -> None:
    from federated_digits import client_app
    from flwr.app import Context

    context = Context(1, 2, {}, RecordDict(), DEFAULTS)
    with pytest.raises(ValueError, match="start it with --node-config"):
        client_app.load_data(context)


def test_a_run_without_a_single_model_fails_and_saves_nothing(tmp_path) -> None:
    from federated_digits import server_app
    from flwr.clientapp import ClientApp

    broken = ClientApp()

    @broken.train()
    def train(message, context):
        raise ValueError("no data today")

    with pytest.raises(RuntimeError, match="No client sent a model back"):
        run_in_process(
            server_app.app,
            broken,
            num_supernodes=NODES,
            run_config=DEFAULTS | QUICK | {"results-dir": str(tmp_path / "results")},
            client_errors="reply",
            progress=False,
        )
    assert not (tmp_path / "results").exists()


BAD = [
    *[("num-server-rounds", value) for value in (0, 2.5, True, "3")],
    *[("fraction-train", value) for value in (0, 0.0, 1.5, -0.5, "all")],
    *[("fraction-evaluate", value) for value in (-0.1, 1.5, float("nan"))],
    *[("local-epochs", value) for value in (0, 1.5)],
    *[("lr", value) for value in (0.0, -0.1, float("inf"), float("nan"), "0.1")],
    *[("batch-size", value) for value in (0, 16.0)],
    *[("seed", value) for value in (-1, 0.5)],
    *[("min-available-nodes", value) for value in (0, "2")],
    *[("node-timeout", value) for value in (-1, float("inf"))],
    *[("round-timeout", value) for value in (0, -1.0, "soon")],
    *[("results-dir", value) for value in ("", " ", 7, __file__)],
]


@pytest.mark.parametrize(("key", "value"), BAD)
def test_a_setting_that_no_run_can_use_is_refused_at_the_start(key, value) -> None:
    from federated_digits import client_app, server_app

    with pytest.raises(ValueError, match=f"^{key} must be .*, not .*\\.$"):
        run_in_process(
            server_app.app,
            client_app.app,
            num_supernodes=NODES,
            run_config=DEFAULTS | {key: value},
            progress=False,
        )


def test_every_setting_has_a_rule_and_its_default_keeps_it() -> None:
    from federated_digits import server_app

    assert set(server_app.RULES) == set(DEFAULTS)
    server_app.check_settings(DEFAULTS)
    edges = {"fraction-train": 1, "fraction-evaluate": 0, "lr": 1, "node-timeout": 0}
    server_app.check_settings(DEFAULTS | edges)


def test_one_supernode_is_enough_where_the_setting_says_so(tmp_path) -> None:
    from federated_digits import client_app, server_app

    settings = {"min-available-nodes": 1, "num-server-rounds": 1, "node-timeout": 0}
    run = run_in_process(
        server_app.app,
        client_app.app,
        num_supernodes=1,
        run_config=DEFAULTS | settings | {"results-dir": str(tmp_path)},
        progress=False,
    )
    types = [message.type for message in run.messages]  # with their replies
    assert types == ["train", "train", "evaluate", "evaluate"]


def test_a_fraction_is_asked_however_many_must_be_there() -> None:
    from federated_digits import client_app, server_app

    strategy = server_app.BoundedFedAvg(10, 0, fraction_train=0.3)
    grid = InProcessGrid(client_app.app, 10)
    asked = strategy.configure_train(1, ArrayRecord(), ConfigRecord(), grid)
    assert len(list(asked)) == 3


class FewNodes:
    """A grid with one node, to which others come as time passes, or leave."""

    def __init__(self, *counts: int) -> None:
        self.counts = list(counts)

    def get_node_ids(self) -> range:
        return range(self.counts.pop(0) if len(self.counts) > 1 else self.counts[0])


@pytest.mark.parametrize("what", ["train", "evaluate"])
def test_the_wait_for_supernodes_ends_in_words(what, monkeypatch, capsys) -> None:
    from federated_digits import server_app

    monkeypatch.setattr(server_app.time, "sleep", lambda seconds: None)
    strategy = server_app.BoundedFedAvg(3, 0.2)
    configure = getattr(strategy, f"configure_{what}")
    with pytest.raises(RuntimeError, match=r"^1 of min-av.*=3 are online after .*0\.2"):
        configure(1, ArrayRecord(), ConfigRecord(), FewNodes(1))
    capsys.readouterr()
    strategy.node_timeout = 5
    strategy.wait_for_nodes(FewNodes(1, 2, 3))
    said = "Waiting for SuperNodes: {} of min-available-nodes=3 are online.\n"
    assert capsys.readouterr().out == said.format(1) + said.format(2)
    strategy.fraction_evaluate = 0.0  # nobody evaluates: nobody is waited for
    assert strategy.configure_evaluate(1, ArrayRecord(), None, FewNodes(0)) == []


def test_the_metrics_of_every_round_are_saved(tmp_path) -> None:
    train_here(tmp_path)
    saved = json.loads((tmp_path / "metrics.json").read_text())
    rounds = [str(number) for number in range(1, ROUNDS + 1)]
    assert list(saved["train-by-clients"]) == rounds
    assert saved["evaluate-by-clients"] == {}  # QUICK asks for none
    assert list(saved["evaluate-by-server"]) == ["0", *rounds]
    first, last = (saved["evaluate-by-server"][r]["eval-accuracy"] for r in ("0", "2"))
    assert last > first + 0.5


def test_saving_nothing_but_a_model_works(tmp_path) -> None:
    from federated_digits import server_app, task

    result = Result(arrays=ArrayRecord(task.Net().state_dict()))
    server_app.save(result, tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "final_model.pt").exists()


# ------------------------------------------------------------------ without the course

# That the Simulation Runtime, and a SuperLink with SuperNodes, end with the same model
# as the in-process runtime is asserted in the cells of lessons 06 and 07, and on hosts
# with bad links in tests/test_hosts.py.

ALONE = """
import importlib.util
from federated_digits import client_app, server_app, task

assert importlib.util.find_spec("course_utils") is None
train, test = task.load_partition(0, 100)
task.train(task.Net(), train)
print(type(client_app.app).__name__, type(server_app.app).__name__)
"""


def test_it_works_where_the_course_is_not_installed(tmp_path) -> None:
    """Make an environment with all that is installed here, but not the course.

    It looks for packages where this one does. The course is missing, since it is
    installed by a file that Python reads in an environment's own folder only.
    """
    venv.create(tmp_path / "environment", symlinks=True)
    python = tmp_path / "environment" / "bin" / "python"
    packages = next(p for p in sys.path if Path(p).name == "site-packages")
    done = subprocess.run(
        [python, "-c", ALONE],
        cwd=tmp_path,  # where no folder course_utils lies
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(APP), packages])},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "ClientApp ServerApp\n", done.stderr
