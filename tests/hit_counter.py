"""The test's own BPF program, loaded for one attach kind, and what it has counted.

Loaded through libbpf by ctypes and not by mwtrace's engine: the tests of attaching shall not
depend on how the product's programs are loaded.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from mwtrace.capi import lib
from mwtrace.probes.attach import AttachKind, AttachReport, Programs, attach
from mwtrace.probes.placer import Placer
from mwtrace.probes.points import AttachPoint
from mwtrace.probes.targets import Targets, follow_tails
from mwtrace.probes.windows import CountLayout

SOURCE = Path(__file__).parent / "kernel" / "hits.bpf.c"
COUNTS = ("hits_total", "returns_total", "stopped_hits_total")


class Seen(NamedTuple):
    hits: int
    returns: int
    sum: int
    nulls: int
    other_pids: int


class HitCounter:
    def __init__(self, folder: Path, kind: AttachKind) -> None:
        target = folder / "hits.bpf.o"
        if not target.exists():
            machine = os.uname().machine
            command = [
                "clang",
                "-g",
                "-O2",
                "-target",
                "bpf",
                "-ffreestanding",
                "-mcpu=v3",
                "-Wall",
                "-Werror",
            ]
            command += [f"-I/usr/include/{machine}-linux-gnu", "-c", str(SOURCE), "-o", str(target)]
            subprocess.run(command, check=True)
        self.kind = kind
        self._bpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
        self._bpf.bpf_object__open_file.restype = ctypes.c_void_p
        self._bpf.bpf_object__find_program_by_name.restype = ctypes.c_void_p
        self._object = ctypes.c_void_p(self._bpf.bpf_object__open_file(str(target).encode(), None))
        assert self._object
        wanted = {"session"} if kind is AttachKind.SESSION else set()
        wanted |= {"enter", "leave"}
        self._fds = {}
        programs = {}
        for name in ("enter", "leave", "session"):
            found = self._bpf.bpf_object__find_program_by_name(self._object, name.encode())
            program = ctypes.c_void_p(found)
            self._bpf.bpf_program__set_autoload(program, name in wanted)
            if name == "session":
                expected = lib.MW_ATTACH_TYPE_SESSION
            else:
                expected = 0 if kind is AttachKind.PERF else lib.MW_ATTACH_TYPE_MULTI
            self._bpf.bpf_program__set_expected_attach_type(program, expected)
            programs[name] = program
        assert self._bpf.bpf_object__load(self._object) == 0
        for name in wanted:
            self._fds[name] = self._bpf.bpf_program__fd(programs[name])
        self.programs = Programs(
            self._fds.get("session", -1),
            self._fds["enter"],
            self._fds["leave"],
            self._fds["enter"],
        )

    def close(self) -> None:
        self._bpf.bpf_object__close(self._object)

    def map_fd(self, name: str) -> int:
        fd: int = self._bpf.bpf_object__find_map_fd_by_name(self._object, name.encode())
        assert fd >= 0
        return fd

    def allow(self, pid: int, slot: int = 0, flags: int = 0) -> None:
        key = ctypes.c_uint32(pid)
        value = (ctypes.c_uint32 * 4)(0, 0, slot, flags)
        fd = self.map_fd("targets")
        assert self._bpf.bpf_map_update_elem(fd, ctypes.byref(key), ctypes.byref(value), 0) == 0

    def seen(self, index: int) -> Seen:
        key = ctypes.c_uint32(index)
        value = (ctypes.c_uint64 * 5)()
        fd = self.map_fd("seen")
        assert self._bpf.bpf_map_lookup_elem(fd, ctypes.byref(key), ctypes.byref(value)) == 0
        return Seen(*value)

    def layout(self) -> CountLayout:
        return CountLayout(self.map_fd("counts"), self.map_fd("targets"), 12, 1, COUNTS)

    def attach(self, pid: int, points: list[AttachPoint]) -> AttachReport:
        """Cookies are the points' indexes; forwarded ones look at the second argument."""
        numbers = {point: i for i, point in enumerate(points)}
        return attach(
            pid,
            points,
            self.programs,
            self.kind,
            lambda point: numbers[point] | point.argument_shift << 8,
        )


def placed_points(pid: int, symbols: tuple[str, ...] = ()) -> list[AttachPoint]:
    """All points of a process (or those of the symbols), placed, forwarders followed."""
    placer = Placer()
    points = [p for p in Targets().look_at(pid).points if not symbols or p.symbol in symbols]
    return placer.place(follow_tails(pid, placer.place(points)))


def byte_at(pid: int, point: AttachPoint) -> bytes:
    """The byte in the process's memory where the point's probe would be."""
    start = int(point.path.rsplit("/", 1)[1].split("-")[0], 16)
    with open(f"/proc/{pid}/maps") as maps:
        offset = next(int(x.split()[2], 16) for x in maps if x.startswith(f"{start:x}-"))
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        return os.pread(memory.fileno(), 1, start + point.file_offset - offset)
