"""``mwtrace report``: all that can be learnt of one service's leak now, gathered for one page.

While the process is traced, its private memory is sampled; it is read from outside before and
after; snapshots that are there are analysed. What one of them cannot tell is noted, and the others
go on.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Optional

from mwtrace.aggregator import fit_samples
from mwtrace.analyzing import analyze_files, write_page
from mwtrace.errors import HostError, MwtraceError, ProcessError
from mwtrace.escalation.finding import find
from mwtrace.evidence.explain import Explanation, explain_process
from mwtrace.evidence.image import Budget
from mwtrace.host.procfs import Host
from mwtrace.lookup import Meant, find_process
from mwtrace.model import Finding, Fit, ProcessId, Site
from mwtrace.probes.engine_libbpf import LibbpfEngine
from mwtrace.probes.namespace import is_initial_pid_namespace
from mwtrace.snapshot.store import Store, StoreLimits
from mwtrace.tell.leak_report import LeakReport, render_html, render_json, render_text
from mwtrace.tell.terminal import detect_style
from mwtrace.tracing.command import Format, Wish, trace

if TYPE_CHECKING:
    from mwtrace.snapshot.analysis import Analysis

READING_S = 60.0
SAMPLES = 60  # what one fit takes
SITES_TOLD = 5
BUDGET_SHARE = 0.01
SNAPSHOTS_MAX = 3
MEMORY_MAX_BYTES = 4 << 30


class Asked(NamedTuple):
    word: str  # pid or service
    seconds: float
    files: Sequence[Path]  # (): the newest of the folder
    folder: Path


def report(asked: Asked, as_json: bool, html: Optional[Path]) -> None:
    found = gather(asked)
    if html is not None:
        write_page(html, render_html(found))
    if as_json:
        print(render_json(found))
    elif html is None:
        print(render_text(found, detect_style(sys.stdout, os.environ).unicode), end="")


def gather(asked: Asked) -> LeakReport:
    """Watch, read, trace and analyse; takes a little longer than asked.seconds."""
    host = Host()
    meant = find_process(host, asked.word)
    process = host.process_id(meant.pid)
    notes: list[str] = []
    before = _read(meant.pid, notes)
    samples = _Samples(host, meant.pid, asked.seconds)
    with samples.taken():
        sites, said = _trace(host, process, meant, asked.seconds, notes)
        samples.wait()
    now = _read(meant.pid, []) if before is not None else None
    return LeakReport(
        service=meant.service.name,
        pid=meant.pid,
        processes=meant.process_count,
        private_bytes=int(samples.sizes[-1]) if samples.sizes else meant.private_bytes,
        watched_s=samples.times_s[-1] - samples.times_s[0] if samples.times_s else 0.0,
        fit=samples.fit(),
        finding=_finding(process, before, now, notes),
        sites=sites,
        sites_said=said,
        analysis=_analysis(asked, meant, notes),
        notes=tuple(notes),
    )


class _Samples:
    """Private memory at even times, taken by a thread of its own while others trace."""

    def __init__(self, host: Host, pid: int, seconds: float) -> None:
        self._host = host
        self._pid = pid
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="samples", daemon=True)
        self.times_s: list[float] = []
        self.sizes: list[float] = []

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()

    def wait(self) -> None:
        """Until all samples are there, or the process has ended."""
        self._thread.join(self._seconds + 1.0)

    def fit(self) -> Optional[Fit]:
        return fit_samples(self.times_s, self.sizes)

    def _work(self) -> None:
        first_s = time.monotonic()
        for number in range(SAMPLES):
            due_s = first_s + number * self._seconds / (SAMPLES - 1)
            if self._stop.wait(max(0.0, due_s - time.monotonic())):
                return
            try:
                memory = self._host.memory(self._pid)
            except ProcessError:
                return
            if memory is None:
                return
            self.times_s.append(time.monotonic())
            self.sizes.append(float(memory.anon_bytes + memory.swap_bytes))


def _read(pid: int, notes: list[str]) -> Optional[Explanation]:
    try:
        return explain_process(pid, False, Budget(READING_S))
    except ProcessError as error:
        notes.append(f"what grows is not known: {error}")
        return None


def _finding(
    process: ProcessId,
    before: Optional[Explanation],
    now: Optional[Explanation],
    notes: list[str],
) -> Optional[Finding]:
    if before is None or now is None:
        return None
    try:
        return find(process, before, now, Budget(READING_S)).finding
    except ProcessError as error:
        notes.append(f"who holds it is not known from outside: {error}")
        return None


def _trace(
    host: Host, process: ProcessId, meant: Meant, seconds: float, notes: list[str]
) -> tuple[tuple[Site, ...], str]:
    name = meant.service.name
    wish = Wish(name, seconds, BUDGET_SHARE, False, False, Format.TABLE, None)
    try:
        if not is_initial_pid_namespace():
            raise HostError("the kernel reports the host's pids, and /proc here shows others")
        outcome = trace(LibbpfEngine(), host, process, name, wish)
    except (HostError, ProcessError) as error:
        notes.append(f"where it is allocated is not known: {error}")
        return (), ""
    notes += outcome.remarks
    sites = tuple(
        Site(place.place.words, (), place.share or 0.0, place.known_by.value)
        for place in outcome.report.places[:SITES_TOLD]
    )
    return sites, outcome.report.conclusion


def _analysis(asked: Asked, meant: Meant, notes: list[str]) -> Optional[Analysis]:
    try:
        files = list(asked.files) or _newest(asked.folder, meant.pid)
        return analyze_files(files, MEMORY_MAX_BYTES, False) if files else None
    except MwtraceError as error:
        notes.append(f"snapshots tell nothing: {error}")
        return None


# Of this very process: after a restart addresses mean other objects.
def _newest(folder: Path, pid: int) -> list[Path]:
    if not folder.is_dir():
        return []
    store = Store(folder, StoreLimits())
    try:
        kept = [one for one in store.snapshots() if one.pid == pid]
    finally:
        store.close()
    return [one.path for one in kept[-SNAPSHOTS_MAX:]]
