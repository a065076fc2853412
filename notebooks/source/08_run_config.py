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
# - say what a round costs in time when devices differ, and whom a deadline and
#   over-selection leave out.
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


# %% [markdown]
# **Last, the experiment:** the four settings of lesson 04, and a fifth, the batch size.
# (`partial` makes a function that calls `FedAvg` with these arguments.)

# %%
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
# One setting is the **base**. All others in this lesson change a few of its values. Its lr is
# cautious, as one begins:

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
# With another seed, the initial model, the draws of clients and the batches differ. How far apart do two runs of one setting end? By hand, this is a loop over settings, seeds, and
# rounds, here with one setting and one seed:

# %%
rows = [
    {**setting, "seed": seed, "round": number, "value": value}
    for setting in [BASE]
    for seed in [0]
    for number, value in enumerate(measure(seed, **setting)["accuracy"])
]
print(len(rows), "rows, the last of them of round", rows[-1]["round"])

# %% [markdown]
# `run_table` of `course_utils` does that on all cores, for all that an experiment returns.
# Two settings, two seeds:

# %% tags=["nbval-ignore-output"]
from course_utils.experiments import run_table

own = run_table(measure, [BASE, BASE | {"lr": 0.1}], seeds=[0, 1])
last = own[(own.metric == "accuracy") & (own["round"] == BASE["rounds"])]
print(last[["lr", "seed", "round", "value"]].to_string(index=False))

# %%
first = own[(own.metric == "accuracy") & (own.lr == 0.01) & (own.seed == 0)]
assert [row["value"] for row in rows] == first.value.tolist()
print("by hand and by run_table: the same numbers")

# %% [markdown]
# Two seeds say little. Twenty take minutes. So the course has run this lesson's experiments
# with 20 seeds, on its default dataset, and stored the table. (`make experiments ARGS="08"`
# makes it again, and `make test` runs two of its runs again, drawn at random.)

# %%
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
# **Predict:** the base, with 20 seeds. Between which accuracies do they end? How far apart
# are two of them?

# %% tags=["slide-then"]
from itertools import combinations

from course_utils.experiments import by_seed

ends = by_seed(vary(), "lr")[0.01]
print(f"from {ends.min():.3f} to {ends.max():.3f}")
print(f"mean {ends.mean():.3f}, standard deviation {ends.std():.3f}")
gaps = pd.Series([abs(a - b) for a, b in combinations(ends, 2)])
print(f"two of them: {gaps.median():.3f} apart in the middle of all pairs,")
print(f"and more than {gaps.quantile(0.95):.3f} in one pair of 20")
assert 0.01 < gaps.median() < 0.02 and 0.03 < gaps.quantile(0.95) < 0.035

# %% [markdown]
# `by_seed` takes the last round of each run: a row for each seed, a column for each
# setting. Two runs of one and the same setting end about one percentage point apart, and
# one pair of 20 more than three. Whoever compares two settings by one run each has to see
# more than three.

# %% [markdown] tags=["slide"]
# ## The learning rate
#
# **Predict** the order of four learning rates after four rounds: 0.01, 0.03, 0.1 and 0.3.
#
# In the figure, a line is the median of 20 stored seeds, and nine of ten runs lie in its
# band. The thin lines are the runs of your machine.

# %% tags=["slide-then", "slide-output", "nbval-ignore-output"]
from course_utils.plots import plot_intervals, plot_ranges

plot_intervals(vary("lr"), by="lr", live=own)

# %% [markdown]
# How often does a claim hold? Compare seed by seed, and count:

# %%
from course_utils.experiments import held

last = by_seed(vary("lr"), "lr")
better = last[0.03] > last[0.01] + 0.01
nothing = last[0.3] < 0.3
print("0.03 is more than 1 point above 0.01:", held(better))
print("0.1 is above 0.01 at all:", held(last[0.1] > last[0.01]))
print("lr 0.3 stays below an accuracy of 0.3:", held(nothing))
assert min(better.sum(), nothing.sum()) >= 19
assert (last[0.1] > last[0.01]).sum() == 16 and last[0.1].median() < 0.92
assert last[0.1].std() > 3 * last[0.03].std()

