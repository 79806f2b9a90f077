"""The real Alertmanager: what it holds, what it notifies of, and what is left after it was killed.

A group's notification is a request at a receiver of ours, so a duplicate would be seen.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import pytest
from incidents_made import incident, opened, resolved
from peers import Peer, answering
from servers import Alertmanager, wait_until

from mwtrace.model import Happening, IncidentNews, Service, ServiceKind
from mwtrace.tell import alertmanager as alertmanager_module
from mwtrace.tell.alertmanager import API_PATH
from mwtrace.tell.posting import Peer as Client
from mwtrace.tell.posting import parse_address
from mwtrace.tell.sender import Sender

pytestmark = pytest.mark.kernel

RENEW_S = 0.5
CONFIG = """
route:
  receiver: ours
  group_by: [alertname, service]
  group_wait: 0s
  group_interval: 1s
  repeat_interval: 1h
receivers:
- name: ours
  webhook_configs:
  - url: {url}/notified
    send_resolved: true
"""


@pytest.fixture
def receiver() -> Iterator[Peer]:
    peer = Peer(answering(200))
    yield peer
    peer.stop()


@pytest.fixture
def server(tmp_path: Path, receiver: Peer) -> Iterator[Alertmanager]:
    # It writes down whom it notified each second. Its default is 15 minutes, and what it forgets
    # when it is killed before that, it says twice, whoever told it.
    server = Alertmanager(
        tmp_path, CONFIG.format(url=receiver.url), "--data.maintenance-interval=1s"
    )
    yield server
    server.stop(signal.SIGKILL)


@pytest.fixture
def send(server: Alertmanager) -> Iterator[Sender]:
    peer = Client(parse_address(server.url, "--alertmanager", API_PATH))
    sender = Sender(
        alertmanager_module.Alertmanager(peer, "host-1", RENEW_S, "https://wiki/runbooks/")
    )
    yield sender
    sender.close()


def now(news: IncidentNews, ago_s: float = 0.0) -> IncidentNews:
    """The same news, of this minute: an Alertmanager has its own clock."""
    unix_s = time.time() - ago_s
    changes: dict[str, Any] = {"opened_unix_s": unix_s, "updated_unix_s": unix_s}
    if news.incident.resolved_unix_s is not None:
        changes["resolved_unix_s"] = unix_s
    number = int(news.incident.id[-1])
    return news._replace(incident=incident(number, **{**changes, "resolution": ""}))


def notified(receiver: Peer) -> list[tuple[str, str]]:
    """What its receiver was told, in order: status and service."""
    return [
        (told.json["status"], told.json["commonLabels"]["service"]) for told in receiver.requests
    ]


def has_written_down(nflog: Path, count: int) -> bool:
    """Whether it would know after a crash whom it notified of so many groups."""
    return nflog.exists() and nflog.read_bytes().count(b"MwtraceMemoryLeak") >= count


def services(server: Alertmanager) -> Callable[[], set[str]]:
    return lambda: {alert["labels"]["service"] for alert in server.alerts()}


def test_an_incident_is_one_alert_from_its_beginning_to_its_end(
    server: Alertmanager, receiver: Peer, send: Sender
) -> None:
    first = now(opened())
    send.put(first)
    receiver.wait_for(1)
    (alert,) = server.alerts()
    assert alert["labels"] == {
        "alertname": "MwtraceMemoryLeak",
        "service": "orders-1.service",
        "service_kind": "unit",
        "host": "host-1",
        "severity": "warning",
    }
    said = alert["annotations"]
    assert said["summary"] == "LEAKING orders-1.service (pid 4711): +1.02 MiB/s"
    assert said["slope"] == "+1.02 MiB/s [0.98, 1.05]"
    assert said["kind"] == "python-objects"
    assert said["forecast"].startswith("1.0 GiB (cgroup), reached at ")
    assert said["site"] == ("94% of the growth, by audited survivors: app.py:remember (line 31)")
    assert said["holder"] == "app.SESSIONS[\u2026]"
    assert said["snapshot"] == "/var/lib/mwtrace/snapshots/1.mws"
    assert said["runbook"] == "mwtrace assets show runbooks/MwtraceMemoryLeak.md"
    assert said["runbook_url"] == "https://wiki/runbooks/MwtraceMemoryLeak.md"
    # More is known: the same alert says so, and nobody is woken again.
    more = replace(first.incident, kind="mmap")
    send.put(IncidentNews(Happening.UPDATED, more))
    wait_until(lambda: [one["annotations"]["kind"] for one in server.alerts()] == ["mmap"])
    over = replace(more, resolved_unix_s=time.time(), resolution="it is steady")
    send.put(IncidentNews(Happening.RESOLVED, over))
    receiver.wait_for(2)
    assert notified(receiver) == [
        ("firing", "orders-1.service"),
        ("resolved", "orders-1.service"),
    ]
    # It came back: the same alert fires again.
    again = replace(over, resolved_unix_s=None, reopened_unix_s=time.time())
    send.put(IncidentNews(Happening.UPDATED, again))
    receiver.wait_for(3)
    assert notified(receiver)[2] == ("firing", "orders-1.service")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_alertmanager_that_is_killed_loses_nothing_and_says_nothing_twice(
    server: Alertmanager, receiver: Peer, send: Sender, tmp_path: Path, number: int
) -> None:
    send.put(now(opened(1)))
    send.put(now(opened(2)))
    receiver.wait_for(2)
    wait_until(lambda: has_written_down(tmp_path / "alertmanager" / "nflog", 2))
    server.stop(number)
    wait_until(lambda: send.failures > 0)
    # While it is away a leak begins, and another one ends.
    send.put(now(opened(3)))
    send.put(now(resolved(2)))
    failures = send.results()["failed"]
    wait_until(lambda: send.results()["failed"] > failures)
    server.start()
    wait_until(lambda: not send.pending)
    wait_until(lambda: services(server)() >= {"orders-1.service", "orders-3.service"})
    receiver.wait_for(4)
    delivered = send.results()["delivered"]
    wait_until(lambda: send.results()["delivered"] > delivered + 3)
    assert sorted(notified(receiver)) == [
        ("firing", "orders-1.service"),
        ("firing", "orders-2.service"),
        ("firing", "orders-3.service"),
        ("resolved", "orders-2.service"),
    ]


def test_the_alerts_of_a_daemon_that_died_die_with_it(
    server: Alertmanager, receiver: Peer, send: Sender
) -> None:
    send.put(now(opened(1)))
    receiver.wait_for(1)
    send.close()
    receiver.wait_for(2)
    assert notified(receiver)[-1] == ("resolved", "orders-1.service")


@pytest.mark.parametrize(
    "name",
    [
        'a"b\\c{d="e"}',
        "two\nlines\r\t\x00\x1b[31m",
        "\udcff\udc80 no text",
        "\u202eright to left\u2066",
        "x" * 10_000,
        "",
        " ",
        "{{ .Labels }} <!channel> @all",
        "\U0001f4a3\u0301" * 50,
    ],
)
def test_whatever_a_service_is_called_it_is_alerted_of(
    server: Alertmanager, receiver: Peer, send: Sender, name: str
) -> None:
    news = now(opened(1))
    service = Service(name, ServiceKind.COMMAND)
    hostile = replace(news.incident, service=service, summary=name, holder=name, place=name)
    send.put(news._replace(incident=hostile))
    receiver.wait_for(1)
    assert send.results()["refused"] == 0
    ((status, told),) = notified(receiver)
    assert status == "firing"
    assert 1 <= len(told) <= 256
    assert told.isprintable()
