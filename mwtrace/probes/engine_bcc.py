"""The second engine: the same source, compiled on this host by the distribution's bcc.

Needs neither the kernel's type information nor its headers. bcc is a compiler only, in a process
that ends when it has answered; maps and programs are made here, after the plan that the prebuilt
object holds. Where the kernel keeps what programs read of a task is measured (``cext/offsets.h``).
Compiled once per unit, loaded as often as wanted.

The only module that knows what bcc wants. Knows no program, but those that cannot be had this way.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import re
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mwtrace.capi import check, ffi, lib
from mwtrace.errors import EngineError
from mwtrace.host.bcc import REMEDY, Bcc
from mwtrace.probes.engine_libbpf import LibbpfEngine, object_bytes
from mwtrace.probes.flatten import flatten
from mwtrace.probes.linking import Program, link

if TYPE_CHECKING:
    from mwtrace._cext import CData

log = logging.getLogger(__name__)

# What the text cannot be compiled to without type information -> why, and what is done instead.
_UNITS_LACKED = {
    "watch": (
        "task iterators need the kernel's type information",
        "mwtrace reads /proc; on a kernel with BTF: --engine libbpf.",
    )
}
_COMPILER = Path(__file__).with_name("bcc_compiler.py")
_COMPILE_S_MAX = 60.0  # it takes 0.5 s on an idle machine
_WORDS_MAX = 2000
_LOG_BYTES = 64 * 1024
_LOG_LINES_SHOWN = 5

# Our text is whole. bcc's own headers, which would want the kernel's, are kept out by their guards.
_FLAGS = ["-DMW_BCC", "-D__BPF_HELPERS_H", "-D_UAPI__LINUX_BPF_H__", "-D__BCC_PROTO_H"]
_CALLBACK = re.compile(r"\bCALLBACK\((\w+)\)")
_REPORT = "Please report this with the output of 'mwtrace doctor'; --engine libbpf needs BTF only."


class _Unit(NamedTuple):
    """What is compiled of a unit, before any descriptor."""

    functions: Mapping[str, Sequence[int]]
    maps: tuple[str, ...]
    callbacks: tuple[str, ...]


class BccEngine:
    name = "bcc"
    lacked = frozenset({"block_session"})  # calls kernel functions, which needs type information

    def __init__(self, bcc: Bcc) -> None:
        self._bcc = bcc
        self._offsets: Mapping[str, int] = {}
        self._units: dict[str, _Unit] = {}

    def load(self, unit: str, disabled: Collection[str] = (), ring_bytes: int = 0) -> BccObject:
        if unit in _UNITS_LACKED:
            why, remedy = _UNITS_LACKED[unit]
            raise EngineError(f"cannot load {unit} by bcc: {why}", remedy)
        with ExitStack() as undo:
            plan = _open(unit)
            undo.callback(lib.mw_bpf_object_destroy, plan)
            if unit not in self._units:
                self._units[unit] = self._compile(unit, plan)
            lacked = self.lacked.union(disabled)
            return BccObject(unit, plan, self._units[unit], lacked, ring_bytes)

    def _compile(self, unit: str, plan: CData) -> _Unit:
        if not self._offsets:
            self._offsets = measure_offsets()
        text = source_text(unit)
        # Sections that libbpf makes maps of have a dot in their names.
        maps = tuple(name for name in _map_names(plan) if "." not in name)
        callbacks = tuple(dict.fromkeys(_CALLBACK.findall(text)))
        numbers = {f"MAP_{name}": number for number, name in enumerate(maps)}
        numbers.update({f"CALLBACK_{name}": number for number, name in enumerate(callbacks)})
        numbers.update({f"OFFSET_{name}": offset for name, offset in self._offsets.items()})
        flags = _FLAGS + [f"-D{name}={number}" for name, number in numbers.items()]
        return _Unit(_run_compiler(self._bcc, unit, text, flags), maps, callbacks)


class BccObject:
    """Programs and maps of one load; the descriptors are its own and end with ``close()``."""

    def __init__(
        self,
        unit: str,
        plan: CData,
        compiled: _Unit,
        disabled: Collection[str],
        ring_bytes: int,
    ) -> None:
        self.programs: Mapping[str, int] = {}
        self.maps: Mapping[str, int] = {}
        with ExitStack() as undo:
            undo.callback(self.close)
            self.maps = {name: _make_map(unit, plan, name, ring_bytes) for name in compiled.maps}
            fds = list(self.maps.values())
            for name in _program_names(plan):
                if name in disabled:
                    continue
                try:
                    program = link(name, compiled.functions, fds, compiled.callbacks)
                except LookupError as error:
                    raise EngineError(
                        f"cannot load {unit}: its text and its object differ ({error})",
                        "Install mwtrace again: parts of two versions are mixed.",
                    ) from error
                loaded = _load_program(unit, plan, name, program)
                self.programs = {**self.programs, name: loaded}
            undo.pop_all()

    def close(self) -> None:
        for fd in [*self.programs.values(), *self.maps.values()]:
            os.close(fd)
        self.programs = {}
        self.maps = {}


def source_text(unit: str) -> str:
    """Return a unit's whole source, as it is installed; raises EngineError if it is not."""
    folder = _source_folder()
    try:
        return flatten(f"{unit}.bpf.c", lambda name: (folder / name).read_text())
    except OSError as error:
        raise EngineError(
            f"cannot load {unit}: no source in this installation: {error}",
            "Install mwtrace again.",
        ) from error


