"""The sites of a profile as a table for a terminal: what leaks, how fast, and how that is known.

        LIVE  GROWTH                    SHARE  KNOWN BY           SITE
    47.7 MiB  +1.08 MiB/s [1.03, 1.13]    94%  audited survivors  app.py:41 handle > dumps

Says nothing that the profile does not: "-" where it is not known.
"""

from __future__ import annotations

from mwtrace.tell.cells import ellipsis, printable, width_cells
from mwtrace.tell.profile import Frame, FrameKind, Profile, SiteProfile
from mwtrace.tell.units import format_bytes, format_slope_interval

_HEAD = ("LIVE", "GROWTH", "SHARE", "KNOWN BY", "SITE")
_RIGHT = {"LIVE", "SHARE"}
_GAP = "  "


def sites_table(
    profile: Profile, rows_max: int = 10, columns: int = 120, unicode: bool = True
) -> str:
    """At most rows_max sites, worst first, then what was left out and the sum of shares."""
    shown = profile.sites[:rows_max]
    rows = [_HEAD, *(_row(profile, site, unicode) for site in shown)]
    widths = [max(width_cells(row[i]) for row in rows) for i in range(len(_HEAD) - 1)]
    room = max(20, columns - sum(widths) - len(_GAP) * len(widths))
    lines = [_line(row, widths, room, unicode) for row in rows]
    return "\n".join([*lines, *_remarks(profile, len(shown))]) + "\n"


def compact(frames: tuple[Frame, ...], unicode: bool = True) -> str:
    """The innermost Python frames and the native one below, root first: ``a.py:3 f > g``."""
    python = [frame for frame in frames if frame.kind is FrameKind.PYTHON][-2:]
    native = [frame for frame in frames if frame.kind is FrameKind.NATIVE]
    if python:
        ends_native = frames[-1].kind is FrameKind.NATIVE
        chosen = [*python, *native[-1:]] if ends_native else python
    else:
        chosen = native[-3:]
    return " > ".join(printable(_frame(frame), unicode) for frame in chosen) or "[no stack]"


def _frame(frame: Frame) -> str:
    if frame.kind is FrameKind.NATIVE or not frame.file:
        return frame.title
    place = frame.file.rsplit("/", 1)[-1]
    return f"{place}:{frame.line} {frame.title}" if frame.line else f"{place} {frame.title}"


def _row(profile: Profile, site: SiteProfile, unicode: bool) -> tuple[str, ...]:
    share = profile.explained_share(site)
    slope = site.slope_bytes_per_second
    growth = "-"
    if slope is not None:
        low, high = site.slope_low_bytes_per_second, site.slope_high_bytes_per_second
        growth = format_slope_interval(slope, low, high)
    return (
        format_bytes(site.inuse_bytes),
        growth,
        "-" if share is None else f"{share:.0%}",
        site.known_by.value,
        compact(site.frames, unicode),
    )


def _line(row: tuple[str, ...], widths: list[int], room: int, unicode: bool) -> str:
    cells = [
        " " * (width - width_cells(cell)) + cell
        if head in _RIGHT
        else cell + " " * (width - width_cells(cell))
        for cell, width, head in zip(row, widths, _HEAD)
    ]
    return _GAP.join([*cells, _cut_left(row[-1], room, unicode)]).rstrip()


# The leaf says most, so a site loses its beginning.
def _cut_left(text: str, room: int, unicode: bool) -> str:
    if width_cells(text) <= room:
        return text
    while width_cells(text) > room - 1:
        text = text[1:]
    return ellipsis(unicode) + text


def _remarks(profile: Profile, shown: int) -> list[str]:
    remarks = []
    if len(profile.sites) > shown:
        rest = sum(site.inuse_bytes for site in profile.sites[shown:])
        remarks.append(f"and {len(profile.sites) - shown} more sites with {format_bytes(rest)}")
    shares = [profile.explained_share(site) for site in profile.sites]
    known = [share for share in shares if share is not None and share > 0]
    if known and profile.growth_bytes_per_second:
        growth = format_slope_interval(profile.growth_bytes_per_second, None, None)
        remarks.append(f"the named sites explain {min(1.0, sum(known)):.0%} of {growth}")
    return remarks
