# %% [markdown] tags=["slide"]
# # 00 · Why federated learning
#
# **Can ten clients train one good model without showing anyone a single example?**
#
# After this lesson you can
#
# - say what leaves a client in federated learning, and what does not,
# - run Federated Averaging by hand in plain PyTorch, and once on Flower, the framework of
#   this course,
# - compare it with one client alone and with everyone's data in one place,
# - show why clients and server exchange models in many rounds,
# - tell parameters sent back from gradients sent back.
#
# **You need:** Python and a little PyTorch. **Time:** 55 minutes, 23 of them for the exercises.

# %% [markdown]
# First, is this machine ready for the course? Does a line begin with `FIX`? Then do what
# it says, restart the kernel and run the cell again.

# %% tags=["nbval-ignore-output"]
from course_utils.machine import check_machine

check_machine()

# %% [markdown] tags=["slide"]
# ## The problem
#
# - Ten hospitals each have some labelled images. One model trained on all of them would
#   serve every hospital better than ten models trained apart.
# - The images may not leave the hospitals: the law or a contract forbids it, or there are
#   too many to send.
# - So the model travels instead of the data. That is **federated learning**.
#
# A **client** holds data. The **server** holds the model that all share, the **global
# model**. One exchange between them is a **round**:

# %% tags=["slide", "title: What moves and what stays", "slide-output"]
from course_utils.plots import draw_loop, plot_curves

draw_loop()

# %% [markdown] tags=["slide-more"]
# - Parameters cross the network, and with them a few numbers, such as how many examples
#   the client trained on. Images and labels never do.
# - Parameters are not harmless: they can say something about the data that they were
#   trained on. *Sending gradients instead* has an example.

# %% [markdown] tags=["slide"]
# ## The data, the clients, the model
#
# The data are real: 5,000 handwritten digits from MNIST that come with the course, 4,000
# to train on and 1,000 to test on. Each of ten clients gets a tenth of them, at random.

# %% tags=["slide-more"]
import torch
from torch import nn
from torch.utils.data import DataLoader

from course_utils.partitions import (
    image_shape,
    load_centralized,
    load_partition,
)

NUM_CLIENTS = 10
clients = [load_partition(i, NUM_CLIENTS) for i in range(NUM_CLIENTS)]
num_examples = [len(trainloader.dataset) for trainloader, _ in clients]
print("examples per client:", num_examples)

# %% [markdown]
# To compare, this lesson also does what federated learning avoids: it loads everything in
# one place.

# %%
all_trainloader, all_testloader = load_centralized()
print("images of one batch:", tuple(next(iter(all_trainloader))[0].shape))
assert sum(num_examples) == len(all_trainloader.dataset)

# %% [markdown]
# The model is a small convolutional network:

