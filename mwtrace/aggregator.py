"""One table per tick; wraps ``cext/aggregator.h``.

Here nanoseconds become seconds, C's structs frozen values, and nothing else happens: who is judged
and what a service is called is decided elsewhere. A table is copied out of C at once, so it stays
true after the next tick. One thread at a time.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from mwtrace.capi import check, ffi, lib
from mwtrace.errors import ConfigError, ProcessGone
from mwtrace.model import Fit, ProcessId

if TYPE_CHECKING:
    from mwtrace._cext import CData

NS_PER_S = 1_000_000_000
_fit_fields = attrgetter(*Fit._fields)
COUNTERS = tuple(name for name, _ in ffi.typeof("struct mw_counters").fields)


class Limits(NamedTuple):
    """``struct mw_limits``: all memory is bounded by these, none of them may be 0."""

    bucket_s: tuple[float, float, float, float] = (5.0, 60.0, 900.0, 14_400.0)
    screen_bytes: int = 1 << 20
    processes_max: int = 65_536
    services_max: int = 4_096
    rows_max: int = 512
    unnamed_max: int = 1_024
    oom_kills_max: int = 64


class Row(NamedTuple):
    """``struct mw_row``: one subject at one tick."""

    process: ProcessId | None  # None: the row is a service's
    service_id: int  # 0: not named yet
    start_time_ns: int  # CLOCK_BOOTTIME; of a service's oldest process
    first_time_s: float
    private_bytes: int  # anon + swap
    anon_bytes: int
    file_bytes: int
    shmem_bytes: int
    swap_bytes: int
    total_vm_bytes: int
    cgroup_id: int
    largest_pid: int  # process: its own
    process_count: int
    births: int
    is_rising: bool
    is_top: bool
    is_gone: bool
    is_cleared: bool
    # The windows that have enough samples, of each level that rises, finest and shortest first.
    # Empty unless the row is a rising one of a table.
    levels: tuple[tuple[Fit, ...], ...]


class ServiceSums(NamedTuple):
    """``struct mw_service_sums``: one service as the last tick added it up."""

    private_bytes: int  # anon + swap
    anon_bytes: int
    file_bytes: int
    shmem_bytes: int
    swap_bytes: int
    largest_bytes: int  # private, of its largest process
    oldest_start_time_ns: int  # CLOCK_BOOTTIME
    service_id: int
    process_count: int


class Unnamed(NamedTuple):
    """``struct mw_unnamed``: a process whose service is asked for."""

    process: ProcessId
    parent_pid: int
    cgroup_id: int
    comm: bytes  # chosen by the process itself: any bytes


class OomKill(NamedTuple):
    """``struct mw_oom_kill``: the kernel chose a process to die for want of memory."""

    time_s: float
    process: ProcessId
    cgroup_id: int
    private_bytes: int  # at the last tick that saw it; 0 if none did
    service_id: int  # 0 if it was never named
    comm: bytes
    # Of its service, (time_s, private bytes), oldest first: the last minutes, and before them the
    # hour. Taken when it was killed, since it ends with the service's last process.
    history: tuple[tuple[float, int], ...] = ()


class Table(NamedTuple):
    """``struct mw_table``: what one tick saw."""

    time_s: float
    rows: list[Row]
    unnamed: list[Unnamed]
    oom_kills: list[OomKill]
    counters: Mapping[str, int]  # by their names in struct mw_counters
    iterator_errno: int  # 0, or why the iterator ended early: this tick misses processes


class SavedTick(NamedTuple):
    """``struct mw_saved_tick`` and what follows it, to be kept until a later one says otherwise."""

    tick: int  # ordinal
    oldest_tick: int  # those before are needed no more; 0: not known
    histories_deferred: int  # not in it for want of room; they follow
    body: bytes


class RecordBuffer:
    """Process records made by us, for hosts without BPF and for replay.

    Holds at most capacity; what comes after is counted among the aggregator's
    ``processes_untracked_total``.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.count = 0
        self.omitted_total = 0
        self.array = ffi.new("struct mw_process_record[]", capacity)

    def clear(self) -> None:
        self.count = 0

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
    ) -> None:
        if self.count == self.capacity:
            self.omitted_total += 1
            return
        record = self.array[self.count]
        record.pid = pid
        record.start_time_ns = start_time_ns
        record.cgroup_id = cgroup_id
        record.anon_pages = anon_pages
        record.file_pages = file_pages
        record.shmem_pages = shmem_pages
        record.swap_pages = swap_pages
        record.total_vm_pages = total_vm_pages
        record.parent_pid = parent_pid
        record.comm = comm[: lib.MW_COMM_BYTES - 1]  # cffi fills up with NULs
        self.count += 1


