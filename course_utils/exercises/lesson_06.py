"""Lesson 06's exercises."""

import json
import pickle
import random
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, suppress
from dataclasses import replace
from functools import partial
from operator import or_
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import Result

from course_utils.exercises.engine import (
    Attempt,
    Case,
    Exercise,
    Wrong,
    require_kind,
)
from course_utils.runtime import find_app_errors

# -------------------------------------------------------------------- 6.1 run_settings

BASIC = {"num-server-rounds": 3, "lr": 0.01}
NESTED = {"lr": 0.01, "optimizer": {"name": "sgd", "lr": 0.5}}
SEEDED = {"verbose": True, "seed": 7, "tag": "first"}


def flat(defaults: dict, name: Callable = "{}.{}".format) -> dict:
    """Return the defaults without tables in them."""
    tables = {k: v for k, v in defaults.items() if isinstance(v, dict)}
    own = {k: v for k, v in defaults.items() if k not in tables}
    return own | {
        name(t, k): v for t, table in tables.items() for k, v in table.items()
    }


def set_up(
    defaults: dict,
    overrides: dict,
    *,
    flatten: Callable = flat,
    knows: Callable = flat,
    merge: Callable = or_,
) -> dict:
    """Do the exercise, perhaps with a slip."""
    if not overrides.keys() <= knows(defaults).keys():
        raise ValueError("There is a setting that the app does not have.")
    return merge(flatten(defaults), overrides)


def random_settings(rng: random.Random) -> Case:
    """Draw defaults with a table or two in them, and overrides of some."""
    values = iter(rng.sample(range(1, 10_000), 20))
    names = rng.sample(["lr", "seed", "alpha", "clip", "momentum", "decay"], 4)
    defaults: dict = {name: next(values) for name in names}
    for table in rng.sample(["optimizer", "data", "model"], rng.randint(1, 2)):
        defaults[table] = {name: next(values) / 8 for name in rng.sample(names, 2)}
    known = list(flat(defaults))
    chosen = rng.sample(known, rng.randint(1, len(known)))
    unknown = rng.choice([[], [], [f"x{rng.randrange(1000)}"]])
    return Case(defaults, {key: next(values) for key in unknown + chosen})


slip = partial(partial, set_up)
nested = {"lr": 0.01, "optimizer.name": "sgd", "optimizer.lr": 0.5}

