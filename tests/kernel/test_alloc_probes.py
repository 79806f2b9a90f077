"""What the allocation probes tell, against a program that allocates exactly what it is told."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from alloc_under_test import (
    BEST_WAYS,
    ENGINES,
    LIBC,
    WAYS,
    AllocUnderTest,
    Probe,
    TracingUnit,
    Way,
    file_place,
    outcomes,
)
from target import Target

from mwtrace.capi import lib

pytestmark = pytest.mark.kernel

LEAKS = 23
FIRST_SIZE = 1000  # of tests/targets/allocations.c
FREES = lib.MW_TARGET_FREES
LAYERED = lib.MW_TARGET_LAYERED

Attach = Callable[..., AllocUnderTest]


def probe(target: Target, symbol: str, call: int, layer: int = 0, **more: int) -> Probe:
    target.tell(f"where {symbol}")
    path, offset = file_place(target.pid, int(target.line(), 16))
    return Probe(path, offset, call, layer, **more)


@pytest.fixture
def target(start_target: Callable[..., Target]) -> Target:
    return start_target("allocations")


@pytest.fixture
def attach(target: Target) -> Iterator[Attach]:
    """Return a function that probes functions of libc, and others if given, in the target."""
    attached = []

    def attach_to(way: Way, *symbols: str, others: tuple[Probe, ...] = ()) -> AllocUnderTest:
        probes = [probe(target, symbol, *LIBC[symbol]) for symbol in symbols]
        under_test = AllocUnderTest(way, target.pid, [*probes, *others])
        attached.append(under_test)
        return under_test

    yield attach_to
    for under_test in attached:
        under_test.close()


def live_sizes(blocks: list[Any]) -> list[int]:
    """Return the sizes of the blocks that the events leave alive, sorted."""
    live: dict[int, tuple[int, int]] = {}
    for event in blocks:
        if event.kind == lib.MW_BLOCK_ALLOC:
            assert event.address not in live
            live[event.address] = (event.time_ns, event.size_bytes)
        elif event.address in live and live[event.address][0] <= event.time_ns:
            del live[event.address]
    return sorted(size for _, size in live.values())


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("call", [*(call for call in LIBC if call != "free"), "_Znwm"])
def test_23_leaked_blocks_are_23_live_blocks_of_the_right_sizes(way, call, target, attach):
    new = probe(target, "_Znwm", lib.MW_CALL_MALLOC, 3)
    under_test = attach(way, *LIBC, others=(new,))
    under_test.aim(target.pid, FREES | LAYERED)
    target.ask(f"leak {call} {LEAKS}")
    under_test.drain()
    assert live_sizes(under_test.blocks) == [FIRST_SIZE + i for i in range(LEAKS)]
    for event in under_test.blocks:
        assert event.pid == event.tid == target.pid
        assert event.weight_bytes == event.size_bytes
        assert event.domain == lib.MW_DOMAIN_NATIVE
        assert event.flags & lib.MW_BLOCK_EXACT
    counts = under_test.counts()
    assert counts["blocks_total"] == LEAKS
    assert counts["hits_total"] == outcomes(counts)


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("flags", [0, LAYERED])
def test_every_one_of_200000_pairs_is_accounted_for(way, flags, target, attach):
    pairs = 200_000
    under_test = attach(way, "malloc", "free")
    under_test.aim(target.pid, FREES | flags)
    target.tell(f"pairs {pairs} 48")
    under_test.drain()  # some come through; the rest fills the ring, and is counted
    target.expect("done")
    under_test.drain()
    counts = under_test.counts()
    allocs = [event for event in under_test.blocks if event.kind == lib.MW_BLOCK_ALLOC]
    assert len(allocs) == counts["blocks_total"]
    assert len(under_test.blocks) - len(allocs) == counts["frees_total"]
    not_told = counts["dropped_blocks_total"] + counts["untracked_total"]
    assert len(allocs) + not_told == pairs
    assert counts["frees_total"] + counts["dropped_frees_total"] == pairs
    assert counts["hits_total"] == outcomes(counts) == 2 * pairs


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_realloc_frees_the_old_block_unless_it_fails(way, target, attach):
    under_test = attach(way, "malloc", "realloc", "free")
    under_test.aim(target.pid, FREES | LAYERED)
    target.tell("move")
    small, large, nothing = (int(word, 16) for word in target.line().split())
    assert nothing == 0
    found = [(event.kind, event.address, event.size_bytes) for event in under_test.drain()]
    assert found == [
        (lib.MW_BLOCK_ALLOC, small, 100),
        (lib.MW_BLOCK_FREE, small, 0),
        (lib.MW_BLOCK_ALLOC, large, 1 << 20),
        (lib.MW_BLOCK_FREE, large, 0),
    ]
    counts = under_test.counts()
    assert counts["failed_total"] == 2  # the one too large, and the one of 0 bytes
    assert counts["hits_total"] == outcomes(counts)


@pytest.mark.parametrize("way", BEST_WAYS, ids=str)
def test_a_failed_realloc_keeps_a_sampled_block(way, target, attach):
    under_test = attach(way, "malloc", "realloc", "free")
    # So short a distance samples every block.
    under_test.aim(target.pid, FREES | LAYERED, interval_bytes=1)
    target.tell("move")
    target.line()
    kinds = [event.kind for event in under_test.drain()]
    # The second free can only be told if the failed realloc put the block back.
    assert kinds.count(lib.MW_BLOCK_FREE) == 2


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_calls_that_fail_or_overflow_give_no_block(way, target, attach):
    under_test = attach(way, *LIBC)
    under_test.aim(target.pid, FREES | LAYERED)
    target.ask("fail")
    assert under_test.drain() == []
    counts = under_test.counts()
    assert counts["failed_total"] == 6
    assert counts["hits_total"] == outcomes(counts)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_nested_calls_are_charged_once_to_the_outermost_domain(way, target, attach):
    upper = probe(target, "layered_malloc", lib.MW_CALL_MALLOC, 7, domain=lib.MW_DOMAIN_PY_OBJECT)
    under_test = attach(way, "malloc", "free", others=(upper,))
    under_test.aim(target.pid, FREES | LAYERED)
    target.ask(f"layered {LEAKS}")
    target.ask(f"leak malloc {LEAKS}")
    domains = [event.domain for event in under_test.drain()]
    assert domains == [lib.MW_DOMAIN_PY_OBJECT] * LEAKS + [lib.MW_DOMAIN_NATIVE] * LEAKS
    counts = under_test.counts()
    assert counts["nested_total"] == LEAKS
    assert counts["hits_total"] == outcomes(counts)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_call_that_an_exception_leaves_does_not_hide_those_behind_it(way, target, attach):
    upper = probe(target, "layered_malloc", lib.MW_CALL_MALLOC, 7)
    under_test = attach(way, "malloc", "free", others=(upper,))
    under_test.aim(target.pid, FREES | LAYERED)
    target.ask("layered 1")
    target.ask(f"escape {LEAKS}")
    target.ask(f"leak malloc {LEAKS}")
    target.ask("pairs 100 48")
    under_test.drain()
    counts = under_test.counts()
    assert live_sizes(under_test.blocks) == sorted([1000, *range(1000, 1000 + LEAKS)])
    assert counts["abandoned_total"] == LEAKS
    assert counts["nested_total"] == 1 + LEAKS
    assert counts["hits_total"] == outcomes(counts)


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(("size", "interval"), [(64, 4096), (5000, 4096), (4096, 4096)])
def test_sampled_sums_are_unbiased(way, size, interval, target, attach):
    count = 60_000 if size < interval else 6_000
    under_test = attach(way, "malloc", "free")
    under_test.aim(target.pid, FREES, interval_bytes=interval)
    target.ask(f"churn {count} {size}")
    under_test.drain()
    counts = under_test.counts()
    assert not counts["dropped_blocks_total"]
    allocs = [event for event in under_test.blocks if event.kind == lib.MW_BLOCK_ALLOC]
    chance = -math.expm1(-size / interval)
    # A binomial count, six standard deviations wide: one wrong alarm in 10^9.
    deviation = math.sqrt(count * chance * (1 - chance))
    assert abs(len(allocs) - count * chance) < 6 * deviation
    for event in allocs:
        # The fixed-point arithmetic of sampling.bpf.h promises 1e-4; bytes are whole.
        assert event.weight_bytes == pytest.approx(size / chance, rel=1e-4, abs=1)
        assert event.size_bytes == size
    # Every sampled block was freed, and every such free is told, none other.
    assert live_sizes(under_test.blocks) == []
    assert counts["frees_total"] == len(allocs)
    assert counts["unwatched_frees_total"] == count - len(allocs)
    assert counts["unsampled_total"] == count - len(allocs)
    if way.kind == "session":
        assert counts["returns_total"] == len(allocs)


@pytest.mark.parametrize("way", BEST_WAYS, ids=str)
def test_nothing_is_told_of_a_target_that_was_stopped(way, target, attach):
    under_test = attach(way, "malloc", "free")
    under_test.aim(target.pid, FREES | lib.MW_TARGET_STOPPED)
    target.ask("pairs 100 48")
    assert under_test.drain() == []
    looked_at = 200 if way.kind == "session" else 300  # a session's returns are not
    assert under_test.counts() == {"stopped_hits_total": looked_at}


@pytest.mark.parametrize("way", BEST_WAYS, ids=str)
def test_frees_are_counted_where_they_are_not_wanted(way, target, attach):
    under_test = attach(way, "malloc", "free")
    under_test.aim(target.pid)
    target.ask("pairs 100 48")
    assert {event.kind for event in under_test.drain()} == {lib.MW_BLOCK_ALLOC}
    assert under_test.counts()["unwatched_frees_total"] == 100


@pytest.mark.parametrize("way", BEST_WAYS, ids=str)
def test_the_native_stack_is_sent_once_before_its_events_and_its_leaf_is_the_caller(
    way, target, attach
):
    under_test = attach(way, "malloc", "free")
    under_test.aim(target.pid, FREES | lib.MW_TARGET_NATIVE_STACKS)
    target.ask("pairs 100 48")
    events = under_test.drain()
    names = {event.native_stack for event in events if event.kind == lib.MW_BLOCK_ALLOC}
    assert len(names) == 1
    stack = under_test.stacks[names.pop()]
    assert under_test.counts()["stacks_total"] == 1
    assert stack.kind == lib.MW_STACK_NATIVE
    assert file_place(target.pid, stack.words[0])[0] == file_place(target.pid, where(target))[0]


def where(target: Target) -> int:
    """Return the address of a function of the target's own program."""
    target.tell("where layered_malloc")
    return int(target.line(), 16)


