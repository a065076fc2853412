# %% [markdown] tags=["slide"]
# # 08 · The run config: what each setting buys
#
# **You have four settings and a budget. Which values do you choose, and how do you know
# that the choice was not luck?**
#
# After this lesson you can
#
# - compare settings fairly: by rounds, by passes over the data, by megabytes,
# - tell a difference from luck, with seeds and an interval,
# - search over settings, and report a number that the search has not spoiled,
# - change the settings during a run, from the server,
# - say what a round costs in time when devices differ, and whom a deadline leaves out.
#
# **You need:** lessons 00 to 05. **Time:** 85 minutes, 24 of them for the
# exercises.

# %% [markdown] tags=["slide"]
# ## One function, one run
#
# In lesson 05 you ran a federation twice and compared the curves. That was one run each,
# with one seed. This lesson compares many runs. So a run becomes a function: settings
# and a seed go in, accuracies come out.

# %% [markdown]
# **First, what is measured.** The server has the test images. A fifth of them are for
# choosing, and are called **validation** images. The others are for the report. You will
# see why they must differ.

# %%
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord

from course_utils.apps import client_app, load_net
from course_utils.partitions import load_centralized


def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    images, labels = load_centralized()[1].dataset.tensors
    with torch.no_grad():
        guesses = load_net(arrays)(images).argmax(dim=1)
    right = (guesses == labels).float()
    cut = len(labels) // 5
    validation, test = right[:cut].mean().item(), right[cut:].mean().item()
    return MetricRecord({"validation": validation, "accuracy": test})


# %% [markdown]
# **Then, a run of any strategy.** This is the ServerApp of lesson 05. It makes its strategy
# when it runs, by calling a function that it is given:

# %%
from collections.abc import Callable

from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Result

from course_utils.model import Net
from course_utils.partitions import image_shape
from course_utils.runtime import run_in_process

NUM_CLIENTS = 10
torch.set_num_threads(1)  # a run takes one core, so that others can run beside


# %%
def run_with(make_strategy: Callable, seed: int, run_config: dict) -> Result:
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        make_strategy().start(
            grid,
            initial_arrays=ArrayRecord(Net(image_shape()).state_dict()),
            num_rounds=context.run_config["num-server-rounds"],
            train_config=ConfigRecord({"lr": context.run_config["lr"]}),
            evaluate_fn=evaluate,
        )

    return run_in_process(
        app,
        client_app,
        num_supernodes=NUM_CLIENTS,
        run_config=run_config,
        seed=seed,
        progress=False,
    ).result


# %% [markdown] tags=["slide"]
# **Last, the experiment:** the four settings of lesson 04, and a fifth, the batch size.
# (`partial` makes a function that calls `FedAvg` with these arguments.)

# %% tags=["slide-more"]
from functools import partial


def measure(
    seed: int,
    *,
    rounds: int,
    fraction: float,
    local_epochs: int,
    lr: float,
    batch_size: int,
) -> dict:
    run_config = {
        "num-server-rounds": rounds,
        "local-epochs": local_epochs,
        "lr": lr,
        "batch-size": batch_size,
    }
    make = partial(FedAvg, fraction_train=fraction, fraction_evaluate=0.0)
    metrics = run_with(make, seed, run_config).evaluate_metrics_serverapp
    return {
        "accuracy": [metrics[i]["accuracy"] for i in metrics],
        "validation": {rounds: metrics[rounds]["validation"]},
    }


# %% [markdown]
# One setting is the **base**. All others in this lesson change a few of its values:

# %%
BASE = {
    "rounds": 4,
    "fraction": 0.5,
    "local_epochs": 1,
    "lr": 0.01,
    "batch_size": 16,
}
print(f"{BASE['rounds'] * BASE['fraction'] * NUM_CLIENTS:.0f} trainings")

# %% [markdown] tags=["slide"]
# ## Another seed, another number
#
# **Predict:** with another seed, the initial model, the draws of clients and the batches are
# others. How far apart do two runs of one setting end?
#
# By hand, this is a loop: over settings, seeds, and rounds. (Here with one of each of the
# first two.)

# %%
rows = [
    {**setting, "seed": seed, "round": number, "value": value}
    for setting in [BASE]
    for seed in [0]
    for number, value in enumerate(measure(seed, **setting)["accuracy"])
]
print(len(rows), "rows, the last of them of round", rows[-1]["round"])

# %% [markdown] tags=["slide"]
# `run_table` of `course_utils` does that on all cores, for all that an experiment returns.
# Two settings, two seeds:

# %% tags=["slide-more", "nbval-ignore-output"]
from course_utils.experiments import run_table

own = run_table(measure, [BASE, BASE | {"lr": 0.1}], seeds=[0, 1])
last = own[(own.metric == "accuracy") & (own["round"] == BASE["rounds"])]
print(last[["lr", "seed", "round", "value"]].to_string(index=False))

