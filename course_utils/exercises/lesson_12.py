"""Lesson 12's exercises."""

import math
import random
from typing import Any

import numpy as np
import torch

from course_utils.exercises.engine import Case, Exercise

# ------------------------------------------------------------------ 12.1 survey_result


def survey(yes: int, n: int, p: float) -> tuple[float, float]:
    """Put the lie's probability first: the oracle."""
    q = 1 - p
    share = (yes / n - q) / (p - q)
    return share, math.log(p / q)


SURVEY = Exercise(
    "12.1",
    "you can ask what nobody would say, and know what an answer costs.",
    cases=[
        Case(50, 80, 0.75, gives=(0.75, 1.0986123)),
        Case(10, 100, 0.8, gives=(-1 / 6, 1.3862944)),
        Case(19, 20, 0.9, gives=(1.0625, 2.1972246)),
    ],
    draw=lambda rng: Case(rng.randint(1, 40), rng.randint(41, 99), rng.uniform(0.6, 1)),
    oracle=survey,
    parts=("the share", "epsilon"),
    mistakes="""
        this is the share that said yes: some of them did not tell the truth
            (yes / n - q) / (p - q) -> yes / n
        what remains after you take off the lies has to be stretched: divide by 2 p - 1
            / (p - q) ->
            / (p - q) -> / p
        take off the share that would say yes if nobody's truth were yes: it is 1 - p
            yes / n - q -> yes / n
            yes / n - q -> yes / n - p
        the share is that of n: yes is a number of clients
            yes / n -> yes
        cut off at 0 and 1, the estimate is not unbiased any more
            return share -> return min(max(share, 0), 1)
            return share -> return max(share, 0)
            return share -> return min(share, 1)
        this is the factor: epsilon is its logarithm
            math.log(p / q) -> p / q
        epsilon is the natural logarithm
            math.log(p / q) -> math.log2(p / q)
            math.log(p / q) -> math.log10(p / q)
        a yes has the probability p if the truth is yes, and 1 - p if it is no: epsilon
        is the logarithm of their ratio
            math.log(p / q) -> math.log(1 / q)
            math.log(p / q) -> -math.log(p)
            math.log(p / q) -> math.log(q / p)
            math.log(p / q) -> math.log(2 * p)
        that many answers cost as much as one: each client gives one
            math.log(p / q) -> n * math.log(p / q)
        the share comes first, then epsilon
            return share, math.log(p / q) -> return math.log(p / q), share
    """,
    otherwise={
        "the share": "the share should solve yes/n = p t + (1 - p)(1 - t)",
        "epsilon": "epsilon is the logarithm of p / (1 - p)",
    },
)

# ------------------------------------------------------------------ 12.2 rounds_within


def price(rdp: np.ndarray, delta: float, orders: list) -> float:
    """Convert, and take the best order."""
    a = np.array(orders, float)
    return (rdp + np.log1p(-1 / a) - np.log(delta * a) / (a - 1)).min().item()


def converted(each: list, delta: float, orders: list) -> list[float]:
    """Add up the rounds' costs for each order, and convert after each round."""
    return [price(r, delta, orders) for r in np.cumsum(each, axis=0)]


def affordable(
    noise: list, budget: float, delta: float, orders: list
) -> tuple[int, float]:
    """Sum up all rounds, then look where it is too much: the oracle."""
    each = [np.array(orders) / (2 * z**2) for z in noise]
    sums = converted(each, delta, orders)
    paid = [p for p in sums if p <= budget]
    count, spent = len(paid), max(paid, default=0.0)
    return count, spent


def added_up(each: list, delta: float, orders: list) -> list[float]:
    """Convert before adding up, as people do."""
    return np.cumsum([price(r, delta, orders) for r in each]).tolist()


def round_by_round(each: list, delta: float, orders: list) -> list[float]:
    """Forget the rounds before, as people do."""
    return [price(r, delta, orders) for r in each]


