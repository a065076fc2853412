"""Every figure of the course, each followed by one line that says what it shows.

In a notebook the line unfolds into a text for those who do not see the figure, which is
the image's alternative text, too. No figure needs its colours: lines differ by dash and
marker, bars by hatching or by the number in them. Each function shows its figure with
the line and returns nothing.
"""

from collections.abc import Collection, Sequence
from html import escape

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from datasets import Dataset
from matplotlib.patches import FancyBboxPatch
from scipy.stats import norm

from course_utils.partitions import effective_num_classes, label_distance
from course_utils.runtime import Delivery

plt.rcParams.update(
    {
        "figure.dpi": 100,
        "figure.figsize": (7, 3.6),
        "figure.constrained_layout.use": True,
        "figure.constrained_layout.h_pad": 0.12,
        "figure.constrained_layout.w_pad": 0.12,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.size": 10,
    }
)

CARD = "#E4E7EA"
"""What a figure stands on, whatever the theme: in a dark one, white would glare."""

# Told apart by the colour-blind (Okabe and Ito, 2008), and in grey by dash and marker,
# or by hatching, which would not show on the last colour, black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINES = ("-", "--", "-.", ":", (0, (1, 4)), (0, (8, 2)), (0, (5, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "x")
HATCHES = ("", "///", "...", "xx", "---", "++", "")

# Ten labels, each unlike its neighbours in a bar, also in grey. (petroff10 in another
# order: Petroff, 2021, https://arxiv.org/abs/2107.02270.)
LABEL_COLOURS = (
    *("#E76300", "#832DB6", "#3F90DA", "#92DADD", "#A96B59"),
    *("#FFA90E", "#717581", "#B9AC70", "#BD1F01", "#94A4A2"),
)
WHITE_INK = ("#832DB6", "#BD1F01")
"""The label colours on which a white number is readable, and a black one is not."""

YOURS = "#BBD7EE"
"""A learner's own programs: in grey, too, darker than those of Flower."""

MOST_CLIENTS = 50
"""Of more clients, label bars show a sample: thousands would take minutes to draw."""

MODEL_BYTES = 10_000
"""From this size on, a message in the course carries a model."""


def draw_loop() -> None:
    """Draw the four steps of a round of federated learning."""
    figure, axes = plt.subplots(figsize=(8, 3.9))
    axes.set(xlim=(0, 16), ylim=(0, 8))
    axes.axis("off")

    _box(axes, 4.4, 6.2, 7.2, 1.5, fc="#DDEEFF")
    axes.text(
        8, 7.2, "Server: the global model", ha="center", va="center", weight="bold"
    )
    axes.text(
        8, 6.6, "④ averages, weighted by number of examples", ha="center", va="center"
    )
    for x, name in ((0.4, "Client 0"), (6, "Client 1"), (11.6, "Client 2")):
        _box(axes, x, 0.5, 4, 2.2, fc="#F4F4F4")
        axes.text(x + 2, 2.3, name, ha="center", va="center", weight="bold")
        axes.text(x + 2, 1.65, "② trains on its own data", ha="center", va="center")
        _box(axes, x + 0.9, 0.65, 2.2, 0.5)
        axes.text(x + 2, 0.9, "data stays", ha="center", va="center", style="italic")
        middle = 8 + (x - 6) * 0.42
        _arrow(axes, (middle - 0.25, 6.0), (x + 1.75, 2.95))
        _arrow(axes, (x + 2.25, 2.95), (middle + 0.25, 6.0), ls="--")
    axes.text(0.2, 5.2, "① sends parameters\n(solid arrows)", ha="left", va="center")
    axes.text(
        15.9, 5.2, "③ send parameters back\n(dashed arrows)", ha="right", va="center"
    )
    _show(
        figure,
        "a server with the global model above three clients. Step 1: the server sends "
        "parameters to every client. Step 2: each client trains on its own data, which "
        "stay with it. Step 3: each sends parameters back. Step 4: the server averages "
        "them, weighted by number of examples.",
        "one round of federated learning, in four steps",
    )


def plot_curves(
    curves: dict[str, Sequence[float]],
    *,
    xlabel: str = "round",
    ylabel: str = "test accuracy",
    levels: dict[str, float] | None = None,
    start: int = 0,
    lowest: float = 0.0,
) -> None:
    """Plot one line for each name, over rounds.

    Parameters
    ----------
    curves : dict[str, Sequence[float]]
        Values by name, one for each round.
    xlabel, ylabel : str
        What the axes show, with units.
    levels : dict[str, float], optional
        Single values to compare with, drawn as horizontal lines.
    start : int
        Round of the first value.
    lowest : float
        Where an axis of accuracies begins. What lies below it is cut off.

    Raises
    ------
    ValueError
        If there are more than seven curves, or levels.
    """
    levels = levels or {}
    _require_few(curves)
    _require_few(levels)
    figure, axes = plt.subplots()
    styles = zip(COLOURS, LINES, MARKERS, strict=True)
    for (name, values), style in zip(curves.items(), styles, strict=False):
        colour, line, marker = style
        rounds = range(start, start + len(values))
        style = {"ls": line, "color": colour, "marker": marker, "ms": 4}
        axes.plot(rounds, values, label=name, **style)
    for (name, value), line in zip(levels.items(), LINES[::-1], strict=False):
        axes.axhline(value, color="black", ls=line, lw=1, label=name)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if "accuracy" in ylabel:
        axes.set_ylim(lowest, 1)
    axes.xaxis.get_major_locator().set_params(integer=True, steps=[1, 5, 10])
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    lines = [f"{name}: {_way(values, start)}" for name, values in curves.items()]
    lines += [f"level line {name}: {_number(value)}" for name, value in levels.items()]
    last = {name: values[-1] for name, values in curves.items()} | levels
    ends = ", ".join(f"{name} {_number(value)}" for name, value in last.items())
    _show(
        figure,
        f"{ylabel} by {xlabel}. {'; '.join(lines)}.",
        f"{ylabel} at the end: {ends}",
    )


