"""How many Python objects of which type live in a process: wraps ``cext/census.h``."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mwtrace.capi import ffi, lib
from mwtrace.errors import MwtraceError, ProcessGone, ProcessUnreadable, Unreadable
from mwtrace.evidence.image import Budget, Image, process_error, struct_values, text
from mwtrace.evidence.interpreter import Interpreter, find_interpreter, looks_like_python

BUDGET_S = 60.0
ROWS = 200


class TypeCount(NamedTuple):
    name: str  # module-qualified where it has a module
    objects: int
    size_bytes: int  # as sys.getsizeof() says
    address: int  # of the type; means something while the process lives


class Zone(NamedTuple):
    start: int
    end: int
    is_stack: bool


class LargeBlock(NamedTuple):
    """What malloc mapped singly."""

    start: int
    size_bytes: int
    anon_bytes: int
    object_bytes: int


@dataclass(frozen=True)
class Census:
    interpreter: str  # "" if there is none: pages were claimed, nothing counted
    types: tuple[TypeCount, ...]  # largest first, at most ROWS
    objects: int
    size_bytes: int
    elapsed_s: float
    is_complete: bool
    stopped: str  # why not
    totals: dict[str, int]  # struct mw_census_totals
    zone_object_bytes: tuple[int, ...]  # of each zone: what of it are Python objects
    large_blocks: tuple[LargeBlock, ...]
    unclaimed: dict[int, tuple[int, int]]  # by mapping: bytes, and of them zeros


_STOPPED = {
    -errno.ETIME: "the time for it was up",
    -errno.ECANCELED: "it was cancelled",
    -errno.ESRCH: "the process ended or ran another program",
}


def take_census(
    image: Image,
    interpreter: Interpreter | None,
    zones: Sequence[Zone] = (),
    budget: Budget | None = None,
) -> Census:
    """Take a census of an image. zones ascend and do not overlap."""
    budget = budget or Budget(BUDGET_S)
    c_zones = ffi.new("struct mw_zone[]", max(1, len(zones)))
    for c_zone, zone in zip(c_zones, zones):
        c_zone.start, c_zone.end = zone.start, zone.end
        c_zone.kind = lib.MW_ZONE_STACK if zone.is_stack else lib.MW_ZONE_ARENA
    taken = ffi.new("struct mw_census **")
    rc = lib.mw_census_take(
        image.regions,
        interpreter.c if interpreter else ffi.NULL,
        c_zones,
        len(zones),
        budget.c,
        taken,
    )
    if rc:
        raise process_error(rc, image.pid, "take a census of the memory")
    try:
        totals = ffi.new("struct mw_census_totals *")
        lib.mw_census_get_totals(taken[0], totals)
        rows = ffi.new("struct mw_census_row[]", ROWS)
        count = min(ROWS, lib.mw_census_rows(taken[0], rows, ROWS))
        types = tuple(
            TypeCount(
                text(lib.mw_census_name, taken[0], row.type) or "?",
                int(row.objects),
                int(row.bytes),
                int(row.type),
            )
            for row in (rows[i] for i in range(count))
        )
        blocks = ffi.new("struct mw_large_block **")
        block_count = lib.mw_census_large_blocks(taken[0], blocks)
        return Census(
            interpreter.name if interpreter else "",
            types,
            int(totals.objects),
            int(totals.bytes),
            totals.elapsed_ns / 1e9,
            totals.stopped == 0,
            _STOPPED.get(int(totals.stopped), ""),
            struct_values("struct mw_census_totals", totals),
            tuple(int(c_zones[i].object_bytes) for i in range(len(zones))),
            tuple(
                LargeBlock(
                    int(block.start),
                    int(block.size_bytes),
                    int(block.anon_bytes),
                    int(block.object_bytes),
                )
                for block in (blocks[0][i] for i in range(block_count))
            ),
            _unclaimed(image, taken[0]),
        )
    finally:
        lib.mw_census_destroy(taken[0])


def _unclaimed(image: Image, census: object) -> dict[int, tuple[int, int]]:
    size, zero = ffi.new("uint64_t *"), ffi.new("uint64_t *")
    found = {}
    for mapping in image.mappings:
        lib.mw_census_unclaimed(census, mapping.number, size, zero)
        if size[0]:
            found[mapping.number] = (int(size[0]), int(zero[0]))
    return found


def census_process(pid: int, budget_s: float = BUDGET_S) -> Census:
    """Count the live Python objects of a process by type."""
    with Image(pid) as image:
        interpreter = find_interpreter(image)
        if interpreter is None:
            raise no_interpreter(image)
        census = take_census(image, interpreter, budget=Budget(budget_s))
        if not image.is_same():
            raise ProcessGone(f"process {pid} ended, or ran another program, during its census")
        return census


def no_interpreter(image: Image) -> MwtraceError:
    """Say why there is nothing to count in it."""
    if looks_like_python(image):
        why = "its Python is of a version or build whose objects we cannot read"
        remedy = "CPython 3.6 to 3.15 can be read, but not free-threaded or debug builds."
    else:
        why = "no CPython runs in it"
        remedy = "'mwtrace explain' shows what its memory is made of all the same."
    error = ProcessUnreadable(
        f"cannot take a census of process {image.pid}: {why}", Unreadable.OTHER
    )
    error.remedy = remedy
    return error


class TypeGrowth(NamedTuple):
    name: str
    objects: int
    size_bytes: int
    objects_grown: int
    bytes_grown: int


def grown_types(before: Census, now: Census) -> list[TypeGrowth]:
    """What grew between two censuses of one process, most bytes first."""
    old = {(row.name, row.address): row for row in before.types}
    # A type that was below the rows kept then cannot be told from a new one; leave it out.
    floor = before.types[-1].size_bytes if len(before.types) == ROWS else 0
    found = []
    for row in now.types:
        was = old.get((row.name, row.address))
        if was is None and row.size_bytes <= 2 * floor:
            continue
        objects = row.objects - (was.objects if was else 0)
        size = row.size_bytes - (was.size_bytes if was else 0)
        if size > 0 or objects > 0:
            found.append(TypeGrowth(row.name, row.objects, row.size_bytes, objects, size))
    return sorted(found, key=lambda growth: -growth.bytes_grown)
