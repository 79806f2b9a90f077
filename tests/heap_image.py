"""Made-up memory of a CPython process, for readers that must not trust it.

``HeapImage`` lays out pages at chosen addresses; ``Regions`` opens them as if they were a process.
"""

from __future__ import annotations

import struct
from types import TracebackType

from mwtrace.capi import ffi, lib

PAGE = 4096
BASE = 0x7F0000000000
READY, GC, HEAPTYPE = 1 << 12, 1 << 14, 1 << 9
SUBCLASS = {"int": 24, "list": 25, "tuple": 26, "bytes": 27, "str": 28, "dict": 29, "type": 31}
MINOR = 11


class HeapImage:
    """One writable mapping with type objects at its start and whatever a test puts behind them."""

    def __init__(self, pages: int = 64) -> None:
        self.memory = bytearray(pages * PAGE)
        self.types: dict[str, int] = {}
        self._at = 0
        self.type_type = self.add_type("type", 904, 40, GC | 1 << 31)
        for name, basic, item, flags in (
            ("int", 24, 4, 1 << 24),
            ("list", 40, 0, GC | 1 << 25),
            ("tuple", 24, 8, GC | 1 << 26),
            ("bytes", 33, 1, 1 << 27),
            ("str", 80, 0, 1 << 28),
            ("dict", 48, 0, GC | 1 << 29),
            ("set", 200, 0, GC),
            ("collections.deque", 232, 0, GC),
            ("bytearray", 56, 0, 0),
            ("app.Plain", 32, 0, 0),
            ("app.Sized", 32, 8, 0),
            ("generator", 152, 8, GC),
        ):
            self.add_type(name, basic, item, flags)
        self._at = (self._at + PAGE - 1) // PAGE * PAGE
        self.free = self._at

    def address(self, offset: int) -> int:
        return BASE + offset

    def put(self, offset: int, *words: int) -> None:
        for i, word in enumerate(words):
            struct.pack_into("<Q", self.memory, offset + 8 * i, word & (1 << 64) - 1)

    def add_type(self, name: str, basic: int, item: int, flags: int) -> int:
        offset = self._at
        self._at += 512 + 64
        address = self.address(offset)
        meta = self.types.get("type", address)
        self.put(offset, 1, meta, 0, self.address(offset + 512), basic, item)
        self.put(offset + 168, READY | flags)
        self.memory[offset + 512 : offset + 512 + len(name)] = name.encode()
        self.types[name] = address
        return address

    def regions(self) -> Regions:
        return Regions([(BASE, bytes(self.memory), lib.MW_MAPPING_READ | lib.MW_MAPPING_WRITE)])

    def interpreter(self):
        c = ffi.new("struct mw_interpreter *")
        c.type_type, c.minor = self.type_type, MINOR
        return c


class Regions:
    """An image opened as regions; a context manager."""

    def __init__(self, pieces: list[tuple[int, bytes, int]]) -> None:
        self._held = [ffi.new("char[]", data) for _, data, _ in pieces]
        self._pieces = ffi.new("struct mw_piece[]", len(pieces))
        for piece, held, (address, data, flags) in zip(self._pieces, self._held, pieces):
            piece.address, piece.size_bytes, piece.flags = address, len(data), flags
            piece.bytes = held
        opened = ffi.new("struct mw_regions **")
        assert lib.mw_regions_open_image(self._pieces, len(pieces), opened) == 0
        self.c = opened[0]

    def __enter__(self):
        return self.c

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        lib.mw_regions_close(self.c)


def census_totals(regions, interpreter):
    """Take a census; return its totals as a dictionary and the rows by name."""
    taken = ffi.new("struct mw_census **")
    assert lib.mw_census_take(regions, interpreter, ffi.NULL, 0, ffi.NULL, taken) == 0
    totals = ffi.new("struct mw_census_totals *")
    lib.mw_census_get_totals(taken[0], totals)
    rows = ffi.new("struct mw_census_row[]", 64)
    found = {}
    buffer = ffi.new("char[128]")
    for i in range(min(64, lib.mw_census_rows(taken[0], rows, 64))):
        lib.mw_census_name(taken[0], rows[i].type, buffer, 128)
        found[ffi.string(buffer).decode("utf-8", "replace")] = (rows[i].objects, rows[i].bytes)
    values = {field: getattr(totals, field) for field, _ in ffi.typeof(totals).item.fields}
    lib.mw_census_destroy(taken[0])
    return values, found
