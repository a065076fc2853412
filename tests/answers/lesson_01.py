"""Wrong and right answers to lesson 01's exercises, as learners would write them."""

import math
from collections import Counter

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from torch import nn

RIGHT = {}
WRONG = {}

# ------------------------------------------------------------------- 1.1 clean_metrics


def by_tolist(values):
    record = MetricRecord()
    for key, value in values.items():
        numbers = torch.tensor([float(v) for v in np.atleast_1d(value)])
        record[key] = numbers.tolist() if isinstance(value, list) else numbers.item()
    return record


def keeping_integers(values):
    def plain(number):
        return number.item() if hasattr(number, "item") else number

    cleaned = {}
    for key, value in values.items():
        if isinstance(value, list):
            cleaned[key] = list(map(float, value))
        else:
            cleaned[key] = plain(value)
    return MetricRecord(cleaned)


def in_place_on_own_copy(values):
    values = dict(values)
    for key in values:
        try:
            values[key] = np.float64(values[key])
        except TypeError:
            values[key] = [float(v) for v in values[key]]
        if isinstance(values[key], np.ndarray):
            values[key] = values[key].tolist()
    return MetricRecord(values)


def as_they_are(values):
    return MetricRecord(values)


def lists_as_they_are(values):
    return MetricRecord(
        {k: v if isinstance(v, list) else float(v) for k, v in values.items()}
    )


def item_of_all(values):
    return MetricRecord({k: v.item() for k, v in values.items()})


def float_of_all(values):
    return MetricRecord({k: float(v) for k, v in values.items()})


def item_where_there_is_one(values):
    def plain(number):
        return number.item() if hasattr(number, "item") else number

    return MetricRecord(
        {
            k: [plain(x) for x in v] if isinstance(v, list) else plain(v)
            for k, v in values.items()
        }
    )


def plain_dictionary(values):
    return dict(keeping_integers(values))


def into_a_config(values):
    return ConfigRecord(dict(keeping_integers(values)))


def by_int(values):
    return MetricRecord(
        {
            k: [int(x) for x in v] if isinstance(v, list) else int(v)
            for k, v in values.items()
        }
    )


def means_of_lists(values):
    cleaned = dict(keeping_integers(values))
    return MetricRecord({k: float(np.mean(v)) for k, v in cleaned.items()})


def without_lists(values):
    return MetricRecord(
        {k: float(v) for k, v in values.items() if not isinstance(v, list)}
    )


def lists_of_everything(values):
    return MetricRecord(
        {
            k: [float(x) for x in (v if isinstance(v, list) else [v])]
            for k, v in values.items()
        }
    )


def as_text(values):
    return MetricRecord({k: str(v) for k, v in values.items()})


def in_the_dictionary_itself(values):
    for key, value in values.items():
        if isinstance(value, list):
            values[key] = [float(v) for v in value]
        else:
            values[key] = float(value)
    return MetricRecord(values)


RIGHT["1.1"] = [by_tolist, keeping_integers, in_place_on_own_copy]
WRONG["1.1"] = [
    (as_they_are, "refuses a numpy.float32"),
    (lists_as_they_are, "inside a list are to be unwrapped, too"),
    (item_of_all, "only NumPy's and PyTorch's numbers have .item()"),
    (float_of_all, "a list is not one number"),
    (item_where_there_is_one, "a list takes one type only"),
    (plain_dictionary, "not a plain dictionary"),
    (into_a_config, "in a ConfigRecord, no server averages them"),
    (by_int, "cuts off what stands after the point"),
    (means_of_lists, "keep all its numbers"),
    (without_lists, "the record lacks losses"),
    (lists_of_everything, "do not make a list of it"),
    (as_text, "not a str"),
    (in_the_dictionary_itself, "changed what it was given"),
]

# -------------------------------------------------------------------- 1.2 record_bytes


def by_comprehension(shapes, number_size):
    numbers = [math.prod(shape) for shape in shapes.values()]
    return sum(numbers) * number_size + len(shapes) * 128 + len("".join(shapes))


def by_numpy(shapes, number_size):
    sizes = np.array([np.prod(shape, dtype=int) for shape in shapes.values()], int)
    names = np.array([len(name) for name in shapes], int)
    return np.sum(sizes * number_size + names + 128)


def only_numbers(shapes, number_size):
    return number_size * sum(math.prod(s) for s in shapes.values())


def without_headers(shapes, number_size):
    return sum(len(n) + number_size * math.prod(s) for n, s in shapes.items())


