"""Views for the tests of the live table, and for the program that shows one in a real terminal."""

from __future__ import annotations

import dataclasses
from datetime import timezone

from mwtrace.model import Verdict
from mwtrace.tell.view import Row, Style, View

MIB, GIB = 1024**2, 1024**3
NOW = 1_784_631_845.0  # 2026-07-21T11:04:05Z
PLAIN = Style(color=False, unicode=True, zone=timezone.utc)
ASCII = PLAIN._replace(unicode=False)
COLOR = PLAIN._replace(color=True)

CRON = Row("cron.service", Verdict.STEADY, 3 * MIB, history=(3.0 * MIB,) * 10)
ORDERS = Row(
    "orders.service",
    Verdict.LEAKING,
    412 * MIB,
    process_count=4,
    slope_bytes_per_second=1.02 * MIB,
    since_unix_s=NOW - 180,
    forecast_s=600,
    limit_bytes=GIB,
    history=tuple(228.0 * MIB + 3 * MIB * tick for tick in range(60)),
)
BATCH = Row(
    "nightly-report@warehouse-42.service",
    Verdict.GROWING,
    2 * GIB,
    process_count=12,
    slope_bytes_per_second=12 * MIB / 86400,
    since_unix_s=NOW - 2 * 86400,
    forecast_s=400 * 86400,
    limit_bytes=8 * GIB,
    history=tuple(2.0 * GIB - 12 * MIB + MIB * tick for tick in range(12)),
)
YOUNG = Row("web (uvicorn)", Verdict.WARMING_UP, 90 * MIB, pid=4711, history=(1e7, 5e7, 9e7))

CALM = View(
    time_unix_s=NOW,
    since_unix_s=NOW - 7200,
    tick_s=5,
    source="BPF",
    process_count=4015,
    service_count=214,
    verdict_counts={Verdict.STEADY: 214},
    rows=(CRON,),
)
ALARM = dataclasses.replace(
    CALM,
    verdict_counts={
        Verdict.LEAKING: 1,
        Verdict.GROWING: 1,
        Verdict.WARMING_UP: 1,
        Verdict.STEADY: 211,
    },
    rows=(CRON, YOUNG, BATCH, ORDERS),
)

ALARM_80 = [
    "1 leaking: orders.service hits its limit in 10 min; restart it before 11:14",
    "11:04:05 BPF, every 5 s; nothing lost",
    "SERVICE                  PRIVATE       SLOPE VERDICT     SINCE LIMIT IN HISTORY",
    "orders.service           412 MiB  +1.0 MiB/s LEAKING     11:01      10m ▁▂▃▄▅▆▇█",
    "nightly-report@…service  2.0 GiB +12.0 MiB/d growing    Jul 19     400d ▁▁▁▁▁▁▁▁",
    "web (uvicorn) (4711)    90.0 MiB           - warming up      -        -      ▁▅█",
    "cron.service             3.0 MiB           - steady          -        - ▁▁▁▁▁▁▁▁",
]
ALARM_40 = [
    "LEAK: orders.service, limit in 10m",
    "11:04:05 BPF, every 5 s; nothing lost",
    "SERVICE                 SLOPE VERDICT",
    "orders.service     +1.0 MiB/s LEAKING",
    "nightly-rep…rvice +12.0 MiB/d growing",
    "web (uvicor…4711)           - warming up",
    "cron.service                - steady",
]
