"""Where growth collects: from the roots down the ways, as long as one branch holds most of it.

A holder is the last object that all of a growth hangs on: below it are many small branches. Pure:
trees and weights in, nodes out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Optional

import numpy as np

from mwtrace.snapshot.dominators import Children
from mwtrace.snapshot.graph import Column
from mwtrace.snapshot.retainers import Held

SHARE_MIN = 0.05  # of all growth: less is not told for itself
SUSPECTS_MAX = 20
VISITS_MAX = 200_000
# So many objects of one type on one way are a chain: its head is the holder.
CHAIN_MIN = 64


class Collected(NamedTuple):
    """Growth that hangs on one object, or on roots of one kind."""

    holder: Optional[int]  # None: the roots themselves
    held: Held
    size_bytes: int
    own_bytes: int  # by which the holder itself grew
    branches: Column  # the nodes right under the holder, all small
    is_chain: bool = False  # each under the one before: a linked list


class _Seen(NamedTuple):
    head: int
    times: int


def collect(
    children: Children,
    sums: Column,
    weights: Column,
    types: Column,
    held: Callable[[int], Held],
) -> list[Collected]:
    """Find who holds the growth; largest first. sums: weights summed over each subtree."""
    total = int(weights.sum(dtype=np.uint64))
    least = max(1, int(SHARE_MIN * total))
    top = children.top()
    top = top[sums[top] > 0]
    found = _at_roots(top[sums[top] < least], sums, least, held)
    left: list[tuple[int, dict[int, _Seen]]] = [(int(n), {}) for n in top[sums[top] >= least]]
    for _ in range(VISITS_MAX):
        if not left:
            break
        node, seen = left.pop()
        kind = int(types[node])
        chain = seen.get(kind, _Seen(node, 0))
        chain = _Seen(chain.head, chain.times + 1)
        if chain.times >= CHAIN_MIN and int(sums[chain.head]) - int(sums[node]) >= least:
            below = children.of(chain.head)
            size = int(sums[chain.head])
            found.append(Collected(chain.head, held(chain.head), size, 0, below, True))
            continue
        below = children.of(node)
        below = below[sums[below] > 0]
        heavy = below[sums[below] >= least]
        rest = int(sums[node]) - int(sums[heavy].sum(dtype=np.uint64))
        if rest >= least:
            light = below[sums[below] < least]
            found.append(Collected(node, held(node), rest, int(weights[node]), light))
        # One branch: the same map serves on, or a long chain would copy it at every step.
        if len(heavy) == 1:
            seen[kind] = chain
            left.append((int(heavy[0]), seen))
        else:
            left += [(int(n), {**seen, kind: chain}) for n in heavy]
    return sorted(found, key=lambda one: -one.size_bytes)[:SUSPECTS_MAX]


# Who is held by nothing in Python is a root of its own, and as such small: they count together.
def _at_roots(
    light: Column, sums: Column, least: int, held: Callable[[int], Held]
) -> list[Collected]:
    by_kind: dict[Held, list[int]] = {}
    for node in light.tolist():
        by_kind.setdefault(held(node), []).append(node)
    found = []
    for kind in (Held.NATIVE, Held.CYCLE):
        nodes = np.array(by_kind.get(kind, []), np.uint32)
        size = int(sums[nodes].sum(dtype=np.uint64))
        if size >= least:
            found.append(Collected(None, kind, size, 0, nodes))
    return found
