"""Wrong and right answers to lesson 04's exercises, as learners would write them."""

import json
from collections import ChainMap
from typing import ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

RIGHT = {}
WRONG = {}

# ---------------------------------------------------------------------- 4.1 lr_to_use


def chained(message, context):
    sent = message.content.get("config", {})
    return ChainMap(dict(sent), context.run_config)["lr"]


def by_exception(message, context):
    try:
        return np.float64(message.content["config"]["lr"])
    except KeyError:
        return context.run_config["lr"]


def searching_all_configs(message, context):
    found = [c["lr"] for c in message.content.config_records.values() if "lr" in c]
    return [*found, context.run_config["lr"]][0]


def run_config_alone(message, context):
    return context.run_config["lr"]


def run_config_first(message, context):
    if "lr" in context.run_config:
        return context.run_config["lr"]
    return message.content["config"]["lr"]


def always_from_the_message(message, context):
    return message.content["config"]["lr"]


def supposes_a_config(message, context):
    config = message.content["config"]
    return config["lr"] if "lr" in config else context.run_config["lr"]


def supposes_an_lr(message, context):
    if "config" in message.content:
        return message.content["config"]["lr"]
    return context.run_config["lr"]


def get_of_none(message, context):
    return message.content.get("config").get("lr") or context.run_config["lr"]


def default_written_down(message, context):
    return message.content.get("config", {}).get("lr", 0.01)


def node_config(message, context):
    config = message.content.get("config", {})
    return config.get("lr", context.node_config["lr"])


def node_config_first(message, context):
    config = {**context.run_config, **message.content.get("config", {})}
    return context.node_config.get("lr", config["lr"])


def truth(message, context):
    return message.content.get("config", {}).get("lr") or context.run_config["lr"]


def the_larger(message, context):
    config = message.content.get("config", {})
    return max(config.get("lr", 0.0), context.run_config["lr"])


def factor(message, context):
    config = message.content.get("config", {})
    return context.run_config["lr"] * config.get("lr", 1.0)


def fills_in_the_message(message, context):
    config = message.content.setdefault("config", ConfigRecord())
    return config.setdefault("lr", context.run_config["lr"])


def updates_the_run_config(message, context):
    context.run_config.update(message.content.get("config", {}))
    return context.run_config["lr"]


def remembers_the_rate(message, context):
    lr = chained(message, context)
    context.state["lr"] = MetricRecord({"lr": lr})
    return lr


RIGHT["4.1"] = [chained, by_exception, searching_all_configs]
WRONG["4.1"] = [
    (run_config_alone, "that one comes first"),
    (run_config_first, "that one comes first"),
    (the_larger, "that one comes first"),
    (always_from_the_message, "the server need not send an lr"),
    (supposes_an_lr, "the server need not send an lr"),
    (supposes_a_config, "a message need not have a config"),
    (get_of_none, "a message need not have a config"),
    (default_written_down, "with other configs this is the same number"),
    (lambda message, context: 0.01, "with other configs this is the same number"),
    (node_config, "this is the node config's lr"),
    (node_config_first, "this is the node config's lr"),
    (truth, "0.0, and that is a learning rate, too"),
    (factor, "not a factor"),
    (fills_in_the_message, "changed a config or the Context"),
    (updates_the_run_config, "changed a config or the Context"),
    (remembers_the_rate, "changed a config or the Context"),
    (lambda message, context: message.content["config"], "should return a number"),
    (lambda message, context: str(chained(message, context)), "should return a number"),
]

# -------------------------------------------------------------------- 4.2 count_calls


def counted(message, calls):
    metrics = MetricRecord({"calls": calls, "num-examples": 1})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def kind_of(message):
    return message.metadata.message_type


def a_record_for_each_type(message, context):
    counter = context.state.setdefault(kind_of(message), MetricRecord({"n": 0}))
    counter["n"] += 1
    return counted(message, counter["n"])


