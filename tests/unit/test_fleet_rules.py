"""The recording rules for a fleet, computed by Prometheus's own promtool."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_what_the_rules_record_of_three_hosts_and_two_releases():
    promtool = shutil.which("promtool")
    assert promtool, "install.sh --dev installs prometheus, which has it"
    done = subprocess.run(
        [promtool, "test", "rules", TESTS / "data" / "fleet.rules.test.yml"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
