"""Which functions of a process are points, and what its maps may look like."""

from __future__ import annotations

import os

import pytest

from mwtrace.host.elf import ElfFacts, Segment, Symbol, UsdtProbe
from mwtrace.host.mappings import LINES_MAX, parse_mappings
from mwtrace.probes.points import AttachPoint, Call, Domain, Layer, Placement
from mwtrace.probes.targets import (
    FUNCTIONS,
    Targets,
    gc_source,
    points_of,
    without_dear_news,
)

PATH = "/proc/1/map_files/1000-2000"


def symbols(*names: str) -> list[Symbol]:
    return [Symbol(name, 0x1000 + 16 * i, 0x1000 + 16 * i, 16) for i, name in enumerate(names)]


def test_functions_get_their_call_domain_and_layer():
    made = points_of(symbols("malloc", "PyObject_Free", "_Znam", "unknown"), PATH)
    points = {p.symbol: p for p in made}
    assert set(points) == {"malloc", "PyObject_Free", "_Znam"}
    assert points["malloc"].call is Call.MALLOC
    assert points["PyObject_Free"].call is Call.FREE
    assert points["PyObject_Free"].domain is Domain.PY_OBJECT
    assert points["PyObject_Free"].layer > points["malloc"].layer
    assert points["malloc"].file_offset == 0x1000


def test_names_of_one_place_are_one_point():
    same = [Symbol(name, 0x40, 0x40, 16) for name in ("memalign", "aligned_alloc", "tc_memalign")]
    (point,) = points_of(same, PATH)
    assert point.call is Call.ALIGNED


def test_deletes_of_libstdcxx_are_covered_by_free_and_those_of_an_allocator_are_not():
    alone = {p.symbol: p for p in points_of(symbols("_Znwm", "_ZdlPvm"), PATH)}
    assert (alone["_Znwm"].layer, alone["_Znwm"].is_covered) == (Layer.OPERATOR_NEW, False)
    assert (alone["_ZdlPvm"].layer, alone["_ZdlPvm"].is_covered) == (Layer.OPERATOR_NEW, True)
    own = {p.symbol: p for p in points_of(symbols("malloc", "_Znwm", "_ZdlPvm"), PATH)}
    assert (own["_Znwm"].layer, own["_Znwm"].is_covered) == (Layer.OPERATOR_NEW, False)
    assert (own["_ZdlPvm"].call, own["_ZdlPvm"].is_covered) == (Call.FREE, False)


def test_a_new_that_ends_in_malloc_is_left_out_where_its_probe_would_be_dear():
    cheap = Placement(0, "push rbp", True, "")
    dear = Placement(0, "mov rax, rdi", False, "")

    def placed(path: str, **places: Placement) -> list[AttachPoint]:
        points = points_of(symbols(*places), path)
        return [point._replace(placement=places[point.symbol]) for point in points]

    libc = placed("libc", malloc=dear, free=cheap)
    libstdcxx = placed("libstdc++", _Znwm=cheap, _Znam=dear, _ZnwmRKSt9nothrow_t=dear)
    jemalloc = placed("libjemalloc", malloc=cheap, _Znwm=dear)
    kept = without_dear_news([*libc, *libstdcxx, *jemalloc])
    names = [(point.path, point.symbol) for point in kept]
    assert names == [
        ("libc", "malloc"),
        ("libc", "free"),
        ("libstdc++", "_Znwm"),
        ("libjemalloc", "malloc"),
        ("libjemalloc", "_Znwm"),
    ]


def test_nested_calls_go_down_the_layers():
    layers = [
        FUNCTIONS[name].layer
        for name in ("PyObject_Malloc", "PyMem_Malloc", "PyMem_RawMalloc", "_Znam", "_Znwm")
    ]
    layers += [FUNCTIONS[name].layer for name in ("reallocarray", "realloc", "free")]
    assert layers == sorted(set(layers), reverse=True)
    assert FUNCTIONS["PyMem_Malloc"].layer > Layer.PY_INNER > FUNCTIONS["PyMem_RawMalloc"].layer


