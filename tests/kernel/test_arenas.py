"""malloc's arenas from outside against what malloc says of itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from target import Target

from mwtrace.evidence.arenas import Arenas, read_arenas
from mwtrace.evidence.image import Image

pytestmark = pytest.mark.kernel


TESTS = Path(__file__).parents[1]
# tests/tools/other-glibcs unpacks them: none is there without a network.
GLIBCS = sorted((TESTS / ".glibcs").glob("*/"), key=lambda path: int(path.name.split(".")[1]))


def linked_with(glibc: Path, program: Path) -> str:
    """Build the heap for another C library, whose own loader starts it; return its path."""
    # Merged folders are a link to usr/lib in some releases, a folder in older ones.
    library = next(glibc.glob("**/libc.so.6")).parent
    loader = library / "ld-linux-x86-64.so.2"
    libraries = [library / "libc.so.6", *library.glob("libpthread.so.0"), loader]
    linking = f"-Wl,--dynamic-linker={loader},-rpath,{library}"
    source = TESTS / "targets" / "heap.c"
    command = ["cc", "-O1", "-D_GNU_SOURCE", "-o", program, source, "-nodefaultlibs"]
    subprocess.run([*command, *libraries, linking, "-lgcc"], check=True)
    return str(program)


@pytest.fixture
def read_heap(compile_target):
    """Return a function that starts a heap of some shape and reads it: arenas, and the truth."""
    started = []

    def read(shape: str, mebibytes: int, program: str = "") -> tuple[Arenas, int, int, int]:
        target = Target([program or str(compile_target("heap")), shape, str(mebibytes)])
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


@pytest.mark.parametrize("glibc", GLIBCS, ids=lambda path: f"glibc{path.name}")
def test_every_layout_of_malloc_is_understood(read_heap, tmp_path, glibc):
    program = linked_with(glibc, tmp_path / "heap")
    for shape in ("fragmented", "fast", "mmapped"):
        arenas, system, in_use, mapped = read_heap(shape, 32, program)
        assert (arenas.system_bytes, arenas.in_use_bytes) == (system, in_use)
        assert arenas.mmapped_bytes == mapped
    arenas, system, in_use, _ = read_heap("threads", 64, program)
    assert len(arenas.arenas) > 2
    assert arenas.system_bytes == pytest.approx(system, rel=0.01)
    assert arenas.in_use_bytes == pytest.approx(in_use, rel=0.01)


def test_what_malloc_trim_could_return_is_most_of_a_fragmented_heap(read_heap):
    arenas, _, in_use, _ = read_heap("fragmented", 64)
    assert in_use < 0.05 * arenas.system_bytes
    assert arenas.trim_bytes > 0.7 * arenas.free_bytes


@pytest.mark.slow
def test_a_heap_of_two_gigabytes_agrees_to_the_byte(read_heap):
    arenas, system, in_use, _ = read_heap("big", 2048)
    assert (arenas.system_bytes, arenas.in_use_bytes) == (system, in_use)
