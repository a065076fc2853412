"""Figures are told apart without their colours, and say in words what they show."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from html import unescape
from itertools import combinations, pairwise, product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from colorspacious import cspace_convert
from datasets import ClassLabel, Dataset, Features, Image
from matplotlib.colors import to_hex, to_rgb, to_rgba
from matplotlib.patches import FancyBboxPatch
from PIL import Image as Pixels

from course_utils import plots
from course_utils.runtime import SUPERLINK_NODE_ID, Delivery

Colour = tuple[float, float, float]
Mark = tuple[str, Hashable, Colour]
"""What a mark means, the sign by which it is told without colour, and its colour."""

DEFICIENCIES = ("deuteranomaly", "protanomaly", "tritanomaly")
"""At severity 100 these are deuteranopia and so on (Machado et al., 2009)."""

APART = 10
"""Distance in CAM02-UCS (Luo et al., 2006; about 1 is just noticeable side by side) for
colours that alone tell marks apart. matplotlib's accessible petroff10 keeps 14 where a
colour vision deficiency is simulated, and falls to 4 in grey."""


@pytest.fixture
def draw(monkeypatch) -> Callable[..., tuple[plt.Figure, str]]:
    """Return a function that draws a figure, and gives it with its text."""
    shown: list[tuple[plt.Figure, str]] = []
    monkeypatch.setattr(plots, "_show", lambda *args: shown.append(args[:2]))

    def drawn(function: Callable, *args: Any, **kwargs: Any) -> tuple[plt.Figure, str]:
        function(*args, **kwargs)
        shown[-1][0].canvas.draw()
        return shown[-1]

    yield drawn
    plt.close("all")


def views(colour: Colour) -> dict[str, np.ndarray]:
    """Return where a colour lies in CAM02-UCS, as seen by several eyes and in grey."""
    seen = {"usual": np.array(colour)}
    for name in DEFICIENCIES:
        space = {"name": "sRGB1+CVD", "cvd_type": name, "severity": 100}
        seen[name] = np.clip(cspace_convert(colour, space, "sRGB1"), 0, 1)
    places = {k: cspace_convert(v, "sRGB1", "CAM02-UCS") for k, v in seen.items()}
    return places | {"grey": places["usual"] * [1, 0, 0]}  # its lightness alone


def distance(one: Colour, other: Colour) -> float:
    """Return the smallest distance of two colours in any view."""
    a, b = views(one), views(other)
    return min(float(np.linalg.norm(a[view] - b[view])) for view in a)


def confused(marks: list[Mark], apart: float = APART) -> list[str]:
    """List the marks of different meaning that some reader would take for another."""
    return [
        f"{a} and {b}: both {sign}, {to_hex(x)} and {to_hex(y)}, {distance(x, y):.1f}"
        for (a, sign, x), (b, other_sign, y) in combinations(marks, 2)
        if a != b and sign == other_sign and distance(x, y) < apart
    ]


def on_card(rgba: Sequence[float]) -> Colour:
    """Return what a translucent colour is on the card that every figure stands on."""
    *colour, alpha = to_rgba(rgba)
    below = to_rgb(plots.CARD)
    return tuple(
        alpha * part + (1 - alpha) * ground
        for part, ground in zip(colour, below, strict=True)
    )


def contrast(one: Colour, other: Colour) -> float:
    """Return the contrast ratio of two colours as WCAG 2.2 defines it, 1 to 21."""

    def luminance(colour: Colour) -> float:
        return cspace_convert(colour, "sRGB1", "XYZ1")[1]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


# ---------------------------------------------------------- the marks of a figure

SEVEN = [f"run {i}" for i in range(7)]


def curve_marks(figure: plt.Figure) -> list[Mark]:
    # Matplotlib tells a line's own dashes from another's nowhere else.
    return [
        (
            line.get_label(),
            (line._unscaled_dash_pattern, line.get_marker()),
            to_rgb(line.get_color()),
        )
        for line in figure.axes[0].get_lines()
    ]


def bar_marks(figure: plt.Figure) -> list[Mark]:
    return [
        (bars.get_label(), bars[0].get_hatch(), on_card(bars[0].get_facecolor()))
        for bars in figure.axes[0].containers
    ]


def all_curves(draw) -> list[Mark]:
    curves = {name: [i, i + 1] for i, name in enumerate(SEVEN)}
    levels = {f"level {i}": i for i in range(7)}
    return curve_marks(draw(plots.plot_curves, curves, levels=levels)[0])


def table_of(names: Sequence[str], seeds: int = 3) -> pd.DataFrame:
    rows = [
        {"run": name, "seed": seed, "round": i, "metric": "accuracy", "value": i / 4}
        for name in names
        for seed in range(seeds)
        for i in (0, 1, 2)
    ]
    return pd.DataFrame(rows)


def all_intervals(draw) -> list[Mark]:
    return curve_marks(draw(plots.plot_intervals, table_of(SEVEN), by="run")[0])


def all_bars(draw) -> list[Mark]:
    runs = {name: [0.5, 0.6] for name in SEVEN}
    return bar_marks(draw(plots.plot_client_bars, runs)[0])


def test_seven_curves_and_seven_levels_are_told_apart_by_every_reader(draw) -> None:
    marks = all_curves(draw)
    assert len(marks) == 14
    assert not confused(marks)


def test_seven_medians_are_told_apart_by_every_reader(draw) -> None:
    marks = all_intervals(draw)
    assert len(marks) == 7
    assert not confused(marks)
    with pytest.raises(ValueError, match=r"^8 series "):
        plots.plot_intervals(table_of([*SEVEN, "run 7"]), by="run")


def test_a_band_has_nine_of_ten_runs_and_live_ones_are_drawn_over_it(draw) -> None:
    table = table_of(["a"], seeds=21)
    table["value"] = table.seed / 20 + table["round"]
    live = table[table.seed < 2]
    figure, text = draw(plots.plot_intervals, table, by="run", live=live, x="round")
    axes = figure.axes[0]
    (band,) = axes.collections
    edges = band.get_paths()[0].vertices[:, 1]
    assert np.isclose([edges.min(), edges.max()], [0.05, 2.95]).all()
    median, *thin, legend = axes.get_lines()
    assert median.get_ydata().tolist() == [0.5, 1.5, 2.5] and len(thin) == 2
    assert all(line.get_lw() < median.get_lw() for line in thin)
    assert legend.get_label() == "thin: run here"
    assert "0.05 to 0.95 around 0.50 at 0" in text and "seed 1: 2.05" in text


def test_seven_runs_of_bars_are_told_apart_by_every_reader(draw) -> None:
    marks = all_bars(draw)
    assert len(marks) == 7
    assert not confused(marks)


@pytest.mark.parametrize(
    ("colours", "view"),
    [
        (("#D55E00", "#009E73"), "grey"),  # red and green of one lightness
        (("#8C8C00", "#C86432"), "a colour vision deficiency"),
    ],
)
def test_a_palette_that_fails_somebody_is_noticed(
    draw, monkeypatch, colours, view
) -> None:
    monkeypatch.setattr(plots, "COLOURS", (colours * 4)[:7])
    monkeypatch.setattr(plots, "LINES", ("-",) * 7)
    monkeypatch.setattr(plots, "MARKERS", ("o",) * 7)
    monkeypatch.setattr(plots, "HATCHES", ("",) * 7)
    assert any("run 0 and run 1" in line for line in confused(all_curves(draw)))
    assert any("run 0 and run 1" in line for line in confused(all_bars(draw)))
    places = [views(to_rgb(colour)) for colour in colours]
    assert np.linalg.norm(places[0]["usual"] - places[1]["usual"]) > APART, view


@pytest.mark.parametrize("function", [plots.plot_curves, plots.plot_client_bars])
def test_more_series_than_can_be_told_apart_are_refused(function) -> None:
    with pytest.raises(ValueError, match=r"^8 series .* plot at most 7\.$"):
        function({f"run {i}": [0.5, 0.6] for i in range(8)})
    assert not plt.get_fignums()


def label_stack(figure: plt.Figure) -> list[tuple[str, list, list]]:
    """Return each label, its bars, and what is written in them."""
    axes = figure.axes[0]
    stack = [bars for bars in axes.containers if bars[0].get_fill()]
    texts = np.reshape(axes.texts, (len(stack), -1))
    return list(zip(map(str, range(len(stack))), stack, texts, strict=True))


def widths(panels: Sequence[plt.Axes]) -> set[float]:
    return {axes.get_xlim()[1] for axes in panels}


def test_bars_of_one_length_are_sizes_of_one_kind_and_end_inside_the_frame(
    draw,
) -> None:
    panels = {"few": np.array([[3, 1]]), "many": np.array([[30, 10]])}
    figure, _ = draw(plots.plot_label_panels, panels)
    (width,) = widths(figure.axes)
    assert width > 40
    figure, _ = draw(plots.plot_label_panels, panels, same_scale=False)
    low, high = sorted(widths(figure.axes))
    assert 4 < low < 10 and high == width


@pytest.mark.parametrize("labels", [2, 3, 7, 10])
def test_labels_in_a_bar_are_told_by_number_and_neighbours_by_every_reader(
    draw, labels
) -> None:
    figure, _ = draw(plots.plot_label_counts, np.full((2, labels), 40))
    stack = label_stack(figure)
    for name, bars, texts in stack:
        for bar, text in zip(bars, texts, strict=True):
            assert text.get_text() == name
            ink, ground = to_rgb(text.get_color()), on_card(bar.get_facecolor())
            assert contrast(ink, ground) >= 4.5, name
    # Where a bar is too narrow for its number, its edge must show, and its colour is
    # named beside the bars.
    colours = [on_card(bars[0].get_facecolor()) for _, bars, _ in stack]
    for one, other in pairwise(colours):
        assert distance(one, other) >= 1.5 * APART
    for one, other in combinations(colours, 2):
        assert np.linalg.norm(views(one)["usual"] - views(other)["usual"]) >= APART
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.texts] == [name for name, *_ in stack]
    assert [on_card(p.get_facecolor()) for p in legend.get_patches()] == colours


def test_the_end_of_a_bar_is_seen_on_the_card(draw) -> None:
    figure, _ = draw(plots.plot_label_counts, np.array([[30, 10], [0, 5]]))
    (outlines,) = [c for c in figure.axes[0].containers if not c[0].get_fill()]
    assert [bar.get_width() for bar in outlines] == [40, 5]
    for bar in outlines:
        assert contrast(on_card(bar.get_edgecolor()), to_rgb(plots.CARD)) >= 3


def test_of_thousands_of_clients_a_sample_is_drawn(draw) -> None:
    figure, text = draw(plots.plot_label_counts, np.full((3550, 24), 1), title="mine")
    said = "mine (50 of 3550 clients, drawn and numbered anew)"
    assert figure.axes[0].get_title(loc="left") == said
    assert said in text
    assert not figure.legends, "of more labels than colours each has its number only"
    assert len(figure.axes[0].containers[0]) == 50
    figure, text = draw(plots.plot_label_counts, np.full((50, 2), 1), title="mine")
    assert figure.axes[0].get_title(loc="left") == "mine"


NODES = (11, 22, 33)


def message(kind: str, node: int, *, reply: bool, size: int, error=None, round=1):
    ends = (node, SUPERLINK_NODE_ID) if reply else (SUPERLINK_NODE_ID, node)
    return Delivery(round, kind, *ends, size, error=error)


TRAFFIC = [
    message("train", 11, reply=False, size=50_000),
    message("train", 22, reply=False, size=50_000),
    message("train", 33, reply=False, size=50_000),
    message("train", 11, reply=True, size=50_000),
    message("train", 22, reply=True, size=0, error="no data"),
    message("evaluate", 11, reply=False, size=50_000),
    message("evaluate", 33, reply=False, size=50_000),
    message("evaluate", 11, reply=True, size=100),
    message("evaluate", 33, reply=True, size=100),
    message("query", 22, reply=False, size=100, round=2),
    message("query", 22, reply=True, size=100, round=2),
]


def test_messages_are_told_apart_by_row_and_form_and_models_by_filling(draw) -> None:
    figure, _ = draw(plots.plot_traffic, TRAFFIC, NODES)
    drawn = figure.axes[0].get_lines()
    assert len(drawn) == len(TRAFFIC)
    marks = []
    for m, line in zip(TRAFFIC, drawn, strict=True):  # drawn step by step
        filled = line.get_markerfacecolor() != "white"
        assert filled == (m.bytes >= 10_000)
        meaning = f"{m.round} {m.type}, back {m.is_reply}, error {m.error}"
        sign = (line.get_ydata()[0], line.get_marker())
        marks.append((meaning, sign, (0, 0, 0)))  # as if all were black
    assert not confused(marks)
    title = figure.axes[0].get_title(loc="left")
    for sign, word in (("▼", "to the client"), ("▲", "back"), ("✖", "error")):
        assert f"{sign} {word}" in title
    assert "filled: 10 kB or more, carries a model" in title


def test_a_client_and_the_mean_of_clients_differ_in_form(draw) -> None:
    figure, text = draw(plots.plot_skew, {"one": np.array([[3, 1], [1, 3]])})
    for axes in figure.axes:
        assert {line.get_marker() for line in axes.get_lines()} == {"o", "|", "None"}
        circles = [line for line in axes.get_lines() if line.get_marker() == "o"]
        assert all(len(set(line.get_ydata())) == 2 for line in circles), "covered"
    assert "circles are clients, bars are means" in text


def test_boxes_that_differ_in_fill_alone_differ_for_every_reader(draw) -> None:
    figure, _ = draw(plots.draw_apps)
    boxes = [p for p in figure.axes[0].patches if isinstance(p, FancyBboxPatch)]
    legend = boxes[-3:]
    meanings = [text.get_text() for text in figure.axes[0].texts[-3:]]
    assert meanings == ["your code", "Flower's program", "one machine"]
    marks = [
        (meaning, box.get_linestyle(), on_card(box.get_facecolor()))
        for meaning, box in zip(meanings, legend, strict=True)
    ]
    assert not confused(marks)
    fills = {to_hex(on_card(box.get_facecolor())) for box in boxes}
    assert fills == {to_hex(colour) for _, _, colour in marks}


def test_arrows_of_a_round_differ_in_dash_and_are_named_in_words(draw) -> None:
    figure, _ = draw(plots.draw_loop)
    texts = figure.axes[0].texts
    arrows = [t.arrow_patch for t in texts if getattr(t, "arrow_patch", None)]
    assert sorted({arrow.get_linestyle() for arrow in arrows}) == ["-", "--"]
    words = " ".join(text.get_text() for text in texts)
    for name in ("solid arrows", "dashed arrows", "Server", "Client 0", "data stays"):
        assert name in words


def samples() -> list[Dataset]:
    pixels = [Pixels.fromarray(np.full((4, 4), shade, np.uint8)) for shade in (0, 255)]
    features = Features({"image": Image(), "label": ClassLabel(num_classes=10)})
    rows = ({"image": pixels, "label": [7, 1]}, {"image": pixels, "label": [3, 3]})
    return [Dataset.from_dict(row, features=features) for row in rows]


RUNS = pd.DataFrame(
    [
        {"skew": skew, "seed": seed, "round": 2, "metric": "accuracy", "value": value}
        for skew, values in {"IID": (0.8, 0.9), "pens": (0.4, 0.5)}.items()
        for seed, value in enumerate(values)
    ]
)
OFFERS = {
    name: pd.DataFrame({"alone": [0.8, 0.9], "joint": [low, 0.7]})
    for name, low in {"a": 0.6, "b": 0.5}.items()
}
EVERY_FIGURE = {
    "draw_loop": (plots.draw_loop, ()),
    "draw_apps": (plots.draw_apps, ()),
    "draw_simulation": (plots.draw_simulation, ()),
    "draw_silence": (plots.draw_silence, ()),
    "draw_secure_round": (plots.draw_secure_round, ()),
    "plot_curves": (plots.plot_curves, ({"a": [0.1, 0.5]},)),
    "plot_client_bars": (plots.plot_client_bars, ({"a": [0.1, 0.5]},)),
    "plot_intervals": (partial(plots.plot_intervals, by="run"), (table_of("ab"),)),
    "plot_label_counts": (plots.plot_label_counts, (np.array([[9, 1], [2, 8]]),)),
    "plot_label_panels": (
        plots.plot_label_panels,
        ({"a": np.array([[9, 1], [2, 8]]), "b": np.array([[5, 5], [5, 5]])},),
    ),
    "plot_skew": (plots.plot_skew, ({"a": np.array([[9, 1], [2, 8]])},)),
    "plot_traffic": (plots.plot_traffic, (TRAFFIC, NODES)),
    "plot_weights": (
        plots.plot_weights,
        ({"a ramp": np.tile(np.arange(16.0)[:, None], (1, 2))},),
    ),
    "plot_offers": (plots.plot_offers, (OFFERS, {"a": 0.5, "b": 0.9})),
    "plot_ranges": (partial(plots.plot_ranges, by="skew", round=2), (RUNS,)),
    "plot_bells": (plots.plot_bells, ([0.5, 3.0],)),
    "plot_paths": (
        plots.plot_paths,
        ({"IID": (np.array([[0, 0], [1, 0]]), np.array([[[2, 1], [2, -1]]]))},),
    ),
    "plot_pictures": (
        plots.plot_pictures,
        ({"true": torch.ones(2, 1, 4, 4), "found": torch.zeros(2, 1, 4, 4)},),
    ),
    "plot_roc": (plots.plot_roc, ({"a": (np.array([0, 1]), np.array([0.5, 1]))},)),
}
every_figure = pytest.mark.parametrize("name", [*EVERY_FIGURE, "plot_samples"])


def arguments(name: str) -> tuple[Callable, tuple]:
    if name == "plot_samples":
        return plots.plot_samples, (samples(),)
    return EVERY_FIGURE[name]


def test_no_figure_is_left_out_here() -> None:
    public = {n for n in vars(plots) if n.startswith(("plot_", "draw_"))}
    assert public == {*EVERY_FIGURE, "plot_samples"}


@every_figure
def test_a_figure_stands_on_a_card_whatever_the_theme(name, draw, tmp_path) -> None:
    function, args = arguments(name)
    figure, _ = draw(function, *args)
    plots._lay_on_card(figure)
    figure.savefig(tmp_path / "figure.png", bbox_inches="tight")  # as in a notebook
    picture = Pixels.open(tmp_path / "figure.png").convert("RGBA")
    pixels = np.asarray(picture.crop(picture.getbbox()))
    for row, column in product((0, -1), repeat=2):
        assert pixels[row, column, 3] == 0  # the page shows round the corners
    card = [round(255 * part) for part in to_rgb(plots.CARD)] + [255]
    for edge in (pixels[2], pixels[-3], pixels[:, 2], pixels[:, -3]):
        assert (edge[20:-20] == card).all(), "something touches the edge of the card"
    assert (pixels[20:-20, 20:-20, 3] == 255).all()


PAGES = {"light": "#FFFFFF", "dark": "#111111"}
"""JupyterLab's two themes."""


