"""A snapshot file read in the plainest way, for tests: everything in dicts."""

from __future__ import annotations

import array
import gzip
import json
import struct
from pathlib import Path
from typing import Any


class ReadSnapshot:
    def __init__(self, path: Path | str) -> None:
        data = gzip.decompress(Path(path).read_bytes())
        assert data[:8] == b"MWSNAP\0\1"
        self.head: dict[str, Any] = {}
        self.end: dict[str, Any] = {}
        self.types: dict[int, str] = {}
        self.type_of: dict[int, int] = {}
        self.size_bytes: dict[int, int] = {}
        self.references: dict[int, int] = {}
        self.referents: dict[int, list[int]] = {}
        self.strings: list[str] = []
        self.names: dict[tuple[int, int], tuple[str, int]] = {}
        self.roots: list[tuple[int, str, int]] = []
        self.duplicates = 0
        at = 8
        while at < len(data):
            kind, length = struct.unpack_from("<4sQ", data, at)
            payload = data[at + 12 : at + 12 + length]
            assert len(payload) == length
            at += 12 + length
            getattr(self, "_" + kind.decode().strip().lower())(payload)
        assert self.end, "no END"

    def of_type(self, ending: str) -> list[int]:
        wanted = {one for one, name in self.types.items() if name.endswith(ending)}
        return [one for one, type_id in self.type_of.items() if type_id in wanted]

    def named(self, source: int, text: str) -> int:
        """Return what source, or the dict of its attributes, calls by that name."""
        for holder in (source, *self.referents[source]):
            for target in self.referents.get(holder, ()):
                if self.names.get((holder, target), ("", 0))[0] == text:
                    return target
        raise KeyError(text)

    def module(self, name: str) -> int:
        return next(one for one, text, kind in self.roots if kind == 0 and text == name)

    def _head(self, payload: bytes) -> None:
        self.head = json.loads(payload)

    def _end(self, payload: bytes) -> None:
        self.end = json.loads(payload)

    def _type(self, payload: bytes) -> None:
        self.types.update((row[0], row[1]) for row in json.loads(payload))

    def _strs(self, payload: bytes) -> None:
        self.strings += json.loads(payload)

    def _bigs(self, payload: bytes) -> None:
        numbers = array.array("Q", payload)
        self.size_bytes.update(zip(numbers[::2], numbers[1::2]))

    def _objs(self, payload: bytes) -> None:
        count = struct.unpack_from("<I", payload)[0]
        columns, at = [], 8
        for code in "QQIII":
            column = array.array(code)
            length = count * column.itemsize
            column.frombytes(payload[at : at + length])
            columns.append(column)
            at += length
        referents = array.array("Q", payload[at:])
        ids, type_ids, sizes, references, lengths = columns
        first = 0
        for row in zip(ids, type_ids, sizes, references, lengths):
            one, type_id, size, count, length = row
            self.duplicates += one in self.type_of
            self.type_of[one] = type_id
            self.size_bytes.setdefault(one, size)
            self.references[one] = count
            self.referents[one] = list(referents[first : first + length])
            first += length
        assert first == len(referents)

    def _name(self, payload: bytes) -> None:
        count = struct.unpack_from("<I", payload)[0]
        at = 4
        columns = []
        for code in "QQIB":
            column = array.array(code)
            length = count * column.itemsize
            column.frombytes(payload[at : at + length])
            columns.append(column)
            at += length
        for source, target, string, kind in zip(*columns):
            self.names[source, target] = (self.strings[string], kind)

    def _root(self, payload: bytes) -> None:
        count = struct.unpack_from("<I", payload)[0]
        ids = array.array("Q", payload[4 : 4 + 8 * count])
        strings = array.array("I", payload[4 + 8 * count : 4 + 12 * count])
        kinds = payload[4 + 12 * count :]
        for one, string, kind in zip(ids, strings, kinds):
            self.roots.append((one, self.strings[string], kind))
