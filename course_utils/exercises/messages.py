"""Messages and Contexts made by hand, for judges whose answers handle messages."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
    UserConfig,
)
from flwr.common.constant import (
    NUM_PARTITIONS_KEY,
    PARTITION_ID_KEY,
    SUPERLINK_NODE_ID,
)

from course_utils.exercises import Attempt, Wrong, require_kind
from course_utils.runtime import _identity, _stamp

RUN_ID = 7
NODE_ID = 3_141_592_653
MESSAGE_ID = "00000000-0000-4000-8000-000000000001"


def instruction(content: RecordDict, message_type: str = "train") -> Message:
    """Make a message as it arrives at a client: from the server, with an id."""
    with _identity(RUN_ID, SUPERLINK_NODE_ID):
        message = Message(content, NODE_ID, message_type)
    _stamp(message.metadata, message_id=MESSAGE_ID)
    return message


def context(
    partition_id: int = 0, num_partitions: int = 1, run_config: UserConfig | None = None
) -> Context:
    """Make a client's Context, with an empty state."""
    return Context(
        run_id=RUN_ID,
        node_id=NODE_ID,
        node_config={
            PARTITION_ID_KEY: partition_id,
            NUM_PARTITIONS_KEY: num_partitions,
        },
        state=RecordDict(),
        run_config=dict(run_config or {}),
    )


@contextmanager
def as_client() -> Iterator[None]:
    """Run what is inside in the client's name, as Flower's runtimes do."""
    with _identity(RUN_ID, NODE_ID):
        yield


def ask(answer: Attempt, message: Message, *more: Any, given: Any = None) -> RecordDict:
    """Hand a message to an answer, and return the content of the reply.

    Like a client's function, the answer may change its copy of the message.

    Parameters
    ----------
    answer : Attempt
        The learner's function, which takes a message first.
    message : Message
        The message, as :func:`instruction` makes it.
    *more : Any
        What the function takes besides.
    given : Any
        What the learner should read as the input, if it raises or makes no reply.

    Raises
    ------
    Wrong
        If the function raises, or if what it returns is no reply with a content.
    """
    try:
        with as_client():
            got = answer(message, *more, may_change=True)
    except Wrong as wrong:
        raise Wrong(explain(str(wrong)), given=given) from None
    return require_reply(got, message, given=given)


def require_reply(got: Any, message: Message, *, given: Any = None) -> RecordDict:
    """Return a reply's content, or raise Wrong with what is amiss with the reply."""
    if isinstance(got, RecordDict):
        raise Wrong(
            "this is the content alone: return Message(content, reply_to=message)",
            given=given,
        )
    if isinstance(got, ArrayRecord | ConfigRecord | MetricRecord):
        raise Wrong(
            "this is a record alone: put it into a RecordDict, and that into "
            "Message(content, reply_to=message)",
            given=given,
        )
    require_kind(got, message)
    if got.metadata.message_id == message.metadata.message_id:
        raise Wrong(
            "this is the message that came in, not a reply to it: return "
            "Message(content, reply_to=message)",
            given=given,
        )
    if got.metadata.reply_to_message_id != message.metadata.message_id:
        raise Wrong(
            "this message begins a conversation, it answers none: say what it answers "
            "by reply_to=message, in place of an address and a type",
            given=given,
        )
    if got.has_error():
        raise Wrong("this reply carries an error, not a content", given=given)
    if not got.has_content() or not isinstance(got.content, RecordDict):
        raise Wrong("this reply has no RecordDict as its content", given=given)
    return got.content


def explain(sentence: str) -> str:
    """Say in the words of lesson 01 what Flower refused, if it was Flower."""
    if "Invalid arguments for Message" in sentence:
        return (
            "Flower could not make the message: a reply takes reply_to=message, and a "
            "RecordDict as its content"
        )
    refused = re.search(r"`int \| float \|.*but `<class '([\w.]+)'>` was pas", sentence)
    if refused and refused[1].startswith(("numpy", "torch")):
        return (
            f"a MetricRecord refuses a {refused[1]}, alone or in a list: float(value) "
            "or value.item() unwraps one number, .tolist() a whole array"
        )
    if refused:
        return (
            "a MetricRecord takes int, float and lists of one of them, not a "
            f"{refused[1].removeprefix('builtins.')}"
        )
    if "All values in a list must be of the same valid type" in sentence:
        return (
            "a MetricRecord takes a list only if all that is in it has one type, that "
            "of its first value: unwrap every number"
        )
    return sentence
