"""Partitions: who holds which examples, how skewed that is, and loaders for clients.

The cutting itself is done by Flower Datasets' partitioners. This module calls them by
name, turns their partitions into tensors once, and puts numbers on the skew.
"""

import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from datasets import ClassLabel, Dataset
from flwr_datasets.partitioner import (
    DirichletPartitioner,
    ExponentialPartitioner,
    GroupedNaturalIdPartitioner,
    IidPartitioner,
    LinearPartitioner,
    NaturalIdPartitioner,
    Partitioner,
    PathologicalPartitioner,
    SquarePartitioner,
)
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
)

from course_utils.data import dataset_name, load_dataset, to_tensors
from course_utils.folders import require_plain

SIZE_PARTITIONERS = {
    "linear": LinearPartitioner,
    "square": SquarePartitioner,
    "exponential": ExponentialPartitioner,
}
"""Schemes in which the size of a partition grows with its id."""

SCHEMES = ("iid", "dirichlet", "pathological", "grouped", *SIZE_PARTITIONERS)
"""The names that :func:`make_partitioner` knows for any labelled dataset."""

LARGEST_ALPHA = 1e9
"""From about 1e308 on, the draw overflows, and gives one client everything."""


def make_partitioner(
    scheme: str,
    num_partitions: int,
    *,
    alpha: float = 0.5,
    min_partition_size: int = 10,
    num_classes_per_partition: int = 2,
    partition_by: str | None = None,
    seed: int = 42,
) -> Partitioner:
    """Make one of Flower Datasets' partitioners by name.

    Parameters
    ----------
    scheme : str
        - ``"iid"``: equal slices of the data, which must be shuffled.
        - ``"dirichlet"``: each label is shared out by a draw from Dirichlet(``alpha``).
        - ``"pathological"``: each client has ``num_classes_per_partition`` labels.
        - ``"grouped"``: each client has a group of ``num_classes_per_partition``
          labels to itself, in order (0–1, 2–3, …).
        - ``"linear"``, ``"square"``, ``"exponential"``: the size of partition ``i``
          grows like ``i + 1``, its square or its exponential.
        - ``"natural"``: each client has the examples with one value of the column
          ``partition_by``, in the order of the values.
    num_partitions : int
        Number of clients. Under ``"grouped"`` and ``"natural"`` the data decides it.
    alpha : float
        Concentration of the Dirichlet distribution: the smaller, the more skewed.
    min_partition_size : int
        The smallest partition that ``"dirichlet"`` may draw.
    num_classes_per_partition : int
        Number of labels a client has under ``"pathological"`` and ``"grouped"``.
    partition_by : str, optional
        Under ``"natural"``, the column that says whose an example is, such as its
        writer or its hospital.
    seed : int
        Seed of the draws.

    Returns
    -------
    Partitioner
        A new partitioner, to which no dataset is assigned yet.

    Raises
    ------
    ValueError
        If the scheme is unknown or a number is out of range.
    """
    if num_partitions < 1:
        raise ValueError(f"num_partitions must be at least 1, not {num_partitions}.")
    if scheme == "iid":
        return IidPartitioner(num_partitions)
    if scheme == "dirichlet":
        if not alpha > 0:
            raise ValueError(f"alpha must be above 0, not {alpha}.")
        if alpha > LARGEST_ALPHA:
            raise ValueError(
                f"alpha must be at most {LARGEST_ALPHA:g}, not {alpha}: by then, each "
                "label is shared out evenly."
            )
        return DirichletPartitioner(
            num_partitions,
            partition_by="label",
            alpha=float(alpha),
            min_partition_size=min_partition_size,
            seed=seed,
        )
    if scheme == "pathological":
        return PathologicalPartitioner(
            num_partitions,
            partition_by="label",
            num_classes_per_partition=num_classes_per_partition,
            class_assignment_mode="first-deterministic",
            seed=seed,
        )
    if scheme == "grouped":
        return GroupedNaturalIdPartitioner(
            partition_by="label",
            group_size=num_classes_per_partition,
            sort_unique_ids=True,
        )
    if scheme in SIZE_PARTITIONERS:
        return SIZE_PARTITIONERS[scheme](num_partitions)
    if scheme == "natural":
        if partition_by is None:
            raise ValueError(
                'The scheme "natural" needs partition_by, the name of the column that '
                "says whose an example is."
            )
        return NaturalIdPartitioner(partition_by)
    known = ", ".join((*SCHEMES, "natural"))
    raise ValueError(f"No scheme {scheme!r}: choose one of {known}.")


