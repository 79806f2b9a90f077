"""What is told of services as metrics: one set of figures each, and one for all beyond the bound.

Law of this file: it is pure. Services of one name are one here, since the name is the label.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Optional, TypeVar

from mwtrace.model import Verdict
from mwtrace.tell.cells import printable
from mwtrace.tell.families import OTHER, Sample

# A service that is told keeps its place until another one is so much larger: series that come and
# go with every tick are of no use to anybody.
_STAYS = 1.25


@dataclass(frozen=True)
class ServiceFigures:
    """One service at one tick; times are seconds since 1970, None: not known, or nothing to say."""

    service: str
    process_count: int
    private_bytes: int
    anon_bytes: int
    swap_bytes: int
    file_bytes: int
    shmem_bytes: int
    largest_bytes: int
    oldest_start_unix_s: float
    verdict: Optional[Verdict] = None
    since_unix_s: Optional[float] = None
    slope_bytes_per_second: Optional[float] = None
    kind: str = "unknown"
    limit_bytes: Optional[int] = None
    headroom_bytes: Optional[int] = None
    forecast_s: Optional[float] = None
    in_use_bytes: tuple[tuple[str, int], ...] = ()  # by domain
    retained_bytes: Optional[int] = None


def label(name: str) -> str:
    """A service's name as a label: bounded, printable, and not the one of all the others."""
    shown = printable(name) or "?"
    return f"{shown} (service)" if shown == OTHER else shown


def fold(
    services: Iterable[ServiceFigures], count_max: int, told_before: Collection[str] = ()
) -> tuple[list[ServiceFigures], int]:
    """Return those that are told, the most urgent first, and how many are told as ``other``.

    Whoever grows comes before whoever is large; ``other`` is the last of the list, if it is there.
    """
    by_name: dict[str, ServiceFigures] = {}
    for figures in services:
        known = by_name.get(figures.service)
        by_name[figures.service] = figures if known is None else _sum(known, figures)

    def urgency(figures: ServiceFigures) -> tuple[float, float, float, str]:
        alarm = max(figures.verdict or Verdict.LEARNING, Verdict.STEADY)
        stays = _STAYS if figures.service in told_before else 1.0
        slope = (figures.slope_bytes_per_second or 0.0) * stays
        return (-alarm, -slope, -figures.private_bytes * stays, figures.service)

    order = sorted(by_name.values(), key=urgency)
    told, rest = order[:count_max], order[count_max:]
    if rest:
        other = rest[0]
        for figures in rest[1:]:
            other = _sum(other, figures)
        told.append(replace(other, service=OTHER))
    return told, len(rest)


def samples(figures: ServiceFigures) -> Iterator[Sample]:
    """Yield the gauges of one service."""
    of = (figures.service,)
    yield Sample("private_bytes", of, figures.private_bytes)
    yield Sample("anon_bytes", of, figures.anon_bytes)
    yield Sample("swap_bytes", of, figures.swap_bytes)
    yield Sample("file_bytes", of, figures.file_bytes)
    yield Sample("shmem_bytes", of, figures.shmem_bytes)
    yield Sample("service_processes", of, figures.process_count)
    yield Sample("largest_process_private_bytes", of, figures.largest_bytes)
    yield Sample("oldest_process_start_time_seconds", of, round(figures.oldest_start_unix_s, 2))
    maybe = (
        ("verdict", figures.verdict),
        ("growing_since_timestamp_seconds", figures.since_unix_s),
        ("limit_bytes", figures.limit_bytes),
        ("limit_headroom_bytes", figures.headroom_bytes),
        ("forecast_seconds", figures.forecast_s),
        ("allocator_retained_bytes", figures.retained_bytes),
    )
    for name, value in maybe:
        if value is not None:
            yield Sample(name, of, value)
    if figures.slope_bytes_per_second is not None:
        labels = (figures.service, figures.kind)
        yield Sample("leak_slope_bytes_per_second", labels, figures.slope_bytes_per_second)
    for domain, size_bytes in figures.in_use_bytes:
        yield Sample("heap_in_use_bytes", (figures.service, domain), size_bytes)


def _sum(one: ServiceFigures, two: ServiceFigures) -> ServiceFigures:
    """Both together: sizes added up, the worse verdict, the nearer limit."""
    near, far = (one, two) if _nearness(one) <= _nearness(two) else (two, one)
    kinds = {f.kind for f in (one, two) if f.slope_bytes_per_second is not None}
    domains = dict(one.in_use_bytes)
    for domain, size_bytes in two.in_use_bytes:
        domains[domain] = domains.get(domain, 0) + size_bytes
    limit = near if near.limit_bytes is not None else far
    return ServiceFigures(
        one.service,
        one.process_count + two.process_count,
        one.private_bytes + two.private_bytes,
        one.anon_bytes + two.anon_bytes,
        one.swap_bytes + two.swap_bytes,
        one.file_bytes + two.file_bytes,
        one.shmem_bytes + two.shmem_bytes,
        max(one.largest_bytes, two.largest_bytes),
        min(one.oldest_start_unix_s, two.oldest_start_unix_s),
        max((v for v in (one.verdict, two.verdict) if v is not None), default=None),
        min((t for t in (one.since_unix_s, two.since_unix_s) if t is not None), default=None),
        _both(one.slope_bytes_per_second, two.slope_bytes_per_second),
        kinds.pop() if len(kinds) == 1 else "mixed" if kinds else "unknown",
        limit.limit_bytes,
        limit.headroom_bytes,
        near.forecast_s,
        tuple(domains.items()),
        _both(one.retained_bytes, two.retained_bytes),
    )


def _nearness(figures: ServiceFigures) -> float:
    return float("inf") if figures.forecast_s is None else figures.forecast_s


_Number = TypeVar("_Number", int, float)


def _both(one: Optional[_Number], two: Optional[_Number]) -> Optional[_Number]:
    return two if one is None else one if two is None else one + two
