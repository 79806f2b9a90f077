"""One process that is traced: that it is still the same, what runs in it, and how it grows.

Knows nothing of probes and events. Whoever asks anything of a pid asks ``check()`` afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from mwtrace.cpython.frames import FrameResolver
from mwtrace.cpython.runtime import NoPython, Runtime, find_runtime
from mwtrace.errors import ProcessError, ProcessGone, ProcessUnreadable
from mwtrace.host.procfs import Host
from mwtrace.model import ProcessId
from mwtrace.tracing.symbolize import Modules, Symbolizer

# Samples of private memory that a slope is taken from; at more, every second one is dropped.
GROWTH_SAMPLES_MAX = 120


class ProgramChanged(ProcessError):
    """The process runs another program now; what was learnt is of the one before."""


@dataclass(frozen=True)
class _Program:
    start_time_ns: int
    start_stack: int  # another one after every exec
    executable: str


class TracedProcess:
    """Raises ProcessGone at construction if the pid is not, or no longer, this process."""

    def __init__(self, process: ProcessId, host: Host, modules: Modules) -> None:
        self.id = process
        self.pid = process.pid
        self._host = host
        self._program = self._look()
        host.check(process)
        self.python_refusal = ""  # why there are no Python frames, if there is a Python
        self.runtime = self._find_runtime()
        resolver = FrameResolver(self.runtime) if self.runtime else None
        self.symbolizer = Symbolizer(self.pid, modules, resolver)

    def check(self) -> None:
        """Raise ProcessGone if it has ended, ProgramChanged after an exec."""
        now = self._look()
        if not self._host.is_same(self.id, ProcessId(self.pid, now.start_time_ns)):
            raise ProcessGone(f"process {self.pid} ended, and its pid was given to another one")
        if now != self._program:
            raise ProgramChanged(f"process {self.pid} runs another program now ({now.executable})")

    def private_bytes(self) -> int | None:
        """Anonymous memory, resident or swapped out; None where it has none (a zombie)."""
        memory = self._host.memory(self.pid)
        return memory.anon_bytes + memory.swap_bytes if memory else None

    def _look(self) -> _Program:
        stat = self._host.stat(self.pid)
        if stat.state in ("Z", "X"):
            raise ProcessGone(f"process {self.pid} has ended")
        try:
            executable = self._host.executable(self.pid)
        except ProcessUnreadable:
            executable = ""
        return _Program(stat.start_time_ns, stat.start_stack, executable)

    def _find_runtime(self) -> Runtime | None:
        try:
            return find_runtime(self.pid)
        except (NoPython, ProcessGone):
            return None
        except ProcessError as error:
            self.python_refusal = str(error)
            return None


class Growth:
    """How fast private memory grew: the median slope of a bounded number of samples."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, int]] = []
        self._every = 1
        self._seen = 0

    def add(self, time_s: float, private_bytes: int) -> None:
        self._seen += 1
        if self._seen % self._every:
            return
        self._samples.append((time_s, private_bytes))
        if len(self._samples) > GROWTH_SAMPLES_MAX:
            del self._samples[1::2]
            self._every *= 2

    @property
    def samples(self) -> Sequence[tuple[float, int]]:
        return self._samples

    def bytes_per_second(self) -> float | None:
        """None: not watched for long enough to say."""
        if len(self._samples) < 3:
            return None
        slopes = [
            (later[1] - earlier[1]) / (later[0] - earlier[0])
            for place, earlier in enumerate(self._samples)
            for later in self._samples[place + 1 :]
            if later[0] > earlier[0]
        ]
        return median(slopes) if slopes else None
