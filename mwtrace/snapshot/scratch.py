"""A few bytes of a process's memory that nobody uses: where a line of code can be put.

A loaded file's last writable segment seldom ends where its page does. What lies between is the
file's own, zero, and used by nobody; the dynamic linker's is left out, whose first allocations come
from there. Reads memory only; every number is hostile and bounded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from mwtrace.cpython.images import Image, images
from mwtrace.host.mappings import read_mappings
from mwtrace.remote import RemoteMemory, UnreadableMemory

_PAGE_BYTES = 4096
_PT_LOAD, _PF_W = 1, 2
_SEGMENTS_MAX = 64
_ALIGNED = 64  # no variable of the file is rounded up further than that
_LOADERS = ("ld-linux", "ld-musl", "/ld.so", "/ld-2.")


def find_scratch(memory: RemoteMemory, size_bytes: int, liked: Image) -> int | None:
    """Return the address of size_bytes zero bytes that nobody uses; in liked if it has them."""
    others = [image for image in images(read_mappings(memory.pid)) if image.path != liked.path]
    for image in (liked, *others):
        if any(mark in image.path for mark in _LOADERS):
            continue
        for start, end in _tails(memory, image):
            tail = memory.read_some(start, end - start)
            if len(tail) == end - start >= size_bytes and not any(tail):
                return start
    return None


def _tails(memory: RemoteMemory, image: Image) -> Iterator[tuple[int, int]]:
    try:
        header = memory.read(image.base, 64)
        if header[:6] != b"\x7fELF\x02\x01":
            return
        kind, at = struct.unpack_from("<H", header, 16)[0], struct.unpack_from("<Q", header, 32)[0]
        count = struct.unpack_from("<H", header, 56)[0]
        if count > _SEGMENTS_MAX or at > 1 << 20 or kind not in (2, 3):
            return
        data = memory.read(image.base + at, 56 * count)
    except UnreadableMemory:
        return
    loads = [row for row in struct.iter_unpack("<IIQQQQQQ", data) if row[0] == _PT_LOAD]
    writable = [row for row in loads if row[1] & _PF_W]
    if not writable:
        return
    bias = image.base - (min(row[3] for row in loads) & ~(_PAGE_BYTES - 1))
    last = max(writable, key=lambda row: row[3])
    end = (bias + last[3] + last[6] + _ALIGNED - 1) & ~(_ALIGNED - 1)
    page_end = (end + _PAGE_BYTES - 1) & ~(_PAGE_BYTES - 1)
    if end >> 47 == 0:
        yield end, page_end