# %% [markdown]
# - A small lr learns slowly. A larger one learns as much in fewer rounds.
# - Then it breaks down: with 0.3, nothing is learned.
# - The bands of 0.03 and 0.1 overlap. That of 0.1 is about three times as wide, and its
#   median is lower. Is 0.03 better? That is a question for later.
# - A margin such as "1 point" was set after the numbers were seen. It says how large a
#   difference is. It is not a test.

# %% [markdown] tags=["slide"]
# ## Three budgets
#
# "Better after four rounds" is one question. A run pays in three currencies:
#
# - **rounds**: each waits for the slowest client,
# - **passes** over the data: how often each example is seen on average, so what clients
#   compute,
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
# rounds and megabytes. (`cost` is the course's own answer to 8.1.)

# %%
from course_utils.exercises.lesson_08 import cost

model_bytes = ArrayRecord(Net().state_dict()).count_bytes()
settings["clients"] = (settings.fraction * NUM_CLIENTS).astype(int)
settings["passes"], settings["megabytes"] = cost(
    settings["round"],
    settings.clients,
    settings.local_epochs,
    NUM_CLIENTS,
    model_bytes,
)
costs = settings.groupby(["rounds", "clients", "local_epochs"])
costs = costs[["passes", "megabytes"]].max()
print(costs.round(1).to_string())
assert (costs.passes.round(6) == 2).all()

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
# - **By passes** they end alike, at lr 0.01: less than one point apart on average, and in
#   half of the seeds the one is ahead, in half the other.
# - **By megabytes**, 2 epochs cost half. This is what local epochs buy, and why FedAvg has
#   them. (On skewed data they have a price: lesson 09.)

# %% [markdown] tags=["slide"]
# **Fraction: 2, 5 or 10 clients in a round?** Two passes are 10 rounds with 2 clients, 4
# with 5, and 2 with 10. **Predict:** passes are the same, and so are megabytes. Which ends
# best?

# %% tags=["slide-then", "slide-output", "nbval-ignore-output"]
fractions = vary("rounds", "fraction")
plot_intervals(
    fractions, by="clients", x="megabytes", xlabel="megabytes sent"
)

# %%
ends = by_seed(fractions, "clients")
few = ends[2] > ends[5] + 0.01
many = ends[10] < ends[5] - 0.02
print(f"2 clients less 10, on average: {(ends[2] - ends[10]).mean():.3f}")
assert 0.11 < (ends[2] - ends[10]).mean() < 0.12
print("2 clients end more than 1 point above 5: ", held(few))
print("10 clients end more than 2 points below 5:", held(many))
assert min(few.sum(), many.sum()) >= 19
other_lr = by_seed(vary("lr"), "lr")[0.03]
print(f"2 clients, lr 0.01: {ends[2].mean():.3f}; "
      f"5 clients, lr 0.03: {other_lr.mean():.3f}")
assert other_lr.mean() > ends[2].mean()

# %% [markdown]
# - **At equal megabytes, few clients and many rounds win**, on these IID data, at lr 0.01.
#   That lr is small, so more rounds go further. (5 clients at lr 0.03 end above 2 at 0.01.)
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
made_up = (scaled - large).mean() / (small - large).mean()
print(f"made up by it, on average: {made_up:.0%} of the difference")
assert 0.5 < made_up < 0.6
assert (large < small - 0.1).sum() >= 19
assert min((scaled > large + 0.05).sum(), (scaled < small - 0.01).sum()) >= 19

# %% [markdown] tags=["slide-more"]
# - Fewer steps of the same size go less far. Four times the lr makes up for about half of
#   it. (No other lr was tried. With its own best lr, 64 may do better.)
# - What batches of 64 buy is speed on a device that computes a large batch as fast as a
#   small one. These two passes do not show that.

# %% [markdown] tags=["slide"]
# **Local epochs, again.** At lr 0.01, two local epochs cost nothing that we could see. With
# one epoch, lr 0.1 was above 0.01 in 16 of 20 seeds. **Predict:** what do both together
# give?