def by_one_order(each: list, delta: float, orders: list) -> list[float]:
    """Keep the order that is best for the first round, as people do."""
    alone = [price(each[0][[i]], delta, [a]) for i, a in enumerate(orders)]
    best = [int(np.argmin(alone))]
    sums = np.cumsum(each, axis=0)
    return [price(r[best], delta, [orders[best[0]]]) for r in sums]


def those_that_fit(each: list, budget: float, delta: float, orders: list) -> list:
    """Leave out a round that is too dear, and run cheaper ones after it."""
    run = []
    for cost in each:
        if converted([*run, cost], delta, orders)[-1] <= budget:
            run.append(cost)
    return run


def random_plan(rng: random.Random) -> Case:
    """Draw a plan, whose budget ends somewhere in it."""
    noise = [rng.uniform(0.8, 5) for _ in range(rng.randint(4, 8))]
    orders = [1.5, 2.0, 3.0, 5.0, 8.0, 16.0]
    return Case(noise, rng.uniform(3, 12), 10 ** rng.uniform(-5, -3), orders)


PLAN = Exercise(
    "12.2",
    "your run knows when to stop.",
    cases=[
        # By the order 2 alone: r + ln(1/2) - ln(0.02). A round with z = 1 adds 1 to r.
        Case([1.0, 1.0, 1.0], 5.5, 0.01, [2.0], gives=(2, 5.2188758)),
        Case([1.0, 2.0, 0.5], 100.0, 0.01, [2.0], gives=(3, 8.4688758)),
        Case([0.5, 4.0], 6.0, 0.01, [2.0], gives=(0, 0.0)),
        # The order 4 is best for the first round, 2 for the first two together.
        Case([1.0, 0.5, 1.0], 8.5, 0.001, [2.0, 4.0], gives=(1, 3.5531413)),
        Case([1.0, 0.5, 1.0], 10.6, 0.001, [2.0, 4.0], gives=(2, 10.5214609)),
    ],
    draw=random_plan,
    oracle=affordable,
    parts=("the rounds", "epsilon"),
    mistakes="""
        add up for each order, and convert the sum: to add up epsilons says too much
            converted( -> added_up(
        use the delta that is given
            converted(each, delta -> converted(each, 1e-3
        use the orders that are given
            each = [ -> orders = [1 + x / 10 for x in range(1, 100)]; each = [
        the run ends at the first round that does not fit: no later one is run
            converted(each -> converted(those_that_fit(each, budget, delta, orders)
        another order may be best after the next round: keep the sums of all
            converted( -> by_one_order(
        the costs of rounds add up: this looks at each round alone
            sums = converted(each -> sums = round_by_round(each
        a round costs alpha / (2 z²): here z is not squared
            z**2 -> z
        a round costs alpha / (2 z²): here the 2 is missing
            (2 * z**2) -> z**2
        do not run the round that would cost too much
            count, spent = len(paid), -> count, spent = len(paid) + 1,
        return what was spent by the rounds that are run
            max(paid, default=0.0) -> sums[min(len(paid), len(sums) - 1)]
        return what was spent, not what is left
            max(paid, default=0.0) -> budget - max(paid, default=0.0)
        return what was spent, not the budget
            max(paid, default=0.0) -> budget
        nothing is spent if no round is run
            max(paid, default=0.0) -> max(paid, default=sums[0])
        the number of rounds comes first, then epsilon
            return count, spent -> return spent, count
    """,
    otherwise={
        "the rounds": "count the rounds whose costs together stay within the budget",
        "epsilon": "epsilon is that of the rounds that are run, by the best order",
    },
)

# --------------------------------------------------------------- 12.3 private_gradient


def one_by_one(each: dict, most: float, noise: dict, batch: int) -> dict:
    """Go through the examples: the oracle."""
    total, n = {k: 0 * v for k, v in noise.items()}, len(each["bias"])
    for i in range(n):
        own = {k: rows[i] for k, rows in each.items()}
        norms = [v.norm() for v in own.values()]
        norm = math.hypot(*norms)
        factor = min(1.0, most / max(norm, 1e-9))
        for k, v in own.items():
            total[k] = total[k] + factor * v
    return {k: (v + noise[k]) / batch for k, v in total.items()}


