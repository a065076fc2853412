"""Measure the course's speed as ratios within one run: ``make bench``.

Prints one table. Each row is a ratio of two things measured side by side on this
machine, with what it ran and what it is held to, or a lesson's time and memory.
"""

import argparse
import inspect
import io
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import nbformat
import psutil
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
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from nbclient import NotebookClient

from course_utils import model
from course_utils.partitions import load_partition
from course_utils.runtime import FLOWER_LOGGER, run_in_process

ROOT = Path(__file__).parents[1]
CLIENTS, ROUNDS = 10, 15


def report(row: str, figure: str, target: str, ran: str) -> None:
    """Print one row of the table."""
    print(f"| {row} | {figure} | {target} | {ran} |", flush=True)


# --------------------------------------------- the runtime against a bare PyTorch loop

client_app = ClientApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Train on the node's own partition."""
    net = model.Net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    config = context.node_config
    loader, _ = load_partition(config["partition-id"], config["num-partitions"])
    loss = model.train(net, loader, lr=message.content["config"]["lr"])
    metrics = {"num-examples": len(loader.dataset), "train-loss": loss}
    content = RecordDict(
        {"arrays": ArrayRecord(net.state_dict()), "metrics": MetricRecord(metrics)}
    )
    return Message(content, reply_to=message)


server_app = ServerApp()


@server_app.main()
def main_of_server(grid: Grid, context: Context) -> None:
    """Run FedAvg over all clients, without evaluation."""
    FedAvg(fraction_evaluate=0.0).start(
        grid,
        ArrayRecord(model.Net().state_dict()),
        num_rounds=ROUNDS,
        train_config=ConfigRecord({"lr": 0.01}),
    )


def bare_loop() -> None:
    """Do the same training without Flower."""
    net = model.Net()
    for _ in range(ROUNDS):
        states, sizes = [], []
        for partition_id in range(CLIENTS):
            loader, _ = load_partition(partition_id, CLIENTS)
            local = model.Net()
            local.load_state_dict(net.state_dict())
            model.train(local, loader)
            states.append(local.state_dict())
            sizes.append(len(loader.dataset))
        net.load_state_dict(model.weighted_average(states, sizes))


def in_process() -> None:
    """Run the two apps above."""
    run_in_process(
        server_app, client_app, num_supernodes=CLIENTS, seed=0, progress=False
    )


def seconds(action: Callable[[], None]) -> float:
    """Time one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def bench_against_bare_loop() -> None:
    """Interleave the two, and compare the medians."""
    # Both find the data loaded and what PyTorch imports at its first step.
    model.train(model.Net(), load_partition(0, CLIENTS)[0])
    pairs = [(seconds(in_process), seconds(bare_loop)) for _ in range(5)]
    ours, bare = (statistics.median(times) for times in zip(*pairs, strict=True))
    report(
        "in-process runtime / bare PyTorch loop",
        f"{ours / bare:.2f}×",
        "≤ 1.10×",
        f"{CLIENTS} clients, {ROUNDS} rounds, medians of 5: "
        f"{ours:.1f} s / {bare:.1f} s",
    )


# ------------------------------------------------- the runtime against flwr run

PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "bench-app"
version = "1.0.0"
license = "Apache-2.0"
dependencies = ["flwr"]

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "course"

[tool.flwr.app.components]
serverapp = "bench_app.server_app:app"
clientapp = "bench_app.client_app:app"

[tool.flwr.app.config]
num-server-rounds = 3
fraction-train = 0.5
local-epochs = 1
lr = 0.01
"""
CLIENT_APP = '''\
"""A ClientApp that trains and evaluates the course's model."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from course_utils import model
from course_utils.partitions import load_partition

app = ClientApp()


def prepare(message, context):
    net = model.Net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    config = context.node_config
    return net, load_partition(config["partition-id"], config["num-partitions"])


@app.train()
def train(message: Message, context: Context) -> Message:
    net, (loader, _) = prepare(message, context)
    epochs, lr = context.run_config["local-epochs"], context.run_config["lr"]
    loss = model.train(net, loader, epochs=epochs, lr=lr)
    metrics = {"num-examples": len(loader.dataset), "train-loss": loss}
    content = {
        "arrays": ArrayRecord(net.state_dict()),
        "metrics": MetricRecord(metrics),
    }
    return Message(RecordDict(content), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    net, (_, loader) = prepare(message, context)
    loss, accuracy = model.test(net, loader)
    metrics = {"num-examples": len(loader.dataset), "eval-accuracy": accuracy}
    content = RecordDict({"metrics": MetricRecord(metrics)})
    return Message(content, reply_to=message)
'''
SERVER_APP = '''\
"""A ServerApp that runs FedAvg."""

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from course_utils import model

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    strategy = FedAvg(fraction_train=config["fraction-train"])
    arrays = ArrayRecord(model.Net().state_dict())
    result = strategy.start(grid, arrays, num_rounds=config["num-server-rounds"])
    assert sorted(result.train_metrics_clientapp) == [1, 2, 3]
    print("THE RUN ENDED WELL")
'''


def write_app(folder: Path) -> None:
    """Write the app's folder as `flwr run` takes it."""
    package = folder / "bench_app"
    package.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    (package / "__init__.py").touch()
    (package / "client_app.py").write_text(CLIENT_APP, encoding="utf-8")
    (package / "server_app.py").write_text(SERVER_APP, encoding="utf-8")


