"""Make a graded version of a lesson, for nbgrader: ``make assignment LESSON=05``.

What comes out is a course folder as nbgrader wants it: ``source/`` for the teacher,
``release/`` to hand out, the gradebook, and a place for what the class hands in.
An exercise counts as many points as its card says it is difficult, 1 to 3, and what
its check says decides: all of them if it is correct, else none.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import build
import jupytext
import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

ROOT = Path(__file__).parents[2]

FOLDER = ROOT / "grading"
SCHEMA = 3
"""Version of nbgrader's metadata, fixed since nbgrader 0.6."""

CONFIG = """\
# Settings of nbgrader for this folder. This file is written once: change it freely.
c = get_config()
c.CourseDirectory.course_id = "federated_learning"
# A blank looks like in the lessons. Their checks know it, and say "not attempted yet".
c.ClearSolutions.code_stub = {"python": "raise NotImplementedError"}
# Seconds for one cell. An answer that never ends costs a whole one, and its points.
c.Execute.timeout = 300
"""
NOTE = """\
**This copy is graded.** Each exercise counts as many points as its card says it is
difficult, and what its check says is what counts. Write only where it says
`raise NotImplementedError`: all other cells are locked, and put back before grading.
What you try in cells of your own is not graded."""

# The learner sees the lesson's own check, which never raises, so that Run All works on
# a blank. nbgrader puts the hidden lines back when it grades. They ask for what the
# check above them found, and run no answer again: one that never ends is interrupted
# once, and a second time would take the whole submission down.
TEST = """\
{check}
### BEGIN HIDDEN TESTS
from course_utils import exercises

assert "{name}" in exercises.right_now, "{name} is not solved."
### END HIDDEN TESTS"""
CHECK = re.compile(r'^check\("([\d.]+)", (\w+)\)$', re.MULTILINE)


def make_assignment(source: Path) -> NotebookNode:
    """Turn a lesson's source into the teacher's notebook for nbgrader.

    Parameters
    ----------
    source : Path
        A lesson's source.

    Returns
    -------
    NotebookNode
        The lesson, not executed, with nbgrader's metadata: each function to complete
        is an answer, with its solution between the marks that nbgrader clears, each
        check is a test that gives points, and every other cell is locked.

    Raises
    ------
    ValueError
        If the lesson has no exercise.
    """
    if not build.has_exercises(source):
        raise ValueError(f"Lesson {source.stem[:2]} has no exercise to grade.")
    notebook = build.make_notebook(source)
    # Colab would open the lesson, not the graded copy.
    notebook.cells[0].source = build.without_link(notebook.cells[0].source)
    put_solutions_back(notebook, source)
    notebook.cells.insert(1, new_markdown_cell(NOTE, id="graded"))
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            cell.source = without_relative_links(cell.source)
        cell.metadata["nbgrader"] = {
            "grade_id": f"lesson-{number:02d}",
            "grade": False,
            "solution": False,
            "task": False,
            "locked": True,
            "schema_version": SCHEMA,
        }
    for name, answer, test in exercises(notebook):
        number = name.replace(".", "-")
        answer.metadata["nbgrader"].update(
            grade_id=f"answer-{number}", solution=True, locked=False
        )
        test.metadata["nbgrader"].update(
            grade_id=f"check-{number}", grade=True, points=difficulty(notebook, name)
        )
        test.source = TEST.format(check=test.source, name=name)
    return notebook


def exercises(notebook: NotebookNode) -> list[tuple[str, NotebookNode, NotebookNode]]:
    """List each exercise's name, the cell of its function, and that of its check."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    found = []
    for test in code:
        for name, function in CHECK.findall(test.source):
            (answer,) = [
                cell
                for cell in code
                if "### BEGIN SOLUTION" in cell.source
                and f"def {function}(" in cell.source
            ]
            found.append((name, answer, test))
    return found


def put_solutions_back(notebook: NotebookNode, source: Path) -> None:
    """Replace each blank by the solution between its marks, as in the source."""
    written = [
        c for c in jupytext.read(source).cells if "solution" not in build.tags(c)
    ]
    # From the end: what make_notebook adds stands at the beginning.
    for cell, original in zip(
        reversed(notebook.cells), reversed(written), strict=False
    ):
        if "### BEGIN SOLUTION" in original.source:
            cell.source = original.source


def difficulty(notebook: NotebookNode, name: str) -> int:
    """Return how difficult an exercise is, 1 to 3, from its card."""
    for cell in notebook.cells:
        if f"### Exercise {name}:" in cell.source:
            return int(re.search(r"^\| ([123]) of 3", cell.source, re.MULTILINE)[1])
    raise ValueError(f"Exercise {name} has no card to read its difficulty from.")


def without_relative_links(text: str) -> str:
    """Keep the words of a link to another page: the page is not handed out."""
    return re.sub(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)[^)]*\)", r"\1", text)


def write_course(source: Path, folder: Path) -> Path:
    """Write nbgrader's course folder with one lesson as an assignment.

    Parameters
    ----------
    source : Path
        A lesson's source.
    folder : Path
        The course folder. Other assignments in it and its settings are left alone.

    Returns
    -------
    Path
        The teacher's notebook.
    """
    notebook = make_assignment(source)
    target = folder / "source" / assignment_name(source) / f"{source.stem}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)
    config = folder / "nbgrader_config.py"
    if not config.exists():
        config.write_text(CONFIG, encoding="utf-8")
    return target


def assignment_name(source: Path) -> str:
    """Return the name of a lesson's assignment, such as ``lesson_05``."""
    return f"lesson_{source.stem[:2]}"


def nbgrader(folder: Path, *words: str) -> None:
    """Run an nbgrader command in a course folder.

    Raises
    ------
    RuntimeError
        If it fails, with what it printed.
    """
    # nbgrader looks for its helper, alembic, on the path, where it is only if this
    # environment is active.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *words],
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"nbgrader {' '.join(words)} failed:\n{done.stdout}")


def main() -> None:
    """Make a graded version of one lesson, ready to hand out."""
    sources = {path.stem[:2]: path for path in sorted(build.SOURCES.glob("[0-9]*.py"))}
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("lesson", help="such as 05")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to write")
    arguments = parser.parse_args()
    if arguments.lesson not in sources:
        sys.exit(f"There is no lesson {arguments.lesson!r}: take {', '.join(sources)}.")
    source, folder = sources[arguments.lesson], arguments.folder
    name = assignment_name(source)
    try:
        write_course(source, folder)
        nbgrader(folder, "generate_assignment", name, "--force")
    except (ValueError, RuntimeError) as error:
        sys.exit(str(error))
    notebook = f"{name}/{source.stem}.ipynb"
    print(f"""\
hand out    {folder}/release/{notebook}
collect in  {folder}/submitted/STUDENT/{notebook}
then, with this environment active and in {folder}:
            nbgrader autograde {name}
            nbgrader export               (the marks, in grades.csv)
            nbgrader generate_feedback {name}""")


if __name__ == "__main__":
    main()
