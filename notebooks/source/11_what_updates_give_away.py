# %% [markdown] tags=["slide"]
# # 11 · What an update gives away
#
# **No example leaves a client. What can the server read all the same?**
#
# After this lesson you can
#
# - take a client's input out of a dense layer's gradient, by a division,
# - read labels out of a bias, and sizes out of lengths,
# - search for the pictures behind an update, and say where that stops to work, and why,
# - ask whether an image was among a client's, and read a ROC curve and an AUC,
# - say who sees what, and what "private" would have to mean.
#
# **You need:** lessons 00 to 05; 08 for the seeds. **Time:** 95 minutes, 29 of them for
# the exercises.

# %% [markdown] tags=["slide"]
# ## The curious server
#
# The server of this lesson is **honest but curious**. It does what the protocol asks for.
# And it reads all that comes in. It changes no message, and it asks for nothing more.
#
# It is *our* server, with *our* clients, in this notebook's own process. Nothing here
# attacks anybody else.

# %% [markdown]
# Two models take part: the course's `Net`, and a dense network. (`"smooth"` is used once,
# later on.)

# %%
import math

import torch
from torch import nn

from course_utils.model import Net
from course_utils.partitions import image_shape

NUM_CLIENTS, LR = 10, 0.01


def make_net(kind: str) -> nn.Module:
    if kind != "dense":
        net = Net(image_shape())
        if kind == "smooth":
            net.body[1] = net.body[3] = nn.ELU()
        return net
    inputs = math.prod(image_shape())
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, 10)
    )


# %% [markdown]
# A client trains on some examples of its own. How many, and with which labels, the run
# config says, so that we can vary it:

# %%
from torch.utils.data import TensorDataset

from course_utils.partitions import load_partition, make_loader


def own_data(client: int, config: dict) -> TensorDataset:
    split = {"scheme": config["scheme"], "alpha": 0.3, "seed": config["seed"]}
    loader, _ = load_partition(client, NUM_CLIENTS, **split)
    images, labels = loader.dataset.tensors
    torch.manual_seed(config["seed"])
    order = torch.randperm(len(labels)).tolist()
    if config["labels"] == "alike":
        order = [i for i in order if labels[i] == labels[order[0]]]
    if config["labels"] == "different":
        order = list({labels[i].item(): i for i in order}.values())
    chosen = order[: config["examples"]]
    return TensorDataset(images[chosen], labels[chosen])


# %% [markdown]
# The `train` function is that of lesson 03. It sends back weights. A client may round what
# it sends. With 32 bits, as usual, it does not:

# %%
State = dict[str, torch.Tensor]


def fewer_bits(old: State, new: State, bits: int) -> State:
    if bits == 16:
        return {name: value.half() for name, value in new.items()}
    updates = {name: new[name] - old[name] for name in old}
    if bits == 8:
        steps = {name: u.abs().max() / 127 for name, u in updates.items()}
        return {
            n: old[n] + (u / steps[n]).round() * steps[n]
            for n, u in updates.items()
        }
    if bits == 1:
        return {
            n: old[n] + u.sign() * u.abs().mean() for n, u in updates.items()
        }
    return new


# %%
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from course_utils import model

client_app = ClientApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    config, net = context.run_config, make_net(context.run_config["net"])
    old = message.content["arrays"].to_torch_state_dict()
    net.load_state_dict(old)
    data = own_data(context.node_config["partition-id"], config)
    size = config["batch-size"] or len(data)
    loader = make_loader(data, batch_size=size, shuffle=True)
    model.train(net, loader, epochs=config["local-epochs"], lr=LR)
    sent = fewer_bits(old, net.state_dict(), config["bits"])
    content = {
        "arrays": ArrayRecord(sent),
        "metrics": MetricRecord({"num-examples": len(data)}),
    }
    return Message(RecordDict(content), reply_to=message)


# %% [markdown]
# The server asks one client. It gets a RecordDict, and that is all it gets:

# %%
from course_utils.runtime import InProcessGrid

DEFAULTS = {
    "net": "Net",
    "scheme": "iid",
    "examples": 1,
    "labels": "any",
    "batch-size": 0,  # all examples in one
    "local-epochs": 1,
    "bits": 32,
    "pretrained": False,
}


def ask(net: nn.Module, client: int, config: dict) -> RecordDict:
    grid = InProcessGrid(client_app, NUM_CLIENTS, run_config=config, seed=0)
    node = list(grid.get_node_ids())[client]
    content = RecordDict({"arrays": ArrayRecord(net.state_dict())})
    (reply,) = grid.send_and_receive([Message(content, node, "train")])
    return reply.content


# %% [markdown] tags=["slide"]
# **Predict:** a client trains on one image, for one step. What stands in its reply, for
# anybody to read?

# %% tags=["slide-then"]
torch.manual_seed(0)
dense = make_net("dense")
config = {**DEFAULTS, "net": "dense", "seed": 0}
reply = ask(dense, 0, config)
print("metrics:", dict(reply["metrics"]))
for name, array in reply["arrays"].items():
    print("arrays: ", name, array.shape)
assert dict(reply["metrics"]) == {"num-examples": 1}

# %% [markdown]
# How many examples a client has, it says itself. FedAvg needs that for its weights. The
# rest looks harmless: weights, not even gradients. But the server knows the weights that it
# sent, and the learning rate. In one step of SGD, `new = old - lr * gradient`. So
#
# `gradient = (old - new) / lr`.

# %%
def update_of(net: nn.Module, reply: RecordDict) -> State:
    old, new = net.state_dict(), reply["arrays"].to_torch_state_dict()
    return {name: (old[name] - new[name]) / LR for name in old}


