# %% [markdown] tags=["slide"]
# # 05 · The ServerApp
#
# **Who picks the clients of a round, and what becomes of their replies?**
#
# After this lesson you can
#
# - run a round by hand over a Grid: pick nodes, send, receive, aggregate,
# - write a ServerApp with `@server_app.main()`, by hand and with
#   `FedAvg(...).start(...)`,
# - write a strategy of your own, which changes what the clients are sent,
# - read a run: its messages and bytes, its metrics by round, its final model, and what
#   each client gets of it,
# - notice a run in which too few clients take part, or none.
#
# **You need:** lessons 00 to 04. **Time:** 95 minutes, 25 of them for the
# exercises.

# %% [markdown] tags=["slide"]
# ## One round by hand
#
# A round has four steps: pick nodes, send, receive, aggregate. The server takes all four
# over a **grid**. The grid is all that a server sees of its clients.

# %% [markdown]
# The clients are ready. `client_app` is the app that lesson 00 ran. Its `evaluate` is that
# of lesson 03. Its `train` is another one:

# %%
from inspect import getsource

from course_utils.apps import client_app, train

print(getsource(train))

# %% [markdown]
# It finds `local-epochs` in the run config, and there `load_data` finds the `scheme` that
# shares out the data. It reads `lr` from the message, because the server may change it
# from round to round.

# %%
from course_utils.runtime import InProcessGrid

NUM_CLIENTS = 10
RUN_CONFIG = {
    "num-server-rounds": 3,
    "fraction-train": 0.5,
    "local-epochs": 1,
    "lr": 0.01,
}
LINEAR = {"scheme": "linear"}

grid = InProcessGrid(
    client_app, NUM_CLIENTS, run_config=RUN_CONFIG | LINEAR, seed=0
)

# %% [markdown]
# Under `"linear"` the clients have different sizes. With equal sizes, nobody would notice
# a wrong average.

# %% [markdown] tags=["slide-more"]
# **1. Pick.** The server knows a client by its node id only. It may not need all of
# them in every round. So it draws a fraction at random:

# %% tags=["slide-more"]
import random


def sample(node_ids: list[int], fraction: float) -> list[int]:
    return random.sample(node_ids, int(fraction * len(node_ids)))


node_ids = list(grid.get_node_ids())
random.seed(0)  # so that you draw the same five
sampled = sample(node_ids, RUN_CONFIG["fraction-train"])
print(len(node_ids), "nodes, the first is", node_ids[0])
print("sampled clients:", [node_ids.index(node_id) for node_id in sampled])

# %% [markdown] tags=["slide"]
# (In this grid the i-th node is client i. On Flower's runtimes the order says nothing.)
#
# **2. Send.** Each node that was drawn gets a message. All messages carry the same
# content: the global model, and the settings for its training.

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

from course_utils.model import Net
from course_utils.partitions import image_shape


def initial_arrays() -> ArrayRecord:
    return ArrayRecord(Net(image_shape()).state_dict())


# %% tags=["slide-more"]
def messages_to(
    node_ids: list[int], message_type: str, arrays: ArrayRecord, config: dict
) -> list[Message]:
    content = RecordDict({"arrays": arrays, "config": ConfigRecord(config)})
    return [Message(content, node_id, message_type) for node_id in node_ids]


torch.manual_seed(0)
arrays = initial_arrays()
config = {"lr": RUN_CONFIG["lr"], "server-round": 1}
messages = messages_to(sampled, "train", arrays, config)
print(len(messages), "messages of type", messages[0].metadata.message_type)

# %% [markdown] tags=["slide-more"]
# **3. Receive.** `send_and_receive` returns when every client has replied, or when a
# `timeout` is over.

# %%
replies = grid.send_and_receive(messages)
counts = [reply.content["metrics"]["num-examples"] for reply in replies]
print("num-examples:", counts)
assert [reply.metadata.src_node_id for reply in replies] == sampled

# %% [markdown]
# Here the replies come in the order of the messages. On a deployment they come in any
# order, and `reply.metadata.src_node_id` says whose each is.

# %% [markdown] tags=["slide"]
# **4. Aggregate.** The new global model is the average of all models. Each counts with
# its share of the examples:


# %% tags=["slide-more"]
def aggregate(replies: list[Message]) -> ArrayRecord:
    total = sum(reply.content["metrics"]["num-examples"] for reply in replies)
    average = {}
    for reply in replies:
        share = reply.content["metrics"]["num-examples"] / total
        state = reply.content["arrays"].to_torch_state_dict()
        for name, value in state.items():
            average[name] = average.get(name, 0) + share * value
    return ArrayRecord(average)


by_hand = aggregate(replies).to_torch_state_dict()
print(list(by_hand))

# %% [markdown] tags=["slide"]
# Lesson 03 compared Flower's `FedAvg` with the `weighted_average` of lesson 00. Ours
# agrees with it, too. **Predict:** would this comparison notice a plain mean, without the
# weights?

# %% tags=["slide-then", "nbval-ignore-output"]
from flwr.serverapp.strategy import FedAvg

from course_utils import model

by_flower, _ = FedAvg().aggregate_train(server_round=1, replies=replies)
by_flower = by_flower.to_torch_state_dict()
torch.testing.assert_close(by_hand, by_flower, rtol=0, atol=1e-6)

states = [reply.content["arrays"].to_torch_state_dict() for reply in replies]
plain_mean = model.weighted_average(states, [1] * len(states))
for name, other in {"FedAvg": by_flower, "plain mean": plain_mean}.items():
    off = max((other[key] - by_hand[key]).abs().max() for key in by_hand)
    print(f"{name}: at most {off:.7f} off")
