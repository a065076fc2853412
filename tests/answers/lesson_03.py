"""Right and wrong answers to lesson 03's exercises that are written in other ways."""

import copy

import numpy as np
import torch
from flwr.app import Array, Message, MetricRecord, RecordDict

from course_utils import model
from course_utils.exercises.engine import edited
from course_utils.exercises.lesson_03 import clip, pack, reply, report


def in_the_message_it_got(message, state_dict, metrics):
    for tensor in [*state_dict.values(), torch.tensor([*metrics.values()])]:
        if not (tensor.abs() < np.inf).all():
            raise ValueError("no number")
    del message.content["config"]
    for name, tensor in state_dict.items():
        message.content["arrays"][name] = Array(tensor.numpy())
    numbers = {name: float(value) for name, value in metrics.items()}
    message.content["metrics"] = MetricRecord(numbers)
    return Message(message.content, reply_to=message)


def array_by_array(message, net, testloader):
    net = copy.deepcopy(net)
    arrays = message.content["arrays"].to_numpy_ndarrays()
    for tensor, array in zip(net.state_dict().values(), arrays, strict=True):
        tensor.copy_(torch.tensor(array))
    loss, accuracy = model.test(net, testloader)
    counts = sum(len(labels) for _, labels in testloader)
    said = {"eval-loss": loss, "eval-accuracy": accuracy, "num-examples": counts}
    return reply(message, said)


def in_place_on_a_deep_copy(message, net, trainloader, train_fn, max_norm):
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    new = copy.deepcopy(net)
    train_fn(new, trainloader)
    with torch.no_grad():
        states = net.state_dict().values(), new.state_dict().values()
        pairs = list(zip(*states, strict=True))
        norm = torch.cat([(b - a).flatten() for a, b in pairs]).norm()
        for a, b in pairs:
            # A small number guards against 0 / 0, as in clip_grad_norm_.
            a += torch.clamp(max_norm / (norm + 1e-6), max=1.0) * (b - a)
    return reply(message, {"num-examples": len(trainloader.dataset)}, net.state_dict())


RIGHT = {
    "3.1": [in_the_message_it_got],
    "3.2": [array_by_array],
    "3.3": [in_place_on_a_deep_copy],
}
TORCH = ".to_torch_state_dict()) -> "
WRONG = {
    "3.1": [
        (edited(pack, "Array(v) -> v"), "nor a dictionary of NumPy"),
        (edited(pack, "Array(v) -> Array(v.astype(float))"), "as another type"),
        (edited(pack, 'ValueError("not -> TypeError("not'), "raise ValueError, not"),
        (lambda message, state, *args: RecordDict({"a": state}), "into an ArrayRecord"),
    ],
    "3.2": [
        (edited(report, TORCH + ")"), "a dictionary of tensors, with the names"),
        (edited(report, TORCH + ".to_numpy_ndarrays())"), "a dictionary of tensors"),
    ],
    "3.3": [
        (edited(clip, "train_fn(net, loader) -> train_fn(net, 1)"), "a DataLoader"),
        (edited(clip, "train_fn(net, loader) ->"), "should be called once"),
        (edited(clip, "net.load_state_dict(before) ->"), "began from other parameters"),
        (edited(clip, "before.items(): -> [*before.items()][:2]:"), "those of buffers"),
    ],
}
