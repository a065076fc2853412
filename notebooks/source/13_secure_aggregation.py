# %% [markdown] tags=["slide"]
# # 13 · Secure aggregation
#
# **Can a server learn the sum of all updates, and nothing else?**
#
# After this lesson you can
#
# - hide numbers from a server by masks that cancel in the sum, and turn a model into
#   whole numbers for that,
# - share out a secret, and repair with it a sum from which a client is missing,
# - explain why each client needs a second mask,
# - lead a round of secure aggregation as messages of a Flower App, and count what it
#   costs,
# - say what secure aggregation does not protect.
#
# **You need:** lessons 00 to 05, 08 (seeds), 10 (mods, liars) and, for what it says of
# noise, 12. The appendix also uses 07. **Time:** 100 minutes, 22 of them for the
# exercises.

# %% [markdown] tags=["slide"]
# ## What the server sees
#
# This lesson has a Flower App of its own, in the folder `secure-sum-app`. Its model is
# small: one weight for each pixel and label, and a bias for each label. NumPy trains it
# on all examples of a client at once, and draws nothing at random.

# %%
import sys
from pathlib import Path

import numpy as np

import course_utils

APP = Path(course_utils.__file__).parents[1] / "notebooks" / "secure-sum-app"
assert APP.is_dir(), "This lesson needs a clone of the course's repository."
if str(APP) not in sys.path:
    sys.path.append(str(APP))

from secure_sum import task

# %% [markdown]
# Five clients train. In this lesson they have the numbers 1 to 5, and each holds more
# digits than the one before:

# %%
NUM_CLIENTS = 5
start = np.zeros(task.SHAPE).ravel()
models, sizes = {}, {}
for number in range(1, NUM_CLIENTS + 1):
    images, labels = task.load_partition(number - 1, NUM_CLIENTS)
    models[number] = task.train(start, images, labels)
    sizes[number] = len(labels)
print("examples:", sizes, "- numbers in a model:", len(start))
assert sum(sizes.values()) == 4000 and len(start) == 7850

# %% [markdown] tags=["slide-more"]
# Each would send its model, and the server would look at it. These are the weights of
# client 1, label by label. The second row shows what is its own: its model, less the
# average of all five.

# %% tags=["slide-output"]
from course_utils.plots import plot_weights


def pictures(model: np.ndarray) -> np.ndarray:
    return model[:7850].reshape(task.SHAPE)[:-1].astype(float)


weights = list(sizes.values())
average = np.average([*models.values()], 0, weights)
rows = {"client 1": models[1], "less the average": models[1] - average}
plot_weights({name: pictures(row) for name, row in rows.items()})

# %% [markdown]
# That second row shows how the data of client 1 differ from those of the others.
# (Lesson 11 gets single images out of an update.) But what does the server *need*?
# FedAvg's average is a quotient of two sums:

# %%
weighted = sum(sizes[n] * models[n] for n in models)
fedavg = weighted / sum(sizes.values())
assert np.allclose(fedavg, average)

# %% [markdown]
# It needs the sum of `n * model`, and the sum of `n`. It needs no single term of them.
# **Secure aggregation** gives it the sums alone. This lesson builds the protocol of
# Bonawitz et al. (2017, ACM CCS, [eprint 2017/281](https://eprint.iacr.org/2017/281)).
#
# > **For learning.** The code here is to be read. It helps against a server that is
# > curious but follows the protocol. What it lacks against one that lies is said at the
# > end.

# %% [markdown] tags=["slide"]
# ## Masks that cancel
#
# Three clients have the numbers 7, 20 and 5. They count modulo 100, which means that
# only the last two digits stay. Each pair agrees on a random number from 0 to 99, its
# **mask**: 1 and 2 on 31, 1 and 3 on 58, 2 and 3 on 90. Of a pair, the higher client
# adds the mask, and the lower one subtracts it:

# %%
sent = {
    1: (7 - 31 - 58) % 100,
    2: (20 + 31 - 90) % 100,
    3: (5 + 58 + 90) % 100,
}
print(sent)
assert sent == {1: 18, 2: 61, 3: 53}

# %% [markdown] tags=["slide-more"]
# **Predict:** the server sees 18, 61 and 53. What is their sum modulo 100? And by the 18
# alone, which numbers of client 1 can the server rule out?

# %% tags=["slide-then"]
print("the sum:", sum(sent.values()) % 100)
fitting = {
    x: [mask for mask in range(100) if (x - mask - 58) % 100 == sent[1]]
    for x in range(100)
}
print("numbers that fit the 18:", len(fitting))
assert sum(sent.values()) % 100 == 7 + 20 + 5
assert all(len(masks) == 1 for masks in fitting.values())

# %% [markdown]
# The sum is 32, as it should be: each mask is in it once with plus and once with minus.
# By the 18 alone the server can rule out nothing. For every number from 0 to 99 there
# is just one mask of 1 and 2 that makes it an 18, and all masks are equally likely.
#
# By all three it knows the sum modulo 100, and nothing else. That holds as long as each
# mask is drawn by itself, and evenly from all 100 numbers.

# %% [markdown]
# ### Exercise 13.1: masks that cancel
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 1 of 3, recall | 4 | one wrong sign, and the sum is noise |
#
# Complete `masked_number`: return what client `me` sends for its `number`. `masks` has
# its mask with each *other* client, by the other's number. Count modulo `modulus`. Of a
# pair, the higher client adds, and the lower one subtracts.
#
# <details><summary>Hint 1</summary>
#
# Go through `masks.items()`, and compare the other's number with `me`.
# </details>
# <details><summary>Hint 2</summary>
#
# In Python, `-82 % 100` is 18. So take the modulo at the end.
# </details>

# %%
from course_utils.exercises import check


def masked_number(
    me: int, number: int, masks: dict[int, int], modulus: int
) -> int:
    """Return a client's number under the masks that it has with the others."""
    ### BEGIN SOLUTION
    for other, mask in masks.items():
        number += mask if me > other else -mask
    return number % modulus
    ### END SOLUTION


# %%
check("13.1", masked_number)

# %% [markdown] tags=["solution"]
# **Why this.** Both of a pair must come to opposite signs without asking each other.
# Their numbers decide. **What people get wrong:** they compare the masks, or their own
# number, in place of the clients' numbers; or they leave out the modulo. Then the size
# of a result tells what was added. Only modulo 100 are all results equally likely.

# %% [markdown] tags=["slide"]
# ## Floats become whole numbers
#
# A model is made of floats. **Predict:** add a mask of a million to 0.1234, and take it
# off again. What comes out?

# %% tags=["slide-then"]
small, mask = np.float32(0.1234), np.float32(1e6)
print(small + mask - mask)
assert small + mask - mask == 0.125

# %% [markdown]
# A float keeps seven digits or so, and a large mask pushes the small ones out. Nor is
# there an "even" draw from all floats. So a model is turned into whole numbers modulo
# 2**32, which NumPy calls `uint32`: it adds them modulo 2**32 by itself.
#
# Three steps: **clip** each weight to at most 8, **scale**, and **round**. What is
# encoded is `n * model`, and behind it `n`:

# %%
Vector = np.ndarray  # of np.uint32: whole numbers modulo 2**32

CLIP = 8.0  # the largest weight of a model
MOST_EXAMPLES = 2**14  # fewer than these, of all clients together
SCALE = 2**14  # steps to one; CLIP * MOST_EXAMPLES * SCALE is 2**31


