"""What a trace found, as a profile that every output format reads.

Law of this file: values, and the one rule by which a native and a Python stack become one. It
resolves no address and formats nothing. Stacks of a profile are root first.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass


class FrameKind(enum.Enum):
    PYTHON = "python"
    NATIVE = "native"


@dataclass(frozen=True)
class Frame:
    """One line of a stack; name and file are foreign text and may be hostile."""

    name: str  # function; "" if not known
    kind: FrameKind
    file: str = ""  # source; of a native frame usually not known
    line: int = 0  # 0: not known
    module: str = ""  # native: path of the binary
    build_id: str = ""  # native: of the binary, hexadecimal
    address: int = 0  # native: in the process
    offset: int = 0  # native: the same place in the binary's file; 0: not known

    @property
    def title(self) -> str:
        """The name, or what stands for it when there is none."""
        if self.name:
            return self.name
        module = self.module.rsplit("/", 1)[-1]
        if not module:
            return f"{self.address:#x}"
        return f"{module}+{self.offset or self.address:#x}"


class KnownBy(enum.Enum):
    """How it is known that a site holds memory, weakest first."""

    GROWTH = "sampled growth"  # pages that became resident while it ran
    LIVE = "live blocks"  # allocations and frees, both seen
    AUDIT = "audited survivors"  # found alive by reading the target's memory


@dataclass(frozen=True)
class SiteProfile:
    """An allocation site; numbers are scaled up to what the program did."""

    frames: tuple[Frame, ...]  # root first; empty: no stack could be had
    domain: str
    known_by: KnownBy
    alloc_objects: int = 0
    alloc_bytes: int = 0
    inuse_objects: int = 0
    inuse_bytes: int = 0
    slope_bytes_per_second: float | None = None
    slope_low_bytes_per_second: float | None = None  # 95% interval
    slope_high_bytes_per_second: float | None = None
    # The same rate with what the allocator adds to each block: a 24-byte float takes 32 bytes.
    held_bytes_per_second: float | None = None
    age_s: float = 0.0  # since its first event
    is_truncated: bool = False  # the stack's root is missing


@dataclass(frozen=True)
class ModuleMapping:
    """A binary in the process' address space."""

    start_address: int
    end_address: int
    file_offset: int
    path: str
    build_id: str = ""


@dataclass(frozen=True)
class Profile:
    title: str  # process or service; foreign text
    pid: int
    time_ns: int  # wall clock, when it ended
    duration_s: float
    interval_bytes: int  # mean distance of samples; 0: every block was seen
    sites: tuple[SiteProfile, ...]  # worst first
    mappings: tuple[ModuleMapping, ...] = ()
    growth_bytes_per_second: float | None = None  # of the whole process, as watched from outside

    def explained_share(self, site: SiteProfile) -> float | None:
        """How much of the growth that was observed this site explains; 1.0 is all of it."""
        growth, slope = self.growth_bytes_per_second, site.slope_bytes_per_second
        if site.held_bytes_per_second is not None:
            slope = site.held_bytes_per_second
        if growth is None or slope is None or growth <= 0:
            return None
        return slope / growth


# The loop that runs Python code, in its several lives; prefixes of symbol names.
_EVAL_LOOP = ("_PyEval_EvalFrame", "PyEval_EvalFrame", "_TAIL_CALL_")
# What stands between the loop and the C function that it calls, and says nothing to anybody.
_CALL_GLUE = (
    "_PyEval_",
    "PyEval_",
    "_PyFunction_Vectorcall",
    "_PyFunction_FastCall",
    "function_code_fastcall",
    "_PyObject_Vectorcall",
    "_PyObject_MakeTpCall",
    "_PyObject_Call",
    "_PyObject_FastCall",
    "PyObject_Vectorcall",
    "PyObject_Call",
    "PyVectorcall_Call",
    "_PyVectorcall_Call",
    "PyCFunction_Call",
    "_PyCFunction_",
    "_PyMethodDef_RawFastCall",
    "_PyMethodDescr_",
    "cfunction_",
    "method_vectorcall",
    "method_call",
    "vectorcall_",
    "object_vacall",
    "builtin_exec",
    "run_eval_code_obj",
    "run_mod",
)


def merge_stacks(native: Sequence[Frame], python: Sequence[Frame]) -> tuple[Frame, ...]:
    """Make one stack, root first, of a native and a Python one, both leaf first.

    Native frames inside of the interpreter give way to the Python frames; a C extension called by
    the innermost one stays, at the leaf. Up to Python 3.10 the loop is entered once per Python
    frame, so that C code in between (a sort with a key function) keeps its place; later ones run
    Python to Python calls in one loop, and what lies between is left out.
    """
    if not python:
        return tuple(reversed(native))
    loops = [index for index, frame in enumerate(native) if _is(frame, _EVAL_LOOP)]
    if not loops:
        # The native stack was cut before it got to the interpreter, or came without names.
        return (*reversed(python), *reversed(native))
    if len(loops) == len(python):
        return _interleaved(native, python, loops)
    return (*reversed(python), *_called(native[: loops[0]]))


def _interleaved(
    native: Sequence[Frame], python: Sequence[Frame], loops: Sequence[int]
) -> tuple[Frame, ...]:
    merged: list[Frame] = []
    leafward = [-1, *loops[:-1]]
    for loop, below, frame in reversed(list(zip(loops, leafward, python))):
        merged += [frame, *_called(native[below + 1 : loop])]
    return tuple(merged)


# What the loop called, root first, without the glue.
def _called(native: Sequence[Frame]) -> list[Frame]:
    return [frame for frame in reversed(native) if not _is(frame, _CALL_GLUE)]


def _is(frame: Frame, prefixes: tuple[str, ...]) -> bool:
    return frame.kind is FrameKind.NATIVE and frame.name.startswith(prefixes)