def partition(dataset: Dataset, partitioner: Partitioner) -> list[Dataset]:
    """Cut a dataset into the partitions of all clients.

    Parameters
    ----------
    dataset : Dataset
        The dataset to cut, with a column ``label``.
    partitioner : Partitioner
        A new partitioner: each serves one dataset only.

    Returns
    -------
    list[Dataset]
        Partition ``i`` at position ``i``.

    Raises
    ------
    ValueError
        If the partitioner was used before, or if some client would get less than it
        must: no example at all, or fewer than ``min_partition_size``.
    """
    if partitioner.is_dataset_assigned():
        raise ValueError(
            "This partitioner has cut a dataset already: make a new one for each split."
        )
    partitioner.dataset = dataset
    if isinstance(partitioner, NaturalIdPartitioner):
        _require_ids(dataset, partitioner._partition_by)
    with warnings.catch_warnings():
        # Flower Datasets warns at each of its ten tries; their failure says it once.
        warnings.filterwarnings("ignore", message="The specified min_partition_size")
        try:
            count = partitioner.num_partitions
            partitions = [partitioner.load_partition(i) for i in range(count)]
        except (ValueError, IndexError) as error:
            raise ValueError(_why_not(dataset, partitioner, error)) from None
    if not all(len(part) for part in partitions):
        raise ValueError(_too_few(dataset))
    return partitions


def _require_ids(dataset: Dataset, column: str) -> None:
    """Refuse to cut by a column that doesn't say whose every example is."""
    if column not in dataset.column_names:
        raise ValueError(
            f"The dataset has no column {column!r}: partition_by takes one of "
            f"{', '.join(dataset.column_names)}."
        )
    require_plain(dataset[column][:], column)


def _too_few(dataset: Dataset) -> str:
    return (
        f"{len(dataset)} examples do not suffice for that many clients: some would get "
        "none. Ask for fewer clients or for a milder skew."
    )


def _why_not(dataset: Dataset, partitioner: Partitioner, error: Exception) -> str:
    """Say in one sentence why a dataset can't be cut, and what to do."""
    if "max number of attempts" in str(error):
        return (
            "No draw from the Dirichlet distribution gave every client "
            "min_partition_size examples: lower min_partition_size, ask for fewer "
            "clients, or raise alpha."
        )
    no_example = ("number of partitions", "not greater than 0")
    if isinstance(error, IndexError) or any(part in str(error) for part in no_example):
        return _too_few(dataset)
    return str(error)


# --------------------------------------------------------------------- skew in numbers


def label_counts(partitions: list[Dataset]) -> np.ndarray:
    """Count each client's examples of each label.

    Returns
    -------
    np.ndarray
        Integers of shape ``(clients, labels)``.

    Raises
    ------
    ValueError
        If the labels are not numbers from 0 on.
    """
    kind = partitions[0].features["label"]
    columns = [part["label"][:] for part in partitions]
    if isinstance(kind, ClassLabel):
        num_classes = kind.num_classes
    elif {type(label) for column in columns for label in column} == {int}:
        num_classes = max(max(column, default=0) for column in columns) + 1
    else:
        raise ValueError(
            "Labels are counted by their numbers: make numbers of them with "
            'dataset.class_encode_column("label") before you cut the dataset.'
        )
    if any(min(column, default=0) < 0 for column in columns):
        raise ValueError("Some labels are below 0: leave examples without a label out.")
    return np.stack([np.bincount(column, minlength=num_classes) for column in columns])


