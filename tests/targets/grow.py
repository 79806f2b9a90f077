"""Grows by some MiB of the kind that argv[1] names whenever it is told to; answers "done"."""

import ctypes
import mmap
import sys
import threading

STEP_BYTES = 8 << 20
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


def python_objects():
    for _ in range(STEP_BYTES // 200):
        SESSIONS[len(SESSIONS)] = Session(len(SESSIONS) + 1000)


def missing_decref():
    for i in range(STEP_BYTES // 130):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(Session(i + 1000)))


def native():
    for _ in range(STEP_BYTES // 1000):
        LIBC.memset(LIBC.malloc(990), 1, 990)


def mapped():
    for _ in range(4):
        pages = mmap.mmap(-1, STEP_BYTES // 4, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        pages.write(b"x" * (STEP_BYTES // 4))
        MAPS.append(pages)


def retained(size=[990]):  # noqa: B006
    # each time larger, so that the blocks do not fit into the holes of the time before
    size[0] += 300
    count = STEP_BYTES // size[0]
    blocks = [LIBC.malloc(size[0]) for _ in range(count)]
    for block in blocks:
        LIBC.memset(block, 1, size[0])
    for i, block in enumerate(blocks):
        if i % 20:  # what stays lies between the rest: no whole pages can be given back
            LIBC.free(block)


def threads():
    begun = threading.Barrier(41)

    def wait():
        begun.wait()
        threading.Event().wait()

    for _ in range(40):
        threading.Thread(target=wait, daemon=True).start()
    begun.wait()


GROW = {
    "python-objects": python_objects,
    "missing-decref": missing_decref,
    "native": native,
    "mmap": mapped,
    "retained": retained,
    "threads": threads,
}
grow = GROW[sys.argv[1]]
sys.stdout.write("ready\n")
sys.stdout.flush()
for _ in sys.stdin:
    grow()
    sys.stdout.write("done\n")
    sys.stdout.flush()
