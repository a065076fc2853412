"""Right and wrong answers to lesson 04's exercises that are written in other ways."""

import json

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from course_utils.exercises.engine import edited
from course_utils.exercises.lesson_04 import count, keep, rate, reply


def by_exception(message, context):
    try:
        return np.float64(message.content["config"]["lr"])
    except KeyError:
        return context.run_config["lr"]


def kind_of(message):
    return message.metadata.message_type


def counted(message, calls):
    return reply(message, {"calls": calls, "num-examples": 1})


def as_json_in_a_new_state(message, context):
    counts = json.loads(context.state.get("counts", {"json": "{}"})["json"])
    counts[kind_of(message)] = counts.get(kind_of(message), 0) + 1
    context.state = RecordDict({"counts": ConfigRecord({"json": json.dumps(counts)})})
    return counted(message, counts[kind_of(message)])


def default_argument(message, context, counts={}):  # noqa: B006
    key = context.node_id, kind_of(message)
    counts[key] = counts.get(key, 0) + 1
    return counted(message, counts[key])


def tests_the_best_again(message, context, test_fn, num_examples):
    _, accuracy = test_fn(message.content["arrays"])
    if "best" not in context.state or accuracy > test_fn(context.state["best"])[1]:
        tensors = message.content["arrays"].to_torch_state_dict()
        context.state["best"] = ArrayRecord(tensors)
        context.state["round"] = message.content["config"]
    metrics = {
        "eval-accuracy": accuracy,
        "best-accuracy": test_fn(context.state["best"])[1],
        "best-round": context.state["round"]["server-round"],
        "num-examples": num_examples,
    }
    return reply(message, metrics)


RIGHT = {
    "4.1": [by_exception],
    "4.2": [as_json_in_a_new_state],
    "4.3": [tests_the_best_again],
}
PAST = 'own.state["past"] = -> '
NUMBERED = "ArrayRecord(arrays.to_numpy_ndarrays())"
NOT_BEST = "should keep one ArrayRecord"
WRONG = {
    "4.1": [
        (edited(rate, "return lr -> return config"), "should return a number"),
        (edited(rate, "return lr -> return str(lr)"), "should return a number"),
        (
            edited(rate, "return lr -> own.run_config.update(lr=lr); return lr"),
            "changed what it was given",
        ),
    ],
    "4.2": [
        (default_argument, "in a global, an attribute or a default value"),
        (edited(count, PAST + "_ ="), "context.state is still empty"),
        (edited(count, PAST + "own.past ="), "context.past is an attribute"),
        (edited(count, PAST + 'own.run_config["n"] ='), "changed context.run_config"),
        (edited(count, PAST + "own.state = 1 or"), "context.state is a RecordDict"),
        (edited(count, PAST + 'own.state["n"] = 1 or'), "nothing of type int"),
        (edited(count, '.get("past", {"keys": []}) -> ["past"]'), 'ask by "in" first'),
        (
            edited(count, 'return -> own.state["past"]["keys"].append(1); return'),
            "context.state cannot be packed",
        ),
    ],
    "4.3": [
        (edited(keep, "= arrays if i -> = " + NUMBERED + " if i"), "by the names with"),
        (edited(keep, "test_fn(arrays) -> test_fn(1)"), "test_fn takes an ArrayRecord"),
        (edited(keep, 'state["best"] = -> state["more"] = arrays; _ ='), NOT_BEST),
        (edited(keep, 'state["best"] = -> state["more"] = state["best"] ='), NOT_BEST),
    ],
}
