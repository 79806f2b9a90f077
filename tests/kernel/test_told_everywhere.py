"""A service leaks, everybody is told, it is restarted healthy, and everybody is told of that.

The whole program, and the real Prometheus, node-exporter and Alertmanager. It takes two minutes
because a verdict does, so all of it is one test.
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
from servers import Alertmanager, NodeExporter, Prometheus, free_port, wait_until
from target import Target
from watcher import Watcher

from mwtrace.assets import read

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


@pytest.mark.story
def test_a_leak_is_told_to_all_from_its_beginning_to_its_end(
    tmp_path: Path, undo: ExitStack, receive: Callable[[], Peer]
) -> None:
    program = tmp_path / "orders.py"
    program.write_bytes((TARGETS / "orders.py").read_bytes())
    notified, hooked, slack = receive(), receive(), receive()
    server = Alertmanager(tmp_path, CONFIG.format(url=notified.url))
    undo.callback(server.stop, signal.SIGKILL)
    textfile, address = tmp_path / "textfile", f"127.0.0.1:{free_port()}"
    textfile.mkdir()
    exporter = NodeExporter(tmp_path, textfile)
    undo.callback(exporter.stop)
    rules = tmp_path / "mwtrace.rules.yml"
    rules.write_text(read("mwtrace.rules.yml"))
    jobs = {"mwtrace": [address], "node": [f"127.0.0.1:{exporter.port}"]}
    prometheus = Prometheus(tmp_path, jobs, [rules], [f"127.0.0.1:{server.port}"])
    undo.callback(prometheus.stop)
    told = tmp_path / "told"
    words = ["--all", "--watch-only", "--service", "*orders.py*", "--interval", "200ms"]
    words += ["--resolve-after", "1s", "--incidents-dir", tmp_path / "incidents"]
    words += ["--alertmanager", server.url, "--alertmanager-resend", "1s"]
    words += ["--webhook", hooked.url, "--slack-webhook", slack.url]
    words += ["--exec", f"sh -c 'echo $MWTRACE_EVENT >>{told}'"]
    words += ["--web-listen-address", address, "--textfile-dir", textfile]
    leaking = start_orders(undo, program, "leak")
    watcher = Watcher(tmp_path, *words)
    undo.callback(watcher.stop)

    opened = hooked.wait_for(1, NAMED_WITHIN_S)[0].json
    assert opened["event"] == "incident_opened"
    check_leak(opened["incident"])
    notified.wait_for(1)
    (alert,) = ours(server)
    assert alert["annotations"]["incident"] == opened["incident"]["id"]
    assert alert["annotations"]["summary"].startswith("LEAKING ")
    # By both ways into Prometheus, whose rule says the same.
    assert jobs_of(prometheus.wait_for('mwtrace_verdict{service=~".*orders.py"} == 4')) <= {*jobs}
    wait_until(
        lambda: jobs_of(prometheus.query('mwtrace_verdict{service=~".*orders.py"} == 4')) == {*jobs}
    )
    wait_until(lambda: {alert["state"] for alert in by_rule(prometheus)} == {"firing"})
    wait_until(lambda: {alert["labels"]["job"] for alert in by_rule_in(server)} == {*jobs})
    # It dies, and is there again a while later: the same alert, and no word of an end.
    server.stop(signal.SIGKILL)
    server.start()
    wait_until(lambda: [one["labels"] for one in ours(server)] == [alert["labels"]])

    leaking.stop()
    start_orders(undo, program, "well")
    resolved = hooked.wait_for(2, WELL_WITHIN_S)[1].json
    assert resolved["event"] == "incident_resolved"
    assert resolved["incident"]["id"] == opened["incident"]["id"]
    assert resolved["incident"]["resolution"] == "it is steady"
    wait_until(lambda: ours(server) == [])
    wait_until(lambda: by_rule(prometheus) == [] and by_rule_in(server) == [])
    wait_until(lambda: notified.requests[-1].json["status"] == "resolved")
    wait_until(lambda: len(slack.requests) == 2)
    wait_until(lambda: told.read_text() == "incident_opened\nincident_resolved\n")
    assert watcher.end() == 0
    (kept,) = (tmp_path / "incidents").glob("*.json")
    assert json.loads(kept.read_text())["resolution"] == "it is steady"
    assert len(hooked.requests) == 2, [request.json["event"] for request in hooked.requests]


def ours(server: Alertmanager) -> list[dict[str, Any]]:
    """The alerts that mwtrace sent itself."""
    return [alert for alert in server.alerts() if "incident" in alert["annotations"]]


def by_rule_in(server: Alertmanager) -> list[dict[str, Any]]:
    """Those of the rule for the same leak."""
    return [
        alert
        for alert in server.alerts()
        if alert["labels"]["alertname"] == "MwtraceMemoryLeak" and "job" in alert["labels"]
    ]


def by_rule(prometheus: Prometheus) -> list[dict[str, Any]]:
    return [
        alert
        for alert in prometheus.alerts()
        if alert["labels"]["alertname"] == "MwtraceMemoryLeak"
    ]


def jobs_of(series: list[Any]) -> set[str]:
    return {labels["job"] for labels, _ in series}


def check_leak(incident: dict[str, Any]) -> None:
    assert incident["type"] == "leak"
    assert incident["service"].endswith("orders.py")
    assert incident["slope_bytes_per_second"] == pytest.approx(3 << 20, rel=0.1)
    assert incident["limit_time"] is not None
