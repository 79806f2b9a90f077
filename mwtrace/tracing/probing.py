"""What windows need once per host: programs, prices, places, the books of blocks and of budgets.

Made on first use (calibrating takes half a second), shared by all sessions, closed once. It must
not know when a window opens, nor what was found in it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from mwtrace.capi import lib
from mwtrace.errors import HostError, ProcessError
from mwtrace.host.procfs import Host
from mwtrace.probes.attach import AttachKind, Programs, attach_kind_of_host, heal
from mwtrace.probes.calibration import assumed, calibrate
from mwtrace.probes.engine import Engine
from mwtrace.probes.governor import Budget, Prices, begin_host
from mwtrace.probes.placer import Placer
from mwtrace.probes.points import AttachPoint
from mwtrace.probes.safety import (
    Refusal,
    Severity,
    read_kernel_facts,
    read_target_facts,
    refusals,
)
from mwtrace.probes.targets import (
    Target,
    Targets,
    follow_tails,
    python_is_inlined,
    without_dear_news,
)
from mwtrace.tracer import Layout, Order, Table, Tracer, TracerLimits
from mwtrace.tracing.process import TracedProcess
from mwtrace.tracing.symbolize import Modules
from mwtrace.tracing.unit import TracingUnit

UNIT = "alloc"
LIMITS = TracerLimits(rows_max=1024)
_BUDGET = Budget()
# Attach kind -> programs: entry and return in one, entry, return, entry alone.
_PROGRAMS = {
    AttachKind.SESSION: ("block_session", "", "", "free_enter_multi"),
    AttachKind.MULTI: ("", "block_enter_multi", "block_return_multi", "free_enter_multi"),
    AttachKind.PERF: ("", "block_enter", "block_return", "free_enter"),
}
_EVERY_PROGRAM = {name for names in _PROGRAMS.values() for name in names if name}
# Allocators whose blocks can be told apart from free ones by reading memory; see cext/audit.h.
_GLIBC_NAMES = ("libc.so.6", "libc-2.")
# Functions of allocators that a program brought along under names of their own.
_OWN_PREFIXES = ("je_", "_rjem_", "tc_", "mi_")
# PYTHONMALLOC values under which CPython's blocks are all the C library's.
_NO_PYMALLOC = ("malloc", "malloc_debug")
_ENVIRONMENT_BYTES_MAX = 1 << 20


@dataclass(frozen=True)
class ProbePlan:
    """How one process is to be probed."""

    points: tuple[AttachPoint, ...]  # placed
    flags: int  # enum mw_target_flag
    prices: Prices
    native_layout: Layout
    python_layout: Layout
    python_is_inlined: bool  # small Python objects pass by the probes
    remarks: tuple[str, ...]  # what cannot be seen, in the operator's words


class Probing:
    """All windows of this host share one of these. Raises HostError where nothing attaches."""

    def __init__(
        self,
        engine: Engine,
        host: Host | None = None,
        modules: Modules | None = None,
        budget: Budget = _BUDGET,
        limits: TracerLimits = LIMITS,
    ) -> None:
        self.host = host or Host()
        self.modules = modules or Modules()
        self.budget = budget
        lacked = [kind for kind, names in _PROGRAMS.items() if engine.lacked & set(names)]
        self.kind = attach_kind_of_host(lacked).kind
        try:
            self.costs = calibrate(self.kind)
        except HostError:
            self.costs = assumed(self.kind)
        self.spending = begin_host(time.monotonic(), budget)
        self._placer = Placer(self.costs.emulated)
        self._targets = Targets()
        self._kernel = read_kernel_facts()
        self._asking: set[int] = set()  # whose sessions have not looked yet
        names = _PROGRAMS[self.kind]
        with ExitStack() as undo:
            self.unit = TracingUnit(engine, UNIT, sorted(_EVERY_PROGRAM - set(names)))
            undo.callback(self.unit.close)
            self.programs = Programs(*(self.unit.program(n) if n else -1 for n in names))
            self.tracer = Tracer(limits)
            undo.callback(self.tracer.close_ring)
            self._undo = undo.pop_all()

    def gates(self, traced: TracedProcess) -> list[Refusal]:
        """Why a process must not be probed now, or only in part. Raises ProcessGone."""
        facts = read_target_facts(traced.pid)
        return refusals(facts, self._kernel, (os.getpid(),), traced.id.start_time_ns)

    def look_at(self, traced: TracedProcess, closed: Sequence[Refusal]) -> ProbePlan:
        """Find and place the probes of a process; takes up to a second where files are new.

        Raises ProcessError if it has nothing that can be probed.
        """
        target = self._targets.look_at(traced.pid)
        if not target.points:
            raise ProcessError(
                f"cannot trace process {traced.pid}: no allocator was found in it",
                "Growth sampling (--growth-only) needs none.",
            )
        native, python = _layouts(traced, target)
        wanted = [point for point in target.points if not point.is_covered]
        placed = self._placer.place(follow_tails(traced.pid, self._placer.place(wanted)))
        placed = without_dear_news(placed)
        # Left by a tracer that was killed while it attached: the kernel takes it away now.
        if any(_has_breakpoint(traced.pid, point) for point in placed):
            heal(traced.pid, placed)
        frees_of_python = [p for p in target.points if p.symbol == "PyObject_Free"]
        is_inlined = python_is_inlined(
            follow_tails(traced.pid, self._placer.place(frees_of_python))
        )
        return ProbePlan(
            tuple(placed),
            _flags(traced, placed, closed),
            self.costs.prices(placed),
            native,
            python,
            is_inlined,
            tuple(_remarks(traced, target, closed, native, is_inlined)),
        )

    def gc_source(self, pid: int) -> str:
        """How the collections of a CPython could be watched, for ``doctor``."""
        gc = self._targets.look_at(pid).gc
        return gc.how if gc else "no CPython"

    def drain(self, timeout_s: float = 0.0) -> int:
        """Take what the programs sent, of all processes; waits for nothing unless told to."""
        return self.tracer.drain(self.unit.ring_fd, timeout_s)

    def asks_for_threads(self, pid: int) -> bool:
        """Whether the list of a process's Python threads must be read again."""
        self._asking |= self.tracer.thread_requests()
        if pid not in self._asking:
            return False
        self._asking.discard(pid)
        return True

    def table(self, order: Order, pid: int, rows_max: int | None = None) -> Table:
        """The books of one process, now."""
        return self.tracer.table(time.monotonic(), order, pid, rows_max)

    def close(self) -> None:
        """Unload; sessions must have been closed before. A second call does nothing."""
        self._undo.close()


