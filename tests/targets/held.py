"""3,000 Session objects, held in the way that argv[1] names; "ready", then waits for its input."""

import collections
import ctypes
import functools
import gc
import sys
import threading

N = 3000


class Session:
    def __init__(self, i):
        self.id = i
        self.data = f"d{i}"


class Registry:
    cache = {}

    def __init__(self):
        self.by_id = {}
        self.log = []


class Node:
    __slots__ = ("session",)


SESSIONS = {}
LOG = []
REGISTRY = Registry()
QUEUE = collections.deque()
SEEN = set()
NODES = []


def remember(session, store=[]):  # noqa: B006
    store.append(session)


def make_handler():
    kept = []

    def handle(session):
        kept.append(session)

    return handle


HANDLER = make_handler()


@functools.lru_cache(maxsize=None)  # noqa: UP033  (3.8 has no cache)
def load(i):
    return Session(i)


class Refusal(Exception):
    def __init__(self, session):
        self.session = session

    def answer(self):
        return None


@functools.lru_cache(maxsize=None)  # noqa: UP033
def wrap(handler):
    return handler.__name__


def refuse(session):
    raise Refusal(session)


def serve(i):
    try:
        refuse(Session(i))
    except Refusal as refusal:
        wrap(refusal.answer)


def hold_in_thread(ready):
    mine = [Session(i) for i in range(N)]
    ready.set()
    threading.Event().wait()
    return mine


class Loop:
    pass


def generate():
    held = [Session(i) for i in range(N)]
    yield 1
    yield held


GENERATOR = generate()


def hold(shape):
    if shape == "module-dict":
        SESSIONS.update((f"s{i}", Session(i)) for i in range(N))
    elif shape == "module-list":
        LOG.extend(Session(i) for i in range(N))
    elif shape == "class-dict":
        Registry.cache.update((i, Session(i)) for i in range(N))
    elif shape == "tuples-in-an-attribute":
        REGISTRY.log.extend((i, Session(i)) for i in range(N))
    elif shape == "closure":
        for i in range(N):
            HANDLER(Session(i))
    elif shape == "lru-cache":
        for i in range(N):
            load(i)
    elif shape == "errors-in-a-cache":
        for i in range(N):
            serve(i)
    elif shape == "local-of-a-thread":
        ready = threading.Event()
        threading.Thread(target=hold_in_thread, args=(ready,), daemon=True).start()
        ready.wait()
    elif shape == "deque":
        QUEUE.extend(Session(i) for i in range(N))
    elif shape == "default-argument":
        for i in range(N):
            remember(Session(i))
    elif shape == "set":
        SEEN.update(Session(i) for i in range(N))
    elif shape == "generator":
        next(GENERATOR)
    elif shape == "slots":
        for i in range(N):
            node = Node()
            node.session = Session(i)
            NODES.append(node)
    elif shape == "small-lists":
        for i in range(N):
            SESSIONS[i] = [Session(i)]
    elif shape == "missing-decref":
        for i in range(N):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(Session(i)))
    elif shape == "garbage-that-holds-itself":
        gc.disable()
        for i in range(N):
            loop = Loop()
            loop.session = Session(i)
            loop.me = loop
    elif shape == "missing-decref-of-lists":
        for i in range(0, N, 10):
            records = [Session(i + k) for k in range(10)]
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(records))
    else:
        raise SystemExit("unknown shape " + shape)


hold(sys.argv[1])
sys.stdout.write("ready\n")
sys.stdout.flush()
sys.stdin.read()
