"""Tables of runs are the same however they are made, and what is stored still holds."""

import importlib.util
import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from joblib.externals.loky import get_reusable_executor

from course_utils import experiments
from course_utils.experiments import (
    COLUMNS,
    STORED,
    Experiment,
    as_text,
    by_seed,
    experiments_of,
    held,
    run_once,
    run_table,
    stored,
    stored_rows,
)
from course_utils.experiments.lesson_08 import BASE, measure

ROOT = Path(__file__).parents[1]
TOOL = ROOT / "notebooks" / "tools" / "experiments.py"
LESSONS = ("08", "09", "10", "14")
LARGEST = 1.5e6
"""Bytes that the stored table may have: a learner clones it."""


def load_tool():
    spec = importlib.util.spec_from_file_location("experiments_tool", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def noisy(seed: int, *, lr: float, rounds: int = 2) -> dict:
    """Draw numbers, which must come from the seed, and count the threads."""
    curve = (lr * torch.rand(rounds + 1)).tolist()
    return {"accuracy": curve, "at": {2: 0.5}, "threads": torch.get_num_threads()}


SETTINGS = [{"lr": 1}, {"lr": 0.5}]


@pytest.fixture(scope="module", autouse=True)
def _end_of_workers():
    """End what joblib keeps for the next call, before tests/leftovers.py looks."""
    yield
    get_reusable_executor().shutdown(wait=True)


# ----------------------------------------------------------------------------- tables


def test_a_table_is_tidy_and_the_same_however_many_runs_at_a_time() -> None:
    threads = torch.get_num_threads()
    alone = run_table(noisy, SETTINGS, [3, 1], jobs=1)
    pd.testing.assert_frame_equal(alone, run_table(noisy, SETTINGS, [3, 1], jobs=2))
    assert list(alone) == ["lr", "seed", "round", "metric", "value"]
    assert len(alone) == 4 * (3 + 1 + 1)
    assert set(alone[alone.metric == "at"]["round"]) == {2}
    one = alone[alone.metric == "threads"]
    assert set(one["round"]) == {0} and set(one.value) == {1}
    assert torch.get_num_threads() == threads
    first = alone[(alone.metric == "accuracy") & (alone["round"] == 0)]
    assert first.value.nunique() == 4  # seeds and settings all differ


def failing(seed: int, *, lr: float) -> dict:
    if seed == 1:
        raise KeyError("no such client")
    return {"accuracy": lr}


class Awkward(Exception):
    """One that does not cross to another process."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} of {two}")


def failing_awkwardly(seed: int) -> dict:
    raise Awkward(3, 4)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_fails_says_which_it_was_and_where(jobs) -> None:
    with pytest.raises(KeyError, match="no such client") as caught:
        run_table(failing, [{"lr": 0.1}], [0, 1], jobs=jobs)
    assert caught.value.__notes__ == ["In the run with lr=0.1 seed=1."]
    where = "".join(str(e) for e in (caught.value.__cause__, *caught.traceback))
    assert "failing" in where
    with pytest.raises(RuntimeError, match=r"Awkward: 3 of 4"):
        run_table(failing_awkwardly, [{}], [0, 1], jobs=jobs)


@pytest.mark.parametrize(
    ("experiment", "settings", "seeds", "jobs", "said"),
    [
        (3, [{}], [0], None, "must be a function of a seed and a setting, not 3"),
        (noisy, [], [0], None, "at least one setting"),
        (noisy, [{"lr": 1}], [], None, "one seed"),
        (noisy, [{"lr": 1}, {"rounds": 1}], [0], None, "the same names, such as lr"),
        (noisy, [{"lr": 1}, {"lr": 1.0}], [0], None, "Each setting may be given once"),
        (noisy, [{"lr": 1}], [0, 0], None, "Each seed may be given once"),
        (noisy, [{"round": 1}], [0], None, "No setting may be called 'round'"),
        (noisy, [{"lr": 1}], [0], 0, "jobs must be at least 1, not 0"),
        (lambda seed: 0.5, [{}], [0], 1, "returns a dictionary .* not 0.5"),
    ],
)
def test_what_cannot_be_run_is_refused_in_a_sentence(
    experiment, settings, seeds, jobs, said
) -> None:
    with pytest.raises((TypeError, ValueError), match=said) as caught:
        run_table(experiment, settings, seeds, jobs)
    assert str(caught.value).count(". ") == 0


def test_claims_are_counted_seed_by_seed() -> None:
    table = run_table(noisy, SETTINGS, range(3), jobs=1)
    last = by_seed(table, "lr", round=2)
    assert last.index.tolist() == [0, 1, 2] and list(last) == [0.5, 1.0]
    assert held(last[1.0] > last[0.5]) == "3 of 3"
    assert held(last[1.0] > 2 * last[0.5] + 0.1) == "0 of 3"


# ----------------------------------------------------------------- what is stored


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Return the tool, with a store of its own and two small experiments."""
    tool = load_tool()
    known = {
        "a": Experiment(noisy, SETTINGS, range(2)),
        "b": Experiment(noisy, SETTINGS),
    }
    monkeypatch.setattr(tool, "STORED", tmp_path / "stored.csv")
    monkeypatch.setattr(experiments, "STORED", tool.STORED)
    monkeypatch.setattr(experiments, "experiments_of", lambda lesson: known)
    tool.STORED.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    stored_rows.cache_clear()
    yield tool, known
    stored_rows.cache_clear()


def test_what_is_stored_is_what_was_measured_and_only_its_rows_change(small) -> None:
    tool, known = small
    for lesson, name in (("09", "a"), ("08", "b"), ("08", "a"), ("08", "b")):
        new = tool.rows_of(lesson, name, known[name])
        old = pd.read_csv(tool.STORED, dtype={"lesson": str})
        tool.store(tool.merge(old, new))
    lines = tool.STORED.read_text("utf-8").splitlines()
    heads = [tuple(line.split(",")[:2]) for line in lines[1:]]
    assert list(dict.fromkeys(heads)) == [("08", "a"), ("08", "b"), ("09", "a")]
    assert lines[1].startswith("08,a,lr=0.5,0,0,accuracy,0.")
    table = stored("08", "a")
    again = run_table(noisy, SETTINGS, range(2), jobs=1)
    key = ["lr", "seed", "metric", "round"]
    pd.testing.assert_frame_equal(
        table.sort_values(key, ignore_index=True),
        again.sort_values(key, ignore_index=True),
        atol=5e-5,
    )


def test_rows_that_were_not_run_as_declared_are_refused(small) -> None:
    tool, known = small
    tool.store(tool.rows_of("08", "a", known["a"]))
    assert len(stored("08", "a")) == 20
    known["a"] = replace(known["a"], settings=[{"lr": 1}, {"lr": 0.2}])
    with pytest.raises(ValueError, match='run `make experiments ARGS="08 a"`'):
        stored("08", "a")
    with pytest.raises(ValueError, match=r"no experiment 'c': choose one of a, b\."):
        stored("08", "c")


def test_every_declared_experiment_is_stored_and_nothing_else() -> None:
    declared = {(les, name) for les in LESSONS for name in experiments_of(les)}
    rows = stored_rows()
    assert declared == {*zip(rows.lesson, rows.experiment, strict=True)}
    for lesson, name in declared:
        assert len(experiments_of(lesson)[name].seeds) >= 20
        stored(lesson, name)
    assert STORED.stat().st_size < LARGEST
    assert rows.to_csv(index=False, float_format="%.4f") == STORED.read_text("utf-8")


def difference(experiment: Experiment, setting: dict, seed: int, rows) -> float:
    """Run once more, and return by how many tolerances the result is another.

    Rounding differs from CPU to CPU, and grows from round to round. So the means over
    the rounds are compared: a single round may jump.
    """
    again = pd.DataFrame(run_once(experiment.function, setting, seed))
    worst = 0.0
    for metric, values in rows.groupby("metric").value:
        own = again[again.metric == metric]
        assert len(own) == len(values), f"{metric} has other rounds: {as_text(setting)}"
        off = abs(own.value.mean() - values.mean())
        allowed = (experiment.tolerance or 0.02) * max(1.0, abs(values.mean()))
        if experiment.tolerance is None and off > allowed:
            middle, allowed = where_seeds_lie(rows, metric)
            off = abs(own.value.mean() - middle)
        worst = max(worst, off / allowed)
    return worst


def where_seeds_lie(rows: pd.DataFrame, metric: str) -> tuple[float, float]:
    """Return the middle of all seeds' means, and their span: half of it to spare."""
    whose = rows[["lesson", "experiment", "setting"]].drop_duplicates()
    every = stored_rows().merge(whose)
    means = every[every.metric == metric].groupby("seed").value.mean()
    return (means.min() + means.max()) / 2, means.max() - means.min()


def draw(count: int) -> list[tuple]:
    """Draw stored runs: other ones each time, and each as likely as any other."""
    rows = stored_rows()
    runs = [*rows.groupby(["lesson", "experiment", "setting", "seed"])]
    return random.SystemRandom().sample(runs, min(count, len(runs)))


def test_a_changed_experiment_is_noticed() -> None:
    """As if somebody had changed the function, and not run it again."""
    rows = stored_rows().query("lesson == '08' and experiment == 'settings'")
    rows = rows[(rows.setting == as_text(BASE)) & (rows.seed == 0)]

    def changed(seed: int, **setting) -> dict:
        return measure(seed, **(setting | {"lr": 0.02}))

    assert difference(Experiment(changed, [BASE]), BASE, 0, rows) > 1


def test_where_rounding_makes_another_run_it_lies_where_the_others_lie() -> None:
    rows = stored_rows().query("lesson == '08' and experiment == 'settings'")
    rows = rows[(rows.setting == as_text(BASE)) & (rows.seed == 0)]
    for lr, differs in ((BASE["lr"], False), (0.3, True)):
        function = partial(measure, **(BASE | {"lr": lr}))
        wide = Experiment(lambda seed, f=function, **_: f(seed + 1), [BASE], (0,), None)
        assert (difference(wide, BASE, 0, rows) > 1) == differs


def test_two_stored_runs_drawn_at_random_come_out_again() -> None:
    for (lesson, name, text, seed), rows in draw(2):
        experiment = experiments_of(lesson)[name]
        (setting,) = (s for s in experiment.settings if as_text(s) == text)
        off = difference(experiment, setting, seed, rows)
        assert off <= 1, f"{lesson} {name} {text} seed={seed}: {off:.1f} tolerances off"