def as_json_in_a_new_state(message, context):
    counts = json.loads(context.state.get("counts", {"json": "{}"})["json"])
    counts[kind_of(message)] = counts.get(kind_of(message), 0) + 1
    context.state = RecordDict({"counts": ConfigRecord({"json": json.dumps(counts)})})
    return counted(message, counts[kind_of(message)])


def a_history_of_types(message, context):
    past = context.state["past"]["types"] if "past" in context.state else []
    past = [*past, kind_of(message)]
    context.state["past"] = ConfigRecord({"types": past})
    return counted(message, past.count(kind_of(message)))


number_of_calls = 0
calls_of = {}


class Memory:
    calls: ClassVar[dict] = {}


def a_global(message, context):
    global number_of_calls
    number_of_calls += 1
    return counted(message, number_of_calls)


def a_global_by_node(message, context):
    key = context.node_id, kind_of(message)
    calls_of[key] = calls_of.get(key, 0) + 1
    return counted(message, calls_of[key])


def default_argument(message, context, counts={}):  # noqa: B006
    key = context.node_id, kind_of(message)
    counts[key] = counts.get(key, 0) + 1
    return counted(message, counts[key])


def function_attribute(message, context):
    function_attribute.calls = getattr(function_attribute, "calls", 0) + 1
    return counted(message, function_attribute.calls)


def class_attribute(message, context):
    key = context.node_id, kind_of(message)
    Memory.calls[key] = Memory.calls.get(key, 0) + 1
    return counted(message, Memory.calls[key])


def context_attribute(message, context):
    context.calls = getattr(context, "calls", 0) + 1
    return counted(message, context.calls)


def run_config_counter(message, context):
    calls = context.run_config.get("calls", 0) + 1
    context.run_config["calls"] = calls
    return counted(message, calls)


def bare_int(message, context):
    context.state["calls"] = context.state.get("calls", 0) + 1
    return counted(message, context.state["calls"])


def plain_dictionary(message, context):
    context.state["calls"] = {kind_of(message): 1}
    return counted(message, 1)


def state_replaced(message, context):
    calls = context.state.get("calls", 0) + 1
    context.state = {"calls": calls}
    return counted(message, calls)


def supposes_a_counter(message, context):
    context.state["calls"][kind_of(message)] += 1
    return counted(message, context.state["calls"][kind_of(message)])


def supposes_the_type(message, context):
    if "calls" not in context.state:
        context.state["calls"] = MetricRecord({kind_of(message): 0})
    context.state["calls"][kind_of(message)] += 1
    return counted(message, context.state["calls"][kind_of(message)])


def two_types_only(message, context):
    if "calls" not in context.state:
        context.state["calls"] = MetricRecord({"train": 0, "evaluate": 0})
    context.state["calls"][kind_of(message)] += 1
    return counted(message, context.state["calls"][kind_of(message)])


def never_stored(message, context):
    calls = context.state["calls"]["n"] if "calls" in context.state else 0
    return counted(message, calls + 1)


def in_the_reply_only(message, context):
    metrics = message.content.get("metrics", MetricRecord({"calls": 0}))
    return counted(message, metrics["calls"] + 1)


def begins_anew(message, context):
    context.state["calls"] = MetricRecord({kind_of(message): 0})
    context.state["calls"][kind_of(message)] += 1
    return counted(message, context.state["calls"][kind_of(message)])


def all_types(message, context):
    counter = context.state.setdefault("calls", MetricRecord({"n": 0}))
    counter["n"] += 1
    return counted(message, counter["n"])


def forgets_other_types(message, context):
    counts = context.state.get("calls", {})
    calls = counts.get(kind_of(message), 0) + 1
    context.state["calls"] = MetricRecord({kind_of(message): calls})
    return counted(message, calls)


def from_zero(message, context):
    counter = context.state.setdefault(kind_of(message), MetricRecord({"n": -1}))
    counter["n"] += 1
    return counted(message, counter["n"])


def replies_before_it_counts(message, context):
    counter = context.state.setdefault(kind_of(message), MetricRecord({"n": 0}))
    reply = counted(message, counter["n"])
    counter["n"] += 1
    return reply


