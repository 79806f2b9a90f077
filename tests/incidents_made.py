"""Made-up incidents for tests of those who tell of them."""

from __future__ import annotations

from typing import Any

from mwtrace.model import (
    Happening,
    Incident,
    IncidentNews,
    IncidentType,
    PostMortem,
    Service,
    ServiceKind,
)

MIB = 1024 * 1024
BEGIN_UNIX_S = 1_780_000_000.0


def incident(number: int = 1, **changes: Any) -> Incident:
    values: dict[str, Any] = {
        "id": f"20260528T202640Z-{number:08x}",
        "type": IncidentType.LEAK,
        "service": Service(f"orders-{number}.service", ServiceKind.UNIT),
        "opened_unix_s": BEGIN_UNIX_S,
        "updated_unix_s": BEGIN_UNIX_S,
        "summary": f"LEAKING orders-{number}.service (pid 4711): +1.02 MiB/s",
        "since_unix_s": BEGIN_UNIX_S - 90,
        "private_bytes": 412 * MIB,
        "process_count": 1,
        "slope_bytes_per_second": 1.02 * MIB,
        "slope_low_bytes_per_second": 0.98 * MIB,
        "slope_high_bytes_per_second": 1.05 * MIB,
        "limit_bytes": 1024 * MIB,
        "limit_source": "cgroup",
        "limit_unix_s": BEGIN_UNIX_S + 600,
        "kind": "python-objects",
        "advice": "Bound or empty app.SESSIONS",
        "type_name": "app.Session",
        "holder": "app.SESSIONS[\u2026]",
        "place": "app.py:remember (line 31)",
        "place_share": 0.94,
        "known_by": "audited survivors",
        "snapshot_path": "/var/lib/mwtrace/snapshots/1.mws",
    }
    return Incident(**{**values, **changes})


def post_mortem(**changes: Any) -> PostMortem:
    values: dict[str, Any] = {
        "time_unix_s": BEGIN_UNIX_S,
        "pid": 4711,
        "comm": "python3",
        "private_bytes": 990 * MIB,
        "verdict": "LEAKING orders-1.service",
        "history": ((BEGIN_UNIX_S - 5, 980 * MIB), (BEGIN_UNIX_S, 990 * MIB)),
        "processes": ((4711, 990 * MIB), (4712, 3 * MIB)),
        "cgroup": (("path", "/orders"), ("memory.max", str(1024 * MIB))),
    }
    return PostMortem(**{**values, **changes})


def opened(number: int = 1, **changes: Any) -> IncidentNews:
    return IncidentNews(Happening.OPENED, incident(number, **changes))


def resolved(number: int = 1, **changes: Any) -> IncidentNews:
    over = {"resolved_unix_s": BEGIN_UNIX_S + 300, "resolution": "it is steady"}
    over["updated_unix_s"] = BEGIN_UNIX_S + 300
    return IncidentNews(Happening.RESOLVED, incident(number, **{**over, **changes}))