# %%
first = own[(own.metric == "accuracy") & (own.lr == 0.01) & (own.seed == 0)]
assert [row["value"] for row in rows] == first.value.tolist()
print("by hand and by run_table: the same numbers")

# %% [markdown] tags=["slide"]
# Two seeds say little. Twenty take minutes, and a cell should not. So the course has run
# the experiments of this lesson with 20 seeds, on its default dataset, and has stored the
# table. `stored` reads it.
#
# - `make experiments ARGS="08"` makes it again.
# - `make test` draws two of its runs at random each time, runs them again, and compares.

# %% tags=["slide-more"]
from course_utils.experiments import stored

settings = stored("08", "settings")
count = len(settings[list(BASE)].drop_duplicates())
print(count, "settings,", settings.seed.nunique(), "seeds")
assert settings.seed.nunique() == 20


# %% [markdown]
# A small function picks the runs in which only some settings differ from the base:

# %%
import pandas as pd


def vary(*names: str, **others: float) -> pd.DataFrame:
    table = settings
    for name, value in (BASE | others).items():
        if name not in names:
            table = table[table[name] == value]
    return table


print("lr:", sorted(vary("lr").lr.unique().tolist()))

# %% [markdown] tags=["slide"]
# **Predict:** the base, with 20 seeds. Between which accuracies do they end?

# %% tags=["slide-then"]
from course_utils.experiments import by_seed

ends = by_seed(vary(), "lr")[0.01]
print(f"from {ends.min():.3f} to {ends.max():.3f}")
print(f"mean {ends.mean():.3f}, standard deviation {ends.std():.3f}")
assert ends.max() - ends.min() > 0.04

# %% [markdown] tags=["slide-more"]
# `by_seed` takes the last round of each run: a row for each seed, a column for each
# setting. Runs of one and the same setting end more than four percentage points apart.
# Whoever compares two settings by one run each has to see more than that.

# %% [markdown] tags=["slide"]
# ## The learning rate
#
# **Predict** the order of four learning rates after four rounds: 0.01, 0.03, 0.1 and 0.3.
#
# In the figure, a line is the median of 20 stored seeds, and nine of ten runs lie in its
# band. The thin lines are the runs of your machine.

# %% tags=["slide-then", "slide-output", "nbval-ignore-output"]
from course_utils.plots import plot_intervals

plot_intervals(vary("lr"), by="lr", live=own)

# %% [markdown]
# How often does a claim hold? Compare seed by seed, and count:

# %%
from course_utils.experiments import held

last = by_seed(vary("lr"), "lr")
better = last[0.03] > last[0.01] + 0.01
nothing = last[0.3] < 0.3
print("0.03 is more than 1 point above 0.01:", held(better))
print("lr 0.3 stays below an accuracy of 0.3:", held(nothing))
assert min(better.sum(), nothing.sum()) >= 19

# %% [markdown] tags=["slide-then"]
# - A small lr learns slowly. A larger one learns as much in fewer rounds.
# - Then it breaks down: with 0.3, nothing is learned.
# - The bands of 0.03 and 0.1 lie on top of each other. Is one of them better? That is a
#   question for later.

# %% [markdown] tags=["slide"]
# ## Three budgets
#
# "Better after four rounds" is one question. A run pays in three currencies:
#
# - **rounds**: each waits for the slowest client,
# - **passes** over the data: how often all examples are seen, so what clients compute,
# - **megabytes**: how many models cross the network.

# %% [markdown]
# ### Exercise 8.1: what a run costs
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 1 of 3, recall | 4 | a comparison at unequal budgets says which budget was larger |
#
# Complete `cost_of_a_run`: `rounds` rounds, in each of which `clients` of `num_clients`
# equally large clients train for `local_epochs`. Return two numbers. The first is how many
# passes over the data of *all* clients the run makes. The second is how many megabytes
# (of 1,000,000 bytes) of models cross the network for it. A model has `model_bytes`.
#
# <details><summary>Hint 1</summary>
#
# If all clients train for one epoch, that is one pass. What is it if half of them do?
# </details>
# <details><summary>Hint 2</summary>
#
# To train, a model goes out to a client, and one comes back. Nothing crosses in between.
# </details>

# %%
from course_utils.exercises import check


def cost_of_a_run(
    rounds: int,
    clients: int,
    local_epochs: int,
    num_clients: int,
    model_bytes: int,
) -> tuple[float, float]:
    """Return the passes over all data, and the megabytes."""
    ### BEGIN SOLUTION
    passes = rounds * clients / num_clients * local_epochs
    megabytes = rounds * clients * 2 * model_bytes / 10**6
    return passes, megabytes
    ### END SOLUTION


# %%
check("8.1", cost_of_a_run)

