"""explain, census and holders as an operator runs them, and what they refuse in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from interpreters import interpreters, script
from target import Target

pytestmark = pytest.mark.kernel

NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]


@pytest.fixture(scope="module")
def grown() -> Iterator[Target]:
    target = Target([interpreters()[-1], script("grow"), "python-objects"])
    target.expect("ready")
    target.ask("grow")
    yield target
    target.stop()


def mwtrace(*words: object, before: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [*(before or []), sys.executable, "-m", "mwtrace", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_an_explanation_in_text_json_and_as_a_page(grown, tmp_path):
    told = mwtrace("explain", grown.pid)
    assert (told.returncode, told.stderr) == (0, "")
    assert "__main__.SESSIONS[" in told.stdout
    page = tmp_path / "page.html"
    told = mwtrace("explain", grown.pid, "--json", "--no-holders", "--html", page)
    read = json.loads(told.stdout)
    assert (read["pid"], read["holders"]) == (grown.pid, [])
    assert "__main__.Session" in page.read_text()


def test_a_service_is_found_and_its_largest_process_is_read(grown):
    other = Target([interpreters()[-1], script("grow"), "python-objects"])
    try:
        other.expect("ready")
        told = mwtrace("explain", f"*{script('grow')}", "--no-holders")
    finally:
        other.stop()
    assert told.stdout.splitlines()[0].split(":")[0].endswith(f"(pid {grown.pid})")
    assert f"has 2 processes; reading the largest, pid {grown.pid}" in told.stderr


def test_what_grows_is_counted_with_its_slope():
    target = Target([interpreters()[-1], script("grow"), "python-objects"])
    try:
        target.expect("ready")
        words = ["census", str(target.pid), "--diff", "--every", "2s", "--count", "1", "--json"]
        child = subprocess.Popen(
            [sys.executable, "-m", "mwtrace", *words], stdout=subprocess.PIPE, text=True
        )
        # It grows at some moment after the first count, or before it: asked for until it did.
        stop = threading.Event()
        grower = threading.Thread(
            target=lambda: [target.ask("grow") for _ in range(20) if not stop.wait(0.2)]
        )
        grower.start()
        out, _ = child.communicate(timeout=60)
        stop.set()
        grower.join()
    finally:
        target.stop()
    told = json.loads(out)
    session = next(row for row in told["types"] if row["type"] == "__main__.Session")
    assert session["objects_grown"] > 10_000
    slope = session["bytes_grown"] / told["elapsed_s"]
    assert session["slope_bytes_per_second"] == pytest.approx(slope)


def test_a_census_and_the_holders_of_a_type(grown):
    table = mwtrace("census", grown.pid, "--top", 300)
    assert table.returncode == 2  # no more than 200 types are kept
    table = mwtrace("census", grown.pid, "--top", 9)
    assert len(table.stdout.splitlines()) == 2 + 9
    path = mwtrace("holders", grown.pid, "Session").stdout
    assert path.splitlines()[1].endswith(": __main__.SESSIONS[…]")
    read = json.loads(mwtrace("holders", grown.pid, "Session", "--json").stdout)
    assert read["paths"][0]["text"] == "__main__.SESSIONS[…]"
    assert mwtrace("holders", grown.pid, "NoSuchType").returncode == 4


def refused(*words: object, before: list[str] | None = None) -> tuple[str, str]:
    told = mwtrace(*words, before=before)
    assert (told.returncode, told.stdout) == (4, "")
    message, remedy = told.stderr.splitlines()
    return message, remedy


@pytest.mark.parametrize("command", ["explain", "census"])
def test_what_cannot_be_read_is_refused_in_one_line_with_a_remedy(command):
    ended = subprocess.Popen(["true"])
    ended.wait()
    message, remedy = refused(command, ended.pid)
    assert message == f"mwtrace: cannot read process {ended.pid}: there is none"
    assert "ps -e" in remedy
    assert "is a kernel thread" in refused(command, 2)[0]
    message, remedy = refused(command, os.getpid(), before=NOBODY)
    assert message.endswith("permission denied")
    assert "root" in remedy
    inside = ["unshare", "--user", "--map-root-user"]
    message, remedy = refused(command, os.getpid(), before=inside)
    assert "user namespace" in remedy


def test_no_python_no_census(start_target):
    target = start_target("sleepers", "1")
    message, remedy = refused("census", target.pid)
    assert message.endswith("no CPython runs in it")
    assert "explain" in remedy
    assert mwtrace("explain", target.pid).returncode == 0


def test_a_service_that_is_not_here_is_refused_with_those_that_are():
    told = mwtrace("explain", "no-such-service")
    assert told.returncode == 2
    assert "no service here matches 'no-such-service'" in told.stderr
    assert "There are: " in told.stderr
