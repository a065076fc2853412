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
# **You need:** lesson 00. **Time:** 75 minutes, 23 of them for the exercises.

# %% [markdown] tags=["slide"]
# ## Three kinds of content
#
# In lesson 00, client and server were variables of one program. Flower puts a network
# between them. **Messages** cross it, and the content of a message is **records**. There
# are three kinds:
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

# %% [markdown] tags=["slide"]
# Now we change the network. Its `state_dict` changes, too, because both share memory.
# **Predict:** does the record change?

# %% tags=["slide-then"]
state = net.state_dict()
with torch.no_grad():
    net.head.bias.fill_(7.0)

in_record = arrays.to_torch_state_dict()["head.bias"]
print("state_dict changed:", bool((state["head.bias"] == 7).all()))
print("record changed:    ", bool((in_record == 7).any()))
assert (state["head.bias"] == 7).all() and not (in_record == 7).any()

# %% [markdown]
# It does not: a record is a snapshot. You can read its names, types and shapes. The
# numbers are `bytes`, ready for a network. The record gives the old network back:

# %%
print(type(arrays["head.bias"].data).__name__)
net.load_state_dict(arrays.to_torch_state_dict())
assert torch.equal(net.head.bias, in_record)
assert list(arrays) == list(net.state_dict())
print("the network is as it was")

# %% [markdown]
# ## A model of another framework
#
# Nothing in the record says PyTorch. A framework that gives its parameters as NumPy arrays
# can put them in as a *list*. (scikit-learn does: `[model.coef_, model.intercept_]`.)

# %%
import numpy as np

weights, bias = np.ones((10, 784)), np.zeros(10)
list_record = ArrayRecord([weights, bias])
for name, array in list_record.items():
    print(f"{name!r}: {array.dtype}  {array.shape}")
back = list_record.to_numpy_ndarrays()
assert np.array_equal(back[0], weights) and np.array_equal(back[1], bias)

# %% [markdown]
# A list has no names, so Flower numbers the arrays: both sides must agree on the order.
#
# From here on we ask often what Flower takes. This helper says `taken`, or shows the
# error:

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
# **Predict:** a dictionary of PyTorch tensors is taken, and so is a list of NumPy arrays.
# What about a dictionary of NumPy arrays?

# %%
named = {"weights": weights, "bias": bias}
print(outcome(ArrayRecord, named))

# %% [markdown]
# It is refused. The error names the way out: a dictionary of `Array`, which is Flower's
# wrapper around one array.

# %%
from flwr.app import Array

named_record = ArrayRecord({name: Array(w) for name, w in named.items()})
print(list(named_record))
assert np.array_equal(named_record["weights"].numpy(), weights)

# %% [markdown] tags=["slide"]
# ## Numbers become a MetricRecord
#
# A **metric** says how something went: a loss, an accuracy, a number of examples. (These
# numbers are made up.)

# %% tags=["slide-more"]
from flwr.app import MetricRecord

measured = {"accuracy": 0.9, "losses": [0.1, 0.001], "perplexity": 2.31}
metrics = MetricRecord(measured)
print(metrics["losses"])

# %% tags=["slide", "title: Candidates"]
candidates = {
    "int": 3,
    "float": 0.9,
    "list of float": [0.1, 0.001],
    "int and float in a list": [0, 0.5],
    "bool": True,
    "str": "good",
    "bytes": b"\x00\x01",
    "list of str": ["a", "b"],
    "list of bool": [True, False],
    "None": None,
    "dict": {"a": 1},
    "torch.Tensor": torch.tensor(0.9),
    "np.float32": np.float32(0.9),
    "np.float64": np.float64(0.9),
}


# %% [markdown] tags=["slide"]
# **Predict:** which of these does a `MetricRecord` take?


# %% tags=["slide-then"]
def takes(record_type: type, value: Any) -> bool:
    return outcome(record_type, {"value": value}) == "taken"


for name, value in candidates.items():
    print(f"{name:24} {'metric' if takes(MetricRecord, value) else '–'}")

