"""Is it growing, and does the growth look like a leak's? One subject, one tick, no memory.

A leak is told from its look-alikes by five questions to each window of the past:

* Did the *lower envelope* rise, and by more than the swing around the line? A sawtooth's minima
  do not; chance rarely does.
* Did it rise *evenly*, in every block of the window? A step, a deploy or an import storm does not.
* Does it *last*: did the later half rise about as much as the earlier? A cache that fills, or a
  program that warms up, slows down.
* Is it *new*: was the subject never this large before? The next tooth of a long saw, or the next
  morning, was.
* Was it watched *long enough for its speed*? A fast leak leaves little time, a slow one leaves
  plenty, and what looks like a slow leak is more often something else.

What cannot be told this way: a cache that fills at a constant speed for longer than the evidence
asks, until it is full. docs/verdicts.md has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from mwtrace.model import Fit, Subject, Verdict

MIB = 1024 * 1024


@dataclass(frozen=True)
class Thresholds:
    """What counts as growth, and as growth consistent with a leak."""

    learning_s: float = 40.0  # a subject watched for less is not called steady either
    warm_up_s: float = 60.0  # a younger one is not accused
    settling_s: float = 600.0  # up to this age, growth that slows down is called warming up
    growth_bytes: int = 1 * MIB  # less is not called growth
    leak_bytes: int = 4 * MIB  # less is not called a leak
    leak_ratio: float = 0.005  # of private memory; the larger of the two counts
    trend_z: float = 2.5  # Mann-Kendall; 2.5 is one in 160 by chance ...
    plain_ratio: float = 4.0  # ... or the growth is this many times the swing: plain without a test
    evenness: float = 0.25  # least rise of a block, of the mean rise
    lasting: float = 0.85  # rise of the later half, of the earlier half's
    swing_ratio: float = 1.5  # envelope growth, of the swing around the line
    evidence_s: float = 60.0  # how long a leak of evidence_rate must be watched ...
    evidence_rate: float = 1.0 * MIB  # ... in bytes per second; slower ones longer:
    evidence_power: float = 0.45  # (evidence_rate / slope) ** evidence_power times as long
    confirm_ratio: float = 0.125  # of the window: how long what it says must persist to be told
    calm_s: float = 60.0  # how long less must be seen before a verdict is taken back

    def needed_s(self, slope_bytes_per_second: float) -> float:
        """Return how long growth of this speed must be seen before it is called a leak."""
        slower = max(1.0, self.evidence_rate / slope_bytes_per_second)
        return float(self.evidence_s * slower**self.evidence_power)


@dataclass(frozen=True)
class Trend:
    """What the windows say: a verdict without memory, and the window that decided it."""

    verdict: Verdict
    window: Optional[Fit]
    why: str


SLOWS_DOWN = "its growth slows down"


def trend(subject: Subject, thresholds: Thresholds) -> Trend:
    """Judge one subject by its windows alone."""
    growing = [fit for level in subject.levels for fit in level if _grows(fit, thresholds)]
    if not growing:
        if subject.time_s - subject.first_time_s < thresholds.learning_s:
            return Trend(Verdict.LEARNING, None, "watched for too short a time")
        return Trend(Verdict.STEADY, None, "its lower envelope does not rise")
    # Of several windows the longest is the strongest evidence and has the narrowest interval.
    age_s = subject.time_s - subject.started_s
    doubts = [doubt(fit, subject.private_bytes, thresholds) for fit in growing]
    leaking = [fit for fit, reason in zip(growing, doubts) if reason is None]
    if leaking:
        window = max(leaking, key=_span)
        if age_s < thresholds.warm_up_s:
            return Trend(Verdict.WARMING_UP, window, "it is younger than the warm-up")
        return Trend(Verdict.LEAKING, window, "it rises evenly and does not slow down")
    window = max(growing, key=_span)
    reason = doubts[growing.index(window)] or ""
    young = age_s < thresholds.warm_up_s
    if young or (reason == SLOWS_DOWN and age_s < thresholds.settling_s):
        return Trend(Verdict.WARMING_UP, window, reason)
    return Trend(Verdict.GROWING, window, reason)


def doubt(fit: Fit, private_bytes: int, thresholds: Thresholds) -> Optional[str]:
    """Say why growth in this window is not called a leak, or None if it is."""
    rises = fit.rise_bytes
    growth = fit.envelope_growth_bytes
    half = len(rises) // 2
    if sum(rises[half:]) < thresholds.lasting * sum(rises[:half]):
        return SLOWS_DOWN
    if min(rises) < thresholds.evenness * growth / len(rises):
        return "it grows unevenly"
    if growth < thresholds.swing_ratio * fit.swing_bytes:
        return "it swings by more than it has grown"
    if growth < max(thresholds.leak_bytes, thresholds.leak_ratio * private_bytes):
        return "it has grown by little"
    if fit.span_s < thresholds.needed_s(fit.theil_sen_bytes_per_second):
        return "growth at this speed has to be watched for longer"
    if fit.earlier_peak_bytes > fit.last_bytes:
        return "it has been as large before"
    return None


def _grows(fit: Fit, thresholds: Thresholds) -> bool:
    if fit.envelope_growth_bytes < thresholds.growth_bytes or fit.rise_bytes[-1] <= 0:
        return False
    if fit.theil_sen_bytes_per_second <= 0:
        return False
    # The correction for autocorrelation takes the bend of a start-up for noise and then doubts a
    # line that a child would draw.
    if fit.envelope_growth_bytes >= thresholds.plain_ratio * fit.swing_bytes:
        return True
    return fit.trend_z >= thresholds.trend_z and fit.theil_sen_low_bytes_per_second > 0


def _span(fit: Fit) -> float:
    return fit.span_s
