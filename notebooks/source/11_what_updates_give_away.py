# %% [markdown] tags=["slide"]
# # 11 · What an update gives away
#
# **No example leaves a client. What can the server read all the same?**
#
# After this lesson you can
#
# - take a client's input out of a dense layer's gradient, by a division,
# - read labels out of a bias,
# - search for the pictures behind an update, and say what blurs them,
# - ask whether an image was among a client's, and read a ROC curve and an AUC,
# - say who sees what, and what "private" would have to mean.
#
# **You need:** lessons 00 to 05; 08 for the seeds. **Time:** 95 minutes, 29 of them for
# the exercises.

# %% [markdown] tags=["slide"]
# ## The curious server
#
# The server of this lesson is **honest but curious**. It does what the protocol asks for,
# changes no message, and reads all that comes in.
#
# It is *our* server, with *our* clients, in this notebook's own process. Nothing here
# attacks anybody else.

# %% [markdown]
# A client takes one step of SGD, and sends its weights: `new = old - lr * gradient`. The
# server has sent `old`, and it has set `lr`. So it also has the gradient:
#
# `gradient = (old - new) / lr`

# %%
import math

import torch
from torch import nn

NUM_CLIENTS, LR = 10, 0.01

# %% [markdown] tags=["slide"]
# ## One image, by a division
#
# What does a gradient say? A dense layer computes $z_i = \sum_j W_{ij} x_j + b_i$. So, by
# the chain rule,
#
# $$\frac{\partial L}{\partial W_{ij}} = \frac{\partial L}{\partial z_i}\, x_j
# \qquad \frac{\partial L}{\partial b_i} = \frac{\partial L}{\partial z_i}$$
#
# **Predict:** for one neuron, the gradient of its weights is `[2, 4, 6]`, that of its
# bias is `2`. What was the input?

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
# Weight gradient divided by bias gradient is the input. Each neuron says the same, if
# its bias has a gradient at all. Where the ReLU behind a neuron is 0, neither its bias
# nor its weights have one.
#
# (That a dense layer gives its input away is shown, for instance, by Geiping et al.,
# 2020, [arXiv:2003.14053](https://arxiv.org/abs/2003.14053).)

# %% [markdown]
# ### A client to attack
#
# Two models take part: the course's `Net`, and a dense network.

# %%
from course_utils.model import Net
from course_utils.partitions import image_shape


def make_net(kind: str) -> nn.Module:
    if kind == "Net":
        return Net(image_shape())
    inputs = math.prod(image_shape())
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, 10)
    )


# %% [markdown]
# The run config says on how many examples a client trains, and which: with `"alike"` all
# have one label, with `"different"` each has another. A pixel lies between -1, black, and
# 1, white.

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
        by_label = {labels[i].item(): i for i in order}  # one of each
        order = list(by_label.values())
    chosen = order[: config["examples"]]
    return TensorDataset(images[chosen], labels[chosen])


# %% [markdown]
# The `train` function is much like that of lesson 03, with settings from the run
# config. It sends back weights:

# %%
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from course_utils import model

client_app = ClientApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
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
    "pretrained": False,
}


def ask(net: nn.Module, client: int, config: dict) -> RecordDict:
    grid = InProcessGrid(client_app, NUM_CLIENTS, run_config=config, seed=0)
    node = list(grid.get_node_ids())[client]
    content = RecordDict({"arrays": ArrayRecord(net.state_dict())})
    (reply,) = grid.send_and_receive([Message(content, node, "train")])
    return reply.content


# %%
reply = ask(make_net("dense"), 0, {**DEFAULTS, "net": "dense", "seed": 0})
print("metrics:", dict(reply["metrics"]))
for name, array in reply["arrays"].items():
    print("arrays: ", name, array.shape)

# %% [markdown]
# How many examples a client has, it says itself. FedAvg needs that for its weights.
#
# `update_of` computes `(old - new) / lr` from the weights. From here on, the code calls
# this the `update`: it is that of lesson 00 with the other sign, divided by `lr`. After
# one step, it is the gradient. (`model.train` uses momentum, but its first step is a
# plain one.) `spy` does all that for one client. It also returns the client's examples.
# They are there to judge a guess, never to make one.

# %%
State = dict[str, torch.Tensor]


def update_of(net: nn.Module, reply: RecordDict) -> State:
    old, new = net.state_dict(), reply["arrays"].to_torch_state_dict()
    return {name: (old[name] - new[name]) / LR for name in old}


def start_net(seed: int, config: dict) -> nn.Module:
    torch.manual_seed(seed)
    net = make_net(config["net"])
    if config["pretrained"]:  # by another client
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
# **Predict:** the server has one update of a dense network, after one step on one image.
# In how many of the 32 neurons can it divide?

