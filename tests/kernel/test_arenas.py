"""malloc's arenas from outside against what malloc says of itself."""

from __future__ import annotations

import pytest

from mwtrace.evidence.arenas import Arenas, read_arenas
from mwtrace.evidence.image import Image

pytestmark = pytest.mark.kernel


@pytest.fixture
def read_heap(compile_target):
    """Return a function that starts a heap of some shape and reads it: arenas, and the truth."""
    from target import Target

    started = []

    def read(shape: str, mebibytes: int) -> tuple[Arenas, int, int, int]:
        target = Target([str(compile_target("heap")), shape, str(mebibytes)])
        started.append(target)
        word, system, in_use, mapped = target.line().split()
        assert word == "ready"
        with Image(target.pid) as image:
            arenas = read_arenas(image)
        assert arenas is not None
        return arenas, int(system), int(in_use), int(mapped)

    yield read
    for target in started:
        target.stop()


@pytest.mark.parametrize("shape", ["fragmented", "fast", "mmapped"])
def test_one_arena_agrees_with_malloc_to_the_byte(read_heap, shape):
    arenas, system, in_use, mapped = read_heap(shape, 64)
    assert (arenas.system_bytes, arenas.in_use_bytes) == (system, in_use)
    assert arenas.mmapped_bytes == mapped
    assert arenas.is_complete
    assert sum(found.free_bytes for found in arenas.bins) == arenas.arenas[0].free_bytes


def test_the_arenas_of_64_threads_agree_within_one_percent(read_heap):
    arenas, system, in_use, _ = read_heap("threads", 256)
    assert len(arenas.arenas) > 2
    # malloc_info() itself allocates in one of them while it counts
    assert arenas.system_bytes == pytest.approx(system, rel=0.01)
    assert arenas.in_use_bytes == pytest.approx(in_use, rel=0.01)
    assert all(arena.unwalked_bytes == 0 for arena in arenas.arenas)


def test_what_malloc_trim_could_return_is_most_of_a_fragmented_heap(read_heap):
    arenas, _, in_use, _ = read_heap("fragmented", 64)
    assert in_use < 0.05 * arenas.system_bytes
    assert arenas.trim_bytes > 0.7 * arenas.free_bytes


@pytest.mark.slow
def test_a_heap_of_two_gigabytes_agrees_to_the_byte(read_heap):
    arenas, system, in_use, _ = read_heap("big", 2048)
    assert (arenas.system_bytes, arenas.in_use_bytes) == (system, in_use)
