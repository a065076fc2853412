"""Measure the course's speed as ratios within one run: ``make bench``.

Prints one table. Each row is a ratio of two things measured side by side on this
machine, with what it ran and what it is held to, or a lesson's time and memory.
"""

import argparse
import inspect
import io
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import nbformat
import psutil
import torch
from federation import DEFAULTS, NODES, QUICK, Federation, run_command
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
from course_utils.deployment import Deployment
from course_utils.exercises import all_exercises
from course_utils.experiments import run_table
from course_utils.isolation import AppImage
from course_utils.partitions import load_partition
from course_utils.runtime import FLOWER_LOGGER, run_in_process

from federated_digits import client_app as client_module  # isort: skip
from federated_digits import server_app as server_module  # isort: skip

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


# --------------------------------------------------- the runtime against Flower's own


def here(nodes: int, settings: dict) -> float:
    """Run the course's Flower App in this process; return seconds."""
    with tempfile.TemporaryDirectory() as folder:
        config = DEFAULTS | settings | {"results-dir": folder}
        start = time.perf_counter()
        with redirect_stdout(io.StringIO()):
            run_in_process(
                server_module.app,
                client_module.app,
                num_supernodes=nodes,
                run_config=config,
                progress=False,
            )
        return time.perf_counter() - start


class Simulation(Deployment):
    """The same on the Simulation Runtime, by ``flwr run``."""

    def __enter__(self) -> "Simulation":
        self.flwr("list")  # starts the local SuperLink, which is not counted
        return self

    def seconds(self, nodes: int, settings: dict) -> float:
        """Run the app to its end; return seconds."""
        command = run_command(self.folder / "results", settings)[1:]
        command += ["--federation-config", f"num-supernodes={nodes}"]
        return seconds(lambda: self.flwr(command))


def bench_against_flwr_run() -> None:
    """Run one unmodified app on both runtimes."""
    here(CLIENTS, {})  # warm up
    ours = statistics.median(here(CLIENTS, {}) for _ in range(3))
    with Simulation() as simulation:
        theirs = simulation.seconds(CLIENTS, {})
    report(
        "`flwr run` (Simulation Runtime) / in-process runtime",
        f"{theirs / ours:.0f}×",
        "≥ 20×",
        f"one app, 10 SuperNodes, 3 rounds, half sampled: "
        f"{theirs:.1f} s / {ours:.2f} s",
    )


