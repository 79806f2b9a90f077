"""The Python side of the tracer: units, names, errors, and threads that drain and read at once."""

from __future__ import annotations

import threading

import pytest
from trace_records import block_event, recording, stack_event, thread_event

from mwtrace.capi import lib
from mwtrace.errors import HostError
from mwtrace.tracer import Domain, Layout, Order, Tracer, TracerLimits

PID = 77


@pytest.fixture
def tracer():
    return Tracer(TracerLimits(blocks_max=1000, sites_max=100, rows_max=50))


def alloc(address, size_bytes=100, **fields):
    return block_event(lib.MW_BLOCK_ALLOC, PID, address, size_bytes, **fields)


def test_rows_are_in_seconds_and_domains_have_names(tracer):
    tracer.replay(recording([alloc(16, time_ns=2_500_000_000, domain=Domain.PY_MEM)]))
    table = tracer.table(10.0, Order.LIVE)
    (site,), (process,) = table.sites, table.processes
    assert (site.domain, site.live_bytes, site.first_time_s) == (Domain.PY_MEM, 100, 2.5)
    assert site.slope is None
    assert process.allocated[Domain.PY_MEM].blocks == 1
    assert table.counters["allocated_total"] == 1
    assert process.counts == {}


def test_stacks_come_leaf_first_in_frames_of_two(tracer):
    python = stack_event(PID, 8, [0x10, 1, 0x20, 2], kind=lib.MW_STACK_PYTHON, truncated=1)
    tracer.replay(recording([stack_event(PID, 7, [5, 6]), python]))
    assert tracer.stack(PID, 7).frames == ((5, 0), (6, 0))
    assert tracer.stack(PID, 8).frames == ((0x10, 1), (0x20, 2))
    assert tracer.stack(PID, 8).is_truncated
    assert tracer.stack(PID, 9) is None
    assert tracer.stack(PID, 0) is None


def test_a_slope_has_an_interval(tracer):
    for second in range(1, 30):
        tracer.replay(recording([alloc(second * 16, 500, time_ns=second * 10**9)]))
        table = tracer.table(float(second), Order.GROWTH, PID)
    slope = table.sites[0].slope
    assert slope.bytes_per_second == pytest.approx(500)
    assert slope.low_bytes_per_second <= 500.001
    assert slope.high_bytes_per_second >= 499.999
    assert table.processes[0].native_slope == slope
    assert table.sites[0].allocated_bytes_per_second == pytest.approx(500)


def test_the_kernels_counts_come_back_by_name(tracer):
    tracer.tell_counts(PID, 1.0, {"hits_total": 9, "dropped_blocks_total": 2})
    (process,) = tracer.table(2.0, Order.LIVE).processes
    assert process.counts["hits_total"] == 9
    assert process.counts["dropped_blocks_total"] == 2


def test_an_audit_of_freed_addresses_empties_the_table(tracer):
    import os

    own = os.getpid()
    events = [
        block_event(lib.MW_BLOCK_ALLOC, own, 4096 + n * 16, 100, time_ns=10**9) for n in range(9)
    ]
    tracer.replay(recording(events))
    report = tracer.audit(own, 0.5, 1.5, Layout.GLIBC, Layout.PYMALLOC)
    assert (report.freed, report.unmapped, report.alive) == (9, 9, 0)
    assert tracer.audit(own, 0.5, 1.5, Layout.GLIBC, Layout.PYMALLOC).freed == 0
    tracer.add_window(own, 0.5)
    (process,) = tracer.table(2.0, Order.SURVIVED).processes
    assert process.window_s == 0.5


def test_errors_say_what_could_not_be_done(tracer):
    with pytest.raises(HostError, match="create the tracer's tables"):
        Tracer(TracerLimits(blocks_max=0))
    with pytest.raises(HostError, match="read the ring"):
        tracer.drain(2**20)
    with pytest.raises(HostError, match="replay"):
        tracer.replay(b"\1")
    with pytest.raises(HostError, match="window of process 5"):
        tracer.add_window(5, 1.0)
    tracer.table(5.0, Order.LIVE)
    with pytest.raises(HostError, match="time did not advance"):
        tracer.table(5.0, Order.LIVE)


def test_thread_lists_are_asked_for_by_pid(tracer):
    tracer.replay(recording([thread_event(3, 1), thread_event(3, 2), thread_event(4, 1)]))
    assert tracer.thread_requests() == {3, 4}
    assert tracer.thread_requests() == frozenset()


def test_a_forgotten_process_is_gone(tracer):
    tracer.replay(recording([alloc(16)]))
    tracer.forget(PID)
    assert tracer.table(1.0, Order.LIVE).processes == ()
    tracer.close_ring()


def test_one_thread_may_feed_while_another_reads(tracer):
    data = recording([alloc(n % 900 * 16 + 16, native_stack=n % 90) for n in range(20_000)])
    feeding = threading.Thread(target=lambda: [tracer.replay(data) for _ in range(10)])
    feeding.start()
    second = 0
    while feeding.is_alive():
        second += 1
        table = tracer.table(float(second), Order.LIVE)
        assert sum(site.live_bytes for site in table.sites) <= 900 * 100
    feeding.join()
    counters = tracer.table(second + 1.0, Order.LIVE).counters
    assert counters["allocated_total"] == 200_000
    assert counters["block_count"] == 900
