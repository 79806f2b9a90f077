"""Limits: cgroup v2, v1 and hybrid, namespaces, the host, and random files."""

from __future__ import annotations

import os

import pytest
from fake_proc import CGROUP_V1_MOUNT, CGROUP_V2_MOUNT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mwtrace.errors import HostError, ProcessGone
from mwtrace.host.cgroups import Hierarchies, parse_mounts
from mwtrace.host.limits import Limits
from mwtrace.host.procfs import Host
from mwtrace.model import Limit

MIB = 1024 * 1024
GIB = 1024 * MIB
MEMINFO = "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    8388608 kB\n"
HOST_LIMIT = Limit(16 * GIB, 8 * GIB, "host")


@pytest.fixture
def machine(fake_proc):
    fake_proc.write("proc/meminfo", MEMINFO)
    fake_proc.write("proc/self/mountinfo", CGROUP_V2_MOUNT)
    return fake_proc


def v2(machine, path, limit, usage, swap_max=None, swap_used=0, stat=""):
    directory = f"sys/fs/cgroup{path}"
    machine.write(f"{directory}/memory.max", f"{limit}\n")
    machine.write(f"{directory}/memory.current", f"{usage}\n")
    machine.write(f"{directory}/memory.stat", stat)
    if swap_max is not None:
        machine.write(f"{directory}/memory.swap.max", f"{swap_max}\n")
        machine.write(f"{directory}/memory.swap.current", f"{swap_used}\n")


def v1(machine, path, limit, usage, stat="", memsw=None):
    directory = f"sys/fs/cgroup/memory{path}"
    machine.write(f"{directory}/memory.limit_in_bytes", f"{limit}\n")
    machine.write(f"{directory}/memory.usage_in_bytes", f"{usage}\n")
    machine.write(f"{directory}/memory.stat", stat)
    if memsw is not None:
        machine.write(f"{directory}/memory.memsw.limit_in_bytes", f"{memsw[0]}\n")
        machine.write(f"{directory}/memory.memsw.usage_in_bytes", f"{memsw[1]}\n")


def test_without_a_cgroup_limit_it_is_the_hosts_memory(machine):
    machine.add(100, cgroup="0::/a.slice/b.service\n")
    v2(machine, "/a.slice/b.service", "max", 5 * MIB)
    assert Limits(machine.host).of(100) == HOST_LIMIT


def test_free_swap_is_room_too(machine):
    machine.write("proc/meminfo", MEMINFO + "SwapFree:  1048576 kB\n")
    machine.add(100)
    assert Limits(machine.host).of(100) == Limit(16 * GIB, 9 * GIB, "host")


def test_a_kernel_that_names_no_available_memory_is_estimated(machine):
    machine.write("proc/meminfo", "MemTotal: 4096 kB\nMemFree: 1024 kB\nCached: 512 kB\n")
    machine.add(100)
    assert Limits(machine.host).of(100) == Limit(4 * MIB, 1536 * 1024, "host")


def test_the_cgroups_own_limit(machine):
    machine.add(100, cgroup="0::/a.slice/b.service\n")
    v2(machine, "/a.slice/b.service", 512 * MIB, 100 * MIB)
    assert Limits(machine.host).of(100) == Limit(512 * MIB, 412 * MIB, "cgroup")


def test_the_ancestor_that_leaves_least_room_binds(machine):
    machine.add(100, cgroup="0::/a.slice/b.service\n")
    v2(machine, "/a.slice/b.service", 512 * MIB, 100 * MIB)
    v2(machine, "/a.slice", 1024 * MIB, 1000 * MIB)
    assert Limits(machine.host).of(100) == Limit(1024 * MIB, 24 * MIB, "cgroup")


def test_a_cgroup_limit_beyond_what_the_host_has_does_not_bind(machine):
    machine.add(100, cgroup="0::/a\n")
    v2(machine, "/a", 64 * GIB, 1 * GIB)
    assert Limits(machine.host).of(100) == HOST_LIMIT


def test_page_cache_counts_as_room(machine):
    machine.add(100, cgroup="0::/a\n")
    stat = f"file {480 * MIB}\ninactive_file {400 * MIB}\nactive_file {80 * MIB}\n"
    v2(machine, "/a", 512 * MIB, 500 * MIB, stat=stat)
    assert Limits(machine.host).of(100) == Limit(512 * MIB, 492 * MIB, "cgroup")


@pytest.mark.parametrize(
    ("swap_max", "swap_used", "room"),
    [(0, 0, 0), (100 * MIB, 40 * MIB, 60 * MIB), ("max", 0, 1024 * MIB), (4 * GIB, 0, 1024 * MIB)],
)
def test_swap_is_room_as_far_as_cgroup_and_host_have_it(machine, swap_max, swap_used, room):
    machine.write("proc/meminfo", MEMINFO + "SwapFree:  1048576 kB\n")
    machine.add(100, cgroup="0::/a\n")
    v2(machine, "/a", 512 * MIB, 412 * MIB, swap_max, swap_used)
    assert Limits(machine.host).of(100) == Limit(512 * MIB, 100 * MIB + room, "cgroup")


def test_usage_above_the_limit_leaves_no_room(machine):
    machine.add(100, cgroup="0::/a\n")
    v2(machine, "/a", 100 * MIB, 101 * MIB)
    assert Limits(machine.host).of(100) == Limit(100 * MIB, 0, "cgroup")


