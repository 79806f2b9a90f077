"""The switch for kernel tests, and targets that are always ended."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from target import Target

TARGETS = Path(__file__).parent / "targets"


def _kernel_refusal() -> str | None:
    """Say why kernel tests cannot run here, or None if they can."""
    if os.geteuid() != 0:
        return "needs root, or CAP_BPF with CAP_PERFMON"
    if not Path("/sys/kernel/btf/vmlinux").exists():
        return "needs a kernel with BTF"
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    # Unset: run what can be run. 1: a skip would be a lie, so fail. 0: never.
    if item.get_closest_marker("kernel") is None:
        return
    wish = os.environ.get("MWTRACE_KERNEL_TESTS")
    if wish == "0":
        pytest.skip("MWTRACE_KERNEL_TESTS=0")
    refusal = _kernel_refusal()
    if refusal and wish == "1":
        pytest.fail(f"MWTRACE_KERNEL_TESTS=1, but this machine {refusal}", pytrace=False)
    if refusal:
        pytest.skip(refusal)


@pytest.fixture(scope="session")
def compile_target(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that compiles ``tests/targets/<name>.c`` once per session."""
    folder = tmp_path_factory.mktemp("targets")

    def compile_once(name: str) -> Path:
        program = folder / name
        if not program.exists():
            command = [
                "cc",
                "-O1",
                "-g",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-pthread",
                "-D_GNU_SOURCE",
            ]
            subprocess.run([*command, "-o", program, TARGETS / f"{name}.c"], check=True)
        return program

    return compile_once


@pytest.fixture
def start_target(compile_target: Callable[[str], Path]) -> Iterator[Callable[..., Target]]:
    """Return a function that starts a compiled target and waits until it is ready."""
    started: list[Target] = []

    def start(name: str, *arguments: bytes | str) -> Target:
        target = Target([str(compile_target(name)), *arguments])
        started.append(target)
        target.expect("ready")
        return target

    yield start
    for target in started:
        target.stop()


@pytest.fixture(scope="session")
def compile_preload(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that compiles ``tests/targets/<name>.c`` into what LD_PRELOAD takes."""
    folder = tmp_path_factory.mktemp("preloads")

    def compile_once(name: str) -> Path:
        library = folder / f"{name}.so"
        if not library.exists():
            flags = [
                "-O1",
                "-g",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-D_GNU_SOURCE",
                "-shared",
                "-fPIC",
            ]
            subprocess.run(["cc", *flags, "-o", library, TARGETS / f"{name}.c"], check=True)
        return library

    return compile_once
