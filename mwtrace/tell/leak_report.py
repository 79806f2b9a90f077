"""One leak on one page: slope, kind, code that allocates, who holds it; text, JSON and HTML.

Each part may be missing, and then the reason stands in its place. Texts in it are the target's.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from mwtrace.model import Finding, Fit, Site
from mwtrace.tell.cells import printable
from mwtrace.tell.explanation import plain
from mwtrace.tell.units import format_bytes, format_duration, format_slope, format_slope_interval

if TYPE_CHECKING:
    from mwtrace.snapshot.analysis import Analysis

_SUSPECTS_TOLD = 5
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "h2{font-size:1.05em;margin:1.4em 0 .2em}li,p{overflow-wrap:anywhere}"
)


@dataclass(frozen=True)
class LeakReport:
    service: str
    pid: int
    processes: int  # of the service; the largest was looked at
    private_bytes: int
    watched_s: float
    fit: Optional[Fit]  # of private memory while it was watched
    finding: Optional[Finding]  # kind and holder, from two readings from outside
    sites: tuple[Site, ...]
    sites_said: str  # the trace's conclusion
    analysis: Optional[Analysis]
    notes: tuple[str, ...]  # what is missing, and why

    @property
    def slope_bytes_per_second(self) -> float:
        return self.fit.theil_sen_bytes_per_second if self.fit else 0.0

    @property
    def is_growing(self) -> bool:
        """Whether the slope's interval is above zero."""
        return self.fit is not None and self.fit.theil_sen_low_bytes_per_second > 0


def render_text(report: LeakReport, unicode: bool = True) -> str:
    lines = [headline(report, unicode)]
    for title, part in _parts(report, unicode):
        lines += ["", title, *(f"  {line}" for line in part)]
    return "\n".join(lines) + "\n"


def headline(report: LeakReport, unicode: bool = True) -> str:
    """What grows and what to do, from the best evidence there is."""
    name = printable(report.service, unicode)
    grows = (
        f"{name} grows by {format_slope(report.slope_bytes_per_second)}"
        if report.is_growing
        else f"{name} did not grow significantly in {format_duration(report.watched_s)}"
    )
    analysis = report.analysis
    if analysis is not None and analysis.is_compared and analysis.suspects:
        from mwtrace.tell.analysis import headline as suspect_line

        return f"{grows}; {suspect_line(analysis, analysis.suspects[0], unicode)}"
    finding = report.finding
    if report.is_growing and finding is not None and finding.advice:
        return f"{grows}: {printable(finding.kind, unicode)}; {printable(finding.advice, unicode)}"
    return grows


def _parts(report: LeakReport, unicode: bool) -> Iterator[tuple[str, list[str]]]:
    yield "SLOPE", list(_slope(report))
    yield "WHAT GROWS", [printable(line, unicode) for line in _kind(report.finding)]
    yield "WHERE IT IS ALLOCATED", [printable(line, unicode) for line in _sites(report)]
    yield "WHO HOLDS IT", [printable(line, unicode) for line in _holders(report, unicode)]
    if report.notes:
        yield "NOTES", [printable(note, unicode) for note in report.notes]


def _slope(report: LeakReport) -> Iterator[str]:
    several = f", the largest of {report.processes:,}" if report.processes > 1 else ""
    yield f"pid {report.pid}{several}: {format_bytes(report.private_bytes)} private"
    fit = report.fit
    if fit is None:
        yield "not watched for long enough"
        return
    told = format_slope_interval(
        fit.theil_sen_bytes_per_second,
        fit.theil_sen_low_bytes_per_second,
        fit.theil_sen_high_bytes_per_second,
    )
    yield f"{told} in {format_duration(report.watched_s)}"


def _kind(finding: Optional[Finding]) -> Iterator[str]:
    if finding is None:
        yield "not known"
        return
    window = format_duration(finding.window_s)
    yield f"{finding.kind}: {format_bytes(finding.grown_bytes)} in {window}; {finding.why}"
    if finding.type_name:
        grown = finding.type_objects_grown
        yield f"{finding.type_name}: {finding.type_objects:,} objects, {grown:+,}"
    if finding.advice:
        yield finding.advice


def _sites(report: LeakReport) -> Iterator[str]:
    if report.sites_said:
        yield report.sites_said
    for site in report.sites:
        yield f"{site.share:4.0%}  {site.place} ({site.known_by})"
    if not report.sites and not report.sites_said:
        yield "not known"


def _holders(report: LeakReport, unicode: bool) -> Iterator[str]:
    if report.finding is not None and report.finding.holder:
        yield f"from outside: {report.finding.holder}"
    analysis = report.analysis
    if analysis is None:
        yield "no snapshots: 'mwtrace snapshot' takes them where the hook is installed"
        return
    from mwtrace.tell.analysis import headline as suspect_line

    yield f"from {len(analysis.paths)} snapshots over {format_duration(analysis.interval_s)}:"
    for suspect in analysis.suspects[:_SUSPECTS_TOLD]:
        yield suspect_line(analysis, suspect, unicode)
        for other in suspect.also:
            yield f"  also held by {other}"


def render_json(report: LeakReport) -> str:
    fields = plain(report)
    fields["slope_bytes_per_second"] = report.slope_bytes_per_second
    fields["is_growing"] = report.is_growing
    fields["headline"] = headline(report)
    if report.analysis is not None:
        from mwtrace.tell.analysis import render_json as analysis_json

        fields["analysis"] = json.loads(analysis_json(report.analysis))
    return json.dumps(fields)


def render_html(report: LeakReport) -> str:
    """One page without scripts and without anything loaded from elsewhere."""
    parts = "".join(
        f"<h2>{html.escape(title.capitalize())}</h2><ul>"
        + "".join(f"<li>{html.escape(line)}" for line in lines)
        + "</ul>"
        for title, lines in _parts(report, True)
    )
    title = html.escape(printable(report.service))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}: leak report</title>'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<style>{_STYLE}</style><h1>{title}</h1><p><b>{html.escape(headline(report))}</b></p>"
        f"{parts}</html>\n"
    )
