"""A flame graph as one HTML file: no server, no network, nothing to install.

The profile goes in as JSON text that cannot end its element; the script that draws it, in
flamegraph.js, sets names as text only. So a hostile function name is shown, never run; the
content security policy says the same once more.
"""

from __future__ import annotations

import html
import json
import re
from importlib import resources
from typing import Any

from mwtrace.tell.cells import printable
from mwtrace.tell.collapsed import NO_STACK
from mwtrace.tell.profile import Frame, FrameKind, Profile
from mwtrace.tell.units import format_bytes

# A page of more boxes is slow to open and shows none of them.
NODES_MAX = 20_000


def flamegraph(profile: Profile) -> str:
    title = f"{profile.title} (pid {profile.pid})"
    root, left_out = _tree(profile)
    held = sum(max(0, site.inuse_bytes) for site in profile.sites)
    subtitle = f"{format_bytes(held)} in use by {len(profile.sites)} sites"
    if left_out:
        subtitle += f"; {left_out} frames beyond {NODES_MAX} left out"
    parts = {
        "title": html.escape(printable(title)),
        "subtitle": html.escape(subtitle),
        "script": _read("flamegraph.js"),
        "data": _json(root),
    }
    # In one pass: what was put in may itself look like a place to fill.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _read("flamegraph.html"))


# Inside of <script> only "</" and "<!--" matter; all of "<", ">" and "&" is simpler to trust.
def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _read(name: str) -> str:
    return resources.files("mwtrace.tell").joinpath(name).read_text("utf-8")


class _Node:
    def __init__(self, title: str, place: str, kind: str) -> None:
        self.title = title
        self.place = place
        self.kind = kind
        self.values = [0, 0]  # bytes in use, bytes allocated
        self.children: dict[tuple[str, str, str], _Node] = {}

    # Arrays, not objects: names would be half of the file.
    def plain(self) -> list[Any]:
        ordered = sorted(self.children.values(), key=lambda node: (node.title, node.place))
        return [self.title, self.place, self.kind, *self.values, [n.plain() for n in ordered]]


def _tree(profile: Profile) -> tuple[list[Any], int]:
    root, count, left_out = _Node("all", "", "root"), 1, 0
    for site in profile.sites:
        values = (max(0, site.inuse_bytes), max(0, site.alloc_bytes))
        node = root
        _add(node, values)
        for frame in site.frames or (Frame(NO_STACK, FrameKind.NATIVE),):
            key = (printable(frame.title), _place(frame), frame.kind.value)
            child = node.children.get(key)
            if child is None:
                if count == NODES_MAX:
                    left_out += 1
                    break
                child = node.children[key] = _Node(*key)
                count += 1
            _add(child, values)
            node = child
    return root.plain(), left_out


def _add(node: _Node, values: tuple[int, int]) -> None:
    for index, value in enumerate(values):
        node.values[index] += value


def _place(frame: Frame) -> str:
    place = frame.file or frame.module
    return printable(f"{place}:{frame.line}" if frame.line else place)
