"""The operator's terminal: what stands on it, and that it is given back on every way out.

A real pseudo-terminal with an emulator behind it, and tmux where it is installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import pyte
import pytest
from views import ALARM, ALARM_40, ALARM_80, ASCII, CALM, COLOR, PLAIN

from mwtrace.tell import terminal
from mwtrace.tell.table import render
from mwtrace.tell.terminal import Screen
from mwtrace.tell.view import Style

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "tests" / "targets" / "live_table.py"
DEADLINE_S = 20.0
LEAVE = "\x1b[?1049l"


class Terminal:
    """A pseudo-terminal: the program's end is a file, ours an emulator that was fed all output."""

    def __init__(self, columns: int, lines: int) -> None:
        self.master, self.slave = pty.openpty()
        self.output = b""
        self.emulator = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.emulator)
        self.resize(columns, lines)
        self.file: TextIO = open(self.slave, "w", encoding="utf-8", closefd=False)

    def resize(self, columns: int, lines: int) -> None:
        self.emulator.resize(lines, columns)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read(self, timeout_s: float = 0.0) -> None:
        while select.select([self.master], [], [], timeout_s)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:  # the other end is closed
                return
            self.output += data
            self._stream.feed(data)
            timeout_s = 0.0

    def shown(self) -> list[str]:
        self.read()
        return [line.rstrip() for line in self.emulator.display]

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, "\n".join(self.emulator.display)
            self.read(0.05)

    def has_echo(self) -> bool:
        return bool(termios.tcgetattr(self.slave)[3] & termios.ECHO)

    def close(self) -> None:
        self.file.close()
        os.close(self.slave)
        os.close(self.master)


@contextlib.contextmanager
def open_terminal(columns: int = 80, lines: int = 24) -> Iterator[Terminal]:
    opened = Terminal(columns, lines)
    try:
        yield opened
    finally:
        opened.close()


# --- drawing


@pytest.mark.parametrize(("columns", "lines", "table"), [(80, 24, ALARM_80), (40, 10, ALARM_40)])
def test_the_screen_shows_exactly_the_table(columns: int, lines: int, table: list[str]) -> None:
    with open_terminal(columns, lines) as tty, Screen(tty.file, PLAIN) as screen:
        assert screen.draw(ALARM)
        assert tty.shown() == table + [""] * (lines - len(table))
        assert tty.emulator.cursor.hidden


def test_a_shorter_table_leaves_nothing_of_the_one_before() -> None:
    with open_terminal() as tty, Screen(tty.file, PLAIN) as screen:
        screen.draw(ALARM)
        screen.draw(CALM)
        shown = tty.shown()
        assert shown[0].startswith("nothing leaks")
        assert shown[3].startswith("cron.service")
        assert not any(shown[4:])


def test_lines_as_wide_as_the_terminal_keep_their_last_column() -> None:
    width = max(map(len, ALARM_80))
    table = render(ALARM, width, 10, PLAIN)
    assert max(map(len, table)) == width
    with open_terminal(width, 10) as tty, Screen(tty.file, PLAIN) as screen:
        screen.draw(ALARM)
        screen.draw(ALARM)
        assert tty.shown()[: len(table)] == table


def test_colors_reach_the_terminal_and_end_with_their_cell() -> None:
    with open_terminal() as tty, Screen(tty.file, COLOR) as screen:
        screen.draw(ALARM)
        tty.read()
        row = tty.emulator.buffer[3]
        column = ALARM_80[3].index("LEAKING")
        assert (row[column].fg, row[column].bold) == ("red", True)
        assert row[0].fg == row[column + 11].fg == "default"


