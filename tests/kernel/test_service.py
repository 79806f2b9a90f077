"""mwtrace as a service of a systemd that really boots: start, reload, hang, kill, stop, starve.

There BPF is refused, for its systemd is PID 1 of another pid namespace: records come from /proc,
and everything else is as on a host. What becomes of probes when we are killed is tested beside it.
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import booted
import pytest
from booted import Booted

pytestmark = [pytest.mark.kernel, pytest.mark.story]

ORDERS = """[Service]
Environment=PYTHONPATH=/opt/mwtrace:/opt/site-packages
ExecStart={python} -m mwtrace demo leak-objects --rate 4M
MemoryMax=1G
"""
CONFIG = """[watch]
interval = "500ms"
verbose = true
textfile-dir = "/var/lib/prometheus/node-exporter"

[service."*"]
warm-up = "5s"
learning = "5s"
"""
TEXTFILE = "/var/lib/prometheus/node-exporter/mwtrace.prom"
KILLS = 5
RELOADS = 10


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    refusal = booted.refusal()
    if refusal and os.environ.get("MWTRACE_KERNEL_TESTS") == "1":
        pytest.fail(f"MWTRACE_KERNEL_TESTS=1, but this machine {refusal}", pytrace=False)
    if refusal:
        pytest.skip(refusal)
    system = Booted(tmp_path_factory.mktemp("booted"))
    try:
        system.mwtrace("service", "install")
        system.run("mkdir", "-p", TEXTFILE.rpartition("/")[0])
        system.write("/etc/mwtrace/mwtrace.toml", CONFIG)
        orders = ORDERS.format(python=booted.python())
        system.write("/etc/systemd/system/orders.service", orders)
        system.run("systemctl", "daemon-reload")
        yield system
    finally:
        system.stop()


@pytest.fixture(scope="module")
def growing(system: Booted) -> Booted:
    """The service runs and has found a unit that grows, which takes half a minute.

    Tests go on with it, each from where the one before left it: that is what services are for.
    """
    with_settings(system, "StartLimitIntervalSec=0\nRestartSec=0\nWatchdogSec=3\nTimeoutAbortSec=1")
    system.run("systemctl", "start", "orders")
    system.wait_for(lambda: "GROWING" in told(system), "verdict")
    return system


@pytest.fixture
def fresh(system: Booted) -> Iterator[Booted]:
    """The service has just begun, and knows nothing."""
    clear(system)
    system.run("systemctl", "start", "mwtrace")
    system.wait_for(lambda: says(system, "[1-9] services"), "first ticks")
    yield system
    clear(system)


def clear(system: Booted) -> None:
    system.run("systemctl", "stop", "mwtrace", "orders")
    system.run("systemctl", "reset-failed", check=False)
    system.run("rm", "-rf", "/var/lib/mwtrace", "/etc/systemd/system/mwtrace.service.d")
    system.write("/etc/mwtrace/mwtrace.toml", CONFIG)
    system.run("systemctl", "daemon-reload")


def with_settings(system: Booted, lines: str) -> None:
    """Start the service anew with a drop-in."""
    folder = "/etc/systemd/system/mwtrace.service.d"
    system.run("mkdir", "-p", folder)
    system.write(f"{folder}/test.conf", f"[Service]\n{lines}\n")
    system.run("systemctl", "daemon-reload")
    system.run("systemctl", "restart", "mwtrace")


def told(system: Booted) -> list[str]:
    """All verdicts on the leaking service, in the order in which the journal has them."""
    return re.findall(r"^([A-Z ]+?) orders\.service", system.journal("mwtrace"), re.M)


def says(system: Booted, pattern: str) -> bool:
    """Whether the service says so of itself now."""
    return bool(re.search(pattern, system.show("mwtrace", "StatusText")))


def restarted(system: Booted, times: int) -> None:
    system.wait_for(lambda: system.show("mwtrace", "NRestarts") == str(times), "restart")
    system.wait_for(lambda: system.show("mwtrace", "ActiveState") == "active", "start")
    system.wait_for(lambda: says(system, "[0-9] (growing|leaking)"), "what it knew before")


def test_a_unit_that_grows_is_named_in_the_journal_and_in_the_status(growing: Booted) -> None:
    growing.wait_for(lambda: says(growing, "[0-9] (growing|leaking)"), "status")
    assert "active (running)" in growing.mwtrace("service", "status")
    # node-exporter is another user: the unit's UMask must not hide the file from it.
    assert growing.run("stat", "-c", "%a", TEXTFILE).strip() == "644"
    growing.wait_for(
        lambda: re.search(
            r'mwtrace_verdict{service="orders.service"} [34]', growing.read(TEXTFILE)
        ),
        "metrics",
    )


def test_reloads_take_up_settings_and_forget_nothing(growing: Booted) -> None:
    before = growing.main_pid("mwtrace")
    for number in range(RELOADS):
        growing.write("/etc/mwtrace/mwtrace.toml", CONFIG.replace("500ms", f"{500 + number}ms"))
        growing.run("systemctl", "reload", "mwtrace")
    growing.write("/etc/mwtrace/mwtrace.toml", CONFIG + 'lerning = "5s"\nleak = "much"\n')
    growing.run("systemctl", "reload", "mwtrace")

    def faults() -> list[str]:
        return re.findall(r"mwtrace.toml:(\d+): ", growing.journal("mwtrace"))

    growing.wait_for(lambda: faults() == ["9", "10"], "faults in the journal")
    growing.write("/etc/mwtrace/mwtrace.toml", CONFIG)
    assert growing.main_pid("mwtrace") == before
    # Growth that was known is not learned again.
    assert "LEARNING" not in told(growing)[told(growing).index("GROWING") :]


def test_no_verdict_is_lost_to_kills_at_any_moment(growing: Booted) -> None:
    dice = random.Random(47)
    for number in range(KILLS):
        known = told(growing)
        # A moment of the tick that is nobody's choice: start, save, wait or judge.
        time.sleep(dice.uniform(0.0, 1.0))
        os.kill(growing.main_pid("mwtrace"), signal.SIGKILL)
        restarted(growing, number + 1)
        # One tick may be lost, so what was told with it may be told again: no more.
        assert set(told(growing)[len(known) :]) <= {"LEAKING", known[-1]}
    assert "damaged" not in growing.journal("mwtrace")


def test_a_watch_that_hangs_is_started_again_and_goes_on(growing: Booted) -> None:
    known = told(growing)
    restarts = int(growing.show("mwtrace", "NRestarts"))
    os.kill(growing.main_pid("mwtrace"), signal.SIGSTOP)
    restarted(growing, restarts + 1)
    assert "watchdog" in growing.journal("mwtrace").lower()
    assert set(told(growing)[len(known) :]) <= {"LEAKING"}


def test_ignoring_a_service_is_taken_up_by_a_reload(growing: Booted) -> None:
    growing.write("/etc/mwtrace/mwtrace.toml", CONFIG.replace('"*"]', '"orders"]\nignore = true'))
    growing.run("systemctl", "reload", "mwtrace")
    growing.wait_for(lambda: not says(growing, "growing|leaking"), "silence")


def test_a_stop_takes_less_than_two_seconds_and_leaves_the_state_whole(fresh: Booted) -> None:
    began = time.monotonic()
    fresh.run("systemctl", "stop", "mwtrace")
    assert time.monotonic() - began < 2
    assert fresh.show("mwtrace", "Result") == "success"
    assert fresh.show("mwtrace", "ExecMainStatus") == "0"
    # Closed in order: the log was taken into the file.
    files = fresh.run("ls", "/var/lib/mwtrace").split()
    assert "mwtrace.db" in files
    assert "mwtrace.db-wal" not in files


def test_a_corrupt_state_is_set_aside_and_told_and_the_start_goes_on(fresh: Booted) -> None:
    fresh.run("systemctl", "stop", "mwtrace")
    state = f"/proc/{fresh.pid}/root/var/lib/mwtrace/mwtrace.db"
    with open(state, "r+b") as file:
        file.write(random.Random(1).randbytes(20_000))
    fresh.run("systemctl", "start", "mwtrace")
    assert "set aside as /var/lib/mwtrace/mwtrace.db.corrupt" in fresh.journal("mwtrace")
    assert fresh.run("ls", "/var/lib/mwtrace/mwtrace.db.corrupt")


def test_little_memory_means_smaller_tables_and_not_the_end(fresh: Booted) -> None:
    with_settings(fresh, "MemoryHigh=infinity\nMemoryMax=64M")
    fresh.run("systemctl", "start", "orders")
    fresh.wait_for(lambda: says(fresh, "[1-9] services.*no suspect is read"), "ticks")
    assert fresh.show("mwtrace", "NRestarts") == "0"
    assert "processes at most are watched" in fresh.journal("mwtrace")


def test_it_runs_without_the_capability_that_links_do_not_need(fresh: Booted) -> None:
    pid = fresh.main_pid("mwtrace")
    status = Path(f"/proc/{pid}/status").read_text()
    effective = int(re.search(r"CapEff:\s*(\w+)", status)[1], 16)
    bounds = int(re.search(r"CapBnd:\s*(\w+)", status)[1], 16)
    admin, bpf = 1 << 21, 1 << 39
    assert bounds & admin, "the unit gives it, for older kernels"
    assert effective & bpf
    assert not effective & admin


def test_a_timer_with_one_look_at_a_time_judges_too(system: Booted) -> None:
    system.mwtrace("service", "install", "--textfile-only", "--now")
    try:
        system.wait_for(lambda: "Finished" in system.journal("mwtrace-textfile"), "look")
        system.run("systemctl", "start", "mwtrace-textfile.service")
        assert system.show("mwtrace-textfile.service", "Result") == "success"
        assert system.run("ls", "/var/lib/mwtrace-textfile/mwtrace.db")
        assert "mwtrace_ticks_total" in system.read(TEXTFILE)
    finally:
        system.mwtrace("service", "uninstall")
    assert "not installed" in system.mwtrace("service", "status")
    system.mwtrace("service", "install")
