"""Collapsed stacks, one per line: ``root;...;leaf VALUE``, as flamegraph.pl and many others read.

Names lose what would break a line: control characters and ``;`` become escapes.
"""

from __future__ import annotations

from collections.abc import Callable

from mwtrace.tell.cells import printable
from mwtrace.tell.profile import Frame, FrameKind, Profile, SiteProfile

NO_STACK = "[no stack]"


def inuse_bytes(site: SiteProfile) -> int:
    return site.inuse_bytes


def alloc_bytes(site: SiteProfile) -> int:
    return site.alloc_bytes


def collapsed(profile: Profile, value: Callable[[SiteProfile], int] = inuse_bytes) -> str:
    """Sites without value are left out; equal stacks are added up."""
    totals: dict[str, int] = {}
    for site in profile.sites:
        stack = ";".join(frame_text(frame) for frame in site.frames) or NO_STACK
        totals[stack] = totals.get(stack, 0) + value(site)
    return "".join(f"{stack} {total}\n" for stack, total in totals.items() if total > 0)


def frame_text(frame: Frame) -> str:
    """``function (file.py:12)``, or a native function's name."""
    text = frame.title
    if frame.kind is FrameKind.PYTHON:
        place = frame.file.rsplit("/", 1)[-1]
        text += f" ({place}:{frame.line})" if frame.line else f" ({place})"
    return printable(text).replace(";", "\\x3b")