# %% [markdown]
# Is it the gradient? Here we look into the client, to judge the server. The server itself
# cannot:

# %%
from torch.nn.functional import cross_entropy

images, labels = own_data(0, config).tensors
weights = list(dense.parameters())
gradient = torch.autograd.grad(cross_entropy(dense(images), labels), weights)
pairs = zip(update_of(dense, reply).values(), gradient, strict=True)
gap = max((u - g).abs().max().item() for u, g in pairs)
print("largest difference below 0.0001:", gap < 1e-4)
assert gap < 1e-4

# %% [markdown]
# It is, up to rounding. (`model.train` uses momentum. Its first step is a plain one.)
#
# All attacks of this lesson begin this way. `spy` does it for one client. It also returns
# the client's examples. They are there to judge a guess, never to make one.
#
# Most start models are new ones. A `"pretrained"` one, another client has trained for three
# epochs.

# %%
def start_net(seed: int, config: dict) -> nn.Module:
    torch.manual_seed(seed)
    net = make_net(config["net"])
    if config["pretrained"]:
        loader, _ = load_partition((seed + 1) % NUM_CLIENTS, NUM_CLIENTS)
        model.train(net, loader, epochs=3)
    return net


def spy(seed: int, **config) -> tuple[nn.Module, State, TensorDataset]:
    config = {**DEFAULTS, **config, "seed": seed}
    client = seed % NUM_CLIENTS
    net = start_net(seed, config)
    update = update_of(net, ask(net, client, config))
    return net, update, own_data(client, config)


# %% [markdown] tags=["slide"]
# ## One image, by a division
#
# A dense layer computes $z_i = \sum_j W_{ij} x_j + b_i$. So, by the chain rule,
#
# $$\frac{\partial L}{\partial W_{ij}} = \frac{\partial L}{\partial z_i}\, x_j
# \qquad \frac{\partial L}{\partial b_i} = \frac{\partial L}{\partial z_i}$$
#
# **Predict:** for one neuron, the gradient of its weights is `[2, 4, 6]`, that of its bias
# is `2`. What was the input?

# %% tags=["slide-then"]
x = torch.tensor([1.0, 2.0, 3.0])
layer = nn.Linear(3, 2)
(2 * layer(x)[0]).backward()  # a loss that looks at neuron 0 only
print("weights:", layer.weight.grad[0].tolist())
print("bias:   ", layer.bias.grad[0].item())
quotient = layer.weight.grad[0] / layer.bias.grad[0]
print("divided:", quotient.tolist())
assert torch.equal(quotient, x)

# %% [markdown]
# Weight gradient divided by bias gradient is the input. Each neuron says the same, if its
# bias has a gradient at all. Where the ReLU behind a neuron is 0, it has none, and nor have
# its weights.
#
# (That a dense layer gives its input away is shown, for instance, by Geiping et al., 2020,
# [arXiv:2003.14053](https://arxiv.org/abs/2003.14053).)


# %%
def divide(update: State) -> torch.Tensor:
    weight, bias = update["1.weight"], update["1.bias"]
    seen = bias != 0
    return weight[seen] / bias[seen, None]


# %% [markdown] tags=["slide"]
# **Predict:** the server has one update of a dense network, after one step on one image.
# How near does it come?

# %% tags=["slide-then", "slide-output"]
from course_utils.plots import plot_pictures

net, update, data = spy(0, net="dense")
images, labels = data.tensors
found = divide(update)
plot_pictures(
    {
        "the client's": images,
        "divided": found[:1].reshape(images.shape),
    }
)
off = (found - images.flatten(1)).abs().max().item()
print(len(found), "of 32 neurons have a gradient")
print("they differ from the image by less than 0.001:", off < 1e-3)
assert off < 1e-3

# %% [markdown]
# To three decimals, by one division. No search, no luck.

# %% [markdown]
# ### Exercise 11.1: the input of a dense layer
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 1 of 3, recall | 6 | the shortest attack there is, and the reason for the rest of part IV |
#
# Complete `input_of`. It gets the gradients of a dense layer after **one** example:
# `weight_grad`, of shape `(neurons, inputs)`, and `bias_grad`, of shape `(neurons,)`.
# Return the input, of shape `(inputs,)`.
#
# - Take the neuron whose bias gradient is largest in size. Rounding harms it least.
# - If no neuron has a gradient, return `None`.
#
# <details><summary>Hint 1</summary>
#
# A bias gradient can be negative. `abs()` comes before `argmax()`.
# </details>
# <details><summary>Hint 2</summary>
#
# `weight_grad[i] / bias_grad[i]`.
# </details>


# %%
from course_utils.exercises import check


def input_of(
    weight_grad: torch.Tensor, bias_grad: torch.Tensor
) -> torch.Tensor | None:
    """Return a dense layer's input, by its gradients after one example."""
    ### BEGIN SOLUTION
    i = bias_grad.abs().argmax()
    if bias_grad[i] == 0:
        return None
    return weight_grad[i] / bias_grad[i]
    ### END SOLUTION


# %%
check("11.1", input_of)

# %% [markdown] tags=["solution"]
# **Why this.** All neurons with a gradient hold the same input. One is enough. **What
# people get wrong:** they take the first neuron, which may be silent, and get NaN; or the
# largest *signed* gradient, though all may be negative.

# %% [markdown] tags=["slide"]
# ### Several images
#
# With several examples, each gradient is a mean over them. The quotient of a neuron is then
# a *mixture* of those images that make the neuron active.
#
# **Predict:** how many of 2, of 8, of 32 images come out exactly?


