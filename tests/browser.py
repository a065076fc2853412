"""JupyterLab in a real browser, offline.

Not a test itself: tests/test_jupyterlab.py uses it.
"""

import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from filelock import FileLock
from playwright.sync_api import (
    Browser,
    Error,
    Page,
    Playwright,
    TimeoutError,
    sync_playwright,
)
from run_offline import offline

from course_utils.deployment import free_port

ROOT = Path(__file__).parents[1]
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHANNELS = {"win32": ("chrome", "msedge"), "darwin": ("chrome",)}
"""Browsers that Playwright finds where Windows and macOS keep their programs."""

HOW_TO_GET_ONE = (
    "There is no browser to test JupyterLab in: run "
    "`python -m playwright install chromium`, or install Chromium or Chrome."
)
SETTINGS = {
    # All cells are in the page, and not only those in sight.
    "notebook-extension/tracker": '{"windowingMode": "none", "scrollPastEnd": false}',
}


class NoBrowser(Exception):
    """There is no browser, and there was no way to install one."""


# ------------------------------------------------------------------------- the browser


def find_browser(playwright: Playwright) -> dict[str, str]:
    """Find a browser, or install Debian's.

    Returns
    -------
    dict[str, str]
        What says to Playwright which browser to launch.

    Raises
    ------
    NoBrowser
        If there is none. The sentence says how to get one.
    """
    own = playwright.chromium.executable_path
    found = [path for path in map(shutil.which, NAMES) if path]
    if not found and not Path(own).exists() and is_debian_as_root():
        found = [install_on_debian()]
    if found:
        return {"executable_path": found[0]}
    if Path(own).exists():
        return {"executable_path": own}
    for channel in CHANNELS.get(sys.platform, ()):
        try:
            playwright.chromium.launch(channel=channel).close()
        except Error:
            continue
        return {"channel": channel}
    raise NoBrowser(HOW_TO_GET_ONE)


def is_debian_as_root() -> bool:
    """Whether packages can be installed here by ``apt-get``."""
    return Path("/etc/debian_version").exists() and os.geteuid() == 0


def install_on_debian() -> str:
    """Install Debian's Chromium, and return its path."""
    # Tests in another process may want it at the same time.
    with FileLock("/tmp/flower-course-apt.lock"):
        install = "install --yes --no-install-recommends chromium fonts-dejavu-core"
        for words in ("update", install):
            if shutil.which("chromium"):
                break
            done = subprocess.run(
                ["apt-get", *words.split()],
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if done.returncode:
                raise NoBrowser(
                    f"{HOW_TO_GET_ONE} `apt-get {words}` failed:\n{done.stdout}"
                )
    path = shutil.which("chromium")
    if path is None:
        raise NoBrowser(HOW_TO_GET_ONE)
    return path


@contextmanager
def launched(launch: Callable[[Playwright], Browser]) -> Iterator[Browser]:
    """Launch a browser for tests. Where there is none they are skipped, but not in CI.

    Parameters
    ----------
    launch : Callable[[Playwright], Browser]
        What launches it, or raises :class:`NoBrowser`.
    """
    with sync_playwright() as playwright:
        try:
            browser = launch(playwright)
        except NoBrowser as problem:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(problem))
        yield browser
        browser.close()


@contextmanager
def launched_without_hosts(home: Path) -> Iterator[Browser]:
    """Launch a browser that finds no host, with a home folder of its own."""

    def launch(playwright: Playwright) -> Browser:
        return playwright.chromium.launch(
            **find_browser(playwright),
            args=["--host-resolver-rules=MAP * ~NOTFOUND"],
            env={**os.environ, "HOME": str(home)},
        )

    with launched(launch) as browser:
        yield browser


# -------------------------------------------------------------------------- the server