assert off > 1e-4

# %% [markdown]
# It would. The plain mean is off by more than a hundred times the millionth that we allow.

# %% [markdown] tags=["slide"]
# ## The round in a ServerApp
#
# So far this notebook was the server. A **ServerApp** is the same code as a program of
# its own. Flower calls its main function once a run, with two things:
#
# - a **Grid**, to reach the nodes. Here it is an `InProcessGrid`. On a deployment it is
#   another one, and the code is the same.
# - a **Context**, as clients have one. Its `run_config` is the same as theirs. Its
#   `node_config` is empty.

# %%
from flwr.serverapp import Grid, ServerApp


def train_round(
    grid: Grid, arrays: ArrayRecord, fraction: float, config: dict
) -> ArrayRecord:
    sampled = sample(list(grid.get_node_ids()), fraction)
    messages = messages_to(sampled, "train", arrays, config)
    return aggregate(grid.send_and_receive(messages))


# %% tags=["slide-more"]
by_hand_app = ServerApp()


@by_hand_app.main()
def main_by_hand(grid: Grid, context: Context) -> None:
    settings = context.run_config
    arrays = initial_arrays()
    for server_round in range(1, settings["num-server-rounds"] + 1):
        config = {"lr": settings["lr"], "server-round": server_round}
        arrays = train_round(grid, arrays, settings["fraction-train"], config)
    context.state["arrays"] = arrays


# %% [markdown]
# - `main` lives from the first round to the last, so its variables keep their values. A
#   ClientApp lives for one message (lesson 04).
# - `main` returns nothing. In this notebook, it leaves its result in `context.state`. On
#   Flower's runtimes it writes a file, as you will see.

# %% [markdown] tags=["slide"]
# `run_in_process` runs a ServerApp with its clients. It makes the grid and both sides'
# Contexts. When `main` has ended, it returns what is left. `seed` fixes the initial
# model and the draws.
#
# **Predict:** three rounds, half of ten nodes. How many messages cross the grid,
# replies included?

# %% tags=["slide-then", "slide-output"]
from flwr.clientapp import ClientApp

from course_utils.runtime import InProcessRun, run_in_process


def run_with(
    app: ServerApp, settings: dict, clients: ClientApp = client_app, **options
) -> InProcessRun:
    return run_in_process(
        app,
        clients,
        num_supernodes=NUM_CLIENTS,
        run_config=RUN_CONFIG | settings,
        seed=0,
        **options,
    )


hand_run = run_with(by_hand_app, LINEAR)
print(len(hand_run.messages), "messages")
print("in the state:", list(hand_run.server_context.state))
assert len(hand_run.messages) == 3 * 5 * 2
assert hand_run.server_context.node_config == {}

# %% [markdown]
# 30: in each round, five go out and five come back. The final model is in the ServerApp's
# state.

# %% [markdown] tags=["slide"]
# ## Flower's loop: FedAvg
#
# Flower has this loop ready-made. A **strategy** is an object that decides whom to ask,
# and what to make of the replies. Its method `start` is the loop:
#
# | by hand | in `FedAvg(...).start(...)` |
# |---|---|
# | `sample`, `messages_to` | `configure_train` |
# | `grid.send_and_receive` | the same |
# | `aggregate` | `aggregate_train` |
# | `"server-round"` in the config | added by `configure_train` |
# | – | `configure_evaluate`, `send_and_receive`, `aggregate_evaluate` |
# | – | `evaluate_fn`, if you give one |
#
# First without the last two rows. `fraction_evaluate=0.0` asks no client to evaluate:

# %% tags=["slide"]
fedavg_app = ServerApp()


@fedavg_app.main()
def main_fedavg(grid: Grid, context: Context) -> None:
    settings = context.run_config
    strategy = FedAvg(
        fraction_train=settings["fraction-train"], fraction_evaluate=0.0
    )
    strategy.start(
        grid,
        initial_arrays=initial_arrays(),
        num_rounds=settings["num-server-rounds"],
        train_config=ConfigRecord({"lr": settings["lr"]}),
    )


# %% [markdown] tags=["slide"]
# **Predict:** the seed is the same, so the initial model and the draws are the same.
# Does Flower's loop end with the model of ours?

# %% tags=["slide-then"]
flower_run = run_with(fedavg_app, LINEAR, progress=False)
torch.testing.assert_close(
    flower_run.result.arrays.to_torch_state_dict(),
    hand_run.server_context.state["arrays"].to_torch_state_dict(),
    rtol=0,
    atol=1e-6,
)
print("by hand and by Flower: the same model after three rounds")

# %% [markdown]
# It does.
#
# **Predict:** `fraction_train=0.1` of ten nodes. How many are asked to train?


# %%
def asked(**options) -> int:
    strategy = FedAvg(**options)
    return len(strategy.configure_train(1, arrays, ConfigRecord(), grid))


print("asked:", asked(fraction_train=0.1))
print("with min_train_nodes=1:", asked(fraction_train=0.1, min_train_nodes=1))
assert asked(fraction_train=0.59) == len(sample(node_ids, 0.59)) == 5

# %% [markdown]
# Two, unless you say otherwise. `min_train_nodes` is 2 by default, and the larger
# number wins. `min_evaluate_nodes` works the same way. A part of a node is cut off: 0.59
# of ten nodes are 5.

