"""Feeds ELF files to the reader of facts: build id, segments, libraries, marked probes."""

from __future__ import annotations

import os
import sys

import atheris

with atheris.instrument_imports(include=["mwtrace", "elftools"]):
    from mwtrace.errors import MwtraceError
    from mwtrace.host import elf


def one_input(data: bytes) -> None:
    fd = os.memfd_create("elf")
    try:
        os.write(fd, data)
        check(fd)
    except MwtraceError:
        pass  # refused in words of its own
    finally:
        os.close(fd)


def check(fd: int) -> None:
    facts = elf.read_facts(fd)
    assert len(facts.segments) <= elf.SEGMENTS_MAX
    assert len(facts.needed) <= elf.NEEDED_MAX
    for word in (facts.machine, facts.build_id, *facts.needed):
        assert word.isprintable(), word
    for segment in facts.segments:
        facts.address_of(segment.file_offset)
        facts.offset_of(segment.address)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
