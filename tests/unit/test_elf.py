"""ELF facts and symbols: right on real files, one error on anything else, whatever it is."""

from __future__ import annotations

import os
import random
import resource
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from mwtrace.host.elf import (
    ElfError,
    SymbolTable,
    find_symbols,
    open_regular,
    read_facts,
)

LIBRARY = """
#include <stdlib.h>
__attribute__((noinline)) void *first(size_t n) { return malloc(n); }
static __attribute__((noinline, used)) int hidden(int n) { return n * 3; }
__attribute__((noinline)) int second(int n) { return hidden(n) + 1; }
"""
# A note as <sys/sdt.h> would leave it, with a semaphore, so that no header package is needed.
MARKED = """
__asm__(".section .probes,\\"aw\\"\\n.globl counter\\ncounter: .zero 2\\n.previous\\n");
extern unsigned short counter;
int marked(int n) {
	__asm__ volatile("990: nop\\n"
		".pushsection .note.stapsdt,\\"\\",@note\\n.balign 4\\n"
		".4byte 992f-991f, 994f-993f, 3\\n991: .asciz \\"stapsdt\\"\\n992: .balign 4\\n"
		"993: .8byte 990b, 0, counter\\n.asciz \\"shop\\"\\n.asciz \\"sold\\"\\n"
		".asciz \\"-4@%%edi\\"\\n"
		"994: .balign 4\\n.popsection\\n" :: "r"(n));
	return n + counter;
}
int main(void) { return marked(0); }
"""


def compiled(folder: Path, source: str, *flags: str) -> Path:
    target = folder / "made"
    command = ["cc", "-O1", "-xc", "-", "-o", str(target), *flags]
    subprocess.run(command, input=source.encode(), check=True)
    return target


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return compiled(tmp_path, LIBRARY, "-shared", "-fPIC", "-Wl,--build-id=0x0123456789abcdef")


def nm(path: Path) -> dict[str, int]:
    lines = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
    words = (line.split() for line in lines.splitlines())
    return {w[2]: int(w[0], 16) for w in words if len(w) == 3 and w[1] in "tT"}


def everything_asked(path: Path) -> None:
    fd = open_regular(str(path))
    try:
        for ask in (read_facts, lambda fd: find_symbols(fd, ("first", "malloc")), SymbolTable):
            try:
                answer = ask(fd)
            except ElfError:
                continue
            if isinstance(answer, SymbolTable):
                for offset in (0, 0x1000, 0x1100, 1 << 40, (1 << 64) - 1):
                    answer.at(offset)
    finally:
        os.close(fd)


def test_symbols_are_those_of_nm_and_lie_where_the_segments_say(library):
    fd = open_regular(str(library))
    facts = read_facts(fd)
    found = find_symbols(fd, ("first", "hidden", "second", "nobody"))
    os.close(fd)
    expected = nm(library)
    assert set(found) == {"first", "hidden", "second"}
    for name, symbol in found.items():
        assert symbol.address == expected[name]
        assert symbol.file_offset == facts.offset_of(symbol.address)
        assert facts.address_of(symbol.file_offset) == symbol.address
        assert symbol.is_local == (name == "hidden")


def test_a_stripped_library_still_has_its_dynamic_symbols(library):
    subprocess.run(["strip", library], check=True)
    fd = open_regular(str(library))
    found = find_symbols(fd, ("first", "hidden", "second"))
    os.close(fd)
    assert set(found) == {"first", "second"}


def test_an_offset_is_named_by_the_function_that_covers_it(library):
    fd = open_regular(str(library))
    found = find_symbols(fd, ("first", "hidden", "second"))
    table = SymbolTable(fd)
    os.close(fd)
    assert table.omitted_total == 0
    for name, symbol in found.items():
        for inside in (0, symbol.size_bytes - 1):
            covering = table.at(symbol.file_offset + inside)
            assert covering is not None
            assert covering.name == name
    assert table.at(0) is None
    last = max(found.values(), key=lambda symbol: symbol.file_offset)
    beyond = table.at(last.file_offset + last.size_bytes)
    assert beyond is None or beyond.name != last.name


def test_facts_of_a_library(library):
    fd = open_regular(str(library))
    facts = read_facts(fd)
    os.close(fd)
    assert facts.build_id == "0123456789abcdef"
    assert facts.bits == 64
    assert facts.needed == ("libc.so.6",)
    assert not facts.is_static
    assert not facts.has_fixed_address


