"""Numbers in compiled code become what the kernel wants in their places."""

from __future__ import annotations

import struct

import pytest

from mwtrace.probes.linking import link

EXIT = 0x95
CALL = 0x85


def constant(kind: int, number: int, register: int = 1) -> list[int]:
    """The two instructions that load a constant of 64 bits."""
    return [0x18 | register << 8 | kind << 12 | number << 32, 0]


def words(code: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(code) // 8}Q", code))


def test_maps_become_descriptors_and_constants_stay():
    # The second half of a constant may look like anything, also like another constant.
    large = [0x18 | 7 << 32, 0x18 | 1 << 12 | 9 << 32]
    body = [*constant(1, 1), CALL, *large, *constant(1, 0, register=2), EXIT]
    program = link("f", {"f": body}, [40, 41], [])
    expected = [*constant(1, 41), CALL, *large, *constant(1, 40, register=2), EXIT]
    assert words(program.code) == expected
    assert program.callbacks == ()


def test_a_callback_comes_once_behind_the_program_and_is_linked_too():
    body = [*constant(4, 0), CALL, *constant(4, 0), CALL, EXIT]
    functions = {"f": body, "back": [*constant(1, 0), EXIT], "other": [EXIT]}
    program = link("f", functions, [50], ["back"])
    code = words(program.code)
    assert program.callbacks == (7,)
    # The kernel counts from the instruction behind the first half.
    assert code[0] >> 32 == 7 - 0 - 1
    assert code[3] >> 32 == 7 - 3 - 1
    assert code[7:] == [0x21BF, *constant(1, 50), EXIT]  # r1 = r2


def test_callbacks_that_call_back_each_other_end():
    functions = {
        "f": [*constant(4, 0), EXIT],
        "a": [*constant(4, 1), EXIT],
        "b": [*constant(4, 0), EXIT],
    }
    program = link("f", functions, [], ["a", "b"])
    assert program.callbacks == (3, 7)
    code = words(program.code)
    # Backwards: what is negative, as 32 bits.
    assert code[8] >> 32 == (3 - 8 - 1) & 0xFFFFFFFF
    assert len(code) == 11


@pytest.mark.parametrize("body", [constant(1, 1), constant(4, 1)])
def test_a_number_without_meaning_is_an_error(body):
    with pytest.raises(LookupError):
        link("f", {"f": [*body, EXIT]}, [3], ["f"])


def test_a_function_that_is_not_there_is_an_error():
    with pytest.raises(LookupError):
        link("f", {}, [], [])
