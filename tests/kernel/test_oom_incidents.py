"""OOM kills and leaks of real processes, as the whole program tells them to real receivers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from memory_cgroup import MemoryCgroup
from peers import Peer, answering, silent
from running import is_running
from target import Target
from watcher import Watcher

pytestmark = pytest.mark.kernel

MIB = 1024 * 1024
LIMIT_BYTES = 32 * MIB
FAST = ["--interval", "100ms", "--watch-only", "--json"]


@pytest.fixture
def eater(start_target) -> Iterator[Target]:
    """A program that takes pages until its cgroup has no more."""
    target = start_target("pages", "eater")
    cgroup = MemoryCgroup(LIMIT_BYTES)
    try:
        cgroup.add(target.pid)
        yield target
    finally:
        target.stop()
        cgroup.remove()


@pytest.fixture
def receiver() -> Iterator[Peer]:
    peer = Peer(answering(200))
    yield peer
    peer.stop()


def shown(folder: Path, *words: str) -> str:
    command = [sys.executable, "-m", "mwtrace", "incidents", "--incidents-dir", folder, *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_an_oom_kill_leaves_a_post_mortem_and_is_told(
    eater: Target, receiver: Peer, tmp_path: Path
) -> None:
    folder = tmp_path / "incidents"
    hook = tmp_path / "told"
    words = ["--pid", eater.pid, *FAST, "--incidents-dir", folder, "--webhook", receiver.url]
    words += ["--exec", f"cp /dev/stdin {hook}"]
    watcher = Watcher(tmp_path, *words)
    try:
        eater.ask("2048")
        # Seen with its 8 MiB, so that there is a history to keep.
        watcher.wait_for(lambda _: watcher.told(eater.pid))
        eater.tell("30000")
        assert eater.wait() == -signal.SIGKILL
        told = receiver.wait_for(1)[0].json
        assert watcher.wait() == 0
    finally:
        watcher.stop()
    assert told["event"] == "incident_opened"
    check_post_mortem(told["incident"], eater.pid)
    assert json.loads(hook.read_text()) == told
    assert "oom_kill" in shown(folder)
    (kept,) = map(json.loads, shown(folder, told["incident"]["id"], "--json").splitlines())
    check_post_mortem(kept, eater.pid)
    history = [row["private_bytes"] for row in kept["post_mortems"][0]["history"]]
    assert max(history) >= 8 * MIB


def check_post_mortem(incident: dict[str, Any], pid: int) -> None:
    assert (incident["type"], incident["state"]) == ("oom_kill", "open")
    assert "pages" in incident["service"]
    (post_mortem,) = incident["post_mortems"]
    assert (post_mortem["pid"], post_mortem["comm"]) == (pid, "eater")
    # As much as the limit allows, or what the last tick saw.
    assert 0 < post_mortem["private_bytes"] <= LIMIT_BYTES
    cgroup = post_mortem["cgroup"]
    assert "mwtrace-test-" in cgroup["path"]
    limit = cgroup.get("memory.max") or cgroup["memory.limit_in_bytes"]
    assert int(limit) == LIMIT_BYTES
    kills = cgroup.get("memory.events:oom_kill") or cgroup.get("memory.oom_control:oom_kill")
    assert kills is None or int(kills) >= 0  # the kernel counts it after it has told us


def test_receivers_that_hang_delay_neither_a_tick_nor_the_end(
    eater: Target, receiver: Peer, tmp_path: Path
) -> None:
    """One that is silent, one that is not there, one that never ends: the others are told."""
    receiver.behave = silent
    other = Peer(answering(200))
    words = ["--pid", eater.pid, *FAST, "--webhook", receiver.url, "--slack-webhook", other.url]
    pids = tmp_path / "pids"
    words += ["--alertmanager", "http://127.0.0.1:9"]
    words += ["--exec", f"sh -c 'echo $$ >{pids}; sleep 1000; :'"]
    watcher = Watcher(tmp_path, *words)
    try:
        watcher.wait_for(lambda _: watcher.told(eater.pid))
        eater.tell("30000")
        assert eater.wait() == -signal.SIGKILL
        assert "OOM KILL" in other.wait_for(1)[0].json["text"]
        assert watcher.wait() == 0
    finally:
        watcher.stop()
        other.stop()
    assert "alertmanager http://127.0.0.1:9 was not told" in watcher.err
    assert not is_running(int(pids.read_text()))
