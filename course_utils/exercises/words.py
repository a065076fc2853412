"""What Flower and Python refuse, in the words of the lessons."""

import re

REFUSED = (
    # What an error says, and what to say instead. {0} is what stands in brackets.
    (
        r"must be str, not int|expected str instance, int|str \(not \"int\"\)",
        "a str takes nothing but str to it: an f-string or str(...) makes one of a "
        "number",
    ),
    (
        "Message content is None",
        "an error reply has no content to read: ask reply.has_error() before you open "
        "it",
    ),
    (
        "Invalid arguments for Message",
        "Flower could not make the message: a reply takes reply_to=message, and a "
        "RecordDict as its content",
    ),
    (
        r"Expected `ArrayRecord`.* received `([\w.]+)`",
        "a RecordDict takes records only, and nothing of type {0}: tensors go into an "
        "ArrayRecord, numbers into a MetricRecord, and that into the RecordDict",
    ),
    (
        "Invalid arguments for ArrayRecord",
        "an ArrayRecord takes a dictionary of tensors: neither a network, nor a "
        "dictionary of NumPy arrays",
    ),
    (
        "Expected state_dict to be|loading state_dict for (?!Net:)",
        "net.load_state_dict takes a dictionary of tensors, with the names and shapes "
        'of net: message.content["arrays"].to_torch_state_dict() makes it',
    ),
    (
        r"`int \| float \|.*but `<class '((?:numpy|torch)[\w.]*)'>` was pas",
        "a MetricRecord refuses a {0}, alone or in a list: float(value) or "
        "value.item() unwraps one number, .tolist() a whole array",
    ),
    (
        r"`int \| float \|.*but `<class '(?:builtins\.)?([\w.]+)'>` was pas",
        "a MetricRecord takes int, float and lists of one of them, not a {0}",
    ),
    (
        "All values in a list must be of the same valid type",
        "a MetricRecord takes a list only if all that is in it has one type, that of "
        "its first value: unwrap every number",
    ),
)


def explain(sentence: str) -> str:
    """Say in the words of the lessons what was refused, if it is known."""
    for pattern, words in REFUSED:
        if found := re.search(pattern, sentence):
            return words.format(*found.groups())
    return sentence