def test_the_card_is_seen_on_a_light_page_and_quiet_on_a_dark_one() -> None:
    card, light, dark = (to_rgb(c) for c in (plots.CARD, *PAGES.values()))
    assert contrast(card, light) >= 1.2
    assert contrast(card, dark) <= 0.85 * contrast(light, dark)


WRITTEN_ON_BARS = {"plot_label_counts", "plot_label_panels"}  # looked at above


@pytest.mark.parametrize(
    "name", sorted({*EVERY_FIGURE, "plot_samples"} - WRITTEN_ON_BARS)
)
def test_words_in_a_figure_are_readable_on_what_they_stand_on(name, draw) -> None:
    function, args = arguments(name)
    figure, _ = draw(function, *args)
    grounds = [to_rgb(plots.CARD)]
    if name.startswith("draw_"):
        patches = figure.axes[0].patches
        grounds += {on_card(patch.get_facecolor()) for patch in patches}
    for text in figure.findobj(plt.Text):
        for ground in grounds:
            assert contrast(to_rgb(text.get_color()), ground) >= 4.5, text


# -------------------------------------------------------------- what the texts say


@every_figure
def test_a_figure_is_followed_by_one_line_and_by_all_it_shows_in_words(
    name, capsys, monkeypatch
) -> None:
    function, args = arguments(name)
    function(*args)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Figure: ") and line.endswith(".") and len(line) <= 90
    shown = []
    monkeypatch.setattr(plt, "get_backend", lambda: "inline")
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: shown.append((a, k)))
    function(*args)
    (_, picture), ((words,), _) = shown
    text = picture["metadata"]["image/png"]["alt"]
    assert text.startswith("Figure: ") and text.endswith(".") and len(text) > 60
    summary, folded = words["text/markdown"].split("</summary>")
    assert unescape(summary) == f"<details><summary>{line}"
    assert unescape(folded) == f"\n\n{text}</details>"
    assert not plt.get_fignums()


