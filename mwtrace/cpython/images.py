"""Symbols of the ELF files that a process has loaded, looked up in its own memory.

A loaded file's dynamic symbols lie in the process as the dynamic linker uses them, stripped or
not, deleted or not, in whatever mount namespace; so no file is opened. Every number read is
hostile and bounded. Knows no interpreter.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mwtrace.host.mappings import Mapping
from mwtrace.remote import RemoteMemory, UnreadableMemory

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_GNU_HASH = 4, 5, 6, 10, 0x6FFFFEF5
_SYMBOL_BYTES = 24

# Far above what linkers make: libpython has 11 segments, 30 dynamic entries, 4,000 symbols.
SEGMENTS_MAX = 64
DYNAMIC_MAX = 256
CHAIN_MAX = 4096
NAME_BYTES_MAX = 256
IMAGES_MAX = 1024


class Image(NamedTuple):
    """One loaded file: all its mappings, in the order of addresses."""

    path: str
    mappings: tuple[Mapping, ...]

    @property
    def base(self) -> int:
        return self.mappings[0].start


def images(mapped: Sequence[Mapping]) -> list[Image]:
    """Return the loaded files that begin with a mapping of their first byte."""
    files: dict[tuple[str, int], list[Mapping]] = {}
    for mapping in mapped:
        files.setdefault((mapping.device, mapping.inode), []).append(mapping)
    whole = [pieces for pieces in files.values() if pieces[0].file_offset == 0]
    return [Image(pieces[0].path, tuple(pieces)) for pieces in whole[:IMAGES_MAX]]


class Symbols:
    """The dynamic symbols of one image. Raises UnreadableMemory if it is no loaded ELF file."""

    def __init__(self, memory: RemoteMemory, image: Image) -> None:
        self._memory = memory
        self._low = image.base
        self._high = max(piece.end for piece in image.mappings)
        header = memory.read(image.base, 64)
        if header[:6] != b"\x7fELF\x02\x01":
            raise UnreadableMemory(f"{image.path} is not a 64-bit ELF file")
        (segments_at,) = struct.unpack_from("<Q", header, 32)
        (count,) = struct.unpack_from("<H", header, 56)
        if count > SEGMENTS_MAX or segments_at > 1 << 20:
            raise UnreadableMemory(f"{image.path} has {count} segments")
        loads, dynamic = [], 0
        data = memory.read(image.base + segments_at, 56 * count)
        for kind, _, _, address, *_ in struct.iter_unpack("<IIQQQQQQ", data):
            if kind == _PT_LOAD:
                loads.append(address)
            elif kind == _PT_DYNAMIC:
                dynamic = address
        if not loads:
            raise UnreadableMemory(f"{image.path} loads nothing")
        self.bias: int = image.base - (min(loads) & ~4095)
        self._entries = dict(self._dynamic(dynamic)) if dynamic else {}

    def _dynamic(self, address: int) -> Iterator[tuple[int, int]]:
        data = self._memory.read_some(address + self.bias, 16 * DYNAMIC_MAX)
        for tag, value in struct.iter_unpack("<QQ", data[: len(data) & ~15]):
            if tag == 0:
                return
            yield tag, value

    def _table(self, tag: int) -> int | None:
        """Return a table's address. glibc puts addresses where the file has offsets, musl not."""
        value = self._entries.get(tag)
        if value is None:
            return None
        return value if self._low <= value < self._high else value + self.bias

    def address(self, name: str) -> int | None:
        """Return where the symbol is in the process, None if this image does not define it."""
        try:
            for index in self._candidates(name.encode()):
                found = self._defined(index, name.encode())
                if found is not None:
                    return found
        except UnreadableMemory:
            pass  # a damaged table: it says nothing
        return None

    def _candidates(self, name: bytes) -> Iterator[int]:
        """Yield the indices of symbols that may have this name."""
        gnu, old = self._table(_DT_GNU_HASH), self._table(_DT_HASH)
        if gnu is not None:
            yield from self._gnu_candidates(gnu, name)
        elif old is not None:
            (_, count) = struct.unpack("<II", self._memory.read(old, 8))
            yield from range(1, min(count, CHAIN_MAX * 4))

    def _gnu_candidates(self, table: int, name: bytes) -> Iterator[int]:
        buckets, first, bloom_words, _ = struct.unpack("<4I", self._memory.read(table, 16))
        if not buckets or bloom_words > 1 << 20:
            return
        wanted = 5381
        for byte in name:
            wanted = (wanted * 33 + byte) & 0xFFFFFFFF
        bucket_table = table + 16 + 8 * bloom_words
        chains = bucket_table + 4 * buckets
        data = self._memory.read(bucket_table + 4 * (wanted % buckets), 4)
        index = int.from_bytes(data, "little")
        if index < first:
            return
        chain = self._memory.read_some(chains + 4 * (index - first), 4 * CHAIN_MAX)
        for (hashed,) in struct.iter_unpack("<I", chain[: len(chain) & ~3]):
            if hashed | 1 == wanted | 1:
                yield index
            if hashed & 1:
                return
            index += 1

    def _defined(self, index: int, name: bytes) -> int | None:
        symbols, names = self._table(_DT_SYMTAB), self._table(_DT_STRTAB)
        if symbols is None or names is None or len(name) >= NAME_BYTES_MAX:
            return None
        data = self._memory.read(symbols + _SYMBOL_BYTES * index, _SYMBOL_BYTES)
        name_at, _, _, section, value, _ = struct.unpack("<IBBHQQ", data)
        if section == 0 or name_at >= self._entries.get(_DT_STRSZ, 0):
            return None
        if self._memory.read_some(names + name_at, len(name) + 1) != name + b"\0":
            return None
        return int(value + self.bias)
