"""Growth sampling: who touches fresh memory, in any number of processes, with no probe in any.

Of the host's page faults those of a watched process are drawn one of N and told with their stacks,
those of all others cost one lookup. N follows the rate, so that a process that faults a lot pays
no more. Whoever touches a fresh page is named, which need not be who keeps it: this ranks sites,
``session`` confirms them.

Runs in the caller's loop: nothing here waits but ``drain()`` with a timeout.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

from mwtrace.capi import lib
from mwtrace.errors import ProcessError, ProcessGone
from mwtrace.host.procfs import Host
from mwtrace.model import ProcessId
from mwtrace.probes.engine import Engine
from mwtrace.tell.profile import Frame, ModuleMapping
from mwtrace.tracer import Order, Tracer, TracerLimits
from mwtrace.tracing.process import Growth, ProgramChanged, TracedProcess
from mwtrace.tracing.symbolize import Modules
from mwtrace.tracing.unit import TracingUnit

UNIT = "growth"
LOOK_S = 1.0  # identity, memory and rates of each process
RESOLVE_S = 5.0  # the top sites get their names while the process lives
RESOLVED_SITES = 40
# Each takes 3 to 4 us of the process: at most a thousandth of its time.
SAMPLES_PER_S = 250
FIRST_INTERVAL_FAULTS = 8
INTERVAL_FAULTS_MAX = 4096
LIMITS = TracerLimits(
    blocks_max=16,  # growth has no blocks behind it
    ranges_max=16,
    stacks_max=16_384,
    words_max=524_288,
    sites_max=8_192,
    processes_max=64,
    rows_max=512,
)


class GrowthSite(NamedTuple):
    """Code that touched fresh memory; numbers are scaled up to what the program did."""

    frames: tuple[Frame, ...]  # root first
    is_truncated: bool
    grown_bytes: int
    bytes_per_second: float
    share: float  # of all that the process touched
    first_time_s: float
    samples: int


class GrowthFacts(NamedTuple):
    """What is known of one process by growth sampling."""

    watched_s: float
    growth_bytes_per_second: float | None  # of private memory; None: too early
    touched_bytes_per_second: float  # by faults: more than the growth where memory is given back
    samples: int
    dropped: int  # samples that the ring had no room for
    ended: str  # "" or why it is watched no more


@dataclass
class _Watched:
    traced: TracedProcess
    since_s: float
    growth: Growth
    looked_s: float = 0.0
    resolved_s: float = 0.0
    ended_s: float = 0.0
    ended: str = ""
    interval_faults: int = FIRST_INTERVAL_FAULTS
    faults: int = 0
    samples: int = 0
    dropped: int = 0


class GrowthSampler:
    """Loaded once per host, on first use; ``close()`` leaves nothing behind."""

    def __init__(
        self,
        engine: Engine,
        host: Host | None = None,
        modules: Modules | None = None,
        limits: TracerLimits = LIMITS,
    ) -> None:
        self._host = host or Host()
        self._modules = modules or Modules()
        self._watched: dict[int, _Watched] = {}
        self._processes_max = limits.processes_max
        with ExitStack() as undo:
            self._unit = TracingUnit(engine, UNIT)
            undo.callback(self._unit.close)
            self._unit.hold(
                lib.mw_link_raw_tracepoint(self._unit.program("page_fault"), b"page_fault_user"),
                "attach to the tracepoint page_fault_user",
            )
            self._tracer = Tracer(limits)
            undo.callback(self._tracer.close_ring)
            self._undo = undo.pop_all()

    def watch(self, process: ProcessId, now_s: float) -> None:
        """Begin to sample a process; one that is watched already goes on.

        Raises ProcessGone, or ProcessError if more are watched than there is room for.
        """
        known = self._watched.get(process.pid)
        if known is not None:
            if self._host.is_same(known.traced.id, process) and not known.ended:
                return
            self.unwatch(process.pid)
        if len(self._watched) >= self._processes_max:
            raise ProcessError(
                f"cannot sample the growth of process {process.pid}: "
                f"{self._processes_max} are sampled already",
                "It is tried again when one of them is let go.",
            )
        traced = TracedProcess(process, self._host, self._modules)
        watched = _Watched(traced, now_s, Growth())
        self._unit.add(process.pid)
        self._watched[process.pid] = watched
        if traced.runtime:
            self._unit.introduce(traced.runtime)
        self._aim(watched)

    def unwatch(self, pid: int) -> None:
        """Forget a process and all it has; one that is not watched is no error."""
        if self._watched.pop(pid, None) is None:
            return
        self._unit.remove(pid)
        self._tracer.forget(pid)

    @property
    def pids(self) -> list[int]:
        return list(self._watched)

    def drain(self, now_s: float, timeout_s: float = 0.0) -> None:
        """Take what was sampled, and look after each process that is due; call it once a second.

        A process that ended or runs another program stays, with what was learnt, until
        ``unwatch()``; ``facts()`` says so.
        """
        self._tracer.drain(self._unit.ring_fd, timeout_s)
        asking = self._tracer.thread_requests()
        for pid, watched in self._watched.items():
            if watched.ended:
                continue
            try:
                if pid in asking and watched.traced.runtime:
                    self._unit.introduce_threads(watched.traced.runtime)
                if now_s - watched.looked_s >= LOOK_S:
                    self._look_after(watched, now_s)
                if now_s - watched.resolved_s >= RESOLVE_S:
                    watched.resolved_s = now_s
                    watched.traced.symbolizer.revalidate()
                    self.top_sites(pid, now_s, RESOLVED_SITES)
            except ProgramChanged as error:
                self._end(watched, now_s, str(error))
            except ProcessGone:
                self._end(watched, now_s, f"process {pid} ended")
            except ProcessError as error:
                self._end(watched, now_s, str(error))

    def top_sites(self, pid: int, now_s: float, count: int = 10) -> tuple[GrowthSite, ...]:
        """The sites that touched most, largest first; () for a process that is not watched."""
        watched = self._watched.get(pid)
        if watched is None:
            return ()
        span_s = max((watched.ended_s or now_s) - watched.since_s, 1e-3)
        table = self._tracer.table(time.monotonic(), Order.GROWN, pid, count)
        total = 1
        for process in table.processes:
            total = max(total, sum(grown.weight_bytes for grown in process.grown.values()))
        symbolizer = watched.traced.symbolizer
        return tuple(
            GrowthSite(
                symbolizer.stack(self._tracer, row.native_stack, row.python_stack),
                symbolizer.is_truncated(row.native_stack, row.python_stack),
                row.grown.weight_bytes,
                row.grown.weight_bytes / span_s,
                row.grown.weight_bytes / total,
                row.first_time_s,
                row.grown.blocks,
            )
            for row in table.sites
            if row.pid == pid and row.grown.blocks
        )

    def facts(self, pid: int, now_s: float) -> GrowthFacts | None:
        """None for a process that is not watched."""
        watched = self._watched.get(pid)
        if watched is None:
            return None
        span_s = max((watched.ended_s or now_s) - watched.since_s, 1e-3)
        return GrowthFacts(
            span_s,
            watched.growth.bytes_per_second(),
            watched.faults * 4096 / span_s,
            watched.samples,
            watched.dropped,
            watched.ended,
        )

    def modules(self, pid: int) -> tuple[ModuleMapping, ...]:
        """The binaries of a watched process, for a profile."""
        watched = self._watched.get(pid)
        return watched.traced.symbolizer.modules() if watched else ()

    def close(self) -> None:
        """End all sampling and unload; a second call does nothing."""
        self._watched.clear()
        self._undo.close()

    def _aim(self, watched: _Watched) -> None:
        flags = lib.MW_TARGET_NATIVE_STACKS
        if watched.traced.runtime:
            flags |= lib.MW_TARGET_PYTHON_STACKS
        self._unit.aim(watched.traced.pid, flags, interval_faults=watched.interval_faults)

    def _look_after(self, watched: _Watched, now_s: float) -> None:
        watched.traced.check()
        size_bytes = watched.traced.private_bytes()
        if size_bytes is not None:
            watched.growth.add(now_s, size_bytes)
        counts = self._unit.counts(watched.traced.pid)
        elapsed_s = now_s - (watched.looked_s or watched.since_s)
        faults_per_s = (counts["faults_total"] - watched.faults) / max(elapsed_s, 1e-3)
        watched.faults = counts["faults_total"]
        watched.samples = counts["growths_total"]
        watched.dropped = counts["dropped_growths_total"]
        watched.looked_s = now_s
        interval = 1
        while faults_per_s > interval * SAMPLES_PER_S and interval < INTERVAL_FAULTS_MAX:
            interval *= 2
        if interval != watched.interval_faults:
            watched.interval_faults = interval
            self._aim(watched)

    def _end(self, watched: _Watched, now_s: float, why: str) -> None:
        watched.ended, watched.ended_s = why, now_s
        self._unit.remove(watched.traced.pid)
