"""The table of simple blocks, against a dictionary."""

from __future__ import annotations

import errno
import os
import random
import resource

import pytest
from block_oracle import Block, Blocks

from mwtrace.capi import ffi, lib


@pytest.fixture
def make_live():
    def make(blocks_max):
        live = lib.mw_live_create(blocks_max)
        assert live
        return ffi.gc(live, lib.mw_live_destroy)

    return make


def block(pid, address, size_bytes=100, time_ns=1, site=1):
    return ffi.new(
        "struct mw_block *",
        {
            "pid": pid,
            "address": address,
            "size_bytes": size_bytes,
            "weight_bytes": size_bytes,
            "time_ns": time_ns,
            "site": site,
        },
    )


def walk(live, pid=0, since_ns=0, until_ns=2**64 - 1, chunk=7):
    cursor = ffi.new("uint32_t *")
    blocks = ffi.new("struct mw_block[]", chunk)
    found = []
    while count := lib.mw_live_walk(live, pid, since_ns, until_ns, cursor, blocks, chunk):
        found += [(b.pid, b.address, b.size_bytes, b.time_ns, b.site) for b in blocks[0:count]]
    return found


@pytest.mark.parametrize("blocks_max", [1, 8, 40, 500])
def test_random_operations_agree_with_a_dictionary(make_live, blocks_max):
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    live, oracle, out = make_live(blocks_max), Blocks(), ffi.new("struct mw_block *")
    for step in range(6000):
        # Few addresses, so that they collide, are freed and come again.
        pid, address = rng.choice([1, 2, 3]), rng.randrange(1, blocks_max * 2 + 2) * 16
        action = rng.random()
        if action < 0.55:
            known = oracle.live.get((pid, address))
            full = known is None and len(oracle.live) == blocks_max
            result = lib.mw_live_add(live, block(pid, address, step, step), out)
            assert result == (-errno.ENOSPC if full else 1 if known else 0)
            if known:
                assert (out.size_bytes, out.time_ns) == (known.size_bytes, known.time_ns)
            if not full:
                oracle.add(pid, address, Block(step, step, step, 1))
        elif action < 0.95:
            known = oracle.live.pop((pid, address), None)
            result = lib.mw_live_remove(live, pid, address, out)
            assert result == (0 if known else -errno.ENOENT)
            if known:
                assert out.time_ns == known.time_ns
        elif action < 0.96:
            assert lib.mw_live_forget(live, pid) == oracle.forget(pid)
        assert lib.mw_live_count(live) == len(oracle.live)
        if step % 500 == 0:
            for pid, address in oracle.live:
                assert lib.mw_live_find(live, pid, address)
    expected = sorted((p, a, b.size_bytes, b.time_ns, b.site) for (p, a), b in oracle.live.items())
    assert sorted(walk(live)) == expected


def test_a_block_at_a_known_address_counts_a_reuse(make_live):
    live, out = make_live(4), ffi.new("struct mw_block *")
    for time_ns in range(4):
        lib.mw_live_add(live, block(1, 16, time_ns=time_ns), out)
    assert lib.mw_live_find(live, 1, 16).reuses == 3
    lib.mw_live_remove(live, 1, 16, out)
    lib.mw_live_add(live, block(1, 16), out)
    assert lib.mw_live_find(live, 1, 16).reuses == 0


def test_the_walk_keeps_to_pid_and_time(make_live):
    live, out = make_live(100), ffi.new("struct mw_block *")
    for number in range(1, 50):
        lib.mw_live_add(live, block(number % 2 + 1, number * 16, time_ns=number), out)
    found = walk(live, pid=1, since_ns=10, until_ns=20, chunk=2)
    assert sorted(time_ns for _, _, _, time_ns, _ in found) == [10, 12, 14, 16, 18]


def test_the_same_address_in_two_processes_is_two_blocks(make_live):
    live, out = make_live(4), ffi.new("struct mw_block *")
    assert lib.mw_live_add(live, block(1, 16), out) == 0
    assert lib.mw_live_add(live, block(2, 16), out) == 0
    assert lib.mw_live_forget(live, 1) == 1
    assert not lib.mw_live_find(live, 1, 16)
    assert lib.mw_live_find(live, 2, 16)


def test_address_zero_is_no_block(make_live):
    live, out = make_live(4), ffi.new("struct mw_block *")
    assert lib.mw_live_add(live, block(1, 0), out) == -errno.ENOSPC
    assert lib.mw_live_remove(live, 1, 0, out) == -errno.ENOENT
    assert not lib.mw_live_find(live, 1, 0)


@pytest.mark.parametrize("blocks_max", [0, 2**32 - 1])
def test_an_impossible_bound_is_refused(blocks_max):
    assert not lib.mw_live_create(blocks_max)


@pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer keeps freed memory aside"
)
def test_create_and_destroy_ten_thousand_times_keeps_no_memory():
    def cycle():
        for _ in range(5000):
            lib.mw_live_destroy(lib.mw_live_create(64))

    cycle()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cycle()
    # One leaked table has 6 KiB; 5000 would be 30 MiB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1024
