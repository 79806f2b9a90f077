"""Places for probes, on byte sequences taken from real libraries and on traps made for them."""

from __future__ import annotations

import os

import pytest

from mwtrace.probes.disassembly import Function, place
from mwtrace.probes.placement import EMULATED, Kind, render
from mwtrace.probes.points import AttachPoint, Call, Domain, Layer, Tail

if "libasan" in os.environ.get("LD_PRELOAD", ""):
    # Its loader asks for RTLD_DEEPBIND, at which the sanitizer ends the process. Nothing of our
    # own C is used here.
    pytest.skip("capstone cannot be loaded beside a sanitizer", allow_module_level=True)
pytest.importorskip("capstone", reason="the extra 'trace' is not installed")

ADDRESS = 0x1000


def chosen(code: str, call: Call, shift: int = 0, targets=(), kinds=EMULATED, machine="x86-64"):
    raw = bytes.fromhex(code)
    return place(Function(raw, ADDRESS, call, shift, frozenset(targets)), machine, frozenset(kinds))


CASES = [
    # Debian 12's glibc
    pytest.param("4154 55 53 4889fb 4883ec10", Call.MALLOC, 0, True, id="malloc pushes at once"),
    pytest.param("4885ff 0f84bf000000 55 488d77f0", Call.FREE, 9, True, id="free behind null test"),
    pytest.param("4155 4889f8 4154", Call.CALLOC, 0, True, id="calloc pushes r13"),
    pytest.param("803d710e140000 7407 e932f6ffff", Call.ALIGNED, 7, True, id="memalign at je"),
    pytest.param("803d0102140000 4154 4989d4", Call.POSIX_MEMALIGN, 7, True, id="posix_memalign"),
    pytest.param("4889f0 48f7e2 4889c6 7005", Call.REALLOCARRAY, 0, False, id="reallocarray muls"),
    # a CET build: endbr64 is single-stepped
    pytest.param("f30f1efa 55 4889e5", Call.MALLOC, 4, True, id="push behind endbr64"),
    # CPython
    pytest.param("4889fe 4885ff 7810 488b3d00000000", Call.MALLOC, 6, True, id="PyObject_Malloc"),
    pytest.param("4885f6 7414 48b8ffffffffffffff7f", Call.CALLOC, 3, True, id="PyObject_Calloc"),
    pytest.param(
        "488b0500000000 488b1500000000 483de00f5000 0f85b4010000",
        Call.FREE,
        0x14,
        True,
        id="PyObject_Free with pymalloc inside",
    ),
    # arguments
    pytest.param("4889f7 55", Call.MALLOC, 0, False, id="argument overwritten"),
    pytest.param("31ff 55", Call.MALLOC, 0, False, id="half of it overwritten counts"),
    pytest.param("4889fe 55", Call.MALLOC, 3, True, id="another register may be"),
    pytest.param("4889fe 55", Call.CALLOC, 0, False, id="unless it is the second argument"),
    # the stack, where the return is wanted
    pytest.param("4883ec18 55", Call.MALLOC, 0, False, id="stack moved before the push"),
    pytest.param("4883ec18 55", Call.FREE, 0, False, id="by an unknown way: no frees either"),
    pytest.param("6a01 55", Call.FREE, 2, True, id="a push of a constant is a known way"),
    pytest.param("6a01 55", Call.MALLOC, 0, False, id="but hides the return address"),
    # control
    pytest.param("4889f8 c3 55", Call.FREE, 0, False, id="nothing behind a return"),
    pytest.param("4889f8 ffe0 55", Call.FREE, 0, False, id="nothing behind an indirect jump"),
    pytest.param("4889f8 ffd0 55", Call.FREE, 0, False, id="nothing behind an indirect call"),
    pytest.param("4889f8 55 ebfd", Call.MALLOC, 0, False, id="a loop leads to the push"),
    pytest.param("4889f8 e800000000", Call.MALLOC, 3, True, id="a call is emulated"),
    pytest.param("4889fe e900010000", Call.MALLOC, 3, True, id="a jump is emulated"),
    pytest.param("4885ff 7501 c3 55", Call.FREE, 3, True, id="jump if a block: the test itself"),
    pytest.param("4885f6 7401 55", Call.FREE, 3, True, id="another register tested"),
    pytest.param("4885ff 4839fe 7401 55", Call.FREE, 6, True, id="another comparison after it"),
    pytest.param("85ff 7401 55", Call.FREE, 2, True, id="half of the pointer tested"),
    pytest.param("4885ff 7402 c3 90", Call.FREE, 3, True, id="behind the test only a return"),
    pytest.param("4885ff 7401 c3 90", Call.REALLOC, 3, True, id="realloc(NULL) matters"),
    # what looks cheap and is not
    pytest.param("ff7708 50", Call.MALLOC, 0, False, id="push of memory"),
    pytest.param("6655 4889f8 c3", Call.MALLOC, 0, False, id="push of half a register"),
    pytest.param("49 90 c3", Call.MALLOC, 0, False, id="xchg r8, rax in the nop's clothes"),
    pytest.param("f390 55", Call.MALLOC, 0, True, id="pause is a nop to the kernel"),
    pytest.param("e300 55", Call.MALLOC, 0, False, id="jrcxz is not emulated"),
    pytest.param("660f1f440000 c3", Call.MALLOC, 0, False, id="long nop before 6.18"),
    pytest.param("06 06 06", Call.MALLOC, 0, False, id="no instruction at all"),
    pytest.param("", Call.MALLOC, 0, False, id="no bytes"),
]


