"""The daemon's tellers on standard output: the live table, lines, JSON objects, a recording.

They choose what is told; how it reads is decided in ``tell``.
"""

from __future__ import annotations

import contextlib
import fnmatch
import io
import select
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Optional, TextIO

from mwtrace.aggregator import OomKill, Table
from mwtrace.daemon import Daemon
from mwtrace.errors import ConfigError, HostError, ProcessGone
from mwtrace.model import (
    NewFinding,
    Service,
    ServiceKind,
    Snapshot,
    SubjectId,
    Verdict,
    VerdictChange,
)
from mwtrace.tell.cells import printable
from mwtrace.tell.lines import (
    Totals,
    finding_json_line,
    finding_line,
    json_line,
    oom_json_line,
    oom_line,
    text_line,
)
from mwtrace.tell.losses import short_words
from mwtrace.tell.snapshots import snapshot_json, snapshot_line
from mwtrace.tell.terminal import Screen
from mwtrace.tell.units import WallAnchor
from mwtrace.tell.view import Row, View, urgency
from mwtrace.verdicts import Standing

Wanted = Callable[[SubjectId], bool]

_HISTORIES_MAX = 64  # rows that get a sparkline; no terminal is higher
_NAMES_SUGGESTED_MAX = 5
# A process is named when it has been seen twice, and judged at the tick after that.
_TICKS_UNTIL_NAMED = 3


def wanted(services: Sequence[str]) -> Wanted:
    """Return who is told of: services whose name matches one of these; all, if there are none."""
    patterns = [*services, *(f"{name}.service" for name in services)]

    def is_wanted(subject: SubjectId) -> bool:
        name = subject.service.name
        # Literally too: a name may hold what means something in a pattern.
        return not patterns or any(
            name == pattern or fnmatch.fnmatchcase(name, pattern) for pattern in patterns
        )

    return is_wanted


def unmatched(daemon: Daemon, services: Sequence[str]) -> Optional[str]:
    """Say what of that which was asked for is not seen here; None if there is no such thing.

    None too while the watch is too young to know.
    """
    if daemon.counters.get("ticks_total", 0) < _TICKS_UNTIL_NAMED:
        return None
    there = [standing.subject for standing in daemon.verdicts.standings.values()]
    seen = {subject.id.process.pid for subject in there if subject.id.process}
    unseen = sorted(set(daemon.settings.pids) - seen)
    if unseen and not daemon.has_ended:
        pids = ", ".join(map(str, unseen))
        return f"no memory is seen of pid {pids} through {daemon.source.words}"
    is_wanted = wanted(services)
    if not services or any(is_wanted(subject.id) for subject in there):
        return None
    there.sort(key=lambda subject: -subject.private_bytes)
    names = [printable(subject.id.service.name) for subject in there[:_NAMES_SUGGESTED_MAX]]
    if len(there) > len(names):
        names.append(f"{len(there) - len(names):,} more")
    asked = ", ".join(f"'{printable(name)}'" for name in services)
    return f"no service here matches {asked}; there are: {', '.join(names) or 'none'}"


def anchor() -> WallAnchor:
    return WallAnchor(time.monotonic(), time.time())


class Lines:
    """One line per verdict change that somebody should know; all of them if verbose."""

    def __init__(self, file: TextIO, is_wanted: Wanted, is_verbose: bool, unicode: bool) -> None:
        self._file = file
        self._is_wanted = is_wanted
        self.is_verbose = is_verbose
        self._unicode = unicode

    def on_change(self, change: VerdictChange) -> None:
        worst = max(change.now.verdict, change.before or Verdict.LEARNING)
        if self._is_wanted(change.subject.id) and (self.is_verbose or worst >= Verdict.GROWING):
            print(text_line(change, anchor(), self._unicode), file=self._file, flush=True)

    def on_finding(self, news: NewFinding) -> None:
        if self._is_wanted(news.subject.id):
            print(finding_line(news, anchor(), self._unicode), file=self._file, flush=True)

    def on_snapshot(self, snapshot: Snapshot) -> None:
        if self._is_wanted(_subject_of(snapshot)):
            print(snapshot_line(snapshot, self._unicode), file=self._file, flush=True)

    def on_oom_kill(self, oom_kill: OomKill, service: Optional[Service]) -> None:
        line = oom_line(
            oom_kill.time_s,
            oom_kill.process,
            service,
            oom_kill.comm,
            oom_kill.private_bytes,
            anchor(),
            self._unicode,
        )
        print(line, file=self._file, flush=True)

    def on_tick(self, table: Table) -> None:
        _check_reader(self._file)


