"""Who holds the objects of a type: samples, followed level by level to a root.

Wraps ``cext/holders.h``; what the paths look like is decided in ``paths``. A reference count higher
than the references found in all readable memory is told as what it looks like: a missing DECREF,
of the object itself or of one that holds it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mwtrace.capi import ffi, lib
from mwtrace.errors import ProcessGone, ProcessUnreadable, Unreadable
from mwtrace.evidence.arenas import FreeMemory
from mwtrace.evidence.census import no_interpreter, take_census
from mwtrace.evidence.image import Budget, Image, process_error, struct_values, text
from mwtrace.evidence.interpreter import Interpreter, find_interpreter
from mwtrace.evidence.paths import (
    How,
    OwnerKind,
    Path,
    Reference,
    cluster,
    goes_on,
    is_strong_root,
    references_found,
)

if TYPE_CHECKING:
    from mwtrace._cext import CData

BUDGET_S = 60.0
SAMPLES = 500
LEVELS_MAX = 24
# A level asks for at most so many objects: what a path needs is one of them, not all.
FRONTIER_MAX = 4000
EDGES_PER_TARGET_MAX = 64
# Reference counts of immortal objects (3.12) are no counts.
IMMORTAL_MIN = 1 << 29
# So many samples must be counted higher than what was found, to speak of a missing DECREF.
DECREF_SHARE_MIN = 0.5
# Where few of a common type are new, no fewer than this: some counts change while they are read.
DECREF_SAMPLES_MIN = 25
_INTERPRETER = re.compile(r"/(?:lib)?python\d[\d.]*(?:\.so[\d.]*)?$")


@dataclass(frozen=True)
class Holders:
    type_name: str
    objects: int  # of the type, in all
    sampled: int
    paths: tuple[Path, ...]  # most frequent first
    missing_decref: bool
    uncounted: int  # samples whose count, or their holder's, exceeds the references found
    uncounted_type: str  # the type of most of those objects; "" if there are none
    defined_in: str  # the extension module that defines the type; "" for a class in Python
    levels: int
    level_s: tuple[float, ...]  # of the first pass, then of each level
    is_complete: bool
    totals: dict[str, int]


class _Search:
    """The open search in one image, and what it has found so far."""

    def __init__(self, image: Image, interpreter: Interpreter, wanted: int, budget: Budget) -> None:
        opened = ffi.new("struct mw_holders **")
        rc = lib.mw_holders_open(image.regions, interpreter.c, wanted, SAMPLES, budget.c, opened)
        if rc:
            raise process_error(rc, image.pid, "search the memory")
        self.c = opened[0]
        self.image = image
        self.budget = budget
        self.level_s = [self.totals()["elapsed_ns"] / 1e9]
        self.type_names: dict[int, str] = {}
        self.labels: dict[int, str] = {}
        self.stale_references_total = 0
        self._free_memory: FreeMemory | None = None
        pointer, objects = ffi.new("uint64_t **"), ffi.new("uint64_t *")
        count = lib.mw_holders_samples(self.c, pointer, objects)
        self.samples = [int(pointer[0][i]) for i in range(count)]
        self.objects = int(objects[0])
        self.kinds = {
            lib.MW_TYPE_MODULE: OwnerKind.MODULE,
            lib.MW_TYPE_TYPE: OwnerKind.TYPE,
            lib.MW_TYPE_DICT: OwnerKind.DICT,
        }

    def close(self) -> None:
        lib.mw_holders_close(self.c)
        if self._free_memory is not None:
            self._free_memory.close()

    def totals(self) -> dict[str, int]:
        totals = ffi.new("struct mw_holders_totals *")
        lib.mw_holders_get_totals(self.c, totals)
        return struct_values("struct mw_holders_totals", totals)

    def type_name(self, address: int) -> str:
        if address not in self.type_names:
            name = text(lib.mw_holders_type_name, self.c, address) if address else ""
            self.type_names[address] = name
        return self.type_names[address]

    def references(self, targets: list[int]) -> list[Reference]:
        """One level: who refers to the targets."""
        found, count = ffi.new("struct mw_reference **"), ffi.new("uint32_t *")
        array = ffi.new("uint64_t[]", targets)
        rc = lib.mw_holders_search(self.c, array, len(targets), self.budget.c, found, count)
        if rc:
            raise process_error(rc, self.image.pid, "search the memory")
        self.level_s.append(self.totals()["elapsed_ns"] / 1e9)
        return self._without_stale([found[0][i] for i in range(count[0])])

    def _without_stale(self, found: list[CData]) -> list[Reference]:
        """Drop words in what is free: what lies there was held before."""
        raw = [int(c.location) for c in found if c.how == lib.MW_BY_RAW]
        stale = set()
        if raw:
            if self._free_memory is None:
                self._free_memory = FreeMemory(self.image, self.budget)
            stale = self._free_memory.holding(raw)
        self.stale_references_total += len(stale)
        return [
            self._reference(c)
            for c in found
            if c.how != lib.MW_BY_FREE_LIST and int(c.location) not in stale
        ]

    def _reference(self, c: CData) -> Reference:
        kind = self.kinds.get(int(c.owner_kind), OwnerKind.OTHER) if c.owner else OwnerKind.OTHER
        return Reference(
            int(c.target),
            int(c.owner),
            How(int(c.how)),
            int(c.place),
            _member(ffi.string(c.label).decode("utf-8", "replace")),
            kind,
            self.type_name(int(c.owner_type)),
        )

    def label(self, address: int) -> None:
        """Learn what a module, class or function is called."""
        if address not in self.labels:
            self.labels[address] = text(lib.mw_holders_label, self.c, address)


def _follow(search: _Search) -> tuple[dict[int, list[Reference]], set[int], int]:
    """Search upwards until every sample has reached a root, or nothing new is found.

    Returns who refers to whom, who was asked for, and the levels it took.
    """
    asked: set[int] = set()
    edges: dict[int, list[Reference]] = {}
    # How many samples, at most, each object that was asked for leads to.
    reach = dict.fromkeys(search.samples, 1)
    frontier = list(search.samples)
    levels = 0
    while frontier and levels < LEVELS_MAX:
        found = search.references(frontier)
        levels += 1
        asked.update(frontier)
        for ref in found:
            held_by = edges.setdefault(ref.target, [])
            # A module among the hundreds of functions that refer to its namespace is the answer.
            if len(held_by) < EDGES_PER_TARGET_MAX or ref.owner_kind is OwnerKind.MODULE:
                held_by.append(ref)
        if search.totals()["stopped"]:
            break
        frontier = _next_frontier(search, edges, frontier, reach)
    return edges, asked, levels


def _uncounted_type(
    search: _Search, sample: int, edges: dict[int, list[Reference]], asked: set[int], own_type: str
) -> str:
    """The type of the first object from a sample upwards that is counted higher than it is held.

    "" if there is none: the way ends at a root, in a cycle, or beyond what was asked for.
    """
    at, name = sample, own_type
    seen: set[int] = set()
    while at in asked and at not in seen:
        seen.add(at)
        refs = edges.get(at, ())
        count = int(lib.mw_holders_count(search.c, at))
        # Of one that many refer to, not all references were kept.
        is_whole = len(refs) < EDGES_PER_TARGET_MAX
        if is_whole and references_found([at], edges)[at] < count < IMMORTAL_MIN:
            return name
        above = next((ref for ref in refs if goes_on(ref) and ref.owner != at), None)
        if above is None:
            return ""
        at, name = above.owner, above.owner_type
    return ""


def _member(name: str) -> str:
    """A C type names the place of its objects' namespace as if it were a member."""
    return "__dict__" if name == "__dictoffset__" else name


