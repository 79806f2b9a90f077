"""Makes blocks of one size in several threads, and says itself where it made each of them.

Prints "ready" when all threads stand, waits for a line, makes the blocks, and prints one line per
thread: "<thread pointer> <native thread id or 0> <JSON>", where the JSON is a list of stacks, leaf
first, each a list of [function, file, line]. Then "done"; it ends at the end of its input.

Must run on every CPython from 3.8 on.
"""

import ctypes
import json
import sys
import threading

SIZE = 7331  # nothing else in an interpreter asks for so much
# What a bytearray asks for beyond its contents: a NUL, and from 3.15 on it holds a bytes object.
FILLING = SIZE - (sys.getsizeof(b"") if sys.version_info >= (3, 15) else 1)
THREADS = 4
ROUNDS = 20

malloc = ctypes.CDLL(None).malloc
malloc.argtypes = [ctypes.c_size_t]
malloc.restype = ctypes.c_void_p


def truth():
    frame = sys._getframe(1)
    stack = []
    while frame:
        code = frame.f_code
        stack.append((getattr(code, "co_qualname", code.co_name), code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return stack


class Leaf:
    def __init__(self):
        self.kept = []
        self.stacks = []

    def with_the_lock(self):
        # One line, so that the truth is of the same line.
        self.kept.append(bytearray(FILLING)), self.stacks.append(truth())

    def without_the_lock(self):
        malloc(SIZE), self.stacks.append(truth())


def numbers(leaf, depth):
    """A generator in a generator, so that frames do not lie in a row."""
    if depth:
        yield from numbers(leaf, depth - 1)
    else:
        leaf.with_the_lock()
        yield (leaf.without_the_lock())


def recurse(leaf, depth):
    if depth > 0:
        return recurse(
            leaf,
            depth - 1,
        )
    for _ in numbers(leaf, 5):
        pass
    return [leaf.with_the_lock() for _ in (1,)], (lambda: leaf.without_the_lock())()


def run(leaf, ready, go, results, index):
    ready.wait()
    go.wait()
    for round in range(ROUNDS):
        recurse(leaf, round)
    native = getattr(threading, "get_native_id", lambda: 0)()
    results[index] = (threading.get_ident(), native, leaf.stacks)


def main():
    ready = threading.Barrier(THREADS + 1)
    go = threading.Event()
    results = [None] * THREADS
    threads = [
        threading.Thread(target=run, args=(Leaf(), ready, go, results, index))
        for index in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    ready.wait()
    print("ready", flush=True)
    sys.stdin.readline()
    go.set()
    for thread in threads:
        thread.join()
    for pointer, native, stacks in results:
        print(pointer, native, json.dumps(stacks), flush=True)
    print("done", flush=True)
    sys.stdin.readline()


main()