def test_every_allocation_has_a_free_in_its_family():
    for prefix in ("", "je_", "_rjem_", "tc_", "mi_"):
        assert FUNCTIONS[prefix + "malloc"].call is Call.MALLOC
        assert FUNCTIONS[prefix + "free"].call is Call.FREE
    for prefix in ("PyObject_", "PyMem_", "PyMem_Raw"):
        assert FUNCTIONS[prefix + "Malloc"].domain is FUNCTIONS[prefix + "Free"].domain


FACTS = ElfFacts(
    "x86-64", 64, "", False, True, (), (Segment(0, 0, 1 << 20, 1 << 20, True, False),), ()
)
MARKS = (
    UsdtProbe("python", "gc__start", 0x50, 0x90, "-4@%edi"),
    UsdtProbe("python", "gc__done", 0x60, 0x92, "-8@%rax"),
    UsdtProbe("python", "line", 0x70, 0x94, ""),
    UsdtProbe("postgres", "gc__start", 0x80, 0, ""),
)


@pytest.mark.parametrize(
    ("marks", "names", "how", "count"),
    [
        pytest.param(MARKS, ("gc_collect_main",), "usdt", 2, id="usdt first"),
        pytest.param(MARKS[:1], ("gc_collect_main",), "function", 1, id="half of it is nothing"),
        pytest.param((), ("collect.constprop.0", "collect.constprop.1"), "function", 2, id="3.8"),
        pytest.param((), (), "poll", 0, id="stripped"),
    ],
)
def test_the_collector_is_watched_by_the_best_means(marks, names, how, count):
    facts = ElfFacts(**{**FACTS.__dict__, "usdt": marks})
    source = gc_source(facts, {symbol.name: symbol for symbol in symbols(*names)}, PATH)
    assert (source.how, len(source.points)) == (how, count)
    if how == "usdt":
        assert {point.semaphore_offset for point in source.points} == {0x90, 0x92}


def test_our_own_process_has_an_allocator_and_a_python():
    target = Targets().look_at(os.getpid())
    found = {point.symbol for point in target.points}
    assert {"malloc", "free", "PyObject_Malloc", "PyMem_RawFree"} <= found
    assert target.allocators
    assert target.gc is not None
    assert target.files_omitted == 0


def test_a_file_is_read_once_however_many_processes_map_it():
    targets = Targets()
    first = targets.look_at(os.getpid())
    files = dict(targets._files)
    assert targets.look_at(os.getpid()) == first
    assert dict(targets._files) == files


MAPS = [
    b"55d0-55e0 r-xp 00001000 08:01 77                  /usr/bin/with space (deleted)\n",
    b"7000-8000 rw-p 00000000 00:00 0                   [heap]\n",
    b"8000-9000 rw-p 00000000 00:00 0 \n",
    b"9000-a000 ---p 00002000 08:01 78                  /lib/\xff\\012x\n",
    b"strange\n",
    b"zz-yy r-xp 0 08:01 79 /x\n",
    b"a000-b000-c000 r-xp 0 08:01 79 /x\n",
    b"",
]


def test_maps_lines_that_are_strange_are_left_out():
    first, second = parse_mappings(MAPS)
    assert (first.start, first.end, first.file_offset) == (0x55D0, 0x55E0, 0x1000)
    assert first.path == "/usr/bin/with space (deleted)"
    assert first.is_executable
    assert not first.is_writable
    assert first.open_path(7) == "/proc/7/map_files/55d0-55e0"
    assert second.inode == 78
    assert not second.is_executable


def test_maps_have_an_end():
    lines = (b"%x-%x r-xp 0 08:01 7 /x\n" % (i * 16, i * 16 + 16) for i in range(2 * LINES_MAX))
    assert len(parse_mappings(lines)) == LINES_MAX
