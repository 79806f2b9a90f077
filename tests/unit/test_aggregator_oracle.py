"""cext/aggregator.c and its wrapper: random lives of processes, against the oracle.

The bounds are small, so that every one of them is hit and every counter moves.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import oracle
import pytest

from mwtrace.aggregator import Aggregator, Limits, RecordBuffer, Row
from mwtrace.capi import ffi, lib
from mwtrace.errors import HostError, ProcessGone
from mwtrace.model import ProcessId

LIMITS = Limits(
    bucket_s=(5.0, 20.0, 60.0, 300.0),
    screen_bytes=40 * oracle.PAGE_BYTES,
    processes_max=12,
    services_max=5,
    rows_max=9,
    unnamed_max=4,
    oom_kills_max=2,
)
SEEDS = [1, 2, 3, 4, 5, int(os.environ.get("MWTRACE_SEED") or random.randrange(2**32))]
KINDS = ("anon", "file", "shmem", "swap")
# Every counter that such a life moves; reader errors are test_records.py's.
MOVING = set(oracle.COUNTERS) - {"events_refused_total"}


class World:
    """A host with few pids, whose processes grow, shrink, move, run other programs and end."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.records: dict[int, dict] = {}
        self.last_start_ns = 1000

    def begin(self) -> None:
        self.last_start_ns += 10
        pid = self.chance.randrange(1, 19)
        self.records[pid] = {
            "pid": pid,
            "start_time_ns": self.last_start_ns,
            "cgroup_id": self.chance.randrange(1, 4),
            "total_vm_pages": self.chance.randrange(2**40),
            "parent_pid": self.chance.randrange(1, 19),
            "comm": b"program %d" % self.last_start_ns,
            **{f"{kind}_pages": self.chance.randrange(-40, 400) for kind in KINDS},
        }

    def live(self) -> None:
        for record in self.records.values():
            slope = record["pid"] % 4 * 3  # a quarter of them does not grow
            record["anon_pages"] += slope + self.chance.randrange(-2, 3)
            if self.chance.random() < 0.01:
                record["cgroup_id"] = self.chance.randrange(1, 4)
            if self.chance.random() < 0.01:
                record["anon_pages"] = self.chance.choice([-1000, 100, 2**33])
            if self.chance.random() < 0.05:
                record["anon_pages"] = self.chance.randrange(200)
        births = [0, 0, 0, 0, 0, 1, 1] if len(self.records) < 14 else [0] * 20 + [1]
        for _ in range(self.chance.choice(births)):
            self.begin()
        if self.records and self.chance.random() < 0.05:
            del self.records[self.chance.choice(list(self.records))]
        if self.chance.random() < 0.004:  # all of a service restart at once
            for pid in [pid for pid in self.records if pid % 3 == 0]:
                del self.records[pid]
        if self.chance.random() < 0.01:
            for _ in range(10):
                self.begin()

    def shown(self) -> list[dict]:
        """Return what an iterator shows: sometimes one twice, or something that is no record."""
        records = [dict(record) for record in self.records.values()]
        if records and self.chance.random() < 0.1:
            again = dict(self.chance.choice(records))
            again["anon_pages"] += 50
            again["cgroup_id"] = self.chance.randrange(1, 4)
            records.append(again)
        if records and self.chance.random() < 0.05:
            records.append({**self.chance.choice(records), "pid": 0})
        return records


