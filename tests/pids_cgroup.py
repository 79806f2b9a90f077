"""A pids cgroup of a test's own: no more processes than it allows, and all of them end with it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

DEADLINE_S = 30.0


class PidsCgroup:
    def __init__(self, pids_max: int) -> None:
        name = f"mwtrace-test-pids-{os.getpid()}"
        v1 = Path("/sys/fs/cgroup/pids")
        if v1.exists():
            self._path = v1 / name
        else:
            root = Path("/sys/fs/cgroup")
            if "pids" not in (root / "cgroup.subtree_control").read_text().split():
                (root / "cgroup.subtree_control").write_text("+pids")
            self._path = root / name
        self._path.mkdir()
        self._limit(pids_max)

    def _limit(self, pids_max: int) -> None:
        (self._path / "pids.max").write_text(str(pids_max))

    def add(self, pid: int) -> None:
        (self._path / "cgroup.procs").write_text(str(pid))

    def pids(self) -> list[int]:
        return [int(line) for line in (self._path / "cgroup.procs").read_text().split()]

    def remove(self) -> None:
        """End all that is in it, and remove it."""
        self._limit(0)  # nobody forks any more, so what is killed stays killed
        deadline = time.monotonic() + DEADLINE_S
        while True:
            for pid in self.pids():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            try:
                self._path.rmdir()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
