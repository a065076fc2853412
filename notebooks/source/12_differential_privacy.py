# %% [markdown] tags=["slide"]
# # 12 · Differential privacy
#
# **What can a client send so that nobody learns much about it, whatever they know?**
#
# After this lesson you can
#
# - ask a delicate question with a coin, and say what an $\varepsilon$ promises,
# - make an update private by clipping and noise, by hand and with Flower, and say who
#   has to be trusted for it,
# - count $\varepsilon$ over the rounds of a run, and stop the run in time,
# - say what an $\varepsilon$ costs in accuracy, with 10 clients and with 100,
# - protect single examples by DP-SGD, and try three attacks against the noise.
#
# **You need:** lessons 00 to 05 with exercise 3.3, the seeds of lesson 08, mods and
# queries of lesson 10, the AUC and the division of lesson 11.
# **Time:** 100 minutes, 26 of them for the exercises.

# %% [markdown] tags=["slide"]
# ## A question with a coin
#
# A server asks 100 clinics: *do you have more than four patients with the rare
# diagnosis?* (Here it is the digit 9.) A yes may be embarrassing. So each clinic tosses
# two coins in secret. If both show tails, it says the opposite of the truth.
#
# This is **randomised response** (Warner, 1965, Journal of the American Statistical
# Association). A yes now proves nothing: it may come from the coins.

# %%
import math

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

from course_utils.partitions import load_partition

NUM_CLIENTS = 100


def load_own(context: Context) -> tuple[torch.Tensor, torch.Tensor]:
    ids = ("partition-id", "num-partitions")
    own = [context.node_config[name] for name in ids]
    loader, _ = load_partition(*own, scheme="iid")
    return loader.dataset.tensors


# %%
survey = ClientApp()


@survey.query("rare")
def rare(message: Message, context: Context) -> Message:
    _, labels = load_own(context)
    truth = (labels == 9).sum().item() > 4
    two_tails = torch.rand(1).item() < 1 / 4
    said = not truth if two_tails else truth
    content = {"answer": MetricRecord({"yes": int(said)})}
    return Message(RecordDict(content), reply_to=message)


# %%
from course_utils.runtime import InProcessGrid

grid = InProcessGrid(survey, NUM_CLIENTS, seed=0)


def ask_all() -> torch.Tensor:
    nodes = grid.get_node_ids()
    questions = [Message(RecordDict(), node, "query.rare") for node in nodes]
    replies = grid.send_and_receive(questions)
    return torch.tensor([float(r.content["answer"]["yes"]) for r in replies])


answers = ask_all()
own_labels = [load_partition(i, NUM_CLIENTS)[0] for i in range(NUM_CLIENTS)]
own_labels = [loader.dataset.tensors[1] for loader in own_labels]
truth = torch.tensor([float((y == 9).sum() > 4) for y in own_labels])
print("say yes:", int(answers.sum()), "- are yes:", int(truth.sum()))

# %% [markdown] tags=["slide"]
# Too many say yes. But we know how the coins work. Let $t$ be the share whose truth is
# yes. Of these, 3/4 say yes, and of all others 1/4:
#
# $$\text{yes} = \tfrac34 t + \tfrac14 (1 - t) \qquad\text{so}\qquad
# t = 2 \cdot \text{yes} - \tfrac12$$
#
# **Predict:** does this hit the true share? Does it get better with more clients?

# %% tags=["slide-then"]
estimate = 2 * answers.mean() - 1 / 2
print(f"estimate: {estimate:.2f}, truth: {truth.mean():.2f}")
torch.manual_seed(0)
for n in (100, 10_000):
    secret = (torch.rand(500, n) < 0.4).float()
    tails = torch.rand(500, n) < 1 / 4
    said = torch.where(tails, 1 - secret, secret)
    off = (2 * said.mean(dim=1) - 1 / 2) - secret.mean(dim=1)
    print(f"{n:6,} clients: off by {off.std():.3f}, mean {off.mean():+.3f}")
    assert abs(off.std() - 0.75**0.5 / n**0.5) < 0.1 / n**0.5
    assert abs(off.mean()) < 0.2 / n**0.5

# %% [markdown]
# It is **unbiased**: over many surveys, the errors cancel. With 100 clients it is off by
# about 9 points, with 10,000 by 1. Privacy needs many clients.
#
# **Predict:** the server asks the same question 25 times, and each client tosses again.
# How many of the 100 secrets can the server guess?

# %%
often = torch.stack([ask_all() for _ in range(25)]).mean(dim=0)
guessed = ((often > 1 / 2).float() == truth).sum().item()
print("asked 25 times, the server knows", guessed, "of 100")
assert guessed >= 95

# %% [markdown]
# Each answer alone gave little away. 25 of them give everything here. So privacy is
# **spent**, and somebody has to count.

# %% [markdown] tags=["slide"]
# ## What ε promises
#
# Whatever the truth, an answer stays possible. A "yes" is three times as likely from a
# client whose truth is yes (3/4) as from another (1/4). Write the factor as
# $e^\varepsilon$: here $\varepsilon = \ln 3 = 1.1$. (25 answers add up to 27.5.)
#
# A mechanism $M$ has $(\varepsilon, \delta)$-**differential privacy** (Dwork and Roth,
# 2014) if for all **neighbours** $D$ and $D'$, and for every set $S$ of results
#
# $$P[M(D) \in S] \;\le\; e^\varepsilon \, P[M(D') \in S] + \delta$$
#
# **Neighbours** differ in *one* client (or one example: you choose). $\delta$ is roughly
# the probability that the promise fails.

# %% [markdown]
# Always ask in what way neighbours differ. For the coin, a yes becomes a no. Flower's
# strategies count a client as **added or removed**: its update is there, or a zero is in
# its place.
#
# And why must $\delta$ be small? To publish one of 1,000 records at random has
# $\varepsilon$ = 0 and $\delta$ = 0.001. So $\delta$ should be well below one over the
# number of clients. Ours, 0.001 for 100 clients, is on the large side.

# %% [markdown] tags=["slide"]
# **Predict:** somebody bets on your *truth*, yes or no. Before they saw your answer, it was
# one to one. How sure can they be afterwards, with $\varepsilon$ = 0.1, 1, 3, 10?

# %% tags=["slide-then"]
from course_utils.exercises import check

for epsilon in (0.1, 1, 3, 10):
    sure = math.exp(epsilon) / (1 + math.exp(epsilon))
    print(f"epsilon {epsilon:4}: at most {100 * sure:.5g} %")
assert round(math.exp(1) / (1 + math.exp(1)), 2) == 0.73
assert math.exp(10) / (1 + math.exp(10)) > 0.9999
assert round(math.log(3), 1) == 1.1 and round(25 * math.log(3), 1) == 27.5

# %% [markdown]
# One to one becomes at most $e^\varepsilon$ to one, and that is a share of
# $e^\varepsilon / (1 + e^\varepsilon)$. With $\varepsilon$ = 1 (and $\delta$ = 0), a bet
# of 50 % becomes at most one of 73 %.
# With 10, the promise is nearly empty. (It is a bound for the worst case. Real attacks
# are often weaker.)
#
# It holds whatever else they know, and whatever they do with the result later. But it
# is about *your* data. What the model teaches about all people, it teaches about you,
# too.

