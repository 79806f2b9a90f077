"""A watch as the command line asks for it: the daemon, its tellers, signals, and the last words."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import FrameType
from typing import Callable, Optional

from mwtrace.console import JsonLines, Lines, Live, Recorder, Wanted, anchor, totals, view, wanted
from mwtrace.daemon import Daemon, Settings, Teller
from mwtrace.errors import ConfigError, ProcessGone
from mwtrace.host.procfs import Host
from mwtrace.model import VerdictChange
from mwtrace.probes.engines import choose
from mwtrace.tell.lines import json_line, summary
from mwtrace.tell.table import render
from mwtrace.tell.terminal import Screen, detect_style, refusal

# Three looks make a picture: a process is named when it has been seen twice, and shown then.
_ONCE_INTERVAL_S = 0.2


def watch(
    settings: Settings,
    services: Sequence[str],
    once: bool,
    as_json: bool,
    record: Optional[str],
    is_verbose: bool,
) -> None:
    """Watch until stopped and say what was seen.

    Raises ConfigError or HostError if there is nothing to watch, or no way to.
    """
    host = Host()
    for pid in settings.pids:
        try:
            host.stat(pid)
        except ProcessGone as error:
            raise ConfigError(
                f"cannot watch process {pid}: there is none", "ps -e lists them."
            ) from error
    if once:
        settings = replace(settings, interval_s=_ONCE_INTERVAL_S, duration_s=2 * _ONCE_INTERVAL_S)
    is_wanted = wanted(services)
    style = detect_style(sys.stdout, os.environ)
    with ExitStack() as undo:
        daemon = Daemon(settings, choose(settings.engine, host), host)
        undo.callback(daemon.close)
        # Before the screen takes the ones that nobody handles.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            undo.callback(signal.signal, number, signal.signal(number, _stopper(daemon)))
        tellers: list[Teller] = [Recorder(record)] if record else []
        if once:
            daemon.run(tellers)
            _show_once(daemon, is_wanted, as_json)
            return
        if as_json:
            tellers.append(JsonLines(sys.stdout, is_wanted))
            daemon.run(tellers)
            return
        if refusal(sys.stdout, os.environ):
            tellers.append(Lines(sys.stdout, is_wanted, is_verbose, style.unicode))
            print(_greeting(daemon), file=sys.stderr, flush=True)
            daemon.run(tellers)
        else:
            with Screen(sys.stdout, style) as screen:
                daemon.run([*tellers, Live(screen, daemon, is_wanted)])
        print("\n".join(summary(totals(daemon, is_wanted), style.unicode)), flush=True)


def _stopper(daemon: Daemon) -> Callable[[int, Optional[FrameType]], None]:
    def stop(number: int, frame: Optional[FrameType]) -> None:
        daemon.stop()

    return stop


def _greeting(daemon: Daemon) -> str:
    blind = "".join(f"; cannot see {words}" for words in daemon.source.blind())
    return (
        f"mwtrace: watching through {daemon.source.words}, "
        f"every {daemon.settings.interval_s:g} s{blind}. "
        "Growing and leaking services follow; Ctrl-C ends with a summary."
    )


def _show_once(daemon: Daemon, is_wanted: Wanted, as_json: bool) -> None:
    if as_json:
        for standing in daemon.verdicts.standings.values():
            if is_wanted(standing.subject.id):
                told = VerdictChange(
                    standing.subject.time_s, standing.subject, None, standing.judgement
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
