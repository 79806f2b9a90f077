"""The judge alone: fits and memories in, verdicts out. No aggregator, no clock."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import pytest

from mwtrace.judge.trend import MIB, Thresholds, doubt, trend
from mwtrace.judge.verdict import Memory, judge, of_service, with_limit
from mwtrace.model import Fit, Judgement, Limit, Service, ServiceKind, Subject, SubjectId, Verdict

THRESHOLDS = Thresholds()
STARTED_S = 1000.0
RATE = 1.0 * MIB
SPAN_S = 80.0

LEARNING, STEADY, WARMING_UP, GROWING, LEAKING = Verdict


def fit(span_s: float = SPAN_S, rate: float = RATE, end_s: float = 0.0, **fields: Any) -> Fit:
    """A window that rises like a line that a child would draw."""
    growth = rate * span_s * 0.8
    line = Fit(
        first_time_s=end_s - span_s,
        span_s=span_s,
        last_bytes=100 * MIB,
        least_squares_bytes_per_second=rate,
        theil_sen_bytes_per_second=rate,
        theil_sen_low_bytes_per_second=0.95 * rate,
        theil_sen_high_bytes_per_second=1.05 * rate,
        tail_bytes_per_second=rate,
        trend_z=5.0,
        swing_bytes=0.01 * growth,
        envelope_growth_bytes=growth,
        rise_bytes=(growth / 4,) * 4,
        onset_time_s=end_s - span_s,
        step_time_s=0.0,
        step_bytes=0.0,
        earlier_peak_bytes=0.0,
        sample_count=16,
    )
    return line._replace(**fields)


def subject(age_s: float, *fits: Fit, **fields: Any) -> Subject:
    time_s = STARTED_S + age_s
    values: dict[str, Any] = {
        "id": SubjectId(Service("orders", ServiceKind.COMMAND), None),
        "time_s": time_s,
        "started_s": STARTED_S,
        "first_time_s": STARTED_S,
        "private_bytes": 100 * MIB,
        "file_bytes": 0,
        "shmem_bytes": 0,
        "total_vm_bytes": 0,
        "process_count": 1,
        "largest_pid": 7,
        "cgroup_id": 0,
        "levels": (fits,) if fits else (),
    }
    return Subject(**{**values, **fields})


def verdict_of(memory: Memory) -> Verdict:
    return memory.judgement.verdict


# -- one tick ------------------------------------------------------------------------------------


def test_who_was_watched_for_a_short_time_is_not_called_steady() -> None:
    assert trend(subject(39.9), THRESHOLDS).verdict is LEARNING
    assert trend(subject(40.0), THRESHOLDS).verdict is STEADY


def test_an_old_process_that_was_just_found_is_learned_first() -> None:
    found_late = subject(9000.0, first_time_s=STARTED_S + 8990.0)
    assert trend(found_late, THRESHOLDS).verdict is LEARNING


def test_a_line_is_a_leak_unless_it_is_young() -> None:
    assert trend(subject(300.0, fit()), THRESHOLDS).verdict is LEAKING
    assert trend(subject(59.0, fit()), THRESHOLDS).verdict is WARMING_UP


GROWTH = fit().envelope_growth_bytes
DOUBTS = {
    "its growth slows down": fit(
        rise_bytes=(GROWTH * 0.3, GROWTH * 0.3, GROWTH * 0.2, GROWTH * 0.2)
    ),
    "it grows unevenly": fit(rise_bytes=(GROWTH * 0.01, GROWTH * 0.3, GROWTH * 0.3, GROWTH * 0.39)),
    "it swings by more than it has grown": fit(swing_bytes=GROWTH),
    "it has grown by little": fit(rate=0.04 * MIB),
    "growth at this speed has to be watched for longer": fit(rate=0.25 * MIB),
    "it has been as large before": fit(earlier_peak_bytes=100.5 * MIB),
}


@pytest.mark.parametrize(("why", "window"), DOUBTS.items(), ids=list(DOUBTS))
def test_each_doubt_keeps_growth_from_being_called_a_leak(why: str, window: Fit) -> None:
    assert doubt(window, 100 * MIB, THRESHOLDS) == why
    seen = trend(subject(3600.0, window), THRESHOLDS)
    assert (seen.verdict, seen.why) == (GROWING, why)


def test_a_large_service_has_to_grow_by_more() -> None:
    assert doubt(fit(), 100 * MIB, THRESHOLDS) is None
    assert doubt(fit(), 20_000 * MIB, THRESHOLDS) == "it has grown by little"


def test_growth_that_slows_down_is_a_warm_up_for_ten_minutes() -> None:
    slowing = DOUBTS["its growth slows down"]
    assert trend(subject(599.0, slowing), THRESHOLDS).verdict is WARMING_UP
    assert trend(subject(601.0, slowing), THRESHOLDS).verdict is GROWING


NO_GROWTH = {
    "too little": fit(envelope_growth_bytes=0.9 * MIB),
    "over by now": fit(rise_bytes=(GROWTH / 3, GROWTH / 3, GROWTH / 3, 0.0)),
    "falling on the whole": fit(theil_sen_bytes_per_second=-1.0),
    "chance": fit(swing_bytes=GROWTH, trend_z=2.4),
    "an interval that holds nothing": fit(swing_bytes=GROWTH, theil_sen_low_bytes_per_second=-1.0),
}


@pytest.mark.parametrize("window", NO_GROWTH.values(), ids=list(NO_GROWTH))
def test_what_is_no_growth(window: Fit) -> None:
    assert trend(subject(3600.0, window), THRESHOLDS).verdict is STEADY


def test_a_plain_line_needs_no_test_of_chance() -> None:
    plain = fit(trend_z=0.0, theil_sen_low_bytes_per_second=-1.0)
    assert trend(subject(3600.0, plain), THRESHOLDS).verdict is LEAKING


def test_the_longest_window_that_convinces_decides() -> None:
    short, long, doubtful = fit(80), fit(300), fit(600, swing_bytes=600 * MIB)
    assert trend(subject(3600.0, short, long, doubtful), THRESHOLDS).window == long


def test_a_slower_leak_is_watched_for_longer() -> None:
    needed = [THRESHOLDS.needed_s(rate) for rate in (10 * MIB, MIB, 100 * 1024, 10 * 1024)]
    assert needed[0] == needed[1] == 60.0
    assert needed[1] < needed[2] < needed[3] < 600.0


# -- from tick to tick ---------------------------------------------------------------------------


def test_a_leak_is_told_when_it_has_persisted_for_an_eighth_of_the_window() -> None:
    memory = judge(subject(100.0, fit()), None, THRESHOLDS)
    assert verdict_of(memory) is GROWING
    assert memory.judgement.why == "about to be confirmed"
    memory = judge(subject(109.9, fit()), memory, THRESHOLDS)
    assert verdict_of(memory) is GROWING
    memory = judge(subject(110.0, fit()), memory, THRESHOLDS)
    assert verdict_of(memory) is LEAKING


def test_a_break_begins_the_confirmation_anew() -> None:
    memory = judge(subject(100.0, fit()), None, THRESHOLDS)
    memory = judge(subject(105.0, DOUBTS["it grows unevenly"]), memory, THRESHOLDS)
    memory = judge(subject(110.0, fit()), memory, THRESHOLDS)
    assert verdict_of(memory) is GROWING
    memory = judge(subject(120.0, fit()), memory, THRESHOLDS)
    assert verdict_of(memory) is LEAKING


def leaking_at(age_s: float) -> Memory:
    memory = judge(subject(age_s - 10.0, fit()), None, THRESHOLDS)
    memory = judge(subject(age_s, fit()), memory, THRESHOLDS)
    assert verdict_of(memory) is LEAKING
    return memory


@pytest.mark.parametrize(
    ("seen", "then"), [((), STEADY), ((DOUBTS["it grows unevenly"],), GROWING)]
)
def test_a_leak_is_taken_back_after_a_minute_of_less(seen: tuple[Fit, ...], then: Verdict) -> None:
    memory = leaking_at(200.0)
    for age_s in (205.0, 230.0, 264.9):
        memory = judge(subject(age_s, *seen), memory, THRESHOLDS)
        assert verdict_of(memory) is LEAKING
    assert verdict_of(judge(subject(265.0, *seen), memory, THRESHOLDS)) is then


def test_growth_that_goes_on_within_the_minute_begins_it_anew() -> None:
    memory = leaking_at(200.0)
    memory = judge(subject(205.0), memory, THRESHOLDS)
    memory = judge(subject(260.0, fit()), memory, THRESHOLDS)
    memory = judge(subject(270.0), memory, THRESHOLDS)
    assert verdict_of(memory) is LEAKING


def test_growing_is_told_at_once_and_steady_to_growing_needs_no_minute() -> None:
    memory = judge(subject(100.0), None, THRESHOLDS)
    assert verdict_of(memory) is STEADY
    memory = judge(subject(105.0, DOUBTS["it grows unevenly"]), memory, THRESHOLDS)
    assert verdict_of(memory) is GROWING


def test_one_growth_has_one_beginning_even_if_the_window_sees_its_end_only() -> None:
    memory = leaking_at(200.0)
    began_s = memory.judgement.since_s
    late = fit(onset_time_s=began_s + 500.0)
    assert judge(subject(800.0, late), memory, THRESHOLDS).judgement.since_s == began_s


def test_steady_is_said_since_it_was_first_said() -> None:
    memory = judge(subject(100.0), None, THRESHOLDS)
    memory = judge(subject(105.0), memory, THRESHOLDS)
    assert memory.judgement.since_s == STARTED_S + 100.0


def test_a_history_that_began_anew_is_somebody_else() -> None:
    memory = leaking_at(200.0)
    anew = subject(205.0, first_time_s=STARTED_S + 205.0)
    judged = judge(anew, memory, THRESHOLDS)
    assert verdict_of(judged) is LEARNING
    assert judged.judgement.slope_bytes_per_second is None


def test_the_judgement_shows_the_numbers_of_the_window_that_decided() -> None:
    judgement = leaking_at(200.0).judgement
    assert judgement.slope_bytes_per_second == RATE
    assert judgement.slope_low_bytes_per_second == 0.95 * RATE
    assert judgement.slope_high_bytes_per_second == 1.05 * RATE
    assert (judgement.grown_bytes, judgement.window_s) == (int(GROWTH), SPAN_S)


# -- services ------------------------------------------------------------------------------------

WORKER = Judgement(
    LEAKING,
    since_s=500.0,
    slope_bytes_per_second=1000.0,
    slope_low_bytes_per_second=900.0,
    slope_high_bytes_per_second=1100.0,
    grown_bytes=7,
    why="a worker",
)
CALM = Judgement(STEADY, 400.0, why="calm")


def test_the_worst_worker_speaks_for_a_calm_service_and_slopes_add_up() -> None:
    second = replace(WORKER, since_s=450.0, slope_bytes_per_second=2000.0, why="the faster")
    bystander = Judgement(GROWING, 300.0, slope_bytes_per_second=9e9)
    joined = of_service(CALM, [WORKER, second, bystander])
    assert (joined.verdict, joined.why, joined.since_s) == (LEAKING, "the faster", 450.0)
    assert joined.slope_bytes_per_second == 3000.0
    assert joined.slope_low_bytes_per_second == 1800.0
    assert joined.slope_high_bytes_per_second == 2200.0
    assert joined.grown_bytes == 14


def test_a_service_that_leaks_as_a_whole_speaks_for_itself() -> None:
    own = replace(WORKER, why="the sum")
    assert of_service(own, [WORKER]) is own
    assert of_service(own, []) is own


@pytest.mark.parametrize("verdict", [LEARNING, STEADY, WARMING_UP])
def test_a_worker_that_is_no_news_changes_nothing(verdict: Verdict) -> None:
    assert of_service(CALM, [Judgement(verdict, 1.0)]) is CALM


def test_the_forecast_is_what_is_left_divided_by_the_slope() -> None:
    limit = Limit(10_000, 5_000, "cgroup")
    assert with_limit(WORKER, limit).forecast_s == 5.0
    assert with_limit(WORKER, Limit(10_000, -3, "cgroup")).forecast_s == 0.0
    assert with_limit(WORKER, None).forecast_s is None
    assert with_limit(CALM, limit) == replace(CALM, limit=limit)


def test_there_is_no_forecast_without_growth() -> None:
    falling = dataclasses.replace(WORKER, slope_bytes_per_second=-1.0)
    assert with_limit(falling, Limit(10, 5, "host")).forecast_s is None
