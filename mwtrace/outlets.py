"""Where metrics go, as the command line asks for it: an HTTP server, a file, or both.

Introduces the finished table to those who render, serve and write it. Imported only when one of
them is asked for, since what they load is a good part of the daemon's memory.
"""

from __future__ import annotations

import re
import threading
from contextlib import ExitStack
from typing import NamedTuple, Optional

from mwtrace.daemon import Daemon
from mwtrace.errors import ConfigError, HostError
from mwtrace.exporting import SERVICES_MAX, Exporter, Wanted
from mwtrace.tell import metrics
from mwtrace.tell.cells import printable
from mwtrace.tell.families import PREFIX, Sample
from mwtrace.tell.http import Answer, HttpServer, Page, Request, parse_address
from mwtrace.tell.pprof import pprof
from mwtrace.tell.textfile import TextFile, TextFileWriter

_PREFIX = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*_")
_INDEX = b"""mwtrace, the memory-leak watchdog

/metrics                           for Prometheus, as text or OpenMetrics
/healthz                           whether processes are looked at as often as they should be
/debug/pprof/heap                  the services that a profile is known of
/debug/pprof/heap?service=NAME     what a growing service keeps, as pprof
"""


def checked_prefix(prefix: str) -> str:
    """Return a prefix of metric names; without one, theirs could be somebody else's."""
    if _PREFIX.fullmatch(prefix):
        return prefix
    raise ConfigError(
        f"cannot begin the names of metrics with '{printable(prefix)}'",
        f"Use ASCII letters, digits and underscores, with an underscore at the end: {PREFIX}",
    )


class Pages:
    """What the HTTP server shows of an exporter's table; for any thread."""

    def __init__(self, exporter: Exporter, prefix: str = PREFIX) -> None:
        self._exporter = exporter
        self._prefix = prefix
        self._lock = threading.Lock()
        self._rendered: dict[str, tuple[tuple[Sample, ...], Answer]] = {}  # by content type

    def by_path(self) -> dict[str, Page]:
        return {
            "/": lambda request: Answer(200, _INDEX),
            "/metrics": self.metrics,
            "/healthz": self.health,
            "/debug/pprof/heap": self.heap,
        }

    def metrics(self, request: Request) -> Answer:
        content_type = metrics.content_type(request.accept)
        samples = self._exporter.samples()
        if samples is None:
            return Answer(503, b"No process was looked at yet; try again in some seconds.\n")
        # One at a time: however many scrape at once, a table is rendered once.
        with self._lock:
            known = self._rendered.get(content_type)
            if known is not None and known[0] is samples:
                return known[1]
            body = metrics.render(samples, self._prefix, content_type)
            answer = Answer(200, body, content_type)
            self._rendered[content_type] = (samples, answer)
            return answer

    def health(self, request: Request) -> Answer:
        health = self._exporter.health()
        return Answer(200 if health.is_well else 503, f"{health.words}\n".encode())

    def heap(self, request: Request) -> Answer:
        service = request.query.get("service")
        if service is None:
            names = "".join(f"{printable(name)}\n" for name in self._exporter.profiled())
            return Answer(200, names.encode() or b"No service grows of which sites are known.\n")
        profile = self._exporter.profile(service)
        if profile is None:
            return Answer(404, b"No profile is known of that service: only what grows has one.\n")
        return Answer(200, pprof(profile), "application/octet-stream")


class File:
    """The metrics file of an exporter's table."""

    def __init__(self, exporter: Exporter, directory: str, prefix: str) -> None:
        self._exporter = exporter
        self._prefix = prefix
        self._file = TextFile(directory)

    def content(self) -> Optional[bytes]:
        samples = self._exporter.samples()
        return None if samples is None else metrics.render(samples, self._prefix)

    def keep(self) -> TextFileWriter:
        """Write it at each tick, in a thread, and remove it at the end."""
        writer = TextFileWriter(self._file, self.content)
        self._exporter.listen(writer.renew)
        self._exporter.add(
            lambda: [Sample("textfile_failures_total", (), writer.failures_total)],
        )
        return writer

    def close(self) -> None:
        """Let go of the directory; the file stays."""
        self._file.close(remove=False)

    def write(self) -> None:
        """Write it now, and leave it. Raises HostError if there is nothing to write, or no way."""
        content = self.content()
        try:
            if content is None:
                raise HostError("cannot write metrics: no process could be looked at")
            self._file.write(content)
        except OSError as error:
            raise HostError(
                f"cannot write {self._file.path}: {error.strerror}", "Make room on that disk."
            ) from error


class Outlets(NamedTuple):
    """What was asked for."""

    web_address: str = ""  # "": no server
    textfile_directory: str = ""  # "": no file
    prefix: str = PREFIX
    services_max: int = SERVICES_MAX


class Opened(NamedTuple):
    exporter: Exporter
    server: Optional[HttpServer]
    file: Optional[File]


def open_outlets(
    wish: Outlets, daemon: Daemon, is_wanted: Wanted, once: bool, undo: ExitStack
) -> Opened:
    """Open what was asked for, until undo is closed; the exporter is a teller of the daemon.

    With once the file is not written at ticks, and stays: ``Opened.file`` is to be written then.
    Raises ConfigError for what cannot be.
    """
    prefix = checked_prefix(wish.prefix)
    exporter = Exporter(daemon, is_wanted, wish.services_max)
    server = file = None
    if wish.web_address:
        pages = Pages(exporter, prefix)
        server = HttpServer(parse_address(wish.web_address), pages.by_path())
        undo.callback(server.close)
        exporter.add(lambda: _of_server(server))
    if wish.textfile_directory:
        file = File(exporter, wish.textfile_directory, prefix)
        undo.callback(file.close if once else file.keep().close)
    return Opened(exporter, server, file)


def _of_server(server: HttpServer) -> list[Sample]:
    by_status, refused = server.answers()
    answers = [
        Sample("http_requests_total", (str(status),), count)
        for status, count in sorted(by_status.items())
    ]
    return [*answers, Sample("http_refused_total", (), refused)]
