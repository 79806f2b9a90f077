"""A watch has snapshots taken of suspects: a baseline, one of the leak, and within limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hooked import start_hooked
from interpreters import SYSTEM
from target import DEADLINE_S, Target

from mwtrace.escalation.snapshots import Snapshots, SnapshotSettings
from mwtrace.host.procfs import Host
from mwtrace.model import (
    Judgement,
    ProcessId,
    Service,
    ServiceKind,
    Snapshot,
    Subject,
    SubjectId,
    Verdict,
)
from mwtrace.snapshot.gate import GateLimits
from mwtrace.snapshot.store import StoreLimits
from mwtrace.snapshot.taking import TakingLimits
from mwtrace.verdicts import Standing

pytestmark = pytest.mark.kernel

PYTHON = str(SYSTEM)
Suspect = tuple[Subject, Judgement]


@pytest.fixture
def target() -> Iterator[Target]:
    hooked = start_hooked(PYTHON, "plain", "100")
    hooked.expect("ready")
    yield hooked
    hooked.stop()


@pytest.fixture
def settings(tmp_path: Path) -> SnapshotSettings:
    return SnapshotSettings(tmp_path / "snapshots", store=StoreLimits(spare_bytes=0))


@pytest.fixture
def following() -> Iterator[Callable[[SnapshotSettings], Snapshots]]:
    made: list[Snapshots] = []

    def make(settings: SnapshotSettings) -> Snapshots:
        made.append(Snapshots(settings, Path("/")))
        return made[-1]

    yield make
    for snapshots in made:
        snapshots.close()


def suspect(process: ProcessId, verdict: Verdict) -> Suspect:
    identity = SubjectId(Service("hooked", ServiceKind.COMMAND), process)
    subject = Subject(identity, 0.0, 0.0, 0.0, 1 << 20, 0, 0, 0, 1, process.pid, 0, ())
    return subject, Judgement(verdict, 0.0)


def results(under_test: Snapshots, *suspects: Suspect, time_s: float = 0.0) -> list[Snapshot]:
    """Tick until nothing is on its way any more; return what was told."""
    told = []
    deadline = time.monotonic() + DEADLINE_S
    while True:
        under_test.follow(suspects, [], time_s)
        told += under_test.told
        if not any(known.is_waiting for known in under_test._followed.values()):
            return told
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_one_that_grows_gives_a_baseline_and_when_it_leaks_another(target, settings, following):
    process = Host().process_id(target.pid)
    under_test = following(settings)
    assert results(under_test, suspect(process, Verdict.WARMING_UP)) == []
    (baseline,) = results(under_test, suspect(process, Verdict.GROWING))
    assert (baseline.why, baseline.outcome) == ("baseline", "taken")
    assert results(under_test, suspect(process, Verdict.GROWING)) == []
    (leaking,) = results(under_test, suspect(process, Verdict.LEAKING))
    assert (leaking.why, leaking.outcome) == ("leaking", "taken")
    assert results(under_test, suspect(process, Verdict.LEAKING)) == []
    assert under_test.counters == {"snapshots_taken_total": 2, "snapshots_missed_total": 0}
    assert len(list(settings.folder.glob("hooked-*.mwsnap"))) == 2


def test_limits_of_a_service_survive_a_restart_of_the_daemon(target, settings, following):
    process = Host().process_id(target.pid)
    first = following(settings)
    assert results(first, suspect(process, Verdict.LEAKING))[0].outcome == "taken"
    first.close()
    second = following(settings)
    (refused,) = results(second, suspect(process, Verdict.LEAKING))
    assert refused.outcome == "refused"
    assert "s must lie between" in refused.reason
    # It is tried again, later, and not at each tick.
    assert results(second, suspect(process, Verdict.LEAKING), time_s=59.0) == []
    assert len(results(second, suspect(process, Verdict.LEAKING), time_s=61.0)) == 1


def test_no_more_than_so_many_a_day(target, settings, following):
    process = Host().process_id(target.pid)
    taking = TakingLimits(gate=GateLimits(per_day=1, apart_s=0.0))
    under_test = following(replace(settings, taking=taking))
    assert results(under_test, suspect(process, Verdict.GROWING))[0].outcome == "taken"
    (refused,) = results(under_test, suspect(process, Verdict.LEAKING))
    assert "within a day" in refused.reason


def test_processes_without_the_hook_are_asked_about_once_and_not_told_of(settings, following):
    plain = Target([PYTHON, "-c", "print('ready', flush=True); input()"])
    try:
        plain.expect("ready")
        process = Host().process_id(plain.pid)
        under_test = following(settings)
        for time_s in (0.0, 100.0, 200.0):
            assert results(under_test, suspect(process, Verdict.LEAKING), time_s=time_s) == []
        assert under_test.outcomes == {"no_hook": 1}
        assert under_test.counters["snapshots_missed_total"] == 0
    finally:
        plain.stop()


def test_of_a_services_workers_one_is_asked_each_time_and_one_that_has_the_hook(
    target, settings, following
):
    plain = Target([PYTHON, "-c", "print('ready', flush=True); input()"])
    other = start_hooked(PYTHON, "plain", "100")
    try:
        plain.expect("ready")
        other.expect("ready")
        pids = (plain.pid, target.pid, other.pid)
        without, first, second = (Host().process_id(pid) for pid in pids)
        under_test = following(settings)
        growing = [suspect(one, Verdict.GROWING) for one in (without, first, second)]
        told = []
        for _ in range(3):
            told += results(under_test, *growing)
        leaking = [suspect(first, Verdict.GROWING), suspect(second, Verdict.LEAKING)]
        told += results(under_test, suspect(without, Verdict.GROWING), *leaking)
        assert [(one.process, one.why) for one in told] == [
            (first, "baseline"),
            (first, "leaking"),
        ]
    finally:
        plain.stop()
        other.stop()


def test_a_schedule_takes_one_in_each_period(target, settings, following):
    process = Host().process_id(target.pid)
    under_test = following(replace(settings, every=(("hook*", 3600.0),)))
    subject, judgement = suspect(process, Verdict.STEADY)
    service = replace(subject, id=SubjectId(subject.id.service, None))

    def taken_at(time_s: float) -> int:
        deadline = time.monotonic() + DEADLINE_S
        told = 0
        while True:
            under_test.follow([], [Standing(service, judgement)], time_s)
            told += sum(snapshot.is_taken for snapshot in under_test.told)
            if not any(known.is_waiting for known in under_test._followed.values()):
                return told
            assert time.monotonic() < deadline
            time.sleep(0.01)

    assert [taken_at(time_s) for time_s in (0.0, 3599.0, 3601.0, 3700.0)] == [0, 0, 1, 0]


def test_each_file_is_handed_to_the_operators_command(target, settings, following, tmp_path):
    moved = tmp_path / "moved"
    moved.mkdir()
    process = Host().process_id(target.pid)
    under_test = following(replace(settings, command=f"mv -t {moved}"))
    (snapshot,) = results(under_test, suspect(process, Verdict.LEAKING))
    assert under_test._mover is not None
    assert under_test._mover.finish()
    assert [path.name for path in moved.iterdir()] == [Path(snapshot.path).name]
