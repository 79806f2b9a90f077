"""What survivors of windows say of a site: at what rate it keeps memory, and whether that lasts.

Law of this file: arithmetic on windows and blocks; it opens no window and looks at no process.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import expm1

from mwtrace.tracer import Domain, Layout
from mwtrace.tracing.probing import ProbePlan

# A site whose blocks are fewer in older windows loses them, if slowly: so many deviations.
DECAY_DEVIATIONS = 2.5
PYMALLOC_BLOCK_MAX = 512
GLIBC_MMAP_BYTES = 128 << 10  # at first; it adapts


@dataclass
class Past:
    """A window that is over."""

    since_s: float
    until_s: float
    duration_s: float  # of sampling, without what the process was behind by at its end
    interval_bytes: int  # between samples
    is_good: bool  # its blocks were looked at in time
    is_counted: bool = False


# Survivors of one site, by size and domain.
Survivors = Counter[tuple[int, int]]


def halves(windows: list[Past]) -> tuple[list[Past], list[Past]]:
    """Cut at half of the windows' time."""
    half_s = sum(past.duration_s for past in windows) / 2
    passed_s = 0.0
    for place, past in enumerate(windows):
        if passed_s >= half_s:
            return windows[:place], windows[place:]
        passed_s += past.duration_s
    return windows, []


def seen_s(windows: list[Past], size_bytes: int) -> float:
    """For how long every block of a size would have been told, had the windows told all or none.

    Windows differ in how densely they sample. Their sums are each right by themselves, but those of
    few samples, each of which stands for much, would drown the others.
    """
    return sum(
        past.duration_s * -expm1(-max(size_bytes, 1) / past.interval_bytes)
        if past.interval_bytes
        else past.duration_s
        for past in windows
    )


def rates(blocks: Survivors, windows: list[Past], plan: ProbePlan) -> tuple[float, float]:
    """Bytes per second that were asked for and live, and what they take of memory."""
    asked = held = 0.0
    for (size_bytes, domain), number in blocks.items():
        per_second = number / max(seen_s(windows, size_bytes), 1e-9)
        asked += per_second * size_bytes
        held += per_second * held_bytes(max(size_bytes, 1), domain, plan)
    return asked, held


def kept(halves: list[Survivors], windows: list[list[Past]]) -> tuple[Survivors, list[Past]]:
    """What survived, and the windows it was allocated in, of older and newer ones.

    A leak's halves are alike. Where the older windows have fewer left, blocks do die, later than
    others: then only those that got old count.
    """
    both, every = halves[0] + halves[1], windows[0] + windows[1]
    count, expected = sum(both.values()), 0.0
    for (size_bytes, _), number in both.items():
        all_s = seen_s(every, size_bytes)
        expected += number * seen_s(windows[0], size_bytes) / all_s if all_s > 0 else 0.0
    if 0 < expected < count:
        deviation = (expected * (1 - expected / count)) ** 0.5
        if sum(halves[0].values()) < expected - DECAY_DEVIATIONS * max(deviation, 1.0):
            return halves[0], windows[0]
    return both, every


def held_bytes(size_bytes: int, domain: int, plan: ProbePlan) -> int:
    """What a block of this size takes of memory: sizes are rounded up, headers added."""
    layout = plan.native_layout
    if domain in (Domain.PY_MEM, Domain.PY_OBJECT):
        layout = plan.python_layout
        if layout is Layout.PYMALLOC:
            if size_bytes <= PYMALLOC_BLOCK_MAX:
                return _rounded(size_bytes, 16)
            layout = plan.native_layout
    if layout is not Layout.GLIBC:
        return _rounded(size_bytes, 16)
    if size_bytes >= GLIBC_MMAP_BYTES:
        return _rounded(size_bytes + 16, 4096)
    return max(32, _rounded(size_bytes + 8, 16))


def _rounded(size_bytes: int, step_bytes: int) -> int:
    return -(-size_bytes // step_bytes) * step_bytes
