"""What lesson 10 measures: its federation, its liars, its compression."""

import gc
import heapq
import math
from collections.abc import Callable
from functools import partial

import torch
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import (
    Bulyan,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    Strategy,
)
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from course_utils import model
from course_utils.experiments import Experiment
from course_utils.partitions import (
    image_shape,
    load_centralized,
    load_partition,
    make_loader,
)
from course_utils.runtime import InProcessGrid, InProcessRun, run_in_process

NUM_CLIENTS = 11
ROUNDS = 6
LR = 0.04

# ------------------------------------------------------------------- the federation


def make_net() -> nn.Module:
    """Make a small network: 25,450 parameters for MNIST's images."""
    inputs = math.prod(image_shape())
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, 10)
    )


def load_net(arrays: ArrayRecord) -> nn.Module:
    """Make the network that a message carries."""
    net = make_net()
    net.load_state_dict(arrays.to_torch_state_dict())
    return net


def load_data(context: Context) -> DataLoader:
    """Load the client's own training data."""
    config = context.run_config
    split = {"scheme": "iid"}
    if config.get("skewed"):
        split = {"scheme": "dirichlet", "alpha": 0.3, "seed": config["seed"]}
    ids = ("partition-id", "num-partitions")
    own = [context.node_config[name] for name in ids]
    return load_partition(*own, batch_size=50, **split)[0]


def is_liar(context: Context) -> bool:
    """Whether this client lies: the first ones do, as many as the run config says."""
    liars = context.run_config.get("liars", 0)
    return context.node_config["partition-id"] < liars


def train(message: Message, context: Context) -> Message:
    """Train the global model on the client's own data, and reply."""
    net = load_net(message.content["arrays"])
    loader = load_data(context)
    if is_liar(context):
        loader = poison(loader, context.run_config["attack"])
    loss = model.train(net, loader, lr=message.content["config"]["lr"])
    metrics = {"train-loss": loss, "num-examples": len(loader.dataset)}
    content = {
        "arrays": ArrayRecord(net.state_dict()),
        "metrics": MetricRecord(metrics),
    }
    return Message(RecordDict(content), reply_to=message)


def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Test the global model, and how often the backdoor's patch fools it."""
    _, loader = load_centralized()
    net = load_net(arrays)
    _, accuracy = model.test(net, loader)
    images, labels = loader.dataset.tensors
    with torch.no_grad():
        guesses = net(stamp(images)).argmax(dim=1)
    fooled = (guesses[labels != 0] == 0).float().mean().item()
    return MetricRecord({"accuracy": accuracy, "fooled": fooled})


def run_with(
    strategy: Strategy, clients: ClientApp, seed: int = 0, **settings: float | str
) -> InProcessRun:
    """Run a strategy with eleven clients, for six rounds."""
    app = ServerApp()
    strategy.fraction_evaluate = 0.0  # here only the server evaluates

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        strategy.start(
            grid,
            initial_arrays=ArrayRecord(make_net().state_dict()),
            num_rounds=ROUNDS,
            train_config=ConfigRecord({"lr": settings.get("lr", LR)}),
            evaluate_fn=evaluate,
        )

    config = {"seed": seed, **settings}
    options = {"num_supernodes": NUM_CLIENTS, "client_errors": "reply"}
    return run_in_process(
        app, clients, run_config=config, seed=seed, progress=False, **options
    )


client_app = ClientApp()
client_app.train()(train)


def by_round(run: InProcessRun, name: str = "accuracy") -> list[float]:
    """Return what the server measured in each round, from round 0 on."""
    rounds = run.result.evaluate_metrics_serverapp.values()
    return [metrics[name] for metrics in rounds]


# ------------------------------------------------------------------------ the liars


def stamp(images: torch.Tensor) -> torch.Tensor:
    """Put a bright patch into a corner of each image."""
    images = images.clone()
    images[:, :, 1:5, 1:5] = 1.0
    return images


def poison(loader: DataLoader, attack: str) -> DataLoader:
    """Return the loader of a client that lies about its data."""
    images, labels = loader.dataset.tensors
    if attack == "labels":
        labels = 9 - labels
    if attack in BACKDOORS:
        half = torch.arange(len(labels)) % 2 == 0
        images = torch.where(half[:, None, None, None], stamp(images), images)
        labels = torch.where(half, 0, labels)
    data = TensorDataset(images, labels)
    return make_loader(data, batch_size=50, shuffle=True)


