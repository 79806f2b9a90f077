"""Scripts injected at a safe point: they run once or never, and the program does not notice."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from graph_file import GraphFile
from interpreters import interpreters, on_every_python, script
from target import Target

from mwtrace.cpython.runtime import NoPython, find_runtime
from mwtrace.errors import ProcessGone
from mwtrace.host.procfs import Host
from mwtrace.snapshot.inject import Injected, NoAnswer, run_script
from mwtrace.snapshot.pending import PendingCall
from mwtrace.snapshot.points import Refused
from mwtrace.snapshot.scratch import find_scratch
from mwtrace.snapshot.store import Store, StoreLimits
from mwtrace.snapshot.taking import Taker, TakingLimits
from mwtrace.snapshot.uninvited import ask_uninvited

pytestmark = pytest.mark.kernel

ROUNDS = int(os.environ.get("MWTRACE_INJECTIONS", "5"))
DEADLINE_S = 20.0
# A thread of the target may have a file open for a moment: our script, its own /proc/self/fd.
LINE_BYTES = 160


class Subject:
    """A target, and a file that injected scripts write into."""

    def __init__(self, python: str, what: str, folder: Path, *wrapper: str) -> None:
        self.target = Target([*wrapper, python, script("injected"), what])
        self.target.expect("ready")
        self.host = Host()
        self.process = self.host.process_id(self.target.pid)
        self.file = folder / "ran"
        self.file.touch(0o666)
        folder.chmod(0o755)

    @property
    def append(self) -> str:
        return f"open({str(self.file)!r}, 'a').write('x')"

    def run(self, source: str | None = None, deadline_s: float = DEADLINE_S) -> Injected:
        return run_script(self.host, self.process, source or self.append, deadline_s)

    def ran(self) -> int:
        return self.file.stat().st_size

    def look(self) -> tuple[int, int]:
        """How often it went round, and how many descriptors it has."""
        self.target.tell("look")
        rounds, descriptors = json.loads(self.target.line())
        return rounds, descriptors

    def await_a_round(self) -> None:
        before, deadline = self.look()[0], time.monotonic() + DEADLINE_S
        while self.look()[0] == before:
            assert time.monotonic() < deadline

    def is_clean(self) -> bool:
        """Nothing of ours is left: no file, no tracer, no line in spare memory, no child."""
        pid = self.target.pid
        left = [p for d in ("/tmp", "/dev/shm") for p in Path(d).glob("mwtrace-*.py")]
        status = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        runtime = find_runtime(pid)
        has_scratch = find_scratch(runtime.memory, LINE_BYTES, runtime.image) is not None
        return not left and "TracerPid:\t0\n" in status and not children and has_scratch


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Subject]]:
    started: list[Subject] = []

    def begin(python: str, what: str, *wrapper: str) -> Subject:
        started.append(Subject(python, what, tmp_path, *wrapper))
        return started[-1]

    yield begin
    for subject in started:
        subject.target.stop()


@on_every_python
@pytest.mark.parametrize("what", ["busy", "alone"])
def test_every_script_runs_once_and_leaves_nothing(start, python, what):
    subject = start(python, what)
    descriptors = subject.look()[1]
    for done in range(1, ROUNDS + 1):
        injected = subject.run()
        assert subject.ran() == done
        minor = find_runtime(subject.target.pid).version.minor
        assert injected.method == ("PEP 768" if minor >= 14 else "pending call")
    assert subject.is_clean()
    subject.await_a_round()
    assert subject.look()[1] == descriptors


@on_every_python
def test_a_main_thread_that_waits_stops_nobody_from_3_12_on(start, python):
    """Up to 3.11 only the main thread makes pending calls: then what was put in is taken out."""
    subject = start(python, "blocked")
    if find_runtime(subject.target.pid).version.minor >= 12:
        subject.run()
        assert subject.ran() == 1
    else:
        for _ in range(3):
            with pytest.raises(NoAnswer, match="safe point"):
                subject.run(deadline_s=0.3)
        assert subject.ran() == 0
    assert subject.is_clean()
    subject.await_a_round()  # its other threads go on


def test_one_that_wakes_now_and_then_runs_it_then(start):
    for python in (interpreters()[0], interpreters()[-1]):
        subject = start(python, "tick")
        for _ in range(3):
            subject.run()
        assert subject.ran() == 3
        subject.file.write_text("")


@on_every_python
def test_what_goes_wrong_in_a_script_is_not_the_programs_matter(start, python):
    subject = start(python, "busy")
    for source in ("raise ValueError('ours')", "(", "import no_such_module", "1/0"):
        subject.run(source)
    subject.run()
    assert subject.ran() == 1
    assert subject.is_clean()


@on_every_python
def test_names_that_a_program_has_given_in_main_are_no_matter(python, tmp_path):
    program = "open = exec = compile = None; print('ready', flush=True)\nwhile True: pass"
    target = Target([python, "-c", program])
    try:
        target.expect("ready")
        host = Host()
        source = f"open({str(tmp_path / 'ran')!r}, 'w').write('x')"
        run_script(host, host.process_id(target.pid), source, DEADLINE_S)
        assert (tmp_path / "ran").read_text() == "x"
    finally:
        target.stop()


def test_calls_of_others_behind_a_retracted_one_are_made(start, tmp_path):
    """Ours is taken back although somebody queued behind it: theirs must not be lost."""
    python = next(p for p in interpreters() if "/3.11" in p or p == interpreters()[-1])
    program = (
        "import ctypes, os, sys, threading\n"
        "made = []\n"
        "@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)\n"
        "def theirs(_): made.append(1); return 0\n"
        "def serve():\n"
        "    for line in sys.stdin:\n"
        "        if line == 'add\\n':\n"
        "            assert ctypes.pythonapi.Py_AddPendingCall(theirs, None) == 0\n"
        "            print('done', flush=True)\n"
        "        if line == 'wake\\n':\n"
        "            os.write(pipe[1], b'x')\n"
        "pipe = os.pipe()\n"
        "threading.Thread(target=serve, daemon=True).start()\n"
        "print('ready', flush=True)\n"
        "os.read(pipe[0], 1)\n"
        "while not made: pass\n"
        "print('made', flush=True)\n"
    )
    target = Target([python, "-c", program])
    try:
        target.expect("ready")
        runtime = find_runtime(target.pid)
        if runtime.version.minor > 11:
            pytest.skip("any thread would take it")
        from mwtrace.snapshot.stopping import edit_stopped

        method = PendingCall(runtime, "/nonexistent")
        edit_stopped(target.pid, method.edits())
        target.ask("add")
        edit_stopped(target.pid, method.retraction())
        method.settle()
        target.tell("wake")
        target.expect("made")
    finally:
        target.stop()


@on_every_python
def test_a_hook_that_is_injected_writes_snapshots_again_and_again(start, tmp_path, python):
    subject = start(python, "busy")
    descriptors = subject.look()[1]
    most = descriptors + 1  # newer libffi, which ctypes loads, keeps its own file open
    store = Store(tmp_path / "snapshots", StoreLimits())
    taker = Taker(subject.host, store, TakingLimits())
    try:
        for _ in range(3):
            taken = taker.take(subject.process, "service", "asked", True, ask_uninvited)
            assert taken.is_taken, taken.reason
            file = GraphFile(Path(taken.path))
            assert file.head["writer"] == "hook-child"
            assert any(name == "__main__.Node" for name in file.types.values())
            assert len([text for _, text, kind in file.roots if kind == 1]) >= 3
    finally:
        store.close()
    maps = Path(f"/proc/{subject.target.pid}/maps").read_text()
    assert maps.count("/memfd:mwtrace-hook") == 1
    deadline = time.monotonic() + DEADLINE_S
    while not subject.is_clean() or subject.look()[1] > most:
        assert time.monotonic() < deadline
    subject.await_a_round()


def refusal_of(subject: Subject) -> str:
    with pytest.raises(Refused) as raised:
        subject.run()
    assert subject.ran() == 0
    return str(raised.value)


def test_a_stopped_process_is_refused(start):
    subject = start(interpreters()[-1], "busy")
    os.kill(subject.target.pid, 19)
    os.waitid(os.P_PID, subject.target.pid, os.WSTOPPED | os.WNOWAIT)
    assert "stopped" in refusal_of(subject)
    os.kill(subject.target.pid, 18)
    assert subject.look()


def test_a_traced_process_is_refused_and_keeps_its_tracer(start):
    subject = start(interpreters()[-1], "busy")
    program = (
        "import ctypes, sys\n"
        "assert ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), None, None) == 0\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
    )
    tracer = Target([sys.executable, "-c", program, str(subject.target.pid)])
    try:
        tracer.expect("ready")
        assert f"process {tracer.pid} traces it" in refusal_of(subject)
    finally:
        tracer.stop()
    subject.run()


def test_a_process_with_a_seccomp_filter_is_refused_until_somebody_vouches_for_it(tmp_path):
    # a filter that allows everything
    program = (
        "import ctypes, struct\n"
        "libc = ctypes.CDLL(None)\n"
        "one = ctypes.create_string_buffer(struct.pack('<HBBI', 6, 0, 0, 0x7fff0000))\n"
        "prog = ctypes.create_string_buffer(struct.pack('<HxxxxxxQ', 1, ctypes.addressof(one)))\n"
        "assert libc.prctl(38, 1, 0, 0, 0) == 0\n"
        "assert libc.prctl(22, 2, ctypes.byref(prog)) == 0\n"
        "print('ready', flush=True)\n"
        "while True: pass\n"
    )
    target = Target([interpreters()[-1], "-c", program])
    try:
        target.expect("ready")
        host = Host()
        process = host.process_id(target.pid)
        source = f"open({str(tmp_path / 'ran')!r}, 'w').write('x')"
        with pytest.raises(Refused, match="seccomp"):
            run_script(host, process, source, DEADLINE_S)
        run_script(host, process, source, DEADLINE_S, trusts_filter=True)
        assert (tmp_path / "ran").read_text() == "x"
    finally:
        target.stop()


def test_pep_768_that_was_forbidden_is_not_gone_around(start):
    newer = [python for python in interpreters() if "run-python3.14" in python]
    if not newer:
        pytest.skip("no CPython 3.14 here: 'make newer-pythons' unpacks it")
    subject = start(newer[0], "busy", "env", "PYTHON_DISABLE_REMOTE_DEBUG=1")
    assert "disabled" in refusal_of(subject)


def test_a_process_of_another_user_with_a_root_of_its_own_reads_its_script(start, tmp_path):
    """Another mount namespace, whose /tmp and /dev/shm are nobody else's."""
    nobody = pwd.getpwnam("nobody")
    tmp_path.parent.chmod(0o755)
    wrapper = ["unshare", "--mount", "sh", "-c"]
    wrapper += [
        "mount -t tmpfs none /dev/shm && exec setpriv --reuid nobody --clear-groups "
        '--regid nogroup -- "$0" "$@"'
    ]
    subject = start("/usr/bin/python3", "busy", *wrapper)
    assert f"Uid:\t{nobody.pw_uid}" in Path(f"/proc/{subject.target.pid}/status").read_text()
    subject.run("import os; assert os.getuid() != 0")
    assert os.listdir(f"/proc/{subject.target.pid}/root/dev/shm") == []
    assert subject.is_clean()