# %% tags=["slide-then"]
both = by_seed(vary("rounds", "local_epochs", lr=0.1), "local_epochs")
print(f"1 epoch, lr 0.1:  {both[1].mean():.2f}")
print(f"2 epochs, lr 0.1: {both[2].mean():.2f}")
worse = both[2] < both[1] - 0.05
print("more than 5 points worse:", held(worse))
assert worse.sum() >= 19 and both[2].std() > 0.1

# %% [markdown] tags=["slide-then"]
# **Settings that are harmless apart can fail together.** (From seed to seed it differs
# widely, too.) So a setting is good *beside certain others*. Whoever changes one at a time
# does not see this pair fail.

# %% [markdown] tags=["slide"]
# ## Is it real?
#
# Which lr is better, 0.03 or 0.1? **Predict:** how many of the 20 seeds would tell you that it
# is 0.1? And how many that two local epochs beat one?

# %% tags=["slide-then"]
last = by_seed(vary("lr"), "lr")
rates = last[0.03] - last[0.1]
print("lr 0.1 is ahead of 0.03 in", held(rates < 0), "seeds")
print("2 epochs are ahead of 1 in", held(difference > 0), "seeds")
print("lr 0.03 less 0.1, by seed:", rates.round(3).tolist()[:6], "...")
assert (rates < 0).sum() == 3 and rates[1] < 0

# %% [markdown]
# - Most seeds are for 0.03. But seed 1 is for 0.1, and so are two others. **One lucky seed is
#   all that a wrong conclusion takes.**
# - For one or two epochs, a seed says what a coin says.
#
# So look at the differences, seed by seed. How sure is their mean?
#
# - *s* is the standard deviation of the differences: how far seeds lie from the mean.
# - *s* / √n is the **standard error**: how far the mean of n seeds is from that of very
#   many.
# - The mean, less and plus some standard errors, is an **interval**. It should have the
#   true difference in it 19 times of 20. If 0 is not in it, we call the difference *real*.
#
# "True" is the mean of very many seeds, on this partition and these images.

# %% [markdown]
# **How many standard errors?** About two, if n is large. With few seeds, *s* is itself a
# guess, and often too small. *Student's t distribution* says how many make up for that (0.975
# leaves 2.5 % out at each end). **How large must a difference be?** The two lrs are about two points apart:

# %%
from scipy.stats import t

s = rates.std()
print(f"found: {rates.mean():.3f}")
for n in (2, 3, 5, 10, 20):
    errors = t.ppf(0.975, n - 1)
    print(f"{n:2} seeds: {errors:4.1f} standard errors; "
          f"below {errors * s / n**0.5:.3f} it may be luck")
assert errors * s / n**0.5 < rates.mean() < t.ppf(0.975, 4) * s / 5**0.5

# %% [markdown]
# So five seeds would seldom show it.

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
# and plus `t.ppf(0.975, n - 1)` times its standard error. (`statistics.stdev` divides by
# n − 1. Do as it does.)
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
    n = len(differences)
    half = t.ppf(0.975, n - 1) * stdev(differences) / n**0.5
    return mean(differences) - half, mean(differences) + half
    ### END SOLUTION


# %%
check("8.2", difference_interval)

# %% [markdown] tags=["solution"]
# **Why this.** One seed gives both settings the same initial model. If a lucky start helps
# both, that falls out of the difference. **What people get wrong:** they take the deviation
# of each setting for itself, and lose that; they forget the root of n, so that more seeds
# make nothing surer; they go two standard errors with three seeds, too; or they take *s*
# itself, which says where single seeds lie.

# %% [markdown] tags=["slide"]
# `interval` is the course's own. **Predict:** lr 0.03 and 0.01, lr 0.03 and 0.1, 2
# epochs and 1: in which of these pairs is the difference real?

# %% tags=["slide-then", "slide-output"]
from course_utils.experiments import interval

pairs = {
    "lr 0.03 - lr 0.01": (last[0.03], last[0.01]),
    "lr 0.03 - lr 0.1": (last[0.03], last[0.1]),
    "2 epochs - 1 epoch": (by_passes[2], by_passes[1]),
}
for name, (first, second) in pairs.items():
    low, high = interval(first, second)
    real = "real" if low > 0 or high < 0 else "may be luck"
    shared = f"correlation {first.corr(second):+.1f}"
    print(f"{name:18} {low:+.3f} to {high:+.3f}: {real}, {shared}")
