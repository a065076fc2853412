"""Run the lessons' experiments and store what they measure: ``make experiments``.

``ARGS="08"`` runs those of a lesson, ``ARGS="08 lr"`` one of them. Only the rows of
what was run change in ``notebooks/data/experiments.csv``.
"""

import argparse
import time

import pandas as pd

from course_utils.experiments import (
    COLUMNS,
    STORED,
    Experiment,
    as_text,
    experiments_of,
    run_table,
)

LESSONS = ("08", "09", "10", "14")


def rows_of(lesson: str, name: str, experiment: Experiment) -> pd.DataFrame:
    """Run an experiment, and return its rows as they are stored."""
    table = run_table(experiment.function, experiment.settings, experiment.seeds)
    # Not from the table's own values: beside a 0.5, pandas makes a 1 a 1.0.
    names = list(experiment.settings[0])
    texts = {tuple(s[n] for n in names): as_text(s) for s in experiment.settings}
    settings = table[names].itertuples(index=False, name=None)
    table = table.assign(
        lesson=lesson, experiment=name, setting=[texts[values] for values in settings]
    )
    return table[COLUMNS]


def merge(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Put new rows in the place of the same experiments' old ones, sorted."""
    key = ["lesson", "experiment"]
    replaced = old.set_index(key).index.isin(new.set_index(key).index)
    table = pd.concat([old[~replaced], new]).astype({"value": float})
    return table.sort_values([*COLUMNS[:3], "metric", "seed", "round"])


def store(table: pd.DataFrame) -> None:
    """Write the whole table, with four decimals."""
    table.to_csv(STORED, index=False, float_format="%.4f", lineterminator="\n")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("lesson", nargs="?", choices=LESSONS, help="default: all")
    parser.add_argument("names", nargs="*", help="experiments; default: all of it")
    arguments = parser.parse_args()
    for lesson in [arguments.lesson] if arguments.lesson else LESSONS:
        known = experiments_of(lesson)
        for name in arguments.names or known:
            start = time.perf_counter()
            new = rows_of(lesson, name, known[name])
            old = pd.read_csv(STORED, dtype={"lesson": str})  # another may have written
            store(merge(old, new))
            took = time.perf_counter() - start
            print(f"{lesson} {name}: {len(new)} rows, {took:.0f} s", flush=True)


if __name__ == "__main__":
    main()
