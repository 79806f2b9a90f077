"""The C tracer for Python: allocation events go in below, tables of sites come out here.

Wraps ``cext/tracer.h`` and ``cext/audit.h``; seconds become nanoseconds here and nowhere else.
Knows no probe, no symbol and no verdict. One thread at a time, but ``drain()`` may run in a thread
of its own: the interpreter lock is not held meanwhile, and a lock of ours keeps the others out.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from mwtrace.capi import check, ffi, lib

if TYPE_CHECKING:
    from mwtrace._cext import CData

_AUDIT_BLOCKS = 8192  # per call into C: 0.5 MiB of copies
_NS = 10**9


class Domain(enum.IntEnum):
    """Who asked for a block."""

    NATIVE = lib.MW_DOMAIN_NATIVE
    PY_RAW = lib.MW_DOMAIN_PY_RAW
    PY_MEM = lib.MW_DOMAIN_PY_MEM
    PY_OBJECT = lib.MW_DOMAIN_PY_OBJECT
    MAP = lib.MW_DOMAIN_MAP


class Order(enum.IntEnum):
    """What "top sites" means."""

    GROWTH = lib.MW_ORDER_GROWTH
    LIVE = lib.MW_ORDER_LIVE
    SURVIVED = lib.MW_ORDER_SURVIVED
    GROWN = lib.MW_ORDER_GROWN
    ALLOCATED = lib.MW_ORDER_ALLOCATED


class Layout(enum.IntEnum):
    """How an allocator's memory can be read from outside."""

    GLIBC = lib.MW_LAYOUT_GLIBC
    PYMALLOC = lib.MW_LAYOUT_PYMALLOC
    OPAQUE = lib.MW_LAYOUT_OPAQUE


@dataclass(frozen=True)
class TracerLimits:
    """Bounds; about 35 MiB in all when every one is reached."""

    blocks_max: int = 262_144
    ranges_max: int = 32_768
    stacks_max: int = 16_384
    words_max: int = 524_288
    sites_max: int = 8_192
    processes_max: int = 64
    rows_max: int = 256


class Sum(NamedTuple):
    """Blocks and bytes; the weighted ones estimate what the program really did."""

    blocks: int
    bytes: int
    weight_bytes: int
    weight_blocks: float


class Slope(NamedTuple):
    """Of live weighted bytes, with its 95% interval."""

    bytes_per_second: float
    low_bytes_per_second: float
    high_bytes_per_second: float
    span_s: float


class Survivor(NamedTuple):
    """A block that an audit found alive."""

    site: int
    domain: int
    size_bytes: int
    weight_bytes: int


class Frames(NamedTuple):
    """A stack, leaf first: (return address, 0) if native, (code object, instruction) if Python."""

    frames: tuple[tuple[int, int], ...]
    is_truncated: bool  # the root is missing


@dataclass(frozen=True)
class SiteRow:
    pid: int
    site: int  # 0: all the sites past the bound, of all processes
    domain: Domain | None
    native_stack: int  # for Tracer.stack(); 0: none
    python_stack: int
    since_s: float
    first_time_s: float
    last_time_s: float
    allocated: Sum
    freed: Sum
    survived: Sum
    grown: Sum
    allocated_bytes_per_second: float  # since the last table
    survived_bytes_per_second: float  # in audited windows; 0: there was none
    slope: Slope | None  # None: too few tables yet

    @property
    def live_bytes(self) -> int:
        return self.allocated.weight_bytes - self.freed.weight_bytes

    @property
    def live_blocks(self) -> float:
        return max(0.0, self.allocated.weight_blocks - self.freed.weight_blocks)


@dataclass(frozen=True)
class ProcessRow:
    pid: int
    since_s: float
    window_s: float  # of audited windows
    allocated: dict[Domain, Sum]
    freed: dict[Domain, Sum]
    survived: dict[Domain, Sum]
    grown: dict[Domain, Sum]
    untracked_bytes: int
    python_allocated_bytes_per_second: float
    native_allocated_bytes_per_second: float
    python_slope: Slope | None
    native_slope: Slope | None
    map_slope: Slope | None
    counts: dict[str, int]  # the kernel's, by the names in struct mw_target_counts; empty: not told


@dataclass(frozen=True)
class Table:
    time_s: float
    processes: tuple[ProcessRow, ...]
    sites: tuple[SiteRow, ...]
    sites_omitted: int
    counters: dict[str, int]  # by the names in struct mw_tracer_counters


