"""A program to be watched: it prints a word when it is ready and acts on lines.

Every wait has a deadline, and whoever starts one calls ``stop()`` on all paths.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Sequence

DEADLINE_S = 30.0


class Target:
    def __init__(self, command: Sequence[bytes | str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self.pid = self._process.pid
        self._unread = b""

    def tell(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line.encode() + b"\n")

    def line(self) -> str:
        """Return the next line it prints; fail when it ends or takes too long."""
        assert self._process.stdout
        deadline = time.monotonic() + DEADLINE_S
        descriptor = self._process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise AssertionError(f"target {self.pid} said nothing for {DEADLINE_S} s")
                data = os.read(descriptor, 1 << 16)
                if not data:
                    raise AssertionError(f"target {self.pid} ended")
                self._unread += data
        line, self._unread = self._unread.split(b"\n", 1)
        return line.decode()

    def expect(self, word: str) -> None:
        line = self.line()
        assert line == word, line

    def ask(self, line: str) -> None:
        """Have it do something and wait until it has."""
        self.tell(line)
        self.expect("done")

    def wait(self) -> int:
        """Return the exit code of one that ends by itself; negative: the signal."""
        return self._process.wait(DEADLINE_S)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(DEADLINE_S)
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