def test_v1_and_its_way_to_say_unlimited(machine):
    machine.write("proc/self/mountinfo", CGROUP_V1_MOUNT)
    machine.add(100, cgroup="4:cpu,memory:/a/b\n1:name=systemd:/x\n")
    v1(machine, "/a/b", 9223372036854771712, 5 * MIB)
    assert Limits(machine.host).of(100) == HOST_LIMIT
    stat = f"inactive_file 1\ntotal_inactive_file {20 * MIB}\ntotal_active_file {10 * MIB}\n"
    v1(machine, "/a", 200 * MIB, 150 * MIB, stat)
    assert Limits(machine.host).of(100) == Limit(200 * MIB, 80 * MIB, "cgroup")


def test_v1_counts_memory_and_swap_together(machine):
    machine.write("proc/self/mountinfo", CGROUP_V1_MOUNT)
    machine.write("proc/meminfo", MEMINFO + "SwapFree:  1048576 kB\n")
    machine.add(100, cgroup="4:memory:/a\n")
    v1(machine, "/a", 200 * MIB, 150 * MIB, memsw=(260 * MIB, 170 * MIB))
    assert Limits(machine.host).of(100) == Limit(200 * MIB, 90 * MIB, "cgroup")


def test_on_a_hybrid_host_the_hierarchy_that_has_the_files_binds(machine):
    unified = CGROUP_V2_MOUNT.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")
    machine.write("proc/self/mountinfo", CGROUP_V1_MOUNT + unified)
    machine.add(100, cgroup="4:memory:/a\n0::/a\n")
    v1(machine, "/a", 200 * MIB, 150 * MIB)
    (machine.root / "sys/fs/cgroup/unified/a").mkdir(parents=True)
    assert Limits(machine.host).of(100) == Limit(200 * MIB, 50 * MIB, "cgroup")


def test_outside_of_our_namespace_and_mount_only_the_host_is_known(machine):
    machine.add(100, cgroup="0::/../../other/b\n")
    v2(machine, "/other/b", 1 * MIB, 0)
    assert Limits(machine.host).of(100) == HOST_LIMIT


def test_a_mount_of_a_part_shows_that_part(machine):
    machine.write("proc/self/mountinfo", CGROUP_V2_MOUNT.replace(" / ", " /docker/x ", 1))
    machine.add(100, cgroup="0::/docker/x/b\n")
    machine.add(101, cgroup="0::/docker/y\n")
    v2(machine, "/b", 64 * MIB, 4 * MIB)
    assert Limits(machine.host).of(100) == Limit(64 * MIB, 60 * MIB, "cgroup")
    assert Limits(machine.host).of(101) == HOST_LIMIT


def test_from_a_container_the_hosts_mount_leads_to_other_containers(machine):
    # We are in /pods/ours/own; the mount shows the host's hierarchy from its root.
    machine.write("proc/self/mountinfo", CGROUP_V2_MOUNT.replace(" / ", " /../.. ", 1))
    machine.write("proc/self/cgroup", "0::/own\n")
    machine.write("sys/fs/cgroup/pods/ours/own/cgroup.procs", f"1\n{os.getpid()}\n")
    machine.write("sys/fs/cgroup/pods/theirs/own/cgroup.procs", "7\n")
    machine.add(100, cgroup="0::/../theirs\n")
    machine.add(101, cgroup="0::/../../system\n")
    machine.add(102, cgroup="0::/own\n")
    machine.add(103, cgroup="0::/../../../beyond\n")
    for path, mebibytes in (("/pods/theirs", 10), ("/system", 20), ("/pods/ours/own", 30)):
        v2(machine, path, mebibytes * MIB, 0)
    limits = Limits(machine.host)
    assert [limits.of(pid).limit_bytes // MIB for pid in (100, 101, 102)] == [10, 20, 30]
    assert limits.of(103) == HOST_LIMIT


def test_spaces_and_backslashes_in_mount_points_are_read():
    (mount,) = parse_mounts(rb"1 2 0:1 / /mnt/a\040b\134c rw shared:1 - ext4 /dev/x rw" + b"\n")
    assert mount.point == "/mnt/a b\\c"


def test_errors_are_ours(machine):
    with pytest.raises(ProcessGone):
        Limits(machine.host).of(99)
    machine.write("proc/meminfo", "nothing\n")
    machine.add(100)
    with pytest.raises(HostError, match="MemTotal"):
        Limits(machine.host).of(100)


@given(st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=60))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_files_leave_the_hosts_limit(machine, mountinfo, cgroup, number):
    machine.add(100)
    mounts = CGROUP_V2_MOUNT.encode() + mountinfo
    machine.write("proc/self/mountinfo", mounts)
    machine.write("proc/100/cgroup", b"0::/" + cgroup.replace(b"\0", b"") + b"\n" + cgroup)
    for file in ("memory.max", "memory.current", "memory.stat", "memory.swap.max"):
        machine.write(f"sys/fs/cgroup/a/{file}", number)
    assert Limits(machine.host).of(100).limit_bytes > 0
    Hierarchies(machine.host).cgroup_id(100)
    machine.write("proc/100/cgroup", b"0::/" + cgroup)
    Hierarchies(machine.host).cgroup_id(100)
    machine.write("proc/100/cgroup", b"0::/a\n")
    limit = Limits(machine.host).of(100)
    assert limit.headroom_bytes >= 0


def test_this_process_has_a_limit():
    host = Host()
    limit = Limits(host).of(os.getpid())
    assert 0 <= limit.headroom_bytes
    assert 0 < limit.limit_bytes <= os.sysconf("SC_PHYS_PAGES") * host.page_bytes
    host.close()
