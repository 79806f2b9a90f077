"""A snapshot as columns: one array per quantity, one number per object.

Values only: how they come out of a file is ``loading``'s, what follows from them others'.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from mwtrace.snapshot.format import EdgeKind, RootKind
from mwtrace.snapshot.graph import Column, Graph


@dataclass(frozen=True)
class Header:
    """What the writer said of the process; 0 and "" where it said nothing."""

    pid: int
    start_time_ns: int
    service: str
    python: str
    writer: str
    unix_time_s: float
    rss_bytes: int
    argv0: str
    pause_s: Optional[float]
    why: str


class EdgeName(NamedTuple):
    text: str
    kind: EdgeKind


class Root(NamedTuple):
    node: int
    text: str
    kind: RootKind


class Names:
    """What edges are called, found by source and target."""

    def __init__(
        self, sources: Column, targets: Column, texts: Column, kinds: Column, strings: list[str]
    ) -> None:
        order = np.lexsort((targets, sources))
        self._keys = _keys(sources[order], targets[order])
        self._texts = texts[order]
        self._kinds = kinds[order]
        self._strings = strings

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, source: int, target: int) -> Optional[EdgeName]:
        key = np.uint64(source << 32 | target)
        at = int(np.searchsorted(self._keys, key))
        if at == len(self._keys) or self._keys[at] != key:
            return None
        return self._name(at)

    def of(self, source: int) -> list[EdgeName]:
        """Return all names on the edges of a source."""
        begin, end = np.searchsorted(
            self._keys, np.array([source << 32, (source + 1) << 32], np.uint64)
        )
        return [self._name(at) for at in range(begin, end)]

    def _name(self, at: int) -> EdgeName:
        return EdgeName(self._strings[int(self._texts[at])], EdgeKind(int(self._kinds[at])))


def _keys(sources: Column, targets: Column) -> Column:
    keys: Column = sources.astype(np.uint64) << np.uint64(32) | targets
    return keys


@dataclass(frozen=True)
class Objects:
    """What is known of every object without looking at who refers to it."""

    path: Path
    header: Header
    ids: Column  # u64, addresses
    types: Column  # u32: index into type_names
    sizes: Column  # u64, shallow
    type_names: list[str]
    truncated: str  # why the writer left objects out; "" if it did not
    doubles: int  # rows of objects that had one already, left out
    broke_off: bool  # the file has no end: what is here was salvaged

    @property
    def count(self) -> int:
        return len(self.ids)

    @property
    def size_bytes(self) -> int:
        return int(self.sizes.sum(dtype=np.uint64))

    def type_name(self, node: int) -> str:
        return self.type_names[int(self.types[node])]


@dataclass(frozen=True)
class Snapshot(Objects):
    """All that a file holds."""

    refcounts: Column  # u32; 2^32-1: not known, or immortal
    graph: Graph
    names: Names
    roots: list[Root]
    outside_edges: int  # to objects that are not in the file
    outside_names: int
