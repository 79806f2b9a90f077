"""Which services are told by themselves, and what the others are together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mwtrace.model import Verdict
from mwtrace.tell.families import BY_NAME, OTHER
from mwtrace.tell.figures import ServiceFigures, fold, label, samples

PLAIN = ServiceFigures("a", 1, 100, 90, 10, 5, 3, 100, 1000.0)


def service(name: str, private_bytes: int = 100, **fields: object) -> ServiceFigures:
    return replace(PLAIN, service=name, private_bytes=private_bytes, **fields)


def names(told: list[ServiceFigures]) -> list[str]:
    return [figures.service for figures in told]


def test_below_the_bound_every_service_is_told_and_none_is_other():
    told, folded = fold([service("a"), service("b", 200)], 2)
    assert (names(told), folded) == (["b", "a"], 0)


def test_beyond_the_bound_the_rest_is_one_and_adds_up():
    services = [service(str(size), size, oldest_start_unix_s=size) for size in (10, 20, 30, 40)]
    told, folded = fold(services, 2)
    assert (names(told), folded) == (["40", "30", OTHER], 2)
    other = told[-1]
    assert (other.private_bytes, other.process_count, other.swap_bytes) == (30, 2, 20)
    assert (other.largest_bytes, other.oldest_start_unix_s) == (100, 10)


def test_who_leaks_comes_before_who_is_large_and_other_says_the_worst_of_it():
    leaking = service("small", 1, verdict=Verdict.LEAKING, slope_bytes_per_second=5.0)
    growing = service("slow", 1, verdict=Verdict.GROWING, slope_bytes_per_second=9.0)
    steady = service("large", 10**9, verdict=Verdict.STEADY)
    learning = service("new", 10**8, verdict=Verdict.LEARNING)
    unknown = service("calm", 10**10)
    services = [steady, growing, unknown, learning, leaking]
    assert names(fold(services, 9)[0]) == ["small", "slow", "calm", "large", "new"]
    told, _ = fold(services, 1)
    assert (told[-1].verdict, told[-1].slope_bytes_per_second) == (Verdict.GROWING, 9.0)


def test_a_service_that_is_told_keeps_its_place_against_one_that_is_hardly_larger():
    small, large = service("small", 100), service("large", 110)
    assert names(fold([small, large], 1)[0]) == ["large", OTHER]
    assert names(fold([small, large], 1, {"small"})[0]) == ["small", OTHER]
    assert names(fold([small, service("large", 130)], 1, {"small"})[0]) == ["large", OTHER]


def test_services_of_one_name_are_one_series():
    one = service("a", verdict=Verdict.STEADY, in_use_bytes=(("python", 5),))
    two = service(
        "a",
        50,
        verdict=Verdict.LEAKING,
        slope_bytes_per_second=3.0,
        kind="mmap",
        limit_bytes=7,
        headroom_bytes=6,
        forecast_s=2.0,
        since_unix_s=9.0,
        in_use_bytes=(("python", 2), ("native", 4)),
        retained_bytes=8,
    )
    for order in ([one, two], [two, one]):
        (both,), folded = fold(order, 10)
        assert (both.private_bytes, both.verdict, both.kind, folded) == (
            150,
            Verdict.LEAKING,
            "mmap",
            0,
        )
        assert (both.limit_bytes, both.headroom_bytes, both.forecast_s) == (7, 6, 2.0)
        assert dict(both.in_use_bytes) == {"python": 7, "native": 4}
        assert (both.since_unix_s, both.retained_bytes) == (9.0, 8)


def test_growth_of_two_kinds_is_mixed_and_the_nearer_limit_counts():
    near = service("a", slope_bytes_per_second=1.0, kind="mmap", forecast_s=1.0, limit_bytes=1)
    far = service("a", slope_bytes_per_second=2.0, kind="stacks", forecast_s=9.0, limit_bytes=2)
    (both,), _ = fold([far, near], 1)
    assert (both.slope_bytes_per_second, both.kind) == (3.0, "mixed")
    assert (both.forecast_s, both.limit_bytes) == (1.0, 1)


def test_every_sample_is_of_a_declared_family_and_fits_its_labels():
    full = replace(
        PLAIN,
        verdict=Verdict.LEAKING,
        since_unix_s=1.0,
        slope_bytes_per_second=1.0,
        limit_bytes=1,
        headroom_bytes=1,
        forecast_s=1.0,
        in_use_bytes=(("python", 1),),
        retained_bytes=1,
    )
    told = list(samples(full))
    assert len(told) == 16
    for sample in told:
        assert len(sample.labels) == len(BY_NAME[sample.name].labels)
    # What is not known is no series, and no zero.
    assert len(list(samples(PLAIN))) == 8


@pytest.mark.parametrize(
    "name", ["", "a\nb", 'q"\\', "\x1b[2J", "\udcff\udcfe", "x" * 10_240, "注文"]
)
def test_no_name_makes_a_label_that_is_long_or_unprintable(name):
    shown = label(name)
    assert shown.isprintable()
    assert shown
    assert len(shown) < 600
    shown.encode()


def test_a_service_called_other_is_not_the_other_one():
    assert label("other") != OTHER
