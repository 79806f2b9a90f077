"""Verdict changes and OOM kills as lines, for people and for programs; the summary at exit.

Each function returns text or a dict and writes nothing. The schema of the JSON objects is
``docs/json.md``; whoever changes one changes the other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mwtrace.model import (
    Finding,
    HeapSplit,
    Judgement,
    Limit,
    NewFinding,
    ProcessId,
    Service,
    Site,
    Subject,
    Verdict,
    VerdictChange,
)
from mwtrace.tell.cells import printable
from mwtrace.tell.losses import nonzero
from mwtrace.tell.units import (
    WallAnchor,
    format_bytes,
    format_duration,
    format_slope_interval,
    iso_utc,
)

SCHEMA_VERSION = 1


def text_line(change: VerdictChange, anchor: WallAnchor | None, unicode: bool = True) -> str:
    """One line that begins with what is wrong and ends with when it was said, if that is known.

    ``LEAKING orders.service (pid 4711): +1.02 MiB/s [0.98, 1.05] for 3 min, ...``
    """
    judgement = change.now
    facts = [_growth(change.time_s, judgement)]
    if judgement.verdict < Verdict.WARMING_UP:
        facts = _calm(change)
    facts.append(f"{format_bytes(change.subject.private_bytes)} private{_grown(judgement)}")
    if judgement.verdict >= Verdict.GROWING:
        facts.append(_fate(judgement, unicode))
    who = _who(change.subject, unicode)
    conclusion = _conclusion(judgement, change.finding, unicode)
    line = f"{judgement.verdict.words.upper()} {who}: {', '.join(facts)}{conclusion}"
    if change.finding is not None:
        line += f"; {finding_words(change.finding, unicode)}"
    line += _allocated(change.sites, unicode)
    return f"{line} [{iso_utc(anchor.unix(change.time_s)) or '?'}]" if anchor else line


def finding_line(news: NewFinding, anchor: WallAnchor | None, unicode: bool = True) -> str:
    """One line for a kind that became known after the verdict was told.

    ``FOUND orders.service (pid 4711), leaking: python-objects, 94% of the growth, ...``
    """
    verdict = news.now.verdict.words
    who = f"{_who(news.subject, unicode)}, {verdict}"
    line = f"FOUND {who}: {finding_words(news.finding, unicode)}{_allocated(news.sites, unicode)}"
    return f"{line} [{iso_utc(anchor.unix(news.time_s)) or '?'}]" if anchor else line


def finding_words(finding: Finding, unicode: bool = True) -> str:
    """What grows, by how much, and what to do about it."""
    facts = [
        f"{printable(finding.kind, unicode)}: {printable(finding.why, unicode)}",
        f"+{format_bytes(finding.grown_bytes)} in {format_duration(finding.window_s)}",
    ]
    if finding.type_objects_grown > 0:
        name = printable(finding.type_name, unicode)
        facts.append(f"+{finding.type_objects_grown:,} {name} ({finding.type_objects:,} now)")
    if not finding.is_leak:
        trim = "" if finding.trim_bytes is None else f" of {format_bytes(finding.retained_bytes)}"
        if trim:
            facts.append(
                f"malloc_trim() would return about {format_bytes(finding.trim_bytes or 0)}{trim}"
                " kept free (estimate)"
            )
    return f"{', '.join(facts)}. {printable(finding.advice, unicode)}"


def site_words(site: Site, unicode: bool = True) -> str:
    """``94% allocated in orders/app.py:remember (line 31), by audited survivors``."""
    place = printable(site.place, unicode) or "?"
    return f"{100 * site.share:.0f}% allocated in {place}, by {printable(site.known_by, unicode)}"


def json_object(change: VerdictChange, anchor: WallAnchor) -> dict[str, Any]:
    """The change as ``docs/json.md`` describes it; holds no number that is not finite."""
    subject, judgement, limit = change.subject, change.now, change.now.limit
    process = subject.id.process
    forecast_s = _finite(judgement.forecast_s)
    return {
        "schema_version": SCHEMA_VERSION,
        "event": "verdict",
        "time": iso_utc(anchor.unix(change.time_s)),
        "service": _unicode(subject.id.service.name),
        "service_kind": subject.id.service.kind.value,
        "pid": process.pid if process else None,
        "process_start_s": process.start_time_ns / 1e9 if process else None,
        "process_count": subject.process_count,
        "largest_pid": subject.largest_pid or None,
        "verdict": _token(judgement.verdict),
        "previous_verdict": None if change.before is None else _token(change.before),
        "since": iso_utc(anchor.unix(judgement.since_s)),
        "slope_bytes_per_second": _finite(judgement.slope_bytes_per_second),
        "slope_low_bytes_per_second": _finite(judgement.slope_low_bytes_per_second),
        "slope_high_bytes_per_second": _finite(judgement.slope_high_bytes_per_second),
        "grown_bytes": judgement.grown_bytes,
        "window_s": _finite(judgement.window_s) or None,
        "forecast_s": forecast_s,
        "forecast_time": _forecast_time(change, forecast_s, anchor),
        "limit_bytes": limit.limit_bytes if limit else None,
        "limit_headroom_bytes": limit.headroom_bytes if limit else None,
        "limit_source": limit.source if limit else None,
        "private_bytes": subject.private_bytes,
        "file_bytes": subject.file_bytes,
        "shmem_bytes": subject.shmem_bytes,
        "total_vm_bytes": subject.total_vm_bytes,
        "why": _unicode(judgement.why),
        "finding": finding_object(change.finding, anchor) if change.finding else None,
        "sites": _site_objects(change.sites),
    }


def finding_object(finding: Finding, anchor: WallAnchor) -> dict[str, Any]:
    """What was found, as it stands under ``finding`` in ``docs/json.md``."""
    return {
        "found": iso_utc(anchor.unix(finding.time_s)),
        "found_pid": finding.process.pid,
        "found_process_start_s": finding.process.start_time_ns / 1e9,
        "kind": finding.kind,
        "is_leak": finding.is_leak,
        "grown_between_bytes": finding.grown_bytes,
        "readings_apart_s": _finite(finding.window_s),
        "grown_by_kind": dict(finding.grown_by_kind),
        "reason": _unicode(finding.why),
        "advice": _unicode(finding.advice),
        "type": _unicode(finding.type_name) or None,
        "type_objects": finding.type_objects if finding.type_name else None,
        "type_objects_grown": finding.type_objects_grown if finding.type_name else None,
        "holder": _unicode(finding.holder) or None,
        "retained_bytes": finding.retained_bytes,
        "trim_estimate_bytes": finding.trim_bytes,
        **_heap_fields(finding.heap),
    }


def _heap_fields(heap: HeapSplit | None) -> dict[str, Any]:
    return {
        "heap_in_use_bytes": heap and heap.heap_bytes,
        "heap_slope_bytes_per_second": heap and _finite(heap.heap_slope_bytes_per_second),
        "native_in_use_bytes": heap and heap.native_bytes,
        "native_slope_bytes_per_second": heap and _finite(heap.native_slope_bytes_per_second),
    }


def _site_objects(sites: Sequence[Site]) -> list[dict[str, Any]]:
    return [
        {
            "place": _unicode(site.place),
            "frames": [_unicode(frame) for frame in site.frames],
            "share": _finite(site.share),
            "known_by": _unicode(site.known_by),
        }
        for site in sites
    ]


def _allocated(sites: Sequence[Site], unicode: bool) -> str:
    return "".join(f"; {site_words(site, unicode)}" for site in sites[:_SITES_SHOWN_MAX])


# Of a verdict's keys, those that a finding repeats.
_FINDING_KEYS = (
    *("schema_version", "event", "time", "service", "service_kind", "pid", "process_start_s"),
    *("process_count", "largest_pid", "verdict", "private_bytes", "finding", "sites"),
)


def finding_json_line(news: NewFinding, anchor: WallAnchor) -> str:
    """A kind that became known after the verdict was told, as one object on one line."""
    change = VerdictChange(news.time_s, news.subject, None, news.now, news.finding, news.sites)
    told = json_object(change, anchor)
    return _dumps({**{key: told[key] for key in _FINDING_KEYS}, "event": "finding"})


def json_line(change: VerdictChange, anchor: WallAnchor) -> str:
    """One object on one line, pure ASCII: safe in any locale, also for a terminal."""
    return _dumps(json_object(change, anchor))


def oom_line(
    time_s: float,
    process: ProcessId,
    service: Service | None,
    comm: bytes,
    private_bytes: int,
    anchor: WallAnchor,
    unicode: bool = True,
) -> str:
    """One line for a process that the kernel ended for want of memory.

    ``service`` is None if it was never named, ``private_bytes`` 0 if no tick saw it.
    """
    program = printable(_comm(comm), unicode)
    name = printable(service.name, unicode) if service else "a process of no known service"
    size = f"{format_bytes(private_bytes)} private" if private_bytes else "never seen by a tick"
    told = iso_utc(anchor.unix(time_s)) or "?"
    return (
        f"OOM KILL {name} (pid {process.pid}, {program}): "
        f"ended by the kernel for want of memory, {size} [{told}]"
    )


def oom_json_line(
    time_s: float,
    process: ProcessId,
    service: Service | None,
    comm: bytes,
    private_bytes: int,
    anchor: WallAnchor,
) -> str:
    """The same as one JSON object on one line; see ``docs/json.md``."""
    return _dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "event": "oom_kill",
            "time": iso_utc(anchor.unix(time_s)),
            "service": _unicode(service.name) if service else None,
            "service_kind": service.kind.value if service else None,
            "pid": process.pid,
            "process_start_s": process.start_time_ns / 1e9,
            "comm": _unicode(_comm(comm)),
            "private_bytes": private_bytes or None,
        }
    )


@dataclass(frozen=True)
class Totals:
    """What a whole run saw; ``counters`` as in ``tell/losses.py``."""

    watched_s: float
    source: str  # how the process table was read: "BPF", or "/proc" and why
    counters: Mapping[str, int]
    verdict_counts: Mapping[Verdict, int]  # services by verdict, at the end
    changes_total: int
    leaking: tuple[str, ...]  # names of services that leak at the end, worst first
    blind: tuple[str, ...] = ()  # what could not be seen at all, in words
    has_ended: bool = False  # the watch is over because all that was watched is
    findings: tuple[tuple[str, Finding], ...] = ()  # with the service's name, worst first


_NAMES_SHOWN_MAX = 5
_FINDINGS_SHOWN_MAX = 20
_SITES_SHOWN_MAX = 3


def summary(totals: Totals, unicode: bool = True) -> list[str]:
    """The last lines of a run: the conclusion, what was seen, what was lost."""

    def count(name: str) -> str:
        return f"{totals.counters.get(name, 0):,}"

    by_verdict = [
        f"{totals.verdict_counts[verdict]:,} {verdict.words}"
        for verdict in sorted(Verdict, reverse=True)
        if totals.verdict_counts.get(verdict)
    ]
    lines = [
        _last_conclusion(totals, unicode),
        f"seen: {count('process_count')} processes of {count('service_count')} services, "
        f"{count('ticks_total')} ticks in {format_duration(totals.watched_s)} "
        f"through {printable(totals.source, unicode)}; "
        f"{count('processes_born_total')} processes started, "
        f"{count('processes_gone_total')} ended, {count('events_total')} lifecycle events, "
        f"{totals.changes_total:,} verdict changes",
        f"services at the end: {', '.join(by_verdict) or 'none judged'}",
    ]
    for name, finding in totals.findings[:_FINDINGS_SHOWN_MAX]:
        who = f"{printable(name, unicode)} (pid {finding.process.pid})"
        lines.append(f"found: {who}: {finding_words(finding, unicode)}")
    losses = nonzero(totals.counters)
    for lost, loss in losses:
        head = "lost" if loss.weakens_verdicts else "note"
        lines.append(f"{head}: {lost:,} {loss.short}: {loss.meaning}")
    lines += [f"not seen: {printable(words, unicode)}" for words in totals.blind]
    if not any(loss.weakens_verdicts for _, loss in losses):
        lines.append("lost: nothing")
    return lines


def _last_conclusion(totals: Totals, unicode: bool) -> str:
    if totals.has_ended:
        return (
            f"all processes that were asked for have ended; {_conclusion_at_end(totals, unicode)}"
        )
    return _conclusion_at_end(totals, unicode)


def _conclusion_at_end(totals: Totals, unicode: bool) -> str:
    count = totals.verdict_counts.get(Verdict.LEAKING, 0)
    if not count:
        if any(totals.verdict_counts.get(verdict) for verdict in Verdict if verdict):
            return "nothing leaks"
        return "no verdict: not watched long enough to judge anything"
    names = [printable(name, unicode) for name in totals.leaking[:_NAMES_SHOWN_MAX]]
    more = count - len(names)
    if more > 0:
        names.append(f"and {more:,} more")
    return f"{count:,} {'service' if count == 1 else 'services'} LEAKING: {', '.join(names)}"


def _who(subject: Subject, unicode: bool) -> str:
    name = printable(subject.id.service.name, unicode)
    if subject.id.process:
        return f"{name} (pid {subject.id.process.pid})"
    if subject.process_count == 1 and subject.largest_pid:
        return f"{name} (pid {subject.largest_pid})"
    largest = f", largest pid {subject.largest_pid}" if subject.largest_pid else ""
    return f"{name} ({subject.process_count:,} processes{largest})"


def _growth(time_s: float, judgement: Judgement) -> str:
    duration = f"for {format_duration(max(0.0, time_s - judgement.since_s))}"
    if judgement.slope_bytes_per_second is None:
        return f"grows {duration}"
    slope = format_slope_interval(
        judgement.slope_bytes_per_second,
        judgement.slope_low_bytes_per_second,
        judgement.slope_high_bytes_per_second,
    )
    return f"{slope} {duration}"


def _calm(change: VerdictChange) -> list[str]:
    if change.before is not None and change.before >= Verdict.GROWING:
        return [f"no longer {change.before.words}"]
    return [f"was {change.before.words}"] if change.before is not None else []


def _grown(judgement: Judgement) -> str:
    if judgement.grown_bytes <= 0:
        return ""
    window = f" in {format_duration(judgement.window_s)}" if judgement.window_s > 0 else ""
    return f" (+{format_bytes(judgement.grown_bytes)}{window})"


def _fate(judgement: Judgement, unicode: bool) -> str:
    limit = judgement.limit
    if limit is None:
        return "no limit known"
    if limit.headroom_bytes <= 0:
        return f"is at {_limit_words(limit, unicode)}"
    if judgement.forecast_s is None or not math.isfinite(judgement.forecast_s):
        return f"{format_bytes(limit.headroom_bytes)} below {_limit_words(limit, unicode)}"
    return f"hits {_limit_words(limit, unicode)} in {format_duration(judgement.forecast_s)}"


def _limit_words(limit: Limit, unicode: bool) -> str:
    size = format_bytes(limit.limit_bytes)
    if limit.source == "host":
        return f"the host's {size}"
    return f"its {size} {printable(limit.source, unicode)} limit"


# A verdict is an inference; what was measured stands before it.
def _conclusion(judgement: Judgement, finding: Finding | None, unicode: bool) -> str:
    head = {
        Verdict.LEAKING: "growth consistent with a leak",
        Verdict.GROWING: "not yet called a leak",
    }.get(judgement.verdict)
    if finding is not None and not finding.is_leak:
        head = "not called a leak"
    tail = ": ".join(words for words in (head, printable(judgement.why, unicode)) if words)
    return f"; {tail}" if tail else ""


# What the process called itself: any bytes but NUL.
def _comm(comm: bytes) -> str:
    return comm.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _dumps(told: dict[str, Any]) -> str:
    return json.dumps(told, allow_nan=False, separators=(",", ":"))


def _forecast_time(
    change: VerdictChange, forecast_s: float | None, anchor: WallAnchor
) -> str | None:
    if forecast_s is None:
        return None
    return iso_utc(anchor.unix(change.time_s + forecast_s))


def _token(verdict: Verdict) -> str:
    return verdict.name.lower()


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


# Half a surrogate pair is no text: strict readers refuse the whole object.
def _unicode(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
