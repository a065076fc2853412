"""Lesson 06's exercises."""

import json
import random
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import chdir, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import Result

from course_utils.exercises.engine import Attempt, Case, Exercise, Wrong, require_kind
from course_utils.runtime import find_app_errors

# -------------------------------------------------------------------- 6.1 run_settings

BASIC = {"num-server-rounds": 3, "lr": 0.01}
NESTED = {"lr": 0.01, "optimizer": {"name": "sgd", "lr": 0.5}}
FLAT = {"lr": 0.01, "optimizer.name": "sgd", "optimizer.lr": 0.5}
FALSE = {"verbose": False, "seed": 0, "tag": ""}


def flat(defaults: dict, name: str = "{}.{}") -> dict:
    """Return the defaults without tables in them."""
    tables = {k: v for k, v in defaults.items() if isinstance(v, dict)}
    inner = {name.format(t, k): v for t in tables for k, v in tables[t].items()}
    return {k: v for k, v in defaults.items() if k not in tables} | inner


def set_up(defaults: dict, overrides: dict) -> dict:
    """Return a run's settings: the oracle."""
    own = flat(defaults)
    known = own
    if not overrides.keys() <= known.keys():
        raise ValueError("There is a setting that the app does not have.")
    return own | overrides


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


SETTINGS = Exercise(
    "6.1",
    "you know which settings a run gets, and which it refuses.",
    cases=[
        Case(BASIC, {"lr": 0.1}, gives={"num-server-rounds": 3, "lr": 0.1}),
        Case(NESTED, {}, gives=FLAT),
        Case(NESTED, {"lr": 0.02}, gives=FLAT | {"lr": 0.02}),
        Case(NESTED, {"optimizer.name": "a"}, gives=FLAT | {"optimizer.name": "a"}),
        Case({"a": 1, "data": {}}, {"a": 2.5}, gives={"a": 2.5}),
        Case({"verbose": True, "seed": 7, "tag": "first"}, FALSE, gives=FALSE),
        Case(BASIC, {"learning-rate": 0.1}, gives=ValueError),
        Case(BASIC, {"lr": 0.1, "LR": 0.1}, gives=ValueError),
        Case(NESTED, {"optimizer.momentum": 0.9}, gives=ValueError),
        Case(NESTED, {"optimizer": "adam"}, gives=ValueError),
        Case(NESTED, {"name": "adam"}, gives=ValueError),
        Case({}, {"lr": 0.1}, gives=ValueError),
    ],
    draw=random_settings,
    oracle=set_up,
    mistakes="""
        False, 0 and '' are settings, too: ask whether the key is among the overrides,
        not whether its value is true
            own | overrides -> own | {k: v for k, v in overrides.items() if v}
        a table is still in it: Flower joins its name and each key in it by a dot
            own | overrides -> defaults | overrides
            own | overrides -> defaults | own | overrides
        the name of the table and the key in it are joined by a dot, as in optimizer.lr
            own | overrides -> flat(defaults, "{}-{}") | overrides
            own | overrides -> flat(defaults, "{}_{}") | overrides
            own | overrides -> flat(defaults, "{1}") | overrides
        each of these overrides has a default: look for its key among the flattened
        defaults
            known = own -> known = defaults
        the app has no such key, and would never read it: raise a ValueError, so that
        nobody takes a misspelt setting for set
            not overrides.keys() <= known.keys() -> False
            not overrides.keys() <= known.keys() -> False
            & own | overrides -> {k: overrides.get(k, v) for k, v in own.items()}
        this is the name of a table: flattened, the app has no key of that name, so
        raise a ValueError
            known = own -> known = defaults | own
        this key is in a table: the app knows it with the table's name before it, as in
        optimizer.lr, so raise a ValueError
            known = own -> known = own | flat(defaults, "{1}")
    """,
    otherwise="return the defaults, flattened to table.key, with the overrides on top",
)

# ---------------------------------------------------------------------------- 6.2 save

MODEL, METRICS = "final_model.pt", "metrics.json"
KINDS = {
    "train-by-clients": "train_metrics_clientapp",
    "evaluate-by-clients": "evaluate_metrics_clientapp",
    "evaluate-by-server": "evaluate_metrics_serverapp",
}
"""What metrics.json calls the metrics, and what a Result calls them."""
BY_CLIENTS, BY_SERVER = [*KINDS.values()][1:]


