"""Incident news as one structured entry of systemd's journal; without a journal, one line of log.

Speaks journald's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): one datagram per entry, so
that fields can be asked for, as in ``journalctl MWTRACE_SERVICE=orders.service``.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import struct
from collections.abc import Sequence
from typing import Optional

from mwtrace.model import Happening, IncidentNews
from mwtrace.tell.incident import evidence, news_json, news_line, text
from mwtrace.tell.sinks import Sink, Undelivered

log = logging.getLogger(__name__)

SOCKET = "/run/systemd/journal/socket"
MESSAGE_ID = "6f1f1a5d7c3b4b0e9a52d8c4f0b7e913"  # of all incident news; journalctl MESSAGE_ID=...
_WARNING, _NOTICE = 4, 5  # syslog priorities
_TIMEOUT_S = 5.0
_FIELD_CHARACTERS_MAX = 8 * 1024


class Journal(Sink):
    renew_s: Optional[float] = None

    def __init__(self, host: str, path: str = SOCKET) -> None:
        self.name = "journal"
        self._host = host
        self._path = path

    def deliver(self, news: Sequence[IncidentNews]) -> None:
        for one in news:
            if not _is_socket(self._path):
                log.warning("%s", news_json(one, self._host))
                continue
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
                    journal.settimeout(_TIMEOUT_S)
                    journal.connect(self._path)
                    journal.sendall(entry(fields(one, self._host)))
            except OSError as error:
                raise Undelivered(error.strerror or "no answer in time", again=True) from error


def fields(news: IncidentNews, host: str) -> dict[str, str]:
    """The entry's fields; names are upper case, as journald wants them."""
    incident = news.incident
    calm = news.happening is Happening.RESOLVED
    return {
        "MESSAGE": news_line(news, host),
        "MESSAGE_ID": MESSAGE_ID,
        "PRIORITY": str(_NOTICE if calm else _WARNING),
        "SYSLOG_IDENTIFIER": "mwtrace",
        "MWTRACE_EVENT": f"incident_{news.happening.value}",
        "MWTRACE_INCIDENT": incident.id,
        "MWTRACE_TYPE": incident.type.value,
        "MWTRACE_SERVICE": text(incident.service.name),
        **{f"MWTRACE_{name.upper()}": value for name, value in evidence(incident).items()},
    }


def entry(named: dict[str, str]) -> bytes:
    """The datagram: values with a line break are sent with their length."""
    parts = []
    for name, value in named.items():
        raw = text(value[:_FIELD_CHARACTERS_MAX]).encode()
        if b"\n" in raw:
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n")
        else:
            parts.append(name.encode() + b"=" + raw + b"\n")
    return b"".join(parts)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False
