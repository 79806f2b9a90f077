"""An analysis as one HTML file: suspects, the dominator tree as a flame, a table of types.

No server, no network, nothing to install. What the target named goes in as JSON text that cannot
end its element, and the script sets it as text only; the content security policy says the same.
"""

from __future__ import annotations

import html
import json
import re
from importlib import resources
from typing import Any

from mwtrace.snapshot.analysis import Analysis, TreeNode
from mwtrace.tell.analysis import conclusion
from mwtrace.tell.cells import printable
from mwtrace.tell.units import format_bytes


def heap_page(analysis: Analysis) -> str:
    header = analysis.headers[-1]
    name = printable(header.service or header.argv0 or f"pid {header.pid}")
    parts = {
        "title": html.escape(f"{name}: who holds its memory"),
        "subtitle": html.escape(_subtitle(analysis)),
        "conclusion": "".join(f"<li>{html.escape(line)}" for line in conclusion(analysis)),
        "script": _read("heap_page.js"),
        "data": _json(_data(analysis)),
    }
    # In one pass: what was put in may itself look like a place to fill.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _read("heap_page.html"))


def _subtitle(analysis: Analysis) -> str:
    text = f"{analysis.objects:,} objects, {format_bytes(analysis.size_bytes)}"
    if analysis.is_compared:
        text += f"; grown by {analysis.grown_objects:,}, {format_bytes(analysis.grown_bytes)}"
    return f"{text} ({analysis.method})"


def _data(analysis: Analysis) -> dict[str, Any]:
    return {
        "compared": analysis.is_compared,
        "tree": _node(analysis.tree),
        "types": [[printable(row.name), *row[1:]] for row in analysis.types],
        "suspects": [
            [
                printable(one.path),
                one.objects,
                printable(one.type_name),
                one.size_bytes,
                round(one.share, 4),
                one.pattern,
                one.signature,
                [printable(text) for text in one.also],
            ]
            for one in analysis.suspects
        ],
        "notes": [printable(note) for note in analysis.notes],
    }


# Arrays, not objects: names would be half of the file.
def _node(node: TreeNode) -> list[Any]:
    below = [_node(child) for child in node.children]
    return [printable(node.label), node.retained_bytes, node.own_bytes, node.objects, below]


# Inside of <script> only "</" and "<!--" matter; all of "<", ">" and "&" is simpler to trust.
def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _read(name: str) -> str:
    return resources.files("mwtrace.tell").joinpath(name).read_text("utf-8")
