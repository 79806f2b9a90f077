"""A recording judged again: the same C, the same judge, another clock.

A recording is a CSV file with the columns time_s and private_bytes; ``mwtrace --pid PID --record
FILE`` writes one, and any spreadsheet can.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator
from pathlib import Path

from mwtrace.aggregator import Aggregator, Limits, RecordBuffer
from mwtrace.errors import ConfigError
from mwtrace.judge.trend import Thresholds
from mwtrace.model import Service, ServiceKind, SubjectId, VerdictChange
from mwtrace.verdicts import Verdicts

COLUMNS = ("time_s", "private_bytes")
_PID = 1
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_SAMPLES_MAX = 10_000_000
BEGIN_S = 1.0  # what the first sample's time becomes: the aggregator's clock is above 0


def samples(path: Path) -> Iterator[tuple[float, int]]:
    """Yield (time_s, private_bytes); raises ConfigError, naming the line, if it is no recording."""
    try:
        with path.open(newline="", encoding="ascii") as file:
            reader = csv.reader(file)
            if tuple(next(reader, ())) != COLUMNS:
                raise _no_recording(path, 1, f"its first line is not {','.join(COLUMNS)}")
            last_s = -math.inf
            for number, cells in enumerate(reader, start=2):
                try:
                    time_s, private_bytes = float(cells[0]), int(cells[1])
                except (ValueError, IndexError) as error:
                    raise _no_recording(path, number, "not a time and a size") from error
                if not math.isfinite(time_s) or time_s <= last_s:
                    raise _no_recording(path, number, "its time is not after the one before")
                if not 0 <= private_bytes < 1 << 60:
                    raise _no_recording(path, number, "its size is impossible")
                if number > _SAMPLES_MAX:
                    raise _no_recording(path, number, "it is too long")
                last_s = time_s
                yield time_s, private_bytes
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"cannot read the recording {path}: {error}") from error


def replay(path: Path, thresholds: Thresholds, limits: Limits) -> Iterator[VerdictChange]:
    """Yield the verdict changes, as if the recording had begun with the process.

    Times are seconds since the first sample, plus one.
    """
    aggregator = Aggregator(limits._replace(processes_max=8, services_max=8))
    subject = SubjectId(Service(path.stem, ServiceKind.COMMAND), None)
    verdicts = Verdicts(thresholds, {1: subject}.get, lambda pid: None, lambda process: True)
    records = RecordBuffer(1)
    first_s = None
    for time_s, private_bytes in samples(path):
        first_s = time_s if first_s is None else first_s
        offset_s = BEGIN_S - first_s
        records.clear()
        records.append(_PID, 0, 0, private_bytes // _PAGE_BYTES, 0, 0, 0, 0, 0, b"")
        table = aggregator.tick(time_s + offset_s, records=records)
        for unnamed in table.unnamed:
            aggregator.name(unnamed.process, 1)
        yield from verdicts.update(table, boot_offset_s=-BEGIN_S)


def _no_recording(path: Path, line: int, why: str) -> ConfigError:
    return ConfigError(f"cannot judge {path}: line {line}: {why}", "See docs/verdicts.md.")