@pytest.fixture(params=ENGINES)
def maps_unit(request: pytest.FixtureRequest) -> Iterator[TracingUnit]:
    unit = TracingUnit(request.param, "maps")
    for name, program in unit.loaded.programs.items():
        call, _, moment = name.partition("_")
        tracepoint = f"sys_{'enter' if moment == 'enter' else 'exit'}_{call}"
        unit.hold(lib.mw_link_tracepoint(program, b"syscalls", tracepoint.encode()))
    yield unit
    unit.close()


def test_mappings_are_told_and_refused_calls_are_not(target, maps_unit):
    page = 4096
    maps_unit.aim(target.pid, lib.MW_TARGET_MAPS)
    target.tell("map")
    place, moved = (int(word, 16) for word in target.line().split())
    found = [(event.kind, event.address, event.size_bytes) for event in maps_unit.drain()]
    assert found == [
        (lib.MW_BLOCK_MAP, place, 8 * page),
        (lib.MW_BLOCK_UNMAP, place + page, 2 * page),
        (lib.MW_BLOCK_UNMAP, place + 3 * page, 5 * page),
        (lib.MW_BLOCK_MAP, moved, 64 * page),
    ]


def test_the_heap_s_end_is_told_up_and_down(target, maps_unit):
    page = 4096
    maps_unit.aim(target.pid, lib.MW_TARGET_MAPS)
    target.tell("heap")
    end = -(-int(target.line(), 16) // page) * page
    found = [(e.kind, e.flags, e.address, e.size_bytes) for e in maps_unit.drain()]
    heap = lib.MW_BLOCK_EXACT | lib.MW_BLOCK_HEAP
    assert found == [
        (lib.MW_BLOCK_MAP, heap, end, 6 * page),
        (lib.MW_BLOCK_UNMAP, heap, end + 4 * page, 2 * page),
    ]
