"""Waiting for the next tick while C drains the kernel's events; wraps ``cext/ring.h``.

No event is seen here: they go from the ring to the aggregator without Python.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from mwtrace.capi import check, ffi, lib

if TYPE_CHECKING:
    from mwtrace._cext import CData


class Ring:
    """Moves what the ring buffer map_fd holds to aggregator, a ``struct mw_aggregator *``."""

    def __init__(self, map_fd: int, aggregator: CData) -> None:
        ret = ffi.new("struct mw_ring **")
        check(lib.mw_ring_create(map_fd, aggregator, ret), "read the kernel's events")
        self._ring = ret[0]
        self._aggregator = aggregator  # so that it is not collected before us

    def wait(self, until_ns: int) -> bool:
        """Drain until until_ns (CLOCK_MONOTONIC); return True if something cannot wait for it.

        Returns early, with False, when a signal came, so that Python's handlers run: the caller
        looks at the clock, and at whatever its handlers have set.
        """
        rc = lib.mw_ring_wait(self._ring, until_ns)
        if rc == -errno.EINTR:
            return False
        return bool(check(rc, "read the kernel's events"))

    def close(self) -> None:
        if self._ring != ffi.NULL:
            lib.mw_ring_destroy(self._ring)
            self._ring = ffi.NULL
