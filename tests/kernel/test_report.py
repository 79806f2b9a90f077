"""The report of a service that leaks while it is looked at: every part names the same code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time

import pytest
import snapshots
from target import Target

pytestmark = pytest.mark.kernel
DEADLINE_S = 60.0
STEP = 400
PACE_S = 0.02  # growth that a reading can keep up with


def test_slope_kind_site_and_holders_are_on_one_page(tmp_path):
    target = Target([sys.executable, "tests/targets/leak_shapes.py", "attribute_dict"])
    page = tmp_path / "report.html"
    try:
        target.expect("ready")
        for count in (200, 2000, 100):
            target.ask(str(count))
            snapshots.take(tmp_path / "store", target.pid)
        command = [sys.executable, "-m", "mwtrace", "report", str(target.pid), "--seconds", "5"]
        command += ["--directory", str(tmp_path / "store"), "--json", "--html", str(page)]
        asked = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        deadline_s = time.monotonic() + DEADLINE_S
        while asked.poll() is None:
            assert time.monotonic() < deadline_s
            target.ask(str(STEP))
            time.sleep(PACE_S)
        out, err = asked.communicate(timeout=DEADLINE_S)
    finally:
        target.stop()
    assert asked.returncode == 0, err
    told = json.loads(out)
    assert told["is_growing"]
    assert told["fit"]["sample_count"] >= 50
    assert told["finding"]["kind"] == "python-objects"
    assert told["finding"]["type_name"] == "__main__.Session"
    assert told["finding"]["holder"].startswith("__main__.app.entries")
    assert any("leak_shapes.py" in site["place"] for site in told["sites"]), told["sites_said"]
    first = told["analysis"]["suspects"][0]
    assert first["path"] == "__main__.app.entries['…'] -> Session"
    assert "held by __main__.app.entries['…'] -> Session: an unbounded cache" in told["headline"]
    text = page.read_text("utf-8")
    assert "an unbounded cache; bound it" in text
    assert not re.search(r"<script|(?:src|href)\s*=", text)


def test_a_service_that_is_not_there_is_refused_in_words():
    command = [sys.executable, "-m", "mwtrace", "report", "no-such-service"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 2
    assert "no service here matches" in done.stderr
