"""Install the course into the environment of the notebook that runs this.

The set-up cell of every notebook does, where the course is missing, as on Colab. It
keeps the torch, torchvision and numpy that are there, and says so when the kernel has
to be restarted before it can use what was installed.
"""

import subprocess
import sys
import tempfile
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEPT = ("torch", "torchvision", "numpy")
"""What the machine brings along, built for its own processor: it is left alone."""


def versions() -> dict[str, str]:
    """Return the version of each installed package."""
    return {d.metadata["Name"]: d.version for d in distributions()}


def install(installed: dict[str, str]) -> None:
    """Let pip install the course and what it needs, with progress in its own words.

    Parameters
    ----------
    installed : dict[str, str]
        Versions by package before.

    Raises
    ------
    SystemExit
        If pip fails, for instance because the course does not fit what must be kept.
    """
    kept = [f"{name}=={installed[name]}\n" for name in KEPT if name in installed]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "kept.txt"
        constraints.write_text("".join(kept), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--progress-bar=off"]
        command += ["--constraint", str(constraints), "--editable", str(ROOT)]
        command += ["--no-compile"]  # Python compiles what a lesson imports, no more
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as pip:
            said = []
            for line in pip.stdout:
                said.append(line)
                doing, *what = line.split() or [""]
                if line.startswith("Installing collected packages:"):
                    print(f"Installing {len(what) - 2} packages", flush=True)
                elif doing in ("Collecting", "Processing"):
                    print(doing, Path(what[0]).name, flush=True)
    if pip.returncode:
        raise SystemExit(
            f"{''.join(said[-15:])}\nThe course was not installed: pip's last lines, "
            "above, say why."
        )


def outdated(before: dict[str, str], loaded: set[str]) -> list[str]:
    """List packages that this kernel holds in another version than is installed now.

    Parameters
    ----------
    before : dict[str, str]
        Versions by package before the installation.
    loaded : set[str]
        Names of the modules that the kernel has imported.
    """
    now = versions()
    changed = {name for name in before if now.get(name, before[name]) != before[name]}
    owners = packages_distributions()
    modules = {name.split(".")[0] for name in loaded}
    held = {owner for module in modules for owner in owners.get(module, [])}
    return sorted(changed & held)


def main() -> None:
    """Install the course, then make it importable here or ask for a restart."""
    before = versions()
    print("Installing the course: this takes a minute or two.", flush=True)
    install(before)
    if stale := outdated(before, set(sys.modules)):
        raise SystemExit(
            f"Restart needed: this session had loaded {', '.join(stale)} before a "
            "newer version was installed. Choose Runtime → Restart session (in "
            "JupyterLab: Kernel → Restart Kernel), then run all cells again."
        )
    # A new interpreter finds the course by itself; the one that runs has to be told.
    sys.path.insert(0, str(ROOT))
    kept = ", ".join(f"{name} {before[name]}" for name in KEPT if name in before)
    print(f"Installed. Kept as it was: {kept or 'nothing, since nothing was there'}.")


if __name__ == "__main__":
    main()
