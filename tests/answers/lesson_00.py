"""Wrong and right answers to lesson 00's exercises, as learners would write them."""

import copy

import numpy as np
import torch

from course_utils.model import Net, weighted_average

RIGHT = {}
WRONG = {}

# ------------------------------------------------------------------ 0.1 shares


def by_numpy(num_examples):
    sizes = np.array(num_examples)
    return sizes / sizes.sum()


def by_torch_in_a_loop(num_examples):
    shares = torch.zeros(len(num_examples))
    for i, n in enumerate(num_examples):
        shares[i] = n
    shares /= shares.sum()
    return shares


RIGHT["0.1"] = [by_numpy, by_torch_in_a_loop]
WRONG["0.1"] = [
    (lambda sizes: [1 / len(sizes) for _ in sizes], "every client counts equally"),
    (lambda sizes: [100 * n / sum(sizes) for n in sizes], "these are percent"),
    (lambda sizes: [n / max(sizes) for n in sizes], "not by the largest"),
    (lambda sizes: sizes, "divide each by their sum"),
    (lambda sizes: (n / sum(sizes) for n in sizes), "should return a list"),
    (lambda sizes: [n // sum(sizes) for n in sizes], "// cuts off"),
]

# -------------------------------------------------------------- 0.2 average_of_updates


def by_weighted_models(start, states, num_examples):
    return weighted_average(states, num_examples)


def in_place_on_a_copy(start, states, num_examples):
    new = {name: tensor.clone() for name, tensor in start.items()}
    for state, n in zip(states, num_examples, strict=True):
        for name in new:
            new[name] += n / sum(num_examples) * (state[name] - start[name])
    return new


def update_only(start, states, num_examples):
    updates = [{k: s[k] - start[k] for k in start} for s in states]
    return weighted_average(updates, num_examples)


def unweighted(start, states, num_examples):
    mean = {k: torch.stack([s[k] - start[k] for s in states]).mean(0) for k in start}
    return {k: start[k] + mean[k] for k in start}


def wrong_sign(start, states, num_examples):
    updates = [{k: start[k] - s[k] for k in start} for s in states]
    average = weighted_average(updates, num_examples)
    return {k: start[k] + average[k] for k in start}


def changes_start(start, states, num_examples):
    for state, n in zip(states, num_examples, strict=True):
        for name in start:
            start[name] += n / sum(num_examples) * (state[name] - start[name])
    return start


def never_divides(start, states, num_examples):
    return {
        k: start[k]
        + sum(n * (s[k] - start[k]) for s, n in zip(states, num_examples, strict=True))
        for k in start
    }


def sums_updates(start, states, num_examples):
    return {k: start[k] + sum(s[k] - start[k] for s in states) for k in start}


RIGHT["0.2"] = [by_weighted_models, in_place_on_a_copy]
WRONG["0.2"] = [
    (update_only, "add it to the start"),
    (unweighted, "every client counts equally"),
    (wrong_sign, "wrong sign"),
    (changes_start, "changed what it was given"),
    (never_divides, "only summed"),
    (sums_updates, "this adds up the updates"),
]

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
    net, states = copy.deepcopy(global_net), []
    for loader in loaders:
        net.load_state_dict(global_net.state_dict())
        train_fn(net, loader)
        states.append({k: v.clone() for k, v in net.state_dict().items()})
    return weighted_average(states, [len(loader.dataset) for loader in loaders])


def chained(global_net, loaders, train_fn):
    net, states = copy.deepcopy(global_net), []
    for loader in loaders:
        train_fn(net, loader)
        states.append(copy.deepcopy(net.state_dict()))
    return weighted_average(states, [len(loader.dataset) for loader in loaders])


def the_same_tensors(global_net, loaders, train_fn):
    net, states = copy.deepcopy(global_net), []
    for loader in loaders:
        train_fn(net, loader)
        states.append(net.state_dict())
    return weighted_average(states, [len(loader.dataset) for loader in loaders])


def trains_the_global_net(global_net, loaders, train_fn):
    states = []
    for loader in loaders:
        train_fn(global_net, loader)
        states.append(copy.deepcopy(global_net.state_dict()))
    return weighted_average(states, [len(loader.dataset) for loader in loaders])


def all_equal(global_net, loaders, train_fn):
    states = []
    for loader in loaders:
        net = copy.deepcopy(global_net)
        train_fn(net, loader)
        states.append(net.state_dict())
    return weighted_average(states, [1] * len(states))


def by_batches(global_net, loaders, train_fn):
    states = []
    for loader in loaders:
        net = copy.deepcopy(global_net)
        train_fn(net, loader)
        states.append(net.state_dict())
    return weighted_average(states, [len(loader) for loader in loaders])


def always_a_net(global_net, loaders, train_fn):
    states = []
    for loader in loaders:
        net = Net()
        net.load_state_dict(global_net.state_dict())
        train_fn(net, loader)
        states.append(net.state_dict())
    return weighted_average(states, [len(loader.dataset) for loader in loaders])


def pairs_of_loaders(global_net, loaders, train_fn):
    states = []
    for loader, _ in loaders:
        net = copy.deepcopy(global_net)
        train_fn(net, loader)
        states.append(net.state_dict())
    return weighted_average(states, [len(loader.dataset) for loader, _ in loaders])


def the_notebooks_numbers(global_net, loaders, train_fn):
    states = []
    for loader in loaders:
        net = copy.deepcopy(global_net)
        train_fn(net, loader)
        states.append(net.state_dict())
    return weighted_average(states, [400] * 10)


def what_training_returns(global_net, loaders, train_fn):
    states = []
    for loader in loaders:
        net = train_fn(copy.deepcopy(global_net), loader)
        states.append(net.state_dict())
    return weighted_average(states, [len(loader.dataset) for loader in loaders])


RIGHT["0.3"] = [one_pass_without_helper, reloading_one_network]
WRONG["0.3"] = [
    (chained, "must start from the global model"),
    (the_same_tensors, "last client's model"),
    (trains_the_global_net, "changed what it was given"),
    (all_equal, "every client counts equally"),
    (by_batches, "not of batches"),
    (always_a_net, "need not be a Net"),
    (pairs_of_loaders, "loaders, not pairs"),
    (the_notebooks_numbers, "count the examples of the loaders"),
    (what_training_returns, "use net, not what train_fn returns"),
]
