"""``mwtrace trace``: one process traced by hand, from its name to the text on the terminal.

It joins growth sampling and windows for one process, waits for both, shows how far it is, and
writes what was found. What a window is, and what follows from it, is said elsewhere.
"""

from __future__ import annotations

import enum
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from mwtrace.errors import ConfigError, EngineError, HostError, ProcessGone
from mwtrace.host.procfs import Host
from mwtrace.model import ProcessId
from mwtrace.probes.engine import Engine
from mwtrace.probes.engine_libbpf import LibbpfEngine
from mwtrace.probes.governor import Budget
from mwtrace.probes.namespace import is_initial_pid_namespace
from mwtrace.tell.cells import printable
from mwtrace.tell.collapsed import collapsed
from mwtrace.tell.flamegraph import flamegraph
from mwtrace.tell.pprof import pprof
from mwtrace.tell.profile import ModuleMapping
from mwtrace.tell.sites_table import sites_table
from mwtrace.tell.speedscope import speedscope
from mwtrace.tell.units import format_bytes, format_duration, format_slope
from mwtrace.tracing.demangle import demangle
from mwtrace.tracing.growth import GrowthFacts, GrowthSampler
from mwtrace.tracing.probing import LIMITS, Probing
from mwtrace.tracing.process import TracedProcess
from mwtrace.tracing.report import Measured, TraceReport, conclude, renamed
from mwtrace.tracing.session import Facts, TraceSession
from mwtrace.tracing.symbolize import Modules

# Whoever asks for every block has them all remembered: 150 MB when it is full.
EXACT_LIMITS = replace(LIMITS, blocks_max=2 << 20)
GROWTH_SITES = 200
SITES = 200
WAIT_MAX_S = 0.25  # between looks at the clock and the progress line
# Every block is told: the ring of 1 MiB fills in some 20 ms.
DRAIN_S = 0.01
DRAIN_REST_S = 0.0005  # in which others get at the books
PROGRESS_S = 0.5
SHARE_MIN = 0.0001


class Format(enum.Enum):
    TABLE = "table"
    COLLAPSED = "collapsed"
    PPROF = "pprof"
    SPEEDSCOPE = "speedscope"
    HTML = "html"


class Wish(NamedTuple):
    """What was asked for."""

    subject: str  # pid or service
    seconds: float
    budget_share: float  # of the target's time
    exact: bool
    growth_only: bool
    format: Format
    output: Path | None  # None: standard output


class Subject(NamedTuple):
    """The process that was meant."""

    process: ProcessId
    title: str
    remarks: tuple[str, ...] = ()  # such as that its service has others


class Outcome(NamedTuple):
    report: TraceReport
    facts: Facts | None  # None: growth sampling only
    growth: GrowthFacts | None
    remarks: tuple[str, ...]


def run(wish: Wish, find: Callable[[Host, str], Subject], engine: Engine | None = None) -> None:
    """Trace what ``find`` finds, write what was learnt; a signal ends it early.

    Raises ConfigError, HostError or ProcessError.
    """
    if wish.output is None and wish.format is Format.PPROF and sys.stdout.isatty():
        raise ConfigError("a pprof profile is no text for a terminal", "Name a file by --output.")
    if not is_initial_pid_namespace():
        raise HostError(
            "cannot trace: the kernel reports the host's pids, and /proc here shows others",
            "Run mwtrace in the host's pid namespace (for containers: --pid=host).",
        )
    host = Host()
    subject = find(host, wish.subject)
    with _ended_by_signals() as stop:
        engine = engine or LibbpfEngine()
        outcome = trace(engine, host, subject.process, subject.title, wish, stop)
    outcome = outcome._replace(remarks=(*subject.remarks, *outcome.remarks))
    _write(render(outcome, wish.format), wish.output)
    if wish.format is not Format.TABLE or wish.output is not None:
        print("\n".join(words(outcome)), file=sys.stderr)