# %% [markdown] tags=["solution"]
# **Why this.** Rounds, clients and epochs multiply to passes; epochs do not count for
# megabytes. That is the whole trade between them. **What people get wrong:** they count a
# model once, though it also comes back; or they multiply the megabytes by the epochs.

# %% [markdown]
# All stored settings cost the clients the same: two passes over all data. They differ in
# rounds and megabytes:

# %%
model_bytes = ArrayRecord(Net().state_dict()).count_bytes()
trainings = settings["round"] * settings.fraction * NUM_CLIENTS
settings["passes"] = trainings / NUM_CLIENTS * settings.local_epochs
settings["megabytes"] = trainings * 2 * model_bytes / 1e6
ends = settings.groupby(list(BASE))[["passes", "megabytes"]].max()
print(ends.round(1).drop_duplicates().to_string())
assert (ends.passes.round(6) == 2).all()

# %% [markdown] tags=["slide"]
# **Local epochs: 1 or 2?** With 2, two rounds make the two passes. **Predict:** which is
# ahead by round? Which is ahead after two passes?

# %% tags=["slide-then", "slide-output", "nbval-ignore-output"]
epochs = vary("rounds", "local_epochs")
plot_intervals(epochs, by="local_epochs")

# %% tags=["slide", "slide-output", "nbval-ignore-output"]
plot_intervals(
    epochs, by="local_epochs", x="passes", xlabel="passes over the data"
)

# %% tags=["slide", "slide-output", "nbval-ignore-output"]
plot_intervals(
    epochs, by="local_epochs", x="megabytes", xlabel="megabytes sent"
)

# %%
by_round = by_seed(epochs, "local_epochs", round=2)
ahead = by_round[2] > by_round[1] + 0.03
print("after 2 rounds, 2 epochs are 3 points ahead:", held(ahead))
assert ahead.sum() >= 19
by_passes = by_seed(epochs, "local_epochs")
difference = by_passes[2] - by_passes[1]
print(f"after 2 passes, by {difference.mean():.3f} on average,")
print("and ahead at all in", held(difference > 0))
assert abs(difference.mean()) < 0.01

# %% [markdown] tags=["slide-more"]
# - **By rounds**, 2 epochs are far ahead. That is no surprise: such a round computes twice
#   as much.
# - **By passes** they end alike: less than one point apart on average, and in half of the
#   seeds the one is ahead, in half the other.
# - **By megabytes**, 2 epochs cost half. This is what local epochs buy, and why FedAvg has
#   them. (On skewed data they have a price: lesson 09.)

# %% [markdown] tags=["slide"]
# **Fraction: 2, 5 or 10 clients in a round?** Two passes are 10 rounds with 2 clients, 4
# with 5, and 2 with 10. **Predict:** passes are the same, and so are megabytes. Which ends
# best?

# %% tags=["slide-then", "slide-output", "nbval-ignore-output"]
fractions = vary("rounds", "fraction")
plot_intervals(
    fractions, by="fraction", x="megabytes", xlabel="megabytes sent"
)

# %%
ends = by_seed(fractions, "fraction")
few = ends[0.2] > ends[0.5] + 0.01
many = ends[1.0] < ends[0.5] - 0.02
print("2 clients end more than 1 point above 5: ", held(few))
print("10 clients end more than 2 points below 5:", held(many))
assert min(few.sum(), many.sum()) >= 19

# %% [markdown]
# **Predict:** and by round? Are 10 clients ahead of 5 after two rounds?

# %%
by_round = by_seed(fractions, "fraction", round=2)
gain = by_round[1.0] - by_round[0.5]
print(f"after 2 rounds, 10 clients are ahead by {gain.mean():.3f} on average,")
print("and ahead at all in", held(gain > 0))
assert 0 < gain.mean() < 0.04

# %% [markdown] tags=["slide-more"]
# - **At equal megabytes, few clients and many rounds win**, on these IID data. Each round
#   begins where the last one ended, so 10 rounds go further than 2.
# - **By round**, 10 clients are ahead of 5, by two points on average, but not in every seed.
#   Twice the work buys an average that is less noisy, and not much more.
# - In time it may be the other way round: 10 rounds wait 10 times. We come to that.

# %% [markdown] tags=["slide"]
# ## Settings are not independent
#
# **Batch size.** With batches of 64 in place of 16, a pass has a quarter of the steps.
# **Predict:** at equal passes and equal lr, is that better or worse? What if lr is four
# times as large, too?

# %% tags=["slide-then", "slide-output", "nbval-ignore-output"]
batches = pd.concat([vary("batch_size"), vary(batch_size=64, lr=0.04)])
sizes, rates = batches.batch_size.astype(str), batches.lr.astype(str)
batches["batches"] = "of " + sizes + ", lr " + rates
plot_intervals(batches, by="batches")

