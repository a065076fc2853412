# %% [markdown] tags=["slide"]
# # 02 · Partitions
#
# **Ten clients share a dataset. How different are they, and how is that measured?**
#
# After this lesson you can
#
# - cut a dataset into partitions: at random, by label, by a Dirichlet draw, by size,
# - tell an IID partitioning from one that only looks like it,
# - put the skew of a partitioning into two numbers, and predict them,
# - give every client train and test examples that belong together,
# - read the errors of requests that can't be met.
#
# **You need:** lesson 00. **Time:** 55 minutes, 25 of them for the exercises.

# %% [markdown] tags=["slide"]
# ## One client's local dataset
#
# - In a real federation nobody cuts anything: data lie where they arose.
# - To study a federation, one cuts a central dataset into **partitions**. A partition
#   is one client's local dataset; all partitions together are a **partitioning**.
#
# | | centralized | federated |
# |---|---|---|
# | MNIST's images to train on | 60,000 in one place | 10 partitions of 6,000 |
# | the course's | 4,000 in one place | 10 partitions of 400 |
# | an image is seen by | whoever trains | the client that holds it |
#
# A dataset comes in two parts, one to train on and one to test on. Each is called a
# **split**.

# %%
from course_utils.data import DEFAULT_DATASET, dataset_name, load_dataset

train_split, test_split = load_dataset()
NUM_CLASSES = train_split.features["label"].num_classes
print("train:", train_split)
print("test:", test_split)
if dataset_name() == DEFAULT_DATASET:
    assert (len(train_split), len(test_split)) == (4_000, 1_000)

# %% [markdown]
# A **partitioner** does the cutting. Flower Datasets, the package `flwr_datasets`, has
# one for each way to cut. All are used alike: make it, assign a split, load partitions
# by number.

# %%
from flwr_datasets.partitioner import IidPartitioner

NUM_CLIENTS = 10
iid = IidPartitioner(num_partitions=NUM_CLIENTS)
iid.dataset = train_split
print("client 0:", iid.load_partition(0))

# %% [markdown]
# The same for all clients, as a function that this lesson uses throughout:

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

# %% [markdown]
# This partitioner looks at nothing but the number of rows. So MNIST's full size can be
# tried on 60,000 rows without an image:

# %%
rows = Dataset.from_dict({"row": list(range(60_000))})
sizes = [len(part) for part in cut(rows, IidPartitioner(NUM_CLIENTS))]
print(sizes)
assert sizes == [6_000] * NUM_CLIENTS

# %% [markdown] tags=["slide"]
# ## IID: everyone draws from the same bag
#
# **IID** means *independent and identically distributed*:
#
# - *identically distributed*: every client's examples come from the same bag, so no
#   client has more 7s than another but by chance,
# - *independent*: what one draw gives says nothing about the next.
#
# Partitions cut at random come close. (Not quite: what one client got, the others can't
# get.)

# %% tags=["slide", "slide-output"]
from course_utils.plots import plot_samples

plot_samples(random_parts)

# %% [markdown] tags=["slide-more"]
# Every row is a mix, and no two are alike.

# %% [markdown] tags=["slide"]
# ## Non-IID: everyone has a bag of their own
#
# **Non-IID** is everything else. A children's hospital and a clinic for the elderly see
# different patients. Here client 0 gets all images of labels 0–2, client 1 of 3–5,
# client 2 of 6–8, and client 3 of 9. `GroupedNaturalIdPartitioner` makes such groups of
# any column's values (which it calls *natural ids*):

# %% tags=["slide-more"]
from flwr_datasets.partitioner import GroupedNaturalIdPartitioner

grouped = GroupedNaturalIdPartitioner(
    partition_by="label",
    group_size=3,
    sort_unique_ids=True,  # else: groups in the order in which labels occur
)
grouped_parts = cut(train_split, grouped)
print(grouped.partition_id_to_natural_ids)

