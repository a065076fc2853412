"""A kit installs the course with the network cut, and says what it lacks."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from run_offline import offline
from test_publishing import SCRIPTS, TOOLS, closure, copy_of_the_course

sys.path.insert(0, str(TOOLS))
import kit
import kit_install

PREPARED = ("torch", "torchvision", "ray", "pyarrow", "scipy", "scikit-learn", "pandas")
"""What the test's machine has already, and what makes a kit large."""


@pytest.fixture
def whole_kit(tmp_path) -> Iterator[Path]:
    """Make a kit for this machine, as a teacher does, from a clone of what is here."""
    course = copy_of_the_course(tmp_path / "clone")
    git = ["git", "-C", str(course), "-c", "user.name=a", "-c", "user.email=a@example"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], check=True)
    (course / "README.md").write_text("notes of the teacher's\n")
    command = [sys.executable, course / "notebooks" / "tools" / "kit.py"]
    command += ["--folder", tmp_path / "kit", "--without", *PREPARED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "complete" in done.stdout
    assert "Left out, since not committed: what changed in README.md." in done.stdout
    yield tmp_path / "kit"
    for name in ("kit", "course"):  # gigabytes, which pytest would keep for three runs
        shutil.rmtree(tmp_path / name, ignore_errors=True)


def names_in(lock: Path) -> set[str]:
    return {line.partition("==")[0] for line in lock.read_text().splitlines()}


def test_a_kit_installs_the_course_with_the_network_cut(whole_kit, tmp_path) -> None:
    (lock,) = whole_kit.glob("locks/*.txt")
    # A machine that has torch: its packages lie where Python looks, in no environment.
    site = tmp_path / "site"
    site.mkdir()
    for name in closure(*PREPARED) - names_in(lock):
        here = distribution(name)
        for top in {file.parts[0] for file in here.files} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(here.locate_file(top))
    folder = tmp_path / "course"
    install = [sys.executable, str(whole_kit / "install.py"), str(folder)]
    command, environment = offline("--", *install)
    path = [str(site), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    environment["HF_HOME"] = str(tmp_path / "cache")  # no data from earlier runs
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=1500
    )
    # install.py ends with `python -m course_utils`, and with its exit status.
    assert done.returncode == 0, done.stdout + done.stderr
    assert "This machine is ready for the course.\n" in done.stdout
    assert "FIX" not in done.stdout
    python = folder / ".venv" / SCRIPTS / "python"
    where = "import course_utils, numpy, PIL; print(course_utils, numpy, PIL)"
    printed = subprocess.run(
        [python, "-c", where], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert printed.count(str(folder)) == 3, printed
    jupyter = [python, "-m", "jupyter", "lab", "--version"]
    assert subprocess.run(jupyter, capture_output=True).returncode == 0
    # As committed, and without the clone's own.
    readme = (folder / "README.md").read_text("utf-8")
    assert "teacher's" not in readme and (folder / "notebooks").is_dir()
    lesson = (folder / kit_install.FIRST_LESSON).read_text("utf-8")
    assert '"outputs": []' in lesson and "image/png" not in lesson
    # `make lab` has nothing more to install.
    installed = (folder / ".venv" / "installed").stat().st_mtime
    for name in ("pyproject.toml", "requirements.txt"):
        assert (folder / name).stat().st_mtime <= installed


def resolve(folder: Path, platform: str, python: str) -> kit.Wheels:
    arguments = argparse.Namespace(folder=folder, without=[], cpu=False)
    return kit.Wheels(arguments, platform, python)


def test_what_a_kit_lacks_is_named_and_downloaded(tmp_path, capfd) -> None:
    # A corner of a kit for another system: two packages with all that they need there.
    corner = {
        "tqdm",
        "colorama",
        "trustme",
        "cryptography",
        "cffi",
        "pycparser",
        "idna",
    }
    wheels = resolve(tmp_path, "windows", "3.13")
    # pip would have looked at this machine, and taken what it needs.
    names = {package["name"] for package in wheels.packages}
    assert names >= {"pywinpty", "torch", "mlxtend", "jupyterlab", "pip", "hatchling"}
    assert not names & {"uvloop", "pexpect", "triton", "ray"}
    wheels.packages = [p for p in wheels.packages if p["name"] in corner]
    assert len(wheels.missing()) == len(corner)
    wheels.download()
    wheels.verify()
    assert names_in(wheels.lock) == corner

    (cut_off,) = tmp_path.glob("wheels/cffi-*win_amd64.whl")
    (gone,) = tmp_path.glob("wheels/tqdm-*.whl")
    (kept,) = tmp_path.glob("wheels/idna-*.whl")
    content, untouched = cut_off.read_bytes(), kept.stat().st_mtime_ns
    cut_off.write_bytes(content[: len(content) // 2])
    gone.unlink()
    with pytest.raises(SystemExit, match=r"kit for windows-3\.13 lacks cffi, tqdm\."):
        wheels.verify()
    wheels.download()
    wheels.verify()
    assert cut_off.read_bytes() == content and gone.is_file()
    assert kept.stat().st_mtime_ns == untouched

    # A list of packages from which one was forgotten that only Windows needs.
    wheels.packages = [p for p in wheels.packages if p["name"] != "colorama"]
    (colorama,) = tmp_path.glob("wheels/colorama-*.whl")
    colorama.unlink()
    with pytest.raises(SystemExit, match="is not complete: uv says above why"):
        wheels.verify()
    assert "colorama" in capfd.readouterr().err
    assert not wheels.lock.exists()


def test_only_linux_has_torch_from_pytorchs_own_index(tmp_path, monkeypatch) -> None:
    wheel = {"url": "https://x/torch-9%2Bcpu-py3-none-any.whl"}  # no size, no hash
    packages = [{"name": "torch", "version": "9+cpu", "wheels": [wheel]}]
    commands: list[str] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess:
        commands.append(" ".join(map(str, command)))
        return subprocess.CompletedProcess(command, 0, stdout="packages = []")

    monkeypatch.setattr(subprocess, "run", run)
    arguments = argparse.Namespace(folder=tmp_path, without=[], cpu=True)
    for platform in ("linux", "linux-arm", "windows", "macos"):
        commands.clear()
        wheels = kit.Wheels(arguments, platform, "3.12")
        wheels.packages = packages
        wheels.download()
        by_uv, by_pip = commands
        of_linux = platform.startswith("linux")
        assert ("--torch-backend cpu" in by_uv) == of_linux
        assert (f"--extra-index-url {kit.CPU_WHEELS}" in by_pip) == of_linux
    assert wheels.requirements(packages) == "torch==9+cpu\n"
    by_address = f"torch @ {wheel['url']}\n"
    assert wheels.requirements(packages, by_address=True) == by_address
    packages[0]["wheels"] = [wheel, wheel]  # pip chooses
    assert wheels.requirements(packages, by_address=True) == "torch==9+cpu\n"
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "torch-9+cpu-py3-none-any.whl").write_text("a wheel")
    assert not wheels.missing()


def test_a_disk_that_is_too_small_is_refused_before_the_download(
    tmp_path, monkeypatch
) -> None:
    wheel = {"url": "x/a-1-py3-none-any.whl", "size": 3_000_000_000, "hashes": {}}

    class Sets:
        def missing(self):
            return [{"name": "a", "version": "1", "wheels": [wheel]}]

    kit.require_room(tmp_path, [])
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: usage._replace(free=2_000_000_000)
    )
    with pytest.raises(SystemExit, match=r"needs 3\.0 GB.*2\.0 GB are free.*--cpu"):
        kit.require_room(tmp_path, [Sets()])


def test_what_no_kit_is_for_is_refused_in_a_sentence(capsys, monkeypatch) -> None:
    for words, sentence in (
        (["--platform", "amiga"], "no kit for amiga: choose --platform among linux,"),
        (["--python", "three"], "'three' is no version such as 3.12"),
    ):
        monkeypatch.setattr(sys, "argv", ["kit.py", *words])
        with pytest.raises(SystemExit):
            kit.main()
        assert sentence in capsys.readouterr().err


# --------------------------------------------------------------------- the participant


@pytest.fixture
def small_kit(tmp_path, monkeypatch) -> Path:
    """Pretend to a kit for two systems, and for no Python that there is."""
    folder = tmp_path / "kit"
    (folder / "locks").mkdir(parents=True)
    for name in ("windows-3.98", "windows-3.99", "linux-3.99"):
        (folder / "locks" / f"{name}.txt").write_text("pip==1.0\n")
        about = {"bytes": 6_000_000_000, "without": []}
        (folder / "locks" / f"{name}.json").write_text(json.dumps(about))
    (folder / "flower-course" / "notebooks").mkdir(parents=True)
    (folder / "flower-course" / kit_install.FIRST_LESSON).write_text("{}")
    monkeypatch.setattr(kit_install, "KIT", folder)
    return folder


def test_another_python_or_system_is_refused_in_a_sentence(
    small_kit, monkeypatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Windows")
    monkeypatch.setattr("platform.machine", lambda: "AMD64")
    with pytest.raises(SystemExit, match=r"the kit is for Python 3\.98 or 3\.99: sta"):
        kit_install.find_lock()
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(
        SystemExit, match="is Darwin x86_64, the kit is for linux, windows"
    ):
        kit_install.find_lock()
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    with pytest.raises(SystemExit, match="is macos, the kit is for linux, windows"):
        kit_install.find_lock()


def test_a_full_disk_is_refused_before_anything_is_copied(
    small_kit, tmp_path, monkeypatch
) -> None:
    lock = small_kit / "locks" / "linux-3.99.txt"
    monkeypatch.setattr(kit_install, "find_lock", lambda: lock)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1e9))
    monkeypatch.setattr(sys, "argv", ["install.py", str(tmp_path / "new" / "course")])
    with pytest.raises(SystemExit, match=r"takes 6\.0 GB, and 1\.0 GB are free in"):
        kit_install.main()
    assert not (tmp_path / "new" / "course").exists()


def test_a_folder_of_the_participants_is_left_alone(small_kit, tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(SystemExit, match="it is not the course: name a folder that"):
        kit_install.place_course(tmp_path / "mine")
    (tmp_path / "course.part").mkdir()  # left by an interruption
    kit_install.place_course(tmp_path / "course")
    assert (tmp_path / "course" / kit_install.FIRST_LESSON).is_file()
    assert not (tmp_path / "course.part").exists()


def test_the_page_has_a_line_for_each_system_and_python(small_kit) -> None:
    kit.write_page(small_kit, [])
    page = (small_kit / "INSTALL.txt").read_text()
    lines = [line.strip() for line in page.splitlines() if "install.py" in line]
    assert lines == [
        "py -3.98 install.py",
        "py -3.99 install.py",
        "python3.99 install.py",
    ]
    assert "7 GB of disk" in page and "already" not in page
    kit.write_page(small_kit, ["torch"])
    assert "machines that have torch already" in (small_kit / "INSTALL.txt").read_text()
