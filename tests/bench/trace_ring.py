"""Events lost at a steady rate: programs, ring and tables together, as in an exact trace.

    trace_ring.py [--events 500000] [--seconds 5]

Run as root. A C program makes malloc/free pairs by the clock, each pair two events with a native
stack; the ring has 256 KiB for each CPU of the host, and a thread drains it into the tables.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from target import Target

from mwtrace.capi import lib
from mwtrace.host.procfs import Host
from mwtrace.probes.engine_libbpf import LibbpfEngine
from mwtrace.probes.governor import Window
from mwtrace.tracing.command import EXACT_LIMITS, drained
from mwtrace.tracing.probing import Probing
from mwtrace.tracing.process import TracedProcess
from mwtrace.tracing.session import EXACT_COST_S
from mwtrace.tracing.unit import ring_bytes
from mwtrace.tracing.windows import ProcessWindows

LOSSES = ("dropped_blocks_total", "dropped_frees_total", "dropped_moves_total", "untracked_total")


def run(target: Target, seconds: int) -> tuple[int, dict[str, int]]:
    probing = Probing(LibbpfEngine(), limits=EXACT_LIMITS)
    try:
        traced = TracedProcess(Host().process_id(target.pid), probing.host, probing.modules)
        plan = probing.look_at(traced, probing.gates(traced))
        windows = ProcessWindows(probing, target.pid, plan)
        try:
            windows.open(Window(seconds + 20.0, EXACT_COST_S, 0), 0)
            with drained(probing):
                target.tell(f"go {seconds}")
                pairs = int(target.line())
            windows.end()
            return pairs, dict(windows.counts)
        finally:
            windows.close()
    finally:
        probing.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=500_000, help="a second")
    parser.add_argument("--seconds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/paced"
        source = Path(__file__).with_name("paced.c")
        subprocess.run(["cc", "-O2", "-fno-builtin", "-o", program, source], check=True)
        target = Target([program, str(asked.events // 2)])
        try:
            target.expect("ready")
            pairs, counts = run(target, asked.seconds)
        finally:
            target.stop()
    seen = counts["blocks_total"] + counts["frees_total"]
    lost = sum(counts[name] for name in LOSSES)
    if seen + lost < 2 * pairs:
        raise SystemExit("not every call was seen")
    cpus = lib.mw_bpf_possible_cpus()
    print(
        f"{2 * pairs / asked.seconds:,.0f} events/s for {asked.seconds} s through a ring of "
        f"{ring_bytes(cpus) >> 10} KiB ({cpus} CPUs): {seen:,} told, {lost:,} lost"
    )


if __name__ == "__main__":
    main()