def flwr_run(folder: Path, home: Path) -> float:
    """Run the app on Flower's Simulation Runtime; end the SuperLink it starts."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "FLWR_HOME": str(home),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(port),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = ["flwr", "run", str(folder), "--stream"]
    command += ["--federation-config", f"num-supernodes={CLIENTS}"]
    try:
        start = time.perf_counter()
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=600
        )
        took = time.perf_counter() - start
    finally:
        end_processes_with(str(home))
    if "THE RUN ENDED WELL" not in done.stdout + done.stderr:
        raise RuntimeError(
            f"flwr run failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )
    return took


def end_processes_with(home: str) -> None:
    """End every process whose FLWR_HOME is ours."""
    ours = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("FLWR_HOME") == home:
                ours.append(process)
        except psutil.Error:
            continue  # another user's, or gone already
    for process in ours:
        process.kill()
    psutil.wait_procs(ours, timeout=10)


def bench_against_flwr_run() -> None:
    """Run one unmodified app on both runtimes."""
    with tempfile.TemporaryDirectory() as folder:
        app, home = Path(folder, "app"), Path(folder, "home")
        write_app(app)
        sys.path.insert(0, str(app))
        from bench_app import client_app, server_app

        load_partition(0, CLIENTS)
        config = {
            "num-server-rounds": 3,
            "fraction-train": 0.5,
            "local-epochs": 1,
            "lr": 0.01,
        }

        def in_this_process() -> None:
            with redirect_stdout(io.StringIO()):
                run_in_process(
                    server_app.app,
                    client_app.app,
                    num_supernodes=CLIENTS,
                    run_config=config,
                    progress=False,
                )

        ours = statistics.median(seconds(in_this_process) for _ in range(3))
        theirs = flwr_run(app, home)
        shutil.rmtree(home, ignore_errors=True)
    report(
        "`flwr run` (Simulation Runtime) / in-process runtime",
        f"{theirs / ours:.0f}×",
        "≥ 20×",
        f"one app, 10 SuperNodes, 3 rounds, half sampled: "
        f"{theirs:.1f} s / {ours:.2f} s",
    )


# ------------------------------------------------------------------- many clients

many_app = ClientApp()


@many_app.train()
def train_a_little(message: Message, context: Context) -> Message:
    """Train on 32 made-up examples, the same for every node."""
    net = model.Net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    examples = [(torch.zeros(32, 1, 28, 28), torch.zeros(32, dtype=torch.int64))]
    model.train(net, examples)
    content = RecordDict(
        {
            "arrays": ArrayRecord(net.state_dict()),
            "metrics": MetricRecord({"num-examples": 32}),
        }
    )
    return Message(content, reply_to=message)


def cost_of_a_message(clients: int, rounds: int) -> float:
    """Return seconds a message, one there and one back counting as two."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        FedAvg(fraction_evaluate=0.0).start(
            grid, ArrayRecord(model.Net().state_dict()), num_rounds=rounds
        )

    start = time.perf_counter()
    run = run_in_process(app, many_app, num_supernodes=clients, progress=False)
    return (time.perf_counter() - start) / len(run.messages)


def bench_many_clients() -> None:
    """Compare a message's cost at 1,000 clients with that at 10."""
    cost_of_a_message(10, 2)  # warm up
    peak_before = peak_memory()
    pairs = [(cost_of_a_message(1000, 1), cost_of_a_message(10, 100)) for _ in range(3)]
    many, few = (statistics.median(costs) for costs in zip(*pairs, strict=True))
    report(
        "cost of a message, 1,000 clients / 10 clients",
        f"{many / few:.2f}×",
        "≤ 1.2×",
        f"same data per client: {many * 1e3:.2f} ms / {few * 1e3:.2f} ms; peak memory "
        f"{peak_memory():.2f} GB / {peak_before:.2f} GB",
    )


def peak_memory() -> float:
    """Return the most memory that this process has held, in GB."""
    try:
        import resource
    except ImportError:  # Windows
        return psutil.Process().memory_info().peak_wset / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


# ------------------------------------------------------------------------ the lessons

BEGIN = "import time\n_begin = time.perf_counter()"
END = f"""\
import sys, psutil
{inspect.getsource(peak_memory)}
print(time.perf_counter() - _begin, peak_memory())
"""


def bench_lesson(path: Path) -> None:
    """Run one lesson in a kernel that times and weighs itself."""
    notebook = nbformat.read(path, as_version=4)
    new_cell = nbformat.v4.new_code_cell
    notebook.cells = [new_cell(BEGIN), *notebook.cells, new_cell(END)]
    NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    printed = "".join(output.text for output in notebook.cells[-1].outputs).split()
    took, peak = map(float, printed)
    report(
        f"lesson {path.stem[:2]}",
        f"{took:.1f} s, {peak:.2f} GB",
        "< 30 s, < 1.5 GB",
        "import to last cell, peak memory of the kernel",
    )


def main() -> None:
    """Print the table, or the rows named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    benches = {
        "loop": bench_against_bare_loop,
        "flwr": bench_against_flwr_run,
        "many": bench_many_clients,
    }
    parser.add_argument("rows", nargs="*", help=f"{', '.join(benches)}, lessons")
    chosen = parser.parse_args().rows or [*benches, "lessons"]
    torch.manual_seed(0)
    os.environ["TQDM_DISABLE"] = "1"
    FLOWER_LOGGER.setLevel("ERROR")  # "Federated evaluation will be skipped": as meant
    print("| what | measured | held to | what ran |\n|---|---|---|---|")
    for name, bench in benches.items():
        if name in chosen:
            bench()
    if "lessons" in chosen:
        for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
            bench_lesson(path)


if __name__ == "__main__":
    main()
