"""Targets with the hook in them, and a taker with a store of its own."""

from __future__ import annotations

from pathlib import Path

from interpreters import script
from target import Target

from mwtrace.host.procfs import Host
from mwtrace.model import Snapshot
from mwtrace.snapshot import placing, trigger
from mwtrace.snapshot.store import Store, StoreLimits
from mwtrace.snapshot.taking import Ask, Taker, TakingLimits


def start_hooked(
    python: str,
    *words: str,
    options: tuple[str, ...] = (),
    before: tuple[str, ...] = (),
    **variables: str,
) -> Target:
    """Start tests/targets/hooked.py; the caller stops it."""
    settings = {"PYTHONPATH": str(placing.FOLDER), **variables}
    told = ["env", *(f"{name}={value}" for name, value in settings.items())]
    return Target([*before, *told, python, *options, script("hooked"), *words])


class Taking:
    """A store in a folder of a test's, and what it takes to fill it."""

    def __init__(self, folder: Path, limits: TakingLimits | None = None) -> None:
        self.host = Host()
        self.store = Store(folder, StoreLimits(spare_bytes=0))
        self.taker = Taker(self.host, self.store, limits or TakingLimits())

    def take(self, pid: int, ask: Ask = trigger.ask) -> Snapshot:
        return self.taker.take(self.host.process_id(pid), "hooked", "asked", True, ask)

    def must_take(self, pid: int) -> Snapshot:
        snapshot = self.take(pid)
        assert snapshot.outcome == "taken", snapshot
        return snapshot

    def close(self) -> None:
        self.store.close()
        self.host.close()


def answered(target: Target, line: str) -> str:
    target.tell(line)
    return target.line()
