"""Recordings: what is refused, and why, and that the same recording says the same again."""

from __future__ import annotations

from pathlib import Path

import pytest

from mwtrace.aggregator import Limits
from mwtrace.errors import ConfigError
from mwtrace.judge.trend import MIB, Thresholds
from mwtrace.model import Verdict
from mwtrace.replay import BEGIN_S, replay, samples

HEAD = b"time_s,private_bytes\n"


def recording(tmp_path: Path, text: bytes) -> Path:
    path = tmp_path / "orders.csv"
    path.write_bytes(text)
    return path


def leak(offset_s: float = 0.0) -> bytes:
    rows = [f"{offset_s + t},{20 * MIB + t * MIB}\n" for t in range(0, 300, 5)]
    return HEAD + "".join(rows).encode()


BAD = {
    "empty": (b"", 1, "empty"),
    "no header": (b"1,2\n", 1, "time_s,private_bytes"),
    "another header": (b"time_s,rss\n1,2\n", 1, "time_s,private_bytes"),
    "UTF-16": ("time_s,private_bytes\n".encode("utf-16"), 1, "time_s,private_bytes"),
    "words": (HEAD + b"1,2\nsoon,much\n", 3, "not a time and a size"),
    "one cell": (HEAD + b"1,2\n3\n", 3, "not a time and a size"),
    "three cells": (HEAD + b"1,2,3\n", 2, "not a time and a size"),
    "a fraction of a byte": (HEAD + b"1,2.5\n", 2, "not a time and a size"),
    "no ASCII": (HEAD + b"1,2\n2,\xff\n", 3, "not a time and a size"),
    "a NUL": (HEAD + b"1,2\n2,\x003\n", 3, "not a time and a size"),
    "backwards": (HEAD + b"1,2\n3,4\n2,4\n", 4, "not after"),
    "twice": (HEAD + b"1,2\n1,4\n", 3, "not after"),
    "less than a nanosecond": (HEAD + b"1,2\n1.0000000000001,4\n", 3, "not after"),
    "NaN": (HEAD + b"nan,2\n", 2, "not after"),
    "infinity": (HEAD + b"1,2\ninf,2\n", 3, "not after"),
    "beyond all clocks": (HEAD + b"1,2\n1e300,2\n", 3, "not after"),
    "negative": (HEAD + b"1,-2\n", 2, "impossible"),
    "too large": (HEAD + b"1,2\n2,%d\n" % (1 << 60), 3, "impossible"),
    "many digits": (HEAD + b"1," + b"9" * 10_000 + b"\n", 2, "impossible"),
    "a line without end": (HEAD + b"1,2\n" + b" " * 100_000, 3, "not a time and a size"),
}


@pytest.mark.parametrize(("text", "line", "why"), BAD.values(), ids=list(BAD))
def test_each_refusal_names_the_file_the_line_and_the_reason(
    tmp_path: Path, text: bytes, line: int, why: str
) -> None:
    path = recording(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        list(replay(path, Thresholds(), Limits()))
    assert f"cannot judge {path}: line {line}: " in str(refused.value)
    assert why in str(refused.value)
    assert refused.value.remedy


def test_a_file_that_never_ends_a_line_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="line 1"):
        list(samples(Path("/dev/zero")))


@pytest.mark.parametrize("name", ["", "absent.csv"])
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot read the recording"):
        list(samples(tmp_path / name))


def test_blank_lines_spaces_and_carriage_returns_are_no_matter(tmp_path: Path) -> None:
    path = recording(tmp_path, b"time_s, private_bytes\r\n7 , 10\r\n\r\n8.5,20\r\n\n")
    assert list(samples(path)) == [(0.0, 10), (1.5, 20)]


@pytest.mark.parametrize("offset_s", [0.0, -4000.0, 1_784_631_845.25])
def test_the_verdicts_do_not_depend_on_when_it_was_recorded(
    tmp_path: Path, offset_s: float
) -> None:
    told = [
        (change.time_s - BEGIN_S, change.now.verdict)
        for change in replay(recording(tmp_path, leak(offset_s)), Thresholds(), Limits())
    ]
    assert [verdict for _, verdict in told][-1] is Verdict.LEAKING
    again = replay(recording(tmp_path, leak()), Thresholds(), Limits())
    assert told == [(change.time_s - BEGIN_S, change.now.verdict) for change in again]


def test_the_subject_is_named_after_the_file(tmp_path: Path) -> None:
    first = next(replay(recording(tmp_path, leak()), Thresholds(), Limits()))
    assert first.subject.id.service.name == "orders"