# %% [markdown]
# - It takes `int`, `float` and lists of *one* of them, and nothing else. Write
#   `[0.0, 0.5]`, not `[0, 0.5]`.
# - A number of NumPy or PyTorch is another object. Unwrap it: `float(value)` or
#   `value.item()`. `np.float64` is taken only because it *is* a `float`:

# %%
assert issubclass(np.float64, float) and not issubclass(np.float32, float)
print(outcome(MetricRecord, {"loss": np.float32(0.9)}))
print(outcome(MetricRecord, {"loss": np.float32(0.9).item()}))

# %% [markdown]
# - To Python a `bool` is an `int`. Flower refuses it all the same.
# - The record checks a value before it stores it. So after an error, the old value is
#   still there:

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
# `MetricRecord` of the same names and numbers. (An `int` may become a `float`.) Leave
# `values` as it was.
#
# <details><summary>Hint 1</summary>
#
# `float(value)` takes the numbers of all three.
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
# **Why this.** `float` turns all numbers into one type, so a list with `0` and `0.5` is
# fine, too. **What people get wrong:** they call `.item()` on everything, but Python's own
# numbers do not have it. Or they forget the numbers inside lists.

# %% [markdown] tags=["slide"]
# ## Settings become a ConfigRecord
#
# A **config** tells the other side what to do. It is a dictionary that checks, too:

# %% tags=["slide-more"]
from flwr.app import ConfigRecord

config = ConfigRecord({"batch-size": 32, "augment": True, "path": "/data"})
print(config)

# %% [markdown] tags=["slide"]
# A `MetricRecord` would refuse two of these three values. **Predict:** look at the
# candidates that it refused. Which of them does a `ConfigRecord` take?

# %% tags=["slide-then", "slide-output"]
for name, value in candidates.items():
    metric = "metric" if takes(MetricRecord, value) else "–"
    setting = "config" if takes(ConfigRecord, value) else "–"
    print(f"{name:24} {metric:8} {setting}")
assert all(takes(ConfigRecord, value) for value in config.values())
metric_too = [takes(MetricRecord, value) for value in config.values()]
assert metric_too == [True, False, False]

# %% [markdown] tags=["slide-more"]
# - A config takes all that a metric takes. It also takes `str`, `bool`, `bytes` and lists
#   of one of them.
# - Neither takes `None` or a dictionary. Turn such a value into `bytes` yourself, and back
#   on the other side:

# %%
import json

layers = {"frozen": ["body"], "trained": ["head"]}
config_with_dict = ConfigRecord({"layers": json.dumps(layers).encode()})
print(config_with_dict["layers"])
assert json.loads(config_with_dict["layers"]) == layers

# %% [markdown]
# Why are there two types, if the second takes all that the first takes? *Why so strict?*,
# later in this lesson, shows what a server does with metrics.

# %% [markdown]
# ## Records become a RecordDict
#
# A `RecordDict` gives each record a name. You choose the names. What Flower itself sends
# is called `"arrays"` and `"config"` by default, so this course uses these names, too.

# %%
from flwr.app import RecordDict

content = RecordDict({"arrays": arrays, "config": config})
print(list(content))
print(content["config"]["batch-size"])

# %% [markdown]
# If you do not know the names, ask by kind. And a `RecordDict` takes only records:

# %%
print(list(content.array_records), list(content.config_records))
print(outcome(RecordDict, {"config": {"batch-size": 32}}))

# %% [markdown] tags=["slide"]
# ## A Message
#
# A message has a content, an address and a purpose. The address of this one is `123`, as
# if a client had that number. **Predict:** nothing is running yet. Does Flower make the
# message?

# %% tags=["slide-then"]
from flwr.app import Message

print(outcome(lambda: Message(content, dst_node_id=123, message_type="train")))

# %% [markdown] tags=["slide-more"]
# No. A message also says who sends it, and in which **run**. A run is one execution of a
# server with its clients. The error says that none was found: **without a run there is no
# message.** In a run, the server starts every conversation, and clients answer.

