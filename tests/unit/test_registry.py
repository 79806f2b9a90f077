"""Ids for services: given, waited for, taken back; on a made-up /proc with a real aggregator."""

from __future__ import annotations

import pytest

from mwtrace.aggregator import Aggregator, Limits, RecordBuffer, Table
from mwtrace.errors import ProcessUnreadable, Unreadable
from mwtrace.host.services import ServiceNames
from mwtrace.model import ProcessId
from mwtrace.registry import Registry

LIMITS = Limits(processes_max=64, services_max=8, unnamed_max=64)
KEEP_S = 600.0


class Scene:
    """Made-up processes, an aggregator that sees them, and the registry between the two."""

    def __init__(self, fake_proc, is_chosen=None, limits=LIMITS):
        self.proc = fake_proc
        self.aggregator = Aggregator(limits)
        self.names = ServiceNames(fake_proc.host)
        self.registry = Registry(self.aggregator, self.names, limits.services_max, is_chosen)
        self.time_s = 0.0
        self.forgotten = []
        self._pids = {}
        self._records = RecordBuffer(64)

    def start(self, pid, name, start_ticks=500):
        self.proc.add(pid, start_ticks=start_ticks, cgroup=f"0::/system.slice/{name}.service\n")
        self._pids[pid] = start_ticks

    def end(self, *pids):
        for pid in pids:
            self.proc.remove(pid)
            del self._pids[pid]

    def tick(self, seconds=5.0) -> Table:
        """What the daemon does in a tick."""
        self.time_s += seconds
        self._records.clear()
        for pid, ticks in self._pids.items():
            self._records.append(pid, ticks * 10_000_000, 0, 9, 0, 0, 0, 0, 1, b"x")
        table = self.aggregator.tick(self.time_s, records=self._records)
        gone = [row.service_id for row in table.rows if row.is_gone]
        self.forgotten += self.registry.forget(gone, self.time_s, KEEP_S)
        self.registry.name(table.unnamed)
        return table

    def ticks(self, count):
        for _ in range(count):
            table = self.tick()
        return table

    def services(self) -> dict[str, int]:
        """Process counts by the names of the services in this tick's table."""
        rows = [row for row in self.tick().rows if row.process is None and not row.is_gone]
        return {self.name_of(row.service_id): row.process_count for row in rows}

    def name_of(self, service_id):
        subject = self.registry.subject(service_id)
        return subject.service.name if subject else None


@pytest.fixture
def scene(fake_proc):
    return Scene(fake_proc)


def test_processes_of_one_name_are_one_service(scene):
    scene.start(10, "a")
    scene.start(11, "a")
    scene.start(12, "b")
    scene.ticks(2)
    assert scene.services() == {"a.service": 2, "b.service": 1}
    assert len(scene.registry) == 2


def test_an_id_is_taken_back_when_its_service_was_gone_for_long_and_not_before(scene):
    scene.start(10, "a")
    scene.ticks(3)
    scene.end(10)
    scene.tick()
    scene.tick(KEEP_S - 5)
    assert (len(scene.registry), scene.forgotten) == (1, [])
    scene.tick(5)
    assert (len(scene.registry), scene.forgotten) == (0, [1])


def test_a_service_that_restarts_keeps_its_id(scene):
    scene.start(10, "a")
    scene.ticks(3)
    scene.end(10)
    scene.tick()
    scene.start(11, "a")
    scene.ticks(3)
    scene.tick(KEEP_S)
    assert scene.forgotten == []
    assert scene.services() == {"a.service": 1}


def test_a_service_whose_new_process_is_named_in_the_tick_that_calls_it_gone_is_not(scene):
    """The watch ended with "cannot forget service 1: busy", ten minutes after such a restart."""
    scene.start(10, "a")
    scene.ticks(3)
    scene.start(11, "a")
    scene.tick()
    scene.end(10)
    table = scene.tick()
    assert [row.is_gone for row in table.rows if row.process is None] == [True]
    assert [asked.process.pid for asked in table.unnamed] == [11]
    scene.tick(KEEP_S)
    scene.tick(KEEP_S)
    assert scene.forgotten == []
    assert scene.services() == {"a.service": 1}


def test_ids_of_gone_services_are_taken_back_early_when_they_run_short(scene):
    """Whoever starts programs under ever new names must not blind us for the real ones."""
    for number in range(50):
        scene.start(100 + number, f"stranger-{number}")
        scene.ticks(2)
        scene.end(100 + number)
        scene.tick()
    scene.start(10, "orders")
    scene.ticks(2)
    assert "orders.service" in scene.services()
    assert scene.tick().counters["services_untracked_total"] == 0


def test_a_service_without_an_id_is_counted_once_and_gets_one_when_one_is_free(scene):
    for number in range(9):
        scene.start(100 + number, f"s{number}")
    scene.ticks(4)
    assert len(scene.services()) == LIMITS.services_max - 1
    assert scene.tick().counters["services_untracked_total"] == 2
    scene.end(100, 101)
    scene.ticks(3)
    services = scene.services()
    assert {"s7.service", "s8.service"} <= set(services)
    assert scene.tick().counters["services_untracked_total"] == 2


def test_processes_that_end_while_they_wait_are_waited_for_no_longer(scene):
    for number in range(20):
        scene.start(100 + number, f"s{number}")
    scene.ticks(3)
    scene.end(*range(100, 120))
    scene.ticks(15)
    scene.tick(KEEP_S)
    assert scene.registry._waiting == {}
    assert len(scene.registry) == 0


def test_who_could_not_be_named_for_want_of_descriptors_is_named_later(fake_proc, monkeypatch):
    """The aggregator asks once: a shortage at that moment cost a process its verdict for ever."""
    scene = Scene(fake_proc)
    for pid in (10, 11, 12):
        scene.start(pid, "a")
    with monkeypatch.context() as patch:

        def no_descriptors(pid):
            raise ProcessUnreadable("no more files", Unreadable.DESCRIPTORS)

        patch.setattr(fake_proc.host, "cgroup", no_descriptors)
        scene.ticks(4)
        assert len(scene.registry) == 0
    scene.tick()
    assert scene.services() == {"a.service": 3}


def test_only_chosen_processes_are_named_and_each_is_its_own_service(fake_proc):
    chosen = {ProcessId(10, 5_000_000_000), ProcessId(11, 5_000_000_000)}
    scene = Scene(fake_proc, is_chosen=chosen.__contains__)
    for pid in (10, 11, 12):
        scene.start(pid, "a")
    scene.ticks(3)
    subjects = [scene.registry.subject(service_id) for service_id in (1, 2)]
    assert {subject.process for subject in subjects} == chosen
    assert len(scene.registry) == 2
    # The pid of a chosen one that another process gets is not chosen.
    scene.end(10)
    scene.tick()
    scene.start(10, "a", start_ticks=900)
    scene.ticks(3)
    assert len(scene.registry) == 2


def test_a_process_that_changes_its_cgroup_changes_its_service(scene):
    scene.start(10, "a")
    scene.ticks(3)
    scene.proc.add(10, start_ticks=500, cgroup="0::/system.slice/b.service\n")
    scene._records.clear()
    scene._records.append(10, 5_000_000_000, 77, 9, 0, 0, 0, 0, 1, b"x")
    scene.time_s += 5
    table = scene.aggregator.tick(scene.time_s, records=scene._records)
    scene.registry.name(table.unnamed)
    assert [scene.name_of(i) for i in (1, 2)] == ["a.service", "b.service"]
