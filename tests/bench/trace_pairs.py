"""What probes cost: a malloc/free pair with none, with every block told, and sampled.

Run as root from the source tree: python tests/bench/trace_pairs.py [--rounds N]. Each row is the
median of the rounds, which go through all cases in turn so that the machine's moods hit all alike.
A C thread drains nothing here: the ring is emptied between rounds and sized by the number of
pairs, so that no event is dropped; a row that dropped some says so.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from alloc_under_test import LIBC, WAYS, AllocUnderTest, Probe, Way, file_place
from target import Target

from mwtrace.capi import lib

SIZE = 64
# Two events of 72 bytes a pair: these fit into the ring of 1 MiB.
EXACT_PAIRS = 6_000
PAIRS = 60_000
FREES = lib.MW_TARGET_FREES
NATIVE = lib.MW_TARGET_NATIVE_STACKS


class Case(NamedTuple):
    name: str
    symbols: tuple[str, ...]
    flags: int = 0
    interval_bytes: int = 0
    pairs: int = PAIRS


BOTH = ("malloc", "free")
CASES = [
    Case("no probe", ()),
    Case("programs that return at once", BOTH, lib.MW_TARGET_STOPPED),
    Case("exact, no stacks", BOTH, FREES, 0, EXACT_PAIRS),
    Case("exact, native stacks", BOTH, FREES | NATIVE, 0, EXACT_PAIRS),
    Case(
        "exact, native stacks, layered",
        BOTH,
        FREES | NATIVE | lib.MW_TARGET_LAYERED,
        0,
        EXACT_PAIRS,
    ),
    Case("sampled 512 KiB, frees too", BOTH, FREES | NATIVE, 1 << 19),
    Case("sampled 512 KiB, layered", BOTH, FREES | NATIVE | lib.MW_TARGET_LAYERED, 1 << 19),
    Case("sampled 512 KiB, no free probe", ("malloc",), NATIVE, 1 << 19),
]


def place(target: Target, symbol: str) -> Probe:
    """Return where a probe is cheap: on a push, which the kernel emulates.

    By hand, so that no disassembler is needed here: glibc's free tests its argument for null and
    jumps away (9 bytes on x86-64) before it pushes; its malloc begins with a push.
    """
    target.tell(f"where {symbol}")
    path, offset = file_place(target.pid, int(target.line(), 16))
    with open(path, "rb") as file:
        file.seek(offset)
        code = file.read(9)
    if code.startswith(b"\x48\x85\xff\x0f\x84"):
        offset += 9
    return Probe(path, offset, *LIBC[symbol])


def measure(case: Case, program: Path, way: Way) -> tuple[float, int]:
    """Return nanoseconds of one pair, and how many events were dropped."""
    target = Target([str(program)])
    try:
        target.expect("ready")
        under_test = None
        if case.symbols:
            probes = [place(target, symbol) for symbol in case.symbols]
            under_test = AllocUnderTest(way, target.pid, probes)
            under_test.aim(target.pid, case.flags, interval_bytes=case.interval_bytes)
        target.tell(f"pairs 1000 {SIZE}")
        target.line()
        if under_test:
            under_test.drain()
        target.tell(f"pairs {case.pairs} {SIZE}")
        nanoseconds = float(target.line())
        dropped = 0
        if under_test:
            counts = under_test.counts()
            dropped = counts["dropped_blocks_total"] + counts["dropped_frees_total"]
            under_test.close()
        return nanoseconds, dropped
    finally:
        target.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--way", choices=[str(way) for way in WAYS], default=str(WAYS[0]))
    arguments = parser.parse_args()
    way = next(way for way in WAYS if str(way) == arguments.way)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "prices"
        source = Path(__file__).with_name("prices.c")
        subprocess.run(["cc", "-O2", "-fno-builtin", "-o", program, source], check=True)
        times: dict[str, list[float]] = {case.name: [] for case in CASES}
        lost = dict.fromkeys(times, 0)
        for _ in range(arguments.rounds):
            for case in CASES:
                nanoseconds, dropped = measure(case, program, way)
                times[case.name].append(nanoseconds)
                lost[case.name] += dropped
    print(f"{'malloc/free pair of ' + str(SIZE) + ' bytes':34} {'ns':>8} {'min':>8} {'max':>8}")
    for name, found in times.items():
        note = f"  ({lost[name]} events dropped)" if lost[name] else ""
        middle = statistics.median(found)
        print(f"{name:34} {middle:8.1f} {min(found):8.1f} {max(found):8.1f}{note}")


if __name__ == "__main__":
    main()
