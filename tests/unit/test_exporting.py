"""The exporter beside a real daemon that watches one process by /proc: counters, bounds, health."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mwtrace import __version__
from mwtrace.aggregator import Limits
from mwtrace.daemon import Daemon, Settings
from mwtrace.errors import ConfigError
from mwtrace.escalation.worker import Spending
from mwtrace.exporting import Exporter
from mwtrace.host.procfs import Host
from mwtrace.model import (
    Judgement,
    Service,
    ServiceKind,
    Subject,
    SubjectId,
    Verdict,
    VerdictChange,
)
from mwtrace.outlets import Pages, checked_prefix
from mwtrace.probes.engine_libbpf import LibbpfEngine
from mwtrace.tell.families import BY_NAME, OTHER
from mwtrace.tell.http import Request

LIMITS = Limits(processes_max=4096, services_max=16, rows_max=16)
SUBJECT = Subject(SubjectId(Service("orders", ServiceKind.UNIT), None), *[0.0] * 3, *[0] * 7, ())


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    settings = Settings(
        interval_s=0.05,
        duration_s=0.2,
        pids=(os.getpid(),),
        allow_bpf=False,
        escalates=False,
        limits=LIMITS,
    )
    daemon = Daemon(settings, LibbpfEngine(), Host())
    yield daemon
    daemon.close()


def exporter_of(daemon: Daemon, services_max: int = 100) -> Exporter:
    return Exporter(daemon, lambda subject: True, services_max)


def told(exporter: Exporter, name: str) -> dict[tuple[str, ...], float]:
    samples = exporter.samples()
    assert samples is not None
    return {sample.labels: sample.value for sample in samples if sample.name == name}


def leak(name: str = "orders") -> VerdictChange:
    subject = replace(SUBJECT, id=SubjectId(Service(name, ServiceKind.UNIT), None))
    return VerdictChange(1.0, subject, Verdict.GROWING, Judgement(Verdict.LEAKING, 0.0))


def test_before_the_first_tick_there_is_nothing_and_it_is_not_well(daemon):
    exporter = exporter_of(daemon)
    pages = Pages(exporter)
    asked = Request({}, "")
    assert exporter.samples() is None
    assert pages.metrics(asked).status == pages.health(asked).status == 503


def test_snapshots_are_told_by_what_became_of_them(daemon):
    exporter = exporter_of(daemon)
    daemon.snapshots.outcomes["taken"] = 2
    daemon.run([exporter])
    assert told(exporter, "snapshots_total") == {("taken",): 2}


def test_a_table_is_finished_at_each_tick_and_every_sample_is_declared(daemon):
    exporter = exporter_of(daemon)
    tables = []
    exporter.listen(lambda: tables.append(exporter.samples()))
    daemon.run([exporter])
    assert len(tables) >= 3
    assert exporter.health().is_well
    samples = exporter.samples()
    assert samples is tables[-1]
    for sample in samples:
        assert len(sample.labels) == len(BY_NAME[sample.name].labels), sample
    assert len({(sample.name, sample.labels) for sample in samples}) == len(samples)
    (private,) = told(exporter, "private_bytes").values()
    assert private > 1 << 20
    assert told(exporter, "processes_watched") == {(): 1}
    assert told(exporter, "build_info").keys() == {(__version__, "proc")}
    assert told(exporter, "ticks_total")[()] >= 3


def test_a_page_is_rendered_once_per_table_and_format(daemon):
    exporter = exporter_of(daemon)
    daemon.run([exporter])
    pages = Pages(exporter)
    text, openmetrics = Request({}, "*/*"), Request({}, "application/openmetrics-text")
    assert pages.metrics(text) is pages.metrics(text)
    assert pages.metrics(openmetrics).body != pages.metrics(text).body
    before = pages.metrics(text)
    daemon.run([exporter])
    assert pages.metrics(text) is not before


def test_a_leak_is_counted_with_the_incident_it_is_told_under(daemon):
    exporter = exporter_of(daemon)
    exporter.on_change(leak())
    exporter.on_change(leak())
    exporter.on_change(replace(leak(), now=Judgement(Verdict.STEADY, 0.0)))
    daemon.run([exporter])
    assert told(exporter, "leak_alerts_total")[("orders",)] == 2
    (made_up,) = incidents(exporter)
    exporter.incident_of = lambda service: "3f2a" if service.name == "orders" else None
    daemon.run([exporter])
    assert incidents(exporter) == {"3f2a"} != {made_up}
    exporter.incident_of = lambda service: None  # it was resolved
    daemon.run([exporter])
    assert incidents(exporter) == {"3f2a"}


def incidents(exporter: Exporter) -> set[str]:
    return {sample.incident for sample in exporter.samples() or () if sample.incident}


def test_services_with_counters_are_bounded_and_none_is_lost(daemon):
    exporter = exporter_of(daemon, services_max=2)
    for name in ("a", "b", "c", "d", "a"):
        exporter.on_change(leak(name))
    daemon.run([exporter])
    alerts = told(exporter, "leak_alerts_total")
    assert (alerts[("a",)], alerts[("b",)], alerts[(OTHER,)]) == (2, 1, 2)
    assert sum(alerts.values()) == 5


def test_what_probes_took_is_told_by_service(daemon, monkeypatch):
    exporter = exporter_of(daemon)
    spent = {"orders": Spending(7, 0.5), "": Spending(1, 0.25)}
    monkeypatch.setattr(daemon.sites, "spent", lambda: spent)
    monkeypatch.setattr(daemon.sites, "failures", lambda: {"gone": 3})
    daemon.run([exporter])
    assert told(exporter, "probe_hits_total") == {("orders",): 7, (OTHER,): 1}
    assert told(exporter, "probe_seconds_total") == {("orders",): 0.5, (OTHER,): 0.25}
    assert told(exporter, "attach_failures_total") == {("gone",): 3}


def test_a_watch_that_stands_still_is_not_well(daemon, monkeypatch):
    exporter = exporter_of(daemon)
    daemon.run([exporter])
    monkeypatch.setattr(exporter, "_ticked_s", exporter._ticked_s - 3600)
    answer = Pages(exporter).health(Request({}, ""))
    assert answer.status == 503
    assert answer.body.startswith(b"no process was looked at for 36")


@pytest.mark.parametrize("prefix", ["", "a", "1_", "a-b_", "é_", "a_\n"])
def test_a_prefix_that_is_none_is_refused(prefix):
    with pytest.raises(ConfigError, match="cannot begin the names of metrics"):
        checked_prefix(prefix)
