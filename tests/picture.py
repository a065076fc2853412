"""Make the README's pictures: ``make picture``.

One moves: a run of the course's federation, drawn message by message from what the
in-process grid recorded. The other is lesson 05 in JupyterLab, run on the spot: the
cell that draws how the accuracy of its runs develops, and the figure. Not a test:
tests/test_site.py compares the run with a new one.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from course_utils.apps import client_app, evaluate_centrally
from course_utils.model import Net
from course_utils.partitions import image_shape
from course_utils.plots import CARD, COLOURS
from course_utils.runtime import run_in_process

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "notebooks" / "images"
LESSON = "05_server_app.ipynb"
ROUNDS, CLIENTS = 5, 10
SECONDS, PAUSE = 4, 3
"""How long the picture shows a round, and the end."""


# ------------------------------------------------------------------------- the run


def record_run() -> list[dict[str, Any]]:
    """Run the federation, and return what happened in each round.

    Returns
    -------
    list[dict]
        For each round from 0 on: ``asked`` and ``replied``, the partitions of the
        clients to which a model went and from which one came; ``bytes`` of all
        messages; ``accuracy`` on the test images, to two digits.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        FedAvg(fraction_train=0.5, fraction_evaluate=0.0).start(
            grid,
            initial_arrays=ArrayRecord(Net(image_shape()).state_dict()),
            num_rounds=ROUNDS,
            evaluate_fn=evaluate_centrally,
        )

    run = run_in_process(
        app, client_app, num_supernodes=CLIENTS, seed=0, progress=False
    )
    partition = {node_id: n for n, node_id in enumerate(run.node_contexts)}
    accuracies = run.result.evaluate_metrics_serverapp
    rounds = []
    for number in range(ROUNDS + 1):
        crossed = [message for message in run.messages if message.round == number]
        sent = [m.destination for m in crossed if not m.is_reply]
        back = [m.source for m in crossed if m.is_reply and not m.error]
        rounds.append(
            {
                "asked": sorted(partition[node] for node in sent),
                "replied": sorted(partition[node] for node in back),
                "bytes": sum(message.bytes for message in crossed),
                "accuracy": round(accuracies[number]["accuracy"], 2),
            }
        )
    return rounds


# --------------------------------------------------------------------- the moving one


def draw_run(rounds: list[dict[str, Any]]) -> str:
    """Draw the rounds as an SVG that moves, and stands still for who wants that."""
    total = (len(rounds) - 1) * SECONDS + PAUSE
    blue, orange = COLOURS[0], COLOURS[1]
    server, clients = (300, 70), [(75 + 50 * n, 300) for n in range(CLIENTS)]

    def at(number: int, share: float) -> str:
        """Say when a share of a round is over, in percent of the picture's time."""
        return f"{100 * (number - 1 + share) * SECONDS / total:.2f}%"

    rules, shapes = [], []
    for number, each in enumerate(rounds[1:], start=1):
        for name, start, end in (("down", 0.08, 0.38), ("up", 0.55, 0.85)):
            rules.append(
                f"@keyframes {name}{number} {{"
                f"0%, {at(number, start)} {{opacity: 0; transform: none}} "
                f"{at(number, start + 0.01)} {{opacity: 1; transform: none}} "
                f"{at(number, end)} {{opacity: 1; transform: var(--way)}} "
                f"{at(number, end + 0.03)}, 100% "
                "{opacity: 0; transform: var(--way)}}"
            )
        rules.append(
            f"@keyframes train{number} {{0%, {at(number, 0.38)} {{opacity: 0}} "
            f"{at(number, 0.4)}, {at(number, 0.55)} {{opacity: 1}} "
            f"{at(number, 0.57)}, 100% {{opacity: 0}}}}"
        )
        rules.append(
            f"@keyframes after{number} {{0%, {at(number, 0.87)} {{opacity: 0}} "
            f"{at(number, 0.9)}, 100% {{opacity: 1}}}}"
        )
        rules.append(
            f"@keyframes during{number} {{0%, {at(number, 0)} {{opacity: 0}} "
            f"{at(number, 0.02)}, {at(number, 0.98)} {{opacity: 1}} "
            f"{at(number, 1)}, 100% {{opacity: 0}}}}"
        )
        for client in each["asked"]:
            x, y = clients[client]
            way = f"translate({x - server[0]}px, {y - server[1] - 50}px)"
            shapes.append(
                f'<circle class="moves" cx="{server[0]}" cy="{server[1] + 30}" r="7" '
                f'fill="{blue}" style="--way: {way}; animation-name: down{number}"/>'
            )
            shapes.append(
                f'<circle class="moves" cx="{x}" cy="{y}" r="17" fill="#F0C987" '
                f'style="animation-name: train{number}"/>'
            )
        for client in each["replied"]:
            x, y = clients[client]
            way = f"translate({server[0] - x}px, {server[1] - y + 50}px)"
            shapes.append(
                f'<rect class="moves" x="{x - 6}" y="{y - 26}" width="12" height="12" '
                f'fill="{orange}" style="--way: {way}; animation-name: up{number}"/>'
            )
        shapes.append(
            f'<g class="moves" style="animation-name: during{number}">'
            f'<text x="430" y="57" font-weight="bold">Round {number}</text>'
            f'<text x="430" y="80">{len(each["asked"])} clients, '
            f"{each['bytes'] / 1e6:.1f} MB sent</text></g>"
        )
    for n, (x, y) in enumerate(clients):
        shapes.append(f'<text x="{x}" y="{y + 5}" text-anchor="middle">{n}</text>')

    def place(number: int) -> tuple[float, float]:
        """Say where in the chart the accuracy after a round is."""
        return 690 + number * 45, 300 - 240 * rounds[number]["accuracy"]

    for number in range(len(rounds)):
        x, y = place(number)
        style = f'class="stays" style="animation-name: after{number}"' * bool(number)
        if number:
            x0, y0 = place(number - 1)
            shapes.append(
                f'<line {style} x1="{x0}" y1="{y0:.1f}" x2="{x}" y2="{y:.1f}" '
                f'stroke="{blue}" stroke-width="2"/>'
            )
        shapes.append(f'<circle {style} cx="{x}" cy="{y:.1f}" r="4" fill="{blue}"/>')
        shapes.append(
            f'<text {style} x="{x}" y="{y - 10:.1f}" text-anchor="middle" '
            f'font-size="13">{rounds[number]["accuracy"]:.2f}</text>'
        )
        shapes.append(f'<text x="{x}" y="320" text-anchor="middle">{number}</text>')
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 370"
  font-family="sans-serif" font-size="15">
