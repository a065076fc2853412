"""The ServerApp: it passes letters on, and adds up what it cannot read."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from secure_sum import task
from secure_sum.protocol import Vector, by_number, decode, remove_masks, restore

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run as many rounds as the run config says, and save the model."""
    config = context.run_config
    wait_for_nodes(grid, config["min-available-nodes"], config["node-timeout"])
    model = np.zeros(task.SHAPE).ravel()
    for number in range(1, config["num-server-rounds"] + 1):
        this = Round(grid, number, config["threshold"], config["step-timeout"])
        model, num_examples = decode(secure_sum(this, model))
        right = f"{task.test(model):.3f} right"
        print(f"Round {number}: {num_examples} examples in the sum, {right}.")
    folder = Path(config["results-dir"])
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "model.npy", model)
    print("Saved in", folder.resolve())


def wait_for_nodes(grid: Grid, needed: int, timeout: float) -> None:
    """Wait until enough nodes are online, and give up when time is up."""
    end = time.monotonic() + timeout
    while (online := len(list(grid.get_node_ids()))) < needed:
        if time.monotonic() >= end:
            raise RuntimeError(f"{online} of min-available-nodes={needed} are online.")
        time.sleep(1)


@dataclass
class Round:
    """What the steps of a round have in common."""

    grid: Grid
    number: int
    threshold: int
    timeout: float | None = None


def require(this: Round, action: str, came: int, asked: int) -> None:
    """Say who is missing, and end the round if too few are left."""
    if came < asked:
        print(f"{action}: {came} of {asked} clients have replied.")
    if came < this.threshold:
        raise RuntimeError(
            f"{came} clients are fewer than threshold={this.threshold}: the "
            f"round ends at {action!r}, and the server has learned no sum."
        )


Records = dict[int, dict]  # by a client's number, and by a record's name


def ask(
    this: Round, action: str, nodes: dict[int, int], records: Records
) -> dict[int, RecordDict]:
    """Send each client its own records; return what came back, if enough did."""
    config = ConfigRecord({"server-round": this.number})
    messages = []
    for number, own in records.items():
        content = RecordDict({**own, "config": config})
        messages.append(Message(content, nodes[number], f"train.{action}"))
    replies = this.grid.send_and_receive(messages, timeout=this.timeout)
    good = {r.metadata.src_node_id: r for r in replies if r.has_content()}
    require(this, action, len(good), len(messages))
    came = [number for number in records if nodes[number] in good]
    return {number: good[nodes[number]].content for number in came}


def gather(replies: dict[int, RecordDict], record: str, name: str) -> ConfigRecord:
    """Return what each reply has under one name, by the number of its sender."""
    return ConfigRecord({str(n): replies[n][record][name] for n in replies})


def exchange_keys(
    this: Round,
) -> tuple[dict[int, int], dict[str, ConfigRecord]]:
    """Number the clients that send keys, and return their nodes and their keys."""
    nodes = dict(enumerate(this.grid.get_node_ids(), start=1))
    found = ask(this, "keys", nodes, {n: {} for n in nodes})
    # Now number them without gaps: shares are made for 1, 2, 3 and so on.
    nodes = {i: nodes[n] for i, n in enumerate(found, start=1)}
    replies = dict(enumerate(found.values(), start=1))
    keys = {}
    for kind in ("mask", "letter"):
        keys[f"{kind}-keys"] = gather(replies, "public", kind)
    return nodes, keys


def secure_sum(this: Round, model: np.ndarray) -> Vector:
    """Lead one round, and return the sum of what the clients have encoded."""
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
