"""Datasets: the offline default, the hub's layout, and no network."""

import http.server
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import numpy as np
import PIL.Image
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


def test_a_step_of_a_moment_leaves_no_bar_behind(capfd) -> None:
    train, _ = data.load_dataset("mnist-5k")
    train.shuffle(seed=0).flatten_indices(keep_in_memory=True)
    assert capfd.readouterr().err == ""


def test_without_a_place_to_cache_it_still_loads(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(data.datasets.config, "HF_DATASETS_CACHE", tmp_path / "file")
    assert len(data._load_digits()) == 5000


def zeros(content: bytes, start: int) -> bytes:
    """Put zeros in a block's place, as a power cut does."""
    return content[:start] + bytes(4096) + content[start + 4096 :]


DAMAGE = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "zeros at its start": lambda content: zeros(content, 0),
    "zeros in its images": lambda content: zeros(content, len(content) // 2),
    "zeros at its end": lambda content: content[:-4096] + bytes(4096),
    "one byte of an image": lambda content: content.replace(
        mark := content[600_000:600_020], bytes([mark[0] ^ 1]) + mark[1:]
    ),
}


@pytest.mark.parametrize("damage", [*DAMAGE, "rows are missing"])
def test_a_damaged_cache_is_built_anew(damage, tmp_path, monkeypatch) -> None:
    digits = data._load_digits()
    monkeypatch.setattr(data.datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(data, "_build_digits", lambda: digits)
    cache = data.digits_cache()
    data._save_atomically(digits, cache)
    whole = cache.read_bytes()
    if damage in DAMAGE:
        cache.write_bytes(DAMAGE[damage](whole))
    else:
        data._save_atomically(digits.take(2000), cache)
    assert data._load_digits().to_dict() == digits.to_dict()
    assert cache.read_bytes() == whole


def test_a_whole_cache_is_used(tmp_path, monkeypatch) -> None:
    digits = data._load_digits()
    monkeypatch.setattr(data.datasets.config, "HF_DATASETS_CACHE", tmp_path)
    data._save_atomically(digits, data.digits_cache())
    monkeypatch.setattr(data, "_build_digits", pytest.fail)
    assert data._load_digits().to_dict() == digits.to_dict()


def test_a_cache_gets_its_name_once_it_is_on_the_disk(tmp_path, monkeypatch) -> None:
    digits, target = data._load_digits(), tmp_path / "digits"
    synced = []
    monkeypatch.setattr(data.os, "fsync", lambda _: synced.append(target.exists()))
    data._save_atomically(digits, target)
    assert synced == [False] and target.is_file()

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    target.unlink()
    monkeypatch.setattr(data.os, "fsync", no_space)
    data._save_atomically(digits, target)
    assert list(tmp_path.iterdir()) == []


def images(count: int, *shape: int, dtype: type = np.uint8) -> list[np.ndarray]:
    """Make images, each of one shade: its number."""
    return [np.full(shape or (32, 32), i, dtype) for i in range(count)]


def halves(count: int) -> list[int]:
    return [i % 2 for i in range(count)]


def hub_layout(folder: Path, **splits: dict[str, list]) -> str:
    """Write a folder in the hub's layout: lists are columns, ``image`` of images."""
    (folder / "data").mkdir(parents=True)
    for name, columns in splits.items():
        kinds = {"image": Image(), "img": Image()}
        plain = {key: value for key, value in columns.items() if key not in kinds}
        features = Features(
            {key: kinds[key] for key in columns if key in kinds}
            | Dataset.from_dict(plain).features
        )
        path = folder / "data" / f"{name}-00000-of-00001.parquet"
        Dataset.from_dict(columns, features=features).to_parquet(path)
    return str(folder)


@pytest.fixture
def hub_folder(tmp_path):
    """A folder in the hub's layout, with CIFAR-10's columns and colour images."""
    features = Features({"img": Image(), "label": ClassLabel(names=["cat", "dog"])})
    (tmp_path / "data").mkdir()
    for split, size in (("train", 20), ("test", 8)):
        rows = {"img": images(size, 32, 32, 3), "label": halves(size)}
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


def test_labels_of_any_name_and_kind_become_classes(tmp_path) -> None:
    for name, labels, names in (
        ("strings", ["dog", "cat"], ["cat", "dog"]),
        ("numbers", [12, 3], ["3", "12"]),
    ):
        rows = {"image": images(20), "target": labels * 10}
        folder = hub_layout(tmp_path / name, train=rows, test=rows)
        for split in data.load_dataset(folder):
            assert split.column_names == ["image", "label"]
            assert split.features["label"].names == names
            shades = [image.getpixel((0, 0)) for image in split["image"]]
            assert split["label"][:] == [1 - shade % 2 for shade in shades]


def test_a_folder_a_label_is_a_dataset_too(tmp_path) -> None:
    for split in ("train", "test"):
        for label, shades in (("cat", range(8)), ("dog", range(100, 108))):
            (tmp_path / split / label).mkdir(parents=True)
            for shade in shades:
                image = PIL.Image.new("L", (28, 28), shade)
                image.save(tmp_path / split / label / f"{shade}.png")
    train, _ = data.load_dataset(str(tmp_path))
    shades = [image.getpixel((0, 0)) for image in train["image"]]
    assert train["label"][:] == [int(shade >= 100) for shade in shades]


def test_a_missing_test_split_is_cut_off_the_same_for_everyone(tmp_path) -> None:
    folder = hub_layout(tmp_path, train={"image": images(50), "label": halves(50)})
    shades = []
    for _ in range(2):
        data._load_dataset.cache_clear()
        splits = data.load_dataset(folder)
        assert [len(split) for split in splits] == [40, 10]
        shades.append([i.getpixel((0, 0)) for split in splits for i in split["image"]])
    assert shades[0] == shades[1] != sorted(shades[0]) == list(range(50))


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_16_bit_images_keep_the_upper_8_bits_in_use(bits, tmp_path) -> None:
    shades = [0, 2**bits - 1, 2 ** (bits - 1)] * 4
    pixels = [np.full((28, 28), shade, np.uint16) for shade in shades]
    folder = hub_layout(tmp_path, train={"image": pixels, "label": shades})
    train, _ = data.load_dataset(folder)
    tensors, labels = data.to_tensors(train)
    assert tensors.shape[1:] == (1, 28, 28)
    byte = torch.tensor([0, 128, 255])[labels]  # labels are numbered by brightness
    assert torch.equal(tensors[:, 0, 0, 0], byte / 127.5 - 1)


def test_mixed_modes_become_rgb(tmp_path) -> None:
    rows = {"image": images(10) + images(10, 32, 32, 4), "label": halves(20)}
    train, test = data.load_dataset(hub_layout(tmp_path, train=rows))
    assert {image.mode for split in (train, test) for image in split["image"]} == {
        "RGB"
    }
    assert data.to_tensors(train)[0].shape == (16, 3, 32, 32)


LABELS = halves(10)


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ({"image": images(5) + images(5, 28, 28), "label": LABELS}, r"resize.*32, 32"),
        ({"image": images(10, 30, 30), "label": LABELS}, r"by 4: resize.*\(32, 32\)"),
        ({"image": images(10, dtype=np.float32), "label": LABELS}, "8 or 16 bits"),
        ({"image": [*images(9), None], "label": LABELS}, "missing or can't be read"),
        ({"image": images(10), "a": LABELS, "b": LABELS}, r"2 may be.*have that name"),
        ({"x": LABELS, "label": LABELS}, "0 may be the 'image'"),
        ({"image": images(10), "label": [None, 1] * 5}, "leave such examples out"),
        ({"image": images(10), "label": [0.5, 1.0] * 5}, "whole number"),
        ({"image": images(10), "label": [[1]] * 10}, "whole number"),
        ({"image": images(1), "label": [1]}, "add some"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(rows, what, tmp_path) -> None:
    with pytest.raises(ValueError, match=what) as caught:
        data.load_dataset(hub_layout(tmp_path, train=rows))
    assert "\n" not in str(caught.value)


def test_examples_without_a_class_are_refused(tmp_path) -> None:
    kinds = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog"])})
    rows = {"image": images(4), "label": [0, 1, -1, -1]}
    Dataset.from_dict(rows, features=kinds).to_parquet(tmp_path / "train-0.parquet")
    with pytest.raises(ValueError, match="-1, which means none: leave them out"):
        data.load_dataset(str(tmp_path))


def test_a_folder_without_a_dataset_is_refused(tmp_path) -> None:
    for name, content in (("nothing", None), ("zeros", bytes(100))):
        (tmp_path / name).mkdir()
        if content:
            (tmp_path / name / "train-0.parquet").write_bytes(content)
        with pytest.raises(ValueError, match=r"must hold data/train-\*") as caught:
            data.load_dataset(str(tmp_path / name))
        assert "\n" not in str(caught.value) and caught.value.__suppress_context__
    (tmp_path / "a [1]").mkdir()
    with pytest.raises(ValueError, match="rename the folder"):
        data.load_dataset(str(tmp_path / "a [1]"))


def test_a_folder_is_read_anew_each_time(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(data.datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = {"image": images(10, 28, 28, 4), "label": ["a", "b"] * 5}
    data.load_dataset(hub_layout(tmp_path / "mine", train=rows))
    assert not (tmp_path / "cache").exists()


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


@pytest.mark.parametrize("dtype", [np.uint16, np.uint8])
def test_images_that_make_no_tensor_are_refused(dtype) -> None:
    pixels = images(2, dtype=dtype) + images(1, 28, 28, dtype=dtype)
    features = Features({"image": Image(), "label": ClassLabel(num_classes=2)})
    rows = {"image": pixels, "label": [0, 1, 0]}
    dataset = Dataset.from_dict(rows, features=features)
    with pytest.raises(ValueError, match="8-bit and of one size"):
        data.to_tensors(dataset if dtype == np.uint8 else dataset.take(2))


@pytest.fixture
def in_place_of_the_hub(monkeypatch):
    """Return a function that lets another server answer in the hub's place."""

    class Other(http.server.BaseHTTPRequestHandler):
        status, body = 200, b""

        def do_GET(self) -> None:
            self.send_response(self.status)
            self.send_header("Content-Length", str(len(self.body)))
            self.end_headers()
            self.wfile.write(self.body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    def answer(status: int, body: bytes) -> None:
        Other.status, Other.body = status, body

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield answer
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "what"),
    [
        (200, b"<html>Please log in</html>", "a network's login page"),
        (200, b"{}", "a network's login page"),
        (403, b"Forbidden", "403"),
        (429, b"Too many requests", "429"),
        (503, b"", "503"),
    ],
)
def test_another_answer_than_the_hubs_is_one_clear_sentence(
    status, body, what, in_place_of_the_hub
) -> None:
    in_place_of_the_hub(status, body)
    with pytest.raises(ConnectionError, match=what) as caught:
        data.load_dataset("ylecun/mnist")
    message = str(caught.value)
    assert 'offline default, load_dataset("mnist-5k")' in message
    assert "\n" not in message and caught.value.__suppress_context__


def test_what_the_library_has_prepared_and_is_damaged_is_prepared_anew(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(data.datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    pixels = [np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)] * 2000
    rows = {"image": pixels, "label": halves(2000)}
    folder = hub_layout(tmp_path / "mine", train=rows)
    whole = data._load_prepared(folder)["train"]["label"][:]
    (prepared,) = (tmp_path / "cache").rglob("*.arrow")
    content = prepared.read_bytes()
    second = content.index(b"\xff\xff\xff\xff", content.index(b"IHDR") + 10**6)
    for damaged in (b"", content[:second] + bytes(len(content) - second)):
        prepared.write_bytes(damaged)
        assert data._load_prepared(folder)["train"]["label"][:] == whole


def test_a_hub_that_stops_half_way_is_one_clear_sentence(
    in_place_of_the_hub, monkeypatch
) -> None:
    def stop(name: str) -> None:
        raise FileNotFoundError(f"Couldn't find any data file at {name}.\nNor online.")

    in_place_of_the_hub(200, b'{"id": "ylecun/mnist"}')
    monkeypatch.setattr(data.datasets, "load_dataset", stop)
    with pytest.raises(ConnectionError, match="Couldn't find any") as caught:
        data.load_dataset("ylecun/mnist")
    assert "\n" not in str(caught.value) and "mnist-5k" in str(caught.value)


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


@pytest.mark.parametrize("installed", ["7.8.9", "6.10.0", None])
def test_an_older_flower_is_refused_in_one_sentence(installed) -> None:
    with pytest.raises(ImportError, match=r"Flower 7\.9.*pip install") as caught:
        course_utils.check_flower_version(installed, "7.9")
    assert "\n" not in str(caught.value)


def test_this_flower_is_accepted() -> None:
    course_utils.check_flower_version("7.9.0", "7.9")
    course_utils.check_flower_version("7.9.3", "7.9")
    series = course_utils.flower_series()
    course_utils.check_flower_version(version("flwr"), series)


@pytest.mark.parametrize("installed", ["7.10.0", "8.0.1"])
def test_a_newer_flower_is_warned_of(installed) -> None:
    with pytest.warns(
        UserWarning, match=rf"with Flower 7\.9, and not with {installed}"
    ):
        course_utils.check_flower_version(installed, "7.9")


def test_importing_the_course_switches_flowers_telemetry_off() -> None:
    code = (
        "import course_utils, os, sys;"
        "print(os.environ['FLWR_TELEMETRY_ENABLED'], 'flwr' in sys.modules)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FLWR_")}
    printed = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.strip() == "0 False"  # Flower reads it when imported
