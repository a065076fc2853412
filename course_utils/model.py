"""The course's model, a small CNN: how to train it, test it and average it."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.data import DataLoader


class Net(nn.Module):
    """A small convolutional network for small images.

    Two convolutions, each followed by a ReLU, then one linear layer. The convolutions
    halve the image themselves (stride 2), which is much faster on a CPU than pooling.
    For MNIST's images the network has 28,938 parameters.

    Parameters
    ----------
    image_shape : tuple[int, int, int]
        Channels, height and width of one image; height and width divisible by 4.
    num_classes : int
        Number of labels.

    Raises
    ------
    ValueError
        If height or width is not divisible by 4.
    """

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


def require_alike(
    states: Sequence[dict[str, torch.Tensor]], num_examples: Sequence[int]
) -> None:
    """Refuse what :func:`weighted_average` could not average, in a sentence.

    Raises
    ------
    ValueError
        If there is no model, not one number of examples for each, no example at all, or
        if a model has other names or shapes than the first.
    """
    if not states or len(states) != len(num_examples):
        raise ValueError(
            f"{len(states)} models and {len(num_examples)} numbers of examples: give "
            "one number for each model, and at least one model."
        )
    if sum(num_examples) <= 0:
        raise ValueError("The clients have no examples: there is nothing to weight by.")
    shapes = {name: tuple(value.shape) for name, value in states[0].items()}
    for client, state in enumerate(states):
        if state.keys() != shapes.keys():
            names = sorted(state.keys() ^ shapes.keys())
            raise ValueError(f"Clients 0 and {client} do not both have {names}.")
        for name, value in state.items():
            if tuple(value.shape) != shapes[name]:
                raise ValueError(
                    f"{name!r} has the shape {tuple(value.shape)} at client {client}, "
                    f"and {shapes[name]} at client 0: only equal shapes are averaged."
                )


def weighted_average(
    states: Sequence[dict[str, torch.Tensor]], num_examples: Sequence[int]
) -> dict[str, torch.Tensor]:
    """Average models by number of examples: the server's step in Federated Averaging.

    Parameters
    ----------
    states : Sequence[dict[str, torch.Tensor]]
        One ``state_dict`` for each client, all with the same names and shapes.
    num_examples : Sequence[int]
        How many examples each client trained on.

    Returns
    -------
    dict[str, torch.Tensor]
        The average (McMahan et al., 2017, https://arxiv.org/abs/1602.05629,
        algorithm 1), of the same dtypes. Whole numbers, such as a counter of batches,
        are rounded.

    Raises
    ------
    ValueError
        See :func:`require_alike`.
    """
    require_alike(states, num_examples)
    total = sum(num_examples)
    average = {}
    for name, first in states[0].items():
        pairs = zip(states, num_examples, strict=True)
        mean = sum(n / total * state[name] for state, n in pairs)
        if not first.is_floating_point():  # a counter stays a whole number
            mean = mean.round()
        average[name] = mean.to(first.dtype)
    return average
