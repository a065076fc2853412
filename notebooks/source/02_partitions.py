# %% [markdown] tags=["slide"]
# # 02 · Partitions
#
# **Each client has data of its own. How different are the clients, how is that measured,
# and what does it cost?**
#
# After this lesson you can
#
# - cut a dataset into partitions: at random, by label, by a Dirichlet draw, by size,
# - tell an IID partitioning from one that only looks like it,
# - put the skew of a partitioning into two numbers, and predict them,
# - give every client train and test examples that belong together,
# - show what skew costs a federation.
#
# **You need:** lesson 00. **Time:** 80 minutes, 25 of them for the exercises.

# %% [markdown] tags=["slide"]
# ## One client's local dataset
#
# - In a real federation nobody cuts anything: data lie where they arose.
# - To study a federation, we cut a central dataset into **partitions**. A partition is
#   one client's local dataset. All partitions together are a **partitioning**.
#
# | | centralized | federated |
# |---|---|---|
# | images to train on | 4,000 in one place | 10 partitions of 400 |
# | an image is seen by | whoever trains | the client that holds it |
#
# A dataset comes in two **splits**: one to train on and one to test on.

# %%
from course_utils.data import DEFAULT_DATASET, dataset_name, load_dataset

train_split, test_split = load_dataset()
NUM_CLASSES = train_split.features["label"].num_classes
print("train:", train_split)
print("test:", test_split)
if dataset_name() == DEFAULT_DATASET:
    assert (len(train_split), len(test_split)) == (4_000, 1_000)

# %% [markdown]
# A **partitioner** cuts a split. Flower Datasets, the package `flwr_datasets`, has one for each
# way to cut. You use all of them alike: make one, assign a split to it, load partitions
# by number.

# %%
from flwr_datasets.partitioner import IidPartitioner

NUM_CLIENTS = 10
iid = IidPartitioner(num_partitions=NUM_CLIENTS)
iid.dataset = train_split
print("client 0:", iid.load_partition(0))

# %% [markdown]
# This lesson loads all partitions by one function:

# %%
from datasets import Dataset
from flwr_datasets.partitioner import Partitioner


def cut(split: Dataset, partitioner: Partitioner) -> list[Dataset]:
    partitioner.dataset = split
    clients = range(partitioner.num_partitions)
    return [partitioner.load_partition(i) for i in clients]


random_parts = cut(train_split, IidPartitioner(NUM_CLIENTS))
print("examples per client:", [len(part) for part in random_parts])
assert sum(len(part) for part in random_parts) == len(train_split)

# %% [markdown] tags=["slide"]
# ## IID: everyone draws from the same bag
#
# **IID** means *independent and identically distributed*:
#
# - *identically distributed*: every client's examples come from the same bag. If a client
#   has more 7s than another, it is by chance.
# - *independent*: one draw says nothing about the next.
#
# Partitions that are cut at random come close. (Not quite: an image that one client got
# is no longer there for the others.)

# %%
from course_utils.plots import plot_samples

plot_samples(random_parts)

# %% [markdown] tags=["slide"]
# ## Non-IID: everyone has a bag of their own
#
# **Non-IID** is everything else. A children's hospital and a clinic for the elderly see
# different patients. Here client 0 gets all images of labels 0–2, client 1 those of 3–5,
# client 2 those of 6–8, and client 3 those of 9. `GroupedNaturalIdPartitioner` groups the
# values of a column, which it calls *natural ids*:

# %% tags=["slide-more"]
from flwr_datasets.partitioner import GroupedNaturalIdPartitioner

grouped = GroupedNaturalIdPartitioner(
    partition_by="label",
    group_size=3,
    sort_unique_ids=True,  # else: groups in the order in which labels occur
)
grouped_parts = cut(train_split, grouped)
print(grouped.partition_id_to_natural_ids)

# %% tags=["slide", "title: Four clients with a bag each", "slide-output"]
plot_samples(grouped_parts)

# %% [markdown] tags=["slide-more"]
# A model that is trained on client 3 alone has seen nothing but 9s. Look at the order,
# too: this partitioner leaves a client's images sorted by label. A train loader must
# shuffle them. Those of the course do.

