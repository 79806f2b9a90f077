"""CPython 3.8 to 3.13: a script as a pending call, which the interpreter makes at a safe point.

The interpreter keeps a ring of C functions to call between two bytecodes (Py_AddPendingCall). We
put two into it: PyRun_SimpleString with a line that runs the script, and behind it a call that
does nothing. When the second is taken out of the ring, the first has returned: nothing else tells.

Up to 3.11 only the main thread makes pending calls, so one that sleeps or waits makes none until
it wakes; from 3.12 on any thread of the main interpreter does. What nobody made by the deadline
is taken back: a call is made once or never.
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

from mwtrace.cpython.images import Symbols
from mwtrace.cpython.runtime import Runtime
from mwtrace.remote import UnreadableMemory
from mwtrace.snapshot.points import Busy, Progress, Refused, not_ending, threads_as_seen
from mwtrace.snapshot.scratch import find_scratch
from mwtrace.snapshot.stopping import Edit, edit_stopped, expect, set_bits, write

_ANY_THREAD_MINOR = 12
_WORD_BREAKER_MINOR = 13  # each thread has a word of bits, and the ring a mutex and a count
_CALLS_MAX = 300  # no version has a longer ring

# PyRun_SimpleString() runs it in __main__, where any name may be taken, and a failure of it would
# end as a SystemError in the program: so it fails in no way, and binds nothing.
_LINE = (
    "try:__import__('builtins').exec(__import__('io').open({path!r},encoding='utf-8').read(),"
    "{{'__name__':'_mwtrace'}})\n"
    "except Exception:pass\n"
)


class _Ring(NamedTuple):
    first: int
    last: int
    waiting: int  # 3.13 on; else 0


class PendingCall:
    """Has one script run. Not for several threads."""

    name = "pending call"
    moves_after_s = math.inf

    def __init__(self, runtime: Runtime, path: str) -> None:
        self._runtime = runtime
        self._memory, self._layout = runtime.memory, runtime.layout
        self._minor = runtime.version.minor
        self._line = _LINE.format(path=path).encode() + b"\0"
        symbols = Symbols(runtime.memory, runtime.image)
        # PyCallable_Check(NULL) is the shortest call that returns 0 and does nothing else.
        run, nothing = symbols.address("PyRun_SimpleString"), symbols.address("PyCallable_Check")
        if run is None or nothing is None:
            raise Refused(
                f"the CPython of process {self._memory.pid} does not export PyRun_SimpleString",
                "Start the service with mwtrace's hook instead.",
            )
        self._run, self._nothing = run, nothing
        in_interpreter = self._layout.get("is.pending")
        if in_interpreter is not None:
            self._ring = runtime.interpreter + in_interpreter
        else:
            self._ring = runtime.address + self._layout["rt.pending"]
        self._own = 0  # the index of our first call
        self._scratch = 0

    def edits(self) -> list[Edit]:
        self._check_shape()
        ring = self._read()
        slots = self._slots()
        self._own = ring.last
        room = slots - 1 if not self._has_count() else self._max()
        if (ring.last - ring.first) % slots + 2 > room:
            raise Busy(f"the pending calls of process {self._memory.pid} are full")
        scratch = find_scratch(self._memory, len(self._line) + 8, self._runtime.image)
        if scratch is None:
            raise Refused(
                f"process {self._memory.pid} has no {len(self._line)} bytes of memory to spare",
                "Start the service with mwtrace's hook instead.",
            )
        self._scratch = scratch
        edits = [
            not_ending(self._runtime),
            *self._unlocked(),
            self._expect_index("pc.first", ring.first),
            self._expect_index("pc.last", ring.last),
            expect(scratch, bytes(len(self._line)), "its spare memory is in use"),
        ]
        if self._has_count():
            edits.append(self._expect_index("pc.npending", ring.waiting))
        # Conditions before changes; the index that makes our calls count comes last.
        changes = [
            write(scratch, self._line),
            write(self._slot(ring.last), self._call(self._run, scratch)),
            write(self._slot((ring.last + 1) % slots), self._call(self._nothing, 0)),
            write(self._ring + self._layout["pc.last"], _int((ring.last + 2) % slots)),
        ]
        conditions, flags = self._flags(ring.waiting + 2)
        return [*edits, *conditions, *changes, *flags]

    def progress(self) -> Progress:
        ring = self._read()
        taken = (ring.first - self._own) % self._slots()
        # Behind us is nothing that could be taken before us: so near the start is far enough.
        if taken == 0 or taken > self._slots() // 2:
            return Progress.WAITING
        return Progress.RUNNING if taken == 1 else Progress.DONE

    def retraction(self) -> list[Edit]:
        """Take the calls out, or what stands behind them would be lost: make them do nothing."""
        ring, slots = self._read(), self._slots()
        end = (self._own + 2) % slots
        edits = [
            *self._unlocked(),
            self._expect_index("pc.first", self._own),
            expect(
                self._slot(self._own),
                self._call(self._run, self._scratch),
                "the pending call began",
            ),
            self._expect_index("pc.last", ring.last),
        ]
        changes = [write(self._slot(self._own), self._call(self._nothing, 0))]
        if ring.last == end:
            empty = bytes(self._layout["pc.call_size"])
            changes = [
                write(self._slot(self._own), empty),
                write(self._slot((self._own + 1) % slots), empty),
                write(self._ring + self._layout["pc.last"], _int(self._own)),
            ]
            if self._has_count():
                edits.append(self._expect_index("pc.npending", ring.waiting))
                place = self._ring + self._layout["pc.npending"]
                changes.append(write(place, _int(ring.waiting - 2)))
        return [*edits, *changes]

    def settle(self) -> None:
        """Make the spare memory zero again: nobody reads the line any more."""
        edit_stopped(
            self._memory.pid,
            [
                expect(self._scratch, self._line, "its spare memory is not ours any more"),
                write(self._scratch, bytes(len(self._line))),
            ],
        )

    # ---- the ring

    def _has_count(self) -> bool:
        return self._minor >= _WORD_BREAKER_MINOR

    def _slots(self) -> int:
        return self._layout["pc.ncalls"]

    def _max(self) -> int:
        return self._int32("pc.max")

    def _int32(self, name: str) -> int:
        data = self._memory.read(self._ring + self._layout[name], 4)
        return int.from_bytes(data, "little", signed=True)

    def _read(self) -> _Ring:
        waiting = self._int32("pc.npending") if self._has_count() else 0
        return _Ring(self._int32("pc.first"), self._int32("pc.last"), waiting)

    def _slot(self, index: int) -> int:
        return self._ring + self._layout["pc.calls"] + index * self._layout["pc.call_size"]

    def _call(self, function: int, argument: int) -> bytes:
        # From 3.13 on flags follow: 0, an ordinary call.
        size_bytes = self._layout["pc.call_size"]
        return struct.pack("<QQ", function, argument).ljust(size_bytes, b"\0")

    def _expect_index(self, name: str, value: int) -> Edit:
        what = "a pending call came or went"
        return expect(self._ring + self._layout[name], _int(value), what)

    def _check_shape(self) -> None:
        """Raise Refused unless what the tables call the ring looks like one.

        A patch release that nobody measured may have moved it.
        """
        pid = self._memory.pid
        ring, slots = self._read(), self._slots()
        is_sane = slots <= _CALLS_MAX and 0 <= ring.first < slots and 0 <= ring.last < slots
        if is_sane and self._has_count():
            is_sane = 0 < self._max() <= slots and 0 <= ring.waiting <= self._max()
            is_sane = is_sane and (ring.last - ring.first) % slots == ring.waiting
        if is_sane and ring.first == ring.last and not self._has_count():
            is_sane = self._int32("pc.calls_to_do") in (0, 1)
        if is_sane and not self._has_count():
            is_sane = self._lock_value() in (0, 1)
        if not is_sane:
            raise Refused(
                f"the pending calls of process {pid} (CPython {self._runtime.version}) are laid "
                "out in another way",
                "A newer mwtrace may know this version; or use mwtrace's hook.",
            )

    # The lock is a semaphore of the C library, whose first word is 1 while nobody holds it.
    def _lock_value(self) -> int:
        lock = self._memory.u64(self._ring + self._layout["pc.lock"])
        if not lock or lock & 7:
            return -1
        try:
            return int.from_bytes(self._memory.read(lock, 4), "little")
        except UnreadableMemory:
            return -1

    def _unlocked(self) -> list[Edit]:
        what = "a pending call is just being added or taken"
        if self._has_count():
            return [expect(self._ring + self._layout["pc.mutex"], b"\0", what)]
        pointer = self._memory.read(self._ring + self._layout["pc.lock"], 8)
        return [
            expect(self._ring + self._layout["pc.lock"], pointer, what),
            expect(int.from_bytes(pointer, "little"), _int(1), what),
        ]

    def _flags(self, waiting: int) -> tuple[list[Edit], list[Edit]]:
        """Conditions and changes that make the interpreter look at its ring."""
        layout = self._layout
        if not self._has_count():
            breaker = layout.get("is.eval_breaker")
            if breaker is not None:
                address = self._runtime.interpreter + breaker
            else:
                address = self._runtime.address + layout["rt.eval_breaker"]
            return [], [
                write(self._ring + layout["pc.calls_to_do"], _int(1)),
                write(address, _int(1)),
            ]
        states, conditions = threads_as_seen(self._runtime, self._runtime.interpreter)
        bit = struct.pack("<Q", layout["eval_breaker_calls_bit"])
        changes = [set_bits(state + layout["ts.eval_breaker"], bit) for state in states]
        return conditions, [
            write(self._ring + layout["pc.npending"], _int(waiting)),
            *changes,
        ]


def _int(value: int) -> bytes:
    return struct.pack("<i", value)
