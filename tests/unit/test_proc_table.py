"""The process table from /proc: made-up hosts, a host out of descriptors, and this one."""

from __future__ import annotations

import os
import subprocess
import sys

from fake_proc import CGROUP_V2_MOUNT

from mwtrace.host.procfs import Host
from mwtrace.host.table import ProcessTable


class Sink:
    def __init__(self):
        self.records = []

    def append(self, *fields):
        self.records.append(fields)


def test_a_record_has_what_the_kernel_would_tell(fake_proc):
    fake_proc.write("proc/self/mountinfo", CGROUP_V2_MOUNT)
    directory = fake_proc.root / "sys/fs/cgroup/system.slice/api.service"
    directory.mkdir(parents=True)
    fake_proc.add(100, comm=b"a\xff)", parent_pid=7, cgroup="0::/system.slice/api.service\n")
    sink = Sink()
    counts = ProcessTable(fake_proc.host).read(sink)
    pages = [
        kilobytes * 1024 // fake_proc.host.page_bytes for kilobytes in (400, 200, 100, 80, 40000)
    ]
    cgroup_id = directory.stat().st_ino
    assert sink.records == [(100, 5 * 10**9, cgroup_id, *pages, 7, b"a\xff)")]
    assert counts.records == 1
    assert counts.is_whole


def test_what_cannot_be_read_is_counted_by_reason_and_costs_nobody_else(fake_proc):
    fake_proc.add(2, flags=0x00200000, memory="")
    fake_proc.add(50, state="Z", memory="")
    fake_proc.add(100)
    fake_proc.add(101)
    fake_proc.write("proc/101/stat", b"nonsense")
    fake_proc.add(102)
    fake_proc.write("proc/102/status", b"nonsense")
    (fake_proc.root / "proc/103").mkdir()
    sink = Sink()
    counts = ProcessTable(fake_proc.host).read(sink)
    assert [record[0] for record in sink.records] == [100]
    assert (counts.records, counts.without_memory, counts.malformed, counts.gone) == (1, 2, 2, 1)
    assert counts.is_whole


def test_a_pid_that_was_given_on_is_another_process(fake_proc):
    table = ProcessTable(fake_proc.host)
    first, second = Sink(), Sink()
    fake_proc.add(100, start_ticks=500)
    table.read(first)
    fake_proc.add(100, start_ticks=501)
    table.read(second)
    assert [record[1] for record in (*first.records, *second.records)] == [5 * 10**9, 501 * 10**7]


def test_a_table_is_bounded_and_says_what_it_left_out(fake_proc):
    for pid in range(100, 105):
        fake_proc.add(pid)
    sink = Sink()
    counts = ProcessTable(fake_proc.host, processes_max=3).read(sink)
    assert (len(sink.records), counts.omitted, counts.is_whole) == (3, 2, False)


OUT_OF_DESCRIPTORS = """
import os, sys
from mwtrace.host.procfs import Host
from mwtrace.host.table import ProcessTable
import resource

class Sink:
    def __init__(self): self.pids = []
    def append(self, pid, *fields): self.pids.append(pid)

def tick():
    sink = Sink()
    counts = table.read(sink)
    found = int(os.getpid() in sink.pids)
    print(found, int(counts.is_whole), int(counts.descriptors > 0), host.reserve_used_total > 0)

host = Host()
table = ProcessTable(host)
tick()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
taken = []
def take_all():
    try:
        while True: taken.append(os.dup(0))
    except OSError:
        pass
take_all()
tick()          # the reserve is enough for all of it
host.close()
take_all()
tick()          # nothing left: counted, nobody lost
for fd in taken: os.close(fd)
tick()          # and back
"""


def test_a_host_out_of_descriptors_does_not_lose_the_watch():
    command = [sys.executable, "-c", OUT_OF_DESCRIPTORS]
    child = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True
    )
    assert child.stdout.splitlines() == ["1 1 0 False", "1 1 0 True", "0 0 1 True", "1 1 0 True"]


def test_this_host_shows_this_process_as_it_is():
    host = Host()
    table = ProcessTable(host)
    block = bytearray(os.urandom(16 * 1024 * 1024))
    for _ in range(2):  # new to the table, and then known
        sink = Sink()
        counts = table.read(sink)
        assert counts.is_whole
        assert counts.records == len(sink.records)
        record = next(record for record in sink.records if record[0] == os.getpid())
        assert host.process_id(os.getpid()).start_time_ns == record[1]
        assert record[3] * host.page_bytes > len(block)
        assert record[8] == os.getppid()
        assert all(isinstance(field, int) and field >= 0 for field in record[:9])
    host.close()
