"""The operator's command gets each file, again if it fails, and nobody waits for it."""

from __future__ import annotations

import shlex
import sys
import time

import pytest

from mwtrace.errors import ConfigError
from mwtrace.model import ProcessId, Snapshot
from mwtrace.snapshot.moving import Mover

SNAPSHOT = Snapshot(0.0, ProcessId(4711, 1), "orders", "leaking", "taken", path="/a file")


def python(code: str) -> str:
    return shlex.join([sys.executable, "-c", code])


def test_the_command_gets_the_path_and_what_it_is_about(tmp_path):
    told = tmp_path / "told"
    said = "sys.argv[1] + os.environ['MWTRACE_SERVICE']"
    code = f"import os, sys; open({str(told)!r}, 'w').write({said})"
    mover = Mover(python(code))
    assert mover.put(SNAPSHOT)
    assert mover.finish()
    mover.close()
    assert told.read_text() == "/a fileorders"
    assert mover.counters["snapshots_moved_total"] == 1


def test_a_command_that_fails_is_tried_again_and_then_given_up(tmp_path):
    tries = tmp_path / "tries"
    code = f"open({str(tries)!r}, 'a').write('x'); raise SystemExit('no bucket')"
    mover = Mover(python(code), between_s=(0.0, 0.0))
    mover.put(SNAPSHOT)
    assert not mover.finish()
    mover.close()
    assert tries.read_text() == "xxx"
    assert mover.counters["snapshot_move_retries_total"] == 2
    assert "no bucket" in mover.last_failure


def test_closing_ends_a_command_that_does_not_end_and_putting_never_waits(tmp_path):
    began = tmp_path / "began"
    code = f"import time; open({str(began)!r}, 'w'); time.sleep(3600)"
    mover = Mover(python(code), between_s=())
    began_s = time.monotonic()
    assert sum(mover.put(SNAPSHOT) for _ in range(50)) in (32, 33)
    assert time.monotonic() - began_s < 1.0
    assert mover.counters["snapshots_unmoved_total"] >= 17
    while not began.exists():
        assert time.monotonic() - began_s < 30
        time.sleep(0.005)
    mover.close()
    assert mover._thread is not None
    assert not mover._thread.is_alive()


def test_a_program_that_is_not_there_is_a_failure_with_a_reason():
    mover = Mover("/nowhere/at-all", between_s=())
    mover.put(SNAPSHOT)
    assert not mover.finish()
    mover.close()
    assert "No such file" in mover.last_failure


@pytest.mark.parametrize("command", ["", "  ", "'open"])
def test_what_is_no_command_is_refused_at_once(command):
    with pytest.raises(ConfigError):
        Mover(command)
