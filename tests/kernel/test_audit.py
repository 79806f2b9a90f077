"""The audit against programs that know which of their blocks live."""

from __future__ import annotations

import errno
import os
import sys

import pytest
from interpreters import interpreters, label, script
from target import Target

from mwtrace.capi import ffi, lib

pytestmark = pytest.mark.kernel
POOL_BLOCKS = script("pool_blocks")


class Audited:
    """The blocks a target told of, with its own word on each."""

    def __init__(self, target, domain):
        self.truth, self.pid = {}, target.pid
        while (line := target.line()) != "ready":
            address, size_bytes, alive = line.split()
            self.truth[int(address, 16)] = (int(size_bytes), alive == "1")
        self.blocks = ffi.new("struct mw_block[]", len(self.truth))
        for block, (address, (size_bytes, _)) in zip(self.blocks, self.truth.items()):
            block.address, block.size_bytes, block.domain = address, size_bytes, domain

    def run(self, native=None, python=None):
        """Audit; return the report and the addresses it is wrong about, dead and alive ones."""
        target = ffi.new(
            "struct mw_audit_target *",
            {
                "pid": self.pid,
                "native_layout": lib.MW_LAYOUT_GLIBC if native is None else native,
                "python_layout": lib.MW_LAYOUT_PYMALLOC if python is None else python,
            },
        )
        report = ffi.new("struct mw_audit_report *")
        assert lib.mw_audit_run(target, self.blocks, len(self.blocks), report) == 0
        answers = {block.address: block.state for block in self.blocks}
        seen_alive = {a for a, state in answers.items() if state == lib.MW_SETTLED_ALIVE}
        seen_freed = {a for a, state in answers.items() if state == lib.MW_SETTLED_FREED}
        for address in seen_freed & {a for a, (_, lives) in self.truth.items() if lives}:
            print("alive, but said to be freed:", hex(address), self.truth[address])
        alive = {address for address, (_, lives) in self.truth.items() if lives}
        return report, seen_alive - alive, seen_freed & alive


@pytest.fixture
def glibc_blocks(start_target, compile_target):
    target = Target([str(compile_target("blocks"))])
    yield Audited(target, lib.MW_DOMAIN_NATIVE)
    target.stop()


def test_glibc_blocks_are_told_apart_without_a_symbol(glibc_blocks):
    report, wrongly_alive, wrongly_freed = glibc_blocks.run()
    assert not wrongly_freed
    assert not wrongly_alive
    # In a fast bin with a second word that the target never wrote: nobody can tell.
    unknown = [b.size_bytes for b in glibc_blocks.blocks if b.state == lib.MW_SETTLED_UNKNOWN]
    assert len(unknown) == report.unknown < 0.02 * len(glibc_blocks.truth)
    assert all(size_bytes < 16 for size_bytes in unknown)
    # The target was built to leave freed blocks in every kind of bin.
    assert min(report.chunks_linked, report.chunks_binned, report.chunks_melted) > 0
    assert report.unmapped > 0
    assert report.alive + report.freed + report.unknown == len(glibc_blocks.truth)


def test_a_second_look_agrees_with_the_first(glibc_blocks):
    first, _, _ = glibc_blocks.run()
    alive = first.alive
    second, wrongly_alive, wrongly_freed = glibc_blocks.run()
    assert (second.alive, wrongly_alive, wrongly_freed) == (alive, set(), set())
    assert second.contents_changed == 0


def test_another_block_at_an_old_address_is_told_by_its_contents(glibc_blocks):
    glibc_blocks.run()
    survivors = [b for b in glibc_blocks.blocks if b.state == lib.MW_SETTLED_ALIVE]
    changed = [b for b in survivors if b.size_bytes >= 32]
    for block in changed:
        for word in range(8):
            block.fingerprint[word] ^= 0x5554  # as if something else had been there
    report, _, wrongly_freed = glibc_blocks.run()
    assert report.contents_changed == len(changed) == len(wrongly_freed)


def test_an_unreadable_allocator_is_judged_by_contents_at_the_second_look(glibc_blocks):
    first, wrongly_alive, _ = glibc_blocks.run(native=lib.MW_LAYOUT_OPAQUE)
    assert not wrongly_alive
    assert first.alive == 0
    second, _, wrongly_freed = glibc_blocks.run(native=lib.MW_LAYOUT_OPAQUE)
    assert second.contents_same > len(glibc_blocks.truth) / 3
    assert not wrongly_freed


@pytest.mark.parametrize("python", interpreters(oldest_minor=6), ids=label)
def test_pymalloc_blocks_are_told_exactly(python):
    target = Target([python, POOL_BLOCKS])
    try:
        audited = Audited(target, lib.MW_DOMAIN_PY_OBJECT)
        report, wrongly_alive, wrongly_freed = audited.run()
        assert not wrongly_freed
        # The interpreter's own objects moved in while it freed and waited.
        assert len(wrongly_alive) <= 20
        assert report.pools_exact > 0.6 * len(audited.truth)
        assert report.pools_torn == 0
    finally:
        target.stop()


@pytest.mark.parametrize("setting", ["malloc", "debug", "pymalloc_debug"])
def test_other_settings_of_pythonmalloc_are_understood(setting, monkeypatch):
    monkeypatch.setenv("PYTHONMALLOC", setting)
    target = Target([sys.executable, POOL_BLOCKS])
    try:
        audited = Audited(target, lib.MW_DOMAIN_PY_OBJECT)
        _, wrongly_alive, wrongly_freed = audited.run()
        assert len(wrongly_alive) <= 20
        assert not wrongly_freed
    finally:
        target.stop()


def test_a_process_that_is_gone_is_an_error():
    pid = os.spawnlp(os.P_NOWAIT, "true", "true")
    os.waitpid(pid, 0)
    target = ffi.new("struct mw_audit_target *", (pid, lib.MW_LAYOUT_GLIBC, lib.MW_LAYOUT_GLIBC))
    block = ffi.new("struct mw_block *", {"address": 4096, "size_bytes": 8, "domain": 1})
    report = ffi.new("struct mw_audit_report *")
    assert lib.mw_audit_run(target, block, 1, report) == -errno.ESRCH


def test_addresses_that_lead_nowhere_are_freed_and_harm_nothing():
    addresses = [1, 8, 4095, 4096, 2**47, 2**63, 2**64 - 1, 2**64 - 16]
    blocks = ffi.new("struct mw_block[]", 2 * len(addresses))
    for block, address in zip(blocks, addresses * 2):
        block.address, block.size_bytes, block.domain = address, 100, lib.MW_DOMAIN_NATIVE
    for block in blocks[0 : len(addresses)]:
        block.domain = lib.MW_DOMAIN_PY_OBJECT
    given = (os.getpid(), lib.MW_LAYOUT_GLIBC, lib.MW_LAYOUT_PYMALLOC)
    report = ffi.new("struct mw_audit_report *")
    target = ffi.new("struct mw_audit_target *", given)
    assert lib.mw_audit_run(target, blocks, len(blocks), report) == 0
    assert report.freed == len(blocks)
