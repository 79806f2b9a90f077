"""An analysis of snapshots, as text and JSON: first what to do, then the figures behind it.

All names are the target's and are made printable. Knows no file format and no graph.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from mwtrace.snapshot.analysis import Analysis, Suspect, TypeLine
from mwtrace.tell.cells import printable, shorten
from mwtrace.tell.explanation import plain
from mwtrace.tell.units import format_bytes, format_duration, format_slope

_NAME_CELLS = 44
_SHARE_TOLD_MIN = 0.05


def headline(analysis: Analysis, suspect: Suspect, unicode: bool = True) -> str:
    """One suspect in one sentence: how much, of what, held by whom, what to do."""
    whole = "growth" if analysis.is_compared else "objects' memory"
    name = printable(suspect.type_name.rpartition(".")[2], unicode)
    size = format_bytes(suspect.size_bytes)
    sign = "+" if analysis.is_compared else ""
    return (
        f"{suspect.share:.0%} of the {whole}: {suspect.objects:,} {name} ({sign}{size}) held by "
        f"{printable(suspect.path, unicode)}: {suspect.pattern}; {suspect.advice}"
    )


def conclusion(analysis: Analysis, unicode: bool = True) -> list[str]:
    """What to do, one line per suspect; says so if there is nothing."""
    if analysis.is_compared and not analysis.grown_bytes:
        return ["nothing grew between these snapshots"]
    lines = [headline(analysis, suspect, unicode) for suspect in analysis.suspects]
    if not lines:
        lines = ["no single holder: what is there hangs on many small ones; see the types"]
    elif not analysis.is_compared:
        lines.append("one snapshot shows what is large, not what grows: compare two or three")
    return lines


def render_text(analysis: Analysis, top: int = 20, unicode: bool = True) -> str:
    return "\n".join(_lines(analysis, top, unicode)) + "\n"


def _lines(analysis: Analysis, top: int, unicode: bool) -> Iterator[str]:
    yield from conclusion(analysis, unicode)
    yield ""
    header = analysis.headers[-1]
    name = printable(header.service or header.argv0 or "a process", unicode)
    yield (
        f"{name} (pid {header.pid}, Python {printable(header.python, unicode) or '?'}): "
        f"{analysis.objects:,} objects, {format_bytes(analysis.size_bytes)}"
    )
    if analysis.is_compared:
        over_s = analysis.interval_s
        rate = f", {format_slope(analysis.grown_bytes / over_s)}" if over_s > 0 else ""
        yield (
            f"grown in {format_duration(over_s)}: {analysis.grown_objects:,} objects, "
            f"{format_bytes(analysis.grown_bytes)}{rate} ({analysis.method})"
        )
    if analysis.native_objects or analysis.cycle_objects:
        yield (
            f"held by no module or thread: {analysis.native_objects:,} objects by native code, "
            f"{analysis.cycle_objects:,} cycles that wait for the collector"
        )
    for suspect in analysis.suspects:
        yield from _details(suspect, unicode)
    yield ""
    yield from _table(analysis, top, unicode)
    for note in analysis.notes:
        yield f"note: {printable(note, unicode)}"


def _details(suspect: Suspect, unicode: bool) -> Iterator[str]:
    yield ""
    yield f"{printable(suspect.path, unicode)}  [{suspect.signature}]"
    yield f"  {suspect.objects:,} {printable(suspect.type_name, unicode)}: {suspect.pattern}"
    if suspect.retained_bytes:
        yield f"  its holder retains {format_bytes(suspect.retained_bytes)} in all"
    for other in suspect.also:
        yield f"  also held by {printable(other, unicode)}"


def _table(analysis: Analysis, top: int, unicode: bool) -> Iterator[str]:
    head = f"{'TYPE':{_NAME_CELLS}}{'OBJECTS':>12}{'BYTES':>11}{'RETAINED':>11}"
    yield head + (f"{'GROWN':>12}{'BYTES':>11}" if analysis.is_compared else "")
    for row in analysis.types[:top]:
        yield _row(row, analysis.is_compared, unicode)


def _row(row: TypeLine, is_compared: bool, unicode: bool) -> str:
    name = shorten(printable(row.name, unicode), _NAME_CELLS - 1, unicode)
    text = (
        f"{name:{_NAME_CELLS}}{row.objects:>12,}{format_bytes(row.size_bytes):>11}"
        f"{format_bytes(row.retained_bytes):>11}"
    )
    if is_compared:
        text += f"{row.objects_grown:>+12,}{format_bytes(row.bytes_grown):>11}"
    return text


def render_json(analysis: Analysis, top: int = 200) -> str:
    """All figures; the tree of dominators is in the page only."""
    fields = plain(analysis)
    del fields["tree"]
    fields["paths"] = [str(path) for path in analysis.paths]
    fields["types"] = fields["types"][:top]
    fields["conclusion"] = conclusion(analysis)
    return json.dumps(fields)
