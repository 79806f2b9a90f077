"""The store is private, bounded, and never shows half of a file."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest

from mwtrace.errors import ConfigError
from mwtrace.snapshot.sealing import Seal
from mwtrace.snapshot.store import Record, Store, StoreLimits, slug

LIMITS = StoreLimits(total_bytes=10_000, spare_bytes=0, kept_per_service=3)


@pytest.fixture
def store(tmp_path):
    under_test = Store(tmp_path / "snapshots", LIMITS)
    yield under_test
    under_test.close()


def put(store: Store, data: bytes = b"x", service: str = "orders.service") -> Path:
    part = store.begin(service, 4711, "leaking")
    part.write(data)
    part.commit()
    return part.path


def mode(path: Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def test_folder_and_files_are_their_owners_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        store = Store(tmp_path / "snapshots", LIMITS)
        part = store.begin("orders", 4711, "leaking")
        (half,) = store.folder.iterdir()
        assert (mode(store.folder), mode(half)) == (0o700, 0o600)
        part.commit()
        assert mode(part.path) == 0o600
        store.note(Record(0.0, "orders", 4711, "leaking", "taken"))
        assert mode(store.folder / "taken.jsonl") == 0o600
        store.close()
    finally:
        os.umask(before)


def test_a_folder_that_others_may_read_is_refused(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(ConfigError, match="not this user's alone") as caught:
        Store(tmp_path / "open", LIMITS)
    assert "chmod 700" in caught.value.remedy


@pytest.mark.parametrize("where", ["link", "link/inner"])
def test_no_symbolic_link_is_followed_on_the_way(tmp_path, where):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match="cannot keep snapshots"):
        Store(tmp_path / where, LIMITS)
    assert list((tmp_path / "real").iterdir()) == []


def test_a_link_in_the_records_place_is_not_written_through(store, tmp_path):
    (tmp_path / "victim").write_text("")
    (store.folder / "taken.jsonl").symlink_to(tmp_path / "victim")
    with pytest.raises(Exception, match="cannot write"):
        store.note(Record(0.0, "orders", 1, "asked", "taken"))
    assert (tmp_path / "victim").read_text() == ""
    assert list(store.records()) == []


def test_half_of_a_file_is_no_snapshot_and_is_swept_away(store):
    part = store.begin("orders", 4711, "leaking")
    part.write(b"half")
    assert store.snapshots() == []
    assert not part.path.exists()
    assert store.sweep() == 1
    assert list(store.folder.iterdir()) == []


def test_what_is_discarded_leaves_nothing(store):
    part = store.begin("orders", 4711, "leaking")
    part.discard()
    part.discard()
    assert list(store.folder.iterdir()) == []


def test_a_file_that_is_there_is_never_replaced(store, tmp_path):
    part = store.begin("orders", 4711, "leaking")
    part.path.write_bytes(b"older")
    with pytest.raises(FileExistsError):
        part.commit()
    assert part.path.read_bytes() == b"older"
    assert len(list(store.folder.iterdir())) == 1


def test_snapshots_are_listed_by_service_oldest_first(store):
    paths = []
    for service in ("a.service", "b.service", "a.service"):
        paths.append(put(store, service=service))
        time.sleep(0.002)  # names tell milliseconds apart
    assert [kept.path for kept in store.snapshots()] == paths
    assert [kept.path for kept in store.snapshots("a.service")] == [paths[0], paths[2]]
    assert store.snapshots()[0].pid == 4711
    (store.folder / "orders-1-x.mwsnap").write_bytes(b"somebody else's")
    assert len(store.snapshots()) == 3


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/b", ".hidden", "", "x" * 500, "ü\n\x1b[31m", "-rf"]
)
def test_no_service_name_leads_out_of_the_folder_or_is_lost(store, name):
    path = put(store, service=name)
    assert path.parent == store.folder
    assert [kept.service for kept in store.snapshots(name)] == [slug(name)]


def test_room_is_what_the_quota_leaves_and_the_oldest_make_room(store):
    assert store.room_bytes() == 10_000
    for number in range(5):
        put(store, bytes(1000))
        time.sleep(0.002)
        if number == 3:
            assert store.room_bytes() == 6000
    assert store.prune("orders.service") == 2
    assert len(store.snapshots()) == 3
    assert store.room_bytes() == 7000


def test_records_survive_and_damaged_lines_are_left_out(store):
    records = [Record(float(n), "orders", n, "leaking", "taken", "file", n) for n in range(3)]
    store.note(records[0])
    store.note(records[1])
    with open(store.folder / "taken.jsonl", "ab") as file:
        file.write(b'{"unix_time_s": "x"}\n[1]\n\xff\xfe\n{"half')
        file.write(b"\n" + b"[" * 100_000 + b"\n")
    store.note(records[2])
    assert list(store.records()) == records


def test_records_are_bounded(store):
    long = Record(0.0, "s" * 80, 1, "leaking", "taken", "f" * 3000)
    for _ in range(800):
        store.note(long)
    assert (store.folder / "taken.jsonl").stat().st_size < 1_100_000
    assert 100 < sum(1 for _ in store.records()) < 400


def test_one_place_for_all_that_use_it(store, tmp_path, monkeypatch):
    # The host's own may be taken just now.
    monkeypatch.setattr("mwtrace.snapshot.store._RUN", tmp_path / "run")
    with store.lock() as is_first, store.lock() as is_second:
        assert (is_first, is_second) == (True, False)
    with store.lock() as is_third:
        assert is_third


needs_age = pytest.mark.skipif(shutil.which("age") is None, reason="needs age (install.sh --dev)")


@needs_age
def test_what_is_sealed_opens_with_the_private_key_only(tmp_path):
    key = subprocess.run(["age-keygen"], capture_output=True, check=True, text=True).stdout
    (tmp_path / "key").write_text(key)
    public = next(line for line in key.splitlines() if "public key" in line).split()[-1]
    store = Store(tmp_path / "snapshots", LIMITS, Seal(public))
    path = put(store, b"secret" * 50_000)
    assert path.name.endswith(".mwsnap.age")
    assert [kept.path for kept in store.snapshots()] == [path]
    assert b"secret" not in path.read_bytes()
    opened = subprocess.run(
        ["age", "-d", "-i", tmp_path / "key", path], capture_output=True, check=True
    )
    assert opened.stdout == b"secret" * 50_000
    part = store.begin("orders", 1, "leaking")
    part.write(b"half")
    part.discard()
    assert len(list(store.folder.iterdir())) == 1
    store.close()


@needs_age
@pytest.mark.parametrize("bad", ["age1nonsense", "/nowhere", "-o"])
def test_a_key_that_is_none_is_refused_at_once(bad):
    with pytest.raises(ConfigError, match="cannot encrypt") as caught:
        Seal(bad)
    assert "age-keygen" in caught.value.remedy
