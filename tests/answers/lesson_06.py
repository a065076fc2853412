"""Right answers to lesson 06's exercises that are written in other ways."""

import json
import os

import tomli_w
import torch

RIGHT = {}

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


RIGHT["6.3"] = [by_tomli_w]
