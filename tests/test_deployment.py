"""Real federations: what is refused, what survives, and what is left."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from federation import (
    NAMED,
    NODES,
    SLEEP,
    Federation,
    eventually,
    in_an_awkward_folder,
)
from jupyter_client.manager import start_new_kernel
from whole_run import run_cell

from course_utils.deployment import (
    Process,
    find_marked,
    free_port,
)


@pytest.fixture(autouse=True)
def tmp_path(tmp_path, monkeypatch):
    return in_an_awkward_folder(tmp_path, monkeypatch)


# ----------------------------------------------------------------- nothing stays behind

START = """
import sys
from course_utils.deployment import Deployment
deployment = Deployment()
command = "flower-superlink --insecure --host 127.0.0.1 --port {port}"
process = deployment.start("link", command, ready="Uvicorn running on")
print(deployment._id, deployment.folder)
"""


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def is_gone(deployment_id: str, folder: str, port: int) -> bool:
    return (
        not find_marked(deployment_id)
        and not Path(folder).exists()
        and not is_open(port)
    )


# What has a port of its own, and a child: much cheaper than a SuperLink.
SERVER = """
import http.server, signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"])
signal.signal(signal.SIGTERM, lambda *_: (child.kill(), sys.exit()))
server = http.server.HTTPServer(("127.0.0.1", {port}), None)
print("Uvicorn running on", flush=True)
server.serve_forever()
"""


@pytest.mark.parametrize("ending", ["SIGKILL", "SIGTERM", "an exception", "the end"])
def test_nothing_is_left_however_its_owner_ends(ending) -> None:
    port = free_port()
    rest = {"an exception": "1 / 0", "the end": ""}.get(
        ending, "import time; time.sleep(99)"
    )
    code = START.format(port=port) + "sys.stdout.flush()\n" + rest
    if ending != "SIGKILL":  # one of them with a real SuperLink
        server = [sys.executable, "-c", SERVER.format(port=port)]
        code = code.replace("command, ready", f"{server!r}, ready")
    owner = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with owner:
        mark, folder = owner.stdout.readline().rstrip().split(maxsplit=1)
        if ending.startswith("SIG"):
            assert is_open(port) and len(find_marked(mark)) >= 2  # and its child
            owner.send_signal(getattr(signal, ending))
        owner.wait(300)
    assert eventually(lambda: is_gone(mark, folder, port))


@pytest.fixture
def kernel():
    manager, client = start_new_kernel()
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def interrupted_cell(manager, client, code: str) -> str:
    """Run code that waits, and interrupt the kernel in the middle of it."""
    printed = []
    message_id = client.execute(code)
    while True:
        message = client.get_iopub_msg(timeout=300)
        if message["parent_header"].get("msg_id") != message_id:
            continue
        content = message["content"]
        if message["msg_type"] == "stream":
            printed.append(content["text"])
            if "waiting" in content["text"]:
                manager.interrupt_kernel()
        elif message["msg_type"] == "error":
            printed.append(content["ename"])
        elif content.get("execution_state") == "idle":
            return "".join(printed)


def test_nothing_is_left_after_an_interrupt_within_a_with_block(kernel) -> None:
    manager, client = kernel
    port = free_port()
    code = START.format(port=port) + "with deployment:\n    print('waiting')\n    "
    printed = interrupted_cell(manager, client, code + "process.wait(99)")
    assert printed.endswith("KeyboardInterrupt")
    mark, folder = printed.splitlines()[0].split(maxsplit=1)
    assert eventually(lambda: is_gone(mark, folder, port))


def test_an_interrupt_ends_the_wait_and_a_restart_ends_the_rest(kernel) -> None:
    manager, client = kernel
    port = free_port()
    mark, folder = run_cell(client, START.format(port=port)).split(maxsplit=1)
    wait = "print('waiting'); deployment.start('never', command, ready='never')"
    wait = wait.replace("command", repr(SLEEP))
    assert interrupted_cell(manager, client, wait).endswith("KeyboardInterrupt")
    # What was being started is stopped; what ran before runs on.
    state = "print(deployment.processes['never'].is_running, process.is_running)"
    assert run_cell(client, state) == "False True"
    assert is_open(port)
    manager.restart_kernel(now=True)
    assert eventually(lambda: is_gone(mark, folder, port))


# ------------------------------------------- what no lesson shows of a real federation

# Lesson 07 asserts in its cells, which nbval runs: who else is refused and what they
# read, the same model on all runtimes, and what becomes of a run when a client raises,
# hangs or dies, or the SuperLink does.


def test_a_supernode_without_a_key_is_refused_and_reads_why(tmp_path) -> None:
    with Federation(tmp_path, secure=True) as federation:
        federation.start_superlink()
        command = federation.supernode_command(0)
        del command[command.index("--auth-supernode-private-key") :]
        process = federation.start("refused", [*command, "--max-retries", "2"])
        assert process.wait() == 1, process.tail()
        assert "[code: 2001] SuperNode authentication is enabled." in process.log()
        assert "Exit Code: 305" in process.log()  # Flower's: no connection


def test_broken_clients_fail_a_run_a_dead_node_comes_back_as_another_all_say_goodbye(
    tmp_path,
) -> None:
    with Federation(tmp_path) as federation:
        federation.start_superlink()
        for number in range(NODES):
            federation.start_supernode(number, partition_id=7)
        run = federation.submit(num_server_rounds=1)
        run.wait()
        assert "No client sent a model back: read the SuperNodes' logs." in run.log()
        assert not federation.results.exists()
        listed = json.loads(federation.flwr("list --format json"))["runs"]
        assert [entry["status"] for entry in listed] == ["finished:failed"]

        supernode = federation.processes["supernode-0"]
        supernode.kill()
        before = node_id(supernode.log())
        assert node_id(federation.start_supernode(0).log()) != before

        # Stop lets a SuperNode say goodbye, and ends all that it has started.
        nodes = [federation.processes[f"supernode-{i}"] for i in range(NODES)]
        superlink, (first, *others) = federation.processes["superlink"], nodes
        port, mark = int(federation.address.split(":")[1]), federation._id
        assert len(find_marked(mark)) >= 2 * (1 + NODES)  # each with a SuperExec
        first.stop()
        assert first.exit_code == 0
        assert superlink.log().count(GOODBYE) == 1
        assert not find_marked(f"{mark}/{first.name}")
        for supernode in others:
            supernode.ask_to_end()
        for supernode in others:
            supernode.stop()
        assert [node.exit_code for node in others] == [0, 0]
        assert superlink.log().count(GOODBYE) == NODES
    assert not find_marked(mark) and not is_open(port)


GOODBYE = "[Fleet.DeactivateNode] Deactivated node_id="


def node_id(log: str) -> str:
    return log.partition("SuperNode ID: ")[2].split()[0]


# ----------------------------------------------------------------------- the classroom


class Terminal(Process):
    """A part of the classroom, as in a terminal of its own."""

    def press_control_c(self) -> None:
        self._popen.send_signal(signal.SIGINT)
        assert self.wait() == 0 and self.tail(1) == "Ended."


def start_classroom(folder: Path, name: str, *words: str) -> Terminal:
    command = [sys.executable, "-m", "course_utils.classroom", *words]
    environment = {**os.environ, "FLOWER_COURSE_DEPLOYMENT": f"{folder.name}/{name}"}
    return Terminal(name, command, folder / f"{name}.txt", environment)


def test_a_room_joins_by_one_line_each(tmp_path) -> None:
    room = tmp_path / "room"
    options = ["--participants", "2", "--folder", str(room), "--port", str(free_port())]
    options += ["--address", "127.0.0.1"]
    parts = []
    try:
        teacher = start_classroom(tmp_path, "teacher", "superlink", *options)
        parts.append(teacher)
        teacher.wait_for("0 of 2 online")
        lines = (room / "join-lines.txt").read_text().splitlines()
        assert len(lines) == 2 and "0 of 2 online: nobody yet" in teacher.log()
        # Private keys are for no projector: what is printed is where they are.
        assert str(room / "join-lines.txt") in teacher.log()
        assert not any(line[-40:] in teacher.log() for line in lines)
        assert (room / "join-lines.txt").stat().st_mode & 0o077 == 0
        for number, line in enumerate(lines):
            join = line.removeprefix("make supernode JOIN=")
            words = ["supernode", join, *(["--name", NAMED] if number == 0 else [])]
            parts.append(start_classroom(tmp_path, f"participant-{number}", *words))
        teacher.wait_for("2 of 2 online: 0 1")
        settings = "num-server-rounds=1 fraction-evaluate=0.0"
        words = ["run", "--folder", str(room), "--config", settings]
        run = start_classroom(tmp_path, "run", *words)
        parts.append(run)
        assert run.wait() == 0, run.tail()
        assert f"Here: 0 {NAMED}, 1." in run.log()
        columns = run.log().split("train-loss  accuracy\n")[1].split()
        assert columns[:5] == ["1/1", "2", "2", "2", "0"] and 0 < float(columns[6]) < 1
        assert "[ROUND 1/1]" in (room / "run.log").read_text(encoding="utf-8")
        teacher.wait_for(f"2 of 2 online: 0 {NAMED}, 1")
        parts[1].press_control_c()  # one goes home, and says so
        assert "You have left. The teacher sees that participant 0" in parts[1].log()
        teacher.wait_for(f"1 of 2 online: 1 (has left: 0 {NAMED})")
        assert GOODBYE in (room / "superlink.log").read_text(encoding="utf-8")
    finally:
        for part in reversed(parts):
            if part.is_running:
                part.press_control_c()


def test_a_room_without_a_network_is_one_machine(tmp_path) -> None:
    options = ["--participants", "2", "--folder", str(tmp_path / "room"), "--here"]
    options += ["--port", str(free_port()), "--address", "127.0.0.1"]
    teacher = start_classroom(tmp_path, "teacher", "superlink", *options)
    try:
        teacher.wait_for("2 of 2 online: 0 1")
    finally:
        teacher.press_control_c()
