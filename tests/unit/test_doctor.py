"""The doctor's facts, on made-up hosts and this one."""

from __future__ import annotations

import json

import pytest
from fake_proc import CGROUP_V1_MOUNT, CGROUP_V2_MOUNT, PROC_MOUNT, install_bcc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mwtrace.errors import HostError
from mwtrace.host.doctor import Fact, State, conclusion, find_package, render, render_json, survey
from mwtrace.host.procfs import Host

BTF = b"\x9f\xeb\x01\0" + b"\0".join(
    [
        b"",
        b"bpf_iter__task",
        b"BPF_MAP_TYPE_RINGBUF",
        b"bpf_uprobe_multi_link",
        b"btf_trace_sched_process_exec",
        b"btf_trace_sched_process_exit",
        b"btf_trace_mark_victim",
        b"",
    ]
)
ALL_CAPABILITIES = "000001ffffffffff"


def own_status(capabilities=ALL_CAPABILITIES, uid=0, groups=""):
    return (
        f"Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nGroups:\t{groups}\nCapEff:\t{capabilities}\n"
    )


def limits(count):
    return (
        f"Limit  Soft Limit  Hard Limit  Units\nMax open files            {count}  {count}  files\n"
    )


@pytest.fixture
def machine(fake_proc):
    """A host that lacks nothing."""
    fake_proc.write("proc/self/status", own_status())
    fake_proc.write("proc/self/mountinfo", PROC_MOUNT + CGROUP_V2_MOUNT)
    fake_proc.write("proc/self/limits", limits(4096))
    fake_proc.link("proc/self/ns/pid", "pid:[4026531836]")
    fake_proc.write("proc/sys/kernel/osrelease", "6.8.0-x\n")
    fake_proc.write("proc/sys/kernel/unprivileged_bpf_disabled", "2\n")
    fake_proc.write("proc/sys/kernel/perf_event_paranoid", "4\n")
    fake_proc.write("proc/sys/fs/file-nr", "795\t0\t2466183\n")
    fake_proc.write("sys/kernel/btf/vmlinux", BTF)
    fake_proc.write("sys/fs/cgroup/cgroup.controllers", "cpu memory\n")
    fake_proc.add(1)
    return fake_proc


def found(name):
    return ["/nowhere"] if name == "psutil" else None


def facts_of(machine, trials=None, find=found):
    return {fact.name: fact for fact in survey(machine.host, trials, find)}


def test_a_host_that_lacks_nothing_can_watch_everything(machine):
    facts = survey(machine.host, None, found)
    assert conclusion(facts) == "this host can watch everything"
    assert not [fact for fact in facts if fact.remedy]


