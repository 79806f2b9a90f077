"""Ask a process's hook for a snapshot, by a signal, and open the pipe its child writes into.

A process is signalled only if its mailbox says, under its own pid, that it waits for that signal,
and the kernel says that the signal is caught, by the same process as before. Everything in a
mailbox is hostile input: any process can make one. It must not know what is in a snapshot, nor
where it is kept.
"""

from __future__ import annotations

import os
import re
import signal
import stat
import struct
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Optional

from mwtrace.errors import ProcessError, ProcessGone
from mwtrace.host.mappings import Mapping, read_mappings
from mwtrace.host.procfs import Host
from mwtrace.model import ProcessId
from mwtrace.remote import RemoteMemory, UnreadableMemory
from mwtrace.snapshot import hook
from mwtrace.snapshot.outcomes import NotTaken, Outcome

_PATH = f"/memfd:{hook.MAILBOX_NAME} (deleted)"
_MAILBOXES_MAX = 8  # one of each generation of workers, if their forks went unnoticed
_THREADS_ASKED_MAX = 256
_FIRST_LOOK_S = 0.001
_LONGEST_LOOK_S = 0.02
_NAMESPACE_SCAN_MAX = 65_536
_STATUS_LINE = re.compile(rb"^(\w+):[ \t]*([^\n]*)$", re.M)
_HOW_TO = "See docs/snapshot.md: start the service with MWTRACE_HOOK=1, or import mwtrace_hook."


class Mailbox(NamedTuple):
    """What a hook says of itself, as it was read."""

    address: int
    inode: int
    pid: int  # in the process's own namespace
    signal: int
    asked: int
    refused: int
    state: int
    child_pid: int
    child_fd: int
    pause_ns: int
    objects: int
    written_bytes: int
    reason: str


class Answer(NamedTuple):
    """A child is writing."""

    pipe_fd: int  # ours to close
    child_pid: int  # in our namespace
    mailbox: Mailbox


def read_mailbox(process: ProcessId) -> Optional[Mailbox]:
    """Return the mailbox that a process registered under its own pid; None if it has none.

    Raises ProcessGone, or ProcessError if its memory may not be read.
    """
    mappings = [mapping for mapping in read_mappings(process.pid) if mapping.path == _PATH]
    own_pid = _namespace_pids(process.pid)[-1]
    for mapping in reversed(mappings[-_MAILBOXES_MAX:]):
        found = _read(process.pid, mapping)
        if found is not None and found.pid == own_pid:
            return found
    return None


def _read(pid: int, mapping: Mapping) -> Optional[Mailbox]:
    if mapping.end - mapping.start != hook.MAILBOX_BYTES:
        return None
    try:
        page = RemoteMemory(pid).read(mapping.start, hook.MAILBOX_BYTES)
    except UnreadableMemory:
        return None
    magic, own_pid, number = hook.REGISTERED.unpack_from(page)
    if magic != hook.MAGIC:
        return None

    def field(place: tuple[int, struct.Struct]) -> tuple[Any, ...]:
        offset, layout = place
        return layout.unpack_from(page, offset)

    child_pid, child_fd = field(hook.CHILD)
    objects, written_bytes = field(hook.TOTALS)
    return Mailbox(
        address=mapping.start,
        inode=mapping.inode,
        pid=own_pid,
        signal=number,
        asked=field(hook.ASKED)[0],
        refused=field(hook.REFUSED)[0],
        state=field(hook.STATE)[0],
        child_pid=child_pid,
        child_fd=child_fd,
        pause_ns=field(hook.PAUSE)[0],
        objects=objects,
        written_bytes=written_bytes,
        reason=field(hook.REASON)[0].partition(b"\0")[0].decode("utf-8", "replace"),
    )


def find_hook(host: Host, process: ProcessId) -> Mailbox:
    """Return the mailbox of a hook that waits for its signal; raises NotTaken if none does.

    Asks the process nothing, and may be called of any process.
    """
    try:
        mailbox = read_mailbox(process)
        host.check(process)
        fields = _status(process.pid)
    except ProcessGone as error:
        raise _gone(process) from error
    who = f"process {process.pid}"
    if mailbox is None or not mailbox.signal:
        raise NotTaken(Outcome.NO_HOOK, f"{who} has no hook", _HOW_TO)
    number = mailbox.signal
    if not signal.SIGRTMIN - 2 <= number < signal.NSIG and number not in (10, 12):
        words = f"{who} says that it waits for signal {number}, which nobody should"
        raise NotTaken(Outcome.NO_HOOK, words)
    if process.pid == 1 or process.pid == os.getpid():
        raise NotTaken(Outcome.REFUSED, f"{who} is never signalled")
    if not _has(fields, b"SigCgt", number) or _has(fields, b"SigIgn", number):
        words = f"{who} registered for signal {number}, and does not catch it any more"
        raise NotTaken(Outcome.NO_HOOK, words, "Something in the service took the signal away.")
    if _has(fields, b"ShdPnd", number) or _has(fields, b"SigPnd", number):
        words = f"{who} has not yet answered signal {number}, which was sent before"
        raise NotTaken(Outcome.BUSY, words, "Its main thread may be in a long call into C.")
    if _has(fields, b"SigBlk", number) and not _some_thread_takes(process.pid, number):
        raise NotTaken(Outcome.REFUSED, f"all threads of {who} block signal {number}")
    if fields.get(b"State", b"")[:1] in (b"T", b"t", b"Z", b"X"):
        raise NotTaken(Outcome.REFUSED, f"{who} is stopped, and would not answer")
    return mailbox


