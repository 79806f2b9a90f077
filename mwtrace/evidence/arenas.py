"""What glibc's malloc holds in a process, and what of it is free: wraps ``cext/arenas.h``."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from mwtrace.capi import ffi, lib
from mwtrace.errors import ProcessUnreadable, Unreadable
from mwtrace.evidence.image import Budget, Image, process_error, struct_values

BUDGET_S = 30.0


class Arena(NamedTuple):
    address: int
    is_main: bool
    system_bytes: int
    in_use_bytes: int
    top_bytes: int
    free_bytes: int  # in the bins
    free_chunks: int
    fast_bytes: int
    anon_bytes: int
    free_anon_bytes: int  # of the present pages: free, fast and top
    trim_bytes: int  # estimate
    threads: int
    unwalked_bytes: int


class Heap(NamedTuple):
    start: int
    end: int
    arena: int  # index


class Bin(NamedTuple):
    number: int  # as glibc numbers them
    chunks: int
    free_bytes: int


@dataclass(frozen=True)
class Arenas:
    arenas: tuple[Arena, ...]  # main first
    heaps: tuple[Heap, ...]  # by address
    bins: tuple[Bin, ...]  # those with chunks in them, of all arenas
    system_bytes: int
    in_use_bytes: int
    tcache_bytes: int  # counted as in use
    mmapped_bytes: int | None  # as malloc counts it; None: its count was not found
    mmapped_chunks: int
    trim_bytes: int  # estimate of what malloc_trim() would give back
    elapsed_s: float
    is_complete: bool
    totals: dict[str, int]  # struct mw_arenas_totals

    @property
    def free_bytes(self) -> int:
        """What malloc keeps though nobody uses it (address space; not all of it is present)."""
        return self.system_bytes - self.in_use_bytes


class ArenasMoved(ProcessUnreadable):
    """An arena was made between the reading of the pagemap and that of the arenas: read again."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"the malloc arenas of process {pid} changed", Unreadable.OTHER)
        self.remedy = "Try again; where it persists, the allocator is not glibc's as we know it."


def read_arenas(image: Image, budget: Budget | None = None) -> Arenas | None:
    """Read malloc's arenas; None where glibc is not mapped or was never asked for memory."""
    budget = budget or Budget(BUDGET_S)
    read = ffi.new("struct mw_arenas **")
    for start, end in image.libc_data():
        rc = lib.mw_arenas_read(image.regions, start, end, budget.c, read)
        if rc == 0:
            try:
                return _arenas(read[0])
            finally:
                lib.mw_arenas_destroy(read[0])
        if rc == -errno.EAGAIN:
            raise ArenasMoved(image.pid)
        if rc != -errno.ENOENT:
            raise process_error(rc, image.pid, "read the malloc arenas")
    return None


class FreeMemory:
    """Tells which addresses lie in memory that malloc has free. Close it after use.

    Where malloc's arenas cannot be read, none does.
    """

    def __init__(self, image: Image, budget: Budget) -> None:
        self._budget = budget
        self._read = ffi.new("struct mw_arenas **")
        for start, end in image.libc_data():
            if lib.mw_arenas_read(image.regions, start, end, budget.c, self._read) == 0:
                break

    def close(self) -> None:
        if self._read[0]:
            lib.mw_arenas_destroy(self._read[0])
            self._read[0] = ffi.NULL

    def holding(self, addresses: Iterable[int]) -> set[int]:
        """Return those of the addresses that lie in free memory."""
        asked = sorted(set(addresses))
        if not self._read[0] or not asked:
            return set()
        marks = ffi.new("uint8_t[]", len(asked))
        lib.mw_arenas_mark_free(
            self._read[0], self._budget.c, ffi.new("uint64_t[]", asked), len(asked), marks
        )
        return {address for address, mark in zip(asked, marks) if mark}


def _arenas(read: object) -> Arenas:
    totals = ffi.new("struct mw_arenas_totals *")
    lib.mw_arenas_get_totals(read, totals)
    pointer = ffi.new("struct mw_arena **")
    arenas = tuple(
        Arena(
            int(arena.address),
            index == 0,
            int(arena.system_bytes),
            int(arena.system_bytes - arena.top_bytes - arena.free_bytes - arena.fast_bytes),
            int(arena.top_bytes),
            int(arena.free_bytes),
            int(arena.free_chunks),
            int(arena.fast_bytes),
            int(arena.anon_bytes),
            int(arena.free_anon_bytes),
            int(arena.trim_bytes),
            int(arena.attached_threads),
            int(arena.unwalked_bytes),
        )
        for index, arena in enumerate(
            pointer[0][i] for i in range(lib.mw_arenas_list(read, pointer))
        )
    )
    heap = ffi.new("struct mw_heap **")
    heaps = tuple(
        Heap(int(h.start), int(h.end), int(h.arena))
        for h in (heap[0][i] for i in range(lib.mw_arenas_heaps(read, heap)))
    )
    sizes, chunks = ffi.new("uint64_t[]", lib.MW_BINS), ffi.new("uint64_t[]", lib.MW_BINS)
    lib.mw_arenas_bins(read, sizes, chunks)
    return Arenas(
        arenas,
        heaps,
        tuple(Bin(i, int(chunks[i]), int(sizes[i])) for i in range(lib.MW_BINS) if chunks[i]),
        int(totals.system_bytes),
        int(totals.in_use_bytes),
        int(totals.tcache_bytes),
        int(totals.mmapped_bytes) if totals.has_mmapped else None,
        int(totals.mmapped_chunks),
        sum(arena.trim_bytes for arena in arenas),
        totals.elapsed_ns / 1e9,
        totals.stopped == 0,
        struct_values("struct mw_arenas_totals", totals),
    )
