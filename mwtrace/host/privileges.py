"""What this user may do here: capabilities, other users' processes, own limits.

Reads our own status and the settings that restrict us; asks for nothing.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mwtrace.capi import check, lib
from mwtrace.errors import ProcessGone, ProcessUnreadable, Unreadable
from mwtrace.host import text
from mwtrace.host.cgroups import read_mounts
from mwtrace.host.facts import Fact, State
from mwtrace.host.procfs import Host

# include/uapi/linux/capability.h
_BITS = {
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_KILL": 5,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
    "CAP_CHECKPOINT_RESTORE": 40,
}
# What CAP_SYS_ADMIN stands in for, as it did before Linux 5.8 and 5.9 split it up.
_OF_ADMIN = ("CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE")
_DESCRIPTORS_WANTED = 1024
_STATUS_LINE = re.compile(rb"^(CapEff|Uid|Groups):[ \t]*([^\n]*)$", re.M)
_OPEN_FILES = re.compile(rb"^Max open files[ \t]+(\d{1,19}|unlimited)", re.M)


class Privileges(NamedTuple):
    uid: int
    groups: frozenset[int]
    capabilities: frozenset[str]

    def has(self, capability: str) -> bool:
        return capability in self.capabilities


def read_privileges(host: Host) -> Privileges:
    """Read what we may do; what cannot be read we may not."""
    lines = dict(_STATUS_LINE.findall(host.read_if_there("/proc/self/status") or b""))
    try:
        effective = int(lines.get(b"CapEff", b"0"), 16)
    except ValueError:
        effective = 0
    capabilities = {name for name, bit in _BITS.items() if effective >> bit & 1}
    if "CAP_SYS_ADMIN" in capabilities:
        capabilities.update(_OF_ADMIN)
    numbers = [int(word) for word in lines.get(b"Groups", b"").split() if _is_id(word)]
    uid_words = lines.get(b"Uid", b"").split()
    uid = int(uid_words[1]) if len(uid_words) > 1 and _is_id(uid_words[1]) else -1
    return Privileges(uid, frozenset(numbers), frozenset(capabilities))


def _is_id(word: bytes) -> bool:
    return word.isdigit() and len(word) <= 10


def drop(capability: str) -> bool:
    """Give a capability back for good; return whether we had it. Call it before threads start."""
    rc = lib.mw_capability_drop(_BITS[capability])
    return int(check(rc, f"drop {capability}")) > 0


class _Need(NamedTuple):
    name: str
    capabilities: tuple[str, ...]
    state: State  # without them
    without: str


_NEEDS = (
    _Need(
        "kernel programs",
        ("CAP_BPF", "CAP_PERFMON"),
        State.MISSING,
        "processes are read from /proc, exits and OOM kills are not told, nothing can be traced",
    ),
    _Need(
        "memory of others",
        ("CAP_SYS_PTRACE",),
        State.MISSING,
        "heaps, mappings and stacks of other users' processes cannot be read",
    ),
    _Need(
        "files of others",
        ("CAP_DAC_READ_SEARCH",),
        State.DEGRADED,
        "programs in other users' private folders have no symbols",
    ),
    _Need(
        "signals",
        ("CAP_KILL",),
        State.DEGRADED,
        "other users' processes cannot be asked for a snapshot",
    ),
    _Need(
        "mapped files",
        ("CAP_CHECKPOINT_RESTORE",),
        State.DEGRADED,
        "libraries that were deleted or replaced have no symbols",
    ),
)


def capability_facts(privileges: Privileges) -> list[Fact]:
    facts = []
    for need in _NEEDS:
        lacking = [name for name in need.capabilities if not privileges.has(name)]
        if not lacking:
            facts.append(Fact(need.name, State.OK, " and ".join(need.capabilities)))
            continue
        names = " ".join(lacking)
        remedy = f"run mwtrace with sudo; as a service: AmbientCapabilities={names} in the unit"
        facts.append(Fact(need.name, need.state, f"{names} missing: {need.without}", remedy))
    return facts


def other_users_fact(host: Host, privileges: Privileges) -> Fact:
    """Count whose processes we would see, and how much of them."""
    name = "other users"
    own = others = hidden = 0
    for pid in host.pids():
        try:
            if host.uid(pid) == privileges.uid:
                own += 1
            else:
                others += 1
        except ProcessGone:
            continue
        except ProcessUnreadable as error:
            if error.reason is Unreadable.DESCRIPTORS:
                raise
            hidden += 1
    total = own + others + hidden
    if privileges.uid == 0 or privileges.has("CAP_SYS_PTRACE"):
        return Fact(name, State.OK, f"all of {total} processes can be watched")
    detail = (
        f"uid {privileges.uid} has {own} of {total} processes, which are watched in full;"
        f" of {others} of other users only the size is seen, of {hidden} nothing"
    )
    return Fact(name, State.DEGRADED, detail, "run mwtrace with sudo")


def hidepid_fact(host: Host, privileges: Privileges) -> Fact:
    name = "hidepid"
    options = next((m.options for m in reversed(read_mounts(host)) if m.point == "/proc"), None)
    if options is None:
        return Fact(name, State.MISSING, "/proc is not mounted", "sudo mount -t proc proc /proc")
    settings = dict(option.partition("=")[::2] for option in options)
    if settings.get("subset") == "pid":
        return Fact(
            name,
            State.DEGRADED,
            "/proc is mounted with subset=pid: memory of the host and kernel settings are hidden",
            "remove ProcSubset=pid from the unit, or: sudo mount -o remount,subset= /proc",
        )
    level = settings.get("hidepid", "0")
    if level in ("0", "off"):
        return Fact(name, State.OK, "/proc shows all processes")
    group = settings.get("gid", "")
    in_group = group.isascii() and group.isdigit() and int(group[:10]) in privileges.groups
    if privileges.has("CAP_SYS_PTRACE") or in_group:
        return Fact(name, State.OK, f"hidepid={level}, which does not concern us")
    remedy = "run mwtrace with sudo, or: sudo mount -o remount,hidepid=0 /proc"
    detail = f"/proc is mounted with hidepid={level}: other users' processes are not seen at all"
    return Fact(name, State.DEGRADED, detail, remedy)


def ptrace_scope_fact(host: Host, privileges: Privileges) -> Fact:
    name = "ptrace_scope"
    raw = host.read_if_there("/proc/sys/kernel/yama/ptrace_scope")
    if raw is None:
        return Fact(name, State.OK, "Yama is not active")
    scope = text.name(raw)
    if scope == "0" or (scope in ("1", "2") and privileges.has("CAP_SYS_PTRACE")):
        return Fact(name, State.OK, f"kernel.yama.ptrace_scope = {scope}")
    if scope == "3":
        return Fact(
            name,
            State.MISSING,
            "kernel.yama.ptrace_scope = 3: nobody may read another process's memory until reboot",
            "set kernel.yama.ptrace_scope = 1 in /etc/sysctl.d/10-ptrace.conf, then: sudo reboot",
        )
    return Fact(
        name,
        State.DEGRADED,
        f"kernel.yama.ptrace_scope = {scope}: without CAP_SYS_PTRACE not even the memory of our own"
        " processes can be read",
        "run mwtrace with sudo, or: sudo sysctl kernel.yama.ptrace_scope=0",
    )


def descriptors_fact(host: Host) -> Fact:
    """Whether we, and the host, may open enough files."""
    name = "open files"
    wanted = _DESCRIPTORS_WANTED
    remedy = f"ulimit -n {wanted}; as a service: LimitNOFILE={wanted} in the unit"
    match = _OPEN_FILES.search(host.read_if_there("/proc/self/limits") or b"")
    numbers = (host.read_if_there("/proc/sys/fs/file-nr") or b"").split()
    if len(numbers) == 3 and all(number.isdigit() and len(number) < 20 for number in numbers):
        used, most = int(numbers[0]), int(numbers[2])
        if used > 0.9 * most:
            detail = f"the host has {used} of at most {most} files open"
            return Fact(name, State.DEGRADED, detail, f"sudo sysctl fs.file-max={2 * most}")
    if match is None:
        return Fact(name, State.DEGRADED, "our own limit of open files cannot be read", remedy)
    if match[1] != b"unlimited" and int(match[1]) < wanted:
        return Fact(name, State.DEGRADED, f"we may open only {int(match[1])} files", remedy)
    return Fact(name, State.OK, f"we may open {match[1].decode()} files")
