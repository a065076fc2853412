# %% [markdown] tags=["slide"]
# # 04 · Context and state
#
# **What does a client know about itself, and what can it remember?**
#
# After this lesson you can
#
# - tell a ClientApp which data are its own, with `node_config`, by a number or by a path,
# - decide whether a setting belongs in the run config or in a message's config,
# - predict what a global variable or an attribute of the app holds on the next message,
# - keep a counter, a history and a part of the model in `context.state`,
# - say to whom a state belongs, when it ends, and what an exception does to it.
#
# **You need:** lessons 00 to 03. **Time:** 85 minutes, 23 of them for the exercises.

# %% [markdown] tags=["slide"]
# ## The Context
#
# A ClientApp is called with a Message and a Context. The message comes from the server.
# The Context comes from the client's own side: it holds what a client knows about the run
# and about itself. A grid makes one for each node:

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

# %% [markdown] tags=["slide", "title: What is in it"]
# | field | what it says | who sets it |
# |---|---|---|
# | `run_id` | which run this is | Flower |
# | `node_id` | which node this is | Flower |
# | `node_config` | what is special about this node | who starts the node |
# | `run_config` | the settings of this run | who starts the run |
# | `state` | what this node remembers of this run; empty at first | the ClientApp |
#
# (A sixth field, `series_id`, ties several runs together. This course does not use it.)

# %% [markdown] tags=["slide"]
# ## node_config: which client am I?
#
# This query answers with an entry of the node config, and with the number of examples
# that follows from it:

# %% tags=["slide-more"]
from course_utils.partitions import load_partition

who_app = ClientApp()


@who_app.query()
def who_am_i(message: Message, context: Context) -> Message:
    partition_id = context.node_config["partition-id"]
    total = context.node_config["num-partitions"]
    trainloader, _ = load_partition(partition_id, total, scheme="linear")
    num_examples = len(trainloader.dataset)
    answer = {"partition": partition_id, "num-examples": num_examples}
    content = RecordDict({"metrics": MetricRecord(answer)})
    return Message(content, reply_to=message)


# %% [markdown] tags=["slide"]
# **Predict:** three nodes run this one function. Somebody starts the third with the
# `partition-id` of the second, by mistake. What do the three answer, and who notices?


# %% tags=["slide-then"]
def ask(grid: InProcessGrid) -> list[Message]:
    nodes = grid.get_node_ids()
    messages = [Message(RecordDict(), node, "query") for node in nodes]
    return grid.send_and_receive(messages)


grid = InProcessGrid(who_app, num_supernodes=3, seed=0)
list(grid.node_contexts.values())[2].node_config["partition-id"] = 1
answers = [dict(reply.content["metrics"]) for reply in ask(grid)]
print(*answers, sep="\n")
assert [answer["partition"] for answer in answers] == [0, 1, 1]

# %% [markdown] tags=["slide", "title: Who does what"]
# - The message says what to do. The Context says who does it.
# - Nobody notices. Two nodes work on one partition, and no node on the last.
# - The grid sets `partition-id` and `num-partitions`. Flower's Simulation Runtime sets
#   the same two, and nothing else.
# - Whoever starts a SuperNode sets what they like, by
#   `--node-config "partition-id=1 num-partitions=3"` (lesson 07).

# %% [markdown]
# ### A path of one's own
#
# A hospital has no partition of anything. It has a folder of its own, and starts its
# SuperNode with `--node-config "data-path='/data/scans.csv'"`. (The inner quotes make it
# a string.) The ClientApp opens what this path names:

# %%
from pathlib import Path

rows_app = ClientApp()


@rows_app.query()
def count_rows(message: Message, context: Context) -> Message:
    if "data-path" not in context.node_config:
        raise ValueError("Start this SuperNode with a data-path.")
    table = Path(context.node_config["data-path"]).read_text()
    answer = MetricRecord({"num-examples": len(table.splitlines()) - 1})
    return Message(RecordDict({"metrics": answer}), reply_to=message)


# %% [markdown]
# Here, we play the people who start the SuperNodes: two hospitals, each with a file of
# its own. **Predict:** what does the server learn about the paths?

