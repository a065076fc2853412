# %% [markdown] tags=["slide"]
# # 09 · Non-IID data
#
# **Clients differ. What does that cost, whom, and what helps?**
#
# After this lesson you can
#
# - measure what skew costs, of labels, of sizes and of features, with twenty seeds,
# - make client drift visible: as a number for each round, and as a path,
# - say which client gets how much of a model, and who loses by joining,
# - write FedProx's proximal term, SCAFFOLD and FedBN, and say what each needs,
# - tell what helps from what is said to help.
#
# **You need:** lessons 00 to 05, and 08 for the seeds. **Time:** 95 minutes, 27 of them for
# the exercises.

# %% [markdown] tags=["slide"]
# ## A federation that runs in a second
#
# In lesson 05, ten clients with Dirichlet(0.1) data made a model that jumped from round
# to round. Was that the skew, or luck? Only many seeds can tell. This lesson rests on more
# than seven hundred runs, so one run has to be cheap.
#
# So here a federation is a loop in plain PyTorch, as in lesson 00. Flower's part comes
# where Flower has one.

# %% [markdown]
# First the clients. You know the partitioners from lesson 02. A name stands for each:

# %%
from course_utils.experiments.lesson_09 import PENS, SKEWS

for name, options in SKEWS.items():
    print(f"{name:15} {options}")

# %% [markdown] tags=["slide"]
# The last one is new. Its labels are IID, but its **features** are not. Each client has
# its own pen: it writes plainly, or turned by 90 degrees, or inverted, or blurred.
# Client 4 writes like client 0, and so on.

# %% tags=["slide-more"]
from torch.utils.data import TensorDataset

from course_utils.partitions import load_partition, make_loader

NUM_CLIENTS = 10
ROUNDS = 10


def clients_of(skew: str, seed: int) -> list:
    clients = []
    for i in range(NUM_CLIENTS):
        loaders = load_partition(i, NUM_CLIENTS, seed=seed, **SKEWS[skew])
        pen = PENS[i % len(PENS) if skew == "pens" else 0]
        own = []
        for loader in loaders:
            images, labels = loader.dataset.tensors
            examples = TensorDataset(pen(images), labels)
            own.append(make_loader(examples, batch_size=32, shuffle=True))
        clients.append(tuple(own))
    return clients


# %% [markdown]
# A client is a pair: a train loader and a test loader. Its test data have the same skew as
# its train data. So they show what the client itself gets of a model.

# %% tags=["slide-output"]
from datasets import Dataset, Features, Image, Value

from course_utils.plots import plot_samples


def first_images(client: tuple) -> Dataset:
    images, labels = client[0].dataset.tensors
    pixels = ((images[:10] + 1) * 127.5).byte().permute(0, 2, 3, 1).squeeze(-1)
    columns = {"image": list(pixels.numpy()), "label": labels[:10].tolist()}
    kinds = Features({"image": Image(), "label": Value("int64")})
    return Dataset.from_dict(columns, features=kinds)


plot_samples([first_images(c) for c in clients_of("pens", seed=0)[:4]])

# %% [markdown]
# Then the model. A dense network with one hidden layer trains several times as fast as
# the course's CNN. Its third part is empty for now. The end of the lesson puts a
# normalisation there:

# %%
import math

from torch import nn

from course_utils.partitions import image_shape


def make_net(norm: str = "none") -> nn.Sequential:
    layers = {
        "none": nn.Identity(),
        "BatchNorm": nn.BatchNorm1d(64),
        "FedBN": nn.BatchNorm1d(64),
        "GroupNorm": nn.GroupNorm(8, 64),
    }
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(image_shape()), 64),
        layers[norm],
        nn.ReLU(),
        nn.Linear(64, 10),
    )


# %% [markdown] tags=["slide"]
# The training is plain SGD, without momentum. One thing is unusual: `extra` may add
# something to each gradient. Two methods of this lesson are nothing more than such an
# addition.

# %% tags=["slide-more"]
from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader


def train_locally(
    net: nn.Module,
    loader: DataLoader,
    epochs: int,
    lr: float,
    extra: Callable[[list], list] | None = None,
) -> int:
    weights, steps = list(net.parameters()), 0
    net.train()
    for _ in range(epochs):
        for images, labels in loader:
            if len(labels) == 1:  # BatchNorm cannot train on one example
                continue
            loss = cross_entropy(net(images), labels)
            gradients = torch.autograd.grad(loss, weights)
            with torch.no_grad():
                more = extra(weights) if extra else [0] * len(weights)
                for w, g, m in zip(weights, gradients, more, strict=True):
                    w -= lr * (g + m)
            steps += 1
    return steps


# %% [markdown] tags=["slide"]
# Now the rounds: every client starts from the global model, trains, and all models are
# averaged by number of examples (FedAvg: McMahan et al., 2016,
# [arXiv:1602.05629](https://arxiv.org/abs/1602.05629)). Every client is asked in every
# round, so that no draw of clients blurs the picture.

