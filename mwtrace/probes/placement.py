"""Decoded instructions in, the cheapest valid place for a probe out.

Law of this file: it decides, and reads nothing; instructions come decoded (``disassembly``), the
set of cheap ones comes from what this kernel was seen to do (``calibration``) or from its source.

A place is valid if it is reached whenever the function is called (for ``free``: with a block),
reached once per call, and reached with the argument registers, and where the return is probed the
stack pointer, as the caller left them: the kernel takes the word at the stack pointer for the
return address. Among valid places the first one that the kernel emulates is taken: everything
else is single-stepped, which costs about 13 times as much. If there is none, offset 0.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from mwtrace.probes.points import AttachPoint, Call, Placement, Tail

# A prologue is over after so many instructions; looking further finds only loops.
INSTRUCTIONS_MAX = 24


class Kind(enum.Enum):
    """What the kernel's decision about an instruction depends on (arch/*/kernel/*probes*)."""

    PUSH = "push"  # of a general register
    NOP = "nop"  # one byte, with or without prefixes
    LONG_NOP = "long nop"  # emulated since Linux 6.18
    JUMP = "jump"  # relative, conditional or not
    CALL = "call"  # relative
    OTHER = "other"


# What every kernel that has BPF on uprobes emulates; more where calibration finds more.
EMULATED = frozenset({Kind.PUSH, Kind.NOP, Kind.JUMP, Kind.CALL})


class Instruction(NamedTuple):
    offset: int
    size: int
    text: str
    kind: Kind
    writes: frozenset[str]  # full registers: "rdi", not "edi"
    reads: frozenset[str]
    pushes: int  # words by which the stack pointer goes down; -1: it changes otherwise
    target: int | None  # of a relative jump or call, as an offset from the function
    is_end: bool  # control does not go on behind it
    null_test: str = ""  # the register that `test r,r` compares with zero
    jumps_if_zero: bool = False


def choose(
    code: Sequence[Instruction],
    call: Call,
    argument_registers: Sequence[str],
    branch_targets: Collection[int],
    argument_shift: int = 0,
    emulated: Collection[Kind] = EMULATED,
    tail: Tail | None = None,
) -> Placement:
    """Choose for a function that begins with ``code``.

    ``branch_targets``: offsets from the function that any branch of the file goes to. A probe at or
    behind one would be hit more often than the function is called.
    """
    needed = set(argument_registers[argument_shift : argument_shift + call.argument_count])
    first_argument = argument_registers[argument_shift]
    fallback: Placement | None = None
    tested = ""
    pushed = 0
    stopped = "no emulated instruction before the function's end"
    for instruction in code[:INSTRUCTIONS_MAX]:
        if instruction.offset and instruction.offset in branch_targets:
            stopped = f"a branch leads to +{instruction.offset:#x}"
            break
        if instruction.kind in emulated:
            place = Placement(
                instruction.offset,
                instruction.text,
                True,
                "first emulated instruction" + (" with a block" if fallback else ""),
                pushed,
            )
            skips_null = (
                call is Call.FREE and instruction.jumps_if_zero and tested == first_argument
            )
            if not skips_null or fallback is not None:
                return place
            # Both ways matter nowhere but here: free(NULL) frees nothing, so the place behind
            # the test is as right as the test, and spares null frees the trap.
            fallback = place._replace(why="emulated null test; nothing cheaper behind it")
            tested = ""
            continue
        if instruction.is_end or instruction.kind in (Kind.JUMP, Kind.CALL):
            stopped = f"control leaves at +{instruction.offset:#x} ({instruction.text})"
            break
        if instruction.writes & needed:
            stopped = f"an argument is overwritten at +{instruction.offset:#x}"
            break
        if instruction.pushes != 0:
            if call.needs_return or instruction.pushes < 0:
                stopped = f"the stack pointer moves at +{instruction.offset:#x}"
                break
            pushed += instruction.pushes
        tested = instruction.null_test or (tested if "rflags" not in instruction.writes else "")
    if fallback is not None:
        return fallback
    text = code[0].text if code else "?"
    return Placement(0, text, False, f"{stopped}: single-stepped", 0, tail)


def render(points: Iterable[AttachPoint]) -> str:
    """The table of ``mwtrace doctor --probes PID``."""
    rows = [("FUNCTION", "AT", "FILE OFFSET", "COST", "INSTRUCTION", "WHY")]
    for point in points:
        place = point.placement
        if place is None:
            rows.append((point.symbol, "?", f"{point.function_offset:#x}", "?", "", "not decoded"))
            continue
        rows.append(
            (
                point.symbol,
                f"+{place.offset:#x}",
                f"{point.file_offset:#x}",
                "cheap" if place.is_emulated else "dear",
                place.instruction,
                place.why,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    )
    return "\n".join(lines) + "\n"
