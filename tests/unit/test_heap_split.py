"""Two readings of a process in: what its interpreter's heap and its native memory do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mwtrace.escalation.finding import heap_split
from mwtrace.evidence.parts import Reading, split

MIB = 1 << 20


def reading(time_s: float, pools_mib: int, heap_mib: int, python: str = "CPython 3.11") -> Any:
    """As explain_process() returns it, as far as it is asked for here."""
    raw = Reading(
        anon_bytes=500 * MIB,
        file_bytes=0,
        shmem_bytes=0,
        swap_bytes=0,
        page_table_bytes=0,
        stack_bytes=0,
        stacks=1,
        heap_anon_bytes=heap_mib * MIB,
        heap_free_bytes=10 * MIB,
        heap_object_bytes=5 * MIB,
        pool_anon_bytes=400 * MIB,
        pool_in_use_bytes=pools_mib * MIB,
        large_anon_bytes=8 * MIB,
        large_object_bytes=3 * MIB,
    )
    census = SimpleNamespace(interpreter=python)
    return SimpleNamespace(time_s=time_s, parts=split(raw), census=census, arenas=SimpleNamespace())


def test_objects_wherever_they_lie_are_heap_and_all_other_blocks_in_use_are_native():
    found = heap_split(reading(10.0, 100, 40), reading(20.0, 120, 70))
    assert found is not None
    assert found.heap_bytes == (120 + 5 + 3) * MIB
    assert found.heap_slope_bytes_per_second == pytest.approx(2 * MIB)
    assert found.native_bytes == (70 - 10 - 5 + 8 - 3) * MIB
    assert found.native_slope_bytes_per_second == pytest.approx(3 * MIB)


def test_without_arenas_that_can_be_read_native_memory_is_unknown():
    before, now = reading(10.0, 100, 40), reading(20.0, 120, 70)
    now.arenas = None
    found = heap_split(before, now)
    assert found is not None
    assert found.heap_slope_bytes_per_second == pytest.approx(2 * MIB)
    assert (found.native_bytes, found.native_slope_bytes_per_second) == (None, None)


def test_without_an_interpreter_or_without_time_between_nothing_is_said():
    now = reading(20.0, 120, 70)
    assert heap_split(reading(10.0, 100, 40, python=""), now) is None
    assert heap_split(now, now) is None
