"""A fleet into one Prometheus: what N hosts' metrics cost who collects them.

Each host is one target of a real Prometheus. What it answers is what mwtrace itself says on this
host, with as many services as asked for: the lines of one calm service are repeated under other
names, one host in a hundred leaks, and values move from scrape to scrape. The targets are one HTTP
server in a process of its own; nothing leaves the loopback device.
"""

from __future__ import annotations

import argparse
import http.server
import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
VARIANTS = 7  # of each answer, so that values change and compress as real ones do
DEADLINE_S = 60.0
RULES_S = 75  # docs/fleet.rules.yml is computed once a minute
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SERVICE = re.compile(r'service="((?:[^"\\]|\\.)*)"')


def own_exposition() -> str:
    """What mwtrace says on this host, reading no process's memory."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["--all", "--watch-only", "--interval", "0.5s", "--textfile-dir", folder]
        watch = subprocess.Popen(
            [sys.executable, "-m", "mwtrace", *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            file = Path(folder) / "mwtrace.prom"
            deadline_s = time.monotonic() + DEADLINE_S
            text = ""
            # Services are named one look after they were seen first.
            while len(SERVICE.findall(text)) < 20:
                if watch.poll() is not None:
                    sys.exit(f"mwtrace ended: {watch.stderr.read().decode()}")  # type: ignore[union-attr]
                if time.monotonic() > deadline_s:
                    sys.exit("mwtrace wrote no services within a minute")
                time.sleep(0.1)
                text = file.read_text() if file.exists() else ""
            return text
        finally:
            watch.send_signal(signal.SIGINT)
            watch.wait(DEADLINE_S)


def answers(exposition: str, services: int) -> tuple[list[bytes], int, int]:
    """Variants of a host's answer; how many series it has in all, and per service."""
    lines = [line for line in exposition.splitlines() if line and not line.startswith("#")]
    own = [line for line in lines if not SERVICE.search(line)]
    by_service: dict[str, list[str]] = {}
    for line in lines:
        match = SERVICE.search(line)
        if match and match[1] != "other":
            by_service.setdefault(match[1], []).append(line)
    # The one with the most to tell.
    model = max(by_service.values(), key=len)
    found = []
    count = len(own) + services * len(model)
    for variant in range(VARIANTS):
        text = [*own]
        for number in range(services):
            for line in model:
                head, _, value = line.rpartition(" ")
                head = SERVICE.sub(f'service="service-{number:03}.service"', head)
                if "private_bytes" in head or "anon_bytes" in head:
                    value = str(int(float(value)) + 4096 * ((number * 7 + variant * 13) % 257))
                if number == 0 and "mwtrace_verdict" in head:
                    value = "VERDICT"
                text.append(f"{head} {value}")
        found.append(("\n".join(text) + "\n").encode())
    return found, count, len(model)