def test_the_line_gives_the_numbers_that_lessons_use(capsys) -> None:
    plots.plot_curves({"a": [0.1, 0.5]}, levels={"all": 0.98})
    apart, even = np.array([[4, 0], [0, 4]]), np.full((2, 2), 2)
    plots.plot_label_counts(apart, title="apart")
    plots.plot_label_panels({"apart": apart, "even": even})
    plots.plot_client_bars({"IID": [0.5, 0.75]})
    assert capsys.readouterr().out.splitlines() == [
        "Figure: test accuracy at the end: a 0.50, all 0.98.",
        "Figure: mean label distance 0.50.",
        "Figure: mean label distance, apart: 0.50, even: 0.00.",
        "Figure: lowest to highest client: IID 0.50 to 0.75.",
    ]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.1, 0.5, 0.9], "a: from 0.10 at 0 to 0.90 at 2."),
        (
            [0.1, 0.8, 0.6, 0.7],
            "a: from 0.10 at 0 to 0.70 at 3, highest 0.80 at 1, steps down: 1, the "
            "largest from 0.80 to 0.60 at 2.",
        ),
        (
            [2.0, 0.5, 0.75, 0.625],
            "a: from 2.00 at 0 to 0.62 at 3, lowest 0.50 at 1, steps up: 1, the "
            "largest from 0.50 to 0.75 at 2.",
        ),
        ([0.5], "a: from 0.50 at 0 to 0.50 at 0."),
    ],
)
def test_the_text_of_curves_says_how_they_run(draw, values, text) -> None:
    assert (
        draw(plots.plot_curves, {"a": values})[1] == f"test accuracy by round. {text}"
    )


