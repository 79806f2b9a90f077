"""Memory split into parts that add up to what the kernel says.

Pure: a reading in, parts out. Each part says how it is known: *measured* where every byte was
counted by a structure that says so itself (pages, pools, chunks), *inferred* where it is the rest
of such a count, or an owner concluded from a pointer.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple


class PartKind(enum.Enum):
    """In the order of telling. The first nine are private memory, swap included."""

    PYTHON_OBJECTS = "python objects"
    PYMALLOC_FREE = "pymalloc free"
    NATIVE_LIVE = "native live"
    ALLOCATOR_RETAINED = "allocator-retained"
    LARGE_MMAPS = "large mmaps"
    MODULE_DATA = "data of programs and libraries"
    STACKS = "stacks"
    UNACCOUNTED = "unaccounted"
    SWAP = "swap"
    PAGE_TABLES = "page tables"
    FILE = "file"
    SHMEM = "shmem"


class Basis(enum.Enum):
    MEASURED = "measured"
    INFERRED = "inferred"


class Detail(NamedTuple):
    label: str
    size_bytes: int


@dataclass(frozen=True)
class Part:
    kind: PartKind
    size_bytes: int
    basis: Basis
    details: tuple[Detail, ...] = ()
    note: str = ""  # how it is known, or what it means


@dataclass(frozen=True)
class Reading:
    """What the readers of one image found; sizes are of present pages unless named otherwise."""

    anon_bytes: int
    file_bytes: int  # status: RssFile
    shmem_bytes: int
    swap_bytes: int
    page_table_bytes: int
    stack_bytes: int
    stacks: int
    # glibc
    heap_anon_bytes: int = 0
    heap_free_bytes: int = 0  # free chunks, fast chunks and top
    heap_top_bytes: int = 0
    heap_fast_bytes: int = 0
    heap_tcache_bytes: int = 0
    heap_object_bytes: int = 0  # of the heaps' present bytes: Python objects and their tables
    arena_count: int = 0
    # pymalloc
    pool_anon_bytes: int = 0
    pool_in_use_bytes: int = 0
    pool_untouched_bytes: int = 0  # zero pages among the arenas: huge pages fill them up
    # blocks that malloc mapped singly, and mappings that no allocator claims
    large_anon_bytes: int = 0
    large_object_bytes: int = 0
    mmap_bytes: int = 0
    mmap_owners: tuple[Detail, ...] = ()
    module_bytes: int = 0
    module_details: tuple[Detail, ...] = ()
    types: tuple[Detail, ...] = ()  # of the census, largest first
    unaccounted_because: str = ""


DETAILS_MAX = 10


def split(reading: Reading) -> tuple[Part, ...]:
    """Split a reading into parts; those of private memory add up to anon + swap + page tables.

    Figures of a running process are a moment apart and may overlap by a little; no part is
    negative for it, and the sum stays.
    """
    rest = reading.anon_bytes

    def take(size_bytes: int) -> int:
        nonlocal rest
        taken = min(max(0, size_bytes), rest)
        rest -= taken
        return taken

    stacks = take(reading.stack_bytes)
    pools_used = take(min(reading.pool_in_use_bytes, reading.pool_anon_bytes))
    pools_free = take(max(0, reading.pool_anon_bytes - pools_used) + reading.pool_untouched_bytes)
    heap_free = min(reading.heap_free_bytes + reading.heap_tcache_bytes, reading.heap_anon_bytes)
    heap_used = reading.heap_anon_bytes - heap_free
    heap_objects = min(reading.heap_object_bytes, heap_used)
    retained = take(heap_free)
    native = take(heap_used - heap_objects)
    large_objects = min(reading.large_object_bytes, reading.large_anon_bytes)
    objects = pools_used + take(heap_objects) + take(large_objects)
    mmaps = take(reading.large_anon_bytes - large_objects + reading.mmap_bytes)
    modules = take(reading.module_bytes)
    measured, inferred = Basis.MEASURED, Basis.INFERRED
    return (
        Part(
            PartKind.PYTHON_OBJECTS,
            objects,
            measured,
            reading.types[:DETAILS_MAX],
            "blocks in use in pymalloc, and objects and tables in malloc's",
        ),
        Part(PartKind.PYMALLOC_FREE, pools_free, measured, (), "free blocks in pymalloc's pools"),
        Part(
            PartKind.NATIVE_LIVE,
            native,
            inferred,
            (),
            "malloc blocks in use that are no Python objects",
        ),
        Part(
            PartKind.ALLOCATOR_RETAINED,
            retained,
            measured,
            _retained_details(reading),
            f"free, but kept by malloc in {reading.arena_count} arena(s)"
            if reading.arena_count
            else "",
        ),
        Part(
            PartKind.LARGE_MMAPS,
            mmaps,
            inferred,
            reading.mmap_owners[:DETAILS_MAX],
            "blocks that malloc mapped singly, and mappings made directly",
        ),
        Part(
            PartKind.MODULE_DATA,
            modules,
            measured,
            reading.module_details[:DETAILS_MAX],
            "pages of .data, .bss and relocations that were written to",
        ),
        Part(PartKind.STACKS, stacks, measured, (), f"{reading.stacks} stack(s)"),
        Part(PartKind.UNACCOUNTED, rest, inferred, (), reading.unaccounted_because),
        Part(PartKind.SWAP, reading.swap_bytes, measured, (), "not looked into"),
        Part(PartKind.PAGE_TABLES, reading.page_table_bytes, measured),
        Part(PartKind.FILE, reading.file_bytes, measured, (), "pages of files, shared with others"),
        Part(PartKind.SHMEM, reading.shmem_bytes, measured, (), "shared memory and tmpfs"),
    )


def _retained_details(reading: Reading) -> tuple[Detail, ...]:
    chunks = reading.heap_free_bytes - reading.heap_top_bytes - reading.heap_fast_bytes
    details = (
        Detail("free chunks", max(0, chunks)),
        Detail("top", reading.heap_top_bytes),
        Detail("fast bins", reading.heap_fast_bytes),
        Detail("tcache (per thread)", reading.heap_tcache_bytes),
    )
    return tuple(detail for detail in details if detail.size_bytes)


NOT_PRIVATE = frozenset({PartKind.FILE, PartKind.SHMEM})


def private_bytes(parts: Iterable[Part]) -> int:
    """The sum of the parts of private memory."""
    return sum(part.size_bytes for part in parts if part.kind not in NOT_PRIVATE)


def sizes(parts: Iterable[Part]) -> Mapping[PartKind, int]:
    return {part.kind: part.size_bytes for part in parts}
