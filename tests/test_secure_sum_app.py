"""Lesson 13's Flower App: what it sums, what it refuses, and that one may die."""

import ast
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cryptography.exceptions import InvalidTag
from federation import imported_by, program_in
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from course_utils import flower_series
from course_utils.runtime import InProcessGrid, find_app_errors, run_in_process

ROOT = Path(__file__).parents[1]
APP = ROOT / "notebooks" / "secure-sum-app"
LESSON = ROOT / "notebooks" / "source" / "13_secure_aggregation.py"
SETTINGS = tomllib.loads((APP / "pyproject.toml").read_text(encoding="utf-8"))
DEFAULTS = SETTINGS["tool"]["flwr"]["app"]["config"]
sys.path.insert(0, str(APP))

from secure_sum import client_app, protocol, server_app, task  # noqa: E402

CLIENTS, THRESHOLD = 5, 3
START = np.zeros(task.SHAPE).ravel()
ACTIONS = ("keys", "shares", "masked", "unmask")


# ------------------------------------------------------------------- what it is made of


def definitions(path: Path) -> dict[str, str]:
    """Return a file's functions and classes, without docstrings and decorators."""
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            if ast.get_docstring(node):
                node.body = node.body[1:]
            node.decorator_list = []
            found[node.name] = ast.dump(node)
    return found


def test_the_lesson_teaches_what_the_app_has() -> None:
    taught, own = definitions(LESSON), {}
    for name in ("protocol", "client_app", "server_app"):
        own |= definitions(APP / "secure_sum" / f"{name}.py")
    both = taught.keys() & own.keys()
    for name in both:
        assert taught[name] == own[name], f"{name} differs"
    # What the lesson imports, and prints or describes
    imported = {"main", "wait_for_nodes", "Round", "require", "ask", "gather"}
    assert own.keys() - both == imported | {"exchange_keys", "find_me"}


