"""What this host and user can do, what is missing, and what to do about each.

Gathers the facts of privileges.py and kernel.py. Reads only; what must be tried for real (does a
program load, does an iterator run) is handed in by the caller, who has the engines.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Callable, TypeVar

from mwtrace.errors import MwtraceError
from mwtrace.host import bcc, kernel, privileges
from mwtrace.host.facts import Fact, State, conclusion, render, render_json
from mwtrace.host.procfs import Host

__all__ = ["Fact", "State", "Trial", "conclusion", "render", "render_json", "survey"]

T = TypeVar("T")

# Returns when it worked; raises MwtraceError with the reason and the remedy.
Trial = Callable[[], None]
# Returns the folders of an importable package, None if there is none.
FindPackage = Callable[[str], "Sequence[str] | None"]


def find_package(name: str) -> Sequence[str] | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return list(spec.submodule_search_locations or ()) if spec is not None else None


def survey(
    host: Host,
    trials: Mapping[str, Trial] | None = None,
    find_package: FindPackage = find_package,
) -> list[Fact]:
    """Collect all facts; a trial replaces the fact of its name, or is added at the end."""
    rights = _read_or_none(lambda: privileges.read_privileges(host))
    rights = rights or privileges.Privileges(-1, frozenset(), frozenset())
    features = _read_or_none(lambda: kernel.read_features(host))
    has_btf = features is not None
    checks: dict[str, Callable[[], Fact]] = {
        "kernel": lambda: kernel.release_fact(host),
        "BTF": lambda: kernel.btf_fact(features),
        kernel.TASK_ITERATOR: lambda: kernel.feature_fact(kernel.TASK_ITERATOR, features),
        kernel.RING_BUFFER: lambda: kernel.feature_fact(kernel.RING_BUFFER, features),
        kernel.UPROBE_MULTI: lambda: kernel.uprobe_fact(host, features, rights),
        "tracepoints": lambda: kernel.tracepoints_fact(host, features),
        "lockdown": lambda: kernel.lockdown_fact(host),
        "bpf settings": lambda: kernel.restrictions_fact(host, rights),
        "cgroups": lambda: kernel.cgroup_fact(host),
        "pid namespace": lambda: kernel.pid_namespace_fact(host),
        "hidepid": lambda: privileges.hidepid_fact(host, rights),
        "ptrace_scope": lambda: privileges.ptrace_scope_fact(host, rights),
        "other users": lambda: privileges.other_users_fact(host, rights),
        "open files": lambda: privileges.descriptors_fact(host),
        "psutil": lambda: _psutil_fact(find_package),
        "bcc": lambda: _bcc_fact(host, find_package, has_btf),
    }
    facts = {fact.name: fact for fact in privileges.capability_facts(rights)}
    for name, check in checks.items():
        facts[name] = _checked(name, check)
    for name, trial in (trials or {}).items():
        facts[name] = _tried(name, trial)
    return list(facts.values())


def _read_or_none(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except OSError:
        return None


def _checked(name: str, check: Callable[[], Fact]) -> Fact:
    try:
        return check()
    except (OSError, MwtraceError) as error:
        # What may be absent is no error to the checks, so this is want of descriptors.
        return Fact(name, State.DEGRADED, f"could not be checked: {error}", "ulimit -n 1024")


def _tried(name: str, trial: Trial) -> Fact:
    try:
        trial()
    except MwtraceError as error:
        return Fact(name, State.MISSING, f"tried, and failed: {error}", error.remedy)
    return Fact(name, State.OK, "tried, and works")


def _psutil_fact(find_package: FindPackage) -> Fact:
    if find_package("psutil") is not None:
        return Fact("psutil", State.OK, "installed")
    return Fact("psutil", State.MISSING, "not installed", "pip install psutil")


def _bcc_fact(host: Host, find_package: FindPackage, has_btf: bool) -> Fact:
    found = bcc.find_bcc(host)
    if found is not None:
        use = "for --engine bcc" if has_btf else "the engine in use, as there is no BTF"
        return Fact("bcc", State.OK, f"installed in {found.folder}: {use}")
    if has_btf:
        return Fact("bcc", State.OK, "not installed, and not needed: the kernel has BTF")
    detail = "not installed, and without BTF the only engine that can trace"
    if find_package("bcc") is not None:
        detail += "; the package of that name that this Python has is another one"
    return Fact("bcc", State.MISSING, detail, bcc.REMEDY)
