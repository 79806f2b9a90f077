"""Snapshots for tests: small graphs written by hand, and real ones taken of a target."""

from __future__ import annotations

import time
from pathlib import Path

from mwtrace.host.procfs import Host
from mwtrace.snapshot.format import EdgeKind, RootKind, Row, Writer
from mwtrace.snapshot.outcomes import Outcome
from mwtrace.snapshot.store import Store, StoreLimits
from mwtrace.snapshot.taking import Taker, TakingLimits

DEADLINE_S = 60.0
_WORTH_A_WAIT = (Outcome.REFUSED.value, Outcome.BUSY.value)
MODULE, CACHE_DICT, CACHE, SESSION_TYPE, FIRST = 0x1000, 0x1010, 0x1020, 0x1030, 0x10000
TYPES = [
    (1, "builtins.module", 0),
    (2, "builtins.dict", 0),
    (3, "shop.Session", 0),
    (4, "builtins.type", 0),
]


def shop(path: Path, sessions: int, time_s: float = 1.0, pid: int = 7, name: str = "cache") -> Path:
    """A module ``shop`` whose dict ``cache`` holds so many sessions."""
    ids = [FIRST + 16 * number for number in range(sessions)]
    header = {"pid": pid, "unix_time_s": time_s, "service": "shop", "python": "3.11.2"}
    with Writer(path, header) as writer:
        writer.types(TYPES)
        writer.objects(
            [
                Row(MODULE, 1, 64, 1, [CACHE_DICT]),
                Row(CACHE_DICT, 2, 232, 1, [CACHE, SESSION_TYPE]),
                Row(CACHE, 2, 64 + 8 * sessions, 1, ids),
                Row(SESSION_TYPE, 4, 1000, 1 + sessions, []),
                *(Row(one, 3, 1000, 1, [SESSION_TYPE]) for one in ids),
            ]
        )
        writer.names(
            [
                (CACHE_DICT, CACHE, name, EdgeKind.GLOBAL),
                (CACHE_DICT, SESSION_TYPE, "Session", EdgeKind.GLOBAL),
            ]
        )
        writer.roots([(MODULE, "shop", RootKind.MODULE)])
    return path


def take(folder: Path, pid: int) -> Path:
    """Have a process with the hook write a snapshot, also if others take one just then."""
    store = Store(folder, StoreLimits())
    deadline_s = time.monotonic() + DEADLINE_S
    try:
        taker = Taker(Host(), store, TakingLimits())
        while True:
            taken = taker.take(Host().process_id(pid), "shop", "asked", is_asked=True)
            # Another one's on this host, or its own last one, is still being written.
            if taken.outcome not in _WORTH_A_WAIT or time.monotonic() > deadline_s:
                break
            time.sleep(0.05)  # between looks at who else takes one
        assert taken.is_taken, taken
        return Path(taken.path)
    finally:
        store.close()