@pytest.mark.parametrize("rounds", [3, 10, 15, 30])
def test_the_axis_of_rounds_names_the_last(draw, rounds) -> None:
    figure, _ = draw(plots.plot_curves, {"a": np.linspace(0, 1, rounds + 1)})
    assert rounds in figure.axes[0].get_xticks()


def test_the_text_of_curves_counts_from_their_first_round_and_names_levels(
    draw,
) -> None:
    _, text = draw(plots.plot_curves, {"a": [1, 2]}, levels={"all": 0.98}, start=1)
    assert text.endswith("a: from 1.00 at 1 to 2.00 at 2; level line all: 0.98.")


def test_the_text_of_bars_gives_every_client(draw) -> None:
    _, text = draw(plots.plot_client_bars, {"IID": [0.5, 0.75], "alone": [1, 0]})
    assert text == (
        "accuracy, client by client. IID from 0.50 to 0.75: 0.50, 0.75; alone from "
        "0.00 to 1.00: 1.00, 0.00."
    )


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        (
            [[6, 0, 2, 0], [0, 4, 0, 0]],
            "4 (client 1) to 8 (client 0) examples, 1 to 2 different labels each, by "
            "client (0 and 2, 1)",
        ),
        ([[3, 0], [0, 3]], "3 examples each, 1 label each, by client (0, 1)"),
        (
            [[10, 9, 10, 11], [12, 8, 10, 10]],
            "40 examples each, 4 different labels each, none more than 30% of a client",
        ),
        (
            [[10, 9, 10, 11], [1, 1, 1, 7]],
            "10 (client 1) to 40 (client 0) examples, 4 different labels each, the "
            "largest by client (3 at 28%, 3 at 70%)",
        ),
    ],
)
def test_the_text_of_label_bars_says_who_holds_what(draw, counts, text) -> None:
    _, whole = draw(plots.plot_label_counts, np.array(counts), title="a split")
    assert whole.startswith(f"2 clients; a split: {text}, mean label distance 0.")


