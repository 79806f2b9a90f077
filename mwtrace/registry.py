"""Which service a process belongs to, as numbers for C and names for people.

Hands out service ids, takes them back when a service has had no process for a while, and names
what the aggregator asks for. Under --pid each chosen process is a service of its own and nothing
else is named, so nothing else is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple, Optional

from mwtrace.aggregator import Aggregator, Unnamed
from mwtrace.errors import ProcessGone, ProcessUnreadable
from mwtrace.host.services import ServiceNames
from mwtrace.model import ProcessId, SubjectId

# Whoever starts programs under ever new names must not keep the ids from those that come after:
# services that are gone are forgotten early when fewer than this share of the ids is left.
_SPARE_SHARE = 8
_WAITING_MAX = 65_536
_WAITING_TRIED_MAX = 1_024  # per tick


class KeptName(NamedTuple):
    """Who has a service id."""

    service_id: int
    subject: SubjectId
    is_gone: bool  # it has no process at present


class Registry:
    """Services by id; what comes beyond services_max is counted in C, and waits for an id."""

    def __init__(
        self,
        aggregator: Aggregator,
        names: ServiceNames,
        services_max: int,
        is_chosen: Optional[Callable[[ProcessId], bool]] = None,
    ) -> None:
        self._aggregator = aggregator
        self._names = names
        self._is_chosen = is_chosen
        self._ids: dict[SubjectId, int] = {}
        self._subjects: dict[int, SubjectId] = {}
        self._services_max = services_max
        self._free = list(range(services_max - 1, 0, -1))
        self._gone_since_s: dict[int, float] = {}  # oldest first
        # The aggregator asks once. These could not be named then, for want of descriptors or ids.
        self._waiting: dict[ProcessId, Unnamed] = {}
        self.names_abandoned_total = 0  # beyond _WAITING_MAX

    def subject(self, service_id: int) -> Optional[SubjectId]:
        """Return who has that id, or None if nobody has."""
        return self._subjects.get(service_id)

    def __len__(self) -> int:
        return len(self._subjects)

    def kept_names(self) -> Iterator[KeptName]:
        for service_id, subject in self._subjects.items():
            yield KeptName(service_id, subject, service_id in self._gone_since_s)

    def take_name(self, kept: KeptName, time_s: float) -> bool:
        """Give an id to whom a run before this one gave it; before the first tick.

        Returns False if it is out of our bounds, or was given twice.
        """
        if not 0 < kept.service_id < self._services_max or kept.subject in self._ids:
            return False
        if kept.service_id in self._subjects:
            return False
        self._ids[kept.subject] = kept.service_id
        self._subjects[kept.service_id] = kept.subject
        if kept.is_gone:
            self._gone_since_s[kept.service_id] = time_s
        return True

    def close_ranks(self) -> None:
        """See which ids are free after ``take_name()``."""
        ids = range(self._services_max - 1, 0, -1)
        self._free = [service_id for service_id in ids if service_id not in self._subjects]

    def name(self, unnamed: Iterable[Unnamed]) -> None:
        """Give each of these processes its service, and those that wait for one."""
        for asked in list(islice(self._waiting.values(), _WAITING_TRIED_MAX)):
            del self._waiting[asked.process]
            if self._is_watched(asked.process):
                self._name(asked, is_first=False)
                if asked.process in self._waiting:
                    break  # what it lacks, the others lack too
        for asked in unnamed:
            self._waiting.pop(asked.process, None)
            if self._is_chosen is None or self._is_chosen(asked.process):
                self._name(asked, is_first=True)

    def forget(self, gone_ids: Iterable[int], time_s: float, keep_s: float) -> list[int]:
        """Note services without a process; return the ids taken back after keep_s of that.

        Call it before name(): what is gone in this tick's table may come back by a process that
        the same table asks a name for.
        """
        for service_id in gone_ids:
            if service_id in self._subjects:
                self._gone_since_s.setdefault(service_id, time_s)
        spare = len(self._free)
        forgotten = []
        for service_id, since_s in list(self._gone_since_s.items()):
            if time_s - since_s < keep_s and spare >= self._services_max // _SPARE_SHARE:
                break
            self._take_back(service_id)
            forgotten.append(service_id)
            spare += 1
        return forgotten

    def _take_back(self, service_id: int) -> None:
        del self._gone_since_s[service_id]
        self._aggregator.forget_service(service_id)
        del self._ids[self._subjects.pop(service_id)]
        self._free.append(service_id)

    def _name(self, asked: Unnamed, is_first: bool) -> None:
        process = asked.process
        try:
            service = self._names.name(process, asked.comm)
        except ProcessGone:
            return
        except ProcessUnreadable:
            self._wait(asked)  # we, or the host, may open no more files: it passes
            return
        subject = SubjectId(service, None if self._is_chosen is None else process)
        service_id = self._ids.get(subject)
        if service_id is not None:
            self._join(process, service_id)
        elif self._free:
            if self._join(process, self._free[-1]):
                service_id = self._free.pop()
                self._ids[subject] = service_id
                self._subjects[service_id] = subject
        else:
            if is_first:
                self._join(process, self._services_max)  # refused there, and counted
            self._wait(asked)

    def _join(self, process: ProcessId, service_id: int) -> bool:
        try:
            is_taken = self._aggregator.name(process, service_id)
        except ProcessGone:
            return False
        self._gone_since_s.pop(service_id, None)
        return is_taken

    def _wait(self, asked: Unnamed) -> None:
        if len(self._waiting) >= _WAITING_MAX:
            del self._waiting[next(iter(self._waiting))]
            self.names_abandoned_total += 1
        self._waiting[asked.process] = asked

    def _is_watched(self, process: ProcessId) -> bool:
        try:
            self._aggregator.history(process, 0)
        except ProcessGone:
            return False
        return True