# %% tags=["slide", "slide-output"]
plot_samples(grouped_parts)

# %% [markdown] tags=["slide-more"]
# Whoever trains on client 3 alone has never seen anything but 9s. Note the order, too:
# this partitioner leaves a client's images sorted by label. A train loader must shuffle
# them, as those of the course do.

# %% [markdown]
# ## The skew in two numbers
#
# How unlike the clients are is called the **skew**. To put it into numbers, count. By
# hand for one client, then for all, then with Flower's own function:

# %%
import numpy as np

by_hand = np.bincount(random_parts[0]["label"], minlength=NUM_CLASSES)
print("client 0, examples of each label:", by_hand)

# %%
from flwr_datasets.metrics import compute_counts

from course_utils.partitions import label_counts

random_counts = label_counts(random_parts)
grouped_counts = label_counts(grouped_parts)
assert (random_counts[0] == by_hand).all()
assert (compute_counts(grouped, "label").to_numpy() == grouped_counts).all()
print(grouped_counts)

# %% [markdown]
# A row is a client, a column a label.
#
# ### Exercise 2.1: count a client's labels
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 1 of 3, recall | 3 | every number for skew is computed from these counts |
#
# Complete `count_labels`: given the labels of one client's examples, return a list with
# how many examples of each label it holds. Label *k*'s count stands at position *k*.
#
# <details><summary>Hint 1</summary>
#
# How long must the list be? It doesn't depend on what the client holds.
# </details>
# <details><summary>Hint 2</summary>
#
# `np.bincount` above got a second argument. Or start with a list of zeros.
# </details>

# %%
from course_utils.exercises import check


def count_labels(labels: list[int], num_classes: int) -> list[int]:
    """Return how many examples of each label a client holds."""
    ### BEGIN SOLUTION
    counts = [0] * num_classes
    for label in labels:
        counts[label] += 1
    return counts
    ### END SOLUTION


# %%
check("2.1", count_labels)

# %% [markdown] tags=["solution"]
# **Why this.** Position *k* means label *k* for every client, so the lists of all clients
# can be stacked into one table and compared. **What people get wrong:** they count only
# what is there (`Counter`, `np.unique`, `np.bincount` on its own). Then a client without
# 0s has its 1s in the place of the 0s, or its list is too short to stack.

# %% [markdown] tags=["slide"]
# Now a federation small enough for your head: three clients with eight examples each,
# two labels.

# %% tags=["slide-more"]
tiny = np.array([[4, 4], [6, 2], [8, 0]])
shares = tiny / tiny.sum(axis=1, keepdims=True)
whole = tiny.sum(axis=0) / tiny.sum()
print("the clients' shares:", shares.tolist())
print("the whole's shares: ", whole.tolist())

# %% [markdown] tags=["slide"]
# **The first number: label distance.** How far are a client's label shares from those
# of the whole? Add up the differences, without their signs, and halve. (Its name in
# statistics: *total variation distance*.)
#
# **Predict:** which client is at distance 0, the one with 4 and 4 or the one with 6 and
# 2?

# %% tags=["slide-then"]
distances = np.abs(shares - whole).sum(axis=1) / 2
print(distances)
assert distances.tolist() == [0.25, 0.0, 0.25]

# %% [markdown] tags=["slide-more"]
# The one with 6 and 2: 0 means *like the whole*, not *evenly spread*.
#
# It reads well: the distance is the share of the client's examples that would have to
# change their label to match the whole. For client 0 that is 0.25 of 8 examples, two.
# (Each change lowers one label's share and raises another's: hence the half.)

# %%
changed = tiny[0] + [2, -2]
assert (changed / changed.sum() == whole).all()

# %% [markdown] tags=["slide"]
# **The second number: effective number of labels.** How many equally frequent labels
# would be as varied as the client's? It is exp(entropy), where the **entropy** of
# shares is the sum of −share · log(share).
#
# **Predict** it for 4 and 4, and for 8 and 0. Between what does 6 and 2 lie?

