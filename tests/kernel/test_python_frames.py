"""Python frames read from outside equal what the interpreter says of itself, frame by frame."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Callable

import pytest
from alloc_under_test import (
    BEST_WAYS,
    ENGINES,
    LIBC,
    WAYS,
    AllocUnderTest,
    Probe,
    TracingUnit,
    file_place,
    outcomes,
)
from interpreters import calls_its_own_exports, interpreters, label, on_every_python, script
from target import Target

from mwtrace.capi import ffi, lib
from mwtrace.cpython.frames import FrameResolver, walker_settings, walker_threads
from mwtrace.cpython.images import Image, Symbols, images
from mwtrace.cpython.runtime import NoPython, Runtime, find_runtime
from mwtrace.host.mappings import read_mappings
from mwtrace.remote import RemoteMemory

pytestmark = pytest.mark.kernel

SIZE = 7331  # of tests/targets/python_stacks.py
THREADS = 4
STACKS = lib.MW_TARGET_PYTHON_STACKS | lib.MW_TARGET_NATIVE_STACKS


@pytest.fixture
def start_python() -> Iterator[Callable[..., Target]]:
    started: list[Target] = []

    def start(python: str, name: str) -> Target:
        target = Target([python, script(name)])
        started.append(target)
        target.expect("ready")
        return target

    yield start
    for target in started:
        target.stop()


def probe(pid: int, image: Image, symbol: str, *how: int) -> Probe:
    """Return a probe on the first instruction of an image's function."""
    address = Symbols(RemoteMemory(pid), image).address(symbol)
    assert address is not None
    return Probe(*file_place(pid, address), *how)


def libc(pid: int) -> Image:
    return next(image for image in images(read_mappings(pid)) if "/libc" in image.path)


def libc_malloc(pid: int) -> Probe:
    return probe(pid, libc(pid), "malloc", *LIBC["malloc"])


# Prefix of CPython's allocators -> (layer, domain).
FAMILIES = {
    "PyMem_Raw": (5, lib.MW_DOMAIN_PY_RAW),
    "PyMem_": (6, lib.MW_DOMAIN_PY_MEM),
    "PyObject_": (7, lib.MW_DOMAIN_PY_OBJECT),
}
CALLS = {
    "Malloc": lib.MW_CALL_MALLOC,
    "Calloc": lib.MW_CALL_CALLOC,
    "Realloc": lib.MW_CALL_REALLOC,
    "Free": lib.MW_CALL_FREE,
}


def introduce(unit: TracingUnit, runtime: Runtime, threads: bool = True) -> None:
    """Tell the walker where this process keeps its stacks."""
    pid = runtime.memory.pid
    unit.write("pythons", ffi.new("uint32_t *", pid), walker_settings(runtime))
    for key, value in walker_threads(runtime) if threads else []:
        unit.write("python_threads", key, value)


def frames_of(unit: TracingUnit, resolver: FrameResolver, stack: int) -> list[list[object]]:
    event = unit.stacks[stack]
    assert event.kind == lib.MW_STACK_PYTHON
    assert not event.truncated
    found = []
    for i in range(event.frame_count):
        frame = resolver.resolve(event.words[2 * i], event.words[2 * i + 1])
        assert not frame.is_dead
        found.append([frame.function, frame.file, frame.line])
    return found


@pytest.mark.parametrize("way", BEST_WAYS, ids=str)
@on_every_python
def test_every_frame_of_every_thread_is_what_the_interpreter_says(python, way, start_python):
    target = start_python(python, "python_stacks")
    runtime = find_runtime(target.pid)
    unit = AllocUnderTest(way, target.pid, [libc_malloc(target.pid)])
    try:
        introduce(unit, runtime)
        unit.aim(target.pid, STACKS)
        target.tell("go")
        truth = {}
        for _ in range(THREADS):
            line = target.line()
            unit.drain()
            _, native, stacks = line.split(" ", 2)
            truth[int(native)] = json.loads(stacks)
        target.expect("done")
        unit.drain()
        counts = unit.counts()
        assert not counts["dropped_blocks_total"]
        assert not counts["dropped_stacks_total"]
        assert not counts["unreadable_total"]
        resolver = FrameResolver(runtime)
        for tid, stacks in truth.items():
            events = [e for e in unit.blocks if e.tid == tid and e.size_bytes == SIZE]
            assert all(event.python_stack for event in events)
            found = [frames_of(unit, resolver, event.python_stack) for event in events]
            assert found == stacks
        assert sum(map(len, truth.values())) == THREADS * 20 * 4
        # All code objects live on and are still what they were.
        assert resolver.revalidate() == 0
        assert resolver.dead_codes_total == 0
    finally:
        unit.close()