# %%
last = by_seed(batches, "batches")
small = last["of 16, lr 0.01"]
large, scaled = last["of 64, lr 0.01"], last["of 64, lr 0.04"]
print("64 end 10 points below 16:           ", held(large < small - 0.1))
print("with four times the lr, 5 points more:", held(scaled > large + 0.05))
print("and still below 16:                  ", held(scaled < small - 0.01))
assert (large < small - 0.1).sum() >= 19
assert min((scaled > large + 0.05).sum(), (scaled < small - 0.01).sum()) >= 19

# %% [markdown] tags=["slide-more"]
# - Fewer steps of the same size go less far. Four times the lr makes up for most of it, not
#   for all.
# - What batches of 64 buy is speed on a device that computes a large batch as fast as a
#   small one. These two passes do not show that.

# %% [markdown] tags=["slide"]
# **Local epochs, again.** At lr 0.01, two local epochs cost nothing in accuracy, and an lr of
# 0.1 was better than 0.01. **Predict:** so what do two epochs at lr 0.1 give?

# %% tags=["slide-then"]
both = by_seed(vary("rounds", "local_epochs", lr=0.1), "local_epochs")
print(f"1 epoch, lr 0.1:  {both[1].mean():.2f}")
print(f"2 epochs, lr 0.1: {both[2].mean():.2f}")
worse = both[2] < both[1] - 0.05
print("more than 5 points worse:", held(worse))
assert worse.sum() >= 19 and both[2].std() > 0.1

# %% [markdown] tags=["slide-then"]
# Two good changes make a bad run. With the large lr, each client goes far on its own, and
# after two rounds the average of such models is not yet a good one. (From seed to seed it
# differs widely, too.) So a setting is good *beside certain others*. Whoever tunes one at a
# time, and keeps each best, ends here.

# %% [markdown] tags=["slide"]
# ## Is it real?
#
# Which lr is better, 0.03 or 0.1? You can afford one run each. **Predict:** how many of the
# 20 seeds would tell you that it is 0.1? And how many that two local epochs beat one?

# %% tags=["slide-then"]
last = by_seed(vary("lr"), "lr")
rates = last[0.1] - last[0.03]
print("lr 0.1 is ahead of 0.03 in", held(rates > 0), "seeds")
print("2 epochs are ahead of 1 in", held(difference > 0), "seeds")
print("0.1 less 0.03, by seed:", rates.round(3).tolist()[:6], "...")
assert (rates > 0).sum() == 3 and rates[1] > 0

# %% [markdown] tags=["slide-more"]
# - Most seeds are for 0.03. But seed 1 is for 0.1, and so are two others. **One lucky seed is
#   all that a wrong conclusion takes.**
# - For one or two epochs, a seed says what a coin says.
#
# So look at the differences, seed by seed. Their mean is what you want to know. How sure is
# it?
#
# - *s* is the standard deviation of the differences: how far single seeds lie from the
#   mean.
# - *s* / √n is the **standard error**: how far the mean of n seeds is from that of very
#   many.
# - The mean, less and plus twice the standard error, is an **interval** that has the true
#   difference in it about 19 times of 20. If 0 is not in it, the difference is more than
#   luck.

# %% [markdown]
# ### Exercise 8.2: how large is the difference?
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 2 of 3, apply | 8 | a difference without an interval is a story about one seed |
#
# Complete `difference_interval`. It is given the accuracies of two settings, with the same
# seeds in the same order, two or more of them. Subtract the second from the first, seed by
# seed. Return the lower and the upper end of the interval: the mean of the differences, less
# and plus twice its standard error. (`statistics.stdev` divides by n − 1. Do as it does.)
#
# <details><summary>Hint 1</summary>
#
# Make the list of differences first. After that, the two lists are not needed.
# </details>
# <details><summary>Hint 2</summary>
#
# The standard error is `stdev(differences) / len(differences) ** 0.5`.
# </details>

# %%
from statistics import mean, stdev


def difference_interval(
    first: list[float], second: list[float]
) -> tuple[float, float]:
    """Return both ends of the interval of first minus second."""
    ### BEGIN SOLUTION
    differences = [first[i] - second[i] for i in range(len(first))]
    error = stdev(differences) / len(differences) ** 0.5
    return mean(differences) - 2 * error, mean(differences) + 2 * error
    ### END SOLUTION


# %%
check("8.2", difference_interval)

# %% [markdown] tags=["solution"]
# **Why this.** One seed gives both settings the same initial model and the same draws of
# clients. What a lucky start gives to both falls out of the difference. **What people get
# wrong:** they take the deviation of each setting for itself, and lose that; they forget the
# root of n, so that more seeds make nothing surer; or they take *s* itself, which says where
# single seeds lie.

# %% [markdown] tags=["slide"]
# `course_utils` has such a function, too. **Predict:** three pairs of settings. In which of
# them is the difference real?

# %%
from course_utils.experiments import interval

