# %% [markdown] tags=["slide"]
# # 01 · Messages and records
#
# **What exactly travels between a server and its clients, and how many bytes is it?**
#
# After this lesson you can
#
# - put a model of any framework into an `ArrayRecord`, and take it out again,
# - put numbers into a `MetricRecord` and settings into a `ConfigRecord`, and say what
#   each refuses,
# - pack records into a `RecordDict`, send it in a `Message`, and reply to one,
# - say why a server can average metrics that it has never heard of,
# - predict how many bytes a federation moves, and count them.
#
# **You need:** lesson 00. **Time:** 55 minutes, nearly half of them for the exercises.

# %% [markdown] tags=["slide"]
# ## Three kinds of content
#
# In lesson 00 client and server were variables of one program. Flower puts a network
# between them. What crosses it is a **message**, and its content comes in **records**.
# There are three kinds:
#
# ```
# Message
# ├── metadata               from whom, to whom, what for
# └── content: RecordDict
#     ├── "arrays":  ArrayRecord     names → arrays      a model
#     ├── "config":  ConfigRecord    names → settings    what to do, and how
#     └── "metrics": MetricRecord    names → numbers     how it went
# ```
#
# Each record is a dictionary that checks its values. This lesson builds the figure from
# the inside out.

# %% [markdown] tags=["slide"]
# ## A model becomes an ArrayRecord
#
# PyTorch's `state_dict` goes in as it is:

# %% tags=["slide-more"]
import torch
from flwr.app import ArrayRecord

from course_utils.model import Net
from course_utils.partitions import image_shape

torch.manual_seed(0)
net = Net(image_shape())
arrays = ArrayRecord(net.state_dict())
for name, array in arrays.items():
    print(f"{name:14} {array.dtype}  {array.shape}")

# %% [markdown]
# Names, types and shapes are readable. The numbers themselves are `bytes`, ready for a
# network:

# %%
print(type(arrays["head.bias"].data).__name__)

# %% [markdown] tags=["slide"]
# **Predict:** now the network changes. The `state_dict` changes with it, since both
# share memory. Does the record change too?

# %% tags=["slide-then"]
state = net.state_dict()
with torch.no_grad():
    net.head.bias.fill_(7.0)

in_record = arrays.to_torch_state_dict()["head.bias"]
print("state_dict changed:", bool((state["head.bias"] == 7).all()))
print("record changed:    ", bool((in_record == 7).any()))
assert (state["head.bias"] == 7).all() and not (in_record == 7).any()

# %% [markdown]
# It does not: a record is a snapshot. So the old network can be had back from it:

# %%
net.load_state_dict(arrays.to_torch_state_dict())
assert torch.equal(net.head.bias, in_record)
assert list(arrays) == list(net.state_dict())
print("the network is as it was")

# %% [markdown]
# ## A model of another framework
#
# Nothing in the record says PyTorch. Whatever can give its parameters as NumPy arrays
# can go in as a *list* of arrays. Here is a logistic regression of scikit-learn:

# %%
from sklearn.linear_model import LogisticRegression

from course_utils.partitions import load_partition

trainloader, _ = load_partition(0, 10)
images, labels = trainloader.dataset[:400]
x, y = images.flatten(start_dim=1).numpy(), labels.numpy()
classifier = LogisticRegression(tol=0.01, max_iter=1000).fit(x, y)

# %%
list_record = ArrayRecord([classifier.coef_, classifier.intercept_])
for name, array in list_record.items():
    print(f"{name!r}: {array.dtype}  {array.shape}")

# %% [markdown]
# A list has no names, so Flower numbers the arrays: both sides must agree on the order.
# And back, into a classifier that has never seen an image:

# %%
received = LogisticRegression()
received.coef_, received.intercept_ = list_record.to_numpy_ndarrays()
received.classes_ = classifier.classes_
assert (received.predict(x) == classifier.predict(x)).all()
print("same predictions on", len(x), "images")

# %% [markdown]
# - `classes_`, which label each row stands for, was *not* in the record. What you do
#   not put in does not travel: both sides must know it already.
# - What does an `ArrayRecord` refuse? This helper tells, for this and the next
#   sections:

# %%
import textwrap
from collections.abc import Callable
from typing import Any


def outcome(make: Callable, *arguments: Any) -> str:
    """Return "taken", or the error that a call raises."""
    try:
        make(*arguments)
    except Exception as error:
        return textwrap.fill(f"{type(error).__name__}: {error}", width=80)
    return "taken"


# %% [markdown]
# **Predict:** a dictionary of PyTorch tensors is taken, as you saw. A dictionary of
# NumPy arrays?

# %%
import numpy as np

named = {"coef": classifier.coef_, "intercept": classifier.intercept_}
print(outcome(ArrayRecord, named))

# %% [markdown]
# Refused. The error names the way out, a dictionary of `Array`, which is Flower's
# wrapper around one array:

# %%
from flwr.app import Array

named_record = ArrayRecord({name: Array(w) for name, w in named.items()})
print(list(named_record))
assert np.array_equal(named_record["coef"].numpy(), classifier.coef_)

# %% [markdown] tags=["slide"]
# ## Numbers become a MetricRecord
#
# A **metric** says how something went: a loss, an accuracy, a number of examples. (The
# numbers here are made up: a perplexity is the `exp` of some loss, and this one has
# nothing to do with these losses.)

# %% tags=["slide-more"]
from flwr.app import MetricRecord

metrics = MetricRecord(
    {"accuracy": 0.9, "losses": [0.1, 0.001], "perplexity": 2.31}
)
print(metrics["losses"])

# %% [markdown] tags=["slide"]
# **Predict:** which of these does a `MetricRecord` take?

# %% tags=["slide-more"]
candidates = {
    "int": 3,
    "float": 0.9,
    "list of float": [0.1, 0.001],
    "int and float in a list": [0, 0.5],
    "bool": True,
    "str": "good",
    "bytes": b"\x00\x01",
    "list of str": ["a", "b"],
    "None": None,
    "dict": {"a": 1},
    "torch.Tensor": torch.tensor(0.9),
    "np.float32": np.float32(0.9),
    "np.float64": np.float64(0.9),
}


# %% tags=["slide"]
def takes(record_type: type, value: Any) -> bool:
    return outcome(record_type, {"value": value}) == "taken"


for name, value in candidates.items():
    metric = "metric" if takes(MetricRecord, value) else ""
    print(f"{name:24} {metric}".strip())

# %% [markdown]
# - `int`, `float` and lists of *one* of them: nothing else. Write `[0.0, 0.5]`.
# - A number of NumPy or PyTorch is an object of its own. Unwrap it: `float(value)` or
#   `value.item()`. `np.float64` slips through only because it *is* a `float`:

# %%
assert issubclass(np.float64, float) and not issubclass(np.float32, float)
print(outcome(MetricRecord, {"loss": np.float32(0.9)}))
print(outcome(MetricRecord, {"loss": np.float32(0.9).item()}))

# %% [markdown]
# - To Python a `bool` is an `int`. Flower refuses it all the same.
# - The check comes at every assignment, and a refused value is not stored. (In an
#   `update(...)` of several, those before it are.)

# %%
print(outcome(metrics.update, {"accuracy": "high"}))
assert metrics["accuracy"] == 0.9

# %% [markdown]
# ### Exercise 1.1: metrics of any library
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 1 of 3, recall | 3 | a loss straight from PyTorch makes a client's call fail |
#
# Complete `clean_metrics`: `values` maps names to numbers or to lists of numbers. Each
# number may be Python's, NumPy's or PyTorch's, also within one list. Return a
# `MetricRecord` of the same names and numbers (an `int` may become a `float`), and leave
# `values` as it was.
#
# <details><summary>Hint 1</summary>
#
# `float(value)` takes a number of any of the three.
# </details>
# <details><summary>Hint 2</summary>
#
# `isinstance(value, list)` tells lists from numbers. In a list, each number needs
# unwrapping, and all must end up with one type.
# </details>

# %%
from course_utils.exercises import check


def clean_metrics(values: dict[str, Any]) -> MetricRecord:
    """Return the values as a record that Flower takes."""
    ### BEGIN SOLUTION
    record = MetricRecord()
    for name, value in values.items():
        if isinstance(value, list):
            record[name] = [float(number) for number in value]
        else:
            record[name] = float(value)
    return record
    ### END SOLUTION


