"""docs/security.md promises tests: each that it names exists, and so does each fuzzer."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()


def test_every_test_that_the_page_names_exists():
    named = set(re.findall(r"\btest_\w+", PAGE))
    there = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        there |= set(re.findall(r"^def (test_\w+)", path.read_text(), re.M))
    assert len(named) > 20
    assert named - there == set()


def test_every_fuzzer_that_the_page_names_exists_and_the_reverse():
    named = set()
    for cell in re.findall(r"`make fuzz`: ([a-z, ]+)", PAGE):
        named |= set(cell.replace(" ", "").split(","))
    fuzzers = {path.stem[5:] for path in (ROOT / "tests" / "fuzz").glob("fuzz_*.[cp]*")}
    assert named | {"replay"} == fuzzers, "replay reads what the operator recorded"
