# %% [markdown] tags=["slide"]
# # 03 · The ClientApp
#
# **What does Flower ask of the code that runs where the data are?**
#
# After this lesson you can
#
# - say what a ServerApp and a ClientApp are for, and where each of them runs,
# - write a train and an evaluate function for a ClientApp, call them with a Message and a
#   Context, and train on a GPU if there is one,
# - say what `num-examples` does to an average,
# - answer queries and named actions,
# - recognise, by who notices it, each mistake that everyone makes once.
#
# **You need:** lessons 00 to 02. **Time:** 80 minutes, 25 of them for the
# exercises.

# %% [markdown] tags=["slide"]
# ## Two apps, and what carries their messages
#
# Whoever builds a federation with Flower writes two programs:
#
# - The **ServerApp** leads a run. It decides whom to ask, what to send, and how to
#   average. Lesson 05 writes one.
# - The **ClientApp** answers one message. It reads what the server sent, works on the
#   data that are there, and replies. This lesson writes one.
#
# Neither of them knows anything about networks. Two programs that come with Flower carry
# their messages:

# %% tags=["slide", "title: Who talks to whom", "slide-output"]
from course_utils.plots import draw_apps

draw_apps()

# %% [markdown] tags=["slide", "title: SuperLink and SuperNodes"]
# - There is one **SuperLink**, and one **SuperNode** for each client. Both run all the
#   time, before a run and after it.
# - A SuperNode calls the SuperLink and asks for messages. The SuperLink never calls a
#   SuperNode, so a hospital need not open its network.
# - The ServerApp is started for one run. How long a ClientApp lives, lesson 04 shows.
# - The ClientApp reads the data on the client's machine. Only its reply goes to the
#   server.

# %% [markdown]
# Both apps are plain Python objects. The same ClientApp can answer in three places:
#
# - in this notebook,
# - on Flower's Simulation Runtime, where one machine plays all clients,
# - with a SuperLink and SuperNodes, as drawn. This is a **deployment**.
#
# The last two are Flower's **runtimes**. A ServerApp sees all of them as a **grid**.
# Here, an `InProcessGrid` stands for everything between your code on both sides.

# %% [markdown]
# ## What a ClientApp is called with
#
# A ClientApp is called with two things. The **Message** comes from the server. The
# **Context** says where the ClientApp is. Only a running app may make a message, as
# lesson 01 showed. So start a grid. Its ClientApp cannot do anything yet:

# %%
import torch
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

NUM_CLIENTS = 10
CLIENT = 2  # the one that this lesson looks at
grid = InProcessGrid(ClientApp(), NUM_CLIENTS, seed=0)
node_id = grid.get_node_ids()[CLIENT]
context = grid.node_contexts[node_id]
print(context.node_config)

# %% [markdown]
# The grid has made a Context for each node. Its `node_config` says what is special about
# this node. (Its `state` and its `run_config` are for lesson 04.)
#
# The message brings the global model, and says how to train it. We need several
# messages, so a function makes them:

# %%
from course_utils.model import Net
from course_utils.partitions import image_shape

torch.manual_seed(0)
global_net = Net(image_shape())


def instruction(node_id: int, message_type: str = "train") -> Message:
    content = RecordDict(
        {
            "arrays": ArrayRecord(global_net.state_dict()),
            "config": ConfigRecord({"lr": 0.01, "local-epochs": 1}),
        }
    )
    return Message(content, dst_node_id=node_id, message_type=message_type)


message = instruction(node_id)
print(message.metadata.message_type, list(message.content))

# %% [markdown] tags=["slide"]
# ## Training, line by line
#
# A train function does five things. Here they are as five cells.
#
# **1. Unpack.** The server chose the names of the records. Flower's strategies choose
# `"arrays"` and `"config"`.

# %% tags=["slide-more"]
arrays = message.content["arrays"]
config = message.content["config"]
print(f"{len(arrays)} arrays, config {dict(config)}")

# %% [markdown] tags=["slide"]
# **2. Find your own data.** The message says nothing about data: the server has never
# seen them. The Context says which partition belongs to this client:

# %% tags=["slide-more"]
from torch.utils.data import DataLoader

from course_utils.partitions import load_partition


def load_data(context: Context) -> tuple[DataLoader, DataLoader]:
    return load_partition(
        context.node_config["partition-id"],
        context.node_config["num-partitions"],
        scheme="linear",
    )


trainloader, testloader = load_data(context)
num_examples, num_test = len(trainloader.dataset), len(testloader.dataset)
print(f"client {CLIENT}: {num_examples} train, {num_test} test examples")

