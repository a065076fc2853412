"""What lesson 11 measures: what a server reads out of its clients' messages."""

import math
from collections.abc import Callable

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score, roc_curve
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from course_utils import model
from course_utils.experiments import Experiment
from course_utils.model import Net
from course_utils.partitions import (
    image_shape,
    load_centralized,
    load_partition,
    make_loader,
)
from course_utils.runtime import InProcessGrid

NUM_CLIENTS = 10
LR = 0.01

State = dict[str, torch.Tensor]

# -------------------------------------------------------------------- the federation


def make_net(kind: str) -> nn.Module:
    """Make the course's Net, or a dense network."""
    if kind == "Net":
        return Net(image_shape())
    inputs = math.prod(image_shape())
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, 10)
    )


def own_data(client: int, config: dict) -> TensorDataset:
    """Return the examples that a client trains on in this run."""
    split = {"scheme": config["scheme"], "alpha": 0.3, "seed": config["seed"]}
    loader, _ = load_partition(client, NUM_CLIENTS, **split)
    images, labels = loader.dataset.tensors
    torch.manual_seed(config["seed"])
    order = torch.randperm(len(labels)).tolist()
    if config["labels"] == "alike":
        order = [i for i in order if labels[i] == labels[order[0]]]
    if config["labels"] == "different":
        by_label = {labels[i].item(): i for i in order}  # one of each
        order = list(by_label.values())
    chosen = order[: config["examples"]]
    return TensorDataset(images[chosen], labels[chosen])


client_app = ClientApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Train on the client's own examples, and reply, as in lesson 03."""
    config, net = context.run_config, make_net(context.run_config["net"])
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    data = own_data(context.node_config["partition-id"], config)
    size = config["batch-size"] or len(data)
    loader = make_loader(data, batch_size=size, shuffle=True)
    model.train(net, loader, epochs=config["local-epochs"], lr=LR)
    content = {
        "arrays": ArrayRecord(net.state_dict()),
        "metrics": MetricRecord({"num-examples": len(data)}),
    }
    return Message(RecordDict(content), reply_to=message)


DEFAULTS = {
    "net": "Net",
    "scheme": "iid",
    "examples": 1,
    "labels": "any",
    "batch-size": 0,  # all examples in one
    "local-epochs": 1,
    "pretrained": False,
}


def start_net(seed: int, config: dict) -> nn.Module:
    """Return the global model: a new one, or one that another client has trained."""
    torch.manual_seed(seed)
    net = make_net(config["net"])
    if config["pretrained"]:
        loader, _ = load_partition((seed + 1) % NUM_CLIENTS, NUM_CLIENTS)
        model.train(net, loader, epochs=3)
    return net


def ask(net: nn.Module, client: int, config: dict) -> RecordDict:
    """Send a model to one client, and return what comes back."""
    grid = InProcessGrid(client_app, NUM_CLIENTS, run_config=config, seed=0)
    node = list(grid.get_node_ids())[client]
    content = RecordDict({"arrays": ArrayRecord(net.state_dict())})
    (reply,) = grid.send_and_receive([Message(content, node, "train")])
    return reply.content


def update_of(net: nn.Module, reply: RecordDict) -> State:
    """Return old minus new, divided by lr: after one step, the gradient."""
    old, new = net.state_dict(), reply["arrays"].to_torch_state_dict()
    return {name: (old[name] - new[name]) / LR for name in old}


def spy(seed: int, **config) -> tuple[nn.Module, State, TensorDataset]:
    """Return what the server has, and the client's examples, to judge it by."""
    config = {**DEFAULTS, **config, "seed": seed}
    client = seed % NUM_CLIENTS
    net = start_net(seed, config)
    update = update_of(net, ask(net, client, config))
    return net, update, own_data(client, config)


# ------------------------------------------------------------------- pictures


