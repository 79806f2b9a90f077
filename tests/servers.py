"""Real servers of the ecosystem, from the distribution's packages, on loopback, for one test.

Each is ready when its constructor returns, says what it logged when it does not start, and is ended
by ``stop()``, which whoever starts one calls on all paths. Every wait has a deadline.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

DEADLINE_S = 30.0
POLL_S = 0.1
_STARTS_MAX = 3  # somebody may take a free port before the server does


def program(name: str) -> str:
    """Return the path of a program that install.sh --dev installs; skip, or fail where all tests
    must run, if it is not there."""
    found = shutil.which(name)
    if found is None and os.environ.get("MWTRACE_KERNEL_TESTS") == "1":
        pytest.fail(f"{name} is not installed: run ./install.sh --dev", pytrace=False)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def environment() -> dict[str, str]:
    """Ours, without a sanitizer that is preloaded for Python."""
    return {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}


def run(name: str, *words: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run one of their tools, such as promtool or amtool, to its end."""
    return subprocess.run(
        [program(name), *map(str, words)],
        input=stdin,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=DEADLINE_S,
        env=environment(),
    )


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def fetch(url: str, headers: Mapping[str, str] = {}, timeout_s: float = 10.0) -> str:
    """Return the body of a page; raises urllib.error.HTTPError for what is no success."""
    request = urllib.request.Request(url, headers=dict(headers))
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        return str(answer.read().decode())


def wait_until(
    is_so: Callable[[], Any], within_s: float = DEADLINE_S, why: Callable[[], str] = str
) -> Any:
    """Return the first true answer; fail, with what why() says, if there is none in time."""
    deadline = time.monotonic() + within_s
    while not (answer := is_so()):
        assert time.monotonic() < deadline, f"{within_s} s passed: {why()}"
        time.sleep(POLL_S)
    return answer


class Server:
    """A program that serves HTTP on a loopback port; ``words`` are given the port."""

    def __init__(
        self, folder: Path, name: str, words: Callable[[int], Sequence[object]], ready: str
    ) -> None:
        self._log = folder / f"{name}.log"
        self._command = program(name)
        self._name = name
        self._words = words
        self._ready = ready
        for _ in range(_STARTS_MAX):
            self.port = free_port()
            self.start()
            if self.process.poll() is None:
                return
        raise AssertionError(f"{name} does not start: {self.log}")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def start(self) -> None:
        """Start it, again after ``stop()`` on the same port; it may have ended when we return."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [self._command, *map(str, self._words(self.port))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
            )
        deadline = time.monotonic() + DEADLINE_S
        while self.process.poll() is None:
            try:
                fetch(self.url + self._ready)
                return
            except (OSError, urllib.error.URLError):
                pass
            if time.monotonic() > deadline:
                self.stop(signal.SIGKILL)
                raise AssertionError(f"{self._name} is not ready: {self.log}")
            time.sleep(POLL_S)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait(DEADLINE_S)


class NodeExporter(Server):
    """The textfile collector over one directory, and nothing else."""

    def __init__(self, folder: Path, textfile_dir: Path) -> None:
        def words(port: int) -> list[str]:
            return [
                f"--web.listen-address=127.0.0.1:{port}",
                "--collector.disable-defaults",
                "--collector.textfile",
                f"--collector.textfile.directory={textfile_dir}",
            ]

        super().__init__(folder, "prometheus-node-exporter", words, "/")

    def metrics(self) -> str:
        return fetch(f"{self.url}/metrics")


class Alertmanager(Server):
    """An Alertmanager without peers; ``config`` is the text of its configuration file."""

    def __init__(self, folder: Path, config: str, *more: str) -> None:
        file = folder / "alertmanager.yml"
        file.write_text(config)

        def words(port: int) -> list[str]:
            return [
                f"--config.file={file}",
                f"--storage.path={folder / 'alertmanager'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
                *more,
            ]

        super().__init__(folder, "prometheus-alertmanager", words, "/-/ready")

    def alerts(self) -> list[dict[str, Any]]:
        """All alerts that it holds, as its API tells them."""
        return list(json.loads(fetch(f"{self.url}/api/v2/alerts")))


class Prometheus(Server):
    """A Prometheus that scrapes these addresses each second, by job."""

    def __init__(
        self,
        folder: Path,
        targets: Mapping[str, Sequence[str]],
        rule_files: Sequence[Path] = (),
        alertmanagers: Sequence[str] = (),
        interval_s: int = 1,
    ) -> None:
        config = {
            "global": {"scrape_interval": f"{interval_s}s", "evaluation_interval": "1s"},
            "rule_files": [str(file) for file in rule_files],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": list(addresses)}]}
                for job, addresses in targets.items()
            ],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": list(alertmanagers)}]}]},
        }
        file = folder / "prometheus.yml"
        file.write_text(json.dumps(config))  # JSON is YAML

        def words(port: int) -> list[str]:
            return [
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'prometheus'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--enable-feature=exemplar-storage",
                "--log.level=warn",
            ]

        super().__init__(folder, "prometheus", words, "/-/ready")

    def api(self, path: str, **parameters: object) -> Any:
        """Return ``data`` of an answer of the API; an error of the query fails the test."""
        query = urllib.parse.urlencode({name: str(value) for name, value in parameters.items()})
        try:
            answer = json.loads(fetch(f"{self.url}/api/v1/{path}?{query}"))
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}?{query}: {error.read().decode()}") from error
        return answer["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Evaluate an expression now; return labels and value of each series."""
        data = self.api("query", query=expression)
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(row["metric"], float(row["value"][1])) for row in data["result"]]

    def wait_for(self, expression: str, within_s: float = DEADLINE_S) -> list[tuple[Any, float]]:
        """Return what an expression says once it says something."""
        return list(
            wait_until(
                lambda: self.query(expression),
                within_s,
                lambda: f"nothing for {expression}; {self.log}",
            )
        )

    def alerts(self) -> list[dict[str, Any]]:
        """Pending and firing alerts of its rules."""
        return list(self.api("alerts")["alerts"])
