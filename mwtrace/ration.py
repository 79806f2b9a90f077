"""How much of its work a watch does when its own memory is limited.

Less is done rather than nothing: tables are made smaller, and suspects are not read, which takes
tens of MiB each. What is left undone is said in ``Daemon.restraint`` and counted; a watchdog
that the OOM killer takes says nothing at all.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import Optional

from mwtrace.aggregator import Limits, OomKill, Table
from mwtrace.daemon import Daemon, Settings
from mwtrace.errors import HostError, ProcessError
from mwtrace.host.limits import Limits as MemoryLimits
from mwtrace.host.procfs import Host
from mwtrace.model import NewFinding, Service, Snapshot, VerdictChange

log = logging.getLogger(__name__)

_MIB = 1 << 20
# Measured: what a watch takes besides its tables, and a process in them, saving included.
_BASE_BYTES = 20 * _MIB
_PROCESS_BYTES = 1_536
_PROCESSES_MIN = 1_024
# Reading a suspect of several GiB takes up to 55 MiB, and tracing it about as much.
_LOOKING_BYTES = 96 * _MIB
_SCARCE_BYTES = 12 * _MIB  # left below the limit: no time to begin anything
_PLENTY_BYTES = 24 * _MIB


def own_room_bytes(host: Host) -> Optional[int]:
    """Return how much more memory we may take; None if nobody says."""
    try:
        return MemoryLimits(host).of(os.getpid()).headroom_bytes
    except (HostError, ProcessError):
        return None


def rationed(settings: Settings, room_bytes: Optional[int]) -> Settings:
    """Return the settings with tables that fit into that much memory."""
    if room_bytes is None:
        return settings
    processes = max(_PROCESSES_MIN, (room_bytes - _BASE_BYTES) // _PROCESS_BYTES)
    if processes >= settings.limits.processes_max:
        return settings
    limits = _scaled(settings.limits, processes)
    log.warning(
        "there are %d MiB of memory for us: %d processes at most are watched",
        room_bytes // _MIB,
        limits.processes_max,
    )
    return replace(settings, limits=limits)


def _scaled(limits: Limits, processes: int) -> Limits:
    return limits._replace(
        processes_max=processes,
        services_max=min(limits.services_max, max(256, processes // 8)),
        unnamed_max=min(limits.unnamed_max, processes),
    )


class Ration:
    """A teller that looks at our own room at each tick, and restrains the daemon if it is small."""

    def __init__(self, daemon: Daemon, host: Host, room_bytes: Optional[int]) -> None:
        self._daemon = daemon
        self._host = host
        self._always = ""
        if room_bytes is not None and room_bytes < _LOOKING_BYTES:
            self._always = f"only {room_bytes // _MIB} MiB of memory for us: no suspect is read"
            log.warning("%s", self._always)
        daemon.restraint = self._always
        self.counters = {"ticks_restrained_total": 0}
        daemon.counted.append(lambda: self.counters)

    def on_change(self, change: VerdictChange) -> None:
        pass

    def on_finding(self, news: NewFinding) -> None:
        pass

    def on_snapshot(self, snapshot: Snapshot) -> None:
        pass

    def on_oom_kill(self, oom_kill: OomKill, service: Optional[Service]) -> None:
        pass

    def on_tick(self, table: Table) -> None:
        room_bytes = own_room_bytes(self._host)
        if room_bytes is None:
            return
        self._restrain(room_bytes)
        self.counters["ticks_restrained_total"] += bool(self._daemon.restraint)

    def _restrain(self, room_bytes: int) -> None:
        if room_bytes < _SCARCE_BYTES and not self._daemon.restraint:
            self._daemon.restraint = "memory is short: no suspect is read"
            log.warning("%d MiB of memory are left for us; no suspect is read", room_bytes // _MIB)
        elif room_bytes > _PLENTY_BYTES:
            self._daemon.restraint = self._always
