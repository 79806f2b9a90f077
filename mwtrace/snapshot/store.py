"""The folder that snapshots are kept in: private, bounded, and never half of a file.

A snapshot holds names of a service's code and data, so the folder is its owner's alone (0700), a
file is 0600 from its first byte, and no symbolic link is followed on the way to either. A file is
written as ``NAME.part`` and renamed when all of it is on the disk. The folder also remembers what
was taken when, so that limits hold across restarts. It must not know how a snapshot is made.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Optional

from mwtrace.errors import ConfigError, HostError
from mwtrace.snapshot.sealing import Seal

SUFFIX = ".mwsnap"
_PART = ".part"
_RECORD = "taken.jsonl"
_RECORD_BYTES_MAX = 1 << 20
_NAME_CHARACTERS_MAX = 80
_FILES_MAX = 100_000
_LOCK_LOOK_S = 0.02
_RUN = Path("/run/mwtrace")
_FILE_NAME = re.compile(
    r"(?P<service>[\w.@+-]{1,80})-(?P<pid>\d{1,10})-(?P<time>\d{8}T\d{6}\.\d{3}Z)"
    r"-(?P<why>[a-z]{1,16})\.mwsnap(?:\.age)?",
    re.ASCII,
)


@dataclass(frozen=True)
class StoreLimits:
    total_bytes: int = 4 << 30
    spare_bytes: int = 512 << 20  # that stay free on the disk for others
    kept_per_service: int = 12  # older ones are removed when one more was taken


class Kept(NamedTuple):
    """A whole snapshot in the store."""

    path: Path
    service: str  # as in the file's name
    pid: int
    time: str
    why: str
    size_bytes: int


@dataclass(frozen=True)
class Record:
    """One attempt, whatever became of it."""

    unix_time_s: float
    service: str
    pid: int
    why: str
    outcome: str
    file: str = ""
    size_bytes: int = 0


class Store:
    """One folder. Several processes may use it at once."""

    def __init__(self, folder: Path, limits: StoreLimits, seal: Optional[Seal] = None) -> None:
        self.folder = Path(os.path.abspath(folder))
        self.limits = limits
        self._seal = seal
        self._fd = _open_private(self.folder)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def begin(self, service: str, pid: int, why: str) -> Part:
        """Begin a file; the caller commits or discards it."""
        ending = f"{SUFFIX}.age" if self._seal else SUFFIX
        now_s = time.time()
        at = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now_s)) + f".{int(now_s * 1000) % 1000:03}Z"
        name = f"{slug(service)}-{pid}-{at}-{why}{ending}"
        return Part(self._fd, self.folder, name, self._seal)

    def snapshots(self, service: Optional[str] = None) -> list[Kept]:
        """List whole snapshots, oldest first; of one service, if one is named."""
        found = []
        for name in self._names():
            match = _FILE_NAME.fullmatch(name)
            if match is None or (service is not None and match["service"] != slug(service)):
                continue
            with contextlib.suppress(OSError):
                size_bytes = os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_size
                row = Kept(
                    self.folder / name,
                    match["service"],
                    int(match["pid"]),
                    match["time"],
                    match["why"],
                    size_bytes,
                )
                found.append(row)
        found.sort(key=lambda kept: kept.time)
        return found

    def room_bytes(self) -> int:
        """How much one more snapshot may take: by the quota, and by what the disk has to spare."""
        used_bytes = 0
        for name in self._names():
            with contextlib.suppress(OSError):
                used_bytes += os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_size
        disk = os.fstatvfs(self._fd)
        free_bytes = disk.f_bavail * disk.f_frsize - self.limits.spare_bytes
        return max(0, min(self.limits.total_bytes - used_bytes, free_bytes))

    def prune(self, service: str) -> int:
        """Remove the oldest of a service beyond those that are kept; return how many."""
        kept = self.snapshots(service)
        extra = kept[: max(0, len(kept) - self.limits.kept_per_service)]
        for one in extra:
            with contextlib.suppress(OSError):
                os.unlink(one.path.name, dir_fd=self._fd)
        return len(extra)

    def sweep(self) -> int:
        """Remove what was left half-written; call it only while nobody else may be writing."""
        parts = [name for name in self._names() if name.endswith(_PART)]
        for name in parts:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self._fd)
        return len(parts)

    def note(self, record: Record) -> None:
        """Remember an attempt; raises HostError if that cannot be written."""
        line = json.dumps(asdict(record), separators=(",", ":")) + "\n"
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(_RECORD, flags, 0o600, dir_fd=self._fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                size_bytes = os.fstat(fd).st_size
                if size_bytes > _RECORD_BYTES_MAX:
                    newer = os.pread(
                        fd, _RECORD_BYTES_MAX // 2, size_bytes - _RECORD_BYTES_MAX // 2
                    )
                    os.ftruncate(fd, 0)
                    os.write(fd, newer.partition(b"\n")[2])
                os.write(fd, line.encode("ascii"))
            finally:
                os.close(fd)
        except OSError as error:
            raise HostError(
                f"cannot write {self.folder / _RECORD}: {error.strerror}", "Make room on that disk."
            ) from error

    def records(self) -> Iterator[Record]:
        """Yield what was tried, oldest first; lines that are not whole are left out."""
        try:
            fd = os.open(_RECORD, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        except OSError:
            return
        with open(fd, "rb") as file:
            raw = file.read(2 * _RECORD_BYTES_MAX)
        for line in raw.splitlines():
            record = _parse(line)
            if record is not None:
                yield record

    @contextlib.contextmanager
    def lock(self, wait_s: float = 0.0) -> Iterator[bool]:
        """Hold the one place per host that a snapshot is taken in; yield whether it was had."""
        fd = _open_lock(self._fd)
        try:
            yield _locked(fd, wait_s)
        finally:
            os.close(fd)

    def _names(self) -> list[str]:
        with contextlib.suppress(OSError):
            return os.listdir(self._fd)[:_FILES_MAX]
        return []


class Part:
    """A file that is being written."""

    def __init__(self, folder_fd: int, folder: Path, name: str, seal: Optional[Seal]) -> None:
        self._folder_fd = folder_fd
        self._name = name
        self.path = folder / name
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(name + _PART, flags, 0o600, dir_fd=folder_fd)
        try:
            self._sealed = seal.begin(self._fd) if seal is not None else None
        except BaseException:
            self.discard()
            raise

    def write(self, data: bytes) -> None:
        """Write all of it; raises OSError where the disk is full."""
        if self._sealed is not None:
            self._sealed.write(data)
            return
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def commit(self) -> int:
        """Make it a snapshot, under its name; return its size. Raises OSError, and is discarded."""
        try:
            if self._sealed is not None:
                self._sealed.finish()
            os.fsync(self._fd)
            size_bytes = os.fstat(self._fd).st_size
            dirs = {"src_dir_fd": self._folder_fd, "dst_dir_fd": self._folder_fd}
            # Not rename(): that would replace a file that is there.
            os.link(self._name + _PART, self._name, **dirs, follow_symlinks=False)
            os.unlink(self._name + _PART, dir_fd=self._folder_fd)
            os.fsync(self._folder_fd)
        except BaseException:
            self.discard()
            raise
        os.close(self._fd)
        self._fd = -1
        return size_bytes

    def discard(self) -> None:
        if self._fd < 0:
            return
        sealed = getattr(self, "_sealed", None)
        if sealed is not None:
            sealed.abandon()
        os.close(self._fd)
        self._fd = -1
        with contextlib.suppress(OSError):
            os.unlink(self._name + _PART, dir_fd=self._folder_fd)


def slug(service: str) -> str:
    """Return a service's name as it may stand in a file's."""
    text = re.sub(r"[^\w.@+-]", "_", service, flags=re.ASCII).lstrip(".-")
    return text[:_NAME_CHARACTERS_MAX] or "unnamed"


def _parse(line: bytes) -> Optional[Record]:
    try:
        told: Any = json.loads(line)
        return Record(
            float(told["unix_time_s"]),
            str(told["service"]),
            int(told["pid"]),
            str(told["why"]),
            str(told["outcome"]),
            str(told["file"]),
            int(told["size_bytes"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _open_private(folder: Path) -> int:
    """Open a folder, component by component and through no link; make the last one if need be."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open("/", flags)
    try:
        parts = folder.parts[1:]
        for number, part in enumerate(parts):
            if number == len(parts) - 1:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=fd)
            inner = os.open(part, flags, dir_fd=fd)
            os.close(fd)
            fd = inner
        known = os.fstat(fd)
    except OSError as error:
        os.close(fd)
        raise ConfigError(
            f"cannot keep snapshots in {folder}: {error.strerror}",
            "Name a folder whose parent is there, by its real path: no symbolic link is followed.",
        ) from error
    if known.st_uid != os.geteuid() or stat.S_IMODE(known.st_mode) & 0o077:
        os.close(fd)
        raise ConfigError(
            f"cannot keep snapshots in {folder}: it is not this user's alone",
            f"Name a new folder, or: chown {os.geteuid()} {folder} && chmod 700 {folder}",
        )
    return fd


def _locked(fd: int, wait_s: float) -> bool:
    ends_s = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= ends_s:
                return False
        time.sleep(_LOCK_LOOK_S)


def _open_lock(folder_fd: int) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    if os.geteuid() == 0:
        # If that folder is not ours alone the lock is this store's only.
        with contextlib.suppress(OSError, ConfigError):
            run_fd = _open_private(_RUN)
            try:
                return os.open("snapshot.lock", flags, 0o600, dir_fd=run_fd)
            finally:
                os.close(run_fd)
    return os.open(".lock", flags, 0o600, dir_fd=folder_fd)
