"""Change a few bytes of a process that stands still for a moment: wraps ``cext/stopped.h``.

All or none: conditions are looked at while it stands. It must not know what the bytes mean.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import NamedTuple

from mwtrace.capi import ffi, lib
from mwtrace.errors import ProcessError, ProcessGone

WAIT_S = 0.5


class Edit(NamedTuple):
    kind: int
    address: int
    data: bytes
    what: str  # for whoever reads why it failed


class Stopped(NamedTuple):
    pause_s: float
    threads: int


class ConditionFailed(ProcessError):
    """The process is not as it was when the change was planned."""

    def __init__(self, pid: int, what: str) -> None:
        super().__init__(f"process {pid} was left as it is: {what}", "Try again.")
        self.what = what


def expect(address: int, data: bytes, what: str) -> Edit:
    return Edit(lib.MW_EDIT_EXPECT, address, data, what)


def write(address: int, data: bytes) -> Edit:
    return Edit(lib.MW_EDIT_WRITE, address, data, f"cannot write at {address:#x}")


def set_bits(address: int, data: bytes) -> Edit:
    return Edit(lib.MW_EDIT_SET, address, data, f"cannot write at {address:#x}")


def edit_stopped(pid: int, edits: Sequence[Edit], wait_s: float = WAIT_S) -> Stopped:
    """Stop all threads of a process, make the edits if all conditions hold, and let it go on.

    Raises ConditionFailed if one did not hold; ProcessGone; ProcessError if it cannot be stopped.
    """
    held = [ffi.from_buffer("uint8_t[]", edit.data) for edit in edits]
    described = ffi.new("struct mw_edit[]", len(edits))
    for place, edit, data in zip(described, edits, held):
        place.address, place.bytes, place.size_bytes = edit.address, data, len(edit.data)
        place.kind = edit.kind
    report = ffi.new("struct mw_stopped_report *")
    rc = lib.mw_stopped_edit(pid, described, len(edits), int(wait_s * 1e9), report)
    if rc == -errno.ESRCH:
        raise ProcessGone(f"process {pid} is gone")
    if rc in (-errno.EAGAIN, -errno.EFAULT) and report.failed_edit >= 0:
        raise ConditionFailed(pid, edits[report.failed_edit].what)
    if rc == -errno.EPERM:
        raise ProcessError(
            f"cannot stop process {pid}: it may not be traced, or something traces it already",
            "This needs root (CAP_SYS_PTRACE), and no debugger may be attached.",
        )
    if rc == -errno.ETIME:
        raise ProcessError(
            f"cannot stop process {pid}: a thread did not stop within {wait_s:g} s",
            "It may wait for a disk or a network file system: try again.",
        )
    if rc:
        raise ProcessError(f"cannot change process {pid}: {os.strerror(-rc)}")
    return Stopped(report.pause_ns / 1e9, int(report.threads))
