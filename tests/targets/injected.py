"""A program to inject into; its main thread and two others do what the first word says.

busy: all three compute, with exceptions, generators and objects; tick: the main thread sleeps a
little again and again; blocked: the main thread waits in read() for ever; alone: one busy thread.
Prints "ready", and for each line on standard input how often it went round and how many files it
has open ("done" at the end).
"""

import json
import os
import sys
import threading
import time
import zlib


class Node:
    def __init__(self, number):
        self.number = number


def numbers(count):
    yield from range(count)


rounds = [0, 0, 0]


def busy(index):
    while True:
        rounds[index] += 1
        try:
            kept = [Node(n) for n in numbers(50)]
            json.loads(json.dumps({str(node.number): [node.number] for node in kept}))
            if rounds[index] % 20 == 0:
                zlib.compress(b"x" * 20000)
            raise KeyError(len(kept))
        except KeyError:
            pass


def tick():
    while True:
        rounds[0] += 1
        time.sleep(0.02)


def answer():
    for _ in sys.stdin:
        print(json.dumps([sum(rounds), len(os.listdir("/proc/self/fd"))]), flush=True)


what = sys.argv[1]
threading.Thread(target=answer, daemon=True).start()
if what != "alone":
    for index in (1, 2):
        threading.Thread(target=busy, args=(index,), daemon=True).start()
print("ready", flush=True)
if what == "blocked":
    os.read(os.pipe()[0], 1)
elif what == "tick":
    tick()
busy(0)
