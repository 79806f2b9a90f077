"""Finds the CPython of a process: version, layout, interpreter, threads.

Everything found is checked against something else that it must agree with, so that a version
whose tables do not fit is refused instead of misread. Reads memory only; must not know BPF.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mwtrace.cpython.images import Image, Symbols, images
from mwtrace.cpython.layouts import (
    COOKIE,
    Layout,
    PythonVersion,
    UnknownPython,
    debug_offsets_bytes,
    layout_for,
    with_debug_offsets,
)
from mwtrace.errors import ProcessError
from mwtrace.host.mappings import Mapping, read_mappings
from mwtrace.remote import RemoteMemory, UnreadableMemory

THREADS_MAX = 16384
INTERPRETERS_MAX = 256
# Where a version is looked for as text: libpython's constants have 2 MB.
_CONSTANTS_BYTES_MAX = 32 << 20
# Not always a string of its own: linkers share the tail of ".../versions/3.8.18".
_VERSION_TEXT = re.compile(rb"(?<![\d.])(3)\.(\d{1,2})\.(\d{1,2})(?:\+|(?:a|b|rc)\d+\+?)?\x00")
_VERSION_IN_NAME = re.compile(r"python(\d)\.(\d+)")


class NoPython(ProcessError):
    """Nothing in the process looks like CPython."""

    remedy = "Only native frames are shown for it."


@dataclass(frozen=True)
class PythonThread:
    state: int  # address of its PyThreadState
    thread_pointer: int  # what pthread_self() says; on x86-64 the fs base


@dataclass(frozen=True)
class Runtime:
    """One process's CPython, as found and checked."""

    memory: RemoteMemory
    image: Image
    layout: Layout
    address: int  # of _PyRuntime
    interpreter: int  # address of the main interpreter's state
    code_type: int | None  # address of PyCode_Type

    @property
    def version(self) -> PythonVersion:
        return self.layout.version

    @property
    def gil_holder_address(self) -> int:
        """Where the PyThreadState * of the GIL's holder, or last holder, is."""
        current = self.layout.get("rt.tstate_current")
        if current is not None:
            return self.address + current
        gil = self.memory.u64(self.interpreter + self.layout["is.gil_ptr"])
        return gil + self.layout["gil.last_holder"]

    def interpreters(self) -> Iterator[int]:
        """Yield the addresses of all interpreter states, the main one first."""
        yield self.interpreter
        state = self.memory.u64(self.address + self.layout["rt.interp_head"])
        for _ in range(INTERPRETERS_MAX):
            if not state:
                return
            if state != self.interpreter:
                yield state
            state = self.memory.u64(state + self.layout["is.next"])

    def threads(self) -> list[PythonThread]:
        """Return all threads of all interpreters; what appears while it is read may be missed."""
        found: list[PythonThread] = []
        for interpreter in self.interpreters():
            state = self.memory.u64(interpreter + self.layout["is.threads_head"])
            while state and len(found) < THREADS_MAX:
                head = self.memory.read(state, self.layout["ts.thread_id"] + 8)
                found.append(PythonThread(state, int.from_bytes(head[-8:], "little")))
                place = self.layout["ts.next"]
                state = int.from_bytes(head[place : place + 8], "little")
        return found


def find_runtime(pid: int, memory: RemoteMemory | None = None) -> Runtime:
    """Find and check the CPython of a process; memory, if given, is how to read it.

    Raises NoPython; UnknownPython for a version or build that we cannot read, or one that is not
    ready yet; ProcessGone.
    """
    memory = memory or RemoteMemory(pid)
    mapped = read_mappings(pid)
    for image in sorted(images(mapped), key=_unlikeliness):
        try:
            symbols = Symbols(memory, image)
        except UnreadableMemory:
            continue
        address = symbols.address("_PyRuntime")
        if address is None:
            continue
        try:
            return _checked(_read_runtime(memory, image, symbols, address))
        except UnreadableMemory as error:
            raise UnknownPython(f"the CPython of process {pid} is not readable: {error}") from error
    raise NoPython(f"process {pid} has no _PyRuntime")


