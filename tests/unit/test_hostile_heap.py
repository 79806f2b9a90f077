"""Heaps that lie: whatever is in them, readers end, stay in their own memory and invent nothing.

`make asan` runs this with AddressSanitizer, which is what sees a pointer followed too far.
"""

from __future__ import annotations

import random
import struct
import time

import pytest
from heap_image import BASE, PAGE, HeapImage, Regions, census_totals
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mwtrace.capi import ffi, lib

WRITABLE = lib.MW_MAPPING_READ | lib.MW_MAPPING_WRITE
GENTLE = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def run_holders(regions, interpreter, wanted):
    opened = ffi.new("struct mw_holders **")
    assert lib.mw_holders_open(regions, interpreter, wanted, 100, ffi.NULL, opened) == 0
    pointer, objects = ffi.new("uint64_t **"), ffi.new("uint64_t *")
    count = lib.mw_holders_samples(opened[0], pointer, objects)
    targets = [pointer[0][i] for i in range(count)] or [BASE + PAGE]
    refs, found = ffi.new("struct mw_reference **"), ffi.new("uint32_t *")
    array = ffi.new("uint64_t[]", targets)
    assert lib.mw_holders_search(opened[0], array, len(targets), ffi.NULL, refs, found) == 0
    hows = [int(refs[0][i].how) for i in range(found[0])]
    buffer = ffi.new("char[64]")
    for address in targets[:5]:
        lib.mw_holders_label(opened[0], address, buffer, 64)
        lib.mw_holders_type_file(opened[0], address, buffer, 64)
    lib.mw_holders_close(opened[0])
    return targets, hows


def test_objects_that_are_well_formed_are_counted():
    image = HeapImage()
    at = image.free
    for i in range(23):
        image.put(at + 64 * i, 1, image.types["app.Plain"])
    image.put(at + 4096, 1, image.types["int"], 1, 7)
    with image.regions() as regions:
        totals, rows = census_totals(regions, image.interpreter())
    assert rows["app.Plain"] == (23, 23 * 32)
    assert rows["int"] == (1, 28)
    assert totals["stopped"] == 0


def test_freed_blocks_and_foreign_words_are_not_counted():
    image = HeapImage()
    image.put(image.free, 0, image.types["app.Plain"])  # no reference count
    image.put(image.free + 64, BASE + 8192, image.types["app.Plain"])  # a free list's link
    image.put(image.free + 128, 1, BASE + 64)  # what it points to is no type
    image.put(image.free + 192, 1, 0x7FFFFFFFF000)  # not mapped
    with image.regions() as regions:
        _, rows = census_totals(regions, image.interpreter())
    assert "app.Plain" not in rows


@pytest.mark.parametrize("name", ["int", "str", "bytes", "tuple", "list", "set", "dict"])
@pytest.mark.parametrize("size", [-1, 1 << 62, (1 << 63) - 1, 1 << 36, 1 << 26])
def test_sizes_beyond_the_mapping_are_refused(name, size):
    image = HeapImage()
    image.put(image.free + 64, 1, image.types[name], size, size, size, size, size)
    with image.regions() as regions:
        totals, rows = census_totals(regions, image.interpreter())
    assert rows.get(name, (0, 0))[1] <= len(image.memory)


def test_an_object_at_the_very_end_is_read_within_bounds():
    for back in (16, 24, 32, 40, 48, 64):
        image = HeapImage()
        for name in image.types:
            memory = bytearray(image.memory)
            struct.pack_into("<QQ", memory, len(memory) - back, 1, image.types[name])
            with Regions([(BASE, bytes(memory), WRITABLE)]) as regions:
                census_totals(regions, image.interpreter())
                run_holders(regions, image.interpreter(), image.types[name])


def test_a_deque_whose_links_run_in_a_circle_ends():
    image = HeapImage()
    at, target = image.free, image.free + 8192
    image.put(target, 1, image.types["app.Plain"])
    # two blocks that name each other as left and right, and no deque that owns them
    image.put(at, image.address(at + 1024), image.address(target))
    image.put(at + 520, image.address(at + 1024))
    image.put(at + 1024, image.address(at))
    image.put(at + 1024 + 520, image.address(at))
    with image.regions() as regions:
        began = time.monotonic()
        targets, hows = run_holders(regions, image.interpreter(), image.types["app.Plain"])
        assert time.monotonic() - began < 5
    assert image.address(target) in targets
    assert hows == [lib.MW_BY_RAW]


def test_types_beyond_the_table_share_a_row_and_are_counted():
    pages = 64 + (70_000 * 256) // PAGE
    image = HeapImage(pages)
    at = image.free
    name = image.types["app.Plain"] + 512
    for i in range(70_000):
        offset = at + 256 * i
        if offset + 256 > len(image.memory):
            break
        # a type needs 416 bytes, which overlap the next one's: only what is checked matters
        image.put(offset, 1, image.type_type, 0, name, 32, 0)
        image.put(offset + 168, 1 << 12)
        image.put(offset + 208, 1, image.address(offset))
    with image.regions() as regions:
        totals, rows = census_totals(regions, image.interpreter())
    assert totals["types"] <= (1 << 16) + 1
    assert totals["objects"] > 70_000


