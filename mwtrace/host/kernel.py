"""What this kernel offers, as far as its files tell without trying.

Features are asked for by the names in the kernel's own type information (BTF), because
distributions backport and version numbers lie. Whether a program really loads is tried by others.
"""

from __future__ import annotations

import os
import re

from mwtrace.host import text
from mwtrace.host.cgroups import Mount, read_mounts
from mwtrace.host.facts import Fact, State
from mwtrace.host.privileges import Privileges
from mwtrace.host.procfs import Host

BTF_PATH = "/sys/kernel/btf/vmlinux"
_BTF_BYTES_MAX = 64 * 1024 * 1024  # 5 to 12 MB on today's kernels
_BTF_MAGIC = (b"\x9f\xeb", b"\xeb\x9f")
_INITIAL_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO, include/linux/proc_ns.h
_TRACEPOINTS = (
    ("sched", "sched_process_exec", "programs that were replaced (exec)"),
    ("sched", "sched_process_exit", "ends between two looks"),
    ("oom", "mark_victim", "OOM kills"),
)

TASK_ITERATOR = "task iterator"
RING_BUFFER = "ring buffer"
UPROBE_MULTI = "uprobe_multi"
_FEATURES = {
    TASK_ITERATOR: ("bpf_iter__task", "5.8"),
    RING_BUFFER: ("BPF_MAP_TYPE_RINGBUF", "5.8"),
    UPROBE_MULTI: ("bpf_uprobe_multi_link", "6.6"),
}
_SESSION = "BPF_TRACE_UPROBE_SESSION"
_WITHOUT = {
    TASK_ITERATOR: "processes are read from /proc, which costs more",
    RING_BUFFER: "exits and OOM kills are not told",
}
_BTF_REMEDY = "a kernel with CONFIG_DEBUG_INFO_BTF=y"


def has_btf(host: Host) -> bool:
    """Whether the kernel describes its types: without, libbpf cannot fit our objects to it."""
    raw = host.read_if_there(BTF_PATH, len(_BTF_MAGIC[0]))
    return raw is not None and raw.startswith(_BTF_MAGIC)


def read_features(host: Host) -> frozenset[str] | None:
    """Return which of the names we care for the kernel's BTF holds; None without BTF."""
    raw = host.read_if_there(BTF_PATH, _BTF_BYTES_MAX)
    if raw is None or not raw.startswith(_BTF_MAGIC):
        return None
    names = [name for name, _ in _FEATURES.values()]
    names += [_SESSION, *(f"btf_trace_{name}" for _, name, _ in _TRACEPOINTS)]
    return frozenset(name for name in names if b"\0" + name.encode() + b"\0" in raw)


def release_fact(host: Host) -> Fact:
    raw = host.read_if_there("/proc/sys/kernel/osrelease", 256)
    if raw is None:
        return Fact(
            "kernel", State.DEGRADED, "its version cannot be read", "sudo mount -t proc proc /proc"
        )
    return Fact("kernel", State.OK, f"Linux {text.name(raw)}")


def btf_fact(features: frozenset[str] | None) -> Fact:
    if features is not None:
        return Fact("BTF", State.OK, BTF_PATH)
    detail = f"no readable {BTF_PATH}: processes are read from /proc, and tracing needs bcc"
    return Fact("BTF", State.MISSING, detail, _BTF_REMEDY)


def feature_fact(name: str, features: frozenset[str] | None) -> Fact:
    symbol, since = _FEATURES[name]
    if features is None:
        return Fact(name, State.DEGRADED, "cannot tell without BTF", _BTF_REMEDY)
    if symbol in features:
        return Fact(name, State.OK, f"the kernel knows {symbol}")
    return Fact(
        name, State.MISSING, f"the kernel has none: {_WITHOUT[name]}", f"Linux {since} or later"
    )


def uprobe_fact(host: Host, features: frozenset[str] | None, privileges: Privileges) -> Fact:
    """How allocator probes would be attached: all at once, or one by one through perf."""
    known = features or frozenset()
    if _FEATURES[UPROBE_MULTI][0] in known:
        session = ", with sessions" if _SESSION in known else ""
        return Fact(UPROBE_MULTI, State.OK, f"probes are attached all at once{session}")
    if not os.path.exists(host.path("/sys/bus/event_source/devices/uprobe")):
        detail = "the kernel has no user probes: allocations cannot be traced"
        return Fact(UPROBE_MULTI, State.MISSING, detail, "a kernel with CONFIG_UPROBE_EVENTS=y")
    if privileges.has("CAP_SYS_ADMIN"):
        detail = "none: probes are attached one by one through perf, which costs more"
        return Fact(UPROBE_MULTI, State.DEGRADED, detail, "Linux 6.6 or later")
    # Since the fix of CVE-2025-38466 perf's user probes want CAP_SYS_ADMIN.
    detail = "none, and probes through perf need CAP_SYS_ADMIN: allocations cannot be traced"
    remedy = "run mwtrace with sudo; as a service: AmbientCapabilities=CAP_SYS_ADMIN; or Linux 6.6"
    return Fact(UPROBE_MULTI, State.MISSING, detail, remedy)


