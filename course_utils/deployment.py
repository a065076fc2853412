"""Flower's real processes: started, watched and ended from a notebook.

A federation of real processes is a SuperLink, SuperNodes, and what these start
themselves. Who starts them from a notebook must end them, whatever happens to it. A
:class:`Deployment` does so, also after an exception, an interrupt or a restart of the
kernel, and each of its waits is bounded and says what it waited for.
"""

import itertools
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import psutil
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from course_utils import with_progress

MARK = "FLOWER_COURSE_DEPLOYMENT"
"""Environment variable by which a deployment knows its processes, and theirs."""

SUPERLINK_READY = "Uvicorn running on"
"""What a SuperLink prints when it answers. (Its application has started up before.)"""

GRACE = 30.0
"""Seconds that a process has to end by itself before it is killed."""

PATIENCE = 300.0
"""Seconds to wait at most where nothing else is said: a busy machine is slow."""

# Flower reads these: no telemetry, no question for updates, and apps run in the
# environment that is here instead of one that is made for each of them.
QUIET_AND_OFFLINE = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
# On Windows, a log would be written in a code page that lacks most of what flwr prints.
IN_UTF8 = {"PYTHONUTF8": "1"}
# Ray's agents rename themselves, over the place where their environment stood. With
# this they leave it alone, so that MARK can still be read there.
KEEP_THE_MARK = {"SPT_NOENV": "1"}
SCRIPTS = Path(sysconfig.get_path("scripts"))
"""Where the commands of this environment lie."""

TOO_SLOW = {
    "Failed to start local SuperLink within": "The local SuperLink",
    "The current node timed out during startup": "Ray",
}
"""What a log says when a busy machine starts something too slowly, and what that is.

Flower gives the local SuperLink 15 seconds to start, and Ray gives its node 30."""

ATTEMPTS = 3
"""How often something is started that was too slow."""

