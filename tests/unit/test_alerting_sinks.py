"""What each sink makes of an incident: bodies, entries, commands; with real receivers."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from incidents_made import BEGIN_UNIX_S, incident, opened, post_mortem, resolved
from peers import Peer, answering
from running import is_running

from mwtrace.errors import ConfigError
from mwtrace.model import IncidentNews, IncidentType, Service, ServiceKind
from mwtrace.tell.alertmanager import alert
from mwtrace.tell.exec import ExecHook
from mwtrace.tell.incident import incident_object, news_json, slack_text
from mwtrace.tell.journal import Journal, entry
from mwtrace.tell.posting import Peer as Client
from mwtrace.tell.posting import parse_address
from mwtrace.tell.sinks import Undelivered
from mwtrace.tell.webhook import SlackWebhook, Webhook

HOST = "host-1"
HOSTILE = "<!channel> @all &amp; \udcff\n*bold* <http://evil|x>"


def hostile(news: IncidentNews) -> IncidentNews:
    service = Service(HOSTILE, ServiceKind.COMMAND)
    return news._replace(
        incident=replace(news.incident, service=service, summary=HOSTILE, holder=HOSTILE)
    )


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer(answering(200))
    yield peer
    peer.stop()


# -- alerts --------------------------------------------------------------------------------------


def sent(news: IncidentNews, ago_s: float = 60.0) -> dict[str, object]:
    now_s = BEGIN_UNIX_S + ago_s
    return alert(news.incident, HOST, "https://runbooks", now_s, now_s + 240.0)


def test_an_open_alert_ends_when_nobody_renews_it() -> None:
    told = sent(opened(), ago_s=60.5)
    assert told["startsAt"] == "2026-05-28T20:26:40.000Z"
    assert told["endsAt"] == "2026-05-28T20:31:40.500Z"


def test_a_resolved_alert_ended_when_it_did() -> None:
    assert sent(resolved(), ago_s=900.0)["endsAt"] == "2026-05-28T20:31:40.000Z"


def test_no_alert_ends_before_it_begins_whatever_the_clock_was_set_to() -> None:
    told = sent(resolved(), ago_s=-7200.0)
    assert told["startsAt"] == told["endsAt"]


def test_one_that_came_back_begins_when_it_did() -> None:
    told = sent(opened(reopened_unix_s=BEGIN_UNIX_S + 30))
    assert told["startsAt"] == "2026-05-28T20:27:10.000Z"


def test_nothing_that_changes_is_a_label() -> None:
    changed = replace(
        opened().incident, private_bytes=1, slope_bytes_per_second=2.0, kind="mmap", recurrences=3,
        summary="(pid 9)", place="elsewhere", snapshot_path="/2", reopened_unix_s=BEGIN_UNIX_S,
    )  # fmt: skip
    assert sent(opened())["labels"] == sent(opened()._replace(incident=changed))["labels"]


# -- webhooks ------------------------------------------------------------------------------------


def test_a_webhook_gets_the_incident_as_json(peer: Peer) -> None:
    Webhook(Client(parse_address(peer.url, "--webhook")), HOST).deliver([opened()])
    told = peer.requests[0].json
    assert (told["schema_version"], told["event"], told["host"]) == (1, "incident_opened", HOST)
    assert told["incident"] == incident_object(opened().incident)
    assert told["incident"]["site"] == "app.py:remember (line 31)"
    assert told["incident"]["limit_time"] == "2026-05-28T20:36:40Z"


def test_slack_gets_text_that_calls_nobody(peer: Peer) -> None:
    sink = SlackWebhook(Client(parse_address(peer.url, "--slack-webhook")), HOST)
    sink.deliver([hostile(opened()), hostile(resolved())])
    for request in peer.requests:
        text = request.json["text"]
        assert not any(mark in text for mark in ("<", ">", "@a", "& "))
        assert "&lt;!channel&gt; @\u200ball &amp;amp; " in text


def test_what_slack_is_told_reads_well() -> None:
    assert slack_text(opened(), HOST).splitlines() == [
        "[opened] host-1: LEAKING orders-1.service (pid 4711): +1.02 MiB/s",
        "slope: +1.02 MiB/s [0.98, 1.05]",
        "since: 2026-05-28T20:25:10Z",
        "kind: python-objects",
        "forecast: 1.0 GiB (cgroup), reached at 2026-05-28T20:36:40Z",
        "site: 94% of the growth, by audited survivors: app.py:remember (line 31)",
        "holder: app.SESSIONS[\u2026]",
        "advice: Bound or empty app.SESSIONS",
        "snapshot: /var/lib/mwtrace/snapshots/1.mws",
    ]
    assert slack_text(resolved(), HOST) == (
        "[resolved] host-1: orders-1.service: it is steady; it lasted 5 min"
    )


def test_the_json_of_an_oom_kill_holds_the_post_mortem_without_its_history() -> None:
    news = opened(type=IncidentType.OOM_KILL, post_mortems=(post_mortem(),))
    (told,) = json.loads(news_json(news, HOST))["incident"]["post_mortems"]
    assert told["cgroup"] == {"path": "/orders", "memory.max": "1073741824"}
    assert "history" not in told
    (kept,) = incident_object(news.incident, with_history=True)["post_mortems"]
    assert len(kept["history"]) == 2


@pytest.mark.parametrize("news", [hostile(opened()), hostile(resolved())])
def test_whatever_strangers_wrote_is_one_line_of_ascii(news: IncidentNews) -> None:
    line = news_json(news, HOSTILE)
    assert line.isascii()
    assert line.isprintable()
    json.loads(line)["incident"]["service"].encode()


# -- the journal ---------------------------------------------------------------------------------


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "journal"))
        listener.settimeout(10.0)
        yield listener


def read_entry(raw: bytes) -> dict[str, str]:
    """As journald reads it: systemd.io/JOURNAL_NATIVE_PROTOCOL."""
    fields = {}
    while raw:
        line, raw = raw.split(b"\n", 1)
        name, is_text, value = line.partition(b"=")
        if not is_text:
            (size,) = struct.unpack("<Q", raw[:8])
            value, raw = raw[8 : 8 + size], raw[8 + size + 1 :]
        fields[name.decode()] = value.decode()
    return fields


def test_the_journal_gets_fields_that_can_be_asked_for(
    journald: socket.socket, tmp_path: Path
) -> None:
    Journal(HOST, str(tmp_path / "journal")).deliver([opened(), resolved()])
    told, over = (read_entry(journald.recv(1 << 16)) for _ in range(2))
    assert told["MESSAGE"].startswith("[opened] host-1: LEAKING orders-1.service")
    assert (told["PRIORITY"], over["PRIORITY"]) == ("4", "5")
    assert told["MWTRACE_SERVICE"] == "orders-1.service"
    assert told["MWTRACE_HOLDER"] == "app.SESSIONS[\u2026]"
    assert over["MWTRACE_EVENT"] == "incident_resolved"
    assert len(told["MESSAGE_ID"]) == 32


def test_a_line_break_cannot_forge_a_field_of_the_journal(
    journald: socket.socket, tmp_path: Path
) -> None:
    forged = "x\nPRIORITY=0\nFORGED=1"
    assert read_entry(entry({"A": forged, "B": "b"})) == {"A": forged, "B": "b"}
    news = opened(service=Service(forged, ServiceKind.COMMAND), summary=forged)
    Journal(HOST, str(tmp_path / "journal")).deliver([news])
    told = read_entry(journald.recv(1 << 16))
    assert (told["PRIORITY"], told["MWTRACE_SERVICE"]) == ("4", forged)
    assert "FORGED" not in told


def test_a_journal_that_does_not_answer_is_tried_again(
    journald: socket.socket, tmp_path: Path
) -> None:
    journald.close()
    with pytest.raises(Undelivered) as raised:
        Journal(HOST, str(tmp_path / "journal")).deliver([opened()])
    assert raised.value.again


def test_without_a_journal_it_is_one_line_of_log(tmp_path: Path, caplog) -> None:
    Journal(HOST, str(tmp_path / "none")).deliver([opened()])
    (record,) = caplog.records
    assert json.loads(record.getMessage())["event"] == "incident_opened"


# -- commands ------------------------------------------------------------------------------------


def hook(tmp_path: Path, script: str, timeout_s: float = 20.0) -> ExecHook:
    program = tmp_path / "hook"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return ExecHook(f"{program} 'two words' $HOME", HOST, timeout_s)


def refusal(sink: ExecHook, news: IncidentNews) -> str:
    with pytest.raises(Undelivered) as raised:
        sink.deliver([news])
    assert raised.value.again
    return str(raised.value)


def test_a_command_gets_the_json_and_the_event_and_no_shell(tmp_path: Path) -> None:
    out = tmp_path / "out"
    sink = hook(tmp_path, f'cat >{out}; echo "$#:$1:$2:$MWTRACE_EVENT:$MWTRACE_SERVICE" >>{out}')
    sink.deliver([hostile(opened())])
    body, words = out.read_text().split("\n")[:2]
    assert json.loads(body)["event"] == "incident_opened"
    assert words.startswith("2:two words:$HOME:incident_opened:<!channel> @all")


def test_a_command_that_does_not_read_is_as_good(tmp_path: Path) -> None:
    hook(tmp_path, "exec <&-; exit 0").deliver([opened()])


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo no room; exit 3", "exit code 3: no room"),
        ("kill -9 $$", "ended by signal 9"),
        ("yes | head -c 1000000; exit 1", "exit code 1: " + "y " * 99 + "y"),
        ("printf '\\033[2J'; exit 1", "exit code 1: \\x1b[2J"),
    ],
)
def test_a_command_that_fails_is_tried_again(tmp_path: Path, script: str, words: str) -> None:
    assert refusal(hook(tmp_path, script), opened()).startswith(words)


@pytest.mark.parametrize(
    "script",
    [
        "sleep 1000 & echo $! $$ >{pids}; wait",
        "trap '' TERM; sleep 1000 & echo $! $$ >{pids}; wait; wait",
        "sleep 1000 & echo $! $$ >{pids}; exec >&- 2>&-; wait",
    ],
)
def test_a_command_that_is_late_is_ended_with_all_it_started(tmp_path: Path, script: str) -> None:
    pids = tmp_path / "pids"
    began_s = time.monotonic()
    assert refusal(hook(tmp_path, script.format(pids=pids), 0.5), opened()) == (
        "not done after 0.5 s"
    )
    assert time.monotonic() - began_s < 10.0
    for pid in map(int, pids.read_text().split()):
        deadline_s = time.monotonic() + 10.0
        while is_running(pid):
            assert time.monotonic() < deadline_s, f"{pid} still runs"
            time.sleep(0.01)


def test_a_program_that_was_removed_meanwhile_is_tried_again(tmp_path: Path) -> None:
    sink = hook(tmp_path, "exit 0")
    os.unlink(tmp_path / "hook")
    assert refusal(sink, opened()) == "cannot be started: No such file or directory"


@pytest.mark.parametrize("command", ["", "'", "/nonexistent/hook", "no-such-hook-anywhere"])
def test_a_command_that_cannot_be_run_is_refused_at_the_start(command: str) -> None:
    with pytest.raises(ConfigError):
        ExecHook(command, HOST)


def test_the_documented_object_is_the_one_that_is_sent() -> None:
    page = (Path(__file__).parents[2] / "docs" / "incidents.md").read_text()
    example = json.loads(page.split("```json\n")[1].split("```")[0])
    sent_now = json.loads(news_json(opened(), HOST))
    assert list(example) == list(sent_now)
    assert list(example["incident"]) == list(sent_now["incident"])


def test_what_is_known_of_an_incident_is_in_its_json() -> None:
    """Every field has a key, so that a new one cannot be forgotten."""
    assert (
        None
        not in {
            key: value
            for key, value in incident_object(incident()).items()
            if key not in ("reopened", "resolved", "resolution")
        }.values()
    )