def the_round(message, context):
    calls = message.content["config"]["server-round"]
    context.state["calls"] = MetricRecord({"n": calls})
    return counted(message, calls)


def by_round(message, context):
    key = f"{kind_of(message)} {message.content['config']['server-round']}"
    counter = context.state.setdefault(key, MetricRecord({"n": 0}))
    counter["n"] += 1
    return counted(message, counter["n"])


def rounds(message, context):
    record = context.state.setdefault(kind_of(message), MetricRecord())
    record[str(message.content["config"]["server-round"])] = 1
    return counted(message, len(record))


def by_the_first_word(message, context):
    key, _, _ = kind_of(message).partition(".")
    counter = context.state.setdefault(key, MetricRecord({"n": 0}))
    counter["n"] += 1
    return counted(message, counter["n"])


def counts_twice(message, context):
    counter = context.state.setdefault(kind_of(message), MetricRecord({"n": 0}))
    counter["n"] += 1
    counter["n"] = counter["n"] + 1
    return counted(message, counter["n"])


def appends_a_string(message, context):
    past = context.state.setdefault("past", MetricRecord({"types": []}))
    past["types"].append(kind_of(message))
    return counted(message, past["types"].count(kind_of(message)))


def num_examples_too(message, context):
    reply = a_record_for_each_type(message, context)
    reply.content["metrics"]["num-examples"] = reply.content["metrics"]["calls"]
    return reply


def no_num_examples(message, context):
    reply = a_record_for_each_type(message, context)
    del reply.content["metrics"]["num-examples"]
    return reply


def sends_the_state(message, context):
    reply = a_record_for_each_type(message, context)
    reply.content["state"] = context.state[kind_of(message)]
    return reply


def returns_the_state(message, context):
    a_record_for_each_type(message, context)
    return Message(context.state, reply_to=message)


def returns_a_number(message, context):
    reply = a_record_for_each_type(message, context)
    return reply.content["metrics"]["calls"]


def to_nobody(message, context):
    return Message(a_record_for_each_type(message, context).content)


RIGHT["4.2"] = [a_record_for_each_type, as_json_in_a_new_state, a_history_of_types]
WRONG["4.2"] = [
    (a_global, "in a global, an attribute or a default value"),
    (a_global_by_node, "in a global, an attribute or a default value"),
    (default_argument, "in a global, an attribute or a default value"),
    (function_attribute, "in a global, an attribute or a default value"),
    (class_attribute, "in a global, an attribute or a default value"),
    (context_attribute, "context.calls is an attribute that you have added"),
    (run_config_counter, "changed context.run_config"),
    (bare_int, "takes records only, and nothing of type int"),
    (plain_dictionary, "takes records only, and nothing of type dict"),
    (state_replaced, "context.state is a RecordDict"),
    (supposes_a_counter, "there is no 'calls' in context.state"),
    (supposes_the_type, "there is no number for messages of type 'evaluate' yet"),
    (two_types_only, "there is no number for messages of type 'query' yet"),
    (never_stored, "context.state is still empty"),
    (in_the_reply_only, "context.state is still empty"),
    (begins_anew, "begins anew with each message"),
    (all_types, "messages of all types together"),
    (forgets_other_types, "begins anew after a message of another type"),
    (from_zero, "the first is number 1"),
    (replies_before_it_counts, "the first is number 1"),
    (the_round, "this is the round"),
    (by_round, "this counts within a round"),
    (rounds, "this counts rounds"),
    (by_the_first_word, "train.head does not count as train"),
    (counts_twice, "counted twice"),
    (appends_a_string, "context.state cannot be packed"),
    (num_examples_too, "num-examples should be 1"),
    (no_num_examples, "the metrics lack num-examples"),
    (sends_the_state, 'the reply holds more than "metrics"'),
    (returns_the_state, 'no record named "metrics"'),
    (returns_a_number, "should return a Message"),
    (to_nobody, "a reply takes reply_to=message"),
]

# ---------------------------------------------------------------------- 4.3 keep_best


