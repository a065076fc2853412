"""Settings of nbval: a progress bar is never part of a stored output."""

import os

os.environ["TQDM_DISABLE"] = "1"