# %% [markdown] tags=["slide", "title: Three words"]
# So start something small. It takes three words:
#
# - The **ClientApp** is the client's program.
# - A **node** is a place where a ClientApp runs. Each client has one.
# - The **grid** is the server's view of all nodes. The server sends messages through it.

# %% [markdown]
# This ClientApp sends back what it gets. `@client_app.train()` registers `echo` for
# messages of type `"train"`. (`context` is what the client knows about itself: see
# lesson 03.)

# %%
from flwr.app import Context
from flwr.clientapp import ClientApp

client_app = ClientApp()


@client_app.train()
def echo(message: Message, context: Context) -> Message:
    return Message(message.content, reply_to=message)


# %% [markdown]
# `InProcessGrid` belongs to this course. It stands in for Flower's network, and carries
# the messages to nodes inside this notebook. `seed` fixes the node ids, which are random.

# %%
from course_utils.runtime import InProcessGrid

grid = InProcessGrid(client_app, 3, seed=0)
node_ids = grid.get_node_ids()
print(*node_ids, sep="\n")

# %% [markdown]
# The grid has started a run, and this notebook is its server. Now the same call works,
# with a node's id as the address:

# %%
message = Message(content, dst_node_id=node_ids[0], message_type="train")
print("type:       ", message.metadata.message_type)
print("source:     ", message.metadata.src_node_id)
print("destination:", message.metadata.dst_node_id)

# %% [markdown]
# - Flower filled in `src_node_id`: the server is always node 1.
# - `message_type` says which function of the ClientApp handles the message: `"train"`,
#   `"evaluate"` or `"query"`. (An app with several functions for a type gives them names,
#   such as `"train.fast"`.)
# - `ttl` (time to live) says for how many seconds a reply is wanted. Flower's default is
#   12 hours:

# %%
print("ttl:", message.metadata.ttl, "seconds")
assert message.metadata.ttl == 12 * 60 * 60
print(outcome(Message, content, node_ids[0], "hello"))

# %% [markdown] tags=["slide"]
# ## The reply
#
# A reply is made from the message that it answers, as in `echo` above:
# `Message(content, reply_to=message)`. There is no address in this call. **Predict:** what
# are the reply's source, destination and type?

# %% tags=["slide-then"]
(reply,) = grid.send_and_receive([message])
fields = ("run_id", "message_type", "src_node_id", "dst_node_id")
for field in fields:
    sent = getattr(message.metadata, field)
    back = getattr(reply.metadata, field)
    print(f"{field:13} {sent:<21} {back}")

# %% [markdown]
# The metadata mirror those of the message: the run and the type are the same, source and
# destination are swapped. And the reply names the message that it answers. (A message
# gets its id when it is sent.)

# %%
asked, answered = message.metadata, reply.metadata
assert answered.src_node_id == asked.dst_node_id
assert answered.dst_node_id == asked.src_node_id
assert answered.reply_to_message_id == asked.message_id != ""
assert asked.reply_to_message_id == ""  # it began the conversation
assert answered.ttl < asked.ttl  # what is left of the 12 hours
print("the reply names the message that it answers")

# %% [markdown]
# A ClientApp only replies, so it never needs an address.

# %% [markdown] tags=["slide"]
# ## Whose object is it?
#
# First without a grid: call `echo` as a plain function, and change what it returns.

# %% tags=["slide-more"]
by_hand = echo(message, None)
by_hand.content["config"]["batch-size"] = 64
print("the message says", message.content["config"]["batch-size"])
assert by_hand.content is message.content
message.content["config"]["batch-size"] = 32

# %% [markdown] tags=["slide-then"]
# That is one object with two names. **Predict:** is it the same through the grid?

# %% tags=["slide-then"]
(reply,) = grid.send_and_receive([message])
reply.content["config"]["batch-size"] = 64
print("the message says", message.content["config"]["batch-size"])
assert message.content["config"]["batch-size"] == 32

