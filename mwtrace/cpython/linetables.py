"""From a byte offset in a code object to its line: CPython's three formats of line tables.

Bytes in, a line out; knows no process. A table is hostile input: whatever it holds, the answer is
a number or None, and the time is linear in its size.
"""

from __future__ import annotations

from collections.abc import Iterator

_NUMBER_BITS = 36  # six bytes: CPython writes 32-bit numbers


def line_at(minor: int, table: bytes, first_line: int, offset: int) -> int | None:
    """Return the line of the instruction at a byte offset; None if it belongs to none."""
    if minor <= 9:
        return _lnotab_line(table, first_line, offset)
    spans = _spans_310(table, first_line) if minor == 10 else _spans_311(table, first_line)
    for end, line in spans:
        # A frame that has not begun (offset < 0) is on the line of its first instruction.
        if offset < end:
            return line
    return None


def _lnotab_line(table: bytes, line: int, offset: int) -> int:
    """Up to 3.9: pairs of (bytes, lines) to go on; where the bytes pass the offset it ends."""
    address = 0
    for step, change in zip(table[::2], table[1::2]):
        address += step
        if address > offset:
            break
        line += change - 256 if change >= 128 else change
    return line


def _spans_310(table: bytes, line: int) -> Iterator[tuple[int, int | None]]:
    """3.10 (PEP 626): pairs of (length, lines); -128 lines means that there is none."""
    end = 0
    for length, change in zip(table[::2], table[1::2]):
        end += length
        if change == 128:
            yield end, None
            continue
        line += change - 256 if change >= 128 else change
        yield end, line


def _spans_311(table: bytes, line: int) -> Iterator[tuple[int, int | None]]:
    """3.11 and later (PEP 657): a byte of kind and length, then what that kind carries."""
    end = 0
    position = 0
    while position < len(table):
        kind = table[position] >> 3 & 15
        end += 2 * ((table[position] & 7) + 1)
        position += 1
        if kind == 15:
            yield end, None
            continue
        if kind >= 13:  # the change as a number of its own; 14: three column numbers behind it
            number, position = _number(table, position)
            line += -(number >> 1) if number & 1 else number >> 1
            for _ in range(3 if kind == 14 else 0):
                _, position = _number(table, position)
        elif kind >= 10:  # the kind is the change; two bytes of columns
            line += kind - 10
            position += 2
        else:  # the same line; a byte of columns
            position += 1
        yield end, line


def _number(table: bytes, position: int) -> tuple[int, int]:
    """Read a number of six bits a byte, the lowest first; return it and where it ends.

    What is longer than any of CPython's is read to its end and loses its upper bits: a number as
    long as a hostile table would take time by the square of its length.
    """
    number = shift = 0
    while position < len(table):
        byte = table[position]
        position += 1
        if shift < _NUMBER_BITS:
            number |= (byte & 63) << shift
        shift += 6
        if not byte & 64:
            break
    return number, position
