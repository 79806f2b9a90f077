"""The outside writer against its bars, and beside the hook's own child where that is installed.

Prints objects a second, bytes of file an object, our memory, and what the target pays: nothing, as
its dirtied pages say. Each figure is the best of three, since other work disturbs only one way.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mwtrace.snapshot.outside import take_outside

PROGRAM = """
import os, signal, sys
class Session:
    def __init__(self, n): self.user = n; self.data = [n * 2.5, str(n)]; self.parent = None
class Slot:
    __slots__ = ("a", "b")
STORE, ROWS = {}, []
for n in range(int(sys.argv[1])):
    STORE[n + 100000] = Session(n + 1000)
    row = Slot(); row.a = (n + 5000,); row.b = {"k": n + 9999}; ROWS.append(row)
child = os.fork()
if not child:
    os.write(1, b"%d\\n" % os.getpid()); signal.pause(); os._exit(0)
sys.stdin.readline()
os.kill(child, 9); os.waitpid(child, 0)
"""
BARS = {"objects/s": "4,000,000", "file bytes/object": "40", "our memory": "100 MB at 10 M objects"}


def dirty_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def measure(python: str, rows: int) -> None:
    target = subprocess.Popen(
        [python, "-c", PROGRAM, str(rows)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert target.stdin
    assert target.stdout
    try:
        child = int(target.stdout.readline())
        time.sleep(0.2)  # both settle; a bench may hope
        for pid, what in ((child, "frozen child"), (target.pid, "live process")):
            best, cpu_s = None, 0.0
            before_kib = dirty_kib(pid)
            for _ in range(3):
                with tempfile.TemporaryDirectory() as folder:
                    began_s = time.process_time()
                    written = take_outside(pid, Path(folder) / "a.mwsnap")
                    spent_s = time.process_time() - began_s
                if best is None or written.elapsed_s < best.elapsed_s:
                    best, cpu_s = written, spent_s
            assert best is not None
            rss_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{what:13} {best.objects:>10,} objects {best.objects / best.elapsed_s:>12,.0f}/s "
                f"({best.objects / cpu_s:,.0f} per CPU second) {best.elapsed_s:6.2f} s "
                f"{best.file_bytes / best.objects:5.1f} bytes/object, {best.edges:,} edges, "
                f"our peak {rss_mib:.0f} MiB, pages copied in it {dirty_kib(pid) - before_kib} KiB"
            )
    finally:
        target.stdin.close()
        target.wait(60)
        target.stdout.close()


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--python", default=sys.executable)
    options.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 450_000])
    chosen = options.parse_args()
    print("bars:", ", ".join(f"{name} {bar}" for name, bar in BARS.items()))
    for rows in chosen.rows:
        measure(chosen.python, rows)


if __name__ == "__main__":
    main()
