"""What Deployment and the classroom do, shown with programs that are not Flower's.

So these may run beside what starts SuperLinks and SuperNodes (see whole_run.py).
"""

import io
import json
import logging
import os
import signal
import subprocess
import sys
import sysconfig
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from cryptography import x509
from federation import NAMED, SLEEP, eventually, in_an_awkward_folder
from flwr.app import Context, RecordDict
from flwr.common.config import parse_config_args

from course_utils import classroom
from course_utils.deployment import (
    LONGEST_FOR_RAY,
    PAGE,
    CommandFailed,
    Deployment,
    free_port,
    guard,
    make_certificates,
    make_supernode_key,
)
from course_utils.runtime import InProcessGrid

MAKEFILE = Path(__file__).parents[1] / "Makefile"


@pytest.fixture(autouse=True)
def tmp_path(tmp_path, monkeypatch):
    return in_an_awkward_folder(tmp_path, monkeypatch)


@pytest.fixture
def deployment(tmp_path):
    with Deployment(tmp_path / "deployment") as one:
        yield one


# ------------------------------------------------------------- starting and watching


def test_a_process_is_waited_for_and_ended(deployment) -> None:
    process = deployment.start("sleeper", SLEEP, ready="ready")
    assert process.is_running and process.tail() == "ready"
    process.stop()
    assert not process.is_running and process.exit_code == -signal.SIGTERM


def test_a_process_that_ends_too_early_is_told_with_its_last_lines(deployment) -> None:
    command = [sys.executable, "-c", "print('no port left'); exit(3)"]
    with pytest.raises(CommandFailed, match=r"(?s)exit code 3 .*no port left"):
        deployment.start("hasty", command, ready="ready")


def test_of_a_process_that_ends_too_early_the_first_error_is_told(deployment) -> None:
    lines = ["all is well", "ValueError: no data", *["at last"] * 20]
    command = [sys.executable, "-c", f"print(*{lines!r}, sep=chr(10))"]
    with pytest.raises(CommandFailed, match=r"first error: ValueError: no data\nIts"):
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


def test_a_command_is_this_environments_own(deployment) -> None:
    program, *_ = deployment.start("uv", "uv --version")._popen.args
    # As Windows needs it, which does not look where it is told to.
    assert Path(program).parent == Path(sysconfig.get_path("scripts"))


def test_a_name_that_runs_already_is_started_anew(deployment) -> None:
    first = deployment.start("sleeper", SLEEP, ready="ready")
    second = deployment.start("sleeper", SLEEP, ready="ready")
    assert not first.is_running and second.is_running


def test_of_a_log_the_lines_that_matter_are_folded_to_a_page(deployment) -> None:
    lines = ["INFO :      [ROUND 1]", "INFO :      waits", *["INFO :      waits"] * 3]
    lines += ["of no interest", "waits " * 30, "waits"]
    process = deployment.start("log", [sys.executable, "-c", f"print({lines!r})"])
    process.wait()
    process.log_path.write_text("\n".join(lines), encoding="utf-8")
    first, once, long, rest, last = process.grep("[ROUND", "waits").splitlines()
    assert (first, once, last) == ("[ROUND 1]", "waits", "waits")
    assert len(long) <= PAGE and rest.startswith("    waits")


def test_the_tree_names_programs_below_those_that_started_them(deployment) -> None:
    code = "import subprocess as s; s.run(['sleep', '99'])"
    deployment.start("parent", [sys.executable, "-c", code])
    assert eventually(lambda: deployment.tree() == ["-c", "    99"])
    deployment.processes["parent"].stop()
    assert deployment.tree() == []


def test_its_processes_run_in_its_folder(deployment) -> None:
    code = "import os; print(os.getcwd())"
    process = deployment.start("where", [sys.executable, "-c", code])
    process.wait()
    assert process.log().strip() == str(deployment.folder)


def test_a_failing_flwr_command_is_told(deployment) -> None:
    with pytest.raises(CommandFailed, match=r"(?s)flwr stop .*exit code.*RUN_ID"):
        deployment.flwr("stop not-a-number")


SLOW = """
import pathlib, sys
tries = pathlib.Path(sys.argv[1])
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
print("first step")
if len(tries.read_text()) <= int(sys.argv[2]):
    print("Exception: The current node timed out during startup. This could happen")
    sys.exit()  # as `flwr run --stream` does: with 0
print("second step")
"""
STEPS = [("one", "first step", 1), ("two", "second step", 1)]


def slow(folder: Path, times: int) -> list[str]:
    return [sys.executable, "-c", SLOW, str(folder / f"tries-{times}"), str(times)]


def start_slowly(deployment: Deployment, monkeypatch, folder: Path, times: int) -> None:
    """Let the next commands be too slow so many times, whatever they are."""
    start, words = deployment.start, slow(folder, times)
    monkeypatch.setattr(deployment, "start", lambda name, _: start(name, words))


