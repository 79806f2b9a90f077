"""Make text that strangers wrote safe to show.

Process names, command lines and cgroup names may hold terminal escapes, newlines, invalid UTF-8
and characters that reorder a line. This file knows none of those sources; it only promises that
what it returns is printable and not longer than asked for.
"""

from __future__ import annotations

import hashlib

NAME_CHARACTERS_MAX = 80
_HEAD_CHARACTERS = 30
_DIGEST_CHARACTERS = 8


def decode(raw: bytes) -> str:
    """Turn bytes into a string that still names the same file (``surrogateescape``)."""
    return raw.decode("utf-8", "surrogateescape")


def printable(text: str | bytes) -> str:
    """Write everything that is not printable as a backslash escape."""
    if isinstance(text, bytes):
        text = decode(text)
    # Tested first, because nearly all names are.
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8: see decode()
        code -= 0xDC00
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def digest(text: str) -> str:
    """Tell texts apart in eight characters, the same ones on every run and host."""
    raw = text.encode("utf-8", "surrogatepass")
    return hashlib.sha256(raw).hexdigest()[:_DIGEST_CHARACTERS]


def name(text: str | bytes, characters_max: int = NAME_CHARACTERS_MAX) -> str:
    """Make a printable name of bounded length.

    A longer text loses its middle to a digest of the whole, so that two long names that differ
    only there stay two names.
    """
    shown = printable(text.strip())
    if len(shown) <= characters_max:
        return shown
    mark = f"~{digest(shown)}~"
    tail = characters_max - _HEAD_CHARACTERS - len(mark)
    return shown[:_HEAD_CHARACTERS] + mark + shown[-tail:]
