"""The graded version of a lesson: valid for nbgrader, and marked as it should be."""

import re
import sys
from pathlib import Path

import nbformat
import pytest
from exercise_tools import find_exercises
from nbgrader.api import Gradebook
from nbgrader.nbgraderformat import MetadataValidator
from nbgrader.preprocessors import ClearHiddenTests, ClearSolutions
from traitlets.config import PyFileConfigLoader

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "notebooks" / "tools"))
import assignment  # noqa: E402
from assignment import build  # noqa: E402

SOURCES = sorted(build.SOURCES.glob("[0-9]*.py"))
every_source = pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.stem)


def role(cell) -> str:
    """Return what nbgrader takes a cell for, such as ``check-5-1``."""
    return cell.metadata["nbgrader"]["grade_id"]


def without_marks(text: str) -> str:
    return re.sub(r"^ *### .*\n?", "", text, flags=re.MULTILINE)


def run_tool(monkeypatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["assignment.py", *map(str, words)])
    assignment.main()


# ------------------------------------------------------------------ the whole way once


@pytest.fixture
def small_lesson(tmp_path, monkeypatch) -> Path:
    """Make a lesson of the first two exercises of lesson 01, and of nothing else."""
    source = tmp_path / "sources" / "01_small.py"
    source.parent.mkdir()
    parts = ["# %% [markdown]\n# # 01 · Two exercises", "# %%\n" + IMPORTS]
    for exercise in find_exercises():
        if exercise.name in ("1.1", "1.2"):
            card = "\n".join(f"# {line}" for line in exercise.card.splitlines())
            parts += [f"# %% [markdown]\n{card}", f"# %%\n{exercise.cell}"]
            parts += [f'# %%\ncheck("{exercise.name}", {exercise.function})']
    source.write_text("\n\n".join(parts), encoding="utf-8")
    monkeypatch.setattr(build, "SOURCES", source.parent)
    return source


IMPORTS = """\
from typing import Any

from flwr.app import MetricRecord

from course_utils.exercises import check"""


def hand_in(folder: Path, student: str, answers: dict[str, str]) -> None:
    """Put a copy of what was handed out, with answers in it, where it belongs."""
    name = "lesson_01/01_small.ipynb"
    notebook = nbformat.read(folder / "release" / name, as_version=4)
    for cell in notebook.cells:
        cell.source = answers.get(role(cell), cell.source)
    target = folder / "submitted" / student / name
    target.parent.mkdir(parents=True)
    nbformat.write(notebook, target)


def test_nbgrader_gives_each_answer_its_points(
    small_lesson, tmp_path, monkeypatch, capsys
) -> None:
    run_tool(monkeypatch, "01", "--folder", tmp_path)
    assert f"hand out    {tmp_path}/release/lesson_01" in capsys.readouterr().out
    teacher = assignment.make_assignment(small_lesson)
    solution = {
        role(cell): without_marks(cell.source)
        for cell in teacher.cells
        if cell.metadata["nbgrader"]["solution"]
    }
    assert list(solution) == ["answer-1-1", "answer-1-2"]
    hand_in(tmp_path, "solved", solution)
    hand_in(tmp_path, "blank", {})
    wrong = {
        "answer-1-2": "def record_bytes(shapes, number_size):\n    return 0",
        "check-1-2": 'print("1.2 correct: trust me")',  # a locked cell, changed
    }
    hand_in(tmp_path, "wrong_once", solution | wrong)
    assignment.nbgrader(tmp_path, "autograde", "lesson_01")

    def marks(student: str) -> tuple[float, list[float]]:
        submission = gradebook.find_submission("lesson_01", student)
        (notebook,) = submission.notebooks
        scores = {grade.name: grade.auto_score for grade in notebook.grades}
        assert not any(grade.needs_manual_grade for grade in notebook.grades)
        return submission.max_score, [scores[name] for name in sorted(scores)]

    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}") as gradebook:
        assert marks("solved") == (3, [1, 2])
        assert marks("blank") == (3, [0, 0])
        assert marks("wrong_once") == (3, [1, 0])


# ---------------------------------------------------------------- every other lesson


@every_source
def test_every_exercise_counts_what_its_card_says_it_is_difficult(source) -> None:
    cells = assignment.make_assignment(source).cells
    written = source.read_text(encoding="utf-8")
    names = re.findall(r'^check\("([\d.]+)"', written, re.MULTILINE)
    difficulties = [int(d) for d in re.findall(r"^# \| ([123]) of 3", written, re.M)]
    assert len(names) == len(difficulties) >= 3
    points = {role(c): c.metadata["nbgrader"].get("points") for c in cells}
    tests = [c for c in cells if c.metadata["nbgrader"]["grade"]]
    assert [role(c) for c in tests] == [f"check-{n.replace('.', '-')}" for n in names]
    assert [points[role(c)] for c in tests] == difficulties
    answers = [role(c) for c in cells if c.metadata["nbgrader"]["solution"]]
    assert answers == [role(c).replace("check", "answer") for c in tests]
    locked = [role(c) for c in cells if c.metadata["nbgrader"]["locked"]]
    assert set(points) - set(locked) == set(answers)


@every_source
def test_what_is_handed_out_is_the_lesson_with_its_blanks(source, tmp_path) -> None:
    """Nbgrader's own steps and this folder's settings leave the learner's lesson."""
    target = assignment.write_course(source, tmp_path)
    notebook = nbformat.read(target, as_version=4)
    nbformat.validate(notebook)
    MetadataValidator().validate_nb(notebook)
    settings = PyFileConfigLoader("nbgrader_config.py", str(tmp_path)).load_config()
    for step in (ClearSolutions, ClearHiddenTests):
        notebook, _ = step(config=settings).preprocess(notebook, {})
    title, note, *handed_out = notebook.cells
    assert "**This copy is graded.**" in note.source
    assert title.source.startswith(f"# {source.stem[:2]} · ")
    _, *learner = build.make_notebook(source).cells
    for ours, theirs in zip(handed_out, learner, strict=True):
        if theirs.cell_type == "code":
            assert ours.source == theirs.source
        else:
            links = r"\]\((?!http)[^)]*\)"
            assert not re.search(links, ours.source)
            bare = re.sub(rf"\[([^\]]*){links}", r"\1", theirs.source)
            assert ours.source == bare


# ------------------------------------------------------------------------ what is told


def test_an_unknown_lesson_is_told_in_one_sentence(monkeypatch, tmp_path) -> None:
    with pytest.raises(SystemExit, match=r"^There is no lesson '5': take 00, 01, .*07"):
        run_tool(monkeypatch, "5", "--folder", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_lesson_without_exercises_is_told_in_one_sentence(
    monkeypatch, tmp_path
) -> None:
    (tmp_path / "42_reading.py").write_text("# %% [markdown]\n# # 42 · Reading\n")
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    with pytest.raises(SystemExit, match=r"^Lesson 42 has no exercise to grade\.$"):
        run_tool(monkeypatch, "42", "--folder", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_settings_of_a_teacher_are_kept(tmp_path) -> None:
    settings = tmp_path / "nbgrader_config.py"
    settings.write_text("# mine\n")
    assignment.write_course(SOURCES[0], tmp_path)
    assert settings.read_text() == "# mine\n"


def test_a_failure_of_nbgrader_is_told_with_what_it_said(tmp_path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)lesson_99 failed:.*matched by"):
        assignment.nbgrader(tmp_path, "autograde", "lesson_99")
