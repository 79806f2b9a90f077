"""The program under test as an operator runs it: what it says goes to two files that tests read.

Every wait has a deadline, and whoever starts one calls ``stop()`` on all paths.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

DEADLINE_S = 30.0
POLL_S = 0.05


class Watcher:
    """``python -m mwtrace`` with these words; ``before`` are words of a program that runs it."""

    def __init__(self, folder: Path, *words: object, before: Sequence[str] = ()) -> None:
        self._out = folder / f"{time.monotonic_ns()}.out"
        self._err = self._out.with_suffix(".err")
        command = [*before, sys.executable, "-m", "mwtrace", *map(str, words)]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
        self.pid = self.process.pid

    @property
    def out(self) -> str:
        return self._out.read_text(errors="surrogateescape")

    @property
    def err(self) -> str:
        return self._err.read_text(errors="surrogateescape")

    def objects(self) -> list[dict[str, Any]]:
        """What it told so far with --json; a line that is not whole yet is left out."""
        return [json.loads(line) for line in self.out.split("\n")[:-1]]

    def told(self, pid: int) -> list[str]:
        """All verdicts on a process so far."""
        return [o["verdict"] for o in self.objects() if o.get("pid") == pid and "verdict" in o]

    def wait_for(self, is_so: Callable[[Watcher], Any], within_s: float = DEADLINE_S) -> None:
        deadline = time.monotonic() + within_s
        while not is_so(self):
            ended = self.process.poll()
            assert ended is None, f"ended with {ended}: {self.err}"
            assert time.monotonic() < deadline, f"{within_s} s passed: {self.out}{self.err}"
            time.sleep(POLL_S)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self) -> int:
        """Interrupt it as Ctrl-C does; return the exit code."""
        self.signal(signal.SIGINT)
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(DEADLINE_S)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE_S)
