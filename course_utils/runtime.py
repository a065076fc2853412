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

This module has whole runs, :mod:`course_utils.grid` the grid that carries messages, and
:mod:`course_utils.isolation` what keeps the calls apart. All of the course's use of
Flower's internals is in these three.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from inspect import signature
from typing import Any, Literal
from unittest.mock import patch

from flwr.app import ArrayRecord, Context, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.common.config import validate_config
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import Result, Strategy
from tqdm.auto import tqdm

from course_utils import isolation, with_progress
from course_utils.grid import SUPERLINK_NODE_ID, Delivery, InProcessGrid

FLOWER_LOGGER = logging.getLogger("flwr")
# Flower logs many lines a round. Lessons show a table instead, and warnings only.
FLOWER_LOGGER.setLevel(logging.WARNING)


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
    with isolation.alone(), isolation.identity(*isolation.get_identity()):
        grid = InProcessGrid(
            client_app,
            num_supernodes,
            run_config=run_config,
            seed=seed,
            client_errors=client_errors,
        )
        context = Context(
            run_id=grid.run.run_id,
            node_id=SUPERLINK_NODE_ID,
            node_config={},
            state=RecordDict(),
            run_config=dict(run_config or {}),
        )
        run = InProcessRun(context, grid.node_contexts, grid.messages)
        with (
            grid.serving_a_run(),
            isolation.seeded(grid.seed),
            _log_level(flower_log),
            _watched(run, progress),
        ):
            server_app(grid, context)
    return run


@contextmanager
def _watched(run: InProcessRun, progress: bool) -> Iterator[None]:
    """Keep the result of every ``Strategy.start`` and show how it gets on.

    Flower hands a Result to the ServerApp alone, and a ServerApp makes its strategy
    itself: nothing public lets a runtime see either, so ``start`` is replaced.
    """
    # Inside another run, that run's replacement stands here: it must not see this one.
    original = getattr(Strategy.start, "unwatched", Strategy.start)

    @wraps(original)
    def start(strategy: Strategy, *args: Any, **kwargs: Any) -> Result:
        try:
            call = signature(original).bind(strategy, *args, **kwargs)
        except TypeError:
            return original(strategy, *args, **kwargs)  # Flower says what is wrong
        call.apply_defaults()
        table = _RoundTable(run.messages, call.arguments["num_rounds"], progress)
        call.arguments["self"] = _Watched(strategy, table)
        if evaluate_fn := call.arguments["evaluate_fn"]:
            table.last_seen = "server"
            call.arguments["evaluate_fn"] = table.watching("server", evaluate_fn)
        try:
            result = original(*call.args, **call.kwargs)
        finally:
            table.bar.close()
        run.results.append(result)
        return result

    start.unwatched = original
    with patch.object(Strategy, "start", start):
        yield


class _Watched:
    """Stands in for a strategy while Flower's loop runs, so as to leave it alone."""

    def __init__(self, strategy: Strategy, table: "_RoundTable") -> None:
        self._strategy = strategy
        self._table = table

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._strategy, name)
        shown = {"aggregate_train": "train", "aggregate_evaluate": "eval"}.get(name)
        return self._table.watching(shown, found) if shown else found

    @property
    def __class__(self) -> type:  # Flower logs its name
        return type(self._strategy)


class _RoundTable:
    """Prints one line a round: replies, failures, traffic and metrics."""

    def __init__(self, messages: list[Delivery], rounds: Any, show: bool) -> None:
        self.messages = messages
        self.show = show
        self.seen = len(messages)
        self.last_seen = "eval"
        self.metrics: dict[str, str] = {}
        self.header: list[str] = []
        total = rounds if isinstance(rounds, int) else None
        self.bar = with_progress(doing="rounds", total=total, hidden=not show)

    def watching(self, name: str, function: Callable) -> Callable:
        """Let the table see what a function returns. The last one ends the round."""

        def watched(server_round: int, *args: Any) -> Any:
            returned = function(server_round, *args)
            self.note(name, returned)
            if name == self.last_seen:
                self.end_round(server_round)
            return returned

        return watched

    def note(self, name: str, returned: Any) -> None:
        """Take what can be shown: apps return other things than MetricRecords, too."""
        for part in returned if isinstance(returned, tuple) else (returned,):
            if isinstance(part, (int, float)):
                self.metrics[name] = _shown(part)
            elif isinstance(part, Mapping) and not isinstance(part, ArrayRecord):
                for key, value in part.items():
                    if not isinstance(value, list):
                        column = (
                            f"{key}" if f"{key}".startswith(name) else f"{name} {key}"
                        )
                        self.metrics[column] = _shown(value)

    def end_round(self, server_round: int) -> None:
        new, self.seen = self.messages[self.seen :], len(self.messages)
        if self.show and server_round == 0:
            for key, value in self.metrics.items():
                tqdm.write(f"before training: {key} {value}")
        elif self.show:
            replies = [m for m in new if m.is_reply]
            good = [m for m in replies if m.error is None]
            row = {
                "round": f"{server_round}",
                "trained": f"{sum(m.type.startswith('train') for m in good)}",
                "failed": f"{len(replies) - len(good)}",
                "MB": f"{sum(m.bytes for m in new) / 1e6:.2f}",
                **self.metrics,
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


def _shown(value: Any) -> str:
    """Return a number in four digits, and the beginning of anything else."""
    try:
        return f"{value:.4g}"
    except (TypeError, ValueError):
        return " ".join(f"{value}".split())[:12]


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


@contextmanager
def _log_level(show: bool) -> Iterator[None]:
    before = FLOWER_LOGGER.level
    FLOWER_LOGGER.setLevel(logging.INFO if show else before)
    if not show:
        FLOWER_LOGGER.addFilter(_is_news)
    try:
        yield
    finally:
        FLOWER_LOGGER.removeFilter(_is_news)
        FLOWER_LOGGER.setLevel(before)


def _is_news(record: logging.LogRecord) -> bool:
    """Leave out Flower's warning of what fraction_evaluate=0.0 has asked for."""
    return "Federated evaluation will be skipped" not in record.getMessage()