# %%
check("1.1", clean_metrics)

# %% [markdown] tags=["solution"]
# **Why this.** `float` makes one type of all numbers, so a list with `0` and `0.5` is
# fine, too. **What people get wrong:** they call `.item()` on everything, which
# Python's own numbers do not have, or they forget the numbers inside lists.

# %% [markdown] tags=["slide"]
# ## Settings become a ConfigRecord
#
# A **config** tells the other side what to do. It is the same kind of dictionary:

# %% tags=["slide-more"]
from flwr.app import ConfigRecord

config = ConfigRecord(
    {"batch_size": 32, "use_augmentation": True, "data-path": "/my/dataset"}
)
print(config)

# %% [markdown] tags=["slide"]
# A `MetricRecord` refuses two of these three values. **Predict:** which of the refused
# candidates above does a `ConfigRecord` take?

# %% tags=["slide-then", "slide-output"]
for name, value in candidates.items():
    metric = "metric" if takes(MetricRecord, value) else ""
    setting = "config" if takes(ConfigRecord, value) else ""
    print(f"{name:24} {metric:8} {setting}".strip())
assert all(takes(ConfigRecord, value) for value in config.values())
metric_too = [takes(MetricRecord, value) for value in config.values()]
assert metric_too == [True, False, False]

# %% [markdown] tags=["slide-more"]
# - A config takes all that a metric takes, and `str`, `bool`, `bytes` and lists of one
#   of them.
# - `None` and dictionaries go into neither. For anything else there is `bytes`: turn it
#   into bytes yourself, and back on the other side.

# %%
import json

layers = {"frozen": ["body"], "trained": ["head"]}
config_with_dict = ConfigRecord({"layers": json.dumps(layers).encode()})
assert json.loads(config_with_dict["layers"]) == layers

# %% [markdown]
# Why two types, when the second takes all that the first takes? The answer comes below,
# under *Why so strict?*

# %% [markdown]
# ## Records become a RecordDict
#
# A `RecordDict` gives each record a name. The names are yours, but what Flower itself
# sends is called `"arrays"` and `"config"` unless you say otherwise, so this course
# does the same.

# %%
from flwr.app import RecordDict

content = RecordDict({"arrays": arrays, "config": config})
print(list(content))
print(content["config"]["batch_size"])

# %% [markdown]
# You can also ask by kind, when you do not know the names. And only records go in:

# %%
print(list(content.array_records), list(content.config_records))
print(outcome(RecordDict, {"config": {"batch_size": 32}}))

# %% [markdown] tags=["slide"]
# ## A Message
#
# A message is a content, an address and a purpose. This one says all three, the address
# being a client's number. **Predict:** will Flower make it, with nothing running?

# %% tags=["slide-then"]
from flwr.app import Message

print(outcome(lambda: Message(content, dst_node_id=123, message_type="train")))

# %% [markdown] tags=["slide-more"]
# No. A message also says who sends it, and in which **run**: one execution of a server
# with its clients. Flower looks that up (in `TaskIdentity`), and finds nothing. In plain
# words: **without a run there is no message.** In a run, the server starts every
# conversation, and clients answer.

# %% [markdown] tags=["slide"]
# So start something small. Three words for it:
#
# - The **ClientApp** is the client's program. Lesson 03 builds a real one. This one
#   sends back what it gets: `@client_app.train()` registers `echo` as the function for
#   messages of type `"train"`. (`context` is what the client knows about itself: lesson
#   04.)
# - A **node** is a place where a ClientApp runs: one for each client. The process that
#   keeps a node connected is called a **SuperNode**, so there are as many of these.
# - The **grid** is the server's view of all nodes: what it sends messages through.

# %%
from flwr.app import Context
from flwr.clientapp import ClientApp

client_app = ClientApp()


@client_app.train()
def echo(message: Message, context: Context) -> Message:
    return Message(message.content, reply_to=message)


