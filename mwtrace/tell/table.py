"""The live table as lines of text: pure, from a frozen View.

Two lines of conclusion, then one row per service, alarms first. Knows no terminal: it is told how
wide, how high and in which style.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Callable, NamedTuple

from mwtrace.model import Verdict
from mwtrace.tell.cells import clip, ellipsis, pad, shorten, width_cells
from mwtrace.tell.headline import headline, watch_state
from mwtrace.tell.units import format_bytes, format_duration_short, format_since, format_slope
from mwtrace.tell.view import Row, Style, View, urgency


def render(view: View, width: int, height: int, style: Style) -> list[str]:
    """At most height lines of at most width cells, not counting SGR sequences."""
    if width < 1 or height < 1:
        return []
    alarm = max((v for v, count in view.verdict_counts.items() if count), default=Verdict.LEARNING)
    tone = _TONES.get(alarm, "") if alarm >= Verdict.GROWING else "1"
    lines = [
        _toned(headline(view, width, style), tone, style),
        _toned(watch_state(view, width, style), "33" if view.losses else "", style),
    ]
    room = height - len(lines) - 1
    if view.rows and room > 0:
        lines += _table(sorted(view.rows, key=urgency), view, width, room, style)
    return lines[:height]


class _Column(NamedTuple):
    title: str
    width: int
    is_right: bool
    rank: int  # 0: the last to be given up when there is no room
    name_cells_min: int  # shown only if so much is left for the name
    cell: Callable[[Row, View, Style], str]


# In so few letters that the column costs little.
_KINDS = {
    "python-objects": "python",
    "missing-decref": "decref",
    "native-live": "native",
    "allocator-retained": "kept",
    "stacks/threads": "threads",
}

_NAME_CELLS_MIN = 20
_NAME_CELLS_MAX = 60
_HISTORY_CELLS_MAX = 60  # a level of a history has no more samples

_HISTORY_TITLE = "HISTORY"
_KIND_TITLE = "KIND"
# What a CPython process has in use, and how fast that and its native memory grow.
_HEAP_TITLES = ("HEAP", "HEAP+", "NATIVE+")
_UNKNOWN = "unknown"

# In the order they stand in, behind the name.
_COLUMNS = (
    _Column("PROCS", 5, True, 7, 22, lambda row, *_: str(row.process_count)),
    _Column("PRIVATE", 8, True, 2, 20, lambda row, *_: format_bytes(row.private_bytes)),
    _Column("SLOPE", 11, True, 1, 15, lambda row, *_: _slope(row)),
    _Column("VERDICT", 10, False, 0, 8, lambda row, *_: _verdict(row)),
    _Column(_KIND_TITLE, 8, False, 5, 16, lambda row, *_: _KINDS.get(row.kind, row.kind) or "-"),
    _Column("HEAP", 8, True, 8, 30, lambda row, *_: _heap(row)),
    _Column("HEAP+", 11, True, 9, 30, lambda row, *_: _heap_slope(row)),
    _Column("NATIVE+", 11, True, 10, 30, lambda row, *_: _native_slope(row)),
    _Column("SINCE", 6, True, 4, 20, lambda row, view, style: _since(row, view, style)),
    _Column("LIMIT IN", 8, True, 3, 16, lambda row, *_: _forecast(row)),
    _Column(_HISTORY_TITLE, 8, False, 6, 16, lambda *_: ""),  # drawn as wide as there is room
)


def _table(rows: Sequence[Row], view: View, width: int, room: int, style: Style) -> list[str]:
    names = [row.title(style) for row in rows]
    # A column of nothing but dashes would cost the past its room.
    unused = set() if any(row.kind for row in rows) else {_KIND_TITLE}
    if not any(row.heap for row in rows):
        unused.update(_HEAP_TITLES)
    columns, name_cells = _layout(width, max(map(width_cells, [*names, "SERVICE"])), unused)
    titles = [pad(clip("SERVICE", name_cells, style.unicode), name_cells)]
    titles += [pad(column.title, column.width, column.is_right) for column in columns]
    shown = len(rows) if len(rows) <= room else room - 1
    lines = [" ".join(titles).rstrip()]
    for row, name in list(zip(rows, names))[:shown]:
        cells = [pad(shorten(name, name_cells, style.unicode), name_cells)]
        for column in columns:
            text = column.cell(row, view, style)
            if column.title == _HISTORY_TITLE:
                text = sparkline(row.history, column.width, style)
            text = pad(clip(text, column.width, style.unicode), column.width, column.is_right)
            is_verdict = column.title == "VERDICT"
            cells.append(_toned(text, _TONES.get(row.verdict, "") if is_verdict else "", style))
        lines.append(" ".join(cells).rstrip())
    if shown < len(rows):
        lines.append(_rest(rows[shown:], width, style))
    return lines


# Which columns there is room for, and how wide the name and the history may be.
def _layout(
    width: int, longest_name_cells: int, unused: Collection[str]
) -> tuple[list[_Column], int]:
    name_cells = width
    chosen: list[_Column] = []
    for column in sorted(_COLUMNS, key=lambda column: column.rank):
        left = name_cells - column.width - 1
        if column.title not in unused and left >= column.name_cells_min:
            chosen.append(column)
            name_cells = left
    chosen.sort(key=_COLUMNS.index)
    spare = name_cells - min(max(longest_name_cells, _NAME_CELLS_MIN), _NAME_CELLS_MAX)
    if spare > 0 and chosen and chosen[-1].title == _HISTORY_TITLE:
        chosen[-1] = chosen[-1]._replace(width=min(chosen[-1].width + spare, _HISTORY_CELLS_MAX))
    name_cells = min(name_cells, max(longest_name_cells, _NAME_CELLS_MIN), _NAME_CELLS_MAX)
    return chosen, name_cells


def _rest(rows: Sequence[Row], width: int, style: Style) -> str:
    leaking = sum(row.verdict is Verdict.LEAKING for row in rows)
    alarm = f", {leaking:,} of them LEAKING" if leaking else ""
    line = f"{ellipsis(style.unicode)} {len(rows):,} more{alarm}"
    return clip(line, width, style.unicode)


_SPARKS = "▁▂▃▄▅▆▇█"
_ASCII_SPARKS = "_.:-=+*#"

# Below this share of the whole, a change does not fill the height: else every steady service would
# look like a mountain range.
_SPARK_SPAN_SHARE_MIN = 0.1


def sparkline(history: Sequence[float], cells: int, style: Style) -> str:
    """A history in so many cells, the newest at the right; the least value of those in one cell."""
    sparks = _SPARKS if style.unicode else _ASCII_SPARKS
    values = [value for value in history if math.isfinite(value)]
    if not values or cells < 1:
        return ""
    count = min(cells, len(values))
    edges = [index * len(values) // count for index in range(count + 1)]
    lows = [min(values[begin:end]) for begin, end in zip(edges, edges[1:])]
    low, high = min(lows), max(lows)
    span = max(high - low, _SPARK_SPAN_SHARE_MIN * abs(high))
    top = len(sparks) - 1
    levels = [round((value - low) / span * top) if span > 0 else 0 for value in lows]
    return "".join(sparks[level] for level in levels).rjust(cells)


_TONES = {Verdict.LEAKING: "1;31", Verdict.GROWING: "33", Verdict.WARMING_UP: "36"}


# A verdict is a word in the first place; colour only repeats it.
def _toned(text: str, tone: str, style: Style) -> str:
    return f"\x1b[{tone}m{text}\x1b[0m" if style.color and tone else text


def _verdict(row: Row) -> str:
    return "LEAKING" if row.verdict is Verdict.LEAKING else row.verdict.words


def _slope(row: Row) -> str:
    slope = row.slope_bytes_per_second
    return "-" if slope is None else format_slope(slope, day="d")


def _heap(row: Row) -> str:
    return _UNKNOWN if row.heap is None else format_bytes(row.heap.heap_bytes)


def _heap_slope(row: Row) -> str:
    heap = row.heap
    return _UNKNOWN if heap is None else format_slope(heap.heap_slope_bytes_per_second, day="d")


def _native_slope(row: Row) -> str:
    slope = row.heap.native_slope_bytes_per_second if row.heap else None
    return _UNKNOWN if slope is None else format_slope(slope, day="d")


def _since(row: Row, view: View, style: Style) -> str:
    if row.since_unix_s is None:
        return "-"
    return format_since(row.since_unix_s, view.time_unix_s, style.zone)


def _forecast(row: Row) -> str:
    return "-" if row.forecast_s is None else format_duration_short(row.forecast_s)