# %% [markdown]
# ## The skew in two numbers
#
# The **skew** is how unlike the clients are. To measure it, count each client's examples
# of each label. For one client, NumPy's `bincount` does it:

# %%
import numpy as np

client_0 = np.bincount(random_parts[0]["label"], minlength=NUM_CLASSES)
print("client 0, examples of each label:", client_0)

# %% [markdown]
# `label_counts` of this course does it for all clients. (Flower Datasets has a function
# for it, too: `compute_counts`.)

# %%
from flwr_datasets.metrics import compute_counts

from course_utils.partitions import label_counts

random_counts = label_counts(random_parts)
grouped_counts = label_counts(grouped_parts)
print(grouped_counts)  # a row for each client, a column for each label
assert (random_counts[0] == client_0).all()
assert (compute_counts(grouped, "label").to_numpy() == grouped_counts).all()

# %% [markdown]
# ### Exercise 2.1: labels that only one client holds
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 1 of 3, recall | 3 | when that client is away, nobody teaches the model these labels |
#
# Complete `held_by_one`: given a table of counts like the one above, return the labels
# that exactly one client holds, in a list, the smallest first. One example is enough to
# hold a label. A label that nobody holds does not belong in the list.
#
# In `grouped_counts`, each label has one holder, so all labels are to be returned.
#
# <details><summary>Hint 1</summary>
#
# `counts > 0` says of each client and each label whether the client holds it. Add up the
# `True`s of each column.
# </details>
# <details><summary>Hint 2</summary>
#
# `sum(axis=0)` adds up over the rows, which are clients. `np.flatnonzero(a == 1)` says at
# which positions `a` is 1.
# </details>

# %%
from course_utils.exercises import check


def held_by_one(counts: np.ndarray) -> list[int]:
    """Return the labels that exactly one client holds."""
    ### BEGIN SOLUTION
    holders = (counts > 0).sum(axis=0)
    return np.flatnonzero(holders == 1).tolist()
    ### END SOLUTION


# %%
check("2.1", held_by_one)

# %% [markdown] tags=["solution"]
# **Why this.** A column of the table says who holds a label. If it has one entry above 0,
# everything that the federation knows of this label comes from one client. **What people
# get wrong:** they add up examples instead of clients, or along the rows: then they find
# the clients that hold a single label. Or they ask for *fewer than two* holders, and so
# also get the labels that nobody holds.

# %% [markdown] tags=["slide", "title: Three clients and two labels"]
# Now a federation small enough for your head: three clients with eight examples each,
# two labels.

# %% tags=["slide-more"]
tiny = np.array([[4, 4], [6, 2], [8, 0]])
print("the whole:", tiny.sum(axis=0))

# %% [markdown] tags=["slide"]
# **The first number: label distance.** How far are a client's label shares from those
# of the whole? Add up the differences without their signs, then halve the sum. (In
# statistics this is the *total variation distance*.)
#
# **Predict:** which client is at distance 0: the one with 4 and 4, or the one with 6 and
# 2?

# %% tags=["slide-then"]
shares = tiny / tiny.sum(axis=1, keepdims=True)
whole = tiny.sum(axis=0) / tiny.sum()
print("the clients' shares:", shares.tolist())
print("the whole's shares: ", whole.tolist())
distances = np.abs(shares - whole).sum(axis=1) / 2
print("distances:", distances)
assert distances.tolist() == [0.25, 0.0, 0.25]

# %% [markdown] tags=["slide", "title: What the distance says"]
# It is the one with 6 and 2. A distance of 0 means *like the whole*, not *evenly spread*.
#
# The distance says what share of the client's examples would have to change their label
# to match the whole. For client 0 it is 0.25 of 8 examples, which is two. (Each change
# lowers one share and raises another. That is why the sum is halved.)

# %%
changed = tiny[0] + [2, -2]
print("client 0 after two changes:", changed / changed.sum())
assert (changed / changed.sum() == whole).all()

# %% [markdown] tags=["slide"]
# **The second number: effective number of labels.** A client with 4 and 4 holds two
# labels. A client with 7 and 1 holds two as well, but one of them hardly counts. So this
# number says how many *equally frequent* labels would be as varied as the client's.
#
# −log(share), the natural logarithm, says how surprising a label is. The **entropy** is the
# mean surprise: the sum of −share · log(share). The effective number is exp(entropy).
#
# **Predict** it for 4 and 4, and for 8 and 0. Between which numbers is it for 6 and 2?

