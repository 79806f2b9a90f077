"""A process's memory as one reading sees it: its mappings, and which pages are there.

The door to ``cext/regions.h``; all other readers of this room read through an image. Knows no
interpreter and no allocator, but which mappings are theirs to look at.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from mwtrace.capi import ffi, lib
from mwtrace.errors import ProcessError, ProcessGone, ProcessUnreadable, Unreadable

if TYPE_CHECKING:
    from mwtrace._cext import CData

_STATUS_LINE = re.compile(rb"^(RssAnon|RssFile|RssShmem|VmSwap|VmPTE):[ \t]*(\d{1,15}) kB$", re.M)
_LIBC_NAME = re.compile(r"/libc(?:\.so\.6|-2\.\d+\.so)(?: \(deleted\))?$")


class Mapping(NamedTuple):
    number: int  # of the line in maps, from 0
    start: int
    end: int
    flags: int
    anon_bytes: int
    file_bytes: int
    zero_bytes: int
    swap_bytes: int
    name: str

    def has(self, flag: int) -> bool:
        return bool(self.flags & flag)


class KernelFigures(NamedTuple):
    """What ``/proc/PID/status`` says; the parts must add up to it."""

    anon_bytes: int
    file_bytes: int
    shmem_bytes: int
    swap_bytes: int
    page_table_bytes: int

    @property
    def private_bytes(self) -> int:
        return self.anon_bytes + self.swap_bytes + self.page_table_bytes


def process_error(rc: int, pid: int, doing: str) -> ProcessError:
    """What a negative errno from a reader means for one process."""
    if rc in (-errno.ESRCH, -errno.ENOENT):
        return ProcessGone(f"cannot {doing} of process {pid}: it is gone")
    if rc in (-errno.EPERM, -errno.EACCES):
        error = ProcessUnreadable(
            f"cannot {doing} of process {pid}: permission denied", Unreadable.PERMISSION
        )
        error.remedy = "Run mwtrace as root, in the host's user namespace (CAP_SYS_PTRACE)."
        return error
    return ProcessUnreadable(
        f"cannot {doing} of process {pid}: {os.strerror(-rc)}", Unreadable.OTHER
    )


class Budget:
    """A limit on how long a reading may take; ``cancel()`` from another thread ends it early."""

    def __init__(self, seconds: float) -> None:
        self._flag = ffi.new("int32_t *", 0)
        self.c = ffi.new("struct mw_budget *")
        self.c.deadline_ns = time.monotonic_ns() + int(seconds * 1e9)
        self.c.cancel = self._flag

    def cancel(self) -> None:
        self._flag[0] = 1


class Image:
    """The memory of one process; close it after use. Not for several threads."""

    def __init__(self, pid: int) -> None:
        opened = ffi.new("struct mw_regions **")
        rc = lib.mw_regions_open(pid, opened)
        if rc:
            raise process_error(rc, pid, "read the memory")
        self.pid = pid
        self.regions = opened[0]
        try:
            self.kernel = read_kernel_figures(pid)
            self.mappings = list(self._read_mappings())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Image:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.regions:
            lib.mw_regions_close(self.regions)
            self.regions = ffi.NULL

    def _read_mappings(self) -> Iterator[Mapping]:
        for index in range(lib.mw_regions_mapping_count(self.regions)):
            mapping = lib.mw_regions_mapping(self.regions, index)
            name = ffi.string(lib.mw_regions_name(self.regions, mapping.name))
            yield Mapping(
                index,
                mapping.start,
                mapping.end,
                mapping.flags,
                mapping.anon_bytes,
                mapping.file_bytes,
                mapping.zero_bytes,
                mapping.swap_bytes,
                name.decode("utf-8", "replace"),
            )

    def read(self, address: int, size_bytes: int) -> bytes:
        """Read what is present; fewer bytes, or none, where it ends."""
        buffer = ffi.new("char[]", size_bytes)
        got = lib.mw_regions_read(self.regions, address, buffer, size_bytes)
        return bytes(ffi.buffer(buffer, got)) if got > 0 else b""

    def word(self, address: int) -> int:
        raw = self.read(address, 8)
        return int(struct.unpack("<Q", raw)[0]) if len(raw) == 8 else 0

    def anon_bytes(self, start: int, end: int) -> int:
        return int(lib.mw_regions_anon_bytes(self.regions, start, end))

    def counters(self) -> dict[str, int]:
        counters = ffi.new("struct mw_regions_counters *")
        lib.mw_regions_get_counters(self.regions, counters)
        return struct_values("struct mw_regions_counters", counters)

    def is_same(self) -> bool:
        """Whether the process is still there and runs the same program."""
        return bool(lib.mw_regions_is_same(self.regions))

    def writable_data(self, names: re.Pattern[str]) -> list[tuple[int, int]]:
        """Where a mapped file keeps its data: its writable parts, with the .bss behind each."""
        found = []
        for mapping in self.mappings:
            if not mapping.has(lib.MW_MAPPING_WRITE) or mapping.has(lib.MW_MAPPING_SHARED):
                continue
            if mapping.has(lib.MW_MAPPING_FILE) and names.search(mapping.name):
                end = mapping.end
                for behind in self.mappings[mapping.number + 1 : mapping.number + 2]:
                    if behind.start == end and is_anonymous(behind):
                        end = behind.end
                found.append((mapping.start, end))
        return found

    def libc_data(self) -> list[tuple[int, int]]:
        """Where malloc's state may be: libc's data, or that of a program linked statically."""
        found = self.writable_data(_LIBC_NAME)
        if not found and self.mappings and not any(".so" in m.name for m in self.mappings):
            found = self.writable_data(re.compile(re.escape(self.mappings[0].name) + "$"))
        return found


def is_anonymous(mapping: Mapping) -> bool:
    """Whether neither a file nor the kernel gave it a purpose."""
    return not mapping.has(
        lib.MW_MAPPING_FILE | lib.MW_MAPPING_HEAP | lib.MW_MAPPING_STACK | lib.MW_MAPPING_KERNEL
    )


def read_kernel_figures(pid: int) -> KernelFigures:
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            found = {name: int(kib) * 1024 for name, kib in _STATUS_LINE.findall(file.read(65536))}
    except OSError as error:
        raise process_error(-(error.errno or errno.EIO), pid, "read the status") from error
    return KernelFigures(
        found.get(b"RssAnon", 0),
        found.get(b"RssFile", 0),
        found.get(b"RssShmem", 0),
        found.get(b"VmSwap", 0),
        found.get(b"VmPTE", 0),
    )


def struct_values(name: str, value: CData) -> dict[str, int]:
    """A C struct of integers as a dictionary under its own names."""
    return {field: int(getattr(value, field)) for field, _ in ffi.typeof(name).fields}


def text(read: object, *arguments: object) -> str:
    """Call a C function whose last arguments are a buffer and its size."""
    buffer = ffi.new("char[256]")
    read(*arguments, buffer, 256)  # type: ignore[operator]
    return ffi.string(buffer).decode("utf-8", "replace")
