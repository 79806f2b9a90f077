"""Which part of a process grows: two readings in, a kind out.

Law of this file: it is pure, and it never calls memory that an allocator merely keeps a leak.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from mwtrace.evidence.parts import PartKind


class Kind(enum.Enum):
    """What grows, in the words of the verdict."""

    PYTHON_OBJECTS = "python-objects"
    MISSING_DECREF = "missing-decref"  # Python objects, counted but not held
    NATIVE_LIVE = "native-live"
    ALLOCATOR_RETAINED = "allocator-retained"
    MMAP = "mmap"
    SHM_FILE = "shm/file"
    STACKS = "stacks/threads"
    MIXED = "mixed"
    UNKNOWN = "unknown"

    @property
    def is_leak(self) -> bool:
        """Whether memory of this kind is held by somebody; what is kept free is not."""
        return self is not Kind.ALLOCATOR_RETAINED


_KIND_OF_PART = {
    PartKind.PYTHON_OBJECTS: Kind.PYTHON_OBJECTS,
    PartKind.NATIVE_LIVE: Kind.NATIVE_LIVE,
    PartKind.ALLOCATOR_RETAINED: Kind.ALLOCATOR_RETAINED,
    PartKind.PYMALLOC_FREE: Kind.ALLOCATOR_RETAINED,
    PartKind.LARGE_MMAPS: Kind.MMAP,
    PartKind.FILE: Kind.SHM_FILE,
    PartKind.SHMEM: Kind.SHM_FILE,
    PartKind.STACKS: Kind.STACKS,
    PartKind.MODULE_DATA: Kind.UNKNOWN,
    PartKind.UNACCOUNTED: Kind.UNKNOWN,
    PartKind.SWAP: Kind.UNKNOWN,
    PartKind.PAGE_TABLES: Kind.UNKNOWN,
}

# A kind is named if it makes up this share of what grew; less is mixed.
SHARE_MIN = 0.6
# Below this, two readings say nothing: interpreters breathe by as much.
GROWTH_MIN_BYTES = 256 * 1024
# Threads come with an arena of their own and with objects that describe them: a growing number of
# stacks is the cause of all that, even where it is not the greater part of the bytes.
STACKS_SHARE_MIN = 0.15


@dataclass(frozen=True)
class Growth:
    kind: Kind
    grown_bytes: int  # of all parts that grew
    by_kind: tuple[tuple[Kind, int], ...]  # largest first; those that grew
    why: str


def growth(
    before: Mapping[PartKind, int],
    now: Mapping[PartKind, int],
    threads_before: int = 0,
    threads_now: int = 0,
) -> Growth:
    """Say what grew from one reading to the next.

    Swapped memory belongs to some part that shrank as it went: what left every other part for
    swap is subtracted from swap's growth before shares are taken.
    """
    changes = {kind: now.get(kind, 0) - before.get(kind, 0) for kind in PartKind}
    if changes[PartKind.SWAP] > 0:
        went = sum(-change for change in changes.values() if change < 0)
        changes[PartKind.SWAP] = max(0, changes[PartKind.SWAP] - went)
    grown: dict[Kind, int] = {}
    for part, change in changes.items():
        if change > 0:
            grown[_KIND_OF_PART[part]] = grown.get(_KIND_OF_PART[part], 0) + change
    by_kind = tuple(sorted(grown.items(), key=lambda item: -item[1]))
    total = sum(grown.values())
    if total < GROWTH_MIN_BYTES:
        return Growth(Kind.UNKNOWN, total, by_kind, "too little grew between the two readings")
    more_threads = threads_now - threads_before
    stacks = grown.get(Kind.STACKS, 0)
    if more_threads >= 3 and stacks >= STACKS_SHARE_MIN * total:
        why = f"{more_threads} more threads; their stacks are {_share(stacks, total)} of the growth"
        return Growth(Kind.STACKS, total, by_kind, why)
    first, size = by_kind[0]
    if size >= SHARE_MIN * total:
        return Growth(first, total, by_kind, f"{_share(size, total)} of the growth")
    words = ", ".join(f"{kind.value} {_share(part, total)}" for kind, part in by_kind[:3])
    return Growth(Kind.MIXED, total, by_kind, words)


def refine(grown: Growth, missing_decref: bool) -> Growth:
    """Growing objects that nobody holds though they are counted as held are a kind of their own."""
    if not missing_decref or grown.kind is not Kind.PYTHON_OBJECTS:
        return grown
    why = f"{grown.why}; reference counts are higher than the references found"
    return Growth(Kind.MISSING_DECREF, grown.grown_bytes, grown.by_kind, why)


def _share(part: int, total: int) -> str:
    return f"{100 * part / total:.0f}%"