# %% tags=["slide-then"]
import math

effective = []
for client in shares.tolist():
    entropy = sum(-share * math.log(share) for share in client if share > 0)
    effective.append(math.exp(entropy))
print([round(number, 2) for number in effective])
assert math.isclose(effective[0], 2) and effective[2] == 1

# %% [markdown]
# Two equally frequent labels count as 2, a single label as 1, and 6 and 2 as something
# between. This number looks at the client alone. The distance compares the client with
# the whole. `course_utils` has both:

# %%
from course_utils.partitions import effective_num_classes, label_distance

print(label_distance(tiny), effective_num_classes(tiny).round(2))
assert np.allclose(label_distance(tiny), distances)
assert np.allclose(effective_num_classes(tiny), effective)

# %% [markdown]
# ## Read a partitioning
#
# Each bar is a client, and each piece of it is a label. The line below the figure gives the
# mean label distance of all clients. (Click on it for all that the figure shows, in
# words.)

# %% tags=["slide", "slide-output"]
from course_utils.plots import plot_label_counts

plot_label_counts(random_counts, title="at random")

# %% [markdown]
# The distance is small, but not 0: by chance, a client has a few 7s more or fewer.

# %% [markdown] tags=["slide"]
# Now the groups of labels. A client holds three of ten equally frequent labels.
#
# **Predict:** what are its distance and its effective number of labels? And those of
# client 3, which holds one label?

# %% tags=["slide-then", "slide-output"]
plot_label_counts(grouped_counts, title="labels 0–2, 3–5, 6–8, 9")
print("each client's distance:", label_distance(grouped_counts).round(2))
print("effective labels:", effective_num_classes(grouped_counts).round(2))

# %% jupyter={"source_hidden": true}
# What is said below, checked.
held = grouped_counts.sum(axis=1) / len(train_split)
assert np.allclose(label_distance(grouped_counts), 1 - held)
furthest = label_distance(random_counts).max()
assert furthest < label_distance(grouped_counts).min()

# %% [markdown]
# - In the whole, three labels make up 0.3 of all examples. In a client with these three
#   labels they make up everything. So 0.7 of its examples would have to change.
# - For the client with one label it is 0.9.
# - No distance reaches 1, because the client is part of the whole.

# %% [markdown] tags=["slide"]
# ### Exercise 2.2: how far from the others?
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 2 of 3, apply | 8 | a large client makes the whole look like itself |
#
# The client is part of the whole, so the label distance compares it partly with itself.
# Complete `distance_from_others`: return each client's label distance from *all other
# clients together*. `counts` has a row for each client and a column for each label. It
# has at least two rows.
#
# In the tiny federation above, client 2 holds 8 and 0. The others together hold 10 and 6.
# Its label shares are 1 and 0, theirs are 0.625 and 0.375, so its distance is 0.375.
#
# <details><summary>Hint 1</summary>
#
# Count what the others hold together: all there is of each label, less the client's own.
# </details>
# <details><summary>Hint 2</summary>
#
# Turn the client's counts into shares, and the others' counts, too. Then it is the label
# distance that you know.
# </details>
# <details><summary>Hint 3</summary>
#
# `keepdims=True` keeps the sums of the rows in a column, by which all rows can be
# divided at once. A loop over the clients does as well.
# </details>


# %%
def distance_from_others(counts: np.ndarray) -> np.ndarray:
    """Return each client's label distance from all other clients together."""
    ### BEGIN SOLUTION
    others = counts.sum(axis=0) - counts
    shares = counts / counts.sum(axis=1, keepdims=True)
    others_shares = others / others.sum(axis=1, keepdims=True)
    return np.abs(shares - others_shares).sum(axis=1) / 2
    ### END SOLUTION


# %%
check("2.2", distance_from_others)

# %% [markdown] tags=["solution"]
# **Why this.** A client that alone has its labels is at distance 1 from the others. From
# the whole it is not, since the whole has those labels from this very client. **What
# people get wrong:** they average the others' *shares*, so that a client with 10 examples
# shapes the reference as much as one with 10,000. Add up counts first, then make shares.

