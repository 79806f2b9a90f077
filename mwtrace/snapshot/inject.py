"""Run a script in a Python process that has no hook, at a safe point of its interpreter.

Only what an operator asks for (``--inject``) comes here. The process stands still for less than a
millisecond while a few words of its interpreter are changed; then the interpreter itself runs the
script: by PEP 768 from 3.14 on, as a pending call before. Whatever cannot be done safely is refused
with the reason, and what was not begun by the deadline is taken back. It must not know what the
script is for.
"""

from __future__ import annotations

import os
import re
import time
from typing import NamedTuple

from mwtrace.cpython.runtime import Runtime, find_runtime
from mwtrace.errors import ProcessError, ProcessGone
from mwtrace.host.procfs import Host
from mwtrace.model import ProcessId
from mwtrace.snapshot.pending import PendingCall
from mwtrace.snapshot.points import Busy, Method, Progress, Refused
from mwtrace.snapshot.remote_exec import RemoteExec
from mwtrace.snapshot.script_file import ScriptFile
from mwtrace.snapshot.stopping import ConditionFailed, Stopped, edit_stopped

OLDEST_MINOR, REMOTE_EXEC_MINOR = 8, 14
ATTEMPTS_MAX = 20  # at a moment at which the interpreter is not in the middle of its own changes
_ATTEMPTS_APART_S = 0.005
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.0005, 0.01
_RUNNING_S = 10.0  # how long a script that began may take
_UNREADABLE = (
    "A security module (AppArmor, SELinux, Landlock) may keep it from reading files there."
)
_STATUS_LINE = re.compile(rb"^(\w+):[ \t]*([^\n]*)$", re.M)


class Injected(NamedTuple):
    """The script has run to its end."""

    method: str
    pause_s: float  # that the process stood still
    latency_s: float  # from the change to the script's end
    attempts: int


class NoAnswer(ProcessError):
    """The script did not run, and will not: it was taken back."""

    remedy = "Its threads may wait or be in a long call into C: try again, or use mwtrace's hook."


class StillRunning(ProcessError):
    """The script began and has not ended."""

    remedy = "It goes on by itself; see what the process is doing."


def refusal(pid: int, own_pid: int, status: dict[bytes, bytes], trusts_filter: bool) -> str:
    """Say why nothing may be injected into a process with this status; "" if something may."""
    if pid == own_pid:
        return "that is mwtrace itself"
    if pid == 1:
        return "that is the host's first process"
    state = status.get(b"State", b"?")[:1]
    if state in (b"Z", b"X"):
        return "it has ended"
    if state in (b"T", b"t"):
        return "it is stopped, and would come to no safe point"
    if b"VmSize" not in status:
        return "it has no memory of its own"
    if status.get(b"TracerPid", b"0") != b"0":
        return f"process {int(status[b'TracerPid'])} traces it"
    mode = status.get(b"Seccomp", b"0")
    if mode == b"1" or (mode == b"2" and not trusts_filter):
        return "a seccomp filter may kill it for what the script asks of the kernel"
    return ""


def run_script(
    host: Host,
    process: ProcessId,
    source: str,
    deadline_s: float,
    trusts_filter: bool = False,
) -> Injected:
    """Have a process run Python source once, and wait until it has.

    deadline_s: until it begins. trusts_filter: the operator says that the process's seccomp filter
    answers with errors, as those of container runtimes do, and does not kill.

    Raises Refused before anything was changed, NoAnswer if it was taken back, StillRunning,
    ProcessGone, and UnknownPython or NoPython of ``cpython.runtime``.
    """
    pid = process.pid
    why = refusal(pid, os.getpid(), _status(pid), trusts_filter)
    if why:
        raise Refused(f"nothing is injected into process {pid}: {why}")
    runtime = find_runtime(pid)
    with ScriptFile(pid, source) as script:
        host.check(process)
        return _run(pid, _method(runtime, script.path), script, deadline_s)


def _run(pid: int, method: Method, script: ScriptFile, deadline_s: float) -> Injected:
    ends_s = time.monotonic() + deadline_s
    attempts = 0
    while True:
        stopped, tries = _put(pid, method)
        attempts += tries
        began_s = time.monotonic()
        wait_s = min(method.moves_after_s, ends_s - began_s)
        if _await_begin(method, script, wait_s) or not _take_back(pid, method):
            break
        if time.monotonic() >= ends_s:
            raise NoAnswer(
                f"no thread of process {pid} came to a safe point within {deadline_s:g} s"
            )
    _await_end(pid, method, script)
    latency_s = time.monotonic() - began_s
    _settle(method)
    if script.is_there():
        raise NoAnswer(f"process {pid} could not run {script.path}", _UNREADABLE)
    return Injected(method.name, stopped.pause_s, latency_s, attempts)


def _method(runtime: Runtime, path: str) -> Method:
    minor = runtime.version.minor
    if minor >= REMOTE_EXEC_MINOR:
        return RemoteExec(runtime, path)
    if minor < OLDEST_MINOR:
        raise Refused(f"CPython {runtime.version} of process {runtime.memory.pid} is too old")
    return PendingCall(runtime, path)


def _put(pid: int, method: Method) -> tuple[Stopped, int]:
    for attempt in range(1, ATTEMPTS_MAX + 1):
        try:
            return edit_stopped(pid, method.edits()), attempt
        except (Busy, ConditionFailed) as error:
            why = error
        time.sleep(_ATTEMPTS_APART_S)
    raise Busy(f"{why}, {ATTEMPTS_MAX} times in a row") from why


def _await_begin(method: Method, script: ScriptFile, deadline_s: float) -> bool:
    ends_s = time.monotonic() + deadline_s
    look_s = _FIRST_LOOK_S
    while method.progress() is Progress.WAITING and script.is_there():
        if time.monotonic() >= ends_s:
            return False
        time.sleep(look_s)
        look_s = min(2 * look_s, _LONGEST_LOOK_S)
    return True


def _take_back(pid: int, method: Method) -> bool:
    """Return whether it was taken back; False: it has begun after all."""
    for _ in range(ATTEMPTS_MAX):
        if method.progress() is not Progress.WAITING:
            return False
        try:
            edit_stopped(pid, method.retraction())
        except ConditionFailed:
            time.sleep(_ATTEMPTS_APART_S)
            continue
        _settle(method)
        return True
    raise StillRunning(f"what was injected into process {pid} cannot be taken back")


def _await_end(pid: int, method: Method, script: ScriptFile) -> None:
    ends_s = time.monotonic() + _RUNNING_S
    look_s = _FIRST_LOOK_S
    while method.progress() is not Progress.DONE and script.is_there():
        if time.monotonic() >= ends_s:
            raise StillRunning(f"the script in process {pid} is not done after {_RUNNING_S:g} s")
        time.sleep(look_s)
        look_s = min(2 * look_s, _LONGEST_LOOK_S)


def _settle(method: Method) -> None:
    try:
        method.settle()
    except ProcessGone:
        raise
    except ProcessError:
        pass  # a line of text stays in memory that nobody uses


def _status(pid: int) -> dict[bytes, bytes]:
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            return dict(_STATUS_LINE.findall(file.read(16_384)))
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessGone(f"process {pid} is gone") from error
    except OSError as error:
        raise ProcessError(f"cannot read status of process {pid}: {error.strerror}") from error
