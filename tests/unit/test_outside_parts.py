"""The outside writer's parts: the file that it packs, the addresses it knows, heaps that lie."""

from __future__ import annotations

import errno
import gzip
import os
import random
import struct
import tempfile
from pathlib import Path

import pytest
from graph_file import GraphFile
from heap_image import BASE, PAGE, HeapImage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mwtrace.capi import ffi, lib
from mwtrace.snapshot.inject import refusal
from mwtrace.snapshot.pack import Pack, Strings

GENTLE = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
HEAD = b"MWSNAP\x00\x01"


def written(image: HeapImage, path: Path) -> GraphFile:
    """Write an image as a snapshot and read it with the slow reader."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    opened, totals = ffi.new("struct mw_outside **"), ffi.new("struct mw_outside_totals *")
    name, address, basic = ffi.new("char[256]"), ffi.new("uint64_t *"), ffi.new("uint32_t *")
    with image.regions() as regions, Pack(descriptor, 0) as pack:
        pack.put(HEAD)
        pack.json(b"HEAD", {})
        assert lib.mw_outside_open(regions, image.interpreter(), 64, ffi.NULL, opened) == 0
        outside = opened[0]
        assert lib.mw_outside_write(outside, pack.c, ffi.NULL) == 0
        assert lib.mw_outside_write(outside, pack.c, ffi.NULL) == -errno.EPROTO
        lib.mw_outside_get_totals(outside, totals)
        found = ffi.new("uint64_t[64]")
        for place in (BASE, image.address(image.free), BASE + 8, 1 << 63):
            lib.mw_outside_referents(outside, place, found, 64)
            lib.mw_outside_local(outside, place, 1, name, 256)
        types = []
        while lib.mw_outside_type(outside, len(types), address, basic, name, 256):
            text = ffi.string(name).decode("utf-8", "replace")
            types.append([address[0], text, basic[0]])
        pack.json(b"TYPE", types)
        end = {"objects": totals.objects, "edges": totals.edges, "names": totals.names}
        pack.json(b"END ", end)
        pack.finish()
        lib.mw_outside_close(outside)
    os.close(descriptor)
    return GraphFile(path)


def test_a_list_and_its_items_are_objects_and_edges(tmp_path):
    image = HeapImage()
    at = image.free
    items = [image.address(at + 1024 + 64 * n) for n in range(5)]
    image.put(at, 7, image.types["list"], 4, image.address(at + 512), 8)
    image.put(at + 512, *items, 0, 0, 0)  # the fifth lies behind the end: it was left there
    for n in range(5):
        image.put(at + 1024 + 64 * n, 1, image.types["app.Plain"])
    file = written(image, tmp_path / "a")
    kind, size_bytes, references, referents = file.objects[image.address(at)]
    assert (kind, references, referents) == (image.types["list"], 7, items[:4])
    assert size_bytes == 40 + 16 + 8 * 8
    assert file.objects[items[0]][1:] == (32, 1, [])


def test_sizes_and_counts_that_do_not_fit_are_told_apart(tmp_path):
    image = HeapImage()
    at = image.free
    image.put(at, 1 << 31, image.types["app.Plain"])  # no count that anybody has
    image.put(at + 64, (1 << 31) - 1, image.types["app.Plain"])
    file = written(image, tmp_path / "a")
    assert image.address(at) not in file.objects
    assert file.objects[image.address(at + 64)][2] == (1 << 31) - 1


@GENTLE
@given(st.integers(0, 2**32), st.integers(0, 40))
def test_damaged_heaps_make_whole_files(seed, damages):
    """Words near to the truth in random places; the file keeps its form, whatever they say."""
    image, chance = HeapImage(24), random.Random(seed)
    types, end = list(image.types.values()), BASE + 24 * PAGE
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
    for _ in range(damages):
        image.put(chance.randrange(0, image.free, 8), chance.choice(words))
    with tempfile.TemporaryDirectory() as folder:
        file = written(image, Path(folder) / "a")
    assert len(file.objects) <= len(image.memory) // 16
    assert all(target in file.objects for row in file.objects.values() for target in row[3])


# ---- the file


@GENTLE
@given(st.lists(st.binary(max_size=3000), max_size=20), st.integers(1, 4))
def test_what_is_packed_is_what_was_put(pieces, times):
    with tempfile.TemporaryFile() as file:
        with Pack(file.fileno(), 0) as pack:
            for piece in pieces * times:
                pack.chunk(b"TEST", piece)
            pack.finish()
        file.seek(0)
        data = gzip.GzipFile(fileobj=file).read() if pieces else b""
    wanted = b"".join(struct.pack("<4sQ", b"TEST", len(p)) + p for p in pieces * times)
    assert data == wanted


def test_many_blocks_come_out_in_their_order(tmp_path):
    chance = random.Random(7)
    data = b"".join(
        struct.pack("<Q", n) * 1000 + chance.randbytes(chance.randrange(3000)) for n in range(997)
    )
    with open(tmp_path / "a", "wb") as file, Pack(file.fileno(), 0) as pack:
        for at in range(0, len(data), 77_777):
            pack.put(data[at : at + 77_777])
        pack.finish()
        assert pack.sizes() == (len(data), (tmp_path / "a").stat().st_size)
    assert gzip.decompress((tmp_path / "a").read_bytes()) == data


def test_a_chunk_holds_what_was_announced_no_more_and_no_less(tmp_path):
    with open(tmp_path / "a", "wb") as file, Pack(file.fileno(), 0) as pack:
        assert lib.mw_pack_begin(pack.c, b"TEST", 4) == 0
        assert lib.mw_pack_put(pack.c, b"12345", 5) == -errno.EPROTO
        assert lib.mw_pack_finish(pack.c) == -errno.EPROTO
        assert lib.mw_pack_begin(pack.c, b"TEST", 4) == -errno.EPROTO
        assert lib.mw_pack_put(pack.c, b"1234", 4) == 0
        pack.finish()
        assert lib.mw_pack_put(pack.c, b"1", 1) == -errno.EPROTO


def test_a_full_disk_ends_the_stream_and_nothing_waits_for_ever():
    with open("/dev/full", "wb", buffering=0) as file, Pack(file.fileno(), 0) as pack:
        with pytest.raises(OSError, match="No space"):
            pack.put(os.urandom(64 << 20))


def test_texts_are_numbered_on_from_those_of_c(tmp_path):
    with open(tmp_path / "a", "wb") as file, Pack(file.fileno(), 0) as pack:
        strings = Strings(pack, 40)
        assert [strings.number(text) for text in ("a", "b", "a")] == [40, 41, 40]
        strings.flush()
        strings.flush()
        pack.finish()
    assert gzip.decompress((tmp_path / "a").read_bytes()).endswith(b'["a", "b"]')


# ---- what is never injected into


@pytest.mark.parametrize(
    ("pid", "status", "trusts_filter", "why"),
    [
        (7, {}, False, ""),
        (4711, {}, False, "itself"),
        (1, {}, False, "first process"),
        (7, {b"State": b"Z (zombie)"}, False, "ended"),
        (7, {b"State": b"T (stopped)"}, False, "stopped"),
        (7, {b"State": b"t (tracing stop)"}, False, "stopped"),
        (7, {b"VmSize": None}, False, "no memory"),
        (7, {b"TracerPid": b"12"}, False, "process 12 traces"),
        (7, {b"Seccomp": b"2"}, False, "seccomp"),
        (7, {b"Seccomp": b"2"}, True, ""),
        (7, {b"Seccomp": b"1"}, True, "seccomp"),
    ],
)
def test_what_is_not_to_be_injected_into_is_refused_with_the_reason(
    pid, status, trusts_filter, why
):
    fields = {b"State": b"S (sleeping)", b"VmSize": b"9 kB", b"TracerPid": b"0", b"Seccomp": b"0"}
    fields.update(status)
    fields = {name: value for name, value in fields.items() if value is not None}
    said = refusal(pid, 4711, fields, trusts_filter)
    assert (why in said) if why else not said
