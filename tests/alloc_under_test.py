"""The real allocation probes on one process, attached at function entries, read slowly.

Where a probe is best placed is not tested here: offset 0 of each function will do, whatever it
costs. Events are read straight from the ring, and stay as C structs.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from ring_reader import RingReader

from mwtrace.capi import check, ffi, lib
from mwtrace.host.procfs import Host
from mwtrace.probes.engine import Engine
from mwtrace.probes.engines import choose

RING_BYTES = 1 << 20


class Way(NamedTuple):
    """By which engine programs are loaded, and how they are attached."""

    engine: str
    kind: str

    def __str__(self) -> str:
        return f"{self.engine}-{self.kind}"


ENGINES = ("libbpf", "bcc")
WAYS = (
    Way("libbpf", "session"),
    Way("libbpf", "multi"),
    Way("libbpf", "perf"),
    Way("bcc", "multi"),  # no session: it takes kernel functions, which bcc's text cannot call
    Way("bcc", "perf"),
)
BEST_WAYS = (WAYS[0], WAYS[3])  # what each engine would choose here
PROGRAMS = {
    "session": ["block_session", "free_enter_multi"],
    "multi": ["block_enter_multi", "block_return_multi", "free_enter_multi"],
    "perf": ["block_enter", "block_return", "free_enter"],
}

# Symbol -> (call, layer).
LIBC = {
    "malloc": (lib.MW_CALL_MALLOC, 0),
    "calloc": (lib.MW_CALL_CALLOC, 1),
    "realloc": (lib.MW_CALL_REALLOC, 1),
    "reallocarray": (lib.MW_CALL_REALLOCARRAY, 2),
    "aligned_alloc": (lib.MW_CALL_ALIGNED, 2),
    "memalign": (lib.MW_CALL_ALIGNED, 1),
    "posix_memalign": (lib.MW_CALL_POSIX_MEMALIGN, 2),
    "valloc": (lib.MW_CALL_MALLOC, 2),
    "pvalloc": (lib.MW_CALL_MALLOC, 2),
    "free": (lib.MW_CALL_FREE, 0),
}


class Probe(NamedTuple):
    path: str
    offset: int  # in the file
    call: int
    layer: int = 0
    domain: int = lib.MW_DOMAIN_NATIVE

    @property
    def cookie(self) -> int:
        return (
            self.call << lib.MW_COOKIE_CALL
            | self.domain << lib.MW_COOKIE_DOMAIN
            | self.layer << lib.MW_COOKIE_LAYER
        )


def file_place(pid: int, address: int) -> tuple[str, int]:
    """Return the file that is mapped at address, by a path that is valid here, and the offset."""
    with open(f"/proc/{pid}/maps") as maps:
        for line in maps:
            span, _, offset, *_ = line.split()
            low, high = (int(part, 16) for part in span.split("-"))
            if low <= address < high:
                return f"/proc/{pid}/map_files/{low:x}-{high:x}", address - low + int(offset, 16)
    raise AssertionError(f"nothing is mapped at {address:#x}")


def outcomes(counts: dict[str, int]) -> int:
    """Add up how calls ended; trace_events.h says that they are the hits."""
    ends = "nested unsampled failed blocks dropped_blocks untracked abandoned".split()
    ends += ["frees", "dropped_frees", "unwatched_frees"]
    return sum(counts[f"{end}_total"] for end in ends)


@functools.cache
def engine_of(name: str) -> Engine:
    """Return an engine that is kept, so that bcc compiles each unit once."""
    return choose(name, Host())


class TracingUnit:
    """A unit of bpf/ with the maps that tracing units share, for one target."""

    def __init__(self, engine: str, unit: str, programs: Sequence[str] = ()) -> None:
        self._undo = contextlib.ExitStack()
        disabled: Sequence[str] = ()
        if programs:
            everything = {name for names in PROGRAMS.values() for name in names}
            disabled = sorted(everything - set(programs))
        self.loaded = engine_of(engine).load(unit, disabled)
        self._undo.callback(self.loaded.close)
        self._ring = RingReader(self.loaded.maps["trace_events"], RING_BYTES)
        self._undo.callback(self._ring.close)
        self.blocks: list[Any] = []
        self.stacks: dict[int, Any] = {}
        self.threads: list[Any] = []

    def aim(self, pid: int, flags: int = 0, **intervals: int) -> None:
        """Trace pid, or change how."""
        target = ffi.new("struct mw_target *", {"flags": flags, "slot": 7, **intervals})
        self.write("targets", ffi.new("uint32_t *", pid), target)

    def write(self, name: str, key: Any, value: Any) -> None:
        check(lib.mw_bpf_map_write(self.loaded.maps[name], key, value), f"write {name}")

    def counts(self) -> Counter[str]:
        """Return what was counted, all CPUs together, without zeros."""
        cpus = lib.mw_bpf_possible_cpus()
        values = ffi.new("struct mw_target_counts[]", cpus)
        map_fd = self.loaded.maps["target_counts"]
        check(lib.mw_bpf_map_read(map_fd, ffi.new("uint32_t *", 7), values), "read the counts")
        total: Counter[str] = Counter()
        for name, _ in ffi.typeof("struct mw_target_counts").fields:
            if name.endswith("_total"):
                total[name] = sum(getattr(value, name) for value in values)
        return +total

    def hold(self, link: int) -> None:
        """Keep a link until ``close()``."""
        self._undo.callback(os.close, check(link, "attach"))

    def drain(self) -> list[Any]:
        """Read the ring; return the block events that were new."""
        fresh = []
        for data in self._ring.drain():
            record = int.from_bytes(data[:4], "little")
            if record == lib.MW_RECORD_BLOCK:
                fresh.append(_copy("struct mw_block_event", data))
            elif record == lib.MW_RECORD_STACK:
                stack = _copy("struct mw_stack_event", data)
                self.stacks[stack.stack] = stack
            else:
                assert record == lib.MW_RECORD_THREAD
                self.threads.append(_copy("struct mw_thread_event", data))
        self.blocks += fresh
        return fresh

    def close(self) -> None:
        self._undo.close()


def _copy(type_name: str, data: bytes) -> Any:
    value = ffi.new(f"{type_name} *")
    assert len(data) <= ffi.sizeof(type_name)
    ffi.memmove(value, data, len(data))
    return value


class AllocUnderTest(TracingUnit):
    """bpf/alloc.bpf.c on one process, by one of the ways to load and attach."""

    def __init__(self, way: Way, pid: int, probes: Sequence[Probe]) -> None:
        kind = way.kind
        super().__init__(way.engine, "alloc", PROGRAMS[kind])
        self.pid = pid
        for path in sorted({probe.path for probe in probes}):
            here = [probe for probe in probes if probe.path == path]
            frees = [probe for probe in here if probe.call == lib.MW_CALL_FREE]
            blocks = [probe for probe in here if probe.call != lib.MW_CALL_FREE]
            attach = self._attach_perf if kind == "perf" else self._attach_multi
            if kind == "session":
                attach("block_session", blocks, lib.MW_UPROBE_SESSION)
            else:
                suffix = "_multi" if kind == "multi" else ""
                attach(f"block_return{suffix}", blocks, lib.MW_UPROBE_RETURN)
                attach(f"block_enter{suffix}", blocks, lib.MW_UPROBE_ENTRY)
            attach(
                "free_enter" if kind == "perf" else "free_enter_multi", frees, lib.MW_UPROBE_ENTRY
            )

    def _attach_multi(self, program: str, probes: Sequence[Probe], flags: int) -> None:
        if probes:
            self.hold(
                lib.mw_link_uprobes(
                    self.loaded.programs[program],
                    flags,
                    probes[0].path.encode(),
                    [probe.offset for probe in probes],
                    [probe.cookie for probe in probes],
                    ffi.NULL,
                    len(probes),
                    self.pid,
                )
            )

    def _attach_perf(self, program: str, probes: Sequence[Probe], flags: int) -> None:
        for probe in probes:
            self.hold(
                lib.mw_link_uprobe_perf(
                    self.loaded.programs[program],
                    probe.path.encode(),
                    probe.offset,
                    self.pid,
                    flags == lib.MW_UPROBE_RETURN,
                    probe.cookie,
                    0,
                )
            )
