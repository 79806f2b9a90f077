"""Why an object is still there: the cheapest way to it from a root, as a person would write it.

A module is the best beginning, then a running function; what only native code or a cycle of its
own holds comes last. Names of the target's are text, made printable by whoever shows them.
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np

from mwtrace.capi import lib
from mwtrace.snapshot.columns import EdgeName, Root, Snapshot
from mwtrace.snapshot.dominators import Tree
from mwtrace.snapshot.format import EdgeKind, RootKind
from mwtrace.snapshot.graph import NONE, Column
from mwtrace.snapshot.nearest import NO_ROOT, nearest

STEPS_MAX = 200  # of a way that is told; a longer one is a chain, and repeats itself
_ROOT_COST = {
    RootKind.MODULE: 1,
    RootKind.FRAME: 6,
    RootKind.OTHER: 20,
    RootKind.INTERPRETER: 40,
    RootKind.UNREFERRED: 60,
}
_FOUND_ROOT_COST = 60
# A step onto these is a detour: classes know their subclasses' methods, frames know everything.
_STEP_COST = {
    "builtins.type": 3,
    "builtins.module": 4,
    "builtins.frame": 3,
    "builtins.traceback": 3,
    "builtins.function": 2,
}
_ENTRY = {
    "dict": "['…']",
    "OrderedDict": "['…']",
    "defaultdict": "['…']",
    "Counter": "['…']",
    "WeakValueDictionary": "['…']",
    "list": "[…]",
    "tuple": "[…]",
    "deque": "[…]",
    "set": "{…}",
    "frozenset": "{…}",
}


THREAD_LOCAL = "a threading.local"


class Held(enum.Enum):
    """What is at the beginning of a way."""

    MODULE = "module"
    FRAME = "frame"
    INTERPRETER = "interpreter"
    NATIVE = "native"
    CYCLE = "cycle"


class Step(NamedTuple):
    node: int
    type_name: str
    name: Optional[EdgeName]  # of the edge that leads here
    from_type: str  # the type of the object on the other end of it, also if that is not told


class Way(NamedTuple):
    """From a root to an object."""

    held: Held
    root_text: str
    steps: tuple[Step, ...]  # the root first

    @property
    def text(self) -> str:
        return "".join([self.root_text, *(_words(step) for step in self.steps[1:])])

    @property
    def signature(self) -> str:
        """Equal for the same leak in another process: no keys, no numbers, no line."""
        words = [self.held.value, _NUMBERS.sub("", self.root_text)]
        for step in self.steps[1:]:
            name = step.name
            told = name.text if name is not None and name.kind not in _DATA else ""
            word = f"{told}:{step.type_name}"
            if word != words[-1]:
                words.append(word)
        return hashlib.sha256("\n".join(words).encode("utf-8", "replace")).hexdigest()[:12]


_DATA = (EdgeKind.KEY, EdgeKind.INDEX)
_NUMBERS = re.compile(r"^thread [^:]*: |:\d+\)$")


class Retainers:
    """Ways to all objects of a snapshot; built once, then asked about samples."""

    def __init__(self, snapshot: Snapshot, root_kinds: Column) -> None:
        self._snapshot = snapshot
        self._kinds = root_kinds
        self._roots: dict[int, Root] = {}
        for root in snapshot.roots:
            known = self._roots.get(root.node)
            if known is None or _ROOT_COST[root.kind] < _ROOT_COST[known.kind]:
                self._roots[root.node] = root
        self._has_locals = "_thread._local" in snapshot.type_names
        self.tree: Tree = nearest(snapshot.graph, self._root_costs(), self._step_costs())

    def _root_costs(self) -> Column:
        costs = np.full(self._snapshot.count, NO_ROOT, np.uint8)
        costs[self._kinds != 0] = _FOUND_ROOT_COST
        for node, root in self._roots.items():
            is_main = root.kind is RootKind.MODULE and root.text == "__main__"
            costs[node] = 0 if is_main else _ROOT_COST[root.kind]
        return costs

    def _step_costs(self) -> Column:
        names = self._snapshot.type_names
        costs = np.array([_STEP_COST.get(name, 1) for name in names] or [1], np.uint8)
        return costs[self._snapshot.types]

    def held(self, node: int) -> Held:
        """What a way that begins at node begins with."""
        root = self._roots.get(node)
        if root is not None and root.kind is not RootKind.UNREFERRED:
            return _HELD.get(root.kind, Held.INTERPRETER)
        return Held.CYCLE if self._kinds[node] == lib.MW_GRAPH_ROOT_CYCLE else Held.NATIVE

    def way(self, node: int) -> Way:
        chain = [node]
        while (parent := int(self.tree.parents[chain[-1]])) != NONE:
            chain.append(parent)
        chain.reverse()
        if len(chain) > STEPS_MAX:
            chain = chain[: STEPS_MAX // 2] + chain[-STEPS_MAX // 2 :]
        top = chain[0]
        root = self._roots.get(top)
        held = self.held(top)
        return Way(held, self._root_text(held, root, top), tuple(self._steps(chain)))

    def _root_text(self, held: Held, root: Optional[Root], node: int) -> str:
        if root is not None and root.text:
            return root.text
        kind = short(self._snapshot.type_name(node))
        if held is Held.CYCLE:
            return f"a cycle of {kind}"
        if kind == "dict" and self._looks_local(node):
            return THREAD_LOCAL
        return f"native code -> {kind}"

    # A thread's values are in a dict that only the interpreter holds; so are the dicts of types
    # that are written in C, but those have methods in them.
    def _looks_local(self, node: int) -> bool:
        names = self._snapshot.names.of(node) if self._has_locals else []
        return bool(names) and not any(name.text.startswith("__") for name in names)

    def _steps(self, chain: Sequence[int]) -> list[Step]:
        snapshot = self._snapshot
        steps: list[Step] = []
        for at, node in enumerate(chain):
            name = snapshot.names.find(chain[at - 1], node) if at else None
            from_type = snapshot.type_name(chain[at - 1]) if at else ""
            if name is not None and steps and steps[-1].type_name in _NAMESPACES:
                name = EdgeName(name.text, EdgeKind.ATTRIBUTE)
            step = Step(node, snapshot.type_name(node), name, from_type)
            if 0 < at < len(chain) - 1 and self._is_passed_over(steps[-1], step, chain[at + 1]):
                continue
            steps.append(step)
        return steps

    # A module's or an instance's own dict, a closure's tuple: how it is built, not what it says.
    def _is_passed_over(self, before: Step, step: Step, next_node: int) -> bool:
        if step.type_name == "builtins.tuple":
            return (
                before.type_name == "builtins.function"
                and self._snapshot.type_name(next_node) == "builtins.cell"
            )
        if step.type_name == "builtins.cell":
            return True
        if step.type_name not in ("builtins.dict", "builtins.mappingproxy") or step.name:
            return False
        return before.type_name not in _DICTLESS


_DICTLESS = {
    f"{module}.{name}"
    for module in ("builtins", "collections")
    for name in (*_ENTRY, "cell", "frame", "method", "generator", "coroutine")
}
_NAMESPACES = ("types.SimpleNamespace", "argparse.Namespace", "_thread._local")
_HELD = {RootKind.MODULE: Held.MODULE, RootKind.FRAME: Held.FRAME}


def short(type_name: str) -> str:
    """A type's name as people say it: without ``builtins.``, and without its module."""
    return type_name.rsplit(".", 1)[-1]


def _words(step: Step) -> str:
    name = step.name
    if name is not None:
        if name.kind in (EdgeKind.GLOBAL, EdgeKind.ATTRIBUTE, EdgeKind.THREAD_LOCAL):
            return f".{name.text}"
        if name.kind is EdgeKind.KEY:
            return f"['{name.text}']"
        if name.kind is EdgeKind.LOCAL:
            return f", local {name.text}"
        if name.kind is EdgeKind.CELL:
            return f", closure variable {name.text}"
        return f"[{name.text}]"
    entry = _ENTRY.get(short(step.from_type))
    if entry is not None:
        return entry
    return f" -> {short(step.type_name)}"
