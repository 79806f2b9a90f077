"""The catalogue, how it is rendered, and that the docs say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from servers import run

from mwtrace.tell import metrics
from mwtrace.tell.families import FAMILIES, PREFIX, Family, Sample, Type, told_counters
from mwtrace.tell.figures import label
from mwtrace.tell.losses import LOSSES, SEEN

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
HOSTILE = [
    'a"b',
    "a\\b",
    "a\nb",
    "a\r\nb",
    "\udcff",
    "x" * 10_240,
    "{}",
    "# HELP",
    "注文",
    "\u202e",
]
LABEL_NAMES = {
    "result",
    "service",
    "domain",
    "kind",
    "reason",
    "verdict",
    "version",
    "source",
    "code",
}


def one_of_each() -> list[Sample]:
    return [Sample(family.name, family.labels, 1.5) for family in FAMILIES]


def test_all_families_are_rendered_with_type_help_and_value():
    found = {family.name: family for family in parse_text(metrics.render(one_of_each()).decode())}
    for family in FAMILIES:
        name = PREFIX + family.name
        told = found[name[: -len("_total")] if family.type is Type.COUNTER else name]
        assert told.type == family.type.value
        assert told.documentation == family.help
        (sample,) = told.samples
        assert (sample.name, sample.value) == (name, 1.5)
        assert set(sample.labels) == set(family.labels)
    assert len(found) == len(FAMILIES)


def test_promtool_finds_nothing_to_say():
    checked = run("promtool", "check", "metrics", stdin=metrics.render(one_of_each()).decode())
    assert (checked.returncode, checked.stdout) == (0, "")


def test_openmetrics_has_an_exemplar_and_text_has_none():
    samples = [Sample("leak_alerts_total", ("orders",), 2, "3f2a", 1_700_000_000.5)]
    (family,) = parse_openmetrics(
        metrics.render(samples, content_type=metrics.OPENMETRICS_TYPE).decode()
    )
    assert family.samples[0].exemplar.labels == {"incident": "3f2a"}
    assert "3f2a" not in metrics.render(samples).decode()


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", metrics.TEXT_TYPE),
        ("*/*", metrics.TEXT_TYPE),
        ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", metrics.TEXT_TYPE),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", metrics.OPENMETRICS_TYPE),
        ("application/openmetrics-text; version=\udcff", metrics.OPENMETRICS_TYPE),
    ],
)
def test_a_scraper_gets_the_format_it_names(accept, expected):
    assert metrics.content_type(accept) == expected


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_no_service_name_breaks_the_page(name):
    samples = [Sample("private_bytes", (label(name),), 1), Sample("ticks_total", (), 7)]
    page = metrics.render(samples).decode()
    bytes_of, ticks = parse_text(page)
    assert [sample.labels["service"] for sample in bytes_of.samples] == [label(name)]
    assert ticks.samples[0].value == 7
    assert len(page) < 2000
    assert run("promtool", "check", "metrics", stdin=page).returncode == 0


def test_the_prefix_is_on_every_name():
    page = metrics.render(one_of_each(), "acme_").decode()
    assert all("acme_" in line for line in page.splitlines())
    assert PREFIX not in page


def test_labels_are_few_and_bounded():
    assert {label for family in FAMILIES for label in family.labels} == LABEL_NAMES


def test_every_counter_of_the_daemon_is_a_metric():
    told = {*told_counters(), "process_count", "service_count", "snapshots_taken_total"}
    assert told == SEEN | LOSSES.keys()


def documented() -> list[Family]:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", DOCS.read_text(), re.M)
    return [
        Family(name, Type(kind), tuple(re.findall(r"`(\w+)`", labels)), help)
        for name, kind, labels, help in rows
    ]


def test_the_docs_show_each_metric_as_it_is():
    assert documented() == [family._replace(name=PREFIX + family.name) for family in FAMILIES]
