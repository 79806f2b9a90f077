"""The cheapest way from a root to each object: wraps ``cext/nearest.h``. Knows no type, no name."""

from __future__ import annotations

import numpy as np

from mwtrace.capi import lib
from mwtrace.snapshot.dominators import Tree
from mwtrace.snapshot.graph import Column, Graph, pointer, raise_for

NO_ROOT = 255  # the root cost of who is none


def nearest(graph: Graph, root_costs: Column, step_costs: Column) -> Tree:
    """Return the tree of cheapest ways: a node's parent is the step before it.

    Costs are u8: of beginning at a root (NO_ROOT: it is none), and of stepping onto a node (>= 1).
    """
    parents = np.full(graph.count, 0xFFFFFFFF, np.uint32)
    order = np.empty(graph.count, np.uint32)
    raise_for(
        lib.mw_graph_nearest(
            graph.c, pointer(root_costs), pointer(step_costs), pointer(parents), pointer(order)
        )
    )
    return Tree(parents, order)
