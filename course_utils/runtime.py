"""The in-process runtime: unmodified Flower apps, run inside this Python process.

Flower's Simulation Runtime starts Ray and worker processes, its deployment starts a
process for every message. Both are right for what they do and slow for a lesson. This
module carries the messages between one ServerApp and many virtual SuperNodes without
leaving the process, and otherwise keeps to what Flower's runtimes do:

- What crosses the grid is a copy: no side can change what the other holds.
- A node's ``Context.state`` survives from message to message. Nothing else of a
  ClientApp call does: each call gets a fresh copy of the app and of the globals that it
  uses, as on a SuperNode, where each message gets a new process. (Imported modules and
  classes are shared, as among the calls of one worker in the Simulation Runtime.)
- A client that raises makes an error reply, if one asks for that. By default its
  exception surfaces where it is seen: here.

All of the course's use of Flower's internals is in this module.
"""

import io
import logging
import pickle
import random
import sys
import time
import types
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, Literal
from unittest.mock import patch

import cloudpickle
import numpy as np
import torch
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    Metadata,
    MetricRecord,
    RecordDict,
    UserConfig,
)
from flwr.app.message import make_message
from flwr.clientapp import ClientApp
from flwr.common.config import validate_config
from flwr.common.constant import (
    NUM_PARTITIONS_KEY,
    PARTITION_ID_KEY,
    SUPERLINK_NODE_ID,
    ErrorCode,
)
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Result, Strategy
from flwr.serverapp.strategy.strategy_utils import sample_nodes
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from tqdm.auto import tqdm

from course_utils import with_progress

