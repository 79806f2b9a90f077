"""A hook writes the whole object graph when it is asked, and its program never notices."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hooked import Taking, answered, start_hooked
from interpreters import SYSTEM, interpreters, label, minor_of, on_every_python
from snapshot_reader import ReadSnapshot
from target import DEADLINE_S, Target

from mwtrace.snapshot import hook, trigger
from mwtrace.snapshot.store import Store, StoreLimits
from mwtrace.snapshot.taking import Taker, TakingLimits

pytestmark = pytest.mark.kernel

PYTHON = str(SYSTEM)
OLDEST_AND_NEWEST = [interpreters()[0], interpreters()[-2], PYTHON]
SESSIONS = 1009
on_some_pythons = pytest.mark.parametrize("python", OLDEST_AND_NEWEST, ids=label)

Start = Callable[..., Target]


@pytest.fixture
def taking(tmp_path: Path) -> Iterator[Taking]:
    under_test = Taking(tmp_path / "snapshots")
    yield under_test
    under_test.close()


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts a target with the hook, and waits until it is ready."""
    started: list[Target] = []

    def start(python: str, shape: str, **variables: str) -> Target:
        target = start_hooked(python, shape, str(SESSIONS), **variables)
        started.append(target)
        target.expect("ready")
        return target

    yield start
    for target in started:
        target.stop()


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def leaves_no_trace(target: Target, before: int) -> None:
    """No child, no thread, no descriptor more: the waiting thread ends soon after its child."""
    wait_until(lambda: answered(target, "children") == "none")
    assert int(answered(target, "descriptors")) == before


@on_every_python
@pytest.mark.parametrize("shape", ["plain", "workers"])
def test_every_object_is_in_it_with_size_references_and_names(start, taking, python, shape):
    target = start(python, shape)
    before = int(answered(target, "descriptors"))
    read = ReadSnapshot(taking.must_take(target.pid).path)
    assert read.head["writer"] == "hook-child"
    assert read.head["pid"] == target.pid
    assert 0 < read.head["pause_s"] < 5
    assert (read.end["objects"], read.duplicates) == (len(read.type_of), 0)

    sessions = read.of_type("__main__.Session")
    # Its threads make some, and throw them away.
    assert len(sessions) == SESSIONS if shape == "plain" else len(sessions) >= SESSIONS
    registry = read.named(read.module("__main__"), "REGISTRY")
    held = [one for one in read.referents[registry] if one in set(sessions)]
    assert len(held) == SESSIONS
    keys = [
        one for one in read.referents[registry] if read.types[read.type_of[one]] == "builtins.str"
    ]
    assert len(keys) == SESSIONS
    assert read.size_bytes[registry] == int(answered(target, "eval sys.getsizeof(REGISTRY)"))
    # One by the module, and none that is ours.
    assert read.references[registry] == 1
    one = held[7]
    assert read.references[one] == 1
    items = read.named(one, "items")
    assert read.types[read.type_of[items]] == "builtins.list"
    assert {read.types[read.type_of[inner]] for inner in read.referents[items]} == {
        "builtins.int",
        "builtins.float",
    }
    # A text of the program's is in no name.
    assert not {f"user{number}" for number in range(SESSIONS)} & set(read.strings)
    assert not any(text.startswith("session ") for text in read.strings)
    frames = [text for _, text, kind in read.roots if kind == 1]
    assert any("MainThread: main (" in text for text in frames), frames
    if shape == "workers":
        assert sum(": busy (" in text for text in frames) == 3, frames
    leaves_no_trace(target, before)


@on_some_pythons
def test_an_event_loop_goes_on_and_keeps_its_signals(start, taking, python):
    target = start(python, "asyncio")
    before = int(answered(target, "descriptors"))
    taking.must_take(target.pid)
    os.kill(target.pid, signal.SIGUSR1)
    wait_until(lambda: answered(target, "seen") == str(int(signal.SIGUSR1)))
    taking.must_take(target.pid)
    leaves_no_trace(target, before)


