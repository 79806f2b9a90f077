"""What an ELF file says: what it is, where its functions are, which probes its author left.

The only module that knows pyelftools, and the only one that calls ``cext/symbols.h`` (pyelftools
takes 100 ms for the symbols of one libc). It must not know processes, allocators or probes.

Every file here is hostile input: any user of the host can write it, swap it for a FIFO or a
device, or change it while it is read. So files are opened only once they are known to be regular,
reads have a budget, tables a bound, and whatever goes wrong is one error, ``ElfError``.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any, NamedTuple, cast

from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import NoteSection
from elftools.elf.segments import InterpSegment, NoteSegment

from mwtrace.capi import ffi, lib
from mwtrace.errors import MwtraceError

# Far above what linkers make: a Chromium has 60 sections, 14 segments and 100 needed libraries.
SECTIONS_MAX = 4096
SEGMENTS_MAX = 256
NEEDED_MAX = 1024
DYNAMIC_ENTRIES_MAX = 4096
NOTES_MAX = 4096
TEXT_BYTES_MAX = 4096  # of one name out of the file
# pyelftools reads headers and notes only; symbol tables are read by C.
READ_BYTES_MAX = 16 << 20
READS_MAX = 100_000
SYMBOL_LIMITS = {
    "table_bytes_max": 256 << 20,
    "names_bytes_max": 64 << 20,
    "sections_max": SECTIONS_MAX,
    "symbols_max": 1_000_000,
}
NOT_FOUND = (1 << 64) - 1
MACHINES = {"EM_X86_64": "x86-64", "EM_AARCH64": "aarch64", "EM_386": "x86", "EM_ARM": "arm"}


class ElfError(MwtraceError):
    """The file is no ELF file, a broken or hostile one, or one past our bounds."""

    remedy = "The file is left alone; probes in it are not possible."


class Segment(NamedTuple):
    """A part of the file that is loaded into memory."""

    address: int
    file_offset: int
    file_bytes: int
    memory_bytes: int
    is_executable: bool
    is_writable: bool


class UsdtProbe(NamedTuple):
    """A place that the program's author marked for probing (``.note.stapsdt``)."""

    provider: str
    name: str
    file_offset: int
    semaphore_offset: int  # in the file, what the kernel calls ref_ctr_offset; 0: always armed
    arguments: str


@dataclass(frozen=True)
class ElfFacts:
    machine: str  # "x86-64", "aarch64", or what the file calls itself
    bits: int
    build_id: str  # hexadecimal; "" if it has none
    is_static: bool  # nothing is loaded into it at start
    has_fixed_address: bool  # not relocated: addresses in the file are those in memory
    needed: tuple[str, ...]
    segments: tuple[Segment, ...]
    usdt: tuple[UsdtProbe, ...]

    def offset_of(self, address: int) -> int | None:
        """Where in the file the byte at a (not relocated) address is; None if it is not."""
        for segment in self.segments:
            if 0 <= address - segment.address < segment.file_bytes:
                return address - segment.address + segment.file_offset
        return None

    def address_of(self, file_offset: int) -> int | None:
        for segment in self.segments:
            if 0 <= file_offset - segment.file_offset < segment.file_bytes:
                return file_offset - segment.file_offset + segment.address
        return None


class Symbol(NamedTuple):
    name: str
    file_offset: int
    address: int
    size_bytes: int  # 0: not stated
    is_local: bool = False  # a static function: others may have its name


def open_regular(path: str) -> int:
    """Open a regular file for reading; the caller closes the descriptor.

    Looked at through O_PATH first: merely opening a FIFO waits for its writer, and opening a
    device (a watchdog, a tape) can have effects.
    """
    try:
        looked_at = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(looked_at).st_mode):
                raise ElfError(f"{path}: not a regular file")
            # The same inode again, whatever the path means by now.
            return os.open(
                f"/proc/self/fd/{looked_at}",
                os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY,
            )
        finally:
            os.close(looked_at)
    except (OSError, ValueError) as error:
        raise ElfError(f"cannot open {path}: {error}") from error


def read_facts(fd: int) -> ElfFacts:
    """Read headers and notes of the file behind ``fd``; its offset moves."""
    try:
        return _facts(ELFFile(cast("IO[bytes]", _BudgetedFile(fd))))
    except ElfError:
        raise
    # pyelftools lets whatever its parser stumbles over escape: ELFError, KeyError, UnicodeError,
    # OverflowError, MemoryError, ... All mean the same here.
    except Exception as error:
        raise ElfError(f"unreadable ELF file: {type(error).__name__}: {error}") from error


def find_symbols(fd: int, names: tuple[str, ...]) -> dict[str, Symbol]:
    """Look the functions up in .dynsym and .symtab; what the file has not is not in the result."""
    wanted = [name.encode() for name in names]
    text = b"".join(name + b"\0" for name in wanted)
    found = ffi.new("struct mw_symbol[]", max(1, len(wanted)))
    _check(lib.mw_symbols_find(fd, _limits(), text, len(text), len(wanted), found))
    return {
        name: _symbol(name, found[i])
        for i, name in enumerate(names)
        if found[i].file_offset != NOT_FOUND
    }


