"""Wrong and right answers to lesson 03's exercises, as learners would write them."""

import copy

import numpy as np
import torch
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Message,
    MetricRecord,
    RecordDict,
)

from course_utils import model

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


def packed(message, arrays, loss, num_examples):
    metrics = {"train-loss": float(loss), "num-examples": num_examples}
    content = RecordDict(
        {"arrays": ArrayRecord(arrays), "metrics": MetricRecord(metrics)}
    )
    return Message(content, reply_to=message)


def loss_as_it_came(message, state_dict, loss, num_examples):
    metrics = MetricRecord({"train-loss": loss, "num-examples": num_examples})
    content = RecordDict({"arrays": ArrayRecord(state_dict), "metrics": metrics})
    return Message(content, reply_to=message)


def loss_as_int(message, state_dict, loss, num_examples):
    return packed(message, state_dict, int(loss), num_examples)


def loss_summed(message, state_dict, loss, num_examples):
    return packed(message, state_dict, loss * num_examples, num_examples)


def mixed_up(message, state_dict, loss, num_examples):
    metrics = {"train-loss": num_examples, "num-examples": float(loss)}
    content = RecordDict(
        {"arrays": ArrayRecord(state_dict), "metrics": MetricRecord(metrics)}
    )
    return Message(content, reply_to=message)


def underscores(message, state_dict, loss, num_examples):
    metrics = {"train_loss": float(loss), "num_examples": num_examples}
    content = RecordDict(
        {"arrays": ArrayRecord(state_dict), "metrics": MetricRecord(metrics)}
    )
    return Message(content, reply_to=message)


def one_metric_more(message, state_dict, loss, num_examples):
    reply = packed(message, state_dict, loss, num_examples)
    reply.content["metrics"]["round"] = 1
    return reply


def loss_in_a_list(message, state_dict, loss, num_examples):
    reply = packed(message, state_dict, loss, num_examples)
    reply.content["metrics"]["train-loss"] = [float(loss)]
    return reply


def no_num_examples(message, state_dict, loss, num_examples):
    metrics = MetricRecord({"train-loss": float(loss)})
    content = RecordDict({"arrays": ArrayRecord(state_dict), "metrics": metrics})
    return Message(content, reply_to=message)


def called_weights(message, state_dict, loss, num_examples):
    metrics = MetricRecord({"train-loss": float(loss), "num-examples": num_examples})
    content = RecordDict({"weights": ArrayRecord(state_dict), "metrics": metrics})
    return Message(content, reply_to=message)


def metrics_in_a_config(message, state_dict, loss, num_examples):
    metrics = ConfigRecord({"train-loss": float(loss), "num-examples": num_examples})
    content = RecordDict({"arrays": ArrayRecord(state_dict), "metrics": metrics})
    return Message(content, reply_to=message)


def with_the_config(message, state_dict, loss, num_examples):
    metrics = {"train-loss": float(loss), "num-examples": num_examples}
    message.content["arrays"] = ArrayRecord(state_dict)
    message.content["metrics"] = MetricRecord(metrics)
    return Message(message.content, reply_to=message)


def arrays_of_the_message(message, state_dict, loss, num_examples):
    arrays = message.content["arrays"].to_torch_state_dict()
    return packed(message, arrays, loss, num_examples)


def numbered_arrays(message, state_dict, loss, num_examples):
    arrays = [tensor.numpy() for tensor in state_dict.values()]
    return packed(message, arrays, loss, num_examples)


def numpy_by_name(message, state_dict, loss, num_examples):
    arrays = {name: tensor.numpy() for name, tensor in state_dict.items()}
    return packed(message, arrays, loss, num_examples)


def in_double(message, state_dict, loss, num_examples):
    arrays = {name: tensor.double() for name, tensor in state_dict.items()}
    return packed(message, arrays, loss, num_examples)


def half_of_the_arrays(message, state_dict, loss, num_examples):
    arrays = {k: v for k, v in state_dict.items() if "bias" not in k}
    return packed(message, arrays, loss, num_examples)


def only_the_content(message, state_dict, loss, num_examples):
    return packed(message, state_dict, loss, num_examples).content


