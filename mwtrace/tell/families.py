"""The catalogue of all metrics: name, type, labels and meaning, as docs/metrics.md shows them.

Law of this file: nothing is exported that is not declared here, and a label is never a pid, a
stack, an address or a path: each value of those would be a series of its own. Counters of the
watch keep the names they have in C, so they come from where losses get their words.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple

from mwtrace.tell.losses import LOSSES, SEEN

PREFIX = "mwtrace_"
# The service whose series are those of all services that are not told by themselves.
OTHER = "other"


class Type(enum.Enum):
    GAUGE = "gauge"
    COUNTER = "counter"


class Family(NamedTuple):
    name: str  # without the prefix
    type: Type
    labels: tuple[str, ...]
    help: str


class Sample(NamedTuple):
    """One series of a family, now."""

    name: str  # the family's
    labels: tuple[str, ...]  # values, in the family's order
    value: float
    incident: str = ""  # counters: an identifier of what was counted last, as an exemplar
    incident_unix_s: float = 0.0


_SERVICE = ("service",)

OF_SERVICES = (
    Family("private_bytes", Type.GAUGE, _SERVICE, "Anonymous memory in RAM and in swap: judged."),
    Family("anon_bytes", Type.GAUGE, _SERVICE, "Anonymous memory in RAM."),
    Family("swap_bytes", Type.GAUGE, _SERVICE, "Anonymous memory in swap."),
    Family("file_bytes", Type.GAUGE, _SERVICE, "Resident pages of files."),
    Family("shmem_bytes", Type.GAUGE, _SERVICE, "Resident shared memory."),
    Family("service_processes", Type.GAUGE, _SERVICE, "Processes of the service."),
    Family(
        "largest_process_private_bytes",
        Type.GAUGE,
        _SERVICE,
        "Private memory of the service's largest process.",
    ),
    Family(
        "oldest_process_start_time_seconds",
        Type.GAUGE,
        _SERVICE,
        "When the service's oldest process started, in seconds since 1970.",
    ),
    Family(
        "verdict",
        Type.GAUGE,
        _SERVICE,
        "0 learning, 1 steady, 2 warming up, 3 growing, 4 leaking.",
    ),
    Family(
        "growing_since_timestamp_seconds",
        Type.GAUGE,
        _SERVICE,
        "When the growth began, in seconds since 1970; only while it is growing or leaking.",
    ),
    Family(
        "leak_slope_bytes_per_second",
        Type.GAUGE,
        ("service", "kind"),
        "How fast private memory grows, and what grows; absent while nothing does.",
    ),
    Family("limit_bytes", Type.GAUGE, _SERVICE, "What the memory runs into; only of suspects."),
    Family(
        "limit_headroom_bytes", Type.GAUGE, _SERVICE, "What is left below the limit; of suspects."
    ),
    Family(
        "forecast_seconds",
        Type.GAUGE,
        _SERVICE,
        "Seconds until the limit is hit if the slope stays; absent while none is foreseen.",
    ),
    Family(
        "heap_in_use_bytes",
        Type.GAUGE,
        ("service", "domain"),
        "Blocks in use in the suspect's heap when its memory was read last, by who asked for them.",
    ),
    Family(
        "allocator_retained_bytes",
        Type.GAUGE,
        _SERVICE,
        "What the suspect's allocator kept free when its memory was read last.",
    ),
    Family("leak_alerts_total", Type.COUNTER, _SERVICE, "Times the verdict became leaking."),
    Family("oom_kills_total", Type.COUNTER, _SERVICE, "Processes ended for want of memory."),
    Family("probe_hits_total", Type.COUNTER, _SERVICE, "Calls that probes of ours have counted."),
    Family(
        "probe_seconds_total", Type.COUNTER, _SERVICE, "Time of the service that probes have taken."
    ),
)

OF_THE_WATCH = (
    Family(
        "build_info",
        Type.GAUGE,
        ("version", "source"),
        "Always 1; source is bpf or proc: how we look.",
    ),
    Family("start_time_seconds", Type.GAUGE, (), "When the watch began, in seconds since 1970."),
    Family(
        "last_tick_timestamp_seconds",
        Type.GAUGE,
        (),
        "When all processes were looked at last, in seconds since 1970.",
    ),
    Family(
        "tick_interval_seconds", Type.GAUGE, (), "The time between two looks that was asked for."
    ),
    Family(
        "tick_duration_seconds", Type.GAUGE, (), "How long the last look took, verdicts included."
    ),
    Family("cpu_seconds_total", Type.COUNTER, (), "CPU time of mwtrace itself, all threads."),
    Family("resident_memory_bytes", Type.GAUGE, (), "Resident memory of mwtrace itself."),
    Family("services", Type.GAUGE, ("verdict",), "Services that have processes, by verdict."),
    Family("processes_watched", Type.GAUGE, (), "Processes that belong to a watched service."),
    Family(
        "processes_unwatched",
        Type.GAUGE,
        ("reason",),
        "Processes that are not watched, and why not.",
    ),
    Family(
        "attach_failures_total",
        Type.COUNTER,
        ("reason",),
        "Suspects that could not be sampled or probed, and why not.",
    ),
    Family("snapshots_total", Type.COUNTER, ("result",), "Snapshots asked for, by how it went."),
    Family(
        "series_dropped_total",
        Type.COUNTER,
        (),
        "Services told as 'other' since there are more than the bound, added up over ticks.",
    ),
    Family(
        "http_requests_total", Type.COUNTER, ("code",), "Answers of our HTTP server, by status."
    ),
    Family(
        "http_refused_total",
        Type.COUNTER,
        (),
        "Connections closed at once, since too many were open, or cut off, since they were slow.",
    ),
    Family(
        "textfile_failures_total", Type.COUNTER, (), "Times the metrics file could not be written."
    ),
)

# struct mw_counters has them as what was seen, not as losses.
_SEEN_HELP: Mapping[str, str] = {
    "ticks_total": "Looks at all processes.",
    "records_total": "Process records taken.",
    "events_total": "Lifecycle events taken: exec, exit, OOM kill.",
    "processes_born_total": "Processes seen for the first time.",
    "processes_gone_total": "Processes seen to have ended.",
    "pid_reused_total": "Pids that came back with another process.",
    "readings_total": "Times a suspect's memory was read.",
    "reloads_total": "Times the configuration was read again.",
    "state_restored_total": "Saved ticks that this run went on from.",
    "state_writes_total": "Ticks that were saved.",
    "incidents_opened_total": "Incidents opened: a service that leaks, or OOM kills in it.",
    "incidents_resolved_total": "Incidents resolved.",
    "notifications_delivered_total": "Notifications of incidents that a receiver took.",
}
# Told in other words above (promtool refuses a gauge that is called a count), or by result.
_TOLD_OTHERWISE = frozenset({"process_count", "service_count", "snapshots_taken_total"})


def counter_name(counter: str) -> str:
    """The metric of one of the daemon's counters; what the kernel counts has no suffix there."""
    return counter if counter.endswith("_total") else f"{counter}_total"


def told_counters() -> list[str]:
    """The daemon's counters that are metrics of their own, by their names there."""
    return [*sorted(SEEN - _TOLD_OTHERWISE), *LOSSES]


def _of_counter(counter: str) -> Family:
    if counter in LOSSES:
        loss = LOSSES[counter]
        help = f"{loss.short[0].upper()}{loss.short[1:]}: {loss.meaning}."
    else:
        help = _SEEN_HELP[counter]
    return Family(counter_name(counter), Type.COUNTER, (), help)


OF_WHAT_WAS_SEEN = tuple(_of_counter(counter) for counter in told_counters() if counter in SEEN)
OF_WHAT_WAS_LOST = tuple(_of_counter(counter) for counter in told_counters() if counter in LOSSES)
FAMILIES: tuple[Family, ...] = (
    *OF_SERVICES,
    *OF_THE_WATCH,
    *OF_WHAT_WAS_SEEN,
    *OF_WHAT_WAS_LOST,
)
BY_NAME: Mapping[str, Family] = {family.name: family for family in FAMILIES}
