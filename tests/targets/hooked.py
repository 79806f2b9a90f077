"""A program with the hook, in the shape that its first argument names; it acts on lines.

Started with PYTHONPATH at the hook's folder. ``children`` tells which processes it can still wait
for, ``pause`` the longest that its main thread stood still since it was asked last.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import select
import signal
import sys
import threading
import time
import zlib


class Liar(dict):
    """Whoever calls one of its methods ends at once: nobody may, to take a snapshot."""

    def end(self, *words):
        os._exit(77)

    __class__ = property(end)
    __sizeof__ = __repr__ = __str__ = __len__ = __iter__ = __hash__ = __eq__ = end
    keys = values = items = __getattribute__ = end


class LyingMeta(type):
    def end(cls, *words):
        os._exit(77)

    __class__ = property(end)
    __sizeof__ = __repr__ = __hash__ = __eq__ = end


class Session:
    def __init__(self, number):
        self.name = f"user{number}"
        self.items = [number, number * 1.5]


REGISTRY = {}
SEEN = []  # signals that the program's own handlers got


def say(word):
    os.write(1, word.encode() + b"\n")  # at once: workers say something, too


def note(number, frame=None):
    SEEN.append(number)


def grow(count):
    for number in range(count):
        REGISTRY[f"session {number}"] = Session(number)


def children():
    """Return pids of all children that wait() can tell of, dead or alive; None of them waits."""
    found = []
    for word in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{word}/children") as file:
            found += map(int, file.read().split())
    return found


def answer(line):
    word, _, rest = line.partition(" ")
    if word == "seen":
        say(" ".join(map(str, SEEN)) or "none")
    elif word == "children":
        say(" ".join(map(str, children())) or "none")
    elif word == "descriptors":
        say(str(len(os.listdir("/proc/self/fd"))))
    elif word == "threads":
        say(str(len(os.listdir("/proc/self/task"))))
    elif word == "block":
        # One call into C, which a signal does not end: no handler runs before a line comes.
        read, buffer = ctypes.CDLL(None).read, ctypes.create_string_buffer(8)
        signal.siginterrupt(43, False)
        say("begins")
        read(0, buffer, 8)
        signal.siginterrupt(43, True)
        say("done")
    elif word == "lie":
        cls = LyingMeta("Odd", (), {"__slots__": ("one",)})
        REGISTRY["liars"] = [Liar() for _ in range(30)], cls, cls()
        say("done")
    elif word == "eval":
        say(repr(eval(rest)))
    else:
        say("what is " + word)


def serve_lines():
    say("ready")
    for line in sys.stdin:
        answer(line.strip())


def busy(rest_s=0):
    data = os.urandom(20_000)
    while True:
        time.sleep(rest_s)
        zlib.compress(data)
        [Session(number) for number in range(200)]


def submitting():
    """Keep the lock that concurrent.futures' at-fork handler takes busy, in the main thread."""
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(2)
    say("ready")
    ended = False
    while not ended:
        for _ in range(50):
            pool.submit(time.monotonic).result()
        ended = bool(select.select([0], [], [], 0)[0])
        if ended:
            line = os.read(0, 100).decode().strip()
            if line != "end":
                answer(line)
                ended = False


async def loop():
    lines = asyncio.Queue()

    def read():
        lines.put_nowait(os.read(0, 1000).decode().strip())

    async def tick():
        while True:
            await asyncio.sleep(0.001)

    ticking = asyncio.ensure_future(tick())
    asyncio.get_running_loop().add_reader(0, read)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, note, int(signal.SIGUSR1))
    say("ready")
    while True:
        line = await lines.get()
        if not line:
            break
        answer(line)
    ticking.cancel()


def prefork():
    """A master that is confused by any child that it does not know, and two workers."""
    workers = set()
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            say(f"worker {os.getpid()}")
            time.sleep(3600)
            os._exit(0)
        workers.add(pid)
    say("ready")
    while workers:
        pid = os.wait()[0]
        workers.remove(pid)  # KeyError: a stranger
        say(f"ended {pid}")


def main():
    shape = sys.argv[1]
    if shape == "handled":
        # Both before the hook: it must take another signal, and leave these alone.
        signal.signal(43, note)
        signal.signal(signal.SIGUSR1, note)
    import mwtrace_hook

    assert not mwtrace_hook.why_not, mwtrace_hook.why_not
    grow(int(sys.argv[2]) if len(sys.argv) > 2 else 1000)
    os.register_at_fork(after_in_child=lambda: os.write(1, b"an at-fork handler ran\n"))
    if shape in ("threads", "workers"):
        for _ in range(3):
            rest_s = 0.02 if shape == "workers" else 0
            threading.Thread(target=busy, args=(rest_s,), daemon=True).start()
    if shape == "asyncio":
        asyncio.run(loop())
    elif shape == "prefork":
        prefork()
    elif shape == "submitting":
        submitting()
    else:
        serve_lines()


main()
