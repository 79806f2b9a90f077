"""Reads of another process's memory, as bytes and numbers.

The Python side of ``cext/remote.h``. What it reads was written by somebody else and may change
while it is read: whoever uses a number as a size bounds it first. Knows no interpreter.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence

from mwtrace.capi import ffi, lib
from mwtrace.errors import ProcessError, ProcessGone

RANGES_MAX: int = lib.MW_REMOTE_RANGES_MAX


class UnreadableMemory(ProcessError):
    """Nothing is mapped there, or not all that was asked for."""

    remedy = "The process changed while it was read, or it is not what it looked like."


class RemoteMemory:
    """The memory of one process. A pid that is given again is another process: whoever keeps
    one of these longer than a moment compares start times."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def read(self, address: int, size_bytes: int) -> bytes:
        """Return exactly size_bytes; raises UnreadableMemory or ProcessGone."""
        data = self.read_some(address, size_bytes)
        if len(data) != size_bytes:
            raise UnreadableMemory(
                f"cannot read {size_bytes} bytes at {address:#x} of process {self.pid}: "
                f"{len(data)} are readable"
            )
        return data

    def read_some(self, address: int, size_bytes: int) -> bytes:
        """Return what is readable from address on, perhaps nothing."""
        if not 0 <= address < 1 << 64 or size_bytes < 0:
            return b""
        buffer = ffi.new("char[]", size_bytes)
        got = lib.mw_remote_read(self.pid, address, buffer, size_bytes)
        if got == -errno.EFAULT:
            return b""
        self._check(got)
        return bytes(ffi.buffer(buffer, got))

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return each (address, size_bytes) as far as it is readable, few system calls in all."""
        found = []
        for first in range(0, len(ranges), RANGES_MAX):
            batch = ranges[first : first + RANGES_MAX]
            described = ffi.new("struct mw_remote_range[]", [(a, s, 0) for a, s in batch])
            total = sum(size for _, size in batch)
            buffer = ffi.new("char[]", total)
            rc = lib.mw_remote_read_ranges(self.pid, described, len(batch), buffer, total)
            self._check(rc)
            whole = ffi.buffer(buffer)
            place = 0
            for piece in described:
                found.append(bytes(whole[place : place + piece.read_bytes]))
                place += piece.size_bytes
        return found

    def u64(self, address: int) -> int:
        return int.from_bytes(self.read(address, 8), "little")

    def words(self, address: int, count: int) -> tuple[int, ...]:
        """Return count words of 8 bytes."""
        return struct.unpack(f"<{count}Q", self.read(address, 8 * count))

    def _check(self, rc: int) -> None:
        if rc == -errno.ESRCH:
            raise ProcessGone(f"process {self.pid} is gone")
        if rc < 0:
            raise ProcessError(
                f"cannot read the memory of process {self.pid}: {os.strerror(-rc)}",
                "This needs root, or CAP_SYS_PTRACE in the process's user namespace.",
            )
