"""The CPythons of this machine that are read from outside in tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

TARGETS = Path(__file__).parent / "targets"
MINORS = range(8, 16)


def interpreters() -> list[str]:
    """Return the paths of all that are there, oldest first; the distribution's own last."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [
        str(sorted(root.glob(f"3.{minor}.*/bin/python3.{minor}"))[-1])
        for minor in MINORS
        if list(root.glob(f"3.{minor}.*/bin/python3.{minor}"))
    ]
    return [*found, "/usr/bin/python3"] if Path("/usr/bin/python3").exists() else found


def minor_of(python: str) -> int:
    code = "import sys; print(sys.version_info[1])"
    return int(subprocess.run([python, "-c", code], capture_output=True, check=True).stdout)


def script(name: str) -> str:
    return str(TARGETS / f"{name}.py")
