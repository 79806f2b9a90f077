"""What the readers of other processes' memory cost, and how right they are.

    explain.py [--gigabytes 1] [--python PATH] [census accuracy holders arenas loss corpus ...]

census    objects per second, own memory, and what it changed in the target
accuracy  counts beside those that each CPython here takes in itself
holders   seconds per level at 60 MB and at a gigabyte
arenas    malloc's figures from outside beside malloc's own
loss      the target's rounds per second while censuses run, beside those without
corpus    --corpus DIR: whether the parts add up on its programs, after --seconds each

Needs root. Ratios are medians of pairs taken in one run, because the machine's speed drifts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from interpreters import interpreters, script
from target import Target

from mwtrace.evidence.arenas import read_arenas
from mwtrace.evidence.census import census_process, take_census
from mwtrace.evidence.explain import explain_process
from mwtrace.evidence.holders import find_holders
from mwtrace.evidence.image import Image
from mwtrace.evidence.interpreter import find_interpreter
from mwtrace.evidence.parts import PartKind, sizes

TARGETS = Path(__file__).resolve().parent.parent / "targets"
MIB = 1 << 20
OBJECTS_PER_GIGABYTE = 11_700_000  # as truth_heap.py counts its own


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[Target]:
    target = Target(command)
    try:
        yield target
    finally:
        target.stop()


@contextlib.contextmanager
def heap(python: str, objects: int) -> Iterator[Target]:
    with running([python, script("truth_heap"), str(objects), "-"]) as target:
        target.expect("ready")
        yield target


def status(pid: int) -> dict[str, int]:
    text = Path(f"/proc/{pid}/status").read_text()
    return {name: int(kib) for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.M)}


def bench_census(options: argparse.Namespace) -> None:
    for gigabytes in (options.gigabytes, 3 * options.gigabytes):
        with heap(options.python, int(OBJECTS_PER_GIGABYTE * gigabytes)) as target:
            before = status(target.pid)
            times, census = [], None
            for _ in range(3):
                began = time.perf_counter()
                census = census_process(target.pid)
                times.append(time.perf_counter() - began)
            after = status(target.pid)
            assert census is not None
            own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"census    {before['VmRSS'] / 1024:.0f} MiB, "
                f"{census.objects / 1e6:.1f} M objects: "
                f"{min(times):.2f} s (of {', '.join(f'{t:.2f}' for t in times)}), "
                f"own RSS {own:.0f} MiB with Python, page tables {before['VmPTE']} -> "
                f"{after['VmPTE']} kB, swap {before['VmSwap']} -> {after['VmSwap']} kB"
            )


def bench_accuracy(options: argparse.Namespace) -> None:
    for python in interpreters():
        counts = []
        for objects in (0, 300_000):
            with running([python, script("truth_heap"), str(objects)]) as target:
                truth = sum(json.loads(target.line())["n"].values())
                counts.append((truth, census_process(target.pid).objects))
        truth, seen = (counts[1][i] - counts[0][i] for i in range(2))
        print(f"accuracy  {python}: {seen} of {truth} objects ({100 * (seen / truth - 1):+.4f}%)")


def bench_holders(options: argparse.Namespace) -> None:
    for name, objects in (("60 MB", 650_000), ("1 GB", OBJECTS_PER_GIGABYTE)):
        with heap(options.python, objects) as target, Image(target.pid) as image:
            interpreter = find_interpreter(image)
            assert interpreter is not None
            census = take_census(image, interpreter)
            row = next(row for row in census.types if row.name == "__main__.Rec")
            found = find_holders(image, interpreter, row.address)
            levels = ", ".join(f"{level:.3f}" for level in found.level_s[1:])
            print(
                f"holders   {name}: first pass {found.level_s[0]:.3f} s, levels {levels} s; "
                f"{found.paths[0].text} {found.paths[0].count}/{found.sampled}"
            )


def bench_arenas(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/heap"
        source = str(TARGETS / "heap.c")
        subprocess.run(
            ["cc", "-O2", "-pthread", "-D_GNU_SOURCE", "-o", program, source], check=True
        )
        for shape, size in (("fragmented", 200), ("fast", 200), ("threads", 256), ("big", 2048)):
            with running([program, shape, str(size)]) as target:
                _, system, in_use, _ = target.line().split()
                times = []
                for _ in range(3):
                    with Image(target.pid) as image:
                        began = time.perf_counter()
                        arenas = read_arenas(image)
                        times.append(time.perf_counter() - began)
                assert arenas is not None
                print(
                    f"arenas    {shape} {size} MiB: in use "
                    f"{100 * (arenas.in_use_bytes / int(in_use) - 1):+.3f}%, system "
                    f"{100 * (arenas.system_bytes / int(system) - 1):+.3f}%, "
                    f"{len(arenas.arenas)} arenas, {1000 * min(times):.1f} ms"
                )


def bench_loss(options: argparse.Namespace) -> None:
    with tempfile.NamedTemporaryFile() as counter:
        counter.write(bytes(8))
        counter.flush()
        command = [options.python, script("busy_heap"), "3000000", counter.name]
        with running(["taskset", "-c", "0", *command]) as target:
            target.expect("ready")

            def rounds_per_second(act: Callable[[], object]) -> float:
                began, before = time.monotonic(), rounds()
                while time.monotonic() - began < 1.0:
                    act()
                return (rounds() - before) / (time.monotonic() - began)

            def rounds() -> int:
                return int(struct.unpack("<Q", Path(counter.name).read_bytes())[0])

            # A loop that reads nobody's memory shows what a second busy thread costs by itself.
            acts: list[Callable[[], object]] = [
                lambda: time.sleep(0.01),
                lambda: sum(range(100_000)),
                lambda: census_process(target.pid),
            ]
            turns = [[rounds_per_second(act) for act in acts] for _ in range(15)]
            busy, census = (
                100 * (1 - statistics.median(turn[i] / turn[0] for turn in turns)) for i in (1, 2)
            )
            print(
                f"loss      {census:+.2f}% of the rounds with censuses without a break, "
                f"{busy:+.2f}% with an empty loop on that core"
            )


def bench_corpus(options: argparse.Namespace) -> None:
    if not options.corpus:
        return
    runner = Path(options.corpus) / "run_case.py"
    cases = sorted(path.parent.name for path in Path(options.corpus).glob("cases/*/case.toml"))
    for case in cases:
        command = [sys.executable, str(runner), case, "--seconds", "600"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                lines = 0
                while lines < options.seconds and process.stdout.readline():
                    lines += 1
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
                if not children:
                    print(f"corpus    {case}: did not start")
                    continue
                explained = explain_process(int(children.split()[0]), with_holders=False)
                parts = sizes(explained.parts)
                private = explained.kernel.private_bytes
                off = explained.private_bytes / private - 1
                unaccounted = parts[PartKind.UNACCOUNTED] / private
                print(
                    f"corpus    {case}: {explained.census.interpreter}, parts {100 * off:+.2f}% of "
                    f"{private / MIB:.0f} MiB, unaccounted {100 * unaccounted:.1f}%, "
                    f"{explained.elapsed_s:.2f} s",
                    flush=True,
                )
            except Exception as error:  # one case must not end the others
                print(f"corpus    {case}: {error}", flush=True)
            finally:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)


BENCHES = {
    "census": bench_census,
    "accuracy": bench_accuracy,
    "holders": bench_holders,
    "arenas": bench_arenas,
    "loss": bench_loss,
    "corpus": bench_corpus,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", choices=[*BENCHES, []], default=list(BENCHES))
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--python", default=interpreters()[3])
    parser.add_argument("--corpus")
    parser.add_argument("--seconds", type=int, default=10)
    options = parser.parse_args()
    for what in options.what:
        BENCHES[what](options)


if __name__ == "__main__":
    main()
