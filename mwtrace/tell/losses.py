"""What the watch did not see, in words.

One entry for each counter of ``struct mw_counters`` (cext/aggregator.h), each slot of
``enum mw_loss`` (bpf/events.h, without its prefix, in lower case), by its name there, and for what
the daemon and its sources count themselves. A test compares them with all three, so a new counter
cannot stay unspoken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Loss(NamedTuple):
    """How to speak of one loss counter."""

    short: str  # behind the number, where there is little room
    meaning: str  # what it does to the verdicts, and what to do
    weakens_verdicts: bool = True  # False: part of a healthy watch, told at exit only


# These say what was seen.
SEEN = frozenset(
    {
        "ticks_total",
        "records_total",
        "events_total",
        "processes_born_total",
        "processes_gone_total",
        "pid_reused_total",
        "process_count",
        "service_count",
        "readings_total",
        "incidents_opened_total",
        "incidents_resolved_total",
        "notifications_delivered_total",
        "state_writes_total",
        "state_restored_total",
        "reloads_total",
        "snapshots_taken_total",
    }
)

# The gravest first: what was never watched, then what was seen late or partly.
LOSSES: Mapping[str, Loss] = {
    "processes_untracked_total": Loss(
        "process records untracked",
        "the host has more processes than there is room for: some were never judged",
    ),
    "services_untracked_total": Loss(
        "services untracked",
        "the host has more services than there is room for: the last ones wait to be judged",
    ),
    "iterator_errors_total": Loss(
        "ticks cut short",
        "the kernel ended the process table early: those ticks miss processes",
    ),
    "ticks_failed_total": Loss(
        "ticks failed",
        "nothing could be read then: no sample was taken, and a leak is named that much later",
    ),
    "proc_cut_short_total": Loss(
        "ticks cut short",
        "no more files could be opened, or there were too many processes: some miss samples",
    ),
    "proc_unreadable_total": Loss(
        "processes unreadable",
        "what /proc says of them made no sense: they were not judged in those ticks",
    ),
    "names_abandoned_total": Loss(
        "processes nameless",
        "more waited for a service than there is room for: those were never judged",
    ),
    "record_unwritten": Loss(
        "process records unwritten",
        "the kernel had no room to write them: those processes miss samples",
    ),
    "rows_omitted_total": Loss(
        "subjects omitted",
        "more subjects were growing at once than one tick judges: the slowest waited",
    ),
    "oom_kills_dropped_total": Loss(
        "OOM kills unreported",
        "there were more between two ticks than are kept; the kernel log names them all",
    ),
    "lifecycle_dropped": Loss(
        "lifecycle events dropped",
        "the kernel's ring buffer was full: an exec or OOM kill may have gone unnoticed",
    ),
    "victim_untranslated": Loss(
        "OOM victims without a name",
        "this kernel tells them by host pids, which mean nothing in our pid namespace",
    ),
    "records_refused_total": Loss(
        "process records refused",
        "they were not what the BPF programs should send: please report this as a bug",
    ),
    "events_refused_total": Loss(
        "lifecycle events refused",
        "they were not what the BPF programs should send: please report this as a bug",
    ),
    "incidents_untracked_total": Loss(
        "incidents untracked",
        "more were open at once than there is room for: nobody was told of the last ones",
        weakens_verdicts=False,
    ),
    "notifications_dropped_total": Loss(
        "notifications dropped",
        "a receiver was away for a day, or too many incidents waited for it",
        weakens_verdicts=False,
    ),
    "notifications_refused_total": Loss(
        "notifications refused",
        "a receiver would not have them and they were not sent again; the log says why",
        weakens_verdicts=False,
    ),
    "notifications_failed_total": Loss(
        "tries to notify that failed",
        "they were tried again; what waits at the end is told by no one",
        weakens_verdicts=False,
    ),
    "notifications_superseded_total": Loss(
        "notifications superseded",
        "the receiver was told of the newer state of the same incident instead",
        weakens_verdicts=False,
    ),
    "incidents_refused_total": Loss(
        "incidents unreadable",
        "what was kept of them by another run is not what we write",
        weakens_verdicts=False,
    ),
    "readings_refused_total": Loss(
        "readings put off",
        "an hour's allowance was used up, or too many waited: some kinds were found later",
        weakens_verdicts=False,
    ),
    "readings_unreadable_total": Loss(
        "suspects unreadable",
        "their memory could not be read, or not in time: of those no kind is told",
        weakens_verdicts=False,
    ),
    "ticks_restrained_total": Loss(
        "ticks short of memory",
        "our own memory limit was near: suspects were judged, but not read; raise MemoryMax",
        weakens_verdicts=False,
    ),
    "state_writes_failed_total": Loss(
        "states unsaved",
        "the state folder took no writes then: what a restart would lose is older than a tick",
        weakens_verdicts=False,
    ),
    "state_ticks_skipped_total": Loss(
        "ticks unsaved",
        "the disk was slower than the ticks: after a restart those lack a sample",
        weakens_verdicts=False,
    ),
    "state_refused_total": Loss(
        "saved items refused",
        "they were damaged or of another version: what they said is learned anew",
        weakens_verdicts=False,
    ),
    "reloads_refused_total": Loss(
        "reloads refused",
        "the configuration had faults then: what it said before went on",
        weakens_verdicts=False,
    ),
    "snapshots_missed_total": Loss(
        "snapshots not taken",
        "processes with the hook were asked, or should have been: each had a line that says why",
        weakens_verdicts=False,
    ),
    "events_unmatched_total": Loss(
        "events of unseen processes",
        "those lived between two ticks, too short to be sampled",
        weakens_verdicts=False,
    ),
    "naming_deferred_total": Loss(
        "names a tick late",
        "more processes started at once than are named in one tick; none was left out",
        weakens_verdicts=False,
    ),
}


def nonzero(counters: Mapping[str, int]) -> list[tuple[int, Loss]]:
    """The losses that happened, gravest first; a counter that is absent did not."""
    return [(counters[name], loss) for name, loss in LOSSES.items() if counters.get(name, 0) > 0]


def short_words(counters: Mapping[str, int]) -> tuple[str, ...]:
    """``12 lifecycle events dropped``: what the live table must warn of, and only that.

    A warning that is always there is not read.
    """
    found = nonzero(counters)
    return tuple(f"{count:,} {loss.short}" for count, loss in found if loss.weakens_verdicts)