def play_saving(answer: Attempt, result: Result, before: dict | None) -> Iterator:
    """Let a result be saved, and yield what is in the files then."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as name, chdir(name):
        home, folder = Path(name), Path("a", "b")
        if before is not None:
            folder.mkdir(parents=True)
            for file, text in before.items():
                (folder / file).write_text(text)
        was, refused = contents(home), False
        try:
            answer(result, folder)
        except Wrong as wrong:
            refused = isinstance(wrong.raised, ValueError)
            if wrong.raised and refused == bool(result.arrays):
                more = "Refuse a result without arrays, and no other, by a ValueError"
                raise Wrong(f"{wrong}. {more}") from None
            if not refused:
                raise
        yield "refused", refused
        now = contents(home)
        changed = sorted(p for p in was | now if was.get(p) != now.get(p))
        yield "written" if result.arrays else "left by a failed run", changed
        if now.get(f"a/b/{MODEL}") and now.get(f"a/b/{METRICS}"):
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


def save(result: Result, folder: Path) -> None:
    """Save a result: the oracle."""
    if not result.arrays:
        raise ValueError("There is no model.")
    folder.mkdir(parents=True, exist_ok=True)
    state = result.arrays.to_torch_state_dict()
    torch.save(state, folder / MODEL)
    metrics = {}
    for kind, field in KINDS.items():
        rounds = {i: dict(r) for i, r in getattr(result, field).items()}
        metrics[kind] = rounds
    (folder / METRICS).write_text(json.dumps(metrics))


def saving(
    losses: list, before: dict | None, shown: str, *, without: str = "", **gives: Any
) -> Case:
    """Make the case of a run of as many rounds as there are losses."""
    rounds = {i: {"loss": x, "all": [x, 2.0]} for i, x in enumerate(losses, 1)}
    state = {"w": torch.tensor(losses), "n": torch.tensor([len(losses)])}
    metrics = dict.fromkeys(KINDS.values(), rounds)
    metrics[BY_CLIENTS] = {i: {"loss": i / 4} for i in rounds}
    metrics[BY_SERVER] = {i: {"loss": 3.0 - i} for i in (0, *rounds)}
    for kind, own in metrics.items():
        metrics[kind] = {i: MetricRecord(own[i]) for i in own if kind != without}
    return Case(Result(ArrayRecord(state), **metrics), before, shown=shown, gives=gives)


EARLY = {0: MetricRecord({"loss": 2.0})}
FAILED = Result(train_metrics_clientapp=EARLY, evaluate_metrics_serverapp=EARLY)
EARLIER = {MODEL: "old", METRICS: "{}", "notes": "not of a run"}
NO_FOLDER = "a folder that is not there, nor the one above it"

SAVING = Exercise(
    "6.2",
    "your run leaves a model that can be read back, or fails.",
    cases=[
        saving(
            *([0.5], None, NO_FOLDER),
            written=["a", "a/b", "a/b/final_model.pt", "a/b/metrics.json"],
            values={"w": [0.5], "n": [1]},
            **{
                "train-by-clients": {"1": {"loss": 0.5, "all": [0.5, 2.0]}},
                "evaluate-by-clients": {"1": {"loss": 0.25}},
                "evaluate-by-server": {"0": {"loss": 3.0}, "1": {"loss": 2.0}},
            },
        ),
        saving([0.5], {}, "no evaluation by clients", without=BY_CLIENTS),
        saving([0.5], {}, "no evaluation by the server", without=BY_SERVER),
        saving([0.75], EARLIER, "a folder with another run's files"),
        Case(FAILED, None, shown="no arrays, no folder", gives={"refused": True}),
        Case(FAILED, EARLIER, shown="no arrays, a folder with another run's files"),
    ],
    draw=lambda rng: saving([rng.random() for _ in range(12)], None, NO_FOLDER),
    play=play_saving,
    oracle=save,
    mistakes="""
        neither the folder nor that above it need be there: make both by
        folder.mkdir(parents=True, exist_ok=True)
            parents=True, ->
            folder.mkdir(parents=True, exist_ok=True) -> pass
            folder.mkdir(parents=True, exist_ok=True) -> (folder / MODEL).open("wb")
            folder.mkdir(parents=True, exist_ok=True) -> (folder / METRICS).open("w")
        the folder is there already when a run is repeated, and that is no error:
        folder.mkdir(parents=True, exist_ok=True)
            , exist_ok=True ->
        two runs stand one after another in metrics.json: write it anew, mode "w"
            .write_text(json.dumps(metrics)) -> .open("a").write(json.dumps(metrics))
        there are files in the working folder: write them to folder / name, and nowhere
        else
            folder.mkdir( -> folder = Path(); folder.mkdir(
            lambda result, folder: save(result, folder) or save(result, Path())
        json knows no MetricRecord: dict(record) makes a dictionary of one
            dict(r) -> r
        all three kinds of metrics are there, even where a run had none of a kind
            metrics[kind] = rounds -> metrics |= {kind: rounds} if rounds else {}
        this is the last round only: each kind holds all of them, by number
            [kind] = rounds -> [kind] = [{}, *rounds.values()][-1]
            [kind] = rounds -> [kind] = dict([*rounds.items()][-1:])
        the evaluations by clients and by the server are mixed up
            , field) -> , field.replace(BY_CLIENTS, BY_SERVER))
        all clients have failed, and this saves a run without a model: result.arrays is
        an empty ArrayRecord then (not None), so raise a ValueError if not result.arrays
            not result.arrays -> False
        nothing was written, and nobody is told: raise a ValueError, so that Flower
        counts the run as failed
            raise ValueError("There is no model.") -> return
    """,
    otherwise={
        "refused": "if all clients failed, raise a ValueError, and write nothing",
        "written": f"write {MODEL} and {METRICS} into folder, and nothing else",
        "run": "something was written before the error, if only a folder: look at "
        "result.arrays first, so that nothing of a failed run is taken for a result",
        "types": f"torch.load should find tensors in {MODEL}, named and typed as in "
        "result.arrays: torch.save(result.arrays.to_torch_state_dict(), ...) does it",
        "values": "these are not the values in result.arrays: is it this run's model?",
        "JSON": f"{METRICS} should hold a dictionary: write json.dumps(metrics), since "
        "str(metrics) is no JSON, and json.dumps of a text is a text",
        "kinds": f"{METRICS} should have the three keys, and no others",
        "": "each kind should hold the metrics of each round by its number, as {round: "
        "{metric: value}}: each record as a dictionary, each number as a number",
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
    defaults = app.get("config", {})
    yield "keys in [tool.flwr.app.config]", sorted(defaults)
    for key, value in sorted(defaults.items()):
        yield f"{key}: value", f"{type(value).__name__} {value!r}"


def in_toml(value: Any) -> str:
    """Write a value in TOML."""
    if isinstance(value, str):
        return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'
    return repr(value).lower() if isinstance(value, bool) else repr(value)


def write_app(name: str, module: str, config: dict) -> str:
    """Write an app's pyproject.toml: the oracle."""
    before, end = module + ".", ":app"
    server, client = "server_app", "client_app"
    lines = []
    for key, v in config.items():
        text = in_toml(v)
        lines.append(f"{key} = {text}")
    return f"""
        [project]
        name = "{name}"
        version = "2"
        [tool.flwr.app]
        publisher = "us"
        [tool.flwr.app.components]
        serverapp = "{before}{server}{end}"
        clientapp = "{before}{client}{end}"
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


PYPROJECT = Exercise(
    "6.3",
    "Flower takes your app, and its settings are those that you meant.",
    cases=[
        default(
            {"num-server-rounds": 3, "lr": 0.01},
            name="federated-digits",
            serverapp="federated_digits.server_app:app",
            clientapp="federated_digits.client_app:app",
            **{"lr: value": "float 0.01"},
        ),
        default({"scheme": "iid", "verbose": True, "centralized": False}),
        default({}, **{"keys in [tool.flwr.app.config]": []}),
        default({"momentum": 1.0, "tiny": 1e-05}, **{"tiny: value": "float 1e-05"}),
        default({"greeting": 'say "hi"'}, **{"greeting: value": "str 'say \"hi\"'"}),
        default({"folder": "C:\\new\\data", "tag": "it's", "blanks": " a  "}),
        default({"empty": "", "seed": 0, "flag": False}),
        default({"label": "3", "flag": "true"}, **{"label: value": "str '3'"}),
        default({"course": "kurs \U0001f338"}),
        # A module that is not called as the app is.
        Case("an-app", "digits", {}, gives={"serverapp": "digits.server_app:app"}),
    ],
    draw=random_app,
    play=play_app,
    oracle=write_app,
    mistakes=r"""
        TOML writes true and false in small letters, as json.dumps does
            in_toml(v) -> str(v) if type(v) is bool else in_toml(v)
        in TOML a text stands in quotes: json.dumps puts them
            in_toml(v) -> str(v)
        a text with quotes or backslashes in it breaks off too early, or is no text at
        all: json.dumps escapes them
            in_toml(v) -> '"' + v + '"' if type(v) is str else in_toml(v)
            in_toml(v) -> "'" + v + "'" if type(v) is str else in_toml(v)
        json.dumps has turned an emoji into two halves, which TOML refuses:
        ensure_ascii=False leaves it whole
            in_toml(v) -> json.dumps(v)
        this is the other app: serverapp and clientapp are mixed up
            server, client = -> client, server =
        a component is found by its module, not by the app's name, which may hold what
        no module's name may
            module + "." -> name + "."
            module + "." -> name.replace("-", "_") + "."
        the module lies in a package: put its name and a dot before it
            module + "." -> ""
        this is a file: name the module, with dots, as in an import
            module + ".", ":app" -> module + "/", ".py:app"
    """,
    otherwise={
        "name": "this is another name than the app's: it is the first argument",
        "texts": 'version and publisher should be texts, such as "1.0.0"',
        "app": "this does not lead to app in the package's module",
        "config]": "the keys of config should stand in [tool.flwr.app.config], all of "
        "them and no others",
        "value": "each default should arrive as what it is: a text has quotes, nothing "
        "else has, and a float keeps its point. json.dumps writes them so",
    },
)