# %% [markdown] tags=["slide-more"]
# The message is untouched. Between two machines it could not be otherwise, and the
# in-process grid keeps to that. A client changes something on the server only by what it
# *sends back*.

# %% [markdown] tags=["slide"]
# ## What if a client cannot answer?
#
# **Predict:** our ClientApp can only `train`. What comes back for a `"query"`?

# %% tags=["slide-then"]
grid = InProcessGrid(client_app, 3, seed=0, client_errors="reply")
question = Message(content, dst_node_id=node_ids[1], message_type="query")
(reply,) = grid.send_and_receive([question])
print("content:", reply.has_content(), " error:", reply.has_error())
print(reply.error.code, reply.error.reason)

# %% [markdown]
# - This is an **error reply**: it has an error in place of a content. An error has a code
#   and a reason. Code 2 means that the ClientApp raised an exception, and the reason
#   repeats it. (Our app has no function for queries, not even the `default` one, which
#   needs no name.)
# - Nothing was raised at the server. It goes on, and must look at the reply itself.
# - If the server reads `content` without looking, it gets an exception:

# %%
print(outcome(lambda: reply.content))

# %% [markdown]
# (Without `client_errors="reply"`, `InProcessGrid` raises the client's exception right
# here. That is kinder while you write a ClientApp.)
#
# A ClientApp can also answer with an error of its own, with a code and a reason:

# %%
from flwr.app import Error

refusal = Message(Error(code=100, reason="no data today"), reply_to=question)
assert refusal.has_error() and not refusal.has_content()
print(refusal.error.code, refusal.error.reason)

# %% [markdown] tags=["slide"]
# ## Why so strict?
#
# Two clients report how it went, one on 300 examples, the other on 100:

# %% tags=["slide-more"]
report_a = MetricRecord({**metrics, "num-examples": 300})
other = {"accuracy": 0.5, "losses": [0.5, 0.401], "perplexity": 4.31}
report_b = MetricRecord({**other, "num-examples": 100})
print(report_a, report_b, sep="\n")

# %% [markdown] tags=["slide"]
# The server averages the reports, weighted by number of examples as in lesson 00. By hand:


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

# %% [markdown] tags=["slide", "title: What a server can average"]
# - Check the accuracy in your head: 270 of 300 images and 50 of 100 were right, which is
#   320 of 400.
# - `weighted_mean` never asks what a `perplexity` is. It can average all numbers and lists
#   of numbers, if all clients send the same keys and lists of one length. But what is the
#   mean of `"good"` and `"bad"`?
# - This is why there are two types: **a MetricRecord holds what a server can average
#   without knowing what it means.** All else goes into a ConfigRecord, which nobody
#   averages.

# %% [markdown]
# Flower calls the server's algorithm a **strategy**. `FedAvg` is the one from lesson 00.
# At the end of a round it averages the replies, in `aggregate_train`. We give it the two
# reports, each in a reply with a model:

# %%
from flwr.serverapp.strategy import FedAvg

# Two new models stand in for two that were trained.
states = [Net(image_shape()).state_dict() for _ in range(2)]
replies = []
for state, report in zip(states, [report_a, report_b], strict=True):
    records = {"arrays": ArrayRecord(state), "metrics": report}
    replies.append(Message(RecordDict(records), reply_to=message))
strategy = FedAvg()
flower_arrays, flower_metrics = strategy.aggregate_train(1, replies)  # round 1
for key, value in flower_metrics.items():
    print(f"{key:11} {np.round(value, 6)}")

# %% [markdown]
# These are the averages that we made by hand. The arrays are the same, too:

# %%
from course_utils.model import weighted_average

by_hand = weighted_average(states, [300, 100])
by_flower = flower_arrays.to_torch_state_dict()
apart = [(by_flower[name] - by_hand[name]).abs().max() for name in by_hand]
print("alike, but for rounding:", bool(max(apart) < 1e-6))
assert max(apart) < 1e-6
assert all(np.allclose(flower_metrics[key], mean[key]) for key in mean)

