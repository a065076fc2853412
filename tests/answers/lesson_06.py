"""Right answers to lesson 06's exercises that are written in other ways."""

import json
import os

import tomli_w
import torch


def key_by_key(defaults, overrides):
    settings = {}
    for key, value in defaults.items():
        inner = value if isinstance(value, dict) else {"": value}
        settings |= {f"{key}.{name}".strip("."): v for name, v in inner.items()}
    for key, value in overrides.items():
        if key not in settings:
            raise ValueError(key)
        settings[key] = value
    return settings


def with_open_files(result, folder):
    if len(result.arrays) == 0:
        raise json.JSONDecodeError("no model", "", 0)  # a ValueError, too
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


PARTS = ("server", "client")


def by_tomli_w(name, module, config):
    components = {f"{part}app": f"{module}.{part}_app:app" for part in PARTS}
    app = {"publisher": "somebody", "components": components, "config": dict(config)}
    project = {"name": name, "version": "0.1.0", "description": "an app"}
    return tomli_w.dumps({"project": project, "tool": {"flwr": {"app": app}}})


RIGHT = {"6.1": [key_by_key], "6.2": [with_open_files], "6.3": [by_tomli_w]}