pairs = {
    "lr 0.03 - lr 0.01": (last[0.03], last[0.01]),
    "lr 0.1 - lr 0.03": (last[0.1], last[0.03]),
    "2 epochs - 1 epoch": (by_passes[2], by_passes[1]),
}

# %% tags=["slide-then", "slide-output"]
for name, (first, second) in pairs.items():
    low, high = interval(first, second)
    real = "real" if low > 0 or high < 0 else "may be luck"
    print(f"{name:18} {low:+.3f} to {high:+.3f}: {real}")
assert low < 0 < high

# %% [markdown] tags=["slide"]
# The first two are real, the third may be luck. Mind what that says: not that one and two
# epochs are equal, but that these 20 seeds cannot tell.
#
# **How large must a difference be?** That depends on how many seeds you run. For the two
# lrs, with few seeds only a large one shows:

# %% tags=["slide-more"]
s = rates.std()
for n in (1, 2, 5, 20):
    print(f"{n:2} seeds: a difference below {2 * s / n**0.5:.3f} may be luck")

# %% [markdown]
# **Does the interval itself lie?** Try it where nothing can be real: the same setting
# against itself, ten seeds against the other ten. They are no pairs, but luck is all there
# is:

# %%
ends = by_seed(vary(), "lr")[0.01].tolist()
rng = torch.Generator().manual_seed(0)
false_alarms = 0
for _ in range(1000):
    shuffled = [ends[i] for i in torch.randperm(20, generator=rng)]
    low, high = interval(shuffled[:10], shuffled[10:])
    false_alarms += low > 0 or high < 0
print(f"called real where nothing is: {false_alarms / 10:.0f} %")
assert false_alarms < 150

# %% [markdown] tags=["slide"]
# ## A search, and how it fools itself
#
# The loop that everyone writes next: try many settings, keep the best. What does it
# report?
#
# First without any federation. Here are settings that are all *equally good*: each
# classifies 95 % of all images correctly. A search tests each on 200 images and keeps the
# best. **Predict** the accuracy that it reports, of 1, 10 and 50 settings.

# %% tags=["slide-then"]
import numpy as np

draws = np.random.default_rng(0)
for number in (1, 10, 50):
    tested = draws.binomial(200, 0.95, size=(2000, number)) / 200
    print(f"best of {number:2}: {tested.max(axis=1).mean():.3f}")
assert tested.max(axis=1).mean() > 0.975

# %% [markdown] tags=["slide-then"]
# The best of 50 looks three points better than it is. It was the luckiest, and its luck will
# not come again. **The images that choose cannot report.** On other images, the chosen
# setting has its 95 % again.

# %% [markdown] tags=["slide"]
# The same happens with seeds. The base was run with 20. Take the best of them, and call it
# "our method":

# %% tags=["slide-more"]
ends = by_seed(vary(), "lr")[0.01]
print(f"best seed: {ends.max():.3f}, mean of the others: "
      f"{ends.drop(ends.idxmax()).mean():.3f}")
assert ends.max() - ends.mean() > 0.01

# %% [markdown]
# Now the search over our settings. That is why `evaluate` measures twice: validation
# images choose, and test images report. With one seed a setting, **predict:** does the
# search choose the same setting for every seed?

# %%
def describe(setting: pd.Series) -> str:
    changes = [f"{k} {setting[k]:g}" for k in BASE if setting[k] != BASE[k]]
    return ", ".join(changes) or "the base"


settings["name"] = settings[list(BASE)].apply(describe, axis=1)
validation = by_seed(settings, "name", metric="validation")
test = by_seed(settings, "name")
for name, count in validation.idxmax(axis=1).value_counts().items():
    print(f"chosen in {count:2} of 20 seeds: {name}")

# %% [markdown]
# It depends on the seed: several settings are about equally good, and luck picks one of
# them. With the mean over all seeds, the choice is steadier:

# %%
best = validation.mean().idxmax()
print("chosen by validation:", best)
print(f"on the validation images: {validation[best].mean():.3f}")
print(f"on the test images:       {test[best].mean():.3f}")
assert test[best].mean() < validation[best].mean() - 0.01

# %% [markdown]
# What has chosen looks better, as always. (Here that is not all luck: these 200 images are
# easier, for nearly every setting.) The test images had no part in the choice, so their
# number can be believed.

# %% [markdown] tags=["slide"]
# ### Exercise 8.3: a search that can be believed
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 3 of 3, build | 12 | the number that a search reports is the one that others build on |
#
# Complete `search`. Its `run(setting, seed)` runs once, and returns two accuracies: on the
# validation images, and on the test images. Run each setting with each seed, once. Choose
# the setting with the best mean validation accuracy (of equally good ones, the earliest).
# Return two things: the chosen setting, as it was given, and its mean *test* accuracy.
#
# <details><summary>Hint 1</summary>
#
# Two loops: over settings and, inside, over seeds. What has to be kept of a setting when its
# seeds are done?
# </details>
# <details><summary>Hint 2</summary>
#
# Keep three things of the best so far: its validation mean, the setting, its test mean.
# Compare only the first.
# </details>
# <details><summary>Hint 3</summary>
#
# An accuracy may be 0 for all settings, and still one of them is chosen. So begin with the
# first setting, or below 0.
# </details>