def label_distance(counts: np.ndarray) -> np.ndarray:
    """Measure how far each client's labels are from those of the whole federation.

    The total variation distance, half the sum of absolute differences between the
    client's label shares and the whole's: the share of the client's examples that
    would have to change their label to match the whole.

    Parameters
    ----------
    counts : np.ndarray
        Label counts of shape ``(clients, labels)``.

    Returns
    -------
    np.ndarray
        One number a client, from 0 (same shares) to below 1.
    """
    shares = counts / counts.sum(axis=1, keepdims=True)
    whole = counts.sum(axis=0) / counts.sum()
    return np.abs(shares - whole).sum(axis=1) / 2


def effective_num_classes(counts: np.ndarray) -> np.ndarray:
    """Return how many equally frequent labels would be as varied as each client's.

    The exponential of the Shannon entropy of the client's label shares (Hill number of
    order 1; Hill, 1973, https://doi.org/10.2307/1934352): 10 for ten equally frequent
    labels, 1 for a single one.

    Parameters
    ----------
    counts : np.ndarray
        Label counts of shape ``(clients, labels)``.
    """
    shares = counts / counts.sum(axis=1, keepdims=True)
    logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    return np.exp(-(shares * logs).sum(axis=1))


# ------------------------------------------------------------------ loaders for clients


@dataclass(frozen=True)
class ClientData:
    """What one client holds: its own train and test examples, as tensors."""

    train: TensorDataset
    test: TensorDataset


@lru_cache(maxsize=2)
def _tensors(name: str) -> tuple[TensorDataset, TensorDataset]:
    """Turn a whole dataset into tensors, once in a process."""
    train, test = load_dataset(name)
    return TensorDataset(*to_tensors(train)), TensorDataset(*to_tensors(test))


@lru_cache(maxsize=8)
def _all_clients(name: str, num_partitions: int, options: tuple) -> list[ClientData]:
    """Cut a dataset for all clients, once in a process."""
    train, test = load_dataset(name)
    partitioner = make_partitioner(num_partitions=num_partitions, **dict(options))
    parts = partition(_numbered(train), partitioner)
    if len(parts) != num_partitions:
        raise ValueError(
            f"This scheme makes {len(parts)} clients of this dataset, not "
            f"{num_partitions}: ask for {len(parts)}."
        )
    train_rows = [part["row"][:] for part in parts]
    if len(test) < num_partitions:
        raise ValueError(
            f"{len(test)} test examples do not suffice for {num_partitions} clients: "
            "ask for fewer clients."
        )
    test_rows = matching_rows(np.array(test["label"][:]), label_counts(parts))
    train_tensors, test_tensors = _tensors(name)
    return [
        ClientData(
            train=TensorDataset(*train_tensors[rows]),
            test=TensorDataset(*test_tensors[own_test_rows]),
        )
        for rows, own_test_rows in zip(train_rows, test_rows, strict=True)
    ]


def _numbered(dataset: Dataset) -> Dataset:
    """Put row numbers in the place of images: enough to cut a dataset by."""
    rows = np.arange(len(dataset))
    return dataset.remove_columns("image").add_column("row", rows)


