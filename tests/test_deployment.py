"""Real processes: what starts, what is refused, what survives, and what is left."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from cryptography import x509
from federation import NODES, ROUNDS, Federation, distance, reference
from jupyter_client.manager import start_new_kernel

from course_utils import classroom
from course_utils.deployment import (
    CommandFailed,
    Deployment,
    Process,
    find_marked,
    free_port,
    make_certificates,
    make_supernode_key,
)

SLEEP = [
    sys.executable,
    "-c",
    "print('ready', flush=True); import time; time.sleep(99)",
]


# ------------------------------------------------------------- starting and watching


@pytest.fixture
def deployment(tmp_path):
    with Deployment(tmp_path / "deployment") as one:
        yield one


def test_a_process_is_waited_for_and_ended(deployment) -> None:
    process = deployment.start("sleeper", SLEEP, ready="ready")
    assert process.is_running and process.tail() == "ready"
    process.stop()
    assert not process.is_running and process.exit_code == -signal.SIGTERM


def test_a_process_that_ends_too_early_is_told_with_its_last_lines(deployment) -> None:
    command = [sys.executable, "-c", "print('no port left'); exit(3)"]
    with pytest.raises(CommandFailed, match=r"(?s)exit code 3 .*no port left"):
        deployment.start("hasty", command, ready="ready")


def test_a_wait_is_bounded_and_says_for_what(deployment) -> None:
    with pytest.raises(
        TimeoutError, match=r"(?s)did not print 'done' within 1 s.*ready"
    ):
        deployment.start("sleeper", SLEEP, ready="done", timeout=1)
    assert not deployment.processes["sleeper"].is_running


def test_a_command_that_is_not_there_is_told(deployment) -> None:
    with pytest.raises(FileNotFoundError, match="no command 'flower-hyperlink'"):
        deployment.start("link", "flower-hyperlink --insecure")


def test_a_name_that_runs_already_is_started_anew(deployment) -> None:
    first = deployment.start("sleeper", SLEEP, ready="ready")
    second = deployment.start("sleeper", SLEEP, ready="ready")
    assert not first.is_running and second.is_running


def test_a_failing_flwr_command_is_told(deployment) -> None:
    with pytest.raises(CommandFailed, match=r"(?s)flwr stop .*exit code.*RUN_ID"):
        deployment.flwr("stop not-a-number")


def test_a_stopped_deployment_starts_nothing(tmp_path) -> None:
    deployment = Deployment(tmp_path)
    deployment.stop()
    deployment.stop()  # twice does no harm
    with pytest.raises(RuntimeError, match="make a new one"):
        deployment.start("sleeper", SLEEP)


def test_certificates_name_the_hosts_and_end_when_asked(tmp_path) -> None:
    paths = make_certificates(tmp_path, ["10.0.0.7", "teacher.local"], days=-1)
    certificate = x509.load_pem_x509_certificate(paths["cert"].read_bytes())
    assert certificate.not_valid_after_utc < datetime.now(UTC)
    assert certificate.not_valid_before_utc < certificate.not_valid_after_utc
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert {str(name.value) for name in names.value} == {
        "127.0.0.1",
        "localhost",
        "10.0.0.7",
        "teacher.local",
    }
    assert paths["key"].stat().st_mode & 0o077 == 0


def test_a_supernode_key_is_for_its_owner_alone(tmp_path) -> None:
    private, public = make_supernode_key(tmp_path / "key")
    assert private.stat().st_mode & 0o077 == 0
    assert public.read_text().startswith("ecdsa-sha2-nistp384 ")


# ----------------------------------------------------------------- nothing stays behind

START = """
from course_utils.deployment import Deployment
deployment = Deployment()
command = "flower-superlink --insecure --host 127.0.0.1 --port {port}"
process = deployment.start("link", command, ready="Uvicorn running on")
print(deployment._id, deployment.folder)
"""


def eventually(condition, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def is_gone(deployment_id: str, folder: str, port: int) -> bool:
    return (
        not find_marked(deployment_id)
        and not Path(folder).exists()
        and not is_open(port)
    )


@pytest.mark.parametrize("ending", ["SIGKILL", "SIGTERM", "an exception", "the end"])
def test_nothing_is_left_however_its_owner_ends(ending) -> None:
    port = free_port()
    rest = {"an exception": "1 / 0", "the end": ""}.get(
        ending, "import time; time.sleep(99)"
    )
    code = START.format(port=port) + "import sys; sys.stdout.flush()\n" + rest
    owner = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with owner:
        mark, folder = owner.stdout.readline().split()
        if ending.startswith("SIG"):
            assert is_open(port) and len(find_marked(mark)) >= 2  # and its SuperExec
            owner.send_signal(getattr(signal, ending))
        owner.wait(30)
    assert eventually(lambda: is_gone(mark, folder, port))


def run_cell(client, code: str) -> str:
    """Run code in a kernel; return what it printed, or the error's name."""
    printed = []

    def hook(message) -> None:
        content = message["content"]
        printed.append(content.get("text") or content.get("ename") or "")

    client.execute_interactive(code, output_hook=hook, timeout=60)
    return "".join(printed).strip()


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
        message = client.get_iopub_msg(timeout=60)
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
    assert eventually(lambda: is_gone(*printed.split()[:2], port))


