"""Leaks in one of the shapes that programs leak in; writes a snapshot when it is asked to.

usage: leak_shapes.py SHAPE. Says "ready"; then, per line of input, leaks so many objects and says
"done".
"""

from __future__ import annotations

import collections
import ctypes
import functools
import gc
import sys
import threading
import types

from mwtrace.snapshot import hook


class Session:
    def __init__(self, number=0):
        self.number = number
        self.payload = [number, str(number) * 20]


class App:
    def __init__(self):
        self.entries = {}
        self.listeners = []
        self.by_user = collections.defaultdict(list)


CACHE: dict = {}
app = App()
failures: list = []
tasks: set = set()


def module_dict(number):
    CACHE[f"user-{number}"] = Session(number)


def attribute_dict(number):
    app.entries[f"user-{number}"] = Session(number)


def listeners(number):
    app.listeners.append(functools.partial(print, Session(number)))


@functools.cache
def lookup(number):
    return Session(number)


class Registry:
    known: list = []


def class_attribute(number):
    Registry.known.append(Session(number))


def _counter():
    seen = []

    def count(number):
        seen.append(Session(number))

    return count


closure = _counter()


def exception_frames(number):
    session = Session(number)
    try:
        raise ValueError(session.number)
    except ValueError as error:
        failures.append(error)


local = threading.local()
local.sessions = []


def thread_local(number):
    local.sessions.append(Session(number))


class Node:
    def __init__(self):
        self.me = self
        self.session = Session()

    def __del__(self):
        pass


def cycle_with_finalizer(number):
    Node()


def _steps(session):
    while True:
        yield session


def generators(number):
    steps = _steps(Session(number))
    next(steps)
    tasks.add(steps)


def held_by_native(number):
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(Session(number)))


class Link:
    def __init__(self, before):
        self.before = before
        self.session = Session()


chain = types.SimpleNamespace(last=None)


def linked_list(number):
    chain.last = Link(chain.last)


def defaultdict_of_lists(number):
    app.by_user["everybody"].append(Session(number))


def main() -> None:
    shape = sys.argv[1]
    leak = closure if shape == "closure" else lookup if shape == "lru_cache" else globals()[shape]
    if shape == "cycle_with_finalizer":
        gc.disable()
    hook.install()
    number = 0
    print("ready", flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            number += 1
            leak(number)
        print("done", flush=True)


main()
