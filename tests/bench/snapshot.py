"""What a snapshot costs the process that is asked: its pause, by its own clock, and what follows.

Prints ours beside the bar. Needs root; the largest heap takes 1.5 GB.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from hooked import Taking
from target import Target

from mwtrace.snapshot import placing

TARGET = Path(__file__).parents[1] / "targets" / "large_heap.py"


def measure(python: str, objects: int, count: int, taking: Taking) -> None:
    target = Target(["env", f"PYTHONPATH={placing.FOLDER}", python, str(TARGET), str(objects)])
    try:
        deadline_s = time.monotonic() + 300
        while True:
            try:
                target.expect("ready")
                break
            except AssertionError:
                if time.monotonic() > deadline_s:
                    raise
        target.tell("gaps")
        target.expect("begins")
        time.sleep(3)
        target.tell("enough")
        quiet_s, looks = map(float, target.line().split())
        calm_rate = looks / 3
        pauses, gaps, rates, shares, losses = [], [], [], [], []
        rss_bytes = taking.host.memory(target.pid).anon_bytes
        for _ in range(count):
            target.tell("gaps")
            target.expect("begins")
            began_s = time.monotonic()
            snapshot = taking.must_take(target.pid)
            took_s = time.monotonic() - began_s
            target.tell("enough")
            gap_s, looks = map(float, target.line().split())
            pauses.append(snapshot.pause_s or 0.0)
            gaps.append(gap_s)
            rates.append(snapshot.objects / took_s)
            shares.append(snapshot.size_bytes / snapshot.objects)
            losses.append(1 - looks / took_s / calm_rate)
        print(
            f"{rss_bytes / 1e6:7.0f} MB {snapshot.objects / 1e6:6.2f} M objects: "
            f"pause {statistics.median(pauses) * 1000:5.1f} ms, longest gap of the main thread "
            f"{statistics.median(gaps) * 1000:5.1f} ms (without: {quiet_s * 1000:.1f}), "
            f"{statistics.median(rates) / 1000:5.0f} k objects/s, "
            f"{statistics.median(shares):4.1f} bytes/object, "
            f"loss of throughput {statistics.median(losses):4.0%}",
            flush=True,
        )
    finally:
        target.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", default="/usr/bin/python3")
    parser.add_argument("--objects", type=int, nargs="+", default=[480_000, 5_000_000])
    parser.add_argument("--count", type=int, default=10)
    wish = parser.parse_args()
    print("bars: 5 ms at 100 MB, 35 ms at 1 GB; 400 k objects/s; 40 bytes/object; loss 10%")
    with tempfile.TemporaryDirectory() as folder:
        taking = Taking(Path(folder) / "snapshots")
        for objects in wish.objects:
            measure(wish.python, objects, wish.count, taking)
        taking.close()


main()
