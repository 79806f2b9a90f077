"""What a finding does to a verdict, and what a service then says: by tables and a made-up host."""

from __future__ import annotations

import pytest
from findings import finding
from watched import Watched, leak, steady

from mwtrace.judge import excuse
from mwtrace.judge.trend import MIB
from mwtrace.model import Judgement, Verdict

LEAKING = Judgement(Verdict.LEAKING, 0.0, slope_bytes_per_second=1.0 * MIB, why="it rises")


@pytest.mark.parametrize("verdict", Verdict)
@pytest.mark.parametrize("is_leak", [True, False, None])
def test_only_a_leak_that_is_none_changes_its_name(verdict, is_leak):
    before = Judgement(verdict, 0.0, slope_bytes_per_second=5.0)
    found = None if is_leak is None else finding(is_leak=is_leak)
    now = excuse.with_finding(before, found)
    if verdict is Verdict.LEAKING and is_leak is False:
        assert (now.verdict, now.slope_bytes_per_second) == (Verdict.GROWING, 5.0)
        assert now.why == excuse.WHY
    else:
        assert now is before


@pytest.mark.parametrize(
    ("slopes", "verdict"),
    [
        ([], Verdict.LEAKING),
        ([1.0], Verdict.GROWING),
        ([0.5, 0.4], Verdict.GROWING),
        ([0.7], Verdict.LEAKING),  # somebody else grows too
    ],
)
def test_a_sum_is_excused_where_the_excused_make_up_most_of_it(slopes, verdict):
    excused = [Judgement(Verdict.GROWING, 0.0, slope_bytes_per_second=s * MIB) for s in slopes]
    assert excuse.of_sum(LEAKING, excused).verdict is verdict


def test_what_an_allocator_keeps_is_growing_until_nobody_says_so_any_more():
    host = Watched()
    host.start(7, 1, leak(MIB))
    host.run_until(1, Verdict.LEAKING, 150)
    host.findings[host.process(7)] = finding(7, kind="allocator-retained", is_leak=False)
    host.tick()
    told = host.changes[-1]
    assert (told.before, told.now.verdict) == (Verdict.LEAKING, Verdict.GROWING)
    assert told.finding is not None
    assert told.now.slope_bytes_per_second
    assert host.verdicts.new_findings == []
    host.findings.clear()
    host.tick()
    assert host.changes[-1].now.verdict is Verdict.LEAKING
    assert host.changes[-1].finding is None


def test_one_worker_that_leaks_is_not_hidden_by_one_that_is_excused():
    host = Watched()
    host.start(7, 1, leak(MIB))
    host.start(8, 1, leak(MIB))
    host.run_until(1, Verdict.LEAKING, 150)
    host.findings[host.process(7)] = finding(7, kind="allocator-retained", is_leak=False)
    host.findings[host.process(8)] = finding(8)
    host.tick()
    assert host.verdict(1) is Verdict.LEAKING
    shown = host.verdicts.standings[1].finding
    assert shown is not None
    assert shown.process.pid == 8


def test_a_kind_that_becomes_known_later_is_told_once_and_again_if_it_is_another():
    host = Watched()
    host.start(7, 1, leak(MIB))
    host.start(8, 2, steady(MIB))
    host.run_until(1, Verdict.LEAKING, 150)
    news = []
    for kind in ("mixed", "mixed", "mmap", "mmap"):
        host.findings[host.process(7)] = finding(7, kind=kind)
        host.tick()
        news += [new.finding.kind for new in host.verdicts.new_findings]
    assert news == ["mixed", "mmap"]
    assert host.verdicts.standings[2].finding is None


def test_suspects_are_processes_and_end_with_their_growth():
    host = Watched()
    host.start(7, 1, leak(MIB))
    host.start(8, 2, steady(MIB))
    host.run(150)
    assert [subject.id.process for subject, _ in host.verdicts.suspects()] == [host.process(7)]
    host.end(7)
    host.tick()
    assert list(host.verdicts.suspects()) == []
