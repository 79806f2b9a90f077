"""Addresses of one process in, frames with names out.

Native ones through the mapping's own file, whatever its name means by now; Python ones through
the interpreter's code objects. Asked while the process lives, since afterwards nothing can be
looked up; what was asked once is remembered. It must not know what happened at an address.
"""

from __future__ import annotations

import bisect
import os
import time
from collections import OrderedDict
from dataclasses import dataclass

from mwtrace.cpython.frames import FrameResolver
from mwtrace.errors import ProcessError
from mwtrace.host.elf import ElfError, SymbolTable, open_regular, printable, read_facts
from mwtrace.host.mappings import Mapping, read_mappings
from mwtrace.tell.profile import Frame, FrameKind, ModuleMapping, merge_stacks
from mwtrace.tracer import Tracer

TABLES_BYTES_MAX = 64 << 20  # names of functions, of all processes together
STACKS_MAX = 16_384  # remembered per process
# A library that was loaded since the last look: how often that is looked for.
_LOOK_AGAIN_S = 1.0
_DELETED = " (deleted)"


@dataclass
class _Module:
    """One file, as far as frames are concerned."""

    table: SymbolTable | None  # None: it could not be read, or has no names
    build_id: str
    size_bytes: int


class Modules:
    """Symbol tables by file; processes share libraries, so one of these per host."""

    def __init__(self, bytes_max: int = TABLES_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._modules: OrderedDict[tuple[int, ...], _Module] = OrderedDict()

    def of(self, path: str) -> _Module:
        """Return the module of a file; one that cannot be read has no names."""
        try:
            fd = open_regular(path)
        except ElfError:
            return _Module(None, "", 0)
        try:
            status = os.fstat(fd)
            key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            module = self._modules.pop(key, None) or _read_module(fd)
        finally:
            os.close(fd)
        self._modules[key] = module
        while len(self._modules) > 1 and self.in_use_bytes > self._bytes_max:
            self._modules.popitem(last=False)
        return module

    @property
    def in_use_bytes(self) -> int:
        return sum(module.size_bytes for module in self._modules.values())


def _read_module(fd: int) -> _Module:
    try:
        table = SymbolTable(fd)
    except ElfError:
        table = None
    try:
        build_id = read_facts(fd).build_id
    except ElfError:
        build_id = ""
    return _Module(table, build_id, 4096 + (table.in_use_bytes if table else 0))


class Symbolizer:
    """Names the stacks of one process."""

    def __init__(self, pid: int, modules: Modules, python: FrameResolver | None) -> None:
        self.pid = pid
        self._modules = modules
        self._python = python
        self._starts: list[int] = []
        self._mappings: list[Mapping] = []
        self._looked_s = 0.0
        self._frames: dict[int, Frame | None] = {}  # native ones, by address
        self._stacks: OrderedDict[tuple[int, int], tuple[Frame, ...]] = OrderedDict()
        self._truncated: set[tuple[int, int]] = set()
        self._look()

    def stack(self, tracer: Tracer, native_stack: int, python_stack: int) -> tuple[Frame, ...]:
        """Return the merged stack, root first, of a site's two hashes; () if neither is known."""
        key = (native_stack, python_stack)
        known = self._stacks.get(key)
        if known is not None:
            return known
        native = tracer.stack(self.pid, native_stack)
        python = tracer.stack(self.pid, python_stack)
        # Not sent yet, or dropped and coming again: not to be remembered as it is.
        is_whole = (native is not None) == bool(native_stack)
        is_whole &= (python is not None) == bool(python_stack)
        python_frames: list[Frame] = []
        try:
            python_frames = [self._python_frame(*at) for at in python.frames] if python else []
        except ProcessError:  # it has just ended
            is_whole = False
        native_addresses = [address for address, _ in native.frames] if native else []
        frames = merge_stacks(self._native_frames(native_addresses), python_frames)
        if is_whole:
            self._stacks[key] = frames
            if (native and native.is_truncated) or (python and python.is_truncated):
                self._truncated.add(key)
            while len(self._stacks) > STACKS_MAX:
                self._truncated.discard(self._stacks.popitem(last=False)[0])
        return frames

    def is_truncated(self, native_stack: int, python_stack: int) -> bool:
        """Whether the root of a stack that was asked for is missing."""
        return (native_stack, python_stack) in self._truncated

    def revalidate(self) -> None:
        """See which code objects are others by now, before new stacks are named with them."""
        if self._python is not None:
            self._python.revalidate()

    def modules(self) -> tuple[ModuleMapping, ...]:
        """What is mapped and executable, as a profile wants it."""
        return tuple(
            ModuleMapping(
                mapping.start,
                mapping.end,
                mapping.file_offset,
                _shown(mapping),
                self._modules.of(mapping.open_path(self.pid)).build_id,
            )
            for mapping in self._mappings
        )

    def _native_frames(self, addresses: list[int]) -> list[Frame]:
        frames = []
        for place, address in enumerate(addresses):
            frame = self._native_frame(address)
            if frame is not None:
                frames.append(frame)
            elif place:
                # Code that was built without frame pointers: from here on the walk read numbers
                # that are no addresses of code.
                break
            else:
                frames.append(Frame("", FrameKind.NATIVE, address=address))
        return frames

    def _native_frame(self, address: int) -> Frame | None:
        if address in self._frames:
            return self._frames[address]
        mapping = self._mapping_at(address)
        frame = None
        if mapping is not None:
            # A return address may be the first byte of the next function: look at the call.
            offset = address - 1 - mapping.start + mapping.file_offset
            module = self._modules.of(mapping.open_path(self.pid))
            symbol = module.table.at(offset) if module.table else None
            frame = Frame(
                symbol.name if symbol else "",
                FrameKind.NATIVE,
                module=_shown(mapping),
                build_id=module.build_id,
                address=address,
                offset=offset,
            )
        if len(self._frames) >= STACKS_MAX:
            self._frames.clear()
        self._frames[address] = frame
        return frame

    def _mapping_at(self, address: int) -> Mapping | None:
        found = self._mapping_in_list(address)
        if found is None and time.monotonic() - self._looked_s > _LOOK_AGAIN_S:
            self._look()
            found = self._mapping_in_list(address)
        return found

    def _mapping_in_list(self, address: int) -> Mapping | None:
        place = bisect.bisect_right(self._starts, address) - 1
        if place >= 0 and address <= self._mappings[place].end:
            return self._mappings[place]
        return None

    def _look(self) -> None:
        self._looked_s = time.monotonic()
        try:
            mapped = read_mappings(self.pid)
        except ProcessError:
            return
        self._mappings = [mapping for mapping in mapped if mapping.is_executable]
        self._starts = [mapping.start for mapping in self._mappings]

    def _python_frame(self, code: int, instruction: int) -> Frame:
        if self._python is None:
            return Frame("(not resolved)", FrameKind.PYTHON)
        found = self._python.resolve(code, instruction)
        return Frame(
            printable(found.function.encode("utf-8", "replace")),
            FrameKind.PYTHON,
            printable(found.file.encode("utf-8", "replace")),
            found.line or 0,
        )


def _shown(mapping: Mapping) -> str:
    return mapping.path[: -len(_DELETED)] if mapping.path.endswith(_DELETED) else mapping.path
