"""Programs that leak, or only look like it: what to point mwtrace at to see what it says.

Each shape is one small allocator of a known kind, paced by the monotonic clock so that it takes
the bytes per second it was asked for. Standard library only, and none of the watching is known
here: these are the watched.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import random
import signal
import threading
import time
import tracemalloc
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from types import FrameType
from typing import Callable

from mwtrace.errors import ConfigError

_STEP_S = 0.05
_CACHE_BYTES_MAX = 64 * 1024 * 1024
_CACHE_VALUE_BYTES = (2 * 1024, 14 * 1024)
# All keys together are a quarter more than the bound, so it keeps churning once it is full.
_CACHE_KEYS = _CACHE_BYTES_MAX * 5 // 4 // (sum(_CACHE_VALUE_BYTES) // 2)
_CACHE_SKEW = 1.3  # above 1: low keys are asked for more often
_CHURN_BYTES_HELD = 8 * 1024 * 1024
_SAWTOOTH_PERIOD_S = 20.0
_JUMP_AFTER_S = 10.0
_JUMP_IS_WORTH_S = 60.0
_BLOCK_SIZES = (64, 200, 520, 1_100, 2_300, 4_800, 9_700, 20_000, 64, 200, 520)
_MAPPING_BYTES = 64 * 1024
_MEASURED_SESSIONS = 500


class Shape(ABC):
    """One way to use memory; ``grow`` is called until it has taken what the clock asks for."""

    what: str  # for the ready line: "leaking N bytes/s as ..."
    verb = "leaking"

    @abstractmethod
    def grow(self) -> int:
        """Take one piece; return its bytes."""

    def tick(self, elapsed_s: float) -> None:  # noqa: B027 - most shapes have no clock of their own
        """Do what depends on the time alone."""

    def close(self) -> None:  # noqa: B027 - nor anything to undo
        """Put back what was changed for the whole interpreter."""

    def wants_bytes(self, rate_bytes_per_second: float, elapsed_s: float) -> float:
        """How much it should have taken by now."""
        return rate_bytes_per_second * elapsed_s


class Session:
    """What a web service forgets to throw away."""

    def __init__(self, number: int) -> None:
        self.token = f"session-{number:020d}"
        self.data = {"user": f"user-{number}", "basket": [number, number + 1], "seen": number * 3.5}


REGISTRY: list[Session] = []


def session_bytes() -> int:
    """Measure what one session takes of CPython's allocator, which rounds up to 16 bytes."""
    tracemalloc.start()
    try:
        sessions = [Session(10**9 + number) for number in range(_MEASURED_SESSIONS)]
        traces = tracemalloc.take_snapshot().traces
    finally:
        tracemalloc.stop()
    rounded_bytes = sum((trace.size + 15) & ~15 for trace in traces)
    return rounded_bytes // len(sessions)


class LeakObjects(Shape):
    what = "objects"

    def __init__(self) -> None:
        self._session_bytes = session_bytes()

    def grow(self) -> int:
        REGISTRY.append(Session(10**9 + len(REGISTRY)))
        return self._session_bytes


class LeakNative(Shape):
    what = "native blocks"

    def __init__(self) -> None:
        self._malloc = ctypes.CDLL(None, use_errno=True).malloc
        self._malloc.restype = ctypes.c_void_p
        self._malloc.argtypes = [ctypes.c_size_t]
        self._count = 0

    def grow(self) -> int:
        size_bytes = _BLOCK_SIZES[self._count % len(_BLOCK_SIZES)]
        self._count += 1
        address = self._malloc(size_bytes)
        if not address:
            raise MemoryError(f"malloc({size_bytes})")
        ctypes.memset(address, 0x5A, size_bytes)  # untouched memory would not be resident
        return size_bytes