def reported(message, accuracy, best, best_round, num_examples):
    metrics = {
        "eval-accuracy": accuracy,
        "best-accuracy": best,
        "best-round": best_round,
        "num-examples": num_examples,
    }
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


def round_of(message):
    return message.content["config"]["server-round"]


def by_the_history(message, context, test_fn, num_examples):
    arrays = message.content["arrays"]
    past = context.state.get("past", {"accuracies": [], "rounds": []})
    accuracies = [*past["accuracies"], test_fn(arrays)[1]]
    rounds = [*past["rounds"], round_of(message)]
    best = int(np.argmax(accuracies))
    if best == len(accuracies) - 1:
        context.state["best"] = arrays
    context.state["past"] = MetricRecord({"accuracies": accuracies, "rounds": rounds})
    return reported(
        message, accuracies[-1], accuracies[best], rounds[best], num_examples
    )


def tests_the_best_again(message, context, test_fn, num_examples):
    _, accuracy = test_fn(message.content["arrays"])
    if "best" not in context.state or accuracy > test_fn(context.state["best"])[1]:
        tensors = message.content["arrays"].to_torch_state_dict()
        context.state["best"] = ArrayRecord(tensors)
        context.state["round"] = ConfigRecord({"of-best": round_of(message)})
    _, best = test_fn(context.state["best"])
    best_round = context.state["round"]["of-best"]
    return reported(message, accuracy, best, best_round, num_examples)


def tuples_compared(message, context, test_fn, num_examples):
    accuracy = test_fn(message.content["arrays"])[1]
    new = accuracy, -round_of(message)
    old = -1.0, 0
    if "top" in context.state:
        old = tuple(context.state["top"]["pair"])
    if max(new, old) == new:
        context.state.update({"best": message.content["arrays"]})
        context.state.update({"top": MetricRecord({"pair": [new[0], float(new[1])]})})
    best, minus_round = context.state["top"]["pair"]
    return reported(message, accuracy, best, int(-minus_round), num_examples)


def keeping(better, *, arrays="best"):
    """Make answers that keep a round if it is better than the best so far."""

    def answer(message, context, test_fn, num_examples):
        loss, accuracy = test_fn(message.content["arrays"])
        this = {"acc": accuracy, "loss": loss, "round": round_of(message)}
        if "top" not in context.state or better(this, context.state["top"]):
            context.state["top"] = MetricRecord(this)
            context.state[arrays] = message.content["arrays"]
        top = context.state["top"]
        return reported(message, accuracy, top["acc"], top["round"], num_examples)

    return answer


def is_higher(this, top):
    return this["acc"] > top["acc"]


right = keeping(is_higher)


def changed(change):
    """Make answers that are right but for a change to the reply."""

    def answer(message, context, test_fn, num_examples):
        reply = right(message, context, test_fn, num_examples)
        change(reply.content["metrics"], message, context)
        return reply

    return answer


def last_and_not_best(metrics, message, context):
    metrics["best-accuracy"] = metrics["eval-accuracy"]
    metrics["best-round"] = round_of(message)


def last_accuracy_only(metrics, message, context):
    metrics["best-accuracy"] = metrics["eval-accuracy"]


def this_round(metrics, message, context):
    metrics["best-round"] = round_of(message)


def best_as_eval(metrics, message, context):
    metrics["eval-accuracy"] = metrics["best-accuracy"]


def eval_as_list(metrics, message, context):
    metrics["eval-accuracy"] = [metrics["eval-accuracy"]]


def no_best_round(metrics, message, context):
    del metrics["best-round"]


def with_the_loss(metrics, message, context):
    metrics["eval-loss"] = 0.5


def one_example(metrics, message, context):
    metrics["num-examples"] = 1


def counting_messages(start):
    def answer(message, context, test_fn, num_examples):
        accuracy = test_fn(message.content["arrays"])[1]
        past = context.state.get("past", {"accuracies": []})
        accuracies = [*past["accuracies"], accuracy]
        context.state["past"] = MetricRecord({"accuracies": accuracies})
        best = accuracies.index(max(accuracies))
        if best == len(accuracies) - 1:
            context.state["best"] = message.content["arrays"]
        return reported(message, accuracy, max(accuracies), best + start, num_examples)

    return answer