# %% tags=["slide-then"]
import math

effective = []
for client in shares.tolist():
    entropy = sum(-share * math.log(share) for share in client if share > 0)
    effective.append(math.exp(entropy))
print([round(number, 2) for number in effective])
assert math.isclose(effective[0], 2) and effective[2] == 1

# %% [markdown]
# Two equally frequent labels count as 2, a single one as 1, and 6 and 2 as something
# between. This number knows only the client; the distance compares it with the whole.
# `course_utils` has both:

# %%
from course_utils.partitions import effective_num_classes, label_distance

assert np.allclose(label_distance(tiny), distances)
assert np.allclose(effective_num_classes(tiny), effective)

# %% [markdown]
# ## Read a partitioning
#
# A row of stacked bars shows a client's counts at a glance. The text beneath sums them
# up. Its last number is the mean label distance of the clients.

# %% tags=["slide", "slide-output"]
from course_utils.plots import plot_label_counts

plot_label_counts(random_counts, title="at random")

# %% [markdown]
# The distance is small, not 0: a handful of examples more or less is chance. (Flower
# Datasets has such bars, too: `flwr_datasets.visualization.plot_label_distributions`.)

# %% [markdown] tags=["slide"]
# **Predict** for the groups of labels: what is the distance of a client that holds
# three of ten equally frequent labels, and its effective number of labels? And of
# client 3?

# %% tags=["slide-then", "slide-output"]
plot_label_counts(grouped_counts, title="labels 0–2, 3–5, 6–8, 9")

# %%
print("distance:", label_distance(grouped_counts).round(2))
print("effective labels:", effective_num_classes(grouped_counts).round(2))
held = grouped_counts.sum(axis=1) / len(train_split)
assert np.allclose(label_distance(grouped_counts), 1 - held)
furthest = label_distance(random_counts).max()
assert furthest < label_distance(grouped_counts).min()

# %% [markdown]
# A client with three of ten labels lacks the other seven: 0.7 of its examples would
# have to change. With one label it is 0.9. No distance reaches 1, since the client is
# part of the whole: whoever holds 30% of all examples is at 0.7 at most.

# %% [markdown] tags=["slide"]
# ### Exercise 2.2: how far from the others?
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 2 of 3, apply | 8 | a large client makes the whole look like itself |
#
# Since the client is part of the whole, the whole is not quite fair to compare with.
# Complete `distance_from_others`: return each client's label distance from *all other
# clients together*. `counts` has a row for each client and a column for each label, and
# at least two rows.
#
# In the tiny federation above, client 2 holds 8 and 0, the others together 10 and 6. So
# its label shares are 1 and 0, theirs 0.625 and 0.375, and its distance is 0.375.
#
# <details><summary>Hint 1</summary>
#
# Count what the others hold together: all there is of each label, less the client's own.
# </details>
# <details><summary>Hint 2</summary>
#
# Make shares of both, the client's counts and the others'. Then it is the label distance
# that you know.
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
# ## A partitioning that only looks random
#
# `IidPartitioner` has *IID* in its name. What does it do, exactly? Compare client 1
# with a plain slice:

# %% tags=["slide-then"]
size = len(random_parts[0])
assert train_split["label"][size : 2 * size] == random_parts[1]["label"][:]
print("client 1 holds rows", size, "to", 2 * size - 1)

# %% [markdown]
# It cuts slices, one after another, and draws nothing. They were random because
# `load_dataset` had shuffled the rows. Many datasets come sorted by label.

# %% [markdown] tags=["slide"]
# **Predict:** sort first, cut with `IidPartitioner`. What will client 0 hold?

# %% tags=["slide-then", "slide-output"]
order = np.argsort(train_split["label"], kind="stable")
sorted_split = train_split.select(order)
sorted_counts = label_counts(cut(sorted_split, IidPartitioner(NUM_CLIENTS)))
plot_label_counts(sorted_counts, title="IidPartitioner on sorted data")

