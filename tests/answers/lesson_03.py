"""Right and wrong answers to lesson 03's exercises that are written in other ways."""

import copy

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from course_utils import model
from course_utils.exercises.engine import edited
from course_utils.exercises.lesson_03 import clip, pack, reply, report

RIGHT = {}
WRONG = {}

# ------------------------------------------------------------------ 3.1 pack_reply


def in_the_message_it_got(message, state_dict, loss, num_examples):
    del message.content["config"]
    message.content["arrays"] = ArrayRecord(
        {name: Array(tensor.numpy()) for name, tensor in state_dict.items()}
    )
    message.content["metrics"] = MetricRecord(
        {"train-loss": np.asarray(loss).tolist(), "num-examples": float(num_examples)}
    )
    return Message(message.content, reply_to=message)


RIGHT["3.1"] = [in_the_message_it_got]
WRONG["3.1"] = [
    (edited(pack, "loss.item() -> np.float32(loss)"), "refuses a numpy.float32"),
    (
        edited(pack, "Array(tensor.numpy()) -> tensor.numpy()"),
        "nor a dictionary of NumPy",
    ),
    (edited(pack, "Array(tensor.numpy()) -> tensor.double()"), "as another type"),
    (
        edited(pack, ", arrays) -> , {'weight': arrays['weight']})"),
        "all of them and no",
    ),
    (
        lambda message, state, *args: RecordDict({"arrays": state}),
        "into an ArrayRecord",
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


RIGHT["3.2"] = [parameter_by_parameter]
LOADED = ".to_torch_state_dict()) -> "
WRONG["3.2"] = [
    (edited(report, LOADED + ")"), "a dictionary of tensors, with the names"),
    (edited(report, LOADED + ".to_numpy_ndarrays())"), "a dictionary of tensors"),
]

# --------------------------------------------------------------- 3.3 train_clipped


def in_place_on_a_deep_copy(message, net, trainloader, train_fn, max_norm):
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    old = net
    new = copy.deepcopy(old)
    train_fn(new, trainloader)
    with torch.no_grad():
        pairs = list(zip(old.parameters(), new.parameters(), strict=True))
        norm = torch.cat([(b - a).flatten() for a, b in pairs]).norm()
        for a, b in pairs:
            # A small number guards against 0 / 0, as in clip_grad_norm_.
            a += torch.clamp(max_norm / (norm + 1e-6), max=1.0) * (b - a)
    return reply(message, {"num-examples": len(trainloader.dataset)}, old.state_dict())


RIGHT["3.3"] = [in_place_on_a_deep_copy]
WRONG["3.3"] = [
    (edited(clip, "train_fn(net, loader) -> train_fn(net, 1)"), "takes a DataLoader"),
    (edited(clip, "x + u * cut(norm, m) -> x.double() + u"), "as another type"),
]
