"""What serving costs and survives, beside its bars; prints the figures of docs/service.md.

    serve.py [--times 50] [start|save|kill|reload ...]

start   from exec to the first tick, and from SIGTERM to the end, with state to restore
save    what saving a tick costs the loop, its thread and the disk, at 4,000 and 30,000 processes
kill    SIGKILLs at random moments in a systemd that really boots: what is known afterwards
reload  reloads there

Needs root and an installed mwtrace.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from watch import MIB, MWTRACE

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

CONFIG = '[watch]\ninterval = "500ms"\nverbose = true\n[service."*"]\nwarm-up = "5s"\n'


def bench_start(times: int) -> None:
    began: list[float] = []
    ended: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        heard.bind(f"{folder}/notify")
        heard.settimeout(30)
        words = ["--all", "--watch-only", "--json", "--state-dir", f"{folder}/state"]
        # As installed: with byte code, made by a first start that does not count.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        subprocess.run([*MWTRACE, "--version"], env=environment, stdout=subprocess.DEVNULL)
        for _ in range(times):
            start_s = time.monotonic()
            watch = subprocess.Popen(
                [*MWTRACE, *words],
                env={**environment, "NOTIFY_SOCKET": f"{folder}/notify"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            while b"READY=1" not in heard.recv(4096):
                pass
            began.append(time.monotonic() - start_s)
            stop_s = time.monotonic()
            watch.send_signal(signal.SIGTERM)
            watch.wait(30)
            ended.append(time.monotonic() - stop_s)
    print(f"start to first tick  {_spread(began)} (bar: 1.0 s)")
    print(f"SIGTERM to the end   {_spread(ended)} (bar: 2 s)")


def bench_save(times: int) -> None:
    from mwtrace.aggregator import Aggregator, Limits, RecordBuffer
    from mwtrace.state.store import Batch, Store

    for processes in (4_000, 30_000):
        dice = random.Random(1)
        aggregator = Aggregator(Limits())
        records = RecordBuffer(processes)
        pages = [dice.randrange(500, 50_000) for _ in range(processes)]
        save_s: list[float] = []
        write_s: list[float] = []
        sizes: list[int] = []
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder) / "state", {})
            # Twice through all histories, so that what is timed is the usual tick.
            for tick in range(1, 121 + times):
                records.clear()
                for pid, size in enumerate(pages, 1):
                    pages[pid - 1] = size + dice.choice((0, 0, 0, 1, 5, -3))
                    records.append(pid, pid, 1, size, 0, 0, 0, 0, 1, b"program")
                aggregator.tick(tick * 5.0, records=records)
                began_s = time.perf_counter()
                saved = aggregator.save()
                save_s.append(time.perf_counter() - began_s)
                sizes.append(len(saved.body))
                began_s = time.perf_counter()
                store.write(Batch(saved.tick, saved.oldest_tick, saved.body, {}, []))
                write_s.append(time.perf_counter() - began_s)
            disk = sum(file.stat().st_size for file in (Path(folder) / "state").iterdir())
            began_s = time.perf_counter()
            second = Aggregator(Limits())
            taken = sum(second.restore(body, tick * 5.0 + 1) for body in store.ticks())
            restore_s = time.perf_counter() - began_s
            store.close()
        print(f"{processes:,} processes")
        print(f"  save, in the loop     {_spread(save_s[120:])}")
        print(f"  write, in its thread  {_spread(write_s[120:])}")
        print(f"  bytes of a tick       {statistics.median(sizes[120:]) / 1024:.0f} KiB unpacked")
        print(f"  file                  {disk / MIB:.1f} MiB")
        print(f"  restore               {restore_s * 1000:.0f} ms from {taken} ticks")


def bench_kill(times: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        system = _booted(Path(folder))
        try:
            dice = random.Random(1)
            kept = retold = damaged = 0
            for number in range(times):
                before = _told(system)
                time.sleep(dice.uniform(0, 1))
                os.kill(system.main_pid("mwtrace"), signal.SIGKILL)
                restarts = str(number + 1)
                system.wait_for(
                    lambda r=restarts: system.show("mwtrace", "NRestarts") == r, "restart"
                )
                system.wait_for(lambda: system.show("mwtrace", "ActiveState") == "active", "start")
                status = system.show("mwtrace", "StatusText")
                kept += bool(re.search("(growing|leaking)", status))
                retold += len(_told(system)[len(before) :])
            damaged = system.journal("mwtrace").count("damaged")
        finally:
            system.stop()
    print(f"SIGKILL at random moments  {times} times")
    print(f"  verdict known at once    {kept} of {times}")
    print(f"  verdicts told meanwhile  {retold} (a higher one, or one whose tick was lost)")
    print(f"  damaged files            {damaged}")


def bench_reload(times: int) -> None:
    took_s = []
    with tempfile.TemporaryDirectory() as folder:
        system = _booted(Path(folder))
        try:
            pid = system.main_pid("mwtrace")
            for number in range(times):
                text = CONFIG.replace("500ms", f"{500 + number}ms")
                system.write("/etc/mwtrace/mwtrace.toml", text)
                began_s = time.monotonic()
                system.run("systemctl", "reload", "mwtrace")
                took_s.append(time.monotonic() - began_s)
            is_same = system.main_pid("mwtrace") == pid
            told = _told(system)
        finally:
            system.stop()
    learned_again = "LEARNING" in told[told.index("GROWING") :]
    print(f"reloads  {times}, {_spread(took_s)} each; same process: {is_same}; ", end="")
    print(f"learned again: {learned_again}")


def _booted(folder: Path):
    from booted import Booted, python

    system = Booted(folder)
    try:
        system.mwtrace("service", "install")
        system.write("/etc/mwtrace/mwtrace.toml", CONFIG)
        demo = f"{python()} -m mwtrace demo leak-objects --rate 4M"
        environment = "Environment=PYTHONPATH=/opt/mwtrace:/opt/site-packages"
        system.write(
            "/etc/systemd/system/orders.service", f"[Service]\n{environment}\nExecStart={demo}\n"
        )
        drop_in = "/etc/systemd/system/mwtrace.service.d"
        system.run("mkdir", drop_in)
        system.write(
            f"{drop_in}/kills.conf", "[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestartSec=0\n"
        )
        system.run("systemctl", "daemon-reload")
        system.run("systemctl", "start", "orders", "mwtrace")
        system.wait_for(lambda: "GROWING" in _told(system), "verdict")
    except BaseException:
        system.stop()
        raise
    return system


def _told(system) -> list[str]:
    return re.findall(r"^([A-Z ]+?) orders\.service", system.journal("mwtrace"), re.M)


def _spread(values_s: list[float]) -> str:
    ordered = sorted(values_s)
    median, worst = statistics.median(ordered), ordered[-1]
    return f"{median * 1000:.1f} ms, at most {worst * 1000:.1f} ms"


BENCHES = {"start": bench_start, "save": bench_save, "kill": bench_kill, "reload": bench_reload}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("what", nargs="*", default=list(BENCHES))
    asked = parser.parse_args()
    for name in asked.what:
        BENCHES[name](asked.times)


if __name__ == "__main__":
    main()
