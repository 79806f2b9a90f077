"""Compiled functions and map descriptors in, a program that the kernel takes out.

A text that bcc compiles refers to maps and callbacks by numbers, in instructions that load a
constant of 64 bits and say what kind of thing it is (``bpf/compat.h``). Here the numbers become
what the kernel wants: a map's descriptor, and how far away the callback's code is. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

# struct bpf_insn as one little-endian number: opcode, registers, offset, immediate.
_LOAD_CONSTANT = 0x18  # BPF_LD | BPF_IMM | BPF_DW: takes two instructions
_MAP = 1  # BPF_PSEUDO_MAP_FD
_FUNCTION = 4  # BPF_PSEUDO_FUNC
# The compiler made a callback a function of one argument, and helpers give what we want second.
_SECOND_ARGUMENT_FIRST = 0x21BF  # r1 = r2


class Program(NamedTuple):
    code: bytes
    callbacks: tuple[int, ...]  # where each begins, in instructions


def link(
    name: str,
    functions: Mapping[str, Sequence[int]],
    maps: Sequence[int],
    callbacks: Sequence[str],
) -> Program:
    """Return one function with the callbacks that it needs behind it.

    maps and callbacks are in the order of the numbers that the text was compiled with. Raises
    LookupError if the code refers to what is not there.
    """
    code = list(functions[name])
    starts: dict[int, int] = {}
    at = 0
    while at < len(code):  # grows while callbacks are put behind
        word = code[at]
        if word & 0xFF != _LOAD_CONSTANT:
            at += 1
            continue
        kind, number = word >> 12 & 0xF, word >> 32
        if kind == _MAP:
            code[at] = _with_immediate(word, maps[number])
        elif kind == _FUNCTION:
            if number not in starts:
                body = functions[callbacks[number]]
                starts[number] = len(code)
                code += [_SECOND_ARGUMENT_FIRST, *body]
            code[at] = _with_immediate(word, starts[number] - at - 1)
        at += 2
    return Program(
        b"".join(word.to_bytes(8, "little") for word in code), tuple(sorted(starts.values()))
    )


def _with_immediate(word: int, immediate: int) -> int:
    return word & 0xFFFFFFFF | (immediate & 0xFFFFFFFF) << 32
