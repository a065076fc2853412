# %% [markdown] tags=["slide"]
# # 04 · Context and state
#
# **What does a client know about itself, and what can it remember?**
#
# After this lesson you can
#
# - tell a ClientApp which data are its own, with `node_config`,
# - decide whether a setting belongs in the run config or in a message's config,
# - predict what a global variable or an attribute of the app holds on the next message,
# - keep a counter, a history and a part of the model in `context.state`,
# - say to whom a state belongs, when it ends, and what an exception does to it.
#
# **You need:** lessons 00 to 03. **Time:** 80 minutes, 23 of them for the
# exercises.

# %% [markdown] tags=["slide"]
# ## The Context
#
# A ClientApp is called with a Message and a Context. The message comes from the server.
# The client's side hands over the Context: what it knows of the run and of itself.
# Lesson 03 made one by hand. A grid makes one for each node:

# %% tags=["slide-more", "slide-output"]
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp

from course_utils.runtime import InProcessGrid

grid = InProcessGrid(ClientApp(), num_supernodes=3, seed=0)
context = list(grid.node_contexts.values())[1]
for field in ("run_id", "node_id", "node_config", "run_config"):
    print(f"{field:12} {getattr(context, field)}")
print(f"{'state':12} {dict(context.state)}")

# %% [markdown] tags=["slide"]
# | field | what it says | who sets it |
# |---|---|---|
# | `run_id` | which run this is | Flower |
# | `node_id` | which node this is | Flower |
# | `node_config` | what is special about this node | who starts the node |
# | `run_config` | the settings of this run | who starts the run |
# | `state` | what this node remembers of this run; empty at first | the ClientApp |
#
# (A sixth field, `series_id`, ties several runs together. This course does not.)

# %% [markdown] tags=["slide"]
# ## node_config: which client am I?
#
# This query asks for two entries of the node config, and for the number of examples that
# follows from them:

# %% tags=["slide-more"]
from course_utils.partitions import load_partition

client_app = ClientApp()


@client_app.query()
def who_am_i(message: Message, context: Context) -> Message:
    partition_id = context.node_config["partition-id"]
    num_partitions = context.node_config["num-partitions"]
    trainloader, _ = load_partition(
        partition_id, num_partitions, scheme="linear"
    )
    answer = {
        "partition": partition_id,
        "num-examples": len(trainloader.dataset),
    }
    return Message(
        RecordDict({"metrics": MetricRecord(answer)}), reply_to=message
    )


# %% [markdown] tags=["slide"]
# **Predict:** three nodes run this one function, and get the same empty message. Three
# equal answers?


# %% tags=["slide-then"]
def ask(grid: InProcessGrid) -> list[Message]:
    nodes = grid.get_node_ids()
    return grid.send_and_receive(
        [Message(RecordDict(), n, "query") for n in nodes]
    )


grid = InProcessGrid(client_app, num_supernodes=3, seed=0)
answers = [dict(reply.content["metrics"]) for reply in ask(grid)]
print(*answers, sep="\n")
assert [answer["partition"] for answer in answers] == [0, 1, 2]

# %% [markdown] tags=["slide"]
# - Three different ones. The message says what to do, the Context says who does it.
# - `partition-id` and `num-partitions` are set by the grid, as they are by Flower's
#   Simulation Runtime. Both set these two and nothing else.
# - On a SuperNode, whoever starts it sets what they like:
#   `--node-config "partition-id=1 num-partitions=3"` in a classroom; in a hospital, more
#   likely, the place of its images: `--node-config "data-path='/data/scans'"`.
# - Nobody checks that two SuperNodes were not given the same `partition-id`. They would
#   train on the same data, without a word.

# %% [markdown] tags=["slide"]
# ## run_config: what holds for the whole run
#
# An app's settings stand in its `pyproject.toml`, in a table of their own. Lesson 06
# writes the whole file. This is the table:

# %% tags=["slide-more"]
PYPROJECT = """
[tool.flwr.app.config]
num-server-rounds = 3
fraction-train = 0.5  # what share of the clients trains: lesson 05
local-epochs = 1
lr = 0.01
"""

# %% tags=["slide-more"]
import tomllib

run_config = tomllib.loads(PYPROJECT)["tool"]["flwr"]["app"]["config"]
for key, value in run_config.items():
    print(f"{key:18} {value!r:5} {type(value).__name__}")

# %% [markdown] tags=["slide"]
# When a run starts, Flower reads this table and gives it to the ServerApp and to every
# ClientApp, each in its own `context.run_config`. Here, the grid takes the dictionary.
#
# **Predict:** the message is still empty. What does it weigh, and which `lr` do the
# nodes find?

