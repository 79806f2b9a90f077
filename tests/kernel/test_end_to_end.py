"""The whole program on real processes: leaking ones are named, healthy ones are not.

All that needs more than a minute runs at once, in one test.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from memory_cgroup import MemoryCgroup
from target import Target
from watcher import Watcher

pytestmark = pytest.mark.kernel

MIB = 1024 * 1024
RATE = 2 * MIB
NAMED_WITHIN_S = 100.0
SETTLE_S = 10.0  # a healthy one must not be accused soon after either
LEAKS = ["leak-objects", "leak-native", "leak-mmap"]
HEALTHY = ["steady", "sawtooth", "cache"]
SLEEPER = "print('ready', flush=True); input()"
FAST = ["--interval", "100ms"]
NOBODY = 65534

# Nobody, but for being able to read the files of this checkout, wherever it is.
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
AS_NOBODY += ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]

Start = Callable[..., Target]


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[..., Watcher]]:
    """Return a function that starts the program."""
    started: list[Watcher] = []

    def start(*words: object, **options: object) -> Watcher:
        watcher = Watcher(tmp_path, *words, **options)
        started.append(watcher)
        return watcher

    yield start
    for watcher in started:
        watcher.stop()


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts any program and waits for its first line."""
    started: list[Target] = []

    def start(*command: object) -> Target:
        target = Target(list(map(os.fspath, command)))
        started.append(target)
        assert target.line().startswith("ready")
        return target

    yield start
    for target in started:
        target.stop()


@pytest.fixture
def sleeper(start: Start) -> Target:
    return start(sys.executable, "-c", SLEEPER)


def demo(start: Start, shape: str, before: tuple[str, ...] = ()) -> Target:
    return start(*before, sys.executable, "-m", "mwtrace", "demo", shape, "--rate", str(RATE))


def forbid_more_descriptors(pid: int, spare: int) -> None:
    """Leave a process room for so many more."""
    limit = max(map(int, os.listdir(f"/proc/{pid}/fd"))) + 1 + spare
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))


