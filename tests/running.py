"""Whether a process runs, for tests that must leave none behind."""

from __future__ import annotations

import contextlib
from pathlib import Path


def is_running(pid: int) -> bool:
    """A zombie that init has not taken yet does not run."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
