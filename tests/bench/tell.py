"""What telling costs: prints the figures of docs/overhead.md.

    tell.py [--processes 10000] [--services 500] [--scrapes 2000] [--births 100000]

Process records are made up, since so many processes are more than most hosts hold; all behind them
is what runs in a watch: the aggregator, the registry, the verdicts, the exporter, the HTTP server,
and a scrape over a socket. Needs no root.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack

from mwtrace.aggregator import Limits, RecordBuffer, Table
from mwtrace.capi import ffi, lib
from mwtrace.daemon import Daemon, Settings
from mwtrace.host.procfs import Host
from mwtrace.model import ProcessId, Service, ServiceKind
from mwtrace.outlets import Outlets, open_outlets
from mwtrace.probes.engine_libbpf import LibbpfEngine

KIB, MIB = 1024, 1024 * 1024
PAGE_BYTES = os.sysconf("SC_PAGESIZE")
INTERVAL_S = 5.0


class Names:
    def __init__(self, services: int) -> None:
        self._services = services

    def name(self, process: ProcessId, comm: bytes) -> Service:
        # As long as a pod's name.
        number = process.pid % self._services
        return Service(f"production/orders-worker-{number:05d}-7f9c6d/app", ServiceKind.CONTAINER)


class MadeUp:
    """A source whose processes grow, each at its own speed, and are replaced a few at a time."""

    words = "made up"
    has_bpf = False

    def __init__(self, daemon: Daemon, processes: int) -> None:
        self._aggregator = daemon.aggregator
        self._pids = list(range(1, processes + 1))
        self._records = RecordBuffer(processes)
        self._time_s = 0.0
        self.step_s = INTERVAL_S
        self._next_pid = processes + 1

    def replace(self, count: int) -> None:
        """End the oldest processes, and start as many in the same services."""
        del self._pids[:count]
        self._pids += range(self._next_pid, self._next_pid + count)
        self._next_pid += count

    def tick(self, time_s: float) -> Table:
        self._records.clear()
        self._time_s = max(self._time_s + self.step_s, time_s)
        for pid in self._pids:
            pages = 1000 + pid % 997 + int(self._time_s) * (pid % 7)
            self._records.append(pid, pid * 1000, 1, pages, 300, 10, 0, 9000, 1, b"worker")
        return self._aggregator.tick(self._time_s, lib.MW_NO_ITERATOR, self._records)

    def losses(self) -> Mapping[str, int]:
        return {}

    def unseen(self) -> Mapping[str, int]:
        return {}

    def blind(self) -> tuple[str, ...]:
        return ()

    def wait(self, until_s: float) -> bool:
        return False

    def close(self) -> None:
        pass


def rss_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE_BYTES


def slope(samples: list[tuple[float, float]]) -> str:
    """Bytes per sample with its 95% interval, by the watch's own arithmetic."""
    step = max(1, len(samples) // 60)
    kept = samples[len(samples) % step :: step]
    ret = ffi.new("struct mw_fit *")
    lib.mw_fit_compute([t for t, _ in kept], [b for _, b in kept], len(kept), ret)
    low, high = ret.theil_sen_low_bytes_per_second, ret.theil_sen_high_bytes_per_second
    flat = "not significant" if low <= 0 <= high else "SIGNIFICANT"
    return f"{ret.theil_sen_bytes_per_second:.1f} [{low:.1f}, {high:.1f}], {flat}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=10_000)
    parser.add_argument("--services", type=int, default=500)
    parser.add_argument("--scrapes", type=int, default=2_000)
    parser.add_argument("--births", type=int, default=100_000)
    asked = parser.parse_args()
    settings = Settings(
        allow_bpf=False, escalates=False, limits=Limits(unnamed_max=asked.processes)
    )
    with ExitStack() as undo:
        daemon = Daemon(settings, LibbpfEngine(), Host())
        undo.callback(daemon.close)
        source = MadeUp(daemon, asked.processes)
        daemon.source = source
        daemon.registry._names = Names(asked.services)  # type: ignore[assignment]
        opened = open_outlets(Outlets("127.0.0.1:0"), daemon, lambda _: True, False, undo)
        assert opened.server is not None
        url = f"{opened.server.address}/metrics"

        def tick() -> float:
            began_s = time.thread_time()
            daemon._tick([opened.exporter])
            return time.thread_time() - began_s

        def tell() -> float:
            table = Table(source._time_s, [], [], [], daemon.counters, 0)
            began_s = time.thread_time()
            opened.exporter.on_tick(table)
            return time.thread_time() - began_s

        def scrape() -> tuple[float, int]:
            began_s = time.perf_counter()
            with urllib.request.urlopen(url, timeout=30) as answer:
                size = len(answer.read())
            return time.perf_counter() - began_s, size

        def births(source: MadeUp, count: int) -> list[tuple[float, float]]:
            samples = []
            batch = min(1_000, asked.processes)
            for born in range(0, count, batch):
                source.replace(batch)
                tick()
                scrape()
                samples.append((float(born), float(rss_bytes())))
            return samples

        for _ in range(12):  # all are named, and the first are suspects
            tick()
        tell_ms = statistics.median(tell() for _ in range(9)) * 1e3
        first = []
        for _ in range(9):
            tell()  # a new table: nothing is rendered yet
            first.append(scrape()[0])
        again_s, size_bytes = scrape()
        services = daemon.counters["service_count"]
        print(f"told      {asked.processes} processes in {services} services")
        print(f"tick      {tell_ms:.1f} ms CPU to finish the table")
        print(
            f"scrape    {statistics.median(first) * 1e3:.1f} ms, worst {max(first) * 1e3:.1f} "
            f"(bar: 50); of a table already rendered {again_s * 1e3:.1f}"
        )
        print(f"page      {size_bytes / KIB:.0f} KiB (bar: 293)")

        samples = []
        for turn in range(asked.scrapes):
            if turn % 4 == 0:
                tell()
            scrape()
            samples.append((float(turn), float(rss_bytes())))
        half = samples[len(samples) // 4 :]
        grown = (half[-1][1] - half[0][1]) / KIB
        print(f"memory    {asked.scrapes} scrapes: {grown:+.0f} KiB; B per scrape {slope(half)}")

        # Histories grow with the hours that go by, up to their bound: those first.
        source.step_s = 120.0
        births(source, 1_000 * 150)
        source.step_s = INTERVAL_S
        samples = births(source, asked.births)
        grown = (samples[-1][1] - samples[0][1]) / KIB
        print(f"memory    {asked.births:,} births: {grown:+.0f} KiB; B per birth {slope(samples)}")
        print(f"resident  {rss_bytes() / MIB:.1f} MiB, the made-up records included")


if __name__ == "__main__":
    main()
