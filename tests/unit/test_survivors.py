"""The rate at which a site keeps memory, from what windows of unlike density have left."""

from __future__ import annotations

import math
import random
import statistics
from types import SimpleNamespace

import pytest

from mwtrace.tracer import Domain, Layout
from mwtrace.tracing.survivors import Past, Survivors, held_bytes, kept, rates, seen_s

NATIVE = int(Domain.NATIVE)
PLAN = SimpleNamespace(native_layout=Layout.GLIBC, python_layout=Layout.PYMALLOC)


def window(duration_s: float, interval_bytes: int) -> Past:
    return Past(0.0, duration_s, duration_s, interval_bytes, True, True)


@pytest.mark.parametrize(
    ("size", "domain", "held"),
    [
        (24, Domain.PY_OBJECT, 32),
        (512, Domain.PY_MEM, 512),
        (513, Domain.PY_OBJECT, 528),  # the C library's
        (24, Domain.NATIVE, 32),
        (25, Domain.NATIVE, 48),
        (1, Domain.NATIVE, 32),
        (1 << 20, Domain.NATIVE, (1 << 20) + 4096),
    ],
)
def test_what_a_block_takes(size, domain, held):
    assert held_bytes(size, domain, PLAN) == held


def blocks(number: int) -> Survivors:
    return Survivors({(100, NATIVE): number})


def test_survivors_of_older_and_newer_windows_are_one_leak_if_they_are_alike():
    older, newer = [window(1.0, 1024)], [window(1.0, 1024)]
    assert kept([blocks(90), blocks(110)], [older, newer]) == (blocks(200), older + newer)


def test_where_old_windows_have_lost_theirs_only_they_count():
    older, newer = [window(1.0, 1024)], [window(1.0, 1024)]
    assert kept([blocks(2), blocks(198)], [older, newer]) == (blocks(2), older)


def test_old_windows_that_hardly_sampled_have_lost_nothing():
    older, newer = [window(1.0, 1 << 20)], [window(1.0, 1024)]
    assert kept([blocks(1), blocks(199)], [older, newer]) == (blocks(200), older + newer)


def test_every_block_told_counts_for_the_windows_time():
    assert seen_s([window(2.0, 0), window(3.0, 0)], 100) == 5.0
    asked, held = rates(Survivors({(100, NATIVE): 10}), [window(2.0, 0)], PLAN)
    assert (asked, held) == (500.0, 10 * 112 / 2)


def test_windows_of_unlike_density_give_the_true_rate_with_little_spread():
    """Poisson samples of a leak of 104 bytes, 333 times a second, seen in two windows."""
    chance = random.Random(20260823)
    windows = [window(0.03, 32 << 10), window(0.85, 1 << 10)]
    found, by_weight = [], []
    for _ in range(400):
        survivors, weight = 0, 0.0
        for past in windows:
            share = 1 - math.exp(-104 / past.interval_bytes)
            told = sum(chance.random() < share for _ in range(round(333 * past.duration_s)))
            survivors += told
            weight += told * 104 / share
        found.append(rates(Survivors({(104, NATIVE): survivors}), windows, PLAN)[0])
        by_weight.append(weight / 0.88)
    assert statistics.mean(found) == pytest.approx(333 * 104, rel=0.05)
    assert statistics.stdev(found) < 0.8 * statistics.stdev(by_weight)


def test_a_size_that_no_window_could_have_told_divides_by_no_zero():
    assert rates(Survivors({(0, NATIVE): 1}), [], PLAN)[0] == 0.0
