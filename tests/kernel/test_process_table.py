"""What the task iterator says of processes whose memory is known to the page."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path

import pytest

from mwtrace.capi import ffi, lib

pytestmark = pytest.mark.kernel

DEADLINE_S = 30.0
START_TIME_FIELD = 22 - 3  # of /proc/PID/stat, counted behind the name


def stat_fields(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()


def wait_until_it_is_a_zombie(pid):
    deadline = time.monotonic() + DEADLINE_S
    while stat_fields(pid)[0] != "Z":
        assert time.monotonic() < deadline, f"the main thread of {pid} did not end"


def test_the_pages_a_process_touches_are_counted_exactly(watching, start_target):
    if lib.mw_bpf_possible_cpus() > lib.MW_CPUS_SUMMED_MAX:
        pytest.skip("more CPUs than are summed here: counters are batched")
    target = start_target("pages")
    target.ask("1")
    before = watching.processes()[target.pid][-1]
    target.ask("4099")
    after = watching.processes()[target.pid][-1]
    assert after.anon_pages - before.anon_pages == 4099
    assert after.total_vm_pages - before.total_vm_pages == 4099
    assert after.file_pages == before.file_pages
    assert after.swap_pages == before.swap_pages == 0


def test_less_than_a_batch_is_counted_too(watching, start_target):
    if lib.mw_bpf_possible_cpus() > lib.MW_CPUS_SUMMED_MAX:
        pytest.skip("more CPUs than are summed here: counters are batched")
    target = start_target("pages")
    target.ask("1")
    counts = []
    for _ in range(24):
        counts.append(watching.processes()[target.pid][-1].anon_pages)
        target.ask("1")
    assert counts == list(range(counts[0], counts[0] + 24))


def test_a_process_is_who_proc_says_it_is(watching, start_target):
    target = start_target("pages", "named")
    records = watching.processes()[target.pid]
    assert len(records) == 1
    record = records[0]
    ticks = int(stat_fields(target.pid)[START_TIME_FIELD])
    assert record.start_time_ns // (10**9 // os.sysconf("SC_CLK_TCK")) == ticks
    assert record.parent_pid == os.getpid()
    assert ffi.string(record.comm) == b"named"


def test_the_cgroup_id_is_the_inode_of_its_directory(watching, start_target):
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    roots = [Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"]
    if not roots:
        pytest.skip("no cgroup v2 hierarchy is mounted")
    target = start_target("pages")
    lines = Path(f"/proc/{target.pid}/cgroup").read_text().splitlines()
    path = next(line[len("0::/") :] for line in lines if line.startswith("0::/"))
    assert watching.processes()[target.pid][-1].cgroup_id == (roots[0] / path).stat().st_ino


@pytest.mark.parametrize(
    "name",
    [b"a\nb", b"\x1b[2J\x1b[31mred", b"\xff\xfe\x80not utf8", b'quote"{}\\', b"fifteen bytes!!"],
)
def test_a_name_comes_through_as_the_bytes_it_is(watching, start_target, name):
    target = start_target("pages", name)
    assert ffi.string(watching.processes()[target.pid][-1].comm) == name


def test_a_process_whose_main_thread_has_ended_is_still_shown(watching, start_target):
    target = start_target("leader_exits")
    wait_until_it_is_a_zombie(target.pid)
    record = watching.processes()[target.pid][-1]
    assert record.anon_pages >= 1009
    assert record.parent_pid == os.getpid()
    ticks = int(stat_fields(target.pid)[START_TIME_FIELD])
    assert record.start_time_ns // (10**9 // os.sysconf("SC_CLK_TCK")) == ticks


def test_every_process_is_shown_once_and_no_kernel_thread_or_zombie(watching, start_target):
    # Enough to fill the kernel's buffer of 32 KiB more than once, so that the record which did not
    # fit is seen again.
    targets = [start_target("pages") for _ in range(503)]
    zombie = targets.pop()
    os.kill(zombie.pid, signal.SIGKILL)
    wait_until_it_is_a_zombie(zombie.pid)
    table = watching.processes()
    assert all(len(table[target.pid]) == 1 for target in targets)
    assert zombie.pid not in table
    assert 2 not in table
    assert watching.watch.losses()["record_unwritten"] == 0


def test_nothing_is_said_to_a_loader_of_another_events_header(watching, start_target):
    target = start_target("children")
    config = ffi.new("struct mw_watch_config *")
    config.events_abi = lib.MW_EVENTS_ABI + 1
    key = ffi.new("uint32_t *", 0)
    assert lib.mw_bpf_map_write(watching.loaded.maps["watch_config"], key, config) == 0
    target.ask("exec 3")
    assert watching.processes() == {}


def test_a_tick_over_the_table_costs_microseconds_per_process(watching, start_target):
    # A bound on the order of magnitude only; the benchmark measures.
    for _ in range(199):
        start_target("pages")
    count = len(watching.processes())
    before = resource.getrusage(resource.RUSAGE_SELF)
    watching.processes()
    after = resource.getrusage(resource.RUSAGE_SELF)
    spent_s = after.ru_stime - before.ru_stime
    assert spent_s / count < 50e-6