def loss_and_accuracy_mixed_up(message, context, test_fn, num_examples):
    return right(message, context, lambda arrays: test_fn(arrays)[::-1], num_examples)


def from_zero_best(message, context, test_fn, num_examples):
    accuracy = test_fn(message.content["arrays"])[1]
    best, best_round = 0.0, 0
    if "top" in context.state:
        best, best_round = context.state["top"]["acc"], context.state["top"]["round"]
    if accuracy > best:
        best, best_round = accuracy, round_of(message)
        context.state["best"] = message.content["arrays"]
        context.state["top"] = MetricRecord({"acc": best, "round": best_round})
    return reported(message, accuracy, best, best_round, num_examples)


def from_zero_in_the_state(message, context, test_fn, num_examples):
    accuracy = test_fn(message.content["arrays"])[1]
    best = context.state["top"]["acc"] if "top" in context.state else 0.0
    if accuracy > best:
        context.state["best"] = message.content["arrays"]
        context.state["top"] = MetricRecord(
            {"acc": accuracy, "round": round_of(message)}
        )
    top = context.state["top"]
    return reported(message, accuracy, top["acc"], top["round"], num_examples)


def best_before(message, context, test_fn, num_examples):
    top = dict(context.state.get("top", {}))
    reply = right(message, context, test_fn, num_examples)
    if top:
        reply.content["metrics"]["best-accuracy"] = top["acc"]
        reply.content["metrics"]["best-round"] = top["round"]
    return reply


def stores_numbers_once(message, context, test_fn, num_examples):
    accuracy = test_fn(message.content["arrays"])[1]
    if "top" not in context.state:
        context.state["top"] = MetricRecord(
            {"acc": accuracy, "round": round_of(message)}
        )
        context.state["best"] = message.content["arrays"]
    top = dict(context.state["top"])
    if accuracy > top["acc"]:
        top = {"acc": accuracy, "round": round_of(message)}  # and not stored
    return reported(message, accuracy, top["acc"], top["round"], num_examples)


def supposes_a_best(message, context, test_fn, num_examples):
    accuracy = test_fn(message.content["arrays"])[1]
    if accuracy > context.state["top"]["acc"]:
        context.state["best"] = message.content["arrays"]
    return reported(message, accuracy, accuracy, 1, num_examples)


top_accuracy = -1.0
top_round = 0
best_of_node = {}


def best_in_globals(message, context, test_fn, num_examples):
    global top_accuracy, top_round
    accuracy = test_fn(message.content["arrays"])[1]
    if accuracy > top_accuracy:
        top_accuracy, top_round = accuracy, round_of(message)
        context.state["best"] = message.content["arrays"]
    return reported(message, accuracy, top_accuracy, top_round, num_examples)


def best_in_a_global_dictionary(message, context, test_fn, num_examples):
    accuracy = test_fn(message.content["arrays"])[1]
    best = best_of_node.get(context.node_id)
    if best is None or accuracy > best[0]:
        best = best_of_node[context.node_id] = accuracy, round_of(message)
        context.state["best"] = message.content["arrays"]
    return reported(message, accuracy, *best, num_examples)


def arrays_in_a_global(message, context, test_fn, num_examples):
    reply = right(message, context, test_fn, num_examples)
    best_of_node[context.node_id] = context.state.pop("best", None)
    return reply


def nothing_kept(message, context, test_fn, num_examples):
    accuracy = test_fn(message.content["arrays"])[1]
    return reported(message, accuracy, accuracy, round_of(message), num_examples)


def always_the_last_arrays(message, context, test_fn, num_examples):
    reply = right(message, context, test_fn, num_examples)
    context.state["best"] = message.content["arrays"]
    return reply