class JsonLines:
    """One JSON object per verdict change, finding and OOM kill; see docs/json.md."""

    def __init__(self, file: TextIO, is_wanted: Wanted) -> None:
        self._file = file
        self._is_wanted = is_wanted

    def on_change(self, change: VerdictChange) -> None:
        if self._is_wanted(change.subject.id):
            print(json_line(change, anchor()), file=self._file, flush=True)

    def on_finding(self, news: NewFinding) -> None:
        if self._is_wanted(news.subject.id):
            print(finding_json_line(news, anchor()), file=self._file, flush=True)

    def on_snapshot(self, snapshot: Snapshot) -> None:
        if self._is_wanted(_subject_of(snapshot)):
            print(snapshot_json(snapshot, anchor()), file=self._file, flush=True)

    def on_oom_kill(self, oom_kill: OomKill, service: Optional[Service]) -> None:
        line = oom_json_line(
            oom_kill.time_s,
            oom_kill.process,
            service,
            oom_kill.comm,
            oom_kill.private_bytes,
            anchor(),
        )
        print(line, file=self._file, flush=True)

    def on_tick(self, table: Table) -> None:
        _check_reader(self._file)


class Unmatched:
    """Says once, beside the lines, that nothing is called what the operator asked for."""

    def __init__(self, file: TextIO, daemon: Daemon, services: Sequence[str]) -> None:
        self._file = file
        self._daemon = daemon
        self._services = services
        self._is_done = False

    def on_change(self, change: VerdictChange) -> None:
        pass

    def on_finding(self, news: NewFinding) -> None:
        pass

    def on_snapshot(self, snapshot: Snapshot) -> None:
        pass

    def on_oom_kill(self, oom_kill: OomKill, service: Optional[Service]) -> None:
        pass

    def on_tick(self, table: Table) -> None:
        if self._is_done or self._daemon.counters["ticks_total"] < _TICKS_UNTIL_NAMED:
            return
        self._is_done = True
        words = unmatched(self._daemon, self._services)
        if words:
            print(f"mwtrace: {words}; waiting for one", file=self._file, flush=True)


class Live:
    """The table on the operator's terminal, drawn at each tick."""

    def __init__(self, screen: Screen, daemon: Daemon, services: Sequence[str]) -> None:
        self._screen = screen
        self._daemon = daemon
        self._services = services
        self._is_wanted = wanted(services)

    def on_change(self, change: VerdictChange) -> None:
        pass

    def on_finding(self, news: NewFinding) -> None:
        pass

    def on_snapshot(self, snapshot: Snapshot) -> None:
        pass

    def on_oom_kill(self, oom_kill: OomKill, service: Optional[Service]) -> None:
        pass

    def on_tick(self, table: Table) -> None:
        shown = view(self._daemon, self._is_wanted)
        notice = unmatched(self._daemon, self._services) or ""
        self._screen.draw(replace(shown, notice=notice))


class Recorder:
    """Writes what ``mwtrace replay`` reads: one process's private memory at each tick."""

    def __init__(self, path: str) -> None:
        try:
            self._file = open(path, "x", encoding="ascii")
        except OSError as error:
            raise ConfigError(
                f"cannot record to {path}: {error.strerror}", "Name a file that is not there yet."
            ) from error
        self._path = path
        self._write("time_s,private_bytes")

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what could not be written was told then
            self._file.close()

    def on_change(self, change: VerdictChange) -> None:
        pass

    def on_finding(self, news: NewFinding) -> None:
        pass

    def on_snapshot(self, snapshot: Snapshot) -> None:
        pass

    def on_oom_kill(self, oom_kill: OomKill, service: Optional[Service]) -> None:
        pass

    def on_tick(self, table: Table) -> None:
        for row in table.rows:
            if row.process is None and row.process_count == 1:
                self._write(f"{table.time_s:.3f},{row.private_bytes}")

    def _write(self, line: str) -> None:
        try:
            print(line, file=self._file, flush=True)
        except OSError as error:
            raise HostError(
                f"cannot record to {self._path}: {error.strerror}", "Make room on that disk."
            ) from error