def test_what_a_busy_machine_starts_too_slowly_is_started_again(
    deployment, tmp_path, capsys
) -> None:
    reached = deployment.follow("run", slow(tmp_path, 0), STEPS)
    assert list(reached) == ["one", "two", "the command is back"]
    assert capsys.readouterr().out == ""
    deployment.follow("run", slow(tmp_path, 2), STEPS)
    said = "Ray did not start in time: this machine is busy. Trying again ({} of 3).\n"
    assert capsys.readouterr().out == said.format(2) + said.format(3)
    with pytest.raises(CommandFailed, match=r"busy\. That was attempt 3\. End other"):
        deployment.follow("run", slow(tmp_path, 3), STEPS)
    with pytest.raises(CommandFailed, match="did not print 'third step'"):
        deployment.follow("run", slow(tmp_path, 0), [("three", "third step", 1)])


def test_a_flwr_command_that_was_too_slow_is_run_again(
    deployment, tmp_path, capsys, monkeypatch
) -> None:
    start_slowly(deployment, monkeypatch, tmp_path, 1)
    assert deployment.flwr("run .") == "first step\nsecond step\n"
    assert "Ray did not start in time" in capsys.readouterr().out


def test_the_log_of_a_run_that_was_too_slow_can_be_read(
    deployment, tmp_path, capsys, monkeypatch
) -> None:
    start_slowly(deployment, monkeypatch, tmp_path, 3)
    assert "timed out during startup" in deployment.flwr("log 1 --show")
    assert capsys.readouterr().out == ""


def test_an_answer_that_says_it_failed_is_told(deployment) -> None:
    deployment.connect(f"127.0.0.1:{free_port()}")  # nobody is there
    with pytest.raises(CommandFailed, match="Connection to the SuperLink is un"):
        deployment.flwr("supernode list course --format json")


def environment_of(deployment: Deployment) -> dict[str, str]:
    code = "import os, json; print(json.dumps(dict(os.environ)))"
    process = deployment.start("environment", [sys.executable, "-c", code])
    process.wait()
    assert process.log_path.name == "environment.log"
    return json.loads(process.log())


def test_what_its_processes_need_of_their_environment(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "example.org")
    with Deployment(tmp_path / "a") as one, Deployment(tmp_path / "b") as other:
        first, second = environment_of(one), environment_of(other)
    # Two people on one machine: neither's runs go to the other's local SuperLink.
    port = "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"
    assert first[port] != second[port]
    assert first["no_proxy"] == "example.org,127.0.0.1,localhost,::1"
    assert first["NO_PROXY"] == first["no_proxy"]
    assert first["PYTHONUTF8"] == "1"  # Windows has no other way to log what flwr says
    # Beside other programs, Ray's workers would hardly ever run.
    assert first["RAY_worker_niceness"] == "0"


def test_rays_folder_is_short_and_goes_with_the_rest(tmp_path) -> None:
    with Deployment(tmp_path) as deployment:
        folder = Path(environment_of(deployment)["RAY_TMPDIR"])
        assert folder.is_dir() and len(str(folder)) <= LONGEST_FOR_RAY
    assert eventually(lambda: not folder.exists())


def test_a_folders_name_may_have_any_character(tmp_path) -> None:
    folder = tmp_path / 'kurs 🌸 "x"'
    with Deployment(folder) as deployment:
        path = deployment.connect("127.0.0.1:9", folder / "ca.pem")
    settings = tomllib.loads(path.read_text(encoding="utf-8"))["superlink"]
    assert settings["course"]["root-certificates"] == str(folder / "ca.pem")


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


# As a SuperNode does: says goodbye for a while, and then ends its own child.
GOES_SLOWLY = """
import signal, subprocess, sys, time

def asked(*_):
    print("asked", flush=True)
    time.sleep(1)
    child.kill()
    sys.exit()

is_asked = "print('child asked', flush=True)"
child = f"import signal, time; signal.signal(signal.SIGTERM, lambda *_: {is_asked}); "
child += "print('child', flush=True); [time.sleep(9) for _ in range(9)]"
child = subprocess.Popen([sys.executable, "-c", child])
signal.signal(signal.SIGTERM, asked)
print("parent", flush=True)
time.sleep(99)
"""


def test_each_process_is_asked_to_end_once_and_ends_its_own_child(deployment) -> None:
    command = [sys.executable, "-c", GOES_SLOWLY]
    stopped, guarded = (deployment.start(name, command) for name in ("one", "two"))
    for process in (stopped, guarded):
        process.wait_for("parent\n")
        process.wait_for("child\n")
    stopped.ask_to_end()
    stopped.wait_for("asked")  # before that, two requests may arrive as one
    stopped.stop()
    deployment._guard.stdin.close()  # as when the notebook's kernel is gone
    guarded.wait()
    for process in (stopped, guarded):
        assert process.log().count("asked") == 1 and process.exit_code == 0


