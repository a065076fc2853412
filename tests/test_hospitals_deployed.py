"""What lesson 14 says of SuperNodes that each read their own file is so.

The lesson shows a program that begins with ``with Deployment() as deployment``, and
does not run it: it takes minutes. This runs it, as it stands in the lesson.
"""

from federation import program_in
from whole_run import ROOT

LESSON = ROOT / "notebooks" / "source" / "14_four_hospitals.py"


def test_the_program_in_the_lesson_ends_with_the_same_model(capfd) -> None:
    program = program_in(LESSON, "with Deployment() as")
    exec(compile(program, "the program of lesson 14", "exec"), {"__name__": "lesson"})
    assert "the same model, to rounding" in capfd.readouterr().out