def _source_folder() -> Path:
    return Path(str(resources.files("mwtrace"))) / "_bpf" / "source"


def measure_offsets() -> dict[str, int]:
    """Return where this kernel keeps what programs read of a task.

    Raises EngineError where that cannot be told: wrong places would be wrong answers.
    """
    machine = platform.machine()
    if machine != "x86_64":
        raise EngineError(
            f"cannot use bcc on {machine} machines", "Use a kernel with BTF: --engine libbpf."
        )
    peek = LibbpfEngine().load("peek")
    try:
        offsets = ffi.new("struct mw_offsets *")
        rc = lib.mw_offsets_measure(peek.programs["peek"], peek.maps["peek_window"], offsets)
        check(rc, "measure where this kernel keeps a task's words", EngineError)
    finally:
        peek.close()
    found = {name: getattr(offsets, name) for name, _ in ffi.typeof("struct mw_offsets").fields}
    unknown = [name for name, offset in found.items() if not offset]
    if unknown:
        raise EngineError(
            f"cannot tell where this kernel keeps a task's words ({', '.join(unknown)})", _REPORT
        )
    log.debug("measured: %s", found)
    return found


def _open(unit: str) -> CData:
    text = object_bytes(unit)
    ret = ffi.new("struct mw_bpf_object **")
    rc = lib.mw_bpf_object_open(text, len(text), unit.encode(), ffi.NULL, 0, ret)
    check(rc, f"read the object of {unit}", EngineError)
    plan: CData = ret[0]
    return plan


def _names(name_at: Callable[[CData, int], CData], plan: CData) -> Iterator[str]:
    index = 0
    while (name := name_at(plan, index)) != ffi.NULL:
        yield ffi.string(name).decode()
        index += 1


def _map_names(plan: CData) -> Iterator[str]:
    return _names(lib.mw_bpf_object_map_name, plan)


def _program_names(plan: CData) -> Iterator[str]:
    return _names(lib.mw_bpf_object_program_name, plan)


def _make_map(unit: str, plan: CData, name: str, ring_bytes: int) -> int:
    fd: int = lib.mw_bpf_object_map_create(plan, name.encode(), ring_bytes)
    if fd < 0:
        raise _refusal(f"cannot make the map {name} of {unit}", -fd, [])
    return fd


def _load_program(unit: str, plan: CData, name: str, program: Program) -> int:
    words = ffi.new("char[]", _LOG_BYTES)
    fd: int = lib.mw_bpf_object_program_replace(
        plan,
        name.encode(),
        program.code,
        len(program.code) // 8,
        program.callbacks,
        len(program.callbacks),
        words,
        _LOG_BYTES,
    )
    if fd < 0:
        lines = ffi.string(words).decode(errors="replace").splitlines()
        raise _refusal(f"cannot load {name} of {unit}, compiled by bcc", -fd, lines)
    return fd


def _run_compiler(bcc: Bcc, unit: str, text: str, flags: list[str]) -> dict[str, list[int]]:
    request = json.dumps({"text": text, "flags": flags})
    # bcc looks for the kernel's headers where this says, and takes one that says nothing.
    environment = {"BCC_KERNEL_SOURCE": str(_source_folder()), "LC_ALL": "C", "PATH": os.defpath}
    command = [bcc.python, "-I", "-S", str(_COMPILER), bcc.folder]
    try:
        done = subprocess.run(
            command,
            input=request,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_COMPILE_S_MAX,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"cannot compile {unit} by bcc: {error}", REMEDY) from error
    for line in done.stderr.splitlines():
        log.debug("bcc: %s: %s", unit, line)
    if done.returncode:
        words = done.stderr[-_WORDS_MAX:].strip() or f"it ended with {done.returncode}"
        raise EngineError(f"cannot compile {unit} by bcc: {words}", REMEDY)
    try:
        functions: dict[str, list[int]] = json.loads(done.stdout)
    except ValueError as error:
        raise EngineError(f"cannot compile {unit} by bcc: no answer: {error}", _REPORT) from error
    return functions


def _refusal(message: str, error: int, lines: list[str]) -> EngineError:
    if error == errno.EPERM:  # the verifier's own refusals are EACCES and EINVAL
        return EngineError(
            f"{message}: {os.strerror(error)}",
            "Run it with sudo, or with the capabilities CAP_BPF and CAP_PERFMON.",
        )
    last = "; ".join(line.strip() for line in lines[-_LOG_LINES_SHOWN:])
    return EngineError(f"{message}: {os.strerror(error)}{f' ({last})' if last else ''}", _REPORT)
