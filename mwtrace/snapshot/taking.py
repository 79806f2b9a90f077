"""One snapshot from beginning to end: gate, question, copy, file, record.

The command line and the daemon both take snapshots through here. How a process is asked is a
parameter, so that one without a hook can be asked in another way. Whatever happens is recorded
in the store, and told as a value; only what the operator must mend is raised.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from mwtrace.errors import ProcessError, ProcessGone
from mwtrace.host.procfs import Host
from mwtrace.model import ProcessId, Snapshot
from mwtrace.snapshot import hook, trigger
from mwtrace.snapshot.gate import GateLimits, check
from mwtrace.snapshot.outcomes import NotTaken, Outcome
from mwtrace.snapshot.store import Part, Record, Store
from mwtrace.snapshot.trigger import Answer

Ask = Callable[[Host, ProcessId, float], Answer]

_PIECE_BYTES = 1 << 18
_LAST_WORD_S = 10.0  # between the pipe's end and the child's last word in the mailbox


@dataclass(frozen=True)
class TakingLimits:
    turn_s: float = 60.0  # until no other snapshot is being taken on this host
    answer_s: float = 10.0  # until a child writes
    copy_s: float = 300.0  # until it is done
    file_bytes_max: int = 2 << 30
    gate: GateLimits = field(default_factory=GateLimits)


class Taker:
    """Takes snapshots into one store, one at a time on this host."""

    def __init__(self, host: Host, store: Store, limits: TakingLimits) -> None:
        self._host = host
        self._store = store
        self._limits = limits
        self.pruned_total = 0

    def take(
        self,
        process: ProcessId,
        service: str,
        why: str,
        is_asked: bool = False,
        ask: Ask = trigger.ask,
    ) -> Snapshot:
        """Take one, and wait for it; why is one word, for the file's name.

        Raises HostError only if the attempt cannot even be recorded.
        """
        snapshot = Snapshot(time.monotonic(), process, service, why, Outcome.TAKEN.value)
        try:
            with self._store.lock(self._limits.turn_s) as is_free:
                if not is_free:
                    words = "another snapshot is being taken on this host"
                    raise NotTaken(Outcome.REFUSED, words, "Try again when it is done.")
                self._store.sweep()
                snapshot = self._take(snapshot, is_asked, ask)
        except NotTaken as error:
            snapshot = _without(snapshot, error.outcome, error)
        except ProcessGone as error:
            snapshot = _without(snapshot, Outcome.GONE, error)
        except ProcessError as error:
            snapshot = _without(snapshot, Outcome.REFUSED, error)
        if snapshot.is_taken:
            self.pruned_total += self._store.prune(service)
        self._store.note(
            Record(
                time.time(),
                service,
                process.pid,
                why,
                snapshot.outcome,
                os.path.basename(snapshot.path),
                snapshot.size_bytes,
            )
        )
        return snapshot

    def _take(self, snapshot: Snapshot, is_asked: bool, ask: Ask) -> Snapshot:
        process = snapshot.process
        self._host.check(process)
        check(
            self._host,
            self._store,
            process,
            snapshot.service,
            snapshot.why,
            self._limits.gate,
            is_asked,
        )
        answer = ask(self._host, process, self._limits.answer_s)
        try:
            part = self._store.begin(snapshot.service, process.pid, snapshot.why)
        except OSError as error:
            os.close(answer.pipe_fd)
            raise _not_kept(self._store, error) from error
        try:
            # The pipe is closed first: that ends a child whose file is not wanted any more.
            try:
                copied_bytes = self._copy(answer, part)
            finally:
                os.close(answer.pipe_fd)
            told = self._last_word(process, answer, copied_bytes)
            size_bytes = part.commit()
        except OSError as error:
            raise _not_kept(self._store, error) from error
        finally:
            part.discard()  # unless it was committed
        return replace(
            snapshot,
            path=str(part.path),
            size_bytes=size_bytes,
            objects=told.objects,
            pause_s=told.pause_ns / 1e9 if told.pause_ns else None,
        )

    def _copy(self, answer: Answer, part: Part) -> int:
        ends_s = time.monotonic() + self._limits.copy_s
        room_bytes = min(self._limits.file_bytes_max, self._store.room_bytes())
        poll = select.poll()
        poll.register(answer.pipe_fd, select.POLLIN)
        copied_bytes = 0
        while True:
            left_s = ends_s - time.monotonic()
            if left_s <= 0:
                words = f"it was not written within {self._limits.copy_s:g} s"
                raise NotTaken(Outcome.CUT_SHORT, words, "Try again when the host is less busy.")
            if not poll.poll(left_s * 1000):
                continue
            try:
                data = os.read(answer.pipe_fd, _PIECE_BYTES)
            except BlockingIOError:
                continue
            if not data:
                return copied_bytes
            copied_bytes += len(data)
            if copied_bytes > room_bytes:
                words = f"it is larger than the {room_bytes:,} bytes that there is room for"
                raise NotTaken(Outcome.NOT_KEPT, words, "Make room, or raise the quota.")
            part.write(data)

    def _last_word(self, process: ProcessId, answer: Answer, copied_bytes: int) -> trigger.Mailbox:
        """Return the mailbox of a child that said it was done; raises NotTaken if it was not."""
        ends_s = time.monotonic() + _LAST_WORD_S
        while True:
            mailbox = trigger.read_mailbox(process)
            self._host.check(process)
            if mailbox is not None and mailbox.inode == answer.mailbox.inode:
                if mailbox.state == hook.FAILED:
                    raise trigger.failed(process, mailbox)
                if mailbox.state == hook.DONE:
                    if mailbox.written_bytes == copied_bytes:
                        return mailbox
                    words = f"{mailbox.written_bytes:,} bytes were written, {copied_bytes:,} came"
                    raise NotTaken(Outcome.CUT_SHORT, words)
            if time.monotonic() >= ends_s:
                words = f"the child of process {process.pid} ended before it was done"
                raise NotTaken(Outcome.CUT_SHORT, words, "Something ended it: see the kernel log.")
            time.sleep(0.002)


def _without(snapshot: Snapshot, outcome: Outcome, error: ProcessError) -> Snapshot:
    return replace(snapshot, outcome=outcome.value, reason=f"{error}", remedy=error.remedy)


def _not_kept(store: Store, error: OSError) -> NotTaken:
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    why = "the disk is full" if is_full else error.strerror or f"{error}"
    return NotTaken(
        Outcome.NOT_KEPT,
        f"cannot keep a snapshot in {store.folder}: {why}",
        "Make room on that disk." if is_full else "See whether the folder is still there.",
    )
