"""The engine that compiles on the host: what it measures, what it refuses, what it leaves behind.

That its programs do the same as the prebuilt ones is tested where those are: all tests of probes,
mappings, growth and Python frames run on both engines.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alloc_under_test import engine_of
from kernel_types import KernelTypes

from mwtrace.errors import EngineError
from mwtrace.host.bcc import Bcc, find_bcc
from mwtrace.host.procfs import Host
from mwtrace.probes import engine_bcc
from mwtrace.probes.attach import AttachKind, attach_kind_of_host
from mwtrace.probes.engine_bcc import BccEngine, measure_offsets
from mwtrace.probes.engine_libbpf import LibbpfEngine
from mwtrace.tracing.probing import Probing

pytestmark = pytest.mark.kernel

DEADLINE_S = 60.0
UNITS = ["alloc", "maps", "growth"]
STACK_BYTES = 16384  # THREAD_SIZE on x86-64


@pytest.fixture
def types() -> Iterator[KernelTypes]:
    types = KernelTypes()
    yield types
    types.close()


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_measured_offsets_are_those_that_the_kernel_describes(types):
    found = measure_offsets()
    assert found.pop("stack_registers") in range(STACK_BYTES - 512, STACK_BYTES)
    assert found == {
        "task_thread_pointer": types.offset("task_struct", "thread.fsbase"),
        "task_mm": types.offset("task_struct", "mm"),
        "task_stack": types.offset("task_struct", "stack"),
        "mm_brk": types.offset("mm_struct", "brk"),
    }


def test_every_thread_measures_the_same_while_the_heap_grows():
    expected = measure_offsets()
    found = []
    threads = [threading.Thread(target=lambda: found.append(measure_offsets())) for _ in range(4)]
    for thread in threads:
        thread.start()
    grown = [bytearray(1 << 16) for _ in range(1000)]
    for thread in threads:
        thread.join(DEADLINE_S)
    assert found == [expected] * len(threads)
    assert len(grown) == 1000


@pytest.mark.parametrize("unit", UNITS)
def test_both_engines_give_the_same_parts_but_sessions(unit):
    ours, prebuilt = engine_of("bcc").load(unit), LibbpfEngine().load(unit)
    try:
        assert set(ours.programs) == set(prebuilt.programs) - BccEngine.lacked
        # What libbpf makes of constants has a dot in its name.
        assert set(ours.maps) == {name for name in prebuilt.maps if "." not in name}
        for name, fd in ours.maps.items():
            assert shape(fd) == shape(prebuilt.maps[name])
    finally:
        ours.close()
        prebuilt.close()


def shape(map_fd: int) -> list[str]:
    """A map's type and sizes, as the kernel shows them."""
    names = ("map_type", "key_size", "value_size", "max_entries", "map_flags")
    lines = Path(f"/proc/self/fdinfo/{map_fd}").read_text().splitlines()
    return [line for line in lines if line.startswith(names)]


def test_disabled_programs_are_left_out():
    loaded = engine_of("bcc").load("alloc", ["block_enter", "block_return", "free_enter"])
    try:
        assert set(loaded.programs) == {
            "block_enter_multi",
            "block_return_multi",
            "free_enter_multi",
        }
    finally:
        loaded.close()


def test_windows_are_opened_by_the_best_kind_that_it_has_programs_for():
    best = attach_kind_of_host()
    probing = Probing(engine_of("bcc"))
    try:
        assert probing.kind is not AttachKind.SESSION
        assert probing.kind not in best.refused
        assert probing.programs.session == -1
        assert min(probing.programs[1:]) >= 0
    finally:
        probing.close()
    # Where the host has no sessions, nothing is lost.
    if best.kind is not AttachKind.SESSION:
        assert probing.kind is best.kind


