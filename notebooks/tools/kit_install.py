"""Install the course from a kit, without a network: ``python install.py [FOLDER]``.

``make kit`` puts this file into the kit as ``install.py``. It copies the course to
FOLDER (default: ``flower-course`` in the home folder), makes an environment there,
installs the kit's wheels into it, and checks the result. After an interruption, the
same command goes on. What is in FOLDER already is left as it is.
"""

# An old Python, too, has to be able to read this: it is told which one to take.
import json
import os
import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path

KIT = Path(__file__).resolve().parent
PLATFORMS = {
    ("Linux", "x86_64"): "linux",
    ("Linux", "aarch64"): "linux-arm",
    ("Darwin", "arm64"): "macos",
    ("Windows", "amd64"): "windows",
}
FIRST_LESSON = Path("notebooks", "00_why_federated_learning.ipynb")


def this_platform() -> str:
    """Return what kits call this machine's platform, or its system's own words."""
    machine = platform.machine().lower()
    names = [platform.system(), machine if sys.maxsize > 2**32 else "32 bits"]
    return PLATFORMS.get(tuple(names)) or " ".join(names)


def find_lock() -> Path:
    """Return the list of wheels for this platform and Python.

    Raises
    ------
    SystemExit
        If the kit has none.
    """
    python = "{}.{}".format(*sys.version_info)
    lock = KIT / "locks" / f"{this_platform()}-{python}.txt"
    if lock.is_file():
        return lock
    made_for = [path.stem.rpartition("-") for path in lock.parent.glob("*.txt")]
    fit = sorted(version for name, _, version in made_for if name == this_platform())
    if fit:
        sys.exit(
            f"This is Python {python}, the kit is for Python {' or '.join(fit)}: start "
            "this file with that one."
        )
    names = sorted({name for name, _, _ in made_for})
    sys.exit(f"This machine is {this_platform()}, the kit is for {', '.join(names)}.")


def place_course(folder: Path) -> None:
    """Copy the course, in one step, unless it is there already.

    Raises
    ------
    SystemExit
        If something else is there.
    """
    if (folder / FIRST_LESSON).is_file():
        print(f"The course is in {folder} already: its files are left as they are.")
        return
    if folder.exists():
        sys.exit(
            f"{folder} is there already, and it is not the course: name a folder that "
            "does not exist yet, as in `python install.py FOLDER`."
        )
    draft = folder.with_name(folder.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(KIT / "flower-course", draft)
    draft.rename(folder)


def main() -> int:
    """Install the course and return the exit status of its own check."""
    lock = find_lock()
    about = json.loads(lock.with_suffix(".json").read_text(encoding="utf-8"))
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path.home() / "flower-course")
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    bin_folder = folder / ".venv" / ("Scripts" if os.name == "nt" else "bin")
    installed = folder / ".venv" / "installed"  # what `make lab` looks for
    free = shutil.disk_usage(str(folder.parent)).free
    if not installed.exists() and free < about["bytes"]:
        sys.exit(
            f"The course takes {about['bytes'] / 1e9:.1f} GB, and {free / 1e9:.1f} GB "
            f"are free in {folder.parent}: free some, or name another folder, as in "
            "`python install.py FOLDER`."
        )
    place_course(folder)
    print(f"Installing into {folder}: this takes a few minutes.", flush=True)
    # What the kit was made without is on this machine already, and only that is taken
    # from it. pip comes with the kit: some systems' Python has none for environments.
    prepared = bool(about["without"])
    options = {"system_site_packages": prepared, "symlinks": os.name != "nt"}
    venv.create(folder / ".venv", **options)
    lines = lock.read_text(encoding="utf-8").split()
    (version,) = [word[5:] for word in lines if word.startswith("pip==")]
    python = str(bin_folder / "python")
    pip = [python, str(KIT / "wheels" / f"pip-{version}-py3-none-any.whl" / "pip")]
    pip += ["--isolated", "--quiet", "--quiet", "--disable-pip-version-check"]
    pip += ["install", "--no-index", "--no-deps"]
    wheels = ["--find-links", str(KIT / "wheels"), "--requirement", str(lock)]
    wheels += ["--no-compile"]  # Python compiles what a lesson imports, and no more
    wheels += ["--ignore-installed"] if prepared else []
    course = ["--no-build-isolation", "--editable", str(folder)]
    for what in (wheels, course):
        # The kit holds everything, so no setting of this machine's pip is of use.
        environment = dict(os.environ, PIP_CONFIG_FILE=os.devnull)
        if subprocess.run([*pip, *what], env=environment).returncode:
            sys.exit(
                "pip could not install this, and says above why. If the copy of the "
                "kit is not whole, copy it again; then start this again."
            )
    installed.touch()
    print("Installed. Is the machine ready?", flush=True)
    status = subprocess.run([python, "-m", "course_utils"], cwd=str(folder)).returncode
    print(
        "\nThese two lines open the first lesson, now and every time:\n\n"
        f'  cd "{folder}"\n  {bin_folder.relative_to(folder) / "jupyter"} lab '
        f"{FIRST_LESSON}\n"
    )
    return status


if __name__ == "__main__":
    sys.exit(main())
