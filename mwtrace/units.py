"""`mwtrace service`: systemd's units put into place, taken away, and asked how they are.

A wheel cannot install units, so they are written from the package, with the path of the mwtrace
that runs now. Files that we did not write are never replaced or removed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from mwtrace.errors import ConfigError, HostError

SERVICE = "mwtrace.service"
TEXTFILE = ("mwtrace-textfile.service", "mwtrace-textfile.timer")
_CONFIG = "mwtrace.toml"
_PROGRAM = "/usr/local/bin/mwtrace"  # as the units have it
_MARK = "# Written by 'mwtrace service install'.\n"
_SYSTEMCTL_S = 60.0
_SHOWN = ("ActiveState", "SubState", "StatusText", "NRestarts", "MemoryCurrent", "MainPID")


class Place(NamedTuple):
    """Where things go, below a root that is / but in tests."""

    root: Path = Path("/")

    @property
    def units(self) -> Path:
        return self.root / "etc/systemd/system"

    @property
    def config(self) -> Path:
        return self.root / "etc/mwtrace" / _CONFIG


def install(place: Place, textfile_only: bool, program: str) -> list[str]:
    """Write the units, and a configuration if there is none; return what was done, in words."""
    _need_root(place)
    said = []
    for name in TEXTFILE if textfile_only else (SERVICE,):
        path = place.units / name
        if path.exists() and not _is_ours(path):
            raise ConfigError(
                f"{path} was not written by mwtrace", "Move it away, or use systemctl edit mwtrace."
            )
        _write(path, _MARK + _packaged(name).replace(_PROGRAM, program), 0o644)
        said.append(f"wrote {path}")
    if place.config.exists():
        said.append(f"kept {place.config}")
    else:
        _write(place.config, _packaged(_CONFIG), 0o644)
        said.append(f"wrote {place.config}")
    _reload(place)
    return said


def uninstall(place: Place) -> list[str]:
    """Stop, disable and remove the units; configuration and state stay."""
    _need_root(place)
    said = []
    ours = [n for n in (TEXTFILE[1], TEXTFILE[0], SERVICE) if _is_ours(place.units / n)]
    for name in ours:
        if _is_live(place):
            _systemctl(["disable", "--now", name], check=False)
        (place.units / name).unlink()
        said.append(f"removed {place.units / name}")
    if ours:
        _reload(place)
    said.append(f"{place.config} and /var/lib/mwtrace stay, if they were there")
    return said


def enable(textfile_only: bool) -> None:
    _systemctl(["enable", "--now", TEXTFILE[1] if textfile_only else SERVICE])


def status(place: Place) -> list[str]:
    """Say how each installed unit is, one line each. Raises HostError where nothing is known."""
    names = [name for name in (SERVICE, *TEXTFILE) if (place.units / name).exists()]
    if not names:
        return ["not installed: 'mwtrace service install' does it"]
    return [_told(name, _show(name)) for name in names]


def own_program() -> str:
    """Return how the program that runs now can be run again, by an absolute path."""
    found = shutil.which(sys.argv[0]) or sys.argv[0]
    if os.path.basename(found) == "mwtrace" and os.access(found, os.X_OK):
        return os.path.abspath(found)
    return f"{sys.executable} -m mwtrace"


def _told(name: str, shown: dict[str, str]) -> str:
    words = [f"{name}: {shown.get('ActiveState', '?')} ({shown.get('SubState', '?')})"]
    if shown.get("MainPID", "0") != "0":
        words.append(f"pid {shown['MainPID']}")
    memory = shown.get("MemoryCurrent", "")
    if memory.isdigit() and int(memory) < 1 << 60:  # "[not set]", or 2^64 - 1
        words.append(f"{int(memory) / (1 << 20):.1f} MiB")
    if shown.get("NRestarts", "0") != "0":
        words.append(f"restarted {shown['NRestarts']} times")
    if shown.get("StatusText"):
        words.append(shown["StatusText"])
    return ", ".join(words)


def _show(name: str) -> dict[str, str]:
    text = _systemctl(["show", name, "--property", ",".join(_SHOWN)])
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def _packaged(name: str) -> str:
    return (resources.files("mwtrace") / "_systemd" / name).read_text(encoding="ascii")


def _is_ours(path: Path) -> bool:
    try:
        return path.read_text(encoding="utf-8", errors="replace").startswith(_MARK)
    except OSError:
        return False


def _write(path: Path, text: str, mode: int) -> None:
    """Write a file whole or not at all."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text, encoding="ascii")
        draft.chmod(mode)
        os.replace(draft, path)
    except OSError as error:
        raise HostError(f"cannot write {path}: {error.strerror}", "Run it with sudo.") from error
    finally:
        draft.unlink(missing_ok=True)


def _need_root(place: Place) -> None:
    if place.root == Path("/") and os.geteuid() != 0:
        raise ConfigError("cannot change the system's services", "Run it with sudo.")


def _is_live(place: Place) -> bool:
    """Whether systemd runs here; an image that is being built has none."""
    return place.root == Path("/") and Path("/run/systemd/system").is_dir()


def _reload(place: Place) -> None:
    if _is_live(place):
        _systemctl(["daemon-reload"])


def _systemctl(words: Sequence[str], check: bool = True) -> str:
    try:
        done = subprocess.run(
            ["systemctl", *words], capture_output=True, text=True, timeout=_SYSTEMCTL_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"cannot ask systemd: {error}", "Is systemd what runs here?") from error
    if check and done.returncode != 0:
        raise HostError(
            f"systemctl {words[0]}: {done.stderr.strip() or done.returncode}",
            "'journalctl -u mwtrace' says more.",
        )
    return done.stdout
