"""From one table to the verdicts that changed: each process judged, each service judged as a whole.

Knows which rows belong together and whose memory of verdicts must be kept or dropped; what counts
as a leak is decided in ``judge``, and who is told elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Optional

from mwtrace.aggregator import Row, Table
from mwtrace.judge import excuse
from mwtrace.judge.trend import Thresholds
from mwtrace.judge.verdict import Memory, judge, of_service, with_limit
from mwtrace.model import (
    Finding,
    Judgement,
    Limit,
    NewFinding,
    ProcessId,
    Site,
    Subject,
    SubjectId,
    Verdict,
    VerdictChange,
)
from mwtrace.rules import Rules, thresholds_under

# By the aggregator's service id; None if nobody has it.
FindSubject = Callable[[int], Optional[SubjectId]]
FindLimit = Callable[[int], Optional[Limit]]  # by the pid of the largest process
FindFinding = Callable[[ProcessId], Optional[Finding]]
FindSites = Callable[[ProcessId], tuple[Site, ...]]


class _Member(NamedTuple):
    """A process of a service that is not steady."""

    process: ProcessId
    judgement: Judgement  # in the light of the finding
    finding: Optional[Finding]


@dataclass
class Standing:
    """Where one service stands: what was last said of it, and of its guilty processes."""

    subject: Subject
    judgement: Judgement
    told: Optional[Verdict] = None
    is_gone: bool = False  # it has no process at present
    finding: Optional[Finding] = None  # of the worst process of which one is known
    sites: tuple[Site, ...] = ()  # of its worst process
    told_kind: Optional[str] = None
    told_known_by: str = ""


@dataclass(frozen=True)
class KeptService:
    """What of a service's standing must survive a restart."""

    service_id: int
    judgement: Judgement
    told: Optional[Verdict]
    is_gone: bool
    finding: Optional[Finding]
    sites: tuple[Site, ...]
    told_kind: Optional[str]
    told_known_by: str
    memory: Optional[Memory]
    subject: Subject = field(compare=False)  # as it was last: its sizes are another in each tick


@dataclass(frozen=True)
class KeptProcess:
    """The same of a process that is not steady."""

    process: ProcessId
    service_id: int
    memory: Memory
    subject: Subject = field(compare=False)


