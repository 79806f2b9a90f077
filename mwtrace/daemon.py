"""The plot: tick, name, judge, tell, wait.

Everything that happens happens in the rooms that are introduced to each other here. The loop ends
by ``stop()``, from a signal handler or another thread, or when the time that was asked for is up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional, Protocol

from mwtrace.aggregator import Aggregator, Limits, OomKill, Table
from mwtrace.errors import HostError, ProcessError, ProcessGone, ProcessUnreadable
from mwtrace.escalation.allowance import ReadingLimits
from mwtrace.escalation.cases import Escalation
from mwtrace.escalation.sites import SiteLimits, Sites
from mwtrace.escalation.snapshots import Snapshots, SnapshotSettings
from mwtrace.host.limits import Limits as MemoryLimits
from mwtrace.host.procfs import Host
from mwtrace.host.services import ServiceNames
from mwtrace.judge.trend import Thresholds
from mwtrace.model import (
    Judgement,
    Limit,
    NewFinding,
    ProcessId,
    Service,
    Snapshot,
    Subject,
    VerdictChange,
)
from mwtrace.probes.engine import Engine
from mwtrace.registry import Registry
from mwtrace.rules import Rules
from mwtrace.sources import open_source
from mwtrace.verdicts import Verdicts

log = logging.getLogger(__name__)

_URGENT_TICK_S = 1.0
_STOPS_WITHIN_S = 1.0
_SHORTEST_WINDOW_TICKS = 8  # mw_fit_window_samples[0]


@dataclass(frozen=True)
class Settings:
    """What the operator asked for."""

    interval_s: float = 5.0
    duration_s: Optional[float] = None  # None: until stopped
    pids: tuple[int, ...] = ()  # not empty: only these, each for itself
    allow_bpf: bool = True
    engine: str = "auto"  # by name: probes/engines.py
    keep_gone_s: float = 600.0  # a restarting service keeps its standing for this long
    limits: Limits = field(default_factory=Limits)
    thresholds: Thresholds = field(default_factory=Thresholds)
    rules: Rules = field(default_factory=Rules)  # what holds for some services only
    escalates: bool = True  # False: suspects are neither read nor sampled nor probed
    readings: ReadingLimits = field(default_factory=ReadingLimits)
    sites: SiteLimits = field(default_factory=SiteLimits)
    snapshots: Optional[SnapshotSettings] = None  # None: nobody is asked for one


class Teller(Protocol):
    """Who is told. Called from the loop, so it must not wait for anybody."""

    def on_change(self, change: VerdictChange) -> None: ...

    def on_finding(self, news: NewFinding) -> None: ...

    def on_snapshot(self, snapshot: Snapshot) -> None: ...

    def on_oom_kill(self, oom_kill: OomKill, service: Optional[Service]) -> None: ...

    def on_tick(self, table: Table) -> None: ...


class Daemon:
    """One watch from start to end; ``close()`` gives everything back."""

    def __init__(self, settings: Settings, engine: Engine, host: Host) -> None:
        self.settings = settings
        self.aggregator = Aggregator(settings.limits)
        self._stopping = False
        self._host = host
        self._limits = MemoryLimits(host)
        self._chosen = {pid: host.process_id(pid) for pid in settings.pids}
        self.registry = Registry(
            self.aggregator,
            ServiceNames(host),
            settings.limits.services_max,
            self._is_chosen if settings.pids else None,
        )
        # Its thread looks at processes too, and a Host is not for several threads.
        self._reader_host = Host(Path(host.root))
        self.escalation = Escalation(settings.readings, self._reader_host.check)
        self.sites = Sites(engine, settings.sites)
        self.snapshots = Snapshots(settings.snapshots, Path(host.root))
        thresholds = _thresholds(settings)
        # Two ticks go by until a process has its name.
        self.learning_s = thresholds.learning_s + 2 * settings.interval_s
        self.verdicts = Verdicts(
            thresholds,
            self.registry.subject,
            self._limit,
            self._is_alive,
            self.escalation.finding,
            self.sites.of,
            settings.rules,
        )
        self.source = open_source(
            engine,
            self.aggregator,
            host,
            settings.limits.processes_max,
            settings.allow_bpf,
        )
        self.changes_total = 0
        self.restraint = ""  # what is left undone for want of memory, in words
        self.pulse: Callable[[], None] = _nothing  # between two ticks, at least once a second
        self.has_ended = False  # all processes that were asked for have
        self.began_s = time.monotonic()
        self.counters: dict[str, int] = {}  # of the last tick, the kernel's losses included
        self.counted: list[Callable[[], Mapping[str, int]]] = []  # what tellers count themselves

    def run(self, tellers: Sequence[Teller]) -> None:
        """Watch until stopped or the duration is over."""
        ends_s = None
        if self.settings.duration_s is not None:
            ends_s = self.began_s + self.settings.duration_s
        next_s = self.began_s
        is_last = False
        while not is_last:
            self.pulse()
            tick_s = time.monotonic()
            # What happened since the tick before is told before we go.
            self.has_ended = bool(self._chosen) and not any(map(self._runs, self._chosen.values()))
            is_over = ends_s is not None and tick_s >= ends_s
            is_last = self._stopping or self.has_ended or is_over
            self._tick(tellers)
            now_s = time.monotonic()
            if now_s >= next_s:
                # A host that slept skips ticks rather than hurrying through those it missed, and
                # ticks that take longer than the interval get no more than half of one CPU.
                next_s = max(next_s + self.settings.interval_s, now_s + (now_s - tick_s))
            if not is_last:
                self._wait(now_s, next_s if ends_s is None else min(next_s, ends_s))

    def stop(self) -> None:
        """End ``run()`` after one more tick, within a second.

        Safe in a signal handler, as no lock is: the handler may run while the loop holds it.
        """
        self._stopping = True

    def adopt(self, settings: Settings) -> None:
        """Go on with other settings; bounds, engine and processes stay what they were."""
        self.settings = replace(
            self.settings,
            interval_s=settings.interval_s,
            thresholds=settings.thresholds,
            rules=settings.rules,
            escalates=settings.escalates,
        )
        thresholds = _thresholds(self.settings)
        self.learning_s = thresholds.learning_s + 2 * self.settings.interval_s
        self.verdicts.adopt(thresholds, settings.rules)

    def close(self) -> None:
        self.source.close()
        self.sites.close()
        self.snapshots.close()
        self.escalation.close()
        self._reader_host.close()

    def history(self, service_id: int) -> list[tuple[float, int]]:
        """Return the newest minutes of a service as (time_s, private bytes)."""
        return self.aggregator.history(service_id, 0)

    def _tick(self, tellers: Sequence[Teller]) -> None:
        time_s = time.monotonic()
        try:
            table = self.source.tick(time_s)
        except HostError as error:
            # One tick without a table (no descriptor left, no memory) is a gap, not the end.
            log.warning("%s; trying again at the next tick", error)
            self.counters["ticks_failed_total"] = self.counters.get("ticks_failed_total", 0) + 1
            return
        failed = self.counters.get("ticks_failed_total", 0)
        self.counters = {
            **table.counters,
            **self.source.losses(),
            **self.escalation.counters,
            **self.sites.counters,
            **self.snapshots.counters,
            "ticks_failed_total": failed,
            "names_abandoned_total": self.registry.names_abandoned_total,
        }
        for counted in self.counted:
            self.counters.update(counted())
        # In this order: ids are taken back, and then given to whoever comes.
        oom_kills = [(oom_kill, self._service(oom_kill.service_id)) for oom_kill in table.oom_kills]
        gone = [row.service_id for row in table.rows if row.is_gone]
        for service_id in self.registry.forget(gone, time_s, self.settings.keep_gone_s):
            self.verdicts.forget(service_id)
        self.registry.name(table.unnamed)
        boot_offset_s = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
        self.escalation.collect(time_s)
        changes = self.verdicts.update(table, boot_offset_s)
        suspects = [suspect for suspect in self.verdicts.suspects() if self._may_look(suspect)]
        self.snapshots.follow(suspects, self.verdicts.standings.values(), time_s)
        if self.settings.escalates and not self.restraint:
            self.escalation.follow(suspects, time_s)
            if self.source.has_bpf:
                self.sites.follow(suspects)
        self.changes_total += len(changes)
        for teller in tellers:
            for oom_kill, service in oom_kills:
                teller.on_oom_kill(oom_kill, service)
            for change in changes:
                teller.on_change(change)
            for news in self.verdicts.new_findings:
                teller.on_finding(news)
            for snapshot in self.snapshots.told:
                teller.on_snapshot(snapshot)
            teller.on_tick(table)

    def _wait(self, began_s: float, until_s: float) -> None:
        """Wait for the next tick, or for an OOM kill that asks for one of its own."""
        while not self._stopping and (now_s := time.monotonic()) < until_s:
            self.pulse()
            # In pieces: a signal that comes just before the wait does not end it.
            if self.source.wait(min(until_s, now_s + _STOPS_WITHIN_S)):
                # A host that kills all the time gets no more ticks than one a second.
                until_s = min(until_s, began_s + _URGENT_TICK_S)

    def _may_look(self, suspect: tuple[Subject, Judgement]) -> bool:
        return not self.settings.rules.of(suspect[0].id.service).is_watched_only

    def _service(self, service_id: int) -> Optional[Service]:
        subject = self.registry.subject(service_id)
        return subject.service if subject else None

    def _limit(self, pid: int) -> Optional[Limit]:
        try:
            return self._limits.of(pid)
        except (ProcessError, HostError) as error:
            log.debug("no limit is known for process %d: %s", pid, error)
            return None

    def _is_chosen(self, process: ProcessId) -> bool:
        chosen = self._chosen.get(process.pid)
        return chosen is not None and self._host.is_same(process, chosen)

    def _runs(self, process: ProcessId) -> bool:
        try:
            if self._host.memory(process.pid) is None:  # a zombie
                return False
            self._host.check(process)
        except ProcessGone:
            return False
        except ProcessUnreadable:
            pass  # it is there
        return True

    def _is_alive(self, process: ProcessId) -> bool:
        try:
            self.aggregator.history(process, 0)
        except ProcessError:
            return False
        return True


def _nothing() -> None:
    pass


def _thresholds(settings: Settings) -> Thresholds:
    """Before the shortest window is full nobody can be called steady."""
    thresholds = settings.thresholds
    window_s = _SHORTEST_WINDOW_TICKS * settings.interval_s
    return replace(thresholds, learning_s=max(thresholds.learning_s, window_s))
