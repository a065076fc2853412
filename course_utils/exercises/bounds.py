"""What an answer cannot do to the notebook: run for ever, flood it, or change it."""

import contextlib
import ctypes
import io
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from course_utils import isolation

FOLDER = Path(__file__).parent
TICK = 0.05
"""Seconds from one try to stop a function to the next."""


class TookTooLong(BaseException):
    """The time of a check is over. Not an Exception, so that few answers catch it.

    A loop may catch all. So when it is made, it sees to it that it is raised again at
    the next line of the functions that are running, or of some of them: other ones each
    time. Sooner or later that is not a line inside of "try".
    """

    made = count()

    def __init__(self, frame: FrameType | None = None) -> None:
        super().__init__()
        frames, frame = [], frame or sys._getframe(1)
        while frame and Path(frame.f_code.co_filename).parent != FOLDER:
            frames.append(frame)
            frame = frame.f_back
        if frames:
            for each in frames[next(self.made) % len(frames) :]:
                each.f_trace = _raise_again
            sys.settrace(lambda *event: None)


def _raise_again(frame: FrameType, event: str, argument: Any) -> Callable:
    if event == "line":
        raise TookTooLong
    return _raise_again


def _cleans_up(frame: FrameType | None) -> bool:
    """Whether this is code that puts things back, and must come to its end."""
    files = (__file__, contextlib.__file__, isolation.__file__)
    return frame is None or frame.f_code.co_filename in files


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TookTooLong in what is inside once it has taken so long.

    In the main thread of Linux and macOS a signal does it, which also ends a wait. In
    other threads, and on Windows, another thread does it: there, a call that waits
    outside of Python, such as ``time.sleep(1000)``, is stopped only when it returns,
    and loops in loops that catch all are not.
    """
    in_main = threading.current_thread() is threading.main_thread()
    by_signal = in_main and hasattr(signal, "setitimer")
    tracer = sys.gettrace()
    end = _by_signal(seconds) if by_signal else _by_thread(seconds)
    try:
        yield
    finally:
        end()
        sys.settrace(tracer)


def _by_signal(seconds: float) -> Callable[[], None]:
    """Begin a time limit, and return what ends it."""
    ticks = count()

    def stop(number: int, frame: FrameType | None) -> None:
        late = None if _cleans_up(frame) else TookTooLong(frame)
        # Loops in loops that catch all are left by one straight after the other.
        signal.setitimer(signal.ITIMER_REAL, TICK if next(ticks) < 20 else TICK / 500)
        if late:
            raise late

    before, start = signal.signal(signal.SIGALRM, stop), time.monotonic()
    others, again = signal.setitimer(signal.ITIMER_REAL, seconds)

    def end() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if others:  # such as that of pytest-timeout
            left = max(others - (time.monotonic() - start), TICK)
            signal.setitimer(signal.ITIMER_REAL, left, again)

    return end


def _by_thread(seconds: float) -> Callable[[], None]:
    ident, done = threading.get_ident(), threading.Event()
    throw = ctypes.pythonapi.PyThreadState_SetAsyncExc

    def watch() -> None:
        late = not done.wait(seconds)
        while late:
            if not _cleans_up(sys._current_frames().get(ident)):
                throw(ctypes.c_ulong(ident), ctypes.py_object(TookTooLong))
            late = not done.wait(TICK)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()

    def end() -> None:
        done.set()
        watcher.join()

    return end


class _Cut(io.TextIOBase):
    """A stream that passes on the beginning of what is printed."""

    def __init__(self, stream: Any, lines: int) -> None:
        self._stream, self._left = stream, 80 * lines

    def write(self, text: str) -> int:
        if self._left > 0:
            self._stream.write(text[: self._left])
            self._left -= len(text) + 80 * text.count("\n")
            if self._left <= 0:
                self._stream.write("\n... (the rest of what is printed is left out)\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


@contextmanager
def prints_cut(lines: int = 20) -> Iterator[None]:
    """Let what is inside print about so many lines, and no more."""
    out, errors = _Cut(sys.stdout, lines), _Cut(sys.stderr, lines)
    with redirect_stdout(out), redirect_stderr(errors):
        yield


@contextmanager
def fresh_process(seed: int) -> Iterator[None]:
    """Put aside what a notebook, or an answer, may have set for the whole process.

    These are the random generators, PyTorch's default type and device and its gradient
    mode, NumPy's handling of errors, and filters of warnings.
    """
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    torch.set_default_dtype(torch.float32)
    try:
        with (
            nullcontext() if device.type == "cpu" else torch.device("cpu"),
            torch.enable_grad(),
            np.errstate(all="ignore"),
            warnings.catch_warnings(action="ignore"),
            isolation.seeded(seed),
        ):
            yield
    finally:
        torch.set_default_dtype(dtype)
