"""A finding for tests, with figures of its own where a test asks for them."""

from __future__ import annotations

from typing import Any

from mwtrace.model import Finding, HeapSplit, ProcessId

MIB = 1024**2


def finding(pid: int = 4711, **fields: Any) -> Finding:
    usual: dict[str, Any] = {
        "time_s": 995.0,
        "process": ProcessId(pid, 12_345_678_901),
        "kind": "python-objects",
        "is_leak": True,
        "grown_bytes": 31 * MIB,
        "window_s": 35.0,
        "grown_by_kind": (("python-objects", 30 * MIB), ("allocator-retained", MIB)),
        "why": "97% of the growth",
        "advice": "Bound or empty app.SESSIONS[\u2026]: it holds the growing app.Session objects.",
        "type_name": "app.Session",
        "type_objects": 556_488,
        "type_objects_grown": 183_389,
        "holder": "app.SESSIONS[\u2026]",
        "retained_bytes": 2 * MIB,
        "trim_bytes": MIB,
        "heap": HeapSplit(276 * MIB, 898_779.43, 24 * MIB, 0.0),
    }
    return Finding(**{**usual, **fields})
