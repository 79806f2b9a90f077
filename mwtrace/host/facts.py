"""A fact about this host, and how a list of them is shown.

Knows what a fact looks like and none of the facts.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence
from typing import NamedTuple

from mwtrace.host import text


class State(enum.Enum):
    OK = "ok"
    DEGRADED = "degraded"  # works, but less well, or not for every process
    MISSING = "missing"  # does not work at all


class Fact(NamedTuple):
    name: str
    state: State
    detail: str
    remedy: str = ""  # a command, or a line for the unit; "" where nothing needs doing


def conclusion(facts: Sequence[Fact]) -> str:
    """Say in one line what all of it comes to."""
    short = [fact.name for fact in facts if fact.state is not State.OK]
    if not short:
        return "this host can watch everything"
    return f"degraded: {len(short)} of {len(facts)} checks fall short: {', '.join(short)}"


def render(facts: Sequence[Fact]) -> str:
    """Lay the facts out for a terminal, the conclusion first, what falls short before the rest."""
    lines = [text.printable(conclusion(facts)), ""]
    width = max((len(fact.name) for fact in facts), default=0)
    # By rank: sorting keeps the order within one state.
    rank = {State.MISSING: 0, State.DEGRADED: 1, State.OK: 2}
    for fact in sorted(facts, key=lambda fact: rank[fact.state]):
        head = f"{fact.state.value:<8}  {fact.name:<{width}}  "
        lines.append(text.printable(head + fact.detail))
        if fact.remedy:
            lines.append(" " * len(head) + text.printable(f"remedy: {fact.remedy}"))
    return "\n".join(lines) + "\n"


def render_json(facts: Sequence[Fact]) -> str:
    document = {
        "conclusion": conclusion(facts),
        "facts": [
            {
                "name": fact.name,
                "state": fact.state.value,
                "detail": text.printable(fact.detail),
                "remedy": text.printable(fact.remedy),
            }
            for fact in facts
        ],
    }
    return json.dumps(document, indent=2) + "\n"