assert low < 0 < high and last[0.1].corr(last[0.03]) < 0

# %% [markdown]
# The first two are real, the third may be luck. Mind what that says: not that one and two
# epochs are equal, but that these 20 seeds cannot tell.
#
# Pairing takes out luck that both settings share. Here there is little: the correlations are
# small, and one is negative. (Does the interval lie? See the appendix.)

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

luck = np.random.default_rng(0)
for number in (1, 10, 50):
    tested = luck.binomial(200, 0.95, size=(2000, number)) / 200
    print(f"best of {number:2}: {tested.max(axis=1).mean():.3f}")
assert tested.max(axis=1).mean() > 0.975

# %% [markdown] tags=["slide-then"]
# The best of 50 looks three points better than it is. **The images that choose cannot
# report.** On other images, the chosen setting has its 95 % again.

# %% [markdown]
# **Luck of a seed** does the same. Here is the search over our settings. That is why
# `evaluate` measures twice: validation images choose, and test images report. With one seed
# a setting, **predict:** does the search choose the same setting for every seed?

# %%
def describe(setting: pd.Series) -> str:
    changes = [f"{k} {setting[k]:g}" for k in BASE if setting[k] != BASE[k]]
    return ", ".join(changes) or "the base"


settings["name"] = settings[list(BASE)].apply(describe, axis=1)
validation = by_seed(settings, "name", metric="validation")
first = validation.eq(validation.max(axis=1), axis=0)
alone = first[first.sum(axis=1) == 1].sum()
for name, count in alone[alone > 0].sort_values(ascending=False).items():
    print(f"alone in front in {count} of 20 seeds: {name}")
print(f"two in front together: {20 - alone.sum()} seeds")
assert (alone.sum(), alone.max()) == (15, 8)

# %% [markdown]
# It depends on the seed. Two settings are about equally good on these 200 images. So luck
# picks one of them, and the winner looks better than the same setting does with other
# seeds. How much?

# %%
test = by_seed(settings, "name")
mean_of = validation.mean()
usual = mean_of[validation.idxmax(axis=1)].mean()
winner = validation.max(axis=1).mean()
print(f"a winner, on the images that chose it: {winner:.3f}")
print(f"the same settings, over all seeds:     {usual:.3f}")
best = mean_of.idxmax()
for name in (best, "the base"):
    print(f"{name}: validation {mean_of[name]:.3f},",
          f"test {test[name].mean():.3f}")
assert best == "lr 0.03" and 0.005 < winner - usual < 0.012

# %% [markdown]
# - **A winner of one seed** has nearly one point more than its setting deserves.
# - **By the mean over 20 seeds**, lr 0.03 is chosen. That takes out the luck of seeds, not
#   that of the 200 images, which all seeds share.
# - The base, too, is higher on validation images, and nobody chose it. They are easier.
#
# **A confession.** All figures above show *test* accuracies. Whoever chooses by them has
# used up these images. In your own work, draw such figures with validation images, and open
# the test images once.

# %% [markdown]
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
# **Why this.** The test images take no part in this choice, so their number has no luck of
# the choice in it. **What people get wrong:** they report the score that has won, which is
# the luckiest; they keep the best single seed; or they look at the test images of all
# settings "only to compare", and choose by them in the end.

# %% [markdown] tags=["slide"]
# ## Settings that change during a run
#
# A message's config is made anew in each round (lesson 04), and so is the draw of clients.
# So the server can follow a **plan**: for each round an lr, and how many clients train. A
# strategy of its own does that, as in lesson 05. (FedAvg asks at least `min_train_nodes`
# clients, 2 by default. So a plan with 1 would train 2.)

# %%
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
# Three plans, each with as many models sent as four rounds with five clients. They begin
# with lr 0.1. So compare them with two constant runs: lr 0.1, and the 0.03 that the search
# chose. (By test images again, which the figures have used up.)

# %%
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
# **Predict:** which of the three ends above "always 0.1"? Which above "always 0.03"?