def plot_intervals(
    table: pd.DataFrame,
    *,
    by: str,
    live: pd.DataFrame | None = None,
    metric: str = "accuracy",
    x: str = "round",
    xlabel: str = "",
    ylabel: str = "test accuracy",
    logx: bool = False,
    lowest: float = 0.0,
) -> None:
    """Plot many seeds of some settings: their median, and where nine of ten lie.

    Parameters
    ----------
    table : pd.DataFrame
        Runs of many seeds, as ``course_utils.experiments.run_table`` returns them.
    by : str
        The column that tells the lines apart.
    live : pd.DataFrame, optional
        A few seeds of the same settings, drawn over the others as thin lines.
    metric : str
        Which metric of the table to plot.
    x : str
        The column along the horizontal axis: the round, a setting, or one of your own.
    xlabel, ylabel : str
        What the axes show, with units. ``xlabel`` is ``x`` unless given.
    logx : bool
        Whether the horizontal axis is logarithmic.
    lowest : float
        Where an axis of accuracies begins. What lies below it is cut off.

    Raises
    ------
    ValueError
        If there are more than seven lines.
    """
    table = table[table.metric == metric]
    names = sorted(table[by].unique().tolist())
    _require_few(names)
    figure, axes = plt.subplots()
    lines, ends = [], {}
    styles = zip(COLOURS, LINES, MARKERS, strict=True)
    for name, (colour, line, marker) in zip(names, styles, strict=False):
        values = table[table[by] == name].groupby(x).value
        low, middle, high = (values.quantile(q) for q in (0.05, 0.5, 0.95))
        style = {"color": colour, "ls": line, "marker": marker}
        axes.fill_between(middle.index, low, high, color=colour, alpha=0.2, lw=0)
        axes.plot(middle.index, middle, label=str(name), ms=4, **style)
        bands = pd.DataFrame({"low": low, "middle": middle, "high": high})
        lines.append(f"{name}: {', '.join(_bands(bands))}")
        ends[name] = middle.iloc[-1]
        if live is None:
            continue
        own = live[(live.metric == metric) & (live[by] == name)]
        for seed, run in own.groupby("seed"):
            axes.plot(run[x], run.value, ms=2, lw=0.7, **style)
            lines.append(
                f"run here, {name}, seed {seed}: {_number(run.value.iloc[-1])}"
            )
    if live is not None:
        axes.plot([], color="black", lw=0.7, label="thin: run here")
    if logx:
        axes.set_xscale("log")
        places = sorted(table[x].unique())
        if len(places) < 9 and places[-1] < 100 * places[0]:  # hardly a power of ten
            axes.set_xticks(places, [f"{place:g}" for place in places])
            axes.minorticks_off()
    elif x == "round":
        axes.xaxis.get_major_locator().set_params(integer=True, steps=[1, 2, 5, 10])
    axes.set(xlabel=xlabel or x, ylabel=ylabel)
    if "accuracy" in ylabel:
        axes.set_ylim(lowest, 1)
    axes.grid(alpha=0.3)
    place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    axes.legend(frameon=False, title=by.replace("_", " "), **place)
    seeds = table.seed.nunique()
    least, most = min(ends, key=ends.get), max(ends, key=ends.get)
    _show(
        figure,
        f"{ylabel} by {xlabel or x}, {seeds} seeds each: the band in which nine of ten "
        f"runs lie, and the median. {'; '.join(lines)}.",
        f"medians at the end, from {_number(ends[least])} ({least}) to "
        f"{_number(ends[most])} ({most})",
    )


def plot_label_counts(counts: np.ndarray, *, title: str = "") -> None:
    """Plot how many examples of each label every client has, as stacked bars.

    Of more clients than a figure has room for, it draws a sample, and says so.

    Parameters
    ----------
    counts : np.ndarray
        Label counts of shape ``(clients, labels)``.
    title : str
        How the data was shared out.
    """
    title = title or "label counts"
    clients = len(counts)
    if clients > MOST_CLIENTS:
        drawn = np.random.default_rng(0).choice(clients, MOST_CLIENTS, replace=False)
        counts = counts[np.sort(drawn)]
        title += f" ({MOST_CLIENTS} of {clients} clients, drawn and numbered anew)"
    plot_label_panels({title: counts})


def plot_skew(counts_by_name: dict[str, np.ndarray]) -> None:
    """Plot the two numbers of the skew, client by client, for several splits.

    Parameters
    ----------
    counts_by_name : dict[str, np.ndarray]
        Label counts of shape ``(clients, labels)`` by name of the split.
    """
    names = list(counts_by_name)
    height = 0.8 + 0.5 * len(names)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, height), sharey=True)
    measures = (
        (left, label_distance, "label distance from the whole (0–1)"),
        (right, effective_num_classes, "effective number of labels"),
    )
    for axes, measure, xlabel in measures:
        for row, name in enumerate(names):
            values = measure(counts_by_name[name])
            # The first client on top, so that no circle covers another.
            places = row + np.linspace(-0.3, 0.3, len(values))
            axes.plot(values, places, "o", ms=3, mfc="white", color="black")
            axes.plot(
                values.mean(), row, "|", ms=33, mew=2.5, color=COLOURS[1], zorder=1
            )
            axes.axhline(row + 0.5, color="black", lw=0.5, alpha=0.3)
        axes.set(xlabel=xlabel)
        axes.set_xlim(0, 1.04 * axes.get_xlim()[1])
        axes.grid(alpha=0.3, axis="x")
    left.set_yticks(range(len(names)), names)
    left.set_ylim(len(names) - 0.5, -0.5)
    lines = []
    for name, counts in counts_by_name.items():
        distance, labels = label_distance(counts), effective_num_classes(counts)
        lines.append(
            f"{name} {_number(distance.mean())} ({_range(distance)}) and "
            f"{_number(labels.mean(), 1)} ({_range(labels, 1)})"
        )
    _show(
        figure,
        "circles are clients, bars are means. Mean label distance and effective number "
        f"of labels, in brackets the clients' range: {'; '.join(lines)}.",
        "circles are clients, client 0 on top; bars are means",
    )


