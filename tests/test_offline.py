"""The whole series runs with the network cut: cells twice over, and on other data."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import ClassLabel, Features, Image
from run_offline import NO_NETWORK, offline

from course_utils.data import load_dataset

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9]*.ipynb"))
# From lesson 06 on, they start real processes and have the data of the Flower App. They
# take minutes, so tests/test_jupyterlab.py alone runs them offline.
FIRST_ON_RUNTIMES = 6
in_process = pytest.mark.parametrize(
    "notebook", NOTEBOOKS[:FIRST_ON_RUNTIMES], ids=lambda p: p.stem
)


def run_offline(notebook: Path, times: int, **variables: str) -> None:
    command, environment = offline(str(notebook), str(times))
    done = subprocess.run(
        command,
        env={**environment, "TQDM_DISABLE": "1", **variables},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@in_process
def test_each_cell_runs_twice_without_a_network(notebook) -> None:
    run_offline(notebook, times=2)


@pytest.fixture(scope="session")
def colour_dataset(tmp_path_factory) -> str:
    """Make the digits look like CIFAR-10: 32 by 32, in colour, in a column ``img``."""
    folder = tmp_path_factory.mktemp("hub")
    (folder / "data").mkdir()
    features = Features({"img": Image(), "label": ClassLabel(num_classes=10)})
    for name, split in zip(("train", "test"), load_dataset("mnist-5k"), strict=True):
        split.map(
            lambda row: {"img": row["image"].convert("RGB").resize((32, 32))},
            remove_columns="image",
            features=features,
        ).to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")
    return str(folder)


@in_process
def test_each_lesson_runs_on_another_dataset(notebook, colour_dataset) -> None:
    run_offline(notebook, times=1, COURSE_DATASET=colour_dataset)


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
