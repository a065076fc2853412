"""Datasets: the offline default, the hub's layout, and no network."""

import os
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image

import course_utils
from course_utils import data


def test_the_default_is_5000_real_digits_stratified_and_shuffled() -> None:
    train, test = data.load_dataset("mnist-5k")
    assert (len(train), len(test)) == (4000, 1000)
    assert train.column_names == ["image", "label"]
    assert Counter(train["label"]) == dict.fromkeys(range(10), 400)
    assert Counter(test["label"]) == dict.fromkeys(range(10), 100)
    assert train["label"][:100] != sorted(train["label"][:100])
    assert train[0]["image"].size == (28, 28)
    # Real digits: no image is in both splits.
    seen = {image.tobytes() for image in train["image"]}
    assert not seen & {image.tobytes() for image in test["image"]}


def test_the_split_is_the_same_for_everyone() -> None:
    train, test = data.load_dataset("mnist-5k")
    assert train["label"][:10] == [1, 5, 8, 3, 1, 7, 3, 6, 5, 6]
    assert sum(test[0]["image"].tobytes()) == 18_745


def test_loading_again_takes_well_under_a_second() -> None:
    data.load_dataset("mnist-5k")  # fills the disk cache if need be
    data._load_dataset.cache_clear()
    start = time.perf_counter()
    data.load_dataset("mnist-5k")
    assert time.perf_counter() - start < 1


def test_without_a_place_to_cache_it_still_loads(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(data.datasets.config, "HF_DATASETS_CACHE", tmp_path / "file")
    train, _ = data._load_mnist_5k()
    assert len(train) == 4000


@pytest.fixture
def hub_folder(tmp_path):
    """A folder in the hub's layout, with CIFAR-10's columns and colour images."""
    features = Features({"img": Image(), "label": ClassLabel(names=["cat", "dog"])})
    (tmp_path / "data").mkdir()
    for split, size in (("train", 20), ("test", 8)):
        images = [np.full((32, 32, 3), i, dtype=np.uint8) for i in range(size)]
        rows = {"img": images, "label": [i % 2 for i in range(size)]}
        split_path = tmp_path / "data" / f"{split}-00000-of-00001.parquet"
        Dataset.from_dict(rows, features=features).to_parquet(split_path)
    return str(tmp_path)


def test_a_folder_in_the_hubs_layout_loads_through_the_hubs_code(hub_folder) -> None:
    train, test = data.load_dataset(hub_folder)
    assert (len(train), len(test)) == (20, 8)
    assert train.column_names == ["image", "label"]
    shades = [image.getpixel((0, 0))[0] for image in train["image"]]
    assert sorted(shades) == list(range(20)) != shades  # shuffled, none lost
    assert [shade % 2 for shade in shades] == train["label"]  # labels moved along


def test_course_dataset_chooses_the_dataset(hub_folder, monkeypatch) -> None:
    monkeypatch.setenv("COURSE_DATASET", hub_folder)
    assert len(data.load_dataset()[0]) == 20
    monkeypatch.delenv("COURSE_DATASET")
    assert len(data.load_dataset()[0]) == 4000


def test_images_become_tensors_from_minus_one_to_one() -> None:
    black_and_white = [np.zeros((4, 6, 3), np.uint8), np.full((4, 6, 3), 255, np.uint8)]
    features = Features({"image": Image(), "label": ClassLabel(num_classes=2)})
    dataset = Dataset.from_dict(
        {"image": black_and_white, "label": [1, 0]}, features=features
    )
    images, labels = data.to_tensors(dataset)
    assert images.shape == (2, 3, 4, 6) and images.dtype == torch.float32
    assert (images[0] == -1).all() and (images[1] == 1).all()
    assert labels.tolist() == [1, 0] and labels.dtype == torch.int64


@pytest.mark.parametrize("name", data.HUB_DATASETS)
def test_no_network_is_one_clear_sentence_within_seconds(name, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    start = time.perf_counter()
    with pytest.raises(ConnectionError) as caught:
        data.load_dataset(name)
    assert time.perf_counter() - start < 2 * data.HUB_TIMEOUT
    message = str(caught.value)
    assert name in message and 'load_dataset("mnist-5k")' in message
    assert "\n" not in message and caught.value.__suppress_context__


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="mnist-5k"):
        data.load_dataset("imagenet-22k")


@pytest.mark.parametrize("installed", ["1.40.2", "1.42.0", "2.41.0"])
def test_another_flower_is_refused_in_one_sentence(installed) -> None:
    with pytest.raises(ImportError, match=r"Flower 1\.41.*pip install") as caught:
        course_utils.check_flower_version(installed)
    assert "\n" not in str(caught.value)


def test_this_flower_is_accepted() -> None:
    course_utils.check_flower_version("1.41.0")
    course_utils.check_flower_version("1.41.3")


def test_importing_the_course_switches_flowers_telemetry_off() -> None:
    code = (
        "import course_utils.runtime, flwr.supercore.telemetry as t;"
        "print(t.FLWR_TELEMETRY_ENABLED)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FLWR_")}
    printed = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.strip() == "0"
