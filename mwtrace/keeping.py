"""What of a watch survives its end: handed to ``state`` after each tick, and back at the start.

A teller like others: the loop does not know it. Each part of the daemon says itself what it must
not forget; here these are given keys, and only what changed is written. Restoring never fails: what
cannot be understood is counted, and learned anew.

Times are of CLOCK_MONOTONIC, so everything here is of one boot; what must outlive that (incidents)
is a document with times of its own, see ``Document``.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable, Optional, Protocol

from mwtrace.aggregator import OomKill, Table
from mwtrace.daemon import Daemon, Settings
from mwtrace.errors import ConfigError, HostError, ProcessGone
from mwtrace.escalation.sites import KeptSites
from mwtrace.host.procfs import Host
from mwtrace.model import Finding, NewFinding, Service, Snapshot, VerdictChange
from mwtrace.probes.calibration import KeptCosts, kept_costs, take_costs
from mwtrace.registry import KeptName
from mwtrace.state.plain import from_plain, to_plain
from mwtrace.state.store import Batch, Store
from mwtrace.state.writer import Writer
from mwtrace.verdicts import KeptProcess, KeptService

log = logging.getLogger(__name__)

_DOCUMENT = "document/"
_CLOSING_S = 0.8
_Spent = tuple[tuple[float, int], ...]


class Document(Protocol):
    """A part that is kept whole under a name, across boots too."""

    def dump(self) -> Any:
        """Return what json can write; compared with ``==`` to see whether it changed."""
        ...

    def load(self, value: Any) -> None:
        """Take what ``dump()`` of an earlier run returned. Raises ValueError if it cannot be."""
        ...


class Keeper:
    """Restores a daemon at construction and saves it at each tick, until ``close()``."""

    def __init__(
        self, daemon: Daemon, store: Store, documents: Optional[Mapping[str, Document]] = None
    ) -> None:
        self._daemon = daemon
        self._documents = documents or {}
        self._written: dict[str, Any] = {}
        self._pending: dict[str, Any] = {}  # what the batch under way writes
        self._removing: list[str] = []
        self.counters = {"state_refused_total": 0, "state_restored_total": 0}
        self._restore(store)
        self._writer = Writer(store)
        daemon.counted.append(lambda: {**self.counters, **self._writer.counters})

    def on_change(self, change: VerdictChange) -> None:
        pass

    def on_finding(self, news: NewFinding) -> None:
        pass

    def on_snapshot(self, snapshot: Snapshot) -> None:
        pass

    def on_oom_kill(self, oom_kill: OomKill, service: Optional[Service]) -> None:
        pass

    def on_tick(self, table: Table) -> None:
        """Have this tick written, unless the one before still is."""
        if not self._writer.is_idle:
            self._writer.skip()
            return
        self._settle()
        self._offer()

    def close(self) -> None:
        """Have the last tick written, if the disk takes it within a second."""
        if self._writer.wait_idle(_CLOSING_S):
            failed = self._writer.take_failed()
            if failed is not None:
                log.warning("the last tick is not saved: what was before it is")
        self._writer.close()

    def _settle(self) -> None:
        """Note what the batch before became: written, or to be written again."""
        failed = self._writer.take_failed()
        if failed is not None:
            everything = 0
            self._daemon.aggregator.unsave(everything if failed.is_file_new else failed.tick)
            if failed.is_file_new:
                self._written.clear()
        else:
            self._written.update(self._pending)
            for key in self._removing:
                self._written.pop(key, None)
        self._pending, self._removing = {}, []

    def _offer(self) -> None:
        saved = self._daemon.aggregator.save()
        now = dict(self._items())
        missing = object()
        self._pending = {
            key: value for key, value in now.items() if self._written.get(key, missing) != value
        }
        self._removing = [key for key in self._written if key not in now]
        changed = {key: _text(value) for key, value in self._pending.items()}
        self._writer.offer(
            Batch(saved.tick, saved.oldest_tick, saved.body, changed, self._removing)
        )

    def _items(self) -> Iterator[tuple[str, Any]]:
        daemon = self._daemon
        for name in daemon.registry.kept_names():
            yield f"name/{name.service_id}", name
        for service in daemon.verdicts.kept_services():
            yield f"service/{service.service_id}", service
        for process in daemon.verdicts.kept_processes():
            yield f"process/{process.process.pid}", process
        for finding in daemon.escalation.kept_findings():
            yield f"finding/{finding.process.pid}", finding
        for sites in daemon.sites.kept_sites():
            yield f"sites/{sites.process.pid}", sites
        yield "spent", daemon.escalation.spent()
        for costs in kept_costs():
            yield f"costs/{costs.attach_kind.name}", costs
        for name_of, document in self._documents.items():
            yield f"{_DOCUMENT}{name_of}", document.dump()

    def _restore(self, store: Store) -> None:
        now_s = time.monotonic()
        for body in store.ticks():
            if self._daemon.aggregator.restore(body, now_s):
                self.counters["state_restored_total"] += 1
            else:
                self.counters["state_refused_total"] += 1
        items = store.items()
        for key in sorted(items):  # names come before services
            try:
                self._take(key, json.loads(items[key]), now_s)
            except (ValueError, TypeError, LookupError, RecursionError) as error:
                self.counters["state_refused_total"] += 1
                log.debug("what was saved as %s is not understood: %s", key, error)
        self._daemon.registry.close_ranks()

    def _take(self, key: str, plain: Any, now_s: float) -> None:
        if key.startswith(_DOCUMENT):
            document = self._documents.get(key[len(_DOCUMENT) :])
            if document is not None:
                document.load(plain)
            return
        kind, take = self._takers()[key.split("/")[0]]
        value = from_plain(kind, plain)
        take(value)
        self._written[key] = value

    def _takers(self) -> dict[str, tuple[Any, Callable[[Any], None]]]:
        daemon = self._daemon
        return {
            "name": (KeptName, self._take_name),
            "service": (KeptService, self._take_service),
            "process": (KeptProcess, self._take_process),
            "finding": (Finding, daemon.escalation.take_finding),
            "sites": (KeptSites, daemon.sites.take_sites),
            "spent": (_Spent, daemon.escalation.take_spent),
            "costs": (KeptCosts, take_costs),
        }

    def _take_name(self, kept: KeptName) -> None:
        # Of whom no history was saved nobody will tell that it has ended.
        is_gone = kept.is_gone or not self._is_known(kept.service_id)
        if not self._daemon.registry.take_name(kept._replace(is_gone=is_gone), time.monotonic()):
            raise ValueError(f"service {kept.service_id} is out of bounds, or there twice")

    def _take_service(self, kept: KeptService) -> None:
        subject = self._daemon.registry.subject(kept.service_id)
        if subject is None or subject != kept.subject.id:
            raise ValueError(f"service {kept.service_id} is another one")
        self._daemon.verdicts.take_service(kept)
        if not self._is_known(kept.service_id):
            self._daemon.verdicts.standings[kept.service_id].is_gone = True

    def _take_process(self, kept: KeptProcess) -> None:
        if self._daemon.registry.subject(kept.service_id) is None:
            raise ValueError(f"process {kept.process.pid} is of no known service")
        try:
            self._daemon.aggregator.history(kept.process, 0)
        except ProcessGone:
            return  # it ended while its last words were written
        self._daemon.verdicts.take_process(kept)

    def _is_known(self, service_id: int) -> bool:
        try:
            self._daemon.aggregator.history(service_id, 0)
        except ProcessGone:
            return False
        return True


def open_keeper(
    daemon: Daemon,
    folder: Path,
    host: Host,
    documents: Optional[Mapping[str, Document]] = None,
) -> Optional[Keeper]:
    """Return the keeper of a folder; None, after a warning, where nothing can be kept.

    Raises ConfigError for a folder that must not be used.
    """
    facts = {"boot": _boot(host), "watched": _watched(daemon.settings)}
    try:
        store = Store(folder, facts, [_DOCUMENT])
    except ConfigError:
        raise
    except HostError as error:
        log.warning("%s; watching without it", error)
        return None
    return Keeper(daemon, store, documents)


def _boot(host: Host) -> str:
    text = host.read_if_there("/proc/sys/kernel/random/boot_id") or b""
    return text.decode("ascii", "replace").strip()


def _watched(settings: Settings) -> str:
    """Under --pid each process is a service of its own: that is another state."""
    return "pids " + " ".join(map(str, sorted(settings.pids))) if settings.pids else "all"


def _text(value: Any) -> str:
    # Documents are what json writes already.
    plain = value if isinstance(value, (dict, list)) else to_plain(value)
    return json.dumps(plain, separators=(",", ":"))
