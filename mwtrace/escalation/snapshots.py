"""Snapshots of the suspects of a watch: a baseline when one grows, another when it leaks.

One thread takes them, one after the other, so that no tick waits for a process or a disk; it
begins with the first and ends with the watch. Which process may be asked is decided in
``snapshot``; that most processes have no hook is no failure, and is asked of each once.
"""

from __future__ import annotations

import contextlib
import fnmatch
import logging
import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Optional

from mwtrace.errors import MwtraceError
from mwtrace.host.procfs import Host
from mwtrace.model import Judgement, ProcessId, Service, Snapshot, Subject, Verdict
from mwtrace.snapshot.outcomes import Outcome
from mwtrace.verdicts import Standing

if TYPE_CHECKING:
    from mwtrace.snapshot.store import StoreLimits
    from mwtrace.snapshot.taking import TakingLimits

log = logging.getLogger(__name__)

BASELINE, LEAKING, SCHEDULED = "baseline", "leaking", "scheduled"

_WAITING_MAX = 32
_FOLLOWED_MAX = 1024
_TRIES_MAX = 5
_RETRY_S = 60.0
_CLOSING_S = 5.0
# What the next minute may change.
_PASSING = frozenset(
    {Outcome.REFUSED.value, Outcome.BUSY.value, Outcome.NO_ANSWER.value, Outcome.CUT_SHORT.value}
)


@dataclass(frozen=True)
class SnapshotSettings:
    """What the operator asked for."""

    folder: Path
    recipient: Optional[str] = None  # an age public key, or a file of them
    command: Optional[str] = None  # that each file is handed to
    every: tuple[tuple[str, float], ...] = ()  # a service's name or pattern, and seconds
    store: Optional[StoreLimits] = None  # None: the defaults there
    taking: Optional[TakingLimits] = None


class _Job(NamedTuple):
    process: ProcessId
    service: str
    why: str


@dataclass
class _Followed:
    """What was asked of one process, for one reason."""

    next_s: float = 0.0
    tries: int = 0
    is_done: bool = False
    is_waiting: bool = False