@GENTLE
@given(st.data())
def test_damaged_heaps_end_and_stay_in_bounds(data):
    """Words near to the truth: types, addresses, small numbers, extremes, in random places."""
    image = HeapImage(24)
    seed = data.draw(st.integers(0, 2**32))
    chance = random.Random(seed)
    types = list(image.types.values())
    end = BASE + len(image.memory)
    words = [0, 1, 2, 3, 7, 8, 40, 64, 255, 1 << 16, 1 << 32, (1 << 64) - 1, 1 << 47, end, end - 8]
    for offset in range(image.free, len(image.memory), 16):
        kind = chance.random()
        if kind < 0.4:
            image.put(offset, chance.choice([1, 2, 3, 1 << 30]), chance.choice(types))
        elif kind < 0.7:
            image.put(offset, BASE + chance.randrange(0, len(image.memory), 8))
            image.put(offset + 8, chance.choice(words))
        else:
            image.put(offset, chance.choice(words), chance.choice(words))
    for _ in range(data.draw(st.integers(0, 40))):  # the types are damaged too
        image.put(chance.randrange(0, image.free, 8), chance.choice(words))
    with image.regions() as regions:
        totals, _ = census_totals(regions, image.interpreter())
        assert totals["objects"] <= len(image.memory) // 16
        run_holders(regions, image.interpreter(), chance.choice(types))


@GENTLE
@given(st.binary(min_size=0, max_size=2 * PAGE), st.integers(0, 2**32))
def test_random_bytes_end_and_stay_in_bounds(noise, seed):
    image = HeapImage(24)
    chance = random.Random(seed)
    start = chance.randrange(image.free, len(image.memory) - len(noise), 8)
    image.memory[start : start + len(noise)] = noise
    with image.regions() as regions:
        census_totals(regions, image.interpreter())
        run_holders(regions, image.interpreter(), image.types["app.Plain"])


# ---- malloc


STATE = 0x7F1000000000
HEAP = 0x555500000000
TOP, BINS, NEXT, SYSTEM = 96, 112, 2160, 2184


def malloc_pieces(chance=None):
    """A main_arena with empty bins and a heap of 256 chunks; damaged if chance is given."""
    libc, heap = bytearray(4 * PAGE), bytearray(8 * PAGE)
    state = STATE + 512

    def put(memory, offset, word):
        struct.pack_into("<Q", memory, offset, word & (1 << 64) - 1)

    for i in range(127):
        for word in range(2):
            put(libc, 512 + BINS + 16 * i + 8 * word, state + BINS + 16 * i - 16)
    size, count = 64, 256
    for i in range(count):
        put(heap, size * i + 8, size | 1)
    put(heap, size * count + 8, (len(heap) - size * count) | 1)
    put(libc, 512 + TOP, HEAP + size * count)
    put(libc, 512 + NEXT, state)
    put(libc, 512 + SYSTEM, len(heap))
    put(libc, 512 + SYSTEM - 8, 1)
    put(libc, 512 + SYSTEM + 8, len(heap))
    if chance:
        extremes = [
            0,
            1,
            state,
            HEAP,
            HEAP + 16,
            HEAP + len(heap),
            1 << 47,
            (1 << 64) - 1,
            0x21,
            0x291,
        ]
        for _ in range(chance.randrange(1, 60)):
            memory = chance.choice([libc, heap, heap])
            put(memory, chance.randrange(0, len(memory), 8), chance.choice(extremes))
    return [
        (HEAP, bytes(heap), WRITABLE | lib.MW_MAPPING_HEAP),
        (STATE, bytes(libc), WRITABLE | lib.MW_MAPPING_FILE),
    ]


def read_arenas(regions):
    read = ffi.new("struct mw_arenas **")
    rc = lib.mw_arenas_read(regions, STATE, STATE + 4 * PAGE, ffi.NULL, read)
    if rc:
        return rc, None
    totals = ffi.new("struct mw_arenas_totals *")
    lib.mw_arenas_get_totals(read[0], totals)
    values = {field: getattr(totals, field) for field, _ in ffi.typeof(totals).item.fields}
    lib.mw_arenas_destroy(read[0])
    return rc, values


def test_an_arena_is_recognised_by_its_own_structure():
    with Regions(malloc_pieces()) as regions:
        rc, totals = read_arenas(regions)
    assert rc == 0
    assert totals["system_bytes"] == 8 * PAGE
    assert totals["in_use_bytes"] == 256 * 64
    assert totals["state_offset"] == BINS


def test_a_heap_that_has_grown_since_is_told_as_it_was():
    (heap_at, heap, heap_flags), (libc_at, libc, libc_flags) = malloc_pieces()
    libc = bytearray(libc)
    struct.pack_into("<Q", libc, 512 + TOP, HEAP + 64 * PAGE)  # behind the end that we know
    struct.pack_into("<QQ", libc, 512 + SYSTEM, 65 * PAGE, 65 * PAGE)
    pieces = [(heap_at, heap, heap_flags), (libc_at, bytes(libc), libc_flags)]
    with Regions(pieces) as regions:
        rc, totals = read_arenas(regions)
    assert rc == 0
    assert totals["system_bytes"] == 8 * PAGE


@GENTLE
@given(st.integers(0, 2**32))
def test_damaged_arenas_end_and_stay_in_bounds(seed):
    with Regions(malloc_pieces(random.Random(seed))) as regions:
        _, totals = read_arenas(regions)
    if totals:
        assert totals["in_use_bytes"] <= totals["system_bytes"]
