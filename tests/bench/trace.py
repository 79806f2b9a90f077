"""What tracing costs and how right it is, beside its peers; prints the figures of docs/overhead.md.

    trace.py [--rounds 7] [--pairs 6] [--seconds 10] [--memray PYTHON]
             [pair|workloads|windows|ring|growth|sites ...]

pair       one malloc/free pair: no probe, every block told, sampled, and bcc's memleak
workloads  four programs with and without mwtrace trace, tracemalloc, memray and memleak
windows    what a window takes of a program, beside what the governor says that it takes
ring       events per second from memory into the tables, and how many are lost at 500,000
growth     a page fault of a process that is watched, and of one that is not
sites      is the site right that a trace of 60 s names, and its rate

Needs root. Cases take turns, because the machine's speed drifts: figures are medians, and those of
workloads medians of pairs. memray is looked for in the virtual environment of --memray's python,
which must be of our own version. No figure: "not run", and why.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from memleak import NotRun, memleak  # noqa: E402
from target import Target  # noqa: E402
from work import Work  # noqa: E402

MWTRACE = [sys.executable, "-m", "mwtrace"]
SECTIONS = ["pair", "workloads", "windows", "ring", "growth", "sites"]
SAMPLED_BYTES = 1 << 19


def compiled(source: Path, folder: str, *flags: str) -> str:
    program = f"{folder}/{source.stem}"
    subprocess.run(["cc", "-O2", *flags, "-o", program, str(source)], check=True)
    return program


# One malloc/free pair.


class Drain:
    """Empties the ring in a thread of its own, as a trace does."""

    def __init__(self, drain: Callable[[float], int]) -> None:
        self._drain = drain
        self._is_over = False
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._is_over:
            self._drain(0.01)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._is_over = True
        self._thread.join()


def bench_pair(rounds: int) -> None:
    from mwtrace.host.procfs import Host
    from mwtrace.probes.engine_libbpf import LibbpfEngine
    from mwtrace.probes.governor import Window
    from mwtrace.tracing.probing import Probing
    from mwtrace.tracing.process import TracedProcess
    from mwtrace.tracing.session import EXACT_COST_S
    from mwtrace.tracing.windows import ProcessWindows

    probing = Probing(LibbpfEngine())
    dropped = 0
    rates = []
    times: dict[str, list[float]] = {"none": [], "exact": [], "sampled": [], "memleak": []}

    def by_us(target: Target, interval_bytes: int, pairs: int) -> float:
        nonlocal dropped
        traced = TracedProcess(Host().process_id(target.pid), probing.host, probing.modules)
        plan = probing.look_at(traced, probing.gates(traced))
        windows = ProcessWindows(probing, target.pid, plan)
        try:
            windows.open(Window(20.0, EXACT_COST_S, interval_bytes), interval_bytes)
            with Drain(probing.drain):
                took_ns = pair_ns(target, pairs)
            windows.end()
            counts = windows.counts
            if interval_bytes == 0:
                if counts["blocks_total"] + counts["dropped_blocks_total"] < pairs:
                    raise SystemExit("pair: not every block was seen")
                dropped += counts["dropped_blocks_total"] + counts["dropped_frees_total"]
                rates.append(2e9 / took_ns)
            elif counts["hits_total"] < 2 * pairs:
                raise SystemExit("pair: not every call was seen")
        finally:
            windows.close()
            probing.tracer.forget(target.pid)
        return took_ns

    with tempfile.TemporaryDirectory() as folder:
        program = compiled(HERE / "prices.c", folder, "-fno-builtin")
        target = Target([program])
        why = ""
        try:
            target.expect("ready")
            clean = first_bytes(target)
            for _ in range(rounds):
                times["none"].append(pair_ns(target, 500_000))
                times["exact"].append(by_us(target, 0, 20_000))
                times["sampled"].append(by_us(target, SAMPLED_BYTES, 100_000))
                if why:
                    continue
                try:
                    with memleak(target.pid):
                        times["memleak"].append(pair_ns(target, 20_000))
                except NotRun as error:
                    why = str(error)
            if first_bytes(target) != clean:
                raise SystemExit("pair: a breakpoint was left in the target")
        finally:
            target.stop()
            probing.close()
    middle = {name: statistics.median(found) for name, found in times.items() if found}
    print(f"pair      no probe: {middle['none']:.0f} ns")
    exact_note = f"; {dropped:,} events dropped at {statistics.median(rates):,.0f} a second"
    for name, bar, note in (("exact", 4, exact_note), ("sampled", 8, "")):
        said = f"pair      {name}: {middle[name]:.0f} ns with native stacks"
        if times["memleak"]:
            ratios = zip(times["memleak"], times[name])
            ratio = statistics.median(theirs / ours for theirs, ours in ratios)
            said += f"; memleak takes {ratio:.1f} times as long (bar: {bar})"
        print(said + note)
    print(
        f"pair      memleak: {middle['memleak']:.0f} ns" if not why else f"memleak   not run: {why}"
    )


def pair_ns(target: Target, count: int) -> float:
    target.tell("pairs 200 64")
    target.line()
    target.tell(f"pairs {count} 64")
    return float(target.line())


def first_bytes(target: Target) -> list[bytes]:
    """What malloc and free begin with; a breakpoint would show."""
    found = []
    for symbol in ("malloc", "free"):
        target.tell(f"where {symbol}")
        with open(f"/proc/{target.pid}/mem", "rb", buffering=0) as memory:
            found.append(os.pread(memory.fileno(), 64, int(target.line(), 16)))
    return found


# Workloads.


class Speed(NamedTuple):
    per_second: float
    per_cpu_second: float


class Way(NamedTuple):
    """Something that is done to a program while it is measured."""

    name: str
    bar: str
    applied: Callable[[Work, float], AbstractContextManager[object]]


class Traced:
    """mwtrace trace, started before and waited for within the time that is measured."""

    def __init__(self, *options: str, pid: int = 0) -> None:
        self._options = options
        self._pid = pid  # of another program; 0: of the one that is measured
        self.prices: list[float] = []

    @contextmanager
    def __call__(self, work: Work, seconds: float) -> Iterator[object]:
        pid = str(self._pid or work.pid)
        command = [*MWTRACE, "trace", pid, "--seconds", f"{seconds:g}", *self._options]
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            yield child
            said = child.communicate(timeout=60)[0]
        finally:
            child.kill()
            child.wait()
        if child.returncode:
            raise NotRun(said.strip().splitlines()[-1] if said.strip() else "mwtrace failed")
        price = re.search(r"price: ([0-9.]+)% of its time", said)
        if price:
            self.prices.append(float(price[1]))


@contextmanager
def nothing(work: Work, seconds: float) -> Iterator[None]:
    yield


@contextmanager
def with_tracemalloc(work: Work, seconds: float) -> Iterator[None]:
    work.toggle_tracemalloc(True)
    try:
        yield
    finally:
        work.toggle_tracemalloc(False)


@contextmanager
def with_memleak(work: Work, seconds: float) -> Iterator[None]:
    with memleak(work.pid):
        yield


def with_memray(python: str) -> Callable[[Work, float], AbstractContextManager[None]]:
    program = str(Path(python).with_name("memray"))

    @contextmanager
    def attached(work: Work, seconds: float) -> Iterator[None]:
        with tempfile.TemporaryDirectory() as folder:
            output = f"{folder}/memray.bin"
            call(program, "attach", "--method", "gdb", "-f", "-o", output, str(work.pid))
            try:
                yield
            finally:
                call(program, "detach", "--method", "gdb", str(work.pid))

    return attached


def call(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if result.returncode:
        lines = (result.stderr + result.stdout).strip().splitlines()
        raise NotRun(f"{' '.join(command[1:2])}: {lines[-1] if lines else 'failed'}")


def measure(work: Work, applied: AbstractContextManager[object], seconds: float) -> Speed:
    with applied as child:
        done, cpu_s, began = work.done(), work.cpu_s(), time.monotonic()
        if isinstance(child, subprocess.Popen):
            # From its first import to its last line: all of it is what a trace costs.
            while child.poll() is None and time.monotonic() < began + 3 * seconds + 30:
                time.sleep(0.02)
        else:
            time.sleep(seconds)
        done, cpu_s, took_s = work.done() - done, work.cpu_s() - cpu_s, time.monotonic() - began
    return Speed(done / took_s, done / cpu_s)


def bench_workloads(pairs: int, seconds: float, memray: str) -> None:
    where = memray_folder(memray)
    script = str(HERE / "workloads.py")
    with tempfile.TemporaryDirectory() as folder:
        programs = {name: [sys.executable, script, name] for name in ("api", "numpy", "objects")}
        programs["churn.c"] = [compiled(HERE / "churn.c", folder)]
        idle = Target(["sh", "-c", "echo ready; read end"])
        if subprocess.run(
            [sys.executable, "-c", "import numpy"], stderr=subprocess.DEVNULL
        ).returncode:
            del programs["numpy"]
            print("workload  numpy: not run: this python has no numpy (pip install numpy)")
        try:
            idle.expect("ready")
            for name, command in programs.items():
                work = Work(command, f"{folder}/counter", where)
                try:
                    compare(name, work, pairs, seconds, memray, where, idle.pid)
                finally:
                    work.stop()
        finally:
            idle.stop()


def compare(
    name: str, work: Work, pairs: int, seconds: float, memray: str, where: str, idle: int
) -> None:
    traced, growth = Traced(), Traced("--growth-only")
    # What the machine, our start and our own work beside it take; no probe is in the program.
    beside = Way("trace of an idle program beside it", "", Traced(pid=idle))
    ways = [Way("trace", "2%", traced), beside, Way("growth only", "0%", growth)]
    peers = [Way("memleak", "", with_memleak)]
    if name != "churn.c":
        peers.append(Way("tracemalloc", "", with_tracemalloc))
        if where:
            peers.append(Way("memray attach", "", with_memray(memray)))
        else:
            print(f"workload  {name}: memray attach: not run: no memray (--memray PYTHON)")
    measure(work, nothing(work, 1), 1)  # warm
    for way in ways + peers:
        short = way in peers
        count, lasts_s = (max(1, pairs // 3), min(seconds, 3.0)) if short else (pairs, seconds)
        try:
            losses = [one_pair(work, way, lasts_s, number) for number in range(count)]
        except (NotRun, OSError, subprocess.TimeoutExpired) as error:
            print(f"workload  {name}: {way.name}: not run: {error}", flush=True)
            continue
        by_clock = statistics.median(clock for clock, _ in losses)
        by_cpu = statistics.median(cpu for _, cpu in losses)
        spread = sorted(cpu for _, cpu in losses)
        said = f"loss {by_clock:.2%} by the clock, {by_cpu:.2%} of work per CPU second"
        said += f" ({spread[0]:.2%} to {spread[-1]:.2%}"
        said += f"; {count} pairs of {lasts_s:g} s"
        said += f"; bar: {way.bar})" if way.bar else ")"
        if way is ways[0] and traced.prices:
            said += f"; its own figure {statistics.median(traced.prices):.2f}%"
        print(f"workload  {name}: {way.name}: {said}", flush=True)


def one_pair(work: Work, way: Way, seconds: float, number: int) -> tuple[float, float]:
    """The parts of its throughput that are lost: by the clock, and by its CPU time."""

    def without() -> Speed:
        return measure(work, nothing(work, seconds), seconds)

    def with_it() -> Speed:
        return measure(work, way.applied(work, seconds), seconds)

    # The order changes, so that a drift does not count for one of them.
    if number % 2:
        hindered, free = with_it(), without()
    else:
        free, hindered = without(), with_it()
    return (
        1 - hindered.per_second / free.per_second,
        1 - hindered.per_cpu_second / free.per_cpu_second,
    )


def memray_folder(python: str) -> str:
    """Where memray is to be imported from, by the targets too; "" if there is none."""
    if not python:
        return ""
    ask = "import memray, os; print(os.path.dirname(os.path.dirname(memray.__file__)))"
    result = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
    return result.stdout.strip()


# The other benches.


def bench_windows() -> None:
    with tempfile.TemporaryDirectory() as folder:
        churn = compiled(HERE / "churn.c", folder)
        for name, command in (
            ("objects", [sys.executable, str(HERE / "workloads.py"), "objects"]),
            ("churn.c", [churn]),
        ):
            subprocess.run(
                [sys.executable, str(HERE / "trace_windows.py"), name, *command], check=True
            )


def bench_ring() -> None:
    command = [sys.executable, str(HERE / "tracer.py"), "--events", "1000000", "--runs", "5"]
    said = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
    )
    print(f"ring      {said.stdout.strip().splitlines()[-1]} (bar: 3,000,000)")
    command = [sys.executable, str(HERE / "trace_ring.py")]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    print(f"ring      {said.stdout.strip()} (bar: 0)", flush=True)


def bench_growth(rounds: int) -> None:
    command = [sys.executable, str(HERE / "trace_growth.py"), "--rounds", str(rounds)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    figures = {line[:34].strip(): float(line[34:43]) for line in said.splitlines()[1:]}
    unwatched = figures["fault, not watched"] - figures["fault, nothing attached"]
    native = figures["fault, native stack"] - figures["fault, nothing attached"]
    python = figures["Python fault, both stacks"] - figures["Python fault, nothing attached"]
    calls = figures["system call, mmap traced"] - figures["system call, nothing attached"]
    print(f"growth    fault of a process not watched: {unwatched:+.0f} ns (bar: 150)")
    print(f"growth    sampled fault, native stack: {native:+.0f} ns (bar: 4000)")
    print(f"growth    sampled fault, Python and native stack: {python:+.0f} ns (bar: 4000)")
    print(f"growth    any system call while mmap is traced: {calls:+.0f} ns")


class Truth(NamedTuple):
    name: str
    command: list[str]
    rates: dict[str, float]  # function -> bytes per second; the first is the worst
    innocent: tuple[str, ...]


class Found(NamedTuple):
    rates: dict[str, float]  # function -> bytes per second
    top: str
    said: str


def look(pid: int, seconds: float, known: tuple[str, ...]) -> Found:
    """Trace a process at the default budget; runs in a process of its own."""
    from mwtrace.host.procfs import Host
    from mwtrace.probes.engine_libbpf import LibbpfEngine
    from mwtrace.tracing.command import Format, Wish, parse_share, trace
    from mwtrace.tracing.report import place_of

    host = Host()
    wish = Wish(str(pid), seconds, parse_share("1%"), False, False, Format.TABLE, None)
    outcome = trace(LibbpfEngine(), host, host.process_id(pid), "target", wish)
    # Wherever in the stack a function is, its callee's blocks are its own: json's are remember's.
    rates: dict[str, float] = {}
    for site in outcome.report.profile.sites:
        names = [frame.name for frame in site.frames]
        name = next((name for name in known if name in names), "")
        name = name or (place_of(site.frames).name or "no name")
        rates[name] = rates.get(name, 0.0) + (site.slope_bytes_per_second or 0.0)
    top = max(rates, key=lambda name: rates[name], default="")
    return Found(rates, top, outcome.report.conclusion)


def bench_sites(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        targets = HERE.parent / "targets"
        native = compiled(targets / "sites_paced.c", folder, "-g", "-fno-omit-frame-pointer")
        service = [sys.executable, str(targets / "python_service.py"), "objects"]
        # A list of 40 floats (56 bytes with its header for the collector, 40 words, 40 floats),
        # and its word in the list that keeps it; a thousand times a second.
        truths = [
            Truth(
                "sites_paced.c",
                [native],
                {"leak_large": 300_000, "leak_small": 90_000},
                ("churn", "cache"),
            ),
            Truth(
                "python_service.py",
                service,
                {"remember": 1000 * (56 + 40 * 8 + 40 * 24 + 8)},
                ("churn", "cache"),
            ),
        ]
        running = [Target(list(truth.command)) for truth in truths]
        try:
            for target in running:
                target.expect("ready")
            with ProcessPoolExecutor(len(truths), get_context("spawn")) as pool:
                looks = [
                    pool.submit(look, target.pid, seconds, (*truth.rates, *truth.innocent))
                    for truth, target in zip(truths, running)
                ]
                for truth, found in zip(truths, looks):
                    tell_site(truth, found.result(timeout=seconds + 60), seconds)
        finally:
            for target in running:
                target.stop()


def tell_site(truth: Truth, found: Found, seconds: float) -> None:
    worst = next(iter(truth.rates))
    right = "right" if found.top == worst else f"WRONG: {found.top}"
    errors = [f"{n} {found.rates.get(n, 0.0) / rate - 1:+.0%}" for n, rate in truth.rates.items()]
    total = sum(found.rates.values()) or 1.0
    blamed = sum(found.rates.get(name, 0.0) for name in truth.innocent) / total
    print(
        f"sites     {truth.name}, {seconds:g} s: top {right}; rates {', '.join(errors)} (bar: 15%)"
    )
    print(f"sites     {truth.name}: churn and cache {blamed:.1%} of the blame (bar: 1%)")
    print(f"sites     {truth.name}: {found.said}", flush=True)


def main() -> None:
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=how)
    parser.add_argument("what", nargs="*", default=[], metavar="|".join(SECTIONS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=10.0, help="of one run of a workload")
    parser.add_argument("--memray", default="", metavar="PYTHON", help="of an environment with it")
    asked = parser.parse_args()
    unknown = sorted(set(asked.what) - set(SECTIONS))
    if unknown:
        parser.error(f"no section {unknown[0]}")
    what = asked.what or SECTIONS
    if "pair" in what:
        bench_pair(asked.rounds)
    if "ring" in what:
        bench_ring()
    if "growth" in what:
        bench_growth(asked.rounds)
    if "workloads" in what:
        bench_workloads(asked.pairs, asked.seconds, asked.memray)
    if "windows" in what:
        bench_windows()
    if "sites" in what:
        bench_sites(60.0)


if __name__ == "__main__":
    main()