# %% [markdown]
# ### Exercise 12.1: a survey with a biased coin
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 1 of 3, recall | 6 | the estimate and its price are one formula each |
#
# Each client tells the truth with probability `p`, above 1/2, and else says the opposite.
# `yes` of `n` say yes. Return two numbers:
#
# - the unbiased estimate of the share whose truth is yes (it may lie below 0 or above 1:
#   leave it so),
# - the $\varepsilon$ of one answer.
#
# <details><summary>Hint 1</summary>
#
# With the share $t$: $\text{yes}/n = p\,t + (1-p)(1-t)$. Solve it for $t$.
# </details>
# <details><summary>Hint 2</summary>
#
# How many times as likely is a yes if the truth is yes? The natural logarithm of that.
# </details>


# %%
def survey_result(yes: int, n: int, p: float) -> tuple[float, float]:
    """Return the estimated share, and the epsilon of one answer."""
    ### BEGIN SOLUTION
    share = (yes / n - (1 - p)) / (2 * p - 1)
    return share, math.log(p / (1 - p))
    ### END SOLUTION


# %%
check("12.1", survey_result)

# %% [markdown] tags=["solution"]
# **Why this.** The nearer `p` comes to 1/2, the smaller is $\varepsilon$, and the more
# the division by `2 * p - 1` magnifies chance. **What people get wrong:** they report the
# share of yes as it came; they cut the estimate off at 0 and 1, which makes it biased; or
# they take $p$ itself for the factor.

# %% [markdown] tags=["slide"]
# ## Noise on a number
#
# For numbers, the coin becomes a bell curve. Say that each client has a number from 0 to
# $C$, and the server wants the sum. One client changes the sum by at most $C$: its
# **sensitivity**. The **Gaussian mechanism** adds normal noise with a standard deviation
# of $z \cdot C$. $z$ is the **noise multiplier**.
#
# **Predict:** an adversary knows everybody's number, also yours, which is $C$. They see
# the noisy sum, and take off what the others gave. Did you take part? How often are
# they right with $z$ = 0.5, 1, 3?

# %% tags=["slide-then", "slide-output"]
from course_utils.plots import plot_bells

plot_bells([0.5, 1.0, 3.0])

# %% [markdown]
# The best they can do is to draw a line in the middle. Far from the
# middle, the ratio of the two heights has no limit. So no $\varepsilon$ holds for *all*
# results, and $\delta$ pays for these rare ones. For $\delta$ = 0.001, these
# three cost $\varepsilon$ = 8.4, 3.5 and 1.0. The accountant below, which counts
# $\varepsilon$, says so.

# %% [markdown] tags=["slide"]
# ## Noise on an update
#
# A model is many numbers. Its sensitivity is a length: clip each update to length $C$
# (exercise 3.3), and no client moves the sum by more than $C$. Then add noise with
# $z \cdot C$ to *each* number of the sum. The mean of $n$ updates gets an $n$-th of that:
#
# $$\text{standard deviation} = z \cdot C / n$$
#
# (McMahan et al., 2018, [arXiv:1710.06963](https://arxiv.org/abs/1710.06963)). What is
# hidden here is a whole client.

# %% [markdown]
# The federation for it is small, since noise goes onto every number of a model. Images
# become 7 by 7. The model is one layer, of 500 numbers. A client takes three steps.

# %%
from copy import deepcopy

from torch import nn
from torch.nn.functional import avg_pool2d, cross_entropy, one_hot

from course_utils.partitions import image_shape

LR, CLIP = 2.0, 1.0


def shrink(images: torch.Tensor) -> torch.Tensor:
    return avg_pool2d(images + 1, 4).flatten(1)


