"""Every exercise of the course, found by itself: blank, solved, wrong and abused."""

import importlib.util
import random
import re
import signal
import sys
import threading
import time
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType

import nbformat
import numpy as np
import pytest
import torch
from exercise_tools import ANSWERS, ROOT, build, excused, find_exercises, survivors
from flwr.app import ConfigRecord, Message, MetricRecord
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from course_utils import exercises, isolation, solved
from course_utils.exercises import all_exercises, engine, verdict
from course_utils.exercises.values import close

EXERCISES = find_exercises()
every_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.name)


@pytest.fixture(autouse=True)
def time_enough(monkeypatch) -> None:
    """Let a busy machine judge as a quiet one does."""
    monkeypatch.setattr(engine, "LIMIT", 600.0)
    monkeypatch.setattr(engine, "NAMING", 600.0)


@cache
def answers(lesson: str) -> ModuleType | None:
    """Load more answers to a lesson's exercises, if there are any."""
    path = ANSWERS / f"lesson_{lesson}.py"
    if not path.exists():
        return None
    spec = importlib.util.spec_from_file_location(f"answers_{lesson}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answers_to(exercise) -> ModuleType | None:
    return answers(f"{int(exercise.name.split('.')[0]):02d}")


def printed(folder: str) -> dict[str, str]:
    """Return what each check printed in the stored notebooks of a folder."""
    found = {}
    for path in (ROOT / "notebooks" / folder).glob("[0-9]*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            call = re.search(r'^check\("([\d.]+)"', cell.source, re.M)
            if cell.cell_type == "code" and call:
                found[call.group(1)] = "".join(o.text for o in cell.outputs)
    return found


def test_lessons_and_judges_have_the_same_exercises() -> None:
    names = [exercise.name for exercise in EXERCISES]
    assert names == list(all_exercises())
    for source in sorted(build.SOURCES.glob("[0-9]*.py")):
        lesson = int(source.stem[:2])
        own = [name for name in names if name.startswith(f"{lesson}.")]
        assert own == [f"{lesson}.{i + 1}" for i in range(len(own))] and len(own) >= 3


@every_exercise
def test_a_card_says_how_hard_how_long_and_why(exercise) -> None:
    header, _, row = re.search(r"^\|.*\n\|.*\n\|.*", exercise.card, re.M)[0].split("\n")
    assert header == "| difficulty | minutes | why it matters |"
    difficulty, minutes, why = (part.strip() for part in row.strip("|").split("|"))
    assert difficulty in ("1 of 3, recall", "2 of 3, apply", "3 of 3, build")
    assert 1 <= int(minutes) <= 15 and len(why) > 20
    assert exercise.card.count("<details><summary>Hint") >= 2


def test_the_last_exercise_of_each_lesson_takes_its_time() -> None:
    last = {exercise.name.split(".")[0]: exercise for exercise in EXERCISES}
    for exercise in last.values():
        row = re.search(r"^\| 3 of 3, build \| (\d+) \|", exercise.card, re.M)
        assert row and 10 <= int(row[1]) <= 15, exercise.name


# ------------------------------------------------------------------- blank and solved


@every_exercise
def test_a_blank_is_not_attempted_yet(exercise) -> None:
    expected = f"{exercise.name} not attempted yet: complete the function"
    assert printed("")[exercise.name].startswith(expected)


@every_exercise
def test_the_solution_is_correct_in_its_notebook(exercise) -> None:
    achieved = all_exercises()[exercise.name].achieved
    assert (
        printed("solutions")[exercise.name] == f"{exercise.name} correct: {achieved}\n"
    )


@every_exercise
def test_the_solution_is_correct_on_its_own(exercise) -> None:
    for _ in range(5):  # the inputs are fresh each time
        said = verdict(exercise.name, exercise.solution())
        assert said.startswith(f"{exercise.name} correct: "), said


# ------------------------------------------------------------ right and wrong


@every_exercise
def test_right_answers_pass_however_they_are_written(exercise) -> None:
    """The oracle is one of them, where there is one."""
    right = list(getattr(answers_to(exercise), "RIGHT", {}).get(exercise.name, []))
    right += [o for o in [all_exercises()[exercise.name].oracle] if o]
    for answer in right:
        said = verdict(exercise.name, answer)
        assert said.startswith(f"{exercise.name} correct: "), (answer, said)


@every_exercise
def test_every_mistake_is_told_its_own_sentence(exercise, monkeypatch) -> None:
    """A mistake is a program: each is handed in, as if a learner had written it.

    The cases by hand have to tell it from all others: what is drawn may not.
    """
    judged = all_exercises()[exercise.name]
    by_hand = list(judged.cases)
    monkeypatch.setattr(engine.Exercise, "all_cases", lambda self, rng: by_hand)
    for sentence, program in judged.programs():
        said = verdict(exercise.name, program).split("\n")[0]
        expected = f"{exercise.name} not right yet: {sentence}"
        assert said.removesuffix(".") == expected.removesuffix("."), program
        for case in by_hand:
            for _, seen in judged._made(program, case):
                # An edit may use a name that the module lacks.
                assert not isinstance(getattr(seen, "raised", None), NameError), seen
    judged_by_hand = exercise.name in getattr(answers_to(exercise), "WRONG", {})
    assert len(judged.mistakes) >= 3 or judged_by_hand


@every_exercise
def test_what_was_worked_out_by_hand_is_what_the_oracle_gives(exercise) -> None:
    judged = all_exercises()[exercise.name]
    for case in judged.cases:
        if judged.oracle is None or case.gives is engine.NOTHING:
            continue
        seen = judged.observe(judged.oracle, case)
        if judged.play and isinstance(case.gives, dict):
            seen, by_hand = dict(seen), case.gives
            assert by_hand.keys() <= seen.keys()
            for name, value in by_hand.items():
                assert close(seen[name], value), name
        else:
            assert judged.difference(judged.right(case), seen) is None, case.args


@every_exercise
def test_wrong_answers_without_a_sentence_of_their_own_are_refused(exercise) -> None:
    """Those to lessons whose judges are written by hand name the sentence, too."""
    for wrong in getattr(answers_to(exercise), "WRONG", {}).get(exercise.name, []):
        answer, fragment = wrong if isinstance(wrong, tuple) else (wrong, "")
        for _ in range(2):
            said = verdict(exercise.name, answer)
            assert said.startswith(f"{exercise.name} not right yet: "), said
            assert fragment in said, (answer.__name__, said)


def put(reply: Message, name: str, record: object) -> Message:
    reply.content[name] = record
    return reply


AMISS_WITH_ANY_REPLY = {
    "does every path end in a return": lambda reply, message: None,
    "should return a Message": lambda reply, message: dict(reply.content),
    "this is the content alone": lambda reply, message: reply.content,
    "this is a record alone": lambda reply, message: reply.content["metrics"],
    "this is the message that came in": lambda reply, message: message,
    "a reply takes reply_to=message": lambda reply, message: Message(reply.content),
    "say what it answers by reply_to": lambda reply, message: Message(
        reply.content, message.metadata.src_node_id, "train"
    ),
    "the reply should hold": lambda reply, message: put(reply, "x", ConfigRecord()),
    "the metrics should have these keys": lambda reply, message: put(
        reply, "metrics", MetricRecord({"num_examples": 1})
    ),
}


@pytest.mark.parametrize("name", ["3.1", "3.2", "3.3", "4.2", "4.3"])
def test_what_may_be_amiss_with_any_reply_is_said(name) -> None:
    (solution,) = [e.solution() for e in EXERCISES if e.name == name]
    for said, damage in AMISS_WITH_ANY_REPLY.items():

        def answer(message, *args, damage=damage):
            return damage(solution(message, *args), message)

        assert said in verdict(name, answer)


@every_exercise
def test_the_check_catches_small_changes_to_the_solution(exercise) -> None:
    _, alive = survivors(exercise)
    unexplained = [survivor for survivor in alive if survivor not in excused()]
    assert not unexplained


def test_ninety_five_of_a_hundred_changes_are_caught_over_the_course() -> None:
    results = [survivors(exercise) for exercise in EXERCISES]
    total, alive = sum(n for n, _ in results), sum(len(a) for _, a in results)
    assert total > 100
    assert (total - alive) / total >= 0.95


# ----------------------------------------------------------------------------- abused


def endless():
    while True:
        yield 1


class Hostile:
    """Something that breaks whoever looks at it."""

    def __getattr__(self, name):
        raise RuntimeError("hands off")

    def __repr__(self):
        raise RuntimeError("hands off")

    def __eq__(self, other):
        raise RuntimeError("hands off")

    __hash__ = None


SOMETHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(st.floats() | st.text(max_size=2) | st.none(), max_size=4),
    st.dictionaries(st.text(max_size=3), st.floats() | st.none(), max_size=3),
    st.tuples(st.integers(), st.text(max_size=2)),
    st.builds(lambda: np.array([np.nan, 1.0])),
    st.builds(lambda: np.array(["a", None], dtype=object)),
    st.builds(lambda: torch.zeros(2, 3)),
    st.builds(endless),
    st.builds(Hostile),
    st.builds(dict),
    st.just(int),
)
RAISED = st.sampled_from(
    [ValueError("x"), KeyError("arrays"), SystemExit(1), StopIteration(), Exception()]
)


def assert_is_said_in_a_sentence(name: str, answer: object) -> None:
    said = verdict(name, answer)
    assert re.match(rf"{re.escape(name)} (not right yet|correct|not attempted)", said)
    assert "Traceback" not in said and len(said) < 2000


patient = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@every_exercise
@patient
@given(value=SOMETHING)
def test_whatever_is_handed_over_or_returned_gives_a_sentence(exercise, value) -> None:
    assert_is_said_in_a_sentence(exercise.name, value)
    assert_is_said_in_a_sentence(exercise.name, lambda *args, **kwargs: value)


@every_exercise
@patient
@given(error=RAISED)
def test_whatever_is_raised_gives_a_sentence(exercise, error) -> None:
    def answer(*args, **kwargs):
        raise error

    assert_is_said_in_a_sentence(exercise.name, answer)
    assert "correct" not in verdict(exercise.name, answer)


@every_exercise
def test_the_wrong_number_of_arguments_gives_a_sentence(exercise) -> None:
    for answer in (lambda: None, lambda a, b, c, d, e, f, g: None):
        said = verdict(exercise.name, answer)
        assert "raised TypeError" in said


@every_exercise
def test_settings_of_the_notebook_are_not_the_answers_fault(exercise) -> None:
    """They are put aside while an answer is judged, and are there again afterwards."""

    def state():
        return (
            isolation.get_identity(),
            torch.get_default_dtype(),
            torch.get_default_device(),
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
            np.geterr(),
            list(warnings.filters),
            torch.is_grad_enabled(),
            signal.getsignal(signal.SIGALRM),
            sys.stdout,
        )

    solution = exercise.solution()
    verdict(exercise.name, solution)  # imports add filters of warnings
    with warnings.catch_warnings(), np.errstate(all="raise"), torch.no_grad():
        warnings.simplefilter("error")
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        try:
            before = state()
            said = verdict(exercise.name, solution)
            assert state() == before
        finally:
            torch.set_default_dtype(torch.float32)
            torch.set_default_device("cpu")
    assert said.startswith(f"{exercise.name} correct: "), said


# ------------------------------------------------------------------------------ bounds


def loops(num_examples):
    while True:
        pass


def waits(num_examples):
    time.sleep(1000)


def catches_all_in_a_loop(num_examples):
    while True:
        try:
            time.sleep(0.1)
            sum(range(100_000))
        except BaseException:
            continue


class EndlessText:
    def __repr__(self):
        while True:
            pass


@pytest.mark.parametrize("answer", [loops, waits, catches_all_in_a_loop])
def test_an_answer_that_never_returns_is_stopped(answer, monkeypatch) -> None:
    monkeypatch.setattr(engine, "LIMIT", 0.3)
    said = verdict("0.1", answer)
    assert "has not returned after 0 s. Does every loop in it come to an end?" in said
    assert verdict("0.1", lambda sizes: [1.0]).startswith("0.1 not right yet: the res")


@pytest.mark.parametrize("answer", [loops, catches_all_in_a_loop])
def test_it_is_stopped_in_another_thread_too(answer, monkeypatch) -> None:
    """So it is on Windows, which has no signal that would do."""
    monkeypatch.setattr(engine, "LIMIT", 0.3)
    said = []
    thread = threading.Thread(target=lambda: said.append(verdict("0.1", answer)))
    thread.start()
    thread.join(60)
    assert "has not returned after" in said[0]


def test_the_time_limit_of_others_goes_on(monkeypatch) -> None:
    """That of pytest-timeout is such a one."""
    before = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0]
    verdict("0.1", len)
    after = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0]
    assert after[0] == before[0] and before[1] - 300 < after[1] <= before[1]


