"""A metrics file in the directory that a node-exporter's textfile collector reads.

Knows how a file is replaced so that no reader ever sees half of one, and how one writer per
directory is kept; not what is in it. The file is readable by all, whatever our umask: the exporter
runs as somebody else. Its temporary name does not end in ``.prom``, else it would be read.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import threading
from collections.abc import Callable
from typing import Optional

from mwtrace.errors import ConfigError

log = logging.getLogger(__name__)

NAME = "mwtrace.prom"
_TEMPORARY = ".mwtrace.prom.tmp"
_CLOSING_S = 2.0


class TextFile:
    """The file, from construction to ``close()``; a directory has one writer at a time.

    Raises ConfigError if the directory is missing, cannot be written to, or is taken.
    """

    def __init__(self, directory: str) -> None:
        self.path = os.path.join(directory, NAME)
        self._directory = directory
        try:
            self._fd = self._open()
        except OSError as error:
            raise self._refusal(error) from error
        try:
            self._probe()
        except OSError as error:
            os.close(self._fd)
            raise self._refusal(error) from error

    def write(self, content: bytes) -> None:
        """Replace the file. Raises OSError; the file is then as it was."""
        try:
            self._replace(content)
        except FileNotFoundError:
            # The directory was removed, perhaps to be made anew.
            fd = self._open()
            os.close(self._fd)
            self._fd = fd
            self._replace(content)

    def close(self, remove: bool) -> None:
        """Let go of the directory; a file of a daemon that has ended would stay for ever."""
        if remove:
            with contextlib.suppress(OSError):
                os.unlink(NAME, dir_fd=self._fd)
        os.close(self._fd)

    def _open(self) -> int:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # The directory itself is locked: a lock file would be one more file in it.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise
        except OSError as error:  # a file system without locks: two writers then take turns
            log.debug("%s cannot be locked: %s", self._directory, error)
        return fd

    def _probe(self) -> None:
        """Find out now what would fail at the first tick; a full disk is not among it."""
        try:
            os.close(self._create())
        finally:
            self._remove_temporary()

    def _create(self) -> int:
        # Whoever may write here could have put a link under this name.
        self._remove_temporary()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(_TEMPORARY, flags, 0o600, dir_fd=self._fd)

    def _replace(self, content: bytes) -> None:
        # Not synced to the disk: after a power cut it is written anew before anybody can miss it.
        try:
            with open(self._create(), "wb") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(content)
            os.replace(_TEMPORARY, NAME, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except OSError:
            self._remove_temporary()
            raise

    def _remove_temporary(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(_TEMPORARY, dir_fd=self._fd)

    def _refusal(self, error: OSError) -> ConfigError:
        words = error.strerror
        remedy = "Name a directory that is there and that mwtrace may write to."
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):
            words = "another mwtrace writes there"
            remedy = "Stop that one, or name another directory."
        return ConfigError(f"cannot write metrics to {self._directory}: {words}", remedy)


class TextFileWriter:
    """Keeps the file new in a thread of its own: no disk may delay a tick.

    ``make`` is called in that thread; when a write takes long, the newest content wins.
    """

    def __init__(self, file: TextFile, make: Callable[[], Optional[bytes]]) -> None:
        self._file = file
        self._make = make
        self.failures_total = 0
        self._wake = threading.Event()
        self._is_closing = False
        self._is_failing = False
        self._thread = threading.Thread(target=self._run, name="textfile", daemon=True)
        self._thread.start()

    def renew(self) -> None:
        """Have it written soon; never waits."""
        self._wake.set()

    def close(self) -> None:
        """End the thread and remove the file; a disk that hangs keeps nobody."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(_CLOSING_S)
        if not self._thread.is_alive():
            self._file.close(remove=True)

    def _run(self) -> None:
        while not self._is_closing:
            self._wake.wait()
            self._wake.clear()
            if not self._is_closing:
                self._write()

    def _write(self) -> None:
        content = self._make()
        if content is None:
            return
        try:
            self._file.write(content)
        except OSError as error:
            self.failures_total += 1
            if not self._is_failing:  # once, not at every tick
                path = self._file.path
                log.warning("cannot write %s: %s; trying again", path, error.strerror)
            self._is_failing = True
        else:
            self._is_failing = False
