"""Slow, obvious Python versions of cext/series.h and cext/aggregator.h.

Everything is kept for ever and looked up by scanning; what C gets by bookkeeping is here derived
from what was said, when it is asked for.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mwtrace.aggregator import COUNTERS, Limits
from mwtrace.capi import ffi, lib
from mwtrace.model import Fit

if TYPE_CHECKING:
    from mwtrace._cext import CData

PAGE_BYTES = resource.getpagesize()
NS_PER_S = 1_000_000_000
LEVELS = range(lib.MW_LEVELS)
WINDOWS = [lib.mw_fit_window_samples[i] for i in range(lib.MW_FIT_WINDOWS)]
PAGES_MAX = 2**32 - 1


class Clock:
    """Every tick ever, and for each level the ticks in each of its buckets."""

    def __init__(self, bucket_ns: list[int]) -> None:
        self.bucket_ns = bucket_ns
        self.times_ns: list[int] = []
        self.buckets: list[list[list[int]]] = [[] for _ in LEVELS]

    @property
    def tick(self) -> int:
        return len(self.times_ns) - 1

    def advance(self, time_ns: int) -> None:
        self.times_ns.append(time_ns)
        for width_ns, buckets in zip(self.bucket_ns, self.buckets):
            if not buckets or time_ns - self.times_ns[buckets[-1][0]] >= width_ns * 9 // 10:
                buckets.append([])
            buckets[-1].append(self.tick)


class History:
    """A subject's samples: pages by tick."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.pages: dict[int, int] = {}

    def add(self, pages: int) -> None:
        self.pages[self.clock.tick] = min(pages, PAGES_MAX - 1)

    @property
    def first_time_ns(self) -> int:
        return self.clock.times_ns[min(self.pages)] if self.pages else 0

    def samples(self, level: int) -> list[tuple[int, int]]:
        """Return (time_ns, pages) of each bucket that has a sample."""
        buckets = self.clock.buckets[level]
        closed = buckets if level == 0 else buckets[:-1]
        found = []
        for bucket in closed[-lib.MW_LEVEL_SAMPLES :]:
            pages = [self.pages[tick] for tick in bucket if tick in self.pages]
            if pages:
                time_ns = max(self.clock.times_ns[bucket[0]], self.first_time_ns)
                found.append((time_ns, min(pages)))
        return found

    def rise_pages(self, level: int) -> int:
        """Return the greatest rise of the lower envelope in a window of this level."""
        pages = [pages for _, pages in self.samples(level)]
        rises = [0]
        for window in WINDOWS:
            if window <= len(pages):
                seen = pages[-window:]
                first, last = seen[: window // 5], seen[4 * window // 5 :]
                rises.append(min(last) - min(first))
        return max(rises)


@dataclass
class Process:
    pid: int
    start_time_ns: int
    cgroup_id: int
    history: History
    pages: dict[str, int] = field(default_factory=dict)
    service_id: int = 0
    seen_tick: int = -1
    is_unnamed: bool = True
    was_told: bool = False
    has_execed: bool = False
    is_cleared: bool = False

    @property
    def private_pages(self) -> int:
        return self.pages["anon"] + self.pages["swap"]


@dataclass
class Service:
    history: History
    births: int = 0
    is_gone: bool = False
    was_told: bool = False  # that it is
    first_time_ns: int = 0
    founded_ns: int = 0


class Aggregator:
    """What a tick shows, as dictionaries with the field names of the wrapper's tuples."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.clock = Clock([round(width_s * NS_PER_S) for width_s in limits.bucket_s])
        self.screen_pages = max(1, -(-limits.screen_bytes // PAGE_BYTES))
        self.processes: dict[int, Process] = {}
        self.services: dict[int, Service] = {}
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.arriving: list[dict] = []

    def tick(
        self, time_ns: int, records: list[dict], is_iterator_broken: bool, is_whole: bool
    ) -> dict:
        self.clock.advance(time_ns)
        self.counters["ticks_total"] += 1
        self.counters["iterator_errors_total"] += is_iterator_broken
        is_whole = is_whole and not is_iterator_broken
        offered: list[dict] = []
        for record in records:
            self._take(record, offered)
        for process in list(self.processes.values()):
            if process.seen_tick == self.clock.tick:
                process.history.add(process.private_pages)
                process.was_told = process.was_told and not process.is_cleared
                process.is_cleared, process.has_execed = process.has_execed, False
            elif is_whole:
                self._end(process)
        for service_id, service in list(self.services.items()):
            self._settle_service(service_id, service, is_whole)
        rows = self._rows()
        oom_kills, self.arriving = self.arriving, []
        self.counters["naming_deferred_total"] += len(offered[self.limits.unnamed_max :])
        self.counters["process_count"] = len(self.processes)
        self.counters["service_count"] = sum(not s.is_gone for s in self.services.values())
        return {
            "rows": rows,
            "unnamed": offered[: self.limits.unnamed_max],
            "oom_kills": oom_kills,
            "counters": dict(self.counters),
        }

    def _take(self, record: dict, offered: list[dict]) -> None:
        self.counters["records_total"] += 1
        pid = record["pid"]
        if pid == 0:
            self.counters["records_refused_total"] += 1
            return
        process = self.processes.get(pid)
        if process and process.start_time_ns != record["start_time_ns"]:
            self.counters["pid_reused_total"] += 1
            self._end(process)
            process = None
        if process is None:
            if len(self.processes) == self.limits.processes_max:
                self.counters["processes_untracked_total"] += 1
                return
            self.counters["processes_born_total"] += 1
            history = History(self.clock)
            process = Process(pid, record["start_time_ns"], record["cgroup_id"], history)
            self.processes[pid] = process
        elif process.seen_tick != self.clock.tick:
            process.is_unnamed |= process.cgroup_id != record["cgroup_id"]
            process.cgroup_id = record["cgroup_id"]
            if process.is_unnamed:
                names = ("pid", "start_time_ns", "cgroup_id", "parent_pid", "comm")
                offered.append({name: record[name] for name in names})
                process.is_unnamed = len(offered) > self.limits.unnamed_max
        for kind in ("anon", "file", "shmem", "swap"):
            process.pages[kind] = min(max(0, record[f"{kind}_pages"]), PAGES_MAX)
        process.pages["total_vm"] = record["total_vm_pages"]
        process.seen_tick = self.clock.tick

    def _end(self, process: Process) -> None:
        self.counters["processes_gone_total"] += 1
        del self.processes[process.pid]

    def _members(self, service_id: int) -> list[Process]:
        return [p for p in self.processes.values() if p.service_id == service_id]

    def _settle_service(self, service_id: int, service: Service, is_whole: bool) -> None:
        members = self._members(service_id)
        if service.is_gone and not members:
            if service.was_told:
                del self.services[service_id]
        elif not members:
            service.is_gone = True
            service.first_time_ns = service.history.first_time_ns
            service.births = 0
        elif is_whole:
            service.history.add(sum(process.private_pages for process in members))

    def _levels(self, history: History) -> list[int]:
        return [level for level in LEVELS if history.rise_pages(level) >= self.screen_pages]

    def _rows(self) -> list[dict]:
        candidates = []
        for service_id, service in self.services.items():
            if service.is_gone and service.was_told:
                continue
            row = self._service_row(service_id, service)
            if row["is_gone"]:
                key = (2, -row["private_bytes"], service_id)
            elif row["rising_levels"]:
                key = (0, -max(map(service.history.rise_pages, LEVELS)), service_id)
            else:
                key = (4, -row["private_bytes"], service_id)
            candidates.append((key, row))
        for process in self.processes.values():
            row = self.process_row(process)
            if row["rising_levels"]:
                key = (1, -max(map(process.history.rise_pages, LEVELS)), process.pid)
                candidates.append((key, row))
            elif process.is_cleared and process.was_told:
                candidates.append(((3, -row["private_bytes"], process.pid), row))
        candidates.sort(key=lambda candidate: candidate[0])
        rows = [row for _, row in candidates[: self.limits.rows_max]]
        omitted = len(candidates) - len(rows)
        news = [key for key, _ in candidates[self.limits.rows_max :] if key[0] != 4]
        self.counters["rows_omitted_total"] += len(news)
        shown = [r for r in rows if r["process"] is None and not r["is_gone"]]
        least_bytes = min(
            (r["private_bytes"] for r in shown if not r["rising_levels"]), default=float("inf")
        )
        for row in shown:
            row["is_top"] = not omitted or row["private_bytes"] >= least_bytes
        for row in rows:
            if row["is_gone"]:
                self.services[row["service_id"]].was_told = True
            if row["process"] is not None and row["rising_levels"]:
                self.processes[row["process"][0]].was_told = True
        return rows

    def process_row(self, process: Process) -> dict:
        row = self._sizes([process])
        row.update(
            process=(process.pid, process.start_time_ns),
            service_id=process.service_id,
            first_time_s=process.history.first_time_ns / NS_PER_S,
            births=0,
            is_gone=False,
            is_cleared=process.is_cleared,
            rising_levels=self._levels(process.history),
            history=process.history,
        )
        return row

    def _service_row(self, service_id: int, service: Service) -> dict:
        row = self._sizes(self._members(service_id))
        first_time_ns = service.history.first_time_ns
        row.update(
            process=None,
            service_id=service_id,
            first_time_s=(service.first_time_ns if service.is_gone else first_time_ns) / NS_PER_S,
            births=service.births,
            is_gone=service.is_gone,
            is_cleared=False,
            rising_levels=[] if service.is_gone else self._levels(service.history),
            history=service.history,
        )
        return row

    @staticmethod
    def _sizes(members: list[Process]) -> dict:
        sums = {
            f"{kind}_bytes": sum(process.pages[kind] for process in members) * PAGE_BYTES
            for kind in ("anon", "file", "shmem", "swap", "total_vm")
        }
        largest = min(members, key=lambda p: (-p.private_pages, p.pid), default=None)
        return {
            **sums,
            "private_bytes": sums["anon_bytes"] + sums["swap_bytes"],
            "start_time_ns": min((process.start_time_ns for process in members), default=0),
            "largest_pid": largest.pid if largest else 0,
            "cgroup_id": largest.cgroup_id if largest else 0,
            "process_count": len(members),
            "is_top": False,
        }

    def _find(self, pid: int, start_time_ns: int) -> Process | None:
        process = self.processes.get(pid)
        return process if process and process.start_time_ns == start_time_ns else None

    def on_event(self, event: dict) -> None:
        self.counters["events_total"] += 1
        process = self._find(event["pid"], event["start_time_ns"])
        if process is None:
            self.counters["events_unmatched_total"] += 1
        if event["kind"] == lib.MW_EVENT_OOM_VICTIM:
            if len(self.arriving) == self.limits.oom_kills_max:
                self.counters["oom_kills_dropped_total"] += 1
                return
            self.arriving.append(
                {
                    "process": (event["pid"], event["start_time_ns"]),
                    "private_bytes": process.private_pages * PAGE_BYTES if process else 0,
                    "service_id": process.service_id if process else 0,
                }
            )
        elif process and event["kind"] == lib.MW_EVENT_EXEC:
            process.history = History(self.clock)
            process.is_unnamed = process.has_execed = True
        elif process:
            self._end(process)

    def forget(self, service_id: int) -> bool:
        if self._members(service_id):
            return False
        self.services.pop(service_id, None)
        return True

    def name(self, pid: int, start_time_ns: int, service_id: int) -> str:
        process = self._find(pid, start_time_ns)
        if process is None:
            return "gone"
        if service_id >= self.limits.services_max:
            self.counters["services_untracked_total"] += 1
            process.service_id = 0
            return "refused"
        if process.service_id == service_id:
            return "named"
        service = self.services.get(service_id)
        if service is None or service.is_gone:
            service = self.services[service_id] = Service(History(self.clock))
        process_ns, service_ns = process.history.first_time_ns, service.history.first_time_ns
        if not service_ns:
            service.founded_ns = max(service.founded_ns, process_ns)
        elif process_ns and process_ns <= service.founded_ns:
            service.history = History(self.clock)
            service.births = 0
        else:
            service.births += 1
        process.service_id = service_id
        return "named"


def levels_of(row: dict) -> tuple[tuple[Fit, ...], ...]:
    """Return what a rising row should show: the filled windows of each level that rises."""
    if not row["rising_levels"]:
        return ()
    shown, kept = [], []  # a struct inside an array lives as long as the array
    for level in LEVELS:
        samples = row["history"].samples(level) if level in row["rising_levels"] else []
        times_s = ffi.new("double[]", [time_ns / 1e9 for time_ns, _ in samples])
        values = ffi.new("double[]", [float(pages * PAGE_BYTES) for _, pages in samples])
        fits = ffi.new("struct mw_fit[]", lib.MW_FIT_WINDOWS)
        assert lib.mw_fit_level(times_s, values, len(samples), fits) == 0
        shown.append([fit for fit in fits if fit.sample_count])
        kept.append(fits)
    growth_bytes = max([0.0, *(fit.envelope_growth_bytes for level in shown for fit in level)])
    return tuple(tuple(_fit(fit, row["history"], growth_bytes) for fit in level) for level in shown)


def _fit(fit: CData, history: History, growth_bytes: float) -> Fit:
    values = {name: getattr(fit, name) for name in Fit._fields}
    values["rise_bytes"] = tuple(fit.rise_bytes)
    values["earlier_peak_bytes"] = _earlier_peak_bytes(fit, history, growth_bytes)
    return Fit(**values)


def _earlier_peak_bytes(fit: CData, history: History, growth_bytes: float) -> float:
    """Say how high the subject was before the window, its first minute and level 0 left out."""
    from_s = history.first_time_ns / NS_PER_S + 60
    peaks = [0.0]
    for level in LEVELS[1:]:
        width_s = history.clock.bucket_ns[level] / NS_PER_S
        hidden = width_s * max(0.0, fit.theil_sen_bytes_per_second)
        hidden = min(hidden, 0.8 * growth_bytes)
        for time_ns, pages in history.samples(level):
            time_s = time_ns / NS_PER_S
            if from_s <= time_s and time_s + width_s <= fit.first_time_s:
                peaks.append(float(pages * PAGE_BYTES) + hidden)
    return max(peaks)
