"""Two readings of one process in, a finding out; holders are searched where objects grow.

Decides nothing about verdicts, and knows neither when it is asked nor who is told.
"""

from __future__ import annotations

from typing import NamedTuple

from mwtrace.errors import ProcessGone
from mwtrace.evidence.advice import Facts, advise
from mwtrace.evidence.census import TypeGrowth, grown_types
from mwtrace.evidence.explain import Explanation
from mwtrace.evidence.holders import Holders, find_holders
from mwtrace.evidence.image import Budget, Image
from mwtrace.evidence.interpreter import find_interpreter
from mwtrace.evidence.kind import GROWTH_MIN_BYTES, Growth, Kind, growth, refine
from mwtrace.evidence.parts import NOT_PRIVATE, PartKind, sizes
from mwtrace.model import Finding, HeapSplit, ProcessId

# Types of which holders are searched: the class that grew most, and the built-in type.
_SEARCHES_MAX = 3
# So many of the samples in objects of one other type that are counted too high lead to that type.
_ABOVE_SHARE_MIN = 0.25
# A class is worth a search if it grew by this share of what the objects grew by in number of the
# type that grew most: built-in ones are mostly what is inside the instances of the others.
_CLASS_SHARE_MIN = 0.05
_MIB = 1 << 20


class Found(NamedTuple):
    finding: Finding
    read_bytes: int  # besides the two readings


def find(process: ProcessId, before: Explanation, now: Explanation, budget: Budget) -> Found:
    """Say what grew from one reading of a process to the next."""
    grown = grown_parts(before, now)
    holders: list[Holders] = []
    types = grown_types(before.census, now.census) if grown.kind is Kind.PYTHON_OBJECTS else []
    if types:
        holders = _holders(process.pid, now, types, budget)
        grown = refine(grown, any(found.missing_decref for found in holders))
    passes = sum(found.levels + 1 for found in holders)
    lead = _lead(grown, holders)
    return Found(_finding(process, before, now, grown, types, lead), passes * _anon(now))


def grown_parts(before: Explanation, now: Explanation) -> Growth:
    """What of private memory grew; files and shared memory, which are judged apart, are noted."""
    old, new = dict(sizes(before.parts)), dict(sizes(now.parts))
    shared = sum(max(0, new[part] - old[part]) for part in NOT_PRIVATE)
    private = growth(
        {**old, PartKind.FILE: 0, PartKind.SHMEM: 0},
        {**new, PartKind.FILE: 0, PartKind.SHMEM: 0},
        before.threads,
        now.threads,
    )
    if shared < GROWTH_MIN_BYTES:
        return private
    if private.grown_bytes < GROWTH_MIN_BYTES:
        return growth(old, new, before.threads, now.threads)
    words = f"{private.why}; files and shared memory grew by {shared / _MIB:.1f} MiB besides"
    return Growth(private.kind, private.grown_bytes, private.by_kind, words)


def worth_a_search(types: list[TypeGrowth]) -> list[str]:
    """Name the types whose holders tell most: a class before the built-in ones it is made of."""
    most = max(row.objects_grown for row in types)
    classes = [
        row for row in types if "." in row.name and row.objects_grown >= _CLASS_SHARE_MIN * most
    ]
    chosen = [*classes[:1], *(row for row in types[:1] if row not in classes[:1])]
    return [row.name for row in chosen[:_SEARCHES_MAX] if row.objects_grown > 0]