class Pair:
    """The aggregator and its oracle, told the same."""

    def __init__(self) -> None:
        self.unnamed: list[ProcessId] = []
        self.c = Aggregator(LIMITS)
        self.oracle = oracle.Aggregator(LIMITS)

    def tick(self, time_s: float, records: list[dict], iterator_fd: int) -> list[Row]:
        buffer = RecordBuffer(64)
        for record in records:
            buffer.append(**record)
        table = self.c.tick(time_s, iterator_fd, buffer)
        is_broken = iterator_fd >= 0
        is_whole = iterator_fd != lib.MW_RECORDS_PARTIAL
        expected = self.oracle.tick(round(time_s * 1e9), records, is_broken, is_whole)
        self.unnamed = [unnamed.process for unnamed in table.unnamed]
        assert (table.iterator_errno != 0) == is_broken
        assert [u.process + u[1:] for u in table.unnamed] == [
            tuple(u[name] for name in ("pid", "start_time_ns", "parent_pid", "cgroup_id", "comm"))
            for u in expected["unnamed"]
        ]
        assert [
            {"process": i.process, "private_bytes": i.private_bytes, "service_id": i.service_id}
            for i in table.oom_kills
        ] == expected["oom_kills"]
        assert table.counters == expected["counters"]
        assert len(table.rows) == len(expected["rows"])
        for row, wanted in zip(table.rows, expected["rows"]):
            assert_row(row, wanted)
        return table.rows

    def event(self, kind: int, pid: int, start_time_ns: int) -> None:
        event = {"kind": kind, "pid": pid, "start_time_ns": start_time_ns}
        c_event = ffi.new("struct mw_lifecycle_event *", event)
        lib.mw_aggregator_on_event(self.c.pointer, c_event, ffi.sizeof(c_event[0]))
        self.oracle.on_event(event)

    def name(self, process: ProcessId, service_id: int) -> None:
        try:
            answer = "named" if self.c.name(process, service_id) else "refused"
        except ProcessGone:
            answer = "gone"
        assert answer == self.oracle.name(*process, service_id)

    def forget(self, service_id: int) -> None:
        try:
            self.c.forget_service(service_id)
            forgotten = True
        except HostError:
            forgotten = False
        assert forgotten == self.oracle.forget(service_id)

    def compare_histories(self) -> None:
        for level in oracle.LEVELS:
            for pid, process in self.oracle.processes.items():
                seen = self.c.history(ProcessId(pid, process.start_time_ns), level)
                assert seen == in_bytes(process.history.samples(level))
            for service_id, service in self.oracle.services.items():
                if not service.is_gone:
                    seen = self.c.history(service_id, level)
                    assert seen == in_bytes(service.history.samples(level))

    def compare_members(self, service_id: int, rows: list[Row]) -> None:
        fits = {row.process: row.levels for row in rows}
        processes = [p for p in self.oracle.processes.values() if p.service_id == service_id]
        processes.sort(key=lambda process: (-process.private_pages, process.pid))
        members = self.c.members(service_id, 4)
        assert len(members) == len(processes[:4])
        for row, process in zip(members, processes):
            wanted = self.oracle.process_row(process)
            assert row.levels == fits.get(row.process, ())
            assert_row(row._replace(levels=oracle.levels_of(wanted)), wanted)


def in_bytes(samples: list[tuple[int, int]]) -> list[tuple[float, int]]:
    return [(time_ns / 1e9, pages * oracle.PAGE_BYTES) for time_ns, pages in samples]


def assert_row(row: Row, wanted: dict) -> None:
    for name in set(Row._fields) - {"levels", "is_rising"}:
        assert getattr(row, name) == wanted[name], (name, row)
    assert row.is_rising == bool(wanted["rising_levels"])
    assert row.levels == oracle.levels_of(wanted)


@pytest.fixture
def broken_fd() -> Iterator[int]:
    """A descriptor that is no iterator's link."""
    fd = os.open("/dev/null", os.O_RDONLY)
    yield fd
    os.close(fd)


def live(pair: Pair, chance: random.Random, broken_fd: int) -> list[Row]:
    """Live for a while; return all rows that were shown."""
    world = World(chance)
    shown: list[Row] = []
    time_s = 100.0
    for _ in range(200):
        world.live()
        for _ in range(chance.choice([0, 0, 0, 0, 0, 0, 1, 2, 5])):
            known = [(p.pid, p.start_time_ns) for p in pair.oracle.processes.values()]
            kind = chance.choice([lib.MW_EVENT_EXEC, lib.MW_EVENT_EXIT, lib.MW_EVENT_OOM_VICTIM])
            pid, start_time_ns = chance.choice([*known, (17, 1)])
            if kind != lib.MW_EVENT_EXIT or chance.random() < 0.3:
                pair.event(kind, pid, start_time_ns)
                if kind == lib.MW_EVENT_EXIT:
                    world.records.pop(pid, None)
        time_s += chance.choice([4.5, 5.0, 5.0, 5.0, 5.5, 12.0])
        usual = [lib.MW_NO_ITERATOR] * 30
        fd = chance.choice([*usual, lib.MW_RECORDS_PARTIAL, broken_fd])
        rows = pair.tick(time_s, world.shown(), fd)
        shown += rows
        if chance.random() < 0.8:
            for process in pair.unnamed:
                is_usual = chance.random() < 0.9
                service_id = process.pid % 3 + 1 if is_usual else chance.randrange(1, 8)
                pair.name(process, service_id)
        elif chance.random() < 0.3:
            pair.name(ProcessId(17, 1), 1)
            pair.forget(chance.randrange(1, 5))
        else:
            pair.compare_members(chance.randrange(5), rows)
            pair.compare_histories()
    return shown


@pytest.mark.parametrize("seed", SEEDS)
def test_every_table_agrees_with_the_oracle(seed: int, broken_fd: int) -> None:
    print("MWTRACE_SEED", seed)
    pair = Pair()
    live(pair, random.Random(seed), broken_fd)


def test_these_lives_move_every_counter_and_show_every_kind_of_row(broken_fd: int) -> None:
    pair = Pair()
    shown = live(pair, random.Random(1), broken_fd)
    assert {name for name, count in pair.oracle.counters.items() if count} >= MOVING
    kinds = {(r.process is None, r.is_rising, r.is_top, r.is_gone, r.is_cleared) for r in shown}
    assert kinds >= {
        (True, True, True, False, False),
        (True, True, False, False, False),
        (True, False, True, False, False),
        (True, False, False, True, False),
        (False, True, False, False, False),
        (False, False, False, False, True),
    }
