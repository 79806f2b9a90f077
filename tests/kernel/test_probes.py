"""Probes at their places, in real processes: hit exactly as often as the function is called."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from hit_counter import HitCounter, byte_at, placed_points
from interpreters import SYSTEM, calls_its_own_exports, interpreters, label
from target import Target

from mwtrace.host.elf import open_regular, read_facts
from mwtrace.host.mappings import read_mappings
from mwtrace.probes.attach import AttachKind, attach_kind_of_host, heal
from mwtrace.probes.points import AttachPoint, Call
from mwtrace.probes.targets import Targets, python_is_inlined

pytestmark = pytest.mark.kernel
# Not importorskip: beside a sanitizer, under which these are only collected, importing it ends us.
if find_spec("capstone") is None:
    pytest.skip("the extra 'trace' is not installed", allow_module_level=True)

PRIME = 1009
BREAKPOINT = b"\xcc"
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
PRELOADED = ["libjemalloc.so.2", "libtcmalloc_minimal.so.4", "libmimalloc.so.2.0"]
# Call of the target -> which argument comes first, and its value each time (None: an address).
CALLS = {
    "malloc": 24,
    "calloc": 3,
    "realloc": None,
    "posix_memalign": None,
    "aligned_alloc": 64,
    "free": None,
}


@pytest.fixture(params=list(AttachKind), ids=lambda kind: kind.name.lower())
def counter(request, tmp_path_factory):
    host = attach_kind_of_host()
    if request.param in host.refused:
        pytest.skip(f"{request.param.value}: {host.refused[request.param]}")
    made = HitCounter(tmp_path_factory.mktemp("hits"), request.param)
    yield made
    made.close()


@pytest.fixture
def best_counter(tmp_path):
    made = HitCounter(tmp_path, attach_kind_of_host().kind)
    yield made
    made.close()


def uprobe_events() -> str:
    """What tracefs knows of, through a mount that ends with the process that made it."""
    script = "mount -t tracefs none /mnt && cat /mnt/uprobe_events"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def check_calls(target: Target, counter: HitCounter, points: list[AttachPoint]) -> None:
    report = counter.attach(target.pid, points)
    try:
        assert report.refused == ()
        names = [point.symbol for point in points]
        for call, argument in CALLS.items():
            # Aliases of one place go by the first name.
            if call not in names:
                continue
            index = names.index(call)
            before = counter.seen(index)
            target.ask(f"{call} {PRIME}")
            after = counter.seen(index)
            assert after.hits - before.hits == PRIME, (call, points[index])
            if points[index].call.needs_return:
                assert after.returns - before.returns == PRIME, (call, points[index])
            if argument is not None:
                assert after.sum - before.sum == argument * PRIME, (call, points[index])
            assert after.other_pids == 0
    finally:
        report.detach()


def test_every_function_of_libc_is_hit_exactly_as_often_as_it_is_called(counter, start_target):
    target = start_target("allocates")
    counter.allow(target.pid)
    points = placed_points(target.pid)
    assert {p.symbol for p in points} >= set(CALLS)
    check_calls(target, counter, points)


@pytest.mark.parametrize("library", PRELOADED)
def test_so_are_those_of_another_allocator(library, best_counter, compile_target):
    if not (LIBRARIES / library).exists():
        pytest.skip(f"{library} is not installed")
    target = Target(["env", f"LD_PRELOAD={LIBRARIES / library}", str(compile_target("allocates"))])
    try:
        target.expect("ready")
        best_counter.allow(target.pid)
        look = Targets().look_at(target.pid)
        assert any(library in path for path in look.allocators)
        points = [p for p in placed_points(target.pid) if not _is_libc(target.pid, p)]
        check_calls(target, best_counter, points)
    finally:
        target.stop()


def _is_libc(pid: int, point: AttachPoint) -> bool:
    return "/libc" in os.readlink(point.path)


def test_so_are_those_of_a_static_musl_program(best_counter, tmp_path):
    program = tmp_path / "musl"
    source = Path(__file__).parents[1] / "targets" / "allocates.c"
    try:
        command = ["musl-gcc", "-O1", "-static", "-D_GNU_SOURCE", "-o", str(program), str(source)]
        subprocess.run(command, check=True)
    except FileNotFoundError:
        pytest.skip("musl-gcc is not installed")
    target = Target([str(program)])
    try:
        target.expect("ready")
        best_counter.allow(target.pid)
        points = placed_points(target.pid)
        assert {p.symbol for p in points} >= {"malloc", "free", "calloc", "realloc"}
        check_calls(target, best_counter, points)
    finally:
        target.stop()


def test_null_frees_cost_no_trap_where_the_place_is_behind_the_test(best_counter, start_target):
    target = start_target("allocates")
    best_counter.allow(target.pid)
    (point,) = placed_points(target.pid, ("free",))
    if point.placement.offset == 0:
        pytest.skip("this libc's free begins otherwise")
    report = best_counter.attach(target.pid, [point])
    target.ask(f"malloc {PRIME}")
    target.ask(f"free_null {PRIME}")
    assert best_counter.seen(0).hits == 0
    target.ask(f"free {PRIME}")
    assert best_counter.seen(0).hits == PRIME
    assert best_counter.seen(0).nulls == 0
    report.detach()


def test_all_threads_are_seen_and_no_other_process(counter, start_target):
    target, other = start_target("allocates"), start_target("allocates")
    counter.allow(target.pid)
    points = placed_points(target.pid, ("malloc", "free"))
    report = counter.attach(target.pid, points)
    assert not report.refused
    before = [byte_at(other.pid, point) for point in placed_points(other.pid, ("malloc", "free"))]
    other.ask(f"malloc {PRIME}")
    target.ask(f"threads {PRIME}")
    report.detach()
    for index, point in enumerate(points):
        seen = counter.seen(index)
        # pthread_create() itself calls calloc and free, not malloc.
        if point.symbol == "malloc":
            assert seen.hits == 4 * PRIME
        else:
            assert seen.hits >= 4 * PRIME
        assert seen.other_pids == 0
    assert BREAKPOINT not in before


def test_nothing_is_left_behind(counter, start_target):
    target = start_target("allocates")
    counter.allow(target.pid)
    points = placed_points(target.pid)
    events, bytes_before = uprobe_events(), [byte_at(target.pid, point) for point in points]
    report = counter.attach(target.pid, points)
    during = [byte_at(target.pid, point) for point in points]
    report.detach()
    assert set(during) == {BREAKPOINT}
    assert [byte_at(target.pid, point) for point in points] == bytes_before
    assert uprobe_events() == events
    target.ask(f"malloc {PRIME}")
    assert all(counter.seen(index).hits == 0 for index in range(len(points)))


def test_a_place_that_another_tool_holds_is_refused_with_the_reason(
    counter, compile_target, tmp_path
):
    # A libc of its own: what a place of a file is held with binds the whole host.
    own = tmp_path / "libc.so.6"
    shutil.copy(_libc_of(os.getpid()), own)
    target = Target(["env", f"LD_PRELOAD={own}", str(compile_target("allocates"))])
    try:
        target.expect("ready")
        counter.allow(target.pid)
        points = placed_points(target.pid, ("malloc", "calloc", "free"))
        assert {os.readlink(point.path) for point in points} == {str(own)}
        (malloc,) = [point for point in points if point.symbol == "malloc"]
        held = counter.attach(target.pid, [malloc._replace(semaphore_offset=_data_of(own))])
        assert len(held.attached) == 1
        report = counter.attach(target.pid, points)
        assert [refusal.point.symbol for refusal in report.refused] == ["malloc"]
        assert "another tool" in report.refused[0].reason
        assert report.refused[0].remedy
        assert {point.symbol for point in report.attached} == {"calloc", "free"}
        calloc = points.index(next(point for point in points if point.symbol == "calloc"))
        before = counter.seen(calloc).hits
        target.ask(f"calloc {PRIME}")
        assert counter.seen(calloc).hits - before >= PRIME
        report.detach()
        held.detach()
    finally:
        target.stop()


def test_healing_a_healthy_process_changes_nothing(start_target):
    target = start_target("allocates")
    points = placed_points(target.pid)
    before = [byte_at(target.pid, point) for point in points]
    if AttachKind.MULTI in attach_kind_of_host().refused:
        pytest.skip("needs multi links")
    assert heal(target.pid, points)
    assert [byte_at(target.pid, point) for point in points] == before
    target.ask(f"malloc {PRIME}")


def _libc_of(pid: int) -> str:
    return next(m.path for m in read_mappings(pid) if os.path.basename(m.path) == "libc.so.6")


def _data_of(path: Path) -> int:
    """Some writable place of a file, as bcc's stack garbage would name one."""
    fd = open_regular(str(path))
    try:
        data = next(segment for segment in read_facts(fd).segments if segment.is_writable)
    finally:
        os.close(fd)
    return (data.file_offset + data.file_bytes - 2) & ~1