@on_some_pythons
def test_a_prefork_master_never_waits_for_a_stranger_and_each_worker_answers(start, taking, python):
    target = start_hooked(python, "prefork", "10")
    try:
        lines = [target.line() for _ in range(5)]  # two of them by an at-fork handler
        workers = [int(line.split()[1]) for line in lines if line.startswith("worker")]
        assert len(workers) == 2
        for pid in [*workers, target.pid, *workers, target.pid]:
            assert ReadSnapshot(taking.must_take(pid).path).head["pid"] == pid
        os.kill(workers[0], signal.SIGKILL)
        target.expect(f"ended {workers[0]}")  # and not with a KeyError for one of our children
        assert taking.take(workers[1]).is_taken
        os.kill(workers[1], signal.SIGKILL)
        target.expect(f"ended {workers[1]}")
        assert target.wait() == 0
    finally:
        target.stop()


@on_some_pythons
def test_a_handler_that_was_there_stays_and_another_signal_is_taken(start, taking, python):
    target = start(python, "handled")
    mailbox = trigger.find_hook(taking.host, taking.host.process_id(target.pid))
    assert mailbox.signal == 44
    taking.must_take(target.pid)
    assert answered(target, "seen") == "none"
    os.kill(target.pid, 43)
    wait_until(lambda: answered(target, "seen") == "43")


def test_a_signal_that_was_asked_for_keeps_its_earlier_handler_too(start, taking):
    target = start(PYTHON, "handled", MWTRACE_SIGNAL="10")
    taking.must_take(target.pid)
    assert answered(target, "seen") == "10"


@on_some_pythons
def test_a_lock_that_an_at_fork_handler_takes_is_waited_for_elsewhere(start, taking, python):
    target = start(python, "submitting")
    for _ in range(5):
        taking.must_take(target.pid)
        answered(target, "children")  # the main thread still runs


def test_warnings_as_errors_do_not_reach_the_program(taking):
    newest = next(one for one in reversed(interpreters()) if minor_of(one) >= 12)
    target = start_hooked(newest, "threads", "10", options=("-W", "error"))
    try:
        target.expect("ready")
        for _ in range(3):
            taking.must_take(target.pid)
        assert answered(target, "children")
    finally:
        target.stop()


@on_some_pythons
def test_what_a_program_says_about_its_objects_is_not_asked(start, taking, python):
    target = start(python, "plain")
    assert answered(target, "lie") == "done"
    read = ReadSnapshot(taking.must_take(target.pid).path)
    assert len(read.of_type(".Liar")) == 30
    assert len(read.of_type(".Odd")) == 1


def test_a_process_without_the_hook_is_never_signalled(taking):
    # Signal 43 would end it.
    target = Target([PYTHON, "-c", "print('ready', flush=True); input()"])
    try:
        target.expect("ready")
        snapshot = taking.take(target.pid)
        assert (snapshot.outcome, snapshot.path) == ("no_hook", "")
        assert "docs/snapshot.md" in snapshot.remedy
        target.tell("go on")
        assert target.wait() == 0
    finally:
        target.stop()


def test_a_hook_that_lost_its_signal_is_never_signalled(start, taking):
    target = start(PYTHON, "plain")
    assert answered(target, "eval signal.signal(43, signal.SIG_DFL) and 0")
    assert taking.take(target.pid).outcome == "no_hook"
    assert answered(target, "children") == "none"


def test_a_program_that_blocks_the_signal_is_never_signalled(start, taking):
    target = start(PYTHON, "plain")
    answered(target, "eval signal.pthread_sigmask(signal.SIG_BLOCK, [43])")
    assert taking.take(target.pid).outcome == "refused"


def test_a_program_in_a_long_call_into_c_does_not_answer_in_time_and_later_does(start, tmp_path):
    impatient = Taking(tmp_path / "impatient", TakingLimits(answer_s=0.3))
    patient = Taking(tmp_path / "patient")
    try:
        target = start(PYTHON, "plain")
        target.tell("block")
        target.expect("begins")
        assert impatient.take(target.pid).outcome == "no_answer"
        assert impatient.take(target.pid).outcome == "no_answer"
        target.tell("go on")
        target.expect("done")
        wait_until(lambda: patient.take(target.pid).is_taken)
        wait_until(lambda: answered(target, "children") == "none")
    finally:
        impatient.close()
        patient.close()


