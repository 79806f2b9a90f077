"""A service that grows by about a megabyte per second, in the way that argv[1] names.

It says "ready", and ends when its standard input does.
"""

import ctypes
import mmap
import select
import sys
import threading
import time

STEP_S = 0.2
STEP_BYTES = (1 << 20) // 5
BLOCK_BYTES = 4000
M_TRIM_THRESHOLD = -1
LIBC = ctypes.CDLL(None)
LIBC.malloc.restype = ctypes.c_void_p
LIBC.malloc.argtypes = [ctypes.c_size_t]
LIBC.free.argtypes = [ctypes.c_void_p]
LIBC.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]


class Session:
    __slots__ = ("number", "text")

    def __init__(self, number):
        self.number = number
        self.text = f"session {number}"


SESSIONS = {}
MAPS = []
ASKED = [0]


def python_dict():
    for _ in range(STEP_BYTES // 200):
        SESSIONS[len(SESSIONS)] = Session(len(SESSIONS) + 1000)


def missing_decref():
    import forgetful  # compiled by the test

    forgetful.weigh([forgetful.Record() for _ in range(STEP_BYTES // 256)])


def blocks(count):
    got = [LIBC.malloc(BLOCK_BYTES) for _ in range(count)]
    for block in got:
        LIBC.memset(block, 1, BLOCK_BYTES)
    return got


def malloc_leak():
    blocks(STEP_BYTES // BLOCK_BYTES)


def mmap_leak():
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    pages = mmap.mmap(-1, STEP_BYTES & -4096, flags=flags)
    pages.write(b"x" * len(pages))
    MAPS.append(pages)


def kept_free():
    # Each request needs a little more than the one before, and gives all of it back.
    LIBC.mallopt(M_TRIM_THRESHOLD, 1 << 30)
    ASKED[0] += STEP_BYTES // BLOCK_BYTES
    for block in blocks(ASKED[0]):
        LIBC.free(block)


def deep(levels):
    if levels:
        deep(levels - 1)
    else:
        threading.Event().wait()


def thread_leak():
    for _ in range(4):
        threading.Thread(target=deep, args=(60,), daemon=True).start()


KINDS = {
    "dict": python_dict,
    "decref": missing_decref,
    "malloc": malloc_leak,
    "mmap": mmap_leak,
    "kept": kept_free,
    "threads": thread_leak,
}


def serve(step):
    next_s = time.monotonic()
    while not select.select([sys.stdin], [], [], max(0.0, next_s - time.monotonic()))[0]:
        step()
        next_s += STEP_S


threading.stack_size(256 * 1024)
sys.stdout.write("ready\n")
sys.stdout.flush()
serve(KINDS[sys.argv[1]])
