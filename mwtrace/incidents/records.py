"""Incidents as files: one each, written at once, kept within a bound.

A sink like others: it has a thread of its own, so a disk that does not answer delays no tick. A
file is complete or not there; the oldest go when there are too many or they are too large.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

from mwtrace.errors import ConfigError, HostError
from mwtrace.incidents import portable
from mwtrace.model import Incident, IncidentNews
from mwtrace.tell.sinks import Sink, Undelivered

FILES_MAX = 200
BYTES_MAX = 16 * 1024 * 1024
_FILE_BYTES_MAX = 1024 * 1024
_NAME = re.compile(r"[0-9A-Za-z]{1,20}-[0-9a-f]{8}\.json")
_LISTED_MAX = 10_000


class Records(Sink):
    """The directory of the daemon that writes there; no second one may."""

    name = "incident records"
    renew_s: Optional[float] = None

    def __init__(
        self, directory: Path, files_max: int = FILES_MAX, bytes_max: int = BYTES_MAX
    ) -> None:
        self.directory = directory
        self._files_max = files_max
        self._bytes_max = bytes_max
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            self._lock = os.open(
                directory / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError as error:
            raise ConfigError(
                f"cannot keep incidents in {directory}: {error.strerror}",
                "Name a directory that may be written, below one that exists.",
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise HostError(
                f"another mwtrace keeps its incidents in {directory}",
                "End that one, or name another directory.",
            ) from error

    def close(self) -> None:
        os.close(self._lock)

    def deliver(self, news: Sequence[IncidentNews]) -> None:
        for one in news:
            try:
                self._write(one.incident)
                self._prune(f"{one.incident.id}.json")
            except OSError as error:
                raise Undelivered(
                    f"{self.directory}: {error.strerror}", again=True, after_s=5.0
                ) from error

    def _write(self, incident: Incident) -> None:
        body = json.dumps(portable.to_json(incident), allow_nan=False).encode("ascii")
        temporary = self.directory / f".{incident.id}.tmp"
        try:
            descriptor = os.open(
                temporary,
                os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW,
                0o600,
            )
            with open(descriptor, "wb") as file:
                file.write(body + b"\n")
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, self.directory / f"{incident.id}.json")
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def _prune(self, newest: str) -> None:
        files = _files(self.directory)
        count, size_bytes = len(files), sum(file.size_bytes for file in files)
        for file in files:
            if count <= self._files_max and size_bytes <= self._bytes_max:
                return
            if file.name != newest:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.directory / file.name)
                count, size_bytes = count - 1, size_bytes - file.size_bytes


class _File(NamedTuple):
    name: str
    size_bytes: int


def read(directory: Path) -> Iterator[Optional[Incident]]:
    """Yield the incidents that were kept, oldest first; None for a file that is none of ours.

    Raises ConfigError if the directory cannot be read.
    """
    try:
        files = _files(directory)
    except OSError as error:
        raise ConfigError(
            f"cannot read incidents from {directory}: {error.strerror}",
            "Name the directory that mwtrace was given as --incidents-dir, and use sudo.",
        ) from error
    for file in files:
        yield portable.from_json(_row(directory / file.name))


def _row(path: Path) -> Any:
    try:
        with open(path, "rb") as file:
            raw = file.read(_FILE_BYTES_MAX + 1)
        return json.loads(raw) if len(raw) <= _FILE_BYTES_MAX else None
    except (OSError, ValueError, RecursionError):
        return None


def _files(directory: Path) -> list[_File]:
    """The records by name, which is by time."""
    found: list[_File] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name) and len(found) < _LISTED_MAX:
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False):
                        size_bytes = entry.stat(follow_symlinks=False).st_size
                        found.append(_File(entry.name, size_bytes))
    return sorted(found)