def test_an_interrupt_ends_the_wait_and_a_restart_ends_the_rest(kernel) -> None:
    manager, client = kernel
    port = free_port()
    mark, folder = run_cell(client, START.format(port=port)).split()
    wait = "print('waiting'); deployment.start('never', command, ready='never')"
    wait = wait.replace("command", repr(SLEEP))
    assert interrupted_cell(manager, client, wait).endswith("KeyboardInterrupt")
    # What was being started is stopped; what ran before runs on.
    state = "print(deployment.processes['never'].is_running, process.is_running)"
    assert run_cell(client, state) == "False True"
    assert is_open(port)
    manager.restart_kernel(now=True)
    assert eventually(lambda: is_gone(mark, folder, port))


def test_stop_ends_what_the_processes_started_themselves(tmp_path) -> None:
    with Federation(tmp_path).start_all() as federation:
        port = int(federation.address.split(":")[1])
        mark = federation._id
        assert len(find_marked(mark)) >= 2 * (1 + NODES)  # each with a SuperExec
    assert not find_marked(mark) and not is_open(port)


# ------------------------------------------------------------------- what is refused

REFUSED = "Exit Code: 305"  # Flower's code for "no connection to the SuperLink"


def refusal(federation: Federation, command: list[str]) -> str:
    """Start a SuperNode that must be refused, and return its log."""
    process = federation.start("refused", [*command, "--max-retries", "2"])
    assert process.wait() == 1, process.tail()
    assert "SuperNode ID:" not in process.log() and REFUSED in process.log()
    return process.log()


def test_who_is_refused_and_what_they_read(tmp_path) -> None:
    with Federation(tmp_path, secure=True) as federation:
        federation.start_superlink()
        good = federation.supernode_command(0)
        ca = str(tmp_path / "tls" / "ca.pem")
        other = make_certificates(tmp_path / "other")["ca"]
        wrong_ca = [str(other) if word == ca else word for word in good]
        log = refusal(federation, wrong_ca)
        assert "certificate verify failed: unable to get local issuer" in log

        position = good.index("--auth-supernode-private-key")
        without_key = good[:position]
        log = refusal(federation, without_key)
        assert "[code: 2001] SuperNode authentication is enabled." in log

        plain = [word for word in without_key if word != ca]
        plain[plain.index("--root-certificates")] = "--insecure"
        log = refusal(federation, plain)
        # Its SuperExec, which no longer finds it, may say the same after its end.
        own, _, _ = log.partition(REFUSED)
        assert own.count("Connection attempt failed, retrying") == 2

        stranger, _ = make_supernode_key(tmp_path / "stranger")
        log = refusal(federation, [*good[:-1], str(stranger)])
        assert "[code: 2004] Failed to activate SuperNode." in log

        assert federation.start("good", good, ready="SuperNode ID:").is_running
        federation.connect(federation.address)  # flwr without TLS
        with pytest.raises(CommandFailed, match="Connection to the SuperLink is un"):
            federation.flwr("list")


def test_an_expired_certificate_is_refused(tmp_path) -> None:
    with Federation(tmp_path, secure=True) as federation:
        make_certificates(tmp_path / "tls", days=-1)
        federation.start_superlink()
        command = federation._on(
            0, f"flower-supernode --superlink {federation.address}"
        )
        command += [*federation._node, "--port", str(free_port())]
        log = refusal(federation, command)
        assert "certificate verify failed: certificate has expired" in log


# ------------------------------------------------------------------ what survives


def test_a_killed_supernode_costs_a_round_its_reply_and_no_more(tmp_path) -> None:
    with Federation(tmp_path).start_all() as federation:
        run = federation.submit()
        supernode = federation.processes["supernode-1"]
        supernode.wait_for("Receiving: train")
        supernode.kill()
        federation.start_supernode(1)
        assert run.wait(240) == 0, run.tail()
        log = run.log()
        assert "Received 2 results and 1 failures" in log
        assert "Node Unavailable" in log
        # In the next round the new one is there.
        assert "Received 3 results and 0 failures" in log
        assert (federation.results / "final_model.pt").exists()


def test_a_killed_supernode_with_a_key_may_come_back_a_minute_later(tmp_path) -> None:
    with Federation(tmp_path, secure=True) as federation:
        federation.start_superlink()
        first = federation.start_supernode(0)
        first.kill()
        with pytest.raises(CommandFailed, match="Failed to activate SuperNode"):
            federation.start_supernode(0)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                second = federation.start_supernode(0)
                break
            except CommandFailed:
                time.sleep(5)
        assert node_id(second.log()) == node_id(first.log())