# %%
def errors(found: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    apart = torch.cdist(found.flatten(1) / 2, images.flatten(1) / 2)
    return apart.min(dim=0).values ** 2 / images[0].numel()


def exact_share(seed: int, *, examples: int) -> dict[str, float]:
    _, update, data = spy(seed, net="dense", examples=examples)
    images = data.tensors[0]
    error = errors(divide(update), images)
    return {"exact": (error < 1e-4).float().mean().item()}


# %% [markdown]
# `errors` gives, for each image, the mean squared error of the nearest found one. Pixels
# lie between 0, black, and 1, white. "Exact" is an error below 0.0001.
#
# The share was measured for 20 seeds, by `make experiments`. `stored` reads it:

# %%
from course_utils.experiments import by_seed, held, stored


def spread(values, digits: int = 2) -> str:
    low, middle, high = (
        f"{value:.{digits}f}" for value in values.quantile([0.05, 0.5, 0.95])
    )
    return f"{middle} ({low} to {high})"


# %% tags=["slide-then", "slide-output"]
exact = by_seed(stored("11", "exact"), "examples", metric="exact")
for examples, shares in exact.items():
    print(f"{examples:2} images, exact: {spread(shares)}")
print("of 32, at least one:", held(exact[32] > 0))

# %%
assert (exact[1] == 1).all() and exact[2].median() == 1
assert exact[8].median() < 0.5 and (exact[32] > 0).sum() >= 12

# %% [markdown]
# (The median of 20 seeds. In brackets: where nine of ten lie.)
#
# A mean hides most images, and never all for sure. A neuron that is active for **one** image
# only gives that image exactly. (Here the truth says which those are. A server has to look for
# quotients that are images: within black and white, and mostly black.)
#
# A server that is *not* honest can choose weights for which there are many such neurons
# (Boenisch et al., 2021, [arXiv:2112.02918](https://arxiv.org/abs/2112.02918)), or put a module
# for that into the model (Fowl et al., 2021,
# [arXiv:2110.13057](https://arxiv.org/abs/2110.13057)).

# %% [markdown] tags=["slide"]
# ## Labels from a bias
#
# The head is a dense layer, too. With softmax and cross-entropy, the gradient of its bias
# for label $c$ is
#
# $$\frac{\partial L}{\partial b_c} = p_c - 1 \text{ for the true label,} \qquad p_c
# \text{ for all others}$$
#
# $p_c$ is the probability that the model gives. **Predict:** which sign has each?

# %% tags=["slide-then"]
net, update, data = spy(3)
print([round(value, 2) for value in update["head.bias"].tolist()])
print("label:", data.tensors[1].item())
assert update["head.bias"].argmin() == data.tensors[1].item()
assert (update["head.bias"] < 0).sum() == 1

# %% [markdown]
# A probability is above 0 and below 1. So exactly one entry is negative: that of the label.
# This holds for every model with such a head (Zhao et al., 2020,
# [arXiv:2001.02610](https://arxiv.org/abs/2001.02610)).

# %% [markdown] tags=["slide"]
# With $N$ examples, of which $n_c$ have label $c$, the mean is $\bar p_c - n_c / N$. So
#
# $$n_c = N\,(\bar p_c - \text{gradient}_c)$$
#
# $N$ stands in the reply. $\bar p_c$ the server does not know. It takes what its model says
# of images of its own:


# %%
from course_utils.partitions import load_centralized


@torch.no_grad()
def label_counts(net: nn.Module, update: State, size: int) -> torch.Tensor:
    images, _ = load_centralized()[1].dataset.tensors
    usual = net(images).softmax(dim=1).mean(dim=0)
    return size * (usual - update["head.bias"])


# %% tags=["slide-output"]
net, update, data = spy(0, examples=32, scheme="dirichlet")
guess = label_counts(net, update, 32)
true = torch.bincount(data.tensors[1], minlength=10)
print("guess:", guess.round().int().tolist())
print("true: ", true.tolist())
assert (guess - true).abs().sum() / 2 / 32 < 0.02

# %% [markdown]
# ### Exercise 11.2: labels from the bias
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 2 of 3, apply | 7 | labels may be diagnoses, and they lie open |
#
# Complete `counts_of`. It gets `bias_grad`, the gradient of the head's bias after one step
# on `num_examples` examples (a mean over them), and `usual`, the mean probability of each
# label. Return a list with the number of examples of each label.
#
# - The numbers are whole, and none is negative.
# - They add up to `num_examples`: round **down** first. Then give one more to the labels
#   that lost most by rounding, as many as are missing. No case has ties.
#
# <details><summary>Hint 1</summary>
#
# `num_examples * (usual - bias_grad)` is the guess before it is rounded. `clamp(min=0)`
# takes the negative ones away.
# </details>
# <details><summary>Hint 2</summary>
#
# `(guess - guess.floor()).topk(k).indices` are the `k` labels that lost most.
# </details>


# %%
def counts_of(
    bias_grad: torch.Tensor, usual: torch.Tensor, num_examples: int
) -> list[int]:
    """Return how many examples of each label are behind a gradient."""
    ### BEGIN SOLUTION
    guess = (num_examples * (usual - bias_grad)).clamp(min=0)
    counts = guess.floor()
    missing = num_examples - int(counts.sum())
    counts[(guess - counts).topk(max(missing, 0)).indices] += 1
    return counts.int().tolist()
    ### END SOLUTION


# %%
check("11.2", counts_of)

# %% [markdown] tags=["solution"]
# **Why this.** The gradient is the mean of "probability less 1 where the label is". **What
# people get wrong:** the sign; they forget that the gradient is a mean, and get shares; or
# they round each label by itself, and have 31 or 33 examples of 32.

# %% [markdown] tags=["slide"]
# ### After more than one step
#
# A client seldom takes one step. With momentum, each step also goes on along the earlier
# ones. Along **one** gradient $g$, the steps are $g$, $1.9\,g$, $2.71\,g$ and so on. The
# server divides by their sum:


# %%
def as_one_step(update: State, steps: int) -> State:
    speed = length = 0.0
    for _ in range(steps):
        speed = 0.9 * speed + 1
        length += speed
    return {name: value / length for name, value in update.items()}


two = as_one_step({"w": torch.tensor(2.9)}, steps=2)
assert math.isclose(two["w"], 1.0, abs_tol=1e-6)

# %% [markdown]
# But the gradient changes on the way. What is left of the labels?

# %%
from course_utils.experiments.lesson_11 import LABELS


def label_error(seed: int, *, case: str) -> dict[str, float]:
    config = {"examples": 10_000, "scheme": "dirichlet", **LABELS[case]}
    net, update, data = spy(seed, **config)
    size, labels = len(data), data.tensors[1]
    steps = config.get("local-epochs", 1)
    steps *= math.ceil(size / config.get("batch-size", size))
    counts = label_counts(net, as_one_step(update, steps), size)
    true = torch.bincount(labels, minlength=10)
    wrong, blind = (
        (guess - true).abs().sum().item() / 2 / size
        for guess in (counts, size / 10)
    )
    largest = float(counts.argmax() == true.argmax())
    return {"wrong": wrong, "blind": blind, "largest": largest}


# %% [markdown] tags=["slide"]
# `"wrong"` is the share of examples with a wrong label in the guess, and `"blind"` that of a
# guess of ten equal shares. `"largest"`: is the most frequent label right?
#
# **Predict:** after an epoch in batches of 16, is the guess still better than a blind one?

# %% tags=["slide-then", "slide-output", "nbval-ignore-output"]
import pandas as pd

from course_utils.experiments import run_table

live = run_table(label_error, [{"case": "32, one step"}], seeds=[0])
print("run here:", live[live.metric == "wrong"].value.round(3).tolist())
guessed = stored("11", "labels")
columns = {
    metric: by_seed(guessed, "case", metric=metric)
    for metric in ("wrong", "blind", "largest")
}
shown = pd.DataFrame({m: columns[m].apply(spread) for m in ("wrong", "blind")})
shown["largest right in"] = (columns["largest"] == 1).apply(held)
print(shown.loc[list(LABELS)].to_string())

# %%
wrong, blind, right = (columns[name] for name in ("wrong", "blind", "largest"))
for case in LABELS:
    half = wrong[case] < blind[case] / 2
    print(f"{case:18} wrong in less than half as many:", held(half))
one_step = wrong[["8, one step", "32, one step"]]
assert (one_step < 0.02).all(axis=None)
assert (wrong < blind).all(axis=None)
assert right.sum()[["all, 1 epoch", "all, 5 epochs"]].tolist() == [18, 15]
middle = wrong.median().round(2)
assert middle[["all, 1 epoch", "all, 5 epochs"]].tolist() == [0.4, 0.54]
assert middle["32, trained model"] == 0.43

# %% [markdown]
# - **After one step** of a new model, less than 2 of 100 labels are wrong, in all 20 seeds.
# - **After an epoch**, this guess is far off: 40 of 100 are wrong. It is still better than a blind
#   one in 20 of 20, and names the most frequent label in 18.
# - **After five epochs**, 54 of 100 are wrong, hardly less than of a blind guess. The most frequent
#   label is right in 15.
# - **With a trained model**, 43 of 100 are wrong: $\bar p_c$ depends on the client's images, and the
#   server's guess of it is bad. One image's label stays certain: its sign needs no guess.
#
# This is the simplest guess. A server could also replay an epoch on images of its own.

# %% [markdown]
# ### How much data, from a length
#
# A client could keep its `num-examples` to itself, if the strategy weighed all equally.
# **Predict:** would the server know all the same who has more, and who has less?


# %%
from scipy.stats import spearmanr


def flat(update: State) -> torch.Tensor:
    return torch.cat([value.flatten() for value in update.values()])


def sizes(seed: int, *, scheme: str) -> dict[str, float]:
    config = {"examples": 10_000, "scheme": scheme, "batch-size": 16}
    config = DEFAULTS | config
    net = start_net(seed, config)
    replies = [
        ask(net, i, config | {"seed": seed}) for i in range(NUM_CLIENTS)
    ]
    lengths = [flat(update_of(net, r)).norm().item() for r in replies]
    counts = [reply["metrics"]["num-examples"] for reply in replies]
    return {"correlation": float(spearmanr(lengths, counts).statistic)}


# %%
ranks = stored("11", "sizes").value
print("rank correlation of length and size:", spread(ranks))
print("above 0.8:", held(ranks > 0.8))
assert (ranks > 0.8).sum() >= 19

# %% [markdown]
# More examples are more steps, and more steps go further. The length alone ranks ten clients
# nearly as their sizes do. (A rank correlation of 1 would be the same order.) That is for a new
# model, one epoch, and one `lr` for all. With as many steps for each, it need not hold.

# %% [markdown]
# ### Exercise 11.3: a gradient from weights
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 2 of 3, apply | 6 | "we send weights, not gradients" is no protection |
#
# Complete `gradient_sent`. A client has taken **one** step of SGD with weight decay:
# `new = old - lr * (gradient + weight_decay * old)`. It has sent `new`, a state_dict.
# Return the gradient, by name.
#
# - A state_dict may also hold counters, such as BatchNorm's `num_batches_tracked`. They are
#   whole numbers, and have no gradient. Leave them out. Change neither dictionary.
#
# <details><summary>Hint 1</summary>
#
# Solve the line above for `gradient`. The decay is that of the *old* weights.
# </details>
# <details><summary>Hint 2</summary>
#
# `tensor.is_floating_point()` tells weights from counters.
# </details>


# %%
def gradient_sent(
    old: dict, new: dict, lr: float, weight_decay: float
) -> dict[str, torch.Tensor]:
    """Return the gradient behind weights sent back after one step."""
    ### BEGIN SOLUTION
    return {
        name: (old[name] - new[name]) / lr - weight_decay * old[name]
        for name in old
        if old[name].is_floating_point()
    }
    ### END SOLUTION


# %%
check("11.3", gradient_sent)

# %% [markdown] tags=["solution"]
# **Why this.** The server knows `old`, it sent it. (BatchNorm's running mean and variance are floats,
# too, but no weights. They are statistics of the client's images, and need no attack at all.) **What people get wrong:** `new - old`,
# which points the other way; the decay of the new weights; or they forget it.

# %% [markdown] tags=["slide"]
# ## Pictures, by a search
#
# The course's `Net` begins with a convolution. There, each weight meets hundreds of pixels,
# and a division gives no image. But one can **search** (Zhu et al., 2019,
# [arXiv:1906.08935](https://arxiv.org/abs/1906.08935)):
#
# 1. Begin with an image of noise.
# 2. Compute the update that *it* would make.
# 3. Change the image so that this update comes nearer to the client's. Again.

# %% [markdown]
# Step 2 is a client's training, written so that PyTorch can differentiate through it. (The
# `0.9` is the client's momentum.)


# %%
from torch.func import functional_call


def replay(
    net: nn.Module, images: torch.Tensor, labels: torch.Tensor, steps: int = 1
) -> list[torch.Tensor]:
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


# %% [markdown]
# Step 3 is done by L-BFGS, an optimiser that learns from its last steps how the loss curves.
# `gap` is the squared distance of both updates, as a share of the client's.


# %%
from collections.abc import Callable


def search(
    update: State,
    guess: Callable,
    shape: tuple[int, ...],
    iterations: int = 100,
) -> torch.Tensor:
    images = (0.1 * torch.randn(shape)).requires_grad_()
    seen = list(update.values())
    size = sum((u**2).sum() for u in seen)
    options = {"tolerance_grad": 0, "tolerance_change": 0}
    optimizer = torch.optim.LBFGS(
        [images], max_iter=iterations, history_size=50, **options
    )

    def gap() -> torch.Tensor:
        pairs = zip(guess(images), seen, strict=True)
        total = sum(((g - u) ** 2).sum() for g, u in pairs) / size
        (images.grad,) = torch.autograd.grad(total, images)
        return total

    optimizer.step(gap)
    return images.detach().nan_to_num().clamp(-1, 1)


# %% [markdown]
# What is varied has a name: a case. The labels are taken as known. For one image, and after one
# step of a new model, the server reads them from the bias. For the other cases, that makes the
# attacker stronger than the guess above. The batch size, the momentum and the number of steps are
# known, too: the server has set them.

# %%
from course_utils.data import DEFAULT_DATASET, dataset_name
from course_utils.experiments.lesson_11 import CASES

print(CASES["8 in batches of 2"], CASES["5 steps, replayed"])


def match(seed: int, case: str) -> tuple[torch.Tensor, torch.Tensor]:
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

    return search(update, guess, images.shape), images


# %% [markdown] tags=["slide"]
# **Predict:** one image, one step. Will you recognise it? (One second.)

# %% tags=["slide-then", "slide-output"]
def beside(found: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Put below each image the found one that is nearest."""
    return found[torch.cdist(images.flatten(1), found.flatten(1)).argmin(1)]


found, images = match(0, "1 image")
plot_pictures({"the client's": images, "found": found})
if dataset_name() == DEFAULT_DATASET:
    assert errors(found, images).max() < 0.01

# %% [markdown]
# How good is that? Two measures:
#
# - The **error**, as above. A picture of the mean of all digits has about 0.07.
# - **Recognised:** of all 4,000 training images in the federation, is the client's the
#   nearest to a found one? Then the server would pick the right one from a list. By chance,
#   that happens once in 4,000 times.


# %%
def recognised(found: torch.Tensor, images: torch.Tensor) -> float:
    pool = load_centralized()[0].dataset.tensors[0].flatten(1)
    nearest = pool[torch.cdist(found.flatten(1), pool).argmin(dim=1)]
    same = (images.flatten(1)[:, None] == nearest).all(dim=2)
    return same.any(dim=1).float().mean().item()


def pictures(seed: int, *, case: str) -> dict[str, float]:
    found, images = match(seed, case)
    error = errors(found, images).mean().item()
    return {"error": error, "recognised": recognised(found, images)}


# %% [markdown] tags=["slide"]
# **Predict:** now the gradient is the mean of several images. Which is harder: four images
# of four labels, or two images of one label? (Two searches, two seconds.)

# %%
found, images = match(1, "4, different labels")
plot_pictures({"the client's": images, "found": beside(found, images)})

# %% tags=["slide-then", "slide-output"]
found, images = match(1, "2 of one label")
plot_pictures({"the client's": images, "found": beside(found, images)})

# %% tags=["slide", "slide-output"]
from course_utils.plots import plot_ranges

searched = stored("11", "pictures")
FIRST = [c for c in CASES if "image" in c or "label" in c]
plot_ranges(
    searched.set_index("case").loc[FIRST].reset_index(),
    by="case",
    round=0,
    metric="error",
    xlabel="error (mean squared)",
    logx=True,
)

# %%
error, seen = (
    by_seed(searched, "case", metric=metric)
    for metric in ("error", "recognised")
)
for case in FIRST:
    print(f"{case:20} recognised: {seen[case].mean():.0%}", end=", ")
    print("error", spread(error[case], 4))
apart = error["2 of one label"] > error["4, different labels"] + 0.01
print("2 of one label worse than 4 of different ones:", held(apart))

# %%
assert (error["1 image"] < 0.01).all() and (seen["1 image"] == 1).all()
assert (error["1 image, ELU"] < error["1 image"]).sum() == 19
assert (seen["8, different labels"] == 1).all() and apart.sum() >= 19
assert (error["32 images"] > 0.07).all()
mean = seen.mean().round(2)
assert mean[["2 of one label", "4 of one label"]].tolist() == [0.72, 0.39]
assert 0.35 < mean["32 images"] < 0.45

# %% [markdown]
# - **One image** is recognised in 20 of 20 seeds.
# - **Labels keep images apart.** Each label has its own row in the head's gradient. So even eight
#   images of eight labels are all recognised. Two of *one* label share a row, and come out
#   laid over each other.
# - **32 images** are about three in each row. The error is twice that of the mean digit. Yet two of
#   five are recognised.
# - **Is it the ReLU?** It has a corner, where a search by curvature can get stuck. With ELU, which
#   has none, the error is smaller in 19 of 20. But without ELU
#   the picture is good enough. ReLU hides nothing.

# %% [markdown] tags=["slide"]
# ### More steps
#
# **Predict:** the client takes five steps on its image. The server divides by what five
# steps along one gradient come to, and searches as before. Or it **replays** all five in
# its search. What does it see? (Two searches, two seconds.)

# %% tags=["slide-then", "slide-output"]
rows = {}
for case in ("5 steps", "5 steps, replayed"):
    found, images = match(0, case)
    rows = {"the client's": images} | rows | {case: found}
plot_pictures(rows)

# %%
for case in ("1 image", "5 steps", "5 steps, replayed", "10 steps"):
    print(f"{case:18} recognised: {seen[case].mean():.0%}", end=", ")
    print("error", spread(error[case], 4))
closer = error["5 steps, replayed"] < error["5 steps"] / 2
print("replayed, half the error or less:", held(closer))
assert (error["5 steps"] > error["1 image"] + 0.01).all()
assert (error["10 steps"] > error["5 steps"] + 0.01).sum() >= 19
assert (seen[["5 steps", "10 steps"]] == 1).all(axis=None)
worse = error["5 steps, replayed"] > 2 * error["5 steps"]
assert (closer.sum(), worse.sum()) == (17, 2)

# %% [markdown]
# - **More steps blur** the simple search, and more so with ten. The steps after the first
#   have other gradients. Yet the image is recognised in 20 of 20, also where the error is that of
#   the mean digit. The error minds shades of grey, and the shape is there.
# - **Replaying** at least halves the error in 17 of 20 seeds. In the other three the search got
#   stuck, in two of them far worse than the simple one, and one image is lost. An attacker sees
#   that: the gap stays large. It starts again from other noise. So several steps are work for
#   the attacker, and no protection.
# - With many images in shuffled batches, the server does not know which image came when. It has
#   to search for that, too. That has been done (Dimitrov et al., 2022,
#   [arXiv:2206.12395](https://arxiv.org/abs/2206.12395)), not here.

# %% [markdown] tags=["slide"]
# ## What small changes do
#
# Does it help to send less exactly, or to train a model first? `fewer_bits` rounds what a client
# sends: 16 bits for each weight, or 8 for each number of the update, or 1, its sign. **Predict:**
# which of these changes stops the search for one image?

# %% tags=["slide-then", "slide-output"]
CHANGES = ["1 image", "16-bit weights", "8-bit update", "1-bit update"]
CHANGES += ["trained model", "5 steps", "10 steps"]
CHANGES += ["8 in batches of 2", "32 images"]
table = pd.DataFrame(
    {
        "error": error[CHANGES].apply(spread, digits=4),
        "recognised": seen[CHANGES].mean().map("{:.0%}".format),
    }
)
print(table.to_string())

# %%
rounded = error[["16-bit weights", "8-bit update"]]
assert (rounded < 0.01).all(axis=None)
assert (seen[["trained model", "16-bit weights", "8-bit update"]] == 1).all(
    axis=None
)
assert (error["trained model"] > error["1 image"]).all()
assert (seen["1-bit update"] == 1).sum() == 12
blurred = error["8 in batches of 2"] > error["8, different labels"] + 0.01
assert blurred.sum() >= 19 and seen["8 in batches of 2"].mean() > 0.9

# %% [markdown]
# - **16 or 8 bits** change next to nothing. One bit makes a bad picture, and even so the image is
#   recognised in 12 of 20.
# - **A trained model** makes the picture worse, in 20 of 20 seeds. It is recognised in all.
# - **An epoch in batches** blurs eight images. 97 of 100 are still recognised.
# - **More images in one step** help, above all if they share a label. Two of five are
#   recognised all the same.
#
# None of them is *safe*. Each was tried against one search of a hundred steps. A patient
# attacker starts again, searches longer, and knows what digits look like.

# %% [markdown] tags=["slide"]
# ## Was this image among them?
#
# A search wants the picture itself. A smaller question: the attacker *has* an image, and asks
# whether a client trained on it. That is **membership inference** (Shokri et al., 2016,
# [arXiv:1610.05820](https://arxiv.org/abs/1610.05820)). "This patient was in the study of that
# clinic" can be the secret.
#
# The simplest attack: what a model was trained on, it gets right with a low loss (Yeom et
# al., 2017, [arXiv:1709.01604](https://arxiv.org/abs/1709.01604)).


# %%
@torch.no_grad()
def losses(net: nn.Module, data: TensorDataset) -> torch.Tensor:
    images, labels = data.tensors
    return cross_entropy(net(images), labels, reduction="none")


def inside_and_outside(
    seed: int, *, examples: int, epochs: int, clients: int
) -> tuple[torch.Tensor, torch.Tensor]:
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


# %% [markdown]
# `clients` says whose model is looked at: that of 1, the client itself; the average of 10,
# with it among them; with 0, the model of another client. That one is a control: it cannot
# know the members.
#
# (The dense network trains fastest.) A client that trains long on little: 50 examples, 30 epochs. The server has its model. The
# others are test images.

# %%
inside, outside = inside_and_outside(0, examples=50, epochs=30, clients=1)
print(f"median loss of members: {inside.median():.2f}")
print(f"median loss of others:  {outside.median():.2f}")
assert inside.median() < outside.median()

# %% [markdown] tags=["slide"]
# Say "member" below some loss. A low threshold finds few members, and accuses few others. A
# high one finds all, and accuses many. The **ROC curve** shows all thresholds.
#
# The **AUC** is the area below it. **Predict:** take one member and one of the others at
# random. How often has the member the lower loss? And what is that to do with an area?

# %% tags=["slide-then"]
from sklearn.metrics import roc_auc_score, roc_curve

member, other = inside[:, None], outside[None, :]
wins = (member < other) + 0.5 * (member == other)  # a tie counts half
pairs = wins.mean().item()
is_member = [1] * len(inside) + [0] * len(outside)
auc = roc_auc_score(is_member, -torch.cat([inside, outside]))
print("by pairs and by scikit-learn the same:", abs(pairs - auc) < 1e-3)
print(f"AUC: {auc:.2f}")
assert math.isclose(pairs, auc, abs_tol=1e-3)

# %% [markdown]
# Both are the same number. 0.5 is chance, 1 a perfect order.

# %%
from course_utils.experiments.lesson_11 import WHO

for name, setting in WHO.items():
    print(f"{name:21} {setting}")

# %% tags=["slide", "slide-output"]
from course_utils.plots import plot_roc


def roc_of(setting: dict) -> tuple:
    inside, outside = inside_and_outside(0, **setting)
    is_member = [1] * len(inside) + [0] * len(outside)
    return roc_curve(is_member, -torch.cat([inside, outside]))[:2]


SHOWN = ("50 images, 30 epochs", "300 images, 10 epochs", "average of ten")
plot_roc({name: roc_of(WHO[name]) for name in SHOWN})

# %% [markdown]
# The average over all thresholds hides what matters most: can an attacker be *sure* of a few?
# So one also asks how many members are found while at most 1 of 100 others is accused
# (Carlini et al., 2021, [arXiv:2112.03570](https://arxiv.org/abs/2112.03570)). A random
# guess finds 1 of 100.


# %%
def membership(seed: int, *, who: str) -> dict[str, float]:
    inside, outside = inside_and_outside(seed, **WHO[who])
    is_member = [1] * len(inside) + [0] * len(outside)
    scores = -torch.cat([inside, outside])
    false, true, _ = roc_curve(is_member, scores)
    caught = true[false <= 0.01].max()
    return {"AUC": roc_auc_score(is_member, scores), "caught": caught}


# %% [markdown] tags=["slide"]
# **Predict:** which of them has the highest AUC? For which is it about 0.5?

# %% tags=["slide-then", "slide-output"]
tried = stored("11", "membership")
area, caught = (by_seed(tried, "who", metric=m) for m in ("AUC", "caught"))
columns = {"AUC": area.apply(spread), "caught": caught.apply(spread)}
print(pd.DataFrame(columns).loc[list(WHO)].to_string())

# %%
long, ten = area["50 images, 30 epochs"], area["average of ten"]
once, stranger = area["300 images, 1 epoch"], area["another client"]
print("50, 30 epochs: AUC above 0.8 in", held(long > 0.8))
print("the average of ten at least 0.2 lower in", held(long > ten + 0.2))
new = area["another, 300, 1 epoch"]
print("300, 1 epoch: above its control in", held(once > new))
print("average of ten: above its control in", held(ten > stranger))
surely = caught["20 images, 100 epochs"] > 0.05
print("20 images: more than 5 of 100 caught in", held(surely))
assert (long > 0.8).all() and (long > ten + 0.2).all()
assert (ten > stranger).sum() == 19 and (once > new).sum() >= 19
middles = area.median().round(2)
assert middles["20 images, 100 epochs"] == 0.97
for name in ("average of ten", "300 images, 1 epoch"):
    assert middles[name] == 0.54
assert middles["another client"] == 0.49
few = 20 * caught["20 images, 100 epochs"]
assert few.quantile([0, 0.5, 1]).round(2).tolist() == [0, 3, 14]

# %% [markdown]
# - **A client that trains long on little** shows its members: the AUC is above 0.8 in 20 of 20
#   seeds. With 20 images it is 0.97.
# - **In the average of ten clients** it is 0.54. For a model that cannot know the members, the
#   control, it is 0.49, and below it in 19 of 20 seeds.
# - **What 0.55 means:** of 100 pairs, the attacker orders 55 rightly, where a coin orders 50. For
#   one epoch on 300 images it is 0.54. That is little, and it is real: compare it with its
#   control.
# - **An AUC says nothing about the surest few.** With 20 images, 3 members are found at a price
#   of 1 of 100 others (the median). In some seeds none are, in one 14.
#
# This attack is the simplest. Stronger ones train models of their own to learn how a
# member's loss looks (Carlini et al.). So a low AUC here is no proof.

# %% [markdown]
# ### Exercise 11.4: how well does a loss tell?
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 3 of 3, build | 10 | papers on attacks report these two numbers |
#
# Complete `attack_by_loss`. It gets the losses of members, those of others, and `allowed`,
# the share of others that may be accused. Return two numbers:
#
# - the AUC: the share of all pairs in which the member has the lower loss. Where both are the
#   same, a pair counts half.
# - the largest share of members that one threshold finds, while at most `allowed` of the
#   others are accused. A threshold `t` accuses every loss that is at most `t`. If every
#   threshold accuses too many, or finds nobody, it is 0.
#
# <details><summary>Hint 1</summary>
#
# Two loops, over members and over others, are all that the AUC needs.
# </details>
# <details><summary>Hint 2</summary>
#
# As thresholds, try every loss that occurs.
# </details>


# %%
def attack_by_loss(
    members: list[float], others: list[float], allowed: float
) -> tuple[float, float]:
    """Return the AUC, and the share of members found at a price."""
    ### BEGIN SOLUTION
    wins = sum((m < o) + 0.5 * (m == o) for m in members for o in others)
    found = 0.0
    for t in members:
        accused = sum(o <= t for o in others) / len(others)
        if accused <= allowed:
            found = max(found, sum(m <= t for m in members) / len(members))
    return wins / (len(members) * len(others)), found
    ### END SOLUTION


# %%
check("11.4", attack_by_loss)

# %% [markdown] tags=["solution"]
# **Why this.** The AUC is a count of pairs, and no area has to be computed. Only members'
# losses need be tried: between two of them, a threshold accuses more and finds no more.
# **What people get wrong:** the direction (members have the *lower* loss); ties; a count in
# place of a share.

# %% [markdown] tags=["slide"]
# ## Who is the adversary?
#
# This lesson's server was the adversary. Others see less, or more:
#
# | who | what it sees | what of this lesson it can do |
# |---|---|---|
# | the server | each client's weights, round by round | all |
# | a client | the average of all, round by round | all of it on the *sum of the others*: it can take off its own part. The more they are, and the more examples they have, the less it finds |
# | who listens on the line | without TLS what the server sees; with TLS that there are messages, and how large | all; next to nothing |
# | who gets the final model | the last average | membership in it |
# | who may start a run | what its app reads: the ClientApp is sent to the clients | no attack needed: code can read the data itself |

# %% [markdown]
# TLS (lesson 07) helps against the listener. The server *is* the other end of the line. Against
# it, two things help:
#
# - **Secure aggregation** (lesson 13): the server gets the sum and no part of it. What the sum
#   gives away, it still gives away.
# - **Differential privacy** (lesson 12): noise, measured, so that *any* attack on one client
#   or one example has a limit, also those that nobody has thought of yet.
#
# [What was promised to whom](promises.md) has this as a table to show to others.

# %% [markdown] tags=["slide"]
# ## Takeaways
#
# - **A dense layer's input** is the quotient of two gradients. Weights sent back after one step
#   *are* a gradient.
# - **Labels** can be counted in the head's bias, and **sizes** stand in the reply, or in the
#   length of the update.
# - **A search** finds pictures, if the server knows what the client did. Images of one label
#   blur each other. More steps stop the simple search, not the one that replays them.
# - **Membership** shows where clients train long on little. An AUC says how well on average. Ask
#   also how many can be named at a small price.
# - **Name the adversary** before you say "private". An attack that fails proves nothing about
#   the next one.

# %% [markdown]
# ## Check yourself
#
# <details><summary>1. A client sends weights, and no gradients. Is that safer?</summary>
#
# After one step, no: the server sent the old weights, and knows the learning rate. After many,
# the server has to guess or replay what happened in between.
# </details>
#
# <details><summary>2. A hospital has one patient a day, and takes part each day with one
# step. What would you tell its data protection officer?</summary>
#
# That this patient's data may be read out of the update. Wait until there are many, add noise
# (lesson 12), and let the server see only a sum (lesson 13).
# </details>
#
# <details><summary>3. The gradient of the head's bias has two negative entries. How many
# labels are in the batch?</summary>
#
# At least two. A label that is rarer in the batch than the model expects has a positive entry,
# too.
# </details>
#
# <details><summary>4. An attack has an AUC of 0.55. Is that good news?</summary>
#
# For the average image, the attacker hardly does better than a coin. It says nothing about
# the few unusual images, nor about a better attack. Look at small shares of false accusations.
# </details>
#
# <details><summary>5. Clients send 8 bits for each number. Is the update private
# now?</summary>
#
# No. In this lesson's searches, that changed next to nothing. Rounding was made for the
# network, and promises nobody anything.
# </details>
#
# <details><summary>6. All traffic is under TLS. Which attacks of this lesson are
# left?</summary>
#
# All of them. The server decrypts what it gets. TLS keeps out those who listen on the way.
# </details>

# %% [markdown]
# **Next:** [12 · Differential privacy](12_differential_privacy.ipynb): noise that can be counted,
# and these attacks once more.

# %%
from course_utils.exercises import progress

progress("11")
