"""The small parts of tracing: names, slopes, what blocks take, and who falls behind."""

from __future__ import annotations

import os
import threading
import time

import pytest

from mwtrace.errors import ConfigError
from mwtrace.host.procfs import Host
from mwtrace.tracing.busy import Lag
from mwtrace.tracing.command import SHARE_MIN, parse_share
from mwtrace.tracing.demangle import NAME_BYTES_MAX, demangle
from mwtrace.tracing.process import GROWTH_SAMPLES_MAX, Growth, TracedProcess
from mwtrace.tracing.symbolize import Modules, Symbolizer


@pytest.fixture
def no_sanitizer(monkeypatch):
    """Children under a limit of memory cannot start with one preloaded."""
    monkeypatch.delenv("LD_PRELOAD", raising=False)


def test_names_of_cplusplus_are_read_back(no_sanitizer):
    names = demangle(["_ZN4Pool4growEm", "malloc", "_Znwm", "_Z", "_Z9not_one_x9"])
    assert names == {
        "_ZN4Pool4growEm": "Pool::grow(unsigned long)",
        "_Znwm": "operator new(unsigned long)",
    }


def test_a_name_that_stands_for_an_endless_one_stays_as_it_is(no_sanitizer):
    # Each pair doubles the one before: 2^40 characters from some 200.
    bomb = "_Z1fI" + "1A" + "".join(f"St4pairIS{n}_S{n}_E" for n in ["", *range(38)]) + "Evv"
    began = time.monotonic()
    demangle([bomb, "_Z" + "9" * 400, "_Z" + "P" * (NAME_BYTES_MAX - 10) + "v"])
    assert time.monotonic() - began < 10
    assert demangle(["_Znwm", "_Z" + "P" * NAME_BYTES_MAX + "v"]) == {
        "_Znwm": "operator new(unsigned long)"
    }


@pytest.mark.parametrize(
    ("text", "share"), [("1%", 0.01), ("0.5 %", 0.005), ("0.02", 0.02), ("100%", 1.0)]
)
def test_a_budget_is_read_as_people_write_it(text, share):
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "0", "-1%", "101%", "1", "one", "nan", f"{SHARE_MIN / 2}"])
def test_a_budget_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="budget"):
        parse_share(text)


def test_growth_is_the_median_slope_and_keeps_few_samples():
    growth = Growth()
    assert growth.bytes_per_second() is None
    for second in range(10_000):
        # A spike now and then does not move it.
        growth.add(float(second), 1000 * second + (10**9 if second % 50 == 0 else 0))
    assert growth.bytes_per_second() == pytest.approx(1000, rel=0.01)
    assert len(growth.samples) <= GROWTH_SAMPLES_MAX


def busy_lag(counts_as_one):
    lag = Lag(os.getpid(), counts_as_one, time.monotonic())
    for cost_s in (0.01, 0.02, 0.03):
        until = time.monotonic() + 0.1
        while time.monotonic() < until:
            pass
        lag.note(time.monotonic(), cost_s)
    return lag


def test_a_process_that_computes_all_the_time_falls_behind_by_the_cost():
    lag = busy_lag(counts_as_one=True)
    # On a crowded machine we do not get a whole core, and are then thought to rest.
    assert lag.lag_s == pytest.approx(0.03, rel=0.1) or lag.lag_s < 0.03
    time.sleep(0.2)
    lag.note(time.monotonic(), 0.04)
    assert lag.lag_s == 0.0


def test_threads_count_each_for_itself():
    done = threading.Event()
    sleeper = threading.Thread(target=done.wait)
    sleeper.start()
    try:
        lag = busy_lag(counts_as_one=False)
        assert 0 <= lag.lag_s <= 0.031
    finally:
        done.set()
        sleeper.join()


def test_frames_of_our_own_functions_are_named():
    import ctypes

    libc = ctypes.CDLL(None)
    # Not one that the interpreter calls: of those its own table of jumps may be what is found.
    address = ctypes.cast(libc.malloc_info, ctypes.c_void_p).value
    symbolizer = Symbolizer(os.getpid(), Modules(), None)
    (frame,) = symbolizer._native_frames([address + 4])
    assert "malloc_info" in frame.name
    assert "libc" in frame.module
    assert frame.build_id
    # What is no code ends a stack, but for its leaf.
    assert len(symbolizer._native_frames([address + 4, 16, address + 4])) == 1
    assert symbolizer._native_frames([16])[0].title == "0x10"


def test_tables_of_symbols_are_bounded():
    modules = Modules(bytes_max=1)
    for path in ("/proc/self/exe", "/lib/x86_64-linux-gnu/libc.so.6", "/proc/self/exe"):
        modules.of(path)
        assert len(modules._modules) == 1
    assert modules.of("/dev/zero").table is None


def test_our_own_python_is_found_and_its_memory_is_seen():
    host = Host()
    traced = TracedProcess(host.process_id(os.getpid()), host, Modules())
    traced.check()
    assert traced.runtime is not None
    assert traced.private_bytes() > 1 << 20