def lab_command(*arguments: str) -> list[str]:
    """Return the command of ``make lab``, with more arguments."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    pattern = r"^lab:.*\n\t\$\(BIN\)/jupyter (.*\$\(ARGS\).*)$"
    recipe = re.search(pattern, makefile, re.M)
    assert recipe, "the Makefile's target lab is not `$(BIN)/jupyter … $(ARGS) …`"
    words = shlex.split(recipe[1].replace("$(ARGS)", shlex.join(arguments)))
    return [sys.executable, "-m", "jupyter", *words]


class Lab:
    """The server that ``make lab`` starts, on a copy of the notebooks and offline.

    Nothing of the user's Jupyter is read or written: settings, workspaces and caches
    lie in a folder of their own.

    Parameters
    ----------
    folder : Path
        Where everything of it lies.
    **variables : str
        What its environment has besides.

    Attributes
    ----------
    notebooks : Path
        The copy of the folder ``notebooks``. What is typed and saved changes that.
    address : str
        Where a browser on the same network finds it.
    token : str
        What lets one in.
    """

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.notebooks = folder / "course" / "notebooks"
        clutter = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "results")
        shutil.copytree(ROOT / "notebooks", self.notebooks, ignore=clutter)
        for name, content in SETTINGS.items():
            path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True)
            path.write_text(content)
        port = free_port()
        self.address, self.token = f"http://127.0.0.1:{port}", secrets.token_hex()
        command = lab_command(
            *("--no-browser", "--ip=127.0.0.1", f"--port={port}"),
            *("--ServerApp.port_retries=0", "--expose-app-in-browser"),
            "--allow-root",  # whoever runs the tests is root in a namespace
        )
        command, environment = offline("--", *command)
        self.in_namespace = "COURSE_IN_NAMESPACE" in environment
        environment |= {
            name: str(folder / name.split("_")[-2].lower())
            for name in (
                "JUPYTER_CONFIG_DIR",
                "JUPYTER_DATA_DIR",
                "JUPYTER_RUNTIME_DIR",
                "JUPYTERLAB_SETTINGS_DIR",
                "JUPYTERLAB_WORKSPACES_DIR",
                "HF_HOME",
            )
        }
        environment |= {
            "JUPYTER_TOKEN": self.token,
            "IPYTHONDIR": str(folder / "ipython"),
            **variables,
        }
        self.log_path = folder / "server.log"
        with self.log_path.open("w") as log:
            self.process = subprocess.Popen(
                command,
                env=environment,
                cwd=folder / "course",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def log(self) -> str:
        """Return what the server has said so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def wait_until_ready(self, seconds: float = 300) -> None:
        """Wait until the server says where it is."""
        deadline = time.monotonic() + seconds
        while f"{self.address}/lab" not in self.log():
            assert self.process.poll() is None, f"JupyterLab ended:\n{self.log()}"
            assert time.monotonic() < deadline, (
                f"JupyterLab is not ready after {seconds} s:\n{self.log()}"
            )
            time.sleep(0.2)

    def launch(self, playwright: Playwright) -> Browser:
        """Launch a browser on the server's network.

        Raises
        ------
        NoBrowser
            If there is none.
        """
        which = find_browser(playwright)
        if self.in_namespace:
            # Playwright talks with the browser through pipes, which cross namespaces.
            script = self.folder / "browser.sh"
            enter = f"nsenter --target {self.process.pid} --user --net"
            enter += " --preserve-credentials --"
            path = shlex.quote(which["executable_path"])
            script.write_text(f'#!/bin/sh\nexec {enter} {path} "$@"\n')
            script.chmod(0o700)
            which = {"executable_path": str(script)}
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        return playwright.chromium.launch(
            **which,
            timeout=180_000,
            args=["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
            env={**os.environ, "HOME": str(home)},
        )

    def stop(self) -> None:
        """End the server and all that it has started."""
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            children = []
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for child in children:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(children, timeout=10)


# ------------------------------------------------------------------ a notebook in there

PANEL = "window.jupyterapp?.shell.currentWidget"
READ = f"""() => {PANEL}.content.widgets.map(cell => ({{
    type: cell.model.type,
    source: cell.model.sharedModel.getSource(),
    count: cell.model.executionCount ?? null,
    outputs: cell.model.outputs?.toJSON() ?? [],
}}))"""
# An error in a cell keeps those below from running.
IS_DONE = f"""() => {{
    const code = {PANEL}.content.widgets.filter(cell => cell.model.type === "code");
    const ended = cell => (cell.model.executionState ?? "idle") === "idle"
        && (cell.model.executionCount || !cell.model.sharedModel.getSource());
    const failed = cell => cell.model.outputs.toJSON().some(
        output => output.output_type === "error");
    return {PANEL}.sessionContext.session?.kernel?.status === "idle"
        && (code.every(ended) || code.some(failed));
}}"""


def open_without_kernels(page: Page, lab: Lab) -> None:
    """Open JupyterLab so that the notebooks opened in it start no kernel."""
    page.goto(f"{lab.address}/lab/workspaces/shelf?token={lab.token}")
    page.wait_for_function("() => window.jupyterapp?.shell", timeout=300_000)
    page.evaluate(
        """async () => {
            await window.jupyterapp.restored;
            const registry = window.jupyterapp.docRegistry;
            const preferred = registry.getKernelPreference.bind(registry);
            registry.getKernelPreference = (...of) => (
                {...preferred(...of), shouldStart: false, autoStartDefault: false});
        }"""
    )


class Notebook:
    """A notebook that is open in JupyterLab.

    Parameters
    ----------
    page : Page
        A page of the browser that shows nothing yet.
    lab : Lab
        The server.
    path : str
        The notebook's path, seen from the folder ``notebooks``.
    """

    def __init__(self, page: Page, lab: Lab, path: str) -> None:
        self.page, self.path = page, path
        # A workspace of its own: no tabs of the notebook before.
        workspace = re.sub(r"\W", "-", path)
        page.goto(
            f"{lab.address}/lab/workspaces/{workspace}/tree/{path}?token={lab.token}"
        )
        self.wait(
            f"() => {PANEL}?.context?.isReady && {PANEL}.sessionContext?.session"
            "?.kernel?.status === 'idle'",
            "is not open and its kernel not idle",
            seconds=300,
        )

    @classmethod
    @contextmanager
    def opened(cls, page: Page, lab: Lab, path: str) -> Iterator["Notebook"]:
        """Open a notebook, without a kernel, in a page that shows JupyterLab.

        Parameters
        ----------
        page : Page
            What :func:`open_without_kernels` was called with.
        lab, path
            See :class:`Notebook`.
        """
        notebook = cls.__new__(cls)
        notebook.page, notebook.path = page, path
        page.evaluate(
            "path => window.jupyterapp.commands.execute("
            "'docmanager:open', {path, factory: 'Notebook'})",
            path,
        )
        # Each cell of text has been rendered, and each picture has been loaded.
        notebook.wait(
            f"""() => {PANEL}?.context?.isReady && {PANEL}.content.widgets?.every(
                cell => cell.model.type !== "markdown"
                    || cell.node.querySelector(".jp-RenderedMarkdown")?.innerHTML)
                && [...{PANEL}.node.querySelectorAll("img")].every(
                    image => image.complete)""",
            "is not open",
            seconds=300,
        )
        assert not page.evaluate(f"() => {PANEL}.sessionContext.session"), "a kernel"
        try:
            yield notebook
        finally:
            page.evaluate(
                "() => window.jupyterapp.commands.execute('application:close-all')"
            )

    def wait(
        self, condition: str, otherwise: str, seconds: float, argument: object = None
    ) -> None:
        """Wait until a JavaScript function returns true; fail after some seconds."""
        try:
            self.page.wait_for_function(
                condition, arg=argument, timeout=1000 * seconds, polling=200
            )
        except TimeoutError:
            message = f"{self.path} {otherwise} after {seconds} s"
            raise AssertionError(message) from None

    def cells(self) -> list[dict]:
        """Return each cell's type, source, execution count and outputs."""
        return self.page.evaluate(READ)

    def find(self, start: str, cells: list[dict] | None = None) -> int:
        """Return the position of the one code cell with a line that starts so."""
        found = [
            number
            for number, cell in enumerate(cells or self.cells())
            if cell["type"] == "code"
            and any(line.startswith(start) for line in cell["source"].split("\n"))
        ]
        assert len(found) == 1, f"{len(found)} cells with {start!r}"
        return found[0]

    def choose(self, menu: str, entry: str) -> None:
        """Choose an entry of the menu bar with the mouse."""
        self.page.locator(".lm-MenuBar-item", has_text=menu).first.click()
        self.page.locator(
            ".lm-Menu-item", has=self.page.get_by_text(entry, exact=True)
        ).click()

    def run_all(self, seconds: float) -> None:
        """Clear all outputs, run all cells, and wait until the kernel is idle."""
        self.choose("Edit", "Clear Outputs of All Cells")
        assert not any(cell["outputs"] or cell["count"] for cell in self.cells())
        self.choose("Run", "Run All Cells")
        self.wait(IS_DONE, "has not run", seconds)

    def restart(self, seconds: float) -> None:
        """Restart the kernel with the mouse, which clears all outputs."""
        self.choose("Kernel", "Restart Kernel and Clear Outputs of All Cells…")
        self.page.locator(".jp-Dialog button.jp-mod-accept").click()
        self.wait(
            f"() => {PANEL}.sessionContext.session?.kernel?.status === 'idle'"
            f" && {PANEL}.content.widgets.every(cell => !cell.model.executionCount)",
            "has not restarted its kernel",
            seconds,
        )

    def active(self) -> int:
        """Return the position of the selected cell."""
        return self.page.evaluate(f"() => {PANEL}.content.activeCellIndex")

    def go_to(self, number: int) -> None:
        """Select a cell with the arrow keys."""
        self.page.keyboard.press("Escape")
        for _ in self.cells():
            if (active := self.active()) == number:
                return
            self.page.keyboard.press("ArrowDown" if active < number else "ArrowUp")
        raise AssertionError(f"The arrow keys do not lead to cell {number}.")

    def type(self, source: str) -> None:
        """Type over all of the cell that is being edited."""
        self.page.keyboard.press("ControlOrMeta+A")
        for number, line in enumerate(source.split("\n")):
            if number:
                # The editor indents by itself: type over that, too.
                self.page.keyboard.press("Enter")
                self.page.keyboard.press("Shift+Home")
            self.page.keyboard.type(line)
        assert self.cells()[self.active()]["source"] == source

    def run_selected(self, seconds: float = 300) -> str:
        """Run the selected cell by Shift+Enter, and return what it printed."""
        number = self.active()
        before = self.cells()[number]["count"]
        self.page.keyboard.press("Shift+Enter")
        self.wait(
            f"""before => {{
                const model = {PANEL}.content.widgets[{number}].model;
                return model.executionCount && model.executionCount !== before
                    && (model.executionState ?? "idle") === "idle"
                    && {PANEL}.sessionContext.session.kernel.status === "idle";
            }}""",
            f"has not run its cell {number}",
            seconds,
            before,
        )
        return "".join(o.get("text", "") for o in self.cells()[number]["outputs"])

    def set_theme(self, name: str) -> None:
        """Change the colours of all of JupyterLab to ``"Light"`` or ``"Dark"``."""
        self.page.evaluate(
            "name => window.jupyterapp.commands.execute('apputils:change-theme',"
            " {theme: `JupyterLab ${name}`})",
            name,
        )

    def take_pictures(self, folder: Path, name: str, *, width: int = 1280) -> None:
        """Save the whole notebook as PNG files, one for each 1600 pixels."""
        self.page.set_viewport_size({"width": width, "height": 1600})
        panel = self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
        outer = panel.locator(".jp-WindowedPanel-outer")
        folder.mkdir(parents=True, exist_ok=True)
        number, top = 0, -1
        outer.evaluate("panel => panel.scrollTo(0, 0)")
        while outer.evaluate("panel => panel.scrollTop") > top:
            top = outer.evaluate("panel => panel.scrollTop")
            panel.screenshot(path=folder / f"{name}-{number:02d}.png")
            outer.evaluate("panel => panel.scrollBy(0, panel.clientHeight - 40)")
            number += 1

    def close(self) -> None:
        """End the notebook's kernel and the page, and save nothing."""
        self.page.evaluate(f"() => {PANEL}.sessionContext?.shutdown()")
        self.page.close()
