"""The outside writer: every edge that the collector knows is in the file, on every CPython here."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from graph_file import GraphFile
from interpreters import interpreters, on_every_python, script
from target import Target

from mwtrace.errors import ProcessGone, ProcessUnreadable
from mwtrace.evidence.image import Budget
from mwtrace.snapshot.outside import take_outside

pytestmark = pytest.mark.kernel

READ, PAUSE = "0", "34"  # the numbers of system calls
Truth = dict[str, tuple[int, list[int], int]]
# What has nothing beside its items: no edge may be invented for it.
EXACT = re.compile(r"^(list|tuple|set|frozenset|deque|slotted|namedtuple|dict of (int|objects))")


class KnownGraph:
    def __init__(self, python: str, *arguments: str) -> None:
        self.target = Target([python, script("known_graph"), *arguments])
        self.truth: Truth = json.loads(self.target.line())
        self.target.expect("ready")


@pytest.fixture
def known(request: pytest.FixtureRequest) -> Iterator[KnownGraph]:
    graph = KnownGraph(getattr(request, "param", interpreters()[-1]))
    yield graph
    graph.target.stop()


def wait_until_asleep(pid: int, call: str) -> None:
    """Wait until it is in a system call that waits: it does nothing any more."""
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}/syscall").read_text().split()[0] != call:
        assert time.monotonic() < deadline


def dirty_kib(pid: int) -> list[str]:
    """What changes when somebody writes to a process's pages, or maps new ones into it."""
    wanted = ("Private_Dirty:", "Shared_Dirty:", "Anonymous:", "Swap:")
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return [x for x in rollup if x.startswith(wanted)] + [x for x in status if "VmPTE" in x]


@on_every_python
def test_a_frozen_child_is_written_edge_for_edge_and_not_a_page_of_it_changes(python, tmp_path):
    known = KnownGraph(python)
    try:
        known.target.tell("fork")
        child = int(known.target.line())
        # either may still write to pages that both share
        wait_until_asleep(child, PAUSE)
        wait_until_asleep(known.target.pid, READ)
        before = dirty_kib(child)
        written = take_outside(
            child, tmp_path / "a.mwsnap", {"pid": known.target.pid, "why": "test"}
        )
        assert "\n".join(dirty_kib(child)) == "\n".join(before)
        known.target.ask("go on")
    finally:
        known.target.stop()
    file = GraphFile(tmp_path / "a.mwsnap")
    assert (file.head["pid"], file.head["writer"]) == (known.target.pid, "outside")
    assert not written.truncated
    assert written.totals["vanished_total"] == written.totals["edges_dropped_total"] == 0
    for name, (one, referents, kind) in known.truth.items():
        row = file.objects[one]
        assert row[0] == kind, name
        found, wanted = set(row[3]), {r for r in referents if r in file.objects and r != kind}
        # small integers, None and classes may lie where no object is looked for, or be no edge
        missing = {file.type_of(r) for r in wanted - found}
        assert not missing, f"{name}: missed edges to {missing}"
        if EXACT.match(name):
            assert found - {kind} == wanted, f"{name}: {[file.type_of(r) for r in found - wanted]}"
        if name == "list":
            assert sorted(row[3]) == sorted(referents)


def edge_names(file: GraphFile, kind: int) -> set[tuple[int, str]]:
    return {(target, text) for _, target, text, k in file.names if k == kind}


@on_every_python
def test_globals_attributes_keys_frames_and_modules_have_their_names(python, tmp_path):
    known = KnownGraph(python)
    try:
        take_outside(known.target.pid, tmp_path / "a.mwsnap")
    finally:
        known.target.stop()
    file, truth = GraphFile(tmp_path / "a.mwsnap"), known.truth
    globals_, attributes, keys = (edge_names(file, kind) for kind in (0, 1, 2))
    made = next(target for target, text in globals_ if text == "MADE")
    assert file.type_of(made) == "dict"
    assert {truth[name][0] for name in truth} <= set(file.objects[made][3])
    assert (truth["function"][0], "function") in keys
    by_source = {(source, text): target for source, target, text, _ in file.names}
    plain, slotted = truth["plain"][0], truth["slotted"][0]
    holders = [plain, *file.objects[plain][3]]  # its attributes, or those of its dict
    assert any((one, "value") in by_source and (one, "other") in by_source for one in holders)
    assert (plain, "value") in by_source or (plain, "__dict__") in by_source
    assert {(slotted, "left"), (slotted, "right")} <= set(by_source)
    assert any(text == "held" for _, text in attributes)  # of a class
    modules = {text: one for one, text, kind in file.roots if kind == 0}
    assert {"__main__", "json", "sys"} <= set(modules)
    assert file.type_of(modules["json"]) == "module"
    frames = [(one, text) for one, text, kind in file.roots if kind == 1]
    reaching = [one for one, text in frames if "reaching (" in text and "known_graph.py:" in text]
    assert len(reaching) == 6
    held = [target for target, text in edge_names(file, 3) if text == "held_by_a_frame"]
    in_frames = {r for one in reaching if one in file.objects for r in file.objects[one][3]}
    tokens = [r for r in in_frames if file.objects.get(r) and file.type_of(r) == "list"]
    assert tokens
    assert not held or set(held) <= in_frames


