"""The grid of the in-process runtime: it carries messages to virtual SuperNodes."""

import random
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
    UserConfig,
)
from flwr.clientapp import ClientApp
from flwr.common.constant import (  # others of the course import them from here
    NUM_PARTITIONS_KEY,
    PARTITION_ID_KEY,
    SUPERLINK_NODE_ID,
    ErrorCode,
)
from flwr.serverapp import Grid
from flwr.serverapp.strategy.strategy_utils import sample_nodes
from flwr.supercore.run import Run

from course_utils.isolation import (
    AppImage,
    alone,
    copy_message,
    copy_records,
    identity,
    seeded,
    set_identity,
    stamp,
)

PATIENCE = 5.0
"""Seconds that a ServerApp may keep asking for nodes that will never come."""


@dataclass(frozen=True)
class Delivery:
    """One message that crossed the grid: an instruction, or the reply to one.

    Attributes
    ----------
    round : int
        ``server-round`` in the instruction's ConfigRecord, or 0 if it has none.
    type : str
        Message type, such as ``"train"`` or ``"query.label_counts"``.
    source, destination : int
        Node ids. The ServerApp's is :data:`SUPERLINK_NODE_ID`.
    bytes : int
        Size of the records, as Flower's ``message_size_mod`` counts it.
    seconds : float
        Time the ClientApp took, for a reply; 0 for an instruction.
    error : str or None
        Reason, if the message is an error reply.
    names : dict[str, tuple[str, ...]]
        What crossed, by name: each record's name, and the names in this record.
    """

    round: int
    type: str
    source: int
    destination: int
    bytes: int
    seconds: float = 0.0
    error: str | None = None
    names: dict[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    @property
    def is_reply(self) -> bool:
        """Whether it went from a client to the server."""
        return self.destination == SUPERLINK_NODE_ID


class InProcessGrid(Grid):
    """A Flower Grid whose SuperNodes live in this process.

    Making one also lets this process create messages, which Flower otherwise allows
    only inside a running app.

    Parameters
    ----------
    client_app : ClientApp
        The app that every node runs, as it is now: later changes to it are not seen.
    num_supernodes : int
        Number of nodes. Node ``i`` has partition id ``i``.
    run_config : UserConfig, optional
        The run's settings, which each ClientApp finds in ``context.run_config``.
    seed : int, optional
        Fixes node ids, and the random numbers that each ClientApp call draws from
        ``random``, NumPy and PyTorch: they depend on the seed, the node and how many
        messages it had before. Without it, calls draw from this process's generators.
    client_errors : {"raise", "reply"}
        What becomes of an exception in a ClientApp: it surfaces here, or it makes the
        error reply that Flower's runtimes make.

    Raises
    ------
    TypeError, ValueError
        If an argument cannot serve.
    """

    def __init__(
        self,
        client_app: ClientApp,
        num_supernodes: int,
        *,
        run_config: UserConfig | None = None,
        seed: int | None = None,
        client_errors: Literal["raise", "reply"] = "raise",
    ) -> None:
        if not isinstance(client_app, ClientApp):
            raise TypeError(
                f"client_app must be a flwr.clientapp.ClientApp, not {client_app!r}."
            )
        num_supernodes = _whole_number("num_supernodes", num_supernodes, 1)
        seed = None if seed is None else _whole_number("seed", seed, 0)
        if client_errors not in ("raise", "reply"):
            raise ValueError(
                f'client_errors must be "raise" or "reply", not {client_errors!r}.'
            )
        self.messages: list[Delivery] = []
        """Every message that crossed the grid, in order."""
        self._run_config = _checked_run_config(run_config)
        self.seed = seed
        self._client_errors = client_errors
        self._ids = random.Random(seed)  # seeded by the system if seed is None
        self._run = Run.create_empty(run_id=self._ids.getrandbits(63))
        self._app = AppImage(client_app)
        self._polls: list[float] = []
        self._in_run = False  # by hand, nodes may be asked for again and again
        self._lock = threading.RLock()  # a ServerApp may send from several threads
        self._replies: dict[str, tuple[Message, float]] = {}
        self._calls: dict[int, int] = {}
        self.node_contexts: dict[int, Context] = {}
        """Each node's Context by node id, in the order of partition ids."""
        for partition_id in range(num_supernodes):
            node_id = self._new_node_id()
            self._calls[node_id] = 0
            self.node_contexts[node_id] = Context(
                run_id=self._run.run_id,
                node_id=node_id,
                node_config={
                    PARTITION_ID_KEY: partition_id,
                    NUM_PARTITIONS_KEY: num_supernodes,
                },
                state=RecordDict(),
                run_config=dict(self._run_config),
            )
        with alone():
            set_identity(self._run.run_id, SUPERLINK_NODE_ID)

    # ------------------------------------------------------- what a ServerApp calls

    def set_run(self, run: Run) -> None:
        """Set the run that this grid serves."""
        self._run = run

    @property
    def run(self) -> Run:
        """A copy of the run's description."""
        return copy(self._run)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message (deprecated in Flower: call ``Message(...)``)."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Return the ids of all nodes, in the order of partition ids.

        Raises
        ------
        RuntimeError
            If the caller waits for more nodes than there are: no more will come.
        """
        self._refuse_endless_wait()
        return list(self.node_contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Deliver each message to its node, which handles it at once.

        Returns
        -------
        list[str]
            The messages' ids, to pull the replies with.

        Raises
        ------
        ValueError
            If a message goes to a node that does not exist.
        RuntimeError
            If another thread of this process is in a run, or sends to another grid.
        """
        self._polls.clear()
        with self._lock, nullcontext() if self._in_run else alone():
            return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies to the messages with these ids, each of them once."""
        found = [self._replies.pop(i) for i in message_ids if i in self._replies]
        return [reply for reply, _ in found]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Push messages and pull their replies.

        Parameters
        ----------
        messages : Iterable[Message]
            Messages to nodes.
        timeout : float, optional
            Seconds that a client has for its reply. Here clients run one after the
            other, on a deployment side by side; so that the outcome is the same, each
            client's own time counts. A late reply is kept for ``pull_messages``.

        Returns
        -------
        list[Message]
            The replies that came in time, in the order of the messages.
        """
        ids = self.push_messages(messages)
        in_time = [i for i in ids if timeout is None or self._replies[i][1] <= timeout]
        return self.pull_messages(in_time)

    # ------------------------------------------------------------------- one message

    def _push(self, message: Message) -> str:
        node_id = message.metadata.dst_node_id
        if node_id not in self.node_contexts:
            raise ValueError(
                f"No node {node_id} on this grid: choose dst_node_id from "
                "grid.get_node_ids()."
            )
        message_id = self._new_message_id()
        stamp(message.metadata, run_id=self._run.run_id, message_id=message_id)
        instruction = copy_message(message)
        record = Delivery(
            round=_round_of(instruction.content),
            type=message.metadata.message_type,
            source=message.metadata.src_node_id,
            destination=node_id,
            bytes=_num_bytes(instruction),
            names=_names_in(instruction),
        )
        self.messages.append(record)
        start = time.perf_counter()
        reply = self._handle(instruction)
        seconds = time.perf_counter() - start
        stamp(reply.metadata, message_id=self._new_message_id())
        self.messages.append(
            Delivery(
                round=record.round,
                type=record.type,
                source=node_id,
                destination=record.source,
                bytes=_num_bytes(reply),
                seconds=seconds,
                error=reply.error.reason if reply.has_error() else None,
                names=_names_in(reply),
            )
        )
        self._replies[message_id] = (reply, seconds)
        return message_id

    def _handle(self, instruction: Message) -> Message:
        """Call a fresh copy of the ClientApp, as the node that was written to."""
        node_id = instruction.metadata.dst_node_id
        kept = self.node_contexts[node_id]
        context = Context(
            run_id=kept.run_id,
            node_id=node_id,
            node_config=dict(kept.node_config),
            state=copy_records(kept.state),
            run_config=dict(kept.run_config),
        )
        # A message that the ClientApp keeps or changes must not change this one.
        message, app = copy_message(instruction), self._app.fresh_copy()
        try:
            with self._random_numbers_of(node_id), identity(kept.run_id, node_id):
                reply = app(message, context)
            _check_reply(reply, instruction)
            state, reply = copy_records(context.state), copy_message(reply)
        except Exception as error:
            if self._client_errors == "raise":
                error.add_note(
                    f"Raised by the ClientApp on node {node_id} (partition "
                    f"{kept.node_config[PARTITION_ID_KEY]}), handling a "
                    f"{instruction.metadata.message_type!r} message. Flower's runtimes "
                    'answer with an error reply instead: client_errors="reply".'
                )
                raise
            # The form in which a SuperNode reports it (flwr/supernode/runtime).
            reason = str(type(error)) + ":<'" + str(error) + "'>"
            code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
            return Message(Error(code, reason), reply_to=instruction)
        kept.state = state
        return reply

    @contextmanager
    def _random_numbers_of(self, node_id: int) -> Iterator[None]:
        """Give one ClientApp call random numbers of its own, if there is a seed."""
        call = self._calls[node_id]
        self._calls[node_id] += 1
        if self.seed is None:
            yield
            return
        partition_id = self.node_contexts[node_id].node_config[PARTITION_ID_KEY]
        # Mixes the three numbers so that neighbouring seeds share nothing.
        mixed = np.random.SeedSequence((self.seed, partition_id, call))
        with seeded(int(mixed.generate_state(1)[0])):
            yield

    # ----------------------------------------------------------------------- helpers

    @contextmanager
    def serving_a_run(self) -> Iterator[None]:
        """Bound the wait for nodes, and let any thread of the ServerApp send."""
        self._in_run = True
        try:
            yield
        finally:
            self._in_run = False

    def _new_node_id(self) -> int:
        """Draw an id as Flower's runtimes do: 64 random bits, not the SuperLink's."""
        node_id = self._ids.getrandbits(64)
        taken = node_id in (0, SUPERLINK_NODE_ID) or node_id in self.node_contexts
        return self._new_node_id() if taken else node_id

    def _new_message_id(self) -> str:
        return str(uuid.UUID(int=self._ids.getrandbits(128), version=4))

    def _refuse_endless_wait(self) -> None:
        """Raise where Flower would wait for nodes for ever, since none will join.

        Only the caller knows how many it waits for: Flower tells no grid. Without a
        look at it, a strategy would be stopped late, by hand never, and not be told
        the number.
        """
        count = len(self.node_contexts)
        caller = sys._getframe(2)
        if caller.f_code is sample_nodes.__code__:
            wanted = caller.f_locals["min_available_nodes"]
            if wanted > count:
                raise RuntimeError(
                    f"The strategy waits for {wanted} nodes, but this run has {count} "
                    "and no more will join: lower min_available_nodes, min_train_nodes "
                    "and min_evaluate_nodes, or raise num_supernodes."
                )
        if self._in_run:
            self._polls.append(time.monotonic())
            if len(self._polls) >= 5 and self._polls[-1] - self._polls[0] > PATIENCE:
                raise RuntimeError(
                    f"The ServerApp keeps asking for nodes without sending a message, "
                    f"but this run has {count} and no more will join: wait for fewer, "
                    "or raise num_supernodes."
                )


# ------------------------------------------------------ what is counted and checked


def _num_bytes(message: Message) -> int:
    """Count as Flower's ``message_size_mod`` does: records, without metadata."""
    if message.has_error():
        return len((message.error.reason or "").encode())
    return sum(_record_bytes(record) for record in message.content.values())


def _record_bytes(record: ArrayRecord | MetricRecord | ConfigRecord) -> int:
    if not isinstance(record, ConfigRecord):
        return record.count_bytes()
    # Flower's own count refuses an empty string or list, so they are left out of it.
    filled = {k: v for k, v in record.items() if v not in ("", b"", [])}
    empty = sum(len(key) for key in record if key not in filled)
    return ConfigRecord(filled).count_bytes() + empty


def _names_in(message: Message) -> dict[str, tuple[str, ...]]:
    if message.has_error():
        return {}
    return {name: tuple(record) for name, record in message.content.items()}


def _round_of(content: RecordDict) -> int:
    for record in content.config_records.values():
        if isinstance(record.get("server-round"), int):
            return record["server-round"]
    return 0


def _check_reply(reply: Any, instruction: Message) -> None:
    if not isinstance(reply, Message):
        raise TypeError(
            f"The ClientApp returned {reply!r}: a {instruction.metadata.message_type} "
            "function must return Message(content, reply_to=message)."
        )
    if reply.metadata.reply_to_message_id != instruction.metadata.message_id:
        raise ValueError(
            "The ClientApp returned a message that answers no message: return "
            "Message(content, reply_to=message), with the message it was called with."
        )


def _whole_number(name: str, value: Any, least: int) -> int:
    """Take what Python and NumPy call an integer, but no bool."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or value < least:
        raise ValueError(
            f"{name} must be a whole number of at least {least}, not {value!r}."
        )
    return int(value)


def _checked_run_config(run_config: UserConfig | None) -> UserConfig:
    if not isinstance(run_config, (Mapping, type(None))):
        raise TypeError(f"run_config must be a dict of settings, not {run_config!r}.")
    for key, value in (run_config or {}).items():
        if not isinstance(key, str) or not isinstance(value, (bool, int, float, str)):
            raise TypeError(
                f"run_config[{key!r}] = {value!r} cannot be a run's setting: names are "
                "strings, and values are bool, int, float or str."
            )
    return dict(run_config or {})
