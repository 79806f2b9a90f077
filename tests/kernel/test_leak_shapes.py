"""Thirteen programs that leak, each in its own shape: the first holder told is the right one."""

from __future__ import annotations

import sys

import pytest
import snapshots
from target import Target

from mwtrace.snapshot.analysis import analyze

pytestmark = pytest.mark.kernel

# shape: (path, type of what collects, words of the pattern)
TRUTH = {
    "module_dict": ("__main__.CACHE['…'] -> Session", "Session", "module-level container"),
    "attribute_dict": ("__main__.app.entries['…'] -> Session", "Session", "unbounded cache"),
    "listeners": ("__main__.app.listeners[…] -> partial", "partial", "never removed"),
    "lru_cache": ("__main__.lookup['…'] -> Session", "Session", "functools cache"),
    "class_attribute": ("__main__.Registry.known[…] -> Session", "Session", "class attribute"),
    "closure": ("__main__.closure, closure variable seen[…] -> Session", "Session", "closure"),
    "exception_frames": ("__main__.failures[…] -> ValueError", "ValueError", "holds frames"),
    "thread_local": ("__main__.local.sessions[…] -> Session", "Session", "thread-local"),
    "cycle_with_finalizer": ("a cycle of Node", "Node", "cycle with a finalizer"),
    "generators": ("__main__.tasks{…} -> generator", "generator", "generators or tasks"),
    "held_by_native": ("native code -> Session", "Session", "native code"),
    "linked_list": ("__main__.chain.last", "Link", "linked list"),
    "defaultdict_of_lists": (
        "__main__.app.by_user['…'][…] -> Session",
        "Session",
        "unbounded collection",
    ),
}
LEAKED = 1000
ALL_SEEN = pytest.approx(LEAKED, rel=0.1)  # an address that is used again counts as old


@pytest.mark.parametrize("shape", TRUTH)
def test_the_first_path_told_is_the_one_that_leaks(shape, tmp_path):
    target = Target([sys.executable, "tests/targets/leak_shapes.py", shape])
    try:
        target.expect("ready")
        paths = []
        for count in (500, LEAKED, 50):
            target.ask(str(count))
            paths.append(snapshots.take(tmp_path / "store", target.pid))
    finally:
        target.stop()
    path, type_name, pattern = TRUTH[shape]
    found = [analyze(paths[:2]), analyze(paths)]
    for analysis in found:
        first = analysis.suspects[0]
        assert first.path == path
        assert first.type_name.rpartition(".")[2] == type_name
        assert first.objects == ALL_SEEN
        assert pattern in first.pattern
        assert first.share > 0.9
    assert found[0].suspects[0].signature == found[1].suspects[0].signature
