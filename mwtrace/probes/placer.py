"""Attach points in, the same points with their places out: files read, the disassembler asked.

Places of one file are found once and remembered by build id, for the files of a host are few. It
must not know which functions are wanted, nor attach anything.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Any

from mwtrace.capi import ffi, lib
from mwtrace.errors import HostError
from mwtrace.host.elf import ElfError, ElfFacts, open_regular, read_facts
from mwtrace.probes.placement import EMULATED, Kind
from mwtrace.probes.points import AttachPoint, Placement, Tail

# Short jumps reach 128 bytes; a place lies in the first 64. Farther jumps are found by C.
PLACE_BYTES_MAX = 64
CODE_BYTES = PLACE_BYTES_MAX + 128
UNSIZED_BYTES = CODE_BYTES  # where the file does not state a function's size
TEXT_BYTES_MAX = 512 << 20
BRANCHES_MAX = 256
FILES_MAX = 64  # remembered; more than a host has allocators and interpreters
HELPER_TIMEOUT_S = 20.0


class Placer:
    """Finds places and remembers them."""

    def __init__(self, emulated: Collection[Kind] = EMULATED) -> None:
        self._emulated = frozenset(emulated)
        self._known: OrderedDict[tuple[Any, ...], Placement] = OrderedDict()

    def place(self, points: Sequence[AttachPoint]) -> list[AttachPoint]:
        """Give each point its placement; where that cannot be found out, offset 0 and the reason.

        Points keep their order. Raises nothing for a strange file: a probe at a function's first
        byte is always valid, merely dearer.
        """
        placed = list(points)
        for path in dict.fromkeys(point.path for point in points):
            mine = [i for i, point in enumerate(placed) if point.path == path]
            found = self._place_file(path, [placed[i] for i in mine])
            for i, placement in zip(mine, found):
                placed[i] = placed[i]._replace(placement=placement)
        return placed

    def _place_file(self, path: str, points: Sequence[AttachPoint]) -> list[Placement]:
        try:
            fd = open_regular(path)
        except ElfError as error:
            return [_first_byte(str(error))] * len(points)
        try:
            facts = read_facts(fd)
            keys = [
                (*_identity(fd, facts), p.function_offset, p.call, p.argument_shift) for p in points
            ]
            unknown = [i for i, key in enumerate(keys) if key not in self._known]
            if unknown:
                answers = self._ask(fd, facts, [points[i] for i in unknown])
                for i, answer in zip(unknown, answers):
                    self._known[keys[i]] = answer
            found = [self._known[key] for key in keys]
        except (ElfError, HostError, OSError) as error:
            return [_first_byte(str(error))] * len(points)
        finally:
            os.close(fd)
        while len(self._known) > FILES_MAX * 32:
            self._known.popitem(last=False)
        return found

    def _ask(self, fd: int, facts: ElfFacts, points: Sequence[AttachPoint]) -> list[Placement]:
        if facts.machine not in ("x86-64", "aarch64"):
            return [_first_byte(f"no disassembler for {facts.machine}")] * len(points)
        targets = _far_targets(fd, facts, points)
        functions = []
        for point, jumped_to in zip(points, targets):
            size = min(point.size_bytes or UNSIZED_BYTES, CODE_BYTES)
            functions.append(
                {
                    "code": os.pread(fd, size, point.function_offset).hex(),
                    "address": facts.address_of(point.function_offset) or 0,
                    "call": point.call.name,
                    "argument_shift": point.argument_shift,
                    "branch_targets": sorted(jumped_to),
                }
            )
        request = {
            "machine": facts.machine,
            "emulated": sorted(kind.value for kind in self._emulated),
            "functions": functions,
        }
        return [_placement(raw) for raw in _helper(request, len(points))]


def _identity(fd: int, facts: ElfFacts) -> tuple[Any, ...]:
    # A build id is 20 bytes of the file's own choosing: a forged one must not lend its places to
    # another file, so it counts only together with what cannot be forged.
    status = os.fstat(fd)
    return (facts.build_id, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _first_byte(reason: str) -> Placement:
    return Placement(0, "?", False, reason)


def _far_targets(fd: int, facts: ElfFacts, points: Sequence[AttachPoint]) -> list[frozenset[int]]:
    # Offsets behind each function's first byte that far jumps of the same segment go to.
    found: dict[int, set[int]] = {point.function_offset: set() for point in points}
    if facts.machine != "x86-64":
        return [frozenset() for _ in points]
    for segment in facts.segments:
        end = segment.file_offset + segment.file_bytes
        starts = sorted(start for start in found if segment.file_offset <= start < end)
        if not segment.is_executable or not starts:
            continue
        if segment.file_bytes > TEXT_BYTES_MAX:
            raise HostError(f"more code than we search for jumps: {segment.file_bytes} bytes")
        branches = ffi.new("struct mw_branch[]", BRANCHES_MAX)
        count = lib.mw_branches_into(
            fd,
            segment.file_offset,
            segment.file_bytes,
            starts,
            len(starts),
            PLACE_BYTES_MAX,
            branches,
            BRANCHES_MAX,
        )
        if count < 0:
            raise HostError(f"cannot read the code: {os.strerror(-count)}")
        if count > BRANCHES_MAX:
            raise HostError(f"{count} jumps into the first bytes of functions")
        for branch in branches[0:count]:
            found[starts[branch.function]].add(branch.offset)
    return [frozenset(found[point.function_offset]) for point in points]


def _helper(request: dict[str, Any], count: int) -> list[Any]:
    # -I: neither the environment nor the working directory may choose what runs here as root.
    command = [sys.executable, "-I", "-m", "mwtrace.probes.disassembly"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=HELPER_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"the disassembler gave no answer: {error}") from error
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise HostError(
            f"the disassembler failed: {' '.join(last)}",
            "Install mwtrace with its extra 'trace' (capstone).",
        )
    answer = json.loads(done.stdout)
    if not isinstance(answer, list) or len(answer) != count:
        raise HostError("the disassembler answered something else")
    return answer


def _placement(raw: Any) -> Placement:
    offset, instruction, is_emulated, why, pushed_words, raw_tail = raw
    tail: Tail | None = None
    if raw_tail is not None:
        tail = Tail(raw_tail[0], tuple(raw_tail[1]), raw_tail[2])
    return Placement(offset, instruction, is_emulated, why, pushed_words, tail)
