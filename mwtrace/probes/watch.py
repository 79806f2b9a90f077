"""The first tier in place: the process table and the tracepoints of ``bpf/watch.bpf.c``.

The only module that knows the names of that unit's programs, maps and tracepoints. It says which
tracepoints this kernel lacks; what the records and events mean is the aggregator's business.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from mwtrace.capi import check, ffi, lib
from mwtrace.errors import EngineError
from mwtrace.probes.engine import Engine, Loaded
from mwtrace.probes.namespace import pid_namespace
from mwtrace.probes.ring import Ring

if TYPE_CHECKING:
    from mwtrace._cext import CData

UNIT = "watch"

TABLE = "process_table"
# Program -> where it attaches, and what is not seen without it.
TRACEPOINTS = {
    "process_exec": ("sched_process_exec", "a process that runs another program keeps its history"),
    "process_exit": ("sched_process_exit", "the end of a process is seen at the next tick"),
    "oom_victim": ("mark_victim", "OOM kills are not told"),
}

LIFECYCLE = "lifecycle"
LOSSES = "losses"
CONFIG = "watch_config"
ABI = ".rodata.abi"  # libbpf's objects only; bcc compiles the header that we hold
MAPS = {LIFECYCLE, LOSSES, CONFIG}

# enum mw_loss, without its prefix and without its count.
LOSS_SLOTS = {
    name[len("MW_LOSS_") :].lower(): slot
    for name, slot in ffi.typeof("enum mw_loss").relements.items()
    if name != "MW_LOSSES"
}

_MIXED = "Install mwtrace again: parts of two versions are mixed."


class Watch:
    """Programs loaded and attached from construction to ``close()``; nothing stays in the kernel.

    ``missing`` names the tracepoints that this kernel lacks, each with what is not seen for it.
    ``iterator_fd`` is what a tick of the aggregator reads the process table by. Events go to
    aggregator, a ``struct mw_aggregator *``, whenever ``ring`` waits.

    Raises EngineError, with what the operator can do about it; the caller can then read /proc.
    """

    def __init__(self, engine: Engine, aggregator: CData) -> None:
        namespace = pid_namespace()
        self.missing: list[str] = []
        with contextlib.ExitStack() as undo:
            self._loaded = engine.load(UNIT)
            undo.callback(self._loaded.close)
            _check_unit(self._loaded)
            _configure(self._loaded.maps[CONFIG], namespace)
            link = lib.mw_link_iterator(self._loaded.programs[TABLE])
            self.iterator_fd = check(link, "make the process table", EngineError)
            undo.callback(os.close, self.iterator_fd)
            for program, (tracepoint, unseen) in TRACEPOINTS.items():
                link = lib.mw_link_raw_tracepoint(
                    self._loaded.programs[program], tracepoint.encode()
                )
                if link == -errno.ENOENT:
                    self.missing.append(f"{tracepoint}: not in this kernel; {unseen}")
                else:
                    check(link, f"attach to the tracepoint {tracepoint}", EngineError)
                    undo.callback(os.close, link)
            self.ring = Ring(self._loaded.maps[LIFECYCLE], aggregator)
            undo.callback(self.ring.close)
            self._undo = undo.pop_all()

    def losses(self) -> dict[str, int]:
        """Return what the programs could not tell us, since they were loaded, by kind."""
        total = ffi.new("uint64_t *")
        counts = {}
        for name, slot in LOSS_SLOTS.items():
            check(
                lib.mw_bpf_map_sum_cpus(self._loaded.maps[LOSSES], slot, total),
                "read what the programs lost",
            )
            counts[name] = int(total[0])
        return counts

    def close(self) -> None:
        """Detach and unload; a second call does nothing."""
        self._undo.close()


def _check_unit(loaded: Loaded) -> None:
    """Refuse an object that is not the one this module was written for."""
    programs = {TABLE, *TRACEPOINTS}
    if set(loaded.programs) != programs or set(loaded.maps) - {ABI} != MAPS:
        found = ", ".join(sorted([*loaded.programs, *loaded.maps]))
        raise EngineError(f"cannot use {UNIT}: its object has other parts ({found})", _MIXED)
    if ABI in loaded.maps:
        abi = ffi.new("uint32_t *")
        rc = lib.mw_bpf_map_read(loaded.maps[ABI], ffi.new("uint32_t *", 0), abi)
        check(rc, f"read the version of {UNIT}", EngineError)
        if abi[0] != lib.MW_EVENTS_ABI:
            raise EngineError(
                f"cannot use {UNIT}: its object speaks version {abi[0]} of events.h, "
                f"we speak {lib.MW_EVENTS_ABI}",
                _MIXED,
            )


def _configure(map_fd: int, namespace: int) -> None:
    """Let the programs speak."""
    cpus = check(lib.mw_bpf_possible_cpus(), "count the CPUs", EngineError)
    config = ffi.new("struct mw_watch_config *")
    config.events_abi = lib.MW_EVENTS_ABI
    config.cpus_summed = cpus if cpus <= lib.MW_CPUS_SUMMED_MAX else 0
    config.pid_namespace = namespace
    rc = lib.mw_bpf_map_write(map_fd, ffi.new("uint32_t *", 0), config)
    check(rc, "configure the watch", EngineError)
