"""Which allocators and interpreters a process has mapped, and which of their functions to probe.

Every mapped file is asked for every name: whichever library defines ``malloc`` (libc, a preloaded
jemalloc, the executable itself) is a place where blocks come from, and a definition that nobody
calls costs nothing. It must not know where in a function a probe sits, nor attach one.
"""

from __future__ import annotations

import os
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from mwtrace.errors import ProcessGone
from mwtrace.host.elf import ElfError, ElfFacts, Symbol, find_symbols, open_regular, read_facts
from mwtrace.host.mappings import Mapping, read_mappings
from mwtrace.probes.points import AttachPoint, Call, Domain, Layer

FILES_PER_PROCESS_MAX = 1024
FILES_REMEMBERED = 512


class Function(NamedTuple):
    """A function we know the meaning of."""

    call: Call
    domain: Domain
    layer: Layer
    is_covered: bool = False


def _native(call: Call, layer: Layer = Layer.LIBC, is_covered: bool = False) -> Function:
    return Function(call, Domain.NATIVE, layer, is_covered)


def _operators() -> Iterator[tuple[str, Function]]:
    # libstdc++'s and libc++'s call malloc and free of the same process, so deletes are covered;
    # those that allocator libraries bring are not (see points_of). New is not covered although it
    # ends in malloc: it keeps no frame pointer, so seen from malloc its caller is missing, and
    # that is whom we want to name.
    aligned = "St11align_val_t"
    nothrow = "RKSt9nothrow_t"
    for letter, layer in (("w", Layer.OPERATOR_NEW), ("a", Layer.OPERATOR_NEW_ARRAY)):
        for tail in ("", nothrow, aligned, aligned + nothrow):
            yield f"_Zn{letter}m{tail}", _native(Call.MALLOC, layer)
    for letter, layer in (("l", Layer.OPERATOR_NEW), ("a", Layer.OPERATOR_NEW_ARRAY)):
        for tail in ("", "m", nothrow, aligned, "m" + aligned, aligned + nothrow):
            yield f"_Zd{letter}Pv{tail}", _native(Call.FREE, layer, True)


def _allocator_names(prefix: str) -> Iterator[tuple[str, Function]]:
    for name, call, layer in (
        ("malloc", Call.MALLOC, Layer.LIBC),
        ("calloc", Call.CALLOC, Layer.LIBC_OVER),
        ("realloc", Call.REALLOC, Layer.LIBC_OVER),
        ("free", Call.FREE, Layer.LIBC),
        ("posix_memalign", Call.POSIX_MEMALIGN, Layer.LIBC_WRAPPER),
        ("aligned_alloc", Call.ALIGNED, Layer.LIBC_WRAPPER),
        ("memalign", Call.ALIGNED, Layer.LIBC_OVER),
        ("valloc", Call.MALLOC, Layer.LIBC_WRAPPER),
        ("pvalloc", Call.MALLOC, Layer.LIBC_WRAPPER),
    ):
        yield prefix + name, _native(call, layer)
    yield prefix + "reallocarray", _native(Call.REALLOCARRAY, Layer.LIBC_WRAPPER, True)


def _python(name: str, domain: Domain, layer: Layer) -> Iterator[tuple[str, Function]]:
    for suffix, call in {
        "Malloc": Call.MALLOC,
        "Calloc": Call.CALLOC,
        "Realloc": Call.REALLOC,
        "Free": Call.FREE,
    }.items():
        # The raw domain is libc's malloc behind a thin wrapper.
        yield name + suffix, Function(call, domain, layer, domain is Domain.PY_RAW)


FUNCTIONS: dict[str, Function] = {
    **dict(_allocator_names("")),
    **dict(_operators()),
    # Allocators that were built with a prefix of their own: jemalloc in redis and in Rust,
    # tcmalloc's and mimalloc's direct interfaces.
    **{n: f for p in ("je_", "_rjem_", "tc_", "mi_") for n, f in _allocator_names(p)},
    **{f"{prefix}mallocx": _native(Call.MALLOC) for prefix in ("", "je_", "_rjem_")},
    **{
        f"{prefix}rallocx": _native(Call.REALLOC, Layer.LIBC_OVER)
        for prefix in ("", "je_", "_rjem_")
    },
    **{
        f"{prefix}{n}": _native(Call.FREE)
        for prefix in ("", "je_", "_rjem_")
        for n in ("dallocx", "sdallocx")
    },
    "free_sized": _native(Call.FREE),  # C23
    "free_aligned_sized": _native(Call.FREE),
    **dict(_python("PyObject_", Domain.PY_OBJECT, Layer.PY_OBJECT)),
    **dict(_python("PyMem_", Domain.PY_MEM, Layer.PY_MEM)),
    **dict(_python("PyMem_Raw", Domain.PY_RAW, Layer.PY_RAW)),
}

