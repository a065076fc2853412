"""The ServerApp: it passes letters on, and adds up what it cannot read."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from secure_sum import task
from secure_sum.protocol import Vector, by_number, decode, restore, unmask

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


def ask(
    this: Round, action: str, nodes: dict[int, int], records: dict[int, dict]
) -> dict[int, RecordDict]:
    """Send each client its own records; return what came back, if enough did."""
    config = ConfigRecord({"server-round": this.number})
    messages = [
        Message(RecordDict({"config": config, **own}), nodes[n], f"train.{action}")
        for n, own in records.items()
    ]
    replies = this.grid.send_and_receive(messages, timeout=this.timeout)
    good = {r.metadata.src_node_id: r.content for r in replies if r.has_content()}
    if len(good) < len(messages):
        print(f"{action}: {len(good)} of {len(messages)} clients have replied.")
    if len(good) < this.threshold:
        raise RuntimeError(
            f"{len(good)} clients are fewer than threshold={this.threshold}: the round "
            f"ends at {action!r}, and the server has learned no sum."
        )
    return {n: good[nodes[n]] for n in records if nodes[n] in good}


def gather(replies: dict[int, RecordDict], record: str, name: str) -> ConfigRecord:
    """Return what each reply has under one name, by the number of its sender."""
    return ConfigRecord({str(n): reply[record][name] for n, reply in replies.items()})


def exchange_keys(this: Round) -> tuple[dict[int, int], dict[str, ConfigRecord]]:
    """Number the clients that send keys, and return their nodes and their keys."""
    nodes = dict(enumerate(this.grid.get_node_ids(), start=1))
    replies = ask(this, "keys", nodes, {n: {} for n in nodes})
    # Now number them without gaps: shares are made for clients 1, 2, 3 and so on.
    nodes = {i: nodes[n] for i, n in enumerate(replies, start=1)}
    replies = dict(enumerate(replies.values(), start=1))
    kinds = ("mask", "letter")
    return nodes, {f"{kind}-keys": gather(replies, "public", kind) for kind in kinds}


def secure_sum(this: Round, model: np.ndarray) -> Vector:
    """Lead one round, and return the sum of what the clients have encoded."""
    nodes, keys = exchange_keys(this)
    written = ask(this, "shares", nodes, dict.fromkeys(nodes, keys))

    asked = {n: {"letters": gather(written, "letters", str(n))} for n in written}
    for records in asked.values():
        records["model"] = ArrayRecord([model])
    replies = ask(this, "masked", nodes, asked)
    masked = {n: r["masked"].to_numpy_ndarrays()[0] for n, r in replies.items()}

    who = ConfigRecord({"survivors": list(masked)})
    opened = ask(this, "unmask", nodes, dict.fromkeys(masked, {"who": who}))
    shares = {n: by_number(gather(opened, "shares", str(n))) for n in written}
    secrets = {n: restore(own, this.threshold) for n, own in shares.items()}
    return unmask(masked, by_number(keys["mask-keys"]), secrets)
