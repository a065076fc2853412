"""Right and wrong answers to lesson 04's exercises that are written in other ways."""

import json
from collections import ChainMap
from typing import ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from course_utils.exercises.lesson_04 import keep, reply

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


RIGHT["4.1"] = [chained, by_exception]
WRONG["4.1"] = [
    (lambda message, context: message.content["config"], "should return a number"),
    (searching_all_configs, "another record than"),
    (lambda message, context: str(chained(message, context)), "should return a number"),
]

# -------------------------------------------------------------------- 4.2 count_calls


def kind_of(message):
    return message.metadata.message_type


def counted(message, calls):
    return reply(message, {"calls": calls, "num-examples": 1})


def a_record_for_each_type(message, context):
    counter = context.state.setdefault(kind_of(message), MetricRecord({"n": 0}))
    counter["n"] += 1
    return counted(message, counter["n"])


def as_json_in_a_new_state(message, context):
    counts = json.loads(context.state.get("counts", {"json": "{}"})["json"])
    counts[kind_of(message)] = counts.get(kind_of(message), 0) + 1
    context.state = RecordDict({"counts": ConfigRecord({"json": json.dumps(counts)})})
    return counted(message, counts[kind_of(message)])


number_of_calls = 0


class Memory:
    calls: ClassVar[dict] = {}


def a_global(message, context):
    global number_of_calls
    number_of_calls += 1
    return counted(message, number_of_calls)


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


def state_replaced(message, context):
    calls = context.state.get("calls", 0) + 1
    context.state = {"calls": calls}
    return counted(message, calls)


def supposes_a_counter(message, context):
    context.state["calls"][kind_of(message)] += 1
    return counted(message, context.state["calls"][kind_of(message)])


def appends_a_string(message, context):
    past = context.state.setdefault("past", MetricRecord({"types": []}))
    past["types"].append(kind_of(message))
    return counted(message, past["types"].count(kind_of(message)))


RIGHT["4.2"] = [a_record_for_each_type, as_json_in_a_new_state]
WRONG["4.2"] = [
    (a_global, "in a global, an attribute or a default value"),
    (default_argument, "in a global, an attribute or a default value"),
    (function_attribute, "in a global, an attribute or a default value"),
    (class_attribute, "in a global, an attribute or a default value"),
    (context_attribute, "context.calls is an attribute that you have added"),
    (run_config_counter, "changed context.run_config"),
    (bare_int, "takes records only, and nothing of type int"),
    (state_replaced, "context.state is a RecordDict"),
    (supposes_a_counter, "does not hold what is looked up in it"),
    (appends_a_string, "context.state cannot be packed"),
]

# ---------------------------------------------------------------------- 4.3 keep_best


def reported(message, *values):
    keys = "eval-accuracy", "best-accuracy", "best-round", "num-examples"
    return reply(message, dict(zip(keys, values, strict=True)))


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


def arrays_renumbered(message, context, *more):
    said = keep(message, context, *more)
    context.state["best"] = ArrayRecord(context.state["best"].to_numpy_ndarrays())
    return said


def numpy_to_test_fn(message, context, test_fn, num_examples):
    return test_fn(message.content["arrays"].to_numpy_ndarrays())


RIGHT["4.3"] = [by_the_history, tuples_compared]
WRONG["4.3"] = [
    (arrays_renumbered, "by the names with which they came"),
    (numpy_to_test_fn, "test_fn takes an ArrayRecord"),
]