@pytest.mark.story
def test_leaking_processes_are_named_in_time_and_healthy_ones_never(watch, start, compile_target):
    began_s = time.monotonic()
    leaking = {demo(start, shape).pid: RATE for shape in LEAKS}
    healthy = [demo(start, shape).pid for shape in HEALTHY]
    master = Target([str(compile_target("prefork")), "3", str(RATE // 2)])
    nobodys = demo(start, "leak-mmap", (*AS_NOBODY, "--"))
    try:
        workers = [int(word) for word in master.line().split()[1:]]
        assert len(workers) == 3
        leaking.update(dict.fromkeys(workers, RATE // 2))
        healthy.append(master.pid)
        pids = [*leaking, *healthy]
        watchers = {
            "by BPF": watch("--pid", *pids, "--json"),
            "by /proc": watch("--pid", *pids, "--json", "--no-bpf"),
            "without descriptors": watch("--pid", *pids, "--json"),
            "stopped for a while": watch("--pid", *pids, "--json"),
        }
        unprivileged = watch("--pid", nobodys.pid, "--json", before=(*AS_NOBODY, "--"))
        for watcher in watchers.values():
            watcher.wait_for(lambda watcher: len(watcher.objects()) >= len(pids))
        forbid_more_descriptors(watchers["without descriptors"].pid, spare=0)
        asleep = watchers["stopped for a while"]
        asleep.signal(signal.SIGSTOP)
        time.sleep(15)  # what is tested: a hole in all histories
        asleep.signal(signal.SIGCONT)

        def names_all(watcher: Watcher) -> bool:
            return all("leaking" in watcher.told(pid) for pid in leaking)

        for name, watcher in watchers.items():
            grace_s = 30.0 if name == "stopped for a while" else 0.0
            left_s = NAMED_WITHIN_S + grace_s - (time.monotonic() - began_s)
            watcher.wait_for(names_all, within_s=max(1.0, left_s))
        unprivileged.wait_for(lambda watcher: "leaking" in watcher.told(nobodys.pid))
        time.sleep(SETTLE_S)
    finally:
        master.stop()
    for name, watcher in watchers.items():
        for told in watcher.objects():
            if told["event"] == "verdict" and told["verdict"] == "leaking":
                assert told["pid"] in leaking, (name, told)
                rate = leaking[told["pid"]]
                assert told["slope_bytes_per_second"] == pytest.approx(rate, rel=0.1), (name, told)
                assert told["forecast_s"] > 0
        assert watcher.end() == 0
        conclusion = watcher.err.splitlines()[-1]
        assert conclusion == "lost: nothing", (name, watcher.err)
    assert "watching through BPF" in watchers["by BPF"].err
    assert "watching through /proc (as asked)" in watchers["by /proc"].err
    assert unprivileged.end() == 0
    assert "watching through /proc (cannot load watch: Operation not permitted)" in unprivileged.err
    assert "cannot see OOM kills" in unprivileged.err
    assert "not seen: the programs of other users' processes: run it with sudo" in unprivileged.err


def test_a_watch_ends_with_its_duration_and_says_what_it_saw(watch, sleeper):
    watcher = watch("--pid", sleeper.pid, "--duration", "1s", *FAST)
    assert watcher.wait() == 0
    assert "through BPF" in watcher.out
    assert watcher.out.splitlines()[-1] == "lost: nothing"


def test_it_ends_when_all_that_was_asked_for_has_ended(watch, sleeper):
    watcher = watch("--pid", sleeper.pid, "--json", *FAST)
    watcher.wait_for(lambda watcher: watcher.told(sleeper.pid) == ["learning"])
    sleeper.stop()
    assert watcher.wait() == 0
    assert "all processes that were asked for have ended" in watcher.err


def test_an_oom_kill_is_told_at_once(watch, start_target):
    target = start_target("pages", "eater")
    cgroup = MemoryCgroup(16 * MIB)
    try:
        cgroup.add(target.pid)
        watcher = watch("--pid", target.pid, "--json", "--interval", "1h")
        plain = watch("--pid", target.pid, *FAST, "--verbose")
        plain.wait_for(lambda watcher: "LEARNING " in watcher.out)
        watcher.wait_for(lambda watcher: "watching through BPF" in watcher.err)
        watcher.wait_for(lambda watcher: os.path.exists(f"/proc/{watcher.pid}/fd"))
        target.tell("8191")
        assert target.wait() == -signal.SIGKILL
        watcher.wait_for(lambda watcher: watcher.objects())
        assert plain.wait() == watcher.wait() == 0
    finally:
        target.stop()
        cgroup.remove()
    (killed,) = [told for told in watcher.objects() if told["event"] == "oom_kill"]
    assert (killed["pid"], killed["comm"]) == (target.pid, "eater")
    line = next(line for line in plain.out.splitlines() if line.startswith("OOM KILL "))
    assert f"(pid {target.pid}, eater): ended by the kernel for want of memory" in line


def test_what_a_full_ring_refused_is_told(watch, sleeper, start_target):
    watcher = watch("--pid", sleeper.pid, "--json", *FAST)
    watcher.wait_for(lambda watcher: watcher.told(sleeper.pid) == ["learning"])
    target = start_target("children")
    watcher.signal(signal.SIGSTOP)
    target.ask("exit 20011")
    watcher.signal(signal.SIGCONT)
    assert watcher.end() == 0
    lost = [line for line in watcher.err.splitlines() if line.startswith("lost: ")]
    assert len(lost) == 1
    assert "lifecycle events dropped" in lost[0]


def test_exec_splits_the_history(watch, start):
    program = (
        "import os, sys; held = b'x' * (64 << 20); print('ready', flush=True); input();"
        "os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
    )
    target = start(sys.executable, "-c", program, SLEEPER)
    cgroup = MemoryCgroup(1024 * MIB)  # so that it is named by its program, wherever we run
    try:
        cgroup.add(target.pid)
        watcher = watch("--pid", target.pid, "--json", *FAST)
        watcher.wait_for(lambda watcher: watcher.told(target.pid) == ["learning"])
        target.tell("")
        target.expect("ready")
        watcher.wait_for(lambda watcher: watcher.told(target.pid) == ["learning"] * 2)
        assert watcher.end() == 0
    finally:
        target.stop()
        cgroup.remove()
    before, after = watcher.objects()
    assert before["private_bytes"] > 64 * MIB > after["private_bytes"]
    assert after["previous_verdict"] is None


HOSTILE = [b"a\nLEAKING b", b"\x1b[2J\x1b]0;x\x07", b"\xff\xfe\x80", b"%s%n", "注文".encode()]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_no_name_breaks_a_line_the_table_or_json(name, watch, start, compile_target, tmp_path):
    program = os.fsencode(tmp_path) + b"/" + name
    os.link(compile_target("pages"), program)
    target = start(program, name)
    json_lines = watch("--pid", target.pid, "--json", *FAST)
    lines = watch("--pid", target.pid, "--verbose", *FAST)
    table = watch("--pid", target.pid, "--once")
    assert table.wait() == 0
    json_lines.wait_for(lambda watcher: watcher.told(target.pid) == ["learning"])
    lines.wait_for(lambda watcher: watcher.out)
    target.stop()
    assert json_lines.wait() == lines.wait() == 0
    assert json_lines.out.isascii()
    said = [*lines.out.splitlines(), *table.out.splitlines(), *lines.err.splitlines()]
    assert all(line.isprintable() for line in said)
    assert len([line for line in said if line.startswith("LEAKING")]) == 0
    assert len(table.out.splitlines()) == 4


def test_four_thousand_processes_at_once_are_no_matter(watch, sleeper, start_target):
    watcher = watch("--service", "nosuch", "--interval", "200ms")
    watcher.wait_for(lambda watcher: "no service here matches 'nosuch'" in watcher.err)
    crowd = start_target("sleepers", "4000")
    ticks_s = 3.0
    time.sleep(ticks_s)  # what is tested: that ticks go on over all of them
    crowd.stop()
    assert watcher.end() == 0
    seen = next(line for line in watcher.out.splitlines() if line.startswith("seen: "))
    assert int(seen.split(" processes started")[0].split("; ")[1].replace(",", "")) > 4000
    assert watcher.out.splitlines()[-1] == "lost: nothing"


def test_the_first_process_can_be_watched(watch):
    # By /proc: some sandboxes hide theirs from the iterator.
    watcher = watch("--pid", 1, "--json", "--duration", "1s", "--no-bpf", *FAST)
    assert watcher.wait() == 0
    assert watcher.told(1) == ["learning"]


def test_it_can_watch_itself(watch):
    before = ("sh", "-c", 'exec "$@" --pid $$', "sh")
    watcher = watch("--json", "--duration", "1s", *FAST, before=before)
    assert watcher.wait() == 0
    assert watcher.told(watcher.pid) == ["learning"]
