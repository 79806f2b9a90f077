"""The PromQL of the dashboard and of the rules, as tests read it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from mwtrace.assets import read
from mwtrace.tell.families import FAMILIES, PREFIX

# What Grafana puts in their places.
VARIABLES = {
    "$job": ".*",
    "$instance": ".*",
    "$service": ".*",
    "$__rate_interval": "5m",
    "$__interval": "1m",
    "$__range": "6h",
}
METRICS = {PREFIX + family.name for family in FAMILIES}
_METRIC = re.compile(r"(?<![\w:])(mwtrace[:_][\w:]+)")


def dashboard() -> dict[str, Any]:
    return dict(json.loads(read("mwtrace.dashboard.json")))


def dashboard_expressions() -> list[str]:
    """Every expression of the dashboard, with its variables replaced."""
    told = dashboard()
    found = [target["expr"] for panel in told["panels"] for target in panel.get("targets", ())]
    found += [annotation["expr"] for annotation in told["annotations"]["list"]]
    return [_replaced(expression) for expression in found]


def _replaced(expression: str) -> str:
    for variable, text in sorted(VARIABLES.items(), reverse=True):
        expression = expression.replace(variable, text)
    assert "$" not in expression, expression
    return expression


def names_in(text: str) -> Iterator[str]:
    """Yield what looks like the name of a metric of ours, or of a rule's record."""
    yield from _METRIC.findall(text)


def records() -> set[str]:
    return set(re.findall(r"- record: (\S+)", read("mwtrace.rules.yml")))


def alerts() -> set[str]:
    return set(re.findall(r"- alert: (\S+)", read("mwtrace.rules.yml")))