# Of Ray's processes, those that no run of the course needs are not started. And its
# workers, whose nice value it makes 15, do not wait until nobody else computes.
LEAN_RAY = {
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""This machine's own addresses, which no proxy can reach for us."""

LONGEST_FOR_RAY = 36
"""Characters of a folder in which Ray's sockets keep their paths short enough."""

PAGE = 104
"""Characters in a line of a notebook's output, as wide as JupyterLab shows it."""

COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


ERRORS = re.compile(r"^(?:.*\bERROR\b.*|[\w.]*(?:Error|Exception): .*)$", re.MULTILINE)
"""A line that tells of an error: Flower's log, or the end of a traceback."""


class CommandFailed(RuntimeError):
    """A process ended with an error, or before it did what was waited for."""


def fold(line: str) -> str:
    """Return a line as several where it is longer than a page is wide."""
    if len(line) <= PAGE:
        return line
    return textwrap.fill(line, PAGE, subsequent_indent="    ", break_on_hyphens=False)


class Process:
    """A process of a deployment and its log. Made by :meth:`Deployment.start`.

    Attributes
    ----------
    name : str
        What the deployment calls it.
    command : list[str]
        What it runs.
    log_path : Path
        The file that gets what it prints.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        log_path: Path,
        environment: dict[str, str],
        folder: Path | None = None,
    ) -> None:
        self.name, self.command, self.log_path = name, command, log_path
        self._mark = environment[MARK]
        self._asked_to_end = False
        with log_path.open("wb") as log:
            try:
                self._popen = subprocess.Popen(
                    [self._program(environment), *command[1:]],
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    # An interrupt of the notebook is not meant for this process.
                    start_new_session=True,
                )
            except FileNotFoundError:
                raise FileNotFoundError(
                    f"There is no command {command[0]!r}: install the course as its "
                    "README says, and start the notebook in that environment."
                ) from None

    def _program(self, environment: dict[str, str]) -> str:
        """Return where the program lies. (Windows would not look in this PATH.)"""
        word = self.command[0]
        return shutil.which(word, path=environment.get("PATH")) or word

    @property
    def exit_code(self) -> int | None:
        """None while it runs; otherwise its exit code, negative if it was killed."""
        return self._popen.poll()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self.exit_code is None

    def log(self) -> str:
        """Return all that it has printed, without colours."""
        text = self.log_path.read_text(encoding="utf-8", errors="replace")
        return COLOURS.sub("", text)

    def tail(self, lines: int = 10) -> str:
        """Return the last lines that it has printed, folded, blank ones left out."""
        return "\n".join(map(fold, self._last(lines)))

    def _last(self, lines: int) -> list[str]:
        return [line for line in self.log().splitlines() if line.strip()][-lines:]

    def grep(self, *words: str) -> str:
        """Return those lines that contain one of the words, made to fit a page.

        Of lines that are repeated one after another, one is returned. The mark of a
        line that informs (``INFO :``) is left out, the deployment's folder and public
        keys are ``…``, and long lines are folded.
        """
        log = self.log().replace(str(self.log_path.parent), "…")
        log = re.sub(r"b'-----BEGIN PUBLIC KEY-----.*?'", "…", log)
        lines = [re.sub(r"^INFO\s*:\s*", "", line) for line in log.splitlines()]
        found = (line for line in lines if any(word in line for word in words))
        return "\n".join(fold(line) for line, _ in itertools.groupby(found))

    def wait_for(self, text: str, *, times: int = 1, timeout: float = PATIENCE) -> None:
        """Wait until it has printed a text.

        Parameters
        ----------
        text : str
            What to wait for.
        times : int
            How often the text must have been printed.
        timeout : float
            Seconds to wait at most.

        Raises
        ------
        CommandFailed
            If it ends before.
        TimeoutError
            If time is up. It goes on running.
        """

        def printed() -> bool:
            ended = not self.is_running  # asked first: its last words count
            if self.log().count(text) >= times:
                return True
            if ended:
                error = ERRORS.search(self.log())
                raise CommandFailed(
                    f"{self.name} ended with exit code {self.exit_code} and did not "
                    f"print {text!r}. "
                    + (f"Its first error: {error[0].strip()}\n" if error else "")
                    + f"Its last lines:\n{self.tail()}"
                )
            return False

        self._wait(printed, f"print {text!r}", timeout)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait until it has ended, and return its exit code.

        Raises
        ------
        TimeoutError
            If it has not ended after so many seconds. It goes on running.
        """
        self._wait(lambda: not self.is_running, "end", timeout)
        return self._popen.wait()

    def show(self, timeout: float, to: Callable[[str], None] | None = None) -> None:
        """Print its lines as they come, until it has ended or time is up.

        Where ``to`` is given, it gets them instead, whole lines at a time.
        """
        deadline = time.monotonic() + timeout
        shown = 0
        while True:
            ended = not self.is_running  # asked first: its last words count
            text = self.log()
            end = len(text) if ended else text.rfind("\n") + 1
            if to is None:
                print(text[shown:end], end="", flush=True)
            elif end > shown:
                to(text[shown:end])
            shown = max(shown, end)
            if ended or time.monotonic() > deadline:
                return
            time.sleep(0.2)

    def _wait(self, done: Callable[[], bool], what: str, timeout: float) -> None:
        start = time.monotonic()
        doing = f"seconds for {self.name} to {what}"
        with with_progress(doing=doing, total=timeout, delay=3) as bar:
            try:
                while not done():
                    waited = time.monotonic() - start
                    if waited > timeout:
                        raise TimeoutError(
                            f"{self.name} did not {what} within {timeout:g} s. Its "
                            f"last lines:\n{self.tail()}"
                        )
                    bar.update(round(waited) - bar.n)
                    time.sleep(0.1)
            finally:
                bar.total = bar.n  # else a notebook keeps the bar, in red

    def tree(self) -> list[str]:
        """Return the names of its program and, indented, of what that has started."""

        def below(process: psutil.Process, depth: int) -> list[str]:
            try:
                # A script of Python's runs as `python script …`.
                words, children = process.cmdline(), process.children()
            except psutil.Error:  # it has just ended, or may not be asked
                return []
            name = Path(words[1] if len(words) > 1 else words[0]).name if words else "?"
            lines = [line for child in children for line in below(child, depth + 1)]
            return ["    " * depth + name, *lines]

        return below(psutil.Process(self._popen.pid), 0)

    def ask_to_end(self) -> None:
        """Ask it to end, as Ctrl+C does, and do not wait until it has.

        It is asked once, however often this is called. Asked again while it says
        goodbye, it would end at once, and the goodbye be lost.
        """
        if not self._asked_to_end:
            self._asked_to_end = True
            self._popen.terminate()  # does nothing if it has ended

    def stop(self) -> None:
        """Ask it to end; kill what is left after a few seconds."""
        if self.is_running:
            self.ask_to_end()
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(GRACE)
        self.kill()

    def kill(self) -> None:
        """Kill it and all that it has started, at once: as when the power goes."""
        kill_marked(self._mark)
        self._popen.wait(GRACE)

    def suspend(self) -> None:
        """Freeze it and all that it has started, until :meth:`resume`."""
        for process in find_marked(self._mark):
            with suppress(psutil.NoSuchProcess):  # a short one has ended meanwhile
                process.suspend()

    def resume(self) -> None:
        """Let it go on after :meth:`suspend`."""
        for process in find_marked(self._mark):
            with suppress(psutil.NoSuchProcess):
                process.resume()


class Deployment:
    """The processes of one federation on this machine, all started in one folder.

    Each gets a ``FLWR_HOME`` of its own, as it would have on a machine of its own; all
    ``flwr`` commands share one.
    ``with Deployment() as deployment:`` ends them when the block ends. Without
    ``with``, call :meth:`stop`; if that never comes, they end with this process.

    Parameters
    ----------
    folder : Path, optional
        Where logs, homes and keys lie. Default: a temporary folder, which is removed
        at the end.

    Attributes
    ----------
    folder : Path
        The folder.
    processes : dict[str, Process]
        What was started, by name.
    direct : list[str]
        Hosts that its processes reach without a proxy, at first this machine alone.
    """

    def __init__(self, folder: Path | None = None) -> None:
        temporary = folder is None
        if temporary:
            folder = Path(tempfile.mkdtemp(prefix="flower-course-"))
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.processes: dict[str, Process] = {}
        self.direct = list(LOOPBACK)
        self._commands = 0
        # The local SuperLink that `flwr` starts would else be shared by everyone here.
        self._local_port = free_port()
        self._ray_folder = self.folder
        gone_at_the_end = [self.folder] if temporary else []
        if len(str(self.folder)) > LONGEST_FOR_RAY and os.name != "nt":
            self._ray_folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
            gone_at_the_end.append(self._ray_folder)
        self._id = uuid.uuid4().hex
        # This pipe closes when this process ends, however it ends: then the guard
        # cleans up. See guard() below.
        self._guard = subprocess.Popen(
            [sys.executable, "-m", __name__, self._id, *map(str, gone_at_the_end)],
            stdin=subprocess.PIPE,
            # Ctrl+C is not meant for it. (The second is for Windows.)
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )

    def __enter__(self) -> "Deployment":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def home(self, name: str) -> Path:
        """Return the ``FLWR_HOME`` of the process with this name."""
        return self.folder / "homes" / name

    def start(
        self,
        name: str,
        command: str | list[str],
        *,
        ready: str | None = None,
        timeout: float = PATIENCE,
    ) -> Process:
        """Start a process, and wait until it is ready.

        Parameters
        ----------
        name : str
            What to call it. A process of that name which still runs is stopped first,
            so that a cell can be run again.
        command : str or list[str]
            A command line, or its words.
        ready : str, optional
            What it prints when it is ready. Default: do not wait.
        timeout : float
            Seconds that it has until then.

        Returns
        -------
        Process
            The process.

        Raises
        ------
        CommandFailed, TimeoutError
            If it ends before it is ready, or is not ready in time. It is stopped.
        """
        if self._guard.poll() is not None:
            raise RuntimeError("This deployment was stopped: make a new one.")
        if name in self.processes:
            self.processes[name].stop()
        words = split_command(command)
        environment = {
            **os.environ,
            **QUIET_AND_OFFLINE,
            **IN_UTF8,
            **KEEP_THE_MARK,
            **LEAN_RAY,
            "COLUMNS": str(PAGE),  # how wide flwr draws its tables
            MARK: f"{self._id}/{name}",
            "FLWR_HOME": str(self.home("flwr" if "flwr" in words else name)),
            "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
            "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(self._local_port),
            "RAY_TMPDIR": str(self._ray_folder),
        }
        environment |= past_proxies(self.direct)
        log_path = self.folder / f"{name}.log"
        process = self.processes[name] = Process(
            name, words, log_path, environment, self.folder
        )
        if ready is not None:
            try:
                process.wait_for(ready, timeout=timeout)
            except BaseException:  # an interrupt of the notebook, too
                process.stop()
                raise
        return process

    def follow(
        self,
        name: str,
        command: str | list[str],
        steps: Iterable[tuple[str, str, int]],
        timeout: float = PATIENCE,
    ) -> dict[str, float]:
        """Run a process to its end, and note when it reaches each step.

        Where a busy machine starts Ray or the SuperLink too slowly, it says so in a
        sentence and starts the process again, twice at most.

        Parameters
        ----------
        name, command : str, str or list[str]
            As for :meth:`start`.
        steps : Iterable[tuple[str, str, int]]
            What each step is, what the process prints then, and for which time.
        timeout : float
            Seconds that each step may take.

        Returns
        -------
        dict[str, float]
            Seconds from the start to each step, and to ``"the command is back"``.

        Raises
        ------
        CommandFailed
            If it ends before it has reached all steps.
        TimeoutError
            If a step takes too long. It is stopped then.
        """
        for attempt in count(1):  # was_too_slow() raises after the last one
            begin = time.monotonic()
            process = self.start(name, command)
            reached = {}
            try:
                for step, line, times in steps:
                    process.wait_for(line, times=times, timeout=timeout)
                    reached[step] = time.monotonic() - begin
                process.wait(timeout)
            except CommandFailed:
                if not was_too_slow(process, attempt):
                    raise
                continue
            except BaseException:  # an interrupt of the notebook, too
                process.stop()
                raise
            return reached | {"the command is back": time.monotonic() - begin}

    def flwr(
        self,
        command: str | list[str],
        *,
        show: bool | Callable[[str], None] = False,
        timeout: float = 2 * PATIENCE,
    ) -> str:
        """Run one ``flwr`` command to its end.

        Parameters
        ----------
        command : str or list[str]
            What follows ``flwr``, such as ``"list"``.
        show : bool or callable
            Whether to print its lines here as they come, or what takes them instead.
        timeout : float
            Seconds that it may take.

        Returns
        -------
        str
            What it printed.

        Raises
        ------
        CommandFailed
            If it ended with an error, or said so in its answer.
        TimeoutError
            If it took too long. It is stopped then, as it is after an interrupt.
        """
        words = split_command(command)
        for attempt in range(1, ATTEMPTS + 1):
            self._commands += 1
            process = self.start(f"flwr-{self._commands}", ["flwr", *words])
            try:
                if show:
                    process.show(timeout, None if show is True else show)
                code = process.wait(timeout)
            except BaseException:  # an interrupt of the notebook, too
                process.stop()
                raise
            del self.processes[process.name]
            # Other commands print what an earlier run has said of itself: `flwr log`.
            tells_of_others = code == 0 and words[0] != "run"
            if tells_of_others or not was_too_slow(process, attempt):
                break
        if code != 0:
            raise CommandFailed(
                f"flwr {words[0]} ended with exit code {code}:\n{process.tail(20)}"
            )
        printed = process.log()
        # With --format json a command that fails ends with 0 all the same.
        if re.search(r'"success":\s*false', printed):
            said = "\n".join(process._last(20))  # as flwr has said it, not folded
            raise CommandFailed(f"flwr {words[0]} failed:\n{said}")
        process.log_path.unlink()
        return printed

    def connect(
        self, address: str, root_certificates: Path | None = None, name: str = "course"
    ) -> Path:
        """Tell ``flwr`` where the SuperLink is, by a file in its ``FLWR_HOME``.

        Parameters
        ----------
        address : str
            Host and port of the SuperLink.
        root_certificates : Path, optional
            The CA certificate to check it by. Default: a connection without TLS.
        name : str
            The connection's name, for ``flwr run APP NAME``. It is the default too.

        Returns
        -------
        Path
            The file.
        """
        trust = "insecure = true"
        if root_certificates is not None:
            trust = f"root-certificates = {toml_string(root_certificates)}"
        path = self.home("flwr") / "config.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f'[superlink]\ndefault = "{name}"\n\n'
            f'[superlink.{name}]\naddress = "{address}"\n{trust}\n',
            encoding="utf-8",
        )
        return path

    def tree(self) -> list[str]:
        """Return the programs that run now, each below the one that has started it."""
        running = [one for one in self.processes.values() if one.is_running]
        return [line for one in running for line in one.tree()]

    def stop(self) -> None:
        """End all processes, and all that they started."""
        for process in reversed(self.processes.values()):
            process.ask_to_end()
        for process in reversed(self.processes.values()):
            process.stop()
        self._guard.stdin.close()
        self._guard.wait(4 * GRACE)


