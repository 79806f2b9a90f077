"""Batches go to the disk from a thread: an fsync may take seconds, and a tick has none to spare.

One batch at a time: while it is being written the next is refused, which costs that tick its
sample in what is saved and nothing else.
"""

from __future__ import annotations

import logging
import threading
from typing import NamedTuple, Optional

from mwtrace.errors import HostError
from mwtrace.state.store import Batch, Store

log = logging.getLogger(__name__)

_CLOSING_S = 1.0


class Failed(NamedTuple):
    """A batch that was not written."""

    tick: int
    is_file_new: bool  # and what was written before is lost, too


class Writer:
    """Owns a store from construction to ``close()``."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._condition = threading.Condition()
        self._batch: Optional[Batch] = None
        self._failed: Optional[Failed] = None
        self._is_closing = False
        self._has_told = False
        self._thread = threading.Thread(target=self._work, name="mwtrace state", daemon=True)
        self._thread.start()
        self.counters = {
            "state_writes_total": 0,
            "state_writes_failed_total": 0,
            "state_ticks_skipped_total": 0,
        }

    @property
    def is_idle(self) -> bool:
        """Whether ``offer()`` would be heard."""
        with self._condition:
            return self._batch is None

    def offer(self, batch: Batch) -> None:
        """Have a batch written; call it only while idle."""
        with self._condition:
            assert self._batch is None
            self._batch = batch
            self._condition.notify_all()

    def take_failed(self) -> Optional[Failed]:
        """Return what could not be written, once."""
        with self._condition:
            failed, self._failed = self._failed, None
            return failed

    def skip(self) -> None:
        self.counters["state_ticks_skipped_total"] += 1

    def wait_idle(self, within_s: float) -> bool:
        with self._condition:
            return self._condition.wait_for(lambda: self._batch is None, within_s)

    def close(self) -> None:
        """Write what was offered, but for no longer than a second."""
        with self._condition:
            self._is_closing = True
            self._condition.notify_all()
        self._thread.join(_CLOSING_S)
        if not self._thread.is_alive():
            self._store.close()

    def _work(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._batch is not None or self._is_closing)
                batch = self._batch
            if batch is None:
                return
            files = self._store.damaged_total
            is_written = self._write(batch)
            is_file_new = self._store.damaged_total != files
            with self._condition:
                self._failed = None if is_written else Failed(batch.tick, is_file_new)
                self._batch = None
                self._condition.notify_all()

    def _write(self, batch: Batch) -> bool:
        try:
            self._store.write(batch)
        except HostError as error:
            self.counters["state_writes_failed_total"] += 1
            if not self._has_told:
                log.warning("%s; trying again at each tick", error)
            self._has_told = True
            return False
        except Exception:  # a bug here must not end the watch
            self.counters["state_writes_failed_total"] += 1
            log.exception("cannot save the state")
            return False
        if self._has_told:
            log.warning("the state is saved again")
        self._has_told = False
        self.counters["state_writes_total"] += 1
        return True
