"""Without whom an object would be free: wraps ``cext/dominators.h``. Knows no type and no name."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np

from mwtrace.capi import lib
from mwtrace.snapshot.graph import NONE, Column, Graph, pointer, raise_for


class Tree(NamedTuple):
    """Every node under at most one parent; order has parents before their children."""

    parents: Column  # u32; NONE: at the top
    order: Column  # u32


class Children:
    """The tree from above: who is right under a node, and who is at the top."""

    def __init__(self, tree: Tree) -> None:
        self._parents = tree.parents

    # Sorted by parent; those at the top, whose parent is the largest number, come last.
    @cached_property
    def _sorted(self) -> Column:
        return np.argsort(self._parents, kind="stable").astype(np.uint32)

    @cached_property
    def _keys(self) -> Column:
        return self._parents[self._sorted]

    def of(self, node: int) -> Column:
        begin, end = np.searchsorted(self._keys, np.array([node, node + 1], np.uint64))
        return self._sorted[begin:end]

    def below(self, nodes: Column) -> Column:
        """Return nodes and all that is under them, level by level."""
        levels = [nodes]
        while len(levels[-1]):
            begins = np.searchsorted(self._keys, levels[-1], "left")
            counts = np.searchsorted(self._keys, levels[-1], "right") - begins
            starts = np.repeat(begins - np.cumsum(counts) + counts, counts)
            levels.append(self._sorted[starts + np.arange(len(starts))])
        return np.concatenate(levels)

    def top(self) -> Column:
        return self.of(NONE)


def dominators(graph: Graph, root_kinds: Column) -> Tree:
    """Return the tree of immediate dominators. root_kinds: as ``find_roots()`` returns them."""
    parents = np.empty(graph.count, np.uint32)
    order = np.empty(graph.count, np.uint32)
    raise_for(
        lib.mw_graph_dominators(
            graph.c, graph.reversed.c, pointer(root_kinds), pointer(parents), pointer(order)
        )
    )
    return Tree(parents, order)
