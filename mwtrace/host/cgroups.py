"""Where a process stands in the cgroup hierarchies, and where those are mounted.

Knows paths only: which unit or container a path means is said in services.py, what its limits
are in limits.py.
"""

from __future__ import annotations

import os
import re
from collections import deque
from typing import NamedTuple

from mwtrace.host import text
from mwtrace.host.procfs import Host

_MOUNTINFO_BYTES_MAX = 4 * 1024 * 1024  # ~200 bytes each; hosts with thousands of containers
_SEARCHED_DIRECTORIES_MAX = 20_000
_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """One line of mountinfo."""

    root: str  # which directory of the file system is seen
    point: str  # where
    kind: str  # file system type
    options: frozenset[str]


def parse_mounts(raw: bytes) -> list[Mount]:
    """Read mountinfo; lines that are not in its format are left out."""
    mounts = []
    for line in text.decode(raw).split("\n"):
        left, separator, right = line.partition(" - ")
        fields, more = left.split(" "), right.split(" ")
        if not separator or len(fields) < 6 or len(more) < 3:
            continue
        options = frozenset(fields[5].split(",") + more[2].split(","))
        mounts.append(Mount(_unescaped(fields[3]), _unescaped(fields[4]), more[0], options))
    return mounts


def _unescaped(field: str) -> str:
    # A byte above 127 is never escaped, so the three digits are one ASCII character.
    return _OCTAL.sub(lambda match: chr(int(match[1], 8) & 0x7F), field)


def read_mounts(host: Host) -> list[Mount]:
    return parse_mounts(host.read_if_there("/proc/self/mountinfo", _MOUNTINFO_BYTES_MAX) or b"")


class Membership(NamedTuple):
    """A process's path in each hierarchy that we can use; None where it has none.

    A path begins with ``/..`` where the process lives above our own cgroup namespace.
    """

    unified: str | None  # cgroup v2
    systemd: str | None  # v1, name=systemd: where systemd 2xx keeps units on v1 hosts
    memory: str | None  # v1, the memory controller


def parse_membership(raw: bytes) -> Membership:
    """Read ``/proc/PID/cgroup``; a cgroup's name can hold anything but a newline and a slash."""
    unified = systemd = memory = None
    for line in text.decode(raw).split("\n"):
        fields = line.split(":", 2)
        if len(fields) < 3 or not fields[2].startswith("/"):
            continue
        path = fields[2].removesuffix(" (deleted)")
        controllers = fields[1].split(",")
        if fields[0] == "0" and fields[1] == "":
            unified = path
        elif "name=systemd" in controllers:
            systemd = path
        elif "memory" in controllers:
            memory = path
    return Membership(unified, systemd, memory)


def parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


class Hierarchy:
    """One mounted cgroup hierarchy: finds the directories of a cgroup and its ancestors."""

    def __init__(self, host: Host, mount: Mount) -> None:
        self.mount = mount
        self._host = host
        self._namespace_names: list[str] | None = None

    def directories(self, path: str) -> list[str]:
        """Name the cgroup's directory and those of all its ancestors that we can see.

        Empty if it lies outside of what is mounted here.
        """
        names = self._below_mount(parts(path))
        if names is None or ".." in names:
            return []
        below = [os.path.join(self.mount.point, *names[:count]) for count in range(len(names) + 1)]
        return below[::-1]

    def _below_mount(self, names: list[str]) -> list[str] | None:
        root = parts(self.mount.root)
        if names[: len(root)] == root:
            return names[len(root) :]
        # A mount made outside of our cgroup namespace, as a container sees the host's: its root
        # is as many levels above ours as it has "..", and the names of those levels between
        # are found once.
        if not root or set(root) != {".."}:
            return None
        ups = next((count for count, name in enumerate(names) if name != ".."), len(names))
        if self._namespace_names is None:
            self._namespace_names = self._find_namespace(len(root))
        if len(self._namespace_names) != len(root):
            return None
        return self._namespace_names[: len(root) - ups] + names[ups:]

    def _find_namespace(self, depth: int) -> list[str]:
        # Look for the directory, that many levels down, in which we are ourselves.
        own = parse_membership(self._host.read_if_there("/proc/self/cgroup") or b"")
        own_names = parts(own.unified or own.memory or "/")
        own_pid = str(os.getpid())
        queue: deque[list[str]] = deque([[]])
        searched = 0
        while queue and searched < _SEARCHED_DIRECTORIES_MAX:
            names = queue.popleft()
            directory = os.path.join(self.mount.point, *names)
            searched += 1
            if len(names) == depth:
                procs = self._host.read_if_there(
                    os.path.join(directory, *own_names, "cgroup.procs")
                )
                if own_pid in text.decode(procs or b"").split():
                    return names
                continue
            try:
                entries = sorted(self._host.list_directory(directory))
            except OSError:
                continue
            queue.extend(
                [*names, entry] for entry in entries if self._is_directory(directory, entry)
            )
        return []

    def _is_directory(self, directory: str, entry: str) -> bool:
        path = self._host.path(os.path.join(directory, entry))
        return os.path.isdir(path) and not os.path.islink(path)


class Hierarchies:
    """The hierarchies that count for us, as they were mounted when this was made."""

    def __init__(self, host: Host) -> None:
        self._host = host
        mounts = read_mounts(host)
        unified = [mount for mount in mounts if mount.kind == "cgroup2"]
        memory = [mount for mount in mounts if mount.kind == "cgroup" and "memory" in mount.options]
        # Of several mounts of one hierarchy the widest is the one that shows most.
        self.unified = Hierarchy(host, min(unified, key=_narrowness)) if unified else None
        self.memory = Hierarchy(host, min(memory, key=_narrowness)) if memory else None

    def cgroup_id(self, pid: int) -> int:
        """Return the id that BPF gives for the cgroup v2 of a process, 0 if unknown.

        It is the inode number of the cgroup's directory.
        """
        path = parse_membership(self._host.cgroup(pid)).unified
        if path is None or self.unified is None:
            return 0
        directories = self.unified.directories(path)
        try:
            return os.stat(self._host.path(directories[0])).st_ino if directories else 0
        except (OSError, ValueError):  # removed meanwhile; a NUL in a name that was made up
            return 0


def _narrowness(mount: Mount) -> int:
    names = parts(mount.root)
    ups = names.count("..")
    return len(names) - 2 * ups
