"""Suspects are read by a thread, within limits, and what becomes of them meanwhile is no matter."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from interpreters import interpreters, script
from target import Target

from mwtrace.errors import ProcessGone
from mwtrace.escalation.allowance import ReadingLimits
from mwtrace.escalation.cases import Escalation
from mwtrace.host.procfs import Host
from mwtrace.model import (
    Finding,
    Judgement,
    ProcessId,
    Service,
    ServiceKind,
    Subject,
    SubjectId,
    Verdict,
)

pytestmark = pytest.mark.kernel

DEADLINE_S = 30.0
AT_ONCE = ReadingLimits(window_s=0.0, growth_bytes=-(1 << 60))
GROWING = Judgement(Verdict.GROWING, 0.0, slope_bytes_per_second=1.0)


@pytest.fixture
def target() -> Iterator[Target]:
    grows = Target([interpreters()[-1], script("grow"), "native"])
    grows.expect("ready")
    yield grows
    grows.stop()


@contextmanager
def escalation(limits: ReadingLimits) -> Iterator[Escalation]:
    under_test = Escalation(limits, Host().check)
    try:
        yield under_test
    finally:
        under_test.close()


def suspect(process: ProcessId, judgement: Judgement = GROWING) -> tuple[Subject, Judgement]:
    identity = SubjectId(Service("grow", ServiceKind.COMMAND), process)
    return Subject(identity, 0.0, 0.0, 0.0, 1 << 20, 0, 0, 0, 1, process.pid, 0, ()), judgement


def tick(under_test: Escalation, *suspects: tuple[Subject, Judgement]) -> None:
    now_s = time.monotonic()
    under_test.collect(now_s)
    under_test.follow(suspects, now_s)


def wait_for_readings(under_test: Escalation, count: int) -> None:
    """Collect, without asking for anything, until so many results are there."""
    deadline = time.monotonic() + DEADLINE_S
    while sum(case.reading is not None for case in under_test._cases.values()) < count:
        assert time.monotonic() < deadline, under_test.counters
        time.sleep(0.01)
        under_test.collect(time.monotonic())


def find(under_test: Escalation, *suspects: tuple[Subject, Judgement]) -> Finding:
    process = suspects[0][0].id.process
    assert process
    deadline = time.monotonic() + DEADLINE_S
    while under_test.finding(process) is None:
        assert time.monotonic() < deadline, under_test.counters
        tick(under_test, *suspects)
        time.sleep(0.01)
    found = under_test.finding(process)
    assert found
    return found


def test_what_grew_between_two_readings_is_found_and_ends_with_the_suspicion(target):
    process = Host().process_id(target.pid)
    with escalation(AT_ONCE) as under_test:
        tick(under_test, suspect(process))
        wait_for_readings(under_test, 1)
        target.ask("grow")
        found = find(under_test, suspect(process))
        assert (found.kind, found.is_leak) == ("native-live", True)
        assert found.grown_bytes > 7 << 20
        assert under_test.counters["readings_unreadable_total"] == 0
        tick(under_test)
        assert under_test.finding(process) is None


def test_who_warms_up_is_read_once(target):
    process = Host().process_id(target.pid)
    warming = suspect(process, Judgement(Verdict.WARMING_UP, 0.0))
    with escalation(AT_ONCE) as under_test:
        tick(under_test, warming)
        wait_for_readings(under_test, 1)
        for _ in range(3):
            tick(under_test, warming)
        assert under_test.counters["readings_total"] == 1


def test_too_little_growth_says_nothing_yet(target):
    process = Host().process_id(target.pid)
    with escalation(replace(AT_ONCE, window_s=0.01)) as under_test:
        deadline = time.monotonic() + DEADLINE_S
        while under_test.counters["readings_total"] < 4:
            assert time.monotonic() < deadline
            tick(under_test, suspect(process))
        assert under_test.finding(process) is None
        target.ask("grow")  # it is compared with the first reading, not with the last
        assert find(under_test, suspect(process)).kind == "native-live"


def test_a_process_that_ends_between_two_readings_leaves_nothing(target):
    process = Host().process_id(target.pid)
    with escalation(AT_ONCE) as under_test:
        tick(under_test, suspect(process))
        wait_for_readings(under_test, 1)
        target.stop()
        with pytest.raises(ProcessGone):
            Host().check(process)
        tick(under_test, suspect(process))  # its end was not seen yet
        deadline = time.monotonic() + DEADLINE_S
        while any(case.is_asked for case in under_test._cases.values()):
            assert time.monotonic() < deadline
            under_test.collect(time.monotonic())
        assert under_test.finding(process) is None
        assert under_test.counters["readings_unreadable_total"] == 0


def test_another_process_of_the_same_pid_is_not_read(target):
    process = Host().process_id(target.pid)
    other = process._replace(start_time_ns=process.start_time_ns - 10**9)
    with escalation(AT_ONCE) as under_test:
        tick(under_test, suspect(other))
        deadline = time.monotonic() + DEADLINE_S
        while under_test._cases[other].is_asked:
            assert time.monotonic() < deadline
            under_test.collect(time.monotonic())
        assert under_test._cases[other].reading is None


def test_what_is_beyond_the_allowance_is_refused_and_counted(target):
    process = Host().process_id(target.pid)
    with escalation(replace(AT_ONCE, readings_per_hour=1)) as under_test:
        tick(under_test, suspect(process))
        wait_for_readings(under_test, 1)
        target.ask("grow")
        for _ in range(3):
            tick(under_test, suspect(process))
        # refused once: then it waits before it asks again
        assert under_test.counters["readings_total"] == 1
        assert under_test.counters["readings_refused_total"] == 1


def test_no_readings_at_all_if_none_are_wanted(target):
    with escalation(replace(AT_ONCE, readings_per_hour=0)) as under_test:
        tick(under_test, suspect(Host().process_id(target.pid)))
        assert set(under_test.counters.values()) == {0}
        assert under_test._reader._thread is None


def test_a_full_queue_refuses_and_a_tick_never_waits():
    targets = [Target([interpreters()[-1], script("grow"), "native"]) for _ in range(4)]
    try:
        for one in targets:
            one.expect("ready")
        suspects = [suspect(Host().process_id(one.pid)) for one in targets]
        with escalation(replace(AT_ONCE, queue_max=1)) as under_test:
            began_s = time.monotonic()
            tick(under_test, *suspects)
            assert time.monotonic() - began_s < 0.5
            counters = under_test.counters
            assert counters["readings_refused_total"] >= 2  # one is read, one waits
            assert counters["readings_total"] + counters["readings_refused_total"] == 4
    finally:
        for one in targets:
            one.stop()


def test_closing_cancels_what_is_being_read():
    python = interpreters()[-1]
    large = Target([python, script("truth_heap"), "2000000", "-"])
    try:
        large.expect("ready")
        under_test = Escalation(AT_ONCE, Host().check)
        tick(under_test, suspect(Host().process_id(large.pid)))
        began_s = time.monotonic()
        under_test.close()
        assert time.monotonic() - began_s < 2.0
        assert under_test._reader._thread
        assert not under_test._reader._thread.is_alive()
    finally:
        large.stop()