def plot_samples(partitions: list[Dataset], *, per_client: int = 10) -> None:
    """Show some images of every client, a row each, taken at equal steps.

    Parameters
    ----------
    partitions : list[Dataset]
        One dataset a client, with the columns ``image`` and ``label``.
    per_client : int
        Images in a row.
    """
    rows = len(partitions)
    figure, grid = plt.subplots(
        rows, per_client, figsize=(0.6 * per_client + 1, 0.62 * rows), squeeze=False
    )
    shown = []
    for client, (part, row) in enumerate(zip(partitions, grid, strict=True)):
        picks = np.linspace(0, len(part) - 1, min(per_client, len(part))).astype(int)
        examples = part[picks.tolist()]
        for axes in row:
            axes.axis("off")
        for axes, image in zip(row, examples["image"], strict=False):
            axes.imshow(image, cmap="gray")
        row[0].set_title(f"client {client}", fontsize=8, loc="left", pad=2)
        shown.append(f"client {client}: {', '.join(map(str, examples['label']))}")
    _show(
        figure,
        f"images, a row for each client. Their labels: {'; '.join(shown)}.",
        f"images of each client, taken at {per_client} equal steps",
    )


def plot_traffic(messages: list[Delivery], node_ids: Sequence[int]) -> None:
    """Draw who sent what to whom: one column a client, time runs down.

    Parameters
    ----------
    messages : list[Delivery]
        The record of messages of a run.
    node_ids : Sequence[int]
        The nodes in the order of their partition ids.
    """
    column = {node: i for i, node in enumerate(node_ids)}
    steps = list(dict.fromkeys((m.round, m.type) for m in messages))
    kinds = list(dict.fromkeys(m.type for m in messages))
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.35 * len(steps)))
    for row, step in enumerate(steps):
        for m in messages:
            if (m.round, m.type) != step:
                continue
            client = column[m.source if m.is_reply else m.destination]
            kind = kinds.index(m.type)
            marker = "X" if m.error else "^" if m.is_reply else "v"
            shift = 0.18 if m.is_reply else -0.18
            axes.plot(
                client + shift,
                row,
                marker,
                color=COLOURS[kind],
                ms=8,
                mfc="white" if m.bytes < MODEL_BYTES else COLOURS[kind],
            )
    axes.set_yticks(range(len(steps)), [f"round {r}: {kind}" for r, kind in steps])
    axes.set_xticks(range(len(column)), [f"client {i}" for i in range(len(column))])
    axes.set_ylim(len(steps) - 0.5, -0.6)
    axes.set_xlim(-0.5, len(column) - 0.5)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(alpha=0.3)
    axes.set_title(
        "▼ to the client   ▲ back to the server   ✖ error   filled: 10 kB or more, "
        "carries a model",
        fontsize=9,
        loc="left",
    )
    lines = [_step(messages, step, column) for step in steps]
    lines += [_load(messages, kind) for kind in kinds]
    down = sum(m.bytes for m in messages if not m.is_reply)
    up = sum(m.bytes for m in messages if m.is_reply)
    failed = sum(m.error is not None for m in messages)
    line = (
        f"{len(messages)} messages, {down / 1e6:.2f} MB to the clients and "
        f"{up / 1e6:.2f} MB back, errors: {failed}"
    )
    _show(figure, f"{line}. {'; '.join(lines)}.", line)


def plot_client_bars(
    values_by_name: dict[str, Sequence[float]], *, ylabel: str = "accuracy"
) -> None:
    """Plot one bar for each client, side by side for several runs.

    Parameters
    ----------
    values_by_name : dict[str, Sequence[float]]
        One value a client by name of the run.
    ylabel : str
        What the bars show, with units.

    Raises
    ------
    ValueError
        If there are more than seven runs.
    """
    _require_few(values_by_name)
    figure, axes = plt.subplots()
    width = 0.8 / len(values_by_name)
    for i, (name, values) in enumerate(values_by_name.items()):
        places = np.arange(len(values)) + (i - (len(values_by_name) - 1) / 2) * width
        axes.bar(
            places,
            values,
            width,
            label=name,
            color=COLOURS[i],
            ec="black",
            hatch=HATCHES[i],
            alpha=0.8,
        )
    axes.set(xlabel="client", ylabel=ylabel)
    axes.set_xticks(range(len(values)))
    if "accuracy" in ylabel:
        axes.set_ylim(0, 1)
    if len(values_by_name) > 1:
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    lines = [
        f"{name} from {_range(values)}: {', '.join(map(_number, values))}"
        for name, values in values_by_name.items()
    ]
    ranges = [f"{name} {_range(values)}" for name, values in values_by_name.items()]
    _show(
        figure,
        f"{ylabel}, client by client. {'; '.join(lines)}.",
        f"lowest to highest client: {', '.join(ranges)}",
    )


