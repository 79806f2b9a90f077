"""A made-up host below a folder: just enough of /proc and /sys for the readers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mwtrace.host.procfs import Host

CGROUP_V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
CGROUP_V1_MOUNT = "31 23 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
PROC_MOUNT = "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
MEMORY = "VmSize:\t  40000 kB\nVmRSS:\t  700 kB\nRssAnon:\t  400 kB\nRssFile:\t  200 kB\n"
MEMORY += "RssShmem:\t  100 kB\nVmSwap:\t  80 kB\n"


class FakeProc:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc").mkdir(parents=True, exist_ok=True)
        self.host = Host(root)

    def write(self, path: str, content: str | bytes) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    def link(self, path: str, target: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.symlink_to(target)

    def add(
        self,
        pid: int,
        *,
        comm: bytes = b"x",
        state: str = "S",
        parent_pid: int = 1,
        flags: int = 0,
        start_ticks: int = 500,
        start_stack: int = 0,
        uid: int = 0,
        memory: str = MEMORY,
        cgroup: str = "0::/\n",
        cmdline: bytes = b"x\0",
        exe: str = "",
        cwd: str = "",
    ) -> None:
        fields = [state, parent_pid, 0, 0, 0, -1, flags, *[0] * 12, start_ticks, *[0] * 5]
        fields += [start_stack, *[0] * 24]
        tail = " ".join(map(str, fields)).encode()
        self.write(f"proc/{pid}/stat", b"%d (%s) %s\n" % (pid, comm, tail))
        head = f"Name:\tx\nState:\t{state} (sleeping)\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"
        self.write(f"proc/{pid}/status", head + memory + "Threads:\t1\n")
        self.write(f"proc/{pid}/cgroup", cgroup)
        self.write(f"proc/{pid}/cmdline", cmdline)
        for name, target in (("exe", exe), ("cwd", cwd)):
            if target:
                self.link(f"proc/{pid}/{name}", target)

    def remove(self, pid: int) -> None:
        shutil.rmtree(self.root / "proc" / str(pid))

    def close(self) -> None:
        self.host.close()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def install_bcc(fake: FakeProc, folder: str = "usr/lib/python3/dist-packages") -> None:
    fake.write("usr/bin/python3", "")
    (fake.root / "usr/bin/python3").chmod(0o755)
    fake.write(f"{folder}/bcc/libbcc.py", "")