# %% tags=["slide-then", "slide-output"]
client_app = ClientApp()


@client_app.query()
def which_lr(message: Message, context: Context) -> Message:
    answer = MetricRecord({"lr": context.run_config["lr"]})
    return Message(RecordDict({"metrics": answer}), reply_to=message)


grid = InProcessGrid(
    client_app, num_supernodes=3, run_config=run_config, seed=0
)
print([reply.content["metrics"]["lr"] for reply in ask(grid)])
print(
    "bytes of each message:",
    [m.bytes for m in grid.messages if not m.is_reply],
)
assert sum(m.bytes for m in grid.messages if not m.is_reply) == 0

# %% [markdown]
# All nodes find the same. We sent empty messages, so it cannot have come with them: on a
# deployment, a SuperNode gets the run config together with the app, once a run.
#
# A value is a `bool`, an `int`, a `float` or a `str`. A list of layers is none of these
# (`outcome` is lesson 01's helper, which returns the error as text):

# %%
from course_utils import outcome


def start_with(setting: dict) -> None:
    InProcessGrid(client_app, 3, run_config={**run_config, **setting})


print(outcome(start_with, {"layers": ["body", "head"]}))
print(outcome(start_with, {"layers": "body head"}))

# %% [markdown]
# - Refused, before anything runs. `flwr run`, the command that starts a run on Flower's
#   runtimes (lesson 06), refuses it, too: "The value for key layers needs to be of type
#   `int`, `float`, …". Write the list as one string, and `.split()` it in the app.
# - `flwr run` takes one thing more, a table within the table, and flattens its names:
#   `lr` in `[tool.flwr.app.config.optimizer]` becomes `run_config["optimizer.lr"]`.
# - For one run, a setting can be changed without touching the file:
#   `flwr run . --run-config "lr=0.1"`. Only settings that the file has.
# - **Only read it.** If a ClientApp changes its run config, the Simulation Runtime
#   answers with an error, a SuperNode keeps the change to itself, and this grid drops
#   it.
#
# ## A message's config: what the server decides as it goes
#
# Some settings change during the run. A classic is a learning rate that halves each
# round. Only the server knows which round it is, so the server says it, in a
# `ConfigRecord` of the message:

# %%
client_app = ClientApp()


@client_app.train()
def read_both(message: Message, context: Context) -> Message:
    found = {
        "message's lr": message.content["config"]["lr"],
        "run's lr": context.run_config["lr"],
        "run's local-epochs": context.run_config["local-epochs"],
    }
    return Message(
        RecordDict({"metrics": MetricRecord(found)}), reply_to=message
    )


# %% [markdown]
# **Predict:** the run config has an `lr` as well. Which of the three numbers change
# from round to round?


# %%
grid = InProcessGrid(
    client_app, num_supernodes=1, run_config=run_config, seed=0
)
(node_id,) = grid.get_node_ids()
used = []
for server_round in range(1, run_config["num-server-rounds"] + 1):
    lr = run_config["lr"] * 0.5 ** (server_round - 1)
    config = ConfigRecord({"server-round": server_round, "lr": lr})
    message = Message(RecordDict({"config": config}), node_id, "train")
    (reply,) = grid.send_and_receive([message])
    used.append(dict(reply.content["metrics"]))
    print(f"round {server_round}: {used[-1]}")
assert [numbers["run's lr"] for numbers in used] == [run_config["lr"]] * 3
assert used[2]["message's lr"] == run_config["lr"] / 4

# %% [markdown]
# Only the message's. So a client that takes its `lr` from the run config trains at 0.01
# in every round, whatever the server says, and no error tells. Here, the run's `lr` is
# where the *server* starts, and the message's is what a *client* uses. Decide for each
# setting where the client reads it.

# %% [markdown] tags=["slide"]
# | | `node_config` | `run_config` | message's config |
# |---|---|---|---|
# | holds for | one node, in all runs | all nodes, for one run | one message |
# | set by | who starts the node | who starts the run | the ServerApp, as it goes |
# | read from | the Context | the Context | the message's content |
# | values | `bool`, `int`, `float`, `str` | the same | also `bytes`, and lists |
# | such as | `partition-id` | `local-epochs` | `server-round`, a decaying `lr` |
#
# **Rule of thumb:** true of this machine, whatever runs on it: node config. Settled
# before the run starts: run config. Different from round to round or from client to
# client: message's config.

