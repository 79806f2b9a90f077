"""``mwtrace snapshot`` and ``mwtrace hook``: taking snapshots by hand, and where the hook is.

Reads and prints; how one is taken is said in ``snapshot``.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from mwtrace.console import anchor
from mwtrace.errors import ProcessError
from mwtrace.host.procfs import Host
from mwtrace.lookup import find_process
from mwtrace.model import Snapshot
from mwtrace.snapshot import trigger
from mwtrace.snapshot.moving import Mover
from mwtrace.snapshot.sealing import Seal
from mwtrace.snapshot.store import Store, StoreLimits
from mwtrace.snapshot.taking import Ask, Taker, TakingLimits
from mwtrace.snapshot.uninvited import ask_uninvited
from mwtrace.tell.snapshots import snapshot_json, snapshot_line
from mwtrace.tell.terminal import detect_style

DEFAULT_FOLDER = "/var/lib/mwtrace/snapshots"


@dataclass(frozen=True)
class Wish:
    """What the operator asked for."""

    word: str  # a pid or a service
    folder: Path
    count: int = 1
    every_s: float = 60.0
    recipient: Optional[str] = None
    command: Optional[str] = None  # that moves files off
    as_json: bool = False
    injects: bool = False  # the hook, where there is none
    trusts_filter: bool = False  # seccomp's, to answer with errors and not to kill


def take(wish: Wish) -> int:
    """Take count snapshots of a process, every_s apart; return 0 if all came."""
    host = Host()
    meant = find_process(host, wish.word)
    process = host.process_id(meant.pid)
    if meant.process_count > 1:
        print(
            f"mwtrace: {meant.service.name} has {meant.process_count:,} processes; asking the "
            f"largest, pid {meant.pid}",
            file=sys.stderr,
        )
    seal = Seal(wish.recipient) if wish.recipient else None
    store = Store(wish.folder, StoreLimits(), seal)
    mover = Mover(wish.command) if wish.command else None
    unicode = detect_style(sys.stdout, os.environ).unicode
    try:
        taker = Taker(host, store, TakingLimits())
        began_s = time.monotonic()
        code = 0
        for number in range(wish.count):
            time.sleep(max(0.0, began_s + number * wish.every_s - time.monotonic()))
            snapshot = taker.take(
                process, meant.service.name, "asked", is_asked=True, ask=_question(wish)
            )
            _tell(snapshot, wish.as_json, unicode)
            if not snapshot.is_taken:
                code = ProcessError.exit_code
                if snapshot.outcome in ("gone", "no_hook"):
                    break  # and the next time would not be better
            elif mover is not None:
                mover.put(snapshot)
        if mover is not None and not mover.finish():
            print(f"mwtrace: {mover.last_failure}", file=sys.stderr)
            code = 1
        return code
    finally:
        if mover is not None:
            mover.close()
        store.close()


def _question(wish: Wish) -> Ask:
    if not wish.injects:
        return trigger.ask
    return lambda host, process, deadline_s: ask_uninvited(
        host, process, deadline_s, wish.trusts_filter
    )


def _tell(snapshot: Snapshot, as_json: bool, unicode: bool) -> None:
    if as_json:
        print(snapshot_json(snapshot, anchor()), flush=True)
    elif snapshot.is_taken:
        print(snapshot_line(snapshot, unicode), flush=True)
    else:
        print(f"mwtrace: {snapshot.reason}", file=sys.stderr)
        if snapshot.remedy:
            print(f"  {snapshot.remedy}", file=sys.stderr)