def encode(
    model: np.ndarray, num_examples: int, scale: float = SCALE
) -> Vector:
    if not np.isfinite(model).all():
        raise ValueError("A model with NaN or infinity cannot be encoded.")
    weighted = np.clip(model.astype(float), -CLIP, CLIP) * num_examples
    whole = np.rint(weighted * scale).astype(np.int64)
    return np.append(whole, num_examples).astype(np.uint32)  # modulo 2**32


# %%
two = encode(np.array([0.5, -0.25]), num_examples=2)
print(two)
assert two.tolist() == [16384, 2**32 - 8192, 2]

# %% [markdown]
# `0.5 * 2 * 16384` is 16384. And -8192 has become `2**32 - 8192`, as -3 is 97 modulo
# 100. The way back reads the upper half of all numbers as negative ones:


# %%
def decode(total: Vector, scale: float = SCALE) -> tuple[np.ndarray, int]:
    signed = total.view(np.int32)  # the upper half stands for negative ones
    num_examples = int(total[-1])
    return signed[:-1] / scale / num_examples, num_examples


print(decode(two))
assert decode(two)[0].tolist() == [0.5, -0.25] and decode(two)[1] == 2

# %% [markdown]
# What is lost? Rounding moves each `n * w` by at most half a step, and a step is `1 /
# SCALE`. So the average of N clients is off by at most `N / 2 / SCALE`, divided by the
# number of all examples:


# %%
def bound(clients: int, examples: int) -> float:
    return clients / 2 / SCALE / examples


encoded = {n: encode(models[n], sizes[n]) for n in models}
average, examples = decode(sum(encoded.values()))
gap, most = abs(average - fedavg).max(), bound(NUM_CLIENTS, examples)
print(f"off by {gap:.1e}, at most {most:.1e}, examples: {examples}")
assert gap <= most < 4e-8 and examples == 4000
largest = max(abs(model).max() for model in models.values())
print("largest weight:", round(largest, 2))
assert largest < 0.5 and most < 3e-7 * largest

# %% [markdown]
# That is 2 ten-millionths of the largest weight. Two other things can be lost:
#
# - **Clipping:** a weight beyond 8 becomes 8. (In these models none is beyond 0.5.)
# - **Overflow:** a sum from `2**31` on is read as a negative number. Modulo 100, 30 +
#   30 is read as -40. Nobody sees that. So `CLIP * MOST_EXAMPLES * SCALE` must not be
#   more than `2**31`. And a client knows only how many examples it has itself. So it
#   assumes that all have as many: its own, times the number of clients, must be less
#   than `MOST_EXAMPLES`. Else it sends nothing.

# %%
assert CLIP * MOST_EXAMPLES * SCALE == 2**31
too_large = encode(np.array([8.0]), num_examples=MOST_EXAMPLES)
print(decode(too_large)[0])
assert decode(too_large)[0] == -8

# %% [markdown]
# Fewer bits would be fewer bytes, with larger steps. The appendix measures how few are
# enough here.

# %% [markdown] tags=["slide"]
# ## Keys without a meeting
#
# Each pair needs a mask that the server does not know. But all that the clients say to
# each other goes through the server. **Key agreement** solves that (Diffie and Hellman,
# 1976). Each client makes a **private key**, which it keeps, and a **public key**,
# which all may see. Here small, with powers of 5 modulo 97:

# %%
private_1, private_2 = 17, 43
public_1, public_2 = pow(5, private_1, 97), pow(5, private_2, 97)
print("public:", public_1, public_2)
print("secret:", pow(public_2, private_1, 97), pow(public_1, private_2, 97))
assert pow(public_2, private_1, 97) == pow(public_1, private_2, 97)

# %% [markdown]
# Both come to the same secret, since `(5**43)**17` is `(5**17)**43`. Who has only the
# public keys must find out which power of 5 one of them is. Modulo 97 one tries them
# all. Modulo a prime number of many hundred digits, nobody knows a way that is quick
# enough.
#
# X25519 is such an agreement, with points of a curve in place of powers. HKDF makes a
# key of its secret, one for each purpose:

# %%
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def key_pair() -> tuple[bytes, bytes]:
    private = X25519PrivateKey.generate()
    raw = private.public_key().public_bytes_raw()
    return private.private_bytes_raw(), raw


def agree(private: bytes, public: bytes, purpose: bytes) -> bytes:
    own = X25519PrivateKey.from_private_bytes(private)
    secret = own.exchange(X25519PublicKey.from_public_bytes(public))
    return HKDF(SHA256(), length=32, salt=None, info=purpose).derive(secret)


# %%
keys = {number: key_pair() for number in models}
privates = {number: private for number, (private, _) in keys.items()}
publics = {number: public for number, (_, public) in keys.items()}
one = agree(privates[1], publics[2], b"mask")
assert one == agree(privates[2], publics[1], b"mask")
assert one != agree(privates[1], publics[2], b"letter")
print("1 and 2 have the same", len(one), "bytes")

# %% [markdown]
# 32 bytes are no mask for 7,851 numbers. A **stream cipher** stretches a key to as many
# bytes as one likes. Without the key, they look drawn at random. Here it is ChaCha20.
# (A cipher adds its stream to a text, bit by bit. This text is all zeros, so what comes
# out is the stream. It starts from the key and a *nonce*, a number used once. As each
# key is used once here, the nonce may be zero.)

# %%
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20


def expand(key: bytes, length: int) -> Vector:
    stream = Cipher(ChaCha20(key, nonce=bytes(16)), mode=None).encryptor()
    return np.frombuffer(stream.update(bytes(4 * length)), dtype="<u4")


def pairwise_mask(
    me: int, private: bytes, publics: dict[int, bytes], length: int
) -> Vector:
    mask = np.zeros(length, dtype=np.uint32)
    for other, public in publics.items():
        if other != me:
            pair = expand(agree(private, public, b"mask"), length)
            mask += pair if me > other else -pair
    return mask


# %% [markdown] tags=["slide"]
# Now all five mask what they have encoded. **Predict:** client 1's masked vector is
# drawn as above, and so is the sum of all five masked vectors, decoded. What do you see
# in each?

# %% tags=["slide-then", "slide-output", "nbval-ignore-output"]
length = len(encoded[1])
masked = {
    n: encoded[n] + pairwise_mask(n, privates[n], publics, length)
    for n in models
}
total = sum(masked.values())
assert (total == sum(encoded.values())).all()
shown = {"client 1, masked": masked[1], "the sum, decoded": decode(total)[0]}
plot_weights({name: pictures(each) for name, each in shown.items()})

# %% [markdown]
# The sum shows digits, too: it is what the server is meant to have. What was client 1's
# own is no longer to be seen. And the sum of the masked vectors *is* the sum of the
# encoded ones, bit by bit. It does not even depend on the order, as sums of floats do.
# That a masked vector tells nothing rests on the stream cipher and on the key
# agreement.
#
# **Predict:** client 1 sends another model in the next round. If it masks both with the
# same keys, what does the difference tell? And with new keys?

# %%
later = encode(task.train(models[1], *task.load_partition(0, 5)), sizes[1])
learned = later - encoded[1]
for name, key in (("same key", privates[1]), ("new key", key_pair()[0])):
    sent = later + pairwise_mask(1, key, publics, length)
    read = sent - masked[1] == learned
    print(f"{name}: {read.mean():.0%} of the difference can be read")
    assert read.all() if key == privates[1] else read.mean() < 0.01

# %% [markdown]
# With the same keys the masks cancel in the difference, and one reads what the client has
# learned between both rounds. So each round has new keys. No mask serves twice.

