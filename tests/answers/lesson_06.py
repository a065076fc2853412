"""Wrong and right answers to lesson 06's exercises, as learners would write them."""

import json
import os

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


def with_open_files(result, folder):
    if len(result.arrays) == 0:
        raise RuntimeError("no model")
    os.makedirs(folder, exist_ok=True)
    state = {k: torch.from_numpy(v.numpy()) for k, v in result.arrays.items()}
    with (folder / "final_model.pt").open("wb") as file:
        torch.save(state, file)
    metrics = {
        "train-by-clients": result.train_metrics_clientapp,
        "evaluate-by-clients": result.evaluate_metrics_clientapp,
        "evaluate-by-server": result.evaluate_metrics_serverapp,
    }
    text = json.dumps(metrics, default=lambda record: {k: record[k] for k in record})
    (folder / "metrics.json").write_bytes(text.encode())


RIGHT["6.2"] = [with_open_files]

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