def bench_three_runtimes() -> None:
    """Run the app with three nodes on each runtime, and once more with other rounds.

    What the further rounds take is the time of a message: the start is in both.
    """

    def rounds(number: int) -> dict:
        return QUICK | {"num-server-rounds": number}

    here(NODES, rounds(1))  # warm up
    times = {"in-process": {n: here(NODES, rounds(n)) for n in (3, 15)}}
    with Simulation() as simulation:
        times["Simulation Runtime"] = {
            n: simulation.seconds(NODES, rounds(n)) for n in (3, 15)
        }
    with (
        tempfile.TemporaryDirectory() as folder,
        Federation(Path(folder)).start_all() as federation,
    ):
        results = federation.results
        times["SuperLink and SuperNodes"] = {
            n: seconds(lambda n=n: federation.flwr(run_command(results, rounds(n))[1:]))
            for n in (1, 3)
        }
    for name, took in times.items():
        (few, short), (many, long) = took.items()
        message = (long - short) / ((many - few) * NODES)
        report(
            f"the same run: {name}",
            f"{took[3]:.1f} s, {message:.2f} s a message",
            "–",
            f"{NODES} nodes, 3 rounds: {took[3] / times['in-process'][3]:.0f}× the "
            "first; a message with its reply and the training",
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


# ------------------------------------------------------------- a table of many runs


def draw_numbers(seed: int) -> dict[str, float]:
    """Compute on one core for about a second."""
    matrix = torch.rand(400, 400)
    for _ in range(1500):
        matrix = torch.softmax(matrix @ matrix, dim=0)
    return {"sum": matrix.sum().item()}


def bench_table() -> None:
    """Compare runs on two cores with the same runs one after the other."""
    run_table(draw_numbers, [{}], [0, 1], jobs=2)  # starts the workers
    times = {
        jobs: statistics.median(
            seconds(lambda jobs=jobs: run_table(draw_numbers, [{}], range(8), jobs))
            for _ in range(3)
        )
        for jobs in (2, 1)
    }
    report(
        "a table of runs on two cores / one after the other",
        f"{times[2] / times[1]:.2f}×",
        "≤ 0.65×",
        f"8 runs of one thread, medians of 3: {times[2]:.1f} s / {times[1]:.1f} s",
    )


# ----------------------------------------------------------- what an app brings along


def bench_copies() -> None:
    """Compare a copy of an app that uses tensors with cloning these tensors."""
    for count, size in ((1, 25_000_000), (10_000, 2_500)):
        tensors = [torch.rand(size) for _ in range(count)]
        app = ClientApp()
        app.query()(lambda message, context, used=tensors: used)
        with warnings.catch_warnings(action="ignore"):  # that 100 MB are much
            image = AppImage(app)

        def clone(tensors: list[torch.Tensor] = tensors) -> list[torch.Tensor]:
            return [tensor.clone() for tensor in tensors]

        pairs = [(seconds(image.fresh_copy), seconds(clone)) for _ in range(7)]
        ours, clones = (statistics.median(times) for times in zip(*pairs, strict=True))
        report(
            f"copying an app that uses {count:,} tensor(s) / cloning these",
            f"{ours / clones:.2f}×",
            "≤ 2×",
            f"100 MB, medians of 7: {ours * 1e3:.0f} ms / {clones * 1e3:.0f} ms",
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


# ---------------------------------------------------------------------- the exercises


def bench_sizes() -> None:
    """Count the lines of what judges exercises, and of what proves that it does."""
    files = [*(ROOT / "course_utils" / "exercises").glob("*.py")]
    files += (ROOT / "tests" / "answers").glob("*.*")
    lines = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in files}
    shared = {p.name: n for p, n in lines.items() if not p.stem[-2:].isdecimal()}
    report(
        "engine of the exercises", f"{shared['engine.py']} lines", "≤ 500", "engine.py"
    )
    report("all that lessons share", f"{sum(shared.values())} lines", "–", "*.py")
    by_lesson = Counter(int(name.split(".")[0]) for name in all_exercises())
    own = {
        lesson: sum(n for p, n in lines.items() if p.stem[-2:] == f"{lesson:02}")
        for lesson in by_lesson
    }
    # 4,500 is for lessons 00 to 07, with what all share; each later one has its own.
    total = sum(shared.values()) + sum(own[lesson] for lesson in own if lesson <= 7)
    count = sum(by_lesson[lesson] for lesson in by_lesson if lesson <= 7)
    said = f"{total} lines, {total / count:.0f} each"
    what = "judges, mistakes and answers"
    report(f"{count} exercises of lessons 00 to 07", said, "≤ 4500", what)
    for lesson, count in by_lesson.items():
        held_to = f"≤ {350 * count / 3:.0f}" if lesson > 7 else "–"
        name = f"{count} exercises of lesson {lesson:02}"
        report(name, f"{own[lesson]} lines", held_to, what)


# -------------------------------------------------------------------------- the tests


def bench_tests() -> None:
    """Run all tests as `make test` does, keep their durations, and sum them up."""
    command = [sys.executable, "-m", "pytest", "-n", "3", "--nbval", "--keep-durations"]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, "tests", "notebooks"], cwd=ROOT, capture_output=True, text=True
    )
    took = time.perf_counter() - start
    outcome = done.stdout.strip().splitlines()[-1].strip("= ")
    # 12 minutes for lessons 00 to 07, and 150 s of one of two cores for each further.
    further = len(list((ROOT / "notebooks").glob("[0-9]*.ipynb"))) - 8
    held_to = f"≤ {12 + further * 150 / 2 / 60:.1f} min"
    report("all tests", f"{took / 60:.1f} min", held_to, outcome)
    for spent, name in re.findall(r"^ *([\d.]+)  (lesson \d\d)$", done.stdout, re.M):
        held_to = "≤ 150 s" if int(name[-2:]) > 7 else "–"
        report(f"tests of {name}", f"{spent} s", held_to, "both notebooks, all tests")
    for spent, file in re.findall(r"^ *([\d.]+)  (\S+/\S+)$", done.stdout, re.M)[:12]:
        report(file, f"{spent} s", "–", "on one of four workers")


def main() -> None:
    """Print the table, or the rows named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    benches = {
        "loop": bench_against_bare_loop,
        "flwr": bench_against_flwr_run,
        "runtimes": bench_three_runtimes,
        "many": bench_many_clients,
        "table": bench_table,
        "copies": bench_copies,
        "sizes": bench_sizes,
    }
    parser.add_argument("rows", nargs="*", help=f"{', '.join(benches)}, lessons, tests")
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
    if "tests" in chosen:
        bench_tests()


if __name__ == "__main__":
    main()
