"""Takes and frees small blocks of CPython's allocator and says which of them live: the truth for
the audit of pymalloc. Runs on any CPython; prints "address size alive" lines, then "ready"."""

import ctypes
import os
import random
import sys

malloc, free = ctypes.pythonapi.PyObject_Malloc, ctypes.pythonapi.PyObject_Free
malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
free.restype, free.argtypes = None, [ctypes.c_void_p]

rng = random.Random(3)
sizes = [rng.randrange(0, 600) for _ in range(20000)]
blocks = [malloc(size) for size in sizes]
for number, (address, size) in enumerate(zip(blocks, sizes)):
    if size >= 8:
        ctypes.memmove(address, (number * 2654435761 + 1).to_bytes(8, "little"), 8)
alive = [rng.random() < 0.5 for _ in blocks]
# Some pools become empty and are given back.
for number in range(5000, 12000):
    alive[number] = False
# The answer is made before anything is freed, or its own objects would move in.
rows = zip(blocks, sizes, alive)
answer = ("".join(["%x %d %d\n" % row for row in rows]) + "ready\n").encode()  # noqa: UP031
for address, lives in zip(blocks, alive):
    if not lives:
        free(address)
os.write(1, answer)
sys.stdin.read()
