"""All readers over one process, put together: what its memory is made of.

One image is read once for everything, so that the parts are of one moment (as near as a running
process allows). Whatever cannot be read is named, and stays in *unaccounted*.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass

from mwtrace.capi import lib
from mwtrace.errors import ProcessGone
from mwtrace.evidence.arenas import Arenas, ArenasMoved, read_arenas
from mwtrace.evidence.census import Census, TypeCount, Zone, take_census
from mwtrace.evidence.holders import Holders, find_holders, find_owners
from mwtrace.evidence.image import Budget, Image, KernelFigures, Mapping, is_anonymous
from mwtrace.evidence.interpreter import Interpreter, find_interpreter, looks_like_python
from mwtrace.evidence.parts import Detail, Part, Reading, private_bytes, split
from mwtrace.evidence.stacks import find_stacks

BUDGET_S = 120.0
ATTEMPTS = 4  # at a heap that grows an arena just then
# Below this, an unclaimed stretch is crumbs (interpreter frames, thread data), not a mapping that
# somebody made for something.
MMAP_BYTES_MIN = 64 * 1024
# Owners of large blocks are searched for where they make up this share of the private memory.
OWNERS_SHARE_MIN = 0.05
OWNED_BLOCKS_MAX = 10_000
# A class is worth a search for its holders from this share of the Python objects on.
HOLDERS_SHARE_MIN = 0.02
HOLDERS_OBJECTS_MIN = 500

_ALLOCATORS = {
    "jemalloc": re.compile(r"/libjemalloc"),
    "tcmalloc": re.compile(r"/libtcmalloc"),
    "mimalloc": re.compile(r"/libmimalloc"),
    "musl": re.compile(r"/ld-musl-|/libc\.musl-"),
}


@dataclass(frozen=True)
class Explanation:
    pid: int
    time_s: float  # CLOCK_MONOTONIC
    kernel: KernelFigures
    parts: tuple[Part, ...]
    threads: int
    allocator: str
    census: Census
    arenas: Arenas | None
    holders: tuple[Holders, ...]
    notes: tuple[str, ...]  # what could not be read, and why
    elapsed_s: float

    @property
    def private_bytes(self) -> int:
        return private_bytes(self.parts)


_UNREADABLE_PYTHON = "its Python is of a version or build whose objects cannot be read"


def explain_process(
    pid: int, with_holders: bool = True, budget: Budget | None = None
) -> Explanation:
    """Read a process and say what its memory is made of."""
    began_s = time.monotonic()
    budget = budget or Budget(BUDGET_S)
    for attempt in range(ATTEMPTS):
        with Image(pid) as image:
            try:
                arenas = read_arenas(image, budget)
            except ArenasMoved:
                if attempt < ATTEMPTS - 1:
                    continue
                arenas = None
            explanation = explain_image(image, arenas, with_holders, budget, began_s)
            if not image.is_same():
                break
            return explanation
    raise ProcessGone(f"process {pid} ended, or ran another program, while it was read")


def explain_image(
    image: Image, arenas: Arenas | None, with_holders: bool, budget: Budget, began_s: float
) -> Explanation:
    notes: list[str] = []
    interpreter = find_interpreter(image)
    stacks = find_stacks(image)
    zones = _zones(arenas, stacks)
    census = take_census(image, interpreter, zones, budget)
    allocator = _allocator(image, arenas)
    reading = _reading(image, interpreter, arenas, stacks, zones, census, allocator, budget)
    _note_limits(image, interpreter, arenas, census, allocator, notes)
    holders = []
    if with_holders and interpreter is not None:
        for row in _worth_a_search(census):
            holders.append(find_holders(image, interpreter, row.address, budget))
    return Explanation(
        image.pid,
        began_s,
        image.kernel,
        split(reading),
        len(stacks) + 1,
        allocator,
        census,
        arenas,
        tuple(holders),
        tuple(notes),
        time.monotonic() - began_s,
    )


def _zones(arenas: Arenas | None, stacks: list[tuple[int, int]]) -> list[Zone]:
    """Heaps and stacks, ascending; of two that overlap (they should not) the first counts."""
    found = [Zone(start, end, True) for start, end in stacks]
    found += [Zone(heap.start, heap.end, False) for heap in (arenas.heaps if arenas else ())]
    kept: list[Zone] = []
    for zone in sorted(found):
        if not kept or zone.start >= kept[-1].end:
            kept.append(zone)
    return kept


def _allocator(image: Image, arenas: Arenas | None) -> str:
    for name, pattern in _ALLOCATORS.items():
        if any(pattern.search(mapping.name) for mapping in image.mappings):
            return name
    return "glibc" if arenas else "unknown"


def _reading(
    image: Image,
    interpreter: Interpreter | None,
    arenas: Arenas | None,
    stacks: list[tuple[int, int]],
    zones: list[Zone],
    census: Census,
    allocator: str,
    budget: Budget,
) -> Reading:
    # What such an interpreter mapped for its own objects is no mapping of the program's.
    is_foreign = interpreter is None and looks_like_python(image)
    unclaimed = _sort_unclaimed(image, census, known=allocator == "glibc" and not is_foreign)
    modules = Counter(unclaimed.modules)
    for mapping in image.mappings:
        # relocated and then sealed: private pages of a file that are not writable any more
        if mapping.has(lib.MW_MAPPING_FILE) and not mapping.has(lib.MW_MAPPING_WRITE):
            modules[_short(mapping.name)] += mapping.anon_bytes
    owned = sum(
        block.anon_bytes - min(block.object_bytes, block.anon_bytes)
        for block in census.large_blocks
    )
    owners: Counter[str] = Counter()
    if interpreter is not None and owned > OWNERS_SHARE_MIN * image.kernel.anon_bytes:
        owners = _owners(image, interpreter, census, budget)
    for name, size in unclaimed.mmaps.items():
        owners[name] += size
    stack_anon = sum(m.anon_bytes for m in image.mappings if m.has(lib.MW_MAPPING_STACK))
    stack_anon += sum(image.anon_bytes(start, end) for start, end in stacks)
    return Reading(
        anon_bytes=sum(mapping.anon_bytes for mapping in image.mappings),
        file_bytes=image.kernel.file_bytes,
        shmem_bytes=image.kernel.shmem_bytes,
        swap_bytes=image.kernel.swap_bytes,
        page_table_bytes=image.kernel.page_table_bytes,
        stack_bytes=stack_anon,
        stacks=len(stacks) + 1,
        heap_anon_bytes=sum(arena.anon_bytes for arena in arenas.arenas) if arenas else 0,
        heap_free_bytes=sum(arena.free_anon_bytes for arena in arenas.arenas) if arenas else 0,
        heap_top_bytes=sum(arena.top_bytes for arena in arenas.arenas) if arenas else 0,
        heap_fast_bytes=sum(arena.fast_bytes for arena in arenas.arenas) if arenas else 0,
        heap_tcache_bytes=arenas.tcache_bytes if arenas else 0,
        heap_object_bytes=sum(census.zone_object_bytes),
        arena_count=len(arenas.arenas) if arenas else 0,
        pool_anon_bytes=census.totals["pool_anon_bytes"],
        pool_in_use_bytes=census.totals["pool_in_use_bytes"],
        pool_untouched_bytes=unclaimed.untouched_bytes,
        large_anon_bytes=census.totals["large_anon_bytes"],
        large_object_bytes=sum(
            min(block.object_bytes, block.anon_bytes) for block in census.large_blocks
        ),
        mmap_bytes=sum(unclaimed.mmaps.values()),
        mmap_owners=_details(owners),
        module_bytes=sum(modules.values()),
        module_details=_details(modules),
        types=tuple(Detail(row.name, row.size_bytes) for row in census.types),
        unaccounted_because=_UNREADABLE_PYTHON
        if is_foreign
        else ""
        if allocator == "glibc"
        else f"the allocator is {allocator}, whose structures are not read",
    )


@dataclass
class _Unclaimed:
    modules: Counter[str]
    mmaps: Counter[str]
    untouched_bytes: int = 0


def _sort_unclaimed(image: Image, census: Census, known: bool) -> _Unclaimed:
    """Say what pages that nothing claimed are, by the mapping they lie in."""
    found = _Unclaimed(Counter(), Counter())
    before: Mapping | None = None
    for mapping in image.mappings:
        size, zeros = census.unclaimed.get(mapping.number, (0, 0))
        is_bss = (
            before is not None
            and before.has(lib.MW_MAPPING_FILE)
            and before.end == mapping.start
            and is_anonymous(mapping)
        )
        if mapping.has(lib.MW_MAPPING_FILE):
            found.modules[_short(mapping.name)] += size
        elif is_bss and before is not None:
            found.modules[_short(before.name)] += size
        elif is_anonymous(mapping) and known:
            # Zeros among what is claimed are the rest of huge pages; alone, somebody's mapping.
            if census.totals["pools"] and size < mapping.anon_bytes // 2:
                found.untouched_bytes += zeros
                size -= zeros
            if size >= MMAP_BYTES_MIN:
                found.mmaps["mapped directly, not by malloc"] += size
        before = mapping
    return found


def _owners(image: Image, interpreter: Interpreter, census: Census, budget: Budget) -> Counter[str]:
    """Whose are the large blocks that are no Python objects: who points at their first byte?"""
    blocks = [block for block in census.large_blocks if block.object_bytes < block.anon_bytes // 2]
    blocks = sorted(blocks, key=lambda block: -block.anon_bytes)[:OWNED_BLOCKS_MAX]
    first_byte = {block.start + 16: block for block in blocks}
    types = find_owners(image, interpreter, first_byte, budget)
    owners: Counter[str] = Counter()
    for address, block in first_byte.items():
        owners[types.get(address, "no Python object points at it")] += block.anon_bytes
    return owners


def _details(counter: Counter[str]) -> tuple[Detail, ...]:
    return tuple(Detail(name, size) for name, size in counter.most_common() if size)


def _short(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _worth_a_search(census: Census) -> list[TypeCount]:
    """The class that stands out; interpreters are full of the built-in ones."""
    classes = [
        row
        for row in census.types
        if "." in row.name
        and row.objects >= HOLDERS_OBJECTS_MIN
        and row.size_bytes >= HOLDERS_SHARE_MIN * census.size_bytes
    ]
    return classes[:1]


def _note_limits(
    image: Image,
    interpreter: Interpreter | None,
    arenas: Arenas | None,
    census: Census,
    allocator: str,
    notes: list[str],
) -> None:
    if interpreter is None and looks_like_python(image):
        notes.append(_UNREADABLE_PYTHON)
    if allocator != "glibc":
        notes.append(f"the allocator is {allocator}: what it keeps free cannot be told")
    if not census.is_complete:
        notes.append(f"the census is not complete: {census.stopped}")
    if arenas is not None and not arenas.is_complete:
        notes.append("the malloc arenas are not complete: the time for it was up")
    if image.kernel.swap_bytes:
        notes.append("swapped pages were left where they are: objects in them are not counted")
    counters = image.counters()
    for name in ("mappings_untracked_total", "runs_untracked_total", "mappings_unscanned_total"):
        if counters[name]:
            notes.append(f"{name}: {counters[name]}")
    for name in ("large_untracked_total", "buffers_untracked_total", "types_untracked_total"):
        if census.totals[name]:
            notes.append(f"{name}: {census.totals[name]}")
