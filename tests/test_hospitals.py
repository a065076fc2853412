"""The hospitals' table is UCI's, and a table that cannot serve is refused."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from flwr.app import Context, RecordDict

from course_utils.hospitals import (
    HEART,
    HEART_BOOK,
    CodeBook,
    clients_of,
    hospitals,
    load_heart,
    load_own,
    to_client,
)

SHA256 = "574f2fa2b43012fa25fca4fcdb36bd7c6bccdd0af4242f6c0e4c8633c5a072ae"
UCI = {"Cleveland": 303, "Hungary": 294, "Switzerland": 123, "VA Long Beach": 200}
"""Patients in UCI's four processed files."""


def test_the_file_is_the_one_that_its_page_describes() -> None:
    assert hashlib.sha256(HEART.read_bytes()).hexdigest() == SHA256
    page = (HEART.parent / "README.md").read_text("utf-8")
    assert SHA256 in page and "10.24432/C52P4X" in page and "CC BY 4.0" in page


def test_the_rows_are_those_of_uci_but_for_one_that_is_put_back() -> None:
    raw, table = pd.read_csv(HEART), load_heart()
    assert raw["dataset"].value_counts().to_dict() == UCI | {
        "Cleveland": 304,
        "Hungary": 293,
    }
    assert table["dataset"].value_counts().to_dict() == UCI
    # As UCI's file of Hungary begins: 28,1,2,130,132,0,2,185,0,0,?,?,?,0.
    (moved,) = table[table["dataset"] != raw["dataset"]].itertuples()
    assert (moved.age, moved.sex, moved.cp) == (28, "Male", "atypical angina")
    assert (moved.trestbps, moved.chol, moved.thalch) == (130, 132, 185)
    assert (moved.oldpeak, moved.num, moved.dataset) == (0, 0, "Hungary")
    twice = table[table.drop(columns="id").duplicated(keep=False)]
    assert twice["id"].tolist() == [405, 406, 860, 908]


def test_a_client_has_the_code_books_inputs_and_zero_may_mean_missing() -> None:
    names = [client.name for client in hospitals()]
    assert names == sorted(UCI)
    for client in hospitals():
        assert client.x.shape == (UCI[client.name], len(HEART_BOOK.inputs))
        assert set(client.y) == {0, 1}
        kinds = client.x[:, -4:].sum(axis=1)
        assert (kinds == 1).all()  # each patient has one kind of chest pain
    chol = HEART_BOOK.inputs.index("chol")
    assert np.isnan(hospitals()[2].x[:, chol]).all()
    assert not (hospitals()[3].x[:, chol] == 0).any()


def test_a_node_reads_its_own_file_or_its_partition(tmp_path) -> None:
    for i, (_, rows) in enumerate(load_heart().groupby("dataset")):
        rows.to_csv(tmp_path / "own.csv", index=False)
        for config in ({"table": str(tmp_path / "own.csv")}, {"partition-id": i}):
            own = load_own(Context(0, 0, config, RecordDict(), {}))
            assert np.array_equal(own.x, hospitals()[i].x, equal_nan=True)
            assert np.array_equal(own.y, hospitals()[i].y)


TABLE = pd.DataFrame(
    {
        "branch": ["a"] * 6 + ["b"] * 6,
        "bad": [0, 1] * 6,
        "income": range(12),
        "town": ["x", "y", None] * 4,
    }
)
BOOK = CodeBook("branch", "bad", ("income",), {"town": ["x", "y"]})


def test_a_table_of_ones_own_is_cut_by_its_column() -> None:
    first, second = clients_of(TABLE, BOOK, least=3)
    assert (first.name, second.name) == ("a", "b")
    assert BOOK.inputs == ["income", "town x", "town y"]
    assert first.x[1].tolist() == [1, 0, 1] and second.y.tolist() == [0, 1] * 3
    assert np.isnan(first.x[2, 1:]).all()  # an unknown town


@pytest.mark.parametrize(
    ("changed", "book", "said"),
    [
        ({}, CodeBook("ward", "bad", ("income",)), "no column 'ward': it has branch"),
        ({}, CodeBook("branch", "bad", ("age",)), "no column 'age'"),
        ({}, CodeBook("branch", "bad", ("town",)), "'town' holds more than numbers"),
        ({}, CodeBook("branch", "bad", ()), "names no inputs"),
        ({"bad": [1] * 12}, BOOK, "Client 'a' has 0 rows of label 0 and 6 of label 1"),
        ({"bad": [None] + [1] * 11}, BOOK, "label 'bad' is missing in 1 rows"),
        ({"branch": [None] + ["a"] * 11}, BOOK, "^1 rows do not say whose they are"),
        (
            {"town": ["x"] * 12},
            BOOK,
            "No row has 'y' in the column 'town': it has 'x'[.]$",
        ),
        ({"town": range(12)}, BOOK, "column 'town': it has 0, 1, 2, 3, 4[.]$"),
    ],
)
def test_what_cannot_serve_is_refused_in_a_sentence(changed, book, said) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        clients_of(TABLE.assign(**changed), book)
    assert str(caught.value).count(". ") == 0


def test_ones_own_file_need_not_hold_the_column_of_clients() -> None:
    assert len(to_client(TABLE.drop(columns="branch"), BOOK, "mine").y) == 12