# %% [markdown] tags=["slide"]
# ## A client drops out
#
# **Predict:** all five know each other's public keys. Then client 4 falls silent. The
# server adds up the other four vectors. What does it get?

# %% tags=["slide-then"]
came = {n: masked[n] for n in (1, 2, 3, 5)}
broken = sum(came.values())
_, counted = decode(broken)
right = sum(sizes[n] for n in came)
print("four hold", right, "examples. Is that in the sum?", counted == right)
assert counted != right

# %% [markdown]
# Noise. The masks with client 4 are in the sum once only. Client 4's private key would
# repair it: from it come all these masks. But client 4 is gone. And nobody was allowed to
# have its key, or there would have been no secret.
#
# So each client gives away its key in advance, in **shares**. With enough of them,
# anybody knows the key. How many are enough is the **threshold**. This is **secret sharing**.

# %% [markdown] tags=["slide"]
# ### A secret on a line
#
# A secret of 42, and a threshold of two. Count modulo 97, which is a prime number. Draw
# a slope, say 30, and take the line `42 + 30 * x`. The share of client x is the point
# at x (Shamir, 1979, *How to share a secret*, Communications of the ACM 22). The secret
# is where the line meets x = 0:

# %% tags=["slide-more"]
PRIME, secret, slope = 97, 42, 30
shares = {x: (secret + slope * x) % PRIME for x in (1, 2, 3)}
print(shares)
assert shares == {1: 72, 2: 5, 3: 35}

# %% [markdown] tags=["slide-more"]
# **Predict:** who has one share, 72 at x = 1: which of the 97 secrets can it rule out?
# And who has two?

# %% tags=["slide-then"]
lines = {s: (72 - s) % PRIME for s in range(PRIME)}  # each secret's slope
fit = [s for s, k in lines.items() if (s + k * 3) % PRIME == shares[3]]
print("by one share:", len(lines), "- by two:", fit)
assert len(set(lines.values())) == PRIME and fit == [42]

# %% [markdown]
# By one share it can rule out nothing: through one point there is a line to every secret,
# each with one slope. Two points fix the line. One need not try all secrets. **Lagrange's
# formula** gives the value at 0:
#
# - The share at 1 is multiplied by `(3 - x) / (3 - 1)`. That is 1 at x = 1, and 0 at x =
#   3. So the sum of all shares, each with its factor, goes through all points. At x = 0,
#   the factors are `3 / (3 - 1)`, and for the share at 3 `1 / (1 - 3)`.
# - To divide is to multiply by the **inverse**: `pow(2, -1, 97)` is 49, since 2 * 49 =
#   98, which is 1 modulo 97. Modulo a prime number, all numbers but 0 have one.

# %%
first = 3 * pow(3 - 1, -1, PRIME)
third = 1 * pow(1 - 3, -1, PRIME)
print((72 * first + 35 * third) % PRIME)
assert (72 * first + 35 * third) % PRIME == 42 and pow(2, -1, PRIME) == 49

# %% [markdown]
# With a threshold of three it is a parabola, with four a curve of degree three, and so
# on. The formula stays: a share counts as often as the *product* of `other / (other -
# own)` over all other points.

# %% [markdown]
# ### Exercise 13.2: recover a secret
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 2 of 3, apply | 8 | this is what repairs a round |
#
# Complete `recover`: return the secret, the value at 0, of the curve through all
# `shares`, modulo `prime`. A share is the value `y` at `x`: `shares[x] = y`. As many
# shares are given as the threshold says, not always two.
#
# <details><summary>Hint 1</summary>
#
# The secret is the sum over all shares of `y` times the product of
# `other / (other - x)` over the other points.
# </details>
# <details><summary>Hint 2</summary>
#
# `a / b` modulo `prime` is `a * pow(b, -1, prime)`. It also takes a negative `b`.
# </details>


# %%
def recover(shares: dict[int, int], prime: int) -> int:
    """Return the value at 0 of the curve through all shares."""
    ### BEGIN SOLUTION
    secret = 0
    for x, y in shares.items():
        for other in shares:
            if other != x:
                y = y * other * pow(other - x, -1, prime)
        secret += y
    return secret % prime
    ### END SOLUTION


# %%
check("13.2", recover)

# %% [markdown] tags=["solution"]
# **Why this.** The factor of a share is 1 at its own x and 0 at all others. So the sum
# of them goes through all points, and there is only one such curve. **What people get
# wrong:** they divide as with floats, turn the difference round, or take two shares
# only.

# %% [markdown]
# A private key is 32 bytes. Modulo a large prime number yours would do. But a prime above
# all 32-byte numbers has 33 bytes, and so may a share. pycryptodome, a library that
# Flower brings along, uses the same formula with another way to add and multiply. It
# makes shares of 16 bytes, of secrets of 16 bytes. So a key is cut into two halves, and
# each is shared out.

# %%
from Crypto.Protocol.SecretSharing import Shamir


def split(secret: bytes, threshold: int, count: int) -> list[bytes]:
    halves = [
        Shamir.split(threshold, count, half)
        for half in (secret[:16], secret[16:])
    ]
    return [
        first + second for (_, first), (_, second) in zip(*halves, strict=True)
    ]


def restore(shares: dict[int, bytes], threshold: int) -> bytes:
    if len(shares) < threshold:
        raise ValueError(
            f"{len(shares)} shares are fewer than the {threshold} needed."
        )
    some = list(shares.items())[:threshold]
    return b"".join(
        Shamir.combine([(number, share[half]) for number, share in some])
        for half in (slice(16), slice(16, 32))
    )


# %% [markdown]
# `restore` counts the shares itself. The library would take too few, and return another
# secret without a word.

# %%
THRESHOLD = 3
key_shares = dict(enumerate(split(privates[4], THRESHOLD, NUM_CLIENTS), 1))
found = restore({n: key_shares[n] for n in (1, 2, 5)}, THRESHOLD)
print("with three shares:", found == privates[4])
two_shares = [(n, key_shares[n][:16]) for n in (1, 2)]
print("with two:", Shamir.combine(two_shares) == privates[4][:16])
assert found == privates[4]
assert Shamir.combine(two_shares) != privates[4][:16]

# %% [markdown]
# **The repair.** Three of the four give their share of client 4's key. The server
# restores it, and adds what client 4 would have added:

# %%
missing = pairwise_mask(4, found, {n: publics[n] for n in came}, length)
average, examples = decode(broken + missing)
truth = sum(sizes[n] * models[n] for n in came) / right
print(examples, "examples")
assert examples == right
assert abs(average - truth).max() <= bound(len(came), right)

# %% [markdown] tags=["slide"]
# ## The second mask
#
# **Predict:** client 4 was not dead, only slow. After the repair, its masked vector
# arrives. What can the server do with it?

# %% tags=["slide-then"]
late = masked[4] - pairwise_mask(4, found, publics, length)
print("the model of client 4, bit by bit:", (late == encoded[4]).all())
assert (late == encoded[4]).all()

# %% [markdown]
# It reads it. A server may even *say* that client 4 is missing, with its vector in
# hand. So each client adds a second mask, which it has agreed on with nobody. It comes
# from a **seed**: 32 random bytes, drawn anew in each round. (It is not the `seed` of a
# run.) Of the seed, too, it gives out shares.
#
# For each client, the server asks for one of the two:
#
# | its masked vector | the server asks for shares of | to take out |
# |---|---|---|
# | came | its seed | its second mask |
# | did not come | its private key | the others' masks with it |
#
# **Never both.**


