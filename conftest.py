"""Load what holds for every run of the tests, whichever of them are run."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "tests"))
pytest_plugins = ["leftovers", "whole_run"]
