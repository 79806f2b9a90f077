"""A program that counts what it does, so that a bench can tell how much of that is lost.

What is done to it meanwhile is the bench's business.
"""

from __future__ import annotations

import os
import signal
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from memleak import NotRun
from target import Target


class Work:
    """A program that counts what it does in a file that we map."""

    def __init__(self, command: list[str], counter: str, memray: str) -> None:
        Path(counter).write_bytes(bytes(16))
        environment = {**os.environ, "PYTHONPATH": memray} if memray else dict(os.environ)
        self._counter = counter
        self._target = Target(
            ["env", *(f"{k}={v}" for k, v in environment.items()), *command, counter]
        )
        self.pid = self._target.pid
        self._target.expect("ready")

    def done(self) -> int:
        return int(struct.unpack_from("=Q", Path(self._counter).read_bytes())[0])

    def toggle_tracemalloc(self, wanted: bool) -> None:
        os.kill(self.pid, signal.SIGUSR1)
        deadline = time.monotonic() + 10
        while bool(Path(self._counter).read_bytes()[8]) != wanted:
            if time.monotonic() > deadline:
                raise NotRun("the program did not switch it in 10 s")
            time.sleep(0.01)

    def cpu_s(self) -> float:
        """CPU of all its threads: what others take of the machine is not in it."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def stop(self) -> None:
        self._target.stop()
