"""What checks do with values, whatever they are: compare, remember and show them."""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from operator import length_hint
from typing import Any

import numpy as np
import torch
from flwr.app import Array, Context, Message
from torch import nn

from course_utils.exercises.bounds import TookTooLong

SHOWN = 200
"""Characters of a value that are shown."""


def close(a: Any, b: Any, exact: bool = False, nan: bool = False) -> bool:
    """Whether two results are the same, however they are held.

    Numbers, lists, NumPy arrays and tensors are compared by value: whole numbers as
    they are, others to rounding, unless ``exact``. Mappings are compared by keys and
    values. NaN is close to nothing, unless ``nan``. Anything else must be equal.
    """
    if isinstance(a, Array) and isinstance(b, Array):
        return close(a.numpy(), b.numpy(), exact, nan)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return set(a) == set(b) and all(close(a[key], b[key], exact, nan) for key in a)
    if isinstance(a, str | bytes | bool | None) or isinstance(b, str | bytes | bool):
        return type(a) is type(b) and a == b
    if length_hint(a) != length_hint(b):
        return False  # before all that is in them is looked at
    left, right = _numbers(a), _numbers(b)
    if left is not None and right is not None:
        if left.shape != right.shape:
            return False
        if exact or (left.dtype.kind in "iu" and right.dtype.kind in "iu"):
            return bool(np.array_equal(left, right, equal_nan=nan))
        left, right = left.astype(float), right.astype(float)
        return np.allclose(left, right, 1e-4, 1e-6, equal_nan=nan)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return all(close(x, y, exact, nan) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b)


def _numbers(value: Any) -> np.ndarray | None:
    """Return a value's numbers as an array, or None if it is not made of numbers."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.double() if value.is_floating_point() else value).numpy()
    if isinstance(value, int | float | np.number | np.ndarray):
        array = np.asarray(value)
        return array if array.dtype.kind in "biuf" else None
    if not isinstance(value, list | tuple):
        return None
    if set(map(type, value)) <= {int, float}:
        array = np.array(value)
        return array if array.dtype.kind in "iuf" else None
    parts = [_numbers(part) for part in value]
    if all(p is not None for p in parts) and len({p.shape for p in parts}) <= 1:
        return np.array(parts)
    return None


def is_numeric(value: Any) -> bool:
    """Whether a value is a number, or a list or an array of numbers."""
    return _numbers(value) is not None


def show(value: Any) -> str:
    """Describe a value in at most two hundred characters, whatever it is."""
    if isinstance(value, tuple) and len(value) == 1:
        return show(value[0])
    return text_of(_plain(value), repr)


def _plain(value: Any) -> Any:
    """Turn tensors and arrays in a value into numbers that are short to print."""
    if isinstance(value, torch.Tensor | np.ndarray):
        if np.prod(value.shape) > 12:
            return f"<{type(value).__name__} of shape {tuple(value.shape)}>"
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in islice(value.items(), SHOWN)}
    if type(value) in (list, tuple):
        return type(value)(_plain(v) for v in value[:SHOWN])
    return value


def text_of(value: Any, convert: Callable[[Any], str] = str, limit: int = SHOWN) -> str:
    """Convert to one short line, also where a broken class refuses."""
    try:
        line = convert(value)[: 10 * limit].split("\n")[0]
    except TookTooLong:
        raise
    except BaseException:
        return f"<{type(value).__name__}>"
    line = re.sub(r" at 0x[0-9a-f]+", "", line)
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def snapshot(value: Any) -> Any:
    """Return something comparable that changes when the value does."""
    for kind, inside in INSIDE.items():
        if isinstance(value, kind):
            return inside(value)
    return id(value)


INSIDE: dict[Any, Callable[[Any], Any]] = {
    str | bytes | int | float | None: lambda value: value,
    torch.Tensor: lambda tensor: tensor.detach().cpu().numpy().tobytes(),
    np.ndarray: np.ndarray.tobytes,
    nn.Module: lambda module: snapshot(module.state_dict()),
    Array: lambda array: array.data,
    Message: lambda m: snapshot(m.content) if m.has_content() else None,
    Context: lambda c: snapshot([c.node_config, c.run_config, c.state]),
    Mapping: lambda mapping: [(key, snapshot(v)) for key, v in mapping.items()],
    Sequence: lambda parts: [snapshot(part) for part in parts],
}
"""What is compared of a value, by its kind."""
