"""A program with a heap of so many objects, that measures how long its main thread stands still.

``gaps`` begins a loop that does nothing but look at the clock, until a line comes; then it says
the longest gap in seconds and how often it looked.
"""

from __future__ import annotations

import select
import sys
import time

import mwtrace_hook

assert not mwtrace_hook.why_not, mwtrace_hook.why_not


class Node:
    def __init__(self, number, other):
        self.name = f"node {number}"
        self.number = number + 1000
        self.other = other
        self.tail = (number, bytes(1100))


def build(objects):
    nodes = []
    other = None
    for number in range(objects // 7):
        other = Node(number, nodes[number // 3] if nodes else None)
        nodes.append(other)
    return nodes


def gaps():
    longest = looks = 0
    last_s = time.perf_counter()
    while True:
        looks += 1
        now_s = time.perf_counter()
        longest = max(longest, now_s - last_s)
        last_s = now_s
        if looks % 4096 == 0 and select.select([0], [], [], 0)[0]:
            sys.stdin.readline()
            print(longest, looks, flush=True)
            return


NODES = build(int(sys.argv[1]))
print("ready", flush=True)
for _line in sys.stdin:
    print("begins", flush=True)
    gaps()
