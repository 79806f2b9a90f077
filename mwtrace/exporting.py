"""The daemon's teller for those who collect metrics: a table of samples, finished at each tick.

Knows the daemon's figures and what they are called; not how they are served or written. Nobody who
reads makes work for the tick, and a tick that is late or failed leaves the table as it was.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple, Optional

from mwtrace import __version__
from mwtrace.aggregator import OomKill, ServiceSums, Table
from mwtrace.daemon import Daemon
from mwtrace.errors import ProcessError
from mwtrace.evidence.parts import PartKind
from mwtrace.host.procfs import Host
from mwtrace.host.text import digest
from mwtrace.model import NewFinding, Service, Snapshot, SubjectId, Verdict, VerdictChange
from mwtrace.tell import figures
from mwtrace.tell.families import OTHER, Sample, counter_name, told_counters
from mwtrace.tell.figures import ServiceFigures
from mwtrace.tell.profile import Profile
from mwtrace.tell.units import WallAnchor
from mwtrace.verdicts import Standing

SERVICES_MAX = 100
# A tick may be late; when this many are missing, something is wrong.
_TICKS_MISSED_MAX = 3
_LATE_S = 10.0
_DOMAINS = {PartKind.PYTHON_OBJECTS: "python", PartKind.NATIVE_LIVE: "native"}
_NS_PER_S = 1_000_000_000

Wanted = Callable[[SubjectId], bool]
More = Callable[[], Iterable[Sample]]
# The identifier under which a service's leak is told elsewhere; None: it is told nowhere.
IncidentOf = Callable[[Service], Optional[str]]


class Health(NamedTuple):
    is_well: bool
    words: str


class Exporter:
    """Fills the table; ``samples()`` is for any thread."""

    def __init__(self, daemon: Daemon, is_wanted: Wanted, services_max: int = SERVICES_MAX) -> None:
        self._daemon = daemon
        self._host = Host()  # for our own figures
        self._is_wanted = is_wanted
        self._services_max = services_max
        self._told: frozenset[str] = frozenset()
        self._counted: set[str] = set()  # services that have counters of their own
        self._alerts: dict[str, int] = {}
        self._last_alert: dict[str, tuple[Service, float]] = {}
        self._incidents: dict[str, str] = {}
        self._oom_kills: dict[str, int] = {}
        self._series_dropped_total = 0
        self._untracked_total = 0
        self._samples: Optional[tuple[Sample, ...]] = None
        self._ticked_s = 0.0
        self._began_unix_s = time.time()
        self._listeners: list[Callable[[], None]] = []
        self._more: list[More] = []
        self.incident_of: IncidentOf = lambda service: None

    def samples(self) -> Optional[tuple[Sample, ...]]:
        """The table of the last tick; None before the first."""
        return self._samples

    def add(self, more: More) -> None:
        """Have samples told that somebody else counts."""
        self._more.append(more)

    def listen(self, listener: Callable[[], None]) -> None:
        """Have somebody called at each new table; it must not wait for anybody."""
        self._listeners.append(listener)

    def health(self) -> Health:
        """Whether processes are looked at as often as they should be."""
        if self._samples is None:
            return Health(False, "no process was looked at yet")
        age_s = time.monotonic() - self._ticked_s
        if age_s > _TICKS_MISSED_MAX * self._daemon.settings.interval_s + _LATE_S:
            return Health(False, f"no process was looked at for {age_s:.0f} s")
        return Health(True, f"processes were looked at {age_s:.1f} s ago")

    def profile(self, service: str) -> Optional[Profile]:
        return self._daemon.sites.profile(service)

    def profiled(self) -> list[str]:
        return self._daemon.sites.profiled()

    def on_change(self, change: VerdictChange) -> None:
        service = change.subject.id.service
        if change.now.verdict is Verdict.LEAKING and self._is_wanted(change.subject.id):
            name = self._counter(figures.label(service.name))
            self._alerts[name] = self._alerts.get(name, 0) + 1
            self._last_alert[name] = (service, time.time())

    def on_finding(self, news: NewFinding) -> None:
        pass

    def on_snapshot(self, snapshot: Snapshot) -> None:
        pass

    def on_oom_kill(self, oom_kill: OomKill, service: Optional[Service]) -> None:
        name = self._counter(figures.label(service.name) if service else "unknown")
        self._oom_kills[name] = self._oom_kills.get(name, 0) + 1

    def on_tick(self, table: Table) -> None:
        sums = self._daemon.aggregator.services()
        wall = _now()
        told, folded = figures.fold(self._figures(sums, wall), self._services_max, self._told)
        self._told = frozenset(of.service for of in told)
        self._series_dropped_total += folded
        samples: list[Sample] = []
        for of_service in told:
            samples += figures.samples(of_service)
        samples += self._counters()
        samples += self._watch(table, wall)
        samples += self._coverage(sums, table)
        for more in self._more:
            samples += more()
        self._samples = tuple(samples)
        self._ticked_s = time.monotonic()
        for listener in self._listeners:
            listener()

    def _figures(self, sums: list[ServiceSums], wall: WallAnchor) -> Iterator[ServiceFigures]:
        booted_unix_s = wall.unix_s - time.clock_gettime(time.CLOCK_BOOTTIME)
        for of in sums:
            subject = self._daemon.registry.subject(of.service_id)
            if subject is None or not self._is_wanted(subject):
                continue
            plain = ServiceFigures(
                service=figures.label(subject.service.name),
                process_count=of.process_count,
                private_bytes=of.private_bytes,
                anon_bytes=of.anon_bytes,
                swap_bytes=of.swap_bytes,
                file_bytes=of.file_bytes,
                shmem_bytes=of.shmem_bytes,
                largest_bytes=of.largest_bytes,
                oldest_start_unix_s=booted_unix_s + of.oldest_start_time_ns / _NS_PER_S,
            )
            standing = self._daemon.verdicts.standings.get(of.service_id)
            yield self._judged(plain, standing, wall) if standing else plain

    def _judged(
        self, plain: ServiceFigures, standing: Standing, wall: WallAnchor
    ) -> ServiceFigures:
        judgement, finding = standing.judgement, standing.finding
        grows = judgement.verdict >= Verdict.GROWING
        limit = judgement.limit
        reading = self._daemon.escalation.reading(finding.process) if finding else None
        parts = {part.kind: part.size_bytes for part in reading.parts} if reading else {}
        return replace(
            plain,
            verdict=judgement.verdict,
            since_unix_s=round(wall.unix(judgement.since_s), 2) if grows else None,
            slope_bytes_per_second=judgement.slope_bytes_per_second,
            kind=finding.kind if finding else "unknown",
            limit_bytes=limit.limit_bytes if limit else None,
            headroom_bytes=limit.headroom_bytes if limit else None,
            forecast_s=judgement.forecast_s,
            in_use_bytes=tuple(
                (domain, parts[kind]) for kind, domain in _DOMAINS.items() if kind in parts
            ),
            retained_bytes=finding.retained_bytes if finding else None,
        )

    def _counters(self) -> Iterator[Sample]:
        """Counters of services; they begin at 0 while nothing happened, so that 1 is a rise."""
        for name in sorted(self._told | self._alerts.keys()):
            count = self._alerts.get(name, 0)
            yield Sample("leak_alerts_total", (name,), count, *self._incident(name))
        for name in sorted(self._told | self._oom_kills.keys()):
            yield Sample("oom_kills_total", (name,), self._oom_kills.get(name, 0))
        hits: Counter[str] = Counter()
        seconds: Counter[str] = Counter()
        for service, spending in self._daemon.sites.spent().items():
            name = self._counter(figures.label(service)) if service else OTHER
            hits[name] += spending.hits
            seconds[name] += spending.spent_s  # type: ignore[assignment]
        for name in hits:
            yield Sample("probe_hits_total", (name,), hits[name])
            yield Sample("probe_seconds_total", (name,), seconds[name])
        for reason, count in self._daemon.sites.failures().items():
            yield Sample("attach_failures_total", (reason,), count)

    def _incident(self, name: str) -> tuple[str, float]:
        """What was counted last, and when; it stays known after the leak's end."""
        service, unix_s = self._last_alert.get(name, (None, 0.0))
        if service is None:
            return "", 0.0
        known = self.incident_of(service)
        if known:
            self._incidents[name] = known
        elif name not in self._incidents:
            self._incidents[name] = digest(f"{name} {unix_s:.0f}")
        return self._incidents[name], unix_s

    def _watch(self, table: Table, wall: WallAnchor) -> Iterator[Sample]:
        source = "bpf" if self._daemon.source.has_bpf else "proc"
        memory = self._memory()
        yield Sample("build_info", (__version__, source), 1)
        yield Sample("start_time_seconds", (), round(self._began_unix_s, 2))
        yield Sample("last_tick_timestamp_seconds", (), round(wall.unix(table.time_s), 2))
        yield Sample("tick_interval_seconds", (), self._daemon.settings.interval_s)
        yield Sample("tick_duration_seconds", (), time.monotonic() - table.time_s)
        yield Sample("cpu_seconds_total", (), time.process_time())
        if memory is not None:
            yield Sample("resident_memory_bytes", (), memory)
        yield Sample("series_dropped_total", (), self._series_dropped_total)
        for result, count in self._daemon.snapshots.outcomes.items():
            yield Sample("snapshots_total", (result,), count)
        for counter in told_counters():
            if counter in self._daemon.counters:
                yield Sample(counter_name(counter), (), self._daemon.counters[counter])

    def _memory(self) -> Optional[int]:
        try:
            memory = self._host.memory(os.getpid())
        except ProcessError:
            return None
        return memory.anon_bytes + memory.file_bytes + memory.shmem_bytes if memory else None

    def _coverage(self, sums: list[ServiceSums], table: Table) -> Iterator[Sample]:
        verdicts = Counter(
            standing.judgement.verdict
            for standing in self._daemon.verdicts.standings.values()
            if not standing.is_gone and self._is_wanted(standing.subject.id)
        )
        for verdict in Verdict:
            yield Sample("services", (verdict.words,), verdicts[verdict])
        watched = sum(of.process_count for of in sums)
        untracked = table.counters["processes_untracked_total"]
        reasons = {
            "not chosen" if self._daemon.settings.pids else "not named yet": (
                table.counters["process_count"] - watched
            ),
            "no room": untracked - self._untracked_total,
            **self._daemon.source.unseen(),
        }
        self._untracked_total = untracked
        yield Sample("processes_watched", (), watched)
        for reason, count in reasons.items():
            yield Sample("processes_unwatched", (reason,), max(0, count))

    def _counter(self, name: str) -> str:
        """The service under which to count: a counter, once told, is told for ever, so few are."""
        if name in self._counted or len(self._counted) < self._services_max:
            self._counted.add(name)
            return name
        return OTHER


def _now() -> WallAnchor:
    return WallAnchor(time.monotonic(), time.time())