# %%
def search(
    run: Callable[[dict, int], tuple[float, float]],
    settings: list[dict],
    seeds: list[int],
) -> tuple[dict, float]:
    """Return the chosen setting, and its mean test accuracy."""
    ### BEGIN SOLUTION
    best = None
    for setting in settings:
        pairs = [run(setting, seed) for seed in seeds]
        score = mean(validation for validation, _ in pairs)
        report = mean(test for _, test in pairs)
        if best is None or score > best[0]:
            best = score, setting, report
    return best[1], best[2]
    ### END SOLUTION


# %%
check("8.3", search)

# %% [markdown] tags=["solution"]
# **Why this.** The test images take no part in the choice, so their number has no luck of
# the choice in it. **What people get wrong:** they report the score that has won, which is
# the luckiest; they keep the best single seed; or they look at the test images of all
# settings "only to compare", and choose by them in the end.

# %% [markdown] tags=["slide"]
# ## Settings that change during a run
#
# A message's config is made anew in each round (lesson 04), and so is the draw of clients.
# So the server can follow a **plan**: for each round an lr, and how many clients train. A
# strategy of its own does that, as in lesson 05:

# %% tags=["slide-more"]
from collections.abc import Iterable


class PlannedFedAvg(FedAvg):
    def __init__(self, plan: list[tuple[float, int]]) -> None:
        super().__init__(fraction_evaluate=0.0)
        self.plan = plan

    def configure_train(
        self,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
    ) -> Iterable[Message]:
        lr, clients = self.plan[server_round - 1]
        self.fraction_train = clients / NUM_CLIENTS
        config = ConfigRecord({**config, "lr": lr})
        return super().configure_train(server_round, arrays, config, grid)


# %% [markdown]
# Three plans, each with as many models sent as the run of lr 0.1 above: four rounds with
# five clients.

# %% tags=["slide"]
PLANS = {
    "lower lr later": [(0.1, 5), (0.1, 5), (0.03, 5), (0.01, 5)],
    "fewer clients later": [(0.1, 10), (0.1, 5), (0.1, 3), (0.1, 2)],
    "more clients later": [(0.1, 2), (0.1, 3), (0.1, 5), (0.1, 10)],
}
assert {sum(n for _, n in plan) for plan in PLANS.values()} == {4 * 5}


def follow(seed: int, *, plan: str) -> dict:
    run_config = {"num-server-rounds": len(PLANS[plan]), "lr": 0.1}
    make = partial(PlannedFedAvg, PLANS[plan])
    metrics = run_with(make, seed, run_config).evaluate_metrics_serverapp
    return {"accuracy": [metrics[i]["accuracy"] for i in metrics]}


# %% [markdown] tags=["slide"]
# **Predict:** which of the three ends above the plain run, and which below it?

# %% tags=["slide-then", "slide-output", "nbval-ignore-output"]
plans = stored("08", "plans")
plain = vary("lr")
plain = plain[plain.lr == 0.1].assign(plan="as it is")
live = run_table(follow, [{"plan": "lower lr later"}], seeds=[0])
plot_intervals(pd.concat([plain, plans]), by="plan", live=live, lowest=0.5)

# %%
ends = by_seed(pd.concat([plain, plans]), "plan")
for name in PLANS:
    low, high = interval(ends[name], ends["as it is"])
    ahead = held(ends[name] > ends["as it is"])
    print(f"{name:19} ahead in {ahead:>8}, {low:+.3f} to {high:+.3f}")
ahead = {name: (ends[name] > ends["as it is"]).sum() for name in PLANS}
assert ahead["fewer clients later"] <= 1
assert (ahead["lower lr later"], ahead["more clients later"]) == (18, 14)

# %% [markdown] tags=["slide-more"]
# - **A lower lr later** is ahead in 18 of 20 seeds, by about two points: large steps first,
#   small ones when the model is nearly right.
# - **Fewer clients later** is behind in 19 of 20. At this lr, clients end far apart, and an
#   average of two is a noisy model.
# - **More clients later** is ahead in 14 of 20. The interval is above 0, but only just.
#
# So if you want to ask fewer clients, ask them first. (At another lr it may be otherwise:
# settings act together.)

# %% [markdown] tags=["slide"]
# ## What a round costs in time
#
# Passes and megabytes do not say how long a run takes. Devices differ, and a round ends when
# its **slowest** client is done. No training is needed to see what that means: a model of
# the devices will do.
#
# Here a device needs 10 seconds for a pass over its data, if it is in the middle. Some are
# much faster, some much slower (the *lognormal* distribution, as it is often seen):

