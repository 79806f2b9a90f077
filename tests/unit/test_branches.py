"""Far jumps into the first bytes of functions are found, near misses are not."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from mwtrace.capi import ffi, lib

SPAN = 64
START = 0x40_000  # of the one function looked at; code lies on both sides of it
SIZE = 0x80_000


@pytest.fixture
def found(tmp_path: Path):
    def look(*branches: tuple[int, bytes], starts: tuple[int, ...] = (START,), size: int = SIZE):
        code = bytearray(b"\xcc" * SIZE)
        for at, instruction in branches:
            code[at : at + len(instruction)] = instruction
        path = tmp_path / "code"
        path.write_bytes(code)
        rets = ffi.new("struct mw_branch[]", 8)
        fd = os.open(path, os.O_RDONLY)
        try:
            count = lib.mw_branches_into(fd, 0, size, starts, len(starts), SPAN, rets, 8)
        finally:
            os.close(fd)
        assert count >= 0, os.strerror(-count)
        return [(rets[i].function, rets[i].offset) for i in range(min(count, 8))]

    return look


def jump(opcode: bytes, at: int, to: int) -> tuple[int, bytes]:
    return at, opcode + struct.pack("<i", to - at - len(opcode) - 4)


@pytest.mark.parametrize("opcode", [b"\xe9", b"\xe8", b"\x0f\x84", b"\x0f\x8f"])
@pytest.mark.parametrize("at", [0, 0x100, START - 0x1000, START + 0x2000, SIZE - 6])
def test_a_far_jump_is_found_from_anywhere(opcode, at, found):
    assert found(jump(opcode, at, START + 9)) == [(0, 9)]


def test_one_that_lies_across_the_reading_chunks_is_found_once(found):
    for at in range(0xFFF0, 0x10005):
        assert found(jump(b"\xe9", at, START + 9)) == [(0, 9)], hex(at)


@pytest.mark.parametrize("offset", [0, -1, SPAN, SPAN + 1])
def test_a_jump_to_the_begin_or_behind_the_span_is_none(offset, found):
    assert found(jump(b"\xe9", 0x100, START + offset)) == []


def test_the_begin_of_the_next_function_is_no_middle_of_this_one(found):
    starts = (START, START + 16)
    assert found(jump(b"\xe9", 0x100, START + 16), starts=starts) == []
    assert found(jump(b"\xe9", 0x100, START + 17), starts=starts) == [(1, 1)]
    assert found(jump(b"\xe9", 0x100, START + 15), starts=starts) == [(0, 15)]


def test_a_jump_that_is_no_far_one_is_left_to_the_disassembler(found):
    assert found((START + 20, b"\xeb\xf4")) == []


def test_a_file_shorter_than_it_said_ends_the_search(found):
    assert found(jump(b"\xe9", 0x100, START + 9), size=1 << 40) == [(0, 9)]


def test_sizes_that_wrap_are_refused():
    rets = ffi.new("struct mw_branch[]", 1)
    assert lib.mw_branches_into(0, 1 << 63, 1 << 63, [1], 1, SPAN, rets, 1) < 0
    assert lib.mw_branches_into(0, 1 << 62, 1 << 62, [1], 1, SPAN, rets, 1) < 0
