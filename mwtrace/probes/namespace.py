"""In which pid namespace we are, and whether /proc shows the same one.

Kernel programs see the host's pids. Those of the watch can be told to translate; for others it must
be known that there is nothing to translate.
"""

from __future__ import annotations

import os

from mwtrace.errors import EngineError

# The kernel gives the first pid namespace this inode, always (PROC_PID_INIT_INO).
_INITIAL_INODE = 0xEFFFFFFC


def is_initial_pid_namespace() -> bool:
    """Return True if we share the pids of the host; False if not, or if /proc does not tell."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino == _INITIAL_INODE
    except OSError:
        return False


def pid_namespace() -> int:
    """Return what names our pid namespace to the kernel, 0 if it is the host's.

    Raises EngineError where /proc belongs to another one: its pids would not be ours.
    """
    try:
        inode = os.stat("/proc/self/ns/pid").st_ino
        shown = os.readlink("/proc/self")
    except OSError as error:
        raise EngineError(
            f"cannot watch by BPF: our pid namespace cannot be told: {error}",
            "Mount /proc in the namespace that mwtrace runs in.",
        ) from error
    if shown != str(os.getpid()):
        raise EngineError(
            f"cannot watch by BPF: /proc belongs to another pid namespace: we are {os.getpid()}, "
            f"and {shown} there",
            "Mount a /proc of the namespace that mwtrace runs in (unshare --mount-proc).",
        )
    return 0 if inode == _INITIAL_INODE else inode
