"""A folder of images, looked at once: brought into the course's form, or refused.

Anyone's images come in other sizes, modes and labels than the course's. Whatever the
lessons can't work with ends here, in one sentence that says what to change.
"""

import os
import tempfile
from itertools import chain
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
from datasets import ClassLabel, DatasetDict, Image

from course_utils.machine import named

FORMS = (
    "data/train-*.parquet and data/test-*.parquet, or train/LABEL/*.png and "
    "test/LABEL/*.png"
)
"""How a folder may hold a dataset: as files of the hub, or as one folder a label."""

SIXTEEN_BITS = {"I;16", "I;16B", "I;16L", "I;16N"}
"""Pillow's modes of grey images with 16 bits a pixel."""


def load_folder(name: str) -> DatasetDict:
    """Load a folder as splits ``train`` and ``test`` in the course's form.

    Parameters
    ----------
    name : str
        A folder in one of the :data:`FORMS`. Without a test split, a fifth of its
        examples is cut off as one.

    Returns
    -------
    DatasetDict
        Both splits: ``image`` is 8-bit grey or RGB and of one size, ``label`` a class.

    Raises
    ------
    ValueError
        If the folder can't be read, or doesn't hold what it must.
    """
    return _with_plain_images(with_standard_columns(_read_folder(name)))


def _read_folder(name: str) -> DatasetDict:
    """Read a folder's two splits, or cut a test split off its only one."""
    folder = Path(os.path.expanduser(name)).absolute()
    if set(str(folder)) & set("[]*?"):
        raise ValueError(
            f"The path {str(folder)!r} has one of the signs [ ] * ? in it, which stand "
            "for a pattern: rename the folder."
        )
    try:
        # Read anew each time: a copy in the library's cache would be believed.
        with tempfile.TemporaryDirectory() as cache:
            splits = datasets.load_dataset(
                str(folder), cache_dir=cache, keep_in_memory=True
            )
    except Exception as error:
        raise ValueError(
            f"The folder {name!r} cannot be read as a dataset "
            f"({named(error.__cause__ or error)}): it must hold {FORMS}."
        ) from None
    train = splits["train"] if "train" in splits else next(iter(splits.values()))
    test = next((splits[key] for key in ("test", "validation") if key in splits), train)
    if min(len(train), len(test)) < 2:
        raise ValueError(f"{name!r} has a split of fewer than 2 examples: add some.")
    if test is train:
        return train.train_test_split(test_size=0.2, seed=42, keep_in_memory=True)
    return DatasetDict(train=train, test=test)


def with_standard_columns(splits: DatasetDict) -> DatasetDict:
    """Call columns ``image`` and ``label``, and make classes of other labels."""
    features = splits["train"].features
    images = [name for name, kind in features.items() if isinstance(kind, Image)]
    rest = [name for name in features if name not in images]
    classes = [name for name in rest if isinstance(features[name], ClassLabel)]
    labels = ["label"] if "label" in rest else classes or rest
    splits = _renamed(splits, images, "image", "datasets.Image")
    splits = _renamed(splits, labels, "label", "whole numbers or strings")
    first = ["image", "label"]
    others = [name for name in splits["train"].column_names if name not in first]
    splits = splits.select_columns(first + others)

    columns = {key: split["label"][:] for key, split in splits.items()}
    require_plain(list(chain(*columns.values())), "label")
    if isinstance(splits["train"].features["label"], ClassLabel):
        if any(-1 in column for column in columns.values()):
            raise ValueError(
                "Some examples have the label -1, which means none: leave them out."
            )
        return splits
    labels = sorted({label for column in columns.values() for label in column})
    number = {label: i for i, label in enumerate(labels)}
    kind = ClassLabel(names=[str(label) for label in labels])
    for key, split in splits.items():
        column = [number[label] for label in columns[key]]
        split = split.remove_columns("label").add_column("label", column, feature=kind)
        splits[key] = split.select_columns(first + others)
    return splits


def _renamed(
    splits: DatasetDict, candidates: list[str], name: str, kind: str
) -> DatasetDict:
    """Give a column its standard name, where it is clear which one is meant."""
    columns = splits["train"].column_names
    if name in candidates:
        return splits
    if len(candidates) != 1:
        raise ValueError(
            f"Of the columns ({', '.join(columns)}), {len(candidates)} may be the "
            f"{name!r} ({kind}): let one column have that name and kind."
        )
    if name in columns:  # of another kind
        splits = splits.remove_columns(name)
    return splits.rename_column(candidates[0], name)


def require_plain(values: list, column: str) -> None:
    """Refuse a column unless it is all whole numbers, all strings or all bools."""
    types = {type(value) for value in values}
    if types not in ({int}, {str}, {bool}):
        found = ", ".join(sorted(each.__name__ for each in types))
        raise ValueError(
            f"The column {column!r} must have a whole number for every example, or for "
            f"every one a string, but has {found}: mend it, or leave such examples out."
        )


def _with_plain_images(splits: DatasetDict) -> DatasetDict:
    """Look at each image once, and make all of them 8-bit grey or all RGB."""
    modes, sizes, brightest = set(), set(), 0
    try:
        for split in splits.values():
            for image in split["image"]:
                modes.add(image.mode)
                sizes.add(image.size)
                if image.mode in SIXTEEN_BITS:
                    brightest = max(brightest, image.getextrema()[1])
    except Exception as error:
        raise ValueError(
            f"An image is missing or can't be read ({named(error)}): remove it."
        ) from None
    if len(sizes) > 1:
        raise ValueError(
            f"The images have {len(sizes)} sizes, from {min(sizes)} to {max(sizes)}: "
            "resize them to one, say with image.resize((32, 32))."
        )
    ((width, height),) = sizes
    if width % 4 or height % 4:
        fits = tuple(max(round(side / 4), 1) * 4 for side in (width, height))
        raise ValueError(
            f"The images are {width} pixels wide and {height} high, and both must be "
            f"divisible by 4: resize them, say with image.resize({fits})."
        )
    if strange := modes & {"I", "F"}:
        raise ValueError(
            f"Images of the mode {', '.join(strange)} have 32 bits a pixel, of unknown "
            "range: save them with 8 or 16 bits."
        )
    mode = "L" if modes <= {"1", "L", "LA", *SIXTEEN_BITS} else "RGB"
    if modes == {mode}:
        return splits
    # 16 bits often hold fewer, as in X-ray images: keep the upper 8 of those in use.
    shift = max(int(brightest).bit_length() - 8, 0)

    def convert(image: PIL.Image.Image) -> dict[str, PIL.Image.Image]:
        if image.mode in SIXTEEN_BITS:
            pixels = np.asarray(image) >> shift
            image = PIL.Image.fromarray(pixels.astype(np.uint8))
        return {"image": image.convert(mode)}

    features = splits["train"].features
    return splits.map(
        convert, input_columns="image", features=features, keep_in_memory=True
    )
