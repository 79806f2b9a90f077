"""The headers of events keep to what three compilers agree on: see the head of bpf/events.h."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from mwtrace.capi import ffi, lib

ROOT = Path(__file__).parents[2]
HEADERS = [ROOT / "bpf" / "events.h", ROOT / "bpf" / "trace_events.h"]
# Guards and switches have no value.
VALUELESS = {"MW_EVENTS_H", "MW_TRACE_EVENTS_H"}


def preprocessed() -> str:
    command = ["cc", "-E", "-P", "-DMW_CDEF", "-xc", str(HEADERS[-1])]  # it includes the first
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def struct_names() -> list[str]:
    return re.findall(r"struct (\w+) \{", preprocessed())


def test_no_value_is_a_define():
    text = "".join(header.read_text() for header in HEADERS)
    defined = set(re.findall(r"^\s*#\s*define\s+(\w+)", text, re.MULTILINE))
    assert defined <= VALUELESS


def test_no_type_depends_on_the_machine():
    words = set(re.findall(r"\w+", preprocessed()))
    assert not words & {"long", "short", "int", "unsigned", "signed", "size_t", "bool", "double"}


def test_no_pointer_and_no_bit_field():
    text = preprocessed()
    assert "*" not in text
    assert ":" not in text


@pytest.mark.parametrize("name", struct_names())
def test_a_struct_has_no_padding_and_its_widest_fields_first(name):
    struct = ffi.typeof(f"struct {name}")
    position = 0
    widths = []
    for _, field in struct.fields:
        assert field.offset == position
        position += ffi.sizeof(field.type)
        element = field.type.item if field.type.kind == "array" else field.type
        widths.append(ffi.sizeof(element))
    assert position == ffi.sizeof(struct)
    # Ring records begin with their tag, and what is cut off comes last.
    if struct.fields[0][0] != "record":
        assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("name", struct_names())
def test_the_header_asserts_the_size_of_each_struct(name):
    size = ffi.sizeof(f"struct {name}")
    assert re.search(
        rf"_Static_assert\(sizeof\(struct {name}\) == {size},",
        "".join(header.read_text() for header in HEADERS),
    ), f"struct {name} has {size} bytes"


def test_the_names_that_arrays_are_sized_by_agree():
    record = ffi.typeof("struct mw_process_record")
    comm = dict(record.fields)["comm"].type
    assert comm.length == lib.MW_COMM_BYTES