def a_plain_dictionary(message, state_dict, loss, num_examples):
    return {"arrays": state_dict, "train-loss": loss, "num-examples": num_examples}


def forgets_to_return(message, state_dict, loss, num_examples):
    packed(message, state_dict, loss, num_examples)


def forgets_reply_to(message, state_dict, loss, num_examples):
    return Message(packed(message, state_dict, loss, num_examples).content)


def begins_a_conversation(message, state_dict, loss, num_examples):
    content = packed(message, state_dict, loss, num_examples).content
    return Message(content, message.metadata.src_node_id, "train")


RIGHT["3.1"] = [by_item, in_the_message_it_got]
WRONG["3.1"] = [
    (loss_as_it_came, "refuses a numpy.float32"),
    (loss_as_int, "cuts off what stands after the point"),
    (loss_summed, "train-loss is a mean"),
    (mixed_up, "the two metrics are mixed up"),
    (underscores, "the metrics lack num-examples and train-loss"),
    (one_metric_more, "the metrics hold more than"),
    (loss_in_a_list, "one number, not a list"),
    (no_num_examples, "the metrics lack num-examples"),
    (called_weights, 'no record named "arrays"'),
    (metrics_in_a_config, '"metrics" should be a MetricRecord'),
    (with_the_config, "more than arrays and metrics"),
    (arrays_of_the_message, "these are the arrays of the message"),
    (numbered_arrays, "have lost their names"),
    (numpy_by_name, "nor a dictionary of NumPy arrays"),
    (in_double, "goes back as float64"),
    (half_of_the_arrays, "all of them and no others"),
    (only_the_content, "this is the content alone"),
    (a_plain_dictionary, "should return a Message"),
    (forgets_to_return, "does every path end in a return"),
    (forgets_reply_to, "a reply takes reply_to=message"),
    (begins_a_conversation, "say what it answers by reply_to=message"),
]

# ---------------------------------------------------------------------- 3.2 report


def tested(message, loss, accuracy, num_examples):
    metrics = {
        "eval-loss": float(loss),
        "eval-accuracy": float(accuracy),
        "num-examples": num_examples,
    }
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


def loaded(message, net):
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    return net


@torch.no_grad()
def results(net, loader):
    """Return each batch's losses, and which of its examples are right."""
    losses, right = [], []
    for images, labels in loader:
        logits = net(images)
        losses.append(
            torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        )
        right.append((logits.argmax(1) == labels).float())
    return losses, right


def by_a_loop_of_its_own(message, net, testloader):
    losses, right = results(loaded(message, net).eval(), testloader)
    return tested(
        message,
        torch.cat(losses).mean(),
        torch.cat(right).mean(),
        len(torch.cat(right)),
    )


def parameter_by_parameter(message, net, testloader):
    net = copy.deepcopy(net)
    arrays = message.content["arrays"].to_numpy_ndarrays()
    with torch.no_grad():
        for parameter, array in zip(net.parameters(), arrays, strict=True):
            parameter.copy_(torch.tensor(array))
    counts = sum(len(labels) for _, labels in testloader)
    return tested(message, *model.test(net, testloader), counts)


def never_loads(message, net, testloader):
    return tested(message, *model.test(net, testloader), len(testloader.dataset))


def loads_too_late(message, net, testloader):
    loss, accuracy = model.test(net, testloader)
    loaded(message, net)
    return tested(message, loss, accuracy, len(testloader.dataset))


def loads_the_record(message, net, testloader):
    net.load_state_dict(message.content["arrays"])
    return never_loads(message, net, testloader)


def loads_a_list(message, net, testloader):
    net.load_state_dict(message.content["arrays"].to_numpy_ndarrays())
    return never_loads(message, net, testloader)


def counts_batches(message, net, testloader):
    loss, accuracy = model.test(loaded(message, net), testloader)
    return tested(message, loss, accuracy, len(testloader))


def counts_one_batch(message, net, testloader):
    loss, accuracy = model.test(loaded(message, net), testloader)
    return tested(message, loss, accuracy, len(next(iter(testloader))[1]))