# ------------------------------------------------------------------- keeping it tidy


def find_marked(mark: str, variable: str = MARK) -> list[psutil.Process]:
    """Find all processes whose mark is, or starts with, the given one.

    Parameters
    ----------
    mark : str
        A deployment's id, or that and a process's name.
    variable : str
        Environment variable that holds the mark.
    """
    found = []
    for process in psutil.process_iter():
        try:
            value = process.environ().get(variable, "")
            if process.status() == psutil.STATUS_ZOMBIE:
                continue  # ended, and only not asked for its exit code yet
        except psutil.Error:
            continue  # another user's, or gone meanwhile
        if value == mark or value.startswith(f"{mark}/"):
            found.append(process)
    return found


def kill_marked(mark: str) -> None:
    """Kill all processes with a mark; again, for those that started meanwhile."""
    for _ in range(10):
        processes = find_marked(mark)
        if not processes:
            return
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=GRACE)


def guard(deployment_id: str, *folders: str) -> None:
    """Wait until whoever made the deployment is gone or done; then clean up.

    Runs as a process of its own, so that it outlives a kernel that is killed.
    """
    sys.stdin.buffer.read()  # ends when the other end is closed
    processes = find_marked(deployment_id)
    pids = {process.pid for process in processes}
    # What Ray has started has nothing to say. After `flwr stop` it waits for a minute
    # for a server that is gone, and hears nothing.
    awaited = [process for process in processes if not is_rays(process)]
    for process in processes:  # a SuperNode that is asked to end says goodbye
        with suppress(psutil.NoSuchProcess):
            if process.ppid() not in pids:  # and ends what it has started itself
                process.terminate()
    psutil.wait_procs(awaited, timeout=GRACE)
    kill_marked(deployment_id)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def is_rays(process: psutil.Process) -> bool:
    """Say whether a process calls itself an agent or a worker of Ray's."""
    try:
        return "".join(process.cmdline()[:1]).startswith("ray::")
    except psutil.Error:
        return False  # it has just ended