# %% [markdown]
# - A real client would read its own disk here. This notebook has all the data on one
#   disk, and `partition-id` chooses a part of them.
# - Under `scheme="linear"` the sizes grow from client to client, as in lesson 02. The
#   average will have to respect that.

# %% [markdown] tags=["slide"]
# **3. Load and train.** This is plain PyTorch. `model` is the course's module of that
# name, and `model.train` is the function of lesson 00, which trains a network. (PyTorch's
# `net.train()` only switches a network to train mode.) The seed fixes the order of the
# batches, so that we can compare later.

# %% tags=["slide-more"]
from course_utils import model

torch.manual_seed(1)
net = Net(image_shape())
net.load_state_dict(arrays.to_torch_state_dict())
train_loss = model.train(
    net, trainloader, epochs=config["local-epochs"], lr=config["lr"]
)

# %% [markdown] tags=["slide", "title: 4. Pack and 5. Reply"]
# **4. Pack.** The reply carries the model, the loss, and the number of examples:

# %% tags=["slide-more"]
metrics = {"train-loss": train_loss, "num-examples": num_examples}
content = RecordDict(
    {"arrays": ArrayRecord(net.state_dict()), "metrics": MetricRecord(metrics)}
)
print({name: type(record).__name__ for name, record in content.items()})

# %% [markdown] tags=["slide-more"]
# **5. Reply.** `reply_to` says which message this answers. Type and address follow from
# it:

# %% tags=["slide-more"]
by_lines = Message(content, reply_to=message)
assert by_lines.metadata.src_node_id == node_id
assert by_lines.metadata.dst_node_id == message.metadata.src_node_id
print(by_lines.metadata.message_type, list(by_lines.content))

# %% [markdown]
# ### Exercise 3.1: pack a reply, or refuse
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 1 of 3, recall | 3 | one NaN in one reply makes everyone's model NaN |
#
# A training can diverge: its numbers become infinite, or NaN ("not a number"). The server
# averages them like any others. If a client raises an exception, the server has one reply
# less, and no more harm is done.
#
# Complete `pack_reply`: steps 4 and 5, for any model. Reply to `message` with the arrays
# of `state_dict` and with `metrics`, in records that are named as in step 4. But if any
# number in the arrays or in the metrics is NaN or infinite, raise a `ValueError`.
#
# <details><summary>Hint 1</summary>
#
# `torch.isfinite(tensor)` says of each number whether it is neither NaN nor infinite.
# `.all()` says whether that is true of all of them.
# </details>
# <details><summary>Hint 2</summary>
#
# The metrics are plain numbers. `math.isfinite(value)` says the same of one number.
# </details>

# %%
import math

from course_utils.exercises import check


def pack_reply(
    message: Message,
    state_dict: dict[str, torch.Tensor],
    metrics: dict[str, float],
) -> Message:
    """Return the reply to a train message, if all its numbers are finite."""
    ### BEGIN SOLUTION
    finite = [torch.isfinite(tensor).all() for tensor in state_dict.values()]
    finite += [math.isfinite(value) for value in metrics.values()]
    if not all(finite):
        raise ValueError("The training has diverged.")
    content = RecordDict(
        {
            "arrays": ArrayRecord(state_dict),
            "metrics": MetricRecord(metrics),
        }
    )
    return Message(content, reply_to=message)
    ### END SOLUTION


# %%
check("3.1", pack_reply)

# %% [markdown] tags=["solution"]
# **Why this.** A client is the last one who can tell a diverged training from a good
# reply. The exception loses this reply, and saves the average. **What people get wrong:**
# they look at the loss alone, which may be finite where the parameters no longer are;
# they look for NaN, and forget infinity; or they put the arrays of the message into the
# reply instead of the trained ones.

# %% [markdown]
# ## The function, and three ways to call it
#
# Here are the same five steps as one function. `@client_app.train()` tells the ClientApp
# to call this function for messages of type `"train"`:

# %% tags=["slide"]
client_app = ClientApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    config = message.content["config"]
    trainloader, _ = load_data(context)
    net = Net(image_shape())
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    loss = model.train(
        net, trainloader, epochs=config["local-epochs"], lr=config["lr"]
    )
    metrics = {"train-loss": loss, "num-examples": len(trainloader.dataset)}
    content = RecordDict(
        {
            "arrays": ArrayRecord(net.state_dict()),
            "metrics": MetricRecord(metrics),
        }
    )
    return Message(content, reply_to=message)