def _foreign(path: str) -> str:
    """A file that defines a type, but for the interpreter: it did not forget its own objects."""
    return "" if _INTERPRETER.search(path) else path


def _next_frontier(
    search: _Search, edges: dict[int, list[Reference]], frontier: list[int], reach: dict[int, int]
) -> list[int]:
    """Who to ask for next: owners not seen before, of objects that no root holds directly.

    Adds those that were chosen to reach.
    """
    wanted: dict[int, int] = {}
    for target in frontier:
        refs = edges.get(target, ())
        for ref in refs:
            if is_strong_root(ref) or ref.owner_type == "function":
                search.label(ref.owner)
        if any(is_strong_root(ref) and ref.owner_kind is OwnerKind.MODULE for ref in refs):
            continue
        for ref in refs:
            if goes_on(ref) and ref.owner not in reach:
                wanted[ref.owner] = wanted.get(ref.owner, 0) + reach[target]
    # Whoever leads to most samples is asked for first, or a thousand frames would hide the one
    # module behind a cache that holds them all; equals in the order they were found.
    chosen = sorted(wanted, key=lambda owner: -wanted[owner])[:FRONTIER_MAX]
    reach.update((owner, wanted[owner]) for owner in chosen)
    return chosen


def find_holders(
    image: Image,
    interpreter: Interpreter,
    type_address: int,
    budget: Budget | None = None,
    grown: int | None = None,
) -> Holders:
    """Find who holds the objects of one type, of which so many are new (None: not known)."""
    search = _Search(image, interpreter, type_address, budget or Budget(BUDGET_S))
    try:
        name = search.type_name(type_address)
        edges, asked, levels = _follow(search)
        types = Counter(
            _uncounted_type(search, sample, edges, asked, name) for sample in search.samples
        )
        direct = types[name]
        uncounted = len(search.samples) - types.pop("", 0)
        uncounted_type = types.most_common(1)[0][0] if types else ""
        paths = cluster(search.samples, edges, search.labels, name)
        enough = DECREF_SHARE_MIN * len(search.samples)
        # What somebody holds besides is not leaked by its holder, whoever else holds that one.
        held = sum(path.count for path in paths if path.is_python)
        is_missing = direct > _new_enough(search, grown) or (uncounted > enough and held < enough)
        totals = search.totals()
        return Holders(
            name,
            search.objects,
            len(search.samples),
            tuple(paths),
            is_missing and not totals["references_dropped_total"],
            uncounted,
            uncounted_type,
            _foreign(text(lib.mw_holders_type_file, search.c, type_address))
            if uncounted_type in ("", name)
            else "",
            levels,
            tuple(search.level_s),
            not totals["stopped"],
            {**totals, "stale_references_total": search.stale_references_total},
        )
    finally:
        search.close()


