"""How far a process falls behind because of probes: work that a window has not seen.

Whoever has time to spare takes what probes cost from that, and does its work in time. Whoever
computes all the time does less of it. Threads differ, so each counts for itself; a CPython's
threads share one lock, and count together. Knows no probe: it is told what they cost.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

# Of a core, between two looks: more is no time to spare. Running threads' times are brought up to
# date once per tick of the kernel.
SATURATED = 0.9
THREAD_SATURATED = 0.75
THREADS_MAX = 256  # of more, none is taken for saturated
_CPU_CLOCK_OF_PROCESS = 2  # CPUCLOCK_SCHED, in the numbers of clocks that name another process


class _Look(NamedTuple):
    time_s: float
    cost_s: float
    cpu_s: float
    threads_s: dict[int, float]  # by thread id; empty: they count together


class Lag:
    """Looks at a process while it is probed; call ``note()`` a few dozen times a second."""

    def __init__(self, pid: int, counts_as_one: bool, time_s: float) -> None:
        self._pid = pid
        self._counts_as_one = counts_as_one
        self._before = self._look(time_s, 0.0)
        self.lag_s = 0.0

    def note(self, time_s: float, cost_s: float) -> None:
        """``cost_s``: what probes have cost it since the beginning."""
        before, now = self._before, self._look(time_s, cost_s)
        self._before = now
        elapsed_s = max(now.time_s - before.time_s, 1e-6)
        cpu_s = max(now.cpu_s - before.cpu_s, 1e-9)
        if not now.threads_s:
            busy = [cpu_s / elapsed_s] if cpu_s >= SATURATED * elapsed_s else []
        else:
            used = (
                (now.threads_s[tid] - before.threads_s.get(tid, now.threads_s[tid])) / elapsed_s
                for tid in now.threads_s
            )
            busy = [cores for cores in used if cores >= THREAD_SATURATED]
        if not busy:
            self.lag_s = 0.0  # it has caught up
            return
        # What the saturated ones bore of the cost, and how much later each of them is for it.
        share = min(1.0, sum(busy) * elapsed_s / cpu_s)
        self.lag_s += (now.cost_s - before.cost_s) * share / max(1.0, sum(busy))

    def _look(self, time_s: float, cost_s: float) -> _Look:
        try:
            cpu_s = time.clock_gettime((~self._pid << 3) | _CPU_CLOCK_OF_PROCESS)
        except OSError:
            cpu_s = 0.0
        return _Look(time_s, cost_s, cpu_s, {} if self._counts_as_one else _threads_s(self._pid))


def _threads_s(pid: int) -> dict[int, float]:
    found = {0: 0.0}  # never empty: more than one thread
    try:
        # The number of links says how many there are; to list 10,000 takes as long as a look may.
        count = os.stat(f"/proc/{pid}/task").st_nlink - 2
        threads = os.listdir(f"/proc/{pid}/task") if count <= THREADS_MAX else []
    except OSError:
        return {}
    if count == 1:
        return {}
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/schedstat", "rb", buffering=0) as file:
                found[int(thread)] = int(file.read(64).split()[0]) * 1e-9
        except (OSError, ValueError, IndexError):
            continue
    return found
