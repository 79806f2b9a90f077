"""Numbers as people write and read them."""

from __future__ import annotations

import math
from datetime import timedelta, timezone

import pytest

from mwtrace.errors import ConfigError
from mwtrace.tell import units
from mwtrace.tell.cells import width_cells

KIB, MIB, GIB = 1024, 1024**2, 1024**3
DAY_S = 86400
BERLIN_IN_SUMMER = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (12_345_678, "11.8 MiB"),
        (412 * MIB, "412 MiB"),
        (GIB, "1.0 GiB"),
        (99.94 * KIB, "99.9 KiB"),
        (99.96 * KIB, "100 KiB"),
        (1023.4 * KIB, "1023 KiB"),
        (1023.6 * KIB, "1.0 MiB"),  # never "1024 KiB"
        (GIB - 1, "1.0 GiB"),
        (2**64, "16.0 EiB"),
        (-3 * MIB, "-3.0 MiB"),
        (-0.2, "0 B"),
        (math.nan, "?"),
        (math.inf, "?"),
    ],
)
def test_bytes(size_bytes: float, text: str) -> None:
    assert units.format_bytes(size_bytes) == text


@pytest.mark.parametrize(
    ("bytes_per_second", "text"),
    [
        (0, "0 B/s"),
        (1.2 * MIB, "1.2 MiB/s"),
        (100 * KIB, "100 KiB/s"),
        (99 * KIB, "348 MiB/h"),
        (8.4 * MIB / 3600, "8.4 MiB/h"),
        (12e6 / DAY_S, "11.4 MiB/day"),
        (500 / DAY_S, "500 B/day"),
        (-1.2 * MIB, "-1.2 MiB/s"),
        (math.nan, "?"),
    ],
)
def test_a_rate_is_told_in_the_time_unit_that_leaves_a_usable_number(
    bytes_per_second: float, text: str
) -> None:
    assert units.format_rate(bytes_per_second) == text


def test_a_growing_slope_has_a_sign_and_a_short_day_for_tables() -> None:
    assert units.format_slope(1.2 * MIB) == "+1.2 MiB/s"
    assert units.format_slope(-1.2 * MIB) == "-1.2 MiB/s"
    assert units.format_slope(12e6 / DAY_S, day="d") == "+11.4 MiB/d"


@pytest.mark.parametrize("exponent", range(-6, 60))
def test_numbers_fit_their_columns_at_any_size(exponent: int) -> None:
    for factor in (1.0, 1.023, 1.9999):
        number = factor * 2.0**exponent
        assert len(units.format_bytes(number)) <= 8
        assert len(units.format_slope(number, day="d")) <= 11
        assert len(units.format_duration_short(number)) <= 6


def test_an_interval_is_told_in_the_unit_and_precision_of_its_slope() -> None:
    assert (
        units.format_slope_interval(1.02 * MIB, 0.98 * MIB, 1.05 * MIB)
        == "+1.02 MiB/s [0.98, 1.05]"
    )
    assert (
        units.format_slope_interval(50 * MIB / 3600, -2 * MIB / 3600, 150 * MIB / 3600)
        == "+50.0 MiB/h [-2.0, 150.0]"
    )
    assert units.format_slope_interval(1.02 * MIB, None, 2.0) == "+1.0 MiB/s"
    assert units.format_slope_interval(1.02 * MIB, math.nan, 2.0) == "+1.0 MiB/s"


@pytest.mark.parametrize(
    ("duration_s", "text", "short"),
    [
        (0, "0 s", "0s"),
        (0.25, "0.2 s", "0s"),
        (5, "5 s", "5s"),
        (119.9, "119 s", "119s"),
        (120, "2 min", "2m"),
        (3599.9, "59 min", "59m"),  # down: a forecast promises no time that is not there
        (3600, "1 h", "1h"),
        (11520, "3 h 12 min", "3h12m"),
        (47 * 3600, "47 h", "47h"),
        (2 * DAY_S + 4 * 3600, "2 days 4 h", "2d4h"),
        (10 * DAY_S + 4 * 3600, "10 days", "10d"),
        (400 * DAY_S, "400 days", "400d"),
        (3 * 366 * DAY_S, "3 years", "3y"),
        (1e300, "999 years", "999y"),
        (math.inf, "?", "?"),
        (math.nan, "?", "?"),
    ],
)
def test_durations(duration_s: float, text: str, short: str) -> None:
    assert units.format_duration(duration_s) == text
    assert units.format_duration_short(duration_s) == short


