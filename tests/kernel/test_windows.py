"""Windows end in time, at their price or with their process, and a killed daemon leaves nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from hit_counter import HitCounter, byte_at, placed_points
from target import DEADLINE_S

from mwtrace.probes.attach import attach_kind_of_host
from mwtrace.probes.calibration import calibrate
from mwtrace.probes.placement import EMULATED, Kind
from mwtrace.probes.windows import WindowEnd, WindowResult, Windows

pytestmark = pytest.mark.kernel
# Not importorskip: beside a sanitizer, under which these are only collected, importing it ends us.
if find_spec("capstone") is None:
    pytest.skip("the extra 'trace' is not installed", allow_module_level=True)

PRIME = 1009
BREAKPOINT = b"\xcc"
KILLS = 12
LATE_S = 0.1  # what the design allows an emergency stop to take


@pytest.fixture
def counter(tmp_path):
    made = HitCounter(tmp_path, attach_kind_of_host().kind)
    yield made
    made.close()


@pytest.fixture
def windows(counter):
    made = Windows(counter.layout(), {"hits_total": 1000, "returns_total": 500})
    yield made
    made.end()


def ended(windows: Windows, window: int) -> WindowResult:
    deadline = time.monotonic() + DEADLINE_S
    while windows.look(window).end is WindowEnd.OPEN:
        assert time.monotonic() < deadline, "the window stays open"
        time.sleep(0.005)
    return windows.close(window)


def open_window(counter, windows, target, duration_s, cost_max_s):
    counter.allow(target.pid)
    points = placed_points(target.pid, ("malloc", "free"))
    report = counter.attach(target.pid, points)
    assert not report.refused
    return points, windows.open(target.pid, 0, duration_s, cost_max_s, report.links)


def test_a_window_ends_at_its_time_and_has_counted_exactly(counter, windows, start_target):
    target = start_target("allocates")
    points, window = open_window(counter, windows, target, 1.0, 60.0)
    target.ask(f"malloc {PRIME}")
    target.ask(f"free {PRIME}")
    result = ended(windows, window)
    assert result.end is WindowEnd.TIME
    assert 1.0 <= result.duration_s < 1.0 + LATE_S
    assert result.counts["hits_total"] == 2 * PRIME
    assert result.counts["returns_total"] == PRIME
    assert result.cost_s == pytest.approx(2 * PRIME * 1e-6 + PRIME * 0.5e-6)
    assert BREAKPOINT not in [byte_at(target.pid, point) for point in points]


def test_a_window_that_costs_too_much_is_stopped_within_100_ms(counter, windows, start_target):
    target = start_target("allocates")
    points, window = open_window(counter, windows, target, 60.0, 0.02)
    opened = time.monotonic()
    target.tell("churn 2000")
    result = ended(windows, window)
    assert time.monotonic() - opened < 2.0
    assert result.end is WindowEnd.PRICE
    # 20,000 hits at a microsecond each take a churning target about 20 ms.
    assert result.duration_s < 0.05 + LATE_S
    assert int(target.line()) > 0
    seen = [counter.seen(i) for i in range(len(points))]
    target.ask(f"malloc {PRIME}")
    assert [counter.seen(i) for i in range(len(points))] == seen
    assert BREAKPOINT not in [byte_at(target.pid, point) for point in points]


def test_a_window_ends_with_its_process(counter, windows, start_target):
    target = start_target("allocates")
    _, window = open_window(counter, windows, target, 60.0, 60.0)
    target.stop()
    result = ended(windows, window)
    assert result.end is WindowEnd.GONE
    assert result.duration_s < 30.0


def test_a_window_that_is_asked_to_ends_at_once(counter, windows, start_target):
    target = start_target("allocates")
    points, window = open_window(counter, windows, target, 60.0, 60.0)
    target.ask(f"malloc {PRIME}")
    result = windows.close(window)
    assert result.end is WindowEnd.ASKED
    assert result.counts["hits_total"] == PRIME
    assert BREAKPOINT not in [byte_at(target.pid, point) for point in points]


def test_the_end_of_the_governor_ends_all_windows(counter, start_target):
    windows = Windows(counter.layout(), {})
    targets = [start_target("allocates") for _ in range(3)]
    opened = [open_window(counter, windows, target, 60.0, 60.0) for target in targets]
    windows.end()
    for target, (points, _) in zip(targets, opened):
        assert BREAKPOINT not in [byte_at(target.pid, point) for point in points]
        target.ask(f"malloc {PRIME}")


DAEMON = """
import pathlib, sys
sys.path[:0] = [sys.argv[2]]
from hit_counter import HitCounter, placed_points
from mwtrace.probes.attach import attach_kind_of_host
from mwtrace.probes.windows import Windows
pid = int(sys.argv[1])
counter = HitCounter(pathlib.Path(sys.argv[3]), attach_kind_of_host().kind)
windows = Windows(counter.layout(), {"hits_total": 1000})
points = placed_points(pid, ("malloc", "free", "calloc", "realloc"))
print("ready", flush=True)
while True:
    counter.allow(pid)
    report = counter.attach(pid, points)
    window = windows.open(pid, 0, 0.01, 60.0, report.links)
    print("window", flush=True)
    windows.close(window)
"""


def test_a_daemon_killed_at_any_moment_leaves_the_target_healthy(counter, start_target, tmp_path):
    seed = int(os.environ.get("MWTRACE_SEED", "20260823"))
    chance = random.Random(seed)
    target = start_target("allocates")
    points = placed_points(target.pid, ("malloc", "free", "calloc", "realloc"))
    before = [byte_at(target.pid, point) for point in points]
    target.tell("churn 300")
    speed = int(target.line())
    for _ in range(KILLS):
        tests = str(Path(__file__).parents[1])
        command = [sys.executable, "-c", DAEMON, str(target.pid), tests, str(tmp_path)]
        daemon = subprocess.Popen(command, stdout=subprocess.PIPE)
        try:
            assert daemon.stdout
            assert daemon.stdout.readline() == b"ready\n"
            assert daemon.stdout.readline() == b"window\n"
            target.tell("churn 200")
            # A moment is what is being chosen here, not waited for.
            time.sleep(chance.random() * 0.2)
        finally:
            daemon.send_signal(signal.SIGKILL)
            daemon.wait(DEADLINE_S)
            daemon.stdout.close()
        assert int(target.line()) > 0
        deadline = time.monotonic() + DEADLINE_S
        while [byte_at(target.pid, point) for point in points] != before:
            assert time.monotonic() < deadline, f"probes are left (seed {seed})"
            time.sleep(0.005)
    target.ask(f"malloc {PRIME}")
    target.ask(f"free {PRIME}")
    target.tell("churn 300")
    # Single-stepped it would be a hundred times slower; other load on this machine halves it.
    assert int(target.line()) > speed / 4


def test_what_a_hit_costs_is_measured():
    costs = calibrate(attach_kind_of_host().kind)
    assert costs.emulated >= EMULATED - {Kind.CALL}
    assert all(0 < cost_ns < 1e6 for cost_ns in costs.entry_ns.values())
    assert costs.return_ns > 0
    cheap, dear = costs.prices([]), costs.entry_ns[Kind.OTHER]
    assert cheap.hit_ns < dear
