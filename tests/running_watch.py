"""The real watch with a real aggregator, and the descriptors behind it for tests to look at."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

from mwtrace.capi import ffi, lib
from mwtrace.probes.engine import Loaded
from mwtrace.probes.engine_libbpf import LibbpfEngine
from mwtrace.probes.watch import Watch


class KeepingEngine:
    """The real engine; remembers what it loaded last."""

    name = "libbpf"
    lacked: frozenset[str] = frozenset()
    loaded: Loaded

    def load(self, unit: str, disabled: Collection[str] = (), ring_bytes: int = 0) -> Loaded:
        self.loaded = LibbpfEngine().load(unit, disabled, ring_bytes)
        return self.loaded


class WatchUnderTest:
    """A Watch, what it loaded, and the aggregator that it feeds."""

    def __init__(self) -> None:
        limits = ffi.new("struct mw_limits *")
        limits.bucket_ns = [1, 10**9, 10**10, 10**11]
        limits.screen_bytes = 1 << 30
        limits.processes_max = 32768
        limits.services_max = 64
        limits.rows_max = 64
        limits.unnamed_max = 64
        limits.oom_kills_max = 64
        self._aggregator = ffi.gc(lib.mw_aggregator_create(limits), lib.mw_aggregator_destroy)
        assert self._aggregator != ffi.NULL
        self._time_ns = 0
        engine = KeepingEngine()
        self.watch = Watch(engine, self._aggregator)
        self.loaded = engine.loaded

    def processes(self) -> dict[int, list[Any]]:
        """Return the process table, read without the aggregator: records by pid."""
        data = b""
        descriptor = lib.mw_link_iterator_open(self.watch.iterator_fd)
        assert descriptor >= 0
        while piece := os.read(descriptor, 1 << 16):
            data += piece
        os.close(descriptor)
        count, rest = divmod(len(data), ffi.sizeof("struct mw_process_record"))
        assert rest == 0
        records = ffi.new("struct mw_process_record[]", count)
        ffi.memmove(records, data, len(data))
        found: dict[int, list[Any]] = {}
        for record in records:
            # A struct inside an array lives as long as the array: copy it out.
            copy = ffi.new("struct mw_process_record *", record)
            found.setdefault(record.pid, []).append(copy)
        return found

    def tick(self) -> Any:
        """Have the aggregator read the process table; return its own table."""
        self._time_ns += 10**9
        table = ffi.new("struct mw_table **")
        descriptor = self.watch.iterator_fd
        rc = lib.mw_aggregator_tick(self._aggregator, self._time_ns, descriptor, ffi.NULL, 0, table)
        assert rc == 0, rc
        return table[0]
