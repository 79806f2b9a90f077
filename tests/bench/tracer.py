"""Events per second from memory into the tracer's tables, on one core.

    python tests/bench/tracer.py [--events 2000000] [--live 100000] [--sites 500]

The events are synthetic: blocks of several processes with lifetimes of all lengths, one in ten of
them kept, on as many sites as asked for, each stack sent once. They are taken as the ring's
callback takes them (mw_tracer_replay); the kernel's side and the ring itself are not in it.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

from trace_records import block_event, recording, stack_event  # noqa: E402

from mwtrace.capi import check, ffi, lib  # noqa: E402

PROCESSES = 4


def make_recording(events: int, live_max: int, site_count: int, rng: random.Random) -> bytes:
    records = []
    for site in range(site_count):
        pid = site % PROCESSES + 1
        words = [rng.randrange(2**47) for _ in range(30)]
        records.append(stack_event(pid, site + 1, words))
        words = [rng.randrange(2**47) for _ in range(40)]
        records.append(stack_event(pid, site + 2**32, words, kind=lib.MW_STACK_PYTHON))
    live: list[tuple[int, int]] = []
    kept = 0
    for number in range(events):
        if len(live) > 10 and (rng.random() < 0.48 or len(live) + kept >= live_max):
            index = rng.randrange(len(live))
            pid, address = live[index]
            live[index] = live[-1]
            live.pop()
            records.append(block_event(lib.MW_BLOCK_FREE, pid, address, time_ns=number))
            continue
        site = min(int(rng.expovariate(8 / site_count)), site_count - 1)
        pid, address = site % PROCESSES + 1, rng.randrange(2**32) * 16 + 2**46
        fields = {"native_stack": site + 1, "python_stack": site + 2**32, "time_ns": number}
        fields["weight_bytes"] = 512 * 1024
        records.append(
            block_event(lib.MW_BLOCK_ALLOC, pid, address, rng.choice([32, 90, 400, 3000]), **fields)
        )
        if rng.random() < 0.1 and kept < live_max // 2:
            kept += 1
        else:
            live.append((pid, address))
    return recording(records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--live", type=int, default=100_000)
    parser.add_argument("--sites", type=int, default=500)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    print("making events ...", file=sys.stderr)
    data = make_recording(arguments.events, arguments.live, arguments.sites, random.Random(1))
    limits = {
        "blocks_max": max(262_144, arguments.live),
        "ranges_max": 65_536,
        "stacks_max": 16_384,
        "words_max": 2_000_000,
        "sites_max": 16_384,
        "processes_max": 64,
        "rows_max": 100,
    }
    rates = []
    for _ in range(arguments.runs):
        out = ffi.new("struct mw_tracer **")
        check(lib.mw_tracer_create(ffi.new("struct mw_tracer_limits *", limits), out), "create")
        begin_s = time.perf_counter()
        records = check(lib.mw_tracer_replay(out[0], data, len(data)), "replay")
        rates.append(records / (time.perf_counter() - begin_s))
        table = ffi.new("struct mw_tracer_table **")
        begin_s = time.perf_counter()
        check(lib.mw_tracer_table(out[0], 1, 0, lib.MW_ORDER_LIVE, table), "tell")
        table_ms = (time.perf_counter() - begin_s) * 1000
        counters = table[0].counters
        lib.mw_tracer_destroy(out[0])
    print(f"{records} records, {counters.block_count} live at the end, {counters.site_count} sites")
    print(f"table in {table_ms:.2f} ms")
    # The best run is what the code can do; the median is what this machine let it do.
    print(
        f"{max(rates):,.0f} events/s at best, {sorted(rates)[len(rates) // 2]:,.0f} in the median"
    )


if __name__ == "__main__":
    main()
