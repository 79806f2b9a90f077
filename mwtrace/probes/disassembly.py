"""Bytes of functions in, places for probes out: the process that holds the disassembler.

Run as ``python -m mwtrace.probes.disassembly``: one JSON request on standard input, one answer on
standard output, then it ends. A process of its own because the disassembler (11 MB of library,
another parser of hostile bytes) shall neither stay in the daemon's memory nor crash it.

The only module that knows capstone. It knows no file and no process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from mwtrace.probes.placement import INSTRUCTIONS_MAX, Instruction, Kind, choose
from mwtrace.probes.points import Call, Placement, Tail

# Registers that carry the first integer arguments.
ARGUMENT_REGISTERS = {
    "x86-64": ("rdi", "rsi", "rdx", "rcx", "r8", "r9"),
    "aarch64": ("x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7"),
}
REQUEST_BYTES_MAX = 8 << 20

_X86_WHOLE = {
    part: whole
    for whole, parts in {
        "rax": "eax ax al ah",
        "rbx": "ebx bx bl bh",
        "rcx": "ecx cx cl ch",
        "rdx": "edx dx dl dh",
        "rsi": "esi si sil",
        "rdi": "edi di dil",
        "rbp": "ebp bp bpl",
        "rsp": "esp sp spl",
        **{f"r{n}": f"r{n}d r{n}w r{n}b" for n in range(8, 16)},
    }.items()
    for part in parts.split()
}


class Function(NamedTuple):
    """One function to find a place in; ``code`` are its first bytes, at ``address``."""

    code: bytes
    address: int
    call: Call
    argument_shift: int
    branch_targets: frozenset[int]  # from outside the bytes given, as offsets from the function


def decode(code: bytes, address: int, machine: str) -> Iterator[Instruction]:
    """Decode until the end of the bytes or the first one that is no instruction."""
    import capstone

    if machine == "x86-64":
        engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        describe = _describe_x86
    else:
        engine = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
        describe = _describe_arm64
    engine.detail = True
    for raw in engine.disasm(code, address):
        yield describe(raw, address)


def place(function: Function, machine: str, emulated: frozenset[Kind]) -> Placement:
    """Choose the place for one function."""
    code = list(decode(function.code, function.address, machine))
    inner = {instruction.target for instruction in code if instruction.target is not None}
    targets = frozenset(inner | function.branch_targets)
    return choose(
        code,
        function.call,
        ARGUMENT_REGISTERS[machine],
        targets,
        function.argument_shift,
        emulated,
        forwarding(function, machine),
    )


def forwarding(function: Function, machine: str) -> Tail | None:
    """Say where a function that merely forwards jumps to, as far as that can be followed.

    Follows moves and loads through constant addresses and gives up at anything else. x86-64 only.
    """
    if machine != "x86-64":
        return None
    import capstone
    from capstone import x86

    arguments = ARGUMENT_REGISTERS[machine]
    needed = arguments[function.argument_shift : function.argument_shift + 3]
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.detail = True
    # A register holds an argument (its index) or a word found by reading memory.
    known: dict[str, Any] = {name: index for index, name in enumerate(needed)}
    for raw in list(engine.disasm(function.code, function.address))[:INSTRUCTIONS_MAX]:
        operands = raw.operands
        if raw.mnemonic in ("endbr64", "nop"):
            continue
        if raw.mnemonic == "jmp" and operands[0].type != x86.X86_OP_IMM:
            word = _word(raw, operands[0], known)
            moved = known.get(arguments[function.argument_shift + 1])
            if not isinstance(word, tuple) or moved != 0:
                return None
            return Tail(word[0], tuple(word[1:]), function.argument_shift + 1)
        if raw.mnemonic != "mov" or operands[0].type != x86.X86_OP_REG or operands[0].size != 8:
            return None
        known[raw.reg_name(operands[0].reg)] = _word(raw, operands[1], known)
    return None


def _word(raw: Any, operand: Any, known: dict[str, Any]) -> Any:
    # What an operand stands for: an argument's index, (address, offsets...) of a word, or None.
    from capstone import x86

    if operand.type == x86.X86_OP_REG:
        return known.get(raw.reg_name(operand.reg))
    if operand.type != x86.X86_OP_MEM or operand.mem.index or operand.mem.segment:
        return None
    base = raw.reg_name(operand.mem.base) if operand.mem.base else ""
    if base == "rip":
        return (raw.address + raw.size + operand.mem.disp,)
    if not base:
        return (operand.mem.disp,)
    word = known.get(base)
    return (*word, operand.mem.disp) if isinstance(word, tuple) else None


def _describe_x86(raw: Any, start: int) -> Instruction:
    import capstone
    from capstone import x86

    reads, writes = raw.regs_access()
    written = frozenset(_X86_WHOLE.get(name, name) for name in map(raw.reg_name, writes))
    is_branch = capstone.CS_GRP_BRANCH_RELATIVE in raw.groups
    is_call = capstone.CS_GRP_CALL in raw.groups
    pushes = 0
    if raw.id == x86.X86_INS_PUSH:
        pushes = 1
    elif "rsp" in written:
        pushes = -1
    tests_itself = (
        raw.id == x86.X86_INS_TEST
        and all(o.type == x86.X86_OP_REG and o.size == 8 for o in raw.operands)
        and raw.operands[0].reg == raw.operands[1].reg
    )
    ends = raw.id in (x86.X86_INS_JMP, x86.X86_INS_UD2, x86.X86_INS_HLT, x86.X86_INS_INT3)
    return Instruction(
        raw.address - start,
        raw.size,
        f"{raw.mnemonic} {raw.op_str}".strip(),
        _x86_kind(raw, is_branch),
        written,
        frozenset(_X86_WHOLE.get(name, name) for name in map(raw.reg_name, reads)),
        pushes,
        raw.operands[0].imm - start if is_branch else None,
        ends or is_call or capstone.CS_GRP_RET in raw.groups,
        raw.reg_name(raw.operands[0].reg) if tests_itself else "",
        raw.id == x86.X86_INS_JE,
    )


def _x86_kind(raw: Any, is_branch: bool) -> Kind:
    # As branch_setup_xol_ops() and push_setup_xol_ops() in arch/x86/kernel/uprobes.c decide.
    first, second = raw.opcode[0], raw.opcode[1]
    has_66 = raw.prefix[2] == 0x66
    if first == 0x90:
        # With REX.B it is xchg rax, r8, which old kernels take for a nop: never there.
        return Kind.OTHER if raw.rex & 1 else Kind.NOP
    if 0x50 <= first <= 0x57 and raw.size <= 2 and raw.rex in (0, 0x41) and not has_66:
        return Kind.PUSH
    if first == 0x0F and second == 0x1F:
        return Kind.LONG_NOP
    if not is_branch or has_66:
        return Kind.OTHER
    if first == 0xE8:
        return Kind.CALL
    conditional = 0x70 <= first <= 0x7F or (first == 0x0F and 0x80 <= second <= 0x8F)
    return Kind.JUMP if conditional or first in (0xE9, 0xEB) else Kind.OTHER


def _describe_arm64(raw: Any, start: int) -> Instruction:
    import capstone

    reads, writes = raw.regs_access()

    def whole(register: int) -> str:
        name: str = raw.reg_name(register)
        if name[0] == "w" and name[1:].isdigit():
            return "x" + name[1:]
        return {"wsp": "sp", "wzr": "xzr", "nzcv": "rflags"}.get(name, name)

    written = frozenset(map(whole, writes))
    name = raw.mnemonic
    # As arm_probe_decode_insn() in arch/arm64/kernel/probes/decode-insn.c decides; calls through
    # a register and returns are simulated too, but end what we look at.
    is_jump = name == "b" or name.startswith("b.") or name in ("cbz", "cbnz", "tbz", "tbnz")
    kind = Kind.OTHER
    if is_jump:
        kind = Kind.JUMP
    elif name == "bl":
        kind = Kind.CALL
    elif name == "nop":
        kind = Kind.NOP
    target = raw.operands[-1].imm - start if kind in (Kind.JUMP, Kind.CALL) else None
    ends = name in ("b", "bl", "br", "blr", "ret", "retaa", "retab", "brk", "udf")
    return Instruction(
        raw.address - start,
        raw.size,
        f"{name} {raw.op_str}".strip(),
        kind,
        written,
        frozenset(map(whole, reads)),
        # The return address is in x30: an entry probe with return needs it there, not the stack.
        -1 if "sp" in written or "x30" in written else 0,
        target,
        ends or capstone.CS_GRP_RET in raw.groups,
        # cbz compares and jumps in one: itself emulated, and reached with every block.
        "",
        False,
    )


def main() -> int:
    """Answer one request; see ``placer`` for the other end."""
    request = json.loads(sys.stdin.buffer.read(REQUEST_BYTES_MAX))
    emulated = frozenset(Kind(name) for name in request["emulated"])
    answer = []
    for wish in request["functions"]:
        function = Function(
            bytes.fromhex(wish["code"]),
            wish["address"],
            Call[wish["call"]],
            wish["argument_shift"],
            frozenset(wish["branch_targets"]),
        )
        answer.append(place(function, request["machine"], emulated))
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
