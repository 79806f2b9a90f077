"""Whether the pids that the kernel's programs report are the ones that /proc shows here."""

from __future__ import annotations

import os

# The kernel gives the first pid namespace this inode, always (PROC_PID_INIT_INO).
_INITIAL_INODE = 0xEFFFFFFC


def is_initial_pid_namespace() -> bool:
    """Return True if we share the pids of the host; False if not, or if /proc does not tell."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino == _INITIAL_INODE
    except OSError:
        return False
