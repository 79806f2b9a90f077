"""How many readings, and how many bytes of them, this host gives in an hour.

Pure but for what it remembers; time comes from the caller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

_HOUR_S = 3600.0


@dataclass(frozen=True)
class ReadingLimits:
    """When suspects are read, and what all of it may cost."""

    readings_per_hour: int = 60  # 0: never
    # At 1 to 2 GB/s, about half a percent of one core.
    bytes_per_hour: int = 32 << 30
    seconds_per_reading: float = 20.0
    queue_max: int = 16
    cases_max: int = 256
    window_s: float = 30.0  # at least so long between the two readings of a finding ...
    growth_bytes: int = 2 << 20  # ... and until so much has grown, ...
    patience_s: float = 600.0  # ... but no longer than this
    renew_s: float = 3600.0  # a finding is checked again after so long ...
    # ... and one that takes an alarm back, sooner; unchecked it takes nothing back after twice that
    renew_excuse_s: float = 600.0
    retry_s: float = 60.0  # after a refusal
    retry_unreadable_s: float = 3600.0


class Allowance:
    """A sliding hour of readings."""

    def __init__(self, limits: ReadingLimits) -> None:
        self._limits = limits
        self._spent: deque[tuple[float, int]] = deque()
        self._bytes = 0

    def permits(self, time_s: float, size_bytes: int) -> bool:
        """Whether one more reading of that size fits into this hour.

        One that is larger than a whole hour's bytes is made when nothing else was read.
        """
        self._forget(time_s)
        if len(self._spent) >= self._limits.readings_per_hour:
            return False
        return self._bytes == 0 or self._bytes + size_bytes <= self._limits.bytes_per_hour

    def is_ample(self, time_s: float) -> bool:
        """Whether less than half of it was spent."""
        self._forget(time_s)
        return (
            len(self._spent) < self._limits.readings_per_hour / 2
            and self._bytes < self._limits.bytes_per_hour / 2
        )

    def _forget(self, time_s: float) -> None:
        while self._spent and time_s - self._spent[0][0] >= _HOUR_S:
            self._bytes -= self._spent.popleft()[1]

    def spent(self) -> tuple[tuple[float, int], ...]:
        """Return what this hour took, as (time_s, bytes), oldest first."""
        return tuple(self._spent)

    def take_spent(self, spent: Iterable[tuple[float, int]]) -> None:
        """Count what a run before this one spent: a restart is no way around the limit."""
        for time_s, size_bytes in sorted(spent):
            self.charge(time_s, max(0, size_bytes))

    def charge(self, time_s: float, size_bytes: int) -> None:
        self._spent.append((time_s, size_bytes))
        self._bytes += size_bytes

    def charge_more(self, size_bytes: int) -> None:
        """Add to the newest reading what it turned out to have read besides."""
        if self._spent:
            time_s, before = self._spent.pop()
            self._spent.append((time_s, before + size_bytes))
            self._bytes += size_bytes
