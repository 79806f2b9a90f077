"""The daemon's teller of incidents: keeps the book, and hands what is new to all sinks.

It is the seam between the loop and the threads that tell: nothing here waits for anybody.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

from mwtrace.aggregator import OomKill, Table
from mwtrace.console import Wanted, anchor
from mwtrace.daemon import Daemon
from mwtrace.host.cgroup_memory import CgroupMemory
from mwtrace.host.procfs import Host
from mwtrace.incidents import records
from mwtrace.incidents.book import IncidentLimits, Incidents
from mwtrace.incidents.listing import directory
from mwtrace.incidents.post_mortem import Memberships, perform
from mwtrace.model import (
    Happening,
    IncidentNews,
    NewFinding,
    Service,
    ServiceKind,
    Snapshot,
    SubjectId,
    VerdictChange,
)
from mwtrace.tell.lines import oom_line
from mwtrace.tell.sender import Sender
from mwtrace.tell.sinks import Sink

NAMELESS = Service("(unknown)", ServiceKind.UNKNOWN)  # a victim that was never named


@dataclass(frozen=True)
class AlertSettings:
    """Who is told of incidents, as the operator asked for it."""

    alertmanagers: tuple[str, ...] = ()
    alertmanager_auth_file: Optional[str] = None
    alertmanager_resend_s: float = 60.0
    runbook_base: str = ""
    webhooks: tuple[str, ...] = ()
    slack_webhooks: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    journal: bool = False
    incidents_dir: Optional[Path] = None
    limits: IncidentLimits = field(default_factory=IncidentLimits)


def open_sinks(settings: AlertSettings, host: str) -> list[Sink]:
    """Make what was asked for; nothing is imported that was not. Raises ConfigError."""
    sinks: list[Sink] = []
    if settings.alertmanagers or settings.webhooks or settings.slack_webhooks:
        from mwtrace.tell.posting import Credentials, Peer, parse_address, read_credentials

        if settings.runbook_base:
            parse_address(settings.runbook_base, "--runbook-base")
        if settings.alertmanagers:
            from mwtrace.tell.alertmanager import API_PATH, Alertmanager

            credentials = Credentials()
            if settings.alertmanager_auth_file is not None:
                credentials = read_credentials(settings.alertmanager_auth_file)
            for url in settings.alertmanagers:
                peer = Peer(parse_address(url, "--alertmanager", API_PATH), credentials)
                sinks.append(
                    Alertmanager(peer, host, settings.alertmanager_resend_s, settings.runbook_base)
                )
        from mwtrace.tell.webhook import SlackWebhook, Webhook

        for url in settings.webhooks:
            sinks.append(Webhook(Peer(parse_address(url, "--webhook")), host))
        for url in settings.slack_webhooks:
            sinks.append(SlackWebhook(Peer(parse_address(url, "--slack-webhook")), host))
    if settings.commands:
        from mwtrace.tell.exec import ExecHook

        sinks += [ExecHook(command, host) for command in settings.commands]
    if settings.journal:
        from mwtrace.tell.journal import Journal

        sinks.append(Journal(host))
    return sinks


class Alerts:
    """Opens, updates and resolves incidents at each tick; ``close()`` ends all sinks.

    Raises ConfigError or HostError if a sink cannot be what was asked for.
    """

    def __init__(
        self,
        daemon: Daemon,
        settings: AlertSettings,
        is_wanted: Wanted = lambda subject: True,
        find_snapshot: Callable[[Service], str] = lambda service: "",
    ) -> None:
        self._daemon = daemon
        self._is_wanted = is_wanted
        self._find_snapshot = find_snapshot
        self._host = Host()
        self._memberships = Memberships(CgroupMemory(self._host))
        self.incidents = Incidents(settings.limits)
        self._undo = ExitStack()
        self._undo.callback(self._host.close)
        self.senders: list[Sender] = []
        try:
            place = directory(settings.incidents_dir, os.environ)
            if place is not None:
                self._keep_records(place)
            for sink in open_sinks(settings, socket.gethostname()):
                self._add(sink)
        except BaseException:
            self.close()
            raise
        for incident in self.incidents.open():
            self._tell(IncidentNews(Happening.CONTINUES, incident))

    def close(self) -> None:
        for sender in self.senders:
            sender.close()
        self._undo.close()

    @property
    def counters(self) -> Mapping[str, int]:
        """What happened to incidents and to what was told of them, all sinks together."""
        results: dict[str, int] = dict(self.incidents.counters)
        for sender in self.senders:
            for result, count in sender.results().items():
                name = f"notifications_{result}_total"
                results[name] = results.get(name, 0) + count
        return results

    def dump(self) -> dict[str, Any]:
        """Return all incidents as plain JSON values, for ``load()``."""
        return self.incidents.dump()

    def load(self, dumped: Any) -> None:
        """Go on from what another run dumped; who is told of what is open is told again."""
        known = {incident.id for incident in self.incidents.open()}
        self.incidents.load(dumped, anchor())
        for incident in self.incidents.open():
            if incident.id not in known:
                self._tell(IncidentNews(Happening.CONTINUES, incident))

    def on_change(self, change: VerdictChange) -> None:
        pass  # the book compares where services stand, and so misses no change

    def on_finding(self, news: NewFinding) -> None:
        pass

    def on_snapshot(self, snapshot: Snapshot) -> None:
        if snapshot.is_taken:
            for news in self.incidents.snapshot_taken(snapshot.service, snapshot.path, anchor()):
                self._tell(news)

    def on_oom_kill(self, oom_kill: OomKill, service: Optional[Service]) -> None:
        service = service or NAMELESS
        if not self._is_wanted(SubjectId(service, None)):
            return
        now = anchor()
        standing = self._daemon.verdicts.standings.get(oom_kill.service_id)
        post_mortem = perform(
            oom_kill,
            standing,
            self._daemon.aggregator,
            self._memberships,
            now,
            self._find_snapshot(service),
        )
        summary = oom_line(
            oom_kill.time_s,
            oom_kill.process,
            None if service is NAMELESS else service,
            oom_kill.comm,
            oom_kill.private_bytes,
            now,
        )
        for news in self.incidents.oom_kill(service, summary, post_mortem, now):
            self._tell(news)

    def on_tick(self, table: Table) -> None:
        self._memberships.follow(self._daemon.verdicts.standings)
        wanted = [
            standing
            for standing in self._daemon.verdicts.standings.values()
            if self._is_wanted(standing.subject.id)
        ]
        for news in self.incidents.update(wanted, anchor()):
            self._tell(news)

    def _keep_records(self, place: Path) -> None:
        keeper = records.Records(place)
        self._undo.callback(keeper.close)
        self.senders.append(Sender(keeper))
        if not self._daemon.settings.pids:
            # A watch of a few processes knows nothing of the services that others told of.
            kept = [one for one in records.read(place) if one is not None]
            self.incidents.restore(kept, anchor())

    def _add(self, sink: Sink) -> None:
        self.senders.append(Sender(sink))

    def _tell(self, news: IncidentNews) -> None:
        for sender in self.senders:
            sender.put(news)