def _holders(pid: int, now: Explanation, types: list[TypeGrowth], budget: Budget) -> list[Holders]:
    addresses = {row.name: row.address for row in now.census.types}
    new = {row.name: row.objects_grown for row in types}
    names = worth_a_search(types)
    found: list[Holders] = []
    with Image(pid) as image:
        interpreter = find_interpreter(image)
        if interpreter is None:
            return found
        while names and len(found) < _SEARCHES_MAX:
            name = names.pop(0)
            last = find_holders(image, interpreter, addresses[name], budget, new[name])
            found.append(last)
            if last.missing_decref or any(path.is_python for path in last.paths[:1]):
                break  # an answer; the next type is part of it
            # They lie in others that nobody holds: those are the ones to ask about.
            above = last.uncounted_type
            is_common = last.uncounted >= _ABOVE_SHARE_MIN * last.sampled
            if above in new and is_common and above not in {h.type_name for h in found}:
                names = [above, *(other for other in names if other != above)]
        if not image.is_same():
            raise ProcessGone(f"process {pid} ended, or ran another program, while it was read")
    return found


def _lead(grown: Growth, holders: list[Holders]) -> Holders | None:
    for found in holders:
        if found.missing_decref == (grown.kind is Kind.MISSING_DECREF):
            return found
    return holders[0] if holders else None


def _finding(
    process: ProcessId,
    before: Explanation,
    now: Explanation,
    grown: Growth,
    types: list[TypeGrowth],
    lead: Holders | None,
) -> Finding:
    named = lead.type_name if lead else types[0].name if types else ""
    row = next((row for row in types if row.name == named), None)
    holder = ""
    if lead and lead.paths and lead.paths[0].is_python:
        holder = lead.paths[0].text
    retained = sizes(now.parts)[PartKind.ALLOCATOR_RETAINED]
    trim = now.arenas.trim_bytes if now.arenas else None
    facts = Facts(
        process.pid,
        arenas=len(now.arenas.arenas) if now.arenas else 0,
        threads=now.threads,
        retained_bytes=retained,
        trim_bytes=trim or 0,
        type_name=_blamed(grown, lead) or named,
        holder=holder,
        defined_in=lead.defined_in if lead else "",
    )
    notes = (grown.why, *(now.notes if grown.kind is Kind.UNKNOWN else ()))
    return Finding(
        time_s=now.time_s,
        process=process,
        kind=grown.kind.value,
        is_leak=grown.kind.is_leak,
        grown_bytes=grown.grown_bytes,
        window_s=now.time_s - before.time_s,
        grown_by_kind=tuple((kind.value, size) for kind, size in grown.by_kind),
        why="; ".join(notes),
        advice=advise(grown.kind, facts),
        type_name=named,
        type_objects=row.objects if row else 0,
        type_objects_grown=row.objects_grown if row else 0,
        holder=holder,
        retained_bytes=retained,
        trim_bytes=trim,
        heap=heap_split(before, now),
    )


def heap_split(before: Explanation, now: Explanation) -> HeapSplit | None:
    """Tell the interpreter's heap from native memory, as far as both readings can.

    None without a CPython that could be read. Where the C library's allocator could not be read,
    its blocks in use are not told from free ones, so native memory stays unknown; objects in
    pymalloc's pools and what the census counted elsewhere are known all the same.
    """
    elapsed_s = now.time_s - before.time_s
    if elapsed_s <= 0 or not (before.census.interpreter and now.census.interpreter):
        return None
    old, new = dict(sizes(before.parts)), dict(sizes(now.parts))

    def slope(*parts: PartKind) -> float:
        return sum(new[part] - old[part] for part in parts) / elapsed_s

    heap, native = PartKind.PYTHON_OBJECTS, (PartKind.NATIVE_LIVE, PartKind.LARGE_MMAPS)
    if before.arenas is None or now.arenas is None:
        return HeapSplit(new[heap], slope(heap), None, None)
    return HeapSplit(new[heap], slope(heap), sum(new[part] for part in native), slope(*native))


def _blamed(grown: Growth, lead: Holders | None) -> str:
    """The type whose objects are counted as held: what grew may only be inside them."""
    return lead.uncounted_type if lead and grown.kind is Kind.MISSING_DECREF else ""


def _anon(now: Explanation) -> int:
    return now.kernel.anon_bytes
