"""From (code object, instruction) to function, file and line; from a runtime to the walker's data.

The BPF walker sends addresses only. A code object is read once, when it first appears, and looked
at again by ``revalidate()``, since its memory can be freed and given to another one. What died
before it was read is said to be dead, never guessed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mwtrace.capi import ffi
from mwtrace.cpython.linetables import line_at
from mwtrace.cpython.runtime import Runtime
from mwtrace.remote import UnreadableMemory

CODES_MAX = 65536
_TEXT_MAX = 4096  # characters of a function's or file's name
_TABLE_BYTES_MAX = 1 << 20
_REFERENCES_MAX = 1 << 31
# 3.12 and later: frames whose owner is not below this have no code of their own (C-stack shims).
_OWNER_END = 3
_DEAD = "(code object is gone)"


class PythonFrame(NamedTuple):
    function: str  # the qualified name from 3.11 on
    file: str
    line: int | None  # None: an instruction that belongs to no line, or a dead code object
    is_dead: bool = False


@dataclass
class _Code:
    identity: bytes  # the words that tell whether another code object took its place
    function: str
    file: str
    first_line: int
    line_table: bytes
    lines: dict[int, int | None] = field(default_factory=dict)


class FrameResolver:
    """Resolves the frames of one process; bounded at CODES_MAX code objects."""

    def __init__(self, runtime: Runtime) -> None:
        self._memory = runtime.memory
        self._layout = runtime.layout
        self._code_type = runtime.code_type
        self._codes: dict[int, _Code] = {}
        self.dead_codes_total = 0
        self.replaced_codes_total = 0

    def resolve(self, code: int, instruction: int) -> PythonFrame:
        """Return what a frame of the walker means. Raises ProcessGone."""
        known = self._codes.get(code)
        if known is None:
            known = self._read(code)
            if known is None:
                self.dead_codes_total += 1
                return PythonFrame(_DEAD, "", None, is_dead=True)
            if len(self._codes) >= CODES_MAX:
                del self._codes[next(iter(self._codes))]
            self._codes[code] = known
        place = self._byte_offset(code, instruction)
        if place not in known.lines:
            known.lines[place] = line_at(
                self._layout.version.minor, known.line_table, known.first_line, place
            )
        return PythonFrame(known.function, known.file, known.lines[place])

    def revalidate(self) -> int:
        """Forget every code object whose place another one took; return how many."""
        addresses = list(self._codes)
        heads = self._memory.read_ranges([(a, self._head_bytes) for a in addresses])
        changed = 0
        for address, head in zip(addresses, heads):
            whole = len(head) == self._head_bytes
            if not whole or self._identity(head) != self._codes[address].identity:
                del self._codes[address]
                changed += 1
        self.replaced_codes_total += changed
        return changed

    def _byte_offset(self, code: int, instruction: int) -> int:
        minor = self._layout.version.minor
        if minor >= 11:
            return instruction - code - self._layout["co.code_adaptive"]
        # An index: of bytes, in 3.10 of instructions of two bytes.
        return instruction * 2 if minor == 10 else instruction

    @property
    def _head_bytes(self) -> int:
        names = ["co.filename", "co.name", "co.linetable", "co.firstlineno", "co.qualname"]
        return max(self._layout.get(name) or 0 for name in names) + 8

    def _identity(self, head: bytes) -> bytes:
        layout = self._layout
        places = [layout["co.name"], layout["co.filename"], layout["co.linetable"]]
        words = b"".join(head[place : place + 8] for place in places)
        first = layout["co.firstlineno"]
        return head[8:16] + words + head[first : first + 4]

    def _read(self, address: int) -> _Code | None:
        layout = self._layout
        try:
            head = self._memory.read(address, self._head_bytes)
            if not self._is_code(head):
                return None
            (first_line,) = struct.unpack_from("<i", head, layout["co.firstlineno"])
            name = layout.get("co.qualname") or layout["co.name"]
            return _Code(
                self._identity(head),
                self._text(_word(head, name)),
                self._text(_word(head, layout["co.filename"])),
                first_line,
                self._bytes(_word(head, layout["co.linetable"])),
            )
        except UnreadableMemory:
            return None

    def _is_code(self, head: bytes) -> bool:
        """A freed object keeps its type, but not its count of references."""
        count = _word(head, 0)
        if self._layout.version.minor >= 14:
            overflow = count >> 32 & 0xFFFF  # of the count; a heap address has bits there
            plausible = count & 0xFFFFFFFF != 0 and overflow < 0x100
        elif self._layout.version.minor >= 12:
            plausible = 0 < count <= 0xFFFFFFFF
        else:
            plausible = 0 < count < _REFERENCES_MAX
        return plausible and (self._code_type is None or _word(head, 8) == self._code_type)

    def _text(self, address: int) -> str:
        """Read a str; raises UnreadableMemory if it is none that we understand."""
        layout = self._layout
        head = self._memory.read(address, layout["uni.compact_size"])
        length = _word(head, layout["uni.length"])
        (state,) = struct.unpack_from("<I", head, layout["uni.state"])
        # Of the state: 2 bits interned, 3 kind, 1 compact, 1 ASCII; the same in all versions.
        width, is_ascii = state >> 2 & 7, state >> 6 & 1
        if width not in (1, 2, 4) or length >= 1 << 32:
            raise UnreadableMemory(f"no str at {address:#x}")
        size = layout["uni.ascii_size"] if is_ascii else layout["uni.compact_size"]
        data = self._memory.read(address + size, min(length, _TEXT_MAX) * width)
        return data.decode({1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}[width], "replace")

    def _bytes(self, address: int) -> bytes:
        layout = self._layout
        size = self._memory.u64(address + layout["var.size"])
        if size > _TABLE_BYTES_MAX:
            raise UnreadableMemory(f"no bytes object at {address:#x}")
        return self._memory.read(address + layout["bytes.sval"], size)


def _word(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 8], "little")


def walker_settings(runtime: Runtime) -> Any:
    """Return a ``struct mw_python *`` for the BPF walker's map ``pythons``."""
    layout = runtime.layout
    frame = next(
        layout[name]
        for name in ("ts.frame", "ts.cframe", "ts.current_frame")
        if layout.get(name) is not None
    )
    instruction = layout.get("fr.instr")
    cframe = layout.get("cframe.current_frame")
    return ffi.new(
        "struct mw_python *",
        {
            "gil_holder_address": runtime.gil_holder_address,
            "thread_id": layout["ts.thread_id"],
            "thread_frame": frame,
            "cframe_frame": -1 if cframe is None else cframe,
            "frame_previous": layout["fr.previous"],
            "frame_code": layout["fr.code"],
            "frame_instruction": layout["fr.lasti"] if instruction is None else instruction,
            "frame_owner": layout.get("fr.owner") or 0,
            "instruction_bytes": 4 if instruction is None else 8,
            "owner_end": 0 if layout.get("fr.owner") is None else _OWNER_END,
        },
    )


def walker_threads(runtime: Runtime) -> list[tuple[Any, Any]]:
    """Return keys and values (``struct mw_python_thread *``, ``uint64_t *``) for the BPF walker's
    map ``python_threads``."""
    return [
        (
            ffi.new("struct mw_python_thread *", (thread.thread_pointer, runtime.memory.pid, 0)),
            ffi.new("uint64_t *", thread.state),
        )
        for thread in runtime.threads()
        if thread.thread_pointer
    ]
