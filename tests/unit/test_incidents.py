"""The book of incidents over made-up hosts: real aggregator, real judge, a clock that we turn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from incidents_made import BEGIN_UNIX_S, incident, post_mortem
from watched import BEGIN_S, Watched, leak, steady

from mwtrace.incidents import portable
from mwtrace.incidents.book import IncidentLimits, Incidents
from mwtrace.judge.trend import MIB
from mwtrace.model import (
    Finding,
    Happening,
    Incident,
    IncidentNews,
    IncidentType,
    Limit,
    Service,
    ServiceKind,
    Site,
    Verdict,
)
from mwtrace.tell.units import WallAnchor

OPENED, UPDATED, CONTINUES, RESOLVED = Happening
ORDERS = Service("service-1", ServiceKind.COMMAND)
GONE_S = 600.0
LIMITS = IncidentLimits()
SITE = Site("app.py:remember (line 31)", (), 0.94, "sampled growth")


class Book:
    """A host whose incidents are kept, tick by tick."""

    def __init__(self, limits: IncidentLimits = LIMITS) -> None:
        self.host = Watched(limit=Limit(1024 * MIB, 512 * MIB, "cgroup"))
        self.incidents = Incidents(limits)
        self.told: list[IncidentNews] = []

    @property
    def now(self) -> WallAnchor:
        return WallAnchor(self.host.time_s, BEGIN_UNIX_S + self.host.time_s - BEGIN_S)

    def run(self, seconds: float) -> None:
        until_s = self.host.time_s + seconds
        while self.host.time_s < until_s:
            table = self.host.tick()
            for row in table.rows:
                if row.is_gone and row.service_id in self.host.verdicts.standings:
                    assert self.host.verdicts.standings[row.service_id].is_gone
            self.look()

    def look(self) -> None:
        standings = self.host.verdicts.standings.values()
        self.told += self.incidents.update(standings, self.now)

    def news(self) -> list[Happening]:
        return [news.happening for news in self.told if news.happening is not CONTINUES]

    def open(self) -> Incident:
        (one,) = self.incidents.open()
        return one


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def leaking(book: Book) -> Iterator[Book]:
    book.host.start(7, 1, leak(MIB))
    book.host.start(8, 2, steady(30 * MIB))
    book.run(120)
    assert book.news() == [OPENED]
    return book


def test_a_leak_opens_one_incident_in_the_words_of_its_verdict(leaking: Book) -> None:
    one = leaking.open()
    assert one.service == ORDERS
    assert one.summary.startswith("LEAKING service-1 (pid 7): +1.00 MiB/s [")
    assert one.slope_bytes_per_second == pytest.approx(MIB, rel=0.05)
    assert one.since_unix_s == pytest.approx(BEGIN_UNIX_S, abs=30)
    assert one.limit_unix_s == pytest.approx(leaking.now.unix_s + 512, rel=0.05)
    assert one.id.startswith("20260528T2028")


def test_numbers_are_renewed_without_being_news(leaking: Book) -> None:
    before = leaking.open()
    leaking.told.clear()
    leaking.run(60)
    assert leaking.news() == []
    assert len(leaking.told) == 6  # each 10 s
    after = leaking.open()
    assert (after.id, after.opened_unix_s) == (before.id, before.opened_unix_s)
    assert after.private_bytes > before.private_bytes


def found(book: Book, kind: str = "python-objects", is_leak: bool = True) -> Finding:
    return Finding(
        book.host.time_s, book.host.process(7), kind, is_leak, MIB, 35.0, (), "why", "do", "T",
        holder="app.SESSIONS",
    )  # fmt: skip


def test_what_is_found_is_news_once_and_stays_known(leaking: Book) -> None:
    leaking.host.findings[leaking.host.process(7)] = found(leaking)
    leaking.run(30)
    assert leaking.news() == [OPENED, UPDATED]
    assert (leaking.open().kind, leaking.open().holder) == ("python-objects", "app.SESSIONS")
    leaking.host.end(7)
    leaking.host.findings.clear()
    leaking.host.start(17, 1, leak(MIB))
    leaking.run(150)
    assert leaking.open().kind == "python-objects"


def test_a_restart_of_a_service_that_still_leaks_is_the_same_incident(leaking: Book) -> None:
    before = leaking.open()
    leaking.host.end(7)
    leaking.host.start(17, 1, leak(MIB))
    leaking.run(150)
    assert leaking.host.verdict(1) is Verdict.LEAKING
    after = leaking.open()
    assert after.recurrences == 1
    assert (after.id, after.opened_unix_s) == (before.id, before.opened_unix_s)
    assert leaking.news() == [OPENED, UPDATED]


def test_a_restart_alone_resolves_nothing(leaking: Book) -> None:
    leaking.host.end(7)
    leaking.host.start(17, 1, steady(20 * MIB))
    leaking.run(30)
    assert leaking.host.verdict(1) is Verdict.LEARNING
    assert leaking.news() == [OPENED]


def test_a_service_that_is_restarted_healthy_is_resolved(leaking: Book) -> None:
    leaking.host.end(7)
    leaking.host.start(17, 1, steady(20 * MIB))
    leaking.run(180)
    assert leaking.news() == [OPENED, RESOLVED]
    over = leaking.told[-1].incident
    assert over.resolution == "it is steady"
    # Steady after 40 s, and for as long as it took to notice, which was about 90 s.
    assert 100 < over.resolved_unix_s - BEGIN_UNIX_S - 120 < 150
    assert leaking.incidents.open() == []


def test_how_long_it_must_be_steady_can_be_chosen() -> None:
    book = Book(IncidentLimits(resolve_after_s=0.0))
    book.host.start(7, 1, leak(MIB))
    book.run(120)
    book.host.end(7)
    book.host.start(17, 1, steady(20 * MIB))
    book.run(55)
    assert book.news() == [OPENED, RESOLVED]


def test_a_calm_that_was_broken_begins_anew() -> None:
    book = Book(IncidentLimits(resolve_after_s=120.0))
    book.host.start(7, 1, leak(MIB))
    book.run(120)
    for pid in (17, 37):
        book.host.end(pid - 10)
        book.host.start(pid, 1, steady(20 * MIB))
        book.run(110)  # steady for about a minute of it
        assert book.host.verdict(1) is Verdict.STEADY
        book.host.end(pid)
        book.host.start(pid + 10, 1, leak(MIB))
        book.run(120)
        assert book.host.verdict(1) is Verdict.LEAKING
    book.host.end(47)
    book.host.start(57, 1, steady(20 * MIB))
    book.run(110)
    assert book.news() == [OPENED, UPDATED, UPDATED]
    book.run(90)
    assert book.news() == [OPENED, UPDATED, UPDATED, RESOLVED]


def test_a_leak_that_comes_back_soon_is_the_same_incident(leaking: Book) -> None:
    first = leaking.open()
    leaking.host.end(7)
    leaking.host.start(17, 1, steady(20 * MIB))
    leaking.run(180)
    leaking.host.end(17)
    leaking.host.start(27, 1, leak(MIB))
    leaking.run(150)
    assert leaking.news() == [OPENED, RESOLVED, UPDATED]
    again = leaking.open()
    assert (again.id, again.resolved_unix_s, again.recurrences) == (first.id, None, 1)
    assert again.reopened_unix_s is not None


def test_a_leak_that_comes_back_late_is_another_incident(leaking: Book) -> None:
    first = leaking.open()
    leaking.host.end(7)
    leaking.host.start(17, 1, steady(20 * MIB))
    leaking.run(180 + 3600)
    leaking.host.end(17)
    leaking.host.start(27, 1, leak(MIB))
    leaking.run(150)
    assert leaking.news() == [OPENED, RESOLVED, OPENED]
    assert leaking.open().id != first.id


def test_a_service_that_does_not_run_any_more_is_resolved(leaking: Book) -> None:
    leaking.host.end(7)
    leaking.run(GONE_S - 10)
    assert leaking.news() == [OPENED]
    leaking.run(20)
    assert leaking.news() == [OPENED, RESOLVED]
    assert leaking.told[-1].incident.resolution == "its service does not run any more"


def test_what_turns_out_to_be_no_leak_is_resolved(leaking: Book) -> None:
    leaking.host.findings[leaking.host.process(7)] = found(leaking, "allocator-retained", False)
    leaking.run(10)
    assert leaking.news() == [OPENED, RESOLVED]
    assert leaking.told[-1].incident.resolution == "no leak: allocator-retained"


def test_beyond_the_bound_nobody_is_told_and_it_is_counted() -> None:
    book = Book(IncidentLimits(open_max=1))
    book.host.start(7, 1, leak(MIB))
    book.host.start(8, 2, leak(MIB))
    book.run(120)
    assert len(book.incidents.open()) == 1
    assert book.incidents.counters["incidents_untracked_total"] > 0


# -- OOM kills -----------------------------------------------------------------------------------


def test_kills_of_one_service_are_one_incident_until_there_are_no_more(book: Book) -> None:
    for _ in range(7):
        book.told += book.incidents.oom_kill(ORDERS, "OOM KILL", post_mortem(), book.now)
        book.run(60)
    assert book.news() == [OPENED] + 6 * [UPDATED]
    one = book.open()
    assert (one.type, one.recurrences, len(one.post_mortems)) == (IncidentType.OOM_KILL, 6, 5)
    book.run(850)
    assert book.news()[-1] is RESOLVED
    assert book.told[-1].incident.resolution == "no further OOM kill"


def test_a_kill_after_that_is_another_incident(book: Book) -> None:
    book.told += book.incidents.oom_kill(ORDERS, "OOM KILL", post_mortem(), book.now)
    book.run(910)
    book.told += book.incidents.oom_kill(ORDERS, "OOM KILL", post_mortem(), book.now)
    assert book.news() == [OPENED, RESOLVED, OPENED]
    assert len(book.open().post_mortems) == 1


# -- what survives the daemon --------------------------------------------------------------------


def test_what_was_dumped_goes_on_where_it_was(leaking: Book) -> None:
    before = leaking.open()
    dumped = json.loads(json.dumps(leaking.incidents.dump(), allow_nan=False))
    leaking.incidents = Incidents(IncidentLimits())
    leaking.incidents.load(dumped, leaking.now)
    assert leaking.open() == before
    leaking.run(30)
    assert leaking.open().id == before.id
    # That the new daemon sees it leak, too, is no news.
    assert leaking.news() == [OPENED]
    assert leaking.open().recurrences == 0


def test_of_two_states_of_one_incident_the_newer_counts(leaking: Book) -> None:
    one = leaking.open()
    older = replace(one, updated_unix_s=one.updated_unix_s - 60, kind="older")
    newer = replace(one, updated_unix_s=one.updated_unix_s + 60, kind="newer")
    incidents = Incidents(IncidentLimits())
    incidents.restore([newer, older], leaking.now)
    assert [known.kind for known in incidents.open()] == ["newer"]
    incidents.restore([older], leaking.now)
    assert [known.kind for known in incidents.open()] == ["newer"]


def test_one_whose_service_does_not_come_back_is_resolved_after_a_while(leaking: Book) -> None:
    incidents = Incidents(IncidentLimits())
    incidents.load(leaking.incidents.dump(), leaking.now)
    began_s = leaking.now.monotonic_s
    assert incidents.update([], WallAnchor(began_s + GONE_S - 1, 0.0)) == []
    (news,) = incidents.update([], WallAnchor(began_s + GONE_S, 0.0))
    assert news.happening is RESOLVED


def test_an_incident_is_the_same_after_a_way_through_json() -> None:
    for one in (incident(), incident(post_mortems=(post_mortem(), post_mortem(pid=2)))):
        assert portable.from_json(json.loads(json.dumps(portable.to_json(one)))) == one


@pytest.mark.parametrize(
    "change",
    [
        {"type": "other"},
        {"opened_unix_s": "yesterday"},
        {"opened_unix_s": True},
        {"opened_unix_s": float("nan")},
        {"private_bytes": 1.5},
        {"private_bytes": 1 << 63},
        {"summary": None},
        {"summary": "x" * 20_000},
        {"kind": "\ud800"},
        {"service": "orders"},
        {"service": {"name": "orders", "kind": "sort"}},
        {"post_mortems": "none"},
        {"post_mortems": [{}]},
        {"post_mortems": [[]] * 5_000},
    ],
)
def test_what_is_no_incident_is_left_out_and_counted(change: dict[str, Any], book: Book) -> None:
    row = {**portable.to_json(incident()), **change}
    assert portable.from_json(row) is None
    good = portable.to_json(incident(2))
    book.incidents.load({"incidents": [row, good, 7, None]}, book.now)
    assert book.open().id == incident(2).id
    assert book.incidents.counters["incidents_refused_total"] == 3


@pytest.mark.parametrize("dumped", [None, [], {}, {"incidents": 7}, "x"])
def test_what_is_no_dump_is_counted(dumped: Any, book: Book) -> None:
    book.incidents.load(dumped, book.now)
    assert book.incidents.open() == []
    assert book.incidents.counters["incidents_refused_total"] == 1