SETTINGS = Exercise(
    "6.1",
    "you know which settings a run gets, and which it refuses.",
    cases=[
        Case(BASIC, {"lr": 0.1}, gives={"num-server-rounds": 3, "lr": 0.1}),
        Case(BASIC, {}, gives=BASIC),
        Case(NESTED, {"lr": 0.02}, gives=nested | {"lr": 0.02}),
        Case(NESTED, {"optimizer.lr": 0.25}, gives=nested | {"optimizer.lr": 0.25}),
        Case({"a": 1, "data": {}}, {"a": 2}, gives={"a": 2}),
        Case(
            SEEDED,
            {"verbose": False, "seed": 0, "tag": ""},
            gives={"verbose": False, "seed": 0, "tag": ""},
        ),
        Case(BASIC, {"learning-rate": 0.1}, gives=ValueError),
        Case(BASIC, {"lr": 0.1, "learning-rate": 0.1}, gives=ValueError),
        Case(NESTED, {"optimizer.momentum": 0.9}, gives=ValueError),
        Case(NESTED, {"optimizer": "adam"}, gives=ValueError),
        Case(NESTED, {"name": "adam"}, gives=ValueError),
        Case({}, {"lr": 0.1}, gives=ValueError),
    ],
    draw=random_settings,
    oracle=set_up,
    mistakes={
        "False, 0 and '' are settings, too: ask whether the key is among the "
        "overrides, not whether its value is true": slip(
            merge=lambda own, new: own | {k: v for k, v in new.items() if v}
        ),
        "these are the defaults: the overrides come on top of them": slip(
            merge=lambda own, new: own
        ),
        "these are the overrides alone: a run gets the other defaults, too": slip(
            merge=lambda own, new: new
        ),
        "a table is still in it: Flower joins its name and each key in it by a dot": [
            slip(flatten=dict),
            slip(flatten=lambda defaults: defaults | flat(defaults)),
        ],
        "the name of the table and the key in it are joined by a dot, as in "
        "optimizer.lr": [
            slip(flatten=partial(flat, name=f"{{}}{sign}{{}}".format))
            for sign in ("-", "_", "/", ":", "")
        ],
        "a key in a table keeps the table's name before it: there may be the same key "
        "outside": slip(flatten=partial(flat, name="{1}".format)),
        "each of these overrides has a default: look for its key among the flattened "
        "defaults": slip(knows=dict),
        "the app has no such key, and would never read it: raise a ValueError, so that "
        "nobody takes a misspelt setting for set": (
            lambda defaults, overrides: flat(defaults) | overrides
        ),
        "the app has no such key, and it was dropped without a word: raise a "
        "ValueError": lambda defaults, overrides: {
            key: overrides.get(key, value) for key, value in flat(defaults).items()
        },
        "this is the name of a table: flattened, the app has no key of that name, so "
        "raise a ValueError": slip(knows=lambda defaults: defaults | flat(defaults)),
        "this key is in a table: the app knows it with the table's name before it, as "
        "in optimizer.lr, so raise a ValueError": slip(
            knows=lambda defaults: flat(defaults) | flat(defaults, name="{1}".format)
        ),
        "your function changed what it was given: work on a copy": (
            lambda defaults, overrides: defaults.update(overrides) or flat(defaults)
        ),
    },
    otherwise="the result should be the flattened defaults, with the overrides on top",
)

# ---------------------------------------------------------------------------- 6.2 save

MODEL, METRICS = "final_model.pt", "metrics.json"
KINDS = {
    "train-by-clients": "train_metrics_clientapp",
    "evaluate-by-clients": "evaluate_metrics_clientapp",
    "evaluate-by-server": "evaluate_metrics_serverapp",
}
"""What metrics.json calls the metrics, and what a Result calls them."""