def divide(update: State) -> torch.Tensor:
    """Divide each row of the first layer's gradient by its bias's."""
    weight, bias = update["1.weight"], update["1.bias"]
    seen = bias != 0
    return weight[seen] / bias[seen, None]


def replay(
    net: nn.Module, images: torch.Tensor, labels: torch.Tensor, steps: int = 1
) -> list[torch.Tensor]:
    """Train as the client does, so that gradients can flow back to the images."""
    names = [name for name, _ in net.named_parameters()]
    start = weights = list(net.parameters())
    speeds = [0.0] * len(weights)
    for _ in range(steps):
        named = dict(zip(names, weights, strict=True))
        loss = cross_entropy(functional_call(net, named, (images,)), labels)
        grads = torch.autograd.grad(loss, weights, create_graph=True)
        speeds = [0.9 * s + g for s, g in zip(speeds, grads, strict=True)]
        weights = [w - LR * s for w, s in zip(weights, speeds, strict=True)]
    return [(a - b) / LR for a, b in zip(start, weights, strict=True)]


def gap(made: list[torch.Tensor], update: State) -> torch.Tensor:
    """Return the squared distance of two updates, as a share of the client's."""
    seen = list(update.values())
    size = sum((u**2).sum() for u in seen)
    pairs = zip(made, seen, strict=True)
    return sum(((m - u) ** 2).sum() for m, u in pairs) / size


def search(
    update: State,
    guess: Callable,
    shape: tuple[int, ...],
    iterations: int = 100,
) -> torch.Tensor:
    """Look for images that make the same update."""
    images = (0.1 * torch.randn(shape)).requires_grad_()
    options = {"tolerance_grad": 0, "tolerance_change": 0}
    optimizer = torch.optim.LBFGS(
        [images], max_iter=iterations, history_size=50, **options
    )

    def distance() -> torch.Tensor:
        total = gap(guess(images), update)
        (images.grad,) = torch.autograd.grad(total, images)
        return total

    optimizer.step(distance)
    # Should a search fly off, what is no number counts as grey.
    return images.detach().nan_to_num().clamp(-1, 1)


def as_one_step(update: State, steps: int) -> State:
    """Divide an update by what so many steps along one gradient come to."""
    speed = length = 0.0
    for _ in range(steps):
        speed = 0.9 * speed + 1
        length += speed
    return {name: value / length for name, value in update.items()}


