"""A watch under a service manager: it is told that we live, and tells us to read our settings anew.

A teller, and what the loop calls between two ticks. Signals only set a flag here: a reload opens
files and prints, which no signal handler may.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, Optional

from mwtrace.aggregator import OomKill, Table
from mwtrace.daemon import Daemon, Settings
from mwtrace.errors import ConfigError
from mwtrace.host.notify import Notify
from mwtrace.model import NewFinding, Service, Snapshot, Verdict, VerdictChange

log = logging.getLogger(__name__)


class Reloaded(NamedTuple):
    """What the configuration says now."""

    settings: Settings
    services: Sequence[str]
    is_verbose: bool
    waiting: Sequence[str]  # options that changed, but are heard at a start only


class Supervised:
    """Says READY after the first tick, feeds the watchdog, and reloads when asked to."""

    def __init__(
        self,
        daemon: Daemon,
        notify: Notify,
        reload: Optional[Callable[[], Reloaded]],
        adopt: Callable[[Reloaded], None],
    ) -> None:
        self._daemon = daemon
        self._notify = notify
        self._reload = reload
        self._adopt = adopt
        self._is_asked = False
        self._is_ready = False
        self.counters = {"reloads_total": 0, "reloads_refused_total": 0}
        daemon.counted.append(lambda: self.counters)

    def ask(self) -> None:
        """Reload soon. Safe in a signal handler."""
        self._is_asked = True

    def pulse(self) -> None:
        """Between two ticks, at least once a second: whoever hears nothing thinks we hang."""
        self._notify.alive()
        if self._is_asked:
            self._is_asked = False
            self._do_reload()

    def on_change(self, change: VerdictChange) -> None:
        pass

    def on_finding(self, news: NewFinding) -> None:
        pass

    def on_snapshot(self, snapshot: Snapshot) -> None:
        pass

    def on_oom_kill(self, oom_kill: OomKill, service: Optional[Service]) -> None:
        pass

    def on_tick(self, table: Table) -> None:
        if not self._is_ready:
            self._is_ready = True
            self._notify.ready()
        self._notify.status(self._words())

    def _words(self) -> str:
        standings = [s for s in self._daemon.verdicts.standings.values() if not s.is_gone]
        counts = Counter(standing.judgement.verdict for standing in standings)
        alarms = [
            f"{counts[verdict]} {verdict.words}"
            for verdict in (Verdict.LEAKING, Verdict.GROWING)
            if counts[verdict]
        ]
        processes = self._daemon.counters.get("process_count", 0)
        words = [f"{processes} processes", f"{len(standings)} services", *alarms]
        restraint = f"; {self._daemon.restraint}" if self._daemon.restraint else ""
        return "watching " + ", ".join(words) + restraint

    def _do_reload(self) -> None:
        if self._reload is None:
            return
        self._notify.reloading()
        try:
            reloaded = self._reload()
        except ConfigError as error:
            self.counters["reloads_refused_total"] += 1
            log.error("%s; going on as before\n  %s", error, error.remedy)
        else:
            self._adopt(reloaded)
            self.counters["reloads_total"] += 1
            if reloaded.waiting:
                log.warning("%s: heard at the next start only", ", ".join(reloaded.waiting))
        self._notify.ready()
