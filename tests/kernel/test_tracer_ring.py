"""The tracer on a real ring buffer of the kernel: everything is taken, strange records counted."""

from __future__ import annotations

import subprocess
import threading
import time

import pytest

from mwtrace.tracer import Order, Tracer

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
