"""What growth sampling costs: a page fault of a process that is not watched, of one that is, and a
system call that has nothing to do with it.

Run as root from the source tree: python tests/bench/trace_growth.py [--rounds N]. Cases take turns,
so that the machine's moods hit all alike; each figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from alloc_under_test import TracingUnit
from target import Target

from mwtrace.capi import ffi, lib
from mwtrace.cpython.frames import walker_settings
from mwtrace.cpython.runtime import find_runtime

FAULTS = 20_000
SAMPLED_FAULTS = 5_000  # each an event of 72 bytes: they fit into the ring
CALLS = 300_000
STACKS = lib.MW_TARGET_NATIVE_STACKS | lib.MW_TARGET_PYTHON_STACKS


def attach(unit: TracingUnit, with_maps: bool) -> None:
    programs = unit.loaded.programs
    unit.hold(lib.mw_link_raw_tracepoint(programs["page_fault"], b"page_fault_user"))
    if with_maps:
        fd = lib.mw_link_tracepoint(programs["growth_mmap_return"], b"syscalls", b"sys_exit_mmap")
        unit.hold(fd)


def asked(target: Target, line: str) -> float:
    target.tell(line)
    return float(target.line())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        times.setdefault(name, []).append(value)

    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "prices"
        source = Path(__file__).with_name("prices.c")
        subprocess.run(["cc", "-O2", "-fno-builtin", "-o", program, source], check=True)
        native = Target([str(program)])
        python = Target([sys.executable, str(Path(__file__).with_name("touch.py"))])
        try:
            native.expect("ready")
            python.expect("ready")
            for _ in range(rounds):
                note("fault, nothing attached", asked(native, f"faults {FAULTS}"))
                note("system call, nothing attached", asked(native, f"calls {CALLS}"))
                note("Python fault, nothing attached", asked(python, f"{SAMPLED_FAULTS}"))

                unit = TracingUnit("libbpf", "growth")
                attach(unit, with_maps=False)
                note("fault, not watched", asked(native, f"faults {FAULTS}"))
                unit.aim(native.pid, STACKS, interval_faults=1_000_000)
                note("fault, watched, not drawn", asked(native, f"faults {FAULTS}"))
                unit.aim(native.pid, lib.MW_TARGET_NATIVE_STACKS, interval_faults=1)
                asked(native, "faults 10")
                note("fault, native stack", asked(native, f"faults {SAMPLED_FAULTS}"))
                unit.drain()
                runtime = find_runtime(python.pid)
                settings = walker_settings(runtime)
                unit.write("pythons", ffi.new("uint32_t *", python.pid), settings)
                unit.aim(python.pid, STACKS, interval_faults=1)
                asked(python, "10")
                note("Python fault, both stacks", asked(python, f"{SAMPLED_FAULTS}"))
                assert not unit.counts()["dropped_growths_total"]
                unit.close()

                unit = TracingUnit("libbpf", "growth")
                attach(unit, with_maps=True)
                note("system call, mmap traced", asked(native, f"calls {CALLS}"))
                unit.close()
        finally:
            native.stop()
            python.stop()
    print(f"{'':34} {'ns':>8} {'min':>8} {'max':>8}")
    for name, found in times.items():
        print(f"{name:34} {statistics.median(found):8.1f} {min(found):8.1f} {max(found):8.1f}")


if __name__ == "__main__":
    main()