# %% [markdown] tags=["slide"]
# **Predict:** what is `train` now? The decorator might have wrapped it in something that
# only Flower can call.

# %% tags=["slide-then"]
assert ClientApp().train()(train) is train
torch.manual_seed(1)
by_hand = train(message, context)
assert by_hand.content == by_lines.content
print("called by hand: the same reply")

# %% [markdown] tags=["slide-more"]
# It has not. The decorator is short for `train = client_app.train()(train)`. It notes the
# function down and returns it unchanged. So you can call the function, test it, and set a
# breakpoint in it, without any server.
#
# A ClientApp is called the same way, with a Message and a Context. It looks at the
# message's type, and calls the function for this type:

# %%
torch.manual_seed(1)
by_app = client_app(message, context)
assert by_app.content == by_hand.content
print("through the ClientApp: the same reply")

# %% [markdown]
# The third way is through a grid. It makes the Context, copies the message, and calls
# the ClientApp as if on another machine. (The `seed` of a grid also fixes the order of
# each client's batches. This grid has none: `manual_seed` fixes it, as above.)

# %%
grid = InProcessGrid(client_app, NUM_CLIENTS)
message_on_grid = instruction(grid.get_node_ids()[CLIENT])
torch.manual_seed(1)
(by_grid,) = grid.send_and_receive([message_on_grid])
assert by_grid.content == by_hand.content
print("over a grid: the same reply")

# %% [markdown]
# Model and metrics are the same, bit by bit. Work in this order: get the lines right,
# then the function, then the app. Then send messages.

# %% [markdown]
# ### On a GPU
#
# A client may have a GPU, and it is the ClientApp that uses it. **Predict:** the server
# has no GPU. Does the client have to move its model back to the CPU before it replies?


# %%
def train_on_device(message: Message, context: Context) -> Message:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = Net(image_shape()).to(device)
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    trainloader, _ = load_data(context)
    for images, labels in trainloader:
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    arrays = ArrayRecord(net.state_dict())
    metrics = MetricRecord({"num-examples": len(trainloader.dataset)})
    content = RecordDict({"arrays": arrays, "metrics": metrics})
    return Message(content, reply_to=message)


reply = train_on_device(message, context)
tensors = reply.content["arrays"].to_torch_state_dict().values()
print("what travels is on:", {tensor.device.type for tensor in tensors})

# %% [markdown]
# It does not. An `ArrayRecord` copies each tensor to the CPU, and `load_state_dict`
# copies it to wherever the model is. So the client moves two things: the model once, and
# each batch.
#
# (Without a GPU this proves nothing. Flower calls `.detach().cpu()` on each tensor.)
#
# The Simulation Runtime gives its clients no GPU unless you ask for a share of one
# (`client-resources-num-gpus`, a setting of the simulation, 0.0 by default).

# %% [markdown] tags=["slide"]
# ## Evaluation
#
# The server also asks how good its model is on data that only clients have. The message
# brings arrays. The reply takes back numbers:


# %% tags=["slide-more"]
def evaluate(message: Message, context: Context) -> Message:
    _, testloader = load_data(context)
    net = Net(image_shape())
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    loss, accuracy = model.test(net, testloader)
    metrics = {
        "eval-loss": loss,
        "eval-accuracy": accuracy,
        "num-examples": len(testloader.dataset),
    }
    content = RecordDict({"metrics": MetricRecord(metrics)})
    return Message(content, reply_to=message)


# %% [markdown]
# - No arrays go back. The server sent them, and they have not changed.
# - `num-examples` counts the examples of the *test*.
#
# **Predict:** an app has a function for `"train"` only. What does it say to an
# `"evaluate"` message? (`outcome` is lesson 01's helper. It returns the error as text.)

# %%
from course_utils import outcome

trains_only = ClientApp()
trains_only.train()(train)
question = instruction(node_id, "evaluate")
print(outcome(trains_only, question, context))

# %% [markdown]
# `@client_app.evaluate()` above the function would register it. But in a notebook, one
# runs a cell again and again. **Predict:** what happens when a function is registered a
# second time, such as `train`?

# %%
print(outcome(client_app.train(), train))

# %% [markdown]
# The app refuses. (`'default'` is the name of a function that was given none.) So **make
# the app in the cell that registers its functions**, as the cell of `train` did. You can
# run such a cell as often as you like:

# %%
client_app = ClientApp()
client_app.train()(train)
client_app.evaluate()(evaluate)