def as_one(total: dict, most: float) -> dict:
    """Clip the sum, as people do."""
    norm = math.hypot(*(v.norm() for v in total.values()))
    return {k: v * min(1.0, most / max(norm, 1e-9)) for k, v in total.items()}


def gradients_of(weight: list, bias: list, *others: Any, **gives: Any) -> Case:
    """Make the case of some examples: weights of shape (1, 2), and one bias."""
    weight, bias = torch.tensor(weight), torch.tensor(bias)
    each = {"weight": weight.reshape(-1, 1, 2), "bias": bias.reshape(-1, 1)}
    noise = {"weight": torch.tensor([[0.5, -1.0]]), "bias": torch.tensor([2.0])}
    return Case(each, others[0], noise, others[1], **gives)


def random_batch(rng: random.Random) -> Case:
    """Draw the gradients of a batch."""
    n = rng.randint(2, 6)
    weight = [[rng.gauss(0, 2), rng.gauss(0, 2)] for _ in range(n)]
    bias = [rng.gauss(0, 2) for _ in range(n)]
    return gradients_of(weight, bias, 2.0, rng.randint(7, 9))


GRADIENT = Exercise(
    "12.3",
    "no example moves your model further than its share.",
    cases=[
        # Norms 7 and 2.5, clipped to 3.5: factors 1/2 and 1.
        gradients_of(
            [[6.0, 2.0], [1.5, 0.0]],
            [3.0, 2.0],
            3.5,
            5,
            gives={"weight": [[1.0, 0.0]], "bias": [1.1]},
        ),
        # The two pull against each other, and their sum is short.
        gradients_of(
            [[8.0, 0.0], [-6.0, 0.0]],
            [6.0, -8.0],
            5.0,
            4,
            gives={"weight": [[0.375, -0.25]], "bias": [0.25]},
        ),
        gradients_of(
            [[0.0, 0.0], [0.5, 0.0]],
            [0.0, 0.0],
            1.0,
            4,
            gives={"weight": [[0.25, -0.25]], "bias": [0.5]},
        ),
        gradients_of([], [], 1.0, 2, gives={"weight": [[0.25, -0.5]], "bias": [1.0]}),
    ],
    draw=random_batch,
    oracle=one_by_one,
    mistakes="""
        an example has one length over all its arrays: here each array is clipped alone
            factor * v -> v * min(1.0, most / max(v.norm(), 1e-9))
        nothing is clipped: an example may be as long as it likes
            min(1.0, most / max(norm, 1e-9)) -> 1.0
        clip each example, and not their sum
            min(1.0, most / max(norm, 1e-9)) -> 1.0
            & in total.items()} -> in as_one(total, most).items()}
        an example that is short enough stays as it is
            min(1.0, most / max(norm, 1e-9)) -> most / max(norm, 1e-9)
        a gradient may have a length of 0: do not divide by it
            min(1.0, most / max(norm, 1e-9)) -> min(norm, most) / torch.tensor(norm)
        the length is the root of the sum of the squares
            math.hypot(*norms) -> sum(norms)
            math.hypot(*norms) -> math.hypot(*norms) ** 2
        the noise is missing
            (v + noise[k]) -> v
        divide the noise by batch, too
            (v + noise[k]) / batch -> v / batch + noise[k]
        add the noise once, to the sum, and not for each example
            (v + noise[k]) -> (v + max(n, 1) * noise[k])
        divide by batch, the number that a draw has on average
            / batch for -> / max(n, 1) for
        this is the sum: divide it by batch
            (v + noise[k]) / batch -> v + noise[k]
    """,
    otherwise="each array should be the sum of the clipped examples, plus its noise, "
    "divided by batch",
)
