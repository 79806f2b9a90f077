"""Snapshot files, whole and not: what was written comes back, all else is a clear error."""

from __future__ import annotations

import gzip
import json
import os
import random
import struct
import subprocess
import sys

import pytest
import snapshots

from mwtrace.errors import ConfigError, SnapshotError
from mwtrace.snapshot.analysis import analyze
from mwtrace.snapshot.format import MAGIC, EdgeKind, RootKind, Row, Writer, read_chunks
from mwtrace.snapshot.loading import load, load_objects


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack("<4sQ", kind, len(data)) + data


def made(path, *chunks: bytes, end: bool = True):
    """A file of chunks by hand, after a header."""
    parts = [MAGIC, b"\1", chunk(b"HEAD", b"{}"), *chunks]
    path.write_bytes(gzip.compress(b"".join([*parts, chunk(b"END ", b"{}") if end else b""])))
    return path


def test_what_was_written_comes_back(tmp_path):
    path = tmp_path / "a.mwsnap"
    with Writer(path, {"pid": 5, "service": "shop", "pause_s": 0.002}) as writer:
        writer.types([(1, "builtins.list", 40), (2, "builtins.bytes", 33)])
        writer.objects([Row(100, 1, 72, 1, [200, 300, 200]), Row(200, 2, 5 << 30, 2, [])])
        writer.names([(100, 200, "é", EdgeKind.INDEX), (100, 300, "gone", EdgeKind.INDEX)])
        writer.roots([(100, "m", RootKind.MODULE), (999, "gone", RootKind.OTHER)])
    assert path.stat().st_mode & 0o777 == 0o600
    snapshot = load(path)
    assert (snapshot.header.pid, snapshot.header.service, snapshot.header.pause_s) == (
        5,
        "shop",
        0.002,
    )
    assert snapshot.ids.tolist() == [100, 200]
    assert [snapshot.type_name(node) for node in (0, 1)] == ["builtins.list", "builtins.bytes"]
    assert snapshot.sizes.tolist() == [72, 5 << 30]
    assert snapshot.refcounts.tolist() == [1, 2]
    assert snapshot.graph.referents(0).tolist() == [1, 1]
    assert (snapshot.outside_edges, snapshot.outside_names) == (1, 1)
    assert snapshot.names.find(0, 1) == ("é", EdgeKind.INDEX)
    assert snapshot.names.find(1, 0) is None
    assert [(root.node, root.text) for root in snapshot.roots] == [(0, "m")]


def test_a_half_written_file_has_no_name(tmp_path):
    path = tmp_path / "a.mwsnap"
    with pytest.raises(TypeError), Writer(path, {}) as writer:
        writer.types([(1, object(), 0)])  # no JSON
    assert [one.name for one in tmp_path.iterdir()] == ["a.mwsnap.part"]


def test_an_object_that_comes_twice_counts_once(tmp_path):
    path = tmp_path / "a.mwsnap"
    with Writer(path, {}) as writer:
        writer.objects([Row(1, 9, 10, 1, [2]), Row(2, 9, 20, 1, []), Row(1, 9, 30, 1, [1, 1])])
        writer.objects([Row(3, 9, 40, 1, [2, 3])])
    snapshot = load(path)
    assert snapshot.ids.tolist() == [1, 2, 3]
    assert snapshot.sizes.tolist() == [10, 20, 40]
    assert [snapshot.graph.referents(node).tolist() for node in range(3)] == [[1], [], [1, 2]]
    assert snapshot.doubles == 1
    assert "1 objects twice" in " ".join(analyze([path]).notes)


def test_a_file_that_breaks_off_is_refused_and_can_be_salvaged(tmp_path):
    path = snapshots.shop(tmp_path / "a.mwsnap", 2000)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 9 // 10])
    with pytest.raises(SnapshotError, match="breaks off"):
        load(path)
    made(path, end=False)
    with pytest.raises(SnapshotError, match="breaks off"):
        load(path)
    assert load(path, salvage=True).broke_off
    assert "breaks off" in " ".join(analyze([path], salvage=True).notes)


OBJECT = struct.pack("<IIQQIII", 1, 0, 16, 1, 1, 1, 1) + struct.pack("<Q", 16)
NAME = struct.pack("<IQQI", 1, 16, 16, 0) + b"\2"


@pytest.mark.parametrize(
    ("chunks", "why"),
    [
        ([chunk(b"OBJS", b"\1")], "too short"),
        ([chunk(b"OBJS", OBJECT[:-1])], "too short"),
        ([chunk(b"OBJS", OBJECT + b"\0")], "too long"),
        ([chunk(b"OBJS", struct.pack("<II", 2**32 - 1, 0))], "4,294,967,295 objects"),
        ([chunk(b"OBJS", struct.pack("<IIQQIII", 1, 0, 1, 1, 1, 1, 2**32 - 1))], "too short"),
        ([struct.pack("<4sQ", b"OBJS", 2**63)], "claims"),
        ([struct.pack("<4sQ", b"JUNK", 2**63)], "claims"),
        ([struct.pack("<4sQ", b"TYPE", 2**29)], "claims"),
        ([chunk(b"BIGS", b"123")], "odd length"),
        ([chunk(b"TYPE", b"{}")], "no list"),
        ([chunk(b"TYPE", b"[[1]]")], "a type"),
        ([chunk(b"TYPE", b'[["1", "x"]]')], "a type"),
        ([chunk(b"TYPE", b"[" * 100_000)], "no JSON"),
        ([chunk(b"TYPE", b"\xff")], "no JSON"),
        ([chunk(b"STRS", b"[1]")], "string"),
        ([chunk(b"OBJS", OBJECT), chunk(b"NAME", NAME)], "beyond the table"),
        ([chunk(b"STRS", b'["x"]'), chunk(b"NAME", NAME[:-1] + b"\x63")], "no known kind"),
        ([chunk(b"ROOT", struct.pack("<IQI", 1, 16, 0) + b"\0")], "beyond the table"),
        ([chunk(b"HEAD", b"{}")], "two headers"),
        ([chunk(b"END ", b"[]")], "no dict"),
    ],
)
def test_what_a_file_claims_is_checked(tmp_path, chunks, why):
    with pytest.raises(SnapshotError, match=why) as caught:
        load(made(tmp_path / "a.mwsnap", *chunks))
    assert caught.value.remedy


