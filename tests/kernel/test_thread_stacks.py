"""The stacks of threads are found each, whatever the C library does with the guards below them."""

from __future__ import annotations

import pytest
from interpreters import on_every_python, script
from target import Target

from mwtrace.evidence.image import Image
from mwtrace.evidence.stacks import _guarded, _listed, find_stacks

pytestmark = pytest.mark.kernel

THREADS = 40  # of tests/targets/grow.py
STACK_BYTES = 1 << 20

# Starts threads one after the other and lets them end, so that their stacks are glibc's to keep.
CACHED = f"""
import sys, threading
threading.stack_size({STACK_BYTES})
begun, end = threading.Barrier(4), threading.Event()
threads = [threading.Thread(target=lambda: (begun.wait(), end.wait())) for _ in range(3)]
for thread in threads: thread.start()
begun.wait()
print("ready", flush=True)
sys.stdin.readline()
end.set()
for thread in threads: thread.join()
print("done", flush=True)
sys.stdin.readline()
"""


@on_every_python
def test_each_thread_has_one_stack(python):
    target = Target([python, script("grow"), "threads"])
    try:
        target.expect("ready")
        with Image(target.pid) as image:
            assert find_stacks(image) == []
        target.ask("grow")
        with Image(target.pid) as image:
            stacks = find_stacks(image)
            assert len(stacks) == THREADS
            assert all(before[1] <= after[0] for before, after in zip(stacks, stacks[1:]))
            assert all(image.anon_bytes(*stack) > 0 for stack in stacks)
    finally:
        target.stop()


@on_every_python
def test_a_stack_that_is_kept_for_the_next_thread_counts_too(python):
    target = Target([python, "-c", CACHED])
    try:
        target.expect("ready")
        with Image(target.pid) as image:
            in_use = find_stacks(image)
        target.ask("end")
        with Image(target.pid) as image:
            assert find_stacks(image) == in_use
    finally:
        target.stop()
    assert len(in_use) == 3
    # a guard is counted in, or not
    assert all(abs(end - start - STACK_BYTES) <= 65536 for start, end in in_use)


def test_the_lists_say_what_the_guards_say():
    """Where both ways lead to the stacks, they lead to the same ones."""
    target = Target(["/usr/bin/python3", script("grow"), "threads"])
    try:
        target.expect("ready")
        target.ask("grow")
        with Image(target.pid) as image:
            guarded, listed = dict(_guarded(image)), dict(_listed(image))
            if not guarded:
                pytest.skip("this C library has no guards that can be seen")
            assert set(guarded.values()) == set(listed.values())
            # what lies between the two starts is the guard
            starts = zip(sorted(listed), sorted(guarded))
            assert all(0 < above - start <= 65536 for start, above in starts)
    finally:
        target.stop()