def test_a_static_program_is_known_as_one(tmp_path):
    path = compiled(tmp_path, "int main(void) { return 0; }", "-static", "-no-pie")
    fd = open_regular(str(path))
    facts = read_facts(fd)
    os.close(fd)
    assert facts.is_static
    assert facts.has_fixed_address


def test_a_usdt_probe_is_found_at_its_nop_with_its_semaphore(tmp_path):
    path = compiled(tmp_path, MARKED)
    fd = open_regular(str(path))
    facts = read_facts(fd)
    (probe,) = facts.usdt
    assert (probe.provider, probe.name, probe.arguments) == ("shop", "sold", "-4@%edi")
    assert os.pread(fd, 1, probe.file_offset) == b"\x90"
    # Not the address of the counter, but where the file has it.
    assert probe.semaphore_offset
    assert os.pread(fd, 2, probe.semaphore_offset) == b"\0\0"
    os.close(fd)


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "absent", "socket"])
def test_what_is_no_regular_file_is_not_opened(kind, tmp_path):
    path = tmp_path / kind
    if kind == "fifo":
        os.mkfifo(path)  # opening it for reading would wait for a writer, for ever
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    with pytest.raises(ElfError):
        open_regular(str(path))


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"#!/bin/sh\n", b"\0" * 64, b"\x7fELF" * 99])
def test_what_is_no_elf_file_is_one_error(content, tmp_path):
    path = tmp_path / "strange"
    path.write_bytes(content)
    fd = open_regular(str(path))
    for ask in (read_facts, lambda fd: find_symbols(fd, ("a",)), SymbolTable):
        with pytest.raises(ElfError):
            ask(fd)
    os.close(fd)


def test_truncated_files_are_one_error_at_most(library, tmp_path):
    whole = library.read_bytes()
    cut = tmp_path / "cut"
    for length in range(0, len(whole), 97):
        cut.write_bytes(whole[:length])
        everything_asked(cut)


def test_damaged_files_are_one_error_at_most(library, tmp_path):
    seed = int(os.environ.get("MWTRACE_SEED", "20260823"))
    chance = random.Random(seed)
    whole = library.read_bytes()
    header = struct.unpack_from("<16sHHIQQQIHHHHHH", whole)
    tables = [(0, 64), (header[5], header[9] * header[10]), (header[6], header[11] * header[12])]
    damaged = tmp_path / "damaged"
    for round_number in range(600):
        raw = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            start, size = chance.choice([*tables, (0, len(raw))])
            at = start + chance.randrange(max(1, size))
            value = chance.choice([0, 0xFF, 0x7F, chance.randrange(256)])
            width = chance.choice([1, 2, 4, 8])
            raw[at : at + width] = bytes([value]) * min(width, len(raw) - at)
        damaged.write_bytes(raw)
        try:
            everything_asked(damaged)
        except BaseException:
            print(f"seed {seed}, round {round_number}", file=sys.stderr)
            raise


@pytest.mark.parametrize(
    ("offset", "text"),
    [
        pytest.param(0x3C, struct.pack("<H", 0xFFFF), id="65535 sections"),
        pytest.param(0x3C, struct.pack("<H", 0), id="extended numbering"),
        pytest.param(0x38, struct.pack("<H", 0xFFFF), id="extended segment numbering"),
        pytest.param(0x28, struct.pack("<Q", 1 << 62), id="section table out of the world"),
        pytest.param(0x20, struct.pack("<Q", (1 << 64) - 8), id="segment table wraps"),
    ],
)
def test_counts_and_offsets_beyond_reason_cost_no_memory(offset, text, library, tmp_path):
    raw = bytearray(library.read_bytes())
    raw[offset : offset + len(text)] = text
    path = tmp_path / "hostile"
    path.write_bytes(raw)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    everything_asked(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_a_sparse_file_with_a_huge_symbol_table_is_refused(library, tmp_path):
    raw = bytearray(library.read_bytes())
    section_table, entry, count = struct.unpack_from("<Q", raw, 0x28)[0], 64, raw[0x3C]
    for i in range(count):
        at = section_table + i * entry
        if struct.unpack_from("<I", raw, at + 4)[0] in (2, 11):  # SHT_SYMTAB, SHT_DYNSYM
            struct.pack_into("<Q", raw, at + 32, 1 << 36)
    path = tmp_path / "sparse"
    path.write_bytes(raw)
    os.truncate(path, 1 << 37)
    fd = open_regular(str(path))
    with pytest.raises(ElfError):
        SymbolTable(fd)
    with pytest.raises(ElfError):
        find_symbols(fd, ("first",))
    os.close(fd)