def test_what_is_no_snapshot_is_said_to_be_none(tmp_path):
    path = tmp_path / "a.mwsnap"
    for data in (b"", b"no gzip at all", gzip.compress(b""), gzip.compress(b"x" * 100)):
        path.write_bytes(data)
        with pytest.raises(SnapshotError):
            load(path)
    path.write_bytes(gzip.compress(MAGIC + b"\2"))
    with pytest.raises(SnapshotError, match="version 2"):
        load(path)
    with pytest.raises(SnapshotError, match="No such file"):
        load(tmp_path / "none.mwsnap")


def test_unknown_chunks_are_skipped(tmp_path):
    path = made(tmp_path / "a.mwsnap", chunk(b"NEW!", b"x" * 100), chunk(b"OBJS", OBJECT))
    assert load(path).count == 1
    assert [one.kind.name for one in read_chunks(path)] == ["HEAD", "OBJS", "END"]


def test_a_header_that_lies_about_types_is_no_matter(tmp_path):
    fields = {"pid": "x", "service": 7, "unix_time_s": 1e400, "rss_bytes": -1, "pause_s": []}
    data = b"".join([MAGIC, b"\1", chunk(b"HEAD", json.dumps(fields).encode())])
    path = tmp_path / "a.mwsnap"
    path.write_bytes(gzip.compress(data + chunk(b"END ", b"{}")))
    header = load(path).header
    assert (header.pid, header.service, header.unix_time_s, header.rss_bytes) == (0, "", 0.0, 0)


# Flipped bits under the compression: what gzip's own sum cannot catch, because an enemy fixes it.
def test_a_thousand_damaged_files_are_read_or_refused_in_words(tmp_path):
    path = snapshots.shop(tmp_path / "a.mwsnap", 40)
    data = gzip.decompress(path.read_bytes())
    chance = random.Random(5)
    refused = 0
    for _ in range(1000):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(damaged))
            damaged[at] = chance.choice([0, 255, 1, damaged[at] ^ 1 << chance.randrange(8)])
        path.write_bytes(gzip.compress(bytes(damaged), 0))
        try:
            analyze([path])
        except SnapshotError:
            refused += 1
    assert 100 < refused < 1000


def test_a_damaged_stream_is_refused(tmp_path):
    path = snapshots.shop(tmp_path / "a.mwsnap", 500)
    data = path.read_bytes()
    chance = random.Random(6)
    for _ in range(200):
        damaged = bytearray(data)
        damaged[chance.randrange(10, len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(damaged))
        try:
            load(path)
        except SnapshotError:
            continue
        # the checksum at the very end is behind our last chunk
        assert bytes(damaged)[:-8] != data[:-8] or damaged[-8:] != data[-8:]


BOMB = """
import re, sys
from pathlib import Path
from mwtrace.errors import SnapshotError
from mwtrace.snapshot.analysis import analyze
def peak_kib():  # not ru_maxrss: that begins with our parent's
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak_kib()
try:
    analyze([Path(sys.argv[1])], memory_max_bytes=64 << 20)
except SnapshotError as error:
    print(error)
print(peak_kib() - before)
"""


def test_a_small_file_that_unpacks_to_gigabytes_takes_no_more_than_allowed(tmp_path):
    path = tmp_path / "bomb.mwsnap"
    count = 65_536
    with gzip.open(path, "wb", 1) as file:
        file.write(MAGIC + b"\1" + chunk(b"HEAD", b"{}"))
        head = struct.pack("<II", count, 0) + bytes(count * 24)
        for _ in range(200):
            file.write(chunk(b"OBJS", head + bytes(count * 4)))
    # Under the sanitizer, what was freed would stay for a while and count.
    options = os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1"
    done = subprocess.run(
        [sys.executable, "-c", BOMB, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "ASAN_OPTIONS": options},
    )
    words, more_kib = done.stdout.splitlines()
    assert "takes more than 64 MiB" in words
    assert int(more_kib) < 200 * 1024, more_kib
    assert os.path.getsize(path) < 3_000_000


def test_snapshots_of_two_processes_are_not_compared(tmp_path):
    one = snapshots.shop(tmp_path / "a.mwsnap", 1, pid=7)
    other = snapshots.shop(tmp_path / "b.mwsnap", 2, time_s=2.0, pid=8)
    with pytest.raises(ConfigError, match="different processes"):
        analyze([one, other])
    later = snapshots.shop(tmp_path / "c.mwsnap", 2, time_s=9.0)
    with pytest.raises(ConfigError, match="order"):
        analyze([later, one])


def test_reading_for_comparison_needs_no_edges(tmp_path):
    objects = load_objects(snapshots.shop(tmp_path / "a.mwsnap", 10))
    assert objects.count == 14
    assert not hasattr(objects, "graph")
