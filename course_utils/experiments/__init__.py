"""Experiments: a function, run with many settings and many seeds, and kept as a table.

An experiment is a plain function ``experiment(seed, **setting)``, which leads one run
and returns what it measured by metric. :func:`run_table` runs it on all cores.

A claim about learning needs more seeds than a lesson has time for. So each lesson that
makes such claims declares its experiments in a module here, such as ``lesson_08.py``,
with the very functions that it teaches. ``make experiments`` runs them with 20 seeds
and keeps the results in ``notebooks/data/experiments.csv``, which :func:`stored` reads.
"""

import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import torch
from scipy.stats import t

from course_utils import with_progress
from course_utils.isolation import seeded

STORED = Path(__file__).parents[2] / "notebooks" / "data" / "experiments.csv"
COLUMNS = ["lesson", "experiment", "setting", "seed", "round", "metric", "value"]
"""Of the stored table."""

Setting = Mapping[str, Any]
"""What a run is called with, beside its seed, by name."""

Measured = Mapping[str, float | Sequence[float] | Mapping[int, float]]
"""What a run returns: by metric, a number (kept as round 0), a list with the rounds'
values from round 0 on, or a dictionary of those by round."""


@dataclass(frozen=True)
class Experiment:
    """What is run and stored for a lesson.

    Attributes
    ----------
    function : Callable
        ``function(seed, **setting)`` runs once, and returns what it measured.
    settings : Sequence[Setting]
        What it is run with.
    seeds : Sequence[int]
        The seeds of each setting.
    tolerance : float or None
        How far the mean over a run's rounds may lie from the stored one on another
        machine, whose rounding differs. Above 1, a share of the stored value. With 0.0
        it has to be the same to the four decimals that are stored. None if rounding
        alone makes another run of it: then it may lie where those of the other seeds
        lie.
    kept : Mapping[str, Sequence[int]] or None
        By metric, the rounds that are stored: those that a figure or a claim reads.
        None: all.
    """

    function: Callable[..., Measured]
    settings: Sequence[Setting]
    seeds: Sequence[int] = range(20)
    tolerance: float | None = 0.02
    kept: Mapping[str, Sequence[int]] | None = None

    def keeps(self, table: pd.DataFrame) -> pd.Series:
        """Say of each row of a table of runs whether it is stored."""
        if self.kept is None:
            return pd.Series(True, table.index)
        pairs = zip(table["metric"], table["round"], strict=True)
        stays = [number in self.kept.get(metric, ()) for metric, number in pairs]
        return pd.Series(stays, table.index)


def run_table(
    experiment: Callable[..., Measured],
    settings: Sequence[Setting],
    seeds: Iterable[int],
    jobs: int | None = None,
) -> pd.DataFrame:
    """Run an experiment with each setting and each seed, on all cores.

    A run has one thread, and its random generators start from its seed. So a table is
    the same however many runs there are at a time.

    Parameters
    ----------
    experiment : Callable
        ``experiment(seed, **setting)`` runs once and returns what it measured: see
        ``Measured``. It may be defined in a notebook.
    settings : Sequence[Setting]
        One dictionary of arguments for each setting, all with the same names.
    seeds : Iterable[int]
        The seeds of each setting.
    jobs : int, optional
        How many runs at a time. Default: as many as there are cores.

    Returns
    -------
    pd.DataFrame
        One row a number: the settings' columns, then ``seed``, ``round``, ``metric``
        and ``value``.

    Raises
    ------
    TypeError, ValueError
        If an argument cannot serve, or if a run returns something else.
    Exception
        What a run has raised, with a note that says in which run.
    """
    settings, seeds = [dict(setting) for setting in settings], list(seeds)
    _require_runs(experiment, settings, seeds)
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs must be at least 1, not {jobs}.")
    tasks = [(setting, seed) for setting in settings for seed in seeds]
    jobs = min(jobs or joblib.cpu_count(), len(tasks))
    # Idle workers end soon, also those of a kernel that was killed.
    parallel = joblib.Parallel(
        n_jobs=jobs, return_as="generator", backend="loky", idle_worker_timeout=60
    )
    runs = parallel(
        joblib.delayed(run_once)(experiment, setting, seed) for setting, seed in tasks
    )
    rows = []
    bar = with_progress(doing="runs", total=len(tasks))
    try:
        for each in runs:  # in the order of the tasks
            rows += each
            bar.update()
    finally:
        bar.total = bar.n  # else a bar that an error stops would stay, in red
        bar.close()
    return pd.DataFrame(rows)


