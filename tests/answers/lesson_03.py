"""Right and wrong answers to lesson 03's exercises that are written in other ways."""

import copy
from functools import partial

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from course_utils import model
from course_utils.exercises.lesson_03 import clip, load, pack, reply, report

RIGHT = {}
WRONG = {}

# ------------------------------------------------------------------ 3.1 pack_reply


def by_item(message, state_dict, loss, num_examples):
    content = RecordDict()
    content["metrics"] = MetricRecord()
    content["metrics"]["num-examples"] = num_examples
    content["metrics"]["train-loss"] = loss.item()
    content["arrays"] = ArrayRecord(torch_state_dict=state_dict)
    return Message(content=content, reply_to=message)


def in_the_message_it_got(message, state_dict, loss, num_examples):
    del message.content["config"]
    message.content["arrays"] = ArrayRecord(
        {name: Array(tensor.numpy()) for name, tensor in state_dict.items()}
    )
    message.content["metrics"] = MetricRecord(
        {"train-loss": np.asarray(loss).tolist(), "num-examples": float(num_examples)}
    )
    return Message(message.content, reply_to=message)


RIGHT["3.1"] = [by_item, in_the_message_it_got]
WRONG["3.1"] = [
    (
        partial(pack, metrics=lambda loss, n: (np.float32(loss), n)),
        "refuses a numpy.flo",
    ),
    (
        partial(pack, arrays=lambda state, _: {k: v.numpy() for k, v in state.items()}),
        "nor a dictionary of NumPy arrays",
    ),
    (
        partial(pack, arrays=lambda state, _: {"weight": state["weight"]}),
        "all of them and no others",
    ),
    (
        lambda message, state, loss, n: RecordDict({"arrays": state}),
        "tensors go into an ArrayRecord",
    ),
]

# ---------------------------------------------------------------------- 3.2 report


def parameter_by_parameter(message, net, testloader):
    net = copy.deepcopy(net)
    arrays = message.content["arrays"].to_numpy_ndarrays()
    with torch.no_grad():
        for parameter, array in zip(net.parameters(), arrays, strict=True):
            parameter.copy_(torch.tensor(array))
    loss, accuracy = model.test(net, testloader)
    counts = sum(len(labels) for _, labels in testloader)
    said = {"eval-loss": loss, "eval-accuracy": accuracy, "num-examples": counts}
    return reply(message, said)


def loads_the_record(message, net):
    net.load_state_dict(message.content["arrays"])


def loads_a_list(message, net):
    net.load_state_dict(message.content["arrays"].to_numpy_ndarrays())


RIGHT["3.2"] = [parameter_by_parameter]
WRONG["3.2"] = [
    (partial(report, prepare=loads_the_record), "of tensors, with the names"),
    (partial(report, prepare=loads_a_list), "takes a dictionary of tensors"),
]

# --------------------------------------------------------------- 3.3 train_clipped


def as_one_vector(message, net, trainloader, train_fn, max_norm):
    to_vector = torch.nn.utils.parameters_to_vector
    load(message, net)
    before = to_vector(net.parameters()).detach().clone()
    train_fn(net, trainloader)
    update = to_vector(net.parameters()).detach() - before
    if update.norm() > max_norm:
        update *= max_norm / update.norm()
    torch.nn.utils.vector_to_parameters(before + update, net.parameters())
    return reply(message, {"num-examples": len(trainloader.dataset)}, net.state_dict())


def by_numpy_in_a_loop(message, net, trainloader, train_fn, max_norm):
    names = list(message.content["arrays"])
    before = message.content["arrays"].to_numpy_ndarrays()
    load(message, net)
    train_fn(net, trainloader)
    squares = 0.0
    for name, old in zip(names, before, strict=True):
        squares += float(((net.state_dict()[name].numpy() - old) ** 2).sum())
    arrays = {}
    for name, old in zip(names, before, strict=True):
        update = net.state_dict()[name].numpy() - old
        if squares > max_norm**2:
            update = update * float(max_norm / squares**0.5)
        arrays[name] = Array(old + update)
    return reply(message, {"num-examples": len(trainloader.dataset)}, arrays)


def in_place_on_a_deep_copy(message, net, trainloader, train_fn, max_norm):
    old = load(message, net)
    new = copy.deepcopy(old)
    train_fn(new, trainloader)
    with torch.no_grad():
        pairs = list(zip(old.parameters(), new.parameters(), strict=True))
        norm = torch.cat([(b - a).flatten() for a, b in pairs]).norm()
        for a, b in pairs:
            # A small number guards against 0 / 0, as in clip_grad_norm_.
            a += torch.clamp(max_norm / (norm + 1e-6), max=1.0) * (b - a)
    return reply(message, {"num-examples": len(trainloader.dataset)}, old.state_dict())


def on_a_dataset(message, net, trainloader, *more):
    return clip(message, net, trainloader.dataset, *more)


RIGHT["3.3"] = [as_one_vector, by_numpy_in_a_loop, in_place_on_a_deep_copy]
WRONG["3.3"] = [(on_a_dataset, "train_fn takes a DataLoader")]
