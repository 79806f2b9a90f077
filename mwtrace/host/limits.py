"""How much memory a process may still take before something stops it.

What stops it is the tightest of its cgroup's limits (its ancestors' too, which it shares with
others) and the machine itself. Page cache counts as free in all of them, because the kernel gives
it up before it kills anybody; swap counts, because private memory is anon + swap. Forecasts are
made elsewhere.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from mwtrace.errors import HostError
from mwtrace.host.cgroups import Hierarchies, parse_membership
from mwtrace.host.procfs import Host, unreadable
from mwtrace.model import Limit

_MEMINFO_LINE = re.compile(rb"^(\w+):[ \t]*(\d{1,15}) kB$", re.M)
_STAT_LINE = re.compile(rb"^(\w+) (\d{1,19})$", re.M)
_NUMBER = re.compile(rb"\d{1,19}")
# v1 writes "no limit" as the largest multiple of the page size that a counter holds.
_UNLIMITED_BYTES = 1 << 60


class _Files(NamedTuple):
    """What one version of cgroups calls the same things."""

    limit: str
    usage: str
    page_cache: tuple[bytes, ...]  # in memory.stat; without shmem, which is no cache


_V2 = _Files("memory.max", "memory.current", (b"inactive_file", b"active_file"))
# The counters without "total_" leave the descendants out.
_V1 = _Files(
    "memory.limit_in_bytes", "memory.usage_in_bytes", (b"total_inactive_file", b"total_active_file")
)


class HostMemory(NamedTuple):
    total_bytes: int
    available_bytes: int
    swap_free_bytes: int


def host_memory(host: Host) -> HostMemory:
    raw = host.read_if_there("/proc/meminfo") or b""
    kilobytes = {key: int(value) for key, value in _MEMINFO_LINE.findall(raw)}
    if b"MemTotal" not in kilobytes:
        raise HostError("cannot read /proc/meminfo: it names no MemTotal")
    # MemAvailable is absent before Linux 3.14 and in some sandboxes.
    free = sum(kilobytes.get(key, 0) for key in (b"MemFree", b"Cached", b"Buffers"))
    return HostMemory(
        total_bytes=kilobytes[b"MemTotal"] * 1024,
        available_bytes=kilobytes.get(b"MemAvailable", free) * 1024,
        swap_free_bytes=kilobytes.get(b"SwapFree", 0) * 1024,
    )


class Limits:
    """Answers for one process at a time, from the files as they are now."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._hierarchies = Hierarchies(host)

    def of(self, pid: int) -> Limit:
        """Return the limit that leaves the least room.

        Raises ProcessGone, ProcessUnreadable, or HostError if the host does not even tell its size.
        """
        membership = parse_membership(self._host.cgroup(pid))
        try:
            memory = host_memory(self._host)
            limits = [
                Limit(memory.total_bytes, memory.available_bytes + memory.swap_free_bytes, "host")
            ]
            # On a hybrid host a controller is in one hierarchy only, so the other has no files.
            for hierarchy, path, files in (
                (self._hierarchies.unified, membership.unified, _V2),
                (self._hierarchies.memory, membership.memory, _V1),
            ):
                for directory in hierarchy.directories(path) if hierarchy and path else ():
                    limit = self._of_cgroup(directory, files, memory.swap_free_bytes)
                    if limit is not None:
                        limits.append(limit)
        except OSError as error:
            raise unreadable(error, pid, "memory limit") from error
        return min(limits, key=lambda limit: (limit.headroom_bytes, limit.limit_bytes))

    def _of_cgroup(self, directory: str, files: _Files, swap_free_bytes: int) -> Limit | None:
        limit_bytes = self._number(directory, files.limit)
        usage_bytes = self._number(directory, files.usage)
        if limit_bytes is None or usage_bytes is None:
            return None
        raw = self._host.read_if_there(os.path.join(directory, "memory.stat")) or b""
        stat = {key: int(value) for key, value in _STAT_LINE.findall(raw)}
        cache_bytes = sum(stat.get(key, 0) for key in files.page_cache)
        free_bytes = max(limit_bytes - max(usage_bytes - cache_bytes, 0), 0)
        if files is _V2:
            swap_bytes = self._swap_v2(directory, swap_free_bytes)
        else:
            swap_bytes = self._swap_v1(directory, swap_free_bytes, limit_bytes - usage_bytes)
        return Limit(limit_bytes, free_bytes + swap_bytes, "cgroup")

    def _swap_v2(self, directory: str, swap_free_bytes: int) -> int:
        limit_bytes = self._number(directory, "memory.swap.max")
        if limit_bytes is None:
            return swap_free_bytes
        used_bytes = self._number(directory, "memory.swap.current") or 0
        return min(swap_free_bytes, max(limit_bytes - used_bytes, 0))

    def _swap_v1(self, directory: str, swap_free_bytes: int, memory_left_bytes: int) -> int:
        # memsw counts memory and swap together.
        limit_bytes = self._number(directory, "memory.memsw.limit_in_bytes")
        if limit_bytes is None:
            return swap_free_bytes
        used_bytes = self._number(directory, "memory.memsw.usage_in_bytes") or 0
        return min(swap_free_bytes, max(limit_bytes - used_bytes - memory_left_bytes, 0))

    def _number(self, directory: str, file: str) -> int | None:
        # None: no such file, "max", or one of v1's ways to say it.
        raw = self._host.read_if_there(os.path.join(directory, file)) or b""
        match = _NUMBER.fullmatch(raw.strip())
        if match is None or int(match[0]) >= _UNLIMITED_BYTES:
            return None
        return int(match[0])
