"""Incidents as alerts of one Alertmanager (API v2).

An Alertmanager holds alerts in memory and forgets those that are not sent again, so all that is
open is posted each ``renew_s``, and each alert carries an end a few renewals ahead: the alerts of a
daemon that dies die with it. Labels are an alert's identity; nothing that changes with a restart of
the service is among them, and nothing that changes while an incident is open.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, Optional

from mwtrace.model import Incident, IncidentNews
from mwtrace.tell.cells import printable
from mwtrace.tell.incident import RUNBOOKS, evidence, text
from mwtrace.tell.posting import Peer
from mwtrace.tell.sinks import Sink
from mwtrace.tell.units import iso_utc

RENEW_S = 60.0
API_PATH = "/api/v2/alerts"
_RENEWALS_UNTIL_END = 4  # as Prometheus does
_ALERTS_PER_POST = 64
_LABEL_CHARACTERS_MAX = 256
_SEVERITY = "warning"


class Alertmanager(Sink):
    """One peer of a cluster; each is told by itself, never through a load balancer."""

    def __init__(
        self, peer: Peer, host: str, renew_s: float = RENEW_S, runbook_base: str = ""
    ) -> None:
        self.name = f"alertmanager {peer.address.words}"
        self.renew_s: Optional[float] = renew_s
        self._peer = peer
        self._host = host
        self._runbook_base = runbook_base

    def deliver(self, news: Sequence[IncidentNews]) -> None:
        now_unix_s = time.time()
        ends_unix_s = now_unix_s + _RENEWALS_UNTIL_END * (self.renew_s or RENEW_S)
        alerts = [
            alert(one.incident, self._host, self._runbook_base, now_unix_s, ends_unix_s)
            for one in news
        ]
        for first in range(0, len(alerts), _ALERTS_PER_POST):
            body = json.dumps(alerts[first : first + _ALERTS_PER_POST], allow_nan=False)
            self._peer.post(body.encode("ascii"))


def alert(
    incident: Incident, host: str, runbook_base: str, now_unix_s: float, ends_unix_s: float
) -> dict[str, Any]:
    """One alert as the API takes it; ``ends_unix_s`` is used while the incident is open."""
    if incident.resolved_unix_s is not None:
        # The wall clock may have been set back since.
        ends_unix_s = min(incident.resolved_unix_s, now_unix_s)
    starts_unix_s = incident.reopened_unix_s or incident.opened_unix_s
    name = RUNBOOKS[incident.type]
    annotations = {
        "summary": text(incident.summary),
        **evidence(incident),
        "incident": incident.id,
        # As the rules for Prometheus say it: without a page of the operator's, where ours is.
        "runbook": f"mwtrace assets show runbooks/{name}.md",
    }
    if runbook_base:
        annotations["runbook_url"] = f"{runbook_base.rstrip('/')}/{name}.md"
    if incident.resolution:
        annotations["resolution"] = text(incident.resolution)
    return {
        "labels": labels(incident, host),
        "annotations": annotations,
        # An alert that ends before it begins is refused.
        "startsAt": _time(min(starts_unix_s, ends_unix_s)),
        "endsAt": _time(ends_unix_s),
    }


def labels(incident: Incident, host: str) -> dict[str, str]:
    """What makes two alerts the same one."""
    return {
        "alertname": RUNBOOKS[incident.type],
        "service": _label(incident.service.name),
        "service_kind": incident.service.kind.value,
        "host": _label(host),
        "severity": _SEVERITY,
    }


def _label(value: str) -> str:
    # An empty value would be no label at all.
    return text(printable(value))[:_LABEL_CHARACTERS_MAX] or "unknown"


def _time(unix_s: float) -> str:
    whole = iso_utc(unix_s) or "1970-01-01T00:00:00Z"
    # With milliseconds: an alert that was resolved and opened in one second is two in a row.
    return f"{whole[:-1]}.{int(unix_s % 1 * 1000):03d}Z"