# %%
import tempfile

grid = InProcessGrid(rows_app, num_supernodes=2, seed=0)
with tempfile.TemporaryDirectory() as folder:
    for rows, context in enumerate(grid.node_contexts.values(), start=2):
        path = Path(folder) / f"hospital-{rows}.csv"
        path.write_text("age,ill\n" + "61,1\n" * rows)
        context.node_config["data-path"] = str(path)
    print([dict(reply.content["metrics"]) for reply in ask(grid)])

# %% [markdown]
# Nothing: no message carries the node config. So each client may keep its data wherever
# it likes, and the same ClientApp serves all of them.

# %% [markdown] tags=["slide"]
# ## run_config: what holds for the whole run
#
# An app has its settings in its `pyproject.toml`, in a table of their own. Lesson 06
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
# **Predict:** the message is still empty. How many bytes does it have, and which `lr` do
# the nodes find?

# %% tags=["slide-then", "slide-output"]
lr_app = ClientApp()


@lr_app.query()
def which_lr(message: Message, context: Context) -> Message:
    answer = MetricRecord({"lr": context.run_config["lr"]})
    return Message(RecordDict({"metrics": answer}), reply_to=message)


grid = InProcessGrid(lr_app, 3, run_config=run_config, seed=0)
print([reply.content["metrics"]["lr"] for reply in ask(grid)])
sizes = [m.bytes for m in grid.messages if not m.is_reply]
print("bytes of each message:", sizes)
assert sum(sizes) == 0

# %% [markdown]
# All nodes find the same. The messages were empty, so the run config did not come with
# them. On a deployment, a SuperNode gets it together with the app, once a run.
#
# A value is a `bool`, an `int`, a `float` or a `str`. A list of layers is none of these.
# (`outcome` is lesson 01's helper. It returns the error as text.)

# %%
from course_utils import outcome


def start_with(setting: dict) -> None:
    InProcessGrid(lr_app, 3, run_config={**run_config, **setting})


print(outcome(start_with, {"layers": ["body", "head"]}))
print(outcome(start_with, {"layers": "body head"}))

# %% [markdown]
# - The grid refuses the list before anything runs. So does `flwr run`, the command that
#   starts a run on Flower's runtimes. Write the list as one string, and `.split()` it in
#   the app.
# - `flwr run . --run-config "lr=0.1"` changes a setting for one run. Lesson 06 tries that,
#   and what is refused.
# - **Only read the run config.** This ClientApp changes it, and the grid drops the change
#   (the Simulation Runtime answers with an error, as Flower's source has it):

# %%
greedy_app = ClientApp()


@greedy_app.query()
def change_lr(message: Message, context: Context) -> Message:
    context.run_config["lr"] = 1.0
    return Message(RecordDict(), reply_to=message)


grid = InProcessGrid(greedy_app, 3, run_config=run_config, seed=0)
ask(grid)
print([context.run_config["lr"] for context in grid.node_contexts.values()])

# %% [markdown]
# ## A message's config: what the server decides as it goes
#
# Some settings change during the run. A well-known example is a learning rate that halves
# each round. Only the server knows which round it is. So the server says it, in a
# `ConfigRecord` of the message:

# %%
both_app = ClientApp()


@both_app.train()
def read_both(message: Message, context: Context) -> Message:
    found = {
        "message's lr": message.content["config"]["lr"],
        "run's lr": context.run_config["lr"],
        "run's local-epochs": context.run_config["local-epochs"],
    }
    content = RecordDict({"metrics": MetricRecord(found)})
    return Message(content, reply_to=message)


# %% [markdown]
# **Predict:** the run config has an `lr` as well. Which of the three numbers change
# from round to round?


# %%
grid = InProcessGrid(both_app, 1, run_config=run_config, seed=0)
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
# Only the message's. If a client of this app took its `lr` from the run config, it would
# train at 0.01 in every round, whatever the server says, and no error would say so. Here
# the *server* starts from the run's `lr`, and a *client* uses the message's. Where the
# rate stays the same, a client may read the run's: at the end of this lesson, it does. So
# decide for each setting where the client reads it.

