"""A TOML file as values that know their lines.

The standard library's parser forgets where a value stood, and operators look for lines. So the text
is gone through once more, only for the places of its keys; what a key means is the parser's word.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path
from typing import Any, NamedTuple

from mwtrace.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_BYTES_MAX = 1 << 20

# Strings first, for what they hold is neither comment nor key.
_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}'
    r'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\''
    r"|#[^\n]*|[\[\]{}=\n]|[^\s\[\]{}=\"'#]+|[ \t\r]+",
    re.S,
)


class Fault(NamedTuple):
    """One thing that is wrong."""

    line: int  # 0: of the file as a whole
    message: str
    remedy: str = ""


class File(NamedTuple):
    """The tables of a file, and the lines of tables and keys by their path."""

    values: dict[str, Any]
    lines: dict[tuple[str, ...], int]

    def line(self, *path: str) -> int:
        """Return where a key stands, or the table that it should stand in; 0 if neither does."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)


class ConfigFaults(ConfigError):
    """All that is wrong with a file."""

    def __init__(self, path: Path, faults: list[Fault]) -> None:
        self.faults = sorted(faults)
        many = f"{len(faults)} faults" if len(faults) > 1 else "a fault"
        super().__init__(f"{path} has {many}", "\n  ".join(self.lines(path)))

    def lines(self, path: Path) -> list[str]:
        """One line for each, as compilers write them."""
        return [
            f"{path}:{fault.line}: {_printable(fault.message)}"
            + (f" ({_printable(fault.remedy)})" if fault.remedy else "")
            for fault in self.faults
        ]


def read(path: Path) -> File:
    """Read a file. Raises ConfigError if it cannot be, ConfigFaults if it is no TOML."""
    text = _read_text(path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = getattr(error, "lineno", 0) or _line_in(str(error))
        raise ConfigFaults(path, [Fault(line, f"{error}", "see toml.io")]) from error
    except RecursionError as error:
        raise ConfigFaults(path, [Fault(0, "tables are nested too deeply")]) from error
    return File(values, _lines(text))


def _read_text(path: Path) -> str:
    try:
        # A FIFO must not keep the start waiting.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError(f"cannot read {path}: it is no file", "Name a TOML file.")
            data = file.read(_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}", "Name a file that is there, and readable."
        ) from error
    if len(data) > _BYTES_MAX:
        raise ConfigError(
            f"cannot read {path}: it is larger than 1 MiB", "Is it the configuration?"
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigFaults(path, [Fault(line, "not UTF-8", "save it as UTF-8")]) from error


def _line_in(message: str) -> int:
    """The line that the parser names at the end of its message; newer ones have an attribute."""
    found = re.search(r"at line (\d{1,9})", message)
    return int(found.group(1)) if found else 0


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Return the lines of tables and keys of a text that the parser took."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    words: list[str] = []  # of a statement, up to its value
    line = began = 1
    depth = 0  # of brackets in a value, where it may go on in the next line
    for token in _TOKEN.findall(text + "\n"):
        if token == "\n" and depth == 0:
            table = _note(lines, table, words, began)
            words = []
        elif "=" in words:
            depth += (token in "[{") - (token in "]}")
        elif token.strip() and not token.startswith("#"):
            if not words:
                began = line
            words.append(token)
        line += token.count("\n")
    return lines


def _note(
    lines: dict[tuple[str, ...], int], table: tuple[str, ...], words: list[str], line: int
) -> tuple[str, ...]:
    """Take one statement; return the table that the next one is in."""
    if words and words[0] == "[":
        table = _path("".join(word for word in words if word not in "[]"))
        lines.setdefault(table, line)
    elif "=" in words:
        key = table + _path("".join(words[: words.index("=")]))
        for end in range(len(table) + 1, len(key) + 1):
            lines.setdefault(key[:end], line)
    return table


def _path(text: str) -> tuple[str, ...]:
    """``a."b.c"`` as its two parts."""
    value = tomllib.loads(f"{text} = 0")
    parts: list[str] = []
    while isinstance(value, dict):
        ((part, value),) = value.items()
        parts.append(part)
    return tuple(parts)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
