"""Objects that are none: refused with a reason, and never a word on the terminal."""

from __future__ import annotations

import errno
import platform

import pytest

from mwtrace.capi import ffi, lib
from mwtrace.errors import EngineError
from mwtrace.probes.engine_libbpf import LibbpfEngine, LibbpfObject, object_bytes


def load(text: bytes, log_bytes: int) -> tuple[int, bytes]:
    log = ffi.new("char[]", b"#" * (log_bytes + 8))
    ret = ffi.new("struct mw_bpf_object **")
    rc = lib.mw_bpf_object_load(text, len(text), b"junk", ffi.NULL, 0, log, log_bytes, ret)
    assert ret[0] == ffi.NULL
    # Nothing is written behind what we offered.
    assert ffi.buffer(log)[log_bytes : log_bytes + 8] == b"#" * 8
    return rc, ffi.string(log, log_bytes) if log_bytes else b""


@pytest.mark.parametrize(
    "text", [b"not an ELF file", b"\x7fELF" + bytes(60), b"\x7fELF" + b"\xff" * 4096]
)
def test_junk_is_refused_and_libbpf_s_words_are_caught(text, capfd):
    rc, log = load(text, 4096)
    assert rc < 0
    assert log.startswith(b"libbpf: ")
    assert log.endswith(b"\n")
    assert capfd.readouterr() == ("", "")


def test_an_empty_object_is_refused():
    assert load(b"", 4096) == (-errno.EINVAL, b"")


def test_a_small_log_holds_the_last_words():
    _, whole = load(b"not an ELF file", 4096)
    for log_bytes in [1, 2, 7, len(whole), len(whole) + 1]:
        _, log = load(b"not an ELF file", log_bytes)
        kept = whole[-(log_bytes - 1) :] if log_bytes > 1 else b""
        assert log == kept


def test_no_log_at_all_is_allowed(capfd):
    assert load(b"not an ELF file", 0)[0] < 0
    assert capfd.readouterr() == ("", "")


def test_an_object_cut_short_anywhere_is_refused():
    text = object_bytes("watch")
    for size in range(0, len(text) - 1, 997):
        assert load(text[:size], 4096)[0] < 0


def test_the_error_says_why_and_what_to_do():
    with pytest.raises(EngineError) as raised:
        LibbpfObject("junk", b"not an ELF file")
    assert "cannot load junk" in str(raised.value)
    assert "libbpf" in str(raised.value)
    assert raised.value.remedy


def test_a_unit_that_is_not_installed_is_named():
    with pytest.raises(EngineError) as raised:
        LibbpfEngine().load("no_such_unit")
    assert "no_such_unit" in str(raised.value)
    assert raised.value.remedy


def test_a_machine_without_objects_is_named(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(EngineError) as raised:
        LibbpfEngine().load("watch")
    assert "riscv64" in str(raised.value)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_architecture_has_its_object(machine, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert object_bytes("watch").startswith(b"\x7fELF")


def test_a_descriptor_that_is_no_map_is_an_error_and_no_crash():
    assert lib.mw_bpf_map_write(-1, ffi.new("uint32_t *"), ffi.new("uint64_t *")) < 0
    assert lib.mw_bpf_map_read(-1, ffi.new("uint32_t *"), ffi.new("uint64_t *")) < 0
    assert lib.mw_bpf_map_sum_cpus(-1, 0, ffi.new("uint64_t *")) < 0
    assert lib.mw_ring_create(-1, ffi.NULL, ffi.new("struct mw_ring **")) < 0
    assert lib.mw_link_iterator(-1) in (-errno.EBADF, -errno.EPERM)
    assert lib.mw_link_iterator_open(-1) in (-errno.EBADF, -errno.EPERM)
    assert lib.mw_link_raw_tracepoint(-1, b"mark_victim") in (-errno.EBADF, -errno.EPERM)


def test_destroying_nothing_is_allowed():
    lib.mw_bpf_object_destroy(ffi.NULL)
    lib.mw_ring_destroy(ffi.NULL)
