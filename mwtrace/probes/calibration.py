"""What a probe hit costs on this host, measured on a child of our own.

Takes about half a second, so it is done once, before the first window. It must not know targets
or budgets; the trials themselves are in C (``cext/calibrate.h``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from mwtrace.capi import ffi, lib
from mwtrace.errors import HostError
from mwtrace.probes.attach import AttachKind
from mwtrace.probes.governor import Prices
from mwtrace.probes.placement import EMULATED, Kind
from mwtrace.probes.points import AttachPoint

SAMPLE_NS = 5_000_000
REPEATS = 3  # the least of them: other load only adds
# An emulated instruction costs a third or less of a single-stepped one, also outside of VMs.
CHEAP_PART = 0.5
# Measured with programs of bpf/alloc.bpf.c; used where no program is at hand to be tried.
PROGRAM_NS = 120.0
STOPPED_PROGRAM_NS = 40.0
# A sampled block with both stacks and two records, in traps on an emulated instruction: 3.1 us
# where such a trap takes 0.78 us, and a third of that on a machine three times as fast.
SAMPLE_TRAPS = 4.0


class Costs(NamedTuple):
    """Nanoseconds per hit with an empty program, by what the probe sits on."""

    attach_kind: AttachKind
    entry_ns: dict[Kind, float]
    return_ns: float  # on top of the entry

    @property
    def emulated(self) -> frozenset[Kind]:
        """Kinds of instruction that this kernel does not single-step."""
        dear_ns = self.entry_ns.get(Kind.OTHER, 0.0)
        seen = {kind for kind, cost in self.entry_ns.items() if cost < dear_ns * CHEAP_PART}
        # Where stepping is no dearer nothing is gained behind the first byte, and nothing lost.
        return frozenset(seen - {Kind.OTHER})

    def prices(self, points: Iterable[AttachPoint]) -> Prices:
        """Prices of a set of points: of the dearest, for counts do not tell which was hit."""
        dear = any(point.placement is None or not point.placement.is_emulated for point in points)
        cheap_ns = max((self.entry_ns[kind] for kind in self.emulated), default=0.0)
        trap_ns = self.entry_ns[Kind.OTHER] if dear or not self.emulated else cheap_ns
        return Prices(
            trap_ns + PROGRAM_NS,
            self.return_ns,
            trap_ns + STOPPED_PROGRAM_NS,
            SAMPLE_TRAPS * (cheap_ns or trap_ns),
        )


class KeptCosts(NamedTuple):
    """``Costs``, as they are kept for the rest of a boot."""

    attach_kind: AttachKind
    entry_ns: tuple[tuple[Kind, float], ...]
    return_ns: float


# What a hit costs is a fact of the machine, so it is measured once however often we start.
_measured: dict[AttachKind, Costs] = {}


def kept_costs() -> list[KeptCosts]:
    return [
        KeptCosts(costs.attach_kind, tuple(costs.entry_ns.items()), costs.return_ns)
        for costs in list(_measured.values())
    ]


def take_costs(kept: KeptCosts) -> None:
    """Believe what a run before this one measured, if it is whole."""
    entry_ns = {kind: cost for kind, cost in kept.entry_ns if cost > 0}
    if set(entry_ns) == set(Kind) and kept.return_ns >= 0:
        _measured[kept.attach_kind] = Costs(kept.attach_kind, entry_ns, kept.return_ns)


def calibrate(attach_kind: AttachKind) -> Costs:
    """Measure, once; raises HostError where the kernel lets us attach nothing."""
    if attach_kind not in _measured:
        _measured[attach_kind] = _measure(attach_kind)
    return _measured[attach_kind]


def _measure(attach_kind: AttachKind) -> Costs:
    entry_ns = {}
    for kind in Kind:
        entry_ns[kind] = _least(kind, attach_kind, lib.MW_CALIBRATED_ENTRY)
    both_ns = _least(Kind.PUSH, attach_kind, lib.MW_CALIBRATED_RETURN)
    return Costs(attach_kind, entry_ns, max(0.0, both_ns - entry_ns[Kind.PUSH]))


def assumed(attach_kind: AttachKind) -> Costs:
    """Figures of a slow virtual machine, for machines on which nothing can be measured."""
    entry_ns = {kind: 900.0 if kind in EMULATED else 13_000.0 for kind in Kind}
    return Costs(attach_kind, entry_ns, 700.0)


def _least(kind: Kind, attach_kind: AttachKind, what: int) -> float:
    place = getattr(lib, f"MW_PLACE_{kind.name}")
    cost_ns = ffi.new("double *")
    least = float("inf")
    for _ in range(REPEATS):
        rc = lib.mw_calibrate(place, attach_kind.code, what, -1, SAMPLE_NS, cost_ns)
        if rc < 0:
            raise HostError(f"cannot measure what a probe costs: {os.strerror(-rc)}")
        least = min(least, cost_ns[0])
    return least