def test_what_an_answer_prints_is_cut(capsys) -> None:
    def talks(sizes):
        for number in range(10_000):
            print("line", number)
        return [1.0]

    exercises.check("0.1", talks)
    printed = capsys.readouterr().out
    assert printed.startswith("line 0\nline 1\n")
    assert "(the rest of what is printed is left out)" in printed
    assert len(printed.splitlines()) < 40


def test_long_values_and_errors_are_cut() -> None:
    def fails(sizes):
        raise ValueError("x" * 100_000)

    for answer in (fails, lambda sizes: ["y" * 100_000], lambda sizes: EndlessText()):
        assert len(verdict("0.1", answer)) < 1000


def test_three_million_numbers_are_seen_through_at_once() -> None:
    for answer in (lambda sizes: [0.5] * 3_000_000, lambda sizes: [[1.0] * 10**6] * 2):
        start = time.process_time()
        assert "not right yet" in verdict("0.1", answer)
        assert time.process_time() - start < 10


def test_async_def_has_a_sentence_of_its_own() -> None:
    async def shares(num_examples):
        return num_examples

    assert "write def" in verdict("0.1", shares)
    assert "write def, not async def" in verdict("0.1", lambda sizes: shares(sizes))


def test_what_a_library_has_not_implemented_was_attempted() -> None:
    answers = (
        lambda sizes: torch.nn.Module()(1),
        lambda sizes: torch.ones(2).to_sparse().unfold(0, 1, 1),
    )
    for answer in answers:
        said = verdict("0.1", answer)
        assert said.startswith("0.1 not right yet: your function raised "), said