def errors(found: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return each image's mean squared error, of the found one that is nearest."""
    apart = torch.cdist(found.flatten(1) / 2, images.flatten(1) / 2)
    return apart.min(dim=0).values ** 2 / images[0].numel()


def recognised(found: torch.Tensor, images: torch.Tensor) -> float:
    """Return the share of images that a found one is nearer to than to all others."""
    pool = load_centralized()[0].dataset.tensors[0].flatten(1)
    nearest = pool[torch.cdist(found.flatten(1), pool).argmin(dim=1)]
    same = (images.flatten(1)[:, None] == nearest).all(dim=2)
    return same.any(dim=1).float().mean().item()


CASES = {
    "1 image": {},
    "2, different labels": {"examples": 2, "labels": "different"},
    "4, different labels": {"examples": 4, "labels": "different"},
    "8, different labels": {"examples": 8, "labels": "different"},
    "2 of one label": {"examples": 2, "labels": "alike"},
    "4 of one label": {"examples": 4, "labels": "alike"},
    "32 images": {"examples": 32},
    "8 in batches of 2": {"examples": 8, "labels": "different", "batch-size": 2},
    "5 steps": {"local-epochs": 5},
    "5 steps, replayed": {"local-epochs": 5},
    "10 steps": {"local-epochs": 10},
    "trained model": {"pretrained": True},
}


def target(seed: int, case: str) -> tuple[State, Callable, torch.Tensor]:
    """Return what the server has, how it makes a guess, and the truth."""
    config = CASES[case]
    net, update, data = spy(seed, **config)
    images, labels = data.tensors
    epochs = config.get("local-epochs", 1)
    steps = epochs if "replayed" in case else 1
    if steps == 1:
        per_epoch = len(data) // config.get("batch-size", len(data))
        update = as_one_step(update, epochs * per_epoch)

    def guess(candidates: torch.Tensor) -> list[torch.Tensor]:
        return replay(net, candidates, labels, steps)

    return update, guess, images


def match(seed: int, case: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Attack one client by gradient matching: return what it finds, and the truth."""
    update, guess, images = target(seed, case)
    return search(update, guess, images.shape), images


def judged(found: torch.Tensor, images: torch.Tensor) -> dict[str, float]:
    """Measure how near the pictures come, and how many could be recognised."""
    error = errors(found, images).mean().item()
    return {"error": error, "recognised": recognised(found, images)}


def pictures(seed: int, *, case: str) -> dict[str, float]:
    """Attack one client, and measure what came out."""
    return judged(*match(seed, case))


def again(seed: int, *, starts: int) -> dict[str, float]:
    """Replay five steps. While the gap stays large, begin again from other noise."""
    update, guess, images = target(seed, "5 steps, replayed")
    tries = []
    while len(tries) < starts and all(left > 0.01 for left, _ in tries):
        found = search(update, guess, images.shape)
        tries.append((gap(guess(found), update).item(), found))
    left, found = min(tries, key=lambda each: each[0])
    return {"first gap": tries[0][0], "gap": left, **judged(found, images)}


def shrink(update: State, how: str) -> State:
    """Send 8 bits for each number, its sign, or the largest 1 of 100."""
    sent = {}
    for name, value in update.items():
        size = value.abs()
        if how == "8 bits":
            step = size.max() / 127
            sent[name] = (value / step).round() * step
        elif how == "1 bit":
            sent[name] = value.sign() * size.mean()
        else:
            sent[name] = value * (size >= size.quantile(0.99))
    return sent


def shrunk(seed: int, *, how: str) -> dict[str, float]:
    """Attack a client that sends less."""
    update, guess, images = target(seed, "1 image")
    found = search(shrink(update, how), guess, images.shape)
    return judged(found, images)


def exact_share(seed: int, *, examples: int) -> dict[str, float]:
    """Measure how many images a dense first layer gives away to the last digit."""
    _, update, data = spy(seed, net="dense", examples=examples)
    images = data.tensors[0]
    error = errors(divide(update), images)
    return {"exact": (error < 1e-4).float().mean().item()}


# --------------------------------------------------------------------- labels, sizes


@torch.no_grad()
def label_counts(net: nn.Module, update: State, size: int) -> torch.Tensor:
    """Guess how many examples of each label a client has, by the head's bias."""
    images, _ = load_centralized()[1].dataset.tensors
    usual = net(images).softmax(dim=1).mean(dim=0)
    return size * (usual - update["head.bias"])


LABELS = {
    "8, one step": {"examples": 8},
    "32, one step": {"examples": 32},
    "32, trained model": {"examples": 32, "pretrained": True},
    "all, 1 epoch": {"batch-size": 16},
    "all, 5 epochs": {"batch-size": 16, "local-epochs": 5},
}


def label_error(seed: int, *, case: str) -> dict[str, float]:
    """Measure what share of the labels is guessed wrong; also by a guess without."""
    config = {"examples": 10_000, "scheme": "dirichlet", **LABELS[case]}
    net, update, data = spy(seed, **config)
    size, labels = len(data), data.tensors[1]
    steps = config.get("local-epochs", 1)
    steps *= math.ceil(size / config.get("batch-size", size))
    counts = label_counts(net, as_one_step(update, steps), size)
    true = torch.bincount(labels, minlength=10)
    wrong, blind = (
        (guess - true).abs().sum().item() / 2 / size for guess in (counts, size / 10)
    )
    largest = float(counts.argmax() == true.argmax())
    return {"wrong": wrong, "blind": blind, "largest": largest}


def flat(update: State) -> torch.Tensor:
    """Return all numbers of an update in one row."""
    return torch.cat([value.flatten() for value in update.values()])


def sizes(seed: int, *, scheme: str) -> dict[str, float]:
    """Measure how well the length of an update ranks ten clients by their size."""
    config = {"examples": 10_000, "scheme": scheme, "batch-size": 16}
    config = DEFAULTS | config
    net = start_net(seed, config)
    replies = [ask(net, i, config | {"seed": seed}) for i in range(NUM_CLIENTS)]
    lengths = [flat(update_of(net, r)).norm().item() for r in replies]
    counts = [reply["metrics"]["num-examples"] for reply in replies]
    return {"correlation": float(spearmanr(lengths, counts).statistic)}


# --------------------------------------------------------------------- membership


WHO = {
    "20 images, 100 epochs": {"examples": 20, "epochs": 100, "clients": 1},
    "50 images, 30 epochs": {"examples": 50, "epochs": 30, "clients": 1},
    "300 images, 10 epochs": {"examples": 300, "epochs": 10, "clients": 1},
    "300 images, 1 epoch": {"examples": 300, "epochs": 1, "clients": 1},
    "average of ten": {"examples": 50, "epochs": 30, "clients": 10},
    "another client": {"examples": 50, "epochs": 30, "clients": 0},
    "another, 300, 1 epoch": {"examples": 300, "epochs": 1, "clients": 0},
}


@torch.no_grad()
def losses(net: nn.Module, data: TensorDataset) -> torch.Tensor:
    """Return the loss of each example."""
    images, labels = data.tensors
    return cross_entropy(net(images), labels, reduction="none")


def inside_and_outside(
    seed: int, *, examples: int, epochs: int, clients: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the losses of a client's examples, and of others, after some training.

    The model is that of the client, or the average of it and others. With no client, it
    is that of another one, which cannot know them.
    """
    config = {"examples": examples, "local-epochs": epochs, "batch-size": 16}
    config = {**DEFAULTS, **config, "net": "dense", "seed": seed}
    whose = [(seed + i) % NUM_CLIENTS for i in range(NUM_CLIENTS)]
    net = start_net(seed, config)
    asked = whose[:clients] or whose[1:2]
    replies = [ask(net, client, config)["arrays"] for client in asked]
    states = [arrays.to_torch_state_dict() for arrays in replies]
    net.load_state_dict(model.weighted_average(states, [1] * len(asked)))
    members = own_data(whose[0], config)
    others = load_centralized()[1].dataset
    return losses(net, members), losses(net, others)


def membership(seed: int, *, who: str) -> dict[str, float]:
    """Measure how well a low loss tells a client's examples from others."""
    inside, outside = inside_and_outside(seed, **WHO[who])
    is_member = [1] * len(inside) + [0] * len(outside)
    scores = -torch.cat([inside, outside])
    false, true, _ = roc_curve(is_member, scores)
    caught = true[false <= 0.01].max()
    return {"AUC": roc_auc_score(is_member, scores), "caught": caught}


# ------------------------------------------------------------------ what is measured

# A search that rounding leads elsewhere ends elsewhere: None.
EXPERIMENTS: dict[str, Experiment] = {
    "pictures": Experiment(
        pictures, [{"case": case} for case in CASES], tolerance=None
    ),
    "again": Experiment(again, [{"starts": 3}], tolerance=None),
    "shrunk": Experiment(
        shrunk,
        [{"how": how} for how in ("8 bits", "1 bit", "largest 1 of 100")],
        tolerance=None,
    ),
    "exact": Experiment(
        exact_share,
        [{"examples": examples} for examples in (1, 2, 4, 8, 16, 32)],
    ),
    "labels": Experiment(label_error, [{"case": case} for case in LABELS]),
    "sizes": Experiment(sizes, [{"scheme": "dirichlet"}]),
    "membership": Experiment(membership, [{"who": who} for who in WHO], tolerance=0.05),
}
