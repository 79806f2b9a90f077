"""The daemon's tellers on standard output: the live table, lines, JSON objects, a recording.

They choose what is told; how it reads is decided in ``tell``.
"""

from __future__ import annotations

import fnmatch
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Optional, TextIO

from mwtrace.aggregator import Incident, Table
from mwtrace.daemon import Daemon
from mwtrace.errors import ConfigError
from mwtrace.model import Service, SubjectId, Verdict, VerdictChange
from mwtrace.tell.lines import Totals, json_line, oom_json_line, oom_line, text_line
from mwtrace.tell.losses import short_words
from mwtrace.tell.terminal import Screen
from mwtrace.tell.units import WallAnchor
from mwtrace.tell.view import Row, View, urgency
from mwtrace.verdicts import Standing

Wanted = Callable[[SubjectId], bool]

_HISTORIES_MAX = 64  # rows that get a sparkline; no terminal is higher


def wanted(services: Sequence[str]) -> Wanted:
    """Return who is told of: services whose name matches one of these; all, if there are none."""
    patterns = [*services, *(f"{name}.service" for name in services)]

    def is_wanted(subject: SubjectId) -> bool:
        name = subject.service.name
        return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    return is_wanted


def anchor() -> WallAnchor:
    return WallAnchor(time.monotonic(), time.time())


class Lines:
    """One line per verdict change that somebody should know; all of them if verbose."""

    def __init__(self, file: TextIO, is_wanted: Wanted, is_verbose: bool, unicode: bool) -> None:
        self._file = file
        self._is_wanted = is_wanted
        self._is_verbose = is_verbose
        self._unicode = unicode

    def on_change(self, change: VerdictChange) -> None:
        worst = max(change.now.verdict, change.before or Verdict.LEARNING)
        if self._is_wanted(change.subject.id) and (self._is_verbose or worst >= Verdict.GROWING):
            print(text_line(change, anchor(), self._unicode), file=self._file, flush=True)

    def on_incident(self, incident: Incident, service: Optional[Service]) -> None:
        line = oom_line(
            incident.time_s,
            incident.process,
            service,
            incident.comm,
            incident.private_bytes,
            anchor(),
            self._unicode,
        )
        print(line, file=self._file, flush=True)

    def on_tick(self, table: Table) -> None:
        pass


class JsonLines:
    """One JSON object per verdict change and OOM kill; see docs/json.md."""

    def __init__(self, file: TextIO, is_wanted: Wanted) -> None:
        self._file = file
        self._is_wanted = is_wanted

    def on_change(self, change: VerdictChange) -> None:
        if self._is_wanted(change.subject.id):
            print(json_line(change, anchor()), file=self._file, flush=True)

    def on_incident(self, incident: Incident, service: Optional[Service]) -> None:
        line = oom_json_line(
            incident.time_s,
            incident.process,
            service,
            incident.comm,
            incident.private_bytes,
            anchor(),
        )
        print(line, file=self._file, flush=True)

    def on_tick(self, table: Table) -> None:
        pass


class Live:
    """The table on the operator's terminal, drawn at each tick."""

    def __init__(self, screen: Screen, daemon: Daemon, is_wanted: Wanted) -> None:
        self._screen = screen
        self._daemon = daemon
        self._is_wanted = is_wanted

    def on_change(self, change: VerdictChange) -> None:
        pass

    def on_incident(self, incident: Incident, service: Optional[Service]) -> None:
        pass

    def on_tick(self, table: Table) -> None:
        self._screen.draw(view(self._daemon, self._is_wanted))


class Recorder:
    """Writes what ``mwtrace replay`` reads: one process's private memory at each tick."""

    def __init__(self, path: str) -> None:
        try:
            self._file = open(path, "x", encoding="ascii")
        except OSError as error:
            raise ConfigError(
                f"cannot record to {path}: {error.strerror}", "Name a file that is not there yet."
            ) from error
        print("time_s,private_bytes", file=self._file, flush=True)

    def on_change(self, change: VerdictChange) -> None:
        pass

    def on_incident(self, incident: Incident, service: Optional[Service]) -> None:
        pass

    def on_tick(self, table: Table) -> None:
        for row in table.rows:
            if row.process is None and row.process_count == 1:
                print(f"{table.time_s:.3f},{row.private_bytes}", file=self._file, flush=True)


def standings(daemon: Daemon, is_wanted: Wanted) -> dict[int, Standing]:
    """Return the services that the operator wants to see, by id."""
    return {
        service_id: standing
        for service_id, standing in daemon.verdicts.standings.items()
        if is_wanted(standing.subject.id) and not standing.is_gone
    }


def view(daemon: Daemon, is_wanted: Wanted) -> View:
    """Return what the live table shows now."""
    wall = anchor()
    shown = standings(daemon, is_wanted)
    rows = {service_id: _row(standing, wall) for service_id, standing in shown.items()}
    order = sorted(rows, key=lambda service_id: urgency(rows[service_id]))
    for service_id in order[:_HISTORIES_MAX]:
        history = daemon.aggregator.history(service_id, 0)
        rows[service_id] = replace(rows[service_id], history=tuple(size for _, size in history))
    return View(
        time_unix_s=wall.unix_s,
        since_unix_s=wall.unix(daemon.began_s),
        tick_s=daemon.settings.interval_s,
        source=daemon.source.words,
        process_count=daemon.counters.get("process_count", 0),
        service_count=len(shown),
        verdict_counts=Counter(standing.judgement.verdict for standing in shown.values()),
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
    )