# %%
from dataclasses import dataclass


@dataclass
class Round:
    start: dict  # the global model before the round
    states: list[dict]  # what each client made of it
    new: dict  # their average
    kept: list[dict]  # what each client keeps for itself


def copy_of(net: nn.Module) -> dict:
    return {name: value.clone() for name, value in net.state_dict().items()}


# %% tags=["slide-more"]
from collections.abc import Iterator

from course_utils.model import weighted_average


def rounds_of(
    clients: list, epochs: int = 1, lr: float = 0.1, mu: float = 0.0, norm: str = "none"
) -> Iterator[Round]:
    net = make_net(norm)
    new, kept = copy_of(net), [{} for _ in clients]
    sizes = [len(train.dataset) for train, _ in clients]
    own_names = "2." if norm == "FedBN" else ()
    for _ in range(ROUNDS):
        start, states = new, []
        for (train, _), own in zip(clients, kept, strict=True):
            net.load_state_dict(start | own)
            pull = proximal(net, mu) if mu else None
            train_locally(net, train, epochs, lr, pull)
            states.append(copy_of(net))
        new = weighted_average(states, sizes)
        kept = [
            {k: v for k, v in state.items() if k.startswith(own_names)}
            for state in states
        ]
        yield Round(start, states, new, kept)


# %% [markdown]
# (Leave `mu`, `kept` and `norm` aside for now. `mu` belongs to FedProx, the other two to
# FedBN. With the defaults, `kept` stays empty.)
#
# What do we measure? The accuracy over all clients' test examples, and that of the client
# that gets least:

# %%
@torch.no_grad()
def accuracy(net: nn.Module, loader: DataLoader) -> float:
    images, labels = loader.dataset.tensors
    net.eval()
    return (net(images).argmax(dim=1) == labels).float().mean().item()


def by_client(clients: list, done: Round, norm: str = "none") -> list[float]:
    net, found = make_net(norm), []
    for (_, test), own in zip(clients, done.kept, strict=True):
        net.load_state_dict(done.new | own)
        found.append(accuracy(net, test))
    return found


def over_all(clients: list, accuracies: list) -> float:
    sizes = [len(test.dataset) for _, test in clients]
    pairs = zip(accuracies, sizes, strict=True)
    return sum(a * n for a, n in pairs) / sum(sizes)


# %%
from course_utils.experiments.lesson_09 import SHOWN


def summary(clients: list, rounds: Iterator[Round], norm: str = "none") -> dict:
    measured = {"accuracy": {}, "worst": {}}
    for number, done in enumerate(rounds, start=1):
        if number in SHOWN:
            each = by_client(clients, done, norm)
            measured["accuracy"][number] = over_all(clients, each)
            measured["worst"][number] = min(each)
    return measured


def federate(seed: int, *, skew: str, **setting) -> dict:
    torch.manual_seed(seed)
    clients = clients_of(skew, seed)
    rounds = rounds_of(clients, **setting)
    return summary(clients, rounds, setting.get("norm", "none"))


# %% [markdown]
# `SHOWN` names the rounds that are measured: 2, 4, 6, 8 and 10. The seed decides all: the
# partition, the initial model, the batches.

# %%
def rounded(values: dict) -> dict:
    return {number: round(value, 2) for number, value in values.items()}


one_run = federate(0, skew="IID")
assert list(one_run["accuracy"]) == [2, 4, 6, 8, 10]
assert one_run["accuracy"][10] > one_run["accuracy"][2]

# %% [markdown] tags=["slide"]
# ## What skew costs
#
# **Predict:** which costs most: few labels for each client, very different sizes, or
# another pen for each? Which costs least?
#
# Three of them live, each with one seed:

# %% tags=["slide-then", "nbval-ignore-output"]
from course_utils.experiments import by_seed, held, run_table, stored

THREE = [{"skew": skew} for skew in ("IID", "Dirichlet(0.1)", "pens")]
live = run_table(federate, THREE, seeds=[0])
print(by_seed(live, "skew", round=10).round(2).to_string())

# %% [markdown]
# One seed is an anecdote. The same function has run with 20 seeds for each skew (on the
# default dataset), and the course keeps the results. `stored` reads them:

# %% tags=["slide", "slide-output"]
from course_utils.plots import plot_intervals, plot_ranges

skewed = stored("09", "skew")
plot_ranges(skewed, by="skew", round=10)

# %% tags=["slide-more", "slide-output"]
last = by_seed(skewed, "skew", round=10)
loss = (last["IID"].to_frame("IID").values - last)[list(SKEWS)]
table = loss.quantile([0.05, 0.5, 0.95]).T
print("accuracy lost against IID: 5 %, median, 95 % of the seeds")
print(table.round(2).to_string())
