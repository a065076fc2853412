"""The ClientApp: the four steps of a round, and what a client keeps between them.

What a step has used it deletes. So no key, no seed and no share serves twice. What a
round that fails leaves behind, the next one replaces.
"""

import os

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from secure_sum import task
from secure_sum.protocol import (
    MOST_EXAMPLES,
    agree,
    by_number,
    encode,
    expand,
    key_pair,
    pairwise_mask,
    seal,
    split,
    unseal,
)

app = ClientApp()


@app.train("keys")
def make_keys(message: Message, context: Context) -> Message:
    """Make two key pairs for this round, and send the public halves."""
    private, public = ConfigRecord(), ConfigRecord()
    for purpose in ("mask", "letter"):
        private[purpose], public[purpose] = key_pair()
    context.state["private"], context.state["public"] = private, public
    return Message(RecordDict({"public": public}), reply_to=message)


def find_me(own: ConfigRecord, masks: dict, letters: dict) -> int:
    """Return the number under which the server passes on a client's own keys."""
    for number in masks:
        if (masks[number], letters[number]) == (own["mask"], own["letter"]):
            return number
    raise ValueError("My keys are not among those that the server passes on.")


FEWEST = 3  # clients in a sum: of two, each could subtract itself


def fits(threshold: int, clients: int) -> bool:
    """Whether a threshold protects so many clients, and can be reached."""
    return threshold >= FEWEST and clients / 2 < threshold <= clients


@app.train("shares")
def share_secrets(message: Message, context: Context) -> Message:
    """Share out what would unmask this client, in one letter to each."""
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


@app.train("masked")
def train_and_mask(message: Message, context: Context) -> Message:
    """Train, and send nothing but a masked vector."""
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
    """Train the model that came with the message, on this client's digits."""
    node = context.node_config
    ids = node["partition-id"], node["num-partitions"]
    images, labels = task.load_partition(*ids)
    (model,) = message.content["model"].to_numpy_ndarrays()
    return task.train(model, images, labels), len(labels)


@app.train("unmask")
def open_letters(message: Message, context: Context) -> Message:
    """Send one share of each client: of its seed, or of its key if it is missing."""
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
