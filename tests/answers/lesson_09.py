"""Right answers to lesson 09's exercises that are written in other ways."""

import numpy as np
import torch
from flwr.app import ArrayRecord
from torch import nn

RIGHT = {}

# ---------------------------------------------------------------- 9.1 lowest_tenth


def by_numpy(accuracies):
    return np.sort(accuracies)[: -(-len(accuracies) // 10)].mean()


RIGHT["9.1"] = [by_numpy]

# --------------------------------------------------------------- 9.2 train_fedprox


def with_the_term_in_the_loss(net, batches, loss_fn, mu, lr):
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    start = [w.detach().clone() for w in net.parameters()]
    for images, labels in batches:
        optimizer.zero_grad()
        pairs = zip(net.parameters(), start, strict=True)
        term = sum((w - s).norm(2) ** 2 for w, s in pairs)
        (loss_fn(net(images), labels) + mu / 2 * term).backward()
        optimizer.step()
    return net


RIGHT["9.2"] = [with_the_term_in_the_loss]

# ------------------------------------------------------------------ 9.3 train_fedbn


def by_loading_twice(net, arrays, state, train_fn):
    own = []
    for name, layer in net.named_modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            own += [f"{name}.{key}" for key in layer.state_dict()]
    net.load_state_dict(arrays.to_torch_state_dict(), strict=False)
    if "norm" in state:
        net.load_state_dict(state["norm"].to_torch_state_dict(), strict=False)
    train_fn(net)
    shared = net.state_dict()
    state["norm"] = ArrayRecord({name: shared.pop(name) for name in own})
    return ArrayRecord(shared)


RIGHT["9.3"] = [by_loading_twice]