BACKDOORS = ("backdoor", "quiet")
FACTORS = {"sign": -4.0, "scale": 10.0, "backdoor": 5.0}


def lie(message: Message, context: Context, call_next: Callable) -> Message:
    """Multiply a liar's update by the factor of its attack."""
    reply = call_next(message, context)
    if is_liar(context):
        factor = FACTORS.get(context.run_config["attack"], 1.0)
        old = message.content["arrays"].to_torch_state_dict()
        new = reply.content["arrays"].to_torch_state_dict()
        sent = {n: old[n] + factor * (new[n] - old[n]) for n in old}
        reply.content["arrays"] = ArrayRecord(sent)
    return reply


lying_app = ClientApp(mods=[lie])
lying_app.train()(train)


class Clipping(FedAvg):
    """FedAvg that shortens each update to the median length of its round."""

    def configure_train(self, server_round, arrays, config, grid):
        """Keep the model that the updates are updates of."""
        self.sent = arrays
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        """Put a model with a shorter update in the place of each one."""
        replies = [r for r in replies if r.has_content()]
        start = flat(self.sent)
        updates = [flat(reply.content["arrays"]) - start for reply in replies]
        limit = torch.stack(updates).norm(dim=1).median()
        for reply, update in zip(replies, updates, strict=True):
            share = min(1.0, limit / update.norm())
            reply.content["arrays"] = as_model(start + share * update)
        return super().aggregate_train(server_round, replies)


ROBUST = {
    "FedAvg": FedAvg,
    "FedMedian": FedMedian,
    "FedTrimmedAvg": partial(FedTrimmedAvg, beta=0.2),
    "Krum": partial(Krum, num_malicious_nodes=2),
    "MultiKrum": partial(MultiKrum, num_malicious_nodes=2, num_nodes_to_select=7),
    "Bulyan": partial(Bulyan, num_malicious_nodes=2),
    "plain mean": partial(FedTrimmedAvg, beta=0.0),
    "Clipping": Clipping,
}
RULES = [*ROBUST][1:6]


def lied_to(
    seed: int, *, strategy: str, attack: str, liars: int, skewed: bool
) -> dict[str, list[float]]:
    """Run one strategy against some liars."""
    gc.freeze()  # Bulyan collects garbage for each reply: let there be little
    settings = {"attack": attack, "liars": liars, "skewed": skewed}
    chosen = ROBUST[strategy]()
    run = run_with(chosen, lying_app, seed, **settings)
    gc.unfreeze()
    metrics = ["accuracy"] + ["fooled"] * (attack in BACKDOORS)
    return {metric: by_round(run, metric) for metric in metrics}


# ------------------------------------------------------------ the server's optimiser

OPTIMISERS = {
    "FedAvg": lambda eta: FedAvg(),
    "FedAvgM": lambda eta: FedAvgM(server_momentum=0.9, server_learning_rate=eta),
    "FedAdam": lambda eta: FedAdam(eta=eta),
    "FedYogi": lambda eta: FedYogi(eta=eta),
}


def optimised(seed: int, *, strategy: str, eta: float) -> dict[str, list[float]]:
    """Run one server optimiser, with clients that take small steps."""
    chosen = OPTIMISERS[strategy](eta)
    return {"accuracy": by_round(run_with(chosen, client_app, seed, lr=0.004))}


# -------------------------------------------------------------------- compression


def flat(arrays: ArrayRecord) -> torch.Tensor:
    """Return all numbers of a model in one row."""
    values = arrays.to_torch_state_dict().values()
    return torch.cat([value.flatten() for value in values])


def as_model(numbers: torch.Tensor) -> ArrayRecord:
    """Make a model of all its numbers in one row."""
    net = make_net()
    nn.utils.vector_to_parameters(numbers, net.parameters())
    return ArrayRecord(net.state_dict())


def as_record(**tensors: torch.Tensor) -> ArrayRecord:
    """Make an ArrayRecord of named tensors."""
    return ArrayRecord({n: Array(t.numpy()) for n, t in tensors.items()})


def top_k(update: torch.Tensor, k: int) -> ArrayRecord:
    """Keep the k numbers of an update that are largest in size."""
    positions = update.abs().topk(k).indices
    return as_record(positions=positions.int(), values=update[positions])


