"""Rules, dashboard and runbooks: read by the real promtool, and true to what is exported."""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
from pathlib import Path

import pytest
from expressions import (
    METRICS,
    alerts,
    dashboard,
    dashboard_expressions,
    names_in,
    records,
)
from servers import run

from mwtrace.assets import assets, read
from mwtrace.errors import ConfigError

ROOT = Path(__file__).parents[2]
RULES = ROOT / "mwtrace" / "assets" / "mwtrace.rules.yml"
RULE_TESTS = ROOT / "tests" / "data" / "mwtrace.rules.test.yml"
RULE_GROUPS = {"mwtrace_records", "mwtrace_leaks", "mwtrace_fleet", "mwtrace_itself"}


def test_promtool_takes_the_rules_as_they_are_and_with_urls(tmp_path):
    assert run("promtool", "check", "rules", RULES).returncode == 0
    linked = tmp_path / "rules.yml"
    linked.write_text(read("mwtrace.rules.yml", "https://wiki.example.org/runbooks/"))
    checked = run("promtool", "check", "rules", linked)
    assert checked.returncode == 0, checked.stdout
    text = linked.read_text()
    urls = set(re.findall(r"runbook_url: https://wiki.example.org/runbooks/(\w+).md", text))
    assert urls == alerts()
    assert "runbook: " not in text


def test_each_alert_fires_when_it_should_and_only_then():
    tested = run("promtool", "test", "rules", RULE_TESTS)
    assert tested.returncode == 0, tested.stdout


def test_each_alert_has_a_test_that_sees_it_fire():
    text = RULE_TESTS.read_text()
    fires = re.findall(r"alertname: (\w+)\n\s+exp_alerts:\n\s+- exp_labels", text)
    assert set(fires) == alerts()


def test_rules_and_dashboard_name_only_what_is_exported_or_recorded():
    known = METRICS | records() | RULE_GROUPS
    texts = [read("mwtrace.rules.yml").replace("mwtrace.rules.yml", ""), *dashboard_expressions()]
    for name in itertools.chain.from_iterable(map(names_in, texts)):
        assert name in known, name


def test_each_alert_has_a_runbook_and_each_runbook_an_alert():
    told = {asset.name for asset in assets() if asset.name.startswith("runbooks/")}
    assert told == {f"runbooks/{alert}.md" for alert in alerts()}
    text = read("mwtrace.rules.yml")
    assert set(re.findall(r"runbook: mwtrace assets show (\S+)", text)) == told
    for name in told:
        page = read(name)
        title, *rest = page.splitlines()
        assert title == f"# {name[len('runbooks/') : -len('.md')]}"
        headings = [line for line in rest if line.startswith("## ")]
        assert headings == [
            "## What it means",
            "## What to look at",
            "## What to do",
            "## When it ends",
        ]
        for metric in names_in(page):
            assert metric in METRICS, (name, metric)
        for link in re.findall(r"\]\(([^)#]+)", page):
            assert (ROOT / "docs" / "runbooks" / link).exists(), (name, link)


def test_the_dashboard_is_what_its_maker_makes(monkeypatch):
    monkeypatch.syspath_prepend(os.fspath(ROOT / "tests" / "tools"))
    monkeypatch.delitem(sys.modules, "make_dashboard", raising=False)
    import make_dashboard

    assert read("mwtrace.dashboard.json") == make_dashboard.text()


def test_panels_have_their_own_ids_and_places_and_the_chosen_data_source():
    told = dashboard()
    panels = told["panels"]
    assert told["id"] is None
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        cells = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]),
                range(place["y"], place["y"] + place["h"]),
            )
        )
        assert not cells & taken, panel["title"]
        taken |= cells
        targets = panel.get("targets", [])
        assert targets or panel["type"] == "row"
        assert len({target["refId"] for target in targets}) == len(targets)
        for source in [panel, *targets] if targets else []:
            assert source["datasource"]["uid"] == "${datasource}"
    names = [variable["name"] for variable in told["templating"]["list"]]
    assert names == ["datasource", "job", "instance", "service"]


def test_promtool_parses_every_expression_of_the_dashboard(tmp_path):
    expressions = dashboard_expressions()
    assert len(expressions) > 30
    rules = [{"record": f"r:{n}", "expr": text} for n, text in enumerate(expressions)]
    file = tmp_path / "expressions.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = run("promtool", "check", "rules", file)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", ["nope", "../errors.py", "runbooks/../mwtrace.rules.yml", ""])
def test_only_what_is_listed_is_shown(name):
    with pytest.raises(ConfigError, match="there is no"):
        read(name)


@pytest.mark.parametrize("base", ["wiki", "https://a b", "https://a\n- alert: x", "https://a\\1"])
def test_a_runbook_base_that_is_no_url_is_refused(base):
    with pytest.raises(ConfigError, match="not the URL of a folder"):
        read("mwtrace.rules.yml", base)
