"""What windows take of a program, measured, and what the governor says that they take.

    trace_windows.py NAME COMMAND...

Run as root. COMMAND gets a file as its last argument and counts its work there (see work.py). Each
window is compared with the time right before and after it, because over seconds a machine that
others use changes its speed by more than a window costs; in CPU time of the program, which is what
a probe takes. Half of the windows sample so rarely that no block is told.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from work import Work

from mwtrace.host.procfs import Host
from mwtrace.probes.engine_libbpf import LibbpfEngine
from mwtrace.probes.governor import Window
from mwtrace.tracing.probing import Probing
from mwtrace.tracing.process import TracedProcess
from mwtrace.tracing.session import EXACT_COST_S
from mwtrace.tracing.windows import Closed, ProcessWindows

WINDOWS = 20
WINDOW_S = 0.05
BESIDE_S = 0.3
AFTER_S = 0.05  # what is cold after a window is warm again by then
RARELY, OFTEN = 1 << 30, 1 << 14


class Mark(NamedTuple):
    """How far a program is, and what it has used for it."""

    done: int
    cpu_s: float

    def since(self, before: Mark) -> Mark:
        return Mark(self.done - before.done, self.cpu_s - before.cpu_s)


class Loss(NamedTuple):
    lost_s: float
    priced_s: float


def mark(work: Work) -> Mark:
    return Mark(work.done(), work.cpu_s())


def one_window(probing: Probing, windows: ProcessWindows, interval_bytes: int) -> Closed:
    windows.open(Window(WINDOW_S, EXACT_COST_S, interval_bytes), interval_bytes)
    while (closed := windows.poll()) is None:
        probing.drain(0.005)
    time.sleep(AFTER_S)
    return closed


def one_loss(work: Work, probing: Probing, windows: ProcessWindows, interval: int) -> Loss:
    begin = mark(work)
    time.sleep(BESIDE_S)
    opened = mark(work)
    closed = one_window(probing, windows, interval)
    over = mark(work)
    time.sleep(BESIDE_S)
    before, within, after = opened.since(begin), over.since(opened), mark(work).since(over)
    cpu_s_each = (before.cpu_s + after.cpu_s) / (before.done + after.done)
    return Loss(within.cpu_s - within.done * cpu_s_each, closed.seen.cost_s)


def main(name: str, command: list[str]) -> None:
    probing = Probing(LibbpfEngine())
    with tempfile.TemporaryDirectory() as folder:
        work = Work(command, f"{folder}/counter", "")
        try:
            traced = TracedProcess(Host().process_id(work.pid), probing.host, probing.modules)
            plan = probing.look_at(traced, probing.gates(traced))
            if traced.runtime:
                probing.unit.introduce(traced.runtime)
            windows = ProcessWindows(probing, work.pid, plan)
            try:
                found = [
                    one_loss(work, probing, windows, OFTEN if number % 2 else RARELY)
                    for number in range(WINDOWS)
                ]
            finally:
                windows.close()
        finally:
            work.stop()
            probing.close()
    lost_s = statistics.median(loss.lost_s for loss in found)
    priced_s = statistics.median(loss.priced_s for loss in found)
    print(
        f"windows   {name}: a window of {WINDOW_S * 1e3:.0f} ms takes {lost_s * 1e3:.1f} ms of its "
        f"time, {priced_s * 1e3:.1f} ms by our own figure: {lost_s / priced_s:.2f} times "
        "(bar: 0.5 to 2)"
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
