"""Placed points and programs in, links and a report out: the policy of attaching.

Order of preference: session links (6.13), multi links (6.6), perf events; always confined to one
process. A point that cannot be had is a value with a reason, never an exception: optional symbols
are absent somewhere on every host. It must not know how the programs were loaded, nor what a
window is.
"""

from __future__ import annotations

import enum
import errno
import logging
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mwtrace.capi import ffi, lib
from mwtrace.errors import HostError
from mwtrace.host.privileges import drop
from mwtrace.probes.points import AttachPoint

log = logging.getLogger(__name__)


class AttachKind(enum.Enum):
    """Ways to attach, best first."""

    SESSION = "session link"
    MULTI = "multi link"
    PERF = "perf event"

    @property
    def code(self) -> int:
        code: int = getattr(lib, f"MW_ATTACH_{self.name}")
        return code


class Programs(NamedTuple):
    """Descriptors of programs loaded for the attach kind in use; -1 where there is none."""

    session: int = -1  # entry and return in one; AttachKind.SESSION only
    enter: int = -1  # entry of a function whose return is read, too
    leave: int = -1  # its return
    only_enter: int = -1  # entry of a function whose return is not read (free)


class Refusal(NamedTuple):
    point: AttachPoint
    reason: str
    remedy: str


@dataclass(frozen=True)
class AttachReport:
    """What was attached, and what not and why. The links' descriptors are the holder's."""

    kind: AttachKind
    links: tuple[int, ...]
    attached: tuple[AttachPoint, ...]
    refused: tuple[Refusal, ...]

    def detach(self) -> None:
        """Close all links; takes 30 to 110 ms each. Once only, and not if they were handed on."""
        release(self.links)


class HostAttach(NamedTuple):
    """What this host allows."""

    kind: AttachKind
    refused: dict[AttachKind, str]  # kinds that were tried and said no


# What the kernel says, what it means for a uprobe, what to do. EINVAL has many causes in general,
# but the path, the offset and the program were good before: what is left is ref_ctr_offset.
REASONS = {
    errno.EINVAL: (
        "another tool holds a probe here with another semaphore (ref_ctr_offset)",
        "End the other tool (bcc's tools set a random one: iovisor/bcc#5236), or reboot.",
    ),
    errno.EPERM: (
        "no privilege",
        "Run with CAP_BPF and CAP_PERFMON (perf events: CAP_SYS_ADMIN).",
    ),
    errno.EACCES: ("no privilege to open the file", "Run as root or with CAP_SYS_PTRACE."),
    errno.ENOENT: ("the file is not mapped any more", "It is looked at again by itself."),
    errno.ESRCH: ("the process is gone", ""),
    errno.ENOTSUP: ("the kernel cannot probe this instruction", "Please report the function."),
    errno.EIO: ("the kernel cannot read the instruction from the file", ""),
    errno.ENOSYS: ("this kernel has no such link", "Linux 6.6 or later."),
    errno.EMFILE: ("too many open files", "Raise LimitNOFILE of the mwtrace service."),
    errno.EBUSY: ("the kernel is busy with probes", "It is tried again by itself."),
}


def release(links: Sequence[int]) -> None:
    """Close links in the one way that no SIGKILL can spoil: see ``cext/release.h``."""
    lib.mw_links_release(list(links), len(links))


def heal(pid: int, points: Sequence[AttachPoint]) -> bool:
    """Remove breakpoints that an earlier mwtrace may have left, killed amid attaching.

    Attaching an empty program and releasing it makes the kernel do what it could not do then.
    Return whether the kernel has done it for all files (multi links only).
    """
    healed = True
    for path in dict.fromkeys(point.path for point in points):
        places = [point.file_offset for point in points if point.path == path]
        healed &= lib.mw_uprobes_heal(path.encode(), places, len(places), pid) == 0
    return healed


def attach_kind_of_host(lacked: Collection[AttachKind] = ()) -> HostAttach:
    """Try every kind on a child of our own; raises HostError where none works.

    lacked: kinds for which there are no programs, whatever the host allows.
    """
    said = ffi.new("int32_t[3]")
    lib.mw_attach_kind_find(said)
    refused = {kind: os.strerror(said[kind.code - 1]) for kind in AttachKind if said[kind.code - 1]}
    for kind in AttachKind:
        if kind not in refused and kind not in lacked:
            return HostAttach(kind, refused)
    what = ", ".join(f"{kind.value}: {reason}" for kind, reason in refused.items())
    raise HostError(
        f"no probe can be attached here: {what}",
        "Needs CAP_BPF and CAP_PERFMON on Linux 6.6 or later, CAP_SYS_ADMIN before.",
    )