# %% [markdown] tags=["slide"]
# | | `node_config` | `run_config` | message's config |
# |---|---|---|---|
# | holds for | one node, in all runs | all nodes, for one run | one message |
# | set by | who starts the node | who starts the run | the ServerApp, as it goes |
# | read from | the Context | the Context | the message's content |
# | values | `bool`, `int`, `float`, `str` | the same | also `bytes`, and lists |
# | such as | `partition-id` | `local-epochs` | `server-round`, a decaying `lr` |
#
# **Rule of thumb:**
#
# - The setting belongs to this machine, whatever runs on it: node config.
# - It is settled before the run starts: run config.
# - It differs from round to round, or from client to client: message's config.

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
# config's. Leave both as they are. Ignore an `lr` in the node config.
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
# Until here, this lesson was about what a client knows. What can it remember? There are
# three obvious places: a global number, a global list, and an attribute of the app.

# %% tags=["slide-more"]
calls = 0
seen = []
counting_app = ClientApp()
counting_app.calls = 0


@counting_app.train()
def count_three_ways(message: Message, context: Context) -> Message:
    global calls
    calls += 1
    seen.append(context.node_id)
    counting_app.calls += 1
    found = {"number": calls, "list": len(seen)}
    found["attribute"] = counting_app.calls
    content = RecordDict({"metrics": MetricRecord(found)})
    return Message(content, reply_to=message)


# %% [markdown] tags=["slide"]
# **Predict:** one node gets three messages. What does each of the three places hold on
# the first, the second and the third?

# %% tags=["slide-then"]
grid = InProcessGrid(counting_app, num_supernodes=3, seed=0)
first, second, third = grid.get_node_ids()
for _ in range(3):
    (reply,) = grid.send_and_receive([Message(RecordDict(), first, "train")])
    print(dict(reply.content["metrics"]))
    assert set(reply.content["metrics"].values()) == {calls + 1}

# %% [markdown] tags=["slide-then"]
# One, each time. Each call gets a **fresh copy** of the app and of the globals that its
# functions use, as they were when the grid was made. (Imported modules are not copied.)
# After the call the copy is thrown away. So the notebook's own variables do not change
# either:

# %% tags=["slide-more", "slide-output"]
print(calls, len(seen), counting_app.calls)
assert calls == len(seen) == counting_app.calls

# %% [markdown] tags=["slide", "title: Predict: called by hand"]
# Now call the function by hand, as a plain function, once for each of the three nodes.
# **Predict:** what does each call print?

# %% tags=["slide-then"]
calls_before = calls
for node_id in (first, second, third):
    message = Message(RecordDict(), node_id, "train")
    reply = count_three_ways(message, grid.node_contexts[node_id])
    print(dict(reply.content["metrics"]))
assert calls == calls_before + 3

# %% [markdown] tags=["slide", "title: How a global misleads"]
# 1, 2, 3: there is one process, with one set of globals. It seems to remember, but it
# misleads you twice. On a deployment the app forgets. And even here it does not count
# what you meant: *three different nodes* share one counter. What a call finds in a global
# depends on where it runs:
#
# | where | a global holds |
# |---|---|
# | by hand, in this notebook | what the last call left, of whichever node |
# | `InProcessGrid` | what it held when the grid was made |
# | a SuperNode | what the file sets: for each message a new process loads the app |
# | Simulation Runtime | what the last call *in that worker* left, of whichever node |

# %% [markdown]
# - Lesson 07 shows the third row: its SuperNode starts a process for each message.
# - The last row is Flower's source's: a few workers serve all nodes, and go on living. A
#   counter in a global counts some calls of some nodes there. That is worse than zero,
#   because it looks right.
# - Such an app is called **ephemeral**: it lives for one message. Write each function
#   as if the process ended with its `return`.
# - A global may keep what only saves time. `load_partition` keeps the tensors that it has
#   read, in its module. An answer must not depend on it.

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
# It takes records only, as in lesson 01. On a deployment, the state travels between the
# SuperNode and the ClientApp's process, as a message does. So put the number into a
# `MetricRecord`. On the first message there is none yet:


# %% tags=["slide-more"]
def count(context: Context) -> int:
    if "counter" not in context.state:
        context.state["counter"] = MetricRecord({"calls": 0})
    context.state["counter"]["calls"] += 1
    return context.state["counter"]["calls"]


# %% [markdown]
# A history is a list in a `MetricRecord`. This one holds the learning rates that the
# server has sent. Each call puts a new list into a new record. Why not `append` to the
# old list? A record checks each list that you give it. Does it check an `append`?


# %%
def rates(context: Context) -> list[float]:
    return context.state["history"]["lr"] if "history" in context.state else []


def remember(context: Context, lr: float) -> None:
    longer = [*rates(context), lr]
    context.state["history"] = MetricRecord({"lr": longer})


# %%
append_app = ClientApp()


@append_app.query()
def append_a_word(message: Message, context: Context) -> Message:
    remember(context, 0.01)
    context.state["history"]["lr"].append("fast")
    print("no error in the function")
    return Message(RecordDict(), reply_to=message)


print(outcome(ask, InProcessGrid(append_app, 1, seed=0)))

# %% [markdown]
# It does not. The error comes after the function, when the state is packed, and names no
# line of yours.
#
# Both functions of the next app count. The first one writes the history, and the second one
# reads it:

# %%
remembering_app = ClientApp()


