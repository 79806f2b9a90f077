"""procfs: made-up files, random bytes, and a real child."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest
from fake_proc import MEMORY, open_descriptors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mwtrace.errors import ProcessError, ProcessGone, ProcessUnreadable, Unreadable
from mwtrace.host import text
from mwtrace.host.procfs import READ_BYTES_MAX, Host, Memory
from mwtrace.model import ProcessId


@pytest.mark.parametrize("comm", [b"x", b"a) S 1 (b", b"\n", b"(", b")", b"\xff\x1b[2J", b""])
def test_a_name_can_hold_anything_and_moves_no_field(fake_proc, comm):
    fake_proc.add(100, comm=comm, parent_pid=7, start_ticks=123, start_stack=99)
    stat = fake_proc.host.stat(100)
    assert stat.comm == comm
    assert (stat.parent_pid, stat.start_time_ns, stat.start_stack) == (7, 1_230_000_000, 99)
    assert not stat.is_kernel_thread


def test_a_kernel_thread_is_known_by_its_flag(fake_proc):
    fake_proc.add(2, flags=0x00200040, memory="")
    assert fake_proc.host.stat(2).is_kernel_thread
    assert fake_proc.host.memory(2) is None


def test_memory_comes_in_bytes(fake_proc):
    fake_proc.add(100)
    parts = [400, 200, 100, 80, 40000]
    assert fake_proc.host.memory(100) == Memory(*(part * 1024 for part in parts))


def test_without_rss_anon_the_parts_come_from_statm(fake_proc):
    fake_proc.add(100, memory="VmSize:\t  40000 kB\nVmRSS:\t  700 kB\n")
    fake_proc.write("proc/100/statm", "10000 175 50 3 0 100 0\n")
    memory = fake_proc.host.memory(100)
    assert memory is not None
    page_bytes = fake_proc.host.page_bytes
    assert (memory.anon_bytes, memory.file_bytes) == (125 * page_bytes, 50 * page_bytes)


def test_a_name_cannot_pose_as_a_memory_line(fake_proc):
    # The kernel escapes newlines here; without them no line can begin inside the name.
    fake_proc.add(100)
    forged = b"Name:\tRssAnon: 9 kB\\nRssAnon:\t9 kB\nState:\tS\n" + MEMORY.encode()
    fake_proc.write("proc/100/status", forged)
    memory = fake_proc.host.memory(100)
    assert memory is not None
    assert memory.anon_bytes == 400 * 1024


def test_identity_has_the_precision_of_proc(fake_proc):
    fake_proc.add(100, start_ticks=123)
    fake_proc.host.check(ProcessId(100, 1_230_000_000))
    fake_proc.host.check(ProcessId(100, 1_239_999_999))
    for other_ns in (1_229_999_999, 1_240_000_000):
        with pytest.raises(ProcessGone):
            fake_proc.host.check(ProcessId(100, other_ns))


def test_a_process_that_ended_is_gone_in_every_file(fake_proc):
    host = fake_proc.host
    readers = (host.stat, host.memory, host.uid, host.cgroup, host.command_line)
    for read in (*readers, host.executable, host.working_directory):
        with pytest.raises(ProcessGone):
            read(100)


def test_a_command_line_is_bounded_and_its_cut_word_left_out(fake_proc):
    fake_proc.add(100, cmdline=b"java\0-cp\0" + b"x" * READ_BYTES_MAX)
    assert fake_proc.host.command_line(100) == ["java", "-cp"]
    fake_proc.add(101, cmdline=b"x" * (READ_BYTES_MAX * 2))
    assert fake_proc.host.command_line(101) == ["x" * READ_BYTES_MAX]


def test_a_deleted_program_keeps_its_path(fake_proc):
    fake_proc.add(100, exe="/usr/bin/true (deleted)")
    assert fake_proc.host.executable(100) == "/usr/bin/true"


def test_a_process_without_program_has_an_empty_path(fake_proc):
    fake_proc.add(100)
    assert fake_proc.host.executable(100) == ""


def test_only_numbers_are_processes(fake_proc):
    fake_proc.add(100)
    for entry in ("self", "1x", "٣", "1" * 40):
        (fake_proc.root / "proc" / entry).mkdir()
    assert fake_proc.host.pids() == [100]


def test_a_pipe_in_place_of_a_file_stops_nobody(fake_proc):
    fake_proc.add(100)
    (fake_proc.root / "proc/100/stat").unlink()
    os.mkfifo(fake_proc.root / "proc/100/stat")
    with pytest.raises(ProcessUnreadable) as caught:
        fake_proc.host.stat(100)
    assert caught.value.reason is Unreadable.MALFORMED


def test_reading_leaves_no_descriptor_open(fake_proc):
    fake_proc.add(100)
    before = open_descriptors()
    for _ in range(10):
        fake_proc.host.stat(100)
        fake_proc.host.pids()
        with pytest.raises(ProcessGone):
            fake_proc.host.stat(101)
    assert open_descriptors() == before


@given(st.binary(max_size=400))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_bytes_raise_nothing_but_our_errors(fake_proc, raw):
    for file in ("stat", "status", "statm", "cgroup", "cmdline"):
        fake_proc.write(f"proc/100/{file}", raw)
    host = fake_proc.host
    for read in (host.stat, host.memory, host.uid, host.cgroup, host.command_line):
        with contextlib.suppress(ProcessError):
            read(100)


@given(st.integers(), st.integers(), st.integers(), st.integers())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_numbers_out_of_range_are_refused(fake_proc, parent_pid, flags, ticks, stack):
    fake_proc.add(100, parent_pid=parent_pid, flags=flags, start_ticks=ticks, start_stack=stack)
    with contextlib.suppress(ProcessUnreadable):
        stat = fake_proc.host.stat(100)
        assert 0 <= stat.start_time_ns < 1 << 63
        assert 0 <= stat.parent_pid < 1 << 31


@given(st.text(st.characters(exclude_categories=())), st.integers(60, 100))
@settings(deadline=None)
def test_any_text_becomes_a_printable_name_of_bounded_length(raw, characters_max):
    shown = text.name(raw, characters_max)
    assert shown.isprintable()
    assert len(shown) <= characters_max
    text.digest(raw)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain name", "plain name"),
        (b"caf\xc3\xa9", "café"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"a\nb\x1b[2J\0", "a\\x0ab\\x1b[2J\\x00"),
        ("a\u202eb\u2028\U000e0001", "a\\u202eb\\u2028\\U000e0001"),
    ],
)
def test_what_is_not_printable_is_spelled_out(raw, shown):
    assert text.printable(raw) == shown


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_another_users_program_is_a_matter_of_permission():
    host = Host()
    child_pid = os.fork()
    if child_pid == 0:
        outcome = 1
        try:
            os.setresuid(65534, 65534, 65534)
            host.command_line(1)  # which everybody may read
            host.executable(1)
        except ProcessUnreadable as error:
            outcome = 0 if error.reason is Unreadable.PERMISSION else 2
        finally:
            os._exit(outcome)
    assert os.waitstatus_to_exitcode(os.waitpid(child_pid, 0)[1]) == 0


def test_a_real_child_is_read_and_then_gone():
    program = "import sys; print('ready', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, "a b", ""]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    host = Host()
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        process = host.process_id(child.pid)
        stat = host.stat(child.pid)
        memory = host.memory(child.pid)
        assert stat.parent_pid == os.getpid()
        assert memory is not None
        assert memory.anon_bytes > 1024 * 1024
        assert host.uid(child.pid) == os.getuid()
        assert host.command_line(child.pid) == command[:-1]
        assert host.executable(child.pid) == os.path.realpath(sys.executable)
        assert host.working_directory(child.pid) == os.getcwd()
        assert b":/" in host.cgroup(child.pid)
        host.check(process)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert host.memory(child.pid) is None  # a zombie
        assert host.command_line(child.pid) == []
        assert host.executable(child.pid) == ""
    finally:
        child.kill()
        child.communicate(timeout=30)
    with pytest.raises(ProcessGone):
        host.check(process)
    host.close()