# %%
def remove_masks(
    masked: dict[int, Vector],
    publics: dict[int, bytes],
    secrets: dict[int, bytes],
) -> Vector:
    total = sum(masked.values(), start=np.uint32(0))
    survivors = {number: publics[number] for number in masked}
    for number, secret in secrets.items():
        if number in masked:
            total = total - expand(secret, len(total))
        else:  # its own masks cancel those that the others have with it
            total = total + pairwise_mask(
                number, secret, survivors, len(total)
            )
    return total


# %% [markdown]
# **Predict:** all five mask twice. The vector of client 4 comes late again. The server
# has the seeds of the others, and the key of client 4. Is the sum right? And can it
# read client 4?

# %%
import os

seeds = {n: os.urandom(32) for n in models}
twice = {n: masked[n] + expand(seeds[n], length) for n in models}
secrets = {n: seeds[n] for n in came} | {4: privates[4]}
arrived = {n: twice[n] for n in came}
total = remove_masks(arrived, publics, secrets)
late = twice[4] - pairwise_mask(4, privates[4], publics, length)
print("the sum is right:", decode(total)[1] == right)
print("client 4 can be read:", (late == encoded[4]).any())
assert (total == sum(encoded[n] for n in came)).all()
assert (late == encoded[4]).mean() < 0.01

# %% [markdown] tags=["slide"]
# ## Four messages
#
# Now as a Flower App. A round has four steps, and each is a message with a name, as in
# lesson 03: `@app.train("keys")` answers the message type `"train.keys"`.

# %% tags=["slide-more", "slide-output"]
from course_utils.plots import draw_secure_round

draw_secure_round()

# %% [markdown]
# **Letters.** Shares go through the server, and it must not read them. So each is
# encrypted for its receiver, with a key that both agree on. This cipher also notices if
# somebody has changed a bit, or delivers a letter to another. (With another nonce each
# time, one key can encrypt several texts.)

# %%
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305


def seal(key: bytes, sender: int, receiver: int, text: bytes) -> bytes:
    nonce = os.urandom(12)
    label = f"from {sender} to {receiver}".encode()
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, text, label)


def unseal(key: bytes, sender: int, receiver: int, sealed: bytes) -> bytes:
    label = f"from {sender} to {receiver}".encode()
    return ChaCha20Poly1305(key).decrypt(sealed[:12], sealed[12:], label)


# %%
key = agree(privates[1], publics[2], b"letter")
letter = seal(key, 1, 2, b"two shares")
assert unseal(key, 1, 2, letter) == b"two shares"
try:
    unseal(key, 1, 3, letter)
except InvalidTag:
    print("a letter from 1 to 2 is refused as one from 1 to 3")

# %% [markdown]
# ### Step 1: keys
#
# A client has *two* key pairs: one for masks, one for letters. For if it drops out, its
# key for masks is restored. With one pair only, the server could read all its letters
# then. What a client needs later lies in `context.state` (lesson 04).

# %%
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict


def make_keys(message: Message, context: Context) -> Message:
    private, public = ConfigRecord(), ConfigRecord()
    for purpose in ("mask", "letter"):
        private[purpose], public[purpose] = key_pair()
    context.state["private"], context.state["public"] = private, public
    return Message(RecordDict({"public": public}), reply_to=message)


# %% [markdown]
# On the server, `ask` sends each client its own records, and returns the replies by the
# clients' numbers. `gather` picks what has one name from all replies. `exchange_keys`
# leads step 1. It gives those who have replied the numbers 1, 2, 3 and so on, without
# gaps, since shares are points at these numbers:

# %%
import inspect

from secure_sum.server_app import Round, ask, exchange_keys, gather

print(inspect.getsource(Round))
print(inspect.getsource(exchange_keys))

# %% [markdown]
# ### Step 2: shares
#
# All public keys come back, by the clients' numbers. Names in a record are `str`, and
# `by_number` makes numbers of them. A client looks for its own keys among them: the
# number beside them is its own. `find_me` does that. `fits` says which thresholds a
# client accepts. ("What it does not do" says why.)

# %%
from collections.abc import Mapping

from secure_sum.client_app import find_me

FEWEST = 3  # clients in a sum: of two, each could subtract itself


def by_number(record: Mapping[str, bytes]) -> dict[int, bytes]:
    return {int(number): value for number, value in record.items()}


def fits(threshold: int, clients: int) -> bool:
    return threshold >= FEWEST and clients / 2 < threshold <= clients


assert fits(3, 5) and not fits(2, 2) and not fits(2, 3) and not fits(3, 6)

# %% [markdown]
# Then a client draws its seed, and writes a letter to each client (to itself, too: in
# step 4 it is asked for a share like all others). In it are two shares: one of its seed,
# one of its private key for masks.
#
# **Predict:** which of its own secrets must it still have after this step? What for?


# %%
def share_secrets(message: Message, context: Context) -> Message:
    state, threshold = context.state, context.run_config["threshold"]
    state["mask-keys"] = message.content["mask-keys"]
    state["letter-keys"] = message.content["letter-keys"]
    masks = by_number(state["mask-keys"])
    letters = by_number(state["letter-keys"])
    if not fits(threshold, len(masks)):
        raise ValueError(f"threshold={threshold} is wrong for {len(masks)}.")
    me = find_me(state["public"], masks, letters)
    private, seed = state.pop("private"), os.urandom(32)
    secrets = (seed, private["mask"])
    shares = [split(secret, threshold, len(masks)) for secret in secrets]
    sealed = ConfigRecord()
    for number, texts in enumerate(zip(*shares, strict=True), start=1):
        key = agree(private["letter"], letters[number], b"letter")
        sealed[str(number)] = seal(key, me, number, b"".join(texts))
    state["own"] = ConfigRecord({"number": me, "seed": seed, **private})
    return Message(RecordDict({"letters": sealed}), reply_to=message)


# %%
from flwr.clientapp import ClientApp

from course_utils.runtime import InProcessGrid

first = ClientApp()
first.train("keys")(make_keys)
first.train("shares")(share_secrets)
config = {"threshold": THRESHOLD}
grid = InProcessGrid(first, NUM_CLIENTS, run_config=config, seed=0)
this = Round(grid, number=1, threshold=THRESHOLD)
nodes, keys = exchange_keys(this)
written = ask(this, "shares", nodes, {n: keys for n in nodes})
print("letters:", sum(len(each["letters"]) for each in written.values()))
own = grid.node_contexts[nodes[1]].state["own"]
print("client 1 keeps of its own:", sorted(own))
assert sorted(own) == ["letter", "mask", "number", "seed"]

# %% [markdown]
# It keeps its number, its seed and its key for masks: it masks in step 3. With its key
# for letters it opens those in step 4.

# %% [markdown]
# ### Step 3: the masked vector
#
# The letters that arrive say who has come so far. A client puts masks on for these
# only. Note `pop`: what a step has used, it deletes. So no second vector goes under the
# same masks.


# %%
def train_and_mask(message: Message, context: Context) -> Message:
    state, letters = context.state, message.content["letters"]
    if len(letters) < context.run_config["threshold"]:
        raise ValueError(f"{len(letters)} are fewer than the threshold.")
    model, num_examples = train(message, context)
    if num_examples * len(letters) >= MOST_EXAMPLES:
        raise ValueError(f"{num_examples} examples: the sum could overflow.")
    vector = encode(model, num_examples)
    own, publics = state["own"], by_number(state["mask-keys"])
    others = {number: publics[number] for number in by_number(letters)}
    size = len(vector)
    pairs = pairwise_mask(own["number"], own.pop("mask"), others, size)
    vector = vector + pairs + expand(own.pop("seed"), size)
    state["letters"] = letters
    content = RecordDict({"masked": ArrayRecord([vector])})
    return Message(content, reply_to=message)