# %% [markdown] tags=["slide"]
# One label, or nearly. This is the most skewed partitioning of this lesson, from a
# partitioner called IID, without an error or a warning. The cure is one call:

# %% tags=["slide-more"]
shuffled = sorted_split.shuffle(seed=42)
shuffled_counts = label_counts(cut(shuffled, IidPartitioner(NUM_CLIENTS)))
distance = label_distance(shuffled_counts)
print("distance, shuffled first:", distance.round(2))
assert distance.max() < label_distance(sorted_counts).min() / 2

# %% [markdown]
# With a network, Flower's `FederatedDataset` downloads a dataset, shuffles every split
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
#
# A partitioner that you use on its own gets the rows as you give them.

# %% [markdown] tags=["slide"]
# ## Two labels each
#
# `PathologicalPartitioner` gives every client the same number of labels. Which ones?
# With `"first-deterministic"`, client *i* surely gets label *i*, so that none is left
# over; the rest is drawn. Clients that share a label get equal pieces of it.
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

# %%
assert ((two_labels_counts > 0).sum(axis=1) == 2).all()
if dataset_name() == DEFAULT_DATASET:  # ten equally frequent labels
    assert np.allclose(label_distance(two_labels_counts), 0.8)

# %% [markdown]
# - The sizes differ: a label that many clients drew makes small pieces.
# - The distance is 0.8 for everyone: eight labels of ten are missing. It does not say
#   *which* labels a client has.

# %% [markdown] tags=["slide"]
# ## Dirichlet: skew by degrees
#
# Real clients are neither all alike nor all apart. For what lies between, one draws the
# shares of a label at random: client 0 gets 3% of all 7s, client 1 gets 20%, and so on.
# The **Dirichlet distribution** makes such draws, shares that add up to 1. Its
# parameter **alpha** says how even they are.
#
# **Predict:** below are three draws for ten clients. Is a small alpha even or uneven?

# %% tags=["slide-then"]
rng = np.random.default_rng(42)
for alpha in (100, 1, 0.1):
    draw = rng.dirichlet([alpha] * NUM_CLIENTS)
    print(f"{alpha:5}:", " ".join(f"{share:.2f}" for share in draw))

# %% [markdown]
# - **Large alpha:** everyone gets about a tenth.
# - **alpha = 1:** any way to share out is as likely as any other.
# - **Small alpha:** a few clients take nearly all, the others nothing.
#
# A Dirichlet partitioning makes one such draw *for each label* and cuts that label's
# examples by it. By hand:

# %%
rng = np.random.default_rng(42)
columns = []
for total in np.bincount(train_split["label"]):
    draw = rng.dirichlet([0.5] * NUM_CLIENTS)
    ends = (draw.cumsum() * total).astype(int)[:-1]
    columns.append(np.diff(ends, prepend=0, append=total))
by_hand = np.stack(columns, axis=1)
print(by_hand)

# %% [markdown]
# And with Flower's partitioner. It repeats the whole draw until every client has at
# least `min_partition_size` examples; 0 switches that off.

# %%
from flwr_datasets.partitioner import DirichletPartitioner

dirichlet = DirichletPartitioner(
    num_partitions=NUM_CLIENTS,
    partition_by="label",
    alpha=0.5,
    min_partition_size=0,
    seed=42,
)
assert (label_counts(cut(train_split, dirichlet)) == by_hand).all()

# %% [markdown] tags=["slide"]
# **Predict** for alpha = 100, 1 and 0.1: how do label distance and sizes change?

# %% tags=["slide-then", "slide-output"]
from course_utils.plots import plot_label_panels

counts_of_alpha = {}
for alpha in (100, 1, 0.1):
    dirichlet = DirichletPartitioner(NUM_CLIENTS, "label", alpha, seed=42)
    counts_of_alpha[alpha] = label_counts(cut(train_split, dirichlet))