# %% [markdown] tags=["slide"]
# ### Exercise 4.1: the learning rate that applies
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 1 of 3, recall | 3 | a client that reads the wrong one keeps training, unnoticed |
#
# Another design: the server may send an `"lr"` with a message, and if it does not, the
# client falls back to the run's. Complete `lr_to_use`: return the `"lr"` of the message's
# config. If it has none, or if the message has no `"config"` at all, return the run
# config's. Leave both as they are. A node's `lr`, if it has one, is not asked for.
#
# <details><summary>Hint 1</summary>
#
# `"lr" in record` says whether it is there, and `"config" in message.content` likewise.
# </details>
# <details><summary>Hint 2</summary>
#
# A learning rate may be 0.0, in a round in which nothing shall change. What does `if`
# say to 0.0?
# </details>

# %%
from course_utils.exercises import check


def lr_to_use(message: Message, context: Context) -> float:
    """Return the learning rate that the client should train with."""
    ### BEGIN SOLUTION
    config = message.content.get("config", {})
    if "lr" in config:
        return config["lr"]
    return context.run_config["lr"]
    ### END SOLUTION


# %%
check("4.1", lr_to_use)

# %% [markdown] tags=["solution"]
# **Why this.** The message is about this round, the run config about the whole run, so
# the message comes first. **What people get wrong:** they read the run config alone,
# which is right until a server sends something else; or they write
# `config.get("lr") or ...`, which takes a 0.0 that was sent for nothing sent.

# %% [markdown] tags=["slide"]
# ## What can a ClientApp remember?
#
# So much for what a client knows. To remember something, there are three obvious places:
# a global number, a global list, and an attribute of the app.

# %% tags=["slide-more"]
calls = 0
seen = []
client_app = ClientApp()
client_app.calls = 0


@client_app.train()
def train(message: Message, context: Context) -> Message:
    global calls
    calls += 1
    seen.append(context.node_id)
    client_app.calls += 1
    found = {"number": calls, "list": len(seen), "attribute": client_app.calls}
    return Message(
        RecordDict({"metrics": MetricRecord(found)}), reply_to=message
    )


# %% [markdown] tags=["slide"]
# **Predict:** one node gets three messages. What does each of the three places hold on
# the first, the second and the third?

# %% tags=["slide-then"]
grid = InProcessGrid(client_app, num_supernodes=3, seed=0)
first, second, third = grid.get_node_ids()
for _ in range(3):
    (reply,) = grid.send_and_receive([Message(RecordDict(), first, "train")])
    print(dict(reply.content["metrics"]))
    assert set(reply.content["metrics"].values()) == {1}

# %% [markdown] tags=["slide-then"]
# One, each time. Each call gets a **fresh copy** of the app, and of the globals that
# its functions use, as they were when the grid was made. (Imported modules are not
# copied.) After the call the copy is thrown away. So nothing reaches the notebook's own
# variables either:

# %% tags=["slide-more", "slide-output"]
print(calls, len(seen), client_app.calls)
assert calls == len(seen) == client_app.calls

# %% [markdown] tags=["slide"]
# Now call `train` by hand, as a plain function, once for each of the three nodes.
# **Predict:** what does each call print?

# %% tags=["slide-then"]
calls_before = calls
for node_id in (first, second, third):
    message = Message(RecordDict(), node_id, "train")
    reply = train(message, grid.node_contexts[node_id])
    print(dict(reply.content["metrics"]))
assert calls == calls_before + 3

# %% [markdown] tags=["slide"]
# 1, 2, 3: one process, one set of globals. It seems to remember, and it misleads twice:
# it forgets as soon as the app runs on a deployment, and even here it does not count
# what you meant, since *three different nodes* share one counter. What a call finds in
# a global depends on where it runs:
#
# | where | a global holds |
# |---|---|
# | by hand, in this notebook | what the last call left, of whichever node |
# | `InProcessGrid` | what it held when the grid was made |
# | a SuperNode | what the file sets: for each message a new process loads the app |
# | Simulation Runtime | what the last call *in that worker* left, of whichever node |

# %% [markdown]
# - The Simulation Runtime has a few worker processes for all nodes, and gives a message
#   to any that is idle. A worker goes on living, and its globals with it. So a counter
#   in a global counts some calls of some nodes there. That is worse than zero: it looks
#   right.
# - Such an app is called **ephemeral**: it lives for one message. Write each function
#   as if the process ended with its `return`.
# - What only saves time may stay: `load_partition` remembers, in its module, tensors that
#   it has read. An answer must not depend on it.

# %% [markdown] tags=["slide"]
# ## context.state: what survives
#
# One thing comes back on the next message: `context.state`. It is a `RecordDict`.
# **Predict:** can the counter go straight in?