def draw_apps() -> None:
    """Draw where a ServerApp and ClientApps run, and what carries their messages."""
    figure, axes = _diagram(16.8, 8.8)

    def machine(x: float, y: float, width: float, height: float, name: str) -> None:
        _box(axes, x, y, width, height, ls="--")
        axes.text(x, y + height - 0.2, name, va="center", style="italic", fontsize=9)

    def arrow(start: tuple[float, float], end: tuple[float, float], tip: str) -> None:
        _arrow(axes, start, end, arrowstyle=tip, shrinkA=0, shrinkB=0)

    machine(0.3, 6.4, 10.7, 2.1, "server")
    _program(axes, (0.5, 6.6, 4.2, 1.2), "ServerApp", "leads one run", YOURS)
    _program(axes, (6.0, 6.6, 4.8, 1.2), "SuperLink", "passes messages on")
    arrow((4.85, 7.2), (5.85, 7.2), "<|-|>")
    for client, x in enumerate((0.3, 6.0, 11.7)):
        machine(x, 0.3, 4.8, 4.2, f"client {client}")
        place = x + 0.2, 2.7, 4.4, 1.2
        _program(axes, place, "SuperNode", "fetches messages, replies")
        _program(axes, (x + 0.2, 0.5, 2.6, 1.2), "ClientApp", "one message", YOURS)
        _box(axes, x + 3.5, 0.6, 1.1, 1.0, ls=":")
        axes.text(x + 4.05, 1.1, "data", ha="center", va="center", style="italic")
        arrow((x + 1.5, 1.85), (x + 1.5, 2.55), "<|-|>")
        arrow((x + 3.35, 1.1), (x + 2.95, 1.1), "-|>")
        arrow((x + 2.4, 4.05), (8.4 + (client - 1) * 1.6, 6.45), "-|>")
    axes.plot((0.1, 16.7), (5.55, 5.55), ":", color="black", lw=1)
    axes.text(0.1, 5.8, "network", va="center", fontsize=9)
    axes.text(8.6, 5.1, "calls for messages", va="center", fontsize=9)
    legend = (
        ("your code", YOURS, "-"),
        ("Flower's program", "white", "-"),
        ("one machine", "white", "--"),
    )
    for row, (meaning, colour, dash) in enumerate(legend):
        _box(axes, 12.4, 7.95 - 0.8 * row, 0.7, 0.3, fc=colour, ls=dash)
        axes.text(13.4, 8.1 - 0.8 * row, meaning, va="center", fontsize=9)
    _show(
        figure,
        "four machines, a server and clients 0 to 2, with a network between. On the "
        "server your ServerApp leads one run and exchanges messages with Flower's "
        "SuperLink, which passes them on. On each client Flower's SuperNode fetches "
        "messages and replies; it hands each to your ClientApp, which reads the data "
        "there. Across the network, SuperNodes call the SuperLink for messages, and "
        "nothing else crosses it.",
        "where a ServerApp and its ClientApps run, and what carries their messages",
    )


def draw_simulation() -> None:
    """Draw the processes of one simulated run, and who starts whom."""
    figure, axes = _diagram(16.8, 5.8)
    programs = {
        "flwr run": ((0.2, 3.6, 2.4, 1.4), "packs the app"),
        "SuperLink": ((4.4, 3.6, 3.0, 1.4), "keeps runs, logs"),
        "SuperExec": ((4.4, 0.6, 3.0, 1.4), "asks for work"),
        "flwr-simulation": ((9.2, 0.6, 3.5, 1.4), "your ServerApp", YOURS),
        "Ray worker": ((14.0, 0.6, 2.6, 1.4), "your ClientApp", YOURS),
        "Ray worker ": ((14.0, 3.6, 2.6, 1.4), "your ClientApp", YOURS),
    }
    for name, (place, *rest) in programs.items():
        _program(axes, place, name, *rest)
    arrows = (
        ((2.75, 4.3), (4.25, 4.3), "-", "sends\nthe app", (3.5, 5.2)),
        ((5.3, 3.45), (5.3, 2.15), "-", "starts", (4.7, 2.8)),
        ((6.5, 2.15), (6.5, 3.45), "--", "every second", (8.0, 2.8)),
        ((7.55, 1.3), (9.05, 1.3), "-", "starts\nfor a run", (8.3, 0.1)),
        ((12.85, 1.3), (13.85, 1.3), "-", "starts", (13.35, 0.7)),
        ((12.2, 2.15), (13.85, 4.0), "-", "starts", (12.6, 3.4)),
    )
    for start, end, dash, what, place in arrows:
        _arrow(axes, start, end, ls=dash)
        axes.text(*place, what, ha="center", va="center", fontsize=9)
    _show(
        figure,
        "the processes of a simulated run. The command flwr run packs the app and "
        "sends it to the SuperLink. The SuperLink has started a helper, the SuperExec, "
        "which asks it every second for work. For each run the SuperExec starts a "
        "process flwr-simulation, with your ServerApp. That starts Ray's workers, and "
        "each of them runs your ClientApp.",
        "the processes of a simulated run, and who starts whom",
    )


