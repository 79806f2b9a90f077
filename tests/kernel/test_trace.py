"""Programs whose leaks are known, traced from the outside: the right code is named, at its rate.

Budgets are larger than the default here, so that seconds do for a minute; the test at the default
budget is slow. Tolerances: 15% is what is promised; survivors are counted, so a few hundred of
them spread by a few percent, and every program is paced by the clock.
"""

from __future__ import annotations

import ctypes
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Callable

import pytest
from interpreters import interpreters
from target import DEADLINE_S, Target

from mwtrace.errors import ProcessError
from mwtrace.host.procfs import Host
from mwtrace.probes.engine_libbpf import LibbpfEngine
from mwtrace.probes.governor import Budget
from mwtrace.tell.profile import KnownBy
from mwtrace.tracing.command import Format, Outcome, Wish, render, trace
from mwtrace.tracing.growth import GrowthSampler
from mwtrace.tracing.probing import Probing
from mwtrace.tracing.session import State, TraceSession

pytestmark = pytest.mark.kernel
if find_spec("capstone") is None:
    pytest.skip("the extra 'trace' is not installed", allow_module_level=True)

TARGETS = Path(__file__).parents[1] / "targets"
SERVICE = TARGETS / "python_service.py"
LEAK_SMALL, LEAK_LARGE = 90_000.0, 300_000.0  # of tests/targets/sites_paced.c
RATE_TOLERANCE = 0.15
BLAME_MAX = 0.01
LARGE_BUDGET = 0.2
# pyenv's, oldest first, and the distribution's own: those of other suites start by a loader.
PYTHONS = [python for python in interpreters() if "run-python" not in python]
# Ten seconds each; test_python_frames has all versions.
FIRST_AND_LAST = [
    python
    if python in (PYTHONS[0], *PYTHONS[-2:])
    else pytest.param(python, marks=pytest.mark.slow)
    for python in PYTHONS
]


@pytest.fixture
def start_python() -> Iterator[Callable[..., Target]]:
    started: list[Target] = []

    def start(python: str, *arguments: str) -> Target:
        target = Target([python, str(SERVICE), *arguments])
        started.append(target)
        target.expect("ready")
        return target

    yield start
    for target in started:
        target.stop()


def traced(pid: int, seconds: float, budget: float = LARGE_BUDGET, **wishes: bool) -> Outcome:
    host = Host()
    wish = Wish(
        str(pid),
        seconds,
        budget,
        wishes.get("exact", False),
        wishes.get("growth_only", False),
        Format.TABLE,
        None,
    )
    return trace(LibbpfEngine(), host, host.process_id(pid), "target", wish)


def rates(outcome: Outcome) -> dict[str, float]:
    """Bytes per second by the innermost function that is named."""
    found: dict[str, float] = {}
    for share in outcome.report.places:
        found[share.place.name] = found.get(share.place.name, 0.0) + share.bytes_per_second
    return found


def check_sites(outcome: Outcome) -> None:
    found = rates(outcome)
    top = outcome.report.places[0]
    assert (top.place.name, top.known_by) == ("leak_large", KnownBy.AUDIT)
    assert found["leak_large"] == pytest.approx(LEAK_LARGE, rel=RATE_TOLERANCE)
    blamed = found.get("churn", 0.0) + found.get("cache", 0.0)
    assert blamed < BLAME_MAX * (LEAK_LARGE + LEAK_SMALL)
    assert "leak_large" in outcome.report.conclusion


def test_leaks_are_told_from_churn_and_cache_at_their_rate(start_target):
    target = start_target("sites_paced")
    outcome = traced(target.pid, 15)
    check_sites(outcome)
    assert rates(outcome)["leak_small"] == pytest.approx(LEAK_SMALL, rel=0.3)
    facts = outcome.facts
    assert facts.dropped == facts.untracked == facts.late_windows == 0
    assert facts.growth_bytes_per_second == pytest.approx(LEAK_LARGE + LEAK_SMALL, rel=0.15)
    assert outcome.report.places[0].share > 0.6


@pytest.mark.slow
def test_so_they_are_within_a_minute_at_the_default_budget(start_target):
    outcome = traced(start_target("sites_paced").pid, 60, Budget().target_share)
    check_sites(outcome)
    assert outcome.facts.spent_s < 1.1 * 60 * Budget().target_share


def test_exact_tracing_counts_every_block(start_target):
    outcome = traced(start_target("sites_paced").pid, 8, exact=True)
    found = rates(outcome)
    assert outcome.report.places[0].known_by is KnownBy.LIVE
    assert found["leak_large"] == pytest.approx(LEAK_LARGE, rel=0.1)
    assert found["leak_small"] == pytest.approx(LEAK_SMALL, rel=0.1)
    assert found.get("churn", 0.0) + found.get("cache", 0.0) < BLAME_MAX * LEAK_LARGE
    assert outcome.facts.dropped == 0