# What is changed, and which facts fall short for it.
CHANGES = {
    "proc/self/status": [
        (
            own_status("0", uid=1000),
            {
                "kernel programs": State.MISSING,
                "memory of others": State.MISSING,
                "files of others": State.DEGRADED,
                "signals": State.DEGRADED,
                "mapped files": State.DEGRADED,
                "bpf settings": State.DEGRADED,
                "other users": State.DEGRADED,
            },
        ),
        # CAP_BPF without CAP_PERFMON
        (
            own_status("0000018000080024"),
            {"kernel programs": State.MISSING, "bpf settings": State.DEGRADED},
        ),
        (
            own_status("0000014000080024"),
            {"kernel programs": State.MISSING, "bpf settings": State.DEGRADED},
        ),
        # CAP_SYS_ADMIN stands for what was split off from it
        (own_status("0000000000280024"), {}),
    ],
    "proc/self/mountinfo": [
        (PROC_MOUNT, {"cgroups": State.DEGRADED}),
        (PROC_MOUNT + CGROUP_V1_MOUNT, {}),
        (PROC_MOUNT + CGROUP_V1_MOUNT + CGROUP_V2_MOUNT, {}),
        (CGROUP_V2_MOUNT, {"hidepid": State.MISSING}),
        (PROC_MOUNT.replace(" rw\n", " rw,hidepid=2\n") + CGROUP_V2_MOUNT, {}),
        (
            PROC_MOUNT.replace(" rw\n", " rw,subset=pid\n") + CGROUP_V2_MOUNT,
            {"hidepid": State.DEGRADED},
        ),
    ],
    "proc/self/limits": [
        (limits(100), {"open files": State.DEGRADED}),
        (limits("unlimited"), {}),
        ("", {"open files": State.DEGRADED}),
    ],
    "proc/sys/fs/file-nr": [("950 0 1000\n", {"open files": State.DEGRADED})],
    "proc/sys/kernel/yama/ptrace_scope": [
        ("0\n", {}),
        ("1\n", {}),
        ("2\n", {}),
        ("3\n", {"ptrace_scope": State.MISSING}),
    ],
    "sys/kernel/security/lockdown": [
        ("[none] integrity confidentiality\n", {}),
        ("none [integrity] confidentiality\n", {}),
        ("none integrity [confidentiality]\n", {"lockdown": State.MISSING}),
    ],
    "sys/fs/cgroup/cgroup.controllers": [("cpu\n", {"cgroups": State.DEGRADED})],
    "sys/kernel/btf/vmlinux": [
        (
            b"",
            {
                "BTF": State.MISSING,
                "task iterator": State.DEGRADED,
                "ring buffer": State.DEGRADED,
                "uprobe_multi": State.MISSING,
                "tracepoints": State.DEGRADED,
                "bcc": State.MISSING,
            },
        ),
        (BTF.replace(b"bpf_iter__task", b"x"), {"task iterator": State.MISSING}),
        (BTF.replace(b"BPF_MAP_TYPE_RINGBUF", b"x"), {"ring buffer": State.MISSING}),
        (BTF.replace(b"btf_trace_mark_victim", b"x"), {"tracepoints": State.DEGRADED}),
        (BTF.replace(b"bpf_uprobe_multi_link", b"x"), {"uprobe_multi": State.MISSING}),
    ],
}


@pytest.mark.parametrize(
    ("path", "content", "short"),
    [(path, *change) for path, changes in CHANGES.items() for change in changes],
)
def test_what_a_host_lacks_is_told_with_a_remedy(machine, path, content, short):
    machine.write(path, content)
    facts = survey(machine.host, None, found)
    assert {fact.name: fact.state for fact in facts if fact.state is not State.OK} == short
    assert all(bool(fact.remedy) == (fact.state is not State.OK) for fact in facts)
    assert conclusion(facts).startswith("degraded: " if short else "this host can")


def test_older_kernels_trace_through_perf_where_they_may(machine):
    machine.write("sys/kernel/btf/vmlinux", BTF.replace(b"bpf_uprobe_multi_link", b"x"))
    (machine.root / "sys/bus/event_source/devices/uprobe").mkdir(parents=True)
    assert facts_of(machine)["uprobe_multi"].state is State.DEGRADED
    machine.write("proc/self/status", own_status("000001c000080024"))
    fact = facts_of(machine)["uprobe_multi"]
    assert (fact.state, "CAP_SYS_ADMIN" in fact.remedy) == (State.MISSING, True)


def test_tracefs_tells_of_tracepoints_where_btf_does_not(machine):
    machine.write("sys/kernel/btf/vmlinux", b"")
    mount = "40 23 0:12 / /sys/kernel/tracing rw - tracefs tracefs rw\n"
    machine.write("proc/self/mountinfo", PROC_MOUNT + CGROUP_V2_MOUNT + mount)
    for event in ("sched/sched_process_exec", "sched/sched_process_exit"):
        (machine.root / "sys/kernel/tracing/events" / event).mkdir(parents=True)
    fact = facts_of(machine)["tracepoints"]
    assert (fact.state, fact.detail) == (State.DEGRADED, "not told: OOM kills")
    (machine.root / "sys/kernel/tracing/events/oom/mark_victim").mkdir(parents=True)
    assert facts_of(machine)["tracepoints"].state is State.OK


def test_hidepid_does_not_concern_members_of_its_group(machine):
    proc = PROC_MOUNT.replace(" rw\n", " rw,hidepid=invisible,gid=7\n")
    machine.write("proc/self/mountinfo", proc + CGROUP_V2_MOUNT)
    machine.write("proc/self/status", own_status("0", uid=1000, groups="4 7 "))
    assert facts_of(machine)["hidepid"].state is State.OK
    machine.write("proc/self/status", own_status("0", uid=1000, groups="4 "))
    assert facts_of(machine)["hidepid"].state is State.DEGRADED