def ask(host: Host, process: ProcessId, deadline_s: float) -> Answer:
    """Signal a process's hook and wait until its child writes; raises NotTaken."""
    before = find_hook(host, process)
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError as error:
        raise _gone(process) from error
    try:
        # The descriptor names one process for good; was it still this one?
        host.check(process)
        signal.pidfd_send_signal(descriptor, before.signal)
    except (ProcessGone, ProcessLookupError) as error:
        raise _gone(process) from error
    except PermissionError as error:
        words = f"process {process.pid} may not be signalled by this user"
        raise NotTaken(Outcome.REFUSED, words, "Run it with sudo, or as the service's user.") from (
            error
        )
    finally:
        os.close(descriptor)
    return await_child(host, process, before.asked, deadline_s)


def await_child(host: Host, process: ProcessId, asked_before: int, deadline_s: float) -> Answer:
    """Wait until a child of process's hook writes, and open its pipe; raises NotTaken.

    However it was asked: asked_before is what its mailbox said before that, 0 if it had none.
    """
    ends_s = time.monotonic() + deadline_s
    look_s = _FIRST_LOOK_S
    while True:
        try:
            mailbox = read_mailbox(process)
            host.check(process)
        except ProcessGone as error:
            raise _gone(process) from error
        if mailbox is not None and mailbox.asked != asked_before:
            if mailbox.refused == mailbox.asked:
                raise NotTaken(Outcome.BUSY, f"process {process.pid} refuses: {mailbox.reason}")
            if mailbox.state == hook.FAILED:
                raise failed(process, mailbox)
            if mailbox.state == hook.WRITING:
                return _open(process, mailbox)
        if time.monotonic() >= ends_s:
            words = f"process {process.pid} did not answer within {deadline_s:g} s"
            raise NotTaken(
                Outcome.NO_ANSWER, words, "Its main thread may be in a long call into C: try again."
            )
        time.sleep(look_s)
        look_s = min(2 * look_s, _LONGEST_LOOK_S)


def failed(process: ProcessId, mailbox: Mailbox) -> NotTaken:
    """Say what the hook's child gave as its reason."""
    reason = mailbox.reason or "for no reason that it gave"
    words = f"process {process.pid} could not write a snapshot: {reason}"
    return NotTaken(Outcome.FAILED, words, "The service itself goes on; see docs/snapshot.md.")


def _open(process: ProcessId, mailbox: Mailbox) -> Answer:
    words = f"the child of process {process.pid} cannot be read"
    for child_pid in _children(process, mailbox.child_pid):
        path = f"/proc/{child_pid}/fd/{mailbox.child_fd}"
        try:
            if not os.readlink(path).startswith("pipe:["):
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except PermissionError as error:
            raise NotTaken(Outcome.REFUSED, f"{words}: {error.strerror}", "Use sudo.") from error
        except OSError:
            continue
        try:
            # Nothing was read yet. Only a child of this process shares its mailbox: the pid and
            # the descriptor that a hostile one names could be anybody's.
            is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
            if is_pipe and _shares(child_pid, mailbox):
                return Answer(descriptor, child_pid, mailbox)
        except ProcessError:
            pass
        os.close(descriptor)
    now = read_mailbox(process)
    if now is not None and now.state == hook.FAILED:
        raise failed(process, now)
    raise NotTaken(Outcome.CUT_SHORT, f"{words}: it is not there")


def _shares(child_pid: int, mailbox: Mailbox) -> bool:
    return any(
        mapping.path == _PATH and mapping.inode == mailbox.inode
        for mapping in read_mappings(child_pid)
    )


def _children(process: ProcessId, namespace_pid: int) -> Iterator[int]:
    """Yield which process a pid of process's own namespace may be."""
    depth = len(_namespace_pids(process.pid))
    if depth == 1:
        yield namespace_pid
        return
    for number, name in enumerate(os.listdir("/proc")):
        if number > _NAMESPACE_SCAN_MAX:
            return
        if not name.isdigit() or int(name) == process.pid:
            continue
        try:
            pids = _namespace_pids(int(name))
        except ProcessError:
            continue
        if len(pids) >= depth and pids[depth - 1] == namespace_pid:
            yield int(name)


def _namespace_pids(pid: int) -> list[int]:
    words = _status(pid).get(b"NSpid", b"").split()
    return [int(word) for word in words if word.isdigit()] or [pid]  # absent before Linux 4.1


def _status(pid: int, task: str = "") -> dict[bytes, bytes]:
    try:
        with open(f"/proc/{pid}/{task}status", "rb") as file:
            return dict(_STATUS_LINE.findall(file.read(16_384)))
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessGone(f"process {pid} ended") from error
    except OSError as error:
        raise ProcessError(f"cannot read status of process {pid}: {error.strerror}") from error


def _has(fields: dict[bytes, bytes], name: bytes, number: int) -> bool:
    try:
        return bool(int(fields.get(name, b"0"), 16) >> (number - 1) & 1)
    except ValueError:
        return False


def _some_thread_takes(pid: int, number: int) -> bool:
    try:
        tids = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return False
    for tid in tids[:_THREADS_ASKED_MAX]:
        try:
            if not _has(_status(pid, f"task/{tid}/"), b"SigBlk", number):
                return True
        except ProcessError:
            continue
    return False


def _gone(process: ProcessId) -> NotTaken:
    return NotTaken(Outcome.GONE, f"process {process.pid} ended")