class Aggregator:
    """Processes and services with their pasts; see ``cext/aggregator.h``.

    Its memory lives as long as this object or the ``pointer`` taken from it.
    """

    def __init__(self, limits: Limits) -> None:
        if min(limits[1:]) <= 0 or min(limits.bucket_s) <= 0:
            raise ConfigError(f"a bound of the watch is not above 0: {limits}")
        bounds = limits._asdict()
        bounds["bucket_ns"] = [round(width_s * NS_PER_S) for width_s in bounds.pop("bucket_s")]
        created = lib.mw_aggregator_create(ffi.new("struct mw_limits *", bounds))
        if created == ffi.NULL:
            check(-errno.ENOMEM, f"allocate tables for {limits.processes_max} processes")
        self.pointer = ffi.gc(created, lib.mw_aggregator_destroy)
        self._services_max = limits.services_max
        self._sums: CData | None = None
        self._saved: CData | None = None  # grows to what saving needs, and is used again
        self._times_s = ffi.new("double[]", lib.MW_LEVEL_SAMPLES)
        self._bytes = ffi.new("double[]", lib.MW_LEVEL_SAMPLES)

    def tick(
        self,
        time_s: float,
        iterator_fd: int = lib.MW_NO_ITERATOR,
        records: RecordBuffer | None = None,
    ) -> Table:
        """Read all processes and return what is to be known of them.

        A process that neither the iterator's link nor records show has ended, unless the iterator
        failed (see ``Table.iterator_errno``) or iterator_fd is MW_RECORDS_PARTIAL. Raises
        HostError if time_s is not later than before.
        """
        array, count, omitted = ffi.NULL, 0, 0
        if records is not None:
            array, count, omitted = records.array, records.count, records.omitted_total
        ret = ffi.new("const struct mw_table **")
        time_ns = round(time_s * NS_PER_S)
        rc = lib.mw_aggregator_tick(self.pointer, time_ns, iterator_fd, array, count, ret)
        table = ret[0]
        if table == ffi.NULL:
            check(rc, f"begin a tick at {time_s} s, which is not after the one before")
        counters = {name: getattr(table.counters, name) for name in COUNTERS}
        counters["processes_untracked_total"] += omitted
        return Table(
            time_s,
            [_row(table.rows[i]) for i in range(table.row_count)],
            [_unnamed(table.unnamed[i]) for i in range(table.unnamed_count)],
            [_oom_kill(table.oom_kills[i]) for i in range(table.oom_kill_count)],
            counters,
            -rc,
        )

    def name(self, process: ProcessId, service_id: int) -> bool:
        """Say which service a process belongs to.

        Returns False if service_id is beyond services_max: the process then stays without a
        service, and is counted. Raises ProcessGone if it has ended.
        """
        rc = lib.mw_aggregator_name(self.pointer, process.pid, process.start_time_ns, service_id)
        if rc == -errno.ESRCH:
            raise ProcessGone(f"process {process.pid} has ended")
        if rc == -errno.ENOSPC:
            return False
        check(rc, f"put process {process.pid} into service {service_id}")
        return True

    def forget_service(self, service_id: int) -> None:
        """Free a service's id to be given again. Raises HostError while it has a process."""
        rc = lib.mw_aggregator_forget_service(self.pointer, service_id)
        check(rc, f"forget service {service_id}")

    def history(self, subject: ProcessId | int, level: int) -> list[tuple[float, int]]:
        """Return one level's samples (time_s, bytes) of a process or, by its id, a service.

        Raises ProcessGone if nothing of that identity is watched.
        """
        pid, identity = (0, subject) if isinstance(subject, int) else subject
        rc = lib.mw_aggregator_history(
            self.pointer, pid, identity, level, self._times_s, self._bytes
        )
        if rc == -errno.ESRCH:
            raise ProcessGone(f"nothing is known of {subject}")
        count = check(rc, f"read level {level} of a history")
        return [(self._times_s[i], int(self._bytes[i])) for i in range(count)]

    def save(self) -> SavedTick:
        """Return what must be kept of the tick that was just made; see ``cext/archive.h``."""
        size_bytes = lib.mw_aggregator_saved_bytes_max(self.pointer)
        if self._saved is None or len(self._saved) < size_bytes:
            self._saved = ffi.new("unsigned char[]", size_bytes)
        rc = lib.mw_aggregator_save(self.pointer, self._saved, len(self._saved))
        count = check(rc, "save a tick")
        head = ffi.cast("struct mw_saved_tick *", self._saved)
        return SavedTick(
            head.tick,
            head.oldest_tick,
            head.histories_deferred,
            bytes(ffi.buffer(self._saved, count)),
        )

    def unsave(self, tick: int) -> None:
        """Say that what ``save()`` returned for that tick was lost."""
        lib.mw_aggregator_unsave(self.pointer, tick)

    def restore(self, body: bytes, now_s: float) -> bool:
        """Take one saved tick, oldest first, before the first tick is made.

        Returns False for what is damaged, or of another time or setting.
        """
        data = ffi.from_buffer("unsigned char[]", body)
        rc = lib.mw_aggregator_restore(self.pointer, data, len(body), round(now_s * NS_PER_S))
        if rc == -errno.EPROTO:
            return False
        check(rc, "restore a saved tick")
        return True

    def members(self, service_id: int, count: int) -> list[Row]:
        """Return the count largest processes of a service; 0: of those without one."""
        rows = ffi.new("struct mw_row[]", count)
        filled = lib.mw_aggregator_members(self.pointer, service_id, rows, count)
        return [_row(rows[i]) for i in range(filled)]

    def services(self) -> list[ServiceSums]:
        """Return all services that have processes, as the last tick added them up."""
        if self._sums is None:
            self._sums = ffi.new("struct mw_service_sums[]", self._services_max)
        filled = lib.mw_aggregator_services(self.pointer, self._sums, self._services_max)
        used = ffi.buffer(self._sums, filled * _SUMS.size)
        return [ServiceSums._make(fields) for fields in _SUMS.iter_unpack(used)]


