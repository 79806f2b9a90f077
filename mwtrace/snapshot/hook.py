"""The hook: lives in a Python service, and has it write its object graph when mwtrace asks.

    import mwtrace_hook                      # importing is enabling

It waits for a real-time signal. When that comes, the service forks and goes on; the child writes
one snapshot into a pipe, from which mwtrace takes it through /proc/PID/fd, and ends. So the hook
needs no folder, no socket and no permission, also in a container, and mwtrace decides what is
kept. While nothing is asked it costs nothing: no thread, no descriptor, one page of memory.

This is one file, however long, because it is copied into other people's environments: standard
library only, CPython 3.8 and later. It must not know mwtrace, and must never raise into the
program it lives in. The program's own methods (__class__, __sizeof__, __repr__, __hash__, ...)
are not called: types are asked by type(), and attributes through the interpreter's descriptors.

How the parent is left alone:
- A process with one thread is cloned in the signal handler, with no exit signal: neither SIGCHLD
  nor the program's own wait() ever tells of the child. No other thread can hold a lock then, so
  no at-fork handler is needed, and none is run.
- With more threads os.fork() is called from a thread of its own: a library's at-fork handler
  that takes a lock (concurrent.futures has one) would wait for ever in a signal handler that
  interrupted the lock's owner. That thread also waits for the child, so that no zombie stays. The
  child's work is done in our own at-fork handler, before those registered later: import this first.
"""

from __future__ import annotations

import _thread
import array
import fcntl
import gc
import itertools
import json
import mmap
import operator
import os
import resource
import signal
import struct
import sys
import termios
import threading
import time
import types
import warnings
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable, NoReturn, Optional

if TYPE_CHECKING:
    import ctypes

    Frames = dict[int, types.FrameType]
    Lists = list[list[Any]]

VERSION = 1

# ---- The mailbox: one page, shared with our child, which mwtrace reads from outside.

MAILBOX_NAME = "mwtrace-hook"  # in /proc/PID/maps: "/memfd:mwtrace-hook (deleted)"
MAILBOX_BYTES = 4096
MAGIC = b"MWHOOK\0" + bytes([VERSION])
REASON_BYTES_MAX = 480
# Offsets of what is written alone; a field of 4 bytes is written at once.
REGISTERED = struct.Struct("<8sIi")  # magic, pid in the innermost namespace, signal
ASKED = (16, struct.Struct("<I"))  # signals that came so far
REFUSED = (20, struct.Struct("<I"))  # the last of them that was refused, for the reason given
STATE = (24, struct.Struct("<I"))
CHILD = (28, struct.Struct("<Ii"))  # pid in the innermost namespace; the pipe's descriptor there
PAUSE = (40, struct.Struct("<Q"))  # nanoseconds that the process stood still; 0: not known yet
TOTALS = (48, struct.Struct("<QQ"))  # objects, bytes put into the pipe
REASON = (64, struct.Struct("<480s"))

IDLE, FORKING, WRITING, DONE, FAILED = range(5)

_PREFERRED_SIGNAL = 43  # raw number: no known library uses 41 to 46 (glibc's SIGRTMIN is 34)
_OTHER_SIGNALS = (44, 45, 46, 42, 41)
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}
_SYS_MEMFD_CREATE = {"x86_64": 319, "aarch64": 279}
_WALL = 0x40000000  # __WALL: wait for children without SIGCHLD, too
_PAUSE_WAIT_S = 0.2

# The originals: gevent and others put their own in these places.
_fork = os.fork
_waitpid = os.waitpid
_start_thread = _thread.start_new_thread
_sleep = time.sleep

why_not = ""  # why the hook is not enabled; "" if it is


class _State:
    """What one process knows; a forked one begins anew."""

    def __init__(self) -> None:
        self.mailbox: Optional[_Mailbox] = None
        self.pid = 0
        self.signal = 0
        self.earlier: Optional[Callable[[int, Optional[types.FrameType]], Any]] = (
            None  # a Python handler that had our signal before us
        )
        self.child = 0
        self.deadline_s = 120.0
        self.reader_wait_s = 5.0
        self.forking_thread = 0
        self.work: tuple[Any, ...] = ()  # of the child that is being forked
        self.thread_names: dict[int, str] = {}  # before a fork, after which threading forgets them


_own = _State()


def _load() -> None:
    # Not at the top: mwtrace reads this file for the mailbox's layout, in a service that may map
    # no memory both writable and executable (systemd's MemoryDenyWriteExecute), as ctypes does.
    global ctypes
    import ctypes


