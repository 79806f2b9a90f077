"""A tracing unit of ``bpf/`` in the kernel, and the maps by which it is told whom to trace.

The only module that knows the names of those units' maps and the bits of an attach cookie. It must
not know when a process is traced, nor what its events mean.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from mwtrace.capi import check, ffi, lib
from mwtrace.cpython.frames import walker_settings, walker_threads
from mwtrace.cpython.runtime import Runtime
from mwtrace.errors import EngineError, HostError
from mwtrace.probes.engine import Engine
from mwtrace.probes.points import AttachPoint
from mwtrace.probes.windows import CountLayout

if TYPE_CHECKING:
    from mwtrace._cext import CData

# 500,000 events a second take 7 ms to fill what one CPU adds; past 64 CPUs our own memory counts
# for more, since pages of the ring that were read are resident here.
RING_BYTES_PER_CPU = 256 << 10
RING_CPUS_MAX = 64
_ABI = ".rodata.abi"  # libbpf's objects only; bcc compiles the header that we hold
_MIXED = "Install mwtrace again: parts of two versions are mixed."
_COUNTS = tuple(
    name for name, _ in ffi.typeof("struct mw_target_counts").fields if name.endswith("_total")
)
# The struct begins with its counters, in the order of the fields: what the governor prices.
_PRICED = _COUNTS[: lib.MW_PRICED_WORDS_MAX]


def cookie(point: AttachPoint) -> int:
    """What the programs must know of a point; see ``enum mw_cookie_shift``."""
    call = int(getattr(lib, f"MW_CALL_{point.call.name}"))
    domain = int(getattr(lib, f"MW_DOMAIN_{point.domain.name}"))
    bits: int = (
        call << lib.MW_COOKIE_CALL
        | domain << lib.MW_COOKIE_DOMAIN
        | int(point.layer) << lib.MW_COOKIE_LAYER
        | point.argument_shift << lib.MW_COOKIE_ARGUMENT_SHIFT
        | point.pushed_words << lib.MW_COOKIE_PUSHED_WORDS
    )
    return bits


def ring_bytes(cpus: int) -> int:
    """How large a ring a host of so many CPUs gets: the kernel wants a power of two."""
    return 1 << (RING_BYTES_PER_CPU * min(cpus, RING_CPUS_MAX) - 1).bit_length()


class TracingUnit:
    """One loaded unit; several processes may be traced by it, each with a slot for its counts."""

    def __init__(self, engine: Engine, unit: str, disabled: Collection[str] = ()) -> None:
        cpus = check(lib.mw_bpf_possible_cpus(), "count the CPUs", EngineError)
        self._cpus = cpus
        self._loaded = engine.load(unit, disabled, ring_bytes(cpus))
        self._links: list[int] = []
        self._free_slots = list(range(lib.MW_TARGETS_MAX - 1, -1, -1))
        self._slots: dict[int, int] = {}
        try:
            self._check_abi(unit)
        except HostError:
            self._loaded.close()
            raise

    def program(self, name: str) -> int:
        return self._loaded.programs[name]

    @property
    def ring_fd(self) -> int:
        return self._loaded.maps["trace_events"]

    def hold(self, link: int, doing: str) -> None:
        """Keep a tracepoint link until ``close()``; uprobe links are the governor's."""
        self._links.append(check(link, doing, EngineError))

    def add(self, pid: int) -> None:
        """Give a process its slot; nothing is traced until ``aim()``. HostError: no slot left."""
        if pid in self._slots:
            return
        if not self._free_slots:
            raise HostError(f"more than {lib.MW_TARGETS_MAX} processes are traced at once")
        self._slots[pid] = self._free_slots.pop()
        self.clear_counts(pid)

    def clear_counts(self, pid: int) -> None:
        """Begin to count anew; also the sampler's countdown, which was drawn for one interval and
        would be wrong for another. Only while no program runs for the process."""
        nothing = ffi.new("struct mw_target_counts[]", self._cpus)
        self._write("target_counts", ffi.new("uint32_t *", self._slots[pid]), nothing)

    def slot(self, pid: int) -> int:
        return self._slots[pid]

    def aim(self, pid: int, flags: int, **intervals: int) -> None:
        """Trace a process from now on, or change how; ``intervals`` as in ``struct mw_target``."""
        fields = {"flags": flags, "slot": self._slots[pid], **intervals}
        self._write("targets", ffi.new("uint32_t *", pid), ffi.new("struct mw_target *", fields))

    def remove(self, pid: int) -> None:
        """Trace a process no more; one that is not traced is no error."""
        slot = self._slots.pop(pid, None)
        if slot is None:
            return
        for name in ("targets", "pythons"):
            result = lib.mw_bpf_map_delete(self._loaded.maps[name], ffi.new("uint32_t *", pid))
            if result not in (0, -errno.ENOENT):
                check(result, f"take process {pid} out of {name}")
        self._free_slots.append(slot)

    def introduce(self, runtime: Runtime) -> None:
        """Tell the walker where a CPython process keeps its stacks."""
        key = ffi.new("uint32_t *", runtime.memory.pid)
        self._write("pythons", key, walker_settings(runtime))
        self.introduce_threads(runtime)

    def introduce_threads(self, runtime: Runtime) -> None:
        """Read the list of threads again: one was met that nobody had introduced."""
        for thread, state in walker_threads(runtime):
            self._write("python_threads", thread, state)

    def counts(self, pid: int) -> dict[str, int]:
        """What was counted for a process since ``clear_counts()``, all CPUs together."""
        values = ffi.new("struct mw_target_counts[]", self._cpus)
        key = ffi.new("uint32_t *", self._slots[pid])
        check(lib.mw_bpf_map_read(self._loaded.maps["target_counts"], key, values), "read counts")
        return {name: sum(getattr(values[i], name) for i in range(self._cpus)) for name in _COUNTS}

    def count_layout(self) -> CountLayout:
        """Where the governor reads what a window costs, and stops it."""
        return CountLayout(
            self._loaded.maps["target_counts"],
            self._loaded.maps["targets"],
            ffi.offsetof("struct mw_target", "flags"),
            lib.MW_TARGET_STOPPED,
            _PRICED,
        )

    def close(self) -> None:
        for link in self._links:
            os.close(link)
        self._links = []
        self._loaded.close()

    def _write(self, name: str, key: CData, value: Any) -> None:
        check(lib.mw_bpf_map_write(self._loaded.maps[name], key, value), f"write the map {name}")

    def _check_abi(self, unit: str) -> None:
        map_fd = self._loaded.maps.get(_ABI)
        if map_fd is None:
            return
        abi = ffi.new("uint32_t *")
        rc = lib.mw_bpf_map_read(map_fd, ffi.new("uint32_t *", 0), abi)
        check(rc, f"read the version of {unit}", EngineError)
        if abi[0] != lib.MW_TRACE_ABI:
            raise EngineError(
                f"cannot use {unit}: its object speaks version {abi[0]} of trace_events.h, "
                f"we speak {lib.MW_TRACE_ABI}",
                _MIXED,
            )
