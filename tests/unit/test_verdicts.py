"""Verdicts on made-up hosts: the real aggregator and judge over hours that last milliseconds."""

from __future__ import annotations

import math

import pytest
from watched import BEGIN_S, TICK_S, Watched, leak, steady

from mwtrace.aggregator import Limits
from mwtrace.judge.trend import MIB
from mwtrace.model import Limit, Verdict

LEARNING, STEADY, WARMING_UP, GROWING, LEAKING = Verdict
HOUR_S = 3600.0


@pytest.fixture
def host() -> Watched:
    return Watched()


def test_a_leak_goes_through_all_verdicts_in_order(host: Watched) -> None:
    host.start(7, 1, steady(30 * MIB))
    host.run(120)
    host.execute(7, leak(0.25 * MIB, 30 * MIB))
    host.run_until(1, LEAKING, 400)
    assert host.told(1) == [LEARNING, STEADY, GROWING, LEAKING]
    assert host.judgement(1).slope_bytes_per_second == pytest.approx(0.25 * MIB, rel=0.05)
    assert host.judgement(1).since_s == pytest.approx(BEGIN_S + 120, abs=30)


def test_a_young_leak_is_warming_up_first(host: Watched) -> None:
    host.start(7, 1, leak(4 * MIB))
    host.run_until(1, LEAKING, 100)
    assert host.told(1) == [LEARNING, WARMING_UP, GROWING, LEAKING]


@pytest.mark.parametrize(
    ("rate", "within_s"),
    [
        (2 * MIB, 95),
        (1 * MIB, 95),
        (0.1 * MIB, 300),
        (10 * 1024, 1200),
        (12 * MIB / 86400, 2 * 86400),
    ],
)
def test_a_leak_is_named_in_time_whatever_its_speed(
    host: Watched, rate: float, within_s: float
) -> None:
    host.start(7, 1, leak(rate))
    host.run_until(1, LEAKING, within_s)
    assert host.judgement(1).slope_bytes_per_second == pytest.approx(rate, rel=0.1)


def test_the_limit_and_the_forecast_are_told_with_growth() -> None:
    host = Watched(limit=Limit(1024 * MIB, 512 * MIB, "cgroup"))
    host.start(7, 1, leak(MIB))
    host.start(8, 2, steady(MIB))
    host.run(120)
    assert host.judgement(1).forecast_s == pytest.approx(512, rel=0.05)
    assert host.judgement(2).limit is None


# -- several processes ---------------------------------------------------------------------------


def test_prefork_workers_are_judged_each_and_together(host: Watched) -> None:
    host.start(10, 1, steady(50 * MIB))
    for pid in (11, 12, 13, 14):
        host.start(pid, 1, leak(0.5 * MIB))
    host.run(180)
    assert host.judgement(1).slope_bytes_per_second == pytest.approx(2 * MIB, rel=0.05)
    guilty = dict(host.verdicts.guilty(1))
    assert sorted(process.pid for process in guilty) == [11, 12, 13, 14]
    assert {judgement.verdict for judgement in guilty.values()} == {LEAKING}
    for judgement in guilty.values():
        assert judgement.slope_bytes_per_second == pytest.approx(0.5 * MIB, rel=0.05)


def test_a_worker_that_leaks_is_named_though_restarts_keep_the_sum_level(host: Watched) -> None:
    host.start(10, 1, leak(0.5 * MIB))
    # What its siblings lose by restarts is what it gains.
    host.start(11, 1, lambda age_s: 400 * MIB - 0.5 * MIB * age_s)
    host.run_until(1, LEAKING, 200)
    assert [process.pid for process, _ in host.verdicts.guilty(1)] == [10]
    assert host.judgement(1).slope_bytes_per_second == pytest.approx(0.5 * MIB, rel=0.05)


def test_a_service_that_leaks_by_the_number_of_its_processes_is_named(host: Watched) -> None:
    for number in range(60):
        host.start(100 + number, 1, steady(5 * MIB))
        host.run(10)
    assert host.verdict(1) is LEAKING
    assert list(host.verdicts.guilty(1)) == []
    assert host.judgement(1).slope_bytes_per_second == pytest.approx(0.5 * MIB, rel=0.1)


def test_a_leaking_worker_that_ends_takes_its_guilt_along(host: Watched) -> None:
    host.start(10, 1, steady(300 * MIB))
    host.start(11, 1, leak(0.5 * MIB))
    host.run(180)
    assert host.verdict(1) is LEAKING
    host.end(11)
    host.run(90)
    assert host.verdict(1) is STEADY
    assert list(host.verdicts.guilty(1)) == []


def test_one_service_says_nothing_of_another(host: Watched) -> None:
    host.start(7, 1, leak(MIB))
    host.start(8, 2, steady(100 * MIB))
    host.run(200)
    assert (host.verdict(1), host.verdict(2)) == (LEAKING, STEADY)
    assert host.told(2) == [LEARNING, STEADY]


# -- ends and beginnings -------------------------------------------------------------------------


