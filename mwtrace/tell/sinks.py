"""Who is told of incidents: what a sink is, and what waits for it.

A sink hands news to one receiver outside and may take its time; ``sender.py`` gives it a thread,
tries again and counts. What waits is bounded, and the newest state of an incident takes the place
of an older one: a receiver that was away for an hour wants to know what is, not what was.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple, Optional, Protocol

from mwtrace.model import Happening, IncidentNews, IncidentType

_BACKOFF_FIRST_S = 1.0
_BACKOFF_LEAST_S = 0.05
BACKOFF_MAX_S = 60.0
_RETRY_AFTER_MAX_S = 600.0


class Undelivered(Exception):
    """A sink could not hand news over; the message says why, in one printable line.

    ``again`` tells whether trying again may help; ``after_s`` is when the receiver asked us to.
    """

    def __init__(self, why: str, again: bool, after_s: Optional[float] = None) -> None:
        super().__init__(why)
        self.again = again
        self.after_s = after_s


class Sink(Protocol):
    """One receiver. Called from one thread only, which is its own."""

    name: str  # for logs and counters; holds no secret
    renew_s: Optional[float]  # what is open is handed over this often; None: each news once

    def deliver(self, news: Sequence[IncidentNews]) -> None:
        """Hand these over, or raise Undelivered. Ends in a minute, whatever the other does."""

    def abort(self) -> None:
        """The daemon ends: leave nothing behind of what is under way. From another thread."""
        return  # most leave nothing


def backoff_s(failures: int, after_s: Optional[float] = None) -> float:
    """How long to wait after so many failures in a row: full jitter, so that receivers which come
    back are not met by all hosts at once.
    """
    if after_s is not None:
        return min(max(after_s, _BACKOFF_LEAST_S), _RETRY_AFTER_MAX_S)
    longest_s = min(BACKOFF_MAX_S, _BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 16))
    return max(_BACKOFF_LEAST_S, random.uniform(0.0, longest_s))


class _Waiting(NamedTuple):
    news: IncidentNews
    since_s: float


class Outbox:
    """News for a receiver that is told each once; times are CLOCK_MONOTONIC."""

    def __init__(self, incidents_max: int = 256, keep_s: float = 86_400.0) -> None:
        self._incidents_max = incidents_max
        self._keep_s = keep_s
        self._waiting: dict[str, _Waiting] = {}  # by incident, the longest waiting first
        self.superseded_total = 0
        self.dropped_total = 0  # beyond incidents_max, or waited for longer than keep_s

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, news: IncidentNews, time_s: float) -> None:
        waiting = self._waiting.get(news.incident.id)
        if waiting is not None:
            # The place in the row stays, and so does the wait.
            merged = IncidentNews(_merged(waiting.news.happening, news.happening), news.incident)
            self._waiting[news.incident.id] = _Waiting(merged, waiting.since_s)
            self.superseded_total += news.happening is not Happening.CONTINUES
        elif news.happening is not Happening.CONTINUES and not _is_afterthought(news):
            if len(self._waiting) >= self._incidents_max:
                self._drop(next(iter(self._waiting)))
            self._waiting[news.incident.id] = _Waiting(news, time_s)

    def due_s(self, time_s: float) -> Optional[float]:
        """Since when something is due; None: nothing is."""
        for key, waiting in list(self._waiting.items()):
            if time_s - waiting.since_s <= self._keep_s:
                return waiting.since_s
            self._drop(key)
        return None

    def batch(self, time_s: float) -> list[IncidentNews]:
        return [waiting.news for waiting in list(self._waiting.values())[:1]]

    def done(self, batch: Sequence[IncidentNews], time_s: float) -> None:
        """They were delivered, or refused for good; what came in meanwhile stays."""
        for news in batch:
            waiting = self._waiting.get(news.incident.id)
            if waiting is None:
                continue
            if waiting.news is news:
                del self._waiting[news.incident.id]
            elif waiting.news.happening is Happening.OPENED:
                # It was told that it opened while more became known.
                changed = waiting.news._replace(happening=Happening.UPDATED)
                self._waiting[news.incident.id] = waiting._replace(news=changed)

    def failed(self, batch: Sequence[IncidentNews]) -> None:
        """They go to the end of the row, so that one of them cannot keep back all others."""
        for news in batch:
            waiting = self._waiting.pop(news.incident.id, None)
            if waiting is not None:
                self._waiting[news.incident.id] = waiting

    def _drop(self, key: str) -> None:
        del self._waiting[key]
        self.dropped_total += 1


class Held:
    """What is open, and what was resolved lately, for a receiver that forgets what is not renewed.

    All of it is due at once when there is news, and else each ``renew_s``. What is resolved is
    handed over for a while longer, because a receiver that was restarted has forgotten it.
    """

    def __init__(
        self, renew_s: float, keep_resolved_s: float = 900.0, incidents_max: int = 2048
    ) -> None:
        self._renew_s = renew_s
        self._keep_resolved_s = keep_resolved_s
        self._incidents_max = incidents_max
        self._held: dict[str, _Waiting] = {}
        self._due_s: Optional[float] = None
        self._undelivered: dict[str, IncidentNews] = {}
        self.superseded_total = 0
        self.dropped_total = 0

    def __len__(self) -> int:
        return len(self._undelivered)

    def put(self, news: IncidentNews, time_s: float) -> None:
        key = news.incident.id
        self._held.pop(key, None)
        if len(self._held) >= self._incidents_max:
            oldest = next(
                (k for k, held in self._held.items() if held.news.incident.resolved_unix_s),
                next(iter(self._held)),
            )
            del self._held[oldest]
            self._undelivered.pop(oldest, None)
            self.dropped_total += 1
        self._held[key] = _Waiting(news, time_s)
        if news.happening is not Happening.CONTINUES:
            self.superseded_total += key in self._undelivered
            self._undelivered[key] = news
            self._due_s = time_s
        elif self._due_s is None:
            self._due_s = time_s

    def due_s(self, time_s: float) -> Optional[float]:
        for key, held in list(self._held.items()):
            is_over = held.news.incident.resolved_unix_s is not None
            is_told = key not in self._undelivered
            if is_over and is_told and time_s - held.since_s > self._keep_resolved_s:
                del self._held[key]
        return self._due_s if self._held else None

    def batch(self, time_s: float) -> list[IncidentNews]:
        return [held.news for held in self._held.values()]

    def done(self, batch: Sequence[IncidentNews], time_s: float) -> None:
        for news in batch:
            if self._undelivered.get(news.incident.id) is news:
                del self._undelivered[news.incident.id]
        # News that came in meanwhile is due at once.
        self._due_s = time_s if self._undelivered else time_s + self._renew_s

    def failed(self, batch: Sequence[IncidentNews]) -> None:
        pass  # all of it is still due


def _merged(before: Happening, now: Happening) -> Happening:
    """What a receiver that never heard of the first is told."""
    if now is Happening.RESOLVED:
        return now
    return Happening.UPDATED if before is Happening.RESOLVED else before


def _is_afterthought(news: IncidentNews) -> bool:
    """Kills are events: that no more followed is for those who keep a state."""
    return news.incident.type is IncidentType.OOM_KILL and news.happening is Happening.RESOLVED
