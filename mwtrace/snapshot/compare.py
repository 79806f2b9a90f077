"""What is there now and was not before: two or three snapshots of one process.

An object is the same if address and type are the same. Memory that was freed and taken again for
the same type counts as old: a leak shows all the same, because its objects are not freed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Optional

import numpy as np

from mwtrace.errors import ConfigError
from mwtrace.snapshot.columns import Objects
from mwtrace.snapshot.graph import NONE, Column, resolve


class TypeRow(NamedTuple):
    name: str
    objects: int
    size_bytes: int
    objects_grown: int  # 0 where there is nothing to compare with
    bytes_grown: int


@dataclass(frozen=True)
class Growth:
    """Of every object of the last snapshot: how much of it is growth, in bytes."""

    weights: Column  # u64; all of a new object, what an old one gained
    is_new: Column  # bool
    method: str  # how it was told, for people

    @property
    def size_bytes(self) -> int:
        return int(self.weights.sum(dtype=np.uint64))


def check_order(snapshots: list[Objects]) -> None:
    """Raise ConfigError unless these are of one process, oldest first."""
    processes = {(one.header.pid, one.header.start_time_ns) for one in snapshots}
    if len(processes) > 1:
        raise ConfigError(
            "cannot compare snapshots of different processes: an object is known by its address",
            "Take two or three of one process; after a restart, begin anew.",
        )
    times = [one.header.unix_time_s for one in snapshots]
    if times != sorted(times):
        raise ConfigError("the snapshots are not in the order in which they were taken")


def growth(now: Objects, before: Optional[Objects], first: Optional[Objects]) -> Growth:
    """Tell what grew.

    One snapshot: everything counts. Two: what is not in the earlier one. Three: what came between
    the first two and is still there in the last; so what was in flight while a snapshot was taken
    is not in it.
    """
    if before is None:
        ones = np.ones(now.count, bool)
        return Growth(now.sizes.copy(), ones, "all objects of one snapshot")
    if first is None:
        there, gained = _match(now, before)
        return Growth(np.where(there, gained, now.sizes), ~there, "new since the first snapshot")
    there, _ = _match(now, before)
    at_first, gained = _match(now, first)
    kept = there & ~at_first
    weights = np.where(kept, now.sizes, np.where(at_first, gained, 0)).astype(np.uint64)
    return Growth(weights, kept, "new in the second snapshot and still there in the third")


def type_rows(now: Objects, before: Optional[Objects]) -> list[TypeRow]:
    """Objects and bytes by type, by growth if there is anything to compare with, else by size."""
    rows = _by_name(now)
    old = _by_name(before) if before is not None else rows
    table = []
    for name in rows.keys() | old.keys():
        objects, size_bytes = rows.get(name, (0, 0))
        objects_before, bytes_before = old.get(name, (0, 0))
        table.append(
            TypeRow(name, objects, size_bytes, objects - objects_before, size_bytes - bytes_before)
        )
    return sorted(table, key=lambda row: (-row.bytes_grown, -row.size_bytes, row.name))


def _by_name(objects: Objects) -> dict[str, tuple[int, int]]:
    kinds = len(objects.type_names)
    counts = np.bincount(objects.types, minlength=kinds)
    sizes = np.bincount(objects.types, objects.sizes.astype(np.float64), kinds)
    found: dict[str, tuple[int, int]] = {}
    for name, count, size in zip(objects.type_names, counts, sizes):
        before = found.get(name, (0, 0))
        found[name] = (before[0] + int(count), before[1] + int(size))
    return found


# Which of now's objects were there before, and how many bytes those gained.
def _match(now: Objects, before: Objects) -> tuple[Column, Column]:
    nodes = resolve(before.ids, now.ids)
    there = nodes != NONE
    at = np.where(there, nodes, 0)
    if before.count == 0:
        return np.zeros(now.count, bool), np.zeros(now.count, np.uint64)
    number = {name: index for index, name in enumerate(before.type_names)}
    same = np.array([number.get(name, NONE) for name in now.type_names], np.uint32)
    there &= same[now.types] == before.types[at] if len(same) else False
    old = before.sizes[at]
    gained = np.where(there & (now.sizes > old), now.sizes - old, 0).astype(np.uint64)
    return there, gained
