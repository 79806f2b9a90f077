"""Frozen values that the rooms hand to each other.

Law of this file: it imports nothing of ours, and nothing in it does anything. Sizes are bytes,
times seconds of CLOCK_MONOTONIC unless the name says otherwise.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple, Optional


class ProcessId(NamedTuple):
    """What a process is: a pid alone is given again to another one."""

    pid: int
    start_time_ns: int  # CLOCK_BOOTTIME; from /proc only whole ticks of 10 ms


class ServiceKind(enum.Enum):
    """What a service's name was taken from."""

    UNIT = "unit"  # a systemd unit
    CONTAINER = "container"
    COMMAND = "command"  # executable, or interpreter and script
    UNKNOWN = "unknown"  # it was gone, or not ours to read, before it could be named


class Service(NamedTuple):
    """What operators call a group of processes; equal names are one service."""

    name: str  # printable, bounded: safe for a terminal, a log line and a label
    kind: ServiceKind


class Verdict(enum.IntEnum):
    """In order of alarm, so that the worst of several is their maximum."""

    LEARNING = 0  # not watched long enough to say anything
    STEADY = 1
    WARMING_UP = 2  # grows, but younger than a program needs to fill its caches
    GROWING = 3  # grows significantly; not yet for long enough, or not evenly
    LEAKING = 4  # growth consistent with a leak

    @property
    def words(self) -> str:
        return self.name.lower().replace("_", " ")


class Fit(NamedTuple):
    """What one window of a history says; the fields of ``struct mw_fit`` in ``cext/fit.h``."""

    first_time_s: float
    span_s: float
    last_bytes: float
    least_squares_bytes_per_second: float
    theil_sen_bytes_per_second: float
    theil_sen_low_bytes_per_second: float
    theil_sen_high_bytes_per_second: float
    tail_bytes_per_second: float
    trend_z: float
    swing_bytes: float
    envelope_growth_bytes: float
    rise_bytes: tuple[float, ...]
    onset_time_s: float
    step_time_s: float
    step_bytes: float
    earlier_peak_bytes: float
    sample_count: int


class SubjectId(NamedTuple):
    """Who is judged: a process, or a service as a whole (``process`` is then None)."""

    service: Service
    process: Optional[ProcessId]


@dataclass(frozen=True)
class Subject:
    """A subject at one tick, as the aggregator's table shows it."""

    id: SubjectId
    time_s: float  # of the tick
    started_s: float  # the process, or the service's oldest one
    first_time_s: float  # of the history's first sample
    private_bytes: int  # anon + swap
    file_bytes: int
    shmem_bytes: int
    total_vm_bytes: int
    process_count: int
    largest_pid: int  # process: its own
    cgroup_id: int
    # Windows by level, finest and shortest first; () if the screen saw no rise.
    levels: tuple[tuple[Fit, ...], ...]


@dataclass(frozen=True)
class Limit:
    """What a subject's memory runs into."""

    limit_bytes: int
    headroom_bytes: int  # what is left below it now
    source: str  # "cgroup" or "host"


@dataclass(frozen=True)
class Judgement:
    """What is said of one subject at one tick."""

    verdict: Verdict
    since_s: float  # growing, leaking: when the growth began; else: when this verdict was reached
    slope_bytes_per_second: Optional[float] = None  # None: nothing grows, or not known yet
    slope_low_bytes_per_second: Optional[float] = None  # 95% interval
    slope_high_bytes_per_second: Optional[float] = None
    grown_bytes: int = 0  # by the lower envelope, in the window that was decisive
    window_s: float = 0.0  # its length
    limit: Optional[Limit] = None
    forecast_s: Optional[float] = None  # until the limit is hit at this slope
    why: str = ""  # what in the numbers led here, in one clause


@dataclass(frozen=True)
class Site:
    """Where memory that is still held was allocated; texts in it are from outside."""

    place: str  # the code to blame, as one phrase
    frames: tuple[str, ...]  # innermost first
    share: float  # of what grew
    known_by: str  # "sampled growth" or "audited survivors"


class HeapSplit(NamedTuple):
    """What a CPython process has in use, by two readings; None: not known, never a guess."""

    heap_bytes: int  # Python objects and their tables, in pymalloc's blocks and in malloc's
    heap_slope_bytes_per_second: float
    native_bytes: Optional[int]  # other blocks of malloc, and large mappings
    native_slope_bytes_per_second: Optional[float]


