"""Foreign text on a grid of terminal cells: what may be shown, how wide it is, how it is cut.

Names come from whoever runs a process, so they are hostile: an escape sequence could repaint the
operator's screen and a bidi override could move one service's numbers to another. Knows nothing of
what the text means.
"""

from __future__ import annotations

import unicodedata

# What a name may cost us before anything looks at it; the middle of a longer one is left out.
TEXT_MAX = 512

# Letters, digits, punctuation and symbols. All else (controls, formats, surrogates, unassigned and
# private characters, combining marks, exotic spaces) has no width that terminals agree on.
_SHOWN_CATEGORIES = frozenset("LNPS")

# One right-to-left letter makes terminals that implement the bidi algorithm (VTE, Konsole) reorder
# the numbers after it, which in a table are another column.
_RIGHT_TO_LEFT = frozenset({"R", "AL", "AN"})

# Characters of the categories above whose width depends on their neighbours or on the age of the
# terminal's tables.
_DISPUTED = (
    (0x1160, 0x11FF),  # Hangul vowels and finals
    (0x2630, 0x2637),  # trigrams: wide since Unicode 16, as the next three
    (0x268A, 0x268F),
    (0x4DC0, 0x4DFF),
    (0x1D300, 0x1D37F),
    (0x3164, 0x3164),  # a letter that is blank
    (0xD7B0, 0xD7FF),  # Hangul vowels and finals, extended
    (0xFF9E, 0xFFA0),  # halfwidth sound marks, and another blank letter
    (0x1F1E6, 0x1F1FF),  # regional indicators: two make a flag
    (0x1F3FB, 0x1F3FF),  # skin tones
)


def printable(text: str, unicode: bool = True) -> str:
    """Make text safe to show: one line, no control over the terminal, width known per character.

    What cannot be shown is written as an escape (``\\x1b``), so that two different names stay
    different. Backslashes are left alone: systemd's own names hold ``\\x2d``.
    """
    if len(text) > TEXT_MAX:
        half = TEXT_MAX // 2
        text = text[:half] + ellipsis(unicode) + text[-half:]
    if text.isascii() and text.isprintable():
        return text
    shown = unicodedata.normalize("NFC", text)
    return "".join(char if _is_shown(char, unicode) else _escaped(char) for char in shown)


def ellipsis(unicode: bool) -> str:
    return "\N{HORIZONTAL ELLIPSIS}" if unicode else "~"


def width_cells(text: str) -> int:
    """How many cells a text takes that went through printable()."""
    if text.isascii():
        return len(text)
    return sum(map(_char_cells, text))


def clip(text: str, width_max: int, unicode: bool = True) -> str:
    """Cut the end off what does not fit: for sentences, whose beginning matters."""
    if width_cells(text) <= width_max:
        return text
    return _head(text, width_max - 1) + ellipsis(unicode) if width_max > 0 else ""


def shorten(name: str, width_max: int, unicode: bool = True) -> str:
    """Cut the middle out of what does not fit: for names, which often differ at their end."""
    if width_cells(name) <= width_max:
        return name
    if width_max < 5:
        return clip(name, width_max, unicode)
    tail_cells = (width_max - 1) // 3
    tail = _head(name[::-1], tail_cells)[::-1]
    return _head(name, width_max - 1 - width_cells(tail)) + ellipsis(unicode) + tail


def pad(text: str, width: int, right: bool = False) -> str:
    """Fill up with spaces; ``right`` puts the text at the right."""
    space = " " * (width - width_cells(text))
    return space + text if right else text + space


def _is_shown(char: str, unicode: bool) -> bool:
    if char.isascii():
        return char.isprintable()
    return (
        unicode
        and unicodedata.category(char)[0] in _SHOWN_CATEGORIES
        and unicodedata.bidirectional(char) not in _RIGHT_TO_LEFT
        and not any(first <= ord(char) <= last for first, last in _DISPUTED)
    )


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was no UTF-8, as os.fsdecode() hides it
        code -= 0xDC00
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _char_cells(char: str) -> int:
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def _head(text: str, width_max: int) -> str:
    width = 0
    for index, char in enumerate(text):
        width += _char_cells(char)
        if width > width_max:
            return text[:index]
    return text
