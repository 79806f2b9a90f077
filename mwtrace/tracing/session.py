"""One process traced in windows: gates, plan, window, audit, and again, until its time is over.

Law of this file: ``step()`` does what is due and says when it wants to be called again; it waits
for nothing but the attaching of probes (10 to 15 ms) and the reading of blocks (1 us each), so a
daemon can run it in its loop, and many of them. The budget is kept by the governor in C, whatever
the loop does meanwhile.

A block that lives when its window closes is not yet a leak. So each window is looked at twice: at
its end, while frees are still told, to learn what its blocks contain; and when a good part of the
trace lies behind it. What then still lives, and is what it was, divided by the windows' time, is a
site's rate. Frees must be told within a window, since only some blocks are: where a told block was
freed and an untold one took its address, the first one would seem to live.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from mwtrace.errors import HostError, ProcessError, ProcessGone
from mwtrace.model import ProcessId
from mwtrace.probes.governor import (
    PERIOD_MIN_S,
    SAVED_MAX_S,
    WINDOW_MIN_S,
    Spending,
    Window,
    account,
    begin,
    plan,
    rest_s,
)
from mwtrace.probes.safety import Refusal, Severity, may_probe
from mwtrace.probes.windows import WindowEnd
from mwtrace.tell.profile import Frame
from mwtrace.tracer import AuditReport, Order, ProcessRow, SiteRow
from mwtrace.tracing.probing import ProbePlan, Probing
from mwtrace.tracing.process import Growth, ProgramChanged, TracedProcess
from mwtrace.tracing.survivors import Past, Survivors, halves, held_bytes, kept, rates
from mwtrace.tracing.windows import POLL_S, Closed, ProcessWindows

LAST_WINDOW_S = 1.0  # the last one begins so long before windows end
LATE_S = 0.3  # what detaching may take before it is waited for
LOOK_S = 1.0  # identity, memory, thread lists
AUDIT_S = 5.0  # survivors are looked at again, so that an exit does not take them along
# A window counts when this part of the trace, and at least so much time, lies behind it.
RIPE_SHARE = 0.4
RIPE_MIN_S = 2.0
RESOLVED_SITES = 100
RETRY_S = 5.0  # a gate that may open by itself: stopped, traced, vfork
EXACT_COST_S = 1e6  # no bound: who asks for every block has said so


class State(enum.Enum):
    LOOKING = "looking at it"  # no window could be planned yet
    RESTING = "between windows"
    OPEN = "in a window"
    ENDED = "ended"


class Site(NamedTuple):
    """Code whose blocks survive; numbers are scaled up to what the program did."""

    row: SiteRow
    frames: tuple[Frame, ...]  # root first
    is_truncated: bool
    bytes_per_second: float
    low_bytes_per_second: float  # 95% interval
    high_bytes_per_second: float
    held_bytes_per_second: float  # with what the allocator adds to each block
    survivors: int  # blocks that were seen to live, unscaled; exact: the live ones


class Facts(NamedTuple):
    """How a session stands."""

    state: State
    why: str  # of waiting, or of the end
    windows: int
    cut_windows: int  # ended by their price
    late_windows: int  # ended before their blocks were looked at: they do not count
    window_s: float  # in all
    spent_s: float  # of the target's time
    hits: int  # calls that probes saw
    watched_s: float
    samples: int
    dropped: int  # events that the ring had no room for
    untracked: int  # calls or blocks that a table had no room for
    interval_bytes: int
    growth_bytes_per_second: float | None
    audit: AuditReport
    remarks: tuple[str, ...]


@dataclass
class _Totals:
    windows: int = 0
    cut_windows: int = 0
    late_windows: int = 0
    window_s: float = 0.0
    samples: int = 0
    interval_bytes: int = 0
    past: list[Past] = field(default_factory=list)


class TraceSession:
    """Traces one process for ``seconds``; with ``exact`` every block and free, at any price.

    Raises ProcessGone, or ProcessError with what the gates say if it must not be probed.
    """

    def __init__(
        self,
        probing: Probing,
        process: ProcessId,
        now_s: float,
        seconds: float,
        exact: bool = False,
    ) -> None:
        self.exact = exact
        self.since_s = now_s
        self.until_s = now_s + seconds
        self._probing = probing
        self.traced = TracedProcess(process, probing.host, probing.modules)
        _refuse_if_closed(self.traced, probing.gates(self.traced))
        self._growth = Growth()
        # With its detaching the last one must be over when what is left of the trace makes it old.
        young_s = RIPE_SHARE * seconds + LATE_S
        self._windows_until_s = self.until_s if exact else self.until_s - young_s
        # The time in which no window is opened any more is paid for, too: spend that at first.
        ahead_s = min(seconds, SAVED_MAX_S / 2) * RIPE_SHARE * probing.budget.target_share
        self._course = replace(begin(now_s, probing.budget), spending=Spending(now_s, ahead_s))
        self._windows: ProcessWindows | None = None
        self._plan: ProbePlan | None = None
        self._planned: Window | None = None
        self._totals = _Totals()
        self._audit = AuditReport()
        self._untracked_total = 0  # blocks for which our table had no room
        self._state = State.LOOKING
        self._why = ""
        self._next_s = self._looked_s = self._audited_s = 0.0
        self._ended_s = 0.0

    @property
    def pid(self) -> int:
        return self.traced.pid

    @property
    def is_ended(self) -> bool:
        return self._state is State.ENDED

    def step(self, now_s: float) -> float | None:
        """Do what is due; return when to be called again, or None: it has ended.

        What happens to the process (exit, exec) ends the session, with what was learnt; so does
        a HostError, which is raised once.
        """
        if self.is_ended:
            return None
        try:
            return self._step(now_s)
        except ProcessGone:
            self._end(now_s, f"process {self.pid} ended")
        except ProcessError as error:
            self._end(now_s, str(error))
        except HostError as error:
            self._end(now_s, str(error))
            raise
        return None

    def finish(self, now_s: float) -> None:
        """End it now, whatever time is left; a second call does nothing."""
        if not self.is_ended:
            self._end(now_s, "")

    def close(self) -> None:
        """Take all probes out and forget the process; a second call does nothing."""
        if self._windows is not None:
            self._windows.close()
            self._windows = None
        self._state = State.ENDED
        self._probing.tracer.forget(self.pid)

    def sites(self, now_s: float, count: int = 50) -> tuple[Site, ...]:
        """Sites by the rate at which they keep memory, fastest first."""
        found = self._live_sites(now_s) if self.exact else self._surviving_sites(now_s)
        found.sort(key=lambda site: -site.bytes_per_second)
        return tuple(found[:count])

    def facts(self, now_s: float) -> Facts:
        totals = self._totals
        counts: Mapping[str, int] = self._windows.counts if self._windows else {}
        return Facts(
            self._state,
            self._why,
            totals.windows,
            totals.cut_windows,
            totals.late_windows,
            totals.window_s,
            self._course.spending.spent_s,
            counts.get("hits_total", 0) + counts.get("stopped_hits_total", 0),
            (self._ended_s or now_s) - self.since_s,
            totals.samples,
            sum(n for name, n in counts.items() if name.startswith("dropped_")),
            counts.get("untracked_total", 0) + self._untracked_total,
            totals.interval_bytes,
            self._growth.bytes_per_second(),
            self._audit,
            self._plan.remarks if self._plan else (),
        )

    @property
    def python_is_inlined(self) -> bool:
        """Whether probes miss this process's small Python objects."""
        return self._plan is not None and self._plan.python_is_inlined

    # Below: how it is done.

    def _step(self, now_s: float) -> float | None:
        self._probing.drain()
        self._introduce_threads()
        if now_s - self._looked_s >= LOOK_S:
            self._look(now_s)
        if self._windows is not None and self._windows.is_open:
            next_s = now_s + POLL_S
            if not self.exact and not self._windows.is_quiet:
                next_s = self._windows.note(now_s)
                if now_s >= self._windows.quiet_at_s:
                    self._look_first(now_s)
                    next_s = now_s + POLL_S
            closed = self._windows.poll()
            if closed is None and now_s < self.until_s + LATE_S:
                return next_s
            self._take(closed or self._windows.end(), now_s)
        if now_s >= self.until_s:
            self._end(now_s, "")
            return None
        if not self.exact and now_s - self._audited_s >= AUDIT_S:
            self._settle(now_s)
        if now_s >= self._next_s:
            self._open(now_s)
        soon_s = now_s + POLL_S if self._state is State.OPEN else now_s + LOOK_S
        return min(soon_s, self.until_s, max(self._next_s, now_s + POLL_S))

    def _look_first(self, now_s: float) -> None:
        """Learn what the window's blocks contain, before one can be another unnoticed."""
        assert self._windows is not None
        if self._windows.quiet():
            self._audit_range(self._windows.since_s, now_s + LATE_S, False)
            self._windows.stop()

    def _introduce_threads(self) -> None:
        if self._probing.asks_for_threads(self.pid) and self.traced.runtime:
            self._probing.unit.introduce_threads(self.traced.runtime)

    def _look(self, now_s: float) -> None:
        self._looked_s = now_s
        self.traced.check()
        size_bytes = self.traced.private_bytes()
        if size_bytes is not None:
            self._growth.add(now_s, size_bytes)
        if self.exact:
            # Also the tick at which live bytes are sampled for slopes.
            self._resolve(Order.GROWTH, now_s)

    def _open(self, now_s: float) -> None:
        closed = self._probing.gates(self.traced)
        if not may_probe(closed):
            gate = next(gate for gate in closed if gate.severity is Severity.REFUSE)
            self._wait(now_s + RETRY_S, f"{gate.gate.value}: {gate.reason}")
            return
        if self._plan is None:
            self._plan = self._probing.look_at(self.traced, closed)
            self._windows = ProcessWindows(self._probing, self.pid, self._plan)
            if self.traced.runtime:
                self._probing.unit.introduce(self.traced.runtime)
        assert self._windows is not None
        budget, prices = self._probing.budget, self._plan.prices
        if self.exact:
            window = Window(self.until_s - now_s, EXACT_COST_S, 0)
        else:
            planned, wait = plan(self._course, self._probing.spending, now_s, budget, prices)
            if planned is None:
                assert wait is not None
                self._wait(wait.until_s, wait.why)
                return
            left_s = self._windows_until_s - now_s
            if left_s < WINDOW_MIN_S:
                self._wait(self.until_s, "what was allocated must grow old")
                return
            window = planned._replace(duration_s=min(planned.duration_s, left_s))
        self._spend_until(now_s)
        self._windows.open(window, window.interval_bytes)
        self._planned = window
        self._state, self._why = State.OPEN, ""

    def _spend_until(self, now_s: float) -> None:
        # Buckets fill with time; what is accounted later is taken from what is in them then.
        budget = self._probing.budget
        spending = self._course.spending.at(now_s, budget.target_share)
        self._course = replace(self._course, spending=spending)
        self._probing.spending = self._probing.spending.at(now_s, budget.host_share)

    def _take(self, closed: Closed, now_s: float) -> None:
        assert self._plan is not None
        assert self._planned is not None
        self._course, self._probing.spending = account(
            self._course, self._probing.spending, closed.seen
        )
        totals, seen = self._totals, closed.seen
        totals.windows += 1
        totals.cut_windows += seen.was_cut
        totals.window_s += seen.duration_s
        totals.samples += seen.samples
        totals.interval_bytes = self._planned.interval_bytes
        next_s = now_s + rest_s(self._course, self._planned, self._probing.budget)
        last_s = self._windows_until_s - LAST_WINDOW_S
        if next_s > last_s >= now_s + PERIOD_MIN_S:
            next_s = last_s  # with what there is: it would not be spent otherwise
        self._wait(next_s, "")
        if self.exact:
            # Ended by something else than its time: go on, if the process does.
            self._next_s = now_s
        else:
            duration_s = closed.sampled_s - closed.lag_s
            past = Past(
                closed.since_s,
                closed.until_s,
                duration_s,
                self._planned.interval_bytes,
                closed.was_quiet,
            )
            totals.past.append(past)
            totals.late_windows += not closed.was_quiet
            self._resolve(Order.LIVE, now_s)
        if closed.end is WindowEnd.GONE:
            raise ProcessGone(f"process {self.pid} ended")

    def _wait(self, until_s: float, why: str) -> None:
        self._next_s, self._why = until_s, why
        self._state = State.RESTING if self._plan else State.LOOKING

    def _audit_range(self, since_s: float, until_s: float, is_final: bool) -> None:
        assert self._plan is not None
        report = self._probing.tracer.audit(
            self.pid,
            since_s,
            until_s,
            self._plan.native_layout,
            self._plan.python_layout,
            is_final,
        )
        if is_final:
            self._audit = report

    def _settle(self, now_s: float) -> None:
        """Look at the blocks of all windows that are old enough, again and again as they age."""
        self._audited_s = now_s
        ripe_s = max(RIPE_MIN_S, RIPE_SHARE * (now_s - self.since_s))
        ripe = [
            past
            for past in self._totals.past
            if past.is_counted or (past.is_good and now_s - past.until_s >= ripe_s)
        ]
        if not ripe:
            return
        self._audit_range(
            min(past.since_s for past in ripe), max(past.until_s for past in ripe), True
        )
        for past in ripe:
            past.is_counted = True
        self._resolve(Order.SURVIVED, now_s)

    def _resolve(self, order: Order, now_s: float) -> None:
        """Name what is at the top while the process lives; afterwards nothing can be named."""
        table = self._probing.table(order, self.pid, RESOLVED_SITES)
        self._untracked_total = table.counters["untracked_blocks_total"]
        self.traced.symbolizer.revalidate()
        for row in table.sites:
            if row.pid == self.pid:
                self._frames(row)

    def _frames(self, row: SiteRow) -> tuple[Frame, ...]:
        tracer = self._probing.tracer
        return self.traced.symbolizer.stack(tracer, row.native_stack, row.python_stack)

    def _end(self, now_s: float, why: str) -> None:
        if self._windows is not None and self._windows.is_open:
            closed = self._windows.end()
            self._totals.windows += 1
            self._totals.window_s += closed.seen.duration_s
            self._totals.samples += closed.seen.samples
            if self._planned:
                self._totals.interval_bytes = self._planned.interval_bytes
            course, host = account(self._course, self._probing.spending, closed.seen)
            self._course, self._probing.spending = course, host
        if not why:
            try:
                self._look(now_s)
                if not self.exact:
                    self._settle(now_s)
            except ProgramChanged as error:
                why = str(error)
            except ProcessError:
                why = f"process {self.pid} ended"
        self._state, self._why, self._ended_s = State.ENDED, why, now_s

    def _site(
        self, row: SiteRow, rate: float, low: float, high: float, held: float, survivors: int
    ) -> Site:
        frames = self._frames(row)
        is_cut = self.traced.symbolizer.is_truncated(row.native_stack, row.python_stack)
        return Site(row, frames, is_cut, rate, low, high, held, survivors)

    def _held_of_row(self, row: SiteRow) -> float:
        """How many times its size a site's mean block takes."""
        blocks = max(1, row.allocated.blocks)
        size_bytes = max(1, row.allocated.bytes // blocks)
        if self._plan is None or row.domain is None:
            return 1.0
        return held_bytes(size_bytes, row.domain, self._plan) / size_bytes

    def _live_sites(self, now_s: float) -> list[Site]:
        table = self._probing.table(Order.GROWTH, self.pid)
        return [
            self._site(
                row,
                row.slope.bytes_per_second,
                row.slope.low_bytes_per_second,
                row.slope.high_bytes_per_second,
                row.slope.bytes_per_second * self._held_of_row(row),
                round(row.live_blocks),
            )
            for row in table.sites
            if row.pid == self.pid and row.slope is not None and row.slope.bytes_per_second > 0
        ]

    def _surviving_sites(self, now_s: float) -> list[Site]:
        counted = [past for past in self._totals.past if past.is_counted]
        if not counted or self._plan is None:
            return []
        older, newer = halves(counted)
        seen = [self._survivors(older), self._survivors(newer)]
        table = self._probing.table(Order.SURVIVED, self.pid)
        sites = []
        for row in table.sites:
            if row.pid != self.pid or not row.survived.blocks:
                continue
            both = [found.get(row.site, Survivors()) for found in seen]
            blocks, windows = kept(both, [older, newer])
            count = sum(blocks.values())
            if not count:
                continue
            rate, held = rates(blocks, windows, self._plan)
            spread = 1.96 / count**0.5
            low, high = rate * max(0.0, 1 - spread), rate * (1 + spread)
            sites.append(self._site(row, rate, low, high, held, count))
        return sites

    def _survivors(self, windows: list[Past]) -> dict[int, Survivors]:
        found: dict[int, Survivors] = {}
        for past in windows:
            for block in self._probing.tracer.survivors(self.pid, past.since_s, past.until_s):
                found.setdefault(block.site, Survivors())[block.size_bytes, block.domain] += 1
        return found

    def process_row(self) -> ProcessRow | None:
        """What the books say of the process as a whole; None if nothing was sampled."""
        rows = self._probing.table(Order.LIVE, self.pid, 0).processes
        return rows[0] if rows else None


def _refuse_if_closed(traced: TracedProcess, closed: list[Refusal]) -> None:
    for gate in closed:
        if gate.severity is not Severity.WITHOUT_KERNEL_STACKS:
            raise ProcessError(
                f"cannot open a window on process {traced.pid}: {gate.reason}",
                gate.remedy or "Growth sampling (--growth-only) needs no probe in it.",
            )
