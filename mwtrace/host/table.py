"""The process table without BPF: a record per process, from stat and status.

Stands in for the task iterator where the kernel takes no program from us. It fills a buffer that
the caller hands in and counts what it could not read; it knows nothing of histories or services.
"""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

from mwtrace.errors import ProcessGone, ProcessUnreadable, Unreadable
from mwtrace.host.cgroups import Hierarchies
from mwtrace.host.procfs import Host

PROCESSES_MAX = 65_536


class RecordSink(Protocol):
    """Who takes the records, the fields of ``struct mw_process_record`` in their order here."""

    def append(
        self,
        pid: int,
        start_time_ns: int,
        cgroup_id: int,
        anon_pages: int,
        file_pages: int,
        shmem_pages: int,
        swap_pages: int,
        total_vm_pages: int,
        parent_pid: int,
        comm: bytes,
        /,
    ) -> object: ...


class Counts(NamedTuple):
    """What became of the processes that were listed at one tick."""

    records: int
    without_memory: int  # kernel threads and zombies: nothing to watch
    gone: int  # ended between the listing and the reading
    permission: int  # not ours to read (hidepid)
    descriptors: int  # no file could be opened: the table of this tick is not whole
    malformed: int
    omitted: int  # beyond PROCESSES_MAX
    duration_s: float

    @property
    def is_whole(self) -> bool:
        """Whether a process that is not in the table has ended, as far as we may see."""
        return self.descriptors == 0 and self.omitted == 0


class _Known(NamedTuple):
    start_time_ns: int
    cgroup_id: int


class ProcessTable:
    def __init__(self, host: Host, processes_max: int = PROCESSES_MAX) -> None:
        self._host = host
        self._hierarchies = Hierarchies(host)
        self._processes_max = processes_max
        # By pid, of the last tick only. Tells whether a pid still means the same process.
        self._known: dict[int, _Known] = {}

    def read(self, sink: RecordSink) -> Counts:
        """Append a record of every process that can be read; never raises for one that cannot."""
        began_s = time.monotonic()
        unreadable = dict.fromkeys(Unreadable, 0)
        records = without_memory = gone = 0
        try:
            pids = self._host.pids()
        except ProcessUnreadable as error:
            # Nobody new can be found now, but those we know can still be read.
            unreadable[error.reason] += 1
            pids = list(self._known)
        omitted = max(len(pids) - self._processes_max, 0)
        known: dict[int, _Known] = {}
        for pid in pids[: self._processes_max]:
            try:
                if self._append(pid, sink, known):
                    records += 1
                else:
                    without_memory += 1
            except ProcessGone:
                gone += 1
            except ProcessUnreadable as error:
                unreadable[error.reason] += 1
                if error.reason is Unreadable.DESCRIPTORS and pid in self._known:
                    known[pid] = self._known[pid]
        self._known = known
        return Counts(
            records=records,
            without_memory=without_memory,
            gone=gone,
            permission=unreadable[Unreadable.PERMISSION],
            descriptors=unreadable[Unreadable.DESCRIPTORS],
            malformed=unreadable[Unreadable.MALFORMED] + unreadable[Unreadable.OTHER],
            omitted=omitted,
            duration_s=time.monotonic() - began_s,
        )

    def _append(self, pid: int, sink: RecordSink, known: dict[int, _Known]) -> bool:
        host = self._host
        # Kernel threads and zombies end here, at the price of one file.
        memory = host.memory(pid)
        if memory is None:
            return False
        stat = host.stat(pid)
        before = self._known.get(pid)
        if before is None or before.start_time_ns != stat.start_time_ns:
            # New to us, so the memory may still have been that of the pid's owner before: read
            # again between two looks at the start time. One that was known at the last tick and
            # is still there after the reading was there all along.
            memory = host.memory(pid)
            if memory is None:
                return False
            before = _Known(stat.start_time_ns, self._hierarchies.cgroup_id(pid))
            if host.stat(pid).start_time_ns != stat.start_time_ns:
                raise ProcessGone(f"process {pid} ended, and its pid was given to another one")
        known[pid] = before
        page_bytes = host.page_bytes
        sink.append(
            pid,
            stat.start_time_ns,
            before.cgroup_id,
            memory.anon_bytes // page_bytes,
            memory.file_bytes // page_bytes,
            memory.shmem_bytes // page_bytes,
            memory.swap_bytes // page_bytes,
            memory.total_vm_bytes // page_bytes,
            stat.parent_pid,
            stat.comm,
        )
        return True