@remembering_app.train()
def train_and_remember(message: Message, context: Context) -> Message:
    remember(context, message.content["config"]["lr"])
    metrics = MetricRecord({"calls": count(context)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


@remembering_app.evaluate()
def evaluate_and_count(message: Message, context: Context) -> Message:
    rounds = len(rates(context))
    metrics = MetricRecord({"calls": count(context), "rounds-trained": rounds})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


# %% [markdown] tags=["slide"]
# **Predict:** three rounds of `train` and `evaluate`. The first node takes part in all
# of them, the second only in round 1, the third in none. What do the three remember?


# %% tags=["slide-then", "slide-output"]
def send(grid: InProcessGrid, node: int, kind: str, config: dict) -> Message:
    content = RecordDict({"config": ConfigRecord(config)})
    (reply,) = grid.send_and_receive([Message(content, node, kind)])
    return reply


first_run = InProcessGrid(remembering_app, num_supernodes=3, seed=0)
first, second, third = first_run.get_node_ids()
for server_round, nodes in enumerate([(first, second), (first,), (first,)]):
    for node in nodes:
        send(first_run, node, "train", {"lr": 0.01 * 0.5**server_round})
        reply = send(first_run, node, "evaluate", {})
print("last reply:", dict(reply.content["metrics"]))
assert reply.content["metrics"] == {"calls": 6, "rounds-trained": 3}

# %% [markdown]
# `node_contexts` of a grid holds each node's Context. So here, and only here, you can see
# what the nodes remember:

# %% tags=["slide-then"]
for node in (first, second, third):
    state = first_run.node_contexts[node].state
    print({name: dict(record) for name, record in state.items()})
assert len(first_run.node_contexts[first].state["history"]["lr"]) == 3
assert first_run.node_contexts[second].state["counter"]["calls"] == 2
assert not first_run.node_contexts[third].state

# %% [markdown]
# - The state lasts across functions and rounds, and each node has its own.
# - It stays on the node. The last reply carried two numbers and no history. The server
#   gets what a reply contains, and nothing else.
# - A node may take part for the first time in round 7. Its state is empty then. So ask
#   `if "counter" in context.state`, as `count` and `rates` do. Do not ask which round it
#   is.
#
# **Predict:** a new run of the same app begins. What do the nodes remember of the old
# one?

# %%
second_run = InProcessGrid(remembering_app, num_supernodes=3, seed=0)
reply = send(second_run, second_run.get_node_ids()[0], "train", {"lr": 0.01})
print(dict(reply.content["metrics"]))
assert reply.content["metrics"]["calls"] == 1

# %% [markdown]
# Nothing. A grid is a run, and a state ends with its run. Flower does the same: a second
# `flwr run` starts with empty states, even on the same SuperNodes. A SuperNode keeps
# states in memory, so a restart loses them (as its source has it). If something must
# outlive a run, let the ClientApp write it into a file.

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
# This app counts, and then fails if the message says so. **Predict:** is a call counted
# if it raises an exception?

# %%
failing_app = ClientApp()


@failing_app.train()
def count_and_fail(message: Message, context: Context) -> Message:
    calls = count(context)
    if message.content["config"]["fail"]:
        raise RuntimeError("out of memory")
    metrics = MetricRecord({"calls": calls})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


# %%
grid = InProcessGrid(failing_app, 1, seed=0, client_errors="reply")
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
#   it (as Flower's source has it): 1, 2, 3 in place of 1, 1, 2.
# - You need not care if you **change the state last**, just before the `return`. Then a
#   call has changed either all of it or nothing, wherever it runs. This app does it the
#   wrong way: it calls `count` first.

# %% [markdown] tags=["slide"]
# ## A head that never leaves the client
#
# A state can hold arrays, too, and so it can hold a part of the model. Our `Net` has a
# `body`, the convolutions, and a `head`, the last linear layer. Suppose the clients have
# very different labels.
#
# - A stroke looks the same everywhere. So the body is shared and averaged.
# - Which label is likely differs from client to client. So each client keeps a **local
#   head**, trains it, and never sends it.
#
# (This is FedPer: Arivazhagan et al., 2019, <https://arxiv.org/abs/1912.00818>.)
#
# We know before the run which parts are shared, so it is a setting of the run config. It
# would be a list, so it is a string:


# %% tags=["slide-more"]
def is_shared(name: str, run_config: dict) -> bool:
    return name.split(".")[0] in run_config["shared"].split()


# %% [markdown]
# A client puts its model together from two parts: what the message brings, and what its
# state holds. On the first message the state holds no head, so the new network keeps its
# random one. `strict=False` lets a `state_dict` have only some of the names. But it also
# ignores a misspelt name.

# %%
from course_utils import model
from course_utils.model import Net
from course_utils.partitions import image_shape


def load_net(message: Message, context: Context) -> Net:
    net = Net(image_shape())
    sent = message.content["arrays"].to_torch_state_dict()
    net.load_state_dict(sent, strict=False)
    if "own" in context.state:
        own = context.state["own"].to_torch_state_dict()
        net.load_state_dict(own, strict=False)
    return net


# %% [markdown]
# The data are as skewed as in lesson 02, Dirichlet with alpha = 0.1:

# %%
from torch.utils.data import DataLoader


def load_data(context: Context) -> tuple[DataLoader, DataLoader]:
    return load_partition(
        context.node_config["partition-id"],
        context.node_config["num-partitions"],
        scheme="dirichlet",
        alpha=0.1,
    )


# %% [markdown]
# The learning rate stays the same in all rounds, so the run config has it, and the
# messages bring arrays only:


# %%
def train(message: Message, context: Context) -> Message:
    net = load_net(message, context)
    trainloader, _ = load_data(context)
    config = context.run_config
    loss = model.train(net, trainloader, lr=config["lr"])
    weights = net.state_dict()
    shared = {n: w for n, w in weights.items() if is_shared(n, config)}
    own = {n: w for n, w in weights.items() if not is_shared(n, config)}
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
    content = RecordDict({"metrics": MetricRecord(metrics)})
    return Message(content, reply_to=message)


# %% [markdown]
# **Predict:** the server sends a body only. Which names come back, and which are in the
# state?

# %%
client_app = ClientApp()
client_app.train()(train)
client_app.evaluate()(evaluate)

NUM_CLIENTS = 10
app_config = {"shared": "body", "lr": 0.01}
grid = InProcessGrid(client_app, NUM_CLIENTS, run_config=app_config, seed=0)
node_id = grid.get_node_ids()[0]

weights = Net(image_shape()).state_dict()
body = {n: w for n, w in weights.items() if is_shared(n, app_config)}
message = Message(RecordDict({"arrays": ArrayRecord(body)}), node_id, "train")
(reply,) = grid.send_and_receive([message])

came_back = reply.content["arrays"]
stayed = grid.node_contexts[node_id].state["own"]
for where, record in (("reply", came_back), ("state", stayed)):
    print(f"{where}: {record.count_bytes():,} bytes, {list(record)}")

whole = ArrayRecord(weights).count_bytes()
assert came_back.count_bytes() + stayed.count_bytes() == whole
assert stayed.count_bytes() > whole / 2

# %% [markdown]
# - The head does not come back. It is more than half of the model, as lesson 03 showed: a
#   convolution uses the same few parameters all over the image, the head has one for each
#   of its inputs and each label.
# - The server needs no head at all. It averages whatever arrays it gets, name by name.
# - "Never leaves" does not mean "leaves no trace". The body was trained together with
#   the head, on the same data, and the body does leave.

# %% [markdown]
# ## Does it help?
#
# We measure it, with a whole federation by hand, as in lesson 00. First, sending and
# averaging:

# %%
from course_utils.model import weighted_average


def send_to_all(grid: InProcessGrid, weights: dict, message_type: str) -> list:
    content = RecordDict({"arrays": ArrayRecord(weights)})
    nodes = grid.get_node_ids()
    messages = [Message(content, node, message_type) for node in nodes]
    return grid.send_and_receive(messages)


def average_of(replies: list[Message]) -> dict:
    contents = [reply.content for reply in replies]
    weights = [content["arrays"].to_torch_state_dict() for content in contents]
    counts = [content["metrics"]["num-examples"] for content in contents]
    return weighted_average(weights, counts)


# %% [markdown]
# Then the rounds. At the end each client tests on its **own test data**. They have the
# labels of its train data, in the same shares:

# %%
import torch

from course_utils import with_progress

NUM_ROUNDS = 5


def federate(shared: str) -> tuple[InProcessGrid, dict, list[float]]:
    settings = {"shared": shared, "lr": 0.01}
    grid = InProcessGrid(client_app, NUM_CLIENTS, run_config=settings, seed=0)
    torch.manual_seed(0)
    start = Net(image_shape()).state_dict()
    average = {n: w for n, w in start.items() if is_shared(n, settings)}
    for _ in with_progress(range(NUM_ROUNDS), doing="rounds"):
        average = average_of(send_to_all(grid, average, "train"))
    tested = send_to_all(grid, average, "evaluate")
    metrics = [reply.content["metrics"] for reply in tested]
    return grid, average, [each["eval-accuracy"] for each in metrics]


# %% [markdown] tags=["slide"]
# Three runs of one app. They differ in one setting of the run config, `shared`:
#
# - `"body head"`: all is shared. There is one global model with one **global head**. This
#   is FedAvg.
# - `"body"`: the body is shared, and each client has a **local head**.
# - `""`: nothing is shared. Each client trains **alone**, for just as long, and its
#   whole model stays in its state. Without this run we could not say what sharing is
#   good for.
#
# **Predict:** which run does best on the clients' own test data, and which does worst?

# %%
_, global_weights, global_head = federate("body head")
local_grid, shared_body, local_head = federate("body")
_, _, alone = federate("")

names = [n for m in local_grid.messages for n in m.names.get("arrays", ())]
print(len(local_grid.messages), "messages, which carried", sorted(set(names)))
assert not any(name.startswith("head") for name in names)

# %% tags=["slide", "title: Client by client", "slide-output", "nbval-ignore-output"]
from statistics import fmean

from course_utils.plots import plot_client_bars

runs = {"global head": global_head, "local head": local_head, "alone": alone}
plot_client_bars(runs, ylabel="accuracy on the client's own test data")
contexts = list(local_grid.node_contexts.values())
sizes = [len(load_data(context)[1].dataset) for context in contexts]
means = {name: fmean(runs[name], weights=sizes) for name in runs}
for name, average in means.items():
    print(f"{name:11}  {average:.3f} of all their test images")

# %% tags=["nbval-ignore-output"]
from course_utils.data import DEFAULT_DATASET, dataset_name

print("test images:", sizes)
better = {}
for name in ("local head", "alone"):
    pairs = zip(runs[name], global_head, strict=True)
    better[name] = sum(own > with_global for own, with_global in pairs)
    print(f"{name}: better than the global head for {better[name]} clients")

# %% jupyter={"source_hidden": true}
# This holds the numbers that the text below says of the default dataset.
if dataset_name() == DEFAULT_DATASET:
    assert better["local head"] >= 8 and better["alone"] >= 7
    assert means["local head"] > means["global head"] + 0.04
    assert means["alone"] > means["global head"]
    assert abs(means["local head"] - means["alone"]) < 0.05
    assert sizes[7] == 11

# %% [markdown] tags=["slide", "title: Whom it helps"]
# With the default dataset:
#
# - A local head helps nearly every client. The global head has to be right about all ten
#   labels. The local one has to be right about the labels of its client only.
# - But most clients that train **alone** also do better than with the global head. On
#   average they come close to the local head, within five points. (Single clients differ
#   more.) So most of the gain is this: a client need not care about labels that it never
#   sees. The shared body adds little.
# - Mind client 7: it has 11 test images, so one answer is 9 points.

# %% [markdown]
# There is a price. **Predict:** the ten models with local heads are tested on the whole
# test set, with all ten labels. What is their accuracy?

# %%
from course_utils.partitions import load_centralized

_, all_testloader = load_centralized()
net = Net(image_shape())
net.load_state_dict(global_weights)
global_on_all = model.test(net, all_testloader)[1]
local_on_all = []
for context in contexts:
    own_head = context.state["own"].to_torch_state_dict()
    net.load_state_dict({**shared_body, **own_head})
    local_on_all.append(model.test(net, all_testloader)[1])

# %% tags=["nbval-ignore-output"]
print(f"global head  {global_on_all:.3f}")
print(f"local heads  {fmean(local_on_all):.3f} on average")

# %% jupyter={"source_hidden": true}
# This holds what the text below says.
assert abs(global_on_all - means["global head"]) < 1e-6
if dataset_name() == DEFAULT_DATASET:
    assert max(local_on_all) < global_on_all
    assert fmean(local_on_all) < global_on_all / 2

# %% [markdown]
# - Each local model is worse than the global one. It is good at home, and only there.
#   Whether you want that depends on where the model will be used.
# - The global head has the same accuracy as above. That is no accident: the clients' test
#   images together *are* the whole test set.

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
# - **`node_config`** says which node this is, and so which data are its own: a partition,
#   or a path. Whoever starts the node sets it. The server does not see it.
# - **The run config** holds what is settled before the run, in `bool`, `int`, `float`
#   and `str`. **A message's config** holds what the server decides as it goes.
# - **A global or an attribute** holds on the next message what it held at the start, or
#   what some other node left there. A ClientApp is ephemeral. You do not see that when
#   you call it by hand.
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
# random head. In the Simulation Runtime it depends on the worker that gets the message:
# the head is there, or it is missing, or it is from some rounds ago. Neither raises an
# error.
# </details>
#
# <details><summary>3. <code>context.state["history"]["lr"].append("fast")</code> goes
# through. Why is that not a reason to use <code>append</code>?</summary>
#
# A record checks what you assign to a key. The list inside is an ordinary list, so nobody
# checks what you append. The error comes when the state is packed, after your function
# has returned, and it names no line of yours.
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
# The accuracy of a shared body with a random head, which is about what guessing gives.
# Its state has no `"own"` yet, so `load_net` takes the head of a new network. There is no
# error.
# </details>
#
# <details><summary>6. All clients have the same labels in the same shares. Local heads
# or a global one?</summary>
#
# A global one. No client has labels to specialise in, and each local head learns from a
# tenth of the data.
# </details>

# %% [markdown]
# **Next:** [05 · The ServerApp](05_server_app.ipynb). There, the loop that we have run by
# hand becomes an app as well.

# %%
from course_utils.exercises import progress

progress("04")
