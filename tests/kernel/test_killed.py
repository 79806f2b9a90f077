"""SIGKILL at random moments: nothing of ours stays in the kernel, and targets go on unharmed."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from target import Target
from watcher import Watcher

pytestmark = pytest.mark.kernel

DEADLINE_S = 30.0
_ID = re.compile(r"^(prog_id|map_id|link_id):\s*(\d+)$", re.M)
_BPF = ctypes.CDLL("libbpf.so.1", use_errno=True)
_BY_ID = {
    "prog_id": _BPF.bpf_prog_get_fd_by_id,
    "map_id": _BPF.bpf_map_get_fd_by_id,
    "link_id": _BPF.bpf_link_get_fd_by_id,
}


def held(pid: int) -> set[tuple[str, int]]:
    """The programs, maps and links that a process holds."""
    found = set()
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            found |= {(kind, int(number)) for kind, number in _ID.findall(info.read_text())}
        except OSError:
            continue  # closed meanwhile
    return found


def exists(kind: str, number: int) -> bool:
    descriptor = _BY_ID[kind](number)
    if descriptor >= 0:
        os.close(descriptor)
        return True
    # libbpf 1.0 returns the error.
    assert -descriptor == errno.ENOENT, os.strerror(-descriptor)
    return False


def kill_and_look(watcher: Watcher, moment_s: float) -> None:
    """Kill it some time after it first holds something; fail if any of that stays."""
    watcher.wait_for(lambda w: any(kind == "link_id" for kind, _ in held(w.pid)))
    deadline = time.monotonic() + moment_s
    seen = held(watcher.pid)
    while time.monotonic() < deadline:
        seen |= held(watcher.pid)
        time.sleep(0.01)
    seen |= held(watcher.pid)
    watcher.signal(signal.SIGKILL)
    assert watcher.wait() == -signal.SIGKILL
    deadline = time.monotonic() + DEADLINE_S
    while left := [what for what in seen if exists(*what)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


@pytest.mark.parametrize("seed", range(2))
def test_a_watch_that_is_killed_leaves_nothing_in_the_kernel(
    tmp_path: Path, start_target: Callable[..., Target], seed: int
) -> None:
    target = start_target("children")
    words = ["--pid", target.pid, "--interval", "100ms", "--state-dir", tmp_path / "state"]
    watcher = Watcher(tmp_path, *words)
    try:
        kill_and_look(watcher, random.Random(seed).uniform(0, 1))
        # What it saved is whole, and the next one takes it up.
        again = Watcher(tmp_path, *words, "--duration", "1s")
        assert again.wait() == 0
        assert "damaged" not in again.err
        assert "refused" not in again.out
    finally:
        watcher.stop()


@pytest.mark.parametrize("seed", range(2))
def test_a_trace_that_is_killed_leaves_no_probe_and_its_target_goes_on(
    tmp_path: Path, seed: int
) -> None:
    target = Target([sys.executable, "-m", "mwtrace", "demo", "leak-native", "--rate", "10M"])
    watcher = None
    try:
        target.line()  # ready
        watcher = Watcher(tmp_path, "trace", target.pid, "--seconds", "60")
        kill_and_look(watcher, random.Random(seed).uniform(0, 3))
        before = _faults(target.pid)
        deadline = time.monotonic() + DEADLINE_S
        while _faults(target.pid) <= before:  # it still takes memory
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        if watcher is not None:
            watcher.stop()
        target.stop()


def _faults(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[7])
