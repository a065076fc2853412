"""Right answers to lesson 13's exercises that are written in other ways."""

from fractions import Fraction
from math import prod

import numpy as np

RIGHT = {}
WRONG = {}

# ------------------------------------------------------------------- 13.1 masked_number


def step_by_step(me, number, masks, modulus):
    for other in masks:
        if other < me:
            number = (number + masks[other]) % modulus
        else:
            number = (number - masks[other]) % modulus
    return number


RIGHT["13.1"] = [
    step_by_step,
    lambda me, x, masks, m: int(x + sum(np.sign(me - o) * masks[o] for o in masks)) % m,
]
WRONG["13.1"] = [lambda me, number, masks, modulus: number]

# ------------------------------------------------------------------------ 13.2 from_sum


def by_numpy(total, scale, modulus):
    numbers = np.array(total[:-1], dtype=np.int64)
    numbers[numbers >= modulus // 2] -= modulus
    return numbers / (scale * total[-1])


RIGHT["13.2"] = [
    by_numpy,
    lambda t, scale, m: [
        (x if x < m / 2 else x - m) / (scale * t[-1]) for x in t[: len(t) - 1]
    ],
]
WRONG["13.2"] = [lambda total, scale, modulus: [x / scale for x in total]]

# ------------------------------------------------------------------------- 13.3 recover


def with_fractions(shares, prime):
    secret = sum(
        y * prod(Fraction(other, other - x) for other in shares if other != x)
        for x, y in shares.items()
    )
    return secret.numerator * pow(secret.denominator, -1, prime) % prime


def one_inverse(shares, prime):
    secret = 0
    for x, y in shares.items():
        others = [other for other in shares if other != x]
        below = prod(other - x for other in others) % prime
        secret += y * prod(others) * pow(below, -1, prime)
    return secret % prime


RIGHT["13.3"] = [with_fractions, one_inverse]
WRONG["13.3"] = [lambda shares, prime: max(shares.values())]

# ------------------------------------------------------------------ 13.4 answer_request


def in_one_loop(came, gone, letters, threshold):
    answer = {}
    for name, clients in (("seed", came), ("key", gone)):
        for number in clients:
            if number in answer or number not in letters:
                raise ValueError(f"{number} is asked for twice, or a stranger.")
            answer[number] = name
    if list(answer.values()).count("seed") < threshold:
        raise ValueError("There are too few.")
    return answer


RIGHT["13.4"] = [in_one_loop]
WRONG["13.4"] = [lambda came, gone, letters, threshold: dict.fromkeys(came, "seed")]
