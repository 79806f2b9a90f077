"""A recording judged again: the same C, the same judge, another clock.

A recording is a CSV file with the columns time_s and private_bytes; ``mwtrace --pid PID --record
FILE`` writes one, and any spreadsheet can.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Optional, TextIO

from mwtrace.aggregator import NS_PER_S, Aggregator, Limits, RecordBuffer
from mwtrace.errors import ConfigError
from mwtrace.judge.trend import Thresholds
from mwtrace.model import Service, ServiceKind, SubjectId, VerdictChange
from mwtrace.verdicts import Verdicts

COLUMNS = ("time_s", "private_bytes")
_PID = 1
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_SAMPLES_MAX = 10_000_000
_SPAN_MAX_S = 100 * 365 * 86400.0
_LINE_MAX = 200
BEGIN_S = 1.0  # what the first sample's time becomes: the aggregator's clock is above 0


def samples(path: Path) -> Iterator[tuple[float, int]]:
    """Yield (seconds since the first sample, private_bytes).

    Raises ConfigError, naming the line, if it is no recording.
    """
    try:
        # What is no ASCII is no number either, and refused with its line.
        with path.open(newline="", encoding="ascii", errors="surrogateescape") as file:
            yield from _samples(path, file)
    except OSError as error:
        raise ConfigError(f"cannot read the recording {path}: {error.strerror}") from error


def _samples(path: Path, file: TextIO) -> Iterator[tuple[float, int]]:
    first_s: Optional[float] = None
    last_ns = -1
    for number in range(1, _SAMPLES_MAX + 2):
        line = file.readline(_LINE_MAX)
        if not line:
            if number == 1:
                raise _no_recording(path, 1, "there is none: the file is empty")
            return
        cells = [cell.strip() for cell in line.split(",")]
        if number == 1:
            if tuple(cells) != COLUMNS:
                raise _no_recording(path, 1, f"it is not {','.join(COLUMNS)}")
            continue
        if cells == [""] and len(line) < _LINE_MAX:
            continue
        try:
            time_text, size_text = cells
            time_s, private_bytes = float(time_text), int(size_text)
        except ValueError as error:
            raise _no_recording(path, number, "it is not a time and a size") from error
        first_s = time_s if first_s is None else first_s
        since_s = time_s - first_s
        # Not a NaN either; and what is less than a nanosecond later is not later for C.
        if not (0 <= since_s <= _SPAN_MAX_S and round((BEGIN_S + since_s) * NS_PER_S) > last_ns):
            raise _no_recording(path, number, "its time is not after the one before")
        if not 0 <= private_bytes < 1 << 60:
            raise _no_recording(path, number, "its size is impossible")
        last_ns = round((BEGIN_S + since_s) * NS_PER_S)
        yield since_s, private_bytes
    raise _no_recording(path, _SAMPLES_MAX + 1, "it is too long")


def replay(path: Path, thresholds: Thresholds, limits: Limits) -> Iterator[VerdictChange]:
    """Yield the verdict changes, as if the recording had begun with the process.

    Times are seconds since the first sample, plus one.
    """
    aggregator = Aggregator(limits._replace(processes_max=8, services_max=8))
    subject = SubjectId(Service(path.stem, ServiceKind.COMMAND), None)
    verdicts = Verdicts(thresholds, {1: subject}.get, lambda pid: None, lambda process: True)
    records = RecordBuffer(1)
    for since_s, private_bytes in samples(path):
        records.clear()
        records.append(_PID, 0, 0, private_bytes // _PAGE_BYTES, 0, 0, 0, 0, 0, b"")
        table = aggregator.tick(BEGIN_S + since_s, records=records)
        for unnamed in table.unnamed:
            aggregator.name(unnamed.process, 1)
        yield from verdicts.update(table, boot_offset_s=-BEGIN_S)


def _no_recording(path: Path, line: int, why: str) -> ConfigError:
    return ConfigError(f"cannot judge {path}: line {line}: {why}", "See docs/verdicts.md.")