def train(message: Message, context: Context) -> tuple:
    node = context.node_config
    ids = node["partition-id"], node["num-partitions"]
    images, labels = task.load_partition(*ids)
    (model,) = message.content["model"].to_numpy_ndarrays()
    return task.train(model, images, labels), len(labels)


# %% [markdown]
# ### Step 4: unmask
#
# The server says whose vectors came. A client opens its letters, and sends **one**
# share of each sender: of the seed if its vector came, of the key if not.
#
# Then it forgets the whole round. Else the server could ask twice: once as if client 4
# had come, and once as if not. **Never both** also means never one after the other.


# %%
def open_letters(message: Message, context: Context) -> Message:
    state = context.state
    survivors = set(message.content["who"]["survivors"])
    letters = by_number(state.pop("letters"))
    too_few = len(survivors) < context.run_config["threshold"]
    if too_few or survivors - set(letters):
        raise ValueError("A sum over too few clients, or over strangers.")
    shares, own = ConfigRecord(), state["own"]
    publics = by_number(state["letter-keys"])
    for sender, letter in letters.items():
        key = agree(own["letter"], publics[sender], b"letter")
        text = unseal(key, sender, own["number"], letter)
        share = text[:32] if sender in survivors else text[32:]
        shares[str(sender)] = share
    state.clear()
    return Message(RecordDict({"shares": shares}), reply_to=message)


# %% [markdown]
# Four functions, four names. (In the app's file, `@app.train("keys")` stands above
# `make_keys`.)

# %%
ACTIONS = {
    "keys": make_keys,
    "shares": share_secrets,
    "masked": train_and_mask,
    "unmask": open_letters,
}
app = ClientApp()
for action, function in ACTIONS.items():
    app.train(action)(function)

# %% [markdown]
# ### The whole round
#
# The server leads the four steps:


# %%
def secure_sum(this: Round, model: np.ndarray) -> Vector:
    nodes, keys = exchange_keys(this)
    written = ask(this, "shares", nodes, {n: keys for n in nodes})

    sent = ArrayRecord([model])
    letters = {n: gather(written, "letters", str(n)) for n in written}
    records = {n: {"model": sent, "letters": letters[n]} for n in written}
    replies = ask(this, "masked", nodes, records)
    masked = {}
    for number, reply in replies.items():
        (masked[number],) = reply["masked"].to_numpy_ndarrays()

    who = ConfigRecord({"survivors": list(masked)})
    opened = ask(this, "unmask", nodes, {n: {"who": who} for n in masked})
    secrets = {}
    for number in written:
        shares = by_number(gather(opened, "shares", str(number)))
        secrets[number] = restore(shares, this.threshold)
    if gone := [number for number in written if number not in masked]:
        print(f"unmask: the private keys of {gone} are restored.")
    return remove_masks(masked, by_number(keys["mask-keys"]), secrets)


# %%
options = {"run_config": config, "seed": 0, "client_errors": "reply"}
grid = InProcessGrid(app, NUM_CLIENTS, **options)
average, examples = decode(secure_sum(Round(grid, 1, THRESHOLD), start))
gap = abs(average - fedavg).max()
print("off by less than the bound:", gap <= bound(NUM_CLIENTS, examples))
states = [dict(context.state) for context in grid.node_contexts.values()]
print("what the clients keep:", states)
assert gap <= bound(NUM_CLIENTS, examples) and examples == 4000
assert states == [{}] * NUM_CLIENTS

# %% [markdown]
# FedAvg's average, and nothing is left on the clients. Now the server asks client 1
# once more, as if the vector of client 4 had not come:

# %%
content = RecordDict({"who": ConfigRecord({"survivors": [1, 2, 3, 5]})})
again = Message(content, grid.get_node_ids()[0], "train.unmask")
(reply,) = grid.send_and_receive([again])
print(reply.error.reason)
assert "KeyError" in reply.error.reason

# %% [markdown]
# Client 1 has no letters any more, so it cannot answer.

# %% [markdown] tags=["slide"]
# ### Lost on the way
#
# A client may be lost in each of the four steps. A mod (lesson 10) plays it: the client
# with number 4 raises at one of them. So the server gets an error in place of a reply.
#
# **Predict:** lost at `keys`, `shares`, `masked` or `unmask`. In which cases are client
# 4's 1,066 examples in the sum? And in which is its private key restored?

# %%
from collections.abc import Callable


def lose(message: Message, context: Context, call_next: Callable) -> Message:
    lost, action = context.run_config["lost"].split(" at ")
    lost = [int(number) - 1 for number in lost.split(",")]
    mine = context.node_config["partition-id"]
    if mine in lost and message.metadata.message_type == f"train.{action}":
        raise ConnectionError("gone")
    return call_next(message, context)


lossy_app = ClientApp(mods=[lose])
for action, function in ACTIONS.items():
    lossy_app.train(action)(function)


# %% tags=["slide-then", "slide-output"]
def losing(lost: str) -> InProcessGrid:
    config = {"threshold": THRESHOLD, "lost": lost}
    options = {"seed": 0, "client_errors": "reply"}
    return InProcessGrid(lossy_app, NUM_CLIENTS, run_config=config, **options)


for action in ACTIONS:
    print(f"lost at {action}:")
    grid = losing(f"4 at {action}")
    average, examples = decode(secure_sum(Round(grid, 1, THRESHOLD), start))
    print("  examples in the sum:", examples)
    counted = 5 if action == "unmask" else 4
    assert examples == (4000 if counted == 5 else 4000 - sizes[4])
    gap = abs(average - (fedavg if counted == 5 else truth)).max()
    assert gap <= bound(counted, examples) and sizes[4] == 1066

# %% [markdown]
# - **At `keys` or `shares`** nobody has masks with client 4. Nothing is to be repaired.
# - **At `masked`** the others have masks with it. Its private key is restored.
# - **At `unmask`** its vector has come, and it counts. The others' shares are enough.

# %% [markdown] tags=["slide"]
# Lost at `masked`, seen by the grid. (The grid counts from 0: client 4 is "client 3"
# there.) Client 4 is asked for nothing more. The other four give shares of its key:

# %% tags=["slide-more", "slide-output"]
from course_utils.plots import plot_traffic

grid = losing("4 at masked")
secure_sum(Round(grid, 1, THRESHOLD), start)
plot_traffic(grid.messages, list(grid.get_node_ids()))

# %% [markdown] tags=["slide"]
# **Predict:** three of five are lost at `masked`, and the threshold is three. What does
# the server get?

# %% tags=["slide-then"]
grid = losing("1,2,4 at masked")
try:
    secure_sum(Round(grid, 1, THRESHOLD), start)
    raise AssertionError("this should have failed")
except RuntimeError as error:
    print(error)

# %% [markdown]
# No sum, no model, and an error that says why: `ask` raises it if fewer than the
# threshold have replied. A threshold means that a few clients who
# show the server their shares do not give it a secret. The price: when too many clients
# drop out, there is no sum. And what is left on the clients?


# %%
def kept(grid: InProcessGrid) -> list[list[str]]:
    states = [context.state for context in grid.node_contexts.values()]
    return [sorted(state["own"]) for state in states if "own" in state]


