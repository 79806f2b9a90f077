"""How the taking of a snapshot can end: one word each, which counters and records use.

Must not know how it is taken.
"""

from __future__ import annotations

import enum

from mwtrace.errors import ProcessError


class Outcome(enum.Enum):
    TAKEN = "taken"
    NO_HOOK = "no_hook"  # the process has none that waits; it was not signalled
    REFUSED = "refused"  # a gate was closed; it was not signalled
    BUSY = "busy"  # the process still writes an earlier one
    NO_ANSWER = "no_answer"  # signalled, and nothing came within the deadline
    FAILED = "failed"  # its child gave a reason
    CUT_SHORT = "cut_short"  # the child ended, or was too slow, before it was done
    NOT_KEPT = "not_kept"  # it came, and could not be written here
    GONE = "gone"  # the process ended


class NotTaken(ProcessError):
    """There is no snapshot; ``outcome`` says how that came, the message why."""

    def __init__(self, outcome: Outcome, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.outcome = outcome
