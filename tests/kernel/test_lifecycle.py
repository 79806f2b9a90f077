"""Exec, exit and OOM kills: each told exactly once, or counted as not told."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from memory_cgroup import MemoryCgroup
from ring_reader import RingReader

from mwtrace.capi import lib

pytestmark = pytest.mark.kernel

RING_BYTES = 1 << 20
EVENTS_IN_A_FULL_RING = (RING_BYTES - 1) // 72  # 64 bytes and a header of 8; one byte stays free
DEADLINE_S = 30.0


@pytest.fixture
def reader(watching):
    reader = RingReader(watching.loaded.maps["lifecycle"], RING_BYTES)
    yield reader
    reader.close()


def child_pids(target):
    target.tell("pids")
    pids = []
    while (line := target.line()) != "done":
        pids.append(int(line))
    return pids


def now_ns():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def test_every_exec_and_exit_of_children_is_told_exactly_once(reader, start_target):
    target = start_target("children")
    reader.drain()
    target.ask("exec 23")
    pids = child_pids(target)
    events = Counter(reader.drain_events())
    assert len(set(pids)) == 23
    for pid in pids:
        assert events[pid, lib.MW_EVENT_EXEC] == 1
        assert events[pid, lib.MW_EVENT_EXIT] == 1


def test_the_end_of_a_thread_is_not_the_end_of_its_process(reader, start_target):
    target = start_target("children")
    reader.drain()
    target.ask("threads 23")
    assert (target.pid, lib.MW_EVENT_EXIT) not in reader.drain_events()
    target.stop()
    assert Counter(reader.drain_events())[target.pid, lib.MW_EVENT_EXIT] == 1


def test_what_a_full_ring_refuses_is_counted(watching, reader, start_target):
    target = start_target("children")
    reader.drain()
    before = watching.watch.losses()["lifecycle_dropped"]
    target.ask("exit 20011")
    pids = child_pids(target)
    dropped = watching.watch.losses()["lifecycle_dropped"] - before
    events = reader.drain_events()
    assert len(events) == EVENTS_IN_A_FULL_RING
    ours = set(pids)
    told = [pid for pid, kind in events if kind == lib.MW_EVENT_EXIT and pid in ours]
    # Other processes of this machine may have ended meanwhile, so their losses are in dropped too.
    assert told == pids[: len(told)]
    assert dropped >= len(pids) - len(told) > 0


def test_a_reader_is_woken_before_the_ring_is_full(watching, start_target):
    """Without any tick: only the programs' wake-ups let the reader keep up."""
    target = start_target("children")
    ended = []

    def wait_long():
        ended.append(watching.watch.ring.wait(now_ns() + int(DEADLINE_S * 1e9)))

    before = watching.tick().counters.events_total
    thread = threading.Thread(target=wait_long)
    with interruptible(signal.SIGUSR1):
        thread.start()
        target.ask("exit 20011")
        while thread.is_alive():
            signal.pthread_kill(thread.ident, signal.SIGUSR1)
            thread.join(0.01)
    assert ended == [False]
    watching.watch.ring.wait(0)
    assert watching.watch.losses()["lifecycle_dropped"] == 0
    assert watching.tick().counters.events_total - before >= 20011


@contextlib.contextmanager
def interruptible(number):
    before = signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(number, before)


def test_a_signal_ends_the_wait_so_that_its_handler_runs(watching):
    class Interrupted(Exception):
        pass

    def interrupt(*_):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    start = now_ns()
    try:
        # Repeated: a first one may come before the wait has begun.
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        with pytest.raises(Interrupted):
            watching.watch.ring.wait(start + int(DEADLINE_S * 1e9))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert now_ns() - start < 10e9


def test_the_wait_ends_at_its_deadline_and_has_drained(watching, start_target):
    target = start_target("children")
    before = watching.tick().counters.events_total
    target.ask("exec 23")
    until = now_ns() + 50_000_000
    assert watching.watch.ring.wait(until) is False
    assert now_ns() >= until
    assert watching.tick().counters.events_total - before >= 46


@pytest.fixture
def oom_target(start_target) -> Iterator:
    target = start_target("pages", "eater")
    cgroup = MemoryCgroup(16 << 20)
    try:
        cgroup.add(target.pid)
        yield target
    finally:
        target.stop()
        cgroup.remove()


def test_an_oom_kill_is_told_exactly_once(reader, oom_target):
    reader.drain()
    oom_target.tell("8191")
    assert oom_target.wait() == -signal.SIGKILL
    events = [event for event in reader.drain_events() if event[0] == oom_target.pid]
    assert events == [
        (oom_target.pid, lib.MW_EVENT_OOM_VICTIM),
        (oom_target.pid, lib.MW_EVENT_EXIT),
    ]


def test_an_oom_kill_does_not_wait_for_the_next_tick(watching, oom_target):
    watching.tick()
    early_pages = watching.processes()[oom_target.pid][-1].anon_pages
    oom_target.tell("8191")
    start = now_ns()
    assert watching.watch.ring.wait(start + int(DEADLINE_S * 1e9)) is True
    assert now_ns() - start < 10e9
    assert oom_target.wait() == -signal.SIGKILL
    table = watching.tick()
    oom_kills = [table.oom_kills[i].event for i in range(table.oom_kill_count)]
    assert [event.pid for event in oom_kills] == [oom_target.pid]
    # As much as its limit of 16 MiB allows, some of it page tables, and what it had before.
    assert 3500 < oom_kills[0].anon_pages <= 4096 + early_pages