def test_the_text_of_the_traffic_says_who_was_asked_and_who_answered(draw) -> None:
    _, text = draw(plots.plot_traffic, TRAFFIC, NODES)
    assert text == (
        "11 messages, 0.25 MB to the clients and 0.05 MB back, errors: 1. round 1: "
        "train to clients 0 to 2, error from 1, no reply from 2; round 1: evaluate to "
        "clients 0, 2, all reply; round 2: query to clients 1, all reply; train "
        "carries a model to the client and back; evaluate carries a model to the "
        "client only; query carries no model."
    )


def test_the_text_of_the_skew_gives_means_and_ranges(draw) -> None:
    counts = {"even": np.full((2, 2), 5), "split": np.array([[4, 0], [0, 4]])}
    _, text = draw(plots.plot_skew, counts)
    assert "even 0.00 (0.00 to 0.00) and 2.0 (2.0 to 2.0)" in text
    assert "split 0.50 (0.50 to 0.50) and 1.0 (1.0 to 1.0)" in text


def test_the_text_of_ranges_gives_medians_and_of_paths_their_lengths(draw) -> None:
    _, text = draw(plots.plot_ranges, RUNS, by="skew", round=2)
    assert "of 2 seeds each" in text and "IID 0.85 (0.81 to 0.90)" in text
    function, args = EVERY_FIGURE["plot_paths"]
    _, text = draw(function, *args)
    assert text.endswith("in steps of the global model: IID 1.4.")  # the root of 2


