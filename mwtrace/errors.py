"""Every error mwtrace raises on purpose.

MwtraceError
├── ConfigError          the operator asked for something impossible
├── HostError            this machine cannot run us (kernel, privilege)
│   └── EngineError      the kernel took no BPF program from us
├── SnapshotError        a snapshot's file is not there, not whole or not one of ours
└── ProcessError         one watched process; never stops the others
    ├── ProcessGone      it ended, or its pid now means another process
    └── ProcessUnreadable  it is there, but the kernel did not tell us about it
"""

from __future__ import annotations

import enum


class MwtraceError(Exception):
    """Base of all errors raised on purpose.

    ``exit_code`` is what the command line returns; ``remedy`` is what the operator can do about
    it, printed below the message.
    """

    exit_code = 1
    remedy = ""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        if remedy:
            self.remedy = remedy


class ConfigError(MwtraceError):
    exit_code = 2
    remedy = "Run 'mwtrace --help' to see what can be asked for."


class HostError(MwtraceError):
    exit_code = 3
    remedy = "Run 'mwtrace doctor' to see what this machine lacks."


class EngineError(HostError):
    pass


class ProcessError(MwtraceError):
    exit_code = 4


class ProcessGone(ProcessError):
    pass


class Unreadable(enum.Enum):
    """Why something could not be read; the values name counters."""

    PERMISSION = "permission"
    DESCRIPTORS = "descriptors"  # we, or the whole host, may open no more files: passes
    MALFORMED = "malformed"  # not what the kernel writes
    OTHER = "other"


class ProcessUnreadable(ProcessError):
    def __init__(self, message: str, reason: Unreadable) -> None:
        super().__init__(message)
        self.reason = reason


class SnapshotError(MwtraceError):
    exit_code = 5
