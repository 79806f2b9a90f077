"""What a tick costs between the kernel's records and the table, without the kernel: CPU time.

Every process's sample goes through the pid table into its history, is screened in all windows, and
is added to its service. The first figure is the bar: a million samples a second into 10,000
histories. Run it alone on an idle machine; exits 1 below the bar.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import NamedTuple

from mwtrace.aggregator import Aggregator, Limits, RecordBuffer
from mwtrace.capi import ffi, lib

SAMPLES_PER_S_MIN = 1_000_000
INTERVAL_S = 5.0
TICKS = 700  # close to an hour: the buckets of a minute turn, and those of a quarter
RISE_PAGES = 50  # a tick, of the processes that rise


class Cost(NamedTuple):
    median_s: float
    worst_s: float
    python_s: float  # the whole of Aggregator.tick(), rows copied out


def measure(process_count: int, rising_count: int) -> Cost:
    """Watch so many processes, twenty to a service, until both columns are full."""
    aggregator = Aggregator(Limits(services_max=process_count // 20 + 2))
    records = RecordBuffer(process_count)
    for pid in range(1, process_count + 1):
        records.append(pid, pid, 1, 10_000, 3_000, 100, 0, 100_000, 1, b"worker")
    in_c: list[float] = []
    in_python: list[float] = []
    ret = ffi.new("const struct mw_table **")
    for tick in range(1, TICKS + 1):
        for i in range(rising_count):
            records.array[i].anon_pages += RISE_PAGES
        time_s = tick * INTERVAL_S
        began_s = time.process_time()
        if tick < 100 or tick % 10 == 0:
            table = aggregator.tick(time_s, records=records)
            in_python.append(time.process_time() - began_s)
            for unnamed in table.unnamed:
                aggregator.name(unnamed.process, unnamed.process.pid // 20 + 1)
        else:
            time_ns = round(time_s * 1e9)
            lib.mw_aggregator_tick(
                aggregator.pointer, time_ns, -1, records.array, records.count, ret
            )
            in_c.append(time.process_time() - began_s)
    assert ret[0].counters.process_count == process_count
    return Cost(statistics.median(in_c), max(in_c), statistics.median(in_python[-60:]))


def main() -> int:
    bar = 10_000 / measure(10_000, 0).median_s
    print(f"{bar:,.0f} samples a second into 10,000 histories")
    print("processes  rising  tick in C: median   worst   with Python  of one core at 5 s")
    for process_count, rising_count in ((4_000, 0), (4_000, 20), (4_000, 100), (30_000, 0)):
        cost = measure(process_count, rising_count)
        print(
            f"{process_count:9,} {rising_count:7} {cost.median_s * 1e3:15.2f} ms"
            f" {cost.worst_s * 1e3:5.1f} ms {cost.python_s * 1e3:10.2f} ms"
            f" {cost.python_s / INTERVAL_S:13.3%}"
        )
    return 0 if bar >= SAMPLES_PER_S_MIN else 1


if __name__ == "__main__":
    sys.exit(main())
