"""Run a notebook, or any command, with no network.

``python run_offline.py NOTEBOOK TIMES`` runs a notebook, each of its cells as often as
is asked, and ``python run_offline.py -- COMMAND`` a command. :func:`offline` says how
to call these so that the network is cut. Not a test itself: tests/test_offline.py and
tests/browser.py use it.
"""

import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NO_NETWORK = Path(__file__).parent / "no_network"


def namespace_command() -> list[str]:
    """Return what to put before a command to run it without network interfaces.

    Returns
    -------
    list[str]
        An ``unshare`` command, or nothing where the machine does not allow it.
    """
    if shutil.which("unshare") is None:
        return []
    command = ["unshare", "--net", "--map-root-user"]
    allowed = subprocess.run([*command, "true"], capture_output=True).returncode == 0
    return command if allowed else []


def offline(*arguments: str) -> tuple[list[str], dict[str, str]]:
    """Return the command that runs this file offline, and its environment.

    Parameters
    ----------
    *arguments : str
        What this file is called with.
    """
    environment = dict(os.environ)
    prefix = namespace_command()
    if prefix:
        environment["COURSE_IN_NAMESPACE"] = "1"
    else:
        path = [str(NO_NETWORK), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    return [*prefix, sys.executable, __file__, *arguments], environment


def enter_namespace() -> None:
    """Switch the loopback on, which a new namespace has switched off."""
    import fcntl  # not on Windows, which has no namespaces either

    names = [name for _, name in socket.if_nameindex()]
    assert names == ["lo"], f"the network is not cut: {names}"
    SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh", b"lo", IFF_UP)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, request)


def repeated(notebook: NotebookNode, times: int) -> NotebookNode:
    """Return the notebook with each code cell several times in a row."""
    cells = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            new_cell = nbformat.v4.new_code_cell
            cells += [new_cell(cell.source) for _ in range(times)]
    return nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)


def run_notebook(path: Path, times: int) -> None:
    """Run one notebook; an error in a cell ends this with its traceback."""
    notebook = repeated(nbformat.read(path, as_version=4), times)
    NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}
    ).execute()


def main(first: str, *others: str) -> None:
    """Run what the command line asks for."""
    if "COURSE_IN_NAMESPACE" in os.environ:
        enter_namespace()
    if first == "--":
        # The command takes this process's place, and keeps its id. Windows can't do
        # that, so there the command is a child, and this process waits for it.
        if os.name != "nt":
            os.execvp(others[0], others)
        sys.exit(subprocess.run(others).returncode)
    run_notebook(Path(first), int(others[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
