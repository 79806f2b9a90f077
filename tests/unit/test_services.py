"""Services: the examples of docs/services.md, made-up hosts, and real processes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mwtrace.host import text
from mwtrace.host.applications import application_name
from mwtrace.host.cgroups import parse_membership
from mwtrace.host.commands import Command, command_name, is_helper, short_path
from mwtrace.host.containers import ContainerNames
from mwtrace.host.procfs import Host
from mwtrace.host.services import ServiceNames, name_service, place
from mwtrace.host.text import NAME_CHARACTERS_MAX
from mwtrace.model import ProcessId, Service, ServiceKind

DOCUMENT = (Path(__file__).parents[2] / "docs" / "services.md").read_text()
CONTAINER_ID = "0123456789ab" + "c" * 52
POD_UID = "12345678-9abc-def0-1234-56789abcdef0"


def documented(heading: str) -> list[tuple[str, ...]]:
    """The cells of the table under that head line, without their code marks."""
    lines = DOCUMENT[DOCUMENT.index(f"| {heading} ") :].split("\n\n")[0].splitlines()[2:]
    return [tuple(cell.strip().strip("`") for cell in line.split("|")[1:-1]) for line in lines]


def spelled_out(cell: str) -> str:
    cell = cell.replace("podUID_", f"pod{POD_UID.replace('-', '_')}").replace("UID", POD_UID)
    return re.sub(r"\bID\b", CONTAINER_ID, cell)


@pytest.mark.parametrize(("path", "name", "kind"), documented("cgroup path"))
def test_a_cgroup_path_names_what_the_document_says(fake_proc, path, name, kind):
    fake_proc.add(100, cgroup=f"0::{spelled_out(path)}\n", cmdline=b"/usr/bin/true\0")
    service = ServiceNames(fake_proc.host).name(fake_proc.host.process_id(100))
    if kind == "command":
        assert service == Service("true", ServiceKind.COMMAND)
    else:
        assert service == Service(spelled_out(name), ServiceKind(kind))


@pytest.mark.parametrize(("line", "program", "folder", "name"), documented("command line"))
def test_a_command_line_names_what_the_document_says(fake_proc, line, program, folder, name):
    words = b"".join(word.encode() + b"\0" for word in shlex.split(line))
    fake_proc.add(100, cmdline=words, exe=program, cwd=folder)
    service = ServiceNames(fake_proc.host).name(fake_proc.host.process_id(100))
    assert service == Service(name, ServiceKind.COMMAND)


@pytest.mark.parametrize(("pod", "name"), documented("pod, namespace, container"))
def test_a_log_link_names_what_the_document_says(fake_proc, pod, name):
    links = fake_proc.root / "var/log/containers"
    links.mkdir(parents=True)
    (links / f"{'_'.join(pod.split())}-{CONTAINER_ID}.log").symlink_to("/nowhere")
    assert ContainerNames(fake_proc.host).name(CONTAINER_ID) == name


def test_a_container_that_starts_later_is_found_in_the_links(fake_proc):
    links = fake_proc.root / "var/log/containers"
    links.mkdir(parents=True)
    names = ContainerNames(fake_proc.host)
    assert names.name(CONTAINER_ID) is None
    (links / f"web_shop_app-{CONTAINER_ID}.log").symlink_to("/nowhere")
    os.utime(links, ns=(1, 1))
    assert names.name(CONTAINER_ID) == "shop/web/app"


@pytest.mark.parametrize(
    ("state", "name"),
    [
        (json.dumps({"Name": "/orders-web-1"}), "orders-web-1"),
        (json.dumps({"Name": "/web.1.abcdefghijklmnopqrstuvwxy"}), "web"),
        (json.dumps({"Name": 7}), None),
        (json.dumps({"Name": ""}), None),
        (json.dumps(["Name"]), None),
        ("[" * 100_000, None),
        ("", None),
        ("{", None),
    ],
)
def test_docker_tells_a_containers_name_or_nothing(fake_proc, state, name):
    fake_proc.write(f"var/lib/docker/containers/{CONTAINER_ID}/config.v2.json", state)
    assert ContainerNames(fake_proc.host).name(CONTAINER_ID) == name


def test_a_users_cgroup_cannot_pass_for_the_systems_service(fake_proc):
    fake_proc.write(
        f"var/lib/docker/containers/{CONTAINER_ID}/config.v2.json", json.dumps({"Name": "/db"})
    )
    user = "/user.slice/user-7.slice/user@7.service"
    fake_proc.add(100, cgroup=f"0::{user}/nginx.service\n")
    fake_proc.add(101, cgroup=f"0::{user}/docker-{CONTAINER_ID}.scope\n")
    fake_proc.add(102, cgroup=f"0::/system.slice/docker-{CONTAINER_ID}.scope\n")
    names = ServiceNames(fake_proc.host)
    assert [names.name(fake_proc.host.process_id(pid)).name for pid in (100, 101, 102)] == [
        "nginx.service (user 7)",
        "0123456789ab (user 7)",
        "db",
    ]


def test_on_v1_the_systemd_hierarchy_names_the_unit_and_memory_the_container(fake_proc):
    fake_proc.add(100, cgroup="5:memory:/x\n1:name=systemd:/system.slice/api.service\n0::/\n")
    fake_proc.add(101, cgroup=f"5:cpu,memory:/docker/{CONTAINER_ID}\n1:name=systemd:/\n")
    names = ServiceNames(fake_proc.host)
    assert names.name(fake_proc.host.process_id(100)).name == "api.service"
    assert names.name(fake_proc.host.process_id(101)).name == "0123456789ab"


def test_forked_workers_belong_to_their_master_whatever_they_call_themselves(fake_proc):
    fake_proc.add(100, cmdline=b"python3\0/srv/orders/run.py\0", start_stack=77)
    fake_proc.add(101, cmdline=b"orders worker 1\0", parent_pid=100, start_stack=77)
    fake_proc.add(102, cmdline=b"grandchild of 1\0", parent_pid=101, start_stack=77)
    fake_proc.add(103, cmdline=b"/usr/bin/sleep\x009\0", parent_pid=100, start_stack=78)
    names = ServiceNames(fake_proc.host)
    named = [names.name(fake_proc.host.process_id(pid)).name for pid in (100, 101, 102, 103)]
    assert named == ["orders/run.py"] * 3 + ["sleep"]


def test_a_stack_that_we_may_not_know_joins_nobody(fake_proc):
    fake_proc.add(100, cmdline=b"python3\0/srv/orders/run.py\0", start_stack=0)
    fake_proc.add(101, cmdline=b"/usr/bin/sleep\x009\0", parent_pid=100, start_stack=0)
    assert ServiceNames(fake_proc.host).name(fake_proc.host.process_id(101)).name == "sleep"


def test_multiprocessing_helpers_belong_to_their_parent(fake_proc):
    spawn = b"python3\0-c\0from multiprocessing.spawn import spawn_main; spawn_main(5)\0"
    fake_proc.add(100, cmdline=b"python3\0/srv/orders/run.py\0", start_stack=1)
    fake_proc.add(101, cmdline=spawn, parent_pid=100, start_stack=2)
    fake_proc.add(102, cmdline=spawn, parent_pid=101, start_stack=3)
    fake_proc.add(103, cmdline=spawn, parent_pid=1, start_stack=4)
    names = ServiceNames(fake_proc.host)
    assert names.name(fake_proc.host.process_id(101)).name == "orders/run.py"
    assert names.name(fake_proc.host.process_id(102)).name == "orders/run.py"
    assert names.name(fake_proc.host.process_id(103)).name.startswith("python3 -c ")


def test_a_parent_that_is_gone_leaves_the_process_its_own_name(fake_proc):
    fake_proc.add(101, cmdline=b"nginx: worker process\0", parent_pid=100, start_stack=5)
    assert ServiceNames(fake_proc.host).name(fake_proc.host.process_id(101)).name == "nginx"


def test_parents_in_a_circle_end(fake_proc):
    fake_proc.add(100, cmdline=b"/usr/bin/a\0", parent_pid=101, start_stack=5)
    fake_proc.add(101, cmdline=b"/usr/bin/a\0", parent_pid=100, start_stack=5)
    assert ServiceNames(fake_proc.host).name(fake_proc.host.process_id(100)).name == "a"


def test_a_process_without_command_line_is_called_by_its_program_or_short_name(fake_proc):
    fake_proc.add(100, cmdline=b"", comm=b"defunct one")
    fake_proc.add(101, cmdline=b"", comm=b"x", exe="/usr/bin/true")
    names = ServiceNames(fake_proc.host)
    assert names.name(fake_proc.host.process_id(100)).name == "defunct one"
    assert names.name(fake_proc.host.process_id(101)).name == "true"


def test_one_that_is_gone_or_was_replaced_is_unknown_by_its_short_name(fake_proc):
    fake_proc.add(100, cmdline=b"/usr/bin/true\0", start_ticks=500)
    names = ServiceNames(fake_proc.host)
    gone = names.name(ProcessId(99, 10**9), b"was\x1b[2J")
    replaced = names.name(ProcessId(100, 499 * 10**7), b"")
    assert gone == Service("was\\x1b[2J", ServiceKind.UNKNOWN)
    assert replaced == Service("unknown", ServiceKind.UNKNOWN)


def test_want_of_descriptors_is_raised(fake_proc):
    fake_proc.add(100, cmdline=b"/usr/bin/true\0")
    program = """