def matching_rows(labels: np.ndarray, counts: np.ndarray) -> list[list[int]]:
    """Share out test examples so that each client tests on what it trains on.

    A client that holds a third of all train examples of a label gets a third of the
    test examples of that label. Whom rounding leaves without any gets one example of a
    client that has more, and of a label that it trains on if there is one.

    Parameters
    ----------
    labels : np.ndarray
        Labels of all test examples, integers of shape ``(n,)``.
    counts : np.ndarray
        Label counts of the train partitions, of shape ``(clients, labels)``.

    Returns
    -------
    list[list[int]]
        Each client's row numbers, at least one if there are enough; every row goes to
        one client.
    """
    rows_of = [[] for _ in counts]
    for label, column in enumerate(counts.T):
        rows = np.flatnonzero(labels == label)
        ends = np.cumsum(column) / max(column.sum(), 1) * len(rows)
        # Rounds each label another way, so that no client is always rounded down.
        ends = np.floor(ends + (label + 0.5) / counts.shape[1])
        for client, part in enumerate(np.split(rows, ends[:-1].astype(int))):
            rows_of[client].extend(part.tolist())

    owners = np.zeros(len(labels), dtype=int)
    for client, rows in enumerate(rows_of):
        owners[rows] = client
    for client in [i for i, rows in enumerate(rows_of) if not rows]:
        sizes = np.bincount(owners, minlength=len(counts))[owners]
        known = counts[client, labels] > 0
        # Each row's claim to move: its label first, then how many its owner has.
        claims = np.where(sizes > 1, sizes + known * len(labels), 0)
        if claims.any():
            row = int(claims.argmax())
            rows_of[owners[row]].remove(row)
            rows_of[client].append(row)
            owners[row] = client
    return rows_of


def make_loader(
    examples: TensorDataset, *, batch_size: int = 16, shuffle: bool = False
) -> DataLoader:
    """Make a loader that slices whole batches out of tensors.

    It yields what ``DataLoader(examples, batch_size, shuffle)`` yields, several times
    as fast, since it never collects a batch example by example.
    """
    sampler = RandomSampler(examples) if shuffle else SequentialSampler(examples)
    batches = BatchSampler(sampler, batch_size, drop_last=False)
    return DataLoader(examples, sampler=batches, batch_size=None)


def load_partition(
    partition_id: int,
    num_partitions: int,
    *,
    scheme: str = "iid",
    batch_size: int = 16,
    **options: float | str,
) -> tuple[DataLoader, DataLoader]:
    """Load one client's own data.

    Parameters
    ----------
    partition_id : int
        Which client, from 0 to ``num_partitions - 1``.
    num_partitions : int
        Number of clients that share the dataset.
    scheme : str
        How it is shared out: see :func:`make_partitioner`.
    batch_size : int
        Examples in a batch.
    **options : float or str
        Further options of :func:`make_partitioner`, such as ``alpha``.

    Returns
    -------
    tuple[DataLoader, DataLoader]
        The client's train loader, which shuffles, and its test loader, whose labels
        are shared out as the train partition's are.

    Raises
    ------
    ValueError
        If there is no such partition, or the dataset can't be cut this way.
    """
    key = tuple(sorted({"scheme": scheme, **options}.items()))
    clients = _all_clients(dataset_name(), num_partitions, key)
    if not 0 <= partition_id < len(clients):
        raise ValueError(
            f"No partition {partition_id}: there are {len(clients)}, numbered from 0 "
            f"to {len(clients) - 1}."
        )
    own = clients[partition_id]
    return (
        make_loader(own.train, batch_size=batch_size, shuffle=True),
        make_loader(own.test, batch_size=256),
    )


def load_centralized(*, batch_size: int = 16) -> tuple[DataLoader, DataLoader]:
    """Load everyone's data in one place: what federated learning does without.

    Returns
    -------
    tuple[DataLoader, DataLoader]
        A shuffling loader of the whole train split, and one of the whole test split.
    """
    train, test = _tensors(dataset_name())
    return (
        make_loader(train, batch_size=batch_size, shuffle=True),
        make_loader(test, batch_size=256),
    )


def image_shape() -> tuple[int, int, int]:
    """Return channels, height and width of the dataset's images."""
    return _image_shape(dataset_name())


@lru_cache(maxsize=2)
def _image_shape(name: str) -> tuple[int, int, int]:
    """Look at one image, once in a process: every model that is made asks."""
    _, test = load_dataset(name)
    images, _ = to_tensors(test.select([0]))
    return tuple(images.shape[1:])
