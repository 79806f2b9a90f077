"""pprof files: read back by Go's own pprof where it is, by a decoder of ours everywhere."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
from pathlib import Path

import pytest
from profiles import HOSTILE, hostile, plain

from mwtrace.tell.pprof import pprof

PPROF = Path(os.environ.get("MW_PPROF", Path(__file__).parents[1] / "tools" / "pprof"))
WITH_PPROF = pytest.mark.skipif(not PPROF.exists(), reason="run tests/tools/fetch-pprof")


def fields(message):
    """(field, value) pairs of one protocol buffer message."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        else:
            assert key & 7 == 2
            length = varint()
            yield key >> 3, message[at : at + length]
            at += length


def strings_of(data):
    return [value.decode() for field, value in fields(gzip.decompress(data)) if field == 6]


def read_with_pprof(tmp_path, profile, *arguments):
    path = tmp_path / "profile.pb.gz"
    path.write_bytes(pprof(profile))
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PPROF_TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [PPROF, *arguments, path], capture_output=True, timeout=60, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_the_same_profile_makes_the_same_bytes():
    assert pprof(plain()) == pprof(plain())


def test_the_first_string_is_empty_and_none_comes_twice():
    strings = strings_of(pprof(hostile()))
    assert strings[0] == ""
    assert len(set(strings)) == len(strings)
    assert all(string.isprintable() and len(string) <= 600 for string in strings)


@WITH_PPROF
def test_pprof_reads_types_totals_tags_and_mappings(tmp_path):
    raw = read_with_pprof(tmp_path, plain(), "-raw")
    assert "PeriodType: space bytes" in raw
    assert "Period: 524288" in raw
    assert "Duration: 1m0" in raw
    types = "alloc_objects/count alloc_space/bytes inuse_objects/count inuse_space/bytes[dflt]"
    assert types in raw
    assert re.search(r"900 +90000000 +500 +50000000: 1 2 3", raw)
    assert re.search(r"bytes:\[(100000|97\.66kB)", raw)
    assert "known_by:[audited survivors]" in raw
    assert re.search(r"1: 0x7f0000001234 M=1 orjson_dumps ", raw)
    assert re.search(r"0x7f0000000000/0x7f0000100000/0x1000 .*liborjson.so (ab){20}", raw)
    assert "api.service (pid 4321)" in raw


@WITH_PPROF
@pytest.mark.parametrize(
    ("sample", "total"),
    [
        ("inuse_space", "47.69MB"),
        ("inuse_objects", "503"),
        ("alloc_space", "86.44MB"),
        ("alloc_objects", "10900"),
    ],
)
def test_pprof_adds_each_sample_type_up(tmp_path, sample, total):
    top = read_with_pprof(tmp_path, plain(), "-top", f"-sample_index={sample}")
    assert f"of {total} total" in top


@WITH_PPROF
def test_pprof_shows_inuse_space_by_default_and_the_leaf_first(tmp_path):
    traces = read_with_pprof(tmp_path, plain(), "-traces")
    assert "Type: inuse_space" in traces
    assert re.search(r"47\.68MB\s+orjson_dumps\s+handle\s+main", traces)


@WITH_PPROF
def test_pprof_reads_hostile_names_and_numbers(tmp_path):
    raw = read_with_pprof(tmp_path, hostile(), "-raw")
    assert raw.count("known_by:[sampled growth]") == len(HOSTILE)
    assert "\x1b" not in raw