class _Mailbox:
    """A shared page with a name. Holds no descriptor: many programs close all that they find."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        fd = _memfd(libc)
        try:
            os.ftruncate(fd, MAILBOX_BYTES)
            libc.mmap.restype = ctypes.c_void_p
            libc.mmap.argtypes = [
                ctypes.c_void_p,
                ctypes.c_size_t,
                ctypes.c_int,
                ctypes.c_int,
                ctypes.c_int,
                ctypes.c_long,
            ]
            access = mmap.PROT_READ | mmap.PROT_WRITE
            address = libc.mmap(None, MAILBOX_BYTES, access, mmap.MAP_SHARED, fd, 0)
        finally:
            os.close(fd)
        if address in (None, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), "mmap failed")
        self._page = (ctypes.c_char * MAILBOX_BYTES).from_address(address)
        self._address = address
        self._libc = libc

    def put(self, field: tuple[int, struct.Struct], *values: Any) -> None:
        offset, layout = field
        layout.pack_into(self._page, offset, *values)

    def get(self, field: tuple[int, struct.Struct]) -> tuple[Any, ...]:
        offset, layout = field
        return layout.unpack_from(self._page, offset)

    def register(self, pid: int, number: int) -> None:
        REGISTERED.pack_into(self._page, 0, MAGIC, pid, number)

    def fail(self, reason: str) -> None:
        self.put(REASON, _clean(reason))
        self.put(STATE, FAILED)

    def unmap(self) -> None:
        self._libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self._libc.munmap(self._address, MAILBOX_BYTES)


def _clean(reason: str) -> bytes:
    return str(reason).encode("utf-8", "replace")[:REASON_BYTES_MAX]


def _memfd(libc: ctypes.CDLL) -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create(MAILBOX_NAME, os.MFD_CLOEXEC)
    # Pythons that were built with a glibc before 2.27.
    number = _SYS_MEMFD_CREATE[os.uname().machine]
    fd: int = libc.syscall(ctypes.c_long(number), MAILBOX_NAME.encode(), ctypes.c_uint(1))
    if fd < 0:
        raise OSError(ctypes.get_errno(), "memfd_create failed")
    return fd


# ---- Enabling it.


def install(number: Optional[int] = None) -> bool:
    """Claim a signal and register; return whether that worked (``why_not`` says why not).

    number is a signal; by default MWTRACE_SIGNAL, or the first free one. A handler that an asked
    for signal had before is called as well. Call it in the main thread.
    """
    global why_not
    if _own.mailbox is not None:
        return True
    try:
        _install(number)
    except Exception as error:  # the program must not notice, whatever is wrong here
        why_not = f"{error}"
        _say(f"not enabled: {why_not}")
        return False
    why_not = ""
    return True


def _say(words: str) -> None:
    try:
        sys.stderr.write(f"mwtrace_hook: {words}\n")
    except Exception:  # a program without standard error
        pass


def _install(number: Optional[int]) -> None:
    if not sys.platform.startswith("linux") or sys.implementation.name != "cpython":
        raise RuntimeError("this is not CPython on Linux")
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("it was not imported in the main thread, which alone may take signals")
    asked = number if number is not None else os.environ.get("MWTRACE_SIGNAL")
    chosen = int(asked) if asked else _free_signal()
    _own.deadline_s = float(os.environ.get("MWTRACE_DEADLINE", _own.deadline_s))
    _load()
    earlier = signal.getsignal(chosen)
    if earlier is None:
        raise RuntimeError(f"signal {chosen} has a handler that is not Python's")
    _Mailbox().unmap()  # what cannot be had must be known before a signal is claimed
    signal.signal(chosen, _on_signal)
    _own.earlier = earlier if callable(earlier) else None
    _own.signal = chosen
    # 3.12 warns of any fork() beside threads; our child keeps to what is safe there.
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=__name__ + "$")
    os.register_at_fork(after_in_child=_begin_anew)
    _register()


def _free_signal() -> int:
    for number in (_PREFERRED_SIGNAL,) + _OTHER_SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            return number
    raise RuntimeError("signals 41 to 46 are all taken; choose another one with MWTRACE_SIGNAL")


def _register() -> _Mailbox:
    mailbox = _Mailbox()
    _own.pid, _own.child, _own.forking_thread = os.getpid(), 0, 0
    mailbox.register(_own.pid, _own.signal)
    _own.mailbox = mailbox
    return mailbox


def _begin_anew() -> None:
    """In a forked child (a worker, say): it gets a mailbox of its own."""
    if _own.forking_thread == _thread.get_ident():
        # Our own child. It never gets to the handlers that were registered after ours, and that
        # would begin threads and sockets anew, as in a worker.
        _child(*_own.work)
    try:
        before, _own.mailbox = _own.mailbox, None
        if before is not None:
            before.unmap()
        _register()
    except Exception as error:
        _say(f"not enabled in process {os.getpid()}: {error}")


# ---- Being asked.


def _on_signal(number: int, frame: Optional[types.FrameType]) -> None:
    try:
        take(frame)
    except Exception as error:  # never into the program
        _say(f"no snapshot: {error}")
    if _own.earlier is not None:
        _own.earlier(number, frame)


def take(frame: Optional[types.FrameType] = None) -> None:
    """Have a child write one snapshot into a pipe, and go on; what follows is in the mailbox.

    frame is where the main thread was interrupted. Without install(), as when this file is run by
    an injected line, a mailbox is made first.
    """
    mailbox = _own.mailbox
    if mailbox is None:
        _load()
    if mailbox is None or _own.pid != os.getpid():
        mailbox = _register()
    asked = mailbox.get(ASKED)[0] + 1 & 0xFFFFFFFF
    if _own.child and mailbox.get(STATE)[0] in (FORKING, WRITING):
        mailbox.put(REASON, b"the snapshot before is still being written")
        mailbox.put(REFUSED, asked)
        mailbox.put(ASKED, asked)
        return
    _own.child = -1
    mailbox.put(PAUSE, 0)
    mailbox.put(TOTALS, 0, 0)
    mailbox.put(CHILD, 0, -1)
    mailbox.put(STATE, FORKING)
    mailbox.put(ASKED, asked)
    try:
        if _is_alone():
            _clone(mailbox, frame)
        else:
            _start_thread(_fork_in_thread, (mailbox,))
    except BaseException as error:
        _own.child = 0
        mailbox.fail(f"it cannot fork: {error}")
        if not isinstance(error, Exception):
            raise


def _is_alone() -> bool:
    """Whether this thread is the only one, and clone() is known here."""
    has_lock = not hasattr(sys, "_is_gil_enabled") or sys._is_gil_enabled()
    if not has_lock or os.uname().machine not in _SYS_CLONE:
        return False
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


def _clone(mailbox: _Mailbox, frame: Optional[types.FrameType]) -> None:
    """Copy this process, with no exit signal; the child does not return."""
    # PyDLL keeps the interpreter's lock: nothing may run between the call and its return.
    call = ctypes.PyDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    arguments = [ctypes.c_long(_SYS_CLONE[os.uname().machine])] + [ctypes.c_long(0)] * 5
    frames = {_thread.get_ident(): frame} if frame is not None else {}
    pictures: list[_Picture] = []
    _own.thread_names = _thread_names()
    began_ns = time.perf_counter_ns()
    pid = call(*arguments)
    if pid == 0:
        _child(mailbox, frames, pictures)
    ended_ns = time.perf_counter_ns()
    if pid < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    mailbox.put(PAUSE, max(1, ended_ns - began_ns))
    _own.child = pid
    _start_thread(_reap, (mailbox, pid))


def _fork_in_thread(mailbox: _Mailbox) -> None:
    frames: Frames = {}
    pictures: list[_Picture] = []
    try:
        own = _thread.get_ident()
        frames = sys._current_frames()
        frames.pop(own, None)
        _own.forking_thread = own
        _own.thread_names = _thread_names()
        began_ns = time.perf_counter_ns()
        if sys.version_info >= (3, 13):
            # The child's interpreter frees the other threads' states, and their frames with them.
            pictures = take_pictures(frames)
            frames.clear()
        _own.work = (mailbox, frames, pictures)
        pid = _fork()
        if pid == 0:
            _child(mailbox, frames, pictures)
        ended_ns = time.perf_counter_ns()
        _own.forking_thread = 0
        mailbox.put(PAUSE, max(1, ended_ns - began_ns))
        _own.child = pid
    except BaseException as error:
        _own.child = _own.forking_thread = 0
        mailbox.fail(f"it cannot fork: {error}")
        return
    finally:
        # Or locals of the program would live on.
        _own.work = ()
        frames.clear()
        pictures.clear()
    _reap(mailbox, pid)


def _reap(mailbox: _Mailbox, pid: int) -> None:
    """Wait for our child, and for it alone; say how it ended if it could not."""
    reason = ""
    try:
        status = _waitpid(pid, _WALL)[1]
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            reason = f"the child was ended by signal {number}"
            if number in (signal.SIGALRM, signal.SIGXCPU):
                reason = "the child was not done within its time"
    except OSError:  # the program waits for whatever ends, and was faster
        pass
    if _own.child == pid:  # else the next one is being written already
        if mailbox.get(STATE)[0] not in (DONE, FAILED):
            mailbox.fail(reason or "the child ended early")
        _own.child = 0


# ---- The child.


def _child(mailbox: _Mailbox, frames: Frames, pictures: list[_Picture]) -> NoReturn:
    """Write the snapshot and end. Nothing of the parent's Python may run on: _exit on all paths."""
    code = 1
    try:
        gc.disable()
        _settle()
        # For what the interpreter or a library says, so that it cannot get into the pipe.
        while os.open(os.devnull, os.O_RDWR) < 2:
            pass
        read_fd, write_fd = os.pipe()
        deadline_s = time.monotonic() + _PAUSE_WAIT_S
        while not mailbox.get(PAUSE)[0] and time.monotonic() < deadline_s:
            _sleep(0.0005)
        pid = int(os.readlink("/proc/self"))  # old C libraries remember the parent's
        mailbox.put(CHILD, pid, read_fd)
        mailbox.put(STATE, WRITING)
        _write(mailbox, frames, pictures, read_fd, write_fd)
        mailbox.put(STATE, DONE)
        code = 0
    except MemoryError:
        mailbox.fail("the child had no memory left")
    except BrokenPipeError:
        mailbox.fail("whoever asked went away")
    except BaseException as error:
        try:
            mailbox.fail(f"{type(error).__name__}: {error}")
        except BaseException:
            pass
    finally:
        os._exit(code)


