"""Lessons ask for no network, no fresh kernel and no dataset of their own.

Each lesson runs once, with the network cut, with each cell twice, and on other data.
That it runs offline with its own data is shown by nbval (see whole_run.py).
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from run_offline import NO_NETWORK, few_colour_images, namespace_command, offline
from whole_run import PROCESSES, ROOT, unit_of

# Those that start real processes have the data of the Flower App.
NOTEBOOKS = [
    path
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    if unit_of(path.relative_to(ROOT).as_posix()) != PROCESSES
]
# No bars; and experiments in the kernel itself, where no worker has to start first: in
# workers, nbval runs them.
ALONE = {"TQDM_DISABLE": "1", "LOKY_MAX_CPU_COUNT": "1"}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Iterator[Callable[[Path], None]]:
    """Start what runs notebooks, each cell twice."""
    command, environment = offline("2")
    folder = tmp_path_factory.mktemp("offline")
    environment |= ALONE | {"COURSE_DATASET": few_colour_images(folder / "hub")}
    log = folder / "log.txt"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):

        def run_one(notebook: Path) -> None:
            print(notebook, file=process.stdin, flush=True)
            status = process.stdout.readline()
            assert status == "0\n", f"{status}{log.read_text('utf-8')[-4000:]}"

        yield run_one


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_cell_runs_twice_offline_and_on_another_dataset(notebook, run) -> None:
    run(notebook)


def test_where_no_namespace_is_allowed_sockets_are_refused() -> None:
    code = (
        "import socket; socket.create_connection(('127.0.0.1', {port})).close();"
        "socket.create_connection(('192.0.2.1', 80), timeout=5)"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-c", code.format(port=port)],
            env={**os.environ, "PYTHONPATH": str(NO_NETWORK)},
            capture_output=True,
            text=True,
        )
    assert "The tests have cut the network: no connection to 192.0.2.1" in done.stderr


def test_a_namespace_that_may_not_be_changed_is_none(tmp_path, monkeypatch) -> None:
    # Some systems hand one out, and then let nobody switch its loopback on.
    unshare = tmp_path / "unshare"
    unshare.write_text('#!/bin/sh\n[ "$3" = true ]\n')
    unshare.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert namespace_command.__wrapped__() == []