def serve(ready: Any, variants: list[bytes]) -> None:
    """Answer for all hosts until killed."""
    calls: dict[str, int] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            calls[self.path] = call = calls.get(self.path, -1) + 1
            host = int(self.path.rpartition("/")[2])
            body = variants[(host + call) % VARIANTS]
            body = body.replace(b"VERDICT", b"4" if host % 100 == 0 else b"1")
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 1024
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Prometheus ends first, with its connections open."""

    server = Server(("127.0.0.1", 0), Handler)
    ready.send(server.server_port)
    server.serve_forever()


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def configuration(folder: Path, targets: int, hosts: int, interval_s: int) -> Path:
    listed = [
        {
            "targets": [f"host-{host}"],
            "labels": {"release": f"r{host % 2}", "__metrics_path__": f"/host/{host}"},
        }
        for host in range(hosts)
    ]
    (folder / "targets.json").write_text(json.dumps(listed))
    shutil.copyfile(ROOT / "docs" / "fleet.rules.yml", folder / "fleet.rules.yml")
    settings = {
        "global": {"scrape_interval": f"{interval_s}s", "evaluation_interval": f"{interval_s}s"},
        "rule_files": ["fleet.rules.yml"],
        "scrape_configs": [
            {
                "job_name": "mwtrace",
                "file_sd_configs": [{"files": ["targets.json"]}],
                # The instance stays the host; who answers for all of them is the bench.
                "relabel_configs": [
                    {"source_labels": ["__address__"], "target_label": "instance"},
                    {"target_label": "__address__", "replacement": f"127.0.0.1:{targets}"},
                ],
            }
        ],
    }
    path = folder / "prometheus.yml"
    path.write_text(json.dumps(settings))  # JSON is YAML
    return path


class Prometheus:
    def __init__(self, program: str, settings: Path) -> None:
        self.port = free_port()
        self.data = settings.parent / "data"
        self.log = settings.parent / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    program,
                    f"--config.file={settings}",
                    f"--storage.tsdb.path={self.data}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=log,
                stderr=log,
            )
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            try:
                self._get("/-/ready")
                return
            except OSError:
                if time.monotonic() > deadline_s or self.process.poll() is not None:
                    sys.exit(f"Prometheus does not start: {self.log.read_text()[-2000:]}")
                time.sleep(0.1)

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as answer:
            return bytes(answer.read())

    def query(self, text: str) -> float:
        quoted = urllib.parse.quote(text)
        result = json.loads(self._get(f"/api/v1/query?query={quoted}"))["data"]["result"]
        return float(result[0]["value"][1]) if result else 0.0

    def own(self, name: str) -> float:
        """A metric of Prometheus itself."""
        found = re.search(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", self._get("/metrics").decode(), re.M)
        return float(found[1]) if found else 0.0

    def rss_bytes(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE_BYTES

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def disk_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.data.rglob("*") if path.is_file())

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_S)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--services", type=int, default=40, help="on each host")
    parser.add_argument("--interval", type=int, default=15, help="seconds between two scrapes")
    parser.add_argument("--rounds", type=int, default=5, help="scrapes of each host")
    parser.add_argument("--prometheus", default=shutil.which("prometheus") or "prometheus")
    parser.add_argument("--exposition", type=Path, help="what a host says, instead of asking ours")
    arguments = parser.parse_args()
    if arguments.interval * arguments.rounds < RULES_S:
        parser.error(f"the rules are computed after {RULES_S} s: more rounds")
    if not shutil.which(arguments.prometheus):
        parser.error("needs prometheus (Debian: prometheus)")
    exposition = arguments.exposition.read_text() if arguments.exposition else own_exposition()
    variants, series, per_service = answers(exposition, arguments.services)
    wire_bytes = len(variants[0])
    print(
        f"a host with {arguments.services} services: {series} series, "
        f"{per_service} of them per service, {wire_bytes / 1024:.0f} KiB a scrape"
    )

    ready, told = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(told, variants), daemon=True)
    server.start()
    with tempfile.TemporaryDirectory(prefix="mwtrace-fleet-") as folder:
        settings = configuration(Path(folder), ready.recv(), arguments.hosts, arguments.interval)
        prometheus = Prometheus(arguments.prometheus, settings)
        try:
            # All targets are asked once, spread over the first interval.
            time.sleep(arguments.interval * 1.5)
            cpu_s, began_s = prometheus.cpu_s(), time.monotonic()
            samples = prometheus.own("prometheus_tsdb_head_samples_appended_total")
            time.sleep(arguments.interval * (arguments.rounds - 1))
            elapsed_s = time.monotonic() - began_s
            samples = prometheus.own("prometheus_tsdb_head_samples_appended_total") - samples
            core = (prometheus.cpu_s() - cpu_s) / elapsed_s
            up = prometheus.query('count(up{job="mwtrace"} == 1)')
            head = prometheus.own("prometheus_tsdb_head_series")
            leaking = prometheus.query("sum(service_release:mwtrace_hosts_leaking:count)")
            began_s = time.monotonic()
            prometheus.query("topk(10, service_release:mwtrace_hosts_leaking:ratio)")
            query_s = time.monotonic() - began_s
            scrape_s = prometheus.query('quantile(0.99, scrape_duration_seconds{job="mwtrace"})')
            rss = prometheus.rss_bytes()
            rows = [
                ("hosts that answer", f"{up:.0f} of {arguments.hosts}"),
                ("series in Prometheus", f"{head:,.0f}"),
                ("samples per second", f"{samples / elapsed_s:,.0f}"),
                ("Prometheus, of a core", f"{core:.0%}"),
                (
                    "Prometheus, resident",
                    f"{rss / 2**20:,.0f} MiB ({rss / head:,.0f} bytes a series)",
                ),
                ("write-ahead log", f"{prometheus.disk_bytes() / 2**20:,.0f} MiB"),
                ("a scrape, 99th percentile", f"{scrape_s * 1000:.0f} ms"),
                ("hosts leaking, by the rules", f"{leaking:.0f} of {-(-arguments.hosts // 100)}"),
                ("the dashboard's query", f"{query_s * 1000:.0f} ms"),
            ]
            for title, value in rows:
                print(f"{title:30} {value}")
            is_right = up == arguments.hosts and leaking == -(-arguments.hosts // 100)
            print("ok" if is_right else "NOT AS IT SHOULD BE")
            return 0 if is_right else 1
        finally:
            prometheus.stop()
            server.kill()


if __name__ == "__main__":
    sys.exit(main())
