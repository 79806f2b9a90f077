"""The live table as text, at any size and with any name."""

from __future__ import annotations

import dataclasses
import math
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from views import (
    ALARM,
    ALARM_40,
    ALARM_80,
    ASCII,
    BATCH,
    CALM,
    COLOR,
    CRON,
    MIB,
    NOW,
    ORDERS,
    PLAIN,
)
from wcwidth import wcswidth

from mwtrace.model import HeapSplit, Verdict
from mwtrace.tell.table import render, sparkline
from mwtrace.tell.view import Row, Style, View

SGR = re.compile(r"\x1b\[[0-9;]*m")


def headline(view: View, width: int = 80) -> str:
    return render(view, width, 24, PLAIN)[0]


def with_counts(**counts: int) -> View:
    named = {Verdict[name.upper()]: count for name, count in counts.items()}
    return dataclasses.replace(CALM, verdict_counts=named)


# --- what it looks like


@pytest.mark.parametrize(("width", "expected"), [(80, ALARM_80), (40, ALARM_40)])
def test_an_alarm(width: int, expected: list[str]) -> None:
    assert render(ALARM, width, 24, PLAIN) == expected


def test_a_wide_terminal_shows_process_counts_whole_names_and_the_whole_history() -> None:
    lines = render(ALARM, 200, 24, PLAIN)
    assert "PROCS" in lines[2]
    assert "nightly-report@warehouse-42.service " in lines[4]
    assert len(lines[3].split()[-1]) == 60


def test_without_unicode_every_cell_is_ascii() -> None:
    view = dataclasses.replace(ALARM, rows=(*ALARM.rows, Row("注文", Verdict.STEADY, 1)))
    for line in render(view, 80, 24, ASCII):
        assert line.isascii()
    assert render(ALARM, 80, 24, ASCII)[3].endswith("10m _.:-=+*#")


def test_color_only_repeats_what_words_say() -> None:
    colored = render(ALARM, 80, 24, COLOR)
    assert [SGR.sub("", line) for line in colored] == ALARM_80
    assert "\x1b[1;31mLEAKING   \x1b[0m" in colored[3]
    assert all(line.count("\x1b[") % 2 == 0 for line in colored)  # each colour is ended


def test_alarms_come_first_then_slope_then_size() -> None:
    rows = (
        Row("small", Verdict.STEADY, 1),
        Row("large", Verdict.STEADY, 9),
        Row("slow", Verdict.LEAKING, 9, slope_bytes_per_second=1.0),
        Row("fast", Verdict.LEAKING, 1, slope_bytes_per_second=2.0),
        Row("odd", Verdict.LEAKING, 1, slope_bytes_per_second=math.nan),
        Row("grows", Verdict.GROWING, 9, slope_bytes_per_second=100.0),
    )
    lines = render(dataclasses.replace(CALM, rows=rows), 80, 24, PLAIN)
    names = [line.split()[0] for line in lines[3:]]
    assert names == ["fast", "slow", "odd", "grows", "large", "small"]


def test_rows_that_do_not_fit_are_counted_and_no_leak_among_them_is_hidden() -> None:
    leaks = tuple(dataclasses.replace(ORDERS, name=f"orders-{n}") for n in range(30))
    lines = render(dataclasses.replace(ALARM, rows=leaks), 80, 10, PLAIN)
    assert len(lines) == 10
    assert lines[-1] == "… 24 more, 24 of them LEAKING"
    calm = tuple(dataclasses.replace(CRON, name=f"cron-{n}") for n in range(30))
    assert render(dataclasses.replace(ALARM, rows=calm), 80, 10, PLAIN)[-1] == "… 24 more"


@pytest.mark.parametrize("height", range(9))
def test_the_conclusion_is_the_last_thing_to_go_when_lines_are_few(height: int) -> None:
    lines = render(ALARM, 80, height, PLAIN)
    assert len(lines) == min(height, 7) - (height == 3)  # titles alone say nothing
    assert lines[:2] == ALARM_80[: min(height, 2)]


# --- the first line


def test_a_leak_is_told_with_what_is_left_of_time_at_any_useful_width() -> None:
    for width in range(34, 81):
        assert "orders.service" in headline(ALARM, width)
        assert re.search(r"limit in 10 ?m", headline(ALARM, width))


def test_of_several_leaks_the_one_that_hits_its_limit_first_is_named() -> None:
    slower = dataclasses.replace(
        ORDERS, name="slower", slope_bytes_per_second=9.0 * MIB, forecast_s=900
    )
    view = dataclasses.replace(ALARM, rows=(slower, ORDERS), verdict_counts={Verdict.LEAKING: 1200})
    assert headline(view, 125) == (
        "1,200 services leaking: orders.service hits its 1.0 GiB limit in 10 min, first of them; "
        "restart it before 11:14"
    )
    assert headline(view) == (
        "1,200 leaking: orders.service hits its limit in 10 min; restart it before 11:14"
    )
    assert headline(view, 64) == "1,200 services leaking: orders.service hits its limit in 10 min"
    assert headline(view, 44) == "1,200 LEAKS: orders.service, limit in 10m"


