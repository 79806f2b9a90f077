"""Which incidents are open: from where services stand at each tick to what is news about them.

One service has at most one open incident of each type, whatever its processes are and however
often they are restarted:

    ──LEAKING──▶ open ──steady for calm_s, no leak after all, or not running──▶ resolved
                  ▲                                                                 │
                  └────────────── LEAKING again within reopen_s ───────────────────┘

A restart alone resolves nothing: until the new process is called steady nobody knows that it is
healthy. This file reads no clock; durations are measured on CLOCK_MONOTONIC, and what is handed
on is in wall time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Optional

from mwtrace.incidents import portable
from mwtrace.model import (
    Happening,
    Incident,
    IncidentNews,
    IncidentType,
    PostMortem,
    Service,
    Verdict,
    VerdictChange,
)
from mwtrace.tell.cells import printable
from mwtrace.tell.lines import text_line
from mwtrace.tell.units import WallAnchor, iso_utc
from mwtrace.verdicts import Standing

_DUMP_VERSION = 1


@dataclass(frozen=True)
class IncidentLimits:
    """How long things must last, and how much is remembered."""

    resolve_after_s: Optional[float] = None  # steady for this; None: as long as it took to notice
    calm_min_s: float = 60.0  # bounds of "as long as it took to notice"
    calm_max_s: float = 3600.0
    gone_s: float = 600.0  # a service that does not run for this long leaks no more
    reopen_s: float = 3600.0  # what comes back within this is the same incident
    oom_calm_s: float = 900.0  # without a further kill
    refresh_s: float = 10.0  # numbers of an open incident are renewed this often
    open_max: int = 1024
    resolved_max: int = 256
    post_mortems_max: int = 5


@dataclass
class _Entry:
    """An open incident and the times, on CLOCK_MONOTONIC, that decide how it goes on."""

    incident: Incident
    seen_s: float  # its service ran; of OOM kills: the last kill
    refreshed_s: float
    # None: another run saw it leak, and this one has not judged its service yet.
    is_leaking: Optional[bool] = None
    calm_since_s: Optional[float] = None


class Incidents:
    """The open incidents, and those resolved lately."""

    def __init__(self, limits: IncidentLimits) -> None:
        self._limits = limits
        self._open: dict[tuple[IncidentType, Service], _Entry] = {}
        self._resolved: dict[tuple[IncidentType, Service], Incident] = {}  # oldest first
        self.counters = {
            "incidents_opened_total": 0,
            "incidents_resolved_total": 0,
            "incidents_untracked_total": 0,  # beyond open_max: nobody was told
            "incidents_refused_total": 0,  # by load(): not what dump() writes
        }

    def open(self) -> list[Incident]:
        return [entry.incident for entry in self._open.values()]

    def of(self, service: Service) -> Optional[Incident]:
        """Return a service's open leak, or None."""
        entry = self._open.get((IncidentType.LEAK, service))
        return entry.incident if entry else None

    def update(self, standings: Iterable[Standing], now: WallAnchor) -> list[IncidentNews]:
        """Compare where all services stand at this tick with what is open; return what is new."""
        groups: dict[Service, list[Standing]] = {}
        for standing in standings:
            service = standing.subject.id.service
            is_leaking = standing.judgement.verdict is Verdict.LEAKING
            # Under --pid several subjects have one service.
            if not standing.is_gone and (is_leaking or (IncidentType.LEAK, service) in self._open):
                groups.setdefault(service, []).append(standing)
        news: list[IncidentNews] = []
        for (type_, service), entry in list(self._open.items()):
            if type_ is IncidentType.OOM_KILL:
                news += self._follow_kills(entry, now)
            else:
                news += self._follow(entry, groups.pop(service, []), now)
        for service, group in groups.items():
            news += self._begin(service, max(group, key=_badness), now)
        return news

    def oom_kill(
        self, service: Service, summary: str, post_mortem: PostMortem, now: WallAnchor
    ) -> list[IncidentNews]:
        """Note that the kernel ended a process of this service."""
        key = (IncidentType.OOM_KILL, service)
        entry = self._open.get(key)
        happening = Happening.UPDATED
        if entry is None:
            opened = self._open_entry(key, summary, now)
            if opened is None:
                return []
            entry, happening = opened, Happening.OPENED
        before = entry.incident
        post_mortems = (*before.post_mortems, post_mortem)[-self._limits.post_mortems_max :]
        entry.seen_s = now.monotonic_s
        entry.incident = replace(
            before,
            updated_unix_s=now.unix_s,
            summary=summary,
            recurrences=before.recurrences + (happening is Happening.UPDATED),
            private_bytes=post_mortem.private_bytes,
            process_count=len(post_mortem.processes),
            snapshot_path=post_mortem.snapshot_path,
            post_mortems=post_mortems,
        )
        return [IncidentNews(happening, entry.incident)]

    def snapshot_taken(self, name: str, path: str, now: WallAnchor) -> list[IncidentNews]:
        """Note where a snapshot of a service of that name is; no news if nothing of it is open."""
        news = []
        for (type_, service), entry in self._open.items():
            if type_ is IncidentType.LEAK and service.name == name:
                entry.incident = replace(
                    entry.incident, updated_unix_s=now.unix_s, snapshot_path=printable(path)
                )
                news.append(IncidentNews(Happening.UPDATED, entry.incident))
        return news

    def dump(self) -> dict[str, Any]:
        """Return all of it as plain JSON values, for ``load()``."""
        kept = [*self._resolved.values(), *self.open()]
        return {"version": _DUMP_VERSION, "incidents": [portable.to_json(one) for one in kept]}

    def load(self, dumped: Any, now: WallAnchor) -> None:
        """Go on from what another run dumped; what is not understood is left out and counted."""
        rows = dumped.get("incidents") if isinstance(dumped, dict) else None
        read = [portable.from_json(row) for row in rows] if isinstance(rows, list) else [None]
        self.counters["incidents_refused_total"] += read.count(None)
        self.restore([one for one in read if one is not None], now)

    def restore(self, incidents: Iterable[Incident], now: WallAnchor) -> None:
        """Go on from these; one that is known already is the one that was updated last."""
        for incident in sorted(incidents, key=lambda one: one.updated_unix_s):
            key = (incident.type, incident.service)
            known = self._open.get(key)
            if known is not None and known.incident.updated_unix_s >= incident.updated_unix_s:
                continue
            if incident.resolved_unix_s is not None:
                self._open.pop(key, None)
                self._remember(key, incident)
            elif known is None and len(self._open) >= self._limits.open_max:
                self.counters["incidents_untracked_total"] += 1
            else:
                self._resolved.pop(key, None)
                self._open[key] = _Entry(incident, now.monotonic_s, now.monotonic_s)

    def _begin(self, service: Service, standing: Standing, now: WallAnchor) -> list[IncidentNews]:
        summary = _summary(standing)
        entry = self._open_entry((IncidentType.LEAK, service), summary, now)
        if entry is None:
            return []
        entry.is_leaking = True
        entry.incident = _with_facts(entry.incident, standing, summary, now)
        is_same = entry.incident.reopened_unix_s is not None
        return [IncidentNews(Happening.UPDATED if is_same else Happening.OPENED, entry.incident)]

    def _follow(self, entry: _Entry, group: list[Standing], now: WallAnchor) -> list[IncidentNews]:
        if not group:
            if now.monotonic_s - entry.seen_s < self._limits.gone_s:
                return []
            return self._resolve(entry, "its service does not run any more", now)
        entry.seen_s = now.monotonic_s
        worst = max(group, key=_badness)
        if worst.judgement.verdict is Verdict.LEAKING:
            entry.calm_since_s = None
            return self._go_on(entry, worst, now)
        if entry.is_leaking or worst.judgement.verdict is Verdict.STEADY:
            entry.is_leaking = False
        if worst.judgement.verdict is Verdict.STEADY:
            if entry.calm_since_s is None:
                entry.calm_since_s = now.monotonic_s
            if now.monotonic_s - entry.calm_since_s < self._calm_s(entry.incident):
                return []
            return self._resolve(entry, "it is steady", now)
        entry.calm_since_s = None
        finding = worst.finding
        if worst.judgement.verdict is Verdict.GROWING and finding and not finding.is_leak:
            entry.incident = _with_facts(entry.incident, worst, _summary(worst), now)
            return self._resolve(entry, f"no leak: {printable(finding.kind)}", now)
        return []

    def _go_on(self, entry: _Entry, worst: Standing, now: WallAnchor) -> list[IncidentNews]:
        before = entry.incident
        is_back, entry.is_leaking = entry.is_leaking is False, True
        is_news = is_back or _evidence(_with_evidence(before, worst)) != _evidence(before)
        if not is_news and now.monotonic_s - entry.refreshed_s < self._limits.refresh_s:
            return []
        entry.refreshed_s = now.monotonic_s
        entry.incident = replace(
            _with_facts(before, worst, _summary(worst), now),
            recurrences=before.recurrences + is_back,
        )
        return [IncidentNews(Happening.UPDATED if is_news else Happening.CONTINUES, entry.incident)]

    def _follow_kills(self, entry: _Entry, now: WallAnchor) -> list[IncidentNews]:
        if now.monotonic_s - entry.seen_s < self._limits.oom_calm_s:
            return []
        return self._resolve(entry, "no further OOM kill", now)

    def _calm_s(self, incident: Incident) -> float:
        if self._limits.resolve_after_s is not None:
            return self._limits.resolve_after_s
        noticed_s = incident.opened_unix_s - (incident.since_unix_s or incident.opened_unix_s)
        return min(max(noticed_s, self._limits.calm_min_s), self._limits.calm_max_s)

    def _open_entry(
        self, key: tuple[IncidentType, Service], summary: str, now: WallAnchor
    ) -> Optional[_Entry]:
        if len(self._open) >= self._limits.open_max:
            self.counters["incidents_untracked_total"] += 1
            return None
        self.counters["incidents_opened_total"] += 1
        incident = Incident(
            id=_id(*key, now.unix_s),
            type=key[0],
            service=key[1],
            opened_unix_s=now.unix_s,
            updated_unix_s=now.unix_s,
            summary=summary,
        )
        past = self._resolved.get(key)
        if past is not None and key[0] is IncidentType.LEAK:
            over_s = now.unix_s - (past.resolved_unix_s or 0.0)
            if 0 <= over_s < self._limits.reopen_s:
                del self._resolved[key]
                incident = replace(
                    past,
                    reopened_unix_s=now.unix_s,
                    resolved_unix_s=None,
                    resolution="",
                    recurrences=past.recurrences + 1,
                )
        entry = self._open[key] = _Entry(incident, now.monotonic_s, now.monotonic_s)
        return entry

    def _resolve(self, entry: _Entry, why: str, now: WallAnchor) -> list[IncidentNews]:
        incident = replace(
            entry.incident,
            updated_unix_s=now.unix_s,
            resolved_unix_s=now.unix_s,
            resolution=why,
        )
        key = (incident.type, incident.service)
        del self._open[key]
        self._remember(key, incident)
        self.counters["incidents_resolved_total"] += 1
        return [IncidentNews(Happening.RESOLVED, incident)]

    def _remember(self, key: tuple[IncidentType, Service], incident: Incident) -> None:
        self._resolved.pop(key, None)
        self._resolved[key] = incident
        if len(self._resolved) > self._limits.resolved_max:
            del self._resolved[next(iter(self._resolved))]


