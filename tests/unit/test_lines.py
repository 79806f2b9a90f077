"""Verdict changes as lines and objects, and the summary at exit."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from findings import finding

from mwtrace.model import (
    Judgement,
    Limit,
    NewFinding,
    ProcessId,
    Service,
    ServiceKind,
    Site,
    Snapshot,
    Subject,
    SubjectId,
    Verdict,
    VerdictChange,
)
from mwtrace.tell import lines, losses
from mwtrace.tell.sender import RESULTS
from mwtrace.tell.snapshots import snapshot_json
from mwtrace.tell.units import WallAnchor

ROOT = Path(__file__).resolve().parents[2]
MIB, GIB = 1024**2, 1024**3
ANCHOR = WallAnchor(monotonic_s=5000.0, unix_s=1_784_635_845.0)  # 1000 s: 2026-07-21T11:04:05Z

ORDERS = Service("orders.service", ServiceKind.UNIT)
PROCESS = ProcessId(4711, 12_345_678_901)
SNAPSHOT = Snapshot(
    1000.0,
    PROCESS,
    "orders.service",
    "leaking",
    "taken",
    "/var/lib/mwtrace/snapshots/orders.service-4711-20260721T110405.123Z-leaking.mwsnap",
    18_123_456,
    4_312_345,
    0.0076,
)
LEAK = Judgement(
    Verdict.LEAKING,
    since_s=820.0,
    slope_bytes_per_second=1.02 * MIB,
    slope_low_bytes_per_second=0.98 * MIB,
    slope_high_bytes_per_second=1.05 * MIB,
    grown_bytes=184 * MIB,
    window_s=175.0,
    limit=Limit(GIB, 612 * MIB, "cgroup"),
    forecast_s=600.0,
    why="it rises evenly and does not slow down",
)


def change(
    now: Judgement = LEAK,
    before: Verdict | None = Verdict.GROWING,
    name: str = "orders.service",
    process: ProcessId | None = PROCESS,
    **subject: Any,
) -> VerdictChange:
    fields: dict[str, Any] = {
        "id": SubjectId(Service(name, ServiceKind.UNIT), process),
        "time_s": 1000.0,
        "started_s": 90.0,
        "first_time_s": 100.0,
        "private_bytes": 412 * MIB,
        "file_bytes": 3 * MIB,
        "shmem_bytes": 0,
        "total_vm_bytes": 2 * GIB,
        "process_count": 1,
        "largest_pid": 4711,
        "cgroup_id": 77,
        "levels": (),
    }
    return VerdictChange(1000.0, Subject(**{**fields, **subject}), before, now)


def news() -> NewFinding:
    return NewFinding(1000.0, change().subject, LEAK, finding())


def test_a_leak_says_who_how_fast_since_when_and_how_long_there_is() -> None:
    assert lines.text_line(change(), ANCHOR) == (
        "LEAKING orders.service (pid 4711): +1.02 MiB/s [0.98, 1.05] for 3 min, "
        "412 MiB private (+184 MiB in 2 min), hits its 1.0 GiB cgroup limit in 10 min; "
        "growth consistent with a leak: it rises evenly and does not slow down "
        "[2026-07-21T11:04:05Z]"
    )


def test_a_service_of_several_processes_names_the_largest() -> None:
    line = lines.text_line(change(process=None, process_count=12), ANCHOR)
    assert line.startswith("LEAKING orders.service (12 processes, largest pid 4711): ")


def test_a_service_of_one_process_is_told_as_that_process() -> None:
    assert lines.text_line(change(process=None), ANCHOR) == lines.text_line(change(), ANCHOR)


@pytest.mark.parametrize(
    ("limit", "forecast_s", "words"),
    [
        (None, None, "no limit known"),
        (Limit(16 * GIB, 8 * GIB, "host"), 7200.0, "hits the host's 16.0 GiB in 2 h"),
        (Limit(GIB, 612 * MIB, "cgroup"), None, "612 MiB below its 1.0 GiB cgroup limit"),
        (Limit(GIB, 612 * MIB, "cgroup"), math.inf, "612 MiB below its 1.0 GiB cgroup limit"),
        (Limit(GIB, 0, "cgroup"), 0.0, "is at its 1.0 GiB cgroup limit"),
    ],
)
def test_the_limit_in_words(limit: Limit | None, forecast_s: float | None, words: str) -> None:
    now = dataclasses.replace(LEAK, limit=limit, forecast_s=forecast_s)
    assert f", {words}; growth consistent" in lines.text_line(change(now), ANCHOR)


def test_an_end_of_the_alarm_says_so() -> None:
    line = lines.text_line(change(Judgement(Verdict.STEADY, 990.0), Verdict.LEAKING), ANCHOR)
    assert line == (
        "STEADY orders.service (pid 4711): no longer leaking, 412 MiB private "
        "[2026-07-21T11:04:05Z]"
    )


def test_a_program_that_warms_up_is_told_with_its_slope_but_not_threatened() -> None:
    now = dataclasses.replace(LEAK, verdict=Verdict.WARMING_UP, why="its growth slows down")
    assert lines.text_line(change(now, Verdict.LEARNING), ANCHOR) == (
        "WARMING UP orders.service (pid 4711): +1.02 MiB/s [0.98, 1.05] for 3 min, "
        "412 MiB private (+184 MiB in 2 min); its growth slows down [2026-07-21T11:04:05Z]"
    )


def test_growth_without_a_known_slope_is_told_and_not_called_a_leak() -> None:
    line = lines.text_line(change(Judgement(Verdict.GROWING, 990.0), None), ANCHOR)
    assert line.startswith("GROWING orders.service (pid 4711): grows for 10 s, ")
    assert "not yet called a leak" in line
    assert "consistent with a leak" not in line


HOSTILE = [
    "a\nLEAKING b",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202eecivres",
    "x" * 10_240,
    "注文処理" * 50,
    "z\u0351\u0352" * 500,
    "raw\udcff",
]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_name_or_reason_stays_on_one_line_and_steers_nothing(name: str) -> None:
    now = dataclasses.replace(LEAK, why=name, limit=Limit(GIB, MIB, name))
    line = lines.text_line(change(now, name=name), ANCHOR)
    assert line.isprintable()
    assert line.startswith("LEAKING ")
    assert line.endswith("[2026-07-21T11:04:05Z]")
    assert lines.text_line(change(now, name=name), ANCHOR, unicode=False).isascii()
    object_line = lines.json_line(change(now, name=name), ANCHOR)
    assert object_line.isascii()
    assert object_line.isprintable()
    service = json.loads(object_line)["service"]
    service.encode("utf-8")  # strict: no half surrogate
    assert service == name or "\udcff" in name


def test_an_object_is_what_the_documentation_shows() -> None:
    text = (ROOT / "docs" / "json.md").read_text()
    examples = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    assert [json.loads(example) for example in examples] == [
        lines.json_object(change(), ANCHOR),
        json.loads(lines.finding_json_line(news(), ANCHOR)),
        json.loads(lines.oom_json_line(1000.0, PROCESS, ORDERS, b"python3", 990 * MIB, ANCHOR)),
        json.loads(snapshot_json(SNAPSHOT, ANCHOR)),
    ]


def test_every_key_is_documented_and_every_documented_key_exists() -> None:
    text = (ROOT / "docs" / "json.md").read_text()
    documented = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    oom_kill = json.loads(lines.oom_json_line(1000.0, PROCESS, None, b"", 0, ANCHOR))
    verdict = list(lines.json_object(change(), ANCHOR))
    found = lines.finding_object(finding(), ANCHOR)
    snapshot = list(json.loads(snapshot_json(SNAPSHOT, ANCHOR)))
    snapshot = snapshot[snapshot.index("why") :]  # what comes before is every object's
    assert documented == [
        *verdict,
        *found,
        *(key for key in oom_kill if key not in verdict),
        *snapshot,
    ]


def test_a_verdict_ends_with_what_grows_and_what_to_do() -> None:
    told = lines.text_line(dataclasses.replace(change(), finding=finding()), None)
    assert told.startswith("LEAKING orders.service (pid 4711): +1.02 MiB/s")
    assert told.endswith(
        "; python-objects: 97% of the growth, +31.0 MiB in 35 s, "
        "+183,389 app.Session (556,488 now). "
        "Bound or empty app.SESSIONS[\u2026]: it holds the growing app.Session objects."
    )


def test_memory_that_is_kept_free_is_not_called_a_leak_and_comes_with_an_estimate() -> None:
    kept = finding(kind="allocator-retained", is_leak=False, type_objects_grown=0)
    now = dataclasses.replace(LEAK, verdict=Verdict.GROWING)
    told = lines.text_line(dataclasses.replace(change(now), finding=kept), None)
    assert "; not called a leak: " in told
    assert "malloc_trim() would return about 1.0 MiB of 2.0 MiB kept free (estimate)" in told


def test_a_kind_that_is_known_later_has_a_line_of_its_own() -> None:
    told = lines.finding_line(news(), ANCHOR)
    assert told.startswith("FOUND orders.service (pid 4711), leaking: python-objects: 97%")
    assert told.endswith("objects. [2026-07-21T11:04:05Z]")


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2J", "\udcff", "\u202e"])
def test_hostile_text_in_a_finding_stays_on_its_line_and_steers_nothing(text: str) -> None:
    hostile = finding(why=text, advice=text, type_name=text, holder=text)
    line = lines.finding_line(dataclasses.replace(news(), finding=hostile), ANCHOR)
    assert line.isprintable()
    told = json.loads(lines.finding_json_line(dataclasses.replace(news(), finding=hostile), ANCHOR))
    told["finding"]["type"].encode("utf-8")


def test_a_first_verdict_of_a_service_has_nulls_where_nothing_is_known() -> None:
    first = change(Judgement(Verdict.WARMING_UP, 990.0), None, process=None, largest_pid=0)
    told = lines.json_object(first, ANCHOR)
    assert told["verdict"] == "warming_up"
    unknown = {key for key, value in told.items() if value is None}
    assert unknown == {
        "pid",
        "process_start_s",
        "largest_pid",
        "previous_verdict",
        "slope_bytes_per_second",
        "slope_low_bytes_per_second",
        "slope_high_bytes_per_second",
        "forecast_s",
        "forecast_time",
        "window_s",
        "limit_bytes",
        "limit_headroom_bytes",
        "limit_source",
        "finding",
    }


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_becomes_null(number: float) -> None:
    now = dataclasses.replace(
        LEAK,
        slope_bytes_per_second=number,
        slope_low_bytes_per_second=number,
        slope_high_bytes_per_second=number,
        forecast_s=number,
    )
    told = json.loads(lines.json_line(change(now), ANCHOR), parse_constant=pytest.fail)
    assert told["slope_bytes_per_second"] is None
    assert told["forecast_s"] is None
    assert told["forecast_time"] is None
    assert lines.text_line(change(now), ANCHOR).startswith("LEAKING orders.service")


def test_a_forecast_beyond_the_calendar_has_no_time() -> None:
    told = lines.json_object(change(dataclasses.replace(LEAK, forecast_s=1e15)), ANCHOR)
    assert told["forecast_s"] == 1e15
    assert told["forecast_time"] is None


# --- OOM kills


def test_an_oom_kill_says_who_and_how_large_it_was() -> None:
    assert lines.oom_line(1000.0, PROCESS, ORDERS, b"python3", 990 * MIB, ANCHOR) == (
        "OOM KILL orders.service (pid 4711, python3): "
        "ended by the kernel for want of memory, 990 MiB private [2026-07-21T11:04:05Z]"
    )


def test_an_oom_kill_of_a_stranger_says_what_is_not_known() -> None:
    line = lines.oom_line(1000.0, PROCESS, None, b"sh\0garbage", 0, ANCHOR)
    assert line.startswith("OOM KILL a process of no known service (pid 4711, sh): ")
    assert "never seen by a tick" in line
    told = json.loads(lines.oom_json_line(1000.0, PROCESS, None, b"sh", 0, ANCHOR))
    assert [told["service"], told["service_kind"], told["private_bytes"]] == [None] * 3


@pytest.mark.parametrize("comm", [b"a\nLEAKING b", b"\x1b[2J", b"\xff\xfe", "\u202ex".encode()])
def test_a_hostile_comm_stays_on_its_line(comm: bytes) -> None:
    assert lines.oom_line(1000.0, PROCESS, ORDERS, comm, 1, ANCHOR).isprintable()
    told = lines.oom_json_line(1000.0, PROCESS, ORDERS, comm, 1, ANCHOR)
    assert told.isascii()
    json.loads(told)["comm"].encode("utf-8")


# --- the summary


def totals(**fields: Any) -> lines.Totals:
    counters = {
        "process_count": 4015,
        "service_count": 214,
        "ticks_total": 720,
        "processes_born_total": 1203,
        "processes_gone_total": 980,
        "events_total": 2411,
        **fields.pop("counters", {}),
    }
    defaults: dict[str, Any] = {
        "watched_s": 3600.0,
        "source": "BPF",
        "verdict_counts": {Verdict.STEADY: 200, Verdict.LEARNING: 14},
        "changes_total": 3,
        "leaking": (),
    }
    return lines.Totals(counters=counters, **{**defaults, **fields})


def test_a_calm_run_says_what_was_seen_and_that_nothing_was_lost() -> None:
    assert lines.summary(totals()) == [
        "nothing leaks",
        "seen: 4,015 processes of 214 services, 720 ticks in 1 h through BPF; "
        "1,203 processes started, 980 ended, 2,411 lifecycle events, 3 verdict changes",
        "services at the end: 200 steady, 14 learning",
        "lost: nothing",
    ]


def test_the_leaking_services_are_named_first() -> None:
    counts = {Verdict.LEAKING: 7}
    summary = lines.summary(totals(verdict_counts=counts, leaking=tuple("abcdefg")))
    assert summary[0] == "7 services LEAKING: a, b, c, d, e, and 2 more"
    summary = lines.summary(totals(verdict_counts={Verdict.LEAKING: 1}, leaking=("x\x1b[2J",)))
    assert summary[0] == r"1 service LEAKING: x\x1b[2J"


def test_a_run_too_short_to_judge_does_not_claim_that_nothing_leaks() -> None:
    summary = lines.summary(totals(verdict_counts={Verdict.LEARNING: 214}))
    assert summary[0] == "no verdict: not watched long enough to judge anything"
    assert lines.summary(totals(verdict_counts={}))[2] == "services at the end: none judged"


def fields_of(struct: str) -> list[str]:
    text = (ROOT / "cext" / "aggregator.h").read_text()
    body = re.search(rf"struct {struct} {{(.*?)}};", text, re.DOTALL)
    assert body
    return re.findall(r"\buint64_t (\w+);", body[1])


def kernel_losses() -> list[str]:
    text = (ROOT / "bpf" / "events.h").read_text()
    return [name.lower() for name in re.findall(r"\bMW_LOSS_(\w+) =", text)]


def python_losses() -> set[str]:
    rooms = (
        "daemon",
        "sources",
        "escalation/cases",
        "escalation/snapshots",
        "incidents/book",
        "keeping",
        "state/writer",
        "ration",
        "supervised",
    )
    modules = [ROOT / "mwtrace" / f"{name}.py" for name in rooms]
    return {name for path in modules for name in re.findall(r'"(\w+_total)"', path.read_text())}


def test_every_counter_of_the_headers_and_of_the_daemon_is_told() -> None:
    names = fields_of("mw_counters") + kernel_losses()
    assert len(names) >= 19
    assert len(python_losses()) >= 4
    names += python_losses()
    names += [f"notifications_{result}_total" for result in RESULTS]
    assert sorted(names) == sorted([*losses.SEEN, *losses.LOSSES])


@pytest.mark.parametrize("name", losses.LOSSES)
def test_each_loss_is_told_at_exit_with_its_meaning(name: str) -> None:
    summary = lines.summary(totals(counters={name: 1234}))
    loss = losses.LOSSES[name]
    head = "lost" if loss.weakens_verdicts else "note"
    assert f"{head}: 1,234 {loss.short}: {loss.meaning}" in summary
    assert ("lost: nothing" in summary) != loss.weakens_verdicts


def test_the_table_warns_only_of_losses_that_weaken_a_verdict() -> None:
    counters = {name: 1 for name in losses.LOSSES}
    short = losses.short_words(counters)
    assert len(short) == len([loss for loss in losses.LOSSES.values() if loss.weakens_verdicts])
    assert short[0] == "1 process records untracked"
    assert losses.short_words({"events_unmatched_total": 900, "ticks_total": 7}) == ()


def test_what_cannot_be_seen_is_not_called_lost() -> None:
    summary = lines.summary(totals(blind=("OOM kills: no BPF",)))
    assert summary[-2:] == ["not seen: OOM kills: no BPF", "lost: nothing"]


SITES = (
    Site("orders/app.py:remember (line 31)", ("remember", "main"), 0.94, "audited survivors"),
    Site("evil\x1b[2J:f", ("f",), 0.03, "sampled growth"),
)


def test_where_it_is_allocated_stands_behind_the_verdict() -> None:
    line = lines.text_line(dataclasses.replace(change(), sites=SITES), None)
    assert "; 94% allocated in orders/app.py:remember (line 31), by audited survivors; 3%" in line
    assert line.isprintable()


def test_sites_are_objects_in_json_and_documented() -> None:
    told = lines.json_object(dataclasses.replace(change(), sites=SITES), ANCHOR)
    documented = (ROOT / "docs" / "json.md").read_text()
    for site in told["sites"]:
        for key in site:
            assert f"\n| {key} |" in documented
    assert told["sites"][0]["share"] == 0.94
