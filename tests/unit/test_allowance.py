"""How many readings an hour gives, and how many bytes of them."""

from __future__ import annotations

import pytest

from mwtrace.escalation.allowance import Allowance, ReadingLimits

LIMITS = ReadingLimits(readings_per_hour=4, bytes_per_hour=1000)


def spent(*readings: tuple[float, int]) -> Allowance:
    allowance = Allowance(LIMITS)
    for time_s, size_bytes in readings:
        allowance.charge(time_s, size_bytes)
    return allowance


@pytest.mark.parametrize(
    ("readings", "time_s", "size_bytes", "is_permitted"),
    [
        ([], 0.0, 1000, True),
        ([], 0.0, 10**9, True),  # larger than an hour's bytes, but nothing else was read
        ([(0.0, 1)], 1.0, 10**9, False),
        ([(0.0, 600)], 1.0, 400, True),
        ([(0.0, 600)], 1.0, 401, False),
        ([(0.0, 600)], 3600.0, 401, True),  # the hour is over
        ([(0.0, 1)] * 4, 1.0, 1, False),
        ([(0.0, 1), *[(2000.0, 1)] * 3], 3600.0, 1, True),
    ],
)
def test_an_hour_gives_so_many_readings_and_bytes(readings, time_s, size_bytes, is_permitted):
    assert spent(*readings).permits(time_s, size_bytes) is is_permitted


def test_a_search_is_charged_to_its_reading():
    allowance = spent((0.0, 100))
    allowance.charge_more(800)
    assert not allowance.permits(1.0, 101)
    assert allowance.permits(1.0, 100)


@pytest.mark.parametrize(("readings", "is_ample"), [(1, True), (2, False)])
def test_it_is_ample_while_less_than_half_is_spent(readings, is_ample):
    assert spent(*[(0.0, 1)] * readings).is_ample(1.0) is is_ample
    assert spent((0.0, 500)).is_ample(1.0) is False