# %% [markdown]
# `InProcessGrid` belongs to this course. It stands in for Flower's network, and carries
# the messages to nodes inside this notebook. (`seed` fixes the node ids, which are
# random, so that you see those printed here. `client_errors="reply"` does as Flower does
# when a client fails, as you will see below. By default the grid lets the client's
# exception surface right here, which is kinder while you write a ClientApp.)

# %%
from course_utils.runtime import InProcessGrid

grid = InProcessGrid(
    client_app, num_supernodes=3, seed=0, client_errors="reply"
)
node_ids = grid.get_node_ids()
print(*node_ids, sep="\n")

# %% [markdown]
# Making the grid has started a run, with this notebook as its server. The same call now
# works, with a node's id as the address:

# %%
message = Message(content, dst_node_id=node_ids[0], message_type="train")
print("type:       ", message.metadata.message_type)
print("source:     ", message.metadata.src_node_id)
print("destination:", message.metadata.dst_node_id)

# %% [markdown]
# - `src_node_id` was filled in: the server is always node 1.
# - `message_type` says which function of the ClientApp shall handle it: `"train"`,
#   `"evaluate"` or `"query"` (or one of these with a name, such as `"train.fast"`, if the
#   app has several).
# - `ttl` (time to live) says for how many seconds it is worth answering. Flower's
#   default is 12 hours:

# %%
assert message.metadata.ttl == 12 * 60 * 60
print(outcome(Message, content, node_ids[0], "hello"))

# %% [markdown] tags=["slide"]
# ## The reply
#
# A reply is made from the message that it answers, as in `echo` above:
# `Message(content, reply_to=message)`. **Predict:** it was given no address. What will
# be the reply's source, destination and type?

# %% tags=["slide-then"]
(reply,) = grid.send_and_receive([message])
fields = ("run_id", "message_type", "src_node_id", "dst_node_id")
for field in fields:
    sent = getattr(message.metadata, field)
    back = getattr(reply.metadata, field)
    print(f"{field:13} {sent:<21} {back}")

# %% [markdown]
# The metadata mirror the message's: same run, same type, source and destination
# swapped. And the reply names the message that it answers, which got its id when it was
# sent:

# %%
asked, answered = message.metadata, reply.metadata
assert answered.src_node_id == asked.dst_node_id
assert answered.dst_node_id == asked.src_node_id
assert answered.reply_to_message_id == asked.message_id != ""
assert asked.reply_to_message_id == ""  # it began the conversation
assert answered.ttl < asked.ttl  # what is left of the 12 hours

# %% [markdown]
# A ClientApp only ever replies, so it needs no address.

# %% [markdown] tags=["slide"]
# ## What crosses the grid is a copy
#
# First without a grid: call `echo` by hand, as the function that it is, and change what
# comes back.

# %% tags=["slide-more"]
by_hand = echo(message, None)
by_hand.content["config"]["batch_size"] = 64
print("the message says", message.content["config"]["batch_size"])
assert by_hand.content is message.content
message.content["config"]["batch_size"] = 32

# %% [markdown] tags=["slide-then"]
# One object, two names. **Predict:** the same through the grid?

# %% tags=["slide-then"]
(reply,) = grid.send_and_receive([message])
reply.content["config"]["batch_size"] = 64
print("the message says", message.content["config"]["batch_size"])
assert message.content["config"]["batch_size"] == 32

# %% [markdown] tags=["slide-more"]
# Untouched. Between two machines it could not be otherwise, and the in-process grid
# keeps to it: a client changes something on the server only by what it *sends back*.

# %% [markdown] tags=["slide"]
# ## An error reply
#
# **Predict:** our ClientApp can only `train`. What comes back for a `"query"`?

# %% tags=["slide-then"]
question = Message(content, dst_node_id=node_ids[1], message_type="query")
(reply,) = grid.send_and_receive([question])
print("content:", reply.has_content(), " error:", reply.has_error())
print(reply.error.code, reply.error.reason)

# %% [markdown]
# - A reply carries a content *or* an error: a code and a reason. Code 2 means that the
#   ClientApp raised an exception, and the reason repeats it. ("default": an app may
#   have several functions for queries, and ours did not even have the one without a
#   name.)
# - Nothing was raised at the server. It goes on, and has to look.
# - If the server reads `content` without looking, it gets an exception:

