"""What a probe hit costs and what was seen in, the next window out: the budget, as arithmetic.

Law of this file: it reads no clock and opens no window; times and counts arrive as arguments, so
every decision can be replayed. A target's budget is a bucket that fills by ``target_share`` of
wall time and is emptied by what windows cost; a bucket for the host is shared by all. That a
window ends when its price is reached is seen to elsewhere (``cext/governor.h``): the plan can be
wrong, the bound cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

# A window shorter than this is spent on attaching (10 to 15 ms), a longer one than that is felt
# as a pause by a target that allocates all the time.
WINDOW_MIN_S = 0.02
WINDOW_MAX_S = 0.5
# Unless it hardly allocates: then nothing is felt, and the longer a window the more it shows.
LONG_WINDOW_MAX_S = 10.0
WINDOW_COST_S = 0.05  # what makes a window long enough
# A window of a target that was calm may cost this much, budget permitting, before it is ended.
CALM_COST_S = 0.005
FIRST_WINDOW_S = 0.05
# Attaching and detaching cost the host about 100 ms of waiting and the target a handful of page
# copies, so windows do not follow each other faster than this.
PERIOD_MIN_S = 3.0
PERIOD_MAX_S = 120.0
# A window may cost so many times its plan before it is ended: rates double, they rarely jump.
OVERRUN = 1.5
# So much unused budget can be saved up, in seconds of wall time.
SAVED_MAX_S = 60.0
# Part of a window's price that is kept for samples; the rest goes to traps, which cannot be
# thinned. Samples get, on top, most of what a window leaves over.
SAMPLE_SHARE = 0.25
SPARE_SHARE = 0.7
INTERVAL_MIN_BYTES = 1 << 10
INTERVAL_MAX_BYTES = 1 << 30
FIRST_INTERVAL_BYTES = 32 << 10
# More samples in a window name the sites no better, and fill the ring.
SAMPLES_PER_WINDOW_MAX = 50_000
# How much a new rate counts against the ones before.
RATE_WEIGHT = 0.5


class Budget(NamedTuple):
    target_share: float = 0.01  # of the target's wall time
    host_share: float = 0.02  # of one core, all targets together


class Prices(NamedTuple):
    """What each counted thing costs the target, in nanoseconds; of this host, calibrated."""

    hit_ns: float  # the trap and a program that decides not to sample
    return_ns: float  # on top, where the return is trapped, too
    stopped_hit_ns: float  # the trap and a program that sees the stop flag
    sample_ns: float  # on top, for a sampled block: stacks, ring

    def by_count(self) -> dict[str, int]:
        """Prices by the names of ``struct mw_target_counts``, for ``mw_governor_maps``."""
        return {
            "hits_total": round(self.hit_ns),
            "returns_total": round(self.return_ns),
            "stopped_hits_total": round(self.stopped_hit_ns),
            "blocks_total": round(self.sample_ns),
            "dropped_blocks_total": round(self.sample_ns),
        }

    def cost_s(self, counts: Mapping[str, int]) -> float:
        return sum(price * counts.get(name, 0) for name, price in self.by_count().items()) * 1e-9


class Seen(NamedTuple):
    """What a window has shown."""

    duration_s: float  # from open to flagged
    cost_s: float
    hits: int  # entries
    samples: int
    sampled_bytes: int  # what the samples stand for
    was_cut: bool  # ended by its price
    sample_cost_s: float = 0.0  # part of cost_s that went to samples, not to traps
    overhead_s: float = 0.0  # part of cost_s that any window has: hits while it is put in and out


@dataclass(frozen=True)
class Spending:
    """The state of one bucket: a target's, or the host's."""

    time_s: float  # when saved_s was true
    saved_s: float  # may be spent; below 0: overspent, to be waited off
    spent_s: float = 0.0  # since the beginning: a metric

    def at(self, time_s: float, share: float) -> Spending:
        """The bucket later, when more has run into it."""
        earned_s = max(0.0, time_s - self.time_s) * share
        saved_s = min(self.saved_s + earned_s, SAVED_MAX_S * share)
        return replace(self, time_s=max(time_s, self.time_s), saved_s=saved_s)

    def less(self, cost_s: float) -> Spending:
        return replace(self, saved_s=self.saved_s - cost_s, spent_s=self.spent_s + cost_s)


@dataclass(frozen=True)
class Course:
    """What is known of one target's windows so far."""

    spending: Spending
    cost_share: float | None = None  # of a window's time that goes to traps; None: not seen
    overhead_s: float = 0.0  # what a window costs beside its length
    hits_per_s: float = 0.0
    bytes_per_s: float = 0.0
    interval_bytes: int = FIRST_INTERVAL_BYTES
    windows: int = 0
    cut_windows: int = 0


class Window(NamedTuple):
    """A window to be opened now."""

    duration_s: float
    cost_max_s: float  # at which it is ended
    interval_bytes: int


class Wait(NamedTuple):
    """No window now."""

    until_s: float
    why: str


def begin(time_s: float, budget: Budget) -> Course:
    """A target nothing is known of; it may spend what a minute of the budget allows."""
    return Course(Spending(time_s, SAVED_MAX_S * budget.target_share / 2))


