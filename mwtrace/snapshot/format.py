"""The snapshot file as chunks of bytes: what docs/snapshot-format.md says, and nothing of a graph.

Reading trusts nothing: a file may be cut off, damaged or made by an enemy. A length is believed
only as far as bytes of it were seen, so a file can never make us take more memory than its limits
say. Knows no numpy and no process. The writer here is the plain one, for tests and tools; the hook
carries its own, because it is one file that imports nothing of ours.
"""

from __future__ import annotations

import enum
import gzip
import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Optional

from mwtrace.errors import SnapshotError

MAGIC = b"MWSNAP\x00"
VERSION = 1
SUFFIX = ".mwsnap"
OBJECTS_PER_CHUNK_MAX = 65_536
# No writer of ours makes longer ones: a list of a hundred million items still fits.
CHUNK_BYTES_MAX = 1 << 30
JSON_BYTES_MAX = 64 << 20  # of one chunk: text takes ten times its length once it is parsed
CHUNKS_MAX = 1 << 20
_READ_BYTES = 1 << 20
_FRAME = struct.Struct("<4sQ")
_U32_MAX = 0xFFFFFFFF
REFCOUNT_UNKNOWN = _U32_MAX

_REMEDY = "Take another snapshot; if this one comes from elsewhere, do not trust it."


class ChunkKind(enum.Enum):
    HEAD = b"HEAD"
    TYPE = b"TYPE"
    OBJS = b"OBJS"
    BIGS = b"BIGS"
    NAME = b"NAME"
    STRS = b"STRS"
    ROOT = b"ROOT"
    END = b"END "


class EdgeKind(enum.IntEnum):
    """What a named edge is named after."""

    GLOBAL = 0
    ATTRIBUTE = 1
    KEY = 2
    LOCAL = 3
    CELL = 4
    INDEX = 5
    THREAD_LOCAL = 6


class RootKind(enum.IntEnum):
    MODULE = 0
    FRAME = 1
    INTERPRETER = 2
    UNREFERRED = 3  # tracked by gc, and no object refers to it
    OTHER = 4


class Chunk(NamedTuple):
    kind: ChunkKind
    data: bytes


class Row(NamedTuple):
    """One object, as the plain writer takes it."""

    id: int
    type_id: int
    size_bytes: int
    refcount: int
    referents: Sequence[int]


def corrupt(path: Path, why: str) -> SnapshotError:
    return SnapshotError(f"cannot read {path}: {why}", _REMEDY)


def read_chunks(path: Path, salvage: bool = False) -> Iterator[Chunk]:
    """Yield the known chunks of a file, the header first; unknown ones are skipped.

    Raises SnapshotError for what is no whole snapshot. With salvage, a file that breaks off after
    its header is no error: the last chunk is then missing.
    """
    try:
        with open(path, "rb") as raw, gzip.GzipFile(fileobj=raw) as file:
            yield from _chunks(path, file, salvage)  # type: ignore[arg-type]
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise corrupt(path, f"it is no snapshot ({error})") from error
        raise SnapshotError(
            f"cannot read {path}: {error.strerror}", "Name a file that is there and yours to read."
        ) from error


def _chunks(path: Path, file: IO[bytes], salvage: bool) -> Iterator[Chunk]:
    magic, _ = _take(path, file, len(MAGIC) + 1)
    if magic[:-1] != MAGIC:
        raise corrupt(path, "it is no snapshot (its first bytes are others)")
    if magic[-1] != VERSION:
        raise SnapshotError(
            f"cannot read {path}: it is a snapshot of version {magic[-1]}",
            f"This mwtrace reads version {VERSION}: use the one that wrote it.",
        )
    for number in range(CHUNKS_MAX):
        try:
            kind, data = _next(path, file)
        except _CutOff as error:
            if salvage and number > 0:
                return
            raise corrupt(path, str(error)) from error
        if number == 0 and kind is not ChunkKind.HEAD:
            raise corrupt(path, "it does not begin with a header")
        if kind is None:
            continue
        yield Chunk(kind, data)
        if kind is ChunkKind.END:
            return
    raise corrupt(path, f"it has more than {CHUNKS_MAX:,} chunks")


class _CutOff(Exception):
    """The stream ends, or cannot be decompressed any further."""


def _next(path: Path, file: IO[bytes]) -> tuple[Optional[ChunkKind], bytes]:
    head, why = _take(path, file, _FRAME.size)
    if len(head) < _FRAME.size:
        raise _CutOff(why or "it breaks off: its writer was stopped, or the copy is not whole")
    name, length_bytes = _FRAME.unpack(head)
    try:
        kind = ChunkKind(name)
    except ValueError:
        kind = None
    if length_bytes > CHUNK_BYTES_MAX:
        raise corrupt(path, f"a chunk claims {length_bytes:,} bytes")
    if kind in _JSON_KINDS and length_bytes > JSON_BYTES_MAX:
        raise corrupt(path, f"a text chunk claims {length_bytes:,} bytes")
    data, why = _take(path, file, length_bytes, keep=kind is not None)
    if why:
        raise _CutOff(why)
    return kind, data


_JSON_KINDS = (ChunkKind.HEAD, ChunkKind.TYPE, ChunkKind.STRS, ChunkKind.END)