# %% tags=["slide-then", "slide-output", "nbval-ignore-output"]
plans = stored("08", "plans")
plain = vary("lr")
plain = plain[plain.lr.isin([0.03, 0.1])]
plans = pd.concat([plain.assign(plan="always " + plain.lr.astype(str)), plans])
live = run_table(follow, [{"plan": "lower lr later"}], seeds=[0])
print(f"lower lr later, run here: {live.value.iloc[-1]:.2f}")
plot_ranges(plans, by="plan", round=4)

# %%
ends = by_seed(plans, "plan")
for name in PLANS:
    for lr in (0.1, 0.03):
        constant = ends[f"always {lr}"]
        low, high = interval(ends[name], constant)
        ahead = held(ends[name] > constant)
        print(f"{name:19} less {lr:<4}: {low:+.3f} to {high:+.3f}, {ahead}")
over = ends[list(PLANS)]
assert (over.gt(ends["always 0.1"], axis=0)).sum().tolist() == [18, 1, 14]
assert (over.gt(ends["always 0.03"], axis=0)).sum().tolist() == [11, 0, 9]

# %% [markdown]
# - **A lower lr later** is ahead of a constant 0.1 in 18 of 20 seeds, by about two points.
# - **More clients later** is ahead of it in 14 of 20. The interval is just above 0. But these
#   are six intervals, and one of 20 misses by luck.
# - **Fewer clients later** is behind in 19 of 20. We do not know why.
#
# **Against a constant 0.03, no plan gains.** The lower lr later is ahead in 11 of 20, and 0
# is in the interval. Here a plan repairs an lr that is too large. So compare a plan with the
# best constant setting, not with what it begins with.

# %% [markdown] tags=["slide"]
# ## What a round costs in time
#
# A client **computes**, and it **sends**: megabytes, over the speed of its line. Devices
# differ in both, and a round ends when its **slowest** client is done. To see what that means,
# no training is needed: a model of the devices will do.
#
# Here a device in the middle computes a pass over its data in 10 seconds, and its line
# carries 0.5 megabytes a second. Some are much faster, some much slower: a *lognormal*
# distribution. Its width, `sigma`, is our guess. Each round draws its devices anew.

# %%
draws = np.random.default_rng(0)
SMALL, LARGE = model_bytes / 10**6, 45.0  # megabytes: our Net, a ResNet-18


def seconds(
    shape: int | tuple, megabytes=SMALL, epochs=1, sigma=0.8
) -> np.ndarray:
    computing = epochs * draws.lognormal(np.log(10), sigma, shape)
    speed = draws.lognormal(np.log(0.5), sigma, shape)
    return computing + 2 * megabytes / speed  # the model comes, and goes back


# %%
for name, size in (("small", SMALL), ("large", LARGE)):
    parts = [np.median(seconds(100_000, size, epochs)) for epochs in (0, 1)]
    sending, both = parts
    print(f"{name} model: {sending:.1f} s to send, {both:.0f} s in all")
assert 10 < np.median(seconds(100_000)) < 11 and sending > 0.9 * both

# %% [markdown] tags=["slide", "title: How long a round takes"]
# With our small model, nearly all time is computing. With the large one, it is sending.
# **Predict:** how long does a round take, on average, with 2, 5, 10 and 100 clients, and the
# small model?

# %% tags=["slide-then"]
def round_seconds(clients: int, **changes: float) -> float:
    return seconds((5000, clients), **changes).max(axis=1).mean()


waits = {clients: round_seconds(clients) for clients in (2, 5, 10, 100)}
for clients, wait in waits.items():
    print(f"{clients:3} clients: {wait:.0f} s")
assert waits[2] < waits[5] < waits[10] < waits[100]
assert waits[100] > 5 * 11 and 2.5 < waits[100] / waits[5] < 3

# %% [markdown]
# The more clients, the surer a slow one is among them. Now two passes over the data, made in
# the four ways from above:

# %%
took = {}
for rounds, clients, epochs in [(10, 2, 1), (4, 5, 1), (2, 10, 1), (2, 5, 2)]:
    took[clients, epochs] = [
        rounds * round_seconds(clients, megabytes=size, epochs=epochs)
        for size in (SMALL, LARGE)
    ]
    small, large = took[clients, epochs]
    print(f"{rounds:2} rounds, {clients:2} clients, {epochs} local epochs:",
          f"small {small:3.0f} s, large {large:4.0f} s")
