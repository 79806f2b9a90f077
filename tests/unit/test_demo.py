"""The demo programs take what they were asked for, of the kind they say, and end when told."""

from __future__ import annotations

import gc
import re
import signal
import subprocess
import sys
import time

import pytest

from mwtrace import demo
from mwtrace.errors import ConfigError
from mwtrace.host.procfs import Host

MIB = 1024 * 1024
RATE = 16 * MIB
READY = re.compile(r"ready: \w+ (\d+) bytes/s as .+; pid (\d+)\n")
PROGRAM = "import sys; from mwtrace import demo; demo.run(sys.argv[1], float(sys.argv[2]))"


@pytest.mark.parametrize("shape", ["leak-objects", "leak-native", "leak-mmap"])
def test_a_leak_takes_private_memory_and_ends_on_sigterm(shape):
    command = [sys.executable, "-c", PROGRAM, shape, str(RATE)]
    host = Host()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            match = READY.fullmatch(child.stdout.readline())
            assert match is not None
            assert [int(group) for group in match.groups()] == [RATE, child.pid]
            # How fast is asked of run() itself, below: a machine that is shared keeps us waiting.
            began_bytes, deadline_s = anon_bytes(host, child.pid), time.monotonic() + 30
            while anon_bytes(host, child.pid) < began_bytes + RATE:
                assert time.monotonic() < deadline_s
                time.sleep(0.01)
            child.send_signal(signal.SIGTERM)
            assert child.wait(timeout=30) == 0
        finally:
            child.kill()
    host.close()


def anon_bytes(host, pid):
    memory = host.memory(pid)
    assert memory is not None
    return memory.anon_bytes


def test_every_shape_takes_what_the_clock_asks_for(capsys):
    for shape in demo.SHAPES:
        taken_bytes = demo.run(shape, MIB, seconds=0.2)
        wanted_bytes = 0 if shape == "step" else 0.2 * MIB
        assert wanted_bytes <= taken_bytes < wanted_bytes + 64 * 1024 + 1, shape
        assert READY.fullmatch(capsys.readouterr().out)


def test_handlers_are_as_before(capsys):
    before = signal.getsignal(signal.SIGTERM)
    demo.run("steady", MIB, seconds=0.01)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_cache_fills_slower_and_slower_to_its_bound():
    cache = demo.Cache()
    sizes = []
    for _ in range(6):
        asked_bytes = 0
        while asked_bytes < 40 * MIB:
            asked_bytes += cache.grow()
        sizes.append(cache.held_bytes)
    grown = [after - before for before, after in zip([0, *sizes], sizes)]
    assert grown[0] > 24 * MIB
    assert grown[0] > grown[1] > grown[2]
    assert 60 * MIB < sizes[-1] <= 64 * MIB
    assert grown[-1] < 2 * MIB


def test_a_sawtooth_is_collected_when_its_time_has_come():
    other_sessions = count_sessions()
    sawtooth = demo.Sawtooth()
    try:
        for _ in range(1_000):
            sawtooth.grow()
        sawtooth.tick(19.9)
        assert count_sessions() == other_sessions + 1_000
        sawtooth.tick(20.0)
        assert count_sessions() == other_sessions
    finally:
        sawtooth.close()


def count_sessions():
    return sum(type(thing) is demo.Session for thing in gc.get_objects())


def test_a_step_asks_for_nothing_and_then_for_all_of_it():
    step = demo.Step()
    assert step.wants_bytes(MIB, 9.9) == 0
    assert step.wants_bytes(MIB, 10.0) == step.wants_bytes(MIB, 1000.0) == 60 * MIB


def test_what_is_steady_holds_no_more_than_its_bound():
    steady = demo.Steady()
    before = count_sessions()
    for _ in range(30_000):
        steady.grow()
    held = count_sessions() - before
    # What one session takes is an average, measured twice: within a percent.
    assert held * demo.session_bytes() <= 8 * MIB * 1.01
    steady.grow()
    assert count_sessions() - before == held


def test_an_unknown_shape_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError) as caught:
        demo.run("leak\x1b", 1.0, 0.0)
    assert "leak-objects" in caught.value.remedy
