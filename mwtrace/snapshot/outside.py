"""The outside writer: a process's object graph, read by us and written as a snapshot.

Wraps ``cext/outside.h``. The process, or a child of it that stands still, runs
none of our code and gets no page dirtied; the price is that edges are conservative: a word that
equals an object's address counts as a reference to it. The file's form is docs/snapshot-format.md.
It must not know how a child is made, nor where files are kept.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mwtrace
from mwtrace.capi import ffi, lib
from mwtrace.errors import ProcessError, ProcessUnreadable, Unreadable
from mwtrace.evidence.image import Budget, Image, process_error, struct_values
from mwtrace.evidence.interpreter import Interpreter, find_interpreter, looks_like_python
from mwtrace.snapshot.pack import Pack, Strings, check_written
from mwtrace.snapshot.threads import RunningFrame, read_runtime, running_frames, sys_modules

if TYPE_CHECKING:
    from mwtrace._cext import CData
    from mwtrace.cpython.runtime import Runtime

MAGIC = b"MWSNAP\x00\x01"
WRITER = "outside"
BUDGET_S = 300.0
OBJECTS_MIB_MAX = 65_536  # of private memory that holds objects: 512 MiB of ours at the most
_REFERENTS_MAX = 1 << 20  # of one object that we ask about
_NAME_BYTES = 512
_UNKNOWN = 0xFFFFFFFF
_MODULE, _FRAME, _INTERPRETER = 0, 1, 2  # kinds of ROOT
_LOCAL = 3  # kind of NAME
_FRAME_TYPE = 1  # no address: for frames that are no objects, where no frame object was met

_STOPPED = {
    -errno.ETIME: "the time for it was up",
    -errno.ECANCELED: "it was cancelled",
    -errno.ESRCH: "the process ended or ran another program",
}


@dataclass(frozen=True)
class Written:
    """What went into a file."""

    objects: int
    edges: int
    names: int
    roots: int
    plain_bytes: int
    file_bytes: int
    elapsed_s: float
    truncated: str  # why it is not whole; "" if it is
    totals: Mapping[str, int]  # struct mw_outside_totals


def write_snapshot(
    pid: int,
    descriptor: int,
    header: Mapping[str, Any] | None = None,
    budget: Budget | None = None,
    bytes_max: int = 0,
) -> Written:
    """Write the objects of process pid, live or standing still, as a snapshot to a descriptor.

    header goes into the file's ``HEAD`` before what is found here (for a frozen child it says
    whose it is). bytes_max: of the file, 0 for no limit.

    Raises ProcessGone; ProcessUnreadable for a process that runs no CPython we know; OSError if
    the file cannot be written (EFBIG: it would be larger than bytes_max).
    """
    began_s = time.monotonic()
    budget = budget or Budget(BUDGET_S)
    with Image(pid) as image:
        interpreter = find_interpreter(image)
        if interpreter is None:
            what = "a CPython that we cannot read" if looks_like_python(image) else "no CPython"
            raise ProcessUnreadable(f"process {pid} runs {what}", Unreadable.OTHER)
        with Pack(descriptor, bytes_max) as pack:
            runtime = read_runtime(image)
            _begin(pack, image, interpreter, runtime, header or {})
            return _write(pack, image, interpreter, runtime, budget, began_s)


def take_outside(
    pid: int,
    path: Path,
    header: Mapping[str, Any] | None = None,
    budget: Budget | None = None,
    bytes_max: int = 0,
) -> Written:
    """Write a snapshot file; it has its name only once it is whole. Raises as write_snapshot()."""
    part = path.with_name(path.name + ".part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(part, flags, 0o600)
    try:
        written = write_snapshot(pid, descriptor, header, budget, bytes_max)
        os.fsync(descriptor)
        os.rename(part, path)
    except BaseException:
        os.unlink(part)
        raise
    finally:
        os.close(descriptor)
    return written


def _begin(
    pack: Pack,
    image: Image,
    interpreter: Interpreter,
    runtime: Runtime | None,
    header: Mapping[str, Any],
) -> None:
    pack.put(MAGIC)
    found: dict[str, Any] = {
        "pid": image.pid,
        "python": str(runtime.version) if runtime else f"3.{interpreter.minor}",
        "implementation": "cpython",
        "writer": WRITER,
        "unix_time_s": time.time(),
        "monotonic_s": time.monotonic(),
        "rss_bytes": image.kernel.anon_bytes + image.kernel.file_bytes + image.kernel.shmem_bytes,
        "threads": _thread_count(image.pid),
        "gc_counts": None,
        "pause_s": None,
        "mwtrace": mwtrace.__version__,
    }
    pack.json(b"HEAD", {**found, **header})


def _thread_count(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0


def _write(
    pack: Pack,
    image: Image,
    interpreter: Interpreter,
    runtime: Runtime | None,
    budget: Budget,
    began_s: float,
) -> Written:
    with _Graph(image, interpreter, budget) as graph:
        graph.write(pack, budget)
        totals = graph.totals()
        strings = Strings(pack, graph.string_count())
        frames = _stable_frames(runtime)
        roots = _put_modules(pack, strings, graph, runtime)
        roots += _put_frames(pack, strings, graph, frames)
        pack.json(b"TYPE", [*graph.types(), (_FRAME_TYPE, "frame", 0)])
        truncated = _STOPPED.get(totals["stopped"], "")
        if not truncated and totals["objects_untracked_total"]:
            truncated = f"{totals['objects_untracked_total']} objects were too many"
        objects = totals["objects"] + graph.own_rows
        edges = totals["edges"] + graph.own_edges
        names = totals["names"] + graph.own_names
        end = {"objects": objects, "edges": edges, "names": names}
        pack.json(b"END ", {**end, "truncated": bool(truncated), "reason": truncated})
        pack.finish()
        plain_bytes, file_bytes = pack.sizes()
        elapsed_s = time.monotonic() - began_s
        return Written(
            objects,
            edges,
            names,
            roots,
            plain_bytes,
            file_bytes,
            elapsed_s,
            truncated,
            totals,
        )


def _stable_frames(runtime: Runtime | None) -> list[RunningFrame]:
    if runtime is None:
        return []
    try:
        return running_frames(runtime)
    except ProcessError:
        return []  # it ended meanwhile, which the totals say


def _put_modules(pack: Pack, strings: Strings, graph: _Graph, runtime: Runtime | None) -> int:
    """Write the roots that the interpreter has: the modules in sys.modules, or all there are."""
    table = sys_modules(runtime) if runtime else 0
    held = set(graph.referents(table)) if table else set()
    rows = [(table, strings.number("sys.modules"), _INTERPRETER)] if held else []
    for address, name in graph.modules():
        if not held or address in held:
            rows.append((address, strings.number(name), _MODULE))
    strings.flush()
    _put_roots(pack, rows)
    return len(rows)


def _put_frames(pack: Pack, strings: Strings, graph: _Graph, frames: Sequence[RunningFrame]) -> int:
    """Write the running frames as roots; those that are no objects get rows, too."""
    frame_type = graph.type_named("frame") or _FRAME_TYPE
    rows = [(frame.address, strings.number(frame.text), _FRAME) for frame in frames]
    names: list[tuple[int, int, int, int]] = []
    own: dict[int, list[int]] = {}
    for frame in frames:
        if frame.is_object or frame.address in own:
            continue
        own[frame.address] = graph.filter(frame.words)
        for index, target in enumerate(frame.words[frame.locals_at :]):
            name = graph.local_name(frame.code, index) if graph.filter((target,)) else ""
            if name:
                names.append((frame.address, target, strings.number(name), _LOCAL))
    strings.flush()
    if own:
        referents = [target for targets in own.values() for target in targets]
        count = len(own)
        pack.chunk(
            b"OBJS",
            struct.pack(f"<II{count}Q", count, 0, *own)
            + struct.pack(f"<{count}Q", *[frame_type] * count)
            + struct.pack(f"<{count}I", *[0] * count)
            + struct.pack(f"<{count}I", *[_UNKNOWN] * count)
            + struct.pack(f"<{count}I", *map(len, own.values()))
            + struct.pack(f"<{len(referents)}Q", *referents),
        )
        graph.own_rows += count
        graph.own_edges += len(referents)
    if names:
        sources, targets, texts, kinds = zip(*names)
        count = len(names)
        pack.chunk(
            b"NAME",
            struct.pack(f"<I{count}Q", count, *sources)
            + struct.pack(f"<{count}Q{count}I", *targets, *texts)
            + bytes(kinds),
        )
        graph.own_names += count
    _put_roots(pack, rows)
    return len(rows)


def _put_roots(pack: Pack, rows: Sequence[tuple[int, int, int]]) -> None:
    if not rows:
        return
    ids, texts, kinds = zip(*rows)
    count = len(rows)
    pack.chunk(
        b"ROOT",
        struct.pack(f"<I{count}Q", count, *ids) + struct.pack(f"<{count}I", *texts) + bytes(kinds),
    )


class _Graph:
    """``struct mw_outside``: the objects of one image."""

    def __init__(self, image: Image, interpreter: Interpreter, budget: Budget) -> None:
        made = ffi.new("struct mw_outside **")
        rc = lib.mw_outside_open(image.regions, interpreter.c, OBJECTS_MIB_MAX, budget.c, made)
        if rc:
            raise process_error(rc, image.pid, "read the objects")
        self.c = made[0]
        self.own_rows = self.own_edges = self.own_names = 0
        self._local_names: dict[tuple[int, int], str] = {}

    def __enter__(self) -> _Graph:
        return self

    def __exit__(self, *_: object) -> None:
        lib.mw_outside_close(self.c)
        self.c = ffi.NULL

    def write(self, pack: Pack, budget: Budget) -> None:
        check_written(lib.mw_outside_write(self.c, pack.c, budget.c))

    def totals(self) -> dict[str, int]:
        totals = ffi.new("struct mw_outside_totals *")
        lib.mw_outside_get_totals(self.c, totals)
        return struct_values("struct mw_outside_totals", totals)

    def string_count(self) -> int:
        return int(lib.mw_outside_strings(self.c))

    def types(self) -> list[tuple[int, str, int]]:
        """Return (address, module-qualified name, basic size) of all types of written objects."""
        address, basic = ffi.new("uint64_t *"), ffi.new("uint32_t *")
        name = ffi.new("char[]", _NAME_BYTES)
        found: list[tuple[int, str, int]] = []
        while lib.mw_outside_type(self.c, len(found), address, basic, name, _NAME_BYTES):
            found.append((int(address[0]), _text(name), int(basic[0])))
        return found

    def type_named(self, wanted: str) -> int:
        return next((address for address, name, _ in self.types() if name == wanted), 0)

    def modules(self) -> Iterable[tuple[int, str]]:
        name = ffi.new("char[]", _NAME_BYTES)
        index = 0
        while True:
            address = int(lib.mw_outside_module(self.c, index, name, _NAME_BYTES))
            if not address:
                return
            yield address, _text(name)
            index += 1

    def referents(self, address: int) -> list[int]:
        found = ffi.new("uint64_t[]", _REFERENTS_MAX)
        count = int(lib.mw_outside_referents(self.c, address, found, _REFERENTS_MAX))
        return list(found[0 : max(0, min(count, _REFERENTS_MAX))])

    def filter(self, words: Sequence[int]) -> list[int]:
        buffer = ffi.new("uint64_t[]", list(words))
        return list(buffer[0 : lib.mw_outside_filter(self.c, buffer, len(words))])

    def local_name(self, code: int, index: int) -> str:
        known = self._local_names.get((code, index))
        if known is None:
            name = ffi.new("char[]", _NAME_BYTES)
            lib.mw_outside_local(self.c, code, index, name, _NAME_BYTES)
            known = self._local_names[code, index] = _text(name)
        return known


def _text(buffer: CData) -> str:
    return ffi.string(buffer).decode("utf-8", "replace")