# %% [markdown]
# What if a client sends other keys?

# %%
replies[1].content["metrics"] = MetricRecord({"num-examples": 100})
print(outcome(strategy.aggregate_train, 1, replies))

# %% [markdown]
# - Flower then averages nothing of this round, not even the models.
# - `num-examples` is gone from the averages: Flower uses it as the weight, and drops it.
#   Flower knows it by its *name*. `FedAvg(weighted_by_key=...)` sets another name.
# - Flower averages every number that you send. You must know whether the average means
#   anything. For the accuracy it does. For the perplexity, the `exp` of a loss, it does
#   not: on all 400 examples it is the `exp` of the average loss.

# %%
losses = np.log([report_a["perplexity"], report_b["perplexity"]])
on_all_examples = np.exp(np.average(losses, weights=[300, 100]))
print(f"{on_all_examples:.3f}, not {flower_metrics['perplexity']:.3f}")
assert on_all_examples < flower_metrics["perplexity"] - 0.1

# %% [markdown] tags=["slide"]
# ## How many bytes is a model?
#
# **Predict:** each parameter is a `float32`, which takes 4 bytes. How many bytes does the
# record have?

# %% tags=["slide-then"]
num_parameters = sum(p.numel() for p in net.parameters())
predicted = 4 * num_parameters
counted = arrays.count_bytes()
print(f"predicted {predicted:,} bytes, counted {counted:,} bytes")
print("difference:", counted - predicted)

# %% [markdown]
# It has a few more. Each array is stored as NumPy stores a file: first a header of 128
# bytes with its type and shape, then the numbers. The names count, too: one byte for each
# letter.

# %%
for name, array in arrays.items():
    header = len(array.data) - 4 * array.numpy().size
    print(f"{name:14} header {header} + name {len(name)}")
assert counted == predicted + sum(128 + len(name) for name in arrays)
assert counted < 1.01 * predicted

# %% [markdown]
# That is less than one percent more.
#
# An `ArrayRecord` also takes `float16`, which takes 2 bytes. **Predict:** how many bytes
# has the record now? And what is lost?

# %%
half = {name: values.half() for name, values in net.state_dict().items()}
half_record = ArrayRecord(half)
print(half_record["head.bias"].dtype, half_record.count_bytes(), "bytes")
assert half_record.count_bytes() == counted - 2 * num_parameters

again = Net(image_shape())
again.load_state_dict(half_record.to_torch_state_dict())
print("received:", again.head.bias.dtype)
lost = (again.head.weight - net.head.weight).abs().max().item()
print(f"largest difference in head.weight: {lost:.6f}")
assert 0 < lost < 1e-4

# %% [markdown]
# Half the bytes, and about three digits of each number are kept. The receiver's network
# has `float32` again: `load_state_dict` converts.
#
# Metrics and settings take 8 bytes for a number, 1 byte for a `bool`, one for each letter,
# and the names again. **Predict** the bytes of `config`, then count:

# %%
print(config, "→", config.count_bytes(), "bytes")
assert config.count_bytes() == (10 + 8) + (7 + 1) + (4 + 5)
assert metrics.count_bytes() == (8 + 8) + (6 + 2 * 8) + (10 + 8)

# %% [markdown]
# A message's bytes are those of its records. The records' names ("arrays", "config"), the
# metadata and what the network adds are not counted.

# %% [markdown] tags=["slide"]
# ### Exercise 1.2: bytes from shapes
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 2 of 3, apply | 8 | a model's price on the wire is known before anyone builds it |
#
# Complete `record_bytes`: `shapes` holds the shape of each array by name. `number_size`
# is how many bytes one number takes: 4 for `float32`, 8 for `float64`. Return how many
# bytes an `ArrayRecord` of these arrays has. A single number has the shape `()`.
#
# <details><summary>Hint 1</summary>
#
# Each array has three parts: its numbers, its header and its name. Which of the three
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
# **Why this.** The product of its shape says how many numbers an array has. Each array is
# stored on its own, so each has a header. **What people get wrong:** they add a shape's
# entries instead of multiplying, or count one header for the whole record. Or they take
# the shape `()` for nothing, but it is one number: batch normalization keeps such a count.