answer = evaluate(question, context)
assert client_app(question, context).content == answer.content
print(list(answer.content), list(answer.content["metrics"]))

# %% [markdown]
# A file is loaded once. There, write `@client_app.train()` and `@client_app.evaluate()`
# above the functions.

# %% [markdown] tags=["slide"]
# ### Exercise 3.2: answer an evaluate message
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 2 of 3, apply | 8 | a run's accuracy is made of such replies, and nobody checks them |
#
# Complete `report`: the work of an evaluate function for any network and any data. Test
# the model that the message brings, on `testloader`, and reply as `evaluate` above does.
# `net` is a network of the right kind in *another* state, and you may change it. It may
# have a BatchNorm, which also has a state: running means, which training moves and a test
# only uses.
#
# <details><summary>Hint 1</summary>
#
# Which state does `net` have when it is tested? A `state_dict` holds parameters and
# running means alike.
# </details>
# <details><summary>Hint 2</summary>
#
# `model.test` switches the network to eval mode, so that its running means stay as they
# are. It returns loss and accuracy, the accuracy as a share.
# </details>
# <details><summary>Hint 3</summary>
#
# `num-examples` is the weight of this accuracy: examples tested, not batches. What else
# needs to go back?
# </details>

# %%
from torch import nn


def report(
    message: Message, net: nn.Module, testloader: DataLoader
) -> Message:
    """Return the reply to an evaluate message."""
    ### BEGIN SOLUTION
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    loss, accuracy = model.test(net, testloader)
    metrics = {
        "eval-loss": loss,
        "eval-accuracy": accuracy,
        "num-examples": len(testloader.dataset),
    }
    content = RecordDict({"metrics": MetricRecord(metrics)})
    return Message(content, reply_to=message)
    ### END SOLUTION


# %%
check("3.2", report)

# %% [markdown] tags=["solution"]
# **Why this.** The server asks about *its* model, so all its arrays go into the network
# before anything is tested, and only numbers go back. **What people get wrong:** they
# test the network as it was made, with random parameters, and the accuracy stays near
# chance in every round; they test in train mode, which also moves a BatchNorm's means; or
# they count batches, and small clients weigh too much.

# %% [markdown] tags=["slide"]
# ## num-examples
#
# Now all ten clients train. Each counts its own examples:

# %% tags=["slide-more"]
grid = InProcessGrid(client_app, NUM_CLIENTS, seed=0)
messages = [instruction(node) for node in grid.get_node_ids()]
replies = grid.send_and_receive(messages)
counts = [reply.content["metrics"]["num-examples"] for reply in replies]
print("num-examples:", counts)

# %% [markdown]
# As in [lesson 01](01_messages_and_records.ipynb), `aggregate_train` is what Flower's
# `FedAvg` does with the replies of a round. It is the average of lesson 00:

# %%
from flwr.serverapp.strategy import FedAvg

from course_utils.model import weighted_average

average, averaged = FedAvg().aggregate_train(server_round=1, replies=replies)
states = [reply.content["arrays"].to_torch_state_dict() for reply in replies]
expected = weighted_average(states, counts)
for name, values in average.to_torch_state_dict().items():
    assert torch.allclose(values, expected[name], atol=1e-6)
print("the same average; metrics:", list(averaged))

# %% [markdown]
# The losses are averaged with the same weights. `num-examples` was only the weight, so it
# is not in the result.
#
# Replies of one number each show what it does. As in lesson 00, one client says 0
# and has 1 example, and the other says 8 and has 3:

# %%
import numpy as np


def small_reply(value: float, metrics: dict, name: str = "arrays") -> Message:
    arrays = ArrayRecord([np.array([value])])
    content = RecordDict({name: arrays, "metrics": MetricRecord(metrics)})
    return Message(content, reply_to=message)


def flower_average(first: dict, second: dict) -> float:
    replies = [small_reply(0.0, first), small_reply(8.0, second)]
    arrays, _ = FedAvg().aggregate_train(server_round=1, replies=replies)
    return arrays.to_numpy_ndarrays()[0].item()


print(flower_average({"num-examples": 1}, {"num-examples": 3}))

# %% [markdown] tags=["slide"]
# **Predict:** neither client says how many. Does Flower take the plain mean, 4.0?

# %% tags=["slide-then"]
print(outcome(flower_average, {"train-loss": 0.5}, {"train-loss": 0.7}))

# %% [markdown] tags=["slide-then"]
# It refuses, on the server. The run ends there (as Flower's source has it), and
# every client has trained for nothing. **Predict:** and if every client says the *same*
# number, whatever it has?