# %%
draws = np.random.default_rng(0)
seconds = draws.lognormal(mean=np.log(10), sigma=0.8, size=100_000)
for share in (0.1, 0.5, 0.9, 0.99):
    limit = np.quantile(seconds, share)
    print(f"{share:.0%} of the devices: {limit:.0f} s or less")
assert 9.5 < np.median(seconds) < 10.5

# %% [markdown] tags=["slide"]
# **Predict:** in the middle, a device takes 10 seconds. How long does a round take, on
# average, with 2, 5, 10 and 100 clients?

# %% tags=["slide-then"]
def round_seconds(clients: int) -> float:
    return draws.choice(seconds, size=(5000, clients)).max(axis=1).mean()


waits = {clients: round_seconds(clients) for clients in (2, 5, 10, 100)}
for clients, wait in waits.items():
    print(f"{clients:3} clients: {wait:.0f} s")
assert waits[2] < waits[5] < waits[10] < waits[100]
assert waits[100] > 5 * 10

# %% [markdown] tags=["slide-more"]
# The more clients, the surer a slow one is among them. With 100, a round takes several times
# as long as the device in the middle, and most of the others wait.

# %% [markdown]
# "Few clients, many rounds" was best by megabytes. But each round waits. **Predict:** two
# passes with 2, 5 and 10 clients are 10, 4 and 2 rounds. Which are done first?

# %%
for clients, rounds in ((2, 10), (5, 4), (10, 2)):
    took = rounds * waits[clients]
    print(f"{rounds:2} rounds with {clients:2} clients: {took:.0f} s")
assert 10 * waits[2] > 4 * waits[5] > 2 * waits[10]

# %% [markdown] tags=["slide"]
# Ten clients are done first. **Predict:** and which model is best at that time? Here are the
# stored runs again, by simulated seconds:

# %% tags=["slide-then", "slide-output", "nbval-ignore-output"]
clients = (fractions.fraction * NUM_CLIENTS).round().astype(int)
fractions["seconds"] = fractions["round"] * clients.map(waits)
plot_intervals(
    fractions, by="fraction", x="seconds", xlabel="simulated seconds"
)

# %%
end = 2 * waits[10]
done = fractions[fractions.seconds <= end]
print("rounds by then:", done.groupby("fraction")["round"].max().to_dict())
by_then = by_seed(done, "fraction")
low, high = interval(by_then[0.2], by_then[1.0])
print(f"2 clients less 10: {low:+.3f} to {high:+.3f},",
      "ahead in", held(by_then[0.2] > by_then[1.0]))
ends = by_seed(fractions, "fraction")
by_megabytes = (ends[0.2] - ends[1.0]).mean()
print(f"at equal megabytes it was {by_megabytes:+.3f}")
assert low > 0 and high < 0.05 < by_megabytes - 0.05

# %% [markdown] tags=["slide-more"]
# In seconds the curves nearly lie on each other. Two clients are ahead of ten by two points,
# where they were ahead by eleven at equal megabytes: what they gain by more rounds, they
# lose by waiting more often. So a setting is not good or bad. It is good *for a budget*.

# %% [markdown] tags=["slide"]
# **A deadline.** The server need not wait for the slowest. `send_and_receive` takes a
# `timeout`, as does `strategy.start(..., timeout=...)`: when it is over, the round goes on
# with the replies that are there. **Predict:** with 10 clients, what does a deadline of 20
# seconds save, and how many clients does it leave out?

# %% tags=["slide-then"]
rounds_of_10 = draws.choice(seconds, size=(5000, 10))
for deadline in (10, 20, 40):
    waited = rounds_of_10.max(axis=1).clip(max=deadline).mean()
    late = (rounds_of_10 > deadline).mean()
    print(f"{deadline} s: a round takes {waited:.0f} s, {late:.0%} are late")
assert 0.15 < (rounds_of_10 > 20).mean() < 0.25
assert waits[10] > 30

# %% [markdown] tags=["slide"]
# With 20 seconds, a fifth of the work is thrown away, and a round takes half the time. Is that a bargain? If
# the late are late by chance, yes. But a slow phone is slow in *every* round. **So a deadline
# leaves out the same clients each time, and whatever only they have.**

# %% [markdown]
# This strategy does as a deadline would: it never gets the replies of some clients. (It does
# not even ask, which saves your time.)


# %%
class ImpatientFedAvg(FedAvg):
    def __init__(self, late: list[int]) -> None:
        super().__init__(fraction_evaluate=0.0)
        self.late = late

    def configure_train(
        self,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
    ) -> Iterable[Message]:
        late = [list(grid.get_node_ids())[client] for client in self.late]
        messages = super().configure_train(server_round, arrays, config, grid)
        return [m for m in messages if m.metadata.dst_node_id not in late]


