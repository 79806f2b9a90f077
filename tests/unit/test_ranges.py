"""The set of ranged blocks, against a dictionary of pages."""

from __future__ import annotations

import errno
import random

import pytest
from block_oracle import Pages

from mwtrace.capi import ffi, lib

PAGE = 4096
ALWAYS = 2**64 - 1


@pytest.fixture
def make_ranges():
    def make(ranges_max):
        ranges = lib.mw_ranges_create(ranges_max)
        assert ranges
        return ffi.gc(ranges, lib.mw_ranges_destroy)

    return make


def add(ranges, address, size_bytes, pid=1, site=1, time_ns=0, weight_bytes=None):
    weight_bytes = size_bytes if weight_bytes is None else weight_bytes
    values = (address, size_bytes, weight_bytes, time_ns, pid, site)
    return lib.mw_ranges_add(ranges, ffi.new("struct mw_range *", values))


def cut(ranges, address, size_bytes, pid=1, time_ns=ALWAYS, count=4):
    """All parts that a cut takes out, however many calls that takes."""
    parts, found = ffi.new("struct mw_range[]", count), []
    while got := lib.mw_ranges_cut(ranges, pid, address, size_bytes, time_ns, parts, count):
        found += [(p.address, p.size_bytes, p.weight_bytes, p.site) for p in parts[0:got]]
    return found


def copy(ranges, pid=1):
    parts = ffi.new("struct mw_range[]", 4096)
    count = lib.mw_ranges_copy(ranges, pid, 0, parts, 4096)
    return [(p.address, p.size_bytes, p.weight_bytes, p.site) for p in parts[0:count]]


def test_random_maps_and_unmaps_agree_with_pages():
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    ranges = ffi.gc(lib.mw_ranges_create(4000), lib.mw_ranges_destroy)
    oracle, weight = Pages(), 0
    for step in range(100, 3000):
        pid, first, count = rng.choice([1, 2]), rng.randrange(1, 300), rng.randrange(1, 40)
        time_ns = step - rng.choice([0, 0, 0, 30])
        gone = cut(ranges, first * PAGE, count * PAGE, pid, time_ns, rng.choice([2, 3, 16]))
        expected = oracle.cut(pid, first, count, time_ns)
        assert sum(size for _, size, _, _ in gone) == len(expected) * PAGE
        weight -= sum(weight_bytes for _, _, weight_bytes, _ in gone)
        if rng.random() < 0.6:
            overlaps = any((pid, page) in oracle.live for page in range(first, first + count))
            result = add(ranges, first * PAGE, count * PAGE, pid, step, step, count * 3 + 1)
            assert result == (-errno.EINVAL if overlaps else 0)
            if not overlaps:
                oracle.add(pid, first, count, step, step)
                weight += count * 3 + 1
        if rng.random() < 0.005:
            left = copy(ranges, pid)
            weight -= sum(weight_bytes for _, _, weight_bytes, _ in left)
            assert lib.mw_ranges_forget(ranges, pid) == len(left)
            oracle.cut(pid, 0, 400, step)
    pages = {}
    for pid in (1, 2):
        for address, size_bytes, weight_bytes, site in copy(ranges, pid):
            weight -= weight_bytes
            for page in range(address // PAGE, (address + size_bytes) // PAGE):
                pages[pid, page] = site
    assert pages == {key: site for key, (_, site) in oracle.live.items()}
    assert weight == 0, "live and freed weight must add up to what was mapped"


@pytest.mark.parametrize(
    ("address", "size", "left"),
    [
        (10, 10, [(20, 20), (40, 60)]),  # before
        (20, 5, [(25, 15), (40, 60)]),  # head
        (30, 10, [(20, 10), (40, 60)]),  # tail
        (25, 5, [(20, 5), (30, 10), (40, 60)]),  # middle
        (30, 20, [(20, 10), (50, 50)]),  # across
        (0, 500, []),
        (100, 5, [(20, 20), (40, 60)]),  # behind
        (25, 0, [(20, 20), (40, 60)]),
    ],
)
def test_a_cut_leaves_what_it_does_not_cover(make_ranges, address, size, left):
    ranges = make_ranges(8)
    assert add(ranges, 20, 20) == 0
    assert add(ranges, 40, 60) == 0
    cut(ranges, address, size)
    assert [(start, length) for start, length, _, _ in copy(ranges)] == left


def test_a_rest_without_a_place_is_handed_out_too(make_ranges):
    ranges = make_ranges(1)
    assert add(ranges, 0x1000, 0x3000, weight_bytes=300) == 0
    assert cut(ranges, 0x2000, 0x1000) == [(0x2000, 0x1000, 100, 1), (0x3000, 0x1000, 100, 1)]
    assert copy(ranges) == [(0x1000, 0x1000, 100, 1)]


def test_a_full_set_refuses(make_ranges):
    ranges = make_ranges(2)
    assert [add(ranges, n * 16, 16) for n in (1, 2, 3)] == [0, 0, -errno.ENOSPC]
    assert lib.mw_ranges_count(ranges) == 2


def test_empty_wrapping_and_overlapping_ranges_are_refused(make_ranges):
    ranges = make_ranges(4)
    assert add(ranges, 16, 0) == -errno.EINVAL
    assert add(ranges, 2**64 - 16, 32) == -errno.EINVAL
    assert add(ranges, 32, 32) == 0
    for address in (16, 32, 48, 63):
        assert add(ranges, address, 17) == -errno.EINVAL


def test_a_cut_to_the_end_of_the_address_space_ends_there(make_ranges):
    ranges = make_ranges(4)
    add(ranges, 2**64 - 64, 32)
    assert len(cut(ranges, 16, 2**64 - 1)) == 1


def test_a_range_younger_than_the_cut_stays(make_ranges):
    ranges = make_ranges(4)
    add(ranges, 16, 16, time_ns=5)
    add(ranges, 32, 16, time_ns=9)
    add(ranges, 48, 16, time_ns=5)
    assert len(cut(ranges, 0, 100, time_ns=7)) == 2
    assert [address for address, _, _, _ in copy(ranges)] == [32]


def test_ascending_addresses_do_not_make_it_slow(make_ranges):
    """A tree that degenerates would need 2 x 10^10 steps and hit the deadline of the test run."""
    ranges = make_ranges(200_000)
    for number in range(1, 200_001):
        assert add(ranges, number * PAGE, PAGE) == 0
    assert lib.mw_ranges_forget(ranges, 1) == 200_000


@pytest.mark.parametrize("ranges_max", [0, 2**32 - 1])
def test_an_impossible_bound_is_refused(ranges_max):
    assert not lib.mw_ranges_create(ranges_max)