# Not the system's Python: link-time optimisation made its own calls pass by the exported functions,
# so that only extension modules would be seen.
@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("python", list(filter(calls_its_own_exports, interpreters())), ids=label)
def test_each_block_is_charged_once_to_the_domain_that_asked(python, way, start_python):
    target = start_python(python, "python_stacks")
    pid = target.pid
    runtime = find_runtime(pid)
    probes = [probe(pid, libc(pid), symbol, *how) for symbol, how in LIBC.items()]
    for family, (layer, domain) in FAMILIES.items():
        for name, call in CALLS.items():
            probes.append(probe(pid, runtime.image, family + name, call, layer, domain))
    unit = AllocUnderTest(way, pid, probes)
    try:
        unit.aim(pid, lib.MW_TARGET_LAYERED | lib.MW_TARGET_FREES)
        target.tell("go")
        for _ in range(THREADS):
            target.line()
            unit.drain()
        target.expect("done")
        unit.drain()
        counts = unit.counts()
        # Four threads at once fill the ring at times: what is lost is counted, not missed.
        domains = Counter(
            event.domain
            for event in unit.blocks
            if event.size_bytes == SIZE and event.kind == lib.MW_BLOCK_ALLOC
        )
        made = THREADS * 20 * 2
        lost = counts["dropped_blocks_total"]
        # From 3.13 on a bytearray's memory is PyMem's.
        asked = lib.MW_DOMAIN_PY_OBJECT
        if runtime.version >= (3, 13):
            asked = lib.MW_DOMAIN_PY_MEM
        assert set(domains) == {asked, lib.MW_DOMAIN_NATIVE}
        assert made - lost <= domains[asked] <= made
        assert made - lost <= domains[lib.MW_DOMAIN_NATIVE] <= made
        assert counts["nested_total"] >= domains[asked]
        assert counts["hits_total"] == outcomes(counts)
        assert not counts["abandoned_total"]
        assert not counts["untracked_total"]
    finally:
        unit.close()


# Calls to what CPython exports, as extension modules make them; 23 of each.
EXPORTED = f"""
import ctypes, sys
print("ready", flush=True)
sys.stdin.readline()
for library, name in [(ctypes.pythonapi, "PyObject_Malloc"), (ctypes.pythonapi, "PyMem_Malloc"),
                      (ctypes.pythonapi, "PyMem_RawMalloc"), (ctypes.CDLL(None), "malloc")]:
    function = getattr(library, name)
    for _ in range(23):
        function(ctypes.c_size_t({SIZE}))
print("done", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("way", BEST_WAYS, ids=str)
@on_every_python
def test_a_block_is_charged_to_the_exported_function_that_was_called(python, way):
    target = Target([python, "-c", EXPORTED])
    unit = None
    try:
        target.expect("ready")
        pid = target.pid
        runtime = find_runtime(pid)
        probes = [libc_malloc(pid)]
        for family, (layer, domain) in FAMILIES.items():
            call = CALLS["Malloc"]
            probes.append(probe(pid, runtime.image, family + "Malloc", call, layer, domain))
        unit = AllocUnderTest(way, pid, probes)
        unit.aim(pid, lib.MW_TARGET_LAYERED)
        target.ask("go")
        unit.drain()
        assert not unit.counts()["dropped_blocks_total"]
        domains = Counter(event.domain for event in unit.blocks if event.size_bytes == SIZE)
        asked = [domain for _, domain in FAMILIES.values()]
        assert domains == dict.fromkeys([*asked, lib.MW_DOMAIN_NATIVE], 23)
    finally:
        if unit:
            unit.close()
        target.stop()


@pytest.mark.parametrize("way", BEST_WAYS, ids=str)
def test_a_thread_that_nobody_introduced_is_asked_for(way, start_python):
    target = start_python("/usr/bin/python3", "python_stacks")
    runtime = find_runtime(target.pid)
    unit = AllocUnderTest(way, target.pid, [libc_malloc(target.pid)])
    try:
        introduce(unit, runtime, threads=False)
        unit.aim(target.pid, STACKS)
        target.tell("go")
        for _ in range(THREADS):
            target.line()
        target.expect("done")
        unit.drain()
        # Threads that gave the lock away while another one took it; one request a second.
        if unit.counts()["threadless_total"]:
            assert unit.threads
        for event in unit.threads:
            assert event.pid == target.pid
            assert event.thread_pointer
    finally:
        unit.close()


def test_a_process_without_python_is_said_to_be_one(start_target):
    target = start_target("allocations")
    with pytest.raises(NoPython):
        find_runtime(target.pid)


@pytest.mark.parametrize("engine", ENGINES)
@on_every_python
def test_growth_sampling_names_the_line_that_leaks(python, engine, start_python):
    target = start_python(python, "python_leak")
    runtime = find_runtime(target.pid)
    unit = TracingUnit(engine, "growth")
    try:
        programs = unit.loaded.programs
        unit.hold(lib.mw_link_raw_tracepoint(programs["page_fault"], b"page_fault_user"))
        unit.hold(
            lib.mw_link_tracepoint(programs["growth_mmap_return"], b"syscalls", b"sys_exit_mmap")
        )
        introduce(unit, runtime)
        unit.aim(target.pid, STACKS, interval_faults=2, interval_maps=1)
        leaked = 0
        for _ in range(20):
            target.ask("2000")
            unit.drain()
            leaked += 2000 * 336  # as pymalloc rounds 333
        resolver = FrameResolver(runtime)
        weights: Counter[str] = Counter()
        for event in unit.blocks:
            assert event.kind == lib.MW_BLOCK_GROWTH
            if not event.flags & lib.MW_BLOCK_MAPPED and event.python_stack:
                leaf = frames_of(unit, resolver, event.python_stack)[0]
                weights[str(leaf[0])] += event.weight_bytes
        total = sum(weights.values())
        assert weights["leak"] > 0.97 * total
        # One of two faults was drawn, each standing for two: six deviations of that, and 6% for
        # the list that holds the blocks and for what pools leave over.
        pages = leaked / 4096
        assert weights["leak"] == pytest.approx(leaked, rel=6 / pages**0.5 + 0.06)
    finally:
        unit.close()
