"""Lessons ask for no network, no fresh kernel and no dataset of their own.

Each lesson runs once, with the network cut, with each cell twice, and on other data.
That it runs offline with its own data is shown by nbval (see whole_run.py).
"""

import os
import socket
import subprocess
import sys

import pytest
from datasets import ClassLabel, Features, Image
from run_offline import NO_NETWORK, offline
from whole_run import PROCESSES, ROOT, unit_of

from course_utils.data import load_dataset

# Those that start real processes have the data of the Flower App.
NOTEBOOKS = [
    path
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    if unit_of(path.relative_to(ROOT).as_posix()) != PROCESSES
]
# A few hundred: these are questions about code, not about minutes of training. (With
# 400, what lesson 00 says about learning no longer holds.)
IMAGES = {"train": 800, "test": 400}
# No bars; and experiments in the kernel itself, where no worker has to start first: in
# workers, nbval runs them.
ALONE = {"TQDM_DISABLE": "1", "LOKY_MAX_CPU_COUNT": "1"}


@pytest.fixture(scope="session")
def colour_dataset(tmp_path_factory) -> str:
    """Make some digits look like CIFAR-10: 32 by 32, in colour, in a column ``img``."""
    folder = tmp_path_factory.mktemp("hub")
    (folder / "data").mkdir()
    features = Features({"img": Image(), "label": ClassLabel(num_classes=10)})
    for name, split in zip(("train", "test"), load_dataset("mnist-5k"), strict=True):
        split.select(range(IMAGES[name])).map(
            lambda row: {"img": row["image"].convert("RGB").resize((32, 32))},
            remove_columns="image",
            features=features,
        ).to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")
    return str(folder)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_cell_runs_twice_offline_and_on_another_dataset(
    notebook, colour_dataset
) -> None:
    command, environment = offline(str(notebook), "2")
    done = subprocess.run(
        command,
        env=environment | ALONE | {"COURSE_DATASET": colour_dataset},
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr[-4000:]


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
