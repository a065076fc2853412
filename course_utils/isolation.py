"""What keeps the calls of an in-process run apart, as processes would.

Flower's runtimes give each message a process of its own. In one process, three things
would leak from call to call: objects that both sides hold, which are copied here; the
name in which messages are made, and the random generators, which a process has once and
which are set for each call and put back.
"""

import io
import operator
import pickle
import random
import sys
import threading
import types
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from functools import partial
from typing import Any

import cloudpickle
import numpy as np
import torch
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Message,
    Metadata,
    MetricRecord,
    RecordDict,
)
from flwr.app.message import make_message
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity

LARGE = 50e6
"""Bytes that a ClientApp may bring to each message before it is told of the cost."""

# -------------------------------------------------------------- copies across the grid


def copy_message(message: Message) -> Message:
    error = copy(message.error) if message.has_error() else None
    content = copy_records(message.content) if message.has_content() else None
    return make_message(metadata=copy(message.metadata), content=content, error=error)


def copy_records(records: RecordDict) -> RecordDict:
    """Copy records as a wire would.

    Metrics and configs go through Flower's own serialization. Arrays are serialized
    already, as immutable bytes, so a new record around the same bytes will do.
    """
    copies: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {}
    for name, record in records.items():
        if isinstance(record, ArrayRecord):
            copies[name] = ArrayRecord.from_array_dict(dict(record))
        else:
            copies[name] = type(record).inflate(record.deflate())
    return RecordDict(copies)


def stamp(metadata: Metadata, **fields: int | str) -> None:
    """Set what Flower's runtimes set, though it is read-only for apps."""
    metadata.__dict__.update({f"_{name}": value for name, value in fields.items()})


# --------------------------------------------------------- a fresh app for each message


class AppImage:
    """A ClientApp as it was when the run began, from which fresh copies are made.

    Flower's runtimes load the app anew in other processes, where what a call left in
    globals or attributes is not found. Pickling the app *by value*, with the globals
    that its functions use, gives the same in one process. Modules and classes are
    shared: copying them would make two classes of one name.

    Tensors on the CPU and on CUDA devices are cloned, not pickled: each storage once
    per copy, so that views and shared storages stay what they are.
    """

    def __init__(self, app: ClientApp) -> None:
        # A module that holds the app, such as client_app.py, is copied with it. (What
        # stands in sys.modules need not be a module: None forbids an import.)
        by_value = cloudpickle.list_registry_pickle_by_value()
        is_app = partial(operator.is_, app)  # in C: there are 100,000 values and more
        homes = [
            module
            for name, module in list(sys.modules.items())
            if isinstance(module, types.ModuleType)
            and name not in ("__main__", *by_value)
            and any(map(is_app, list(vars(module).values())))
        ]
        buffer = io.BytesIO()
        pickler = _AppPickler(buffer)
        for module in homes:
            cloudpickle.register_pickle_by_value(module)
        try:
            pickler.dump(app)
        except Exception as error:
            raise ValueError(
                "The ClientApp uses something that cannot be copied to another "
                f"process, as Flower's runtimes would ({error}): make it inside the "
                "function that needs it."
            ) from error
        finally:
            for module in homes:
                cloudpickle.unregister_pickle_by_value(module)
        self._image = buffer.getvalue()
        self.parts, self.storage_of = pickler.parts, pickler.storage_of
        self.whole = {  # tensors that fill a storage that nothing else uses
            index
            for index, storage in self.storage_of.items()
            if pickler.uses[storage] == 1
            and self.parts[index].is_contiguous()
            and self.parts[index].nbytes == self.parts[storage].nbytes()
        }
        sizes = [p.nbytes() for p in self.parts if isinstance(p, torch.UntypedStorage)]
        if (size := sum(sizes) + len(self._image)) > LARGE:
            warnings.warn(
                f"The ClientApp uses {size / 1e6:.0f} MB of data from outside its "
                "functions, and every message copies all of it: load the data inside "
                "the function, or keep it in a module that you import, which is not "
                "copied.",
                stacklevel=3,  # who makes the grid
            )

    def fresh_copy(self) -> ClientApp:
        """Return the app as it was when the run began."""
        return _AppUnpickler(io.BytesIO(self._image), self).load()


