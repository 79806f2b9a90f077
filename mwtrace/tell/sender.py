"""The thread between the daemon and one sink: waits, hands over, tries again, counts.

The daemon's side never waits: ``put()`` takes a lock that is not held while anything is sent.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Optional

from mwtrace.model import IncidentNews
from mwtrace.tell.sinks import Held, Outbox, Sink, Undelivered, backoff_s

log = logging.getLogger(__name__)

_LEAVE_S = 1.0
RESULTS = ("delivered", "failed", "refused", "superseded", "dropped")


class Sender:
    """Owns one sink; ``close()`` gives what waits one last try, for a second at most."""

    def __init__(self, sink: Sink, outbox: Outbox | Held | None = None) -> None:
        self._sink = sink
        if outbox is None:
            outbox = Outbox() if sink.renew_s is None else Held(sink.renew_s)
        self._outbox = outbox
        self._changed = threading.Condition()
        self._is_closing = False
        self._not_before_s = 0.0
        self._failures = 0
        self._results = {"delivered": 0, "failed": 0, "refused": 0}
        # It must not keep the program from ending, were a system call of it never to return.
        self._thread = threading.Thread(target=self._run, name=f"tell {sink.name}", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        return self._sink.name

    def put(self, news: IncidentNews) -> None:
        """Have this told; returns at once."""
        with self._changed:
            self._outbox.put(news, time.monotonic())
            self._changed.notify()

    def results(self) -> Mapping[str, int]:
        """Return how many hand-overs ended how, and how much news was not handed over."""
        with self._changed:
            return {
                **self._results,
                "superseded": self._outbox.superseded_total,
                "dropped": self._outbox.dropped_total,
            }

    @property
    def pending(self) -> int:
        """How many incidents have news that was not handed over yet."""
        with self._changed:
            return len(self._outbox)

    @property
    def failures(self) -> int:
        """How many tries failed in a row; 0: the last one did not."""
        return self._failures

    def close(self) -> None:
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join(_LEAVE_S)
        if self._thread.is_alive():
            self._sink.abort()

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            refusal = self._try(batch)
            now_s = time.monotonic()
            with self._changed:
                if refusal is not None and refusal.again:
                    self._failures += 1
                    self._not_before_s = now_s + backoff_s(self._failures, refusal.after_s)
                    self._outbox.failed(batch)
                    self._results["failed"] += 1
                else:
                    self._failures = 0
                    self._outbox.done(batch, now_s)
                    self._results["delivered" if refusal is None else "refused"] += 1

    def _next(self) -> Optional[list[IncidentNews]]:
        """Wait for what is due; None: it is time to end."""
        with self._changed:
            while True:
                now_s = time.monotonic()
                due_s = self._outbox.due_s(now_s)
                if self._is_closing and (not len(self._outbox) or self._not_before_s > now_s):
                    return None
                if due_s is None:
                    self._changed.wait()
                    continue
                wait_s = max(due_s, self._not_before_s) - now_s
                if wait_s <= 0:
                    return self._outbox.batch(now_s)
                self._changed.wait(wait_s)

    def _try(self, batch: list[IncidentNews]) -> Optional[Undelivered]:
        try:
            self._sink.deliver(batch)
        except Undelivered as error:
            # Once per streak: a receiver that is away for a night is one line, not thousands.
            if not self._failures or not error.again:
                then = "trying again" if error.again else "not tried again"
                log.warning("%s was not told: %s; %s", self._sink.name, error, then)
            return error
        except Exception as error:
            # A mistake of ours in one sink must not silence it for all that comes.
            log.exception("%s was not told", self._sink.name)
            return Undelivered(type(error).__name__, again=False)
        if self._failures:
            log.warning("%s is told again", self._sink.name)
        return None
