"""A snapshot file as it is written: wraps ``cext/pack.h``.

Knows chunks and the table of strings, and nothing of what is in them.
"""

from __future__ import annotations

import json
import os

from mwtrace.capi import ffi, lib

THREADS = 2  # that compress: zlib takes longer than finding the objects does


class Pack:
    """``struct mw_pack``: chunks in, compressed bytes out."""

    def __init__(self, descriptor: int, bytes_max: int) -> None:
        made = ffi.new("struct mw_pack **")
        check_written(lib.mw_pack_create(descriptor, THREADS, bytes_max, made))
        self.c = made[0]

    def __enter__(self) -> Pack:
        return self

    def __exit__(self, *_: object) -> None:
        lib.mw_pack_destroy(self.c)
        self.c = ffi.NULL

    def put(self, data: bytes) -> None:
        check_written(lib.mw_pack_put(self.c, data, len(data)))

    def chunk(self, kind: bytes, data: bytes) -> None:
        check_written(lib.mw_pack_begin(self.c, kind, len(data)))
        self.put(data)

    def json(self, kind: bytes, value: object) -> None:
        self.chunk(kind, json.dumps(value).encode())

    def finish(self) -> None:
        check_written(lib.mw_pack_finish(self.c))

    def sizes(self) -> tuple[int, int]:
        totals = ffi.new("struct mw_pack_totals *")
        lib.mw_pack_get_totals(self.c, totals)
        return int(totals.plain_bytes), int(totals.packed_bytes)


class Strings:
    """Numbers texts as the file's string table does, on from what C has written."""

    def __init__(self, pack: Pack, first: int) -> None:
        self._pack = pack
        self._first = first
        self._numbers: dict[str, int] = {}
        self._new: list[str] = []

    def number(self, text: str) -> int:
        number = self._numbers.get(text)
        if number is None:
            number = self._numbers[text] = self._first + len(self._numbers)
            self._new.append(text)
        return number

    def flush(self) -> None:
        if self._new:
            self._pack.json(b"STRS", self._new)
            self._new = []


def check_written(rc: int) -> None:
    """Raise OSError for the errno that ended a file."""
    if rc:
        raise OSError(-rc, os.strerror(-rc))
