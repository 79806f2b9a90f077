"""An incident as plain JSON values and back, for the daemon's own files.

What comes back was on a disk: whatever is not exactly what was written is refused, not guessed.
The object that others are told is in ``tell``.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, asdict, fields
from typing import Any, Optional

from mwtrace.model import Incident, IncidentType, PostMortem, Service, ServiceKind

_TEXT_MAX = 16 * 1024
_ROWS_MAX = 1_000

# By the annotation in model.py, which is text there (from __future__ import annotations).
_READERS: dict[str, Any] = {}


def to_json(incident: Incident) -> dict[str, Any]:
    return {
        **asdict(incident),
        "type": incident.type.value,
        "service": {"name": incident.service.name, "kind": incident.service.kind.value},
        "post_mortems": [asdict(one) for one in incident.post_mortems],
    }


def from_json(row: Any) -> Optional[Incident]:
    """Return what ``to_json`` was given, or None if this is something else."""
    try:
        return Incident(**_values(Incident, row))
    except (TypeError, ValueError, KeyError, AttributeError):
        return None


def _values(cls: Any, row: Any) -> dict[str, Any]:
    # Keys that we do not know are a newer version's; those that are missing an older one's.
    values = {}
    for field in fields(cls):
        if field.name in row:
            values[field.name] = _READERS[str(field.type)](row[field.name])
        elif field.default is MISSING:
            raise KeyError(field.name)
    return values


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _TEXT_MAX:
        raise ValueError("not a text of ours")
    value.encode()  # half a surrogate pair is no text, and nobody could be told of it
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError("not a number of ours")
    return float(value)


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 63:
        raise ValueError("not an integer of ours")
    return value


def _optional(read: Any) -> Any:
    return lambda value: None if value is None else read(value)


def _rows(read: Any) -> Any:
    def rows(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or len(value) > _ROWS_MAX:
            raise ValueError("not rows of ours")
        return tuple(read(row) for row in value)

    return rows


def _pair(first: Any, second: Any) -> Any:
    def pair(value: Any) -> tuple[Any, Any]:
        one, two = value
        return first(one), second(two)

    return pair


def _service(value: Any) -> Service:
    return Service(_text(value["name"]), ServiceKind(value["kind"]))


_READERS.update(
    {
        "str": _text,
        "int": _integer,
        "float": _number,
        "Optional[int]": _optional(_integer),
        "Optional[float]": _optional(_number),
        "IncidentType": IncidentType,
        "Service": _service,
        "tuple[PostMortem, ...]": _rows(lambda row: PostMortem(**_values(PostMortem, row))),
        "tuple[tuple[float, int], ...]": _rows(_pair(_number, _integer)),
        "tuple[tuple[int, int], ...]": _rows(_pair(_integer, _integer)),
        "tuple[tuple[str, str], ...]": _rows(_pair(_text, _text)),
    }
)