# %% tags=["slide-then"]
from operator import setitem

print(outcome(setitem, RecordDict(), "calls", 1))
print(outcome(setitem, RecordDict(), "counter", MetricRecord({"calls": 1})))

# %% [markdown] tags=["slide-more"]
# Only records, as in lesson 01: on a deployment, the state travels between the
# SuperNode and the ClientApp's process, as a message would. So a number goes into a
# `MetricRecord`. On the first message there is none yet:


# %% tags=["slide-more"]
def count(context: Context) -> int:
    if "counter" not in context.state:
        context.state["counter"] = MetricRecord({"calls": 0})
    context.state["counter"]["calls"] += 1
    return context.state["counter"]["calls"]


# %% [markdown]
# And a history is a list in a `MetricRecord`. Here, of the learning rates that the
# server has sent. Each time a new record takes the place of the old one, because a
# record checks what it is given. An `append` to a list inside it would be kept, but not
# checked: a wrong type would fail when the state is packed, after your function.


# %%
def rates(context: Context) -> list[float]:
    return context.state["history"]["lr"] if "history" in context.state else []


def remember(context: Context, lr: float) -> None:
    longer = [*rates(context), lr]
    context.state["history"] = MetricRecord({"lr": longer})


# %% [markdown]
# Both functions of this app count. The first writes the history, the second reads it:

# %%
client_app = ClientApp()


