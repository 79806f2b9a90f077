"""The CPythons of this machine that tests start and read from outside: one list, here.

They are pyenv's, those that ``tests/tools/newer-pythons`` unpacked, and the distribution's own.
Only their paths are known here; what a test expects of a version is the test's.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
TARGETS = TESTS / "targets"
UNPACKED = TESTS / ".pythons"
SYSTEM = Path("/usr/bin/python3")
OLDEST_MINOR = 8  # whose frames and objects we read
# Where a path names its version: ".../3.13.0/bin/python3" or ".../run-python3.13".
_VERSION = re.compile(r"/3\.(\d+)\.?(\d*)[^/]*/bin/python3$|/run-python3\.(\d+)$")


def interpreters(oldest_minor: int = OLDEST_MINOR) -> list[str]:
    """Return the paths of all that are there: pyenv's, newer ones, the distribution's own last."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    installed = [*root.glob("3.*/bin/python3"), *UNPACKED.glob("*/usr/bin/run-python3.*")]
    found = [path for path in installed if _version(path) >= (0, oldest_minor, 0)]
    found.sort(key=_version)
    return [str(path) for path in [*found, SYSTEM] if path.exists()]


def _version(path: Path) -> tuple[int, int, int]:
    match = _VERSION.search(str(path))
    if match is None:  # pyenv's other implementations have other names
        return (0, 0, 0)
    minor, patch, unpacked = match.groups()
    return (1, int(unpacked), 0) if unpacked else (0, int(minor), int(patch or 0))


def label(python: str) -> str:
    """Return a test's name for an interpreter; no folder of this machine is in it."""
    path = Path(python)
    if path.name.startswith("run-"):
        return f"{path.name[4:]}-{path.parents[2].name}"
    return f"python{path.parents[1].name}" if path != SYSTEM else "system"


on_every_python = pytest.mark.parametrize("python", interpreters(), ids=label)


def calls_its_own_exports(python: str) -> bool:
    """Whether the interpreter's own allocations pass by the functions that it exports.

    Link-time optimisation made those of distributions take a shorter way.
    """
    return "/versions/" in python


def minor_of(python: str) -> int:
    code = "import sys; print(sys.version_info[1])"
    return int(subprocess.run([python, "-c", code], capture_output=True, check=True).stdout)


def script(name: str) -> str:
    return str(TARGETS / f"{name}.py")