class SymbolTable:
    """All functions of one file, for naming places in it."""

    def __init__(self, fd: int) -> None:
        made = ffi.new("struct mw_symbols **")
        _check(lib.mw_symbols_create(fd, _limits(), made))
        self._table = ffi.gc(made[0], lib.mw_symbols_destroy)
        self.in_use_bytes = int(lib.mw_symbols_in_use_bytes(self._table))
        self.omitted_total = int(lib.mw_symbols_omitted(self._table))

    def __len__(self) -> int:
        return int(lib.mw_symbols_count(self._table))

    def at(self, file_offset: int) -> Symbol | None:
        """Name the function that covers ``file_offset``."""
        found, name = ffi.new("struct mw_symbol *"), ffi.new("const char **")
        if lib.mw_symbols_at(self._table, file_offset, found, name) != 0:
            return None
        return _symbol(printable(ffi.string(name[0])), found)


def printable(raw: bytes) -> str:
    """Turn bytes of a file's choosing into text that is safe to show."""
    text = raw[:TEXT_BYTES_MAX].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _symbol(name: str, raw: Any) -> Symbol:
    return Symbol(name, raw.file_offset, raw.address, raw.size_bytes, bool(raw.is_local))


def _limits() -> Any:
    return ffi.new("struct mw_symbols_limits *", SYMBOL_LIMITS)


def _check(rc: int) -> None:
    if rc == -errno.E2BIG:
        raise ElfError("ELF file past our bounds")
    if rc == -errno.EINVAL:
        raise ElfError("not a 64-bit little-endian ELF file, or a broken one")
    if rc < 0:
        raise ElfError(f"cannot read symbols: {os.strerror(-rc)}")


class _BudgetedFile(io.RawIOBase):
    """What pyelftools may read: so many bytes in so many reads, none past the end.

    A hostile header makes it ask for 2^63 bytes, or walk one string table a million times.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._size = os.fstat(fd).st_size
        self._position = 0
        self._bytes_left = READ_BYTES_MAX
        self._reads_left = READS_MAX

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        self._reads_left -= 1
        self._bytes_left -= wanted
        if self._reads_left < 0 or self._bytes_left < 0:
            raise ElfError("ELF file asks for more reading than any real one")
        data = os.pread(self._fd, wanted, self._position) if wanted else b""
        self._position += len(data)
        return data


def _facts(elf: ELFFile) -> ElfFacts:
    header = elf.header
    if header["e_phnum"] > SEGMENTS_MAX or header["e_shnum"] > SECTIONS_MAX:
        raise ElfError("ELF file with more segments or sections than any real one")
    loads: list[Segment] = []
    needed: list[str] = []
    build_id = ""
    is_static = True
    for raw in islice(elf.iter_segments(), SEGMENTS_MAX):
        if raw["p_type"] == "PT_LOAD":
            loads.append(
                Segment(
                    raw["p_vaddr"],
                    raw["p_offset"],
                    raw["p_filesz"],
                    raw["p_memsz"],
                    bool(raw["p_flags"] & 1),
                    bool(raw["p_flags"] & 2),
                )
            )
        elif isinstance(raw, InterpSegment):
            is_static = False
        elif isinstance(raw, DynamicSegment):
            needed = _needed(raw)
        elif isinstance(raw, NoteSegment) and not build_id:
            build_id = _build_id(raw)
    facts = ElfFacts(
        machine=MACHINES.get(header["e_machine"], str(header["e_machine"])),
        bits=elf.elfclass,
        build_id=build_id,
        is_static=is_static and not needed,
        has_fixed_address=header["e_type"] == "ET_EXEC",
        needed=tuple(needed),
        segments=tuple(loads),
        usdt=(),
    )
    return ElfFacts(**{**facts.__dict__, "usdt": _usdt(elf, facts)})


def _needed(dynamic: DynamicSegment) -> list[str]:
    names: list[str] = []
    for tag in islice(dynamic.iter_tags(), DYNAMIC_ENTRIES_MAX):
        if tag.entry.d_tag == "DT_NEEDED" and len(names) < NEEDED_MAX:
            name: Any = getattr(tag, "needed")  # noqa: B009 - made by pyelftools at run time
            names.append(printable(str(name).encode("utf-8", "replace")))
    return names


def _build_id(notes: NoteSegment) -> str:
    for note in islice(notes.iter_notes(), NOTES_MAX):
        if note["n_name"] == "GNU" and note["n_type"] == "NT_GNU_BUILD_ID":
            return bytes(note["n_descdata"][:64]).hex()
    return ""


def _usdt(elf: ELFFile, facts: ElfFacts) -> tuple[UsdtProbe, ...]:
    if facts.bits != 64 or elf.header["e_shnum"] == 0:
        return ()
    notes = elf.get_section_by_name(".note.stapsdt")
    if not isinstance(notes, NoteSection):
        return ()
    # Prelink moves sections: the note says where this one was when its addresses were true.
    base = elf.get_section_by_name(".stapsdt.base")
    probes = []
    for note in islice(notes.iter_notes(), NOTES_MAX):
        # pyelftools reads every note's type as one of GNU's: only the name is to be relied on.
        if note["n_name"] != "stapsdt" or len(note["n_descdata"]) < 27:
            continue
        location, base_then, semaphore = struct.unpack_from("<QQQ", note["n_descdata"])
        moved = base["sh_addr"] - base_then if base is not None and base_then else 0
        words = bytes(note["n_descdata"][24:]).split(b"\0")
        offset = facts.offset_of(location + moved)
        if offset is None or len(words) < 3:
            continue
        semaphore_offset = facts.offset_of(semaphore + moved) if semaphore else 0
        if semaphore_offset is None:
            continue
        probes.append(
            UsdtProbe(
                printable(words[0]),
                printable(words[1]),
                offset,
                semaphore_offset,
                printable(words[2]),
            )
        )
    return tuple(probes)