def eight_bits(update: torch.Tensor) -> ArrayRecord:
    """Round an update to 256 levels between its smallest and its largest number."""
    low, high = update.min(), update.max()
    levels = ((update - low) / (high - low) * 255).round()
    return as_record(levels=levels.byte(), ends=torch.stack([low, high]))


def restore(packed: ArrayRecord, length: int) -> torch.Tensor:
    """Unpack an update of either kind."""
    parts = {name: torch.tensor(a.numpy()) for name, a in packed.items()}
    if "levels" in parts:
        low, high = parts["ends"]
        return low + parts["levels"] / 255 * (high - low)
    update = torch.zeros(length)
    update[parts["positions"].long()] = parts["values"]
    return update


def compress(message: Message, context: Context, call_next: Callable) -> Message:
    """Send a packed update in place of the model."""
    reply = call_next(message, context)
    method, state = context.run_config["method"], context.state
    update = flat(reply.content["arrays"]) - flat(message.content["arrays"])
    if method == "top-k, feedback" and "rest" in state:
        update = update + flat(state["rest"])
    if method == "8 bits":
        packed = eight_bits(update)
    else:
        packed = top_k(update, len(update) // 100)
    state["rest"] = as_record(rest=update - restore(packed, len(update)))
    reply.content["arrays"] = packed
    return reply


class Unpacking(FedAvg):
    """FedAvg that unpacks its clients' updates."""

    def configure_train(self, server_round, arrays, config, grid):
        """Keep the model that the updates are updates of."""
        self.sent = arrays
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        """Put the client's model in the place of each packed update."""
        replies, start = list(replies), flat(self.sent)
        for reply in replies:
            if reply.has_content():
                update = restore(reply.content["arrays"], len(start))
                reply.content["arrays"] = as_model(start + update)
        return super().aggregate_train(server_round, replies)


packing_app = ClientApp(mods=[compress])
packing_app.train()(train)


def compressed(seed: int, *, method: str) -> dict[str, list[float]]:
    """Run one method of compression, and count the bytes of the replies."""
    if method == "none":
        run = run_with(FedAvg(), client_app, seed)
    else:
        strategy = Unpacking()
        run = run_with(strategy, packing_app, seed, method=method)
    replies = [m.bytes for m in run.messages if m.is_reply]
    sent = [sum(replies[: NUM_CLIENTS * i]) / 1e6 for i in range(ROUNDS + 1)]
    return {"accuracy": by_round(run), "megabytes": sent}


# ------------------------------------------------------------------ without rounds

SECONDS = [1] * 10 + [4]
END = 12

Models = dict[int, ArrayRecord]


def order(grid: Grid, client: int, arrays: ArrayRecord) -> str:
    """Ask one client to train, and return the id of the message."""
    content = {"arrays": arrays, "config": ConfigRecord({"lr": LR})}
    node_id = list(grid.get_node_ids())[client]
    message = Message(RecordDict(content), node_id, "train")
    (message_id,) = grid.push_messages([message])
    return message_id


def in_rounds(grid: Grid, arrays: ArrayRecord, deadline: int) -> Models:
    """Train in rounds that end at a deadline, and return the model of each second."""
    clients = [i for i, s in enumerate(SECONDS) if s <= deadline]
    length = max(SECONDS[i] for i in clients)
    models = {0: arrays}
    for now in range(length, END + 1, length):
        orders = [order(grid, client, arrays) for client in clients]
        arrays, _ = FedAvg().aggregate_train(1, grid.pull_messages(orders))
        models[now] = arrays
    return models


def mix(old: ArrayRecord, new: ArrayRecord, share: float) -> ArrayRecord:
    """Move a model a part of the way to another."""
    old, new = old.to_torch_state_dict(), new.to_torch_state_dict()
    return ArrayRecord({n: old[n] + share * (new[n] - old[n]) for n in old})


def without_rounds(grid: Grid, arrays: ArrayRecord, log: dict) -> Models:
    """Train without rounds, and return the last model of each second."""
    models, version, waiting = {0: arrays}, 0, []
    for client, seconds in enumerate(SECONDS):
        sent = order(grid, client, arrays)
        heapq.heappush(waiting, (seconds, client, sent, version))
    while waiting[0][0] <= END:
        now, client, sent, began = heapq.heappop(waiting)
        (reply,) = grid.pull_messages([sent])
        log[client] = stale = version - began
        new = reply.content["arrays"]
        arrays = mix(arrays, new, 0.6 / (1 + stale) ** 0.5)
        version += 1
        models[now] = arrays
        sent = order(grid, client, arrays)
        later = now + SECONDS[client]
        heapq.heappush(waiting, (later, client, sent, version))
    return models


def slow_one(net: nn.Module, seed: int, skewed: bool) -> float:
    """Return a model's accuracy on the slow client's own test data."""
    split = {"scheme": "iid"}
    if skewed:
        split = {"scheme": "dirichlet", "alpha": 0.3, "seed": seed}
    _, own = load_partition(10, NUM_CLIENTS, batch_size=50, **split)
    return model.test(net, own)[1]


def against_the_clock(seed: int, *, way: str, skewed: bool) -> dict:
    """Run twelve seconds, and test on all images and on the slow client's."""
    config = {"skewed": skewed, "seed": seed}
    grid = InProcessGrid(client_app, NUM_CLIENTS, run_config=config, seed=seed)
    first, log = ArrayRecord(make_net().state_dict()), {0: 0, 10: 0}
    if way == "asynchronous":
        models = without_rounds(grid, first, log)
    else:
        deadline = {"wait for all": 4, "deadline": 1}[way]
        models = in_rounds(grid, first, deadline)
    at = {now: evaluate(0, models[now])["accuracy"] for now in models}
    seen = [max(t for t in at if t <= now) for now in range(END + 1)]
    slow = slow_one(load_net(models[END]), seed, skewed)
    return {
        "accuracy": [at[now] for now in seen],
        "slow": slow,
        "messages": len(grid.messages),
        "stale": {0: log[0], 10: log[10]},
    }


# ----------------------------------------------------------------- what is measured


ATTACKS = [("none", 0), ("sign", 2), ("sign", 4)]
OTHERS = [("labels", 4), ("scale", 2), ("backdoor", 2), ("quiet", 2), ("quiet", 4)]
METHODS = ["none", "8 bits", "top-k", "top-k, feedback"]

LIARS = [
    {"strategy": name, "attack": attack, "liars": liars, "skewed": False}
    for attack, liars in ATTACKS
    for name in ["FedAvg", *RULES]
]
LIES = [
    {"strategy": name, "attack": attack, "liars": liars, "skewed": False}
    for attack, liars in OTHERS
    for name in ("FedAvg", "MultiKrum")
]
SKEWED = [
    {"strategy": name, "attack": "none", "liars": 0, "skewed": True}
    for name in ["FedAvg", *RULES, "plain mean"]
]
CLIPPED = [
    {"strategy": "Clipping", "attack": attack, "liars": liars, "skewed": False}
    for attack, liars in [*ATTACKS, ("scale", 2), ("backdoor", 2), ("quiet", 4)]
]
BOTH = [
    {"strategy": name, "attack": attack, "liars": 2, "skewed": True}
    for attack in ("sign", "quiet")
    for name in ["FedAvg", *RULES]
]
TUNED = [{"strategy": name, "eta": 1.0} for name in ("FedAvg", "FedAvgM")] + [
    {"strategy": name, "eta": eta}
    for name in ("FedAdam", "FedYogi")
    for eta in (0.003, 0.01, 0.03, 0.1)
]
CLOCK = [
    {"way": way, "skewed": skewed}
    for way in ("wait for all", "deadline", "asynchronous")
    for skewed in (False, True)
]

EXPERIMENTS: dict[str, Experiment] = {
    "optimisers": Experiment(optimised, TUNED, tolerance=0.03),
    "compression": Experiment(compressed, [{"method": name} for name in METHODS]),
    "liars": Experiment(lied_to, LIARS, tolerance=0.04),
    "attacks": Experiment(lied_to, LIES, tolerance=0.04),
    "skewed": Experiment(lied_to, SKEWED, tolerance=0.04),
    "both": Experiment(lied_to, BOTH, tolerance=0.04),
    "clipping": Experiment(lied_to, CLIPPED, tolerance=0.04),
    "clock": Experiment(against_the_clock, CLOCK, tolerance=0.04),
}
