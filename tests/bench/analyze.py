"""What analysing a snapshot of millions of objects costs: time and peak memory, by step.

The bar: 5 million objects with dominators within 60 s and 2 GB. The heap is made up, of sessions in
a dict as a web service keeps them, and compared with an earlier one; every figure is of a process
of its own. Run by ``make bench-analyze``.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BAR_S, BAR_BYTES = 60.0, 2 << 30
PER_SESSION = 5  # Session, its dict, a list, a string, a number
BASE = 0x7F0000000000

CHILD = """
import json, re, sys, time
from pathlib import Path
from mwtrace.snapshot.analysis import analyze
began = time.monotonic()
found = analyze([Path(name) for name in sys.argv[1:]])
print(json.dumps({
    "s": time.monotonic() - began, "objects": found.objects, "grown": found.grown_objects,
    "peak": 1024 * int(re.search("VmHWM:\\\\s+([0-9]+)", Path("/proc/self/status").read_text())[1]),
    "first": found.suspects[0].path, "share": found.suspects[0].share}))
"""


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack("<4sQ", kind, len(data)) + data


def text(kind: bytes, value: object) -> bytes:
    return chunk(kind, json.dumps(value).encode())


def rows(ids, types, sizes, referents) -> bytes:
    counts = np.array([len(row) for row in referents], "<u4")
    flat = np.array([one for row in referents for one in row], "<u8")
    columns = [np.array(ids, "<u8"), np.array(types, "<u8"), np.array(sizes, "<u4")]
    columns += [np.ones(len(ids), "<u4"), counts, flat]
    data = struct.pack("<II", len(ids), 0) + b"".join(c.tobytes() for c in columns)
    return chunk(b"OBJS", data)


def write(path: Path, sessions: int, time_s: float) -> None:
    """A module, its dict, a cache, and sessions of five objects each, at mixed addresses."""
    session = np.arange(sessions, dtype=np.uint64)
    # Neighbours in the dict are not neighbours in memory.
    place = (session * np.uint64(2654435761) % np.uint64(1 << 32)) * np.uint64(512) + np.uint64(
        BASE
    )
    with gzip.open(path, "wb", 1) as file:
        file.write(b"MWSNAP\0\1" + text(b"HEAD", {"pid": 1, "unix_time_s": time_s}))
        names = ["builtins.module", "builtins.dict", "shop.Session", "builtins.list"]
        names += ["builtins.str", "builtins.int", "builtins.type"]
        file.write(text(b"TYPE", [[i + 1, name, 0] for i, name in enumerate(names)]))
        cache = [[32], [48, 64], place.tolist(), []]
        file.write(rows([16, 32, 48, 64], [1, 2, 2, 7], [64, 232, 9000, 1000], cache))
        for begin in range(0, sessions, 13_000):
            one = place[begin : begin + 13_000]
            file.write(many(one))
        file.write(text(b"STRS", ["shop", "cache", "Session"]))
        file.write(chunk(b"ROOT", struct.pack("<IQI", 1, 16, 0) + b"\0"))
        edges = np.array([32, 32, 48, 64], "<u8").tobytes()
        edges += np.array([1, 2], "<u4").tobytes()
        file.write(chunk(b"NAME", struct.pack("<I", 2) + edges + b"\0\0"))
        file.write(text(b"END ", {}))


def many(place) -> bytes:
    """Sessions -> dict -> list, str, int; every second one refers to the session before it."""
    at = [place + np.uint64(offset) for offset in (0, 64, 128, 192, 256)]
    before = np.where(np.arange(len(place)) % 2, np.roll(place, 1), place)
    ids = np.concatenate(at)
    count = len(place)
    types = np.repeat(np.array([3, 2, 4, 5, 6], "<u8"), count)
    sizes = np.repeat(np.array([48, 104, 88, 70, 28], "<u4"), count)
    counts = np.repeat(np.array([2, 3, 2, 0, 0], "<u4"), count)
    of_session = np.stack([at[1], np.full(count, 64, np.uint64)], 1).ravel()
    of_dict = np.stack([at[2], at[3], before], 1).ravel()
    of_list = np.stack([at[3], at[4]], 1).ravel()
    columns = [ids.astype("<u8"), types, sizes, np.ones(len(ids), "<u4"), counts]
    columns += [of_session, of_dict, of_list]
    head = struct.pack("<II", len(ids), 0)
    return chunk(b"OBJS", head + b"".join(np.ascontiguousarray(c).tobytes() for c in columns))


def measure(*paths: Path) -> dict:
    command = [sys.executable, "-c", CHILD, *map(str, paths)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--objects", type=int, default=5_000_000)
    sessions = parser.parse_args().objects // PER_SESSION
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{n}.mwsnap" for n in range(3)]
        began_s = time.monotonic()
        for number, path in enumerate(paths):
            write(path, sessions * (number + 4) // 6, float(number + 1))
        size = os.path.getsize(paths[2])
        print(f"made up in {time.monotonic() - began_s:.0f} s, {size / 1e6:.0f} MB the largest")
        print(f"{'':24}{'objects':>12}{'time':>9}{'peak':>11}   first holder")
        for name, chosen in (
            ("one snapshot", paths[2:]),
            ("two", paths[1:]),
            ("three", paths),
        ):
            got = measure(*chosen)
            print(
                f"{name:24}{got['objects']:>12,}{got['s']:>8.1f}s{got['peak'] / 1e6:>8.0f} MB"
                f"   {got['first']} ({got['share']:.0%})"
            )
        print(f"{'the bar':24}{5_000_000:>12,}{BAR_S:>8.1f}s{BAR_BYTES / 1e6:>8.0f} MB")


if __name__ == "__main__":
    main()
