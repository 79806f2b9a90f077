"""The running frames of a process's threads, and what its interpreter holds: where a graph begins.

Read from outside, for a snapshot's roots. From 3.11 on a running frame is no object, so it gets a
row of its own in the file. Everything read is hostile: chains and counts are bounded. Knows no
file format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mwtrace.cpython.frames import FrameResolver
from mwtrace.cpython.runtime import Runtime, find_runtime
from mwtrace.errors import ProcessError, ProcessGone
from mwtrace.evidence.image import Image
from mwtrace.remote import RemoteMemory, UnreadableMemory

FRAMES_MAX = 65_536  # in all
FRAMES_PER_THREAD_MAX = 4096
_WORDS_MAX = 4096  # of one
_LOCALS_AT = {11: 72, 12: 72, 13: 72, 14: 80, 15: 80}  # of an interpreter frame
_OWNER_END = 3  # frames of C calls into the interpreter have no code of their own


class RunningFrame(NamedTuple):
    address: int
    is_object: bool  # up to 3.10; then it is in the graph already
    text: str  # "thread 1234: function (file:line)"
    code: int
    words: tuple[int, ...]  # what may be references in it
    locals_at: int  # the index of the first local among them


class ImageMemory(RemoteMemory):
    """Memory as an image reads it: pages that are not there stay away, shared ones stay shared."""

    def __init__(self, image: Image) -> None:
        super().__init__(image.pid)
        self._image = image

    def read_some(self, address: int, size_bytes: int) -> bytes:
        if not 0 <= address < 1 << 47 or size_bytes < 0:
            return b""
        data = b""
        # An image's answer ends where present pages do.
        while len(data) < size_bytes:
            piece = self._image.read(address + len(data), size_bytes - len(data))
            if not piece:
                break
            data += piece
        return data

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return [self.read_some(address, size_bytes) for address, size_bytes in ranges]


def read_runtime(image: Image) -> Runtime | None:
    """Return the interpreter's structures; None if they are laid out in a way nobody knows."""
    try:
        return find_runtime(image.pid, ImageMemory(image))
    except ProcessGone:
        raise
    except ProcessError:
        return None


def sys_modules(runtime: Runtime) -> int:
    """Return the address of the dict sys.modules, 0 if it cannot be told."""
    place = runtime.layout.get("is.modules")
    try:
        return runtime.memory.u64(runtime.interpreter + place) if place is not None else 0
    except UnreadableMemory:
        return 0


def running_frames(runtime: Runtime) -> list[RunningFrame]:
    """Return the frames of all threads, each thread's innermost first. Raises ProcessGone."""
    resolver = FrameResolver(runtime)
    found: list[RunningFrame] = []
    native = runtime.layout.get("ts.native_thread_id")
    for thread in runtime.threads():
        try:
            name = runtime.memory.u64(thread.state + native) if native else thread.thread_pointer
            for frame in _frames(runtime, resolver, thread.state, f"thread {name}"):
                found.append(frame)
                if len(found) == FRAMES_MAX:
                    return found
        except UnreadableMemory:
            continue  # it ran on while it was read
    return found


def _frames(
    runtime: Runtime, resolver: FrameResolver, thread: int, name: str
) -> Iterator[RunningFrame]:
    memory, layout = runtime.memory, runtime.layout
    minor = layout.version.minor
    is_object = minor <= 10
    head_bytes = layout["fr.lasti"] + 4 if is_object else _LOCALS_AT[minor]
    owner = layout.get("fr.owner")
    at = _innermost(runtime, thread)
    for _ in range(FRAMES_PER_THREAD_MAX):
        if not at:
            return
        head = memory.read(at, head_bytes)
        code = _word(head, layout["fr.code"]) & ~7
        if owner is None or head[owner] < _OWNER_END:
            place = _instruction(runtime, head)
            frame = resolver.resolve(code, place)
            text = f"{name}: {frame.function} ({frame.file}:{frame.line or 0})"
            words = () if is_object else _words(runtime, at, head, code)
            yield RunningFrame(at, is_object, text, code, words, head_bytes // 8)
        at = _word(head, layout["fr.previous"])


def _innermost(runtime: Runtime, thread: int) -> int:
    memory, layout = runtime.memory, runtime.layout
    for name in ("ts.frame", "ts.current_frame"):
        place = layout.get(name)
        if place is not None:
            return memory.u64(thread + place)
    cframe = memory.u64(thread + layout["ts.cframe"])
    return memory.u64(cframe + layout["cframe.current_frame"]) if cframe else 0


def _instruction(runtime: Runtime, head: bytes) -> int:
    place = runtime.layout.get("fr.instr")
    if place is not None:
        return _word(head, place)
    return int.from_bytes(head[-4:], "little", signed=True)


def _words(runtime: Runtime, frame: int, head: bytes, code: int) -> tuple[int, ...]:
    """Return the words of a frame of 3.11 and later: its head, its locals and its value stack.

    How high the stack is only the running code knows; what lies above that was left there, and is
    taken for a reference if an object is still at that address.
    """
    memory, first_line = runtime.memory, runtime.layout["co.firstlineno"]
    stack = int.from_bytes(memory.read(code + first_line - 4, 4), "little")
    local = int.from_bytes(memory.read(code + first_line + 4, 4), "little")
    size_bytes = 8 * min(local + stack, _WORDS_MAX)
    whole = head + memory.read_some(frame + len(head), size_bytes)
    words = struct.unpack(f"<{len(whole) // 8}Q", whole[: len(whole) & ~7])
    return tuple(word & ~7 for word in words)


def _word(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 8], "little")