def draw_silence() -> None:
    """Draw when the server hears of clients that reply, raise, die or hang."""
    figure, axes = plt.subplots(figsize=(8.4, 3.4))
    trains, deadline, offline, end = 10, 20, 60, 78
    axes.text(trains / 2, 0, "trains", ha="center", va="center", fontsize=9)
    rows = {
        "replies": (trains, "a result"),
        "raises": (4, "an error reply: a failure"),
        "dies": (5 + offline - 12, "an error reply\nby the SuperLink"),
    }
    for row, (name, (told, what)) in enumerate(rows.items()):
        works = 5 if name == "dies" else told
        axes.barh(-row, works, height=0.4, color=COLOURS[4])
        marker = "o" if name == "replies" else "X"
        axes.plot(told, -row, marker, color="black", ms=8)
        axes.text(told + 2, -row, what, va="center", fontsize=9)
    axes.barh(-3, 5, height=0.4, color=COLOURS[4])
    axes.plot([deadline] * 2, [-2.6, -3.4], "--", color="black")
    what = "the deadline: the round ends, and the server has heard nothing"
    axes.text(deadline + 2, -3, what, va="center", fontsize=9)
    axes.plot(-7, -2, "|", color="black", ms=12)
    axes.text(-7, -1.6, "last heartbeat", ha="left", va="center", fontsize=9)
    style = {"arrowstyle": "<->", "color": "black", "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (-7, -2.35), (offline - 7, -2.35), arrowprops=style)
    axes.text(24, -2.2, "60 seconds without one", va="center", fontsize=9)
    axes.set_yticks(range(0, -4, -1), [f"client {name}" for name in [*rows, "hangs"]])
    axes.set(xlim=(-9, end), ylim=(-3.6, 0.5), xlabel="seconds since the message")
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.tick_params(left=False)
    _show(
        figure,
        "what the server hears of four clients, over the seconds since the message. "
        "Client replies: it trains, then its result comes. Client raises: an error "
        "reply comes at once, a failure. Client dies: its last heartbeat was before, "
        "and 60 seconds after that the SuperLink writes an error reply, a failure. "
        "Client hangs: the deadline ends the round, and the server has heard nothing.",
        "what the server hears of clients that reply, raise, die and hang",
    )


def draw_secure_round() -> None:
    """Draw the four steps of a round of secure aggregation, as messages."""
    figure, axes = _diagram(16.8, 9.4)
    for x, name in ((0.3, "server"), (11.3, "each client")):
        _box(axes, x, 8.3, 5.2, 0.8, fc="#DDEEFF")
        place = {"ha": "center", "va": "center", "weight": "bold"}
        axes.text(x + 2.6, 8.7, name, **place)
        axes.plot((x + 2.6, x + 2.6), (0.2, 8.2), ":", color="black", lw=1)
    steps = [
        ("train.keys", "", "two public keys", "passes the keys on"),
        (
            "train.shares",
            "all public keys",
            "a sealed letter to each",
            "passes them on",
        ),
        ("train.masked", "model, sealed letters", "a masked vector", "adds them up"),
        ("train.unmask", "whose came", "one share of each client", "takes masks off"),
    ]
    for row, (kind, down, up, then) in enumerate(steps):
        y = 7.5 - 1.95 * row
        place = {"ha": "center", "va": "bottom"}
        axes.text(8.4, y + 0.08, f"{kind}: {down}".rstrip(": "), **place)
        _arrow(axes, (3.1, y), (13.7, y), arrowstyle="-|>")
        axes.text(8.4, y - 0.72, up, **place)
        _arrow(axes, (13.7, y - 0.8), (3.1, y - 0.8), arrowstyle="-|>", ls="--")
        axes.text(2.8, y - 0.8, then, ha="right", va="center", fontsize=9)
    axes.text(3.1, 0.2, "The server cannot read what is sealed or masked.", fontsize=9)
    words = [
        f"{kind}{f' with {down}' if down else ''}, back comes {up}, the server {then}"
        for kind, down, up, then in steps
    ]
    _show(
        figure,
        "four messages go from the server to each client, and a reply comes back to "
        f"each. {'; '.join(words)}. The server cannot read what is sealed or masked.",
        "a round of secure aggregation, in four messages and their replies",
    )


def plot_weights(models: dict[str, np.ndarray]) -> None:
    """Show what models hold for each label as pictures, a row for each model.

    Parameters
    ----------
    models : dict[str, np.ndarray]
        By name, weights of shape ``(height * width, labels)`` of square pictures.
    """
    labels = next(iter(models.values())).shape[1]
    size = (0.6 * labels + 1, 0.85 * len(models))
    figure, grid = plt.subplots(len(models), labels, figsize=size, squeeze=False)
    likeness = []
    for (name, weights), row in zip(models.items(), grid, strict=True):
        side = round(len(weights) ** 0.5)
        pictures = weights.T.reshape(labels, side, side)
        for axes, picture in zip(row, pictures, strict=True):
            axes.axis("off")
            axes.imshow(picture, cmap="gray")
        row[0].set_title(name, fontsize=8, loc="left", pad=2)
        # Where a picture shows something, neighbouring pixels are alike.
        pairs = pictures[:, :, 1:].ravel(), pictures[:, :, :-1].ravel()
        alike = round(np.corrcoef(*pairs)[0, 1], 1) + 0.0  # no -0.0
        likeness.append(f"{name} {_number(alike, 1)}")
    _show(
        figure,
        f"weights as pictures, a row for each model, labels 0 to {labels - 1}. How far "
        "neighbouring pixels are alike (1: a picture, 0: noise): "
        f"{', '.join(likeness)}.",
        "weights as pictures; neighbouring pixels alike, 0 to 1, in the text",
    )


def plot_ranges(
    table: pd.DataFrame,
    *,
    by: str,
    round: int | None = None,
    metric: str = "accuracy",
    xlabel: str = "test accuracy",
    logx: bool = False,
    reference: tuple[str, float] | None = None,
) -> None:
    """Plot one row a setting: the median of many seeds, and where nine of ten lie.

    Parameters
    ----------
    table : pd.DataFrame
        Runs of many seeds, as ``course_utils.experiments.run_table`` returns them.
    by : str
        The column that names the rows.
    round : int, optional
        Which round. None where a run has one number, and no rounds.
    metric : str
        Which metric of the table.
    xlabel : str
        What the axis shows, with units.
    logx : bool
        Whether the axis is logarithmic. Values below 0.0001 are drawn there.
    reference : tuple[str, float], optional
        The name and the value of what the rows are held against: an upright line.
    """
    rows = table[(table.metric == metric) & (table["round"] == (round or 0))]
    names = list(dict.fromkeys(rows[by]))
    figure, axes = plt.subplots(figsize=(7, 1 + 0.32 * len(names)))
    lines, digits = [], 4 if logx else 2
    for row, name in enumerate(names):
        values = rows[rows[by] == name].value
        values = values.clip(lower=1e-4) if logx else values
        low, middle, high = values.quantile([0.05, 0.5, 0.95])
        axes.plot((low, high), (row, row), color=COLOURS[0], lw=3)
        axes.plot(values, [row + 0.25] * len(values), "|", color="black", ms=4)
        axes.plot(middle, row, "o", color="black", ms=6)
        between = _range((low, high), digits)
        lines.append(f"{name} {_number(middle, digits)} ({between})")
    if rows.value.min() < 0:
        axes.axvline(0, color="black", lw=1)
    if reference:
        name, value = reference
        axes.axvline(value, color="black", lw=1, ls=":", label=name)
        axes.legend(frameon=False, loc="lower left")
        lines.append(f"upright line: {name} {_number(value, digits)}")
    if logx:
        axes.set_xscale("log")
    axes.set(xlabel=xlabel, ylim=(len(names) - 0.5, -0.5))
    axes.set_yticks(range(len(names)), names)
    axes.grid(alpha=0.3, axis="x")
    seeds = rows.seed.nunique()
    when = "" if round is None else f" in round {round}"
    _show(
        figure,
        f"{xlabel}{when}, of {seeds} seeds each: median, and in brackets "
        f"where nine of ten runs lie. {'; '.join(lines)}.",
        f"circles: medians of {seeds} seeds; bars: nine of ten; strokes: single runs",
    )


def plot_bells(noise: Sequence[float]) -> None:
    """Plot a noisy sum without a client and with it, for some noise multipliers.

    Parameters
    ----------
    noise : Sequence[float]
        The noise multipliers: the noise's standard deviation, as a multiple of the most
        that a client can move the sum.
    """
    figure, panels = plt.subplots(
        1, len(noise), figsize=(8, 2.8), squeeze=False, sharex=True
    )
    lines = []
    for axes, z in zip(panels[0], noise, strict=True):
        x = np.linspace(-3, 4, 281)
        for mean, name in enumerate(("without you", "with you")):
            style = {"color": COLOURS[mean], "ls": LINES[mean]}
            axes.plot(x, norm.pdf(x, mean, z), label=name, **style)
        axes.axvline(0.5, color="black", lw=1, ls=":", label="the best guess")
        right = norm.cdf(0.5 / z)
        axes.set_title(f"z = {z:g}: right in {100 * right:.0f} of 100", fontsize=10)
        axes.set(xlabel="noisy sum, in units of C", yticks=[], ylim=(0, None))
        lines.append(f"z = {z:g}, right in {100 * right:.0f} of 100")
    handles = axes.get_legend_handles_labels()
    style = {"ncols": 3, "borderaxespad": 1.5, "frameon": False}
    figure.legend(*handles, loc="outside lower center", **style)
    _show(
        figure,
        "two bell curves of equal width, the sum without a client around 0 and the sum "
        "with it around 1, for each noise multiplier. The best guess is a line in the "
        f"middle, at 0.5. {'; '.join(lines)}.",
        "; ".join(lines),
    )


def plot_offers(
    tables: dict[str, pd.DataFrame],
    levels: dict[str, float],
    *,
    xlabel: str = "accuracy",
) -> None:
    """Plot what each client gets of several offers: medians, and nine of ten seeds.

    Parameters
    ----------
    tables : dict[str, pd.DataFrame]
        By client, one row a seed and one column an offer, as
        ``course_utils.experiments.by_seed`` returns them. All with the same columns.
    levels : dict[str, float]
        By client, a value to compare with, such as its base rate.
    xlabel : str
        What the axis shows, with units.
    """
    offers = list(next(iter(tables.values())))
    figure, (panels,) = plt.subplots(
        1,
        len(tables),
        figsize=(9, 1.4 + 0.3 * len(offers)),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    lines = []
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        words = []
        for row, offer in enumerate(offers):
            low, middle, high = table[offer].quantile([0.05, 0.5, 0.95])
            axes.plot((low, high), (row, row), color=COLOURS[0], lw=3)
            axes.plot(middle, row, "o", color="black", ms=6)
            words.append(
                f"{offer} {_number(middle)} ({_number(low)} to {_number(high)})"
            )
        axes.axvline(levels[name], color="black", ls="--", lw=1)
        axes.set_title(name, loc="left", fontsize=10)
        axes.grid(alpha=0.3, axis="x")
        lines.append(f"{name}, dashed {_number(levels[name])}: {', '.join(words)}")
    panels[0].set_yticks(range(len(offers)), offers)
    panels[0].set_ylim(len(offers) - 0.5, -0.5)
    figure.supxlabel(f"{xlabel} (dashed: base rate)", fontsize=10)
    seeds = len(table)
    _show(
        figure,
        f"{xlabel} by client, of {seeds} seeds: median, and in brackets where nine of "
        f"ten lie. {'; '.join(lines)}.",
        f"circles: medians of {seeds} seeds; bars: nine of ten; dashed: base rate",
    )


def plot_paths(
    paths: dict[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    """Plot where the global model goes, and where clients go from it in each round.

    Parameters
    ----------
    paths : dict[str, tuple[np.ndarray, np.ndarray]]
        By title, the global models in two dimensions, of shape ``(rounds + 1, 2)``,
        and the clients' models, of shape ``(rounds, clients, 2)``.
    """
    figure, (panels,) = plt.subplots(
        1, len(paths), figsize=(8, 3.8), squeeze=False, sharex=True, sharey=True
    )
    lines = []
    for axes, (title, (way, ends)) in zip(panels, paths.items(), strict=True):
        for start, models in zip(way, ends, strict=False):
            for model in models:
                axes.plot(*zip(start, model, strict=True), color=COLOURS[1], lw=0.6)
        axes.plot(*ends.reshape(-1, 2).T, ".", color=COLOURS[1], ms=4, label="clients")
        style = {"color": "black", "marker": "o", "ms": 5, "lw": 2}
        axes.plot(*way.T, label="global model", **style)
        axes.plot(*way[0], "s", color="black", ms=9, mfc="white", label="start")
        axes.set_title(title, loc="left")
        axes.set(xlabel="first direction")
        axes.grid(alpha=0.3)
        steps = np.linalg.norm(np.diff(way, axis=0), axis=1)
        apart = np.linalg.norm(ends - way[1:, None], axis=2).mean(axis=1)
        lines.append(f"{title} {_number((apart / steps).mean(), 1)}")
    panels[0].set(ylabel="second direction")
    panels[0].legend(frameon=False, fontsize=8)
    _show(
        figure,
        "the models in two dimensions: the global model from round to round, and from "
        "each of its places lines to the clients' models. How far from the new global "
        "model a client ends, on average, in steps of the global model: "
        f"{', '.join(lines)}.",
        f"from client to new global model, in its steps: {', '.join(lines)}",
    )


def plot_pictures(rows: dict[str, torch.Tensor]) -> None:
    """Show images in rows, each below the one that it is compared with.

    If a row has one image only, they stand side by side.

    Parameters
    ----------
    rows : dict[str, torch.Tensor]
        Images by name of the row, of shape ``(n, channels, height, width)``, with
        values from -1 to 1. Each row has as many. The first is what all are compared
        with.
    """
    (first, true), *others = rows.items()
    shape = (len(rows), len(true))
    if len(true) == 1:  # side by side
        shape = shape[::-1]
    size = (max(4, 1.9 * shape[1]), 0.2 + 1.6 * shape[0])
    figure, grid = plt.subplots(*shape, figsize=size)
    grid = grid.reshape(len(rows), len(true))
    lines = []
    for (name, images), row in zip(rows.items(), grid, strict=True):
        pixels = ((images.detach() + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).squeeze(-1)
        for axes, image in zip(row, pixels.numpy(), strict=True):
            axes.imshow(image, cmap="gray", vmin=0, vmax=1)
            axes.axis("off")
        row[0].set_title(name, fontsize=9, loc="left", pad=3)
    for name, images in others:
        off = ((images - true) / 2).pow(2).flatten(1).mean(dim=1)
        lines.append(f"{name}: {', '.join(_number(each) for each in off)}")
    compared = f"mean squared error, {'; '.join(lines)}"
    _show(
        figure,
        f"{len(true)} images in each of {len(rows)} rows: {', '.join(rows)}. Compared "
        f"with the images in the first row, {first}: {compared}.",
        compared,
    )


def plot_roc(curves: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Plot ROC curves: how many members are found, against how many others accused.

    On the left, the area below a curve is its AUC. On the right, the axes are
    logarithmic, so that one sees how few others may be accused.

    Parameters
    ----------
    curves : dict[str, tuple[np.ndarray, np.ndarray]]
        By name, the shares of others and of members that are accused, as
        ``sklearn.metrics.roc_curve`` returns them.

    Raises
    ------
    ValueError
        If there are more than seven curves.
    """
    _require_few(curves)
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6))
    lines = []
    for (name, (others, members)), colour, line in zip(
        curves.items(), COLOURS, LINES, strict=False
    ):
        for axes in panels:
            axes.plot(others, members, color=colour, ls=line, label=name)
        at = {x: np.interp(x, others, members) for x in (0.01, 0.1, 0.5)}
        shares = ", ".join(f"{_number(y)} at {x:g}" for x, y in at.items())
        lines.append(f"{name}: {shares}")
    for axes in panels:
        chance = np.geomspace(0.001, 1)
        axes.plot(chance, chance, color="black", lw=1, ls=(0, (1, 2)), label="chance")
        axes.set(xlabel="share of others accused")
        axes.grid(alpha=0.3)
    whole, few = panels
    whole.set(title="all thresholds", ylabel="share of members found")
    few.set(title="the same, logarithmic", xscale="log", yscale="log")
    few.set(xlim=(0.005, 1), ylim=(0.005, 1.1))
    few.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _show(
        figure,
        "share of members found, by share of others accused. Left all thresholds, "
        "right those from 0.005 on, logarithmic. "
        f"{'; '.join(lines)}; chance: the diagonal.",
        "the farther above the diagonal, the better members are told from others",
    )


def plot_label_panels(
    counts_by_title: dict[str, np.ndarray], *, same_scale: bool = True
) -> None:
    """Plot stacked bars of label counts for several splits, side by side.

    Parameters
    ----------
    counts_by_title : dict[str, np.ndarray]
        Label counts of shape ``(clients, labels)`` by title of the panel, all with the
        same number of clients.
    same_scale : bool
        Whether a bar of one length means the same size in all panels.
    """
    clients, labels = next(iter(counts_by_title.values())).shape
    figure, (panels,) = plt.subplots(
        1,
        len(counts_by_title),
        figsize=(9 if len(counts_by_title) > 1 else 7, 1.2 + 0.3 * clients),
        sharey=True,
        squeeze=False,
    )
    widest = max(counts.sum(axis=1).max() for counts in counts_by_title.values())
    lines, means = [], []
    for axes, (title, counts) in zip(panels, counts_by_title.items(), strict=True):
        sizes = counts.sum(axis=1)
        end = 1.04 * (widest if same_scale else sizes.max())
        left = np.zeros(clients)
        for label, column in enumerate(counts.T):
            colour = LABEL_COLOURS[label % len(LABEL_COLOURS)]
            edges = np.where(column > 0.01 * end, 0.5, 0)
            bars = axes.barh(
                range(clients), column, left=left, color=colour, ec="white", lw=edges
            )
            narrow = 0.01 * len(panels) * end
            names = [str(label) if n > narrow else "" for n in column]
            ink = "white" if colour in WHITE_INK else "black"
            axes.bar_label(bars, names, label_type="center", fontsize=7, color=ink)
            left += column
        # In grey, the last shade alone would not show on white where a bar ends.
        axes.barh(range(clients), sizes, fill=False, ec="black", lw=0.8)
        axes.set_title(title, loc="left")
        axes.set_xlim(0, end)
        mean = _number(label_distance(counts).mean())
        means.append(f", {title}: {mean}" if len(panels) > 1 else f" {mean}")
        lines.append(
            f"{title}: {_sizes(sizes)}, {_holdings(counts)}, mean label distance {mean}"
        )
    panels[0].set(ylabel="client", yticks=range(clients))
    panels[0].invert_yaxis()
    figure.supxlabel("examples (the number in a bar is the label)", fontsize=10)
    if labels <= len(LABEL_COLOURS):  # what is too narrow for its number is named here
        patches = [plt.Rectangle((0, 0), 1, 1, color=c) for c in LABEL_COLOURS[:labels]]
        figure.legend(
            patches,
            map(str, range(labels)),
            loc="outside upper right",
            ncols=labels,
            borderaxespad=1.5,
            frameon=False,
            fontsize=8,
            handlelength=1,
            handletextpad=0.4,
            columnspacing=1,
        )
    _show(
        figure,
        f"{clients} clients; {'; '.join(lines)}.",
        f"mean label distance{''.join(means)}",
    )


def _diagram(width: float, height: float) -> tuple[plt.Figure, plt.Axes]:
    """Return an empty figure whose unit is half an inch."""
    figure, axes = plt.subplots(figsize=(width / 2, height / 2))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def _box(
    axes: plt.Axes, x: float, y: float, width: float, height: float, **style: str
) -> None:
    style = {"boxstyle": "round,pad=0.1", "fc": "white", "ec": "black", **style}
    axes.add_patch(FancyBboxPatch((x, y), width, height, **style))


def _program(
    axes: plt.Axes,
    place: tuple[float, float, float, float],
    name: str,
    does: str,
    colour: str = "white",
) -> None:
    """Draw a box with a program's name and what it does."""
    _box(axes, *place, fc=colour)
    x, y, width, height = place
    middle, words = x + width / 2, {"ha": "center", "va": "center"}
    axes.text(middle, y + height / 2 + 0.3, name, weight="bold", **words)
    axes.text(middle, y + height / 2 - 0.3, does, fontsize=9, **words)


def _arrow(
    axes: plt.Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    **style: str | float,
) -> None:
    style = {"arrowstyle": "-|>", "lw": 1.5, "ls": "-", "color": "black", **style}
    axes.annotate("", xy=end, xytext=start, arrowprops=style)


def _number(value: float, digits: int = 2) -> str:
    # First to nine digits, so that 0.085 and its neighbours end alike everywhere.
    return f"{round(float(value), 9):.{digits}f}"


def _range(values: Sequence[float], digits: int = 2) -> str:
    return f"{_number(min(values), digits)} to {_number(max(values), digits)}"


def _way(values: Sequence[float], start: int) -> str:
    """Say where a curve begins and ends, its peak, and its steps back."""
    values = [float(_number(value)) for value in values]
    sign = 1 if values[-1] >= values[0] else -1
    peak = int(np.argmax(np.multiply(sign, values)))
    back = -sign * np.diff(values)
    words = [
        f"from {_number(values[0])} at {start} to {_number(values[-1])} at "
        f"{start + len(values) - 1}"
    ]
    if values[peak] != values[-1]:
        extreme = "highest" if sign > 0 else "lowest"
        words.append(f"{extreme} {_number(values[peak])} at {start + peak}")
    if (back > 0).any():
        worst = int(np.argmax(back))
        words.append(
            f"steps {'down' if sign > 0 else 'up'}: {(back > 0).sum()}, the largest "
            f"from {_number(values[worst])} to {_number(values[worst + 1])} at "
            f"{start + worst + 1}"
        )
    return ", ".join(words)


def _bands(bands: pd.DataFrame) -> list[str]:
    """Say where a band lies at its beginning, its end, and two places between."""
    places = np.unique(np.linspace(0, len(bands) - 1, 4).astype(int))
    return [
        f"{_number(row.low)} to {_number(row.high)} around {_number(row.middle)} at "
        f"{row.Index:.4g}"
        for row in bands.iloc[places].itertuples()
    ]


def _step(messages: list[Delivery], step: tuple[int, str], column: dict) -> str:
    """Say which clients one step's messages went to, and who did not answer well."""
    sent = [m for m in messages if (m.round, m.type) == step]
    asked = {column[m.destination] for m in sent if not m.is_reply}
    failed = {column[m.source] for m in sent if m.is_reply and m.error}
    silent = asked - {column[m.source] for m in sent if m.is_reply}
    words = [f"round {step[0]}: {step[1]} to clients {_clients(asked, len(column))}"]
    if failed:
        words.append(f"error from {_clients(failed, len(column))}")
    if silent:
        words.append(f"no reply from {_clients(silent, len(column))}")
    return ", ".join(words if failed or silent else [*words, "all reply"])


def _load(messages: list[Delivery], kind: str) -> str:
    """Say which way messages of a type carry a model."""
    big = [m for m in messages if m.type == kind and m.bytes >= MODEL_BYTES]
    back = {m.is_reply for m in big}
    if not back:
        return f"{kind} carries no model"
    if len(back) == 2:
        return f"{kind} carries a model to the client and back"
    way = "back" if True in back else "to the client"
    return f"{kind} carries a model {way} only"


def _clients(clients: Collection[int], of: int) -> str:
    every = f"0 to {of - 1}" if of > 1 and len(clients) == of else ""
    return every or ", ".join(map(str, sorted(clients)))


def _sizes(sizes: np.ndarray) -> str:
    """Say how many examples the clients have, and who has least and most."""
    least, most = sizes.argmin(), sizes.argmax()
    if sizes[least] == sizes[most]:
        return f"{sizes[most]} examples each"
    return f"{sizes[least]} (client {least}) to {sizes[most]} (client {most}) examples"


def _holdings(counts: np.ndarray) -> str:
    """Say how many labels the clients have, and which: all of few, or the largest."""
    held = counts > 0
    kinds = held.sum(axis=1)
    fewest, most = kinds.min(), kinds.max()
    span = f"{most}" if fewest == most else f"{fewest} to {most}"
    text = f"{span} {'label' if most == 1 else 'different labels'} each"
    shares = counts.max(axis=1) / np.maximum(counts.sum(axis=1), 1)
    if most <= 3:
        each = [" and ".join(map(str, np.flatnonzero(row))) for row in held]
        return f"{text}, by client ({', '.join(each)})"
    if shares.max() < 2 / counts.shape[1]:
        return f"{text}, none more than {shares.max():.0%} of a client"
    largest = zip(counts.argmax(axis=1), shares, strict=True)
    each = [f"{label} at {share:.0%}" for label, share in largest]
    return f"{text}, the largest by client ({', '.join(each)})"


def _require_few(series: Collection[str]) -> None:
    if len(series) > len(COLOURS):
        raise ValueError(
            f"{len(series)} series are more than a reader can tell apart: plot at most "
            f"{len(COLOURS)}."
        )


def _lay_on_card(figure: plt.Figure) -> None:
    """Put a sheet with round corners behind all that is in a figure."""
    width, height = figure.get_size_inches()
    sheet = FancyBboxPatch(
        (0, 0),
        1,
        1,
        boxstyle=f"round,pad=0,rounding_size={0.12 / width}",
        mutation_aspect=width / height,
        transform=figure.transFigure,
        fc=CARD,
        ec="none",
        zorder=-1,
    )
    figure.add_artist(sheet)


def _show(figure: plt.Figure, summary: str, line: str) -> None:
    """Show a figure, and a line on it that a notebook unfolds into the whole text."""
    _lay_on_card(figure)
    line, alt = f"Figure: {line}.", f"Figure: {summary}"
    if plt.get_backend().endswith("inline"):  # a notebook's
        from IPython.display import display

        display(figure, metadata={"image/png": {"alt": alt}})
        # JupyterLab ignores an output's alternative text: here everybody finds it.
        shown = [escape(text, quote=False) for text in (line, alt)]
        folded = "<details><summary>{}</summary>\n\n{}</details>".format(*shown)
        display({"text/markdown": folded, "text/plain": line}, raw=True)
    else:
        plt.show()
        print(line)
    plt.close(figure)
