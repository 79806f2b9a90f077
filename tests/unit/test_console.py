"""The daemon's tellers: who is told what, and what they do when nobody listens."""

from __future__ import annotations

import io
import json
import os
import types
from collections.abc import Iterator

import pytest
from views import PLAIN
from watched import Watched, leak, steady

from mwtrace import console
from mwtrace.aggregator import Limits, OomKill, Table
from mwtrace.errors import ConfigError
from mwtrace.judge.trend import MIB
from mwtrace.model import ProcessId, Service, ServiceKind, SubjectId, Verdict
from mwtrace.tell.lines import summary
from mwtrace.tell.table import render

TABLE = Table(1.0, [], [], [], {}, 0)
ORDERS = Service("orders.service", ServiceKind.UNIT)
KILLED = OomKill(1000.0, ProcessId(7, 1), 0, 5 * MIB, 1, b"py\xff\x1b[2J\nthon")


def subject_of(name: str) -> SubjectId:
    return SubjectId(Service(name, ServiceKind.UNIT), None)


def daemon_over(host: Watched) -> types.SimpleNamespace:
    """What the tellers read of a daemon, over a made-up host."""
    return types.SimpleNamespace(
        verdicts=host.verdicts,
        aggregator=host.aggregator,
        history=lambda service_id: host.aggregator.history(service_id, 0),
        settings=types.SimpleNamespace(interval_s=5.0, pids=()),
        source=types.SimpleNamespace(words="BPF", blind=lambda: ()),
        counters={"ticks_total": 9, "process_count": 2, "service_count": 2},
        began_s=0.0,
        learning_s=50.0,
        changes_total=len(host.changes),
        has_ended=False,
    )


@pytest.fixture(scope="module")
def host() -> Watched:
    """One service leaks, one does not."""
    host = Watched()
    host.start(7, 1, leak(MIB))
    host.start(8, 2, steady(MIB))
    host.run(150)
    assert (host.verdict(1), host.verdict(2)) == (Verdict.LEAKING, Verdict.STEADY)
    return host


@pytest.mark.parametrize(
    ("patterns", "name", "is_told"),
    [
        ([], "anything", True),
        (["orders"], "orders.service", True),
        (["orders"], "orders", True),
        (["orders"], "orders2", False),
        (["ord*"], "orders.service", True),
        (["ORDERS"], "orders", False),
        (["a", "b"], "b", True),
        (["app [x]"], "app [x]", True),
    ],
)
def test_services_are_wanted_by_name_or_pattern(
    patterns: list[str], name: str, is_told: bool
) -> None:
    assert console.wanted(patterns)(subject_of(name)) is is_told


def told_lines(host: Watched, is_verbose: bool, services: tuple[str, ...] = ()) -> list[str]:
    file = io.StringIO()
    lines = console.Lines(file, console.wanted(services), is_verbose, unicode=True)
    for change in host.changes:
        lines.on_change(change)
    return file.getvalue().splitlines()


def test_only_alarms_are_told_and_all_changes_if_asked_for(host: Watched) -> None:
    first_words = [line.split(":")[0] for line in told_lines(host, is_verbose=False)]
    assert first_words == ["GROWING service-1 (pid 7)", "LEAKING service-1 (pid 7)"]
    assert len(told_lines(host, is_verbose=True)) == len(host.changes) > 4


def test_nothing_is_told_of_services_that_were_not_asked_for(host: Watched) -> None:
    assert told_lines(host, True, ("nosuch",)) == []
    assert all("service-2 " in line for line in told_lines(host, True, ("service-2",)))


def test_an_end_of_an_alarm_is_told() -> None:
    host = Watched()
    host.start(7, 1, lambda age_s: (20 + min(age_s, 120)) * MIB)
    host.run(400)
    assert told_lines(host, is_verbose=False)[-1].startswith("STEADY service-1 (pid 7): no longer ")


def test_json_lines_are_told_for_every_change(host: Watched) -> None:
    file = io.StringIO()
    teller = console.JsonLines(file, console.wanted(()))
    for change in host.changes:
        teller.on_change(change)
    teller.on_oom_kill(KILLED, ORDERS)
    *changes, killed = [json.loads(line) for line in file.getvalue().splitlines()]
    assert len(changes) == len(host.changes)
    assert (killed["event"], killed["service"], killed["private_bytes"]) == (
        "oom_kill",
        "orders.service",
        5 * MIB,
    )


def test_an_oom_kill_is_one_line_whatever_the_victim_called_itself() -> None:
    file = io.StringIO()
    console.Lines(file, console.wanted(()), False, True).on_oom_kill(KILLED, None)
    (line,) = file.getvalue().splitlines()
    assert line.isprintable()
    assert line.startswith(
        "OOM KILL a process of no known service (pid 7, py\\xff\\x1b[2J\\x0athon)"
    )


