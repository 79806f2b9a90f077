"""A command of the operator's, run once for each news, with the JSON on its standard input.

No shell: a service's name is a stranger's text. The command gets a session of its own, so that
whatever it started ends with it at the deadline, and of what it says only the beginning is read.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import IO, Optional

from mwtrace.errors import ConfigError
from mwtrace.model import IncidentNews
from mwtrace.tell.cells import printable
from mwtrace.tell.incident import news_json, text
from mwtrace.tell.sinks import Sink, Undelivered

TIMEOUT_S = 30.0
_ENDS_WITHIN_S = 2.0
_ABORTS_WITHIN_S = 0.5
_POLL_S = 0.02
_SAID_BYTES_MAX = 2048
_WORDS_MAX = 200


class ExecHook(Sink):
    renew_s: Optional[float] = None

    def __init__(self, command: str, host: str, timeout_s: float = TIMEOUT_S) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise ConfigError(
                f"--exec: cannot read the command: {error}", "Quote it as for a shell."
            ) from error
        program = shutil.which(self._words[0]) if self._words else None
        if program is None:
            named = printable(self._words[0]) if self._words else "nothing"
            raise ConfigError(
                f"--exec: there is no program {named}", "Give its full path; a shell is not used."
            )
        self.name = f"exec {os.path.basename(program)}"
        self._host = host
        self._timeout_s = timeout_s
        self._changing = threading.Lock()
        self._running: Optional[subprocess.Popen[bytes]] = None

    def deliver(self, news: Sequence[IncidentNews]) -> None:
        for one in news:
            self._run(one)

    def abort(self) -> None:
        with self._changing:
            if self._running is not None:
                _end(self._running, _ABORTS_WITHIN_S)

    def _run(self, news: IncidentNews) -> None:
        try:
            # A file and not a pipe: a command that does not read cannot keep us from writing.
            with tempfile.TemporaryFile() as body:
                body.write(news_json(news, self._host).encode("ascii") + b"\n")
                body.seek(0)
                with self._changing:
                    process = self._running = self._start(news, body)
        except OSError as error:
            raise Undelivered(f"cannot be started: {error.strerror}", again=True) from error
        try:
            said = self._watch(process)
        finally:
            with self._changing:
                self._running = None
                process.wait()  # it has ended: this only takes its number back
        if process.returncode != 0:
            how = f"exit code {process.returncode}"
            if process.returncode < 0:
                how = f"ended by signal {-process.returncode}"
            raise Undelivered(f"{how}{': ' if said else ''}{said}", again=True)

    def _start(self, news: IncidentNews, body: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._words,
            stdin=body,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={
                **os.environ,
                "MWTRACE_EVENT": f"incident_{news.happening.value}",
                "MWTRACE_INCIDENT": news.incident.id,
                "MWTRACE_TYPE": news.incident.type.value,
                "MWTRACE_SERVICE": text(printable(news.incident.service.name)),
                "MWTRACE_SUMMARY": text(news.incident.summary),
            },
        )

    def _watch(self, process: subprocess.Popen[bytes]) -> str:
        """Wait for its end and return the beginning of what it said; raises Undelivered if late."""
        assert process.stdout
        deadline_s = time.monotonic() + self._timeout_s
        try:
            raw = _read(process.stdout, deadline_s)
            _await(process, deadline_s)
        except TimeoutError as error:
            _end(process, _ENDS_WITHIN_S)
            raise Undelivered(f"not done after {self._timeout_s:g} s", again=True) from error
        finally:
            process.stdout.close()
        return printable(" ".join(raw.decode("utf-8", "replace").split())[:_WORDS_MAX])


def _read(pipe: IO[bytes], deadline_s: float) -> bytes:
    """Read to the end and keep the beginning; raises TimeoutError."""
    kept = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline_s - time.monotonic())):
                raise TimeoutError
            more = os.read(pipe.fileno(), 16 * 1024)
            if not more:
                return kept
            kept = (kept + more)[:_SAID_BYTES_MAX]


def _await(process: subprocess.Popen[bytes], deadline_s: float) -> None:
    """Wait for one that has closed its output, and leave it to be ended if it is late."""
    while not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if time.monotonic() >= deadline_s:
            raise TimeoutError
        time.sleep(_POLL_S)


def _end(process: subprocess.Popen[bytes], within_s: float) -> None:
    """End it and what it started: first they are asked, then they are not.

    It must not have been waited for: until then nobody else can get its number, nor its group's.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        time.sleep(_POLL_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