class LeakMappings(Shape):
    what = "anonymous mappings"

    def __init__(self) -> None:
        self._mappings: list[mmap.mmap] = []

    def grow(self) -> int:
        # Private: a shared one would be a file in memory, which is no private memory.
        mapping = mmap.mmap(-1, _MAPPING_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        mapping.write(b"\x5a" * _MAPPING_BYTES)
        self._mappings.append(mapping)
        return _MAPPING_BYTES


class Cache(Shape):
    """Asked for random keys of which some are asked for often, and bounded.

    A miss fills, so it grows fast while empty, slower as more is found, and stays at its bound
    while old values go for new ones.
    """

    what = "a cache that fills to its bound"
    verb = "asking"

    def __init__(self) -> None:
        self._values: OrderedDict[int, bytes] = OrderedDict()
        self.held_bytes = 0
        self._random = random.Random(1)

    def grow(self) -> int:
        key = int(_CACHE_KEYS * self._random.random() ** _CACHE_SKEW)
        size_bytes = self._random.randint(*_CACHE_VALUE_BYTES)
        if key in self._values:
            self._values.move_to_end(key)
            return size_bytes  # what was asked for paces it, found or not
        self._values[key] = bytes(size_bytes)
        self.held_bytes += size_bytes
        while self.held_bytes > _CACHE_BYTES_MAX:
            self.held_bytes -= len(self._values.popitem(last=False)[1])
        return size_bytes


class Sawtooth(Shape):
    """Cyclic garbage that waits for the collector, which comes now and then."""

    what = f"garbage, collected every {_SAWTOOTH_PERIOD_S:.0f} s"
    verb = "allocating"

    def __init__(self) -> None:
        self._session_bytes = session_bytes()
        self._collections = 0
        self._last: Session | None = None
        gc.disable()

    def close(self) -> None:
        self._last = None
        gc.enable()

    def grow(self) -> int:
        session = Session(10**9)
        session.data["previous"] = self._last
        session.data["self"] = session
        self._last = session
        return self._session_bytes

    def tick(self, elapsed_s: float) -> None:
        if elapsed_s >= (self._collections + 1) * _SAWTOOTH_PERIOD_S:
            self._collections += 1
            self._last = None
            gc.collect()


class Step(Shape):
    """Jumps once, as after loading a model, and stays."""

    what = f"one jump worth {_JUMP_IS_WORTH_S:.0f} s of it, after {_JUMP_AFTER_S:.0f} s"
    verb = "allocating"

    def __init__(self) -> None:
        self._held: list[bytes] = []

    def grow(self) -> int:
        self._held.append(b"\x5a" * _MAPPING_BYTES)
        return _MAPPING_BYTES

    def wants_bytes(self, rate_bytes_per_second: float, elapsed_s: float) -> float:
        return rate_bytes_per_second * _JUMP_IS_WORTH_S if elapsed_s >= _JUMP_AFTER_S else 0.0


class Steady(Shape):
    """Busy and healthy: what comes in goes out again."""

    what = "objects that are freed again"
    verb = "allocating"

    def __init__(self) -> None:
        self._session_bytes = session_bytes()
        self._held: deque[Session] = deque(maxlen=_CHURN_BYTES_HELD // self._session_bytes)

    def grow(self) -> int:
        self._held.append(Session(10**9))
        return self._session_bytes


SHAPES: dict[str, Callable[[], Shape]] = {
    "leak-objects": LeakObjects,
    "leak-native": LeakNative,
    "leak-mmap": LeakMappings,
    "cache": Cache,
    "sawtooth": Sawtooth,
    "step": Step,
    "steady": Steady,
}


class _Stopping:
    """No threading.Event: a handler would wait for a lock that the interrupted code holds."""

    is_asked = False


def run(shape: str, rate_bytes_per_second: float, seconds: float | None = None) -> int:
    """Use memory in that shape until the time is over, SIGTERM or SIGINT; return bytes taken.

    Prints one line when it begins. What it took is held at least until it returns.
    """
    if shape not in SHAPES:
        remedy = f"Choose one of: {', '.join(SHAPES)}."
        raise ConfigError(f"no such demo: {ascii(shape)}", remedy)
    worker = SHAPES[shape]()
    stopping = _Stopping()
    before = _stop_on_signals(stopping)
    rate = f"{rate_bytes_per_second:.0f}"
    print(f"ready: {worker.verb} {rate} bytes/s as {worker.what}; pid {os.getpid()}", flush=True)
    try:
        return _pace(worker, rate_bytes_per_second, seconds, stopping)
    finally:
        worker.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def _pace(
    worker: Shape, rate_bytes_per_second: float, seconds: float | None, stop: _Stopping
) -> int:
    began_s = time.monotonic()
    taken_bytes = 0
    while not stop.is_asked:
        elapsed_s = time.monotonic() - began_s
        over = seconds is not None and elapsed_s >= seconds
        if over and seconds is not None:
            elapsed_s = seconds
        worker.tick(elapsed_s)
        wanted_bytes = worker.wants_bytes(rate_bytes_per_second, elapsed_s)
        # Against the clock, not against the last step, so that no step's rounding adds up.
        while taken_bytes < wanted_bytes and not stop.is_asked:
            taken_bytes += worker.grow()
        if over:
            break
        time.sleep(_STEP_S)
    return taken_bytes


def _stop_on_signals(stop: _Stopping) -> dict[signal.Signals, signal._HANDLER]:
    # Handlers can be set in the main thread only; elsewhere the time is what ends it.
    if threading.current_thread() is not threading.main_thread():
        return {}

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.is_asked = True

    return {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
