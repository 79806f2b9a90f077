"""Containers without a runtime: mwtrace inside a pid namespace, and outside of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from running_watch import WatchUnderTest
from target import Target

from mwtrace.probes.namespace import pid_namespace

pytestmark = pytest.mark.kernel

INSIDE = Path(__file__).parents[1] / "targets" / "in_namespace.py"
MANIFESTS = Path(__file__).parents[2] / "docs" / "kubernetes"
WATCH = ["--all", "--watch-only", "--json", "--verbose", "--interval", "0.2", "--duration", "2s"]
UNSHARE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


@pytest.fixture
def container(request: pytest.FixtureRequest) -> Iterator[Target]:
    target = Target([*UNSHARE, *getattr(request, "param", ()), sys.executable, str(INSIDE)])
    try:
        target.expect("ready")
        yield target
    finally:
        target.stop()


def ask(container: Target, words: str) -> dict:
    container.tell(words)
    return json.loads(container.line())


def pids_inside(container: Target) -> dict[int, int]:
    """The pids of the container's processes: ours -> its own."""
    inside = os.stat(f"/proc/{child_of(container.pid)}/ns/pid").st_ino
    found = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{entry}/ns/pid").st_ino == inside:
                status = Path(f"/proc/{entry}/status").read_text()
                numbers = next(line for line in status.splitlines() if line.startswith("NSpid:"))
                found[int(entry)] = int(numbers.split()[-1])
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


@pytest.mark.parametrize(
    "container", [(), ("--net", "--cgroup", "--ipc", "--uts")], indirect=True, ids=" ".join
)
def test_inside_a_pid_namespace_its_own_processes_are_watched_by_bpf(container):
    own = int(container.line())
    said = ask(container, "--once --all --watch-only")
    assert said["code"] == 0, said["err"]
    assert " BPF, every" in said["out"]
    assert "mwtrace demo" in said["out"]  # cut to the width
    said = ask(container, "--once --pid PID_OF_CHILD")
    assert f"({own})" in said["out"]
    assert said["code"] == 0


def test_inside_nobody_from_outside_is_seen(container):
    container.line()
    said = ask(container, " ".join(WATCH))
    assert said["code"] == 0, said["err"]
    told = [json.loads(line) for line in said["out"].splitlines()]
    inside = set(pids_inside(container).values())
    pids = {event["pid"] for event in told if event.get("pid")}
    # Besides those that live for all of it there is the watch itself, which has ended.
    assert pids <= set(range(1, max(inside) + 50))
    assert "10 processes" not in said["err"]


def test_from_outside_a_container_s_process_is_read_like_any_other(container):
    own = int(container.line())
    ours = next(pid for pid, inside in pids_inside(container).items() if inside == own)
    assert ours != own
    for words in (["--once", "--pid"], ["explain"], ["trace", "--seconds", "2", "--growth-only"]):
        done = subprocess.run(
            [sys.executable, "-m", "mwtrace", *words, str(ours)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert "mwtrace demo" in done.stdout or "LeakNative.grow" in done.stdout


@pytest.mark.parametrize("manifest", ["daemonset.yaml", "sidecar.yaml"])
def test_the_capabilities_of_the_manifests_are_enough(manifest, start_target):
    last = list(yaml.safe_load_all((MANIFESTS / manifest).read_text()))[-1]
    pod = last["spec"]["template"]["spec"] if "template" in last["spec"] else last["spec"]
    ours = next(container for container in pod["containers"] if container["name"] == "mwtrace")
    added = ours["securityContext"]["capabilities"]["add"]
    bounded = ["setpriv", "--no-new-privs", "--inh-caps=-all"]
    bounded += ["--bounding-set=" + ",".join(["-all", *(f"+{name.lower()}" for name in added)])]
    target = start_target("sleepers", "1")
    asked = [["--once", "--watch-only", "--pid"]]
    if "--watch-only" not in ours["args"]:
        asked += [["explain"], ["trace", "--seconds", "1"]]
    for words in asked:
        done = subprocess.run(
            [*bounded, sys.executable, "-m", "mwtrace", *words, str(target.pid)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        if words[0] == "--once":
            assert " BPF, every" in done.stdout


def test_on_the_host_nothing_is_translated():
    assert pid_namespace() == 0
    watching = WatchUnderTest()
    try:
        assert os.getpid() in watching.processes()
    finally:
        watching.watch.close()


def test_a_proc_of_another_namespace_is_refused_with_the_remedy():
    done = subprocess.run(
        [*UNSHARE[:-1], sys.executable, "-m", "mwtrace", *WATCH],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "another pid namespace" in done.stderr
