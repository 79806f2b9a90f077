"""The verdict on each recorded program: leaks are named in time, look-alikes never.

A recording is one second's private memory of a real program; the daemon ticks every five seconds,
so each is judged five times, with another first second. A field report becomes a new row.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mwtrace.aggregator import Limits
from mwtrace.judge.trend import Thresholds
from mwtrace.model import Verdict
from mwtrace.replay import BEGIN_S, replay

RECORDINGS = Path(__file__).parent.parent / "data" / "recordings"
PHASES = range(5)

# Seconds after the program's start by which it must be called leaking, and its true slope, bytes
# per second (fitted to the whole recording by hand).
LEAKS = {
    "leak-aiohttp-app-names": (95, 1.004e6),
    "leak-interned-strings": (100, 0.95e6),
    "leak-numpy-recarray": (95, 2.118e6),
    "leak-multidict-headers": (140, 0.322e6),
    "leak-ujson-dumps": (140, 0.390e6),
    "leak-openssl-x509": (200, 0.263e6),
    "leak-threadpool-futures": (200, 0.194e6),
    "leak-h5py-attributes": (300, 0.0626e6),
}
HEALTHY = sorted(path.stem for path in RECORDINGS.glob("healthy-*.csv"))


def changes(name, phase, tmp_path):
    """Judge every fifth sample of a recording, from the given one on."""
    with (RECORDINGS / f"{name}.csv").open() as file:
        header, *rows = csv.reader(file)
    sampled = tmp_path / f"{name}.csv"
    sampled.write_text("\n".join(",".join(row) for row in [header, *rows[phase::5]]) + "\n")
    return list(replay(sampled, Thresholds(), Limits()))


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_is_named_in_time_and_with_its_slope(name, phase, tmp_path):
    within_s, slope = LEAKS[name]
    leaking = [c for c in changes(name, phase, tmp_path) if c.now.verdict is Verdict.LEAKING]
    assert leaking, "never called leaking"
    assert leaking[0].time_s - BEGIN_S <= within_s
    assert leaking[0].now.slope_bytes_per_second == pytest.approx(slope, rel=0.1)
    assert leaking[0].now.since_s - BEGIN_S <= 30


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("name", HEALTHY)
def test_a_look_alike_is_never_called_leaking(name, phase, tmp_path):
    verdicts = {change.now.verdict for change in changes(name, phase, tmp_path)}
    assert Verdict.LEAKING not in verdicts


def test_every_recording_is_judged():
    assert {path.stem for path in RECORDINGS.glob("*.csv")} == {*LEAKS, *HEALTHY}