# ------------------------------------------------------------ the machinery


def test_an_unknown_exercise_is_told() -> None:
    assert verdict("9.9", len).startswith("There is no exercise '9.9'. There are: 0.1")


@pytest.fixture
def record(tmp_path, monkeypatch) -> Path:
    """Let what is solved be kept in a file of the test's own."""
    monkeypatch.setattr(solved, "_in_this_process", set())
    file = tmp_path / "a folder" / "solved.json"
    monkeypatch.setenv("FLOWER_COURSE_PROGRESS", str(file))
    return file


def new_process(monkeypatch) -> None:
    monkeypatch.setattr(solved, "_in_this_process", set())


def test_progress_counts_what_is_solved(record, capsys, monkeypatch) -> None:
    exercises.progress("00")
    assert capsys.readouterr().out == (
        "Lesson 00: 0 of 3 exercises solved; to do: 0.1, 0.2, 0.3.\n"
        f"Of the whole course: 0 of {len(EXERCISES)}.\n"
    )
    for exercise in EXERCISES[:4]:
        exercises.check(exercise.name, exercise.solution())
    capsys.readouterr()
    exercises.progress("00")
    assert capsys.readouterr().out == (
        "Lesson 00: 3 of 3 exercises solved. All done.\n"
        f"Of the whole course: 4 of {len(EXERCISES)}.\n"
    )
    exercises.reset_progress()
    monkeypatch.setenv("FLOWER_COURSE_PROGRESS", "off")
    exercises.progress("00")
    said = capsys.readouterr().out
    assert "0 of 3" in said and "course" not in said and not record.exists()