def _layouts(traced: TracedProcess, target: Target) -> tuple[Layout, Layout]:
    names = {path.rpartition("/")[2] for path in target.allocators}
    is_glibc = bool(names) and all(name.startswith(_GLIBC_NAMES) for name in names)
    brings_own = any(p.symbol.startswith(_OWN_PREFIXES) for p in target.points)
    native = Layout.GLIBC if is_glibc and not brings_own else Layout.OPAQUE
    if traced.python_refusal:
        return native, Layout.OPAQUE
    if _environment(traced.pid).get(b"PYTHONMALLOC", b"").decode("latin-1") in _NO_PYMALLOC:
        return native, native
    return native, Layout.PYMALLOC


def _flags(traced: TracedProcess, points: Sequence[AttachPoint], closed: Sequence[Refusal]) -> int:
    flags: int = lib.MW_TARGET_FREES
    if len({point.layer for point in points}) > 1:
        flags |= lib.MW_TARGET_LAYERED
    if traced.runtime:
        flags |= lib.MW_TARGET_PYTHON_STACKS
    if all(refusal.severity is not Severity.WITHOUT_KERNEL_STACKS for refusal in closed):
        flags |= lib.MW_TARGET_NATIVE_STACKS
    return flags


def _remarks(
    traced: TracedProcess,
    target: Target,
    closed: Sequence[Refusal],
    native: Layout,
    is_inlined: bool,
) -> list[str]:
    said = [f"{refusal.gate.value}: {refusal.reason}" for refusal in closed]
    if traced.python_refusal:
        said.append(f"native frames only: {traced.python_refusal}")
    if is_inlined:
        said.append(
            "this Python was built with its allocator copied into its callers (link-time "
            "optimization), so probes miss small objects: growth sampling counts for those"
        )
    if native is Layout.OPAQUE:
        said.append(
            "this allocator's memory cannot be read from outside: survivors of the C side are "
            "known by their contents"
        )
    if target.files_omitted:
        said.append(f"{target.files_omitted} mapped files were not looked at")
    return said


def _has_breakpoint(pid: int, point: AttachPoint) -> bool:
    start = int(point.path.rpartition("/")[2].partition("-")[0], 16)
    try:
        with open(f"/proc/{pid}/maps", "rb") as lines:
            offset = next(int(x.split()[2], 16) for x in lines if x.startswith(b"%x-" % start))
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            return os.pread(memory.fileno(), 1, start + point.file_offset - offset) == b"\xcc"
    except (OSError, StopIteration, ValueError):
        return False


def _environment(pid: int) -> dict[bytes, bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            words = file.read(_ENVIRONMENT_BYTES_MAX).split(b"\0")
    except OSError:
        return {}
    return dict(word.split(b"=", 1) for word in words if b"=" in word)
