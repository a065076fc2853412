"""Copy the lessons without their outputs: ``make blank``.

The lessons are stored with their outputs, so that they can be read and compared. To
whoever teaches or learns from them, these give each answer away before it is asked for.
"""

import argparse
import shutil
import sys
from pathlib import Path

import nbformat

NOTEBOOKS = Path(__file__).resolve().parents[1]
LEFT_OUT = ("source", "tools", "INSTRUCTOR.md", "__pycache__")
LEFT_OUT += (".ipynb_checkpoints", "results")
"""What is for those who change the course, and what running it leaves behind."""


def clear(folder: Path) -> None:
    """Take the outputs out of each lesson in a folder; its solution keeps them."""
    for path in folder.glob("[0-9]*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, path)


def main() -> None:
    """Copy the lessons into a folder that is not there yet."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--folder", type=Path, default=NOTEBOOKS.parent / "blank")
    folder = parser.parse_args().folder.absolute()
    if folder.exists():
        sys.exit(
            f"{folder} is there already, perhaps with somebody's answers in it: name "
            'another, as in `make blank ARGS="--folder mine"`, or delete it.'
        )
    ignore = shutil.ignore_patterns(*LEFT_OUT)
    shutil.copytree(NOTEBOOKS, folder, ignore=ignore)
    clear(folder)
    print(f"The lessons without outputs are in {folder}.")


if __name__ == "__main__":
    main()
