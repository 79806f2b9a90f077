"""The daemon's tellers on standard output: the live table, lines, JSON objects, a recording.

They choose what is told; how it reads is decided in ``tell``.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Optional, TextIO

from mwtrace.aggregator import Incident, Table
from mwtrace.daemon import Daemon
from mwtrace.errors import ConfigError, ProcessError
from mwtrace.model import Service, SubjectId, Verdict, VerdictChange
from mwtrace.tell.lines import Totals, json_line, oom_json_line, oom_line, text_line
from mwtrace.tell.losses import short_words
from mwtrace.tell.terminal import Screen
from mwtrace.tell.units import WallAnchor
from mwtrace.tell.view import Row, View, urgency
from mwtrace.verdicts import Standing

Wanted = Callable[[SubjectId], bool]

_HISTORIES_MAX = 64  # rows that get a sparkline; no terminal is higher


def anchor() -> WallAnchor:
    return WallAnchor(time.monotonic(), time.time())


class Lines:
    """One line per verdict change that somebody should know; all of them if verbose."""

    def __init__(self, file: TextIO, wanted: Wanted, is_verbose: bool, unicode: bool) -> None:
        self._file = file
        self._wanted = wanted
        self._is_verbose = is_verbose
        self._unicode = unicode

    def on_change(self, change: VerdictChange) -> None:
        worst = max(change.now.verdict, change.before or Verdict.LEARNING)
        if self._wanted(change.subject.id) and (self._is_verbose or worst >= Verdict.GROWING):
            print(text_line(change, anchor(), self._unicode), file=self._file, flush=True)

    def on_incident(self, incident: Incident, service: Optional[Service]) -> None:
        line = oom_line(incident.time_s, incident.process, service, incident.comm,
                        incident.private_bytes, anchor(), self._unicode)
        print(line, file=self._file, flush=True)

    def on_tick(self, table: Table) -> None:
        pass


class JsonLines:
    """One JSON object per verdict change and OOM kill; see docs/json.md."""

    def __init__(self, file: TextIO, wanted: Wanted) -> None:
        self._file = file
        self._wanted = wanted

    def on_change(self, change: VerdictChange) -> None:
        if self._wanted(change.subject.id):
            print(json_line(change, anchor()), file=self._file, flush=True)

    def on_incident(self, incident: Incident, service: Optional[Service]) -> None:
        line = oom_json_line(incident.time_s, incident.process, service, incident.comm,
                             incident.private_bytes, anchor())
        print(line, file=self._file, flush=True)

    def on_tick(self, table: Table) -> None:
        pass


class Live:
    """The table on the operator's terminal, drawn at each tick."""

    def __init__(self, screen: Screen, daemon: Daemon, wanted: Wanted) -> None:
        self._screen = screen
        self._daemon = daemon
        self._wanted = wanted

    def on_change(self, change: VerdictChange) -> None:
        pass

    def on_incident(self, incident: Incident, service: Optional[Service]) -> None:
        pass

    def on_tick(self, table: Table) -> None:
        self._screen.draw(view(self._daemon, self._wanted))


class Recorder:
    """Writes what ``mwtrace replay`` reads: one process's private memory at each tick."""

    def __init__(self, path: str) -> None:
        try:
            self._file = open(path, "x", encoding="ascii")  # noqa: SIM115 - lives as long as we
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


def standings(daemon: Daemon, wanted: Wanted) -> list[tuple[int, Standing]]:
    """Return the services that the operator wants to see, by id."""
    return [
        (service_id, standing)
        for service_id, standing in daemon.verdicts.standings.items()
        if wanted(standing.subject.id) and standing.subject.process_count
    ]


def view(daemon: Daemon, wanted: Wanted) -> View:
    """Return what the live table shows now."""
    wall = anchor()
    shown = standings(daemon, wanted)
    rows = sorted((_row(standing, wall) for _, standing in shown), key=urgency)
    ids = {id(standing.subject): service_id for service_id, standing in shown}
    return View(
        time_unix_s=wall.unix_s,
        since_unix_s=wall.unix(daemon.began_s),
        tick_s=daemon.settings.interval_s,
        source=daemon.source.words,
        process_count=daemon.counters.get("process_count", 0),
        service_count=len(shown),
        verdict_counts=Counter(standing.judgement.verdict for _, standing in shown),
        rows=tuple(rows),
        losses=short_words(daemon.counters),
        blind=daemon.source.blind(),
    )


def totals(daemon: Daemon, wanted: Wanted) -> Totals:
    """Return what the summary at exit says."""
    shown = [standing for _, standing in standings(daemon, wanted)]
    shown.sort(key=lambda standing: -(standing.judgement.slope_bytes_per_second or 0.0))
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
