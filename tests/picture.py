"""Take the README's picture of the course at work: ``make picture``.

It is lesson 05 in JupyterLab, run on the spot: a run of three rounds, and the messages
that it sent. Not a test: it uses the browser of tests/test_jupyterlab.py.
"""

import tempfile
from pathlib import Path

from browser import Lab, Notebook
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "notebooks" / "images" / "lesson.png"
LESSON = "05_server_app.ipynb"


def main() -> None:
    """Run the lesson, go to its full run, and save what is seen there."""
    PICTURE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        lab = Lab(Path(folder))
        try:
            lab.wait_until_ready()
            browser = lab.launch(playwright)
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            notebook = Notebook(page, lab, LESSON)
            notebook.run_all(240)
            page.set_viewport_size({"width": 1280, "height": 860})
            notebook.go_to(notebook.find("run = run_with(full_app, IID)"))
            cell = page.locator(".jp-Notebook .jp-Cell").nth(notebook.active() - 1)
            cell.evaluate("cell => cell.scrollIntoView()")
            page.wait_for_timeout(1000)  # until the page stands still
            page.screenshot(path=PICTURE)
            browser.close()
        finally:
            lab.stop()


if __name__ == "__main__":
    main()
