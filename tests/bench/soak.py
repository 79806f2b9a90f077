"""The watch for a long time over many processes that come and go; prints what it grew by.

    soak.py [--seconds 7200] [--processes 2000] [--births 50]

The bar: resident memory without a significant slope, descriptors flat, and ticks on time (p99 of
how late they come at most 20% of the interval). Exits with 1 if one of them is missed. Needs root.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from watch import MIB, MWTRACE, TARGETS, sleepers

INTERVAL_S = 1.0
WARM_UP_SHARE = 0.25  # tables and histories fill up; what grows is told from the rest
JITTER_BAR = 0.2
_TICK = b"STATUS="


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=7200.0)
    parser.add_argument("--processes", type=int, default=2000)
    parser.add_argument("--births", type=int, default=50)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sleepers(asked.processes):
        births = _births(Path(folder), asked.births)
        try:
            is_good = soak(Path(folder), asked.seconds)
        finally:
            births.kill()
            births.wait()
    sys.exit(not is_good)


def soak(folder: Path, seconds: float) -> bool:
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.bind(str(folder / "notify"))
    heard.settimeout(30)
    words = ["--all", "--watch-only", "--interval", f"{INTERVAL_S}s", "--json"]
    words += ["--state-dir", str(folder / "state")]
    watch = subprocess.Popen(
        [*MWTRACE, *words],
        env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify")},
        stdout=subprocess.DEVNULL,
    )
    ticks_s: list[float] = []
    rss: list[tuple[float, int]] = []
    descriptors: list[int] = []
    try:
        ends_s = time.monotonic() + seconds
        while (now_s := time.monotonic()) < ends_s:
            if _TICK in heard.recv(4096):
                ticks_s.append(now_s := time.monotonic())
                rss.append((now_s, _rss_bytes(watch.pid)))
                descriptors.append(len(os.listdir(f"/proc/{watch.pid}/fd")))
        cpu_s = _cpu_s(watch.pid)
    finally:
        watch.send_signal(signal.SIGTERM)
        began_s = time.monotonic()
        watch.wait(30)
        stopped_s = time.monotonic() - began_s
    return report(ticks_s, rss, descriptors, cpu_s / seconds, stopped_s)


def report(
    ticks_s: list[float],
    rss: list[tuple[float, int]],
    descriptors: list[int],
    cores: float,
    stopped_s: float,
) -> bool:
    begin = int(len(rss) * WARM_UP_SHARE)
    slope, z = slope_and_trend(rss[begin:])
    late = sorted(abs(b - a - INTERVAL_S) for a, b in zip(ticks_s[begin:], ticks_s[begin + 1 :]))
    p99 = late[int(len(late) * 0.99)] / INTERVAL_S
    settled = descriptors[begin:]
    grows = z > 2.5 and slope * 3600 > MIB
    print(f"ticks         {len(ticks_s)}")
    print(f"RSS           {rss[begin][1] / MIB:.1f} MiB, then {rss[-1][1] / MIB:.1f} MiB")
    print(f"RSS slope     {slope * 3600 / MIB:+.3f} MiB/h, trend z {z:.1f} (bar: not significant)")
    print(f"descriptors   {min(settled)} to {max(settled)} (bar: flat)")
    print(f"tick jitter   p99 {p99:.1%} of the interval (bar: 20%)")
    print(f"CPU           {cores:.2%} of one core at an interval of {INTERVAL_S:g} s")
    print(f"SIGTERM       {stopped_s:.2f} s to the end (bar: 2 s)")
    flat = statistics.median(settled[-20:]) <= statistics.median(settled[:20])
    return not grows and flat and p99 <= JITTER_BAR and stopped_s <= 2


def slope_and_trend(samples: list[tuple[float, int]]) -> tuple[float, float]:
    """Theil-Sen and Mann-Kendall over at most 300 of the samples: pairs are many."""
    kept = samples[:: max(1, len(samples) // 300)]
    pairs = [(a, b) for i, a in enumerate(kept) for b in kept[i + 1 :]]
    slope = statistics.median((b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs)
    score = sum((b[1] > a[1]) - (b[1] < a[1]) for a, b in pairs)
    # Ties matter: a flat line is mostly ties, and has little variance.
    n = len(kept)
    sizes: dict[int, int] = {}
    for _, value in kept:
        sizes[value] = sizes.get(value, 0) + 1
    ties = sum(size * (size - 1) * (2 * size + 5) for size in sizes.values())
    variance = (n * (n - 1) * (2 * n + 5) - ties) / 18
    return slope, score / variance**0.5 if variance > 0 else 0.0


def _births(folder: Path, rate: int) -> subprocess.Popen[bytes]:
    source = TARGETS.parent / "bench" / "births.c"
    subprocess.run(["cc", "-O2", "-o", folder / "births", source], check=True)
    return subprocess.Popen(
        [folder / "births", str(rate), "10"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )


def _rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
