"""Words for the service manager that started us: sd_notify(3), without its library.

A datagram to the socket it named; where none is named, or it listens no more, nothing happens: a
watch must not end for want of somebody to tell.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

_STATUS_BYTES_MAX = 512


class Notify:
    """The service manager's socket, or nothing at all."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # "@": an abstract socket, which the kernel spells with a NUL.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if address[:1] in ("/", "@"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)

    @property
    def is_heard(self) -> bool:
        return self._socket is not None

    def ready(self) -> None:
        self._send("READY=1")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def status(self, words: str) -> None:
        line = "".join(c if c.isprintable() else "?" for c in words)
        self._send("STATUS=" + line.encode()[:_STATUS_BYTES_MAX].decode(errors="ignore"))

    def reloading(self) -> None:
        # The time is asked for by Type=notify-reload (systemd 253).
        self._send(
            f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
        )

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, words: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(words.encode(), self._address)
        except OSError:
            pass  # its queue is full, or it is gone: the next words come soon
