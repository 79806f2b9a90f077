"""Feeds recordings to replay: what is accepted must ascend and be judged without a complaint."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports():
    from mwtrace.errors import MwtraceError
    from mwtrace.replay import samples

FILE = Path(tempfile.mkdtemp(prefix="fuzz-replay-")) / "recording.csv"


def one_input(data: bytes) -> None:
    FILE.write_bytes(data)
    last_s = -1.0
    with contextlib.suppress(MwtraceError):
        for time_s, private_bytes in samples(FILE):
            assert time_s > last_s
            assert 0 <= private_bytes < 1 << 60
            last_s = time_s


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
