"""Messages and Contexts made by hand, for judges whose answers handle messages."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from copy import deepcopy
from typing import Any

import cloudpickle
import numpy as np
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
    UserConfig,
)

from course_utils.exercises.engine import Attempt, Wrong, last_frame, require_kind
from course_utils.grid import NUM_PARTITIONS_KEY, PARTITION_ID_KEY, SUPERLINK_NODE_ID
from course_utils.isolation import copy_records, identity, stamp

RUN_ID = 7
NODE_ID = 3_141_592_653
MESSAGE_ID = "00000000-0000-4000-8000-000000000001"
A_REPLY = "Message(content, reply_to=message)"


def instruction(
    content: RecordDict, message_type: str = "train", node_id: int = NODE_ID
) -> Message:
    """Make a message as it arrives at a client: from the server, with an id."""
    with identity(RUN_ID, SUPERLINK_NODE_ID):
        message = Message(content, node_id, message_type)
    stamp(message.metadata, message_id=MESSAGE_ID)
    return message


def context(
    partition_id: int = 0, num_partitions: int = 1, run_config: UserConfig | None = None
) -> Context:
    """Make a client's Context, with an empty state."""
    ids = {PARTITION_ID_KEY: partition_id, NUM_PARTITIONS_KEY: num_partitions}
    return Context(RUN_ID, NODE_ID, ids, RecordDict(), dict(run_config or {}))


def as_client() -> AbstractContextManager[None]:
    """Run what is inside in the client's name, as Flower's runtimes do."""
    return identity(RUN_ID, NODE_ID)


def ask(answer: Attempt, message: Message, *more: Any) -> RecordDict:
    """Hand a message to an answer, and return the content of the reply.

    Like a client's function, the answer may change its copy of the message. ``more`` is
    what it takes besides. Raises Wrong if what it returns is no reply with a content.
    """
    with as_client():
        got = answer(message, *more, may_change=True)
    if isinstance(got, RecordDict):
        raise Wrong(f"this is the content alone: return {A_REPLY}")
    if isinstance(got, ArrayRecord | ConfigRecord | MetricRecord):
        raise Wrong(
            f"this is a record alone: put it into a RecordDict, and that into {A_REPLY}"
        )
    require_kind(got, message)
    if got.metadata.message_id == message.metadata.message_id:
        raise Wrong(
            f"this is the message that came in, not a reply to it: return {A_REPLY}"
        )
    if got.metadata.reply_to_message_id != message.metadata.message_id:
        raise Wrong(
            "this message begins a conversation, it answers none: say what it answers "
            "by reply_to=message, in place of an address and a type"
        )
    if got.has_error():
        raise Wrong("this reply carries an error, not a content")
    if not got.has_content() or not isinstance(got.content, RecordDict):
        raise Wrong("this reply has no RecordDict as its content")
    return got.content


def reply_facts(answer: Attempt, message: Message, *more: Any) -> Iterator:
    """Hand a message to an answer, and yield what is in its reply, as facts."""
    yield from content_facts(ask(answer, message, *more))


def content_facts(content: RecordDict) -> Iterator[tuple[str, Any]]:
    """Yield which records there are, then names, types and values of each."""
    kinds = {name: type(record).__name__ for name, record in content.items()}
    yield "records", dict(sorted(kinds.items()))
    for name, record in sorted(content.items()):
        yield f"names in {name}", sorted(record)
        if isinstance(record, ArrayRecord):
            yield f"types in {name}", {k: a.dtype for k, a in record.items()}
            yield name, numpy_of(record)
        else:
            for key, value in sorted(record.items()):
                yield f"{key} in {name}", value


REPLY = {
    "records": "the reply should hold these records, of these types and by these "
    "names, and no others",
    "names in arrays": "the arrays should have the names of the state_dict (in a list "
    "they have none): all of them, those of buffers too, and no others",
    "types in arrays": "the arrays go back as another type than the model has: its "
    "bytes on the wire depend on it",
    "names in metrics": "the metrics should have these keys, letter by letter, and no "
    "others",
}
"""What to say on a reply that differs: to be used in an exercise's ``otherwise``."""


def numpy_of(record: ArrayRecord) -> dict[str, np.ndarray]:
    """Return a record's arrays by name."""
    return {name: array.numpy() for name, array in record.items()}


# --------------------------------------------- clients that are asked more than once


class Node:
    """A client in a run: its Context, of which it keeps the state between messages."""

    def __init__(self, partition_id: int, num_partitions: int) -> None:
        self.context = context(partition_id, num_partitions)
        self.context.node_id = NODE_ID + partition_id

    def ask(
        self, function: Callable, content: RecordDict, kind: str, *more: Any
    ) -> RecordDict:
        """Hand a message to a function, keep the state, return the reply's content.

        Where the function raises, the state stays as it has left it, as on a SuperNode.
        Raises Wrong also if something is amiss with the Context afterwards.
        """
        own = deepcopy(self.context)
        call = Attempt(lambda message, *more: function(message, own, *more))
        try:
            return ask(call, instruction(content, kind, own.node_id), *more)
        except Wrong as wrong:
            at = wrong.raised and last_frame(wrong.raised)
            if at and at.f_locals.get("self") is own.state:
                raise Wrong(
                    "context.state does not hold what is looked up in it, and on a "
                    'node\'s first message it is empty: ask by "in" first',
                    missing=str(wrong.raised),
                ) from None
            raise
        finally:
            self._keep(own)

    def _keep(self, after: Context) -> None:
        """Keep the state that a call has left, if it is fit to be kept."""
        for name in ("node_config", "run_config"):
            if getattr(after, name) != getattr(self.context, name):
                raise Wrong(
                    f"your function changed context.{name}: only read it, what comes "
                    "back on the next message is context.state"
                )
        if own := sorted(set(vars(after)) - set(vars(self.context))):
            raise Wrong(
                f"context.{own[0]} is an attribute that you have added: of a Context, "
                "only context.state comes back on the next message"
            )
        if not isinstance(after.state, RecordDict):
            raise Wrong(
                "context.state is a RecordDict: put records into it, and nothing in "
                "its place",
                got={"context.state": after.state},
            )
        try:
            self.context.state = copy_records(after.state)
        except Exception:
            raise Wrong(
                "context.state cannot be packed when the call is over: give a record "
                "a new value, instead of changing a list inside it",
                got={name: dict(record) for name, record in after.state.items()},
            ) from None


def fresh_copies(function: Callable) -> Callable[[], Callable]:
    """Return a maker of copies of a function, each with globals of its own.

    So each message can be handled by a function that has seen none before, as in a
    run. What cannot be copied is made use of as it is.
    """
    try:
        image = cloudpickle.dumps(function)
        cloudpickle.loads(image)
    except Exception:
        return lambda: function
    return lambda: cloudpickle.loads(image)