# Piece by piece: memory follows what the file holds, not what it claims.
def _take(path: Path, file: IO[bytes], wanted: int, keep: bool = True) -> tuple[bytes, str]:
    pieces, missing, why = [], wanted, ""
    while missing:
        try:
            piece = file.read(min(missing, _READ_BYTES))
        except EOFError:
            piece, why = b"", "it breaks off: its writer was stopped, or the copy is not whole"
        except (zlib.error, gzip.BadGzipFile) as error:
            piece, why = b"", f"it is damaged ({error})"
        if not piece:
            why = why or "it breaks off: its writer was stopped, or the copy is not whole"
            break
        missing -= len(piece)
        if keep:
            pieces.append(piece)
    return b"".join(pieces), why


def parse_json(path: Path, chunk: Chunk, wanted: type) -> Any:
    """Return a chunk's JSON if its outermost value is of the wanted type."""
    try:
        value = json.loads(chunk.data)
    except (ValueError, RecursionError) as error:
        raise corrupt(path, f"its {chunk.kind.name} chunk is no JSON") from error
    if not isinstance(value, wanted):
        raise corrupt(path, f"its {chunk.kind.name} chunk is no {wanted.__name__}")
    return value


class Writer:
    """Writes a snapshot chunk by chunk; the file has its name only once it is whole.

    Used as a context manager: an exception leaves a ``.part`` behind, which nobody takes for a
    snapshot.
    """

    def __init__(self, path: Path, header: dict[str, Any], level: int = 1) -> None:
        self._path = path
        self._part = path.with_name(path.name + ".part")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._raw = os.fdopen(os.open(self._part, flags, 0o600), "wb")
        # No name and no time of writing: equal graphs make equal files.
        self._file = gzip.GzipFile("", "wb", level, self._raw, mtime=0)
        self._strings: dict[str, int] = {}
        self._new_strings: list[str] = []
        self._totals = {"objects": 0, "edges": 0, "names": 0}
        self._file.write(MAGIC + bytes([VERSION]))
        self._json(ChunkKind.HEAD, header)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], *_: object) -> None:
        if kind is None:
            self.finish()
        else:
            self._raw.close()

    def types(self, types: Iterable[tuple[int, str, int]]) -> None:
        """types: (type id, qualified name, basic size)."""
        self._json(ChunkKind.TYPE, [list(row) for row in types])

    def objects(self, rows: Sequence[Row]) -> None:
        for begin in range(0, len(rows), OBJECTS_PER_CHUNK_MAX):
            self._objects(rows[begin : begin + OBJECTS_PER_CHUNK_MAX])

    def _objects(self, rows: Sequence[Row]) -> None:
        count = len(rows)
        referents = [target for row in rows for target in row.referents]
        columns = [
            struct.pack("<II", count, 0),
            struct.pack(f"<{count}Q", *(row.id for row in rows)),
            struct.pack(f"<{count}Q", *(row.type_id for row in rows)),
            struct.pack(f"<{count}I", *(min(row.size_bytes, _U32_MAX) for row in rows)),
            struct.pack(f"<{count}I", *(min(row.refcount, _U32_MAX) for row in rows)),
            struct.pack(f"<{count}I", *(len(row.referents) for row in rows)),
            struct.pack(f"<{len(referents)}Q", *referents),
        ]
        self._chunk(ChunkKind.OBJS, b"".join(columns))
        big = [value for row in rows if row.size_bytes >= _U32_MAX for value in row[:3:2]]
        if big:
            self._chunk(ChunkKind.BIGS, struct.pack(f"<{len(big)}Q", *big))
        self._totals["objects"] += count
        self._totals["edges"] += len(referents)

    def names(self, edges: Sequence[tuple[int, int, str, EdgeKind]]) -> None:
        """edges: (source, target, text, kind)."""
        indexes = [self._string(text) for _, _, text, _ in edges]
        self._tell_strings()
        count = len(edges)
        self._chunk(
            ChunkKind.NAME,
            struct.pack("<I", count)
            + struct.pack(f"<{count}Q", *(edge[0] for edge in edges))
            + struct.pack(f"<{count}Q", *(edge[1] for edge in edges))
            + struct.pack(f"<{count}I", *indexes)
            + bytes(edge[3] for edge in edges),
        )
        self._totals["names"] += count

    def roots(self, roots: Sequence[tuple[int, str, RootKind]]) -> None:
        indexes = [self._string(text) for _, text, _ in roots]
        self._tell_strings()
        count = len(roots)
        self._chunk(
            ChunkKind.ROOT,
            struct.pack("<I", count)
            + struct.pack(f"<{count}Q", *(root[0] for root in roots))
            + struct.pack(f"<{count}I", *indexes)
            + bytes(root[2] for root in roots),
        )

    def finish(self, truncated: bool = False, reason: str = "") -> None:
        self._json(ChunkKind.END, {**self._totals, "truncated": truncated, "reason": reason})
        self._file.close()
        self._raw.flush()
        os.fsync(self._raw.fileno())
        self._raw.close()
        os.rename(self._part, self._path)

    def _string(self, text: str) -> int:
        index = self._strings.get(text)
        if index is None:
            index = self._strings[text] = len(self._strings)
            self._new_strings.append(text)
        return index

    def _tell_strings(self) -> None:
        if self._new_strings:
            self._json(ChunkKind.STRS, self._new_strings)
            self._new_strings = []

    def _json(self, kind: ChunkKind, value: Any) -> None:
        self._chunk(kind, json.dumps(value).encode())

    def _chunk(self, kind: ChunkKind, data: bytes) -> None:
        self._file.write(_FRAME.pack(kind.value, len(data)))
        self._file.write(data)
