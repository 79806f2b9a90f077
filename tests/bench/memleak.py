"""The peer: bcc's memleak (Debian's bpfcc-tools) on one process, unchanged in what it measures.

Two things keep it from running on most machines, and both are put right from outside. It includes
headers of the running kernel, which has none here: its text needs the layout of the registers and
a few names from them, so a folder that holds these stands in. And bcc types its attach function
with one argument less than it has, so that the kernel gets garbage for the seventh and refuses
(iovisor/bcc#5236): that one is added. Programs, maps and options are memleak's own.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = Path("/usr/sbin/memleak-bpfcc")
PYTHON = "/usr/bin/python3"
DEADLINE_S = 30.0
PROBES = 20  # nine functions with their returns, free, munmap
QUIET_S = 3600  # between its reports: none while we measure

_STAND_IN = """
#ifndef STAND_IN
#define STAND_IN
typedef signed char __s8, s8;
typedef unsigned char __u8, u8;
typedef short __s16, s16;
typedef unsigned short __u16, u16, __le16, __be16, __sum16;
typedef int __s32, s32, pid_t;
typedef unsigned int __u32, u32, __le32, __be32, __wsum;
typedef long long __s64, s64;
typedef unsigned long long __u64, u64, __le64, __be64, __aligned_u64;
typedef unsigned long size_t, uintptr_t;
typedef long ssize_t;
typedef _Bool bool;
#define NULL ((void *)0)
#define __always_inline inline __attribute__((always_inline))
#define inline inline __attribute__((gnu_inline))
#define CONFIG_BPF_SYSCALL 1
#define LINUX_VERSION_CODE 0
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define roundup_pow_of_two(n) (1UL << (64 - __builtin_clzl((n) - 1)))
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
	unsigned long orig_ax, ip, cs, flags, sp, ss;
};
#endif
"""
_EMPTY = (
    "linux/types linux/bpf_common linux/log2 linux/version linux/sched linux/fs asm/page "
    "uapi/linux/bpf uapi/linux/ptrace uapi/linux/if_packet uapi/linux/types"
).split()
_LAUNCH = """
import runpy, sys
from bcc.libbcc import lib
attach = lib.bpf_attach_uprobe
lib.bpf_attach_uprobe = lambda *arguments: attach(*arguments, 0)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class NotRun(Exception):
    """Why there is no figure."""


@contextmanager
def memleak(pid: int) -> Iterator[None]:
    """Have memleak attached to a process; NotRun says why it could not be."""
    if not PROGRAM.exists():
        raise NotRun("no memleak-bpfcc (apt-get install bpfcc-tools)")
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as said:
        _write_headers(Path(folder) / "include")
        child = subprocess.Popen(
            [PYTHON, "-c", _LAUNCH, str(PROGRAM), "-p", str(pid), str(QUIET_S)],
            stdout=said,
            stderr=said,
            env={"BCC_KERNEL_SOURCE": folder, "PATH": os.defpath, "PYTHONUNBUFFERED": "1"},
        )
        try:
            _wait_attached(child)
            yield
        except NotRun as error:
            said.seek(0)
            lines = [line.strip() for line in said if line.strip()]
            why = lines[-1] if lines else "it said nothing"
            raise NotRun(f"{error}: {why}") from None
        finally:
            child.kill()  # its probes are perf events, so they go with it
            child.wait()


def _write_headers(folder: Path) -> None:
    for name in _EMPTY:
        path = folder / f"{name}.h"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / "linux/kconfig.h").write_text(_STAND_IN)


def _wait_attached(child: subprocess.Popen[bytes]) -> None:
    # It says "Attaching" before it has, and nothing after.
    deadline = time.monotonic() + DEADLINE_S
    while _probe_count(child.pid) < PROBES:
        if child.poll() is not None:
            raise NotRun("memleak ended")
        if time.monotonic() > deadline:
            raise NotRun(f"memleak had {_probe_count(child.pid)} of {PROBES} probes in time")
        time.sleep(0.05)


def _probe_count(pid: int) -> int:
    count = 0
    try:
        for entry in os.scandir(f"/proc/{pid}/fd"):
            count += os.readlink(entry.path) == "anon_inode:[perf_event]"
    except OSError:
        pass  # a descriptor, or the process, went away: the caller looks again
    return count
