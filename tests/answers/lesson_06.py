"""Wrong and right answers to lesson 06's exercises, as learners would write them."""

import json
import os
import pickle

import tomli_w
import torch

RIGHT = {}
WRONG = {}

# ------------------------------------------------------------------ 6.1 run_settings


def flattened(table, before=""):
    result = {}
    for key, value in table.items():
        if isinstance(value, dict):
            result.update(flattened(value, f"{before}{key}."))
        else:
            result[before + key] = value
    return result


def key_by_key(defaults, overrides):
    settings = flattened(defaults)
    for key, value in overrides.items():
        if key not in settings:
            raise ValueError(key)
        settings[key] = value
    return settings


RIGHT["6.1"] = [key_by_key]

# -------------------------------------------------------------------------- 6.2 save


def metrics_of(result, convert=dict):
    return {
        "train-by-clients": {
            i: convert(m) for i, m in result.train_metrics_clientapp.items()
        },
        "evaluate-by-clients": {
            i: convert(m) for i, m in result.evaluate_metrics_clientapp.items()
        },
        "evaluate-by-server": {
            i: convert(m) for i, m in result.evaluate_metrics_serverapp.items()
        },
    }


def with_open_files(result, folder):
    if len(result.arrays) == 0:
        raise RuntimeError("no model")
    os.makedirs(folder, exist_ok=True)
    torch.save(result.arrays.to_torch_state_dict(), os.path.join(folder, MODEL))
    with open(os.path.join(folder, METRICS), "w") as file:
        json.dump(metrics_of(result), file, indent=4)


def tensor_by_tensor(result, folder):
    if not list(result.arrays.keys()):
        raise ValueError("no model")
    state = {
        name: torch.from_numpy(array.numpy()) for name, array in result.arrays.items()
    }
    for parent in (*reversed(folder.parents), folder):
        if not parent.exists():
            parent.mkdir()
    with (folder / MODEL).open("wb") as file:
        torch.save(state, file)
    text = json.dumps(metrics_of(result, lambda m: {key: m[key] for key in m}))
    (folder / METRICS).write_bytes(text.encode())


MODEL, METRICS = "final_model.pt", "metrics.json"


def write(result, folder, model=None, metrics=None, mode="w", refuse=True):
    """Save as a right answer does, but for what is given."""
    if refuse and not result.arrays:
        raise ValueError("no model")
    folder.mkdir(parents=True, exist_ok=True)
    if model is None:
        model = result.arrays.to_torch_state_dict()
    torch.save(model, folder / MODEL)
    with (folder / METRICS).open(mode) as file:
        file.write(json.dumps(metrics or metrics_of(result)))


def saves_the_record(result, folder):
    write(result, folder, model=result.arrays)


def saves_arrays(result, folder):
    arrays = {name: array.numpy() for name, array in result.arrays.items()}
    write(result, folder, model=arrays)


def saves_a_list(result, folder):
    write(result, folder, model=result.arrays.to_numpy_ndarrays())


def saves_the_result(result, folder):
    write(result, folder, model=result)


def pickles(result, folder):
    write(result, folder)
    state = result.arrays.to_torch_state_dict()
    (folder / MODEL).write_bytes(pickle.dumps(state))


def makes_everything_float(result, folder):
    state = result.arrays.to_torch_state_dict()
    write(result, folder, model={name: t.float() for name, t in state.items()})


def makes_one_folder(result, folder):
    if not result.arrays:
        raise ValueError
    folder.mkdir(exist_ok=True)
    write(result, folder)


def makes_no_folder(result, folder):
    if not result.arrays:
        raise ValueError
    torch.save(result.arrays.to_torch_state_dict(), folder / MODEL)


def works_once(result, folder):
    if not result.arrays:
        raise ValueError
    folder.mkdir(parents=True)
    write(result, folder)


def appends(result, folder):
    write(result, folder, mode="a")


def into_the_working_folder(result, folder):
    torch.save(result.arrays.to_torch_state_dict(), MODEL)
    with open(METRICS, "w") as file:
        json.dump(metrics_of(result), file)


def keeps_records(result, folder):
    write(result, folder, metrics=vars(result)["train_metrics_clientapp"])


