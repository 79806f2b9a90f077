"""What must be true before a process is asked for a snapshot: the host may not be worse off.

Answers with a reason and a remedy, or not at all. Reads the host and the store, and touches no
process. Limits per service are kept in the store, so they hold across restarts of the daemon.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from mwtrace.errors import HostError, ProcessError
from mwtrace.host.limits import Limits
from mwtrace.host.procfs import Host
from mwtrace.model import ProcessId
from mwtrace.snapshot.outcomes import NotTaken, Outcome
from mwtrace.snapshot.store import Store, slug

_DAY_S = 86_400.0
# Attempts that cost the service nothing do not count.
_FREE = frozenset({Outcome.NO_HOOK.value, Outcome.REFUSED.value, Outcome.GONE.value})


@dataclass(frozen=True)
class GateLimits:
    """What a snapshot may cost, and how often a service pays it."""

    # Measured: a child dirties 70 to 90% of the image, and needs lists of its own besides.
    copied_share: float = 1.0
    own_bytes: int = 64 << 20
    # A file takes up to 40 bytes per object, and no object is smaller than 16.
    file_share: float = 0.5
    per_day: int = 8  # for each service; 0: none
    apart_s: float = 600.0  # two of one service, for the same reason


def check(
    host: Host,
    store: Store,
    process: ProcessId,
    service: str,
    why: str,
    limits: GateLimits,
    is_asked: bool,
) -> None:
    """Raise NotTaken if this is no time for a snapshot of process.

    is_asked: by an operator, who may have as many as they want; the host's safety stays.
    """
    if not is_asked:
        _check_service(store, service, why, limits)
    try:
        memory = host.memory(process.pid)
        if memory is None:
            raise NotTaken(Outcome.GONE, f"process {process.pid} has no memory")
        limit = Limits(host).of(process.pid)
    except HostError as error:
        raise NotTaken(Outcome.REFUSED, f"{error}", error.remedy) from error
    except NotTaken:
        raise
    except ProcessError as error:
        raise NotTaken(Outcome.GONE, f"{error}", error.remedy) from error
    private_bytes = memory.anon_bytes
    need_bytes = int(private_bytes * limits.copied_share) + limits.own_bytes
    if need_bytes > limit.headroom_bytes:
        raise NotTaken(
            Outcome.REFUSED,
            f"a snapshot of process {process.pid} may need {_mib(need_bytes)} of memory for a "
            f"while, and the {limit.source} has {_mib(limit.headroom_bytes)} left",
            "'mwtrace census' and 'mwtrace holders' read it from outside and need none.",
        )
    file_bytes, room_bytes = int(private_bytes * limits.file_share), store.room_bytes()
    if file_bytes > room_bytes:
        raise NotTaken(
            Outcome.REFUSED,
            f"a snapshot of process {process.pid} may take {_mib(file_bytes)}, and {store.folder} "
            f"has room for {_mib(room_bytes)}",
            "Remove old snapshots there, make room on the disk, or raise the quota.",
        )


def _check_service(store: Store, service: str, why: str, limits: GateLimits) -> None:
    now_s = time.time()
    name = slug(service)
    # What lies in the future was written before a clock was set back: it counts as of now.
    recent = [
        (min(record.unix_time_s, now_s), record.why)
        for record in store.records()
        if slug(record.service) == name
        and record.outcome not in _FREE
        and now_s - record.unix_time_s < _DAY_S
    ]
    if len(recent) >= limits.per_day:
        raise NotTaken(
            Outcome.REFUSED,
            f"{service} was asked {len(recent)} times within a day: {limits.per_day} are allowed",
            "'mwtrace snapshot' takes one whenever an operator wants it.",
        )
    # A baseline and what is compared with it may be near.
    last_s = max((at_s for at_s, before in recent if before == why), default=0.0)
    if now_s - last_s < limits.apart_s:
        raise NotTaken(
            Outcome.REFUSED,
            f"{service} was asked {now_s - last_s:.0f} s ago, and {limits.apart_s:.0f} s must "
            "lie between",
            "'mwtrace snapshot' takes one whenever an operator wants it.",
        )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):,.0f} MiB"
