"""Receivers on loopback that behave as told: real sockets, one connection after another.

A behaviour is a function that is given the connection and the request; what was posted is kept.
Every wait has a deadline, and whoever starts one calls ``stop()`` on all paths.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Optional

DEADLINE_S = 20.0


@dataclass
class Request:
    line: str
    headers: dict[str, str]
    body: bytes = b""
    time_s: float = field(default_factory=time.monotonic)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Behaviour = Callable[[socket.socket, "Peer"], None]


def answering(status: int, body: bytes = b"", *headers: str) -> Behaviour:
    """Answer each request with this status."""

    def behave(connection: socket.socket, peer: Peer) -> None:
        lines = [f"HTTP/1.1 {status} So", f"Content-Length: {len(body)}", *headers]
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    return behave


def saying(raw: bytes) -> Behaviour:
    """Answer with these bytes and close."""
    return lambda connection, peer: connection.sendall(raw)


def silent(connection: socket.socket, peer: Peer) -> None:
    """Answer nothing and keep the connection until the other closes it, or we stop."""
    peer.wait_for_the_end(connection)


def half_closing(connection: socket.socket, peer: Peer) -> None:
    """Say no more, but go on listening."""
    connection.shutdown(socket.SHUT_WR)
    peer.wait_for_the_end(connection)


def dripping(connection: socket.socket, peer: Peer) -> None:
    """A header that never ends, a byte at a time."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Endless: ")
    with contextlib.suppress(OSError):
        while not peer.stopped.wait(0.02):
            connection.sendall(b"x")


def flooding(connection: socket.socket, peer: Peer) -> None:
    """A body that never ends, as fast as it is taken."""
    connection.sendall(b"HTTP/1.1 500 No\r\n\r\n")
    with contextlib.suppress(OSError):
        while not peer.stopped.is_set():
            connection.sendall(b"x" * 65536)


class Peer:
    """Listens on a free port; ``behave`` may be changed at any time."""

    def __init__(self, behave: Behaviour, tls: Optional[ssl.SSLContext] = None) -> None:
        self.behave = behave
        self.requests: list[Request] = []
        self.stopped = threading.Event()
        self._tls = tls
        self._came = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(DEADLINE_S)
        self.port = self._listener.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def wait_for(self, count: int, within_s: float = DEADLINE_S) -> list[Request]:
        """Return the requests once there are so many."""
        with self._came:
            came = self._came.wait_for(lambda: len(self.requests) >= count, within_s)
        assert came, f"{len(self.requests)} requests after {within_s} s"
        return list(self.requests)

    def wait_for_the_end(self, connection: socket.socket) -> None:
        connection.settimeout(0.05)
        while not self.stopped.is_set():
            try:
                if not connection.recv(4096):
                    return
            except socket.timeout:
                pass
            except OSError:
                return

    def stop(self) -> None:
        self.stopped.set()
        with contextlib.suppress(OSError):
            # Ends the wait for a connection.
            socket.create_connection(("127.0.0.1", self.port), 1.0).close()
        self._thread.join(DEADLINE_S)
        self._listener.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while not self.stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                continue
            with connection:
                if not self.stopped.is_set():
                    with contextlib.suppress(OSError):
                        self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        connection.settimeout(DEADLINE_S)
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True)
        with connection:
            request = _read(connection)
            if request is None:
                return
            with self._came:
                self.requests.append(request)
                self._came.notify_all()
            self.behave(connection, self)


def _read(connection: socket.socket) -> Optional[Request]:
    raw = b""
    while b"\r\n\r\n" not in raw:
        more = connection.recv(65536)
        if not more:
            return None
        raw += more
    head, body = raw.split(b"\r\n\r\n", 1)
    line, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (row.partition(": ") for row in rest)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    return Request(line, headers, body)