def without_names(shapes, number_size):
    return sum(128 + number_size * math.prod(s) for s in shapes.values())


def one_header(shapes, number_size):
    return 128 + without_headers(shapes, number_size)


def sums_of_shapes(shapes, number_size):
    return sum(128 + len(n) + number_size * sum(s) for n, s in shapes.items())


def always_float32(shapes, number_size):
    return sum(128 + len(n) + 4 * math.prod(s) for n, s in shapes.items())


def one_byte_a_number(shapes, number_size):
    return sum(128 + len(n) + math.prod(s) for n, s in shapes.items())


def nothing_for_a_scalar(shapes, number_size):
    total = 0
    for name, shape in shapes.items():
        count = math.prod(shape) if len(shape) > 0 else 0
        total += number_size * count + 128 + len(name)
    return total


def one_byte_a_name(shapes, number_size):
    return len(shapes) + without_names(shapes, number_size)


def size_of_everything(shapes, number_size):
    return sum(number_size * (128 + len(n) + math.prod(s)) for n, s in shapes.items())


def size_of_headers(shapes, number_size):
    return sum(number_size * (math.prod(s) + 128) + len(n) for n, s in shapes.items())


def size_of_names(shapes, number_size):
    return sum(number_size * (math.prod(s) + len(n)) + 128 for n, s in shapes.items())


def in_words(shapes, number_size):
    return f"{by_comprehension(shapes, number_size)} bytes"


RIGHT["1.2"] = [by_comprehension, by_numpy]
WRONG["1.2"] = [
    (only_numbers, "these are the numbers alone"),
    (without_headers, "the headers are missing"),
    (without_names, "the names are missing"),
    (one_header, "a header of its own"),
    (sums_of_shapes, "the product of its shape, not the sum"),
    (always_float32, "not always 4"),
    (one_byte_a_number, "not one"),
    (nothing_for_a_scalar, "the shape () is one number"),
    (one_byte_a_name, "a byte for each letter, not one in all"),
    (size_of_everything, "do not grow with number_size"),
    (size_of_headers, "add the 128 after it"),
    (size_of_names, "add len(name) after it"),
    (in_words, "should return a number"),
]

# -------------------------------------------------------------------- 1.3 count_labels


def asked(message):
    return message.content["config"]["num-classes"]


def reply(message, counts, num_examples):
    metrics = MetricRecord({"label-counts": counts, "num-examples": num_examples})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def by_counter(message, trainloader):
    counter = Counter(int(label) for _, label in trainloader.dataset)
    counts = [counter[label] for label in range(asked(message))]
    return reply(message, counts, len(trainloader.dataset))


def by_one_hot(message, trainloader):
    (config,) = message.content.config_records.values()
    total = torch.zeros(config["num-classes"])
    for _, labels in trainloader:
        total += nn.functional.one_hot(labels, config["num-classes"]).sum(dim=0)
    content = RecordDict()
    content["metrics"] = MetricRecord()
    content["metrics"]["num-examples"] = total.sum().item()
    content["metrics"]["label-counts"] = total.tolist()
    return Message(content=content, reply_to=message)


def in_the_message_it_got(message, trainloader):
    labels = trainloader.dataset.tensors[1].numpy()
    counts = [int((labels == i).sum()) for i in range(asked(message))]
    metrics = MetricRecord({"label-counts": counts, "num-examples": labels.size})
    message.content["metrics"] = metrics
    del message.content["config"]
    return Message(message.content, reply_to=message)


def all_labels(trainloader):
    return torch.cat([labels for _, labels in trainloader])


def counted(message, trainloader):
    return torch.bincount(all_labels(trainloader), minlength=asked(message)).tolist()


def numpy_integers(message, trainloader):
    labels = all_labels(trainloader).numpy()
    counts = list(np.bincount(labels, minlength=asked(message)))
    return reply(message, counts, len(labels))


def a_tensor(message, trainloader):
    labels = all_labels(trainloader)
    counts = torch.bincount(labels, minlength=asked(message))
    return reply(message, counts, len(labels))


def only_labels_there_are(message, trainloader):
    labels = all_labels(trainloader)
    _, counts = torch.unique(labels, return_counts=True)
    return reply(message, counts.tolist(), len(labels))


def up_to_the_largest_label(message, trainloader):
    labels = all_labels(trainloader)
    return reply(message, torch.bincount(labels).tolist(), len(labels))


