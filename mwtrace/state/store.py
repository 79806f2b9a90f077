"""One SQLite file in a folder of ours: saved ticks, and texts by key, each tick a transaction.

A transaction is on the disk when ``write()`` returns: what a power cut takes is what came after.
A file that SQLite cannot read is renamed and a new one begun. Knows neither ticks nor texts from
within, and must be used by one thread at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mwtrace.errors import ConfigError, HostError

log = logging.getLogger(__name__)

FILE = "mwtrace.db"
CORRUPT = "mwtrace.db.corrupt"  # the last one only: a bad disk must not fill itself
_COMPANIONS = ("-wal", "-shm", "-journal")
_LOCK = "lock"
_FORMAT = 1  # of the tables below
_PAGE_BYTES = 4096
_FILE_BYTES_MAX = 256 << 20
_WAL_BYTES_MAX = 4 << 20
_CACHE_KIB = 256
_TICKS_MAX = 256  # rows; the newest are kept
_TICK_BYTES_MAX = 64 << 20  # unpacked

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ticks (tick INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS items (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""


class Batch(NamedTuple):
    """What one tick leaves behind."""

    tick: int  # ordinal
    oldest_tick: int  # those before are needed no more; 0: not known
    body: bytes
    changed: Mapping[str, str]  # items by key
    removed: Sequence[str]


class StoreBusy(HostError):
    """Another process keeps its state there."""


class Store:
    """The file, ours alone until ``close()``.

    facts say of whom the content is (a boot, a watch): what was written under others is dropped,
    but for items whose key begins with one of ``lasting``.
    """

    def __init__(self, folder: Path, facts: Mapping[str, str], lasting: Sequence[str] = ()) -> None:
        self.damaged_total = 0  # files set aside
        self._folder = folder
        self._facts = {**facts, "format": str(_FORMAT)}
        self._lasting = tuple(lasting)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, _lock(folder))
            try:
                self._open()
            except sqlite3.OperationalError as error:
                raise HostError(
                    f"cannot keep state in {folder}: {error}",
                    "Make room, or make it writable; until then nothing survives a restart.",
                ) from error
            except sqlite3.DatabaseError as error:
                self._set_aside(error)
            self._undo = undo.pop_all()

    def ticks(self) -> Iterator[bytes]:
        """Yield the saved ticks, oldest first; one that is damaged is left out."""
        try:
            for (body,) in self._database.execute("SELECT body FROM ticks ORDER BY tick"):
                with contextlib.suppress(zlib.error):
                    unpacking = zlib.decompressobj()
                    yield unpacking.decompress(body, _TICK_BYTES_MAX)
        except sqlite3.DatabaseError as error:
            log.warning("saved ticks cannot be read to their end: %s", error)

    def items(self) -> dict[str, str]:
        """Return all texts by key."""
        try:
            return dict(self._database.execute("SELECT key, value FROM items"))
        except sqlite3.DatabaseError as error:
            log.warning("what was saved of verdicts cannot be read: %s", error)
            return {}

    def write(self, batch: Batch) -> None:
        """Write all of it or nothing. Raises HostError."""
        packed = zlib.compress(batch.body, 1)
        try:
            with self._database as database:
                database.execute("BEGIN IMMEDIATE")
                database.execute("INSERT OR REPLACE INTO ticks VALUES (?, ?)", (batch.tick, packed))
                oldest = max(batch.oldest_tick, batch.tick - _TICKS_MAX)
                # What lies ahead was written before the clock of ticks began anew.
                database.execute(
                    "DELETE FROM ticks WHERE tick < ? OR tick > ?", (oldest, batch.tick)
                )
                database.executemany(
                    "INSERT OR REPLACE INTO items VALUES (?, ?)", batch.changed.items()
                )
                database.executemany(
                    "DELETE FROM items WHERE key = ?", [(key,) for key in batch.removed]
                )
        except sqlite3.OperationalError as error:
            raise HostError(f"cannot write to {self._folder / FILE}: {error}") from error
        except sqlite3.DatabaseError as error:
            self._set_aside(error)
            raise HostError(f"{self._folder / FILE} is damaged: {error}") from error

    def close(self) -> None:
        with contextlib.suppress(sqlite3.DatabaseError):
            self._database.close()
        self._undo.close()

    def _open(self) -> None:
        path = self._folder / FILE
        database = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
        self._database = database
        try:
            os.chmod(path, 0o600)
            # quick_check reads every page: an error found now is no riddle later.
            for (answer,) in database.execute("PRAGMA quick_check(1)"):
                if answer != "ok":
                    raise sqlite3.DatabaseError(answer)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            database.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES_MAX}")
            database.execute(f"PRAGMA max_page_count = {_FILE_BYTES_MAX // _PAGE_BYTES}")
            database.executescript(_TABLES)
            self._drop_others()
        except BaseException:
            database.close()
            raise

    def _drop_others(self) -> None:
        """Drop what another boot or another watch wrote."""
        database = self._database
        found = dict(database.execute("SELECT name, value FROM facts"))
        if found == self._facts:
            return
        same_format = found.get("format") in (None, str(_FORMAT))
        keys = [key for (key,) in database.execute("SELECT key FROM items")]
        dropped = [key for key in keys if not (same_format and key.startswith(self._lasting))]
        with database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("DELETE FROM ticks")
            database.executemany("DELETE FROM items WHERE key = ?", [(key,) for key in dropped])
            database.execute("DELETE FROM facts")
            database.executemany("INSERT INTO facts VALUES (?, ?)", self._facts.items())

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        """Begin a new file. The damaged one stays for whoever wants to know why."""
        self.damaged_total += 1
        with contextlib.suppress(sqlite3.DatabaseError):
            self._database.close()
        path, aside = self._folder / FILE, self._folder / CORRUPT
        try:
            os.replace(path, aside)
            for suffix in _COMPANIONS:
                with contextlib.suppress(FileNotFoundError):
                    os.replace(f"{path}{suffix}", f"{aside}{suffix}")
            log.warning("%s is damaged (%s): set aside as %s, begun anew", path, error, aside)
            self._open()
        except (OSError, sqlite3.Error) as second:
            raise HostError(
                f"cannot set {path} aside: {second}", f"Remove {path} by hand."
            ) from second


def _lock(folder: Path) -> int:
    """Make the folder if need be, and be the only one in it; return the lock's descriptor."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise ConfigError(
            f"cannot keep state in {folder}: {error.strerror}", "Name a folder of your own."
        ) from error
    # Whoever may write there may have us believe anything, and follow any link.
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"cannot keep state in {folder}: others may write there",
            f"chown it to this user and: chmod 700 {folder}",
        )
    try:
        descriptor = os.open(
            folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
    except OSError as error:
        raise HostError(f"cannot keep state in {folder}: {error.strerror}") from error
    try:
        # Not flock(): a child that we forked would hold it after our end.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreBusy(
            f"cannot keep state in {folder}: another mwtrace does",
            "Stop that one, or name another folder.",
        ) from error
    return descriptor
