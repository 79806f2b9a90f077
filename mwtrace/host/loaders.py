"""Programs started through a dynamic loader: ``ld-linux-x86-64.so.2 [options] program words``.

Bundles with a C library of their own (Nix, snaps, musl on glibc hosts) begin so. The kernel then
takes the loader for the program; what runs is a later word. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_LOADER = re.compile(r"ld(?:-linux[\w-]*|-musl-\w+|64|-2\.\d+)?\.so(?:\.\d+)?")
# Of glibc's and musl's loaders: options whose value is the next word.
_VALUED = (
    *("--library-path", "--inhibit-rpath", "--audit", "--preload", "--argv0"),
    *("--glibc-hwcaps-prepend", "--glibc-hwcaps-mask"),
)


def is_loader(path: str) -> bool:
    return _LOADER.fullmatch(path.rpartition("/")[2]) is not None


def loaded(words: Sequence[str]) -> tuple[str, ...]:
    """Return the program that a loader was told to run, with its words; () if none."""
    if not words or not is_loader(words[0]):
        return ()
    index = 1
    while index < len(words) and words[index].startswith("-"):
        if words[index] == "--":
            index += 1
            break
        index += 2 if words[index] in _VALUED else 1
    return tuple(words[index:])