# %%
print(outcome(lambda: reply.content))

# %% [markdown]
# A ClientApp can also answer with an error that it words itself. The code is yours,
# too:

# %%
from flwr.app import Error

refusal = Message(Error(code=100, reason="no data today"), reply_to=question)
assert refusal.has_error() and not refusal.has_content()
print(refusal.error.code, refusal.error.reason)

# %% [markdown] tags=["slide"]
# ## Why so strict?
#
# Two clients report how it went. One did so on 300 examples, the other on 100:

# %% tags=["slide-more"]
report_a = MetricRecord({**metrics, "num-examples": 300})
other = {"accuracy": 0.5, "losses": [0.5, 0.401], "perplexity": 4.31}
report_b = MetricRecord({**other, "num-examples": 100})
print(report_a, report_b, sep="\n")

# %% [markdown] tags=["slide"]
# The server averages them, weighted by number of examples as in lesson 00. By hand:


# %% tags=["slide-more"]
def weighted_mean(reports: list[MetricRecord], by: str) -> dict:
    total = sum(report[by] for report in reports)
    return {
        key: sum(r[by] / total * np.array(r[key]) for r in reports)
        for key in reports[0]
        if key != by
    }


mean = weighted_mean([report_a, report_b], by="num-examples")
for key, value in mean.items():
    print(f"{key:11} {value.round(6)}")

# %% [markdown] tags=["slide"]
# - Check one in your head: 270 of 300 and 50 of 100 images were right, 320 of 400 in
#   all.
# - `weighted_mean` never asks what a `perplexity` is. Numbers and lists of numbers it
#   can average, provided that all clients send the same keys, and lists of one length.
#   What is the mean of `"good"` and `"bad"`, or of two file paths?
# - So here is why there are two types: **a MetricRecord holds what a server can average
#   without knowing what it means.** All else goes into a ConfigRecord, which nobody
#   averages.

# %% [markdown]
# Flower calls an algorithm of the server a **strategy**. `FedAvg` is the one from
# lesson 00. Give it two replies, each with a model and a report. (The `1` is the round.)

# %%
from flwr.serverapp.strategy import FedAvg

states = [Net(image_shape()).state_dict() for _ in range(2)]
replies = []
for state, report in zip(states, [report_a, report_b], strict=True):
    records = {"arrays": ArrayRecord(state), "metrics": report}
    replies.append(Message(RecordDict(records), reply_to=message))
flower_arrays, flower_metrics = FedAvg().aggregate_train(1, replies)

# %%
from course_utils.model import weighted_average

for key, value in mean.items():
    assert np.allclose(flower_metrics[key], value)
by_hand = weighted_average(states, [300, 100])
for name, value in flower_arrays.to_torch_state_dict().items():
    assert torch.allclose(value, by_hand[name], atol=1e-6)
print("Flower agrees, on metrics and on arrays")
print(list(flower_metrics))

# %% [markdown]
# - `num-examples` is gone: Flower uses it as the weight, and drops it.
# - It was the key's *name* that made it the weight: `FedAvg(weighted_by_key=...)` sets
#   another.
# - Flower averages whatever number you send. Whether the average means anything is your
#   business. For accuracy it does. A perplexity is the `exp` of some loss, and this
#   average is not the perplexity on all 400 examples:

# %%
losses = np.log([report_a["perplexity"], report_b["perplexity"]])
on_all_examples = np.exp(np.average(losses, weights=[300, 100]))
print(f"{on_all_examples:.3f}, not {flower_metrics['perplexity']:.3f}")
assert on_all_examples < flower_metrics["perplexity"] - 0.1

# %% [markdown] tags=["slide"]
# ## How many bytes is a model?
#
# **Predict:** each parameter is a `float32`, which is 4 bytes. How many bytes is the
# record?

# %% tags=["slide-then"]
num_parameters = sum(p.numel() for p in net.parameters())
predicted = 4 * num_parameters
counted = arrays.count_bytes()
print(f"predicted {predicted:,} bytes, counted {counted:,} bytes")
print("difference:", counted - predicted)