# %% [markdown] tags=["slide"]
# ## Sorted rows
#
# Many datasets come sorted by label. `load_dataset` of this course has shuffled its rows.
#
# **Predict:** we sort the rows, then cut with `IidPartitioner`. What will client 0 hold?

# %% tags=["slide-then", "slide-output"]
order = np.argsort(train_split["label"], kind="stable")
sorted_split = train_split.select(order)
sorted_parts = cut(sorted_split, IidPartitioner(NUM_CLIENTS))
sorted_counts = label_counts(sorted_parts)
plot_label_counts(sorted_counts, title="IidPartitioner on sorted data")

# %% [markdown] tags=["slide", "title: IID by name only"]
# Exactly one label. This is the most skewed partitioning of this lesson. It comes from a
# partitioner called IID, without an error or a warning. What exactly does it do? Compare
# client 1 with a plain slice:

# %% tags=["slide-more"]
size = len(sorted_parts[0])
assert sorted_split["label"][size : 2 * size] == sorted_parts[1]["label"][:]
print("client 1 holds rows", size, "to", 2 * size - 1)

# %% [markdown]
# It cuts slices, one after another, and draws nothing. The cure is one call:

# %%
shuffled = sorted_split.shuffle(seed=42)
shuffled_counts = label_counts(cut(shuffled, IidPartitioner(NUM_CLIENTS)))
distance = label_distance(shuffled_counts)
print("distance, shuffled first:", distance.round(2))
assert distance.max() < label_distance(sorted_counts).min() / 2

# %% [markdown]
# Flower's `FederatedDataset` needs the internet. It downloads a dataset, shuffles every split
# (unless told not to) and assigns it to your partitioner:
#
# ```python
# from flwr_datasets import FederatedDataset
#
# federated = FederatedDataset(
#     dataset="ylecun/mnist", partitioners={"train": IidPartitioner(10)}
# )
# client_0 = federated.load_partition(0, split="train")
# ```

# %% [markdown] tags=["slide"]
# ## Two labels each
#
# `PathologicalPartitioner` gives every client the same number of labels, here two. With
# `"first-deterministic"`, client *i* gets label *i* first, so every label has a client.
# Its second label is drawn at random. If several clients have a label, they get equal
# pieces of it.
#
# **Predict:** do all clients get the same number of examples? What is their distance?

# %% tags=["slide-then", "slide-output"]
from flwr_datasets.partitioner import PathologicalPartitioner

pathological = PathologicalPartitioner(
    num_partitions=NUM_CLIENTS,
    partition_by="label",
    num_classes_per_partition=2,
    class_assignment_mode="first-deterministic",
    seed=42,
)
two_labels_counts = label_counts(cut(train_split, pathological))
plot_label_counts(two_labels_counts, title="two labels each")

# %% jupyter={"source_hidden": true}
# What is said below, checked.
assert ((two_labels_counts > 0).sum(axis=1) == 2).all()
if dataset_name() == DEFAULT_DATASET:  # ten equally frequent labels
    assert np.allclose(label_distance(two_labels_counts), 0.8)

# %% [markdown]
# - The sizes differ: if many clients drew a label, its pieces are small.
# - The distance is 0.8 for every client, because eight labels of ten are missing. It does
#   not say *which* labels a client has.

# %% [markdown] tags=["slide"]
# ## Dirichlet: skew by degrees
#
# Real clients are neither all alike nor all apart. To get something between, draw the
# shares of a label at random: client 0 gets 3% of all 7s, client 1 gets 20%, and so on.
# The **Dirichlet distribution** draws such shares, which add up to 1. Its parameter is
# called **alpha**.
#
# **Predict:** below are three draws for ten clients. Does a small alpha make the shares
# even or uneven?

# %% tags=["slide-then"]
rng = np.random.default_rng(42)
for alpha in (100, 1, 0.1):
    draw = rng.dirichlet([alpha] * NUM_CLIENTS)
    print(f"{alpha:5}:", " ".join(f"{share:.2f}" for share in draw))

# %% [markdown]
# - **Large alpha:** everyone gets about a tenth.
# - **alpha = 1:** every way to divide the whole is equally likely. Few of them are even.
# - **Small alpha:** a few clients get nearly everything, and the others get nothing.
#
# A Dirichlet partitioning makes one such draw *for each label*, and cuts that label's
# examples by it. By hand:

# %%
rng = np.random.default_rng(42)
columns = []
for total in np.bincount(train_split["label"]):  # for each label
    columns.append(total * rng.dirichlet([0.5] * NUM_CLIENTS))
by_hand = np.stack(columns, axis=1)  # rows are clients
print(by_hand.round())

# %% [markdown]
# Flower's partitioner does the same, in whole examples. It also repeats the whole draw
# until every client has at least `min_partition_size` examples, by default 10. Here 0
# switches that off.

# %%
from flwr_datasets.partitioner import DirichletPartitioner

dirichlet = DirichletPartitioner(
    num_partitions=NUM_CLIENTS,
    partition_by="label",
    alpha=0.5,
    min_partition_size=0,
    seed=42,
)
by_flower = label_counts(cut(train_split, dirichlet))
assert np.abs(by_flower - by_hand).max() < 1
print("the same counts, but for what is left of an example")

# %% [markdown] tags=["slide", "title: Three values of alpha"]
# **Predict** for alpha = 100, 1 and 0.1: how do label distance and sizes change?

# %% tags=["slide-then", "slide-output"]
from course_utils.plots import plot_label_panels

counts_of_alpha = {}
for alpha in (100, 1, 0.1):
    dirichlet = DirichletPartitioner(NUM_CLIENTS, "label", alpha, seed=42)
    counts_of_alpha[alpha] = label_counts(cut(train_split, dirichlet))
plot_label_panels({f"alpha = {a}": c for a, c in counts_of_alpha.items()})
for alpha, counts in counts_of_alpha.items():
    mean = effective_num_classes(counts).mean()
    print(f"alpha {alpha}: {mean:.1f} effective labels in the mean")

# %% jupyter={"source_hidden": true}
# What is said below, checked.
labels = [effective_num_classes(c).mean() for c in counts_of_alpha.values()]
assert labels == sorted(labels, reverse=True)
means = [label_distance(counts).mean() for counts in counts_of_alpha.values()]
assert means == sorted(means)
sizes = [counts.sum(axis=1) for counts in counts_of_alpha.values()]
spans = [each.max() - each.min() for each in sizes]
assert spans == sorted(spans)
assert min(each.min() for each in sizes) >= 10  # the default of Flower

# %% [markdown] tags=["slide-more"]
# - A smaller alpha gives the clients fewer effective labels, and makes the sizes more
#   unequal. Dirichlet skews both.
# - Another seed gives another partitioning with the same alpha. So compare methods on the
#   same seed, and on several seeds.

# %% [markdown]
# ## Skew in size
#
# Clients may differ in size alone. With `LinearPartitioner` sizes grow by the same number
# from client to client. With `SquarePartitioner` they grow like squares.
#
# **Predict:** in each of the two, what share of all examples has the last of ten clients?

# %%
from flwr_datasets.partitioner import LinearPartitioner, SquarePartitioner

linear_counts = label_counts(cut(train_split, LinearPartitioner(NUM_CLIENTS)))
square_counts = label_counts(cut(train_split, SquarePartitioner(NUM_CLIENTS)))
plot_label_panels({"linear": linear_counts, "square": square_counts})

# %%
for name, counts in {"linear": linear_counts, "square": square_counts}.items():
    sizes = counts.sum(axis=1)
    share = sizes[-1] / sizes.sum()
    print(f"{name}: {sizes[-1] / sizes[0]:.0f} times, {share:.0%} of all")

# %% [markdown]
# - The size of client *i* is proportional to *i* + 1, or to its square.
# - Size matters for FedAvg, because it weights by number of examples. Under
#   `SquarePartitioner` one client of ten makes up a quarter of the average.
# - The rows are shuffled, so the labels are IID. But the smallest client of
#   `SquarePartitioner` is far from the whole: with few examples, chance has more effect.

# %%
distance = label_distance(square_counts)
print("smallest and largest client:", distance[[0, -1]].round(2))
assert distance[0] > distance[-1]