def returns_arrays_too(message, net, testloader):
    reply = never_loads(message, loaded(message, net), testloader)
    reply.content["arrays"] = ArrayRecord(net.state_dict())
    return reply


def in_the_message(message, net, testloader):
    reply = never_loads(message, loaded(message, net), testloader)
    message.content["metrics"] = reply.content["metrics"]
    return Message(message.content, reply_to=message)


def in_percent(message, net, testloader):
    loss, accuracy = model.test(loaded(message, net), testloader)
    return tested(message, loss, 100 * accuracy, len(testloader.dataset))


def counts_right_ones(message, net, testloader):
    loss, accuracy = model.test(loaded(message, net), testloader)
    size = len(testloader.dataset)
    return tested(message, loss, accuracy * size, size)


def error_rate(message, net, testloader):
    loss, accuracy = model.test(loaded(message, net), testloader)
    return tested(message, loss, 1 - accuracy, len(testloader.dataset))


def accuracy_first(message, net, testloader):
    accuracy, loss = model.test(loaded(message, net), testloader)
    return tested(message, loss, accuracy, len(testloader.dataset))


def numbers_of_numpy(message, net, testloader):
    loss, accuracy = model.test(loaded(message, net), testloader)
    metrics = {
        "eval-loss": np.float32(loss),
        "eval-accuracy": np.float32(accuracy),
        "num-examples": len(testloader.dataset),
    }
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


def tensors(message, net, testloader):
    losses, right = results(loaded(message, net).eval(), testloader)
    metrics = {
        "eval-loss": torch.cat(losses).mean(),
        "eval-accuracy": torch.cat(right).mean(),
        "num-examples": len(testloader.dataset),
    }
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


def in_train_mode(message, net, testloader):
    losses, right = results(loaded(message, net).train(), testloader)
    size = len(testloader.dataset)
    return tested(message, torch.cat(losses).mean(), torch.cat(right).mean(), size)


def mean_of_batches(message, net, testloader):
    losses, right = results(loaded(message, net).eval(), testloader)
    loss = np.mean([batch.mean() for batch in losses])
    accuracy = np.mean([batch.mean() for batch in right])
    return tested(message, loss, accuracy, len(testloader.dataset))


def accuracy_mean_of_batches(message, net, testloader):
    losses, right = results(loaded(message, net).eval(), testloader)
    accuracy = np.mean([batch.mean() for batch in right])
    size = len(testloader.dataset)
    return tested(message, torch.cat(losses).mean(), accuracy, size)


def last_batch(message, net, testloader):
    losses, right = results(loaded(message, net).eval(), testloader)
    size = len(testloader.dataset)
    return tested(message, losses[-1].mean(), right[-1].mean(), size)


def sum_of_losses(message, net, testloader):
    losses, right = results(loaded(message, net).eval(), testloader)
    size = len(testloader.dataset)
    return tested(message, torch.cat(losses).sum(), torch.cat(right).mean(), size)


def keys_of_its_own(message, net, testloader):
    loss, accuracy = model.test(loaded(message, net), testloader)
    metrics = {
        "loss": loss,
        "accuracy": accuracy,
        "num-examples": len(testloader.dataset),
    }
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


def says_nothing_of_examples(message, net, testloader):
    reply = never_loads(message, loaded(message, net), testloader)
    del reply.content["metrics"]["num-examples"]
    return reply


def report_to_nobody(message, net, testloader):
    return Message(never_loads(message, loaded(message, net), testloader).content)


def only_the_record(message, net, testloader):
    return never_loads(message, loaded(message, net), testloader).content["metrics"]


