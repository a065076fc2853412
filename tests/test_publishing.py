"""Away from the clone: the links that are stamped, and a stand-in for Colab."""

import os
import re
import shutil
import subprocess
import sys
import venv
from importlib.metadata import distribution
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from packaging.requirements import Requirement
from test_notebooks import (
    NOTEBOOKS,
    ROOT,
    TARGETS,
    build,
    tracked_files,
)
from test_notebooks import read as read_notebook

TOOLS = NOTEBOOKS / "tools"
sys.path.insert(0, str(TOOLS))
import publish_links  # noqa: E402

SCRIPTS = "Scripts" if os.name == "nt" else "bin"
COLAB = re.compile(r"\(https://colab[^)]*/github/([^/]+/[^/]+)/blob/([^/]+)/([^)]+)\)")


def copy_of_the_course(folder: Path) -> Path:
    """Copy what git would commit, so that nothing is changed here."""
    for path in tracked_files():
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder


def links_in(course: Path) -> list[tuple[str, str, str]]:
    """Return repository, tag and path of every Colab link there is."""
    pages = [course / "README.md", *course.glob("notebooks/**/*.ipynb")]
    return [link for page in pages for link in COLAB.findall(page.read_text("utf-8"))]


# ------------------------------------------------------------------ the stamped address


def test_until_the_course_is_published_nothing_leads_nowhere() -> None:
    if build.is_published():
        pytest.skip("it is published")
    assert not links_in(ROOT)
    (unstamped,) = re.findall(r"\w+", build.UNSTAMPED)
    for path in (ROOT / "README.md", *NOTEBOOKS.glob("**/*.ipynb")):
        text = path.read_text("utf-8")
        assert "colab.research" not in text and "find_spec(\\" not in text, path
        assert f"/{unstamped}/" not in text, path


def publish(course: Path, repo: str, tag: str) -> subprocess.CompletedProcess:
    command = [sys.executable, course / "notebooks" / "tools" / "publish_links.py"]
    return subprocess.run(
        [*command, "--repo", repo, "--tag", tag], capture_output=True, text=True
    )


def every_link_opens_its_own_notebook(course: Path, repo: str, tag: str) -> None:
    paths = [p.values[1].relative_to(ROOT).as_posix() for p in TARGETS]
    for path in paths:
        title, setup = read_notebook(course / path).cells[:2]
        # A text, no picture: without a network, a picture is a broken one.
        link, _, heading = title.source.partition("\n\n")
        assert COLAB.findall(link) == [(repo, tag, path)] and "![" not in link
        assert heading.startswith("# ")
        assert setup.source.startswith("# For Colab: ")
        assert setup.metadata.jupyter.source_hidden
        assert f'address = "https://github.com/{repo}"\n' in setup.source
        assert f'release = "{tag}"\n' in setup.source
        code = [c for c in read_notebook(course / path).cells if "outputs" in c]
        assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    text = (course / "README.md").read_text("utf-8")
    owner, name = repo.split("/")
    assert (
        text.count(f"[Read it in the browser](https://{owner}.github.io/{name}/)") == 1
    )
    assert text.count("Read it in the browser") == 1
    readme = COLAB.findall(text)
    learners = [path for path in paths if "/solutions/" not in path]
    assert readme == [(repo, tag, path) for path in learners]


def test_one_command_stamps_the_address_everywhere(tmp_path) -> None:
    course = copy_of_the_course(tmp_path)
    before = {path: path.read_bytes() for path in course.rglob("*") if path.is_file()}
    old = build.publication()
    for repo, tag in (("some-body/a.course", "v1.2"), ("else-body/fork", "v2.0-rc.1")):
        done = publish(course, repo, tag)
        assert done.returncode == 0, done.stderr
        assert f"git tag {tag}" in done.stdout
        every_link_opens_its_own_notebook(course, repo, tag)
        assert {link[:2] for link in links_in(course)} == {(repo, tag)}
    # Stamped back, nothing else has changed, and no output is lost.
    publish(course, old[0].split("github.com/")[1], old[1])
    for path in before:
        assert path.read_bytes() == before[path], path


# ------------------------------------------------------------------- what GitHub reads


