"""A local user who wants to harm the watchdog, with real processes: docs/security.md names each."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from pids_cgroup import PidsCgroup
from target import Target

from mwtrace.errors import MwtraceError, ProcessGone
from mwtrace.host import elf
from mwtrace.host.procfs import Host

pytestmark = pytest.mark.kernel

HOSTILE = Path(__file__).parents[1] / "targets" / "hostile.py"
RSS_BYTES_MAX = 256 << 20  # of a command that looks into one process; the watch has less
WATCH_RSS_BYTES_MAX = 96 << 20
DEADLINE_S = 60.0


@pytest.fixture
def start_hostile(tmp_path: Path) -> Iterator[Callable[[str], Target]]:
    started: list[Target] = []

    def start(way: str) -> Target:
        target = Target([sys.executable, str(HOSTILE), way, str(tmp_path)])
        started.append(target)
        target.expect("ready")
        return target

    yield start
    for target in started:
        target.stop()


def run(*words: object) -> tuple[subprocess.CompletedProcess[bytes], int]:
    """Run mwtrace within the deadline; return what it said, and its peak of resident memory."""
    # Above its floor and far below what a careless reader would ask for.
    limit = 4 << 30

    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    code = (
        # Not ru_maxrss, which begins with what we had when this child was forked.
        "import re, sys\nfrom mwtrace.cli import main\ntry:\n main()\nfinally:\n"
        " status = open('/proc/self/status').read()\n"
        " print('peak', re.search(r'VmHWM:\\s+(\\d+)', status)[1], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=DEADLINE_S,
        preexec_fn=bound,
    )
    peak = done.stderr.rpartition(b"peak ")[2]
    return done, int(peak) * 1024


@pytest.mark.parametrize(
    "words",
    [["--once", "--pid"], ["explain"], ["doctor", "--probes"], ["trace", "--seconds", "2"]],
    ids=" ".join,
)
def test_names_that_look_like_escapes_or_metrics_steer_nothing(start_hostile, words):
    target = start_hostile("names")
    done, _ = run(*words, target.pid)
    shown = (done.stdout + done.stderr).decode()  # and it is UTF-8
    for line in shown.split("\n"):
        assert line.isprintable(), line
        assert not line.startswith("mwtrace_service_leaking"), line
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["explain"], ["doctor", "--probes"]], ids=" ".join)
def test_a_library_of_a_tebibyte_costs_neither_time_nor_memory(start_hostile, words):
    target = start_hostile("sparse")
    done, rss_bytes = run(*words, target.pid)
    assert b"Traceback" not in done.stderr
    assert rss_bytes < RSS_BYTES_MAX


def test_looking_at_memory_that_was_never_touched_brings_none_of_it_in(start_hostile):
    target = start_hostile("untouched")
    start, end = (int(word, 16) for word in target.line().split("-"))
    done, rss_bytes = run("explain", target.pid)
    assert done.returncode == 0, done.stderr
    assert rss_bytes < RSS_BYTES_MAX
    present = 0
    with open(f"/proc/{target.pid}/pagemap", "rb") as pagemap:
        pagemap.seek(start // 4096 * 8)
        entries = pagemap.read((end - start) // 4096 * 8)
    for at in range(7, len(entries), 8):
        present += entries[at] >> 7  # the highest bit of an entry: there is a page
    assert len(entries) == (64 << 20) // 4096 * 8
    assert present == 0


def test_a_library_that_changes_while_it_is_read_is_read_or_refused(start_hostile):
    target = start_hostile("changing")
    path = target.line()
    # In a process of its own: one that read the file through a mapping would die of SIGBUS.
    reader = (
        "import os, sys\nfrom mwtrace.errors import MwtraceError\nfrom mwtrace.host import elf\n"
        "find = lambda fd: elf.find_symbols(fd, ('malloc',))\n"
        "read = refused = 0\n"
        "for _ in range(150):\n"
        "    fd = elf.open_regular(sys.argv[1])\n"
        "    for look in (elf.read_facts, elf.SymbolTable, find):\n"
        "        try:\n"
        "            look(fd)\n"
        "            read += 1\n"
        "        except MwtraceError:\n"
        "            refused += 1\n"
        "    os.close(fd)\n"
        "print(read + refused)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", reader, path], capture_output=True, timeout=DEADLINE_S
    )
    assert done.stdout == b"450\n", done.stderr
    assert done.returncode == 0
    done, rss_bytes = run("doctor", "--probes", target.pid)
    assert b"Traceback" not in done.stderr
    assert rss_bytes < RSS_BYTES_MAX


def test_a_fifo_in_place_of_a_library_is_not_waited_for(tmp_path):
    fifo = tmp_path / "libc.so.6"
    os.mkfifo(fifo)
    link = tmp_path / "libm.so.6"
    link.symlink_to(fifo)
    device = tmp_path / "libz.so.1"
    device.symlink_to("/dev/zero")
    for path in (fifo, link, device):
        with pytest.raises(MwtraceError, match="not a regular file"):
            elf.open_regular(str(path))


def test_a_pid_that_is_another_process_now_is_not_taken_for_the_old_one(start_target):
    target = start_target("same_pid")
    pid = int(target.line())
    host = Host()
    first = host.process_id(pid)
    host.check(first)
    target.tell("go on")
    if target.line() != "done":
        pytest.skip("somebody else got the pid first")
    second = host.process_id(pid)
    assert second.pid == first.pid
    with pytest.raises(ProcessGone):
        host.check(first)
    host.check(second)


def test_a_fork_bomb_in_its_cgroup_costs_the_watch_nothing_it_cannot_bear(start_target, tmp_path):
    bomb = start_target("fork_bomb")
    cgroup = PidsCgroup(200)
    try:
        cgroup.add(bomb.pid)
        bomb.ask("fork")
        deadline_s = time.monotonic() + DEADLINE_S
        while len(cgroup.pids()) < 150:
            assert time.monotonic() < deadline_s
        done, rss_bytes = run(
            *("--all", "--watch-only", "--json", "--interval", "0.5", "--duration", "5s")
        )
    finally:
        cgroup.remove()
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert rss_bytes < WATCH_RSS_BYTES_MAX
