"""Feeds texts of ``/proc`` to their readers: cgroups, mounts, mappings, stat, status, cmdline.

The first byte says whose text it is. Whatever it holds, readers may refuse it only in their own
words, and what becomes a name is printable and short.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports():
    from mwtrace.errors import MwtraceError
    from mwtrace.host import text
    from mwtrace.host.cgroups import parse_membership, parse_mounts, parts
    from mwtrace.host.commands import Command, command_name, is_helper
    from mwtrace.host.mappings import LINE_BYTES_MAX, parse_mappings
    from mwtrace.host.procfs import Host
    from mwtrace.host.services import place

ROOT = Path(tempfile.mkdtemp(prefix="fuzz-proc-"))
PROCESS = ROOT / "proc" / "7"
PROCESS.mkdir(parents=True)
HOST = Host(ROOT)


def check_name(shown: str) -> None:
    assert shown.isprintable(), shown
    assert len(shown) <= text.NAME_CHARACTERS_MAX, shown


def cgroup(data: bytes) -> None:
    for path in parse_membership(data):
        if path is not None:
            parts(path)
            found = place(path)
            check_name(text.name(found.container_name + found.unit + found.user))
            assert not found.container_id or len(found.container_id) >= 32


def mountinfo(data: bytes) -> None:
    parse_mounts(data)


def maps(data: bytes) -> None:
    for mapping in parse_mappings(data.splitlines(keepends=True)):
        mapping.open_path(7)
        assert len(mapping.path) <= LINE_BYTES_MAX


def stat(data: bytes) -> None:
    (PROCESS / "stat").write_bytes(data)
    found = HOST.stat(7)
    assert len(found.comm) <= 15
    HOST.process_id(7)


def status(data: bytes) -> None:
    (PROCESS / "stat").write_bytes(b"7 (x) S 1" + b" 0" * 48 + b"\n")
    (PROCESS / "status").write_bytes(data)
    found = HOST.memory(7)
    assert found is None or min(found) >= 0
    HOST.uid(7)


def cmdline(data: bytes) -> None:
    (PROCESS / "cmdline").write_bytes(data)
    arguments = tuple(HOST.command_line(7))
    for directory in ("", "/srv/orders"):
        for executable in (
            "",
            "/usr/bin/python3.11",
            "/usr/bin/java",
            "/lib64/ld-linux-x86-64.so.2",
        ):
            command = Command(arguments, executable, directory, "x")
            is_helper(command)
            check_name(text.name(command_name(command)))


READERS = (cgroup, mountinfo, maps, stat, status, cmdline)


def one_input(data: bytes) -> None:
    if not data:
        return
    with contextlib.suppress(MwtraceError):
        READERS[data[0] % len(READERS)](data[1:])


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
