"""A made-up host under the real aggregator and the real judge, with a clock that we turn."""

from __future__ import annotations

from typing import Callable

from mwtrace.aggregator import Aggregator, Limits, RecordBuffer, Table
from mwtrace.capi import ffi, lib
from mwtrace.judge.trend import MIB, Thresholds
from mwtrace.model import (
    Finding,
    Judgement,
    Limit,
    ProcessId,
    Service,
    ServiceKind,
    SubjectId,
    Verdict,
    VerdictChange,
)
from mwtrace.verdicts import Verdicts

PAGE_BYTES = 4096
TICK_S = 5.0
BEGIN_S = 1000.0  # the host has run for a while

# Private bytes by the seconds since the process started.
Shape = Callable[[float], float]


def steady(size_bytes: float) -> Shape:
    return lambda age_s: size_bytes


def leak(bytes_per_second: float, base_bytes: float = 20 * MIB) -> Shape:
    return lambda age_s: base_bytes + bytes_per_second * age_s


class Watched:
    """Processes by pid, each with a shape and a service; ``tick()`` is what the daemon does."""

    def __init__(
        self,
        limits: Limits | None = None,
        limit: Limit | None = None,
        tick_s: float = TICK_S,
    ) -> None:
        self._tick_s = tick_s
        self.limits = limits or Limits(processes_max=64, services_max=32, unnamed_max=64)
        self.aggregator = Aggregator(self.limits)
        self.verdicts = Verdicts(
            Thresholds(),
            self.subject_of,
            lambda pid: limit,
            self._aggregator_knows,
            lambda process: self.findings.get(process),
        )
        self.findings: dict[ProcessId, Finding] = {}  # as if they had been read
        self.time_s = BEGIN_S
        self.changes: list[VerdictChange] = []
        self._records = RecordBuffer(64)
        self._processes: dict[int, tuple[int, Shape, float]] = {}
        self._services: dict[int, str] = {}

    def subject_of(self, service_id: int) -> SubjectId | None:
        name = self._services.get(service_id)
        return SubjectId(Service(name, ServiceKind.COMMAND), None) if name else None

    def start(self, pid: int, service_id: int, shape: Shape) -> None:
        self._services.setdefault(service_id, f"service-{service_id}")
        self._processes[pid] = (service_id, shape, self.time_s)

    def end(self, pid: int) -> None:
        del self._processes[pid]

    def execute(self, pid: int, shape: Shape) -> None:
        """The process runs another program from now on."""
        process = self.process(pid)
        fields = {"kind": lib.MW_EVENT_EXEC, "pid": pid, "start_time_ns": process.start_time_ns}
        event = ffi.new("struct mw_lifecycle_event *", fields)
        lib.mw_aggregator_on_event(self.aggregator.pointer, event, ffi.sizeof(event[0]))
        service_id, _, started_s = self._processes[pid]
        now_s = self.time_s

        self._processes[pid] = (
            service_id,
            lambda age_s: shape(age_s + started_s - now_s),
            started_s,
        )

    def process(self, pid: int) -> ProcessId:
        return ProcessId(pid, round(self._processes[pid][2] * 1e9))

    def tick(self) -> Table:
        self.time_s += self._tick_s
        self._records.clear()
        for pid, (_, shape, started_s) in self._processes.items():
            pages = int(shape(self.time_s - started_s)) // PAGE_BYTES
            start_ns = round(started_s * 1e9)
            self._records.append(pid, start_ns, 0, pages, 0, 0, 0, pages, 1, b"program")
        table = self.aggregator.tick(self.time_s, records=self._records)
        for unnamed in table.unnamed:
            service_id = self._processes[unnamed.process.pid][0]
            self.aggregator.name(unnamed.process, service_id)
        self.changes += self.verdicts.update(table, boot_offset_s=0.0)
        return table

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / self._tick_s)):
            self.tick()

    def run_until(self, service_id: int, verdict: Verdict, within_s: float) -> float:
        """Tick until a service is called that; return how long it took."""
        began_s = self.time_s
        while self.time_s - began_s < within_s:
            self.tick()
            if self.verdict(service_id) is verdict:
                return self.time_s - began_s
        raise AssertionError(f"{self.judgement(service_id)} after {within_s} s")

    def judgement(self, service_id: int) -> Judgement:
        return self.verdicts.standings[service_id].judgement

    def verdict(self, service_id: int) -> Verdict | None:
        standing = self.verdicts.standings.get(service_id)
        return standing.judgement.verdict if standing else None

    def told(self, service_id: int) -> list[Verdict]:
        """All verdicts that were told of a service, in order."""
        subject = self.subject_of(service_id)
        return [change.now.verdict for change in self.changes if change.subject.id == subject]

    def _aggregator_knows(self, process: ProcessId) -> bool:
        return any(self.process(pid) == process for pid in self._processes)
