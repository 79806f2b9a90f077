"""The tracer on a real ring buffer of the kernel: everything is taken, strange records counted."""

from __future__ import annotations

import subprocess
import threading
import time

import pytest
from alloc_under_test import engine_of

from mwtrace.capi import lib
from mwtrace.tracer import Order, Tracer
from mwtrace.tracing.unit import RING_BYTES_PER_CPU, TracingUnit, ring_bytes

pytestmark = pytest.mark.kernel


def test_every_record_of_a_ring_is_taken_even_if_it_is_none_of_ours(watching):
    """The watch's ring stands in: its records are of another kind, so each must be refused."""
    tracer, ring = Tracer(), watching.loaded.maps["lifecycle"]
    for _ in range(50):
        subprocess.run(["true"], check=True)
    taken = tracer.drain(ring)
    assert taken >= 100  # an exec and an exit each
    counters = tracer.table(1.0, Order.LIVE).counters
    assert counters["records_total"] == counters["records_refused_total"] == taken
    subprocess.run(["true"], check=True)
    assert tracer.drain(ring, 5.0) >= 2
    tracer.close_ring()


def test_waiting_for_an_empty_ring_lets_other_threads_run(watching):
    tracer, ring = Tracer(), watching.loaded.maps["lifecycle"]
    tracer.drain(ring)
    waiting = threading.Thread(target=tracer.drain, args=(ring, 0.5))
    begin_s = time.monotonic()
    waiting.start()
    steps = 0
    while waiting.is_alive():
        steps += 1
    # Holding the interpreter lock it would be a handful, however fast the machine.
    assert steps > 1000
    assert time.monotonic() - begin_s < 30


def test_a_ring_is_a_power_of_two_with_room_for_every_cpu():
    assert [ring_bytes(cpus) >> 10 for cpus in (1, 2, 3, 6, 64)] == [256, 512, 1024, 2048, 16384]
    assert ring_bytes(4096) == ring_bytes(64)


@pytest.mark.parametrize("engine", ["libbpf", "bcc"])
def test_the_kernel_has_given_it_that_room(engine):
    unit = TracingUnit(engine_of(engine), "alloc", ["block_session"])
    try:
        with open(f"/proc/self/fdinfo/{unit.ring_fd}") as words:
            facts = dict(line.split(":", 1) for line in words)
    finally:
        unit.close()
    given = int(facts["max_entries"])
    assert given == ring_bytes(lib.mw_bpf_possible_cpus())
    assert given >= RING_BYTES_PER_CPU * lib.mw_bpf_possible_cpus()