# %%
class Net(nn.Module):
    def __init__(
        self,
        image_shape: tuple[int, int, int] = (1, 28, 28),
        num_classes: int = 10,
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
        return self.head(self.body(images))


# %%
net = Net(image_shape())
for name, parameter in net.state_dict().items():
    print(f"{name:12} {tuple(parameter.shape)}")
print("parameters:", sum(p.numel() for p in net.parameters()))

# %% [markdown]
# Training and testing are plain PyTorch. Every client will call `train` with its own
# loader.

# %%
def train(
    net: nn.Module, loader: DataLoader, *, epochs: int = 1, lr: float = 0.01
) -> float:
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


# %%
@torch.no_grad()
def test(net: nn.Module, loader: DataLoader) -> tuple[float, float]:
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


# %% [markdown] tags=["slide"]
# ## Two yardsticks
#
# - **One client alone** is what a hospital gets without the others. Here it is client 0:
#   the others hold much the same.
# - **Everyone's data in one place** is what all would get if nothing were forbidden.
#
# Both models are trained for ten passes over their data. After each pass they are tested
# on the same images.

# %%
from course_utils import with_progress

EPOCHS = 10


def learning_curve(trainloader: DataLoader) -> list[float]:
    torch.manual_seed(0)
    net = Net(image_shape())
    accuracies = [test(net, all_testloader)[1]]
    for _ in with_progress(range(EPOCHS), doing="passes over the data"):
        train(net, trainloader)
        accuracies.append(test(net, all_testloader)[1])
    return accuracies


# %% tags=["slide-then", "nbval-ignore-output"]
alone = learning_curve(clients[0][0])
centralized = learning_curve(all_trainloader)
print(f"alone {alone[-1]:.3f}, everyone's data {centralized[-1]:.3f}")

# %% [markdown] tags=["slide"]
# ## Federated Averaging by hand
#
# The server averages all parameters, weighted by number of examples: a client with twice
# the data counts twice. (`require_alike` refuses models whose names or shapes differ.)

# %%
from collections.abc import Sequence

from course_utils.model import require_alike


# %% tags=["slide-more"]
def weighted_average(
    states: Sequence[dict[str, torch.Tensor]], num_examples: Sequence[int]
) -> dict[str, torch.Tensor]:
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


# %% [markdown] tags=["slide", "title: Try it in your head"]
# Try it on numbers that you can check in your head. A client with 1 example says 0, and a
# client with 3 examples says 8. The plain mean would be 4.

# %% tags=["slide-then"]
zero, eight = {"w": torch.tensor(0.0)}, {"w": torch.tensor(8.0)}
small = weighted_average([zero, eight], [1, 3])
print(small)
assert small["w"] == 6.0

# %% [markdown]
# ### Exercise 0.1: what a client counts for
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 1 of 3, recall | 3 | the weights decide whose data the global model fits |
#
# Complete `shares`: given how many examples each client has, return what share each
# client has in the average.
#
# <details><summary>Hint 1</summary>
#
# The shares of all clients sum to 1.
# </details>
# <details><summary>Hint 2</summary>
#
# `weighted_average` above computes them on the way: look at what it multiplies with.
# </details>

# %%
from course_utils.exercises import check


def shares(num_examples: list[int]) -> list[float]:
    """Return each client's share in the average."""
    ### BEGIN SOLUTION
    total = sum(num_examples)
    return [n / total for n in num_examples]
    ### END SOLUTION


# %%
check("0.1", shares)

# %% [markdown] tags=["solution"]
# **Why this.** Each example should count the same in the global model, so a client's
# weight is its share of all examples. **What people get wrong:** they average clients
# instead of examples. With equal weights, a client with 10 images pulls as hard as one
# with 10,000.

# %% [markdown] tags=["slide"]
# And this is all of **Federated Averaging (FedAvg)**. The comments are the four steps of
# the figure.
#
# **Predict:** ten clients share only parameters. Where will their model end after ten
# rounds: below *one client alone*, between the two yardsticks, or above *everyone's data
# in one place*?

# %% tags=["slide", "title: FedAvg in full", "nbval-ignore-output"]
torch.manual_seed(0)
global_net = Net(image_shape())
federated = [test(global_net, all_testloader)[1]]
for _ in with_progress(range(EPOCHS), doing="rounds"):
    states = []
    for trainloader, _ in clients:
        # 1. The server sends its parameters to the client.
        local_net = Net(image_shape())
        local_net.load_state_dict(global_net.state_dict())
        # 2. The client trains on its own data.
        train(local_net, trainloader)
        # 3. The client sends its parameters back.
        states.append(local_net.state_dict())
    # 4. The server averages, weighted by number of examples.
    average = weighted_average(states, num_examples)
    global_net.load_state_dict(average)
    federated.append(test(global_net, all_testloader)[1])
print(f"federated {federated[-1]:.3f}")

# %% tags=["slide", "title: What came of it", "slide-output", "nbval-ignore-output"]
plot_curves(
    {"FedAvg, 10 clients": federated, "one client alone": alone},
    levels={"everyone's data": centralized[-1]},
    xlabel="round (one pass over a client's data)",
    lowest=0.7,
)
assert alone[-1] < federated[-1] < centralized[-1]

# %% [markdown] tags=["slide-more"]
# - The federation ends between the two, and not one example moved. (The axis begins at
#   0.7.)
# - After ten rounds it has not reached everyone's data in one place. Compare the steps:

# %%
print("steps of one client in a round:", len(clients[0][0]))
print("steps of a pass over all data: ", len(all_trainloader))

# %% [markdown]
# How far does the first round get? Here it is once more, beside one pass over all data:

# %% tags=["nbval-ignore-output"]
import copy


def distance(a: dict, b: dict) -> torch.Tensor:
    return torch.cat([(a[name] - b[name]).flatten() for name in a]).norm()


torch.manual_seed(0)
start = Net(image_shape())
nets = [copy.deepcopy(start) for _ in range(NUM_CLIENTS + 1)]
loaders = [trainloader for trainloader, _ in clients] + [all_trainloader]
for net, loader in zip(nets, loaders, strict=True):
    train(net, loader)
*states, one_pass = [net.state_dict() for net in nets]
average = weighted_average(states, num_examples)
ends = {"client 0": states[0], "average": average, "all data": one_pass}
moved, reached, net = {}, {}, Net(image_shape())
for name, state in ends.items():
    moved[name] = distance(state, start.state_dict())
    net.load_state_dict(state)
    reached[name] = test(net, all_testloader)[1]
    print(f"{name:8} moved {moved[name]:.2f}, accuracy {reached[name]:.2f}")

# %% jupyter={"source_hidden": true}
# What is said below, checked. It holds for the default dataset.
from course_utils.data import DEFAULT_DATASET, dataset_name

if dataset_name() == DEFAULT_DATASET:
    assert moved["average"] < moved["client 0"] < moved["all data"] / 2
    assert reached["average"] > reached["client 0"] + 0.1

# %% [markdown]
# - One pass takes each step from where the last one ended. The ten clients all begin at
#   the same start, and their average moves no further than client 0. So it is behind
#   everyone's data. [Lesson 05](05_server_app.ipynb) runs more rounds.
# - It moves in a better direction than client 0: its accuracy is higher. So it is ahead of
#   one client alone.

# %% [markdown] tags=["slide"]
# ## Why so many rounds?
#
# Each round costs an exchange of models with every client. Why not train longer on each
# client, and average only once? Try both with equally much training: **one round of four
# epochs** against **four rounds of one epoch**.

# %% tags=["slide-more"]
def federate(clients: list, rounds: int, epochs: int) -> float:
    torch.manual_seed(0)
    net = Net(image_shape())
    counts = [len(trainloader.dataset) for trainloader, _ in clients]
    for _ in with_progress(range(rounds), doing="rounds"):
        states = []
        for trainloader, _ in clients:
            local_net = copy.deepcopy(net)
            train(local_net, trainloader, epochs=epochs)
            states.append(local_net.state_dict())
        net.load_state_dict(weighted_average(states, counts))
    return test(net, all_testloader)[1]


# %% [markdown] tags=["slide", "title: Two groups of clients"]
# Try it on two groups of clients. Those above are much alike. Here is the other group.
# (Lesson 02 explains how their data were shared out, by *Dirichlet(0.1)*.)

# %% tags=["slide-then"]
unlike = [
    load_partition(i, NUM_CLIENTS, scheme="dirichlet", alpha=0.1)
    for i in range(NUM_CLIENTS)
]
for i in range(4):
    _, labels = unlike[i][0].dataset[:]
    held = labels.bincount(minlength=10).tolist()
    print(f"client {i} holds of each digit:", held)

# %% [markdown] tags=["slide"]
# **Predict:** for which clients is one average worse than four: for those alike, for
# those unlike, for both or for neither?

# %% tags=["slide-then", "slide-output", "nbval-ignore-output"]
once = {
    "much alike": federate(clients, rounds=1, epochs=4),
    "unlike": federate(unlike, rounds=1, epochs=4),
}
often = {
    "much alike": federated[4],  # the loop above has run these rounds
    "unlike": federate(unlike, rounds=4, epochs=1),
}
for name in once:
    print(f"{name:10} once {once[name]:.3f}, four times {often[name]:.3f}")

# %% jupyter={"source_hidden": true}
# What is said below, checked.
if dataset_name() == DEFAULT_DATASET:
    assert abs(often["much alike"] - once["much alike"]) < 0.05
    assert often["unlike"] - once["unlike"] > 0.1

# %% [markdown] tags=["slide-more"]
# - Much alike: one average at the end is about as good as four.
# - Unlike: one average is much worse. Each client trains on its own digits only, and the
#   models *drift* apart.
# - Each round brings all clients back to one start. Real clients are unlike, so they need
#   many rounds.

# %% [markdown] tags=["slide"]
# ## Sending gradients instead
#
# A client could also send a **gradient**: it says how the loss on the client's data
# changes with each parameter. The server averages the gradients and takes the step
# itself. This is **federated SGD (FedSGD)**. Here *all* data of a client are one batch,
# and a step has no momentum (`train` has):

# %% tags=["slide-more"]
LR = 0.1
batches = [trainloader.dataset[:] for trainloader, _ in clients]


def gradient(net: Net, batch: tuple) -> dict[str, torch.Tensor]:
    images, labels = batch
    net.zero_grad()
    nn.functional.cross_entropy(net(images), labels).backward()
    return {name: p.grad.clone() for name, p in net.named_parameters()}


@torch.no_grad()
def step(net: Net, gradient: dict[str, torch.Tensor]) -> None:
    for name, p in net.named_parameters():
        p -= LR * gradient[name]


# %% [markdown] tags=["slide"]
# A client that sends parameters takes all its steps first, then there is one exchange. A
# client that sends gradients needs an exchange for every step:


# %% tags=["slide-more"]
def send_parameters(start: Net, steps: int) -> dict[str, torch.Tensor]:
    states = []
    for batch in batches:
        net = copy.deepcopy(start)
        for _ in range(steps):
            step(net, gradient(net, batch))
        states.append(net.state_dict())
    return weighted_average(states, num_examples)


def send_gradients(start: Net, steps: int) -> dict[str, torch.Tensor]:
    net = copy.deepcopy(start)
    for _ in range(steps):
        gradients = [gradient(net, batch) for batch in batches]
        step(net, weighted_average(gradients, num_examples))
    return net.state_dict()


# %% [markdown] tags=["slide"]
# **Predict:** compare both after one step, and after three. When do they give the same
# model: both times, once or never? (*moved* is how far the parameter that moved most is
# from the start, *apart* is the largest difference between the two.)


# %% tags=["slide-then", "nbval-ignore-output"]
def largest_difference(a: dict, b: dict) -> float:
    return max((a[name] - b[name]).abs().max().item() for name in a)


apart = {}
for steps in (1, 3):
    by_gradients = send_gradients(start, steps)
    by_parameters = send_parameters(start, steps)
    apart[steps] = largest_difference(by_parameters, by_gradients)
    moved = largest_difference(start.state_dict(), by_gradients)
    print(f"steps {steps}: moved {moved:.5f}, apart {apart[steps]:.5f}")
assert apart[1] < 1e-6 < apart[3]

# %% [markdown] tags=["slide", "title: One step and more"]
# - One step: the same model, but for rounding. The average of all
#   `start - LR * gradient` is `start - LR * average gradient`, because averaging is
#   linear.
# - More steps: after its first step each client is at another place, and takes its next
#   gradient there. So the two ways part, and the clients drift apart.
# - FedAvg accepts some drift, because exchanges are expensive: lesson 01 counts their
#   bytes.

# %% [markdown]
# What does a gradient say about the data? Take it on one image. The last layer's bias has
# one number for each label:

# %%
images, labels = batches[0]
bias = gradient(start, (images[:1], labels[:1]))["head.bias"]
print("below zero:", (bias < 0).nonzero().flatten().tolist())
print("the image's label:", labels[:1].tolist())
assert (bias < 0).nonzero().flatten().tolist() == labels[:1].tolist()

# %% [markdown]
# Only one entry is below zero: that of the image's label. The gradient gives it away.

# %% [markdown]
# ### Exercise 0.2: send the update instead
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 2 of 3, apply | 8 | lesson 03 limits how far one client's update can pull the model |
#
# A client can also send its **update**: its trained parameters minus those it started
# from. Complete `average_of_updates`: compute each client's update, average the updates
# by number of examples, and add the average to the start. `states` are the clients'
# trained state_dicts.
#
# <details><summary>Hint 1</summary>
#
# State_dicts are dictionaries: go through their names, as `weighted_average` does.
# </details>
# <details><summary>Hint 2</summary>
#
# `weighted_average` takes any list of dictionaries of tensors, updates too.
# </details>


# %%
def average_of_updates(
    start: dict[str, torch.Tensor],
    states: list[dict[str, torch.Tensor]],
    num_examples: list[int],
) -> dict[str, torch.Tensor]:
    """Return the new global model, made from the clients' updates."""
    ### BEGIN SOLUTION
    updates = [{k: state[k] - start[k] for k in start} for state in states]
    average = weighted_average(updates, num_examples)
    return {k: start[k] + average[k] for k in start}
    ### END SOLUTION


# %%
check("0.2", average_of_updates)

# %% [markdown] tags=["solution"]
# **Why this.** Each model is `start + update`, and the shares sum to 1. So the average of
# the models is `start` plus the average update. **What people get wrong:** the sign. An
# update is *after minus before*. A gradient points the other way.

# %% [markdown] tags=["slide"]
# ### Exercise 0.3: one round
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 3 of 3, build | 12 | from lesson 05 on, the course's framework does this for you |
#
# Complete `fedavg_round`: one round of FedAvg. Each client starts from `global_net`, which
# may be any network, and trains by `train_fn(net, loader)`, which changes `net` in place.
# Weight each client by the number of examples in its loader. Return the new global
# `state_dict`. Leave `global_net` as it was.
#
# <details><summary>Hint 1</summary>
#
# The loop above does this. What does it make anew for each client, and why?
# </details>
# <details><summary>Hint 2</summary>
#
# `copy.deepcopy(global_net)` makes a network of the same kind with the same parameters.
# </details>
# <details><summary>Hint 3</summary>
#
# `len(loader.dataset)` counts examples; `len(loader)` counts batches.
# </details>

# %%
from collections.abc import Callable


def fedavg_round(
    global_net: nn.Module, loaders: list[DataLoader], train_fn: Callable
) -> dict[str, torch.Tensor]:
    """Lead one round and return the new global state_dict."""
    ### BEGIN SOLUTION
    states = []
    for loader in loaders:
        net = copy.deepcopy(global_net)
        train_fn(net, loader)
        states.append(net.state_dict())
    return weighted_average(
        states, [len(loader.dataset) for loader in loaders]
    )
    ### END SOLUTION


# %%
check("0.3", fedavg_round)

# %% [markdown] tags=["solution"]
# **Why this.** Every client must start from the same global model, so each gets a copy.
# **What people get wrong:** they train one network over and over, so the second client
# starts where the first one stopped. Or they keep `net.state_dict()` of a network that
# they go on training. Then all entries of the list are the same tensors.

# %% [markdown] tags=["slide"]
# ## The same federation on Flower
#
# So far, the server and all clients were one loop. **Flower** takes them apart: a
# **ServerApp** leads the rounds, a **ClientApp** does what each client does, and messages
# travel between them. You will write both, in lessons 03 and 05. Here they are ready, and
# run in this notebook.
#
# **Predict:** how many messages do ten clients and ten rounds take?

# %% tags=["slide-then"]
from course_utils.apps import client_app, server_app
from course_utils.runtime import run_in_process

# %% tags=["slide", "title: The run", "nbval-ignore-output"]
run = run_in_process(
    server_app,
    client_app,
    num_supernodes=NUM_CLIENTS,  # a SuperNode is where a ClientApp runs
    run_config={"num-server-rounds": EPOCHS},  # settings of this run
    seed=0,
)

# %% tags=["slide", "title: By hand and on Flower", "slide-output", "nbval-ignore-output"]
tests = run.result.evaluate_metrics_serverapp.values()
on_flower = [metrics["accuracy"] for metrics in tests]
print(f"by hand {federated[-1]:.3f}, on Flower {on_flower[-1]:.3f}")
print(f"first round: {federated[1]:.2f}, on Flower {on_flower[1]:.2f}")
print(f"first round by hand, once more: {reached['average']:.2f}")
megabytes = sum(message.bytes for message in run.messages) / 1e6
print(f"{len(run.messages)} messages, {megabytes:.1f} MB")

# %% jupyter={"source_hidden": true}
# What is said below, checked.
assert on_flower[0] == federated[0]  # the same model to start with
assert len(run.messages) == EPOCHS * NUM_CLIENTS * 2
if dataset_name() == DEFAULT_DATASET:
    assert abs(on_flower[-1] - federated[-1]) < 0.03

# %% [markdown] tags=["slide-more"]
# - The result is the same, but for chance: both began with the same model, and only the
#   order of the clients' batches differs. It changes much in the first round, where two
#   runs by hand differ, too.
# - In each round, ten messages go out and ten come back. Each carries a model.
# - In [lesson 06](06_flower_app.ipynb) and [lesson 07](07_deployment.ipynb), such apps run
#   unchanged as processes of their own, and on many machines.

# %% [markdown] tags=["slide"]
# ## Takeaways
#
# - **What leaves a client** is its parameters and a few numbers, such as how many examples
#   they rest on. Its data do not.
# - **FedAvg** is a loop: send, train locally, send back, average by number of examples.
#   On Flower it is two apps and the messages between them.
# - **Compared** with one client alone it is better, and with everyone's data in one place
#   it is behind.
# - **Many rounds** bring the clients back to one start again and again. If clients are
#   unlike, one average at the end is much worse.
# - **Parameters or gradients** make the same model after one local step on the full
#   batch, and different ones after more.

# %% [markdown]
# ## Check yourself
#
# <details><summary>1. A client has 400 images. How many numbers does it send in a round?
# </summary>
#
# One for each parameter of the model, and one more, 400: its number of examples. (On
# Flower also its mean loss.) None of this grows with the data.
# </details>
#
# <details><summary>2. One client holds twice as many examples as each of nine others.
# What is its weight in the average?</summary>
#
# 2/11: the weights are shares of all examples, not of clients.
# </details>
#
# <details><summary>3. Four rounds of one epoch, or one round of four epochs: which sends
# more bytes, and what are they paid for?</summary>
#
# Four rounds send four times as many bytes. They keep unlike clients from drifting far
# apart. Clients that are much alike could do without.
# </details>
#
# <details><summary>4. Does sending gradients instead of parameters protect the data
# better?</summary>
#
# No. After one plain step, `gradient = (start - parameters) / LR`, so both say the same
# about the data: for one image, its label. After more steps, parameters hold the sum of
# several gradients. That is no protection by itself.
# </details>

# %% [markdown]
# **Next:** [01 · Messages and records](01_messages_and_records.ipynb), where parameters
# and numbers get into Flower's messages.

# %%
from course_utils.exercises import progress

progress("00")