saved = np.array(took[5, 2]) / took[5, 1]
assert took[2, 1] > took[5, 1] > took[10, 1] and took[2, 1][0] > 190
assert saved[0] > 0.95 and 0.45 < saved[1] < 0.55

# %% [markdown]
# - **With one epoch, ten clients are done first**: they wait least often.
# - **Two local epochs** save next to nothing with the small model: they compute as much. With
#   the large one they save half: they send half.

# %% [markdown] tags=["slide"]
# "Few clients, many rounds" was best by megabytes. And by time? Here are the stored runs
# again, by simulated seconds:

# %% tags=["slide-then", "slide-output", "nbval-ignore-output"]
fractions["seconds"] = fractions["round"] * fractions.clients.map(waits)
plot_intervals(
    fractions, by="clients", x="seconds", xlabel="simulated seconds"
)

# %%
rounds = int(2 * waits[10] / waits[2])
two = by_seed(fractions[fractions.clients == 2], "clients", round=rounds)[2]
low, high = interval(two, by_seed(fractions, "clients")[10])
print(f"2 clients, {rounds} rounds, are ahead by {low:+.3f} to {high:+.3f}")
assert 0 < low < high < 0.04

# %% [markdown] tags=["slide-more"]
# When ten clients are done, two are ahead by one to three points. At equal megabytes it was
# eleven. With a `sigma` of 0.4 they are behind (appendix). So a setting is good *for a
# budget*, and on *your* devices: measure them. (All this at lr 0.01. Others were not tried.)

# %% [markdown] tags=["slide", "title: A deadline and over-selection"]
# **Do not wait for the slowest.** There are two ways:
#
# - **A deadline.** `strategy.start(..., timeout=...)` says for how many seconds a round waits:
#   3600 by default. Then it goes on with the replies that are there. If there are none, the
#   model stays as it was.
# - **Over-selection.** Ask 13 clients, and take the first 10 that answer (Bonawitz et al.,
#   2019, [arXiv:1902.01046](https://arxiv.org/abs/1902.01046)). `FedAvg` cannot. A loop of
#   your own can, with `push_messages` and `pull_messages` (lesson 10).
#
# Now a slow phone is slow in *every* round: 100 devices, each with its time. **Predict:** how
# long is a round, and whose replies count?

