"""What alerting costs: how soon an alert is there, and whether a dead Alertmanager delays a tick.

    alerts.py [--alerts 100] [--outage 600] [--scale 20] [--interval 5]

Everything is real but the verdicts: the book, the senders, the real Alertmanager on loopback. First
each alert is timed from the tick's verdict until Alertmanager shows it. Then Alertmanager is killed
for --outage seconds (divided by --scale, as are the tick and the client's waits) while incidents go
on opening and closing; ticks are timed, and what Alertmanager holds at the end is compared with
what is open. Needs no root.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import incidents_made
from servers import Alertmanager, wait_until

from mwtrace.model import Happening, IncidentNews
from mwtrace.tell import alertmanager, posting, sender, sinks

CONFIG = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"
SETTLES_WITHIN_S = 120.0


def news(number: int, happening: Happening = Happening.OPENED) -> IncidentNews:
    unix_s = time.time()
    one = replace(incidents_made.incident(number), opened_unix_s=unix_s, updated_unix_s=unix_s)
    if happening is Happening.RESOLVED:
        one = replace(one, resolved_unix_s=unix_s)
    return IncidentNews(happening, one)


def services(server: Alertmanager) -> set[str]:
    return {alert["labels"]["service"] for alert in server.alerts()}


def latencies_s(server: Alertmanager, told: sender.Sender, count: int) -> list[float]:
    """From the end of a tick that finds one to Alertmanager showing it, one after the other."""
    found = []
    for number in range(count):
        began_s = time.monotonic()
        told.put(news(number))
        name = f"orders-{number}.service"
        while name not in services(server):
            assert time.monotonic() - began_s < SETTLES_WITHIN_S
        found.append(time.monotonic() - began_s)
    for number in range(count):
        told.put(news(number, Happening.RESOLVED))
    wait_until(lambda: not services(server), SETTLES_WITHIN_S)
    return found


def outage(
    server: Alertmanager, told: sender.Sender, outage_s: float, interval_s: float
) -> tuple[list[float], set[str]]:
    """Tick on while Alertmanager is away; return what each hand-over took, and what is open."""
    took_s, open_services = [], set()
    number, ends_s = 10_000, time.monotonic() + outage_s
    while time.monotonic() < ends_s:
        tick_s = time.monotonic()
        for _ in range(10):
            number += 1
            told.put(news(number))
            open_services.add(f"orders-{number}.service")
            if number % 2:
                told.put(news(number - 10, Happening.RESOLVED))
                open_services.discard(f"orders-{number - 10}.service")
        took_s.append(time.monotonic() - tick_s)
        time.sleep(max(0.0, tick_s + interval_s - time.monotonic()))
    return took_s, open_services


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--alerts", type=int, default=100)
    parser.add_argument("--outage", type=float, default=600.0)
    parser.add_argument("--scale", type=float, default=20.0)
    parser.add_argument("--interval", type=float, default=5.0)
    asked = parser.parse_args()
    sinks.BACKOFF_MAX_S /= asked.scale
    with tempfile.TemporaryDirectory() as folder:
        server = Alertmanager(Path(folder), CONFIG)
        address = posting.parse_address(server.url, "--alertmanager", alertmanager.API_PATH)
        sink = alertmanager.Alertmanager(
            posting.Peer(address), "host-1", alertmanager.RENEW_S / asked.scale
        )
        told = sender.Sender(sink)
        try:
            found = latencies_s(server, told, asked.alerts)
            worst_s, median_s = max(found), statistics.median(found)
            print(
                f"verdict to alert    median {median_s * 1e3:.1f} ms, worst {worst_s * 1e3:.1f} ms "
                "(bar: one tick + 1,000 ms)"
            )
            server.stop()
            took_s, expected = outage(
                server, told, asked.outage / asked.scale, asked.interval / asked.scale
            )
            failed = told.results()["failed"]
            back_s = time.monotonic()
            server.start()
            wait_until(lambda: services(server) == expected, SETTLES_WITHIN_S)
            caught_up_s = time.monotonic() - back_s
            lost = len(expected - services(server))
            print(
                f"outage              {asked.outage:.0f} s at 1/{asked.scale:.0f} of the time: "
                f"{len(took_s)} ticks of 15 news, {failed} tries failed"
            )
            print(
                f"tick's part         median {statistics.median(took_s) * 1e6:.0f} us, "
                f"jitter (worst - median) "
                f"{(max(took_s) - statistics.median(took_s)) * 1e6:.0f} us"
            )
            print(
                f"after it            {len(expected)} open, {lost} lost, "
                f"all there after {caught_up_s:.1f} s (its start included)"
            )
        finally:
            told.close()
            server.stop()


if __name__ == "__main__":
    main()
