"""C++ names as their authors wrote them.

libstdc++ demangles, in a process of its own with little memory and little time: names come from
files that any user can write, and a short one can stand for an endless one. What is not answered
in time stays mangled. Run as ``python -m mwtrace.tracing.demangle``: a JSON list in, one out.
"""

from __future__ import annotations

import ctypes
import json
import resource
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mwtrace.tell.profile import Frame

NAMES_MAX = 10_000
NAME_BYTES_MAX = 2048  # longer ones are left alone
SHOWN_MAX = 512  # of an answer
TIMEOUT_S = 5.0
_MEMORY_BYTES_MAX = 256 << 20
_CPU_S_MAX = 3


def demangle(names: Iterable[str]) -> dict[str, str]:
    """Return what the mangled ones of these names mean; the others are not in the result."""
    wanted = sorted({n for n in names if n.startswith("_Z") and len(n) <= NAME_BYTES_MAX})
    wanted = wanted[:NAMES_MAX]
    if not wanted:
        return {}
    # -I: neither the environment nor the working directory may choose what runs here as root.
    command = [sys.executable, "-I", "-m", "mwtrace.tracing.demangle"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(wanted).encode(),
            capture_output=True,
            timeout=TIMEOUT_S,
            check=True,
        )
        answers = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
    if not isinstance(answers, list) or len(answers) != len(wanted):
        return {}
    return {name: answer for name, answer in zip(wanted, answers) if isinstance(answer, str)}


class Demangler:
    """Remembers what was answered, so that a name is asked for once."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def renamed(self, frames: Sequence[Frame]) -> tuple[Frame, ...]:
        """The same frames with readable names."""
        new = {frame.name for frame in frames if frame.name.startswith("_Z")} - self._names.keys()
        if new:
            if len(self._names) + len(new) > NAMES_MAX:
                self._names.clear()
            answers = demangle(new)
            self._names.update({name: answers.get(name, name) for name in new})
        return tuple(replace(f, name=self._names.get(f.name, f.name)) for f in frames)


def main() -> None:
    library = ctypes.CDLL("libstdc++.so.6")
    library.__cxa_demangle.restype = ctypes.c_void_p
    libc = ctypes.CDLL(None)
    # After loading, which needs more than any honest name.
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES_MAX, _MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S_MAX, _CPU_S_MAX))
    answers: list[str | None] = []
    for name in json.load(sys.stdin):
        status = ctypes.c_int()
        place = library.__cxa_demangle(name.encode(), None, None, ctypes.byref(status))
        if status.value or not place:
            answers.append(None)
            continue
        answers.append(ctypes.string_at(place)[:SHOWN_MAX].decode("utf-8", "replace"))
        libc.free(ctypes.c_void_p(place))
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
