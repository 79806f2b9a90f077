"""From the file's chunks to columns, within a limit of memory.

Everything a file claims is checked here: lengths against what was read, indices against tables,
kinds against what is known. Whoever takes a ``Snapshot`` from here need not look again.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any, Optional

import numpy as np

from mwtrace.errors import SnapshotError
from mwtrace.snapshot.columns import Header, Names, Objects, Root, Snapshot
from mwtrace.snapshot.format import (
    OBJECTS_PER_CHUNK_MAX,
    Chunk,
    ChunkKind,
    EdgeKind,
    RootKind,
    corrupt,
    parse_json,
    read_chunks,
)
from mwtrace.snapshot.graph import NONE, Column, Graph, resolve

MEMORY_MAX_BYTES = 8 << 30
TEXT_MAX = 1000  # characters of one name; what is longer is cut
STRINGS_MAX = 20_000_000
TYPES_MAX = 1_000_000
# What analysing takes beyond the columns themselves: dominators, ways, sums.
_NODE_BYTES = 160
_EDGE_BYTES = 24
_OBJECT_BYTES = 48  # without edges
_NAME_BYTES = 48
_TEXT_BYTES = 120  # a str and its place in a list
_UNKNOWN_TYPE = "<type not told>"


def load(path: Path, memory_max_bytes: int = MEMORY_MAX_BYTES, salvage: bool = False) -> Snapshot:
    """Read a snapshot with its edges. Raises SnapshotError."""
    snapshot = _Loading(path, memory_max_bytes, with_edges=True).read(salvage)
    assert isinstance(snapshot, Snapshot)
    return snapshot


def load_objects(
    path: Path, memory_max_bytes: int = MEMORY_MAX_BYTES, salvage: bool = False
) -> Objects:
    """Read what is needed to compare: a quarter of the memory that ``load()`` takes."""
    return _Loading(path, memory_max_bytes, with_edges=False).read(salvage)


class _Loading:
    def __init__(self, path: Path, memory_max_bytes: int, with_edges: bool) -> None:
        self.path = path
        self.with_edges = with_edges
        self._left_bytes = self._max_bytes = memory_max_bytes
        self.header: Optional[Header] = None
        self.end: Optional[dict[str, Any]] = None
        self.type_of: dict[int, str] = {}
        self.strings: list[str] = []
        self.columns: dict[str, list[Column]] = {}
        self.roots: list[tuple[int, int, int]] = []  # id, string, kind

    def read(self, salvage: bool) -> Objects:
        for chunk in read_chunks(self.path, salvage):
            _TAKE[chunk.kind](self, chunk)
        return self._finished()

    def spend(self, size_bytes: int) -> None:
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise SnapshotError(
                f"cannot read {self.path}: it takes more than {self._max_bytes >> 20:,} MiB",
                "Allow more by --memory, on a host that has it.",
            )

    def keep(self, name: str, values: Column) -> None:
        self.columns.setdefault(name, []).append(values)

    def column(self, name: str, kind: type) -> Column:
        pieces = self.columns.pop(name, [])
        return np.concatenate(pieces) if pieces else np.empty(0, kind)

    def _finished(self) -> Objects:
        assert self.header is not None
        ids = self.column("ids", np.uint64)
        types, type_names = self._types()
        sizes = self.column("sizes", np.uint32).astype(np.uint64)
        if len(ids) >= NONE // 2:
            raise corrupt(self.path, "it has more objects than can be numbered")
        kept = _first_ones(ids)
        doubles = len(ids) - len(kept)
        if doubles:
            self._keep_only(kept, len(ids))
            ids, types, sizes = ids[kept], types[kept], sizes[kept]
        self._put_big_sizes(ids, sizes)
        end = self.end or {}
        truncated = str(end.get("reason") or "no reason given") if end.get("truncated") else ""
        common = (
            self.path,
            self.header,
            ids,
            types,
            sizes,
            type_names,
            truncated[:TEXT_MAX],
            doubles,
        )
        if not self.with_edges:
            return Objects(*common, self.end is None)
        refcounts = self.column("refcounts", np.uint32)
        graph = self._graph(ids)
        outside = int((graph.targets == NONE).sum())
        names, outside_names = self._names(ids)
        return Snapshot(
            *common,
            self.end is None,
            refcounts,
            graph,
            names,
            self._roots(ids),
            outside,
            outside_names,
        )

    # A writer that cannot remember all it wrote may write an object twice; the first row counts.
    def _keep_only(self, kept: Column, count: int) -> None:
        if not self.with_edges:
            return
        counts = self.column("counts", np.uint32)
        is_kept = np.zeros(count, bool)
        is_kept[kept] = True
        for name, values, mask in (
            ("counts", counts, is_kept),
            ("refcounts", self.column("refcounts", np.uint32), is_kept),
            ("referents", self.column("referents", np.uint64), np.repeat(is_kept, counts)),
        ):
            self.keep(name, values[mask])

    def _types(self) -> tuple[Column, list[str]]:
        type_ids = self.column("type_ids", np.uint64)
        unique, types = np.unique(type_ids, return_inverse=True)
        names = [self.type_of.get(int(type_id), _UNKNOWN_TYPE) for type_id in unique]
        return types.astype(np.uint32).reshape(-1), names

    def _put_big_sizes(self, ids: Column, sizes: Column) -> None:
        pairs = self.column("bigs", np.uint64).reshape(-1, 2)
        nodes = resolve(ids, np.ascontiguousarray(pairs[:, 0]))
        known = nodes != NONE
        sizes[nodes[known]] = pairs[known, 1]

    def _graph(self, ids: Column) -> Graph:
        counts = self.column("counts", np.uint32)
        offsets = np.zeros(len(ids) + 1, np.uint64)
        np.cumsum(counts, out=offsets[1:])
        return Graph(offsets, resolve(ids, self.column("referents", np.uint64)))

    def _names(self, ids: Column) -> tuple[Names, int]:
        sources = resolve(ids, self.column("name_sources", np.uint64))
        targets = resolve(ids, self.column("name_targets", np.uint64))
        inside = (sources != NONE) & (targets != NONE)
        texts = self.column("name_texts", np.uint32)
        kinds = self.column("name_kinds", np.uint8)
        names = Names(sources[inside], targets[inside], texts[inside], kinds[inside], self.strings)
        return names, int((~inside).sum())

    def _roots(self, ids: Column) -> list[Root]:
        wanted = np.array([root[0] for root in self.roots], np.uint64)
        nodes = resolve(ids, wanted)
        return [
            Root(int(node), self.strings[text], RootKind(kind))
            for node, (_, text, kind) in zip(nodes, self.roots)
            if node != NONE
        ]

    # One function per kind of chunk.

    def take_head(self, chunk: Chunk) -> None:
        if self.header is not None:
            raise corrupt(self.path, "it has two headers")
        self.header = _header(parse_json(self.path, chunk, dict))

    def take_types(self, chunk: Chunk) -> None:
        rows = parse_json(self.path, chunk, list)
        self.spend(len(rows) * _TEXT_BYTES + len(chunk.data))
        if len(self.type_of) + len(rows) > TYPES_MAX:
            raise corrupt(self.path, f"it has more than {TYPES_MAX:,} types")
        for row in rows:
            if not isinstance(row, list) or len(row) < 2:
                raise corrupt(self.path, "a type is no list of id and name")
            type_id, name = row[:2]
            if not isinstance(type_id, int) or not isinstance(name, str):
                raise corrupt(self.path, "a type is no list of id and name")
            self.type_of[type_id] = name[:TEXT_MAX]

    def take_strings(self, chunk: Chunk) -> None:
        texts = parse_json(self.path, chunk, list)
        self.spend(len(texts) * _TEXT_BYTES + len(chunk.data))
        if not all(isinstance(text, str) for text in texts):
            raise corrupt(self.path, "a string is none")
        self.strings += [text[:TEXT_MAX] for text in texts]
        if len(self.strings) > STRINGS_MAX:
            raise corrupt(self.path, f"it has more than {STRINGS_MAX:,} strings")

    def take_objects(self, chunk: Chunk) -> None:
        count = self._count(chunk, 8)
        if count > OBJECTS_PER_CHUNK_MAX:
            raise corrupt(self.path, f"a chunk claims {count:,} objects")
        cursor = _Cursor(self.path, chunk, 8)
        ids, type_ids = cursor.take(np.uint64, count), cursor.take(np.uint64, count)
        sizes, refcounts = cursor.take(np.uint32, count), cursor.take(np.uint32, count)
        counts = cursor.take(np.uint32, count)
        edges = int(counts.sum(dtype=np.uint64))
        referents = cursor.take(np.uint64, edges)
        cursor.end()
        self.spend(count * (_NODE_BYTES if self.with_edges else _OBJECT_BYTES))
        # Copies: a view would keep the whole chunk.
        self.keep("ids", ids.copy())
        self.keep("type_ids", type_ids.copy())
        self.keep("sizes", sizes.copy())
        if self.with_edges:
            self.spend(edges * _EDGE_BYTES)
            self.keep("refcounts", refcounts.copy())
            self.keep("counts", counts.copy())
            self.keep("referents", referents.copy())

    def take_big_sizes(self, chunk: Chunk) -> None:
        if len(chunk.data) % 16:
            raise corrupt(self.path, "a chunk of sizes has an odd length")
        self.spend(len(chunk.data))
        self.keep("bigs", np.frombuffer(chunk.data, "<u8"))

    def take_names(self, chunk: Chunk) -> None:
        if not self.with_edges:
            return
        count = self._count(chunk, 4)
        cursor = _Cursor(self.path, chunk, 4)
        sources, targets = cursor.take(np.uint64, count), cursor.take(np.uint64, count)
        texts, kinds = cursor.take(np.uint32, count), cursor.take(np.uint8, count)
        cursor.end()
        self.spend(count * _NAME_BYTES)
        self._check(texts, kinds, len(EdgeKind))
        self.keep("name_sources", sources.copy())
        self.keep("name_targets", targets.copy())
        self.keep("name_texts", texts.copy())
        self.keep("name_kinds", kinds.copy())

    def take_roots(self, chunk: Chunk) -> None:
        if not self.with_edges:
            return
        count = self._count(chunk, 4)
        cursor = _Cursor(self.path, chunk, 4)
        ids, texts = cursor.take(np.uint64, count), cursor.take(np.uint32, count)
        kinds = cursor.take(np.uint8, count)
        cursor.end()
        self.spend(count * 3 * _TEXT_BYTES)
        self._check(texts, kinds, len(RootKind))
        self.roots += zip(ids.tolist(), texts.tolist(), kinds.tolist())

    def take_end(self, chunk: Chunk) -> None:
        self.end = parse_json(self.path, chunk, dict)

    def _count(self, chunk: Chunk, least_bytes: int) -> int:
        if len(chunk.data) < least_bytes:
            raise corrupt(self.path, f"its {chunk.kind.name} chunk is too short")
        return int(struct.unpack_from("<I", chunk.data)[0])

    def _check(self, texts: Column, kinds: Column, kind_count: int) -> None:
        if len(texts) and int(texts.max()) >= len(self.strings):
            raise corrupt(self.path, "a name is beyond the table of strings")
        if len(kinds) and int(kinds.max()) >= kind_count:
            raise corrupt(self.path, "a name is of no known kind")


class _Cursor:
    """Takes columns off a chunk, and nothing beyond its end."""

    def __init__(self, path: Path, chunk: Chunk, offset: int) -> None:
        self._path = path
        self._chunk = chunk
        self._offset = offset

    def take(self, kind: type[np.unsignedinteger[Any]], count: int) -> Column:
        little = np.dtype(kind).newbyteorder("<")
        end = self._offset + count * little.itemsize
        if end > len(self._chunk.data):
            raise corrupt(self._path, f"its {self._chunk.kind.name} chunk is too short")
        column = np.frombuffer(self._chunk.data, little, count, self._offset)
        self._offset = end
        return column

    def end(self) -> None:
        if self._offset != len(self._chunk.data):
            raise corrupt(self._path, f"its {self._chunk.kind.name} chunk is too long")


_TAKE = {
    ChunkKind.HEAD: _Loading.take_head,
    ChunkKind.TYPE: _Loading.take_types,
    ChunkKind.STRS: _Loading.take_strings,
    ChunkKind.OBJS: _Loading.take_objects,
    ChunkKind.BIGS: _Loading.take_big_sizes,
    ChunkKind.NAME: _Loading.take_names,
    ChunkKind.ROOT: _Loading.take_roots,
    ChunkKind.END: _Loading.take_end,
}


def _first_ones(ids: Column) -> Column:
    """Return where each id comes for the first time, ascending."""
    _, first = np.unique(ids, return_index=True)
    first.sort()
    return first


def _header(fields: dict[str, Any]) -> Header:
    return Header(
        pid=_whole(fields.get("pid")),
        start_time_ns=_whole(fields.get("start_time_ns")),
        service=_text(fields.get("service")),
        python=_text(fields.get("python")),
        writer=_text(fields.get("writer")),
        unix_time_s=_number(fields.get("unix_time_s")) or 0.0,
        rss_bytes=_whole(fields.get("rss_bytes")),
        argv0=_text(fields.get("argv0")),
        pause_s=_number(fields.get("pause_s")),
        why=_text(fields.get("why")),
    )


def _text(value: Any) -> str:
    return value[:TEXT_MAX] if isinstance(value, str) else ""


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 63 else 0


def _number(value: Any) -> Optional[float]:
    is_number = isinstance(value, (int, float)) and abs(value) < 1e18
    return float(value) if is_number and math.isfinite(value) else None
