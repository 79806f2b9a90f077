"""The values of probing: which function, how it is called, where in it the probe sits.

Law of this file: it imports nothing of ours and does nothing. The names of ``Call`` and ``Domain``
are those of ``enum mw_call`` and ``enum mw_domain`` in ``bpf/``, without their prefix.
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Call(enum.Enum):
    """How a function is called: (arguments that the programs read, is its return read too)."""

    MALLOC = ("size", 1, True)
    CALLOC = ("count, size", 2, True)
    REALLOC = ("block, size", 2, True)
    REALLOCARRAY = ("block, count, size", 3, True)
    ALIGNED = ("alignment, size", 2, True)
    POSIX_MEMALIGN = ("where, alignment, size", 3, True)
    FREE = ("block", 1, False)
    GC = ("", 0, False)  # a place to stop at; nothing is read

    def __init__(self, arguments: str, argument_count: int, needs_return: bool) -> None:
        self.arguments = arguments
        self.argument_count = argument_count
        self.needs_return = needs_return


class Domain(enum.Enum):
    """Who asked for the memory."""

    NATIVE = "native"
    PY_RAW = "python raw"
    PY_MEM = "python mem"
    PY_OBJECT = "python object"


class Layer(enum.IntEnum):
    """Nested calls go from a higher layer to a lower one; only the outermost is charged."""

    LIBC = 0  # malloc, free
    LIBC_OVER = 1  # calloc, realloc, memalign: glibc's realloc(p, 0) calls free
    LIBC_WRAPPER = 2  # reallocarray, aligned_alloc and friends
    OPERATOR_NEW = 3
    OPERATOR_NEW_ARRAY = 4
    PY_RAW = 5
    PY_INNER = 6  # what PyMem_* and PyObject_* forward to
    PY_MEM = 7
    PY_OBJECT = 8


class Placement(NamedTuple):
    """Where in a function a probe sits."""

    offset: int  # from the function's first byte
    instruction: str  # as a disassembler writes it
    is_emulated: bool  # the kernel does not single-step it: about 13 times cheaper
    why: str  # this place and no other, in one clause
    pushed_words: int = 0  # between the return address and the stack pointer
    tail: Tail | None = None  # where the function jumps to, if it is a mere forwarder


class Tail(NamedTuple):
    """A forwarder's way to the function it jumps to: memory words read one after the other.

    Start with the word at ``address`` (not relocated), add the next offset, read again; the last
    word read is the function. CPython's ``PyObject_Free`` is such a forwarder.
    """

    address: int
    offsets: tuple[int, ...]  # added to each word before the next read
    argument_shift: int  # registers that the arguments have moved up by then


class AttachPoint(NamedTuple):
    """One function of one file that is to be probed; ``placement`` None: not looked at yet."""

    symbol: str
    path: str  # to open, valid on this side: through /proc/PID/map_files or /proc/PID/root
    function_offset: int  # in the file
    size_bytes: int  # of the function; 0: not known
    call: Call
    domain: Domain
    layer: Layer
    argument_shift: int = 0  # 1: the arguments begin in the second register
    semaphore_offset: int = 0  # what the kernel calls ref_ctr_offset; 0: none
    is_covered: bool = False  # each of its blocks passes another point, too: names the domain only
    placement: Placement | None = None

    @property
    def file_offset(self) -> int:
        """Where the breakpoint goes."""
        return self.function_offset + (self.placement.offset if self.placement else 0)

    @property
    def pushed_words(self) -> int:
        return self.placement.pushed_words if self.placement else 0