class Snapshots:
    """Follows suspects; without settings it does nothing."""

    def __init__(self, settings: Optional[SnapshotSettings], root: Path) -> None:
        """Raises ConfigError if snapshots cannot be kept as the settings say."""
        self._settings = settings
        self._jobs: queue.Queue[Optional[_Job]] = queue.Queue(_WAITING_MAX)
        self._told: queue.SimpleQueue[Snapshot] = queue.SimpleQueue()
        self._followed: dict[tuple[ProcessId, str], _Followed] = {}
        self._scheduled_s: dict[str, float] = {}
        self._thread: Optional[threading.Thread] = None
        self._closing = False
        self.told: list[Snapshot] = []  # what became of those that ended before the last follow()
        self._chosen: dict[str, ProcessId] = {}  # by service
        self._hookless: set[ProcessId] = set()
        self._newest: dict[str, str] = {}  # path by service
        self.outcomes: dict[str, int] = {}  # by Outcome's values
        self.counters = {"snapshots_taken_total": 0, "snapshots_missed_total": 0}
        if settings is None:
            return
        # Four megabytes, and most watches take none.
        from mwtrace.snapshot.moving import Mover
        from mwtrace.snapshot.sealing import Seal
        from mwtrace.snapshot.store import Store, StoreLimits
        from mwtrace.snapshot.taking import Taker, TakingLimits

        self._host = Host(root)  # one is not for several threads
        seal = Seal(settings.recipient) if settings.recipient else None
        self._mover = Mover(settings.command) if settings.command else None
        self._store = Store(settings.folder, settings.store or StoreLimits(), seal)
        self._taker = Taker(self._host, self._store, settings.taking or TakingLimits())

    def follow(
        self,
        suspects: Iterable[tuple[Subject, Judgement]],
        services: Iterable[Standing],
        time_s: float,
    ) -> None:
        """Have snapshots taken of whoever is due, and take what came; never waits."""
        if self._settings is None:
            return
        self.told = list(self._results())
        growing = {
            subject.id.process: (subject.id.service.name, judgement.verdict)
            for subject, judgement in suspects
            if subject.id.process is not None and judgement.verdict >= Verdict.GROWING
        }
        self._hookless &= growing.keys()
        self._chosen = {name: one for name, one in self._chosen.items() if one in growing}
        for process, (name, verdict) in growing.items():
            if process not in self._hookless:
                # One worker of a service stands for all: what is compared must be of one process.
                chosen = self._chosen.setdefault(name, process)
                why = LEAKING if verdict is Verdict.LEAKING else BASELINE
                self._ask(_Job(chosen, name, why), time_s)
        if self._settings.every:
            self._follow_schedule(services, time_s)
        # A scheduled job is done when it is done; a suspect's is remembered with the suspicion.
        self._followed = {
            key: known
            for key, known in self._followed.items()
            if key[0] in growing or known.is_waiting or not known.is_done and key[1] == SCHEDULED
        }

    def _results(self) -> Iterator[Snapshot]:
        with contextlib.suppress(queue.Empty):
            while True:
                snapshot = self._told.get_nowait()
                self._note(snapshot)
                if snapshot.outcome != Outcome.NO_HOOK.value:
                    yield snapshot

    def path_of(self, service: Service) -> str:
        """Return the newest snapshot of a service that this watch took, "" if there is none."""
        return self._newest.get(service.name, "")

    def close(self) -> None:
        self._closing = True
        if self._thread is not None:
            with contextlib.suppress(queue.Full):
                self._jobs.put_nowait(None)
            self._thread.join(_CLOSING_S)
        if self._settings is not None:
            if self._mover is not None:
                self._mover.close()
            if self._thread is None or not self._thread.is_alive():
                self._store.close()
                self._host.close()

    def _follow_schedule(self, services: Iterable[Standing], time_s: float) -> None:
        assert self._settings is not None
        for subject in (standing.subject for standing in services if not standing.is_gone):
            name = subject.id.service.name
            for pattern, every_s in self._settings.every:
                if name != pattern and not fnmatch.fnmatchcase(name, pattern):
                    continue
                # The first is due after one period: a restart of ours is no reason for another.
                last_s = self._scheduled_s.setdefault(name, time_s)
                if time_s - last_s < every_s or not subject.largest_pid:
                    continue
                self._scheduled_s[name] = time_s
                with contextlib.suppress(MwtraceError):
                    process = self._host.process_id(subject.largest_pid)
                    self._followed.pop((process, SCHEDULED), None)
                    self._ask(_Job(process, name, SCHEDULED), time_s)

    def _ask(self, job: _Job, time_s: float) -> None:
        key = (job.process, job.why)
        known = self._followed.get(key)
        if known is None:
            if len(self._followed) >= _FOLLOWED_MAX:
                self.counters["snapshots_missed_total"] += 1
                return
            known = self._followed[key] = _Followed()
        if known.is_done or known.is_waiting or time_s < known.next_s:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="snapshots", daemon=True)
            self._thread.start()
        known.next_s = time_s + _RETRY_S
        with contextlib.suppress(queue.Full):
            self._jobs.put_nowait(job)
            known.is_waiting = True
            known.tries += 1

    def _note(self, snapshot: Snapshot) -> None:
        self.outcomes[snapshot.outcome] = self.outcomes.get(snapshot.outcome, 0) + 1
        known = self._followed.get((snapshot.process, snapshot.why))
        if known is not None:
            known.is_waiting = False
            is_passing = snapshot.outcome in _PASSING and known.tries < _TRIES_MAX
            known.is_done = snapshot.why == SCHEDULED or not is_passing
        if snapshot.outcome == Outcome.NO_HOOK.value:
            self._hookless.add(snapshot.process)
            if self._chosen.get(snapshot.service) == snapshot.process:
                del self._chosen[snapshot.service]
        if snapshot.is_taken:
            self.counters["snapshots_taken_total"] += 1
            if snapshot.service in self._newest or len(self._newest) < _FOLLOWED_MAX:
                self._newest[snapshot.service] = snapshot.path
        elif snapshot.outcome != Outcome.NO_HOOK.value:
            self.counters["snapshots_missed_total"] += 1

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None or self._closing:
                return
            try:
                snapshot = self._taker.take(job.process, job.service, job.why)
                if snapshot.is_taken and self._mover is not None:
                    self._mover.put(snapshot)
            except Exception as error:  # a full disk, or a bug of ours, must not end the watch
                log.warning("no snapshot of process %d: %s", job.process.pid, error)
                snapshot = Snapshot(
                    0.0,
                    job.process,
                    job.service,
                    job.why,
                    Outcome.NOT_KEPT.value,
                    reason=f"{error}",
                )
            self._told.put(snapshot)
