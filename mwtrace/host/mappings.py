"""Which files a process has mapped, and where: ``/proc/PID/maps``, within bounds.

It must not know what the files are. Paths are the process's to choose (it may have renamed,
deleted or replaced the file): open a mapping's file through ``open_path``, never by its name.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mwtrace.errors import ProcessError, ProcessGone

LINES_MAX = 70_000  # the kernel's own default bound is 65,530 mappings
LINE_BYTES_MAX = 8192  # a path is at most 4096 bytes, 4 of them for an escaped one


class Mapping(NamedTuple):
    start: int
    end: int
    file_offset: int
    is_readable: bool
    is_executable: bool
    is_writable: bool
    device: str
    inode: int  # 0: no file
    path: str  # as the process sees it; for showing

    def open_path(self, pid: int) -> str:
        """What to open on our side: the file itself, whatever its name means by now."""
        return f"/proc/{pid}/map_files/{self.start:x}-{self.end:x}"


def read_mappings(pid: int) -> list[Mapping]:
    """Read all mappings that have a file."""
    try:
        with open(f"/proc/{pid}/maps", "rb") as lines:
            return parse_mappings(lines)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessGone(f"process {pid} is gone") from error
    except OSError as error:
        raise ProcessError(f"cannot read the mappings of process {pid}: {error}") from error


def parse_mappings(lines: Iterable[bytes]) -> list[Mapping]:
    found = []
    for number, line in enumerate(lines):
        if number >= LINES_MAX:
            break
        words = line[:LINE_BYTES_MAX].split(None, 5)
        if len(words) < 6 or words[4] == b"0":
            continue
        try:
            start, end = (int(word, 16) for word in words[0].split(b"-"))
            offset, inode = int(words[2], 16), int(words[4])
        except ValueError:
            continue
        path = words[5].rstrip(b"\n").decode("utf-8", "replace")
        found.append(
            Mapping(
                start,
                end,
                offset,
                words[1][0:1] == b"r",
                words[1][2:3] == b"x",
                words[1][1:2] == b"w",
                words[3].decode("ascii", "replace"),
                inode,
                path,
            )
        )
    return found