# The collector where no USDT probe was built in: static functions, under the names that
# compilers give them and their copies. 3.8 says `collect`, later ones `gc_collect_main`.
GC_FUNCTIONS = tuple(
    name + suffix
    for name in ("gc_collect_main", "collect")
    for suffix in ("", ".constprop.0", ".constprop.1", ".isra.0", ".lto_priv.0")
)
GC_USDT = {("python", "gc__start"), ("python", "gc__done")}
GC = Function(Call.GC, Domain.PY_OBJECT, Layer.PY_OBJECT)
IS_PYTHON = "PyObject_Malloc"
# libstdc++'s operator new calls malloc; an allocator that defines malloc beside it does not.
DEFINES_MALLOC = "malloc"


class GcSource(NamedTuple):
    """How the garbage collector can be watched, for ``doctor``."""

    how: str  # "usdt", "function" or "poll"
    points: tuple[AttachPoint, ...]  # starts; for a function its return is the end


class Target(NamedTuple):
    """What of a process can be probed."""

    points: tuple[AttachPoint, ...]  # not placed yet
    gc: GcSource | None  # None: no CPython in it
    allocators: tuple[str, ...]  # files that define malloc, as the process names them
    unreadable: tuple[tuple[str, str], ...]  # file, reason: not asked
    files_omitted: int  # beyond FILES_PER_PROCESS_MAX


class _File(NamedTuple):
    facts: ElfFacts
    symbols: dict[str, Symbol]


class Targets:
    """Looks at processes; remembers files, since a host has many processes and few libraries."""

    def __init__(self) -> None:
        self._files: OrderedDict[tuple[int, int, int, int], _File] = OrderedDict()

    def look_at(self, pid: int) -> Target:
        """Find every function of a process that we know. Raises ProcessError."""
        points: list[AttachPoint] = []
        allocators: list[str] = []
        unreadable: list[tuple[str, str]] = []
        gc: GcSource | None = None
        mapped = _one_per_file(read_mappings(pid))
        for mapping in mapped[:FILES_PER_PROCESS_MAX]:
            path = mapping.open_path(pid)
            try:
                file = self._file(path)
            except ElfError as error:
                unreadable.append((mapping.path, str(error)))
                continue
            if _is_loader(mapping.path, file):
                continue
            points += points_of(file.symbols.values(), path)
            if DEFINES_MALLOC in file.symbols:
                allocators.append(mapping.path)
            if IS_PYTHON in file.symbols and gc is None:
                gc = gc_source(file.facts, file.symbols, path)
        return Target(
            tuple(points),
            gc,
            tuple(allocators),
            tuple(unreadable),
            max(0, len(mapped) - FILES_PER_PROCESS_MAX),
        )

    def _file(self, path: str) -> _File:
        fd = open_regular(path)
        try:
            status = os.fstat(fd)
            key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            file = self._files.get(key)
            if file is None:
                names = (*FUNCTIONS, *GC_FUNCTIONS)
                found = find_symbols(fd, names)
                symbols = {
                    name: symbol
                    for name, symbol in found.items()
                    # A static function called `free` is somebody's own.
                    if name in GC_FUNCTIONS or not symbol.is_local
                }
                # pyelftools is a hundred times slower than C: only where something was found.
                file = _File(read_facts(fd) if symbols else _NOTHING, symbols)
                self._files[key] = file
                while len(self._files) > FILES_REMEMBERED:
                    self._files.popitem(last=False)
            self._files.move_to_end(key)
            return file
        finally:
            os.close(fd)


_NOTHING = ElfFacts("", 64, "", False, False, (), (), ())


def points_of(symbols: Iterable[Symbol], path: str) -> list[AttachPoint]:
    """Turn a file's known functions into points; names of one place are one point."""
    by_name = {symbol.name: symbol for symbol in symbols}
    taken: set[int] = set()
    points = []
    for name, function in FUNCTIONS.items():
        symbol = by_name.get(name)
        if symbol is None or symbol.file_offset in taken:
            continue
        taken.add(symbol.file_offset)
        is_covered = function.is_covered
        if name.startswith("_Z") and DEFINES_MALLOC in by_name:
            is_covered = False
        points.append(
            AttachPoint(
                name,
                path,
                symbol.file_offset,
                symbol.size_bytes,
                function.call,
                function.domain,
                function.layer,
                is_covered=is_covered,
            )
        )
    return points


def gc_source(facts: ElfFacts, symbols: dict[str, Symbol], path: str) -> GcSource:
    """Find the best way to see a CPython's collections."""
    marked = [probe for probe in facts.usdt if (probe.provider, probe.name) in GC_USDT]
    if {probe.name for probe in marked} == {"gc__start", "gc__done"}:
        points = tuple(
            AttachPoint(
                f"{probe.provider}:{probe.name}",
                path,
                probe.file_offset,
                0,
                GC.call,
                GC.domain,
                GC.layer,
                semaphore_offset=probe.semaphore_offset,
            )
            for probe in marked
        )
        return GcSource("usdt", points)
    functions = tuple(
        AttachPoint(
            name,
            path,
            symbols[name].file_offset,
            symbols[name].size_bytes,
            GC.call,
            GC.domain,
            GC.layer,
        )
        for name in GC_FUNCTIONS
        if name in symbols
    )
    return GcSource("function", functions) if functions else GcSource("poll", ())


