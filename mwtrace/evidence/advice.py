"""One concrete next step for each kind of growth: a command to run, or a setting to change."""

from __future__ import annotations

from typing import NamedTuple

from mwtrace.evidence.kind import Kind


class Facts(NamedTuple):
    """What advice may be made of; zeros and empty texts where it is not known."""

    pid: int
    arenas: int = 0
    threads: int = 0
    retained_bytes: int = 0
    trim_bytes: int = 0  # estimate
    type_name: str = ""  # the Python type that grew most
    holder: str = ""  # the path that holds most of it
    defined_in: str = ""  # the file that defines that type; "" for a class written in Python


def advise(kind: Kind, facts: Facts) -> str:
    """Return the next step, in one or two sentences."""
    if kind is Kind.MISSING_DECREF:
        where = facts.defined_in or "the native code that is handed such objects"
        return (
            f"Look for a missing Py_DECREF in {where}: "
            f"objects of {facts.type_name} are counted as held, but nobody refers to them."
        )
    if kind is Kind.ALLOCATOR_RETAINED:
        return _retained(facts)
    if kind is Kind.PYTHON_OBJECTS and facts.holder:
        return f"Bound or empty {facts.holder}: it holds the growing {facts.type_name} objects."
    if kind is Kind.PYTHON_OBJECTS:
        return f"Run 'mwtrace explain {facts.pid}' to see who holds the growing types."
    if kind is Kind.STACKS:
        return (
            f"Find who starts threads without ending them ({facts.threads} now): "
            f"'ls /proc/{facts.pid}/task' lists them, their names are in comm."
        )
    if kind is Kind.SHM_FILE:
        return (
            f"See which files and shared memory are mapped: 'cat /proc/{facts.pid}/smaps'; "
            "file pages are given back under pressure, shared memory is not."
        )
    if kind is Kind.MMAP:
        return f"Run 'mwtrace trace {facts.pid}' to see which code maps and does not unmap."
    if kind is Kind.NATIVE_LIVE:
        return f"Run 'mwtrace trace {facts.pid}' to see which code allocates what is never freed."
    return f"Run 'mwtrace trace {facts.pid}' for some minutes to see what allocates."


def _retained(facts: Facts) -> str:
    words = "This is not a leak: the memory is free, but the allocator keeps it. "
    if facts.arenas > 8:
        return words + (
            f"Start the service with MALLOC_ARENA_MAX=2 (it has {facts.arenas} arenas now), "
            "or with another allocator (LD_PRELOAD=libjemalloc.so.2)."
        )
    if facts.trim_bytes >= facts.retained_bytes // 4 and facts.trim_bytes:
        return words + (
            f"malloc_trim(0) would give back about {facts.trim_bytes / 2**20:.0f} MiB (estimate); "
            "set MALLOC_TRIM_THRESHOLD_=131072 and MALLOC_MMAP_THRESHOLD_=131072, "
            "or call it after large jobs."
        )
    return words + (
        "Free chunks lie between used ones, so that no whole pages can be given back: "
        "start the service with another allocator (LD_PRELOAD=libjemalloc.so.2)."
    )
