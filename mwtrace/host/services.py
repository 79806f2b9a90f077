"""Which service a process belongs to: systemd unit, container, else what it runs.

The rules, with examples that are also the tests, are in docs/services.md. This file reads a
process's cgroup and command line through procfs.py and decides; how a command line becomes a name
is said in commands.py. It keeps no memory samples and judges nothing.
"""

from __future__ import annotations

import re
from typing import Callable, NamedTuple

from mwtrace.errors import ProcessError, ProcessGone, ProcessUnreadable, Unreadable
from mwtrace.host import text
from mwtrace.host.cgroups import parse_membership, parts
from mwtrace.host.commands import Command, command_name, is_helper
from mwtrace.host.containers import ContainerNames
from mwtrace.host.procfs import Host, unreadable
from mwtrace.model import ProcessId, Service, ServiceKind

_ANCESTORS_MAX = 8

_SHORT_ID_CHARACTERS = 12
_CONTAINER = re.compile(
    r"(?:(?:docker|cri-containerd|crio|libpod|nerdctl|containerd|podman)-|[^/]*:)?"
    r"([0-9a-f]{64})(?:\.scope)?"
    r"|([0-9a-f]{32}-\d{8,10})"  # Amazon ECS
)
_SYSTEM_CONTAINER = re.compile(r"lxc\.payload\.(.+)|machine-(?:qemu\\x2d\d+\\x2d)?(.+)\.scope")
_POD = re.compile(
    r"(?:kubepods.*-)?pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?"
)
_USER = re.compile(r"user@(\d{1,10})\.service|user-(\d{1,10})\.slice")
# Units that systemd-run or a desktop makes up, and units whose task is to run what others wrote:
# what they run is what an operator would name.
_NAMELESS_UNIT = re.compile(
    r"run-(?:[ru][0-9a-f]+|p\d+-i\d+)\.service|user@\d+\.service"
    r"|(?:crond?|anacron|atd|sshd?|supervisor|supervisord|circusd?|pm2-.*|getty@.*)\.service"
)
# Instances that are new with every start: a random id, or number-address-address of a socket.
_PASSING_INSTANCE = re.compile(r"@(?:[0-9a-f]{16,}|\d+-\d[\d.:]*-\d[\d.:-]*)\.service$")


class Place(NamedTuple):
    """What a cgroup path says: a container, a unit, a unit inside a container, or nothing."""

    container_id: str = ""  # of a runtime that numbers them
    container_name: str = ""  # of one that names them
    pod_uid: str = ""
    unit: str = ""
    user: str = ""  # whose session it is in: the user chose the names in it, not the operator


def place(path: str) -> Place:
    """Read a cgroup path from its innermost part outwards."""
    unit, in_scope = "", False
    components = parts(path)
    user_match = next(filter(None, map(_USER.fullmatch, components)), None)
    user = (user_match[1] or user_match[2]) if user_match else ""
    for index in range(len(components) - 1, -1, -1):
        component = components[index]
        match = _CONTAINER.fullmatch(component)
        if match:
            around = [*component.split(":"), *components[:index]]
            pod = next(filter(None, map(_POD.fullmatch, around)), None)
            uid = pod[1].replace("_", "-") if pod else ""
            return Place(match[1] or match[2], "", uid, unit, user)
        match = _SYSTEM_CONTAINER.fullmatch(component)
        if match:
            return Place("", match[1] or match[2], "", unit, user)
        if index > 0 and components[index - 1] == "lxc":
            return Place("", component, "", unit, user)
        if component.endswith(".service") and not unit and not in_scope:
            if _NAMELESS_UNIT.fullmatch(component):
                in_scope = True
            else:
                unit = _PASSING_INSTANCE.sub("@*.service", component)
        in_scope = in_scope or component.endswith(".scope")
    return Place(unit=unit, user=user)


