"""What the watch costs and how soon it speaks; prints the figures of docs/overhead.md.

    watch.py [--processes 4000] [--minutes 5] [tick|daemon|delay ...]

tick    CPU of one look at all processes, beside psutil reading the same figures, in turn
daemon  CPU and memory of `mwtrace --all` over some minutes, and its own slope
delay   seconds until each demonstration's verdict

Needs root and an installed mwtrace. Ratios are medians of pairs taken in one run, because the
machine's speed drifts.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

TARGETS = Path(__file__).resolve().parent.parent / "targets"
MWTRACE = [sys.executable, "-m", "mwtrace"]
MIB = 1024 * 1024


@contextmanager
def sleepers(count: int) -> Iterator[None]:
    """Hold count sleeping children of a small C program."""
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/sleepers"
        subprocess.run(["cc", "-O2", "-o", program, str(TARGETS / "sleepers.c")], check=True)
        child = subprocess.Popen(
            [program, str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            if child.stdout is None or child.stdout.readline() != "ready\n":
                raise SystemExit("the sleeping processes did not start")
            yield
        finally:
            child.kill()
            child.wait()


def bench_tick(processes: int) -> None:
    import psutil

    from mwtrace.aggregator import Aggregator, Limits
    from mwtrace.probes.engine_libbpf import LibbpfEngine
    from mwtrace.sources import BpfSource

    def by_psutil() -> float:
        began = time.process_time()
        for process in psutil.process_iter():
            with process.oneshot():
                try:
                    process.memory_info()
                    process.name()
                    process.ppid()
                    process.create_time()
                except psutil.Error:
                    pass
        return time.process_time() - began

    aggregator = Aggregator(Limits())
    source = BpfSource(LibbpfEngine(), aggregator)

    def by_tick() -> float:
        began = time.process_time()
        source.tick(time.monotonic())
        return time.process_time() - began

    def name_all() -> None:
        """Until then every tick hands over the processes that have no service."""
        while unnamed := source.tick(time.monotonic()).unnamed:
            for process, *_ in unnamed:
                aggregator.name(process, 1)

    with sleepers(processes):
        by_tick(), name_all(), by_tick(), by_psutil()
        pairs = [(by_tick(), by_psutil()) for _ in range(9)]
    source.close()
    tick_ms = statistics.median(ours for ours, _ in pairs) * 1e3
    psutil_ms = statistics.median(theirs for _, theirs in pairs) * 1e3
    ratio = statistics.median(theirs / ours for ours, theirs in pairs)
    print(f"tick      {processes} processes: {tick_ms:.1f} ms CPU (bar: 25)")
    print(f"psutil    the same figures: {psutil_ms:.1f} ms CPU; {ratio:.1f} times ours (bar: 20)")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def bench_daemon(processes: int, minutes: float) -> None:
    from mwtrace.capi import ffi, lib

    with sleepers(processes):
        daemon = subprocess.Popen(
            # Other programs of this host are none of ours to read or probe.
            [*MWTRACE, "--all", "--json", "--watch-only"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        began = time.monotonic()
        samples = []
        start_cpu_s = None
        while time.monotonic() - began < 60 * minutes:
            time.sleep(5)
            now_s = time.monotonic() - began
            if start_cpu_s is None and now_s < 15:
                continue  # start-up and the first names are told apart
            if start_cpu_s is None:
                start_cpu_s, start_s = cpu_s(daemon.pid), now_s
            samples.append((now_s, float(rss_bytes(daemon.pid))))
        used_s, lasted_s = cpu_s(daemon.pid) - (start_cpu_s or 0), now_s - start_s
        daemon.send_signal(signal.SIGINT)
        daemon.wait()
    print(
        f"daemon    {processes} processes, {minutes:g} min: "
        f"{100 * used_s / lasted_s:.2f}% of one core (bar: 0.5); start-up {start_cpu_s:.2f} s CPU"
    )
    newest = samples[-60:]
    ret = ffi.new("struct mw_fit *")
    lib.mw_fit_compute([t for t, _ in newest], [b for _, b in newest], len(newest), ret)
    low, high = ret.theil_sen_low_bytes_per_second, ret.theil_sen_high_bytes_per_second
    flat = "not significant" if low <= 0 <= high else "SIGNIFICANT"
    print(
        f"memory    RSS {max(b for _, b in samples) / MIB:.1f} MiB at most (bar: 40); "
        f"slope {ret.theil_sen_bytes_per_second:.0f} [{low:.0f}, {high:.0f}] B/s, {flat}"
    )


DELAYS = [  # shape, rate, bar in seconds (None: must never be called leaking)
    ("leak-objects", "1M", 90),
    ("leak-native", "1M", 90),
    ("leak-mmap", "1M", 90),
    ("leak-objects", "100K", 300),
    ("leak-native", "100K", 300),
    ("leak-mmap", "100K", 300),
    ("cache", "1M", None),
    ("sawtooth", "1M", None),
    ("step", "1M", None),
    ("steady", "20M", None),
]


@contextmanager
def demos() -> Iterator[list[tuple[str, str, int | None, subprocess.Popen[str]]]]:
    """Run all demonstrations; they leak, so none may be left behind, whatever happens."""
    with ExitStack() as undo:
        running = []
        for shape, rate, bar_s in DELAYS:
            child = subprocess.Popen(
                [*MWTRACE, "demo", shape, "--rate", rate], stdout=subprocess.PIPE, text=True
            )
            undo.callback(child.wait)
            undo.callback(child.kill)
            running.append((shape, rate, bar_s, child))
        yield running


def bench_delay(minutes: float) -> None:
    with demos() as running:
        began: dict[int, float] = {}
        for *_, child in running:
            if child.stdout is None or not child.stdout.readline().startswith("ready"):
                raise SystemExit("a demonstration did not start")
            began[child.pid] = time.time()
        called = called_leaking(began, minutes)
    for shape, rate, bar_s, child in running:
        if child.pid in called:
            delay_s, slope = called[child.pid]
            said = f"leaking after {delay_s:.0f} s at {slope / 1e3:.0f} kB/s"
        else:
            said = f"not called leaking in {60 * minutes:.0f} s"
        bar = "never" if bar_s is None else f"{bar_s} s"
        print(f"delay     {shape:12} {rate:>4}/s: {said} (bar: {bar})")


def called_leaking(began: dict[int, float], minutes: float) -> dict[int, tuple[float, float]]:
    """Watch processes, by pid and when they began; return delay and slope of those called so."""
    watch = subprocess.Popen(
        [*MWTRACE, "--pid", *map(str, began), "--json", "--duration", f"{60 * minutes:.0f}s"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    called: dict[int, tuple[float, float]] = {}
    for line in watch.stdout or ():
        told = json.loads(line)
        if told["event"] == "verdict" and told["verdict"] == "leaking":
            delay_s = time.time() - began[told["pid"]]
            called.setdefault(told["pid"], (delay_s, told["slope_bytes_per_second"]))
    watch.wait()
    return called


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", default=[], metavar="tick|daemon|delay")
    parser.add_argument("--processes", type=int, default=4000)
    parser.add_argument("--minutes", type=float, default=5.0)
    asked = parser.parse_args()
    what = asked.what or ["tick", "daemon", "delay"]
    if "tick" in what:
        bench_tick(asked.processes)
    if "daemon" in what:
        bench_daemon(asked.processes, asked.minutes)
    if "delay" in what:
        bench_delay(max(asked.minutes, 5.5))


if __name__ == "__main__":
    main()
