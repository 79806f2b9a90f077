"""Windows and audits name the leaking sites, and their rate, without a probe on free.

The target tells its own allocations, as probes would in a window; its frees it tells nobody. All
the rest is the real way: tracer, survivors, reading of its memory, settling.
"""

from __future__ import annotations

import pytest
from trace_records import block_event, recording

from mwtrace.capi import lib
from mwtrace.tracer import Layout, Order, Tracer, TracerLimits

pytestmark = pytest.mark.kernel
CHURN, CACHE, LEAK, LEAK_LARGE = 1, 2, 3, 4
WINDOWS, WINDOW_ROUNDS, REST_ROUNDS = 5, 100, 900
# One round is called a millisecond, so that the truth is in bytes per second.
ROUND_NS = 10**6
TRUE_LEAK, TRUE_LEAK_LARGE = 90_000.0, 300_000.0


def run_rounds(target, count, is_window):
    target.tell(f"{count} {int(is_window)}")
    rows = []
    while (line := target.line()) != "done":
        address, size_bytes, site = line.split()
        rows.append((int(address, 16), int(size_bytes), int(site)))
    return rows


def test_survivors_are_the_leaks_at_their_true_rates_and_nothing_else(start_target):
    target, tracer = start_target("sites"), Tracer(TracerLimits())
    rounds, windows = 0, []
    run_rounds(target, 1000, False)  # the cache is full, as in a program that runs for long
    for _ in range(WINDOWS):
        begin_ns = (rounds + 1) * ROUND_NS
        events = run_rounds(target, WINDOW_ROUNDS, True)
        step_ns = WINDOW_ROUNDS * ROUND_NS / len(events)
        tracer.replay(
            recording(
                [
                    block_event(
                        lib.MW_BLOCK_ALLOC,
                        target.pid,
                        address,
                        size_bytes,
                        native_stack=site,
                        time_ns=begin_ns + int(number * step_ns),
                    )
                    for number, (address, size_bytes, site) in enumerate(events)
                ]
            )
        )
        rounds += WINDOW_ROUNDS
        windows.append((begin_ns / 1e9, (rounds + 1) * ROUND_NS / 1e9))
        tracer.audit(target.pid, *windows[-1], Layout.GLIBC, Layout.OPAQUE)
        run_rounds(target, REST_ROUNDS, False)
        rounds += REST_ROUNDS
    for since_s, until_s in windows:
        report = tracer.audit(target.pid, since_s, until_s, Layout.GLIBC, Layout.OPAQUE)
        assert report.unknown == 0
        tracer.add_window(target.pid, until_s - since_s)
    table = tracer.table((rounds + 2) * ROUND_NS / 1e9, Order.SURVIVED)
    rates = {row.native_stack: row.survived_bytes_per_second for row in table.sites}
    allocated = {row.native_stack: row.allocated.bytes for row in table.sites}
    print(rates)
    assert [row.native_stack for row in table.sites[:2]] == [LEAK_LARGE, LEAK]
    # Every block is looked at here; sampling will add its own spread.
    assert rates[LEAK] == pytest.approx(TRUE_LEAK, rel=0.02)
    assert rates[LEAK_LARGE] == pytest.approx(TRUE_LEAK_LARGE, rel=0.02)
    blamed = rates[CHURN] + rates[CACHE]
    assert blamed < 0.01 * (TRUE_LEAK + TRUE_LEAK_LARGE)
    assert allocated[CHURN] > 50 * allocated[LEAK]
    counters = table.counters
    assert counters["untracked_blocks_total"] == 0
    assert counters["allocated_total"] == (
        counters["block_count"] + counters["missed_frees_total"] + counters["settled_freed_total"]
    )
