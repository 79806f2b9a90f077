"""The operator's terminal: draws the live table in place and always gives the terminal back.

The table lives on the alternate screen; on every way out the last one is printed on the normal
screen, so that it stays in the scrollback. Knows how to write to a terminal, not what is written:
lines come from ``table.render``.

Only SIGKILL leaves the terminal as it is; then ``reset`` helps.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import termios
import threading
from collections.abc import Iterator, Mapping
from datetime import tzinfo
from types import FrameType, TracebackType
from typing import Any, TextIO

from mwtrace.tell.table import render
from mwtrace.tell.view import Style, View

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[2J"  # alternate screen, no cursor, clear
_LEAVE = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"

# A table that is a little too wide (the window just shrank) is cut at the edge, not folded.
_WRAP_OFF = "\x1b[?7l"
_WRAP_ON = "\x1b[?7h"

_SIZE_UNKNOWN = os.terminal_size((80, 24))  # serial lines report 0 x 0

# What ends a process by default. A program with its own handler ends the ``with`` block in it.
_DEADLY = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

_LEAVE_TIMEOUT_S = 1.0


def refusal(file: TextIO, environ: Mapping[str, str]) -> str | None:
    """Why there can be no live table on that file, or None if there can."""
    if not file.isatty():
        return "standard output is not a terminal"
    if environ.get("TERM", "") in ("", "dumb", "unknown"):
        return f"the terminal cannot move its cursor (TERM={environ.get('TERM', '')})"
    if not _is_foreground(file.fileno()):
        return "running in the background of its terminal"
    return None


def detect_style(file: TextIO, environ: Mapping[str, str], zone: tzinfo | None = None) -> Style:
    """Colour unless NO_COLOR (no-color.org), Unicode unless the locale says otherwise."""
    names = (environ.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    locale = next(filter(None, names), "UTF-8").lower()
    # Python speaks UTF-8 in the C locale too (PEP 540); what the terminal shows is another matter.
    encodings = (locale, (file.encoding or "").lower())
    unicode = all("utf-8" in name or "utf8" in name for name in encodings)
    return Style(color=not environ.get("NO_COLOR"), unicode=unicode, zone=zone)


class Screen:
    """A terminal, taken at the first draw and given back when the ``with`` block ends.

    Handles resizing, job control (Ctrl-Z, fg, bg), and signals that end the process unless the
    program handles those itself. Use it from the main thread.
    """

    def __init__(self, file: TextIO, style: Style) -> None:
        self.frames_skipped_total = 0  # not drawn: output stopped (Ctrl-S), or in the background
        self._file = file
        self._fd = file.fileno()
        self._style = style
        self._view: View | None = None
        self._is_entered = False
        self._is_overwritten = False  # by the shell, while we were stopped
        self._is_drawing = False
        self._is_stale = False  # something happened to the terminal while drawing
        self._is_closed = False
        self._is_gone = False
        self._echo_was_on = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Screen:
        self._file.flush()
        if threading.current_thread() is threading.main_thread():
            self._take_signals()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_closed = True  # a signal that comes from here on must not draw any more
        self._leave(keep_table=True)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def draw(self, view: View) -> bool:
        """Show view, or skip it and return False where writing would stop the watch.

        A terminal that stopped its output (Ctrl-S) blocks who writes to it; the watch goes on.
        """
        self._view = view
        return self._redraw()

    def _redraw(self) -> bool:
        if self._view is None or self._is_gone or self._is_closed:
            return False
        if self._is_drawing:  # a signal came in the middle of a frame
            self._is_stale = True
            return False
        self._is_drawing = True
        try:
            while True:
                self._is_stale = False
                if not (_is_foreground(self._fd) and self._is_writable(0.0)):
                    self.frames_skipped_total += 1
                    return False
                self._enter()
                self._write(_frame(self._view, self._size(), self._style))
                if not self._is_stale:
                    return not self._is_gone
        finally:
            self._is_drawing = False

    def _is_writable(self, timeout_s: float) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(timeout_s * 1000))  # a hangup too: the write will tell

    def _size(self) -> os.terminal_size:
        try:
            size = os.get_terminal_size(self._fd)
        except OSError:
            return _SIZE_UNKNOWN
        return os.terminal_size((size[0] or _SIZE_UNKNOWN[0], size[1] or _SIZE_UNKNOWN[1]))

    def _enter(self) -> None:
        if self._is_entered and not self._is_overwritten:
            return
        self._is_entered = True
        self._is_overwritten = False
        # Keys would be echoed into the table. Everything else stays: Ctrl-C must work.
        self._echo_was_on = _set_echo(self._fd, False) or self._echo_was_on
        self._write(_ENTER)

    def _leave(self, keep_table: bool) -> None:
        if not self._is_entered:
            return
        self._is_entered = False
        text = _LEAVE
        if keep_table and self._view is not None:
            size = self._size()
            lines = render(self._view, size.columns, size.lines, self._style)
            text += "".join(f"{line}\r\n" for line in lines)
        # In the background the shell has already set the terminal as it wants it.
        if self._echo_was_on and _is_foreground(self._fd):
            _set_echo(self._fd, True)
        self._echo_was_on = False
        _restart_output(self._fd)
        if self._is_writable(_LEAVE_TIMEOUT_S):
            self._write(text)

    # Unbuffered: a signal handler may write while a write is going on.
    def _write(self, text: str) -> None:
        rest = text.encode("utf-8" if self._style.unicode else "ascii", "replace")
        try:
            while rest and not self._is_gone:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:  # hung up: there is nobody left to show anything to
            self._is_gone = True

    def _take_signals(self) -> None:
        wanted: dict[signal.Signals, Any] = {
            signal.SIGWINCH: self._on_resize,
            signal.SIGCONT: self._on_continue,
        }
        wanted.update({number: self._on_deadly for number in _DEADLY if _is_default(number)})
        if _is_default(signal.SIGTSTP):  # ignored where there is no job control
            wanted[signal.SIGTSTP] = self._on_stop
        for number, handler in wanted.items():
            self._handlers[number] = signal.signal(number, handler)

    def _on_resize(self, number: int, frame: FrameType | None) -> None:
        self._redraw()

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self._leave(keep_table=False)
        self._is_stale = True
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)  # returns when somebody continues us
        signal.signal(signal.SIGTSTP, self._on_stop)

    def _on_continue(self, number: int, frame: FrameType | None) -> None:
        # SIGSTOP goes without _on_stop(): nobody can handle it.
        self._is_overwritten = True
        self._redraw()

    def _on_deadly(self, number: int, frame: FrameType | None) -> None:
        self._leave(keep_table=True)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


# Each line is erased before it is written: behind a line as wide as the terminal the cursor still
# stands on the last column, and erasing from there would take the last character.
def _frame(view: View, size: os.terminal_size, style: Style) -> str:
    lines = render(view, size.columns, size.lines, style)
    parts = [f"\x1b[{number};1H\x1b[2K{line}" for number, line in enumerate(lines, start=1)]
    if len(lines) < size.lines:
        parts.append(f"\x1b[{len(lines) + 1};1H\x1b[J")
    return "".join([_WRAP_OFF, *parts, _WRAP_ON])


def _is_default(number: signal.Signals) -> bool:
    return signal.getsignal(number) is signal.SIG_DFL


# A process in the background must not paint over the shell, and is stopped if it changes settings.
def _is_foreground(fd: int) -> bool:
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:  # not our controlling terminal: nobody else's job runs on it either
        return True


# Returns whether it changed something.
def _set_echo(fd: int, is_on: bool) -> bool:
    with contextlib.suppress(termios.error), _tty_stop_blocked():
        settings = termios.tcgetattr(fd)
        before = settings[3]
        settings[3] = before | termios.ECHO if is_on else before & ~termios.ECHO
        if settings[3] != before:
            termios.tcsetattr(fd, termios.TCSANOW, settings)
            return True
    return False


# Ctrl-S must not keep a program from ending that was told to end.
def _restart_output(fd: int) -> None:
    with contextlib.suppress(termios.error), _tty_stop_blocked():
        termios.tcflow(fd, termios.TCOON)


# The shell may put us in the background between our look and the call.
@contextlib.contextmanager
def _tty_stop_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