def _unlikeliness(image: Image) -> int:
    name = image.path.rpartition("/")[2]
    return 0 if name.startswith("libpython") else 1 if "python" in name else 2


def _read_runtime(memory: RemoteMemory, image: Image, symbols: Symbols, address: int) -> Runtime:
    head = memory.read(address, 24)
    if head[:8] == COOKIE:
        version = PythonVersion.from_hex(int.from_bytes(head[8:16], "little"))
        layout = layout_for(version)
        layout = with_debug_offsets(layout, memory.read(address, debug_offsets_bytes(version)))
        if int.from_bytes(head[16:24], "little"):
            raise UnknownPython(f"CPython {version} of process {memory.pid} is free-threaded")
        interpreter = _main_interpreter(memory, layout, address)
    else:
        version = _version(memory, image, symbols)
        layout = layout_for(version)
        interpreter = memory.u64(address + layout["rt.interp_main"])
    return Runtime(memory, image, layout, address, interpreter, symbols.address("PyCode_Type"))


def _main_interpreter(memory: RemoteMemory, layout: Layout, address: int) -> int:
    """Return the interpreter whose id is 0: the runtime's own table does not name it."""
    state = memory.u64(address + layout["rt.interp_head"])
    for _ in range(INTERPRETERS_MAX):
        if not state or memory.u64(state + layout["is.id"]) == 0:
            break
        state = memory.u64(state + layout["is.next"])
    return state


def _version(memory: RemoteMemory, image: Image, symbols: Symbols) -> PythonVersion:
    """Return the version of a CPython before 3.13."""
    address = symbols.address("Py_Version")  # 3.11 and later
    if address is not None:
        return PythonVersion.from_hex(int.from_bytes(memory.read(address, 4), "little"))
    named = _VERSION_IN_NAME.search(image.path)
    for mapping in image.mappings:
        for match in _VERSION_TEXT.finditer(_constants(memory, mapping)):
            version = PythonVersion(*(int(part) for part in match.groups()))
            if not named or named.groups() == (str(version.major), str(version.minor)):
                return version
    raise UnknownPython(f"the CPython of process {memory.pid} does not say its version")


def _constants(memory: RemoteMemory, mapping: Mapping) -> bytes:
    if not mapping.is_readable or mapping.is_writable:
        return b""
    return memory.read_some(mapping.start, min(mapping.end - mapping.start, _CONSTANTS_BYTES_MAX))


def _checked(runtime: Runtime) -> Runtime:
    """Return runtime if its parts agree; raises UnknownPython if not."""
    memory, layout = runtime.memory, runtime.layout
    what = f"CPython {runtime.version} of process {memory.pid}"
    if not runtime.interpreter:
        raise UnknownPython(f"{what} has no interpreter yet")
    threads = runtime.threads()
    if not threads:
        raise UnknownPython(f"{what} has no thread yet")
    known = set(runtime.interpreters())
    for thread in threads:
        if memory.u64(thread.state + layout["ts.interp"]) not in known:
            raise UnknownPython(f"{what} is laid out in another way: a thread without interpreter")
    main = memory.u64(runtime.address + layout["rt.main_thread"])
    if main not in {thread.thread_pointer for thread in threads}:
        raise UnknownPython(f"{what} is laid out in another way: its main thread is not listed")
    holder = memory.u64(runtime.gil_holder_address)
    if holder and holder not in {thread.state for thread in runtime.threads()}:
        # The holder may be a thread that is just coming or going: once more, then give up.
        holder = memory.u64(runtime.gil_holder_address)
        if holder and holder not in {thread.state for thread in runtime.threads()}:
            raise UnknownPython(f"{what} is laid out in another way: a stranger holds the GIL")
    return runtime
