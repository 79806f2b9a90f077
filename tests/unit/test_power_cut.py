"""Power cuts, from what SQLite really wrote.

Of writes that were not synced any may be lost, torn or out of order, and still every tick that was
called written is there, whole.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mwtrace.state.store import FILE, Store

FACTS = {"boot": "one", "watched": "all"}
SECTOR_BYTES = 512
CUTS = 150
# Says after each tick how long the log was then: a tick is written when write() has returned.
WRITER = """
import os, random, sys
from pathlib import Path
from mwtrace.state.store import Batch, Store
store = Store(Path(sys.argv[1]), {"boot": "one", "watched": "all"})
log = Path(os.environ["WRITE_LOG"])
dice = random.Random(1)
for tick in range(1, 121):
    body = b"%d " % tick + dice.randbytes(dice.randrange(100, 30000))
    items = {f"k{dice.randrange(40)}": str(tick) * 50, "tick": str(tick)}
    store.write(Batch(tick, max(1, tick - 20), body, items, []))
    print(tick, log.stat().st_size, flush=True)
for suffix in ("", "-wal"):
    print(suffix, os.stat(f"{sys.argv[1]}/mwtrace.db{suffix}").st_ino, flush=True)
os._exit(0)
"""


class Operation(NamedTuple):
    end: int  # of its record in the log
    kind: str
    inode: int
    offset: int
    data: bytes


def operations(log: bytes) -> list[Operation]:
    found, at = [], 0
    while at < len(log):
        kind, inode, offset, size = struct.unpack_from("=QQQQ", log, at)
        at += 32
        data = log[at : at + size] if kind == ord("w") else b""
        at += len(data)
        found.append(Operation(at, chr(kind), inode, offset, data))
    return found


def after_a_cut(done: list[Operation], inode: int, dice: random.Random) -> bytes:
    """Return what a disk may hold of a file: all that was synced, and any of the rest."""
    mine = [operation for operation in done if operation.inode == inode]
    synced = max((i for i, operation in enumerate(mine) if operation.kind == "s"), default=-1)
    image = bytearray()
    for operation in mine[: synced + 1]:
        apply(image, operation)
    rest = [operation for operation in mine[synced + 1 :] if operation.kind != "s"]
    pieces = [piece for operation in rest for piece in torn(operation)]
    kept = [piece for piece in pieces if dice.random() < 0.6]
    dice.shuffle(kept)
    for piece in kept:
        apply(image, piece)
    return bytes(image)


def torn(operation: Operation) -> list[Operation]:
    return [
        operation._replace(
            offset=operation.offset + begin, data=operation.data[begin : begin + SECTOR_BYTES]
        )
        for begin in range(0, len(operation.data), SECTOR_BYTES)
    ] or [operation]


def apply(image: bytearray, operation: Operation) -> None:
    if operation.kind == "t":
        del image[operation.offset :]
        image.extend(bytes(operation.offset - len(image)))
    elif operation.kind == "w":
        image.extend(bytes(max(0, operation.offset - len(image))))
        image[operation.offset : operation.offset + len(operation.data)] = operation.data


def test_a_power_cut_at_any_moment_takes_the_tick_under_way_at_most(
    tmp_path: Path, compile_preload: Callable[[str], Path]
) -> None:
    log = tmp_path / "log"
    environment = {**os.environ, "LD_PRELOAD": str(compile_preload("write_log"))}
    command = [sys.executable, "-c", WRITER, tmp_path / "state"]
    environment["WRITE_LOG"] = str(log)
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    lines = [line.split(" ") for line in done.stdout.splitlines()]
    ended = {int(tick): int(size) for tick, size in lines[:-2]}
    inodes = {suffix: int(inode) for suffix, inode in lines[-2:]}
    everything = operations(log.read_bytes())
    assert {operation.kind for operation in everything} >= {"w", "s"}
    begins = next(end for tick, end in ended.items() if tick == 2)
    dice = random.Random(2)
    exact = 0
    for number in range(CUTS):
        cut = dice.randrange(begins, everything[-1].end)
        before = [operation for operation in everything if operation.end <= cut]
        folder = tmp_path / f"cut{number}"
        folder.mkdir(0o700)
        for suffix, inode in inodes.items():
            (folder / f"{FILE}{suffix}").write_bytes(after_a_cut(before, inode, dice))
        written = max(tick for tick, end in ended.items() if end <= cut)
        store = Store(folder, FACTS)
        ticks = [int(body.split(b" ")[0]) for body in store.ticks()]
        items = store.items()
        store.close()
        assert store.damaged_total == 0
        # The one under way may have been written, or not; nothing else.
        assert ticks[-1] in (written, written + 1)
        assert ticks == list(range(max(1, ticks[-1] - 20), ticks[-1] + 1))
        assert items["tick"] == str(ticks[-1])
        exact += ticks[-1] == written
    assert 0 < exact