# %% [markdown] tags=["slide"]
# ## How many bytes is a federation?
#
# In a round, every client gets the model with a config, and sends a model with metrics
# back.
#
# **Predict:** lesson 00 counted the megabytes (millions of bytes) of ten clients and ten
# rounds. Which of these doubles them: twice as many clients, twice as many local epochs,
# twice as many examples at each client, twice as many parameters?

# %% [markdown]
# Here are the bytes in code. The values make no difference, only their types do:

# %%
train_config = ConfigRecord({"lr": 0.01, "server-round": 1})
train_metrics = MetricRecord({"train-loss": 0.5, "num-examples": 400})


def predict_bytes(num_clients: int, num_rounds: int) -> int:
    down = arrays.count_bytes() + train_config.count_bytes()
    up = arrays.count_bytes() + train_metrics.count_bytes()
    return num_rounds * num_clients * (down + up)


print(f"{predict_bytes(10, 10) / 1e6:.1f} MB")

# %% [markdown]
# Then count them. This ClientApp answers like one that trains, but does not train:

# %%
client_app = ClientApp()


@client_app.train()
def pretend_to_train(message: Message, context: Context) -> Message:
    records = {"arrays": message.content["arrays"], "metrics": train_metrics}
    return Message(RecordDict(records), reply_to=message)


# %% [markdown]
# The grid keeps a list of all messages that crossed it. (It knows the `round` of each by
# `"server-round"` in the config.) Here are two clients and one round:


# %%
def run_rounds(num_clients: int, num_rounds: int) -> InProcessGrid:
    grid = InProcessGrid(client_app, num_clients, seed=0)
    for server_round in range(1, num_rounds + 1):
        config = ConfigRecord({"lr": 0.01, "server-round": server_round})
        content = RecordDict({"arrays": arrays, "config": config})
        nodes = grid.get_node_ids()
        messages = [Message(content, node, "train") for node in nodes]
        grid.send_and_receive(messages)
    return grid


for delivery in run_rounds(num_clients=2, num_rounds=1).messages:
    print("up  " if delivery.is_reply else "down", delivery.bytes, "bytes")

# %% tags=["slide-then", "slide-output"]
for num_clients, num_rounds in ((5, 10), (10, 10), (10, 20)):
    grid = run_rounds(num_clients, num_rounds)
    total = sum(message.bytes for message in grid.messages)
    print(f"{num_clients} clients, {num_rounds} rounds: {total:,} bytes")
    assert total == predict_bytes(num_clients, num_rounds)

# %% [markdown]
# These are the predicted bytes. Now the ClientApp of lesson 00, which trains. One client of
# ten has 400 examples, and one of five has 800 (with the default dataset):

# %% tags=["slide-then", "slide-output"]
from course_utils.apps import client_app as training_app

for num_clients, epochs in ((10, 1), (5, 1), (10, 2)):
    run_config = {"local-epochs": epochs}
    grid = InProcessGrid(
        training_app, num_clients, seed=0, run_config=run_config
    )
    node = grid.get_node_ids()[0]
    (reply,) = grid.send_and_receive([Message(content, node, "train")])
    examples = reply.content["metrics"]["num-examples"]
    size = reply.content["arrays"].count_bytes()
    print(f"examples {examples}, epochs {epochs}: {size:,} bytes")
    assert size == arrays.count_bytes()

# %% [markdown] tags=["slide", "title: A model of 7 billion parameters"]
# - Twice as many clients move twice the bytes. So do twice as many rounds, and twice as
#   many parameters, but for the headers.
# - Twice as many examples or local epochs do not. They change what the numbers are, and
#   not how many there are.
# - For a model of 7 billion parameters, in `float32`:

