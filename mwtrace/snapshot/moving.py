"""The operator's command that each snapshot is handed to, to object storage for example.

Run in a thread of its own, tried again, bounded in time and number, so that neither a tick nor
the next snapshot waits for it. The command is the operator's; the file's path is its last word,
and no shell reads it. It must not know what the command does.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shlex
import subprocess
import threading
from collections.abc import Sequence
from typing import Optional

from mwtrace.errors import ConfigError
from mwtrace.model import Snapshot

_WAITING_MAX = 32
_TRY_S = 600.0
_BETWEEN_S = (5.0, 60.0)  # so many tries, and one
_ENDS_S = 5.0
_SAID_CHARACTERS_MAX = 200


class Mover:
    def __init__(self, command: str, between_s: Sequence[float] = _BETWEEN_S) -> None:
        """Raises ConfigError if the command cannot be split into words."""
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise ConfigError(f"cannot run {command!r}: {error}", "Quote it as in a shell.") from (
                error
            )
        if not self._command:
            raise ConfigError("cannot run an empty command", "Name a program.")
        self._between_s = between_s
        self._waiting: queue.Queue[Optional[Snapshot]] = queue.Queue(_WAITING_MAX)
        self._closing = threading.Event()
        self._thread: Optional[threading.Thread] = None
        self._process: Optional[subprocess.Popen[bytes]] = None
        self.last_failure = ""
        self.counters = {
            "snapshots_moved_total": 0,
            "snapshots_unmoved_total": 0,
            "snapshot_move_retries_total": 0,
        }

    def put(self, snapshot: Snapshot) -> bool:
        """Have one handed over soon; False, and counted, if too many wait. Never waits."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mover", daemon=True)
            self._thread.start()
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(snapshot)
            return True
        self._fail(f"{snapshot.path}: too many snapshots wait to be moved")
        return False

    def finish(self) -> bool:
        """Wait until all were handed over or given up; return whether none was given up."""
        self._waiting.join()
        return not self.counters["snapshots_unmoved_total"]

    def close(self) -> None:
        """End, whatever waits: what was not handed over stays in the store."""
        self._closing.set()
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
        if self._thread is not None:
            self._thread.join(_ENDS_S)

    def _work(self) -> None:
        while True:
            snapshot = self._waiting.get()
            try:
                if snapshot is None or self._closing.is_set():
                    return
                self._move(snapshot)
            finally:
                self._waiting.task_done()

    def _move(self, snapshot: Snapshot) -> None:
        why = ""
        for number in range(len(self._between_s) + 1):
            if number:
                self.counters["snapshot_move_retries_total"] += 1
                if self._closing.wait(self._between_s[number - 1]):
                    break
            why = self._try(snapshot)
            if not why:
                self.counters["snapshots_moved_total"] += 1
                return
        self._fail(f"{self._command[0]} {snapshot.path}: {why}")

    def _try(self, snapshot: Snapshot) -> str:
        """Run the command once; return why it failed, "" if it did not."""
        told = {
            "MWTRACE_SERVICE": snapshot.service,
            "MWTRACE_PID": str(snapshot.process.pid),
            "MWTRACE_WHY": snapshot.why,
        }
        try:
            self._process = subprocess.Popen(
                [*self._command, snapshot.path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, **told},
            )
        except OSError as error:
            return error.strerror or f"{error}"
        try:
            said = self._process.communicate(timeout=_TRY_S)[1]
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            return f"not done within {_TRY_S:g} s"
        if self._process.returncode == 0:
            return ""
        last = said.decode("utf-8", "replace").strip().splitlines()[-1:]
        return f"code {self._process.returncode}: {''.join(last)[:_SAID_CHARACTERS_MAX]}"

    def _fail(self, words: str) -> None:
        self.last_failure = words
        self.counters["snapshots_unmoved_total"] += 1
