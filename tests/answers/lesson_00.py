"""Right answers to lesson 00's exercises that are written in other ways."""

import copy

import numpy as np
import torch

from course_utils.model import weighted_average

RIGHT = {}

# ------------------------------------------------------------------ 0.1 shares


def by_torch_in_a_loop(num_examples):
    shares = torch.zeros(len(num_examples))
    for i, n in enumerate(num_examples):
        shares[i] = n
    shares /= shares.sum()
    return shares


RIGHT["0.1"] = [by_torch_in_a_loop, lambda sizes: np.array(sizes) / sum(sizes)]

# -------------------------------------------------------------- 0.2 average_of_updates


def in_place_on_a_copy(start, states, num_examples):
    new = {name: tensor.clone() for name, tensor in start.items()}
    for state, n in zip(states, num_examples, strict=True):
        for name in new:
            new[name] += n / sum(num_examples) * (state[name] - start[name])
    return new


def on_a_plain_copy(start, states, num_examples):
    return in_place_on_a_copy(dict(start), states, num_examples)


RIGHT["0.2"] = [in_place_on_a_copy, on_a_plain_copy]

# -------------------------------------------------------------------- 0.3 fedavg_round


def one_pass_without_helper(global_net, loaders, train_fn):
    total = sum(len(loader.dataset) for loader in loaders)
    new = {k: torch.zeros_like(v) for k, v in global_net.state_dict().items()}
    for loader in loaders:
        net = copy.deepcopy(global_net)
        train_fn(net, loader)
        for name, value in net.state_dict().items():
            new[name] += value * (len(loader.dataset) / total)
    return new


def reloading_one_network(global_net, loaders, train_fn):
    net, states, sizes = copy.deepcopy(global_net), [], []
    for loader in loaders:
        net.load_state_dict(global_net.state_dict())
        train_fn(net, loader)
        states.append({k: v.clone() for k, v in net.state_dict().items()})
        sizes.append(sum(len(images) for images, labels in loader))
    return weighted_average(states, sizes)


RIGHT["0.3"] = [one_pass_without_helper, reloading_one_network]