# %% [markdown]
# ### Exercise 2.3: sizes as you like, labels like the whole
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 3 of 3, build | 14 | for skew in size alone, labels must not be left to chance |
#
# Complete `share_out`. It gets the labels of all rows, and each client's share. (The
# shares sum to 1, but for rounding.) Return one list of row numbers for each client:
#
# - every row goes to exactly one client,
# - of *each label*, a client gets its share of the rows, off by one row at most,
# - the rows are drawn at random, by `seed`: the same seed gives the same lists again,
#   another seed gives others.
#
# For example, with the shares 0.5, 0.25 and 0.25, four rows of label 7 go out as two,
# one and one.
#
# <details><summary>Hint 1</summary>
#
# One label at a time, as a Dirichlet partitioning does: find its rows, shuffle them, cut
# them, hand out the pieces. `np.random.default_rng(seed)` or `random.Random(seed)` draws.
# </details>
# <details><summary>Hint 2</summary>
#
# Do not make whole numbers of how many rows each client gets: what is cut off adds up.
# Make whole numbers of *where to cut*: the shares added up, times the number of rows.
# </details>
# <details><summary>Hint 3</summary>
#
# `np.split(rows, ends)` cuts at the given places. What follows the last of them is a
# piece, too. `own.extend(piece)` adds to a client's list.
# </details>


# %%
def share_out(
    labels: list[int], shares: list[float], seed: int
) -> list[list[int]]:
    """Return each client's row numbers: its share of every label."""
    ### BEGIN SOLUTION
    rng = np.random.default_rng(seed)
    rows_of = [[] for _ in shares]
    for label in sorted(set(labels)):
        rows = rng.permutation(np.flatnonzero(np.array(labels) == label))
        ends = np.round(np.cumsum(shares) * len(rows)).astype(int)
        for client, piece in enumerate(np.split(rows, ends[:-1])):
            rows_of[client].extend(piece.tolist())
    return rows_of
    ### END SOLUTION


# %%
check("2.3", share_out)

# %% [markdown] tags=["solution"]
# **Why this.** Cutting label by label is called *stratified*: each client's labels are
# like the whole not only on average, but as nearly as whole rows allow. **What people get
# wrong:** they cut every client's number of rows down to a whole one, so that rows get
# lost, or pile up at the last client. Or they cut without shuffling first: then the seed
# does nothing, and whatever order the rows had is handed on to the clients.

# %% [markdown]
# ## The short form
#
# The lessons ahead do all this in one line. `make_partitioner` makes partitioners by name.
# `partition` is `cut` with checks:

# %%
from course_utils.partitions import SCHEMES, make_partitioner, partition

print(", ".join(SCHEMES))
dirichlet = make_partitioner("dirichlet", NUM_CLIENTS, alpha=0.1)
short = partition(train_split, dirichlet)
assert (label_counts(short) == counts_of_alpha[0.1]).all()
print("the same partitioning as by hand")

# %% [markdown] tags=["slide"]
# Here is every partitioning of this lesson. The slices of sorted rows are furthest from
# the whole, as we saw. **Predict:** which partitioning is nearest to it?

# %% tags=["slide-then", "slide-output"]
from course_utils.plots import plot_skew

partitionings = {
    "at random": random_counts,
    "linear sizes": linear_counts,
    "square sizes": square_counts,
    **{f"Dirichlet({a})": c for a, c in counts_of_alpha.items()},
    "labels by three": grouped_counts,
    "two labels each": two_labels_counts,
    "sorted, sliced": sorted_counts,
}
plot_skew(partitionings)
skew = {
    name: label_distance(counts).mean()
    for name, counts in partitionings.items()
}

# %% jupyter={"source_hidden": true}
# What is said below and above, checked.
assert skew["at random"] < skew["Dirichlet(1)"] < skew["Dirichlet(0.1)"]
assert max(skew, key=skew.get) == "sorted, sliced"
if dataset_name() == DEFAULT_DATASET:
    assert min(skew, key=skew.get) == "Dirichlet(100)"
    assert round(skew["Dirichlet(100)"], 2) == 0.03
    assert round(skew["at random"], 2) == 0.06

# %% [markdown] tags=["slide-more"]
# Dirichlet(100) is nearest, with the default dataset: 0.03, against 0.06 for a cut at
# random. At alpha = 100, each label is cut almost evenly *on purpose*. At random, it is
# left to chance.

# %% [markdown]
# ## One partitioner, one split
#
# Clients also need test examples. May the same partitioner cut the test split, too?