def _service_of_place(place: Place, containers: ContainerNames) -> Service | None:
    owner = f" (user {place.user})" if place.user else ""
    name = place.container_name
    if place.container_id:
        short = place.container_id[:_SHORT_ID_CHARACTERS]
        # A user can make cgroups of any name below his own, so only the system's are looked up.
        known = None if place.user else containers.name(place.container_id)
        name = known or (f"pod-{place.pod_uid}/{short}" if place.pod_uid else short)
    if name:
        inner = f"/{place.unit}" if place.unit else ""
        return Service(text.name(name + inner + owner), ServiceKind.CONTAINER)
    if place.unit:
        return Service(text.name(place.unit + owner), ServiceKind.UNIT)
    return None


def name_service(
    host: Host, process: ProcessId, containers: ContainerNames, comm: bytes = b""
) -> Service:
    """Name the service of a process.

    A process that ended, or of which nothing may be read, is called by comm (as the caller last
    saw it) and is of unknown kind. Raises ProcessUnreadable only for want of descriptors: ask
    again later.
    """
    try:
        service = _of_cgroup(host, process.pid, containers) or _of_command(host, process.pid)
        host.check(process)
        return service
    except ProcessUnreadable as error:
        if error.reason is Unreadable.DESCRIPTORS:
            raise
    except ProcessGone:
        pass
    return Service(text.name(comm) or "unknown", ServiceKind.UNKNOWN)


def _of_cgroup(host: Host, pid: int, containers: ContainerNames) -> Service | None:
    membership = parse_membership(host.cgroup(pid))
    # On v1 and hybrid hosts systemd's own hierarchy knows the units; runtimes without systemd
    # may have put a container into the memory controller's only.
    for path in (membership.systemd, membership.unified, membership.memory):
        try:
            service = _service_of_place(place(path), containers) if path else None
        except OSError as error:
            raise unreadable(error, pid, "container name") from error
        if service is not None:
            return service
    return None


def _of_command(host: Host, pid: int) -> Service:
    command = _read_command(host, pid)
    ancestor = pid
    for _ in range(_ANCESTORS_MAX):
        try:
            parent = _parent_of_same_service(host, ancestor, command)
            if not parent:
                break
            command = _read_command(host, parent)
            ancestor = parent
        except ProcessUnreadable as error:
            if error.reason is Unreadable.DESCRIPTORS:
                raise
            break
        except ProcessError:
            break
    if not any((command.arguments, command.executable, command.comm)):
        return Service("unknown", ServiceKind.UNKNOWN)
    return Service(text.name(command_name(command)) or "unknown", ServiceKind.COMMAND)


def _parent_of_same_service(host: Host, pid: int, command: Command) -> int:
    # Prefork workers are copies of their master until they run another program, and then the
    # kernel gives them another stack address: so whatever title they wrote over their command
    # line, a worker is known by its stack.
    stat = host.stat(pid)
    if stat.parent_pid <= 1:
        return 0
    if is_helper(command):
        return stat.parent_pid
    if not stat.start_stack:
        return 0
    parent = host.stat(stat.parent_pid)
    return stat.parent_pid if parent.start_stack == stat.start_stack else 0


def _read_command(host: Host, pid: int) -> Command:
    return Command(
        arguments=tuple(host.command_line(pid)),
        executable=_if_permitted(host.executable, pid),
        directory=_if_permitted(host.working_directory, pid),
        comm=text.decode(host.stat(pid).comm),
    )


def _if_permitted(read: Callable[[int], str], pid: int) -> str:
    try:
        return read(pid)
    except ProcessUnreadable:
        return ""  # another user's; readlink takes no descriptor, so it is no shortage


class ServiceNames:
    """Names processes of one host. Remembers none: the aggregator asks once for each."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._containers = ContainerNames(host)

    def name(self, process: ProcessId, comm: bytes = b"") -> Service:
        """Return the service of a process, as name_service() does."""
        return name_service(self._host, process, self._containers, comm)
