"""One window on one process: attached, watched, closed, and what it showed and cost.

The programs are told to stop while probes are put in and taken out, so a window begins and ends
at once for all functions. That it ends in time is seen to in C (``cext/governor.h``); here nothing
waits but ``close()``. It must not know why a window is opened, nor what becomes of its blocks.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from mwtrace.capi import lib
from mwtrace.errors import ProcessError
from mwtrace.probes.attach import Refusal, attach
from mwtrace.probes.governor import Seen, Window
from mwtrace.probes.windows import WindowEnd, WindowResult, Windows
from mwtrace.tracer import Order
from mwtrace.tracing.probing import ProbePlan, Probing
from mwtrace.tracing.unit import cookie


class Closed(NamedTuple):
    """A window that is over; its blocks were allocated in [since_s, until_s)."""

    since_s: float
    until_s: float
    end: WindowEnd
    seen: Seen


class ProcessWindows:
    """Windows on one process, one after the other. ``close()`` leaves no probe in it."""

    def __init__(self, probing: Probing, pid: int, plan: ProbePlan) -> None:
        self._probing = probing
        self._pid = pid
        self._plan = plan
        self.refused: tuple[Refusal, ...] = ()  # points of the last window that were not had
        probing.unit.add(pid)
        self._windows = Windows(probing.unit.count_layout(), plan.prices.by_count())
        self._window: int | None = None
        self._since_s = 0.0
        self._weight_bytes = 0
        self._counts: dict[str, int] = {}

    @property
    def is_open(self) -> bool:
        return self._window is not None

    def open(self, window: Window, interval_bytes: int) -> None:
        """Open one. Raises ProcessError if not a single probe could be attached."""
        unit, plan = self._probing.unit, self._plan
        self._counts = unit.counts(self._pid)
        self._weight_bytes = self._allocated_bytes()
        unit.aim(self._pid, plan.flags | lib.MW_TARGET_STOPPED, interval_bytes=interval_bytes)
        report = attach(self._pid, plan.points, self._probing.programs, self._probing.kind, cookie)
        self.refused = report.refused
        if not report.links:
            reason = report.refused[0].reason if report.refused else "it has no allocator"
            remedy = report.refused[0].remedy if report.refused else ""
            raise ProcessError(f"cannot attach to process {self._pid}: {reason}", remedy)
        self._since_s = time.monotonic()
        unit.aim(self._pid, plan.flags, interval_bytes=interval_bytes)
        self._window = self._windows.open(
            self._pid,
            unit.slot(self._pid),
            window.duration_s,
            window.cost_max_s,
            report.links,
        )

    def look(self) -> WindowResult:
        """How the open window stands."""
        assert self._window is not None
        return self._windows.look(self._window)

    def poll(self) -> Closed | None:
        """Return the window if it is over and its probes are gone, else None; waits for nothing."""
        if self._window is None:
            return None
        result = self._windows.look(self._window)
        if result.end is WindowEnd.OPEN or not result.detach_s:
            return None
        return self.end()

    def end(self) -> Closed:
        """End the window if it is still open; waits for the probes to be gone, 30 to 110 ms."""
        assert self._window is not None
        result = self._windows.close(self._window)
        self._window = None
        until_s = time.monotonic()
        while self._probing.drain():
            pass
        counts = self._probing.unit.counts(self._pid)
        spent = {name: count - self._counts.get(name, 0) for name, count in counts.items()}
        seen = Seen(
            result.duration_s,
            self._plan.prices.cost_s(spent),
            spent["hits_total"],
            spent["blocks_total"],
            max(0, self._allocated_bytes() - self._weight_bytes),
            result.end is WindowEnd.PRICE,
        )
        return Closed(self._since_s, until_s, result.end, seen)

    def close(self) -> None:
        """End the window and the governor; trace the process no more."""
        self._windows.end()
        self._window = None
        self._probing.unit.remove(self._pid)

    def _allocated_bytes(self) -> int:
        table = self._probing.table(Order.ALLOCATED, self._pid, rows_max=0)
        return sum(
            total.weight_bytes for row in table.processes for total in row.allocated.values()
        )
