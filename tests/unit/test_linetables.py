"""Line tables, against the running interpreter's own reading of its own, and as junk."""

from __future__ import annotations

import random
import sys
import types
from pathlib import Path

import pytest

from mwtrace.cpython.linetables import line_at

MINOR = sys.version_info.minor

SOURCE = """
def f(a, b):
    if a:

        return [
            x
            for x in b
            if x
        ]
    try:
        with a as c:
            pass
    except (
        ValueError,
    ):
        return (a +
                b)
    finally:
        x = 1; y = 2


    %s
    return lambda: (
        a
    )
""" % ("\n    " * 300 + "z = 3\n" * 1)


def codes(code: types.CodeType) -> list[types.CodeType]:
    inner = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return [code, *(found for child in inner for found in codes(child))]


@pytest.mark.skipif(MINOR < 10, reason="co_lines() came with 3.10")
def test_every_instruction_is_on_the_line_that_the_interpreter_says():
    modules = [
        compile(SOURCE, "source", "exec"),
        compile(Path(types.__file__).read_text(), "t", "exec"),
    ]
    checked = 0
    for module in modules:
        for code in codes(module):
            for start, end, line in code.co_lines():
                for offset in range(start, end, 2):
                    found = line_at(MINOR, code.co_linetable, code.co_firstlineno, offset)
                    assert found == line
                    checked += 1
    assert checked > 1000


def test_the_table_of_3_9_counts_bytes_and_signed_lines():
    # From dis.findlinestarts() of a 3.9: (0, 10), (6, 12), (14, 11).
    table = bytes([6, 2, 8, 255])
    assert [line_at(9, table, 10, offset) for offset in (0, 4, 6, 12, 14, 99)] == [
        *(10, 10, 12, 12, 11, 11)
    ]


def test_the_table_of_3_10_knows_instructions_without_a_line():
    table = bytes([4, 1, 2, 128, 6, 254])
    assert [line_at(10, table, 10, offset) for offset in (0, 2, 4, 6, 10, 12)] == [
        *(11, 11, None, 9, 9, None)
    ]


@pytest.mark.parametrize("minor", [8, 10, 11, 14])
def test_junk_is_answered_and_never_a_crash(minor):
    seed = 20_11
    generator = random.Random(seed)
    for _ in range(300):
        table = generator.randbytes(generator.randrange(60))
        line = line_at(minor, table, 1, generator.randrange(-10, 200))
        assert line is None or isinstance(line, int)


def test_a_number_longer_than_any_of_cpythons_loses_its_upper_bits():
    # As long as the table: adding it up whole would take time by the square of that.
    endless = bytes([13 << 3 | 0x80]) + b"\x7f" * 5000
    line = line_at(11, endless, 1, 0)
    assert line is not None
    assert abs(line) < 1 << 36
