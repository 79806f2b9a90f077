"""The clock that thins itself, and the pasts kept by it."""

from __future__ import annotations

import pytest

from mwtrace.capi import ffi, lib

SECOND = 10**9


def run(values):
    """Tick once a second; return clock and past as they then are."""
    ticks, past = ffi.new("struct mw_ticks *"), ffi.new("struct mw_past *")
    for second, value in enumerate(values, start=1):
        index = lib.mw_ticks_advance(ticks, second * SECOND)
        if index < 0:
            continue
        if ticks.thinned:
            lib.mw_past_thin(past)
        past.values[index] = value
    return ticks, past


@pytest.mark.parametrize("count", [1, 31, 32, 33, 64, 65, 1000, 100_000])
def test_kept_samples_are_evenly_spaced_over_the_whole_time(count):
    ticks, past = run(range(1, count + 1))
    times = [ticks.times_ns[i] // SECOND for i in range(ticks.count)]
    assert [past.values[i] for i in range(ticks.count)] == times
    assert times[0] == 1
    assert {later - earlier for earlier, later in zip(times, times[1:])} <= {ticks.stride}
    assert count - times[-1] < ticks.stride
    assert ticks.count <= 32
    assert count < 32 or ticks.count >= 16


def test_a_tick_that_does_not_advance_is_not_kept():
    ticks = ffi.new("struct mw_ticks *")
    assert lib.mw_ticks_advance(ticks, SECOND) == 0
    assert lib.mw_ticks_advance(ticks, SECOND) == -1
    assert lib.mw_ticks_advance(ticks, SECOND - 1) == -1
    assert lib.mw_ticks_advance(ticks, SECOND + 1) == 1


def test_the_slope_of_a_line_is_found_after_any_thinning():
    ticks, past = run([second * 1000 for second in range(1, 5001)])
    fit = ffi.new("struct mw_fit *")
    lib.mw_past_fit(past, ticks, 0, 5001 * SECOND, 5001 * 1000, fit)
    assert fit.theil_sen_bytes_per_second == pytest.approx(1000)
    assert fit.last_bytes == 5001 * 1000


def test_samples_before_the_birth_are_not_fitted():
    ticks, past = run([0] * 10 + [second * 1000 for second in range(10)])
    fit = ffi.new("struct mw_fit *")
    lib.mw_past_fit(past, ticks, 11 * SECOND, 21 * SECOND, 10_000, fit)
    assert fit.sample_count == 11
    assert fit.theil_sen_bytes_per_second == pytest.approx(1000)


def test_too_few_samples_leave_the_fit_empty():
    ticks, past = run([1, 2, 3])
    fit = ffi.new("struct mw_fit *", {"sample_count": 99})
    lib.mw_past_fit(past, ticks, 0, 4 * SECOND, 4, fit)
    assert fit.sample_count == 0
    assert fit.theil_sen_bytes_per_second == 0


def test_the_rise_is_measured_from_the_least_of_the_newer_half():
    ticks, past = run([0, 0, 50, 70])
    assert lib.mw_past_rise(past, ticks, 90) == 40
    assert lib.mw_past_rise(past, ticks, 20) == 0