def run_once(
    experiment: Callable[..., Measured], setting: Setting, seed: int
) -> list[dict[str, Any]]:
    """Run an experiment once, and return its rows of the table."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with seeded(seed):
            measured = experiment(seed, **setting)
        return [
            {**setting, "seed": seed, "round": number, "metric": metric, "value": value}
            for metric, values in _require_measured(measured)
            for number, value in _by_round(values).items()
        ]
    except Exception as error:
        run = as_text({**setting, "seed": seed})
        raise _noted(error, f"In the run with {run}.") from None
    finally:
        torch.set_num_threads(threads)


def as_text(setting: Setting) -> str:
    """Write a setting as the stored table does: ``lr=0.1 local_epochs=5``."""
    return " ".join(f"{name}={value}" for name, value in setting.items())


def _by_round(values: Any) -> dict[int, float]:
    if isinstance(values, Mapping):
        return {int(number): float(value) for number, value in values.items()}
    if isinstance(values, Iterable):
        return {number: float(value) for number, value in enumerate(values)}
    return {0: float(values)}


def _require_measured(measured: Any) -> Iterable[tuple[str, Any]]:
    if not isinstance(measured, Mapping) or not measured:
        raise TypeError(
            "An experiment returns a dictionary from a metric's name to its values by "
            f"round, not {measured!r}."
        )
    return measured.items()


def _require_runs(experiment: Any, settings: list[dict], seeds: list) -> None:
    if not callable(experiment):
        raise TypeError(
            "experiment must be a function of a seed and a setting, not "
            f"{experiment!r}."
        )
    if not settings or not seeds:
        raise ValueError("Give at least one setting (it may be {}) and one seed.")
    names = settings[0].keys()
    if any(setting.keys() != names for setting in settings):
        raise ValueError(
            f"All settings must have the same names, such as {', '.join(names)}."
        )
    if taken := names & {*COLUMNS}:
        raise ValueError(
            f"No setting may be called {sorted(taken)[0]!r}: the table has a column "
            "of that name."
        )
    for what, values in (("setting", settings), ("seed", seeds)):
        if any(value in values[:i] for i, value in enumerate(values)):
            raise ValueError(f"Each {what} may be given once: its rows would be alike.")


def _noted(error: Exception, note: str) -> Exception:
    """Say in which run an error occurred, in a form that crosses to this process."""
    error.add_note(note)
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        kept = RuntimeError(f"{type(error).__name__}: {error}")
        kept.add_note(note)
        return kept.with_traceback(error.__traceback__)
    return error


# ----------------------------------------------------------------------- what is stored


def experiments_of(lesson: str) -> dict[str, Experiment]:
    """Return what a lesson declares, by name."""
    return import_module(f"{__name__}.lesson_{lesson}").EXPERIMENTS


@cache
def stored_rows() -> pd.DataFrame:
    """Read the stored table of all lessons."""
    return pd.read_csv(STORED, dtype={"lesson": str})


def stored(lesson: str, experiment: str) -> pd.DataFrame:
    """Return a stored experiment as :func:`run_table` would, to four decimals.

    Parameters
    ----------
    lesson : str
        Such as ``"08"``.
    experiment : str
        Its name in the lesson's ``EXPERIMENTS``.

    Raises
    ------
    ValueError
        If the stored rows are not those of the declared settings and seeds.
    """
    known = experiments_of(lesson)
    if experiment not in known:
        raise ValueError(
            f"Lesson {lesson} has no experiment {experiment!r}: choose one of "
            f"{', '.join(known)}."
        )
    table = stored_rows()
    rows = table[(table.lesson == lesson) & (table.experiment == experiment)]
    by_text = {as_text(setting): setting for setting in known[experiment].settings}
    runs = {(text, seed) for text in by_text for seed in known[experiment].seeds}
    if runs != {*zip(rows.setting, rows.seed, strict=True)}:
        raise ValueError(
            f"The stored runs of {experiment!r} are not those that lesson {lesson} "
            f'declares: run `make experiments ARGS="{lesson} {experiment}"`.'
        )
    settings = pd.DataFrame([by_text[text] for text in rows.setting], rows.index)
    values = rows[["seed", "round", "metric", "value"]]
    return pd.concat([settings, values], axis=1).reset_index(drop=True)


def by_seed(
    table: pd.DataFrame,
    setting: str,
    *,
    round: int | None = None,
    metric: str = "accuracy",
) -> pd.DataFrame:
    """Return one number a run: a row for each seed, a column for each setting.

    Parameters
    ----------
    table : pd.DataFrame
        As :func:`run_table` returns it. Only this setting may differ in it.
    setting : str
        The name of a setting, whose values name the columns.
    round : int, optional
        Which round. Default: the last of each run.
    metric : str
        Which metric.
    """
    rows = table[table["metric"] == metric]
    last = rows.groupby([setting, "seed"])["round"].transform("max")
    rows = rows[rows["round"] == (last if round is None else round)]
    return rows.pivot(index="seed", columns=setting, values="value")


def held(claim: pd.Series) -> str:
    """Say in how many seeds a claim held, such as "18 of 20".

    Parameters
    ----------
    claim : pd.Series
        True or False for each seed, as comparing columns of :func:`by_seed` gives.
    """
    return f"{int(claim.sum())} of {len(claim)}"


def interval(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Return where the mean difference lies, seed by seed, in 19 of 20 cases.

    It is the mean, less and plus some standard errors. How many, Student's t says: 12.7
    with two seeds, 2.1 with twenty.

    Parameters
    ----------
    first, second : Sequence[float]
        Numbers of two settings, with the same seeds in the same order.
    """
    each = pd.Series([a - b for a, b in zip(first, second, strict=True)])
    half = t.ppf(0.975, len(each) - 1) * each.sem()
    return each.mean() - half, each.mean() + half
