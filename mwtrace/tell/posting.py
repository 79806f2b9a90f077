"""One HTTP POST with an end: to whom, with which credentials, within how many seconds.

The other side is hostile: it may be silent, drip, talk garbage or never close. http.client's
timeout is one per read, so a peer that sends a byte a second would hold us for ever; here the whole
answer has one deadline. Redirects are not followed: news is not for whoever a peer names.
"""

from __future__ import annotations

import base64
import configparser
import http.client
import io
import os
import re
import socket
import ssl
import stat
import time
import urllib.parse
from dataclasses import dataclass
from typing import Optional

from mwtrace.errors import ConfigError
from mwtrace.tell.cells import printable
from mwtrace.tell.sinks import Undelivered

TIMEOUT_S = 5.0  # to connect, and then to be answered
_HEAD_BYTES_MAX = 64 * 1024
_BODY_BYTES_MAX = 2 * 1024
_WORDS_MAX = 200
_AUTH_FILE_BYTES_MAX = 64 * 1024
_USER_AGENT = "mwtrace"
_RETRY_STATUS = frozenset({408, 425, 429})
_HOST = re.compile(r"[A-Za-z0-9._:%\-]+")


@dataclass(frozen=True)
class Credentials:
    """What a peer asks for; read from a file, because a command line is for everybody to see."""

    authorization: str = ""
    ca_file: Optional[str] = None
    cert_file: Optional[str] = None
    key_file: Optional[str] = None


@dataclass(frozen=True)
class Address:
    """An http or https URL that was checked."""

    is_tls: bool
    host: str
    port: Optional[int]
    path: str  # with the query

    @property
    def words(self) -> str:
        """Whom we talk to; without the path, which may be the secret itself."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port is not None else ""
        return f"{'https' if self.is_tls else 'http'}://{host}{port}"


def parse_address(url: str, option: str, suffix: str = "") -> Address:
    """Check a URL and append a path. Raises ConfigError."""
    remedy = f"Write it as in {option} http://127.0.0.1:9093"
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{option}: this is no URL: {error}", remedy) from error
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(parts.hostname or ""):
        raise ConfigError(f"{option}: this is no http or https URL", remedy)
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            f"{option}: the URL holds a password, which ps shows to everybody",
            "Put it into a file of its own: see --alertmanager-auth-file in docs/alerts.md.",
        )
    path = parts.path.rstrip("/") + suffix if suffix else parts.path or "/"
    if parts.query:
        path += f"?{parts.query}"
    if not path.isascii() or not path.isprintable() or " " in path:
        raise ConfigError(f"{option}: the URL holds characters that no URL may", remedy)
    return Address(parts.scheme == "https", parts.hostname or "", port, path)


def read_credentials(path: str) -> Credentials:
    """Read ``[basic]``, ``[bearer]`` and ``[tls]`` of an ini file. Raises ConfigError."""
    remedy = "docs/alerts.md shows one."
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            parser.read_string(file.read(_AUTH_FILE_BYTES_MAX))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", remedy) from error
    except (configparser.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: it is no ini file", remedy) from error
    if mode & stat.S_IRWXO:
        raise ConfigError(f"{path} holds secrets, and all users may read it", f"chmod 600 {path}")
    known = {"basic": {"username", "password"}, "bearer": {"token"}}
    known["tls"] = {"ca_file", "cert_file", "key_file"}
    for section in parser.sections():
        strange = set(parser[section]) - known.get(section, set())
        if section not in known or strange:
            named = f"[{section}] {min(strange, default='')}".strip()
            raise ConfigError(f"{path}: {named} is not known", remedy)
    if parser.has_section("basic") and parser.has_section("bearer"):
        raise ConfigError(f"{path}: [basic] and [bearer] exclude each other", remedy)
    tls = parser["tls"] if parser.has_section("tls") else {}
    return Credentials(
        _authorization(parser, path),
        tls.get("ca_file"),
        tls.get("cert_file"),
        tls.get("key_file"),
    )


def _authorization(parser: configparser.ConfigParser, path: str) -> str:
    value = ""
    if parser.has_section("bearer"):
        value = f"Bearer {parser.get('bearer', 'token', fallback='')}"
    elif parser.has_section("basic"):
        user = parser.get("basic", "username", fallback="")
        password = parser.get("basic", "password", fallback="")
        value = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
    if not value.isascii() or not value.isprintable() or value.endswith(" "):
        raise ConfigError(f"{path}: the token is empty, or holds what no header may")
    return value


class Peer:
    """One address that is posted to, with the certificates it needs."""

    def __init__(self, address: Address, credentials: Credentials = Credentials()) -> None:
        self.address = address
        self._credentials = credentials
        self._tls: Optional[ssl.SSLContext] = None
        if address.is_tls:
            try:
                self._tls = ssl.create_default_context(cafile=credentials.ca_file)
                if credentials.cert_file:
                    self._tls.load_cert_chain(credentials.cert_file, credentials.key_file)
            except OSError as error:  # ssl.SSLError is one
                files = ", ".join(
                    name for name in (credentials.ca_file, credentials.cert_file) if name
                )
                raise ConfigError(
                    f"cannot use the certificates for {address.words}: {files or error}: "
                    f"{error.strerror or error}"
                ) from error

    def post(self, body: bytes, timeout_s: float = TIMEOUT_S) -> None:
        """Send JSON and wait for a 2xx answer. Raises Undelivered."""
        deadline_s = time.monotonic() + 2 * timeout_s
        connection = self._connection(timeout_s)
        try:
            headers = {
                "Content-Type": "application/json",
                "User-Agent": _USER_AGENT,
                "Connection": "close",
            }
            if self._credentials.authorization:
                headers["Authorization"] = self._credentials.authorization
            connection.request("POST", self.address.path, body, headers)
            status, retry_after, words = _answer(connection.sock, deadline_s)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Undelivered(f"{self.address.words}: {_why(error)}", again=True) from error
        finally:
            connection.close()
        if 200 <= status < 300:
            return
        raise Undelivered(
            f"{self.address.words} answered {status}{': ' if words else ''}{words}",
            again=status >= 500 or status in _RETRY_STATUS,
            after_s=retry_after,
        )

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        # Always with a port: http.client would look for one in an IPv6 address.
        host, port = self.address.host, self.address.port
        if self._tls is not None:
            return http.client.HTTPSConnection(
                host, 443 if port is None else port, timeout=timeout_s, context=self._tls
            )
        return http.client.HTTPConnection(host, 80 if port is None else port, timeout=timeout_s)


class _Bytes:
    """What was received, as http.client wants to read it."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._raw)