# %% [markdown]
# ### Exercise 5.1: whom to ask
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 1 of 3, recall | 3 | the draw decides what a round costs and whose data it sees |
#
# Complete `draw_nodes`: draw the nodes that `FedAvg` would ask. That is `fraction` of
# them, with a part of a node cut off, but at least `minimum` (`node_ids` never has
# fewer). Each node is as likely to be drawn as any other, and at most once.
#
# <details><summary>Hint 1</summary>
#
# `sample` above draws. It does not know `minimum`.
# </details>
# <details><summary>Hint 2</summary>
#
# Of two numbers, the larger one wins: Python's `max` says which.
# </details>

# %%
from course_utils.exercises import check


def draw_nodes(
    node_ids: list[int], fraction: float, minimum: int
) -> list[int]:
    """Return the ids of the nodes to ask in a round."""
    ### BEGIN SOLUTION
    count = max(int(fraction * len(node_ids)), minimum)
    return random.sample(node_ids, count)
    ### END SOLUTION


# %%
check("5.1", draw_nodes)

# %% [markdown] tags=["solution"]
# **Why this.** `random.sample` draws without putting back, so nobody trains twice in a
# round and counts twice. **What people get wrong:** `min` for "at least", because it is
# called a minimum; `random.choices`, which puts back; or the first nodes of the list,
# so that the model never sees the data of the others.

# %% [markdown] tags=["slide"]
# ## A strategy of your own
#
# What if you want what `FedAvg` has no argument for? Say, a learning rate that is divided
# by the number of the round. Then you write a strategy: a subclass of `FedAvg` that
# overrides one method.
#
# Which one? `configure_train` makes the messages of a round, so it decides what clients
# are sent. `start` hands it the number of the round, the global model, the
# `train_config`, and the grid. It returns the messages.

# %% tags=["slide-more"]
from collections.abc import Iterable


class FallingFedAvg(FedAvg):
    def configure_train(
        self,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
    ) -> Iterable[Message]:
        lr = config["lr"] / server_round
        config = ConfigRecord({**config, "lr": lr})
        return super().configure_train(server_round, arrays, config, grid)


# %% [markdown]
# The method puts another `lr` into the config. The method of `FedAvg`, called by
# `super()`, does the rest: it draws nodes, adds `"server-round"`, makes the messages.
#
# Does the `lr` arrive? Let the clients tell us. A client's `train` is a plain function,
# so another function can call it, and add to its reply:

# %%
reporting_app = ClientApp()


@reporting_app.train()
def train_and_report(message: Message, context: Context) -> Message:
    reply = train(message, context)
    reply.content["metrics"]["lr"] = message.content["config"]["lr"]
    return reply


# %% [markdown]
# We try two strategies, so a function makes the ServerApp:


# %%
def app_with(strategy_class: type[FedAvg]) -> ServerApp:
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        settings = context.run_config
        strategy = strategy_class(
            fraction_train=settings["fraction-train"], fraction_evaluate=0.0
        )
        strategy.start(
            grid,
            initial_arrays=initial_arrays(),
            num_rounds=settings["num-server-rounds"],
            train_config=ConfigRecord({"lr": settings["lr"]}),
        )

    return app


# %% [markdown] tags=["slide"]
# **Predict:** the clients report the `lr` that they trained with, and `FedAvg` averages
# it like any other metric. What does the result say for rounds 1, 2 and 3?

# %% tags=["slide-then", "slide-output"]
def reported_lr(strategy_class: type[FedAvg]) -> dict[int, float]:
    app = app_with(strategy_class)
    run = run_with(app, LINEAR, clients=reporting_app, progress=False)
    metrics_by_round = run.result.train_metrics_clientapp
    return {i: round(metrics_by_round[i]["lr"], 6) for i in metrics_by_round}


falling = reported_lr(FallingFedAvg)
print(falling)
assert falling == {1: 0.01, 2: 0.005, 3: 0.003333}

# %% [markdown] tags=["slide-then"]
# Each round has its own `lr`, and the client's `train` is as it was.
#
# **Predict:** this method is shorter, for it changes the config in place. Which `lr`
# do the clients report now?

# %% tags=["slide-then"]
class InPlaceFedAvg(FedAvg):
    def configure_train(self, server_round, arrays, config, grid):
        config["lr"] /= server_round
        return super().configure_train(server_round, arrays, config, grid)


in_place = reported_lr(InPlaceFedAvg)
print(in_place)
assert in_place[3] == 0.001667

# %% [markdown]
# Round 3 is wrong: 0.001667 in place of 0.003333. `start` hands the *same* ConfigRecord to
# every round, and round 2 has halved its `lr` already. So make a new ConfigRecord, as the
# first strategy does.

# %% [markdown]
# For other wishes, there are other methods:
#
# | you want to change | override |
# |---|---|
# | who trains, or what each client is sent | `configure_train` |
# | which replies count, or how they become a model | `aggregate_train` |
# | who evaluates, or what they are sent | `configure_evaluate` |
# | what becomes of the clients' accuracies | `aggregate_evaluate` |
#
# A strategy lives as long as `main`. So it may remember things from round to round, as
# attributes of `self`.

