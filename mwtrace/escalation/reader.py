"""The thread that reads suspects: one at a time, jobs in and results out.

Knows no schedule and no limit but the time of one reading. Its queue is bounded; results are as
many as jobs at most. Readings give way to everything else on the host (nice).
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple, Optional

from mwtrace.errors import ProcessError, ProcessUnreadable, Unreadable
from mwtrace.escalation.allowance import ReadingLimits
from mwtrace.escalation.finding import find
from mwtrace.evidence.explain import Explanation, explain_process
from mwtrace.evidence.image import Budget
from mwtrace.model import Finding, ProcessId

log = logging.getLogger(__name__)

_NICE = 10
_CLOSING_S = 5.0


class Job(NamedTuple):
    number: int  # of the case: a process may be asked for again after its case was closed
    process: ProcessId
    before: Optional[Explanation]  # None: this is the first reading


class Result(NamedTuple):
    job: Job
    reading: Optional[Explanation] = None
    finding: Optional[Finding] = None
    more_bytes: int = 0  # read to search for holders
    error: Optional[Exception] = None


class Reader:
    def __init__(self, limits: ReadingLimits, check: Callable[[ProcessId], None]) -> None:
        self._limits = limits
        self._check = check  # raises ProcessGone if the pid means another process
        self._jobs: queue.Queue[Optional[Job]] = queue.Queue(limits.queue_max)
        self._results: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._budget: Optional[Budget] = None
        self._closing = False
        self._thread: Optional[threading.Thread] = None

    def ask(self, job: Job) -> bool:
        """Have a process read soon; False if the queue is full."""
        if self._thread is None:  # the first suspect: most watches never need one
            self._thread = threading.Thread(target=self._work, name="reader", daemon=True)
            self._thread.start()
        with contextlib.suppress(queue.Full):
            self._jobs.put_nowait(job)
            return True
        return False

    def results(self) -> Iterator[Result]:
        """Yield what was read since the last call; never waits."""
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._results.get_nowait()

    def close(self) -> None:
        """Cancel what is being read."""
        with self._lock:
            self._closing = True
            if self._budget is not None:
                self._budget.cancel()
        if self._thread is not None:
            with contextlib.suppress(queue.Full):
                self._jobs.put_nowait(None)
            self._thread.join(_CLOSING_S)

    def _work(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while True:
            job = self._jobs.get()
            with self._lock:
                if job is None or self._closing:
                    return
                self._budget = budget = Budget(self._limits.seconds_per_reading)
            self._results.put(self._read(job, budget))

    def _read(self, job: Job, budget: Budget) -> Result:
        try:
            self._check(job.process)
            now = explain_process(job.process.pid, with_holders=False, budget=budget)
            self._check(job.process)
            if not now.census.is_complete or (now.arenas and not now.arenas.is_complete):
                words = f"process {job.process.pid} is too large to be read in time"
                raise ProcessUnreadable(words, Unreadable.OTHER)
            if job.before is None:
                return Result(job, now)
            found = find(job.process, job.before, now, budget)
            return Result(job, now, found.finding, found.read_bytes)
        except ProcessError as error:
            return Result(job, error=error)
        except Exception as error:  # a bug in a reader must not end the watch
            log.exception("reading process %d failed", job.process.pid)
            return Result(job, error=error)
