"""Parts add up, and what grew is told for what it is: pure rules, by tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mwtrace.evidence.advice import Facts, advise
from mwtrace.evidence.kind import Kind, growth, refine
from mwtrace.evidence.parts import PartKind, Reading, private_bytes, split

MIB = 1 << 20


@pytest.mark.parametrize(
    ("grown", "kind"),
    [
        ({PartKind.PYTHON_OBJECTS: 10}, Kind.PYTHON_OBJECTS),
        ({PartKind.PYTHON_OBJECTS: 10, PartKind.NATIVE_LIVE: 4}, Kind.PYTHON_OBJECTS),
        ({PartKind.PYTHON_OBJECTS: 5, PartKind.NATIVE_LIVE: 5}, Kind.MIXED),
        ({PartKind.NATIVE_LIVE: 9, PartKind.ALLOCATOR_RETAINED: 1}, Kind.NATIVE_LIVE),
        ({PartKind.PYMALLOC_FREE: 4, PartKind.ALLOCATOR_RETAINED: 4}, Kind.ALLOCATOR_RETAINED),
        ({PartKind.LARGE_MMAPS: 9}, Kind.MMAP),
        ({PartKind.SHMEM: 5, PartKind.FILE: 4}, Kind.SHM_FILE),
        ({PartKind.STACKS: 9}, Kind.STACKS),
        ({PartKind.UNACCOUNTED: 9}, Kind.UNKNOWN),
        ({PartKind.NATIVE_LIVE: -9}, Kind.UNKNOWN),
        ({}, Kind.UNKNOWN),
    ],
)
def test_the_part_that_grows_names_the_kind(grown, kind):
    before = dict.fromkeys(PartKind, 100 * MIB)
    now = {part: before[part] + grown.get(part, 0) * MIB for part in PartKind}
    assert growth(before, now).kind is kind


def test_more_threads_explain_what_comes_with_them():
    before = dict.fromkeys(PartKind, 0)
    now = {**before, PartKind.STACKS: 2 * MIB, PartKind.NATIVE_LIVE: 5 * MIB}
    assert growth(before, now).kind is Kind.NATIVE_LIVE
    assert growth(before, now, threads_before=4, threads_now=44).kind is Kind.STACKS


def test_what_moved_to_swap_did_not_grow():
    before = {**dict.fromkeys(PartKind, 0), PartKind.NATIVE_LIVE: 50 * MIB}
    now = {**before, PartKind.NATIVE_LIVE: 10 * MIB, PartKind.SWAP: 40 * MIB}
    assert growth(before, now).grown_bytes == 0


def test_memory_that_is_kept_free_is_no_leak():
    assert [kind for kind in Kind if not kind.is_leak] == [Kind.ALLOCATOR_RETAINED]


def test_only_growing_objects_become_a_missing_decref():
    before = dict.fromkeys(PartKind, 0)
    objects = growth(before, {**before, PartKind.PYTHON_OBJECTS: 9 * MIB})
    native = growth(before, {**before, PartKind.NATIVE_LIVE: 9 * MIB})
    assert refine(objects, True).kind is Kind.MISSING_DECREF
    assert refine(objects, False).kind is Kind.PYTHON_OBJECTS
    assert refine(native, True).kind is Kind.NATIVE_LIVE


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_ends_in_one_concrete_step(kind):
    step = advise(kind, Facts(pid=4711, arenas=20, threads=50, type_name="app.Session"))
    assert "4711" in step or "MALLOC_" in step or "Py_DECREF" in step


def test_many_arenas_are_advised_against():
    facts = Facts(pid=1, arenas=64, retained_bytes=500 * MIB, trim_bytes=400 * MIB)
    step = advise(Kind.ALLOCATOR_RETAINED, facts)
    assert "MALLOC_ARENA_MAX" in step
    assert "not a leak" in step


sizes = st.integers(0, 1 << 40)


@given(st.lists(sizes, min_size=18, max_size=18))
def test_parts_of_private_memory_add_up_to_what_the_kernel_says(numbers):
    """However much the readers' figures overlap or miss: no part is negative, the sum stays."""
    names = [name for name, kind in Reading.__annotations__.items() if kind == "int"]
    reading = Reading(**dict(zip(names, numbers + [0] * len(names))))
    parts = split(reading)
    assert all(part.size_bytes >= 0 for part in parts)
    whole = reading.anon_bytes + reading.swap_bytes + reading.page_table_bytes
    assert private_bytes(parts) == whole
    assert [part.kind for part in parts] == list(PartKind)