# As Ray's agents after `flwr stop`: without a parent, and deaf.
LEAVES_AN_AGENT = """
import subprocess, sys
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
deaf += "print('deaf', flush=True); time.sleep(999)"
words = ["ray::Agent", "-c", deaf]
agent = subprocess.Popen(words, executable=sys.executable, stdout=subprocess.PIPE)
print(agent.pid, agent.stdout.readline(), flush=True)
"""


def test_nobody_waits_for_what_ray_has_left(deployment, monkeypatch) -> None:
    parent = deployment.start("run", [sys.executable, "-c", LEAVES_AN_AGENT])
    parent.wait()
    agent = psutil.Process(int(parent.log().split()[0]))
    sleeper = deployment.start("sleeper", SLEEP, ready="ready")
    waits, really = [], psutil.wait_procs

    def wait(processes: list[psutil.Process], timeout: float) -> tuple:
        waits.append({process.pid for process in processes})
        return really(processes, timeout)

    monkeypatch.setattr(psutil, "wait_procs", wait)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    guard(deployment._id)
    assert waits == [{sleeper._popen.pid}, {agent.pid}]  # asked, and then killed
    assert not agent.is_running()


# ----------------------------------------------------------------------- the classroom


def test_a_room_that_is_started_again_keeps_its_lines(tmp_path) -> None:
    first = classroom.prepare(tmp_path, "10.0.0.7:9091", 3)
    assert classroom.prepare(tmp_path, "10.0.0.7:9091", 3) == first
    assert classroom.unpack(classroom.pack(first[2])) == first[2]
    assert [ticket["partition-id"] for ticket in first] == [0, 1, 2]
    assert not list(tmp_path.glob("keys/participant-?"))  # only the public halves
    with pytest.raises(ValueError, match=r"made for 3 participants at 10\.0"):
        classroom.prepare(tmp_path, "10.0.0.8:9091", 3)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("10.0.0.300", "four numbers from 0 to 255"),
        ("10.0.0.7:9091", "A port is set by --port"),
        ("::1", "IPv6 addresses are not supported"),
        ("10.0.0.0/24", "is no name of a machine"),
        ("my_laptop", "Give the machine's IP address instead"),
    ],
)
def test_an_address_that_cannot_be_reached_is_told(address, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        classroom.checked(address)


def test_an_address_is_taken_as_it_is() -> None:
    for address in ("10.0.0.7", "teacher.local", "laptop-7"):
        assert classroom.checked(address) == address


def test_a_supernode_started_again_names_its_host_once(deployment, monkeypatch) -> None:
    monkeypatch.setattr(deployment, "start", lambda name, words: None)
    ticket = {"superlink": "10.0.0.7:9091", "ca": "", "key": ""}
    ticket |= {"partition-id": 0, "num-partitions": 2}
    for _ in range(3):
        classroom.start_supernode(deployment, ticket)
    assert deployment.direct.count("10.0.0.7") == 1


def test_a_room_without_participants_is_told(tmp_path) -> None:
    command = [sys.executable, "-m", "course_utils.classroom", "superlink"]
    command += ["--participants", "0", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "at least one participant" in done.stderr


def test_a_name_reaches_the_node_config_as_it_is(deployment, monkeypatch) -> None:
    words = []
    monkeypatch.setattr(
        deployment, "start", lambda name, command: words.extend(command)
    )
    ticket = {"superlink": "10.0.0.7:9091", "ca": "", "key": ""}
    ticket |= {"partition-id": 0, "num-partitions": 2}
    classroom.start_supernode(deployment, ticket, NAMED)
    config = parse_config_args([words[words.index("--node-config") + 1]])
    assert config == {"partition-id": 0, "num-partitions": 2, "name": NAMED}


def test_a_name_is_short_and_can_be_seen() -> None:
    assert classroom.checked_name("  Ada  Lovelace ") == "Ada Lovelace"
    assert classroom.checked_name(
        "花" * 40
    ) == "花" * 40 and not classroom.checked_name("")
    for wrong in ("x" * 41, "a\x1b[2J", "a\u202eb"):
        with pytest.raises(ValueError, match="at most 40 characters"):
            classroom.checked_name(wrong)
    assert classroom.shown_name("a\x1b[2J\n" + 99 * "b") == "a [2J " + 34 * "b"


@pytest.mark.parametrize("typed", [["NAME=Ada L"], []])
def test_make_hands_on_a_name_that_was_typed(typed, tmp_path) -> None:
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s|" "$@"\n', encoding="utf-8")
    python.chmod(0o700)
    (python.parents[1] / "installed").touch()
    for name in ("pyproject.toml", "requirements.txt"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    command = ["make", "-s", "-f", str(MAKEFILE), "supernode", "JOIN=abc", *typed]
    # Some systems set a variable of this name: that is not what somebody goes by.
    environment = {**os.environ, "NAME": "LAPTOP-7"}
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    words = done.stdout.split("|")[:-1]
    assert words[2:] == ["supernode", "abc", *(["--name", "Ada L"] if typed else [])]


def test_a_run_is_a_table_with_names_and_no_exponents(
    tmp_path, capsys, caplog, monkeypatch
) -> None:
    app = classroom.make_room_app(tmp_path)
    settings = tomllib.loads((app / "pyproject.toml").read_text(encoding="utf-8"))
    parts = settings["tool"]["flwr"]["app"]["components"]
    assert parts == {
        "serverapp": "federated_digits.room:server_app",
        "clientapp": "federated_digits.room:client_app",
    }
    config = settings["tool"]["flwr"]["app"]["config"] | {"num-server-rounds": 2}
    config |= {"fraction-train": 1.0, "fraction-evaluate": 0.0}
    room = {}
    code = (app / "federated_digits" / "room.py").read_text(encoding="utf-8")
    exec(compile(code, "room.py", "exec"), room)  # as it is, under any name
    grid = InProcessGrid(
        room["client_app"], 3, run_config=config, seed=0, client_errors="reply"
    )
    first, _, third = grid.node_contexts.values()
    first.node_config["name"] = "Ada"
    third.node_config["partition-id"] = 99  # it fails, in each round
    context = Context(1, 0, {}, RecordDict(), config | {"results-dir": str(tmp_path)})
    caplog.set_level("INFO", logger="flwr")
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    room["server_app"](grid, context)
    said = [f"INFO :      {record.getMessage()}" for record in caplog.records]
    printed = capsys.readouterr().out.splitlines()
    nodes = {str(node): number for number, node in enumerate(grid.node_contexts)}
    view = classroom.RunView(nodes, {1: "Grace"})
    view.read("\n".join([*printed, *said]))
    here, saved, before, *rest = capsys.readouterr().out.splitlines()
    assert (here, saved[:8]) == ("Here: 0 Ada, 1 Grace, 2.", "Saved in")
    assert before.startswith("Before training, the accuracy is 0.") and view.is_saved
    failed, header, one, again, two = rest
    assert failed.startswith("  failed: 2: ") and again == failed
    assert header.split() == list(view.COLUMNS) and len(one) == len(header) == len(two)
    for number, row in enumerate((one, two), start=1):
        assert row.split()[:5] == [f"{number}/2", "3", "3", "2", "1"]
        assert "e" not in row and 0 < float(row.split()[6]) <= 1


def test_who_comes_and_goes_is_told(deployment, capsys, monkeypatch) -> None:
    looks = [set(), {0}, {0, 1}, {0, 1}, {1}, {1}, set(), set()]

    def who(*_) -> set[int]:
        if len(looks) == 1:
            superlink.kill()
        return looks.pop(0)

    superlink = deployment.start("superlink", SLEEP, ready="ready")
    (deployment.folder / "names.json").write_text('{"1": "Grace"}', encoding="utf-8")
    monkeypatch.setattr(classroom, "who_is_online", who)
    monkeypatch.setattr(classroom, "POLL", 0)
    with pytest.raises(CommandFailed, match="The SuperLink ended"):
        classroom.watch(deployment, superlink, {"7": 0, "8": 1})
    assert [line[10:] for line in capsys.readouterr().out.splitlines()] == [
        "0 of 2 online: nobody yet",
        "1 of 2 online: 0",
        "2 of 2 online: 0, 1 Grace",
        "1 of 2 online: 1 Grace (has left: 0)",
        "0 of 2 online: nobody any more (has left: 1 Grace)",
    ]


def test_a_superlink_that_does_not_answer_is_told_and_asked_again(
    deployment, capsys, monkeypatch
) -> None:
    listed = {"nodes": [{"node-id": "7", "status": "online"}]}
    answers = [CommandFailed("no"), TimeoutError("no"), json.dumps(listed)]

    def flwr(command, timeout):
        if not answers:
            superlink.kill()
            raise CommandFailed("gone")
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    superlink = deployment.start("superlink", SLEEP, ready="ready")
    monkeypatch.setattr(deployment, "flwr", flwr)
    monkeypatch.setattr(classroom, "POLL", 0)
    with pytest.raises(CommandFailed, match="The SuperLink ended"):
        classroom.watch(deployment, superlink, {"7": 0})
    said = [line[10:] for line in capsys.readouterr().out.splitlines()]
    assert said == [
        "The SuperLink does not answer. This goes on asking.",
        "1 of 1 online: 0",
    ]


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
