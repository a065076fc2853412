"""Right answers to lesson 11's exercises that are written in other ways."""

import bisect

import torch
from sklearn.metrics import roc_auc_score, roc_curve

RIGHT = {}

# ---------------------------------------------------------------------- 11.1 input_of


def by_a_loop(weight_grad, bias_grad):
    best, result = 0.0, None
    for row, b in zip(weight_grad.tolist(), bias_grad.tolist(), strict=True):
        if abs(b) > best:
            best, result = abs(b), [w / b for w in row]
    return result


def by_sorting(weight_grad, bias_grad):
    order = torch.argsort(bias_grad**2, descending=True)
    if not bias_grad.any():
        return None
    return (weight_grad[order] / bias_grad[order, None])[0]


RIGHT["11.1"] = [by_a_loop, by_sorting]

# --------------------------------------------------------------------- 11.2 counts_of


def one_by_one(bias_grad, usual, num_examples):
    pairs = zip(bias_grad.tolist(), usual.tolist(), strict=True)
    guess = [max(0.0, num_examples * (p - g)) for g, p in pairs]
    counts = [int(each) for each in guess]
    while sum(counts) < num_examples:
        lost = [g - c for g, c in zip(guess, counts, strict=True)]
        counts[lost.index(max(lost))] += 1
    return counts


RIGHT["11.2"] = [one_by_one]

# ----------------------------------------------------------------- 11.3 gradient_sent


def name_by_name(old, new, lr, weight_decay):
    found = {}
    for name, value in old.items():
        if value.dtype.is_floating_point:
            moved = (new[name] - value) / -lr
            found[name] = moved - value * weight_decay
    return found


RIGHT["11.3"] = [name_by_name]

# --------------------------------------------------------------------- 11.4 membership


def by_scikit_learn(members, others, allowed):
    is_member = [1] * len(members) + [0] * len(others)
    scores = [-loss for loss in [*members, *others]]
    false, true, _ = roc_curve(is_member, scores, drop_intermediate=False)
    return roc_auc_score(is_member, scores), true[false <= allowed].max()


def by_counting(members, others, allowed):
    ordered, size = sorted(others), len(others)
    wins = found = 0
    for loss in members:
        below = bisect.bisect_left(ordered, loss)
        up_to = bisect.bisect_right(ordered, loss)
        wins += size - up_to + (up_to - below) / 2
        found += up_to / size <= allowed
    return [wins / size / len(members), found / len(members)]


RIGHT["11.4"] = [by_scikit_learn, by_counting]