def test_without_root_it_says_what_cannot_be_seen(machine):
    machine.write("proc/self/status", own_status("0", uid=1000))
    for pid, uid in ((10, 1000), (11, 1000), (12, 33)):
        machine.add(pid, uid=uid)
    machine.write("proc/13/status", "nothing")
    detail = facts_of(machine)["other users"].detail
    assert detail == (
        "uid 1000 has 2 of 5 processes, which are watched in full;"
        " of 2 of other users only the size is seen, of 1 nothing"
    )


def test_another_pid_namespace_is_told(machine):
    machine.link("proc/self/ns/pid", "pid:[4026532281]")
    assert facts_of(machine)["pid namespace"].state is State.DEGRADED
    (machine.root / "proc/self/ns/pid").unlink()
    assert facts_of(machine)["pid namespace"].state is State.DEGRADED


def test_a_trial_has_the_last_word(machine):
    def refuse():
        raise HostError("the verifier refused it", "upgrade")

    facts = facts_of(
        machine, {"task iterator": refuse, "ring buffer": lambda: None, "extra": refuse}
    )
    failed = Fact(
        "task iterator", State.MISSING, "tried, and failed: the verifier refused it", "upgrade"
    )
    assert facts["task iterator"] == failed
    assert facts["ring buffer"] == Fact("ring buffer", State.OK, "tried, and works")
    assert facts["extra"].state is State.MISSING


def test_the_other_package_called_bcc_is_not_taken_for_ours(machine, tmp_path):
    def crystals(name):
        return [str(tmp_path)]

    fact = facts_of(machine, find=crystals)["bcc"]
    assert (fact.state, "not installed" in fact.detail) == (State.OK, True)
    machine.write("sys/kernel/btf/vmlinux", b"")
    fact = facts_of(machine, find=crystals)["bcc"]
    assert (fact.state, "is another one" in fact.detail) == (State.MISSING, True)
    assert facts_of(machine, find=lambda name: None)["psutil"].state is State.MISSING


def test_the_distribution_s_bcc_is_found_without_importing_it(machine):
    install_bcc(machine)
    assert "for --engine bcc" in facts_of(machine)["bcc"].detail
    machine.write("sys/kernel/btf/vmlinux", b"")
    fact = facts_of(machine)["bcc"]
    assert (fact.state, "the engine in use" in fact.detail) == (State.OK, True)


def test_packages_are_found_without_importing_them():
    assert find_package("json")
    assert find_package("no_such_package") is None


def test_the_conclusion_comes_first_and_what_falls_short_next(machine):
    facts = [
        Fact("fine", State.OK, "yes"),
        Fact("worse", State.DEGRADED, "a\x1b[2Jb\nc", "do this"),
        Fact("worst", State.MISSING, "gone", "do that"),
    ]
    assert render(facts).splitlines() == [
        "degraded: 2 of 3 checks fall short: worse, worst",
        "",
        "missing   worst  gone",
        "                 remedy: do that",
        "degraded  worse  a\\x1b[2Jb\\x0ac",
        "                 remedy: do this",
        "ok        fine   yes",
    ]
    document = json.loads(render_json(facts))
    assert document["conclusion"].startswith("degraded: ")
    assert document["facts"][1] == {
        "name": "worse",
        "state": "degraded",
        "detail": "a\\x1b[2Jb\\x0ac",
        "remedy": "do this",
    }


FILES = sorted([*CHANGES, "proc/sys/kernel/osrelease", "proc/1/status"])


@given(st.lists(st.binary(max_size=120), min_size=len(FILES), max_size=len(FILES)))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_files_raise_nothing_and_render(machine, contents):
    for path, content in zip(FILES, contents):
        machine.write(path, content)
    shown = render(survey(machine.host, None, found))
    assert shown.replace("\n", "").isprintable()


def test_an_empty_root_is_a_survey_too(tmp_path):
    host = Host(tmp_path)
    facts = survey(host, None, found)
    assert conclusion(facts).startswith("degraded: ")
    host.close()


def test_this_host_is_surveyed():
    host = Host()
    facts = survey(host)
    assert {"kernel", "BTF", "cgroups", "other users"} <= {fact.name for fact in facts}
    assert all(fact.remedy for fact in facts if fact.state is not State.OK)
    host.close()
