"""Right answers to lesson 01's exercises that are written in other ways."""

import math
from collections import Counter

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from torch import nn

RIGHT = {}

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


RIGHT["1.1"] = [by_tolist, keeping_integers, in_place_on_own_copy]

# -------------------------------------------------------------------- 1.2 record_bytes


def by_comprehension(shapes, number_size):
    numbers = [math.prod(shape) for shape in shapes.values()]
    return sum(numbers) * number_size + len(shapes) * 128 + len("".join(shapes))


def by_numpy(shapes, number_size):
    sizes = np.array([np.prod(shape, dtype=int) for shape in shapes.values()], int)
    names = np.array([len(name) for name in shapes], int)
    return np.sum(sizes * number_size + names + 128)


def by_a_real_record(shapes, number_size):
    dtype = {4: torch.float32, 8: torch.float64}[number_size]
    state = {name: torch.zeros(shape, dtype=dtype) for name, shape in shapes.items()}
    return ArrayRecord(state).count_bytes()


RIGHT["1.2"] = [by_comprehension, by_numpy, by_a_real_record]

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


RIGHT["1.3"] = [by_counter, by_one_hot, in_the_message_it_got]
