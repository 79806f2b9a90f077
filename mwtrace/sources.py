"""Where the process table comes from: BPF, or /proc where the kernel takes no program from us.

Both fill the same aggregator and wait for the next tick in their own way; whoever ticks cannot
tell which one it has, but both say in words what they cannot see.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import Protocol

from mwtrace.aggregator import NS_PER_S, Aggregator, RecordBuffer, Table
from mwtrace.capi import lib
from mwtrace.errors import EngineError
from mwtrace.host.procfs import Host
from mwtrace.host.table import Counts, ProcessTable
from mwtrace.probes.engine import Engine
from mwtrace.probes.watch import Watch

log = logging.getLogger(__name__)

_PIECE_S = 0.2


class Source(Protocol):
    """What the daemon ticks with."""

    @property
    def words(self) -> str: ...

    @property
    def has_bpf(self) -> bool: ...

    def tick(self, time_s: float) -> Table: ...

    def wait(self, until_s: float) -> bool:
        """Return at until_s (CLOCK_MONOTONIC) or earlier, and True if there was an OOM kill: it
        must be told at once."""
        ...

    def losses(self) -> Mapping[str, int]: ...

    def blind(self) -> tuple[str, ...]:
        """What cannot be seen at all, in words."""
        ...

    def unseen(self) -> Mapping[str, int]:
        """How many processes the last tick could not read, by reason."""
        ...

    def close(self) -> None: ...


class BpfSource:
    """The task iterator on each tick, and exec, exit and OOM events in between."""

    words = "BPF"
    has_bpf = True

    def __init__(self, engine: Engine, aggregator: Aggregator) -> None:
        self._aggregator = aggregator
        self._watch = Watch(engine, aggregator.pointer)
        # Reading the table takes a descriptor. One is held for it, so that a limit that we hit
        # meanwhile costs no tick.
        self._reserve_fd = _reserve()
        self._error = 0

    def tick(self, time_s: float) -> Table:
        if self._reserve_fd >= 0:
            os.close(self._reserve_fd)
        table = self._aggregator.tick(time_s, self._watch.iterator_fd)
        self._reserve_fd = _reserve()
        if table.iterator_errno and table.iterator_errno != self._error:
            words = os.strerror(table.iterator_errno)
            log.warning("cannot read the process table in full: %s; trying again", words)
        self._error = table.iterator_errno
        return table

    def wait(self, until_s: float) -> bool:
        return self._watch.ring.wait(round(until_s * NS_PER_S))

    def losses(self) -> Mapping[str, int]:
        return self._watch.losses()

    def blind(self) -> tuple[str, ...]:
        return tuple(self._watch.missing)

    def unseen(self) -> Mapping[str, int]:
        return {}  # the kernel shows all of them

    def close(self) -> None:
        self._watch.close()
        if self._reserve_fd >= 0:
            os.close(self._reserve_fd)
            self._reserve_fd = -1


def _reserve() -> int:
    try:
        return os.open("/", os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return -1  # asked for again at the next tick


class ProcSource:
    """stat and status of every process on each tick; what ends or execs in between is not seen."""

    has_bpf = False

    def __init__(
        self,
        host: Host,
        aggregator: Aggregator,
        processes_max: int,
        why: str,
    ) -> None:
        self.words = f"/proc ({why})"
        self._aggregator = aggregator
        self._table = ProcessTable(host, processes_max)
        self._records = RecordBuffer(processes_max)
        self._counts: Counts | None = None
        self._unreadable_total = 0
        self._cut_short_total = 0

    def tick(self, time_s: float) -> Table:
        self._records.clear()
        self._counts = self._table.read(self._records)
        self._unreadable_total += self._counts.malformed
        self._cut_short_total += not self._counts.is_whole
        whole = lib.MW_NO_ITERATOR if self._counts.is_whole else lib.MW_RECORDS_PARTIAL
        return self._aggregator.tick(time_s, whole, self._records)

    def wait(self, until_s: float) -> bool:
        # In pieces: a sleep goes on after a signal.
        time.sleep(min(_PIECE_S, max(0.0, until_s - time.monotonic())))
        return False

    def losses(self) -> Mapping[str, int]:
        return {
            "proc_unreadable_total": self._unreadable_total,
            "proc_cut_short_total": self._cut_short_total,
        }

    def blind(self) -> tuple[str, ...]:
        lacking = ["OOM kills, and processes that end between two ticks"]
        if self._counts is not None and self._counts.permission:
            lacking.append(f"{self._counts.permission} processes of other users (hidepid)")
        if os.geteuid() != 0:
            lacking.append("the programs of other users' processes: run it with sudo to name them")
        return tuple(lacking)

    def unseen(self) -> Mapping[str, int]:
        if self._counts is None:
            return {}
        return {"permission": self._counts.permission, "malformed": self._counts.malformed}

    def close(self) -> None:
        pass


def open_source(
    engine: Engine,
    aggregator: Aggregator,
    host: Host,
    processes_max: int,
    allow_bpf: bool = True,
) -> Source:
    """Return the best source this host and user have."""
    if not allow_bpf:
        return ProcSource(host, aggregator, processes_max, "as asked")
    try:
        return BpfSource(engine, aggregator)
    except EngineError as error:
        log.info("%s; %s", error, error.remedy)
        return ProcSource(host, aggregator, processes_max, str(error))
