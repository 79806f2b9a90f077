"""The first two lines of the live table: the conclusion, and how far it can be trusted.

An operator who reads one line at 3 a.m. reads this one, so each is written in several lengths and
the longest that fits is taken: at 40 columns it must still say who and how soon.
"""

from __future__ import annotations

import math

from mwtrace.model import Verdict
from mwtrace.tell.cells import clip, printable, shorten, width_cells
from mwtrace.tell.units import (
    format_bytes,
    format_clock,
    format_duration,
    format_duration_short,
    format_since,
    format_slope,
)
from mwtrace.tell.view import Row, Style, View, nearness

_HURRY_S = 30 * 86400.0  # who has longer should look for the cause first


def headline(view: View, width: int, style: Style) -> str:
    """What is wrong and how long there is; or that nothing is, among how many."""
    if view.notice:
        return clip(printable(view.notice, style.unicode), width, style.unicode)
    counts = view.verdict_counts
    leaking, growing = counts.get(Verdict.LEAKING, 0), counts.get(Verdict.GROWING, 0)
    if leaking:
        choices = _leaking(view, leaking, width, style)
    elif growing:
        choices = _growing(view, growing, width, style)
    else:
        choices = _calm(view, style)
    for choice in choices:
        if width_cells(choice) <= width:
            return choice
    return clip(choices[-1], width, style.unicode)


def watch_state(view: View, width: int, style: Style) -> str:
    """The state of the watch; what limits the conclusion comes first, the rest may be cut."""
    how = f"{view.source}, every {format_duration(view.tick_s)}"
    clock = format_clock(view.time_unix_s, style.zone)
    blind = [f"cannot see {words}" for words in view.blind]
    if view.losses:
        parts = [f"LOST {', '.join(view.losses)}", *blind, how]
    else:
        parts = [*blind, how, "nothing lost"]
    return clip(printable(f"{clock} {'; '.join(parts)}", style.unicode), width, style.unicode)


def _leaking(view: View, count: int, width: int, style: Style) -> list[str]:
    leaking = [row for row in view.rows if row.verdict is Verdict.LEAKING]
    conclusion = f"{_services(count)} leaking"
    if not leaking:
        return [conclusion]
    first = min(leaking, key=nearness)
    name = first.title(style)
    limit = "its limit"
    if first.limit_bytes is not None:
        limit = f"its {format_bytes(first.limit_bytes)} limit"
    if first.forecast_s is not None and math.isfinite(first.forecast_s):
        if first.forecast_s > 0:
            fate = f"hits its limit in {format_duration(first.forecast_s)}"
            full_fate = f"hits {limit} in {format_duration(first.forecast_s)}"
            short_fate = f"limit in {format_duration_short(first.forecast_s)}"
        else:
            fate, full_fate, short_fate = "is at its limit", f"is at {limit}", "at its limit"
    else:
        fate = short_fate = f"grows {_slope(first)}" if first.slope_bytes_per_second else "grows"
        full_fate = fate if first.limit_bytes is not None else f"{fate}, no limit known"
    if count > 1:
        full_fate += ", first of them"
    head = "LEAK" if count == 1 else f"{count:,} LEAKS"
    room = max(width - width_cells(f"{head}: , {short_fate}"), 8)
    advice = _advice(first, view, style)
    advised = [
        f"{conclusion}: {name} {full_fate}; {advice}",
        f"{count:,} leaking: {name} {fate}; {advice}",
    ]
    return [
        *(advised if advice else ()),
        f"{conclusion}: {name} {full_fate}",
        f"{conclusion}: {name} {fate}",
        f"{head}: {name} {fate}",
        f"{head}: {name}, {short_fate}",
        f"{head}: {shorten(name, room, style.unicode)}, {short_fate}",
    ]


# What to do about a leak, if there is any hurry.
def _advice(row: Row, view: View, style: Style) -> str:
    forecast_s = row.forecast_s
    if forecast_s is None or not forecast_s <= _HURRY_S:
        return ""
    if forecast_s <= 0:
        return "restart it now"
    when = format_since(view.time_unix_s + forecast_s, view.time_unix_s, style.zone)
    return f"restart it before {when}"


def _growing(view: View, count: int, width: int, style: Style) -> list[str]:
    growing = [row for row in view.rows if row.verdict is Verdict.GROWING]
    conclusion = f"nothing called a leak yet, {_services(count)} growing"
    if not growing:
        return [conclusion, f"no leak yet, {count:,} growing"]
    first = min(growing, key=nearness)
    name, slope = first.title(style), _slope(first)
    when = ""
    if first.forecast_s is not None and math.isfinite(first.forecast_s):
        when = f", limit in {format_duration(first.forecast_s)}"
    elif first.since_unix_s is not None:
        when = f" since {format_since(first.since_unix_s, view.time_unix_s, style.zone)}"
    room = max(width - width_cells(f"{count:,} growing:  {slope}"), 8)
    return [
        f"{conclusion}: {name} {slope}{when}",
        f"no leak yet, {count:,} growing: {name} {slope}{when}",
        f"{count:,} growing: {name} {slope}{when}",
        f"{count:,} growing: {name} {slope}",
        f"{count:,} growing: {shorten(name, room, style.unicode)} {slope}",
    ]


def _calm(view: View, style: Style) -> list[str]:
    services = _services(view.service_count)
    processes = _plural(view.process_count, "process", "es")
    since = f"watching since {format_since(view.since_unix_s, view.time_unix_s, style.zone)}"
    counts = view.verdict_counts
    young = counts.get(Verdict.LEARNING, 0) + counts.get(Verdict.WARMING_UP, 0)
    if not counts.get(Verdict.STEADY, 0):
        early = f"too early to judge {services}"
        left_s = view.since_unix_s + view.learning_s - view.time_unix_s
        if left_s > 0:
            since = f"first verdicts in {format_duration(math.ceil(left_s))}"
        return [f"{early}, {processes}; {since}", f"{early}; {since}", early, "too early to judge"]
    calm = f"nothing leaks among {services}"
    if young:  # "nothing leaks" is not said of them
        young_words = f"{young:,} too young to judge"
        return [
            f"{calm}, {processes}; {young_words}; {since}",
            f"{calm}, {young_words}; {since}",
            f"{calm}, {young_words}",
            f"nothing leaks, {young_words}",
        ]
    return [f"{calm}, {processes}; {since}", f"{calm}; {since}", calm, "nothing leaks"]


def _slope(row: Row) -> str:
    slope = row.slope_bytes_per_second
    return format_slope(slope) if slope is not None else ""


def _services(count: int) -> str:
    return _plural(count, "service", "s")


def _plural(count: int, noun: str, ending: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else ending}"
