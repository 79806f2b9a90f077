"""Saved ticks: what is restored from them goes on as if nothing had happened."""

from __future__ import annotations

import random

import pytest

from mwtrace.aggregator import Aggregator, Limits, RecordBuffer, SavedTick, Table
from mwtrace.capi import ffi, lib
from mwtrace.errors import HostError
from mwtrace.model import ProcessId

LIMITS = Limits(
    bucket_s=(5.0, 20.0, 80.0, 320.0),
    screen_bytes=1 << 16,
    processes_max=64,
    services_max=16,
    rows_max=64,
)


class Twin:
    """A host of random processes under two aggregators: one lives on, one is made from saves."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.first = Aggregator(LIMITS)
        self.pages: dict[ProcessId, int] = {}
        self.services: dict[ProcessId, int] = {}
        self.time_s = 100.0
        self.next_pid = 1
        self.saved: list[SavedTick] = []

    def change(self) -> None:
        """Processes are born, grow, shrink, end and run other programs."""
        while len(self.pages) < 30 and self.random.random() < 0.5:
            process = ProcessId(self.next_pid, self.next_pid * 1000)
            self.pages[process] = self.random.randrange(1000, 2000)
            self.services[process] = self.random.randrange(1, 8)
            self.next_pid += 1
        for process in list(self.pages):
            if self.random.random() < 0.02:
                del self.pages[process]
            else:
                self.pages[process] += self.random.randrange(-5, 40)

    def tick(self, aggregator: Aggregator, mask: int = lib.MW_NO_ITERATOR) -> Table:
        records = RecordBuffer(64)
        for process, pages in self.pages.items():
            records.append(*process, 1, pages, 0, 0, 0, 0, 1, b"program")
        return aggregator.tick(self.time_s, mask, records)

    def name(self, aggregator: Aggregator, table: Table) -> None:
        for asked in table.unnamed:
            aggregator.name(asked.process, self.services[asked.process])

    def step(self) -> None:
        self.change()
        self.time_s += self.random.choice([5.0, 5.0, 5.0, 17.0])
        # Now and then the table is known to be cut short.
        mask = lib.MW_RECORDS_PARTIAL if self.random.random() < 0.05 else lib.MW_NO_ITERATOR
        self.name(self.first, self.tick(self.first, mask))
        if self.random.random() < 0.05 and self.pages:
            process = self.random.choice(list(self.pages))
            fields = {"kind": lib.MW_EVENT_EXEC, "pid": process.pid}
            event = ffi.new(
                "struct mw_lifecycle_event *", {**fields, "start_time_ns": process.start_time_ns}
            )
            lib.mw_aggregator_on_event(self.first.pointer, event, ffi.sizeof(event[0]))

    def save(self) -> None:
        saved = self.first.save()
        self.saved = [old for old in self.saved if old.tick >= saved.oldest_tick]
        self.saved.append(saved)

    def restored(self) -> Aggregator:
        second = Aggregator(LIMITS)
        for saved in self.saved:
            assert second.restore(saved.body, self.time_s + 1)
        return second


def histories(aggregator: Aggregator, subjects: list[ProcessId | int]) -> dict[object, object]:
    return {
        subject: [aggregator.history(subject, level) for level in range(lib.MW_LEVELS)]
        for subject in subjects
    }


@pytest.mark.parametrize("seed", range(8))
def test_a_restored_aggregator_goes_on_as_the_one_that_was_saved(seed: int):
    twin = Twin(seed)
    for _ in range(200):
        twin.step()
        twin.save()
    assert len(twin.saved) <= lib.MW_SAVED_TICKS + 1
    second = twin.restored()
    twin.time_s += 60  # nobody watched for a while
    tables = [twin.tick(aggregator) for aggregator in (twin.first, second)]
    for aggregator, table in zip((twin.first, second), tables):
        twin.name(aggregator, table)
    known: list[ProcessId | int] = [*twin.pages, *sorted(set(twin.services[p] for p in twin.pages))]
    assert histories(second, known) == histories(twin.first, known)
    for _ in range(30):
        twin.time_s += 5
        for process in twin.pages:
            twin.pages[process] += twin.random.randrange(20)
        first, again = twin.tick(twin.first), twin.tick(second)
        assert again.rows == first.rows
        assert any(row.is_rising for row in first.rows)


def test_a_save_that_was_lost_is_made_up_for_by_the_next():
    twin = Twin(11)
    for number in range(100):
        twin.step()
        saved = twin.first.save()
        if number % 3 == 0:
            twin.first.unsave(saved.tick)  # the disk was full
            continue
        twin.saved = [old for old in twin.saved if old.tick >= saved.oldest_tick]
        twin.saved.append(saved)
    second = twin.restored()
    twin.time_s += 5
    twin.tick(second)
    for process in twin.pages:
        samples = second.history(process, 0)
        whole = twin.first.history(process, 0)
        # Ticks that were not saved are holes; nothing else is missing or other.
        assert set(samples[:-1]) <= set(whole)
        assert len(samples) >= len(whole) * 0.6 - 1


def test_a_process_in_another_service_than_before_begins_anew():
    twin = Twin(3)
    for _ in range(20):
        twin.step()
        twin.save()
    process = next(p for p in twin.pages if len(twin.first.history(p, 0)) > 5)
    second = twin.restored()
    twin.time_s += 5
    table = twin.tick(second)
    assert process in [asked.process for asked in table.unnamed]
    other = twin.services[process] % 7 + 1
    second.name(process, other)
    assert second.history(process, 0) == []


def test_damage_of_any_byte_is_survived():
    twin = Twin(5)
    for _ in range(40):
        twin.step()
        twin.save()
    dice = random.Random(5)
    taken = 0
    for _ in range(60):
        second = Aggregator(LIMITS)
        for saved in twin.saved:
            body = bytearray(saved.body)
            for _ in range(dice.choice([0, 1, 1, 8])):
                body[dice.randrange(len(body))] = dice.randrange(256)
            if dice.random() < 0.1:
                body = body[: dice.randrange(len(body))]
            taken += second.restore(bytes(body), twin.time_s + 1)
        records = RecordBuffer(64)
        for process, pages in twin.pages.items():
            records.append(*process, 1, pages, 0, 0, 0, 0, 1, b"program")
        second.tick(twin.time_s + 5, lib.MW_NO_ITERATOR, records)
    assert taken > 200


@pytest.mark.parametrize(
    ("limits", "later_s"),
    [
        (LIMITS._replace(bucket_s=(5.0, 60.0, 900.0, 14_400.0)), 1.0),
        (LIMITS, -1.0),  # from the future: the clock began anew
    ],
)
def test_what_another_setting_or_clock_saved_is_refused(limits: Limits, later_s: float):
    twin = Twin(1)
    twin.step()
    twin.save()
    second = Aggregator(limits)
    assert not second.restore(twin.saved[0].body, twin.time_s + later_s)
    assert second.tick(twin.time_s + 1, records=RecordBuffer(1)).rows == []


def test_nothing_is_restored_into_a_watch_that_runs():
    twin = Twin(1)
    twin.step()
    twin.save()
    with pytest.raises(HostError):
        twin.first.restore(twin.saved[0].body, twin.time_s + 1)


def test_there_is_nothing_to_save_before_the_first_tick():
    with pytest.raises(HostError):
        Aggregator(LIMITS).save()
