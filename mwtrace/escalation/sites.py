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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from mwtrace.errors import HostError, MwtraceError
from mwtrace.model import Judgement, ProcessId, Site, Subject, Verdict
from mwtrace.probes.engine import Engine

if TYPE_CHECKING:
    from mwtrace.tell.profile import Frame
    from mwtrace.tracing.growth import GrowthSampler
    from mwtrace.tracing.probing import Probing
    from mwtrace.tracing.session import TraceSession

log = logging.getLogger(__name__)

_SITES_MAX = 5
_STEP_S = 0.5  # of the thread, while no window asks for less
_SAMPLES_MIN = 50  # fewer samples name nobody
_LEAVE_S = 3.0


@dataclass(frozen=True)
class SiteLimits:
    """What finding sites may cost."""

    suspects_max: int = 8  # sampled at once, the worst first
    windows: bool = True  # False: growth sampling only, no probe in any process
    trace_s: float = 60.0  # of windows on one process
    renew_s: float = 3600.0  # before the same process is probed again


class Sites:
    """Follows the suspects of a watch and holds where each allocates what it keeps."""

    def __init__(self, engine: Engine, limits: SiteLimits) -> None:
        self._engine = engine
        self._limits = limits
        self._lock = threading.Lock()
        self._wanted: dict[ProcessId, bool] = {}  # whether it leaks; else it grows
        self._found: dict[ProcessId, tuple[Site, ...]] = {}
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
        if kept and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._run, name="mwtrace sites", daemon=True)
            self._thread.start()

    def of(self, process: ProcessId) -> tuple[Site, ...]:
        """Return the worst sites first; () while none is known."""
        with self._lock:
            return self._found.get(process, ())

    def close(self) -> None:
        """Take out every probe and end the thread."""
        self._is_closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_LEAVE_S)

    # Below: the thread.

    def _run(self) -> None:
        try:
            worker = _Worker(self._engine, self._limits)
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

    def _step(self, worker: _Worker, wanted: dict[ProcessId, bool]) -> float:
        now_s = time.monotonic()
        try:
            wait_s = worker.step(wanted, self._untraced(wanted, now_s), now_s)
        except MwtraceError as error:
            self._fail(error)
            return _STEP_S
        if worker.began is not None:
            self._traced_s[worker.began] = now_s
            self.counters["site_sessions_total"] += 1
        with self._lock:
            for process in wanted:
                sites = worker.sites(process, now_s)
                if sites and process in self._wanted:
                    self._found[process] = sites
        return wait_s

    def _untraced(self, wanted: dict[ProcessId, bool], now_s: float) -> list[ProcessId]:
        if not self._limits.windows:
            return []
        renew_s = self._limits.renew_s
        self._traced_s = {p: at_s for p, at_s in self._traced_s.items() if now_s - at_s < renew_s}
        return [p for p, is_leaking in wanted.items() if is_leaking and p not in self._traced_s]

    def _fail(self, error: MwtraceError) -> None:
        self.counters["site_failures_total"] += 1
        log.debug("no site is known: %s; %s", error, error.remedy)


class _Worker:
    """What lives in the thread: a sampler, and at most one session of windows."""

    def __init__(self, engine: Engine, limits: SiteLimits) -> None:
        # Heavy, and only for hosts that have a suspect.
        from mwtrace.tracing.growth import GrowthSampler

        self._engine = engine
        self._limits = limits
        self._sampler: GrowthSampler = GrowthSampler(engine)
        self._probing: Optional[Probing] = None
        self._session: Optional[TraceSession] = None
        self._refused: set[ProcessId] = set()
        self._audited: dict[ProcessId, tuple[Site, ...]] = {}
        self._sampled: dict[int, ProcessId] = {}
        self.began: Optional[ProcessId] = None  # a session that began in this step

    def close(self) -> None:
        self._end_session()
        if self._probing is not None:
            self._probing.close()
        self._sampler.close()

    def step(
        self, wanted: dict[ProcessId, bool], untraced: Sequence[ProcessId], now_s: float
    ) -> float:
        """Do what is due; return how long nothing is."""
        self.began = None
        for pid in [pid for pid, process in self._sampled.items() if process not in wanted]:
            self._sampler.unwatch(pid)
            self._audited.pop(self._sampled.pop(pid), None)
        for process in wanted:
            if process.pid not in self._sampled and process not in self._refused:
                self._sample(process, now_s)
        self._sampler.drain(now_s)
        if self._session is None and untraced:
            self._begin(untraced[0], now_s)
        if self._session is None:
            return _STEP_S
        if self._session.traced.id not in wanted:
            self._end_session()
            return _STEP_S
        next_s = self._session.step(now_s)
        self._audit(now_s)
        if next_s is None:
            self._end_session()
            return _STEP_S
        return min(_STEP_S, max(0.01, next_s - time.monotonic()))

    def sites(self, process: ProcessId, now_s: float) -> tuple[Site, ...]:
        """What is known best: audited survivors, else who touches fresh memory."""
        return self._audited.get(process) or self._grown(process, now_s)

    def _sample(self, process: ProcessId, now_s: float) -> None:
        try:
            self._sampler.watch(process, now_s)
        except HostError:
            raise
        except MwtraceError as error:
            self._refused.add(process)
            log.debug("process %d is not sampled: %s", process.pid, error)
            return
        self._sampled[process.pid] = process

    def _begin(self, process: ProcessId, now_s: float) -> None:
        from mwtrace.tracing.probing import Probing
        from mwtrace.tracing.session import TraceSession

        self.began = process  # a refusal, too, stands for an hour
        if self._probing is None:
            self._probing = Probing(self._engine)
        try:
            self._session = TraceSession(self._probing, process, now_s, self._limits.trace_s)
        except HostError:
            raise
        except MwtraceError as error:
            log.debug("process %d is not probed: %s", process.pid, error)

    def _end_session(self) -> None:
        if self._session is not None:
            self._session.finish(time.monotonic())
            self._session.close()
            self._session = None

    def _audit(self, now_s: float) -> None:
        assert self._session is not None
        growth = self._session.facts(now_s).growth_bytes_per_second
        found = [s for s in self._session.sites(now_s, _SITES_MAX) if s.bytes_per_second > 0]
        if found and growth is not None and growth > 0:
            self._audited[self._session.traced.id] = tuple(
                _site(site.frames, site.bytes_per_second / growth, "audited survivors")
                for site in found
            )

    def _grown(self, process: ProcessId, now_s: float) -> tuple[Site, ...]:
        facts = self._sampler.facts(process.pid, now_s)
        if facts is None or facts.samples < _SAMPLES_MIN:
            return ()
        found = self._sampler.top_sites(process.pid, now_s, _SITES_MAX)
        return tuple(_site(site.frames, site.share, "sampled growth") for site in found)


def _site(frames: Sequence[Frame], share: float, known_by: str) -> Site:
    from mwtrace.tracing.report import place_of

    titles = tuple(frame.title for frame in reversed(frames))
    return Site(place_of(frames).words, titles, min(1.0, share), known_by)