def trace(
    engine: Engine,
    host: Host,
    process: ProcessId,
    title: str,
    wish: Wish,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Trace one process as wished; returns what was learnt also if it ended meanwhile."""
    modules = Modules()
    budget = Budget(wish.budget_share, max(2 * wish.budget_share, Budget().host_share))
    with ExitStack() as undo:
        session: TraceSession | None = None
        probing = None
        remarks: list[str] = []
        if not wish.growth_only:
            limits = EXACT_LIMITS if wish.exact else LIMITS
            probing = Probing(engine, host, modules, budget, limits)
            undo.callback(probing.close)
            now_s = time.monotonic()
            session = TraceSession(probing, process, now_s, wish.seconds, wish.exact)
            undo.callback(session.close)
        sampler = _sampler(engine, host, modules, remarks)
        if sampler is not None:
            undo.callback(sampler.close)
            sampler.watch(process, time.monotonic())
        elif session is None:
            raise EngineError(remarks[0])
        if probing is not None and wish.exact:
            undo.enter_context(drained(probing))
        _wait(session, sampler, process.pid, wish, is_stopped)
        return _outcome(session, sampler, process.pid, title, wish, remarks)


def _sampler(
    engine: Engine, host: Host, modules: Modules, remarks: list[str]
) -> GrowthSampler | None:
    # Without it (no raw tracepoints, no privilege) windows still tell most.
    try:
        return GrowthSampler(engine, host, modules)
    except EngineError as error:
        remarks.append(f"no growth sampling: {error}")
        return None


def _wait(
    session: TraceSession | None,
    sampler: GrowthSampler | None,
    pid: int,
    wish: Wish,
    is_stopped: Callable[[], bool],
) -> None:
    began_s = time.monotonic()
    progress = Progress(wish.seconds)
    try:
        while True:
            now_s = time.monotonic()
            next_s: float | None = began_s + wish.seconds
            if session is not None:
                next_s = session.step(now_s)
            if sampler is not None:
                sampler.drain(now_s)
                growth = sampler.facts(pid, now_s)
                if session is None and growth is not None and growth.ended:
                    return
            if next_s is None or now_s >= began_s + wish.seconds + 1:
                return
            if session is None and now_s >= began_s + wish.seconds:
                return
            if is_stopped():
                if session is not None:
                    session.finish(now_s)
                return
            progress.show(session.facts(now_s) if session else None, now_s - began_s)
            wait_s = min(max(next_s - time.monotonic(), 0.0), WAIT_MAX_S)
            time.sleep(wait_s)
    finally:
        progress.clear()


@contextmanager
def drained(probing: Probing) -> Iterator[None]:
    """Empty the ring all the time, in a thread that does so without the interpreter lock."""
    ending = threading.Event()

    def drain() -> None:
        while not ending.wait(DRAIN_REST_S):
            probing.drain(DRAIN_S)

    thread = threading.Thread(target=drain, name="drain")
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def _outcome(
    session: TraceSession | None,
    sampler: GrowthSampler | None,
    pid: int,
    title: str,
    wish: Wish,
    remarks: list[str],
) -> Outcome:
    now_s = time.monotonic()
    growth = sampler.facts(pid, now_s) if sampler else None
    grown = sampler.top_sites(pid, now_s, GROWTH_SITES) if sampler else ()
    facts = session.facts(now_s) if session else None
    slope = facts.growth_bytes_per_second if facts else None
    if slope is None and growth is not None:
        slope = growth.growth_bytes_per_second
    measured = Measured(
        title=title,
        pid=pid,
        time_ns=time.time_ns(),
        duration_s=facts.watched_s if facts else growth.watched_s if growth else 0.0,
        interval_bytes=facts.interval_bytes if facts else 0,
        is_exact=wish.exact,
        python_is_inlined=session.python_is_inlined if session else False,
        growth_bytes_per_second=slope,
        modules=_modules(session, sampler, pid),
    )
    audited = session.sites(now_s, SITES) if session else ()
    report = conclude(measured, audited, grown)
    report = renamed(report, demangle(_names(report)))
    remarks = [*remarks, *(facts.remarks if facts else ())]
    return Outcome(report, facts, growth, tuple(remarks))


def _modules(
    session: TraceSession | None, sampler: GrowthSampler | None, pid: int
) -> tuple[ModuleMapping, ...]:
    if session is not None:
        return session.traced.symbolizer.modules()
    return sampler.modules(pid) if sampler else ()


def _names(report: TraceReport) -> Iterator[str]:
    for site in report.profile.sites:
        for frame in site.frames:
            yield frame.name


def render(outcome: Outcome, format: Format) -> bytes:
    """What goes to standard output or the file."""
    profile = outcome.report.profile
    if format is Format.TABLE:
        text = "\n".join([*words(outcome), "", sites_table(profile, columns=_columns())])
    elif format is Format.COLLAPSED:
        text = collapsed(profile)
    elif format is Format.PPROF:
        return pprof(profile)
    elif format is Format.SPEEDSCOPE:
        text = speedscope(profile)
    else:
        text = flamegraph(profile)
    return text.encode("utf-8", "backslashreplace")


def words(outcome: Outcome) -> list[str]:
    """The conclusion, what it cost, and what weakens it: one line each."""
    lines = [outcome.report.conclusion]
    facts, growth = outcome.facts, outcome.growth
    if facts is not None:
        lines.append(_price(facts))
    if growth is not None and (growth.samples or facts is None):
        lines.append(
            f"growth sampling: {growth.samples:,} of its page faults, "
            f"{format_slope(growth.touched_bytes_per_second)} touched"
        )
    ended = facts.why if facts else growth.ended if growth else ""
    if ended:
        lines.append(f"ended early: {ended}" if _is_ended(facts) else f"no window: {ended}")
    lines += outcome.remarks
    lines += _losses(facts, growth)
    return [printable(line) for line in lines]


def _is_ended(facts: Facts | None) -> bool:
    return facts is None or facts.windows > 0 or "ended" in facts.why


def _price(facts: Facts) -> str:
    share = facts.spent_s / max(facts.watched_s, 1e-3)
    windows = "1 window" if facts.windows == 1 else f"{facts.windows:,} windows"
    every = f"1 block per {format_bytes(facts.interval_bytes)}"
    how = every if facts.interval_bytes else "every block"
    return (
        f"price: {share:.2%} of its time, in {windows} of {format_duration(facts.window_s)} "
        f"within {format_duration(facts.watched_s)}; {facts.samples:,} blocks told ({how})"
    )


def _losses(facts: Facts | None, growth: GrowthFacts | None) -> list[str]:
    lines = []
    if facts is not None:
        if facts.dropped or facts.untracked:
            lines.append(f"lost: {facts.dropped:,} events dropped, {facts.untracked:,} untracked")
        if facts.cut_windows:
            lines.append(f"{facts.cut_windows} windows were ended by their price")
        if facts.late_windows:
            lines.append(f"{facts.late_windows} windows were looked at too late and do not count")
    if growth is not None and growth.dropped:
        lines.append(f"lost: {growth.dropped:,} samples of growth dropped")
    return lines


def _write(data: bytes, output: Path | None) -> None:
    if output is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        output.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"cannot write {output}: {error.strerror}") from error


def _columns() -> int:
    return shutil.get_terminal_size((120, 24)).columns


class Progress:
    """One line on a terminal's standard error, written over; silent elsewhere."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._is_shown = sys.stderr.isatty()
        self._last_s = -PROGRESS_S

    def show(self, facts: Facts | None, passed_s: float) -> None:
        if not self._is_shown or passed_s - self._last_s < PROGRESS_S:
            return
        self._last_s = passed_s
        line = f"{format_duration(int(passed_s))} of {format_duration(self._seconds)}"
        if facts is None:
            line += ", sampling growth"
        else:
            line += f", {facts.state.value}: {facts.windows} windows, {facts.samples:,} blocks"
            if facts.growth_bytes_per_second is not None:
                line += f", memory {format_slope(facts.growth_bytes_per_second)}"
            if facts.why:
                line += f" ({facts.why})"
        width = _columns() - 1
        sys.stderr.write("\r\x1b[K" + printable(line)[:width])
        sys.stderr.flush()

    def clear(self) -> None:
        if self._is_shown and self._last_s >= 0:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


@contextmanager
def _ended_by_signals() -> Iterator[Callable[[], bool]]:
    """A signal ends the trace in good order: probes come out, and what was learnt is told."""
    seen: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        if len(seen) > 1:
            raise KeyboardInterrupt

    with ExitStack() as undo:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            undo.callback(signal.signal, number, signal.signal(number, on_signal))
        yield lambda: bool(seen)


def probes(pid: int, engine: Engine | None = None) -> str:
    """The table of ``mwtrace doctor --probes PID``: where probes would sit in a process, and why.

    Raises ProcessError, or HostError where nothing can be attached.
    """
    from mwtrace.probes.placement import render as render_places

    host = Host()
    try:
        traced = TracedProcess(host.process_id(pid), host, Modules())
    except ProcessGone as error:
        raise ConfigError(f"cannot look at process {pid}: there is none") from error
    probing = Probing(engine or LibbpfEngine(), host)
    try:
        closed = probing.gates(traced)
        plan = probing.look_at(traced, closed)
        lines = [render_places(plan.points).rstrip()]
        lines.append(f"attached by: {probing.kind.value}")
        prices = plan.prices
        lines.append(
            f"price on this host: {prices.hit_ns:.0f} ns a hit, {prices.return_ns:.0f} more where "
            f"the return is seen, {prices.sample_ns:.0f} more where the block is told"
        )
        lines.append(f"collections of CPython: {probing.gc_source(pid)}")
        lines += plan.remarks
        for gate in closed:
            lines.append(f"{gate.severity.value}: {gate.reason}. {gate.remedy}".rstrip())
        return "\n".join(lines)
    finally:
        probing.close()


def parse_share(text: str) -> float:
    """Read "1%", "0.5 %" or "0.01"; raises ConfigError for what is no share of a budget.

    A bare 1 is refused: who writes it means 1%, and would get all of the process's time.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", text)
    share = float(found[1]) / (100 if found[2] else 1) if found else 0.0
    is_bare = found is not None and not found[2]
    if not SHARE_MIN <= share <= 1.0 or (is_bare and share == 1.0):
        raise ConfigError(
            f"a budget of {printable(text)} is no part of a process's time",
            f"Say for example 1%; from {SHARE_MIN:.2%} to 100%.",
        )
    return share
