"""A census from outside against what the process counts in itself, on every CPython here."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from interpreters import interpreters, minor_of, on_every_python, script
from target import Target

from mwtrace.cpython.runtime import find_runtime
from mwtrace.errors import ProcessGone, ProcessUnreadable
from mwtrace.evidence.census import Census, census_process, grown_types
from mwtrace.evidence.image import Budget, Image
from mwtrace.evidence.interpreter import find_interpreter

pytestmark = pytest.mark.kernel

OBJECTS = 300_000
# What an interpreter has of its own differs between two runs by some objects (interned strings,
# free lists); of 250,000 that is the tolerance asked for.
SHARE_MAX = 1e-4


def memory_figures(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.split(":")[0]: line for line in lines if line.startswith(("VmPTE", "VmSwap"))}


def by_type(census: Census) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in census.types:
        found[row.name.rsplit(".", 1)[-1]] += row.objects
    return found


def counted(python: str, objects: int) -> tuple[dict[str, int], Counter[str], int]:
    # The cache of type attributes keeps names alive, which ones depends on where they lie.
    settled = ["env", "PYTHONHASHSEED=0", "setarch", "-R"]
    target = Target([*settled, python, script("truth_heap"), str(objects)])
    try:
        truth = json.loads(target.line())["n"]
        before = memory_figures(target.pid)
        census = census_process(target.pid)
        assert memory_figures(target.pid) == before  # looking has changed nothing
        assert census.is_complete
        return truth, by_type(census), census.objects
    finally:
        target.stop()


@on_every_python
def test_the_census_counts_what_the_process_counts_in_itself(python):
    """As a difference of two heaps: what both have of their own (and hide from gc) cancels out."""
    truth_empty, seen_empty, all_empty = counted(python, 0)
    truth_full, seen_full, all_full = counted(python, OBJECTS)
    truth = sum(truth_full.values()) - sum(truth_empty.values())
    assert truth > 200_000
    assert abs((all_full - all_empty) - truth) <= SHARE_MAX * truth
    for name in ("Rec", "Slot", "set", "float"):
        wanted = truth_full[name] - truth_empty.get(name, 0)
        assert abs(seen_full[name] - seen_empty[name] - wanted) <= max(8, SHARE_MAX * wanted), name


@on_every_python
def test_the_version_is_found_without_symbols(python):
    target = Target([python, script("truth_heap"), "0", "-"])
    try:
        target.expect("ready")
        with Image(target.pid) as image:
            interpreter = find_interpreter(image)
        assert interpreter is not None
        assert interpreter.minor == minor_of(python) == find_runtime(target.pid).version.minor
    finally:
        target.stop()


def test_what_grew_between_two_censuses_is_named_with_its_module():
    target = Target([interpreters()[-1], script("grow"), "python-objects"])
    try:
        target.expect("ready")
        target.ask("grow")
        before = census_process(target.pid)
        target.ask("grow")
        grown = grown_types(before, census_process(target.pid))
        sessions = next(row for row in grown if row.name == "__main__.Session")
        assert sessions.objects_grown == (8 << 20) // 200
    finally:
        target.stop()


def test_a_census_whose_time_is_up_says_so():
    target = Target([interpreters()[-1], script("truth_heap"), str(OBJECTS), "-"])
    try:
        target.expect("ready")
        census = census_process(target.pid, budget_s=0.0)
        assert not census.is_complete
        assert "time" in census.stopped
    finally:
        target.stop()


def test_a_cancelled_budget_ends_a_census():
    from mwtrace.evidence.census import take_census

    target = Target([interpreters()[-1], script("truth_heap"), "0", "-"])
    try:
        target.expect("ready")
        budget = Budget(60)
        budget.cancel()
        with Image(target.pid) as image:
            census = take_census(image, find_interpreter(image), budget=budget)
        assert census.stopped == "it was cancelled"
    finally:
        target.stop()


def test_a_process_that_ended_is_gone():
    target = Target([interpreters()[-1], "-c", "pass"])
    target.wait()
    target.stop()
    with pytest.raises(ProcessGone):
        census_process(target.pid)


def test_a_process_without_python_says_so(start_target):
    target = start_target("sleepers", "0")
    with pytest.raises(ProcessUnreadable) as raised:
        census_process(target.pid)
    assert "no CPython" in str(raised.value)
    assert raised.value.remedy


def test_an_exec_under_the_reader_is_noticed():
    program = "import os, sys; print('ready', flush=True); os.read(0, 5);"
    program += "os.execv('/bin/cat', ['cat'])"
    target = Target([interpreters()[-1], "-c", program])
    try:
        target.expect("ready")
        with Image(target.pid) as image:
            assert image.is_same()
            target.tell("exec")
            target.tell("echo")
            target.expect("echo")  # cat says it: the exec is over
            assert not image.is_same()
    finally:
        target.stop()