# %% [markdown]
# ### Exercise 5.2: a learning rate that falls when the accuracy stalls
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 2 of 3, apply | 10 | nobody knows beforehand from which round on smaller steps pay |
#
# A strategy can look at the accuracy before it lowers the `lr`. Unless you say
# otherwise, each round of `FedAvg` ends with an evaluation: the clients test the new
# model, and the strategy averages what they report.
#
# Complete `lr_by_accuracy`. Inside it, write a subclass of `FedAvg`, and return an
# object of this class. It does all that `FedAvg()` does. Only the `lr` is its own:
#
# - In round 1, the clients get the `lr` of the `train_config`.
# - If a round ends without a new best average of `"eval-accuracy"`, the `lr` of the
#   next round is `factor` times the last one. Else it stays.
#
# So with a `factor` of 0.5 and an `lr` of 0.01, the accuracies 0.3, 0.5, 0.4, 0.6 make an
# `lr` of 0.01 in the rounds 1 to 3, and of 0.005 in the rounds 4 and 5.
#
# The first average is always a new best. An average that only equals the best is none.
# If no client could evaluate, a round has no average, and the `lr` stays.
#
# <details><summary>Hint 1</summary>
#
# Override two methods of the table above. One sees the accuracies, the other decides
# what the clients are sent. What the one keeps in `self`, the other finds there.
# </details>
# <details><summary>Hint 2</summary>
#
# `metrics = super().aggregate_evaluate(server_round, replies)` makes the averages, or
# `None` if there are none. Return `metrics` at the end: `start` puts them into the
# result.
# </details>
# <details><summary>Hint 3</summary>
#
# Two attributes will do: the best accuracy so far, and what the `lr` of the
# `train_config` is multiplied by. They may stand above the methods:
# `best, scale = float("-inf"), 1.0`. (If you write an `__init__` instead, it has to call
# `super().__init__()`.)
# </details>


# %%
def lr_by_accuracy(factor: float) -> FedAvg:
    """Return a strategy that lowers lr when the accuracy stalls."""

    ### BEGIN SOLUTION
    class PlateauFedAvg(FedAvg):
        best, scale = float("-inf"), 1.0

        def configure_train(self, server_round, arrays, config, grid):
            lr = config["lr"] * self.scale
            config = ConfigRecord({**config, "lr": lr})
            return super().configure_train(server_round, arrays, config, grid)

        def aggregate_evaluate(self, server_round, replies):
            metrics = super().aggregate_evaluate(server_round, replies)
            if metrics is not None:
                if metrics["eval-accuracy"] <= self.best:
                    self.scale *= factor
                self.best = max(self.best, metrics["eval-accuracy"])
            return metrics

    return PlateauFedAvg()
    ### END SOLUTION


# %%
check("5.2", lr_by_accuracy)

# %% [markdown] tags=["solution"]
# **Why this.** The accuracy is known at the end of a round, so `aggregate_evaluate`
# keeps what `configure_train` needs in the next one. (For training in one place,
# PyTorch has such a rule, too: `ReduceLROnPlateau`.) **What people get wrong:** they
# compare with the round before, so that a small rise after a deep fall counts as a new
# best; they change the config in place, and the change adds up; or they do not return
# the metrics, and the result of the run has none.

# %% [markdown] tags=["slide"]
# ## A full run
#
# Now with evaluation. Flower offers two ways:
#
# - **by the clients**, each on its own test data. The strategy averages what they
#   report. By default *all* clients are asked, whatever `fraction_train` says.
# - **by the server**, with a function of yours. `evaluate_fn` gets the round and the
#   global model, and returns a `MetricRecord`. The server needs data of its own for it.
#   Most servers have none. Ours has the whole test split.

# %%
from course_utils.apps import load_net
from course_utils.partitions import load_centralized