def _badness(standing: Standing) -> tuple[int, float]:
    return standing.judgement.verdict, standing.judgement.slope_bytes_per_second or 0.0


def _summary(standing: Standing) -> str:
    subject = standing.subject
    return text_line(
        VerdictChange(
            subject.time_s, subject, None, standing.judgement, standing.finding, standing.sites
        ),
        None,
    )


def _evidence(incident: Incident) -> tuple[str, bool, str]:
    # Not the place itself: whoever is told needs no word each time two places change ranks.
    return (incident.kind, bool(incident.holder), incident.known_by)


def _with_evidence(incident: Incident, standing: Standing) -> Incident:
    """What was found stands until something else is: a restart takes it from the standing."""
    finding = standing.finding
    if finding is not None:
        incident = replace(
            incident,
            kind=printable(finding.kind),
            advice=printable(finding.advice),
            type_name=printable(finding.type_name),
            holder=printable(finding.holder),
        )
    if standing.sites:
        top = standing.sites[0]
        incident = replace(
            incident,
            place=printable(top.place),
            place_share=top.share,
            known_by=printable(top.known_by),
        )
    return incident


def _with_facts(incident: Incident, standing: Standing, summary: str, now: WallAnchor) -> Incident:
    judgement, limit = standing.judgement, standing.judgement.limit
    limit_unix_s = None
    if judgement.forecast_s is not None:
        limit_unix_s = now.unix_s + judgement.forecast_s
    return replace(
        _with_evidence(incident, standing),
        updated_unix_s=now.unix_s,
        summary=summary,
        since_unix_s=now.unix(judgement.since_s),
        private_bytes=standing.subject.private_bytes,
        process_count=standing.subject.process_count,
        slope_bytes_per_second=judgement.slope_bytes_per_second,
        slope_low_bytes_per_second=judgement.slope_low_bytes_per_second,
        slope_high_bytes_per_second=judgement.slope_high_bytes_per_second,
        limit_bytes=limit.limit_bytes if limit else None,
        limit_source=limit.source if limit else "",
        limit_unix_s=limit_unix_s,
    )


def _id(type_: IncidentType, service: Service, unix_s: float) -> str:
    """Sorts by time, and tells services apart that came to leak in the same second."""
    stamp = (iso_utc(unix_s) or "unknown").replace("-", "").replace(":", "")
    raw = f"{type_.value}\0{service.kind.value}\0{service.name}\0{unix_s!r}"
    return f"{stamp}-{hashlib.sha256(raw.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
