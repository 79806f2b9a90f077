"""Opens windows, and hears how they went: the Python side of ``cext/governor.h``.

Python is not needed for a window to end in time: C ends it at its time, at its price, or with its
process. It must not know how windows are planned, nor how links are made.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mwtrace.capi import check, ffi, lib

POLL_NS = 20_000_000  # with the time to set a flag: programs are silent within 30 ms


class WindowEnd(enum.Enum):
    OPEN = "open"
    TIME = "time"
    PRICE = "price"
    ASKED = "asked"
    GONE = "gone"
    UNKNOWN = "unknown"


class CountLayout(NamedTuple):
    """Where the programs count and are stopped; made from ``bpf/``'s structs by the caller."""

    counts_fd: int
    targets_fd: int
    flags_offset: int
    stop_flag: int
    names: tuple[str, ...]  # of the counters, in order, as far as they are wanted


class WindowResult(NamedTuple):
    end: WindowEnd
    duration_s: float  # from open to flagged; until now if open
    detach_s: float
    cost_s: float
    counts: dict[str, int]


class Windows:
    """All open windows of this host."""

    def __init__(
        self, layout: CountLayout, prices_ns: Mapping[str, int], poll_ns: int = POLL_NS
    ) -> None:
        maps = ffi.new("struct mw_governor_maps *")
        maps.counts_fd, maps.targets_fd = layout.counts_fd, layout.targets_fd
        maps.flags_offset, maps.stop_flag = layout.flags_offset, layout.stop_flag
        maps.priced_words = len(layout.names)
        for i, name in enumerate(layout.names):
            maps.price_ns[i] = prices_ns.get(name, 0)
        made = ffi.new("struct mw_governor **")
        check(lib.mw_governor_create(maps, poll_ns, made), "start the governor")
        self._governor = made[0]
        self._names = layout.names

    def open(
        self, pid: int, slot: int, duration_s: float, cost_max_s: float, links: Sequence[int]
    ) -> int:
        """Watch a window whose links are attached; they are the governor's from now on."""
        # The pidfd is no worse off if the process has ended: then it is not watched, and the
        # window ends at its time.
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            pidfd = -1
        window: int = lib.mw_governor_open(
            self._governor,
            pid,
            slot,
            round(duration_s * 1e9),
            round(cost_max_s * 1e9),
            list(links),
            len(links),
            pidfd,
        )
        return check(window, f"open a window on process {pid}")

    def look(self, window: int) -> WindowResult:
        raw = ffi.new("struct mw_window *")
        check(lib.mw_governor_look(self._governor, window, raw), "look at a window")
        return self._result(raw)

    def ask(self, window: int) -> None:
        """End a window if it is still open, without waiting; ``look()`` says when it is over."""
        check(lib.mw_governor_ask(self._governor, window), "end a window")

    def close(self, window: int) -> WindowResult:
        """End a window if it is still open, and forget it. Waits for the detaching."""
        raw = ffi.new("struct mw_window *")
        check(lib.mw_governor_close(self._governor, window, raw), "close a window")
        return self._result(raw)

    def end(self) -> None:
        """End all windows and the threads."""
        if self._governor != ffi.NULL:
            lib.mw_governor_destroy(self._governor)
            self._governor = ffi.NULL

    def _result(self, raw: object) -> WindowResult:
        window = ffi.cast("struct mw_window *", raw)
        flagged, closed = int(window.flagged_ns), int(window.closed_ns)
        return WindowResult(
            _END[int(window.end)],
            (flagged - int(window.opened_ns)) * 1e-9 if flagged else 0.0,
            (closed - flagged) * 1e-9 if closed else 0.0,
            int(window.spent_ns) * 1e-9,
            {name: int(window.words[i]) for i, name in enumerate(self._names)},
        )


_END = {getattr(lib, f"MW_WINDOW_{end.name}"): end for end in WindowEnd}
