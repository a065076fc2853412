"""Lesson 13's exercises."""

import random
from itertools import pairwise

from course_utils.exercises.engine import Case, Exercise

# ------------------------------------------------------------------- 13.1 masked_number


def masked(me: int, number: int, masks: dict[int, int], modulus: int) -> int:
    """Add up the masks of both kinds: the oracle."""
    plus = sum(mask for other, mask in masks.items() if other < me)
    minus = sum(mask for other, mask in masks.items() if other > me)
    return (number + plus - minus) % modulus


def random_masks(rng: random.Random) -> Case:
    """Draw a client and its masks."""
    clients, modulus = rng.randint(3, 7), rng.choice([100, 1000, 2**16])
    me = rng.randint(1, clients)
    others = [n for n in range(1, clients + 1) if n != me]
    rng.shuffle(others)
    masks = {other: rng.randrange(modulus) for other in others}
    return Case(me, rng.randrange(modulus), masks, modulus)


MASKED = Exercise(
    "13.1",
    "each of your masks is in the sum once with plus and once with minus.",
    cases=[
        # Each mistake that is no matter of the modulo makes another number of this.
        Case(5, 3, {2: 1, 4: 6, 7: 3}, 100, gives=7),
        Case(2, 20, {1: 31, 3: 90}, 100, gives=61),
        Case(1, 7, {2: 31, 3: 58}, 100, gives=18),
        Case(3, 5, {1: 58, 2: 90}, 100, gives=53),
        # 12 is more than 11, and 9 is less, also where the masks are not.
        Case(11, 40, {9: 700, 12: 3, 13: 2, 2: 50}, 1000, gives=785),
    ],
    draw=random_masks,
    oracle=masked,
    mistakes="""
        the signs are turned round: of a pair, the higher client adds
            plus - minus -> minus - plus
        both of a pair add: nothing cancels
            plus - minus -> plus + minus
        both of a pair subtract: nothing cancels
            plus - minus -> -plus - minus
        compare the clients' numbers, not the masks
            other < me -> mask < me
            & other > me -> mask > me
        compare the other client with yourself: here it is compared with your number
            other < me -> other < number
            & other > me -> other >= number
        count modulo modulus at the end: this is negative, or too large
            (number + plus - minus) % modulus -> number + plus - minus
        the numbers are modulo modulus: 0 may come out, but not modulus
            % modulus -> % (modulus + 1)
            % modulus -> % (modulus - 1)
        this is the mask alone: add your number
            (number + plus - minus) -> (plus - minus)
        subtract the masks with higher clients, too
            plus - minus -> plus
        add the masks with lower clients, too
            plus - minus -> -minus
        this is your number as it is: mask it
            (number + plus - minus) -> number
    """,
    otherwise="the result should be the number under all masks",
)

# ------------------------------------------------------------------------- 13.2 recover


def recovered(shares: dict[int, int], prime: int) -> int:
    """Interpolate at 0 by Neville's scheme: the oracle."""
    xs, values = list(shares), list(shares.values())
    for step in range(1, len(xs)):
        for i, (low, high) in enumerate(pairwise(list(values))):
            a, b = xs[i], xs[i + step]
            values[i] = (b * low - a * high) * pow(b - a, -1, prime)
        values.pop()
    return values[0] % prime


def by_lagrange(
    shares: dict[int, int],
    prime: int,
    most: int | None = None,
    turned: bool = False,
    itself: bool = False,
    floats: bool = False,
) -> int:
    """Interpolate as the lesson says; the rest is for what people get wrong."""
    points, secret = list(shares.items())[:most], 0
    for x, y in points:
        for other, _ in points:
            if other != x:
                far = x - other if turned else other - x
                top = x if itself else other
                y = y * top / far if floats else y * top * pow(far, -1, prime)
        secret += y
    return secret % prime


def random_shares(rng: random.Random) -> Case:
    """Draw a curve, and as many points of it as it takes."""
    prime, threshold = rng.choice([97, 257, 2**13 - 1]), rng.randint(2, 5)
    curve = [rng.randrange(prime) for _ in range(threshold)]
    xs = rng.sample(range(1, 12), threshold)
    points = {x: sum(c * x**i for i, c in enumerate(curve)) % prime for x in xs}
    return Case(points, prime)


