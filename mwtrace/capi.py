"""The door to the C side: the built module, and its codes turned into exceptions.

Everybody imports ``ffi`` and ``lib`` from here, so that an installation whose extension cannot be
loaded says so once, with a remedy. Knows no room of mwtrace, only how C says no.
"""

from __future__ import annotations

import os

from mwtrace.errors import HostError

try:
    from mwtrace._cext import ffi, lib
except ImportError as error:
    raise HostError(
        f"cannot load the compiled part of mwtrace: {error}",
        "Install mwtrace again on this machine; it needs libbpf 1.0 or later.",
    ) from error

__all__ = ["check", "ffi", "lib"]


def check(rc: int, doing: str, error: type[HostError] = HostError) -> int:
    """Return rc if it is no negative errno; else raise error, saying what could not be done."""
    if rc < 0:
        raise error(f"cannot {doing}: {os.strerror(-rc)}")
    return rc
