"""mwtrace/aggregator.py and the C below it: what each rule and each bound does, one at a time."""

from __future__ import annotations

import ctypes
import os

import oracle
import pytest

from mwtrace.aggregator import Aggregator, Limits, RecordBuffer, Row, Table
from mwtrace.capi import ffi, lib
from mwtrace.errors import ConfigError, HostError, ProcessGone
from mwtrace.model import Fit, ProcessId

MIB_PAGES = 2**20 // oracle.PAGE_BYTES
LIMITS = Limits(processes_max=64, services_max=8, rows_max=32, unnamed_max=16, oom_kills_max=2)
SERVICE = 3


class Host:
    """An aggregator, and the records of the host it watches: anonymous pages by pid."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.aggregator = Aggregator(limits)
        self.pages: dict[int, int] = {}
        self.starts_ns: dict[int, int] = {}
        self.cgroups: dict[int, int] = {}
        self.time_s = 0.0

    def tick(self, iterator_fd: int = lib.MW_NO_ITERATOR) -> Table:
        records = RecordBuffer(256)
        for pid, pages in self.pages.items():
            start_ns, cgroup_id = self.start_ns(pid), self.cgroups.get(pid, 1)
            records.append(pid, start_ns, cgroup_id, pages, 0, 0, 0, 0, 1, b"program")
        self.time_s += 5
        return self.aggregator.tick(self.time_s, iterator_fd, records)

    def start_ns(self, pid: int) -> int:
        return self.starts_ns.get(pid, 1000 + pid)

    def id_of(self, pid: int) -> ProcessId:
        return ProcessId(pid, self.start_ns(pid))

    def name(self, *pids: int, service_id: int = SERVICE) -> None:
        for pid in pids:
            assert self.aggregator.name(self.id_of(pid), service_id)

    def event(self, kind: int, pid: int, **fields: object) -> None:
        fields = {"kind": kind, "pid": pid, "start_time_ns": self.start_ns(pid), **fields}
        event = ffi.new("struct mw_lifecycle_event *", fields)
        lib.mw_aggregator_on_event(self.aggregator.pointer, event, ffi.sizeof(event[0]))

    def grow(self, pid: int, ticks: int) -> Table:
        for _ in range(ticks):
            self.pages[pid] += MIB_PAGES
            table = self.tick()
        return table


@pytest.fixture
def host() -> Host:
    return Host()


def service_row(table: Table, service_id: int = SERVICE) -> Row:
    (row,) = [r for r in table.rows if r.process is None and r.service_id == service_id]
    return row


def process_rows(table: Table) -> list[Row]:
    return [row for row in table.rows if row.process is not None]


def asked_for(table: Table) -> list[int]:
    return [unnamed.process.pid for unnamed in table.unnamed]


def test_a_process_is_asked_for_by_the_second_tick_that_sees_it_and_once(host: Host) -> None:
    host.pages = {7: 1, 8: 1}
    assert asked_for(host.tick()) == []
    assert asked_for(host.tick()) == [7, 8]
    host.name(7)
    assert asked_for(host.tick()) == []


def test_processes_beyond_unnamed_max_are_asked_for_in_later_ticks() -> None:
    host = Host(LIMITS._replace(unnamed_max=2))
    host.pages = dict.fromkeys((4, 5, 6, 7, 8), 1)
    host.tick()
    tables = [host.tick() for _ in range(4)]
    assert [asked_for(table) for table in tables] == [[4, 5], [6, 7], [8], []]
    assert tables[-1].counters["naming_deferred_total"] == 3 + 1


def test_a_process_that_changed_its_cgroup_is_asked_for_again(host: Host) -> None:
    host.pages = {7: 1}
    host.tick()
    host.tick()
    host.cgroups[7] = 2
    (unnamed,) = host.tick().unnamed
    assert (unnamed.process, unnamed.cgroup_id, unnamed.comm) == (host.id_of(7), 2, b"program")


def test_a_process_that_ran_another_program_is_asked_for_again_and_begins_anew(host: Host) -> None:
    host.pages = {7: 1}
    host.tick()
    host.tick()
    host.name(7)
    table = host.grow(7, 9)
    assert process_rows(table)[0].is_rising
    host.event(lib.MW_EVENT_EXEC, 7)
    table = host.tick()
    assert asked_for(table) == [7]
    (row,) = process_rows(table)
    assert (row.is_cleared, row.is_rising, row.first_time_s) == (True, False, table.time_s)
    assert row.service_id == SERVICE
    assert len(host.aggregator.history(host.id_of(7), 0)) == 1
    assert process_rows(host.tick()) == []


def test_a_program_that_was_never_told_of_is_replaced_without_a_row(host: Host) -> None:
    """Or else whoever calls exec often enough fills the table."""
    host.pages = {7: 1}
    host.tick()
    host.tick()
    host.event(lib.MW_EVENT_EXEC, 7)
    assert process_rows(host.tick()) == []
    host.event(lib.MW_EVENT_EXEC, 7)
    host.name(7)
    host.tick()
    (member,) = host.aggregator.members(SERVICE, 5)
    assert member.is_cleared


def test_naming_bit_by_bit_shows_no_growth() -> None:
    """Sixty processes of one service, named four a tick: its sums rise, its history does not."""
    host = Host(LIMITS._replace(unnamed_max=4, screen_bytes=1))
    host.pages = dict.fromkeys(range(1, 61), 10 * MIB_PAGES)
    shown = []
    for _ in range(40):
        table = host.tick()
        host.name(*asked_for(table))
        shown += table.rows
    assert not any(row.is_rising for row in shown)
    row = service_row(table)
    assert (row.process_count, row.births) == (60, 0)
    assert row.private_bytes == 600 * 2**20


def test_a_process_born_later_is_a_step_and_a_birth(host: Host) -> None:
    host.pages = {7: MIB_PAGES}
    for _ in range(4):
        host.name(*asked_for(host.tick()))
    host.pages[8] = 5 * MIB_PAGES
    for _ in range(3):
        table = host.tick()
        host.name(*asked_for(table))
    assert service_row(table).births == 1
    history = [pages // 2**20 for _, pages in host.aggregator.history(SERVICE, 0)]
    assert history == [1, 1, 1, 1, 6]


def test_a_service_whose_processes_all_ended_is_gone_once_and_restarts_anew(host: Host) -> None:
    host.pages = {7: 3}
    for _ in range(3):
        host.name(*asked_for(host.tick()))
    host.pages = {8: 9}
    table = host.tick()
    row = service_row(table)
    assert (row.is_gone, row.process_count, row.private_bytes) == (True, 0, 0)
    assert row.first_time_s == 15
    with pytest.raises(ProcessGone):
        host.aggregator.history(SERVICE, 0)
    table = host.tick()
    assert table.rows == []
    host.name(*asked_for(table))
    assert service_row(host.tick()).first_time_s == host.time_s


def test_a_service_that_starts_a_process_in_every_tick_keeps_its_history(host: Host) -> None:
    for pid in range(10, 30):
        host.pages[pid] = 3
        table = host.tick()
        host.name(*asked_for(table))
    row = service_row(table)
    assert row.first_time_s == 15.0
    assert row.births == 17


def test_an_exit_ends_a_process_at_once(host: Host) -> None:
    host.pages = {7: 3}
    host.tick()
    host.event(lib.MW_EVENT_EXIT, 7)
    with pytest.raises(ProcessGone):
        host.aggregator.name(host.id_of(7), SERVICE)
    with pytest.raises(ProcessGone):
        host.aggregator.history(host.id_of(7), 0)


def test_a_pid_that_was_given_again_is_another_process(host: Host) -> None:
    host.pages = {7: 3}
    host.tick()
    host.tick()
    old = host.id_of(7)
    host.name(7)
    host.starts_ns[7] = 999_999
    table = host.tick()
    assert table.counters["pid_reused_total"] == 1
    assert service_row(table).is_gone
    with pytest.raises(ProcessGone):
        host.aggregator.name(old, SERVICE)
    assert asked_for(host.tick()) == [7]


@pytest.mark.parametrize("how", ["records missing", "iterator failed"])
def test_a_tick_that_misses_processes_ends_nobody(how: str, host: Host) -> None:
    host.pages = {7: 3, 8: 4}
    for _ in range(3):
        host.name(*asked_for(host.tick()))
    del host.pages[8]
    if how == "records missing":
        table = host.tick(lib.MW_RECORDS_PARTIAL)
    else:
        fd = os.open("/dev/null", os.O_RDONLY)
        table = host.tick(fd)
        os.close(fd)
        assert table.iterator_errno
        assert table.counters["iterator_errors_total"] == 1
    row = service_row(table)
    assert (row.process_count, row.private_bytes) == (2, 7 * oracle.PAGE_BYTES)
    assert host.aggregator.history(SERVICE, 0) == [(15.0, 7 * oracle.PAGE_BYTES)]
    assert service_row(host.tick()).process_count == 1


def test_an_oom_victim_is_told_with_what_was_known_of_it(host: Host) -> None:
    host.pages = {7: 3}
    for _ in range(3):
        host.name(*asked_for(host.tick()))
    host.event(lib.MW_EVENT_OOM_VICTIM, 7, time_ns=17_500_000_000, cgroup_id=9, comm=b"victim")
    host.event(lib.MW_EVENT_EXIT, 7)
    host.pages = {}
    (oom_kill,) = host.tick().oom_kills
    assert oom_kill.process == host.id_of(7)
    assert (oom_kill.time_s, oom_kill.cgroup_id, oom_kill.comm) == (17.5, 9, b"victim")
    assert (oom_kill.private_bytes, oom_kill.service_id) == (3 * oracle.PAGE_BYTES, SERVICE)
    # Its service ended with it, and the service's history, too.
    assert [size for _, size in oom_kill.history] == [3 * oracle.PAGE_BYTES]
    with pytest.raises(ProcessGone):
        host.aggregator.history(SERVICE, 0)
    assert host.tick().oom_kills == []


def test_oom_victims_beyond_oom_kills_max_are_counted(host: Host) -> None:
    for pid in (1, 2, 3):
        host.event(lib.MW_EVENT_OOM_VICTIM, pid)
    table = host.tick()
    assert [oom_kill.process.pid for oom_kill in table.oom_kills] == [1, 2]
    assert table.counters["oom_kills_dropped_total"] == 1
    assert table.counters["events_unmatched_total"] == 3


def test_what_is_no_event_is_counted(host: Host) -> None:
    event = ffi.new("struct mw_lifecycle_event *", {"kind": lib.MW_EVENT_EXEC, "pid": 7})
    lib.mw_aggregator_on_event(host.aggregator.pointer, event, ffi.sizeof(event[0]) - 1)
    lib.mw_aggregator_on_event(host.aggregator.pointer, event, ffi.sizeof(event[0]) + 8)
    for kind in (0, lib.MW_EVENT_OOM_VICTIM + 1):
        host.event(kind, 7)
    counters = host.tick().counters
    assert (counters["events_total"], counters["events_refused_total"]) == (4, 4)


def test_processes_beyond_processes_max_are_counted_and_take_the_place_of_ended_ones() -> None:
    host = Host(LIMITS._replace(processes_max=1))
    host.pages = {7: 1, 8: 1}
    assert host.tick().counters["processes_untracked_total"] == 1
    host.pages = {8: 1}
    assert host.tick().counters["process_count"] == 0  # 7 ended only after 8 was turned away
    assert host.tick().counters["process_count"] == 1


def test_records_beyond_a_buffer_are_counted_as_processes_untracked(host: Host) -> None:
    records = RecordBuffer(1)
    for pid in (7, 8, 9):
        records.append(pid, 1, 1, 0, 0, 0, 0, 0, 1, b"a name longer than the kernel's")
    table = host.aggregator.tick(1.0, records=records)
    assert table.counters["processes_untracked_total"] == 2
    assert table.counters["process_count"] == 1
    assert ffi.string(records.array[0].comm) == b"a name longer t"


def test_a_service_id_beyond_services_max_leaves_the_process_without_one(host: Host) -> None:
    host.pages = {7: 1}
    host.tick()
    host.name(7, service_id=LIMITS.services_max - 1)
    assert not host.aggregator.name(host.id_of(7), LIMITS.services_max)
    table = host.tick()
    assert table.counters["services_untracked_total"] == 1
    assert service_row(table, LIMITS.services_max - 1).is_gone
    assert [row.process for row in host.aggregator.members(0, 9)] == [host.id_of(7)]


def test_service_0_is_nobodys(host: Host) -> None:
    host.pages = {7: 1}
    host.tick()
    with pytest.raises(HostError):
        host.aggregator.name(host.id_of(7), 0)


def test_a_service_with_a_process_is_not_forgotten(host: Host) -> None:
    host.pages = {7: 1}
    host.tick()
    host.name(7)
    with pytest.raises(HostError):
        host.aggregator.forget_service(SERVICE)
    host.event(lib.MW_EVENT_EXIT, 7)
    host.aggregator.forget_service(SERVICE)
    host.aggregator.forget_service(LIMITS.services_max)  # there is nothing to forget
    host.pages = {}
    assert host.tick().rows == []


def test_rising_processes_crowd_out_the_large_and_calm_but_nobody_crowds_out_them() -> None:
    host = Host(LIMITS._replace(rows_max=2))
    host.pages = {7: 10**6, 8: 1, 9: 1, 10: 1}
    host.tick()
    host.name(7)
    for _ in range(9):
        host.pages.update({pid: host.pages[pid] + MIB_PAGES * pid for pid in (8, 9, 10)})
        table = host.tick()
    assert [row.process for row in table.rows] == [host.id_of(10), host.id_of(9)]
    assert all(row.levels[0] for row in table.rows)
    # 8, in the three ticks since eight samples make a window; the service is calm.
    assert table.counters["rows_omitted_total"] == 3
    omitted = host.aggregator.members(0, 9)[-1]
    assert (omitted.process, omitted.is_rising, omitted.levels) == (host.id_of(8), True, ())


def test_the_largest_services_are_shown_largest_first() -> None:
    host = Host(LIMITS._replace(rows_max=2))
    host.pages = {7: 10, 8: 30, 9: 20}
    host.tick()
    for service_id, pid in enumerate(host.pages, start=1):
        host.name(pid, service_id=service_id)
    table = host.tick()
    assert [(row.service_id, row.is_top) for row in table.rows] == [(2, True), (3, True)]
    # Who is calm and small is judged by having no row: nothing was lost.
    assert table.counters["rows_omitted_total"] == 0


def test_a_gone_service_for_which_a_table_has_no_room_is_told_by_the_next_one() -> None:
    host = Host(LIMITS._replace(rows_max=2))
    host.pages = {pid: 10 for pid in (7, 8, 9, 10, 11)}
    host.tick()
    for service_id, pid in enumerate(host.pages, start=1):
        host.name(pid, service_id=service_id)
    host.tick()
    host.pages = {11: 10}
    tables = [host.tick() for _ in range(3)]
    told = [[(row.service_id, row.is_gone) for row in table.rows] for table in tables]
    assert told == [[(1, True), (2, True)], [(3, True), (4, True)], [(5, False)]]
    assert tables[-1].counters["rows_omitted_total"] == 2


def test_a_service_that_is_back_before_its_end_was_told_is_no_longer_gone() -> None:
    host = Host(LIMITS._replace(rows_max=1))
    host.pages = {7: 10, 8: 10}
    host.tick()
    host.name(7, service_id=1)
    host.name(8, service_id=2)
    host.pages = {}
    assert [row.service_id for row in host.tick().rows] == [1]
    host.pages = {9: 10}
    host.tick()
    host.name(9, service_id=2)
    rows = host.tick().rows
    assert [(row.service_id, row.is_gone) for row in rows] == [(2, False)]


def test_a_negative_counter_is_next_to_nothing(host: Host) -> None:
    host.pages = {7: -5}
    host.tick()
    host.name(7)
    assert service_row(host.tick()).private_bytes == 0


def test_time_must_advance(host: Host) -> None:
    host.tick()
    host.time_s -= 5
    with pytest.raises(HostError, match=r"tick at 5\.0 s"):
        host.tick()
    host.time_s += 1
    assert host.tick().counters["ticks_total"] == 2


@pytest.mark.parametrize("name", LIMITS._fields)
def test_a_bound_of_0_is_refused(name: str) -> None:
    nothing = (5.0, 0.0, 900.0, 14_400.0) if name == "bucket_s" else 0
    with pytest.raises(ConfigError):
        Aggregator(LIMITS._replace(**{name: nothing}))


def test_a_level_that_does_not_exist_is_refused(host: Host) -> None:
    host.pages = {7: 1}
    host.tick()
    with pytest.raises(HostError):
        host.aggregator.history(host.id_of(7), lib.MW_LEVELS)
    for unknown in (0, LIMITS.services_max, 2**40):
        with pytest.raises(ProcessGone):
            host.aggregator.history(unknown, 0)


def test_a_fit_has_the_fields_of_its_struct() -> None:
    declared = {name for name, _ in ffi.typeof("struct mw_fit").fields}
    assert set(Fit._fields) == declared - {"reserved"}


class Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
        )
    ]


def in_use_bytes() -> int:
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("this libc has no mallinfo2()")  # glibc 2.33
    libc.mallinfo2.restype = Mallinfo2
    info = libc.mallinfo2()
    if info.uordblks == 0:
        pytest.skip("another allocator is in place")  # under AddressSanitizer
    return int(info.uordblks + info.hblkhd)


def test_ten_thousand_aggregators_leave_no_memory_behind() -> None:
    limits = ffi.new("struct mw_limits *", {"bucket_ns": [1, 2, 3, 4], "screen_bytes": 1})
    for name in ("processes_max", "services_max", "rows_max", "unnamed_max", "oom_kills_max"):
        setattr(limits, name, 4)
    records = ffi.new("struct mw_process_record[]", [{"pid": pid} for pid in (1, 2, 3)])
    ret = ffi.new("const struct mw_table **")

    def live_and_die(count: int) -> None:
        for _ in range(count):
            aggregator = lib.mw_aggregator_create(limits)
            for tick in range(1, 11):
                records[0].anon_pages = tick
                lib.mw_aggregator_tick(aggregator, tick, -1, records, 3, ret)
                lib.mw_aggregator_name(aggregator, 1, 0, 1)
            assert ret[0].rows[0].flags & lib.MW_ROW_RISING
            lib.mw_aggregator_destroy(aggregator)

    live_and_die(100)
    before = in_use_bytes()
    live_and_die(10_000)
    assert in_use_bytes() - before < 100_000  # ten bytes an aggregator


def test_processes_that_come_and_go_leave_no_memory_behind() -> None:
    host = Host(LIMITS._replace(processes_max=512))

    def come_and_go(rounds: int) -> None:
        for round_ in range(rounds):
            host.pages = dict.fromkeys(range(1 + round_ % 2 * 200, 150 + round_ % 2 * 200), 1)
            host.tick()
            host.name(*host.pages)

    come_and_go(20)
    before = in_use_bytes()
    come_and_go(200)
    assert in_use_bytes() - before < 100_000  # three bytes a process


def test_all_services_are_told_though_no_row_shows_them() -> None:
    host = Host(LIMITS._replace(rows_max=1))
    host.pages = {7: 3, 8: 1, 9: 2, 10: 1}
    host.tick(), host.tick()
    host.name(7, 8, service_id=1)
    host.name(9, service_id=6)
    host.tick()
    first, second = host.aggregator.services()
    page = oracle.PAGE_BYTES
    assert (first.service_id, first.process_count, first.oldest_start_time_ns) == (1, 2, 1007)
    assert (first.private_bytes, first.anon_bytes, first.largest_bytes) == (
        4 * page,
        4 * page,
        3 * page,
    )
    assert (second.service_id, second.private_bytes) == (6, 2 * page)
    del host.pages[9]
    host.tick()
    assert [sums.service_id for sums in host.aggregator.services()] == [1]
