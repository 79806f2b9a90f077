"""Shows the live table on standard output until told to stop; for the tests of Screen.

Commands come one per line on standard input, replies go to standard error: "ready" once, then one
line per command. With --until-signal there are no commands: it draws, writes what came of it
into the file --report, and draws again every --tick-s until it is interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import select
import signal
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

from views import ALARM, PLAIN

from mwtrace.tell.terminal import Screen


def commands() -> Iterator[str]:
    """Yield lines of standard input, never blocked in a read.

    Python runs a handler between instructions: of a signal that comes right before a read, only
    when the read is over.
    """
    while True:
        if select.select([sys.stdin], [], [], 0.05)[0]:
            line = sys.stdin.readline()
            if not line:
                return
            yield line


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--take-terminal", action="store_true")
    parser.add_argument("--until-signal", action="store_true")
    parser.add_argument("--report", type=Path)
    parser.add_argument("--tick-s", type=float, default=3600.0)
    arguments = parser.parse_args()
    # Whoever runs the tests may ignore them: nohup does, and a shell for what it runs behind it.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if arguments.take_terminal:
        fcntl.ioctl(1, termios.TIOCSCTTY, 0)
    with Screen(sys.stdout, PLAIN) as screen:
        if arguments.until_signal:
            is_drawn = screen.draw(ALARM)
            if arguments.report:
                part = arguments.report.with_suffix(".part")
                part.write_text(f"{is_drawn} {screen.frames_skipped_total}")
                part.rename(arguments.report)
            while True:
                signal.sigtimedwait([], arguments.tick_s)
                screen.draw(ALARM)
        print("ready", file=sys.stderr, flush=True)
        for line in commands():
            command, _, argument = line.strip().partition(" ")
            if command == "raise":
                raise RuntimeError("as asked for")
            if command == "draw":
                drawn = screen.draw(dataclasses.replace(ALARM, source=argument))
                print(drawn, screen.frames_skipped_total, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("interrupted")
