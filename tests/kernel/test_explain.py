"""What grows is told for what it is, and the parts add up to what the kernel says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from interpreters import interpreters, on_every_python, script
from target import Target

from mwtrace.evidence.explain import Explanation, explain_process
from mwtrace.evidence.kind import Kind, growth, refine
from mwtrace.evidence.parts import PartKind, sizes
from mwtrace.tell.explanation import render_html, render_json, render_text

pytestmark = pytest.mark.kernel

KINDS = {
    "python-objects": Kind.PYTHON_OBJECTS,
    "missing-decref": Kind.MISSING_DECREF,
    "native": Kind.NATIVE_LIVE,
    "mmap": Kind.MMAP,
    "retained": Kind.ALLOCATOR_RETAINED,
    "threads": Kind.STACKS,
}


def rollup(pid: int) -> dict[str, int]:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.M)}


def grow(python: str, shape: str) -> tuple[Explanation, Explanation, list[dict[str, int]]]:
    target = Target([python, script("grow"), shape])
    try:
        target.expect("ready")
        before = explain_process(target.pid)
        target.ask("grow")
        figures = [rollup(target.pid)]
        now = explain_process(target.pid)
        figures.append(rollup(target.pid))
        return before, now, figures
    finally:
        target.stop()


@on_every_python
@pytest.mark.parametrize("shape", KINDS)
def test_what_grows_is_told_for_what_it_is(python, shape):
    before, now, kernel = grow(python, shape)
    grown = growth(sizes(before.parts), sizes(now.parts), before.threads, now.threads)
    grown = refine(grown, any(holders.missing_decref for holders in now.holders))
    assert grown.kind is KINDS[shape], grown
    # the same pages counted by the kernel, in another way; just begun threads still move
    private = [f["Anonymous"] + f["Swap"] + now.kernel.page_table_bytes for f in kernel]
    assert 0.98 * min(private) <= now.private_bytes <= 1.02 * max(private)
    unaccounted = sizes(now.parts)[PartKind.UNACCOUNTED]
    assert unaccounted <= 0.05 * now.private_bytes


def test_an_explanation_is_told_in_three_forms():
    _, explanation, _ = grow(interpreters()[-1], "python-objects")
    text = render_text(explanation, "demo.service")
    assert "__main__.Session" in text
    assert "__main__.SESSIONS[\u2026]" in text
    assert "python objects" in text
    read = json.loads(render_json(explanation))
    assert sum(part["size_bytes"] for part in read["parts"]) > 8 << 20
    assert {part["basis"] for part in read["parts"]} == {"measured", "inferred"}
    page = render_html(explanation, "<script>")
    assert "<script>" not in page
    assert "__main__.Session" in page


def test_a_native_program_is_explained_too(compile_target):
    target = Target([str(compile_target("heap")), "fragmented", "64"])
    try:
        target.line()
        explanation = explain_process(target.pid)
        parts = sizes(explanation.parts)
        assert parts[PartKind.ALLOCATOR_RETAINED] > 0.8 * explanation.private_bytes
        assert parts[PartKind.PYTHON_OBJECTS] == 0
        assert "estimate" in render_text(explanation)
    finally:
        target.stop()


def test_pages_in_many_stretches_are_counted_once(start_target):
    target = start_target("stretches")
    explained = explain_process(target.pid)
    anon_bytes = rollup(target.pid)["Anonymous"]
    # Exactly: nothing moves in it.
    assert explained.private_bytes - explained.kernel.page_table_bytes == anon_bytes
    assert sizes(explained.parts)[PartKind.LARGE_MMAPS] >= 1601 * 4 * 4096