RECOVER = Exercise(
    "13.2",
    "from enough shares you get a secret back, and repair a round.",
    cases=[
        Case({1: 72, 3: 35}, 97, gives=42),
        # 10 + 3 x + 5 x**2 at 1, 2 and 4, modulo 97
        Case({1: 18, 2: 36, 4: 5}, 97, gives=10),
        # 5 + x**3 at 1, 2, 3 and 6, modulo 257
        Case({6: 221, 1: 6, 3: 32, 2: 13}, 257, gives=5),
        Case({4: 9}, 97, gives=9),
    ],
    draw=random_shares,
    oracle=recovered,
    mistakes="""
        use all shares: here only the first two are used
            lambda *given: by_lagrange(*given, most=2)
        the difference is turned round: divide by other - x
            lambda *given: by_lagrange(*given, turned=True)
        a share counts as often as the other points say: multiply by other, not by x
            lambda *given: by_lagrange(*given, itself=True)
        modulo a prime there are no fractions: divide by pow(..., -1, prime)
            lambda *given: by_lagrange(*given, floats=True)
            lambda *given: round(by_lagrange(*given, floats=True))
        count modulo prime at the end: this lies outside of 0 to prime - 1
            values[0] % prime -> values[0] % prime - prime
            values[0] % prime -> values[0] % prime + prime
        this is the sum of the shares: weigh them first
            values[0] % prime -> sum(shares.values()) % prime
        this is a share: the secret is the value at 0
            values[0] % prime -> [*shares.values()][0]
    """,
    otherwise="the result should be the value at 0, from 0 to prime - 1",
)

# ------------------------------------------------------------------ 13.3 answer_request


def answered(
    came: list[int], gone: list[int], letters: list[int], threshold: int
) -> dict[int, str]:
    """Look at each that is asked for: the oracle."""
    both = [n for n in came if n in gone]
    strangers = [n for n in [*came, *gone] if n not in letters]
    few = len(set(came)) < threshold
    if both or strangers or few:
        raise ValueError("I do not answer that.")
    return {**dict.fromkeys(came, "seed"), **dict.fromkeys(gone, "key")}


def random_request(rng: random.Random) -> Case:
    """Draw a request of an honest server."""
    letters = rng.sample(range(1, 20), rng.randint(4, 8))
    cut = rng.randint(2, len(letters))
    came, gone = letters[:cut], letters[cut:]
    return Case(came, gone, sorted(letters), rng.randint(2, cut))


FIVE = [1, 2, 3, 4, 5]
ALL_BUT_3 = {1: "seed", 2: "seed", 4: "key", 5: "seed"}

REQUEST = Exercise(
    "13.3",
    "your client never gives what would unmask somebody.",
    cases=[
        Case([5, 1, 2], [4], [2, 1, 5, 4], 3, gives=ALL_BUT_3),
        Case([1, 2, 5], [4], FIVE, 2, gives=ALL_BUT_3),
        Case([2, 4, 5], [], [2, 4, 5], 3, gives=dict.fromkeys([2, 4, 5], "seed")),
        Case([1, 2, 3, 4], [4, 5], FIVE, 3, gives=ValueError),
        Case([1, 2, 3, 6], [4], FIVE, 3, gives=ValueError),
        Case([1, 2, 3], [4, 6], FIVE, 3, gives=ValueError),
        Case([1], [], [1, 2], 3, gives=ValueError),
        Case([1, 2], [], FIVE, 3, gives=ValueError),
        Case([1, 2], [3, 4, 5], FIVE, 3, gives=ValueError),
        Case([1, 1, 1], [], FIVE, 3, gives=ValueError),
    ],
    draw=random_request,
    oracle=answered,
    mistakes="""
        a client came and is gone: both of its secrets are asked for, so refuse
            both or strangers -> strangers
        a number in came is not in letters: refuse
            [*came, *gone] -> gone
        a number in gone is not in letters: refuse
            [*came, *gone] -> came
        a number in came or gone is not in letters: refuse
            or strangers or -> or
        fewer than the threshold came: refuse
            or strangers or few -> or strangers
        those who are gone do not count for the threshold
            set(came) -> [*came, *gone]
        the letters do not count for the threshold: those who came do
            set(came) -> letters
        a client that is named three times is one client
            set(came) -> came
        as many as the threshold are enough
            len(set(came)) < -> len(set(came)) <=
        a client that is not asked for is no reason to refuse
            n not in letters] -> n not in letters] or len(came + gone) < len(letters)
        seeds are for those who came, and keys for those who are gone
            came, "seed") -> came, "key")
            & gone, "key") -> gone, "seed")
        ask for nothing else than what was asked for
            **dict.fromkeys(came, -> **dict.fromkeys(letters,
        keys are asked for, too
            , **dict.fromkeys(gone, "key")} -> }
        this is a set of names: return a dictionary by the clients' numbers
            {**dict.fromkeys(came, "seed"), -> {"seed": came, "key": gone,
            & **dict.fromkeys(gone, "key")} -> }
        refuse by raising a ValueError, not by what you return
            raise ValueError("I do not answer that.") -> return {}
            raise ValueError("I do not answer that.") -> return None
    """,
    otherwise="the result should say for each that is asked for which share to send",
)