# %% tags=["slide-then", "slide-output"]
devices = np.quantile(seconds(100_000), np.arange(0.005, 1, 0.01))
WAYS = {
    "wait for all": (10, 10, np.inf),
    "deadline": (10, 10, 20),
    "over-selection": (13, 10, np.inf),
}
shares = {}
for way, (asked, wanted, deadline) in WAYS.items():
    asks = [draws.choice(100, asked, replace=False) for _ in range(3000)]
    asks = np.sort(asks, axis=1)  # number 0 is the fastest device
    counts = devices[asks] <= deadline
    counts[:, wanted:] = False
    lasts = devices[asks][:, wanted - 1].clip(max=deadline).mean()
    print(f"{way:14} {lasts:2.0f} s, {counts.sum(axis=1).mean():4.1f} replies")
    shares[way] = [counts[asks // 10 == tenth].mean() for tenth in range(10)]
    assert lasts < 22 or way == "wait for all"

# %%
print("counted, of all replies, from the fastest tenth of the devices on:")
for way, tenths in shares.items():
    print(f"{way:14}", *(f"{share:4.0%}" for share in tenths))
assert shares["deadline"][8:] == [0, 0] and min(shares["deadline"][:7]) == 1
assert shares["over-selection"][9] < 0.05
assert 0.2 < shares["over-selection"][8] < 0.3 < shares["over-selection"][7]

# %% [markdown]
# - **Both halve the time of a round**, and both leave out the slow, each time.
# - **A deadline** fixes the time, not how many count. The slowest fifth never do.
# - **Over-selection** fixes how many count, and costs 30 % more computing and megabytes. The
#   slowest tenth hardly ever counts, the next one in a quarter of cases: it depends on who
#   else was asked.

# %% [markdown] tags=["slide"]
# **Does it matter who is left out, or only that fewer train?** In an experiment, three of ten
# clients are slow, different ones for each seed. A deadline leaves them out, and so does a server
# that takes the first seven. The data are skewed: Dirichlet with alpha 0.1. **The control:**
# leave out three by chance in each round. After four rounds, each client tests the model on
# its own data. (The code is in the appendix.)
#
# **Predict:** what does the model lose on the data of the fast clients, and on those of the
# slow ones, if the slow are left out? And if three are left out by chance?

# %%
left_out = stored("08", "deadline")
lost = {}
for who in ("fast", "slow"):
    ends = by_seed(left_out, "late", metric=who)
    for late in ("by chance", "the slow"):
        lost[who, late] = ends["nobody"] - ends[late]
        low, high = interval(ends["nobody"], ends[late])
        print(f"{late} left out: {who} ones lose {low:+.2f} to {high:+.2f}")
means = {key: each.mean() for key, each in lost.items()}
assert 0.03 < means["fast", "the slow"] < 0.05
assert 0.03 < means["fast", "by chance"] < 0.05
assert means["slow", "by chance"] < 0.04 < 0.2 < means["slow", "the slow"]
same = lost["slow", "the slow"]
print("more than by chance:", held(same > lost["slow", "by chance"]))
assert (same > lost["slow", "by chance"]).sum() == 19

# %% [markdown]
# - **Left out by chance:** the fast ones lose about four points. On the slow ones, 0 is in
#   the interval.
# - **The slow left out:** they lose about 20 points, in 19 of 20 seeds more than by chance.
#   As many train. It is whose data are missing.
# - An average over all test images hides that.

# %% [markdown] tags=["slide"]
# ## Takeaways
#
# - **Compare at an equal budget**, and say which: rounds, passes, megabytes or seconds. At
#   equal passes, local epochs save megabytes. At lr 0.01, few clients in many rounds learn
#   most on IID data. Settings that are harmless apart can fail together.
# - **One run is one draw.** Run several seeds, subtract seed by seed, and give an interval by
#   t. If 0 is in it, the difference may be luck. It speaks of your partition and images.
# - **A search finds luck, too.** Let validation images choose, and test images report. Once
#   you have chosen by them, they cannot report.
# - **The server can follow a plan**, round by round, in `configure_train`. Compare it with
#   the best constant setting: here no plan was better.
# - **The slowest client sets the time of a round**, by computing or by sending. A deadline
#   and over-selection save it. The model is worse for those whom they always leave out.

# %% [markdown]
# ## Check yourself
#
# <details><summary>1. Setting A has 0.951, setting B has 0.948, one run each. Which do you
# take?</summary>
#
# You do not know which is better. In this lesson two runs of one setting lie about a point
# apart. Run more seeds of both, and look at the interval of the differences. If it has 0 in
# it, take the cheaper one.
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
# <details><summary>4. A deadline halves the time of a round, and the accuracy on all test
# images falls by one point. Is that a good bargain?</summary>
#
# Ask whose point it is. If it is always the same clients that are late, they may have lost
# far more than the others: in this lesson about 20 points, and the others four.
# </details>

# %% [markdown]
# **Next:** [09 · Non-IID data](09_non_iid_data.ipynb), where the clients are no longer alike.

# %%
from course_utils.exercises import progress

progress("08")

# %% [markdown]
# ## Appendix: for a second reading
#
# Nothing above needs what follows, and the lesson's minutes leave it out.
#
# ### Does the interval itself lie?
#
# Try it where nothing can be real: the same setting against itself, n seeds against n others.
# They are no pairs, but luck is all there is:

# %%
ends = by_seed(vary(), "lr")[0.01].tolist()
rng = torch.Generator().manual_seed(0)
alarms = {}
for n in (2, 5, 10):
    calls = []
    for _ in range(1000):
        shuffled = [ends[i] for i in torch.randperm(20, generator=rng)]
        low, high = interval(shuffled[:n], shuffled[n : 2 * n])
        two = (high - low) / t.ppf(0.975, n - 1)  # standard errors
        calls.append((low * high > 0, abs(low + high) / 2 > two))
    alarms[n] = pd.DataFrame(calls).mean()
    by_t, by_two = alarms[n]
    print(f"{n:2}: {by_t:.0%} called real by t, {by_two:.0%} by two errors")
assert max(by_t for by_t, _ in alarms.values()) < 0.1 and alarms[2][1] > 0.25

# %% [markdown]
# By t it is near 5 %, for few seeds too. "Two standard errors" is nearly right from ten seeds
# on. With two seeds it calls luck real in about three of ten cases.

# %% [markdown]
# ### Devices that differ less, or more
#
# Two clients against ten, at the time when ten are done with two rounds:

# %%
def two_less_ten(sigma: float) -> tuple[float, float]:
    took = {n: round_seconds(n, sigma=sigma) for n in (2, 10)}
    rounds = int(2 * took[10] / took[2])
    two = by_seed(fractions[fractions.clients == 2], "clients", round=rounds)
    ten = by_seed(fractions[fractions.clients == 10], "clients")
    return interval(two[2], ten[10])


found = {sigma: two_less_ten(sigma) for sigma in (0.4, 0.8, 1.2)}
for sigma, (low, high) in found.items():
    print(f"sigma {sigma}: 2 clients are ahead by {low:+.3f} to {high:+.3f}")
assert found[0.4][1] < 0 < found[0.8][0] < found[0.8][1] < found[1.2][0]

# %% [markdown]
# If devices are nearly alike, ten clients are ahead. If they differ much, ten clients wait
# long, and two are ahead.

# %% [markdown]
# ### The experiment with the slow clients
#
# This strategy does not ask those who would be late. The model is the same as if it asked
# them, and threw their replies away. Who is late, it asks a function, in each round:

# %%
class ImpatientFedAvg(FedAvg):
    def __init__(self, late: Callable[[], list[int]]) -> None:
        super().__init__(fraction_evaluate=0.0)
        self.late = late

    def configure_train(
        self,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
    ) -> Iterable[Message]:
        late = [list(grid.get_node_ids())[client] for client in self.late()]
        messages = super().configure_train(server_round, arrays, config, grid)
        return [m for m in messages if m.metadata.dst_node_id not in late]


# %% [markdown]
# `late` says who is left out: nobody, the slow, or three by chance.

# %%
import random

from course_utils import model
from course_utils.data import DEFAULT_DATASET, dataset_name
from course_utils.partitions import load_partition

SKEWED = {"scheme": "dirichlet", "alpha": 0.1}


# %%
def wait_or_not(seed: int, *, late: str) -> dict:
    rng = random.Random(seed)
    slow = rng.sample(range(NUM_CLIENTS), 3)
    choices = {
        "nobody": lambda: [],
        "the slow": lambda: slow,
        "by chance": lambda: rng.sample(range(NUM_CLIENTS), 3),
    }
    make = partial(ImpatientFedAvg, choices[late])
    run_config = {"num-server-rounds": 4, "lr": 0.03}
    net = load_net(run_with(make, seed, run_config | SKEWED).arrays)
    accuracy = []
    for client in range(NUM_CLIENTS):
        _, testloader = load_partition(client, NUM_CLIENTS, **SKEWED)
        accuracy.append(model.test(net, testloader)[1])
    own = sum(accuracy[client] for client in slow) / len(slow)
    return {"slow": own, "fast": (sum(accuracy) - 3 * own) / (NUM_CLIENTS - 3)}


# %% [markdown]
# How much the slow ones lose differs widely: the more of all data they hold, the more. (All
# seeds share one partition, in which clients hold 42 to 1,167 images. A slow client is not a
# larger one.)

# %%
sizes = [len(load_partition(c, NUM_CLIENTS, **SKEWED)[0].dataset)
         for c in range(NUM_CLIENTS)]
slow = {s: random.Random(s).sample(range(NUM_CLIENTS), 3) for s in same.index}
share = pd.Series({s: sum(sizes[c] for c in slow[s]) for s in slow})
if dataset_name() == DEFAULT_DATASET:
    print(f"correlation of the loss with their data: {share.corr(same):.1f}")
    assert share.corr(same) > 0.6
