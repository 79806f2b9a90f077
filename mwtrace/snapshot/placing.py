"""Put the hook into another Python's environment, and take it away again.

Two files: the hook itself, under the name it is imported by, and a ``.pth`` that imports it where
MWTRACE_HOOK=1 is in the environment, before the program's first line. Without that the cost of
the ``.pth`` is one look at a variable at start. It must not know what the hook does.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from mwtrace.errors import ConfigError

_ROOM = Path(__file__).parent
FOLDER = _ROOM / "importable"  # for PYTHONPATH
_MODULE = "mwtrace_hook.py"
_STARTER = "mwtrace_hook.pth"
# site runs a line that begins with "import".
_LINE = "import os; os.environ.get('MWTRACE_HOOK') == '1' and __import__('mwtrace_hook')\n"
_ASK = (
    "import sys, sysconfig; print(sys.implementation.name, *sys.version_info[:2]); "
    "print(sysconfig.get_paths()['purelib'])"
)
_ANSWER_S = 30.0


def install(python: Path) -> list[Path]:
    """Copy the hook into a Python's site-packages; return what was written.

    Raises ConfigError if that is no CPython we know, or its folder cannot be written.
    """
    folder = _site_packages(python)
    text = (_ROOM / "hook.py").read_text(encoding="utf-8")
    return [_put(folder / _MODULE, text), _put(folder / _STARTER, _LINE)]


def remove(python: Path) -> list[Path]:
    folder = _site_packages(python)
    gone = []
    for name in (_STARTER, _MODULE):
        try:
            os.unlink(folder / name)
            gone.append(folder / name)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise _refused(f"cannot remove {folder / name}", error) from error
    return gone


def _site_packages(python: Path) -> Path:
    try:
        # Without our own settings; a hook that is there already stays asleep.
        plain = {name: value for name, value in os.environ.items() if name != "MWTRACE_HOOK"}
        said = subprocess.run(
            [python, "-E", "-c", _ASK],
            capture_output=True,
            timeout=_ANSWER_S,
            check=True,
            env=plain,
        )
        kind, folder = said.stdout.decode().splitlines()[-2:]
        name, major, minor = kind.split()
        version = (int(major), int(minor))
    except OSError as error:
        raise _refused(f"cannot run {python}", error) from error
    except (subprocess.SubprocessError, ValueError) as error:
        raise ConfigError(f"cannot ask {python} where its packages are", "Name a Python.") from (
            error
        )
    if name != "cpython" or version < (3, 8):
        raise ConfigError(
            f"cannot put the hook into {python}: it is {name} {major}.{minor}",
            "CPython 3.8 and later is supported.",
        )
    return Path(folder)


def _put(path: Path, text: str) -> Path:
    # Under another name first: a worker that starts meanwhile must not read half of it.
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(text, encoding="utf-8")
        os.chmod(new, 0o644)
        os.replace(new, path)
    except OSError as error:
        raise _refused(f"cannot write {path}", error) from error
    return path


def _refused(what: str, error: OSError) -> ConfigError:
    return ConfigError(f"{what}: {error.strerror}", "Name the Python of a virtual environment.")
