"""What the watch says of real leaks and of healthy programs that look like leaks, beside the truth.

    corpus.py --corpus DIR [--batch 6] [--minutes 6] [case ...]

DIR holds run_case.py and cases/NAME/case.toml. A batch of programs runs at once under one
`mwtrace --json --pid ...` with nothing but the defaults; each gets a line with what was said of it
(after how long, kind, holder, site) and one with what is known. At the end `mwtrace explain` reads
each: whether its parts add up. Needs root; exit status 1 if a healthy program was called leaking.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

try:
    import tomllib
except ImportError:
    import tomli as tomllib

MWTRACE = [sys.executable, "-m", "mwtrace"]
START_DEADLINE_S = 600.0  # a case may build its environment first


class Case:
    """One running program of the corpus; ``stop()`` ends it and its runner."""

    def __init__(self, corpus: Path, name: str, seconds: float) -> None:
        self.name = name
        self.truth = tomllib.loads((corpus / "cases" / name / "case.toml").read_text())
        self.runner = subprocess.Popen(
            [sys.executable, str(corpus / "run_case.py"), name, "--seconds", f"{seconds:.0f}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.runner.stdout is not None
        # The heading, and then a line a second for as long as the program runs.
        started = self.runner.stdout.readline() and self.runner.stdout.readline()
        children = Path(f"/proc/{self.runner.pid}/task/{self.runner.pid}/children")
        self.pid = int(children.read_text().split()[0]) if started else 0
        self.began_s = time.time()
        self.leaking_s: Optional[float] = None
        self.worst = "learning"
        self.last: dict[str, Any] = {}
        self.finding: dict[str, Any] = {}
        self.sites: list[dict[str, Any]] = []

    @property
    def is_leak(self) -> bool:
        return bool(self.truth["kind"] == "leak")

    def hear(self, told: dict[str, Any]) -> None:
        if told["event"] == "verdict":
            self.last = told
            order = ["learning", "steady", "warming_up", "growing", "leaking"]
            self.worst = max(self.worst, told["verdict"], key=order.index)
            if told["verdict"] == "leaking" and self.leaking_s is None:
                self.leaking_s = time.time() - self.began_s
        self.finding = told.get("finding") or (told if told["event"] == "finding" else self.finding)
        self.sites = told.get("sites") or self.sites

    def said(self) -> str:
        words = [f"leaking after {self.leaking_s:.0f} s" if self.leaking_s else self.worst]
        slope = self.last.get("slope_bytes_per_second")
        if slope:
            words.append(f"{slope / 1e3:.0f} kB/s")
        if self.finding:
            words.append(f"{self.finding['kind']} (leak: {self.finding['is_leak']})")
            if self.finding.get("type"):
                words.append(f"{self.finding['type']} held by {self.finding.get('holder')}")
        if self.sites:
            site = self.sites[0]
            words.append(f"{100 * site['share']:.0f}% at {site['place']} by {site['known_by']}")
        return ", ".join(words)

    def known(self) -> str:
        truth = self.truth
        words = [truth["kind"], f"{truth.get('growth_bytes_per_second', 0) / 1e3:.0f} kB/s"]
        words += [f"{at['percent']}% at {at['frame']}" for at in truth.get("allocated_at", [])[:2]]
        words += truth.get("native_frames", [])[:2]
        return ", ".join(words)

    def parts(self) -> str:
        """Return how the parts of its memory add up, as ``mwtrace explain`` sees it."""
        done = subprocess.run(
            [*MWTRACE, "explain", str(self.pid), "--json", "--no-holders"],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            return done.stderr.strip().splitlines()[0] if done.stderr.strip() else "no answer"
        told = json.loads(done.stdout)
        kernel = told["kernel"]
        private = kernel["anon_bytes"] + kernel["swap_bytes"]
        outside = ("file", "shmem", "page tables")
        parts = {part["kind"]: part["size_bytes"] for part in told["parts"]}
        inside = sum(size for kind, size in parts.items() if kind not in outside)
        unaccounted = parts.get("unaccounted", 0)
        return (
            f"parts {100 * (inside / private - 1):+.2f}% of {private / 2**20:.0f} MiB, "
            f"unaccounted {100 * unaccounted / private:.1f}%"
        )

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.pid and self.runner.poll() is None:  # its child, for as long as it lives
                os.kill(self.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.runner.wait(10)
        self.runner.kill()
        self.runner.wait()


@contextlib.contextmanager
def running(corpus: Path, names: list[str], seconds: float) -> Iterator[list[Case]]:
    cases: list[Case] = []
    try:
        for name in names:
            cases.append(Case(corpus, name, seconds))
        yield cases
    finally:
        for case in cases:
            case.stop()


def watch(cases: list[Case], seconds: float) -> None:
    by_pid = {case.pid: case for case in cases}
    watcher = subprocess.Popen(
        [*MWTRACE, "--json", "--duration", f"{seconds:.0f}s", "--pid", *map(str, by_pid)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert watcher.stdout is not None
    for line in watcher.stdout:
        told = json.loads(line)
        if told.get("pid") in by_pid:
            by_pid[told["pid"]].hear(told)
    watcher.wait()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--minutes", type=float, default=6.0)
    asked = parser.parse_args()
    names = asked.cases or sorted(p.parent.name for p in asked.corpus.glob("cases/*/case.toml"))
    found = missed = false_alarms = healthy = 0
    for first in range(0, len(names), asked.batch):
        batch = names[first : first + asked.batch]
        with running(asked.corpus, batch, 60 * asked.minutes + START_DEADLINE_S) as cases:
            started = [case for case in cases if case.pid]
            for case in cases:
                if not case.pid:
                    print(f"{case.name}: did not start", flush=True)
            watch(started, 60 * asked.minutes)
            for case in started:
                was_called = case.leaking_s is not None
                found += was_called and case.is_leak
                missed += case.is_leak and not was_called
                false_alarms += was_called and not case.is_leak
                healthy += not case.is_leak
                print(f"{case.name}: {case.said()}\n    known: {case.known()}", flush=True)
                print(f"    {case.parts()}", flush=True)
    print(
        f"corpus    {found} of {found + missed} leaks called leaking; "
        f"{false_alarms} of {healthy} healthy programs called leaking"
    )
    return bool(false_alarms)


if __name__ == "__main__":
    sys.exit(main())
