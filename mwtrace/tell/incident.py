"""An incident in the words of its receivers: JSON, one line, Slack's text.

Each function returns a value and writes nothing. The schema of the JSON object is
``docs/incidents.md``; whoever changes one changes the other.
"""

from __future__ import annotations

import json
from typing import Any

from mwtrace.model import Happening, Incident, IncidentNews, IncidentType, PostMortem
from mwtrace.tell.cells import printable
from mwtrace.tell.units import format_bytes, format_duration, format_slope_interval, iso_utc

SCHEMA_VERSION = 1
RUNBOOKS = {
    IncidentType.LEAK: "MwtraceMemoryLeak",
    IncidentType.OOM_KILL: "MwtraceOomKill",
}


def incident_object(incident: Incident, with_history: bool = False) -> dict[str, Any]:
    """The incident as ``docs/incidents.md`` describes it; ``with_history`` of the OOM kills."""
    return {
        "id": incident.id,
        "type": incident.type.value,
        "state": "open" if incident.resolved_unix_s is None else "resolved",
        "service": text(incident.service.name),
        "service_kind": incident.service.kind.value,
        "summary": text(incident.summary),
        "opened": iso_utc(incident.opened_unix_s),
        "reopened": _time(incident.reopened_unix_s),
        "updated": iso_utc(incident.updated_unix_s),
        "resolved": _time(incident.resolved_unix_s),
        "resolution": text(incident.resolution) or None,
        "recurrences": incident.recurrences,
        "since": _time(incident.since_unix_s),
        "private_bytes": incident.private_bytes or None,
        "process_count": incident.process_count or None,
        "slope_bytes_per_second": incident.slope_bytes_per_second,
        "slope_low_bytes_per_second": incident.slope_low_bytes_per_second,
        "slope_high_bytes_per_second": incident.slope_high_bytes_per_second,
        "limit_bytes": incident.limit_bytes,
        "limit_source": incident.limit_source or None,
        "limit_time": _time(incident.limit_unix_s),
        "kind": text(incident.kind) or None,
        "advice": text(incident.advice) or None,
        "object_type": text(incident.type_name) or None,
        "holder": text(incident.holder) or None,
        "site": text(incident.place) or None,
        "site_share": incident.place_share,
        "site_known_by": text(incident.known_by) or None,
        "snapshot": text(incident.snapshot_path) or None,
        "post_mortems": [_post_mortem(one, with_history) for one in incident.post_mortems],
    }


def news_object(news: IncidentNews, host: str) -> dict[str, Any]:
    """What a webhook or a hook is sent."""
    return {
        "schema_version": SCHEMA_VERSION,
        "event": f"incident_{news.happening.value}",
        "host": text(host),
        "incident": incident_object(news.incident),
    }


def news_json(news: IncidentNews, host: str) -> str:
    """The same on one line, pure ASCII."""
    return json.dumps(news_object(news, host), allow_nan=False, separators=(",", ":"))


def news_line(news: IncidentNews, host: str) -> str:
    """One line for people: what happened, where, in the words of the verdict."""
    incident = news.incident
    if news.happening is Happening.RESOLVED:
        lasted = format_duration(max(0.0, incident.updated_unix_s - incident.opened_unix_s))
        what = f"{printable(incident.service.name)}: {incident.resolution}; it lasted {lasted}"
    else:
        what = incident.summary
    return f"[{news.happening.value}] {printable(host)}: {text(what)}"


def slack_text(news: IncidentNews, host: str) -> str:
    """The line and its evidence, for Slack and those who speak as it does.

    Names come from strangers, and must neither make a link nor call a channel: Slack escapes three
    characters, and Mattermost reads a plain ``@all``.
    """
    lines = [news_line(news, host)]
    if news.happening is not Happening.RESOLVED:
        lines += [f"{name}: {value}" for name, value in evidence(news.incident).items()]
    shown = "\n".join(lines)
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("@", "@\u200b")):
        shown = shown.replace(char, entity)
    return shown


def evidence(incident: Incident) -> dict[str, str]:
    """What is known of it by name, each in a few words; what is not known is left out."""
    slope = share = ""
    if incident.slope_bytes_per_second is not None:
        slope = format_slope_interval(
            incident.slope_bytes_per_second,
            incident.slope_low_bytes_per_second,
            incident.slope_high_bytes_per_second,
        )
    if incident.place_share is not None:
        share = f"{100 * incident.place_share:.0f}% of the growth, by {incident.known_by}: "
    limit = ""
    if incident.limit_bytes is not None:
        limit = f"{format_bytes(incident.limit_bytes)} ({incident.limit_source})"
        if when := _time(incident.limit_unix_s):
            limit = f"{limit}, reached at {when}"
    known = {
        "slope": slope,
        "since": _time(incident.since_unix_s) or "",
        "kind": incident.kind,
        "forecast": limit,
        "site": f"{share}{incident.place}" if incident.place else "",
        "holder": incident.holder,
        "advice": incident.advice,
        "snapshot": incident.snapshot_path,
        "recurrences": str(incident.recurrences) if incident.recurrences else "",
    }
    return {name: text(value) for name, value in known.items() if value}


def text(value: str) -> str:
    """Half a surrogate pair is no text: strict readers refuse the whole object for it."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def _time(unix_s: float | None) -> str | None:
    return None if unix_s is None else iso_utc(unix_s)


def _post_mortem(one: PostMortem, with_history: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "time": iso_utc(one.time_unix_s),
        "pid": one.pid,
        "comm": text(one.comm),
        "private_bytes": one.private_bytes or None,
        "verdict": text(one.verdict) or None,
        "cgroup": {text(name): text(value) for name, value in one.cgroup},
        "processes": [{"pid": pid, "private_bytes": size} for pid, size in one.processes],
        "snapshot": text(one.snapshot_path) or None,
    }
    if with_history:
        shown["history"] = [
            {"time": iso_utc(unix_s), "private_bytes": size} for unix_s, size in one.history
        ]
    return shown