print("client 1 and client 3:", kept(grid)[0], kept(grid)[2])
assert kept(grid)[0] == ["letter", "mask", "number", "seed"]
assert kept(grid)[2] == ["letter", "number"]

# %% [markdown]
# A round that fails leaves secrets on the clients: their own, or the key for letters and
# with it the others' shares. The next round puts new ones in their place, and deletes
# them at its end. After a *last* round that fails, they stay. Here is a next round in
# which nobody is lost:

# %%
for context in grid.node_contexts.values():
    context.run_config["lost"] = "0 at keys"  # nobody has the number 0
secure_sum(Round(grid, 2, THRESHOLD), start)
print("after the next round:", kept(grid))
assert kept(grid) == []

# %% [markdown]
# All of this stands in the app. The appendix runs it in this process. It also has the
# lines that run it on a SuperLink with four SuperNodes, and kill one of them in
# mid-round.

# %% [markdown] tags=["slide"]
# ## What it costs
#
# **Predict:** how do the bytes of each step grow, up and down, when the clients double,
# and the model stays the same? Twofold, or fourfold?

# %% tags=["slide-then", "slide-output"]
import pandas as pd


def costs(clients: int) -> pd.Series:
    threshold = clients // 2 + 1
    config = {"threshold": threshold}
    grid = InProcessGrid(app, clients, run_config=config, seed=0)
    secure_sum(Round(grid, 1, threshold), start)
    rows = [(m.type, "up" if m.is_reply else "down", m) for m in grid.messages]
    table = pd.DataFrame(rows, columns=["step", "way", "message"])
    table["bytes"] = [m.bytes for m in table.message]
    return table.groupby(["step", "way"], sort=False)["bytes"].sum()


traffic = pd.DataFrame({n: costs(n) for n in (4, 8, 16)})
grows = traffic[16] / traffic[8]
print(traffic.assign(grows=grows.round(1)).to_string())
assert grows["train.masked", "up"] == 2 and grows["train.unmask", "down"] < 4
assert 3.6 < grows["train.shares"].min() <= grows["train.shares"].max() < 4.1
assert 3.6 < grows["train.unmask", "up"] < 4.1
assert len(letter) - len(b"two shares") + 2 * 32 == 92  # with two shares
assert 4 * length // (64 + 2 * 92 + 32) == 112

# %% [markdown]
# - **Vectors** (`masked`, up) grow with the clients: each sends one. A masked number
#   has four bytes, as a `float32`. But noise cannot be compressed. `masked`, down,
#   grows so, too: each client gets the model, in `float64`, and its letters, which
#   hardly show here.
# - **Letters, shares, and keys that are passed on** grow fourfold: each client gets
#   something of each other. That is `n**2`.
# - The list of who came (`unmask`, down) goes to each client, so it grows with `n**2`,
#   too: less than fourfold here, since a part of each message does not grow.
# - The rest is small.
#
# For each other client, a client's messages hold 280 bytes: two public keys (64), two
# letters, one written and one received (2 * 92), and a share (32). With 112 clients
# that is as much as its vector of 7,851 numbers. Beside a million numbers it would
# hardly show.
#
# And the time? To mask, a client stretches a key for each other client. The server has
# the same work for **each** client that is missing. And there are four messages in
# place of one: on real machines each is a wait for the slowest. The appendix measures
# the time for the masks, and says how a later protocol, SecAgg+, saves most of the
# `n**2`, and what of it is in Flower.

# %% [markdown] tags=["slide"]
# ## What it does not do
#
# **It does not hide what the sum says.** With one client, the sum *is* its model. Nor
# need the server ask one alone. **Predict:** it leads two rounds from the same model,
# with and without client 4. What does it learn?

# %% tags=["slide-then"]
all_five = InProcessGrid(app, NUM_CLIENTS, run_config=config, seed=0)
with_4 = secure_sum(Round(all_five, 1, THRESHOLD), start)
without_4 = secure_sum(Round(losing("4 at shares"), 1, THRESHOLD), start)
print("client 4's, bit by bit:", (with_4 - without_4 == encoded[4]).all())
assert (with_4 - without_4 == encoded[4]).all()

# %% [markdown]
# The model of client 4. (Here all start from the same model both times. From round to
# round the model changes, and that blurs the difference.)
#
# **It does not hide you from the others, if you are few.** Each client gets the
# average, and knows its own part. Of two, each reads the other by one subtraction. Of
# n, `n - 1` that talk read the last. So our client refuses a threshold below three
# (`fits`).
#
# **It does not bind a server that lies.** Who is missing? The server says so. It can
# tell some that client 4's vector came, and others that it did not. Here with a
# threshold of two:

# %% tags=["slide"]
low = 2
of_seed, of_key = (split(s, low, NUM_CLIENTS) for s in (seeds[4], privates[4]))
told_it_came = {n: of_seed[n - 1] for n in (1, 2)}
told_it_is_gone = {n: of_key[n - 1] for n in (3, 5)}
seed, private = restore(told_it_came, low), restore(told_it_is_gone, low)
read = twice[4] - expand(seed, length)
read = read - pairwise_mask(4, private, publics, length)
print("client 4's model:", (read == encoded[4]).all())
assert (read == encoded[4]).all()

# %% [markdown] tags=["slide-more"]
# Each client has answered once, and none gave both. For both secrets the server needs
# twice the threshold of answers. So a threshold of **more than half** of the clients
# stops that, and our client refuses a lower one.
#
# If `c` of n clients help the server, these tell it both. Of the other `n - c` it needs
# `t - c` for each secret, twice that in all. There are too few of them if the threshold
# `t` is above `(n + c) / 2`. `fits` assumes that `c` is 0. Here, with five clients and a
# threshold of three, *one* helper is enough for a server that lies. A threshold of four
# would stop it.

# %% [markdown]
# ### Exercise 13.3: what a client may be asked
#
# | difficulty | minutes | why it matters |
# |---|---|---|
# | 3 of 3, build | 10 | a client that answers everything protects nobody |
#
# Complete `answer_request`, the checks of a client in step 4. Our app's server sends
# one list, of those that came. Here it sends two, as Flower's SecAgg+ does: it asks
# for shares of the *seeds* of those in `came`, and of the *keys* of those in `gone`.
# `letters` has the numbers of the clients whose letters this client holds. Return a
# dictionary from a client's number to `"seed"` or `"key"`, for all that are asked for.
# Raise a `ValueError`
#
# - if both secrets of a client are asked for,
# - if somebody is asked for who has sent no letter,
# - if fewer than `threshold` clients came. (Who is named twice is one client.)
#
# A client of `letters` that is not asked for is no reason to refuse.
#
# <details><summary>Hint 1</summary>
#
# Make sets of the lists. `a & b` has what is in both, `a | b` what is in one of them, and
# `a - b` what is in `a` only.
# </details>
# <details><summary>Hint 2</summary>
#
# Strangers may stand in `gone`, too. And those in `gone` do not count for the threshold.
# </details>


# %%
def answer_request(
    came: list[int], gone: list[int], letters: list[int], threshold: int
) -> dict[int, str]:
    """Return which secret's share to send for whom, or refuse."""
    ### BEGIN SOLUTION
    if set(came) & set(gone):
        raise ValueError("Both secrets of one client would unmask it.")
    if {*came, *gone} - set(letters):
        raise ValueError("There is no letter of some of these.")
    if len(set(came)) < threshold:
        raise ValueError("That would be the sum of too few.")
    return dict.fromkeys(came, "seed") | dict.fromkeys(gone, "key")
    ### END SOLUTION


# %%
check("13.3", answer_request)