def tracepoints_fact(host: Host, features: frozenset[str] | None) -> Fact:
    name = "tracepoints"
    directories = [
        _events(mount) for mount in read_mounts(host) if mount.kind in ("tracefs", "debugfs")
    ]
    # Readable only for root, by default: what we cannot look into tells nothing.
    directories = [path for path in directories if os.path.isdir(host.path(f"{path}/sched"))]
    if features is None and not directories:
        detail = "cannot tell without BTF and tracefs"
        return Fact(
            name, State.DEGRADED, detail, "sudo mount -t tracefs tracefs /sys/kernel/tracing"
        )
    absent = [
        meaning
        for group, event, meaning in _TRACEPOINTS
        if f"btf_trace_{event}" not in (features or ())
        and not any(os.path.isdir(host.path(f"{path}/{group}/{event}")) for path in directories)
    ]
    if absent:
        detail = f"not told: {', '.join(absent)}"
        return Fact(name, State.DEGRADED, detail, "a kernel with CONFIG_TRACEPOINTS=y")
    return Fact(name, State.OK, ", ".join(event for _, event, _ in _TRACEPOINTS))


def _events(mount: Mount) -> str:
    return f"{mount.point}/events" if mount.kind == "tracefs" else f"{mount.point}/tracing/events"


def cgroup_fact(host: Host) -> Fact:
    """Which version of cgroups runs here, and in which one memory limits are enforced."""
    name = "cgroups"
    mounts = read_mounts(host)
    unified = [mount.point for mount in mounts if mount.kind == "cgroup2"]
    legacy = [mount for mount in mounts if mount.kind == "cgroup"]
    version = "hybrid" if unified and legacy else "v2" if unified else "v1" if legacy else "none"
    for mount in legacy:
        if "memory" in mount.options:
            detail = f"{version}; memory limits are enforced by v1 at {mount.point}"
            return Fact(name, State.OK, detail)
    for point in unified:
        controllers = (host.read_if_there(f"{point}/cgroup.controllers") or b"").split()
        if b"memory" in controllers:
            return Fact(name, State.OK, f"{version}; memory limits are enforced by v2 at {point}")
    if version == "none":
        detail = (
            "none mounted: services are known by command only, their limit is the host's memory"
        )
        remedy = "sudo mount -t cgroup2 cgroup2 /sys/fs/cgroup"
        return Fact(name, State.DEGRADED, detail, remedy)
    detail = f"{version}, without the memory controller: forecasts know the host's memory only"
    remedy = "boot with cgroup_enable=memory, or mount the host's /sys/fs/cgroup into our container"
    return Fact(name, State.DEGRADED, detail, remedy)


def pid_namespace_fact(host: Host) -> Fact:
    name = "pid namespace"
    try:
        namespace = host.read_link("/proc/self/ns/pid")
    except OSError:
        return Fact(name, State.DEGRADED, "cannot be read", "run mwtrace with sudo")
    if namespace == _INITIAL_PID_NAMESPACE:
        return Fact(name, State.OK, "the host's own")
    detail = "not the host's: its own processes are watched by BPF, and none can be traced"
    remedy = "to see the whole host: docker run --pid=host, or hostPID: true in the pod"
    return Fact(name, State.DEGRADED, detail, remedy)


def lockdown_fact(host: Host) -> Fact:
    name = "lockdown"
    raw = host.read_if_there("/sys/kernel/security/lockdown")
    match = re.search(r"\[(\w{1,32})\]", text.decode(raw or b""))
    if raw is None or match is None:
        return Fact(name, State.OK, "not active")
    if match[1] != "confidentiality":
        return Fact(name, State.OK, match[1])
    detail = "confidentiality: programs may not read kernel memory, so none of ours loads"
    return Fact(
        name, State.MISSING, detail, "boot with lockdown=integrity on the kernel's command line"
    )


def restrictions_fact(host: Host, privileges: Privileges) -> Fact:
    """The two settings that concern only those without capabilities."""
    name = "bpf settings"
    settings = []
    for setting in ("unprivileged_bpf_disabled", "perf_event_paranoid"):
        raw = host.read_if_there(f"/proc/sys/kernel/{setting}", 64)
        settings.append(f"kernel.{setting} = {text.name(raw) if raw else 'unknown'}")
    detail = ", ".join(settings)
    if privileges.has("CAP_BPF") and privileges.has("CAP_PERFMON"):
        return Fact(name, State.OK, f"{detail}: no matter with our capabilities")
    # Lowering them is no remedy: tracing programs need the capabilities at any setting.
    return Fact(name, State.DEGRADED, detail, "run mwtrace with sudo")
