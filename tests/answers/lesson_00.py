"""Right answers to lesson 00's exercises that are written in other ways."""

import copy

import torch

from course_utils.model import weighted_average

RIGHT = {"0.1": [lambda sizes: torch.tensor(sizes) / sum(sizes)]}


def in_place_on_a_copy(start, states, num_examples):
    new = {name: tensor.clone() for name, tensor in start.items()}
    for state, n in zip(states, num_examples, strict=True):
        for name in new:
            new[name] += n / sum(num_examples) * (state[name] - start[name])
    return new


RIGHT["0.2"] = [in_place_on_a_copy]


def reloading_one_network(global_net, loaders, train_fn):
    net, states, sizes = copy.deepcopy(global_net), [], []
    for loader in loaders:
        net.load_state_dict(global_net.state_dict())
        train_fn(net, loader)
        states.append({k: v.clone() for k, v in net.state_dict().items()})
        sizes.append(sum(len(images) for images, labels in loader))
    return weighted_average(states, sizes)


RIGHT["0.3"] = [reloading_one_network]