def _unpacker(struct_name: str, fields: tuple[str, ...]) -> struct.Struct:
    """Read a whole array of a struct in one go, where there are thousands at each tick."""
    kind = ffi.typeof(struct_name)
    letters = {"uint64_t": "Q", "uint32_t": "I"}
    unpacker = struct.Struct("=" + "".join(letters[field.type.cname] for _, field in kind.fields))
    assert tuple(name for name, _ in kind.fields) == fields
    assert unpacker.size == ffi.sizeof(struct_name)  # no padding
    return unpacker


_SUMS = _unpacker("struct mw_service_sums", ServiceSums._fields)


def _row(row: CData) -> Row:
    is_process = row.kind == lib.MW_SUBJECT_PROCESS
    flags = row.flags
    return Row(
        ProcessId(row.pid, row.start_time_ns) if is_process else None,
        row.service_id,
        row.start_time_ns,
        row.first_time_ns / NS_PER_S,
        row.private_bytes,
        row.anon_bytes,
        row.file_bytes,
        row.shmem_bytes,
        row.swap_bytes,
        row.total_vm_bytes,
        row.cgroup_id,
        row.pid,
        row.process_count,
        row.births,
        bool(flags & lib.MW_ROW_RISING),
        bool(flags & lib.MW_ROW_TOP),
        bool(flags & lib.MW_ROW_GONE),
        bool(flags & lib.MW_ROW_CLEARED),
        _levels(row.fits) if row.fits != ffi.NULL else (),
    )


def _levels(fits: CData) -> tuple[tuple[Fit, ...], ...]:
    windows = range(lib.MW_FIT_WINDOWS)
    return tuple(
        tuple(
            _fit(fits[level * lib.MW_FIT_WINDOWS + window])
            for window in windows
            if fits[level * lib.MW_FIT_WINDOWS + window].sample_count
        )
        for level in range(lib.MW_LEVELS)
    )


def _fit(fit: CData) -> Fit:
    return Fit(*_fit_fields(fit))._replace(rise_bytes=tuple(fit.rise_bytes))


def fit_samples(times_s: Sequence[float], sizes_bytes: Sequence[float]) -> Fit | None:
    """Describe one column of samples, times ascending; None if they are too few."""
    ret = ffi.new("struct mw_fit *")
    times, sizes = ffi.new("double[]", list(times_s)), ffi.new("double[]", list(sizes_bytes))
    rc = lib.mw_fit_compute(times, sizes, len(times_s), ret)
    return None if rc < 0 else _fit(ret[0])


def _unnamed(unnamed: CData) -> Unnamed:
    return Unnamed(
        ProcessId(unnamed.pid, unnamed.start_time_ns),
        unnamed.parent_pid,
        unnamed.cgroup_id,
        ffi.string(unnamed.comm),
    )


def _oom_kill(oom_kill: CData) -> OomKill:
    event = oom_kill.event
    return OomKill(
        event.time_ns / NS_PER_S,
        ProcessId(event.pid, event.start_time_ns),
        event.cgroup_id,
        oom_kill.private_bytes,
        oom_kill.service_id,
        ffi.string(event.comm),
        _oom_history(oom_kill),
    )


def _oom_history(oom_kill: CData) -> tuple[tuple[float, int], ...]:
    samples: list[tuple[float, int]] = []
    for level, count in enumerate(oom_kill.sample_counts):
        times_s, sizes = oom_kill.times_s[level], oom_kill.bytes[level]
        coarser = [(times_s[i], int(sizes[i])) for i in range(count)]
        samples = [one for one in coarser if not samples or one[0] < samples[0][0]] + samples
    return tuple(samples)
