"""The command line as operators and scripts meet it: words, exit codes, and where they go."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from target import Target

from mwtrace import cli

COMMAND = [sys.executable, "-m", "mwtrace"]
FAST = ["--no-bpf", "--interval", "100ms"]
DEADLINE_S = 30
RECORDINGS = Path(__file__).parent.parent / "data" / "recordings"
MIB = 1024 * 1024
# Starts others, prints "ready" and waits for the end of its input.
SLEEPER = "print('ready', flush=True); input()"


def run(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    options = {"capture_output": True, "text": True, "timeout": DEADLINE_S, **options}
    return subprocess.run([*COMMAND, *words], **options)  # type: ignore[call-overload]


@pytest.fixture
def sleeper() -> Iterator[Target]:
    target = Target([sys.executable, "-c", SLEEPER])
    target.expect("ready")
    yield target
    target.stop()


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, int]:
    """Return what is said and the exit code; in this process, since nothing is started."""
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    told = capsys.readouterr()
    assert told.out == ""
    assert "Traceback" not in told.err
    return told.err, ended.value.code


# -- what is asked for ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "spread"),
    [
        ("--pid 1 2 3", "--pid 1 --pid 2 --pid 3"),
        ("--pid=1 2 3 --json", "--pid=1 --pid 2 --pid 3 --json"),
        ("--pid 1 --interval 2 --pid 3 4", "--pid 1 --interval 2 --pid 3 --pid 4"),
        ("--duration 5 --pid 1", "--duration 5 --pid 1"),
        ("--pid 1 doctor", "--pid 1 doctor"),
        ("--pid", "--pid"),
    ],
)
def test_several_pids_may_follow_one_option(words: str, spread: str) -> None:
    assert cli._spread_pids(words.split()) == spread.split()


IMPOSSIBLE = {
    "--all --pid 1": "--all and --pid exclude each other",
    "--interval 0 --all": "every 0",
    "--interval 1ms --all": "every 1ms",
    "--interval 1d --all": "every 1d",
    "--interval soon --all": "'soon'",
    "--interval nan --all": "'nan'",
    "--interval -5 --all": "'-5'",
    "--duration 0 --all": "for no time",
    "--duration inf --all": "'inf'",
    "--pid 0": "'--pid'",
    "--pid x": "'--pid'",
    "--pid": "'--pid'",
    "--pid 999999999": "process 999999999: there is none",
    "--record x.csv --all": "exactly one --pid",
    "--record x.csv --pid 1 2": "exactly one --pid",
    "--json": "--json of what?",
    "--duration 5": "--duration of what?",
    "--json doctor": "'doctor' takes no --json",
    "--pid 1 replay x": "'replay' takes no --pid",
    "--service x demo steady": "'demo' takes no --service",
    "--nonsense": "--nonsense",
    "nonsense": "nonsense",
    "demo": "",
    "demo explode": "'explode' is not one of",
    "demo steady --rate fast": "'fast'",
    "demo steady --seconds nan": "'nan'",
    "replay /absent.csv": "/absent.csv: No such file",
    "replay /": "Is a directory",
}


@pytest.mark.parametrize(("words", "said"), IMPOSSIBLE.items(), ids=list(IMPOSSIBLE))
def test_what_cannot_be_is_refused_with_a_reason_a_remedy_and_code_2(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told, code = refused(capsys, *words.split())
    reason, remedy = told.splitlines()
    assert code == 2
    assert reason.startswith("mwtrace: ")
    assert said in reason
    assert remedy.startswith("  ")
    assert remedy.strip()


def test_a_hostile_word_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    told, code = refused(capsys, "replay", "/\x1b]0;owned\x07\n\udcff")
    assert code == 2
    assert len(told.splitlines()) == 2
    assert told.replace("\n", "").isprintable()


def test_without_any_word_it_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 0
    assert "sudo mwtrace --all" in capsys.readouterr().out


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("mwtrace, version ")


# -- processes that cannot be watched ------------------------------------------------------------


def test_a_zombie_is_not_watched(capsys: pytest.CaptureFixture[str]) -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    told, code = refused(capsys, "--pid", str(child.pid))
    child.wait()
    assert (code, "it has ended, and waits for its parent" in told) == (2, True)


def test_a_thread_is_no_process(capsys: pytest.CaptureFixture[str]) -> None:
    program = "import threading; threading.Thread(target=input, daemon=True).start(); input()"
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
    try:
        tasks: list[str] = []
        while len(tasks) < 2:
            tasks = os.listdir(f"/proc/{child.pid}/task")
            assert child.poll() is None
        thread = next(task for task in tasks if int(task) != child.pid)
        told, code = refused(capsys, "--pid", thread)
    finally:
        child.kill()
        child.communicate()
    assert (code, f"process {thread}: there is none" in told) == (2, True)


# -- a watch -------------------------------------------------------------------------------------


def test_a_watch_ends_after_its_duration_with_a_summary(sleeper: Target) -> None:
    done = run("--pid", str(sleeper.pid), *FAST, "--duration", "500ms")
    assert done.returncode == 0
    assert done.stderr.startswith("mwtrace: watching through /proc (as asked), every 0.1 s")
    conclusion, seen, *_ = done.stdout.splitlines()
    assert conclusion == "no verdict: not watched long enough to judge anything"
    assert seen.startswith("seen: ")
    assert "through /proc (as asked)" in seen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_a_summary_and_code_0(sleeper: Target, number: int) -> None:
    words = ["--pid", str(sleeper.pid), *FAST]
    with watch(*words) as child:
        assert child.stderr
        assert child.stderr.readline().startswith("mwtrace: watching")
        child.send_signal(number)
        out, err = child.communicate(timeout=DEADLINE_S)
    assert (child.returncode, err) == (0, "")
    assert "lost: nothing" in out


def watch(*words: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([*COMMAND, *words], stdout=pipe, stderr=pipe, text=True)


def test_it_ends_when_all_that_was_asked_for_has_ended(sleeper: Target) -> None:
    other = Target([sys.executable, "-c", SLEEPER])
    other.expect("ready")
    try:
        words = ["--pid", str(sleeper.pid), str(other.pid), *FAST, "--verbose"]
        with watch(*words) as child:
            assert child.stdout
            for _ in range(2):
                assert child.stdout.readline().startswith("LEARNING ")
            other.stop()
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(0.5)  # one of the two still runs
            sleeper.stop()
            out, _ = child.communicate(timeout=DEADLINE_S)
    finally:
        other.stop()
    assert child.returncode == 0
    assert out.splitlines()[0].startswith("all processes that were asked for have ended; ")


def test_a_zombie_has_ended(sleeper: Target) -> None:
    with watch("--pid", str(sleeper.pid), *FAST, "--verbose") as child:
        assert child.stdout
        assert child.stdout.readline().startswith("LEARNING ")
        os.kill(sleeper.pid, signal.SIGKILL)
        os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
        out, _ = child.communicate(timeout=DEADLINE_S)
    assert child.returncode == 0
    assert out.startswith("all processes that were asked for have ended")


def test_json_is_all_that_is_on_standard_output(sleeper: Target) -> None:
    done = run("--pid", str(sleeper.pid), *FAST, "--duration", "600ms", "--json")
    assert done.returncode == 0
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert (told["event"], told["verdict"], told["pid"]) == ("verdict", "learning", sleeper.pid)
    assert "Verdict changes follow as JSON" in done.stderr
    assert "lost: nothing" in done.stderr


def test_once_shows_what_is_there_now(sleeper: Target) -> None:
    done = run("--pid", str(sleeper.pid), "--no-bpf", "--once")
    assert done.returncode == 0
    assert f"({sleeper.pid})" in done.stdout
    assert "\x1b" not in done.stdout
    objects = run("--pid", str(sleeper.pid), "--no-bpf", "--once", "--json").stdout.splitlines()
    assert [json.loads(line)["pid"] for line in objects] == [sleeper.pid]


def test_a_service_that_matches_nothing_is_said_and_waited_for(sleeper: Target) -> None:
    done = run("--service", "no\x1bsuch", *FAST, "--duration", "1s")
    assert done.returncode == 0
    assert "no service here matches 'no\\x1bsuch'; there are: " in done.stderr
    assert done.stderr.count("no service here matches") == 1
    assert done.stdout.startswith("no service here matches")
    done = run("--service", "nosuch", "--no-bpf", "--once")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no service here matches 'nosuch'" in done.stderr


def test_a_recording_is_what_replay_reads(sleeper: Target, tmp_path: Path) -> None:
    path = tmp_path / "sleeper.csv"
    words = ["--pid", str(sleeper.pid), *FAST, "--duration", "1s", "--record", str(path)]
    assert run(*words).returncode == 0
    assert len(path.read_text().splitlines()) > 5
    done = run("replay", str(path))
    assert done.returncode == 0
    assert ": LEARNING sleeper (pid 1): " in done.stdout
    again = run(*words)
    assert (again.returncode, again.stdout) == (2, "")
    assert "Name a file that is not there yet." in again.stderr


def test_a_disk_without_room_for_the_recording_is_said(sleeper: Target, tmp_path: Path) -> None:
    def no_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40, 40))

    path = str(tmp_path / "sleeper.csv")
    words = ["--pid", str(sleeper.pid), *FAST, "--record", path]
    done = run(*words, preexec_fn=no_room)
    assert done.returncode == 3
    assert f"mwtrace: cannot record to {path}: File too large" in done.stderr
    assert "Traceback" not in done.stderr


# -- where it goes -------------------------------------------------------------------------------


def shell(command: str) -> subprocess.CompletedProcess[str]:
    quoted = f"'{sys.executable}' -m mwtrace"
    command = command.replace("MWTRACE", quoted)
    words = ["bash", "-o", "pipefail", "-c", command]
    return subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S)


def test_a_reader_that_goes_away_ends_the_watch_quietly(sleeper: Target) -> None:
    # No line is due: it is noticed at the next tick.
    done = shell(f"MWTRACE --pid {sleeper.pid} --no-bpf --interval 100ms 2>/dev/null | true")
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    "command",
    [
        "MWTRACE doctor | head -1",
        "MWTRACE --help | true",
        f"MWTRACE replay {RECORDINGS}/leak-numpy-recarray.csv | head -1",
        f"MWTRACE replay --json {RECORDINGS}/leak-numpy-recarray.csv | true",
    ],
)
def test_a_pipe_that_breaks_is_no_traceback(command: str) -> None:
    done = shell(command)
    assert done.returncode in (0, 141)  # it may have written all before the pipe broke
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["doctor", "--help", "--pid PID --no-bpf --duration 300ms"])
def test_a_full_disk_is_said(command: str, sleeper: Target) -> None:
    done = shell(f"MWTRACE {command.replace('PID', str(sleeper.pid))} >/dev/full")
    assert done.returncode == 1
    assert "mwtrace: cannot go on: No space left on device\n  Make room" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_closed_standard_output_is_refused(sleeper: Target) -> None:
    done = shell(f"MWTRACE --pid {sleeper.pid} --no-bpf --duration 300ms >&-")
    assert done.returncode == 2
    assert done.stderr.startswith("mwtrace: standard output is closed\n  ")


@pytest.mark.parametrize("closed", ["2>&-", "<&-", "<&- 2>&-"])
def test_other_closed_files_are_no_matter(closed: str, sleeper: Target) -> None:
    done = shell(f"MWTRACE --pid {sleeper.pid} --no-bpf --duration 300ms {closed}")
    assert done.returncode == 0
    assert "lost: nothing" in done.stdout


def test_a_file_that_took_the_place_of_a_closed_one_is_left_alone(sleeper: Target) -> None:
    """As libffi's own file does, which it opens before we can fill the places."""
    program = "import os, sys; os.open('/dev/null', os.O_RDONLY); import mwtrace.cli as cli; "
    program += "cli.main(sys.argv[1:])"
    words = f"--pid {sleeper.pid} --no-bpf --duration 300ms"
    done = shell(f"'{sys.executable}' -c \"{program}\" {words} 2>&-")
    assert done.returncode == 0
    assert "lost: nothing" in done.stdout