plot_label_panels({f"alpha = {a}": c for a, c in counts_of_alpha.items()})

# %%
means = [label_distance(counts).mean() for counts in counts_of_alpha.values()]
assert means == sorted(means)
sizes = [counts.sum(axis=1) for counts in counts_of_alpha.values()]
spans = [each.max() - each.min() for each in sizes]
assert spans == sorted(spans)

# %% [markdown] tags=["slide-more"]
# The smaller alpha, the fewer labels make up most of a client, and the more unequal are
# the sizes (mind the different scales): Dirichlet skews both. Another seed gives
# another partitioning of the same alpha. So compare methods on the same seed, and on
# several.

# %% [markdown]
# ## Skew in size
#
# Clients may differ in size alone. `LinearPartitioner` gives client *i* a size in
# proportion to *i* + 1, `SquarePartitioner` to its square.
#
# **Predict:** how many times as many examples has the last client as the first?

# %%
from flwr_datasets.partitioner import LinearPartitioner, SquarePartitioner

linear_counts = label_counts(cut(train_split, LinearPartitioner(NUM_CLIENTS)))
square_counts = label_counts(cut(train_split, SquarePartitioner(NUM_CLIENTS)))
plot_label_panels({"linear": linear_counts, "square": square_counts})

# %% [markdown]
# About 10 and 100 times. By hand, the sizes are shares rounded down; what is left over
# goes to the last client:

# %%
for counts, power in ((linear_counts, 1), (square_counts, 2)):
    units = np.arange(1, NUM_CLIENTS + 1) ** power
    sizes = (units / units.sum() * len(train_split)).astype(int)
    sizes[-1] += len(train_split) - sizes.sum()
    assert (counts.sum(axis=1) == sizes).all()
    print(f"largest client: {sizes[-1] / sizes.sum():.0%} of the examples")

# %% [markdown]
# - Size matters for FedAvg: it weights by number of examples, so under
#   `SquarePartitioner` one client of ten makes up more than a quarter of the average.
# - These are slices of shuffled rows, so the labels are IID. Yet the smallest client of
#   `SquarePartitioner` is far from the whole: with few examples chance weighs more.

# %%
distance = label_distance(square_counts)
print("smallest and largest client:", distance[[0, -1]].round(2))
assert distance[0] > distance[-1]
assert square_counts[-1].sum() > len(train_split) / 4

# %% [markdown]
# ### Exercise 2.3: sizes as you like, labels like the whole
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 3 of 3, build | 14 | for skew in size alone, labels must not be left to chance |
#
# Complete `share_out`. Given the labels of all rows and each client's share (the shares
# sum to 1, but for rounding), return one list of row numbers for each client:
#
# - every row goes to exactly one client,
# - of *each label*, a client gets its share of the rows, off by one row at most,
# - which rows these are is drawn at random, by `seed`: the same seed gives the same
#   lists again, another seed gives others.
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
# Rounding how many rows each client gets won't do: what is rounded away adds up. Do
# the rounding *where to cut*: the shares added up, times the number of rows.
# </details>
# <details><summary>Hint 3</summary>
#
# `np.split(rows, ends)` cuts at the given places, and what follows the last of them is a
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
# The lessons ahead write all this in one line. `make_partitioner` knows this lesson's
# partitioners by name (and one more, whose sizes grow exponentially); `partition` is
# `cut` with checks:

# %%
from course_utils.partitions import SCHEMES, make_partitioner, partition

print(", ".join(SCHEMES))
short = partition(
    train_split, make_partitioner("dirichlet", NUM_CLIENTS, alpha=0.1)
)
assert (label_counts(short) == counts_of_alpha[0.1]).all()

# %% [markdown] tags=["slide"]
# Here is every partitioning of this lesson. With the default dataset, Dirichlet(100) is
# *nearer* to the whole than a cut at random: 0.03 against 0.06. **Predict:** why? And
# would it be so with fifteen times as many examples?

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