@client_app.train()
def train_and_remember(message: Message, context: Context) -> Message:
    remember(context, message.content["config"]["lr"])
    metrics = MetricRecord({"calls": count(context)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@client_app.evaluate()
def evaluate_and_count(message: Message, context: Context) -> Message:
    rounds = len(rates(context))
    metrics = MetricRecord({"calls": count(context), "rounds-trained": rounds})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


# %% [markdown] tags=["slide"]
# **Predict:** three rounds of `train` and `evaluate`. The first node takes part in all
# of them, the second only in round 1, the third in none. What do the three remember?


# %% tags=["slide-then", "slide-output"]
def send(
    grid: InProcessGrid, node: int, message_type: str, config: dict
) -> Message:
    content = RecordDict({"config": ConfigRecord(config)})
    (reply,) = grid.send_and_receive([Message(content, node, message_type)])
    return reply


grid = InProcessGrid(client_app, num_supernodes=3, seed=0)
first, second, third = grid.get_node_ids()
for server_round, nodes in enumerate([(first, second), (first,), (first,)]):
    for node in nodes:
        send(grid, node, "train", {"lr": 0.01 * 0.5**server_round})
        reply = send(grid, node, "evaluate", {})
print("last reply:", dict(reply.content["metrics"]))
assert reply.content["metrics"] == {"calls": 6, "rounds-trained": 3}

# %% [markdown]
# `grid.node_contexts` holds each node's Context, so here, and only here, you can look
# into what the nodes remember:

# %% tags=["slide-then"]
for node in (first, second, third):
    state = grid.node_contexts[node].state
    print({name: dict(record) for name, record in state.items()})
assert len(grid.node_contexts[first].state["history"]["lr"]) == 3
assert grid.node_contexts[second].state["counter"]["calls"] == 2
assert not grid.node_contexts[third].state

# %% [markdown]
# - The state lasts across functions and rounds, and each node has its own.
# - It stays on the node. The last reply carried two numbers and no history: the server
#   gets what a reply contains, and nothing else.
# - A node that takes part for the first time in round 7 has an empty state then. So ask
#   `if "counter" in context.state`, as `count` and `rates` do, not which round it is.
#
# **Predict:** a new run of the same app. What do the nodes remember of the last?

# %%
grid = InProcessGrid(client_app, num_supernodes=3, seed=0)
reply = send(grid, grid.get_node_ids()[0], "train", {"lr": 0.01})
print(dict(reply.content["metrics"]))
assert reply.content["metrics"]["calls"] == 1

# %% [markdown]
# Nothing. A grid is a run, and a state ends with its run. So it is with Flower: a
# second `flwr run` starts with empty states, on the same SuperNodes, too. And a SuperNode
# keeps states in memory, so if it is restarted, they are gone (as its source has it).
# What must outlive a run belongs in a file, written by the ClientApp.

# %% [markdown]
# ### Exercise 4.2: count by type
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 2 of 3, apply | 8 | a counter that works by hand may forget or mix clients in a run |
#
# Complete `count_calls`. It handles messages of any type, and replies with one record,
# `"metrics"`, of two numbers: `"calls"`, how many messages *of this type* this node has
# got in this run, the one at hand included, and `"num-examples"`, 1, so that a strategy
# counts every node alike. A named action, such as `"train.head"`, is a type of its own.
# The check calls the function as a grid does: each message gets a fresh copy of it, and
# several nodes take turns.
#
# <details><summary>Hint 1</summary>
#
# `message.metadata.message_type` is the type. It is a string, and any string can be a
# key of a `MetricRecord`.
# </details>
# <details><summary>Hint 2</summary>
#
# There are two first times: the node's first message of all, when its state is empty,
# and its first message of another type.
# </details>
# <details><summary>Hint 3</summary>
#
# `dict(record)` makes a dictionary of a record, `counts.get(key, 0)` takes 0 for what is
# missing, and `MetricRecord(counts)` makes a record again.
# </details>


# %%
def count_calls(message: Message, context: Context) -> Message:
    """Reply with how many messages of this type the node has got."""
    ### BEGIN SOLUTION
    kind = message.metadata.message_type
    counts = {}
    if "calls" in context.state:
        counts = dict(context.state["calls"])
    counts[kind] = counts.get(kind, 0) + 1
    context.state["calls"] = MetricRecord(counts)
    metrics = MetricRecord({"calls": counts[kind], "num-examples": 1})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
    ### END SOLUTION


# %%
check("4.2", count_calls)

# %% [markdown] tags=["solution"]
# **Why this.** Of all that a call leaves behind, only `context.state` is there on the
# node's next message, so the counts are read from it and put back into it. **What people
# get wrong:** a global, a default argument or an attribute, all of which count when the
# function is called by hand; or a new record that holds the count of this type alone, and
# so forgets the others.

# %% [markdown]
# ## When a call raises
#
# This app counts, and then fails if it is told to. **Predict:** does a call that raised
# an exception count?

# %%
client_app = ClientApp()


@client_app.train()
def count_and_fail(message: Message, context: Context) -> Message:
    calls = count(context)
    if message.content["config"]["fail"]:
        raise RuntimeError("out of memory")
    metrics = MetricRecord({"calls": calls})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


# %%
grid = InProcessGrid(
    client_app, num_supernodes=1, seed=0, client_errors="reply"
)
(node_id,) = grid.get_node_ids()
in_state = []
for fail in (False, True, False):
    content = RecordDict({"config": ConfigRecord({"fail": fail})})
    (reply,) = grid.send_and_receive([Message(content, node_id, "train")])
    in_state.append(grid.node_contexts[node_id].state["counter"]["calls"])
    print(reply.error.reason if reply.has_error() else "fine", in_state[-1])
assert in_state == [1, 1, 2]

# %% [markdown]
# - Not here: the node keeps the state that it had before the call. The Simulation
#   Runtime does the same.
# - A SuperNode does not. When a call raises, it stores the state as the exception left
#   it, so the same three messages give 1, 2, 3 there.
# - You need not care if you **change the state last**, just before the `return`: then a
#   call has changed either all of it or nothing, wherever it runs. `count`, called first
#   as it is here, is what not to do.

# %% [markdown] tags=["slide"]
# ## A head that never leaves the client
#
# A state can hold arrays, too, and so a part of the model. That makes a federation of
# another kind. Our `Net` has a `body`, the convolutions, and a `head`, the last linear
# layer. Suppose clients have very different labels. What a stroke looks like is the
# same everywhere, so the body is shared and averaged. Which label to bet on is not:
# each client keeps a **local head**, trains it, and never sends it. (This is FedPer:
# Arivazhagan et al., 2019, <https://arxiv.org/abs/1912.00818>.)
#
# Which parts are shared is settled before the run, so it is a run config. It would be a
# list, so it is a string:


# %% tags=["slide-more"]
def is_shared(name: str, context: Context) -> bool:
    return name.split(".")[0] in context.run_config["shared"].split()


# %% [markdown]
# A client puts its model together from what the message brings, and from what its state
# holds. (A network that has just been made brings the rest: on the first message, a
# random head.) `strict=False` lets a `state_dict` have only some of the names. It also
# ignores a misspelt one.

# %%
from course_utils import model
from course_utils.model import Net
from course_utils.partitions import image_shape


def load_net(message: Message, context: Context) -> Net:
    net = Net(image_shape())
    net.load_state_dict(
        message.content["arrays"].to_torch_state_dict(), strict=False
    )
    if "own" in context.state:
        own = context.state["own"].to_torch_state_dict()
        net.load_state_dict(own, strict=False)
    return net


# %% [markdown]
# Data as skewed as in lesson 02, Dirichlet with alpha = 0.1:

# %%
from torch.utils.data import DataLoader


def load_data(context: Context) -> tuple[DataLoader, DataLoader]:
    return load_partition(
        context.node_config["partition-id"],
        context.node_config["num-partitions"],
        scheme="dirichlet",
        alpha=0.1,
    )


# %%
def train(message: Message, context: Context) -> Message:
    net = load_net(message, context)
    trainloader, _ = load_data(context)
    loss = model.train(net, trainloader, lr=context.run_config["lr"])
    weights = net.state_dict()
    shared = {n: w for n, w in weights.items() if is_shared(n, context)}
    own = {n: w for n, w in weights.items() if not is_shared(n, context)}
    metrics = {"train-loss": loss, "num-examples": len(trainloader.dataset)}
    content = {"arrays": ArrayRecord(shared), "metrics": MetricRecord(metrics)}
    context.state["own"] = ArrayRecord(own)  # stays here
    return Message(RecordDict(content), reply_to=message)


# %%
def evaluate(message: Message, context: Context) -> Message:
    net = load_net(message, context)
    _, testloader = load_data(context)
    loss, accuracy = model.test(net, testloader)
    metrics = {
        "eval-loss": loss,
        "eval-accuracy": accuracy,
        "num-examples": len(testloader.dataset),
    }
    return Message(
        RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message
    )


# %% [markdown]
# **Predict:** the server sends a body only. Which names come back, and which are in the
# state? And does leaving the head at home save bytes, or is one layer not worth
# mentioning?

# %%
client_app = ClientApp()
client_app.train()(train)
client_app.evaluate()(evaluate)

NUM_CLIENTS = 10
app_config = {"shared": "body", "lr": 0.01}
grid = InProcessGrid(client_app, NUM_CLIENTS, run_config=app_config, seed=0)
node_id = grid.get_node_ids()[0]

weights = Net(image_shape()).state_dict()
body = {name: w for name, w in weights.items() if name.startswith("body.")}
message = Message(RecordDict({"arrays": ArrayRecord(body)}), node_id, "train")
(reply,) = grid.send_and_receive([message])

came_back = reply.content["arrays"]
stayed = grid.node_contexts[node_id].state["own"]
for where, record in (("reply", came_back), ("state", stayed)):
    print(f"{where}: {record.count_bytes():,} bytes, {list(record)}")

# %% [markdown]
# The grid's list of messages says the same, and so does the arithmetic:

# %%
metrics_bytes = reply.content["metrics"].count_bytes()
assert grid.messages[-1].bytes == came_back.count_bytes() + metrics_bytes
assert not any(name.startswith("head") for name in came_back)
whole = ArrayRecord(weights).count_bytes()
assert came_back.count_bytes() + stayed.count_bytes() == whole
assert stayed.count_bytes() > whole / 2
print(f"the grid counted {grid.messages[-1].bytes:,} bytes, metrics included")

# %% [markdown]
# - The head is in no message. And it is more than half of the model: a convolution uses
#   the same few parameters all over the image, while the head has one for each of its
#   inputs and each label.
# - The server needs no head at all. It averages whatever arrays it gets, name by name.
# - "Never leaves" does not mean "leaves no trace": the body was trained together with
#   the head, on the same data, and the body does leave.
#
# ## Does it help?
#
# Measure it: a whole federation, by hand, as in lesson 00. First, sending and
# averaging:

# %%
from course_utils.model import weighted_average


def send_to_all(grid: InProcessGrid, weights: dict, message_type: str) -> list:
    content = RecordDict({"arrays": ArrayRecord(weights)})
    nodes = grid.get_node_ids()
    return grid.send_and_receive(
        [Message(content, n, message_type) for n in nodes]
    )


def average_of(replies: list[Message]) -> dict:
    weights = [
        reply.content["arrays"].to_torch_state_dict() for reply in replies
    ]
    counts = [reply.content["metrics"]["num-examples"] for reply in replies]
    return weighted_average(weights, counts)


# %% [markdown]
# Then the rounds. At the end each client tests on its **own test data**, whose labels
# are shared out as those of its train data are:

# %%
import torch

from course_utils import with_progress

NUM_ROUNDS = 5


# %%
def federate(
    shared: str, seed: int = 0
) -> tuple[InProcessGrid, dict, list[float]]:
    app_config = {"shared": shared, "lr": 0.01}
    grid = InProcessGrid(
        client_app, NUM_CLIENTS, run_config=app_config, seed=seed
    )
    torch.manual_seed(seed)
    start = Net(image_shape()).state_dict()
    average = {
        n: w for n, w in start.items() if n.split(".")[0] in shared.split()
    }
    for _ in with_progress(range(NUM_ROUNDS), doing="rounds"):
        average = average_of(send_to_all(grid, average, "train"))
    tested = send_to_all(grid, average, "evaluate")
    accuracies = [
        reply.content["metrics"]["eval-accuracy"] for reply in tested
    ]
    return grid, average, accuracies


# %% [markdown] tags=["slide"]
# Three runs of one app. They differ in one setting of the run config, `shared`:
#
# - `"body head"`: all is shared. One global model with one **global head**, that is
#   FedAvg.
# - `"body"`: a shared body, and a **local head** for each client.
# - `""`: nothing is shared. Each client trains **alone**, for just as long, and its
#   whole model stays in its state. Without this run we could not say what sharing is
#   good for.
#
# **Predict:** which does best on the clients' own test data, and which worst?

# %%
_, global_weights, global_head = federate("body head")
local_grid, shared_body, local_head = federate("body")
_, _, alone = federate("")

# %% tags=["slide", "slide-output", "nbval-ignore-output"]
from statistics import mean

from course_utils.plots import plot_client_bars

runs = {"global head": global_head, "local head": local_head, "alone": alone}
plot_client_bars(runs, ylabel="accuracy on the client's own test data")
for name, accuracies in runs.items():
    print(f"{name:11}  {mean(accuracies):.3f} on average")

# %%
from course_utils.data import DEFAULT_DATASET, dataset_name

assert mean(local_head) > mean(global_head)
if dataset_name() == DEFAULT_DATASET:
    assert mean(local_head) > mean(global_head) + 0.04
    pairs = list(zip(global_head, local_head, alone, strict=True))
    assert sum(by_local < by_global for by_global, by_local, _ in pairs) <= 2
    assert sum(by_own > by_global for by_global, _, by_own in pairs) >= 7
    assert mean(global_head) < mean(alone)
    assert abs(mean(local_head) - mean(alone)) < 0.05
    contexts = list(local_grid.node_contexts.values())
    assert len(load_data(contexts[7])[1].dataset) == 11

# %% [markdown] tags=["slide"]
# With the default dataset:
#
# - A local head helps, and helps nearly every client. The global head has to be right
#   about all ten labels; the local one only about the labels that its client has.
# - But clients that train **alone** do better than with the global head, too, most of
#   them and on average, and come within five points of the local head. So most of the
#   gain is that a client need not care for labels it never sees. What the shared body
#   adds is little.
# - Mind client 7: it has 11 test examples, so one answer is 9 points.

# %% [markdown]
# And there is a price. **Predict:** the ten models with local heads, each tested on the
# whole test set, with all ten labels?

# %%
from course_utils.partitions import load_centralized

_, all_testloader = load_centralized()
net = Net(image_shape())
net.load_state_dict(global_weights)
global_on_all = model.test(net, all_testloader)[1]
local_on_all = []
for context in local_grid.node_contexts.values():
    own_head = context.state["own"].to_torch_state_dict()
    net.load_state_dict({**shared_body, **own_head})
    local_on_all.append(model.test(net, all_testloader)[1])

# %% tags=["nbval-ignore-output"]
print(f"global head  {global_on_all:.3f}")
print(f"local heads  {mean(local_on_all):.3f} on average")
if dataset_name() == DEFAULT_DATASET:
    assert max(local_on_all) < global_on_all
    assert mean(local_on_all) < global_on_all / 2

# %% [markdown]
# Each is worse than the global one. A client's model is now good at home, and only there.
# Whether that is what you want depends on where it will be used. And on the rounds: five
# are few. (Tried: after 15, global and local head are less than half as far apart.)

# %% [markdown]
# ### Exercise 4.3: remember the best
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 3 of 3, build | 12 | a new average can be worse for one client than the last one was |
#
# So let a client keep the best model that it was ever sent. Complete `keep_best`, which
# handles evaluate messages:
#
# - `test_fn` tests an `ArrayRecord` on the client's test data:
#   `loss, accuracy = test_fn(arrays)`. Test the arrays of the message.
# - Reply with one record, `"metrics"`, of four numbers: the `"eval-accuracy"` of these
#   arrays, the `"best-accuracy"` that this node has had so far, this message included,
#   the `"best-round"` in which it had it, and `"num-examples"`, as handed over. Which
#   round it is, `"server-round"` in the message's config says.
# - Keep the arrays of the best round, and no others, in `context.state["best"]`.
# - Where a round only equals the best so far, the earlier one stays the best.
#
# <details><summary>Hint 1</summary>
#
# Two things must be there on the next message: arrays, and two numbers. They go into
# two records of the state.
# </details>
# <details><summary>Hint 2</summary>
#
# When is this message's accuracy the best so far? If it is higher than the one kept, or
# if none is kept yet.
# </details>
# <details><summary>Hint 3</summary>
#
# Test first. Once nothing can fail any more, bring the state up to date, and build the
# reply from it.
# </details>

# %%
from collections.abc import Callable


def keep_best(
    message: Message, context: Context, test_fn: Callable, num_examples: int
) -> Message:
    """Test the message's arrays, keep the best, reply with both accuracies."""
    ### BEGIN SOLUTION
    arrays = message.content["arrays"]
    _, accuracy = test_fn(arrays)
    kept = context.state.get("reached")
    if kept is None or accuracy > kept["best-accuracy"]:
        server_round = message.content["config"]["server-round"]
        kept = MetricRecord(
            {"best-accuracy": accuracy, "best-round": server_round}
        )
        context.state["best"] = arrays
        context.state["reached"] = kept
    metrics = {"eval-accuracy": accuracy, **kept, "num-examples": num_examples}
    content = RecordDict({"metrics": MetricRecord(metrics)})
    return Message(content, reply_to=message)
    ### END SOLUTION


# %%
check("4.3", keep_best)

# %% [markdown] tags=["solution"]
# **Why this.** The best arrays are the best only together with their accuracy and their
# round, so the three are replaced together or not at all, after the test, which might
# raise. **What people get wrong:** they begin with a best of 0.0, so that a node whose
# first accuracy is 0.0 has no best; they compare with `>=`; or they keep the arrays of
# every round, which fills the node's memory.

# %% [markdown] tags=["slide"]
# ## Takeaways
#
# - **`node_config`** says which node this is, and so which data are its own. Whoever
#   starts the node sets it.
# - **The run config** holds what is settled before the run, in `bool`, `int`, `float`
#   and `str`. **A message's config** holds what the server decides as it goes.
# - **A global or an attribute** holds on the next message what it held at the start, or
#   what some other node left there. A ClientApp is ephemeral; by hand, you do not see
#   it.
# - **`context.state`** takes records: a counter and a history as MetricRecords, a part
#   of the model as an ArrayRecord. None of it is in a reply unless you put it there.
# - **A state** belongs to one node in one run, and is empty at first. A call that
#   raises may or may not have changed it, so change it last.

# %% [markdown]
# ## Check yourself
#
# <details><summary>1. A client should train with half the usual learning rate because
# its machine is special. The server should halve everybody's after round 10. Where does
# each of the two go?</summary>
#
# The first into that node's `node_config`: it is true of the node. The second into the
# config of the messages from round 11 on: only the server knows the round.
# </details>
#
# <details><summary>2. You keep each client's head in a global dictionary,
# <code>heads[context.node_id]</code>. By hand it works. What happens on a SuperNode,
# and what in the Simulation Runtime?</summary>
#
# On a SuperNode the dictionary is empty at each message, and every round begins with a
# random head. In the Simulation Runtime it depends on which worker gets the message:
# the head is there, or is missing, or is an old one from some rounds ago. No error in
# either.
# </details>
#
# <details><summary>3. <code>context.state["history"]["lr"].append("fast")</code> goes
# through. Why is that not a reason to use <code>append</code>?</summary>
#
# A record checks what is assigned to a key. The list inside is an ordinary list, so
# what does not belong there is noticed only when the state is packed, after your
# function has returned, and the error names no line of yours.
# </details>
#
# <details><summary>4. Can the server read <code>context.state</code> of a client?
# </summary>
#
# No. It gets replies, and only what the ClientApp has put into them.
# `grid.node_contexts` is possible because this notebook plays the server and all nodes
# at once.
# </details>
#
# <details><summary>5. With local heads, a client is asked to evaluate before it has
# ever trained. What does it answer?</summary>
#
# The accuracy of a shared body with a random head: about what guessing gives. Its state
# has no `"own"` yet, and `load_net` takes the head of a new network. No error.
# </details>
#
# <details><summary>6. All clients have the same labels in the same shares. Local heads
# or a global one?</summary>
#
# A global one. No client has labels to specialise in, and each local head learns from a
# tenth of the data. Tried: with `scheme="iid"` the global head does better at nearly
# every client.
# </details>
#
# **Next:** [05 · The ServerApp](05_server_app.ipynb), where the loop that we have run
# by hand becomes an app as well.

# %%
from course_utils.exercises import progress

progress("04")