class _AppPickler(cloudpickle.Pickler):
    """Pickles all by value but these parts: modules, classes, tensors and storages."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.parts: list[Any] = []
        self.storage_of: dict[int, int] = {}  # by a tensor's index, that of its storage
        self.uses: Counter[int] = Counter()  # of storages
        self._known: dict[Any, int] = {}
        self._alive: list[Any] = []  # so that no id and no address is used again

    def persistent_id(self, value: Any) -> int | None:
        if isinstance(value, (type, types.ModuleType)):
            return self._index(id(value), value, value)
        if isinstance(value, torch.UntypedStorage):
            # By address: two objects may stand for one storage.
            key = (value.device, value.data_ptr()) if value.nbytes() else id(value)
            part = None if key in self._known else value.clone()
            index = self._index(key, value, part)
            self.uses[index] += 1
            return index
        if type(value) in (torch.Tensor, torch.nn.Parameter) and _is_plain(value):
            if id(value) not in self._known:
                storage = self.persistent_id(value.untyped_storage())
                self.storage_of[len(self.parts)] = storage
                self._index(id(value), value, _on_storage(self.parts[storage], value))
            return self._known[id(value)]
        return None

    def reducer_override(self, value: Any) -> Any:
        # Other tensors (sparse, subclasses) torch takes apart itself, to storages.
        if isinstance(value, torch.storage.TypedStorage):
            return _typed_storage, (value._untyped_storage, value.dtype)
        return super().reducer_override(value)

    def _index(self, key: Any, value: Any, part: Any) -> int:
        if key not in self._known:
            self._known[key] = len(self.parts)
            self.parts.append(part)
            self._alive.append(value)
        return self._known[key]


class _AppUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, image: AppImage) -> None:
        super().__init__(file)
        self._image = image
        self._made: dict[int, Any] = {}

    def persistent_load(self, index: int) -> Any:
        if index not in self._made:
            self._made[index] = self._make(index)
        return self._made[index]

    def _make(self, index: int) -> Any:
        part = self._image.parts[index]
        if index in self._image.whole:  # storage and tensor in one step
            return _like(part, (part.detach() if part.requires_grad else part).clone())
        if index in self._image.storage_of:
            storage = self.persistent_load(self._image.storage_of[index])
            return _on_storage(storage, part)
        # Modules and classes are shared.
        return part.clone() if isinstance(part, torch.UntypedStorage) else part


def _is_plain(tensor: torch.Tensor) -> bool:
    """Return whether a storage and a place in it are all there is to a tensor."""
    if tensor.layout is not torch.strided or tensor.device.type not in ("cpu", "cuda"):
        return False
    odd = tensor.is_quantized or tensor.is_conj() or tensor.is_neg()
    return not (odd or vars(tensor) or tensor._backward_hooks)


def _on_storage(storage: torch.UntypedStorage, model: torch.Tensor) -> torch.Tensor:
    """Make a tensor that lies on a storage as another one lies on its own."""
    tensor = torch.empty(0, dtype=model.dtype, device=storage.device)
    place = model.storage_offset(), model.size(), model.stride()
    return _like(model, tensor.set_(storage, *place))


def _like(model: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    if isinstance(model, torch.nn.Parameter):
        return torch.nn.Parameter(tensor, model.requires_grad)
    return tensor.requires_grad_() if model.requires_grad else tensor


def _typed_storage(
    storage: torch.UntypedStorage, dtype: torch.dtype
) -> torch.storage.TypedStorage:
    return torch.storage.TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)


# ---------------------------------------------------------- what a process has but once

_PROCESS = threading.RLock()


@contextmanager
def alone() -> Iterator[None]:
    """Hold Flower's identity and the random generators; a thread may do so twice.

    Raises
    ------
    RuntimeError
        If another thread holds them.
    """
    if not _PROCESS.acquire(blocking=False):
        raise RuntimeError(
            "A run, or a message to a grid, goes on in another thread. They share the "
            "process's random numbers and its identity in Flower: start this one when "
            "the other has ended, or in another process."
        )
    try:
        yield
    finally:
        _PROCESS.release()


def get_identity() -> tuple[int | None, int | None, int | None]:
    return TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id


def set_identity(
    run_id: int | None, node_id: int | None, task_id: int | None = 1
) -> None:
    """Say in whose name this process creates messages."""
    TaskIdentity.run_id = run_id
    TaskIdentity.node_id = node_id
    TaskIdentity.task_id = task_id


@contextmanager
def identity(
    run_id: int | None, node_id: int | None, task_id: int | None = 1
) -> Iterator[None]:
    before = get_identity()
    set_identity(run_id, node_id, task_id)
    try:
        yield
    finally:
        set_identity(*before)


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Seed the three generators, and put them back as they were afterwards.

    That holds for the CPU. CUDA's generators are seeded, too, if the process uses CUDA
    already, but are not put back: the call that starts CUDA does not follow the seed
    there. MPS is never seeded. An app that wants more calls ``torch.manual_seed``.
    """
    if seed is None:
        yield
        return
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if torch.cuda.is_initialized():
        torch.manual_seed(seed % 2**64)
    else:  # the same for the CPU, without a millisecond's search for other devices
        torch.default_generator.manual_seed(seed % 2**64)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
