"""What is put together when the kernel ends a process: all that is known, before it is forgotten.

Called from the loop, at the tick that an OOM kill asks for: reads some small files and the
aggregator's tables, and waits for nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Optional

from mwtrace.aggregator import Aggregator, OomKill
from mwtrace.host.cgroup_memory import CgroupMemory
from mwtrace.host.cgroups import Membership
from mwtrace.model import PostMortem, Verdict, VerdictChange
from mwtrace.tell.cells import printable
from mwtrace.tell.lines import text_line
from mwtrace.tell.units import WallAnchor
from mwtrace.verdicts import Standing

_PROCESSES_MAX = 10
_LOOKS_PER_TICK_MAX = 32


def perform(
    oom_kill: OomKill,
    standing: Optional[Standing],
    aggregator: Aggregator,
    memberships: Memberships,
    now: WallAnchor,
    snapshot_path: str = "",
) -> PostMortem:
    """Say what was known of a victim and its service."""
    processes: list[tuple[int, int]] = []
    if oom_kill.service_id:
        members = aggregator.members(oom_kill.service_id, _PROCESSES_MAX)
        processes = [(row.process.pid, row.private_bytes) for row in members if row.process]
    verdict = ""
    if standing is not None and standing.judgement.verdict > Verdict.LEARNING:
        subject = standing.subject
        told = VerdictChange(
            subject.time_s, subject, None, standing.judgement, standing.finding, standing.sites
        )
        verdict = text_line(told, None)
    return PostMortem(
        time_unix_s=now.unix(oom_kill.time_s),
        pid=oom_kill.process.pid,
        comm=printable(oom_kill.comm.decode("utf-8", "surrogateescape")),
        private_bytes=oom_kill.private_bytes,
        verdict=verdict,
        history=tuple((now.unix(time_s), size_bytes) for time_s, size_bytes in oom_kill.history),
        processes=tuple(processes),
        cgroup=memberships.cgroup(
            oom_kill.service_id, oom_kill.process.pid, [pid for pid, _ in processes]
        ),
        snapshot_path=printable(snapshot_path),
    )


class Memberships:
    """Remembers in which cgroup each service is: a victim is gone before it can be asked."""

    def __init__(self, cgroups: CgroupMemory) -> None:
        self._cgroups = cgroups
        self._known: dict[int, Membership] = {}  # by service id

    def follow(self, standings: Mapping[int, Standing]) -> None:
        """Look at some services that were not looked at yet; forget those that are gone."""
        if not standings.keys() >= self._known.keys():
            self._known = {key: one for key, one in self._known.items() if key in standings}
        unknown = (
            key for key, one in standings.items() if key not in self._known and not one.is_gone
        )
        for service_id in list(islice(unknown, _LOOKS_PER_TICK_MAX)):
            membership = self._cgroups.membership(standings[service_id].subject.largest_pid)
            if membership is not None:
                self._known[service_id] = membership

    def cgroup(
        self, service_id: int, victim: int, siblings: Iterable[int]
    ) -> tuple[tuple[str, str], ...]:
        """The victim's, if it is still there, else that of its service."""
        for pid in (victim, *siblings):
            membership = self._cgroups.membership(pid)
            if membership is not None and (rows := self._cgroups.at(membership)):
                return rows
        known = self._known.get(service_id)
        return self._cgroups.at(known) if known is not None else ()
