"""One, two or three snapshots put together: what grew, and who holds it.

The order of work and the values that come out; how each is found is said in the modules it calls.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Optional

import numpy as np

from mwtrace.errors import ConfigError
from mwtrace.snapshot.columns import Header, Objects, Snapshot
from mwtrace.snapshot.compare import Growth, TypeRow, check_order, growth, type_rows
from mwtrace.snapshot.dominators import Children, Tree, dominators
from mwtrace.snapshot.graph import NONE, Column, find_roots, sum_up
from mwtrace.snapshot.loading import MEMORY_MAX_BYTES, load, load_objects
from mwtrace.snapshot.patterns import recognise
from mwtrace.snapshot.retainers import Held, Retainers, Way, short
from mwtrace.snapshot.suspects import Collected, collect

TREE_NODES_MAX = 3000
TREE_DEPTH_MAX = 40
TREE_CHILDREN_MAX = 40
OTHERS_MAX = 3
TYPES_MAX = 5000
_FINALIZERS_SAMPLED = 50
_OWN = ("mwtrace.snapshot.hook.", "mwtrace_hook.")


@dataclass(frozen=True)
class Suspect:
    """Growth in one place. Texts are the target's."""

    size_bytes: int
    share: float  # of the growth; of all objects, if there is one snapshot
    objects: int  # right under the holder
    type_name: str  # of most of them; of the holder, if it is that which grew
    path: str  # to one of them, the key or number left out
    also: tuple[str, ...]  # ways by which it is held besides
    pattern: str
    advice: str
    retained_bytes: int  # what would be free without the holder; 0: no single one
    signature: str


@dataclass(frozen=True)
class TreeNode:
    """One object of the dominator tree, or the rest of a level."""

    label: str
    retained_bytes: int
    own_bytes: int
    objects: int
    children: tuple[TreeNode, ...]


class TypeLine(NamedTuple):
    name: str
    objects: int
    size_bytes: int
    objects_grown: int
    bytes_grown: int
    retained_bytes: int  # by all of them together


@dataclass(frozen=True)
class Analysis:
    paths: tuple[Path, ...]
    headers: tuple[Header, ...]
    method: str
    objects: int
    size_bytes: int
    grown_objects: int
    grown_bytes: int
    interval_s: float  # from the first snapshot to the last
    suspects: tuple[Suspect, ...]
    types: tuple[TypeLine, ...]
    tree: TreeNode
    native_objects: int  # roots that no Python object holds
    cycle_objects: int
    notes: tuple[str, ...]
    elapsed_s: float

    @property
    def is_compared(self) -> bool:
        return len(self.paths) > 1


def analyze(
    paths: Sequence[Path], memory_max_bytes: int = MEMORY_MAX_BYTES, salvage: bool = False
) -> Analysis:
    """Analyse snapshots of one process, oldest first. Raises SnapshotError or ConfigError."""
    began_s = time.monotonic()
    if not 1 <= len(paths) <= 3:
        raise ConfigError("one, two or three snapshots can be analysed at a time")
    earlier: list[Objects] = [load_objects(p, memory_max_bytes, salvage) for p in paths[:-1]]
    now = load(paths[-1], memory_max_bytes, salvage)
    check_order([*earlier, now])
    before = earlier[-1] if earlier else None
    grown = growth(now, before, earlier[0] if len(earlier) == 2 else None)
    rows = type_rows(now, earlier[0] if earlier else None)
    notes = [note for one in (*earlier, now) for note in _notes(one)]
    headers = tuple(one.header for one in (*earlier, now))
    del earlier, before
    named = np.array([root.node for root in now.roots], np.int64)
    kinds = find_roots(now.graph, named, now.refcounts)
    held_by = dominators(now.graph, kinds)
    retained = sum_up(held_by.parents, held_by.order, now.sizes)
    retainers = Retainers(now, kinds)
    grown = _without_own(now, grown, Children(retainers.tree))
    if now.outside_edges:
        notes.append(f"{now.outside_edges:,} references lead to objects that are not in the file")
    return Analysis(
        paths=tuple(paths),
        headers=headers,
        method=grown.method,
        objects=now.count,
        size_bytes=now.size_bytes,
        grown_objects=int(grown.is_new.sum()),
        grown_bytes=grown.size_bytes,
        interval_s=headers[-1].unix_time_s - headers[0].unix_time_s,
        suspects=tuple(_suspects(now, grown, retainers, retained)),
        types=tuple(_type_lines(now, rows, held_by, retained)),
        tree=_tree(now, held_by, retained),
        native_objects=int(((kinds == 2) | (kinds == 3)).sum()),
        cycle_objects=int((kinds == 4).sum()),
        notes=tuple(notes),
        elapsed_s=time.monotonic() - began_s,
    )