# %% tags=["slide-then", "slide-output"]
from course_utils.plots import plot_pictures


def divide(update: State) -> torch.Tensor:
    weight, bias = update["1.weight"], update["1.bias"]
    seen = bias != 0
    return weight[seen] / bias[seen, None]


net, update, data = spy(0, net="dense")
images = data.tensors[0]
found = divide(update)
first = found[:1].reshape(images.shape)
plot_pictures({"the client's": images, "divided": first})
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
# | 1 of 3, recall | 5 | the shortest attack there is, and the reason for lessons 12 and 13 |
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
# With several examples, each gradient is a mean over them. The quotient of a neuron is
# then a *mixture* of those images that make the neuron active.
#
# **Predict:** what share of 2, of 8, of 32 images comes out exactly?


# %%
def errors(found: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    apart = torch.cdist(found.flatten(1) / 2, images.flatten(1) / 2)
    return apart.min(dim=0).values ** 2 / images[0].numel()


# %% [markdown]
# `errors` gives, for each image, the mean squared error of the nearest found one. The
# `/ 2` makes black and white 1 apart. "Exact" is an error below 0.0001.
#
# The share was measured for 20 seeds, by `make experiments`. (The appendix has what it
# ran.) `stored` reads it. We print the median, and in brackets the lowest and the
# highest:

# %%
from course_utils.experiments import by_seed, held, stored


def spread(values, digits: int = 2) -> str:
    low, middle, high = (
        f"{value:.{digits}f}" for value in values.quantile([0, 0.5, 1])
    )
    return f"{middle} ({low} to {high})"


# %% tags=["slide-then", "slide-output"]
exact = by_seed(stored("11", "exact"), "examples", metric="exact")
for examples, shares in exact.items():
    print(f"{examples:2} images, exact: {spread(shares)}")
print("of 32, at least one:", held(exact[32] > 0))

# %% jupyter={"source_hidden": true}
# What is said below, checked.
assert (exact[1] == 1).all() and exact[2].median() == 1
assert exact[8].median() < 0.5 and (exact[32] > 0).sum() == 18

# %% [markdown]
# A mean hides most images. Yet of 32, at least one came out in 18 of 20 seeds: a neuron
# that is active for **one** image only gives that image exactly. (The truth tells us
# which those are. A server has to look for quotients that look like images.)
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
# $p_c$ is the probability that the model gives. **Predict:** the server sees the ten
# entries. How does it find the label?

# %% tags=["slide-then"]
net, update, data = spy(3)
print([round(value, 2) for value in update["head.bias"].tolist()])
print("label:", data.tensors[1].item())
assert update["head.bias"].argmin() == data.tensors[1].item()
assert (update["head.bias"] < 0).sum() == 1

# %% [markdown]
# A probability is above 0 and below 1. So exactly one entry is negative: that of the
# label. This holds for every model with such a head (Zhao et al., 2020,
# [arXiv:2001.02610](https://arxiv.org/abs/2001.02610)).

# %% [markdown] tags=["slide"]
# With $N$ examples, of which $n_c$ have label $c$, the mean is $\bar p_c - n_c / N$. So
#
# $$n_c = N\,(\bar p_c - \text{gradient}_c)$$
#
# $N$ stands in the reply. $\bar p_c$ the server takes from images of its own. We assume
# that it has some, drawn as the clients' are: here the central test images.


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
# | 2 of 3, apply | 8 | labels may be diagnoses, and they lie open |
#
# Complete `counts_of`. It gets `bias_grad`, the gradient of the head's bias after one
# step on `num_examples` examples (a mean over them), and `usual`, the mean probability
# of each label. Return a list with the number of examples of each label.
#
# - The numbers are whole, and none is negative.
# - They add up to `num_examples`: cut off the fractions first. Then give one more to
#   the labels that lost most by that, as many as are missing. No case has ties, and
#   none has too many after the cut.
#
# <details><summary>Hint 1</summary>
#
# `num_examples * (usual - bias_grad)` is the guess before the cut. `clamp(min=0)`
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
    counts[(guess - counts).topk(missing).indices] += 1
    return counts.int().tolist()
    ### END SOLUTION


# %%
check("11.2", counts_of)

# %% [markdown] tags=["solution"]
# **Why this.** The gradient is the mean of "probability less 1 where the label is".
# **What people get wrong:** the sign; they forget that the gradient is a mean, and get
# shares; or they take each label's nearest whole number, and have 31 or 33 examples of
# 32.

# %% [markdown] tags=["slide"]
# ### After more than one step
#
# A client seldom takes one step. With momentum, here 0.9, each step also goes on along
# the earlier ones. Along **one** gradient $g$, the steps are $g$, $1.9\,g$, $2.71\,g$
# and so on. The server divides by their sum:


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
# But the gradient changes on the way. What is left of the labels? `LABELS` says what is
# tried:

# %%
from course_utils.experiments.lesson_11 import LABELS

for name, setting in LABELS.items():
    print(f"{name:17} {setting}")

# %% [markdown]
# Clients have unlike labels (`"dirichlet"`). The trained model has learned for three
# epochs on another client's examples. `"wrong"` is the share of labels that are wrong
# in the guess: half the sum of all differences, without their signs, divided by $N$.
# (The guess keeps its fractions here, so part of an example can be wrong.) `"blind"` is
# that of a guess of ten equal shares. `"largest"`: is the most frequent label right?

# %% [markdown] tags=["slide"]
# **Predict:** after an epoch in batches of 16, is the guess still better than a blind
# one?

# %% tags=["slide-then", "slide-output"]
import pandas as pd

guessed = stored("11", "labels")
wrong, blind, right = (
    by_seed(guessed, "case", metric=metric)
    for metric in ("wrong", "blind", "largest")
)
columns = {
    "wrong": wrong.apply(spread),
    "blind": blind.apply(spread),
    "better than blind": (wrong < blind).apply(held),
    "largest right": (right == 1).apply(held),
}
print(pd.DataFrame(columns).loc[list(LABELS)].to_string())

# %% jupyter={"source_hidden": true}
# What is said below, checked.
one_step = wrong[["8, one step", "32, one step"]]
assert (one_step < 0.02).all(axis=None)
assert (wrong < blind).all(axis=None)
assert right.sum()[["all, 1 epoch", "all, 5 epochs"]].tolist() == [18, 15]
middle = wrong.median().round(2)
assert middle[["all, 1 epoch", "all, 5 epochs"]].tolist() == [0.4, 0.54]
assert middle["32, trained model"] == 0.43

# %% [markdown]
# - **After one step** of a new model, less than 2 of 100 labels are wrong, in all 20
#   seeds.
# - **After an epoch**, 40 of 100 are wrong (the median, as below). That is still better
#   than a blind guess in 20 of 20, and the most frequent label is right in 18.
# - **After five epochs**, 54 of 100 are wrong, hardly fewer than with a blind guess
#   (55). The most frequent label is right in 15.
# - **With a trained model**, 43 of 100 are wrong: $\bar p_c$ depends on the client's
#   images, and the server's guess of it is bad. (With the client's own, the formula
#   above is exact for one step.) One image's label stays certain: its sign needs no
#   guess.
#
# This is the simplest guess. A server could also train for an epoch on images of its
# own, and compare.

# %% [markdown]
# ### Exercise 11.3: a gradient from weights
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 2 of 3, apply | 5 | "we send weights, not gradients" is no protection |
#
# Complete `gradient_sent`. A client has taken **one** step of SGD with weight decay:
# `new = old - lr * (gradient + weight_decay * old)`. It has sent `new`, a state_dict.
# Return the gradient, by name.
#
# - A state_dict may also hold counters, such as BatchNorm's `num_batches_tracked`. They
#   are whole numbers, and have no gradient. Leave them out. Change neither dictionary.
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
# **Why this.** The server knows `old`, it sent it. (BatchNorm's running mean and
# variance are floats, too, but no weights. They are statistics of the client's images,
# and need no attack at all.) **What people get wrong:** `new - old`, which points the
# other way; the decay of the new weights; or they forget it.

# %% [markdown] tags=["slide"]
# ## Pictures, by a search
#
# The course's `Net` begins with a convolution. There, each weight meets hundreds of
# pixels, and a division gives no image. But one can **search** (Zhu et al., 2019,
# [arXiv:1906.08935](https://arxiv.org/abs/1906.08935)):
#
# 1. Begin with an image of noise.
# 2. Compute the update that *it* would make.
# 3. Change the image so that this update comes nearer to the client's. Again.

# %% [markdown]
# Step 2 is a client's training, with its momentum, written so that PyTorch can
# differentiate through it. `functional_call` runs `net` with weights that are handed
# over. `create_graph=True` keeps how the gradient was made, so that it can itself be
# differentiated:


# %%
from torch.func import functional_call
from torch.nn.functional import cross_entropy


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
# Step 3 is done by L-BFGS, an optimiser that learns from its last steps how the slope
# of what it minimises changes. Here it minimises the `gap` between the two updates. It
# asks for the gap as often as it likes, so it gets a function, `distance`.


# %%
from collections.abc import Callable


def gap(made: list[torch.Tensor], update: State) -> torch.Tensor:
    """Return the squared distance, as a share of the client's update."""
    seen = list(update.values())
    size = sum((u**2).sum() for u in seen)
    pairs = zip(made, seen, strict=True)
    return sum(((m - u) ** 2).sum() for m, u in pairs) / size


# %%
def search(
    update: State,
    guess: Callable,
    shape: tuple[int, ...],
    iterations: int = 100,
) -> torch.Tensor:
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


# %% [markdown]
# `CASES` says what is tried, by name:

# %%
from course_utils.experiments.lesson_11 import CASES

for name, setting in CASES.items():
    print(f"{name:20} {setting}")

# %% [markdown]
# With one image, each epoch is one step. The search is told the labels. For one image
# after one step, the server reads the label itself. In the other cases this attacker is
# stronger than our guess of labels. Batch size, momentum and number of steps are known,
# too: the server has set them.


# %%
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
    update, guess, images = target(seed, case)
    return search(update, guess, images.shape), images


# %% [markdown] tags=["slide"]
# **Predict:** one image, one step. Will you recognise it? (One second.)

# %% tags=["slide-then", "slide-output"]
from course_utils.data import DEFAULT_DATASET, dataset_name

found, images = match(0, "1 image")
plot_pictures({"the client's": images, "found": found})
if dataset_name() == DEFAULT_DATASET:
    assert errors(found, images).max() < 0.01

# %% [markdown]
# How good is that? One measure is the **error**, as above. The other:
#
# - **Recognised:** for each found image, look which of all 4,000 training images in the
#   federation is nearest to it. Is it one of the client's? Then the server would pick
#   the right one from a list. For one found image and one of the client's, that happens
#   by chance once in 4,000 times.


# %%
def recognised(found: torch.Tensor, images: torch.Tensor) -> float:
    pool = load_centralized()[0].dataset.tensors[0].flatten(1)
    nearest = pool[torch.cdist(found.flatten(1), pool).argmin(dim=1)]
    same = (images.flatten(1)[:, None] == nearest).all(dim=2)
    return same.any(dim=1).float().mean().item()


# %% [markdown]
# An attacker who has seen no update could show the mean of all digits. Its error:

# %%
everybody = load_centralized()[0].dataset.tensors[0]
blank = errors(everybody.mean(dim=0, keepdim=True), everybody).mean().item()
print(f"{blank:.3f}")
if dataset_name() == DEFAULT_DATASET:
    assert round(blank, 3) == 0.067

# %% [markdown] tags=["slide"]
# **Predict:** now the gradient is the mean of several images. Which is harder: four
# images of four labels, or two images of one label? (Two searches, two seconds.)


# %%
def beside(found: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Put below each image the found one that is nearest."""
    return found[torch.cdist(images.flatten(1), found.flatten(1)).argmin(1)]


found, images = match(1, "4, different labels")
plot_pictures({"the client's": images, "found": beside(found, images)})

# %% tags=["slide-then", "slide-output"]
found, images = match(1, "2 of one label")
plot_pictures({"the client's": images, "found": beside(found, images)})

# %% tags=["slide", "slide-output"] jupyter={"source_hidden": true}
from course_utils.plots import plot_ranges

searched = stored("11", "pictures")
FIRST = [c for c in CASES if "image" in c or "label" in c]
plot_ranges(
    searched.set_index("case").loc[FIRST].reset_index(),
    by="case",
    metric="error",
    xlabel="error (mean squared)",
    logx=True,
    reference=("mean digit", blank),
)

# %%
error, seen = (
    by_seed(searched, "case", metric=metric)
    for metric in ("error", "recognised")
)
for case in FIRST:
    print(f"{case:20} recognised: {seen[case].mean():.0%}")
apart = error["2 of one label"] > error["4, different labels"] + 0.01
print("2 of one label worse than 4 of different ones:", held(apart))

# %% jupyter={"source_hidden": true}
# What is said below, checked.
assert (error["1 image"] < 0.01).all() and (seen["1 image"] == 1).all()
assert (seen["8, different labels"] == 1).all() and apart.sum() == 20
assert (error["32 images"] > 0.1).all()
assert round(error["32 images"].median(), 3) == 0.145
mean = seen.mean().round(2)
assert mean[["2 of one label", "4 of one label"]].tolist() == [0.72, 0.39]
assert 0.35 < mean["32 images"] < 0.45

# %% [markdown]
# - **One image** is recognised in 20 of 20 seeds. (The figure draws errors below 0.0001
#   at 0.0001.)
# - **Labels keep images apart.** Each label has its own row in the head's gradient. So
#   even eight images of eight labels are all recognised. Two of *one* label share a
#   row, and each comes out with a ghost of the other.
# - **32 images** are about three in each row. The error is twice that of the mean
#   digit. Yet two of five are recognised: noise makes the distance to *every* image of
#   the list larger by about the same, and a faint shape still decides which is nearest.
#   The eye is the weaker attacker here.
#
# Here are eight of the 32 (a few seconds). One found picture may stand below several:

# %% tags=["nbval-ignore-output"]
found, images = match(0, "32 images")
some = {"the client's": images, "nearest found": beside(found, images)}
plot_pictures({name: row[:8] for name, row in some.items()})

# %% [markdown] tags=["slide"]
# ### More steps
#
# **Predict:** the client takes five steps on its image. The server uses `as_one_step`,
# and searches as before. Or it **replays** all five in its search. What does it see?
# (Two seconds.)

# %% tags=["slide-then", "slide-output"]
rows = {}
for case in ("5 steps", "5 steps, replayed"):
    found, images = match(0, case)
    rows = {"the client's": images} | rows | {case: found}
plot_pictures(rows)

# %%
for case in ("5 steps", "10 steps", "5 steps, replayed"):
    print(f"{case:18} recognised: {seen[case].mean():.0%}", end=", ")
    print("error", spread(error[case], 4))
closer = error["5 steps, replayed"] < error["5 steps"] / 2
print("replayed, half the error or less:", held(closer))

# %% jupyter={"source_hidden": true}
# What is said below, checked.
assert (error["5 steps"] > error["1 image"] + 0.01).all()
assert (error["10 steps"] > error["5 steps"] + 0.01).sum() >= 19
assert (seen[["5 steps", "10 steps"]] == 1).all(axis=None)
assert closer.sum() == 17

# %% [markdown]
# - **More steps blur** the simple search, and more so with ten: the steps after the
#   first have other gradients. Yet the image is recognised in 20 of 20. The error minds
#   shades of grey, and the shape is there.
# - **Replaying** at least halves the error in 17 of 20 seeds. In the others the search
#   got stuck. So begin again from other noise, while the gap is above 0.01:

# %%
second = stored("11", "again")
first, left, near, known = (
    by_seed(second, "starts", metric=metric)[3]
    for metric in ("first gap", "gap", "error", "recognised")
)
stuck = first > 0.01
print("seeds with a large first gap:", first[stuck].round(2).to_dict())
print("begun again until it is small:", left[stuck].round(4).to_dict())
halved = near < error["5 steps"] / 2
print("then half the error or less:", held(halved), end=", ")
print("recognised:", held(known == 1))

# %% jupyter={"source_hidden": true}
# What is said below, checked.
assert (stuck == ~closer).all() and stuck.sum() == 3
assert (first[~stuck] < 0.005).all() and (left < 0.005).all()
assert halved.all() and (known == 1).all()

# %% [markdown]
# - **The server sees where it is stuck.** In these three seeds, and only there, the gap
#   stays above 0.01. With new starts from other noise, at most three starts in all, the
#   replay at least halves the error of the simple search, and the image is recognised,
#   in 20 of 20. For one image, several steps are work for the attacker, and no
#   protection.
# - With many images in shuffled batches, the server does not know which image came
#   when. It has to search for that, too. That has been done (Dimitrov et al., 2022,
#   [arXiv:2206.12395](https://arxiv.org/abs/2206.12395)), not here.

# %% [markdown] tags=["slide"]
# ## What small changes do
#
# Does it help to send less? `shrink` keeps 8 bits of each number of the update, or only
# its sign (one bit), or only the largest 1 of 100 numbers, with 0 for all others.
# **Predict:** with which of the three will you still see the digit? And with which will
# the server still pick it from its list? (Three searches, three seconds.)


# %%
def shrink(update: State, how: str) -> State:
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


# %% tags=["slide-then", "slide-output", "nbval-ignore-output"]
update, guess, images = target(0, "1 image")
rows = {"the client's": images}
for how in ("8 bits", "1 bit", "largest 1 of 100"):
    rows[how] = search(shrink(update, how), guess, images.shape)
plot_pictures(rows)

# %% [markdown]
# And does it help to train the model first, or to train in batches?

# %% tags=["slide", "slide-output"]
sent = stored("11", "shrunk").rename(columns={"how": "case"})
tried = pd.concat([searched, sent])
error, seen = (
    by_seed(tried, "case", metric=metric) for metric in ("error", "recognised")
)
CHANGES = ["1 image", "8 bits", "1 bit", "largest 1 of 100", "trained model"]
CHANGES += ["8, different labels", "8 in batches of 2"]
table = pd.DataFrame(
    {
        "error": error[CHANGES].apply(spread, digits=4),
        "recognised": seen[CHANGES].mean().map("{:.0%}".format),
    }
)
print(table.to_string())

# %% jupyter={"source_hidden": true}
# What is said below, checked.
assert (error["8 bits"] < 0.01).all()
assert (seen[["trained model", "8 bits"]] == 1).all(axis=None)
assert (error["trained model"] > error["1 image"]).all()
strong = ["1 bit", "largest 1 of 100"]
assert (seen[strong] == 1).sum().tolist() == [12, 16]
assert (error[strong] > 2 * 0.067).all(axis=None)
blurred = error["8 in batches of 2"] > error["8, different labels"] + 0.01
assert blurred.sum() >= 19
assert round(seen["8 in batches of 2"].mean(), 2) == 0.97

# %% [markdown]
# - **8 bits** change next to nothing.
# - **One bit, or the largest 1 of 100**, makes a bad picture: in all seeds, the error
#   is more than twice that of the mean digit. Even so the image is recognised in 12 and
#   in 16 of 20, as the faint shapes among 32 images were.
# - **A trained model** makes the picture worse in 20 of 20 seeds. The image is still
#   recognised in all.
# - **Batches** blur eight images. 97 of 100 are still recognised.
#
# None of them is *safe*. Each was tried against one search of a hundred steps. A patient
# attacker begins again, searches longer, and knows what digits look like.

# %% [markdown] tags=["slide"]
# ## Was this image among them?
#
# A smaller question: the attacker *has* an image, and asks whether a client trained on
# it. That is **membership inference** (Shokri et al., 2016,
# [arXiv:1610.05820](https://arxiv.org/abs/1610.05820)). "This patient was in the study
# of that clinic" can be the secret.
#
# The simplest attack: what a model was trained on, it gets right with a low loss (Yeom et
# al., 2017, [arXiv:1709.01604](https://arxiv.org/abs/1709.01604)).


# %%
@torch.no_grad()
def losses(net: nn.Module, data: TensorDataset) -> torch.Tensor:
    images, labels = data.tensors
    return cross_entropy(net(images), labels, reduction="none")


# %% [markdown]
# The model is the dense network, which trains fastest. `clients` says whose model is
# looked at:
#
# - with 1, that of the client itself,
# - with 10, the average of ten clients, with it among them,
# - with 0, that of another client. This is a control: it cannot know the members.


# %%
def inside_and_outside(
    seed: int, *, examples: int, epochs: int, clients: int
) -> tuple[torch.Tensor, torch.Tensor]:
    config = {"examples": examples, "local-epochs": epochs, "batch-size": 16}
    config = {**DEFAULTS, **config, "net": "dense", "seed": seed}
    whose = [(seed + i) % NUM_CLIENTS for i in range(NUM_CLIENTS)]
    net = start_net(seed, config)
    asked = whose[:clients] or whose[1:2]  # none: the control
    replies = [ask(net, client, config)["arrays"] for client in asked]
    states = [arrays.to_torch_state_dict() for arrays in replies]
    net.load_state_dict(model.weighted_average(states, [1] * len(asked)))
    members = own_data(whose[0], config)
    others = load_centralized()[1].dataset
    return losses(net, members), losses(net, others)


# %% [markdown]
# Members are the client's examples, and others are test images. This client trains long
# on little:

# %%
inside, outside = inside_and_outside(0, examples=50, epochs=30, clients=1)
print(f"median loss of members: {inside.median():.2f}")
print(f"median loss of others:  {outside.median():.2f}")
assert inside.median() < outside.median()

# %% [markdown] tags=["slide", "title: Member or not?"]
# Say "member" below some loss. A low threshold finds few members, and accuses few
# others. A high one finds all, and accuses many. The **ROC curve** has a point for each
# threshold: to the right, the share of others accused; upwards, the share of members
# found. (scikit-learn computes these points. It wants a score that is *high* for
# members. So the losses get a minus.)
#
# The **AUC** is the area below it. **Predict:** take one member and one of the others at
# random. How often has the member the lower loss?

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
# Both are the same number. 0.5 is chance, 1 a perfect order. (Why: go through the
# others from the lowest loss up. Each adds a strip to the area, as high as the share of
# members with a lower loss.)

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
# Left, the area below a curve is its AUC: an average over all thresholds. It hides
# whether an attacker can be *sure* of a few. Right, the left edge is drawn large.
#
# So one also asks how many members are **caught** while at most 1 of 100 others is
# accused (Carlini et al., 2021, [arXiv:2112.03570](https://arxiv.org/abs/2112.03570)).
# A random guess catches 1 of 100. (Of 50 members, one more or less is 0.02. So look at
# the range, too.)


# %% [markdown] tags=["slide", "title: Two that the figure leaves out"]
# **Predict:** the figure leaves out four settings. Two of them are controls. Here are
# the other two. What is the AUC with 20 images and 100 epochs, and how many of these 20
# members are caught? And what is the AUC with 300 images and one epoch?

# %% tags=["slide-then", "slide-output"]
tried = stored("11", "membership")
area, caught = (by_seed(tried, "who", metric=m) for m in ("AUC", "caught"))
columns = {"AUC": area.apply(spread), "caught": caught.apply(spread)}
print(pd.DataFrame(columns).loc[list(WHO)].to_string())

# %%
long, ten = area["50 images, 30 epochs"], area["average of ten"]
once, stranger = area["300 images, 1 epoch"], area["another client"]
new = area["another, 300, 1 epoch"]
print("50 images: AUC above 0.8 in", held(long > 0.8))
print("the average of ten at least 0.2 lower in", held(long > ten + 0.2))
print("average of ten: above its control in", held(ten > stranger))
print("300 images, 1 epoch: above its control in", held(once > new))

# %% jupyter={"source_hidden": true}
# What is said below, checked.
assert (long > 0.8).all() and (long > ten + 0.2).all()
assert (ten > stranger).sum() == 19 and (once > new).all()
middles = area.median().round(2)
assert middles["20 images, 100 epochs"] == 0.97 and middles[long.name] == 0.88
assert (middles[[ten.name, once.name]] == 0.54).all()
assert middles[stranger.name] == 0.49
few = 20 * caught["20 images, 100 epochs"]
assert few.quantile([0, 0.5, 1]).round(2).tolist() == [0, 3, 14]
assert (few == 0).sum() == 1
assert caught.median().round(2)[[long.name, ten.name]].tolist() == [3 / 50, 0]

# %% [markdown]
# - **A client that trains long on little** shows its members: with 50 images, the AUC
#   is above 0.8 in 20 of 20 seeds. With 20 images and 100 epochs it is 0.97. (Images
#   and epochs change together here. Which of them does more, the table does not say.)
# - **In the average of ten clients** it is 0.54. Its control has 0.49, and less in 19
#   of 20 seeds.
# - **One epoch on 300 images** gives 0.54, too: of 100 pairs, the attacker orders 54
#   rightly, a coin
#   50. That is little, and it is real: more than its control in 20 of 20.
# - **An AUC says nothing about the surest few.** It is 0.88 with 50 images, and 3 of
#   these 50 members are caught. With 20 images, 3 of the 20 are (both numbers are medians).
#   With 20, none is caught in one seed, in another 14.
#
# Stronger attacks train models of their own to learn how a member's loss looks (Carlini
# et al.). So a low AUC here does not prove that members are safe.

# %% [markdown]
# ### Exercise 11.4: how well does a loss tell?
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 3 of 3, build | 11 | papers on attacks report these two numbers |
#
# Complete `attack_by_loss`. It gets the losses of members, those of others, and
# `allowed`, the share of others that may be accused. Return two numbers:
#
# - the AUC: the share of all pairs in which the member has the lower loss. Where both
#   are the same, a pair counts half.
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
# **Why this.** The AUC is a count of pairs, and no area has to be computed. Only
# members' losses need be tried: between two of them, a threshold accuses more and finds
# no more. **What people get wrong:** the direction (members have the *lower* loss);
# ties; a count in place of a share.

# %% [markdown] tags=["slide"]
# ## Who is the adversary?
#
# Here the server was the adversary. Others see less, or more:
#
# | who | what it sees | what of this lesson it can do |
# |---|---|---|
# | the server | each client's weights, round by round | all |
# | a client | the average of all, round by round | all of it on the *sum of the others*: it can take off its own part. The more they are, and the more examples they have, the less it finds |
# | who listens on the line | without TLS what the server sees; with TLS that there are messages, and how large | all; next to nothing |
# | who gets the final model | the last average | ask whether an image was among the training data |
# | who may start a run | what its app reads: the ClientApp is sent to the clients | no attack needed: code can read the data itself |

# %% [markdown]
# TLS (lesson 07) helps against the listener. The server *is* the other end of the line.
# Against it, two things help:
#
# - **Secure aggregation** (lesson 13): the server gets the sum and no part of it. What
#   the sum gives away, it still gives away.
# - **Differential privacy** (lesson 12): noise, measured, so that *any* attack on one
#   client or one example has a limit, also those that nobody has thought of yet.
#
# [What was promised to whom](promises.md) has this as a table to show to others.

# %% [markdown] tags=["slide"]
# ## Takeaways
#
# - **A dense layer's input** is the quotient of two gradients. Weights sent back after
#   one step *are* a gradient.
# - **Labels** can be counted in the head's bias: after one step of a *new* model nearly
#   all. With a trained model many are wrong. After an epoch of a new one, the most
#   frequent label is mostly right.
# - **A search** finds pictures, if the server knows what the client did. Images of one
#   label blur each other. More steps blur the simple search. They do not stop it, and a
#   replay gets the picture back.
# - **Membership** shows where clients train long on little. An AUC says how well on
#   average. Ask also how many can be caught at a small price.
# - **Name the adversary** before you say "private". An attack that fails proves nothing
#   about the next one.

# %% [markdown]
# ## Check yourself
#
# <details><summary>1. A client sends weights, and no gradients. Is that safer?</summary>
#
# After one step, no: the server sent the old weights, and knows the learning rate.
# After many, the server has to guess or replay what happened in between.
# </details>
#
# <details><summary>2. A hospital has one patient a day, and takes part each day with one
# step. What would you tell its data protection officer?</summary>
#
# That this patient's data may be read out of the update. Wait until there are many, add
# noise (lesson 12), and let the server see only a sum (lesson 13).
# </details>
#
# <details><summary>3. The gradient of the head's bias has two negative entries. How many
# labels are in the batch?</summary>
#
# At least two. A label that is rarer in the batch than the model expects has a positive
# entry, too.
# </details>
#
# <details><summary>4. All traffic is under TLS. Which attacks of this lesson are
# left?</summary>
#
# All of them. The server decrypts what it gets. TLS keeps out those who listen on the
# way.
# </details>

# %% [markdown]
# **Next:** [12 · Differential privacy](12_differential_privacy.ipynb): noise that can be counted,
# and these attacks once more.

# %%
from course_utils.exercises import progress

progress("11")

# %% [markdown]
# ## Appendix: for a second reading
#
# Nothing above needs what follows, and the lesson's minutes leave it out.
#
# ### How much data, from a length
#
# A client could keep its `num-examples` to itself, if the strategy weighed all equally.
# Does the server still know which client has more? We rank ten clients by the length of
# their update, and by their number of examples. A rank correlation of 1 is the same
# order.


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
# The lengths rank the clients nearly as their sizes do. That is for a new model, one
# epoch in batches of 16, one `lr` for all, and Dirichlet(0.3) clients. A likely reason
# is that more examples are more steps. But the clients' labels differ, too, so this
# alone does not show it. Where all clients take the same number of steps, it need not
# hold.

# %% [markdown]
# ### What was run with 20 seeds
#
# `make experiments` runs these, and `sizes` from above:


# %%
def exact_share(seed: int, *, examples: int) -> dict[str, float]:
    _, update, data = spy(seed, net="dense", examples=examples)
    images = data.tensors[0]
    error = errors(divide(update), images)
    return {"exact": (error < 1e-4).float().mean().item()}


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


# %%
one = label_error(0, case="32, one step")
print({name: round(value, 2) for name, value in one.items()})


# %%
def judged(found: torch.Tensor, images: torch.Tensor) -> dict[str, float]:
    error = errors(found, images).mean().item()
    return {"error": error, "recognised": recognised(found, images)}


def pictures(seed: int, *, case: str) -> dict[str, float]:
    return judged(*match(seed, case))


def shrunk(seed: int, *, how: str) -> dict[str, float]:
    update, guess, images = target(seed, "1 image")
    found = search(shrink(update, how), guess, images.shape)
    return judged(found, images)


# %%
def again(seed: int, *, starts: int) -> dict[str, float]:
    update, guess, images = target(seed, "5 steps, replayed")
    tries = []
    while len(tries) < starts and all(left > 0.01 for left, _ in tries):
        found = search(update, guess, images.shape)
        tries.append((gap(guess(found), update).item(), found))
    left, found = min(tries, key=lambda each: each[0])
    return {"first gap": tries[0][0], "gap": left, **judged(found, images)}


# %%
def membership(seed: int, *, who: str) -> dict[str, float]:
    inside, outside = inside_and_outside(seed, **WHO[who])
    is_member = [1] * len(inside) + [0] * len(outside)
    scores = -torch.cat([inside, outside])
    false, true, _ = roc_curve(is_member, scores)
    caught = true[false <= 0.01].max()
    return {"AUC": roc_auc_score(is_member, scores), "caught": caught}