def make_net() -> nn.Linear:
    channels, height, width = image_shape()
    return nn.Linear(channels * (height // 4) * (width // 4), 10)


def flat(net: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(net.parameters()).detach()


# %%
def update_of(
    net: nn.Module, features: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    local = deepcopy(net)
    weights = list(local.parameters())
    for _ in range(3):
        loss = cross_entropy(local(features), labels)
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight -= LR * gradient
    return flat(local) - flat(net)


# %% [markdown]
# `clip` shortens one update, or each row of a table of updates:


# %%
def clip(rows: torch.Tensor, max_norm: float = CLIP) -> torch.Tensor:
    norms = rows.norm(dim=-1, keepdim=True)
    return rows * (max_norm / norms.clamp(min=max_norm))


def private_mean(updates: torch.Tensor, z: float) -> torch.Tensor:
    n, numbers = updates.shape
    std = z * CLIP / n
    return clip(updates).mean(dim=0) + std * torch.randn(numbers)


# %% [markdown]
# Now with Flower. The client is as always. It reports a weight of 1, not its number of
# examples. (The reason comes with the accountant.)

# %%
def move(net: nn.Module, step: torch.Tensor) -> None:
    nn.utils.vector_to_parameters(flat(net) + step, net.parameters())


def load_net(arrays: ArrayRecord) -> nn.Linear:
    net = make_net()
    net.load_state_dict(arrays.to_torch_state_dict())
    return net


def train(message: Message, context: Context) -> Message:
    net = load_net(message.content["arrays"])
    images, labels = load_own(context)
    move(net, update_of(net, shrink(images), labels))
    content = {
        "arrays": ArrayRecord(net.state_dict()),
        "metrics": MetricRecord({"weight": 1}),
    }
    return Message(RecordDict(content), reply_to=message)


# %% [markdown]
# Flower's strategy for this wraps another one. It takes $z$ (`noise_multiplier`), $C$
# (`clipping_norm`) and $n$ (`num_sampled_clients`):

# %%
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    Strategy,
)

client_app = ClientApp()
client_app.train()(train)
torch.manual_seed(0)
start = ArrayRecord(make_net().state_dict())


def averaging() -> FedAvg:
    strategy = FedAvg(weighted_by_key="weight")
    strategy.fraction_evaluate = 0.0  # as an argument, it makes Flower warn
    return strategy


def one_round(app: ClientApp, strategy: Strategy) -> list[Message]:
    options = {"seed": 0, "client_errors": "reply"}
    grid = InProcessGrid(app, NUM_CLIENTS, **options)
    messages = strategy.configure_train(1, start, ConfigRecord(), grid)
    return list(grid.send_and_receive(messages))


# %% [markdown] tags=["slide"]
# **Predict:** the same 100 replies go to our `private_mean` and to Flower. Without noise,
# are both models equal? With it, how large is the standard deviation of what differs?

# %% tags=["slide-then", "slide-output"]
import numpy as np


def after(arrays: ArrayRecord) -> torch.Tensor:
    return flat(load_net(arrays)) - flat(load_net(start))


np.random.seed(0)  # so that you see what we saw
found = {}
for z in (0.0, 1.0):
    strategy = DifferentialPrivacyServerSideFixedClipping(
        averaging(), z, CLIP, NUM_CLIENTS
    )
    replies = one_round(client_app, strategy)
    updates = torch.stack([after(r.content["arrays"]) for r in replies])
    by_hand = private_mean(updates, 0.0)
    arrays, _ = strategy.aggregate_train(1, replies)
    found[z] = after(arrays) - by_hand
assert found[0.0].abs().max() < 1e-5
print("without noise: equal, to rounding")
print(f"with z = 1: {found[1.0].std():.3f}; z * C / n = {CLIP / NUM_CLIENTS}")
lengths = updates.norm(dim=1)
print(f"median length {lengths.median():.1f}", end=", ")
print(f"longer than C: {(lengths > CLIP).sum()} of {len(lengths)}")
assert abs(found[1.0].std() - CLIP / NUM_CLIENTS) < 0.0015

# %% [markdown]
# By hand and by Flower: equal but for the noise, and that is as wide as it should be.
#
# **How large should $C$ be?** Here all updates are longer, and clipped. A smaller $C$
# makes less noise, and slower steps. A larger one keeps differences between clients, and
# makes more noise. So one tries. (Flower's `…AdaptiveClipping` strategies adapt it to the
# lengths, after Andrew et al., 2019,
# [arXiv:1905.03871](https://arxiv.org/abs/1905.03871). They take no accountant.)
#
# The noise comes from `numpy.random`. Who knows its seed can subtract it. Our runs are
# seeded, so that you see what we saw. A real one must not be.

# %% [markdown] tags=["slide"]
# ## The accountant
#
# What do many rounds cost? Adding up $\varepsilon$ is allowed, and says far too much.
# **Rényi differential privacy** (Mironov, 2017,
# [arXiv:1702.07476](https://arxiv.org/abs/1702.07476)) has a price for each **order**
# $\alpha$, a number above 1. A large one looks mostly at the results that give most away.
# A round of the Gaussian mechanism costs $\alpha / (2 z^2)$, and rounds just add up: $r$
# is the sum for one order. Then each order gives an $\varepsilon$ (Canonne et al., 2020,
# [arXiv:2004.00010](https://arxiv.org/abs/2004.00010)). All of them hold, so we take the
# smallest:
#
# $$\varepsilon = r + \ln\frac{\alpha - 1}{\alpha} - \frac{\ln(\delta \alpha)}{\alpha - 1}$$

# %%
DELTA = 1e-3

# Those that dp_accounting tries.
ORDERS = [1 + x / 10 for x in range(1, 100)]
ORDERS += [*range(11, 64), 128, 256, 512, 1024]


def convert(rdp: list[float], delta: float = DELTA) -> float:
    return min(
        r + math.log1p(-1 / a) - math.log(delta * a) / (a - 1)
        for a, r in zip(ORDERS, rdp, strict=True)
    )


# %% [markdown]
# Two rounds, the first with $z$ = 1, the second with $z$ = 2. By hand, and by Flower's
# `RdpAccountant`, which uses Google's `dp_accounting`. It gets one event for each
# round: $z$, how many clients are asked, and of how many. `NO_AMPLIFICATION` counts each
# round as if all clients were asked:

# %%
from flwr.serverapp import (
    GaussianPrivacyEvent,
    NeighboringRelation,
    PrivacyConfig,
    RdpAccountant,
    SamplingMethod,
)


def new_accountant(max_epsilon: float | None = None) -> RdpAccountant:
    config = PrivacyConfig(
        target_delta=DELTA,
        population_size=NUM_CLIENTS,
        neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
        sampling_method=SamplingMethod.NO_AMPLIFICATION,
        max_epsilon=max_epsilon,
    )
    return RdpAccountant(config)


# %%
first, second = ([a / (2 * z**2) for a in ORDERS] for z in (1.0, 2.0))
both = [one + two for one, two in zip(first, second, strict=True)]
accountant = new_accountant()
for z in (1.0, 2.0):
    event = GaussianPrivacyEvent(z, NUM_CLIENTS, NUM_CLIENTS)
    accountant.compose(event)
print(f"first: {convert(first):.3f}, second: {convert(second):.3f}")
print(f"both: {convert(both):.3f} by hand", end=", ")
print(f"{accountant.get_epsilon(DELTA):.3f} by Flower")
assert abs(convert(both) - accountant.get_epsilon(DELTA)) < 1e-9
assert convert(both) < convert(first) + convert(second) - 1

# %% [markdown] tags=["slide"]
# **Predict:** one round with $z$ = 1 costs 3.5. What do 15 rounds cost? And if each of
# them asks only 10 of the 100 clients, drawn by chance?


# %%
def epsilon_of(z: float, rounds: int, delta: float = DELTA) -> float:
    return convert([rounds * a / (2 * z**2) for a in ORDERS], delta)


def sampled(method: str, relation: str, z: float, rounds: int) -> float:
    kinds = NeighboringRelation(relation), SamplingMethod(method)
    config = PrivacyConfig(DELTA, NUM_CLIENTS, *kinds)
    orders = tuple(range(2, 64))  # whole ones are quick, and suffice here
    accountant = RdpAccountant(config, orders=orders)
    event = GaussianPrivacyEvent(z, 10, NUM_CLIENTS)
    accountant.compose(event, rounds)
    return accountant.get_epsilon(DELTA)


# %% tags=["slide-then", "slide-output"]
from course_utils.plots import plot_curves

rounds = range(1, 16)
poisson = ("poisson", "add-or-remove-one", 1.0)
curves = {
    "added up": [k * epsilon_of(1.0, 1) for k in rounds],
    "Rényi": [epsilon_of(1.0, k) for k in rounds],
    "Rényi, 10 of 100": [sampled(*poisson, k) for k in rounds],
}
plot_curves(curves, ylabel="ε for δ = 0.001", start=1)

# %% jupyter={"source_hidden": true}
# What is said below, checked.
ends = [round(values[-1], 1) for values in curves.values()]
assert ends == [53.0, 20.5, 2.4]
assert round(epsilon_of(10.0, 15), 1) == 1.1
assert [round(epsilon_of(z, 1), 1) for z in (0.5, 1.0, 3.0)] == [8.4, 3.5, 1.0]

# %% [markdown]
# - **All 100 in each round:** 20.5, where adding up says 53.
# - **Amplification by sampling:** who is drawn rarely is in there rarely. 2.4 instead of
#   20.5, for the same $z$. It holds if each client is drawn by a coin of its own
#   (Poisson), and only against those who do not learn who was drawn: never against the
#   server.
# - **But the mean of 10 has ten times the noise** of the mean of 100. With that much
#   noise ($z$ = 10), all 100 pay 1.1. Sampling saves messages here, not privacy.
# - **Replaced:** if your update may become any *other* one, it moves the sum up to twice
#   as far. Then $z$ = 1 counts as 0.5, and a round costs 8.4. Always say which
#   neighbours an $\varepsilon$ is for.
#
# `FedAvg` draws a fixed number (see the appendix). Flower's strategies with fixed
# clipping refuse an accountant that counts on amplification. So ask all clients, or pay
# as if you did.

# %% [markdown]
# ### Why the weights are equal
#
# **Predict:** one client has 1,000 examples, the other 99 have 10 each. `FedAvg` weights
# by examples. How far does the large client move the mean, and for what is the noise
# made?

# %%
sizes = [1000] + 99 * [10]
share = sizes[0] / sum(sizes)
print(f"it moves the mean by {share:.2f} C; the noise is made for 0.01 C")
print(f"so z = 1 is in truth z = {0.01 / share:.2f}")
assert round(share, 2) == 0.5 and round(0.01 / share, 2) == 0.02

# %% [markdown]
# Without an accountant nobody notices. With one, Flower refuses:

# %%
from course_utils import outcome

strategy = DifferentialPrivacyServerSideFixedClipping(
    averaging(), 1.0, CLIP, NUM_CLIENTS, accountant=new_accountant()
)
replies = one_round(client_app, strategy)
replies[0].content["metrics"]["weight"] = 2
print(outcome(strategy.aggregate_train, 1, replies))

# %% [markdown] tags=["slide"]
# ## A budget, and the run that stops
#
# With `max_epsilon`, the strategy looks ahead: it raises `PrivacyBudgetExhausted` before
# a round that would cost too much. **Predict:** $z$ = 1, and a budget of 8. How many of
# ten rounds are run? And what is left of the run?

# %%
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.exception import PrivacyBudgetExhausted

from course_utils.runtime import run_in_process

server_app, kept = ServerApp(), {}


def keep(server_round: int, arrays: ArrayRecord) -> None:
    kept[server_round] = arrays


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    kept.clear()
    strategy = DifferentialPrivacyServerSideFixedClipping(
        averaging(), 1.0, CLIP, NUM_CLIENTS, accountant=new_accountant(8.0)
    )
    try:
        strategy.start(grid, start, num_rounds=10, evaluate_fn=keep)
    except PrivacyBudgetExhausted as stop:
        print(f"after round {max(kept)}: {type(stop).__name__}")


# %% tags=["slide-then", "slide-output"]
run = run_in_process(
    server_app,
    client_app,
    num_supernodes=NUM_CLIENTS,
    seed=0,
    progress=False,
)
print([round(epsilon_of(1.0, k), 1) for k in (1, 2, 3, 4)])
print("results of strategy.start:", run.results)
affordable = max(k for k in range(1, 20) if epsilon_of(1.0, k) <= 8.0)
assert max(kept) == affordable == 3 and run.results == []

# %% [markdown]
# `start` raises, so it returns no `Result`: without `keep`, the paid model would be gone.
#
# A round may also be lost (see the appendix). If one client raises, its reply is an
# error, and the strategy makes *no* model, with an accountant or without. If a reply is
# missing, it warns. Then it makes none *with* an accountant, and a model without one. A
# lost round costs nothing, and the run goes on.
#
# An accountant counts what it is told of. It counts the noisy model of each round. It
# does not count metrics: a `train-loss` that travels beside it is not protected. Nor does
# it count the runs that you made before, to choose `lr` and $C$.

# %% [markdown]
# ### Exercise 12.2: how many rounds can we pay?
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 2 of 3, apply | 10 | it is what `max_epsilon` does, and it shows why the order of steps matters |
#
# A run plans its noise: `noise[i]` is the noise multiplier of round `i + 1`. Return how
# many rounds, from the first on, can be run with at most `max_epsilon` in all, and the
# $\varepsilon$ spent by then (0 if there is none).
#
# Use `orders`, the list of $\alpha$, and `delta`. (The formula is that of *The
# accountant*. `convert` there has its own orders, so write it anew. After a round that
# does not fit, the run is over.)
#
# <details><summary>Hint 1</summary>
#
# Each round adds $\alpha / (2 z^2)$. So the sum for an order $\alpha$ is $\alpha$ times
# one number, which you keep.
# </details>
# <details><summary>Hint 2</summary>
#
# Convert after each round, never before you add up. The smallest over the orders is the
# $\varepsilon$ so far.
# </details>


# %%
def rounds_within(
    noise: list[float], max_epsilon: float, delta: float, orders: list[float]
) -> tuple[int, float]:
    """Return how many rounds can be paid, and the epsilon spent by then."""
    ### BEGIN SOLUTION
    summed, spent = 0.0, 0.0
    for done, z in enumerate(noise):
        summed += 1 / (2 * z**2)
        epsilon = min(
            a * summed
            + math.log((a - 1) / a)
            - math.log(delta * a) / (a - 1)
            for a in orders
        )
        if epsilon > max_epsilon:
            return done, spent
        spent = epsilon
    return len(noise), spent
    ### END SOLUTION


# %%
check("12.2", rounds_within)

# %% [markdown] tags=["solution"]
# **Why this.** After each round another order may be the best one, so the sums of all are
# kept (here as one number, times $\alpha$). **What people get wrong:** they convert each
# round and add up the $\varepsilon$, which says too much; they keep only the order that was
# best for one round; or they stop one round too late.

# %% [markdown] tags=["slide"]
# ## Who has to be trusted
#
# | who clips | who adds noise | in Flower | who sees your update |
# |---|---|---|---|
# | server | server | `…ServerSideFixedClipping` | the server |
# | client | server | `…ClientSideFixedClipping`, `fixedclipping_mod` | the server, shortened |
# | client | client | `LocalDpMod` | nobody |
#
# In the first two rows the promise holds against those who see only the *models*.
# **Predict:** in the second row you forget the mod. What do you notice?

# %%
from flwr.clientapp.mod import fixedclipping_mod
from flwr.serverapp.strategy import DifferentialPrivacyClientSideFixedClipping

clipping_app = ClientApp()
clipping_app.train(mods=[fixedclipping_mod])(train)


def look(app: ClientApp) -> tuple[float, float]:
    strategy = DifferentialPrivacyClientSideFixedClipping(
        averaging(), 1.0, CLIP, NUM_CLIENTS, accountant=new_accountant()
    )
    replies = one_round(app, strategy)
    lengths = [after(r.content["arrays"]).norm().item() for r in replies]
    strategy.aggregate_train(1, replies)
    return max(lengths), strategy.privacy_spent().epsilon


# %% tags=["slide-then", "slide-output"]
for name, app in (("with the mod", clipping_app), ("without", client_app)):
    length, epsilon = look(app)
    print(f"{name}: longest update {length:.2f}, epsilon {epsilon:.2f}")
    assert (length < 1.001 * CLIP) == (app is clipping_app)
    assert round(epsilon, 2) == 3.54

# %% [markdown]
# Nothing. The model comes, the accountant says 3.54, and it is not true: the updates are
# far longer than the noise was made for. Whether the clients clip, only the clients know.
# (Give the mod to `train` alone. Around the whole app it makes an error of every
# evaluation.)

# %% [markdown]
# In the third row, the server must not be able to tell any two updates apart. They may point in
# opposite directions: the sensitivity is $2C$. `LocalDpMod` leaves that number to you,
# and counts no messages (see the appendix).
#
# In the mean, the noise of $n$ clients shrinks by $\sqrt n$, as their noises cancel in
# part. The server adds noise once, and it shrinks by $n$. That is the price of trusting nobody. Lesson 13 is between the two.

# %% [markdown] tags=["slide"]
# ## Accuracy against ε
#
# What does privacy cost? Eight rounds, all clients in each, $\delta$ = 0.001. All have
# the same kind of data (IID): what skew adds was not tried. For each
# $\varepsilon$ we look for the $z$ that costs just that:


# %%
from course_utils.partitions import load_centralized

ROUNDS = 8


def noise_for(epsilon: float, rounds: int, delta: float = DELTA) -> float:
    if epsilon == math.inf:
        return 0.0
    low, high = 0.01, 1000.0
    for _ in range(60):
        z = (low * high) ** 0.5
        too_much = epsilon_of(z, rounds, delta) > epsilon
        low, high = (z, high) if too_much else (low, z)
    return high


def share_out(num_clients: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    images, labels = load_centralized()[0].dataset.tensors
    own = torch.randperm(len(labels)).tensor_split(num_clients)
    return [(shrink(images[i]), labels[i]) for i in own]


# %%
def strangers() -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = load_centralized()[1].dataset.tensors
    return shrink(images), labels


@torch.no_grad()
def accuracy(net: nn.Module) -> float:
    features, labels = strangers()
    return (net(features).argmax(dim=1) == labels).float().mean().item()


# %% [markdown]
# The rounds are those that we compared with Flower above, in a plain loop:


# %%
def federate(seed: int, *, clients: int, epsilon: float) -> dict[str, float]:
    net, shares = make_net(), share_out(clients)
    z = noise_for(epsilon, ROUNDS)
    for _ in range(ROUNDS):
        updates = torch.stack([update_of(net, *own) for own in shares])
        move(net, private_mean(updates, z))
    return {"accuracy": accuracy(net)}


print(f"epsilon 0.5 costs z = {noise_for(0.5, ROUNDS):.1f}")
assert abs(epsilon_of(noise_for(8.0, ROUNDS), ROUNDS) - 8.0) < 1e-6

# %% [markdown] tags=["slide"]
# **Predict:** the same 4,000 images, shared out among 10, 30 or 100 clients. At which
# $\varepsilon$ does each federation still learn? (The lines are medians of 20 seeds, the
# bands hold nine of ten runs. The thin line was run here, at its three dots.)

# %% tags=["slide-then", "slide-output", "nbval-ignore-output"]
import pandas as pd

from course_utils.experiments import by_seed, held, run_table, stored
from course_utils.plots import plot_intervals


def with_noise(table):
    return table[table.epsilon < math.inf]


budgets = stored("12", "budgets")
settings = [{"clients": 10, "epsilon": e} for e in (0.5, 2.0, 8.0)]
live = run_table(federate, settings, seeds=[0])
plot_intervals(
    with_noise(budgets),
    by="clients",
    live=live,
    x="epsilon",
    xlabel="ε for δ = 0.001",
    logx=True,
)

# %%
by_clients = {
    n: by_seed(budgets[budgets.clients == n], "epsilon") for n in (10, 30, 100)
}
medians = pd.DataFrame({n: a.median() for n, a in by_clients.items()})
for n in (10, 100):
    z = np.array([noise_for(epsilon, ROUNDS) for epsilon in medians.index])
    medians[f"noise of {n}"] = len(flat(make_net())) ** 0.5 * z * CLIP / n
print(medians.round(2).to_string())

# %% jupyter={"source_hidden": true}
# What is said below, checked.
ten, hundred = by_clients[10], by_clients[100]
for epsilon in medians.index[:-1]:
    near = hundred[epsilon] > hundred[math.inf] - 0.05
    behind = ten[epsilon] < hundred[epsilon] - 0.1
    assert near.all() == (epsilon >= 2) and behind.all() == (epsilon <= 4)
    assert epsilon != 1 or near.sum() == 1
thirty = by_clients[30]
near = [(thirty[e] > thirty[math.inf] - 0.05).sum() for e in (2, 4, 8, 16)]
assert near == [0, 10, 20, 20]
assert (ten[1.0] < 0.3).all()
gap = ten[math.inf] - hundred[math.inf]
assert gap.min() > 0.01 and gap.max() < 0.031
if len(flat(make_net())) == 500:
    lengths = medians.loc[0.5, ["noise of 10", "noise of 100"]].round(1)
    assert [*lengths] == [33.3, 3.3]

# %% [markdown]
# The columns *noise* give its length, $\sqrt{500} \, z \, C / n$ for 500 numbers. The
# mean of the updates is no longer than 1.
#
# - **With 100 clients** and $\varepsilon$ = 2 or more, the model ends within 5 points of
#   the one without noise, in 20 of 20 seeds. With $\varepsilon$ = 1 it does in 1 of 20.
# - **With 10 clients,** the same $\varepsilon$ means ten times the noise: for 0.5, a
#   length of 33 in place of 3.3. Up to $\varepsilon$ = 4 they end more than 10 points
#   behind the 100, in 20 of 20. With $\varepsilon$ = 1 they have hardly learned
#   anything.
# - **With 30 clients** it takes $\varepsilon$ = 8 or more to end within 5 points, in 20
#   of 20 seeds. With 4 they do in 10 of 20, with 2 in none.
# - **Without noise** (clipped all the same) the 10 are ahead by 1 to 3 points. So it is
#   the noise.
#
# To hide a client takes a crowd. (We chose `LR`, `CLIP` and the rounds by trying, without
# noise, on the same digits: that is not in the price.)

# %% [markdown] tags=["slide"]
# ## One example at a time: DP-SGD
#
# Three hospitals cannot hide in a crowd. But each can hide its *patients*, from the
# server and from all others: then neighbours are data with and without one example.
# (This hides a patient who has one example. A patient with five is hidden less well.)
#
# **DP-SGD** (Abadi et al., 2016, [arXiv:1607.00133](https://arxiv.org/abs/1607.00133))
# does with examples what we did with clients: clip the gradient of each, sum up, add
# noise. For that one needs every example's own gradient. `grad` of `torch.func` makes a
# function that returns a gradient, and `vmap` applies it to each row:

# %%
from torch.func import functional_call, grad, vmap


def per_example(
    net: nn.Module, features: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    def loss(weights: dict, one: torch.Tensor, label: torch.Tensor):
        guess = functional_call(net, weights, one[None])
        return cross_entropy(guess, label[None])

    weights = {name: w.detach() for name, w in net.named_parameters()}
    gradients = vmap(grad(loss), in_dims=(None, 0, 0))
    each = gradients(weights, features, labels).values()
    return torch.cat([g.flatten(1) for g in each], dim=1)


# %%
net, (features, labels) = make_net(), share_out(NUM_CLIENTS)[0]
table = per_example(net, features, labels)
loss = cross_entropy(net(features), labels)
usual = torch.autograd.grad(loss, list(net.parameters()))
print("one row for each example:", tuple(table.shape))
assert len(table) == len(labels)
assert torch.allclose(
    table.mean(dim=0), torch.cat([g.flatten() for g in usual]), atol=1e-5
)

# %% [markdown]
# Their mean is the usual gradient.

# %% [markdown]
# ### Exercise 12.3: the private gradient of a batch
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 3 of 3, build | 10 | this is DP-SGD, and a wrong norm makes its promise void |
#
# Complete `private_gradient`. `each` has the gradients of all examples of a batch, by the
# name of the array: `each["weight"]` has the shape (examples, …). Return by the same
# names:
#
# - clip each *example* to a length of at most `max_norm`. Its length is that over all its
#   arrays together.
# - sum up over the examples, and add `noise[name]`,
# - divide by `batch`, the number of examples that a batch has *on average*.
#
# (A coin of its own draws each example into the batch. So a batch may have none at all:
# then the noise is all there is.)
#
# <details><summary>Hint 1</summary>
#
# First one norm for each example, from all arrays: sum up the squares of each array's
# rows.
# </details>
# <details><summary>Hint 2</summary>
#
# `torch.einsum("n,n...->...", factors, gradients)` multiplies each row by its factor, and
# sums up.
# </details>
# <details><summary>Hint 3</summary>
#
# An example whose gradient is 0 has a norm of 0: do not divide by it.
# </details>


# %%
def private_gradient(
    each: dict[str, torch.Tensor],
    max_norm: float,
    noise: dict[str, torch.Tensor],
    batch: int,
) -> dict[str, torch.Tensor]:
    """Return the clipped, noisy mean of the examples' gradients."""
    ### BEGIN SOLUTION
    squares = sum(g.flatten(1).square().sum(dim=1) for g in each.values())
    factors = max_norm / squares.sqrt().clamp(min=max_norm)
    return {
        name: (torch.einsum("n,n...->...", factors, g) + noise[name]) / batch
        for name, g in each.items()
    }
    ### END SOLUTION


# %%
check("12.3", private_gradient)

# %% [markdown] tags=["solution"]
# **Why this.** One factor for each example and all its arrays keeps its direction, and
# its length in the sum. **What people get wrong:** they clip each array on its own, so
# that an example may be longer than `max_norm`; they clip the sum, which lets one example
# take all of it; or they divide by the number that was drawn, which itself tells
# something.

# %% [markdown]
# ## Three hospitals hide their patients
#
# With the gradients in one table, a step of DP-SGD is that of exercise 12.3, with one
# array for all:


# %%
def private_step(
    net: nn.Module,
    features: torch.Tensor,
    labels: torch.Tensor,
    z: float,
    batch: int,
    max_norm: float = CLIP,
) -> None:
    total = z * max_norm * torch.randn(len(flat(net)))
    if len(labels):
        each = per_example(net, features, labels)
        total += clip(each, max_norm).sum(dim=0)
    move(net, -LR * total / batch)


# %% [markdown]
# Three hospitals with 1,333 examples each take three such steps a round. All examples are
# in each step, so nothing is drawn. ($\delta$ is 1e-5 here: 0.001 is more than 1 / 1,333.)


# %%
RUNS = {  # rounds, how long a gradient may be, epsilon
    "not clipped": (8, 1e6, math.inf),
    "clipped": (8, CLIP, math.inf),
    "private": (8, CLIP, 1.0),
    "clipped 40": (40, CLIP, math.inf),
    "private 40": (40, CLIP, 1.0),
}


def hospitals(seed: int, *, run: str) -> dict[str, float]:
    rounds, max_norm, epsilon = RUNS[run]
    net, shares = make_net(), share_out(3)
    z = noise_for(epsilon, 3 * rounds, delta=1e-5)
    for _ in range(rounds):
        updates = []
        for features, labels in shares:
            local = deepcopy(net)
            for _ in range(3):
                n = len(labels)
                private_step(local, features, labels, z, n, max_norm)
            updates.append(flat(local) - flat(net))
        move(net, torch.stack(updates).mean(dim=0))
    return {"accuracy": accuracy(net)}


# %% [markdown] tags=["slide"]
# **Predict:** eight rounds. How much accuracy does the clipping cost, and how much the
# noise for $\varepsilon$ = 1? What do 40 rounds change, for the *same* $\varepsilon$ in
# all?

# %% tags=["slide-then", "slide-output", "nbval-ignore-output"]
three = by_seed(stored("12", "hospitals"), "run")[[*RUNS]]
live = hospitals(0, run="private 40")
print(f"private 40, run here: {live['accuracy']:.2f}; 20 seeds:")
print(three.quantile([0.05, 0.5, 0.95]).round(2).T.to_string())

# %% jupyter={"source_hidden": true}
# What is said below, checked.
clipping = three["not clipped"] - three["clipped"]
assert (clipping > 0.1).all() and round(clipping.median(), 2) == 0.13
assert (three["clipped"] - three["private"] < 0.03).all()
assert (three["private 40"] - three["private"] > 0.09).all()
assert round(three["private 40"].median(), 2) == 0.82
steps = [noise_for(1.0, n, delta=1e-5) for n in (24, 120)]
assert [round(z) for z in steps] == [20, 44]

# %% [markdown]
# - **The clipping** costs 13 points (the median of the differences, seed by seed; the
#   table is rounded), more than 10 in 20 of 20 seeds. Its steps are short, and 24 of
#   them do not lead far.
# - **The noise** costs less than 3 points, in 20 of 20: each hospital hides one example
#   among 1,333. It does not hide the hospital itself.
# - **More rounds** give most of it back, for the same $\varepsilon$: 0.82, more than 9
#   points above eight rounds, in 20 of 20. The way is five times as long, and $z$ rises
#   only from 20 to 44, by a factor of about $\sqrt 5$.

# %% [markdown] tags=["slide"]
# Now 100 clients again, with 40 examples each. How does a client count? It pays for
# every step that it takes, in this message and in all before. But a ClientApp forgets
# all but `context.state` (lesson 04). So the accountant's ledger lives there. Each step
# draws every example with a chance of 1/4: a Poisson draw, and nobody sees it.


# %%
import json


# A client has 40 examples: a delta of 0.001 is small enough.
def accountant_of(context: Context, examples: int) -> RdpAccountant:
    kinds = NeighboringRelation.ADD_OR_REMOVE_ONE, SamplingMethod.POISSON
    config = PrivacyConfig(DELTA, examples, *kinds)
    accountant = RdpAccountant(config, orders=tuple(range(2, 64)))
    if "privacy" in context.state and context.run_config["remembers"]:
        ledger = context.state["privacy"]["ledger"]
        accountant.load_state_dict(json.loads(ledger))
    return accountant


# %%
private_app = ClientApp()


@private_app.train()
def train_privately(message: Message, context: Context) -> Message:
    net = load_net(message.content["arrays"])
    images, labels = load_own(context)
    n, batch = len(labels), len(labels) // 4
    accountant = accountant_of(context, n)
    for _ in range(4):
        drawn = torch.rand(n) < batch / n
        private_step(net, shrink(images[drawn]), labels[drawn], 1.0, batch)
        accountant.compose(GaussianPrivacyEvent(1.0, batch, n))
    ledger = json.dumps(accountant.state_dict())
    context.state["privacy"] = ConfigRecord({"ledger": ledger})
    metrics = {"weight": 1, "epsilon": accountant.get_epsilon(DELTA)}
    content = {
        "arrays": ArrayRecord(net.state_dict()),
        "metrics": MetricRecord(metrics),
    }
    return Message(RecordDict(content), reply_to=message)


# %% [markdown] tags=["slide"]
# **Predict:** five rounds, once with `remembers`, once without. What does the client say
# that it has spent?


# %% tags=["slide-then"]
def told_by_round(remembers: bool) -> list[float]:
    config = {"remembers": remembers}
    options = {"run_config": config, "seed": 0}
    grid = InProcessGrid(private_app, NUM_CLIENTS, **options)
    node, arrays, told = next(iter(grid.get_node_ids())), start, []
    for _ in range(5):
        content = RecordDict({"arrays": arrays, "config": ConfigRecord()})
        (reply,) = grid.send_and_receive([Message(content, node, "train")])
        arrays = reply.content["arrays"]
        told.append(round(reply.content["metrics"]["epsilon"], 2))
    return told


remembered, forgotten = told_by_round(True), told_by_round(False)
print("ledger in context.state:", remembered)
print("a new one each time:    ", forgotten)
assert remembered[0] == forgotten[0] and len({*forgotten}) == 1
assert remembered == sorted({*remembered})

# %% [markdown]
# The forgetful one makes a new accountant in each message. So it counts the 4 steps of one round. It has taken 20, and will say the same after
# a hundred rounds.
#
# One more trap: the price is that of a Poisson draw. A loader that shuffles and cuts
# batches of equal size is no such draw. (And the number of a client's examples counts as
# public here.)

# %% [markdown] tags=["slide"]
# ## The attacks again
#
# Two attacks of [lesson 11](11_what_updates_give_away.ipynb) in a small form, and a new
# one. The first asks: *was this image among the client's?* It guesses that images with a
# low loss are members. The **AUC** says how often a member's loss is below a stranger's.
#
# The client has 40 images and takes 100 steps of DP-SGD, each with all of them. The
# **control** is the same attack on 40 images of another client.

# %%
STEPS = 100


@torch.no_grad()
def losses(
    net: nn.Module, features: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    return cross_entropy(net(features), labels, reduction="none")


def auc(members: torch.Tensor, others: torch.Tensor) -> float:
    return (members[:, None] < others).float().mean().item()


def membership(seed: int, *, epsilon: float) -> dict[str, float]:
    (own, another), net = share_out(NUM_CLIENTS)[:2], make_net()
    z = noise_for(epsilon, STEPS)
    for _ in range(STEPS):
        private_step(net, *own, z, len(own[1]))
    others = losses(net, *strangers())
    return {
        "auc": auc(losses(net, *own), others),
        "control": auc(losses(net, *another), others),
        "accuracy": accuracy(net),
    }


# %% [markdown]
# **Predict:** without noise the AUC is about 0.8. What $\varepsilon$ does it take to
# bring it down to 0.6, and what is the model worth then?

# %% tags=["slide-then", "slide-output"]
attacked = stored("12", "membership")
found, control, right = (
    by_seed(attacked, "epsilon", metric=metric)
    for metric in ("auc", "control", "accuracy")
)
drop = -found.sub(found[math.inf], axis=0)
summary = {
    "z": [noise_for(epsilon, STEPS) for epsilon in found],
    "AUC": found.median(),
    "control": control.median(),
    "above control": [held(found[e] > control[e]) for e in found],
    "below ε = inf": [held(drop[e] > 0) for e in found],
    "accuracy": right.median(),
}
print(pd.DataFrame(summary).round(2).to_string())

# %% jupyter={"source_hidden": true}
# What is said below, checked.
lost, above = drop.median().round(2), (found > control).sum()
assert (lost[1.0], lost[3.0], lost[30.0]) == (0.21, 0.14, 0.03)
assert (drop > 0).sum()[[1.0, 3.0, 30.0, 100.0]].tolist() == [20, 20, 16, 13]
assert above[1.0] == 17 and (above[found.columns > 1] == 20).all()
assert right.median().round(2)[[3.0, math.inf]].tolist() == [0.2, 0.61]
assert (right[3.0] < right[math.inf] - 0.2).all()

# %% [markdown]
# - **The attack fades by degrees.** With $\varepsilon$ = 1 its AUC loses 0.21 (the
#   median of the differences, seed by seed), with 3 it loses 0.14, in 20 of 20 seeds.
#   With 30 it loses 0.03, in 16 of 20. With 100, it can hardly be told apart from no
#   noise: it is lower in 13 of 20.
# - **It is not dead:** with $\varepsilon$ = 3 it is above its control in 20 of 20, with 1
#   in 17. (The control is a little below 0.5. It is the fair one: 40 training images
#   that the client never saw.)
# - **The model fades, too,** and sooner. For an AUC of 0.6 it takes an $\varepsilon$
#   between 1 and 3. There the model is right in only 12 to 20 of 100 cases, instead of
#   61. Forty examples are a small crowd.

# %% [markdown] tags=["slide"]
# The second attack divides. A client with *one* image sends the gradient of a dense
# layer. Each row of it is the image times a number: the label's probability, less 1 for
# the true label. The gradient of that row's bias is that number. So row / bias is the
# image.
#
# And a third: the server has a list of 4,000 images, and the client's is among them. It
# computes what each of them would send, and takes the nearest.
#
# Both ask *which* image it is. So neighbours are **replaced**, and $z$ counts as $z / 2$.


# %%
def alike(one: torch.Tensor, other: torch.Tensor) -> float:
    pair = torch.stack([one.flatten(), other.flatten()])
    return torch.corrcoef(pair)[0, 1].abs().item()


def rows_of(layer: nn.Linear, images: torch.Tensor, labels: torch.Tensor):
    images = images.flatten(1)
    errors = layer(images).softmax(dim=1) - one_hot(labels, 10)
    images = torch.cat([images, torch.ones(len(images), 1)], dim=1)
    return clip((errors[:, :, None] * images[:, None]).flatten(1))


def divide(sent: torch.Tensor) -> torch.Tensor:
    rows = sent.view(10, -1)
    row = rows[rows[:, -1].abs().argmax()]
    return row[:-1] / row[-1]


# %%
@torch.no_grad()
def steal(seed: int, *, noise: float) -> dict[str, float]:
    images, labels = load_centralized()[0].dataset.tensors
    layer = nn.Linear(images[0].numel(), 10)
    listed = rows_of(layer, images, labels)
    sent = listed[seed] + noise * CLIP * torch.randn(len(listed[0]))
    nearest = (listed - sent).norm(dim=1).argmin().item()
    return {
        "division": alike(divide(sent), images[seed]),
        "from a list": float(nearest == seed),
    }


# %% [markdown]
# **Predict:** with how much noise $z$ does each of them fail, and what $\varepsilon$ is
# that?

# %% tags=["slide-then", "slide-output"]
stolen = stored("12", "stolen")
alikeness = by_seed(stolen, "noise", metric="division")
hits = by_seed(stolen, "noise", metric="from a list") == 1
seen = pd.DataFrame(
    {
        "ε": [f"{epsilon_of(z / 2, 1):,.1f}" if z else "∞" for z in hits],
        "division: correlation": alikeness.median().round(2),
        "from a list: found": [held(hits[z]) for z in hits],
    }
)
print(seen.to_string())

# %% jupyter={"source_hidden": true}
# What is said below, checked.
assert hits.sum()[[0.0, 0.03, 0.1, 1.0]].tolist() == [20, 20, 15, 0]
assert (alikeness[0.01] > 0.75).all() and alikeness[0.1].max() < 0.3
assert (alikeness[0.03] > 0.5).sum() == 7
assert round(epsilon_of(0.1 / 2, 1)) == 272
assert round(epsilon_of(1.0 / 2, 1), 1) == 8.4

# %% [markdown]
# - **The division ends first:** with $z$ = 0.03 the correlation is above 0.5 in 7 of 20
#   seeds, with 0.1 in none. But 0.1 means an $\varepsilon$ of 272, which promises nothing.
#   And it hides nothing: from the list, the server still picks the right one of 4,000 in
#   15 of 20 seeds.
# - At $z$ = 1, with $\varepsilon$ = 8.4, it picks the right one in none. ($\delta$ is 0.001
#   here. A smaller one makes each $\varepsilon$ larger.)
#
# So "the attack failed" is no measure of privacy. $\varepsilon$ is one: it bounds all
# attacks, also those that nobody has thought of yet.

# %% [markdown]
# Who is protected from whom, by which tool, is on one page for all three lessons:
# [what was promised to whom](promises.md).

# %% [markdown] tags=["slide"]
# ## Takeaways
#
# - **A coin** lets a client deny its answer, and the mean survives. $\varepsilon$ bounds
#   how much more likely any result is with you than without.
# - **Clip, then add noise** of $z \cdot C / n$ to the mean. Who adds it decides who has
#   to be trusted. If clients forget to clip, nothing says so.
# - **The accountant** adds up the rounds, and stops the run in time. It counts only
#   what it is told of: no metrics, no earlier runs. Its number holds for equal weights.
#   Sampling lowers it only where nobody sees who was drawn.
# - **Accuracy** depends on $\varepsilon$ and on the number of clients: the noise of the
#   mean falls with $n$, and small federations pay most.
# - **DP-SGD** hides examples, also where clients are few. Clipped steps are short, so it
#   takes more rounds. Its ledger belongs in `context.state`. Attacks fade with noise, the
#   simple ones long before $\varepsilon$ is small.

# %% [markdown]
# ## Check yourself
#
# <details><summary>1. A vendor says: "we use differential privacy". What do you
# ask?</summary>
#
# Which $\varepsilon$ and $\delta$, over all rounds and runs. Which neighbours: clients
# or examples, removed or replaced. Who adds the noise, and so who is trusted. What else
# leaves: metrics, counts, the evaluation of clients.
# </details>
#
# <details><summary>2. With $z$ = 1, 100 clients pay $\varepsilon$ = 20.5 for 15 rounds. What
# would 1,000 clients pay, and what would they gain?</summary>
#
# For the same $\delta$, the same: the price depends on $z$, on the rounds and on
# $\delta$. (For 1,000 clients, 0.001 is too large a $\delta$. With 0.0001 it is 22.8.)
# But the noise of the mean is a tenth. So they can afford a larger $z$, and with it a
# smaller $\varepsilon$.
# </details>
#
# <details><summary>3. A hospital has 5,000 patients and protects each by DP-SGD. Is the hospital
# hidden?</summary>
#
# No. The model may still show that its patients have one diagnosis much more often than
# others do. To hide the hospital takes clients as neighbours.
# </details>
#
# <details><summary>4. A client has spent its $\varepsilon$. Its operator starts a new run, with a
# new state. Is all as before?</summary>
#
# The state is, the data are not. What was given away stays given away. A ledger that
# belongs to data must outlive the run: in a file of the client.
# </details>

# %% [markdown]
# **Next:** [13 · Secure aggregation](13_secure_aggregation.ipynb), on a sum that nobody
# sees the parts of.

# %% [markdown]
# ## Appendix: for a second reading
#
# ### The exact price of a bell
#
# Which set $S$ of results breaks the promise most? All those where the one bell is more
# than $e^\varepsilon$ times as high as the other. They lie beyond a line, at
# $C \, (1/2 + \varepsilon z^2)$. What the one bell has beyond it, less
# $e^\varepsilon$ times what the other has, is the $\delta$ that $\varepsilon$ needs (Balle and Wang, 2018,
# [arXiv:1805.06530](https://arxiv.org/abs/1805.06530)):

# %%
from scipy.optimize import brentq
from scipy.stats import norm


def delta_of(epsilon: float, z: float) -> float:
    middle, shift = 1 / (2 * z), epsilon * z
    worse = math.exp(epsilon) * norm.cdf(-middle - shift)
    return norm.cdf(middle - shift) - worse


def exact_epsilon(z: float) -> float:
    return brentq(lambda epsilon: delta_of(epsilon, z) - DELTA, 0, 50)


print("rounds  exact  Rényi")
for k in (1, 4, 15):  # k rounds are one with z / sqrt(k)
    exact = exact_epsilon(1 / k**0.5)
    print(f"{k:6} {exact:6.2f} {epsilon_of(1.0, k):6.2f}")
    assert exact < epsilon_of(1.0, k) < 1.13 * exact
assert exact_epsilon(1 / 4**0.5) < 8.0 < epsilon_of(1.0, 4)

# %% [markdown]
# Rényi is an upper bound, and close. Counted exactly, a fourth round would fit into the
# budget of 8.
#
# ### A round that is lost

# %%
import logging

logging.getLogger("flwr").setLevel(logging.ERROR)  # hides the warning
failing_app = ClientApp()


@failing_app.train()
def fail_once(message: Message, context: Context) -> Message:
    if context.node_config["partition-id"] == 0:
        raise OSError("disk full")
    return train(message, context)


# %%
cases = (("an error", failing_app, 100), ("missing", client_app, 99))
for what, app, come in cases:
    for accountant in (None, new_accountant()):
        strategy = DifferentialPrivacyServerSideFixedClipping(
            averaging(), 1.0, CLIP, NUM_CLIENTS, accountant=accountant
        )
        replies = one_round(app, strategy)[:come]
        arrays, _ = strategy.aggregate_train(1, replies)
        made = "a model" if arrays else "no model"
        kind = "without" if accountant is None else "with"
        print(f"{what}, {kind} an accountant: {made}")
        assert bool(arrays) == (app is client_app and accountant is None)
        spent = strategy.privacy_spent()
        assert spent is None or spent.num_releases == 0

# %% [markdown]
# A release is a noisy model that was made: there was none, so nothing was spent. Only
# Flower's log says so: at the level `INFO` if a reply is an error, and at `WARNING` if
# one is missing. The model without an accountant is a mean of 99, and its noise is made
# for 100: a little too small.
#
# ### A fixed number of clients, drawn by chance
#
# `FedAvg` draws without replacement. That is accounted for other neighbours: one client
# *replaced* by another. Then a clipped sum moves by up to $2C$, so that $z$ = 1 counts as
# 0.5:

# %%
fixed = sampled("without-replacement", "replace-one", 0.5, 15)
too_low = sampled("without-replacement", "replace-one", 1.0, 15)
print(f"15 rounds: {fixed:.1f}, and with z left at 1: {too_low:.1f}")
assert (round(fixed, 1), round(too_low, 1)) == (16.6, 3.8)

# %% [markdown]
# Flower's `RdpAccountant` takes the $z$ that you give it, and says 3.8.
#
# ### What `LocalDpMod` gives for what one asks
#
# You tell it $\varepsilon$ and $\delta$. Its standard deviation is
# $\text{sensitivity} \cdot \sqrt{2 \ln(1.25/\delta)} / \varepsilon$. That formula (Dwork and Roth, 2014,
# appendix A) is proven for $\varepsilon$ below 1.

# %%
from flwr.clientapp.mod import LocalDpMod

local_app = ClientApp()
private = LocalDpMod(CLIP, sensitivity=2 * CLIP, epsilon=0.9, delta=DELTA)
local_app.train(mods=[private])(train)
std = 2 * CLIP * math.sqrt(2 * math.log(1.25 / DELTA)) / 0.9
noisy, trained = (
    [after(r.content["arrays"]) for r in one_round(app, averaging())]
    for app in (local_app, client_app)
)
noise = torch.stack(noisy) - clip(torch.stack(trained))
print(f"noise of one reply: {noise.std():.2f}, by the formula: {std:.2f}")
print(f"of the mean of 100: {noise.mean(dim=0).std():.2f}")
assert abs(noise.std() - std) < 0.01 * std
assert abs(noise.mean(dim=0).std() - std / 10) < 0.015 * std

# %% [markdown]
# The exact $\varepsilon$ of one message, where any two updates are neighbours:

# %%
exact = {}
for asked in (0.9, 10):
    for sensitivity in (1, 2):
        std = sensitivity * math.sqrt(2 * math.log(1.25 / DELTA)) / asked
        exact[asked, sensitivity] = exact_epsilon(std / 2)
        print(f"asked {asked}, sensitivity {sensitivity} C:", end=" ")
        print(f"{exact[asked, sensitivity]:.1f}")
assert round(exact[10, 1]) == 30 and round(exact[10, 2]) == 11

# %% [markdown]
# Who gives it $C$, and asks for 10, gets 30. With the right sensitivity, $2C$, it is 11:
# the formula does not hold above 1.
#
# ### A crash, and a number that is not clipped
#
# - A client that changes nothing at all has an update of length 0, and the strategy
#   divides by it. The run ends.
# - An array that is a single number, of shape `()`, is not clipped. BatchNorm's
#   `num_batches_tracked` is one. (Its running variances get noise, too, and may turn
#   negative. So send no BatchNorm: GroupNorm has no statistics.)

# %%
strategy = DifferentialPrivacyServerSideFixedClipping(
    averaging(), 1.0, CLIP, NUM_CLIENTS
)
replies = one_round(client_app, strategy)
replies[0].content["arrays"] = start
print(outcome(strategy.aggregate_train, 1, replies))

# %%
single = ClientApp()


@single.train(mods=[fixedclipping_mod])
def grow(message: Message, context: Context) -> Message:
    grown = {"row": torch.tensor([30.0]), "single": torch.tensor(40.0)}
    content = {"arrays": ArrayRecord(grown)}
    return Message(RecordDict(content), reply_to=message)


grid = InProcessGrid(single, 1, seed=0)
zeros = {"row": torch.zeros(1), "single": torch.tensor(0.0)}
config = ConfigRecord({"clipping_norm": 5.0})
content = RecordDict({"arrays": ArrayRecord(zeros), "config": config})
message = Message(content, next(iter(grid.get_node_ids())), "train")
(reply,) = grid.send_and_receive([message])
sent = reply.content["arrays"].to_torch_state_dict()
print({name: value.tolist() for name, value in sent.items()})
assert (sent["row"].item(), sent["single"].item()) == (3.0, 40.0)

# %%
from course_utils.exercises import progress

progress("12")
