"""A small HTTP server for those who pull: a scraper, a profiler, a health check.

Knows pages as functions and nothing of what is on them. It runs in threads of its own, so that no
peer can delay a tick, and bounds what peers may cost: how many connections are open, and how long
each may take, whatever it sends and however slowly it reads.
"""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple, Optional, cast
from urllib.parse import parse_qs, urlsplit

from mwtrace.errors import ConfigError
from mwtrace.tell.cells import printable

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 16
CONNECTION_S = 10.0  # of one connection, from its first byte to our last
_POLL_S = 0.25
_CLOSING_S = 1.0
_QUERY_FIELDS_MAX = 16


class Request(NamedTuple):
    query: Mapping[str, str]  # the first value of each field
    accept: str


class Answer(NamedTuple):
    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


Page = Callable[[Request], Answer]


class Address(NamedTuple):
    host: str  # "": every address of this host
    port: int


def parse_address(text: str) -> Address:
    """Read ``127.0.0.1:9469``, ``:9469`` or ``[::1]:9469``; port 0 is any free one."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""  # IPv6 without brackets: where its port begins is anybody's guess
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ConfigError(
            f"cannot listen on '{printable(text)}'",
            "Name an address and a port, such as 127.0.0.1:9469, :9469 or [::1]:9469.",
        )
    return Address(host, int(port))


class HttpServer:
    """Serves pages by path from construction to ``close()``.

    Raises ConfigError if it cannot listen there.
    """

    def __init__(self, address: Address, pages: Mapping[str, Page]) -> None:
        try:
            self._server = _Server(address, pages)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {_words(address)}: {error.strerror or error}",
                "Name another address with --web-listen-address; 'ss -ltnp' shows who has this.",
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="http", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> str:
        """Where it listens, as a URL begins."""
        host, port = self._server.server_address[:2]
        return f"http://{_words(Address(str(host), port))}"

    def answers(self) -> tuple[dict[int, int], int]:
        """How many answers were given by status, and how many connections were refused or cut."""
        return self._server.answers()

    def close(self) -> None:
        """Let answers under way be finished for a moment, then end everything."""
        self._server.shutdown()
        self._thread.join(_CLOSING_S)
        self._server.server_close()
        self._server.end_all(_CLOSING_S)


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True  # Linux still refuses it where somebody listens
    daemon_threads = True
    block_on_close = False
    request_queue_size = CONNECTIONS_MAX

    def __init__(self, address: Address, pages: Mapping[str, Page]) -> None:
        self.pages = pages
        self._lock = threading.Lock()
        self._open: dict[socket.socket, float] = {}  # until when each may take
        self._by_status: dict[int, int] = {}
        self._refused = 0
        # An empty host is every address: by IPv6's wildcard, which takes IPv4 as well.
        wildcard = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"
        host = address.host or wildcard
        family, _, _, _, where = socket.getaddrinfo(
            host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        self.address_family = family
        self._is_dual = not address.host and family == socket.AF_INET6
        super().__init__(cast(Any, where), _Handler)

    def server_bind(self) -> None:
        if self._is_dual:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._open) >= CONNECTIONS_MAX:
                self._refused += 1
                is_full = True
            else:
                self._open[request] = time.monotonic() + CONNECTION_S
                is_full = False
        if is_full:
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread to be had
            self._forget(request)
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        self._forget(request)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        now_s = time.monotonic()
        with self._lock:
            late = [request for request, until_s in self._open.items() if now_s > until_s]
            for request in late:
                # Its thread sees an end of file, and closes it.
                del self._open[request]
                self._refused += 1
                _cut(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a peer went away, or was cut off", exc_info=True)

    def count(self, status: int) -> None:
        with self._lock:
            self._by_status[status] = self._by_status.get(status, 0) + 1

    def answers(self) -> tuple[dict[int, int], int]:
        with self._lock:
            return dict(self._by_status), self._refused

    def end_all(self, within_s: float) -> None:
        deadline_s = time.monotonic() + within_s
        while time.monotonic() < deadline_s:
            with self._lock:
                if not self._open:
                    return
            time.sleep(0.01)
        with self._lock:
            for request in self._open:
                _cut(request)

    def _forget(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)


class _Handler(BaseHTTPRequestHandler):
    # HTTP/1.0: a connection for each request, so that idle ones need no bound of their own.
    server_version = "mwtrace"
    sys_version = ""
    timeout = CONNECTION_S
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = "text/plain; charset=utf-8"

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("%s: %s", self.address_string(), printable(format % args))

    def send_error(
        self, code: int, message: Optional[str] = None, explain: Optional[str] = None
    ) -> None:
        self._count(int(code))
        super().send_error(code, message, explain)

    def _answer(self, with_body: bool) -> None:
        parts = urlsplit(self.path)
        page = self._server.pages.get(parts.path)
        if page is None:
            answer = Answer(404, b"There is nothing here; / lists what there is.\n")
        else:
            answer = self._page(page, parts.query)
        self._count(answer.status)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if with_body:
            self.wfile.write(answer.body)

    def _page(self, page: Page, query: str) -> Answer:
        try:
            fields = parse_qs(query, max_num_fields=_QUERY_FIELDS_MAX)
        except ValueError:
            return Answer(400, b"The query has too many fields.\n")
        first = {name: values[0] for name, values in fields.items()}
        try:
            return page(Request(first, self.headers.get("Accept", "")))
        except Exception:  # a bug in a page must not end the connection without a word
            log.exception("cannot make %s", printable(self.path))
            return Answer(500, b"This page could not be made; mwtrace's log says why.\n")

    @property
    def _server(self) -> _Server:
        return cast(_Server, self.server)

    def _count(self, status: int) -> None:
        self._server.count(status)


def _cut(request: socket.socket) -> None:
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it went by itself


def _words(address: Address) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{host}:{address.port}"