def test_without_a_locale_all_is_ascii(sleeper: Target) -> None:
    words = ["--pid", str(sleeper.pid), *FAST, "--duration", "300ms", "--verbose"]
    done = run(*words, env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"})
    assert done.returncode == 0
    assert done.stdout.isascii()


# -- the other commands --------------------------------------------------------------------------


def test_the_doctor_speaks_to_people_and_to_programs() -> None:
    done = run("doctor")
    assert done.returncode == 0
    assert "kernel" in done.stdout
    facts = json.loads(run("doctor", "--json").stdout)
    assert facts


def test_replay_tells_people_when_and_programs_what() -> None:
    path = str(RECORDINGS / "leak-numpy-recarray.csv")
    done = run("replay", path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith("after ")
    assert ": LEAKING leak-numpy-recarray (pid 1): " in done.stdout
    objects = [json.loads(line) for line in run("replay", "--json", path).stdout.splitlines()]
    assert objects[-1]["verdict"] == "leaking"
    assert len(objects) == len(done.stdout.splitlines())


def test_a_recording_that_is_too_short_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "short.csv"
    path.write_text("time_s,private_bytes\n1,2\n")
    told, code = refused(capsys, "replay", str(path))
    assert (code, "too few samples" in told) == (2, True)


def test_a_demo_ends_when_its_time_is_over() -> None:
    done = run("demo", "steady", "--rate", "1M", "--seconds", "0.3")
    assert done.returncode == 0
    assert done.stdout.startswith("ready: allocating 1048576 bytes/s")


# -- who is told of incidents --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--alertmanager am:9093", "--alertmanager: this is no http or https URL"),
        ("--webhook http://me:secret@am/", "the URL holds a password"),
        ("--exec /nonexistent/hook", "--exec: there is no program /nonexistent/hook"),
        ("--incidents-dir /proc/none/incidents", "cannot keep incidents in"),
        ("--alertmanager http://am --alertmanager-auth-file /none", "cannot read /none"),
        ("--alertmanager http://am --alertmanager-resend 1ms", "cannot send alerts again"),
        ("--alertmanager-auth-file /none", "--alertmanager-auth-file of what?"),
        ("--resolve-after 5s", "--resolve-after of what?"),
        ("--runbook-base http://wiki", "--runbook-base of what?"),
        ("--once --journal", "--once is over before there is anything for --journal"),
    ],
)
def test_who_cannot_be_told_is_refused_before_the_watch(
    words: str, said: str, sleeper: Target
) -> None:
    ended = run("--pid", str(sleeper.pid), "--no-bpf", *words.split())
    assert ended.returncode == 2, ended
    assert said in ended.stderr
    assert "secret" not in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_a_second_watch_with_the_same_records_is_refused(sleeper: Target, tmp_path: Path) -> None:
    words = [*FAST, "--pid", str(sleeper.pid), "--incidents-dir", str(tmp_path / "incidents")]
    with subprocess.Popen([*COMMAND, *words], stderr=subprocess.PIPE, text=True) as first:
        try:
            assert first.stderr
            assert "watching" in first.stderr.readline()
            second = run(*words)
            assert second.returncode == 3
            assert "another mwtrace keeps its incidents in" in second.stderr
        finally:
            first.send_signal(signal.SIGINT)
            first.communicate(timeout=DEADLINE_S)


def test_no_incident_is_no_error_of_the_command(tmp_path: Path) -> None:
    ended = run("incidents", "--incidents-dir", str(tmp_path))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"no incident is kept in {tmp_path}\n"
