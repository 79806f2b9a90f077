"""Leaks that are known by their shape, from the way to where growth collects. Pure.

Each says what it is and the one thing to do. First match wins: they stand from the most telling to
the most common.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from mwtrace.snapshot.format import EdgeKind
from mwtrace.snapshot.retainers import THREAD_LOCAL as THREAD_LOCAL_ROOT
from mwtrace.snapshot.retainers import Held, Way, short


class Pattern(NamedTuple):
    name: str
    advice: str


_LISTENERS = re.compile(r"listener|callback|handler|observer|subscri|hook|signal|receiver", re.I)
_CALLABLE = {"function", "method", "partial", "builtin_function_or_method"}
_SUSPENDED = {"generator", "coroutine", "async_generator", "Task", "_asyncio.Task", "Future"}
_CACHES = {"dict", "OrderedDict", "defaultdict"}
_CONTAINERS = {"dict", "list", "set", "deque", "OrderedDict", "defaultdict", "Counter"}

NATIVE = Pattern(
    "held by native code",
    "no Python object refers to them: look for a missing Py_DECREF in an extension",
)
CYCLE = Pattern(
    "a reference cycle that is not collected",
    "break the cycle, or look why the collector does not run (gc.disable, gc.freeze)",
)
CYCLE_FINALIZER = Pattern(
    "a reference cycle with a finalizer",
    "break the cycle by hand, or use weakref.finalize instead of __del__",
)
THREAD_LOCAL = Pattern("a thread-local that grows", "clear it when a request or a job ends")
LRU_CACHE = Pattern("an unbounded functools cache", "give lru_cache a maxsize")
EXCEPTION = Pattern(
    "an exception that holds frames",
    "keep its text, not the exception; or drop its __traceback__",
)
LISTENERS = Pattern("listeners that are never removed", "unregister them when their owner ends")
SUSPENDED = Pattern(
    "generators or tasks that are kept and never end", "drop them when they are done, or end them"
)
CLOSURE = Pattern("a closure's variable that grows", "bound it, or make it anew for each use")
CLASS = Pattern("a class attribute that grows", "bound it, or make it an attribute of the instance")
LOCAL = Pattern(
    "a local variable of a running function that grows", "bound it, or empty it in the loop"
)
CONTAINER = Pattern("a module-level container that grows", "bound it")
CACHE = Pattern("an unbounded cache", "bound it")
COLLECTION = Pattern("an unbounded collection of a long-lived object", "bound it")
CHAIN = Pattern("a linked list that grows", "cut it: drop the links that are not needed any more")
ITSELF = Pattern("a buffer that grows", "empty it once it was used")


def recognise(
    way: Way, entry_type: str, has_finalizer: bool, grows_itself: bool, is_chain: bool
) -> Pattern:
    """Name the shape of a leak whose growth collects at the end of a way."""
    types = [short(step.type_name) for step in way.steps]
    names = [step.name for step in way.steps if step.name is not None]
    entry = short(entry_type)
    if "lru_cache" in " ".join(types):
        return LRU_CACHE
    if way.held is Held.CYCLE:
        return CYCLE_FINALIZER if has_finalizer else CYCLE
    is_local = way.root_text == THREAD_LOCAL_ROOT
    if is_local or any(n.kind is EdgeKind.THREAD_LOCAL for n in names) or "_local" in types:
        return THREAD_LOCAL
    if way.held is Held.NATIVE:
        return NATIVE
    if "traceback" in types[1:] or entry == "traceback" or _is_exception(entry):
        return EXCEPTION
    if entry in _SUSPENDED:
        return SUSPENDED
    if is_chain and way.held not in (Held.NATIVE, Held.CYCLE):
        return CHAIN
    said = " ".join(n.text for n in names if n.kind is not EdgeKind.KEY)
    if entry in _CALLABLE or (_LISTENERS.search(said) and not grows_itself):
        return LISTENERS
    if any(n.kind is EdgeKind.CELL for n in names):
        return CLOSURE
    if way.held is Held.FRAME:
        return LOCAL
    if grows_itself and types[-1] not in _CONTAINERS:
        return ITSELF
    if len(types) > 1 and "type" in types[1:-1]:
        return CLASS
    if way.held is Held.MODULE and len(types) == 2:
        return CONTAINER
    return CACHE if types[-1] in _CACHES else COLLECTION


def _is_exception(name: str) -> bool:
    return name.endswith(("Error", "Exception", "Warning"))
