"""Lesson 06's exercises."""

import json
import random
import re
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from functools import partial
from operator import or_
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import Result
from torch import nn

from course_utils.exercises import Attempt, Wrong, close, exercise, require_kind
from course_utils.exercises.engine import Case, Exercise
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
        "this key is in a table, so the app has it by both names only, as in "
        "optimizer.lr: raise a ValueError": slip(
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


def make_result(seed: int, rounds: int, evaluated: bool = True) -> Result:
    """Make the result of a run, as ``strategy.start`` returns it."""
    values = torch.Generator().manual_seed(seed)
    state = {
        "body.weight": torch.randn(2, 3, generator=values),
        "body.bias": torch.randn(3, generator=values),
        "batches": torch.randint(100, (1,), generator=values),
    }

    def draw() -> float:
        return round(torch.rand(1, generator=values).item(), 6)

    numbers = range(1, rounds + 1)
    return Result(
        arrays=ArrayRecord(state),
        train_metrics_clientapp={
            i: MetricRecord({"train-loss": draw(), "norms": [draw(), draw()]})
            for i in numbers
        },
        evaluate_metrics_clientapp={
            i: MetricRecord({"eval-loss": draw(), "eval-accuracy": draw()})
            for i in numbers
            if evaluated
        },
        evaluate_metrics_serverapp={
            i: MetricRecord({"eval-loss": draw(), "eval-accuracy": draw()})
            for i in range(rounds + 1)
        },
    )


def make_failure() -> Result:
    """Make the result of a run whose clients have all failed."""
    server = {i: MetricRecord({"eval-accuracy": 0.125}) for i in range(3)}
    return Result(evaluate_metrics_serverapp=server)


@contextmanager
def temporary_home() -> Iterator[Path]:
    """Work in a temporary folder, so that nothing is left of what is written."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as name, chdir(name):
        yield Path(name).resolve()


@exercise("6.2", "your run leaves a model that can be read back, or fails.")
def judge_save(answer: Attempt, rng: random.Random) -> None:
    """Let it save runs, and read back what it has written."""
    with temporary_home() as home:
        first = home / "runs" / "first"
        require_saved(answer, make_result(1, 2), first, "a folder that is not there")
        again = make_result(2, 1, evaluated=False)
        require_saved(answer, again, first, "the folder of the run before")
        require_no_model(answer, home, home / "second", "a folder that is not there")
        require_no_model(answer, home, first, "the folder of the run before")
        for i in range(2):
            empty = home / f"empty-{i}"
            empty.mkdir()
            result = make_result(rng.getrandbits(32), rng.randint(1, 12))
            require_saved(answer, result, empty, "a folder that is empty")


def require_saved(answer: Attempt, result: Result, folder: Path, which: str) -> None:
    """Raise Wrong unless an answer writes both files, and what is in them is right."""
    given = {"folder": which, "rounds": len(result.train_metrics_clientapp)}
    try:
        answer(result, folder)
    except Wrong as wrong:
        raise Wrong(why_not_saved(wrong), given=given) from None
    for name in (MODEL, METRICS):
        if not (folder / name).is_file():
            raise Wrong(where_else(name, folder), given=given)
    require_model(result, folder / MODEL, given)
    require_metrics(result, folder / METRICS, given)


def why_not_saved(wrong: Wrong) -> str:
    """Say what an answer to 6.2 that raises has not thought of."""
    sentence = str(wrong)
    if isinstance(wrong.raised, FileExistsError):
        return (
            "the folder is there already when a run is repeated, and that is no error: "
            "mkdir(parents=True, exist_ok=True)"
        )
    if isinstance(wrong.raised, FileNotFoundError):
        return (
            "neither the folder nor the one above it need be there: make both, by "
            "folder.mkdir(parents=True, exist_ok=True)"
        )
    if "Parent directory" in sentence:  # torch.save says so as a RuntimeError
        return (
            "torch.save makes no folder: make it first, by "
            "folder.mkdir(parents=True, exist_ok=True)"
        )
    if "MetricRecord is not JSON serializable" in sentence:
        return "json knows no MetricRecord: dict(record) makes a dictionary of one"
    if "not JSON serializable" in sentence:
        return f"metrics.json takes the metrics, and no arrays: {sentence}"
    return sentence


def where_else(name: str, folder: Path) -> str:
    """Say where a file is that should be in a folder, if it is anywhere."""
    elsewhere = [p for p in Path.cwd().rglob(name) if p.parent != folder]
    if Path(name).is_file():
        return f"{name} is in the working folder: write it to folder / {name!r}"
    written = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    if written and not elsewhere:
        return f"there is no {name} in the folder, only {', '.join(written)}"
    return f"there is no {name} in the folder"


def require_model(result: Result, path: Path, given: Any) -> None:
    """Raise Wrong, by name, unless a file holds a result's state_dict."""
    try:
        with warnings.catch_warnings(action="ignore"):
            loaded = torch.load(path, weights_only=True)
    except Exception:
        raise Wrong(name_unreadable(path), given=given) from None
    expected = result.arrays.to_torch_state_dict()
    if not isinstance(loaded, Mapping):
        raise Wrong(
            "the model should be a state_dict: tensors by name", given=given, got=loaded
        )
    if set(loaded) != set(expected):
        raise Wrong(
            "the state_dict should have the names of result.arrays",
            given=given,
            expected=sorted(expected),
            got=sorted(map(str, loaded)),
        )
    for name, tensor in expected.items():
        got = loaded[name]
        if not isinstance(got, torch.Tensor):
            raise Wrong(
                "load_state_dict takes tensors and nothing else: "
                "result.arrays.to_torch_state_dict() makes them",
                given=given,
                got={name: got},
            )
        if got.dtype != tensor.dtype or got.shape != tensor.shape:
            raise Wrong(
                f"{name} has another type or shape than in result.arrays",
                given=given,
                expected=f"{tensor.dtype}, {tuple(tensor.shape)}",
                got=f"{got.dtype}, {tuple(got.shape)}",
            )
        if not close(got, tensor):
            raise Wrong(
                f"{name} has other values than in result.arrays: is it the model of "
                "this run?",
                given=given,
                expected=tensor,
                got=got,
            )


def name_unreadable(path: Path) -> str:
    """Say why torch.load does not read a file."""
    usual = "result.arrays.to_torch_state_dict()"
    try:
        # Not safe with a file from somebody else: this one was written just now, here.
        loaded = torch.load(path, weights_only=False)
    except Exception:
        return f"torch.load cannot read {MODEL}: torch.save writes what it reads"
    if isinstance(loaded, Result | ArrayRecord):
        name = type(loaded).__name__
        return f"this is the {name}, and load_state_dict takes none: save {usual}"
    if isinstance(loaded, nn.Module):
        return f"this is a whole network: save its state_dict alone, {usual}"
    if isinstance(loaded, Mapping | list | tuple):
        return f"these are no tensors by name: save {usual}"
    return f"this is a {type(loaded).__name__}, not a state_dict: save {usual}"


def require_metrics(result: Result, path: Path, given: Any) -> None:
    """Raise Wrong, by name, unless a file holds a result's metrics by round."""
    text = path.read_text(encoding="utf-8")
    try:
        got = json.loads(text)
    except ValueError:
        raise Wrong(name_broken_json(text), given=given, got=text) from None
    expected = {
        kind: {str(i): dict(record) for i, record in vars(result)[field].items()}
        for kind, field in KINDS.items()
    }
    if close(got, expected):
        return
    if isinstance(got, str):
        raise Wrong(
            "the file holds one text, not metrics: json.dumps takes the dictionary",
            given=given,
            got=got,
        )
    require_kind(got, expected)
    for kind in KINDS:
        if kind not in got:
            raise Wrong(
                f"{METRICS} has no {kind!r}: all three are there, even where a run had "
                "none of a kind",
                given=given,
                got=sorted(got),
            )
    if set(got) - set(KINDS):
        raise Wrong(
            f"{METRICS} holds more than asked for", given=given, got=sorted(got)
        )
    kind = next(kind for kind in KINDS if not close(got[kind], expected[kind]))
    raise Wrong(
        name_wrong_metrics(got, expected, kind),
        given=given,
        expected={kind: expected[kind]},
        got={kind: got[kind]},
    )


def name_broken_json(text: str) -> str:
    """Say why a text is no JSON."""
    try:
        json.JSONDecoder().raw_decode(text.strip())
    except ValueError:
        return (
            f"{METRICS} is no JSON, as str() makes none: json.dumps writes it"
            if text.strip()
            else f"{METRICS} is empty: json.dumps returns the text to write"
        )
    return f'two runs stand one after another in {METRICS}: write it anew, mode "w"'


def name_wrong_metrics(got: Any, expected: dict, kind: str) -> str:
    """Name what is wrong with the metrics of one kind."""
    own, right = got[kind], expected[kind]
    if not isinstance(own, Mapping):
        return f"{kind!r} should be a dictionary: the metrics by round"
    if close(own, list(right.values())[-1] if right else None):
        return f"{kind!r} holds the last round only: it takes all of them, by number"
    if any(close(own, expected[other]) for other in KINDS if other != kind):
        return f"{kind!r} holds the metrics of another kind"
    if set(own) != set(right):
        return f"{kind!r} should have the rounds {', '.join(right) or 'of none'}"
    if any(isinstance(metrics, str) for metrics in own.values()):
        return "these are texts that look like dictionaries: dict(record) makes one"
    values = [v for m in own.values() if isinstance(m, Mapping) for v in m.values()]
    if any(isinstance(value, str) for value in values):
        return "these numbers are texts: leave them numbers"
    return f"{kind!r} should hold each round's metrics, as they are in the Result"


def require_no_model(answer: Attempt, home: Path, folder: Path, which: str) -> None:
    """Raise Wrong unless an answer refuses to save a run that has no model."""
    given = {"result": "no arrays: all clients failed", "folder": which}
    before = files_of(home)
    try:
        answer(make_failure(), folder)
    except Wrong as wrong:
        error = wrong.raised
        if error is None:
            raise
        if isinstance(error, AttributeError | IndexError | KeyError | TypeError):
            raise Wrong(
                f"{wrong}: say what is the matter yourself, by a ValueError",
                given=given,
            ) from None
        if not isinstance(error, ValueError | RuntimeError):
            raise Wrong(
                f"raise a ValueError, not a {type(error).__name__}", given=given
            ) from None
        if files_of(home) != before:
            raise Wrong(
                "files were written before the error: look at result.arrays first, "
                "so that nothing of a failed run is taken for a result",
                given=given,
                got=sorted(set(files_of(home)) - set(before)) or "other contents",
            ) from None
        return
    if files_of(home) == before:
        sentence = (
            "nothing was written, and nobody is told: raise a ValueError, so that "
            "Flower counts the run as failed"
        )
    else:
        sentence = (
            "all clients have failed, and this saves a run without a model: "
            "result.arrays is an empty ArrayRecord then (not None), so raise a "
            "ValueError if not result.arrays"
        )
    raise Wrong(sentence, given=given)


def files_of(home: Path) -> dict[str, bytes]:
    """Return all files below a folder, with their contents."""
    found = sorted(p for p in home.rglob("*") if p.is_file())
    return {p.relative_to(home).as_posix(): p.read_bytes() for p in found}


# ------------------------------------------------------------------ 6.3 make_pyproject

CONFIGS: tuple[dict[str, Any], ...] = (
    {"num-server-rounds": 3, "lr": 0.01},
    {"scheme": "iid", "verbose": True, "centralized": False},
    {},
    {"momentum": 1.0, "tiny": 1e-05},
    {"greeting": 'say "hi"'},
    {"folder": "C:\\new\\data", "tag": "it's", "empty": ""},
    {"label": "3", "flag": "true"},
)


@exercise("6.3", "Flower takes your app, and its settings are those that you meant.")
def judge_make_pyproject(answer: Attempt, rng: random.Random) -> None:
    """Parse what it writes, let Flower check it, and compare."""
    for config in CONFIGS:
        judge_app(answer, "federated-digits", "federated_digits", config)
    for _ in range(3):
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
        config = dict(zip(words, values, strict=True))
        judge_app(answer, f"an-{module}", module, config)


def judge_app(answer: Attempt, name: str, module: str, config: dict) -> None:
    """Judge what an answer writes for one app."""
    given = (name, module, config)
    text = answer(name, module, config)
    if not isinstance(text, str):
        require_kind(text, "")
        raise Wrong("return the text of the file: a str", given=given, got=text)
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise_no_toml(text, str(error), given)
    if errors := find_app_errors(settings):
        error = errors[0].splitlines()[0]
        raise Wrong(f"Flower refuses this app: {error}", given=given, got=text)
    require_project(settings, name, given)
    require_components(settings["tool"]["flwr"]["app"]["components"], module, given)
    require_config(settings, config, given)


def raise_no_toml(text: str, error: str, given: Any) -> None:
    """Raise Wrong on what cannot be parsed, with the line where it breaks off."""
    lines = text.splitlines()
    place = re.search(r"at line (\d+)", error)
    number = int(place[1]) if place else len(lines)
    line = lines[number - 1] if 0 < number <= len(lines) else ""
    _, equals, value = (part.strip() for part in line.partition("="))
    if value in ("True", "False"):
        sentence = "TOML writes true and false in small letters, as json.dumps does"
    elif equals and any(close(value, v) for v in given[2].values()):
        sentence = "in TOML a text stands in quotes: json.dumps puts them"
    elif equals and value[:1] in ("'", '"'):
        sentence = (
            "a text with quotes or backslashes in it breaks off too early, or is no "
            "text at all: json.dumps escapes them"
        )
    elif "Cannot declare" in error or "Cannot overwrite" in error:
        sentence = f"a table or a key stands twice in it ({error})"
    else:
        sentence = f"this is no TOML: {error}"
    raise Wrong(sentence, given=given, got={f"line {number}": line})


def require_project(settings: dict, name: str, given: Any) -> None:
    """Raise Wrong unless the app has its name, a version and a publisher."""
    project = settings["project"]
    if project["name"] != name:
        raise Wrong(
            "[project] has another name than the app's: name is the first argument",
            given=given,
            expected=name,
            got=project["name"],
        )
    publisher = settings["tool"]["flwr"]["app"]["publisher"]
    for what, value in (("version", project["version"]), ("publisher", publisher)):
        if not isinstance(value, str) or not value.strip():
            raise Wrong(
                f'the {what} should be a text, such as "1.0.0"', given=given, got=value
            )


def require_components(components: dict, module: str, given: Any) -> None:
    """Raise Wrong, by name, unless Flower finds both apps by the components."""
    server, client = f"{module}.server_app:app", f"{module}.client_app:app"
    for key, right, other in (
        ("serverapp", server, client),
        ("clientapp", client, server),
    ):
        got = components[key]
        named = {
            other: "this is the other app: serverapp and clientapp are mixed up",
            right.replace(module, given[0]): (
                "a component is found by its module, not by the app's name, which may "
                "hold what no module's name may"
            ),
            right.removeprefix(f"{module}."): (
                "the module lies in a package: put its name and a dot before it"
            ),
            right.replace(".", "/").replace(":", ".py:"): (
                "this is a file: name the module, with dots, as in an import"
            ),
        }
        if got != right:
            otherwise = "this does not lead to app in the package's module"
            raise Wrong(
                named.get(got, otherwise) if isinstance(got, str) else otherwise,
                given=given,
                expected={key: right},
                got={key: got},
            )


def require_config(settings: dict, config: dict, given: Any) -> None:
    """Raise Wrong, by name, unless the defaults are there and no others."""
    app = settings["tool"]["flwr"]["app"]
    got = app.get("config", {})
    if not isinstance(got, dict):
        raise Wrong("[tool.flwr.app.config] should be a table", given=given, got=got)
    for key, value in config.items():
        if key not in got:
            raise Wrong(where_instead(settings, key), given=given, got=got)
        if type(got[key]) is not type(value):
            sentence = wrong_type(key, value, got[key])
        elif got[key] != value:
            sentence = (
                f"{key} has become another text: backslashes and quotes in a text need "
                "a backslash before them, which json.dumps puts"
                if isinstance(value, str)
                else f"{key} has become another value"
            )
        else:
            continue
        raise Wrong(sentence, given=given, expected={key: value}, got={key: got[key]})
    if set(got) - set(config):
        raise Wrong(
            "there are defaults that were not asked for: the keys come from config",
            given=given,
            got=got,
        )


def where_instead(settings: dict, key: str) -> str:
    """Say where a default has gone that should be in [tool.flwr.app.config]."""
    flower = settings["tool"]["flwr"]
    places = {
        "[tool.flwr.app]": flower["app"],
        "[tool.flwr.app.components]": flower["app"]["components"],
        "[tool.flwr.config]": flower.get("config"),
        "[tool.flwr.app.run-config]": flower["app"].get("run-config"),
        "[project]": settings["project"],
    }
    for place, table in places.items():
        if isinstance(table, dict) and key in table:
            return f"{key} stands in {place}: it belongs in [tool.flwr.app.config]"
    return f"{key} is not in [tool.flwr.app.config]"


def wrong_type(key: str, value: Any, got: Any) -> str:
    """Say how a default has lost its type."""
    if isinstance(value, str):
        return (
            f"{key} was a text and has become the {type(got).__name__} {got}: quote it"
        )
    if isinstance(got, str):
        return (
            f"{key} has become a text, and the app would calculate with it: no quotes "
            "around numbers, true and false"
        )
    if isinstance(value, float):
        return f"{key} was a float and has become an int: 1.0 keeps its point"
    return f"{key} has become the {type(got).__name__} {got}"