# %% [markdown]
# Nearly. Each array is stored as NumPy stores a file: first a header with its type and
# shape, padded to 128 bytes, then the numbers. And the names count, a byte a letter:

# %%
for name, array in arrays.items():
    header = len(array.data) - 4 * array.numpy().size
    print(f"{name:14} header {header} + name {len(name)}")
assert counted == predicted + sum(128 + len(name) for name in arrays)

# %% [markdown]
# Under one percent, and less the larger the arrays. Metrics and settings: 8 bytes a
# number, 1 byte a `bool`, a byte a letter, and the names again. **Predict**, then
# count:

# %%
print(config, "→", config.count_bytes(), "bytes")
print(metrics, "→", metrics.count_bytes(), "bytes")
assert config.count_bytes() == (10 + 8) + (16 + 1) + (9 + 11)
assert metrics.count_bytes() == (8 + 8) + (6 + 2 * 8) + (10 + 8)
assert counted < 1.01 * predicted

# %% [markdown]
# Flower's own `message_size_mod`, a function that can be put around a ClientApp, counts
# a message so: the sum over its records. The records' names ("arrays", "config"), the
# metadata and the network's own wrapping are not counted.

# %% [markdown] tags=["slide"]
# ### Exercise 1.2: bytes from shapes
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 2 of 3, apply | 8 | a model's price on the wire is known before anyone builds it |
#
# Complete `record_bytes`: `shapes` holds the shape of each array by name, and
# `number_size` is how many bytes one number takes: 4 for `float32`, 8 for `float64`.
# Return how many bytes an `ArrayRecord` of these arrays has. The shape `()` is that of
# a single number.
#
# <details><summary>Hint 1</summary>
#
# Each array adds three parts: its numbers, its header and its name. Which of the three
# does `number_size` change?
# </details>
# <details><summary>Hint 2</summary>
#
# `math.prod((2, 3))` is 6, and `math.prod(())` is 1. `len(name)` counts letters.
# </details>

# %%
import math


def record_bytes(shapes: dict[str, tuple[int, ...]], number_size: int) -> int:
    """Return the bytes of an ArrayRecord, as Flower counts them."""
    ### BEGIN SOLUTION
    total = 0
    for name, shape in shapes.items():
        total += number_size * math.prod(shape) + 128 + len(name)
    return total
    ### END SOLUTION


# %%
check("1.2", record_bytes)

# %% [markdown] tags=["solution"]
# **Why this.** An array is as many numbers as the product of its shape, and each array
# is stored on its own, so each has a header. **What people get wrong:** they add a
# shape's entries instead of multiplying, count one header for the whole record, or
# take the shape `()` for nothing. Batch normalization keeps such a single number.

# %% [markdown] tags=["slide"]
# ## How many bytes is a federation?
#
# **Predict:** in a round, every client gets the model with a config, and sends a model
# with metrics back. Ten clients, ten rounds: how many megabytes (millions of bytes)?
# And with twice as many clients? And if each client had twice the data?

# %% [markdown]
# Write the prediction down as code. The values make no difference, only their types do:

# %%
train_config = ConfigRecord({"lr": 0.01, "server-round": 1})
train_metrics = MetricRecord({"train-loss": 0.5, "num-examples": 400})


def predict_bytes(num_clients: int, num_rounds: int) -> int:
    down = arrays.count_bytes() + train_config.count_bytes()
    up = arrays.count_bytes() + train_metrics.count_bytes()
    return num_rounds * num_clients * (down + up)


print(f"{predict_bytes(10, 10) / 1e6:.1f} MB")

# %% [markdown]
# Then count. This ClientApp answers as one that trains would, but does not train:

# %%
client_app = ClientApp()


@client_app.train()
def pretend_to_train(message: Message, context: Context) -> Message:
    records = {"arrays": message.content["arrays"], "metrics": train_metrics}
    return Message(RecordDict(records), reply_to=message)


# %% [markdown]
# The grid keeps a list of all that crossed it (and of each its `round`, which it takes
# from `"server-round"` in the config). Two clients, one round:


# %%
def run_rounds(num_clients: int, num_rounds: int) -> InProcessGrid:
    grid = InProcessGrid(client_app, num_supernodes=num_clients, seed=0)
    for server_round in range(1, num_rounds + 1):
        train_config["server-round"] = server_round
        content = RecordDict({"arrays": arrays, "config": train_config})
        grid.send_and_receive(
            [
                Message(content, dst_node_id=node, message_type="train")
                for node in grid.get_node_ids()
            ]
        )
    return grid


for delivery in run_rounds(num_clients=2, num_rounds=1).messages:
    print("up  " if delivery.is_reply else "down", delivery.bytes, "bytes")

# %%
NUM_ROUNDS = 10
traffic = {}
for num_clients in (5, 10, 20):
    grid = run_rounds(num_clients, NUM_ROUNDS)
    traffic[num_clients] = [
        sum(m.bytes for m in grid.messages if m.round <= server_round)
        for server_round in range(NUM_ROUNDS + 1)
    ]
    total = traffic[num_clients][-1]
    assert total == predict_bytes(num_clients, NUM_ROUNDS)
    print(f"{num_clients:2} clients: {total:,} bytes, as predicted")

# %% tags=["slide-then", "slide-output"]
from course_utils.plots import plot_curves

curves = {
    f"{num_clients} clients": [count / 1e6 for count in counts]
    for num_clients, counts in traffic.items()
}
plot_curves(curves, ylabel="MB moved so far")

# %% [markdown] tags=["slide"]
# - A straight line in rounds, and in clients: twice as many clients, twice the bytes.
# - Not in data. A client with twice the examples sends the same arrays, and another
#   number in `num-examples`.
# - Twice the parameters, twice the bytes. A model of 7 billion parameters, in
#   `float32`:

# %% tags=["slide-more"]
assert traffic[10][-1] == 2 * traffic[5][-1] == traffic[20][-1] / 2
large_model = 4 * 7_000_000_000
print(f"10 clients, 100 rounds: {100 * 10 * 2 * large_model / 1e12:.0f} TB")

# %% [markdown] tags=["slide-more"]
# That is why FedAvg lets a client take many steps for one exchange: what needs fewer
# rounds moves fewer bytes.

# %% [markdown]
# **Predict:** does our federation at least move fewer bytes than sending all images to
# the server once would? An image is one byte for each pixel and colour.

# %%
from math import ceil, prod

from course_utils.data import DEFAULT_DATASET, dataset_name, load_dataset

train_images, _ = load_dataset()
image_bytes = len(train_images) * prod(image_shape())
rounds = ceil(image_bytes / predict_bytes(10, 1))
print(f"all images: {image_bytes / 1e6:.1f} MB")
print("rounds until the federation has moved as much:", rounds)
if dataset_name() == DEFAULT_DATASET:
    assert rounds == 2

# %% [markdown]
# With the default dataset, the second round is already past it. Federated learning
# keeps data where they are. It does not promise to save bytes.

# %% [markdown]
# ### Exercise 1.3: answer a question
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 3 of 3, build | 12 | clients that lack labels make training harder: ask first |
#
# Before it trains, a server asks each client which labels it holds. The message's type
# is `"query"`, and its content tells how many labels there are in the whole federation:
# `RecordDict({"config": ConfigRecord({"num-classes": 10})})`, or another number.
#
# Complete `count_labels`, which answers such a message. The reply carries one
# `MetricRecord`, named `"metrics"`, with two entries:
#
# - `"label-counts"`: a list of numbers, how many examples of label 0 the client has, of
#   label 1, and so on, up to the last label of the federation,
# - `"num-examples"`: how many examples the client has.
#
# `trainloader` yields batches of images and labels, as in lesson 00. (Here it is handed
# over. Lesson 03 shows how a ClientApp finds it.)
#
# <details><summary>Hint 1</summary>
#
# From the outside in: a `Message` with `reply_to`, in it a `RecordDict`, in it a
# `MetricRecord`, in it a list. `message.content["config"]` is the server's config.
# </details>
# <details><summary>Hint 2</summary>
#
# A label that the client does not have counts 0. Begin with a list of zeros, one for
# each label, or look up `minlength` of `torch.bincount`.
# </details>
# <details><summary>Hint 3</summary>
#
# `torch.cat([labels for _, labels in trainloader])` holds all labels. `tolist()` makes
# a list of a tensor.
# </details>

