"""What a hit costs at a function's first byte and at the place that was chosen, here and now.

Run as root: ``python tests/bench/probes.py [PYTHON...]``. Prints nanoseconds per hit, the least of
several rounds: the time a fixed piece of work takes longer, divided by the hits in it. The program
counts hits and sums arguments, which is about 100 ns of each figure.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from hit_counter import HitCounter, placed_points
from target import Target

from mwtrace.probes.attach import attach_kind_of_host
from mwtrace.probes.points import AttachPoint, Placement
from mwtrace.probes.targets import Targets

ROUNDS = 5
LIBC = ("malloc", "free", "calloc", "realloc", "posix_memalign", "aligned_alloc", "reallocarray")
# Work that calls every function of a domain often, timed inside the target.
WORK = """
import ctypes, sys, time
api = ctypes.pythonapi
libc = ctypes.CDLL(None)
def prepare(function, result, *arguments):
    function.restype, function.argtypes = result, arguments
    return function
P, S = ctypes.c_void_p, ctypes.c_size_t
families = [(api, n + "Malloc", n + "Calloc", n + "Realloc", n + "Free")
            for n in ("PyObject_", "PyMem_", "PyMem_Raw")]
families.append((libc, "malloc", "calloc", "realloc", "free"))
groups = []
for library, m, c, r, f in families:
    groups.append((prepare(getattr(library, m), P, S), prepare(getattr(library, c), P, S, S),
                   prepare(getattr(library, r), P, P, S), prepare(getattr(library, f), None, P)))
more = [prepare(libc.aligned_alloc, P, S, S), prepare(libc.reallocarray, P, P, S, S)]
where = P()
memalign = prepare(libc.posix_memalign, ctypes.c_int, P, S, S)
address = ctypes.addressof(where)
print("ready", flush=True)
for line in sys.stdin:
    begin = time.perf_counter_ns()
    for i in range(2000):
        for m, c, r, f in groups:
            f(r(m(24), 48)); f(c(3, 7))
        groups[-1][3](more[0](64, 64)); groups[-1][3](more[1](None, 3, 7))
        memalign(address, 64, 24); groups[-1][3](where)
    print(time.perf_counter_ns() - begin, flush=True)
"""


def work_ns(target: Target) -> int:
    def once() -> int:
        target.tell("go")
        return int(target.line())

    return min(once() for _ in range(ROUNDS))


def per_hit_ns(counter: HitCounter, target: Target, point: AttachPoint, plain_ns: int) -> float:
    report = counter.attach(target.pid, [point])
    if report.refused:
        raise SystemExit(f"{point.symbol}: {report.refused[0].reason}")
    before = counter.seen(0).hits
    probed_ns = work_ns(target)
    report.detach()
    hits = (counter.seen(0).hits - before) / ROUNDS
    return (probed_ns - plain_ns) / hits if hits else float("nan")


def main(programs: list[str]) -> None:
    kind = attach_kind_of_host().kind
    counter = HitCounter(Path(tempfile.mkdtemp()), kind)
    for program in programs:
        target = Target([program, "-c", WORK])
        try:
            target.expect("ready")
            counter.allow(target.pid)
            first = {p.symbol: p for p in Targets().look_at(target.pid).points}
            chosen = {p.symbol: p for p in placed_points(target.pid)}
            work_ns(target)
            plain_ns = work_ns(target)
            print(f"{program}, {kind.value}: ns per hit (with return where it is read)")
            for symbol, point in first.items():
                if not symbol.startswith("Py") and symbol not in LIBC:
                    continue
                at_first = point._replace(placement=Placement(0, "", False, ""))
                # A forwarder that leads to a function watched already has no point of its own.
                place = chosen.get(symbol) or chosen.get(f"{symbol} >") or chosen["PyObject_Free >"]
                assert place.placement is not None
                figures = [per_hit_ns(counter, target, p, plain_ns) for p in (at_first, place)]
                print(
                    f"  {symbol:17} +0 {figures[0]:7.0f}   chosen {figures[1]:7.0f}"
                    f"   {place.symbol} +{place.placement.offset:#x} {place.placement.instruction}",
                    flush=True,
                )
        finally:
            target.stop()
    counter.close()


if __name__ == "__main__":
    main(sys.argv[1:] or ["/usr/bin/python3"])