def follow_tails(
    pid: int, points: Sequence[AttachPoint], read_word: Callable[[int], int] | None = None
) -> list[AttachPoint]:
    """Replace dear forwarders by the function they forward to in this process.

    CPython's ``PyObject_Free`` is three instructions, none of them emulated, and jumps through
    the allocator table in memory: what stands there (pymalloc, a debug hook, a profiler's) takes
    the same block one argument later and mostly begins cheaply. The points that come instead
    are to be placed again; several forwarders may lead to one function, which is then one point.
    """
    read = read_word or _reader(pid)
    mappings = read_mappings(pid)
    kept: list[AttachPoint] = []
    seen: set[tuple[str, int]] = set()
    for point in points:
        inner = _inner(pid, point, mappings, read)
        if inner is None:
            kept.append(point)
        elif (inner.path, inner.function_offset) not in seen:
            seen.add((inner.path, inner.function_offset))
            kept.append(inner)
    return kept


def without_dear_news(points: Sequence[AttachPoint]) -> list[AttachPoint]:
    """Leave out what ends in a malloc that is probed, where a hit would be single-stepped.

    Counts do not tell which point was hit, so one dear point makes all of them dear; and of these
    nothing is lost but the caller's name (see ``_operators``).
    """
    allocators = {point.path for point in points if point.symbol == DEFINES_MALLOC}
    news = (Layer.OPERATOR_NEW, Layer.OPERATOR_NEW_ARRAY)

    def is_dear_new(point: AttachPoint) -> bool:
        is_emulated = point.placement is not None and point.placement.is_emulated
        return point.layer in news and point.path not in allocators and not is_emulated

    return [point for point in points if not is_dear_new(point)]


def python_is_inlined(points: Iterable[AttachPoint]) -> bool:
    """Whether this CPython has its allocator copied into its callers, so that probes miss blocks.

    Link-time optimization (Debian's and Ubuntu's builds) puts pymalloc into ``PyObject_Free`` and
    both into whoever allocates strings, ints and floats: of 2,000 strings the probes see none.
    Elsewhere ``PyObject_Free`` only forwards, and ``follow_tails`` has replaced it.
    """
    return any(point.symbol == "PyObject_Free" for point in points)


def _inner(
    pid: int, point: AttachPoint, mappings: Sequence[Mapping], read: Callable[[int], int]
) -> AttachPoint | None:
    place = point.placement
    if place is None or place.is_emulated or place.tail is None:
        return None
    try:
        fd = open_regular(point.path)
        try:
            facts = read_facts(fd)
        finally:
            os.close(fd)
        bias = _bias(pid, point, facts, mappings)
        if bias is None:
            return None
        word = read(place.tail.address + bias)
        for offset in place.tail.offsets:
            word = read(word + offset)
    except (ElfError, OSError, struct.error, ValueError, OverflowError):
        return None
    for mapping in mappings:
        if mapping.is_executable and mapping.start <= word < mapping.end:
            return AttachPoint(
                f"{point.symbol} >",
                mapping.open_path(pid),
                word - mapping.start + mapping.file_offset,
                0,
                point.call,
                point.domain,
                Layer.PY_INNER,
                argument_shift=place.tail.argument_shift,
                is_covered=point.is_covered,
            )
    return None


def _bias(pid: int, point: AttachPoint, facts: ElfFacts, mappings: Sequence[Mapping]) -> int | None:
    # How far the file's addresses were moved when it was loaded.
    address = facts.address_of(point.function_offset)
    for mapping in mappings:
        if mapping.is_executable and mapping.open_path(pid) == point.path and address is not None:
            return point.function_offset - mapping.file_offset + mapping.start - address
    return None


def _reader(pid: int) -> Callable[[int], int]:
    def read_word(address: int) -> int:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            word: int = struct.unpack("<Q", os.pread(memory.fileno(), 8, address))[0]
            return word

    if not os.path.exists(f"/proc/{pid}"):
        raise ProcessGone(f"process {pid} is gone")
    return read_word


def _one_per_file(mappings: Iterable[Mapping]) -> list[Mapping]:
    files: dict[tuple[str, int], Mapping] = {}
    for mapping in mappings:
        if mapping.is_executable:
            files.setdefault((mapping.device, mapping.inode), mapping)
    return list(files.values())


def _is_loader(path: str, file: _File) -> bool:
    # glibc's loader has a malloc of its own for its own start (until 2.25 under that very name);
    # musl's loader is its libc.
    return os.path.basename(path).startswith("ld-linux")