def test_a_negative_duration_is_not_hidden() -> None:
    assert units.format_duration(-90) == "-90 s"
    assert units.format_duration_short(-90) == "?"


def test_an_anchor_maps_monotonic_times_to_the_wall() -> None:
    anchor = units.WallAnchor(monotonic_s=1000.0, unix_s=1_784_631_845.0)
    assert units.iso_utc(anchor.unix(1000.0)) == "2026-07-21T11:04:05Z"
    assert units.iso_utc(anchor.unix(820.0)) == "2026-07-21T11:01:05Z"


@pytest.mark.parametrize("unix_s", [math.nan, math.inf, 1e18, -1e18])
def test_a_moment_no_calendar_holds_is_none_in_json_and_a_mark_on_screen(unix_s: float) -> None:
    assert units.iso_utc(unix_s) is None
    assert units.format_clock(unix_s) == "?"
    assert units.format_since(unix_s, 0.0) == "?"


def test_since_is_a_time_today_and_a_date_before() -> None:
    now = 1_784_631_845.0  # 13:04:05 in Berlin
    assert units.format_clock(now, BERLIN_IN_SUMMER) == "13:04:05"
    assert units.format_since(now - 180, now, BERLIN_IN_SUMMER) == "13:01"
    assert units.format_since(now - DAY_S, now, BERLIN_IN_SUMMER) == "Jul 20"
    assert units.format_since(now - 20 * DAY_S, now, BERLIN_IN_SUMMER) == "Jul  1"


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("4096", 4096),
        ("512B", 512),
        ("100K", 100 * KIB),
        ("100k", 100 * KIB),
        ("1M", MIB),
        (" 1.5GiB ", 1536 * MIB),
        ("2 TiB", 2 * 1024**4),
        ("10MB", 10_000_000),
        ("9007199254740993", 9007199254740993),  # 2**53 + 1: not through a float
    ],
)
def test_sizes_are_read(text: str, size_bytes: int) -> None:
    assert units.parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        "K",
        "1X",
        "-1M",
        "1e9",
        "nan",
        "inf",
        "1..5M",
        "0x10",
        "٣M",
        "1MiBs",
        "9" * 5000,
        "9999999T",
    ],
)
def test_what_is_no_size_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        units.parse_size(text)
    assert "1.5GiB" in refusal.value.remedy
    assert width_cells(str(refusal.value)) < 600


@pytest.mark.parametrize(
    ("text", "duration_s"),
    [
        ("0", 0),
        ("90", 90),
        ("90s", 90),
        ("5m", 300),
        ("5min", 300),
        ("2h", 7200),
        ("1d", DAY_S),
        ("1h30m", 5400),
        ("1 h 30 m", 5400),
        ("500ms", 0.5),
        ("0.5s", 0.5),
    ],
)
def test_durations_are_read(text: str, duration_s: float) -> None:
    assert units.parse_duration(text) == duration_s


@pytest.mark.parametrize(
    "text", ["", "s", "-5s", "5x", "1h30", "5 5", "nan", "inf", "5M", "9" * 5000, "99999d"]
)
def test_what_is_no_duration_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        units.parse_duration(text)
    assert "1h30m" in refusal.value.remedy


def test_a_refusal_does_not_carry_an_escape_sequence_to_the_terminal() -> None:
    with pytest.raises(ConfigError) as refusal:
        units.parse_size("\x1b[2J1M")
    assert str(refusal.value) == r"cannot read '\x1b[2J1M' as a size"
