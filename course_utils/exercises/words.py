"""Sentences as authors write them, and those on what Flower and Python refuse."""

import re
import textwrap


def read_sentences(text: str) -> dict[str, list[str]]:
    """Return a text's sentences, each with the lines that stand below it, indented.

    A line that begins with "& " belongs to the one before.
    """
    found: dict[str, list[str]] = {}
    sentence, below = "", []
    for line in textwrap.dedent(text).strip("\n").split("\n"):
        if not line.startswith("    "):  # another sentence, or more of it
            sentence, below = line if below else f"{sentence} {line}".strip(), []
        elif line.startswith("    & "):
            below[-1] += f"\n{line[6:]}"
        else:
            below.append(line[4:])
            found[sentence] = below
    return found


REFUSED = read_sentences(r"""
a str takes nothing but str to it: an f-string or str(...) makes one of a number
    must be str, not int|expected str instance, int|str \(not "int"\)
how many things, and which place in a list, are whole numbers: int(...) makes one
    'float' object cannot be int|slice indices|non-int of type 'fl|sequence of integers
an error reply has no content to read: ask reply.has_error() before you open it
    Message content is None
Flower could not make the message: a reply takes reply_to=message, and a RecordDict as
its content
    Invalid arguments for Message
a RecordDict takes records only, and nothing of type {0}: tensors go into an
ArrayRecord, numbers into a MetricRecord, and that into the RecordDict
    Expected `ArrayRecord`.* received `([\w.]+)`
an ArrayRecord takes a dictionary of tensors: neither a network, nor a dictionary of
NumPy arrays
    Invalid arguments for ArrayRecord
net.load_state_dict takes a dictionary of tensors, with the names and shapes of net:
message.content["arrays"].to_torch_state_dict() makes it
    Expected state_dict to be|loading state_dict for (?!Net:)
a MetricRecord refuses a {0}, alone or in a list: float(value) or value.item() unwraps
one number, .tolist() a whole array
    `int \| float \|.*but `<class '((?:numpy|torch)[\w.]*)'>` was pas
a MetricRecord takes int, float and lists of one of them, not a {0}
    `int \| float \|.*but `<class '(?:builtins\.)?([\w.]+)'>` was pas
a MetricRecord takes a list only if all that is in it has one type, that of its first
value: unwrap every number
    All values in a list must be of the same valid type
""")
"""What to say, and below it what an error says then. {0} is what is in brackets."""


def explain(error: str) -> str:
    """Say in the words of the lessons what was refused, if it is known, or nothing."""
    for sentence, (pattern,) in REFUSED.items():
        if found := re.search(pattern, error):
            return sentence.format(*found.groups())
    return ""
