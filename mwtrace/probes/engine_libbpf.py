"""The default engine: objects compiled when mwtrace was built, fitted to this kernel by libbpf.

The only module that knows where objects lie and what libbpf's refusals mean. Knows no program.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import platform
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib import resources
from typing import TYPE_CHECKING

from mwtrace.capi import ffi, lib
from mwtrace.errors import EngineError

if TYPE_CHECKING:
    from mwtrace._cext import CData

log = logging.getLogger(__name__)

# What uname calls a machine -> the folder of its objects.
_ARCHITECTURES = {"x86_64": "x86", "aarch64": "arm64"}

# The verifier's reason is in the last lines; some programs take it many to get there.
_LOG_BYTES = 64 * 1024
_LOG_LINES_SHOWN = 5

_NO_PRIVILEGE = "Run it with sudo, or with the capabilities CAP_BPF and CAP_PERFMON."
_NO_BTF = (
    "This needs a kernel with CONFIG_DEBUG_INFO_BTF (a file /sys/kernel/btf/vmlinux); "
    "without it mwtrace reads /proc."
)
_OLD_KERNEL = "The watch needs Linux 5.8 or later; without it mwtrace reads /proc."
_REFUSED = "Please report this with the output of 'mwtrace doctor'; mwtrace reads /proc meanwhile."


class LibbpfEngine:
    """Loads the prebuilt objects that are installed beside this module."""

    name = "libbpf"
    lacked: frozenset[str] = frozenset()

    def load(self, unit: str, disabled: Collection[str] = (), ring_bytes: int = 0) -> LibbpfObject:
        return LibbpfObject(unit, object_bytes(unit), disabled, ring_bytes)


class LibbpfObject:
    """One loaded object; its descriptors are its own and end with ``close()``."""

    def __init__(
        self, unit: str, text: bytes, disabled: Collection[str] = (), ring_bytes: int = 0
    ) -> None:
        words = ffi.new("char[]", _LOG_BYTES)
        ret = ffi.new("struct mw_bpf_object **")
        rc = lib.mw_bpf_object_load(
            text,
            len(text),
            unit.encode(),
            ",".join(disabled).encode(),
            ring_bytes,
            words,
            _LOG_BYTES,
            ret,
        )
        lines = ffi.string(words).decode(errors="replace").splitlines()
        for line in lines:
            log.debug("%s: %s", unit, line)
        if rc < 0:
            raise _refusal(unit, -rc, lines)
        self._object = ret[0]
        self.programs: Mapping[str, int] = {
            name: lib.mw_bpf_object_program_fd(self._object, name.encode())
            for name in self._names(lib.mw_bpf_object_program_name)
            if name not in disabled
        }
        self.maps: Mapping[str, int] = {
            name: lib.mw_bpf_object_map_fd(self._object, name.encode())
            for name in self._names(lib.mw_bpf_object_map_name)
        }

    def _names(self, name_at: Callable[[CData, int], CData]) -> Iterator[str]:
        for index in itertools.count():
            name = name_at(self._object, index)
            if name == ffi.NULL:
                return
            yield ffi.string(name).decode()

    def close(self) -> None:
        if self._object != ffi.NULL:
            lib.mw_bpf_object_destroy(self._object)
            self._object = ffi.NULL
            self.programs = {}
            self.maps = {}


def object_bytes(unit: str) -> bytes:
    """Return this machine's object of a unit; raises EngineError if there is none."""
    machine = platform.machine()
    architecture = _ARCHITECTURES.get(machine)
    if architecture is None:
        known = ", ".join(_ARCHITECTURES)
        raise EngineError(
            f"cannot load {unit}: no object for {machine} machines",
            f"Objects exist for {known}; on other machines mwtrace reads /proc.",
        )
    path = resources.files("mwtrace") / "_bpf" / architecture / f"{unit}.bpf.o"
    try:
        return path.read_bytes()
    except OSError as error:
        raise EngineError(
            f"cannot load {unit}: no object in this installation: {error}",
            "Install mwtrace again with clang on this machine.",
        ) from error


def _refusal(unit: str, error: int, lines: list[str]) -> EngineError:
    """Say why the kernel took nothing, judging by the code and never by the words."""
    message = f"cannot load {unit}: {os.strerror(error)}"
    if error == errno.EPERM:  # the verifier's own refusals are EACCES and EINVAL
        return EngineError(message, _NO_PRIVILEGE)
    if error == errno.ESRCH:
        return EngineError(f"cannot load {unit}: this kernel has no type information", _NO_BTF)
    last = "; ".join(line.strip() for line in lines[-_LOG_LINES_SHOWN:])
    if last:
        message += f" ({last})"
    return EngineError(message, _OLD_KERNEL if error == errno.ENOENT else _REFUSED)
