"""A service leaks, everybody is told, it is restarted healthy, and everybody is told of that.

The whole program and the real Alertmanager. It takes two minutes because a verdict does, so all of
it is one test.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable

import pytest
from peers import Peer, answering
from servers import Alertmanager, wait_until
from target import Target
from watcher import Watcher

pytestmark = pytest.mark.kernel

NAMED_WITHIN_S = 120.0
WELL_WITHIN_S = 90.0  # it must be watched for 40 s before it is called steady
TARGETS = Path(__file__).parents[1] / "targets"
CONFIG = """
route:
  receiver: ours
  group_by: [alertname, service]
  group_wait: 0s
  group_interval: 1s
receivers:
- name: ours
  webhook_configs:
  - url: {url}/notified
    send_resolved: true
"""


@pytest.fixture
def undo() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def receive(undo: ExitStack) -> Callable[[], Peer]:
    def start() -> Peer:
        peer = Peer(answering(200))
        undo.callback(peer.stop)
        return peer

    return start


def start_orders(undo: ExitStack, program: Path, state: str) -> Target:
    target = Target(["env", f"ORDERS={state}", sys.executable, os.fspath(program)])
    undo.callback(target.stop)
    target.expect("ready")
    return target


def test_a_leak_is_told_to_all_from_its_beginning_to_its_end(
    tmp_path: Path, undo: ExitStack, receive: Callable[[], Peer]
) -> None:
    program = tmp_path / "orders.py"
    program.write_bytes((TARGETS / "orders.py").read_bytes())
    notified, hooked, slack = receive(), receive(), receive()
    server = Alertmanager(tmp_path, CONFIG.format(url=notified.url))
    undo.callback(server.stop, signal.SIGKILL)
    told = tmp_path / "told"
    words = ["--all", "--watch-only", "--service", "*orders.py*", "--interval", "200ms"]
    words += ["--resolve-after", "1s", "--incidents-dir", tmp_path / "incidents"]
    words += ["--alertmanager", server.url, "--alertmanager-resend", "1s"]
    words += ["--webhook", hooked.url, "--slack-webhook", slack.url]
    words += ["--exec", f"sh -c 'echo $MWTRACE_EVENT >>{told}'"]
    leaking = start_orders(undo, program, "leak")
    watcher = Watcher(tmp_path, *words)
    undo.callback(watcher.stop)

    opened = hooked.wait_for(1, NAMED_WITHIN_S)[0].json
    assert opened["event"] == "incident_opened"
    check_leak(opened["incident"])
    notified.wait_for(1)
    (alert,) = server.alerts()
    assert alert["annotations"]["incident"] == opened["incident"]["id"]
    assert alert["annotations"]["summary"].startswith("LEAKING ")
    # It dies, and is there again a while later: the same alert, and no word of an end.
    server.stop(signal.SIGKILL)
    server.start()
    wait_until(lambda: [one["labels"] for one in server.alerts()] == [alert["labels"]])

    leaking.stop()
    start_orders(undo, program, "well")
    resolved = hooked.wait_for(2, WELL_WITHIN_S)[1].json
    assert resolved["event"] == "incident_resolved"
    assert resolved["incident"]["id"] == opened["incident"]["id"]
    assert resolved["incident"]["resolution"] == "it is steady"
    wait_until(lambda: server.alerts() == [])
    wait_until(lambda: notified.requests[-1].json["status"] == "resolved")
    wait_until(lambda: len(slack.requests) == 2)
    wait_until(lambda: told.read_text() == "incident_opened\nincident_resolved\n")
    assert watcher.end() == 0
    (kept,) = (tmp_path / "incidents").glob("*.json")
    assert json.loads(kept.read_text())["resolution"] == "it is steady"
    assert len(hooked.requests) == 2, [request.json["event"] for request in hooked.requests]


def check_leak(incident: dict[str, Any]) -> None:
    assert incident["type"] == "leak"
    assert incident["service"].endswith("orders.py")
    assert incident["slope_bytes_per_second"] == pytest.approx(3 << 20, rel=0.1)
    assert incident["limit_time"] is not None