def _answer(sock: socket.socket, deadline_s: float) -> tuple[int, Optional[float], str]:
    """Return the status, after how many seconds to try again, and what else was said."""
    raw = b""
    while b"\r\n\r\n" not in raw and b"\n\n" not in raw and len(raw) < _HEAD_BYTES_MAX:
        more = _receive(sock, deadline_s)
        if not more:
            break
        raw += more
    if not raw:
        raise http.client.RemoteDisconnected("it closed the connection without an answer")
    if b"\r\n\r\n" not in raw and b"\n\n" not in raw:
        raise http.client.BadStatusLine("its head has no end")
    response = http.client.HTTPResponse(_Bytes(raw), method="POST")  # type: ignore[arg-type]
    response.begin()
    words = ""
    if not 200 <= response.status < 300:
        words = _words(raw, sock, deadline_s)
    return response.status, _seconds(response.getheader("Retry-After")), words


def _words(raw: bytes, sock: socket.socket, deadline_s: float) -> str:
    """The beginning of what a refusal says; a peer that does not say it in time is not asked."""
    body = re.split(rb"\r?\n\r?\n", raw, maxsplit=1)[-1]
    try:
        while len(body) < _BODY_BYTES_MAX and (more := _receive(sock, deadline_s)):
            body += more
    except OSError:
        pass  # the status is known
    shown = " ".join(body[:_BODY_BYTES_MAX].decode("utf-8", "replace").split())
    return printable(shown[:_WORDS_MAX])


def _receive(sock: socket.socket, deadline_s: float) -> bytes:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise socket.timeout("timed out")
    sock.settimeout(left_s)
    return sock.recv(16 * 1024)


def _seconds(header: Optional[str]) -> Optional[float]:
    # The other form of the header, a date, is read as no header.
    return float(header) if header and re.fullmatch(r"[0-9]{1,6}", header.strip()) else None


def _why(error: Exception) -> str:
    if isinstance(error, socket.timeout):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return printable(getattr(error, "verify_message", "") or error.reason or "no TLS")
    if isinstance(error, (http.client.HTTPException, ValueError)):
        # The one of them that says something else is an OSError, too.
        is_closed = isinstance(error, http.client.RemoteDisconnected)
        return str(error) if is_closed else "what it answered is no HTTP"
    return printable(str(getattr(error, "strerror", None) or error) or type(error).__name__)