def test_a_leak_without_a_limit_says_how_fast() -> None:
    unbounded = dataclasses.replace(ORDERS, forecast_s=None, limit_bytes=None)
    view = dataclasses.replace(ALARM, rows=(unbounded,))
    assert headline(view) == "1 service leaking: orders.service grows +1.0 MiB/s, no limit known"
    assert headline(dataclasses.replace(ALARM, rows=())) == "1 service leaking"


def test_a_leak_that_has_reached_its_limit_says_so() -> None:
    view = dataclasses.replace(ALARM, rows=(dataclasses.replace(ORDERS, forecast_s=0.0),))
    assert headline(view) == (
        "1 service leaking: orders.service is at its 1.0 GiB limit; restart it now"
    )
    assert headline(view, 36) == "LEAK: orders.service is at its limit"
    assert headline(view, 34) == "LEAK: orders.service, at its limit"


def test_who_has_more_than_a_month_is_not_told_to_restart() -> None:
    for days, words in ((29.0, "; restart it before Aug 19"), (31.0, "limit in 31 days")):
        slow = dataclasses.replace(ORDERS, forecast_s=days * 86400)
        assert headline(dataclasses.replace(ALARM, rows=(slow,)), 100).endswith(words)


def test_who_is_too_early_is_told_how_long_to_wait() -> None:
    view = dataclasses.replace(with_counts(learning=3), since_unix_s=NOW - 12, learning_s=50.0)
    assert headline(view) == (
        "too early to judge 214 services, 4,015 processes; first verdicts in 38 s"
    )
    late = dataclasses.replace(view, since_unix_s=NOW - 51)
    assert "watching since" in headline(late)


def test_growth_that_is_no_leak_yet_is_told_as_such() -> None:
    view = dataclasses.replace(with_counts(growing=1, steady=3), rows=(BATCH, CRON))
    assert headline(view, 120) == (
        "nothing called a leak yet, 1 service growing: "
        "nightly-report@warehouse-42.service +12.0 MiB/day, limit in 400 days"
    )
    unbounded = dataclasses.replace(BATCH, name="batch", forecast_s=None)
    view = dataclasses.replace(view, rows=(unbounded,))
    assert headline(view) == (
        "nothing called a leak yet, 1 service growing: batch +12.0 MiB/day since Jul 19"
    )
    assert headline(view, 60) == "no leak yet, 1 growing: batch +12.0 MiB/day since Jul 19"


def test_calm_says_among_how_many_and_since_when() -> None:
    assert headline(CALM) == (
        "nothing leaks among 214 services, 4,015 processes; watching since 09:04"
    )
    assert headline(CALM, 40) == "nothing leaks among 214 services"


def test_calm_does_not_speak_for_those_too_young_to_judge() -> None:
    view = with_counts(steady=200, learning=10, warming_up=4)
    for width in (120, 80, 60, 40):
        assert "14 too young to judge" in headline(view, width)


def test_nothing_is_claimed_before_anything_was_judged() -> None:
    for view in (with_counts(learning=214), with_counts(warming_up=3), with_counts()):
        assert "nothing leaks" not in headline(view)
        assert headline(view).startswith("too early to judge 214 services")


# --- the second line


def test_what_was_lost_and_what_cannot_be_seen_come_before_the_rest() -> None:
    view = dataclasses.replace(
        CALM, losses=("12 lifecycle events dropped",), blind=("OOM kills",), source="/proc: no BTF"
    )
    assert render(view, 120, 24, PLAIN)[1] == (
        "11:04:05 LOST 12 lifecycle events dropped; cannot see OOM kills; /proc: no BTF, every 5 s"
    )
    assert "LOST 12 lifecycle" in render(view, 40, 24, PLAIN)[1]


# --- sparklines


def test_a_sparkline_shows_growth_and_does_not_blow_up_noise() -> None:
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8], 8, PLAIN) == "▁▂▃▄▅▆▇█"
    noise = [1000.0 + (tick % 2) for tick in range(8)]
    assert set(sparkline(noise, 8, PLAIN)) == {"▁"}


def test_a_sparkline_shows_the_least_value_of_what_shares_a_cell() -> None:
    sawtooth = [100.0, 200.0] * 8
    assert sparkline(sawtooth, 8, PLAIN) == "▁" * 8


@pytest.mark.parametrize("history", [[], [math.nan], [math.inf] * 3, [0.0] * 9, [-1.0, 1.0], [5.0]])
def test_a_sparkline_of_anything_fits(history: list[float]) -> None:
    for cells in (0, 1, 8):
        assert len(sparkline(history, cells, PLAIN)) in (0, cells)


# --- hostile names

