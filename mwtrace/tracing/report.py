"""What a trace found, concluded: a profile for the formats, and one line for whoever reads one.

Law of this file: values in, values and words out; it looks at no process. Sites come in two kinds,
audited survivors (what lives on after windows) and sampled growth (who touches fresh pages), and
the growth that was watched from outside says how much of it they explain. Numbers of growth
sampling are shares, so they are scaled to the growth itself: pages that are given back and
touched again would count twice.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from mwtrace.tell.cells import printable
from mwtrace.tell.profile import Frame, FrameKind, KnownBy, ModuleMapping, Profile, SiteProfile
from mwtrace.tell.units import format_slope
from mwtrace.tracing.growth import GrowthSite
from mwtrace.tracing.session import Site

# Audited survivors that explain less than this are helped out by growth sampling.
ENOUGH_EXPLAINED = 0.7
# Growth below this is not told apart from what any process does.
GROWTH_MIN_BYTES_PER_SECOND = 512.0
# Libraries whose functions only pass an allocation on: whoever called them is meant.
_ALLOCATORS = (
    "libc.so",
    "libc-2.",
    "libstdc++.so",
    "libc++.so",
    "libjemalloc.so",
    "libtcmalloc",
    "libmimalloc.so",
    "ld-musl",
)
_INTERPRETER = ("libpython", "python")
_NO_PLACE = "code of which no stack could be had"


class Place(NamedTuple):
    """The code to blame: the innermost Python line, else the innermost function that is named."""

    name: str
    file: str  # source of a Python frame, binary of a native one
    line: int  # 0: native
    through: str  # the native function that a Python line called, "" if it is the interpreter's

    @property
    def words(self) -> str:
        """``orders/app.py:remember (line 31) through ujson.so:Object_newList``."""
        if not self.name and not self.file:
            return _NO_PLACE
        words = f"{_short(self.file)}:{self.name}" if self.file else self.name
        if self.line:
            words += f" (line {self.line})"
        return printable(words + (f" through {self.through}" if self.through else ""))


class PlaceShare(NamedTuple):
    """All sites of one place."""

    place: Place
    bytes_per_second: float
    share: float | None  # of the growth that was watched; None: there was none to speak of
    known_by: KnownBy


@dataclass(frozen=True)
class Measured:
    """What a trace of one process was, and what it saw from outside."""

    title: str  # process or service
    pid: int
    time_ns: int  # wall clock, when it ended
    duration_s: float
    interval_bytes: int
    is_exact: bool
    python_is_inlined: bool
    growth_bytes_per_second: float | None
    modules: tuple[ModuleMapping, ...] = ()


@dataclass(frozen=True)
class TraceReport:
    profile: Profile
    places: tuple[PlaceShare, ...]  # worst first
    growth_bytes_per_second: float | None  # of private memory, watched from outside
    conclusion: str  # one line


def conclude(
    measured: Measured, audited: Sequence[Site], grown: Sequence[GrowthSite]
) -> TraceReport:
    """Put both kinds of sites together and say what follows."""
    growth = measured.growth_bytes_per_second
    is_growing = growth is not None and growth >= GROWTH_MIN_BYTES_PER_SECOND
    known_by = KnownBy.LIVE if measured.is_exact else KnownBy.AUDIT
    sites = [_audited(site, measured, known_by) for site in audited]
    explained = sum(site.held_bytes_per_second for site in audited)
    if growth is not None and is_growing:
        missing = growth - explained
        if missing > growth * (1 - ENOUGH_EXPLAINED) or not sites:
            sites += _scaled(grown, missing, growth, sites, measured)
    elif not sites:
        sites = [_grown(site, site.bytes_per_second, measured) for site in grown]
    sites = _merged(sites)
    profile = Profile(
        measured.title,
        measured.pid,
        measured.time_ns,
        measured.duration_s,
        measured.interval_bytes,
        tuple(sites),
        measured.modules,
        growth if is_growing else None,
    )
    places = _places(profile)
    return TraceReport(profile, places, growth, _conclusion(growth, places))


def renamed(report: TraceReport, names: Mapping[str, str]) -> TraceReport:
    """The same report with other names for some functions: the demangled ones."""
    if not names:
        return report

    def frame_of(frame: Frame) -> Frame:
        return replace(frame, name=names.get(frame.name, frame.name))

    sites = [
        replace(site, frames=tuple(frame_of(frame) for frame in site.frames))
        for site in report.profile.sites
    ]
    profile = replace(report.profile, sites=tuple(sites))
    places = _places(profile)
    return replace(
        report,
        profile=profile,
        places=places,
        conclusion=_conclusion(report.growth_bytes_per_second, places),
    )


def place_of(frames: Sequence[Frame]) -> Place:
    """Name the code that a stack (root first) blames."""
    python = [frame for frame in frames if frame.kind is FrameKind.PYTHON]
    native = [frame for frame in frames if frame.kind is FrameKind.NATIVE]
    if python:
        leaf = python[-1]
        below = frames[len(frames) - frames[::-1].index(leaf) :]
        through = next((f for f in reversed(below) if not _passes_on(f, _INTERPRETER)), None)
        said = f"{_base(through.module)}:{_function(through)}" if through else ""
        return Place(leaf.name, leaf.file, leaf.line, said)
    named = [f for f in native if not _passes_on(f, ())]
    chosen = next(iter(reversed(named)), native[-1] if native else None)
    if chosen is None:
        return Place("", "", 0, "")
    return Place(_function(chosen), chosen.module, 0, "")


def _passes_on(frame: Frame, more: tuple[str, ...]) -> bool:
    return not frame.module or _base(frame.module).startswith(_ALLOCATORS + more)


def _function(frame: Frame) -> str:
    return frame.name or f"+{frame.offset or frame.address:#x}"


def _base(path: str) -> str:
    return path.rpartition("/")[2]


def _short(path: str) -> str:
    return os.path.join(*path.split("/")[-2:]) if "/" in path else path


def _audited(site: Site, measured: Measured, known_by: KnownBy) -> SiteProfile:
    row = site.row
    survived = row.survived
    blocks, size_bytes = survived.weight_blocks, survived.weight_bytes
    if measured.is_exact:
        blocks, size_bytes = row.live_blocks, row.live_bytes
    return SiteProfile(
        site.frames,
        row.domain.name.lower().replace("_", " ") if row.domain else "",
        known_by,
        round(row.allocated.weight_blocks),
        row.allocated.weight_bytes,
        round(blocks),
        size_bytes,
        site.bytes_per_second,
        site.low_bytes_per_second,
        site.high_bytes_per_second,
        site.held_bytes_per_second,
        max(0.0, row.last_time_s - row.since_s),
        site.is_truncated,
    )


def _grown(site: GrowthSite, rate: float, measured: Measured) -> SiteProfile:
    size_bytes = round(rate * measured.duration_s)
    return SiteProfile(
        site.frames,
        "pages",
        KnownBy.GROWTH,
        site.samples,
        site.grown_bytes,
        site.samples,
        size_bytes,
        rate,
        is_truncated=site.is_truncated,
    )


def _scaled(
    grown: Sequence[GrowthSite],
    missing: float,
    growth: float,
    audited: Sequence[SiteProfile],
    measured: Measured,
) -> list[SiteProfile]:
    """Growth sites, less what audits explain of their places, sharing out what is unexplained."""
    touched = sum(site.bytes_per_second for site in grown)
    scale = min(1.0, growth / touched) if touched else 0.0
    explained: dict[Place, float] = {}
    for audit in audited:
        place = place_of(audit.frames)._replace(through="")
        explained[place] = explained.get(place, 0.0) + (audit.held_bytes_per_second or 0.0)
    rates = []
    for site in grown:
        place = place_of(site.frames)._replace(through="")
        rate = site.bytes_per_second * scale
        known = min(rate, explained.get(place, 0.0))
        explained[place] = explained.get(place, 0.0) - known
        rates.append(rate - known)
    claimed = sum(rates)
    rest = missing / claimed if claimed > missing > 0 else 1.0
    return [_grown(site, rate * rest, measured) for site, rate in zip(grown, rates) if rate > 0]


def _merged(sites: Iterable[SiteProfile]) -> list[SiteProfile]:
    """One site per stack, domain and kind; addresses that differ within a line are one."""
    found: dict[tuple[object, ...], SiteProfile] = {}
    for site in sites:
        frames = tuple((f.title, f.file, f.line) for f in site.frames)
        key = (frames, site.domain, site.known_by)
        other = found.get(key)
        found[key] = site if other is None else _sum(other, site)
    return sorted(found.values(), key=lambda s: -(s.slope_bytes_per_second or 0.0))


def _sum(one: SiteProfile, other: SiteProfile) -> SiteProfile:
    def both(left: float | None, right: float | None) -> float | None:
        return None if left is None or right is None else left + right

    return replace(
        one,
        alloc_objects=one.alloc_objects + other.alloc_objects,
        alloc_bytes=one.alloc_bytes + other.alloc_bytes,
        inuse_objects=one.inuse_objects + other.inuse_objects,
        inuse_bytes=one.inuse_bytes + other.inuse_bytes,
        slope_bytes_per_second=both(one.slope_bytes_per_second, other.slope_bytes_per_second),
        slope_low_bytes_per_second=both(
            one.slope_low_bytes_per_second, other.slope_low_bytes_per_second
        ),
        slope_high_bytes_per_second=both(
            one.slope_high_bytes_per_second, other.slope_high_bytes_per_second
        ),
        held_bytes_per_second=both(one.held_bytes_per_second, other.held_bytes_per_second),
        age_s=max(one.age_s, other.age_s),
        is_truncated=one.is_truncated or other.is_truncated,
    )


def _places(profile: Profile) -> tuple[PlaceShare, ...]:
    # A line is one place, whichever C function it calls, and however it is known; the site that
    # keeps most gives the name of the one and the word for the other.
    sites: dict[Place, list[SiteProfile]] = {}
    for site in profile.sites:
        sites.setdefault(place_of(site.frames)._replace(through=""), []).append(site)
    found = []
    for mine in sites.values():
        top = max(mine, key=lambda site: site.slope_bytes_per_second or 0.0)
        rate = sum(site.slope_bytes_per_second or 0.0 for site in mine)
        share = None
        if profile.growth_bytes_per_second is not None:
            share = sum(profile.explained_share(site) or 0.0 for site in mine)
        found.append(PlaceShare(place_of(top.frames), rate, share, top.known_by))
    return tuple(sorted(found, key=lambda place: -place.bytes_per_second))


def _conclusion(growth: float | None, places: tuple[PlaceShare, ...]) -> str:
    if growth is None:
        return "too short to say whether its memory grows"
    if growth < GROWTH_MIN_BYTES_PER_SECOND:
        # Some part of the survivors will die yet, so nothing is blamed without growth.
        return f"its memory did not grow ({format_slope(growth)})"
    slope = format_slope(growth)
    if not places:
        return f"memory grows by {slope}, and no site could be named"
    top = places[0]
    share = min(1.0, top.share or 0.0)
    verb = "is first touched" if top.known_by is KnownBy.GROWTH else "is allocated"
    return f"{share:.0%} of {slope} {verb} in {top.place.words} ({top.known_by.value})"