def test_a_process_that_is_gone_is_a_value_in_the_report(counter, start_target):
    target = start_target("allocates")
    points = placed_points(target.pid, ("malloc", "free"))
    # Paths through another process, so that only the pid is missing.
    living = start_target("allocates")
    paths = {p.symbol: p.path for p in placed_points(living.pid, ("malloc", "free"))}
    points = [point._replace(path=paths[point.symbol]) for point in points]
    target.stop()
    report = counter.attach(target.pid, points)
    assert report.links == ()
    assert len(report.refused) == 2


WORK = """
import sys
print("ready", flush=True)
for line in sys.stdin:
    for i in range(int(line)):
        kept = [(i, str(i), float(i)) for i in range(100)]
        text = bytes(1000)
        kept = text = None
    print("done", flush=True)
"""


# Of builds with link-time optimisation only the distribution's own: those of 3.15 call none of
# their exports for this, and in 3.13 and 3.14 some begin with what cannot be emulated.
FORWARDING = [*filter(calls_its_own_exports, interpreters(oldest_minor=6)), str(SYSTEM)]


@pytest.mark.parametrize("program", FORWARDING, ids=label)
def test_python_frees_are_seen_where_the_forwarder_leads(program, best_counter):
    target = Target([program, "-c", WORK])
    try:
        target.expect("ready")
        best_counter.allow(target.pid)
        points = placed_points(target.pid)
        by_name = {point.symbol: point for point in points}
        assert all(p.placement.is_emulated for p in points if p.symbol.startswith("Py"))
        exact = {p.symbol: p for p in Targets().look_at(target.pid).points}
        names = ["PyObject_Free", "PyMem_Free", "PyObject_Realloc", "PyMem_Realloc"]
        watched = [exact[name] for name in names]
        inner = by_name.get("PyObject_Free >") or by_name["PyObject_Free"]
        report = best_counter.attach(target.pid, [*watched, inner])
        assert not report.refused
        target.ask("20")
        report.detach()
        outer = {name: best_counter.seen(i) for i, name in enumerate(names)}
        seen = best_counter.seen(len(names))
        assert outer["PyObject_Free"].hits >= 20
        if python_is_inlined(points):
            # The place is inside PyObject_Free itself.
            assert inner.argument_shift == 0
            assert seen.hits == outer["PyObject_Free"].hits
            assert seen.sum == outer["PyObject_Free"].sum
        else:
            # pymalloc's own realloc frees the old block through it; null frees do not arrive.
            assert inner.argument_shift == 1
            told = sum(outer[name].hits - outer[name].nulls for name in names[:2])
            moved = sum(outer[name].hits for name in names[2:])
            assert outer["PyObject_Free"].hits > 1000
            assert told <= seen.hits - seen.nulls <= told + moved
    finally:
        target.stop()


COLLECT = """
import gc, sys
gc.disable()
print("ready", flush=True)
for line in sys.stdin:
    for i in range(int(line)):
        gc.collect()
    print("done", flush=True)
"""


def test_gc_places_are_hit_once_per_collection(best_counter):
    target = Target([str(SYSTEM), "-c", COLLECT])
    try:
        target.expect("ready")
        best_counter.allow(target.pid)
        source = Targets().look_at(target.pid).gc
        assert source is not None
        if source.how == "poll":
            pytest.skip("this Python has neither USDT probes nor symbols")
        report = best_counter.attach(target.pid, list(source.points))
        assert not report.refused
        target.ask("23")
        report.detach()
        assert [best_counter.seen(i).hits for i in range(len(source.points))] == [23] * len(
            source.points
        )
        assert all(point.call is Call.GC for point in source.points)
    finally:
        target.stop()