def standings(daemon: Daemon, is_wanted: Wanted) -> dict[int, Standing]:
    """Return the services that the operator wants to see, by id.

    Those without processes are not among them, unless all are and that is why the watch ended.
    """
    return {
        service_id: standing
        for service_id, standing in daemon.verdicts.standings.items()
        if is_wanted(standing.subject.id) and (daemon.has_ended or not standing.is_gone)
    }


def view(daemon: Daemon, is_wanted: Wanted) -> View:
    """Return what the live table shows now."""
    wall = anchor()
    shown = standings(daemon, is_wanted)
    rows = {service_id: _row(standing, wall) for service_id, standing in shown.items()}
    order = sorted(rows, key=lambda service_id: urgency(rows[service_id]))
    for service_id in order[:_HISTORIES_MAX]:
        with contextlib.suppress(ProcessGone):  # its end has not been told yet
            history = daemon.history(service_id)
            rows[service_id] = replace(rows[service_id], history=tuple(size for _, size in history))
    return View(
        time_unix_s=wall.unix_s,
        since_unix_s=wall.unix(daemon.began_s),
        tick_s=daemon.settings.interval_s,
        source=daemon.source.words,
        process_count=daemon.counters.get("process_count", 0),
        service_count=len(shown),
        verdict_counts=Counter(standing.judgement.verdict for standing in shown.values()),
        learning_s=daemon.learning_s,
        rows=tuple(rows[service_id] for service_id in order),
        losses=short_words(daemon.counters),
        blind=daemon.source.blind(),
    )


def _row(standing: Standing, wall: WallAnchor) -> Row:
    subject, judgement = standing.subject, standing.judgement
    process = subject.id.process
    return Row(
        name=subject.id.service.name,
        verdict=judgement.verdict,
        private_bytes=subject.private_bytes,
        process_count=subject.process_count,
        pid=process.pid if process else None,
        slope_bytes_per_second=judgement.slope_bytes_per_second,
        since_unix_s=wall.unix(judgement.since_s),
        forecast_s=judgement.forecast_s,
        limit_bytes=judgement.limit.limit_bytes if judgement.limit else None,
        kind=standing.finding.kind if standing.finding else "",
        heap=standing.finding.heap if standing.finding else None,
    )


def totals(daemon: Daemon, is_wanted: Wanted) -> Totals:
    """Return what the summary at exit says."""
    shown = sorted(
        standings(daemon, is_wanted).values(),
        key=lambda standing: -(standing.judgement.slope_bytes_per_second or 0.0),
    )
    return Totals(
        watched_s=time.monotonic() - daemon.began_s,
        source=daemon.source.words,
        counters=daemon.counters,
        verdict_counts=Counter(standing.judgement.verdict for standing in shown),
        changes_total=daemon.changes_total,
        leaking=tuple(
            standing.subject.id.service.name
            for standing in shown
            if standing.judgement.verdict is Verdict.LEAKING
        ),
        blind=daemon.source.blind(),
        has_ended=daemon.has_ended,
        findings=tuple(
            (standing.subject.id.service.name, standing.finding)
            for standing in sorted(shown, key=lambda standing: -standing.judgement.verdict)
            if standing.finding
        ),
    )


def _subject_of(snapshot: Snapshot) -> SubjectId:
    return SubjectId(Service(snapshot.service, ServiceKind.UNKNOWN), snapshot.process)


def _check_reader(file: TextIO) -> None:
    """Raise BrokenPipeError if nobody reads any more: alarms are rare, and a watch that only they
    can end would run on for nobody.
    """
    poll = select.poll()
    try:
        poll.register(file.fileno(), 0)
    except io.UnsupportedOperation:  # no real file
        return
    if any(events & select.POLLERR for _, events in poll.poll(0)):
        raise BrokenPipeError("nobody reads standard output")