def test_flower_takes_it_and_it_asks_for_the_flower_of_the_course(tmp_path) -> None:
    assert find_app_errors(SETTINGS) == []
    (asked,) = (s for s in SETTINGS["project"]["dependencies"] if "flwr" in s)
    assert asked == f"flwr~={flower_series()}.0"
    copy = shutil.copytree(APP, tmp_path / APP.name)
    built = subprocess.run(
        [Path(sys.executable).with_name("flwr"), "build", "--app", copy],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0 and list(tmp_path.glob("*.fab")), built.stdout


def test_it_imports_nothing_of_the_course_and_no_torch() -> None:
    installed = {"flwr", "numpy", "cryptography", "Crypto"}
    assert imported_by(APP) - {"secure_sum"} == installed


# ----------------------------------------------------------------------- what it sums


def own_model(number: int) -> tuple[np.ndarray, int]:
    images, labels = task.load_partition(number - 1, CLIENTS)
    return task.train(START, images, labels), len(labels)


def average(numbers: list[int]) -> tuple[np.ndarray, int]:
    """Return what FedAvg would make of some clients."""
    models, sizes = zip(*(own_model(number) for number in numbers), strict=True)
    return np.average(models, axis=0, weights=sizes), sum(sizes)


def lossy(lost: dict[int, str], **config: object) -> InProcessGrid:
    """Make a grid on which some clients fail at an action, by their numbers."""
    app = ClientApp()
    functions = (
        client_app.make_keys,
        client_app.share_secrets,
        client_app.train_and_mask,
        client_app.open_letters,
    )

    def failing(action: str, function: Callable) -> Callable:
        def call(message: Message, context: Context) -> Message:
            if lost.get(context.node_config["partition-id"] + 1) == action:
                raise ConnectionError("gone")
            return function(message, context)

        return call

    for action, function in zip(ACTIONS, functions, strict=True):
        app.train(action)(failing(action, function))
    settings = {"threshold": THRESHOLD, **config}
    options = {"seed": 0, "client_errors": "reply"}
    return InProcessGrid(app, CLIENTS, run_config=settings, **options)


def summed(grid: InProcessGrid) -> np.ndarray:
    return server_app.secure_sum(server_app.Round(grid, 1, THRESHOLD), START)


@pytest.mark.parametrize(
    "lost",
    [
        {},
        {1: "keys"},
        {2: "shares", 5: "shares"},
        {1: "masked", 4: "masked"},
        {3: "unmask", 5: "unmask"},
        {1: "keys", 3: "masked", 5: "unmask"},  # four, three, and then too few
        {2: "keys", 3: "masked"},
    ],
)
def test_the_sum_is_fedavgs_to_the_quantisation_step(lost) -> None:
    numbers = [n for n in range(1, 6) if lost.get(n) in (None, "unmask")]
    if len([n for n in numbers if n not in lost]) < THRESHOLD:
        with pytest.raises(RuntimeError, match="2 clients are fewer than threshold=3"):
            summed(lossy(lost))
        return
    model, examples = protocol.decode(summed(lossy(lost)))
    expected, count = average(numbers)
    assert examples == count
    bound = len(numbers) / 2 / protocol.SCALE / count
    assert abs(model - expected).max() <= bound * 1.001


def test_only_who_is_lost_at_masked_has_its_key_restored(capsys) -> None:
    summed(lossy({3: "unmask", 4: "masked"}))
    assert capsys.readouterr().out.splitlines() == [
        "masked: 4 of 5 clients have replied.",
        "unmask: 3 of 4 clients have replied.",
        "unmask: the private keys of [4] are restored.",
    ]


@pytest.mark.parametrize("action", ACTIONS)
def test_below_the_threshold_a_round_ends_in_words(action, capsys) -> None:
    lost = dict.fromkeys((1, 2, 4), action)
    with pytest.raises(RuntimeError) as caught:
        summed(lossy(lost))
    assert str(caught.value) == (
        f"2 clients are fewer than threshold=3: the round ends at {action!r}, and the "
        "server has learned no sum."
    )
    assert capsys.readouterr().out == f"{action}: 2 of 5 clients have replied.\n"


def test_a_whole_run_saves_the_model_of_fedavg(tmp_path, capsys) -> None:
    settings = {"num-server-rounds": 2, "results-dir": str(tmp_path)}
    settings |= {"min-available-nodes": CLIENTS}
    run_in_process(
        server_app.app,
        client_app.app,
        num_supernodes=CLIENTS,
        run_config=DEFAULTS | settings,
        progress=False,
    )
    model = START
    for _ in range(2):
        parts = [task.load_partition(i, CLIENTS) for i in range(CLIENTS)]
        models = [task.train(model, *part) for part in parts]
        model = np.average(models, axis=0, weights=[len(part[1]) for part in parts])
    assert abs(np.load(tmp_path / "model.npy") - model).max() < 1e-6
    assert "Round 2: 4000 examples in the sum" in capsys.readouterr().out


def test_the_wait_for_supernodes_ends_in_words(monkeypatch) -> None:
    monkeypatch.setattr(server_app.time, "sleep", lambda seconds: None)
    grid = SimpleNamespace(get_node_ids=lambda: [7])
    server_app.wait_for_nodes(grid, 1, 0)
    with pytest.raises(RuntimeError, match="1 of min-available-nodes=2 are online"):
        server_app.wait_for_nodes(grid, 2, 0.1)


# ------------------------------------------------------------------------- the integers


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=5), st.integers(1, 2**14 - 1))
def test_what_is_encoded_comes_back_to_half_a_step(weights, examples) -> None:
    model, count = protocol.decode(protocol.encode(np.array(weights), examples))
    assert count == examples
    half = 0.5 / protocol.SCALE / examples
    assert abs(model - np.array(weights)).max() <= half + 1e-12


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_refused(value) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        protocol.encode(np.array([value]), 3)


# -------------------------------------------------------------------- what is refused


def steps(grid: InProcessGrid) -> tuple[dict, dict, dict]:
    """Lead the first two steps; return the nodes, the keys and the letters."""
    this = server_app.Round(grid, 1, 1)
    nodes, keys = server_app.exchange_keys(this)
    written = server_app.ask(this, "shares", nodes, {n: keys for n in nodes})
    letters = {n: server_app.gather(written, "letters", str(n)) for n in written}
    return nodes, keys, letters


def error_of(grid: InProcessGrid, node: int, action: str, records: dict) -> str:
    message = Message(RecordDict(records), node, f"train.{action}")
    (reply,) = grid.send_and_receive([message])
    return reply.error.reason if reply.has_error() else ""


def masked_records(letters: ConfigRecord) -> dict:
    return {"model": server_app.ArrayRecord([START]), "letters": letters}


def test_a_masked_vector_looks_drawn_evenly_and_no_two_are_alike() -> None:
    encoded = protocol.encode(*own_model(1))
    publics = {n: protocol.key_pair()[1] for n in (2, 3)}
    masked = []
    for _ in range(2):
        private, _ = protocol.key_pair()
        mask = protocol.pairwise_mask(1, private, publics, len(encoded))
        masked.append(encoded + mask)

    def p_value(vector: np.ndarray) -> float:
        seen = np.frombuffer(vector.tobytes(), np.uint8)
        return chisquare(np.bincount(seen, minlength=256)).pvalue

    assert p_value(encoded) < 1e-300
    # By chance, less than once in a million runs
    assert all(p_value(v) > 1e-7 for v in (*masked, masked[0] - masked[1]))