<title>A run of ten clients, message by message</title>
<metadata>{json.dumps(rounds)}</metadata>
<style>
.moves {{opacity: 0}}
.moves, .stays {{animation-duration: {total}s; animation-iteration-count: infinite;
  animation-timing-function: ease-in-out}}
@media (prefers-reduced-motion: reduce) {{.moves, .stays {{animation: none}}}}
{chr(10).join(rules)}
</style>
<rect width="960" height="370" rx="10" fill="{CARD}"/>
<rect x="190" y="30" width="220" height="70" rx="8" fill="#DDEEFF" stroke="black"/>
<text x="300" y="60" text-anchor="middle" font-weight="bold">Server</text>
<text x="300" y="82" text-anchor="middle">averages what comes back</text>
<g fill="#F4F4F4" stroke="black">{
        "".join(f'<circle cx="{x}" cy="{y}" r="18"/>' for x, y in clients)
    }</g>
<text x="300" y="346" text-anchor="middle">ten clients, each with its own data</text>
<circle cx="40" cy="52" r="7" fill="{blue}"/>
<text x="54" y="57">the model, out</text>
<circle cx="40" cy="81" r="7" fill="#F0C987" stroke="black"/>
<text x="54" y="86">trains</text>
<rect x="34" y="104" width="12" height="12" fill="{orange}"/>
<text x="54" y="115">the model, back</text>
<g stroke="black"><line x1="665" y1="300" x2="935" y2="300"/>
<line x1="665" y1="300" x2="665" y2="60"/></g>
<text x="800" y="346" text-anchor="middle">test accuracy by round</text>
<text x="658" y="305" text-anchor="end">0</text>
<text x="658" y="65" text-anchor="end">1</text>
{chr(10).join(shapes)}
</svg>
"""


# ------------------------------------------------------------------ the one of a lesson


def photograph_lesson() -> None:
    """Run the lesson, go to its curves, and save what is seen there."""
    from browser import Lab, Notebook
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        lab = Lab(Path(folder))
        try:
            lab.wait_until_ready()
            browser = lab.launch(playwright)
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            notebook = Notebook(page, lab, LESSON)
            notebook.run_all(600)
            page.set_viewport_size({"width": 1280, "height": 860})
            sources = [cell["source"] for cell in notebook.cells()]
            curves = next(n for n, s in enumerate(sources) if "plot_curves(" in s)
            notebook.go_to(curves)
            page.keyboard.press("ControlOrMeta+S")
            cell = page.locator(".jp-Notebook .jp-Cell").nth(curves - 1)
            cell.evaluate("cell => cell.scrollIntoView()")
            page.wait_for_timeout(1000)  # until the page stands still
            page.screenshot(path=IMAGES / "lesson.png")
            browser.close()
        finally:
            lab.stop()


if __name__ == "__main__":
    (IMAGES / "run.svg").write_text(draw_run(record_run()), encoding="utf-8")
    photograph_lesson()
