"""Verdicts with memory: what a subject was called before decides how soon it is called otherwise.

    LEARNING ──enough samples──▶ STEADY ◀──calm for calm_s── WARMING_UP, GROWING, LEAKING
    any ──windows say so──▶ WARMING_UP, GROWING        (at once: they only inform)
    any ──windows say so for an eighth of their length──▶ LEAKING   (it wakes somebody)

A history that began anew (restart, exec) is another subject and has no memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Optional

from mwtrace.judge.trend import Thresholds, Trend, trend
from mwtrace.model import Judgement, Limit, Subject, Verdict


@dataclass(frozen=True)
class Memory:
    """What must be known of a subject at the next tick."""

    judgement: Judgement
    first_time_s: float  # of the history it was judged by
    leak_seen_s: Optional[float] = None  # since when, without a break, the windows say: leak
    calm_since_s: Optional[float] = None  # since when they say less than the verdict


def judge(subject: Subject, memory: Optional[Memory], thresholds: Thresholds) -> Memory:
    """Judge one subject at one tick; the result is the memory for the next one."""
    if memory is not None and memory.first_time_s != subject.first_time_s:
        memory = None
    seen = trend(subject, thresholds)
    leak_seen_s = None
    if seen.verdict is Verdict.LEAKING and seen.window is not None:
        leak_seen_s = subject.time_s
        if memory is not None and memory.leak_seen_s is not None:
            leak_seen_s = memory.leak_seen_s
        persisted_s = subject.time_s - leak_seen_s
        confirmed = persisted_s >= thresholds.confirm_ratio * seen.window.span_s
        if not confirmed and (memory is None or memory.judgement.verdict is not Verdict.LEAKING):
            seen = replace(seen, verdict=Verdict.GROWING, why="about to be confirmed")
    if memory is None:
        return Memory(_judgement(seen, subject, None), subject.first_time_s, leak_seen_s)
    before = memory.judgement
    calm_since_s = subject.time_s if memory.calm_since_s is None else memory.calm_since_s
    falls = seen.verdict < before.verdict and before.verdict > Verdict.STEADY
    if falls and subject.time_s - calm_since_s < thresholds.calm_s:
        return Memory(before, subject.first_time_s, leak_seen_s, calm_since_s)
    return Memory(_judgement(seen, subject, before), subject.first_time_s, leak_seen_s)


def of_service(own: Judgement, members: Sequence[Judgement]) -> Judgement:
    """Join the verdict on a service's sum with those on its processes.

    A worker that leaks makes a leaking service, though restarts of its siblings may keep the sum
    level; and a service may leak by the number of its processes though none of them grows. Slopes
    and growth of members add up.
    """
    worst = max((member.verdict for member in members), default=Verdict.LEARNING)
    if worst <= own.verdict or worst < Verdict.GROWING:
        return own
    guilty = [member for member in members if member.verdict is worst]
    lead = max(guilty, key=lambda member: member.slope_bytes_per_second or 0.0)
    slope = sum(member.slope_bytes_per_second or 0.0 for member in guilty)
    return replace(
        lead,
        since_s=min(member.since_s for member in guilty),
        slope_bytes_per_second=slope,
        slope_low_bytes_per_second=sum(m.slope_low_bytes_per_second or 0.0 for m in guilty),
        slope_high_bytes_per_second=sum(m.slope_high_bytes_per_second or 0.0 for m in guilty),
        grown_bytes=sum(member.grown_bytes for member in guilty),
    )


def with_limit(judgement: Judgement, limit: Optional[Limit]) -> Judgement:
    """Add what the memory runs into and, if it grows, when."""
    forecast_s = None
    slope = judgement.slope_bytes_per_second
    if limit is not None and slope is not None and slope > 0:
        forecast_s = max(0, limit.headroom_bytes) / slope
    return replace(judgement, limit=limit, forecast_s=forecast_s)


def _judgement(seen: Trend, subject: Subject, before: Optional[Judgement]) -> Judgement:
    if seen.window is None:
        same = before is not None and before.verdict is seen.verdict
        since_s = before.since_s if before is not None and same else subject.time_s
        return Judgement(seen.verdict, since_s, why=seen.why)
    since_s = seen.window.onset_time_s
    if before is not None and before.slope_bytes_per_second is not None:
        since_s = min(since_s, before.since_s)  # one growth, of which the window sees the end
    slope = seen.window.theil_sen_bytes_per_second
    return Judgement(
        verdict=seen.verdict,
        since_s=since_s,
        slope_bytes_per_second=slope,
        slope_low_bytes_per_second=seen.window.theil_sen_low_bytes_per_second,
        slope_high_bytes_per_second=seen.window.theil_sen_high_bytes_per_second,
        grown_bytes=int(seen.window.envelope_growth_bytes),
        window_s=seen.window.span_s,
        why=seen.why,
    )