def evaluate_centrally(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    _, testloader = load_centralized()
    loss, accuracy = model.test(load_net(arrays), testloader)
    return MetricRecord({"eval-loss": loss, "eval-accuracy": accuracy})


# %%
full_app = ServerApp()


@full_app.main()
def main(grid: Grid, context: Context) -> None:
    settings = context.run_config
    strategy = FedAvg(fraction_train=settings["fraction-train"])
    result = strategy.start(
        grid,
        initial_arrays=initial_arrays(),
        num_rounds=settings["num-server-rounds"],
        train_config=ConfigRecord({"lr": settings["lr"]}),
        evaluate_fn=evaluate_centrally,
    )
    context.state["arrays"] = result.arrays


# %% [markdown] tags=["slide", "title: Count the messages"]
# **Predict**, for three rounds:
#
# - How many times is a client asked to train, and how many times to evaluate?
# - How many times does a model cross the grid?
# - Which moves more bytes: to train half of the clients, or to evaluate all?

# %% tags=["nbval-ignore-output"]
IID = {"scheme": "iid"}
run = run_with(full_app, IID)

# %% [markdown]
# The course prints a line a round. (`progress=False` leaves it out.) Columns that begin
# with `train` or `eval` are averages of what the clients report. Columns that begin with
# `server` are what `evaluate_fn` returns. Now count:

# %% tags=["slide-then", "slide-output"]
for kind in ("train", "evaluate"):
    out = [m for m in run.messages if m.type == kind and not m.is_reply]
    back = [m for m in run.messages if m.type == kind and m.is_reply]
    size = sum(m.bytes for m in out + back) / 1e6
    print(f"{kind:9} {len(out)} out, {len(back)} back, {size:.2f} MB")
    print(f"{'':9} out {list(out[0].names)}, back {list(back[0].names)}")

# %%
model_bytes = initial_arrays().count_bytes()
predicted = (3 * 5 * 2 + 3 * 10) * model_bytes
counted = sum(m.bytes for m in run.messages)
print(f"60 models: {predicted:,} bytes, counted: {counted:,} bytes")
assert 0 < counted - predicted < 0.01 * predicted

# %% [markdown] tags=["slide-more"]
# - 15 times to train, 30 times to evaluate, and as many replies.
# - A model crosses 60 times. To train, 15 go out and 15 come back. To evaluate, 30 go
#   out and none comes back: that reply has no `"arrays"`.
# - So **evaluating all clients moved as much as training half of them**. If that is too
#   much, lower `fraction_evaluate`.
# - The rest is configs and metrics, well below one percent.

# %% [markdown]
# **Predict:** each round draws half of the clients. Has every client trained at least
# once after three rounds?

# %%
trained = {m.destination for m in run.messages if m.type == "train"}
never = [i for i, node in enumerate(run.node_contexts) if node not in trained]
print("clients that never trained:", never)

# %% [markdown]
# A round leaves a client out with a chance of one in two, so three rounds leave it out
# with a chance of one in eight. Of ten clients, that is a little more than one on
# average. In the picture of all messages, it is a column without a mark in the rows of
# `train`:

# %% tags=["slide", "title: A run's traffic", "slide-output", "nbval-ignore-output"]
from course_utils.plots import plot_traffic

plot_traffic(run.messages, list(run.node_contexts))

# %% [markdown]
# ## What a run leaves behind
#
# `start` returns a `Result`, and `run_in_process` keeps it as `run.result`. It holds the
# final `arrays`, and three dictionaries from round to metrics. **Predict:** one of the
# three has a round 0. Which, and why?

# %%
result = run.result
by_name = {
    "train_metrics_clientapp": result.train_metrics_clientapp,
    "evaluate_metrics_clientapp": result.evaluate_metrics_clientapp,
    "evaluate_metrics_serverapp": result.evaluate_metrics_serverapp,
}
for name, rounds in by_name.items():
    print(f"{name:27} rounds {list(rounds)}: {list(rounds[1])}")

# %% [markdown]
# The last one. The server also evaluates the initial model, before anyone has trained.
#
# The clients' metrics are averaged by `num-examples`. Look at the table of rounds again:
# the clients' average accuracy is the server's accuracy, in every round. **Predict:**
# why? Would it be so if only half of the clients evaluated?

# %%
for server_round in (1, 2, 3):
    by_clients = result.evaluate_metrics_clientapp[server_round]
    by_server = result.evaluate_metrics_serverapp[server_round]
    assert abs(by_clients["eval-accuracy"] - by_server["eval-accuracy"]) < 1e-6
print("the clients' average and the server's accuracy are the same")

# %% [markdown]
# Because here the clients' test data together *are* the server's. Half of the clients
# would have measured on half of the images. So if all clients evaluate, a server without
# data still learns the accuracy on all their test data, though not before round 1.
#
# **Keep what you want to keep.** `main` put the final model into the state:

# %%
kept = run.server_context.state["arrays"]
assert kept == run.result.arrays
print("kept:", len(kept), "arrays")

# %% [markdown]
# > **Only in this notebook.** On Flower's own runtimes nobody hands you a `run`. There,
# > `main` returns nothing, its process ends, and Flower empties the ServerApp's
# > `context.state` before it stores the Context. A ServerApp that wants to keep its
# > model writes a file, as the last line of `main`:
# > `torch.save(result.arrays.to_torch_state_dict(), "final_model.pt")`.

# %% [markdown] tags=["slide"]
# ## Fifteen rounds, two ways to share out the data
#
# Now more rounds, and two runs of the same app. They differ in the data only: IID, and
# Dirichlet with alpha = 0.1, where most clients hold mainly two or three labels (lesson
# 02).
#
# **Predict** both curves. Which of them is smoother?

# %%
from course_utils import with_progress

ROUNDS = 15
DIRICHLET = {"scheme": "dirichlet", "alpha": 0.1}
iid_run, dirichlet_run = (
    run_with(full_app, split | {"num-server-rounds": ROUNDS}, progress=False)
    for split in with_progress((IID, DIRICHLET), doing="runs")
)

# %% [markdown]
# A yardstick: a model that trains on everyone's data in one place. Fifteen rounds with
# half of the clients see as many images as 7.5 passes over all data. So this model gets 8
# passes. (The axis of the figure begins at 0.5.)

# %%
torch.manual_seed(0)
trainloader, testloader = load_centralized()
net = Net(image_shape())
model.train(net, trainloader, epochs=8)
everyone = model.test(net, testloader)[1]


# %%
def accuracies(run: InProcessRun) -> list[float]:
    rounds = run.result.evaluate_metrics_serverapp.values()
    return [metrics["eval-accuracy"] for metrics in rounds]


iid, dirichlet = accuracies(iid_run), accuracies(dirichlet_run)

# %% tags=["slide-then", "slide-output", "nbval-ignore-output"]
from course_utils.plots import plot_curves

curves = {"IID": iid, "Dirichlet(0.1)": dirichlet}
levels = {"everyone's data, 8 passes": everyone}
plot_curves(curves, levels=levels, lowest=0.5)

# %% tags=["nbval-ignore-output"]
from itertools import pairwise


def largest_fall(curve: list[float]) -> float:
    return max(before - after for before, after in pairwise(curve))


for name, curve in curves.items():
    mean = sum(curve[-5:]) / 5
    print(f"{name}: mean of the last five rounds {mean:.3f}")
    print(f"{name}: largest fall in a round {largest_fall(curve):.3f}")
assert sum(dirichlet[-5:]) < sum(iid[-5:])
assert largest_fall(dirichlet) > largest_fall(iid)

# %% [markdown] tags=["slide", "title: What skew does"]
# - Skewed data learn more slowly. Over the last five rounds, Dirichlet is behind IID.
# - The Dirichlet curve jumps: a round can end *below* the one before. The average of
#   five models leans towards the labels that these five clients have. The next round
#   asks five others.
# - So do not judge such a run by its last round. It may be a peak or a hole.

# %% [markdown]
# The federation of [lesson 00](00_why_federated_learning.ipynb) ended below everyone's
# data in one place. More rounds narrow the gap. For IID it is this large:

# %% tags=["nbval-ignore-output"]
gaps = {server_round: everyone - iid[server_round] for server_round in (5, 15)}
for server_round, gap in gaps.items():
    print(f"after round {server_round}: {gap:.3f}")
assert gaps[5] > gaps[15]

# %% [markdown]
# **Predict:** in which of the two runs do the *clients* report the lower train loss?


# %% tags=["nbval-ignore-output"]
def mean_train_loss(run: InProcessRun) -> float:
    rounds = run.result.train_metrics_clientapp.values()
    return sum(metrics["train-loss"] for metrics in rounds) / len(rounds)


print(f"IID:            {mean_train_loss(iid_run):.2f}")
print(f"Dirichlet(0.1): {mean_train_loss(dirichlet_run):.2f}")
assert mean_train_loss(dirichlet_run) < mean_train_loss(iid_run)

# %% [markdown]
# Dirichlet(0.1) has the lower train loss, and the worse model. A client with two labels
# has an easy task, and solves it quickly. That says little about a model that has to
# know all ten labels. Judge a federation by data that it was *not* trained on.
#
# **Predict:** the run of three rounds again, with the same seed. How many digits agree?

# %%
again = run_with(full_app, IID, progress=False)
assert again.result == run.result
print("the same model and the same metrics, to the last bit")

# %% [markdown]
# All. The seed fixes the initial model, the draws of nodes, and each client's batches.
# So the IID run and the Dirichlet run began with one model, and asked the same clients.
#
# On Flower's runtimes replies arrive in any order, and in the Simulation Runtime node ids
# are new in each run. (A SuperNode keeps its id while it is connected.) You can seed what
# `main` and a client draw, but do not expect equal bits.

# %% [markdown]
# ## Client by client
#
# `Result` holds averages. What does the model do for *each* client? The clients have
# the test data, so the server has to ask them. It does so by hand, as at the beginning,
# with one `evaluate` message to every node. (Here a second grid serves for that. On
# Flower's runtimes these lines stand in `main`, after `start`.)


# %%
def accuracy_by_client(run: InProcessRun, split: dict) -> list[float]:
    run_config = RUN_CONFIG | split
    grid = InProcessGrid(
        client_app, NUM_CLIENTS, run_config=run_config, seed=0
    )
    arrays, nodes = run.result.arrays, grid.get_node_ids()
    messages = messages_to(nodes, "evaluate", arrays, config={})
    replies = grid.send_and_receive(messages)
    return [reply.content["metrics"]["eval-accuracy"] for reply in replies]


iid_by_client = accuracy_by_client(iid_run, IID)
dirichlet_by_client = accuracy_by_client(dirichlet_run, DIRICHLET)

# %% [markdown] tags=["slide"]
# **Predict:** each bar is the accuracy of one model for one client. In which of the two
# runs are the bars further apart?

# %% tags=["slide-then", "slide-output", "nbval-ignore-output"]
from course_utils.plots import plot_client_bars

plot_client_bars(
    {"IID": iid_by_client, "Dirichlet(0.1)": dirichlet_by_client},
    ylabel="accuracy on the client's own test data",
)
spreads = [max(a) - min(a) for a in (iid_by_client, dirichlet_by_client)]
assert spreads[0] < spreads[1]

# %% [markdown]
# The IID clients all get about the same from it. Under Dirichlet(0.1) some get far less
# than the average says. How well does that model know each label?

# %% tags=["nbval-ignore-output"]
images, labels = testloader.dataset.tensors
with torch.no_grad():
    guesses = load_net(dirichlet_run.result.arrays)(images).argmax(dim=1)
hits = (guesses == labels).float()
of_label = [hits[labels == label].mean().item() for label in labels.unique()]
print("label by label:", [round(share, 2) for share in of_label])

# %% [markdown]
# Which labels do the clients have that get least? This counts the test images of each
# label:

# %%
from course_utils.data import DEFAULT_DATASET, dataset_name
from course_utils.partitions import load_partition

counts = []
for i in range(NUM_CLIENTS):
    _, own = load_partition(i, NUM_CLIENTS, **DIRICHLET)
    counts.append(own.dataset.tensors[1].bincount(minlength=10))
for i in (0, 5, 6):
    print(f"client {i}:", counts[i].tolist())
sizes = [int(count.sum()) for count in counts]
print("Dirichlet(0.1), test images per client:", sizes)

# %% jupyter={"source_hidden": true}
# This holds what the text below says of the default dataset.
if dataset_name() == DEFAULT_DATASET:
    assert sorted(sizes)[:2] == [11, 22]
    lowest = [dirichlet_by_client[i] for i in (0, 5, 6)]
    assert sum(lowest) / 3 < sum(dirichlet_by_client) / NUM_CLIENTS
    assert [int(counts[i].argmax()) for i in (0, 5, 6)] == [5, 7, 3]
    assert max(of_label[i] for i in (3, 4, 5, 7)) < min(
        of_label[i] for i in (0, 1, 2, 6, 8, 9)
    )

# %% [markdown]
# - With the default dataset, the clients 5, 0 and 6 get least. They hold mainly 7s, 5s
#   and 3s. These are three of the four labels that the model knows least. (The fourth is
#   4. No client has mainly 4s.)
# - An average over clients hides that. Look at the lowest bar, too.
# - Mind small test sets, though. The two smallest have 11 and 22 test images: one image
#   moves their bars by 9 and 4.5 percentage points.

# %% [markdown]
# ## When a run goes wrong
#
# **Every client fails.** One letter too many in a setting, and no client can load its
# data:

# %%
import textwrap

TYPO = {"scheme": "dirichlett"}
try:
    run_with(full_app, TYPO, progress=False)
except ValueError as error:
    print(textwrap.fill(f"{type(error).__name__}: {error}", width=80))

# %% [markdown] tags=["slide"]
# This course is kind here: a client's exception surfaces in the notebook, and ends the
# run. Flower's runtimes turn it into an error reply. `client_errors="reply"` does the
# same here. **Predict:** every reply of all three rounds is an error. What does
# `FedAvg(...).start(...)` do?

# %% tags=["nbval-ignore-output"]
from unittest import TestCase

with TestCase().assertLogs("flwr", "INFO") as log:  # keeps Flower's log
    silent_run = run_with(
        full_app, TYPO, client_errors="reply", flower_log=True
    )

# %% tags=["slide-then"]
lost = silent_run.result
print("arrays:", len(lost.arrays))
print("metrics of train:", lost.train_metrics_clientapp)
print("metrics of evaluate:", lost.evaluate_metrics_clientapp)
print("rounds of the server:", list(lost.evaluate_metrics_serverapp))
assert not lost.arrays

# %% [markdown] tags=["slide", "title: Three signs"]
# It finishes, as if nothing had happened. There is no exception. `main` goes on, and
# keeps a model without a single array. Three signs give it away:
#
# - **the clients' metrics are missing:** `train_metrics_clientapp` has fewer rounds
#   than were run.
# - **the curve is flat:** the server has evaluated the initial model, again and again.
# - **error replies:** the log of the ServerApp counts *results* and *failures*, and gives
#   each failure's reason. On Flower's runtimes, look there first. (Here, the table's
#   `failed` is 15 in each round: 5 clients should train, and 10 evaluate.)

# %% tags=["slide-more", "slide-output"]
assert len(set(accuracies(silent_run))) == 1
errors = [m.error for m in silent_run.messages if m.error]
assert len(errors) == 3 * (5 + 10)
said = [line for line in log.output if "failures" in line or "Error" in line]
for line in said[:3]:
    print(textwrap.fill(line, width=80))

# %% [markdown]
# If only *some* clients fail, `FedAvg` averages the others. Its `Result` does not say
# how many they were. But a ServerApp can at least notice a round in which nobody
# trained:

# %%
from flwr.serverapp.strategy import Result


def require_training(result: Result, num_rounds: int) -> None:
    lost = set(range(1, num_rounds + 1)) - set(result.train_metrics_clientapp)
    if lost:
        raise RuntimeError(f"No client trained in round(s) {sorted(lost)}.")


require_training(run.result, num_rounds=3)
try:
    require_training(silent_run.result, num_rounds=3)
except RuntimeError as error:
    print(error)

# %% [markdown]
# Called right after `start`, before the model is saved, such a check turns a silent
# failure into a failed run.

# %% [markdown]
# **Too few clients.** A strategy can be told to wait until enough nodes have connected.
# **Predict:** this one wants twelve, and there are ten. What will `start` do on Flower's
# runtimes, and what here?

# %%
waiting_app = ServerApp()


@waiting_app.main()
def main_that_waits(grid: Grid, context: Context) -> None:
    strategy = FedAvg(min_available_nodes=12)
    strategy.start(grid, initial_arrays=initial_arrays())


try:
    run_with(waiting_app, IID, progress=False)
except RuntimeError as error:
    print(textwrap.fill(f"{type(error).__name__}: {error}", width=80))

# %% [markdown]
# - Here nobody else will join, so the course's runtime raises an error.
# - On Flower's runtimes the strategy **waits for ever**. Every second it logs `Waiting
#   for nodes to connect: 10 connected (minimum required: 12).`, and does nothing else.
#   On a deployment that is right: start the run, and let the hospitals come.
# - A `min_train_nodes` or `min_evaluate_nodes` above the number of nodes has the same
#   effect: a strategy cannot draw more nodes than there are.

# %% [markdown]
# ### Exercise 5.3: a ServerApp that knows when to stop
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 3 of 3, build | 14 | rounds that improve nothing cost everyone time and bytes |
#
# Fifteen rounds were a guess, and the last of them may be a hole. A loop of your own
# can watch the accuracy. Complete `train_until`. Each round
#
# - sends `"train"` to all nodes (there are two or more): the model as `"arrays"`, and a
#   `"config"` with `"server-round"`, which counts from 1,
# - averages the arrays of the replies by `num-examples`: this is the new model, and
#   the next round starts from it, whether it is better or not,
# - sends the new model to all nodes to `"evaluate"`, and averages `"eval-accuracy"` by
#   `num-examples`.
#
# Stop after `patience` rounds in a row without a new best accuracy, and after
# `max_rounds` in any case. The first round is always a new best; later, an accuracy
# that only equals the best is none. In a round some clients may fail, but never all: then
# the others count. Return the arrays of the best round, its accuracy, and how many rounds were
# run.
#
# (A `"config"` may hold more, such as an `"lr"`. To see your function at work, call it
# with the `grid` of the first section:
# `_, accuracy, rounds = train_until(grid, initial_arrays(), 5, 2)`.)
#
# <details><summary>Hint 1</summary>
#
# Two ways lead to a round: by hand (`messages_to`, `aggregate`), or by the methods of a
# strategy, as in the table in "Flower's loop: FedAvg". By hand, leave out each reply for
# which `reply.has_error()` is true. A strategy does that by itself.
# </details>
# <details><summary>Hint 2</summary>
#
# `FedAvg()` asks all nodes, if there are two or more. Its
# `configure_train(server_round, arrays, config, grid)` makes the messages, and adds
# `"server-round"` to the config. `aggregate_train(server_round, replies)` returns
# arrays and metrics, `aggregate_evaluate(server_round, replies)` only metrics.
# </details>
# <details><summary>Hint 3</summary>
#
# Beside the model, three things live from round to round: the best arrays, the best
# accuracy, and a count of rounds since then. When does the count go back to 0?
# </details>


# %%
def train_until(
    grid: Grid, arrays: ArrayRecord, max_rounds: int, patience: int
) -> tuple[ArrayRecord, float, int]:
    """Return the best arrays, their accuracy, and how many rounds were run."""
    ### BEGIN SOLUTION
    strategy, config = FedAvg(), ConfigRecord()
    best_arrays, best_accuracy, stale = arrays, float("-inf"), 0
    for number in range(1, max_rounds + 1):
        messages = strategy.configure_train(number, arrays, config, grid)
        replies = grid.send_and_receive(messages)
        arrays, _ = strategy.aggregate_train(number, replies)
        messages = strategy.configure_evaluate(number, arrays, config, grid)
        replies = grid.send_and_receive(messages)
        metrics = strategy.aggregate_evaluate(number, replies)
        stale += 1
        if metrics["eval-accuracy"] > best_accuracy:
            best_arrays, best_accuracy = arrays, metrics["eval-accuracy"]
            stale = 0
        if stale == patience:
            break
    return best_arrays, best_accuracy, number
    ### END SOLUTION


# %%
check("5.3", train_until)

# %% [markdown] tags=["solution"]
# **Why this.** The model goes on from round to round and the best one is kept beside
# it, because a round below the best may lead to one above. In `main`, a line with
# `train_until(grid, arrays, max_rounds=50, patience=5)` would do, and `torch.save`.
# **What people get wrong:** they return the last model; they compare with the round
# before, so that a slow decline with a rise here and there never ends; they evaluate
# the model that they have sent instead of the new one; their best begins at 0, which an
# accuracy of 0 does not beat; or they stop a round too late.

# %% [markdown] tags=["slide"]
# ## Takeaways
#
# - **A round by hand** is `grid.get_node_ids()`, a sample, messages,
#   `grid.send_and_receive(messages)`, and an average weighted by `num-examples`.
# - **A ServerApp** is a function of a Grid and a Context under `@server_app.main()`. It
#   may loop by hand, or leave the loop to `FedAvg(...).start(...)`. With the same draws,
#   both end with the same model.
# - **A strategy of your own** is a subclass of `FedAvg`. `configure_train` decides what
#   clients are sent, `aggregate_train` what becomes of the replies. It remembers in
#   `self`.
# - **A run is read** in its messages, in its `Result`, and client by client, because an
#   average hides who gets least. A model crosses the grid twice for each client that
#   trains, and once for each that evaluates. What a ServerApp wants to keep, it saves
#   itself.
# - **A run waits for ever** if its strategy wants more nodes than come. It **fails
#   without a word** if all replies are errors: empty arrays, no metrics of clients, a
#   flat curve.

# %% [markdown]
# ## Check yourself
#
# <details><summary>1. 100 nodes, 20 rounds, <code>FedAvg(fraction_train=0.1)</code>.
# How many times does a model cross the network?</summary>
#
# In each round 10 nodes train. A model goes out to each, and one comes back: 20. All
# 100 evaluate, since `fraction_evaluate` is 1.0 by default. A model goes out to each:
# 100. In 20 rounds that is 2,400 models, and 2,000 of them are only for evaluation.
# </details>
#
# <details><summary>2. All clients hold equally many examples. Would a test of
# <code>aggregate</code> on them notice that someone forgot the weights?</summary>
#
# No: with equal weights, the weighted mean is the plain mean. That is why this lesson
# began with clients of different sizes.
# </details>
#
# <details><summary>3. A ServerApp keeps the best accuracy so far in a variable of
# <code>main</code>, and a ClientApp keeps its own in a global variable. Which of them
# can rely on it in the next round?</summary>
#
# The ServerApp: `main` runs from the first round to the last. The ClientApp starts
# afresh for each message, and needs `context.state`.
# </details>
#
# <details><summary>4. A strategy shall leave out the reply of every client with fewer
# than 20 examples. Which method do you override?</summary>
#
# `aggregate_train`: it gets the round and the replies. Hand only the others on to
# `super().aggregate_train(server_round, others)`. A reply that is an error has no
# content, so leave it in, or ask `reply.has_error()` first.
# </details>
#
# <details><summary>5. A deployed run has finished without an error, and there is no
# model anywhere. What went wrong?</summary>
#
# Perhaps nothing: `main` did not save one. Neither its return value nor the ServerApp's
# `context.state` is kept. If there is a file without arrays in it, look for error
# replies. That `main` has ended only says that *it* raised nothing.
# </details>
#
# <details><summary>6. In round 8 of a Dirichlet run, the accuracy falls by ten
# percentage points. Is that a bug?</summary>
#
# Not necessarily: five clients with other labels were drawn. On IID data it would be
# suspicious.
# </details>
#
# <details><summary>7. Nine of ten clients fail in every round. What does
# <code>Result</code> look like?</summary>
#
# Like that of a healthy run: each round in which at least one client trained has
# metrics and a model. Only the log, or the replies themselves, tell that it was one
# client's.
# </details>

# %% [markdown]
# **Next:** [06 · From notebook to Flower App](06_flower_app.ipynb), where the two apps
# move out of the notebook, into a package that `flwr run` starts.

# %%
from course_utils.exercises import progress

progress("05")
