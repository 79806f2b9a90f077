"""A Python service that leaks at a known rate, by the clock, among churn and a bounded cache.

How is its first argument: "objects" keeps what json made (1,000 times a second a list of 40 floats,
which are 8 + 16 bytes of list and 24 of float each), "ctypes" loses 1,000 blocks of 400 bytes a
second that it asked the C library for. It says "ready" and goes on until its input ends.
"""

from __future__ import annotations

import ctypes
import json
import select
import sys
import time
from collections import OrderedDict

KEPT: list[object] = []
CACHE: OrderedDict[int, str] = OrderedDict()
CACHED = 5_000
TEXT = json.dumps([float(n) + 0.5 for n in range(40)])
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]


def remember() -> None:
    KEPT.append(json.loads(TEXT))


def lose() -> None:
    libc.malloc(400)


def churn(number: int) -> None:
    for n in range(3):
        json.dumps({"number": number, "text": "x" * 50, "n": n, "values": list(range(20))})


def cache(number: int) -> None:
    CACHE[number] = f"entry {number} " * 20
    if len(CACHE) > CACHED:
        CACHE.popitem(last=False)


def main() -> None:
    leak = {"objects": remember, "ctypes": lose}[sys.argv[1]]
    for number in range(CACHED):
        cache(number)
    print("ready", flush=True)
    began, number = time.monotonic() - CACHED / 1000, CACHED
    while not select.select([sys.stdin], [], [], 0.001)[0]:
        while number < (time.monotonic() - began) * 1000:
            churn(number)
            cache(number)
            leak()
            number += 1


main()