def _new_enough(search: _Search, grown: int | None) -> float:
    """How many of the samples, counted too high, are most of those objects that are new."""
    most = DECREF_SHARE_MIN * len(search.samples)
    if grown is None or not search.objects:
        return most
    return min(most, max(DECREF_SAMPLES_MIN, most * grown / search.objects))


def find_owners(
    image: Image, interpreter: Interpreter, addresses: Iterable[int], budget: Budget | None = None
) -> dict[int, str]:
    """Name for each address the type of an object that points at it: a numpy array, say."""
    search = _Search(image, interpreter, 0, budget or Budget(BUDGET_S))
    try:
        owners: dict[int, str] = {}
        for ref in search.references(list(addresses)[: lib.MW_SEARCHED_MAX]):
            if ref.owner and ref.how is not How.WEAK:
                owners.setdefault(ref.target, ref.owner_type)
        return owners
    finally:
        search.close()


def holders_process(pid: int, type_name: str, budget_s: float = BUDGET_S) -> Holders:
    """Find who holds the objects of the type of that name; of several, the most numerous."""
    budget = Budget(budget_s)
    with Image(pid) as image:
        interpreter = find_interpreter(image)
        if interpreter is None:
            raise no_interpreter(image)
        census = take_census(image, interpreter, budget=budget)
        named = [
            row
            for row in census.types
            if row.name == type_name or row.name.rsplit(".", 1)[-1] == type_name
        ]
        if not named:
            error = ProcessUnreadable(
                f"process {pid} has no type {type_name!r} among its largest", Unreadable.OTHER
            )
            error.remedy = f"'mwtrace census {pid}' lists them."
            raise error
        wanted = max(named, key=lambda row: row.objects)
        holders = find_holders(image, interpreter, wanted.address, budget)
        if not image.is_same():
            raise ProcessGone(f"process {pid} ended, or ran another program, while it was read")
        return holders