def node_id(log: str) -> str:
    return log.partition("SuperNode ID: ")[2].split()[0]


def test_a_client_that_raises_and_a_frozen_one(tmp_path) -> None:
    with Federation(tmp_path) as federation:
        federation.start_superlink()
        for number in (0, 1):
            federation.start_supernode(number)
        broken = federation.start_supernode(2, partition_id=7)
        run = federation.submit(num_server_rounds=1)
        assert run.wait(240) == 0, run.tail()
        assert "Received 2 results and 1 failures" in run.log()
        assert "ValueError: No partition 7: there are 3" in broken.log()
        model = torch.load(federation.results / "final_model.pt")

        # Frozen instead of broken: the same model, but nobody counts a failure.
        frozen = federation.start_supernode(2)
        seen = frozen.log().count("Receiving: train")
        run = federation.submit(num_server_rounds=1, round_timeout=20.0)
        frozen.wait_for("Receiving: train", times=seen + 1)
        frozen.suspend()
        assert run.wait(240) == 0, run.tail()
        frozen.resume()
        assert "Received 2 results and 0 failures" in run.log()
        assert distance(federation.results, model) <= 1e-5


def test_a_run_of_broken_clients_alone_ends_in_a_clear_error(tmp_path) -> None:
    with Federation(tmp_path) as federation:
        federation.start_superlink()
        for number in range(NODES):
            federation.start_supernode(number, partition_id=7)
        run = federation.submit(num_server_rounds=1)
        run.wait(240)
        assert "No client sent a model back: read the SuperNodes' logs." in run.log()
        assert not federation.results.exists()
        assert states(federation) == ["finished:failed"]


def states(federation: Federation) -> list[str]:
    """Return the status of each run, the latest first."""
    runs = json.loads(federation.flwr("list --format json"))["runs"]
    return [run["status"] for run in runs]


def test_a_killed_superlink_remembers_but_its_run_is_lost(tmp_path) -> None:
    with Federation(tmp_path).start_all() as federation:
        run = federation.submit()
        federation.processes["supernode-1"].wait_for("Receiving: train")
        federation.processes["superlink"].kill()
        assert run.wait(60) == 1
        assert "Connection to the SuperLink is unavailable" in run.log()

        federation.start_superlink()
        assert states(federation) == ["running"]  # it does not know better yet
        run = federation.submit()  # on the same SuperNodes, which have reconnected
        assert run.wait(240) == 0, run.tail()
        assert run.log().count(f"Received {NODES} results and 0 failures") == ROUNDS
        assert distance(federation.results, reference()) <= 1e-5
        assert eventually(
            lambda: states(federation) == ["finished:completed", "finished:failed"], 120
        )


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
        assert all(line in teacher.log() for line in lines) and len(lines) == 2
        for number, line in enumerate(lines):
            join = line.removeprefix("make supernode JOIN=")
            name = f"participant-{number}"
            parts.append(start_classroom(tmp_path, name, "supernode", join))
        teacher.wait_for("2 of 2 online: 0 1")
        settings = "num-server-rounds=1 fraction-evaluate=0.0"
        words = ["run", "--folder", str(room), "--config", settings]
        run = start_classroom(tmp_path, "run", *words)
        parts.append(run)
        assert run.wait(240) == 0, run.tail()
        assert "[ROUND 1/1]" in run.log() and "Received 2 results" in run.log()
        parts[1].press_control_c()  # one goes home
        teacher.wait_for("1 of 2 online: 1")
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


def test_a_room_that_is_started_again_keeps_its_lines(tmp_path) -> None:
    first = classroom.prepare(tmp_path, "10.0.0.7:9091", 3)
    assert classroom.prepare(tmp_path, "10.0.0.7:9091", 3) == first
    assert classroom.unpack(classroom.pack(first[2])) == first[2]
    assert [ticket["partition-id"] for ticket in first] == [0, 1, 2]
    assert not list(tmp_path.glob("keys/participant-?"))  # only the public halves
    with pytest.raises(ValueError, match=r"made for 3 participants at 10\.0"):
        classroom.prepare(tmp_path, "10.0.0.8:9091", 3)


def test_half_a_join_line_is_told() -> None:
    line = classroom.pack({"superlink": "10.0.0.7:9091", "ca": "x" * 500})
    for wrong in (line[:-9], line[3:], "", "hello world"):
        with pytest.raises(ValueError, match="This join line is not whole"):
            classroom.unpack(wrong)


def test_a_run_without_a_superlink_says_what_to_do_first(tmp_path) -> None:
    command = [sys.executable, "-m", "course_utils.classroom", "run"]
    command += ["--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "make superlink first" in done.stderr
