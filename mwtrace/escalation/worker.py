"""What lives in the thread that finds sites: one sampler, and at most one session of windows.

Knows which suspects are wanted, as it is told at each step; not who asks, nor what was said of them
before. Everything that it loads goes with ``close()``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from mwtrace.errors import HostError, MwtraceError
from mwtrace.model import ProcessId, Site
from mwtrace.probes.engine import Engine

if TYPE_CHECKING:
    from mwtrace.tell.profile import Frame, ModuleMapping
    from mwtrace.tracing.growth import GrowthSampler, GrowthSite
    from mwtrace.tracing.probing import Probing
    from mwtrace.tracing.session import Site as AuditedSite
    from mwtrace.tracing.session import TraceSession

log = logging.getLogger(__name__)

STEP_S = 0.5  # between two steps, while no window asks for less
_SITES_MAX = 5
_SAMPLES_MIN = 50  # fewer samples name nobody
_EVIDENCE_S = 5.0  # what a profile is made of is no older than this
_PROFILED_SITES_MAX = 50


@dataclass(frozen=True)
class Spending:
    """What probes of ours took from one service, in all."""

    hits: int = 0
    spent_s: float = 0.0


@dataclass(frozen=True)
class Evidence:
    """What a profile of one process is made of."""

    time_s: float
    time_ns: int  # wall clock
    duration_s: float
    interval_bytes: int
    python_is_inlined: bool
    growth_bytes_per_second: Optional[float]
    audited: tuple[AuditedSite, ...]
    grown: tuple[GrowthSite, ...]
    modules: tuple[ModuleMapping, ...]


class Worker:
    """Not for several threads. Raises HostError where nothing can be sampled."""

    def __init__(self, engine: Engine, trace_s: float) -> None:
        # Heavy, and only for hosts that have a suspect.
        from mwtrace.tracing.demangle import Demangler
        from mwtrace.tracing.growth import GrowthSampler

        self._demangler = Demangler()
        self._engine = engine
        self._trace_s = trace_s
        self._sampler: GrowthSampler = GrowthSampler(engine)
        self._probing: Optional[Probing] = None
        self._session: Optional[TraceSession] = None
        self._refused: set[ProcessId] = set()
        self._audited: dict[ProcessId, tuple[Site, ...]] = {}
        self._sampled: dict[int, ProcessId] = {}
        self._errors: list[MwtraceError] = []
        self._charged = Spending()  # of the session that runs, what spent() has told
        self._spent: list[tuple[ProcessId, Spending]] = []
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
            return STEP_S
        if self._session.traced.id not in wanted:
            self._end_session()
            return STEP_S
        next_s = self._session.step(now_s)
        self._audit(now_s)
        if next_s is None:
            self._end_session()
            return STEP_S
        return min(STEP_S, max(0.01, next_s - time.monotonic()))

    def refused(self) -> list[MwtraceError]:
        """Why suspects were not sampled or probed, since the last call."""
        errors, self._errors = self._errors, []
        return errors

    def spent(self) -> list[tuple[ProcessId, Spending]]:
        """What probes took since the last call."""
        self._charge()
        spent, self._spent = self._spent, []
        return spent

    def evidence(
        self, process: ProcessId, now_s: float, known: Optional[Evidence]
    ) -> Optional[Evidence]:
        """What a profile is made of; what is known, while it is young."""
        if known is not None and now_s - known.time_s < _EVIDENCE_S:
            return known
        facts = self._sampler.facts(process.pid, now_s)
        if facts is None:
            return known
        session = self._session
        audited: tuple[AuditedSite, ...] = known.audited if known else ()
        interval, inlined = (known.interval_bytes, known.python_is_inlined) if known else (0, False)
        if session is not None and session.traced.id == process:
            audited = session.sites(now_s)
            interval = session.facts(now_s).interval_bytes
            inlined = session.python_is_inlined
        return Evidence(
            now_s,
            time.time_ns(),
            facts.watched_s,
            interval,
            inlined,
            facts.growth_bytes_per_second,
            audited,
            self._sampler.top_sites(process.pid, now_s, _PROFILED_SITES_MAX),
            self._sampler.modules(process.pid),
        )

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
            self._errors.append(error)
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
            self._session = TraceSession(self._probing, process, now_s, self._trace_s)
        except HostError:
            raise
        except MwtraceError as error:
            self._errors.append(error)
            log.debug("process %d is not probed: %s", process.pid, error)

    def _end_session(self) -> None:
        if self._session is not None:
            self._session.finish(time.monotonic())
            self._charge()
            self._charged = Spending()
            self._session.close()
            self._session = None

    def _charge(self) -> None:
        if self._session is None:
            return
        facts = self._session.facts(time.monotonic())
        before, self._charged = self._charged, Spending(facts.hits, facts.spent_s)
        more = Spending(facts.hits - before.hits, facts.spent_s - before.spent_s)
        if more.hits or more.spent_s:
            self._spent.append((self._session.traced.id, more))

    def _audit(self, now_s: float) -> None:
        assert self._session is not None
        growth = self._session.facts(now_s).growth_bytes_per_second
        found = [s for s in self._session.sites(now_s, _SITES_MAX) if s.bytes_per_second > 0]
        if found and growth is not None and growth > 0:
            self._audited[self._session.traced.id] = tuple(
                self._site(site.frames, site.bytes_per_second / growth, "audited survivors")
                for site in found
            )

    def _grown(self, process: ProcessId, now_s: float) -> tuple[Site, ...]:
        facts = self._sampler.facts(process.pid, now_s)
        if facts is None or facts.samples < _SAMPLES_MIN:
            return ()
        found = self._sampler.top_sites(process.pid, now_s, _SITES_MAX)
        return tuple(self._site(site.frames, site.share, "sampled growth") for site in found)

    def _site(self, frames: Sequence[Frame], share: float, known_by: str) -> Site:
        from mwtrace.tracing.report import place_of

        frames = self._demangler.renamed(frames)
        titles = tuple(frame.title for frame in reversed(frames))
        return Site(place_of(frames).words, titles, min(1.0, share), known_by)
