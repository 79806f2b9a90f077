"""Where a suspect allocates: growth sampling for all of them, then windows on those that leak.

One thread does both, so that no tick waits for a stack or an audit; it begins with the first
suspect and ends with the last, and everything it loads comes and goes with it. Windows are opened
on one process at a time, once an hour for each, within the budget of ``tracing``.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Optional

from mwtrace.errors import EngineError, HostError, MwtraceError, ProcessGone, ProcessUnreadable
from mwtrace.escalation.worker import STEP_S, Evidence, Spending, Worker
from mwtrace.model import Judgement, ProcessId, Site, Subject, Verdict
from mwtrace.probes.engine import Engine

if TYPE_CHECKING:
    from mwtrace.tell.profile import Profile

log = logging.getLogger(__name__)

_LEAVE_S = 3.0
_SERVICES_MAX = 1_024  # of which is kept what probes took; the others are added up under ""


@dataclass(frozen=True)
class SiteLimits:
    """What finding sites may cost."""

    suspects_max: int = 8  # sampled at once, the worst first
    windows: bool = True  # False: growth sampling only, no probe in any process
    trace_s: float = 60.0  # of windows on one process
    renew_s: float = 3600.0  # before the same process is probed again


class KeptSites(NamedTuple):
    """What a run before this one learned of a process."""

    process: ProcessId
    traced_s: Optional[float]  # when windows were last opened on it
    sites: tuple[Site, ...]


class Sites:
    """Follows the suspects of a watch and holds where each allocates what it keeps."""

    def __init__(self, engine: Engine, limits: SiteLimits) -> None:
        self._engine = engine
        self._limits = limits
        self._lock = threading.Lock()
        self._wanted: dict[ProcessId, bool] = {}  # whether it leaks; else it grows
        self._found: dict[ProcessId, tuple[Site, ...]] = {}
        self._evidence: dict[ProcessId, Evidence] = {}
        self._services: dict[ProcessId, str] = {}
        self._spent: dict[str, Spending] = {}
        self._failures: dict[str, int] = {}
        self._traced_s: dict[ProcessId, float] = {}
        self._wake = threading.Event()
        self._is_closing = False
        self._thread: Optional[threading.Thread] = None
        self.counters = {
            "site_suspects_omitted_total": 0,
            "site_failures_total": 0,
            "site_sessions_total": 0,
        }

    def follow(self, suspects: Iterable[tuple[Subject, Judgement]]) -> None:
        """Say who grows or leaks now; never waits."""
        worst = sorted(
            suspects, key=lambda s: (-s[1].verdict, -(s[1].slope_bytes_per_second or 0.0))
        )
        chosen = [
            (subject.id.process, judgement.verdict is Verdict.LEAKING)
            for subject, judgement in worst
            if subject.id.process is not None and subject.id.process.pid != os.getpid()
        ]
        kept = dict(chosen[: self._limits.suspects_max])
        with self._lock:
            self.counters["site_suspects_omitted_total"] += len(chosen) - len(kept)
            self._wanted = kept
            self._found = {p: sites for p, sites in self._found.items() if p in kept}
            self._evidence = {p: known for p, known in self._evidence.items() if p in kept}
            # Of whom was probed, too: what that took may be told when it is no suspect any more.
            names = {p: name for p, name in self._services.items() if p in self._traced_s}
            for subject, _ in worst:
                if subject.id.process in kept:
                    names[subject.id.process] = subject.id.service.name
            self._services = names
        if kept and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._run, name="mwtrace sites", daemon=True)
            self._thread.start()

    def of(self, process: ProcessId) -> tuple[Site, ...]:
        """Return the worst sites first; () while none is known."""
        with self._lock:
            return self._found.get(process, ())

    def spent(self) -> dict[str, Spending]:
        """What probes took so far, by the name of the service; "": of those beyond the bound."""
        with self._lock:
            return dict(self._spent)

    def failures(self) -> dict[str, int]:
        """How many suspects could not be sampled or probed, by reason."""
        with self._lock:
            return dict(self._failures)

    def profile(self, service: str) -> Optional[Profile]:
        """What is known of a service's worst suspect, as a profile; None if nothing is.

        For any thread: it is put together where it is asked for.
        """
        with self._lock:
            known = [(p, e) for p, e in self._evidence.items() if self._services.get(p) == service]
        if not known:
            return None
        from mwtrace.tracing.report import Measured, conclude

        process, evidence = known[0]
        measured = Measured(
            service,
            process.pid,
            evidence.time_ns,
            evidence.duration_s,
            evidence.interval_bytes,
            False,
            evidence.python_is_inlined,
            evidence.growth_bytes_per_second,
            evidence.modules,
        )
        return conclude(measured, evidence.audited, evidence.grown).profile

    def profiled(self) -> list[str]:
        """The services of which there is a profile."""
        with self._lock:
            return sorted({self._services[p] for p in self._evidence if p in self._services})

    def kept_sites(self) -> list[KeptSites]:
        """Return what must survive a restart: what is known, and who was probed when."""
        with self._lock:
            traced_s = dict(self._traced_s)
            found = dict(self._found)
        return [
            KeptSites(process, traced_s.get(process), found.get(process, ()))
            for process in {**traced_s, **found}
        ]

    def take_sites(self, kept: KeptSites) -> None:
        """Go on from a run before this one; before the first tick."""
        if kept.traced_s is not None:
            self._traced_s[kept.process] = kept.traced_s
        if kept.sites:
            self._found[kept.process] = kept.sites

    def close(self) -> None:
        """Take out every probe and end the thread."""
        self._is_closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_LEAVE_S)

    # Below: the thread.

    def _run(self) -> None:
        try:
            worker = Worker(self._engine, self._limits.trace_s)
        except MwtraceError as error:
            self._fail(error)
            return
        try:
            while not self._is_closing:
                with self._lock:
                    wanted = dict(self._wanted)
                if not wanted:
                    return  # whoever is suspected next begins anew
                wait_s = self._step(worker, wanted)
                self._wake.wait(wait_s)
        finally:
            worker.close()

    def _step(self, worker: Worker, wanted: dict[ProcessId, bool]) -> float:
        now_s = time.monotonic()
        try:
            wait_s = worker.step(wanted, self._untraced(wanted, now_s), now_s)
        except MwtraceError as error:
            self._fail(error)
            return STEP_S
        for refusal in worker.refused():
            self._count(refusal)
        for process, spending in worker.spent():
            self._charge(process, spending)
        if worker.began is not None:
            self._traced_s[worker.began] = now_s
            self.counters["site_sessions_total"] += 1
        with self._lock:
            for process in wanted:
                sites = worker.sites(process, now_s)
                if sites and process in self._wanted:
                    self._found[process] = sites
                evidence = worker.evidence(process, now_s, self._evidence.get(process))
                if sites and evidence is not None and process in self._wanted:
                    self._evidence[process] = evidence
        return wait_s

    def _untraced(self, wanted: dict[ProcessId, bool], now_s: float) -> list[ProcessId]:
        if not self._limits.windows:
            return []
        renew_s = self._limits.renew_s
        self._traced_s = {p: at_s for p, at_s in self._traced_s.items() if now_s - at_s < renew_s}
        return [p for p, is_leaking in wanted.items() if is_leaking and p not in self._traced_s]

    def _charge(self, process: ProcessId, spending: Spending) -> None:
        with self._lock:
            name = self._services.get(process, "")
            if name not in self._spent and len(self._spent) >= _SERVICES_MAX:
                name = ""
            known = self._spent.get(name, Spending())
            self._spent[name] = Spending(
                known.hits + spending.hits, known.spent_s + spending.spent_s
            )

    def _count(self, error: MwtraceError) -> None:
        with self._lock:
            reason = _reason(error)
            self._failures[reason] = self._failures.get(reason, 0) + 1

    def _fail(self, error: MwtraceError) -> None:
        self.counters["site_failures_total"] += 1
        self._count(error)
        log.debug("no site is known: %s; %s", error, error.remedy)


def _reason(error: MwtraceError) -> str:
    """A word for a label; the kinds of errors are few, their texts are not."""
    if isinstance(error, ProcessGone):
        return "gone"
    if isinstance(error, ProcessUnreadable):
        return error.reason.value
    if isinstance(error, EngineError):
        return "engine"
    return "host" if isinstance(error, HostError) else "refused"
