"""Loading, attaching and letting go: what is in place, and what is said when it cannot be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from running_watch import WatchUnderTest

from mwtrace.capi import ffi, lib
from mwtrace.errors import EngineError
from mwtrace.probes import watch as watch_module
from mwtrace.probes.engine_libbpf import LibbpfEngine, LibbpfObject
from mwtrace.probes.watch import LOSS_SLOTS, Watch

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]


def open_descriptors():
    return set(os.listdir("/proc/self/fd"))


def test_the_object_has_exactly_the_parts_that_the_watch_names():
    loaded = LibbpfEngine().load("watch")
    try:
        assert set(loaded.programs) == {watch_module.TABLE, *watch_module.TRACEPOINTS}
        assert set(loaded.maps) == {*watch_module.MAPS, watch_module.ABI}
    finally:
        loaded.close()


def test_a_disabled_program_is_left_out():
    loaded = LibbpfEngine().load("watch", disabled=["oom_victim"])
    try:
        assert set(loaded.programs) == {watch_module.TABLE, "process_exec", "process_exit"}
    finally:
        loaded.close()


def test_all_tracepoints_are_here_and_nothing_is_lost(watching):
    assert watching.watch.missing == []
    assert set(watching.watch.losses()) == set(LOSS_SLOTS)
    assert set(watching.watch.losses().values()) == {0}


def test_nothing_stays_open_after_close(watching):
    # The fixture's own watch shows that two can run side by side.
    before = open_descriptors()
    other = WatchUnderTest()
    other.processes()
    assert open_descriptors() > before
    other.watch.close()
    other.watch.close()
    assert open_descriptors() == before


def test_a_tracepoint_that_this_kernel_lacks_is_named_and_the_rest_works(monkeypatch):
    tracepoints = dict(watch_module.TRACEPOINTS)
    tracepoints["oom_victim"] = ("no_such_tracepoint", "OOM kills are not told")
    monkeypatch.setattr(watch_module, "TRACEPOINTS", tracepoints)
    under_test = WatchUnderTest()
    try:
        assert under_test.watch.missing == [
            "no_such_tracepoint: not in this kernel; OOM kills are not told"
        ]
        assert os.getpid() in under_test.processes()
    finally:
        under_test.watch.close()


def test_an_object_of_another_events_header_is_refused(tmp_path):
    folder = tmp_path / "bpf"
    shutil.copytree(ROOT / "bpf", folder)
    header = (folder / "events.h").read_text()
    abi = f"MW_EVENTS_ABI = {lib.MW_EVENTS_ABI}"
    assert abi in header
    (folder / "events.h").write_text(header.replace(abi, f"MW_EVENTS_ABI = {2**16}"))
    compiled = tmp_path / "watch.bpf.o"
    command = ["clang", "-g", "-O2", "-target", "bpf", "-mcpu=v3", "-Ibpf"]
    subprocess.run([*command, "-c", "bpf/watch.bpf.c", "-o", compiled], cwd=tmp_path, check=True)

    class OtherVersion:
        name = "libbpf"

        def load(self, unit, disabled=(), ring_bytes=0):
            return LibbpfObject(unit, compiled.read_bytes(), disabled)

    before = open_descriptors()
    with pytest.raises(EngineError) as raised:
        Watch(OtherVersion(), ffi.NULL)
    assert f"version {2**16}" in str(raised.value)
    assert open_descriptors() == before


# The object is read while we still may.
UNPRIVILEGED = """
import os
from mwtrace.errors import EngineError
from mwtrace.probes import engine_libbpf
text = engine_libbpf.object_bytes("watch")
os.setgroups([])
os.setuid(65534)
try:
    engine_libbpf.LibbpfObject("watch", text)
except EngineError as error:
    print(error)
    print(error.remedy)
"""


def test_without_privilege_the_remedy_is_sudo_or_capabilities():
    result = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED], capture_output=True, text=True, timeout=60
    )
    assert result.stderr == ""
    message, remedy = result.stdout.splitlines()
    assert message == "cannot load watch: Operation not permitted"
    assert "sudo" in remedy
    assert "CAP_BPF" in remedy