# %%
try:
    iid.dataset = test_split
except ValueError as error:
    print(f"{type(error).__name__}: {str(error).split('.')[0]}.")

# %% [markdown]
# Flower refuses. What if we assign a split only if none is assigned yet?

# %% tags=["slide"]
shared = IidPartitioner(NUM_CLIENTS)


def load(split: Dataset, partition_id: int) -> Dataset:
    if not shared.is_dataset_assigned():
        shared.dataset = split
    return shared.load_partition(partition_id)


# %% [markdown] tags=["slide-more"]
# Client 0 has 400 train examples, and the test split is a quarter of the train split
# (with the default dataset). **Predict:** how many test examples does client 0 get?

# %% tags=["slide-then"]
own_train = load(train_split, 0)
own_test = load(test_split, 0)
print("train:", len(own_train), "test:", len(own_test))
assert own_test["label"][:] == own_train["label"][:]

# %% [markdown] tags=["slide-more"]
# It gets as many as it trains on, because they *are* those that it trains on: the second
# call ignored `test_split`, without an error. So never use one partitioner for two splits.
# `partition` and `FederatedDataset` refuse to.

# %% [markdown]
# ## Train and test for each client
#
# Two partitioners are no way out: the second may cut the test split quite unlike the train
# split. But a client that holds 2s and 3s should test on 2s and 3s.
#
# So `load_partition`, which you know from lesson 00, cuts only the train split with a
# partitioner. The test split follows: a client with a third of the 7s to train on gets a
# third of the 7s to test on.

# %%
from course_utils.partitions import load_partition

loaders = [
    load_partition(i, NUM_CLIENTS, scheme="dirichlet", alpha=0.1)
    for i in range(NUM_CLIENTS)
]
trainloader, testloader = loaders[0]
print(len(trainloader.dataset), "train,", len(testloader.dataset), "test")

# %% [markdown]
# A loader has two tensors, images and labels. We count the labels. **Predict:** how will
# the test panel differ from the train panel?


# %%
def counts_of(loader) -> np.ndarray:
    _, labels = loader.dataset.tensors
    return np.bincount(labels, minlength=NUM_CLASSES)


train_counts = np.stack([counts_of(trainloader) for trainloader, _ in loaders])
test_counts = np.stack([counts_of(testloader) for _, testloader in loaders])
assert (train_counts == counts_of_alpha[0.1]).all()
panels = {"train": train_counts, "test": test_counts}
plot_label_panels(panels, same_scale=False)

# %% [markdown]
# They are alike (mind the two scales), but not exactly. If a client has only a few
# examples of a label, its test examples may have none. Compare each client's share of
# each label, in examples:

# %%
share_of_label = train_counts / train_counts.sum(axis=0)
wanted = share_of_label * test_counts.sum(axis=0)
off = np.abs(test_counts - wanted).max()
assert off <= 1 + 1e-9  # but for rounding
assert test_counts.sum() == len(test_split)
print("no count is off by more than one example, and none is lost")

# %% [markdown]
# - A share need not be a whole number of images. That is why a count may be off by one.
# - A client's own test examples say how well a model serves *that client*. The whole test
#   split says how well it serves everyone. Lesson 05 looks at both.
# - Small clients have few test examples. With the default dataset, one client has 11: a
#   single right answer more adds 9 points to its accuracy.

# %%
fewest = test_counts.sum(axis=1).min()
print("fewest test examples of a client:", fewest)
if dataset_name() == DEFAULT_DATASET:
    assert fewest == 11

# %% [markdown] tags=["slide"]
# ## What the skew costs
#
# Run one federation on three partitionings. The two apps are those of lesson 00, and so
# are the model and the clients' one pass over their data in each round. The run config
# names the partitioning.
#
# **Predict** three curves: at random, Dirichlet(0.1), two labels each.

# %% tags=["slide-more"]
from course_utils import with_progress
from course_utils.apps import client_app, server_app
from course_utils.runtime import run_in_process


def accuracies(partitioning: dict) -> list[float]:
    run = run_in_process(
        server_app,
        client_app,
        num_supernodes=NUM_CLIENTS,
        run_config={"num-server-rounds": 8, **partitioning},
        seed=0,
        progress=False,
    )
    by_round = run.result.evaluate_metrics_serverapp.values()
    return [metrics["accuracy"] for metrics in by_round]


