"""Facts about a process and its kernel in, refusals with reasons out: the gates before a probe.

Law of this file's upper half: it decides and reads nothing. ``read_target_facts`` below it is the
only thing that touches /proc. A gate asks for a kernel version only where the fault it guards
against cannot be tried out without harm; distributions backport, so an operator may overrule
those (``overruled``), but never the ones that protect a process from being killed or misread.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Collection
from typing import NamedTuple

from mwtrace.errors import ProcessError, ProcessGone

# start_time in /proc has ticks of 10 ms, the kernel's own is exact.
TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")
STATUS_BYTES_MAX = 16 * 1024


class Gate(enum.Enum):
    """The names under which doctor, the metric and the configuration know the gates."""

    OURSELVES = "ourselves"
    INIT = "init"
    KERNEL_THREAD = "kernel thread"
    IDENTITY = "identity"
    PROGRAM_CHANGED = "program changed"
    TRACED = "traced"
    STOPPED = "stopped"
    ZOMBIE = "zombie"
    BITS_32 = "32 bits"
    MACHINE = "machine"
    SHARED_MEMORY = "shared memory"
    SECCOMP_RETURN = "seccomp return"
    STACK_RACE = "stack race"


class Severity(enum.Enum):
    REFUSE = "refuse"  # no probe in this process
    WITHOUT_RETURNS = "without returns"  # probes at entries only
    WITHOUT_KERNEL_STACKS = "without kernel stacks"  # no bpf_get_stack() in a uprobe program


class Refusal(NamedTuple):
    gate: Gate
    severity: Severity
    reason: str
    remedy: str


class TargetFacts(NamedTuple):
    """What the gates want to know of a process."""

    pid: int
    start_time_ns: int  # in whole ticks
    state: str  # one letter, as in /proc/PID/stat
    tracer_pid: int
    seccomp_mode: int  # 0 none, 1 strict, 2 filter
    is_kernel_thread: bool
    machine: str  # of its executable: "x86-64", ...; "" if not readable
    bits: int
    executable: tuple[int, int]  # device, inode; (0, 0) if not readable
    shares_memory: bool  # with its parent: between vfork() and exec()


class KernelFacts(NamedTuple):
    release: tuple[int, int]
    machine: str  # of this host, named as TargetFacts.machine


def refusals(
    target: TargetFacts,
    kernel: KernelFacts,
    own_pids: Collection[int],
    expected_start_time_ns: int,
    expected_executable: tuple[int, int] = (0, 0),
    overruled: Collection[Gate] = (),
) -> list[Refusal]:
    """Every gate that is closed. Probes may be attached as far as the severities allow.

    ``expected_executable`` (0, 0) asks for none; after attaching, ask again with the one seen
    before: an exec in between means the probes sit in another program.
    """
    closed = [*_identity_gates(target, expected_start_time_ns, expected_executable)]
    if target.pid in own_pids:
        closed.append(_refuse(Gate.OURSELVES, "this is mwtrace itself", "Watch another process."))
    if target.pid == 1:
        reason = "a fault in init takes the host down"
        closed.append(_refuse(Gate.INIT, reason, "Probe the services it has started instead."))
    if target.is_kernel_thread:
        closed.append(_refuse(Gate.KERNEL_THREAD, "a kernel thread allocates no user memory", ""))
    closed += _state_gates(target)
    closed += _program_gates(target, kernel)
    closed += [gate for gate in _kernel_gates(target, kernel) if gate.gate not in overruled]
    return closed


def may_probe(closed: Collection[Refusal]) -> bool:
    return all(refusal.severity is not Severity.REFUSE for refusal in closed)


def same_start(left_ns: int, right_ns: int) -> bool:
    """Whether two start times, of whichever precision, can be of one process."""
    return abs(left_ns - right_ns) < TICK_NS


def _refuse(gate: Gate, reason: str, remedy: str) -> Refusal:
    return Refusal(gate, Severity.REFUSE, reason, remedy)


def _identity_gates(
    target: TargetFacts, start_time_ns: int, executable: tuple[int, int]
) -> list[Refusal]:
    closed = []
    if not same_start(target.start_time_ns, start_time_ns):
        reason = "its pid belongs to another process now"
        closed.append(_refuse(Gate.IDENTITY, reason, "Nothing to do: the process has ended."))
    if executable not in ((0, 0), target.executable):
        reason = "it runs another program now (exec)"
        closed.append(_refuse(Gate.PROGRAM_CHANGED, reason, "It is looked at again by itself."))
    return closed


def _state_gates(target: TargetFacts) -> list[Refusal]:
    closed = []
    if target.tracer_pid:
        reason = f"process {target.tracer_pid} traces it (debugger, strace)"
        remedy = "End the tracer; breakpoints of two tools in one process confuse both."
        closed.append(_refuse(Gate.TRACED, reason, remedy))
    if target.state in ("T", "t"):
        reason = "it is stopped, so a window would show nothing"
        closed.append(_refuse(Gate.STOPPED, reason, "Continue it (SIGCONT)."))
    if target.state in ("Z", "X"):
        closed.append(_refuse(Gate.ZOMBIE, "it has ended and waits for its parent", ""))
    if target.shares_memory:
        reason = "it shares its parent's memory (vfork), which a probe would change"
        closed.append(_refuse(Gate.SHARED_MEMORY, reason, "It is looked at again by itself."))
    return closed


def _program_gates(target: TargetFacts, kernel: KernelFacts) -> list[Refusal]:
    if target.is_kernel_thread or not target.machine:
        return []
    if target.bits != 64:
        reason = "a 32-bit program: its arguments are not where the programs look"
        return [_refuse(Gate.BITS_32, reason, "Use growth sampling, which needs no probe in it.")]
    if target.machine != kernel.machine:
        reason = f"a program for {target.machine} on a {kernel.machine} host"
        return [_refuse(Gate.MACHINE, reason, "Use growth sampling, which needs no probe in it.")]
    return []


def _kernel_gates(target: TargetFacts, kernel: KernelFacts) -> list[Refusal]:
    closed = []
    # The uretprobe system call came with 6.11 (x86-64 only) and goes through seccomp filters,
    # which kill for a call they don't know, until cf6cb56ef244 ("seccomp: passthrough uretprobe
    # systemcall without filtering", 6.14). Before 6.11 a return is a trap: no system call.
    if target.seccomp_mode and kernel.machine == "x86-64" and (6, 11) <= kernel.release < (6, 14):
        closed.append(
            Refusal(
                Gate.SECCOMP_RETURN,
                Severity.WITHOUT_RETURNS,
                "its seccomp filter would kill it for the kernel's uretprobe system call",
                "Linux 6.14 or a backport of cf6cb56ef244; growth sampling works without.",
            )
        )
    if kernel.release < (6, 13):
        closed.append(
            Refusal(
                Gate.STACK_RACE,
                Severity.WITHOUT_KERNEL_STACKS,
                "kernels before 6.13 can fault when they unwind a user stack inside a uprobe",
                "Linux 6.13; if the distribution has backported the fix, overrule 'stack race'.",
            )
        )
    return closed


def parse_release(text: str) -> tuple[int, int]:
    """Read "6.18.44-amd64"; (0, 0) if it says nothing of the kind, which closes version gates."""
    found = re.match(r"(\d{1,4})\.(\d{1,4})", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def read_kernel_facts() -> KernelFacts:
    uname = os.uname()
    machine = {"x86_64": "x86-64"}.get(uname.machine, uname.machine)
    return KernelFacts(parse_release(uname.release), machine)


def read_target_facts(pid: int) -> TargetFacts:
    """Read what the gates want to know. Raises ProcessGone, or ProcessError if not ours to see."""
    try:
        stat = _read(pid, "stat")
        status = _read(pid, "status")
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessGone(f"process {pid} is gone") from error
    except OSError as error:
        raise ProcessError(f"cannot look at process {pid}: {error}") from error
    # The name is in parentheses and may contain any, so begin behind the last one.
    words = stat[stat.rindex(b")") + 2 :].split()
    machine, bits, executable = _executable(pid)
    return TargetFacts(
        pid,
        int(words[19]) * TICK_NS,
        words[0].decode("ascii", "replace"),
        _number(status, b"TracerPid"),
        _number(status, b"Seccomp"),
        bool(int(words[6]) & 0x00200000),  # PF_KTHREAD
        machine,
        bits,
        executable,
        _shares_memory(pid, int(words[1])),
    )


def _read(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
        return file.read(STATUS_BYTES_MAX)


def _number(status: bytes, name: bytes) -> int:
    found = re.search(rb"^" + name + rb":\s*(\d{1,10})$", status, re.MULTILINE)
    return int(found[1]) if found else 0


def _executable(pid: int) -> tuple[str, int, tuple[int, int]]:
    # The five fields of an ELF header that are wanted here; the rest is host/elf's affair.
    try:
        fd = os.open(f"/proc/{pid}/exe", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return "", 0, (0, 0)
    try:
        status = os.fstat(fd)
        head = os.pread(fd, 20, 0)
    except OSError:
        return "", 0, (0, 0)
    finally:
        os.close(fd)
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return "", 0, (status.st_dev, status.st_ino)
    number = int.from_bytes(head[18:20], "little")
    machine = {62: "x86-64", 183: "aarch64", 3: "x86", 40: "arm"}.get(number, f"machine {number}")
    return machine, 64 if head[4] == 2 else 32, (status.st_dev, status.st_ino)


def _shares_memory(pid: int, parent_pid: int) -> bool:
    from mwtrace.capi import lib

    return bool(lib.mw_process_shares_memory(pid, parent_pid) == 1) if parent_pid else False
