"""A census, its growth and the holders of a type, as text and JSON.

Type names and paths are the target's text and are made printable. Knows no reader.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from mwtrace.evidence.census import Census, TypeGrowth
from mwtrace.evidence.holders import Holders
from mwtrace.tell.cells import printable
from mwtrace.tell.explanation import holder_lines, plain
from mwtrace.tell.units import format_bytes, format_duration, format_slope

_NAME_CELLS = 44


def census_text(pid: int, census: Census, top: int, unicode: bool = True) -> str:
    return "\n".join(_census_lines(pid, census, top, unicode)) + "\n"


def _census_lines(pid: int, census: Census, top: int, unicode: bool) -> Iterator[str]:
    yield (
        f"pid {pid}: {census.objects:,} Python objects, {format_bytes(census.size_bytes)}, "
        f"of {census.interpreter}, counted in {census.elapsed_s:.2f} s"
    )
    yield f"{'TYPE':{_NAME_CELLS}}{'OBJECTS':>14}{'BYTES':>12}"
    for row in census.types[:top]:
        name = printable(row.name, unicode)[:_NAME_CELLS]
        yield f"{name:{_NAME_CELLS}}{row.objects:>14,}{format_bytes(row.size_bytes):>12}"
    if not census.is_complete:
        yield f"note: not complete: {census.stopped}"


def growth_text(
    pid: int, grown: Sequence[TypeGrowth], elapsed_s: float, top: int, unicode: bool = True
) -> str:
    """What grew since the first census, and how fast."""
    lines = [f"pid {pid}: grown in {format_duration(elapsed_s)}"]
    if not grown:
        lines.append("no type of Python objects grew")
        return "\n".join(lines) + "\n"
    lines.append(f"{'TYPE':{_NAME_CELLS}}{'OBJECTS':>14}{'GROWN':>12}{'BYTES':>12}{'SLOPE':>14}")
    for row in grown[:top]:
        name = printable(row.name, unicode)[:_NAME_CELLS]
        lines.append(
            f"{name:{_NAME_CELLS}}{row.objects:>14,}{row.objects_grown:>+12,}"
            f"{format_bytes(row.bytes_grown):>12}{format_slope(row.bytes_grown / elapsed_s):>14}"
        )
    return "\n".join(lines) + "\n"


def census_json(pid: int, census: Census, top: int) -> str:
    return json.dumps(
        {
            "pid": pid,
            "interpreter": census.interpreter,
            "objects": census.objects,
            "size_bytes": census.size_bytes,
            "elapsed_s": census.elapsed_s,
            "is_complete": census.is_complete,
            "types": [
                {"type": row.name, "objects": row.objects, "size_bytes": row.size_bytes}
                for row in census.types[:top]
            ],
        }
    )


def growth_json(pid: int, grown: Sequence[TypeGrowth], elapsed_s: float, top: int) -> str:
    return json.dumps(
        {
            "pid": pid,
            "elapsed_s": elapsed_s,
            "types": [
                {
                    "type": row.name,
                    "objects": row.objects,
                    "size_bytes": row.size_bytes,
                    "objects_grown": row.objects_grown,
                    "bytes_grown": row.bytes_grown,
                    "slope_bytes_per_second": row.bytes_grown / elapsed_s,
                }
                for row in grown[:top]
            ],
        }
    )


def holders_text(holders: Holders, unicode: bool = True) -> str:
    lines = [line for line in holder_lines(holders, unicode) if line]
    if not holders.is_complete:
        lines.append("note: not complete: the time for it was up")
    return "\n".join(lines) + "\n"


def holders_json(holders: Holders) -> str:
    return json.dumps(plain(holders))