def test_nothing_stays_open_after_close_and_no_compiler_lives_on():
    host = Host()
    found = find_bcc(host)
    host.close()
    assert found
    before = open_descriptors()
    loaded = BccEngine(found).load("growth")
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children]
    assert not [command for command in commands if b"bcc_compiler" in command]
    loaded.close()
    loaded.close()
    assert open_descriptors() == before


# No file describes the kernel's types; in a mount namespace of the test's own.
WITHOUT_BTF = """
from mwtrace.errors import EngineError
from mwtrace.host.procfs import Host
from mwtrace.probes.engine_libbpf import LibbpfEngine
from mwtrace.probes.engines import choose
engine = choose("auto", Host())
print(engine.name)
for unit in ("alloc", "maps", "growth"):
    loaded = engine.load(unit)
    print(unit, len(loaded.programs))
    loaded.close()
try:
    LibbpfEngine().load("alloc")
except EngineError as error:
    print(error)
"""
HIDE = 'mount -t tmpfs none /sys/kernel/btf && exec "$0" "$@"'


def test_without_btf_it_is_chosen_by_itself_and_loads_what_libbpf_cannot():
    command = ["unshare", "--mount", "sh", "-c", HIDE, sys.executable, "-c", WITHOUT_BTF]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "bcc",
        "alloc 6",
        "maps 7",
        "growth 2",
        "cannot load alloc: this kernel has no type information",
    ]


def test_the_watch_goes_on_through_proc_and_says_why():
    command = [sys.executable, "-m", "mwtrace", "--all", "--duration", "0.1s", "--engine", "bcc"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0
    assert "through /proc (cannot load watch by bcc: task iterators need" in done.stderr


# Compiled while we still may look everywhere; loading is what needs a privilege.
UNPRIVILEGED = """
import os
from mwtrace.errors import EngineError
from mwtrace.host.procfs import Host
from mwtrace.probes.engines import choose
engine = choose("bcc", Host())
engine.load("growth").close()
os.setgroups([])
os.setuid(65534)
try:
    engine.load("growth")
except EngineError as error:
    print(error)
    print(error.remedy)
"""


def test_without_privilege_the_remedy_is_sudo_or_capabilities():
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED], capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.stderr == ""
    message, remedy = done.stdout.splitlines()
    assert message.endswith("of growth: Operation not permitted")
    assert "sudo" in remedy
    assert "CAP_BPF" in remedy


# What a compiler may do to us -> words of the error.
COMPILERS = {
    "exec sleep 1000": "timed out",
    "echo 'no such header' >&2; exit 1": "no such header",
    "kill -SEGV $$": "ended with -11",
    "echo '{'": "no answer",
    "echo '{\"block_enter\": [149]}'": "its text and its object differ",
    # A program that leaves its result undefined.
    'echo \'{"page_fault": [149], "growth_mmap_return": [149]}\'': "R0 !read_ok",
}


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], BccEngine]:
    """Return a function that makes an engine whose compiler is a shell script."""
    monkeypatch.setattr(engine_bcc, "_COMPILE_S_MAX", 2.0)

    def make(script: str) -> BccEngine:
        program = tmp_path / "python3"
        program.write_text(f"#!/bin/sh\ncat >/dev/null\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return BccEngine(Bcc(str(program), "/nonexistent"))

    return make


@pytest.mark.parametrize("script", COMPILERS)
def test_a_compiler_that_fails_is_an_error_with_its_words_and_nothing_stays(compiler, script):
    before = open_descriptors()
    with pytest.raises(EngineError) as raised:
        compiler(script).load("growth")
    assert COMPILERS[script] in str(raised.value)
    assert raised.value.remedy
    assert open_descriptors() == before


@pytest.mark.parametrize("bcc", [Bcc("/nonexistent/python3", ""), Bcc(sys.executable, "/empty")])
def test_a_bcc_that_is_not_there_is_an_error_with_a_remedy(bcc):
    with pytest.raises(EngineError) as raised:
        BccEngine(bcc).load("growth")
    assert "python3-bpfcc" in raised.value.remedy
