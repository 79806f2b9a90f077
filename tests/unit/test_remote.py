"""Remote reads, with ourselves as the other process."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os

import pytest

from mwtrace.capi import ffi, lib
from mwtrace.cpython.images import Symbols, images
from mwtrace.errors import ProcessGone
from mwtrace.host.mappings import read_mappings
from mwtrace.remote import RANGES_MAX, RemoteMemory, UnreadableMemory

PAGE = mmap.PAGESIZE


@pytest.fixture
def memory() -> RemoteMemory:
    return RemoteMemory(os.getpid())


@pytest.fixture
def edge():
    """The address of a page of bytes 0..255 behind which nothing can be read."""
    libc = ctypes.CDLL(None, use_errno=True)
    area = mmap.mmap(-1, 2 * PAGE)
    area[:PAGE] = bytes(range(256)) * (PAGE // 256)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    assert libc.mprotect(ctypes.c_void_p(address + PAGE), PAGE, 0) == 0
    yield address
    libc.mprotect(ctypes.c_void_p(address + PAGE), PAGE, mmap.PROT_READ | mmap.PROT_WRITE)


def test_what_is_there_is_read(memory, edge):
    assert memory.read(edge + 3, 5) == bytes([3, 4, 5, 6, 7])
    assert memory.words(edge, 2) == (0x0706050403020100, 0x0F0E0D0C0B0A0908)


def test_a_read_over_the_edge_gives_what_is_before_it(memory, edge):
    assert memory.read_some(edge + PAGE - 4, 100) == bytes([252, 253, 254, 255])
    assert memory.read_some(edge + PAGE, 100) == b""
    with pytest.raises(UnreadableMemory):
        memory.read(edge + PAGE - 4, 100)


def test_ranges_that_cannot_be_read_do_not_hide_the_others(memory, edge):
    bad = edge + PAGE
    ranges = [(edge, 4), (bad, 8), (bad - 2, 8), (edge + 8, 1), (edge, 0), (8, 8), (edge + 9, 2)]
    found = memory.read_ranges(ranges)
    assert found == [b"\0\1\2\3", b"", b"\xfe\xff", b"\x08", b"", b"", b"\x09\x0a"]


def test_more_ranges_than_one_call_takes(memory, edge):
    ranges = [(edge + i % 256, 1) for i in range(2 * RANGES_MAX + 3)]
    assert memory.read_ranges(ranges) == [bytes([i % 256]) for i in range(len(ranges))]


def test_the_c_side_keeps_its_bounds():
    ranges = ffi.new("struct mw_remote_range[]", RANGES_MAX + 1)
    buffer = ffi.new("char[]", 8)
    pid = os.getpid()
    assert lib.mw_remote_read_ranges(pid, ranges, RANGES_MAX + 1, buffer, 8) == -errno.E2BIG
    ranges[0].size_bytes = 9
    assert lib.mw_remote_read_ranges(pid, ranges, 1, buffer, 8) == -errno.ENOSPC
    assert lib.mw_remote_read(pid, 0, buffer, 1 << 63) == -errno.EINVAL


def test_a_process_that_is_gone_is_said_to_be():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(ProcessGone):
        RemoteMemory(child).read(4096, 1)


def test_symbols_are_found_where_the_linker_put_them(memory):
    libc = ctypes.CDLL("libc.so.6")  # not None: a fixed-place program has stand-ins of its own
    wanted = {
        name: ctypes.cast(getattr(libc, name), ctypes.c_void_p).value
        for name in ("malloc", "free", "printf")
    }
    found = {}
    for image in images(read_mappings(os.getpid())):
        if "/libc.so" in image.path or "/libc-" in image.path or "musl" in image.path:
            symbols = Symbols(memory, image)
            found = {name: symbols.address(name) for name in wanted}
            assert symbols.address("no_such_function_anywhere") is None
    assert found == wanted


def test_what_is_no_elf_file_is_refused(memory, tmp_path):
    for data in (b"", b"\x7fELF", b"\x7fELF\x02\x01" + b"\xff" * 8000, bytes(8000)):
        path = tmp_path / "junk"
        path.write_bytes(data.ljust(PAGE, b"\0"))
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert mapped[0] == data[0] if data else True
            image = next(i for i in images(read_mappings(os.getpid())) if i.path == str(path))
            with pytest.raises(UnreadableMemory):
                Symbols(memory, image)