def test_texts_and_numbers_of_the_program_are_not_in_the_file(tmp_path):
    program = "import sys; secrets = {'password': 'hunter2-secret', 'k9y-hunter2': 1, 'a' * 90: 2};"
    program += "print('ready', flush=True); sys.stdin.readline()"
    target = Target([interpreters()[-1], "-c", program])
    try:
        target.expect("ready")
        take_outside(target.pid, tmp_path / "a.mwsnap")
    finally:
        target.stop()
    import gzip

    data = gzip.decompress((tmp_path / "a.mwsnap").read_bytes())
    assert b'"password"' in data
    assert b"hunter2" not in data
    assert b"a" * 90 not in data


def test_a_snapshot_whose_time_is_up_is_truncated_and_says_so(known, tmp_path):
    written = take_outside(known.target.pid, tmp_path / "a.mwsnap", budget=Budget(0.0))
    file = GraphFile(tmp_path / "a.mwsnap")
    assert file.end["truncated"]
    assert "time" in file.end["reason"] == written.truncated


def test_a_file_that_would_be_too_large_is_not_there(known, tmp_path):
    with pytest.raises(OSError, match="File too large"):
        take_outside(known.target.pid, tmp_path / "a.mwsnap", bytes_max=10_000)
    assert list(tmp_path.iterdir()) == []


def test_no_link_is_followed(known, tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "a.mwsnap.part").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="exists"):
        take_outside(known.target.pid, tmp_path / "a.mwsnap")
    assert (tmp_path / "victim").read_text() == "mine"


def test_a_busy_process_is_written_while_it_runs(tmp_path):
    target = Target([interpreters()[-1], script("known_graph_churn")])
    try:
        target.expect("ready")
        stable = json.loads(target.line())
        take_outside(target.pid, tmp_path / "a.mwsnap")
        assert int(target.line()) > 0  # it went on
    finally:
        target.stop()
    file = GraphFile(tmp_path / "a.mwsnap")
    assert not file.end["truncated"]
    assert set(stable["items"]) <= set(file.objects[stable["list"]][3])


def test_a_process_without_python_says_so(start_target, tmp_path):
    target = start_target("sleepers", "0")
    with pytest.raises(ProcessUnreadable, match="no CPython"):
        take_outside(target.pid, tmp_path / "a.mwsnap")
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_ended_is_gone(tmp_path):
    target = Target([interpreters()[-1], "-c", "pass"])
    target.wait()
    target.stop()
    with pytest.raises(ProcessGone):
        take_outside(target.pid, tmp_path / "a.mwsnap")


@on_every_python
def test_one_of_a_class_is_named_although_another_class_has_thousands(python, tmp_path):
    """Limits on names are for each class: the holder of a leak is one, what leaks is many."""
    program = (
        "import sys\n"
        "class Session:\n"
        "    def __init__(self, n): self.number = n\n"
        "class Registry:\n"
        "    def __init__(self): self.sessions = {n: Session(n) for n in range(5003)}\n"
        "before = [Session(n) for n in range(5003)]\n"
        "REGISTRY = Registry()\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
    )
    target = Target([python, "-c", program])
    try:
        target.expect("ready")
        take_outside(target.pid, tmp_path / "a.mwsnap")
    finally:
        target.stop()
    file = GraphFile(tmp_path / "a.mwsnap")
    (target_of,) = {
        target for _, target, text, kind in file.names if (text, kind) == ("sessions", 1)
    }
    assert (
        len([r for r in file.objects[target_of][3] if file.type_of(r) == "__main__.Session"])
        == 5003
    )