@pytest.mark.parametrize("python", FIRST_AND_LAST)
def test_a_leak_of_objects_is_named_by_its_line_on_every_python(python, start_python):
    target = start_python(python, "objects")
    outcome = traced(target.pid, 8)
    top = outcome.report.places[0]
    assert top.place.name.endswith("raw_decode"), outcome.report.conclusion
    assert top.place.file.endswith("/json/decoder.py")
    assert top.place.line > 300
    # 40 floats of 32 bytes, a list of them, and its header: 1.7 MB/s, most of it on that line.
    # By page faults, which charge whoever touches the fresh page, it may be little more than half.
    assert top.share > 0.5
    assert outcome.growth.growth_bytes_per_second == pytest.approx(1.7e6, rel=0.15)
    stacks = {frame.name for site in outcome.report.profile.sites for frame in site.frames}
    assert "remember" in stacks


@pytest.mark.parametrize("python", [PYTHONS[0], PYTHONS[-2]])
def test_a_leak_of_the_c_library_is_named_by_line_and_function(python, start_python):
    outcome = traced(start_python(python, "ctypes").pid, 8)
    top = outcome.report.places[0]
    assert (top.place.name, top.place.file) == ("lose", str(SERVICE))
    assert "libffi" in top.place.through or "_ctypes" in top.place.through
    assert top.bytes_per_second == pytest.approx(400_000, rel=0.2)


def test_growth_sampling_alone_names_the_line_without_a_probe(start_python):
    outcome = traced(start_python(PYTHONS[-2], "ctypes").pid, 6, growth_only=True)
    top = outcome.report.places[0]
    assert outcome.facts is None
    assert (top.place.name, top.place.file) == ("lose", str(SERVICE))
    assert top.known_by is KnownBy.GROWTH
    assert "first touched" in outcome.report.conclusion


def test_a_process_that_ends_leaves_what_was_learnt(start_target):
    target = start_target("guarded", "50")  # busy, so that windows are short
    host = Host()
    probing = Probing(LibbpfEngine(), host, budget=Budget(LARGE_BUDGET, 1.0))
    session = TraceSession(probing, host.process_id(target.pid), time.monotonic(), 60)
    try:
        deadline = time.monotonic() + DEADLINE_S
        # Until survivors of a first window are counted, and another window is open.
        while not (session.sites(time.monotonic()) and session.facts(0).state is State.OPEN):
            assert time.monotonic() < deadline
            step(session)
        target.tell("exit")
        while not session.is_ended:
            assert time.monotonic() < deadline
            step(session)
        facts = session.facts(time.monotonic())
        assert "ended" in facts.why
        assert session.step(time.monotonic()) is None
        (top, *_) = session.sites(time.monotonic())
        assert top.frames[-1].name == "leak"
    finally:
        session.close()
        probing.close()


def test_an_exec_in_a_window_ends_the_session_with_what_was_learnt(start_target):
    target = start_target("guarded")
    host = Host()
    probing = Probing(LibbpfEngine(), host, budget=Budget(LARGE_BUDGET, 1.0))
    session = TraceSession(probing, host.process_id(target.pid), time.monotonic(), 60)
    try:
        deadline = time.monotonic() + DEADLINE_S
        while session.facts(0).state is not State.OPEN:
            assert time.monotonic() < deadline
            step(session)
        target.tell("exec")
        while not session.is_ended:
            assert time.monotonic() < deadline
            step(session)
        assert "another program" in session.facts(time.monotonic()).why
    finally:
        session.close()
        probing.close()
    assert host.process_id(target.pid)  # what it runs now goes on


def step(session: TraceSession) -> None:
    next_s = session.step(time.monotonic())
    if next_s is not None:
        time.sleep(min(max(0.0, next_s - time.monotonic()), 0.2))


def test_two_hundred_threads_behind_a_seccomp_filter_are_traced(start_target):
    target = start_target("guarded", "200")
    outcome = traced(target.pid, 8)
    top = outcome.report.places[0]
    assert top.place.name == "leak", outcome.report.conclusion
    # Of so many threads' blocks a hundred of the leak are sampled, which spread by a tenth.
    assert top.bytes_per_second == pytest.approx(2e6, rel=0.35)
    assert Host().process_id(target.pid)


def test_ten_thousand_threads_are_no_obstacle(start_target):
    target = start_target("crowd", "10000")
    assert len(os.listdir(f"/proc/{target.pid}/task")) == 10_001
    outcome = traced(target.pid, 8)
    top = outcome.report.places[0]
    assert (top.place.name, top.known_by) == ("leak", KnownBy.AUDIT), outcome.report.conclusion
    assert top.bytes_per_second == pytest.approx(2e6, rel=0.3)
    assert outcome.facts.dropped == outcome.facts.late_windows == 0
    assert len(os.listdir(f"/proc/{target.pid}/task")) == 10_001


def test_a_process_under_ptrace_is_refused_with_the_reason(start_target):
    target = start_target("guarded")
    libc = ctypes.CDLL(None, use_errno=True)
    seize, detach = 0x4206, 17
    assert libc.ptrace(seize, target.pid, None, None) == 0
    try:
        with pytest.raises(ProcessError, match=f"process {os.getpid()} traces it"):
            traced(target.pid, 1)
    finally:
        os.kill(target.pid, signal.SIGSTOP)
        os.waitpid(target.pid, 0x40000000)  # __WALL: only one that has stopped can be let go
        assert libc.ptrace(detach, target.pid, None, None) == 0
        os.kill(target.pid, signal.SIGCONT)


