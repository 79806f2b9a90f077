"""Describe the extension module ``mwtrace._cext`` to cffi.

Contains no declaration: what Python may call is what the headers named here say, read by the
same preprocessor that compiles them.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent.parent
# Relative paths: setuptools refuses absolute ones, and debug information stays reproducible.
INCLUDE_DIRS = ["bpf", "cext"]
HEADERS = ["events.h", "fit.h", "series.h", "records.h", "aggregator.h", "archive.h"]
HEADERS += ["engine.h", "engine_bcc.h", "offsets.h", "links.h", "ring.h"]
HEADERS += ["trace_events.h", "remote.h", "symbols.h", "branches.h"]
HEADERS += ["links_tracepoint.h", "links_uprobe.h", "links_perf.h"]
HEADERS += ["calibrate.h", "governor.h", "release.h", "sharing.h"]
HEADERS += ["live.h", "ranges.h", "stacks.h", "ticks.h", "sites.h", "tracer.h", "audit.h"]
HEADERS += ["privilege.h"]
HEADERS += ["graph.h", "dominators.h", "nearest.h"]
HEADERS += ["regions.h", "pyobject.h", "census.h", "holders.h", "arenas.h", "threads.h"]
HEADERS += ["pack.h", "outside.h", "stopped.h", "in_root.h"]
SOURCES = sorted(f"cext/{path.name}" for path in (ROOT / "cext").glob("*.c"))
DEPENDS = [f"{d}/{path.name}" for d in INCLUDE_DIRS for path in (ROOT / d).glob("*.h")]
# cffi's generated file needs -Wno-unused-function. -Werror is `make check`'s, by MW_CFLAGS: a newer
# compiler's new warning must not stop a user's installation.
C_FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wno-unused-function", "-O2", "-g"]


def declarations() -> str:
    """Return the headers as one text that ``ffi.cdef`` takes."""
    text = "".join(f'#include "{header}"\n' for header in HEADERS)
    compiler = os.environ.get("CC", "cc").split()
    flags = [f"-I{ROOT / directory}" for directory in INCLUDE_DIRS]
    command = [*compiler, "-E", "-P", "-DMW_CDEF", *flags, "-xc", "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def builder() -> FFI:
    ffi = FFI()
    ffi.cdef(declarations())
    ffi.set_source(
        "mwtrace._cext",
        "".join(f'#include "{header}"\n' for header in HEADERS),
        sources=SOURCES,
        include_dirs=INCLUDE_DIRS,
        libraries=["bpf", "elf", "m", "z"],
        depends=DEPENDS,
        extra_compile_args=[*C_FLAGS, *os.environ.get("MW_CFLAGS", "").split()],
        extra_link_args=os.environ.get("MW_LDFLAGS", "").split(),
        py_limited_api=True,
    )
    return ffi


# setuptools' cffi_modules wants a name to call.
ffibuilder = builder
