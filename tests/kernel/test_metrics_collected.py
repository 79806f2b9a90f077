"""A real mwtrace, scraped by a real Prometheus and read by a real node-exporter."""

from __future__ import annotations

import contextlib
import gzip
import os
import sys
import time
import urllib.error
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from expressions import dashboard_expressions, records
from servers import NodeExporter, Prometheus, fetch, free_port, run, wait_until
from target import Target
from watcher import Watcher

from mwtrace.assets import read
from mwtrace.tell import metrics
from mwtrace.tell.families import Sample
from mwtrace.tell.http import Address, Answer, HttpServer

pytestmark = pytest.mark.kernel

SERVICE = "mwtrace demo leak-objects"
FAST = ["--interval", "200ms"]
# Until a slope is told; verdicts take longer.
RISES_WITHIN_S = 90.0


@pytest.fixture
def undo() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def watch(tmp_path: Path, undo: contextlib.ExitStack) -> Callable[..., Watcher]:
    def start(*words: object, **options: object) -> Watcher:
        watcher = Watcher(tmp_path, *words, **options)
        undo.callback(watcher.stop)
        return watcher

    return start


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "textfile"
    path.mkdir()
    return path


def start(undo: contextlib.ExitStack, *command: object) -> Target:
    target = Target(list(map(os.fspath, command)))
    undo.callback(target.stop)
    assert target.line().startswith("ready")
    return target


def sleeper(undo: contextlib.ExitStack) -> Target:
    return start(undo, sys.executable, "-c", "print('ready', flush=True); input()")


@pytest.mark.story
def test_a_leak_is_seen_by_both_ways_and_every_expression_of_ours_has_an_answer(
    undo, watch, directory, tmp_path
):
    demo = start(undo, sys.executable, "-m", "mwtrace", "demo", "leak-objects", "--rate", "4M")
    address = f"127.0.0.1:{free_port()}"
    options = ["--web-listen-address", address, "--textfile-dir", directory]
    watcher = watch("--pid", demo.pid, "--interval", "1s", "--json", *options)
    page = f"http://{address}"
    wait_until(lambda: is_well(page), why=lambda: watcher.err)
    rules = tmp_path / "rules.yml"
    rules.write_text(read("mwtrace.rules.yml"))
    exporter = NodeExporter(tmp_path, directory)
    undo.callback(exporter.stop)
    node = f"127.0.0.1:{exporter.port}"
    prometheus = Prometheus(tmp_path, {"mwtrace": [address], "node": [node]}, [rules])
    undo.callback(prometheus.stop)

    slope = f'mwtrace_leak_slope_bytes_per_second{{service="{SERVICE}"}}'
    (found, *_) = prometheus.wait_for(f'{slope} and on () up{{job="mwtrace"}}', RISES_WITHIN_S)
    assert found[1] == pytest.approx(4 << 20, rel=0.25)
    prometheus.wait_for(f'{slope[:-1]},job="node"}}')
    prometheus.wait_for('node_textfile_mtime_seconds{file=~".*/mwtrace.prom"}')
    assert prometheus.query("node_textfile_scrape_error") == [
        ({"__name__": "node_textfile_scrape_error", "instance": node, "job": "node"}, 0.0)
    ]
    for expression in dashboard_expressions():
        prometheus.query(expression)  # fails with what Prometheus says of it
    always = [
        'sum(mwtrace_services{verdict="leaking"})',
        "mwtrace_forecast_seconds",
        "mwtrace:coverage:ratio",
        "mwtrace:replicas:count",
        "rate(mwtrace_cpu_seconds_total[5m])",
    ]
    for expression in always:
        assert prometheus.wait_for(expression), expression
    assert prometheus.query("mwtrace:coverage:ratio")[0][1] == 1.0
    evaluated = prometheus.api("rules")["groups"]
    told = [rule for group in evaluated for rule in group["rules"]]
    assert {rule["name"] for rule in told if rule["type"] == "recording"} == records()
    assert [rule.get("lastError") for rule in told if rule["health"] != "ok"] == []

    checked = run("promtool", "check", "metrics", stdin=fetch(f"{page}/metrics"))
    assert (checked.returncode, checked.stdout) == (0, "")
    profile_of(page, SERVICE)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetch(f"{page}/debug/pprof/heap?service=nosuch")

    assert watcher.end() == 0
    assert os.listdir(directory) == []
    wait_until(lambda: "mwtrace_" not in exporter.metrics())
    wait_until(lambda: prometheus.query('up{job="mwtrace"} == 0'))


def is_well(page: str) -> bool:
    try:
        return fetch(f"{page}/healthz").startswith("processes were looked at")
    except (OSError, urllib.error.HTTPError):
        return False


def profile_of(page: str, service: str) -> None:
    """What grows has a profile by then: its memory was rising for as long as its slope took."""
    wait_until(lambda: service in fetch(f"{page}/debug/pprof/heap").splitlines())
    query = urllib.parse.urlencode({"service": service})
    with urllib.request.urlopen(f"{page}/debug/pprof/heap?{query}", timeout=10) as answer:
        assert b"Session.__init__" in gzip.decompress(answer.read())