FLOWER_LOGGER = logging.getLogger("flwr")
# Flower logs many lines a round. Lessons show a table instead, and warnings only.
FLOWER_LOGGER.setLevel(logging.WARNING)

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
    """

    round: int
    type: str
    source: int
    destination: int
    bytes: int
    seconds: float = 0.0
    error: str | None = None

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
        if not isinstance(num_supernodes, int) or num_supernodes < 1:
            raise ValueError(
                f"num_supernodes must be a whole number of at least 1, "
                f"not {num_supernodes!r}."
            )
        if client_errors not in ("raise", "reply"):
            raise ValueError(
                f'client_errors must be "raise" or "reply", not {client_errors!r}.'
            )
        self.messages: list[Delivery] = []
        """Every message that crossed the grid, in order."""
        self._run_config = _checked_run_config(run_config)
        self._seed = seed
        self._client_errors = client_errors
        self._ids = random.Random(seed)  # seeded by the system if seed is None
        self._run = Run.create_empty(run_id=self._ids.getrandbits(63))
        self._app = _AppImage(client_app)
        # By hand, a strategy may ask for nodes that will never come: see get_node_ids.
        self._polls: list[float] = []
        self._bounded_polling = False
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
        _set_identity(self._run.run_id, SUPERLINK_NODE_ID)

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
        """
        self._polls.clear()
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
        _stamp(message.metadata, run_id=self._run.run_id, message_id=message_id)
        instruction = _copy_message(message)
        record = Delivery(
            round=_round_of(instruction.content),
            type=message.metadata.message_type,
            source=message.metadata.src_node_id,
            destination=node_id,
            bytes=_num_bytes(instruction),
        )
        self.messages.append(record)
        start = time.perf_counter()
        reply = self._handle(instruction)
        seconds = time.perf_counter() - start
        _stamp(reply.metadata, message_id=self._new_message_id())
        self.messages.append(
            Delivery(
                round=record.round,
                type=record.type,
                source=node_id,
                destination=record.source,
                bytes=_num_bytes(reply),
                seconds=seconds,
                error=reply.error.reason if reply.has_error() else None,
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
            state=_copy_records(kept.state),
            run_config=dict(kept.run_config),
        )
        # A message that the ClientApp keeps or changes must not change this one.
        message = _copy_message(instruction)
        try:
            with self._random_numbers_of(node_id), _identity(kept.run_id, node_id):
                reply = self._app.fresh_copy()(message, context)
            _check_reply(reply, instruction)
            state, reply = _copy_records(context.state), _copy_message(reply)
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
        if self._seed is None:
            yield
            return
        partition_id = self.node_contexts[node_id].node_config[PARTITION_ID_KEY]
        # Mixes the three numbers so that neighbouring seeds share nothing.
        mixed = np.random.SeedSequence((self._seed, partition_id, call))
        with _seeded(int(mixed.generate_state(1)[0])):
            yield

    # ----------------------------------------------------------------------- helpers

    def _new_node_id(self) -> int:
        """Draw an id as Flower's runtimes do: 64 random bits, not the SuperLink's."""
        node_id = self._ids.getrandbits(64)
        taken = node_id in (0, SUPERLINK_NODE_ID) or node_id in self.node_contexts
        return self._new_node_id() if taken else node_id

    def _new_message_id(self) -> str:
        return str(uuid.UUID(int=self._ids.getrandbits(128), version=4))

    def _refuse_endless_wait(self) -> None:
        """Raise where Flower would wait for nodes for ever, since none will join."""
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
        if self._bounded_polling:
            self._polls.append(time.monotonic())
            if len(self._polls) >= 5 and self._polls[-1] - self._polls[0] > PATIENCE:
                raise RuntimeError(
                    f"The ServerApp keeps asking for nodes without sending a message, "
                    f"but this run has {count} and no more will join: wait for fewer, "
                    "or raise num_supernodes."
                )


# ------------------------------------------------------------------------- whole runs


@dataclass
class InProcessRun:
    """What is left of a run: both sides' Contexts, the traffic, the results.

    Attributes
    ----------
    server_context : Context
        The ServerApp's Context after the run.
    node_contexts : dict[int, Context]
        Each node's Context after the run by node id, in the order of partition ids.
    messages : list[Delivery]
        Every message that crossed the grid, in order.
    results : list[Result]
        What each ``strategy.start(...)`` of the run returned.
    """

    server_context: Context
    node_contexts: dict[int, Context]
    messages: list[Delivery]
    results: list[Result] = field(default_factory=list)

    @property
    def result(self) -> Result:
        """The result of the run's last ``strategy.start(...)``."""
        if not self.results:
            raise ValueError("No strategy was started in this run.")
        return self.results[-1]


def run_in_process(
    server_app: ServerApp,
    client_app: ClientApp,
    *,
    num_supernodes: int,
    run_config: UserConfig | None = None,
    seed: int | None = None,
    client_errors: Literal["raise", "reply"] = "raise",
    progress: bool = True,
    flower_log: bool = False,
) -> InProcessRun:
    """Run a ServerApp and its ClientApps, from start to end, in this process.

    Parameters
    ----------
    server_app : ServerApp
        The app that leads the run.
    client_app : ClientApp
        The app that every node runs.
    num_supernodes : int
        Number of nodes. Node ``i`` has partition id ``i``.
    run_config : UserConfig, optional
        The run's settings, in both sides' ``context.run_config``.
    seed : int, optional
        Fixes node ids and every random number of the run: those of the ServerApp
        (initial weights, client sampling) and those of each ClientApp call (batches).
        Two runs with one seed give the same bits.
    client_errors : {"raise", "reply"}
        What becomes of an exception in a ClientApp: it ends the run and surfaces here,
        or it makes the error reply that Flower's runtimes make.
    progress : bool
        Whether to show a progress bar and print a line a round.
    flower_log : bool
        Whether to show Flower's own log.

    Returns
    -------
    InProcessRun
        The server's Context, each node's Context, the record of messages, the results.

    Raises
    ------
    TypeError, ValueError
        If an argument cannot serve.
    RuntimeError
        If the ServerApp waits for more nodes than there are.
    """
    if not isinstance(server_app, ServerApp):
        raise TypeError(
            f"server_app must be a flwr.serverapp.ServerApp, not {server_app!r}."
        )
    before = _get_identity()
    try:
        grid = InProcessGrid(
            client_app,
            num_supernodes,
            run_config=run_config,
            seed=seed,
            client_errors=client_errors,
        )
        grid._bounded_polling = True
        context = Context(
            run_id=grid.run.run_id,
            node_id=SUPERLINK_NODE_ID,
            node_config={},
            state=RecordDict(),
            run_config=_checked_run_config(run_config),
        )
        run = InProcessRun(context, grid.node_contexts, grid.messages)
        with _seeded(seed), _log_level(flower_log), _watched(run, progress):
            server_app(grid, context)
    finally:
        _set_identity(*before)
    return run


@contextmanager
def _watched(run: InProcessRun, progress: bool) -> Iterator[None]:
    """Keep the result of every ``Strategy.start`` and show how it gets on."""
    original = Strategy.start

    def start(strategy: Strategy, *args: Any, **kwargs: Any) -> Result:
        call = signature(original).bind(strategy, *args, **kwargs)
        call.apply_defaults()
        table = _RoundTable(run.messages, call.arguments["num_rounds"], progress)
        table.watch(strategy, call.arguments)
        try:
            result = original(*call.args, **call.kwargs)
        finally:
            table.close(strategy)
        run.results.append(result)
        return result

    with patch.object(Strategy, "start", start):
        yield


class _RoundTable:
    """Prints one line a round: replies, failures, traffic and metrics."""

    def __init__(self, messages: list[Delivery], rounds: int, show: bool) -> None:
        self.messages = messages
        self.show = show
        self.seen = len(messages)
        self.metrics: dict[str, float] = {}
        self.header: list[str] = []
        self.bar = with_progress(doing="rounds", total=rounds, hidden=not show)

    def watch(self, strategy: Strategy, arguments: dict[str, Any]) -> None:
        """Look at what the strategy's two aggregations and evaluate_fn return."""

        def look(method: str, name: str, pick: Callable) -> None:
            original = getattr(strategy, method)

            def wrapper(*args: Any, **kwargs: Any) -> Any:
                returned = original(*args, **kwargs)
                self.note(name, pick(returned))
                return returned

            setattr(strategy, method, wrapper)

        look("aggregate_train", "train", lambda returned: returned[1])
        look("aggregate_evaluate", "eval", lambda returned: returned)
        evaluate_fn = arguments["evaluate_fn"] or (lambda *_: None)

        def evaluate_and_print(server_round: int, arrays: ArrayRecord) -> Any:
            metrics = evaluate_fn(server_round, arrays)
            self.note("server", metrics)
            self.end_round(server_round)
            return metrics

        arguments["evaluate_fn"] = evaluate_and_print

    def note(self, name: str, metrics: MetricRecord | None) -> None:
        for key, value in (metrics or {}).items():
            if not isinstance(value, list):
                column = key if key.startswith(name) else f"{name} {key}"
                self.metrics[column] = value

    def end_round(self, server_round: int) -> None:
        new, self.seen = self.messages[self.seen :], len(self.messages)
        if self.show and server_round == 0:
            for key, value in self.metrics.items():
                tqdm.write(f"before training: {key} {value:.4g}")
        elif self.show:
            replies = [m for m in new if m.is_reply]
            good = [m for m in replies if m.error is None]
            row = {
                "round": f"{server_round}",
                "trained": f"{sum(m.type.startswith('train') for m in good)}",
                "failed": f"{len(replies) - len(good)}",
                "MB": f"{sum(m.bytes for m in new) / 1e6:.2f}",
                **{key: f"{value:.4g}" for key, value in self.metrics.items()},
            }
            # "server eval-loss" stands in two lines, so that a row fits into a cell.
            parts = [key.rpartition(" ") for key in row]
            widths = [max(7, len(first), len(last)) for first, _, last in parts]
            if list(row) != self.header:
                self.header = list(row)
                self.write([first for first, *_ in parts], widths)
                self.write([last for *_, last in parts], widths)
            self.write(row.values(), widths)
        self.metrics = {}
        self.bar.update(server_round > 0)

    def write(self, words: Iterable[str], widths: Iterable[int]) -> None:
        pairs = zip(words, widths, strict=True)
        line = "  ".join(f"{word:>{width}}" for word, width in pairs)
        if line.strip():
            tqdm.write(line)

    def close(self, strategy: Strategy) -> None:
        self.bar.close()
        for method in ("aggregate_train", "aggregate_evaluate"):
            vars(strategy).pop(method, None)


# -------------------------------------------------------------- copies across the grid


def _copy_message(message: Message) -> Message:
    error = copy(message.error) if message.has_error() else None
    content = _copy_records(message.content) if message.has_content() else None
    return make_message(metadata=copy(message.metadata), content=content, error=error)


def _copy_records(records: RecordDict) -> RecordDict:
    """Copy records as a wire would.

    Metrics and configs go through Flower's own serialization. Arrays are serialized
    already, as immutable bytes, so a new record around the same bytes will do.
    """
    copies: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {}
    for name, record in records.items():
        if isinstance(record, ArrayRecord):
            copies[name] = ArrayRecord.from_array_dict(dict(record))
        else:
            copies[name] = type(record).inflate(record.deflate())
    return RecordDict(copies)


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


def _round_of(content: RecordDict) -> int:
    for record in content.config_records.values():
        if "server-round" in record:
            return int(record["server-round"])
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


class _AppImage:
    """A ClientApp as it was when the run began, from which fresh copies are made.

    Flower's runtimes load the app anew in other processes, where what a call left in
    globals or attributes is not found. Pickling the app *by value*, with the globals
    that its functions use, gives the same in one process. Modules and classes are
    shared: copying them would make two classes of one name.
    """

    def __init__(self, app: ClientApp) -> None:
        # A module that holds the app, such as client_app.py, is copied with it.
        homes = [
            module
            for name, module in list(sys.modules.items())
            if name != "__main__" and any(v is app for v in vars(module).values())
        ]
        buffer = io.BytesIO()
        pickler = _AppPickler(buffer)
        for module in homes:
            cloudpickle.register_pickle_by_value(module)
        try:
            pickler.dump(app)
        except Exception as error:
            raise ValueError(
                "The ClientApp uses something that cannot be copied to another "
                f"process, as Flower's runtimes would ({error}): make it inside the "
                "function that needs it."
            ) from error
        finally:
            for module in homes:
                cloudpickle.unregister_pickle_by_value(module)
        self._image = buffer.getvalue()
        self._shared = pickler.shared

    def fresh_copy(self) -> ClientApp:
        """Return the app as it was when the run began."""
        return _AppUnpickler(io.BytesIO(self._image), self._shared).load()


class _AppPickler(cloudpickle.Pickler):
    """Pickles all by value but modules and classes, of which it keeps a list."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.shared: list[Any] = []

    def persistent_id(self, value: Any) -> int | None:
        if not isinstance(value, (type, types.ModuleType)):
            return None
        self.shared.append(value)
        return len(self.shared) - 1


class _AppUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, shared: list[Any]) -> None:
        super().__init__(file)
        self._shared = shared

    def persistent_load(self, index: int) -> Any:
        return self._shared[index]


# ------------------------------------------------------------- an app's pyproject.toml


def find_app_errors(settings: dict[str, Any]) -> list[str]:
    """Return what Flower misses or refuses in an app's settings, before it runs it.

    Parameters
    ----------
    settings : dict[str, Any]
        What stands in the app's ``pyproject.toml``, parsed.

    Returns
    -------
    list[str]
        Flower's own words; empty if it takes the app.
    """
    try:
        # Whether the modules exist is not asked: the file may be checked on its own.
        _, errors, _ = validate_config(settings, check_module=False)
    except ValueError as error:  # a setting of a type that a run config does not take
        return [str(error)]
    return errors


# ------------------------------------------------------------- settings of the process


def _checked_run_config(run_config: UserConfig | None) -> UserConfig:
    for key, value in (run_config or {}).items():
        if not isinstance(key, str) or not isinstance(value, (bool, int, float, str)):
            raise TypeError(
                f"run_config[{key!r}] = {value!r} cannot be a run's setting: names are "
                "strings, and values are bool, int, float or str."
            )
    return dict(run_config or {})


def _stamp(metadata: Metadata, **fields: int | str) -> None:
    """Set what Flower's runtimes set, though it is read-only for apps."""
    metadata.__dict__.update({f"_{name}": value for name, value in fields.items()})


def _get_identity() -> tuple[int | None, int | None, int | None]:
    return TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id


def _set_identity(
    run_id: int | None, node_id: int | None, task_id: int | None = 1
) -> None:
    """Say in whose name this process creates messages."""
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = node_id
    TaskIdentity.task_id = task_id


@contextmanager
def _identity(run_id: int, node_id: int) -> Iterator[None]:
    before = _get_identity()
    _set_identity(run_id, node_id)
    try:
        yield
    finally:
        _set_identity(*before)


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    """Seed the three generators, and put them back as they were afterwards."""
    if seed is None:
        yield
        return
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if torch.cuda.is_initialized():
        torch.manual_seed(seed)
    else:  # the same for the CPU, without a millisecond's search for other devices
        torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@contextmanager
def _log_level(show: bool) -> Iterator[None]:
    before = FLOWER_LOGGER.level
    FLOWER_LOGGER.setLevel(logging.INFO if show else before)
    try:
        yield
    finally:
        FLOWER_LOGGER.setLevel(before)