@pytest.mark.parametrize("shape", ["plain", "threads"])
def test_a_child_that_is_killed_leaves_no_file_and_no_zombie(start, taking, shape):
    target = start(PYTHON, shape)
    before = int(answered(target, "descriptors"))

    def ask_and_kill(*words):
        answer = trigger.ask(*words)
        os.kill(answer.child_pid, signal.SIGKILL)
        return answer

    snapshot = taking.take(target.pid, ask_and_kill)
    assert snapshot.outcome == "failed"
    assert "ended by signal 9" in snapshot.reason
    assert taking.store.snapshots() == []
    assert [path.name for path in taking.store.folder.iterdir()] == ["taken.jsonl"]
    leaves_no_trace(target, before)
    taking.must_take(target.pid)


def test_a_full_disk_ends_the_child_and_leaves_nothing(start, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk], check=True)
    # The gate thinks that there is room.
    store = Store(disk / "snapshots", StoreLimits(spare_bytes=-(1 << 30)))
    host = Taking(tmp_path / "other")
    try:
        target = start(PYTHON, "plain")
        before = int(answered(target, "descriptors"))
        taker = Taker(host.host, store, TakingLimits())
        snapshot = taker.take(host.host.process_id(target.pid), "hooked", "asked", True)
        assert snapshot.outcome == "not_kept", snapshot
        assert "the disk is full" in snapshot.reason
        assert not [path for path in store.folder.iterdir() if "mwsnap" in path.name]
        leaves_no_trace(target, before)
        host.must_take(target.pid)
    finally:
        store.close()
        host.close()
        subprocess.run(["umount", disk], check=True)


def test_a_mailbox_that_names_somebody_elses_pipe_gets_nothing_from_it(start, taking):
    target = start(PYTHON, "plain")
    reading, writing = os.pipe()
    victim = Target([PYTHON, "-c", "print('ready', flush=True); input()"])
    try:
        victim.expect("ready")
        os.write(writing, b"secret")
        number = trigger.find_hook(taking.host, taking.host.process_id(target.pid)).asked

        def lie(host, process, deadline_s):
            box = "sys.modules['mwtrace_hook']._own.mailbox"
            hostile = (
                f"({box}.put(sys.modules['mwtrace_hook'].CHILD, {os.getpid()}, {reading}),"
                f" {box}.put(sys.modules['mwtrace_hook'].STATE, {hook.WRITING}),"
                f" {box}.put(sys.modules['mwtrace_hook'].ASKED, {number + 1}))"
            )
            answered(target, f"eval {hostile}")
            return trigger.await_child(host, process, number, deadline_s)

        snapshot = taking.take(target.pid, lie)
        assert snapshot.outcome == "cut_short", snapshot
        os.set_blocking(reading, False)
        assert os.read(reading, 100) == b"secret"
    finally:
        victim.stop()
        os.close(reading)
        os.close(writing)


def test_a_process_in_another_pid_namespace_is_asked_like_any_other(taking):
    target = start_hooked(
        PYTHON, "plain", "10", before=("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    )
    try:
        target.expect("ready")
        children = Path(f"/proc/{target.pid}/task/{target.pid}/children").read_text().split()
        inner = int(children[0])
        snapshot = taking.must_take(inner)
        assert ReadSnapshot(snapshot.path).head["pid"] == 1  # of its own namespace
        wait_until(lambda: answered(target, "children") == "none")
    finally:
        target.stop()


# By hand (make soak-snapshot): more of them, of every shape and on every version.
SOAK = int(os.environ.get("MWTRACE_SOAK", "0"))


@pytest.mark.parametrize("shape", ["threads", "plain", "asyncio"] if SOAK else ["workers"])
@pytest.mark.parametrize("python", interpreters() if SOAK else [PYTHON], ids=label)
def test_many_in_a_row_of_a_busy_program_leave_no_trace(start, taking, python, shape):
    target = start(python, shape)
    before = int(answered(target, "descriptors"))
    for _ in range(SOAK or 50):
        taking.must_take(target.pid)
    leaves_no_trace(target, before)
