"""From references to the paths people read: ``app.registry.SESSIONS['…']``.

Pure: a graph of references in, clustered paths out. Shortest path to a root wins; a module, a class
or a running function is a better root than memory whose meaning is not known.
"""

from __future__ import annotations

import enum
import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class How(enum.IntEnum):
    """As ``enum mw_reference_how``; a test compares them."""

    FIELD = 1
    ITEM = 2
    KEY = 3
    BEING_KEY = 4
    ATTRIBUTE = 5
    MEMBER = 6
    QUEUE = 7
    LOCAL = 8
    STACK = 9
    STATIC = 10
    RAW = 11
    WEAK = 12


class OwnerKind(enum.Enum):
    MODULE = "module"
    TYPE = "type"
    DICT = "dict"
    OTHER = "other"


class Reference(NamedTuple):
    """Somebody refers to target."""

    target: int
    owner: int  # 0: no object
    how: How
    place: int
    label: str
    owner_kind: OwnerKind
    owner_type: str


# Roots and what it costs to end a path there. What is left are hops: a cycle's members, and
# objects that only unread memory refers to.
_ROOT_COST = {How.LOCAL: 2, How.STATIC: 40, How.STACK: 50, How.RAW: 60}
_ROOT_WORDS = {
    How.STATIC: "C: static data",
    How.STACK: "C: a stack",
    How.RAW: "C: memory that is no Python object's",
}
# A container with more children than this holds them as a collection: the keys are not told apart.
CHILDREN_TOLD_MAX = 3


@dataclass(frozen=True)
class Path:
    text: str
    count: int  # of the samples
    is_python: bool  # it ends at a module, a class or a function


def is_strong_root(reference: Reference) -> bool:
    return reference.how is How.LOCAL or (
        reference.owner_kind in (OwnerKind.MODULE, OwnerKind.TYPE) and reference.owner != 0
    )


def cluster(
    samples: Sequence[int],
    edges: Mapping[int, Sequence[Reference]],
    labels: Mapping[int, str],
    type_name: str,
) -> list[Path]:
    """Give each sample its best path, and count equal ones; most frequent first.

    edges: by target, who refers to it. labels: names of modules, classes and functions.
    """
    best = _best_steps(edges)
    children = Counter(ref.owner for refs in edges.values() for ref in refs if ref.owner)
    counted: Counter[tuple[str, bool]] = Counter()
    for sample in samples:
        steps = _walk(sample, best)
        is_python = bool(steps) and is_strong_root(steps[0])
        counted[_text(steps, labels, children, type_name), is_python] += 1
    return [Path(text, count, python) for (text, python), count in counted.most_common()]


def _best_steps(edges: Mapping[int, Sequence[Reference]]) -> dict[int, Reference]:
    """For each object, the reference by which its cheapest path to a root goes on."""
    held: dict[int, list[Reference]] = {}
    heap: list[tuple[int, int, int, Reference]] = []
    order = 0
    for refs in edges.values():
        for ref in refs:
            if ref.how is How.WEAK:
                continue
            cost = None
            if is_strong_root(ref):
                cost = _ROOT_COST.get(ref.how, 0 if ref.owner_kind is OwnerKind.MODULE else 1)
            elif not ref.owner:
                cost = _ROOT_COST.get(ref.how, 60)
            if cost is not None:
                order += 1
                heapq.heappush(heap, (cost, order, ref.target, ref))
            else:
                held.setdefault(ref.owner, []).append(ref)
    best: dict[int, Reference] = {}
    while heap:
        cost, _, target, ref = heapq.heappop(heap)
        if target in best:
            continue
        best[target] = ref
        for below in held.get(target, ()):
            if below.target not in best:
                order += 1
                heapq.heappush(heap, (cost + 3, order, below.target, below))
    return best


def _walk(sample: int, best: Mapping[int, Reference]) -> list[Reference]:
    """From the root down to the sample."""
    steps = []
    at = sample
    while at in best and len(steps) < 64:
        steps.append(best[at])
        if is_strong_root(best[at]) or not best[at].owner:
            break
        at = best[at].owner
    return steps[::-1]


def _text(
    steps: Sequence[Reference],
    labels: Mapping[int, str],
    children: Mapping[int, int],
    type_name: str,
) -> str:
    if not steps:
        return f"no holder found for {type_name}"
    root = steps[0]
    if is_strong_root(root):
        text = labels.get(root.owner, "") or root.label or root.owner_type
        if root.how is How.LOCAL:
            text = f"local {root.label}"
        elif root.label:
            text += f".{root.label}"
    else:
        text = _ROOT_WORDS.get(root.how, "C")
        if len(steps) > 1:
            text += f" -> {steps[1].owner_type}"
    for before, step in zip(steps, steps[1:]):
        text += _step(before, step, labels, children)
    return _folded(text)


def _step(
    before: Reference, step: Reference, labels: Mapping[int, str], children: Mapping[int, int]
) -> str:
    is_many = children.get(step.owner, 0) > CHILDREN_TOLD_MAX
    if step.how is How.KEY:
        if _is_namespace(before) and step.label.startswith("'"):
            return "." + step.label.strip("'")
        return "['\u2026']" if is_many and step.label.startswith("'") else (
            "[\u2026]" if is_many else f"[{step.label}]"
        )
    if step.how is How.ITEM:
        return "[\u2026]" if is_many else f"[{step.place}]"
    if step.how is How.BEING_KEY:
        return " key"
    if step.how in (How.MEMBER, How.QUEUE):
        return "[\u2026]"
    if step.how is How.ATTRIBUTE:
        return f".{step.label}"
    if step.owner_type == "function":
        return f" -> function {labels.get(step.owner, '')}()".replace(" ()", "")
    if step.owner_type == "cell":
        return " -> closure"
    # an object's own dict: its keys are told as attributes
    if step.how is How.FIELD and step.owner_kind is OwnerKind.OTHER:
        return f" -> {step.owner_type}" if step.owner_type not in ("tuple", "list") else ""
    return ""


def _is_namespace(above: Reference) -> bool:
    """Whether the dict that a reference leads to is the namespace of a module, class or object."""
    return above.how is How.FIELD


def _folded(text: str) -> str:
    """A chain through the same attribute (a linked list) is told once."""
    for size in range(2, 40):
        tail = text[-size:]
        if tail[0] in ".[" and text.endswith(tail * 3):
            while text.endswith(tail * 2):
                text = text[: -len(tail)]
            return f"{text}{tail}\u2026 (a chain)"
    return text


def references_found(
    samples: Iterable[int], edges: Mapping[int, Sequence[Reference]]
) -> dict[int, int]:
    """How many references, weak ones aside, were found to each sample."""
    return {s: sum(ref.how is not How.WEAK for ref in edges.get(s, ())) for s in samples}
