"""Take the README's picture of the course at work: ``make picture``.

It is lesson 05 in JupyterLab, run on the spot: the cell that draws how the accuracy of
its runs develops, and the figure. Not a test: it uses the browser of
tests/test_jupyterlab.py.
"""

import tempfile
from pathlib import Path

from browser import Lab, Notebook
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "notebooks" / "images" / "lesson.png"
LESSON = "05_server_app.ipynb"


def main() -> None:
    """Run the lesson, go to its curves, and save what is seen there."""
    PICTURE.parent.mkdir(exist_ok=True)
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
            page.screenshot(path=PICTURE)
            browser.close()
        finally:
            lab.stop()


if __name__ == "__main__":
    main()