def was_too_slow(process: Process, attempt: int) -> bool:
    """Say whether a process ended because something started too slowly, in a sentence.

    Raises
    ------
    CommandFailed
        If that was its last attempt.
    """
    what = next((TOO_SLOW[sign] for sign in TOO_SLOW if sign in process.log()), None)
    if what is None:
        return False
    sentence = f"{what} did not start in time: this machine is busy."
    if attempt == ATTEMPTS:
        raise CommandFailed(
            f"{sentence} That was attempt {attempt}. End other programs, and try again."
        )
    print(f"{sentence} Trying again ({attempt + 1} of {ATTEMPTS}).", flush=True)
    return True


def past_proxies(hosts: Iterable[str]) -> dict[str, str]:
    """Return the variables by which programs reach these hosts without a proxy.

    What they held before stays: hosts of others, for whom they were set.
    """
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    return dict.fromkeys(
        ("no_proxy", "NO_PROXY"), ",".join([*([known] if known else []), *hosts])
    )


def toml_string(text: str | Path) -> str:
    """Write a text as a string of TOML.

    JSON writes it alike, but would turn emoji into two halves, which TOML refuses.
    """
    return json.dumps(str(text), ensure_ascii=False)


def split_command(command: str | list[str]) -> list[str]:
    """Split a command line into its words, as a terminal would."""
    if not isinstance(command, str):
        return list(command)
    # The backslashes of a path on Windows are no escapes; slashes serve there, too.
    return shlex.split(command.replace("\\", "/") if os.name == "nt" else command)