# %%
from torch.utils.data import DataLoader


def count_labels(message: Message, trainloader: DataLoader) -> Message:
    """Reply with how many examples of each label the client has."""
    ### BEGIN SOLUTION
    num_classes = message.content["config"]["num-classes"]
    labels = torch.cat([labels for _, labels in trainloader])
    counts = torch.bincount(labels, minlength=num_classes).tolist()
    metrics = {"label-counts": counts, "num-examples": len(labels)}
    content = RecordDict({"metrics": MetricRecord(metrics)})
    return Message(content, reply_to=message)
    ### END SOLUTION


# %%
check("1.3", count_labels)

# %% [markdown] tags=["solution"]
# **Why this.** A list of one length under one key looks alike at every client, so a
# server can add up the lists without knowing whose they are. Mind that label counts are
# knowledge about the data, and now they leave the client. **What people get wrong:**
# they leave out the labels that the client lacks, so that the third number is not about
# label 2; or NumPy's integers hide in the list, where a `MetricRecord` refuses them.

# %% [markdown] tags=["slide"]
# ## Takeaways
#
# - **An ArrayRecord** is a snapshot of named arrays in bytes: from a `state_dict`, a
#   list of NumPy arrays, or a dictionary of `Array`.
# - **A MetricRecord** takes `int`, `float` and lists of one of them. **A ConfigRecord**
#   takes these, and `str`, `bool`, `bytes` and lists of one of them. Unwrap the numbers
#   of NumPy and PyTorch.
# - **A Message** carries a `RecordDict` to a node, as a copy. In a run, the server starts
#   the conversation. `Message(content, reply_to=message)` answers it, with mirrored
#   metadata, and an error can take the place of the content.
# - **A server can average** any metric because a MetricRecord holds only numbers (if all
#   clients send the same keys, and lists of one length). Flower does, weighted by
#   `num-examples`, and drops that key.
# - **Bytes** are 4 for each `float32` parameter, and a little, times clients, times
#   rounds, times two. The number of examples does not come in.

# %% [markdown]
# ## Check yourself
#
# <details><summary>1. A client reports <code>{"train-loss": loss}</code>, with
# <code>loss</code> straight from PyTorch's loss function. What happens, and what is the
# cure?</summary>
#
# `MetricRecord` raises a `TypeError`: a tensor is not a `float`. Write `loss.item()`.
# </details>
#
# <details><summary>2. <code>{"losses": [0, 0.5]}</code> is refused,
# <code>{"losses": [0.0, 0.5]}</code> is not. Why?</summary>
#
# All values of a list must have the type of its first, and `0.5` is not an `int`.
# </details>
#
# <details><summary>3. A ClientApp sets
# <code>message.content["config"]["lr"] = 0.1</code> and replies with its arrays and
# metrics. Which <code>lr</code> does the server's message hold now?</summary>
#
# The one that it had. The client changed its own copy, and sent no config back.
# </details>
#
# <details><summary>4. Ten times as many images come in at every client, and the model
# stays the same. How does the traffic of a round grow?</summary>
#
# Not at all: a number takes 8 bytes, whether it is 400 or 4,000. Training takes longer.
# </details>
#
# <details><summary>5. Each client reports the largest error that it made, as
# <code>"max-error"</code>. After Flower has averaged the reports, what is the
# number?</summary>
#
# The weighted mean of the maxima, which is not the maximum over all clients. Flower
# averages any number, meaningful or not. (A strategy can be given a function of your
# own instead: `train_metrics_aggr_fn`.)
# </details>
#
# <details><summary>6. All ten nodes answered with an error reply. Did
# <code>send_and_receive</code> raise?</summary>
#
# Not on Flower's network, nor here with `client_errors="reply"`. It returned ten
# messages, each with an error in place of a content: the server has to ask
# `reply.has_error()`.
# </details>
#
# **Next:** [02 · Partitions](02_partitions.ipynb), where clients get data of their
# own, and grow unlike each other.

# %%
from course_utils.exercises import progress

progress("01")