def makes_text_of_the_records(result, folder):
    write(result, folder, metrics=metrics_of(result, str))


def makes_text_of_the_numbers(result, folder):
    by_text = metrics_of(result, lambda m: {k: f"{v}" for k, v in m.items()})
    write(result, folder, metrics=by_text)


def writes_what_str_makes(result, folder):
    write(result, folder)
    (folder / METRICS).write_text(str(metrics_of(result)))


def encodes_twice(result, folder):
    write(result, folder, metrics=json.dumps(metrics_of(result)))


def leaves_out_empty_kinds(result, folder):
    metrics = {kind: rounds for kind, rounds in metrics_of(result).items() if rounds}
    write(result, folder, metrics=metrics)


def last_round_only(result, folder):
    metrics = {k: list(r.values())[-1:] for k, r in metrics_of(result).items()}
    write(result, folder, metrics={k: r[0] if r else {} for k, r in metrics.items()})


def as_lists(result, folder):
    metrics = {k: list(r.values()) for k, r in metrics_of(result).items()}
    write(result, folder, metrics=metrics)


def mixes_up_who_evaluated(result, folder):
    metrics = metrics_of(result)
    by_clients, by_server = "evaluate-by-clients", "evaluate-by-server"
    swapped = {by_clients: metrics[by_server], by_server: metrics[by_clients]}
    write(result, folder, metrics=metrics | swapped)


def forgets_the_metrics(result, folder):
    write(result, folder)
    (folder / METRICS).unlink()


def saves_a_failure(result, folder):
    write(result, folder, refuse=False)


def asks_for_none(result, folder):
    if result.arrays is None:
        raise ValueError
    write(result, folder, refuse=False)


def says_nothing(result, folder):
    if result.arrays:
        write(result, folder)


def fails_too_late(result, folder):
    write(result, folder, refuse=False)
    if not result.arrays:
        raise ValueError("no model")


def fails_by_accident(result, folder):
    arrays = list(result.arrays.values())
    assert arrays[0].shape is not None
    write(result, folder)


RIGHT["6.2"] = [with_open_files, tensor_by_tensor]
WRONG["6.2"] = [
    (saves_the_record, "this is the ArrayRecord"),
    (saves_the_result, "this is the Result"),
    (saves_arrays, "these are no tensors by name"),
    (saves_a_list, "these are no tensors by name"),
    (pickles, "torch.load cannot read"),
    (makes_everything_float, "batches has another type or shape"),
    (makes_one_folder, "neither the folder nor the one above it"),
    (makes_no_folder, "torch.save makes no folder"),
    (works_once, "the folder is there already when a run is repeated"),
    (appends, "two runs stand one after another"),
    (into_the_working_folder, "is in the working folder"),
    (keeps_records, "dict(record) makes a dictionary of one"),
    (makes_text_of_the_records, "texts that look like dictionaries"),
    (makes_text_of_the_numbers, "these numbers are texts"),
    (writes_what_str_makes, "json.dumps writes it"),
    (encodes_twice, "holds one text, not metrics"),
    (leaves_out_empty_kinds, "has no 'evaluate-by-clients'"),
    (last_round_only, "holds the last round only"),
    (as_lists, "should be a dictionary: the metrics by round"),
    (mixes_up_who_evaluated, "holds the metrics of another kind"),
    (forgets_the_metrics, "there is no metrics.json in the folder, only final_model"),
    (saves_a_failure, "saves a run without a model"),
    (asks_for_none, "(not None)"),
    (says_nothing, "nothing was written, and nobody is told"),
    (fails_too_late, "look at result.arrays first"),
    (fails_by_accident, "say what is the matter yourself"),
]

# ---------------------------------------------------------------- 6.3 make_pyproject


def by_tomli_w(name, module, config):
    components = {
        "serverapp": f"{module}.server_app:app",
        "clientapp": f"{module}.client_app:app",
    }
    app = {"publisher": "somebody", "components": components, "config": dict(config)}
    project = {"name": name, "version": "0.1.0", "description": "an app"}
    return tomli_w.dumps({"project": project, "tool": {"flwr": {"app": app}}})


def literal(value):
    """Write a value in TOML without json."""
    if value is True or value is False:
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return repr(value)