def play_saving(answer: Attempt, result: Result, before: dict | None) -> Iterator:
    """Let a result be saved, and yield what is in the files then."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as name, chdir(name):
        home, folder = Path(name), Path("runs", "first")
        if before is not None:
            folder.mkdir(parents=True)
            for file, text in before.items():
                (folder / file).write_text(text)
        was, refused = contents(home), False
        try:
            answer(result, folder)
        except Wrong as wrong:
            refused = isinstance(wrong.raised, ValueError | RuntimeError)
            if result.arrays and isinstance(wrong.raised, ValueError):
                sentence = f"{wrong}. This result has arrays: nothing is to be refused"
                raise Wrong(sentence) from None
            if result.arrays or not wrong.raised:
                raise
            if not refused:
                sentence = f"{wrong}: say what is the matter yourself, by a ValueError"
                raise Wrong(sentence) from None
        yield "refused", refused
        now = contents(home)
        yield "changed", sorted(p for p in was | now if was.get(p) != now.get(p))
        if now.get(f"runs/first/{MODEL}") and now.get(f"runs/first/{METRICS}"):
            yield from in_files(home / folder)


def contents(home: Path) -> dict[str, bytes]:
    """Return what lies below a folder: all files with their contents, and folders."""
    found = {p.relative_to(home).as_posix(): p for p in home.rglob("*")}
    return {name: p.is_file() and p.read_bytes() for name, p in found.items()}


def in_files(folder: Path) -> Iterator:
    """Yield what can be read from the two files."""
    state = metrics = None
    with suppress(Exception):  # safe, as it was written just now
        state = torch.load(folder / MODEL, weights_only=False)
    named = state.items() if isinstance(state, Mapping) else [("file", state)]
    kinds = {k: v.dtype if isinstance(v, torch.Tensor) else type(v) for k, v in named}
    yield "types", {key: str(kind) for key, kind in kinds.items()}
    yield "values", state
    with suppress(ValueError):
        metrics = json.loads((folder / METRICS).read_bytes())
    yield "JSON", type(metrics).__name__
    if isinstance(metrics, dict):
        yield "kinds", sorted(metrics)
        yield from sorted(metrics.items())


def metrics_of(result: Result, convert: Callable = dict) -> dict[str, dict]:
    """Return the metrics as metrics.json has them, or with a slip."""
    records = {kind: vars(result)[field] for kind, field in KINDS.items()}
    return {k: {i: convert(r) for i, r in v.items()} for k, v in records.items()}


def save(
    result: Result,
    folder: Path,
    *,
    good: Callable = lambda result: result.arrays,
    make: Callable = lambda folder: folder.mkdir(parents=True, exist_ok=True),
    state: Callable = lambda result: result.arrays.to_torch_state_dict(),
    save: Callable = torch.save,
    metrics: Callable = metrics_of,
    dump: Callable = json.dumps,
    mode: str = "w",
) -> None:
    """Do the exercise, perhaps with a slip."""
    if not good(result):
        raise ValueError("There is no model.")
    make(folder)
    save(state(result), folder / MODEL)
    with (folder / METRICS).open(mode) as file:
        file.write(dump(metrics(result)))


def result_of(losses: list, by_clients: bool = True, by_server: bool = True) -> Result:
    """Make a result of as many rounds as there are losses."""
    rounds = {i: {"loss": x, "all": [x, 2.0]} for i, x in enumerate(losses, 1)}
    state = {"w": torch.tensor(losses), "n": torch.tensor([len(losses)])}
    metrics = (
        rounds,
        {i: {"loss": m["loss"] / 2} for i, m in rounds.items() if by_clients},
        {i: {"loss": 3.0 - i} for i in (0, *rounds) if by_server},
    )
    records = [{i: MetricRecord(m) for i, m in kind.items()} for kind in metrics]
    return Result(ArrayRecord(state), *records)


FAILED = Result(evaluate_metrics_serverapp={0: MetricRecord({"loss": 2.0})})
EARLIER = {MODEL: "old", METRICS: "{}"}
NO_FOLDER = "a folder that is not there, nor the one above it"
TO_SAVE = "save result.arrays.to_torch_state_dict()"
TO_MAKE = "folder.mkdir(parents=True, exist_ok=True)"
slip = partial(partial, save)


def by_kind(change: Callable) -> Callable:
    """Make an answer that changes what it writes of each kind."""
    return slip(metrics=lambda r: {k: change(v) for k, v in metrics_of(r).items()})


SAVING = Exercise(
    "6.2",
    "your run leaves a model that can be read back, or fails.",
    cases=[
        Case(
            result_of([0.5, 1.5]),
            None,
            shown=NO_FOLDER,
            gives={
                "changed": [
                    *("runs", "runs/first"),
                    *("runs/first/final_model.pt", "runs/first/metrics.json"),
                ],
                "values": {"w": [0.5, 1.5], "n": [2]},
                "train-by-clients": {
                    "1": {"loss": 0.5, "all": [0.5, 2.0]},
                    "2": {"loss": 1.5, "all": [1.5, 2.0]},
                },
                "evaluate-by-clients": {"1": {"loss": 0.25}, "2": {"loss": 0.75}},
                "evaluate-by-server": {str(i): {"loss": 3.0 - i} for i in range(3)},
            },
        ),
        Case(result_of([0.5], by_clients=False), {}, shown="no evaluation by clients"),
        Case(
            result_of([0.5], by_server=False), {}, shown="no evaluation by the server"
        ),
        Case(result_of([0.75]), EARLIER, shown="a folder with another run's files"),
        Case(FAILED, None, shown="no arrays, no folder", gives={"changed": []}),
        Case(FAILED, EARLIER, shown="no arrays, a folder with another run's files"),
    ],
    draw=lambda rng: Case(
        result_of([rng.random() for _ in range(12)]), None, shown=NO_FOLDER
    ),
    play=play_saving,
    oracle=save,
    mistakes={
        f"this is the ArrayRecord, and load_state_dict takes none: {TO_SAVE}": (
            slip(state=lambda r: r.arrays)
        ),
        f"this is the Result, and load_state_dict takes none: {TO_SAVE}": (
            slip(state=lambda r: r)
        ),
        f"these are no tensors by name: {TO_SAVE}": [
            slip(state=lambda r: r.arrays.to_numpy_ndarrays()),
            slip(state=lambda r: {k: v.numpy() for k, v in r.arrays.items()}),
        ],
        f"torch.load cannot read {MODEL}: torch.save writes what it reads": (
            slip(save=lambda state, path: path.write_bytes(pickle.dumps(state)))
        ),
        f"neither the folder nor that above it need be there: make both by {TO_MAKE}": [
            slip(make=lambda folder: folder.mkdir(exist_ok=True)),
            slip(make=bool, save=lambda _, path: path.open("wb")),
            slip(make=bool, save=lambda _, path: path.with_name(METRICS).open("w")),
        ],
        f"torch.save makes no folder: make it first, by {TO_MAKE}": slip(make=bool),
        "the folder is there already when a run is repeated, and that is no error: "
        + TO_MAKE: slip(make=lambda folder: folder.mkdir(parents=True)),
        f'two runs stand one after another in {METRICS}: write it anew, mode "w"': (
            slip(mode="a")
        ),
        "these files are in the working folder: write them to folder / name": (
            lambda r, folder: save(r, Path())
        ),
        "write into folder alone, and not into the working folder as well": (
            lambda r, folder: save(r, folder) or save(r, Path())
        ),
        "json knows no MetricRecord: dict(record) makes a dictionary of one": (
            slip(metrics=lambda r: r.train_metrics_clientapp)
        ),
        f"{METRICS} is no JSON, as str() makes none: json.dumps writes it": (
            slip(dump=str)
        ),
        "the file holds one text, not metrics: json.dumps takes the dictionary": (
            slip(dump=lambda metrics: json.dumps(json.dumps(metrics)))
        ),
        "all three kinds of metrics are there, even where a run had none of a kind": (
            slip(metrics=lambda r: {k: v for k, v in metrics_of(r).items() if v})
        ),
        "this is the last round only: each kind holds all of them, by number": [
            by_kind(lambda rounds: [{}, *rounds.values()][-1]),
            by_kind(lambda rounds: dict([*rounds.items()][-1:])),
        ],
        "each kind should be a dictionary: the metrics by round": (
            by_kind(lambda rounds: [*rounds.values()])
        ),
        "the evaluations by clients and by the server are mixed up": slip(
            metrics=lambda r: metrics_of(
                replace(r, evaluate_metrics_clientapp=r.evaluate_metrics_serverapp)
            )
        ),
        "these are texts that look like dictionaries: dict(record) makes one": (
            slip(metrics=partial(metrics_of, convert=str))
        ),
        "these numbers are texts: leave them numbers": slip(
            metrics=partial(metrics_of, convert=lambda r: {k: str(r[k]) for k in r})
        ),
        "all clients have failed, and this saves a run without a model: result.arrays "
        "is an empty ArrayRecord then (not None), so raise a ValueError if not "
        "result.arrays": slip(good=lambda r: True),
        "nothing was written, and nobody is told: raise a ValueError, so that Flower "
        "counts the run as failed": lambda r, folder: r.arrays and save(r, folder),
        "something was written before the error, if only a folder: look at "
        "result.arrays first, so that nothing of a failed run is taken for a result": [
            lambda r, folder: save(r, folder, good=lambda r: True) or save(r, folder),
            lambda r, folder: folder.mkdir(0o777, True, True) or save(r, folder),
        ],
    },
    otherwise={
        "refused": "if all clients failed, raise a ValueError, and write nothing",
        "changed": f"write {MODEL} and {METRICS} into folder, and nothing else",
        "types": "the names and types of the tensors should be those in result.arrays",
        "values": "these are not the values in result.arrays: is it this run's model?",
        "JSON": f"{METRICS} should hold a dictionary, written by json.dumps",
        "kinds": f"{METRICS} should have the three keys, and no others",
        "": "each kind should hold each round's metrics, as they are in the Result",
    },
)

# ------------------------------------------------------------------ 6.3 make_pyproject


def play_app(answer: Attempt, name: str, module: str, config: dict) -> Iterator:
    """Yield what Flower would read in the file."""
    text = answer(name, module, config)
    if not isinstance(text, str):
        require_kind(text, "")
        raise Wrong("return the text of the file: a str", got=text)
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        reason, _, place = str(error).removesuffix(")").rpartition(" (at ")
        number = int(re.sub(r"\D+", "", place.split(",")[0]) or 0)
        line = re.sub(r"\s*=\s*", " = ", text.rstrip().split("\n")[number - 1].strip())
        raise Wrong(f"this is no TOML, from {line!r} on: {reason}") from None
    if errors := find_app_errors(settings):
        raise Wrong(f"Flower refuses this app: {errors[0].splitlines()[0]}", file=text)
    app, project = settings["tool"]["flwr"]["app"], settings["project"]
    yield "name", project["name"]
    texts = [project["version"], app["publisher"]]
    yield "texts", [isinstance(text, str) and bool(text.strip()) for text in texts]
    yield from ((key, app["components"].get(key)) for key in ("serverapp", "clientapp"))
    places, defaults = dict(find_keys(settings)), app.get("config", {})
    for key in config:
        where = "tool.flwr.app.config" if key in defaults else places.get(key, "none")
        yield f"{key}: table", where
        value = defaults.get(key)
        yield f"{key}: value", f"{type(value).__name__} {value!r}"
    yield "defaults", sorted(defaults)


def find_keys(table: dict, place: str = "") -> Iterator[tuple[str, str]]:
    """Yield all keys in a table and those inside it, each with its place."""
    for key, value in table.items():
        yield key, place
        if isinstance(value, dict):
            yield from find_keys(value, f"{place}.{key}".strip("."))


def in_toml(value: Any) -> str:
    """Write a value in TOML."""
    if isinstance(value, str):
        return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
    return repr(value).lower() if isinstance(value, bool) else repr(value)


def write_app(
    name: str,
    module: str,
    config: dict,
    *,
    write: Callable = in_toml,
    package: str = "{module}.",
    apps: tuple[str, str] = ("server_app:app", "client_app:app"),
    more: dict | None = None,
) -> str:
    """Do the exercise, perhaps with a slip."""
    before = package.format(module=module, name=name, guess=name.replace("-", "_"))
    config = config | (more or {})
    lines = [f"{key} = {write(value)}" for key, value in config.items()]
    return f"""
        [project]
        name = "{name}"
        version = "2"
        [tool.flwr.app]
        publisher = "us"
        [tool.flwr.app.components]
        serverapp = "{before}{apps[0]}"
        clientapp = "{before}{apps[1]}"
        [tool.flwr.app.config]
    """ + "\n".join(lines)


def random_app(rng: random.Random) -> Case:
    """Draw the names of an app and its module, and its defaults."""
    words = rng.sample(["alpha", "beta", "gamma", "delta", "epsilon", "zeta"], 5)
    values = [
        rng.randint(-9, 10**6),
        rng.choice([True, False]),
        rng.randint(1, 99) / 8,
        "".join(rng.choices("ab '\"\\é=#[", k=rng.randint(1, 9))),
        rng.choice(["1.5", "false", "none"]),
    ]
    rng.shuffle(values)
    module = f"app{rng.randrange(100)}"
    return Case(f"an-{module}", module, dict(zip(words, values, strict=True)))


def default(config: dict, **gives: Any) -> Case:
    """Make a case of an app as the lesson's, with these defaults."""
    return Case("federated-digits", "federated_digits", config, gives=gives)


