"""The whole series runs with the network cut, and with each cell run twice."""

import subprocess
import sys
from pathlib import Path

import pytest
from run_offline import NO_NETWORK, offline_command

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_cell_runs_twice_without_a_network(notebook) -> None:
    command, environment = offline_command(notebook)
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]


def test_where_no_namespace_is_allowed_sockets_are_refused() -> None:
    code = (
        "import socket; socket.create_connection(('127.0.0.1', {port})).close();"
        "socket.create_connection(('192.0.2.1', 80), timeout=5)"
    )
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-c", code.format(port=port)],
            env={"PYTHONPATH": str(NO_NETWORK)},
            capture_output=True,
            text=True,
        )
    assert "The tests have cut the network: no connection to 192.0.2.1" in done.stderr