RIGHT["3.2"] = [by_a_loop_of_its_own, parameter_by_parameter]
WRONG["3.2"] = [
    (never_loads, "the result of net as it came"),
    (loads_too_late, "the result of net as it came"),
    (loads_the_record, "takes a dictionary of tensors, with the names"),
    (loads_a_list, "takes a dictionary of tensors"),
    (counts_batches, "len(loader) counts batches"),
    (counts_one_batch, "this is the size of one"),
    (returns_arrays_too, "the server has arrays and config already"),
    (in_the_message, "the server has arrays and config already"),
    (in_percent, "this is in percent"),
    (counts_right_ones, "divide the number of right ones"),
    (error_rate, "the share of the wrong ones"),
    (accuracy_first, "loss and accuracy are mixed up"),
    (numbers_of_numpy, "refuses a numpy.float32"),
    (tensors, "refuses a torch.Tensor"),
    (in_train_mode, "in train mode"),
    (mean_of_batches, "not over batches"),
    (accuracy_mean_of_batches, "not over batches"),
    (last_batch, "the loss of the last batch"),
    (sum_of_losses, "this is the sum"),
    (keys_of_its_own, "the metrics lack eval-accuracy and eval-loss"),
    (says_nothing_of_examples, "the metrics lack num-examples"),
    (report_to_nobody, "a reply takes reply_to=message"),
    (only_the_record, "this is a record alone"),
]

# --------------------------------------------------------------- 3.3 train_clipped


def clipped_reply(message, arrays, trainloader):
    metrics = MetricRecord({"num-examples": len(trainloader.dataset)})
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})
    return Message(content, reply_to=message)


def trained(message, net, trainloader, train_fn):
    """Return all parameters before and after a training."""
    before = message.content["arrays"].to_torch_state_dict()
    net.load_state_dict(before)
    train_fn(net, trainloader)
    return before, net.state_dict()


def length(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors]).norm()


def as_one_vector(message, net, trainloader, train_fn, max_norm):
    to_vector = torch.nn.utils.parameters_to_vector
    loaded(message, net)
    before = to_vector(net.parameters()).detach().clone()
    train_fn(net, trainloader)
    update = to_vector(net.parameters()).detach() - before
    if update.norm() > max_norm:
        update *= max_norm / update.norm()
    torch.nn.utils.vector_to_parameters(before + update, net.parameters())
    return clipped_reply(message, net.state_dict(), trainloader)


def by_numpy_in_a_loop(message, net, trainloader, train_fn, max_norm):
    names = list(message.content["arrays"])
    before = message.content["arrays"].to_numpy_ndarrays()
    loaded(message, net)
    train_fn(net, trainloader)
    squares = 0.0
    for name, old in zip(names, before, strict=True):
        squares += float(((net.state_dict()[name].numpy() - old) ** 2).sum())
    arrays = ArrayRecord()
    for name, old in zip(names, before, strict=True):
        update = net.state_dict()[name].numpy() - old
        if squares > max_norm**2:
            update = update * float(max_norm / squares**0.5)
        arrays[name] = Array(old + update)
    metrics = MetricRecord({"num-examples": len(trainloader.dataset)})
    content = RecordDict({"metrics": metrics, "arrays": arrays})
    return Message(content, reply_to=message)


def in_place_on_a_deep_copy(message, net, trainloader, train_fn, max_norm):
    old = loaded(message, net)
    new = copy.deepcopy(old)
    train_fn(new, trainloader)
    with torch.no_grad():
        pairs = list(zip(old.parameters(), new.parameters(), strict=True))
        norm = length([b - a for a, b in pairs])
        for a, b in pairs:
            # A small number guards against 0 / 0, as in clip_grad_norm_.
            a += torch.clamp(max_norm / (norm + 1e-6), max=1.0) * (b - a)
    return clipped_reply(message, old.state_dict(), trainloader)


def scaled(start_from, norm_of, factor_of):
    """Make an answer that scales the update by one factor, in some way."""

    def answer(message, net, trainloader, train_fn, max_norm):
        before, after = trained(message, net, trainloader, train_fn)
        update = {k: after[k] - before[k] for k in before}
        factor = factor_of(norm_of(update), max_norm)
        start = {"before": before, "after": after, "zero": None}[start_from]
        arrays = {
            k: factor * u if start is None else start[k] + factor * u
            for k, u in update.items()
        }
        return clipped_reply(message, arrays, trainloader)

    return answer


def l2(update):
    return length(update.values())