# %% [markdown]
# In the experiment three of ten clients are slow, other ones for each seed. The data are
# skewed: Dirichlet with alpha 0.1. After four rounds, each client tests the model on its own
# data:

# %%
import random

from course_utils import model
from course_utils.partitions import load_partition

SKEWED = {"scheme": "dirichlet", "alpha": 0.1}


def wait_or_not(seed: int, *, wait: bool) -> dict:
    slow = random.Random(seed).sample(range(NUM_CLIENTS), 3)
    make = partial(ImpatientFedAvg, [] if wait else slow)
    run_config = {"num-server-rounds": 4, "lr": 0.03}
    net = load_net(run_with(make, seed, run_config | SKEWED).arrays)
    accuracy = []
    for client in range(NUM_CLIENTS):
        _, testloader = load_partition(client, NUM_CLIENTS, **SKEWED)
        accuracy.append(model.test(net, testloader)[1])
    own = sum(accuracy[client] for client in slow) / len(slow)
    return {"slow": own, "fast": (sum(accuracy) - 3 * own) / (NUM_CLIENTS - 3)}


# %% [markdown] tags=["slide"]
# **Predict:** what does the model lose, on the data of the fast clients, and on those of the
# slow ones?

# %% tags=["slide-then"]
deadline = stored("08", "deadline")
lost = {}
for who in ("fast", "slow"):
    ends = by_seed(deadline, "wait", metric=who)
    lost[who] = ends[True] - ends[False]
    low, high = interval(ends[True], ends[False])
    print(f"{who}: {ends[True].mean():.2f} if the server waits, "
          f"{ends[False].mean():.2f} if not; lost {low:.2f} to {high:.2f}")
assert lost["slow"].mean() > 0.15 and lost["fast"].mean() < 0.06

# %%
for points in (0.5, 5, 20):
    count = held(lost["slow"] > points / 100)
    print(f"the slow clients lose more than {points} points: {count}")
assert (lost["slow"] > 0.005).sum() == 20

# %% [markdown] tags=["slide-more"]
# - The slow clients lose in every seed, and several times as much as the fast ones.
# - How much differs widely. Where others hold the same labels, the slow ones lose little.
#   Where they alone have them, the model has never seen them.
# - An average over all test images hides that. If you set a deadline, look at those whom it
#   leaves out.

# %% [markdown] tags=["slide"]
# ## Takeaways
#
# - **Compare at an equal budget**, and say which: rounds, passes, megabytes or seconds. At
#   equal passes, local epochs save megabytes, and few clients in many rounds learn most on
#   IID data. Settings act together: what is good beside one lr ruins a run beside another.
# - **One run is one draw.** Run several seeds, subtract seed by seed, and give an interval.
#   If 0 is in it, the difference may be luck.
# - **A search finds luck, too.** Let validation images choose, and test images report. The
#   best of many equally good settings looks better than it is.
# - **The server can follow a plan:** another lr, another number of clients, round by round,
#   in `configure_train`.
# - **The slowest client sets the time of a round.** A deadline saves it, and leaves out the
#   same clients in every round, with all that only they have.

# %% [markdown]
# ## Check yourself
#
# <details><summary>1. Setting A has 0.951, setting B has 0.948, one run each. Which do you
# take?</summary>
#
# You do not know which is better. In this lesson runs of one setting lie more than four
# points apart. Run more seeds of both, and look at the interval of the differences. If it
# has 0 in it, take the cheaper one.
# </details>
#
# <details><summary>2. Two local epochs are three points ahead of one, after two rounds. Are
# they better?</summary>
#
# By rounds and by megabytes, yes. They have also computed twice as much. Compare after equal
# passes, too, and say which of these is scarce.
# </details>
#
# <details><summary>3. You tried 60 settings on the test images, and the best has 0.972. What
# do you report?</summary>
#
# Not 0.972: it is the best of 60, so there is luck in it. Run the chosen setting on images
# that had no part in the choice. If there are none left, say how many settings were tried
# on them.
# </details>
#
# <details><summary>4. Why subtract seed by seed, rather than compare two means?</summary>
#
# One seed gives both settings the same initial model, and where they have equally many
# rounds and clients, the same draws. That part of luck is in both, and falls out.
# </details>
#
# <details><summary>5. A round with 100 clients takes nearly three times as long as one with 5.
# Each device is as fast as before. Why?</summary>
#
# A round ends with its slowest client, and among 100 there is nearly always a very slow
# one. The others wait.
# </details>
#
# <details><summary>6. A deadline halves the time of a round, and the accuracy on all test
# images falls by one point. Is that a good bargain?</summary>
#
# Ask whose point it is. If it is always the same clients that are late, they may have lost
# ten points, and the others none.
# </details>

# %% [markdown]
# **Next:** 09 · Non-IID data, where the clients are no longer alike.

# %%
from course_utils.exercises import progress

progress("08")
