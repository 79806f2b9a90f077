"""Who refers to whom, by index: wraps ``cext/graph.h``.

Knows no object, no type and no name. Arrays are numpy's, and every function is one call of C over
all of them, outside of the interpreter lock.
"""

from __future__ import annotations

import errno
import os
import secrets
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mwtrace.capi import ffi, lib

if TYPE_CHECKING:
    from mwtrace._cext import CData

Column = NDArray[Any]
NONE = 0xFFFFFFFF  # MW_GRAPH_NONE: a target outside of the graph, no parent


class Graph:
    """The referents of node i are ``targets[offsets[i]:offsets[i + 1]]``, NONE among them."""

    def __init__(self, offsets: Column, targets: Column) -> None:
        if int(offsets[-1]) != len(targets):
            raise ValueError("the last offset is not the number of edges")
        self.offsets = np.ascontiguousarray(offsets, np.uint64)
        self.targets = np.ascontiguousarray(targets, np.uint32)
        self.count = len(offsets) - 1
        # A struct does not keep what it points at; these do.
        self._pointers = (pointer(self.offsets), pointer(self.targets))
        self.c = ffi.new("struct mw_graph *", [*self._pointers, self.count, 0])

    def referents(self, node: int) -> Column:
        found: Column = self.targets[int(self.offsets[node]) : int(self.offsets[node + 1])]
        kept: Column = found[found != NONE]
        return kept

    @cached_property
    def reversed(self) -> Graph:
        """The same edges the other way: the referents of a node are who refers to it."""
        offsets = np.empty(self.count + 1, np.uint64)
        sources = np.empty(int((self.targets != NONE).sum()), np.uint32)
        lib.mw_graph_reverse(self.c, pointer(offsets), pointer(sources))
        return Graph(offsets, sources)


def pointer(array: Column) -> CData:
    """An array as C sees it; the array must outlive its use."""
    return ffi.from_buffer(_C_TYPES[array.dtype], array)


_C_TYPES = {
    np.dtype(np.uint8): "uint8_t[]",
    np.dtype(np.uint32): "uint32_t[]",
    np.dtype(np.uint64): "uint64_t[]",
}


def raise_for(rc: int) -> None:
    """Raise what a negative errno says: MemoryError, FileExistsError, another OSError."""
    if rc == -errno.ENOMEM:
        raise MemoryError
    if rc < 0:
        raise OSError(-rc, os.strerror(-rc))


def resolve(ids: Column, wanted: Column) -> Column:
    """Turn ids into indices, NONE for those that are not there.

    Raises FileExistsError if an id comes twice in ids.
    """
    found = np.empty(len(wanted), np.uint32)
    missing = ffi.new("uint64_t *")
    seed = secrets.randbits(64)
    raise_for(
        lib.mw_graph_resolve(
            pointer(ids), len(ids), pointer(wanted), len(wanted), seed, pointer(found), missing
        )
    )
    return found


def find_roots(graph: Graph, named: Column, refcounts: Column) -> Column:
    """Say of every node what makes it a root (``enum mw_graph_root``), or 0.

    named: the nodes that are roots for sure. With what is found, every node is reached.
    """
    kinds = np.zeros(graph.count, np.uint8)
    kinds[named] = lib.MW_GRAPH_ROOT_NAMED
    raise_for(
        lib.mw_graph_find_roots(graph.c, graph.reversed.c, pointer(refcounts), pointer(kinds))
    )
    return kinds


def sum_up(parents: Column, order: Column, values: Column) -> Column:
    """Sum values over each node's subtree. order: all nodes, parents before children."""
    sums = values.astype(np.uint64)
    lib.mw_graph_sum_up(pointer(parents), pointer(order), len(order), pointer(sums))
    return sums
