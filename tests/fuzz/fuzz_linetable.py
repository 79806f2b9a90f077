"""Feeds line tables of code objects to their reader.

The first bytes say of which CPython the table is, and which instruction is asked for.
A table comes out of another process's heap: any bytes, and as many as may be read.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from mwtrace.cpython.linetables import line_at


def one_input(data: bytes) -> None:
    if len(data) < 2:
        return
    for repeats in (1, 64):
        line = line_at(8 + data[0] % 8, data[2:] * repeats, 1, 2 * data[1] * repeats)
        # What a table can say is no more than 32 bits to go on at each entry.
        assert line is None or abs(line) < (len(data) * repeats + 1) << 36


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