def test_a_terminal_that_does_not_know_its_size_is_taken_for_80_by_24() -> None:
    with open_terminal() as tty, Screen(tty.file, PLAIN) as screen:
        fcntl.ioctl(tty.master, termios.TIOCSWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
        screen.draw(ALARM)
        assert tty.shown()[: len(ALARM_80)] == ALARM_80


def test_an_ascii_terminal_gets_ascii_bytes() -> None:
    with open_terminal() as tty:
        with Screen(tty.file, ASCII) as screen:
            screen.draw(ALARM)
        tty.read()
        assert tty.output.isascii()


def test_stopped_output_skips_frames_and_does_not_stop_the_watch() -> None:
    with open_terminal() as tty, Screen(tty.file, PLAIN) as screen:
        assert screen.draw(ALARM)
        termios.tcflow(tty.slave, termios.TCOOFF)  # what Ctrl-S does
        assert not screen.draw(CALM)
        assert screen.frames_skipped_total == 1
        termios.tcflow(tty.slave, termios.TCOON)
        assert screen.draw(CALM)
        assert tty.shown()[0].startswith("nothing leaks")


def test_stopped_output_does_not_keep_the_program_from_ending() -> None:
    with open_terminal() as tty:
        with Screen(tty.file, PLAIN) as screen:
            screen.draw(ALARM)
            termios.tcflow(tty.slave, termios.TCOOFF)
        tty.read()
        assert LEAVE in tty.output.decode()


def test_a_terminal_that_hung_up_is_no_error() -> None:
    with open_terminal() as tty, Screen(tty.file, PLAIN) as screen:
        assert screen.draw(ALARM)
        os.close(tty.master)
        tty.master = os.open(os.devnull, os.O_RDONLY)
        assert not screen.draw(ALARM)
        assert not screen.draw(ALARM)


def test_the_handlers_that_were_there_before_are_there_after() -> None:
    numbers = [
        signal.SIGWINCH,
        signal.SIGCONT,
        signal.SIGTSTP,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGQUIT,
    ]
    before = [signal.getsignal(number) for number in numbers]
    with open_terminal() as tty, Screen(tty.file, PLAIN) as screen:
        screen.draw(ALARM)
        assert [signal.getsignal(number) for number in numbers] != before
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_program_that_handles_sigterm_keeps_its_handler() -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        own = signal.getsignal(signal.SIGTERM)
        with open_terminal() as tty, Screen(tty.file, PLAIN):
            assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_screen_that_never_drew_writes_nothing() -> None:
    with open_terminal() as tty:
        with Screen(tty.file, PLAIN):
            pass
        tty.read()
        assert tty.output == b""


# --- every way out, in a program of its own


@contextlib.contextmanager
def live_table(tty: Terminal) -> Iterator[subprocess.Popen[str]]:
    program = subprocess.Popen(
        [sys.executable, str(TARGET), "--take-terminal"],
        stdin=subprocess.PIPE,
        stdout=tty.slave,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert program.stderr
        assert program.stderr.readline() == "ready\n"
        yield program
    finally:
        program.kill()
        program.wait(DEADLINE_S)
        for stream in (program.stdin, program.stderr):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def tell(program: subprocess.Popen[str], command: str) -> str:
    assert program.stdin
    assert program.stderr
    print(command, file=program.stdin, flush=True)
    return program.stderr.readline()


def draw(program: subprocess.Popen[str], tty: Terminal, source: str = "BPF") -> None:
    assert tell(program, f"draw {source}") == "True 0\n"
    tty.wait_until(lambda: source in tty.emulator.display[1])


def assert_given_back(tty: Terminal) -> None:
    tty.read()
    assert tty.has_echo()
    assert not tty.emulator.cursor.hidden
    on_screen, _, after = tty.output.decode().rpartition(LEAVE)
    assert on_screen.count("\x1b[?1049h") == 1 + on_screen.count(LEAVE)
    assert after.replace("\r", "").split("\n")[: len(ALARM_80)] == ALARM_80


def end_by_end_of_input(program: subprocess.Popen[str]) -> None:
    assert program.stdin
    program.stdin.close()


@pytest.mark.parametrize(
    ("end", "returncode"),
    [
        (end_by_end_of_input, 0),
        (lambda program: tell(program, "raise"), 1),
        (lambda program: program.send_signal(signal.SIGINT), 0),
        (lambda program: program.send_signal(signal.SIGTERM), -signal.SIGTERM),
        (lambda program: program.send_signal(signal.SIGHUP), -signal.SIGHUP),
        (lambda program: program.send_signal(signal.SIGQUIT), -signal.SIGQUIT),
    ],
    ids=["end", "exception", "SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"],
)
def test_the_terminal_is_given_back_with_the_last_table(
    end: Callable[[subprocess.Popen[str]], object], returncode: int
) -> None:
    with open_terminal() as tty, live_table(tty) as program:
        draw(program, tty)
        assert not tty.has_echo()
        end(program)
        assert program.wait(DEADLINE_S) == returncode
        assert_given_back(tty)


def test_a_resized_terminal_is_drawn_anew_at_once() -> None:
    with open_terminal(40, 10) as tty, live_table(tty) as program:
        draw(program, tty)
        tty.resize(80, 24)  # the kernel sends SIGWINCH
        tty.wait_until(lambda: tty.shown()[: len(ALARM_80)] == ALARM_80)
        tty.resize(40, 10)
        tty.wait_until(lambda: tty.shown()[: len(ALARM_40)] == ALARM_40)


def test_a_continued_program_takes_the_screen_again() -> None:
    with open_terminal() as tty, live_table(tty) as program:
        draw(program, tty)
        program.send_signal(signal.SIGSTOP)  # cannot be handled
        os.write(tty.slave, b"\x1b[?1049l\x1b[?25h$ fg\r\n")  # the shell in between
        tty.wait_until(lambda: not tty.emulator.cursor.hidden)
        program.send_signal(signal.SIGCONT)
        tty.wait_until(lambda: tty.emulator.cursor.hidden and tty.shown()[:7] == ALARM_80)
        program.send_signal(signal.SIGTERM)
        program.wait(DEADLINE_S)
        assert_given_back(tty)


# --- whether there can be a table, and in which style


def test_no_table_without_a_terminal() -> None:
    file = io.TextIOWrapper(io.BytesIO())
    assert terminal.refusal(file, {"TERM": "xterm"}) == "standard output is not a terminal"


@pytest.mark.parametrize("name", ["dumb", "unknown", ""])
def test_no_table_on_a_terminal_that_cannot_move_its_cursor(name: str) -> None:
    with open_terminal() as tty:
        refusal = terminal.refusal(tty.file, {"TERM": name})
        assert refusal == f"the terminal cannot move its cursor (TERM={name})"
        assert terminal.refusal(tty.file, {}) is not None
        assert terminal.refusal(tty.file, {"TERM": "tmux-256color"}) is None


@pytest.mark.parametrize(
    ("environ", "encoding", "style"),
    [
        ({"LANG": "en_US.UTF-8"}, "utf-8", Style(color=True, unicode=True)),
        ({}, "utf-8", Style(color=True, unicode=True)),
        ({"NO_COLOR": "1"}, "utf-8", Style(color=False, unicode=True)),
        ({"NO_COLOR": ""}, "utf-8", Style(color=True, unicode=True)),
        ({"LC_ALL": "C", "LANG": "en_US.UTF-8"}, "utf-8", Style(color=True, unicode=False)),
        ({"LC_CTYPE": "C.UTF-8", "LANG": "C"}, "utf-8", Style(color=True, unicode=True)),
        ({"LANG": "de_DE.utf8"}, "iso8859-1", Style(color=True, unicode=False)),
        ({"LANG": "de_DE@euro"}, "utf-8", Style(color=True, unicode=False)),
    ],
)
def test_the_style_follows_the_environment(
    environ: dict[str, str], encoding: str, style: Style
) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    assert terminal.detect_style(file, environ) == style


# --- tmux: another emulator, a shell, and job control


class Tmux:
    def __init__(self, socket: Path) -> None:
        self._command = ["tmux", "-S", str(socket), "-f", os.devnull]

    def run(self, *arguments: str) -> str:
        command = [*self._command, *arguments]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=DEADLINE_S
        )
        return done.stdout

    def shown(self) -> list[str]:
        return [line.rstrip() for line in self.run("capture-pane", "-p").split("\n")]

    def type(self, text: str) -> None:
        self.run("send-keys", "-l", text)
        self.run("send-keys", "Enter")

    def wait_until(self, condition: Callable[[list[str]], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition(self.shown()):
            assert time.monotonic() < deadline, "\n".join(self.shown())
            time.sleep(0.05)  # tmux tells nobody when a pane has changed


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    server = Tmux(tmp_path / "tmux")
    shell = "env PS1='$ ' LC_ALL=C.UTF-8 bash --norc --noprofile"
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "PYTHONPATH": str(ROOT)}
    environment.pop("TMUX", None)
    subprocess.run(
        [*server._command, "-u", "new-session", "-d", "-x", "80", "-y", "24", shell],
        check=True,
        env=environment,
        timeout=DEADLINE_S,
    )
    try:
        server.run("set-option", "-g", "status", "off")
        server.run("resize-window", "-x", "80", "-y", "24")
        yield server
    finally:
        server.run("kill-server")


def test_in_tmux_it_resizes_stops_goes_on_and_leaves_its_table_in_the_scrollback(
    tmux: Tmux,
) -> None:
    tmux.wait_until(lambda shown: shown[0] == "$")
    tmux.type(f"{sys.executable} {TARGET} --until-signal")
    tmux.wait_until(lambda shown: shown[:8] == [*ALARM_80, ""])
    tmux.run("resize-window", "-x", "40", "-y", "10")
    tmux.wait_until(lambda shown: shown[:8] == [*ALARM_40, ""])
    tmux.run("resize-window", "-x", "80", "-y", "24")
    tmux.wait_until(lambda shown: shown[:8] == [*ALARM_80, ""])

    tmux.run("send-keys", "C-z")
    tmux.wait_until(lambda shown: any("Stopped" in line for line in shown))
    tmux.type("echo visi''ble")
    tmux.wait_until(lambda shown: "visible" in shown and ALARM_80[0] not in shown)
    tmux.type("fg")
    tmux.wait_until(lambda shown: shown[:8] == [*ALARM_80, ""])

    tmux.run("send-keys", "C-c")
    tmux.wait_until(lambda shown: "interrupted" in shown)
    shown = tmux.shown()
    begin = shown.index(ALARM_80[0])
    assert shown[begin : begin + 8] == [*ALARM_80, "interrupted"]
    tmux.type("echo vis''ible again")
    tmux.wait_until(lambda shown: "visible again" in shown)
    assert tmux.run("display-message", "-p", "#{alternate_on} #{cursor_flag}").strip() == "0 1"


def test_in_tmux_a_program_in_the_background_leaves_the_terminal_alone(
    tmux: Tmux, tmp_path: Path
) -> None:
    report = tmp_path / "report"
    tmux.wait_until(lambda shown: shown[0] == "$")
    tmux.type(f"{sys.executable} {TARGET} --until-signal --tick-s=0.1 --report={report} &")
    tmux.wait_until(lambda _: report.exists())
    assert report.read_text() == "False 1"  # refused to draw, and counted it
    tmux.type("jobs; echo still ''mine")
    tmux.wait_until(lambda shown: "still mine" in shown)
    assert any(re.match(r"\[1\]\+\s+Running", line) for line in tmux.shown())
    tmux.type("fg")
    tmux.wait_until(lambda shown: shown[:7] == ALARM_80)
    tmux.run("send-keys", "C-c")
    tmux.wait_until(lambda shown: "interrupted" in shown)