def test_no_mask_serves_twice_and_nothing_is_opened_twice() -> None:
    grid = lossy({})
    nodes, keys, letters = steps(grid)
    assert "KeyError" in error_of(grid, nodes[1], "shares", keys)
    for node in nodes:
        records = masked_records(letters[node])
        assert not error_of(grid, nodes[node], "masked", records)
    assert "KeyError" in error_of(grid, nodes[1], "masked", masked_records(letters[1]))
    who = {"who": ConfigRecord({"survivors": [1, 2, 3]})}
    assert not error_of(grid, nodes[1], "unmask", who)
    who = {"who": ConfigRecord({"survivors": [3, 4, 5]})}
    assert "KeyError" in error_of(grid, nodes[1], "unmask", who)


@pytest.mark.parametrize(
    ("survivors", "opens"),
    [([1, 2, 3], True), ([1, 2], False), ([], False), ([1, 2, 9], False)],
)
def test_a_client_opens_no_letters_for_too_few_or_for_strangers(
    survivors, opens
) -> None:
    grid = lossy({})
    nodes, _, letters = steps(grid)
    assert not error_of(grid, nodes[1], "masked", masked_records(letters[1]))
    who = {"who": ConfigRecord({"survivors": survivors})}
    error = error_of(grid, nodes[1], "unmask", who)
    assert (error == "") == opens and ("too few" in error) != opens


@pytest.mark.parametrize(("threshold", "fits"), [(2, 0), (3, 1), (5, 1), (6, 0)])
def test_a_threshold_of_half_or_less_or_above_all_is_refused(threshold, fits) -> None:
    grid = lossy({}, threshold=threshold)
    nodes, keys = server_app.exchange_keys(server_app.Round(grid, 1, 1))
    error = error_of(grid, nodes[1], "shares", keys)
    assert error == "" if fits else f"threshold={threshold} is wrong for 5" in error


@pytest.mark.parametrize(
    ("threshold", "clients", "fits"),
    [(1, 1, 0), (2, 2, 0), (2, 3, 0), (3, 3, 1), (3, 5, 1), (3, 6, 0), (4, 3, 0)],
)
def test_no_sum_of_two_is_possible(threshold, clients, fits) -> None:
    assert client_app.fits(threshold, clients) == fits


def test_too_few_letters_and_too_many_examples_are_refused(monkeypatch) -> None:
    grid = lossy({})
    nodes, _, letters = steps(grid)
    two = ConfigRecord({n: letters[1][n] for n in ("1", "2")})
    error = error_of(grid, nodes[1], "masked", masked_records(two))
    assert "2 are fewer than the threshold" in error
    monkeypatch.setattr(client_app, "MOST_EXAMPLES", 1000)
    grid = lossy({})
    nodes, _, letters = steps(grid)
    error = error_of(grid, nodes[1], "masked", masked_records(letters[1]))
    assert "266 examples: the sum could overflow" in error


def test_a_client_whose_keys_were_swapped_notices() -> None:
    grid = lossy({})
    nodes, keys = server_app.exchange_keys(server_app.Round(grid, 1, 1))
    for kind in ("mask-keys", "letter-keys"):
        other = ConfigRecord({**keys[kind], "1": keys[kind]["2"]})
        error = error_of(grid, nodes[1], "shares", {**keys, kind: other})
        assert "My keys are not among those" in error


def test_a_letter_that_was_changed_or_is_for_another_is_refused() -> None:
    key = bytes(32)
    letter = protocol.seal(key, 1, 2, b"shares")
    assert protocol.unseal(key, 1, 2, letter) == b"shares"
    changed = letter[:-1] + bytes([letter[-1] ^ 1])
    for sender, receiver, text in ((2, 1, letter), (1, 3, letter), (1, 2, changed)):
        with pytest.raises(InvalidTag):
            protocol.unseal(key, sender, receiver, text)


# -------------------------------------------------------------------- on real processes


def test_a_supernode_killed_in_mid_round_leaves_the_sum_of_the_others(capsys) -> None:
    # What this block starts are real processes: Deployment() stands in the lesson.
    given = {"APP": APP, "np": np}
    exec(program_in(LESSON, "with Deployment() as"), given)
    models = [task.train(START, *task.load_partition(i, 4)) for i in range(3)]
    sizes = [400, 800, 1200]
    expected = np.average(models, axis=0, weights=sizes)
    assert abs(given["model"] - expected).max() <= 3 / 2 / protocol.SCALE / 2400 * 1.001
    said = capsys.readouterr().out
    assert "masked: 3 of 4 clients have replied." in said
    assert "Round 1: 2400 examples in the sum" in said
