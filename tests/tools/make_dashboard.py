"""Write mwtrace/assets/mwtrace.dashboard.json, in Grafana's classic model.

    python tests/tools/make_dashboard.py

The JSON is checked in, since that is what operators import; a test holds it equal to this. Only
what a panel says differs from panel to panel, so the rest of it is here once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

FILE = Path(__file__).parents[2] / "mwtrace" / "assets" / "mwtrace.dashboard.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
HOSTS = 'job=~"$job",instance=~"$instance"'
WHICH = f'{HOSTS},service=~"$service"'
VERDICTS = ["learning", "steady", "warming up", "growing", "leaking"]
COLORS = ["#8e8e8e", "green", "blue", "orange", "red"]
WIDTH = 24


class Layout:
    """Panels from left to right, top to bottom, each row as high as its first."""

    def __init__(self) -> None:
        self.panels: list[dict[str, Any]] = []
        self._x = self._y = self._height = 0

    def add(self, panel: dict[str, Any], width: int, height: int) -> None:
        if self._x + width > WIDTH:
            self._y += self._height
            self._x = 0
        if self._x == 0:
            self._height = height
        panel["id"] = len(self.panels) + 1
        panel["gridPos"] = {"x": self._x, "y": self._y, "w": width, "h": height}
        self._x += width
        self.panels.append(panel)

    def row(self, title: str) -> None:
        if self._x:
            self._y += self._height
            self._x = 0
        self.add({"type": "row", "title": title, "collapsed": False, "panels": []}, WIDTH, 1)


def target(expression: str, legend: str = "", ref: str = "A", **more: Any) -> dict[str, Any]:
    return {"datasource": SOURCE, "refId": ref, "expr": expression, "legendFormat": legend, **more}


def panel(
    type_: str,
    title: str,
    unit: str,
    *targets: dict[str, Any],
    description: str = "",
    options: Optional[dict[str, Any]] = None,
    **defaults: Any,
) -> dict[str, Any]:
    for place, asked in enumerate(targets):
        asked["refId"] = "ABCDEFGH"[place]
    return {
        "type": type_,
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "targets": list(targets),
        "options": options or {},
        "fieldConfig": {"defaults": {"unit": unit, **defaults}, "overrides": []},
    }


def lines(title: str, unit: str, *targets: dict[str, Any], **more: Any) -> dict[str, Any]:
    options = {
        "legend": {"displayMode": "table", "placement": "right", "calcs": ["lastNotNull"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    custom = {"fillOpacity": 5, "showPoints": "never", "spanNulls": False}
    return panel("timeseries", title, unit, *targets, options=options, custom=custom, **more)


def number(title: str, unit: str, expression: str, worst: float, **more: Any) -> dict[str, Any]:
    steps = [{"color": "green", "value": None}, {"color": "red", "value": worst}]
    return panel(
        "stat",
        title,
        unit,
        target(expression, instant=True),
        options={"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background"},
        thresholds={"mode": "absolute", "steps": steps},
        **more,
    )


def verdict_mappings() -> list[dict[str, Any]]:
    choices = {
        str(value): {"text": words, "color": color, "index": value}
        for value, (words, color) in enumerate(zip(VERDICTS, COLORS))
    }
    return [{"type": "value", "options": choices}]


def annotation(name: str, expression: str, title: str, color: str) -> dict[str, Any]:
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": True,
        "iconColor": color,
        "expr": expression,
        "titleFormat": title,
        "textFormat": "{{service}} on {{instance}}",
        "step": "60s",
    }


def variable(name: str, query: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "query",
        "name": name,
        "label": name.capitalize(),
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        **more,
    }


def top_table() -> dict[str, Any]:
    def asked(expression: str) -> dict[str, Any]:
        return target(f"max by (instance, service) ({expression})", format="table", instant=True)

    table = panel(
        "table",
        "Services, the worst first",
        "short",
        asked(f"mwtrace_verdict{{{WHICH}}}"),
        asked(f"mwtrace_private_bytes{{{WHICH}}}"),
        asked(f"mwtrace_leak_slope_bytes_per_second{{{WHICH}}}"),
        asked(f"mwtrace_forecast_seconds{{{WHICH}}}"),
        asked(f"mwtrace_service_processes{{{WHICH}}}"),
        options={"sortBy": [{"displayName": "Verdict", "desc": True}]},
    )
    names = ["Verdict", "Private", "Slope", "Limit in", "Processes"]
    table["transformations"] = [
        {"id": "merge", "options": {}},
        {
            "id": "organize",
            "options": {
                "excludeByName": {"Time": True},
                "renameByName": {
                    "instance": "Host",
                    "service": "Service",
                    **{f"Value #{'ABCDE'[place]}": name for place, name in enumerate(names)},
                },
            },
        },
    ]
    units = {"Private": "bytes", "Slope": "Bps", "Limit in": "s"}
    table["fieldConfig"]["overrides"] = [
        {
            "matcher": {"id": "byName", "options": "Verdict"},
            "properties": [
                {"id": "mappings", "value": verdict_mappings()},
                {"id": "custom.cellOptions", "value": {"type": "color-text"}},
            ],
        },
        *(
            {
                "matcher": {"id": "byName", "options": name},
                "properties": [{"id": "unit", "value": unit}],
            }
            for name, unit in units.items()
        ),
    ]
    return table


def panels() -> list[dict[str, Any]]:
    layout = Layout()
    layout.row("Now")
    leaking = f'sum(mwtrace_services{{{HOSTS},verdict="leaking"}})'
    growing = f'sum(mwtrace_services{{{HOSTS},verdict="growing"}})'
    layout.add(number("Leaking services", "short", leaking, 1), 4, 4)
    layout.add(number("Growing services", "short", growing, 1), 4, 4)
    nearest = f"min(mwtrace_forecast_seconds{{{WHICH}}} and mwtrace_verdict{{{WHICH}}} >= 3)"
    nearest_panel = number("Nearest limit", "s", nearest, 0, description="Of what grows or leaks.")
    nearest_panel["fieldConfig"]["defaults"]["thresholds"]["steps"] = [
        {"color": "red", "value": None},
        {"color": "orange", "value": 4 * 3600},
        {"color": "green", "value": 24 * 3600},
    ]
    nearest_panel["fieldConfig"]["defaults"]["noValue"] = "none in sight"
    layout.add(nearest_panel, 4, 4)
    kills = f"sum(increase(mwtrace_oom_kills_total{{{HOSTS}}}[$__range]))"
    layout.add(number("OOM kills in this time", "short", kills, 1), 4, 4)
    layout.add(number("Hosts", "short", f"count(mwtrace_build_info{{{HOSTS}}})", 10**9), 4, 4)
    oldest = f"time() - min(mwtrace_last_tick_timestamp_seconds{{{HOSTS}}})"
    layout.add(number("Oldest tick", "s", oldest, 600), 4, 4)
    layout.add(top_table(), 24, 8)

    layout.row("Memory")
    by_service = "{{service}} on {{instance}}"
    private = f"topk(10, mwtrace_private_bytes{{{WHICH}}})"
    layout.add(
        lines("Private memory, the ten largest", "bytes", target(private, by_service)), 24, 9
    )
    slope = f"topk(10, mwtrace_leak_slope_bytes_per_second{{{WHICH}}})"
    layout.add(
        lines("Slopes, the ten steepest", "Bps", target(slope, by_service + ": {{kind}}")), 12, 8
    )
    forecast = f"bottomk(10, mwtrace_forecast_seconds{{{WHICH}}})"
    layout.add(lines("Time to the limit", "s", target(forecast, by_service)), 12, 8)
    timeline = panel(
        "state-timeline",
        "Verdicts of what is or was suspected",
        "short",
        target(
            f"mwtrace_verdict{{{WHICH}}} and "
            f"max_over_time(mwtrace_verdict{{{WHICH}}}[$__range]) >= 2",
            by_service,
        ),
        options={"mergeValues": True, "rowHeight": 0.9, "legend": {"showLegend": False}},
        mappings=verdict_mappings(),
    )
    layout.add(timeline, 24, 8)
    kinds = [
        target(f"sum(mwtrace_{name}_bytes{{{WHICH}}})", name)
        for name in ("anon", "swap", "file", "shmem")
    ]
    layout.add(lines("What the chosen services hold", "bytes", *kinds), 12, 8)
    layout.add(
        lines(
            "Heap of suspects, as read last",
            "bytes",
            target(f"mwtrace_heap_in_use_bytes{{{WHICH}}}", by_service + ": {{domain}}"),
            target(f"mwtrace_allocator_retained_bytes{{{WHICH}}}", by_service + ": kept free"),
        ),
        12,
        8,
    )

    layout.row("Fleet")
    ratio = 'mwtrace:replicas_leaking:ratio{service=~"$service"} > 0'
    layout.add(
        lines(
            "Part of its hosts on which a service leaks",
            "percentunit",
            target(ratio, "{{service}}"),
        ),
        12,
        7,
    )
    grown = f"topk(10, mwtrace:private_growth:bytes_per_second_1h{{{WHICH}}})"
    layout.add(lines("Growth over an hour", "Bps", target(grown, by_service)), 12, 7)

    layout.row("What mwtrace costs and misses")
    host = "{{instance}}"
    cpu = f"rate(mwtrace_cpu_seconds_total{{{HOSTS}}}[$__rate_interval])"
    layout.add(lines("CPU, of one core", "percentunit", target(cpu, host)), 8, 7)
    memory = f"mwtrace_resident_memory_bytes{{{HOSTS}}}"
    layout.add(lines("Memory", "bytes", target(memory, host)), 8, 7)
    tick = f"mwtrace_tick_duration_seconds{{{HOSTS}}}"
    layout.add(lines("Duration of a tick", "s", target(tick, host)), 8, 7)
    coverage = f"mwtrace:coverage:ratio{{{HOSTS}}}"
    layout.add(lines("Processes watched, of all", "percentunit", target(coverage, host)), 8, 7)
    probes = f"rate(mwtrace_probe_seconds_total{{{HOSTS}}}[$__rate_interval])"
    layout.add(
        lines("Time that probes take, of a service's", "percentunit", target(probes, by_service)),
        8,
        7,
    )
    lost = [
        target(f"rate(mwtrace_{name}_total{{{HOSTS}}}[$__rate_interval])", f"{words} on {host}")
        for name, words in (
            ("ticks_failed", "ticks"),
            ("lifecycle_dropped", "lifecycle events"),
            ("processes_untracked", "process records"),
            ("readings_refused", "readings put off"),
        )
    ]
    layout.add(lines("Lost, per second", "short", *lost), 8, 7)
    return layout.panels


def dashboard() -> dict[str, Any]:
    since = "[$__interval]"
    return {
        "id": None,
        "uid": "mwtrace",
        "title": "mwtrace: memory leaks",
        "tags": ["memory", "mwtrace"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "",
        "annotations": {
            "list": [
                annotation(
                    "Leaks found",
                    f"increase(mwtrace_leak_alerts_total{{{WHICH}}}{since}) > 0",
                    "leaking",
                    "red",
                ),
                annotation(
                    "OOM kills",
                    f"increase(mwtrace_oom_kills_total{{{WHICH}}}{since}) > 0",
                    "OOM kill",
                    "purple",
                ),
                annotation(
                    "Restarts",
                    f"changes(mwtrace_oldest_process_start_time_seconds{{{WHICH}}}{since}) > 0",
                    "restarted",
                    "blue",
                ),
            ]
        },
        "templating": {
            "list": [
                {
                    "type": "datasource",
                    "name": "datasource",
                    "label": "Data source",
                    "query": "prometheus",
                    "refresh": 1,
                    "current": {},
                },
                variable("job", "label_values(mwtrace_build_info, job)"),
                variable("instance", 'label_values(mwtrace_build_info{job=~"$job"}, instance)'),
                variable("service", f"label_values(mwtrace_private_bytes{{{HOSTS}}}, service)"),
            ]
        },
        "panels": panels(),
    }


def text() -> str:
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
