"""A federation of real processes that runs the course's Flower App.

Not a test itself: several tests use it.
"""

import ast
import re
import sys
import tempfile
import time
import tomllib
from functools import cache
from pathlib import Path

import torch
from whole_run import AWKWARD

from course_utils.classroom import APP
from course_utils.deployment import (
    SUPERLINK_READY,
    Deployment,
    Process,
    free_port,
    make_certificates,
    make_supernode_key,
    toml_string,
)
from course_utils.runtime import run_in_process

sys.path.insert(0, str(APP))
SETTINGS = tomllib.loads((APP / "pyproject.toml").read_text(encoding="utf-8"))
DEFAULTS = SETTINGS["tool"]["flwr"]["app"]["config"]
NODES, ROUNDS = 3, 2
QUICK = {
    "num-server-rounds": ROUNDS,
    "fraction-train": 1.0,
    "fraction-evaluate": 0.0,
    "min-available-nodes": NODES,
}


def imported_by(app: Path) -> set[str]:
    """Return the packages that an app's files import, but for Python's own."""
    imported = set()
    for path in app.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.split(".")[0])
    return imported - set(sys.stdlib_module_names)


def program_in(lesson: Path, words: str) -> str:
    """Return the one program with some words that a lesson's prose shows."""
    text = re.sub(r"^# ?", "", lesson.read_text("utf-8"), flags=re.MULTILINE)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (program,) = [block for block in blocks if words in block]
    return program


def train_here(folder: Path) -> None:
    """Train with :data:`QUICK` on the in-process runtime, and save in a folder."""
    from federated_digits import client_app, server_app

    run_in_process(
        server_app.app,
        client_app.app,
        num_supernodes=NODES,
        run_config=DEFAULTS | QUICK | {"results-dir": str(folder)},
        progress=False,
    )


@cache
def reference() -> dict[str, torch.Tensor]:
    """Return the model that :func:`train_here` makes."""
    with tempfile.TemporaryDirectory() as folder:
        train_here(Path(folder))
        return torch.load(Path(folder, "final_model.pt"))


def distance(folder: Path, state: dict[str, torch.Tensor]) -> float:
    """Return the largest difference between a saved model's weights and others."""
    saved = torch.load(folder / "final_model.pt")
    assert saved.keys() == state.keys()
    return max((saved[name] - state[name]).abs().max().item() for name in state)


def run_command(results: Path, settings: dict) -> list[str]:
    """Return the command that runs the app, streaming its log."""
    text = " ".join(f"{key}={value}" for key, value in settings.items())
    text += f" results-dir={toml_string(results)}"
    return ["flwr", "run", str(APP), "--stream", "--run-config", text]


SLEEP = [
    sys.executable,
    "-c",
    "print('ready', flush=True); import time; time.sleep(99)",
]
"""A program that says when it is ready, and then waits."""

NAMED = 'Ada "λ" O\'Hara = 花\\'
"""A name with all that could be taken for something else."""


def eventually(condition, seconds: float = 300) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def in_an_awkward_folder(folder: Path, monkeypatch) -> Path:
    """Let a test, and what it starts, work in a folder with an awkward name.

    So does the Simulation Runtime in lesson 06, whose kernel whole_run.py starts.
    """
    folder = folder / AWKWARD
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


class Federation(Deployment):
    """A SuperLink and SuperNodes, on this machine or on hosts of their own.

    Parameters
    ----------
    folder : Path
        Where everything of it lies.
    secure : bool
        Whether to use TLS and to let in registered SuperNodes only.
    hosts : Hosts, optional
        The SuperLink runs on host 0, SuperNode ``i`` on host ``i + 1``, and the
        commands ``flwr`` on the last one. Default: everything here.
    """

    def __init__(self, folder: Path, *, secure: bool = False, hosts=None) -> None:
        super().__init__(folder)
        self.results = self.folder / "results"
        self._hosts = hosts
        host = "127.0.0.1" if hosts is None else hosts.addresses[0]
        port = free_port() if hosts is None else 9091
        self.address = f"{host}:{port}"
        self._link = [*self._on(0), "flower-superlink", "--host", host]
        self._link += ["--port", str(port), "--database", str(self.folder / "state.db")]
        self._node = ["--insecure"]
        self._secure = secure
        if secure:
            tls = make_certificates(self.folder / "tls", [host])
            for option, name in (("ca-cert", "ca"), ("cert", "cert"), ("key", "key")):
                self._link += [f"--ssl-{option}file", str(tls[name])]
            self._link += ["--enable-supernode-auth"]
            self._node = ["--root-certificates", str(tls["ca"])]
        else:
            self._link += ["--insecure"]
        self.connect(self.address, tls["ca"] if secure else None)

    def _on(self, host: int) -> list[str]:
        """Return what to put before a command to run it on a host."""
        return [] if self._hosts is None else self._hosts.command(host)

    def start_superlink(self) -> Process:
        """Start the SuperLink, or start it again on its database."""
        return self.start("superlink", self._link, ready=SUPERLINK_READY)

    def supernode_command(self, number: int, *, partition_id: int | None = None):
        """Return the command of one SuperNode, its key made and registered."""
        partition_id = number if partition_id is None else partition_id
        command = [*self._on(number + 1), "flower-supernode"]
        command += ["--superlink", self.address, *self._node]
        data = f"partition-id={partition_id} num-partitions={NODES}"
        command += ["--port", str(free_port()), "--node-config", data]
        if self._secure:
            key = self.folder / f"key-{number}"
            if not key.exists():
                _, public = make_supernode_key(key)
                self.ask("supernode", "register", str(public))
            command += ["--auth-supernode-private-key", str(key)]
        return command

    def start_supernode(self, number: int, **options: int) -> Process:
        """Start one SuperNode, and wait until the SuperLink has let it in."""
        command = self.supernode_command(number, **options)
        return self.start(f"supernode-{number}", command, ready="SuperNode ID:")

    def start_all(self) -> "Federation":
        """Start the SuperLink and all SuperNodes."""
        self.start_superlink()
        for number in range(NODES):
            self.start_supernode(number)
        return self

    def ask(self, *words: str) -> str:
        """Run a ``flwr`` command where such commands are run."""
        process = self.start("ask", [*self._on(-1), "flwr", *words])
        assert process.wait() == 0, process.tail()
        return process.log()

    def submit(self, **settings: object) -> Process:
        """Submit a run, and wait until its first round has begun."""
        config = QUICK | {k.replace("_", "-"): v for k, v in settings.items()}
        command = [*self._on(-1), *run_command(self.results, config)]
        return self.start("run", command, ready="[ROUND 1/")
