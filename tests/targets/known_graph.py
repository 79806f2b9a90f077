"""Objects of all the shapes that keep references, and what the collector says they refer to.

Prints one JSON line {name: [id, [ids of referents], id of its type]}, then "ready"; on "fork" it
makes a child that stands still, prints its pid, and ends it on the next line.
"""

import collections
import functools
import gc
import json
import os
import signal
import sys
import threading
import types


class Plain:
    def __init__(self, value):
        self.value = value
        self.other = [value]
        self.nothing = None


class Slotted:
    __slots__ = ("left", "right", "__weakref__")

    def __init__(self, left, right):
        self.left = left
        self.right = right


class Mixed(Slotted):  # slots, and a dict besides
    pass


class MyDict(dict):
    pass


class MyList(list):
    pass


Point = collections.namedtuple("Point", "x y")
COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 200


class Token:
    """Something to refer to that nobody else has."""

    __slots__ = ("number", "__weakref__")

    def __init__(self, number):
        self.number = number


def tokens(count):
    return [Token(n + 100000) for n in range(count)]


def closing_over(thing):
    def inner(argument=thing):
        return thing, argument

    return inner


def suspended(thing):
    local = [thing]
    yield local
    yield thing


def raised(thing):
    try:
        raise ValueError(thing)
    except ValueError as error:
        return error


def reaching(depth, thing):
    if depth:
        return reaching(depth - 1, thing)
    held_by_a_frame = tokens(3)
    serve()
    return held_by_a_frame


def shapes():
    made = {}
    made["list"] = tokens(7)
    made["list grown"] = []
    for token in tokens(50):
        made["list grown"].append(token)
    del made["list grown"][30:]
    made["list long"] = tokens(COUNT * 300)
    made["tuple"] = tuple(tokens(3))
    made["tuple long"] = tuple(tokens(COUNT * 300))
    made["tuple across"] = tuple(tokens(3000))
    made["dict of str"] = {f"key{n}": token for n, token in enumerate(tokens(5))}
    made["dict of int"] = {n + 5000: token for n, token in enumerate(tokens(20))}
    made["dict of objects"] = dict(zip(tokens(20), tokens(20)))
    made["dict after deletes"] = {n + 5000: token for n, token in enumerate(tokens(90))}
    for n in range(80):
        del made["dict after deletes"][n + 5000]
    made["dict long"] = {n + 5000: token for n, token in enumerate(tokens(COUNT * 200))}
    made["dict of str long"] = {f"key {n}": token for n, token in enumerate(tokens(COUNT * 200))}
    made["dict subclass"] = MyDict((n + 5000, token) for n, token in enumerate(tokens(4)))
    made["dict subclass"].attribute = Token(1)
    made["list subclass"] = MyList(tokens(4))
    made["list subclass"].attribute = Token(1)
    made["set small"] = set(tokens(4))
    made["set"] = set(tokens(40))
    made["set long"] = set(tokens(COUNT * 200))
    made["frozenset"] = frozenset(tokens(30))
    made["deque"] = collections.deque(tokens(20))
    made["deque rotated"] = collections.deque(tokens(60))
    made["deque rotated"].rotate(17)
    made["deque long"] = collections.deque(tokens(COUNT * 20))
    made["ordered"] = collections.OrderedDict((n + 5000, t) for n, t in enumerate(tokens(9)))
    made["counter"] = collections.defaultdict(
        list, {n + 5000: [t] for n, t in enumerate(tokens(9))}
    )
    made["plain"] = Plain(Token(1))
    for n in range(20):
        made[f"plain {n}"] = Plain(Token(n))
    made["plain with a dict"] = Plain(Token(1))
    made["plain with a dict"].__dict__["late"] = Token(2)
    made["plain with many"] = Plain(Token(1))
    for n in range(60):
        setattr(made["plain with many"], f"attribute_{chr(97 + n % 26)}{n // 26}", Token(n))
    made["slotted"] = Slotted(Token(1), Token(2))
    made["slotted empty"] = Slotted.__new__(Slotted)
    made["mixed"] = Mixed(Token(1), Token(2))
    made["mixed"].more = Token(3)
    made["namedtuple"] = Point(Token(1), Token(2))
    made["function"] = closing_over(Token(1))
    made["cell"] = made["function"].__closure__[0]
    made["method"] = made["plain"].__init__
    made["partial"] = functools.partial(print, Token(1), key=Token(2))
    made["property"] = property(made["function"])
    made["generator"] = suspended(Token(1))
    next(made["generator"])
    made["exception"] = raised(Token(1))
    made["traceback"] = made["exception"].__traceback__
    made["iterator"] = iter(tokens(5))
    made["namespace"] = types.SimpleNamespace(one=Token(1), two=Token(2))
    made["proxy"] = types.MappingProxyType({n + 5000: t for n, t in enumerate(tokens(3))})
    made["class"] = type("Made", (Plain,), {"held": Token(1), "more": [Token(2)]})
    made["local"] = threading.local()
    return made


def describe(made):
    return {
        name: [id(thing), [id(one) for one in gc.get_referents(thing)], id(type(thing))]
        for name, thing in made.items()
    }


def serve():
    print("ready", flush=True)
    for line in sys.stdin:
        if line == "fork\n":
            child = os.fork()
            if not child:
                os.write(1, b"%d\n" % os.getpid())
                signal.pause()
                os._exit(0)
            sys.stdin.readline()
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            print("done", flush=True)


MADE = shapes()
gc.collect()
print(json.dumps(describe(MADE)), flush=True)
reaching(5, Token(7))