def _settle() -> None:
    """Make the child harmless: no handler, no descriptor, no priority, no time without end."""
    # The parent's event loop reads what comes out of this one.
    signal.set_wakeup_fd(-1)
    for number in range(1, signal.NSIG):
        try:
            if callable(signal.getsignal(number)) and number != signal.SIGPIPE:
                signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            pass
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.setitimer(signal.ITIMER_REAL, _own.deadline_s)
    # Copies: that the parent closes a connection must reach the other end before we are done.
    for word in os.listdir("/proc/self/fd"):
        try:
            os.close(int(word))
        except OSError:
            pass
    sys.settrace(None)
    sys.setprofile(None)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_CPU, int(_own.deadline_s) + 1)
    with open("/proc/self/statm", "rb") as file:
        pages = file.read().split()
    page_bytes = resource.getpagesize()
    # The lists of one batch, the ids of shared objects: a fraction of what is there.
    more_bytes = max(256 << 20, int(pages[1]) * page_bytes // 2)
    _lower(resource.RLIMIT_AS, int(pages[0]) * page_bytes + more_bytes)
    try:
        # Under memory pressure the kernel ends this process before any other.
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
            file.write(b"1000")
        os.nice(10)  # at 19 a busy host would not let it end, and copies live as long
    except OSError:
        pass


def _lower(limit: int, value: int) -> None:
    soft, hard = resource.getrlimit(limit)
    known = [number for number in (soft, hard, value) if number != resource.RLIM_INFINITY]
    resource.setrlimit(limit, (min(known), hard))


def _write(
    mailbox: _Mailbox, frames: Frames, pictures: list[_Picture], read_fd: int, write_fd: int
) -> None:
    tracked = tracked_objects()
    stream = Stream(write_fd)
    stream.raw(b"MWSNAP\0\1")
    stream.json(b"HEAD", _head(mailbox))
    stream.flush()
    _wait_for_reader(read_fd)
    os.close(read_fd)
    pictures.extend(take_pictures(frames))
    frames.clear()
    graph = Graph(stream, pictures, lambda: mailbox.put(TOTALS, graph.objects, stream.bytes))
    graph.write(tracked)
    stream.close()
    mailbox.put(TOTALS, graph.objects, stream.bytes)


def _wait_for_reader(read_fd: int) -> None:
    # While we hold its reading end the pipe never breaks, so somebody must have begun to read.
    deadline_s = time.monotonic() + _own.reader_wait_s
    waiting = array.array("i", [0])
    while True:
        fcntl.ioctl(read_fd, termios.FIONREAD, waiting)
        if not waiting[0]:
            return
        if time.monotonic() > deadline_s:
            raise RuntimeError("nobody came to read the snapshot")
        _sleep(0.001)


def _head(mailbox: _Mailbox) -> dict[str, Any]:
    pause_ns = mailbox.get(PAUSE)[0]
    return {
        "pid": _own.pid,
        "start_time_ns": _start_time_ns(),
        "service": None,
        "python": ".".join(map(str, sys.version_info[:3])),
        "implementation": sys.implementation.name,
        "writer": "hook-child",
        "unix_time_s": time.time(),
        "monotonic_s": time.monotonic(),
        "rss_bytes": _rss_bytes(),
        "argv0": _argv0(),
        "gc_counts": list(gc.get_count()),
        "threads": len(_own.thread_names),
        "mwtrace": f"hook {VERSION}",
        "pause_s": pause_ns / 1e9 if pause_ns else None,
        "why": None,
    }


def _start_time_ns() -> Optional[int]:
    try:
        with open(f"/proc/{_own.pid}/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
    return ticks * (10**9 // os.sysconf("SC_CLK_TCK"))


def _rss_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _argv0() -> str:
    words = sys.argv if type(getattr(sys, "argv", None)) is list else []
    return words[0][:200] if words and type(words[0]) is str else ""


# ---- The file: see docs/snapshot-format.md.

_CHUNK = struct.Struct("<4sQ")
_BATCH = 16384  # objects; a chunk holds at most 65,536
_NAMES_BATCH = 65536
_UINT_MAX = 0xFFFFFFFF
_REFERENCES_MAX = 1 << 30  # more: immortal (PEP 683)

MODULE_GLOBAL, ATTRIBUTE, DICT_KEY, LOCAL, CELL = range(5)  # kinds of names
ROOT_MODULE, ROOT_FRAME, ROOT_INTERPRETER = range(3)

# What is named. Attribute names of so many instances of a class are enough to know them all.
_NAMED_PER_SHAPE_MAX = 4096
_SHAPES_MAX = 65536
_NAMES_MAX = 4_000_000
_RECORD_KEYS_MAX = 64  # a dict with more keys holds data, not fields: its keys are not written
_NAME_CHARACTERS_MAX = 80
_NAME_DIGITS_MAX = 3  # more: a token, an id, a date


class Stream:
    """Chunks, compressed, into a descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._zip = zlib.compressobj(1, zlib.DEFLATED, 31)  # 31: a gzip stream
        self._out: list[bytes] = []
        self._waiting = 0
        self.bytes = 0

    def raw(self, data: bytes) -> None:
        self._keep(self._zip.compress(data))

    def chunk(self, kind: bytes, *parts: bytes) -> None:
        self.raw(_CHUNK.pack(kind, sum(map(len, parts))))
        for part in parts:
            self.raw(part)

    def json(self, kind: bytes, value: Any) -> None:
        self.chunk(kind, json.dumps(value, separators=(",", ":")).encode("ascii"))

    def flush(self) -> None:
        self._keep(self._zip.flush(zlib.Z_SYNC_FLUSH))
        self._send()

    def close(self) -> None:
        self._keep(self._zip.flush())
        self._send()

    def _keep(self, data: bytes) -> None:
        self._out.append(data)
        self._waiting += len(data)
        if self._waiting > 1 << 18:
            self._send()

    def _send(self) -> None:
        data = memoryview(b"".join(self._out))
        self._out, self._waiting = [], 0
        self.bytes += len(data)
        while data:
            data = data[os.write(self._fd, data) :]


def _of_type(name: str) -> Callable[[Any], Any]:
    """Return the interpreter's own way to read a class's attribute, whatever its metaclass says."""
    read: Callable[[Any], Any] = type.__dict__[name].__get__
    return read


_mro = _of_type("__mro__")
_class_dict = _of_type("__dict__")
_flags = _of_type("__flags__")
_qualname = _of_type("__qualname__")
_basicsize = _of_type("__basicsize__")
_module_dict = vars(types.ModuleType)["__dict__"].__get__

_HAS_GC = 1 << 14  # Py_TPFLAGS_HAVE_GC
_PREHEADER = 3 << 3  # Py_TPFLAGS_MANAGED_WEAKREF, _DICT: two words before the object, 3.12 on


def _classes(cls: type) -> tuple[type, ...]:
    # None: a class in C that is not ready yet.
    return _mro(cls) or (cls,)


def _is_among(cls: type, classes: tuple[type, ...]) -> bool:
    # "in" would ask a class of the program's whether it is equal.
    return any(one is cls for one in classes)


class _Kind:
    """What is known of one class."""

    def __init__(self, cls: type) -> None:
        self.classes = _classes(cls)
        self.sizer: Optional[Callable[[Any], int]] = (
            None  # None: sys.getsizeof() calls nothing of the program's
        )
        self.extra_bytes = 0
        self._find_sizer(cls)
        self.is_class = _is_among(type, self.classes)
        self.is_dict = _is_among(dict, self.classes)
        self.dict_of: Optional[Callable[[Any], Any]] = None
        self.slots: list[tuple[str, Callable[[Any], Any]]] = []
        for one in self.classes:
            for name, value in (_class_dict(one) or {}).items():
                if type(name) is not str:
                    continue
                if type(value) is types.GetSetDescriptorType and name == "__dict__":
                    self.dict_of = self.dict_of or value.__get__
                elif type(value) is types.MemberDescriptorType and _flags(one) & 1 << 9:
                    self.slots.append((name, value.__get__))  # of a class that Python made
        if self.is_class or cls is types.ModuleType:
            self.dict_of = None  # named apart
        self.is_record = bool(self.dict_of or self.slots)
        self.left = _NAMED_PER_SHAPE_MAX

    def _find_sizer(self, cls: type) -> None:
        is_first = True
        for one in self.classes:
            found = (_class_dict(one) or {}).get("__sizeof__")
            if found is None:
                continue
            if type(found) is types.MethodDescriptorType:
                if not is_first:
                    self.sizer = found
                break
            is_first = False
        if self.sizer is None:
            return
        if _flags(cls) & _HAS_GC:
            self.extra_bytes = 16
        if sys.version_info >= (3, 12) and _flags(cls) & _PREHEADER:
            self.extra_bytes += 16

    def size_bytes(self, thing: Any) -> int:
        """As sys.getsizeof() says it, but for a __sizeof__ that the program wrote."""
        try:
            if self.sizer is None:
                return sys.getsizeof(thing)
            return self.sizer(thing) + self.extra_bytes
        except Exception:
            return object.__sizeof__(thing)


def _class_name(cls: type) -> str:
    module = (_class_dict(cls) or {}).get("__module__")
    if type(module) is not str:
        # Classes made in C carry it in their name only, which this descriptor reads.
        try:
            module = type.__dict__["__module__"].__get__(cls)
        except Exception:
            module = None
    return f"{module if type(module) is str else '?'}.{_qualname(cls)}"


class _Picture:
    """One frame of a thread, and what was seen in it."""

    __slots__ = ("code", "frame", "held", "line", "names", "thread", "values")

    def __init__(self, frame: types.FrameType, thread: int) -> None:
        self.frame = frame
        self.thread = thread
        self.code = frame.f_code
        self.line = frame.f_lineno or 0
        self.held: list[Any] = [frame.f_globals, frame.f_builtins]
        if frame.f_back is not None:
            self.held.append(frame.f_back)
        self.names: list[str] = []
        self.values: list[Any] = []
        local = frame.f_locals
        # A module's locals are its globals; a class's may be anything that __prepare__ returns.
        if local is not frame.f_globals and type(local) in (dict, _FRAME_LOCALS):
            for name, value in dict(local).items():
                self.names.append(name)
                self.values.append(value)


_FRAME_LOCALS = type((lambda: sys._getframe().f_locals)())  # 3.13 on: a view (PEP 667)
_FRAMES_MAX = 4000


def take_pictures(frames: Frames) -> list[_Picture]:
    """Look at all frames of these threads, innermost first; so many at most."""
    found: list[_Picture] = []
    for thread, first in frames.items():
        frame: Optional[types.FrameType] = first
        while frame is not None and len(found) < _FRAMES_MAX:
            found.append(_Picture(frame, thread))
            frame = frame.f_back
    return found


def tracked_objects() -> list[Any]:
    """Return what the collector tracks, before anything of ours is part of it."""
    gc.unfreeze()  # a program that froze its objects: get_objects() leaves those out
    return gc.get_objects()


class Graph:
    """Writes every object: all that the collector tracks, and whatever those refer to."""

    def __init__(self, stream: Stream, pictures: list[_Picture], tell: Callable[[], None]) -> None:
        self._stream = stream
        self._pictures = pictures
        self._tell = tell  # how far we are
        self._kinds: dict[int, _Kind] = {}
        self._shared: set[int] = set()  # ids of untracked objects with more than one reference
        self._strings: dict[str, int] = {}
        self._new_strings: list[str] = []
        self._shapes: dict[tuple[Any, ...], int] = {}
        self._attribute_dicts: set[int] = set()
        self._own_ids: set[int] = set()
        self._begin_names()
        self._roots = (array.array("Q"), array.array("I"), array.array("B"))
        self.objects = self.edges = self.names = self.names_omitted = 0
        self._base = self._calibrate()

    @staticmethod
    def _calibrate() -> int:
        """Return what sys.getrefcount() says of an object that one list of ours holds."""
        return max(map(sys.getrefcount, [object() for _ in range(3)]))

    def write(self, tracked: list[Any]) -> None:
        """Consume a list of all that is tracked; get it by ``tracked_objects()``, and early."""
        pictures = self._pictures
        self._own_ids = {id(pictures)}
        frame_ids = {id(picture.frame) for picture in pictures}
        for picture in pictures:
            self._own_ids.update(map(id, (picture, picture.names, picture.values, picture.held)))
        own: Optional[types.FrameType] = sys._getframe()
        while own is not None and id(own) not in frame_ids:
            self._own_ids.add(id(own))  # ours, that begin where the program was interrupted
            own = own.f_back
        self._own_ids |= frame_ids  # written here, by what was seen in them
        waiting: list[Any] = []
        self._write_frames(pictures, waiting)
        self._write_modules()
        self._write_all(tracked, waiting)
        while waiting:
            self._write_waiting(waiting)
        self._end_names()
        self._stream.chunk(
            b"ROOT",
            struct.pack("<I", len(self._roots[0])),
            *(column.tobytes() for column in self._roots),
        )
        self._stream.json(
            b"END ",
            {
                "objects": self.objects,
                "edges": self.edges,
                "names": self.names,
                "names_omitted": self.names_omitted,
                "truncated": False,
                "reason": None,
            },
        )

    def _write_all(self, things: list[Any], waiting: list[Any]) -> None:
        """Write a list, and consume it; put untracked objects that it leads to into waiting.

        Dicts come last: by then it is known which of them hold the attributes of an instance.
        """
        dicts = list(filter(_is_dict, things))
        while things:
            batch = list(itertools.filterfalse(_is_dict, things[-_BATCH:]))
            del things[-_BATCH:]
            if batch:
                self._write_mixed(batch, waiting)
            del batch
            self._go_on(waiting)
        while dicts:
            batch = dicts[-_BATCH:]
            del dicts[-_BATCH:]
            self._write_dicts(batch, waiting)
            del batch
            self._go_on(waiting)

    def _go_on(self, waiting: list[Any]) -> None:
        self._tell()
        if len(waiting) >= _BATCH:
            self._write_waiting(waiting)

    def _write_waiting(self, waiting: list[Any]) -> None:
        ready = waiting[:]
        del waiting[:]
        self._write_all(ready, waiting)

    # Objects of any class but dict.

    def _write_mixed(self, batch: list[Any], waiting: list[Any]) -> None:
        counts = self._reference_counts(batch)
        classes = list(map(type, batch))
        type_ids = array.array("Q", map(id, classes))
        there = dict(zip(type_ids, classes))
        del classes
        self._learn(there)
        kinds = {type_id: self._kinds[type_id] for type_id in there}
        if not self._own_ids.isdisjoint(map(id, batch)):
            batch, counts, type_ids = self._without_own(batch, counts, type_ids)
        lists = list(map(gc.get_referents, batch))
        self._correct(batch, type_ids, kinds, there, lists)
        if any(kind.sizer is not None for kind in kinds.values()):
            sizes = [kinds[type_id].size_bytes(one) for type_id, one in zip(type_ids, batch)]
        else:
            try:
                sizes = list(map(sys.getsizeof, batch))
            except Exception:
                sizes = [kinds[type_id].size_bytes(one) for type_id, one in zip(type_ids, batch)]
        ids = array.array("Q", map(id, batch))
        self._name_records(batch, type_ids, kinds, lists)
        self._put(ids, type_ids, sizes, counts, lists)
        del batch
        if sys.version_info >= (3, 13):
            twice = [
                id(dict) in map(id, map(type, inner))
                # Where the dict of attributes is not visited (3.13.0), it is tracked all the same.
                or (sys.version_info < (3, 14) and kinds[type_id].dict_of is not None)
                for type_id, inner in zip(type_ids, lists)
            ]
            self._untracked(list(itertools.compress(lists, twice)), waiting, is_once=False)
            lists = list(itertools.compress(lists, map(operator.not_, twice)))
        self._untracked(lists, waiting)

    def _without_own(
        self, batch: list[Any], counts: array.array[int], type_ids: array.array[int]
    ) -> tuple[list[Any], array.array[int], array.array[int]]:
        kept = [number for number, one in enumerate(batch) if id(one) not in self._own_ids]
        return (
            [batch[number] for number in kept],
            array.array("Q", [counts[number] for number in kept]),
            array.array("Q", [type_ids[number] for number in kept]),
        )

    @staticmethod
    def _correct(
        batch: list[Any],
        type_ids: array.array[int],
        kinds: dict[int, _Kind],
        there: dict[int, type],
        lists: Lists,
    ) -> None:
        """Add what the collector does not visit: strings as keys, and what code objects hold."""
        special = {type_id for type_id, kind in kinds.items() if kind.is_dict}
        code = id(types.CodeType) if id(types.CodeType) in there else None
        if not special and code is None:
            return
        for number, type_id in enumerate(type_ids):
            if type_id in special:
                known = set(map(id, lists[number]))
                keys = [key for key in dict.keys(batch[number]) if id(key) not in known]
                lists[number] = lists[number] + keys
            elif type_id == code:
                one = batch[number]
                lists[number] = [one.co_consts, one.co_names, one.co_filename, one.co_name]

    def _reference_counts(self, batch: list[Any]) -> array.array[int]:
        """But for our own one reference, the batch's."""
        return array.array("Q", map((-self._base).__add__, map(sys.getrefcount, batch)))

    # Dicts.

    def _write_dicts(self, batch: list[Any], waiting: list[Any]) -> None:
        counts = self._reference_counts(batch)
        lists = [[*one.values(), *one] for one in batch]
        self._learn({id(dict): dict})
        sizes = list(map(sys.getsizeof, batch))
        ids = array.array("Q", map(id, batch))
        self._name_dicts(batch)
        self._put(ids, array.array("Q", [id(dict)]) * len(ids), sizes, counts, lists)
        del batch
        self._untracked(lists, waiting)

    def _untracked(self, lists: Lists, waiting: list[Any], is_once: bool = True) -> None:
        """Consume lists; put the untracked objects among them that are new into waiting.

        Not is_once: what is in the lists may be there by one reference and yet be met again. From
        3.13 on an object's attributes and the dict of them are the same memory, visited twice.
        """
        flat = list(itertools.chain.from_iterable(lists))
        del lists[:]
        flat = list(itertools.compress(flat, map(operator.not_, map(gc.is_tracked, flat))))
        found = dict(zip(map(id, flat), flat))
        del flat
        ids, things = list(found), list(found.values())
        del found
        shared, limit = self._shared, self._base + 1
        for one_id, one, count in zip(ids, things, list(map(sys.getrefcount, things))):
            if one_id in shared:
                continue
            # With one reference only, it is met only once. Those of interned strings count less.
            if count > limit or not is_once or (type(one) is str and _is_interned(one)):
                shared.add(one_id)
            waiting.append(one)

    def _put(
        self,
        ids: array.array[int],
        type_ids: array.array[int],
        sizes: list[int],
        counts: Iterable[int],
        lists: Lists,
    ) -> None:
        if max(counts, default=0) >= _REFERENCES_MAX:
            counts = [count if count < _REFERENCES_MAX else _UINT_MAX for count in counts]
        if max(sizes, default=0) >= _UINT_MAX:
            large = [(one, size) for one, size in zip(ids, sizes) if size >= _UINT_MAX]
            sizes = [min(size, _UINT_MAX) for size in sizes]
            flat = itertools.chain.from_iterable(large)
            self._stream.chunk(b"BIGS", array.array("Q", flat).tobytes())
        lengths = array.array("I", map(len, lists))
        referents = array.array("Q", map(id, itertools.chain.from_iterable(lists)))
        self._stream.chunk(
            b"OBJS",
            struct.pack("<II", len(ids), 0),
            ids.tobytes(),
            type_ids.tobytes(),
            array.array("I", sizes).tobytes(),
            array.array("I", counts).tobytes(),
            lengths.tobytes(),
            referents.tobytes(),
        )
        self.objects += len(ids)
        self.edges += len(referents)

    def _learn(self, there: dict[int, type]) -> None:
        rows: list[list[Any]] = []
        for type_id, cls in there.items():
            if type_id not in self._kinds:
                self._kinds[type_id] = _Kind(cls)
                rows.append([type_id, _class_name(cls), _basicsize(cls)])
        if rows:
            self._stream.json(b"TYPE", rows)

    # Frames and modules: the roots.

    def _write_frames(self, pictures: list[_Picture], waiting: list[Any]) -> None:
        if not pictures:
            return
        self._learn({id(types.FrameType): types.FrameType})
        threads = _own.thread_names
        lists: Lists = []
        frames = [picture.frame for picture in pictures]
        for picture in pictures:
            code = picture.code
            name = threads.get(picture.thread, "?")
            place = f"{code.co_filename}:{picture.line}"
            self._root(picture.frame, f"thread {name}: {code.co_name} ({place})", ROOT_FRAME)
            for local, value in zip(picture.names, picture.values):
                self._name(id(picture.frame), id(value), local, LOCAL)
            lists.append([code, *picture.held, *picture.values])
        del pictures[:]  # or the references of locals would be counted with ours
        ids = array.array("Q", map(id, frames))
        type_ids = array.array("Q", [id(types.FrameType)]) * len(ids)
        sizes = [sys.getsizeof(frame) for frame in frames]
        self._put(ids, type_ids, sizes, [_UINT_MAX] * len(ids), lists)
        self._untracked(lists, waiting)

    def _write_modules(self) -> None:
        for name, module in list(sys.modules.items()):
            if type(name) is not str:
                continue
            if not _is_among(types.ModuleType, _classes(type(module))):
                continue
            self._root(module, name, ROOT_MODULE)
            inner = _module_dict(module)
            self._attribute_dicts.add(id(inner))
            self._name_items(inner, id(inner), MODULE_GLOBAL)
        self._root(sys.modules, "sys.modules", ROOT_INTERPRETER)

    def _root(self, thing: Any, text: str, kind: int) -> None:
        ids, strings, kinds = self._roots
        ids.append(id(thing))
        strings.append(self._string(text))
        kinds.append(kind)

    # Names.

    def _name_records(
        self,
        batch: list[Any],
        type_ids: array.array[int],
        kinds: dict[int, _Kind],
        lists: Lists,
    ) -> None:
        named = {
            type_id: kind
            for type_id, kind in kinds.items()
            if (kind.is_record and kind.left > 0) or kind.is_class
        }
        function = id(types.FunctionType)
        if not named and function not in kinds:
            return
        for type_id, one, referents in zip(type_ids, batch, lists):
            if type_id == function:
                if one.__closure__:
                    self._name_cells(one)
            kind = named.get(type_id)
            if kind is None:
                continue
            if kind.is_class:
                self._name_class(one)
            elif kind.left > 0:
                kind.left -= 1
                self._name_instance(one, kind, referents)

    def _name_class(self, cls: type) -> None:
        inner = gc.get_referents(_class_dict(cls))[:1]  # what the read-only view is a view of
        if inner and type(inner[0]) is dict:
            self._attribute_dicts.add(id(inner[0]))
            self._name_items(inner[0], id(inner[0]), ATTRIBUTE)

    def _name_instance(self, one: Any, kind: _Kind, referents: list[Any]) -> None:
        for name, get in kind.slots:
            try:
                self._name(id(one), id(get(one)), name, ATTRIBUTE)
            except AttributeError:  # not set
                pass
        if kind.dict_of is None:
            return
        # Where attributes have no dict yet (3.11 on) this makes one; it is not among the objects,
        # because what one refers to was asked before.
        try:
            inner = kind.dict_of(one)
        except Exception:
            return
        if type(inner) is dict:
            is_held = any(referent is inner for referent in referents)
            if is_held:
                self._attribute_dicts.add(id(inner))
            self._name_items(inner, id(inner) if is_held else id(one), ATTRIBUTE)

    def _name_items(self, inner: dict[Any, Any], source_id: int, kind: int) -> None:
        for key, value in inner.items():
            if type(key) is str:
                self._name(source_id, id(value), key, kind)

    def _name_cells(self, function: Any) -> None:
        for name, cell in zip(function.__code__.co_freevars, function.__closure__):
            try:
                self._name(id(cell), id(cell.cell_contents), name, CELL)
            except ValueError:  # empty
                pass

    def _name_dicts(self, batch: list[Any]) -> None:
        shapes, known = self._shapes, self._attribute_dicts
        for one in batch:
            if not 0 < len(one) <= _RECORD_KEYS_MAX or id(one) in known:
                continue
            shape = tuple(one)
            if any(type(key) is not str for key in shape):
                shape = ()  # to hash a foreign key would be to call the program
            left = shapes.get(shape)
            if left is None:
                left = _NAMED_PER_SHAPE_MAX if len(shapes) < _SHAPES_MAX else 0
            if left <= 0:
                self.names_omitted += len(one)
                continue
            shapes[shape] = left - 1
            for key, value in one.items():
                if type(key) is str and _is_name(key):
                    self._name(id(one), id(value), key, DICT_KEY)

    def _begin_names(self) -> None:
        self._names = (array.array("Q"), array.array("Q"), array.array("I"), array.array("B"))

    def _name(self, source_id: int, target_id: int, text: str, kind: int) -> None:
        if self.names >= _NAMES_MAX or len(text) > _NAME_CHARACTERS_MAX:
            self.names_omitted += 1
            return
        sources, targets, strings, kinds = self._names
        sources.append(source_id)
        targets.append(target_id)
        strings.append(self._string(text))
        kinds.append(kind)
        self.names += 1
        if len(sources) >= _NAMES_BATCH:
            self._end_names()

    def _string(self, text: str) -> int:
        number = self._strings.get(text)
        if number is None:
            number = self._strings[text] = len(self._strings)
            self._new_strings.append(text)
        return number

    def _end_names(self) -> None:
        if self._new_strings:
            self._stream.json(b"STRS", self._new_strings)
            self._new_strings = []
        if self._names[0]:
            count = struct.pack("<I", len(self._names[0]))
            self._stream.chunk(b"NAME", count, *(column.tobytes() for column in self._names))
        self._begin_names()


# Before 3.13 the references of interned strings are counted in full.
_is_interned: Callable[[str], bool] = getattr(sys, "_is_interned", lambda text: False)


def _is_dict(thing: Any) -> bool:
    return type(thing) is dict


def _is_name(key: str) -> bool:
    return (
        len(key) <= _NAME_CHARACTERS_MAX
        and key.isidentifier()
        and sum(map(str.isdigit, key)) <= _NAME_DIGITS_MAX
    )


def _threads() -> dict[int, Any]:
    # Not threading.enumerate(): its lock may be held by a thread that is not in this process.
    return dict(getattr(threading, "_active", {}))


def _thread_names() -> dict[int, str]:
    """Return names by thread id, without a method of the program's."""
    names = {}
    for ident, thread in _threads().items():
        try:
            inner = threading.Thread.__dict__["__dict__"].__get__(thread)
            name = inner.get("_name")
        except Exception:
            name = None
        names[ident] = name if type(name) is str else "?"
    return names


if __name__ == "mwtrace_hook":
    install()