def test_links_in_a_process_root_lead_nowhere_else(tmp_path):
    """A container whose folders are links to the host's: none is followed out of its root."""
    from mwtrace.capi import lib

    root, victim = tmp_path / "root", tmp_path / "victim"
    victim.mkdir()
    root.mkdir()
    (root / "absolute").symlink_to(victim)
    (root / "relative").symlink_to(Path("../../../../../../..") / victim.relative_to("/"))
    program = "import os, sys; os.chroot(sys.argv[1]); print('ready', flush=True); os.read(0, 1)"
    target = Target([interpreters()[-1], "-c", program, str(root)])
    try:
        target.expect("ready")
        for name in (b"/absolute", b"/relative"):
            assert lib.mw_open_in_root(target.pid, name) < 0
    finally:
        target.stop()


def test_ourselves_the_first_process_and_what_is_no_python_are_refused(start_target):
    host = Host()
    with pytest.raises(Refused, match="itself"):
        run_script(host, host.process_id(os.getpid()), "pass", DEADLINE_S)
    with pytest.raises(Refused, match="first process"):
        run_script(host, host.process_id(1), "pass", DEADLINE_S)
    target = start_target("sleepers", "0")
    with pytest.raises(NoPython):
        run_script(host, host.process_id(target.pid), "pass", DEADLINE_S)


def test_a_process_that_ended_is_gone():
    host = Host()
    process = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
    identity = host.process_id(process.pid)
    process.communicate()
    with pytest.raises(ProcessGone):
        run_script(host, identity, "pass", DEADLINE_S)
