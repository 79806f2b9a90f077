"""Read /proc, a bounded piece at a time, and say in our own errors what went wrong.

The only file of this room that opens anything. It knows the format of a process's files and
nothing of what their contents mean to anybody: no services, no limits, no memory trends.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import NamedTuple, NoReturn

from mwtrace.errors import ProcessGone, ProcessUnreadable, Unreadable
from mwtrace.host import text
from mwtrace.model import ProcessId

READ_BYTES_MAX = 64 * 1024
# stat and status come whole from one read, because the kernel writes them at once (single_open).
_RECORD_BYTES_MAX = 8 * 1024
_PID_DIGITS_MAX = 10
_COMM_BYTES_MAX = 15  # TASK_COMM_LEN without its NUL; workers of the kernel show longer ones
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD, include/linux/sched.h
_SHORT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)

_MEMORY_LINE = re.compile(rb"^(VmSize|RssAnon|RssFile|RssShmem|VmSwap):[ \t]*(\d{1,15}) kB$", re.M)
_UID_LINE = re.compile(rb"^Uid:[ \t]*(\d{1,10})[ \t]", re.M)


class Stat(NamedTuple):
    """What ``/proc/PID/stat`` says, as far as anyone here asks."""

    comm: bytes
    state: str
    parent_pid: int
    is_kernel_thread: bool
    start_time_ns: int
    start_stack: int  # 0 if we may not know; shared by a process and those forked from it


class Memory(NamedTuple):
    anon_bytes: int
    file_bytes: int
    shmem_bytes: int
    swap_bytes: int
    total_vm_bytes: int


class Host:
    """The files of one machine, or of a made-up one below another root.

    Holds one descriptor in reserve: where we, or the host, may open no more files, it is given
    up for the time of one read, so that the watch goes on. Not for use by several threads.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = str(root)
        self.page_bytes = os.sysconf("SC_PAGE_SIZE")
        self.tick_ns = 10**9 // os.sysconf("SC_CLK_TCK")
        self.reserve_used_total = 0
        self._proc = os.path.join(self.root, "proc")
        self._reserve_fd = -1
        self._hold_reserve()

    def close(self) -> None:
        if self._reserve_fd >= 0:
            os.close(self._reserve_fd)
            self._reserve_fd = -1

    def path(self, path: str) -> str:
        """Place an absolute path of that machine below our root."""
        return os.path.join(self.root, path.lstrip("/"))

    # Any file of the host: errors are OSError, and the caller's to translate.

    def read(self, path: str, bytes_max: int = READ_BYTES_MAX) -> bytes:
        """Read at most bytes_max of a file named by its absolute path on that machine."""
        return self._read(self.path(path), bytes_max)

    def read_if_there(self, path: str, bytes_max: int = READ_BYTES_MAX) -> bytes | None:
        """Read a file that may be absent or closed to us; None if so.

        Raises OSError only where waiting helps: for want of descriptors.
        """
        try:
            return self.read(path, bytes_max)
        except OSError as error:
            if error.errno in _SHORT_OF_DESCRIPTORS:
                raise
            return None

    def list_directory(self, path: str) -> list[str]:
        try:
            return os.listdir(self.path(path))
        except OSError as error:
            # os.listdir opens a descriptor even where it is handed one.
            self._give_up_reserve(error)
        try:
            return os.listdir(self.path(path))
        finally:
            self._hold_reserve()

    def read_link(self, path: str) -> str:
        return os.readlink(self.path(path))

    # Processes: errors are ProcessGone and ProcessUnreadable.

    def pids(self) -> list[int]:
        """List the processes; raises ProcessUnreadable for want of descriptors."""
        try:
            names = self.list_directory("/proc")
        except OSError as error:
            raise ProcessUnreadable(
                f"cannot list {self._proc}: {error.strerror}", _reason(error)
            ) from error
        return [int(n) for n in names if len(n) <= _PID_DIGITS_MAX and n.isascii() and n.isdigit()]

    def stat(self, pid: int) -> Stat:
        raw = self._read_process(pid, "stat", _RECORD_BYTES_MAX, whole=True)
        # The name in parentheses may hold anything, parentheses and spaces too; what follows the
        # last one cannot.
        head, closing, tail = raw.rpartition(b")")
        fields = tail.split()
        try:
            stat = Stat(
                comm=head[head.index(b"(") + 1 :][:_COMM_BYTES_MAX],
                state=fields[0][:1].decode("ascii"),
                parent_pid=int(fields[1]),
                is_kernel_thread=bool(int(fields[6]) & _KERNEL_THREAD),
                start_time_ns=int(fields[19]) * self.tick_ns,
                start_stack=int(fields[25]),
            )
        except (ValueError, IndexError) as error:
            raise _malformed(pid, "stat") from error
        if not (0 <= stat.parent_pid < 1 << 31 and 0 <= stat.start_time_ns < 1 << 63):
            raise _malformed(pid, "stat")
        return stat

    def process_id(self, pid: int) -> ProcessId:
        return ProcessId(pid, self.stat(pid).start_time_ns)

    def is_same(self, one: ProcessId, other: ProcessId) -> bool:
        """Compare identities of which one may come from BPF, which has nanoseconds.

        /proc has only whole ticks, cut off (nsec_to_clock_t), so ticks are what is compared.
        """
        same_tick = one.start_time_ns // self.tick_ns == other.start_time_ns // self.tick_ns
        return one.pid == other.pid and same_tick

    def check(self, process: ProcessId) -> None:
        """Raise ProcessGone unless the pid still means this process.

        Called after reading other files of it: what was read before was then its own, too.
        """
        if not self.is_same(process, self.process_id(process.pid)):
            raise ProcessGone(f"process {process.pid} ended, and its pid was given to another one")

    def memory(self, pid: int) -> Memory | None:
        """Read how much memory a process has; None if it has none (kernel thread, zombie)."""
        raw = self._read_process(pid, "status", _RECORD_BYTES_MAX, whole=True)
        kilobytes = {key: int(value) for key, value in _MEMORY_LINE.findall(raw)}
        if b"VmSize" not in kilobytes:
            if b"State:" not in raw:
                raise _malformed(pid, "status")
            return None
        if b"RssAnon" not in kilobytes:
            # Before Linux 4.5 (8cee852ec53f), and in sandboxes that imitate /proc.
            anon_bytes, file_bytes = self._resident_parts(pid)
        else:
            anon_bytes = kilobytes[b"RssAnon"] * 1024
            file_bytes = kilobytes.get(b"RssFile", 0) * 1024
        return Memory(
            anon_bytes=anon_bytes,
            file_bytes=file_bytes,
            shmem_bytes=kilobytes.get(b"RssShmem", 0) * 1024,
            swap_bytes=kilobytes.get(b"VmSwap", 0) * 1024,
            total_vm_bytes=kilobytes[b"VmSize"] * 1024,
        )

    def _resident_parts(self, pid: int) -> tuple[int, int]:
        fields = self._read_process(pid, "statm").split()
        try:
            resident, shared = int(fields[1]), int(fields[2])
        except (ValueError, IndexError) as error:
            raise _malformed(pid, "statm") from error
        return max(resident - shared, 0) * self.page_bytes, shared * self.page_bytes

    def uid(self, pid: int) -> int:
        """Return the real user id."""
        match = _UID_LINE.search(self._read_process(pid, "status", _RECORD_BYTES_MAX, whole=True))
        if match is None:
            raise _malformed(pid, "status")
        return int(match[1])

    def cgroup(self, pid: int) -> bytes:
        return self._read_process(pid, "cgroup")

    def command_line(self, pid: int) -> list[str]:
        """Split the command line; empty for kernel threads and zombies.

        The process may have written another text over it. If it is longer than we read, the
        word that was cut is left out.
        """
        raw = self._read_process(pid, "cmdline")
        words = raw.split(b"\0")
        if len(raw) == READ_BYTES_MAX and len(words) > 1:
            words.pop()
        while words and not words[-1]:
            words.pop()
        return [text.decode(word) for word in words]

    def executable(self, pid: int) -> str:
        """Return the path of the running program as it was at exec, or "" if it has none."""
        return self._read_process_link(pid, "exe").removesuffix(" (deleted)")

    def working_directory(self, pid: int) -> str:
        return self._read_process_link(pid, "cwd")

    # Below: how it is done.

    def _read_process(
        self, pid: int, file: str, bytes_max: int = READ_BYTES_MAX, whole: bool = False
    ) -> bytes:
        try:
            return self._read(f"{self._proc}/{pid}/{file}", bytes_max, whole)
        except OSError as error:
            _raise_process_error(error, pid, file)

    def _read_process_link(self, pid: int, file: str) -> str:
        path = f"{self._proc}/{pid}/{file}"
        try:
            return os.readlink(path)
        except OSError as error:
            if error.errno == errno.ENOENT and os.path.lexists(f"{self._proc}/{pid}"):
                return ""  # a kernel thread or zombie: there, but runs no program
            _raise_process_error(error, pid, file)

    def _read(self, path: str, bytes_max: int, whole: bool = False) -> bytes:
        fd = self._open(path)
        try:
            raw = os.read(fd, bytes_max)
            if whole or not raw or len(raw) >= bytes_max:
                return raw
            pieces, missing = [raw], bytes_max - len(raw)
            while missing > 0:
                raw = os.read(fd, missing)
                if not raw:
                    break
                pieces.append(raw)
                missing -= len(raw)
            return b"".join(pieces)
        finally:
            os.close(fd)
            if self._reserve_fd < 0:
                self._hold_reserve()

    def _open(self, path: str) -> int:
        # O_NONBLOCK: no file we mean to read is a pipe, and one that was put in its place must
        # not stop us.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            return os.open(path, flags)
        except ValueError as error:  # a NUL in a name that was made up
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path) from error
        except OSError as error:
            self._give_up_reserve(error)
        return os.open(path, flags)

    def _give_up_reserve(self, error: OSError) -> None:
        if error.errno not in _SHORT_OF_DESCRIPTORS or self._reserve_fd < 0:
            raise error
        os.close(self._reserve_fd)
        self._reserve_fd = -1
        self.reserve_used_total += 1

    def _hold_reserve(self) -> None:
        if self._reserve_fd >= 0:
            return
        try:
            self._reserve_fd = os.open(self.root, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            self._reserve_fd = -1  # taken by someone else meanwhile; asked for again next time


def _reason(error: OSError) -> Unreadable:
    if error.errno in _SHORT_OF_DESCRIPTORS:
        return Unreadable.DESCRIPTORS
    if error.errno in (errno.EACCES, errno.EPERM):
        return Unreadable.PERMISSION
    return Unreadable.OTHER


def unreadable(error: OSError, pid: int, what: str) -> ProcessUnreadable:
    """Say that something about a process could not be read."""
    return ProcessUnreadable(
        f"cannot read {what} of process {pid}: {error.strerror}", _reason(error)
    )


def _raise_process_error(error: OSError, pid: int, file: str) -> NoReturn:
    if error.errno in (errno.ENOENT, errno.ESRCH):
        raise ProcessGone(f"process {pid} ended") from error
    raise unreadable(error, pid, file) from error


def _malformed(pid: int, file: str) -> ProcessUnreadable:
    return ProcessUnreadable(
        f"cannot read {file} of process {pid}: not in the kernel's format", Unreadable.MALFORMED
    )
