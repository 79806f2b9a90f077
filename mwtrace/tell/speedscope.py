"""A profile in speedscope's file format: JSON, one tab for what is held and one for what was asked.

The schema is https://www.speedscope.app/file-format-schema.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mwtrace.tell.cells import printable
from mwtrace.tell.collapsed import NO_STACK, alloc_bytes, inuse_bytes
from mwtrace.tell.profile import Frame, FrameKind, Profile, SiteProfile

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"
_NO_STACK = Frame(NO_STACK, FrameKind.NATIVE)


def speedscope(profile: Profile, exporter: str = "mwtrace") -> str:
    frames: dict[Frame, int] = {}
    title = printable(f"{profile.title} (pid {profile.pid})")
    tabs = [
        _tab(f"{title}: in use", profile, inuse_bytes, frames),
        _tab(f"{title}: allocated", profile, alloc_bytes, frames),
    ]
    document = {
        "$schema": _SCHEMA,
        "name": title,
        "exporter": exporter,
        "activeProfileIndex": 0,
        "shared": {"frames": [_frame(frame) for frame in frames]},
        "profiles": tabs,
    }
    # ASCII: a lone surrogate in a name must not make an invalid file.
    return json.dumps(document, ensure_ascii=True, separators=(",", ":"))


def _tab(
    name: str, profile: Profile, value: Callable[[SiteProfile], int], frames: dict[Frame, int]
) -> dict[str, Any]:
    sites = [site for site in profile.sites if value(site) > 0]
    stacks = [
        [frames.setdefault(frame, len(frames)) for frame in site.frames or (_NO_STACK,)]
        for site in sites
    ]
    weights = [value(site) for site in sites]
    return {
        "type": "sampled",
        "name": name,
        "unit": "bytes",
        "startValue": 0,
        "endValue": sum(weights),
        "samples": stacks,
        "weights": weights,
    }


def _frame(frame: Frame) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": printable(frame.title)}
    file = frame.file or frame.module
    if file:
        shown["file"] = printable(file)
    if frame.line:
        shown["line"] = frame.line
    return shown
