"""A memory cgroup of a test's own, to run out of memory in without anybody else noticing."""

from __future__ import annotations

import os
import time
from pathlib import Path

DEADLINE_S = 30.0


class MemoryCgroup:
    """A memory cgroup of our own with a limit, of whichever version this machine has."""

    def __init__(self, limit_bytes: int) -> None:
        name = f"mwtrace-test-{os.getpid()}"
        v1 = Path("/sys/fs/cgroup/memory")
        if (v1 / "memory.limit_in_bytes").exists():
            self._path = v1 / name
            settings = {"memory.limit_in_bytes": limit_bytes, "memory.swappiness": 0}
        else:
            root = Path("/sys/fs/cgroup")
            assert "memory" in (root / "cgroup.controllers").read_text().split()
            if "memory" not in (root / "cgroup.subtree_control").read_text().split():
                (root / "cgroup.subtree_control").write_text("+memory")
            self._path = root / name
            settings = {"memory.max": limit_bytes, "memory.swap.max": 0}
        self._path.mkdir()
        for file, value in settings.items():
            if (self._path / file).exists():  # no swap.max without swap support
                (self._path / file).write_text(str(value))

    def add(self, pid: int) -> None:
        (self._path / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        """Remove it, once the kernel has let go of the processes that ended in it."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                self._path.rmdir()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