def give_back_privileges() -> None:
    """Drop CAP_SYS_ADMIN where probes attach without it, before any thread is there to keep it.

    It is what perf events need; links do not.
    """
    try:
        kind = attach_kind_of_host().kind
        if kind is not AttachKind.PERF and drop("CAP_SYS_ADMIN"):
            log.debug("CAP_SYS_ADMIN is given back: %ss need none", kind.value)
    except HostError as error:
        log.debug("no capability is given back: %s", error)


def attach(
    pid: int,
    points: Sequence[AttachPoint],
    programs: Programs,
    kind: AttachKind,
    cookie: Callable[[AttachPoint], int],
) -> AttachReport:
    """Attach to all points in process ``pid``, with as few links as the kind allows."""
    links: list[int] = []
    refused: list[Refusal] = []
    for path in dict.fromkeys(point.path for point in points):
        with_return = [p for p in points if p.path == path and p.call.needs_return]
        without = [p for p in points if p.path == path and not p.call.needs_return]
        for group, role in ((with_return, _Role.BOTH), (without, _Role.ENTRY)):
            if group:
                made, refusals = _attach_group(pid, group, programs, kind, role, cookie)
                links += made
                refused += refusals
    lost = {refusal.point for refusal in refused}
    attached = tuple(point for point in points if point not in lost)
    return AttachReport(kind, tuple(links), attached, tuple(refused))


class _Role(enum.Enum):
    BOTH = "entry and return"
    ENTRY = "entry"


def _attach_group(
    pid: int,
    group: Sequence[AttachPoint],
    programs: Programs,
    kind: AttachKind,
    role: _Role,
    cookie: Callable[[AttachPoint], int],
) -> tuple[list[int], list[Refusal]]:
    # One link for all; where one point spoils it, halves, down to the points that refuse.
    links, rc = _link(pid, group, programs, kind, role, cookie)
    if rc >= 0:
        return links, []
    if len(group) == 1 or -rc in (errno.EPERM, errno.ESRCH, errno.EMFILE, errno.ENOSYS):
        reason, remedy = REASONS.get(-rc, (os.strerror(-rc), ""))
        return [], [Refusal(point, reason, remedy) for point in group]
    middle = len(group) // 2
    left, left_refused = _attach_group(pid, group[:middle], programs, kind, role, cookie)
    right, right_refused = _attach_group(pid, group[middle:], programs, kind, role, cookie)
    return left + right, left_refused + right_refused


def _link(
    pid: int,
    group: Sequence[AttachPoint],
    programs: Programs,
    kind: AttachKind,
    role: _Role,
    cookie: Callable[[AttachPoint], int],
) -> tuple[list[int], int]:
    # Links of one group, all or none: a lone entry would wait for returns that nobody tells.
    made: list[int] = []
    if role is _Role.ENTRY:
        steps = [(programs.only_enter, lib.MW_UPROBE_ENTRY)]
    elif kind is AttachKind.SESSION:
        steps = [(programs.session, lib.MW_UPROBE_SESSION)]
    else:
        # Returns first: the kernel takes the return address only where an entry finds it wanted,
        # and a return whose entry nobody saw is ignored by the programs.
        steps = [(programs.leave, lib.MW_UPROBE_RETURN), (programs.enter, lib.MW_UPROBE_ENTRY)]
    for program, how in steps:
        if kind is AttachKind.PERF:
            rc = _link_perf(made, pid, group, program, how == lib.MW_UPROBE_RETURN, cookie)
        else:
            rc = _link_multi(made, pid, group, program, how, cookie)
        if rc < 0:
            release(made)
            return [], rc
    return made, 0


def _link_multi(
    made: list[int],
    pid: int,
    group: Sequence[AttachPoint],
    program: int,
    how: int,
    cookie: Callable[[AttachPoint], int],
) -> int:
    semaphores = [point.semaphore_offset for point in group]
    rc: int = lib.mw_link_uprobes(
        program,
        how,
        group[0].path.encode(),
        [point.file_offset for point in group],
        [cookie(point) for point in group],
        semaphores if any(semaphores) else ffi.NULL,
        len(group),
        pid,
    )
    if rc >= 0:
        made.append(rc)
    return rc


def _link_perf(
    made: list[int],
    pid: int,
    group: Sequence[AttachPoint],
    program: int,
    is_return: bool,
    cookie: Callable[[AttachPoint], int],
) -> int:
    for point in group:
        rc: int = lib.mw_link_uprobe_perf(
            program,
            point.path.encode(),
            point.file_offset,
            pid,
            is_return,
            cookie(point),
            point.semaphore_offset,
        )
        if rc < 0:
            return rc
        made.append(rc)
    return 0