# %% tags=["slide-then"]
plain_mean = flower_average({"num-examples": 1}, {"num-examples": 1})
print(plain_mean)
assert plain_mean == 4.0
assert flower_average({"num-examples": 1}, {"num-examples": 3}) == 6.0

# %% [markdown]
# There is no error, and the average is wrong. Flower has only the client's word. The
# usual slip is `len(trainloader)`, which counts batches:

# %%
print("batches:", len(trainloader), " examples:", len(trainloader.dataset))
assert len(trainloader) < len(trainloader.dataset)

# %% [markdown]
# ## Queries and named actions
#
# A **query** (lesson 01) neither trains nor tests. This one asks how many examples a
# client has:


# %%
def query(message: Message, context: Context) -> Message:
    trainloader, _ = load_data(context)
    metrics = MetricRecord({"num-examples": len(trainloader.dataset)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


# %% [markdown]
# An app can also have several functions of one kind, each with a name of its own. The
# function below trains the last layer only, and sends back only this layer. It keeps the
# full names of the arrays, so that the server can see where they belong:


# %%
def train_head(message: Message, context: Context) -> Message:
    trainloader, _ = load_data(context)
    net = Net(image_shape())
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    net.body.requires_grad_(False)
    model.train(net, trainloader, lr=message.content["config"]["lr"])
    weights = net.state_dict().items()
    arrays = ArrayRecord({n: w for n, w in weights if n.startswith("head.")})
    metrics = MetricRecord({"num-examples": len(trainloader.dataset)})
    content = RecordDict({"arrays": arrays, "metrics": metrics})
    return Message(content, reply_to=message)


# %% [markdown]
# Now there are four functions for four types of message. (In a file, write
# `@client_app.query()` and `@client_app.train("head")`.) The query's message is empty:

# %%
client_app = ClientApp()
client_app.train()(train)  # "train"
client_app.train("head")(train_head)  # "train.head"
client_app.evaluate()(evaluate)  # "evaluate"
client_app.query()(query)  # "query"

grid = InProcessGrid(client_app, NUM_CLIENTS, seed=0)
nodes = grid.get_node_ids()
questions = [Message(RecordDict(), node, "query") for node in nodes]
answers = grid.send_and_receive(questions)
sizes = [answer.content["metrics"]["num-examples"] for answer in answers]
print("examples in all:", sum(sizes))
assert sizes == counts

# %% [markdown]
# The server now knows how many examples there are, before anybody has trained. So think
# about what a query answers: its reply leaves the client, too.
#
# **Predict:** how many bytes do the replies to `"train"` and `"train.head"` take?

# %%
for message_type in ("train", "train.head"):
    order = instruction(nodes[CLIENT], message_type)
    (reply,) = grid.send_and_receive([order])
    record = reply.content["arrays"]
    size = record.count_bytes()
    print(f"{message_type:10} {len(record)} arrays, {size:,} bytes")
assert list(reply.content["arrays"]) == ["head.weight", "head.bias"]

# %% [markdown]
# Flower's strategies send `"train"` and `"evaluate"`, and nothing else. A ServerApp that
# wants a query or a named action sends it itself, as we did.

# %% [markdown]
# ## Twelve mistakes: who notices?
#
# Everyone makes these once. **Predict** who notices each of them: the record, the
# message, the runtime, the server, or nobody?
#
# | mistake | who? |
# |---|---|
# | 1. a record is read that is not there | |
# | 2. a number of NumPy's as a metric | |
# | 3. a dictionary of NumPy arrays as arrays | |
# | 4. no `reply_to` | |
# | 5. a message type that does not exist | |
# | 6. nothing returned, or a dictionary | |
# | 7. other metrics than the other clients | |
# | 8. another record name than the other clients | |
# | 9. another shape than the other clients | |
# | 10. the message's arrays changed and sent back | |
# | 11. whole numbers among the arrays | |
# | 12. NaN among the arrays | |

# %% [markdown]
# **1. Reading a record that is not there.** The server calls it `"arrays"`. A key that is
# missing in the config looks the same.


# %%
def wrong_name(message: Message, context: Context) -> Message:
    content = RecordDict({"arrays": message.content["weights"]})
    return Message(content, reply_to=message)


print(outcome(wrong_name, message, context))

# %% [markdown]
# *The record notices*: here the RecordDict, on the client.
#
# **2 and 3. NumPy's.** *The record notices*, in the line that makes it. [Lesson
# 01](01_messages_and_records.ipynb) has both errors, and the cures: `float(...)` for the
# number; for the arrays, a list, or an `Array` each.
#
# **4. No `reply_to`**, on the client. And on the server, **5. a type that does not
# exist**:


# %%
def forgets_reply_to(message: Message, context: Context) -> Message:
    return Message(RecordDict())


print(outcome(forgets_reply_to, message, context))
print(outcome(instruction, node_id, "training"))

# %% [markdown]
# *The message notices*, before it is sent. To Flower, the first is a message to nobody.

# %% [markdown] tags=["slide"]
# **6. No return**, or a dictionary returned. **Predict:** does the ClientApp check what its
# function returns?


# %% tags=["slide-more"]
def returns_nothing(message: Message, context: Context) -> Message:
    Message(RecordDict(), reply_to=message)


def returns_a_dictionary(message: Message, context: Context) -> Message:
    return {"train-loss": 0.5}


# %% tags=["slide-then"]
from collections.abc import Callable


def app_that_trains_by(function: Callable) -> ClientApp:
    client_app = ClientApp()
    client_app.train()(function)
    return client_app


for function in (returns_nothing, returns_a_dictionary):
    print(app_that_trains_by(function)(message, context))

# %% [markdown]
# It does not. *The runtime notices*, here the in-process grid:


# %%
def ask(function: Callable, client_errors: str = "raise") -> Message:
    client_app = app_that_trains_by(function)
    grid = InProcessGrid(client_app, 1, seed=0, client_errors=client_errors)
    (reply,) = grid.send_and_receive([instruction(grid.get_node_ids()[0])])
    return reply


print(outcome(ask, returns_nothing))
print(outcome(ask, returns_a_dictionary))

# %% [markdown]
# The course is kind here. Flower's own runtimes have no reply to deliver then, so they
# deliver none (as Flower's source has it), and the server waits. After an hour, `FedAvg`
# goes on with the replies that it has, and does not count this one as a failure. The hour
# is the `timeout` of `FedAvg.start`, in seconds:

# %%
from inspect import signature

print(signature(FedAvg.start).parameters["timeout"].default)

# %% [markdown]
# ### How the server sees an error
#
# Here, a client's exception surfaces in the notebook. On Flower's runtimes it becomes an
# error reply, and the traceback stays in the client's log:

# %%
reply = ask(wrong_name, client_errors="reply")
print(reply.has_content(), reply.error.reason)

# %% [markdown]
# ## Mistakes 7 to 12: the average
#
# **7. Other metrics than the other clients**, for example one that only this client could
# measure. And **8. another record name**:

# %%
usual = {"train-loss": 0.5, "num-examples": 1}
unusual = {"train-loss": 0.7, "num-examples": 3, "train-accuracy": 0.9}
print(outcome(flower_average, usual, unusual))


def average_by(*names: str) -> ArrayRecord:
    replies = [small_reply(1.0, usual, name) for name in names]
    return FedAvg().aggregate_train(server_round=1, replies=replies)[0]


print(outcome(average_by, "arrays", "model"))
print(outcome(average_by, "model", "model"))

# %% [markdown]
# *The server notices*, as it notices a missing `num-examples`, and the run ends. Any name
# will do if all clients use it.

# %% [markdown]
# **9. Another shape.** A client whose data lack a class may send a table with fewer rows,
# as scikit-learn's models do. **Predict:** two clients have equally many examples. What is
# the average of three rows of zeros and one row of ones?


# %%
def average_of(records: list, counts: list[int]) -> ArrayRecord:
    replies = []
    for arrays, count in zip(records, counts, strict=True):
        metrics = MetricRecord({"num-examples": count})
        content = RecordDict({"arrays": arrays, "metrics": metrics})
        replies.append(Message(content, reply_to=message))
    return FedAvg().aggregate_train(server_round=1, replies=replies)[0]


three_rows = ArrayRecord([np.zeros((3, 8))])
one_row = ArrayRecord([np.ones((1, 8))])
(array,) = average_of([three_rows, one_row], [1, 1]).to_numpy_ndarrays()
print("averaged:", array.shape, array[:, 0])
states = [r.to_torch_state_dict() for r in (three_rows, one_row)]
print(outcome(weighted_average, states, [1, 1]))

# %% [markdown]
# *Nobody notices, in this order.* NumPy adds the one row to each of the three. If the
# smaller array comes first, or if neither fits the other, NumPy raises an error on the
# server, and the run ends. Which reply comes first is chance. Our `weighted_average`
# refuses both. With Flower, let each client compare the shapes that it sends with those
# that it got.

# %% [markdown]
# **10. Changing the arrays of the message.** This client takes tensors out of the record,
# changes them, and sends the record back. **Predict:** what does the server get?


# %%
def changes_the_message(message: Message, context: Context) -> Message:
    state = message.content["arrays"].to_torch_state_dict()
    for tensor in state.values():
        tensor.zero_()
    return Message(message.content, reply_to=message)


reply = ask(changes_the_message)
unchanged = reply.content["arrays"] == message.content["arrays"]
print("as they were sent:", unchanged)
assert unchanged

# %% [markdown]
# The server gets its own arrays, untouched. *Nobody notices.* A record is a snapshot, and
# `to_torch_state_dict` makes new tensors each time. Put what you trained into a **new**
# `ArrayRecord`. The sign of this mistake is an accuracy that never moves.
#
# **11. Whole numbers among the arrays.** A model with batch normalization counts its
# batches in its `state_dict`. **Predict:** ten clients all send 960. What does the server's
# model hold then? First all have 111 examples, then 111, 148, 185, and so on:

# %%
norm = torch.nn.BatchNorm1d(2)
for step in (0, 37):
    norm.num_batches_tracked.fill_(960)
    sent = [ArrayRecord(norm.state_dict())] * 10
    average = average_of(sent, [111 + step * i for i in range(10)])
    state = average.to_torch_state_dict()
    norm.load_state_dict(state)
    print(state["num_batches_tracked"].dtype, norm.num_batches_tracked.item())

# %% [markdown]
# 960, then 959. *Nobody notices.* `FedAvg` averages every array as floats, which round. With
# some weights, the sum ends a little below 960, and `load_state_dict` cuts off what follows
# the decimal point.
#
# Numbers that stand for positions would no longer fit. So leave whole numbers on the client
# (`if value.is_floating_point()`), and load the average with `strict=False`. Everything
# else is sent: the parameters, and what batch normalization measures. (The models of
# exercise 3.3 have no whole numbers, so there *all* arrays go back.)

# %% [markdown]
# **12. NaN.** Exercise 3.1 does not let it out. **Predict:** one client of ten sends it all the
# same. What is the average?

# %%
fine = ArrayRecord([np.ones(2)])
diverged = ArrayRecord([np.array([1.0, np.nan])])
(array,) = average_of([fine] * 9 + [diverged], [1] * 10).to_numpy_ndarrays()
print(array)
assert np.isnan(array).tolist() == [False, True]

# %% [markdown]
# NaN, wherever the one client has it. *Nobody notices.* In the next round all ten begin
# with it, and none of them can train it away.

# %% [markdown] tags=["slide"]
# ### All of them, by who notices
#
# | who notices | mistake |
# |---|---|
# | the record | a name read that is not there; `np.float32`; a dictionary of ndarrays |
# | the message | no `reply_to`; a type that does not exist |
# | the app | a type without a function; a function registered twice |
# | the runtime | nothing returned, or no Message (on Flower's own: no reply, silence) |
# | the server | no `num-examples`; record names or metric keys unlike other clients' |
# | nobody | the old arrays sent back; batches counted instead of examples; whole numbers averaged; other shapes; NaN |
#
# The further down, the later it is noticed, and the more it costs. So call your functions
# by hand first, and look at the reply.

# %% [markdown]
# ### Exercise 3.3: clip what a client may change
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 3 of 3, build | 13 | one client can pull the model only so far; privacy needs that |
#
# As in lesson 00, a client's **update** is what its training changed: the `state_dict`
# after minus the one before, so with its buffers. **Clipping** it means: if it is too
# long, shorten it and keep its direction. Its length is the L2 norm over *all* its
# numbers, whatever array they are in: the square root of the sum of their squares.
#
# Complete `train_clipped`:
#
# - start from the arrays of the message; `net` is in another state, and you may change it,
# - train once by `train_fn(net, trainloader)`, which changes `net` in place,
# - clip the update to a length of at most `max_norm`; one that is short enough stays as
#   it is,
# - reply with *all* arrays of the model, the message's plus the clipped update, and with
#   the one metric `"num-examples"`.
#
# For example, training takes weights (1, 2) and bias 3 to (7, 4) and 6. The update is
# (6, 2) and 3, of length 7. If `max_norm` is 2.8, (3.4, 2.8) and 4.2 go back.
#
# <details><summary>Hint 1</summary>
#
# You need the parameters from before the training. `net.state_dict()` does not copy them:
# its tensors are those of `net`, and change with it. The record of the message makes new
# ones whenever you ask.
# </details>
# <details><summary>Hint 2</summary>
#
# First one norm from all tensors of the update, then one factor for all of them: how
# large is it if the norm is twice `max_norm`, and if it is half of it?
# </details>
# <details><summary>Hint 3</summary>
#
# The factor is `max_norm / norm`, but at most 1. What if the training changed nothing?
# </details>


# %%
def train_clipped(
    message: Message,
    net: nn.Module,
    trainloader: DataLoader,
    train_fn: Callable,
    max_norm: float,
) -> Message:
    """Train, clip the update, and return the reply."""
    ### BEGIN SOLUTION
    before = message.content["arrays"].to_torch_state_dict()
    net.load_state_dict(before)
    train_fn(net, trainloader)
    update = {k: v - before[k] for k, v in net.state_dict().items()}
    norm = sum(u.square().sum().item() for u in update.values()) ** 0.5
    factor = max_norm / max(norm, max_norm)
    after = {k: before[k] + factor * update[k] for k in before}
    metrics = MetricRecord({"num-examples": len(trainloader.dataset)})
    arrays = ArrayRecord(after)
    content = RecordDict({"arrays": arrays, "metrics": metrics})
    return Message(content, reply_to=message)
    ### END SOLUTION


# %%
check("3.3", train_clipped)

# %% [markdown] tags=["solution"]
# **Why this.** One factor for all arrays keeps the direction, and `max(norm, max_norm)`
# leaves short updates alone, those of length 0 too. **What people get wrong:** they keep
# `net.state_dict()` as "before", which moves along, so that the update is zero and the
# model goes back unclipped; they clip each array on its own, which turns the update into
# another direction; or they clip the parameters, which pulls the whole model to zero.

# %% [markdown] tags=["slide"]
# ## Takeaways
#
# - **A ServerApp** leads a run, beside the SuperLink. **A ClientApp** answers one
#   message, beside a SuperNode, where the data are.
# - **A train function** unpacks, finds its data by the Context, trains, packs, and
#   returns `Message(content, reply_to=message)`. **An evaluate function** sends metrics
#   only. You can call both by hand, through the app, and over a grid, with the same
#   result. On a GPU, move the model and each batch; what travels is on the CPU.
# - **`num-examples`** is the weight of a reply. Without it the server refuses to average.
#   It believes a wrong number.
# - **Queries and named actions** are functions for the message types `"query"` and, say,
#   `"train.head"`.
# - **A mistake** is noticed by the record, the message, the app, the runtime, the server,
#   or nobody.

# %% [markdown]
# ## Check yourself
#
# <details><summary>1. Which process reads a hospital's images, and on whose machine?
# </summary>
#
# The ClientApp's, on the hospital's machine. The SuperNode beside it carries messages
# and replies, and never opens an image.
# </details>
#
# <details><summary>2. Two clients get the same message, bit by bit. Why do they train on
# different data?</summary>
#
# Because their Contexts differ: `node_config` says which partition is theirs. The message
# says what to do, the Context says where.
# </details>
#
# <details><summary>3. A client's evaluate function copies
# <code>len(trainloader.dataset)</code> from its train function. What breaks?</summary>
#
# Nothing that you can see. Each client's accuracy gets the weight of its train examples
# instead of its test examples. Where the two are not in proportion, the average is not
# the accuracy on all test examples.
# </details>
#
# <details><summary>4. You run the cell with <code>@client_app.train()</code> a second
# time. In one notebook it works, in another it raises. What is the difference?</summary>
#
# Where `client_app = ClientApp()` stands. In the same cell, every run begins with a new
# app. In another cell, the app has a train function already.
# </details>
#
# <details><summary>5. A train function ends with
# <code>return {"train-loss": loss}</code>. Called by hand it is fine. What happens on a
# deployment?</summary>
#
# The SuperNode gets no Message to deliver, so it sends no reply. The server waits until
# its timeout. Look at what the function returns: is it a `Message`?
# </details>
#
# <details><summary>6. Five rounds, no error anywhere, and the accuracy has not moved at
# all. Where do you look first?</summary>
#
# At the arrays in the reply. Most likely they are those of the message: the client
# trained its network, and never packed it.
# </details>

# %% [markdown]
# **Next:** [04 · Context and state](04_context_and_state.ipynb): what a client knows
# about itself, and what it can remember.

# %%
from course_utils.exercises import progress

progress("03")
