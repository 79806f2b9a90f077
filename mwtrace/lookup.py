"""Which process is meant: a pid, or the name of a service, found in one look at the host."""

from __future__ import annotations

from typing import NamedTuple

from mwtrace.console import wanted
from mwtrace.errors import (
    ConfigError,
    ProcessError,
    ProcessGone,
    ProcessUnreadable,
    Unreadable,
)
from mwtrace.host.procfs import Host
from mwtrace.host.services import ServiceNames
from mwtrace.model import Service, SubjectId
from mwtrace.tell.cells import printable

_NAMES_SUGGESTED_MAX = 5


class Meant(NamedTuple):
    """The process that was meant."""

    pid: int
    service: Service
    process_count: int  # that the word fits; 1 if it was a pid
    private_bytes: int


def find_process(host: Host, word: str) -> Meant:
    """Find the process of that pid, or the largest one of that service.

    Raises ProcessGone, ProcessUnreadable or ConfigError if there is none to be read.
    """
    if word.isascii() and word.isdigit():
        return _of_pid(host, int(word))
    is_wanted = wanted([word])
    there = list(_look(host))
    fitting = [meant for meant in there if is_wanted(SubjectId(meant.service, None))]
    if not fitting:
        there.sort(key=lambda meant: -meant.private_bytes)
        names = list(dict.fromkeys(printable(meant.service.name) for meant in there))
        more = len(names) - _NAMES_SUGGESTED_MAX
        told = names[:_NAMES_SUGGESTED_MAX] + ([f"{more:,} more"] if more > 0 else [])
        raise ConfigError(
            f"no service here matches '{printable(word)}'", f"There are: {', '.join(told)}."
        )
    largest = max(fitting, key=lambda meant: meant.private_bytes)
    return largest._replace(process_count=len(fitting))


def _of_pid(host: Host, pid: int) -> Meant:
    # A thread's files can be read under its id, but it is not in the list.
    if pid not in host.pids():
        gone = ProcessGone(f"cannot read process {pid}: there is none")
        gone.remedy = "ps -e lists them."
        raise gone
    memory = host.memory(pid)
    if memory is None:
        why = "is a kernel thread" if host.stat(pid).is_kernel_thread else "has ended"
        error = ProcessUnreadable(f"cannot read process {pid}: it {why}", Unreadable.OTHER)
        error.remedy = "Only a process with memory can be read."
        raise error
    service = ServiceNames(host).name(host.process_id(pid))
    return Meant(pid, service, 1, memory.anon_bytes + memory.swap_bytes)


def _look(host: Host) -> list[Meant]:
    names = ServiceNames(host)
    found = []
    for pid in host.pids():
        try:
            memory = host.memory(pid)
            if memory is None:
                continue
            stat = host.stat(pid)
            service = names.name(host.process_id(pid), stat.comm)
        except ProcessError:
            continue  # it ended meanwhile, or is none of ours
        found.append(Meant(pid, service, 1, memory.anon_bytes + memory.swap_bytes))
    return found
