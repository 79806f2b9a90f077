"""What a finding does to a verdict: memory that nobody holds is not called a leak.

An allocator that keeps what was freed makes a process grow as a leak does. The growth is real and
stays *growing*, with its slope and its forecast; the word *leaking* is taken back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Optional

from mwtrace.model import Finding, Judgement, Verdict

# The sum of a service is excused where excused processes make up this share of its growth.
EXCUSED_SHARE_MIN = 0.8
WHY = "what grows is free, but the allocator keeps it"


def with_finding(judgement: Judgement, finding: Optional[Finding]) -> Judgement:
    """A process's verdict in the light of what was found in it."""
    if finding is None or finding.is_leak or judgement.verdict is not Verdict.LEAKING:
        return judgement
    return replace(judgement, verdict=Verdict.GROWING, why=WHY)


def of_sum(own: Judgement, excused: Sequence[Judgement]) -> Judgement:
    """A service's verdict by its sum, given those of its processes that were excused."""
    if own.verdict is not Verdict.LEAKING or not excused:
        return own
    slope = sum(judgement.slope_bytes_per_second or 0.0 for judgement in excused)
    if slope < EXCUSED_SHARE_MIN * (own.slope_bytes_per_second or 0.0):
        return own
    return replace(own, verdict=Verdict.GROWING, why=WHY)
