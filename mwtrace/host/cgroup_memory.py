"""What a process's memory cgroup says of itself, as its files have it, for a post-mortem.

Reads a fixed list of small files of either version; what they mean is left to who reads the record.
"""

from __future__ import annotations

import os

from mwtrace.errors import ProcessError
from mwtrace.host import text
from mwtrace.host.cgroups import Hierarchies, Membership, parse_membership
from mwtrace.host.procfs import Host

_V2 = ("memory.current", "memory.peak", "memory.max", "memory.high", "memory.swap.current")
_V2_TABLES = ("memory.events", "memory.events.local")
_V1 = (
    *("memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.limit_in_bytes"),
    *("memory.failcnt", "memory.memsw.usage_in_bytes"),
)
_V1_TABLES = ("memory.oom_control",)
_VALUE_CHARACTERS_MAX = 64
_LINES_MAX = 16
_PATH_CHARACTERS_MAX = 512


class CgroupMemory:
    """Answers for one cgroup at a time, from the files as they are now."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._hierarchies = Hierarchies(host)

    def membership(self, pid: int) -> Membership | None:
        """Return where a process is, to be asked for when it is no more; None if it is gone."""
        try:
            return parse_membership(self._host.cgroup(pid))
        except ProcessError:
            return None

    def at(self, membership: Membership) -> tuple[tuple[str, str], ...]:
        """Return (file, value) of a cgroup, "path" first; () if there is none that we can see."""
        for hierarchy, path, files, tables in (
            # On a hybrid host the controller is in one of the two.
            (self._hierarchies.memory, membership.memory, _V1, _V1_TABLES),
            (self._hierarchies.unified, membership.unified, _V2, _V2_TABLES),
        ):
            directories = hierarchy.directories(path) if hierarchy and path else ()
            if directories and (rows := self._rows(directories[0], files, tables)):
                shown = text.printable(path or "")[:_PATH_CHARACTERS_MAX]
                return (("path", shown), *rows)
        return ()

    def _rows(
        self, directory: str, files: tuple[str, ...], tables: tuple[str, ...]
    ) -> list[tuple[str, str]]:
        rows = [(file, raw) for file in files if (raw := self._read(directory, file)) is not None]
        for file in tables:
            for line in (self._read(directory, file) or "").split("\n")[:_LINES_MAX]:
                name, space, value = line.partition(" ")
                if space:
                    rows.append((f"{file}:{name}", value))
        return [(name, text.printable(value)[:_VALUE_CHARACTERS_MAX]) for name, value in rows]

    def _read(self, directory: str, file: str) -> str | None:
        try:
            raw = self._host.read_if_there(os.path.join(directory, file), 4096)
        except OSError:  # no descriptor is left
            return None
        return None if raw is None else text.decode(raw).strip()
