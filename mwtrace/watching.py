"""A watch as the command line asks for it: the daemon, its tellers, signals, and the last words."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Callable, NamedTuple, Optional

from mwtrace.alerting import Alerts, AlertSettings
from mwtrace.console import (
    JsonLines,
    Lines,
    Live,
    Recorder,
    Unmatched,
    anchor,
    standings,
    totals,
    unmatched,
    view,
    wanted,
)
from mwtrace.daemon import Daemon, Settings, Teller
from mwtrace.errors import ConfigError, ProcessGone, ProcessUnreadable
from mwtrace.host.notify import Notify
from mwtrace.host.procfs import Host
from mwtrace.model import SubjectId, VerdictChange
from mwtrace.probes.attach import give_back_privileges
from mwtrace.probes.engines import choose
from mwtrace.ration import Ration, own_room_bytes, rationed
from mwtrace.supervised import Reloaded, Supervised
from mwtrace.tell.lines import json_line, summary
from mwtrace.tell.table import render
from mwtrace.tell.terminal import Screen, detect_style, refusal

if TYPE_CHECKING:
    from mwtrace.keeping import Document
    from mwtrace.outlets import Outlets

# Three looks make a picture: a process is named when it has been seen twice, and shown then.
_ONCE_INTERVAL_S = 0.2
_LOG_RECORDS_HELD_MAX = 100


class Serve(NamedTuple):
    """What a watch needs to go on for months."""

    state_folder: Optional[Path] = None  # histories and verdicts survive there
    reload: Optional[Callable[[], Reloaded]] = None  # None: SIGHUP ends the watch


def watch(
    settings: Settings,
    services: Sequence[str],
    once: bool,
    as_json: bool,
    record: Optional[str],
    is_verbose: bool,
    alerting: AlertSettings,
    outlets: Optional[Outlets] = None,
    serve: Optional[Serve] = None,
) -> None:
    """Watch until stopped and say what was seen.

    Raises ConfigError or HostError if there is nothing to watch, or no way to.
    """
    host = Host()
    serve = serve or Serve()
    for pid in settings.pids:
        _check_pid(host, pid)
    if once:
        settings = replace(settings, interval_s=_ONCE_INTERVAL_S, duration_s=2 * _ONCE_INTERVAL_S)
    if once or settings.pids:
        # Nobody may wait for a name behind thousands of others.
        limits = settings.limits._replace(unnamed_max=settings.limits.processes_max)
        settings = replace(settings, limits=limits)
    is_wanted = Choice(services)
    style = detect_style(sys.stdout, os.environ)
    room_bytes = own_room_bytes(host)
    settings = rationed(settings, room_bytes)
    with ExitStack() as undo:
        engine = choose(settings.engine, host)
        if not engine.lacked:
            give_back_privileges()
        daemon = Daemon(settings, engine, host)
        undo.callback(daemon.close)
        notify = Notify()
        undo.callback(notify.close)
        supervised = Supervised(daemon, notify, serve.reload, _adopter(daemon, is_wanted))
        daemon.pulse = supervised.pulse
        # Before the screen takes the ones that nobody handles.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            is_reload = number == signal.SIGHUP and serve.reload is not None
            react = supervised.ask if is_reload else _stopper(daemon, notify)
            undo.callback(signal.signal, number, signal.signal(number, _handler(react)))
        tellers: list[Teller] = [Ration(daemon, host, room_bytes), supervised]
        opened = None
        if outlets is not None:
            from mwtrace.outlets import open_outlets  # heavy, and only for those who ask for it

            opened = open_outlets(outlets, daemon, is_wanted, once, undo)
            tellers.append(opened.exporter)
        if record:
            recorder = Recorder(record)
            undo.callback(recorder.close)
            tellers.append(recorder)
        if once:
            _keep(daemon, serve, host, {}, tellers, undo)
            daemon.run(tellers)
            if opened is not None and opened.file is not None:
                opened.file.write()
            _show_once(daemon, services, as_json)
            return
        alerts = Alerts(daemon, alerting, is_wanted, daemon.snapshots.path_of)
        undo.callback(alerts.close)
        daemon.counted.append(lambda: alerts.counters)
        tellers.append(alerts)
        # Behind whoever has something to keep of this tick.
        _keep(daemon, serve, host, {"incidents": alerts}, tellers, undo)
        if as_json or refusal(sys.stdout, os.environ):
            if as_json:
                tellers.append(JsonLines(sys.stdout, is_wanted))
            else:
                is_wanted.lines = Lines(sys.stdout, is_wanted, is_verbose, style.unicode)
                tellers.append(is_wanted.lines)
            tellers.append(Unmatched(sys.stderr, daemon, services))
            print(_greeting(daemon, as_json), file=sys.stderr, flush=True)
            if opened is not None and opened.server is not None:
                where = f"{opened.server.address}/metrics"
                print(f"mwtrace: metrics are at {where}", file=sys.stderr, flush=True)
            daemon.run(tellers)
        else:
            with _logs_held(), Screen(sys.stdout, style) as screen:
                daemon.run([*tellers, Live(screen, daemon, services)])
        alerts.close()  # what waits is told, or counted, before the summary
        daemon.counters.update(alerts.counters)
        lines = summary(totals(daemon, is_wanted), style.unicode)
        lines[0] = unmatched(daemon, services) or lines[0]
        # Standard output holds nothing but JSON then.
        print("\n".join(lines), file=sys.stderr if as_json else sys.stdout, flush=True)


def _check_pid(host: Host, pid: int) -> None:
    """Raise ConfigError unless there is something to watch."""
    try:
        # A thread's files can be read under its id, but it is not in the list.
        if pid not in host.pids():
            raise ProcessGone(f"process {pid} is not listed")
        has_memory = host.memory(pid) is not None
        is_kernel_thread = host.stat(pid).is_kernel_thread
    except ProcessGone as error:
        raise ConfigError(
            f"cannot watch process {pid}: there is none", "ps -e lists them."
        ) from error
    except ProcessUnreadable as error:
        raise ConfigError(f"cannot watch process {pid}: {error}", "Run it with sudo.") from error
    if not has_memory:
        why = "is a kernel thread" if is_kernel_thread else "has ended, and waits for its parent"
        raise ConfigError(
            f"cannot watch process {pid}: it {why}", "Only a process with memory can leak."
        )


def _keep(
    daemon: Daemon,
    serve: Serve,
    host: Host,
    documents: Mapping[str, Document],
    tellers: list[Teller],
    undo: ExitStack,
) -> None:
    """Restore what was kept in the state folder, if there is one, and keep on keeping."""
    if serve.state_folder is None:
        return
    from mwtrace.keeping import open_keeper  # SQLite, for those who want it

    keeper = open_keeper(daemon, serve.state_folder, host, documents)
    if keeper is not None:
        undo.callback(keeper.close)
        tellers.append(keeper)


def _stopper(daemon: Daemon, notify: Notify) -> Callable[[], None]:
    def stop() -> None:
        notify.stopping()
        daemon.stop()

    return stop


def _handler(react: Callable[[], None]) -> Callable[[int, Optional[FrameType]], None]:
    return lambda number, frame: react()


class Choice:
    """Which services the operator wants to hear of; a reload may choose others."""

    def __init__(self, services: Sequence[str]) -> None:
        self.lines: Optional[Lines] = None
        self._is_wanted = wanted(services)

    def __call__(self, subject: SubjectId) -> bool:
        return self._is_wanted(subject)

    def adopt(self, services: Sequence[str], is_verbose: bool) -> None:
        self._is_wanted = wanted(services)
        if self.lines is not None:
            self.lines.is_verbose = is_verbose


def _adopter(daemon: Daemon, choice: Choice) -> Callable[[Reloaded], None]:
    def adopt(reloaded: Reloaded) -> None:
        daemon.adopt(reloaded.settings)
        choice.adopt(reloaded.services, reloaded.is_verbose)

    return adopt


def _greeting(daemon: Daemon, as_json: bool) -> str:
    blind = "".join(f"; cannot see {words}" for words in daemon.source.blind())
    what = "Verdict changes follow as JSON" if as_json else "Growing and leaking services follow"
    return (
        f"mwtrace: watching through {daemon.source.words}, "
        f"every {daemon.settings.interval_s:g} s{blind}. "
        f"{what}; Ctrl-C ends with a summary."
    )


@contextlib.contextmanager
def _logs_held() -> Iterator[None]:
    """Keep what is logged until the screen is given back: it would be written into the table."""
    root = logging.getLogger()
    if not sys.stderr.isatty() or not root.handlers:
        yield
        return
    before = list(root.handlers)
    held = _HeldLogs()
    root.handlers[:] = [held]
    try:
        yield
    finally:
        root.handlers[:] = before
        for record in held.records:
            root.handle(record)


class _HeldLogs(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: deque[logging.LogRecord] = deque(maxlen=_LOG_RECORDS_HELD_MAX)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def _show_once(daemon: Daemon, services: Sequence[str], as_json: bool) -> None:
    words = unmatched(daemon, services)
    if words:
        raise ConfigError(words, "'mwtrace --once' lists them all.")
    is_wanted = wanted(services)
    if as_json:
        for standing in standings(daemon, is_wanted).values():
            told = VerdictChange(
                standing.subject.time_s,
                standing.subject,
                None,
                standing.judgement,
                standing.finding,
            )
            print(json_line(told, anchor()))
        return
    size = shutil.get_terminal_size()
    style = detect_style(sys.stdout, os.environ)
    if not sys.stdout.isatty():
        style = style._replace(color=False)
    # All rows: what scrolls out of a terminal is still there.
    shown = view(daemon, is_wanted)
    print("\n".join(render(shown, size.columns, len(shown.rows) + 8, style)))