def at_most_one(norm, max_norm):
    return min(1.0, max_norm / float(norm)) if norm > 0 else 1.0


def sends_the_update(*args):
    return scaled("zero", l2, at_most_one)(*args)


def adds_to_the_trained(*args):
    return scaled("after", l2, at_most_one)(*args)


def wrong_sign(*args):
    return scaled("before", l2, lambda n, m: -at_most_one(n, m))(*args)


def scales_up(*args):
    return scaled("before", l2, lambda n, m: m / n if n > 0 else 1.0)(*args)


def divides_by_zero(*args):
    return scaled("before", l2, lambda n, m: min(1.0, m / n.item()))(*args)


def makes_nan(*args):
    def unit_times_length(norm, max_norm):
        return min(norm, torch.tensor(max_norm)) / norm

    return scaled("before", l2, unit_times_length)(*args)


def to_length_one(*args):
    return scaled("before", l2, lambda n, m: at_most_one(n, 1.0))(*args)


def times_max_norm(*args):
    return scaled("before", l2, lambda n, m: m)(*args)


def no_square_root(*args):
    def squares(update):
        return sum((u**2).sum() for u in update.values())

    return scaled("before", squares, at_most_one)(*args)


def sum_of_norms(*args):
    def norms(update):
        return sum(u.norm() for u in update.values())

    return scaled("before", norms, at_most_one)(*args)


def l1_norm(*args):
    def absolute(update):
        return sum(u.abs().sum() for u in update.values())

    return scaled("before", absolute, at_most_one)(*args)


def norm_of_the_last(*args):
    return scaled("before", lambda u: list(u.values())[-1].norm(), at_most_one)(*args)


def each_array(message, net, trainloader, train_fn, max_norm):
    before, after = trained(message, net, trainloader, train_fn)
    arrays = {}
    for k in before:
        update = after[k] - before[k]
        arrays[k] = before[k] + at_most_one(update.norm(), max_norm) * update
    return clipped_reply(message, arrays, trainloader)


def each_number(message, net, trainloader, train_fn, max_norm):
    before, after = trained(message, net, trainloader, train_fn)
    arrays = {
        k: before[k] + (after[k] - before[k]).clamp(-max_norm, max_norm) for k in before
    }
    return clipped_reply(message, arrays, trainloader)


def clips_the_parameters(message, net, trainloader, train_fn, max_norm):
    _, after = trained(message, net, trainloader, train_fn)
    factor = at_most_one(length(after.values()), max_norm)
    arrays = {k: factor * v for k, v in after.items()}
    return clipped_reply(message, arrays, trainloader)


def clips_each_parameter(message, net, trainloader, train_fn, max_norm):
    _, after = trained(message, net, trainloader, train_fn)
    arrays = {k: at_most_one(v.norm(), max_norm) * v for k, v in after.items()}
    return clipped_reply(message, arrays, trainloader)


def before_moves_along(message, net, trainloader, train_fn, max_norm):
    loaded(message, net)
    before = net.state_dict()
    train_fn(net, trainloader)
    update = {k: v - before[k] for k, v in net.state_dict().items()}
    factor = at_most_one(l2(update), max_norm)
    arrays = {k: before[k] + factor * update[k] for k in before}
    return clipped_reply(message, arrays, trainloader)


def a_shallow_copy_moves_along(message, net, trainloader, train_fn, max_norm):
    loaded(message, net)
    before = dict(net.state_dict())
    train_fn(net, trainloader)
    norm = length([v - before[k] for k, v in net.state_dict().items()])
    arrays = {
        k: before[k] + at_most_one(norm, max_norm) * (v - before[k])
        for k, v in net.state_dict().items()
    }
    return clipped_reply(message, arrays, trainloader)


def never_clips(message, net, trainloader, train_fn, max_norm):
    _, after = trained(message, net, trainloader, train_fn)
    return clipped_reply(message, after, trainloader)


def never_starts_from_the_message(message, net, trainloader, train_fn, max_norm):
    before = copy.deepcopy(net.state_dict())
    train_fn(net, trainloader)
    update = {k: v - before[k] for k, v in net.state_dict().items()}
    factor = at_most_one(l2(update), max_norm)
    arrays = {k: before[k] + factor * update[k] for k in before}
    return clipped_reply(message, arrays, trainloader)