import os, resource, sys
from pathlib import Path
from mwtrace.errors import ProcessUnreadable
from mwtrace.host.procfs import Host
from mwtrace.host.services import ServiceNames
host = Host(Path(sys.argv[1]))
process = host.process_id(100)
names = ServiceNames(host)
host.close()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
try:
    names.name(process)
except ProcessUnreadable as error:
    reason = error.reason.value
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(reason, names.name(process).name)
"""
    command = [sys.executable, "-c", program, str(fake_proc.root)]
    # Imports need descriptors, so all of them are done before the limit falls.
    output = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert output.stdout.split() == ["descriptors", "true"], output.stderr


def test_a_long_name_is_cut_and_still_its_own():
    paths = [f"/srv/{'a' * 100}{middle}{'b' * 100}/run.py" for middle in "xy"]
    one, other = (text.name(command_name(Command(("python3", path)))) for path in paths)
    assert one != other
    assert len(one) == len(other) == NAME_CHARACTERS_MAX


HOSTILE = st.text(st.characters(exclude_categories=())) | st.text("-:[]() /.=@*\n\x1b\0abcm1")


@given(st.lists(HOSTILE, max_size=6), HOSTILE, HOSTILE, HOSTILE)
@settings(max_examples=500, deadline=None)
def test_any_command_gets_a_printable_bounded_name(words, executable, directory, comm):
    for first in ("", "python3", "node", "java", "gunicorn", "celery", "bash", "uwsgi"):
        arguments = (first, *words) if first else tuple(words)
        command = Command(arguments, executable, directory, comm)
        name = text.name(command_name(command))
        assert name.isprintable()
        assert len(name) <= NAME_CHARACTERS_MAX
        is_helper(command)


@given(HOSTILE)
@settings(max_examples=500, deadline=None)
def test_any_cgroup_path_has_a_place_and_any_path_a_short_form(path):
    place(path)
    short_path(path)
    application_name("gunicorn", path.split(), path)


@given(st.binary(max_size=300))
@settings(max_examples=500, deadline=None)
def test_any_cgroup_file_can_be_read(raw):
    parse_membership(raw)
    parse_membership(b"0::/" + raw)


@pytest.mark.parametrize("unit", ["gunicorn: [", "[celeryd: a](", "[celeryd: a]((((", "a: ", "[["])
def test_a_hostile_title_costs_no_time(unit):
    title = unit + "([" * 30_000
    command_name(Command((title,)))  # quadratic matching would take minutes


def test_real_workers_join_their_real_master(tmp_path):
    script = tmp_path / "orders.py"
    script.write_text(
        "import os, sys\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    sys.stdin.read(); os._exit(0)\n"
        "print(pid, flush=True)\n"
        "sys.stdin.read(); os.waitpid(pid, 0)\n"
    )
    master = subprocess.Popen(
        [sys.executable, "orders.py"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert master.stdout is not None
        worker_pid = int(master.stdout.readline())
        host = Host()
        stacks = {host.stat(pid).start_stack for pid in (master.pid, worker_pid)}
        assert len(stacks) == 1
        assert host.stat(os.getpid()).start_stack not in stacks
        containers = ContainerNames(host)
        names = {
            name_service(host, host.process_id(pid), containers) for pid in (master.pid, worker_pid)
        }
        assert len(names) == 1
        (service,) = names
        if service.kind is ServiceKind.COMMAND:
            assert service.name.endswith("/orders.py")
    finally:
        master.communicate(timeout=30)
