"""cext/series.c through cffi, against the oracle and at its edges."""

from __future__ import annotations

import errno
import os
import random

import oracle
import pytest

from mwtrace.capi import ffi, lib

SAMPLES = lib.MW_LEVEL_SAMPLES
BUCKET_S = (5, 20, 60, 300)
SEEDS = [1, 2, 3, int(os.environ.get("MWTRACE_SEED") or random.randrange(2**32))]


class Series:
    """One clock and one history, in C."""

    def __init__(self, bucket_ns: list[int]) -> None:
        self.clock = ffi.gc(lib.mw_clock_create(bucket_ns), lib.mw_clock_destroy)
        self.history = ffi.gc(lib.mw_history_create(), lib.mw_history_destroy)
        self.times_s = ffi.new("double[]", SAMPLES)
        self.bytes = ffi.new("double[]", SAMPLES)
        self.pages = ffi.new("uint32_t[]", SAMPLES)

    def advance(self, time_s: float) -> int:
        return lib.mw_clock_advance(self.clock, round(time_s * 1e9))

    def add(self, pages: int) -> None:
        lib.mw_history_add(self.history, self.clock, pages)

    def samples(self, level: int) -> list[tuple[float, int]]:
        count = lib.mw_history_copy(self.history, self.clock, level, self.times_s, self.bytes)
        pages = [int(self.bytes[i]) // oracle.PAGE_BYTES for i in range(count)]
        assert lib.mw_history_copy_pages(self.history, self.clock, level, self.pages) == count
        assert [self.pages[i] for i in range(count)] == pages
        return [(self.times_s[i], pages[i]) for i in range(count)]


def nanoseconds(widths_s: tuple[float, ...]) -> list[int]:
    return [round(width_s * 1e9) for width_s in widths_s]


@pytest.fixture
def series() -> Series:
    return Series(nanoseconds(BUCKET_S))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_level_agrees_with_the_oracle(seed: int, series: Series) -> None:
    print("MWTRACE_SEED", seed)
    chance = random.Random(seed)
    clock = oracle.Clock(nanoseconds(BUCKET_S))
    history = oracle.History(clock)
    time_ns = 0
    for _ in range(1500):
        gap_s = chance.choice([0.1, 1, 4.4, 4.5, 5, 5, 5, 5, 5, 5.2, 21, 90])
        if chance.random() < 0.003:
            gap_s = chance.choice([400, 1300, 20_000])
        time_ns += round(gap_s * 1e9)
        clock.advance(time_ns)
        assert lib.mw_clock_advance(series.clock, time_ns) == 0
        for _ in range(chance.choice([0, 1, 1, 1, 1, 1, 2])):
            pages = chance.randrange(2000)
            history.add(pages)
            series.add(pages)
        if chance.random() < 0.005:
            history.pages.clear()
            lib.mw_history_clear(series.history)
        assert lib.mw_history_first_time_ns(series.history) == history.first_time_ns
        for level in oracle.LEVELS:
            expected = [(time_ns / 1e9, pages) for time_ns, pages in history.samples(level)]
            assert series.samples(level) == expected
            assert lib.mw_clock_bucket(series.clock, level) == len(clock.buckets[level])


def test_a_second_value_in_one_tick_replaces_the_first_in_every_level(series: Series) -> None:
    series.advance(1)
    series.add(7)
    series.add(50)
    assert series.samples(0) == [(1.0, 50)]
    series.advance(400)
    assert [series.samples(level) for level in (1, 2, 3)] == [[(1.0, 50)]] * 3


def test_a_replaced_value_does_not_forget_the_least_before_it(series: Series) -> None:
    for time_s, pages in ((1, 40), (6, 7), (6, 60)):
        series.advance(time_s)
        series.add(pages)
    series.advance(400)
    assert series.samples(3) == [(1.0, 40)]


def test_a_tick_without_a_value_leaves_a_hole(series: Series) -> None:
    for time_s in (5, 10, 15):
        series.advance(time_s)
        if time_s != 10:
            series.add(time_s)
    assert series.samples(0) == [(5.0, 5), (15.0, 15)]


def test_a_bucket_closes_at_nine_tenths_of_its_width(series: Series) -> None:
    series.advance(100)
    series.advance(104.499)
    assert lib.mw_clock_bucket(series.clock, 0) == 1
    series.advance(104.5)
    assert lib.mw_clock_bucket(series.clock, 0) == 2
    assert lib.mw_clock_turned_levels(series.clock) == 0b0001
    series.advance(118)
    assert lib.mw_clock_turned_levels(series.clock) == 0b0011


def test_the_open_bucket_is_shown_at_level_0_only(series: Series) -> None:
    series.advance(1)
    series.add(3)
    assert [series.samples(level) for level in oracle.LEVELS] == [[(1.0, 3)], [], [], []]


def test_no_sample_lies_before_the_first_one_taken(series: Series) -> None:
    series.advance(10)
    series.advance(15)
    series.add(3)
    series.advance(400)
    assert series.samples(3) == [(15.0, 3)]


def test_time_that_does_not_advance_is_refused_and_changes_nothing(series: Series) -> None:
    assert series.advance(0) == -errno.EINVAL
    series.advance(5)
    series.add(1)
    assert series.advance(5) == -errno.EINVAL
    assert series.advance(4) == -errno.EINVAL
    series.add(2)
    assert series.samples(0) == [(5.0, 2)]
    assert lib.mw_clock_bucket(series.clock, 0) == 1


def test_pages_beyond_32_bits_are_taken_for_the_most_that_fits(series: Series) -> None:
    series.advance(1)
    for pages in (2**32 - 2, 2**32 - 1, 2**32, 2**64 - 1):
        series.add(pages)
        assert series.samples(0) == [(1.0, 2**32 - 2)]


def test_an_absence_longer_than_the_ring_empties_it(series: Series) -> None:
    series.advance(5)
    series.add(1)
    for tick in range(2, SAMPLES + 2):
        series.advance(5 * tick)
    assert series.samples(0) == []
    series.add(2)
    assert series.samples(0) == [(5.0 * (SAMPLES + 1), 2)]


def test_a_level_that_does_not_exist_has_no_samples(series: Series) -> None:
    series.advance(5)
    series.add(1)
    assert series.samples(lib.MW_LEVELS) == []
    assert lib.mw_clock_bucket(series.clock, lib.MW_LEVELS) == 0


@pytest.mark.parametrize("level", oracle.LEVELS)
def test_a_clock_with_a_bucket_of_no_width_is_refused(level: int) -> None:
    bucket_ns = nanoseconds(BUCKET_S)
    bucket_ns[level] = 0
    assert lib.mw_clock_create(bucket_ns) == ffi.NULL
