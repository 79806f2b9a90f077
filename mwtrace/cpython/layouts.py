"""Where CPython's structures keep their fields, as data.

``layouts.json`` was measured with each version's own headers: one table per minor version, and
what changed with a patch release. From 3.13 on the interpreter also says much of it itself
(``_Py_DebugOffsets``, at the start of ``_PyRuntime``); what it says goes before the table.

A field is called by an abbreviation of its structure and its name: rt runtime, is interpreter
state, ts thread state, fr frame, co code object, uni str. This module reads no process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple

from mwtrace.errors import ProcessError

COOKIE = b"xdebugpy"

# What _Py_DebugOffsets calls a field -> what layouts.json calls it.
_SAID_BY_ITSELF = {
    "runtime_state.interpreters_head": "rt.interp_head",
    "interpreter_state.id": "is.id",
    "interpreter_state.next": "is.next",
    "interpreter_state.threads_head": "is.threads_head",
    "interpreter_state.ceval_gil": "is.gil_ptr",
    "thread_state.next": "ts.next",
    "thread_state.interp": "ts.interp",
    "thread_state.current_frame": "ts.current_frame",
    "thread_state.thread_id": "ts.thread_id",
    "interpreter_frame.previous": "fr.previous",
    "interpreter_frame.executable": "fr.code",
    "interpreter_frame.instr_ptr": "fr.instr",
    "interpreter_frame.owner": "fr.owner",
    "code_object.filename": "co.filename",
    "code_object.name": "co.name",
    "code_object.qualname": "co.qualname",
    "code_object.linetable": "co.linetable",
    "code_object.firstlineno": "co.firstlineno",
    "code_object.co_code_adaptive": "co.code_adaptive",
    "bytes_object.ob_size": "var.size",
    "bytes_object.ob_sval": "bytes.sval",
    "unicode_object.state": "uni.state",
    "unicode_object.length": "uni.length",
    "unicode_object.asciiobject_size": "uni.ascii_size",
    # PEP 768, from 3.14 on: rd is the remote debugger's part of a thread state
    "debugger_support.eval_breaker": "ts.eval_breaker",
    "debugger_support.remote_debugger_support": "ts.remote_debugger",
    "debugger_support.remote_debugging_enabled": "is.remote_debug",
    "debugger_support.debugger_pending_call": "rd.pending",
    "debugger_support.debugger_script_path": "rd.path",
    "debugger_support.debugger_script_path_size": "rd.path_size",
}
# No structure that is read here is larger: a greater offset is damage, or a lie.
_OFFSET_MAX = 1 << 20


class UnknownPython(ProcessError):
    """A version or build of CPython that no table describes."""

    remedy = "Native frames are shown without Python ones; a newer mwtrace may know this version."


class PythonVersion(NamedTuple):
    major: int
    minor: int
    patch: int

    @classmethod
    def from_hex(cls, value: int) -> PythonVersion:
        """Take apart PY_VERSION_HEX."""
        return cls(value >> 24 & 0xFF, value >> 16 & 0xFF, value >> 8 & 0xFF)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


@dataclass(frozen=True)
class Layout:
    version: PythonVersion
    offsets: Mapping[str, int]
    is_seen: bool  # this very patch release was measured, or one before and one after it
    is_self_described: bool  # the process's own table went before ours

    def __getitem__(self, name: str) -> int:
        return self.offsets[name]

    def get(self, name: str) -> int | None:
        return self.offsets.get(name)


@lru_cache(maxsize=1)
def _tables() -> dict[str, Any]:
    text = (resources.files("mwtrace.cpython") / "layouts.json").read_text()
    tables: dict[str, Any] = json.loads(text)["minors"]
    return tables


def known_minors() -> list[tuple[int, int]]:
    """Return the minor versions that a table describes, oldest first."""
    return sorted((int(major), int(minor)) for major, minor in (m.split(".") for m in _tables()))


def _table(version: PythonVersion) -> dict[str, Any]:
    try:
        table: dict[str, Any] = _tables()[f"{version.major}.{version.minor}"]
    except KeyError:
        raise UnknownPython(f"CPython {version} is not described by any table") from None
    return table


def layout_for(version: PythonVersion) -> Layout:
    """Return the measured layout; raises UnknownPython for a minor version that nobody measured."""
    table = _table(version)
    offsets = dict(table["offsets"])
    for change in table["changes"]:
        if version.patch >= change["from_patch"]:
            offsets.update(change["set"])
    known = {name: value for name, value in offsets.items() if value is not None}
    seen = table["seen_patches"]
    return Layout(version, known, seen[0] <= version.patch <= seen[-1], False)


def debug_offsets_bytes(version: PythonVersion) -> int:
    """Return the size of _Py_DebugOffsets in this version, 0 if it has none."""
    return int(_table(version).get("debug_offsets", {}).get("_size", 0))


def with_debug_offsets(layout: Layout, data: bytes) -> Layout:
    """Put what the process says of itself before the table; data is its _Py_DebugOffsets."""
    places = _table(layout.version).get("debug_offsets", {})
    offsets = dict(layout.offsets)
    for theirs, ours in _SAID_BY_ITSELF.items():
        place = places.get(theirs)
        if place is None or place + 8 > len(data):
            continue
        value = int.from_bytes(data[place : place + 8], "little")
        if value > _OFFSET_MAX:
            raise UnknownPython(f"CPython {layout.version} says that {ours} is at {value}")
        offsets[ours] = value
    return replace(layout, offsets=offsets, is_self_described=True)
