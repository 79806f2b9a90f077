"""Write the tables of docs/metrics.md anew, from the catalogue.

    python tests/tools/metric_tables.py

A test holds the two equal; this saves typing when the catalogue has changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from mwtrace.tell import families
from mwtrace.tell.families import PREFIX, Family

FILE = Path(__file__).parents[2] / "docs" / "metrics.md"
SECTIONS = {
    "Services": families.OF_SERVICES,
    "The watch itself": families.OF_THE_WATCH,
    "What was seen": families.OF_WHAT_WAS_SEEN,
    "What was lost": families.OF_WHAT_WAS_LOST,
}


def table(told: Iterable[Family]) -> str:
    rows = ["| metric | type | labels | what it says |", "|---|---|---|---|"]
    for family in told:
        labels = ", ".join(f"`{label}`" for label in family.labels) or "-"
        rows.append(f"| `{PREFIX}{family.name}` | {family.type.value} | {labels} | {family.help} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    text = FILE.read_text()
    for heading, told in SECTIONS.items():
        before, mark, after = text.partition(f"## {heading}\n")
        text = (
            before + mark + re.sub(r"(\|.*\n)+", lambda _, told=told: table(told), after, count=1)
        )
    FILE.write_text(text)


if __name__ == "__main__":
    main()
