"""What is put together when the kernel ends a process: all that is known, before it is forgotten.

Called from the loop, at the tick that an OOM kill asks for: reads some small files and the
aggregator's tables, and waits for nobody.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Optional

from mwtrace.aggregator import Aggregator, OomKill
from mwtrace.errors import ProcessGone
from mwtrace.host.cgroup_memory import CgroupMemory
from mwtrace.model import PostMortem, Verdict, VerdictChange
from mwtrace.tell.cells import printable
from mwtrace.tell.lines import text_line
from mwtrace.tell.units import WallAnchor
from mwtrace.verdicts import Standing

_PROCESSES_MAX = 10
_LEVELS = 2  # minutes, and the hour before


def perform(
    oom_kill: OomKill,
    standing: Optional[Standing],
    aggregator: Aggregator,
    cgroups: CgroupMemory,
    now: WallAnchor,
    snapshot_path: str = "",
) -> PostMortem:
    """Say what was known of a victim and its service."""
    processes: list[tuple[int, int]] = []
    history: list[tuple[float, int]] = []
    if oom_kill.service_id:
        members = aggregator.members(oom_kill.service_id, _PROCESSES_MAX)
        processes = [(row.process.pid, row.private_bytes) for row in members if row.process]
        history = _history(aggregator, oom_kill.service_id)
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
        history=tuple((now.unix(time_s), size_bytes) for time_s, size_bytes in history),
        processes=tuple(processes),
        cgroup=_cgroup(cgroups, oom_kill.process.pid, [pid for pid, _ in processes]),
        snapshot_path=printable(snapshot_path),
    )


def _history(aggregator: Aggregator, service_id: int) -> list[tuple[float, int]]:
    """Its newest minutes, and before them, in larger steps, the hour."""
    samples: list[tuple[float, int]] = []
    with contextlib.suppress(ProcessGone):
        for level in range(_LEVELS):
            coarser = aggregator.history(service_id, level)
            first_s = samples[0][0] if samples else float("inf")
            samples = [sample for sample in coarser if sample[0] < first_s] + samples
    return samples


def _cgroup(
    cgroups: CgroupMemory, victim: int, siblings: Iterable[int]
) -> tuple[tuple[str, str], ...]:
    """The victim's, if it is still there, else that of a process of the same service."""
    for pid in (victim, *siblings):
        if rows := cgroups.of(pid):
            return rows
    return ()
