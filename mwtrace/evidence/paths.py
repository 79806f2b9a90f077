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
# A local may be that of a frame that has returned: its memory is not cleaned. So it stands back.
_ROOT_COST = {How.LOCAL: 20, How.STATIC: 40, How.STACK: 50, How.RAW: 60}
# A frame that is an object has mostly returned, too, and lives on in a traceback: whoever holds
# that one is the answer, up to a dozen steps away.
_FRAME_OBJECT_COST = 38
_ROOT_WORDS = {
    How.STATIC: "C: static data",
    How.STACK: "C: a stack",
    How.RAW: "C: memory that is no Python object's",
}
# A container with more children than this holds them as a collection: the keys are not told apart.
CHILDREN_TOLD_MAX = 3
_HOP_COST = 3
_STEPS_MAX = 64
_OBJECT_BYTES = 16


@dataclass(frozen=True)
class Path:
    text: str
    count: int  # of the samples
    is_python: bool  # it ends at a module, a class or a function


def is_strong_root(reference: Reference) -> bool:
    """Whether a path may end here: at a module, a class, or a local variable of a frame."""
    return reference.how is How.LOCAL or (
        reference.owner_kind in (OwnerKind.MODULE, OwnerKind.TYPE) and reference.owner != 0
    )


def goes_on(reference: Reference) -> bool:
    """Whether its owner may in turn be held: a generator's frame is, a module is not asked."""
    return (
        reference.owner != 0
        and reference.how is not How.WEAK
        and (reference.how is How.LOCAL or not is_strong_root(reference))
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


class _Best(NamedTuple):
    reference: Reference
    is_root: bool  # the path ends here


def _root_cost(ref: Reference) -> int | None:
    if not is_strong_root(ref) and ref.owner:
        return None
    if ref.how is How.LOCAL and ref.owner_type == "frame":
        return _FRAME_OBJECT_COST
    return _ROOT_COST.get(ref.how, 0 if ref.owner_kind is OwnerKind.MODULE else 1)


def _best_steps(edges: Mapping[int, Sequence[Reference]]) -> dict[int, _Best]:
    """For each object, the reference by which its cheapest path to a root goes on."""
    held: dict[int, list[Reference]] = {}
    heap: list[tuple[int, int, _Best]] = []
    for refs in edges.values():
        for ref in refs:
            cost = _root_cost(ref)
            if ref.how is How.WEAK:
                continue
            if cost is not None:
                heapq.heappush(heap, (cost, len(heap), _Best(ref, True)))
            if goes_on(ref):
                held.setdefault(ref.owner, []).append(ref)
    best: dict[int, _Best] = {}
    order = len(heap)
    while heap:
        cost, _, step = heapq.heappop(heap)
        target = step.reference.target
        if target in best:
            continue
        best[target] = step
        for below in held.get(target, ()):
            if below.target not in best:
                order += 1
                heapq.heappush(heap, (cost + _HOP_COST, order, _Best(below, False)))
    return best


def _walk(sample: int, best: Mapping[int, _Best]) -> list[Reference]:
    """From the root down to the sample."""
    steps: list[Reference] = []
    at = sample
    while at in best and len(steps) < _STEPS_MAX:
        steps.append(best[at].reference)
        if best[at].is_root:
            break
        at = best[at].reference.owner
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
    if root.how is How.LOCAL:
        text = f"local {root.label}"
    elif is_strong_root(root):
        text = labels.get(root.owner, "") or root.owner_type
        if root.label and not _is_namespace(root):
            text += f".{root.label}"
    else:
        text = _ROOT_WORDS.get(root.how, "C")
    for before, step in zip(steps, steps[1:]):
        text += _step(before, step, labels, children)
    return _folded(text)


def _step(
    before: Reference, step: Reference, labels: Mapping[int, str], children: Mapping[int, int]
) -> str:
    is_many = children.get(step.owner, 0) > CHILDREN_TOLD_MAX
    is_text = step.label.startswith("'")
    if step.how is How.KEY:
        if _is_namespace(before) and is_text:
            return "." + step.label.strip("'")
        if is_many:
            return "['\u2026']" if is_text else "[\u2026]"
        return f"[{step.label}]"
    if step.how is How.ITEM:
        return "[\u2026]" if is_many else f"[{step.place}]"
    if step.how in (How.MEMBER, How.QUEUE):
        return "[\u2026]"
    if step.how is How.BEING_KEY:
        return " key"
    if step.how is How.LOCAL:
        return f" -> {step.label}"
    if step.owner_type == "function":
        # what a function holds: its closure and its defaults, told with its name
        return f" -> {labels.get(step.owner, '') or 'function'}()"
    if step.how is How.ATTRIBUTE:
        return "" if _is_namespace(step) else f".{step.label}"
    if step.owner_type == "cell":
        return " (closure)"
    if step.owner_type == "functools._lru_cache_wrapper":
        return " (lru_cache)"
    if step.owner_kind is OwnerKind.OTHER and not _leads_to_namespace(step):
        return f" -> {step.owner_type}"
    return ""


def _is_namespace(above: Reference) -> bool:
    """Whether what a reference leads to is the namespace of a module, class or object."""
    return above.how is How.FIELD or (above.how is How.ATTRIBUTE and above.label == "__dict__")


def _leads_to_namespace(step: Reference) -> bool:
    """Fields in front of an object (3.11) and dict slots behind it have no name of their own."""
    return step.how is How.FIELD and (step.place < 0 or step.place >= _OBJECT_BYTES)


def _folded(text: str) -> str:
    """A chain through the same attribute (a linked list) is told once."""
    for size in range(2, 40):
        tail = text[-size:]
        if tail[0] in ".[" and text.endswith(tail * 3):
            while text.endswith(tail * 2):
                text = text[: -len(tail)]
            return f"{text}\u2026 (a chain)"
    return text


def references_found(
    samples: Iterable[int], edges: Mapping[int, Sequence[Reference]]
) -> dict[int, int]:
    """How many references, weak ones aside, were found to each sample."""
    return {s: sum(ref.how is not How.WEAK for ref in edges.get(s, ())) for s in samples}
