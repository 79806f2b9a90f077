"""An explanation of a process's memory as text, JSON and HTML.

Everything the target chose (type names, paths, file names) is hostile and is made printable, and
escaped for HTML. Knows no reader: it is handed finished values.
"""

from __future__ import annotations

import dataclasses
import enum
import html
import json
from collections.abc import Iterator
from typing import Any

from mwtrace.evidence.explain import Explanation
from mwtrace.evidence.holders import Holders
from mwtrace.evidence.parts import NOT_PRIVATE, Part
from mwtrace.tell.cells import printable
from mwtrace.tell.units import format_bytes

_BAR_CELLS = 24
_TYPES_SHOWN = 10
_PATHS_SHOWN = 3
_ARENAS_SHOWN = 8


def render_text(explanation: Explanation, name: str = "", unicode: bool = True) -> str:
    return "\n".join(_lines(explanation, name, unicode)) + "\n"


def _lines(explanation: Explanation, name: str, unicode: bool) -> Iterator[str]:
    kernel = explanation.kernel
    title = f"{printable(name, unicode)} " if name else ""
    yield f"{title}(pid {explanation.pid}): {format_bytes(kernel.private_bytes)} private"
    facts = [explanation.census.interpreter, f"allocator {explanation.allocator}"]
    facts.append(f"{explanation.threads} stack{'s'[: explanation.threads != 1]}")
    yield "  " + ", ".join(fact for fact in facts if fact)
    yield ""
    whole = max(1, explanation.private_bytes)
    for part in explanation.parts:
        if part.size_bytes:
            yield _part_line(part, whole, unicode)
    yield f"  {'sum of private parts':32}{format_bytes(explanation.private_bytes):>10}"
    yield from _type_lines(explanation, unicode)
    for part in explanation.parts:
        yield from _detail_lines(part, unicode)
    yield from _arena_lines(explanation)
    for holders in explanation.holders:
        yield from holder_lines(holders, unicode)
    if explanation.notes:
        yield ""
        for note in explanation.notes:
            yield f"  note: {printable(note, unicode)}"


def _part_line(part: Part, whole: int, unicode: bool) -> str:
    share = part.size_bytes / whole
    if part.kind in NOT_PRIVATE:
        bar = "not private".ljust(_BAR_CELLS)
    else:
        filled = min(_BAR_CELLS, round(share * _BAR_CELLS))
        full, empty = ("\u2588", "\u00b7") if unicode else ("#", ".")
        bar = full * filled + empty * (_BAR_CELLS - filled)
    percent = "" if part.kind in NOT_PRIVATE else f"{100 * share:5.1f}%"
    size = format_bytes(part.size_bytes)
    return f"  {part.kind.value:32}{size:>10} {percent:6} {bar}  {part.basis.value}"


def _type_lines(explanation: Explanation, unicode: bool) -> Iterator[str]:
    census = explanation.census
    if not census.types:
        return
    yield ""
    yield f"Python objects by type ({census.objects:,} objects)"
    for row in census.types[:_TYPES_SHOWN]:
        size = format_bytes(row.size_bytes)
        yield f"  {printable(row.name, unicode)[:44]:44}{row.objects:>12,}{size:>12}"


def _detail_lines(part: Part, unicode: bool) -> Iterator[str]:
    # types have a table of their own
    if not part.details or not part.size_bytes or part.kind.value == "python objects":
        return
    yield ""
    yield f"{part.kind.value}: {part.note}"
    for detail in part.details:
        yield f"  {printable(detail.label, unicode)[:44]:44}{format_bytes(detail.size_bytes):>12}"


def _arena_lines(explanation: Explanation) -> Iterator[str]:
    arenas = explanation.arenas
    if arenas is None or not arenas.arenas:
        return
    yield ""
    yield (
        f"malloc: {format_bytes(arenas.system_bytes)} from the kernel, "
        f"{format_bytes(arenas.in_use_bytes)} in use, {format_bytes(arenas.free_bytes)} free; "
        f"malloc_trim() could return about {format_bytes(arenas.trim_bytes)} (estimate)"
    )
    largest = sorted(arenas.arenas, key=lambda arena: -arena.system_bytes)
    for arena in largest[:_ARENAS_SHOWN]:
        name = "main" if arena.is_main else f"{arena.address:#x}"
        yield (
            f"  {name:18}{format_bytes(arena.system_bytes):>10} system"
            f"{format_bytes(arena.in_use_bytes):>10} in use"
            f"{format_bytes(arena.free_bytes):>10} free"
            f"{format_bytes(arena.top_bytes):>10} top"
            f"{format_bytes(arena.fast_bytes):>10} fast"
        )
    if len(largest) > _ARENAS_SHOWN:
        yield f"  and {len(largest) - _ARENAS_SHOWN} more arenas"


def holder_lines(holders: Holders, unicode: bool) -> Iterator[str]:
    yield ""
    name = printable(holders.type_name, unicode)
    yield f"who holds {name} ({holders.objects:,} objects, {holders.sampled:,} followed)"
    for path in holders.paths[:_PATHS_SHOWN]:
        about = round(path.count / max(1, holders.sampled) * holders.objects)
        told = f"{about:,}" if holders.sampled == holders.objects else f"about {about:,}"
        yield f"  {told} of {holders.objects:,}: {printable(path.text, unicode)}"
    if holders.missing_decref:
        where = printable(holders.defined_in, unicode) or "native code that handles them"
        kind = printable(holders.uncounted_type, unicode)
        held = "are" if kind == name else f"are held by {kind} objects that are"
        yield (
            f"  {holders.uncounted} of {holders.sampled} {held} counted higher than the references "
            f"found: a missing DECREF in native code looks like this ({where})"
        )


def render_json(explanation: Explanation) -> str:
    return json.dumps(plain(explanation), indent=1)


def plain(value: Any) -> Any:
    """Dataclasses and named tuples as objects, enumerations by their words."""
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {key: plain(item) for key, item in value._asdict().items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return value


_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.15em .6em}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums}"
    ".bar{background:#37d;height:.9em;min-width:1px}.bar.i{background:#9be}"
)


def render_html(explanation: Explanation, name: str = "") -> str:
    """One page without scripts and without anything loaded from elsewhere."""
    whole = max(1, explanation.private_bytes)
    rows = []
    for part in explanation.parts:
        if not part.size_bytes:
            continue
        width = 0.0 if part.kind in NOT_PRIVATE else 100 * part.size_bytes / whole
        inferred = " i" if part.basis.value == "inferred" else ""
        rows.append(
            f"<tr><td>{html.escape(part.kind.value)}</td>"
            f"<td class=n>{format_bytes(part.size_bytes)}</td>"
            f'<td style="width:40%"><div class="bar{inferred}" style="width:{width:.1f}%"></div>'
            f"</td><td>{part.basis.value}</td></tr>"
        )
    types = "".join(
        f"<tr><td>{html.escape(printable(row.name))}</td><td class=n>{row.objects:,}</td>"
        f"<td class=n>{format_bytes(row.size_bytes)}</td></tr>"
        for row in explanation.census.types[: 2 * _TYPES_SHOWN]
    )
    text = html.escape(render_text(explanation, name))
    title = html.escape(printable(name) or f"pid {explanation.pid}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}: memory</title>'
        f"<style>{_STYLE}</style><h1>{title}</h1>"
        f"<p>{format_bytes(explanation.kernel.private_bytes)} private memory</p>"
        f"<table>{''.join(rows)}</table><h2>Python objects by type</h2><table>{types}</table>"
        f"<h2>All figures</h2><pre>{text}</pre></html>\n"
    )