@pytest.mark.parametrize(
    ("schema", "files"),
    [("github-workflows", "workflows/*.yml"), ("dependabot", "dependabot.yml")],
)
def test_github_would_take_what_it_is_told(schema, files) -> None:
    paths = sorted((ROOT / ".github").glob(files))
    assert paths
    command = [sys.executable, "-m", "check_jsonschema", *map(str, paths)]
    command += ["--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# ---------------------------------------------------------------- without the outputs


def test_one_command_copies_the_lessons_without_outputs(course, tmp_path) -> None:
    stored = {p: p.read_bytes() for p in course.glob("notebooks/**/*.ipynb")}
    command = [sys.executable, str(course / "notebooks" / "tools" / "blank.py")]
    command += ["--folder", str(tmp_path / "blank")]
    subprocess.run(command, check=True, capture_output=True)
    for path, before in stored.items():
        assert path.read_bytes() == before, "the lessons themselves have changed"
        copied = tmp_path / "blank" / path.relative_to(course / "notebooks")
        wanted = read_notebook(path)
        if "solutions" not in path.parts:
            for cell in wanted.cells:
                if cell.cell_type == "code":
                    cell.outputs, cell.execution_count = [], None
        assert read_notebook(copied) == wanted
    assert (tmp_path / "blank" / "glossary.md").exists()
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 1 and "is there already, perhaps with" in again.stderr


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """Make one copy for all that must not change it."""
    return copy_of_the_course(tmp_path_factory.mktemp("course"))


@pytest.mark.parametrize(
    ("repo", "tag", "sentence"),
    [
        ("https://github.com/a/b", "v1", "write it as owner/name, without https"),
        ("name", "v1", "write it as owner/name"),
        ("a/b", "v 1", "write it as v1.0"),
        ("a/b", "-v1", "expected one argument"),
        ("a/b", "", "write it as v1.0"),
    ],
)
def test_what_is_no_address_is_refused(
    repo, tag, sentence, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(publish_links, "stamp", None)  # nobody gets as far as that
    words = ["publish_links.py", "--repo", repo, "--tag", tag]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as refused:
        publish_links.main()
    assert refused.value.code == 2 and sentence in capsys.readouterr().err


# ----------------------------------------------------------------- a stand-in for Colab


def closure(*names: str) -> set[str]:
    """Return packages and all that they need, of those that are installed here."""
    found, queue = set(), list(names)
    while queue:
        name = re.sub(r"[-_.]+", "-", queue.pop()).lower()
        if name in found:
            continue
        found.add(name)
        for text in distribution(name).requires or []:
            requirement = Requirement(text)
            if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
                queue.append(requirement.name)
    return found


def link(source: Path, target: Path) -> None:
    """Have a file in another place without copying its gigabytes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk
        target.symlink_to(source)


ON_COLAB = ("torch", "torchvision", "numpy", "ipykernel", "pandas", "scikit-learn")
ON_COLAB += ("matplotlib", "pyarrow", "psutil", "cryptography", "datasets", "grpcio")
ON_COLAB += ("httpx", "pydantic", "rich", "typer")


@pytest.fixture(scope="module")
def colab(tmp_path_factory) -> Path:
    """Make an environment with much of what Colab has, and no course."""
    folder = tmp_path_factory.mktemp("colab") / "env"
    venv.create(folder, with_pip=True, symlinks=os.name != "nt")
    python = folder / SCRIPTS / "python"
    site = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(
        subprocess.run(
            [python, "-c", site], capture_output=True, text=True
        ).stdout.strip()
    )
    for name in closure(*ON_COLAB):
        for file in distribution(name).files:
            source = Path(file.locate())
            if ".." in file.parts or not source.exists() or (packages / file).exists():
                continue
            link(source, packages / file)
    return python


def ask(python: Path, code: str) -> str:
    """Let an environment's Python answer by what it prints."""
    done = subprocess.run(
        [python, "-c", code],
        cwd=python.parent,  # away from the clone, which Python would find
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


VERSIONS = """
from importlib.metadata import version
for name in ("torch", "torchvision", "numpy"):
    print(name, version(name))
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    """Make a repository with a tagged release, out of what is here."""
    course = copy_of_the_course(tmp_path_factory.mktemp("public") / "flower-course")
    git = ["git", "-C", str(course), "-c", "user.name=a", "-c", "user.email=a@example"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], check=True)
    subprocess.run([*git, "tag", "v-test"], check=True)
    return course.as_uri()


def run_there(python: Path, folder: Path, notebook: nbformat.NotebookNode) -> None:
    """Run a notebook by another environment's kernel, from a folder with nothing."""
    spec = folder / "kernels" / "there"
    spec.mkdir(parents=True, exist_ok=True)
    arguments = '"-m", "ipykernel_launcher", "-f", "{connection_file}"'
    (spec / "kernel.json").write_text(
        f'{{"argv": ["{python.as_posix()}", {arguments}], "display_name": "there", '
        '"language": "python"}'
    )
    work = folder / "content"
    work.mkdir(exist_ok=True)
    client = NotebookClient(
        notebook,
        timeout=1500,
        kernel_name="there",
        resources={"metadata": {"path": str(work)}},
    )
    client.km = client.create_kernel_manager()
    client.km.kernel_spec_manager.kernel_dirs.insert(0, str(spec.parent))
    client.execute()


def lesson(number: str, cells: int | None = None) -> nbformat.NotebookNode:
    """Make a learner notebook, or its first cells."""
    (source,) = build.SOURCES.glob(f"{number}_*.py")
    notebook = build.make_notebook(source)
    notebook.cells = notebook.cells[:cells]
    return notebook


def printed(notebook: nbformat.NotebookNode, number: int) -> str:
    return "".join(output.get("text", "") for output in notebook.cells[number].outputs)


def test_on_colab_the_one_notebook_installs_the_course_and_runs(
    colab, address, tmp_path, monkeypatch
) -> None:
    assert "None" in ask(
        colab, "import importlib.util as u; print(u.find_spec('course_utils'))"
    )
    before = ask(colab, VERSIONS)
    monkeypatch.setattr(build, "publication", lambda: (address, "v-test"))
    first = lesson("00", cells=14)  # up to the model: data, figures and torch work
    run_there(colab, tmp_path, first)
    assert "Installed. Kept as it was: torch " in printed(first, 1)
    assert re.search(r"^Installing [1-9]\d+ packages$", printed(first, 1), re.M)
    assert ask(colab, VERSIONS) == before
    assert "This machine is ready for the course." in str(first.cells)

    # A second lesson, in a new kernel, finds the course, and the Flower App with it.
    second = lesson("06", cells=8)
    run_there(colab, tmp_path, second)
    assert printed(second, 1) == ""
    assert "federated_digits/client_app.py" in str(second.cells)


def test_where_the_course_is_installed_the_set_up_cell_does_nothing(
    monkeypatch,
) -> None:
    monkeypatch.setattr(build, "publication", lambda: ("https://nowhere", "v0"))
    notebook = lesson("00", cells=2)
    NotebookClient(notebook, kernel_name="python3").execute()
    assert notebook.cells[1].outputs == []


def load_install():
    sys.path.insert(0, str(TOOLS))
    import install

    return install


def test_a_needed_restart_is_never_silent(monkeypatch) -> None:
    install = load_install()
    now = install.versions()
    before = now | {"numpy": "1.0", "pip": "1.0", "gone": "1.0"}
    assert install.outdated(before, {"numpy.linalg", "sys"}) == ["numpy"]
    assert install.outdated(now, set(sys.modules)) == []
    monkeypatch.setattr(install, "versions", iter([before, now]).__next__)
    monkeypatch.setattr(install, "install", lambda before: None)
    with pytest.raises(SystemExit, match=r"Restart needed.*numpy.*Restart session"):
        install.main()


def test_where_it_does_not_fit_pips_reason_is_shown(monkeypatch, tmp_path) -> None:
    install = load_install()
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'no version'\n")
    monkeypatch.setattr(install, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match="was not installed") as refused:
        install.install({"numpy": "1.0"})
    assert "pyproject.toml" in str(refused.value) or "name" in str(refused.value)
