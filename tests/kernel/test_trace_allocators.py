"""Programs on other allocators than glibc's: the same sites are named, by contents alone.

All run at once under one set of probes, so that the time of one trace does. Rates have wide
tolerances, since a few dozen survivors spread by a tenth and more.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from target import Target

from mwtrace.host.procfs import Host
from mwtrace.probes.engine_libbpf import LibbpfEngine
from mwtrace.probes.governor import Budget
from mwtrace.tracing.probing import Probing
from mwtrace.tracing.session import TraceSession

pytestmark = pytest.mark.kernel
if find_spec("capstone") is None:
    pytest.skip("the extra 'trace' is not installed", allow_module_level=True)

TARGETS = Path(__file__).parents[1] / "targets"
TRACE_S = 14.0
BUDGET = Budget(target_share=0.1, host_share=1.0)
FLAGS = ["-O1", "-g", "-fno-omit-frame-pointer"]
PACED = {"leak_large": 300_000.0, "leak_small": 90_000.0}
OPERATORS = {"leak()": 100_000.0}


class Case(NamedTuple):
    compiler: str
    source: str
    preloaded: str  # a library; "": none
    rates: dict[str, float]  # by function, the worst first


CASES = {
    "jemalloc": Case("cc", "sites_paced.c", "libjemalloc.so.2", PACED),
    "tcmalloc": Case("cc", "sites_paced.c", "libtcmalloc_minimal.so.4", PACED),
    "mimalloc": Case("cc", "sites_paced.c", "libmimalloc.so.2", PACED),
    "musl": Case("musl-gcc", "sites_paced.c", "", PACED),
    "new and delete": Case("g++", "sites_operators.cc", "", OPERATORS),
    "jemalloc's new and delete": Case("g++", "sites_operators.cc", "libjemalloc.so.2", OPERATORS),
}


def library(name: str) -> str:
    """Where the distribution has it, "" if it is not installed."""
    found = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True)
    for line in found.stdout.splitlines():
        if line.split()[:1] == [name]:
            return line.rpartition(" => ")[2]
    return ""


def command(case: Case, folder: Path) -> list[str]:
    """How to run it; [] if something of it is not installed."""
    preloaded = library(case.preloaded) if case.preloaded else ""
    if not shutil.which(case.compiler) or bool(case.preloaded) != bool(preloaded):
        return []
    program = folder / f"{case.compiler}-{case.source}.program"
    if not program.exists():
        subprocess.run(
            [case.compiler, *FLAGS, "-o", program, TARGETS / case.source], check=True, timeout=60
        )
    return ["env", f"LD_PRELOAD={preloaded}", str(program)] if preloaded else [str(program)]


class Traced(NamedTuple):
    session: TraceSession
    rates: dict[str, float]  # of survivors, by the innermost function of ours in the stack


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Traced]]:
    folder = tmp_path_factory.mktemp("allocators")
    host = Host()
    with ExitStack() as undo:
        probing = Probing(LibbpfEngine(), host, budget=BUDGET)
        undo.callback(probing.close)
        sessions: dict[str, TraceSession] = {}
        for name, case in CASES.items():
            words = command(case, folder)
            if not words:
                continue
            target = Target(words)
            undo.callback(target.stop)
            target.expect("ready")
            process = host.process_id(target.pid)
            sessions[name] = TraceSession(probing, process, time.monotonic(), TRACE_S)
            undo.callback(sessions[name].close)
        step_all(list(sessions.values()))
        yield {
            name: Traced(session, rates(session, CASES[name])) for name, session in sessions.items()
        }


def step_all(sessions: list[TraceSession]) -> None:
    deadline = time.monotonic() + TRACE_S + 30
    while True:
        wanted = [next_s for s in sessions if (next_s := s.step(time.monotonic())) is not None]
        if not wanted:
            return
        assert time.monotonic() < deadline
        time.sleep(min(max(0.0, min(wanted) - time.monotonic()), 0.1))


def rates(session: TraceSession, case: Case) -> dict[str, float]:
    ours = [*case.rates, "churn", "cache", "churn()", "cache(long)"]
    found: dict[str, float] = {}
    for site in session.sites(time.monotonic()):
        names = [plain(frame.name) for frame in site.frames]
        name = next((name for name in reversed(names) if name in ours), "nobody of ours")
        found[name] = found.get(name, 0.0) + site.bytes_per_second
    return found


def plain(name: str) -> str:
    """As C++ has it in the symbol table -> as we read it."""
    mangled = {"_Z4leakv": "leak()", "_Z5churnv": "churn()", "_Z5cachel": "cache(long)"}
    return mangled.get(name, name)


@pytest.mark.parametrize("name", CASES)
def test_its_sites_are_named_at_their_rates(name: str, traced: dict[str, Traced]) -> None:
    if name not in traced:
        pytest.skip(f"{name}: not installed here (install.sh --dev)")
    case, (session, found) = CASES[name], traced[name]
    facts = session.facts(time.monotonic())
    assert facts.windows >= 1
    assert facts.dropped == facts.untracked == 0
    worst = next(iter(case.rates))
    assert max(found, key=lambda name: found[name]) == worst, found
    assert found[worst] == pytest.approx(case.rates[worst], rel=0.5)
    total = sum(case.rates.values())
    innocent = sum(rate for name, rate in found.items() if name not in case.rates)
    assert innocent < 0.05 * total, found


def test_where_memory_can_only_be_compared_that_is_said(traced: dict[str, Traced]) -> None:
    for name, (session, _) in traced.items():
        said = any("known by their contents" in r for r in session.facts(0.0).remarks)
        assert said == (name != "new and delete"), name