def never_trains(message, net, trainloader, train_fn, max_norm):
    return clipped_reply(message, loaded(message, net).state_dict(), trainloader)


def trains_until_clipped(message, net, trainloader, train_fn, max_norm):
    before, after = trained(message, net, trainloader, train_fn)
    train_fn(net, trainloader)
    update = {k: after[k] - before[k] for k in before}
    factor = at_most_one(l2(update), max_norm)
    arrays = {k: before[k] + factor * update[k] for k in before}
    return clipped_reply(message, arrays, trainloader)


def sends_the_old_arrays(message, net, trainloader, train_fn, max_norm):
    before, _ = trained(message, net, trainloader, train_fn)
    return clipped_reply(message, before, trainloader)


def in_float64(message, net, trainloader, train_fn, max_norm):
    before, after = trained(message, net, trainloader, train_fn)
    update = {k: after[k].double() - before[k].double() for k in before}
    factor = at_most_one(l2(update), max_norm)
    arrays = {k: before[k] + factor * update[k] for k in before}
    return clipped_reply(message, arrays, trainloader)


def a_list_of_arrays(message, net, trainloader, train_fn, max_norm):
    reply = as_one_vector(message, net, trainloader, train_fn, max_norm)
    arrays = reply.content["arrays"].to_numpy_ndarrays()
    return clipped_reply(message, arrays, trainloader)


def batches_for_examples(message, net, trainloader, train_fn, max_norm):
    reply = as_one_vector(message, net, trainloader, train_fn, max_norm)
    reply.content["metrics"]["num-examples"] = len(trainloader)
    return reply


def no_metrics(message, net, trainloader, train_fn, max_norm):
    reply = as_one_vector(message, net, trainloader, train_fn, max_norm)
    del reply.content["metrics"]
    return reply


def the_loss_as_well(message, net, trainloader, train_fn, max_norm):
    reply = as_one_vector(message, net, trainloader, train_fn, max_norm)
    reply.content["metrics"]["train-loss"] = 0.5
    return reply


def clipped_for_nobody(message, net, trainloader, train_fn, max_norm):
    return Message(as_one_vector(message, net, trainloader, train_fn, max_norm).content)


RIGHT["3.3"] = [as_one_vector, by_numpy_in_a_loop, in_place_on_a_deep_copy]
WRONG["3.3"] = [
    (each_array, "each array was clipped on its own"),
    (each_number, "each number was clipped on its own"),
    (clips_the_parameters, "the parameters were clipped"),
    (clips_each_parameter, "the parameters were clipped"),
    (scales_up, "a short update was made longer"),
    (sends_the_update, "this is the update"),
    (adds_to_the_trained, "was added to the trained parameters"),
    (before_moves_along, "net.state_dict() does not copy"),
    (a_shallow_copy_moves_along, "net.state_dict() does not copy"),
    (never_clips, "the trained parameters go back unclipped"),
    (never_starts_from_the_message, "began from other parameters"),
    (never_trains, "train_fn was not called"),
    (trains_until_clipped, "train_fn was called 2 times"),
    (sends_the_old_arrays, "these are the arrays of the message"),
    (wrong_sign, "wrong sign"),
    (divides_by_zero, "do not divide by it"),
    (makes_nan, "0 is divided by 0"),
    (to_length_one, "brought to length 1"),
    (times_max_norm, "a length, not a factor"),
    (no_square_root, "lacks its square root"),
    (sum_of_norms, "do not add up"),
    (l1_norm, "the norm is another one"),
    (norm_of_the_last, "the norm is that of one array"),
    (in_float64, "goes back as float64"),
    (a_list_of_arrays, "have lost their names"),
    (batches_for_examples, "len(loader) counts batches"),
    (no_metrics, 'no record named "metrics"'),
    (the_loss_as_well, "the metrics hold more than num-examples"),
    (clipped_for_nobody, "a reply takes reply_to=message"),
]