# %% [markdown] tags=["solution"]
# **Why this.** What the server asks for is the only place where a client can say no. In
# our app the first rule cannot be broken in one message: the list of those that came
# decides for each. Over two messages it holds since a client forgets the round. **What
# people get wrong:** they look for strangers in `came` only, or count all that are
# asked for against the threshold.

# %% [markdown] tags=["slide"]
# What else a lying server can do, and this app does not notice:
#
# - **It can play the other clients.** The keys come through the server, and nobody has
#   signed them. If it gives client 1 four keys of its own, it holds all secrets. In the
#   paper, keys are signed, and so is the list of who came.
# - **It can send each client another model,** so that the sum shows one client only
#   (Pasquini et al., 2022, [arXiv:2111.07380](https://arxiv.org/abs/2111.07380)).
#   Clients would have to compare what they got.
# - **It can send other code.** In Flower, the app that a client runs comes from whoever
#   submits it (lesson 07). A hospital that does not read the app trusts its author.

# %% [markdown] tags=["slide"]
# **It does not find liars. It hides them.** Lesson 10 found liars by looking at each
# update. Ten honest clients with the same kind of data reach 0.89 in six rounds.
# **Predict:** one of the ten sends -20 times its model. What is the accuracy then, and
# what does the server see? (`summed`, in the appendix, leaves out the masks: they would
# cancel.)

# %% tags=["slide-then", "nbval-ignore-output"]
from course_utils.experiments import by_seed, held, run_table, stored
from course_utils.experiments.lesson_13 import summed

one = [{"bits": 32, "liars": 1}]
print("run here:", run_table(summed, one, seeds=[0]).value.round(3).tolist())

# %%
lied = by_seed(stored("13", "liar"), "liars")[1]
by_bits = by_seed(stored("13", "bits"), "bits")
print("median with a liar:", round(lied.median(), 3))
print("with honest clients:", round(by_bits[32].median(), 3))
print("worse than guessing:", held(lied < 0.1))
assert (lied < 0.1).sum() >= 19 and round(by_bits[32].median(), 2) == 0.89

# %% [markdown]
# Worse than guessing: nine honest models less 20 make -11, and a tenth of that is the
# honest model with its sign turned. So it takes the *least* likely label. The honest
# clients train back in each round, and in each the sum turns the sign again.
#
# The server sees that the model is bad, and cannot see who did it. What needs single
# models cannot be computed: a median, a trimmed mean, Krum. What needs the average only
# still can: `FedAvg`, `FedAvgM`, `FedAdam`, and FedProx on the clients. Clipping before
# masking is left to a client's *own* code, which a liar does not run.
#
# And no metric may go beside the vector: a loss tells, too. It has to go *into* the sum.

# %% [markdown] tags=["slide"]
# **It does not make the sum private.** What the sum says of one example, it says to all
# who see the model. For that there is noise (lesson 12). Together, both are better than
# each: under the masks each client can add a small part of the noise, and the sum has
# enough of it (appendix).
#
# Who is protected from whom by which lesson stands on [one page for all
# three](promises.md).

# %% [markdown] tags=["slide"]
# ## Takeaways
#
# - **Masks** in pairs cancel in the sum. For that, a model becomes whole numbers modulo
#   2**32: clipped, scaled, rounded. The sum is exact, and what rounding costs has a
#   bound.
# - **Shares** repair a sum: below the threshold they say nothing, from it on they give
#   the secret. Without enough clients a round ends with an error.
# - **The second mask** protects who is late. Of each client the server gets one of two
#   secrets, its seed or its key, and never both.
# - **Four messages** make a round: keys, shares, masked, unmask. Vectors grow with the
#   number of clients, letters with its square.
# - **It hides single updates, and nothing else.** The sum still tells, a liar hides
#   behind the masks, and a server that lies needs more than this.

# %% [markdown]
# ## Check yourself
#
# <details><summary>1. A client drops out after the shares, before its masked vector. What does
# the server ask for, and of whom?</summary>
#
# Of the others, for shares of its private key for masks. With the key it computes the
# masks that the others have with it.
# </details>
#
# <details><summary>2. Why does a client need two key pairs?</summary>
#
# The key for masks is restored if the client drops out. The server could read
# letters under the same key, and with them the others' shares.
# </details>
#
# <details><summary>3. Ten clients, a threshold of four. What is wrong?</summary>
#
# Four can be told that a client came, and four others that it did not. So the server gets
# both of its secrets. It takes six, if no client helps the server, and more if some do.
# </details>
#
# <details><summary>4. May one leave out the noise of lesson 12, now that nobody sees an
# update?</summary>
#
# No. The sum, and the model made of it, still tell about examples. Masks and noise
# protect from different things.
# </details>

# %% [markdown]
# **Next:** what was promised to whom, on [one page](promises.md). Then
# [14 · Four hospitals](14_four_hospitals.ipynb), whose patients nobody dealt out to clients.

# %%
from course_utils.exercises import progress

progress("13")

# %% [markdown]
# ## Appendix: for a second reading
#
# ### How many bits?
#
# A number modulo 2**32 has four bytes. Fewer bits would be fewer bytes. But then the
# steps must be larger, or the sum overflows: with 16 bits less, by `2**16`. So `summed`
# divides the scale. (It still counts modulo 2**32: what fits into fewer bits fits there.) (Its `liars` are those of "What it does not do".)

# %%
ROUNDS = 6


def summed(seed: int, *, bits: int, liars: int) -> dict[str, dict]:
    images, labels = (part[:4000] for part in task.load_digits())
    order = np.random.default_rng(seed).permutation(4000)
    parts = np.array_split(order, 10)
    scale = SCALE / 2 ** (32 - bits)
    model = np.zeros(task.SHAPE).ravel()
    for _ in range(ROUNDS):
        trained = [task.train(model, images[p], labels[p]) for p in parts]
        for liar in range(liars):
            trained[liar] = -20 * trained[liar]
        pairs = zip(trained, parts, strict=True)
        total = sum(encode(sent, len(p), scale) for sent, p in pairs)
        model, _ = decode(total, scale)
    return {"accuracy": {ROUNDS: task.test(model)}}


# %% [markdown]
# **Predict:** with 32, 20, 16, 14 and 12 bits. Down to how many bits does the accuracy
# hold?

# %% tags=["nbval-ignore-output"]
from course_utils.plots import plot_ranges

table = stored("13", "bits").sort_values("bits", ascending=False)
settings = [{"bits": bits, "liars": 0} for bits in (32, 12)]
live = run_table(summed, settings, seeds=[0])
print("run here, 32 and 12 bits:", live.value.round(2).tolist())
named = table.assign(bits=[f"{bits} bits" for bits in table.bits])
plot_ranges(named, by="bits", round=ROUNDS)

# %%
loss = -by_bits.sub(by_bits[32], axis=0)
for bits in (20, 16, 14, 12):
    print(f"{bits} bits lose {100 * loss[bits].median():.1f} points (median)")
print("16 bits within 1 point:", held(loss[16].abs() < 0.01))
print("12 bits lose 10 or more:", held(loss[12] > 0.1))
assert (loss[20].abs() < 0.005).all() and (loss[16].abs() < 0.01).sum() >= 19
assert (loss[14] > 0).sum() >= 19 and (loss[12] > 0.1).sum() >= 19
print("with 12 bits, a step of a weight:", 2 ** (32 - 12) / SCALE / 400)
assert 2 ** (32 - 12) / SCALE / 400 == 0.16