# ----------------------------------------------------------- ports, certificates, keys


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def write_private(path: Path, content: bytes) -> None:
    """Write a file that nobody but its owner may read."""
    path.touch(mode=0o600)  # before anything is in it
    path.chmod(0o600)  # also where it was there before
    path.write_bytes(content)


def make_certificates(
    folder: Path, hosts: Iterable[str] = (), *, days: float = 7
) -> dict[str, Path]:
    """Make a certificate authority, and a server certificate that it has signed.

    Parameters
    ----------
    folder : Path
        Where to write them.
    hosts : Iterable[str]
        Names and IP addresses by which the server is called. 127.0.0.1 and localhost
        are always among them: the SuperLink calls itself so.
    days : float
        How long the server certificate is valid; below 0, it has expired already.

    Returns
    -------
    dict[str, Path]
        ``"ca"``, the authority's certificate, which everyone may have; ``"cert"`` and
        ``"key"``, for the server alone. (The authority's own key is kept nowhere.)
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = dict.fromkeys(["127.0.0.1", "localhost", *hosts])
    end = datetime.now(UTC) + timedelta(days=days)
    authority = trustme.CA(organization_name="Flower course")
    server = authority.issue_cert(
        *names, not_before=end - timedelta(days=abs(days) + 1), not_after=end
    )
    paths = {name: folder / f"{name}.pem" for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(paths["ca"])
    server.cert_chain_pems[0].write_to_path(paths["cert"])
    write_private(paths["key"], server.private_key_pem.bytes())
    return paths


def make_supernode_key(path: Path) -> tuple[Path, Path]:
    """Make a SuperNode's key pair, as ``ssh-keygen -t ecdsa -b 384`` does.

    Returns
    -------
    tuple[Path, Path]
        The private key at ``path``, for the SuperNode alone; the public key beside it
        in ``path.pub``, to be registered with the SuperLink.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP384R1())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    write_private(path, private)
    public = path.with_name(f"{path.name}.pub")
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
    )
    return path, public


if __name__ == "__main__":
    guard(*sys.argv[1:])