# %%
skew = {
    name: label_distance(counts).mean()
    for name, counts in partitionings.items()
}
assert skew["at random"] < skew["Dirichlet(1)"] < skew["Dirichlet(0.1)"]
assert skew["Dirichlet(0.1)"] < skew["sorted, sliced"]
if dataset_name() == DEFAULT_DATASET:
    assert skew["Dirichlet(100)"] < skew["at random"]

# %% [markdown]
# At alpha = 100 each label is cut almost evenly *on purpose*, while cutting at random
# leaves it to chance. With thousands of examples a client, chance evens out, and the
# order is reversed:

# %%
labels = {"label": [*range(NUM_CLASSES)] * 6_000}
features = train_split.select_columns("label").features
many = Dataset.from_dict(labels, features=features)
dirichlet = DirichletPartitioner(NUM_CLIENTS, "label", alpha=100, seed=42)
means = []
for partitioner in (IidPartitioner(NUM_CLIENTS), dirichlet):
    parts = cut(many.shuffle(seed=42), partitioner)
    means.append(label_distance(label_counts(parts)).mean())
    print(f"{type(partitioner).__name__:20} {means[-1]:.3f}")
assert means[0] < means[1]

# %% [markdown]
# ## One partitioner, one split
#
# Clients also need test examples. Why not assign the test split to the same
# partitioner?

# %%
try:
    iid.dataset = test_split
except ValueError as error:
    print(f"{type(error).__name__}: {str(error).split('.')[0]}.")

# %% [markdown]
# Flower refuses. It is tempting to assign only if nothing is assigned yet:

# %% tags=["slide"]
shared = IidPartitioner(NUM_CLIENTS)


def load(split: Dataset, partition_id: int) -> Dataset:
    if not shared.is_dataset_assigned():
        shared.dataset = split
    return shared.load_partition(partition_id)


# %% [markdown] tags=["slide-more"]
# **Predict:** the test split has a quarter of the train split's examples (with the
# default dataset). How many test examples does client 0 get?

# %% tags=["slide-then"]
own_train = load(train_split, 0)
own_test = load(test_split, 0)
print("train:", len(own_train), "test:", len(own_test))
assert own_test["label"][:] == own_train["label"][:]

# %% [markdown] tags=["slide-more"]
# As many as it trains on, because they *are* those it trains on: the second call
# ignored `test_split`. No error, and splendid accuracies. Make one partitioner for each
# split; `partition` and `FederatedDataset` both refuse to share one.

# %% [markdown]
# ## Train and test for each client
#
# A partitioner of its own may cut the test split quite unlike the train split. But how
# well a model serves a client that holds 2s and 3s is best tested on 2s and 3s.
#
# So the course's own `load_partition`, which you know from lesson 00, cuts only the
# train split with a partitioner. The test split follows: a client with a third of the
# 7s to train on gets a third of the 7s to test on.

# %%
from course_utils.partitions import load_partition

loaders = [
    load_partition(i, NUM_CLIENTS, scheme="dirichlet", alpha=0.1)
    for i in range(NUM_CLIENTS)
]
trainloader, testloader = loaders[0]
print(len(trainloader.dataset), "train,", len(testloader.dataset), "test")

# %% [markdown]
# What a loader loads is two tensors, images and labels. **Predict:** count the labels.
# Will the test panel look exactly like the train panel?


# %%
def counts_of(loader) -> np.ndarray:
    _, labels = loader.dataset.tensors
    return np.bincount(labels, minlength=NUM_CLASSES)


train_counts = np.stack([counts_of(trainloader) for trainloader, _ in loaders])
test_counts = np.stack([counts_of(testloader) for _, testloader in loaders])
assert (train_counts == counts_of_alpha[0.1]).all()
plot_label_panels({"train": train_counts, "test": test_counts})

# %% [markdown]
# Alike, but not exactly: a label that a client has little of may be missing from its
# test examples. Compare each client's share of each label, in examples:

