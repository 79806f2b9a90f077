"""Encrypt what is written to a public key, by the program ``age``, as it is written.

mwtrace holds no private key, so a stolen disk or a curious administrator reads nothing; whoever
analyses decrypts first (``age -d -i key.txt``). The program is the distribution's (package age):
docs/decisions/0007 says why no library. It must not know what it encrypts.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import IO, Optional

from mwtrace.errors import ConfigError

_KEY = re.compile(r"age1[0-9a-z]{20,200}")
_FINISH_S = 60.0


class Seal:
    """A public key that the program takes."""

    def __init__(self, recipient: str) -> None:
        """recipient is a key (``age1...``) or a file of keys; raises ConfigError if it is bad."""
        program = shutil.which("age")
        if program is None:
            raise ConfigError(
                "cannot encrypt snapshots: there is no program 'age' here", "apt install age"
            )
        is_key = _KEY.fullmatch(recipient) is not None
        self._command = [program, "-r" if is_key else "-R", recipient]
        tried = subprocess.run(
            self._command, input=b"", capture_output=True, timeout=_FINISH_S, check=False
        )
        if tried.returncode:
            why = tried.stderr.decode("utf-8", "replace").strip().splitlines()
            raise ConfigError(
                f"cannot encrypt snapshots to {recipient!r}: {why[0] if why else 'age refuses it'}",
                "Name a public key (age1...) or a file of them; 'age-keygen' makes a pair.",
            )

    def begin(self, fd: int) -> Sealed:
        """Encrypt into a descriptor, which stays the caller's."""
        return Sealed(self._command, fd)


class Sealed:
    """One file that is being encrypted."""

    def __init__(self, command: list[str], fd: int) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=fd, stderr=subprocess.DEVNULL
        )
        self._stdin: Optional[IO[bytes]] = self._process.stdin

    def write(self, data: bytes) -> None:
        assert self._stdin is not None
        self._stdin.write(data)

    def finish(self) -> None:
        """Wait until all of it is written; raises OSError if the program failed."""
        self._close()
        try:
            code = self._process.wait(_FINISH_S)
        except subprocess.TimeoutExpired as error:
            self.abandon()
            raise OSError(0, "age did not finish") from error
        if code:
            raise OSError(0, f"age failed with code {code}")

    def abandon(self) -> None:
        self._process.kill()
        try:
            self._close()
        except OSError:
            pass  # what was buffered has nowhere to go
        self._process.wait(_FINISH_S)

    def _close(self) -> None:
        stdin, self._stdin = self._stdin, None
        if stdin is not None:
            stdin.close()