def test_a_solved_exercise_stays_solved(record, capsys, monkeypatch) -> None:
    wrong = lambda sizes: sizes  # noqa: E731
    assert "stays solved" not in verdict("0.1", wrong)
    exercises.check("0.1", EXERCISES[0].solution())
    assert "0.1" in exercises.right_now
    new_process(monkeypatch)  # tomorrow
    assert verdict("0.1", wrong).endswith(
        "You have solved 0.1 before, so it stays solved."
    )
    assert "0.1" not in exercises.right_now  # a graded copy goes by this
    exercises.progress("00")
    assert "1 of 3 exercises solved; to do: 0.2, 0.3" in capsys.readouterr().out
    assert solved.by_lesson({"0.1", "0.2", "11.1"}) == "lesson 00: 2, lesson 11: 1"


@pytest.mark.parametrize("trouble", ["damaged", "of another kind", "no place", "off"])
def test_where_nothing_can_be_kept_this_process_remembers(
    record, trouble, monkeypatch
) -> None:
    if trouble == "no place":
        record.parent.write_text("a file where the folder should be")
    elif trouble == "off":
        monkeypatch.setenv("FLOWER_COURSE_PROGRESS", "off")
    else:
        record.parent.mkdir()
        record.write_text('["0.1", ' if trouble == "damaged" else "7")
    solved.remember("0.2")
    assert solved.recall() == {"0.2"}
    if trouble in ("no place", "off"):
        new_process(monkeypatch)
        assert solved.recall() == set() and not record.exists()


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ([0.5, 1], np.array([0.5, 1.0]), True),
        (torch.tensor([0.5]), [0.5], True),
        ([1.0], [1.0, 1.0], False),
        (float("nan"), float("nan"), False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"b": 1}, False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ("1", 1, False),
        (True, 1, False),
        (None, 0, False),
        ([], [], True),
        ([torch.zeros(2), torch.zeros(3)], [np.zeros(2), np.zeros(3)], True),
    ],
)
def test_close_compares_values_not_containers(a, b, same) -> None:
    assert close(a, b) is same


def test_an_answer_gets_copies_and_may_not_change_them() -> None:
    original = [1, 2]
    attempt = engine.Attempt(lambda values: values.append(3))
    with pytest.raises(engine.Wrong, match="changed what it was given"):
        attempt(original)
    assert original == [1, 2]
    attempt(original, may_change=True)
    assert original == [1, 2]
