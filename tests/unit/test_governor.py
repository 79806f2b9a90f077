"""The budget's arithmetic, by tables and by playing whole days of a target's life."""

from __future__ import annotations

import pytest

from mwtrace.probes.governor import (
    FIRST_WINDOW_S,
    INTERVAL_MAX_BYTES,
    INTERVAL_MIN_BYTES,
    LONG_WINDOW_MAX_S,
    OVERRUN,
    PERIOD_MAX_S,
    PERIOD_MIN_S,
    WINDOW_MAX_S,
    WINDOW_MIN_S,
    Budget,
    Prices,
    Seen,
    Spending,
    account,
    begin,
    begin_host,
    choose_interval,
    plan,
    rest_s,
)

BUDGET = Budget()
PRICES = Prices(hit_ns=900.0, return_ns=600.0, stopped_hit_ns=800.0, sample_ns=3000.0)
UNLIMITED = Spending(0.0, 1e9)


def seen(hits_per_s: float, duration_s: float, cut: bool = False, size: int = 64) -> Seen:
    hits = int(hits_per_s * duration_s)
    return Seen(duration_s, hits * PRICES.hit_ns * 1e-9, hits, hits // 100, hits * size, cut)


def test_the_first_window_is_short_and_assumes_the_worst():
    window, wait = plan(begin(0.0, BUDGET), begin_host(0.0, BUDGET), 0.0, BUDGET, PRICES)
    assert wait is None
    assert window.duration_s == FIRST_WINDOW_S
    assert window.cost_max_s == pytest.approx(FIRST_WINDOW_S * OVERRUN)


@pytest.mark.parametrize(
    ("hits_per_s", "least_s", "most_s"),
    [
        pytest.param(0.0, LONG_WINDOW_MAX_S, LONG_WINDOW_MAX_S, id="idle: as long as one may be"),
        pytest.param(1_000.0, LONG_WINDOW_MAX_S, LONG_WINDOW_MAX_S, id="calm: the same"),
        pytest.param(200_000.0, WINDOW_MAX_S, WINDOW_MAX_S, id="at work: half a second"),
        pytest.param(500_000.0, 0.3, 0.5, id="busy: as far as the savings reach"),
        pytest.param(1_100_000.0, 0.1, 0.25, id="nothing but allocations: a fifth of a second"),
    ],
)
def test_the_rate_seen_sets_the_next_window(hits_per_s, least_s, most_s):
    course, host = account(begin(0.0, BUDGET), UNLIMITED, seen(hits_per_s, FIRST_WINDOW_S))
    window, _ = plan(course, host, 5.0, BUDGET, PRICES)
    assert window is not None
    assert least_s <= window.duration_s <= most_s


def test_a_bucket_that_is_spent_is_waited_for_as_long_as_it_takes_to_fill():
    course, host = account(begin(0.0, BUDGET), UNLIMITED, seen(1e6, 1.0))
    window, wait = plan(course, host, 1.0, BUDGET, PRICES)
    assert window is None
    assert "target's budget" in wait.why
    again, _ = plan(course, host, wait.until_s + 0.001, BUDGET, PRICES)
    assert again is not None
    assert again.duration_s == pytest.approx(WINDOW_MIN_S, rel=0.01)


def test_the_hosts_budget_binds_a_target_that_has_spent_nothing():
    spent = begin_host(0.0, BUDGET).less(2.0)
    window, wait = plan(begin(0.0, BUDGET), spent, 0.0, BUDGET, PRICES)
    assert window is None
    assert "host's budget" in wait.why


def test_a_budget_too_small_for_any_window_is_said_and_not_broken():
    tiny = Budget(target_share=1e-5, host_share=1e-5)
    window, wait = plan(begin(0.0, tiny), begin_host(0.0, tiny), 0.0, tiny, PRICES)
    assert window is None
    assert "cost more" in wait.why
    assert wait.until_s == PERIOD_MAX_S


def test_savings_have_an_end():
    later = begin(0.0, BUDGET).spending.at(1e9, BUDGET.target_share)
    assert later.saved_s == pytest.approx(0.6)


def test_a_clock_that_goes_back_earns_nothing():
    spending = Spending(100.0, 0.1)
    assert spending.at(50.0, 0.01) == spending


def test_a_rate_that_rises_is_believed_at_once_and_one_that_falls_slowly():
    course, host = account(begin(0.0, BUDGET), UNLIMITED, seen(1e5, 0.1))
    low = course.cost_share
    course, host = account(course, host, seen(1e6, 0.1))
    assert course.cost_share == pytest.approx(10 * low, rel=0.01)
    course, host = account(course, host, seen(0.0, 0.1))
    assert course.cost_share == pytest.approx(5 * low, rel=0.01)


@pytest.mark.parametrize("hits_per_s", [0.0, 100.0, 30_000.0, 1e6, 5e6])
@pytest.mark.parametrize("target_share", [0.001, 0.01, 0.05])
def test_a_day_of_windows_stays_within_the_budget(hits_per_s, target_share):
    budget = Budget(target_share, 1.0)
    course, host = begin(0.0, budget), begin_host(0.0, budget)
    time_s, day_s, windows = 0.0, 86_400.0, 0
    while time_s < day_s:
        window, wait = plan(course, host, time_s, budget, PRICES)
        if window is None:
            assert wait.until_s > time_s
            time_s = wait.until_s
            continue
        # A probed target gets slower: it cannot hit more often than the probes let it.
        possible = min(hits_per_s, 1e9 / PRICES.hit_ns)
        result = seen(possible, window.duration_s)
        assert result.cost_s <= window.cost_max_s * 1.01
        time_s += window.duration_s
        course, host = account(course, host.at(time_s, budget.host_share), result)
        course = course.__class__(
            **{**course.__dict__, "spending": course.spending.at(time_s, target_share)}
        )
        windows += 1
        time_s += rest_s(course, window, budget)
    assert course.spending.spent_s <= target_share * day_s + begin(0.0, budget).spending.saved_s
    assert windows > day_s / PERIOD_MAX_S / 2
    if hits_per_s >= 1e6:
        # ... and what is granted is made use of.
        assert course.spending.spent_s > 0.3 * target_share * day_s


def test_rests_have_bounds():
    course, _ = account(begin(0.0, BUDGET), UNLIMITED, seen(0.0, 0.1))
    window, _ = plan(course, UNLIMITED, 1.0, BUDGET, PRICES)
    assert rest_s(course, window, BUDGET) == PERIOD_MIN_S
    busy, _ = account(course, UNLIMITED, seen(1e9, 0.1))
    assert rest_s(busy, window, BUDGET) == PERIOD_MAX_S


@pytest.mark.parametrize("bytes_per_s", [0.0, 1e3, 1e6, 1e9, 1e13])
@pytest.mark.parametrize("hits_per_s", [0.0, 1e3, 1e6])
def test_the_interval_is_a_power_of_two_within_bounds(bytes_per_s, hits_per_s):
    course = begin(0.0, BUDGET)
    course = course.__class__(
        course.spending, 0.1, 0.0, hits_per_s, bytes_per_s, course.interval_bytes, 1, 0
    )
    interval = choose_interval(course, 0.2, PRICES)
    assert INTERVAL_MIN_BYTES <= interval <= INTERVAL_MAX_BYTES
    assert interval & (interval - 1) == 0


def test_samples_cost_no_more_than_their_share():
    course, _ = account(begin(0.0, BUDGET), UNLIMITED, seen(1e6, 0.1, size=100))
    interval = choose_interval(course, 0.2, PRICES)
    samples_per_s = course.bytes_per_s / interval
    traps_s = course.hits_per_s * PRICES.hit_ns * 1e-9
    assert samples_per_s * PRICES.sample_ns * 1e-9 <= traps_s / 2


def test_prices_have_the_names_of_the_counts():
    cost = PRICES.cost_s({"hits_total": 1000, "returns_total": 10, "blocks_total": 5, "other": 99})
    assert cost == pytest.approx((1000 * 900 + 10 * 600 + 5 * 3000) * 1e-9)