def by_one_text(
    name,
    module,
    config,
    write=literal,
    head="[tool.flwr.app.config]",
    server="{module}.server_app:app",
    client="{module}.client_app:app",
    project='version = "1.2.3"',
    publisher='publisher = "us"',
):
    settings = "\n".join(f"{key} = {write(value)}" for key, value in config.items())
    server = server.format(module=module, name=name)
    client = client.format(module=module, name=name)
    return f"""\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
{project}
license = "Apache-2.0"
dependencies = ["flwr[simulation]~=1.41.0"]

[tool.flwr.app]
{publisher}

[tool.flwr.app.components]
serverapp = "{server}"
clientapp = "{client}"

{head}
{settings}
"""


def variant(**changes):
    def answer(name, module, config):
        return by_one_text(name, module, config, **changes)

    answer.__name__ = " ".join(changes)
    return answer


def quotes_everything(value):
    return f'"{value}"'


def in_plain_quotes(value):
    return f'"{value}"' if isinstance(value, str) else literal(value)


def in_single_quotes(value):
    return f"'{value}'" if isinstance(value, str) else literal(value)


def guesses(value):
    """Write a text that reads as a number or a truth value without quotes."""
    if value in ("true", "false") or str(value).replace(".", "").isdigit():
        return value
    return literal(value)


def cuts_floats(value):
    return f"{value:g}" if isinstance(value, float) else literal(value)


def booleans_as_numbers(value):
    return literal(int(value) if isinstance(value, bool) else value)


def escapes_quotes_only(value):
    if isinstance(value, str):
        return '"' + value.replace('"', '\\"') + '"'
    return literal(value)


def parsed(name, module, config):
    return {"project": {"name": name}}


def its_own_settings(name, module, config):
    return by_one_text(name, module, {"num-server-rounds": 3, "lr": 0.01})


def with_more_settings(name, module, config):
    return by_one_text(name, module, {"seed": 0} | config)


def another_name(name, module, config):
    return by_one_text(module, module, config)


def two_tables(name, module, config):
    return by_one_text(name, module, config) + "\n[project]\n"


RIGHT["6.3"] = [by_tomli_w, by_one_text]
WRONG["6.3"] = [
    (variant(write=repr), "true and false in small letters"),
    (variant(write=str), "a text stands in quotes"),
    (variant(write=quotes_everything), "no quotes around numbers, true and false"),
    (variant(write=in_plain_quotes), "json.dumps escapes them"),
    (variant(write=in_single_quotes), "json.dumps escapes them"),
    (variant(write=escapes_quotes_only), "json.dumps"),
    (variant(write=guesses), "label was a text and has become"),
    (variant(write=cuts_floats), "1.0 keeps its point"),
    (variant(write=booleans_as_numbers), "verbose has become the int 1"),
    (variant(head="[tool.flwr.config]"), "stands in [tool.flwr.config]"),
    (variant(head=""), "stands in [tool.flwr.app.components]"),
    (variant(head="[tool.flwr.app.settings]"), "is not in [tool.flwr.app.config]"),
    (variant(server="{name}.server_app:app"), "not by the app's name"),
    (variant(server="{module}.client_app:app"), "serverapp and clientapp are mixed up"),
    (
        variant(
            server="{module}.client_app:app",
            client="{module}.server_app:app",
        ),
        "this is the other app",
    ),
    (variant(server="server_app:app", client="client_app:app"), "lies in a package"),
    (
        variant(
            server="{module}/server_app.py:app",
            client="{module}/client_app.py:app",
        ),
        "this is a file",
    ),
    (variant(server="{module}.server_app"), "Missing attribute in"),
    (variant(server="{module}.server_app:server_app"), "does not lead to app"),
    (variant(project=""), 'Property "version" missing in [project]'),
    (variant(project="version = 1.0"), "the version should be a text"),
    (variant(publisher=""), 'Property "publisher" missing in [tool.flwr.app]'),
    (parsed, "return the text of the file"),
    (its_own_settings, "scheme is not in"),
    (with_more_settings, "defaults that were not asked for"),
    (another_name, "another name than the app's"),
    (two_tables, "a table or a key stands twice"),
]