@dataclass(frozen=True)
class AuditReport:
    """How many blocks an audit looked at and how its answers came about; see cext/audit.h."""

    alive: int = 0
    freed: int = 0
    unknown: int = 0
    pools_exact: int = 0
    pools_torn: int = 0
    chunks_linked: int = 0
    chunks_binned: int = 0
    chunks_melted: int = 0
    contents_same: int = 0
    contents_changed: int = 0
    unmapped: int = 0


class Tracer:
    def __init__(self, limits: TracerLimits = TracerLimits()) -> None:
        given = ffi.new("struct mw_tracer_limits *", vars(limits))
        made = ffi.new("struct mw_tracer **")
        check(lib.mw_tracer_create(given, made), "create the tracer's tables")
        self._tracer = ffi.gc(made[0], lib.mw_tracer_destroy)
        self._lock = threading.Lock()

    def drain(self, map_fd: int, timeout_s: float = 0.0) -> int:
        """Take what is in the ring, waiting up to timeout_s if it is empty; return how many."""
        with self._lock:
            taken = lib.mw_tracer_drain(self._tracer, map_fd, round(timeout_s * 1000))
        return check(taken, "read the ring of allocation events")

    def replay(self, recording: bytes) -> int:
        """Take records from memory, each behind its size; return how many."""
        with self._lock:
            taken = lib.mw_tracer_replay(self._tracer, recording, len(recording))
        return check(taken, "replay a recording that is cut off")

    def tell_counts(self, pid: int, time_s: float, counts: Mapping[str, int]) -> None:
        """Keep what the kernel side counted for pid, by its names in struct mw_target_counts."""
        given = ffi.new("struct mw_target_counts *", dict(counts))
        with self._lock:
            result = lib.mw_tracer_tell_counts(self._tracer, pid, round(time_s * _NS), given)
        check(result, f"keep the counts of process {pid}")

    def table(
        self, time_s: float, order: Order, pid: int = 0, rows_max: int | None = None
    ) -> Table:
        """The state at time_s, of pid or of all; call it at a steady pace, it samples slopes.

        Each site costs some 20 us to be brought here: ask for no more than are looked at.
        """
        told = ffi.new("struct mw_tracer_table **")
        with self._lock:
            result = lib.mw_tracer_table(self._tracer, round(time_s * _NS), pid, order, told)
            check(result, "tell the sites: time did not advance")
            return _table(told[0], rows_max)

    def stack(self, pid: int, stack: int) -> Frames | None:
        """The frames a hash stands for; None: 0, never sent, dropped or refused."""
        with self._lock:
            found = lib.mw_tracer_stack(self._tracer, pid, stack)
            if not found:
                return None
            words = list(found.words[0 : found.word_count])
            is_truncated = bool(found.truncated)
            if found.kind == lib.MW_STACK_PYTHON:
                return Frames(tuple(zip(words[::2], words[1::2])), is_truncated)
        return Frames(tuple((word, 0) for word in words), is_truncated)

    def audit(
        self,
        pid: int,
        since_s: float,
        until_s: float,
        native: Layout,
        python: Layout,
        is_final: bool = True,
    ) -> AuditReport:
        """Look which of pid's blocks allocated in [since_s, until_s) live, and keep the answers.

        Call it when a window closes, not final (survivors are not counted yet), and again when
        what is short-lived should be gone.
        """
        target = {"pid": pid, "native_layout": native, "python_layout": python}
        given = ffi.new("struct mw_audit_target *", target)
        report, totals = ffi.new("struct mw_audit_report *"), dict.fromkeys(_names(AuditReport), 0)
        for blocks, count in self._survivors(pid, round(since_s * _NS), round(until_s * _NS)):
            result = lib.mw_audit_run(given, blocks, count, report)
            check(result, f"read the memory of process {pid}")
            with self._lock:
                lib.mw_tracer_settle(self._tracer, blocks, count, is_final)
            for name in totals:
                totals[name] += getattr(report, name)
        return AuditReport(**totals)

    def survivors(self, pid: int, since_s: float, until_s: float) -> Iterator[Survivor]:
        """What audits found alive of the blocks of [since_s, until_s); about 1 us each."""
        alive = lib.MW_SETTLED_ALIVE
        for blocks, count in self._survivors(pid, round(since_s * _NS), round(until_s * _NS)):
            for i in range(count):
                block = blocks[i]
                if block.state == alive:
                    yield Survivor(block.site, block.domain, block.size_bytes, block.weight_bytes)

    def add_window(self, pid: int, window_s: float) -> None:
        """Say that pid was traced for window_s in a window whose blocks have been audited."""
        with self._lock:
            result = lib.mw_tracer_add_window(self._tracer, pid, round(window_s * _NS))
        check(result, f"add a window of process {pid}, of which no event came")

    def thread_requests(self) -> frozenset[int]:
        """The processes whose thread lists must be read again."""
        requests = ffi.new("struct mw_thread_event[]", 64)
        with self._lock:
            count = lib.mw_tracer_thread_requests(self._tracer, requests, len(requests))
        return frozenset(requests[i].pid for i in range(count))

    def forget(self, pid: int) -> None:
        """Let go of all that pid has: it ended, runs another program, or is traced no more."""
        with self._lock:
            lib.mw_tracer_forget(self._tracer, pid)

    def close_ring(self) -> None:
        self.drain(-1)

    # Copies in chunks: settling removes blocks behind the cursor, which may move a block across it;
    # such a one is audited next time.
    def _survivors(self, pid: int, since_ns: int, until_ns: int) -> Iterator[tuple[CData, int]]:
        cursor = ffi.new("uint32_t *")
        blocks = ffi.new("struct mw_block[]", _AUDIT_BLOCKS)
        while True:
            with self._lock:
                count = lib.mw_tracer_survivors(
                    self._tracer, pid, since_ns, until_ns, cursor, blocks, _AUDIT_BLOCKS
                )
            if not count:
                return
            yield blocks, count


