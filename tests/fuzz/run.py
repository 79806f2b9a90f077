"""Runs the fuzzers: `make fuzz` for a fixed number of executions, by hand for as long as you like.

C is compiled by clang with libFuzzer, AddressSanitizer and UBSan; Python runs in atheris, which is
libFuzzer too, with every bytecode of mwtrace counted as coverage. What breaks is left in the work
folder and printed; put it into ``corpus/<fuzzer>/`` together with the repair.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import seeds

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SANITIZE = "address,undefined"
FLAGS = ["-g", "-O1", "-std=gnu11", "-D_GNU_SOURCE", "-DMW_TESTING", "-fno-sanitize-recover=all"]
FLAGS += ["-fno-omit-frame-pointer", f"-I{ROOT / 'bpf'}", f"-I{ROOT / 'cext'}", f"-I{HERE}"]
COMPILER = ["clang", *FLAGS, f"-fsanitize=fuzzer-no-link,{SANITIZE}"]
LIBRARIES = ["-lbpf", "-lelf", "-lz", "-lm", "-pthread"]
# The part of --runs that each gets: by what one execution costs, so that all take about as long.
C_FUZZERS = {"symbols": 1.0, "heap": 0.05, "arenas": 0.1, "audit": 0.1, "trace": 1.0, "watch": 0.2}
PYTHON_FUZZERS = {"proc": 0.5, "elf": 0.1, "linetable": 1.0, "replay": 0.2}
RUNS = 20_000
# Of one input: slower means that somebody who can write it can stop us.
TIMEOUT_S = 10
RSS_MIB_MAX = 1024
DEADLINE_S = 3600.0


def compile_library(work: Path, compiler: list[str]) -> Path:
    """All of cext as one archive."""
    work.mkdir(parents=True, exist_ok=True)

    def compile_one(source: Path) -> Path:
        target = work / f"{source.stem}.o"
        subprocess.run([*compiler, "-c", source, "-o", target], check=True)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sorted((ROOT / "cext").glob("*.c"))))
    archive = work / "libcext.a"
    archive.unlink(missing_ok=True)
    subprocess.run(["ar", "rcs", archive, *objects], check=True)
    return archive


def c_fuzzer(work: Path, archive: Path, name: str) -> list[str]:
    target = work / f"fuzz_{name}"
    command = ["clang", *FLAGS, f"-fsanitize=fuzzer,{SANITIZE}", HERE / f"fuzz_{name}.c", archive]
    subprocess.run([*command, *LIBRARIES, "-o", target], check=True)
    return [str(target)]


def fuzz(
    command: list[str], name: str, work: Path, arguments: argparse.Namespace, part: float
) -> bool:
    """Run one fuzzer; say what it did. Returns whether nothing broke."""
    corpus = seeds.write(work / "corpus", name)
    found = work / "found"
    found.mkdir(exist_ok=True)
    options = [f"-seed={arguments.seed}", f"-timeout={TIMEOUT_S}", f"-rss_limit_mb={RSS_MIB_MAX}"]
    largest = max(path.stat().st_size for path in corpus.iterdir())
    options += [f"-max_len={max(4096, largest)}", f"-artifact_prefix={found}/{name}-"]
    options += ["-print_final_stats=1"]
    if arguments.seconds:
        options.append(f"-max_total_time={arguments.seconds}")
    else:
        options.append(f"-runs={int(arguments.runs * part)}")
    began_s = time.monotonic()
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1"}
    done = subprocess.run(
        [*command, *options, corpus],
        cwd=work,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=max(DEADLINE_S, 2.0 * arguments.seconds),
        errors="replace",
    )
    executed = re.search(r"number_of_executed_units: +(\d+)", done.stdout)
    covered = re.findall(r"cov: (\d+)", done.stdout)
    spent_s = time.monotonic() - began_s
    print(
        f"{name:10} {executed[1] if executed else '?':>9} executions"
        f" {covered[-1] if covered else '?':>6} edges {spent_s:6.1f} s"
        f" {'ok' if done.returncode == 0 else 'BROKEN'}",
        flush=True,
    )
    if done.returncode:
        print("\n".join(done.stdout.splitlines()[-60:]))
    return done.returncode == 0


def under_valgrind(work: Path) -> bool:
    """Compile C without any sanitizer and run it over the seeds in valgrind."""
    # The newest debug information is more than Debian 12's valgrind can read.
    compiler = ["clang", "-gdwarf-4", *(flag for flag in FLAGS if "sanitize" not in flag)]
    archive = compile_library(work, compiler)
    is_whole = True
    for name in C_FUZZERS:
        target = work / name
        sources = [HERE / "files_main.c", HERE / f"fuzz_{name}.c", archive]
        subprocess.run([*compiler, *sources, *LIBRARIES, "-o", target], check=True)
        files = sorted(seeds.write(work / "corpus", name).glob("[!.]*"))
        command = ["valgrind", "--quiet", "--error-exitcode=1", "--leak-check=full"]
        done = subprocess.run([*command, target, *files], timeout=DEADLINE_S)
        print(f"{name:10} {len(files):9} inputs in valgrind", "BROKEN" if done.returncode else "ok")
        is_whole &= done.returncode == 0
    return is_whole


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    every = [*C_FUZZERS, *PYTHON_FUZZERS]
    parser.add_argument("--runs", type=int, default=RUNS, help="executions of the fastest")
    parser.add_argument("--seconds", type=int, default=0, help="of each, instead of --runs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "fuzz")
    parser.add_argument("--valgrind", action="store_true", help="the C and its seeds, no fuzzing")
    parser.add_argument("names", nargs="*", choices=[[], *every], help="these only")
    arguments = parser.parse_args()
    names = arguments.names or every
    work: Path = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    for tool in ("clang", "valgrind"):
        if not shutil.which(tool):
            parser.error(f"needs {tool}; install.sh --dev installs it")
    if arguments.valgrind:
        return 0 if under_valgrind(work / "plain") else 1
    is_whole = True
    archive = compile_library(work, COMPILER) if set(names) & set(C_FUZZERS) else None
    for name, part in {**C_FUZZERS, **PYTHON_FUZZERS}.items():
        if name not in names:
            continue
        if name in C_FUZZERS:
            assert archive
            command = c_fuzzer(work, archive, name)
        else:
            command = [sys.executable, str(HERE / f"fuzz_{name}.py")]
        is_whole &= fuzz(command, name, work, arguments, part)
    return 0 if is_whole else 1


if __name__ == "__main__":
    sys.exit(main())
