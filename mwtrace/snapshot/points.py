"""What the two ways of injection share: an interpreter's state as conditions, and how it ended.

A plan is made while the process runs and carried out while it stands still, so whatever the plan
relies on is a condition of it: the threads are those that were seen, and nothing is shutting down.
"""

from __future__ import annotations

import enum
from typing import Protocol

from mwtrace.cpython.runtime import THREADS_MAX, Runtime
from mwtrace.errors import ProcessError
from mwtrace.snapshot.stopping import Edit, expect


class Refused(ProcessError):
    """Nothing was changed: this process is not one to inject into, or not now."""


class Busy(Refused):
    """Not now: it was in the middle of what we would have changed."""

    remedy = "Try again."


class Progress(enum.Enum):
    WAITING = "waiting"  # no thread came to a safe point yet
    RUNNING = "running"
    DONE = "done"


class Method(Protocol):
    """One of the two. Everything raises ProcessError, as all that reads a process."""

    name: str
    moves_after_s: float  # one thread was chosen: another one may come sooner; inf: any will do

    def edits(self) -> list[Edit]:
        """Plan; raises Refused or Busy."""

    def progress(self) -> Progress:
        """Say how far what was planned has come."""

    def retraction(self) -> list[Edit]:
        """Plan to take it back; the conditions are that it has not begun."""

    def settle(self) -> None:
        """Leave no trace, once it is done or taken back."""


def not_ending(runtime: Runtime) -> Edit:
    """The condition that the interpreter is not shutting down."""
    address = runtime.address + runtime.layout["rt.finalizing"]
    if runtime.memory.u64(address):
        raise Refused(f"the interpreter of process {runtime.memory.pid} is shutting down")
    return expect(address, bytes(8), "its interpreter is shutting down")


def threads_as_seen(runtime: Runtime, interpreter: int) -> tuple[list[int], list[Edit]]:
    """Return an interpreter's thread states, and the conditions that they are still all."""
    memory, next_at = runtime.memory, runtime.layout["ts.next"]
    what = "a thread came or went"
    found: list[int] = []
    address = interpreter + runtime.layout["is.threads_head"]
    conditions = []
    while True:
        state = memory.u64(address)
        conditions.append(expect(address, state.to_bytes(8, "little"), what))
        if not state:
            return found, conditions
        found.append(state)
        if len(found) >= THREADS_MAX // 4:
            raise Refused(f"process {memory.pid} has more than {len(found)} Python threads")
        address = state + next_at