@pytest.mark.parametrize(("code", "call", "offset", "is_emulated"), CASES)
def test_the_place_is(code, call, offset, is_emulated):
    placement = chosen(code, call)
    assert (placement.offset, placement.is_emulated) == (offset, is_emulated)
    assert placement.why


def test_pushed_words_are_told():
    assert chosen("6a01 55", Call.FREE).pushed_words == 1
    assert chosen("4889f8 55", Call.FREE).pushed_words == 0


def test_a_far_jump_into_the_prologue_forbids_what_lies_behind_its_target():
    code = "4885ff 0f84bf000000 55"
    assert chosen(code, Call.FREE, targets=[9]).offset == 3
    assert chosen(code, Call.FREE, targets=[3]).offset == 0
    assert not chosen(code, Call.FREE, targets=[3]).is_emulated
    assert chosen(code, Call.FREE, targets=[10]).offset == 9


def test_a_kernel_that_emulates_more_is_made_use_of():
    code = "660f1f440000 55"
    assert chosen(code, Call.MALLOC).offset == 6
    assert chosen(code, Call.MALLOC, kinds=EMULATED | {Kind.LONG_NOP}).offset == 0


def test_arguments_that_begin_in_the_second_register():
    code = "4885f6 0f849f000000 55"  # _PyObject_Free(context, block)
    assert chosen(code, Call.FREE, shift=1).offset == 9
    assert chosen(code, Call.FREE, shift=0).offset == 3
    assert chosen("4889f7 55", Call.FREE, shift=1).offset == 3


TAILS = [
    pytest.param(
        "4889fe 488b3d563c2500 ff25703c2500",
        Call.FREE,
        Tail(ADDRESS + 16 + 0x253C70, (), 1),
        id="3.8: through a table at a fixed place",
    ),
    pytest.param(
        "488b0579063800 4889fe 488bb810030000 ffa030030000",
        Call.FREE,
        Tail(ADDRESS + 7 + 0x380679, (0x330,), 1),
        id="3.13: through a pointer to the runtime",
    ),
    pytest.param("488b0500000000 ffe0", Call.FREE, None, id="arguments not moved up"),
    pytest.param("4889fe 4801f8 ffe0", Call.FREE, None, id="an address that was computed"),
    pytest.param("4889fe e900000000", Call.FREE, None, id="a plain jump is placed, not followed"),
]


@pytest.mark.parametrize(("code", "call", "tail"), TAILS)
def test_forwarders_say_where_they_jump(code, call, tail):
    placement = chosen(code, call)
    assert placement.tail == tail


ARM = [
    pytest.param("1f2003d5", Call.MALLOC, 0, True, id="nop"),
    pytest.param("600000b4 fd7bbea9", Call.FREE, 0, True, id="cbz"),
    pytest.param("fd7bbea9 10000014", Call.MALLOC, 0, False, id="stp moves the stack"),
    pytest.param("e20300aa 10000014", Call.MALLOC, 4, True, id="b behind a mov to x2"),
    pytest.param("e00301aa 10000014", Call.MALLOC, 0, False, id="x0 overwritten"),
]


@pytest.mark.parametrize(("code", "call", "offset", "is_emulated"), ARM)
def test_the_place_on_arm64_is(code, call, offset, is_emulated):
    placement = chosen(code, call, machine="aarch64")
    assert (placement.offset, placement.is_emulated) == (offset, is_emulated)


def test_the_table_shows_place_cost_and_reason():
    point = AttachPoint("free", "/lib/x", 0x98EF0, 0, Call.FREE, Domain.NATIVE, Layer.LIBC)
    placed = point._replace(placement=chosen("4885ff 0f84bf000000 55", Call.FREE))
    dear = point._replace(symbol="mul", placement=chosen("48f7e6", Call.MALLOC))
    assert render([placed, dear, point._replace(symbol="later")]).splitlines() == [
        "FUNCTION  AT    FILE OFFSET  COST   INSTRUCTION  WHY",
        "free      +0x9  0x98ef9      cheap  push rbp     first emulated instruction with a block",
        "mul       +0x0  0x98ef0      dear   mul rsi      no emulated instruction before the"
        " function's end: single-stepped",
        "later     ?     0x98ef0      ?                   not decoded",
    ]