slip = partial(partial, write_app)

PYPROJECT = Exercise(
    "6.3",
    "Flower takes your app, and its settings are those that you meant.",
    cases=[
        default(
            {"num-server-rounds": 3, "lr": 0.01},
            name="federated-digits",
            serverapp="federated_digits.server_app:app",
            clientapp="federated_digits.client_app:app",
            defaults=["lr", "num-server-rounds"],
            **{"lr: table": "tool.flwr.app.config", "lr: value": "float 0.01"},
        ),
        default({"scheme": "iid", "verbose": True, "centralized": False}),
        default({}, defaults=[]),
        default({"momentum": 1.0, "tiny": 1e-05}, **{"tiny: value": "float 1e-05"}),
        default({"greeting": 'say "hi"'}, **{"greeting: value": "str 'say \"hi\"'"}),
        default({"folder": "C:\\new\\data", "tag": "it's", "blanks": " a  "}),
        default({"empty": "", "seed": 0, "flag": False}),
        default({"label": "3", "flag": "true"}, **{"label: value": "str '3'"}),
    ],
    draw=random_app,
    play=play_app,
    oracle=write_app,
    mistakes={
        "TOML writes true and false in small letters, as json.dumps does": slip(
            write=lambda v: str(v) if isinstance(v, bool) else in_toml(v)
        ),
        "in TOML a text stands in quotes: json.dumps puts them": slip(write=str),
        "a text with quotes or backslashes in it breaks off too early, or is no text "
        "at all: json.dumps escapes them": [
            slip(write=lambda v: f'"{v}"' if isinstance(v, str) else in_toml(v)),
            slip(write=lambda v: f"'{v}'" if isinstance(v, str) else in_toml(v)),
        ],
        "this has become a text, and the app would calculate with it: no quotes around "
        "numbers, true and false": [
            slip(write="'{}'".format),
            slip(write=lambda value: in_toml(str(value))),
        ],
        "this was a text and has become something else: quote it": slip(
            write=lambda v: v if v in ("true", "false", "3", "1.5") else in_toml(v)
        ),
        "this was a float and has become an int: 1.0 keeps its point": slip(
            write=lambda v: f"{v:g}" if isinstance(v, float) else in_toml(v)
        ),
        "this was true or false, and has become a number": slip(
            write=lambda v: in_toml(int(v) if isinstance(v, bool) else v)
        ),
        "this is the other app: serverapp and clientapp are mixed up": slip(
            apps=("client_app:app", "server_app:app")
        ),
        "a component is found by its module, not by the app's name, which may hold "
        "what no module's name may": [
            slip(package="{name}."),
            slip(package="{guess}."),
        ],
        "the module lies in a package: put its name and a dot before it": (
            slip(package="")
        ),
        "this is a file: name the module, with dots, as in an import": slip(
            package="{module}/", apps=("server_app.py:app", "client_app.py:app")
        ),
        "there are defaults that were not asked for: the keys come from config": (
            slip(more={"seed": 0})
        ),
    },
    otherwise={
        "name": "this is another name than the app's: it is the first argument",
        "texts": 'version and publisher should be texts, such as "1.0.0"',
        "app": "this does not lead to app in the package's module",
        "defaults": "the defaults should be those in config, and no others",
        "table": "all defaults in config should stand in [tool.flwr.app.config]",
        "value": "each default should arrive as what it is: json.dumps writes it so",
    },
)
