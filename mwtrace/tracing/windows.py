"""One window on one process: attached, watched, closed, and what it showed and cost.

    open() --sampling--> quiet() --frees only--> the end, in C --> poll() says what was seen

The programs are told to stop while probes are put in and taken out, so a window begins and ends
at once for all functions. Between ``quiet()`` and the end no new block is told, but frees still
are: whoever looks at the blocks' contents then sees them before an address can have been given to
somebody else unnoticed. That a window ends in time is seen to in C (``cext/governor.h``); here
nothing waits but ``end()``. It must not know why a window is opened, nor what becomes of its
blocks.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import NamedTuple

from mwtrace.capi import lib
from mwtrace.errors import ProcessError
from mwtrace.probes.attach import Refusal, attach
from mwtrace.probes.governor import Seen, Window
from mwtrace.probes.windows import WindowEnd, Windows
from mwtrace.tracer import Order
from mwtrace.tracing.busy import Lag
from mwtrace.tracing.probing import ProbePlan, Probing
from mwtrace.tracing.unit import cookie

# The end of a window, kept for looking at its blocks.
TAIL_S = 0.03
TAIL_SHARE_MAX = 0.4


# A window is made quiet when so much of what it may cost is spent: what the governor has to end
# ends before its blocks were looked at, and to leave such ones out would leave out the busy times.
QUIET_COST_SHARE = 0.6
POLL_S = 0.02
# Of a window: what is left is the work that was done, and too little of it proves nothing.
LAG_SHARE_MAX = 0.9


class Closed(NamedTuple):
    """A window that is over; its blocks were allocated in [since_s, until_s)."""

    since_s: float
    until_s: float
    sampled_s: float  # for how long blocks were told
    lag_s: float  # by which the process was behind, at the end of that, because of the probes
    end: WindowEnd
    seen: Seen
    was_quiet: bool  # False: it ended before its blocks could be looked at


class ProcessWindows:
    """Windows on one process, one after the other. ``close()`` leaves no probe in it."""

    def __init__(self, probing: Probing, pid: int, plan: ProbePlan) -> None:
        self._probing = probing
        self._pid = pid
        self._plan = plan
        self.refused: tuple[Refusal, ...] = ()  # points of the last window that were not had
        self.counts: Counter[str] = Counter()  # the kernel's, of all windows that are over
        probing.unit.add(pid)
        self._windows = Windows(probing.unit.count_layout(), plan.prices.by_count())
        self._window: int | None = None
        self._interval_bytes = 0
        self.since_s = 0.0
        self._quiet_s = 0.0  # when quiet() took effect; 0: not yet
        self.quiet_at_s = 0.0  # when it should, at the latest
        self._cost_max_s = 0.0
        self._lag: Lag | None = None
        self._weight_bytes = 0

    @property
    def is_open(self) -> bool:
        return self._window is not None

    @property
    def is_quiet(self) -> bool:
        return self._quiet_s > 0

    def open(self, window: Window, interval_bytes: int) -> None:
        """Open one. Raises ProcessError if not a single probe could be attached."""
        unit, plan = self._probing.unit, self._plan
        self._interval_bytes = interval_bytes
        self._weight_bytes = self._allocated_bytes()
        unit.clear_counts(self._pid)
        self._aim(lib.MW_TARGET_STOPPED)
        report = attach(self._pid, plan.points, self._probing.programs, self._probing.kind, cookie)
        self.refused = report.refused
        if not report.links:
            reason = report.refused[0].reason if report.refused else "it has no allocator"
            remedy = report.refused[0].remedy if report.refused else ""
            raise ProcessError(f"cannot attach to process {self._pid}: {reason}", remedy)
        self._quiet_s = 0.0
        self.since_s = time.monotonic()
        tail_s = min(TAIL_S, TAIL_SHARE_MAX * window.duration_s)
        self.quiet_at_s = self.since_s + window.duration_s - tail_s
        self._cost_max_s = window.cost_max_s
        has_one_lock = bool(plan.flags & lib.MW_TARGET_PYTHON_STACKS)
        self._lag = Lag(self._pid, has_one_lock, self.since_s)
        self._aim(0)
        slot = unit.slot(self._pid)
        self._window = self._windows.open(
            self._pid, slot, window.duration_s, window.cost_max_s, report.links
        )

    def note(self, now_s: float) -> float:
        """See what the window has cost and how busy the process is; return when to look again."""
        cost_s = self._plan.prices.cost_s(self._probing.unit.counts(self._pid))
        if self._lag is not None:
            self._lag.note(now_s, cost_s)
        left_s = QUIET_COST_SHARE * self._cost_max_s - cost_s
        if left_s <= 0:
            self.quiet_at_s = min(self.quiet_at_s, now_s)
        return max(min(now_s + POLL_S, now_s + left_s, self.quiet_at_s), now_s)

    def quiet(self) -> bool:
        """Tell no more blocks, and take all that were told; False: it is over already."""
        assert self._window is not None
        if self._windows.look(self._window).end is not WindowEnd.OPEN:
            return False
        self._aim(lib.MW_TARGET_QUIET)
        self._quiet_s = time.monotonic()
        # The governor may have stopped it in between, and we have let it go on: stop it again.
        if self._windows.look(self._window).end is not WindowEnd.OPEN:
            self._aim(lib.MW_TARGET_STOPPED)
        self._drain()
        return True

    def stop(self) -> None:
        """Make the programs return at once, and have the probes taken out; ``poll()`` follows."""
        assert self._window is not None
        self._windows.ask(self._window)

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
        self._drain()
        counts = self._probing.unit.counts(self._pid)
        self.counts.update(counts)
        sampled_s = result.duration_s
        if self._quiet_s:
            sampled_s = min(sampled_s, self._quiet_s - self.since_s)
        seen = Seen(
            result.duration_s,
            self._plan.prices.cost_s(counts),
            counts["hits_total"],
            counts["blocks_total"],
            max(0, self._allocated_bytes() - self._weight_bytes),
            result.end is WindowEnd.PRICE,
            counts["blocks_total"] * self._plan.prices.sample_ns * 1e-9,
            counts["stopped_hits_total"] * self._plan.prices.stopped_hit_ns * 1e-9,
        )
        return Closed(
            self.since_s,
            until_s,
            sampled_s,
            min(self._lag.lag_s if self._lag else 0.0, LAG_SHARE_MAX * sampled_s),
            result.end,
            seen,
            bool(self._quiet_s),
        )

    def close(self) -> None:
        """End the window and the governor; trace the process no more."""
        self._windows.end()
        self._window = None
        self._probing.unit.remove(self._pid)

    def _aim(self, more_flags: int) -> None:
        flags = self._plan.flags | more_flags
        self._probing.unit.aim(self._pid, flags, interval_bytes=self._interval_bytes)

    def _drain(self) -> None:
        while self._probing.drain():
            pass

    def _allocated_bytes(self) -> int:
        table = self._probing.table(Order.ALLOCATED, self._pid, rows_max=0)
        return sum(
            total.weight_bytes for row in table.processes for total in row.allocated.values()
        )
