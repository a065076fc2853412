"""Right answers to lesson 12's exercises that are written in other ways."""

import math

import torch

RIGHT = {}
WRONG = {}

# ------------------------------------------------------------------ 12.1 survey_result


def by_odds(yes, n, p):
    odds = p / (1 - p)
    return [0.5 + (yes / n - 0.5) * (odds + 1) / (odds - 1), math.log1p(odds - 1)]


RIGHT["12.1"] = [by_odds]
WRONG["12.1"] = [lambda yes, n, p: (2 * yes / n - 1 / 2, math.log(3))]

# ------------------------------------------------------------------ 12.2 rounds_within


def until_it_breaks(noise, max_epsilon, delta, orders):
    spent, inverse = 0.0, 0.0
    for done, z in enumerate(noise):
        inverse += 1 / (2 * z * z)
        costs = []
        for a in orders:
            end = math.log((a - 1) / a) - (math.log(delta) + math.log(a)) / (a - 1)
            costs.append(a * inverse + end)
        if min(costs) > max_epsilon:
            return [done, spent]
        spent = min(costs)
    return [len(noise), spent]


RIGHT["12.2"] = [until_it_breaks]
WRONG["12.2"] = [lambda noise, max_epsilon, delta, orders: (len(noise), max_epsilon)]

# --------------------------------------------------------------- 12.3 private_gradient


def by_one_table(each, max_norm, noise, batch):
    table = torch.cat([g.flatten(1) for g in each.values()], dim=1)
    norms = table.norm(dim=1, keepdim=True)
    total = (table / torch.maximum(norms / max_norm, torch.ones(1))).sum(dim=0)
    sizes = [noise[name].numel() for name in each]
    parts = zip(each, total.split(sizes), strict=True)
    return {n: (part.view_as(noise[n]) + noise[n]) / batch for n, part in parts}


RIGHT["12.3"] = [by_one_table]
WRONG["12.3"] = [
    lambda each, max_norm, noise, batch: {n: g.mean(dim=0) for n, g in each.items()}
]
