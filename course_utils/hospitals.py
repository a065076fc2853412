"""Tables whose rows belong to clients: the patients of four hospitals, or your own.

A :class:`CodeBook` says what the columns of a table mean. All clients must agree on it
before the first message: a model has one input for each of its columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from flwr.app import Context

HEART = Path(__file__).parents[1] / "notebooks" / "data" / "heart_disease_uci.csv"
"""920 patients of four hospitals: notebooks/data/README.md says where it is from."""


@dataclass(frozen=True)
class CodeBook:
    """What the columns of a table mean.

    Attributes
    ----------
    client : str
        The column that says whose a row is.
    label : str
        The column that a model should tell. Above 0 it counts as 1, else as 0.
    numbers : Sequence[str]
        Columns of numbers, in the units of the table.
    kinds : Mapping[str, Sequence]
        Columns of words or of True and False, each with its values. Each value becomes
        an input of 0 and 1. Leave one out where the others say it.
    never_zero : Sequence[str]
        Columns of numbers in which 0 means that nobody has measured.
    """

    client: str
    label: str
    numbers: Sequence[str]
    kinds: Mapping[str, Sequence] = field(default_factory=dict)
    never_zero: Sequence[str] = ()

    @property
    def inputs(self) -> list[str]:
        """Return the names of a model's inputs, in order."""
        kinds = [f"{name} {v}" for name, values in self.kinds.items() for v in values]
        return [*self.numbers, *kinds]


HEART_BOOK = CodeBook(
    client="dataset",
    label="num",
    # years; mmHg at rest; mg/dl; the highest heart rate per minute; mm of ST depression
    numbers=("age", "trestbps", "chol", "thalch", "oldpeak"),
    kinds={
        "sex": ["Male"],
        "exang": [True],  # chest pain under exercise
        "cp": ["asymptomatic", "atypical angina", "non-anginal", "typical angina"],
    },
    never_zero=("trestbps", "chol"),
)
"""Of the hospitals' table. Columns that a hospital hardly has are left out."""


@dataclass(frozen=True)
class Client:
    """The rows of one client.

    Attributes
    ----------
    name : str
        Such as ``"Hungary"``.
    x : np.ndarray
        The inputs, of shape ``(rows, inputs)``, in the table's units; NaN is missing.
    y : np.ndarray
        The labels, 0 or 1, of shape ``(rows,)``.
    """

    name: str
    x: np.ndarray
    y: np.ndarray


def load_heart() -> pd.DataFrame:
    """Load the hospitals' table, with the one row put back that lies wrong in it."""
    table = pd.read_csv(HEART)
    # In UCI's files this is the first patient of Hungary.
    table.loc[table["id"] == 304, "dataset"] = "Hungary"
    return table


def to_client(rows: pd.DataFrame, book: CodeBook, name: str = "") -> Client:
    """Turn the rows of one client into inputs and labels.

    Parameters
    ----------
    rows : pd.DataFrame
        The rows, with all columns of the code book but that of the clients.
    book : CodeBook
        What the columns mean.
    name : str
        What to call the client.

    Raises
    ------
    ValueError
        If a column is missing, or holds what the code book does not know.
    """
    if not book.inputs:
        raise ValueError("The code book names no inputs: list numbers or kinds.")
    _require_columns(rows, [book.label, *book.numbers, *book.kinds])
    columns = []
    for column in book.numbers:
        values = _numbers(rows, column)
        columns.append(
            np.where((values == 0) & (column in book.never_zero), np.nan, values)
        )
    for column, values in book.kinds.items():
        known = rows[column].notna()
        for value in values:
            columns.append(np.where(known, rows[column] == value, np.nan))
    labels = _numbers(rows, book.label)
    if np.isnan(labels).any():
        raise ValueError(
            f"The label {book.label!r} is missing in {np.isnan(labels).sum()} rows: "
            "leave these rows out."
        )
    x = np.stack(columns, axis=1).astype(float)
    return Client(name, x, (labels > 0).astype(float))


def clients_of(table: pd.DataFrame, book: CodeBook, least: int = 5) -> list[Client]:
    """Cut a table into its clients, in the order of their names.

    Parameters
    ----------
    table : pd.DataFrame
        The rows of all clients.
    book : CodeBook
        What the columns mean.
    least : int
        How many rows of each of the two labels a client must have. Five parts of
        cross-validation need five.

    Raises
    ------
    ValueError
        If a column is missing, a row does not say whose it is, no row has a value that
        the code book lists, or a client has too few rows of a label.
    """
    _require_columns(table, [book.client])
    if nobodys := table[book.client].isna().sum():
        raise ValueError(
            f"{nobodys} rows do not say whose they are, their {book.client!r} is "
            "missing: fill it in, or leave these rows out."
        )
    clients = [
        to_client(rows, book, str(name)) for name, rows in table.groupby(book.client)
    ]
    for column, values in book.kinds.items():
        for value in values:
            if not (table[column] == value).any():
                known = ", ".join(
                    map(repr, table[column].dropna().unique()[:5].tolist())
                )
                raise ValueError(
                    f"No row has {value!r} in the column {column!r}: it has {known}."
                )
    for client in clients:
        ones = int(client.y.sum())
        zeros = len(client.y) - ones
        if min(ones, zeros) < least:
            raise ValueError(
                f"Client {client.name!r} has {zeros} rows of label 0 and {ones} of "
                f"label 1: at least {least} of each are needed to measure it."
            )
    return clients


@lru_cache(maxsize=1)
def hospitals() -> list[Client]:
    """Return the four hospitals: Cleveland, Hungary, Switzerland, VA Long Beach."""
    return clients_of(load_heart(), HEART_BOOK)


def load_own(context: Context) -> Client:
    """Load the rows of the node that asks.

    With ``table`` in its node config, that file is its own. Else its partition id says
    which of the four hospitals it is.
    """
    config = context.node_config
    if "table" in config:
        return to_client(pd.read_csv(config["table"]), HEART_BOOK)
    return hospitals()[config["partition-id"]]


def _require_columns(table: pd.DataFrame, names: Sequence[str]) -> None:
    for name in names:
        if name not in table:
            known = ", ".join(map(str, table))
            raise ValueError(f"The table has no column {name!r}: it has {known}.")


def _numbers(rows: pd.DataFrame, column: str) -> np.ndarray:
    try:
        return pd.to_numeric(rows[column]).to_numpy(float)
    except (ValueError, TypeError):
        raise ValueError(
            f"The column {column!r} holds more than numbers: list it in kinds, or mend "
            "it."
        ) from None
