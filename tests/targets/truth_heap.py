"""A mixed heap of about argv[1] objects, and what a forked child counts in it.

Prints one line of JSON, {"n": {type: objects}, "b": {type: bytes}}, and waits for its input to
close. The child counts, so that counting does not disturb the heap that is read from outside:
everything reachable from what the collector tracks, dict keys and code constants included.
"""

import collections
import gc
import json
import os
import random
import sys

random.seed(1)


class Rec:
    def __init__(self, i):
        self.id = i
        self.name = f"name-{i}"
        self.tags = [i, i + 1]


class Slot:
    __slots__ = ("a", "b")

    def __init__(self, i):
        self.a = i
        self.b = None


def fail(i):
    """Return an exception whose traceback keeps two frames, one of which knows the other."""

    def deeper():
        raise ValueError(i)

    try:
        deeper()
    except ValueError as error:
        return error


def fill(count):
    keep = []
    made = 0
    while made < count:
        i = made + 100000
        keep.append(Rec(i))
        keep.append({f"k{i}": i * 1.5, "b": b"x" * (i % 200)})
        keep.append((i, str(i) * (1 + i % 30), i / 3))
        keep.append(Slot(i))
        made += 17
        if i % 7 == 0:
            keep.append([i + j for j in range(10)])
            made += 11
        if i % 11 == 0:
            keep.append({i + j for j in range(12)})
            made += 13
        if i % 13 == 0:
            keep.append("z" * (600 + i % 3000))
            made += 1
        if i % 19 == 0:
            keep.append(fail(i))
            made += 7
        if i % 17 == 0:
            keep.append(bytes(1000 + i % 5000))
            made += 1
    return keep


def parts_of_code(code):
    names = ("co_consts", "co_names", "co_filename", "co_name", "co_qualname")
    found = [getattr(code, name, None) for name in names]
    if sys.version_info >= (3, 11):
        found += [code.co_linetable, code.co_exceptiontable]
    else:
        found += [code.co_code]
    return [part for part in found if part is not None]


def count():
    objects, sizes = collections.Counter(), collections.Counter()
    seen = set()
    todo = gc.get_objects()
    own = {id(seen), id(todo), id(objects), id(sizes)}
    while todo:
        new = []
        for item in todo:
            if id(item) in seen or id(item) in own:
                continue
            seen.add(id(item))
            name = type(item).__name__
            objects[name] += 1
            try:
                sizes[name] += sys.getsizeof(item)
            except Exception:
                pass
            new.append(item)
        todo = []
        for item in new:
            if type(item).__name__ == "code":
                todo.extend(x for x in parts_of_code(item) if id(x) not in seen)
            if type(item) is dict:
                todo.extend(x for x in item if id(x) not in seen)
        for start in range(0, len(new), 10000):
            below = gc.get_referents(*new[start : start + 10000])
            todo.extend(x for x in below if id(x) not in seen)
    return objects, sizes


KEEP = fill(int(sys.argv[1]))
gc.collect()
if len(sys.argv) > 2:  # nothing is to be counted: a heap to be timed
    sys.stdout.write("ready\n")
else:
    pid = os.fork()
    if pid == 0:
        objects, sizes = count()
        sys.stdout.write(json.dumps({"n": objects, "b": sizes}) + "\n")
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(pid, 0)
sys.stdout.flush()
sys.stdin.read()
