"""What the doctor cannot read anywhere and has to try: loading programs and running them."""

from __future__ import annotations

import time

from mwtrace.aggregator import Aggregator, Limits
from mwtrace.host.kernel import TASK_ITERATOR
from mwtrace.probes.engine_libbpf import LibbpfEngine
from mwtrace.sources import BpfSource


def _read_process_table() -> None:
    aggregator = Aggregator(Limits(processes_max=65_536, services_max=2, rows_max=1))
    source = BpfSource(LibbpfEngine(), aggregator)
    try:
        source.tick(time.monotonic())
    finally:
        source.close()


TRIALS = {TASK_ITERATOR: _read_process_table}
