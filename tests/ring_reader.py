"""A slow, obvious reader of a BPF ring buffer: what the one in C is checked against.

It takes the place of the consumer, so nobody else may read the same ring.
"""

from __future__ import annotations

import mmap

from mwtrace.capi import ffi

_PAGE = mmap.PAGESIZE
_BUSY = 1 << 31
_DISCARDED = 1 << 30
_HEADER_BYTES = 8


class RingReader:
    def __init__(self, map_fd: int, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._consumer = mmap.mmap(map_fd, _PAGE)
        # The kernel maps the data twice in a row, so that no record is ever in two pieces.
        self._producer = mmap.mmap(
            map_fd, _PAGE + 2 * size_bytes, prot=mmap.PROT_READ, offset=_PAGE
        )

    def drain(self) -> list[bytes]:
        """Return the events that lie in the ring, oldest first, and make room for others."""
        events = []
        position = int.from_bytes(self._consumer[:8], "little")
        end = int.from_bytes(self._producer[:8], "little")
        while position < end:
            start = _PAGE + position % self._size_bytes
            length = int.from_bytes(self._producer[start : start + 4], "little")
            if length & _BUSY:
                break
            discarded = length & _DISCARDED
            length &= ~(_BUSY | _DISCARDED)
            start += _HEADER_BYTES
            if not discarded:
                events.append(self._producer[start : start + length])
            position += (length + _HEADER_BYTES + 7) // 8 * 8
        self._consumer[:8] = position.to_bytes(8, "little")
        return events

    def drain_events(self) -> list[tuple[int, int]]:
        """Return (pid, kind) of each event."""
        size = ffi.sizeof("struct mw_lifecycle_event")
        found = []
        for data in self.drain():
            assert len(data) == size
            event = ffi.from_buffer("struct mw_lifecycle_event *", data)
            found.append((event.pid, event.kind))
        return found

    def close(self) -> None:
        self._consumer.close()
        self._producer.close()
