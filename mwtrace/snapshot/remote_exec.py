"""CPython 3.14 and later: the interpreter's own way to be given a script (PEP 768).

A thread's state has room for a path and a flag; at its next safe point the thread runs the script.
The operator of a service can forbid it (PYTHON_DISABLE_REMOTE_DEBUG, -X disable-remote-debug), and
then nothing else is tried either.
"""

from __future__ import annotations

import struct

from mwtrace.cpython.runtime import Runtime
from mwtrace.snapshot.points import Busy, Progress, Refused, not_ending, threads_as_seen
from mwtrace.snapshot.stopping import Edit, expect, set_bits, write

_PLEASE_STOP_BIT = 1 << 5  # _PY_EVAL_PLEASE_STOP_BIT


class RemoteExec:
    """Has one script run. Not for several threads."""

    name = "PEP 768"
    moves_after_s = 0.05

    def __init__(self, runtime: Runtime, path: str) -> None:
        self._runtime = runtime
        self._memory, self._layout = runtime.memory, runtime.layout
        self._path = path.encode() + b"\0"
        self._state = 0
        if not is_offered(runtime):
            raise Refused(f"the CPython of process {self._memory.pid} was built without PEP 768")
        if len(self._path) > self._layout["rd.path_size"]:
            raise Refused(f"the path {path} is too long for process {self._memory.pid}")

    def edits(self) -> list[Edit]:
        layout, memory = self._layout, self._memory
        enabled = self._runtime.interpreter + layout["is.remote_debug"]
        if memory.read(enabled, 4) != _int(1):
            raise Refused(
                f"process {memory.pid} was started with remote debugging disabled",
                "PYTHON_DISABLE_REMOTE_DEBUG or -X disable-remote-debug says so: it is respected.",
            )
        states, conditions = threads_as_seen(self._runtime, self._runtime.interpreter)
        if not states:
            raise Busy(f"process {memory.pid} has no Python thread")
        # A thread that waits comes to no safe point; who had the interpreter last is likely to
        # have it again.
        holder = memory.u64(self._runtime.gil_holder_address)
        self._state = holder if holder in states else states[-1]
        pending = self._at("rd.pending")
        if memory.read(pending, 4) != _int(0):
            raise Busy(f"process {memory.pid} is asked to run another script")
        return [
            not_ending(self._runtime),
            expect(enabled, _int(1), "remote debugging was disabled"),
            expect(pending, _int(0), "it is asked to run another script"),
            *conditions,
            write(self._at("rd.path"), self._path),
            write(pending, _int(1)),
            set_bits(self._state + layout["ts.eval_breaker"], struct.pack("<Q", _PLEASE_STOP_BIT)),
        ]

    def progress(self) -> Progress:
        # That it has run to its end only the script's own file tells.
        waits = self._memory.read(self._at("rd.pending"), 4) == _int(1)
        return Progress.WAITING if waits else Progress.RUNNING

    def retraction(self) -> list[Edit]:
        # The thread may be gone by now, and its state be somebody else's memory.
        states, conditions = threads_as_seen(self._runtime, self._runtime.interpreter)
        if self._state not in states:
            return []
        pending = self._at("rd.pending")
        return [
            *conditions,
            expect(pending, _int(1), "the script began"),
            expect(self._at("rd.path"), self._path, "it is asked to run another script"),
            write(pending, _int(0)),
        ]

    def settle(self) -> None:
        pass  # the path stays until the next one, as with any other debugger

    def _at(self, name: str) -> int:
        return self._state + self._layout["ts.remote_debugger"] + self._layout[name]


def is_offered(runtime: Runtime) -> bool:
    """Whether this interpreter has PEP 768 at all."""
    names = ("ts.remote_debugger", "is.remote_debug", "rd.pending", "rd.path", "rd.path_size")
    return all(runtime.layout.get(name) for name in names if name != "rd.pending") and (
        runtime.layout.get("rd.pending") is not None
    )


def _int(value: int) -> bytes:
    return struct.pack("<i", value)
