"""cext/records.c over pipes: whatever a read returns, records come out whole and in order."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from mwtrace.capi import ffi, lib

RECORD_BYTES = ffi.sizeof("struct mw_process_record")
DEADLINE_S = 20


class Pipe(NamedTuple):
    read_fd: int
    write_fd: int


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    opened = Pipe(*os.pipe())
    yield opened
    for fd in opened:
        with contextlib.suppress(OSError):  # the test closed it
            os.close(fd)


def record(pid: int) -> bytes:
    return bytes(ffi.buffer(ffi.new("struct mw_process_record *", {"pid": pid})))


def read_pids(fd: int) -> tuple[list[int], int]:
    """Return the pids of all records until the end, and what the reader said then."""
    reader = ffi.gc(lib.mw_reader_create(), lib.mw_reader_destroy)
    ret = ffi.new("const struct mw_process_record **")
    pids: list[int] = []
    lib.mw_reader_begin(reader, fd)
    while True:
        count = lib.mw_reader_next(reader, ret)
        if count <= 0:
            return pids, count
        pids += [ret[0][i].pid for i in range(count)]


def feed(fd: int, text: bytes, cuts: list[int]) -> threading.Thread:
    def write() -> None:
        ends = [*cuts, len(text)]
        for start, end in zip([0, *cuts], ends):
            os.write(fd, text[start:end])
        os.close(fd)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


@pytest.mark.parametrize("seed", range(5))
def test_records_cut_anywhere_come_out_whole_and_in_order(seed: int, pipe: Pipe) -> None:
    chance = random.Random(seed)
    pids = list(range(1, 5000))
    text = b"".join(map(record, pids))
    cuts = sorted(chance.sample(range(1, len(text)), 300))
    writer = feed(pipe.write_fd, text, cuts)
    assert read_pids(pipe.read_fd) == (pids, 0)
    writer.join(DEADLINE_S)


def test_an_end_without_records_is_an_end(pipe: Pipe) -> None:
    os.close(pipe.write_fd)
    assert read_pids(pipe.read_fd) == ([], 0)


@pytest.mark.parametrize("rest_bytes", [1, RECORD_BYTES - 1])
def test_an_end_inside_a_record_is_told(rest_bytes: int, pipe: Pipe) -> None:
    os.write(pipe.write_fd, record(7) + record(8)[:rest_bytes])
    os.close(pipe.write_fd)
    assert read_pids(pipe.read_fd) == ([7], -errno.EPROTO)


def test_a_read_error_is_told() -> None:
    assert read_pids(-1) == ([], -errno.EBADF)


def test_a_descriptor_that_never_has_more_is_given_up(pipe: Pipe) -> None:
    os.set_blocking(pipe.read_fd, False)
    os.write(pipe.write_fd, record(7))
    assert read_pids(pipe.read_fd) == ([7], -errno.EAGAIN)


def wait_until_blocked_in_read(thread_id: int, fd: int) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        # The call's number and its arguments, in hexadecimal; "running" if it is in none.
        words = Path(f"/proc/self/task/{thread_id}/syscall").read_text().split()
        if words[1:] and words[1] == hex(fd):
            return
    raise TimeoutError(f"thread {thread_id} did not read from {fd}")


def test_an_interrupted_read_is_repeated(pipe: Pipe) -> None:
    """The signal comes when the read blocks, the record only after the signal."""
    woken = Pipe(*os.pipe())
    os.set_blocking(woken.write_fd, False)
    before_handler = signal.signal(signal.SIGUSR1, lambda *_: None)
    before_fd = signal.set_wakeup_fd(woken.write_fd)
    reader, reader_id = threading.main_thread(), threading.get_native_id()

    def interrupt_and_write() -> None:
        wait_until_blocked_in_read(reader_id, pipe.read_fd)
        assert reader.ident is not None
        signal.pthread_kill(reader.ident, signal.SIGUSR1)
        os.read(woken.read_fd, 1)
        os.write(pipe.write_fd, record(7))
        os.close(pipe.write_fd)

    writer = threading.Thread(target=interrupt_and_write)
    writer.start()
    try:
        assert read_pids(pipe.read_fd) == ([7], 0)
    finally:
        writer.join(DEADLINE_S)
        signal.set_wakeup_fd(before_fd)
        signal.signal(signal.SIGUSR1, before_handler)
        for fd in woken:
            os.close(fd)