@dataclass(frozen=True)
class Finding:
    """What in a process grows, from two readings of its memory; texts in it are from outside."""

    time_s: float  # of the later reading
    process: ProcessId
    kind: str  # a word of evidence.kind.Kind
    is_leak: bool  # False: nobody holds what grew
    grown_bytes: int  # between the readings, by all parts that grew
    window_s: float  # between the readings
    grown_by_kind: tuple[tuple[str, int], ...]  # largest first
    why: str
    advice: str
    type_name: str = ""  # the Python type that grew most
    type_objects: int = 0  # how many there are now
    type_objects_grown: int = 0
    holder: str = ""  # the path that holds most of them
    retained_bytes: int = 0  # what the allocator keeps free now
    trim_bytes: Optional[int] = None  # estimate: what malloc_trim() would return; None: not known
    heap: Optional[HeapSplit] = None  # None: no CPython, or one that cannot be read


@dataclass(frozen=True)
class VerdictChange:
    """A subject's verdict became another one."""

    time_s: float
    subject: Subject
    before: Optional[Verdict]  # None: first verdict
    now: Judgement
    finding: Optional[Finding] = None  # if the kind is known already
    sites: tuple[Site, ...] = ()  # largest share first; () while none is known


@dataclass(frozen=True)
class NewFinding:
    """A kind became known or another one, or sites were audited, while the verdict stayed."""

    time_s: float
    subject: Subject
    now: Judgement
    finding: Finding
    sites: tuple[Site, ...] = ()


class IncidentType(enum.Enum):
    LEAK = "leak"  # a service was called leaking
    OOM_KILL = "oom_kill"  # the kernel ended processes of a service for want of memory


@dataclass(frozen=True)
class PostMortem:
    """What was known of a process, and of its service, when the kernel ended it."""

    time_unix_s: float
    pid: int
    comm: str  # printable
    private_bytes: int  # at the last tick that saw it; 0: none did
    verdict: str  # on its service, as a line; "" if none was told
    history: tuple[
        tuple[float, int], ...
    ]  # the service's: (unix time, private bytes), oldest first
    processes: tuple[tuple[int, int], ...]  # the service's largest: (pid, private bytes)
    cgroup: tuple[tuple[str, str], ...]  # the memory cgroup's files by name, and "path"
    snapshot_path: str = ""


@dataclass(frozen=True)
class Incident:
    """What operators are told of one service, from its beginning to its end.

    Times are seconds since 1970: an incident outlives the daemon, and a boot. Texts are bounded
    and printable. What is not known is None or "".
    """

    id: str
    type: IncidentType
    service: Service
    opened_unix_s: float
    updated_unix_s: float
    summary: str  # in the words of the verdict
    reopened_unix_s: Optional[float] = None  # it came back soon after it was resolved
    resolved_unix_s: Optional[float] = None  # None: open
    resolution: str = ""
    recurrences: int = 0  # leaking again after a restart or a calm; further kills
    since_unix_s: Optional[float] = None
    private_bytes: int = 0
    process_count: int = 0
    slope_bytes_per_second: Optional[float] = None
    slope_low_bytes_per_second: Optional[float] = None
    slope_high_bytes_per_second: Optional[float] = None
    limit_bytes: Optional[int] = None
    limit_source: str = ""
    limit_unix_s: Optional[float] = None  # when the limit is hit, if the slope stays
    kind: str = ""
    advice: str = ""
    type_name: str = ""
    holder: str = ""
    place: str = ""  # of the top allocation site
    place_share: Optional[float] = None
    known_by: str = ""
    snapshot_path: str = ""
    post_mortems: tuple[PostMortem, ...] = ()  # newest last


class Happening(enum.Enum):
    OPENED = "opened"
    UPDATED = "updated"  # more is known, or it came back
    CONTINUES = "continues"  # the same with newer numbers: no news by itself
    RESOLVED = "resolved"


class IncidentNews(NamedTuple):
    happening: Happening
    incident: Incident


@dataclass(frozen=True)
class Snapshot:
    """What became of one attempt to have a process write its object graph."""

    time_s: float  # when it was begun
    process: ProcessId
    service: str
    why: str  # one word: baseline, leaking, scheduled, asked
    outcome: str  # a value of snapshot.outcomes.Outcome
    path: str = ""  # of the file; "" if there is none
    size_bytes: int = 0
    objects: int = 0
    pause_s: Optional[float] = None  # that the process stood still, by its own clock
    reason: str = ""  # why there is none, and what to do about it
    remedy: str = ""

    @property
    def is_taken(self) -> bool:
        return bool(self.path)
