"""Which CPython runs in a process, without a symbol: by the shape of its type objects.

``PyType_Type`` is its own type and is named "type"; its basic size is that of ``PyHeapTypeObject``,
which differs in every minor version but 3.8 and 3.9. A build whose objects are laid out otherwise
(free-threaded, with reference tracing) does not pass for a known one.

``cpython.runtime`` finds more (threads, the GIL) and asks for symbols; this asks for none, and for
no page that is not present, so that a census leaves the target's page tables as they were. A test
holds the two against each other.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, NamedTuple

from mwtrace.capi import ffi, lib
from mwtrace.evidence.image import Image

if TYPE_CHECKING:
    from mwtrace._cext import CData

# sizeof(PyHeapTypeObject), from the headers of each version.
_MINOR_BY_HEAP_TYPE_BYTES = {
    864: 7,  # and 6
    880: 8,  # and 9
    888: 10,
    904: 11,
    920: 12,
    928: 13,
    936: 14,
    944: 15,
}
_TP_NAME = 24
_TP_BASICSIZE = 32
_NAMES = re.compile(r"python|uwsgi|/[^/]*$")
_MARKS = re.compile(r"/(?:lib)?python(\d)?[^/]*$|/uwsgi[^/]*$")
_DATA_BYTES_MAX = 16 << 20


class Interpreter(NamedTuple):
    type_type: int
    minor: int
    c: CData  # struct mw_interpreter

    @property
    def name(self) -> str:
        return "CPython 3.6 or 3.7" if self.minor == 7 else f"CPython 3.{self.minor}"


def find_interpreter(image: Image) -> Interpreter | None:
    """Find the interpreter; None if there is none that we can read."""
    seen: set[tuple[int, int]] = set()
    found = ffi.new("uint64_t *")
    # Files that look like an interpreter first; then any, since programs embed it.
    for names in (_MARKS, _NAMES):
        for start, end in image.writable_data(names):
            if (start, end) in seen:
                continue
            seen.add((start, end))
            if lib.mw_python_find(image.regions, start, end, found):
                continue
            minor = _minor(image, int(found[0]), (start, end))
            if minor is not None:
                c = ffi.new("struct mw_interpreter *")
                c.type_type, c.minor = found[0], minor
                return Interpreter(int(found[0]), minor, c)
    return None


def looks_like_python(image: Image) -> bool:
    """Whether an interpreter is mapped, readable by us or not."""
    return any(_MARKS.search(mapping.name) for mapping in image.mappings)


def _minor(image: Image, type_type: int, data: tuple[int, int]) -> int | None:
    minor = _MINOR_BY_HEAP_TYPE_BYTES.get(image.word(type_type + _TP_BASICSIZE))
    if minor == 8 and _has_static_type(image, type_type, data, b"types.GenericAlias\0"):
        return 9  # which brought it
    return minor


def _has_static_type(image: Image, type_type: int, data: tuple[int, int], name: bytes) -> bool:
    """Whether the interpreter's data holds a type of that name."""
    raw = image.read(data[0], min(data[1] - data[0], _DATA_BYTES_MAX))
    wanted = struct.pack("<Q", type_type)
    at = raw.find(wanted)
    while at >= 0:
        if at % 8 == 0 and at + 24 <= len(raw):
            (tp_name,) = struct.unpack_from("<Q", raw, at + _TP_NAME - 8)
            if image.read(tp_name, len(name)) == name:
                return True
        at = raw.find(wanted, at + 1)
    return False