def always_the_first_arrays(message, context, test_fn, num_examples):
    first = context.state.get("best", message.content["arrays"])
    reply = right(message, context, test_fn, num_examples)
    context.state["best"] = first
    return reply


def arrays_of_a_tie(message, context, test_fn, num_examples):
    reply = right(message, context, test_fn, num_examples)
    metrics = reply.content["metrics"]
    if metrics["eval-accuracy"] == metrics["best-accuracy"]:
        context.state["best"] = message.content["arrays"]
    return reply


def arrays_of_every_round(message, context, test_fn, num_examples):
    context.state[f"round {round_of(message)}"] = message.content["arrays"]
    return right(message, context, test_fn, num_examples)


def arrays_renumbered(message, context, test_fn, num_examples):
    reply = right(message, context, test_fn, num_examples)
    context.state["best"] = ArrayRecord(context.state["best"].to_numpy_ndarrays())
    return reply


def numbers_in_best(message, context, test_fn, num_examples):
    reply = keeping(is_higher, arrays="best-arrays")(
        message, context, test_fn, num_examples
    )
    context.state["best"] = MetricRecord(dict(context.state["top"]))
    return reply


def sends_the_best(message, context, test_fn, num_examples):
    reply = right(message, context, test_fn, num_examples)
    reply.content["arrays"] = context.state["best"]
    return reply


def numpy_to_test_fn(message, context, test_fn, num_examples):
    accuracy = test_fn(message.content["arrays"].to_numpy_ndarrays())[1]
    return reported(message, accuracy, accuracy, 1, num_examples)


def best_to_nobody(message, context, test_fn, num_examples):
    return Message(right(message, context, test_fn, num_examples).content)


RIGHT["4.3"] = [by_the_history, tests_the_best_again, tuples_compared]
WRONG["4.3"] = [
    (changed(last_and_not_best), "stays the best when a later round is worse"),
    (changed(last_accuracy_only), "keep the best"),
    (changed(this_round), "not always the present one"),
    (changed(best_as_eval), "the best has a metric of its own"),
    (changed(eval_as_list), "eval-accuracy should be one number"),
    (changed(no_best_round), "the metrics lack best-round"),
    (changed(with_the_loss), "the metrics hold more"),
    (changed(one_example), "the number that was handed over"),
    (keeping(lambda this, top: this["loss"] < top["loss"]), "the best by loss"),
    (keeping(lambda this, top: this["acc"] >= top["acc"]), "the earlier one stays"),
    (keeping(lambda this, top: this["acc"] < top["acc"]), "the lowest accuracy"),
    (keeping(lambda this, top: False), "the first round's accuracy"),
    (keeping(lambda this, top: True), "stays the best when a later round is worse"),
    (keeping(is_higher, arrays="arrays"), "in context.state as 'arrays'"),
    (counting_messages(1), "counting messages gives another number"),
    (counting_messages(0), "not the place in a list"),
    (loss_and_accuracy_mixed_up, "returns the loss first"),
    (from_zero_best, "even if it is 0.0"),
    (from_zero_in_the_state, "even if it is 0.0"),
    (best_before, "best of the rounds before"),
    (stores_numbers_once, "with the first accuracy only"),
    (supposes_a_best, "there is no 'top' in context.state"),
    (best_in_globals, "in a global, an attribute or a default value"),
    (best_in_a_global_dictionary, "in a global, an attribute or a default value"),
    (arrays_in_a_global, 'there is no record "best"'),
    (nothing_kept, "context.state is still empty"),
    (always_the_last_arrays, "the arrays that came last"),
    (always_the_first_arrays, "the first arrays, in every round"),
    (arrays_of_a_tie, "replaced where a round only equals the best"),
    (arrays_of_every_round, "keeps more arrays than the best ones"),
    (arrays_renumbered, "by the names with which they came"),
    (numbers_in_best, '"best" in context.state should be an ArrayRecord'),
    (sends_the_best, 'the reply holds more than "metrics"'),
    (numpy_to_test_fn, "test_fn takes an ArrayRecord"),
    (best_to_nobody, "a reply takes reply_to=message"),
]
