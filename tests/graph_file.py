"""A slow and obvious reader of snapshot files, to hold the writers against.

Written from docs/snapshot-format.md alone; shares no code with either side.
"""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path


class GraphFile:
    def __init__(self, path: Path) -> None:
        data = gzip.decompress(path.read_bytes())
        assert data[:8] == b"MWSNAP\x00\x01"
        self.kinds: list[str] = []
        self.objects: dict[
            int, tuple[int, int, int, list[int]]
        ] = {}  # type, size, count, referents
        self.types: dict[int, str] = {}
        self.names: list[tuple[int, int, str, int]] = []  # source, target, text, kind
        self.roots: list[tuple[int, str, int]] = []
        self.sizes: dict[int, int] = {}
        self.edges = 0
        self._strings: list[str] = []
        at = 8
        while at < len(data):
            kind, length = struct.unpack_from("<4sQ", data, at)
            payload = data[at + 12 : at + 12 + length]
            assert len(payload) == length
            self.kinds.append(kind.decode())
            getattr(self, "_" + kind.decode().strip().lower())(payload)
            at += 12 + length
        assert self.kinds[0] == "HEAD"
        assert self.kinds[-1] == "END "
        assert self.end["objects"] == len(self.objects)
        assert self.end["edges"] == self.edges
        assert self.end["names"] == len(self.names)
        assert {row[0] for row in self.objects.values()} <= set(self.types)

    def _head(self, payload: bytes) -> None:
        self.head = json.loads(payload)

    def _end(self, payload: bytes) -> None:
        self.end = json.loads(payload)

    def _type(self, payload: bytes) -> None:
        for address, name, _ in json.loads(payload):
            self.types[address] = name

    def _strs(self, payload: bytes) -> None:
        self._strings += json.loads(payload)

    def _bigs(self, payload: bytes) -> None:
        words = struct.unpack(f"<{len(payload) // 8}Q", payload)
        self.sizes.update(zip(words[::2], words[1::2]))

    def _objs(self, payload: bytes) -> None:
        count, flags = struct.unpack_from("<II", payload)
        assert count <= 65_536
        assert flags == 0
        ids = struct.unpack_from(f"<{count}Q", payload, 8)
        types = struct.unpack_from(f"<{count}Q", payload, 8 + 8 * count)
        sizes = struct.unpack_from(f"<{count}I", payload, 8 + 16 * count)
        counts = struct.unpack_from(f"<{count}I", payload, 8 + 20 * count)
        lengths = struct.unpack_from(f"<{count}I", payload, 8 + 24 * count)
        words = struct.unpack(f"<{sum(lengths)}Q", payload[8 + 28 * count :])
        at = 0
        for one, kind, size, references, length in zip(ids, types, sizes, counts, lengths):
            assert one not in self.objects
            self.objects[one] = (kind, size, references, list(words[at : at + length]))
            at += length
        self.edges += len(words)

    def _name(self, payload: bytes) -> None:
        (count,) = struct.unpack_from("<I", payload)
        sources = struct.unpack_from(f"<{count}Q", payload, 4)
        targets = struct.unpack_from(f"<{count}Q", payload, 4 + 8 * count)
        strings = struct.unpack_from(f"<{count}I", payload, 4 + 16 * count)
        kinds = payload[4 + 20 * count :]
        assert len(kinds) == count
        for source, target, string, kind in zip(sources, targets, strings, kinds):
            self.names.append((source, target, self._strings[string], kind))

    def _root(self, payload: bytes) -> None:
        (count,) = struct.unpack_from("<I", payload)
        ids = struct.unpack_from(f"<{count}Q", payload, 4)
        strings = struct.unpack_from(f"<{count}I", payload, 4 + 8 * count)
        kinds = payload[4 + 12 * count :]
        for one, string, kind in zip(ids, strings, kinds):
            self.roots.append((one, self._strings[string], kind))

    def type_of(self, one: int) -> str:
        return self.types[self.objects[one][0]]