HOSTILE = [
    "\x1b[2J\x1b[H\x1b]0;owned\x07",
    "\x1b[999C\x1b[1A",
    "line\nbreak\r\x0b\x0c\x85\u2028",
    "\u202e\u2066right to left\u2069",
    "\u05d0\u05d1\u05d2 \u0627\u0644",
    "x" * 10_240,
    "注文処理サービス" * 20,
    "z\u0351\u0352\u0353" * 3000,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f",
    "\t\t\t",
    "",
    "raw\udcff\udc80",
]


def view_of(name: str) -> View:
    rows = (
        dataclasses.replace(ORDERS, name=name),
        dataclasses.replace(BATCH, name=name, pid=2**22),
    )
    return dataclasses.replace(ALARM, rows=rows, losses=(name,), blind=(name,), source=name)


def assert_fits(view: View, width: int, height: int, style: Style) -> None:
    lines = render(view, width, height, style)
    assert len(lines) <= height
    for line in lines:
        plain = SGR.sub("", line)
        # wcswidth is -1 for any control character: none may be left.
        assert 0 <= wcswidth(plain) <= width, plain
        assert plain == unicodedata.normalize("NFC", plain)


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("width", [*range(1, 30), 40, 79, 80, 81, 200])
def test_a_hostile_name_breaks_no_line(name: str, width: int) -> None:
    for style in (PLAIN, COLOR, ASCII):
        assert_fits(view_of(name), width, 6, style)


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_a_hostile_name_does_not_move_the_columns_behind_it(name: str, width: int) -> None:
    titles, first, second = render(view_of(name), width, 6, PLAIN)[2:5]
    column = titles.index("VERDICT")
    for line, verdict in ((first, "LEAKING"), (second, "growing")):
        head, _, _ = line.partition(verdict)
        assert wcswidth(head) == column


@given(name=st.text(max_size=80), width=st.integers(1, 130), unicode=st.booleans())
def test_no_name_at_all_breaks_a_line(name: str, width: int, unicode: bool) -> None:
    assert_fits(view_of(name), width, 8, PLAIN._replace(unicode=unicode))


@given(
    slope=st.none() | st.floats(),
    forecast_s=st.none() | st.floats(),
    since_unix_s=st.none() | st.floats(),
    private_bytes=st.integers(0, 2**64),
    process_count=st.integers(0, 2**32),
    history=st.lists(st.floats(0, 2.0**64) | st.just(math.nan), max_size=70),
    width=st.integers(1, 130),
)
def test_no_number_breaks_a_line(width: int, slope: float | None, **fields: object) -> None:
    fields["history"] = tuple(fields["history"])  # type: ignore[call-overload]
    row = dataclasses.replace(ORDERS, slope_bytes_per_second=slope, **fields)
    calm = dataclasses.replace(row, verdict=Verdict.GROWING, name="other")
    for counts in ({Verdict.LEAKING: 10**9}, {Verdict.GROWING: 10**9}):
        view = dataclasses.replace(ALARM, rows=(row, calm), verdict_counts=counts)
        assert_fits(view, width, 8, PLAIN)


def test_heap_and_native_get_columns_once_a_process_was_read_and_unknown_stays_unknown() -> None:
    heap = HeapSplit(276 * MIB, 1.5 * MIB, 24 * MIB, 0.0)
    partly = HeapSplit(12 * MIB, 0.0, None, None)
    rows = (
        dataclasses.replace(ORDERS, heap=heap),
        dataclasses.replace(BATCH, heap=partly),
        CRON,
    )
    read = dataclasses.replace(ALARM, rows=rows)
    lines = render(read, 160, 24, PLAIN)[2:6]
    ends = [lines[0].index(title) + len(title) for title in ("HEAP", "HEAP+", "NATIVE+")]
    cells = {
        line.split()[0]: [line[:end].rsplit("  ", 1)[1].strip() for end in ends]
        for line in lines[1:]
    }
    assert cells["orders.service"] == ["276 MiB", "+1.5 MiB/s", "0 B/s"]
    assert [found for name, found in cells.items() if "night" in name] == [
        ["12.0 MiB", "0 B/s", "unknown"]
    ]
    assert cells["cron.service"] == ["unknown"] * 3
    assert "HEAP" not in "".join(render(read, 80, 24, PLAIN))
    assert "HEAP" not in "".join(render(ALARM, 200, 24, PLAIN))


def test_a_kind_gets_a_column_once_one_is_known_and_there_is_room() -> None:
    found = dataclasses.replace(
        ALARM, rows=(dataclasses.replace(ORDERS, kind="python-objects"), CRON)
    )
    titles, orders, cron = render(found, 80, 24, PLAIN)[2:5]
    at = titles.index("KIND")
    assert orders[at:].startswith("python ")
    assert cron[at:].startswith("- ")
    assert "KIND" not in "".join(render(found, 40, 24, PLAIN))
    assert "KIND" not in "".join(render(ALARM, 200, 24, PLAIN))