def test_an_exemplar_arrives_in_prometheus_with_its_incident(undo, tmp_path):
    samples = [Sample("leak_alerts_total", ("orders",), 2, "3f2a", time.time())]

    def page(request):
        kind = metrics.content_type(request.accept)
        return Answer(200, metrics.render(samples, content_type=kind), kind)

    server = HttpServer(Address("127.0.0.1", 0), {"/metrics": page})
    undo.callback(server.close)
    address = server.address[len("http://") :]
    prometheus = Prometheus(tmp_path, {"mwtrace": [address]})
    undo.callback(prometheus.stop)
    prometheus.wait_for("mwtrace_leak_alerts_total")
    around = {"start": time.time() - 600, "end": time.time() + 600}
    (series,) = prometheus.api("query_exemplars", query="mwtrace_leak_alerts_total", **around)
    assert series["exemplars"][0]["labels"] == {"incident": "3f2a"}


def test_once_leaves_a_file_that_a_node_exporter_reads(undo, watch, directory, tmp_path):
    target = sleeper(undo)
    exporter = NodeExporter(tmp_path, directory)
    undo.callback(exporter.stop)
    for _ in range(2):  # cron does it again
        watcher = watch("--once", "--pid", target.pid, "--textfile-dir", directory)
        assert watcher.wait() == 0, watcher.err
    assert os.listdir(directory) == ["mwtrace.prom"]
    page = exporter.metrics()
    assert "node_textfile_scrape_error 0" in page
    assert "mwtrace_processes_watched 1" in page
    assert "Metric read from" not in page  # every one has a help of its own


def test_hostile_names_are_whole_series_by_both_ways(
    undo, watch, directory, tmp_path, compile_target
):
    names = [b'a"b', b"a\nmwtrace_verdict 9", b"\xff\xfe", b"a\\b{}"]
    targets = []
    for name in names:
        program = os.fsencode(tmp_path) + b"/" + name
        os.link(compile_target("pages"), program)
        target = Target([program, name])
        undo.callback(target.stop)
        target.expect("ready")
        targets.append(target)
    address = f"127.0.0.1:{free_port()}"
    options = ["--web-listen-address", address, "--textfile-dir", directory, *FAST]
    watcher = watch("--pid", *[target.pid for target in targets], "--json", *options)
    exporter = NodeExporter(tmp_path, directory)
    undo.callback(exporter.stop)
    prometheus = Prometheus(
        tmp_path, {"mwtrace": [address], "node": [f"127.0.0.1:{exporter.port}"]}
    )
    undo.callback(prometheus.stop)
    for job in ("mwtrace", "node"):
        prometheus.wait_for(f'count(mwtrace_private_bytes{{job="{job}"}}) == {len(names)}')
    assert prometheus.query("mwtrace_verdict == 9") == []
    assert prometheus.query("node_textfile_scrape_error == 1") == []
    assert watcher.end() == 0


def test_two_daemons_at_one_directory_are_one_too_many(undo, watch, directory):
    target = sleeper(undo)
    first = watch("--pid", target.pid, "--json", "--textfile-dir", directory, *FAST)
    first.wait_for(lambda watcher: (directory / "mwtrace.prom").exists())
    second = watch("--pid", target.pid, "--json", "--textfile-dir", directory, *FAST)
    assert second.wait() == 2
    assert f"cannot write metrics to {directory}: another mwtrace writes there" in second.err
    assert (directory / "mwtrace.prom").exists()
    assert first.end() == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--textfile-dir", "/nonexistent"], "cannot write metrics to /nonexistent: No such file"),
        (["--web-listen-address", "nonsense"], "cannot listen on 'nonsense'"),
        (["--web-listen-address", "--once"], "--once ends before anybody could scrape it"),
        (["--metrics-prefix", "acme_"], "metrics for whom?"),
        (["--textfile-dir", ".", "--metrics-prefix", "a b_"], "cannot begin the names of metrics"),
    ],
)
def test_what_cannot_be_is_one_line_and_a_remedy(undo, watch, words, said):
    watcher = watch("--pid", sleeper(undo).pid, *words)
    assert watcher.wait() == 2
    first, remedy = watcher.err.splitlines()
    assert said in first
    assert remedy.startswith("  ")


def test_a_port_in_use_is_one_line_and_a_remedy(undo, watch):
    server = HttpServer(Address("127.0.0.1", 0), {})
    undo.callback(server.close)
    address = server.address[len("http://") :]
    watcher = watch("--pid", sleeper(undo).pid, "--web.listen-address", address)
    assert watcher.wait() == 2
    first, remedy = watcher.err.splitlines()
    assert first == f"mwtrace: cannot listen on {address}: Address already in use"


def test_services_beyond_the_bound_are_told_as_one(
    undo, watch, directory, tmp_path, compile_target
):
    pids = []
    for name in ("first", "second", "third"):
        os.link(compile_target("pages"), tmp_path / name)
        target = Target([os.fspath(tmp_path / name), name])
        undo.callback(target.stop)
        target.expect("ready")
        pids.append(target.pid)
    options = ["--textfile-dir", directory, "--metrics-services", 1, "--metrics-prefix", "acme_"]
    watcher = watch("--once", "--pid", *pids, *options)
    assert watcher.wait() == 0, watcher.err
    page = (directory / "mwtrace.prom").read_text()
    told = [line for line in page.splitlines() if line.startswith("acme_service_processes{")]
    assert len(told) == 2
    assert 'acme_service_processes{service="other"} 2.0' in told