# %% [markdown]
# (One point is one percent of the test images.) With the steps of 16 bits nothing is
# lost. With those of 12, a client of 400 examples rounds its weights to multiples of
# 0.16, and smaller changes are lost.
#
# That depends on how much room there must be: here for weights up to 8, and for `2**14`
# examples. Half the room is one bit less, with the same step. Two usual ways: send the
# *change* of the model, which is smaller, or round up or down **by chance**, so that
# small changes are right on average. (The number of examples has no step. In 12 bits
# its sum could be 4,095 at most, and the room here is for `2**14` examples. So it would
# need a place of its own.)

# %% [markdown]
# ### Noise, split among clients
#
# For a noise of `sigma` in the sum, each of n clients adds `sigma / sqrt(n)`, since
# variances add up.
#
# **Predict:** each of 5 clients adds such noise, and client 4 drops out. What part of
# the variance `sigma**2` is left in the sum?

# %%
rng = np.random.default_rng(0)
SIGMA = 2.0  # in the sum of n * weight
each = SIGMA / np.sqrt(NUM_CLIENTS)
noises = {n: rng.normal(0, each, length - 1) for n in models}
noisy = {n: encode(models[n] + noises[n] / sizes[n], sizes[n]) for n in models}


def noise_in(clients: list[int]) -> float:
    total = sum(noisy[n] for n in clients) - sum(encoded[n] for n in clients)
    return float((total.view(np.int32) / SCALE).var() / SIGMA**2)


print("in units of sigma**2, all five:", round(noise_in([1, 2, 3, 4, 5]), 2))
print("without client 4:", round(noise_in([1, 2, 3, 5]), 2))
assert abs(noise_in([1, 2, 3, 4, 5]) - 1) < 0.05
assert abs(noise_in([1, 2, 3, 5]) - 0.8) < 0.05

# %% [markdown]
# - Without client 4 there is a fifth less. And who is curious knows its own noise, and
#   takes it off. So plan for the fewest: with `c` curious clients, each adds `sigma /
#   sqrt(threshold - c)`.
# - A single client's noise would protect little. It is enough only together with the
#   masks.
# - A guarantee also needs a bound on each *whole* update, not on each weight (lesson
#   12), and a noise that is made of whole numbers: see Kairouz et al. (2021,
#   [arXiv:2102.06387](https://arxiv.org/abs/2102.06387)).

# %% [markdown]
# ### The time for the masks
#
# This is the work of one client, or of the server for each client that is missing:

# %% tags=["nbval-ignore-output"]
from functools import partial
from timeit import repeat

for clients in (4, 16, 64):
    others = {n: key_pair()[1] for n in range(2, clients + 1)}
    work = partial(pairwise_mask, 1, privates[1], others, length)
    spent = min(repeat(work, number=1, repeat=9))  # the least disturbed
    print(f"{clients} clients: {1000 * spent:.1f} ms")

# %% [markdown]
# ### The whole app, here and on real processes
#
# The app's ServerApp also waits for SuperNodes, leads several rounds, and saves the
# model. In this process, with ten clients and three rounds:

# %% tags=["nbval-ignore-output"]
import tempfile

from secure_sum import client_app, server_app

from course_utils.runtime import run_in_process

results = tempfile.mkdtemp()
settings = {"num-server-rounds": 3, "threshold": 6, "results-dir": results}
settings |= {"min-available-nodes": 10, "node-timeout": 10.0}  # wait for 10
settings |= {"step-timeout": 600.0}  # seconds for the replies of a step
run = run_in_process(
    server_app.app,
    client_app.app,
    num_supernodes=10,
    run_config=settings,
    seed=0,
    progress=False,
)

# %%
model, parts = start, [task.load_partition(i, 10) for i in range(10)]
for _ in range(3):
    trained = [task.train(model, *part) for part in parts]
    model = np.average(trained, 0, [len(labels) for _, labels in parts])
saved = np.load(Path(results) / "model.npy")
print("as FedAvg, after three rounds:", abs(saved - model).max() < 1e-6)
assert abs(saved - model).max() < 1e-6

# %% [markdown]
# On a SuperLink: these lines start the app on four SuperNodes, as lesson 07 does, and
# kill one of them as soon as it has been asked for its masked vector. (They are
# numbered from 0.) They take two or three minutes. Run them in a cell of your own,
# below:
#
# ```python
# from course_utils.deployment import Deployment, free_port
#
# with Deployment() as deployment:
#     address = f"127.0.0.1:{free_port()}"
#     deployment.start(
#         "superlink",
#         f"""flower-superlink --insecure --host 127.0.0.1
#             --port {address.split(":")[1]}""",
#         ready="Uvicorn running on",
#     )
#     deployment.connect(address, name="course")
#     for i in range(4):
#         deployment.start(
#             f"supernode-{i}",
#             f"""flower-supernode --insecure --superlink {address}
#                 --port {free_port()}
#                 --node-config "partition-id={i} num-partitions=4" """,
#             ready="SuperNode ID",
#         )
#     words = ["flwr", "run", str(APP), "course", "--stream", "--run-config"]
#     words.append("num-server-rounds=1 results-dir='results'")
#     run = deployment.start("run", words)
#     victim = deployment.processes["supernode-3"]
#     victim.wait_for("Receiving: train.masked", timeout=600)
#     victim.kill()
#     run.wait(timeout=600)
#     print(run.grep("have replied", "in the sum", "fewer", "Error"))
#     model = np.load(deployment.folder / "results" / "model.npy")
# ```
#
# The run waits until the SuperLink misses the heartbeats of the dead SuperNode: a
# minute or so. Then the log says, among other lines:
#
# ```text
# masked: 3 of 4 clients have replied.
# Round 1: 2400 examples in the sum, 0.830 right.
# ```
#
# The masks with the dead one are repaired. (Were it killed too late, its vector would
# have come, and the sum would hold all 4,000.)

# %%
holds = [len(task.load_partition(i, 4)[1]) for i in range(4)]
print(holds, "- without the last:", sum(holds[:3]), "of", sum(holds))
assert sum(holds[:3]) == 2400 and sum(holds) == 4000

# %% [markdown]
# ### SecAgg+
#
# **SecAgg+** (Bell et al., 2020, ACM CCS, [eprint
# 2020/704](https://eprint.iacr.org/2020/704)) does not let each client speak to each
# other. Clients are set in a ring in random order, say, and each has masks and shares
# with its `k` nearest neighbours. `k` need grow only with the logarithm of n. So
# letters grow with `n * k`. The masks of a pair still cancel, here with two neighbours
# each:

# %%
ring = [3, 1, 5, 2, 4]
near = {n: [ring[i - 1], ring[(i + 1) % 5]] for i, n in enumerate(ring)}
sparse = {
    n: encoded[n]
    + pairwise_mask(n, privates[n], {m: publics[m] for m in near[n]}, length)
    for n in models
}
assert (sum(sparse.values()) == sum(encoded.values())).all()
print("client 1 speaks to", near[1], "- the sum is the same")

# %% [markdown]
# Two are far too few: two curious neighbours would unmask a client. `k` must be so
# large that no neighbourhood has too many that are curious or missing, whatever the
# order. Our app would need more than another list of keys: its clients make shares for
# 1, 2, 3 and so on.
#
# **In Flower.** There is SecAgg+ in Flower, as a mod for clients and a workflow for the
# server. Both belong to the older way to write apps (lesson 06), and don't take the
# replies of the apps in this course. The steps are the same as here. It encodes with
# stochastic rounding: up or down by chance, so that the average is right.