def _names(record: type[AuditReport]) -> list[str]:
    return [field.name for field in fields(record)]


def _sum(total: CData) -> Sum:
    return Sum(total.blocks, total.bytes, total.weight_bytes, total.weight_blocks)


def _slope(fit: CData) -> Slope | None:
    if not fit.sample_count:
        return None
    return Slope(
        fit.theil_sen_bytes_per_second,
        fit.theil_sen_low_bytes_per_second,
        fit.theil_sen_high_bytes_per_second,
        fit.span_s,
    )


def _by_domain(sums: Sequence[Any] | CData) -> dict[Domain, Sum]:
    return {domain: _sum(sums[domain]) for domain in Domain}


def _counts(struct: str, record: CData) -> dict[str, int]:
    names = [name for name, _ in ffi.typeof(struct).fields if name.endswith(("_total", "_count"))]
    return {name: getattr(record, name) for name in names}


def _site(row: CData) -> SiteRow:
    return SiteRow(
        pid=row.pid,
        site=row.site,
        domain=Domain(row.domain) if row.domain else None,
        native_stack=row.native_stack,
        python_stack=row.python_stack,
        since_s=row.since_ns / _NS,
        first_time_s=row.first_time_ns / _NS,
        last_time_s=row.last_time_ns / _NS,
        allocated=_sum(row.allocated),
        freed=_sum(row.freed),
        survived=_sum(row.survived),
        grown=_sum(row.grown),
        allocated_bytes_per_second=row.allocated_bytes_per_second,
        survived_bytes_per_second=row.survived_bytes_per_second,
        slope=_slope(row.live),
    )


def _process(row: CData) -> ProcessRow:
    rates, slopes = row.allocated_bytes_per_second, row.live
    return ProcessRow(
        pid=row.pid,
        since_s=row.since_ns / _NS,
        window_s=row.window_ns / _NS,
        allocated=_by_domain(row.allocated),
        freed=_by_domain(row.freed),
        survived=_by_domain(row.survived),
        grown=_by_domain(row.grown),
        untracked_bytes=row.untracked_bytes,
        python_allocated_bytes_per_second=rates[lib.MW_HEAP_PYTHON],
        native_allocated_bytes_per_second=rates[lib.MW_HEAP_NATIVE],
        python_slope=_slope(slopes[lib.MW_HEAP_PYTHON]),
        native_slope=_slope(slopes[lib.MW_HEAP_NATIVE]),
        map_slope=_slope(slopes[lib.MW_HEAP_MAP]),
        counts=_counts("struct mw_target_counts", row.counts) if row.counts_time_ns else {},
    )


def _table(told: CData, rows_max: int | None) -> Table:
    site_count = told.site_count if rows_max is None else min(told.site_count, rows_max)
    return Table(
        time_s=told.time_ns / _NS,
        processes=tuple(_process(told.processes[i]) for i in range(told.process_count)),
        sites=tuple(_site(told.sites[i]) for i in range(site_count)),
        sites_omitted=told.sites_omitted + told.site_count - site_count,
        counters=_counts("struct mw_tracer_counters", told.counters),
    )
