"""The store: what was written is there, what is damaged is set aside, and nothing stops a start."""

from __future__ import annotations

import os
import random
import resource
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mwtrace.errors import ConfigError, HostError
from mwtrace.model import Judgement, Limit, ProcessId, Service, ServiceKind, SubjectId, Verdict
from mwtrace.registry import KeptName
from mwtrace.state.plain import from_plain, to_plain
from mwtrace.state.store import CORRUPT, FILE, Batch, Store
from mwtrace.state.writer import Writer

FACTS = {"boot": "one", "watched": "all"}


def batch(tick: int, oldest: int = 0, **items: str) -> Batch:
    return Batch(tick, oldest, f"tick {tick}".encode() * 100, items, [])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    store = Store(folder, FACTS, ["document/"])
    yield store
    store.close()


def again(folder: Path, facts: dict[str, str] = FACTS) -> tuple[list[bytes], dict[str, str], int]:
    """What a later run finds."""
    store = Store(folder, facts, ["document/"])
    found = [body[: body.index(b"tick", 1)] for body in store.ticks()], store.items()
    store.close()
    return *found, store.damaged_total


def test_what_was_written_is_found_in_order(folder: Path, store: Store) -> None:
    store.write(batch(2, a="1", b="2"))
    store.write(batch(10, a="3"))
    store.write(Batch(11, 0, b"tick 11tick", {}, ["b"]))
    store.close()
    assert again(folder) == ([b"tick 2", b"tick 10", b"tick 11"], {"a": "3"}, 0)


def test_ticks_that_nobody_needs_are_dropped(folder: Path, store: Store) -> None:
    for tick in range(1, 10):
        store.write(batch(tick, oldest=tick - 2))
    store.close()
    assert again(folder)[0] == [b"tick 7", b"tick 8", b"tick 9"]


def test_the_file_stays_small_however_long_it_is_written(folder: Path, store: Store) -> None:
    dice = random.Random(1)
    for tick in range(1, 600):
        body = dice.randbytes(20_000)
        store.write(Batch(tick, max(1, tick - 60), body, {f"k{tick % 50}": "x" * 500}, []))
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert size < 60 * 20_000 * 2 + (5 << 20)


def test_another_boot_keeps_documents_only(folder: Path, store: Store) -> None:
    store.write(batch(1, **{"verdict/1": "old", "document/incidents": "kept"}))
    store.close()
    assert again(folder, {**FACTS, "boot": "two"}) == ([], {"document/incidents": "kept"}, 0)


def test_a_second_one_is_refused(folder: Path, store: Store) -> None:
    # fcntl locks are a process's own: only another process is refused.
    child = os.fork()
    if child == 0:
        try:
            Store(folder, FACTS)
        except HostError:
            os._exit(3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def test_a_folder_that_others_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(ConfigError, match="others may write"):
        Store(tmp_path / "open", FACTS)


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(0o700)
    (tmp_path / "victim").write_text("whole")
    (tmp_path / "state" / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(HostError):
        Store(tmp_path / "state", FACTS)
    assert (tmp_path / "victim").read_text() == "whole"


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_file_is_set_aside_or_read_and_never_stops_a_start(
    folder: Path, seed: int
) -> None:
    store = Store(folder, FACTS)
    for tick in range(1, 30):
        store.write(batch(tick, **{f"key{tick}": "value" * 50}))
    store.close()
    dice = random.Random(seed)
    data = bytearray((folder / FILE).read_bytes())
    for _ in range(dice.choice([1, 10, 1000])):
        data[dice.randrange(len(data))] = dice.randrange(256)
    if dice.random() < 0.3:
        data = data[: dice.randrange(len(data))]
    (folder / FILE).write_bytes(data)
    store = Store(folder, FACTS)
    list(store.ticks()), store.items()
    try:
        store.write(batch(100))
    except HostError:
        store.write(batch(100))  # set aside meanwhile, and begun anew
    assert store.damaged_total == (folder / CORRUPT).exists()
    store.close()


def test_a_file_that_is_no_database_is_kept_for_whoever_wonders(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir(0o700)
    (folder / FILE).write_bytes(b"not a database" * 1000)
    assert again(folder) == ([], {}, 1)
    assert (folder / CORRUPT).read_bytes().startswith(b"not a database")
    assert "set aside" in caplog.text


def test_a_full_disk_is_counted_told_once_and_got_over(
    folder: Path, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    writer = Writer(store)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    used = max(file.stat().st_size for file in folder.iterdir())

    def write(tick: int) -> None:
        writer.offer(Batch(tick, 0, random.Random(tick).randbytes(50_000), {"a": f"{tick}"}, []))
        assert writer.wait_idle(10)

    write(1)
    # To SQLite a file that may not grow is a disk that is full; Python ignores the signal.
    resource.setrlimit(resource.RLIMIT_FSIZE, (used + 60_000, limits[1]))
    try:
        write(2)
        write(3)
        assert writer.take_failed() is not None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    write(4)
    assert writer.take_failed() is None
    assert writer.counters["state_writes_failed_total"] == 2
    assert writer.counters["state_writes_total"] == 2
    assert caplog.text.count("trying again") == 1
    assert "saved again" in caplog.text
    writer.close()
    found = sqlite3.connect(folder / FILE)
    assert found.execute("SELECT tick FROM ticks ORDER BY tick").fetchall() == [(1,), (4,)]
    found.close()


def test_values_come_back_as_they_were() -> None:
    limit = Limit(1 << 30, 5, "cgroup")
    judgement = Judgement(Verdict.LEAKING, 1.5, 2.0, limit=limit, why='says "so"\n\x1b[31m')
    assert from_plain(Judgement, to_plain(judgement)) == judgement
    subject = SubjectId(Service("a b", ServiceKind.UNIT), ProcessId(1, 1 << 60))
    name = KeptName(3, subject, True)
    assert from_plain(KeptName, to_plain(name)) == name


@pytest.mark.parametrize(
    "plain",
    [
        None,
        [],
        [1, 2, 3],
        ["LEAKING"] + [0] * 9,
        ["NO SUCH", 1.5] + [None] * 3 + [0, 0.0, None, None, ""],
        ["LEAKING", "1.5"] + [None] * 3 + [0, 0.0, None, None, ""],
        ["LEAKING", 1.5] + [None] * 3 + [True, 0.0, None, None, ""],
    ],
)
def test_what_was_never_written_is_no_value(plain: object) -> None:
    with pytest.raises(ValueError, match="is no|not what was written"):
        from_plain(Judgement, plain)
