"""What became of a snapshot, as a line for people and as an object for programs.

The schema of the object is ``docs/json.md``; whoever changes one changes the other.
"""

from __future__ import annotations

import json

from mwtrace.model import Snapshot
from mwtrace.tell.cells import printable
from mwtrace.tell.lines import SCHEMA_VERSION
from mwtrace.tell.units import WallAnchor, format_bytes, iso_utc


def snapshot_line(snapshot: Snapshot, unicode: bool = True) -> str:
    """``SNAPSHOT orders.service (pid 4711), leaking: /var/lib/..., 1,204,331 objects, ...``"""
    who = f"{printable(snapshot.service, unicode)} (pid {snapshot.process.pid}), {snapshot.why}"
    if not snapshot.is_taken:
        remedy = f"; {printable(snapshot.remedy, unicode)}" if snapshot.remedy else ""
        return f"NO SNAPSHOT {who}: {printable(snapshot.reason, unicode)}{remedy}"
    facts = [f"{snapshot.objects:,} objects", format_bytes(snapshot.size_bytes)]
    if snapshot.pause_s is not None:
        facts.append(f"it stood still for {snapshot.pause_s * 1000:.1f} ms")
    return f"SNAPSHOT {who}: {printable(snapshot.path, unicode)}, {', '.join(facts)}"


def snapshot_json(snapshot: Snapshot, anchor: WallAnchor) -> str:
    """The same as one JSON object on one line; see ``docs/json.md``."""
    told = {
        "schema_version": SCHEMA_VERSION,
        "event": "snapshot",
        "time": iso_utc(anchor.unix(snapshot.time_s)),
        "service": _text(snapshot.service),
        "pid": snapshot.process.pid,
        "process_start_s": snapshot.process.start_time_ns / 1e9,
        "why": snapshot.why,
        "outcome": snapshot.outcome,
        "path": _text(snapshot.path) or None,
        "size_bytes": snapshot.size_bytes if snapshot.is_taken else None,
        "objects": snapshot.objects if snapshot.is_taken else None,
        "pause_s": snapshot.pause_s,
        "reason": _text(snapshot.reason) or None,
        "remedy": _text(snapshot.remedy) or None,
    }
    return json.dumps(told, allow_nan=False, separators=(",", ":"))


def _text(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