class Verdicts:
    """Judges table after table; holds a memory per service, and per process that is not steady."""

    def __init__(
        self,
        thresholds: Thresholds,
        find_subject: FindSubject,
        find_limit: FindLimit,
        is_alive: Callable[[ProcessId], bool],
        find_finding: FindFinding = lambda process: None,
        find_sites: FindSites = lambda process: (),
        rules: Optional[Rules] = None,
    ) -> None:
        self._thresholds = thresholds
        self._rules = rules or Rules()
        self._find_subject = find_subject
        self._find_limit = find_limit
        self._is_alive = is_alive
        self._find_finding = find_finding
        self._find_sites = find_sites
        self._services: dict[int, Memory] = {}
        # Only of processes that were rising: a steady one needs none.
        self._processes: dict[ProcessId, tuple[int, Subject, Memory]] = {}
        self.standings: dict[int, Standing] = {}  # by service id
        self.new_findings: list[NewFinding] = []  # of the last update, besides its changes

    def update(self, table: Table, boot_offset_s: float) -> list[VerdictChange]:
        """Judge all rows; boot_offset_s is CLOCK_BOOTTIME minus CLOCK_MONOTONIC.

        Returns the services whose verdict became another one, worst first.
        """
        self.new_findings = []
        services: list[Row] = []
        risen: set[ProcessId] = set()
        for row in table.rows:
            if row.process is None:
                services.append(row)
                continue
            if row.is_cleared:
                # It runs another program: what was said of the one before is not said of it.
                self._processes.pop(row.process, None)
            if row.is_rising and self._is_judged(row.service_id):
                risen.add(row.process)
                self._judge_process(row, row.process, table.time_s, boot_offset_s)
        self._cool(risen, table.time_s)
        members: dict[int, list[_Member]] = {}
        for process, (service_id, _, memory) in self._processes.items():
            members.setdefault(service_id, []).append(self._member(process, memory.judgement))
        subjects = {
            service_id: replace(standing.subject, time_s=table.time_s, levels=())
            for service_id, standing in self.standings.items()
            # Calm and small ones have no row.
            if standing.judgement.verdict is not Verdict.STEADY and not standing.is_gone
        }
        for row in services:
            subject = self._subject(row, table.time_s, boot_offset_s)
            if row.is_gone:
                self._leave(row.service_id)
                subjects.pop(row.service_id, None)
            elif subject is not None and self._is_judged(row.service_id):
                subjects[row.service_id] = subject
        changes: list[VerdictChange] = []
        for service_id, subject in subjects.items():
            changes += self._judge_service(service_id, subject, members.get(service_id, []))
        changes.sort(key=lambda change: (-change.now.verdict, -change.subject.private_bytes))
        return changes

    def adopt(self, thresholds: Thresholds, rules: Rules) -> None:
        """Judge by these from now on; who is ignored from now on is forgotten."""
        self._thresholds, self._rules = thresholds, rules
        for service_id, standing in list(self.standings.items()):
            if rules.of(standing.subject.id.service).is_ignored:
                self.forget(service_id)
        for process, (_, subject, _) in list(self._processes.items()):
            if rules.of(subject.id.service).is_ignored:
                del self._processes[process]

    def forget(self, service_id: int) -> None:
        """Drop a service whose id is given back."""
        self._services.pop(service_id, None)
        self.standings.pop(service_id, None)

    def kept_services(self) -> Iterator[KeptService]:
        for service_id, standing in self.standings.items():
            yield KeptService(
                service_id,
                standing.judgement,
                standing.told,
                standing.is_gone,
                standing.finding,
                standing.sites,
                standing.told_kind,
                standing.told_known_by,
                self._services.get(service_id),
                replace(standing.subject, levels=()),
            )

    def kept_processes(self) -> Iterator[KeptProcess]:
        for process, (service_id, subject, memory) in self._processes.items():
            yield KeptProcess(process, service_id, memory, replace(subject, levels=()))

    def take_service(self, kept: KeptService) -> None:
        """Go on from what a run before this one kept; before the first update."""
        self.standings[kept.service_id] = Standing(
            kept.subject,
            kept.judgement,
            kept.told,
            kept.is_gone,
            kept.finding,
            kept.sites,
            kept.told_kind,
            kept.told_known_by,
        )
        if kept.memory is not None and not kept.is_gone:
            self._services[kept.service_id] = kept.memory

    def take_process(self, kept: KeptProcess) -> None:
        self._processes[kept.process] = (kept.service_id, kept.subject, kept.memory)

    def _leave(self, service_id: int) -> None:
        """Keep what was told of a service without processes, so that its return is no news."""
        self._services.pop(service_id, None)
        if service_id in self.standings:
            self.standings[service_id].is_gone = True

    def guilty(self, service_id: int) -> Iterator[tuple[ProcessId, Judgement]]:
        """Yield a service's processes that grow or leak."""
        for process, (owner, _, memory) in self._processes.items():
            if owner == service_id and memory.judgement.verdict >= Verdict.GROWING:
                yield process, memory.judgement

    def suspects(self) -> Iterator[tuple[Subject, Judgement]]:
        """Yield all processes that warm up, grow or leak, as their memory alone says."""
        for _, subject, memory in self._processes.values():
            if memory.judgement.verdict >= Verdict.WARMING_UP:
                yield subject, memory.judgement

    def _member(self, process: ProcessId, judgement: Judgement) -> _Member:
        finding = self._find_finding(process) if judgement.verdict >= Verdict.GROWING else None
        return _Member(process, excuse.with_finding(judgement, finding), finding)

    def _judge_process(
        self, row: Row, process: ProcessId, time_s: float, boot_offset_s: float
    ) -> None:
        subject = self._subject(row, time_s, boot_offset_s)
        if subject is None:
            return
        known = self._processes.get(process)
        memory = judge(subject, known[2] if known else None, self._thresholds_of(subject))
        self._processes[process] = (row.service_id, subject, memory)

    def _cool(self, risen: set[ProcessId], time_s: float) -> None:
        """Judge the processes that no longer rise, until they are steady or gone."""
        for process in [process for process in self._processes if process not in risen]:
            service_id, subject, memory = self._processes[process]
            subject = replace(subject, time_s=time_s, levels=())
            memory = judge(subject, memory, self._thresholds_of(subject))
            if memory.judgement.verdict <= Verdict.STEADY or not self._is_alive(process):
                del self._processes[process]
            else:
                self._processes[process] = (service_id, subject, memory)

    def _judge_service(
        self, service_id: int, subject: Subject, members: list[_Member]
    ) -> list[VerdictChange]:
        memory = judge(subject, self._services.get(service_id), self._thresholds_of(subject))
        self._services[service_id] = memory
        excused = [m.judgement for m in members if m.finding and not m.finding.is_leak]
        own = excuse.of_sum(memory.judgement, excused)
        judgement = of_service(own, [member.judgement for member in members])
        if judgement.verdict >= Verdict.WARMING_UP:
            judgement = with_limit(judgement, self._find_limit(subject.largest_pid))
        standing = self.standings.get(service_id)
        if standing is None:
            standing = self.standings[service_id] = Standing(subject, judgement)
        standing.subject, standing.judgement, standing.is_gone = subject, judgement, False
        guilty = members if judgement.verdict >= Verdict.GROWING else []
        finding, sites = _worst_finding(guilty), self._worst_sites(guilty)
        known_by = sites[0].known_by if sites else ""
        is_news = (finding.kind if finding else None) != standing.told_kind or (
            known_by != standing.told_known_by
        )
        standing.finding, standing.sites = finding, sites
        if standing.told is not judgement.verdict:
            before, standing.told = standing.told, judgement.verdict
            told = [VerdictChange(subject.time_s, subject, before, judgement, finding, sites)]
        elif is_news and finding is not None:
            news = NewFinding(subject.time_s, subject, judgement, finding, sites)
            self.new_findings.append(news)
            told = []
        else:
            return []
        standing.told_kind = finding.kind if finding else None
        standing.told_known_by = known_by
        return told

    def _is_judged(self, service_id: int) -> bool:
        identity = self._find_subject(service_id)
        return identity is not None and not self._rules.of(identity.service).is_ignored

    def _thresholds_of(self, subject: Subject) -> Thresholds:
        return thresholds_under(self._rules.of(subject.id.service), self._thresholds)

    def _worst_sites(self, members: list[_Member]) -> tuple[Site, ...]:
        for member in sorted(members, key=_badness, reverse=True):
            if sites := self._find_sites(member.process):
                return sites
        return ()

    def _subject(self, row: Row, time_s: float, boot_offset_s: float) -> Optional[Subject]:
        identity = self._find_subject(row.service_id)
        if identity is None:
            return None
        if row.process is not None:
            identity = identity._replace(process=row.process)
        return Subject(
            id=identity,
            time_s=time_s,
            started_s=row.start_time_ns / 1e9 - boot_offset_s,
            first_time_s=row.first_time_s,
            private_bytes=row.private_bytes,
            file_bytes=row.file_bytes,
            shmem_bytes=row.shmem_bytes,
            total_vm_bytes=row.total_vm_bytes,
            process_count=row.process_count,
            largest_pid=row.largest_pid,
            cgroup_id=row.cgroup_id,
            levels=row.levels,
        )


def _worst_finding(members: list[_Member]) -> Optional[Finding]:
    known = [member for member in members if member.finding is not None]
    return max(known, key=_badness).finding if known else None


def _badness(member: _Member) -> tuple[int, float]:
    return (member.judgement.verdict, member.judgement.slope_bytes_per_second or 0.0)