def always_ten(message, trainloader):
    labels = all_labels(trainloader)
    return reply(message, torch.bincount(labels, minlength=10).tolist(), len(labels))


def shares_of_labels(message, trainloader):
    counts = counted(message, trainloader)
    return reply(message, [n / sum(counts) for n in counts], sum(counts))


def first_batch(message, trainloader):
    _, labels = next(iter(trainloader))
    counts = torch.bincount(labels, minlength=asked(message)).tolist()
    return reply(message, counts, len(trainloader.dataset))


def last_batch(message, trainloader):
    for _, labels in trainloader:
        counts = torch.bincount(labels, minlength=asked(message)).tolist()
    return reply(message, counts, len(trainloader.dataset))


def batches_for_examples(message, trainloader):
    return reply(message, counted(message, trainloader), len(trainloader))


def labels_for_examples(message, trainloader):
    counts = counted(message, trainloader)
    return reply(message, counts, len(counts))


def the_labels_themselves(message, trainloader):
    labels = all_labels(trainloader).tolist()
    return reply(message, labels, len(labels))


def most_common_first(message, trainloader):
    counts = sorted(counted(message, trainloader), reverse=True)
    return reply(message, counts, sum(counts))


def a_key_for_each_label(message, trainloader):
    counts = counted(message, trainloader)
    metrics = {str(label): count for label, count in enumerate(counts)}
    metrics["num-examples"] = sum(counts)
    content = RecordDict({"metrics": MetricRecord(metrics)})
    return Message(content, reply_to=message)


def in_a_config(message, trainloader):
    counts = counted(message, trainloader)
    config = ConfigRecord({"label-counts": counts, "num-examples": sum(counts)})
    return Message(RecordDict({"metrics": config}), reply_to=message)


def in_arrays(message, trainloader):
    counts = np.array(counted(message, trainloader))
    content = RecordDict({"arrays": ArrayRecord({"label-counts": Array(counts)})})
    return Message(content, reply_to=message)


def under_another_name(message, trainloader):
    counts = counted(message, trainloader)
    metrics = MetricRecord({"label-counts": counts, "num-examples": sum(counts)})
    return Message(RecordDict({"counts": metrics}), reply_to=message)


def sends_the_config_back(message, trainloader):
    counts = counted(message, trainloader)
    metrics = MetricRecord({"label-counts": counts, "num-examples": sum(counts)})
    message.content["metrics"] = metrics
    return Message(message.content, reply_to=message)


def only_the_content(message, trainloader):
    return in_the_message_it_got(message, trainloader).content


def only_the_record(message, trainloader):
    return in_the_message_it_got(message, trainloader).content["metrics"]


def the_message_it_got(message, trainloader):
    counts = counted(message, trainloader)
    metrics = MetricRecord({"label-counts": counts, "num-examples": sum(counts)})
    message.content = RecordDict({"metrics": metrics})
    return message


def forgets_reply_to(message, trainloader):
    return Message(in_the_message_it_got(message, trainloader).content)


def begins_a_conversation(message, trainloader):
    content = in_the_message_it_got(message, trainloader).content
    return Message(content, message.metadata.src_node_id, "query")


RIGHT["1.3"] = [by_counter, by_one_hot, in_the_message_it_got]
WRONG["1.3"] = [
    (numpy_integers, "refuses a numpy.int64"),
    (a_tensor, "refuses a torch.Tensor"),
    (only_labels_there_are, "that the client does not have counts 0"),
    (up_to_the_largest_label, "that the client does not have counts 0"),
    (always_ten, "the query says in its config"),
    (shares_of_labels, "these are shares"),
    (first_batch, "counts one batch"),
    (last_batch, "counts one batch"),
    (batches_for_examples, "len(trainloader) counts batches"),
    (labels_for_examples, "this is the number of labels"),
    (the_labels_themselves, "the data would leave the client"),
    (most_common_first, "in another order"),
    (a_key_for_each_label, "keys must be the same at every client"),
    (in_a_config, "not in a ConfigRecord"),
    (in_arrays, "not in an ArrayRecord"),
    (under_another_name, 'a record named "metrics"'),
    (sends_the_config_back, "more than was asked for"),
    (only_the_content, "this is the content alone"),
    (only_the_record, "this is a record alone"),
    (the_message_it_got, "the message that came in"),
    (forgets_reply_to, "a reply takes reply_to=message"),
    (begins_a_conversation, "say what it answers by reply_to=message"),
]
