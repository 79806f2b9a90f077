"""What the live table shows, as frozen values: the daemon fills a View, the table renders it.

Times are seconds since 1970 (wall clock), because that is what is shown. Knows no layout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import tzinfo
from typing import NamedTuple

from mwtrace.model import HeapSplit, Verdict
from mwtrace.tell.cells import printable


class Style(NamedTuple):
    """What the terminal can show, and where the operator is."""

    color: bool = False
    unicode: bool = True
    zone: tzinfo | None = None  # None: local time


@dataclass(frozen=True)
class Row:
    """One service, or one process if ``pid`` is set."""

    name: str
    verdict: Verdict
    private_bytes: int
    process_count: int = 1
    pid: int | None = None
    slope_bytes_per_second: float | None = None
    since_unix_s: float | None = None
    forecast_s: float | None = None  # from the view's time on
    limit_bytes: int | None = None
    history: tuple[float, ...] = ()  # private bytes, oldest first
    kind: str = ""  # of what grows, a word of evidence.kind.Kind; "" if it is not known
    heap: HeapSplit | None = None  # of a CPython process that was read

    def title(self, style: Style) -> str:
        """The name made safe, with the pid if this is a process."""
        name = printable(self.name, style.unicode) or "?"
        return name if self.pid is None else f"{name} ({self.pid})"


@dataclass(frozen=True)
class View:
    """All that the table shows. Rows may be fewer than services: the counts are of all."""

    time_unix_s: float
    since_unix_s: float  # watching since
    tick_s: float
    source: str  # how processes are read: "BPF", or "/proc" and why
    process_count: int
    service_count: int
    verdict_counts: Mapping[Verdict, int]  # services by verdict
    learning_s: float = 0.0  # how long a watch takes until its first verdicts
    rows: tuple[Row, ...] = ()
    losses: tuple[str, ...] = ()  # what was lost so far, in words
    blind: tuple[str, ...] = ()  # what cannot be seen here, in words
    notice: str = ""  # what must be said instead of any conclusion


def urgency(row: Row) -> tuple[float, float, float, str]:
    """Sort key: alarm first, then slope, then size; the name keeps equal ones from jumping."""
    slope = _finite(row.slope_bytes_per_second, 0.0)
    return (-row.verdict, -slope, -row.private_bytes, row.name)


def nearness(row: Row) -> tuple[float, tuple[float, float, float, str]]:
    """Sort key: who hits its limit first; those without a forecast last."""
    return (_finite(row.forecast_s, math.inf), urgency(row))


def _finite(number: float | None, default: float) -> float:
    return number if number is not None and math.isfinite(number) else default