# %% tags=["slide-more"]
large_model = 4 * 7_000_000_000
print(f"10 clients, 100 rounds: {100 * 10 * 2 * large_model / 1e12:.0f} TB")

# %% [markdown]
# The clients could also send all images to the server, once. An image takes one byte for
# each pixel and colour. **Predict:** after how many rounds has our federation moved more
# bytes than that?

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
# With the default dataset, it is in the second round. Federated learning keeps data where
# they are. It does not promise to save bytes.

# %% [markdown]
# ### Exercise 1.3: answer a question
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 3 of 3, build | 12 | clients that lack labels make training harder: ask first |
#
# Before training, a server asks each client which labels it holds. The message's type is
# `"query"`. Its content says how many labels there are in the whole federation, such as
# `RecordDict({"config": ConfigRecord({"num-classes": 10})})`.
#
# Complete `count_labels`, which answers such a message. The reply carries one
# `MetricRecord`, named `"metrics"`, with two entries:
#
# - `"label-counts"`: a list that says how many examples of label 0 the client has, of
#   label 1, and so on, up to the last label of the federation,
# - `"num-examples"`: how many examples the client has.
#
# `trainloader` yields batches of images and labels, as in lesson 00. (Here it is handed
# over. Lesson 03 shows how a ClientApp finds it.)
#
# <details><summary>Hint 1</summary>
#
# The reply is a `Message` with `reply_to`. It holds a `RecordDict`, which holds a
# `MetricRecord`, which holds a list. `message.content["config"]` is the server's config.
# </details>
# <details><summary>Hint 2</summary>
#
# The count of a label that the client does not have is 0. Begin with a list of zeros, one
# for each label, or look up `minlength` of `torch.bincount`.
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
# **Why this.** Every client's list has the same length and the same key, so a server can
# add up the lists without knowing whose they are. But label counts say something about
# the data, and now they leave the client. **What people get wrong:** they leave out the
# labels that the client lacks, and then the third number is not about label 2. Or NumPy's
# integers hide in the list, and a `MetricRecord` refuses them.

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
#   metadata. An error can take the place of the content.
# - **A server can average** any metric because a MetricRecord holds only numbers (if all
#   clients send the same keys, and lists of one length). Flower averages them, weighted by
#   `num-examples`, and drops that key.
# - **Bytes** are a little more than 4 for each `float32` parameter, times clients, times
#   rounds, times two. They do not depend on the number of examples.

# %% [markdown]
# ## Check yourself
#
# <details><summary>1. A client reports <code>{"train-loss": loss}</code>, with
# <code>loss</code> straight from PyTorch's loss function. What happens, and what is the
# cure?</summary>
#
# `MetricRecord` raises a `TypeError`, because a tensor is not a `float`. Write
# `loss.item()`.
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
# It holds the one that it had. The client changed its own copy, and sent no config back.
# </details>
#
# <details><summary>4. Ten times as many images come in at every client, and the model
# stays the same. How does the traffic of a round grow?</summary>
#
# It does not grow: a number takes 8 bytes, whether it is 400 or 4,000. Only training takes
# longer.
# </details>
#
# <details><summary>5. Each client reports the largest error that it made, as
# <code>"max-error"</code>. After Flower has averaged the reports, what is the
# number?</summary>
#
# It is the weighted mean of the maxima, which is not the maximum over all clients. Flower
# averages any number, meaningful or not. (You can give a strategy a function of your own
# instead: `train_metrics_aggr_fn`.)
# </details>
#
# <details><summary>6. All ten nodes answered with an error reply. Did
# <code>send_and_receive</code> raise?</summary>
#
# No, neither on Flower's network nor here with `client_errors="reply"`. It returned ten
# messages, each with an error in place of a content. The server has to ask
# `reply.has_error()`.
# </details>

# %% [markdown]
# **Next:** [02 · Partitions](02_partitions.ipynb), where clients get data of their own,
# and become unlike each other.

# %%
from course_utils.exercises import progress

progress("01")
