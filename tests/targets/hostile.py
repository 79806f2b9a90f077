"""A local user's program that wants to harm who looks at it; says "ready" and waits for a line.

Its words are what it does, and a folder for the files that it maps:

  names       its title, its comm and the file it maps hold escape sequences, new lines and what
              looks like a metric
  sparse      it maps a library of a tebibyte that takes no room on the disk
  untouched   it maps 64 MiB of memory and writes to none of it; says where
  changing    it maps a library and rewrites, cuts and regrows it until it is told to end
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import shutil
import sys
import threading
from pathlib import Path

HOSTILE = b'\x1b]0;owned\x07\x1b[31m\nmwtrace_service_leaking{service="root"} 1\n\r\t\xff\xfe'


def say_and_wait(*more: str) -> None:
    print("ready", *more, sep="\n", flush=True)
    sys.stdin.readline()


def map_file(path: bytes, offset: int = 0) -> mmap.mmap:
    fd = os.open(path, os.O_RDONLY)
    mapped = mmap.mmap(
        fd, mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC, 0, offset
    )
    os.close(fd)
    return mapped


def names(folder: Path) -> None:
    if len(sys.argv) == 3:
        words = [HOSTILE, os.path.abspath(__file__).encode(), b"names", bytes(folder), HOSTILE]
        # The interpreter finds its library by its own path, whatever its title.
        os.execv("/proc/self/exe", words)
    ctypes.CDLL(None).prctl(15, b"\x1b[31m\n# HELP x", 0, 0, 0)  # PR_SET_NAME
    path = bytes(folder) + b"/lib" + HOSTILE + b".so"
    shutil.copyfile("/proc/self/exe", path)
    mapped = map_file(path)
    held = [bytes(1000) for _ in range(20_000)]
    say_and_wait()
    mapped.close()
    del held


def sparse(folder: Path) -> None:
    path = folder / "libpython3.11.so.1.0"
    shutil.copyfile("/proc/self/exe", path)
    os.truncate(path, 1 << 40)
    mapped = map_file(bytes(path))
    far = map_file(bytes(path), (1 << 40) - mmap.PAGESIZE)
    say_and_wait()
    mapped.close()
    far.close()


def untouched(folder: Path) -> None:
    size = 64 << 20
    mapped = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    say_and_wait(f"{address:x}-{address + size:x}")


def changing(folder: Path) -> None:
    path = folder / "libchanging.so"
    whole = Path("/proc/self/exe").read_bytes()[: 1 << 20]
    path.write_bytes(whole)
    mapped = map_file(bytes(path))
    stop = threading.Event()

    def rewrite() -> None:
        generator = random.Random(23)
        fd = os.open(path, os.O_WRONLY)
        while not stop.is_set():
            os.pwrite(fd, generator.randbytes(64), generator.randrange(1 << 14))
            os.ftruncate(fd, generator.randrange(1 << 20))
            os.pwrite(fd, whole, 0)
        os.close(fd)

    thread = threading.Thread(target=rewrite)
    thread.start()
    say_and_wait(str(path))
    stop.set()
    thread.join()
    mapped.close()


if __name__ == "__main__":
    ways = {"names": names, "sparse": sparse, "untouched": untouched, "changing": changing}
    ways[sys.argv[1]](Path(sys.argv[2]))