def test_a_service_that_goes_and_comes_back_is_no_news_until_it_is_another(host: Watched) -> None:
    host.start(7, 1, leak(MIB))
    host.run(150)
    told = host.told(1)
    assert told[-1] is LEAKING
    host.end(7)
    host.run(60)
    assert host.verdicts.standings[1].is_gone
    host.start(8, 1, leak(MIB))
    host.run(20)
    assert not host.verdicts.standings[1].is_gone
    host.run_until(1, LEAKING, 100)
    # The new process is learned and judged by what it does itself.
    assert host.told(1) == [*told, LEARNING, WARMING_UP, GROWING, LEAKING]


def test_a_forgotten_service_leaves_nothing_behind(host: Watched) -> None:
    host.start(7, 1, leak(MIB))
    host.run(150)
    host.end(7)
    host.run(10)
    host.verdicts.forget(1)
    assert host.verdicts.standings == {}
    host.start(8, 1, steady(MIB))
    host.run(60)
    assert host.told(1)[-2:] == [LEARNING, STEADY]


def test_exec_clears_a_process_of_what_the_program_before_did(host: Watched) -> None:
    host.start(6, 1, steady(500 * MIB))
    host.start(7, 1, leak(MIB))
    host.run(150)
    assert [process.pid for process, _ in host.verdicts.guilty(1)] == [7]
    host.execute(7, steady(10 * MIB))
    host.run(2 * TICK_S)
    assert list(host.verdicts.guilty(1)) == []
    host.run(60)
    assert host.verdict(1) is STEADY


def test_a_small_calm_service_beyond_the_rows_is_taken_back_to_steady() -> None:
    host = Watched(Limits(processes_max=64, services_max=32, unnamed_max=64, rows_max=4))
    host.start(7, 1, lambda age_s: 20 * MIB + age_s * MIB / 4 if age_s <= 200 else 10 * MIB)
    host.run(200)
    assert host.verdict(1) is LEAKING
    for pid in range(20, 28):
        host.start(pid, pid, steady(900 * MIB))
    host.run(60)
    assert 1 not in {row.service_id for row in host.tick().rows}
    assert host.verdict(1) is STEADY


def test_a_service_that_had_a_row_only_while_young_is_not_called_learning_for_ever() -> None:
    host = Watched(Limits(processes_max=64, services_max=32, unnamed_max=64, rows_max=4))
    host.start(7, 1, steady(MIB))
    host.run(15)
    assert host.verdict(1) is LEARNING
    for pid in range(20, 28):
        host.start(pid, pid, steady(900 * MIB))
    host.run(60)
    assert host.verdict(1) is STEADY


def test_a_storm_of_ending_services_neither_hides_a_leak_nor_leaves_ghosts() -> None:
    host = Watched(Limits(processes_max=64, services_max=32, unnamed_max=64, rows_max=4))
    host.start(7, 1, leak(MIB))
    host.run(60)
    for pid in range(20, 30):
        host.start(pid, pid, steady(MIB))
    host.run(15)
    for pid in range(20, 30):
        host.end(pid)
    host.run_until(1, LEAKING, 60)
    host.run(60)
    alive = [i for i, standing in host.verdicts.standings.items() if not standing.is_gone]
    assert alive == [1]


# -- look-alikes ---------------------------------------------------------------------------------


def saw(period_s: float, bytes_per_second: float) -> object:
    return lambda age_s: 50 * MIB + bytes_per_second * (age_s % period_s)


def test_a_short_saw_is_never_accused(host: Watched) -> None:
    host.start(7, 1, saw(40.0, 2 * MIB))
    host.run(2 * HOUR_S)
    assert LEAKING not in host.told(1)


@pytest.mark.parametrize("period_s", [600.0, 1800.0])
def test_the_second_tooth_of_a_long_saw_is_not_accused(host: Watched, period_s: float) -> None:
    host.start(7, 1, saw(period_s, 0.2 * MIB))
    host.run(period_s + 60)
    first = host.told(1).count(LEAKING)
    host.run(6 * period_s)
    assert host.told(1).count(LEAKING) == first


def test_a_daily_rhythm_is_not_accused_from_the_second_day_on() -> None:
    host = Watched(tick_s=30.0)
    host.start(7, 1, lambda age_s: (200 - 100 * math.cos(age_s / 86400 * 2 * math.pi)) * MIB)
    host.run(24 * HOUR_S)
    first = host.told(1).count(LEAKING)
    host.run(2 * 24 * HOUR_S)
    assert host.told(1).count(LEAKING) == first


def test_a_step_and_a_cache_that_fills_are_never_accused(host: Watched) -> None:
    host.start(7, 1, lambda age_s: (30 if age_s < 300 else 300) * MIB)
    host.start(8, 2, lambda age_s: 20 * MIB + 200 * MIB * (1 - math.exp(-age_s / 120)))
    host.run(HOUR_S)
    assert LEAKING not in host.told(1)
    assert LEAKING not in host.told(2)
    assert (host.verdict(1), host.verdict(2)) == (STEADY, STEADY)


def test_a_leak_beneath_a_saw_is_named_by_its_lower_envelope(host: Watched) -> None:
    host.start(7, 1, lambda age_s: 50 * MIB + 0.5 * MIB * age_s + 2 * MIB * (age_s % 20))
    host.run_until(1, LEAKING, 400)
    assert host.judgement(1).slope_bytes_per_second == pytest.approx(0.5 * MIB, rel=0.1)