def test_what_cannot_be_traced_is_said_in_one_line():
    for word, words in (("4194303", "there is none"), ("no-such-thing", "no service here matches")):
        command = [sys.executable, "-m", "mwtrace", "trace", word]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )
        assert done.returncode != 0
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 2  # and the remedy
    with pytest.raises(ProcessError, match="mwtrace itself"):
        traced(os.getpid(), 1)
    with pytest.raises(ProcessError, match="init"):
        traced(1, 1)


def test_many_processes_are_sampled_at_once_and_nothing_stays(start_target, start_python):
    host = Host()
    targets = [start_target("guarded") for _ in range(8)]
    python = start_python(PYTHONS[-2], "ctypes")
    sampler = GrowthSampler(LibbpfEngine(), host)
    try:
        for target in [*targets, python]:
            sampler.watch(host.process_id(target.pid), time.monotonic())
        leaver = targets[0]
        leaver.tell("exit")
        leaver.wait()
        targets[1].tell("exec")
        deadline = time.monotonic() + DEADLINE_S
        while True:
            assert time.monotonic() < deadline
            now_s = time.monotonic()
            sampler.drain(now_s, 0.1)
            facts = {pid: sampler.facts(pid, now_s) for pid in sampler.pids}
            others = [facts[target.pid] for target in [*targets[2:], python]]
            if min(fact.samples for fact in others) > 100 and facts[targets[1].pid].ended:
                break
        assert "ended" in facts[leaver.pid].ended
        assert "another program" in facts[targets[1].pid].ended
        for target in targets[2:]:
            top = sampler.top_sites(target.pid, time.monotonic())[0]
            # Its libraries keep no frame pointers, so its own function need not be in the stack.
            assert "libc" in top.frames[-1].module
            assert top.share > 0.5
        names = [f.name for f in sampler.top_sites(python.pid, time.monotonic())[0].frames]
        assert "lose" in names
        sampler.unwatch(python.pid)
        assert python.pid not in sampler.pids
        assert sampler.top_sites(python.pid, time.monotonic()) == ()
    finally:
        sampler.close()


KILLS = 6


def test_a_tracer_killed_at_any_moment_leaves_the_target_healthy(start_target):
    import random

    from hit_counter import byte_at, placed_points

    seed = int(os.environ.get("MWTRACE_SEED", "20260823"))
    chance = random.Random(seed)
    target = start_target("sites_paced")
    points = placed_points(target.pid, ("malloc", "free", "calloc", "realloc"))
    before = [byte_at(target.pid, point) for point in points]
    assert b"\xcc" not in before
    command = [sys.executable, "-m", "mwtrace", "trace", str(target.pid), "--budget", "100%"]
    for _ in range(KILLS):
        tracer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            # Once there are windows, which is when there is a breakpoint for the first time.
            deadline = time.monotonic() + DEADLINE_S
            while [byte_at(target.pid, point) for point in points] == before:
                assert time.monotonic() < deadline, "no probe was ever seen"
                assert tracer.poll() is None
            # A moment is what is being chosen here, not waited for.
            time.sleep(chance.random() * 4)
        finally:
            tracer.send_signal(signal.SIGKILL)
            tracer.communicate(timeout=DEADLINE_S)
        deadline = time.monotonic() + DEADLINE_S
        while [byte_at(target.pid, point) for point in points] != before:
            assert time.monotonic() < deadline, f"probes are left (seed {seed})"
            time.sleep(0.005)
    assert Host().process_id(target.pid)


def test_every_format_has_the_sites(start_target):
    outcome = traced(start_target("guarded").pid, 6)
    for format in Format:
        content = render(outcome, format)
        if format is Format.PPROF:
            content = gzip.decompress(content)
        assert b"leak" in content
    assert json.loads(render(outcome, Format.SPEEDSCOPE))["shared"]["frames"]


def test_the_command_tells_the_conclusion_first(start_target, tmp_path):
    output = tmp_path / "profile.pb.gz"
    command = [sys.executable, "-m", "mwtrace", "trace", str(start_target("guarded").pid)]
    command += ["--seconds", "6", "--budget", "20%"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    assert "is allocated in" in done.stdout.splitlines()[0]
    assert ":leak (audited survivors)" in done.stdout.splitlines()[0]
    assert done.stderr == ""
    command += ["--growth-only", "--format", "pprof", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    assert done.stdout == ""
    assert "is first touched in" in done.stderr.splitlines()[0]
    assert output.read_bytes()[:2] == b"\x1f\x8b"


def test_doctor_shows_where_probes_would_sit(start_target):
    command = [sys.executable, "-m", "mwtrace", "doctor", "--probes"]
    command.append(str(start_target("guarded").pid))
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "cheap" in rows["malloc"]
    assert "ns a hit" in done.stdout
