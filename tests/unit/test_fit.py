"""The C fits against slow, obvious Python, on shapes with known answers and on random ones."""

from __future__ import annotations

import random
import statistics

import pytest

from mwtrace.capi import ffi, lib

MIB = 1024 * 1024
SEEDS = range(20)


def fit(times_s, sizes):
    ret = ffi.new("struct mw_fit *")
    rc = lib.mw_fit_compute(times_s, sizes, len(sizes), ret)
    return rc, ret


def good_fit(times_s, sizes):
    rc, ret = fit(times_s, sizes)
    assert rc == 0
    return ret


def ticks(count, step_s=5.0):
    return [step_s * i for i in range(count)]


def slopes(times_s, sizes):
    pairs = [(i, j) for i in range(len(sizes)) for j in range(i + 1, len(sizes))]
    return [(sizes[j] - sizes[i]) / (times_s[j] - times_s[i]) for i, j in pairs]


def block_minima(sizes):
    n = lib.MW_FIT_BLOCKS
    bounds = [k * len(sizes) // n for k in range(n + 1)]
    return [min(sizes[bounds[k] : bounds[k + 1]]) for k in range(n)]


def random_column(seed):
    source = random.Random(seed)
    count = source.randint(lib.MW_FIT_SAMPLES_MIN, lib.MW_FIT_SAMPLES_MAX)
    times_s = [5 * i + source.random() for i in range(count)]
    rise, noise = source.choice([0, 1, 1000]), source.choice([0, 1, 5000])
    return times_s, [float(round(rise * i + source.gauss(0, noise))) for i in range(count)]


@pytest.mark.parametrize("seed", SEEDS)
def test_theil_sen_is_the_median_of_all_pairwise_slopes(seed):
    times_s, sizes = random_column(seed)
    expected = statistics.median(slopes(times_s, sizes))
    found = good_fit(times_s, sizes).theil_sen_bytes_per_second
    assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_least_squares_agrees_with_the_standard_library(seed):
    times_s, sizes = random_column(seed)
    expected = covariance(times_s, sizes) / covariance(times_s, times_s)
    found = good_fit(times_s, sizes).least_squares_bytes_per_second
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def covariance(xs, ys):
    mean_x, mean_y = statistics.fmean(xs), statistics.fmean(ys)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_interval_holds_the_slope_and_the_envelope_is_that_of_block_minima(seed):
    times_s, sizes = random_column(seed)
    found = good_fit(times_s, sizes)
    low, slope = found.theil_sen_low_bytes_per_second, found.theil_sen_bytes_per_second
    assert low <= slope <= found.theil_sen_high_bytes_per_second
    minima = block_minima(sizes)
    assert list(found.rise_bytes) == [b - a for a, b in zip(minima, minima[1:])]
    assert found.envelope_growth_bytes == minima[-1] - minima[0]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_largest_rise_between_two_samples_is_the_step(seed):
    times_s, sizes = random_column(seed)
    found = good_fit(times_s, sizes)
    rises = [b - a for a, b in zip(sizes, sizes[1:])]
    assert found.step_bytes == max(0, *rises)
    if found.step_bytes:
        assert found.step_time_s == times_s[1 + rises.index(found.step_bytes)]


def test_the_interval_covers_the_true_slope_in_nineteen_of_twenty_noisy_lines():
    source = random.Random(1)
    covered = 0
    for _ in range(400):
        sizes = [1000.0 * i + source.gauss(0, 20_000) for i in range(60)]
        found = good_fit(ticks(60), sizes)
        low, high = found.theil_sen_low_bytes_per_second, found.theil_sen_high_bytes_per_second
        covered += low <= 200.0 <= high
    assert covered >= 370  # 380 expected; 370 is 2.3 standard deviations below


def test_a_straight_line_rose_from_its_first_sample_and_leaves_nothing_over():
    found = good_fit(ticks(60), [float(MIB * i) for i in range(60)])
    assert found.onset_time_s == 0
    assert found.swing_bytes == 0
    assert found.theil_sen_low_bytes_per_second == found.theil_sen_high_bytes_per_second == MIB / 5
    assert found.tail_bytes_per_second == MIB / 5


def test_growth_after_a_calm_has_its_onset_where_it_bends():
    found = good_fit(ticks(60), [float(MIB * max(0, i - 20)) for i in range(60)])
    assert found.onset_time_s == pytest.approx(100, abs=5)


def test_one_outlier_moves_least_squares_but_not_theil_sen():
    sizes = [float(1000 * i) for i in range(40)]
    sizes[20] += 100 * MIB
    found = good_fit(ticks(40), sizes)
    assert found.theil_sen_bytes_per_second == pytest.approx(200)
    assert found.least_squares_bytes_per_second != pytest.approx(200, rel=0.1)


def test_a_sawtooth_has_no_rising_envelope():
    sizes = [float(MIB * (i % 4)) for i in range(60)]
    found = good_fit(ticks(60), sizes)
    assert found.envelope_growth_bytes == 0
    assert found.swing_bytes >= 2 * MIB


@pytest.mark.parametrize(
    ("times_s", "sizes"),
    [
        (ticks(4), [1.0] * 4),
        (ticks(61), [1.0] * 61),
        ([0, 1, 2, 2, 3], [1.0] * 5),
        ([0, 1, 2, 1.5, 3], [1.0] * 5),
        ([0, 1, 2, float("nan"), 3], [1.0] * 5),
        (ticks(5), [1, 2, 3, float("inf"), 4]),
    ],
)
def test_what_is_no_window_is_refused_and_leaves_nothing_behind(times_s, sizes):
    rc, ret = fit(times_s, sizes)
    assert rc < 0
    assert bytes(ffi.buffer(ret)) == bytes(ffi.sizeof("struct mw_fit"))


def test_a_level_fits_its_newest_samples_in_every_window_it_fills():
    count = lib.mw_fit_window_samples[lib.MW_FIT_WINDOWS - 1] - 1
    times_s, sizes = ticks(count), [float(i * i) for i in range(count)]
    fits = ffi.new("struct mw_fit[]", lib.MW_FIT_WINDOWS)
    assert lib.mw_fit_level(times_s, sizes, count, fits) == 0
    for window in range(lib.MW_FIT_WINDOWS - 1):
        samples = lib.mw_fit_window_samples[window]
        expected = good_fit(times_s[-samples:], sizes[-samples:])
        assert bytes(ffi.buffer(ffi.addressof(fits, window))) == bytes(ffi.buffer(expected))
    assert fits[lib.MW_FIT_WINDOWS - 1].sample_count == 0


def columns(*levels):
    """Return struct mw_column[] of (width_s, times_s, sizes), and what keeps it alive."""
    array = ffi.new("struct mw_column[]", len(levels))
    kept = []
    for column, (width_s, times_s, sizes) in zip(array, levels):
        kept.append((ffi.new("double[]", times_s), ffi.new("double[]", sizes)))
        column.times_s, column.bytes = kept[-1]
        column.width_s, column.count = width_s, len(times_s)
    return array, kept


GROWTH = 1e9  # in any window: no bound here


def test_the_earlier_peak_is_sought_before_the_window_and_after_the_start_up():
    window = good_fit([1000 + t for t in ticks(15)], [0.0] * 15)
    minutes = (60.0, [0.0, 60.0, 120.0, 960.0], [900.0, 300.0, 700.0, 5000.0])
    array, _kept = columns(minutes)
    assert lib.mw_fit_earlier_peak(window, array, 1, 0.0, GROWTH) == 900
    assert lib.mw_fit_earlier_peak(window, array, 1, 60.0, GROWTH) == 700
    assert lib.mw_fit_earlier_peak(window, array, 1, 5000.0, GROWTH) == 0


def test_a_tooth_is_taken_to_be_as_high_as_its_bucket_may_hide():
    rising = good_fit([1000 + t for t in ticks(15)], [float(100 * t) for t in ticks(15)])
    array, _kept = columns((10.0, [0.0], [500.0]))
    assert lib.mw_fit_earlier_peak(rising, array, 1, 0.0, GROWTH) == pytest.approx(500 + 10 * 100)
    array, _kept = columns((3600.0, [-3000.0], [500.0]))
    assert lib.mw_fit_earlier_peak(rising, array, 1, -4000.0, 100.0) == pytest.approx(500 + 80)
