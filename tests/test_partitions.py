"""Partitions, the numbers for their skew, and the loaders that clients get."""

import time
from itertools import chain

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from torch.utils.data import DataLoader, TensorDataset

from course_utils import model, partitions
from course_utils.partitions import (
    SCHEMES,
    effective_num_classes,
    label_counts,
    label_distance,
    load_partition,
    make_loader,
    make_partitioner,
    matching_rows,
    partition,
)


def numbered(size: int, num_classes: int = 10) -> Dataset:
    """Make a dataset of ``size`` rows with known labels and numbers."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(size) % num_classes)
    features = Features(
        {"row": Value("int64"), "label": ClassLabel(num_classes=num_classes)}
    )
    return Dataset.from_dict(
        {"row": list(range(size)), "label": labels.tolist()}, features=features
    )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_row_goes_to_one_client(scheme) -> None:
    clients = 10 if scheme == "pathological" else 5  # 5 pairs are not all 10 labels
    parts = partition(numbered(9000), make_partitioner(scheme, clients))
    rows = [row for part in parts for row in part["row"]]
    assert sorted(rows) == list(range(9000))
    assert len(parts) == clients


def test_iid_partitions_are_of_one_size_and_hardly_skewed() -> None:
    counts = label_counts(partition(numbered(4000), make_partitioner("iid", 10)))
    assert counts.sum(axis=1).tolist() == [400] * 10
    assert label_distance(counts).max() < 0.15


def test_a_smaller_alpha_is_more_skewed() -> None:
    def mean_distance(alpha: float) -> float:
        partitioner = make_partitioner("dirichlet", 10, alpha=alpha)
        return label_distance(
            label_counts(partition(numbered(4000), partitioner))
        ).mean()

    means = [mean_distance(alpha) for alpha in (100, 1, 0.1)]
    assert means[0] < 0.1 < means[1] < means[2] - 0.1


def test_pathological_and_grouped_clients_have_so_many_labels() -> None:
    for scheme, clients in (("pathological", 10), ("grouped", 4)):
        partitioner = make_partitioner(scheme, clients, num_classes_per_partition=3)
        counts = label_counts(partition(numbered(4000), partitioner))
        labels = (counts > 0).sum(axis=1)
        assert labels.tolist() == ([3] * 10 if clients == 10 else [3, 3, 3, 1])


def test_sizes_grow_with_the_partition_id() -> None:
    for scheme in ("linear", "square", "exponential"):
        sizes = [
            len(part) for part in partition(numbered(4000), make_partitioner(scheme, 5))
        ]
        assert sizes == sorted(sizes) and sizes[-1] > 2 * sizes[0]


def test_the_same_seed_makes_the_same_partitions() -> None:
    first, again, other = (
        [
            part["row"]
            for part in partition(
                numbered(400), make_partitioner("dirichlet", 4, seed=seed)
            )
        ]
        for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize(
    ("scheme", "size", "clients", "options", "what"),
    [
        ("iid", 5, 10, {}, "fewer clients"),
        ("dirichlet", 5, 10, {}, "fewer clients"),
        ("pathological", 5, 10, {}, "fewer clients"),
        ("linear", 5, 10, {}, "fewer clients"),
        ("exponential", 400, 20, {}, "fewer clients"),
        ("dirichlet", 400, 10, {"alpha": 0}, "alpha must be above 0"),
        ("dirichlet", 400, 10, {"alpha": -1.0}, "alpha must be above 0"),
        ("dirichlet", 400, 10, {"alpha": float("nan")}, "alpha must be above 0"),
        ("dirichlet", 400, 10, {"alpha": float("inf")}, "alpha must be at most 1e"),
        ("dirichlet", 400, 10, {"alpha": 1e308}, "alpha must be at most 1e"),
        ("dirichlet", 400, 10, {"min_partition_size": 50}, "lower min_partition_size"),
        ("iid", 400, 0, {}, "at least 1"),
        ("iid", 400, -3, {}, "at least 1"),
        ("zipf", 400, 10, {}, "choose one of iid, dirichlet.*, natural"),
        ("natural", 400, 10, {}, "needs partition_by"),
        ("natural", 400, 10, {"partition_by": "writer"}, "no column 'writer'.*label"),
        ("pathological", 400, 10, {"num_classes_per_partition": 11}, "unique classes"),
    ],
)
def test_what_cannot_be_cut_is_refused_at_once(
    scheme, size, clients, options, what, recwarn
) -> None:
    start = time.perf_counter()
    with pytest.raises(ValueError, match=what):
        partition(numbered(size), make_partitioner(scheme, clients, **options))
    assert time.perf_counter() - start < 10
    assert not recwarn.list


@pytest.mark.parametrize("names", [["Bo", "Al", "Cy"], [7, 30, 200]])
def test_natural_clients_have_their_own_examples(names) -> None:
    writers = [names[i % 3] for i in range(90)]
    dataset = numbered(90).add_column("writer", writers)
    parts = partition(dataset, make_partitioner("natural", 3, partition_by="writer"))
    assert [set(part["writer"]) for part in parts] == [{n} for n in sorted(names)]
    rows = [row for part in parts for row in part["row"]]
    assert sorted(rows) == list(range(90))


@pytest.mark.parametrize("owner", [None, 0.5])
def test_an_example_that_is_nobodys_is_refused(owner) -> None:
    dataset = numbered(4).add_column("writer", [owner, 1, 2, 2])
    with pytest.raises(ValueError, match="'writer' must have a whole number for every"):
        partition(dataset, make_partitioner("natural", 2, partition_by="writer"))


def test_a_partitioner_serves_one_dataset() -> None:
    partitioner = make_partitioner("iid", 4)
    partition(numbered(40), partitioner)
    with pytest.raises(ValueError, match="make a new one for each split"):
        partition(numbered(20), partitioner)


# --------------------------------------------------------------------- skew in numbers


def test_label_distance_by_hand() -> None:
    # The whole is half and half. The first client has one label only, so half of its
    # examples would have to change; the second, three to one, a quarter.
    counts = np.array([[4, 0], [3, 9], [5, 3]])
    assert label_distance(counts) == pytest.approx([0.5, 0.25, 0.125])
    assert label_distance(np.array([[2, 2], [5, 5]])) == pytest.approx([0, 0])


def test_effective_number_of_labels_by_hand() -> None:
    counts = np.array([[5, 5, 5, 5], [7, 0, 0, 0], [4, 4, 0, 0]])
    assert effective_num_classes(counts) == pytest.approx([4, 1, 2])


def test_plain_numbers_are_counted_as_labels() -> None:
    parts = [Dataset.from_dict({"label": labels}) for labels in ([0, 2, 2], [1])]
    assert label_counts(parts).tolist() == [[1, 0, 2], [0, 1, 0]]


@pytest.mark.parametrize("labels", [["cat", "dog"], [0.0, 1.0], [None, 1]])
def test_labels_that_are_no_numbers_are_refused(labels) -> None:
    with pytest.raises(ValueError, match=r'class_encode_column\("label"\)'):
        label_counts([Dataset.from_dict({"label": labels})])


def test_a_label_below_0_is_refused() -> None:
    with pytest.raises(ValueError, match="below 0"):
        label_counts([Dataset.from_dict({"label": [-1, 1]})])


# ------------------------------------------------------------------ loaders for clients


def test_clients_share_out_both_splits_and_no_example_twice() -> None:
    for options in ({}, {"scheme": "dirichlet", "alpha": 0.1}):
        loaders = [load_partition(i, 10, **options) for i in range(10)]
        for split, size in ((0, 4000), (1, 1000)):
            images = torch.cat([pair[split].dataset.tensors[0] for pair in loaders])
            assert len(images) == size
            assert len(images.flatten(1).unique(dim=0)) > 0.99 * size


def test_a_clients_test_labels_follow_its_train_labels() -> None:
    for i in range(10):
        train, test = load_partition(i, 10, scheme="dirichlet", alpha=0.1)
        train_share, test_share = (
            np.bincount(loader.dataset.tensors[1], minlength=10) / len(loader.dataset)
            for loader in (train, test)
        )
        assert np.abs(train_share - test_share).max() < 0.1


@pytest.mark.parametrize(
    ("scheme", "clients"),
    [("iid", 400), ("linear", 80), ("square", 20), ("exponential", 8)],
)
def test_every_client_has_an_example_to_test_on(scheme, clients) -> None:
    own = [load_partition(i, clients, scheme=scheme)[1].dataset for i in range(clients)]
    assert min(map(len, own)) >= 1
    assert sum(map(len, own)) == 1000


def test_who_gets_a_test_example_gets_one_of_a_label_that_it_trains_on() -> None:
    # The third client's shares are a tenth of an example each. The first has most.
    counts = np.array([[50, 0, 10], [40, 90, 0], [0, 10, 1]])
    labels = np.repeat([0, 1, 2], [8, 1, 1])
    rows = matching_rows(labels, counts)
    assert sorted(row for own in rows for row in own) == list(range(10))
    assert min(map(len, rows)) == 1
    assert labels[rows[2]] in (1, 2)


def test_more_clients_than_test_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="1000 test examples do not suffice for 1001"):
        load_partition(0, 1001)


def test_natural_clients_of_a_folder_load(tmp_path, monkeypatch) -> None:
    features = Features(
        {"image": Image(), "label": Value("string"), "writer": Value("string")}
    )
    rows = {
        "image": [np.full((28, 28), 10 * (i % 4), np.uint8) for i in range(80)],
        "label": ["odd" if i % 2 else "even" for i in range(80)],
        "writer": [f"writer {i % 4}" for i in range(80)],
    }
    path = tmp_path / "train-0.parquet"
    Dataset.from_dict(rows, features=features).to_parquet(path)
    monkeypatch.setenv("COURSE_DATASET", str(tmp_path))
    options = {"scheme": "natural", "partition_by": "writer"}
    sizes = []
    for i in range(4):
        train, test = (loader.dataset for loader in load_partition(i, 4, **options))
        assert train.tensors[0].unique().tolist() == pytest.approx([10 * i / 127.5 - 1])
        assert set(test.tensors[1].tolist()) == {i % 2}
        sizes.append(len(train))
    assert sum(sizes) == 64
    with pytest.raises(ValueError, match="makes 4 clients"):
        load_partition(0, 5, **options)


def test_only_the_train_loader_shuffles() -> None:
    train, test = load_partition(0, 10)
    first, second = (torch.cat([y for _, y in train]) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, second.sort().values)
    first, second = (torch.cat([y for _, y in test]) for _ in range(2))
    assert torch.equal(first, second)


def test_the_loader_yields_what_pytorchs_own_does() -> None:
    examples = TensorDataset(torch.arange(10.0).view(10, 1), torch.arange(10))
    for shuffle in (False, True):
        batches = []
        for loader in (
            make_loader(examples, batch_size=4, shuffle=shuffle),
            DataLoader(examples, batch_size=4, shuffle=shuffle),
        ):
            torch.manual_seed(0)
            batches.append([labels.tolist() for _, labels in loader])
        assert [len(batch) for batch in batches[0]] == [4, 4, 2]
        assert sorted(chain(*batches[0])) == list(range(10))
        if not shuffle:
            assert batches[0] == batches[1]


def test_a_partition_that_is_not_there_is_refused() -> None:
    for partition_id in (-1, 10):
        with pytest.raises(ValueError, match="numbered from 0 to 9"):
            load_partition(partition_id, 10)
    with pytest.raises(ValueError, match="makes 5 clients"):
        load_partition(0, 10, scheme="grouped")


def test_image_shape_is_the_datasets() -> None:
    assert partitions.image_shape() == (1, 28, 28)


# --------------------------------------------------------------------------- the model


def test_the_model_fits_other_images() -> None:
    net = model.Net((3, 32, 32), num_classes=7)
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert sum(p.numel() for p in model.Net().parameters()) == 28_938


def test_training_learns_and_testing_does_not_change_the_model() -> None:
    torch.manual_seed(0)
    net = model.Net()
    train, test = partitions.load_centralized(batch_size=32)
    loss, accuracy = model.test(net, test)
    train_loss = model.train(net, train)
    weights = net.head.weight.clone()
    new_loss, new_accuracy = model.test(net, test)
    assert new_accuracy > 0.8 > 0.3 > accuracy
    assert new_loss < train_loss < loss
    assert torch.equal(net.head.weight, weights)


def test_the_mean_loss_weights_a_short_last_batch_by_its_length() -> None:
    _, test = load_partition(0, 10)
    net = model.Net()
    whole = make_loader(test.dataset, batch_size=len(test.dataset))
    ragged = make_loader(test.dataset, batch_size=7)
    assert model.test(net, ragged) == pytest.approx(model.test(net, whole), rel=1e-5)


def test_nothing_to_do_is_refused() -> None:
    empty = make_loader(TensorDataset(torch.zeros(0, 1, 28, 28), torch.zeros(0)))
    with pytest.raises(ValueError, match="empty"):
        model.test(model.Net(), empty)
    with pytest.raises(ValueError, match="at least 1"):
        model.train(model.Net(), load_partition(0, 10)[0], epochs=0)


def test_the_average_weights_by_examples_and_changes_no_input() -> None:
    states = [{"w": torch.tensor([0.0, 4.0])}, {"w": torch.tensor([8.0, 4.0])}]
    average = model.weighted_average(states, [1, 3])
    assert average["w"].tolist() == [6.0, 4.0]
    assert states[0]["w"].tolist() == [0.0, 4.0]
