"""Run notebooks, or any command, with no network.

``python run_offline.py TIMES`` reads paths of notebooks, runs each, its cells as often
as is asked, and prints the exit status of each. ``python run_offline.py -- COMMAND``
runs a command. :func:`offline` says how to call these so that the network is cut. Not a
test itself: tests/test_offline.py and tests/browser.py use it.
"""

import json
import multiprocessing
import os
import shutil
import socket
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path

NO_NETWORK = Path(__file__).parent / "no_network"

IMPORTED = ["IPython", "matplotlib.pyplot", "pandas", "sklearn", "torchvision"]
IMPORTED += ["flwr_datasets", "flwr.clientapp", "flwr.serverapp", "mlxtend.data"]
IMPORTED += ["torch._dynamo"]  # which PyTorch imports with the first optimizer
"""What takes seconds to import, and nearly every lesson imports."""


@cache
def namespace_command() -> list[str]:
    """Return what to put before a command to run it without network interfaces.

    Returns
    -------
    list[str]
        An ``unshare`` command, or nothing where the machine does not allow it, or
        allows a namespace in which no loopback can be switched on.
    """
    if shutil.which("unshare") is None:
        return []
    command = ["unshare", "--net", "--map-root-user"]
    probe = [*command, sys.executable, __file__, "--", "true"]
    environment = {**os.environ, "COURSE_IN_NAMESPACE": "1"}
    done = subprocess.run(probe, env=environment, capture_output=True)
    return command if done.returncode == 0 else []


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


# A few hundred: these are questions about code, not about minutes of training. (With
# 400, what lesson 00 says about learning no longer holds.)
IMAGES = {"train": 800, "test": 400}


def few_colour_images(folder: Path) -> str:
    """Make some digits look like CIFAR-10: 32 by 32, in colour, in a column ``img``.

    Returns
    -------
    str
        What ``COURSE_DATASET`` is set to, so that lessons take them for their own.
    """
    from datasets import ClassLabel, Features, Image

    from course_utils.data import load_dataset

    (folder / "data").mkdir(parents=True)
    features = Features({"img": Image(), "label": ClassLabel(num_classes=10)})
    for name, split in zip(("train", "test"), load_dataset("mnist-5k"), strict=True):
        split.select(range(IMAGES[name])).map(
            lambda row: {"img": row["image"].convert("RGB").resize((32, 32))},
            remove_columns="image",
            features=features,
        ).to_parquet(folder / "data" / f"{name}-00000-of-00001.parquet")
    return str(folder)


def run_notebook(path: str, times: int) -> None:
    """Run each code cell several times in a row, and stop at the first error.

    Its figures are drawn, as in Jupyter. What it shows goes to the standard error.
    """
    from IPython.core.interactiveshell import InteractiveShell
    from matplotlib_inline.backend_inline import configure_inline_support

    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.chdir(Path(path).parent)
    sys.path.insert(0, "")
    shell = InteractiveShell.instance()
    configure_inline_support(shell, os.environ["MPLBACKEND"])
    for cell in json.loads(Path(path).read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            for _ in range(times):
                if not shell.run_cell("".join(cell["source"])).success:
                    sys.exit(1)  # the shell has shown the traceback


def run_notebooks(times: int) -> None:
    """Run the notebooks whose paths are read, and print the exit status of each.

    Each has a new process. Where the system can fork, that one starts with what is
    slow to import.
    """
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    can_fork = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if can_fork else "spawn")
    if can_fork:
        context.set_forkserver_preload(IMPORTED)
    for line in sys.stdin:
        process = context.Process(
            target=run_notebook, args=(line.strip(), times), daemon=True
        )
        process.start()
        process.join(900)
        process.kill()
        process.join()
        print(process.exitcode, flush=True)


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
    run_notebooks(int(first))


if __name__ == "__main__":
    main(*sys.argv[1:])