# %% tags=["slide", "title: Accuracy by round", "slide-output", "nbval-ignore-output"]
from course_utils.plots import plot_curves

schemes = {
    "at random": {"scheme": "iid"},
    "Dirichlet(0.1)": {"scheme": "dirichlet", "alpha": 0.1},
    "two labels each": {"scheme": "pathological"},
}
curves = {
    name: accuracies(schemes[name])
    for name in with_progress(list(schemes), doing="runs")
}
plot_curves(curves)
varied = {}
for name in curves:
    sizes = partitionings[name].sum(axis=1)
    labels = effective_num_classes(partitionings[name])
    varied[name] = np.average(labels, weights=sizes)
    print(f"{name:15} distance {skew[name]:.2f}, labels {varied[name]:.1f}")

# %% jupyter={"source_hidden": true}
# What is said below, checked.
late = {name: sum(curve[-3:]) / 3 for name, curve in curves.items()}
assert late["at random"] > late["Dirichlet(0.1)"] + 0.01
assert late["Dirichlet(0.1)"] > late["two labels each"] + 0.05
assert varied["Dirichlet(0.1)"] > varied["two labels each"] + 0.5

# %% [markdown] tags=["slide-more"]
# - Only the partitioning differs: the examples, the initial model and the number of
#   clients are the same. (It is one seed. [Lesson 08](08_run_config.ipynb) tells a
#   difference from luck.)
# - Skew costs rounds, and rounds cost bytes. Look where each curve reaches 0.8, if it does.

# %% [markdown]
# The label distances of the last two are close, but their curves are far apart. A likely
# reason is the effective labels (the last number, weighted by examples as in FedAvg): the
# clients of Dirichlet(0.1) hold more. So put a number on the skew, and then run the
# federation, too.

# %% [markdown] tags=["slide"]
# ## Takeaways
#
# - **A partition** is one client's local dataset. A partitioner cuts a split: in slices
#   (`IidPartitioner`), by label (`GroupedNaturalIdPartitioner`,
#   `PathologicalPartitioner`), by a draw for each label (`DirichletPartitioner`: a small
#   alpha means much skew), by size (`LinearPartitioner`, `SquarePartitioner`).
# - **IID** is a property of the data, not of a partitioner's name. Slices of sorted data
#   are not IID: shuffle first.
# - **Label distance** is the share of a client's examples that would have to change
#   their label to match the whole; the **effective number of labels** is exp(entropy).
# - **Train and test** belong together: never one partitioner for two splits, and test
#   examples shared out as the train examples are.
# - **Skew costs** rounds: the same federation learns more slowly on clients that are less
#   alike.

# %% [markdown]
# ## Check yourself
#
# <details><summary>1. Every client of a federation holds only images of label 7. What
# is their label distance, and are they non-IID?</summary>
#
# It is 0, and they may well be IID: each is like the whole. But the effective number of
# labels is 1. One number does not replace the other.
# </details>
#
# <details><summary>2. A client of an IID partitioning has a label distance of 0.4. Is
# that a mistake?</summary>
#
# Not if the client is small: ten examples match ten label shares only by luck. Draw as
# many examples at random, and compare with their distance, before you speak of skew.
# </details>
#
# <details><summary>3. You add five clients to a Dirichlet partitioning, with the same
# alpha and the same seed. Do the first ten keep their examples?</summary>
#
# No. Every draw is now one of fifteen shares, so all partitions change. They are fixed
# by the dataset and its order, the partitioner, the number of clients *and* the seed.
# </details>
#
# <details><summary>4. Two clients with two labels each are both at distance 0.8. Do
# they have the same labels?</summary>
#
# Not necessarily: the distance compares each with the whole, not with each other.
# </details>
#
# <details><summary>5. A colleague's federation reaches the same accuracy on train and
# test examples to the last digit. Where do you look first?</summary>
#
# Look at how the test examples were partitioned. If one partitioner was used for both
# splits, it handed out train examples as test examples.
# </details>

# %% [markdown]
# **Next:** [03 · The ClientApp](03_client_app.ipynb), where each client gets its
# partition and trains on it when told to.

# %%
from course_utils.exercises import progress

progress("02")