# What the hook allocated to write the snapshot is in it, and is new each time.
def _without_own(now: Snapshot, grown: Growth, ways: Children) -> Growth:
    own = [i for i, name in enumerate(now.type_names) if name.startswith(_OWN)]
    nodes = ways.below(np.flatnonzero(np.isin(now.types, own)).astype(np.uint32))
    grown.weights[nodes] = 0
    grown.is_new[nodes] = False
    return grown


def _notes(objects: Objects) -> list[str]:
    notes = []
    if objects.broke_off:
        notes.append(f"{objects.path} breaks off: what is missing there may count as new or gone")
    if objects.doubles:
        notes.append(f"{objects.path} has {objects.doubles:,} objects twice; the first rows count")
    if objects.truncated:
        notes.append(f"{objects.path} is not complete: {objects.truncated}")
    return notes


def _suspects(
    now: Snapshot, grown: Growth, retainers: Retainers, retained: Column
) -> list[Suspect]:
    tree = retainers.tree
    sums = sum_up(tree.parents, tree.order, grown.weights)
    held = _HeldAt(tree, retainers)
    collected = collect(Children(tree), sums, grown.weights, now.types, held)
    merged: dict[str, Suspect] = {}
    for one in collected:
        suspect = _suspect(now, grown, one, sums, retainers, retained)
        known = merged.get(suspect.signature)
        merged[suspect.signature] = _joined(known, suspect) if known else suspect
    return sorted(merged.values(), key=lambda suspect: -suspect.size_bytes)


def _joined(one: Suspect, other: Suspect) -> Suspect:
    return Suspect(
        one.size_bytes + other.size_bytes,
        one.share + other.share,
        one.objects + other.objects,
        one.type_name,
        one.path,
        one.also,
        one.pattern,
        one.advice,
        one.retained_bytes + other.retained_bytes,
        one.signature,
    )


class _HeldAt:
    """What the way to a node begins with."""

    def __init__(self, tree: Tree, retainers: Retainers) -> None:
        self._tree = tree
        self._retainers = retainers

    def __call__(self, node: int) -> Held:
        while (parent := int(self._tree.parents[node])) != NONE:
            node = parent
        return self._retainers.held(node)


def _suspect(
    now: Snapshot,
    grown: Growth,
    one: Collected,
    sums: Column,
    retainers: Retainers,
    retained: Column,
) -> Suspect:
    grows_itself = one.holder is not None and 2 * one.own_bytes > one.size_bytes
    objects, type_name, sample = _main_branch(now, one, sums)
    if grows_itself or sample is None:
        assert one.holder is not None
        sample, objects, type_name = one.holder, 1, now.type_name(one.holder)
    way = retainers.way(sample)
    to_holder = way if one.holder is None else retainers.way(one.holder)
    finalizer = _has_finalizer(now, one.branches if one.holder is None else [one.holder, sample])
    if one.is_chain:
        assert one.holder is not None
        way, type_name = to_holder, now.type_name(one.holder)
        same = now.types == now.types[one.holder]
        objects = int((same & grown.is_new).sum())
    pattern = recognise(to_holder, type_name, finalizer, grows_itself, one.is_chain)
    return Suspect(
        size_bytes=one.size_bytes,
        share=one.size_bytes / max(1, grown.size_bytes),
        objects=objects,
        type_name=type_name,
        path=path_text(to_holder if grows_itself else way, not (grows_itself or one.is_chain)),
        also=tuple(_others(now, sample, retainers)),
        pattern=pattern.name,
        advice=pattern.advice,
        retained_bytes=0 if one.holder is None else int(retained[one.holder]),
        signature=to_holder.signature,
    )