def test_the_text_of_weights_tells_a_picture_from_noise(draw) -> None:
    noise = np.random.default_rng(0).random((784, 10))
    models = {"ramp": np.arange(7840.0).reshape(784, 10), "noise": noise}
    _, text = draw(plots.plot_weights, models)
    assert text.endswith("ramp 1.0, noise 0.0.")


def test_the_steps_of_a_secure_round_differ_in_dash_and_are_named(draw) -> None:
    figure, text = draw(plots.draw_secure_round)
    texts = figure.axes[0].texts
    arrows = [t.arrow_patch for t in texts if getattr(t, "arrow_patch", None)]
    assert [arrow.get_linestyle() for arrow in arrows] == ["-", "--"] * 4
    for name in ("keys", "shares", "masked", "unmask"):
        assert f"train.{name}" in text


def test_the_text_of_offers_gives_each_clients_medians_and_its_level(draw) -> None:
    function, args = EVERY_FIGURE["plot_offers"]
    figure, text = draw(function, *args)
    assert "of 2 seeds" in text and "a, dashed 0.50: alone 0.85 (0.81 to 0.90)" in text
    assert "b, dashed 0.90" in text and "joint 0.60 (0.51 to 0.69)" in text
    for axes, level in zip(figure.axes, (0.5, 0.9), strict=True):
        marks = {(line.get_linestyle(), line.get_marker()) for line in axes.get_lines()}
        assert marks == {("-", "None"), ("None", "o"), ("--", "None")}
        (dashed,) = [line for line in axes.get_lines() if line.get_ls() == "--"]
        assert set(dashed.get_xdata()) == {level}


def test_the_text_of_samples_gives_their_labels(draw) -> None:
    _, text = draw(plots.plot_samples, samples())
    assert text.endswith("client 0: 7, 1; client 1: 3, 3.")


def test_a_number_halfway_ends_the_same_on_every_machine() -> None:
    halfway = 0.085
    near = [np.nextafter(halfway, end) for end in (0, 1)]
    assert len({plots._number(value) for value in (halfway, *near)}) == 1
