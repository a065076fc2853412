"""Settings of nbval: a progress bar is never part of a stored output."""

import os

os.environ["TQDM_DISABLE"] = os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