# %%
share_of_label = train_counts / train_counts.sum(axis=0)
wanted = share_of_label * test_counts.sum(axis=0)
off = np.abs(test_counts - wanted).max()
assert off <= 1 + 1e-9  # but for rounding
assert test_counts.sum() == len(test_split)
print("no count is off by more than one example, and none is lost")

# %% [markdown]
# - Images are whole, shares are not: hence the one example.
# - A client's own test examples say how well a model serves *that client*; the whole
#   test split says how well it serves everyone. Lesson 05 looks at both.
# - Small clients have few of them: with the default dataset one client has 11, and a
#   single right answer more is 9 points of its accuracy.

# %%
fewest = test_counts.sum(axis=1).min()
print("fewest test examples of a client:", fewest)
if dataset_name() == DEFAULT_DATASET:
    assert fewest == 11

# %% [markdown]
# ## Requests that can't be met
#
# Five examples for six clients. **Predict:** when does Flower's partitioner complain?

# %%
five = train_split.select(range(5))
six = IidPartitioner(6)
six.dataset = five
print("client 0 gets", len(six.load_partition(0)), "example")
try:
    six.load_partition(5)
except IndexError as error:
    print(f"client 5: {type(error).__name__}: {error}")

# %% [markdown]
# Not before client 5 asks, and about an index. `partition` loads every partition at
# once and says in one sentence what is wrong:

# %%
import textwrap


def print_error(data: Dataset, scheme: str, clients: int, **options) -> None:
    try:
        partition(data, make_partitioner(scheme, clients, **options))
    except ValueError as error:
        text = f"{type(error).__name__}: {error}"
        print(textwrap.fill(text, width=80))


print_error(five, "iid", 6)

# %% [markdown]
# There is no Dirichlet distribution with an alpha of 0:

# %%
print_error(train_split, "dirichlet", NUM_CLIENTS, alpha=0)

# %% [markdown]
# And if no client may have fewer examples than the average? Then all need equally many,
# which hardly a draw gives. Flower tries ten times, warns each time, then gives up.
# `partition` says it once:

# %%
average = len(train_split) // NUM_CLIENTS
print_error(train_split, "dirichlet", NUM_CLIENTS, min_partition_size=average)

# %% [markdown] tags=["slide"]
# ## Takeaways
#
# - **A partition** is one client's local dataset. A partitioner cuts a split: at random
#   (`IidPartitioner`), by label (`GroupedNaturalIdPartitioner`,
#   `PathologicalPartitioner`), by a draw for each label (`DirichletPartitioner`; small
#   alpha, much skew), by size (`LinearPartitioner`, `SquarePartitioner`).
# - **IID** is a property of the data, not of a partitioner's name: slices of sorted
#   data are not IID. Shuffle first.
# - **Label distance** is the share of a client's examples that would have to change
#   their label to match the whole; the **effective number of labels** is exp(entropy).
# - **Train and test** belong together: one partitioner for each split, and test
#   examples shared out as the train examples are.
# - **Errors** come early if every partition is loaded at once: too many clients, alpha
#   not above 0, a minimum size that no draw reaches.

# %% [markdown]
# ## Check yourself
#
# <details><summary>1. Every client of a federation holds only images of label 7. What
# is their label distance, and are they non-IID?</summary>
#
# 0, and they may well be IID: each is like the whole. But the effective number of
# labels is 1: one number does not replace the other.
# </details>
#
# <details><summary>2. A client of an IID partitioning has a label distance of 0.4. Is
# that a mistake?</summary>
#
# Not if it is small: ten examples can't match ten label shares but by luck. Compare
# with what as many examples drawn at random give, before you speak of skew.
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
# At how the test examples were partitioned: a partitioner shared between the splits
# hands out train examples as test examples.
# </details>
#
# **Next:** [03 · The ClientApp](03_client_app.ipynb), where each client gets its
# partition and trains on it when told to.

# %%
from course_utils.exercises import progress

progress("02")