def begin_host(time_s: float, budget: Budget) -> Spending:
    return Spending(time_s, SAVED_MAX_S * budget.host_share / 2)


def plan(
    course: Course, host: Spending, time_s: float, budget: Budget, prices: Prices
) -> tuple[Window, None] | tuple[None, Wait]:
    """Decide about the next window of one target."""
    saved_s = course.spending.at(time_s, budget.target_share).saved_s
    host_saved_s = host.at(time_s, budget.host_share).saved_s
    available_s = min(saved_s, host_saved_s) - course.overhead_s
    # Nobody pays more than the whole time of a window per thread; without a rate, assume it.
    share = 1.0 if course.cost_share is None else max(course.cost_share, 1e-6)
    wanted_s = FIRST_WINDOW_S
    if course.cost_share is not None:
        wanted_s = max(WINDOW_MAX_S, min(LONG_WINDOW_MAX_S, WINDOW_COST_S / share))
    dear = share * OVERRUN / (1.0 if course.cost_share is None else 1 - SAMPLE_SHARE)
    duration_s = min(wanted_s, max(available_s, 0.0) / dear)
    if duration_s < WINDOW_MIN_S:
        needed_s = WINDOW_MIN_S * dear + course.overhead_s
        if needed_s > SAVED_MAX_S * min(budget.target_share, budget.host_share):
            why = f"even {WINDOW_MIN_S * 1e3:.0f} ms would cost more than a minute's budget"
            return None, Wait(time_s + PERIOD_MAX_S, why)
        wait_s = max(
            (needed_s - saved_s) / budget.target_share,
            (needed_s - host_saved_s) / budget.host_share,
        )
        why = "the target's budget" if saved_s <= host_saved_s else "the host's budget"
        return None, Wait(time_s + min(max(wait_s, 0.1), PERIOD_MAX_S), f"{why} is spent")
    spare_s = SPARE_SHARE * max(0.0, available_s / OVERRUN - duration_s * share)
    interval = choose_interval(course, duration_s, prices, spare_s)
    wanted_cost_s = duration_s * share * OVERRUN
    if course.cost_share is not None:
        wanted_cost_s = min(available_s, (duration_s * share + spare_s) * OVERRUN)
    return Window(duration_s, max(wanted_cost_s, min(CALM_COST_S, available_s)), interval), None


def choose_interval(course: Course, duration_s: float, prices: Prices, spare_s: float = 0.0) -> int:
    """The mean distance of samples: small enough for many, large enough for the price.

    ``spare_s``: what samples of this window may cost beyond their share. A power of two, so that
    windows of nearly equal rates are alike.
    """
    if course.cost_share is None:
        return course.interval_bytes
    traps_s = course.hits_per_s * prices.hit_ns * 1e-9
    samples_per_s = traps_s * SAMPLE_SHARE / (1 - SAMPLE_SHARE) / max(prices.sample_ns * 1e-9, 1e-9)
    samples_per_s += spare_s / duration_s / max(prices.sample_ns * 1e-9, 1e-9)
    samples_per_s = min(samples_per_s, SAMPLES_PER_WINDOW_MAX / duration_s)
    wanted = course.bytes_per_s / max(samples_per_s, 1.0)
    interval = INTERVAL_MIN_BYTES
    while interval < wanted and interval < INTERVAL_MAX_BYTES:
        interval *= 2
    return interval


def account(course: Course, host: Spending, seen: Seen) -> tuple[Course, Spending]:
    """Take a finished window into the books of its target and of the host."""
    duration_s = max(seen.duration_s, 1e-6)
    known = course.cost_share is not None
    weight = RATE_WEIGHT if known else 1.0

    def blend(before: float, now: float) -> float:
        return before * (1 - weight) + now * weight

    share = max(0.0, seen.cost_s - seen.sample_cost_s - seen.overhead_s) / duration_s
    # Upwards at once, downwards slowly: a burst that was missed is dearer than a short window.
    before = course.cost_share or 0.0
    return (
        replace(
            course,
            spending=course.spending.less(seen.cost_s),
            cost_share=share if share > before else blend(before, share),
            overhead_s=blend(course.overhead_s, seen.overhead_s),
            hits_per_s=blend(course.hits_per_s, seen.hits / duration_s),
            bytes_per_s=blend(course.bytes_per_s, seen.sampled_bytes / duration_s),
            interval_bytes=course.interval_bytes,
            windows=course.windows + 1,
            cut_windows=course.cut_windows + seen.was_cut,
        ),
        host.less(seen.cost_s),
    )


def rest_s(course: Course, window: Window, budget: Budget) -> float:
    """How long to leave the target alone after a window, so that the next can be as long."""
    share = course.cost_share or 0.0
    needed_s = window.duration_s * share * OVERRUN / (1 - SAMPLE_SHARE) + course.overhead_s
    earned_after_s = (needed_s - max(0.0, course.spending.saved_s)) / budget.target_share
    return min(max(earned_after_s, PERIOD_MIN_S), PERIOD_MAX_S)
