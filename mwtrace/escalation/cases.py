"""Which suspect is read when, and which finding stands: a case per process that grows.

Called from the loop at each tick; never waits. A case lives as long as its process is called
warming up, growing or leaking, and its finding with it.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Optional

from mwtrace.errors import ProcessGone
from mwtrace.escalation.allowance import Allowance, ReadingLimits
from mwtrace.escalation.reader import Job, Reader, Result
from mwtrace.evidence.explain import Explanation
from mwtrace.evidence.kind import GROWTH_MIN_BYTES
from mwtrace.model import Finding, Judgement, ProcessId, Subject, Verdict

log = logging.getLogger(__name__)


@dataclass
class _Case:
    number: int
    next_s: float  # not read before
    private_bytes: int = 0  # at the reading that is compared with next
    reading: Optional[Explanation] = None
    finding: Optional[Finding] = None
    is_asked: bool = False
    window_s: float = 0.0


class Escalation:
    """Follows the suspects of a watch and holds what was found of each."""

    def __init__(self, limits: ReadingLimits, check: Callable[[ProcessId], None]) -> None:
        self._limits = limits
        self._allowance = Allowance(limits)
        self._reader = Reader(limits, check)
        self._cases: dict[ProcessId, _Case] = {}
        self._numbers = itertools.count(1)
        self._time_s = 0.0
        self.counters = {
            "readings_total": 0,
            "readings_refused_total": 0,
            "readings_unreadable_total": 0,
        }

    def close(self) -> None:
        self._reader.close()

    def finding(self, process: ProcessId) -> Optional[Finding]:
        """What stands of a process; one that takes an alarm back does so for a time only."""
        case = self._cases.get(process)
        if case is None or case.finding is None:
            return None
        age_s = self._time_s - case.finding.time_s
        if not case.finding.is_leak and age_s > 2 * self._limits.renew_excuse_s:
            return None
        return case.finding

    def reading(self, process: ProcessId) -> Optional[Explanation]:
        """What a suspect's memory was made of when it was read last."""
        case = self._cases.get(process)
        return case.reading if case else None

    def kept_findings(self) -> Iterator[Finding]:
        for case in self._cases.values():
            if case.finding is not None:
                yield case.finding

    def take_finding(self, finding: Finding) -> None:
        """Let a finding of a run before this one stand until it would have been renewed."""
        renew_s = self._limits.renew_s if finding.is_leak else self._limits.renew_excuse_s
        self._cases[finding.process] = _Case(
            next(self._numbers),
            next_s=finding.time_s + renew_s,
            finding=finding,
            window_s=self._limits.window_s,
        )

    def spent(self) -> tuple[tuple[float, int], ...]:
        return self._allowance.spent()

    def take_spent(self, spent: Iterable[tuple[float, int]]) -> None:
        self._allowance.take_spent(spent)

    def collect(self, time_s: float) -> None:
        """Take what was read since the last tick."""
        self._time_s = time_s
        for result in self._reader.results():
            self._take(result, time_s)

    def follow(self, suspects: Iterable[tuple[Subject, Judgement]], time_s: float) -> None:
        """Have read who is due. suspects are processes that warm up, grow or leak."""
        # The worst first, where there is not enough for all.
        order = sorted(
            suspects, key=lambda s: (-s[1].verdict, -(s[1].slope_bytes_per_second or 0.0))
        )
        cases: dict[ProcessId, _Case] = {}
        for subject, judgement in order[: self._limits.cases_max]:
            process = subject.id.process
            if process is None or process.pid == os.getpid():
                continue
            case = self._cases.get(process) or _Case(
                next(self._numbers), time_s, window_s=self._limits.window_s
            )
            cases[process] = case
            if self._is_due(case, subject, judgement, time_s):
                self._ask(case, process, subject, time_s)
        self._cases = cases

    def _is_due(self, case: _Case, subject: Subject, judgement: Judgement, time_s: float) -> bool:
        # Who warms up is read once, if there is plenty to spare: should it turn out to leak, then
        # the kind is told with that verdict, and what is no leak is never called one.
        if judgement.verdict < Verdict.GROWING and (
            case.reading is not None or not self._allowance.is_ample(time_s)
        ):
            return False
        if case.is_asked or time_s < case.next_s or not self._limits.readings_per_hour:
            return False
        if case.reading is None:
            return True
        grown = subject.private_bytes - case.private_bytes
        waited_s = time_s - case.reading.time_s
        return grown >= self._limits.growth_bytes or waited_s >= self._limits.patience_s

    def _ask(self, case: _Case, process: ProcessId, subject: Subject, time_s: float) -> None:
        size_bytes = subject.private_bytes
        if not self._allowance.permits(time_s, size_bytes) or not self._reader.ask(
            Job(case.number, process, case.reading)
        ):
            self.counters["readings_refused_total"] += 1
            case.next_s = time_s + self._limits.retry_s
            return
        self._allowance.charge(time_s, size_bytes)
        self.counters["readings_total"] += 1
        case.is_asked = True

    def _take(self, result: Result, time_s: float) -> None:
        self._allowance.charge_more(result.more_bytes)
        if result.error is not None and not isinstance(result.error, ProcessGone):
            self.counters["readings_unreadable_total"] += 1
            log.debug("no kind is known of process %d: %s", result.job.process.pid, result.error)
        case = self._cases.get(result.job.process)
        if case is None or case.number != result.job.number:
            return  # it is no suspect any more
        case.is_asked = False
        now = result.reading
        if now is None:
            case.next_s = time_s + self._limits.retry_unreadable_s
            return
        finding = result.finding
        if finding is not None and finding.grown_bytes < GROWTH_MIN_BYTES:
            # Too little to say anything: wait for longer, and go on from the same reading.
            case.window_s = min(2 * case.window_s, self._limits.patience_s)
            case.next_s = time_s + case.window_s
            return
        case.reading, case.private_bytes = now, now.kernel.anon_bytes + now.kernel.swap_bytes
        if finding is None:
            case.next_s = now.time_s + self._limits.window_s
            return
        case.finding = finding
        renew_s = self._limits.renew_s if finding.is_leak else self._limits.renew_excuse_s
        case.next_s = now.time_s + renew_s
