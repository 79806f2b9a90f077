"""Where the distribution's bcc is: a compiler of BPF programs, with a Python of its own.

Never the package of that name on PyPI, which is about crystals. Imports nothing of it.
"""

from __future__ import annotations

import glob
import os
from typing import NamedTuple

from mwtrace.host.procfs import Host

REMEDY = "sudo apt install python3-bpfcc (Debian, Ubuntu) or python3-bcc (Fedora, RHEL)"

# The interpreter that distributions' packages are for, whatever else is first in PATH.
_PYTHON = "/usr/bin/python3"
_FOLDERS = (
    "/usr/lib/python3/dist-packages",
    "/usr/lib/python3.*/site-packages",
    "/usr/lib64/python3.*/site-packages",
)


class Bcc(NamedTuple):
    python: str  # that can import it
    folder: str  # from which


def find_bcc(host: Host) -> Bcc | None:
    """Return the first that looks complete; whether it works is seen when it compiles."""
    if not os.access(host.path(_PYTHON), os.X_OK):
        return None
    for folder in _FOLDERS:
        for found in sorted(glob.glob(host.path(f"{folder}/bcc/libbcc.py"))):
            return Bcc(_PYTHON, os.path.dirname(os.path.dirname(found)))
    return None
