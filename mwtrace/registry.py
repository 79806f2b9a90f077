"""Which service a process belongs to, as numbers for C and names for people.

Hands out service ids, takes them back when a service has had no process for a while, and names
what the aggregator asks for. Under --pid each chosen process is a service of its own and nothing
else is named, so nothing else is judged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Optional

from mwtrace.aggregator import Aggregator, Unnamed
from mwtrace.errors import ProcessGone, ProcessUnreadable
from mwtrace.host.services import ServiceNames
from mwtrace.model import ProcessId, Service, SubjectId


class Registry:
    """Services by id; what comes beyond services_max stays without one and is counted in C."""

    def __init__(
        self,
        aggregator: Aggregator,
        names: ServiceNames,
        services_max: int,
        pids: Collection[int] = (),
    ) -> None:
        self._aggregator = aggregator
        self._names = names
        self._pids = frozenset(pids)
        self._ids: dict[SubjectId, int] = {}
        self._subjects: dict[int, SubjectId] = {}
        self._services_max = services_max
        self._free = list(range(services_max - 1, 0, -1))
        self._gone_since_s: dict[int, float] = {}
        self._waiting: list[Unnamed] = []  # at most one of each process that is alive

    def subject(self, service_id: int) -> Optional[SubjectId]:
        """Return who has that id, or None if nobody has."""
        return self._subjects.get(service_id)

    def __len__(self) -> int:
        return len(self._subjects)

    def name(self, unnamed: Iterable[Unnamed]) -> None:
        """Give each of these processes its service."""
        asked_for = [*self._waiting, *unnamed]
        self._waiting = []
        for asked in asked_for:
            process = asked.process
            if self._pids and process.pid not in self._pids:
                continue
            try:
                service = self._names.name(process, asked.comm)
                self._aggregator.name(process, self._id(service, process))
            except ProcessGone:
                continue
            except ProcessUnreadable:
                # Out of descriptors, which passes. The aggregator asks once only.
                self._waiting.append(asked)

    def forget(self, gone_ids: Iterable[int], time_s: float, keep_s: float) -> list[int]:
        """Note services without a process; return the ids taken back after keep_s of that."""
        for service_id in gone_ids:
            self._gone_since_s.setdefault(service_id, time_s)
        forgotten = [i for i, since_s in self._gone_since_s.items() if time_s - since_s >= keep_s]
        for service_id in forgotten:
            del self._gone_since_s[service_id]
            self._aggregator.forget_service(service_id)
            del self._ids[self._subjects.pop(service_id)]
            self._free.append(service_id)
        return forgotten

    def _id(self, service: Service, process: ProcessId) -> int:
        subject = SubjectId(service, process if self._pids else None)
        service_id = self._ids.get(subject)
        if service_id is None:
            if not self._free:
                return self._services_max  # refused and counted there
            service_id = self._free.pop()
            self._ids[subject] = service_id
            self._subjects[service_id] = subject
        self._gone_since_s.pop(service_id, None)
        return service_id