def _main_branch(now: Snapshot, one: Collected, sums: Column) -> tuple[int, str, Optional[int]]:
    if not len(one.branches):
        return 0, "", None
    kinds = now.types[one.branches]
    by_type = np.bincount(kinds, sums[one.branches].astype(np.float64))
    main = int(by_type.argmax())
    of_main = one.branches[kinds == main]
    return len(of_main), now.type_names[main], int(of_main[len(of_main) // 2])


def path_text(way: Way, hides_last: bool) -> str:
    """A way as text; hides_last: the last key or number is one of many."""
    text = way.text
    if hides_last and len(way.steps) > 1:
        last = way.steps[-1]
        if last.name is not None:
            text = Way(way.held, way.root_text, way.steps[:-1]).text + _one_of(last.from_type)
        text += f" -> {short(last.type_name)}" if not text.endswith(short(last.type_name)) else ""
    return text


def _one_of(container: str) -> str:
    return "['…']" if "ict" in container else "[…]"


def _has_finalizer(now: Snapshot, nodes: Sequence[int] | Column) -> bool:
    classes = {
        referent
        for node in nodes[:_FINALIZERS_SAMPLED]
        for referent in now.graph.referents(int(node)).tolist()
        if now.type_name(referent) == "builtins.type"
    }
    return any(_defines(now, node, "__del__") for node in classes)


def _defines(now: Snapshot, class_node: int, name: str) -> bool:
    places = [class_node, *now.graph.referents(class_node).tolist()]
    return any(found.text == name for place in places for found in now.names.of(place))


def _others(now: Snapshot, sample: int, retainers: Retainers) -> list[str]:
    first = int(retainers.tree.parents[sample])
    found: list[str] = []
    for referrer in now.graph.reversed.referents(sample).tolist():
        if referrer == first or sample in _chain(retainers.tree, referrer):
            continue
        text = path_text(retainers.way(referrer), hides_last=False)
        if text not in found:
            found.append(text)
        if len(found) == OTHERS_MAX:
            break
    return found


def _chain(tree: Tree, node: int) -> set[int]:
    chain = {node}
    while (node := int(tree.parents[node])) != NONE and len(chain) < TYPES_MAX:
        chain.add(node)
    return chain


def _type_lines(
    now: Snapshot, rows: list[TypeRow], held_by: Tree, retained: Column
) -> list[TypeLine]:
    # An object below one of its own type is retained by that one already.
    outer = np.ones(now.count, bool)
    inner = held_by.parents != NONE
    outer[inner] = now.types[inner] != now.types[held_by.parents[inner]]
    sums = np.bincount(now.types[outer], retained[outer].astype(np.float64), len(now.type_names))
    by_name: dict[str, int] = {}
    for name, size in zip(now.type_names, sums):
        by_name[name] = by_name.get(name, 0) + int(size)
    return [TypeLine(*row, min(by_name.get(row.name, 0), now.size_bytes)) for row in rows][
        :TYPES_MAX
    ]


def _tree(now: Snapshot, held_by: Tree, retained: Column) -> TreeNode:
    children = Children(held_by)
    root_texts = {root.node: root.text for root in reversed(now.roots) if root.text}
    budget = [TREE_NODES_MAX]
    least = max(1, now.size_bytes // 1000)

    def label(node: int) -> str:
        parent = int(held_by.parents[node])
        name = now.names.find(parent, node) if parent != NONE else None
        kind = short(now.type_name(node))
        if node in root_texts:
            return f"{kind} {root_texts[node]}"
        return f"{name.text}: {kind}" if name else kind

    def level(nodes: Column, depth: int) -> tuple[TreeNode, ...]:
        if not len(nodes):
            return ()
        sizes = retained[nodes]
        order = np.argsort(sizes)[::-1]
        shown = [int(i) for i in order[:TREE_CHILDREN_MAX] if sizes[i] >= least]
        shown = shown[: budget[0]] if depth < TREE_DEPTH_MAX else []
        budget[0] -= len(shown)
        made = []
        for i in shown:
            node = int(nodes[i])
            below = level(children.of(node), depth + 1)
            made.append(TreeNode(label(node), int(sizes[i]), int(now.sizes[node]), 1, below))
        rest = int(sizes.sum(dtype=np.uint64)) - sum(node.retained_bytes for node in made)
        if rest >= least:
            made.append(_rest(now, np.delete(nodes, shown), rest))
        return tuple(made)

    return TreeNode("all objects", now.size_bytes, 0, now.count, level(children.top(), 0))


def _rest(now: Snapshot, nodes: Column, size_bytes: int) -> TreeNode:
    counts = np.bincount(now.types[nodes])
    main = int(counts.argmax())
    label = f"{len(nodes):,} more, most of them {short(now.type_names[main])}"
    return TreeNode(label, size_bytes, 0, len(nodes), ())