@pytest.fixture
def pipe() -> Iterator[tuple[int, io.TextIOWrapper]]:
    reader, writer = os.pipe()
    with open(writer, "w") as file:
        yield reader, file


@pytest.mark.parametrize("kind", ["lines", "json"])
def test_a_reader_that_went_away_is_noticed_without_any_news(
    kind: str, pipe: tuple[int, io.TextIOWrapper]
) -> None:
    reader, file = pipe
    all_of_them = console.wanted(())
    lines = console.Lines(file, all_of_them, False, True)
    teller = lines if kind == "lines" else console.JsonLines(file, all_of_them)
    teller.on_tick(TABLE)
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        teller.on_tick(TABLE)


def test_the_table_shows_alarms_first_with_their_past(host: Watched) -> None:
    shown = console.view(daemon_over(host), console.wanted(()))  # type: ignore[arg-type]
    assert [row.name for row in shown.rows] == ["service-1", "service-2"]
    assert len(shown.rows[0].history) > 20
    assert shown.rows[0].slope_bytes_per_second == pytest.approx(MIB, rel=0.05)
    assert shown.verdict_counts == {Verdict.LEAKING: 1, Verdict.STEADY: 1}
    lines = render(shown, 80, 24, PLAIN)
    assert lines[0].startswith("1 service leaking: service-1 grows +1.0 MiB/s")


def test_a_service_whose_end_is_not_told_yet_costs_its_past_and_not_the_table() -> None:
    """Services that end at once, more than a table has rows, once stopped the watch."""
    limits = Limits(processes_max=64, services_max=32, unnamed_max=64, rows_max=2)
    host = Watched(limits)
    for pid in (7, 8):
        host.start(pid, pid, steady(MIB))
    host.run(15)
    for pid in (9, 10):
        host.start(pid, pid, leak(4 * MIB))
    host.run(60)
    host.end(7)
    host.end(8)
    host.tick()
    shown = console.view(daemon_over(host), console.wanted(()))  # type: ignore[arg-type]
    assert {row.name: bool(row.history) for row in shown.rows}["service-7"] is False


def test_what_matches_nothing_is_said_with_what_there_is(host: Watched) -> None:
    daemon = daemon_over(host)
    assert console.unmatched(daemon, ("service-*",)) is None  # type: ignore[arg-type]
    assert console.unmatched(daemon, ()) is None  # type: ignore[arg-type]
    words = console.unmatched(daemon, ("a\nb", "c"))  # type: ignore[arg-type]
    assert words == ("no service here matches 'a\\x0ab', 'c'; there are: service-1, service-2")
    daemon.counters = {"ticks_total": 2}  # nobody has a name yet
    assert console.unmatched(daemon, ("nosuch",)) is None  # type: ignore[arg-type]


def test_a_process_of_which_nothing_is_seen_is_said(host: Watched) -> None:
    daemon = daemon_over(host)
    daemon.settings.pids = (4711,)
    words = console.unmatched(daemon, ())  # type: ignore[arg-type]
    assert words == "no memory is seen of pid 4711 through BPF"
    daemon.has_ended = True
    assert console.unmatched(daemon, ()) is None  # type: ignore[arg-type]


def test_it_is_said_once(host: Watched) -> None:
    daemon = daemon_over(host)
    file = io.StringIO()
    teller = console.Unmatched(file, daemon, ("nosuch",))  # type: ignore[arg-type]
    daemon.counters = {"ticks_total": 2}
    teller.on_tick(TABLE)
    assert file.getvalue() == ""
    daemon.counters = {"ticks_total": 3}
    teller.on_tick(TABLE)
    teller.on_tick(TABLE)
    assert file.getvalue().count("no service here matches 'nosuch'") == 1


def test_the_summary_names_the_leaking_ones(host: Watched) -> None:
    all_of_them = console.wanted(())
    totals = console.totals(daemon_over(host), all_of_them)  # type: ignore[arg-type]
    assert summary(totals)[0] == "1 service LEAKING: service-1"


def test_the_summary_of_a_watch_whose_processes_ended_says_how_they_ended() -> None:
    host = Watched()
    host.start(7, 1, leak(MIB))
    host.run(150)
    host.end(7)
    host.run(10)
    daemon = daemon_over(host)
    all_of_them = console.wanted(())
    assert not console.totals(daemon, all_of_them).leaking  # type: ignore[arg-type]
    daemon.has_ended = True
    totals = console.totals(daemon, all_of_them)  # type: ignore[arg-type]
    assert summary(totals)[0] == (
        "all processes that were asked for have ended; 1 service LEAKING: service-1"
    )


def test_a_recording_is_refused_where_there_is_a_file(tmp_path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="cannot record to"):
        console.Recorder(str(path))
    assert path.read_text() == "precious"
