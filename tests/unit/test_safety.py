"""Each gate: closed where it must be, open where it need not be, with a reason and a remedy."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mwtrace.errors import ProcessGone
from mwtrace.probes.safety import (
    TICK_NS,
    Gate,
    KernelFacts,
    Severity,
    TargetFacts,
    may_probe,
    parse_release,
    read_kernel_facts,
    read_target_facts,
    refusals,
    same_start,
)

PROCESS = TargetFacts(4242, 70 * TICK_NS, "S", 0, 0, False, "x86-64", 64, (1, 2), False)
KERNEL = KernelFacts((6, 18), "x86-64")


def closed(target=PROCESS, kernel=KERNEL, own=(7,), **more):
    return refusals(target, kernel, own, 70 * TICK_NS, **more)


def test_an_ordinary_process_passes_all_gates():
    assert closed() == []


TABLE = [
    pytest.param({"pid": 7}, Gate.OURSELVES, id="ourselves"),
    pytest.param({"pid": 1}, Gate.INIT, id="init"),
    pytest.param({"is_kernel_thread": True}, Gate.KERNEL_THREAD, id="kernel thread"),
    pytest.param({"start_time_ns": 71 * TICK_NS}, Gate.IDENTITY, id="pid given again"),
    pytest.param({"tracer_pid": 99}, Gate.TRACED, id="under a debugger"),
    pytest.param({"state": "T"}, Gate.STOPPED, id="stopped"),
    pytest.param({"state": "Z"}, Gate.ZOMBIE, id="zombie"),
    pytest.param({"bits": 32, "machine": "x86"}, Gate.BITS_32, id="32 bits"),
    pytest.param({"machine": "aarch64"}, Gate.MACHINE, id="emulated program"),
    pytest.param({"shares_memory": True}, Gate.SHARED_MEMORY, id="vfork"),
]


@pytest.mark.parametrize(("change", "gate"), TABLE)
def test_a_gate_is_closed_for(change, gate):
    refused = closed(PROCESS._replace(**change))
    assert [refusal.gate for refusal in refused] == [gate]
    assert refused[0].severity is Severity.REFUSE
    assert refused[0].reason
    assert not may_probe(refused)
    # Never to be overruled: these protect a process from being killed or misread.
    assert closed(PROCESS._replace(**change), overruled=tuple(Gate)) == refused


def test_an_exec_between_looking_and_attaching_is_noticed():
    assert closed(expected_executable=(1, 2)) == []
    (refusal,) = closed(expected_executable=(1, 3))
    assert refusal.gate is Gate.PROGRAM_CHANGED


@pytest.mark.parametrize(
    ("release", "machine", "mode", "is_closed"),
    [
        ((6, 10), "x86-64", 2, False),
        ((6, 11), "x86-64", 2, True),
        ((6, 13), "x86-64", 2, True),
        ((6, 13), "x86-64", 1, True),
        ((6, 13), "x86-64", 0, False),
        ((6, 14), "x86-64", 2, False),
        ((6, 12), "aarch64", 2, False),
    ],
)
def test_returns_are_left_out_where_seccomp_would_kill(release, machine, mode, is_closed):
    target = PROCESS._replace(seccomp_mode=mode, machine=machine)
    gates = {r.gate: r for r in closed(target, KernelFacts(release, machine))}
    assert (Gate.SECCOMP_RETURN in gates) == is_closed
    if is_closed:
        assert gates[Gate.SECCOMP_RETURN].severity is Severity.WITHOUT_RETURNS
        assert may_probe(list(gates.values()))


def test_kernel_stacks_are_left_out_before_the_fix_unless_overruled():
    old = KernelFacts((6, 12), "x86-64")
    (refusal,) = closed(kernel=old)
    assert refusal.severity is Severity.WITHOUT_KERNEL_STACKS
    assert refusal.remedy
    assert closed(kernel=old, overruled=[Gate.STACK_RACE]) == []


@pytest.mark.parametrize(
    ("text", "release"),
    [("6.18.44-fc", (6, 18)), ("5.14.0-427.el9", (5, 14)), ("6.1", (6, 1)), ("?", (0, 0))],
)
def test_a_release_is_read(text, release):
    assert parse_release(text) == release


def test_an_unreadable_release_closes_the_version_gates():
    kernel = KernelFacts(parse_release("strange"), "x86-64")
    assert Gate.STACK_RACE in {refusal.gate for refusal in closed(kernel=kernel)}


def test_start_times_of_both_precisions_are_compared():
    assert same_start(70 * TICK_NS, 70 * TICK_NS + TICK_NS - 1)
    assert not same_start(70 * TICK_NS, 71 * TICK_NS)


def test_facts_of_ourselves_are_right():
    facts = read_target_facts(os.getpid())
    executable = os.stat(sys.executable)
    assert facts.pid == os.getpid()
    assert facts.bits == 64
    assert facts.machine == read_kernel_facts().machine
    assert facts.executable == (executable.st_dev, executable.st_ino)
    assert facts.state == "R"
    assert not facts.shares_memory
    own = refusals(facts, read_kernel_facts(), [os.getpid()], facts.start_time_ns)
    assert Gate.OURSELVES in {refusal.gate for refusal in own}


def test_a_process_whose_name_is_made_to_confuse_is_read_right(tmp_path):
    # comm is the process's to choose: parentheses and spaces in it are allowed.
    script = "open('/proc/self/comm','w').write('a) T 1 (b'); print('ready',flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout.readline() == b"ready\n"
        facts = read_target_facts(child.pid)
        assert facts.state in ("S", "R")
        assert not facts.is_kernel_thread
    finally:
        child.communicate(b"\n", timeout=30)


def test_a_process_that_is_gone_is_told_so():
    child = subprocess.Popen(["true"])
    child.wait(30)
    with pytest.raises(ProcessGone):
        read_target_facts(child.pid)
